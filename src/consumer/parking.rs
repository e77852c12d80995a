//! Reports that an operator has parked the shard, and that it continues.

use tracing::info;

use super::Consumer;
use crate::clock;
use crate::lease::orders::Parking;
use crate::metrics::OfShard;

impl Consumer {
    pub(super) fn parked_by_operator(&mut self, order: &Parking) {
        // A child that is still being started would have nothing to do.
        self.spawning = None;
        (self.pid, self.short_since, self.alone) = (None, None, 0);
        self.stderr.clear();
        self.failures.clear();
        self.was_parked = true;
        let Parking { is_pause, since, by } = order;
        self.emit(OfShard::ParkedByOperator { application: *is_pause, since: *since, by });
        self.parts.standings.waiting(self.held.key());
        info!(
            event = "shard_parked_by_operator",
            since = clock::utc(*since),
            by = &**by,
            application = is_pause,
            checkpoint = %self.state.stored(),
            "parked the shard by the order of an operator: its lease is kept, and nothing is read (multilangd leases)"
        );
    }

    pub(super) fn unparked_by_operator(&mut self) {
        self.emit(OfShard::UnparkedByOperator);
        info!(event = "shard_unparked", checkpoint = %self.state.stored(),
            "the operator has ended the order to park the shard, continuing");
    }
}
