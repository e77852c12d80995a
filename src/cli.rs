//! The command line: parses the arguments into a [`Command`].
//!
//! The `java` submodule handles arguments as launchers write them for a JVM, `help` the texts, and the others hold
//! the arguments of one command each. Options that set a key of
//! multilangd are generated from the table [`own::KEYS`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use multilangd::config::keys::{nearest, own};
use multilangd::version;

mod check;
mod help;
mod java;
mod leases;
pub(crate) mod letters;
#[cfg(feature = "local")]
mod local;
mod streams;
mod test;

pub(crate) use check::Aspects;
use help::{fitted, manual, option};
pub(crate) use leases::{Leases, Verb, Which};
#[cfg(feature = "local")]
pub(crate) use local::Local;
#[cfg(feature = "local")]
pub(crate) use streams::Put;
pub(crate) use streams::{OfStream, Tail};
pub(crate) use test::Test;

/// A Kinesis MultiLangDaemon without a JVM.
///
/// Leases the shards of a stream in DynamoDB, runs one record processor for each shard, and exchanges the messages of
/// the KCL MultiLang protocol with it. Accepts the properties file and the arguments of the Java MultiLangDaemon,
/// including those of launchers that start a JVM.
#[derive(Debug, Parser)]
#[command(
    name = "multilangd",
    version = version::LONG,
    args_conflicts_with_subcommands = true,
    after_help = "Try it without a properties file: multilangd local\n\
                  Check a properties file: multilangd check my.properties"
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Sub>,
    #[command(flatten)]
    run: Run,
    #[command(flatten)]
    file: FileOptions,
}

#[derive(Debug, Args)]
struct Run {
    /// The properties file. Several, or a folder of *.properties files, run as applications in one process.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The properties file; takes precedence over FILE.
    #[arg(short, long = "properties-file", value_name = "FILE")]
    properties_file: Option<PathBuf>,
    /// Ignored, accepted for compatibility; RUST_LOG, --log and --log-format configure logging.
    #[arg(short, long = "log-configuration", value_name = "FILE")]
    log_configuration: Option<PathBuf>,
}

/// How the file is read.
#[derive(Debug, Clone, Default, Args)]
struct FileOptions {
    /// Override or add a key of the properties file; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true, value_parser = pair)]
    set: Vec<(String, String)>,
    /// Replace ${NAME} in the values of the properties file with environment variables; $${ is a literal ${ [also
    /// MULTILANGD_EXPAND_ENV=true].
    #[arg(long = "expand-env", global = true)]
    expand_env: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.trim().is_empty() => Ok((key.trim().to_owned(), value.trim().to_owned())),
        _ => Err("must be KEY=VALUE".to_owned()),
    }
}

#[derive(Debug, Subcommand)]
enum Sub {
    /// Print the settings and the errors of a properties file.
    ///
    /// Prints every setting with its value and source, the required AWS permissions, and all warnings and errors. Does
    /// not start the daemon, and calls no AWS service unless --aws is given.
    Check(Check),
    /// Check whether a daemon on this machine is alive or ready.
    ///
    /// Calls the status endpoint of the daemon. Exits with 0 if the answer is 200, otherwise with 1 and one line on
    /// stderr that says why. Takes at most 3 seconds.
    Health(Health),
    /// Copy this binary and its CA certificates into a folder.
    ///
    /// For the init container of a pod: writes DIR/multilangd and, if the CA certificates of this machine are in a
    /// file, DIR/ca-certificates.crt, and prints what it wrote.
    Install {
        /// An existing folder.
        #[arg(value_name = "DIR")]
        folder: PathBuf,
    },
    /// Print the manual page: multilangd manual | man -l -
    Manual,
    /// Print shell completions.
    Completions {
        /// bash, elvish, fish, powershell or zsh.
        #[arg(hide_possible_values = true)]
        shell: Shell,
    },
    /// Print, move, release or park the leases of an application.
    ///
    /// Reads the tables of the application twice, and prints its leases, its workers, its leader, and which of them are
    /// renewed. Writes nothing, unless one of the commands below follows FILE.
    Leases(Leases),
    /// Test a record processor without AWS.
    ///
    /// Plays lives of a shard against the record processor, one process for each case, and checks its answers. Prints
    /// a report; exits with 1 if a case failed. Starts no daemon and calls no AWS service.
    Test(Test),
    /// Print the records of a stream as JSON lines.
    ///
    /// Reads shards without leases, takes KPL aggregates apart, and continues with the child shards of a split or
    /// merge. Each line has shard, sequenceNumber, subSequenceNumber, partitionKey, approximateArrivalTimestamp, and
    /// data in base64, or text.
    Tail(Tail),
    /// Put lines into a stream as records.
    ///
    /// The partition key of each record is the number of its line, unless --json sets one.
    #[cfg(feature = "local")]
    Put(Put),
    #[command(flatten)]
    Letters(letters::Command),
    /// Run the daemon on an embedded Kinesis and DynamoDB.
    ///
    /// Creates a stream on endpoints in this process and processes its records. Needs no AWS account.
    #[cfg(feature = "local")]
    Local(Local),
}

#[derive(Debug, Args)]
struct Check {
    /// The properties file; or several, or a folder of *.properties files, which are also checked against each other.
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
    /// Print one JSON object with settings, warnings and errors; an array of them for several files.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    aspects: Aspects,
}

#[derive(Debug, Args)]
struct Health {
    /// The properties files of the daemon, or their folder, if they set multilangd.status.
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Check whether the daemon is ready (/readyz) instead of alive (/livez).
    #[arg(long)]
    ready: bool,
}

/// The command to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the daemon with these files and folders.
    Run(Vec<PathBuf>),
    /// Show the settings of files.
    Check {
        /// The properties files and folders.
        files: Vec<PathBuf>,
        /// As JSON.
        json: bool,
        /// Parts of the output.
        aspects: Aspects,
    },
    /// Show the leases and workers of the files' applications.
    Leases(Leases),
    /// Test a record processor.
    Test(Test),
    /// Print the records of a stream.
    Tail(Tail),
    /// Put records into a stream.
    #[cfg(feature = "local")]
    Put(Put),
    /// Call the status endpoint of a daemon.
    Health {
        /// The properties files and folders.
        files: Vec<PathBuf>,
        /// `/readyz` instead of `/livez`.
        ready: bool,
    },
    /// List or process dead letters.
    Letters(letters::Command),
    /// Copy the binary into a folder.
    Install(PathBuf),
    /// Print a text generated from the description of the command line.
    Print(Vec<u8>),
    /// Run everything on this machine.
    #[cfg(feature = "local")]
    Local(Local),
}

/// The arguments that all commands share.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// `--set`.
    pub(crate) overrides: Vec<(String, String)>,
    /// `--expand-env`.
    pub(crate) expand: bool,
    /// Settings of multilangd, by their key in the file.
    pub(crate) options: Vec<(&'static str, String)>,
    /// Folders of a Java class path, in which the file is searched first.
    pub(crate) class_path: Vec<PathBuf>,
    /// JVM system properties of a Java-style command line: `-Dname=value`.
    pub(crate) properties: Vec<String>,
    /// Remarks about the arguments.
    pub(crate) notices: Vec<&'static str>,
}

/// Parses the arguments, including the program's name.
///
/// # Errors
/// Invalid arguments, and requests for help or version, which are no errors: see [`clap::Error::use_stderr`].
pub(crate) fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<(Command, Words), clap::Error> {
    let java = java::understand(arguments.into_iter().collect()).map_err(|unsupported| {
        clap::Error::raw(clap::error::ErrorKind::InvalidValue, format!("{unsupported}\n"))
    })?;
    let command_line = command();
    let first = java.arguments.get(1).and_then(|word| word.to_str()).unwrap_or_default();
    let commands = command_line.get_subcommands().map(clap::Command::get_name);
    if let Some(meant) = mistyped(first, commands, Path::exists) {
        let text = format!("unknown command or file {first} (did you mean multilangd {meant}?)\n");
        return Err(clap::Error::raw(clap::error::ErrorKind::InvalidSubcommand, text));
    }
    let matches = command_line.try_get_matches_from(java.arguments)?;
    let options = own::KEYS.iter().filter_map(|key| {
        let text = matches.get_one::<String>(key.name)?;
        Some((key.name, text.clone()))
    });
    let options = options.collect();
    let cli = Cli::from_arg_matches(&matches)?;
    let mut words = Words {
        overrides: cli.file.set,
        expand: cli.file.expand_env,
        options,
        class_path: java.class_path,
        properties: java.properties,
        notices: Vec::new(),
    };
    let command = match cli.command {
        Some(Sub::Leases(leases)) => Command::Leases(leases.checked()?),
        Some(Sub::Test(test)) => Command::Test(test),
        Some(Sub::Tail(tail)) => Command::Tail(tail),
        #[cfg(feature = "local")]
        Some(Sub::Put(put)) => Command::Put(put),
        Some(Sub::Letters(command)) => Command::Letters(command),
        Some(Sub::Health(health)) => Command::Health { files: health.files, ready: health.ready },
        Some(Sub::Install { folder }) => Command::Install(folder),
        Some(Sub::Manual) => Command::Print(manual(self::command())),
        Some(Sub::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut self::command(), "multilangd", &mut text);
            Command::Print(text)
        }
        Some(Sub::Check(Check { files, json, aspects })) => Command::Check { files, json, aspects },
        #[cfg(feature = "local")]
        Some(Sub::Local(local)) => Command::Local(local),
        None => Command::Run(files(cli.run, &mut words.notices)?),
    };
    Ok((command, words))
}

/// The command that is similar to the first word, if that is neither a command nor a file.
fn mistyped<'a>(
    word: &str,
    commands: impl Iterator<Item = &'a str>,
    exists: impl Fn(&Path) -> bool,
) -> Option<&'a str> {
    let is_plain = !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_alphabetic());
    let meant = nearest(word, commands).filter(|_| is_plain)?;
    (meant != word && !exists(Path::new(word))).then_some(meant)
}

/// The options that act on `replay`.
const REPLAY: &[&str] = &[
    "set",
    "expand_env",
    own::CHILD_PROTOCOL.name(),
    own::CHILD_ERROR_LINE.name(),
    own::CHILD_EXIT_GRACE.name(),
    own::CHILD_KILL_GRACE.name(),
    own::CHILD_LOG.name(),
    own::LOG.name(),
    own::LOG_FORMAT.name(),
];

/// The derived arguments, and one option for each key of multilangd, with help that fits [`WIDTH`].
fn command() -> clap::Command {
    let all = own::KEYS.iter().fold(Cli::command(), |command, key| command.arg(option(key)));
    // Every option is accepted everywhere; a command shows those that it uses.
    let shown: &[(&str, &[&str])] = &[
        ("health", &["set", "expand_env", own::STATUS.name()]),
        ("install", &[]),
        ("leases", &["set", "expand_env", own::LOG.name(), own::LOG_FORMAT.name()]),
        ("tail", &["set", "expand_env", own::LOG.name(), own::LOG_FORMAT.name()]),
        #[cfg(feature = "local")]
        ("put", &["set", "expand_env", own::LOG.name(), own::LOG_FORMAT.name()]),
        ("test", &["set", "expand_env", own::CHILD_PROTOCOL.name(), own::LOG.name(), own::LOG_FORMAT.name()]),
        ("letters", &["set", "expand_env", own::DEAD_LETTERS.name()]),
        ("replay", REPLAY),
        ("manual", &[]),
        ("completions", &[]),
    ];
    let global: Vec<Arg> = all.get_arguments().filter(|argument| argument.is_global_set()).cloned().collect();
    let command = shown.iter().fold(all, |command, (name, shown)| {
        let hidden = global.iter().filter(|argument| !shown.contains(&argument.get_id().as_str()));
        command.mut_subcommand(*name, |sub| {
            hidden.fold(sub, |sub, argument| sub.arg(argument.clone().hide(true)))
        })
    });
    fitted(command)
}

fn files(run: Run, notices: &mut Vec<&'static str>) -> Result<Vec<PathBuf>, clap::Error> {
    if run.log_configuration.is_some() {
        notices.push("ignoring --log-configuration: logging is set by RUST_LOG, --log and --log-format");
    }
    if !run.files.is_empty() && run.properties_file.is_some() {
        notices.push("ignoring the FILE argument: --properties-file takes precedence");
    }
    let files = run.properties_file.map_or(run.files, |file| vec![file]);
    if files.is_empty() {
        let text =
            "missing properties file, as in multilangd my.properties (multilangd local runs without one)";
        return Err(clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, format!("{text}\n")));
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::help::WIDTH;
    use super::*;

    pub(super) fn parsed(words: &[&str]) -> Result<(Command, Words), clap::Error> {
        parse([&["multilangd"], words].concat().into_iter().map(OsString::from))
    }

    fn file(words: &[&str]) -> PathBuf {
        let Command::Run(mut files) = parsed(words).unwrap().0 else { panic!("{words:?}") };
        assert_eq!(files.len(), 1, "{words:?}");
        files.remove(0)
    }

    #[test]
    fn file_argument_is_accepted_as_in_java() {
        for words in [
            &["a.properties"][..],
            &["-p", "a.properties"],
            &["--properties-file", "a.properties"],
            &["-l", "x.xml", "a.properties"],
            &["--log-format", "json", "a.properties"],
        ] {
            assert_eq!(file(words), PathBuf::from("a.properties"), "{words:?}");
        }
        assert_eq!(file(&["b.properties", "-p", "a.properties"]), PathBuf::from("a.properties"));
        assert!(parsed(&[]).is_err());
    }

    #[test]
    fn several_files_are_accepted_where_they_make_sense() {
        let both = || vec![PathBuf::from("a"), PathBuf::from("b")];
        assert_eq!(parsed(&["a", "b"]).unwrap().0, Command::Run(both()));
        assert_eq!(
            parsed(&["check", "a", "b"]).unwrap().0,
            Command::Check { files: both(), json: false, aspects: Aspects::default() }
        );
        let health = Command::Health { files: both(), ready: true };
        assert_eq!(parsed(&["health", "a", "--ready", "b"]).unwrap().0, health);
        let Command::Leases(leases) = parsed(&["leases", "a", "b", "--json"]).unwrap().0 else { panic!() };
        assert_eq!(leases.files, both());
        for verb in [&["release"][..], &["seek", "--to", "LATEST"]] {
            let refused = parsed(&[&["leases", "a", "b"], verb].concat()).unwrap_err();
            assert_eq!(refused.kind(), clap::error::ErrorKind::TooManyValues, "{verb:?}");
        }
        #[cfg(feature = "local")]
        assert!(
            matches!(parsed(&["local", "a", "b"]).unwrap().0, Command::Local(local) if local.files() == both())
        );
    }

    #[test]
    fn mistyped_command_is_suggested_unless_a_file_exists() {
        let commands = || ["check", "manual", "leases", "local", "help"].into_iter();
        for (word, meant) in [
            ("chek", Some("check")),
            ("loacl", Some("local")),
            ("Leases", Some("leases")),
            ("check", None),
            ("my.properties", None),
            ("./chek", None),
            ("--help", None),
            ("orders", None),
            ("", None),
        ] {
            assert_eq!(mistyped(word, commands(), |_| false), meant, "{word}");
        }
        assert_eq!(mistyped("chek", commands(), |_| true), None);
        for words in [&["chek", "my.properties"][..], &["loacl"]] {
            assert_eq!(
                parsed(words).unwrap_err().kind(),
                clap::error::ErrorKind::InvalidSubcommand,
                "{words:?}"
            );
        }
    }

    #[test]
    fn own_settings_are_options_before_and_after_a_command() {
        let expected = [(own::ON_CHILD_FAILURE.name(), "exit".to_owned())];
        for words in [&["--on-child-failure", "exit", "f"][..], &["check", "f", "--on-child-failure=exit"]] {
            assert_eq!(parsed(words).unwrap().1.options, expected, "{words:?}");
        }
        assert!(parsed(&["f", "--on-child-failure", "explode"]).is_err());
        let words = parsed(&["f", "--set", "a = b=c", "--expand-env"]).unwrap().1;
        assert_eq!((words.overrides, words.expand), (vec![("a".to_owned(), "b=c".to_owned())], true));
        assert!(parsed(&["f", "--set", "nothing"]).is_err());
    }

    #[test]
    fn manual_and_completions_have_the_same_options() {
        let print = |words: &[&str]| {
            let Command::Print(text) = parsed(words).unwrap().0 else { panic!("{words:?}") };
            String::from_utf8(text).unwrap().replace('\\', "")
        };
        let (page, bash) = (print(&["manual"]), print(&["completions", "bash"]));
        for key in own::KEYS {
            assert!(page.contains(&format!("--{}", key.option())), "{}", key.name);
            assert!(bash.contains(&format!("--{}", key.option())), "{}", key.name);
        }
        assert!(
            page.contains("--watch")
                && page.contains("MULTILANGD LEASES FILE SEEK")
                && page.contains("a record processor failed too many times")
        );
        assert!(parsed(&["completions", "cobol"]).is_err());
    }

    #[test]
    fn help_of_every_command_fits_80_columns() {
        let mut command = command();
        command.build();
        let verbs = command.get_subcommands().flat_map(clap::Command::get_subcommands);
        for command in std::iter::once(&command).chain(command.get_subcommands()).chain(verbs) {
            let mut command = command.clone();
            for help in [command.render_help().to_string(), command.render_long_help().to_string()] {
                let long = help.lines().find(|line| line.chars().count() > WIDTH);
                assert_eq!(long, None, "{help}");
            }
        }
    }

    #[test]
    fn help_of_a_command_lists_only_options_that_it_uses() {
        let mut command = command();
        command.build();
        let mut help = |name: &str| command.find_subcommand_mut(name).unwrap().render_long_help().to_string();
        let status = |help: &str| help.contains("--status ") && help.contains("--max-child-failures ");
        assert!(status(&help("check")));
        #[cfg(feature = "local")]
        assert!(status(&help("local")));
        let leases = help("leases");
        for option in ["--set ", "--expand-env", "--log ", "--log-format ", "--json", "--watch ", "--stream "]
        {
            assert!(leases.contains(option), "{leases}");
        }
        for (name, most) in
            [("leases", 8), ("test", 13), ("health", 5), ("install", 1), ("manual", 1), ("completions", 1)]
        {
            let help = help(name);
            assert_eq!(help.matches("  --").count() + help.matches(", --").count(), most, "{help}");
        }
        assert!(parsed(&["leases", "f", "--max-child-failures", "2"]).is_ok(), "accepted, as before");
    }

    #[test]
    fn check_prints_text_or_json() {
        let aspects = Aspects::default();
        let expected = Command::Check { files: vec!["f.properties".into()], json: true, aspects };
        assert_eq!(parsed(&["check", "f.properties", "--json"]).unwrap().0, expected);
        assert!(parsed(&["check"]).is_err());
    }
}
