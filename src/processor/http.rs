//! The few requests that metadata need: small, in the clear, to this machine's own addresses, and never for long.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Java waits five seconds for each step.
const PATIENCE: Duration = Duration::from_secs(1);
/// No answer is larger.
const MOST: u64 = 1 << 20;

struct Answer {
    status: u16,
    body: String,
}

/// The answer to a GET, if it is 200.
pub(super) async fn get(url: &str) -> Option<String> {
    request("GET", url, "").await.filter(|answer| answer.status == 200).map(|answer| answer.body)
}

/// Whether the metadata of EC2 are here: with a token, or without one.
pub(super) async fn is_ec2(base: &str) -> bool {
    let wish = "X-aws-ec2-metadata-token-ttl-seconds: 600\r\n";
    let token = request("PUT", &format!("{base}/latest/api/token"), wish).await;
    let token = token.filter(|answer| answer.status == 200).map(|answer| answer.body);
    let header =
        token.map(|token| format!("X-aws-ec2-metadata-token: {}\r\n", token.trim())).unwrap_or_default();
    let document =
        request("GET", &format!("{base}/latest/dynamic/instance-identity/document"), &header).await;
    document.is_some_and(|answer| answer.status == 200)
}

async fn request(method: &str, url: &str, headers: &str) -> Option<Answer> {
    let rest = url.strip_prefix("http://")?;
    let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
    let address = if host.contains(':') { host.to_owned() } else { format!("{host}:80") };
    let mut stream = timeout(PATIENCE, TcpStream::connect(address)).await.ok()?.ok()?;
    // 1.0: the answer ends with the connection, and has no chunks.
    let request = format!("{method} /{path} HTTP/1.0\r\nHost: {host}\r\n{headers}Content-Length: 0\r\n\r\n");
    let mut answer = Vec::new();
    let exchange = async {
        stream.write_all(request.as_bytes()).await.ok()?;
        stream.take(MOST).read_to_end(&mut answer).await.ok()
    };
    timeout(PATIENCE, exchange).await.ok()??;
    parse(&String::from_utf8_lossy(&answer))
}

fn parse(answer: &str) -> Option<Answer> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    let mut lines = head.lines();
    let status = lines.next()?.split_whitespace().nth(1)?.parse().ok()?;
    let chunked = lines.any(|line| {
        let line = line.to_ascii_lowercase();
        line.starts_with("transfer-encoding:") && line.contains("chunked")
    });
    // Some send chunks all the same.
    let body = if chunked { whole(body)? } else { body.to_owned() };
    Some(Answer { status, body })
}

fn whole(mut chunks: &str) -> Option<String> {
    let mut body = String::new();
    loop {
        let (size, rest) = chunks.split_once("\r\n")?;
        let size = usize::from_str_radix(size.split(';').next()?.trim(), 16).ok()?;
        if size == 0 {
            return Some(body);
        }
        body.push_str(rest.get(..size)?);
        chunks = rest.get(size..)?.strip_prefix("\r\n")?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;
    use tokio::task::JoinSet;

    /// Answers each connection in turn, and gives the requests.
    pub(in super::super) async fn serve(answers: Vec<String>) -> (String, JoinSet<Vec<String>>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut requests = Vec::new();
            for answer in answers {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4_096];
                let count = stream.read(&mut request).await.unwrap();
                requests.push(String::from_utf8_lossy(&request[..count]).into_owned());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            requests
        });
        (url, tasks)
    }

    #[tokio::test]
    async fn ec2_is_known_by_its_identity_with_a_token() {
        let ok = |body: &str| format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n{body}");
        let (url, mut requests) = serve(vec![ok("secret"), ok("{}")]).await;
        assert!(is_ec2(&url).await);
        let requests = requests.join_next().await.unwrap().unwrap();
        assert!(requests[0].starts_with("PUT /latest/api/token HTTP/1.0\r\n"), "{}", requests[0]);
        assert!(requests[1].contains("X-aws-ec2-metadata-token: secret\r\n"), "{}", requests[1]);
        let no = "HTTP/1.1 404 Not Found\r\n\r\n".to_owned();
        let (url, _requests) = serve(vec![no.clone(), no]).await;
        assert!(!is_ec2(&url).await);
    }

    #[test]
    fn answers_with_chunks_are_put_together() {
        let answer =
            parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x\r\nde\r\n0\r\n\r\n");
        assert_eq!(answer.unwrap().body, "abcde");
        assert!(parse("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc").is_none());
        assert!(parse("rubbish").is_none());
    }
}
