//! What of an API server a lease needs, on a thread of its own, and a way to it that can hang.

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context, Result};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};
use k8s_openapi::api::coordination::v1::Lease;
use serde_json::json;
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
};

/// The path of the one lease that is served.
const LEASES: &str = "/apis/coordination.k8s.io/v1/namespaces/default/leases";

#[derive(Clone, Default)]
struct Stored(Arc<Mutex<(u64, Option<Lease>)>>);

/// An API server that serves one lease.
pub struct Api {
    stored: Stored,
    address: SocketAddr,
}

impl Api {
    pub fn start() -> Result<Self> {
        let stored = Stored::default();
        let router = Router::new()
            .route(LEASES, get(|| async { StatusCode::NOT_FOUND }).post(create))
            .route(&format!("{LEASES}/lease"), get(read).put(replace))
            .with_state(stored.clone());
        let address = serve(move |listener| async move {
            let _ = axum::serve(listener, router).await;
        })?;
        Ok(Self { stored, address })
    }

    /// A way to it.
    pub fn way(&self) -> Result<Way> {
        let (frozen, hang_next) = (watch::Sender::new(0), Arc::new(AtomicUsize::new(0)));
        let way = (frozen.clone(), hang_next.clone(), self.address);
        let address = serve(move |listener| async move {
            let (frozen, hang_next, server) = way;
            while let Ok((client, _)) = listener.accept().await {
                let hangs = hang_next.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
                tokio::spawn(carry(client, server, hangs.is_ok(), frozen.subscribe()));
            }
        })?;
        Ok(Way { address, frozen, hang_next })
    }

    /// The lease as it is.
    pub fn lease(&self) -> Option<Lease> {
        self.stored.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone()
    }

    pub fn holder(&self) -> Option<String> {
        self.lease()?.spec?.holder_identity
    }

    pub fn transitions(&self) -> Option<i32> {
        self.lease()?.spec?.lease_transitions
    }
}

/// A way to the API server.
pub struct Way {
    address: SocketAddr,
    frozen: watch::Sender<u32>,
    hang_next: Arc<AtomicUsize>,
}

impl Way {
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn config(&self) -> Result<kube::Config> {
        Ok(kube::Config::new(self.url().parse()?))
    }

    /// Connections that are open carry nothing any more, and are not closed; nor do the next ones that are opened.
    pub fn freeze(&self, next: usize) {
        self.hang_next.store(next, Ordering::SeqCst);
        self.frozen.send_modify(|frozen| *frozen += 1);
    }

    /// New connections work again.
    pub fn thaw(&self) {
        self.hang_next.store(0, Ordering::SeqCst);
    }
}

/// Serves on a port of its own, from a thread of its own, until the test ends.
fn serve<F, Done>(serve: F) -> Result<SocketAddr>
where
    F: FnOnce(TcpListener) -> Done + Send + 'static,
    Done: Future<Output = ()>,
{
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    std::thread::Builder::new().spawn(move || {
        runtime.block_on(async {
            if let Ok(listener) = TcpListener::from_std(listener) {
                serve(listener).await;
            }
        });
    })?;
    Ok(address)
}

/// A proxy that can be ended, with all that it carries.
pub struct Proxy {
    pub address: SocketAddr,
    carried: Arc<AtomicUsize>,
    stop: watch::Sender<bool>,
}

impl Proxy {
    pub fn connections(&self) -> usize {
        self.carried.load(Ordering::SeqCst)
    }

    pub fn stop(&self) {
        self.stop.send_replace(true);
    }
}

pub fn proxy(to: SocketAddr) -> Result<Proxy> {
    let ((stop, mut stopped), carried) = (watch::channel(false), Arc::new(AtomicUsize::new(0)));
    let count = carried.clone();
    let address = serve(move |listener| async move {
        let carry = async {
            let mut connections = tokio::task::JoinSet::new();
            while let Ok((mut client, _)) = listener.accept().await {
                count.fetch_add(1, Ordering::SeqCst);
                connections.spawn(async move {
                    let mut server = TcpStream::connect(to).await?;
                    tokio::io::copy_bidirectional(&mut client, &mut server).await
                });
            }
        };
        tokio::select! {
            () = carry => {}
            _ = stopped.wait_for(|stopped| *stopped) => {}
        }
    })?;
    Ok(Proxy { address, carried, stop })
}

async fn carry(mut client: TcpStream, server: SocketAddr, hangs: bool, mut frozen: watch::Receiver<u32>) -> Result<()> {
    if !hangs {
        let mut server = TcpStream::connect(server).await.context("the server is there")?;
        tokio::select! {
            _ = tokio::io::copy_bidirectional(&mut client, &mut server) => return Ok(()),
            _ = frozen.changed() => {}
        }
    }
    // Open, and silent.
    std::future::pending::<()>().await;
    drop(client);
    Ok(())
}

async fn read(State(stored): State<Stored>) -> Response {
    match &stored.0.lock().unwrap_or_else(PoisonError::into_inner).1 {
        Some(lease) => Json(lease.clone()).into_response(),
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
    }
}

async fn create(State(stored): State<Stored>, Json(lease): Json<Lease>) -> Response {
    if stored.0.lock().unwrap_or_else(PoisonError::into_inner).1.is_some() {
        return failure(StatusCode::CONFLICT, "AlreadyExists");
    }
    write(&stored, lease)
}

async fn replace(State(stored): State<Stored>, Json(lease): Json<Lease>) -> Response {
    let before = stored.0.lock().unwrap_or_else(PoisonError::into_inner).1.clone();
    match before {
        None => failure(StatusCode::NOT_FOUND, "NotFound"),
        Some(before) if before.metadata.resource_version != lease.metadata.resource_version => {
            failure(StatusCode::CONFLICT, "Conflict")
        }
        Some(_) => write(&stored, lease),
    }
}

fn write(stored: &Stored, mut lease: Lease) -> Response {
    let mut stored = stored.0.lock().unwrap_or_else(PoisonError::into_inner);
    stored.0 += 1;
    lease.metadata.resource_version = Some(stored.0.to_string());
    stored.1 = Some(lease.clone());
    Json(lease).into_response()
}

fn failure(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "reason": reason, "message": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}
