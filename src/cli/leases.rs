//! The arguments of `leases`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

/// `leases`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
#[command(subcommand_precedence_over_arg = true)]
pub(crate) struct Leases {
    /// The properties file; or, without seek and release, several or a folder of *.properties files.
    #[arg(value_name = "FILE", required = true)]
    pub(crate) files: Vec<PathBuf>,
    /// Print one JSON object; an array of them for several files.
    #[arg(long, global = true)]
    pub(crate) json: bool,
    /// Seconds between the two scans that show which leases are renewed [default: half of failoverTimeMillis; with seek
    /// and release failoverTimeMillis, and no less; not used by the other verbs].
    #[arg(long, global = true, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    pub(crate) watch: Option<u64>,
    /// Only the leases of this stream, if the properties file names several: its name, or ACCOUNT:NAME:EPOCH.
    #[arg(long, global = true, value_name = "STREAM")]
    pub(crate) stream: Option<String>,
    #[command(subcommand)]
    pub(crate) verb: Option<Verb>,
}

impl Leases {
    /// Refuses a verb for several files.
    pub(super) fn checked(self) -> Result<Self, clap::Error> {
        if self.verb.is_some() && self.files.len() > 1 {
            return Err(clap::Error::raw(
                clap::error::ErrorKind::TooManyValues,
                "multilangd leases seek and release take one properties file (run them for each)\n",
            ));
        }
        Ok(self)
    }
}

/// A verb, which writes leases.
#[derive(Debug, Clone, PartialEq, Eq, Subcommand)]
pub(crate) enum Verb {
    /// Move leases to another position.
    ///
    /// Prints and writes the new checkpoint of each lease. Refuses, and writes nothing, while a worker that owns one of
    /// them is alive: stop the workers first. Records between the old and the new position are delivered again or
    /// skipped.
    Seek {
        /// TRIM_HORIZON, LATEST, seconds since 1970, a time ago such as 15m, or with one --shard the sequence number of
        /// the first record to deliver.
        #[arg(long, value_name = "POSITION")]
        to: String,
        #[command(flatten)]
        which: Which,
    },
    /// Clear the owners of leases, so that other workers acquire them.
    ///
    /// Refuses, and writes nothing, while a worker that owns one of them is alive.
    Release {
        #[command(flatten)]
        which: Which,
    },
    /// Stop delivering the records of shards, and keep their leases.
    ///
    /// Within failoverTimeMillis the workers of multilangd end the record processors of these shards, as in a stop, and
    /// read nothing until unpark. Restarts and other workers keep that. A Java worker ignores it: the command names the
    /// owners that are not known as workers of multilangd.
    Park {
        #[command(flatten)]
        these: These,
        /// Take the leases away from their workers, so that those stop at once; a Java worker may acquire them again.
        #[arg(long)]
        force: bool,
    },
    /// Continue parked shards at their checkpoints.
    Unpark {
        #[command(flatten)]
        these: These,
    },
    /// Park all shards of the application, new ones included.
    ///
    /// Leases that are created meanwhile, as by resharding, are paused too. A Java worker ignores that: see park.
    Pause {
        /// Print what would be written, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// Copy the leases of one stream into a table of several.
    ///
    /// Creates leases of that stream in the table of FILE, which has multilangd.streams, with the checkpoints of the other
    /// application, so that it continues where that one ended. Refuses, and writes nothing, while a worker of the other application is alive, or if the stream has
    /// leases at other positions. The other table stays as it is.
    Copy {
        /// The properties file of the application that reads one stream.
        #[arg(long, value_name = "FILE")]
        from: PathBuf,
        /// Print what would be written, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
    /// End a pause; shards that were parked remain parked.
    Resume {
        /// Print what would be written, and write nothing.
        #[arg(long)]
        dry_run: bool,
    },
}

impl Verb {
    /// The leases, and how they are written.
    pub(crate) fn which(&self) -> Which {
        match self {
            Self::Seek { which, .. } | Self::Release { which } => which.clone(),
            Self::Park { these: These { shards, dry_run }, force } => {
                Which { shards: shards.clone(), dry_run: *dry_run, force: *force }
            }
            Self::Unpark { these: These { shards, dry_run } } => {
                Which { shards: shards.clone(), dry_run: *dry_run, force: false }
            }
            Self::Pause { dry_run } | Self::Resume { dry_run } | Self::Copy { dry_run, .. } => {
                Which { shards: Vec::new(), dry_run: *dry_run, force: false }
            }
        }
    }
}

/// The leases of a verb that leaves them to their owners.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct These {
    /// Only the lease of this shard; can be repeated [default: all leases].
    #[arg(long = "shard", value_name = "ID")]
    pub(crate) shards: Vec<String>,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
}

/// The leases, and how they are written.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Which {
    /// Only the lease of this shard; can be repeated [default: all leases].
    #[arg(long = "shard", value_name = "ID")]
    pub(crate) shards: Vec<String>,
    /// Print what would be written, and write nothing.
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Take leases away from workers that are alive.
    #[arg(long)]
    pub(crate) force: bool,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parsed;
    use super::*;

    #[test]
    fn verbs_follow_the_file_and_share_its_options() {
        let Ok((Command::Leases(leases), words)) = parsed(&[
            "leases", "f", "seek", "--to", "LATEST", "--shard", "a", "--shard", "b", "--json", "--set", "k=v",
        ]) else {
            panic!()
        };
        let Some(Verb::Seek { to, which }) = leases.verb else { panic!() };
        assert_eq!(
            (to.as_str(), which.shards, which.force, leases.json),
            ("LATEST", vec!["a".into(), "b".into()], false, true)
        );
        assert_eq!(words.overrides.len(), 1);
        let Ok((Command::Leases(leases), _)) =
            parsed(&["leases", "--watch", "1", "f", "release", "--dry-run"])
        else {
            panic!()
        };
        assert_eq!(leases.watch, Some(1));
        assert!(matches!(leases.verb, Some(Verb::Release { which }) if which.dry_run));
        assert!(parsed(&["leases", "f", "seek"]).is_err(), "without a position");
        let which = |arguments: &[&str]| {
            let Ok((Command::Leases(leases), _)) = parsed(&[&["leases", "f"], arguments].concat()) else {
                panic!("{arguments:?}")
            };
            leases.verb.unwrap().which()
        };
        let shards = |shards: &[&str]| shards.iter().map(|shard| (*shard).to_owned()).collect::<Vec<_>>();
        assert_eq!(
            which(&["park", "--shard", "a", "--force"]),
            Which { shards: shards(&["a"]), dry_run: false, force: true }
        );
        assert_eq!(
            which(&["unpark", "--shard", "a", "--shard", "b"]),
            Which { shards: shards(&["a", "b"]), dry_run: false, force: false }
        );
        for verb in ["pause", "resume"] {
            assert_eq!(
                which(&[verb, "--dry-run"]),
                Which { shards: Vec::new(), dry_run: true, force: false }
            );
            assert!(parsed(&["leases", "f", verb, "--shard", "a"]).is_err());
        }
        let Ok((Command::Leases(leases), _)) = parsed(&["leases", "f"]) else { panic!() };
        assert_eq!(leases.verb, None);
    }
}
