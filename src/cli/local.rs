//! The arguments of `local`.

use std::path::PathBuf;

use clap::Args;

/// `local`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Local {
    /// The properties file; several, or a folder of *.properties files, run as applications in one process; without it
    /// an example runs, which requires python3.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Number of shards of the stream, if it is created.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    shards: i32,
    /// Put each line of this file, or of stdin if it is -, into the stream as a record.
    #[arg(long, value_name = "FILE")]
    put: Option<PathBuf>,
    /// Exit with 0 once all records of --put are checkpointed. Exit with 1 if a record processor fails
    /// multilangd.maxChildFailures times in a row, or after --exit-timeout.
    #[arg(long, requires = "put")]
    exit_when_done: bool,
    /// With --exit-when-done: exit with 1 after this many seconds without a checkpoint.
    #[arg(long, value_name = "SECONDS", default_value_t = 60, requires = "exit_when_done")]
    #[arg(value_parser = clap::value_parser!(u64).range(1..=86_400))]
    exit_timeout: u64,
    /// Restart the record processors when a file that executableName names, or a file in its folder, changes.
    #[arg(long, conflicts_with = "exit_when_done")]
    watch: bool,
    /// Keep streams and leases in this folder between runs.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Port of the Kinesis endpoint; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4567)]
    kinesis_port: u16,
    /// Port of the DynamoDB endpoint; 0 takes any free one.
    #[arg(long, value_name = "PORT", default_value_t = 4568)]
    dynamodb_port: u16,
}

impl Local {
    /// The files and folders; none for the example.
    pub(crate) fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The options of local mode.
    pub(crate) fn options(&self) -> multilangd::local::run::Options {
        multilangd::local::run::Options {
            shards: self.shards,
            put: self.put.clone().map(Into::into),
            exit_when_done: self.exit_when_done.then(|| std::time::Duration::from_secs(self.exit_timeout)),
            watch: self.watch,
            data: self.data.clone(),
            kinesis_port: self.kinesis_port,
            dynamodb_port: self.dynamodb_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parsed;

    #[test]
    fn local_accepts_its_options() {
        let Command::Local(local) =
            parsed(&["local", "--shards", "2", "--data", "d", "f.properties"]).unwrap().0
        else {
            panic!()
        };
        let options = local.options();
        assert_eq!(
            (options.shards, options.data, local.files()),
            (2, Some("d".into()), &["f.properties".into()][..])
        );
        assert!(parsed(&["local", "--shards", "0"]).is_err());
    }

    #[test]
    fn exit_when_done_requires_put() {
        let options = |words: &[&str]| match parsed(&[&["local"], words].concat()).map(|(command, _)| command)
        {
            Ok(Command::Local(local)) => Some(local.options()),
            _ => None,
        };
        let seconds = |words: &[&str]| options(words).unwrap().exit_when_done.map(|span| span.as_secs());
        assert_eq!(seconds(&["--put", "-"]), None);
        assert_eq!(seconds(&["--put", "-", "--exit-when-done"]), Some(60));
        assert_eq!(seconds(&["--put", "-", "--exit-when-done", "--exit-timeout", "5"]), Some(5));
        for words in [&["--exit-when-done"][..], &["--put", "f", "--exit-timeout", "5"]] {
            assert_eq!(options(words), None, "{words:?}");
        }
        assert_eq!(options(&["--put", "f", "--exit-when-done", "--exit-timeout", "0"]), None);
    }
}
