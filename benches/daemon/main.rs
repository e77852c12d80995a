//! Benchmarks of the whole daemon:
//! `cargo bench --bench daemon -- [speed] [tls] [first] [idle] [memory] [drain] [large] [letters] [files-40]`. Without arguments
//! all of them run; `speed-100B` and the like measure records of one size, `idle-32` and `idle-32-polled` those cases alone.
//! `MULTILANGD_PEER` (see `tests/interop/get.sh`) adds the Java daemon to the comparison, `MULTILANGD_EARLIER` an earlier
//! build of multilangd. `MULTILANGD_BINARY` names another build to measure instead of this one, such as the image's.
//!
//! | argument | measures |
//! |---|---|
//! | `speed` | MB/s, and CPU seconds per GB of record data, through the daemon, compared with a ceiling: a process that copies the endpoint's responses to the same pipes without parsing them |
//! | `tls` | the same for multilangd over TLS and HTTP/2, compared with plain HTTP: the extra cost of AWS's endpoints |
//! | `idle` | memory, threads and CPU of a daemon without records to process |
//! | `memory` | the daemon's memory with 1,000 idle leases and no child processes, and with stuck children |
//! | `first` | seconds from the start of the process to the first record |
//! | `drain` | MB/s of one busy shard among 0 to 999 idle ones, with the default settings |
//! | `letters` | the speed with dead letters or `multilangd.childErrorLine`, while no record fails, compared with neither |
//! | `large` | seconds until records of 10 MiB, and small ones behind them, reach the children of 32 shards |
//! | `files-40` | memory, CPU and DynamoDB calls of 40 applications in one process, beside one application and 40 processes |
//!
//! The endpoints run in this process; the daemon, the children and the raw reader are separate processes (this
//! binary with other arguments). All of them run on one machine, so the ratios are meaningful, not the absolute
//! numbers.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::cast_precision_loss,
    clippy::large_futures,
    missing_docs,
    unreachable_pub,
    reason = "a benchmark ends at the first error"
)]

mod drain;
mod files;
mod idle;
mod letters;
mod process;
mod roles;
mod speed;
#[allow(dead_code, reason = "only tests use the fault injection")]
#[path = "../../tests/support/wire.rs"]
mod wire;
mod world;

fn main() {
    let mut words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    match words.first().map(String::as_str) {
        Some("child") => return roles::child(&words[1..]),
        Some("raw") => return roles::raw(&words[1..]),
        Some("without-processes") => return roles::without_processes(&words[1..]),
        _ => {}
    }
    // Each child has a connection to this process, and each lease one to its endpoints.
    let _raised = multilangd::limits::Limits::raise();
    if words.is_empty() {
        words = ["speed", "tls", "first", "idle", "memory", "drain", "large", "letters", "files-40"]
            .map(str::to_owned)
            .to_vec();
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        for word in words {
            match word.as_str() {
                "speed" => speed::speed("").await,
                size if size.starts_with("speed-") => speed::speed(&size["speed-".len()..]).await,
                "tls" => speed::tls().await,
                "first" => idle::first().await,
                "idle" => idle::idle("").await,
                cases if cases.starts_with("idle-") => idle::idle(&cases["idle-".len()..]).await,
                "memory" => idle::memory().await,
                "drain" => drain::drain().await,
                "large" => drain::large().await,
                "letters" => letters::letters().await,
                count if count.starts_with("files-") => {
                    files::files(count["files-".len()..].parse().unwrap()).await;
                }
                other => {
                    panic!("{other:?} is none of speed, tls, first, idle, memory, drain, large, letters, files-40")
                }
            }
        }
    });
}
