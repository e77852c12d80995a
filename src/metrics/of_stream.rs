//! The events of an application that reads several streams: their shards may have the same ids, so the events name them
//! by the keys of their leases.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use super::{OfShard, OfWorker, Sink};
use crate::shard::ShardId;
use crate::stream::StreamIdentifier;

/// Open shards without a reader: all, and those that lasted ([`OfWorker::Unread`]).
type Unread = (Option<usize>, usize);

/// Receives the events of one of several streams.
#[derive(Debug)]
struct OfStream {
    sink: Arc<dyn Sink>,
    stream: StreamIdentifier,
    /// The last counts of all streams.
    unread: Arc<Mutex<BTreeMap<StreamIdentifier, Unread>>>,
}

/// The sinks of the streams of an application.
#[derive(Debug)]
pub struct Sinks {
    sink: Arc<dyn Sink>,
    unread: Arc<Mutex<BTreeMap<StreamIdentifier, Unread>>>,
}

impl Sinks {
    /// Passes all events on to that sink.
    pub fn new(sink: Arc<dyn Sink>) -> Self {
        Self { sink, unread: Arc::default() }
    }

    /// The sink of one of several streams; that of the only stream for none.
    pub fn of(&self, stream: Option<&StreamIdentifier>) -> Arc<dyn Sink> {
        let Some(stream) = stream.cloned() else { return self.sink.clone() };
        Arc::new(OfStream { sink: self.sink.clone(), stream, unread: self.unread.clone() })
    }
}

impl Sink for OfStream {
    fn shard(&self, shard: &ShardId, event: OfShard<'_>) {
        self.sink.shard(&ShardId::from(format!("{}:{shard}", self.stream).as_str()), event);
    }

    /// Each stream is audited apart, so its counts are added to those of the others.
    fn worker(&self, event: OfWorker<'_>) {
        let OfWorker::Unread { shards, lasting } = event else { return self.sink.worker(event) };
        let mut unread = self.unread.lock().unwrap_or_else(PoisonError::into_inner);
        unread.insert(self.stream.clone(), (shards, lasting));
        let known = unread.values().filter_map(|(shards, _)| *shards);
        let shards = known.reduce(|sum, shards| sum + shards);
        let lasting = unread.values().map(|(_, lasting)| lasting).sum();
        self.sink.worker(OfWorker::Unread { shards, lasting });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::Board;
    use crate::sequence::{Position, Sequence};

    #[test]
    fn events_of_several_streams_are_told_apart_and_added_up() {
        let board = Arc::new(Board::default());
        let [orders, refunds] =
            ["1:orders:5", "1:refunds:5"].map(|text| StreamIdentifier::parse(text).unwrap());
        let sinks = Sinks::new(board.clone());
        let [orders, refunds] = [orders, refunds].map(|stream| sinks.of(Some(&stream)));
        let (shard, at) = (ShardId::from("s"), Position::new(Sequence::TrimHorizon));
        for sink in [&orders, &refunds] {
            sink.shard(&shard, OfShard::Held { checkpoint: &at });
        }
        let names: Vec<String> = board.totals().keys().map(ToString::to_string).collect();
        assert_eq!(names, ["1:orders:5:s", "1:refunds:5:s"]);
        let unread = || board.of_worker().unread;
        orders.worker(OfWorker::Unread { shards: Some(2), lasting: 1 });
        refunds.worker(OfWorker::Unread { shards: Some(3), lasting: 0 });
        assert_eq!(unread(), Some(5));
        orders.worker(OfWorker::Unread { shards: None, lasting: 0 });
        assert_eq!(unread(), Some(3), "another worker counts those of one stream");
        refunds.worker(OfWorker::Unread { shards: None, lasting: 0 });
        assert_eq!(unread(), None);
    }

    #[test]
    fn events_of_the_only_stream_are_passed_on() {
        let sink: Arc<dyn Sink> = Arc::new(Board::default());
        assert!(Arc::ptr_eq(&Sinks::new(sink.clone()).of(None), &sink));
    }
}
