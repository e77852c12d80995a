//! Decides which HTTP requests an endpoint of this process answers, by their `Host` and `Origin`.
//!
//! The endpoints have no authentication. An endpoint on loopback can still be reached by every web page that
//! a browser on this machine shows: by a cross-origin request, which has an `Origin`, and by DNS rebinding,
//! where the page's own name resolves to 127.0.0.1, which is visible in `Host`. The decision is pure:
//! [`Rule::check`].

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Request, StatusCode};

/// Names by which containers reach the machine that they run on. Public DNS cannot resolve them to another
/// address, because `.internal` is reserved.
const OF_CONTAINERS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// The conditions that a request must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether `Host` must be an address or a name of this machine.
    local: bool,
    /// Whether the endpoint serves pages, which may send requests to it.
    pages: bool,
}

impl Rule {
    /// The rule of an API: programs call it, web pages do not.
    pub const fn api() -> Self {
        Self { local: true, pages: false }
    }

    /// The rule of an endpoint that serves pages at `address`. If other machines can reach it, it cannot know
    /// the names by which it is called: those of a service, a host or a proxy.
    pub const fn site(address: SocketAddr) -> Self {
        Self { local: address.ip().to_canonical().is_loopback(), pages: true }
    }

    /// Checks a request.
    ///
    /// A request without a `Host` is accepted: no browser sends one, but load balancers that probe by
    /// HTTP/1.0 do.
    ///
    /// # Errors
    /// The reason for the refusal.
    pub fn check<B>(self, request: &Request<B>) -> Result<(), Refusal> {
        let asked = names(request)?;
        if self.local
            && let Some(other) = asked.iter().find(|name| !is_this_machine(name))
        {
            return Err(Refusal::Name((*other).to_owned()));
        }
        for origin in request.headers().get_all(ORIGIN) {
            let origin = text(origin).ok_or(Refusal::Unreadable("Origin"))?;
            let own = origin.split_once("://").is_some_and(|(_, authority)| asked.contains(&authority));
            if !(self.pages && own) {
                return Err(Refusal::Origin(origin.to_owned()));
            }
        }
        Ok(())
    }
}

/// The reason why a request is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header is not ASCII or occurs twice.
    #[error("invalid header {0} (send it once, in ASCII)")]
    Unreadable(&'static str),
    /// `Host` is not a name of this machine.
    #[error("Host {0} is not a name of this machine (use 127.0.0.1, [::1] or localhost)")]
    Name(String),
    /// `Origin` is a page of another site.
    #[error("rejected a request of a web page of another site: {0}")]
    Origin(String),
}

impl Refusal {
    /// The status code of the response.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Name(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// All names by which the request addresses the endpoint: in its `Host` and in its target. Both must be
/// checked, because a server may use either.
fn names<B>(request: &Request<B>) -> Result<Vec<&str>, Refusal> {
    let mut names: Vec<&str> = request.uri().authority().map(|name| name.as_str()).into_iter().collect();
    names.extend(host(request.headers())?);
    Ok(names)
}

fn host(headers: &HeaderMap) -> Result<Option<&str>, Refusal> {
    let mut hosts = headers.get_all(HOST).iter();
    let Some(host) = hosts.next() else {
        return Ok(None);
    };
    match (text(host), hosts.next()) {
        (Some(host), None) => Ok(Some(host)),
        _ => Err(Refusal::Unreadable("Host")),
    }
}

fn text(value: &HeaderValue) -> Option<&str> {
    value.to_str().ok().filter(|text| text.is_ascii())
}

/// Whether a name, possibly with a port, is an IP address or a name that only this machine has.
fn is_this_machine(name: &str) -> bool {
    let name = match name.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => name,
    };
    let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(name);
    if bare.parse::<IpAddr>().is_ok() {
        return true;
    }
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    // RFC 6761: `localhost` and names under it never leave the machine.
    name == "localhost" || name.ends_with(".localhost") || OF_CONTAINERS.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOOPBACK: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9465);
    const ANY: SocketAddr = SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 9465);

    fn asked(target: &str, headers: &[(&str, &[u8])]) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        for (name, value) in headers {
            let name: hyper::header::HeaderName = name.parse().unwrap();
            request.headers_mut().append(name, HeaderValue::from_bytes(value).unwrap());
        }
        request
    }

    #[test]
    fn host_of_this_machine_is_answered() {
        for host in [
            "127.0.0.1:9465",
            "localhost",
            "LocalHost:1",
            "localhost.:1",
            "kinesis.localhost:4567",
            "[::1]:9465",
            "[::1]",
            "10.0.0.7:80",
            "host.docker.internal:4567",
        ] {
            let request = asked("/", &[("host", host.as_bytes())]);
            assert_eq!(Rule::api().check(&request), Ok(()), "{host}");
            assert_eq!(Rule::site(LOOPBACK).check(&request), Ok(()), "{host}");
        }
        assert_eq!(Rule::api().check(&asked("/", &[])), Ok(()), "a probe by HTTP/1.0");
    }

    #[test]
    fn public_host_is_refused_on_loopback_only() {
        for host in [
            "example.com",
            "example.com:9465",
            "127.0.0.1.example.com",
            "localhost.evil:80",
            "evil@localhost:80",
            "notlocalhost",
            "",
            ":80",
        ] {
            let request = asked("/", &[("host", host.as_bytes())]);
            let refused = Err(Refusal::Name(host.to_owned()));
            assert_eq!(Rule::api().check(&request), refused, "{host}");
            assert_eq!(Rule::site(LOOPBACK).check(&request), refused, "{host}");
            assert_eq!(Rule::site(ANY).check(&request), Ok(()), "{host}");
        }
    }

    #[test]
    fn target_is_checked_beside_the_host() {
        let rebound = asked("http://example.com:4567/", &[("host", b"localhost:4567")]);
        assert_eq!(Rule::api().check(&rebound), Err(Refusal::Name("example.com:4567".to_owned())));
        let other = asked("http://localhost:4567/", &[("host", b"example.com")]);
        assert_eq!(Rule::api().check(&other), Err(Refusal::Name("example.com".to_owned())));
        assert_eq!(Rule::api().check(&asked("http://localhost:4567/", &[])), Ok(()), "as HTTP/2 asks");
    }

    #[test]
    fn non_ascii_or_duplicate_host_is_refused() {
        let twice: &[(&str, &[u8])] = &[("host", b"localhost"), ("host", b"localhost")];
        for headers in [&[("host", "löcalhost".as_bytes())][..], &[("host", b"\xff")], twice] {
            let request = asked("/", headers);
            for rule in [Rule::api(), Rule::site(LOOPBACK), Rule::site(ANY)] {
                assert_eq!(rule.check(&request), Err(Refusal::Unreadable("Host")), "{headers:?}");
            }
        }
    }

    #[test]
    fn page_is_answered_by_its_own_site_only() {
        let page = |host: &str, origin: &str| {
            asked("/", &[("host", host.as_bytes()), ("origin", origin.as_bytes())])
        };
        let own = page("localhost:9465", "http://localhost:9465");
        assert_eq!(Rule::site(LOOPBACK).check(&own), Ok(()));
        assert!(Rule::api().check(&own).is_err(), "an API has no pages");
        assert_eq!(Rule::site(ANY).check(&page("status.example", "https://status.example")), Ok(()));
        for origin in ["http://example.com", "http://localhost:3000", "null", "", "file://", "http://ö"] {
            for rule in [Rule::api(), Rule::site(LOOPBACK), Rule::site(ANY)] {
                let refused = rule.check(&page("localhost:9465", origin));
                assert!(refused.is_err(), "{origin}");
            }
        }
    }
}
