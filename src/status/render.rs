//! The state as JSON and in the Prometheus format.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::{Value, json};
use tokio::time::Instant;

use super::fleet::fleet_json;
use super::{Condition, Subject};
use crate::metrics::board::{Totals, Worker};
use crate::metrics::prometheus::{self, Scene};
use crate::shard::ShardId;
use crate::version;

/// The state that the status endpoint shows.
pub trait Show: fmt::Debug + Send + Sync {
    /// Why the process is not ready; none if it is.
    fn unready(&self) -> Option<String>;

    /// The state as one JSON object.
    fn json(&self) -> Value;

    /// The state in the Prometheus format.
    fn prometheus(&self) -> String;
}

/// The state of a worker at a time.
pub(super) struct Look {
    conditions: BTreeMap<ShardId, (Totals, Condition)>,
    worker: Worker,
    now: Instant,
    wall: i64,
}

impl Subject {
    pub(super) fn look(&self, now: Instant) -> Look {
        let (conditions, worker) = (self.conditions(now), self.board.of_worker());
        Look { conditions, worker, now, wall: (self.wall)() }
    }

    /// The state for Prometheus.
    pub(super) fn scene<'a>(&'a self, look: &'a Look) -> Scene<'a> {
        let shards =
            look.conditions.iter().map(|(shard, (totals, condition))| (shard, totals, condition.word()));
        Scene {
            version: version::VERSION,
            application: &self.identity.application,
            stream: &self.identity.stream,
            worker: &look.worker,
            held: look.conditions.values().filter(|(totals, _)| totals.over.is_none()).count(),
            shards: shards.collect(),
            buffer: self.budget.held(),
            uptime: look.now.saturating_duration_since(self.started),
            now: look.now,
            wall: look.wall,
            among: None,
        }
    }

    /// The state as one JSON object.
    pub fn json(&self) -> Value {
        let Look { conditions, worker, now, wall } = self.look(Instant::now());
        let shards: Vec<Value> = conditions
            .iter()
            .map(|(shard, (totals, condition))| shard_json(shard, totals, condition, now, wall))
            .collect();
        let Worker { stopping, looked, leases, workers, unread, leads, taken, endings, calls, fleet, .. } =
            worker;
        let calls = calls.iter().map(|((service, operation), calls)| {
            json!({
                "service": service, "operation": operation, "ok": calls.ok, "failed": calls.failed,
                "seconds": calls.took.sum().as_secs_f64(),
            })
        });
        json!({
            "worker": self.identity.worker,
            "application": self.identity.application,
            "stream": self.identity.stream,
            "table": self.identity.table,
            "version": version::VERSION,
            "uptimeSeconds": now.saturating_duration_since(self.started).as_secs(),
            "ready": self.unready().is_none(),
            "stopping": stopping,
            "leader": leads,
            "leasesInTable": leases,
            "shardsUnread": unread,
            "workersAlive": workers,
            "lookedSecondsAgo": looked.map(|at| now.saturating_duration_since(at).as_secs()),
            "leasesTaken": taken,
            "leasesLeft": endings,
            "bufferBytes": self.budget.held(),
            "calls": calls.collect::<Vec<_>>(),
            "shards": shards,
            "fleet": fleet.read().map(|fleet| fleet_json(&fleet, now)),
        })
    }
}

impl Show for Subject {
    fn unready(&self) -> Option<String> {
        Self::unready(self).map(str::to_owned)
    }

    fn json(&self) -> Value {
        Self::json(self)
    }

    fn prometheus(&self) -> String {
        let look = self.look(Instant::now());
        prometheus::write(&[self.scene(&look)])
    }
}

pub(super) fn shard_json(
    shard: &ShardId,
    totals: &Totals,
    condition: &Condition,
    now: Instant,
    wall: i64,
) -> Value {
    let ago = |at: Option<Instant>| at.map(|at| now.saturating_duration_since(at).as_secs());
    let age = |arrival: Option<i64>| arrival.map(|arrival| (wall - arrival).max(0) / 1_000);
    json!({
        "shard": shard.as_str(),
        "state": condition.word(),
        "reason": condition.reason(),
        "parkedByOperator": totals.order.as_ref().map(|order| json!({
            "application": order.application, "sinceMillis": order.since, "by": order.by,
        })),
        "held": totals.over.is_none(),
        "sinceSeconds": ago(totals.since),
        "childPid": totals.pid,
        "openAction": totals.asked.map(|(action, _)| action.name()),
        "openActionSeconds": ago(totals.asked.map(|(_, since)| since)),
        "secondsSinceProgress": ago(totals.moved),
        "millisBehindLatest": totals.millis_behind_latest,
        "uncheckpointedMillis": totals.over.is_none().then(|| totals.uncheckpointed_millis(now, wall)).flatten(),
        "recordsWaiting": totals.waiting,
        "delivered": {
            "records": totals.delivered, "bytes": totals.bytes, "batches": totals.batches,
            "position": totals.last.as_ref().map(ToString::to_string),
            "ageSeconds": age(totals.last_arrival),
            "recordsPerSecond": tenths(totals.record_rate.per_second(now)),
            "bytesPerSecond": totals.byte_rate.per_second(now).round(),
        },
        "checkpoint": {
            "stored": totals.checkpoints, "failed": totals.checkpoint_failures,
            "position": totals.checkpoint.as_ref().map(ToString::to_string),
            "ageSeconds": age(totals.pending.checkpointed_arrival()),
        },
        "child": {
            "starts": totals.starts, "failures": totals.failures, "answers": totals.answers,
            "busySeconds": totals.in_child.as_secs_f64(),
            "lastFailure": totals.failure.as_ref().map(|(reason, _)| reason),
            "lastStderr": totals.failure.as_ref().map(|(_, stderr)| stderr),
        },
        "deadLetters": {
            "written": totals.dead_letters, "failed": totals.letter_failures,
            "bisectedRecords": totals.bisecting.map(|(_, records)| records),
            "last": totals.dead_letter.as_ref().map(|(position, error, at)| json!({
                "position": position.to_string(), "error": error, "secondsAgo": ago(Some(*at)),
            })),
        },
        "reads": {
            "ok": totals.fetches, "failed": totals.fetch_failures, "failingSeconds": ago(totals.unread_since),
            "lastError": totals.read_error.as_ref().map(|(error, _)| error),
            "lastErrorSecondsAgo": ago(totals.read_error.as_ref().map(|(_, at)| *at)),
        },
        "lastError": totals.last_error.as_ref().map(|(error, at)| json!({
            "error": error, "secondsAgo": ago(Some(*at)),
        })),
        "droppedRecords": totals.dropped,
        "oldRecords": totals.aged,
    })
}

/// A rate, to a tenth.
fn tenths(rate: f64) -> f64 {
    (rate * 10.0).round() / 10.0
}
