//! The command line, as far as words go: argv in, a [`Command`] out.

use std::ffi::OsString;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// A Kinesis MultiLangDaemon without a JVM.
///
/// Leases the shards of a stream in DynamoDB, runs one record processor for each, and speaks the KCL
/// MultiLang protocol with it. Reads the same properties file as the Java MultiLangDaemon.
#[derive(Debug, Parser)]
#[command(name = "multilangd", version, args_conflicts_with_subcommands = true)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    logs: Logs,
}

#[derive(Debug, Args)]
struct Run {
    /// The properties file.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The properties file; wins over FILE.
    #[arg(short, long = "properties-file", value_name = "FILE")]
    properties_file: Option<PathBuf>,
    /// Accepted for compatibility: logging is set by RUST_LOG and --log-format.
    #[arg(short, long = "log-configuration", value_name = "FILE")]
    log_configuration: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Args)]
struct Logs {
    /// How log lines look, on stderr.
    #[arg(long, value_enum, default_value_t = LogFormat::Text, global = true)]
    log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Everything on this machine: an embedded Kinesis and DynamoDB, a stream, and the daemon on them.
    #[cfg(feature = "local")]
    Local(Local),
}

#[cfg(feature = "local")]
#[derive(Debug, Args)]
struct Local {
    /// The properties file; without it an example runs, which needs python3.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// Shards of the stream, if it has to be made.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(i32).range(1..=1000))]
    shards: i32,
    /// Put each line of this file as a record.
    #[arg(long, value_name = "FILE")]
    put: Option<PathBuf>,
    /// Keep streams and leases in this folder between runs.
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// The Kinesis endpoint's port; 0 for any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 4567)]
    kinesis_port: u16,
    /// The DynamoDB endpoint's port; 0 for any that is free.
    #[arg(long, value_name = "PORT", default_value_t = 4568)]
    dynamodb_port: u16,
}

/// What to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the daemon.
    Run {
        /// The properties file.
        file: PathBuf,
        /// What to say about the arguments.
        notices: Vec<&'static str>,
    },
    /// Run everything on this machine.
    #[cfg(feature = "local")]
    Local(multilangd::local::run::Options),
}

/// Reads argv, the program's name included.
///
/// # Errors
/// Wrong arguments, and requests for help or version, which are no faults: see
/// [`clap::Error::use_stderr`].
pub(crate) fn parse(
    arguments: impl IntoIterator<Item = OsString>,
) -> Result<(Command, LogFormat), clap::Error> {
    let cli = Cli::try_parse_from(arguments)?;
    let command = match cli.command {
        #[cfg(feature = "local")]
        Some(Sub::Local(local)) => Command::Local(multilangd::local::run::Options {
            file: local.file,
            shards: local.shards,
            put: local.put,
            data: local.data,
            kinesis_port: local.kinesis_port,
            dynamodb_port: local.dynamodb_port,
        }),
        #[cfg(not(feature = "local"))]
        Some(never) => match never {},
        None => run(cli.run)?,
    };
    Ok((command, cli.logs.log_format))
}

fn run(run: Run) -> Result<Command, clap::Error> {
    let mut notices = Vec::new();
    if run.log_configuration.is_some() {
        notices.push(
            "--log-configuration is accepted but not used: logging is set by RUST_LOG and --log-format",
        );
    }
    if run.file.is_some() && run.properties_file.is_some() {
        notices.push("--properties-file wins over the file given as argument");
    }
    let Some(file) = run.properties_file.or(run.file) else {
        let text = "a properties file is missing, as in multilangd my.properties\n\
                    For a first look without any: multilangd local";
        return Err(clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, format!("{text}\n")));
    };
    Ok(Command::Run { file, notices })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<Command, clap::Error> {
        parse([&["multilangd"], words].concat().into_iter().map(OsString::from)).map(|(command, _)| command)
    }

    fn file(words: &[&str]) -> PathBuf {
        match parsed(words).unwrap() {
            Command::Run { file, .. } => file,
            #[cfg(feature = "local")]
            Command::Local(_) => panic!("{words:?}"),
        }
    }

    #[test]
    fn the_file_is_given_as_java_takes_it() {
        for words in [
            &["a.properties"][..],
            &["-p", "a.properties"],
            &["--properties-file", "a.properties"],
            &["-l", "x.xml", "a.properties"],
        ] {
            assert_eq!(file(words), PathBuf::from("a.properties"), "{words:?}");
        }
        assert_eq!(file(&["b.properties", "-p", "a.properties"]), PathBuf::from("a.properties"));
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["a", "b"]).is_err());
    }

    #[cfg(feature = "local")]
    #[test]
    fn local_takes_its_options() {
        let Command::Local(options) =
            parsed(&["local", "--shards", "2", "--data", "d", "f.properties"]).unwrap()
        else {
            panic!()
        };
        assert_eq!(
            (options.shards, options.data, options.file),
            (2, Some("d".into()), Some("f.properties".into()))
        );
        assert!(parsed(&["local", "--shards", "0"]).is_err());
    }
}
