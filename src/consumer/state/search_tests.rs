//! Tests of the state machine with dead letters: a shard in memory, a child that fails at certain records, and
//! destinations that reject letters. Every record must be in a batch that was answered well or in a letter, in
//! order.

use std::collections::BTreeSet;

use proptest::prelude::*;

use super::*;
use crate::consumer::event::MaxAge;
use crate::lease::held;
use crate::letters::Limits;
use crate::record::Record;

mod age_tests;

/// A shard with records 1 to `count`, its child and its destination.
struct Shard {
    state: State,
    now: Instant,
    count: usize,
    /// Records at which every child fails.
    bad: BTreeSet<usize>,
    /// Records that are too old at all times.
    old: BTreeSet<usize>,
    /// Records that were skipped for their age.
    skipped: BTreeSet<usize>,
    /// Records per batch of the feed.
    batch: usize,
    /// The child checkpoints after each `checkpoints`-th batch; never if it is 0.
    checkpoints: usize,
    /// Whether the child checkpoints the records before the one at which it fails.
    checkpoints_good: bool,
    /// Thousandths of batches at which the child fails, whatever they hold.
    flaky: u32,
    /// The largest batch that a child received.
    largest: usize,
    /// Thousandths of letters that are rejected.
    refuses: u32,
    /// The largest number of letters that were to be written at once.
    largest_write: usize,
    random: fastrand::Rng,
    /// The next record of the feed.
    next: usize,
    open: Vec<usize>,
    batches: usize,
    stored: usize,
    is_child_alive: bool,
    /// Records in batches that were answered well, and records in letters.
    processed: BTreeSet<usize>,
    letters: Vec<usize>,
    /// The failures since the last letter.
    failures: u32,
    most_failures: u32,
    parked: bool,
    violations: Vec<String>,
}

fn number(position: &Position) -> usize {
    match &position.sequence {
        Sequence::Number(number) => number.as_str().parse().unwrap(),
        _ => 0,
    }
}

impl Shard {
    fn new(count: usize, bad: impl IntoIterator<Item = usize>) -> Self {
        let settings = Settings {
            parked_pause: Some(Duration::from_secs(300)),
            dead_letters: Some(Limits { record_failures: 3, in_a_row: 10 }),
            ..super::tests::settings()
        };
        let random = fastrand::Rng::with_seed(1);
        let state = State::new(settings, Position::new(Sequence::TrimHorizon), false, random.clone());
        Self {
            state,
            now: Instant::now(),
            count,
            bad: bad.into_iter().collect(),
            old: BTreeSet::new(),
            skipped: BTreeSet::new(),
            batch: count,
            checkpoints: 0,
            checkpoints_good: false,
            flaky: 0,
            largest: 0,
            refuses: 0,
            largest_write: 0,
            random,
            next: 1,
            open: Vec::new(),
            batches: 0,
            stored: 0,
            is_child_alive: false,
            processed: BTreeSet::new(),
            letters: Vec::new(),
            failures: 0,
            most_failures: 0,
            parked: false,
            violations: Vec::new(),
        }
    }

    fn is_settled(&self, record: usize) -> bool {
        self.processed.contains(&record) || self.letters.contains(&record) || self.skipped.contains(&record)
    }

    /// Records are too old after a second, and are skipped then, or written to the dead letters.
    fn limit_age(&mut self, old: impl IntoIterator<Item = usize>, writes_letters: bool) {
        self.old = old.into_iter().filter(|record| *record <= self.count).collect();
        self.state.settings.max_age = Some(MaxAge { millis: 1_000, writes_letters });
        self.state.note_time(10_000);
    }

    fn record(&self, number: usize) -> Record {
        let arrival = Some(if self.old.contains(&number) { 8_999 } else { 9_000 });
        Record { arrival, ..Record::plain(number, "k", b"") }
    }

    /// Runs until every record is settled, for at most that many events.
    fn run(&mut self, most: usize) {
        if self.state.phase == Phase::Waiting(None) {
            self.handle(Event::Begin);
        }
        for _ in 0..most {
            if (1..=self.count).all(|record| self.is_settled(record)) && self.open.is_empty() {
                return;
            }
            if self.state.wants_rest() {
                self.handle(Event::Rest);
            } else if self.state.wants_batch() && self.next <= self.count {
                let end = (self.next + self.batch).min(self.count + 1);
                let records = (self.next..end).map(|number| self.record(number)).collect();
                self.next = end;
                self.handle(Event::Batch(Batch { records, ..Batch::default() }));
            } else if let Some(deadline) = self.state.deadline() {
                self.now = self.now.max(deadline);
                self.handle(Event::Deadline);
            } else {
                return;
            }
        }
    }

    fn handle(&mut self, event: Event) {
        for effect in self.state.on(self.now, event) {
            self.perform(effect);
        }
    }

    fn child(&mut self, event: multilang::Event) {
        self.handle(Event::Child(event));
    }

    fn perform(&mut self, effect: Effect) {
        match effect {
            Effect::OpenFeed(from) => self.next = number(&Position::new(from)).max(1),
            Effect::Spawn => {
                self.is_child_alive = true;
                self.handle(Event::Spawned);
            }
            Effect::Send(Message::Initialize(at)) => {
                assert_eq!(number(&at), self.stored);
                self.child(multilang::Event::Said(session::Event::Done(Action::Initialize)));
            }
            Effect::Send(Message::ProcessRecords(records, _)) => self.process(records),
            Effect::Store(position) => {
                let to = number(&position);
                if let Some(lost) = (self.stored + 1..=to)
                    .find(|record| !self.is_settled(*record) && !self.open.contains(record))
                {
                    self.violations.push(format!("{position} is stored before {lost} is settled"));
                }
                self.stored = to;
                self.handle(Event::Stored(position, Ok(())));
            }
            Effect::CloseStdin if std::mem::take(&mut self.is_child_alive) => {
                self.child(multilang::Event::Exited("exit code 0".to_owned()));
            }
            Effect::Aged { first, last, .. }
                if self.state.settings.max_age.is_some_and(|age| !age.writes_letters) =>
            {
                for record in number(&first)..=number(&last) {
                    if !self.old.contains(&record) && !self.is_settled(record) {
                        self.violations.push(format!("{record} is skipped although it is not old"));
                    }
                    self.skipped.insert(record);
                }
            }
            Effect::Letter(record) => {
                let position = record.position();
                if self.random.u32(0..1000) < self.refuses {
                    return self.handle(Event::Lettered(position, Err("down".to_owned())));
                }
                self.write(&record);
                self.handle(Event::Lettered(position, Ok(())));
            }
            // The destination accepts some of the first letters.
            Effect::AgedLetters(records) => {
                let first = records[0].position();
                let accepted =
                    records.iter().take_while(|_| self.random.u32(0..1000) >= self.refuses).count();
                self.largest_write = self.largest_write.max(records.len());
                if accepted == 0 {
                    let outcome = Err("down".to_owned());
                    return self.handle(Event::AgedLettered { first, outcome });
                }
                records[..accepted].iter().for_each(|record| self.write(record));
                let written = records[..accepted].iter().map(Record::position).collect();
                self.handle(Event::AgedLettered { first, outcome: Ok(written) });
            }
            Effect::Bisecting(..) | Effect::Failed(..) => self.failures += 1,
            Effect::Parked(..) => self.parked = true,
            Effect::Finish(outcome) => self.violations.push(format!("ended: {outcome:?}")),
            _ => {}
        }
    }

    /// The destination accepts a letter.
    fn write(&mut self, record: &Record) {
        let record = number(&record.position());
        if self.letters.contains(&record) {
            self.violations.push(format!("two letters of {record}"));
        }
        self.letters.push(record);
        self.most_failures = self.most_failures.max(std::mem::take(&mut self.failures));
    }

    fn process(&mut self, records: crate::batch::Records) {
        self.open = records.decode().iter().map(|record| number(&record.position())).collect();
        if let Some(again) = self.open.iter().find(|record| self.letters.contains(record)) {
            self.violations.push(format!("{again} is delivered after its letter"));
        }
        if let Some(old) = self.open.iter().find(|record| self.old.contains(record)) {
            self.violations.push(format!("{old} is delivered although it is too old"));
        }
        self.largest = self.largest.max(self.open.len());
        let first = self.open.first().copied().unwrap_or_default();
        if let Some(skipped) = (1..first).find(|record| !self.is_settled(*record)) {
            self.violations.push(format!("{first} is delivered before {skipped} is settled"));
        }
        let fails =
            self.open.iter().any(|record| self.bad.contains(record)) || self.random.u32(0..1000) < self.flaky;
        if fails {
            let good: Vec<usize> =
                self.open.drain(..).take_while(|record| !self.bad.contains(record)).collect();
            if let Some(last) = good.last().filter(|_| self.checkpoints_good && self.flaky == 0) {
                let request =
                    CheckpointRequest { sequence_number: Some(last.to_string()), sub_sequence_number: None };
                self.processed.extend(&good);
                self.child(multilang::Event::Said(session::Event::Checkpoint { request, early: false }));
            }
            self.is_child_alive = false;
            return self.child(multilang::Event::Exited("exit code 1".to_owned()));
        }
        self.batches += 1;
        if self.checkpoints > 0 && self.batches.is_multiple_of(self.checkpoints) {
            let request = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
            self.child(multilang::Event::Said(session::Event::Checkpoint { request, early: false }));
        }
        self.processed.extend(std::mem::take(&mut self.open));
        self.child(multilang::Event::Said(session::Event::Done(Action::ProcessRecords)));
    }

    fn assert_all_settled(&self) {
        assert_eq!(self.violations, Vec::<String>::new());
        let open: Vec<usize> = (1..=self.count).filter(|record| !self.is_settled(*record)).collect();
        assert_eq!(open, Vec::<usize>::new(), "neither processed nor in a letter");
    }
}

#[test]
fn poison_record_becomes_one_letter_after_log2_restarts() {
    for (count, batch) in [(1usize, 1usize), (2, 2), (25, 25), (100, 7), (1_000, 1_000)] {
        for poison in [1, count.div_ceil(3), count] {
            let mut shard = Shard::new(count, [poison]);
            shard.batch = batch;
            shard.run(10_000);
            shard.assert_all_settled();
            assert_eq!(shard.letters, [poison]);
            let most = count.min(batch).next_power_of_two().ilog2() + 3;
            assert!(shard.most_failures <= most, "{} of {count}/{batch}", shard.most_failures);
            assert!(!shard.parked);
        }
    }
}

#[test]
fn last_record_is_passed_by_the_daemon_once_all_before_it_is_stored() {
    for checkpoints in [0, 1] {
        let mut shard = Shard::new(8, [8]);
        shard.checkpoints = checkpoints;
        shard.run(1_000);
        shard.assert_all_settled();
        assert_eq!(shard.stored, if checkpoints == 0 { 0 } else { 8 });
    }
    let mut alone = Shard::new(2, [1, 2]);
    alone.run(1_000);
    assert_eq!((alone.stored, alone.letters), (2, vec![1, 2]));
}

#[test]
fn checkpoint_before_a_letter_passes_its_record() {
    let mut shard = Shard::new(4, [4]);
    shard.run(1_000);
    assert_eq!(shard.stored, 0, "the child has not checkpointed");
    // The restarted child gets the records before the letter again.
    shard.checkpoints = 1;
    let none: [usize; 0] = [];
    assert_eq!(shard.state.progress.passed(), 1, "{none:?}");
    shard.next = 1;
    shard.handle(Event::Batch(Batch {
        records: (1..=4).map(|number| Record::plain(number, "k", b"")).collect(),
        ..Batch::default()
    }));
    assert_eq!(shard.stored, 4);
    let mut again = |text: &str| {
        let request = CheckpointRequest { sequence_number: Some(text.to_owned()), sub_sequence_number: None };
        let effects = shard.state.on(
            shard.now,
            Event::Batch(Batch { records: vec![Record::plain(5, "k", b"")].into(), ..Batch::default() }),
        );
        assert!(matches!(effects[..], [Effect::Send(_)]), "{effects:?}");
        let event = multilang::Event::Said(session::Event::Checkpoint { request, early: false });
        shard.state.on(shard.now, Event::Child(event))
    };
    assert_eq!(again("3"), [Effect::Acknowledge(Ok(()))], "the position that the child knows");
}

#[test]
fn batches_are_gathered_within_the_window() {
    let mut shard = Shard::new(10, []);
    shard.batch = 2;
    shard.state.settings.shape.window = Some(Duration::from_secs(1));
    shard.run(1_000);
    shard.assert_all_settled();
    assert_eq!((shard.largest, shard.batches), (10, 1));
    let mut parts = Shard::new(10, []);
    parts.state.settings.shape.most = Some(4);
    parts.run(1_000);
    assert_eq!((parts.largest, parts.batches), (4, 3));
}

#[test]
fn outage_parks_the_shard_and_ends_with_it() {
    let mut shard = Shard::new(100, 1..=100);
    shard.checkpoints = 1;
    shard.run(2_000);
    assert_eq!(shard.letters, (1..=10).collect::<Vec<_>>());
    assert!(shard.parked);
    shard.bad.clear();
    shard.run(2_000);
    shard.assert_all_settled();
    assert_eq!(shard.letters.len(), 10);
    assert!(!shard.state.parked);
}

#[test]
fn checkpoints_within_failed_batches_are_no_outage() {
    let mut shard = Shard::new(60, (1..=30).map(|number| number * 2));
    (shard.batch, shard.checkpoints_good) = (60, true);
    shard.run(20_000);
    shard.assert_all_settled();
    assert_eq!((shard.letters.len(), shard.parked), (30, false));
}

#[test]
fn shard_waits_for_a_destination_that_rejects_letters() {
    let mut shard = Shard::new(10, [5]);
    shard.refuses = 1_000;
    shard.run(1_000);
    assert!(shard.letters.is_empty() && !shard.processed.contains(&6));
    let effects = shard.state.on(shard.now, Event::Stop);
    assert_eq!(effects.last(), Some(&Effect::Finish(Outcome::Stopped)));
}

#[test]
fn record_checkpointed_at_the_last_moment_gets_no_letter() {
    let mut shard = Shard::new(1, []);
    shard.state.settings.dead_letters = None;
    shard.state.suspects = Some(Suspects::new(Limits { record_failures: 1, in_a_row: 1 }));
    shard.state.on(shard.now, Event::Begin);
    shard.state.on(shard.now, Event::Spawned);
    let done = |action| Event::Child(multilang::Event::Said(session::Event::Done(action)));
    shard.state.on(shard.now, done(Action::Initialize));
    let records = vec![Record::plain(1, "k", b"")].into();
    shard.state.on(shard.now, Event::Batch(Batch { records, ..Batch::default() }));
    let request = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
    let asked = multilang::Event::Said(session::Event::Checkpoint { request, early: false });
    let effects = shard.state.on(shard.now, Event::Child(asked));
    let [Effect::Store(position)] = &effects[..] else { panic!("{effects:?}") };
    shard.state.on(shard.now, Event::Child(multilang::Event::Exited("exit code 1".to_owned())));
    let effects = shard.state.on(shard.now, Event::Stored(position.clone(), Ok(())));
    assert_eq!(effects, [], "no letter");
    let lost = shard.state.on(shard.now, Event::Stored(position.clone(), Err(held::Error::Lost)));
    assert!(lost.is_empty() || matches!(shard.state.phase, Phase::BackingOff(_)));
}

#[test]
fn failure_after_a_rejected_checkpoint_blames_no_record() {
    let mut shard = Shard::new(1, []);
    shard.state.on(shard.now, Event::Begin);
    shard.state.on(shard.now, Event::Spawned);
    let done = |action| Event::Child(multilang::Event::Said(session::Event::Done(action)));
    shard.state.on(shard.now, done(Action::Initialize));
    let records = vec![Record::plain(1, "k", b"")].into();
    shard.state.on(shard.now, Event::Batch(Batch { records, ..Batch::default() }));
    let request = CheckpointRequest { sequence_number: None, sub_sequence_number: None };
    let asked = multilang::Event::Said(session::Event::Checkpoint { request, early: false });
    let effects = shard.state.on(shard.now, Event::Child(asked));
    let [Effect::Store(position)] = &effects[..] else { panic!("{effects:?}") };
    let error = held::Error::Table(crate::lease::table::Error::Throttled("slow down".to_owned()));
    shard.state.on(shard.now, Event::Stored(position.clone(), Err(error)));
    let effects = shard.state.on(shard.now, Event::Child(multilang::Event::Exited("exit code 1".to_owned())));
    assert!(matches!(effects[..], [Effect::Failed(_, 1)]), "{effects:?}");
}

/// A shard whose first failure makes a record poison, and whose child has just received these records.
fn processing(count: usize) -> Shard {
    let mut shard = Shard::new(count, []);
    shard.state.suspects = Some(Suspects::new(Limits { record_failures: 1, in_a_row: 9 }));
    shard.state.on(shard.now, Event::Begin);
    shard.state.on(shard.now, Event::Spawned);
    let done = Event::Child(multilang::Event::Said(session::Event::Done(Action::Initialize)));
    shard.state.on(shard.now, done);
    let records = (1..=count).map(|number| Record::plain(number, "k", b"")).collect();
    shard.state.on(shard.now, Event::Batch(Batch { records, ..Batch::default() }));
    assert_eq!(shard.state.phase, Phase::Processing);
    shard
}

#[test]
fn child_that_survives_sigkill_is_abandoned_before_the_letter() {
    let mut shard = processing(1);
    let mut effects = shard.state.on(shard.now, Event::Child(multilang::Event::OutputClosed));
    while !effects.iter().any(|effect| matches!(effect, Effect::Letter(_))) {
        shard.now = shard.state.deadline().expect("a step of the stop");
        effects = shard.state.on(shard.now, Event::Deadline);
    }
    assert!(matches!(effects[..], [Effect::Abandon, Effect::Letter(_)]), "{effects:?}");
    let late = || {
        [multilang::Event::OutputClosed, multilang::Event::Exited("signal 9".to_owned())].map(Event::Child)
    };
    for event in late() {
        assert_eq!(shard.state.on(shard.now, event), [], "no second letter");
    }
    let at = Record::plain(1, "k", b"").position();
    let effects = shard.state.on(shard.now, Event::Lettered(at.clone(), Err("down".to_owned())));
    assert!(matches!(effects[..], [Effect::LetterRefused(..), ..]), "{effects:?}");
    for event in late() {
        assert_eq!(shard.state.on(shard.now, event), [], "the letter is written again in its time");
    }
    shard.now = shard.state.deadline().unwrap();
    assert!(matches!(shard.state.on(shard.now, Event::Deadline)[..], [Effect::Letter(_)]));
    let effects = shard.state.on(shard.now, Event::Lettered(at, Ok(())));
    assert!(matches!(effects[..], [Effect::Bisected, Effect::Store(_)]), "{effects:?}");
    for event in late() {
        assert_eq!(shard.state.on(shard.now, event), [], "its position is being stored");
    }
}

#[test]
fn undelivered_records_are_dropped_when_the_child_fails_or_the_lease_is_lost() {
    let started = || {
        let mut shard = Shard::new(4, []);
        shard.state.settings.shape.most = Some(1);
        shard.state.on(shard.now, Event::Begin);
        shard.state.on(shard.now, Event::Spawned);
        let done = Event::Child(multilang::Event::Said(session::Event::Done(Action::Initialize)));
        shard.state.on(shard.now, done);
        let records = (1..=4).map(|number| Record::plain(number, "k", b"")).collect();
        shard.state.on(shard.now, Event::Batch(Batch { records, ..Batch::default() }));
        assert!(shard.state.rest.is_some());
        shard
    };
    let mut failed = started();
    // A failure that blames no record.
    failed.state.has_rejected = true;
    failed.state.on(failed.now, Event::Child(multilang::Event::Exited("exit code 1".to_owned())));
    assert!(matches!(failed.state.phase, Phase::BackingOff(_)) && failed.state.rest.is_none());
    assert!(format!("{:?}", failed.state.suspects).contains("open: None"), "{:?}", failed.state.suspects);
    failed.now = failed.state.deadline().unwrap();
    let effects = failed.state.on(failed.now, Event::Deadline);
    assert_eq!(effects, [Effect::OpenFeed(Record::plain(1, "", b"").position().sequence), Effect::Spawn]);

    let mut lost = started();
    lost.state.on(lost.now, Event::LeaseLost);
    assert!(lost.state.rest.is_none());
}

#[test]
fn letter_of_another_record_passes_nothing() {
    let mut shard = processing(1);
    let exited = Event::Child(multilang::Event::Exited("exit code 1".to_owned()));
    let effects = shard.state.on(shard.now, exited);
    assert!(matches!(effects.last(), Some(Effect::Letter(_))), "{effects:?}");
    let other = Record::plain(7, "k", b"").position();
    for outcome in [Ok(()), Err("down".to_owned())] {
        assert_eq!(shard.state.on(shard.now, Event::Lettered(other.clone(), outcome)), []);
        assert_eq!((&shard.state.phase, shard.state.progress.passed()), (&Phase::Lettering, 0));
    }
    let own = Record::plain(1, "k", b"").position();
    let effects = shard.state.on(shard.now, Event::Lettered(own, Ok(())));
    assert!(matches!(effects[..], [Effect::Bisected, Effect::Store(_)]), "{effects:?}");
}

#[test]
fn known_good_records_are_delivered_again_within_max_batch_records() {
    let mut shard = Shard::new(40, [39]);
    shard.state.settings.shape.most = Some(3);
    shard.run(10_000);
    shard.assert_all_settled();
    assert_eq!((&shard.letters[..], shard.largest), (&[39][..], 3));
}

proptest! {
    #[test]
    fn every_record_is_processed_or_in_a_letter(
        seed in any::<u64>(), count in 1usize..60, bad in proptest::collection::btree_set(1usize..60, 0..8),
        batch in 1usize..40, checkpoints in 0usize..4, good in any::<bool>(), refuses in 0u32..600,
    ) {
        let mut shard = Shard::new(count, bad.iter().copied().filter(|bad| *bad <= count));
        (shard.batch, shard.checkpoints, shard.refuses) = (batch, checkpoints, refuses);
        shard.checkpoints_good = good;
        shard.random = fastrand::Rng::with_seed(seed);
        shard.run(20_000);
        shard.assert_all_settled();
        prop_assert_eq!(&shard.letters, &shard.bad.iter().copied().collect::<Vec<_>>());
        let most = count.min(batch).next_power_of_two().ilog2() + 3;
        prop_assert!(shard.most_failures <= most, "{} of {}/{}", shard.most_failures, count, batch);
        prop_assert!(!shard.parked);
    }

    #[test]
    fn shaped_batches_skip_nothing(
        seed in any::<u64>(), count in 1usize..60, bad in proptest::collection::btree_set(1usize..60, 0..4),
        batch in 1usize..20, checkpoints in 0usize..4, most in proptest::option::of(1usize..9),
        window in any::<bool>(), flaky in 0u32..200,
    ) {
        let mut shard = Shard::new(count, bad.iter().copied().filter(|bad| *bad <= count));
        (shard.batch, shard.checkpoints, shard.flaky) = (batch, checkpoints, flaky);
        shard.random = fastrand::Rng::with_seed(seed);
        let window = window.then_some(Duration::from_secs(1));
        shard.state.settings.shape = crate::consumer::event::Shape { most, window };
        shard.run(1_000);
        shard.flaky = 0;
        shard.run(20_000);
        shard.assert_all_settled();
        prop_assert!(shard.largest <= most.unwrap_or(count), "{} of {most:?}", shard.largest);
    }

    #[test]
    fn flaky_child_skips_nothing(
        seed in any::<u64>(), count in 1usize..40, bad in proptest::collection::btree_set(1usize..40, 0..4),
        batch in 1usize..40, checkpoints in 0usize..4, flaky in 0u32..400,
    ) {
        let mut shard = Shard::new(count, bad.iter().copied().filter(|bad| *bad <= count));
        (shard.batch, shard.checkpoints, shard.flaky) = (batch, checkpoints, flaky);
        shard.random = fastrand::Rng::with_seed(seed);
        shard.run(3_000);
        shard.flaky = 0;
        shard.run(20_000);
        shard.assert_all_settled();
    }
}
