//! Two INFO lines that sum up the worker, in place of one line for each shard: how many record processors were
//! started since the last look, and once a minute how the worker is doing.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;
use tracing::info;

use super::Condition;
use crate::metrics::board::Totals;
use crate::shard::ShardId;

/// The period of the summary line.
const PERIOD: Duration = Duration::from_secs(60);

/// The state at the last summary.
#[derive(Debug)]
pub(super) struct Summary {
    /// Held shards whose record processor was started.
    started: usize,
    /// Records delivered, all shards together.
    delivered: u64,
    at: Instant,
}

/// The contents of the summary line.
#[derive(Debug, PartialEq)]
struct Minute<'a> {
    shards: usize,
    records_per_second: f64,
    /// The held shard that is furthest behind the tip, with its `millisBehindLatest`.
    furthest: Option<(&'a ShardId, i64)>,
    stuck: usize,
    parked: usize,
    /// Shards that an operator has parked.
    by_operator: usize,
}

impl Summary {
    pub(super) fn new(now: Instant) -> Self {
        Self { started: 0, delivered: 0, at: now }
    }

    /// Logs what is due.
    pub(super) fn look(&mut self, now: Instant, shards: &BTreeMap<ShardId, (Totals, Condition)>) {
        let running = shards.values().filter(|(totals, _)| totals.pid.is_some()).count();
        if let Some(count) = self.started(shards) {
            info!(
                event = "processors_started",
                running,
                "started {count} record {}",
                if count == 1 { "processor" } else { "processors" }
            );
        }
        if let Some(minute) = self.minute(now, shards) {
            let Minute { shards, records_per_second, furthest, stuck, parked, by_operator } = minute;
            let (furthest_behind, behind_millis) =
                furthest.map(|(shard, millis)| (shard.as_str(), millis)).unzip();
            info!(
                event = "worker_summary",
                shards,
                records_per_second,
                behind_millis,
                furthest_behind,
                stuck,
                parked,
                parked_by_operator = by_operator,
                "summary of the last minute"
            );
        }
    }

    /// How many more held shards have a record processor than at the last look. One that is restarted is no other.
    fn started(&mut self, shards: &BTreeMap<ShardId, (Totals, Condition)>) -> Option<usize> {
        let has = |totals: &Totals| totals.pid.is_some() || totals.failing_since.is_some();
        let started = shards.values().filter(|(totals, _)| totals.over.is_none() && has(totals)).count();
        let before = std::mem::replace(&mut self.started, started);
        started.checked_sub(before).filter(|count| *count > 0)
    }

    /// The summary, once a minute, while the worker holds a shard.
    fn minute<'a>(
        &mut self,
        now: Instant,
        shards: &'a BTreeMap<ShardId, (Totals, Condition)>,
    ) -> Option<Minute<'a>> {
        let lasted = now.saturating_duration_since(self.at);
        if lasted < PERIOD {
            return None;
        }
        self.at = now;
        let delivered = shards.values().map(|(totals, _)| totals.delivered).sum::<u64>();
        // A shard that this worker left long ago is forgotten, and its records with it.
        let records = delivered.saturating_sub(std::mem::replace(&mut self.delivered, delivered));
        let held = || shards.iter().filter(|(_, (totals, _))| totals.over.is_none());
        let count = |is: fn(&Condition) -> bool| held().filter(|(_, (_, condition))| is(condition)).count();
        let behind = held().filter_map(|(shard, (totals, _))| Some((shard, totals.millis_behind_latest?)));
        let shards = held().count();
        (shards > 0).then(|| Minute {
            shards,
            records_per_second: (tenths(records, lasted)) / 10.0,
            furthest: behind.max_by_key(|(_, millis)| *millis),
            stuck: count(|condition| matches!(condition, Condition::Stuck(_))),
            parked: count(|condition| matches!(condition, Condition::Parked(_))),
            by_operator: count(|condition| matches!(condition, Condition::ParkedByOperator(_))),
        })
    }
}

/// Tenths of a record per second, as a whole number.
#[expect(clippy::cast_precision_loss, reason = "a rate for people")]
fn tenths(records: u64, lasted: Duration) -> f64 {
    (records as f64 * 10.0 / lasted.as_secs_f64()).round()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ending;

    fn shard(name: &str, totals: Totals, condition: Condition) -> (ShardId, (Totals, Condition)) {
        (ShardId::from(name), (totals, condition))
    }

    #[tokio::test(start_paused = true)]
    async fn summary_counts_starts_and_the_records_of_a_minute() {
        let start = Instant::now();
        let mut summary = Summary::new(start);
        let totals = |delivered, behind| Totals {
            delivered,
            starts: 1,
            pid: Some(7),
            millis_behind_latest: Some(behind),
            ..Totals::default()
        };
        let over = Totals { over: Some(Ending::Lost), ..totals(0, 9_000) };
        let shards = BTreeMap::from([
            shard("a", totals(90, 10), Condition::Working),
            shard("b", totals(33, 500), Condition::Stuck("x".to_owned())),
            shard("c", over, Condition::Over(Ending::Lost)),
            shard("d", Totals::default(), Condition::ParkedByOperator("x".to_owned())),
        ]);
        assert_eq!((summary.started(&shards), summary.started(&shards)), (Some(2), None));
        assert_eq!(summary.minute(start + PERIOD / 2, &shards), None);
        let furthest = ShardId::from("b");
        let expected = Minute {
            shards: 3,
            records_per_second: 2.1,
            furthest: Some((&furthest, 500)),
            stuck: 1,
            parked: 0,
            by_operator: 1,
        };
        assert_eq!(summary.minute(start + PERIOD, &shards), Some(expected));
        let later = summary.minute(start + PERIOD * 2, &shards).unwrap();
        assert_eq!(later.records_per_second, 0.0);
        assert_eq!(summary.minute(start + PERIOD * 3, &BTreeMap::new()), None, "nothing is held");
    }
}
