//! Identifies streams: which one a name, or the key of a lease, stands for, and whether this worker may read it.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::timeout;
use tracing::{Instrument as _, error_span};

use super::error::Error;
use super::opener::{Opened, Opener, Place};
use super::ports::{Open, StreamPorts};
use crate::lease::{Lease, Table};
use crate::shard;
use crate::stream::{StreamId, StreamIdentifier, Wanted};

/// The time to identify one stream, in which Kinesis may throttle its calls.
const LIMIT: Duration = Duration::from_secs(60);

/// The streams that have leases.
pub(super) fn streams(leases: &[Lease]) -> BTreeSet<StreamIdentifier> {
    let mut streams: BTreeSet<StreamIdentifier> = BTreeSet::new();
    for stream in leases.iter().filter_map(|lease| lease.key.stream()) {
        if !streams.contains(stream) {
            streams.insert(stream.clone());
        }
    }
    streams
}

/// Identifies streams of one table.
#[derive(Clone)]
pub(super) struct Identify {
    pub(super) table: Arc<dyn Table>,
    pub(super) opener: Arc<Opener>,
    pub(super) open: Arc<dyn Open>,
}

/// A stream that was identified.
pub(super) struct Identified {
    pub(super) stream: StreamIdentifier,
    pub(super) opened: Opened,
    pub(super) described: Option<StreamId>,
}

impl Identify {
    /// Identifies a configured stream, and compares its leases with it.
    pub(super) async fn configured(self, wanted: Wanted, place: Place) -> Result<Identified, Error> {
        let ports = self.open.open(&wanted.name, wanted.account.as_deref());
        let named = wanted.name.clone();
        within(&named, async {
            // First: streams that are identified at once share the scan, and wait for each other's descriptions.
            let leases = self.table.list().await?;
            let found = self.opener.find(ports);
            let described = found.recognition.describe().await?;
            let identifier = wanted.identifier(described.as_ref(), &streams(&leases))?;
            self.verify(&identifier, described.as_ref())?;
            self.compared(identifier, found, place, &leases, described).await
        })
        .await
    }

    /// Identifies a stream by the key of its leases, and compares them with it.
    pub(super) async fn by_key(self, stream: StreamIdentifier, place: Place) -> Result<Identified, Error> {
        let ports: StreamPorts = self.open.open(stream.name(), Some(stream.account()));
        let named = stream.to_string();
        within(&named, async {
            let leases = self.table.list().await?;
            let found = self.opener.find(ports);
            let described = found.recognition.describe().await?;
            self.verify(&stream, described.as_ref())?;
            self.compared(stream, found, place, &leases, described).await
        })
        .await
    }

    /// A name alone can be a stream of another account than the one of the leases.
    fn verify(&self, stream: &StreamIdentifier, described: Option<&StreamId>) -> Result<(), Error> {
        match described {
            Some(described) if stream.may_be(described) => Ok(()),
            Some(described) => {
                let (configured, found) = (stream.to_string(), described.arn().to_owned());
                Err(shard::Error::Namesake { configured, found }.into())
            }
            None if self.open.by_arn() => Ok(()),
            None => Err(shard::Error::Denied(format!(
                "stream {stream}: its account cannot be verified (allow kinesis:DescribeStreamSummary, or set \
                 multilangd.useStreamArn = true)"
            ))
            .into()),
        }
    }

    async fn compared(
        &self,
        stream: StreamIdentifier,
        found: super::opener::Found,
        place: Place,
        leases: &[Lease],
        described: Option<StreamId>,
    ) -> Result<Identified, Error> {
        let place = self.opener.place(place, described.as_ref(), !leases.is_empty());
        let opened = self.opener.open(Some(&stream), found, place);
        let span = error_span!("stream", %stream);
        opened.shard_sync.recognise_as(leases, described.clone()).instrument(span).await?;
        Ok(Identified { stream, opened, described })
    }
}

/// Gives up after [`LIMIT`], so that one stream does not keep the others waiting.
async fn within<T>(stream: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let work = work.instrument(error_span!("stream", stream));
    timeout(LIMIT, work).await.unwrap_or_else(|_| {
        Err(shard::Error::Unavailable(format!("stream {stream}: not identified in {LIMIT:?}")).into())
    })
}
