//! The leader lock for its observers and its holder.
//!
//! Clocks are never compared. A worker that takes the lock over must have seen the same version of its row
//! for longer than the lock's duration in the row; the holder counts from before its last confirmed write. A
//! row that names this worker proves nothing: it may be from before a restart. After an ambiguous answer the
//! row is read, and its version shows which worker wrote it.
//!
//! multilangd's lock lasts one and a half failover times instead of Java's two minutes, with correspondingly
//! frequent heartbeats, so that a dead leader is replaced by the time its leases have expired. Observers use
//! the duration in the row, also that of a Java worker.
//!
//! In KCL: `DynamoDBLockBasedLeaderDecider` on `AmazonDynamoDBLockClient`.

use std::time::Duration;

use tokio::time::Instant;

use super::rows::Lock;
use super::store::{LockWrite, Over};
use crate::lease::WorkerId;
use crate::lease::table::Error;

/// The duration of a Java worker's lock, and of a row that does not name one.
pub const JAVA: Duration = Duration::from_secs(120);
/// The longest duration of a multilangd worker's lock. It differs from Java's: the duration tells observers which of the
/// two the leader is.
const LONGEST: Duration = JAVA.saturating_sub(Duration::from_secs(1));

/// Whether the leader is a multilangd worker, which nudges the workers to which it assigns leases.
pub fn is_of_multilangd(row: &Lock) -> bool {
    row.lease != JAVA
}

/// How this worker stands for the lead.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Terms {
    /// The worker.
    pub me: WorkerId,
    /// How long the lock lasts without a heartbeat.
    pub lease: Duration,
    /// The time between two heartbeats.
    pub beat: Duration,
    /// Between looks at another's lock.
    pub look: Duration,
}

impl Terms {
    /// As leases last.
    pub fn new(me: WorkerId, failover: Duration) -> Self {
        let lease = (failover * 8 / 5).min(LONGEST);
        Self { me, lease, beat: lease * 2 / 5, look: lease / 2 }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Observed {
    version: String,
    since: Instant,
    lease: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Hold {
    version: String,
    /// When the last write began that is known to have happened.
    proven: Instant,
}

/// The next action on the lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Read the row.
    Read,
    /// Write it.
    Write(LockWrite),
    /// Nothing now.
    Nothing,
}

/// The lock as this worker knows it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Election {
    terms: Terms,
    observed: Option<Observed>,
    held: Option<Hold>,
    /// The last write without a clear answer: its version, and when it was sent.
    unanswered: Option<(String, Instant)>,
    /// Not a candidate before.
    away: Option<Instant>,
    /// Writes that DynamoDB has refused since the last one that it carried out.
    refusals: u32,
    /// The lock is not written before.
    retry: Option<Instant>,
}

impl Election {
    /// Nothing is known yet.
    pub fn new(terms: Terms) -> Self {
        Self { terms, observed: None, held: None, unanswered: None, away: None, refusals: 0, retry: None }
    }

    /// Whether this worker leads. To be asked before each batch of a leader's writes.
    pub fn leads(&self, now: Instant) -> bool {
        self.until().is_some_and(|until| now < until)
    }

    /// Until when it leads if it is never heard of again.
    pub fn until(&self) -> Option<Instant> {
        // A beat less, for what is under way when it ends.
        self.held.as_ref().map(|hold| hold.proven + self.terms.lease - self.terms.beat / 4)
    }

    /// Whether the lock of another has stood still for so long that its holder may be gone.
    pub fn is_suspect(&self, now: Instant) -> bool {
        self.suspect_at().is_some_and(|at| now >= at)
    }

    /// When that will be the case, if the lock stands still as long.
    pub fn suspect_at(&self) -> Option<Instant> {
        let seen = self.observed.as_ref().filter(|_| self.held.is_none())?;
        // Past the next look, where a live leader's lock has moved.
        Some(seen.since + (seen.lease / 2).max(self.terms.look.mul_f64(1.1)))
    }

    /// When to ask for the next step.
    pub fn due(&self, now: Instant) -> Instant {
        match &self.held {
            Some(hold) if self.unanswered.is_none() => self
                .retry
                .map_or(hold.proven + self.terms.beat, |retry| retry.max(hold.proven + self.terms.beat)),
            Some(_) => self.retry.unwrap_or(now).max(now + self.terms.beat / 4),
            None => {
                let look = now + self.terms.look;
                let ripe = self.observed.as_ref().map(|seen| seen.since + seen.lease + self.terms.beat / 8);
                let next = ripe.filter(|ripe| *ripe > now).map_or(look, |ripe| ripe.min(look));
                self.retry.filter(|retry| *retry > now).map_or(next, |retry| retry.min(next))
            }
        }
    }

    /// The next step: a heartbeat, or a read.
    pub fn next(&mut self, now: Instant, version: impl FnOnce() -> String) -> Next {
        match &self.held {
            Some(hold) if now >= hold.proven + self.terms.lease => {
                (self.held, self.unanswered) = (None, None);
                Next::Read
            }
            Some(hold) if self.unanswered.is_none() => {
                let write = LockWrite::Beat { row: self.row(version()), was: hold.version.clone() };
                self.sent(now, &write);
                Next::Write(write)
            }
            Some(_) | None => Next::Read,
        }
    }

    fn row(&self, version: String) -> Lock {
        Lock { owner: self.terms.me.clone(), lease: self.terms.lease, version, released: false }
    }

    fn sent(&mut self, now: Instant, write: &LockWrite) {
        if let LockWrite::Acquire { row, .. } | LockWrite::Beat { row, .. } = write {
            self.unanswered = Some((row.version.clone(), now));
        }
    }

    /// The answer to a write.
    pub fn written(&mut self, outcome: &Result<(), Error>) {
        if outcome.is_ok()
            && let Some((version, proven)) = self.unanswered.take()
        {
            (self.held, self.observed) = (Some(Hold { version, proven }), None);
            (self.refusals, self.retry) = (0, None);
        }
        // Whatever else it is, the row says more: the next step is to read it.
    }

    /// DynamoDB refused a write: the next waits, twice as long each time. A holder tries again while its lock lasts.
    pub fn refused(&mut self, now: Instant) {
        let most = if self.held.is_some() { self.terms.beat / 2 } else { LONGEST / 2 };
        let pause = (self.terms.beat / 4).saturating_mul(1 << self.refusals.min(16)).min(most);
        self.refusals = self.refusals.saturating_add(1);
        self.retry = Some(now + pause);
    }

    /// Whether nobody leads, as far as this row says, which was read now.
    pub fn is_vacant(&self, now: Instant, row: Option<&Lock>) -> bool {
        let free = row.is_none_or(|row| row.released);
        let expired = || {
            let seen = self.observed.as_ref();
            seen.is_some_and(|seen| now.saturating_duration_since(seen.since) > seen.lease)
        };
        !self.leads(now) && (free || expired())
    }

    /// The row, and what follows from it.
    pub fn read(&mut self, now: Instant, row: Option<&Lock>, version: impl FnOnce() -> String) -> Next {
        if let (Some((sent, proven)), Some(row)) = (self.unanswered.take(), row)
            && row.version == sent
            && row.owner == self.terms.me
        {
            self.held = Some(Hold { version: sent, proven });
            return Next::Nothing;
        }
        if let (Some(hold), Some(row)) = (&self.held, row)
            && row.version == hold.version
        {
            // The write has not arrived so far.
            let write = LockWrite::Beat { row: self.row(version()), was: hold.version.clone() };
            self.sent(now, &write);
            return Next::Write(write);
        }
        self.held = None;
        let over = match row {
            None => Some(Over::Nothing),
            Some(row) if row.released => Some(Over::Released),
            Some(row) => {
                let same = self.observed.as_ref().filter(|seen| seen.version == row.version);
                let since = same.map_or(now, |seen| seen.since);
                self.observed = Some(Observed { version: row.version.clone(), since, lease: row.lease });
                let over = || if row.is_broken() { Over::Broken } else { Over::Stale(row.version.clone()) };
                (now.saturating_duration_since(since) > row.lease).then(over)
            }
        };
        let before = |until: &Option<Instant>| until.is_some_and(|until| now < until);
        let away = before(&self.away) || before(&self.retry);
        match over.filter(|_| !away) {
            Some(over) => {
                let write = LockWrite::Acquire { row: self.row(version()), over };
                self.sent(now, &write);
                Next::Write(write)
            }
            None => Next::Nothing,
        }
    }

    /// Lets go, and stands back until then so that somebody else can win. The write, if one is needed.
    pub fn stand_back(&mut self, until: Instant) -> Option<LockWrite> {
        self.away = Some(until);
        self.unanswered = None;
        let hold = self.held.take()?;
        Some(LockWrite::Release { owner: self.terms.me.clone(), was: hold.version })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::memory::Rows;
    use crate::fleet::rows::StateLocation;
    use proptest::prelude::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn election(me: &str) -> Election {
        Election::new(Terms::new(me.into(), SECOND * 10))
    }

    fn step(election: &mut Election, rows: &mut Rows, now: Instant, number: u32) {
        let version = || number.to_string();
        let mut next = election.next(now, version);
        for _ in 0..3 {
            next = match next {
                Next::Nothing => return,
                Next::Read => {
                    let row = rows.lock.get(&StateLocation::Leases).cloned();
                    election.read(now, row.as_ref(), version)
                }
                Next::Write(write) => {
                    let outcome = rows.write_lock(StateLocation::Leases, &write);
                    election.written(&outcome);
                    if outcome.is_ok() { Next::Nothing } else { Next::Read }
                }
            };
        }
    }

    #[test]
    fn dead_leaders_lock_is_taken_over_after_its_duration() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let lock = Lock { owner: "java".into(), lease: SECOND * 120, version: "v".into(), released: false };
        rows.lock.insert(StateLocation::Leases, lock);
        let mut me = election("me");
        let mut seconds = 0;
        while !me.leads(start + SECOND * seconds) {
            step(&mut me, &mut rows, start + SECOND * seconds, seconds);
            seconds += 4;
        }
        assert!((121..=130).contains(&seconds), "{seconds}");
        assert_eq!(rows.lock[&StateLocation::Leases].lease, SECOND * 16, "the row is ours");
    }

    #[test]
    fn leader_is_recognised_as_multilangd_with_any_failover_time() {
        for seconds in [1, 10, 74, 75, 100, 3_600] {
            let mut me = Election::new(Terms::new("me".into(), SECOND * seconds));
            let Next::Write(LockWrite::Acquire { row, .. }) = me.read(Instant::now(), None, || "v".into())
            else {
                panic!("the lock is free")
            };
            assert!(is_of_multilangd(&row), "failover time of {seconds} s: {row:?}");
        }
        let java = Lock { owner: "j".into(), lease: SECOND * 120, version: "v".into(), released: false };
        assert!(!is_of_multilangd(&java));
    }

    #[test]
    fn row_that_names_this_worker_is_no_proof() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let lock = Lock { owner: "me".into(), lease: SECOND * 12, version: "v".into(), released: false };
        rows.lock.insert(StateLocation::Leases, lock);
        let mut me = election("me");
        step(&mut me, &mut rows, start, 1);
        step(&mut me, &mut rows, start + SECOND * 12, 2);
        assert!(!me.leads(start + SECOND * 12));
        step(&mut me, &mut rows, start + SECOND * 13, 3);
        assert!(me.leads(start + SECOND * 13));
    }

    #[test]
    fn unanswered_write_counts_from_its_start() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let mut me = election("me");
        assert_eq!(me.next(start, || unreachable!()), Next::Read);
        let Next::Write(write) = me.read(start, None, || "a".into()) else { panic!("no candidate") };
        rows.write_lock(StateLocation::Leases, &write).unwrap();
        me.written(&Err(Error::Ambiguous(String::new())));
        assert!(!me.leads(start));
        assert_eq!(me.next(start + SECOND, || unreachable!()), Next::Read);
        let row = rows.lock[&StateLocation::Leases].clone();
        assert_eq!(me.read(start + SECOND * 5, Some(&row), || unreachable!()), Next::Nothing);
        assert!(
            me.leads(start + SECOND * 14) && !me.leads(start + SECOND * 15),
            "from the start of the write"
        );
    }

    #[test]
    fn refused_writes_back_off_while_reads_continue() {
        let start = Instant::now();
        let mut me = election("me");
        let (mut now, mut writes, mut reads) = (start, Vec::new(), 0);
        while now < start + SECOND * 600 {
            assert_eq!(me.next(now, || unreachable!()), Next::Read);
            reads += 1;
            if let Next::Write(_) = me.read(now, None, || "a".into()) {
                writes.push((now - start).as_secs());
                me.written(&Err(Error::Throttled(String::new())));
                me.refused(now);
            }
            now = me.due(now);
        }
        assert!(writes.len() <= 16 && reads >= 75, "{writes:?}, {reads} reads");
        assert_eq!(me.read(now + SECOND * 60, None, || "b".into()), {
            let row = Lock { owner: "me".into(), lease: SECOND * 16, version: "b".into(), released: false };
            Next::Write(LockWrite::Acquire { row, over: Over::Nothing })
        });
        me.written(&Ok(()));
        assert_eq!(me.due(now + SECOND * 60), now + SECOND * 60 + me.terms.beat, "as if nothing had been");
    }

    #[test]
    fn holder_retries_refused_writes_before_expiry() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let mut me = election("me");
        step(&mut me, &mut rows, start, 1);
        let (mut now, mut writes) = (me.due(start), 0);
        while me.leads(now) {
            let mut next = me.next(now, || "b".into());
            if next == Next::Read {
                next = me.read(now, rows.lock.get(&StateLocation::Leases), || "b".into());
            }
            assert!(matches!(next, Next::Write(_)));
            writes += 1;
            me.written(&Err(Error::Throttled(String::new())));
            me.refused(now);
            now = me.due(now);
        }
        assert!((3..=6).contains(&writes), "{writes}");
    }

    #[test]
    fn broken_row_is_replaced_after_the_longest_duration() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let lock = Lock { owner: "".into(), lease: JAVA, version: String::new(), released: false };
        rows.lock.insert(StateLocation::Leases, lock);
        let mut me = election("me");
        let mut seconds = 0;
        while !me.leads(start + SECOND * seconds) {
            step(&mut me, &mut rows, start + SECOND * seconds, seconds);
            seconds += 4;
            let vacant = me.is_vacant(start + SECOND * seconds, rows.lock.get(&StateLocation::Leases));
            assert_eq!(vacant, (121..128).contains(&seconds), "{seconds}");
        }
        assert!((121..=130).contains(&seconds), "{seconds}");
    }

    #[test]
    fn released_lock_is_not_reacquired_at_once() {
        let start = Instant::now();
        let mut rows = Rows::default();
        let (mut me, mut other) = (election("me"), election("other"));
        step(&mut me, &mut rows, start, 1);
        step(&mut other, &mut rows, start, 2);
        assert!(me.leads(start) && !other.leads(start));
        let write = me.stand_back(start + SECOND * 12).unwrap();
        rows.write_lock(StateLocation::Leases, &write).unwrap();
        step(&mut me, &mut rows, start + SECOND, 3);
        assert!(!me.leads(start + SECOND));
        step(&mut other, &mut rows, start + SECOND * 4, 4);
        assert!(other.leads(start + SECOND * 4));
    }

    proptest! {
        /// Several workers, any order, any answers: never do two of them lead.
        #[test]
        fn at_most_one_worker_leads(moves in prop::collection::vec((0..3usize, 0..4u8, 0..5_000u64), 1..300)) {
            let mut now = Instant::now();
            let mut rows = Rows::default();
            let mut all: Vec<Election> = ["a", "b", "c"].map(election).into();
            for (number, (who, fate, pause)) in moves.into_iter().enumerate() {
                now += Duration::from_millis(pause);
                let version = || number.to_string();
                let mut next = all[who].next(now, version);
                if next == Next::Read {
                    let row = rows.lock.get(&StateLocation::Leases).cloned();
                    next = all[who].read(now, row.as_ref(), version);
                }
                if let Next::Write(write) = next {
                    let outcome = match fate {
                        0 => Err(Error::Ambiguous(String::new())),
                        1 => rows.write_lock(StateLocation::Leases, &write).and(Err(Error::Ambiguous(String::new()))),
                        _ => rows.write_lock(StateLocation::Leases, &write),
                    };
                    all[who].written(&outcome);
                }
                prop_assert!(all.iter().filter(|one| one.leads(now)).count() <= 1);
            }
        }
    }
}
