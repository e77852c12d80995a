//! The whole daemon, measured: `cargo bench --bench daemon -- [speed] [tls] [first] [idle] [memory] [drain] [large]`, all
//! of them without a word; `speed-100B` and the like for records of one size. `MULTILANGD_PEER` (see
//! `tests/interop/get.sh`) adds the Java daemon beside it, `MULTILANGD_EARLIER` another build of ours.
//! `MULTILANGD_BINARY` is a build to measure instead of this one, such as the image's.
//!
//! | word | measures |
//! |---|---|
//! | `speed` | MB/s and processor seconds a GB of record data through the daemon, beside the ceiling: a process that reads the endpoint raw and writes the same pipes without looking |
//! | `tls` | the same of ours over TLS and HTTP/2, beside the bare way: what AWS's endpoints cost more |
//! | `idle` | memory, threads and processor of a daemon that has nothing to do |
//! | `memory` | the daemon's memory with 1,000 idle leases, its children left out; and with children that are stuck |
//! | `first` | from the start of the process to the first record |
//! | `drain` | MB/s of one busy shard among 0 to 999 idle ones, all settings at their defaults |
//! | `large` | when records of 10 MiB, and small ones behind them, reach the children of 32 shards |
//!
//! The endpoints run in this process; the daemon, the children and the raw reader are processes of their own (this
//! binary under other words). All on one machine: what counts are the ratios.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "a measurement ends at the first thing that is wrong"
)]

mod drain;
mod idle;
mod process;
mod roles;
mod speed;
#[allow(dead_code, reason = "the tests cut it")]
#[path = "../../tests/support/wire.rs"]
mod wire;
mod world;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("child") => return roles::child(&words[1..]),
        Some("raw") => return roles::raw(&words[1..]),
        Some("hollow") => return roles::hollow(&words[1..]),
        _ => {}
    }
    // Each child has a connection to this process, and each lease one to its endpoints.
    let _raised = multilangd::limits::Limits::raise();
    if words.is_empty() {
        words = ["speed", "tls", "first", "idle", "memory", "drain", "large"].map(str::to_owned).to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for word in words {
            match word.as_str() {
                "speed" => speed::speed("").await,
                size if size.starts_with("speed-") => speed::speed(&size["speed-".len()..]).await,
                "tls" => speed::tls().await,
                "first" => idle::first().await,
                "idle" => idle::idle().await,
                "memory" => idle::memory().await,
                "drain" => drain::drain().await,
                "large" => drain::large().await,
                other => panic!("{other:?} is none of speed, tls, first, idle, memory, drain, large"),
            }
        }
    });
}
