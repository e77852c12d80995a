//! Delivers batches, whole or in portions.

use tokio::time::Instant;

use super::{Effects, Phase, State};
use crate::batch::Batch;
use crate::consumer::event::{Effect, Message};
use crate::sequence::Sequence;

impl State {
    /// Whether the rest of the last batch can be delivered now.
    pub fn wants_rest(&self) -> bool {
        self.phase == Phase::Idle && self.rest.is_some() && !self.stop && !self.lost
    }

    pub(super) fn batch(&mut self, now: Instant, batch: Batch) -> Effects {
        if !self.wants_batch() {
            debug_assert!(false, "received a batch without a request");
            // The batch was taken from the feed but not delivered: continuing the feed would skip it.
            self.feed_open = false;
            return self.fail(now, "received a batch in the wrong state".to_owned());
        }
        self.deliver(now, batch)
    }

    pub(super) fn deliver_rest(&mut self, now: Instant) -> Effects {
        match self.rest.take() {
            Some(rest) if self.phase == Phase::Idle && !self.stop && !self.lost => self.deliver(now, rest),
            rest => {
                self.rest = rest;
                Vec::new()
            }
        }
    }

    fn deliver(&mut self, now: Instant, mut batch: Batch) -> Effects {
        let mut records = self.progress.undelivered(std::mem::take(&mut batch.records));
        let is_searching = self.is_searching();
        if let Some(suspects) = &mut self.suspects {
            (records, batch.records) = suspects.portion(records, self.progress.last());
        }
        let millis_behind_latest = batch.millis_behind_latest;
        if batch.records.is_empty() {
            self.end = batch.end;
        } else {
            self.rest = Some(batch);
        }
        let mut effects = self.search_ended(is_searching);
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
