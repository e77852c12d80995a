//! An embedded Kinesis endpoint, for development in local mode and for tests.
//!
//! It speaks the Kinesis API over HTTP/1.1 and HTTP/2 on one loopback port, in JSON and in CBOR, and
//! answers as AWS does wherever a consumer can tell. Signatures are not checked.
//!
//! Invariants:
//! - A reader that follows the tip of a shard never misses an acknowledged record.
//! - GetRecords omits the next iterator exactly when it returns child shards: at the end of a closed shard,
//!   when all its records were read.
//! - Every task belongs to the [`Kinesis`] that started it and ends with it.
//!
//! The layers, from the outside: `http` reads requests and writes answers, `operations` has a type for each
//! request, `service` is the account with its streams, `stream` and `shard` hold the state. All layers below
//! `http` are synchronous and take the time as an argument. Unit tests are at the end of the files;
//! `tests/contract` tests the behaviour as a whole.

mod check;
mod clock;
mod codec;
mod error;
mod faults;
mod filter;
mod hash;
mod http;
mod journal;
mod limits;
mod operations;
mod reshard;
mod sequence;
mod service;
mod shard;
mod store;
mod stream;
mod subscribe;
mod token;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;

pub use faults::{Effect, Fault, Faults};
pub use operations::Operation;
pub use store::DataError;

use http::Site;
use service::{Service, Settings};
use store::Store;

use super::server::Server;

/// Options of an endpoint.
#[derive(Clone, Debug)]
pub struct Options {
    /// The address to listen on: a loopback address; port 0 for any free one.
    pub address: SocketAddr,
    /// The folder for streams and records; none for memory.
    pub data: Option<PathBuf>,
    /// Whether the limits per shard are enforced: 5 reads and 2 MiB a second, 1,000 records and 1 MiB written
    /// a second.
    pub service_limits: bool,
    /// Region in ARNs.
    pub region: String,
    /// Account in ARNs and messages: twelve digits.
    pub account: String,
    /// Lifetime of a shard iterator: five minutes in AWS.
    pub iterator_lifetime: Duration,
    /// Duration of a subscription: five minutes in AWS.
    pub subscription_length: Duration,
    /// How long after a successful SubscribeToShard another one by the same consumer to the same shard is
    /// refused: five seconds in AWS.
    pub subscription_cooldown: Duration,
    /// Interval of events without records on an idle subscription.
    pub heartbeat: Duration,
    /// How long a stream stays in the status CREATING.
    pub creation_delay: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            address: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            data: None,
            service_limits: false,
            region: "us-east-1".to_owned(),
            account: "000000000000".to_owned(),
            iterator_lifetime: Duration::from_mins(5),
            subscription_length: Duration::from_mins(5),
            subscription_cooldown: Duration::from_secs(5),
            heartbeat: Duration::from_secs(5),
            creation_delay: Duration::ZERO,
        }
    }
}

/// Why an endpoint failed to start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable from other machines, and no credentials are verified.
    #[error(
        "the Kinesis endpoint checks no credentials and listens on loopback addresses only, not on \
         {address} (use 127.0.0.1 or [::1])"
    )]
    NotLoopback {
        /// The requested address.
        address: SocketAddr,
    },
    /// The address is in use.
    #[error(
        "failed to listen on {address}: another process, perhaps another endpoint, uses it (stop it, or \
         choose another port; 0 takes any free one)"
    )]
    AddressInUse {
        /// The requested address.
        address: SocketAddr,
    },
    /// Listening failed for another reason.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The requested address.
        address: SocketAddr,
        /// The error of the system.
        source: io::Error,
    },
    /// The data folder cannot be used.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// The number of records put to a shard in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCount {
    /// Name of the stream.
    pub stream: String,
    /// Id of the shard.
    pub shard: String,
    /// Records that were put.
    pub records: u64,
}

/// A running endpoint. Dropping it stops it at once; [`Kinesis::stop`] stops it in order.
#[derive(Debug)]
pub struct Kinesis {
    address: SocketAddr,
    service: Arc<Service>,
    server: Server,
}

impl Kinesis {
    /// Starts an endpoint. It accepts calls when this returns.
    ///
    /// # Errors
    /// The address is not a loopback address or cannot be listened on, or the data folder cannot be used.
    pub async fn start(options: Options) -> Result<Self, Error> {
        let address = options.address;
        if !address.ip().is_loopback() {
            return Err(Error::NotLoopback { address });
        }
        let listener = TcpListener::bind(address).await.map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                Error::AddressInUse { address }
            } else {
                Error::Listen { address, source }
            }
        })?;
        let bound = listener.local_addr().map_err(|source| Error::Listen { address, source })?;
        let settings = Settings {
            region: options.region,
            account: options.account,
            service_limits: options.service_limits,
            iterator_lifetime: options.iterator_lifetime,
            creation_delay: options.creation_delay,
            subscription_length: options.subscription_length,
            subscription_cooldown: options.subscription_cooldown,
            heartbeat: options.heartbeat,
        };
        let service = match options.data {
            None => Service::new(settings),
            Some(folder) => {
                // This blocks, but no part of the endpoint runs yet.
                let (store, events) = Store::open(&folder)?;
                Service::restore(settings, store, events, clock::now())?
            }
        };
        let service = Arc::new(service);
        let server = Server::start(listener, |tasks, stop| {
            let site = Site { service: Arc::clone(&service), tasks: tasks.clone(), stop: stop.clone() };
            move |request| http::answer(site.clone(), request)
        });
        tracing::info!(address = %bound, "Kinesis endpoint is listening");
        Ok(Self { address: bound, service, server })
    }

    /// The address that it listens on.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of the endpoint, for SDKs.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Injects faults, for tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Makes all shard iterators and paging tokens issued so far expire.
    pub fn expire_iterators(&self) {
        self.service.run.expire_all();
    }

    /// Ends subscriptions as a broken connection does: those to this stream (by name) and this shard (by id),
    /// or to any. Returns their number.
    pub fn drop_subscriptions(&self, stream: Option<&str>, shard: Option<&str>) -> usize {
        self.service.subscriptions.drop_where(|name, number| {
            stream.is_none_or(|stream| stream == name)
                && shard.is_none_or(|shard| shard == shard::shard_id(number))
        })
    }

    /// Number of records put in this run, to all existing streams.
    #[must_use]
    pub fn total_records(&self) -> u64 {
        self.records().iter().map(|count| count.records).sum()
    }

    /// Number of records put in this run, by stream name and shard id.
    #[must_use]
    pub fn records(&self) -> Vec<ShardCount> {
        let streams = self.service.streams();
        let mut counts = Vec::new();
        for stream in streams.values() {
            counts.extend(stream.read().shards().iter().map(|shard| ShardCount {
                stream: stream.birth.name.clone(),
                shard: shard.id(),
                records: shard.accepted(),
            }));
        }
        counts
    }

    /// Whether a stream contains no record. One that does not exist is empty.
    #[must_use]
    pub fn is_empty(&self, stream: &str) -> bool {
        let streams = self.service.streams();
        streams
            .values()
            .filter(|found| found.birth.name == stream)
            .all(|found| found.read().shards().iter().all(|shard| shard.is_empty()))
    }

    /// Stops: accepts no more connections, lets calls in progress finish, ends subscriptions.
    pub async fn stop(self) {
        self.server.stop().await;
        self.service.close();
    }
}
