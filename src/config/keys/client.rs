//! Keys with the prefix `kinesisClient.`, `dynamoDbClient.` or `cloudWatchClient.`: the methods of the Java
//! SDK's client builders that a file can reach. Any other name is fatal in Java.
//!
//! Source: `BuilderDynaBean`, `AwsClientBuilder` and `ClientOverrideConfiguration` of SDK 2.41.

use super::Use::{Never, NotYet, Yes};
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

const RETRIES: Use = Never("retries are the daemon's own, so that a lease is never renewed too late");

/// All keys of the clients.
#[rustfmt::skip]
pub const KEYS: &[ClientKey] = &[
    key("region", Kind::Region, Yes, "The region of this client."),
    key("endpointOverride", Kind::Uri, Yes, "Another address."),
    key("dualstackEnabled", Kind::BoxedBool, Yes, "Addresses with IPv6."),
    key("fipsEnabled", Kind::BoxedBool, Yes, "Addresses with FIPS 140."),
    key("endpointDiscoveryEnabled", Kind::BoxedBool, Never("the Rust SDK asks no endpoint discovery"), "DynamoDB only."),
    key("overrideConfiguration.apiCallTimeout", Kind::Duration, Yes,
        "For a call with its retries; of DynamoDB's only one shorter than the daemon's own counts."),
    key("overrideConfiguration.apiCallAttemptTimeout", Kind::Duration, Yes, "For one attempt; the same."),
    key("overrideConfiguration.defaultProfileName", Kind::Text, NotYet("AWS_PROFILE names the profile"), "The profile."),
    key("overrideConfiguration.appId", Kind::Text, NotYet("AWS_SDK_UA_APP_ID names the application"), "Part of the user agent."),
    key("overrideConfiguration.retryPolicy", Kind::Text, RETRIES, "How calls are repeated."),
    key("overrideConfiguration.retryStrategy", Kind::Text, RETRIES, "How calls are repeated."),
    key("overrideConfiguration.compressionConfiguration.requestCompressionEnabled", Kind::BoxedBool,
        Never("requests aren't compressed"), "Smaller requests."),
    key("overrideConfiguration.compressionConfiguration.minimumCompressionThresholdInBytes", Kind::BoxedInt,
        Never("requests aren't compressed"), "Smaller requests."),
];
