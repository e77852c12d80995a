//! Exhaustive checks of every order of events within small bounds: a model checker (stateright) drives the
//! daemon's own decisions.
//!
//! | file | holds |
//! |---|---|
//! | `lease.rs` | one lease, two workers, a leader that moves the lease |
//! | `lease/checked.rs` | the bounds of these checks, and a fault for each invariant |
//! | `checker.rs` | runs the model checker |
//! | `coordinator.rs` | two coordinators and two leases: the step of their state machine, shared and led |
//! | `coordinator/world.rs` | the effects of their steps on the rows, and the judgement of them |
//! | `coordinator/checked.rs` | the bounds of these checks, and a fault for each invariant |
//! | `lead.rs` | the leader lock, two workers that stand for election, and their lease assignments |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "test code"
)]

mod checker;
mod coordinator;
mod lead;
mod lease;
