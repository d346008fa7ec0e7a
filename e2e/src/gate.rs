//! A gate in front of the API server that shuts after a number of writes: so a process can be killed between any two of them.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::Result;
use axum::{
    Router,
    body::Body,
    extract::{Request, State},
    response::{IntoResponse, Response},
};
use http::{Method, StatusCode, header};
use kube::Client;
use tokio::{net::TcpListener, sync::watch};
use tokio_util::task::AbortOnDropHandle;

use crate::control_plane::ControlPlane;

/// Bytes of a request: more than etcd takes.
const LONGEST_REQUEST: usize = 4 << 20;

/// A reverse proxy of the API server; whoever comes through it keeps the identity of his own token.
pub struct Gate {
    address: SocketAddr,
    shared: Arc<Shared>,
    _server: AbortOnDropHandle<()>,
}

struct Shared {
    client: Client,
    state: Mutex<Passage>,
    shut: watch::Sender<bool>,
}

/// Who may pass.
#[derive(Clone, Copy, Debug)]
enum Passage {
    /// Everybody.
    Open,
    /// So many writes; the answer to the last of them is kept.
    Writes(usize),
    /// No write.
    Shut,
}

/// What becomes of one request.
enum Verdict {
    Passes,
    /// It passes, and its answer does not come back.
    IsLast,
    IsHeld,
}

impl Gate {
    /// Opens the gate.
    ///
    /// # Errors
    /// When there is no port, or no client for the control plane.
    pub async fn start(control_plane: &ControlPlane) -> Result<Self> {
        let mut config = control_plane.config_for_user("gate", None).await?;
        // The gate itself is nobody.
        config.auth_info = kube::config::AuthInfo::default();
        let (shut, _) = watch::channel(false);
        let shared = Arc::new(Shared { client: Client::try_from(config)?, state: Mutex::new(Passage::Open), shut });
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(pass).with_state(shared.clone());
        let server = tokio::spawn(async move {
            // It ends with its listener.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, shared, _server: AbortOnDropHandle::new(server) })
    }

    /// Its URL.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets so many more writes through, at least one. The API server carries the last of them out, but its answer is kept;
    /// whoever waits for it waits on. Leases, Events and reviews do not count, and pass until then.
    pub fn shut_after(&self, writes: usize) {
        *self.shared.passage() = Passage::Writes(writes.max(1));
    }

    /// Comes when the last write is carried out.
    pub async fn shut(&self) {
        // The sender lives as long as self.
        let _ = self.shared.shut.subscribe().wait_for(|shut| *shut).await;
    }

    /// Lets everybody through again. What was held is dropped.
    pub fn open(&self) {
        self.shared.shut.send_replace(false);
        *self.shared.passage() = Passage::Open;
    }
}

impl Shared {
    fn passage(&self) -> std::sync::MutexGuard<'_, Passage> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn judge(&self, method: &Method, path: &str) -> Verdict {
        let writes = matches!(*method, Method::POST | Method::PUT | Method::PATCH | Method::DELETE);
        let aside = ["/leases/", "/leases", "/events", "reviews"].iter().any(|end| path.contains(end));
        let mut passage = self.passage();
        match *passage {
            Passage::Open => Verdict::Passes,
            Passage::Shut if writes => Verdict::IsHeld,
            Passage::Writes(left) if writes && !aside => {
                let last = left <= 1;
                *passage = if last { Passage::Shut } else { Passage::Writes(left - 1) };
                if last { Verdict::IsLast } else { Verdict::Passes }
            }
            Passage::Writes(_) | Passage::Shut => Verdict::Passes,
        }
    }
}

async fn pass(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    let verdict = shared.judge(request.method(), request.uri().path());
    if matches!(verdict, Verdict::IsHeld) {
        return std::future::pending().await;
    }
    let (mut head, body) = request.into_parts();
    // They belong to one connection.
    for name in [header::HOST, header::CONNECTION] {
        head.headers.remove(name);
    }
    let Ok(body) = axum::body::to_bytes(body, LONGEST_REQUEST).await else {
        return StatusCode::PAYLOAD_TOO_LARGE.into_response();
    };
    let answer = shared.client.send(http::Request::from_parts(head, body.into())).await;
    if matches!(verdict, Verdict::IsLast) {
        shared.shut.send_replace(true);
        return std::future::pending().await;
    }
    match answer {
        Ok(answer) => answer.map(Body::new),
        Err(error) => (StatusCode::BAD_GATEWAY, error.to_string()).into_response(),
    }
}
