//! Tests of the metrics that are sent for a worker's events, and their values.

use super::*;

pub(super) fn queue(level: Level, dimensions: Option<&[&str]>) -> Queue {
    Queue::new(Settings {
        level,
        dimensions: dimensions.map(|names| names.iter().map(|name| (*name).to_owned()).collect()),
        every: Duration::from_secs(10),
        most: 10_000,
        worker: "w".to_owned(),
        max_leases: 3,
        renewals: Duration::from_secs(3),
    })
}

pub(super) fn fetched(queue: &Queue, shard: &str, behind: i64) {
    let took = Some(Duration::from_millis(5));
    let event = OfShard::Fetched { records: 1, millis_behind_latest: Some(behind), took };
    queue.shard(&shard.into(), event);
}

fn named<'a>(data: &'a [(Key, Statistics)], name: &str) -> Vec<&'a (Key, Statistics)> {
    data.iter().filter(|(key, _)| key.name == name).collect()
}

#[test]
fn values_of_one_metric_are_aggregated() {
    let queue = queue(Level::Detailed, None);
    for (shard, behind) in [("a", 10), ("a", 30), ("b", 2)] {
        fetched(&queue, shard, behind);
    }
    let (data, dropped) = queue.drain();
    let behind = named(&data, "MillisBehindLatest");
    assert_eq!((behind.len(), dropped), (3, 0), "two shards and the application");
    assert_eq!(behind[0].1, Statistics { count: 2.0, sum: 40.0, least: 10.0, most: 30.0 });
    assert_eq!(behind[1].0.dimensions, [("Operation", "ApplicationTracker".to_owned())]);
    assert_eq!(behind[1].1, Statistics { count: 3.0, sum: 42.0, least: 2.0, most: 30.0 });
    assert!(queue.drain().0.is_empty());
}

#[test]
fn level_and_dimensions_filter_metrics() {
    let queue = queue(Level::Summary, Some(&["Operation"]));
    fetched(&queue, "a", 10);
    fetched(&queue, "b", 10);
    let (data, _) = queue.drain();
    assert!(named(&data, "KinesisDataFetcher.getRecords.Time").is_empty());
    let behind = named(&data, "MillisBehindLatest");
    assert_eq!(behind[0].0.dimensions, [("Operation", "ProcessTask".to_owned())]);
    assert_eq!(behind[0].1.count, 2.0, "two shards are one without the dimension");
}

#[test]
fn shards_of_several_streams_have_the_dimension_of_their_stream() {
    let queue = queue(Level::Summary, None);
    fetched(&queue, "1:orders:5:s", 10);
    let (data, _) = queue.drain();
    let of_shard = [("Operation", "ProcessTask"), ("ShardId", "s"), ("StreamId", "1:orders:5")];
    let expected = of_shard.map(|(name, value)| (name, value.to_owned()));
    assert!(named(&data, "MillisBehindLatest").iter().any(|(key, _)| key.dimensions == expected), "{data:?}");
}

#[test]
fn audit_counts_holes_and_syncs_as_java() {
    for (coverage, values) in [
        (Coverage::Whole, [0.0, 0.0, 0.0]),
        (Coverage::Hole, [1.0, 0.0, 0.0]),
        (Coverage::Confirmed { synced: true }, [1.0, 1.0, 0.0]),
        (Coverage::Confirmed { synced: false }, [1.0, 1.0, 1.0]),
    ] {
        let queue = queue(Level::Summary, None);
        queue.worker(OfWorker::Did { step: Step::Audit(coverage), took: Duration::ZERO, ok: true });
        let (data, _) = queue.drain();
        let names = ["NumStreamsWithPartialLeases", "NumStreamsToSync", "NumSkippedShardSyncTask"];
        assert_eq!(names.map(|name| named(&data, name)[0].1.sum), values, "{coverage:?}");
        assert_eq!(named(&data, "Success")[0].1.sum, 1.0);
    }
}

/// The sums of some metrics; none for a metric that is not sent.
fn sums<const N: usize>(queue: &Queue, names: [&str; N]) -> [Option<f64>; N] {
    let (data, _) = queue.drain();
    names.map(|name| named(&data, name).first().map(|(_, values)| values.sum))
}

#[test]
fn lease_taking_reports_zeros_while_nothing_changes() {
    let queue = queue(Level::Detailed, None);
    let looked = |leases| OfWorker::Looked { leases, free: 0, workers: 2, leads: None };
    let names = ["TakenLeases", "UntakenLeases", "LeasesToTake", "LeaseSpillover", "ExpiredLeases"];
    queue.worker(looked(4));
    assert_eq!(sums(&queue, names), [Some(0.0); 5]);
    for ok in [true, true, false] {
        queue.worker(OfWorker::Did { step: Step::Take, took: Duration::ZERO, ok });
    }
    queue.worker(looked(10));
    assert_eq!(sums(&queue, names), [2.0, 1.0, 3.0, 2.0, 0.0].map(Some), "a share of 5, and 3 at most");
    queue.worker(looked(4));
    assert_eq!(sums(&queue, names), [Some(0.0); 5]);
}

#[test]
fn needed_leases_are_the_share_minus_held_leases() {
    let checkpoint = &crate::sequence::Position::shard_end();
    for (leases, held, needed) in
        [(4, 0, 2.0), (4, 1, 1.0), (4, 2, 0.0), (10, 1, 2.0), (1, 0, 1.0), (0, 0, 0.0)]
    {
        let queue = queue(Level::Detailed, None);
        for shard in 0..held {
            queue.shard(&shard.to_string().as_str().into(), OfShard::Held { checkpoint });
        }
        queue.worker(OfWorker::Looked { leases, free: 0, workers: 2, leads: None });
        assert_eq!(sums(&queue, ["NeededLeases"]), [Some(needed)], "{leases} leases, {held} held");
    }
}

#[test]
fn non_leader_reports_an_assignment_run_without_counts() {
    let queue = queue(Level::Detailed, None);
    queue.worker(OfWorker::Looked { leases: 4, free: 0, workers: 2, leads: Some(false) });
    let names = ["LeaderDecider:IsLeader", "Success", "Time", "TotalLeases", "ExpiredLeases"];
    assert_eq!(sums(&queue, names), [Some(0.0), Some(1.0), Some(0.0), None, None]);
}

#[test]
fn unassignable_leases_are_reported_as_spillover() {
    let queue = queue(Level::Summary, None);
    let planned = |left| OfWorker::Planned { assigning: Duration::ZERO, left, balancing: None };
    queue.worker(planned(0));
    assert!(queue.drain().0.is_empty());
    queue.worker(planned(3));
    let (data, _) = queue.drain();
    assert_eq!((named(&data, "LeaseSpillover").len(), data[0].1.sum, data.len()), (1, 3.0, 1));
    assert_eq!(data[0].0.dimensions, [("Operation", "LeaseAssignmentManager".to_owned())]);
}

#[test]
fn metrics_beyond_the_queue_limit_are_dropped_and_counted() {
    let mut queue = queue(Level::Detailed, None);
    queue.settings.most = 3;
    fetched(&queue, "a", 1);
    fetched(&queue, "b", 1);
    let (data, dropped) = queue.drain();
    assert_eq!((data.len(), dropped), (3, 5));
}

#[test]
fn leader_reports_the_table_migration_as_java() {
    let queue = queue(Level::Summary, None);
    let leads = |leads| OfWorker::Looked { leases: 1, free: 0, workers: 1, leads: Some(leads) };
    queue.worker(leads(true));
    assert_eq!(sums(&queue, ["StatusOrdinal"]), [None], "not known yet");
    queue.worker(OfWorker::Tables(Tables::Complete));
    queue.worker(leads(false));
    assert_eq!(sums(&queue, ["StatusOrdinal"]), [None], "the leader's alone");
    queue.worker(leads(true));
    let (data, _) = queue.drain();
    let [(key, values)] = named(&data, "StatusOrdinal")[..] else { panic!("{data:?}") };
    assert_eq!((key.unit, values.sum), (Unit::None, 4.0));
    assert_eq!(key.dimensions, [("Operation", "TableMigration".to_owned())]);

    let took = Duration::from_millis(7);
    let found = Some(Supporters { least: Some(0), owners: 5, able: 4, moved: 1 });
    queue.worker(OfWorker::Surveyed { found, took });
    let names =
        ["ReadFault", "Time", "PrePhase1Worker", "Phase1Worker", "Phase2Worker", "FleetMinSupportCode"];
    assert_eq!(sums(&queue, names), [0.0, 7.0, 1.0, 3.0, 1.0, 0.0].map(Some));
    queue.worker(OfWorker::Surveyed { found: None, took });
    assert_eq!(sums(&queue, names), [Some(1.0), Some(7.0), None, None, None, None]);
}

#[test]
fn each_table_migration_write_has_its_fault_metric() {
    for (what, name) in [
        (Move::Stage, "WriteFault"),
        (Move::Withdrawal, "DeleteFault"),
        (Move::Completion, "CompletionFault"),
    ] {
        let queue = queue(Level::Summary, None);
        for ok in [true, false, false] {
            queue.worker(OfWorker::Moved { what, took: Duration::ZERO, ok });
        }
        assert_eq!(sums(&queue, [name]), [Some(2.0)], "{what:?}");
    }
    let queue = queue(Level::Summary, None);
    queue.worker(OfWorker::Moved { what: Move::Rows, took: Duration::ZERO, ok: false });
    assert_eq!(sums(&queue, ["Success", "Time"]), [Some(0.0), Some(0.0)]);
}
