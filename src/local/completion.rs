//! `--exit-when-done`: decides from the records put and the stored checkpoints whether a run is done or has
//! failed. The decision is pure: [`Judge::decide`].

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::metrics::Totals;
use crate::sequence::{Position, Sequence, SequenceNumber};
use crate::shard::ShardId;

/// Most shards that a message lists.
const LISTED: usize = 5;

/// The last record that was put to a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Last {
    /// Its line in the input.
    line: u64,
    sequence: SequenceNumber,
}

/// The records of `--put` that Kinesis has acknowledged.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Puts {
    shards: BTreeMap<ShardId, Last>,
    records: u64,
    is_complete: bool,
}

impl Puts {
    /// Notes a record: its shard, its line in the input, and its sequence number.
    pub fn note(&mut self, shard: ShardId, line: u64, sequence: SequenceNumber) {
        self.records += 1;
        let last = self.shards.entry(shard).or_insert_with(|| Last { line, sequence: sequence.clone() });
        if sequence.order(&last.sequence).is_gt() {
            *last = Last { line, sequence };
        }
    }

    /// Notes the end of the input.
    pub fn complete(&mut self) {
        self.is_complete = true;
    }

    /// Number of records put.
    pub fn records(&self) -> u64 {
        self.records
    }
}

/// Locks shared [`Puts`].
pub fn lock(puts: &Mutex<Puts>) -> MutexGuard<'_, Puts> {
    // No code under this lock panics between two dependent changes.
    puts.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The next step of a run with `--exit-when-done`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Records are to be put, delivered or checkpointed.
    Wait,
    /// The input has ended, and every record put is checkpointed.
    Done,
    /// It ends with an error: the reason.
    Failed(String),
}

/// Decides when a run is done.
#[derive(Debug)]
pub struct Judge {
    /// `--exit-timeout`.
    timeout: Duration,
    /// The highest checkpoint seen of each shard with records. A finished shard may have no lease any more.
    stored: BTreeMap<ShardId, Position>,
    /// When a checkpoint was last stored, or when records first lacked one; none while none lacks one.
    moved: Option<Instant>,
}

impl Judge {
    /// Fails after this long without a checkpoint.
    pub fn new(timeout: Duration) -> Self {
        Self { timeout, stored: BTreeMap::new(), moved: None }
    }

    /// Shards that lack a checkpoint and whose lease this worker does not hold: only the lease table has their
    /// checkpoints.
    pub fn has_foreign(&self, puts: &Puts, totals: &BTreeMap<ShardId, Totals>) -> bool {
        let is_held = |shard| totals.get(shard).is_some_and(|totals| totals.over.is_none());
        self.lacking(puts).any(|(shard, _)| !is_held(shard))
    }

    /// Decides. `leases` has the checkpoints of the lease table, if they were read.
    pub fn decide(
        &mut self,
        now: Instant,
        puts: &Puts,
        totals: &BTreeMap<ShardId, Totals>,
        leases: &BTreeMap<ShardId, Position>,
    ) -> Decision {
        let parked = totals.iter().find(|(_, totals)| totals.parked_since.is_some());
        if let Some((shard, totals)) = parked {
            let cause = cause(totals).unwrap_or_else(|| "unknown cause".to_owned());
            return Decision::Failed(format!(
                "record processor of {shard} failed too many times in a row (multilangd.maxChildFailures), its \
                 shard is parked: {cause}"
            ));
        }
        let mut has_moved = false;
        for shard in puts.shards.keys() {
            let of_worker = totals.get(shard).and_then(|totals| {
                if totals.ended() { Some(Position::shard_end()) } else { totals.checkpoint.clone() }
            });
            for position in of_worker.into_iter().chain(leases.get(shard).cloned()) {
                has_moved |= self.raise(shard, position);
            }
        }
        if self.lacking(puts).next().is_none() {
            self.moved = None;
            return if puts.is_complete { Decision::Done } else { Decision::Wait };
        }
        let moved = if has_moved { now } else { self.moved.unwrap_or(now) };
        self.moved = Some(moved);
        if now.saturating_duration_since(moved) < self.timeout {
            return Decision::Wait;
        }
        let (seconds, lacks) = (self.timeout.as_secs(), self.lacks(puts, totals));
        Decision::Failed(format!("no checkpoint was stored for {seconds} s (--exit-timeout): {lacks}"))
    }

    /// Why the run is not done: lists the shards that lack a checkpoint. None if it is done.
    pub fn unfinished(&self, puts: &Puts, totals: &BTreeMap<ShardId, Totals>) -> Option<String> {
        if self.lacking(puts).next().is_some() {
            return Some(self.lacks(puts, totals));
        }
        (!puts.is_complete).then(|| "the input has not ended".to_owned())
    }

    /// Whether the position is above the known one.
    fn raise(&mut self, shard: &ShardId, position: Position) -> bool {
        let is_higher = self.stored.get(shard).is_none_or(|known| position.order(known).is_gt());
        if is_higher {
            self.stored.insert(shard.clone(), position);
        }
        is_higher
    }

    fn lacking<'a>(&'a self, puts: &'a Puts) -> impl Iterator<Item = (&'a ShardId, &'a Last)> {
        puts.shards.iter().filter(|(shard, last)| {
            let wanted = Position::record(last.sequence.clone(), 0);
            self.stored.get(*shard).is_none_or(|stored| stored.order(&wanted).is_lt())
        })
    }

    fn lacks(&self, puts: &Puts, totals: &BTreeMap<ShardId, Totals>) -> String {
        let mut listed = Vec::new();
        let mut has_latest = false;
        for (shard, Last { line, sequence }) in self.lacking(puts).take(LISTED) {
            let stored = self.stored.get(shard);
            has_latest |= stored.is_some_and(|stored| stored.sequence == Sequence::Latest);
            let stored = stored.map_or_else(|| "none".to_owned(), ToString::to_string);
            let cause = totals.get(shard).filter(|totals| totals.failing_since.is_some()).and_then(cause);
            let cause = cause.map(|cause| format!("; last error: {cause}")).unwrap_or_default();
            listed.push(format!(
                "{shard} lacks a checkpoint at line {line}, sequence number {sequence} (stored checkpoint: \
                 {stored}{cause})"
            ));
        }
        let more = self.lacking(puts).count() - listed.len();
        if more > 0 {
            listed.push(format!("and {more} more shards"));
        }
        let hint = if has_latest {
            "initialPositionInStream = LATEST skips records that were put before the start; set TRIM_HORIZON"
        } else {
            "the record processor must checkpoint after its last record"
        };
        format!("{} ({hint})", listed.join(", "))
    }
}

/// The last failure of a shard's record processor, and its last line on stderr.
fn cause(totals: &Totals) -> Option<String> {
    let (reason, stderr) = totals.failure.as_ref()?;
    let line = stderr.last().map(|line| format!("; its last line on stderr: {line:?}"));
    Some(format!("{reason}{}", line.unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ending;

    const LIMIT: Duration = Duration::from_secs(60);

    fn number(number: u64) -> SequenceNumber {
        SequenceNumber::parse(&number.to_string()).unwrap()
    }

    fn at(sequence: u64) -> Position {
        Position::record(number(sequence), 0)
    }

    /// Line 1 in shard a, lines 2 and 3 in shard b.
    fn puts(is_complete: bool) -> Puts {
        let mut puts = Puts { is_complete, ..Puts::default() };
        puts.note("a".into(), 1, number(10));
        puts.note("b".into(), 3, number(30));
        puts.note("b".into(), 2, number(20));
        puts
    }

    fn totals(checkpoints: &[(&str, Position)]) -> BTreeMap<ShardId, Totals> {
        let of = |(shard, checkpoint): &(&str, Position)| {
            (ShardId::from(*shard), Totals { checkpoint: Some(checkpoint.clone()), ..Totals::default() })
        };
        checkpoints.iter().map(of).collect()
    }

    struct Run(Judge, Instant);

    impl Run {
        fn new() -> Self {
            Self(Judge::new(LIMIT), Instant::now())
        }

        fn after(&mut self, seconds: u64, puts: &Puts, totals: &BTreeMap<ShardId, Totals>) -> Decision {
            self.0.decide(self.1 + Duration::from_secs(seconds), puts, totals, &BTreeMap::new())
        }
    }

    #[test]
    fn run_is_done_once_the_input_ended_and_all_is_checkpointed() {
        let mut run = Run::new();
        // A third shard without records is not awaited.
        let beginning = ("c", Position::new(Sequence::TrimHorizon));
        let behind = totals(&[("a", at(10)), ("b", at(20)), beginning.clone()]);
        let all = totals(&[("a", at(10)), ("b", at(30)), beginning]);
        assert_eq!(run.after(0, &puts(true), &behind), Decision::Wait);
        assert_eq!(run.after(0, &puts(false), &all), Decision::Wait);
        assert_eq!(run.after(0, &puts(true), &all), Decision::Done);
        assert_eq!(run.0.unfinished(&puts(true), &all), None);
        assert_eq!(run.0.unfinished(&puts(false), &all).unwrap(), "the input has not ended");
        let nothing = Puts { is_complete: true, ..Puts::default() };
        assert_eq!(Run::new().after(0, &nothing, &BTreeMap::new()), Decision::Done);
    }

    #[test]
    fn finished_shard_stays_checkpointed_after_its_lease_is_gone() {
        let mut run = Run::new();
        let mut all = totals(&[("a", at(10)), ("b", at(20))]);
        all.get_mut(&ShardId::from("b")).unwrap().over = Some(Ending::ShardEnded);
        assert_eq!(run.after(0, &puts(false), &all), Decision::Wait);
        assert_eq!(run.after(0, &puts(true), &BTreeMap::new()), Decision::Done);
    }

    #[test]
    fn checkpoint_of_another_worker_counts() {
        let mut judge = Judge::new(LIMIT);
        let (puts, mine) = (puts(true), totals(&[("a", at(10))]));
        let leases = BTreeMap::from([(ShardId::from("b"), at(30))]);
        assert_eq!(judge.decide(Instant::now(), &puts, &mine, &BTreeMap::new()), Decision::Wait);
        assert!(judge.has_foreign(&puts, &mine));
        assert_eq!(judge.decide(Instant::now(), &puts, &mine, &leases), Decision::Done);
        assert!(!judge.has_foreign(&puts, &mine));
    }

    #[test]
    fn run_fails_without_checkpoints_for_the_timeout() {
        let mut run = Run::new();
        let mut puts = puts(true);
        let first = totals(&[("a", Position::new(Sequence::TrimHorizon)), ("b", at(20))]);
        assert_eq!(run.after(0, &puts, &first), Decision::Wait);
        assert_eq!(run.after(59, &puts, &first), Decision::Wait);
        let second = totals(&[("a", Position::new(Sequence::TrimHorizon)), ("b", at(30))]);
        assert_eq!(run.after(59, &puts, &second), Decision::Wait);
        // Records put meanwhile are no progress.
        puts.note("a".into(), 4, number(40));
        assert_eq!(run.after(118, &puts, &second), Decision::Wait);
        let Decision::Failed(why) = run.after(119, &puts, &second) else { panic!() };
        for part in
            ["60 s (--exit-timeout)", "a lacks a checkpoint at line 4, sequence number 40", "TRIM_HORIZON"]
        {
            assert!(why.contains(part), "{why}");
        }
        assert!(!why.contains("b lacks"), "{why}");
    }

    #[test]
    fn quiet_input_is_awaited_for_longer_than_the_timeout() {
        let mut run = Run::new();
        let (mut puts, all) = (puts(false), totals(&[("a", at(10)), ("b", at(30))]));
        assert_eq!(run.after(0, &puts, &all), Decision::Wait);
        assert_eq!(run.after(900, &puts, &all), Decision::Wait);
        puts.note("a".into(), 4, number(40));
        assert_eq!(run.after(901, &puts, &all), Decision::Wait, "the timeout starts with the record");
        assert!(matches!(run.after(961, &puts, &all), Decision::Failed(_)));
    }

    #[test]
    fn initial_position_latest_is_named_as_the_cause() {
        let mut run = Run::new();
        let all = totals(&[("a", Position::new(Sequence::Latest)), ("b", at(30))]);
        assert_eq!(run.after(0, &puts(true), &all), Decision::Wait);
        let failed = run.after(60, &puts(true), &all);
        assert!(matches!(failed, Decision::Failed(why) if why.contains("initialPositionInStream")));
    }

    #[test]
    fn parked_shard_fails_the_run_at_once() {
        let mut all = totals(&[("a", at(10)), ("b", at(20))]);
        let parked = all.get_mut(&ShardId::from("b")).unwrap();
        parked.parked_since = Some(Instant::now());
        parked.failure =
            Some(("exit code 1".to_owned(), vec!["Traceback".to_owned(), "ValueError: x".to_owned()]));
        let Decision::Failed(why) = Run::new().after(0, &puts(false), &all) else { panic!() };
        assert!(why.contains("record processor of b") && why.contains("exit code 1"), "{why}");
        assert!(why.ends_with("\"ValueError: x\""), "{why}");
    }
}
