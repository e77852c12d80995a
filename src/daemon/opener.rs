//! Makes what the daemon needs to read a stream: recognition, retrieval and shard sync.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Semaphore;

use super::counted::Noted;
use super::ports::{Ports, StreamPorts};
use crate::budget::Budget;
use crate::clock::ServiceClock;
use crate::config::Config;
use crate::lease::Table;
use crate::lease::sync::InitialPosition;
use crate::metrics::of_stream::Sinks;
use crate::reach::Reaches;
use crate::recognition::{Pace, Recognition};
use crate::retrieval::registration::{self, StreamConsumer};
use crate::retrieval::{self, Source};
use crate::shard_sync::{self, ShardSync};
use crate::stream::{Selection, StreamId, StreamIdentifier};

/// Most concurrent retrieval calls. Each has a timeout.
const CALLS: usize = 200;

/// The shortest retention of a stream, in milliseconds.
const RETENTION: i64 = 24 * 60 * 60 * 1000;

/// A stream that can be called.
pub(super) struct Found {
    ports: StreamPorts,
    pub(super) recognition: Arc<Recognition>,
}

/// A stream that can be read.
pub(super) struct Opened {
    pub(super) recognition: Arc<Recognition>,
    pub(super) source: Source,
    pub(super) shard_sync: ShardSync,
}

/// The place of a stream in the configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// It is configured.
    Listed,
    /// It is configured, and was created after the worker had looked for it.
    Created,
    /// It is selected by the beginning of its name.
    Selected,
    /// Only the table has leases of it.
    Unlisted,
}

/// Opens streams.
pub(super) struct Opener {
    table: Arc<dyn Table>,
    sync: shard_sync::Settings,
    streams: Selection,
    fanout: Option<registration::Settings>,
    reading: retrieval::Settings,
    calls: Arc<Semaphore>,
    budget: Arc<Budget>,
    sinks: Sinks,
    reaches: Reaches,
    clock: ServiceClock,
    /// For several streams.
    pace: Option<Arc<Pace>>,
}

impl Opener {
    /// Opens streams whose leases are in that table.
    pub(super) fn new(
        config: &Config,
        ports: &Ports,
        table: Arc<dyn Table>,
        reaches: &Reaches,
        pace: Option<Arc<Pace>>,
    ) -> Self {
        let sync = shard_sync::Settings {
            reaches: reaches.clone(),
            me: config.worker.clone(),
            initial: config.initial,
            first: None,
            ignore_unexpected_children: config.ignore_unexpected_children,
            skip_if_leases_exist: config.skip_sync_if_leases_exist,
            sync_pause: config.shard_sync_pause,
            stream: config.stream.clone(),
            listed: true,
            failover: config.failover,
            sink: ports.sink.clone(),
        };
        let reading = retrieval::Settings {
            max_records: config.max_records,
            idle: config.idle,
            idle_behind: config.idle_behind,
            near: config.near,
            ahead: retrieval::PrefetchLimits::default(),
            keep_empty: config.keep_empty,
            retry: Duration::from_millis(500),
        };
        Self {
            table,
            sync,
            streams: config.streams.clone(),
            fanout: config.fanout.clone(),
            reading,
            calls: Arc::new(Semaphore::new(CALLS)),
            budget: ports.budget.clone(),
            sinks: Sinks::new(ports.sink.clone()),
            reaches: reaches.clone(),
            clock: ports.clock(),
            pace,
        }
    }

    /// The place of a stream that was described. One that is selected by its name, and younger than the shortest retention
    /// in an application that has begun, was created since: at `LATEST` a worker that restarts meanwhile would skip its
    /// first records.
    pub(super) fn place(&self, place: Place, described: Option<&StreamId>, has_begun: bool) -> Place {
        let is_young = |created| created > self.clock.past() - RETENTION;
        match (place, described) {
            (Place::Selected, Some(stream)) if has_begun && is_young(stream.created()) => Place::Created,
            (place, _) => place,
        }
    }

    /// The stream of these ports, whose identity is not known yet.
    pub(super) fn find(&self, ports: StreamPorts) -> Found {
        let shards = Arc::new(Noted { shards: ports.shards, reach: self.reaches.kinesis.clone() });
        let recognition = Recognition::paced(shards.clone(), self.pace.clone());
        Found { ports: StreamPorts { shards, ..ports }, recognition }
    }

    /// Everything that reads the stream: one of several, or the only one for none.
    pub(super) fn open(&self, of: Option<&StreamIdentifier>, found: Found, place: Place) -> Opened {
        let Found { ports: StreamPorts { shards, records, fanout }, recognition } = found;
        let sink = self.sinks.of(of);
        let name = of.map_or_else(|| self.sync.stream.clone(), |stream| stream.name().to_owned());
        let entry = of.and_then(|stream| self.streams.entry_of(stream));
        let own = entry.as_ref().and_then(|entry| InitialPosition::named(entry.initial.as_ref()?.as_str()));
        let (initial, first) = positions(self.sync.initial, own, place);
        let listed = place != Place::Unlisted;
        let sync = self.sync.clone();
        let settings =
            shard_sync::Settings { stream: name, listed, initial, first, sink: sink.clone(), ..sync };
        let shard_sync = ShardSync::new(self.table.clone(), shards.clone(), recognition.clone(), settings);
        let arn = entry.as_ref().and_then(|entry| entry.consumer.as_deref());
        let consumer = fanout.zip(self.fanout.as_ref().map(|settings| settings.with_arn(arn)));
        let source = Source {
            api: records,
            shards,
            recognition: recognition.clone(),
            consumer: consumer
                .map(|(api, settings)| Arc::new(StreamConsumer::new(api, settings).paced(self.pace.clone()))),
            settings: self.reading.clone(),
            budget: self.budget.clone(),
            closed: Arc::default(),
            reach: self.reaches.kinesis.clone(),
            calls: self.calls.clone(),
            sink,
            clock: self.clock.clone(),
        };
        let shard_sync = shard_sync.of_stream(of).with_clock(self.clock.clone());
        Opened { recognition, source, shard_sync }
    }
}

/// The initial position of a stream, and that of its first leases if one of both is not that of the application, which other
/// workers would take it for.
fn positions(
    application: InitialPosition,
    own: Option<InitialPosition>,
    place: Place,
) -> (InitialPosition, Option<InitialPosition>) {
    let initial = own.unwrap_or(application);
    let first = match (initial, place) {
        // All its records arrived while the worker ran.
        (InitialPosition::Latest, Place::Created) => InitialPosition::TrimHorizon,
        (initial, _) => initial,
    };
    let is_usual = initial == application && first == application;
    (initial, (!is_usual).then_some(first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn created_stream_begins_at_its_first_record_with_every_position() {
        use InitialPosition::{AtTimestamp, Latest, TrimHorizon};
        for application in [Latest, TrimHorizon, AtTimestamp(5)] {
            for own in [None, Some(Latest), Some(TrimHorizon)] {
                let position = own.unwrap_or(application);
                for place in [Place::Listed, Place::Selected, Place::Unlisted, Place::Created] {
                    let (initial, first) = positions(application, own, place);
                    assert_eq!(initial, position);
                    let skips = place == Place::Created && position == Latest;
                    let expected = if skips { TrimHorizon } else { position };
                    // The position that an empty table starts with, on this worker and on one that does not know it.
                    assert_eq!(first.unwrap_or(initial), expected, "{application:?} {own:?} {place:?}");
                    assert_eq!(first.unwrap_or(application), expected, "{application:?} {own:?} {place:?}");
                }
            }
        }
    }
}
