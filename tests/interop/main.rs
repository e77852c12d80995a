//! Our workers together with real Java workers on one table: the MultiLangDaemon 2.5.4, the MultiLangDaemon
//! 3.1.3 in KCL 3.x mode and in the mode that is compatible with KCL 2.x, and a worker that uses the KCL
//! library 3.5.1.
//!
//! Not part of `cargo test`: the Java workers come from Maven Central. `get.sh` fetches them and compiles the library
//! worker; it needs a JDK 17 and Maven.
//!
//! ```text
//! tests/interop/get.sh DIR
//! MULTILANGD_PEER=DIR cargo test --test interop -- --nocapture
//! MULTILANGD_PEER=DIR cargo test --test interop -- --nocapture library single_table several migrate kept_attributes multi_stream    # KCL 3.5.1
//! ```
//!
//! | file | holds |
//! |---|---|
//! | `mixed.rs` | two of ours and two of Java 2.5.4: join, shutdown, kill, reshard, failover |
//! | `matrix.rs` | the modes of 3.1.3, the single table of 3.5.1, and its table of several streams, × the leader, each with the same scenario |
//! | `migrate.rs` | migration from KCL 2.x to 3.x, roll-back, and migration again |
//! | `table_migration.rs` | migration from three tables to one beside the library worker, back, and again, with either leader |
//! | `resumed.rs` | a table written by one kind of worker is resumed by the other |
//! | `begun.rs` | our worker starts while Java 3.1.3 creates the tables |
//! | `stalled.rs` | a graceful handoff that Java never completes |
//! | `calls.rs` | DynamoDB calls of a fleet at rest, compared with Java |
//! | `library.rs` | the library worker 3.5.1 alone, with polling and fan-out |
//! | `kept_attributes.rs` | every Java worker preserves attributes of lease rows that it does not know |
//! | `orders.rs` | an operator pauses and parks beside Java 3.1.3 |
//! | `verbs.rs` | an operator moves, releases, pauses and parks beside a leader of each kind, alive and stopped |
//! | `multi_stream.rs` | the library worker 3.5.1 with several streams: its rows, each kind of worker on a table of the other, and streams that one side adds |
//! | `identity.rs` | a wrong stream name, a table created by Java, a recreated stream, one `workerId` used twice |
//! | `fleet.rs` | workers of both kinds, and the condition that they have settled |
//! | `java.rs` | a Java worker as a process |
//! | `worker/Worker.java` | the library worker: a KCL `Scheduler` whose record processors report to the test |
//! | `load.rs` | puts records, samples the table, and compares deliveries with the records |
//! | `counter.rs` | a proxy that counts calls |
//! | `get.sh` | fetches the Java workers |
//!
//! A missing Java worker is a failure. Tests that mostly wait for a JVM take a quarter of the machine, fleets of four
//! workers half of it, and `calls.rs` all of it: with `--test-threads=3` the whole takes about fifteen minutes on two
//! cores. The printed times include the six seconds for which a fleet has to stay settled. When a test fails, the
//! folder named in its message holds the properties file and the log of each worker.
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

#[allow(dead_code, reason = "each test binary uses a part")]
#[path = "../support/denying.rs"]
mod denying;
#[path = "../support/rig.rs"]
mod rig;

mod begun;
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
mod multi_stream;
mod orders;
mod resumed;
mod stalled;
mod table_migration;
mod verbs;

/// The capacity of the machine: a test whose processes mostly wait takes a quarter of it, a fleet of four workers half.
const MACHINE: u32 = 4;
static SHARES: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(MACHINE as usize);

/// Waits for a share of the machine.
async fn turn(share: u32) -> tokio::sync::SemaphorePermit<'static> {
    SHARES.acquire_many(share).await.unwrap()
}
