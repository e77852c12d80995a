//! Exit codes: one table, which `docs/operations.md` shows and a test compares.

use std::process::ExitCode;

/// The reason why the process exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A requested shutdown completed.
    Clean,
    /// A record processor failed permanently; for `multilangd health`, the daemon is not healthy; for
    /// `multilangd local --exit-when-done`, not all records were checkpointed; for `multilangd test`, a case failed; for
    /// a verb of `multilangd leases FILE`, it was refused.
    ChildFailed,
    /// The command line is invalid.
    Usage,
    /// The properties file or another input cannot be read or is damaged.
    NoInput,
    /// Kinesis or DynamoDB cannot be reached, or the stream does not exist.
    Unavailable,
    /// A bug in multilangd.
    Internal,
    /// A listen address or the data folder is in use.
    Taken,
    /// Kinesis or DynamoDB denied access.
    Denied,
    /// The configuration is invalid.
    Config,
    /// A second signal arrived during the shutdown.
    Interrupted,
}

/// Exit code, name and meaning of each variant.
pub const EXITS: &[(Exit, u8, &str, &str)] = &[
    (
        Exit::Clean,
        0,
        "clean",
        "shut down cleanly after a signal; multilangd local --exit-when-done: all records were checkpointed; other commands: completed",
    ),
    (
        Exit::ChildFailed,
        1,
        "child-failed",
        "a record processor failed too many times in a row; all applications of the process have failed, with different codes; multilangd health: the daemon is not alive, or not ready; multilangd local --exit-when-done: not all records were checkpointed; multilangd test: a case failed; multilangd letters: a line is no letter; multilangd replay: records failed again; multilangd leases FILE with a verb: refused, or not all leases were written",
    ),
    (Exit::Usage, 64, "usage", "invalid command line"),
    (
        Exit::NoInput,
        66,
        "no-input",
        "the properties file or another input is missing or unreadable, the data folder of local mode is damaged, or multilangd install, test --junit, replay or tail cannot write",
    ),
    (
        Exit::Unavailable,
        69,
        "unavailable",
        "Kinesis, DynamoDB or the stream was not available in 20 attempts without progress; multilangd check --aws: in one",
    ),
    (Exit::Internal, 70, "internal", "internal error: a bug in multilangd"),
    (Exit::Taken, 71, "taken", "a port to listen on, or the data folder of local mode, is in use"),
    (Exit::Denied, 77, "denied", "AWS denied access"),
    (
        Exit::Config,
        78,
        "config",
        "invalid settings, properties files that conflict, no AWS credentials, record processor not found, a table that is not a lease table or belongs to another stream, or another process with the same workerId",
    ),
    (
        Exit::Interrupted,
        130,
        "interrupted",
        "interrupted: a second signal, at least one second after the first, cut the shutdown short; commands other than the daemon exit at the first signal",
    ),
];

impl Exit {
    /// The exit code.
    pub fn code(self) -> u8 {
        EXITS.iter().find(|(exit, ..)| *exit == self).map_or(70, |(_, code, ..)| *code)
    }

    /// The name.
    pub fn name(self) -> &'static str {
        EXITS.iter().find(|(exit, ..)| *exit == self).map_or("internal", |(_, _, name, _)| *name)
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_unique() {
        let mut codes: Vec<u8> = EXITS
            .iter()
            .map(|(exit, code, ..)| {
                assert_eq!(exit.code(), *code);
                *code
            })
            .collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), EXITS.len());
    }
}
