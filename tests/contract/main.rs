//! Contracts: of a Kinesis endpoint, as far as a consumer can tell, and of a lease table.
//!
//! - `suite`: the table of cases that hold for any endpoint. Each runs against ours as a test of its
//!   own name, and all of them against npm's kinesis-local when `MULTILANGD_KINESIS_LOCAL` names one,
//!   where known differences must show.
//! - `streams`, `shards`, `filters`, `reading`, `writing`, `consumers`, `subscribing`, `wire`: the
//!   cases.
//! - `ours`, `ours_subscribing`, `restart`, `load`: what only ours is asked for: faults, expiry,
//!   limits, shortened times, the data folder, HTTP/2, many records.
//! - `pages`: what the local endpoints refuse because a web page may have sent it.
//! - `tables`, `state`: the contracts of a lease table and of the rows beside the leases, on every
//!   implementation.

mod consumers;
mod endpoint;
mod filters;
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
