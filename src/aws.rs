//! Implementations of the ports with the AWS SDK. No other module uses SDK types.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | clients: region, endpoint, HTTP, timeouts |
//! | [`http`] | HTTP: proxies, the endpoint's name in errors |
//! | `roots` | the CA certificates |
//! | [`credentials`] | credentials providers |
//! | [`chain`] | providers tried one after the other |
//! | [`profile`] | the AWS profile |
//! | [`dynamodb`] | [`crate::lease::Table`] |
//! | `item` | lease rows and their attributes |
//! | [`kinesis`] | [`crate::shard::Api`] and [`crate::retrieval::Api`] |
//! | `connections` | the connections of subscriptions |
//! | [`fanout`] | [`crate::retrieval::push::Api`] |
//! | `frames` | messages of an event stream, decoded while they arrive |
//! | `capture` | bodies of answers, taken below the SDK |
//! | `repeat` | GetRecords without the orchestrator of the SDK |
//! | `records` | records, parsed from those bytes while they arrive |
//! | [`state`] | [`crate::fleet::Store`] |
//! | `table_migration` | its part of the table migration |
//! | [`probe`] | [`crate::probe::port::Api`] |
//! | [`region`] | whether the region can be requested |
//! | [`cloudwatch`] | [`crate::metrics::cloudwatch::Publisher`] |
//! | `calls` | counting of all calls |
//! | `skew` | the check of this machine's clock |
//! | `error` | classification of failures |

mod calls;
mod capture;
pub mod chain;
pub mod client;
pub mod cloudwatch;
mod connections;
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
pub mod letters;
pub mod probe;
pub mod profile;
pub mod records;
pub mod region;
mod repeat;
mod reported;
mod roots;
mod skew;
pub mod state;
mod table_migration;

/// Log directives that silence verbose messages of the SDK about the search for credentials and profiles,
/// which the daemon logs in one line.
pub const QUIET: &str = "aws_config::meta=error,aws_config::imds=error,aws_runtime::env_config=error";
