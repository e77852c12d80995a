//! Published MultiLang clients, unmodified, with the real binary.
//!
//! Not part of `cargo test`, because the packages come from their registries.
//!
//! ```text
//! tests/clients/get.sh DIR
//! MULTILANGD_CLIENTS=DIR cargo test --test clients
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | one row per client: its configuration and its limits |
//! | `scenario.rs` | the scenario of each client: shutdown, resume, split, merge |
//! | `ci.rs` | `examples/ci` with the record processor in Node |
//! | `conformance.rs` | `multilangd test` beside each client |
//! | `load.rs` | ten thousand records with amazon_kclpy, and a `kill -9` |
//! | `launchers.rs` | the start scripts of the clients, with the binary as their `java` |
//! | `getting_started.rs` | the commands of docs/getting-started.md that need Node, Go or a library |
//! | `swallowed.rs` | exceptions of amazon_kclpy become failures with `multilangd.childErrorLine` |
//! | `together.rs` | clients in Python, Node and Go as three applications of one process |
//! | `client.rs` | the description of a client, and its location |
//! | `records.rs` | sample records of all kinds, and assertions on the received ones |
//! | `processors/` | a record processor for each library, which reports to the test over a socket |
//! | `get.sh` | fetches the packages and builds the children in Go and Rust |
//!
//! A missing client is a failure; no client is skipped.
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../support/applications.rs"]
mod applications;
#[path = "../support/ci.rs"]
mod ci_job;
#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/terminal.rs"]
mod terminal;

mod aggregates;
mod ci;
mod client;
mod conformance;
mod getting_started;
mod launchers;
mod load;
mod records;
mod scenario;
mod swallowed;
mod table;
mod together;
