//! The state of the worker and of each of its shards, for probes, for the status page, and as JSON.
//!
//! A stuck shard (its lease is held, work is pending, no progress) is distinguished from an idle one. The
//! decision is pure: [`condition`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use multilangd_protocol::Action;
use tokio::time::{Instant, MissedTickBehavior, interval};
use tracing::{info, warn};

use crate::budget::Budget;
use crate::clock;
use crate::config::Config;
use crate::metrics::Ending;
use crate::metrics::board::{Board, ByOperator, Totals};
use crate::shard::ShardId;

mod alarm;
mod fleet;
mod render;
pub mod server;
pub mod several;
mod summary;
mod watch;

use alarm::{Alarms, Line};
pub use render::Show;
use summary::Summary;
pub use watch::{Page, Taken, Watch};

/// Interval between checks for stuck shards.
const LOOK: Duration = Duration::from_secs(1);

/// Names that identify this worker.
#[derive(Debug, Clone)]
pub struct Identity {
    /// `workerId`.
    pub worker: String,
    /// `applicationName`.
    pub application: String,
    /// `streamName`.
    pub stream: String,
    /// The lease table.
    pub table: String,
}

/// The state to be shown.
#[derive(Debug, Clone)]
pub struct Subject {
    /// Names of the worker.
    pub identity: Identity,
    /// The state of its shards.
    pub board: Arc<Board>,
    /// Its record data in memory.
    pub budget: Arc<Budget>,
    /// A shard without progress for this long, although work is pending, is stuck.
    pub stuck_after: Duration,
    /// The wall clock, in milliseconds since 1970.
    pub wall: fn() -> i64,
    /// When the process started.
    pub started: Instant,
}

/// The condition of a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Condition {
    /// Waits for its parents to be finished, or for the start of its first child.
    Waiting,
    /// Nothing to do, by the last answer of Kinesis.
    Idle,
    /// The first read is in progress.
    Opening,
    /// The next read waits for memory.
    NoRoom,
    /// Reads fail at present.
    Failing,
    /// The child has an open action.
    Working,
    /// The child failed and is being restarted.
    Restarting,
    /// The child fails at one of several records, which is being searched.
    Bisecting,
    /// Work is pending but there was no progress for too long. The reason.
    Stuck(String),
    /// The child failed repeatedly and is restarted after a long pause. The reason.
    Parked(String),
    /// An operator has parked the shard, or paused the application. The order.
    ParkedByOperator(String),
    /// This worker has left the shard.
    Over(Ending),
}

impl Condition {
    /// The reason why there is no progress; none if the shard is neither stuck nor parked, by an operator or
    /// not.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Stuck(why) | Self::Parked(why) | Self::ParkedByOperator(why) => Some(why),
            Self::Waiting
            | Self::Idle
            | Self::Opening
            | Self::NoRoom
            | Self::Failing
            | Self::Working
            | Self::Restarting
            | Self::Bisecting
            | Self::Over(_) => None,
        }
    }

    /// The condition in one word.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Idle => "idle",
            Self::Opening => "opening",
            Self::NoRoom => "no room",
            Self::Failing => "failing",
            Self::Working => "working",
            Self::Restarting => "restarting",
            Self::Bisecting => "bisecting",
            Self::Stuck(_) => "stuck",
            Self::Parked(_) => "parked",
            Self::ParkedByOperator(_) => "parked by operator",
            Self::Over(ending) => ending.word(),
        }
    }
}

/// The condition of a shard at a time.
pub fn condition(totals: &Totals, now: Instant, stuck_after: Duration) -> Condition {
    if let Some(ending) = totals.over {
        return Condition::Over(ending);
    }
    if let Some(ByOperator { application, since, by }) = &totals.order {
        let (what, verb) = if *application { ("application paused", "resume") } else { ("parked", "unpark") };
        return Condition::ParkedByOperator(format!(
            "{what} by an operator since {} ({by}); multilangd leases FILE {verb} ends it",
            clock::utc(*since)
        ));
    }
    let lasts = |since: Option<Instant>| {
        let lasted = now.saturating_duration_since(since?);
        (lasted >= stuck_after).then_some(lasted.as_secs())
    };
    let last_failure = || {
        let Some((reason, stderr)) = &totals.failure else { return String::new() };
        let line = stderr.last().map(|line| format!(", {line:?}")).unwrap_or_default();
        format!("; last error: {reason}{line}")
    };
    if let Some(since) = totals.parked_since {
        let seconds = now.saturating_duration_since(totals.failing_since.unwrap_or(since)).as_secs();
        return Condition::Parked(format!(
            "record processor has been failing for {seconds} s{}",
            last_failure()
        ));
    }
    if let Some((since, reason)) = &totals.refused {
        let seconds = now.saturating_duration_since(*since).as_secs();
        return Condition::Stuck(format!("dead letter was rejected for {seconds} s: {reason}"));
    }
    if totals.bisecting.is_some() {
        return Condition::Bisecting;
    }
    if let Some((since, reason)) = &totals.shortage
        && let Some(seconds) = lasts(Some(*since))
    {
        return Condition::Stuck(format!("record processor could not be started for {seconds} s: {reason}"));
    }
    let failing = || {
        let seconds = lasts(totals.failing_since).unwrap_or_default();
        Condition::Stuck(format!("record processor has been failing for {seconds} s{}", last_failure()))
    };
    if let Some((action, since)) = totals.asked {
        return match lasts(Some(since)) {
            Some(seconds) => {
                let line = totals.stderr.read().pop();
                let line =
                    line.map(|line| format!("; its last line on stderr: {line:?}")).unwrap_or_default();
                Condition::Stuck(format!("record processor has not answered {action} for {seconds} s{line}"))
            }
            None if lasts(totals.failing_since).is_some() => failing(),
            None if action == Action::Initialize && totals.failing_since.is_some() => Condition::Restarting,
            None => Condition::Working,
        };
    }
    let failed = || if lasts(totals.failing_since).is_some() { failing() } else { Condition::Restarting };
    // A child that runs without an open action has answered: it replaced a failed one.
    if totals.pid.is_none() && totals.failing_since.is_some() {
        return failed();
    }
    if let Some(seconds) = lasts(totals.end_delayed_since) {
        return Condition::Stuck(format!(
            "the leases of its child shards could not be created for {seconds} s"
        ));
    }
    if let Some(seconds) = lasts(totals.unread_since) {
        let error = totals.read_error.as_ref().map(|(error, _)| format!("; last error: {error}"));
        let error = error.unwrap_or_default();
        return Condition::Stuck(format!("Kinesis could not be read for {seconds} s{error}"));
    }
    if let Some(seconds) = lasts(totals.room_since) {
        let key = "multilangd.bufferMegabytes";
        return Condition::Stuck(format!("the next response has waited for room in {key} for {seconds} s"));
    }
    if let (Some(seconds), Some(_)) = (lasts(totals.opening_since), totals.pid) {
        return Condition::Stuck(format!("reading could not be opened for {seconds} s"));
    }
    if totals.waiting > 0
        && let (Some(seconds), Some(_)) = (lasts(totals.moved), totals.pid)
    {
        return Condition::Stuck(format!("records are waiting, and none was delivered for {seconds} s"));
    }
    match totals.pid {
        None => Condition::Waiting,
        // Records that the previous child did not finish will be delivered again.
        Some(_) if totals.failing_since.is_some() && totals.is_unfinished() => failed(),
        Some(_) if totals.unread_since.is_some() => Condition::Failing,
        Some(_) if totals.room_since.is_some() => Condition::NoRoom,
        Some(_) if totals.opening_since.is_some() => Condition::Opening,
        Some(_) => Condition::Idle,
    }
}

impl Subject {
    /// The state of a worker with these settings, which limits its record data by `budget`.
    pub fn new(config: &Config, budget: Arc<Budget>) -> Self {
        Self {
            identity: Identity {
                worker: config.worker.to_string(),
                application: config.application.clone(),
                stream: config.stream.clone(),
                table: config.table.clone(),
            },
            board: Arc::new(Board::default()),
            budget,
            stuck_after: config.stuck_after,
            wall: clock::wall_millis,
            started: Instant::now(),
        }
    }

    fn conditions(&self, now: Instant) -> BTreeMap<ShardId, (Totals, Condition)> {
        let judge = |(shard, totals): (ShardId, Totals)| {
            let condition = condition(&totals, now, self.stuck_after);
            (shard, (totals, condition))
        };
        self.board.totals().into_iter().map(judge).collect()
    }

    /// Logs when shards become stuck, and when they make progress again.
    pub async fn watch(self) {
        let mut alarms = Alarms::default();
        let mut summary = Summary::new(Instant::now());
        let mut looks = interval(LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            let now = Instant::now();
            let conditions = self.conditions(now);
            summary.look(now, &conditions);
            for (shard, line) in
                alarms.look(now, conditions.iter().map(|(shard, (_, condition))| (shard, condition)))
            {
                let totals = conditions.get(&shard).map(|(totals, _)| totals);
                let pid = totals.and_then(|totals| totals.pid);
                match line {
                    Line::Stuck(reason) => warn!(event = "shard_stuck", %shard, pid, error = reason,
                        "shard is stuck"),
                    Line::Still(lasted, reason) => warn!(event = "shard_stuck", %shard, pid,
                        error = reason, ?lasted, "shard is still stuck"),
                    Line::Moves(lasted) => info!(event = "shard_unstuck", %shard, pid, ?lasted,
                        "shard is no longer stuck"),
                }
            }
        }
    }

    /// Why the worker is not ready; none if it is.
    pub fn unready(&self) -> Option<&'static str> {
        let worker = self.board.of_worker();
        match (worker.ready, worker.stopping) {
            (_, true) => Some("stopping"),
            (false, false) => Some("starting: the tables or the stream are not available yet"),
            (true, false) if worker.unread_for_long > 0 => {
                Some("no live worker reads some of the open shards")
            }
            (true, false) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::render::shard_json;
    use super::*;
    use crate::metrics::{OfShard, Sink as _};
    use crate::sequence::{Position, Sequence, SequenceNumber};

    const LIMIT: Duration = Duration::from_secs(60);

    fn after(seconds: u64, change: impl FnOnce(&mut Totals, Instant)) -> Condition {
        let start = Instant::now();
        let mut totals = Totals { pid: Some(7), moved: Some(start), ..Totals::default() };
        change(&mut totals, start);
        condition(&totals, start + Duration::from_secs(seconds), LIMIT)
    }

    #[test]
    fn stuck_shard_is_distinguished_from_an_idle_one() {
        assert_eq!(after(900, |_, _| {}), Condition::Idle, "nothing to do for a quarter of an hour");
        let busy = |totals: &mut Totals, start| totals.asked = Some((Action::ProcessRecords, start));
        assert_eq!(after(59, busy), Condition::Working);
        assert!(matches!(after(60, busy), Condition::Stuck(why) if why.contains("processRecords for 60 s")));
        let waiting = |totals: &mut Totals, _| totals.waiting = 5;
        assert_eq!(after(59, waiting), Condition::Idle);
        assert!(matches!(after(61, waiting), Condition::Stuck(why) if why.contains("records are waiting")));
    }

    #[test]
    fn lasting_failures_make_a_shard_stuck() {
        let failing = |totals: &mut Totals, start| {
            (totals.pid, totals.failing_since) = (None, Some(start));
        };
        assert_eq!(after(5, failing), Condition::Restarting);
        assert!(matches!(after(61, failing), Condition::Stuck(why) if why.contains("has been failing")));
        let unread = |totals: &mut Totals, start| totals.unread_since = Some(start);
        assert_eq!(after(5, unread), Condition::Failing);
        let opening = |totals: &mut Totals, start| totals.opening_since = Some(start);
        assert_eq!(after(5, opening), Condition::Opening);
        assert!(matches!(after(61, opening), Condition::Stuck(why) if why.contains("opened")));
        let waits = |totals: &mut Totals, start| totals.room_since = Some(start);
        assert_eq!(after(5, waits), Condition::NoRoom);
        assert!(matches!(after(61, waits), Condition::Stuck(why) if why.contains("room")));
        assert!(matches!(after(61, unread), Condition::Stuck(why) if why.contains("Kinesis")));
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_child_with_undelivered_records_is_not_idle() {
        let (board, shard) = (Board::default(), ShardId::from("s"));
        let now = || condition(&board.totals()[&shard], Instant::now(), LIMIT);
        let stored = Position::new(Sequence::TrimHorizon);
        board.shard(&shard, OfShard::Held { checkpoint: &stored });
        for times in 1..4 {
            board.shard(&shard, OfShard::ChildStarted { pid: 7 });
            let action = Action::Initialize;
            board.shard(&shard, OfShard::Answered { action, took: Duration::ZERO });
            let expected = ["idle", "restarting", "stuck"][times - 1];
            assert_eq!(now().word(), expected);
            let last = Position::new(Sequence::Number(SequenceNumber::parse("5").unwrap()));
            board.shard(&shard, OfShard::Delivered { records: 1, bytes: 1, last: &last, arrival: None });
            board.shard(&shard, OfShard::Asked(Action::ProcessRecords));
            board.shard(&shard, OfShard::ChildGone);
            board.shard(&shard, OfShard::failed(times.try_into().unwrap()));
            tokio::time::advance(LIMIT / 2 + Duration::from_secs(1)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn earlier_failures_without_records_do_not_count() {
        let (board, shard) = (Board::default(), ShardId::from("s"));
        let now = || condition(&board.totals()[&shard], Instant::now(), LIMIT);
        let number = |n: &str| Position::new(Sequence::Number(SequenceNumber::parse(n).unwrap()));
        board.shard(&shard, OfShard::Held { checkpoint: &number("4") });
        board.shard(&shard, OfShard::failed(1));
        board.shard(&shard, OfShard::ChildStarted { pid: 7 });
        tokio::time::advance(LIMIT * 100).await;
        assert_eq!(now(), Condition::Idle);
        let last = number("5");
        board.shard(&shard, OfShard::Delivered { records: 1, bytes: 1, last: &last, arrival: None });
        board.shard(&shard, OfShard::ChildGone);
        board.shard(&shard, OfShard::failed(2));
        assert_eq!(now(), Condition::Restarting);
        board.shard(&shard, OfShard::ChildStarted { pid: 8 });
        board.shard(
            &shard,
            OfShard::FetchFailed { took: None, error: "Kinesis rejected the request: AccessDenied" },
        );
        tokio::time::advance(LIMIT).await;
        assert!(
            matches!(now(), Condition::Stuck(why) if why.contains("Kinesis") && why.contains("AccessDenied")),
            "the reason is the reading"
        );
        let json = |totals: &Totals| shard_json(&shard, totals, &now(), Instant::now(), 0)["reads"].clone();
        let failing = json(&board.totals()[&shard]);
        assert_eq!(failing["lastError"], "Kinesis rejected the request: AccessDenied");
        assert_eq!(failing["failingSeconds"], LIMIT.as_secs());
        let fetched = OfShard::Fetched { records: 0, millis_behind_latest: None, took: None };
        board.shard(&shard, fetched);
        let read = json(&board.totals()[&shard]);
        assert_eq!((&read["lastError"], &read["failingSeconds"]), (&failing["lastError"], &Value::Null));
    }

    #[tokio::test(start_paused = true)]
    async fn restarted_child_without_work_is_idle() {
        let (board, shard) = (Board::default(), ShardId::from("s"));
        let now = || condition(&board.totals()[&shard], Instant::now(), LIMIT);
        let replaced = || {
            board.shard(&shard, OfShard::ChildGone);
            board.shard(&shard, OfShard::failed(1));
            assert_eq!(now(), Condition::Restarting);
            board.shard(&shard, OfShard::ChildStarted { pid: 7 });
            board.shard(&shard, OfShard::Asked(Action::Initialize));
            assert_eq!(now(), Condition::Restarting);
            let action = Action::Initialize;
            board.shard(&shard, OfShard::Answered { action, took: Duration::ZERO });
        };
        replaced();
        tokio::time::advance(LIMIT * 10).await;
        assert_eq!(now(), Condition::Idle);
        // The first failure of a new row is not as old as the row before.
        replaced();
        for times in 2..4 {
            tokio::time::advance(LIMIT / 2).await;
            board.shard(&shard, OfShard::ChildGone);
            board.shard(&shard, OfShard::failed(times));
        }
        assert!(matches!(now(), Condition::Stuck(why) if why.contains("has been failing")));
    }

    #[test]
    fn waiting_or_left_shard_is_not_stuck() {
        assert_eq!(after(900, |totals, _| totals.pid = None), Condition::Waiting);
        assert_eq!(
            after(900, |totals, _| (totals.over, totals.waiting) = (Some(Ending::Lost), 9)),
            Condition::Over(Ending::Lost)
        );
    }
}
