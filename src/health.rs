//! `multilangd health`: calls the status endpoint of a daemon, for supervisors whose probes are commands.

use std::io::{self, Read as _, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use tokio::time::Instant;

use crate::config::keys::own;

/// Time for the connection and the answer together.
const DEADLINE: Duration = Duration::from_secs(3);
/// Most bytes of an answer that are read.
const ANSWER: usize = 64 * 1024;
/// Most characters of an answer that are reported.
const REASON: usize = 200;

/// Why the daemon is not healthy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The setting names no address to connect to.
    #[error("multilangd.status = {0}: no address of a status endpoint (give it with --status ADDRESS:PORT)")]
    NoAddress(String),
    /// There was no connection, no answer, or none in time.
    #[error("failed to call {url}: {reason}")]
    Unreached {
        /// The URL.
        url: String,
        /// The error, with a hint.
        reason: String,
    },
    /// A bug in multilangd.
    #[error("internal error: {0}")]
    Internal(String),
    /// The answer is another one than 200.
    #[error("{url} answered {status}: {reason}")]
    Unhealthy {
        /// The URL.
        url: String,
        /// The HTTP status.
        status: String,
        /// The first line of the body.
        reason: String,
    },
}

/// The address of the endpoint, by a value of `multilangd.status`. An endpoint that listens on all addresses is
/// called on loopback.
///
/// # Errors
/// [`Error::NoAddress`] for `off` and for port 0.
pub fn address(status: &str) -> Result<SocketAddr, Error> {
    let address = own::address(status).filter(|address| address.port() != 0);
    let address = address.ok_or_else(|| Error::NoAddress(status.to_owned()))?;
    let loopback: IpAddr =
        if address.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
    let ip = if address.ip().is_unspecified() { loopback } else { address.ip() };
    Ok(SocketAddr::new(ip, address.port()))
}

/// Calls `/livez`, or `/readyz`. Blocks for at most three seconds.
///
/// # Errors
/// The answer is not 200, or there is none.
pub fn ask(address: SocketAddr, ready: bool) -> Result<(), Error> {
    ask_within(address, ready, DEADLINE)
}

fn ask_within(address: SocketAddr, ready: bool, deadline: Duration) -> Result<(), Error> {
    let path = if ready { "/readyz" } else { "/livez" };
    let url = format!("http://{address}{path}");
    let unreached = |reason| Error::Unreached { url: url.clone(), reason };
    let answer = call(address, path, deadline).map_err(|error| {
        let late = [io::ErrorKind::WouldBlock, io::ErrorKind::TimedOut];
        unreached(if error.kind() == io::ErrorKind::ConnectionRefused {
            format!("{error} (no daemon runs, or multilangd.status has another value)")
        } else if late.contains(&error.kind()) {
            format!("no answer within {} s", deadline.as_secs_f64())
        } else {
            error.to_string()
        })
    })?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let mut words = head.lines().next().unwrap_or_default().split(' ');
    let status = match (words.next(), words.next()) {
        (Some(version), Some(status)) if version.starts_with("HTTP/1.") => status,
        _ => {
            return Err(unreached("the answer is not HTTP (multilangd.status has another value)".to_owned()));
        }
    };
    if status == "200" {
        return Ok(());
    }
    let line = body.lines().next().unwrap_or_default();
    let reason = line.chars().filter(|c| !c.is_control()).take(REASON).collect();
    Err(Error::Unhealthy { url, status: status.to_owned(), reason })
}

fn call(address: SocketAddr, path: &str, deadline: Duration) -> io::Result<String> {
    let until = Instant::now() + deadline;
    let left = || {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::Error::from(io::ErrorKind::TimedOut)) } else { Ok(left) }
    };
    let mut stream = TcpStream::connect_timeout(&address, left()?)?;
    stream.set_write_timeout(Some(left()?))?;
    let request = format!("GET {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    stream.write_all(request.as_bytes())?;
    let (mut answer, mut buffer) = (Vec::new(), [0; 4096]);
    while answer.len() < ANSWER {
        stream.set_read_timeout(Some(left()?))?;
        match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(count) => answer.extend_from_slice(&buffer[..count]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use super::*;

    /// The outcome for a server that sends these bytes and closes the connection.
    fn reported(answer: &'static str) -> Result<(), String> {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = [0; 1024];
            assert!(stream.read(&mut head).unwrap() > 0);
            stream.write_all(answer.as_bytes()).unwrap();
        });
        let outcome = ask(address, true);
        server.join().unwrap();
        outcome.map_err(|error| error.to_string())
    }

    #[test]
    fn address_is_that_of_a_listener_on_this_machine() {
        for (status, expected) in [
            ("9465", "127.0.0.1:9465"),
            ("0.0.0.0:80", "127.0.0.1:80"),
            ("[::]:80", "[::1]:80"),
            ("10.0.0.1:9465", "10.0.0.1:9465"),
        ] {
            assert_eq!(address(status).unwrap(), expected.parse().unwrap(), "{status}");
        }
        for status in ["off", "0", ""] {
            assert!(address(status).unwrap_err().to_string().contains("--status"), "{status}");
        }
    }

    #[test]
    fn any_answer_but_200_is_reported_with_its_reason() {
        assert_eq!(reported("HTTP/1.1 200 OK\r\n\r\nok\n"), Ok(()));
        let text = reported("HTTP/1.1 503 Service Unavailable\r\nA: b\r\n\r\nstarting\nmore").unwrap_err();
        assert!(text.ends_with("/readyz answered 503: starting"), "{text}");
        for odd in ["", "220 mail\r\n", "HTTP/1.1\r\n"] {
            assert!(reported(odd).unwrap_err().contains("is not HTTP"), "{odd}");
        }
    }

    #[test]
    fn silent_and_closed_ports_are_named() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let silent = ask_within(address, false, Duration::from_millis(50)).unwrap_err().to_string();
        assert!(silent.contains("/livez: no answer within 0.05 s"), "{silent}");
        drop(listener);
        let closed = ask(address, false).unwrap_err().to_string();
        assert!(closed.contains(&address.to_string()) && closed.contains("no daemon runs"), "{closed}");
    }
}
