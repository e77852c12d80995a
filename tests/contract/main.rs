//! The contract of a Kinesis endpoint, as far as a consumer can tell.
//!
//! - `suite`: the table of cases that hold for any endpoint. Each runs against ours as a test of its
//!   own name, and all of them against npm's kinesis-local when `MULTILANGD_KINESIS_LOCAL` names one,
//!   where known differences must show.
//! - `streams`, `shards`, `filters`, `reading`, `writing`, `consumers`, `subscribing`, `wire`: the cases.
//! - `load`, `restart`, `faults`, `limits`: what only ours is asked for.

#![expect(
    clippy::print_stdout,
    reason = "a run against another endpoint tells which cases ran and which differed"
)]

mod endpoint;
mod load;
mod reading;
mod shards;
mod streams;
mod suite;
mod writing;
