//! The shipped example: a record processor that needs only python3, and sample records.

use std::io;
use std::path::Path;

/// The stream of the example.
pub const STREAM: &str = "words";

/// The source of the processor.
pub(super) const PROCESSOR: &str = include_str!("../../examples/python/processor.py");

/// The processor's file name.
pub(super) const PROCESSOR_NAME: &str = "processor.py";

/// The properties that run the processor at this path.
///
/// # Errors
/// The path cannot be expressed in them.
pub(super) fn properties(processor: &Path) -> io::Result<String> {
    let path = processor.display().to_string();
    if path.contains(' ') {
        // `executableName` is split at blanks and supports no quotes.
        return Err(io::Error::other(format!(
            "{path} contains a blank, which executableName cannot express (set TMPDIR to a folder \
             without one)"
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
