//! The arguments of `leases`.

use std::path::PathBuf;

use clap::Args;

/// `leases`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Leases {
    /// The properties file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
    /// Seconds between the two scans that show which leases are renewed [default: half of failoverTimeMillis].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) watch: Option<u64>,
}
