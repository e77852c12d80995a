//! HTTP below the SDK: the path of each request to its endpoint (plain, TLS, through a proxy), and the endpoint's name
//! in every error.
//!
//! All calls of AWS use it: the clients, their credentials (STS, SSO, metadata services) and the
//! subscriptions of enhanced fan-out. A stack is created when a request first needs it: those with TLS hold
//! the CA certificates in memory.

use std::fmt;
use std::sync::Arc;

use aws_smithy_http_client::proxy::ProxyConfig;
use aws_smithy_http_client::tls::{self, rustls_provider::CryptoMode};
use aws_smithy_http_client::{Builder, Connector};
use aws_smithy_runtime_api::box_error::BoxError;
use aws_smithy_runtime_api::client::http::{
    HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpClient,
    SharedHttpConnector,
};
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;

use super::capture::Capturing;
use super::roots::{self, Trusted};
pub use super::roots::{BadBundle, certificates_in_use, check_bundle, in_use};
use crate::config::sdk::network::{Network, Proxy};

/// The cryptography of TLS: ring, or with the feature `fips` the FIPS module of AWS-LC.
#[cfg(not(feature = "fips"))]
const CRYPTO: CryptoMode = CryptoMode::Ring;
#[cfg(feature = "fips")]
const CRYPTO: CryptoMode = CryptoMode::AwsLcFips;

/// Creates HTTP stacks.
#[derive(Debug, Clone)]
pub(super) struct Http {
    network: Arc<Network>,
    trusted: Trusted,
}

impl Http {
    /// Creates stacks for these network settings.
    ///
    /// # Errors
    /// [`BadBundle`].
    pub(super) fn new(network: &Network) -> Result<Self, BadBundle> {
        Ok(Self { network: Arc::new(network.clone()), trusted: roots::trusted(network)? })
    }

    /// A new HTTP stack, which shares its connections with no other.
    pub(super) fn client(&self) -> SharedHttpClient {
        // Without TLS no certificates are needed.
        let by_proxy = |is_tls: bool| {
            move |proxy: &Proxy| {
                (proxy.clone(), self.stack(Some(proxy), is_tls || proxy.url.starts_with("https:")))
            }
        };
        SharedHttpClient::new(Capturing(SharedHttpClient::new(Routed(Arc::new(Routes {
            plain: self.stack(None, false),
            tls: self.stack(None, true),
            http: self.network.http.as_ref().map(by_proxy(false)),
            https: self.network.https.as_ref().map(by_proxy(true)),
            network: self.network.clone(),
        })))))
    }

    fn stack(&self, proxy: Option<&Proxy>, is_tls: bool) -> SharedHttpClient {
        let (trusted, proxy) = (self.trusted.clone(), proxy.and_then(configured));
        Builder::new().build_with_connector_fn(move |settings, components| {
            let mut builder = Connector::builder();
            builder.set_connector_settings(settings.cloned());
            if let Some(sleep) = components.and_then(RuntimeComponents::sleep_impl) {
                builder.set_sleep_impl(Some(sleep));
            }
            builder.set_proxy_config(proxy.clone());
            if !is_tls {
                return builder.build_http();
            }
            let mut builder = builder.tls_provider(tls::Provider::Rustls(CRYPTO));
            if let Some(trusted) = trusted.get() {
                builder.set_tls_context(trusted.clone());
            }
            builder.build()
        })
    }
}

/// The SDK's proxy settings; none if it rejects what was accepted before, which would be a bug.
fn configured(proxy: &Proxy) -> Option<ProxyConfig> {
    let config = ProxyConfig::all(proxy.url.as_str()).ok();
    debug_assert!(config.is_some(), "{proxy} is not a proxy URL");
    match &proxy.user {
        Some((user, password)) => config.map(|config| config.with_basic_auth(user, password)),
        None => config,
    }
}

/// The stacks, by the needs of a request.
#[derive(Debug)]
struct Routes {
    network: Arc<Network>,
    /// HTTP without certificates.
    plain: SharedHttpClient,
    tls: SharedHttpClient,
    http: Option<(Proxy, SharedHttpClient)>,
    https: Option<(Proxy, SharedHttpClient)>,
}

impl Routes {
    fn of(&self, url: &str) -> (&SharedHttpClient, Option<&Proxy>) {
        let is_tls = url.starts_with("https://");
        let proxied = if is_tls { &self.https } else { &self.http };
        match proxied.as_ref().filter(|_| self.network.proxy(url).is_some()) {
            Some((proxy, client)) => (client, Some(proxy)),
            None => (if is_tls { &self.tls } else { &self.plain }, None),
        }
    }
}

/// An HTTP client that selects the stack for each request.
#[derive(Debug, Clone)]
struct Routed(Arc<Routes>);

impl HttpClient for Routed {
    fn http_connector(
        &self,
        settings: &HttpConnectorSettings,
        components: &RuntimeComponents,
    ) -> SharedHttpConnector {
        let (settings, components) = (settings.clone(), components.clone());
        SharedHttpConnector::new(OnItsWay { routes: self.0.clone(), settings, components })
    }
}

#[derive(Debug)]
struct OnItsWay {
    routes: Arc<Routes>,
    settings: HttpConnectorSettings,
    components: RuntimeComponents,
}

impl HttpConnector for OnItsWay {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let (client, proxy) = self.routes.of(request.uri());
        let end = End { origin: origin(request.uri()), proxy: proxy.cloned() };
        // The stack caches its connectors.
        let answer = client.http_connector(&self.settings, &self.components).call(request);
        HttpConnectorFuture::new(async move { answer.await.map_err(|error| end.named(error)) })
    }
}

/// Scheme, host and port: the path can contain data that must not be logged.
pub(super) fn origin(url: &str) -> String {
    let host = url.find("://").map_or(0, |at| at + 3);
    let end = url[host..].find(['/', '?', '#']).map_or(url.len(), |at| host + at);
    url[..end].to_owned()
}

/// The destination of a request.
struct End {
    origin: String,
    proxy: Option<Proxy>,
}

/// The endpoint was not reached or did not answer.
#[derive(Debug)]
struct Unreached {
    origin: String,
    proxy: Option<Proxy>,
    source: BoxError,
}

impl fmt::Display for Unreached {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to call {}", self.origin)?;
        self.proxy.iter().try_for_each(|proxy| write!(f, " through the proxy {proxy} of {}", proxy.source))
    }
}

impl std::error::Error for Unreached {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.source)
    }
}

impl End {
    /// Adds the endpoint's name to an error; its kind, which decides about retries, is preserved.
    fn named(self, error: ConnectorError) -> ConnectorError {
        let connection = error.connection_metadata().cloned();
        let kind = (error.is_timeout(), error.is_user(), error.is_io(), error.as_other());
        let source = error.into_source();
        let source = Box::new(Unreached { origin: self.origin, proxy: self.proxy, source });
        let named = match kind {
            (true, ..) => ConnectorError::timeout(source),
            (_, true, ..) => ConnectorError::user(source),
            (_, _, true, _) => ConnectorError::io(source),
            (.., other) => ConnectorError::other(source, other),
        };
        match connection {
            Some(connection) => named.with_connection(connection),
            None => named,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Source;

    #[cfg(feature = "fips")]
    #[test]
    fn tls_of_fips_build_is_in_fips_mode() {
        assert!(rustls::crypto::default_fips_provider().fips());
        assert_eq!(CRYPTO, CryptoMode::AwsLcFips);
    }

    #[test]
    fn error_names_endpoint_and_proxy() {
        let end = || End { origin: origin("https://kinesis.eu-west-1.amazonaws.com:8443/a?b"), proxy: None };
        let text = super::super::error::causes(&end().named(ConnectorError::io("reset".into())));
        assert!(text.contains("https://kinesis.eu-west-1.amazonaws.com:8443: reset"), "{text}");
        assert!(end().named(ConnectorError::timeout("late".into())).is_timeout());
        assert!(end().named(ConnectorError::user("bad".into())).is_user());
        assert!(end().named(ConnectorError::other("odd".into(), None)).is_other());
        let user = Some(("me".to_owned(), "hush".to_owned()));
        let source = Source::Variable("HTTPS_PROXY");
        let proxy = Some(Proxy { url: "http://p:1".to_owned(), user, source });
        let error = End { proxy, ..end() }.named(ConnectorError::io("reset".into()));
        let text = super::super::error::causes(&error);
        assert!(text.contains("http://p:1 of HTTPS_PROXY") && !text.contains("hush"), "{text}");
        assert!(!format!("{error:?}").contains("hush"));
    }
}
