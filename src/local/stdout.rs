//! Lines for people on stdout.

use std::io::{self, Write as _};

use tracing::info;

/// Prints to stdout, which has no other output: logs and the children's output go to stderr.
pub(super) fn tell(line: &str) {
    if let Err(error) = writeln!(io::stdout().lock(), "multilangd local: {line}") {
        info!(line, %error, "failed to write to stdout");
    }
}
