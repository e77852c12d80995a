//! Published MultiLang clients, unmodified, under the real binary.
//!
//! Not part of `cargo test`: the packages come from their registries.
//!
//! ```text
//! tests/clients/get.sh DIR
//! MULTILANGD_CLIENTS=DIR cargo test --test clients
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `table.rs` | one row for each client: what it can and can't do |
//! | `scenario.rs` | what each client goes through: stop, resume, split, merge |
//! | `load.rs` | ten thousand records under amazon_kclpy, with a kill -9 |
//! | `launchers.rs` | the clients' own start scripts, given the binary as their `java` |
//! | `getting_started.rs` | the commands of docs/getting-started.md that need Node, Go or a library |
//! | `client.rs` | how a client is described, and where it lies |
//! | `records.rs` | records of every kind, and what must be true of those seen |
//! | `processors/` | a record processor for each library, reporting to the test over a socket |
//! | `get.sh` | fetches the packages and builds the children in Go and Rust |
//!
//! A client that is not there is a failure; none is passed over.
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

#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/terminal.rs"]
mod terminal;

mod aggregates;
mod client;
mod getting_started;
mod launchers;
mod load;
mod records;
mod scenario;
mod table;
