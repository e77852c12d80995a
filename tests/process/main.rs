//! The real binary with real children and real signals, on the embedded endpoints.
//!
//! | file | holds |
//! |---|---|
//! | `life.rs` | records out, checkpoints back, stop, resume, resharding, kill -9 |
//! | `children.rs` | children that misbehave: one file a behaviour |
//! | `cloudwatch.rs` | metrics, beside what Java was seen to send |
//! | `damage.rs` | a data folder that is not as it was left |
//! | `faults.rs` | children that can't be started or ended, or are not alone |
//! | `fanout.rs` | records pushed: renewals, trouble, no fan-out |
//! | `fleet.rs` | several daemons on one table |
//! | `getting_started.rs` | the commands of docs/getting-started.md |
//! | `identity.rs` | a wrong stream name, a recreated stream, rows that people change, one worker id twice |
//! | `input.rs` | bad input: one message, a named exit code |
//! | `java.rs` | the lease rows, beside what Java was seen to write |
//! | `limits.rs` | open files and processes: raised, given back, never a reason to exit |
//! | `local.rs` | `multilangd local` |
//! | `log.rs` | a log that nobody reads |
//! | `network.rs` | the environment's endpoints, proxies, CA certificates; what cannot be reached is named |
//! | `parked.rs` | shards whose record processors fail again and again |
//! | `private.rs` | what `multilangd local` writes, and for whom |
//! | `reading.rs` | Kinesis in trouble |
//! | `status.rs` | the status page, probes and metrics |
//! | `tables.rs` | from three tables to one, and the rows in it, beside Java's |
//!
//! The children are `tests/support/processor.py`, which needs python3.
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

#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/terminal.rs"]
mod terminal;
#[path = "../support/wire.rs"]
mod wire;

mod children;
mod cloudwatch;
mod damage;
mod fanout;
mod faults;
mod fleet;
mod getting_started;
mod identity;
mod input;
mod java;
mod life;
mod limits;
mod local;
mod log;
mod network;
mod parked;
mod private;
mod reading;
mod rows;
mod status;
mod tables;
