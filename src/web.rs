//! Which HTTP requests an endpoint of this process answers, by their `Host` and `Origin`.
//!
//! The endpoints know no users. What listens on loopback is still within reach of every web page that a browser on
//! this machine shows: by a request across origins, which has an `Origin`, and by DNS rebinding, where the page's own
//! name is made to point to 127.0.0.1, which shows in `Host`. The decision is pure: [`Rule::check`].

use std::net::{IpAddr, SocketAddr};

use hyper::header::{HOST, HeaderMap, HeaderValue, ORIGIN};
use hyper::{Request, StatusCode};

/// Names that containers have for the machine they run on. Nobody can make them point elsewhere by public DNS, where
/// `.internal` is reserved.
const OF_CONTAINERS: [&str; 2] = ["host.docker.internal", "host.containers.internal"];

/// The conditions that a request must meet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rule {
    /// Whether `Host` must be an address or a name of this machine.
    local: bool,
    /// Whether the endpoint has pages of its own, which may send requests to it.
    pages: bool,
}

impl Rule {
    /// For an API: programs call it and no page does.
    pub const fn api() -> Self {
        Self { local: true, pages: false }
    }

    /// For an endpoint with pages of its own that listens there. One that others can reach is asked for by names that
    /// it can't know: of a service, of a host, of a proxy before it.
    pub const fn site(address: SocketAddr) -> Self {
        Self { local: address.ip().to_canonical().is_loopback(), pages: true }
    }

    /// Whether a request is to be answered.
    ///
    /// A request without a `Host` is: no browser sends one, but load balancers that probe by HTTP/1.0 do.
    ///
    /// # Errors
    /// Why not.
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

/// Why a request is not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// A header that is not ASCII or that comes twice.
    #[error("invalid header {0} (send it once, in ASCII)")]
    Unreadable(&'static str),
    /// Another name than those of this machine.
    #[error("Host {0} is not a name of this machine (use 127.0.0.1, [::1] or localhost)")]
    Name(String),
    /// A web page of another site.
    #[error("rejected a request of a web page of another site: {0}")]
    Origin(String),
}

impl Refusal {
    /// The status of the answer.
    pub const fn status(&self) -> StatusCode {
        match self {
            Self::Unreadable(_) => StatusCode::BAD_REQUEST,
            Self::Name(_) | Self::Origin(_) => StatusCode::FORBIDDEN,
        }
    }
}

/// Every name that the request has for the endpoint: those of its `Host` and of its target, which must be checked
/// both, as a server may go by either.
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

/// Whether a name, with its port, is an address or a name that only this machine has.
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
    // RFC 6761: localhost and what ends so never leave the machine.
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
    fn host_that_others_may_point_here_is_refused_on_loopback_only() {
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
    fn host_that_is_not_ascii_or_comes_twice_is_refused() {
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
