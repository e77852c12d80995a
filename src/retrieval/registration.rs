//! The consumer in whose name shards are subscribed to: found, or registered, once for the daemon.
//!
//! One reading does it, the others wait for the outcome. Never deregistered: other workers use it too.
//! In KCL: `FanOutConsumerRegistration`. Different on purpose: no shard but those that wait for it are held up,
//! each attempt that is refused is followed by a pause, and a consumer that somebody deletes is registered
//! again (Java takes its absence for the end of every shard).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, sleep};
use tracing::{info, warn};

use super::Error;
use super::fanout::Api;
use crate::shard::BoxFuture;

/// What KCL waits for a consumer to become active: ten looks.
const LOOKS: u32 = 10;

/// `fanoutConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// `consumerArn`: nothing is looked up or registered.
    pub arn: Option<String>,
    /// `consumerName`, or the application's.
    pub name: String,
    /// `maxDescribeStreamSummaryRetries`: attempts.
    pub stream_attempts: u32,
    /// `maxDescribeStreamConsumerRetries`: attempts.
    pub describe_attempts: u32,
    /// `registerStreamConsumerRetries`: attempts.
    pub register_attempts: u32,
    /// `retryBackoffMillis`.
    pub pause: Duration,
}

/// A consumer as Kinesis tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registered {
    /// Its ARN.
    pub arn: String,
    /// Whether it can subscribe.
    pub status: Status,
}

/// `ConsumerStatus`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Not yet.
    Creating,
    /// It can.
    Active,
    /// Not any more.
    Deleting,
}

/// The consumer, as far as it is known.
#[derive(Debug, Default)]
struct Found {
    arn: Option<String>,
    /// When the last attempt ended that found none, and why.
    failed: Option<(Instant, Error)>,
}

/// The daemon's consumer.
pub struct StreamConsumer {
    pub(super) api: Arc<dyn Api>,
    settings: Settings,
    found: Mutex<Found>,
    unavailable: AtomicBool,
}

impl std::fmt::Debug for StreamConsumer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("StreamConsumer").field("settings", &self.settings).finish_non_exhaustive()
    }
}

impl StreamConsumer {
    /// Nothing is called before the first shard is read.
    pub fn new(api: Arc<dyn Api>, settings: Settings) -> Self {
        Self { api, settings, found: Mutex::default(), unavailable: AtomicBool::new(false) }
    }

    /// Its ARN. The first who asks finds or registers it; later ones wait for that.
    pub(super) async fn arn(&self) -> Result<String, Error> {
        let asked = Instant::now();
        let mut found = self.found.lock().await;
        if let Some(arn) = &found.arn {
            return Ok(arn.clone());
        }
        // An attempt takes up to half a minute where nobody answers: a hundred shards share its outcome.
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
        info!(consumer = arn, "reading by enhanced fan-out");
        (found.arn, found.failed) = (Some(arn.clone()), None);
        Ok(arn)
    }

    /// It isn't there any more: the next who asks looks again.
    pub(super) async fn is_missing(&self, arn: &str) {
        self.found.lock().await.arn.take_if(|found| found == arn);
    }

    /// The endpoint has no fan-out: nobody asks again. Said once.
    pub(super) fn give_up(&self, why: &Error) {
        if !self.unavailable.swap(true, Ordering::Relaxed) {
            warn!(error = %why,
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
                        Ok(new) => info!(consumer = new.arn, "registered an enhanced fan-out consumer"),
                        // Somebody else was faster.
                        Err(Error::Taken(_)) => {}
                        Err(error) => return Err(error),
                    }
                    registered = true;
                    // An endpoint may have it ready at once.
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

    /// Again as long as Kinesis says that there were too many calls.
    async fn attempt<'a, T>(
        &self,
        attempts: u32,
        call: impl Fn() -> BoxFuture<'a, Result<T, Error>>,
    ) -> Result<T, Error> {
        let mut left = attempts.max(1);
        loop {
            left -= 1;
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
    use crate::retrieval::fanout::Subscription;
    use crate::shard::ShardId;
    use std::collections::VecDeque;

    /// What it was asked, in order, and what it says to each kind of question.
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
    async fn a_consumer_that_is_there_is_used_without_a_pause() {
        let (arn, asked, seconds) = find(vec![Ok(Some(Status::Active))], vec![]).await;
        assert_eq!((arn, asked, seconds), (Ok("arn".to_owned()), vec!["stream", "describe"], 0));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_missing_is_registered_once_and_waited_for() {
        let missing = || Ok(None);
        let creating = || Ok(Some(Status::Creating));
        let answers = vec![missing(), missing(), creating(), missing(), Ok(Some(Status::Active))];
        let (arn, asked, seconds) = find(answers, vec![]).await;
        assert_eq!(arn, Ok("arn".to_owned()));
        assert_eq!(asked.iter().filter(|asked| **asked == "register").count(), 1);
        assert_eq!(seconds, 2);
    }

    /// Kinesis answers after half a minute that it could not: each of a hundred shards would wait for those before it.
    #[tokio::test(start_paused = true)]
    async fn failed_attempt_is_shared_by_all_that_wait_for_it() {
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
    async fn who_registers_second_takes_what_the_first_made() {
        let taken = Err(Error::Taken("ResourceInUseException".to_owned()));
        let (arn, ..) = find(vec![Ok(None), Ok(None), Ok(Some(Status::Active))], vec![taken]).await;
        assert_eq!(arn, Ok("arn".to_owned()));
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_is_being_deleted_is_registered_anew_once_it_is_gone() {
        let deleting = || Ok(Some(Status::Deleting));
        let answers = vec![deleting(), deleting(), Ok(None), Ok(Some(Status::Active))];
        let (arn, asked, _) = find(answers, vec![]).await;
        assert_eq!((arn, asked.contains(&"register")), (Ok("arn".to_owned()), true));
    }

    #[tokio::test(start_paused = true)]
    async fn too_many_calls_are_followed_by_a_pause_and_not_for_ever() {
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
    async fn a_consumer_that_is_deleted_later_is_looked_for_again() {
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
