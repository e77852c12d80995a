//! The ports over the AWS SDK. SDK types stop in this folder.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | clients: region, endpoint, HTTP, time limits |
//! | [`http`] | HTTP: proxies, CA certificates, the endpoint's name in errors |
//! | [`credentials`] | providers of credentials |
//! | [`chain`] | providers asked one after the other |
//! | [`profile`] | the AWS profile |
//! | [`dynamodb`] | [`crate::lease::Table`] |
//! | `item` | lease rows and their attributes |
//! | [`kinesis`] | [`crate::shard::Api`] and [`crate::retrieval::Api`] |
//! | [`fanout`] | [`crate::retrieval::fanout::Api`] |
//! | `frames` | messages of an event stream, read while they come |
//! | `capture` | bodies of answers, taken below the SDK |
//! | `records` | records, read from those bytes while they come |
//! | [`state`] | [`crate::fleet::Store`] |
//! | `table_migration` | its move into one table |
//! | [`region`] | whether the region can be asked for |
//! | [`cloudwatch`] | [`crate::metrics::cloudwatch::Publisher`] |
//! | `calls` | every call counted |
//! | `skew` | whether this machine's clock is right |
//! | `error` | what a failure means to the caller |

mod calls;
mod capture;
pub mod chain;
pub mod client;
pub mod cloudwatch;
pub mod credentials;
pub mod dynamodb;
mod error;
pub mod fanout;
mod frames;
#[cfg(test)]
#[path = "../tests/support/fuzz.rs"]
mod fuzz;
pub mod http;
mod item;
pub mod kinesis;
pub mod profile;
pub mod records;
pub mod region;
mod reported;
mod skew;
pub mod state;
mod table_migration;

/// Log directives: what the SDK logs at length, each time, and our own messages say once: where credentials and
/// profiles were looked for.
pub const QUIET: &str = "aws_config::meta=error,aws_config::imds=error,aws_runtime::env_config=error";
