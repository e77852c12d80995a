//! How a worker finds out how its fleet works.

use tracing::{info, warn};

use super::Settings;
use crate::fleet::layout::{Layout, TooEarly};
use crate::fleet::rows::{Dated, Generation, Report};
use crate::fleet::version::{self, Configured, Start};
use crate::fleet::{Mode, Store};
use crate::lease::{Table, table};

/// Another attempt to write the generation after somebody else was faster.
const ATTEMPTS: u32 = 5;

/// Why this worker can't take part.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A table.
    #[error(transparent)]
    Table(#[from] table::Error),
    /// A setting.
    #[error(transparent)]
    TooEarly(#[from] TooEarly),
}

/// What it was told at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Begun {
    /// How leases find their owners.
    pub mode: Mode,
    pub(super) layout: Layout,
    /// There is no table of an earlier version.
    pub(super) alone: bool,
}

/// Finds out how the fleet works, and says so where nobody has yet. The lease table is there. Nothing is spoilt
/// by another attempt.
///
/// # Errors
/// A table can't be used now, or a setting can't be followed yet.
pub async fn begin(store: &dyn Store, table: &dyn Table, settings: &Settings) -> Result<Begun, Error> {
    let old = store.legacy().await?.state;
    let stage = if old { store.stage().await?.map(|row| row.now.state) } else { None };
    let layout = Layout::at_start(old, stage, settings.migrate)?;
    let mut attempt = 1;
    let mode = loop {
        let stored = generation(store, layout).await?;
        let two_x = stored.is_none() && !old && version::is_two_x(&table.list().await?);
        let now = (settings.wall)();
        match version::start(settings.configured, stored.as_ref(), two_x, &settings.me, now) {
            Start::As(mode) => {
                if two_x && mode == Mode::Phase1 && settings.configured == Configured::Default {
                    warn!(
                        "the lease table is one of KCL 2: nothing is written that its workers can't read. Once they \
                         are gone, set clientVersionConfig"
                    );
                }
                break mode;
            }
            Start::Write { over, row, then } => {
                match store.write_generation(layout.writes(), over, &row).await {
                    Ok(()) => break then,
                    // Somebody was faster, or it was us: the row says.
                    Err(table::Error::Conflict(_) | table::Error::Ambiguous(_)) if attempt < ATTEMPTS => {
                        attempt += 1
                    }
                    Err(error) => return Err(error.into()),
                }
            }
        }
    };
    if matches!(mode, Mode::ThreeX | Mode::Upgrade) {
        table.index(true).await?;
    }
    info!(%mode, tables = if layout == Layout::Complete { 1 } else { 3 }, "how leases find their owners");
    Ok(Begun { mode, layout, alone: !old })
}

pub(super) async fn generation(
    store: &dyn Store,
    layout: Layout,
) -> Result<Option<Dated<Generation>>, table::Error> {
    for place in layout.reads() {
        if let Some(row) = store.generation(*place).await? {
            return Ok(Some(row));
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
