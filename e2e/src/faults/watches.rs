//! The events of running watches: late, frozen, or ended by 410.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::{StreamExt, stream};
use http::StatusCode;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{Shared, answer::status, call::Call, rules::Fault};

/// A line of a watch, and when it came.
type Event = (Instant, Result<Bytes, axum::Error>);

/// The events of a watch, each under the rules at the moment when it is its turn.
pub(super) fn under_rules(events: Body, call: Call, shared: Arc<Shared>) -> Body {
    // The server is read on whatever becomes of the events, as a network with large buffers does.
    let (arrived, waiting) = mpsc::unbounded_channel();
    tokio::spawn(read(events, arrived));
    // One at a time: what the client does not read waits here, under the rules.
    let (sender, mut receiver) = mpsc::channel(1);
    tokio::spawn(deliver(waiting, sender, call, shared));
    Body::from_stream(stream::poll_fn(move |context| receiver.poll_recv(context)))
}

/// Cuts the body into lines: an event each.
async fn read(events: Body, arrived: mpsc::UnboundedSender<Event>) {
    let mut chunks = events.into_data_stream();
    let mut partial = Vec::new();
    loop {
        let chunk = tokio::select! {
            chunk = chunks.next() => chunk,
            () = arrived.closed() => return,
        };
        let now = Instant::now();
        let chunk = match chunk {
            Some(Ok(chunk)) => chunk,
            Some(Err(error)) => return drop(arrived.send((now, Err(error)))),
            None => return,
        };
        partial.extend_from_slice(&chunk);
        let Some(end) = partial.iter().rposition(|byte| *byte == b'\n') else { continue };
        let rest = partial.split_off(end + 1);
        for line in std::mem::replace(&mut partial, rest).split_inclusive(|byte| *byte == b'\n') {
            // Whoever receives has gone when this fails; then the next round ends.
            let _ = arrived.send((now, Ok(Bytes::copy_from_slice(line))));
        }
    }
}

async fn deliver(
    mut waiting: mpsc::UnboundedReceiver<Event>,
    client: mpsc::Sender<Result<Bytes, axum::Error>>,
    call: Call,
    shared: Arc<Shared>,
) {
    let mut rules = shared.rules.changes();
    let mut next: Option<Event> = None;
    loop {
        rules.borrow_and_update();
        let rule = shared.rules.of_events(&call);
        let due = match rule.as_ref().map(|active| &active.rule.fault) {
            Some(Fault::Gone) => {
                if let Some(rule) = &rule {
                    rule.note_hit();
                }
                return drop(client.send(Ok(gone())).await);
            }
            Some(Fault::Freeze) => None,
            Some(Fault::Late(time)) => Some(*time),
            _ => Some(Duration::ZERO),
        };
        if let (Some(rule), Some(_)) = (&rule, &next) {
            rule.note_hit();
        }
        let go = async {
            match (&next, due) {
                (Some((arrived, _)), Some(after)) => sleep_until(*arrived + after).await,
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = client.closed() => return,
            changed = rules.changed() => if changed.is_err() { return },
            () = go => {
                let Some((_, event)) = next.take() else { continue };
                if client.send(event).await.is_err() {
                    return;
                }
            }
            event = waiting.recv(), if next.is_none() => match event {
                Some(event) => next = Some(event),
                None => return,
            },
        }
    }
}

/// The event by which an API server ends a watch that is too old.
fn gone() -> Bytes {
    let status = status(StatusCode::GONE, "Expired", "too old resource version (a planted fault)");
    Bytes::from(format!("{}\n", json!({"type": "ERROR", "object": status})))
}
