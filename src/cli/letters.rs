//! The commands for dead letters: `letters` and `replay`.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use multilangd::config::Remark;
use multilangd::config::keys::own;
use multilangd::config::resolve;
use multilangd::config::settings::Settings;
use multilangd::daemon;
use multilangd::exit::Exit;
use multilangd::letters::{self, Letter};
use multilangd::multilang::Program;
use multilangd::replay;

use super::Words;
use crate::log::complain;
use crate::{configured, given, print, read, start_log};

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

/// Executes a command.
pub(crate) async fn run(command: &Command, words: &Words) -> Exit {
    match command {
        Command::Letters(list) => list_letters(list, words).await,
        Command::Replay(args) => replay_letters(args, words).await,
    }
}

/// Remarks about the settings of dead letters, for `check`.
pub(crate) fn remarks(settings: &Settings) -> Vec<Remark> {
    let text = |key: &str| settings.text(key).unwrap_or_default();
    let remark = |key: &str, text: String| Remark { line: None, key: Some(key.to_owned()), text };
    let mut remarks = Vec::new();
    for destination in multilangd::config::letters::parse(&text(own::DEAD_LETTERS)).unwrap_or_default() {
        if let Err(error) = letters::check(&destination, "check") {
            remarks.push(remark(own::DEAD_LETTERS, format!("on this machine: {error}")));
        }
    }
    let executable = text("executableName");
    let first_line = executable.split(' ').next().map(first_line).unwrap_or_default();
    if text(own::CHILD_ERROR_LINE) == own::NONE
        && let Some((client, preset)) = swallowing_client(&executable, &first_line)
    {
        remarks.push(remark(
            own::CHILD_ERROR_LINE,
            format!(
                "{client} answers as if a batch had been processed when the record processor raises an exception, \
                 so its records are lost (if executableName uses {client}, set {} = {preset})",
                own::CHILD_ERROR_LINE
            ),
        ));
    }
    remarks
}

/// The first line of a script; empty if it cannot be read.
fn first_line(path: &str) -> String {
    let mut begin = Vec::new();
    let read = std::fs::File::open(path).and_then(|file| file.take(256).read_to_end(&mut begin));
    let line = begin.split(|byte| *byte == b'\n').next().filter(|line| line.starts_with(b"#!"));
    line.filter(|_| read.is_ok()).map(|line| String::from_utf8_lossy(line).into_owned()).unwrap_or_default()
}

/// The client library that programs in this language use, if it answers well at exceptions, and the value of
/// `multilangd.childErrorLine` for it.
fn swallowing_client(executable: &str, first_line: &str) -> Option<(&'static str, &'static str)> {
    let mut words = executable.split(' ').chain(first_line.trim_start_matches("#!").split(' '));
    words.find_map(|word| {
        let name = word.rsplit('/').next().unwrap_or(word);
        if name.starts_with("python") || name.ends_with(".py") {
            Some(("amazon_kclpy", "kclpy"))
        } else if name.starts_with("ruby") || name.ends_with(".rb") {
            Some(("aws-kclrb", "kclrb"))
        } else {
            None
        }
    })
}

/// Reads a file of dead letters; reports lines that are none.
fn read_letters(path: &Path, all: &mut Vec<Letter>) -> Result<bool, Exit> {
    let text = std::fs::read(path).map_err(|error| {
        complain(&format!("failed to read the dead letters {}: {error}", path.display()));
        Exit::NoInput
    })?;
    let mut all_read = true;
    for letter in letters::list::read(&text) {
        match letter {
            Ok(letter) => all.push(letter),
            Err(error) => {
                all_read = false;
                complain(&format!("{}: {error}", path.display()));
            }
        }
    }
    Ok(all_read)
}

/// Prints the dead letters in a file, or in the folders that a properties file names.
async fn list_letters(list: &List, words: &Words) -> Exit {
    let mut given = given(words).await;
    if let Err(exit) = read(&list.file, words, &mut given) {
        return exit;
    }
    let paths = if given.bytes.trim_ascii_start().starts_with(b"{") {
        vec![list.file.clone()]
    } else {
        let key = own::DEAD_LETTERS;
        let destinations = resolve::resolve(&given).settings.text(key).unwrap_or_default();
        match letters::file::paths(&destinations) {
            Ok(paths) => paths,
            Err(error) => {
                complain(&format!("{}: {error}", list.file.display()));
                return Exit::NoInput;
            }
        }
    };
    let (mut all, mut all_read) = (Vec::new(), true);
    for path in paths {
        match read_letters(&path, &mut all) {
            Ok(is_whole) => all_read &= is_whole,
            Err(exit) => return exit,
        }
    }
    let shown = match list.json {
        true => format!("{:#}\n", letters::list::json(&all)),
        false => letters::list::text(&all),
    };
    let printed = print(shown.as_bytes());
    if printed == Exit::Clean && !all_read { Exit::ChildFailed } else { printed }
}

/// Gives dead letters to the record processor of a properties file.
async fn replay_letters(args: &Replay, words: &Words) -> Exit {
    let mut given = given(words).await;
    let place = match read(&args.file, words, &mut given) {
        Ok(place) => place,
        Err(exit) => return exit,
    };
    let resolved = resolve::resolve(&given);
    if let Err(exit) = start_log(&resolved) {
        return exit;
    }
    let config = match configured(resolved, &place.display().to_string(), words, "replay") {
        Ok(config) => config,
        Err(exit) => return exit,
    };
    let mut all = Vec::new();
    let all_read = match read_letters(&args.letters, &mut all) {
        Ok(all_read) => all_read,
        Err(exit) => return exit,
    };
    let program = match Program::find(&config.executable, std::env::var_os("PATH").as_deref()) {
        Ok(program) => program,
        Err(error) => {
            complain(&error);
            return Exit::Config;
        }
    };
    let program = match daemon::equip(program, crate::log::child_form(&config), &config) {
        Ok((program, _)) => program,
        Err(error) => {
            complain(&format!("failed to start a thread: {error}"));
            return Exit::Internal;
        }
    };
    let progress = |letter: &Letter, error: Option<&str>| {
        let id = letter.id();
        // The exit code reports failures too, so a closed stdout does not matter.
        let _printed = match error {
            None => print(format!("processed {id}\n").as_bytes()),
            Some(error) => print(format!("failed {id}: {error}\n").as_bytes()),
        };
    };
    let settings = daemon::replay_settings(&config);
    match replay::replay(all, &*program, settings, &args.letters, progress).await {
        Ok(replay::Report { processed, failed, file }) => {
            let again = file.map(|file| format!(" (written to {})", file.display())).unwrap_or_default();
            let _printed = print(format!("{processed} processed, {failed} failed{again}\n").as_bytes());
            if failed == 0 && all_read { Exit::Clean } else { Exit::ChildFailed }
        }
        Err(error) => {
            complain(&format!("failed to write a letter that failed again: {error}"));
            Exit::NoInput
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_is_recognized_by_program_script_or_interpreter() {
        for (executable, first_line, preset) in [
            ("./p.py", "", Some("kclpy")),
            ("/usr/bin/python3.12 -u p", "", Some("kclpy")),
            ("./processor", "#!/usr/bin/env python3", Some("kclpy")),
            ("ruby p.rb", "", Some("kclrb")),
            ("./processor", "#!/usr/bin/ruby", Some("kclrb")),
            ("node p.js", "", None),
            ("./processor", "#!/bin/sh", None),
        ] {
            let found = swallowing_client(executable, first_line).map(|(_, preset)| preset);
            assert_eq!(found, preset, "{executable}");
        }
    }
}
