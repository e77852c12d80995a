//! From KCL 2 to 3 and back: which part a worker plays, by its own setting and by what the fleet has come to.
//!
//! The stored state outweighs the setting: a fleet that is on its way goes there together. In KCL:
//! `MigrationClientVersionStateInitializer`, `MigrationStateMachineImpl`, `MigrationReadyMonitor`,
//! `ClientVersionChangeMonitor`.

use std::collections::BTreeSet;
use std::time::Duration;

use tokio::time::Instant;

use super::Mode;
use super::rows::{Dated, Generation};
use crate::lease::{Lease, WorkerId};

/// For so long every look must find the fleet ready. KCL's `MigrationReadyMonitor` waits as long.
const STABLE: Duration = Duration::from_secs(600);

/// `clientVersionConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Configured {
    /// `CLIENT_VERSION_CONFIG_3X`, given.
    ThreeX,
    /// The default, which is `CLIENT_VERSION_CONFIG_3X`.
    Default,
    /// `CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X`.
    Compatible,
    /// `CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1`.
    Phase1,
}

/// How a worker starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Start {
    /// In this mode, and nothing is written.
    As(Mode),
    /// In this mode, once that is written.
    Write {
        /// Over a row with this state.
        over: Option<Generation>,
        /// The row.
        row: Dated<Generation>,
        /// Then.
        then: Mode,
    },
}

/// The mode of a stored state. A row that says `INIT` was never written.
fn mode(state: Generation) -> Mode {
    match state {
        Generation::TwoX => Mode::TwoX,
        Generation::Init | Generation::Upgrade => Mode::Upgrade,
        Generation::Revocable => Mode::Revocable,
        Generation::ThreeX => Mode::ThreeX,
    }
}

/// The action at the start. `now` in milliseconds since 1970.
pub fn start(
    configured: Configured,
    stored: Option<&Dated<Generation>>,
    two_x_is_here: bool,
    me: &WorkerId,
    now: i64,
) -> Start {
    let first = |state| Start::Write {
        over: None,
        row: Dated::first(state, Generation::Init, me, now),
        then: mode(state),
    };
    match (stored, configured) {
        (None, Configured::Phase1) => Start::As(Mode::Phase1),
        (None, Configured::Compatible) => first(Generation::Upgrade),
        // Rows in the lease table other than leases break the listing of every KCL 2 worker.
        (None, Configured::Default) if two_x_is_here => Start::As(Mode::Phase1),
        (None, Configured::Default | Configured::ThreeX) => first(Generation::ThreeX),
        (Some(row), Configured::Default | Configured::ThreeX) if row.now.state == Generation::Revocable => {
            Start::Write {
                over: Some(Generation::Revocable),
                row: row.next(Generation::ThreeX, me, now),
                then: Mode::ThreeX,
            }
        }
        (Some(row), _) => Start::As(mode(row.now.state)),
    }
}

/// The mode after a look at the stored state, if it is another: the mode in which a worker that started now would run.
///
/// The looks are a minute apart, so a state may have been passed over: back and on again, say. Java's workers
/// follow single steps alone, and stay behind for good then.
pub fn follow(present: Mode, stored: Generation) -> Option<Mode> {
    let next = mode(stored);
    (present.may_change() && next != present).then_some(next)
}

/// Whether these leases are those of KCL 2, by a single scan: its rows have no `entityType`. Their owners do
/// not matter: a clean shutdown of multilangd clears them, and a rollback must remain possible.
pub fn is_two_x(leases: &[Lease]) -> bool {
    leases.iter().any(|lease| !lease.typed)
}

/// Whether the table is one of KCL 2, where only the lease table can be read: no row may be from KCL 3, and a table without
/// any lease is believed only if the setting says so.
pub fn is_two_x_for_sure(configured: Configured, leases: &[Lease], index: bool) -> bool {
    let by_three_x = |lease: &Lease| lease.typed || lease.checkpoint_owner.is_some();
    let asked = match configured {
        Configured::Phase1 => true,
        Configured::Default => !leases.is_empty(),
        Configured::ThreeX | Configured::Compatible => false,
    };
    asked && !index && !leases.iter().any(by_three_x)
}

/// Whether a leader could take over now: the index is there, and every open lease has an owner that reports its
/// load. Java wants it of finished ones too, which its workers take over when their owner dies; ours don't.
pub fn is_ready(index: bool, leases: &[Lease], reporting: &BTreeSet<WorkerId>) -> bool {
    let mut open = leases.iter().filter(|lease| !lease.is_complete());
    index && open.all(|lease| lease.owner.as_ref().is_some_and(|owner| reporting.contains(owner)))
}

/// For how long the fleet has been ready.
#[derive(Debug, Default)]
pub struct Readiness(Option<Instant>);

impl Readiness {
    /// Notes one look; says whether it has been ready long enough.
    pub fn look(&mut self, now: Instant, ready: bool) -> bool {
        self.0 = ready.then(|| self.0.unwrap_or(now));
        self.0.is_some_and(|since| now.saturating_duration_since(since) >= STABLE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stored(state: Generation) -> Dated<Generation> {
        Dated::first(state, Generation::Init, &"other".into(), 1)
    }

    fn starts(configured: Configured, state: Option<Generation>) -> (Option<Generation>, Mode) {
        let row = state.map(stored);
        match start(configured, row.as_ref(), false, &"me".into(), 7) {
            Start::As(mode) => (None, mode),
            Start::Write { over, row, then } => {
                assert_eq!((over, row.now.by.as_str(), row.now.at), (state, "me", 7));
                (Some(row.now.state), then)
            }
        }
    }

    #[test]
    fn stored_state_precedes_the_setting() {
        use Configured::{Compatible, Phase1, ThreeX};
        use Generation as G;
        for (configured, state, written, mode) in [
            (Phase1, None, None, Mode::Phase1),
            (Compatible, None, Some(G::Upgrade), Mode::Upgrade),
            (ThreeX, None, Some(G::ThreeX), Mode::ThreeX),
            (Phase1, Some(G::Upgrade), None, Mode::Upgrade),
            (ThreeX, Some(G::Upgrade), None, Mode::Upgrade),
            (ThreeX, Some(G::TwoX), None, Mode::TwoX),
            (Compatible, Some(G::Revocable), None, Mode::Revocable),
            (ThreeX, Some(G::Revocable), Some(G::ThreeX), Mode::ThreeX),
            (Compatible, Some(G::ThreeX), None, Mode::ThreeX),
            (Phase1, Some(G::ThreeX), None, Mode::ThreeX),
        ] {
            assert_eq!(starts(configured, state), (written, mode), "{configured:?} on {state:?}");
        }
    }

    #[test]
    fn kcl_2_fleet_is_left_unchanged_by_default() {
        let begin = |configured| start(configured, None, true, &"me".into(), 7);
        assert_eq!(begin(Configured::Default), Start::As(Mode::Phase1));
        assert!(matches!(begin(Configured::ThreeX), Start::Write { then: Mode::ThreeX, .. }));
    }

    #[test]
    fn stored_state_is_followed_until_rollback_is_impossible() {
        assert_eq!(follow(Mode::Upgrade, Generation::Revocable), Some(Mode::Revocable));
        assert_eq!(follow(Mode::Revocable, Generation::TwoX), Some(Mode::TwoX));
        assert_eq!(follow(Mode::Revocable, Generation::ThreeX), Some(Mode::ThreeX));
        assert_eq!(follow(Mode::TwoX, Generation::Upgrade), Some(Mode::Upgrade));
        assert_eq!(follow(Mode::TwoX, Generation::TwoX), None);
        assert_eq!(follow(Mode::Revocable, Generation::Upgrade), Some(Mode::Upgrade), "one was passed over");
        assert_eq!(follow(Mode::TwoX, Generation::Revocable), Some(Mode::Revocable), "likewise");
        assert_eq!(follow(Mode::Upgrade, Generation::ThreeX), Some(Mode::ThreeX), "likewise");
        assert_eq!(follow(Mode::ThreeX, Generation::TwoX), None);
        assert_eq!(follow(Mode::Phase1, Generation::ThreeX), None);
    }

    #[test]
    fn fleet_is_ready_after_ten_steady_minutes() {
        let start = Instant::now();
        let minute = Duration::from_secs(60);
        let mut readiness = Readiness::default();
        for at in 0..10 {
            assert!(!readiness.look(start + minute * at, true));
        }
        assert!(readiness.look(start + minute * 10, true));
        assert!(!readiness.look(start + minute * 11, false));
        assert!(!readiness.look(start + minute * 12, true));
    }
}
