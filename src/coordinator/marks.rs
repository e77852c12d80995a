//! The marks of lease rows when leases are acquired: only leases of this stream are acquired, each is marked with the
//! stream and the process, and a second process with this worker's id is recognised by its mark.
//!
//! Two processes of ours with one id take the leases from each other: each row names the worker, so both believe that it
//! is theirs. The one that started later gives way: it releases its leases to the worker id that both have, so that the
//! other one continues, and the daemon exits. Beside a Java worker with the same id there is no
//! mark to compare, and an error is logged. At the start one unmarked lease that names this worker is left alone for half a
//! failover time: if its counter moves, another process is alive.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Coordinator, Done, Held, Lease, Mark, Rival, Settings, ShardId, Update};
use crate::backoff::Backoff;
use crate::sequence::Sequence;

/// Between two attempts to restore a row, at first.
const RESCUE_PAUSE: Duration = Duration::from_millis(250);
/// No attempt begins later: well before an audit makes the row anew at the initial position.
const RESCUE: Duration = Duration::from_secs(30);
/// Reports that wait: more say nothing new.
const WAITING: usize = 16;
/// Between two log lines about the same.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// A lease whose counter was moved without a mark so many times ...
const UNMARKED: usize = 3;
/// ... within this time is written by another process. A leader that assigns it anew, and a write that the SDK has tried
/// twice, move it once in a while.
const WITHIN: Duration = Duration::from_secs(300);

/// Other processes that write under this worker's id.
pub(super) struct Rivals {
    tell: mpsc::Sender<Rival>,
    told: mpsc::Receiver<Rival>,
    /// One that started before this process.
    older: watch::Sender<Option<Rival>>,
    logged: Option<Instant>,
    unmarked: BTreeMap<ShardId, Vec<Instant>>,
    namesake: Namesake,
}

/// Whether an unmarked lease that names this worker is renewed by somebody else.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Namesake {
    /// The table was not scanned yet.
    Unknown,
    /// This lease had that counter; it is left alone until then.
    Watched { shard: ShardId, counter: i64, until: Instant },
    /// There is none, or it was decided.
    Decided,
}

impl Namesake {
    /// One scan. Whether another process has renewed the lease that is watched.
    fn note(&mut self, leases: &[Lease], settings: &Settings, now: Instant) -> bool {
        let names = |lease: &&Lease| lease.owner.as_ref() == Some(&settings.me) && lease.process.is_none();
        match self {
            Self::Unknown => {
                let open = |lease: &&Lease| lease.checkpoint_owner.is_none() && !lease.is_complete();
                *self = match leases.iter().filter(names).find(open) {
                    Some(lease) => Self::Watched {
                        shard: lease.shard.clone(),
                        counter: lease.counter,
                        until: now + settings.failover / 2,
                    },
                    None => Self::Decided,
                };
                false
            }
            Self::Watched { shard, counter, until } => {
                let row = leases.iter().filter(names).find(|lease| lease.shard == *shard);
                let moved = row.is_some_and(|row| row.counter != *counter);
                if moved || row.is_none() || now >= *until {
                    *self = Self::Decided;
                }
                moved
            }
            Self::Decided => false,
        }
    }

    fn watches(&self, shard: &ShardId) -> bool {
        matches!(self, Self::Watched { shard: watched, .. } if watched == shard)
    }
}

/// The reaction to a rival.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// This process gives way.
    GiveWay,
    /// The other one does.
    Stay,
    /// It is not one of ours, or it is none.
    Unknown,
}

/// Both decide alike, each from its own side.
fn judge(rival: &Rival, settings: &Settings) -> Verdict {
    match &rival.process {
        Some(process) if *process < settings.process => Verdict::GiveWay,
        Some(_) => Verdict::Stay,
        None => Verdict::Unknown,
    }
}

impl Rivals {
    pub(super) fn new() -> Self {
        let (tell, told) = mpsc::channel(WAITING);
        Self {
            tell,
            told,
            older: watch::Sender::new(None),
            logged: None,
            unmarked: BTreeMap::new(),
            namesake: Namesake::Unknown,
        }
    }

    pub(super) fn tell(&self) -> mpsc::Sender<Rival> {
        self.tell.clone()
    }

    pub(super) fn older(&self) -> watch::Receiver<Option<Rival>> {
        self.older.subscribe()
    }

    /// Whether an older process has this worker's id: this one exits.
    pub(super) fn gives_way(&self) -> bool {
        self.older.borrow().is_some()
    }

    /// Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Rival> {
        self.told.recv().await
    }

    pub(super) fn met(&mut self, rival: &Rival, settings: &Settings) {
        let now = Instant::now();
        let (shard, worker) = (&rival.shard, &settings.me);
        match judge(rival, settings) {
            Verdict::GiveWay => {
                self.older.send_replace(Some(rival.clone()));
            }
            Verdict::Stay if self.is_news(now) => error!(
                %shard, %worker,
                "another process that started later uses the same workerId: it acquired this lease and \
                 is expected to exit (set a different workerId for each process, or \
                 multilangd.workerIdSuffix)"
            ),
            Verdict::Unknown => {
                for times in self.unmarked.values_mut() {
                    times.retain(|at| now.saturating_duration_since(*at) < WITHIN);
                }
                self.unmarked.retain(|_, times| !times.is_empty());
                let times = self.unmarked.entry(shard.clone()).or_default();
                times.push(now);
                if times.len() >= UNMARKED {
                    self.report(now, shard, settings);
                } else {
                    debug!(%shard, %worker,
                        "another process incremented the lease counter under this workerId");
                }
            }
            Verdict::Stay => debug!(%shard, %worker,
                "another process with the same workerId, started later, acquired this lease"),
        }
    }

    /// Another process, perhaps a Java worker, writes under this worker's id.
    fn report(&mut self, now: Instant, shard: &ShardId, settings: &Settings) {
        if self.is_news(now) {
            error!(
                %shard, worker = %settings.me,
                "another process, perhaps a Java worker, renews leases under the same workerId: records \
                 are delivered twice, or one of the two processes receives none (set a different \
                 workerId for each process, or multilangd.workerIdSuffix)"
            );
        }
    }

    /// A scan of the table, before leases are acquired.
    pub(super) fn scanned(&mut self, leases: &[Lease], settings: &Settings) {
        let now = Instant::now();
        let watched = self.namesake.clone();
        if self.namesake.note(leases, settings, now)
            && let Namesake::Watched { shard, .. } = watched
        {
            self.report(now, &shard, settings);
        }
    }

    /// Whether a lease is left alone for now.
    pub(super) fn leaves_alone(&self, shard: &ShardId) -> bool {
        self.namesake.watches(shard)
    }

    /// When the lease that is watched may be acquired: a scan is due then.
    pub(super) fn watches_until(&self) -> Option<Instant> {
        match &self.namesake {
            Namesake::Watched { until, .. } => Some(*until),
            Namesake::Unknown | Namesake::Decided => None,
        }
    }

    fn is_news(&mut self, now: Instant) -> bool {
        let news = self.logged.is_none_or(|at| now.saturating_duration_since(at) >= LOG_AGAIN);
        if news {
            self.logged = Some(now);
        }
        news
    }
}

/// Whether a lease is of a child of that shard, and was read.
fn has_begun_after(lease: &Lease, parent: &ShardId) -> bool {
    let read = matches!(lease.checkpoint.sequence, Sequence::Number(_) | Sequence::ShardEnd);
    read && lease.parents.contains(parent)
}

impl Coordinator {
    /// Whether a row is of the stream that this worker reads, and not left alone.
    pub(super) fn accepts(&self, lease: &Lease) -> bool {
        self.settings.recognition.accepts(lease.stream.as_ref()) && !self.rivals.leaves_alone(&lease.shard)
    }

    /// Evaluates the marks of the rows after a scan, before leases are acquired.
    pub(super) fn look_at_marks(&mut self) {
        let leases = self.leases.clone();
        self.rivals.scanned(&leases, &self.settings);
        self.look_for_other_streams();
    }

    /// A write that acquires the lease, with the marks.
    pub(super) fn acquire(&self, update: Update, lease: &Lease) -> Update {
        let stream = self.settings.recognition.mark(&lease.shard);
        update.marked(lease, &Mark { stream, process: self.settings.process.clone() })
    }

    /// A lease expired, or was lost for a reason that is not known: if its row is missing, only this worker knows what it
    /// said. It is made again without an owner, unless somebody was faster.
    pub(super) fn rescue(&mut self, held: &Arc<Held>) {
        if held.is_settled() {
            return;
        }
        let held = held.clone();
        let (table, recognition) = (self.table.clone(), self.settings.recognition.clone());
        let writes = self.writes.clone();
        let mut backoff = Backoff::new(RESCUE_PAUSE, RESCUE_PAUSE * 8, self.random.fork());
        self.spawn(async move {
            let Some(row) = held.last_row().await else { return Done::Called };
            let until = Instant::now() + RESCUE;
            while Instant::now() < until {
                let permit = writes.acquire().await;
                let read = table.get(&row.shard).await;
                drop(permit);
                if matches!(read, Ok(Some(_))) {
                    break;
                }
                tokio::time::sleep(backoff.pause()).await;
                if read.is_err() {
                    continue;
                }
                match table.list().await {
                    // Another worker has read the shard to its end meanwhile, and the row was cleaned away.
                    Ok(leases) if leases.iter().any(|lease| has_begun_after(lease, &row.shard)) => break,
                    Ok(_) => {}
                    Err(_) => continue,
                }
                match recognition.has_shard(&row.shard, row.stream.as_ref()).await {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(_) => continue,
                }
                match table.create(&row).await {
                    Ok(made) => {
                        if made {
                            warn!(shard = %row.shard, checkpoint = %row.checkpoint, "restored a deleted lease");
                        }
                        break;
                    }
                    Err(error) => debug!(shard = %row.shard, %error,
                        "failed to restore a deleted lease, retrying"),
                }
            }
            Done::Called
        });
    }

    /// Rows of another stream, or of an earlier one of this name, concern the shard sync.
    fn look_for_other_streams(&mut self) {
        let recognition = &self.settings.recognition;
        if self.leases.iter().all(|lease| recognition.accepts(lease.stream.as_ref())) {
            self.odd_marks = None;
            return;
        }
        let now = Instant::now();
        if self.odd_marks.is_none_or(|at| now.saturating_duration_since(at) >= LOG_AGAIN) {
            self.odd_marks = Some(now);
            self.settings.recognition.suspect();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::coordinator::tests::settings;
    use crate::lease::ProcessId;

    fn process(started: i64, unique: &str) -> ProcessId {
        ProcessId::new(started, unique, &settings().me)
    }

    fn rival(process: Option<ProcessId>) -> Rival {
        Rival { shard: "s".into(), process }
    }

    #[test]
    fn exactly_one_of_two_processes_with_one_id_exits() {
        let (older, newer) = (process(5, "x"), process(7, "a"));
        let at = |process: &ProcessId| Settings { process: process.clone(), ..settings() };
        assert_eq!(judge(&rival(Some(older.clone())), &at(&newer)), Verdict::GiveWay);
        assert_eq!(judge(&rival(Some(newer.clone())), &at(&older)), Verdict::Stay);
        let twin = process(5, "y");
        let verdicts =
            [judge(&rival(Some(twin.clone())), &at(&older)), judge(&rival(Some(older)), &at(&twin))];
        assert!(verdicts.contains(&Verdict::GiveWay) && verdicts.contains(&Verdict::Stay), "{verdicts:?}");
        assert_eq!(judge(&rival(None), &at(&newer)), Verdict::Unknown);
    }

    #[tokio::test(start_paused = true)]
    async fn own_lease_is_watched_once_for_half_a_failover_time() {
        let now = Instant::now();
        let settings = settings();
        let range = crate::shard::HashRange { start: 0, end: 9 };
        let at = crate::sequence::Position::new(crate::sequence::Sequence::TrimHorizon);
        let lease = Lease {
            owner: Some(settings.me.clone()),
            ..Lease::new("s".into(), at, std::collections::BTreeSet::new(), range)
        };
        let renewed = [Lease { counter: 1, ..lease.clone() }];
        let marked = [Lease { process: Some(process(1, "crashed")), ..lease.clone() }];
        let mine = [lease];
        let watched = || {
            let mut namesake = Namesake::Unknown;
            assert!(!namesake.note(&mine, &settings, now) && namesake.watches(&"s".into()));
            namesake
        };
        assert!(watched().note(&renewed, &settings, now), "another process renews it");
        let mut quiet = watched();
        assert!(!quiet.note(&mine, &settings, now + settings.failover / 2));
        assert_eq!(quiet, Namesake::Decided);
        let mut crashed = Namesake::Unknown;
        assert!(!crashed.note(&marked, &settings, now));
        assert_eq!(crashed, Namesake::Decided, "a process of ours is known by its mark");
    }

    #[tokio::test(start_paused = true)]
    async fn counter_changes_without_a_mark_are_ignored() {
        let mut rivals = Rivals::new();
        for _ in 0..10 {
            rivals.met(&rival(None), &settings());
        }
        assert_eq!((*rivals.older().borrow()).clone(), None);
        rivals.met(&rival(Some(process(0, "older"))), &settings());
        assert!(rivals.older().borrow().is_some());
    }
}
