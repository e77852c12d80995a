//! How a worker finds out how its fleet works.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;
use tracing::{info, warn};

use crate::capacity::Capacity;
use crate::clock;
use crate::cpu::Surroundings;
use crate::fleet::layout::{Layout, TooEarly};
use crate::fleet::leader;
use crate::fleet::report;
use crate::fleet::rows::{Dated, Generation, Report, StateLocation};
use crate::fleet::store::Legacy;
use crate::fleet::version::{self, Configured, Start};
use crate::fleet::{Mode, Store};
use crate::lease::table::Found;
use crate::lease::{Lease, Table, WorkerId, table};
use crate::metrics::Sink;
use crate::reach::Reach;

/// Another attempt to write the generation after somebody else was faster.
const ATTEMPTS: u32 = 5;
/// Another worker that has created the first leases creates its other tables within this time.
const BEING_MADE: Duration = Duration::from_secs(30);
/// Another worker that has created the lease table creates the first leases within this time. KCL 3.0 to 3.4 (class
/// `Scheduler`) waits up to 30 s for the leases of another worker first, and reads the table every 3 s.
const EMPTY: Duration = Duration::from_secs(45);
const LOOK_AGAIN: Duration = Duration::from_millis(500);

/// How this worker takes part.
#[derive(Debug, Clone)]
pub struct Settings {
    /// `workerId`.
    pub me: WorkerId,
    /// `failoverTimeMillis`.
    pub failover: Duration,
    /// `clientVersionConfig`.
    pub configured: Configured,
    /// `migrateAllEntitiesToLeaseTable`.
    pub migrate: bool,
    /// `tableMigrationCompleteBakeTimeSeconds`.
    pub bake: Duration,
    /// How reports are written and judged.
    pub rules: report::Rules,
    /// How the leader assigns leases.
    pub assignment: leader::Rules,
    /// `inMemoryWorkerMetricsCaptureFrequencyMillis`.
    pub sample_every: Duration,
    /// `noOfPersistedMetricsPerWorkerMetrics`.
    pub averages: usize,
    /// The wall clock, in milliseconds since 1970.
    pub wall: fn() -> i64,
    /// Counts.
    pub sink: Arc<dyn Sink>,
    /// Where to find how busy the processors are; none with `disableWorkerMetrics`.
    pub surroundings: Option<Surroundings>,
    /// How many leases this worker has room for.
    pub capacity: Arc<Capacity>,
    /// Whether DynamoDB can be reached.
    pub reach: Arc<Reach>,
    /// How long a stop may take.
    pub stop: clock::Stop,
}

/// Why this worker can't take part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A table beside the lease table.
    #[error("cannot use a table beside the lease table: {0}")]
    Beside(table::Error),
    /// A setting.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
}

/// The result of joining the fleet at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// How leases find their owners.
    pub mode: Mode,
    pub(super) layout: Layout,
    /// There is no table of an earlier version.
    pub(super) alone: bool,
    /// The index of owners is there, or isn't needed.
    pub(super) indexed: bool,
}

/// Finds out how the fleet works, and says so where nobody has yet. The lease table is there. Nothing is spoilt
/// by another attempt.
///
/// # Errors
/// A table can't be used now, or a setting can't be followed yet.
pub async fn begin(
    store: &dyn Store,
    table: &dyn Table,
    found: Found,
    settings: &Settings,
) -> Result<Begun, Error> {
    let legacy = match settled(store, table, found).await {
        Ok(legacy) => legacy,
        Err(error @ table::Error::Denied(_)) => {
            return begin_with_leases(store, table, settings, error).await;
        }
        Err(error) => return Err(error.into()),
    };
    let old = legacy.state;
    let stage = if old { store.stage().await?.map(|row| row.now.state) } else { None };
    let layout = Layout::at_start(old, stage, settings.migrate)?;
    let mut attempt = 1;
    let mode = loop {
        let found = generation(store, layout).await?;
        let (place, stored) = found.map_or((layout.writes(), None), |(place, row)| (place, Some(row)));
        let two_x = stored.is_none() && !old && version::is_two_x(&table.list().await?);
        let now = (settings.wall)();
        match version::start(settings.configured, stored.as_ref(), two_x, &settings.me, now) {
            Start::As(mode) => {
                if two_x && mode == Mode::Phase1 && settings.configured == Configured::Default {
                    warn!(
                        event = "kcl2_table_found",
                        "the lease table is a KCL 2.x table: writing only what KCL 2.x workers can read \
                         (set clientVersionConfig once no KCL 2.x worker is left)"
                    );
                }
                break mode;
            }
            Start::Write { over, row, then } => {
                match store.write_generation(place, over, &row).await {
                    Ok(()) => break then,
                    // Another worker was faster, or an ambiguous write of this one succeeded: the row shows
                    // it.
                    Err(table::Error::Conflict(_) | table::Error::Ambiguous(_)) if attempt < ATTEMPTS => {
                        attempt += 1
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    };
    // KCL 3.5 makes none, and its workers could never report.
    if layout.writes() == StateLocation::Legacy && !legacy.reports && mode != Mode::Phase1 {
        store.make_reports().await?;
    }
    let wanted = matches!(mode, Mode::ThreeX | Mode::Upgrade);
    // The table is scanned as long as it has no index.
    let indexed = !wanted || table.index(true).await.unwrap_or(false);
    info!(event = "assignment_mode_determined", "lease assignment mode: {mode}, {layout}");
    Ok(Begun { mode, layout, alone: !old, indexed })
}

/// Which tables there are beside the lease table, once nobody is just making them.
///
/// A worker of KCL 3.0 to 3.4 creates the lease table, some seconds later its rows, and then its other tables. A worker
/// that decided before would keep everything in one table, which the older one cannot read. One that does the
/// same writes the generation first.
async fn settled(store: &dyn Store, table: &dyn Table, found: Found) -> Result<Legacy, table::Error> {
    let age = if let Found::Existed(age) = found { age } else { Duration::MAX };
    let (mut waited, mut empty) = (Duration::ZERO, Duration::ZERO);
    loop {
        let legacy = store.legacy().await?;
        if legacy.state {
            return Ok(legacy);
        }
        let leases = table.list().await?;
        let wait = if leases.is_empty() {
            empty = waited;
            age.saturating_add(waited) < EMPTY && store.generation(StateLocation::Leases).await?.is_none()
        } else {
            waited - empty < BEING_MADE && is_being_made(&leases)
        };
        if !wait {
            return Ok(legacy);
        }
        if waited.is_zero() {
            info!(
                event = "tables_awaited",
                "another worker is creating the lease table: waiting for its other tables or its first lease"
            );
        }
        sleep(LOOK_AGAIN).await;
        waited += LOOK_AGAIN;
    }
}

/// Whether the rows are of a table that somebody has just made: no row was ever owned, and none says that its worker
/// keeps everything in one table.
fn is_being_made(leases: &[Lease]) -> bool {
    let is_new = |lease: &Lease| {
        !lease.typed && lease.counter == 0 && lease.owner.is_none() && lease.checkpoint_owner.is_none()
    };
    leases.iter().all(is_new)
}

/// Begins with permissions on the lease table alone, which is all that workers of KCL 2 have. Only in a table that
/// is one of KCL 2 for sure: the leader of KCL 3.0 to 3.4 has its lock in another table.
async fn begin_with_leases(
    store: &dyn Store,
    table: &dyn Table,
    settings: &Settings,
    error: table::Error,
) -> Result<Begun, Error> {
    let leases = table.list().await?;
    let index = table.index(false).await.unwrap_or(false);
    let stored = store.generation(StateLocation::Leases).await?.is_some();
    if stored || !version::is_two_x_for_sure(settings.configured, &leases, index) {
        return Err(Error::Beside(error));
    }
    warn!(event = "extra_tables_unusable",
        %error,
        "cannot use the tables beside the lease table, which is a KCL 2.x table: running as a KCL 2.x \
         worker"
    );
    Ok(Begun { mode: Mode::Phase1, layout: Layout::Complete, alone: false, indexed: true })
}

pub(super) async fn generation(
    store: &dyn Store,
    layout: Layout,
) -> Result<Option<(StateLocation, Dated<Generation>)>, table::Error> {
    for place in layout.reads() {
        if let Some(row) = store.generation(*place).await? {
            return Ok(Some((*place, row)));
        }
    }
    Ok(None)
}

pub(super) async fn reports(store: &dyn Store, layout: Layout) -> Result<Vec<Report>, table::Error> {
    let mut all = Vec::new();
    for place in layout.reads() {
        all.extend(store.reports(*place).await?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fleet::memory::Memory as State;
    use crate::lease::memory::Memory;
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;
    use std::collections::BTreeSet;

    fn settings(configured: Configured) -> Settings {
        let second = Duration::from_secs(1);
        Settings {
            me: "me".into(),
            failover: second * 10,
            configured,
            migrate: false,
            bake: second * 86_400,
            rules: report::Rules { every: second * 30, alpha: 0.5, stale: second * 86_400 },
            assignment: crate::membership::state::tests::assignment(),
            sample_every: second,
            averages: 10,
            wall: || 1_795_000_000_000,
            sink: Arc::new(crate::metrics::Discard),
            capacity: Arc::default(),
            reach: Arc::default(),
            stop: clock::Stop::within(second),
            surroundings: None,
        }
    }

    const OLD: Found = Found::Existed(Duration::MAX);

    fn lease(typed: bool) -> Lease {
        let range = HashRange { start: 0, end: 9 };
        let lease = Lease::new("s".into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
        Lease { owner: Some("java".into()), typed, ..lease }
    }

    #[tokio::test]
    async fn new_application_starts_in_3x_mode() {
        let (state, table) = (State::default(), Memory::default());
        let begun = begin(&state, &table, OLD, &settings(Configured::Default)).await.unwrap();
        assert_eq!((begun.mode, begun.layout, begun.alone), (Mode::ThreeX, Layout::Complete, true));
        let row = state.rows().generation[&StateLocation::Leases].clone();
        assert_eq!((row.now.state, row.now.by.as_str()), (Generation::ThreeX, "me"));
        let again = begin(&state, &table, OLD, &settings(Configured::Compatible)).await.unwrap();
        assert_eq!(again.mode, Mode::ThreeX, "what is stored outweighs the setting");
    }

    #[tokio::test]
    async fn kcl_2_fleet_is_left_unchanged_by_default() {
        let (state, table) = (State::default(), Memory::default());
        table.put(lease(false));
        let begun = begin(&state, &table, OLD, &settings(Configured::Default)).await.unwrap();
        assert_eq!(begun.mode, Mode::Phase1);
        assert!(state.rows().generation.is_empty());
        let begun = begin(&state, &table, OLD, &settings(Configured::Compatible)).await.unwrap();
        assert_eq!(begun.mode, Mode::Upgrade);
    }

    #[tokio::test]
    async fn cleared_owners_do_not_mean_kcl_3() {
        let (state, table) = (State::default(), Memory::default());
        table.put(Lease { owner: None, counter: 7, ..lease(false) });
        let begun = begin(&state, &table, OLD, &settings(Configured::Default)).await.unwrap();
        assert_eq!(begun.mode, Mode::Phase1);
        assert!(state.rows().generation.is_empty());
    }

    #[tokio::test]
    async fn lease_table_permissions_suffice_beside_kcl_2() {
        let (state, table) = (State::default(), Memory::default().without_index());
        state.rows().legacy_denied = true;
        table.put(lease(false));
        for configured in [Configured::Default, Configured::Phase1] {
            let begun = begin(&state, &table, OLD, &settings(configured)).await.unwrap();
            let expected =
                Begun { mode: Mode::Phase1, layout: Layout::Complete, alone: false, indexed: true };
            assert_eq!(begun, expected);
        }
        for configured in [Configured::ThreeX, Configured::Compatible] {
            let refused = begin(&state, &table, OLD, &settings(configured)).await;
            assert!(matches!(refused, Err(Error::Beside(table::Error::Denied(_)))), "{refused:?}");
        }
        assert!(state.rows().generation.is_empty());
    }

    #[tokio::test]
    async fn denied_tables_of_kcl_3_are_an_error() {
        let refused = async |table: Memory| {
            let state = State::default();
            state.rows().legacy_denied = true;
            let begun = begin(&state, &table, OLD, &settings(Configured::Default)).await;
            assert!(matches!(begun, Err(Error::Beside(table::Error::Denied(_)))), "{begun:?}");
        };
        refused(Memory::default().without_index()).await;
        let typed = Memory::default().without_index();
        typed.put(lease(true));
        refused(typed).await;
        let led = Memory::default().without_index();
        led.put(Lease { checkpoint_owner: Some("java".into()), ..lease(false) });
        refused(led).await;
        let indexed = Memory::default();
        indexed.put(lease(false));
        refused(indexed).await;
    }

    /// KCL 3.1.3 begins on nothing, and this worker right after it has made its first rows.
    #[tokio::test(start_paused = true)]
    async fn tables_of_an_older_worker_are_awaited() {
        let (state, table) = (State::default(), Memory::default());
        table.put(Lease { owner: None, ..lease(false) });
        let make = async {
            sleep(Duration::from_secs(7)).await;
            state.rows().legacy = Legacy { state: true, reports: true };
        };
        let settings = settings(Configured::Default);
        let (begun, ()) = tokio::join!(begin(&state, &table, OLD, &settings), make);
        assert_eq!(begun.unwrap().layout, Layout::Init);
    }

    /// KCL 3.1.3 has created the lease table, and this worker starts before the first row.
    #[tokio::test(start_paused = true)]
    async fn first_rows_of_an_older_worker_are_awaited() {
        let (state, table) = (State::default(), Memory::default());
        let make = async {
            sleep(Duration::from_secs(33)).await;
            table.put(Lease { owner: None, ..lease(false) });
            sleep(Duration::from_secs(15)).await;
            state.rows().legacy = Legacy { state: true, reports: true };
        };
        let (settings, found) = (settings(Configured::Default), Found::Existed(Duration::from_secs(2)));
        let (begun, ()) = tokio::join!(begin(&state, &table, found, &settings), make);
        assert_eq!(begun.unwrap().layout, Layout::Init);
    }

    #[tokio::test(start_paused = true)]
    async fn empty_table_is_not_awaited_if_created_here_or_long_ago_or_used() {
        let settings = settings(Configured::Default);
        let start = tokio::time::Instant::now();
        for found in [Found::Created, Found::Existed(EMPTY)] {
            let begun = begin(&State::default(), &Memory::default(), found, &settings).await.unwrap();
            assert_eq!(begun.layout, Layout::Complete);
        }
        let (state, table) = (State::default(), Memory::default());
        begin(&state, &table, Found::Created, &settings).await.unwrap();
        begin(&state, &table, Found::Existed(Duration::ZERO), &settings).await.unwrap();
        assert_eq!(start.elapsed(), Duration::ZERO);
        let begun = begin(&State::default(), &table, Found::Existed(Duration::ZERO), &settings).await;
        assert_eq!(begun.unwrap().layout, Layout::Complete, "nobody has used the table");
        assert!(start.elapsed() >= EMPTY && start.elapsed() < EMPTY * 2, "{:?}", start.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn first_owner_or_timeout_ends_the_wait_for_tables() {
        let settings = settings(Configured::Default);
        let (state, table) = (State::default(), Memory::default());
        table.put(Lease { owner: None, ..lease(false) });
        let own = async {
            sleep(Duration::from_secs(3)).await;
            table.put(Lease { counter: 1, ..lease(false) });
        };
        let start = tokio::time::Instant::now();
        let (begun, ()) = tokio::join!(begin(&state, &table, OLD, &settings), own);
        assert_eq!(begun.unwrap().mode, Mode::Phase1);
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        table.put(Lease { owner: None, ..lease(false) });
        let start = tokio::time::Instant::now();
        begin(&state, &table, OLD, &settings).await.unwrap();
        assert!(start.elapsed() >= BEING_MADE && start.elapsed() < BEING_MADE * 2, "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn missing_index_does_not_fail_the_start() {
        let table = Memory::default().without_index();
        let begun = begin(&State::default(), &table, OLD, &settings(Configured::Default)).await.unwrap();
        assert!(begun.mode == Mode::ThreeX && !begun.indexed);
    }

    #[tokio::test]
    async fn rows_stay_in_the_tables_of_earlier_versions() {
        let (state, table) = (State::default(), Memory::default());
        state.rows().legacy = Legacy { state: true, reports: true };
        table.put(lease(false));
        let begun = begin(&state, &table, OLD, &settings(Configured::Default)).await.unwrap();
        assert_eq!((begun.mode, begun.layout), (Mode::ThreeX, Layout::Init));
        assert!(state.rows().generation.contains_key(&StateLocation::Legacy));
        let early =
            begin(&state, &table, OLD, &Settings { migrate: true, ..settings(Configured::Default) }).await;
        assert!(matches!(early, Err(Error::TooEarly(TooEarly))));
    }
}
