//! The marks of lease rows when leases are acquired: only leases of this stream are acquired, each is marked with the
//! stream and the process, and a second process with this worker's id is recognised by its mark.
//!
//! Two processes of ours with one id take the leases from each other: each row names the worker, so both believe that it
//! is theirs. The one that started later gives way: it releases its leases to the worker id that both have, so that the
//! other one continues, and the daemon exits. Beside a Java worker with the same id there is no
//! mark to compare, and an error is logged. At the start one unmarked lease that names this worker is left alone for half a
//! failover time: if its counter moves, another process is alive.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tokio::time::Instant;

use super::Settings;
use super::event::{Effect, Holding, Line};
use super::state::{Effects, State};
use crate::lease::held::Rival;
use crate::lease::orders;
use crate::lease::update::{Mark, Update};
use crate::lease::{Lease, LeaseKey};
use crate::stream::StreamIdentifier;

/// Between two log lines about the same.
const LOG_AGAIN: Duration = Duration::from_secs(60);
/// A lease whose counter was moved without a mark so many times ...
const UNMARKED: usize = 3;
/// ... within this time is written by another process. A leader that assigns it anew, and a write that the SDK has tried
/// twice, move it once in a while.
const WITHIN: Duration = Duration::from_secs(300);

/// Other processes that write under this worker's id.
#[derive(Debug, Clone, Default)]
pub(super) struct Rivals {
    /// One of them started before this process.
    gives_way: bool,
    logged: Option<Instant>,
    unmarked: BTreeMap<LeaseKey, Vec<Instant>>,
    namesake: Namesake,
}

/// Whether an unmarked lease that names this worker is renewed by somebody else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
enum Namesake {
    /// The table was not scanned yet.
    #[default]
    Unknown,
    /// This lease had that counter; it is left alone until then.
    Watched { key: LeaseKey, counter: i64, until: Instant },
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
                        key: lease.key.clone(),
                        counter: lease.counter,
                        until: now + settings.failover / 2,
                    },
                    None => Self::Decided,
                };
                false
            }
            Self::Watched { key, counter, until } => {
                let row = leases.iter().filter(names).find(|lease| lease.key == *key);
                let moved = row.is_some_and(|row| row.counter != *counter);
                if moved || row.is_none() || now >= *until {
                    *self = Self::Decided;
                }
                moved
            }
            Self::Decided => false,
        }
    }

    fn watches(&self, key: &LeaseKey) -> bool {
        matches!(self, Self::Watched { key: watched, .. } if watched == key)
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
    /// Whether an older process has this worker's id: this one exits.
    pub(super) fn gives_way(&self) -> bool {
        self.gives_way
    }

    pub(super) fn met<H>(&mut self, now: Instant, rival: &Rival, settings: &Settings) -> Option<Effect<H>> {
        let (key, worker) = (rival.key.clone(), settings.me.clone());
        let line = match judge(rival, settings) {
            Verdict::GiveWay => {
                self.gives_way = true;
                return Some(Effect::GiveWay(rival.clone()));
            }
            Verdict::Stay if self.is_news(now) => Line::LaterNamesake(key, worker),
            Verdict::Stay => Line::LaterNamesakeAgain(key, worker),
            Verdict::Unknown => {
                for times in self.unmarked.values_mut() {
                    times.retain(|at| now.saturating_duration_since(*at) < WITHIN);
                }
                self.unmarked.retain(|_, times| !times.is_empty());
                let times = self.unmarked.entry(key.clone()).or_default();
                times.push(now);
                if times.len() >= UNMARKED {
                    return self.report(now, key, settings);
                }
                Line::UnmarkedWrite(key, worker)
            }
        };
        Some(Effect::Log(line))
    }

    /// Another process, perhaps a Java worker, writes under this worker's id.
    fn report<H>(&mut self, now: Instant, key: LeaseKey, settings: &Settings) -> Option<Effect<H>> {
        let line = Line::UnmarkedNamesake(key, settings.me.clone());
        self.is_news(now).then_some(Effect::Log(line))
    }

    /// A scan of the table, before leases are acquired.
    fn scanned<H>(&mut self, now: Instant, leases: &[Lease], settings: &Settings) -> Option<Effect<H>> {
        let watched = self.namesake.clone();
        match watched {
            Namesake::Watched { key, .. } if self.namesake.note(leases, settings, now) => {
                self.report(now, key, settings)
            }
            Namesake::Unknown => {
                self.namesake.note(leases, settings, now);
                None
            }
            Namesake::Watched { .. } | Namesake::Decided => None,
        }
    }

    /// Whether a lease is left alone for now.
    pub(super) fn leaves_alone(&self, key: &LeaseKey) -> bool {
        self.namesake.watches(key)
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

impl<H: Holding> State<H> {
    /// Whether a row is of the stream that this worker reads, and not left alone.
    pub(super) fn accepts(&self, lease: &Lease) -> bool {
        lease.is_of(&self.settings.recognitions) && !self.rivals.leaves_alone(&lease.key)
    }

    /// Evaluates the marks of the rows after a scan, before leases are acquired.
    pub(super) fn evaluate_marks(&mut self, now: Instant, effects: &mut Effects<H>) {
        effects.extend(self.rivals.scanned(now, &self.leases, &self.settings));
        // Rows of another stream, or of an earlier one of this name, concern the shard sync.
        let recognitions = &self.settings.recognitions;
        let others = self.leases.iter().filter(|lease| !lease.is_of(recognitions));
        let is_read = |stream: &Option<&StreamIdentifier>| recognitions.get(*stream).is_some();
        let suspected: BTreeSet<_> = others.map(|lease| lease.key.stream()).filter(is_read).collect();
        if suspected.is_empty() {
            self.other_streams = None;
        } else if self.other_streams.is_none_or(|at| now.saturating_duration_since(at) >= LOG_AGAIN) {
            self.other_streams = Some(now);
            effects.extend(suspected.into_iter().map(|stream| Effect::SuspectStream(stream.cloned())));
        }
    }

    /// A write that acquires the lease, with the marks.
    pub(super) fn marked(&self, update: Update, lease: &Lease) -> Update {
        let recognition = self.settings.recognitions.get(lease.key.stream());
        let stream = recognition.and_then(|recognition| recognition.mark(lease.shard()));
        let stores_start = self.settings.resume_latest;
        let update =
            update.marked(lease, &Mark { stream, process: self.settings.process.clone(), stores_start });
        match &self.pause {
            // No record of a lease that was created during a pause is delivered.
            Some((pause, _)) => orders::with_pause(update, lease, pause),
            None => update,
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
        Rival { key: "s".into(), process }
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

    #[test]
    fn counter_changes_without_a_mark_are_ignored() {
        let (mut rivals, now) = (Rivals::default(), Instant::now());
        for _ in 0..10 {
            let effect = rivals.met::<()>(now, &rival(None), &settings());
            assert!(!matches!(effect, Some(Effect::GiveWay(_))));
        }
        assert!(!rivals.gives_way());
        let older = rival(Some(process(0, "older")));
        assert!(
            matches!(rivals.met::<()>(now, &older, &settings()), Some(Effect::GiveWay(met)) if met == older)
        );
        assert!(rivals.gives_way());
    }
}
