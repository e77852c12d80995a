//! Beside the real Java daemon, on one table: 2.5.4, and 3.1.3 both as it comes and in the mode that
//! gets along with KCL 2.
//!
//! Not part of `cargo test`: the Java daemons come from Maven Central.
//!
//! ```text
//! tests/interop/get.sh DIR
//! MULTILANGD_PEER=DIR cargo test --test interop -- --nocapture
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `mixed.rs` | two of ours and two of Java 2: join, stop, kill, reshard, take over |
//! | `matrix.rs` | the modes of 3.1.3 × who leads, each with the same story |
//! | `migrate.rs` | from the way of KCL 2 to that of 3, back and on |
//! | `resumed.rs` | a table that one has written is read on by the other |
//! | `stalled.rs` | a hand-off that Java never completes |
//! | `calls.rs` | what a fleet at rest asks of DynamoDB, beside Java's |
//! | `fleet.rs` | workers of both kinds, and when they have settled |
//! | `java.rs` | a Java daemon as a process |
//! | `load.rs` | what feeds, watches the table, and holds what was seen against what was put |
//! | `counter.rs` | a proxy that counts calls |
//! | `get.sh` | fetches the Java daemons |
//!
//! A Java daemon that is not there is a failure. One test runs at a time, as a JVM is heavy: all take some
//! twenty minutes on two cores. The times that are printed hold the six seconds that a fleet has to stay settled.
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    clippy::wildcard_enum_match_arm,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

#[path = "../support/rig.rs"]
mod rig;

mod calls;
mod counter;
mod fleet;
mod java;
mod load;
mod matrix;
mod migrate;
mod mixed;
mod resumed;
mod stalled;

/// Held by the test that runs.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
