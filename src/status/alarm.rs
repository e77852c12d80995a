//! Decides which changes of a shard's condition are logged: it becomes stuck, stays stuck, or makes progress
//! again.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use super::Condition;
use crate::shard::ShardId;

/// Interval between log lines about a shard that stays stuck or parked.
const REMIND: Duration = Duration::from_secs(600);

/// A log line about a shard.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Line {
    /// The shard became stuck. The reason.
    Stuck(String),
    /// The shard has been stuck or parked for this long. The reason.
    Still(Duration, String),
    /// The shard makes progress again after this long.
    Moves(Duration),
}

#[derive(Debug)]
struct Trouble {
    since: Instant,
    reported: Instant,
    /// Whether the shard is parked, which is logged where it happens.
    parked: bool,
}

/// The stuck and parked shards, as of the last check.
#[derive(Debug, Default)]
pub(super) struct Alarms(BTreeMap<ShardId, Trouble>);

impl Alarms {
    /// The log lines that are due.
    pub(super) fn look<'a>(
        &mut self,
        now: Instant,
        conditions: impl Iterator<Item = (&'a ShardId, &'a Condition)>,
    ) -> Vec<(ShardId, Line)> {
        let mut before = std::mem::take(&mut self.0);
        let mut lines = Vec::new();
        for (shard, condition) in conditions {
            let parked = matches!(condition, Condition::Parked(_));
            let known = before.remove(shard);
            let is_ordered = matches!(condition, Condition::ParkedByOperator(_));
            let Some(reason) = condition.reason().filter(|_| !is_ordered) else {
                // A shard that this worker has left, or an operator has parked, does not make progress here.
                let left = is_ordered || matches!(condition, Condition::Over(_));
                if let Some(was) = known.filter(|was| !was.parked && !left) {
                    lines.push((shard.clone(), Line::Moves(now.saturating_duration_since(was.since))));
                }
                continue;
            };
            let mut trouble = known.unwrap_or_else(|| {
                if !parked {
                    lines.push((shard.clone(), Line::Stuck(reason.to_owned())));
                }
                Trouble { since: now, reported: now, parked }
            });
            if now.saturating_duration_since(trouble.reported) >= REMIND {
                trouble.reported = now;
                let lasted = now.saturating_duration_since(trouble.since);
                lines.push((shard.clone(), Line::Still(lasted, reason.to_owned())));
            }
            trouble.parked = parked;
            self.0.insert(shard.clone(), trouble);
        }
        lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ending;

    fn stuck() -> Condition {
        Condition::Stuck("why".to_owned())
    }

    /// The seconds at which lines are due, with the line, for conditions that hold from the given seconds on.
    fn lines(changes: &[(u64, Condition)], seconds: u64) -> Vec<(u64, Line)> {
        let (mut alarms, start, shard) = (Alarms::default(), Instant::now(), ShardId::from("s"));
        let mut lines = Vec::new();
        for second in 0..seconds {
            let now = start + Duration::from_secs(second);
            let condition = &changes.iter().rev().find(|(from, _)| *from <= second).unwrap().1;
            let due = alarms.look(now, [(&shard, condition)].into_iter());
            lines.extend(due.into_iter().map(|(_, line)| (second, line)));
        }
        lines
    }

    #[test]
    fn stuck_shard_is_logged_with_reminders_and_recovery() {
        let changes = [(0, Condition::Idle), (10, stuck()), (1_300, Condition::Working)];
        let seconds = Duration::from_secs;
        assert_eq!(
            lines(&changes, 2_000),
            [
                (10, Line::Stuck("why".to_owned())),
                (610, Line::Still(seconds(600), "why".to_owned())),
                (1_210, Line::Still(seconds(1_200), "why".to_owned())),
                (1_300, Line::Moves(seconds(1_290))),
            ]
        );
    }

    #[test]
    fn parked_shard_is_logged_only_as_a_reminder() {
        let changes = [(0, Condition::Parked("why".to_owned())), (700, Condition::Idle)];
        assert_eq!(lines(&changes, 800), [(600, Line::Still(Duration::from_secs(600), "why".to_owned()))]);
    }

    #[test]
    fn shard_parked_by_an_operator_is_no_alarm() {
        let ordered = Condition::ParkedByOperator("why".to_owned());
        let changes = [(0, stuck()), (5, ordered.clone()), (1_000, Condition::Idle), (1_100, ordered)];
        assert_eq!(lines(&changes, 3_000), [(0, Line::Stuck("why".to_owned()))]);
    }

    #[test]
    fn left_shard_is_not_logged_as_recovered() {
        let changes = [(0, stuck()), (5, Condition::Over(Ending::Lost))];
        assert_eq!(lines(&changes, 20), [(0, Line::Stuck("why".to_owned()))]);
    }
}
