//! Dead letters as records of a Kinesis stream, each with the partition key of its record.

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use tokio::time::timeout;

use super::error::failure;
use crate::letters::{DEADLINE, Destination, Letter, Rejected};
use crate::shard::BoxFuture;

/// Most bytes of a record, its partition key included, unless the limit of its stream was raised.
const USUAL: usize = 1 << 20;
/// Most characters of a partition key.
const KEY: usize = 256;

/// A stream of letters.
#[derive(Debug, Clone)]
pub struct LetterStream {
    client: Client,
    /// Its name, or its ARN.
    stream: String,
}

impl LetterStream {
    /// The stream of that name or ARN.
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self { client, stream }
    }

    fn rejected(&self, reason: String) -> Rejected {
        Rejected { destination: format!("kinesis:{}", self.stream), reason }
    }
}

/// The partition key of a letter. That of a user record of an aggregate can be none that Kinesis accepts.
fn partition_key(letter: &Letter) -> &str {
    let key = letter.record.partition_key.as_str();
    if (1..=KEY).contains(&key.chars().count()) { key } else { letter.shard.as_str() }
}

impl Destination for LetterStream {
    /// Nothing of a letter is left out: Kinesis rejects one that is too large, and the shard waits.
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), Rejected>> {
        Box::pin(async move {
            let mut line = letter.line();
            line.pop();
            let size = line.len();
            let call = self.client.put_record().partition_key(partition_key(letter)).data(Blob::new(line));
            let call = if self.stream.starts_with("arn:") {
                call.stream_arn(&self.stream)
            } else {
                call.stream_name(&self.stream)
            };
            match timeout(DEADLINE, call.send()).await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) if size > USUAL => Err(self.rejected(format!(
                    "{} (the letter has {size} bytes: raise the maximum record size of the stream, or write to file:DIR)",
                    failure(&error)
                ))),
                Ok(Err(error)) => Err(self.rejected(failure(&error).to_string())),
                Err(_) => Err(self.rejected(format!("not written within {} s", DEADLINE.as_secs()))),
            }
        })
    }
}
