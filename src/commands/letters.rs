//! `multilangd letters` and `multilangd replay`; the remarks of `check` about dead letters.

use std::path::Path;

use multilangd::config::Remark;
use multilangd::config::keys::handle::{Handle, Word};
use multilangd::config::keys::{kcl, own};
use multilangd::config::resolve;
use multilangd::config::settings::Settings;
use multilangd::daemon;
use multilangd::exit::Exit;
use multilangd::letters::{self, Letter};
use multilangd::multilang::{Program, shebang};
use multilangd::replay;

use crate::cli::Words;
use crate::cli::letters::{Command, List, Replay};
use crate::files::{given, read};
use crate::log::complain;
use crate::{configuration, print};

/// Executes a command.
pub(crate) async fn run(command: &Command, words: &Words) -> Exit {
    match command {
        Command::Letters(list) => list_letters(list, words).await,
        Command::Replay(args) => replay_letters(args, words).await,
    }
}

/// Remarks about the settings of dead letters, for `check`.
pub(crate) fn remarks(settings: &Settings) -> Vec<Remark> {
    let remark =
        |key: Handle<Word>, text: String| Remark { line: None, key: Some(key.name().to_owned()), text };
    let mut remarks = Vec::new();
    for destination in multilangd::config::letters::parse(&settings.of(own::DEAD_LETTERS)).unwrap_or_default()
    {
        if let Err(error) = letters::check(&destination, "check") {
            remarks.push(remark(own::DEAD_LETTERS, format!("on this machine: {error}")));
        }
    }
    let executable = settings.of(kcl::EXECUTABLE).unwrap_or_default();
    let script = executable.split(' ').next().unwrap_or_default();
    let interpreter = shebang::interpreter(Path::new(script));
    if settings.of(own::CHILD_ERROR_LINE) == own::NONE
        && let Some((client, preset)) = swallowing_client(&executable, &interpreter)
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

/// The client library that programs in this language use, if it answers well at exceptions, and the value of
/// `multilangd.childErrorLine` for it.
fn swallowing_client(executable: &str, interpreter: &str) -> Option<(&'static str, &'static str)> {
    let mut words = executable.split(' ').chain(interpreter.split(' '));
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
        let destinations = resolve::resolve(&given).settings.of(own::DEAD_LETTERS);
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
    let config = match configuration(&args.file, words, "replay").await {
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
    let program = match daemon::Machine::prepare(1) {
        Ok(machine) => machine.equip(program, crate::log::child_form(&config), &config).0,
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
        for (executable, interpreter, preset) in [
            ("./p.py", "", Some("kclpy")),
            ("/usr/bin/python3.12 -u p", "", Some("kclpy")),
            ("./processor", "/usr/bin/env python3", Some("kclpy")),
            ("ruby p.rb", "", Some("kclrb")),
            ("./processor", "/usr/bin/ruby", Some("kclrb")),
            ("node p.js", "", None),
            ("./processor", "/bin/sh", None),
        ] {
            let found = swallowing_client(executable, interpreter).map(|(_, preset)| preset);
            assert_eq!(found, preset, "{executable}");
        }
    }
}
