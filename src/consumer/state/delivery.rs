//! Delivers batches, whole or in portions.

use std::time::Duration;

use tokio::time::Instant;

use super::age::ByAge;
use super::{Effects, Phase, State};
use crate::batch::{Batch, MOST_RECORDS, Records};
use crate::consumer::event::{Effect, Message};
use crate::sequence::Sequence;

/// A batch that waits for more records is delivered at this many bytes of data, or at the most records that one answer
/// can have.
const GATHERED: usize = 4 * 1024 * 1024;

impl State {
    /// Whether the rest of the last batch can be delivered now.
    pub fn wants_rest(&self) -> bool {
        let is_due = self.rest.is_some() && self.gathering.is_none();
        self.phase == Phase::Idle && is_due && !self.is_halting()
    }

    pub(super) fn batch(&mut self, now: Instant, batch: Batch) -> Effects {
        if !self.wants_batch() {
            debug_assert!(false, "received a batch without a request");
            // The batch was taken from the feed but not delivered: continuing the feed would skip it.
            self.feed_open = false;
            return self.fail(now, "received a batch in the wrong state".to_owned());
        }
        let has_records = self.rest.is_some() || !batch.records.is_empty();
        match self.settings.shape.window {
            Some(window) if has_records && !self.is_searching() => {
                self.gather(now, batch, window);
                Vec::new()
            }
            _ => self.deliver(now, batch),
        }
    }

    /// Waits for more records before the batch is delivered.
    fn gather(&mut self, now: Instant, batch: Batch, window: Duration) {
        if let Some(first) = batch.records.first() {
            // The feed does not return these records again to the next child.
            self.delivered = true;
            self.anchor.get_or_insert_with(|| Sequence::Number(first.clone()));
        }
        let gathered = match self.rest.take() {
            Some(rest) => Batch { records: rest.records.joined(batch.records), ..batch },
            None => batch,
        };
        let sizes = gathered.records.sizes();
        let is_full =
            sizes.data >= GATHERED || sizes.records >= self.settings.shape.most.unwrap_or(MOST_RECORDS);
        self.gathering = match self.gathering {
            _ if is_full || gathered.end.is_some() => None,
            Some(until) => Some(until),
            None => Some(now + window),
        };
        self.rest = Some(gathered);
    }

    pub(super) fn deliver_rest(&mut self, now: Instant) -> Effects {
        let may_deliver = self.phase == Phase::Idle && !self.is_halting();
        match self.rest.take_if(|_| may_deliver) {
            Some(rest) => {
                self.gathering = None;
                self.deliver(now, rest)
            }
            None => Vec::new(),
        }
    }

    /// Drops the records that were taken from the feed but not delivered: they take the memory of other shards
    /// while the shard waits. The feed does not return them again, so the next child needs another one.
    pub(super) fn drop_rest(&mut self) {
        self.delivered |= self.rest.take().is_some();
        self.pieces.clear();
        self.aged.clear();
        self.gathering = None;
    }

    fn deliver(&mut self, now: Instant, mut batch: Batch) -> Effects {
        let is_searching = self.is_searching();
        let mut records = match self.pieces.pop_front() {
            // A piece is a part of a portion.
            Some(piece) => self.progress.undelivered(piece),
            None => {
                let mut records = self.progress.undelivered(std::mem::take(&mut batch.records));
                if let Some(suspects) = &mut self.suspects {
                    (records, batch.records) = suspects.portion(records, self.progress.last());
                }
                records
            }
        };
        let mut effects = self.search_ended(is_searching);
        let ByAge { old, young, later } = self.by_age(records);
        records = young;
        self.piece(later);
        if !old.is_empty() {
            // The end of the shard stays with the batch until they are passed.
            self.rest = Some(batch);
            effects.extend(self.pass_aged(now, old));
            return effects;
        }
        if let Some(most) = self.settings.shape.most {
            let more;
            (records, more) = records.split(most);
            for piece in more.cut(most).into_iter().rev() {
                self.piece(piece);
            }
        }
        let millis_behind_latest = batch.millis_behind_latest;
        if batch.records.is_empty() && self.pieces.is_empty() {
            self.end = batch.end;
        } else {
            self.rest = Some(batch);
        }
        if records.is_empty() && (self.end.is_some() || !self.settings.keep_empty) {
            effects.extend(self.settle(now));
            return effects;
        }
        if let Some(first) = records.first() {
            self.delivered = true;
            self.anchor.get_or_insert_with(|| Sequence::Number(first.clone()));
        }
        self.progress.begin_delivery();
        self.progress.deliver(&records);
        if let Some(suspects) = &mut self.suspects {
            suspects.delivered(&records);
        }
        effects.extend(self.open(now, Message::ProcessRecords(records, millis_behind_latest)));
        effects
    }

    /// Records that precede all others that are not delivered yet.
    fn piece(&mut self, records: Records) {
        if !records.is_empty() {
            self.pieces.push_front(records);
        }
    }

    /// The child answered a batch well.
    pub(super) fn processed(&mut self, now: Instant) -> Effects {
        let was_searching = self.is_searching();
        if let Some(suspects) = &mut self.suspects {
            suspects.succeeded();
        }
        let mut effects = self.search_ended(was_searching);
        effects.extend(self.settle(now));
        effects
    }

    fn is_searching(&self) -> bool {
        self.suspects.as_ref().is_some_and(super::Suspects::is_searching)
    }

    fn search_ended(&self, was_searching: bool) -> Effects {
        if was_searching && !self.is_searching() { vec![Effect::Bisected] } else { Vec::new() }
    }
}
