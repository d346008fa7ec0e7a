//! The connections of clients: open, silent or reset.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use hyper::{server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tokio_rustls::TlsAcceptor;

use super::{
    Shared,
    call::Call,
    forward,
    rules::{Fault, Rules},
};

/// Whether bytes move.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Line {
    Open,
    Silent,
    Reset,
}

/// One connection of a client.
pub(super) struct Connection {
    pub(super) number: u64,
    line: watch::Sender<Line>,
    /// What it is busy with, or was last.
    call: Mutex<Option<Call>>,
}

impl Connection {
    pub(super) fn begins(&self, call: &Call) {
        *self.call.lock().unwrap_or_else(PoisonError::into_inner) = Some(call.clone());
    }

    /// The connection ends with RST.
    pub(super) fn reset(&self) {
        self.line.send_replace(Line::Reset);
    }

    /// Puts the line into the state that the rules want.
    pub(super) fn follow(&self, rules: &Rules) {
        let call = self.call.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let rule = rules.of_connection(self.number, call.as_ref());
        let wanted = match rule.as_ref().map(|active| &active.rule.fault) {
            Some(Fault::Silence | Fault::SilenceOpen) => Line::Silent,
            Some(Fault::Reset) => Line::Reset,
            _ => Line::Open,
        };
        let changed = self.line.send_if_modified(|line| {
            // There is no way back from a reset.
            let changed = *line != Line::Reset && *line != wanted;
            if changed {
                *line = wanted;
            }
            changed
        });
        if let Some(rule) = rule.filter(|_| changed) {
            rule.note_hit();
        }
    }
}

/// Those that are open.
#[derive(Default)]
pub(super) struct Connections {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Arc<Connection>>>,
}

impl Connections {
    /// All of them follow the rules as they are now.
    pub(super) fn follow(&self, rules: &Rules) {
        self.open
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .for_each(|connection| connection.follow(rules));
    }

    /// The number of the next one.
    pub(super) fn next(&self) -> u64 {
        self.next.load(Ordering::Relaxed)
    }

    pub(super) fn count(&self) -> usize {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    fn add(&self) -> Arc<Connection> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let connection = Arc::new(Connection { number, line: watch::Sender::new(Line::Open), call: Mutex::new(None) });
        self.open.lock().unwrap_or_else(PoisonError::into_inner).insert(number, connection.clone());
        connection
    }

    fn remove(&self, number: u64) {
        self.open.lock().unwrap_or_else(PoisonError::into_inner).remove(&number);
    }
}

/// Accepts connections until the listener fails; they end with this future.
pub(super) async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut serving = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        while serving.try_join_next().is_some() {}
        let (acceptor, shared) = (acceptor.clone(), shared.clone());
        serving.spawn(async move {
            let connection = shared.connections.add();
            connection.follow(&shared.rules);
            serve(stream, acceptor, &connection, &shared).await;
            shared.connections.remove(connection.number);
        });
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, connection: &Arc<Connection>, shared: &Arc<Shared>) {
    let mut line = connection.line.subscribe();
    // Silent from the first byte: the kernel has accepted it, and that is all.
    match line.wait_for(|line| *line != Line::Silent).await.map(|line| *line) {
        Ok(Line::Open) => {}
        _ => return drop(stream.set_zero_linger()),
    }
    // Answers and events are small.
    let _ = stream.set_nodelay(true);
    let Some(Ok(stream)) = while_open(line.clone(), acceptor.accept(stream)).await else { return };
    let answering = service_fn(|request| forward::answer(request, shared.clone(), connection.clone()));
    let mut http = http1::Builder::new().serve_connection(TokioIo::new(stream), answering);
    if while_open(line, &mut http).await.is_none() {
        let stream = http.into_parts().io.into_inner();
        // Closing it is now a reset.
        let _ = stream.get_ref().0.set_zero_linger();
    }
}

/// Runs `work` while the line is open. While it is silent nothing is done at all: neither are bytes read nor written,
/// nor calls forwarded. `None` when the line was reset.
async fn while_open<F: Future + Unpin>(mut line: watch::Receiver<Line>, mut work: F) -> Option<F::Output> {
    loop {
        let now = *line.borrow_and_update();
        let changed = line.changed();
        match now {
            Line::Open => tokio::select! {
                biased;
                changed = changed => changed.ok()?,
                done = &mut work => return Some(done),
            },
            Line::Silent => changed.await.ok()?,
            Line::Reset => return None,
        }
    }
}
