//! End-to-end tests: the real binary with real children and real signals, on the embedded endpoints.
//!
//! | file | holds |
//! |---|---|
//! | `applications.rs` | several properties files in one process |
//! | `letters.rs` | dead letters: records at which every record processor fails |
//! | `life.rs` | delivery, checkpoints, graceful shutdown, resume, resharding, `kill -9` |
//! | `check_aws.rs` | `multilangd check` with `--aws`, `--permissions` and `--diff` |
//! | `children.rs` | misbehaving children: one file per behaviour |
//! | `ci.rs` | `examples/ci`: the job of a user |
//! | `cloudwatch.rs` | CloudWatch metrics, compared with Java's |
//! | `conformance.rs` | `multilangd test` |
//! | `damage.rs` | a damaged data folder |
//! | `environment.rs` | the variables that describe the shard to a child |
//! | `faults.rs` | children that cannot be started or do not exit, or leave other processes |
//! | `fanout.rs` | enhanced fan-out: renewals, faults, no fan-out |
//! | `fleet.rs` | several daemons on one table |
//! | `getting_started.rs` | the commands of docs/getting-started.md |
//! | `health.rs` | `multilangd health` and `multilangd install` |
//! | `identity.rs` | a wrong stream name, a recreated stream, rows changed by hand, one worker id used twice |
//! | `input.rs` | invalid input: one message, a documented exit code |
//! | `interrupted.rs` | `multilangd leases FILE` with a verb, killed at each of its writes |
//! | `java.rs` | the lease rows, compared with Java's |
//! | `limits.rs` | open files and processes: raised, restored, never a reason to exit |
//! | `local.rs` | `multilangd local` |
//! | `log.rs` | the log: first line, colours, a blocked reader |
//! | `network.rs` | endpoints, proxies and CA certificates from the environment; unreachable hosts are named |
//! | `parked.rs` | shards whose record processors fail repeatedly |
//! | `private.rs` | the files of `multilangd local` and their permissions |
//! | `reading.rs` | faults of Kinesis |
//! | `seek.rs` | `multilangd leases FILE seek` and `release` |
//! | `status.rs` | the status page, probes and metrics |
//! | `streams.rs` | `multilangd tail` and `multilangd put` |
//! | `tables.rs` | the migration from three tables to one, compared with Java's |
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

#[path = "../support/ci.rs"]
mod ci_job;
#[path = "../support/denying.rs"]
mod denying;
#[path = "../support/wire.rs"]
mod forwarding;
#[path = "../support/proxy.rs"]
mod proxy;
#[path = "../support/rig.rs"]
mod rig;
#[path = "../support/applications.rs"]
mod several;
#[path = "../support/terminal.rs"]
mod terminal;

mod accounts;
mod applications;
mod check_aws;
mod children;
mod ci;
mod cloudwatch;
mod conformance;
mod damage;
mod environment;
mod fanout;
mod faults;
mod fleet;
mod getting_started;
mod health;
mod identity;
mod input;
mod interrupted;
mod java;
mod latest;
mod letters;
mod life;
mod limits;
mod local;
mod log;
mod multi_stream;
mod network;
mod orders;
mod parked;
mod private;
#[cfg(target_os = "linux")]
mod processes;
mod reading;
mod rows;
mod seek;
mod status;
mod streams;
mod tables;
