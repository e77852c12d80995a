//! Keys with the prefix `kinesisClient.`, `dynamoDbClient.` or `cloudWatchClient.`: the methods of the Java
//! SDK's client builders that a file can reach. Any other name is fatal in Java.
//!
//! Source: `BuilderDynaBean`, `AwsClientBuilder` and `ClientOverrideConfiguration` of SDK 2.41.

use super::Use::{Never, NotYet, Yes};
use super::handle::{Class, Handle, Text};
use super::{Kind, Use};

/// The clients, by the prefix of their keys in its exact case.
pub const CLIENTS: &[(&str, Service)] = &[
    ("kinesisClient", Service::Kinesis),
    ("dynamoDbClient", Service::DynamoDb),
    ("cloudWatchClient", Service::CloudWatch),
];

/// An AWS service that is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// For streams.
    Kinesis,
    /// For leases.
    DynamoDb,
    /// For metrics.
    CloudWatch,
}

/// A key of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ClientKey {
    /// The name after the prefix and its dot.
    pub name: &'static str,
    /// The type of the value.
    pub kind: Kind,
    /// The effect of the key here.
    pub used: Use,
    /// The description for the documentation.
    pub doc: &'static str,
}

const fn key(name: &'static str, kind: Kind, used: Use, doc: &'static str) -> ClientKey {
    ClientKey { name, kind, used, doc }
}

const RETRIES: Use = Never("multilangd retries by itself, so that a lease is never renewed too late");

/// The region of Kinesis, from any source.
pub const KINESIS_REGION: Handle<Text> = Handle::of("kinesisClient.region", Class::Text);
/// The region of DynamoDB, from any source.
pub const DYNAMODB_REGION: Handle<Text> = Handle::of("dynamoDbClient.region", Class::Text);

/// All keys of the clients.
#[rustfmt::skip]
pub const KEYS: &[ClientKey] = &[
    key("region", Kind::Region, Yes, "AWS region of this client."),
    key("endpointOverride", Kind::Uri, Yes, "Endpoint URL."),
    key("dualstackEnabled", Kind::BoxedBool, Yes, "Use dual-stack (IPv6) endpoints."),
    key("fipsEnabled", Kind::BoxedBool, Yes, "Use FIPS 140 endpoints. The TLS module of the default build (rustls with ring) is not FIPS-validated; a build with the feature `fips` takes AWS-LC's FIPS module."),
    key("endpointDiscoveryEnabled", Kind::BoxedBool, Never("the Rust SDK does not support endpoint discovery"), "Endpoint discovery of DynamoDB."),
    key("overrideConfiguration.apiCallTimeout", Kind::Duration, Yes,
        "Timeout of a call with its retries; for DynamoDB only if it is shorter than the timeout of multilangd."),
    key("overrideConfiguration.apiCallAttemptTimeout", Kind::Duration, Yes, "Timeout of one attempt; for DynamoDB only if it is shorter than the timeout of multilangd."),
    key("overrideConfiguration.defaultProfileName", Kind::Text, NotYet("set AWS_PROFILE"), "Name of the profile."),
    key("overrideConfiguration.appId", Kind::Text, NotYet("set AWS_SDK_UA_APP_ID"), "Application id in the user agent."),
    key("overrideConfiguration.retryPolicy", Kind::Text, RETRIES, "Retries of failed calls."),
    key("overrideConfiguration.retryStrategy", Kind::Text, RETRIES, "Retries of failed calls."),
    key("overrideConfiguration.compressionConfiguration.requestCompressionEnabled", Kind::BoxedBool,
        Never("requests are not compressed"), "Compression of requests."),
    key("overrideConfiguration.compressionConfiguration.minimumCompressionThresholdInBytes", Kind::BoxedInt,
        Never("requests are not compressed"), "Compression of requests."),
];
