//! Clients: one HTTP stack, two services, each with its time limits.
//!
//! Region: the setting, else the SDK's chain (environment, profile, instance metadata). Credentials:
//! the SDK's default chain, unless given.

use std::time::Duration;

use aws_config::timeout::TimeoutConfig;
use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_sdk_dynamodb::config::Credentials;
use aws_smithy_http_client::{Builder, tls};
use aws_smithy_types::retry::RetryConfig;

/// What clients are made from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// Instead of the SDK's chain.
    pub region: Option<String>,
    /// Instead of Kinesis in the region.
    pub kinesis_endpoint: Option<String>,
    /// Instead of DynamoDB in the region.
    pub dynamodb_endpoint: Option<String>,
    /// Key id and secret, instead of the default chain.
    pub credentials: Option<(String, String)>,
    /// Writes on leases must be answered well within this.
    pub failover: Duration,
}

/// No region is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no AWS region is known: set regionName in the properties file, or AWS_REGION")]
pub struct NoRegion;

/// Both clients.
#[derive(Debug, Clone)]
pub struct Clients {
    /// For the lease table.
    pub dynamodb: aws_sdk_dynamodb::Client,
    /// For shards and records.
    pub kinesis: aws_sdk_kinesis::Client,
}

/// Makes the clients. Nothing is called but what the region's chain asks.
///
/// # Errors
/// [`NoRegion`].
pub async fn clients(settings: &Settings) -> Result<Clients, NoRegion> {
    let ring = tls::Provider::Rustls(tls::rustls_provider::CryptoMode::Ring);
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .http_client(Builder::new().tls_provider(ring).build_https());
    if let Some(region) = &settings.region {
        loader = loader.region(Region::new(region.clone()));
    }
    if let Some((id, secret)) = &settings.credentials {
        loader = loader.credentials_provider(Credentials::new(id, secret, None, None, "given"));
    }
    let shared = loader.load().await;
    if shared.region().is_none() {
        return Err(NoRegion);
    }
    Ok(Clients {
        dynamodb: aws_sdk_dynamodb::Client::from_conf(dynamodb(&shared, settings)),
        kinesis: aws_sdk_kinesis::Client::from_conf(kinesis(&shared, settings)),
    })
}

/// A write on a lease that takes longer than a third of its life is not waited for.
fn dynamodb(shared: &SdkConfig, settings: &Settings) -> aws_sdk_dynamodb::Config {
    let whole = (settings.failover / 3).clamp(Duration::from_millis(500), Duration::from_secs(10));
    let timeouts =
        TimeoutConfig::builder().operation_timeout(whole).operation_attempt_timeout(whole / 2).build();
    let mut config = aws_sdk_dynamodb::config::Builder::from(shared).timeout_config(timeouts).retry_config(
        RetryConfig::standard().with_max_attempts(3).with_initial_backoff(Duration::from_millis(100)),
    );
    if let Some(endpoint) = &settings.dynamodb_endpoint {
        config = config.endpoint_url(endpoint);
    }
    config.build()
}

/// Retries are the reader's own: it knows the pace (KCL's `kinesisRequestTimeout` is 30 s).
fn kinesis(shared: &SdkConfig, settings: &Settings) -> aws_sdk_kinesis::Config {
    let timeouts = TimeoutConfig::builder().operation_timeout(Duration::from_secs(30)).build();
    let mut config = aws_sdk_kinesis::config::Builder::from(shared)
        .timeout_config(timeouts)
        .retry_config(RetryConfig::disabled());
    if let Some(endpoint) = &settings.kinesis_endpoint {
        config = config.endpoint_url(endpoint);
    }
    config.build()
}
