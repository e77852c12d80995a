//! A minimal HTTP/1.1 client for the metadata services of this machine: one request per connection, no TLS,
//! no redirects, all sizes bounded.

use std::io;
use std::time::Duration;

use tokio::io::{AsyncBufRead, AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::reading::fault;

/// Most bytes of a body.
const MOST: u64 = 1 << 20;
/// Most bytes of a line of the head.
const LINE: u64 = 8 << 10;
const HEADERS: usize = 100;

#[derive(Debug)]
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    pub(super) url: &'a str,
    pub(super) headers: &'a [(&'a str, &'a str)],
}

/// Timeouts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    pub(super) connect: Duration,
    /// From the start to the end of the body, however slowly it arrives.
    pub(super) whole: Duration,
}

/// The body of a response with status 200. Any other response is an error that names the address.
pub(super) async fn body(request: &Request<'_>, limits: Limits) -> io::Result<Vec<u8>> {
    let said = match timeout(limits.whole, exchange(request, limits.connect)).await {
        Ok(said) => said,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("no answer in {:?}", limits.whole))),
    };
    said.map_err(|error| io::Error::new(error.kind(), format!("{} {}: {error}", request.method, request.url)))
}

async fn exchange(request: &Request<'_>, connect: Duration) -> io::Result<Vec<u8>> {
    let (address, text) = prepared(request)?;
    let stream = timeout(connect, TcpStream::connect(address)).await;
    let mut stream = stream
        .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, format!("no connection in {connect:?}")))??;
    stream.write_all(text.as_bytes()).await?;
    answer(&mut BufReader::new(stream)).await
}

/// The address to connect to and the request to send. Rejects values that contain a line break.
fn prepared(request: &Request<'_>) -> io::Result<(String, String)> {
    let rest = request.url.strip_prefix("http://").ok_or_else(|| fault("not an http URL"))?;
    let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
    let path = if path.is_empty() { "/" } else { path };
    // The rest after the brackets of an IPv6 address.
    let port = host.rsplit(']').next().is_some_and(|tail| tail.contains(':'));
    let address = if port { host.to_owned() } else { format!("{host}:80") };
    let mut text = format!("{} {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n", request.method);
    if request.method == "PUT" {
        text.push_str("Content-Length: 0\r\n");
    }
    for (name, value) in request.headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    let values = request.headers.iter().map(|(_, value)| *value);
    if host.is_empty() || values.chain([rest]).any(|part| !part.chars().all(|c| c.is_ascii_graphic())) {
        return Err(fault("failed to send the request"));
    }
    Ok((address, text))
}

/// How the end of a body is determined.
enum Length {
    Bytes(u64),
    Chunked,
    Closed,
}

async fn answer(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<Vec<u8>> {
    let status = line(from).await?;
    let code = status.strip_prefix("HTTP/1.").and_then(|rest| rest.split(' ').nth(1));
    if code != Some("200") {
        return Err(fault(format!("received status {status:?}")));
    }
    let mut length = Length::Closed;
    for _ in 0..HEADERS {
        let header = line(from).await?;
        if header.is_empty() {
            return body_of(from, length).await;
        }
        let (name, value) =
            header.split_once(':').ok_or_else(|| fault(format!("invalid header {header:?}")))?;
        if name.eq_ignore_ascii_case("transfer-encoding") {
            if !value.trim().eq_ignore_ascii_case("chunked") {
                return Err(fault(format!("unsupported transfer encoding {value:?}")));
            }
            length = Length::Chunked;
        } else if name.eq_ignore_ascii_case("content-length") && !matches!(length, Length::Chunked) {
            let bytes =
                value.trim().parse().map_err(|_| fault(format!("invalid content length {value:?}")))?;
            length = Length::Bytes(bytes);
        }
    }
    Err(fault("too many headers"))
}

async fn body_of(from: &mut (impl AsyncBufRead + Unpin), length: Length) -> io::Result<Vec<u8>> {
    let mut body = Vec::new();
    match length {
        Length::Bytes(bytes) => more(from, bytes, &mut body).await?,
        Length::Closed => {
            from.take(MOST + 1).read_to_end(&mut body).await?;
            room(0, body.len() as u64)?;
        }
        Length::Chunked => loop {
            let head = line(from).await?;
            let digits = head.split(';').next().unwrap_or_default().trim();
            let bytes =
                u64::from_str_radix(digits, 16).map_err(|_| fault(format!("invalid chunk {head:?}")))?;
            if bytes == 0 {
                // Trailers are ignored, and the connection is not used again.
                break;
            }
            more(from, bytes, &mut body).await?;
            if !line(from).await?.is_empty() {
                return Err(fault("a chunk has no end"));
            }
        },
    }
    Ok(body)
}

async fn more(from: &mut (impl AsyncBufRead + Unpin), bytes: u64, body: &mut Vec<u8>) -> io::Result<()> {
    room(body.len() as u64, bytes)?;
    if (from.take(bytes).read_to_end(body).await? as u64) < bytes {
        return Err(fault("the body ended early"));
    }
    Ok(())
}

fn room(has: u64, bytes: u64) -> io::Result<()> {
    match has.checked_add(bytes) {
        Some(all) if all <= MOST => Ok(()),
        Some(_) | None => Err(fault("the body is too long")),
    }
}

/// Reads a line, without its end.
async fn line(from: &mut (impl AsyncBufRead + Unpin)) -> io::Result<String> {
    let mut line = Vec::new();
    from.take(LINE).read_until(b'\n', &mut line).await?;
    if line.pop() != Some(b'\n') {
        return Err(fault("the response ended early"));
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| fault("the response is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Reply, Server, refusing};
    use super::*;

    const SECONDS: Limits = Limits { connect: Duration::from_secs(10), whole: Duration::from_secs(10) };
    const HASTY: Limits = Limits { connect: Duration::from_millis(50), whole: Duration::from_millis(50) };

    fn get<'a>(url: &'a str, headers: &'a [(&'a str, &'a str)]) -> Request<'a> {
        Request { method: "GET", url, headers }
    }

    async fn read(text: &str) -> Result<String, String> {
        let body = answer(&mut text.as_bytes()).await.map_err(|error| error.to_string())?;
        Ok(String::from_utf8(body).unwrap())
    }

    #[tokio::test]
    async fn body_ends_at_its_declared_length() {
        let good = [
            "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello, and more",
            "HTTP/1.0 200 OK\r\n\r\nhello",
            "HTTP/1.1 200\r\nTransfer-Encoding: Chunked\r\n\r\n3;x=y\r\nhel\r\n02\r\nlo\r\n0\r\nX: y\r\n\r\n",
            "HTTP/1.1 200 OK\ntransfer-encoding: chunked\ncontent-length: 1\n\n5\nhello\n0\n\n",
        ];
        for text in good {
            assert_eq!(read(text).await.as_deref(), Ok("hello"), "{text}");
        }
    }

    #[tokio::test]
    async fn incomplete_or_non_200_response_is_an_error() {
        let long = format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n", "x".repeat(9000));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "X: y\r\n".repeat(101));
        let big = format!("HTTP/1.1 200 OK\r\n\r\n{}", "x".repeat((1 << 20) + 1));
        let bad = [
            ("", "ended early"),
            ("HTTP/1.1 404 Not Found\r\n\r\n", "404"),
            ("HTTP/2 200\r\n\r\n", "HTTP/2"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhell", "ended early"),
            ("HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello", "content length"),
            ("HTTP/1.1 200 OK\r\nContent-Length: 1048577\r\n\r\n", "too long"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n", "gzip"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", "ended early"),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello!\r\n", "has no end"),
            (
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nffffffffffffffff\r\n",
                "too long",
            ),
            ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", "invalid chunk"),
            (&long, "ended early"),
            (&many, "too many"),
            (&big, "too long"),
        ];
        for (text, why) in bad {
            let error = read(text).await.unwrap_err();
            assert!(error.contains(why), "{error}, not {why}");
        }
    }

    #[test]
    fn urls_are_parsed() {
        for (url, address, first) in [
            ("http://a", "a:80", "GET / HTTP/1.1\r\nHost: a\r\n"),
            ("http://a:81/b/c?d=/", "a:81", "GET /b/c?d=/ HTTP/1.1\r\nHost: a:81\r\n"),
            ("http://[::1]/b", "[::1]:80", "GET /b HTTP/1.1\r\nHost: [::1]\r\n"),
            ("http://[::1]:81", "[::1]:81", "GET / HTTP/1.1\r\nHost: [::1]:81\r\n"),
        ] {
            let (to, text) = prepared(&get(url, &[])).unwrap();
            assert_eq!(to, address);
            assert!(text.starts_with(first) && text.ends_with("\r\nConnection: close\r\n\r\n"), "{text}");
        }
        for url in ["https://a", "a", "http://", "http:///b", "http://a/b c", "http://a/\r\nX: y"] {
            assert!(prepared(&get(url, &[])).is_err(), "{url}");
        }
        assert!(prepared(&get("http://a", &[("X", "a\r\nY: b")])).is_err());
    }

    #[tokio::test]
    async fn response_completes_while_the_connection_stays_open() {
        let kept = Reply::Keep("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned());
        let server = Server::start(vec![("GET /x ", kept)]).await;
        let body = body(&get(&format!("{}/x", server.url), &[]), SECONDS).await;
        assert_eq!(body.unwrap(), b"hi");
    }

    #[tokio::test]
    async fn timeouts_apply_and_refused_connections_are_reported() {
        for said in ["", "HTTP/1.1 200 OK\r\n", "HTTP/1.1 200 OK\r\n\r\nhi"] {
            let server = Server::start(vec![("", Reply::Keep(said.to_owned()))]).await;
            let error = body(&get(&server.url, &[]), HASTY).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::TimedOut);
            assert!(error.to_string().contains(&server.url), "{error}");
        }
        let (_socket, url) = refusing();
        let error = body(&get(&url, &[]), SECONDS).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    }
}
