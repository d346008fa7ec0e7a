//! Base URLs of Prometheus servers.

use std::{fmt, net::IpAddr, str::FromStr};

use http::{
    Uri,
    uri::{PathAndQuery, Scheme},
};

/// Where a server of the Prometheus HTTP API is, such as `https://prometheus.monitoring.svc:9090` or `http://mimir.example/prometheus`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BaseUrl {
    https: bool,
    /// In lower case; an IPv6 address without its brackets.
    host: String,
    port: u16,
    /// Without a slash at its end; empty for the root.
    path: String,
}

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
    /// A query; the fragment is cut off by the parser of URLs, and is refused with it.
    #[error("the Prometheus URL must not hold a query (?) or a fragment (#)")]
    Query,
    /// `.` or `..` in the path, or a percent sign that could hide one.
    #[error("the path of the Prometheus URL must not hold . or .. or a percent sign")]
    Path,
}

impl FromStr for BaseUrl {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.contains(['?', '#']) {
            return Err(NotABaseUrl::Query);
        }
        let uri: Uri = text.parse().map_err(|_| NotABaseUrl::Syntax)?;
        let https = match uri.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => true,
            Some(scheme) if *scheme == Scheme::HTTP => false,
            Some(_) => return Err(NotABaseUrl::Scheme),
            None => return Err(NotABaseUrl::Syntax),
        };
        let authority = uri.authority().ok_or(NotABaseUrl::Syntax)?;
        if authority.as_str().contains('@') {
            return Err(NotABaseUrl::UserInfo);
        }
        // Not `port_u16`, which takes a port that is none for no port.
        let port = match authority.as_str().strip_prefix(authority.host()) {
            Some("") => {
                if https {
                    443
                } else {
                    80
                }
            }
            Some(rest) => rest.strip_prefix(':').and_then(|port| port.parse().ok()).ok_or(NotABaseUrl::Syntax)?,
            None => return Err(NotABaseUrl::Syntax),
        };
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_ascii_lowercase();
        if host.is_empty() || port == 0 {
            return Err(NotABaseUrl::Syntax);
        }
        let path = uri.path().trim_end_matches('/');
        if path.contains('%') || path.split('/').any(|segment| segment == "." || segment == "..") {
            return Err(NotABaseUrl::Path);
        }
        Ok(Self { https, host, port, path: path.to_owned() })
    }
}

impl fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        // A name has no colon; an IPv6 address has.
        let (open, close) = if self.host.contains(':') { ("[", "]") } else { ("", "") };
        write!(f, "{scheme}://{open}{}{close}:{}{}", self.host, self.port, self.path)
    }
}

impl BaseUrl {
    /// The address in it, if the host is no name.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.host.parse().ok()
    }

    /// Whether TLS is spoken there.
    #[must_use]
    pub fn is_https(&self) -> bool {
        self.https
    }

    /// The URL of an endpoint below it, such as `/api/v1/query`.
    pub(super) fn endpoint(&self, path: &'static str) -> Result<Uri, NotABaseUrl> {
        let path: PathAndQuery = format!("{}{path}", self.path).parse().map_err(|_| NotABaseUrl::Syntax)?;
        let mut parts: http::uri::Parts =
            self.to_string().parse::<Uri>().map_err(|_| NotABaseUrl::Syntax)?.into_parts();
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).map_err(|_| NotABaseUrl::Syntax)
    }
}

/// A set of base URLs: one scheme, host and port, and all paths below one. A host that starts with `*.` stands for all names below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPrefix(BaseUrl);

impl FromStr for UrlPrefix {
    type Err = NotABaseUrl;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let url: BaseUrl = text.parse()?;
        // One star, in front: a star elsewhere would match nothing.
        match url.host.strip_prefix("*.").unwrap_or(&url.host) {
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
        let host = match self.0.host.strip_prefix('*') {
            // With its dot: `*.example` does not stand for `badexample`, nor for `example` itself.
            Some(suffix) => url.host.len() > suffix.len() && url.host.ends_with(suffix),
            None => url.host == self.0.host,
        };
        let below = url.path.strip_prefix(&self.0.path).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        host && url.https == self.0.https && url.port == self.0.port && below
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base_urls_are_read_or_refused() {
        for (text, expected) in [
            ("http://prometheus", Ok("http://prometheus:80")),
            ("https://Prometheus.Monitoring.svc/", Ok("https://prometheus.monitoring.svc:443")),
            ("HTTP://a:9090/x/y//", Ok("http://a:9090/x/y")),
            ("https://[2001:db8::1]:9090/p", Ok("https://[2001:db8::1]:9090/p")),
            ("http://127.0.0.1:9090", Ok("http://127.0.0.1:9090")),
            ("prometheus:9090", Err(NotABaseUrl::Syntax)),
            ("/api", Err(NotABaseUrl::Syntax)),
            ("", Err(NotABaseUrl::Syntax)),
            ("http://", Err(NotABaseUrl::Syntax)),
            ("http://a:0", Err(NotABaseUrl::Syntax)),
            ("http://a b", Err(NotABaseUrl::Syntax)),
            ("http://a:99999", Err(NotABaseUrl::Syntax)),
            ("ftp://a", Err(NotABaseUrl::Scheme)),
            ("http://user:secret@a", Err(NotABaseUrl::UserInfo)),
            ("http://a?query=up", Err(NotABaseUrl::Query)),
            ("http://a/#x", Err(NotABaseUrl::Query)),
            ("http://a/x/../y", Err(NotABaseUrl::Path)),
            ("http://a/x/%2e%2e/y", Err(NotABaseUrl::Path)),
        ] {
            let url = text.parse::<BaseUrl>().map(|url| url.to_string());
            assert_eq!(url.as_deref(), expected.as_ref().map(|text| *text), "{text}");
        }
    }

    #[test]
    fn endpoints_are_below_the_base() {
        for (base, endpoint) in [
            ("http://a", "http://a:80/api/v1/query"),
            ("https://[::1]:9090/mimir/prometheus/", "https://[::1]:9090/mimir/prometheus/api/v1/query"),
        ] {
            let url: BaseUrl = base.parse().expect("a base URL");
            assert_eq!(url.endpoint("/api/v1/query").map(|uri| uri.to_string()).as_deref(), Ok(endpoint));
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
