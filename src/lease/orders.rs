//! Orders of an operator that are stored in the rows of leases: a parked shard, a paused application.
//!
//! Pure. Each order is an attribute of its own, so that a restart and another owner keep it. The owner of a lease sees it
//! in the row that each of its renewals returns, so within the failover time, or it has lost the lease. KCL ignores both
//! attributes and preserves them.
//!
//! | attribute | content | ends |
//! |---|---|---|
//! | `multilangdParked` | `MILLISECONDS OPERATOR` ([`Park`]) | when it is removed |
//! | `multilangdPause` | `paused` or `resumed`, then `MILLISECONDS OPERATOR` ([`Pause`]) | when it says `resumed` |
//!
//! A pause is an order for the whole application. Its rows cannot be written at once, and other workers create rows
//! meanwhile, so each row stores the last order that it received, and the newest one of all rows is in force
//! ([`in_force`]). Rows that lag are corrected ([`lagging`]). If a resumed row only lost its mark, a worker that has read
//! an older row would pause it again.

use std::fmt;
use std::sync::Arc;

use super::Lease;
use super::update::{Change, Requirement, Update};
use crate::sequence::Sequence;

/// The order to park one shard, as its row stores it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Park(Arc<str>);

impl Park {
    /// The order of an operator at a time in milliseconds since 1970.
    pub fn new(millis: i64, by: &str) -> Self {
        Self(format!("{millis} {by}").into())
    }

    /// The value of the attribute. Whatever it contains, the shard is parked.
    pub fn parse(text: &str) -> Self {
        Self(text.into())
    }

    /// Since when the shard is parked, in milliseconds since 1970; 0 if that is unreadable.
    pub fn since(&self) -> i64 {
        parts(&self.0).0
    }

    /// The operator.
    pub fn by(&self) -> &str {
        parts(&self.0).1
    }
}

impl fmt::Display for Park {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// The first word of an order that ends a pause.
const RESUMED: &str = "resumed";
const PAUSED: &str = "paused";

/// The last order for the whole application that a row has received.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Pause(Arc<str>);

impl Pause {
    /// The order of an operator at a time in milliseconds since 1970: to pause the application, or to resume it.
    pub fn new(is_on: bool, millis: i64, by: &str) -> Self {
        Self(format!("{} {millis} {by}", if is_on { PAUSED } else { RESUMED }).into())
    }

    /// The value of the attribute. A lease is paused unless it begins with `resumed`.
    pub fn parse(text: &str) -> Self {
        Self(text.into())
    }

    /// Whether the application is paused by this order.
    pub fn is_on(&self) -> bool {
        self.0.split(' ').next() != Some(RESUMED)
    }

    /// When the order was given, in milliseconds since 1970; 0 if that is unreadable.
    pub fn since(&self) -> i64 {
        self.parts().0
    }

    /// The operator.
    pub fn by(&self) -> &str {
        self.parts().1
    }

    /// Whether this order is the other one, or replaces it.
    pub fn covers(&self, other: &Self) -> bool {
        self.rank() >= other.rank()
    }

    fn parts(&self) -> (i64, &str) {
        parts(self.0.split_once(' ').map_or(&*self.0, |(_, rest)| rest))
    }

    /// A total order; of two orders of one millisecond, the one that pauses is the later one: nothing is lost by it.
    fn rank(&self) -> (i64, bool, &str) {
        (self.since(), self.is_on(), &self.0)
    }
}

impl fmt::Display for Pause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn parts(text: &str) -> (i64, &str) {
    let (millis, by) = text.split_once(' ').unwrap_or((text, ""));
    millis.parse().map_or((0, text), |millis| (millis, by))
}

/// Why the records of a lease are not delivered.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Parking {
    /// Whether the whole application is paused, and not only this shard parked.
    pub is_pause: bool,
    /// Since when, in milliseconds since 1970.
    pub since: i64,
    /// The operator.
    pub by: Arc<str>,
}

impl Lease {
    /// The order by which the records of this lease are not delivered; none if they are.
    pub fn parking(&self) -> Option<Parking> {
        if let Some(park) = &self.park {
            return Some(Parking { is_pause: false, since: park.since(), by: park.by().into() });
        }
        let pause = self.pause.as_ref().filter(|pause| pause.is_on())?;
        Some(Parking { is_pause: true, since: pause.since(), by: pause.by().into() })
    }
}

/// The newest order for the whole application: the one in force.
pub fn in_force(leases: &[Lease]) -> Option<&Pause> {
    leases.iter().filter_map(|lease| lease.pause.as_ref()).max_by_key(|pause| pause.rank())
}

/// The leases of unfinished shards that have not received the order in force. A row without an order needs none to be
/// resumed.
pub fn lagging<'a>(leases: &'a [Lease], in_force: &Pause) -> Vec<&'a Lease> {
    let lags = |lease: &&Lease| match &lease.pause {
        _ if lease.is_complete() => false,
        Some(pause) => pause.rank() < in_force.rank(),
        None => in_force.is_on(),
    };
    leases.iter().filter(lags).collect()
}

/// Parks a shard. Owner and counter are unchanged, so that no write of the owner fails.
pub fn park(lease: &Lease, park: &Park, latest_from: i64) -> Update {
    let mut changes = vec![Change::SetPark(park.clone())];
    changes.extend(dated(lease, latest_from));
    Update { requires: as_read(lease), changes }.fenced(lease)
}

/// Ends the parking of a shard.
pub fn unpark(lease: &Lease) -> Update {
    Update { requires: as_read(lease), changes: vec![Change::ClearPark] }.fenced(lease)
}

/// Pauses or resumes a lease with its application.
pub fn pause(lease: &Lease, pause: &Pause, latest_from: i64) -> Update {
    let mut changes = vec![Change::SetPause(pause.clone())];
    changes.extend(dated(lease, latest_from).filter(|_| pause.is_on()));
    Update { requires: as_read(lease), changes }.fenced(lease)
}

/// Brings the order in force to the row of a lease that is acquired, if the row lags. [`Update::date`] fills in the time
/// at which reading at `LATEST` begins.
#[must_use]
pub fn with_pause(mut update: Update, lease: &Lease, in_force: &Pause) -> Update {
    if !lagging(std::slice::from_ref(lease), in_force).is_empty() {
        update.requires.push(Requirement::Pause(lease.pause.clone()));
        update.changes.push(Change::SetPause(in_force.clone()));
        if in_force.is_on() && is_undated(lease) {
            update.begin_latest();
        }
    }
    update
}

/// Brings the order in force to a row that lags. A row that has received another order meanwhile is left alone, and so is
/// one whose owner has stored where it began to read. If the owner checkpoints meanwhile, the date is meaningless.
pub fn correct(lease: &Lease, in_force: &Pause, latest_from: i64) -> Update {
    let mut update = Update {
        requires: vec![Requirement::Exists, Requirement::Pause(lease.pause.clone())],
        changes: vec![Change::SetPause(in_force.clone())],
    };
    if in_force.is_on() && is_undated(lease) {
        update.begin_latest();
        update.date(latest_from);
    }
    update
}

/// Adds the order in force to a row that is about to be created.
pub fn include(lease: &mut Lease, in_force: &Pause, latest_from: i64) {
    lease.pause = Some(in_force.clone());
    if in_force.is_on() && is_undated(lease) {
        lease.latest_from = Some(latest_from);
    }
}

/// Reading at `LATEST` begins when the order was given, unless it has begun before: no record is skipped that is put
/// while the shard is parked.
fn dated(lease: &Lease, millis: i64) -> Option<Change> {
    is_undated(lease).then_some(Change::SetLatestFrom(millis))
}

fn is_undated(lease: &Lease) -> bool {
    lease.checkpoint.sequence == Sequence::Latest && lease.latest_from.is_none()
}

/// The row is as it was read: an acquisition, a checkpoint and the end of the shard increment the counter.
fn as_read(lease: &Lease) -> Vec<Requirement> {
    vec![
        Requirement::Exists,
        Requirement::Counter(lease.counter),
        Requirement::Park(lease.park.clone()),
        Requirement::Pause(lease.pause.clone()),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::lease::update;
    use crate::sequence::Position;
    use crate::shard::HashRange;

    fn lease(key: &str, pause: Option<Pause>) -> Lease {
        let at = Position::new(Sequence::TrimHorizon);
        let lease = Lease::new(key.into(), at, BTreeSet::new(), HashRange { start: 0, end: 9 });
        Lease { owner: Some("w".into()), counter: 4, pause, ..lease }
    }

    fn applied(update: &Update, lease: &Lease) -> Lease {
        assert!(update.holds(lease));
        let mut after = lease.clone();
        update.apply(&mut after);
        after
    }

    #[test]
    fn orders_read_back_with_time_and_operator() {
        let park = Park::parse(&Park::new(77, "ann on host").to_string());
        assert_eq!((park.since(), park.by()), (77, "ann on host"));
        let pause = Pause::parse(&Pause::new(true, 78, "ann").to_string());
        assert_eq!((pause.is_on(), pause.since(), pause.by()), (true, 78, "ann"));
        assert!(!Pause::parse("resumed 79 ann").is_on());
        for text in ["yes", "", "paused", "paused soon"] {
            assert!(Pause::parse(text).is_on(), "{text}");
            assert_eq!((Pause::parse(text).since(), Park::parse(text).since()), (0, 0), "{text}");
        }
    }

    #[test]
    fn either_order_parks_the_shard_until_it_ends() {
        let paused = lease("s", Some(Pause::new(true, 5, "ann")));
        let both = Lease { park: Some(Park::new(6, "bob")), ..paused.clone() };
        assert_eq!(both.parking(), Some(Parking { is_pause: false, since: 6, by: "bob".into() }));
        let resumed = applied(&pause(&both, &Pause::new(false, 7, "ann"), 0), &both);
        assert!(resumed.parking().is_some(), "resuming does not unpark");
        assert_eq!(applied(&unpark(&resumed), &resumed).parking(), None);
        assert_eq!(applied(&unpark(&both), &both).parking(), paused.parking(), "unparking does not resume");
    }

    #[test]
    fn orders_fail_no_write_of_the_owner() {
        let row = lease("s", None);
        for update in [park(&row, &Park::new(1, "a"), 0), pause(&row, &Pause::new(true, 1, "a"), 0)] {
            let after = applied(&update, &row);
            assert!(update::renew(&row).holds(&after) && update::take(&row, &"v".into()).holds(&after));
            assert!(!update.holds(&Lease { counter: 5, ..row.clone() }), "the row was renewed since");
            assert!(!update.holds(&after), "the order was given since");
        }
    }

    #[test]
    fn reading_at_latest_begins_with_the_order_at_the_latest() {
        let row = Lease { checkpoint: Position::new(Sequence::Latest), ..lease("s", None) };
        assert_eq!(applied(&park(&row, &Park::new(9, "a"), 9), &row).latest_from, Some(9));
        assert_eq!(applied(&pause(&row, &Pause::new(true, 9, "a"), 9), &row).latest_from, Some(9));
        let begun = Lease { latest_from: Some(3), ..row };
        assert_eq!(applied(&park(&begun, &Park::new(9, "a"), 9), &begun).latest_from, Some(3));
        let stored = lease("s", None);
        assert_eq!(applied(&park(&stored, &Park::new(9, "a"), 9), &stored).latest_from, None);
    }

    #[test]
    fn rows_that_lag_receive_the_newest_order() {
        let (on, off) = (Pause::new(true, 5, "a"), Pause::new(false, 6, "a"));
        let ended = Lease { checkpoint: Position::shard_end(), ..lease("e", None) };
        let rows = [lease("a", Some(on.clone())), lease("b", None), ended.clone()];
        assert_eq!(in_force(&rows), Some(&on));
        let shards = |rows: &[Lease], of: &Pause| {
            lagging(rows, of).iter().map(|lease| lease.key.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(shards(&rows, &on), ["b"]);
        let rows = [lease("a", Some(on.clone())), lease("b", Some(off.clone())), lease("c", None), ended];
        assert_eq!(in_force(&rows), Some(&off));
        assert_eq!(shards(&rows, &off), ["a"]);
        let stale = correct(&rows[0], &off, 0);
        assert!(!stale.holds(&lease("a", Some(Pause::new(true, 7, "a")))), "paused again since");
        assert_eq!(in_force(&[lease("c", None)]), None);
    }

    #[test]
    fn order_that_a_worker_brings_dates_reading_at_latest() {
        let on = Pause::new(true, 5, "ann");
        let row = Lease { checkpoint: Position::new(Sequence::Latest), ..lease("s", None) };
        assert_eq!(applied(&correct(&row, &on, 9), &row).latest_from, Some(9));
        let mut taken = with_pause(update::take(&row, &"v".into()), &row, &on);
        taken.date(9);
        assert_eq!(applied(&taken, &row).latest_from, Some(9));
        let mut new = row.clone();
        include(&mut new, &on, 9);
        assert_eq!((new.pause, new.latest_from), (Some(on.clone()), Some(9)));
        let begun = Lease { latest_from: Some(3), ..row.clone() };
        for update in [&correct(&row, &on, 9), &taken] {
            assert!(!update.holds(&begun), "its owner has begun to read since");
        }
        for update in [correct(&begun, &on, 9), with_pause(update::take(&begun, &"v".into()), &begun, &on)] {
            assert_eq!(applied(&update, &begun).latest_from, Some(3));
        }
        let resumed = correct(&Lease { pause: Some(on), ..row.clone() }, &Pause::new(false, 6, "ann"), 9);
        assert!(!resumed.changes.iter().any(|change| matches!(change, Change::SetLatestFrom(_))));
    }

    #[test]
    fn acquisition_from_an_older_scan_keeps_the_date_of_an_order() {
        let row = Lease { checkpoint: Position::new(Sequence::Latest), ..lease("s", None) };
        let process = crate::lease::ProcessId::new(5, "a", &"v".into());
        let mark = update::Mark { stream: None, process, stores_start: true };
        let mut taken = update::take(&row, &"v".into()).marked(&row, &mark);
        taken.date(20);
        assert_eq!(applied(&taken, &row).latest_from, Some(20));
        let parked = applied(&park(&row, &Park::new(9, "a"), 9), &row);
        assert!(!taken.holds(&parked), "the order is dated");
    }

    proptest! {
        /// Whatever prefix of an order was written, correcting the rows that lag ends, and leaves one order.
        #[test]
        fn correcting_rows_converges(orders in proptest::collection::vec(proptest::option::of((any::<bool>(), 0..4i64)), 1..8)) {
            let row = |(n, order): (usize, &Option<(bool, i64)>)| {
                lease(&n.to_string(), order.map(|(is_on, at)| Pause::new(is_on, at, "a")))
            };
            let mut rows: Vec<Lease> = orders.iter().enumerate().map(row).collect();
            let Some(newest) = in_force(&rows).cloned() else { return Ok(()) };
            let updates: Vec<_> = lagging(&rows, &newest).into_iter().map(|row| (row.key.clone(), correct(row, &newest, 0))).collect();
            for (key, update) in updates {
                let row = rows.iter_mut().find(|row| row.key == key).unwrap();
                prop_assert!(update.holds(row));
                update.apply(row);
            }
            prop_assert_eq!(in_force(&rows), Some(&newest));
            prop_assert!(lagging(&rows, &newest).is_empty());
            prop_assert!(rows.iter().all(|row| row.parking().is_some() == newest.is_on()));
        }
    }
}
