//! Tests of the state machine, with simulated time.

use super::closing::MAX_STARVED;
use super::*;
use crate::consumer::event::Shape;
use crate::multilang::Stop;
use crate::record::Record;
use crate::sequence::SequenceNumber;
use crate::shard::HashRange;

pub(super) fn settings() -> Settings {
    let seconds = Duration::from_secs;
    Settings {
        parent_poll: seconds(10),
        task_backoff: Duration::from_millis(500),
        warn_after: None,
        answer: Some(seconds(60)),
        shutdown_grace: seconds(5),
        hand_off: seconds(30),
        lost_grace: seconds(30),
        exit_grace: seconds(5),
        kill_grace: seconds(1),
        keep_empty: false,
        max_failures: 5,
        parked_pause: None,
        shape: Shape::default(),
        dead_letters: None,
        max_age: None,
    }
}

pub(super) struct Life {
    pub(super) state: State,
    pub(super) now: Instant,
}

pub(super) fn position(text: &str) -> Position {
    Position::new(Sequence::parse(text).unwrap())
}

pub(super) fn batch(numbers: &[u32]) -> Batch {
    let record = |n: &u32| Record {
        sequence: SequenceNumber::parse(&n.to_string()).unwrap(),
        sub: 0,
        partition_key: "".into(),
        data: crate::record::Data::default(),
        arrival: None,
    };
    Batch { records: numbers.iter().map(record).collect(), millis_behind_latest: Some(0), ..Batch::default() }
}

pub(super) fn last_batch(numbers: &[u32]) -> Batch {
    Batch { end: Some(vec![child_shard()]), ..batch(numbers) }
}

pub(super) fn child_shard() -> ChildShard {
    ChildShard { id: "child".into(), parents: vec!["s".into()], range: HashRange { start: 0, end: 9 } }
}

pub(super) fn request(number: Option<&str>) -> multilang::Event {
    let request = CheckpointRequest { sequence_number: number.map(str::to_owned), sub_sequence_number: None };
    multilang::Event::Said(session::Event::Checkpoint { request, early: false })
}

impl Life {
    pub(super) fn new(stored: &str) -> Self {
        let state = State::new(settings(), position(stored), false, fastrand::Rng::with_seed(1));
        Self { state, now: Instant::now() }
    }

    /// A shard whose child has answered `initialize`.
    pub(super) fn idle(stored: &str) -> Self {
        let mut life = Self::new(stored);
        assert_eq!(life.on(Event::Begin), [Effect::OpenFeed(position(stored).sequence), Effect::Spawn]);
        assert_eq!(life.on(Event::Spawned), [Effect::Send(Message::Initialize(position(stored)))]);
        assert_eq!(life.done(Action::Initialize), []);
        assert!(life.state.wants_batch());
        life
    }

    pub(super) fn on(&mut self, event: Event) -> Effects {
        self.state.on(self.now, event)
    }

    pub(super) fn child(&mut self, event: multilang::Event) -> Effects {
        self.on(Event::Child(event))
    }

    pub(super) fn done(&mut self, action: Action) -> Effects {
        self.child(multilang::Event::Said(session::Event::Done(action)))
    }

    pub(super) fn exited(&mut self) -> Effects {
        self.child(multilang::Event::Exited("exit code 0".into()))
    }

    pub(super) fn stored(&mut self, number: &str) -> Effects {
        self.on(Event::Stored(position(number), Ok(())))
    }

    /// Advances the time to the present deadline.
    pub(super) fn wait(&mut self) -> Effects {
        self.now = self.state.deadline().expect("a deadline");
        self.on(Event::Deadline)
    }

    /// Delivers a batch and answers it, with a checkpoint of all of it if `checkpoint`.
    pub(super) fn process(&mut self, numbers: &[u32], checkpoint: bool) {
        assert!(matches!(
            self.on(Event::Batch(batch(numbers)))[..],
            [Effect::Send(Message::ProcessRecords(..))]
        ));
        if checkpoint {
            let last = numbers.last().unwrap().to_string();
            assert_eq!(self.child(request(None)), [Effect::Store(position(&last))]);
            assert_eq!(self.stored(&last), [Effect::Acknowledge(Ok(()))]);
        }
        assert_eq!(self.done(Action::ProcessRecords), []);
    }
}

pub(super) fn finish(outcome: Outcome) -> Effects {
    vec![Effect::CloseFeed, Effect::Finish(outcome)]
}

#[test]
fn records_up_to_the_checkpoint_are_filtered_out() {
    let mut life = Life::idle("5");
    let effects = life.on(Event::Batch(batch(&[4, 5, 6])));
    assert_eq!(effects, [Effect::Send(Message::ProcessRecords(batch(&[6]).records, Some(0)))]);
    life.done(Action::ProcessRecords);
    assert_eq!(life.on(Event::Batch(batch(&[5]))), [], "nothing left, nothing sent");
    assert!(life.state.wants_batch());
}

#[test]
fn shard_waits_for_parents_and_checks_again() {
    let mut life = Life::new("TRIM_HORIZON");
    life.state.has_parents = true;
    assert_eq!(life.on(Event::Begin), [Effect::CheckParents]);
    assert_eq!(life.on(Event::Parents(Ok(false))), []);
    assert_eq!(life.on(Event::ShardFinished), [Effect::CheckParents]);
    assert_eq!(life.on(Event::ShardFinished), [], "one look at a time");
    assert!(matches!(life.on(Event::Parents(Err("throttled".into())))[..], [Effect::ParentsUnknown(_)]));
    assert_eq!(life.wait(), [Effect::CheckParents]);
    assert!(matches!(life.on(Event::Parents(Ok(true)))[..], [Effect::OpenFeed(_), Effect::Spawn]));
}

#[test]
fn waiting_shard_ends_at_once() {
    for (event, outcome) in [(Event::Stop, Outcome::Stopped), (Event::LeaseLost, Outcome::LeaseLost)] {
        let mut life = Life::new("TRIM_HORIZON");
        life.state.has_parents = true;
        life.on(Event::Begin);
        assert_eq!(life.on(event).last(), Some(&Effect::Finish(outcome)));
    }
}

#[test]
fn stop_sends_shutdown_requested_then_lease_lost() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.process(&[1, 2], false);
    assert_eq!(life.on(Event::Stop), [Effect::Send(Message::ShutdownRequested)]);
    assert_eq!(life.child(request(None)), [Effect::Store(position("2"))]);
    assert_eq!(life.stored("2"), [Effect::Acknowledge(Ok(()))]);
    assert_eq!(life.done(Action::ShutdownRequested), [Effect::Send(Message::LeaseLost)]);
    assert_eq!(life.child(request(None)), [Effect::Acknowledge(Err(CheckpointFailure::InvalidState))]);
    assert_eq!(life.done(Action::LeaseLost), [Effect::CloseStdin]);
    assert_eq!(life.exited(), finish(Outcome::Stopped));
}

#[test]
fn stop_waits_for_the_open_batch_within_its_grace() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1])));
    assert_eq!(life.on(Event::Stop), []);
    let stopped = life.now;
    assert_eq!(life.wait(), [Effect::StopTimedOut, Effect::CloseStdin]);
    assert_eq!(life.now - stopped, settings().shutdown_grace);
    assert_eq!(life.wait(), [Effect::Signal(Stop::Politely)]);
    assert_eq!(life.wait(), [Effect::Signal(Stop::AtOnce)]);
    let mut effects = life.wait();
    assert_eq!(effects.remove(0), Effect::Abandon);
    assert_eq!(
        effects,
        finish(Outcome::Stopped),
        "even a process that can't be killed doesn't hold the stop"
    );
}

#[test]
fn only_a_wrong_shutdown_answer_is_tolerated() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Stop);
    let wrong =
        |open| multilang::Event::Said(session::Event::Wrong { open, response_for: Some("shutdown".into()) });
    let effects = life.child(wrong(Action::ShutdownRequested));
    assert_eq!(effects.last(), Some(&Effect::Send(Message::LeaseLost)));

    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1])));
    let effects = life.child(wrong(Action::ProcessRecords));
    assert!(matches!(effects[..], [Effect::Failed(_, 1), Effect::CloseStdin]));
}

#[test]
fn failed_child_restarts_from_the_checkpoint() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.process(&[1, 2], true);
    life.process(&[3], false);
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 1)]), "noticed while idle");
    let effects = life.wait();
    assert_eq!(effects, [Effect::OpenFeed(position("2").sequence), Effect::Spawn]);
    assert_eq!(life.on(Event::Spawned), [Effect::Send(Message::Initialize(position("2")))]);
    life.done(Action::Initialize);
    let effects = life.on(Event::Batch(batch(&[2, 3])));
    assert_eq!(effects, [Effect::Send(Message::ProcessRecords(batch(&[3]).records, Some(0)))]);
}

#[test]
fn latest_without_checkpoint_restarts_at_first_delivered_record() {
    let mut life = Life::idle("LATEST");
    life.process(&[7, 8], false);
    life.exited();
    assert_eq!(life.wait()[0], Effect::OpenFeed(position("7").sequence));
}

#[test]
fn feed_without_deliveries_is_continued() {
    let mut life = Life::idle("LATEST");
    life.exited();
    assert_eq!(life.wait(), [Effect::Spawn], "opening LATEST again would skip what came meanwhile");
}

#[test]
fn checkpoint_resets_the_failure_count() {
    let mut life = Life::idle("TRIM_HORIZON");
    let restart = |life: &mut Life| {
        life.wait();
        life.on(Event::Spawned);
        life.done(Action::Initialize);
    };
    for _ in 0..4 {
        life.exited();
        restart(&mut life);
    }
    life.process(&[1], true);
    for failure in 1..5 {
        assert!(matches!(life.exited()[..], [Effect::Failed(_, n)] if n == failure));
        restart(&mut life);
    }
    let effects = life.exited();
    assert_eq!(effects.last(), Some(&Effect::Finish(Outcome::Hopeless("it exited with exit code 0".into()))));
}

#[test]
fn long_lived_idle_child_resets_the_failure_count() {
    let live = |life: &mut Life, seconds| life.now += Duration::from_secs(seconds);
    let restart = |life: &mut Life| {
        life.wait();
        life.on(Event::Spawned);
    };
    let mut life = Life::idle("5");
    life.exited();
    restart(&mut life);
    life.done(Action::Initialize);
    live(&mut life, 60);
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 1)]), "it was idle for a minute");
    restart(&mut life);
    live(&mut life, 60);
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 2)]), "it never answered initialize");
    restart(&mut life);
    life.done(Action::Initialize);
    life.process(&[6], false);
    live(&mut life, 60);
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 3)]), "a record was not checkpointed");
}

#[test]
fn slow_batch_is_reported_until_answered() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.state.settings.warn_after = Some(Duration::from_secs(3));
    life.on(Event::Batch(batch(&[1])));
    assert_eq!(life.wait(), [Effect::Slow(Duration::from_secs(3))]);
    assert_eq!(life.wait(), [Effect::Slow(Duration::from_secs(13))]);
    assert_eq!(life.done(Action::ProcessRecords), []);
    assert_eq!(life.state.deadline(), None, "who is idle isn't slow");
}

#[test]
fn failed_start_counts_as_child_failure() {
    let mut life = Life::new("TRIM_HORIZON");
    life.on(Event::Begin);
    for _ in 0..4 {
        assert!(matches!(
            life.on(Event::NotSpawned(NotSpawned::Failed("gone".into())))[..],
            [Effect::Failed(..)]
        ));
        assert!(life.wait().contains(&Effect::Spawn));
    }
    let effects = life.on(Event::NotSpawned(NotSpawned::Failed("gone".into())));
    assert_eq!(effects.last(), Some(&Effect::Finish(Outcome::Hopeless("gone".into()))));
}

#[test]
fn restart_waits_for_the_pending_write() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1, 2])));
    assert_eq!(life.child(request(Some("2"))), [Effect::Store(position("2"))]);
    assert!(matches!(life.exited()[..], [Effect::Failed(..)]));
    assert_eq!(life.state.deadline(), None, "held has the deadline");
    assert_eq!(life.stored("2"), []);
    assert_eq!(life.wait()[0], Effect::OpenFeed(position("2").sequence));
}

#[test]
fn write_after_a_failure_does_not_undo_it() {
    for (max_failures, hopeless) in [(1, true), (2, false)] {
        let mut life = Life::idle("TRIM_HORIZON");
        life.state.settings.max_failures = max_failures;
        life.on(Event::Batch(batch(&[1, 2])));
        life.child(request(Some("2")));
        assert!(matches!(life.exited()[..], [Effect::Failed(_, 1)]));
        let effects = life.stored("2");
        assert_eq!(matches!(effects.last(), Some(Effect::Finish(Outcome::Hopeless(_)))), hopeless);
    }
}

#[test]
fn answer_timeout_restarts_per_message_and_pauses_during_writes() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1])));
    let limit = settings().answer.unwrap();
    life.now += limit / 2;
    life.child(request(Some("1")));
    assert_eq!(life.state.deadline(), None);
    life.now += limit;
    life.stored("1");
    assert_eq!(life.state.deadline(), Some(life.now + limit));
    assert!(matches!(life.wait()[..], [Effect::Failed(..), Effect::CloseStdin]));
}

#[test]
fn lost_lease_waits_for_the_open_batch() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1])));
    assert_eq!(life.on(Event::LeaseLost), [Effect::CloseFeed]);
    life.child(request(None));
    let refused = life.on(Event::Stored(position("1"), Err(held::Error::Lost)));
    assert_eq!(refused, [Effect::Acknowledge(Err(CheckpointFailure::Shutdown))]);
    assert_eq!(life.done(Action::ProcessRecords), [Effect::Send(Message::LeaseLost)]);
    life.done(Action::LeaseLost);
    assert_eq!(life.exited(), finish(Outcome::LeaseLost));
}

#[test]
fn shard_end_creates_child_leases_then_asks_the_child() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(last_batch(&[1])));
    let prepare = || Effect::PrepareEnd(vec![child_shard()]);
    assert_eq!(life.done(Action::ProcessRecords), [prepare()]);
    assert!(matches!(
        life.on(Event::EndPrepared(Err(EndError::NotNow("throttled".into()))))[..],
        [Effect::EndDelayed(_)]
    ));
    assert_eq!(life.wait(), [prepare()]);
    assert_eq!(life.on(Event::EndPrepared(Ok(()))), [Effect::Send(Message::ShardEnded)]);
    assert_eq!(life.child(request(Some("1"))), [Effect::Store(Position::shard_end())]);
    life.on(Event::Stored(Position::shard_end(), Ok(())));
    assert_eq!(life.done(Action::ShardEnded), [Effect::CloseStdin]);
    assert_eq!(life.exited(), finish(Outcome::ShardEnded));
}

#[test]
fn shard_end_without_checkpoint_restarts_the_child() {
    let mut life = Life::idle("TRIM_HORIZON");
    assert!(matches!(life.on(Event::Batch(last_batch(&[])))[..], [Effect::PrepareEnd(_)]));
    life.on(Event::EndPrepared(Ok(())));
    assert!(matches!(life.done(Action::ShardEnded)[..], [Effect::Failed(_, 1), Effect::CloseStdin]));
    life.exited();
    assert!(matches!(life.wait()[..], [Effect::OpenFeed(_), Effect::Spawn]));
}

#[test]
fn stop_during_shard_end_completes_the_shard() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(last_batch(&[])));
    life.on(Event::Stop);
    assert_eq!(life.on(Event::EndPrepared(Ok(()))), [Effect::Send(Message::ShardEnded)]);
}

#[test]
fn completed_lease_starts_no_child() {
    let mut life = Life::new("SHARD_END");
    assert_eq!(life.on(Event::Begin), finish(Outcome::ShardEnded));
}

#[test]
fn checkpoint_between_batches_means_the_first() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.process(&[1, 2], false);
    life.on(Event::Batch(batch(&[3])));
    let request = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
    assert_eq!(
        life.child(multilang::Event::Said(session::Event::Checkpoint { request, early: true })),
        [Effect::Store(position("2"))]
    );
}

#[test]
fn child_exit_after_stored_shard_end_is_no_failure() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(last_batch(&[])));
    life.on(Event::EndPrepared(Ok(())));
    life.child(request(None));
    life.on(Event::Stored(Position::shard_end(), Ok(())));
    assert_eq!(life.exited().last(), Some(&Effect::Finish(Outcome::ShardEnded)));
}

#[test]
fn lost_checkpoint_answer_does_not_reject_later_requests() {
    let mut life = Life::idle("10");
    life.on(Event::Batch(batch(&[11, 12, 13])));
    // The child before it had stored 12, which this worker did not know.
    assert_eq!(life.child(request(Some("11"))), [Effect::Store(position("11"))]);
    let behind = Err(held::Error::Behind(position("12")));
    assert_eq!(life.on(Event::Stored(position("11"), behind)), [Effect::Acknowledge(Ok(()))]);
    assert_eq!(life.child(request(Some("12"))), [Effect::Acknowledge(Ok(()))]);
    assert_eq!(life.child(request(Some("13"))), [Effect::Store(position("13"))]);
    assert_eq!(life.stored("13"), [Effect::Acknowledge(Ok(()))]);
    assert_eq!(life.state.stored(), &position("13"));
}

/// A parked shard whose child has exited.
fn parked(stored: &str) -> Life {
    let mut life = Life::idle(stored);
    life.state.settings.parked_pause = Some(Duration::from_secs(300));
    for failure in 1..5 {
        assert!(matches!(life.exited()[..], [Effect::Failed(_, n)] if n == failure));
        life.wait();
        life.on(Event::Spawned);
        life.done(Action::Initialize);
    }
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 5), Effect::Parked(..)]));
    life
}

#[test]
fn parked_shard_restarts_with_growing_pauses() {
    let mut life = parked("5");
    let mut pauses = Vec::new();
    for _ in 0..10 {
        let before = life.now;
        assert_eq!(life.wait(), [Effect::Spawn]);
        pauses.push((life.now - before).as_secs());
        life.on(Event::Spawned);
        life.done(Action::Initialize);
        assert!(matches!(life.exited()[..], [Effect::Failed(..)]), "parked already");
    }
    assert!(pauses.is_sorted_by(|a, b| a < b || *b >= 150), "{pauses:?}");
    assert!(pauses[0] < 10 && pauses[9] >= 150 && pauses.iter().all(|pause| *pause <= 300), "{pauses:?}");
}

#[test]
fn parked_shard_recovers_with_a_checkpoint() {
    let mut life = parked("5");
    life.wait();
    life.on(Event::Spawned);
    assert_eq!(life.done(Action::Initialize), []);
    life.on(Event::Batch(batch(&[6])));
    life.child(request(None));
    assert_eq!(life.stored("6"), [Effect::Recovered, Effect::Acknowledge(Ok(()))]);
    life.done(Action::ProcessRecords);
    assert!(matches!(life.exited()[..], [Effect::Failed(_, 1)]));
    let before = life.now;
    life.wait();
    assert!(life.now - before <= Duration::from_millis(500), "the pauses are short again");
}

#[test]
fn parked_shard_recovers_when_its_child_stays_alive() {
    let mut life = parked("5");
    life.wait();
    life.on(Event::Spawned);
    life.done(Action::Initialize);
    let before = life.now;
    assert_eq!(life.wait(), [Effect::Recovered]);
    assert_eq!((life.now - before, life.state.deadline()), (LIVED_WELL, None));
}

#[test]
fn parked_shard_drops_records_but_keeps_latest_feed() {
    let mut life = Life::idle("5");
    life.state.settings.parked_pause = Some(Duration::from_secs(300));
    life.state.settings.max_failures = 1;
    life.on(Event::Batch(batch(&[6])));
    let effects = life.exited();
    assert!(
        matches!(effects[..], [Effect::Failed(..), Effect::CloseFeed, Effect::Parked(..)]),
        "{effects:?}"
    );
    assert_eq!(life.wait(), [Effect::OpenFeed(position("5").sequence), Effect::Spawn]);

    let mut life = Life::idle("LATEST");
    life.state.settings.parked_pause = Some(Duration::from_secs(300));
    life.state.settings.max_failures = 1;
    assert!(matches!(life.exited()[..], [Effect::Failed(..), Effect::Parked(..)]));
    assert_eq!(life.wait(), [Effect::Spawn], "opening LATEST again would skip records");
}

#[test]
fn parked_shard_ends_at_once() {
    assert_eq!(parked("5").on(Event::Stop), finish(Outcome::Stopped));
    assert_eq!(parked("5").on(Event::Wanted), finish(Outcome::Stopped));
    let effects = parked("5").on(Event::LeaseLost);
    assert_eq!(effects.last(), Some(&Effect::Finish(Outcome::LeaseLost)));
}

#[test]
fn shortage_is_no_failure_of_the_child() {
    let mut life = Life::new("TRIM_HORIZON");
    life.state.settings.max_failures = 1;
    life.on(Event::Begin);
    for _ in 0..20 {
        let before = life.now;
        let shortage = Event::NotSpawned(NotSpawned::Shortage("EAGAIN".into()));
        assert_eq!(life.on(shortage), [Effect::Shortage("EAGAIN".into())]);
        assert_eq!(life.wait(), [Effect::Spawn]);
        assert!(life.now - before <= Duration::from_secs(10));
    }
    life.on(Event::Spawned);
    assert_eq!(life.done(Action::Initialize), []);
}

#[test]
fn child_that_starved_before_initialize_is_no_failure_for_a_while() {
    let starved = || Event::Starved { end: "exit code 254".into(), line: "fork: out of processes".into() };
    let mut life = Life::new("TRIM_HORIZON");
    life.on(Event::Begin);
    let began = life.now;
    for _ in 0..MAX_STARVED {
        life.on(Event::Spawned);
        let effects = life.on(starved());
        assert!(matches!(&effects[..], [Effect::Shortage(_)]), "{effects:?}");
        assert_eq!(life.wait(), [Effect::Spawn]);
    }
    let took = life.now - began;
    assert!(took > Duration::from_secs(60) && took < Duration::from_secs(300), "{took:?}");
    life.on(Event::Spawned);
    let is_failure = |effects: Vec<Effect>| matches!(&effects[..], [Effect::Failed(_, 1), ..]);
    assert!(is_failure(life.on(starved())), "the words are no proof");
    let mut life = Life::new("TRIM_HORIZON");
    life.on(Event::Begin);
    life.on(Event::Spawned);
    life.done(Action::Initialize);
    assert!(is_failure(life.on(starved())), "it had started");
    let mut life = Life::new("TRIM_HORIZON");
    life.state.settings.max_failures = 1;
    life.on(Event::Begin);
    life.on(Event::Spawned);
    assert!(is_failure(life.on(starved())), "one failure is enough by the settings");
}

#[test]
fn surplus_lease_is_released_unless_at_latest() {
    for (stored, released) in [("5", true), ("TRIM_HORIZON", true), ("LATEST", false)] {
        let mut life = Life::new(stored);
        life.on(Event::Begin);
        life.on(Event::NotSpawned(NotSpawned::Shortage("EAGAIN".into())));
        let effects = life.on(Event::Surplus);
        let expected = if released { finish(Outcome::Stopped) } else { Vec::new() };
        assert_eq!(effects, expected, "{stored}");
    }
}

#[test]
fn stop_does_not_wait_for_a_hanging_write() {
    let mut life = Life::idle("TRIM_HORIZON");
    life.on(Event::Batch(batch(&[1])));
    life.child(request(None));
    life.on(Event::Stop);
    life.exited();
    let before = life.now;
    assert_eq!(life.wait(), finish(Outcome::Stopped));
    assert_eq!(life.now - before, settings().kill_grace);
}
