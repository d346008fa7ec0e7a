//! Servers that speak TLS, for what the product and the API server talk to in tests.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use axum::serve::Listener;
use rustls::{
    RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    task::AbortHandle,
    time::timeout,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// How long a client may take for its part of the handshake.
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(5);

/// What a server shows and asks for: a certificate and its key, and, if clients need a certificate, its authority; all
/// in PEM.
///
/// # Errors
/// When one of them cannot be read.
pub fn server_config(certificate: &str, key: &str, client_authority: Option<&str>) -> Result<ServerConfig> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificate.as_bytes()).collect::<Result<_, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes())?;
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions()?;
    let builder = match client_authority {
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            for certificate in CertificateDer::pem_slice_iter(authority.as_bytes()) {
                roots.add(certificate?)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
        None => builder.with_no_client_auth(),
    };
    builder.with_single_cert(chain, key).context("the certificate and the key do not fit")
}

/// Accepts TLS connections for `axum::serve`. A connection whose handshake fails is dropped.
pub struct TlsListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    /// The task that accepts.
    accepting: AbortHandle,
}

impl TlsListener {
    /// On a free port of the loopback address.
    ///
    /// # Errors
    /// When there is none.
    pub async fn bind(config: ServerConfig) -> Result<Self> {
        let tcp = TcpListener::bind("127.0.0.1:0").await?;
        let address = tcp.local_addr()?;
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let (sender, accepted) = mpsc::channel(16);
        let accepting = tokio::spawn(async move {
            while let Ok((connection, peer)) = tcp.accept().await {
                let (acceptor, sender) = (acceptor.clone(), sender.clone());
                // Each by itself: one that says nothing must not keep others waiting.
                tokio::spawn(async move {
                    match timeout(HANDSHAKE_WITHIN, acceptor.accept(connection)).await {
                        // The server has ended when nobody receives.
                        Ok(Ok(stream)) => drop(sender.send((stream, peer)).await),
                        Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                        Err(_) => tracing::debug!("a TLS handshake was not finished"),
                    }
                });
            }
        })
        .abort_handle();
        Ok(Self { address, accepted, accepting })
    }

    /// The port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.address.port()
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.accepted.recv().await {
            Some(connection) => connection,
            // Nothing accepts any more; the runtime ends.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}

impl Drop for TlsListener {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}
