//! Repeated writes of lease rows beside those of the SDK, with the settings of the real client.

use std::collections::BTreeSet;

use aws_config::{BehaviorVersion, Region, SdkConfig};
use aws_credential_types::provider::SharedCredentialsProvider;
use aws_smithy_runtime_api::client::http::SharedHttpClient;

use super::tests::{Calls, Clock, Does, Endpoint, Marked, Rotating, START, headers, is_of_sdk};
use super::*;
use crate::aws::client::{Client, dynamodb_config};
use crate::aws::dynamodb::{Leases, Options};
use crate::clock::ServiceTime;
use crate::config::ClientConfig;
use crate::lease::{Lease, Table as _, table, update};
use crate::metrics::Sink;
use crate::sequence::{Position, Sequence};
use crate::shard::HashRange;

const FAILOVER: Duration = Duration::from_secs(3);
/// A third of it, the time for a write with its retries.
const WHOLE: Duration = Duration::from_secs(1);
/// The row before the write.
const OLD: &str = r#"{"Attributes":{"leaseKey":{"S":"s"},"leaseCounter":{"N":"7"},"leaseOwner":{"S":"me"},
    "checkpoint":{"S":"TRIM_HORIZON"},"checkpointSubSequenceNumber":{"N":"0"},
    "ownerSwitchesSinceCheckpoint":{"N":"0"}}}"#;

struct Rig {
    endpoint: Endpoint,
    clock: Clock,
    calls: Arc<Calls>,
    service: ServiceTime,
    table: Leases,
}

impl Rig {
    /// A table whose writes are repeated, or left to the SDK.
    fn new(repeating: bool) -> Self {
        let (endpoint, clock) = (Endpoint { usual: Some(OLD), ..Endpoint::default() }, Clock::default());
        let (calls, service) = (Arc::new(Calls::default()), ServiceTime::default());
        let (sink, watch): (Arc<dyn Sink>, _) = (calls.clone(), Watch::new(service.clone()));
        let shared = SdkConfig::builder()
            .behavior_version(BehaviorVersion::v2026_01_12())
            .http_client(SharedHttpClient::new(endpoint.clone()))
            .time_source(clock.clone())
            .sleep_impl(aws_smithy_async::rt::sleep::default_async_sleep().unwrap())
            .build();
        let region = Region::new("eu-west-1");
        let credentials = Some(SharedCredentialsProvider::new(Rotating(clock.clone(), Arc::default())));
        let client = Client { config: ClientConfig::default(), region, credentials };
        let config = dynamodb_config(&shared, client, FAILOVER, &sink, watch.clone()).to_builder();
        let config = config.invocation_id_generator(Marked).build();
        let client = aws_sdk_dynamodb::Client::from_conf(config);
        let table = Leases::new(client, "leases".to_owned(), Options::default());
        let table = match repeating {
            true => table.repeating(Repeat::new(Count(sink), Some(watch))),
            false => table,
        };
        Self { endpoint, clock, calls, service, table }
    }

    /// One write of the SDK has succeeded: the next is repeated.
    async fn learned() -> Self {
        let rig = Self::new(true);
        rig.write().await.unwrap();
        rig.endpoint.requests();
        rig.calls.0.lock().unwrap().clear();
        rig
    }

    async fn write(&self) -> Result<Lease, table::Error> {
        self.table.update(&"s".into(), &update::renew(&row())).await
    }

    /// Whether the SDK made it, for each request.
    fn made_by_sdk(&self) -> Vec<bool> {
        self.endpoint.requests().iter().map(is_of_sdk).collect()
    }
}

fn row() -> Lease {
    let range = HashRange { start: 0, end: 1 };
    let mut row = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    (row.owner, row.counter, row.range, row.typed) = (Some("me".into()), 7, None, false);
    row
}

#[tokio::test(start_paused = true)]
async fn repeated_write_equals_the_write_of_the_sdk() {
    let rig = Rig::new(true);
    assert_eq!(rig.write().await, Ok(row()));
    assert_eq!(rig.write().await, Ok(row()));
    let requests = rig.endpoint.requests();
    let [first, repeated] = requests.as_slice() else { panic!("{requests:?}") };
    assert!(is_of_sdk(first) && !is_of_sdk(repeated));
    assert_eq!((first.method(), first.uri()), (repeated.method(), repeated.uri()));
    let json = |request: &HttpRequest| -> serde_json::Value {
        serde_json::from_slice(request.body().bytes().unwrap()).unwrap()
    };
    assert_eq!(json(first), json(repeated));
    let (mut theirs, mut ours) = (headers(first), headers(repeated));
    for headers in [&mut theirs, &mut ours] {
        // The order of the names in the body differs, and so does the signature.
        let authorization = headers.remove("authorization").unwrap();
        headers.insert("signed".to_owned(), authorization.split("Signature=").next().unwrap().to_owned());
        assert!(headers.remove(INVOCATION).is_some());
    }
    assert_eq!(ours, theirs);
}

#[tokio::test(start_paused = true)]
async fn outcome_is_that_of_the_sdk() {
    let all = [
        Does::Answers(200, OLD),
        Does::Answers(200, "{}"),
        Does::Refuses("ConditionalCheckFailedException"),
        Does::Refuses("ProvisionedThroughputExceededException"),
        Does::Refuses("ThrottlingException"),
        Does::Refuses("ResourceNotFoundException"),
        Does::Refuses("AccessDeniedException"),
        Does::Refuses("InvalidSignatureException"),
        Does::Refuses("TransactionConflictException"),
        Does::Refuses("ItemCollectionSizeLimitExceededException"),
        Does::Answers(500, r#"{"__type":"InternalServerError"}"#),
        Does::Answers(503, ""),
        Does::Answers(404, "not here"),
        Does::Answers(200, ""),
        Does::Answers(200, r#"{"Attributes":{"leaseKey""#),
        Does::Cuts(OLD),
        Does::Resets,
        Does::RejectsRequest,
        Does::Hangs,
    ];
    for does in all {
        let (theirs, ours) = (Rig::new(false), Rig::learned().await);
        let mut outcomes = Vec::new();
        for rig in [&theirs, &ours] {
            // Each attempt meets it.
            (0..9).for_each(|_| rig.endpoint.will(does.clone()));
            let began = Instant::now();
            let outcome = rig.write().await;
            assert!(began.elapsed() <= WHOLE, "{does:?}: {:?}", began.elapsed());
            // The texts of a time limit differ in the time.
            outcomes.push(outcome.map_err(|error| {
                (
                    std::mem::discriminant(&error),
                    error.is_unanswered(),
                    (!matches!(does, Does::Hangs)).then_some(error),
                )
            }));
        }
        assert_eq!(outcomes[1], outcomes[0], "{does:?}");
        let made = ours.made_by_sdk();
        assert_eq!(made.first(), Some(&false), "{does:?}");
        let is_final = matches!(
            &does,
            Does::Answers(200, OLD | "{}" | "") | Does::Refuses("ConditionalCheckFailedException")
        );
        assert_eq!(made.len() == 1, is_final, "{does:?}: {made:?}");
        let retired = |rig: &Rig| rig.endpoint.retired.load(Ordering::Relaxed) > 0;
        assert_eq!(retired(&ours), retired(&theirs), "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn failed_attempt_is_followed_by_those_of_the_sdk() {
    for does in [Does::Resets, Does::Hangs, Does::Refuses("ThrottlingException"), Does::Answers(500, "{}")] {
        let rig = Rig::learned().await;
        rig.endpoint.will(does.clone());
        assert_eq!(rig.write().await, Ok(row()), "{does:?}");
        assert_eq!(rig.made_by_sdk(), [false, true], "{does:?}");
        // That call had other time limits.
        rig.write().await.unwrap();
        rig.write().await.unwrap();
        assert_eq!(rig.made_by_sdk(), [true, false], "{does:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn later_attempt_of_the_sdk_is_not_repeated() {
    let rig = Rig::new(true);
    rig.endpoint.will(Does::Answers(500, "{}"));
    rig.write().await.unwrap();
    assert_eq!(rig.made_by_sdk(), [true, true]);
    rig.write().await.unwrap();
    rig.write().await.unwrap();
    assert_eq!(rig.made_by_sdk(), [true, false]);
}

#[tokio::test(start_paused = true)]
async fn failed_condition_is_counted_as_a_normal_answer() {
    let rig = Rig::learned().await;
    rig.write().await.unwrap();
    rig.endpoint.will(Does::Refuses("ConditionalCheckFailedException"));
    assert_eq!(rig.write().await, Err(table::Error::Conflict("s".into())));
    rig.endpoint.will(Does::Answers(500, "{}"));
    rig.write().await.unwrap();
    let counted: Vec<bool> = rig.calls.0.lock().unwrap().iter().map(|(_, ok)| *ok).collect();
    assert_eq!(counted, [true, true, false, true]);
    assert!(rig.calls.0.lock().unwrap().iter().all(|(operation, _)| operation == "UpdateItem"));
}

#[tokio::test(start_paused = true)]
async fn dates_of_repeated_answers_are_noted() {
    let rig = Rig::learned().await;
    let wall = i64::try_from(START).unwrap() * 1_000;
    assert_eq!(rig.service.earliest(wall, Instant::now()), wall, "no answer had a date");
    let time = DateTime::from_secs(i64::try_from(START - 3_600).unwrap());
    rig.endpoint.will(Does::Says("date", time.fmt(Format::HttpDate).unwrap()));
    rig.write().await.unwrap();
    assert_eq!(rig.made_by_sdk(), [false]);
    assert_eq!(rig.service.earliest(wall, Instant::now()), wall - 3_600_000);
    assert_eq!(rig.clock.0.load(Ordering::Relaxed), 0);
}
