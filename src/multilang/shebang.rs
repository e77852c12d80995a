//! The first line of a script, parsed as the kernel does: the interpreter, and whether it can be run.
//!
//! A script whose interpreter is missing fails with ENOENT, as if the script itself were missing (execve(2)).
//! A script with CRLF line endings names an interpreter that ends in a carriage return.

use std::ffi::{OsStr, OsString};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

/// Bytes of a script that Linux reads to find its interpreter (`BINPRM_BUF_SIZE`).
const READ: u64 = 256;

/// Why an existing program cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// The interpreter does not exist.
    #[error("interpreter {0:?} not found{hint}", hint = hint(.0))]
    Missing(String),
    /// The interpreter exists but is not executable.
    #[error("interpreter {0:?} is not executable")]
    NotExecutable(String),
    /// `env` exists, but the program that it must find is not in PATH.
    #[error("interpreter {0:?} not found in PATH{hint}", hint = hint(.0))]
    NotInPath(String),
    /// A binary whose dynamic loader does not exist.
    #[error(
        "its dynamic loader was not found (the program was built for another C library or CPU \
         architecture)"
    )]
    Loader,
}

fn hint(interpreter: &str) -> &'static str {
    if interpreter.ends_with('\r') {
        " (the script has CRLF line endings: convert it with sed -i 's/\\r$//')"
    } else {
        ""
    }
}

/// The words after `#!`: the interpreter, and the rest as one argument.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Line {
    interpreter: OsString,
    argument: Option<OsString>,
}

/// Parses the first bytes of a file. None if it is no script, or if its first line is empty.
fn line(head: &[u8]) -> Option<Line> {
    let is_blank = |byte: &u8| matches!(byte, b' ' | b'\t');
    let text = head.strip_prefix(b"#!")?;
    let text = text.split(|byte| *byte == b'\n').next().unwrap_or_default();
    let begin = text.iter().position(|byte| !is_blank(byte))?;
    let end = text.iter().rposition(|byte| !is_blank(byte))?;
    let text = &text[begin..=end];
    let (interpreter, rest) = text.split_at(text.iter().position(is_blank).unwrap_or(text.len()));
    let argument = rest.iter().position(|byte| !is_blank(byte)).map(|at| &rest[at..]);
    let owned = |bytes: &[u8]| OsStr::from_bytes(bytes).to_owned();
    Some(Line { interpreter: owned(interpreter), argument: argument.map(owned) })
}

/// The kind of file at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    Nothing,
    NotExecutable,
    Program,
}

/// The fault of a first line, by the files that exist.
fn judge(line: &Line, search: Option<&OsStr>, found: impl Fn(&Path) -> Found) -> Option<Fault> {
    let shown = |word: &OsStr| word.to_string_lossy().into_owned();
    let interpreter = Path::new(&line.interpreter);
    match found(interpreter) {
        Found::Nothing => return Some(Fault::Missing(shown(&line.interpreter))),
        Found::NotExecutable => return Some(Fault::NotExecutable(shown(&line.interpreter))),
        Found::Program => {}
    }
    // `env` searches for its argument; options and assignments are not interpreted here.
    let argument = line.argument.as_deref().filter(|_| interpreter.file_name() == Some(OsStr::new("env")))?;
    let is_plain = !argument.as_bytes().iter().any(|byte| matches!(byte, b'=' | b'/' | b' ' | b'\t'));
    if !is_plain || argument.as_bytes().starts_with(b"-") {
        return None;
    }
    let mut folders = std::env::split_paths(search?);
    let is_there = folders.any(|folder| found(&folder.join(argument)) == Found::Program);
    (!is_there).then(|| Fault::NotInPath(shown(argument)))
}

fn at(path: &Path) -> Found {
    match std::fs::metadata(path) {
        Err(_) => Found::Nothing,
        Ok(found) if found.is_file() && found.permissions().mode() & 0o111 != 0 => Found::Program,
        Ok(_) => Found::NotExecutable,
    }
}

/// The first bytes of a program; empty if it is executable but not readable.
fn head(program: &Path) -> Vec<u8> {
    let mut head = Vec::new();
    let read = std::fs::File::open(program).and_then(|file| file.take(READ).read_to_end(&mut head));
    if read.is_ok() { head } else { Vec::new() }
}

/// The interpreter of a script and its argument, separated by a blank; empty if the file is no script or cannot be read.
pub fn interpreter(program: &Path) -> String {
    let Some(Line { interpreter, argument }) = line(&head(program)) else { return String::new() };
    let words = std::iter::once(interpreter).chain(argument);
    words.map(|word| word.to_string_lossy().into_owned()).collect::<Vec<_>>().join(" ")
}

/// Checks that a program, if it is a script, has an interpreter that can be run.
///
/// # Errors
/// Why the interpreter cannot be run.
pub fn check(program: &Path, search: Option<&OsStr>) -> Result<(), Fault> {
    match line(&head(program)).and_then(|line| judge(&line, search, at)) {
        Some(fault) => Err(fault),
        None => Ok(()),
    }
}

/// Replaces an error "not found" for an existing program by one that names the missing file.
pub(super) fn explain(program: &Path, error: io::Error) -> io::Error {
    if error.kind() != io::ErrorKind::NotFound || !program.exists() {
        return error;
    }
    let head = head(program);
    let fault = if head.starts_with(b"\x7fELF") {
        Some(Fault::Loader)
    } else {
        line(&head).and_then(|line| judge(&line, None, at))
    };
    match fault {
        Some(fault) => io::Error::new(io::ErrorKind::NotFound, fault),
        None => error,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(head: &str) -> Option<(String, Option<String>)> {
        let text = |word: OsString| word.into_string().unwrap();
        line(head.as_bytes()).map(|line| (text(line.interpreter), line.argument.map(text)))
    }

    fn judged(head: &str) -> Option<Fault> {
        let found = |path: &Path| match path.to_str().unwrap() {
            "/bin/sh" | "/usr/bin/env" | "/opt/bin/python3" => Found::Program,
            "/etc/passwd" => Found::NotExecutable,
            _ => Found::Nothing,
        };
        judge(&line(head.as_bytes())?, Some(OsStr::new("/usr/bin:/opt/bin")), found)
    }

    #[test]
    fn first_line_is_parsed_as_by_the_kernel() {
        let plain = |interpreter: &str| Some((interpreter.to_owned(), None));
        assert_eq!(read("#!/bin/sh"), plain("/bin/sh"));
        assert_eq!(read("#! \t/bin/sh \t\nrest"), plain("/bin/sh"));
        assert_eq!(read("#!/bin/sh\r\n"), plain("/bin/sh\r"));
        let with = Some(("/usr/bin/env".to_owned(), Some("-S python3 -u".to_owned())));
        assert_eq!(read("#!/usr/bin/env \t-S python3 -u\n"), with);
        for head in ["", "#", "#!", "#! \n/bin/sh", "print(1)\n#!/bin/sh", "\x7fELF"] {
            assert_eq!(read(head), None, "{head:?}");
        }
    }

    #[test]
    fn interpreter_that_cannot_be_run_is_named() {
        assert_eq!(judged("#!/usr/bin/python9.9\n"), Some(Fault::Missing("/usr/bin/python9.9".to_owned())));
        assert_eq!(judged("#!/etc/passwd\n"), Some(Fault::NotExecutable("/etc/passwd".to_owned())));
        assert_eq!(judged("#!/usr/bin/env python9\n"), Some(Fault::NotInPath("python9".to_owned())));
        for head in [
            "#!/bin/sh -e\n",
            "#!/usr/bin/env python3\n",
            "#!/usr/bin/env -S python9 -u\n",
            "#!/usr/bin/env A=1 x\n",
            "x",
        ] {
            assert_eq!(judged(head), None, "{head}");
        }
    }

    #[test]
    fn carriage_return_is_shown_and_explained() {
        for head in ["#!/bin/sh\r\n", "#!/usr/bin/env python3\r\n"] {
            let text = judged(head).unwrap().to_string();
            assert!(text.contains("\\r\"") && text.contains("CRLF"), "{text}");
        }
        assert!(!judged("#!/bin/no\n").unwrap().to_string().contains("CRLF"));
    }

    #[test]
    fn other_errors_and_missing_programs_are_not_explained() {
        let not_found = || io::Error::from(io::ErrorKind::NotFound);
        let explained = |path: &str, error| explain(Path::new(path), error).to_string();
        assert_eq!(explained("/no/such", not_found()), not_found().to_string());
        assert_eq!(explained("/bin/sh", not_found()), Fault::Loader.to_string());
        let denied = || io::Error::from(io::ErrorKind::PermissionDenied);
        assert_eq!(explained("/bin/sh", denied()), denied().to_string());
    }
}
