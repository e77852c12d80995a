//! Streams that are not configured any more, and have leases.
//!
//! Pure. In KCL: `FormerStreamsLeasesDeletionStrategy`.

use std::time::Duration;

use tokio::time::Instant;
use tracing::{info, warn};

use super::state::{Effect, Former, State, Stream};
use crate::daemon::error::Error;
use crate::stream::StreamIdentifier;

/// Pause after a deletion that failed.
const DELETE_AGAIN: Duration = Duration::from_secs(10);

impl State {
    /// When a stream is left: half of the time before its leases are deleted, so that owners that started later than the
    /// auditor have left it by then, too. A worker that does not audit the leases scans the table too rarely to wait for
    /// its next scan.
    pub(super) fn leave_due(&self) -> Option<Instant> {
        let half = self.rules.delete_former? / 2;
        let due = |known: &Stream| {
            let former = known.former.filter(|_| known.is_admitted && !known.is_left)?;
            Some(former.since + half)
        };
        self.streams.values().filter_map(due).min()
    }

    /// Leaves the streams that are due.
    pub(super) fn leave_former(&mut self, now: Instant) {
        let Some(after) = self.rules.delete_former else { return };
        for (stream, known) in
            self.streams.iter_mut().filter(|(_, known)| known.is_admitted && !known.is_left)
        {
            if known.former.is_some_and(|former| now >= former.since + after / 2) {
                known.is_left = true;
                self.effects.push(Effect::Leave(stream.clone(), true));
            }
        }
    }

    /// Deletes the leases of streams that have not been configured for the time, if this worker audits the leases.
    pub(super) fn delete_former(&mut self, now: Instant, audits: bool) {
        let Some(after) = self.rules.delete_former else { return };
        for (stream, known) in &mut self.streams {
            if !self.in_table.contains(stream) || self.selection.entry_of(stream).is_some() {
                continue;
            }
            let former = *known.former.get_or_insert_with(|| {
                info!(event = "former_stream_found", %stream, delete_in = ?after,
                    "the lease table has leases of a stream that is not configured");
                Former { since: now, delete_at: now + after }
            });
            if audits && !known.is_deleting && now >= former.delete_at {
                known.is_deleting = true;
                self.effects.push(Effect::Delete(stream.clone()));
            }
        }
    }

    pub(super) fn deleted(&mut self, now: Instant, stream: StreamIdentifier, deleted: Result<usize, Error>) {
        let after = self.rules.delete_former.unwrap_or_default();
        let again = match deleted {
            Ok(leases) => {
                info!(event = "former_stream_deleted", %stream, leases,
                    "deleted the leases of a stream that is not configured");
                // A worker that still reads it restores the rows: it has an older configuration.
                after
            }
            Err(error) => {
                warn!(event = "former_stream_not_deleted", %stream, %error,
                    "failed to delete the leases of a stream that is not configured, retrying");
                DELETE_AGAIN
            }
        };
        let known = self.streams.entry(stream).or_default();
        known.is_deleting = false;
        if let Some(former) = &mut known.former {
            former.delete_at = now + again;
        }
    }
}
