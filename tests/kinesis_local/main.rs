//! npm's kinesis-local, in place of the embedded endpoint: the contract, and enhanced fan-out.
//!
//! `MULTILANGD_KINESIS_LOCAL` has its URL; without it the tests fail, so `cargo test` does not run them:
//!
//! ```text
//! tests/contract/get-kinesis-local.sh DIR
//! tests/contract/kinesis-local.sh DIR 4567 4568
//! MULTILANGD_KINESIS_LOCAL=http://127.0.0.1:4567 cargo test --test kinesis_local kinesis_local -- --nocapture
//! ```
//!
//! The argument leaves out the tests of the modules that this binary shares with others.
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../contract/consumers.rs"]
mod consumers;
#[path = "../contract/endpoint.rs"]
mod endpoint;
#[path = "../process/fanout.rs"]
mod fanout;
#[path = "../contract/filters.rs"]
mod filters;
#[allow(dead_code, reason = "the private CA is for other tests")]
#[path = "../support/wire.rs"]
mod forwarding;
#[path = "../contract/reading.rs"]
mod reading;
#[path = "../support/rig.rs"]
mod rig;
#[path = "../contract/shards.rs"]
mod shards;
#[path = "../contract/streams.rs"]
mod streams;
#[path = "../contract/subscribing.rs"]
mod subscribing;
#[path = "../contract/suite.rs"]
mod suite;
#[path = "../contract/wire.rs"]
mod wire;
#[path = "../contract/writing.rs"]
mod writing;

fn url() -> String {
    let given = std::env::var("MULTILANGD_KINESIS_LOCAL");
    given.expect("MULTILANGD_KINESIS_LOCAL names the URL of kinesis-local, see the module doc")
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_local_passes_all_cases_except_known_differences() {
    suite::assert_peer_passes(&url()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_local_fan_out_delivers_every_record() {
    fanout::assert_all_delivered_from_kinesis_local(url()).await;
}
