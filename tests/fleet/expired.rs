//! One shard whose lease is never renewed: a batch that arrives after the lease has expired is not delivered.

use std::collections::{BTreeSet, VecDeque};
use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use multilangd_protocol::{Dialect, Line};
use serde_json::Value;
use tokio::sync::{Semaphore, broadcast, mpsc};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use multilangd::batch::Records;
use multilangd::budget::{Budget, Reservation};
use multilangd::clock;
use multilangd::consumer::{Outcome, Parts, Settings, Signals, run};
use multilangd::lease::held::{Held, Owner};
use multilangd::lease::memory::Memory;
use multilangd::lease::{Lease, ProcessId};
use multilangd::multilang::launch::{ForShard, Happened, Launch, Process, SpawnError};
use multilangd::multilang::{Outgoing, Stop};
use multilangd::recognition::Recognition;
use multilangd::record::{Data, Record};
use multilangd::retrieval::{self, Answer, Api, PrefetchLimits, Source, Start};
use multilangd::sequence::{Position, Sequence, SequenceNumber};
use multilangd::shard::{BoxFuture, HashRange, Listed, ShardId};
use multilangd::stream::ByStream;

const FAILOVER: Duration = Duration::from_secs(10);

/// Returns one record after the given delay, and no further records.
struct Slow(Duration);

impl Api for Slow {
    fn iterator<'a>(
        &'a self,
        _: &'a ShardId,
        _: &'a Start,
    ) -> BoxFuture<'a, Result<String, retrieval::Error>> {
        Box::pin(async { Ok("first".to_owned()) })
    }

    fn read<'a>(
        &'a self,
        iterator: &'a str,
        _: usize,
        _: Reservation,
    ) -> BoxFuture<'a, Result<Answer, retrieval::Error>> {
        Box::pin(async move {
            if iterator != "first" {
                std::future::pending::<()>().await;
            }
            sleep(self.0).await;
            let record = Record {
                sequence: SequenceNumber::parse("5").unwrap(),
                sub: 0,
                partition_key: "k".into(),
                data: Data::default(),
                arrival: None,
            };
            Ok(Answer {
                records: Records::Decoded(vec![record]),
                next: Some("second".to_owned()),
                ..Answer::default()
            })
        })
    }
}

/// A child that answers every action at once and exits when its stdin closes. It reports the actions to the
/// test.
#[derive(Debug)]
struct Polite {
    actions: mpsc::UnboundedSender<String>,
    answers: VecDeque<String>,
    closed: bool,
}

impl Process for Polite {
    fn pid(&self) -> u32 {
        7
    }

    fn write(&mut self, message: Outgoing) {
        let message: Value = serde_json::from_slice(&message.into_line()).unwrap();
        let action = message["action"].as_str().unwrap().to_owned();
        self.answers.push_back(format!(r#"{{"action":"status","responseFor":"{action}"}}"#));
        self.actions.send(action).unwrap();
    }

    fn close_stdin(&mut self) {
        self.closed = true;
    }

    fn next(&mut self, listen: bool, alive: bool) -> BoxFuture<'_, Happened> {
        Box::pin(async move {
            match self.answers.pop_front().filter(|_| listen) {
                Some(answer) => Happened::Said(Some(Line::Whole(answer.into_bytes()))),
                None if self.closed && listen => Happened::Said(None),
                None if self.closed && alive => Happened::Exited(Ok(ExitStatus::from_raw(0))),
                None => std::future::pending().await,
            }
        })
    }

    fn stop(&self, _: Stop) {}
}

struct Program(Mutex<Option<mpsc::UnboundedSender<String>>>);

impl std::fmt::Display for Program {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("polite")
    }
}

impl Launch for Program {
    fn launch<'a>(&'a self, _: &'a ForShard) -> BoxFuture<'a, Result<Box<dyn Process>, SpawnError>> {
        let actions = self.0.lock().unwrap().take().expect("one child");
        let process = Polite { actions, answers: VecDeque::new(), closed: false };
        Box::pin(async { Ok(Box::new(process) as Box<dyn Process>) })
    }
}

/// The actions that a child receives and the outcome of the shard, if the lease is never renewed and the first
/// record arrives after `wait`.
async fn actions_with_a_record_after(wait: Duration) -> (Vec<String>, Outcome) {
    let table = Arc::new(Memory::default());
    let range = HashRange { start: 0, end: u128::MAX };
    let mut lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    lease.owner = Some("me".into());
    table.put(lease.clone());
    let shards = Arc::new(Listed::default());
    let recognition = Recognition::new(shards.clone());
    let owner = Owner {
        me: "me".into(),
        table: table.clone(),
        failover: FAILOVER,
        nudged: Arc::default(),
        process: ProcessId::new(5, "one", &"me".into()),
        rivals: mpsc::channel(1).0,
        recognitions: ByStream::One(recognition.clone()),
    };
    let held = Held::new(lease, Instant::now(), clock::slept(), &owner);
    let seconds = Duration::from_secs;
    let source = Source {
        api: Arc::new(Slow(wait)),
        shards,
        recognition,
        consumer: None,
        settings: retrieval::Settings {
            max_records: 10,
            idle: seconds(1),
            idle_behind: seconds(1),
            near: Duration::ZERO,
            keep_empty: false,
            retry: seconds(1),
            ahead: PrefetchLimits { batches: 3, records: 100, bytes: 100_000 },
        },
        budget: Budget::new(1_000_000),
        closed: Arc::default(),
        reach: Arc::default(),
        calls: Arc::new(Semaphore::new(1)),
        sink: Arc::new(multilangd::metrics::Discard),
        clock: crate::story::service_clock(),
    };
    let settings = Settings {
        parent_poll: seconds(10),
        task_backoff: seconds(1),
        answer: None,
        warn_after: None,
        shutdown_grace: seconds(5),
        hand_off: seconds(30),
        lost_grace: seconds(5),
        exit_grace: seconds(5),
        kill_grace: seconds(1),
        keep_empty: false,
        max_failures: 5,
        parked_pause: None,
        shape: multilangd::consumer::event::Shape::default(),
        dead_letters: None,
        max_age: None,
    };
    let (actions, mut asked) = mpsc::unbounded_channel();
    let parts = Parts {
        table,
        sources: ByStream::One(source),
        program: Arc::new(Program(Mutex::new(Some(actions)))),
        dialect: Dialect::Current,
        settings,
        timestamp: None,
        check_hash_keys: false,
        standings: Arc::default(),
        capacity: Arc::default(),
        letters: None,
        wall: || 0,
        clock: crate::story::service_clock(),
    };
    let (_finish, finished) = broadcast::channel(1);
    let stop = CancellationToken::new();
    // The test ends the shard if the expiry of the lease does not.
    let stops = {
        let stop = stop.clone();
        async move {
            sleep(2 * FAILOVER).await;
            stop.cancel();
        }
    };
    let (outcome, ()) = tokio::join!(run(held, parts, Signals { stop, finished }), stops);
    let mut all = Vec::new();
    while let Ok(action) = asked.try_recv() {
        all.push(action);
    }
    (all, outcome)
}

#[tokio::test(start_paused = true)]
async fn batch_on_an_expired_lease_is_not_delivered() {
    let (actions, _) = actions_with_a_record_after(FAILOVER - Duration::from_secs(1)).await;
    assert_eq!(actions[..2], ["initialize", "processRecords"], "the lease is live");
    let (actions, outcome) = actions_with_a_record_after(FAILOVER + Duration::from_secs(1)).await;
    assert_eq!(actions, ["initialize", "leaseLost"]);
    assert!(matches!(outcome, Outcome::LeaseLost), "{outcome:?}");
}
