//! The progress line: records put, delivered and checkpointed, in total and per shard.
//!
//! It is printed when something changed, at most every two seconds, so that the children's own output remains
//! readable.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tokio::time::sleep;

use super::kinesis;
use super::stdout::tell;
use crate::config::Config;
use crate::metrics::{Board, Totals};
use crate::shard::ShardId;
use crate::stream::StreamIdentifier;

/// The line for these totals. `records` is the number of records put, by shard.
pub fn line(records: &BTreeMap<ShardId, u64>, totals: &BTreeMap<ShardId, Totals>) -> String {
    let taken: u64 = records.values().sum();
    let delivered: u64 = totals.values().map(|t| t.delivered).sum();
    let checkpoints: u64 = totals.values().map(|t| t.checkpoints).sum();
    let mut line = format!("in {taken} · delivered {delivered} · checkpoints {checkpoints}");
    let shards: std::collections::BTreeSet<&ShardId> = records.keys().chain(totals.keys()).collect();
    for shard in shards {
        let none = Totals::default();
        let t = totals.get(shard).unwrap_or(&none);
        let state = match (t.ended(), t.pid) {
            (true, _) => "ended".to_owned(),
            (false, Some(pid)) => format!("pid {pid}"),
            (false, None) => "-".to_owned(),
        };
        let short = shard.as_str().trim_start_matches("shardId-").trim_start_matches('0');
        let short = if short.is_empty() { "0" } else { short };
        let taken = records.get(shard).copied().unwrap_or(0);
        // Writing to a String does not fail.
        let _infallible =
            write!(line, " | {short}: {}/{taken} ✓{} {state}", t.delivered, t.checkpoints).is_ok();
        if t.failures > 0 {
            let _infallible = write!(line, " ✗{}", t.failures).is_ok();
        }
    }
    line
}

/// The progress of the shards, or of several streams.
pub fn of(endpoint: &kinesis::Kinesis, config: &Config, board: &Board) -> String {
    let totals = board.totals();
    if config.streams.is_empty() {
        return line(&taken(endpoint, &config.stream), &totals);
    }
    let of_stream = |name: &str| ShardId::from(name);
    let records = config.stream_names().map(|name| (of_stream(name), taken(endpoint, name).values().sum()));
    let mut by_stream: BTreeMap<ShardId, Totals> = BTreeMap::new();
    for (shard, of_shard) in totals {
        let Some((stream, _)) = StreamIdentifier::split(shard.as_str()) else { continue };
        let sum = by_stream.entry(of_stream(stream.name())).or_default();
        sum.delivered += of_shard.delivered;
        sum.checkpoints += of_shard.checkpoints;
        sum.failures += of_shard.failures;
        sum.pid = sum.pid.or(of_shard.pid);
    }
    line(&records.collect(), &by_stream)
}

fn taken(endpoint: &kinesis::Kinesis, stream: &str) -> BTreeMap<ShardId, u64> {
    let counts = endpoint.records().into_iter().filter(|count| count.stream == stream);
    counts.map(|count| (ShardId::from(count.shard.as_str()), count.records)).collect()
}

/// Prints the progress whenever it has changed, for ever.
pub async fn print(endpoint: &kinesis::Kinesis, config: &Config, board: &Board) -> std::convert::Infallible {
    let mut last = String::new();
    loop {
        sleep(Duration::from_secs(2)).await;
        let line = of(endpoint, config, board);
        if line != last {
            tell(&line);
            last = line;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Ending;

    #[test]
    fn line_has_totals_and_each_shard() {
        let a = ShardId::from("shardId-000000000000");
        let b = ShardId::from("shardId-000000000012");
        let records = BTreeMap::from([(a.clone(), 10), (b.clone(), 5)]);
        let totals = BTreeMap::from([
            (a, Totals { pid: Some(7), delivered: 8, checkpoints: 2, ..Totals::default() }),
            (
                b,
                Totals {
                    delivered: 5,
                    checkpoints: 1,
                    failures: 3,
                    over: Some(Ending::ShardEnded),
                    ..Totals::default()
                },
            ),
        ]);
        assert_eq!(
            line(&records, &totals),
            "in 15 · delivered 13 · checkpoints 3 | 0: 8/10 ✓2 pid 7 | 12: 5/5 ✓1 ended ✗3"
        );
    }
}
