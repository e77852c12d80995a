//! Dead letters as records of a Kinesis stream, each with the partition key of its record.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_sdk_kinesis::Client;
use aws_sdk_kinesis::primitives::Blob;
use aws_sdk_kinesis::types::{PutRecordsRequestEntry, PutRecordsResultEntry};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::error::{Failure, failure};
use crate::backoff::Backoff;
use crate::lease::LeaseKey;
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

/// The letters of a shard that has sent none for this time are forgotten: another worker may own its lease. Less than
/// the shortest retention of a stream, so that a remembered letter is still in it.
const FORGET: Duration = Duration::from_secs(60 * 60);

/// A stream of letters. Clones share what they know of accepted letters.
#[derive(Debug, Clone)]
pub struct LetterStream {
    client: Client,
    /// Its name, or its ARN.
    stream: String,
    ahead: Arc<Mutex<Ahead>>,
}

/// The letters that Kinesis has accepted while it rejected one before them, by the lease of their shard. Without them, each attempt for
/// the rejected one would write the others again.
#[derive(Debug, Default)]
struct Ahead(HashMap<LeaseKey, OfShard>);

#[derive(Debug)]
struct OfShard {
    used: Instant,
    /// At most [`CALL_RECORDS`] between two calls.
    ids: HashSet<String>,
}

impl Ahead {
    /// The places of the letters that still have to be put.
    fn waiting(&mut self, lease: &LeaseKey, ids: &[String], now: Instant) -> Vec<usize> {
        self.0.retain(|_, known| now.duration_since(known.used) <= FORGET);
        let known = self.0.get_mut(lease).map(|known| {
            known.used = now;
            &known.ids
        });
        let is_waiting = |id: &String| known.is_none_or(|known| !known.contains(id));
        ids.iter().enumerate().filter(|(_, id)| is_waiting(id)).map(|(index, _)| index).collect()
    }

    fn note(&mut self, lease: &LeaseKey, ids: impl IntoIterator<Item = String>, now: Instant) {
        let known = self.0.entry(lease.clone());
        let known = known.or_insert_with(|| OfShard { used: now, ids: HashSet::new() });
        known.used = now;
        known.ids.extend(ids);
    }

    /// Forgets the first letters of a call, which the shard does not send again. The shard may have continued elsewhere
    /// since the ids of other calls were noted.
    fn pass(&mut self, lease: &LeaseKey, ids: &[String], count: usize) {
        let Some(OfShard { ids: known, .. }) = self.0.get_mut(lease) else { return };
        for id in ids.iter().take(count) {
            known.remove(id);
        }
        if known.len() > CALL_RECORDS {
            let sent: HashSet<&String> = ids.iter().collect();
            known.retain(|id| sent.contains(id));
        }
        if known.is_empty() {
            self.0.remove(lease);
        }
    }
}

/// A letter as Kinesis gets it.
struct Put<'a> {
    id: String,
    key: &'a str,
    line: Vec<u8>,
}

impl<'a> Put<'a> {
    fn new(letter: &'a Letter) -> Self {
        let mut line = letter.line();
        line.pop();
        Self { id: letter.id(), key: partition_key(letter), line }
    }

    fn size(&self) -> usize {
        self.key.len() + self.line.len()
    }
}

impl LetterStream {
    /// The stream of that name or ARN.
    pub(super) fn new(client: Client, stream: String) -> Self {
        Self { client, stream, ahead: Arc::default() }
    }

    fn ahead(&self) -> MutexGuard<'_, Ahead> {
        self.ahead.lock().unwrap_or_else(PoisonError::into_inner)
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

    /// Puts several letters of a shard with one call, and those that it rejects with further ones. Notes the accepted ones
    /// after each call, since the caller may not await the next. Returns the number before the first one that is still
    /// rejected.
    async fn put_all(&self, lease: &LeaseKey, puts: &[Put<'_>]) -> Result<usize, NotPut> {
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
                Ok(Ok(answer)) => {
                    let called = pending.clone();
                    let reason = rejected(&mut pending, answer.records());
                    let accepted = called.iter().filter(|index| pending.binary_search(index).is_err());
                    let accepted = accepted.filter_map(|index| Some(puts.get(*index)?.id.clone()));
                    self.ahead().note(lease, accepted, Instant::now());
                    match reason {
                        None => return Ok(puts.len()),
                        Some(reason) => reason,
                    }
                }
                Ok(Err(error)) => {
                    let failure = failure(&error);
                    // Another call would fail in the same way.
                    if failure.is_refusal() || matches!(failure, Failure::NotSent(_)) {
                        match pending.first() {
                            Some(0) | None => return Err(NotPut::Call(failure)),
                            Some(first) => return Ok(*first),
                        }
                    }
                    failure.to_string()
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

    /// Puts the first letters of a shard, as many as fit in a call. Returns how many were accepted, counted from the first
    /// one.
    async fn put_first(&self, lease: &LeaseKey, mut puts: Vec<Put<'_>>) -> Result<usize, Rejected> {
        puts.truncate(of_one_call(puts.iter().map(Put::size)));
        if puts.len() > 1 {
            match self.put_all(lease, &puts).await {
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
    }
}

/// Why the first of several letters was not put.
enum NotPut {
    /// The call failed as a whole, and would fail again.
    Call(Failure),
    /// Kinesis has rejected it, or calls have failed, until the time was over.
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
    if (1..=KEY).contains(&key.chars().count()) { key } else { letter.lease.shard().as_str() }
}

impl Destination for LetterStream {
    /// Nothing of a letter is left out: Kinesis rejects one that is too large, and the shard waits.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let Some(lease) = letters.first().map(|letter| &letter.lease) else { return Ok(0) };
            let ids: Vec<String> = letters.iter().take(CALL_RECORDS).map(Letter::id).collect();
            let waiting = self.ahead().waiting(lease, &ids, Instant::now());
            let puts = waiting.iter().filter_map(|index| letters.get(*index)).map(Put::new).collect();
            let put = self.put_first(lease, puts).await;
            let next = waiting.get(*put.as_ref().unwrap_or(&0)).copied().unwrap_or(ids.len());
            self.ahead().pass(lease, &ids, next);
            match put {
                Err(rejected) if next == 0 => Err(rejected),
                _ => Ok(next),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use aws_smithy_runtime_api::client::http::{
        HttpClient, HttpConnector, HttpConnectorFuture, HttpConnectorSettings, SharedHttpConnector,
    };
    use aws_smithy_runtime_api::client::orchestrator::{HttpRequest, HttpResponse};
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_runtime_api::client::runtime_components::RuntimeComponents;
    use aws_smithy_types::body::SdkBody;
    use serde_json::Value;

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

    /// An endpoint that rejects the records of some keys, and fails the next calls as a whole.
    #[derive(Debug, Clone, Default)]
    struct Endpoint(Arc<Mutex<State>>);

    #[derive(Debug, Default)]
    struct State {
        slow: Vec<String>,
        /// Whole answers to the next calls; the connection resets at one without a status.
        next: VecDeque<(u16, &'static str)>,
        /// The keys of the accepted records.
        stored: Vec<String>,
    }

    impl Endpoint {
        fn state(&self) -> MutexGuard<'_, State> {
            self.0.lock().unwrap()
        }

        fn letters(&self) -> LetterStream {
            let config = aws_sdk_kinesis::Config::builder()
                .behavior_version_latest()
                .region(aws_sdk_kinesis::config::Region::new("us-east-1"))
                .allow_no_auth()
                .endpoint_url("http://127.0.0.1:1")
                .retry_config(aws_smithy_types::retry::RetryConfig::disabled())
                .http_client(self.clone());
            LetterStream::new(Client::from_conf(config.build()), "letters".to_owned())
        }
    }

    impl HttpClient for Endpoint {
        fn http_connector(&self, _: &HttpConnectorSettings, _: &RuntimeComponents) -> SharedHttpConnector {
            SharedHttpConnector::new(self.clone())
        }
    }

    impl HttpConnector for Endpoint {
        fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
            let mut state = self.state();
            let (status, body) = match state.next.pop_front() {
                Some((0, _)) => return HttpConnectorFuture::ready(Err(ConnectorError::io("reset".into()))),
                Some((status, code)) => (status, serde_json::json!({ "__type": code, "message": "because" })),
                None => {
                    let body: Value = serde_json::from_slice(request.body().bytes().unwrap()).unwrap();
                    let mut put = |record: &Value| {
                        let key = record["PartitionKey"].as_str().unwrap().to_owned();
                        if state.slow.contains(&key) {
                            return serde_json::json!({ "ErrorCode": "Slow", "ErrorMessage": "down" });
                        }
                        state.stored.push(key);
                        serde_json::json!({ "SequenceNumber": "1", "ShardId": "s" })
                    };
                    match body["Records"].as_array() {
                        Some(records) => {
                            let results: Vec<Value> = records.iter().map(put).collect();
                            (200, serde_json::json!({ "Records": results }))
                        }
                        None => match put(&body) {
                            rejected if rejected["ErrorCode"].is_string() => {
                                (400, serde_json::json!({ "__type": "Slow", "message": "down" }))
                            }
                            accepted => (200, accepted),
                        },
                    }
                }
            };
            let response = HttpResponse::new(status.try_into().unwrap(), SdkBody::from(body.to_string()));
            HttpConnectorFuture::ready(Ok(response))
        }
    }

    fn letters(numbers: std::ops::Range<usize>) -> Vec<Letter> {
        let of = |number: usize| {
            let mut letter = crate::letters::tests::letter(number);
            letter.record.partition_key = number.to_string().into();
            letter
        };
        numbers.map(of).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn letters_behind_a_rejected_one_are_put_once() {
        let endpoint = Endpoint::default();
        let (destination, all) = (endpoint.letters(), letters(0..5));
        endpoint.state().slow = vec!["0".to_owned(), "3".to_owned()];
        for part in [5, 5, 2, 5] {
            let rejected = destination.send(&all[..part]).await.unwrap_err();
            assert_eq!(rejected.reason, "Slow: down");
        }
        assert_eq!(endpoint.state().stored, ["1", "2", "4"], "each once");
        endpoint.state().slow = vec!["3".to_owned()];
        assert_eq!(destination.send(&all).await, Ok(3));
        endpoint.state().slow.clear();
        assert_eq!(destination.send(&all[3..]).await, Ok(2));
        assert_eq!(endpoint.state().stored, ["1", "2", "4", "0", "3"], "each once");
        assert!(destination.ahead().0.is_empty(), "nothing is remembered of letters that all were accepted");
    }

    #[tokio::test(start_paused = true)]
    async fn dropped_send_forgets_no_accepted_letter() {
        let endpoint = Endpoint::default();
        let (destination, all) = (endpoint.letters(), letters(0..4));
        endpoint.state().slow = vec!["2".to_owned()];
        assert!(timeout(Duration::from_secs(5), destination.send(&all)).await.is_err());
        assert_eq!(destination.send(&all).await, Ok(2));
        assert_eq!(endpoint.state().stored, ["0", "1", "3"], "each once");
        let mut other = letters(0..4);
        other.iter_mut().for_each(|letter| letter.lease = "shardId-000000000009".into());
        assert_eq!(destination.send(&other).await, Ok(2), "another shard has letters of its own");
        assert_eq!(endpoint.state().stored.len(), 6);
    }

    #[tokio::test(start_paused = true)]
    async fn failed_call_is_repeated_before_its_deadline() {
        let endpoint = Endpoint::default();
        let failures = [(500, "InternalFailure"), (0, ""), (400, "ThrottlingException")];
        endpoint.state().next.extend(failures);
        assert_eq!(endpoint.letters().send(&letters(0..3)).await, Ok(3));
        assert_eq!(endpoint.state().stored.len(), 3);
        let start = Instant::now();
        endpoint.state().next.extend([(500, "InternalFailure"); 1_000]);
        let rejected = endpoint.letters().send(&letters(0..3)).await.unwrap_err();
        assert!(rejected.reason.contains("InternalFailure"), "{rejected}");
        assert!(start.elapsed() <= DEADLINE);
        assert!(endpoint.state().next.len() > 900, "with growing pauses");
    }

    #[test]
    fn accepted_letters_are_remembered_within_bounds() {
        let (mut ahead, lease, start) = (Ahead::default(), LeaseKey::from("s"), Instant::now());
        let ids = |numbers: std::ops::Range<usize>| numbers.map(|id| id.to_string()).collect::<Vec<_>>();
        for begin in 0..10 {
            let window = ids(begin * 500..begin * 500 + 500);
            ahead.note(&lease, window[1..].iter().cloned(), start);
            ahead.pass(&lease, &window, 0);
            assert_eq!(ahead.waiting(&lease, &window, start), [0]);
            assert!(ahead.0[&lease].ids.len() <= CALL_RECORDS);
        }
        let later = start + FORGET + Duration::from_secs(1);
        assert_eq!(ahead.waiting(&"t".into(), &ids(0..2), later), [0, 1]);
        assert!(ahead.0.is_empty(), "a shard that sends no letters any more");
    }
}
