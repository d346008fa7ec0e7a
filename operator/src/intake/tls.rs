//! The certificate of the intake, read again when its files change.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::Duration,
};

use tokio_rustls::rustls::{
    self, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem, pem::PemObject},
};

use super::metrics::IntakeMetrics;

/// The certificate and its key, as files in PEM; in the product a mounted Secret of type kubernetes.io/tls.
#[derive(Clone, Debug)]
pub struct CertificateFiles {
    /// The certificate, then those that lead from it to the authority.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Why the certificate cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// A file holds no certificate or key.
    #[error("{} is not what it should be: {source}", path.display())]
    Pem {
        /// The file.
        path: PathBuf,
        /// Why not.
        source: pem::Error,
    },
    /// The key is not the certificate's, or of a kind that is not supported.
    #[error("the certificate cannot be used: {0}")]
    Tls(#[from] rustls::Error),
}

/// The configuration for new connections. Open ones keep theirs.
pub(super) struct Tls {
    files: CertificateFiles,
    metrics: IntakeMetrics,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    /// What the files held: certificate and key.
    contents: (Vec<u8>, Vec<u8>),
    config: Arc<ServerConfig>,
}

impl Tls {
    /// Waits for a certificate that can be used, and looks at the files so often.
    pub(super) async fn first(files: CertificateFiles, metrics: IntakeMetrics, every: Duration) -> Self {
        loop {
            match Self::read(&files).await {
                Ok(current) => {
                    metrics.first_certificate();
                    return Self { files, metrics, current: RwLock::new(current) };
                }
                Err(error) => {
                    tracing::error!(%error, "the usage intake waits for a certificate; usage comes from metrics.k8s.io alone");
                    metrics.certificate(false);
                }
            }
            tokio::time::sleep(every).await;
        }
    }

    async fn read(files: &CertificateFiles) -> Result<Current, CertificateError> {
        let contents = read(files).await?;
        let config = server_config(files, &contents)?;
        Ok(Current { contents, config })
    }

    pub(super) fn config(&self) -> Arc<ServerConfig> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).config.clone()
    }

    /// Looks at the files again and again. What cannot be used is told, and the last good one stays in use.
    pub(super) async fn keep_reading(&self, every: Duration) {
        loop {
            tokio::time::sleep(every).await;
            match self.read_again().await {
                Ok(false) => {}
                Ok(true) => {
                    tracing::info!(certificate = %self.files.certificate.display(), "new certificate in use");
                    self.metrics.certificate(true);
                }
                Err(error) => {
                    tracing::warn!(%error, "the last certificate stays in use");
                    self.metrics.certificate(false);
                }
            }
        }
    }

    /// Whether there was something new.
    async fn read_again(&self) -> Result<bool, CertificateError> {
        let contents = read(&self.files).await?;
        if self.current.read().unwrap_or_else(PoisonError::into_inner).contents == contents {
            return Ok(false);
        }
        // A certificate and a key that were read in the middle of an exchange do not fit, and are read again.
        let config = server_config(&self.files, &contents)?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Current { contents, config };
        Ok(true)
    }
}

async fn read(files: &CertificateFiles) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let read = async |path: &Path| {
        tokio::fs::read(path).await.map_err(|source| CertificateError::Read { path: path.to_owned(), source })
    };
    Ok((read(&files.certificate).await?, read(&files.key).await?))
}

fn server_config(
    files: &CertificateFiles,
    (certificate, key): &(Vec<u8>, Vec<u8>),
) -> Result<Arc<ServerConfig>, CertificateError> {
    let wrong = |path: &Path| {
        let path = path.to_owned();
        |source| CertificateError::Pem { path, source }
    };
    let chain = CertificateDer::pem_slice_iter(certificate)
        .collect::<Result<Vec<_>, _>>()
        .map_err(wrong(&files.certificate))?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(wrong(&files.key))?;
    let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec()];
    // A resumed session would save an agent little: its stream is open for hours.
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
