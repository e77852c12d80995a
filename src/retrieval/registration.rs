//! Finds or registers the consumer for enhanced fan-out, once for the daemon.
//!
//! One feed does so while the others wait for the result. The consumer is never deregistered: other workers
//! use it too. In KCL: `FanOutConsumerRegistration`. Different on purpose: only shards that need the consumer
//! wait for it, a pause follows each refused attempt, and a consumer that was deleted is registered again
//! (Java treats its absence as the end of every shard).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::port::Error;
use super::push::{Api, Registered, Status};
use crate::recognition::Pace;
use crate::shard::BoxFuture;

/// Number of checks for a consumer to become active, as in KCL.
const LOOKS: u32 = 10;

/// `fanoutConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `consumerArn`: if present, nothing is looked up or registered.
    pub arn: Option<String>,
    /// `consumerName`, or the application name.
    pub name: String,
    /// `maxDescribeStreamSummaryRetries`: number of attempts.
    pub stream_attempts: u32,
    /// `maxDescribeStreamConsumerRetries`: number of attempts.
    pub describe_attempts: u32,
    /// `registerStreamConsumerRetries`: number of attempts.
    pub register_attempts: u32,
    /// `retryBackoffMillis`: pause between attempts.
    pub pause: Duration,
}

impl Settings {
    /// The settings for a stream that has a consumer of its own, if `arn` is its ARN.
    #[must_use]
    pub fn with_arn(&self, arn: Option<&str>) -> Self {
        Self { arn: arn.map(str::to_owned).or_else(|| self.arn.clone()), ..self.clone() }
    }
}

/// The known state of the consumer.
#[derive(Debug, Default)]
struct Found {
    arn: Option<String>,
    /// When the last attempt failed, and its error.
    failed: Option<(Instant, Error)>,
}

/// The daemon's registered consumer.
pub struct StreamConsumer {
    pub(super) api: Arc<dyn Api>,
    settings: Settings,
    found: Mutex<Found>,
    unavailable: AtomicBool,
    /// Shared with the consumers of other streams.
    pace: Option<Arc<Pace>>,
}

impl std::fmt::Debug for StreamConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamConsumer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl StreamConsumer {
    /// Makes no call before the first shard is read.
    pub fn new(api: Arc<dyn Api>, settings: Settings) -> Self {
        Self { api, settings, found: Mutex::default(), unavailable: AtomicBool::new(false), pace: None }
    }

    /// Makes calls at that pace, which the consumers of several streams share.
    #[must_use]
    pub fn paced(self, pace: Option<Arc<Pace>>) -> Self {
        Self { pace, ..self }
    }

    /// The consumer's ARN. The first caller finds or registers it; later callers wait for the result.
    pub(super) async fn arn(&self) -> Result<String, Error> {
        let asked = Instant::now();
        let mut found = self.found.lock().await;
        if let Some(arn) = &found.arn {
            return Ok(arn.clone());
        }
        // An attempt takes up to half a minute if the service does not answer: a hundred shards share its
        // result.
        if let Some((at, error)) = &found.failed
            && *at >= asked
        {
            return Err(error.clone());
        }
        if self.is_unavailable() {
            return Err(Error::Unsupported("the endpoint does not support enhanced fan-out".to_owned()));
        }
        let arn = match &self.settings.arn {
            Some(arn) => arn.clone(),
            None => match self.find().await {
                Ok(arn) => arn,
                Err(error) => {
                    found.failed = Some((Instant::now(), error.clone()));
                    return Err(error);
                }
            },
        };
        info!(event = "fanout_started", consumer = arn, "reading by enhanced fan-out");
        (found.arn, found.failed) = (Some(arn.clone()), None);
        Ok(arn)
    }

    /// Notes that the consumer does not exist any more: the next caller looks it up again.
    pub(super) async fn is_missing(&self, arn: &str) {
        self.found.lock().await.arn.take_if(|found| found == arn);
    }

    /// Notes that the endpoint has no fan-out: it is not tried again. Logged once.
    pub(super) fn give_up(&self, why: &Error) {
        if !self.unavailable.swap(true, Ordering::Relaxed) {
            warn!(event = "fanout_unsupported", error = %why,
                "the endpoint does not support enhanced fan-out: polling instead (set retrievalMode = \
                 POLLING)");
        }
    }

    pub(super) fn is_unavailable(&self) -> bool {
        self.unavailable.load(Ordering::Relaxed)
    }

    async fn find(&self) -> Result<String, Error> {
        let stream = self.attempt(self.settings.stream_attempts, || self.api.stream_arn()).await?;
        let name = &self.settings.name;
        if let Some(there) = self.look(&stream).await?
            && there.status == Status::Active
        {
            return Ok(there.arn);
        }
        let mut registered = false;
        for _ in 0..LOOKS {
            match self.look(&stream).await? {
                Some(Registered { arn, status: Status::Active }) => return Ok(arn),
                Some(_) => {}
                None if registered => {}
                None => {
                    let register = || self.api.register(&stream, name);
                    match self.attempt(self.settings.register_attempts, register).await {
                        Ok(new) => info!(
                            event = "fanout_consumer_registered",
                            consumer = new.arn,
                            "registered an enhanced fan-out consumer"
                        ),
                        // Another worker was faster.
                        Err(Error::Taken(_)) => {}
                        Err(error) => return Err(error),
                    }
                    registered = true;
                    // Some endpoints have the consumer ready at once.
                    continue;
                }
            }
            sleep(self.settings.pause).await;
        }
        Err(Error::Unavailable(format!("consumer {name} of {stream} does not become ACTIVE")))
    }

    async fn look(&self, stream: &str) -> Result<Option<Registered>, Error> {
        let look = || self.api.describe(stream, &self.settings.name);
        self.attempt(self.settings.describe_attempts, look).await
    }

    /// Retries while Kinesis throttles the call.
    async fn attempt<'a, T>(
        &self,
        attempts: u32,
        call: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut left = attempts.max(1);
        loop {
            left -= 1;
            if let Some(pace) = &self.pace {
                pace.turn().await;
            }
            match call().await {
                Err(Error::Throttled(_)) if left > 0 => {
                    sleep(self.settings.pause + Duration::from_millis(fastrand::u64(0..100))).await;
                }
                other => return other,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::retrieval::Start;
    use crate::retrieval::push::Subscription;
    use crate::shard::ShardId;
    use std::collections::VecDeque;

    /// The calls in order, and the answers to each kind of call.
    #[derive(Default)]
    struct Script {
        asked: std::sync::Mutex<Vec<&'static str>>,
        described: std::sync::Mutex<VecDeque<Result<Option<Status>, Error>>>,
        registered: std::sync::Mutex<VecDeque<Result<(), Error>>>,
    }

    fn registered(status: Status) -> Registered {
        Registered { arn: "arn".to_owned(), status }
    }

    impl Api for Script {
        fn stream_arn(&self) -> BoxFuture<'_, Result<String, Error>> {
            self.asked.lock().unwrap().push("stream");
            Box::pin(async { Ok("s".to_owned()) })
        }
        fn describe<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, Result<Option<Registered>, Error>> {
            self.asked.lock().unwrap().push("describe");
            let answer = self.described.lock().unwrap().pop_front().unwrap_or(Ok(None));
            Box::pin(async { answer.map(|status| status.map(registered)) })
        }
        fn register<'a>(&'a self, _: &'a str, _: &'a str) -> BoxFuture<'a, Result<Registered, Error>> {
            self.asked.lock().unwrap().push("register");
            let answer = self.registered.lock().unwrap().pop_front().unwrap_or(Ok(()));
            Box::pin(async { answer.map(|()| registered(Status::Creating)) })
        }
        fn subscribe<'a>(
            &'a self,
            _: &'a str,
            _: &'a ShardId,
            _: &'a Start,
        ) -> BoxFuture<'a, Result<Box<dyn Subscription>, Error>> {
            Box::pin(async { Err(Error::Unsupported("nobody subscribes here".to_owned())) })
        }
    }

    fn settings() -> Settings {
        Settings {
            arn: None,
            name: "app".to_owned(),
            stream_attempts: 2,
            describe_attempts: 3,
            register_attempts: 2,
            pause: Duration::from_secs(1),
        }
    }

    async fn find(
        described: Vec<Result<Option<Status>, Error>>,
        registered: Vec<Result<(), Error>>,
    ) -> (Result<String, Error>, Vec<&'static str>, u64) {
        let script = Arc::new(Script {
            described: std::sync::Mutex::new(described.into()),
            registered: std::sync::Mutex::new(registered.into()),
            ..Script::default()
        });
        let start = Instant::now();
        let consumer = StreamConsumer::new(script.clone(), settings());
        let arn = consumer.arn().await;
        let asked = script.asked.lock().unwrap().clone();
        (arn, asked, start.elapsed().as_secs())
    }

    fn throttled<T>() -> Result<T, Error> {
        Err(Error::Throttled("LimitExceededException".to_owned()))
    }

    #[tokio::test(start_paused = true)]
    async fn existing_consumer_is_used_at_once() {
        let (arn, asked, seconds) = find(vec![Ok(Some(Status::Active))], vec![]).await;
        assert_eq!((arn, asked, seconds), (Ok("arn".to_owned()), vec!["stream", "describe"], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn missing_consumer_is_registered_once_and_awaited() {
        let missing = || Ok(None);
        let creating = || Ok(Some(Status::Creating));
        let answers = vec![missing(), missing(), creating(), missing(), Ok(Some(Status::Active))];
        let (arn, asked, seconds) = find(answers, vec![]).await;
        assert_eq!(arn, Ok("arn".to_owned()));
        assert_eq!(asked.iter().filter(|asked| **asked == "register").count(), 1);
        assert_eq!(seconds, 2);
    }

    /// Kinesis fails after half a minute: each of a hundred shards would wait for those before it.
    #[tokio::test(start_paused = true)]
    async fn failed_attempt_is_shared_by_all_waiting_shards() {
        let script = Arc::new(Script {
            described: std::sync::Mutex::new(vec![throttled(); 9].into()),
            ..Script::default()
        });
        let consumer = Arc::new(StreamConsumer::new(script.clone(), settings()));
        let mut shards = tokio::task::JoinSet::new();
        let start = Instant::now();
        for _ in 0..100 {
            let consumer = consumer.clone();
            shards.spawn(async move { consumer.arn().await.is_err() });
        }
        assert!(shards.join_all().await.into_iter().all(|failed| failed));
        assert_eq!(script.asked.lock().unwrap().iter().filter(|asked| **asked == "stream").count(), 1);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(consumer.arn().await.is_err(), "the next attempt is one of its own");
        assert_eq!(script.asked.lock().unwrap().iter().filter(|asked| **asked == "stream").count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn lost_registration_race_uses_the_existing_consumer() {
        let taken = Err(Error::Taken("ResourceInUseException".to_owned()));
        let (arn, ..) = find(vec![Ok(None), Ok(None), Ok(Some(Status::Active))], vec![taken]).await;
        assert_eq!(arn, Ok("arn".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn deleting_consumer_is_registered_again_afterwards() {
        let deleting = || Ok(Some(Status::Deleting));
        let answers = vec![deleting(), deleting(), Ok(None), Ok(Some(Status::Active))];
        let (arn, asked, _) = find(answers, vec![]).await;
        assert_eq!((arn, asked.contains(&"register")), (Ok("arn".to_owned()), true));
    }

    #[tokio::test(start_paused = true)]
    async fn throttled_calls_are_retried_a_limited_number_of_times() {
        let (arn, _, seconds) = find(vec![throttled(), throttled(), Ok(Some(Status::Active))], vec![]).await;
        assert_eq!((arn, seconds), (Ok("arn".to_owned()), 2));
        let (arn, ..) = find(vec![throttled(), throttled(), throttled()], vec![]).await;
        assert_eq!(arn, throttled());
        let (arn, ..) = find(vec![], vec![throttled(), throttled()]).await;
        assert_eq!(arn, throttled(), "twenty consumers are the most that a stream can have");
        let (arn, ..) = find((0..12).map(|_| Ok(Some(Status::Creating))).collect(), vec![]).await;
        assert!(matches!(arn, Err(Error::Unavailable(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn consumer_deleted_later_is_looked_up_again() {
        let script = Arc::new(Script::default());
        let answers = [Ok(Some(Status::Active)), Ok(None), Ok(None), Ok(Some(Status::Active))];
        script.described.lock().unwrap().extend(answers);
        let consumer = StreamConsumer::new(script.clone(), settings());
        let arn = consumer.arn().await.unwrap();
        consumer.is_missing("another").await;
        consumer.arn().await.unwrap();
        assert!(!script.asked.lock().unwrap().contains(&"register"));
        consumer.is_missing(&arn).await;
        consumer.arn().await.unwrap();
        assert!(script.asked.lock().unwrap().contains(&"register"));
    }
}
