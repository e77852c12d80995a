//! Every order of events within small bounds, found by a model checker (stateright) that drives the daemon's own
//! decisions.
//!
//! | file | holds |
//! |---|---|
//! | `lease.rs` | one lease, two workers, a leader that moves it |
//! | `lease/checked.rs` | the bounds of that, and each promise shown to be watched |
//! | `lead.rs` | the leader's lock, two workers that want it, and what they give out |
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "test code"
)]

mod lead;
mod lease;
