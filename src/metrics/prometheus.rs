//! Renders the state for Prometheus, in the text exposition format 0.0.4.
//!
//! [`FAMILIES`] is the table of all metrics; a test compares the README with it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Totals, Worker};
use crate::shard::ShardId;

/// A metric.
#[derive(Debug)]
pub struct Family {
    /// Name, with the unit.
    pub name: &'static str,
    /// Whether it is a counter; otherwise a gauge.
    pub counter: bool,
    /// Label names.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
    of: Of,
}

/// How the values are computed.
#[derive(Clone, Copy)]
enum Of {
    Worker(fn(&Scene<'_>) -> Option<f64>),
    Shard(fn(&Totals, &Scene<'_>) -> Option<f64>),
    /// 1 for the present state of each shard.
    Condition,
    Endings,
    Calls(fn(&super::board::Calls) -> f64),
    CallsBy,
    Info,
}

impl fmt::Debug for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Of")
    }
}

/// The state to render.
#[derive(Debug)]
pub struct Scene<'a> {
    /// Version of the program.
    pub version: &'a str,
    /// `applicationName`.
    pub application: &'a str,
    /// `streamName`.
    pub stream: &'a str,
    /// State of the worker.
    pub worker: &'a Worker,
    /// State of each shard, with the word for its condition.
    pub shards: Vec<(&'a ShardId, &'a Totals, &'a str)>,
    /// Number of leases held.
    pub held: usize,
    /// Bytes of record data in memory.
    pub buffer: usize,
    /// Time since the start of the process.
    pub uptime: Duration,
    /// Now.
    pub now: Instant,
    /// Now, in milliseconds since 1970.
    pub wall: i64,
}

const SHARD: &[&str] = &["shard"];

/// All metrics, in the order in which they are written.
#[rustfmt::skip]
pub const FAMILIES: &[Family] = &[
    Family { name: "multilangd_build_info", counter: false, labels: &["application", "stream", "version"], of: Of::Info,
        help: "Always 1; its labels identify the application, the stream and the version." },
    Family { name: "multilangd_uptime_seconds", counter: false, labels: &[], of: Of::Worker(|s| Some(s.uptime.as_secs_f64())),
        help: "Seconds since the daemon started." },
    Family { name: "multilangd_ready", counter: false, labels: &[], of: Of::Worker(|s| Some(flag(s.worker.ready && !s.worker.stopping))),
        help: "1 if the tables exist and the worker acquires leases, else 0." },
    Family { name: "multilangd_leases_held", counter: false, labels: &[], of: Of::Worker(|s| Some(count(s.held))),
        help: "Leases that this worker holds." },
    Family { name: "multilangd_leases", counter: false, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|_| count(s.worker.leases))),
        help: "Leases of unfinished shards in the lease table." },
    Family { name: "multilangd_shards_unread", counter: false, labels: &[], of: Of::Worker(|s| s.worker.unread.map(count)),
        help: "Open shards of the stream that no live worker reads, on the worker that audits the leases; absent on the others." },
    Family { name: "multilangd_shards_parked", counter: false, labels: &[], of: Of::Worker(|s| Some(count(s.shards.iter().filter(|(_, totals, _)| totals.parked_since.is_some()).count()))),
        help: "Parked shards of this worker: their record processors failed too many times in a row and are restarted after long pauses." },
    Family { name: "multilangd_shards_parked_by_operator", counter: false, labels: &[], of: Of::Worker(|s| Some(count(s.shards.iter().filter(|(_, totals, _)| totals.order.is_some()).count()))),
        help: "Shards of this worker that an operator has parked, or paused with their application (multilangd leases)." },
    Family { name: "multilangd_workers", counter: false, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|_| count(s.worker.workers))),
        help: "Live workers, including this one." },
    Family { name: "multilangd_table_age_seconds", counter: false, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|at| s.now.saturating_duration_since(at).as_secs_f64())),
        help: "Seconds since the last successful scan or query of the lease table; more than a few failover times mean that DynamoDB is not reachable." },
    Family { name: "multilangd_leader", counter: false, labels: &[], of: Of::Worker(|s| Some(flag(s.worker.leads))),
        help: "1 if this worker is the leader, else 0." },
    Family { name: "multilangd_leases_taken_total", counter: true, labels: &[], of: Of::Worker(|s| Some(number(s.worker.taken))),
        help: "Leases that this worker has acquired." },
    Family { name: "multilangd_leases_left_total", counter: true, labels: &["how"], of: Of::Endings,
        help: "Leases that this worker no longer holds, by reason: ended (the shard ended), released, handed off (graceful handoff), lost, hopeless (its record processor failed for good)." },
    Family { name: "multilangd_buffer_bytes", counter: false, labels: &[], of: Of::Worker(|s| Some(count(s.buffer))),
        help: "Bytes of record data in memory, limited by multilangd.bufferMegabytes." },
    Family { name: "multilangd_calls_total", counter: true, labels: &["service", "operation", "outcome"], of: Of::CallsBy,
        help: "Calls of AWS services, each attempt counted, by outcome: ok or failed." },
    Family { name: "multilangd_call_seconds_total", counter: true, labels: &["service", "operation"], of: Of::Calls(|calls| calls.took.as_secs_f64()),
        help: "Seconds that calls of AWS services took." },
    Family { name: "multilangd_shard_state", counter: false, labels: &["shard", "state"], of: Of::Condition,
        help: "1 for the current state of the shard: waiting, opening, idle, working, no room, failing, restarting, bisecting, stuck, parked, parked by operator, ended, released, handed off, lost, hopeless." },
    Family { name: "multilangd_shard_behind_latest_seconds", counter: false, labels: SHARD, of: Of::Shard(|t, _| held(t).and(t.millis_behind_latest.map(seconds))),
        help: "Seconds that the last response of Kinesis was behind the tip of the shard." },
    Family { name: "multilangd_shard_delivered_age_seconds", counter: false, labels: SHARD, of: Of::Shard(|t, s| held(t).and(age(t.last_arrival, s))),
        help: "Seconds since the last delivered record arrived in Kinesis." },
    Family { name: "multilangd_shard_checkpointed_age_seconds", counter: false, labels: SHARD, of: Of::Shard(|t, s| held(t).and(age(t.checkpoint_arrival, s))),
        help: "Seconds since the last record of the last checkpointed batch arrived in Kinesis." },
    Family { name: "multilangd_shard_progress_age_seconds", counter: false, labels: SHARD, of: Of::Shard(|t, s| held(t).and(t.moved.map(|at| s.now.saturating_duration_since(at).as_secs_f64()))),
        help: "Seconds since the last progress of the shard: a delivered batch, an answer of the record processor, or a checkpoint." },
    Family { name: "multilangd_records_waiting", counter: false, labels: SHARD, of: Of::Shard(|t, _| held(t).map(|()| number(t.waiting))),
        help: "Records that were fetched but not yet delivered." },
    Family { name: "multilangd_records_delivered_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.delivered))),
        help: "Records delivered to record processors." },
    Family { name: "multilangd_bytes_delivered_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.bytes))),
        help: "Bytes of record data delivered to record processors." },
    Family { name: "multilangd_batches_delivered_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.batches))),
        help: "Batches delivered to record processors." },
    Family { name: "multilangd_records_dropped_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.dropped))),
        help: "User records of aggregated records that were dropped because their hash key belongs to another shard, as in KCL." },
    Family { name: "multilangd_checkpoints_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.checkpoints))),
        help: "Checkpoints stored." },
    Family { name: "multilangd_checkpoint_failures_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.checkpoint_failures))),
        help: "Checkpoints that failed to be stored." },
    Family { name: "multilangd_child_starts_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.starts))),
        help: "Record processors started." },
    Family { name: "multilangd_child_failures_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.failures))),
        help: "Record processors that failed." },
    Family { name: "multilangd_child_busy_seconds_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(t.in_child.as_secs_f64())),
        help: "Seconds that record processors took to answer." },
    Family { name: "multilangd_child_answers_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.answers))),
        help: "Messages that record processors answered." },
    Family { name: "multilangd_batches_split_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.splits))),
        help: "Failed batches that were delivered again in smaller ones, to find the record that fails (multilangd.deadLetters)." },
    Family { name: "multilangd_dead_letters_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.dead_letters))),
        help: "Records written to multilangd.deadLetters." },
    Family { name: "multilangd_old_records_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.aged))),
        help: "Records older than multilangd.maxRecordAgeMillis: written to multilangd.deadLetters, or skipped with multilangd.skipOldRecords." },
    Family { name: "multilangd_dead_letters_failures_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.letter_failures))),
        help: "Dead letters that a destination rejected; the shard waits until it accepts them." },
    Family { name: "multilangd_reads_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.fetches))),
        help: "Responses of GetRecords and events of subscriptions." },
    Family { name: "multilangd_read_failures_total", counter: true, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.fetch_failures))),
        help: "Failed reads of Kinesis." },
];

fn held(totals: &Totals) -> Option<()> {
    totals.over.is_none().then_some(())
}

fn flag(is: bool) -> f64 {
    f64::from(u8::from(is))
}

#[expect(clippy::cast_precision_loss, reason = "Prometheus has floating-point numbers only")]
fn number(count: u64) -> f64 {
    count as f64
}

fn count(count: usize) -> f64 {
    number(u64::try_from(count).unwrap_or(u64::MAX))
}

fn seconds(millis: i64) -> f64 {
    number(u64::try_from(millis).unwrap_or(0)) / 1_000.0
}

fn age(arrival: Option<i64>, scene: &Scene<'_>) -> Option<f64> {
    arrival.map(|arrival| seconds(scene.wall.saturating_sub(arrival)))
}

/// Renders all metrics.
pub fn write(scene: &Scene<'_>) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        let kind = if family.counter { "counter" } else { "gauge" };
        put(&mut out, format_args!("# HELP {} {}\n# TYPE {0} {kind}\n", family.name, family.help));
        let mut line = |labels: &[&str], value: f64| {
            put(&mut out, format_args!("{}", family.name));
            for (index, (label, value)) in family.labels.iter().zip(labels).enumerate() {
                let open = if index == 0 { '{' } else { ',' };
                put(&mut out, format_args!("{open}{label}=\"{}\"", Escaped(value)));
            }
            let close = if family.labels.is_empty() { "" } else { "}" };
            put(&mut out, format_args!("{close} {value}\n"));
        };
        match family.of {
            Of::Info => line(&[scene.application, scene.stream, scene.version], 1.0),
            Of::Worker(value) => value(scene).into_iter().for_each(|value| line(&[], value)),
            Of::Shard(value) => {
                for (shard, totals, _) in &scene.shards {
                    value(totals, scene).into_iter().for_each(|value| line(&[shard.as_str()], value));
                }
            }
            Of::Condition => {
                for (shard, _, state) in &scene.shards {
                    line(&[shard.as_str(), state], 1.0);
                }
            }
            Of::Endings => {
                for (how, times) in &scene.worker.endings {
                    line(&[how], number(*times));
                }
            }
            Of::Calls(value) => {
                for ((service, operation), calls) in &scene.worker.calls {
                    line(&[service, operation], value(calls));
                }
            }
            Of::CallsBy => {
                for ((service, operation), calls) in &scene.worker.calls {
                    line(&[service, operation, "ok"], number(calls.ok));
                    line(&[service, operation, "failed"], number(calls.failed));
                }
            }
        }
    }
    out
}

fn put(out: &mut String, text: fmt::Arguments<'_>) {
    // Writing to memory does not fail.
    let _written = out.write_fmt(text).is_ok();
}

/// A label's value, escaped.
struct Escaped<'a>(&'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.chars().try_for_each(|c| match c {
            '\\' | '"' => write!(f, "\\{c}"),
            '\n' => f.write_str("\\n"),
            c => f.write_char(c),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::{Board, Ending, OfShard, OfWorker, Sink as _};
    use crate::sequence::{Position, Sequence};

    fn text(board: &Board) -> String {
        let totals = board.totals();
        let shards = totals.iter().map(|(shard, totals)| (shard, totals, "idle")).collect();
        write(&Scene {
            application: "a",
            stream: "s",
            version: "1",
            worker: &board.of_worker(),
            held: 1,
            shards,
            buffer: 7,
            uptime: Duration::from_secs(2),
            now: Instant::now(),
            wall: 10_000,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn every_family_has_help_type_and_values() {
        let board = Board::default();
        let shard = ShardId::from("a\"b");
        let last = Position::new(Sequence::TrimHorizon);
        board.shard(&shard, OfShard::Held { checkpoint: &last });
        board.shard(&shard, OfShard::Delivered { records: 3, bytes: 300, last: &last, arrival: Some(4_000) });
        let took = Duration::from_millis(1_500);
        board.worker(OfWorker::Called { service: "DynamoDB", operation: "UpdateItem", took, ok: false });
        let text = text(&board);
        for line in [
            "multilangd_build_info{application=\"a\",stream=\"s\",version=\"1\"} 1",
            "# TYPE multilangd_records_delivered_total counter",
            "multilangd_records_delivered_total{shard=\"a\\\"b\"} 3",
            "multilangd_shard_delivered_age_seconds{shard=\"a\\\"b\"} 6",
            "multilangd_calls_total{service=\"DynamoDB\",operation=\"UpdateItem\",outcome=\"failed\"} 1",
            "multilangd_call_seconds_total{service=\"DynamoDB\",operation=\"UpdateItem\"} 1.5",
            "multilangd_shard_state{shard=\"a\\\"b\",state=\"idle\"} 1",
            "multilangd_leases_taken_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), FAMILIES.len());
    }

    #[tokio::test(start_paused = true)]
    async fn left_shard_keeps_its_counters_but_has_no_lag() {
        let board = Board::default();
        let shard = ShardId::from("s");
        board.shard(&shard, OfShard::Fetched { records: 1, millis_behind_latest: Some(5), took: None });
        assert!(text(&board).contains("multilangd_shard_behind_latest_seconds{shard=\"s\"} 0.005"));
        board.shard(&shard, OfShard::Over(Ending::Lost));
        let text = text(&board);
        assert!(!text.contains("multilangd_shard_behind_latest_seconds{"));
        assert!(text.contains("multilangd_reads_total{shard=\"s\"} 1"));
        assert!(text.contains("multilangd_leases_left_total{how=\"lost\"} 1"));
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for family in FAMILIES {
            assert_eq!(family.name.ends_with("_total"), family.counter, "{}", family.name);
            assert!(family.name.starts_with("multilangd_"), "{}", family.name);
            assert!(!family.help.contains(['\n', '\\']), "{}", family.name);
        }
    }
}
