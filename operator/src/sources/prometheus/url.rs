//! Base URLs of Prometheus servers.

use std::{fmt, net::IpAddr, str::FromStr};

use url::{Host, Url};

/// Where a server of the Prometheus HTTP API is, such as `https://prometheus.monitoring.svc:9090` or
/// `http://mimir.example/prometheus`. It always has a host, and is in the form that the URL standard makes of it: two
/// that lead to the same place are equal.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl(Url);

/// Why a text is no base URL. The text is not repeated: it may hold a password.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotABaseUrl {
    /// It cannot be parsed, or has no host.
    #[error("the Prometheus URL is none: write http:// or https://, a host, and if needed a port and a path")]
    Syntax,
    /// Another scheme than http or https.
    #[error("the Prometheus URL must start with http:// or https://")]
    Scheme,
    /// A user name or password.
    #[error("the Prometheus URL must not hold a user name or a password; give a bearer token by a Secret")]
    UserInfo,
    /// A query or a fragment.
    #[error("the Prometheus URL must not hold a query (?) or a fragment (#)")]
    Query,
    /// `.` or `..` in the path, or a percent sign that could hide one.
    #[error("the path of the Prometheus URL must not hold . or .. or a percent sign")]
    Path,
}

impl FromStr for BaseUrl {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut url = Url::parse(text).map_err(|_| NotABaseUrl::Syntax)?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(NotABaseUrl::Scheme);
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(NotABaseUrl::UserInfo);
        }
        if url.query().is_some() || url.fragment().is_some() {
            return Err(NotABaseUrl::Query);
        }
        if url.port() == Some(0) {
            return Err(NotABaseUrl::Syntax);
        }
        // The parser resolves these; whoever reads the object is not to be taken in by them.
        let dots = text.split(['/', '\\']).any(|segment| segment == "." || segment == "..");
        if dots || text.contains('%') || url.path().contains('%') {
            return Err(NotABaseUrl::Path);
        }
        let path = url.path().trim_end_matches('/').to_owned();
        url.set_path(&path);
        Ok(Self(url))
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.as_str().trim_end_matches('/'))
    }
}

impl BaseUrl {
    /// The address in it, if the host is no name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        match self.0.host()? {
            Host::Ipv4(address) => Some(address.into()),
            Host::Ipv6(address) => Some(address.into()),
            Host::Domain(_) => None,
        }
    }

    /// Whether TLS is spoken there.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.0.scheme() == "https"
    }

    /// The URL of an endpoint below it, such as `/api/v1/query`.
    pub(super) fn endpoint(&self, path: &'static str) -> Url {
        let mut url = self.0.clone();
        url.set_path(&format!("{}{path}", self.path()));
        url
    }

    fn host(&self) -> &str {
        self.0.host_str().unwrap_or_default()
    }

    /// The path; empty for the root.
    fn path(&self) -> &str {
        self.0.path().trim_end_matches('/')
    }
}

/// A set of base URLs: one scheme, host and port, and all paths below one. A host that starts with `*.` stands for all
/// names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPrefix(BaseUrl);

impl FromStr for UrlPrefix {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: BaseUrl = text.parse()?;
        // One star, in front: a star elsewhere would match nothing.
        match url.host().strip_prefix("*.").unwrap_or(url.host()) {
            rest if rest.is_empty() || rest.contains('*') => Err(NotABaseUrl::Syntax),
            _ => Ok(Self(url)),
        }
    }
}

impl fmt::Display for UrlPrefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl UrlPrefix {
    /// Whether a URL is in the set.
    #[must_use]
    pub fn holds(&self, url: &BaseUrl) -> bool {
        let Self(prefix) = self;
        let host = match prefix.host().strip_prefix('*') {
            // With its dot: `*.example` does not stand for `badexample`, nor for `example` itself.
            Some(suffix) => url.host().len() > suffix.len() && url.host().ends_with(suffix),
            None => url.host() == prefix.host(),
        };
        let port = url.0.port_or_known_default() == prefix.0.port_or_known_default();
        let below = url.path().strip_prefix(prefix.path()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        host && url.0.scheme() == prefix.0.scheme() && port && below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_read_or_refused() {
        for (text, expected) in [
            ("http://prometheus", Ok("http://prometheus")),
            ("http://prometheus:80/", Ok("http://prometheus")),
            ("https://Prometheus.Monitoring.svc/", Ok("https://prometheus.monitoring.svc")),
            ("HTTP://a:9090/x/y//", Ok("http://a:9090/x/y")),
            ("https://[2001:db8::1]:9090/p", Ok("https://[2001:db8::1]:9090/p")),
            ("http://127.0.0.1:9090", Ok("http://127.0.0.1:9090")),
            // One address under all its names.
            ("http://2130706433:9090", Ok("http://127.0.0.1:9090")),
            ("http://0x7f.1:9090", Ok("http://127.0.0.1:9090")),
            ("http://[::FFFF:7f00:1]:9090", Ok("http://[::ffff:7f00:1]:9090")),
            ("prometheus:9090", Err(NotABaseUrl::Scheme)),
            ("/api", Err(NotABaseUrl::Syntax)),
            ("", Err(NotABaseUrl::Syntax)),
            ("http://", Err(NotABaseUrl::Syntax)),
            ("http://a:0", Err(NotABaseUrl::Syntax)),
            ("http://a b", Err(NotABaseUrl::Syntax)),
            ("http://a:99999", Err(NotABaseUrl::Syntax)),
            ("ftp://a", Err(NotABaseUrl::Scheme)),
            ("http://user@a", Err(NotABaseUrl::UserInfo)),
            ("http://:secret@a", Err(NotABaseUrl::UserInfo)),
            ("http://user:secret@a", Err(NotABaseUrl::UserInfo)),
            ("http://a?query=up", Err(NotABaseUrl::Query)),
            ("http://a/#x", Err(NotABaseUrl::Query)),
            ("http://a/x/../y", Err(NotABaseUrl::Path)),
            ("http://a/x\\..\\y", Err(NotABaseUrl::Path)),
            ("http://a/x y", Err(NotABaseUrl::Path)),
            ("http://a/x/%2e%2e/y", Err(NotABaseUrl::Path)),
        ] {
            let url = text.parse::<BaseUrl>().map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected.as_ref().map(|text| *text), "{text}");
        }
    }

    #[test]
    fn endpoints_are_below_the_base() {
        for (base, endpoint) in [
            ("http://a", "http://a/api/v1/query"),
            ("https://[::1]:9090/mimir/prometheus/", "https://[::1]:9090/mimir/prometheus/api/v1/query"),
        ] {
            let url: BaseUrl = base.parse().expect("a base URL");
            assert_eq!(url.endpoint("/api/v1/query").as_str(), endpoint);
        }
    }

    #[test]
    fn a_prefix_holds_what_is_below_it() {
        for (prefix, url, expected) in [
            ("http://a", "http://a", true),
            ("http://a", "http://A:80/x", true),
            ("http://a", "https://a", false),
            ("http://a", "http://a:8080", false),
            ("http://a", "http://b", false),
            ("http://a", "http://a.evil", false),
            ("http://a/x", "http://a/x/y", true),
            ("http://a/x", "http://a/x", true),
            ("http://a/x", "http://a/xy", false),
            ("http://a/x", "http://a", false),
            ("http://*.monitoring.svc:9090", "http://prometheus.monitoring.svc:9090", true),
            ("http://*.monitoring.svc:9090", "http://a.b.monitoring.svc:9090", true),
            ("http://*.monitoring.svc:9090", "http://evilmonitoring.svc:9090", false),
            ("http://*.monitoring.svc:9090", "http://monitoring.svc:9090", false),
        ] {
            let (prefix, url): (UrlPrefix, BaseUrl) =
                (prefix.parse().expect("a prefix"), url.parse().expect("a base URL"));
            assert_eq!(prefix.holds(&url), expected, "{prefix} {url}");
        }
        for text in ["http://*", "http://*.", "http://a.*.b", "*", "http://*.*.a"] {
            assert!(text.parse::<UrlPrefix>().is_err(), "{text}");
        }
    }
}
