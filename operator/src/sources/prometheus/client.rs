//! HTTP and TLS to Prometheus servers.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, OnceLock, PoisonError},
    time::Duration,
};

use reqwest::{
    Client,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect,
};
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, pem::PemObject},
};
use tokio::time::Instant;

use super::{
    super::failure::{Failure, chain},
    policy::PrometheusSettings,
};

/// How long a connection may take to be made.
const CONNECT_WITHIN: Duration = Duration::from_secs(5);
/// How long a connection is kept for the next poll. Longer than a poll interval, so that a poll costs no handshake.
const IDLE_FOR: Duration = Duration::from_secs(60);
/// After how long without use the connections under one set of authorities are given up.
const UNUSED_FOR: Duration = Duration::from_secs(300);

/// One client for each CA bundle, so that connections are kept between polls.
pub(super) struct Clients {
    settings: Arc<PrometheusSettings>,
    known: Mutex<HashMap<Option<Arc<[u8]>>, Known>>,
}

struct Known {
    client: Client,
    used: Instant,
}

impl Clients {
    pub(super) fn new(settings: Arc<PrometheusSettings>) -> Self {
        Self { settings, known: Mutex::new(HashMap::new()) }
    }

    /// The client that trusts the authorities of a CA bundle (PEM) and no others; without one, those of the host.
    ///
    /// Errors: the bundle holds no certificate, or one that is none; or there is no bundle for `https`, and the host
    /// trusts nobody.
    pub(super) fn trusting(&self, ca: Option<&Arc<[u8]>>, https: bool) -> Result<Client, Failure> {
        if ca.is_none() && https && host_authorities().is_empty() {
            let told = "the operator's host trusts no certificate authority; name a CA bundle";
            return Err(Failure::Answered(told.to_owned()));
        }
        let now = Instant::now();
        let key = ca.cloned();
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = known.get_mut(&key) {
            known.used = now;
            return Ok(known.client.clone());
        }
        known.retain(|_, known| now.duration_since(known.used) < UNUSED_FOR);
        let client = self.build(ca.map(|ca| &**ca))?;
        known.insert(key, Known { client: client.clone(), used: now });
        Ok(client)
    }

    fn build(&self, ca: Option<&[u8]>) -> Result<Client, Failure> {
        let roots = match ca {
            Some(bundle) => Arc::new(authorities(bundle)?),
            None => host_authorities(),
        };
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| Failure::Answered(chain(&error)))?
            .with_root_certificates(roots)
            .with_no_client_auth();
        Client::builder()
            .tls_backend_preconfigured(tls)
            .dns_resolver(Arc::new(Resolver(self.settings.clone())))
            // Neither takes a query and its token elsewhere than the URL says.
            .redirect(redirect::Policy::none())
            .no_proxy()
            .retry(reqwest::retry::never())
            .http1_only()
            .connect_timeout(CONNECT_WITHIN)
            .pool_idle_timeout(IDLE_FOR)
            .pool_max_idle_per_host(4)
            .user_agent(concat!("catamaran-operator/", env!("CARGO_PKG_VERSION")))
            .build()
            .map_err(|error| Failure::Answered(chain(&error)))
    }
}

/// The certificates of a CA bundle.
fn authorities(bundle: &[u8]) -> Result<RootCertStore, Failure> {
    let wrong = |why: String| Failure::Answered(format!("the CA bundle cannot be used: {why}"));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(bundle) {
        let certificate = certificate.map_err(|error| wrong(chain(&error)))?;
        roots.add(certificate).map_err(|error| wrong(chain(&error)))?;
    }
    if roots.is_empty() {
        return Err(wrong("it holds no certificate in PEM".to_owned()));
    }
    Ok(roots)
}

/// The authorities that the host trusts: read once; none in an image from scratch.
fn host_authorities() -> Arc<RootCertStore> {
    static READ: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let read = || {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        Arc::new(roots)
    };
    READ.get_or_init(read).clone()
}

/// Resolves names to those of their addresses that may be asked. What it gives is what is connected to, so a name that
/// changes its address after a check leads nowhere else; addresses in URLs do not come here, and are checked by
/// [`PrometheusSettings::check_url`].
struct Resolver(Arc<PrometheusSettings>);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let settings = self.0.clone();
        Box::pin(async move {
            // The client puts the port in.
            let all = tokio::net::lookup_host((name.as_str(), 0)).await?;
            let permitted: Addrs = Box::new(permitted(&settings, all)?.into_iter());
            Ok(permitted)
        })
    }
}

/// Those of the addresses that may be asked.
///
/// Errors: there are addresses, and none of them may.
fn permitted(
    settings: &PrometheusSettings,
    addresses: impl Iterator<Item = SocketAddr>,
) -> io::Result<Vec<SocketAddr>> {
    let (mut permitted, mut forbidden) = (Vec::new(), None);
    for address in addresses {
        match settings.check_address(address.ip()) {
            Ok(()) => permitted.push(address),
            Err(why) => forbidden = Some(why),
        }
    }
    match forbidden {
        Some(why) if permitted.is_empty() => Err(io::Error::new(io::ErrorKind::PermissionDenied, why)),
        Some(_) | None => Ok(permitted),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_permitted_addresses_only() {
        let resolve = |addresses: &[&str]| {
            let addresses = addresses.iter().map(|address| address.parse::<SocketAddr>().expect("an address"));
            permitted(&PrometheusSettings::default(), addresses).map_err(|error| error.to_string())
        };
        assert_eq!(resolve(&["127.0.0.1:0", "10.0.0.1:0"]), Ok(vec!["10.0.0.1:0".parse().expect("an address")]));
        assert_eq!(resolve(&[]), Ok(Vec::new()));
        let told = resolve(&["127.0.0.1:0", "[::1]:0"]).expect_err("refused");
        assert!(told.contains("::1, a loopback address"), "{told}");
    }

    #[test]
    fn a_bundle_without_certificates_is_refused() {
        let told = |bundle: &[u8]| authorities(bundle).map(|_| ()).expect_err("refused").why();
        assert_eq!(told(b"hello"), "the CA bundle cannot be used: it holds no certificate in PEM");
        let broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(told(broken).starts_with("the CA bundle cannot be used: "), "{}", told(broken));
    }
}
