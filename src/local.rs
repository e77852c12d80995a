//! Everything on one machine: an embedded Kinesis endpoint, an embedded DynamoDB, a stream, and the daemon on
//! them. No AWS account, no Docker, no JVM.
//!
//! | module | holds |
//! |---|---|
//! | [`kinesis`] | the Kinesis endpoint |
//! | [`tables`] | the DynamoDB endpoint |
//! | [`run`] | `multilangd local`: endpoints, stream, records, daemon |
//! | [`completion`] | when a run with `--exit-when-done` is done |
//! | [`feed`] | putting records into the stream |
//! | [`example`] | the shipped example |
//! | `files` | folders and files that only this user can access |
//! | `server` | the HTTP server of both endpoints |
//! | [`progress`] | the progress line |
//! | `stdout` | lines for people |
//! | `streams` | creates streams on the endpoint |
//! | `watch` | changes of the record processor's files |
//!
//! Built only with the cargo feature `local`, which production builds leave out.

pub mod completion;
pub mod example;
pub mod feed;
mod files;
pub mod kinesis;
pub mod progress;
pub mod run;
mod server;
mod stdout;
mod streams;
pub mod tables;
mod watch;
