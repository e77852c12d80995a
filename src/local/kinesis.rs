//! An embedded Kinesis endpoint: what users develop against in local mode, and what tests run on.
//!
//! It speaks the Kinesis API over HTTP/1.1 and HTTP/2 on one loopback port, in JSON and in CBOR, and
//! answers as AWS does wherever a consumer can tell. Signatures are not checked.
//!
//! Invariants:
//! - A record that was acknowledged is never missed by a reader that tails its shard.
//! - GetRecords leaves out the next iterator exactly when it names child shards: at the end of a
//!   closed shard, when all its records were read.
//! - Every task belongs to the [`Kinesis`] that started it and ends with it.
//!
//! The layers, from the outside: `http` reads requests and writes answers, `operations` has a type
//! for each request, `service` is the account with its streams, `stream` and `shard` hold the state.
//! All below `http` is synchronous and takes the time as an argument. Unit tests are at the bottom of
//! the files, the behaviour as a whole is tested in `tests/contract`.

mod check;
mod clock;
mod codec;
mod error;
mod faults;
mod filter;
mod hash;
mod http;
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

/// How an endpoint behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where it listens: a loopback address; port 0 takes a free one.
    pub address: SocketAddr,
    /// Folder that keeps streams and records between runs; without it they are kept in memory.
    pub data: Option<PathBuf>,
    /// Whether the limits per shard hold: 5 reads and 2 MiB a second, 1,000 records and 1 MiB written.
    pub service_limits: bool,
    /// Region in ARNs.
    pub region: String,
    /// Account in ARNs and messages: twelve digits.
    pub account: String,
    /// After how long a shard iterator is refused: five minutes in AWS.
    pub iterator_lifetime: Duration,
    /// After how long a subscription ends: five minutes in AWS.
    pub subscription_length: Duration,
    /// How soon after a successful SubscribeToShard another one by the same consumer to the same
    /// shard is refused: five seconds in AWS.
    pub subscription_cooldown: Duration,
    /// How often a subscription to a quiet shard gets an event without records.
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

/// Why an endpoint can't start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is reachable from other machines, and nothing here checks who calls.
    #[error(
        "the Kinesis endpoint checks no credentials and listens on loopback addresses only, not on \
         {address} (use 127.0.0.1 or [::1])"
    )]
    NotLoopback {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Another process listens there.
    #[error(
        "failed to listen on {address}: another process, perhaps another endpoint, uses it (stop it, or \
         choose another port; 0 takes any free one)"
    )]
    AddressInUse {
        /// The address asked for.
        address: SocketAddr,
    },
    /// Listening failed otherwise.
    #[error("failed to listen on {address}: {source}")]
    Listen {
        /// The address asked for.
        address: SocketAddr,
        /// What the system says.
        source: io::Error,
    },
    /// The data folder can't be used.
    #[error(transparent)]
    Data(#[from] DataError),
}

/// Records put to one shard in this run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardCount {
    /// Name of the stream.
    pub stream: String,
    /// Id of the shard.
    pub shard: String,
    /// Records that were put.
    pub records: u64,
}

/// A running endpoint. Dropping it ends it at once; [`Kinesis::stop`] ends it in order.
#[derive(Debug)]
pub struct Kinesis {
    address: SocketAddr,
    service: Arc<Service>,
    server: Server,
}

impl Kinesis {
    /// Starts an endpoint. When this returns, it can be called.
    ///
    /// # Errors
    /// When the address is not a loopback one or can't be listened on, and when the data folder can't
    /// be used.
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
                // This blocks, but nothing of the endpoint runs yet.
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

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// The endpoint URL to give to an SDK.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The switches for tests.
    #[must_use]
    pub fn faults(&self) -> &Faults {
        &self.service.faults
    }

    /// Makes all shard iterators and paging tokens that were issued so far count as expired.
    pub fn expire_iterators(&self) {
        self.service.run.expire_all();
    }

    /// Ends running subscriptions as a broken connection does: to this stream, by name, and this
    /// shard, by id, or to any. How many there were.
    pub fn drop_subscriptions(&self, stream: Option<&str>, shard: Option<&str>) -> usize {
        self.service.subscriptions.drop_where(|name, number| {
            stream.is_none_or(|stream| stream == name)
                && shard.is_none_or(|shard| shard == shard::shard_id(number))
        })
    }

    /// Records put in this run, over all streams there are.
    #[must_use]
    pub fn total_records(&self) -> u64 {
        self.records().iter().map(|count| count.records).sum()
    }

    /// Records put in this run by shard, by the names of streams and the ids of shards.
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

    /// Stops: takes no more connections, lets running calls finish, ends subscriptions.
    pub async fn stop(self) {
        self.server.stop().await;
        self.service.close();
    }
}
