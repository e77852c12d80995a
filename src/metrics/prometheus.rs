//! Renders the state for Prometheus, in the text exposition format 0.0.4.
//!
//! [`FAMILIES`] is the table of all metrics; a test compares the README with it.

use std::fmt::{self, Write as _};
use std::time::Duration;

use tokio::time::Instant;

use super::board::{Totals, Worker};
use super::histogram::Histogram;
use crate::shard::ShardId;
use crate::stream::StreamIdentifier;

/// A metric.
#[derive(Debug)]
pub struct Family {
    /// Name, with the unit.
    pub name: &'static str,
    /// The type.
    pub kind: Kind,
    /// Label names.
    pub labels: &'static [&'static str],
    /// The help text.
    pub help: &'static str,
    of: Of,
}

/// The type of a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A value that rises and falls.
    Gauge,
    /// A value that only rises.
    Counter,
    /// Durations, counted by [`LIMITS`](super::histogram::LIMITS), with their sum and number.
    Histogram,
}

impl Kind {
    /// The word of the exposition format.
    pub fn word(self) -> &'static str {
        match self {
            Self::Gauge => "gauge",
            Self::Counter => "counter",
            Self::Histogram => "histogram",
        }
    }
}

/// How the values are computed.
#[derive(Clone, Copy)]
enum Of {
    /// One value of the process.
    Process(fn(&Scene<'_>) -> f64),
    /// Values of a process with several applications, which others do not have.
    Among(fn(&Among<'_>) -> f64),
    Worker(fn(&Scene<'_>) -> Option<f64>),
    Shard(fn(&Totals, &Scene<'_>) -> Option<f64>),
    /// 1 for the present state of each shard.
    Condition,
    Endings,
    CallsBy,
    CallTimes,
    AnswerTimes,
    Info,
}

impl fmt::Debug for Of {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Of")
    }
}

/// An application among several in one process.
#[derive(Debug, Clone, Copy)]
pub struct Among<'a> {
    /// A name that no other application of the process has.
    pub name: &'a str,
    /// Whether it ended with an error and waits to be started again.
    pub failed: bool,
    /// Number of starts.
    pub starts: u64,
}

/// The state of an application to render.
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
    /// The application among several; none if it has the process to itself.
    pub among: Option<Among<'a>>,
}

const SHARD: &[&str] = &["shard"];

/// All metrics, in the order in which they are written.
#[rustfmt::skip]
pub const FAMILIES: &[Family] = &[
    Family { name: "multilangd_build_info", kind: Kind::Gauge, labels: &["application", "stream", "version"], of: Of::Info,
        help: "Always 1; its labels identify the application, the stream and the version." },
    Family { name: "multilangd_uptime_seconds", kind: Kind::Gauge, labels: &[], of: Of::Process(|s| s.uptime.as_secs_f64()),
        help: "Seconds since the daemon started." },
    Family { name: "multilangd_ready", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| Some(flag(s.worker.ready && !s.worker.stopping))),
        help: "1 if the tables exist and the worker acquires leases, else 0." },
    Family { name: "multilangd_application_failed", kind: Kind::Gauge, labels: &[], of: Of::Among(|a| flag(a.failed)),
        help: "1 if the application ended with an error and waits to be started again, else 0; only with several applications in one process." },
    Family { name: "multilangd_application_starts_total", kind: Kind::Counter, labels: &[], of: Of::Among(|a| number(a.starts)),
        help: "Starts of the application; only with several applications in one process." },
    Family { name: "multilangd_leases_held", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| Some(count(s.held))),
        help: "Leases that this worker holds." },
    Family { name: "multilangd_leases", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|_| count(s.worker.leases))),
        help: "Leases of unfinished shards in the lease table." },
    Family { name: "multilangd_shards_unread", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| s.worker.unread.map(count)),
        help: "Open shards of the stream that no live worker reads, on the worker that audits the leases; absent on the others." },
    Family { name: "multilangd_shards_parked", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| Some(count(s.shards.iter().filter(|(_, totals, _)| totals.parked_since.is_some()).count()))),
        help: "Parked shards of this worker: their record processors failed too many times in a row and are restarted after long pauses." },
    Family { name: "multilangd_shards_parked_by_operator", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| Some(count(s.shards.iter().filter(|(_, totals, _)| totals.order.is_some()).count()))),
        help: "Shards of this worker that an operator has parked, or paused with their application (multilangd leases)." },
    Family { name: "multilangd_workers", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|_| count(s.worker.workers))),
        help: "Live workers, including this one." },
    Family { name: "multilangd_table_age_seconds", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| s.worker.looked.map(|at| s.now.saturating_duration_since(at).as_secs_f64())),
        help: "Seconds since the last successful scan or query of the lease table; more than a few failover times mean that DynamoDB is not reachable." },
    Family { name: "multilangd_leader", kind: Kind::Gauge, labels: &[], of: Of::Worker(|s| Some(flag(s.worker.leads))),
        help: "1 if this worker is the leader, else 0." },
    Family { name: "multilangd_leases_taken_total", kind: Kind::Counter, labels: &[], of: Of::Worker(|s| Some(number(s.worker.taken))),
        help: "Leases that this worker has acquired." },
    Family { name: "multilangd_leases_left_total", kind: Kind::Counter, labels: &["how"], of: Of::Endings,
        help: "Leases that this worker no longer holds, by reason: ended (the shard ended), released, handed off (graceful handoff), lost, hopeless (its record processor failed for good)." },
    Family { name: "multilangd_buffer_bytes", kind: Kind::Gauge, labels: &[], of: Of::Process(|s| count(s.buffer)),
        help: "Bytes of record data in memory, limited by multilangd.bufferMegabytes." },
    Family { name: "multilangd_calls_total", kind: Kind::Counter, labels: &["service", "operation", "outcome"], of: Of::CallsBy,
        help: "Calls of AWS services, each attempt counted, by outcome: ok or failed." },
    Family { name: "multilangd_call_duration_seconds", kind: Kind::Histogram, labels: &["service", "operation"], of: Of::CallTimes,
        help: "Duration of calls of AWS services, each attempt counted." },
    Family { name: "multilangd_child_answer_seconds", kind: Kind::Histogram, labels: &["action"], of: Of::AnswerTimes,
        help: "Time that record processors took to answer, by message. A message that is not answered yet is not counted." },
    Family { name: "multilangd_shard_state", kind: Kind::Gauge, labels: &["shard", "state"], of: Of::Condition,
        help: "1 for the current state of the shard: waiting, opening, idle, working, no room, failing, restarting, bisecting, stuck, parked, parked by operator, ended, released, handed off, lost, hopeless." },
    Family { name: "multilangd_shard_behind_latest_seconds", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, _| held(t).and(t.millis_behind_latest.map(seconds))),
        help: "Seconds that the last response of Kinesis was behind the tip of the shard." },
    Family { name: "multilangd_shard_delivered_age_seconds", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, s| held(t).and(age(t.last_arrival, s))),
        help: "Seconds since the last delivered record arrived in Kinesis." },
    Family { name: "multilangd_shard_checkpointed_age_seconds", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, s| held(t).and(age(t.pending.checkpointed_arrival(), s))),
        help: "Seconds since the last record of the last checkpointed batch arrived in Kinesis." },
    Family { name: "multilangd_shard_uncheckpointed_age_seconds", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, s| held(t).and(t.uncheckpointed_millis(s.now, s.wall).map(seconds))),
        help: "Seconds since the oldest record that is not checkpointed arrived in Kinesis: delivered, waiting in memory, or the next one to be read; 0 if all are checkpointed." },
    Family { name: "multilangd_shard_progress_age_seconds", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, s| held(t).and(t.moved.map(|at| s.now.saturating_duration_since(at).as_secs_f64()))),
        help: "Seconds since the last progress of the shard: a delivered batch, an answer of the record processor, or a checkpoint." },
    Family { name: "multilangd_records_waiting", kind: Kind::Gauge, labels: SHARD, of: Of::Shard(|t, _| held(t).map(|()| number(t.waiting))),
        help: "Records that were fetched but not yet delivered." },
    Family { name: "multilangd_records_delivered_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.delivered))),
        help: "Records delivered to record processors." },
    Family { name: "multilangd_bytes_delivered_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.bytes))),
        help: "Bytes of record data delivered to record processors." },
    Family { name: "multilangd_batches_delivered_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.batches))),
        help: "Batches delivered to record processors." },
    Family { name: "multilangd_records_dropped_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.dropped))),
        help: "User records of aggregated records that were dropped because their hash key belongs to another shard, as in KCL." },
    Family { name: "multilangd_checkpoints_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.checkpoints))),
        help: "Checkpoints stored." },
    Family { name: "multilangd_checkpoint_failures_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.checkpoint_failures))),
        help: "Checkpoints that failed to be stored." },
    Family { name: "multilangd_child_starts_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.starts))),
        help: "Record processors started." },
    Family { name: "multilangd_child_failures_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.failures))),
        help: "Record processors that failed." },
    Family { name: "multilangd_child_busy_seconds_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(t.in_child.as_secs_f64())),
        help: "Seconds that record processors took to answer." },
    Family { name: "multilangd_child_answers_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.answers))),
        help: "Messages that record processors answered." },
    Family { name: "multilangd_batches_split_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.splits))),
        help: "Failed batches that were delivered again in smaller ones, to find the record that fails (multilangd.deadLetters)." },
    Family { name: "multilangd_dead_letters_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.dead_letters))),
        help: "Records written to multilangd.deadLetters." },
    Family { name: "multilangd_old_records_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.aged))),
        help: "Records older than multilangd.maxRecordAgeMillis: written to multilangd.deadLetters, or skipped with multilangd.skipOldRecords." },
    Family { name: "multilangd_dead_letters_failures_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.letter_failures))),
        help: "Dead letters that a destination rejected; the shard waits until it accepts them." },
    Family { name: "multilangd_reads_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.fetches))),
        help: "Responses of GetRecords and events of subscriptions." },
    Family { name: "multilangd_read_failures_total", kind: Kind::Counter, labels: SHARD, of: Of::Shard(|t, _| Some(number(t.fetch_failures))),
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

/// Renders all metrics of the applications of a process. With several, the series of each have the label `application`.
pub fn write(scenes: &[Scene<'_>]) -> String {
    let mut out = String::new();
    for family in FAMILIES {
        if matches!(family.of, Of::Among(_)) && scenes.iter().all(|scene| scene.among.is_none()) {
            continue;
        }
        let kind = family.kind.word();
        put(&mut out, format_args!("# HELP {} {}\n# TYPE {0} {kind}\n", family.name, family.help));
        // Memory and time are those of the process.
        let of_process = matches!(family.of, Of::Process(_));
        for scene in scenes.iter().take(if of_process { 1 } else { usize::MAX }) {
            series(&mut out, family, scene);
        }
    }
    out
}

/// Writes the series of one metric of an application.
struct Series<'a> {
    out: &'a mut String,
    family: &'static Family,
    /// The application, where the series of several are written.
    application: Option<&'a str>,
}

impl Series<'_> {
    /// Writes one value.
    fn value(&mut self, values: &[&str], value: f64) {
        self.line("", values, None, value);
    }

    /// Writes a histogram.
    fn times(&mut self, values: &[&str], times: &Histogram) {
        for (limit, count) in times.cumulative() {
            self.line("_bucket", values, Some(&limit.to_string()), number(count));
        }
        let count = number(times.count());
        self.line("_bucket", values, Some("+Inf"), count);
        self.line("_sum", values, None, times.sum().as_secs_f64());
        self.line("_count", values, None, count);
    }

    fn line(&mut self, suffix: &str, values: &[&str], limit: Option<&str>, value: f64) {
        put(self.out, format_args!("{}{suffix}", self.family.name));
        let application = self.application.map(|name| ("application", name));
        // The shards of two streams can have one id.
        let split =
            |value| StreamIdentifier::split_text(value).map_or((None, value), |(of, id)| (Some(of), id));
        let own = self.family.labels.iter().zip(values).flat_map(|(label, value)| {
            let (stream, value) = if *label == "shard" { split(value) } else { (None, *value) };
            stream.map(|stream| ("stream", stream)).into_iter().chain([(*label, value)])
        });
        let mut open = '{';
        for (label, value) in application.into_iter().chain(own).chain(limit.map(|limit| ("le", limit))) {
            put(self.out, format_args!("{open}{label}=\"{}\"", Escaped(value)));
            open = ',';
        }
        let close = if open == ',' { "}" } else { "" };
        put(self.out, format_args!("{close} {value}\n"));
    }
}

/// Renders the series of an application.
fn series(out: &mut String, family: &'static Family, scene: &Scene<'_>) {
    let is_named = matches!(family.of, Of::Process(_) | Of::Info);
    let application = scene.among.filter(|_| !is_named).map(|among| among.name);
    let mut series = Series { out, family, application };
    match family.of {
        Of::Info => {
            let application = scene.among.map_or(scene.application, |among| among.name);
            series.value(&[application, scene.stream, scene.version], 1.0);
        }
        Of::Process(value) => series.value(&[], value(scene)),
        Of::Among(value) => scene.among.iter().for_each(|among| series.value(&[], value(among))),
        Of::Worker(value) => value(scene).into_iter().for_each(|value| series.value(&[], value)),
        Of::Shard(value) => {
            for (shard, totals, _) in &scene.shards {
                value(totals, scene).into_iter().for_each(|value| series.value(&[shard.as_str()], value));
            }
        }
        Of::Condition => {
            for (shard, _, state) in &scene.shards {
                series.value(&[shard.as_str(), state], 1.0);
            }
        }
        Of::Endings => {
            for (how, times) in &scene.worker.endings {
                series.value(&[how], number(*times));
            }
        }
        Of::CallsBy => {
            for ((service, operation), calls) in &scene.worker.calls {
                series.value(&[service, operation, "ok"], number(calls.ok));
                series.value(&[service, operation, "failed"], number(calls.failed));
            }
        }
        Of::CallTimes => {
            for ((service, operation), calls) in &scene.worker.calls {
                series.times(&[service, operation], &calls.took);
            }
        }
        Of::AnswerTimes => {
            for (action, took) in &scene.worker.answers {
                series.times(&[action], took);
            }
        }
    }
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
    use multilangd_protocol::Action;

    use super::*;
    use crate::metrics::{Board, Ending, OfShard, OfWorker, Sink as _};
    use crate::sequence::{Position, Sequence};

    fn text(board: &Board) -> String {
        text_among(&[(board, None)])
    }

    fn text_among(applications: &[(&Board, Option<Among<'_>>)]) -> String {
        let looks: Vec<_> =
            applications.iter().map(|(board, among)| (board.totals(), board.of_worker(), *among)).collect();
        let scenes: Vec<Scene<'_>> =
            looks.iter().map(|(totals, worker, among)| scene(totals, worker, *among)).collect();
        write(&scenes)
    }

    fn scene<'a>(
        totals: &'a std::collections::BTreeMap<ShardId, Totals>,
        worker: &'a Worker,
        among: Option<Among<'a>>,
    ) -> Scene<'a> {
        let shards = totals.iter().map(|(shard, totals)| (shard, totals, "idle")).collect();
        Scene {
            among,
            application: "a",
            stream: "s",
            version: "1",
            worker,
            held: 1,
            shards,
            buffer: 7,
            uptime: Duration::from_secs(2),
            now: Instant::now(),
            wall: 10_000,
        }
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
        let took = Duration::from_secs(301);
        board.shard(&shard, OfShard::Answered { action: Action::ProcessRecords, took });
        let text = text(&board);
        for line in [
            "multilangd_build_info{application=\"a\",stream=\"s\",version=\"1\"} 1",
            "# TYPE multilangd_records_delivered_total counter",
            "multilangd_records_delivered_total{shard=\"a\\\"b\"} 3",
            "multilangd_shard_delivered_age_seconds{shard=\"a\\\"b\"} 6",
            "multilangd_calls_total{service=\"DynamoDB\",operation=\"UpdateItem\",outcome=\"failed\"} 1",
            "# TYPE multilangd_call_duration_seconds histogram",
            "multilangd_call_duration_seconds_bucket{service=\"DynamoDB\",operation=\"UpdateItem\",le=\"1\"} 0",
            "multilangd_call_duration_seconds_bucket{service=\"DynamoDB\",operation=\"UpdateItem\",le=\"2.5\"} 1",
            "multilangd_call_duration_seconds_bucket{service=\"DynamoDB\",operation=\"UpdateItem\",le=\"+Inf\"} 1",
            "multilangd_call_duration_seconds_sum{service=\"DynamoDB\",operation=\"UpdateItem\"} 1.5",
            "multilangd_call_duration_seconds_count{service=\"DynamoDB\",operation=\"UpdateItem\"} 1",
            "multilangd_child_answer_seconds_bucket{action=\"processRecords\",le=\"300\"} 0",
            "multilangd_child_answer_seconds_count{action=\"processRecords\"} 1",
            "multilangd_shard_state{shard=\"a\\\"b\",state=\"idle\"} 1",
            "multilangd_leases_taken_total 1",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\nin\n{text}");
        }
        let among = FAMILIES.iter().filter(|family| matches!(family.of, Of::Among(_))).count();
        assert_eq!(text.matches("# HELP").count(), FAMILIES.len() - among);
        assert!(!text.contains("multilangd_application_"));
    }

    #[tokio::test(start_paused = true)]
    async fn series_of_several_applications_have_their_names() {
        let (one, other) = (Board::default(), Board::default());
        let shard = ShardId::from("s");
        for board in [&one, &other] {
            board.shard(&shard, OfShard::Held { checkpoint: &Position::new(Sequence::TrimHorizon) });
        }
        let among = |name, failed| Some(Among { name, failed, starts: 3 });
        let text = text_among(&[(&one, among("orders", false)), (&other, among("clicks \"2\"", true))]);
        for line in [
            "multilangd_build_info{application=\"orders\",stream=\"s\",version=\"1\"} 1",
            "multilangd_ready{application=\"orders\"} 0",
            "multilangd_application_failed{application=\"orders\"} 0",
            "multilangd_application_failed{application=\"clicks \\\"2\\\"\"} 1",
            "multilangd_application_starts_total{application=\"orders\"} 3",
            "multilangd_shard_state{application=\"clicks \\\"2\\\"\",shard=\"s\",state=\"idle\"} 1",
            "multilangd_buffer_bytes 7",
            "multilangd_uptime_seconds 2",
        ] {
            assert_eq!(text.lines().filter(|found| *found == line).count(), 1, "{line}\nin\n{text}");
        }
        assert_eq!(text.matches("# HELP").count(), FAMILIES.len(), "once for all applications");
        let mut series: Vec<_> = text.lines().filter_map(|line| Some(line.rsplit_once(' ')?.0)).collect();
        let count = series.len();
        series.sort_unstable();
        series.dedup();
        assert_eq!(series.len(), count, "each series is written once");
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
    fn shards_of_several_streams_have_a_label_for_the_stream() {
        let board = Board::default();
        let at = Position::new(Sequence::TrimHorizon);
        for shard in ["1:orders:5:shardId-0", "1:refunds:5:shardId-0"] {
            board.shard(&shard.into(), OfShard::Held { checkpoint: &at });
        }
        let text = text(&board);
        for stream in ["1:orders:5", "1:refunds:5"] {
            let series =
                format!("multilangd_checkpoints_total{{stream=\"{stream}\",shard=\"shardId-0\"}} 0\n");
            assert!(text.contains(&series), "{text}");
        }
    }

    #[test]
    fn names_follow_the_conventions_of_prometheus() {
        for family in FAMILIES {
            assert_eq!(family.name.ends_with("_total"), family.kind == Kind::Counter, "{}", family.name);
            let is_time = family.name.ends_with("_seconds");
            assert!(is_time || family.kind != Kind::Histogram, "{}", family.name);
            assert!(family.name.starts_with("multilangd_"), "{}", family.name);
            assert!(!family.help.contains(['\n', '\\']), "{}", family.name);
        }
    }
}
