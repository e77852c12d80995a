//! Arguments as launchers write them for a JVM: options of the JVM, a main class, then the daemon's own.
//!
//! They allow `kcl-bootstrap --java`, `amazon_kclpy_helper.py --java` and easy-kclpy to use this binary as
//! their `java`. In KCL: `MultiLangDaemon`, `MultiLangDaemonArgs` (parsed by JCommander).

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

/// The main class in both generations of KCL.
const MAIN_CLASSES: [&str; 2] = [
    "software.amazon.kinesis.multilang.MultiLangDaemon",
    "com.amazonaws.services.kinesis.multilang.MultiLangDaemon",
];

/// The arguments without the JVM's part.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Understood {
    /// The program's name and the daemon's arguments.
    pub(super) arguments: Vec<OsString>,
    /// The folders in which Java would search the file first.
    pub(super) class_path: Vec<PathBuf>,
    /// System properties as given: `-Dname=value`.
    pub(super) properties: Vec<String>,
}

/// A java command line that starts another program than the MultiLangDaemon.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unsupported {
    /// `-jar`: the main class is named in the jar.
    #[error("unsupported option -jar: multilangd runs no Java code. {hint}", hint = supported())]
    Jar,
    /// Another main class.
    #[error("unknown main class {0}: multilangd runs no Java code. {hint}", hint = supported())]
    MainClass(String),
}

fn supported() -> String {
    let [current, old] = MAIN_CLASSES;
    format!(
        "multilangd replaces the MultiLangDaemon: java [-cp PATH] [-Dname=value] {current} FILE (or \
         {old}), or just multilangd FILE. A main class of your own that configures the KCL in code must \
         be replaced by a properties file"
    )
}

/// Removes the JVM's part. Without a main class only words that cannot be multilangd's are removed, from the
/// front.
///
/// # Errors
/// The command line starts another program.
pub(super) fn understand(arguments: Vec<OsString>) -> Result<Understood, Unsupported> {
    let mut words = arguments.into_iter();
    let name = words.next().unwrap_or_else(|| "multilangd".into());
    let words: Vec<OsString> = words.collect();
    if words.first().is_some_and(|word| word == "test") {
        // The words of a record processor, which may be a Java program.
        let arguments = std::iter::once(name).chain(words).collect();
        return Ok(Understood { arguments, ..Understood::default() });
    }
    let class = words.iter().position(|word| MAIN_CLASSES.iter().any(|class| word == class));
    let (for_java, rest) = match class {
        Some(at) => (&words[..at], &words[at + 1..]),
        None => words.split_at(of_the_jvm(&words)),
    };
    if class.is_none() {
        if words.iter().any(|word| word == "-jar") {
            return Err(Unsupported::Jar);
        }
        // A single word may be a file that does not exist.
        let is_line = !for_java.is_empty() || rest.len() > 1;
        if let Some(class) = rest.first().and_then(|word| word.to_str()).filter(|_| is_line)
            && is_class(class)
            && !Path::new(class).exists()
        {
            return Err(Unsupported::MainClass(class.to_owned()));
        }
    }
    let mut understood = Understood { arguments: vec![name], ..Understood::default() };
    understood.jvm(for_java);
    if class.is_some() {
        if understood.class_path.is_empty() {
            let given = std::env::var_os("CLASSPATH").filter(|path| !path.is_empty());
            understood.class_path = folders(given.as_deref().unwrap_or(OsStr::new(".")));
        }
        understood.arguments.extend(rest.iter().flat_map(daemon_word));
    } else if rest.is_empty() && for_java.iter().any(|word| word == "-version" || word == "--version") {
        understood.arguments.push("--version".into());
    } else {
        understood.arguments.extend(rest.iter().cloned());
    }
    Ok(understood)
}

/// Whether a word has the conventional form of a class: `com.example.Main`.
fn is_class(word: &str) -> bool {
    let identifier = |part: &str| {
        part.starts_with(|c: char| c.is_alphabetic() || c == '_')
            && part.chars().all(|c| c.is_alphanumeric() || "_$".contains(c))
    };
    word.rsplit_once('.').is_some_and(|(package, name)| {
        package.split('.').all(identifier) && identifier(name) && name.starts_with(char::is_uppercase)
    })
}

/// The number of words at the front that can only be a JVM's.
fn of_the_jvm(words: &[OsString]) -> usize {
    let mut count = 0;
    while let Some(word) = words.get(count).and_then(|word| word.to_str()) {
        if ["-cp", "-classpath", "--class-path"].contains(&word) {
            count += 2;
        } else if word.starts_with("-D")
            || word.starts_with("-X")
            || word.starts_with("--class-path=")
            || ["-ea", "-da", "-server", "-client", "-version", "-showversion"].contains(&word)
        {
            count += 1;
        } else {
            break;
        }
    }
    count.min(words.len())
}

/// The rules of JCommander: surrounding blanks and one pair of quotes are removed from a word, an empty word
/// is dropped, `@F` is replaced by the lines of F.
fn daemon_word(word: &OsString) -> Vec<OsString> {
    let Some(text) = word.to_str() else { return vec![word.clone()] };
    let text = text.trim();
    if let Some(lines) = text.strip_prefix('@').and_then(|file| std::fs::read_to_string(file).ok()) {
        let words = lines.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        return words.map(OsString::from).collect();
    }
    let unquoted = text.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).unwrap_or(text);
    if unquoted.is_empty() { Vec::new() } else { vec![unquoted.into()] }
}

/// The folders of a class path; jars and `folder/*`, which means jars, cannot contain the file.
fn folders(path: &OsStr) -> Vec<PathBuf> {
    std::env::split_paths(path)
        .map(|entry| if entry.as_os_str().is_empty() { ".".into() } else { entry })
        .filter(|entry| !entry.ends_with("*") && entry.extension() != Some(OsStr::new("jar")))
        .collect()
}

impl Understood {
    fn jvm(&mut self, words: &[OsString]) {
        let mut words = words.iter();
        while let Some(word) = words.next() {
            let Some(text) = word.to_str() else { continue };
            if ["-cp", "-classpath", "--class-path"].contains(&text) {
                self.class_path = words.next().map(|path| folders(path)).unwrap_or_default();
            } else if let Some(path) = text.strip_prefix("--class-path=") {
                self.class_path = folders(OsStr::new(path));
            } else if text.starts_with("-D") {
                self.properties.push(text.to_owned());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn understood(text: &[&str]) -> Result<Understood, Unsupported> {
        understand([&["java"], text].concat().into_iter().map(OsString::from).collect())
    }

    fn words(text: &[&str]) -> Understood {
        understood(text).unwrap()
    }

    fn arguments(text: &[&str]) -> Vec<OsString> {
        words(text).arguments.split_off(1)
    }

    #[test]
    fn launcher_command_lines_are_parsed() {
        let new = MAIN_CLASSES[0];
        for (argv, left) in [
            (vec!["-cp", "a.jar:b", new, "--properties-file", "f"], vec!["--properties-file", "f"]),
            (vec!["-classpath", "x", new, "-p", "f", "-l", "g"], vec!["-p", "f", "-l", "g"]),
            (vec!["-cp", "x", new, "--properties-file", "f", ""], vec!["--properties-file", "f"]),
            (vec!["-cp", "/a/b", MAIN_CLASSES[1], "f"], vec!["f"]),
            (vec!["-Xmx1g", "-Da=b", "--add-opens", "p=q", "-p", "m", new, " \"f\" "], vec!["f"]),
            (vec!["-Xmx1g", "-ea", "-cp", "x", "f"], vec!["f"]),
            (vec!["-p", "f"], vec!["-p", "f"]),
            (vec!["-version"], vec!["--version"]),
        ] {
            assert_eq!(arguments(&argv), left, "{argv:?}");
        }
    }

    #[test]
    fn other_programs_are_rejected() {
        let other = || Err(Unsupported::MainClass("com.example.OtherMain".to_owned()));
        for (argv, refused) in [
            (vec!["-cp", "x", "com.example.OtherMain", "app.properties"], other()),
            (vec!["-Xmx1g", "com.example.OtherMain"], other()),
            (vec!["com.example.OtherMain", "app.properties"], other()),
            (vec!["-jar", "x.jar", "app.properties"], Err(Unsupported::Jar)),
            (vec!["-Xmx1g", "-server", "-jar", "x.jar"], Err(Unsupported::Jar)),
            (vec!["--add-opens", "p=q", "-jar", "x.jar"], Err(Unsupported::Jar)),
        ] {
            assert_eq!(understood(&argv), refused, "{argv:?}");
        }
        for argv in [
            vec!["com.example.OtherMain"],
            vec!["-cp", "x", "app.properties"],
            vec!["my.app.properties", "--set", "a=b"],
            vec!["conf/My.Properties", "--expand-env"],
        ] {
            assert!(understood(&argv).is_ok(), "{argv:?}");
        }
    }

    #[test]
    fn class_path_yields_its_folders() {
        let found = words(&["-cp", "/j/a.jar:/j/*::/etc/app", MAIN_CLASSES[0], "f"]).class_path;
        assert_eq!(found, [PathBuf::from("."), PathBuf::from("/etc/app")]);
        assert!(words(&["f"]).class_path.is_empty(), "without a class there is no class path");
    }

    #[test]
    fn system_properties_are_kept_in_their_order() {
        let found =
            words(&["-Daws.region=eu-west-1", "-ea", "-Dhttps.proxyHost=p", MAIN_CLASSES[0], "f", "-Dx=y"]);
        assert_eq!(found.properties, ["-Daws.region=eu-west-1", "-Dhttps.proxyHost=p"]);
    }
}
