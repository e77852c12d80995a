//! The command line: parses the arguments into a [`Command`].
//!
//! The `java` submodule handles arguments as launchers write them for a JVM. Options that set a key of
//! multilangd are generated from the table [`own::KEYS`].

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use clap::{Arg, Args, CommandFactory as _, FromArgMatches as _, Parser, Subcommand};
use clap_complete::Shell;
use multilangd::config::keys::{nearest, own};
use multilangd::version;

mod java;

/// A Kinesis MultiLangDaemon without a JVM.
///
/// Leases the shards of a stream in DynamoDB, runs one record processor for each, and speaks the KCL
/// MultiLang protocol with it. Reads the same properties file and takes the same arguments as the Java
/// MultiLangDaemon, those of launchers that start a java included.
#[derive(Debug, Parser)]
#[command(
    name = "multilangd",
    version = version::LONG,
    args_conflicts_with_subcommands = true,
    after_help = "For a first look without any file: multilangd local\n\
                  What a file comes to: multilangd check my.properties"
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
    /// The properties file.
    #[arg(value_name = "FILE")]
    file: Option<PathBuf>,
    /// The properties file; wins over FILE.
    #[arg(short, long = "properties-file", value_name = "FILE")]
    properties_file: Option<PathBuf>,
    /// Accepted for compatibility: logging is set by RUST_LOG, --log and --log-format.
    #[arg(short, long = "log-configuration", value_name = "FILE")]
    log_configuration: Option<PathBuf>,
}

/// How the file is read.
#[derive(Debug, Clone, Default, Args)]
struct FileOptions {
    /// Overrides a key of the file, or adds one; can be repeated.
    #[arg(long = "set", value_name = "KEY=VALUE", global = true, value_parser = pair)]
    set: Vec<(String, String)>,
    /// Replaces ${NAME} in the file's values by environment variables; $${ stands for ${. Also
    /// MULTILANGD_EXPAND_ENV=true.
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
    /// Shows every setting that a file comes to, and everything that is wrong with it. Starts nothing.
    Check(Check),
    /// Prints the manual page: multilangd manual | man -l -
    Manual,
    /// Prints the completions of a shell.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Shows what the tables of a file's application say: leases, workers, who leads. Writes nothing.
    Leases(Leases),
    /// Everything on this machine: an embedded Kinesis and DynamoDB, a stream, and the daemon on them.
    #[cfg(feature = "local")]
    Local(Local),
}

#[derive(Debug, Args)]
struct Check {
    /// The properties file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object: settings, warnings, errors.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Leases {
    /// The properties file.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// One JSON object.
    #[arg(long)]
    json: bool,
    /// Between the two looks that show what is alive; half of failoverTimeMillis if it isn't given.
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(..=3600))]
    watch: Option<u64>,
}

#[cfg(feature = "local")]
/// `local`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Local {
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

/// The command to execute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Run the daemon with a file.
    Run(PathBuf),
    /// Show the settings of a file.
    Check {
        /// The properties file.
        file: PathBuf,
        /// As JSON.
        json: bool,
    },
    /// Show the leases and workers of a file's application.
    Leases {
        /// The properties file.
        file: PathBuf,
        /// As JSON.
        json: bool,
        /// Seconds between the two scans.
        watch: Option<u64>,
    },
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
        let text =
            format!("there is no command and no file called {first} (did you mean multilangd {meant}?)\n");
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
        Some(Sub::Leases(leases)) => {
            Command::Leases { file: leases.file, json: leases.json, watch: leases.watch }
        }
        Some(Sub::Manual) => Command::Print(manual()),
        Some(Sub::Completions { shell }) => {
            let mut text = Vec::new();
            clap_complete::generate(shell, &mut self::command(), "multilangd", &mut text);
            Command::Print(text)
        }
        Some(Sub::Check(check)) => Command::Check { file: check.file, json: check.json },
        #[cfg(feature = "local")]
        Some(Sub::Local(local)) => Command::Local(local),
        None => Command::Run(file(cli.run, &mut words.notices)?),
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

/// The manual: one page for all commands.
fn manual() -> Vec<u8> {
    let mut page = Vec::new();
    let mut command = command();
    command.build();
    let man = clap_mangen::Man::new(command.clone());
    // Writing to memory does not fail.
    let _written = man.render(&mut page).is_ok();
    for sub in command.get_subcommands().filter(|sub| sub.get_name() != "help") {
        let heading = format!(".SH \"MULTILANGD {}\"\n", sub.get_name().to_uppercase());
        page.extend_from_slice(heading.as_bytes());
        // The options of all commands are described once, at the start.
        let own = sub
            .get_arguments()
            .filter(|argument| !argument.is_global_set() && argument.get_id() != "help")
            .cloned();
        let about = sub.get_about().cloned().unwrap_or_default();
        let man = clap_mangen::Man::new(clap::Command::new("multilangd").about(about).args(own));
        let written = man.render_description_section(&mut page);
        let _written = written.and_then(|()| man.render_options_section(&mut page)).is_ok();
    }
    let exits = multilangd::exit::EXITS.iter();
    page.extend_from_slice(b".SH \"EXIT STATUS\"\n");
    for (_, code, _, meaning) in exits {
        page.extend_from_slice(format!(".TP\n{code}\n{meaning}\n").as_bytes());
    }
    page
}

/// The derived arguments, and one option for each key of multilangd.
fn command() -> clap::Command {
    own::KEYS.iter().fold(Cli::command(), |command, key| {
        let value = match key.kind {
            own::OwnKind::Word(words) => words.join("|"),
            own::OwnKind::Number(_) => "NUMBER".to_owned(),
            own::OwnKind::Address => "PORT|ADDRESS:PORT|off".to_owned(),
            own::OwnKind::Or(_) => format!("NUMBER|{}", own::SAME),
            own::OwnKind::Filter => "FILTER".to_owned(),
        };
        let option = Arg::new(key.name)
            .long(key.option())
            .value_name(value)
            .global(true)
            .help(format!(
                "{} [default: {}; also {}, {} in the file]",
                key.doc,
                key.default,
                key.variable(),
                key.name
            ))
            .value_parser(move |text: &str| key.check(text).map(|()| text.to_owned()));
        command.arg(option)
    })
}

fn file(run: Run, notices: &mut Vec<&'static str>) -> Result<PathBuf, clap::Error> {
    if run.log_configuration.is_some() {
        notices.push("--log-configuration is accepted but not used: logging is set by RUST_LOG, --log and --log-format");
    }
    if run.file.is_some() && run.properties_file.is_some() {
        notices.push("--properties-file wins over the file given as argument");
    }
    run.properties_file.or(run.file).ok_or_else(|| {
        let text = "a properties file is missing, as in multilangd my.properties\n\
                    For a first look without any: multilangd local";
        clap::Error::raw(clap::error::ErrorKind::MissingRequiredArgument, format!("{text}\n"))
    })
}

#[cfg(feature = "local")]
impl Local {
    /// The file, if one was given.
    pub(crate) fn file(&self) -> Option<&PathBuf> {
        self.file.as_ref()
    }

    /// The options of local mode.
    pub(crate) fn options(&self) -> multilangd::local::run::Options {
        multilangd::local::run::Options {
            shards: self.shards,
            put: self.put.clone(),
            data: self.data.clone(),
            kinesis_port: self.kinesis_port,
            dynamodb_port: self.dynamodb_port,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(words: &[&str]) -> Result<(Command, Words), clap::Error> {
        parse([&["multilangd"], words].concat().into_iter().map(OsString::from))
    }

    fn file(words: &[&str]) -> PathBuf {
        let Command::Run(file) = parsed(words).unwrap().0 else { panic!("{words:?}") };
        file
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
        assert!(parsed(&["a", "b"]).is_err());
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
        let expected = [(own::ON_CHILD_FAILURE, "exit".to_owned())];
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
        assert!(page.contains("--watch") && page.contains("a record processor failed too often"));
        assert!(parsed(&["completions", "cobol"]).is_err());
    }

    #[test]
    fn check_prints_text_or_json() {
        let expected = Command::Check { file: "f.properties".into(), json: true };
        assert_eq!(parsed(&["check", "f.properties", "--json"]).unwrap().0, expected);
        assert!(parsed(&["check"]).is_err());
    }

    #[cfg(feature = "local")]
    #[test]
    fn local_accepts_its_options() {
        let Command::Local(local) =
            parsed(&["local", "--shards", "2", "--data", "d", "f.properties"]).unwrap().0
        else {
            panic!()
        };
        let options = local.options();
        assert_eq!(
            (options.shards, options.data, local.file),
            (2, Some("d".into()), Some("f.properties".into()))
        );
        assert!(parsed(&["local", "--shards", "0"]).is_err());
    }
}
