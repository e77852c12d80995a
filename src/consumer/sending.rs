//! Opens the feed, and sends messages to the child.

use multilangd_protocol::ToChild;
use tokio::time::Instant;
use tracing::{info, warn};

use super::Consumer;
use super::event::Message;
use crate::batch::Sizes;
use crate::clock;
use crate::metrics::OfShard;
use crate::retrieval::{Feed, ShardOfStream, Start};
use crate::sequence::Sequence;

impl Consumer {
    pub(super) fn open_feed(&mut self, sequence: &Sequence) {
        // Until the first checkpoint, records that an earlier feed or owner has delivered are delivered again.
        // Records that were put while the shard was parked are delivered, whatever the settings say: they decide only
        // whether an owner stores a date, and an order always does.
        let stored = self.held.initial().latest_from;
        let before = if self.was_parked {
            Some(stored.unwrap_or(self.begun))
        } else if self.opened {
            stored
        } else {
            self.held.latest_from()
        };
        let began = before.filter(|_| *sequence == Sequence::Latest);
        if let Some(from) = began {
            info!(
                event = "latest_resumed",
                from = clock::utc(from),
                "no checkpoint is stored yet: starting where reading at LATEST began"
            );
        }
        self.opened = true;
        let start = began.map_or_else(|| self.start_of(sequence), Start::AtTimestamp);
        let range = self.held.initial().range.filter(|_| self.parts.check_hash_keys);
        // The old feed stops before the new one starts.
        self.feed = None;
        let stream = self.held.initial().stream.clone();
        let shard = ShardOfStream { id: self.held.shard().clone(), range, stream };
        self.feed = Some(Feed::open(&self.source, shard, start));
    }

    fn start_of(&self, checkpoint: &Sequence) -> Start {
        Start::of_checkpoint(checkpoint, self.parts.timestamp).unwrap_or_else(|| {
            warn!(
                event = "initial_timestamp_missing",
                checkpoint = checkpoint.as_str(),
                "the checkpoint is AT_TIMESTAMP but initialPositionInStreamExtended is not set: starting at \
                 TRIM_HORIZON"
            );
            Start::TrimHorizon
        })
    }

    pub(super) fn send(&mut self, message: Message) {
        let Some(child) = &mut self.child else { return };
        self.asked = Instant::now();
        self.source.sink.shard(self.held.shard(), OfShard::Asked(message.action()));
        match message {
            Message::Initialize(position) => child.send(&ToChild::Initialize {
                shard_id: self.held.shard().as_str(),
                sequence_number: Some(position.sequence.as_str()),
                sub_sequence_number: Some(position.sub),
            }),
            Message::ProcessRecords(records, millis_behind_latest) => {
                let Sizes { records: count, data: bytes, .. } = records.sizes();
                if let Some((last, arrival)) = records.end() {
                    let delivered = OfShard::Delivered { records: count, bytes, last: &last, arrival };
                    self.source.sink.shard(self.held.shard(), delivered);
                }
                self.held.count(bytes);
                child.send_batch(records, millis_behind_latest);
            }
            Message::ShutdownRequested => child.send(&ToChild::ShutdownRequested),
            Message::LeaseLost => child.send(&ToChild::LeaseLost),
            Message::ShardEnded => child.send(&ToChild::ShardEnded),
        }
    }
}
