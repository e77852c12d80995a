//! One server that acts as every AWS service that issues credentials, and as a DynamoDB that denies access. It
//! records every request.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

#[derive(Debug, Clone)]
pub struct Request {
    pub path: String,
    /// The header `x-amz-target`.
    pub target: String,
    pub authorization: String,
    pub body: String,
}

pub struct Issuer {
    address: SocketAddr,
    requests: Arc<Mutex<Vec<Request>>>,
    _server: JoinSet<()>,
}

impl Issuer {
    pub async fn open() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let requests = Arc::new(Mutex::new(Vec::new()));
        let mut server = JoinSet::new();
        server.spawn(serve(listener, requests.clone()));
        Self { address, requests, _server: server }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn requests(&mut self) -> Vec<Request> {
        self.requests.lock().unwrap().clone()
    }
}

async fn serve(listener: TcpListener, requests: Arc<Mutex<Vec<Request>>>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            biased;
            // Joins ended connections first, so that the set stays small.
            Some(_) = connections.join_next() => {}
            accepted = listener.accept() => {
                let (socket, _) = accepted.unwrap();
                let requests = requests.clone();
                connections.spawn(async move {
                    let service = service_fn(move |request| answer(request, requests.clone()));
                    let served = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
                    let _client_left = served.await.is_err();
                });
            }
        }
    }
}

async fn answer(
    request: hyper::Request<Incoming>,
    requests: Arc<Mutex<Vec<Request>>>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let header = |name: &str| {
        request.headers().get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
    };
    let (target, authorization) = (header("x-amz-target"), header("authorization"));
    let (method, path) = (request.method().clone(), request.uri().to_string());
    let body = request.into_body().collect().await.unwrap().to_bytes();
    let body = String::from_utf8_lossy(&body).into_owned();
    let (status, text) = text(&method, &path, &body);
    requests.lock().unwrap().push(Request { path, target, authorization, body });
    let response = Response::builder().status(status);
    let token_life = response.header("x-aws-ec2-metadata-token-ttl-seconds", "21600");
    Ok(token_life.body(Full::from(text)).unwrap())
}

fn text(method: &Method, path: &str, body: &str) -> (u16, String) {
    const PROFILES: &str = "/latest/meta-data/iam/security-credentials";
    let json = |id: &str| {
        format!(
            r#"{{"Code": "Success", "Type": "AWS-HMAC", "LastUpdated": "2026-01-01T00:00:00Z", "AccessKeyId": "{id}",
               "SecretAccessKey": "hush", "Token": "t", "Expiration": "2999-01-01T00:00:00Z"}}"#
        )
    };
    if body.contains("Action=AssumeRoleWithWebIdentity") {
        (200, sts("AssumeRoleWithWebIdentity", "FROM-WEB"))
    } else if body.contains("Action=AssumeRole") {
        (200, sts("AssumeRole", "FROM-ROLE"))
    } else if path.starts_with("/federation/credentials") {
        let keys = r#"{"accessKeyId": "FROM-SSO", "secretAccessKey": "hush", "sessionToken": "t", "expiration": 32472144000000}"#;
        (200, format!(r#"{{"roleCredentials": {keys}}}"#))
    } else if method == Method::PUT && path == "/latest/api/token" {
        (200, "token".to_owned())
    } else if path.trim_end_matches('/') == PROFILES {
        (200, "role".to_owned())
    } else if path.starts_with(PROFILES) {
        (200, json("FROM-INSTANCE"))
    } else if path == "/container" {
        (200, json("FROM-CONTAINER"))
    } else {
        (400, r#"{"__type": "com.amazon.coral.service#AccessDeniedException", "Message": "no"}"#.to_owned())
    }
}

fn sts(action: &str, id: &str) -> String {
    format!(
        "<{action}Response xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><{action}Result><Credentials>\
         <AccessKeyId>{id}</AccessKeyId><SecretAccessKey>hush</SecretAccessKey><SessionToken>t</SessionToken>\
         <Expiration>2999-01-01T00:00:00Z</Expiration></Credentials><AssumedRoleUser><Arn>arn:aws:sts::1:assumed-role/r/me</Arn>\
         <AssumedRoleId>A:me</AssumedRoleId></AssumedRoleUser></{action}Result>\
         <ResponseMetadata><RequestId>1</RequestId></ResponseMetadata></{action}Response>"
    )
}
