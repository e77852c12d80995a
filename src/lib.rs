//! multilangd: a Kinesis MultiLangDaemon without a JVM, as a library behind the binary.
//!
//! Each flow has one path through the modules, and lower layers never call upper ones:
//!
//! ```text
//! records    Kinesis -> aws -> retrieval -> consumer -> multilang -> the child's stdin
//! progress   the child's stdout -> multilang -> consumer -> checkpoint -> lease -> aws -> DynamoDB
//! ownership  DynamoDB -> aws -> lease -> coordinator -> scheduler -> consumer
//! stop       signal -> daemon -> scheduler -> consumer -> multilang -> the child
//! ```
//!
//! `tests/tidy.rs` compares the imports of each module with the map of modules.

pub mod aws;
pub mod backoff;
pub mod batch;
pub mod budget;
pub mod capacity;
pub mod checkpoint;
pub mod clock;
pub mod config;
pub mod conformance;
pub mod consumer;
pub mod coordinator;
pub mod cpu;
pub mod daemon;
pub mod edit;
pub mod exit;
pub mod fleet;
pub mod health;
pub mod inspect;
pub mod install;
pub mod lease;
pub mod letters;
pub mod limits;
#[cfg(feature = "local")]
pub mod local;
pub mod membership;
pub mod metrics;
pub mod multilang;
pub mod probe;
pub mod reach;
pub mod recognition;
pub mod record;
pub mod record_lines;
pub mod replay;
pub mod retrieval;
pub mod scheduler;
pub mod sequence;
pub mod shard;
pub mod shard_sync;
pub mod status;
pub mod stream;
pub mod streams;
pub mod supervisor;
pub mod tail;
pub mod unique;
pub mod version;
pub mod web;
