//! The arguments of the commands for dead letters: `letters` and `replay`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// The commands.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Command {
    /// List the dead letters of an application, or of a file.
    ///
    /// Prints time, shard, sequence number, size and last error of each letter. FILE is a properties file, whose
    /// multilangd.deadLetters names folders (file:DIR), or a file of letters. Exits with 1 if a line is no letter.
    Letters(List),
    /// Process dead letters again.
    ///
    /// Starts the record processor of the properties file without a lease and gives it the records of LETTERS, one at a
    /// time; checkpoints are acknowledged and dropped. Letters that fail again are written to a new file beside LETTERS,
    /// and the exit code is 1. LETTERS is not changed.
    Replay(Replay),
}

/// The arguments of `letters`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct List {
    /// The properties file, or a file of letters.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// Print one JSON object.
    #[arg(long)]
    pub(crate) json: bool,
}

/// The arguments of `replay`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Replay {
    /// The properties file.
    #[arg(value_name = "FILE")]
    pub(crate) file: PathBuf,
    /// The file of letters.
    #[arg(value_name = "LETTERS")]
    pub(crate) letters: PathBuf,
}
