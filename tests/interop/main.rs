//! Beside real Java workers, on one table: the MultiLangDaemon 2.5.4, the MultiLangDaemon 3.1.3 both in KCL 3.x mode
//! and in the mode that is compatible with KCL 2.x, and a worker on the KCL library 3.5.1.
//!
//! Not part of `cargo test`: the Java workers come from Maven Central. `get.sh` fetches them and compiles the library
//! worker; it needs a JDK 17 and Maven.
//!
//! ```text
//! tests/interop/get.sh DIR
//! MULTILANGD_PEER=DIR cargo test --test interop -- --nocapture
//! MULTILANGD_PEER=DIR cargo test --test interop -- --nocapture library kept_attributes    # KCL 3.5.1, two minutes
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
//! | `library.rs` | the library worker 3.5.1 alone, by polling and fan-out, and beside ours |
//! | `kept_attributes.rs` | every Java worker keeps attributes of lease rows that it does not know |
//! | `identity.rs` | a wrong stream name, a table that Java began, a recreated stream, one `workerId` twice |
//! | `fleet.rs` | workers of both kinds, and when they have settled |
//! | `java.rs` | a Java worker as a process |
//! | `worker/Worker.java` | the library worker: a KCL `Scheduler` whose record processors report to the test |
//! | `load.rs` | what feeds, watches the table, and holds what was seen against what was put |
//! | `counter.rs` | a proxy that counts calls |
//! | `get.sh` | fetches the Java workers |
//!
//! A missing Java worker is a failure. Tests that mostly wait for a JVM run two at a time (`library.rs`,
//! `kept_attributes.rs` and `identity.rs`), all others one at a time: all take some twenty-five minutes on two cores.
//! The times that are printed include the six seconds that a fleet has to stay settled. When a test fails, the folder
//! that it names holds the properties file and the log of each worker.
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
mod identity;
mod java;
mod kept_attributes;
mod library;
mod load;
mod matrix;
mod migrate;
mod mixed;
mod resumed;
mod stalled;

/// Most tests need the machine for themselves and hold this for writing. Those that mostly wait hold it for
/// reading, and run beside each other.
static TURN: tokio::sync::RwLock<()> = tokio::sync::RwLock::const_new(());
