//! Exit codes: one table, which `docs/operations.md` shows and a test compares.

use std::process::ExitCode;

/// Why the process ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Asked to stop, and everything was stopped in order.
    Clean,
    /// A record processor failed for good.
    ChildFailed,
    /// The command line is wrong.
    Usage,
    /// The properties file or another input can't be read, or is damaged.
    NoInput,
    /// Kinesis or DynamoDB can't be reached, or the stream isn't there.
    Unavailable,
    /// A bug of ours.
    Internal,
    /// An address to listen on is taken, or the data folder is in use.
    Taken,
    /// Kinesis or DynamoDB refused for good: access.
    Denied,
    /// The configuration is wrong.
    Config,
    /// A second signal came during a stop.
    Interrupted,
}

/// Code, name and meaning of each.
pub const EXITS: &[(Exit, u8, &str, &str)] = &[
    (Exit::Clean, 0, "clean", "stopped by a signal, everything in order"),
    (Exit::ChildFailed, 1, "child-failed", "a record processor failed too often in a row"),
    (Exit::Usage, 64, "usage", "wrong command line"),
    (
        Exit::NoInput,
        66,
        "no-input",
        "the properties file or another input is missing or unreadable, or the data folder of local mode is damaged",
    ),
    (
        Exit::Unavailable,
        69,
        "unavailable",
        "Kinesis, DynamoDB or the stream could not be reached in 20 attempts that made no progress",
    ),
    (Exit::Internal, 70, "internal", "a bug in multilangd"),
    (Exit::Taken, 71, "taken", "a port to listen on, or the data folder of local mode, is in use"),
    (Exit::Denied, 77, "denied", "AWS refused access"),
    (
        Exit::Config,
        78,
        "config",
        "wrong settings, no AWS credentials, no such program, a table that is no lease table or belongs to another stream, or another process \
         with the same workerId",
    ),
    (
        Exit::Interrupted,
        130,
        "interrupted",
        "a signal cut it short: a stop, by another one a second or more later; what is no daemon, by the first",
    ),
];

impl Exit {
    /// The number.
    pub fn code(self) -> u8 {
        EXITS.iter().find(|(exit, ..)| *exit == self).map_or(70, |(_, code, ..)| *code)
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
    fn every_exit_has_a_code_of_its_own() {
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
