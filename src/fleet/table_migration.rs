//! The move of everything into the lease table, as the leader of a fleet leads it.
//!
//! ```text
//!  none -> INIT -> DEPLOYED -> (rows move) -> PENDING -> COMPLETE
//!            |        ^                          |
//!            v        '--------------------------'
//!          none              somebody is back in the old tables
//! ```
//!
//! Each step is a row that every worker reads, so a leader may leave at any point and the next continues. The rows
//! move one transaction after the other, each only while this worker has the lock; the lock itself is the
//! last: the worker that wins the old one reads the row before it acts as leader, and finds `COMPLETE`.
//!
//! Unlike Java a leader goes back only after two looks that say so: one owner whose report comes late would
//! else start a day's wait anew. In KCL: `TableMigrationStateMachineImpl`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::layout::Layout;
use super::rows::{Dated, Report, Stage, Word};
use crate::lease::WorkerId;

/// A report that says so comes from a worker that can do with one table.
pub const SUPPORT: i64 = 1;
/// All workers must have supported one table for this long before they may migrate.
const DEPLOYED_AFTER: Duration = Duration::from_secs(3_600);
/// The bounds of `tableMigrationCompleteBakeTimeSeconds`.
const BAKE: (Duration, Duration) = (Duration::from_secs(3_600), Duration::from_secs(604_800));

/// The leader's survey of its fleet before a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Survey {
    /// The least that the owners of leases support.
    pub support: i64,
    /// How many workers still report to the old table.
    pub old_writers: usize,
    /// Whether every owner reports its load.
    pub all_report: bool,
    /// How many of the coordinator's rows are still in the old table, the lock and the stage apart.
    pub left: usize,
    /// Owners of leases.
    pub owners: usize,
    /// Those of them that support one table.
    pub able: usize,
    /// Workers that report to the lease table.
    pub new_writers: usize,
}

/// Judges the reports of both tables, at `now` in seconds since 1970; a report lasts for two of `every`, what
/// it says of support for three.
pub fn survey(
    owners: &BTreeSet<WorkerId>,
    old: &[Report],
    new: &[Report],
    left: usize,
    now: i64,
    every: Duration,
) -> Survey {
    let seconds = |time: Duration| i64::try_from(time.as_secs()).unwrap_or(i64::MAX);
    let is_live = |report: &&Report| report.at.is_some_and(|at| now.saturating_sub(at) <= seconds(every * 2));
    let live: BTreeSet<&str> =
        old.iter().chain(new).filter(is_live).map(|report| report.worker.as_str()).collect();
    let mut newest: BTreeMap<&str, &Report> = BTreeMap::new();
    for report in old.iter().chain(new) {
        let seen = newest.entry(&report.worker).or_insert(report);
        if report.support_at > seen.support_at {
            *seen = report;
        }
    }
    let support = |owner: &WorkerId| {
        let report = newest.get(owner.as_str())?;
        let is_fresh = now.saturating_sub(report.support_at?) <= seconds(every * 3);
        report.support.filter(|_| is_fresh)
    };
    let supports = |owner: &WorkerId| support(owner).is_some_and(|support| support >= SUPPORT);
    Survey {
        support: owners.iter().map(|owner| support(owner).unwrap_or(0)).min().unwrap_or(0),
        old_writers: old.iter().filter(is_live).count(),
        all_report: owners.iter().all(|owner| live.contains(owner.as_str())),
        left,
        owners: owners.len(),
        able: owners.iter().filter(|owner| supports(owner)).count(),
        new_writers: new.iter().filter(is_live).count(),
    }
}

/// A step of the leader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Nothing now.
    Rest,
    /// Writes the row where there is none.
    Create(Stage),
    /// Deletes the row.
    Withdraw,
    /// Writes the row over one with that stage.
    Set {
        /// The stored stage.
        over: Stage,
        /// The next stage.
        to: Stage,
    },
    /// Moves the coordinator's rows.
    Relocate,
    /// Writes the last stage to both tables.
    Finish,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Rest => f.write_str("wait"),
            Self::Create(stage) => write!(f, "create status {}", stage.word()),
            Self::Withdraw => f.write_str("delete status"),
            Self::Set { to, .. } => write!(f, "set status {}", to.word()),
            Self::Relocate => f.write_str("move rows to the lease table"),
            Self::Finish => write!(f, "set status {} in both tables", Stage::Complete.word()),
        }
    }
}

/// Goes back only when seen twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Mover {
    doubted: bool,
}

impl Mover {
    /// The next step, by the leader's own layout and what is stored. `now` in milliseconds since 1970.
    pub fn next(
        &mut self,
        layout: Layout,
        stored: Option<&Dated<Stage>>,
        survey: Survey,
        now: i64,
        bake: Duration,
    ) -> Step {
        let (step, doubtful) = step(layout, stored, survey, now, bake);
        let doubted = std::mem::replace(&mut self.doubted, doubtful);
        if doubtful && !doubted { Step::Rest } else { step }
    }
}

/// The step, and whether it goes back because of what was seen.
fn step(
    layout: Layout,
    stored: Option<&Dated<Stage>>,
    survey: Survey,
    now: i64,
    bake: Duration,
) -> (Step, bool) {
    let rested = |least: Duration| {
        let least = i64::try_from(least.as_millis()).unwrap_or(i64::MAX);
        stored.is_some_and(|row| now.saturating_sub(row.now.at) >= least)
    };
    let supported = survey.support >= SUPPORT;
    let moved_out = survey.all_report && survey.old_writers == 0;
    let step = match (layout, stored.map(|row| row.now.state)) {
        (Layout::Init, None) if supported => Step::Create(Stage::Init),
        (Layout::Init, Some(Stage::Init)) if !supported => return (Step::Withdraw, true),
        (Layout::Init, Some(Stage::Init)) if rested(DEPLOYED_AFTER) => {
            Step::Set { over: Stage::Init, to: Stage::Deployed }
        }
        // The configuration of this worker no longer allows the migration.
        (Layout::Deployed, Some(Stage::Pending)) => Step::Set { over: Stage::Pending, to: Stage::Deployed },
        (Layout::Pending, None) => Step::Create(Stage::Deployed),
        (Layout::Pending, Some(Stage::Deployed)) if moved_out && survey.left > 0 => Step::Relocate,
        (Layout::Pending, Some(Stage::Deployed)) if moved_out => {
            Step::Set { over: Stage::Deployed, to: Stage::Pending }
        }
        (Layout::Pending, Some(Stage::Pending)) if !moved_out || survey.left > 0 => {
            return (Step::Set { over: Stage::Pending, to: Stage::Deployed }, true);
        }
        (Layout::Pending, Some(Stage::Pending)) if rested(bake.clamp(BAKE.0, BAKE.1)) => Step::Finish,
        (Layout::Init | Layout::Deployed | Layout::Pending | Layout::Complete, _) => Step::Rest,
    };
    (step, false)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::slice::from_ref;

    const NOW: i64 = 1_795_405_837;
    const DAY: Duration = Duration::from_secs(86_400);

    fn report(worker: &str, at: i64, support_at: Option<i64>) -> Report {
        Report {
            worker: worker.into(),
            at: Some(at),
            support: support_at.map(|_| SUPPORT),
            support_at,
            ..Report::default()
        }
    }

    fn seen(owners: &[&str], old: &[Report], new: &[Report]) -> Survey {
        let owners = owners.iter().map(|owner| (*owner).into()).collect();
        survey(&owners, old, new, 0, NOW, Duration::from_secs(30))
    }

    fn row(state: Stage, seconds_ago: i64) -> Dated<Stage> {
        Dated::first(state, Stage::Init, &"w".into(), (NOW - seconds_ago) * 1_000)
    }

    const READY: Survey =
        Survey { support: 1, old_writers: 0, all_report: true, left: 0, owners: 1, able: 1, new_writers: 1 };

    fn next(layout: Layout, stored: Option<Dated<Stage>>, survey: Survey) -> Step {
        step(layout, stored.as_ref(), survey, NOW * 1_000, DAY).0
    }

    #[test]
    fn owners_without_a_fresh_support_code_support_nothing() {
        let fresh = report("a", NOW, Some(NOW));
        assert_eq!(seen(&["a"], from_ref(&fresh), &[]).support, 1);
        assert_eq!(seen(&["a", "b"], from_ref(&fresh), &[]).support, 0, "b says nothing");
        assert_eq!(seen(&["a"], &[report("a", NOW, None)], &[]).support, 0, "a worker of KCL 3.4");
        assert_eq!(seen(&["a"], &[report("a", NOW, Some(NOW - 91))], &[]).support, 0, "went back to 3.4");
        assert_eq!(seen(&["a"], &[report("a", NOW, Some(NOW - 90))], &[]).support, 1);
        assert_eq!(seen(&[], from_ref(&fresh), &[]).support, 0, "nobody owns anything");
        let twice = seen(&["a"], &[report("a", NOW - 50, None)], from_ref(&fresh));
        assert_eq!((twice.support, twice.old_writers, twice.all_report), (1, 1, true));
        let some = seen(&["a", "b"], &[report("b", NOW, None)], &[fresh, report("c", NOW - 61, None)]);
        assert_eq!((some.owners, some.able, some.old_writers, some.new_writers), (2, 1, 1, 1));
    }

    #[test]
    fn recent_report_to_the_old_table_counts_as_a_writer() {
        let seen = |ago: i64| seen(&["a"], &[report("b", NOW - ago, None)], &[report("a", NOW, Some(NOW))]);
        assert_eq!((seen(60).old_writers, seen(61).old_writers), (1, 0));
        assert!(seen(60).all_report);
        assert!(!super::survey(&["c".into()].into(), &[], &[], 0, NOW, Duration::from_secs(30)).all_report);
    }

    #[test]
    fn supporting_fleet_waits_an_hour_before_deployed() {
        assert_eq!(next(Layout::Init, None, READY), Step::Create(Stage::Init));
        assert_eq!(next(Layout::Init, None, Survey { support: 0, ..READY }), Step::Rest);
        assert_eq!(next(Layout::Init, Some(row(Stage::Init, 3_599)), READY), Step::Rest);
        let deploy = Step::Set { over: Stage::Init, to: Stage::Deployed };
        assert_eq!(next(Layout::Init, Some(row(Stage::Init, 3_600)), READY), deploy);
        assert_eq!(next(Layout::Deployed, Some(row(Stage::Deployed, 999_999)), READY), Step::Rest);
    }

    #[test]
    fn rows_move_once_old_tables_have_no_writers() {
        let stored = || Some(row(Stage::Deployed, 1));
        assert_eq!(next(Layout::Pending, stored(), Survey { old_writers: 1, ..READY }), Step::Rest);
        assert_eq!(next(Layout::Pending, stored(), Survey { all_report: false, ..READY }), Step::Rest);
        assert_eq!(next(Layout::Pending, stored(), Survey { left: 1, ..READY }), Step::Relocate);
        let pending = Step::Set { over: Stage::Deployed, to: Stage::Pending };
        assert_eq!(next(Layout::Pending, stored(), READY), pending);
    }

    #[test]
    fn completion_follows_the_clamped_bake_time() {
        let after = |seconds, bake| {
            let stored = row(Stage::Pending, seconds);
            step(Layout::Pending, Some(&stored), READY, NOW * 1_000, Duration::from_secs(bake)).0
        };
        assert_eq!(after(86_399, 86_400), Step::Rest);
        assert_eq!(after(86_400, 86_400), Step::Finish);
        assert_eq!((after(3_599, 1), after(3_600, 1)), (Step::Rest, Step::Finish));
        assert_eq!(
            (after(604_799, i64::MAX as u64), after(604_800, i64::MAX as u64)),
            (Step::Rest, Step::Finish)
        );
    }

    #[test]
    fn rollback_needs_the_setting_or_two_surveys() {
        let back = Step::Set { over: Stage::Pending, to: Stage::Deployed };
        let mut mover = Mover::default();
        let pending = row(Stage::Pending, 90_000);
        let mut look = |layout, survey| mover.next(layout, Some(&pending), survey, NOW * 1_000, DAY);
        assert_eq!(look(Layout::Deployed, READY), back, "its own setting");
        let late = Survey { all_report: false, ..READY };
        assert_eq!(look(Layout::Pending, late), Step::Rest);
        assert_eq!(look(Layout::Pending, READY), Step::Finish);
        assert_eq!(look(Layout::Pending, late), Step::Rest);
        assert_eq!(look(Layout::Pending, late), back);
        let init = row(Stage::Init, 90_000);
        let mut mover = Mover::default();
        let mut look =
            || mover.next(Layout::Init, Some(&init), Survey { support: 0, ..READY }, NOW * 1_000, DAY);
        assert_eq!((look(), look()), (Step::Rest, Step::Withdraw));
    }

    #[test]
    fn missing_stage_is_restored_by_a_migrated_leader() {
        assert_eq!(next(Layout::Pending, None, READY), Step::Create(Stage::Deployed));
        assert_eq!(next(Layout::Complete, None, READY), Step::Rest);
    }
}
