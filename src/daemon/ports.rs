//! The outside world of the daemon, as ports.

use std::fmt;
use std::sync::Arc;

use crate::budget::Budget;
use crate::capacity::Capacity;
use crate::clock::{ServiceClock, ServiceTime};
use crate::cpu::Surroundings;
use crate::fleet::Store;
use crate::lease::Table;
use crate::letters::Letters;
use crate::metrics::Sink;
use crate::multilang::Launch;
use crate::retrieval::{self, push};
use crate::shard::{self, BoxFuture};
use crate::stream::Selection;

/// The outside world of the daemon.
#[derive(Clone)]
pub struct Ports {
    /// The lease table.
    pub table: Arc<dyn Table>,
    /// The rows of the coordinator, beside the leases.
    pub state: Arc<dyn Store>,
    /// The streams to read.
    pub streams: Streams,
    /// Starts record processors.
    pub children: Arc<dyn Launch>,
    /// Where dead letters are written; none without `multilangd.deadLetters`.
    pub letters: Option<Letters>,
    /// The number of leases that this process can hold.
    pub capacity: Arc<Capacity>,
    /// Receives events.
    pub sink: Arc<dyn Sink>,
    /// Limits the record data in memory.
    pub budget: Arc<Budget>,
    /// The wall clock, in milliseconds since 1970.
    pub wall: fn() -> i64,
    /// The time at AWS.
    pub service: ServiceTime,
    /// The platform, for host metrics; none for no measurement.
    pub surroundings: Option<Surroundings>,
}

/// The outside world of one stream.
#[derive(Clone)]
pub struct StreamPorts {
    /// The stream's shards.
    pub shards: Arc<dyn shard::Api>,
    /// Retrieval by polling.
    pub records: Arc<dyn retrieval::Api>,
    /// Retrieval by enhanced fan-out, where it is supported.
    pub fanout: Option<Arc<dyn push::Api>>,
}

impl fmt::Debug for StreamPorts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StreamPorts").finish_non_exhaustive()
    }
}

impl Ports {
    pub(super) fn clock(&self) -> ServiceClock {
        ServiceClock::new(self.wall, self.service.clone())
    }
}

impl fmt::Debug for Ports {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ports").finish_non_exhaustive()
    }
}

/// Calls streams by their names.
pub trait Open: Send + Sync {
    /// The stream of that name, of that account if it is known. Makes no call.
    fn open(&self, name: &str, account: Option<&str>) -> StreamPorts;

    /// The names of all streams of the account of the credentials.
    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, shard::Error>>;

    /// Whether the calls name a stream whose account is known by its ARN. By its name alone, another account's stream of
    /// that name is reached.
    fn by_arn(&self) -> bool;
}

/// The streams that a daemon is to read.
#[derive(Clone)]
pub enum Streams {
    /// One stream, in a lease table of its own.
    One(StreamPorts),
    /// Several streams, in one lease table.
    Several {
        /// The configured ones.
        wanted: Selection,
        /// Calls them.
        open: Arc<dyn Open>,
    },
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::One(_) => f.write_str("One"),
            Self::Several { wanted, .. } => f.debug_tuple("Several").field(wanted).finish(),
        }
    }
}
