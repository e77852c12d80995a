//! Exit codes: one table, which the README shows and a test compares.

use std::process::ExitCode;

/// The reason why the process exits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// A requested shutdown completed.
    Clean,
    /// A record processor failed permanently.
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
    /// The exit code.
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
