//! The shipped example: a record processor that needs python3 and nothing else, and sample records.

use std::io;
use std::path::{Path, PathBuf};

/// The stream of the example.
pub const STREAM: &str = "words";

const PROCESSOR: &str = include_str!("example/processor.py");

/// Writes the processor into a folder and gives the properties that run it.
///
/// # Errors
/// The folder can't be written.
pub fn write(folder: &Path) -> io::Result<String> {
    let processor: PathBuf = folder.join("processor.py");
    std::fs::write(&processor, PROCESSOR)?;
    let path = processor.display().to_string();
    if path.contains(' ') {
        // executableName is split at blanks and knows no quotes.
        return Err(io::Error::other(format!(
            "{path} has a blank in it, which executableName can't express"
        )));
    }
    Ok(format!(
        "# The example of `multilangd local`, as a file that the Java MultiLangDaemon understands too.\n\
         executableName = python3 -u {path}\n\
         streamName = {STREAM}\n\
         applicationName = word-count\n\
         AWSCredentialsProvider = DefaultCredentialsProvider\n\
         initialPositionInStream = TRIM_HORIZON\n\
         idleTimeBetweenReadsInMillis = 250\n"
    ))
}

/// The n-th sample record: partition key and data.
pub fn record(number: u64) -> (String, Vec<u8>) {
    const WORDS: [&str; 8] = ["stream", "shard", "lease", "record", "worker", "checkpoint", "child", "pipe"];
    let word = WORDS[usize::try_from(number % 8).unwrap_or(0)];
    (format!("key-{}", number % 97), format!("{word} {number}").into_bytes())
}
