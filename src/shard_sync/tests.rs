//! Tests of the shard sync at the start, and of the frequency of audits.

use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};

use super::state::AUDIT;
use super::*;
use crate::coordinator::Coordinator;
use crate::lease::Lease;
use crate::lease::memory::Memory as Rows;
use crate::lease::orders::Pause;
use crate::lease::origin::Foreign;
use crate::lease::sync::InitialPosition;
use crate::metrics::{Coverage, OfShard, OfWorker, Sink, Step};
use crate::sequence::{Position, Sequence};
use crate::shard::{BoxFuture, Filter, HashRange, Listed, Shard};
use crate::stream::StreamId;

const FAILOVER: Duration = Duration::from_secs(10);

fn stream() -> StreamId {
    StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/orders", 5)
}

fn number(text: &str) -> SequenceNumber {
    SequenceNumber::parse(text).unwrap()
}

fn shard(id: &str, parent: Option<&str>) -> Shard {
    Shard {
        id: id.into(),
        parent: parent.map(ShardId::from),
        adjacent_parent: None,
        range: HashRange { start: 0, end: u128::MAX },
        starting: number("100"),
        ending: None,
    }
}

fn lease(id: &str, checkpoint: Sequence) -> Lease {
    let range = HashRange { start: 0, end: u128::MAX };
    Lease::new(id.into(), Position::new(checkpoint), BTreeSet::new(), range)
}

/// A stream with these shards, which refuses every sequence number.
struct Refusing(Listed);

impl shard::Api for Refusing {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        self.0.list(filter)
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        self.0.identity()
    }

    fn has_number<'a>(
        &'a self,
        _: &'a ShardId,
        _: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, shard::Error>> {
        Box::pin(async { Ok(false) })
    }
}

/// A stream whose first lease another worker creates while its shards are listed.
struct Begun {
    stream: Listed,
    rows: Arc<Rows>,
    first: Lease,
}

impl shard::Api for Begun {
    fn list(&self, filter: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        self.rows.put(self.first.clone());
        self.stream.list(filter)
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        self.stream.identity()
    }

    fn has_number<'a>(
        &'a self,
        shard: &'a ShardId,
        number: &'a SequenceNumber,
    ) -> BoxFuture<'a, Result<bool, shard::Error>> {
        self.stream.has_number(shard, number)
    }
}

fn listed(shards: Vec<Shard>) -> Listed {
    let listed = Listed::default();
    listed.become_stream(Some(stream()), shards);
    listed
}

fn shard_sync(rows: Arc<Rows>, shards: Arc<dyn shard::Api>, sink: Arc<dyn Sink>) -> ShardSync {
    let settings = Settings {
        reaches: crate::reach::Reaches::default(),
        me: "me".into(),
        initial: InitialPosition::Latest,
        first: None,
        ignore_unexpected_children: false,
        skip_if_leases_exist: false,
        sync_pause: Duration::from_secs(60),
        stream: "orders".to_owned(),
        listed: true,
        failover: FAILOVER,
        sink,
    };
    ShardSync::new(rows, shards.clone(), Recognition::new(shards), settings)
}

/// Records the results of audits, in order.
#[derive(Debug, Default)]
struct Audits(Mutex<Vec<Coverage>>);

impl Sink for Audits {
    fn shard(&self, _: &ShardId, _: OfShard<'_>) {}

    fn worker(&self, event: OfWorker<'_>) {
        if let OfWorker::Did { step: Step::Audit(coverage), .. } = event {
            self.0.lock().unwrap().push(coverage);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn permanently_refused_read_does_not_block_audits() {
    let (rows, audits) = (Arc::new(Rows::default()), Arc::new(Audits::default()));
    let shard_sync = shard_sync(rows.clone(), Arc::new(listed(vec![shard("0", None)])), audits.clone());
    shard_sync.recognise().await.unwrap();
    let recognition = shard_sync.recognition.clone();
    let (_coordinator, ends) = Coordinator::new(rows, crate::coordinator::tests::settings());
    let seen = Snapshot { leads: Some(true), at: Some(Instant::now()), ..Snapshot::default() };
    let (_tell, seen) = watch::channel(seen);
    let mut tasks = JoinSet::new();
    tasks.spawn(shard_sync.run(seen, ends.handle, CancellationToken::new()));
    for _ in 0..600 {
        recognition.suspect();
        sleep(Duration::from_secs(1)).await;
    }
    let audits = audits.0.lock().unwrap().len();
    assert!(audits >= 15, "{audits} audits in 600 s");
}

/// The results of the leader's first four audits over a lease of this range.
async fn audited(range: HashRange) -> Vec<Coverage> {
    let (rows, audits) = (Arc::new(Rows::default()), Arc::new(Audits::default()));
    let lease = Lease { range: Some(range), stream: Some(stream()), ..lease("0", Sequence::TrimHorizon) };
    rows.put(lease.clone());
    let shard_sync = shard_sync(rows.clone(), Arc::new(listed(vec![shard("0", None)])), audits.clone());
    shard_sync.recognise().await.unwrap();
    let (_coordinator, ends) = Coordinator::new(rows, crate::coordinator::tests::settings());
    let at = Some(Instant::now());
    let seen = Snapshot { leads: Some(true), at, leases: Arc::new(vec![lease]), ..Snapshot::default() };
    let (_tell, seen) = watch::channel(seen);
    let mut tasks = JoinSet::new();
    tasks.spawn(shard_sync.run(seen, ends.handle, CancellationToken::new()));
    sleep(AUDIT * 4 + Duration::from_secs(1)).await;
    audits.0.lock().unwrap().clone()
}

#[tokio::test(start_paused = true)]
async fn audit_needs_a_sync_only_for_a_confirmed_hole() {
    let whole = HashRange { start: 0, end: u128::MAX };
    assert_eq!(audited(whole).await, [Coverage::Whole; 4]);
    let (synced, postponed) = (Coverage::Confirmed { synced: true }, Coverage::Confirmed { synced: false });
    // The stream's shards are listed every second audit, whether there is a hole or not.
    let half = HashRange { start: 0, end: 9 };
    assert_eq!(audited(half).await, [Coverage::Hole, Coverage::Hole, synced, postponed]);
}

#[tokio::test(start_paused = true)]
async fn unmarked_table_is_foreign_if_every_number_is_refused() {
    let rows = Arc::new(Rows::default());
    let ids: Vec<String> = (10..30).map(|n| n.to_string()).collect();
    for id in &ids {
        rows.put(lease(id, Sequence::Number(number("150"))));
    }
    let shards = listed(ids.iter().map(|id| shard(id, None)).collect());
    let shard_sync = shard_sync(rows.clone(), Arc::new(Refusing(shards)), Arc::new(crate::metrics::Discard));
    let outcome = shard_sync.recognise().await;
    assert!(matches!(outcome, Err(Error::Foreign(Foreign::Positions { .. }))), "{outcome:?}");
    assert_eq!(rows.writes(), 0);
}

#[tokio::test(start_paused = true)]
async fn finished_row_with_children_is_left_to_the_audits() {
    for (children, reset) in [(true, false), (false, true)] {
        let rows = Arc::new(Rows::default());
        let mark = Some(stream());
        rows.put(Lease { stream: mark.clone(), ..lease("0", Sequence::ShardEnd) });
        if children {
            let child = lease("1", Sequence::TrimHorizon);
            rows.put(Lease { stream: mark, parents: BTreeSet::from(["0".into()]), ..child });
        }
        // `ListShards` lags: it reports the parent as open.
        let shard_sync = shard_sync(
            rows.clone(),
            Arc::new(listed(vec![shard("0", None)])),
            Arc::new(crate::metrics::Discard),
        );
        shard_sync.recognise().await.unwrap();
        shard_sync.begin().await.unwrap();
        let row = rows.row(&"0".into()).unwrap();
        assert_eq!(row.checkpoint.sequence == Sequence::TrimHorizon, reset, "children: {children}");
    }
}

#[tokio::test(start_paused = true)]
async fn start_waits_for_the_owner_to_restore_a_deleted_row() {
    let rows = Arc::new(Rows::default());
    rows.put(Lease { owner: Some("holder".into()), ..lease("0", Sequence::Number(number("150"))) });
    let shards = Arc::new(listed(vec![shard("0", None), shard("1", None)]));
    let shard_sync = shard_sync(rows.clone(), shards, Arc::new(crate::metrics::Discard));
    shard_sync.recognise().await.unwrap();
    let mut tasks = JoinSet::new();
    tasks.spawn({
        let shard_sync = shard_sync.clone();
        async move { shard_sync.begin().await }
    });
    sleep(FAILOVER * 2 / 5).await;
    assert_eq!(rows.row(&"1".into()), None, "made before its holder could restore it");
    let position = Sequence::Number(number("160"));
    rows.put(Lease { owner: Some("holder".into()), ..lease("1", position.clone()) });
    timeout(FAILOVER, tasks.join_next()).await.unwrap().unwrap().unwrap().unwrap();
    assert_eq!(rows.row(&"1".into()).unwrap().checkpoint.sequence, position);
}

/// The lease that the audits create for a shard whose row this worker has read and that was deleted since.
async fn recreated(deleted: Lease, shards: Arc<dyn shard::Api>) -> Lease {
    let there = lease("0", Sequence::Number(number("120")));
    let rows = Arc::new(Rows::default());
    rows.put(there.clone());
    let shard_sync = shard_sync(rows.clone(), shards, Arc::new(crate::metrics::Discard));
    shard_sync.recognition.recognise(Some(stream()), BTreeSet::new());
    let mut history = crate::lease::history::History::default();
    let id = deleted.key.clone();
    history.note_scan(&[there.clone(), deleted], Instant::now());
    history.note_scan(std::slice::from_ref(&there), Instant::now());
    let seen = Snapshot {
        leads: Some(true),
        at: Some(Instant::now()),
        leases: Arc::new(vec![there]),
        history: Arc::new(history),
        ..Snapshot::default()
    };
    let (_coordinator, ends) = Coordinator::new(rows.clone(), crate::coordinator::tests::settings());
    let mut state = State::new(shard_sync.settings.clone(), Instant::now());
    for _ in 0..3 {
        assert_eq!(rows.row(&id), None, "its owner may restore it");
        let now = Instant::now();
        shard_sync.handle(&mut state, Event::AuditDue(seen.clone()), &ends.handle).await;
        assert_eq!(state.synced, Some(now), "nothing is left to its owner");
        sleep(FAILOVER / 2).await;
    }
    rows.row(&id).unwrap()
}

fn two_shards() -> Listed {
    listed(vec![shard("0", None), shard("1", None)])
}

#[tokio::test(start_paused = true)]
async fn lease_without_an_owner_that_was_deleted_continues_at_its_last_checkpoint() {
    let position = Sequence::Number(number("150"));
    let by_java = lease("1", position.clone());
    let ours = Lease { stream: Some(stream()), ..by_java.clone() };
    let of_another = Lease { stream: Some(StreamId::new(stream().arn(), 1)), ..by_java.clone() };
    assert_eq!(recreated(ours, Arc::new(two_shards())).await.checkpoint.sequence, position);
    assert_eq!(recreated(by_java.clone(), Arc::new(two_shards())).await.checkpoint.sequence, position);
    let refusing = Arc::new(Refusing(two_shards()));
    assert_eq!(recreated(by_java, refusing).await.checkpoint.sequence, Sequence::Latest);
    assert_eq!(recreated(of_another, Arc::new(two_shards())).await.checkpoint.sequence, Sequence::Latest);
}

#[tokio::test(start_paused = true)]
async fn deleted_lease_at_latest_keeps_its_start() {
    let deleted = Lease { stream: Some(stream()), latest_from: Some(77), ..lease("1", Sequence::Latest) };
    let row = recreated(deleted, Arc::new(two_shards())).await;
    assert_eq!((row.checkpoint.sequence, row.latest_from), (Sequence::Latest, Some(77)));
}

#[tokio::test(start_paused = true)]
async fn held_shard_whose_row_is_in_no_scan_counts_as_read() {
    for (held, created) in [(BTreeSet::from(["1".into()]), false), (BTreeSet::new(), true)] {
        let there = lease("0", Sequence::Number(number("120")));
        let rows = Arc::new(Rows::default());
        rows.put(there.clone());
        let shard_sync = shard_sync(rows.clone(), Arc::new(two_shards()), Arc::new(crate::metrics::Discard));
        shard_sync.recognition.recognise(Some(stream()), BTreeSet::new());
        let seen = Snapshot {
            leads: Some(true),
            at: Some(Instant::now()),
            leases: Arc::new(vec![there]),
            held: Arc::new(held),
            ..Snapshot::default()
        };
        let (_coordinator, ends) = Coordinator::new(rows.clone(), crate::coordinator::tests::settings());
        let mut state = State::new(shard_sync.settings.clone(), Instant::now());
        for _ in 0..3 {
            shard_sync.handle(&mut state, Event::AuditDue(seen.clone()), &ends.handle).await;
            sleep(FAILOVER / 2).await;
        }
        assert_eq!(rows.row(&"1".into()).is_some(), created);
    }
}

#[tokio::test(start_paused = true)]
async fn leases_created_during_a_pause_are_paused() {
    let (on, off) = (Pause::new(true, 5, "ann"), Pause::new(false, 6, "ann"));
    let known = |order: &Pause| Lease {
        stream: Some(stream()),
        pause: Some(order.clone()),
        ..lease("0", Sequence::Number(number("120")))
    };
    let by_java = lease("2", Sequence::TrimHorizon);
    for (order, expected) in [(on.clone(), Some(on)), (off, None)] {
        let rows = Arc::new(Rows::default());
        rows.put(known(&order));
        rows.put(by_java.clone());
        let shards = listed(vec![shard("0", None), shard("1", None), shard("2", None)]);
        let sync = shard_sync(rows.clone(), Arc::new(shards), Arc::new(crate::metrics::Discard));
        let before = rows.list().await.unwrap();
        let created = sync.needed(&before).await.unwrap();
        assert_eq!(created[0].parking().is_some(), expected.is_some(), "the row of shard 1");
        sync.bring_orders(&before).await.unwrap();
        assert_eq!(rows.row(&"2".into()).unwrap().pause, expected);
        // The scan is old by now: the application was paused again and resumed.
        let later = Pause::new(false, 99, "bob");
        rows.put(Lease { pause: Some(later.clone()), ..by_java.clone() });
        sync.bring_orders(&before).await.unwrap();
        assert_eq!(rows.row(&"2".into()).unwrap().pause, Some(later));
    }
}

#[tokio::test(start_paused = true)]
async fn pause_outlives_the_recreation_of_the_stream() {
    let rows = Arc::new(Rows::default());
    let earlier = Some(StreamId::new(stream().arn(), 4));
    let pause = Some(Pause::new(true, 5, "ann"));
    rows.put(Lease { stream: earlier.clone(), ..lease("0", Sequence::Number(number("50"))) });
    rows.put(Lease { stream: earlier, pause: pause.clone(), ..lease("9", Sequence::Number(number("60"))) });
    let shards = Arc::new(listed(vec![shard("0", None), shard("1", None)]));
    let shard_sync = shard_sync(rows.clone(), shards, Arc::new(crate::metrics::Discard));
    shard_sync.recognise().await.unwrap();
    shard_sync.begin().await.unwrap();
    assert_eq!(rows.row(&"9".into()), None);
    for shard in ["0", "1"] {
        assert_eq!(rows.row(&shard.into()).unwrap().pause, pause, "{shard}");
    }
}

#[tokio::test(start_paused = true)]
async fn lease_at_latest_created_during_a_pause_is_dated() {
    let rows = Arc::new(Rows::default());
    let read = Lease { stream: Some(stream()), ..lease("0", Sequence::Number(number("150"))) };
    let on = Pause::new(true, 5, "ann");
    for (pause, is_dated) in [(on.clone(), true), (Pause::new(false, 6, "ann"), false)] {
        rows.put(Lease { pause: Some(pause), ..read.clone() });
        rows.remove(&"1".into());
        let shards = Arc::new(listed(vec![shard("0", None), shard("1", None)]));
        let shard_sync = shard_sync(rows.clone(), shards, Arc::new(crate::metrics::Discard));
        shard_sync.recognise().await.unwrap();
        shard_sync.begin().await.unwrap();
        let created = rows.row(&"1".into()).unwrap();
        assert_eq!(
            (created.checkpoint.sequence, created.latest_from.is_some()),
            (Sequence::Latest, is_dated)
        );
    }
}

/// The creation of a new stream's leases was interrupted: the others begin where the first ones did.
#[tokio::test(start_paused = true)]
async fn interrupted_creation_is_completed_at_its_initial_position() {
    let shards = || Arc::new(listed(vec![shard("0", None), shard("1", None)]));
    let rows = Arc::new(Rows::default());
    let mut created = shard_sync(rows.clone(), shards(), Arc::new(crate::metrics::Discard));
    created.settings.first = Some(InitialPosition::TrimHorizon);
    created.recognise().await.unwrap();
    created.begin().await.unwrap();
    let first = rows.row(&"0".into()).unwrap();
    assert_eq!(
        (first.checkpoint.sequence.as_str(), first.initial),
        ("TRIM_HORIZON", Some(InitialPosition::TrimHorizon))
    );
    // A row without a mark says nothing: this worker's own knowledge counts.
    rows.remove(&"1".into());
    rows.put(Lease { initial: None, ..first.clone() });
    created.begin().await.unwrap();
    assert_eq!(rows.row(&"1".into()).unwrap().checkpoint.sequence, Sequence::TrimHorizon);
    for initial in [first.initial, None] {
        rows.remove(&"1".into());
        rows.put(Lease { initial, checkpoint: Position::record(number("120"), 0), ..first.clone() });
        let other = shard_sync(rows.clone(), shards(), Arc::new(crate::metrics::Discard));
        other.recognise().await.unwrap();
        other.begin().await.unwrap();
        let completed = rows.row(&"1".into()).unwrap();
        let expected = initial.map_or(Sequence::Latest, InitialPosition::sequence);
        assert_eq!((completed.checkpoint.sequence, completed.initial), (expected, initial));
    }
}

#[tokio::test(start_paused = true)]
async fn first_row_of_another_worker_decides_the_initial_position() {
    let rows = Arc::new(Rows::default());
    let initial = Some(InitialPosition::TrimHorizon);
    let first = Lease { initial, stream: Some(stream()), ..lease("0", Sequence::TrimHorizon) };
    let begun = Begun { stream: listed(vec![shard("0", None), shard("1", None)]), rows: rows.clone(), first };
    let shard_sync = shard_sync(rows.clone(), Arc::new(begun), Arc::new(crate::metrics::Discard));
    shard_sync.recognise().await.unwrap();
    rows.remove(&"0".into());
    shard_sync.begin().await.unwrap();
    let other = rows.row(&"1".into()).unwrap();
    assert_eq!((other.checkpoint.sequence, other.initial), (Sequence::TrimHorizon, initial));
}
