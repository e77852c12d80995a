//! The arguments of `test`.

use std::path::PathBuf;

use clap::Args;

/// `test`.
#[derive(Debug, Clone, PartialEq, Eq, Args)]
pub(crate) struct Test {
    /// Test the executableName of this properties file instead of a command.
    #[arg(long, value_name = "FILE")]
    pub(crate) properties_file: Option<PathBuf>,
    /// Write the results as JUnit XML.
    #[arg(long, value_name = "FILE")]
    pub(crate) junit: Option<PathBuf>,
    /// Deliver these records in a case of their own: JSON lines with partitionKey, and data in base64 or text, as
    /// multilangd tail prints them.
    #[arg(long, value_name = "FILE")]
    pub(crate) records: Option<PathBuf>,
    /// Run only this case; can be repeated.
    #[arg(long = "case", value_name = "NAME")]
    pub(crate) cases: Vec<String>,
    /// Seconds for each answer of the record processor, and for its exit once its stdin has ended.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub(crate) timeout: u64,
    /// Fail on notes, too.
    #[arg(long)]
    pub(crate) strict: bool,
    /// Print the cases and exit.
    #[arg(long)]
    pub(crate) list: bool,
    /// The record processor: a program and its arguments.
    #[arg(last = true, value_name = "COMMAND", conflicts_with = "properties_file")]
    #[arg(required_unless_present_any = ["properties_file", "list"])]
    pub(crate) command: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::super::Command;
    use super::super::tests::parsed;

    #[test]
    fn test_accepts_a_command_or_a_file() {
        let command = |words: &[&str]| match parsed(&[&["test"], words].concat()).map(|(command, _)| command)
        {
            Ok(Command::Test(test)) => Some(test.command),
            _ => None,
        };
        // The record processor may be a Java program.
        let java = ["--strict", "--", "java", "-jar", "x.jar", "--list"];
        assert_eq!(command(&java).unwrap(), ["java", "-jar", "x.jar", "--list"]);
        assert_eq!(command(&["--properties-file", "f"]).unwrap().len(), 0);
        assert_eq!(command(&["--list"]).unwrap().len(), 0);
        for words in [&[][..], &["--properties-file", "f", "--", "a"], &["a"], &["--timeout", "0", "--", "a"]]
        {
            assert_eq!(command(words), None, "{words:?}");
        }
    }
}
