//! Tests of audits, lease cleanup and suspicions, event by event.

use super::*;
use crate::lease::history::History;
use crate::lease::orders::Pause;
use crate::lease::sync::InitialPosition;
use crate::metrics::Discard;
use crate::recognition::Identity;
use crate::sequence::{Position, Sequence, SequenceNumber};
use crate::shard::HashRange;
use crate::shard_sync::event::Made;

const SECOND: Duration = Duration::from_secs(1);
const FAILOVER: Duration = Duration::from_secs(10);
const WHOLE: HashRange = HashRange { start: 0, end: u128::MAX };

fn stream(created: i64) -> StreamId {
    StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/orders", created)
}

fn number(text: &str) -> Sequence {
    Sequence::Number(SequenceNumber::parse(text).unwrap())
}

fn lease(id: &str, checkpoint: Sequence) -> Lease {
    Lease::new(id.into(), Position::new(checkpoint), BTreeSet::new(), WHOLE)
}

fn owned(id: &str, owner: &str) -> Lease {
    Lease { owner: Some(owner.into()), ..lease(id, number("150")) }
}

/// A finished lease, whose child has begun.
fn finished(id: &str, owner: Option<&str>) -> [Lease; 2] {
    let child = format!("{id}-child");
    let parent = Lease {
        owner: owner.map(Into::into),
        children: BTreeSet::from([child.as_str().into()]),
        ..lease(id, Sequence::ShardEnd)
    };
    [parent, Lease { parents: BTreeSet::from([id.into()]), ..owned(&child, "me") }]
}

fn shard(id: &str, ended: bool) -> Shard {
    let parse = |text| SequenceNumber::parse(text).unwrap();
    Shard {
        id: id.into(),
        parent: None,
        adjacent_parent: None,
        range: WHOLE,
        starting: parse("100"),
        ending: ended.then(|| parse("999")),
    }
}

fn names(items: impl Iterator<Item = impl ToString>) -> String {
    items.map(|item| item.to_string()).collect::<Vec<_>>().join(" ")
}

/// An effect in short.
fn short(effect: &Effect) -> String {
    match effect {
        Effect::List(listing, filter) => format!("list {listing:?} {filter:?}"),
        Effect::Delete(leases) => format!("delete {}", names(leases.iter())),
        Effect::CompareIdentity(occasion, _) => format!("compare identity {occasion:?}"),
        Effect::Correct(what, rows) => {
            format!("correct {what:?} {}", names(rows.iter().map(|(key, _)| key)))
        }
        Effect::Reset(rows) => format!("reset {}", names(rows.iter().map(|row| &row.lease.key))),
        Effect::ReadRows(occasion) => format!("read rows {occasion:?}"),
        Effect::VerifyNumbers(numbers) => {
            format!("verify {}", names(numbers.iter().map(|(shard, _)| shard)))
        }
        Effect::Create(leases) => {
            let new = leases.iter().map(|lease| format!(" {}@{}", lease.key, lease.checkpoint));
            format!("create{}", new.collect::<String>())
        }
        Effect::Scan => "scan".to_owned(),
        Effect::Emit(OfWorker::Unread { shards, lasting }) => format!("unread {shards:?} {lasting}"),
        Effect::Emit(OfWorker::Did { step: Step::Audit(coverage), ok, .. }) => {
            format!("audited {coverage:?} {ok}")
        }
        Effect::Emit(other) => panic!("{other:?}"),
    }
}

struct Rig {
    state: State,
    moment: Moment,
    start: Instant,
    history: History,
    leads: Option<bool>,
    held: BTreeSet<LeaseKey>,
}

impl Rig {
    fn new() -> Self {
        let start = Instant::now();
        let settings = Settings {
            me: "me".into(),
            initial: InitialPosition::Latest,
            first: None,
            ignore_unexpected_children: false,
            skip_if_leases_exist: false,
            sync_pause: SECOND * 60,
            stream: "orders".to_owned(),
            listed: true,
            failover: FAILOVER,
            reaches: Reaches::default(),
            sink: Arc::new(Discard),
        };
        Self {
            state: State::new(settings, start),
            moment: Moment { now: start, past: 7, identity: Identity::new(Some(stream(5)), BTreeSet::new()) },
            start,
            history: History::default(),
            leads: Some(true),
            held: BTreeSet::new(),
        }
    }

    fn follower() -> Self {
        Self { leads: Some(false), ..Self::new() }
    }

    /// Sets the time since the start.
    fn at(&mut self, second: u32) -> &mut Self {
        self.moment.now = self.start + SECOND * second;
        self
    }

    fn on(&mut self, event: Event) -> Vec<String> {
        self.state.on(&self.moment, event).iter().map(short).collect()
    }

    /// The effects of an audit that is due now, after a scan that found these leases.
    fn audit(&mut self, leases: &[Lease]) -> Vec<String> {
        self.history.note_scan(leases, self.moment.now);
        let seen = Snapshot {
            leases: Arc::new(leases.to_vec()),
            history: Arc::new(self.history.clone()),
            live: BTreeSet::from(["me".into()]),
            held: Arc::new(self.held.clone()),
            leads: self.leads,
            at: Some(self.moment.now),
            ..Snapshot::default()
        };
        self.on(Event::AuditDue(seen))
    }

    /// An audit up to the comparison of these shards with the leases.
    fn compare(&mut self, leases: &[Lease], listed: Vec<Shard>) -> Vec<String> {
        assert_eq!(self.audit(leases), ["compare identity Comparison"]);
        assert_eq!(self.on(same(Occasion::Comparison)), ["list Comparison All"]);
        self.on(Event::Listed(Listing::Comparison, Ok(listed)))
    }
}

/// The identity is unchanged, and no row is foreign.
fn same(occasion: Occasion) -> Event {
    Event::IdentityCompared(occasion, Compared { foreign: None, started_over: Ok(false) })
}

fn failed<T>() -> Result<T, Error> {
    Err(Error::Table(table::Error::Throttled("slow down".to_owned())))
}

#[test]
fn audit_needs_a_scan() {
    let mut rig = Rig::new();
    assert_eq!(rig.state.audit_due(), rig.start + AUDIT);
    rig.at(30);
    assert_eq!(rig.on(Event::AuditDue(Snapshot::default())), [""; 0]);
    assert_eq!(rig.state.audit_due(), rig.start + AUDIT * 2);
}

#[test]
fn leader_compares_the_shards_once_per_sync_interval() {
    let (mut rig, leases) = (Rig::new(), [owned("0", "me")]);
    let end = ["unread Some(0) 0", "audited Whole true"];
    assert_eq!(rig.compare(&leases, vec![shard("0", false)]), end);
    assert_eq!(rig.at(59).audit(&leases), ["audited Whole true"]);
    assert_eq!(rig.at(60).compare(&leases, vec![shard("0", false)]), end);
}

#[test]
fn follower_counts_no_unread_shards_and_emits_no_audit() {
    assert_eq!(Rig::follower().audit(&[owned("0", "other")]), ["unread None 0"]);
}

#[test]
fn auditor_is_the_first_owner_where_no_leader_is_elected() {
    for (owner, expected) in [("me", "compare identity Comparison"), ("other", "unread None 0")] {
        let mut rig = Rig { leads: None, ..Rig::new() };
        assert_eq!(rig.audit(&[owned("0", owner)]), [expected]);
    }
}

#[test]
fn finished_lease_is_deleted_a_minute_later_by_its_owner() {
    let leases = finished("0", Some("me"));
    let mut rig = Rig::follower();
    assert_eq!(rig.audit(&leases), ["unread None 0"]);
    assert_eq!(rig.at(59).audit(&leases), ["unread None 0"]);
    assert_eq!(rig.at(60).audit(&leases), ["delete 0"]);
    assert_eq!(rig.on(Event::Deleted(Ok(()))), ["unread None 0"]);
}

#[test]
fn finished_lease_without_a_live_owner_is_deleted_by_the_leader() {
    for (owner, leads, deletes) in [
        (None, true, true),
        (None, false, false),
        (Some("dead"), true, true),
        (Some("dead"), false, false),
        (Some("other"), true, false),
    ] {
        let mut rig = Rig { leads: Some(leads), ..Rig::new() };
        let mut seen = Snapshot {
            leases: Arc::new(finished("0", owner).to_vec()),
            live: BTreeSet::from(["me".into(), "other".into()]),
            leads: rig.leads,
            ..Snapshot::default()
        };
        rig.history.note_scan(&seen.leases, rig.start);
        rig.at(60);
        (seen.history, seen.at) = (Arc::new(rig.history.clone()), Some(rig.moment.now));
        let effects = rig.on(Event::AuditDue(seen));
        assert_eq!(effects == ["delete 0"], deletes, "{owner:?} {leads}: {effects:?}");
    }
}

#[test]
fn finished_lease_of_an_earlier_stream_is_kept() {
    let mut rig = Rig::follower();
    let leases = finished("0", Some("me")).map(|lease| Lease { stream: Some(stream(4)), ..lease });
    rig.audit(&leases);
    assert_eq!(rig.at(60).audit(&leases), ["compare identity Audit"]);
}

#[test]
fn kinesis_is_asked_about_old_finished_leases_every_half_hour() {
    let mut rig = Rig::follower();
    let leases = [Lease { owner: Some("me".into()), ..lease("0", Sequence::ShardEnd) }, owned("1", "other")];
    let others = ["unread None 0"];
    assert_eq!(rig.audit(&leases), others);
    assert_eq!(rig.at(1_799).audit(&leases), others);
    assert_eq!(rig.at(1_800).audit(&leases), ["list Cleanup All"]);
    let listed = vec![shard("0", true), shard("1", false)];
    assert_eq!(rig.on(Event::Listed(Listing::Cleanup, Ok(listed))), others, "still listed");
    assert_eq!(rig.at(3_599).audit(&leases), others, "asked a moment ago");
    assert_eq!(rig.at(3_600).audit(&leases), ["list Cleanup All"]);
    let effects = rig.on(Event::Listed(Listing::Cleanup, Ok(vec![shard("1", false)])));
    assert_eq!(effects, ["delete 0"], "past retention");
}

#[test]
fn forgotten_lease_of_a_live_worker_is_left_to_it() {
    let mut rig = Rig::follower();
    let mine = Lease { owner: Some("me".into()), ..lease("0", Sequence::ShardEnd) };
    let leases = [mine.clone(), Lease { owner: Some("other".into()), key: "1".into(), ..mine }];
    rig.audit(&leases);
    rig.at(1_800).audit(&leases);
    assert_eq!(rig.on(Event::Listed(Listing::Cleanup, Ok(vec![shard("2", false)]))), ["delete 0"]);
}

#[test]
fn failed_request_ends_the_audit_and_the_next_one_begins_anew() {
    let leases = finished("0", None);
    let mut rig = Rig::new();
    rig.history.note_scan(&leases, rig.start);
    assert_eq!(rig.at(60).audit(&leases), ["delete 0"]);
    assert_eq!(rig.on(Event::Deleted(failed())), ["audited Whole false"]);
    assert_eq!(rig.on(Event::Deleted(Ok(()))), [""; 0], "the audit has ended");
    assert_eq!(rig.at(90).audit(&leases), ["delete 0"]);
    assert_eq!(rig.on(Event::Deleted(Ok(()))), ["compare identity Comparison"]);
}

#[test]
fn each_failed_request_ends_an_audit_without_a_comparison() {
    let failures: [fn() -> Event; 9] = [
        || Event::Listed(Listing::Comparison, failed()),
        || Event::Deleted(failed()),
        || Event::IdentityCompared(Occasion::Comparison, Compared { foreign: None, started_over: failed() }),
        || Event::IdentityCompared(Occasion::Audit, Compared { foreign: None, started_over: failed() }),
        || Event::Corrected(Correction::Ranges, failed()),
        || Event::Reset(failed()),
        || Event::RowsRead(Occasion::Comparison, failed()),
        || Event::NumbersVerified(failed()),
        || Event::Created(failed()),
    ];
    for failure in failures {
        let (mut rig, leases) = (Rig::new(), [owned("0", "me")]);
        rig.audit(&leases);
        assert_eq!(rig.on(failure()), ["audited Whole false"], "{:?}", failure());
        assert_eq!(rig.at(30).audit(&leases), ["compare identity Comparison"], "it is not postponed");
    }
}

#[test]
fn row_with_another_mark_is_compared_in_each_audit() {
    let mut rig = Rig::follower();
    let leases = [Lease { stream: Some(stream(4)), ..owned("0", "me") }];
    for second in [0, 30] {
        assert_eq!(rig.at(second).audit(&leases), ["compare identity Audit"]);
        assert_eq!(rig.on(same(Occasion::Audit)), ["unread None 0"]);
    }
}

#[test]
fn unknown_identity_is_requested_every_five_minutes() {
    let mut rig = Rig::follower();
    rig.moment.identity = Identity::default();
    let mut asked = Vec::new();
    for second in (0..700).step_by(30) {
        if rig.at(second).audit(&[owned("0", "me")]) == ["compare identity Audit"] {
            rig.on(same(Occasion::Audit));
            asked.push(second);
        }
    }
    assert_eq!(asked, [0, 300, 600]);
}

#[test]
fn leases_that_started_over_are_scanned() {
    let mut rig = Rig::follower();
    rig.audit(&[Lease { stream: Some(stream(4)), ..owned("0", "me") }]);
    let compared = Compared { foreign: None, started_over: Ok(true) };
    assert_eq!(rig.on(Event::IdentityCompared(Occasion::Audit, compared)), ["scan", "unread None 0"]);
}

#[test]
fn foreign_rows_end_no_audit() {
    let mut rig = Rig::follower();
    rig.audit(&[Lease { stream: Some(stream(4)), ..owned("0", "me") }]);
    let foreign = Some(Foreign::Positions { configured: "orders".to_owned(), example: String::new() });
    let compared = Compared { foreign, started_over: Ok(false) };
    assert_eq!(rig.on(Event::IdentityCompared(Occasion::Audit, compared)), ["unread None 0"]);
    assert_eq!(rig.state.reported, Some(rig.start), "logged");
}

#[test]
fn order_is_brought_to_rows_that_lack_it() {
    let paused = Lease { pause: Some(Pause::new(true, 5, "ann")), ..owned("0", "other") };
    let leases = [paused, owned("1", "me"), owned("2", "other")];
    let mut rig = Rig::new();
    assert_eq!(rig.audit(&leases), ["correct Orders 1 2"]);
    let corrected = Event::Corrected(Correction::Orders, Ok(vec!["1".into()]));
    assert_eq!(rig.on(corrected), ["compare identity Comparison"]);
    assert_eq!(Rig::follower().audit(&leases), ["correct Orders 1"], "its own");
}

#[test]
fn rows_without_a_range_get_that_of_their_shard() {
    let leases = [Lease { range: None, ..owned("0", "me") }, owned("1", "me")];
    let mut rig = Rig::new();
    assert_eq!(rig.audit(&leases), ["list Ranges All"]);
    let listed = vec![shard("0", false), shard("1", false)];
    assert_eq!(rig.on(Event::Listed(Listing::Ranges, Ok(listed))), ["correct Ranges 0"]);
    let corrected = Event::Corrected(Correction::Ranges, Ok(vec!["0".into()]));
    assert_eq!(rig.on(corrected), ["compare identity Comparison"]);
    rig.audit(&leases);
    let without = Event::Listed(Listing::Ranges, Ok(vec![shard("1", false)]));
    assert_eq!(rig.on(without), ["compare identity Comparison"], "its shard is not listed");
}

#[test]
fn hole_is_confirmed_by_three_audits() {
    let leases = [Lease { range: Some(HashRange { start: 0, end: 9 }), ..owned("0", "me") }];
    let mut rig = Rig::new();
    let listed = || vec![shard("0", false)];
    assert_eq!(rig.compare(&leases, listed()), ["unread Some(0) 0", "audited Hole true"]);
    assert_eq!(rig.at(30).audit(&leases), ["audited Hole true"]);
    let synced = ["unread Some(0) 0", "audited Confirmed { synced: true } true"];
    assert_eq!(rig.at(60).compare(&leases, listed()), synced);
    assert_eq!(rig.at(90).audit(&leases), ["audited Confirmed { synced: false } true"]);
}

#[test]
fn follower_forgets_the_hole() {
    let leases = [Lease { range: Some(HashRange { start: 0, end: 9 }), ..owned("0", "me") }];
    let mut rig = Rig::new();
    for second in [0, 60] {
        rig.at(second).compare(&leases, vec![shard("0", false)]);
    }
    rig.leads = Some(false);
    rig.at(90).audit(&leases);
    rig.leads = Some(true);
    assert_eq!(rig.at(120).compare(&leases, vec![shard("0", false)])[1], "audited Hole true");
}

#[test]
fn finished_row_of_an_open_shard_is_reset_once_it_has_lasted() {
    let mut rig = Rig::new();
    let leases = [Lease { owner: Some("me".into()), ..lease("0", Sequence::ShardEnd) }];
    let open = || vec![shard("0", false)];
    let first = ["unread Some(1) 0", "audited Hole true"];
    assert_eq!(rig.compare(&leases, open()), first, "ListShards may lag behind the end of a shard");
    assert_eq!(rig.at(60).compare(&leases, open()), ["unread Some(1) 1", "reset 0"]);
    assert_eq!(rig.on(Event::Reset(Ok(true))), ["scan", "audited Hole true"]);
    assert_eq!(rig.at(120).compare(&leases, open())[1], "reset 0");
    assert_eq!(rig.on(Event::Reset(Ok(false)))[0], "audited Confirmed { synced: true } true");
}

#[test]
fn checkpoint_before_the_start_of_its_shard_is_reset_if_marked() {
    for (mark, resets) in [(Some(stream(5)), true), (Some(stream(4)), false), (None, false)] {
        let row = Lease { stream: mark, ..lease("0", number("50")) };
        let identity = Identity::new(Some(stream(5)), BTreeSet::new());
        let found = crate::shard_sync::open_shards::wrong(&[row], &[shard("0", false)], &identity, |_| true);
        assert_eq!(!found.is_empty(), resets);
    }
}

#[test]
fn missing_lease_is_created_after_a_failover_time() {
    let mut rig = Rig::new();
    let leases = [owned("0", "me")];
    let listed = || vec![shard("0", false), shard("1", false)];
    let first = ["unread Some(1) 0", "audited Whole true"];
    assert_eq!(rig.compare(&leases, listed()), first, "its owner may restore it");
    assert_eq!(rig.at(9).compare(&leases, listed()), ["unread Some(1) 1", "audited Whole true"]);
    assert_eq!(rig.at(10).compare(&leases, listed()), ["unread Some(1) 1", "read rows Comparison"]);
    let rows = Event::RowsRead(Occasion::Comparison, Ok(leases.to_vec()));
    assert_eq!(rig.on(rows), ["list Missing All"]);
    assert_eq!(rig.on(Event::Listed(Listing::Missing, Ok(listed()))), ["create 1@LATEST"]);
    let made = Made { new: 1, ..Made::default() };
    assert_eq!(rig.on(Event::Created(Ok(made))), ["scan", "audited Whole true"]);
    assert_eq!(rig.state.synced, Some(rig.moment.now));
}

#[test]
fn held_shard_without_a_readable_row_counts_as_read() {
    let mut rig = Rig { held: BTreeSet::from(["1".into()]), ..Rig::new() };
    for second in [0, 60] {
        let effects = rig.at(second).compare(&[owned("0", "me")], vec![shard("0", false), shard("1", false)]);
        assert_eq!(effects, ["unread Some(0) 0", "audited Whole true"]);
    }
}

#[test]
fn lost_table_starts_with_the_initial_shards() {
    let mut rig = Rig::new();
    for second in [0, 60] {
        rig.at(second).compare(&[], vec![shard("0", false)]);
    }
    assert_eq!(rig.on(Event::RowsRead(Occasion::Comparison, Ok(Vec::new()))), ["list Missing AtLatest"]);
    let listed = Ok(vec![shard("0", false)]);
    assert_eq!(rig.on(Event::Listed(Listing::Missing, listed)), ["create 0@LATEST"]);
}

#[test]
fn inconsistent_shards_end_the_audit() {
    let mut rig = Rig::new();
    for second in [0, 60] {
        rig.at(second).compare(&[owned("0", "me")], vec![shard("0", false), shard("1", false)]);
    }
    rig.on(Event::RowsRead(Occasion::Comparison, Ok(vec![owned("0", "me")])));
    let child = Shard { parent: Some("0".into()), ..shard("1", false) };
    let effects = rig.on(Event::Listed(Listing::Missing, Ok(vec![shard("0", false), child])));
    assert_eq!(effects, ["audited Whole false"]);
}

/// A leader that has read the row of shard 1, which was deleted since, up to the read of the present rows.
fn deleted(mark: Option<StreamId>) -> (Rig, Vec<String>) {
    let mut rig = Rig::new();
    let there = owned("0", "me");
    rig.history.note_scan(&[there.clone(), Lease { stream: mark, ..lease("1", number("150")) }], rig.start);
    let listed = || vec![shard("0", false), shard("1", false)];
    rig.compare(std::slice::from_ref(&there), listed());
    let effects = rig.at(60).compare(std::slice::from_ref(&there), listed());
    assert_eq!(effects, ["unread Some(1) 1", "read rows Comparison"]);
    let effects = rig.on(Event::RowsRead(Occasion::Comparison, Ok(vec![there])));
    (rig, effects)
}

#[test]
fn deleted_lease_of_this_stream_is_restored_at_its_checkpoint() {
    let listed = || Event::Listed(Listing::Missing, Ok(vec![shard("0", false), shard("1", false)]));
    let (mut ours, effects) = deleted(Some(stream(5)));
    assert_eq!(effects, ["list Missing All"]);
    assert_eq!(ours.on(listed()), ["create 1@150"]);
    let (mut of_another, effects) = deleted(Some(stream(1)));
    assert_eq!(effects, ["list Missing All"]);
    assert_eq!(of_another.on(listed()), ["create 1@LATEST"]);
    for (refused, expected) in [(BTreeSet::new(), "create 1@150"), (["1".into()].into(), "create 1@LATEST")] {
        let (mut by_java, effects) = deleted(None);
        assert_eq!(effects, ["verify 1"]);
        assert_eq!(by_java.on(Event::NumbersVerified(Ok(refused))), ["list Missing All"]);
        assert_eq!(by_java.on(listed()), [expected]);
    }
}

#[test]
fn lease_that_may_be_restored_postpones_all_and_repeats_the_comparison() {
    let mut rig = Rig::new();
    let listed = || vec![shard("0", false), shard("1", false), shard("2", false)];
    let there = owned("0", "me");
    rig.compare(std::slice::from_ref(&there), listed());
    rig.at(60).compare(std::slice::from_ref(&there), listed());
    rig.on(Event::RowsRead(Occasion::Comparison, Ok(vec![there.clone()])));
    // The row of shard 2 was seen to be deleted a moment ago.
    rig.state.rowless.insert("2".into(), rig.moment.now - SECOND);
    assert_eq!(rig.on(Event::Listed(Listing::Missing, Ok(listed()))), ["audited Whole true"]);
    assert_eq!(rig.state.synced, Some(rig.start), "this comparison does not count");
}

#[test]
fn nothing_missing_after_all_ends_the_comparison() {
    let mut rig = Rig::new();
    let listed = || vec![shard("0", false), shard("1", false)];
    for second in [0, 60] {
        rig.at(second).compare(&[owned("0", "me")], listed());
    }
    rig.on(Event::RowsRead(Occasion::Comparison, Ok(vec![owned("0", "me"), owned("1", "other")])));
    assert_eq!(rig.on(Event::Listed(Listing::Missing, Ok(listed()))), ["audited Whole true"]);
    assert_eq!(rig.state.synced, Some(rig.moment.now));
}

#[test]
fn suspicion_compares_the_present_rows() {
    let mut rig = Rig::new();
    assert_eq!(rig.state.suspicion_due(), None);
    assert_eq!(rig.on(Event::Suspected), [""; 0]);
    assert_eq!(rig.state.suspicion_due(), Some(rig.start + GATHER));
    assert_eq!(rig.at(1).on(Event::SuspicionDue), ["read rows Suspicion"]);
    assert_eq!(rig.state.suspicion_due(), None);
    assert_eq!(rig.on(Event::RowsRead(Occasion::Suspicion, Ok(Vec::new()))), ["compare identity Suspicion"]);
    let compared = Compared { foreign: None, started_over: Ok(true) };
    assert_eq!(rig.on(Event::IdentityCompared(Occasion::Suspicion, compared)), ["scan"]);
}

#[test]
fn suspicions_in_vain_are_examined_ever_more_rarely() {
    let mut rig = Rig::new();
    let mut pauses = Vec::new();
    let examine = |rig: &mut Rig, outcome: Result<Vec<Lease>, Error>| {
        rig.on(Event::Suspected);
        let due = rig.state.suspicion_due().unwrap();
        let pause = due - rig.moment.now;
        rig.moment.now = due;
        rig.on(Event::SuspicionDue);
        rig.on(Event::RowsRead(Occasion::Suspicion, outcome));
        pause
    };
    for round in 0..4 {
        pauses.push(examine(&mut rig, if round == 2 { failed() } else { Ok(Vec::new()) }));
        if round != 2 {
            rig.on(same(Occasion::Suspicion));
        }
    }
    assert_eq!(pauses, [GATHER, SECOND * 2, SECOND * 4, SECOND * 6]);
    rig.state.in_vain = 1_000;
    assert_eq!(examine(&mut rig, Ok(Vec::new())), AUDIT * 2, "the longest pause");
    rig.moment.identity = Identity::new(Some(stream(6)), BTreeSet::new());
    rig.on(same(Occasion::Suspicion));
    assert_eq!(examine(&mut rig, Ok(Vec::new())), GATHER, "the stream was another one");
}
