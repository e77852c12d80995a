//! A connection to an endpoint that a test can cut, in plain HTTP or over TLS.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{broadcast, watch};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A self-signed certificate for `localhost`, valid for a hundred years: `openssl req -x509 -newkey ec -pkeyopt
/// ec_paramgen_curve:P-256 -nodes -days 36500 -subj "/CN=multilangd tests" -addext subjectAltName=DNS:localhost
/// -addext basicConstraints=critical,CA:FALSE -keyout key.pem -out certificate.pem`.
const TLS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls");

/// A forwarder to an endpoint.
pub struct Wire {
    pub url: String,
    cuts: broadcast::Sender<()>,
    /// The number of connections so far, and how many of them negotiated HTTP/2.
    pub connections: watch::Receiver<(usize, usize)>,
    _task: JoinSet<()>,
}

impl Wire {
    pub async fn to(address: &str) -> Self {
        Self::open(address, None).await
    }

    /// Over TLS, with HTTP/2 for clients that negotiate it. [`trust`] must be in the daemon's environment.
    pub async fn over_tls(address: &str) -> Self {
        Self::with_certificate(address, "certificate.pem", "key.pem").await
    }

    /// Over TLS, with a certificate for `host.docker.internal` and `host.containers.internal` that
    /// [`private_ca`] signed.
    pub async fn of_private_ca(address: &str) -> Self {
        Self::with_certificate(address, "private-certificate.pem", "private-key.pem").await
    }

    async fn with_certificate(address: &str, certificate: &str, key: &str) -> Self {
        let read = |name: &str| Path::new(TLS).join(name);
        let certificate = CertificateDer::from_pem_file(read(certificate)).unwrap();
        let key = PrivateKeyDer::from_pem_file(read(key)).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()));
        let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
        let mut config = config.with_single_cert(vec![certificate], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Self::open(address, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn open(address: &str, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let url = if tls.is_some() { "https://localhost" } else { "http://127.0.0.1" };
        let url = format!("{url}:{port}");
        let (cuts, _) = broadcast::channel(1);
        let (count, connections) = watch::channel((0, 0));
        let (address, cut_signal) = (address.to_owned(), cuts.clone());
        let mut task = JoinSet::new();
        task.spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let (cut, address, tls, count) =
                    (cut_signal.subscribe(), address.clone(), tls.clone(), count.clone());
                count.send_modify(|(all, _)| *all += 1);
                open.spawn(async move {
                    match tls {
                        None => carry(near, &address, cut).await,
                        Some(tls) => {
                            // A client that aborts the handshake has no connection.
                            let Ok(near) = tls.accept(near).await else { return };
                            let is_two = near.get_ref().1.alpn_protocol() == Some(b"h2");
                            count.send_modify(|(_, two)| *two += usize::from(is_two));
                            carry(near, &address, cut).await;
                        }
                    }
                });
            }
        });
        Self { url, cuts, connections, _task: task }
    }

    /// Closes all connections; data in flight is lost.
    pub fn cut(&self) {
        let _nobody_is_connected = self.cuts.send(()).is_err();
    }
}

async fn carry(
    mut near: impl AsyncRead + AsyncWrite + Unpin,
    address: &str,
    mut cut: broadcast::Receiver<()>,
) {
    let mut far = TcpStream::connect(address).await.unwrap();
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
        _ = cut.recv() => {}
    }
}

/// The environment variable that makes a daemon trust the certificate.
pub fn trust() -> (OsString, OsString) {
    ("SSL_CERT_FILE".into(), Path::new(TLS).join("certificate.pem").into())
}

/// The certificate of a CA that no system trusts. Created like the other one, with
/// `basicConstraints=critical,CA:TRUE`; its key is not kept.
pub fn private_ca() -> PathBuf {
    Path::new(TLS).join("private-ca.pem")
}
