//! Dead letters as records of a Kinesis stream, each with the partition key of its record.

use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Failure, failure};
use crate::backoff::Backoff;
use crate::letters::{DEADLINE, Destination, Letter, Rejected};
use crate::shard::BoxFuture;

/// Most bytes of a record, its partition key included, unless the limit of its stream was raised.
const USUAL: usize = 1 << 20;
/// Most characters of a partition key.
const KEY: usize = 256;
/// Most records of a PutRecords call.
const CALL_RECORDS: usize = 500;
/// Most bytes of a PutRecords call with several records. Kinesis allows 10 MiB, some emulators 5 MiB; a shard accepts
/// 1 MiB a second.
const CALL_BYTES: usize = 4 << 20;
/// The first pause before rejected records of a call are sent again, and the longest one.
const AGAIN: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(2));

/// A stream of letters.
#[derive(Debug, Clone)]
pub struct LetterStream {
    client: Client,
    /// Its name, or its ARN.
    stream: String,
}

/// A letter as Kinesis gets it.
struct Put<'a> {
    key: &'a str,
    line: Vec<u8>,
}

impl<'a> Put<'a> {
    fn new(letter: &'a Letter) -> Self {
        let mut line = letter.line();
        line.pop();
        Self { key: partition_key(letter), line }
    }

    fn size(&self) -> usize {
        self.key.len() + self.line.len()
    }
}

impl LetterStream {
    /// The stream of that name or ARN.
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self { client, stream }
    }

    fn rejected(&self, reason: String) -> Rejected {
        Rejected { destination: format!("kinesis:{}", self.stream), reason }
    }

    /// The stream's ARN, and its name where the ARN is unknown, for a call.
    fn named(&self) -> (Option<String>, Option<String>) {
        let stream = self.stream.clone();
        if stream.starts_with("arn:") { (Some(stream), None) } else { (None, Some(stream)) }
    }

    /// Puts one letter.
    async fn put(&self, put: Put<'_>) -> Result<usize, Rejected> {
        let size = put.line.len();
        let (arn, name) = self.named();
        let call = self.client.put_record().set_stream_arn(arn).set_stream_name(name);
        let call = call.partition_key(put.key).data(Blob::new(put.line));
        match timeout(DEADLINE, call.send()).await {
            Ok(Ok(_)) => Ok(1),
            Ok(Err(error)) if size > USUAL => Err(self.rejected(format!(
                "{} (the letter has {size} bytes: raise the maximum record size of the stream, or write to file:DIR)",
                failure(&error)
            ))),
            Ok(Err(error)) => Err(self.rejected(failure(&error).to_string())),
            Err(_) => Err(self.rejected(late())),
        }
    }

    /// Puts several letters with one call, and those that it rejects with further ones. Returns the number before the
    /// first one that is still rejected.
    async fn put_all(&self, puts: &[Put<'_>]) -> Result<usize, NotPut> {
        let until = Instant::now() + DEADLINE;
        let mut backoff = Backoff::new(AGAIN.0, AGAIN.1, fastrand::Rng::new());
        let mut pending: Vec<usize> = (0..puts.len()).collect();
        let reason = loop {
            let entries = pending.iter().filter_map(|index| {
                let put = puts.get(*index)?;
                let entry = PutRecordsRequestEntry::builder().partition_key(put.key);
                // It has all that is required.
                entry.data(Blob::new(put.line.clone())).build().ok()
            });
            let (arn, name) = self.named();
            let call = self.client.put_records().set_stream_arn(arn).set_stream_name(name);
            let reason = match timeout_at(until, call.set_records(Some(entries.collect())).send()).await {
                Ok(Ok(answer)) => match rejected(&mut pending, answer.records()) {
                    None => return Ok(puts.len()),
                    Some(reason) => reason,
                },
                Ok(Err(error)) => {
                    let failure = failure(&error);
                    // The SDK has repeated what can be repeated.
                    match pending.first() {
                        Some(0) | None => return Err(NotPut::Call(failure)),
                        Some(first) => return Ok(*first),
                    }
                }
                Err(_) => late(),
            };
            let pause = backoff.pause();
            if Instant::now() + pause >= until {
                break reason;
            }
            sleep(pause).await;
        };
        match pending.first() {
            Some(0) | None => Err(NotPut::First(reason)),
            Some(first) => Ok(*first),
        }
    }
}

/// Why the first of several letters was not put.
enum NotPut {
    /// The call failed as a whole.
    Call(Failure),
    /// Kinesis has rejected it until the time was over.
    First(String),
}

fn late() -> String {
    format!("not written within {} s", DEADLINE.as_secs())
}

/// Keeps the records of a call that Kinesis rejected, by their results, and returns the reason of the first one; none if
/// all were accepted.
fn rejected(pending: &mut Vec<usize>, results: &[PutRecordsResultEntry]) -> Option<String> {
    if results.len() != pending.len() {
        return Some(format!("PutRecords of {} records has {} results", pending.len(), results.len()));
    }
    let is_accepted =
        |result: &PutRecordsResultEntry| result.error_code.is_none() && result.sequence_number.is_some();
    let reason = results.iter().find(|result| !is_accepted(result)).map(|result| {
        let code = result.error_code().unwrap_or("no sequence number");
        result.error_message().map_or_else(|| code.to_owned(), |message| format!("{code}: {message}"))
    });
    let mut results = results.iter();
    pending.retain(|_| results.next().is_none_or(|result| !is_accepted(result)));
    reason
}

/// The number of letters of the first call, by their sizes. A letter that may be too large goes alone, so that its
/// rejection concerns no other one.
fn of_one_call(sizes: impl IntoIterator<Item = usize>) -> usize {
    let mut bytes = 0;
    let fits = |(index, size): &(usize, usize)| {
        bytes += size;
        *index == 0 || *index < CALL_RECORDS && bytes <= CALL_BYTES && *size <= USUAL
    };
    let mut sizes = sizes.into_iter().peekable();
    if sizes.peek().is_some_and(|size| *size > USUAL) {
        return 1;
    }
    sizes.enumerate().take_while(fits).count()
}

/// The partition key of a letter. That of a user record of an aggregate can be none that Kinesis accepts.
fn partition_key(letter: &Letter) -> &str {
    let key = letter.record.partition_key.as_str();
    if (1..=KEY).contains(&key.chars().count()) { key } else { letter.shard.as_str() }
}

impl Destination for LetterStream {
    /// Nothing of a letter is left out: Kinesis rejects one that is too large, and the shard waits.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let mut puts: Vec<Put<'_>> = letters.iter().take(CALL_RECORDS).map(Put::new).collect();
            puts.truncate(of_one_call(puts.iter().map(Put::size)));
            if puts.len() > 1 {
                match self.put_all(&puts).await {
                    Ok(count) => return Ok(count),
                    Err(NotPut::First(reason)) => return Err(self.rejected(reason)),
                    Err(NotPut::Call(failure)) if !failure.is_refusal() => {
                        return Err(self.rejected(failure.to_string()));
                    }
                    // Such as a policy that allows PutRecord alone.
                    Err(NotPut::Call(_)) => puts.truncate(1),
                }
            }
            match puts.pop() {
                Some(put) => self.put(put).await,
                None => Ok(0),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn call_holds_at_most_500_letters_and_4_mib() {
        assert_eq!(of_one_call([]), 0);
        assert_eq!(of_one_call([10; 2_000]), 500);
        assert_eq!(of_one_call([1 << 19; 20]), 8);
        assert_eq!(of_one_call([10, 10, USUAL + 1, 10]), 2);
        assert_eq!(of_one_call([USUAL + 1, 10]), 1);
        assert_eq!(of_one_call([USUAL; 5]), 4);
    }

    #[test]
    fn rejected_records_of_a_call_stay_pending() {
        let accepted = || PutRecordsResultEntry::builder().sequence_number("1").shard_id("s").build();
        let throttled = || PutRecordsResultEntry::builder().error_code("Slow").error_message("down").build();
        let mut pending = vec![0, 2, 5];
        let reason = rejected(&mut pending, &[accepted(), throttled(), throttled()]);
        assert_eq!((reason.as_deref(), &pending[..]), (Some("Slow: down"), &[2, 5][..]));
        assert!(rejected(&mut pending, &[accepted()]).is_some());
        assert_eq!(pending, [2, 5], "results of other records prove nothing");
        assert!(rejected(&mut pending, &[PutRecordsResultEntry::builder().build(), accepted()]).is_some());
        assert_eq!(pending, [2]);
        assert_eq!(rejected(&mut pending, &[accepted()]), None);
        assert!(pending.is_empty());
    }
}
