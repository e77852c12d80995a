//! Clients of the AWS services: one HTTP stack, and for each service its region, endpoint, credentials and
//! timeouts.
//!
//! The region is the configured one, otherwise that of the instance metadata. Settings of the environment and
//! the profile are part of the configuration.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::calls::Count;
use super::chain::{Chain, NoCredentials};
use super::http::{BadBundle, Http};
use super::skew::Watch;
use aws_config::provider_config::ProviderConfig;
use aws_config::stalled_stream_protection::StalledStreamProtectionConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;
use aws_smithy_types::retry::RetryConfig;
use tokio::sync::OnceCell;

use super::credentials::{self, Base};
use super::dynamodb::{self, Leases};
use super::kinesis::{self, Stream};
use super::letters::LetterStream;
use super::repeat::Repeat;
use super::{profile, region};
use crate::clock::ServiceTime;
use crate::config::ClientConfig;
use crate::config::credentials::Provider;
use crate::config::sdk::network::Network;
use crate::config::sdk::{Keys, Sdk};
use crate::metrics::Sink;
use crate::shard;

/// The names of the services, for [`Clients::locate_credentials`].
pub const KINESIS: &str = "Kinesis";
/// As [`KINESIS`].
pub const DYNAMODB: &str = "DynamoDB";

/// Settings of the clients.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Region, endpoint, timeouts and credentials of Kinesis.
    pub kinesis: ClientConfig,
    /// Region, endpoint, timeouts and credentials of DynamoDB.
    pub dynamodb: ClientConfig,
    /// Region, endpoint, timeouts and credentials of CloudWatch, if metrics are sent.
    pub cloudwatch: Option<ClientConfig>,
    /// Settings from outside the file that are shared by all clients.
    pub sdk: Sdk,
    /// `failoverTimeMillis`: writes of leases must be answered well within this time.
    pub failover: Duration,
}

impl Settings {
    /// Settings for endpoints on this machine, which accept any region and credentials.
    pub fn local(kinesis: &str, dynamodb: &str, region: &str, failover: Duration) -> Self {
        let client = |endpoint: &str| ClientConfig {
            region: Some(region.to_owned()),
            endpoint: Some(endpoint.to_owned()),
            providers: vec![Provider::SystemProperties],
            // Those of the environment are meant for AWS.
            fips: Some(false),
            dual_stack: Some(false),
            ..ClientConfig::default()
        };
        Self {
            kinesis: client(kinesis),
            dynamodb: client(dynamodb),
            cloudwatch: None,
            sdk: Self::local_sdk(),
            failover,
        }
    }

    /// Shared settings with credentials for endpoints on this machine.
    pub fn local_sdk() -> Sdk {
        Sdk { keys: Keys::of("local", "local"), ..Sdk::default() }
    }
}

/// No region is configured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to determine the AWS region: not configured (set regionName in the properties file, or \
     AWS_REGION)"
)]
pub struct NoRegion;

/// The clients cannot be created.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No region is configured.
    #[error(transparent)]
    NoRegion(#[from] NoRegion),
    /// The CA bundle cannot be used.
    #[error(transparent)]
    BadBundle(#[from] BadBundle),
}

/// The clients of all services.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the lease table.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For shards and records.
    pub kinesis: aws_sdk_kinesis::Client,
    /// For metrics, if they are sent.
    pub cloudwatch: Option<aws_sdk_cloudwatch::Client>,
    /// The time at AWS, by the responses of DynamoDB.
    pub service: ServiceTime,
    /// The endpoint of Kinesis, if it is configured.
    endpoint: Option<String>,
    http: Http,
    count: Count,
    watch: Watch,
    /// Credentials of DynamoDB, then those of Kinesis if they have other providers.
    credentials: Vec<(&'static str, Chain)>,
    /// The parts of a client of STS.
    pub(super) sts: StsParts,
    /// Whether credentials can come from instance metadata, which may not be available yet while a machine
    /// starts.
    may_come: bool,
    bases: Bases,
    basis: SharedBasis,
}

impl Clients {
    /// The stream of that name.
    pub fn stream(&self, name: String) -> Stream {
        let (endpoint, http, count) = (self.endpoint.clone(), self.http.clone(), self.count.clone());
        Stream::new(self.kinesis.clone(), name, endpoint, http, count)
    }

    /// The names of all streams of the account of the credentials.
    ///
    /// # Errors
    /// They cannot be listed.
    pub async fn stream_names(&self) -> Result<Vec<String>, shard::Error> {
        kinesis::stream_names(&self.kinesis).await
    }

    /// The stream of dead letters of that name or ARN.
    pub fn letter_stream(&self, stream: &str) -> LetterStream {
        LetterStream::new(self.kinesis.clone(), stream.to_owned())
    }

    /// The lease table of that name.
    pub fn leases(&self, table: String, options: dynamodb::Options) -> Leases {
        let repeat = Repeat::new(self.count.clone(), Some(self.watch.clone()));
        Leases::new(self.dynamodb.clone(), table, options).repeating(repeat)
    }

    /// The services with credentials of their own, and the place where these are found or why there are none. A service
    /// that is not listed has those of the other one, or its requests are not signed.
    pub async fn locate_credentials(&self) -> Vec<(&'static str, Result<String, String>)> {
        let mut located = Vec::new();
        for (service, chain) in &self.credentials {
            located.push((*service, chain.locate().await));
        }
        located
    }

    /// Loads the first credentials for DynamoDB and Kinesis.
    ///
    /// # Errors
    /// There are none, and there will be none without a change to the environment. Clients that are created after such a
    /// change look for them anew.
    pub async fn load_credentials(&self) -> Result<(), NoCredentials> {
        for (_, chain) in &self.credentials {
            match chain.load().await {
                Err(_) if self.may_come => return Ok(()),
                Err(none) => {
                    // The providers of profiles keep what they have read. Clients in use keep the basis.
                    self.bases.forget(&self.basis);
                    return Err(none);
                }
                Ok(()) => {}
            }
        }
        Ok(())
    }
}

/// The parts of a client of STS, which is created only to ask for the identity.
#[derive(Debug, Clone)]
pub(super) struct StsParts {
    pub(super) shared: SdkConfig,
    /// The region of Kinesis.
    pub(super) region: Region,
    /// The credentials of Kinesis.
    pub(super) credentials: Option<SharedCredentialsProvider>,
}

/// Creates the clients, whose calls are reported to `sink`. Makes no calls other than those of the region
/// chain.
///
/// # Errors
/// [`Error`].
pub async fn clients(settings: &Settings, sink: Arc<dyn Sink>) -> Result<Clients, Error> {
    Shared::default().clients(settings, sink).await
}

/// The shared part of the clients of several applications: connections where the network settings are equal, and credentials
/// where all settings of the services are. Each application has clients of its own, which report to its sink.
#[derive(Debug, Default)]
pub struct Shared {
    stacks: Mutex<Vec<(Network, Stack)>>,
    bases: Bases,
}

/// The common parts of clients, by the settings that they share.
#[derive(Debug, Clone, Default)]
struct Bases(Arc<Mutex<Vec<(Settings, SharedBasis)>>>);

/// Empty until the first clients are created.
type SharedBasis = Arc<OnceCell<Basis>>;

impl Bases {
    /// The common part of clients with these settings.
    fn get(&self, settings: &Settings) -> SharedBasis {
        // The timeouts that depend on it belong to each application's clients.
        let key = Settings { failover: Duration::ZERO, ..settings.clone() };
        let mut bases = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, basis)) = bases.iter().find(|(known, _)| *known == key) {
            return basis.clone();
        }
        let basis = SharedBasis::default();
        bases.push((key, basis.clone()));
        basis
    }

    fn forget(&self, basis: &SharedBasis) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).retain(|(_, known)| !Arc::ptr_eq(known, basis));
    }
}

/// The HTTP stack of clients.
#[derive(Debug, Clone)]
struct Stack {
    http: Http,
    client: SharedHttpClient,
}

/// The common part of clients with equal settings.
#[derive(Debug)]
struct Basis {
    stack: Stack,
    shared: SdkConfig,
    /// DynamoDB, Kinesis, and CloudWatch if metrics are sent.
    clients: Vec<Client>,
    chains: Vec<(&'static str, Chain)>,
}

impl Shared {
    /// Creates the clients of an application, whose calls are reported to `sink`. Makes no calls other than those of
    /// the region chain.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn clients(&self, settings: &Settings, sink: Arc<dyn Sink>) -> Result<Clients, Error> {
        // An application with other settings does not wait for a region that is being looked up.
        let place = self.bases.get(settings);
        let basis = place.get_or_try_init(|| self.create(settings)).await?;
        let mut made = basis.clients.iter().cloned();
        let (dynamodb, kinesis) = (made.next().ok_or(NoRegion)?, made.next().ok_or(NoRegion)?);
        let shared = &basis.shared;
        let cloudwatch = made.next().map(|cloudwatch| cloudwatch_config(shared, cloudwatch, &sink));
        let sts = StsParts {
            shared: shared.clone(),
            region: kinesis.region.clone(),
            credentials: kinesis.credentials.clone(),
        };
        let service = ServiceTime::default();
        let watch = Watch::new(service.clone());
        Ok(Clients {
            dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb_config(
                shared,
                dynamodb,
                settings.failover,
                &sink,
                watch.clone(),
            )),
            watch,
            service,
            kinesis: aws_sdk_kinesis::Client::from_conf(kinesis_config(shared, kinesis, &sink)),
            cloudwatch: cloudwatch.map(aws_sdk_cloudwatch::Client::from_conf),
            endpoint: settings.kinesis.endpoint.clone(),
            http: basis.stack.http.clone(),
            count: Count(sink.clone()),
            credentials: basis.chains.clone(),
            sts,
            may_come: region::may_have_metadata(settings.sdk.no_metadata),
            bases: self.bases.clone(),
            basis: place.clone(),
        })
    }

    fn stack(&self, network: &Network) -> Result<Stack, Error> {
        let mut stacks = self.stacks.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, stack)) = stacks.iter().find(|(known, _)| known == network) {
            return Ok(stack.clone());
        }
        let http = Http::new(network)?;
        let stack = Stack { client: http.client(), http };
        stacks.push((network.clone(), stack.clone()));
        Ok(stack)
    }

    async fn create(&self, settings: &Settings) -> Result<Basis, Error> {
        let sdk = &settings.sdk;
        let all = [Some(&settings.dynamodb), Some(&settings.kinesis), settings.cloudwatch.as_ref()];
        let stack = self.stack(&sdk.network)?;
        // Every call has a time limit as a whole, bodies included: the SDK need not watch the progress of each body as
        // well.
        let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
            .http_client(stack.client.clone())
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled())
            .no_credentials();
        // With configured regions the region chain, which may call instance metadata, is not needed. CloudWatch
        // does not need it: its default region is that of Kinesis.
        if let (Some(region), Some(_)) = (&settings.kinesis.region, &settings.dynamodb.region) {
            loader = loader.region(Region::new(region.clone()));
        }
        if !sdk.profile.name.is_empty() {
            loader = loader.profile_name(&sdk.profile.name);
        }
        loader = loader.profile_files(profile::chosen(&sdk.profile_files));
        loader = sdk.fips.into_iter().fold(loader, |loader, fips| loader.use_fips(fips));
        loader = sdk.dual_stack.into_iter().fold(loader, |loader, dual| loader.use_dual_stack(dual));
        let shared = Box::pin(loader.load()).await;
        let provider = ProviderConfig::without_region()
            .with_http_client(stack.client.clone())
            .with_region(shared.region().cloned())
            .with_use_fips(shared.use_fips())
            .with_use_dual_stack(shared.use_dual_stack());
        let (mut clients, mut chains) = (Vec::new(), Vec::new());
        for client in all.into_iter().flatten() {
            let region = client.region.clone().or_else(|| shared.region().map(ToString::to_string));
            let region = region.ok_or(NoRegion)?;
            let base = Base { shared: &shared, provider: &provider, sdk, region: Some(&region) };
            let credentials = Box::pin(credentials::provider(&client.providers, &base)).await;
            // Missing credentials for CloudWatch do not prevent the start, and equal providers would report the
            // same twice.
            let of = match clients.len() {
                0 => Some(DYNAMODB),
                1 => (client.providers != settings.dynamodb.providers).then_some(KINESIS),
                _ => None,
            };
            chains.extend(of.zip(credentials.clone()));
            // One provider for the clients of all applications: its loaded credentials are kept for all of them.
            let credentials = credentials.map(SharedCredentialsProvider::new);
            clients.push(Client { config: client.clone(), region: Region::new(region), credentials });
        }
        Ok(Basis { stack, shared, clients, chains })
    }
}

#[derive(Debug, Clone)]
pub(super) struct Client {
    pub(super) config: ClientConfig,
    pub(super) region: Region,
    /// None if requests are not signed.
    pub(super) credentials: Option<SharedCredentialsProvider>,
}

impl Client {
    /// The configured timeouts, or `whole` for a call.
    fn timeouts(&self, whole: Duration) -> TimeoutConfig {
        let whole = self.config.call_timeout.unwrap_or(whole);
        // The HTTP layer names the endpoint that did not answer, the SDK does not: it waits a little less.
        let read = self.config.attempt_timeout.map_or(whole, |attempt| attempt.min(whole));
        let mut timeouts = TimeoutConfig::builder().operation_timeout(whole).read_timeout(read * 29 / 30);
        if let Some(attempt) = self.config.attempt_timeout {
            timeouts = timeouts.operation_attempt_timeout(attempt);
        }
        timeouts.build()
    }
}

/// The part of a client's configuration that is the same for all services: their builders have the same
/// methods and no common trait.
macro_rules! configured {
    ($builder:expr, $client:ident, $sink:ident) => {{
        let mut config = $builder.region($client.region).interceptor(Count($sink.clone()));
        // An unset value is left to the SDK.
        if let Some(dual_stack) = $client.config.dual_stack {
            config = config.use_dual_stack(dual_stack);
        }
        if let Some(fips) = $client.config.fips {
            config = config.use_fips(fips);
        }
        config = match $client.credentials {
            Some(credentials) => {
                config.set_credentials_provider(Some(credentials));
                config
            }
            None => config.allow_no_auth(),
        };
        if let Some(endpoint) = &$client.config.endpoint {
            config = config.endpoint_url(endpoint);
        }
        config.build()
    }};
}

/// A write of a lease does not wait longer than a third of the failover time; only shorter timeouts of the
/// file apply.
pub(super) fn dynamodb_config(
    shared: &SdkConfig,
    client: Client,
    failover: Duration,
    sink: &Arc<dyn Sink>,
    watch: Watch,
) -> aws_sdk_dynamodb::Config {
    let own = (failover / 3).clamp(Duration::from_millis(500), Duration::from_secs(10));
    let whole = client.config.call_timeout.map_or(own, |given| given.min(own));
    let attempt = client.config.attempt_timeout.map_or(whole / 2, |given| given.min(whole / 2));
    let timeouts =
        TimeoutConfig::builder().operation_timeout(whole).operation_attempt_timeout(attempt).build();
    let retries =
        RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(100));
    let config = aws_sdk_dynamodb::config::Builder::from(shared)
        .timeout_config(timeouts)
        .retry_config(retries)
        .interceptor(watch);
    configured!(config, client, sink)
}

/// Metrics that cannot be sent at once are dropped: they have no use later.
fn cloudwatch_config(shared: &SdkConfig, client: Client, sink: &Arc<dyn Sink>) -> aws_sdk_cloudwatch::Config {
    let config = aws_sdk_cloudwatch::config::Builder::from(shared)
        .disable_request_compression(true)
        .timeout_config(client.timeouts(Duration::from_secs(5)))
        .retry_config(RetryConfig::standard());
    configured!(config, client, sink)
}

/// The retrieval retries calls itself, because it controls the rate (KCL's `kinesisRequestTimeout` is 30 s).
fn kinesis_config(shared: &SdkConfig, client: Client, sink: &Arc<dyn Sink>) -> aws_sdk_kinesis::Config {
    let config = aws_sdk_kinesis::config::Builder::from(shared)
        .timeout_config(client.timeouts(Duration::from_secs(30)))
        .retry_config(RetryConfig::disabled());
    configured!(config, client, sink)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_settings_share_a_basis_and_all_share_connections() {
        let shared = Shared::default();
        let settings = |dynamodb: &str, seconds| {
            Settings::local("http://127.0.0.1:1", dynamodb, "us-east-1", Duration::from_secs(seconds))
        };
        let one = shared.bases.get(&settings("http://127.0.0.1:2", 10));
        let with_other_timeouts = shared.bases.get(&settings("http://127.0.0.1:2", 30));
        let elsewhere = shared.bases.get(&settings("http://127.0.0.1:3", 10));
        assert!(Arc::ptr_eq(&one, &with_other_timeouts) && !Arc::ptr_eq(&one, &elsewhere));
        for _ in 0..2 {
            shared.stack(&Network::default()).unwrap();
        }
        assert_eq!(shared.stacks.lock().unwrap().len(), 1);
    }

    #[tokio::test]
    async fn credentials_that_were_missing_are_looked_for_anew() {
        let folder = std::env::temp_dir().join(format!("multilangd-missing-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = folder.join("credentials");
        let mut settings =
            Settings::local("http://127.0.0.1:1", "http://127.0.0.1:1", "us-east-1", Duration::from_secs(9));
        settings.sdk.no_metadata = true;
        let provider = Provider::Profile { name: None, file: Some(file.display().to_string()) };
        for client in [&mut settings.kinesis, &mut settings.dynamodb] {
            client.providers = vec![provider.clone()];
        }
        let shared = Shared::default();
        let start = async || shared.clients(&settings, Arc::new(crate::metrics::Discard)).await.unwrap();
        std::fs::write(&file, "").unwrap();
        let (first, second) = (start().await, start().await);
        assert!(first.load_credentials().await.is_err());
        std::fs::write(&file, "[default]\naws_access_key_id = i\naws_secret_access_key = s\n").unwrap();
        let third = start().await;
        assert_eq!(third.load_credentials().await, Ok(()));
        assert!(second.load_credentials().await.is_err(), "created before the change");
        assert!(Arc::ptr_eq(&start().await.basis, &third.basis), "a late failure forgets no other basis");
        std::fs::remove_dir_all(&folder).unwrap();
    }
}
