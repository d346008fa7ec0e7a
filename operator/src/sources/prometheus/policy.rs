//! Where the operator may send the queries that users write.
//!
//! A Prometheus URL comes from whoever may write an ElasticWorkload, and is asked from where the operator runs: without
//! a limit, users could reach what only the operator's node or pod can (server-side request forgery). So by default
//! nothing is sent to the operator's own host, to link-local addresses, or to the metadata services of clouds, whatever
//! name they go by: the address is judged after the name is resolved, at every connection. A cluster's administrator
//! can narrow the URLs and open addresses. What is sent is always a POST to `.../api/v1/query`; what comes back is one
//! number, or a bounded line of words of an error.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use clap::Args;
use ipnet::IpNet;

use super::url::{BaseUrl, UrlPrefix};

/// What a cluster's administrator says about Prometheus queries.
#[derive(Clone, Debug, Default, Args)]
pub struct PrometheusSettings {
    /// The only URLs that Prometheus metrics may name: scheme, host and port, and paths below; a host may start with
    /// "*.". Any URL when none is given.
    #[arg(long = "prometheus-allowed-urls", env = "CATAMARAN_PROMETHEUS_ALLOWED_URLS", value_delimiter = ',')]
    pub allowed_urls: Vec<UrlPrefix>,
    /// Networks that Prometheus queries may go to although they are loopback, link-local, multicast or a cloud's
    /// metadata service, such as 127.0.0.0/8.
    #[arg(
        long = "prometheus-allowed-addresses",
        env = "CATAMARAN_PROMETHEUS_ALLOWED_ADDRESSES",
        value_delimiter = ','
    )]
    pub allowed_addresses: Vec<IpNet>,
}

/// Why a query is not sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Forbidden {
    /// The URL is not among those allowed.
    #[error("the operator is not allowed to query {0}: it is not among the URLs of its flag --prometheus-allowed-urls")]
    Url(BaseUrl),
    /// The address is of a kind that is refused.
    #[error(
        "the operator is not allowed to query {address}, {kind}; correct prometheus.serverAddress, or allow it by the operator's flag --prometheus-allowed-addresses"
    )]
    Address {
        /// The address.
        address: IpAddr,
        /// What it is.
        kind: &'static str,
    },
}

impl PrometheusSettings {
    /// Checks a URL; if its host is an address, the address too. Names are checked when they are resolved, by
    /// [`Self::check_address`].
    ///
    /// # Errors
    /// When the operator is not allowed to query it.
    pub fn check_url(&self, url: &BaseUrl) -> Result<(), Forbidden> {
        if !self.allowed_urls.is_empty() && !self.allowed_urls.iter().any(|prefix| prefix.holds(url)) {
            return Err(Forbidden::Url(url.clone()));
        }
        url.address().map_or(Ok(()), |address| self.check_address(address))
    }

    /// Checks an address.
    ///
    /// # Errors
    /// When the operator is not allowed to query it.
    pub fn check_address(&self, address: IpAddr) -> Result<(), Forbidden> {
        match reserved(address) {
            Some(kind) if !self.allowed_addresses.iter().any(|network| network.contains(&address)) => {
                Err(Forbidden::Address { address, kind })
            }
            Some(_) | None => Ok(()),
        }
    }
}

/// Addresses at which clouds tell a machine about itself, outside of the link-local networks. Sources: the
/// documentation of Amazon EC2, Google Compute Engine, Alibaba ECS, Azure and Oracle Cloud.
const METADATA: [IpAddr; 5] = [
    IpAddr::V6(Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254)),
    IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)),
    IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)),
    IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)),
];

/// What is special about an address, if it is one that only the operator's own host or network should be asked from.
fn reserved(address: IpAddr) -> Option<&'static str> {
    if METADATA.contains(&address) {
        return Some("a metadata service");
    }
    match address {
        IpAddr::V4(v4) => match v4 {
            // 0.0.0.0 reaches the own host.
            v4 if v4.is_loopback() || v4.octets()[0] == 0 => Some("a loopback address"),
            v4 if v4.is_link_local() => Some("a link-local address"),
            v4 if v4.is_multicast() || v4.is_broadcast() => Some("a multicast address"),
            _ => None,
        },
        IpAddr::V6(v6) => match v6 {
            v6 if v6.is_loopback() || v6.is_unspecified() => Some("a loopback address"),
            v6 if v6.is_unicast_link_local() => Some("a link-local address"),
            v6 if v6.is_multicast() => Some("a multicast address"),
            v6 => embedded(v6).and_then(|v4| reserved(IpAddr::V4(v4))),
        },
    }
}

/// The IPv4 address that an IPv6 address leads to: mapped (::ffff:a.b.c.d), compatible (::a.b.c.d) or translated
/// (NAT64, RFC 6052: 64:ff9b::a.b.c.d).
fn embedded(address: Ipv6Addr) -> Option<Ipv4Addr> {
    match address.segments() {
        [0, 0, 0, 0, 0, 0 | 0xffff, _, _] | [0x64, 0xff9b, 0, 0, 0, 0, _, _] => {
            let [.., a, b, c, d] = address.octets();
            Some(Ipv4Addr::new(a, b, c, d))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operators_own_host_and_metadata_are_refused() {
        let settings = PrometheusSettings::default();
        for (address, refused) in [
            ("10.0.0.1", false),
            ("192.168.1.1", false),
            ("8.8.8.8", false),
            ("2001:db8::1", false),
            ("fd00::1", false),
            ("64:ff9b::808:808", false),
            ("127.0.0.1", true),
            ("127.255.0.3", true),
            ("0.0.0.0", true),
            ("0.1.2.3", true),
            ("169.254.169.254", true),
            ("169.254.0.1", true),
            ("100.100.100.200", true),
            ("168.63.129.16", true),
            ("224.0.0.1", true),
            ("255.255.255.255", true),
            ("::1", true),
            ("::", true),
            ("fe80::1", true),
            ("ff02::1", true),
            ("fd00:ec2::254", true),
            ("::ffff:127.0.0.1", true),
            ("::ffff:169.254.169.254", true),
            ("::7f00:1", true),
            ("64:ff9b::a9fe:a9fe", true),
        ] {
            let address: IpAddr = address.parse().expect("an address");
            assert_eq!(settings.check_address(address).is_err(), refused, "{address}");
            let host = if address.is_ipv6() { format!("[{address}]") } else { address.to_string() };
            let url: BaseUrl = format!("http://{host}:9090").parse().expect("a base URL");
            assert_eq!(settings.check_url(&url).is_err(), refused, "{url}");
        }
    }

    #[test]
    fn an_administrator_opens_addresses_and_narrows_urls() {
        let settings = PrometheusSettings {
            allowed_urls: vec!["http://127.0.0.1:9090".parse().expect("a prefix")],
            allowed_addresses: vec!["127.0.0.0/8".parse().expect("a network")],
        };
        let told = |url: &str| settings.check_url(&url.parse().expect("a base URL")).err().map(|why| why.to_string());
        assert_eq!(told("http://127.0.0.1:9090/x"), None);
        assert_eq!(
            told("http://10.0.0.1:9090").as_deref(),
            Some(
                "the operator is not allowed to query http://10.0.0.1:9090: it is not among the URLs of its flag --prometheus-allowed-urls"
            )
        );
        assert_eq!(
            settings.check_address("169.254.169.254".parse().expect("an address")).map_err(|why| why.to_string()),
            Err("the operator is not allowed to query 169.254.169.254, a link-local address; correct prometheus.serverAddress, or allow it by the operator's flag --prometheus-allowed-addresses".to_owned())
        );
    }
}
