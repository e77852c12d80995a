//! The HTTP endpoint: `/`, `/livez`, `/readyz`, `/status`, `/metrics`.
//!
//! It only reads shared state and has a thread and a runtime of its own, so that it answers even if
//! everything else is stuck. Its inputs are bounded: the number of connections, the duration of each, the
//! size of a request; bodies are not read.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{self, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use super::Show;
use crate::web::Rule;

/// Most connections at a time; another one closes the oldest.
const CONNECTIONS: usize = 32;
/// Longest duration of a connection.
const CONNECTION: Duration = Duration::from_secs(30);
/// Timeout for the head of a request.
const HEAD: Duration = Duration::from_secs(5);
/// Most bytes of a request's head.
const HEAD_BYTES: usize = 16 * 1024;
/// If the daemon's own tasks have not run for this long, it is considered blocked.
const SILENT: Duration = Duration::from_secs(30);

const PAGE: &str = include_str!("page.html");

/// The heartbeat of the runtime that does the work.
#[derive(Debug, Clone)]
pub struct Pulse(Arc<Mutex<Instant>>);

impl Pulse {
    /// Starts the heartbeat, one a second, as a task of `tasks`.
    pub fn start(tasks: &mut JoinSet<()>) -> Self {
        let pulse = Self(Arc::new(Mutex::new(Instant::now())));
        let beating = pulse.clone();
        tasks.spawn(async move {
            let mut beats = interval(Duration::from_secs(1));
            beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
            loop {
                *beating.0.lock().unwrap_or_else(PoisonError::into_inner) = beats.tick().await;
            }
        });
        pulse
    }

    fn silent_for(&self) -> Duration {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

/// The endpoint. Dropping it stops it.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    /// Listens on `address`, with port 0 for any free one. Accepts requests when this returns.
    ///
    /// # Errors
    /// The address cannot be listened on.
    pub fn start(address: SocketAddr, shown: Arc<dyn Show>, pulse: Pulse) -> io::Result<Self> {
        let listener = TcpListener::bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let desk = Arc::new(Desk { shown, pulse, rule: Rule::site(address) });
        let thread = std::thread::Builder::new().name("status".to_owned()).stack_size(512 * 1024).spawn(
            move || {
                runtime.block_on(async {
                    tokio::select! {
                        () = stopped.cancelled() => {}
                        error = serve(listener, desk) => warn!(event = "status_page_failed", %error,
                            "status endpoint failed"),
                    }
                });
            },
        )?;
        Ok(Self { address, stop, thread: Some(thread) })
    }

    /// The address that it listens on.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.cancel();
        // The thread waits only for the token.
        let _panicked = self.thread.take().is_some_and(|thread| thread.join().is_err());
    }
}

async fn serve(listener: TcpListener, desk: Arc<Desk>) -> io::Error {
    let listener = match tokio::net::TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return error,
    };
    let mut connections = JoinSet::new();
    let mut ages: VecDeque<AbortHandle> = VecDeque::new();
    loop {
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                // Probably out of descriptors, which is temporary.
                debug!(%error, "failed to accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        while connections.try_join_next().is_some() {}
        ages.retain(|connection| !connection.is_finished());
        // A client that only holds a connection must not block a probe.
        if ages.len() == CONNECTIONS
            && let Some(oldest) = ages.pop_front()
        {
            oldest.abort();
        }
        let desk = desk.clone();
        let connection = connections.spawn(async move {
            let answer = service_fn(move |request| {
                let answer = desk.answer(&request);
                async move { Ok::<_, Infallible>(answer) }
            });
            let connection = http1::Builder::new()
                .timer(TokioTimer::new())
                .header_read_timeout(HEAD)
                .max_buf_size(HEAD_BYTES)
                .serve_connection(TokioIo::new(stream), answer);
            let _ended_or_too_long = timeout(CONNECTION, connection).await.is_ok();
        });
        ages.push_back(connection);
    }
}

/// Answers requests.
struct Desk {
    shown: Arc<dyn Show>,
    pulse: Pulse,
    rule: Rule,
}

impl Desk {
    fn answer<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        if let Err(refusal) = self.rule.check(request) {
            return text(refusal.status(), format!("{refusal}\n"));
        }
        if !matches!(*request.method(), Method::GET | Method::HEAD) {
            let mut refused = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD\n".to_owned());
            refused.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return refused;
        }
        match request.uri().path() {
            "/" => {
                let mut page = with(StatusCode::OK, "text/html; charset=utf-8", PAGE.into());
                let policy = "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; \
                              connect-src 'self'; img-src data:; frame-ancestors 'none'";
                page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(policy));
                page
            }
            "/livez" => {
                let silent = self.pulse.silent_for();
                if silent < SILENT {
                    text(StatusCode::OK, "ok\n".to_owned())
                } else {
                    let why = format!("the tasks of the daemon have not run for {} s\n", silent.as_secs());
                    text(StatusCode::SERVICE_UNAVAILABLE, why)
                }
            }
            "/readyz" => match self.shown.unready() {
                None => text(StatusCode::OK, "ok\n".to_owned()),
                Some(why) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
            },
            "/status" => {
                let state = self.shown.json();
                // The page asks for no more bytes than it needs: a thousand shards take a megabyte.
                let is_compact = request.uri().query() == Some("compact");
                let text = if is_compact { format!("{state}\n") } else { format!("{state:#}\n") };
                with(StatusCode::OK, "application/json", text.into())
            }
            "/metrics" => with(
                StatusCode::OK,
                "text/plain; version=0.0.4; charset=utf-8",
                self.shown.prometheus().into(),
            ),
            _ => {
                let there = "not found: the paths are /, /livez, /readyz, /status and /metrics\n";
                text(StatusCode::NOT_FOUND, there.to_owned())
            }
        }
    }
}

fn text(status: StatusCode, text: String) -> Response<Full<Bytes>> {
    with(status, "text/plain; charset=utf-8", text.into())
}

fn with(status: StatusCode, kind: &'static str, body: Bytes) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::super::{Identity, Subject};
    use super::*;
    use crate::budget::Budget;

    fn subject() -> Arc<dyn Show> {
        let identity =
            Identity { worker: "w".into(), application: "a".into(), stream: "s".into(), table: "t".into() };
        Arc::new(Subject {
            identity,
            board: Arc::default(),
            budget: Budget::new(1),
            stuck_after: Duration::from_secs(60),
            wall: || 0,
            started: Instant::now(),
        })
    }

    fn pulse(silent: Duration) -> Pulse {
        Pulse(Arc::new(Mutex::new(Instant::now().checked_sub(silent).unwrap())))
    }

    fn server(silent: Duration) -> Server {
        Server::start(([127, 0, 0, 1], 0).into(), subject(), pulse(silent)).unwrap()
    }

    fn say(server: &Server, request: &str) -> String {
        let mut stream = std::net::TcpStream::connect(server.address()).unwrap();
        // The server may answer, and close, before it has read the whole request.
        let _closed = stream.write_all(request.as_bytes()).is_err();
        let mut answer = Vec::new();
        let _reset = stream.read_to_end(&mut answer).is_err();
        String::from_utf8(answer).unwrap()
    }

    fn get(server: &Server, path: &str, host: &str) -> String {
        say(server, &format!("GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
    }

    #[test]
    fn endpoint_answers_and_reports_a_blocked_daemon() {
        let well = server(Duration::from_secs(1));
        assert!(get(&well, "/livez", "localhost").starts_with("HTTP/1.1 200 OK"));
        assert!(get(&well, "/readyz", "localhost").contains("503 Service Unavailable"));
        assert!(get(&well, "/", "127.0.0.1:1").contains("<title>multilangd</title>"));
        assert!(get(&well, "/metrics", "[::1]").contains("\nmultilangd_ready 0\n"));
        assert!(get(&well, "/nothing", "localhost").starts_with("HTTP/1.1 404"));
        let wedged = server(Duration::from_secs(31));
        assert!(get(&wedged, "/livez", "localhost").contains("have not run for 31 s"));
        assert!(get(&wedged, "/status", "localhost").contains("\n  \"ready\": false"));
        assert!(get(&wedged, "/status?compact", "localhost").contains(",\"ready\":false"));
    }

    #[test]
    fn requests_and_connections_are_bounded() {
        let server = server(Duration::ZERO);
        assert!(get(&server, "/status", "example.com").starts_with("HTTP/1.1 403"));
        let post =
            "POST /status HTTP/1.1\r\nhost: localhost\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
        assert!(say(&server, post).starts_with("HTTP/1.1 405"));
        let long = format!("/{}", "x".repeat(HEAD_BYTES));
        let refused = get(&server, &long, "localhost");
        assert!(!refused.starts_with("HTTP/1.1 2"), "{refused}");
        assert!(!say(&server, "nonsense\r\n\r\n").starts_with("HTTP/1.1 2"));
        // Idle connections block no client, however many they are.
        let quiet: Vec<_> =
            (0..CONNECTIONS * 3).map(|_| std::net::TcpStream::connect(server.address()).unwrap()).collect();
        assert!(get(&server, "/livez", "localhost").starts_with("HTTP/1.1 200 OK"));
        drop(quiet);
    }

    #[test]
    fn host_and_origin_are_checked_without_cors_headers() {
        let local = server(Duration::ZERO);
        let own = "127.0.0.1:1\r\norigin: http://127.0.0.1:1";
        assert!(get(&local, "/status", own).starts_with("HTTP/1.1 200"));
        for (host, status) in [
            ("example.com", "403"),
            ("l\u{f6}calhost", "400"),
            ("localhost\r\nhost: example.com", "400"),
            ("localhost\r\norigin: https://example.com", "403"),
            ("localhost\r\norigin: null", "403"),
        ] {
            for path in ["/", "/livez", "/readyz", "/status", "/metrics"] {
                let answer = get(&local, path, host);
                assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{path} {host}: {answer}");
                assert!(!answer.to_lowercase().contains("access-control"), "{answer}");
            }
        }
        let probe = say(&local, "GET /livez HTTP/1.0\r\n\r\n");
        assert!(probe.starts_with("HTTP/1.0 200"), "a probe without a host: {probe}");
    }

    #[test]
    fn public_address_accepts_any_host_but_no_foreign_origin() {
        let desk =
            Desk { shown: subject(), pulse: pulse(Duration::ZERO), rule: Rule::site(([0; 4], 80).into()) };
        let answered = |host: &str, origin: Option<&str>| {
            let mut request = Request::new(());
            *request.uri_mut() = "/metrics".parse().unwrap();
            request.headers_mut().insert(header::HOST, host.parse().unwrap());
            if let Some(origin) = origin {
                request.headers_mut().insert(header::ORIGIN, origin.parse().unwrap());
            }
            desk.answer(&request).status().as_u16()
        };
        for host in
            ["10.1.2.3:9465", "multilangd:9465", "multilangd.default.svc.cluster.local", "status.example"]
        {
            assert_eq!(answered(host, None), 200, "{host}");
        }
        assert_eq!(answered("multilangd:9465", Some("http://example.com")), 403);
    }
}
