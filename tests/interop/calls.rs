//! DynamoDB calls of a fleet at rest: two workers, eight leases, no records, default times.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::counter::Counter;
use crate::fleet::Fleet;
use crate::java::{JAVA_2, JAVA_3, JAVA_3_LED, Peer};
use crate::load::{Load, Rows, even, shares};

/// Six periods of the slowest relevant timer (Java scans every 20 s).
const WINDOW: Duration = Duration::from_secs(120);
/// The time without any change of owners before the counting begins.
const QUIET: Duration = Duration::from_secs(25);
const SHARDS: i32 = 8;
/// Java's first shard sync sleeps for shardSyncIntervalMillis; the calls at rest do not depend on it.
const AT_REST: &str = "shardSyncIntervalMillis = 1000\nmetricsLevel = NONE\nmaxRecords = 1000\n";

type Rates = BTreeMap<String, f64>;

/// A condition that holds once all leases have kept their owners for the given time.
fn unchanged(time: Duration, accepted: impl Fn(&Rows) -> bool) -> impl FnMut(&Rows) -> bool {
    let mut since: Option<(Instant, Vec<String>)> = None;
    move |rows| {
        let owners: Vec<_> = rows.values().map(|row| row.owner.clone()).collect();
        if since.as_ref().is_none_or(|(_, before)| *before != owners) || !accepted(rows) {
            since = Some((Instant::now(), owners));
        }
        since.as_ref().is_some_and(|(start, _)| start.elapsed() >= time)
    }
}

/// Calls per hour by operation, once the fleet has settled.
async fn at_rest(what: &str, name: &str, peer: Option<Peer>) -> Rates {
    let load = Load::start(name, SHARDS).await;
    let counter = Counter::before(&load.rig.tables.url()).await;
    let lines = format!("dynamoDBEndpoint = {}\n{AT_REST}", counter.url);
    let mut fleet = Fleet::new(load, peer.unwrap_or(JAVA_2), &lines);
    let workers = ["w-1", "w-2"];
    for worker in workers {
        if peer.is_some() { fleet.java(worker) } else { fleet.ours(worker) }
    }
    let settled = |rows: &Rows| match peer {
        // A leader's assignment was observed to stay at three to one, or with all leases on one worker.
        Some(JAVA_3_LED) => {
            shares(rows).values().sum::<usize>() == SHARDS.unsigned_abs() as usize
                && !shares(rows).contains_key("")
        }
        _ => even(rows, &workers),
    };
    fleet.load.until_rows(&format!("{what} have settled"), unchanged(QUIET, settled)).await;
    counter.take();
    let owners = |rows: &Rows| rows.values().map(|row| row.owner.clone()).collect::<Vec<_>>();
    let before = owners(&fleet.load.rows().await);
    let start = Instant::now();
    fleet.load.until_rows(&format!("{what} were counted"), |_| start.elapsed() >= WINDOW).await;
    let counts = counter.take();
    let hours = start.elapsed().as_secs_f64() / 3_600.0;
    assert_eq!(before, owners(&fleet.load.rows().await), "{what}: it was at rest");
    for worker in workers {
        fleet.kill(worker).await;
    }
    #[expect(clippy::cast_precision_loss, reason = "small numbers")]
    let rate = |count: u64| count as f64 / hours;
    counts.into_iter().map(|(operation, count)| (operation, rate(count))).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fleet_at_rest_makes_no_more_calls_than_java() {
    let _turn = crate::turn(crate::MACHINE).await;
    // Concurrently, each fleet on its own table: the counts depend on timers only, and take minutes.
    let (ours, java_2, java_3, java_3_led) = tokio::join!(
        at_rest("ours", "calls-ours", None),
        at_rest("Java 2.5.4", "calls-java-2", Some(JAVA_2)),
        at_rest("Java 3.1.3 compatible", "calls-java-3", Some(JAVA_3)),
        at_rest("Java 3.1.3", "calls-java-3-led", Some(JAVA_3_LED)),
    );
    let fleets = [ours, java_2, java_3, java_3_led];
    let row = |name: &str, cells: [String; 4]| {
        eprintln!("{name:<18}{}", cells.map(|cell| format!("{cell:>12}")).concat());
    };
    row("calls an hour", ["ours", "2.5.4", "3.1.3 as 2", "3.1.3"].map(str::to_owned));
    let operations: BTreeSet<&String> = fleets.iter().flat_map(Rates::keys).collect();
    for operation in operations {
        row(operation, fleets.each_ref().map(|rates| format!("{:.0}", rates.get(operation).unwrap_or(&0.0))));
    }
    let totals = fleets.each_ref().map(|rates| rates.values().sum::<f64>());
    row("all", totals.map(|total| format!("{total:.0}")));
    row("all, a lease", totals.map(|total| format!("{:.0}", total / f64::from(SHARDS))));
    row("ours to these", totals.map(|total| format!("{:.2}", totals[0] / total)));
    assert!(totals[1..].iter().all(|java| totals[0] <= *java), "{totals:?}");
}
