//! Contracts of a Kinesis endpoint, as far as a consumer can observe it, and of a lease table.
//!
//! - `suite`: the table of cases that hold for any endpoint. Each runs against the embedded endpoint as a test
//!   of its own. In `tests/kinesis_local` all of them run against npm's kinesis-local, where the known
//!   differences must show.
//! - `streams`, `shards`, `filters`, `reading`, `writing`, `consumers`, `subscribing`, `wire`: the cases.
//! - `ours`, `ours_subscribing`, `restart`, `load`: requirements on the embedded endpoint only: injected
//!   faults, expiry, limits, shortened times, the data folder, HTTP/2, many records.
//! - `pages`: requests that the local endpoints reject because a web page may have sent them.
//! - `letters`: the contract of a destination of dead letters, for every implementation.
//! - `tables`, `state`: the contracts of a lease table and of the rows beside the leases, for every
//!   implementation.

mod consumers;
mod endpoint;
mod filters;
mod letters;
mod load;
mod ours;
mod ours_subscribing;
mod pages;
mod reading;
mod restart;
mod shards;
mod state;
mod streams;
mod subscribing;
mod suite;
mod tables;
mod wire;
mod writing;
