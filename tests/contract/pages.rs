//! A web page in a developer's browser cannot use the local endpoints. They have no authentication, so they
//! reject requests from a page (`Origin`) and requests with a host name that somebody else may have pointed at
//! loopback (DNS rebinding).
#![allow(clippy::unwrap_used, reason = "test code")]

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use multilangd::local::kinesis::{Kinesis, Options};
use multilangd::local::tables::Tables;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// An endpoint, and a call that succeeds on it.
struct Target {
    address: String,
    action: &'static str,
}

impl Target {
    /// Sends the call with the given header lines, which must include `Host`, and returns the response.
    async fn answer(&self, method: &str, lines: &[u8]) -> String {
        let mut request = format!(
            "{method} / HTTP/1.1\r\ncontent-type: application/x-amz-json-1.1\r\nx-amz-target: {}\r\n\
             x-amz-date: 20300101T000000Z\r\nauthorization: AWS4-HMAC-SHA256 Credential=a/20300101/us-east-1/b/aws4_request, \
             SignedHeaders=host;x-amz-date, Signature=00\r\ncontent-length: 2\r\nconnection: close\r\n",
            self.action
        )
        .into_bytes();
        if self.action.starts_with("DynamoDB") {
            let text = String::from_utf8(request).unwrap();
            request = text.replace("json-1.1", "json-1.0").into_bytes();
        }
        request.extend_from_slice(lines);
        request.extend_from_slice(b"\r\n{}");
        let mut stream = TcpStream::connect(&self.address).await.unwrap();
        stream.write_all(&request).await.unwrap();
        let mut answer = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), stream.read_to_end(&mut answer));
        read.await.unwrap().unwrap();
        String::from_utf8_lossy(&answer).to_ascii_lowercase()
    }
}

async fn endpoints() -> (Kinesis, Tables) {
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    (Kinesis::start(Options::default()).await.unwrap(), Tables::start(any, None).await.unwrap())
}

fn targets(kinesis: &Kinesis, tables: &Tables) -> [Target; 2] {
    let address = |url: String| url.strip_prefix("http://").unwrap().to_owned();
    [
        Target { address: address(kinesis.url()), action: "Kinesis_20131202.ListStreams" },
        Target { address: address(tables.url()), action: "DynamoDB_20120810.ListTables" },
    ]
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or(answer)
}

#[tokio::test]
async fn call_by_address_or_local_name_is_accepted() {
    let (kinesis, tables) = endpoints().await;
    for target in targets(&kinesis, &tables) {
        for host in [target.address.as_str(), "localhost:1", "[::1]", "host.docker.internal:4567"] {
            let answer = target.answer("POST", format!("host: {host}\r\n").as_bytes()).await;
            assert_eq!(status(&answer), "200", "{host}: {answer}");
            assert!(!answer.contains("access-control"), "{answer}");
        }
    }
}

#[tokio::test]
async fn call_from_a_page_or_foreign_host_is_rejected() {
    let (kinesis, tables) = endpoints().await;
    for target in targets(&kinesis, &tables) {
        for lines in [
            &b"host: example.com:4568\r\n"[..],
            b"host: 127.0.0.1.example.com\r\n",
            "host: l\u{f6}calhost\r\n".as_bytes(),
            b"host: localhost\xff\r\n",
            b"host: localhost\r\nhost: example.com\r\n",
            b"host: localhost\r\norigin: https://example.com\r\n",
            b"host: localhost:4568\r\norigin: http://localhost:4568\r\n",
            b"host: localhost\r\norigin: null\r\n",
        ] {
            let shown = String::from_utf8_lossy(lines);
            for method in ["POST", "GET", "OPTIONS"] {
                let answer = target.answer(method, lines).await;
                assert!(["400", "403"].contains(&status(&answer)), "{method} {shown}: {answer}");
                assert!(!answer.contains("access-control"), "{method} {shown}: {answer}");
                let named = answer.contains("accessdeniedexception");
                assert!(method != "POST" || named, "the response does not name the cause: {shown}: {answer}");
            }
        }
    }
}
