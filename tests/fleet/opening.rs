//! The streams of a worker that reads several, opened by their names.

use std::sync::Arc;

use multilangd::daemon::{Open, StreamPorts};
use multilangd::shard::{self, BoxFuture, Filter, Shard};
use multilangd::stream::{StreamId, Wanted};

use crate::links::Link;
use crate::stream::Stream;
use crate::world::Bug;

impl Open for Link {
    fn open(&self, name: &str, _: Option<&str>) -> StreamPorts {
        let of = |stream: &Stream| Arc::new(Self { stream: stream.identifier.clone(), ..self.clone() });
        let state = self.world.state();
        let is_named =
            |stream: &&Stream| stream.identifier.as_ref().is_some_and(|identifier| identifier.name() == name);
        let stream = state.streams().find(is_named).expect("a stream of the application");
        let is_first = stream.identifier == state.stream.identifier;
        let is_mixed = is_first && state.bug == Some(Bug::MixesStreams);
        let records = if is_mixed { of(&state.more[0]) } else { of(stream) };
        StreamPorts { shards: of(stream), records, fanout: None }
    }

    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, shard::Error>> {
        let state = self.world.state();
        let named = state.streams().filter_map(|stream| stream.identifier.as_ref());
        let names = named.map(|identifier| identifier.name().to_owned()).collect();
        Box::pin(async { Ok(names) })
    }

    fn by_arn(&self) -> bool {
        false
    }
}

/// The streams of a worker for which those that it does not list do not exist.
pub struct ListedOnly {
    pub link: Link,
    pub listed: Vec<Wanted>,
}

impl Open for ListedOnly {
    fn open(&self, name: &str, account: Option<&str>) -> StreamPorts {
        let ports = self.link.open(name, account);
        let is_listed = self.listed.iter().any(|listed| listed.name == name);
        if is_listed { ports } else { StreamPorts { shards: Arc::new(Missing), ..ports } }
    }

    fn names(&self) -> BoxFuture<'_, Result<Vec<String>, shard::Error>> {
        self.link.names()
    }

    fn by_arn(&self) -> bool {
        self.link.by_arn()
    }
}

struct Missing;

impl shard::Api for Missing {
    fn list(&self, _: Filter) -> BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
        Box::pin(async { Err(shard::Error::StreamMissing(String::new())) })
    }

    fn identity(&self) -> BoxFuture<'_, Result<StreamId, shard::Error>> {
        Box::pin(async { Err(shard::Error::StreamMissing(String::new())) })
    }
}
