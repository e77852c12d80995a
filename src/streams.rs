//! The streams that a configuration names, called with the AWS SDK.

use std::sync::Arc;

use crate::aws::client::Clients;
use crate::aws::kinesis::{Attempts, Stream};
use crate::config::{Config, policy};
use crate::daemon::{Open, StreamPorts, Streams};
use crate::shard::{self, BoxFuture};
use crate::stream::ConfiguredArn;

/// The streams of the daemon, without a call.
pub fn of(clients: &Clients, config: &Config) -> Streams {
    if config.streams.is_empty() {
        let stream = clients.stream(config.stream.clone()).with_arn(config.stream_arn.clone());
        return Streams::One(ports(stream.listing(attempts(config))));
    }
    let open = Arc::new(Named::new(clients, config));
    Streams::Several { wanted: config.streams.clone(), open }
}

/// One of several streams, of that account if it is known.
pub fn named(clients: &Clients, config: &Config, name: &str, account: Option<&str>) -> Stream {
    Named::new(clients, config).stream(name, account)
}

fn ports(stream: Stream) -> StreamPorts {
    let stream = Arc::new(stream);
    StreamPorts { shards: stream.clone(), records: stream.clone(), fanout: Some(stream) }
}

/// Streams of one region.
struct Named {
    clients: Clients,
    region: Option<String>,
    /// `multilangd.useStreamArn`.
    by_arn: bool,
    list: Attempts,
}

/// The names of all streams of the account.
///
/// # Errors
/// They cannot be listed.
pub async fn list(clients: &Clients) -> Result<Vec<String>, shard::Error> {
    clients.stream_names().await
}

fn attempts(config: &Config) -> Attempts {
    Attempts { pause: config.list_shards_pause, most: config.list_shards_attempts }
}

impl Named {
    fn new(clients: &Clients, config: &Config) -> Self {
        let region = clients.kinesis.config().region().map(ToString::to_string);
        Self { clients: clients.clone(), region, by_arn: config.use_stream_arn, list: attempts(config) }
    }

    fn stream(&self, name: &str, account: Option<&str>) -> Stream {
        let arn = self.region.as_deref().zip(account).map(|(region, account)| {
            let partition = policy::partition(region);
            let arn = format!("arn:{partition}:kinesis:{region}:{account}:stream/{name}");
            ConfiguredArn { arn, used: self.by_arn }
        });
        self.clients.stream(name.to_owned()).with_arn(arn).listing(self.list)
    }
}

impl Open for Named {
    fn open(&self, name: &str, account: Option<&str>) -> StreamPorts {
        ports(self.stream(name, account))
    }

    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, shard::Error>> {
        Box::pin(self.clients.stream_names())
    }

    fn by_arn(&self) -> bool {
        self.by_arn
    }
}
