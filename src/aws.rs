//! The ports over the AWS SDK. SDK types stop in this folder.
//!
//! | module | holds |
//! |---|---|
//! | [`client`] | clients: region, endpoint, credentials, HTTP, time limits |
//! | [`dynamodb`] | [`crate::lease::Table`] |
//! | `item` | lease rows and their attributes |
//! | [`kinesis`] | [`crate::shard::Api`] and [`crate::retrieval::Api`] |
//! | `error` | what a failure means to the caller |

pub mod client;
pub mod dynamodb;
mod error;
mod item;
pub mod kinesis;
