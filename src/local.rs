//! Everything on one machine: an embedded Kinesis endpoint, an embedded DynamoDB, a stream, and the
//! daemon on them. No AWS account, no Docker, no JVM.
//!
//! | module | holds |
//! |---|---|
//! | [`kinesis`] | the Kinesis endpoint |
//! | [`tables`] | the DynamoDB endpoint |
//! | [`run`] | `multilangd local`: endpoints, stream, records, daemon |
//! | [`feed`] | records into the stream |
//! | [`example`] | the shipped example |
//! | `files` | folders and files for this user alone |
//! | `server` | the HTTP server of both endpoints |
//! | [`progress`] | one line that tells what happens |
//!
//! Behind the cargo feature `local`; a production build has none of it.

pub mod example;
pub mod feed;
mod files;
pub mod kinesis;
pub mod progress;
pub mod run;
mod server;
pub mod tables;
