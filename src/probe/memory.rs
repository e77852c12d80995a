//! The port in memory: a stream, tables that exist or not, and replies that a test sets.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use super::port::{Api, Call, Consumer, Found, Reply, Service, StreamFacts, Table, TableFacts};
use crate::shard::BoxFuture;
use crate::stream::StreamId;

/// Everything exists and is permitted, except for changes by a test.
#[derive(Debug, Default)]
pub(super) struct Scripted {
    refused: BTreeMap<String, String>,
    unreached: Vec<(Service, String)>,
    missing: BTreeSet<Table>,
    no_stream: bool,
    no_index: bool,
    refused_table: Option<Table>,
    consumer: bool,
    foreign: bool,
    ignores_conditions: bool,
    encrypted: bool,
    calls: Mutex<Vec<Call>>,
}

impl Scripted {
    /// Every call of that action is refused with this code.
    pub(super) fn refusing(mut self, action: &str, code: &str) -> Self {
        self.refused.insert(action.to_owned(), code.to_owned());
        self
    }

    /// The service is not reached.
    pub(super) fn unreached(mut self, service: Service, why: &str) -> Self {
        self.unreached.push((service, why.to_owned()));
        self
    }

    /// These tables do not exist.
    pub(super) fn without(mut self, tables: &[Table]) -> Self {
        self.missing.extend(tables);
        self
    }

    /// The stream does not exist.
    pub(super) fn without_stream(self) -> Self {
        Self { no_stream: true, ..self }
    }

    /// The index of lease owners does not exist.
    pub(super) fn without_index(self) -> Self {
        Self { no_index: true, ..self }
    }

    /// The calls of this table are denied.
    pub(super) fn refusing_table(self, table: Table) -> Self {
        Self { refused_table: Some(table), ..self }
    }

    /// The consumer exists.
    pub(super) fn with_consumer(self) -> Self {
        Self { consumer: true, ..self }
    }

    /// The lease table is none.
    pub(super) fn with_foreign_table(self) -> Self {
        Self { foreign: true, ..self }
    }

    /// Conditions have no effect.
    pub(super) fn ignoring_conditions(self) -> Self {
        Self { ignores_conditions: true, ..self }
    }

    /// The stream is encrypted.
    pub(super) fn encrypted(self) -> Self {
        Self { encrypted: true, ..self }
    }

    /// The calls so far.
    pub(super) fn calls(&self) -> Vec<Call> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn reply(&self, call: &Call) -> Reply {
        let refused = |code: &str, message: &str| Reply::Refused {
            code: code.to_owned(),
            message: message.to_owned(),
            service_fault: false,
        };
        let missing = refused("ResourceNotFoundException", "not found");
        if let Some((_, why)) = self.unreached.iter().find(|(service, _)| *service == call.service()) {
            return Reply::Unreached(why.clone());
        }
        if let Some(code) = self.refused.get(call.action()) {
            return refused(code, "refused");
        }
        if let Call::Table(table) = call
            && self.refused_table == Some(*table)
        {
            return refused("AccessDeniedException", "refused");
        }
        match call {
            Call::Identity => Reply::Done(Found::Identity {
                account: "123456789012".to_owned(),
                arn: "arn:aws:iam::123456789012:user/me".to_owned(),
            }),
            Call::Summary | Call::Description | Call::Shards | Call::Iterator(_) | Call::Records(_)
                if self.no_stream =>
            {
                missing
            }
            Call::Summary | Call::Description => Reply::Done(Found::Stream(StreamFacts {
                id: StreamId::new("arn:aws:kinesis:us-east-1:123456789012:stream/s", 1),
                status: "ACTIVE".to_owned(),
                mode: Some("ON_DEMAND".to_owned()),
                open_shards: Some(4),
                consumers: Some(3),
                key: self.encrypted.then(|| "alias/k".to_owned()),
                retention_hours: 24,
            })),
            Call::Shards => Reply::Done(Found::Shard("shardId-000000000002".to_owned())),
            Call::Iterator(_) => Reply::Done(Found::Iterator("iterator".to_owned())),
            Call::Records(_) => Reply::Done(Found::Nothing),
            Call::Consumer(_) if !self.consumer => missing,
            Call::Consumer(Consumer::Arn(arn)) => {
                Reply::Done(Found::Consumer { arn: arn.clone(), status: "ACTIVE".to_owned() })
            }
            Call::Consumer(Consumer::Of { stream, name }) => Reply::Done(Found::Consumer {
                arn: format!("{stream}/consumer/{name}:1"),
                status: "ACTIVE".to_owned(),
            }),
            Call::Table(table) if self.missing.contains(table) => missing,
            Call::Table(table) => Reply::Done(Found::Table(TableFacts {
                arn: Some(format!("arn:aws:dynamodb:us-east-1:123456789012:table/{table:?}")),
                status: "ACTIVE".to_owned(),
                shape: self.foreign.then(|| "its key is id".to_owned()),
                index: !self.no_index,
            })),
            Call::Scan(table)
            | Call::Get(table)
            | Call::Delete(table)
            | Call::Put(table)
            | Call::Update(table)
            | Call::Condition(table)
                if self.missing.contains(table) =>
            {
                missing
            }
            Call::Query if self.missing.contains(&Table::Leases) => missing,
            Call::Query if self.no_index => refused("ValidationException", "no such index"),
            Call::Scan(_) | Call::Get(_) | Call::Query => Reply::Done(Found::Nothing),
            Call::Delete(_) | Call::Put(_) | Call::Update(_) if self.ignores_conditions => {
                Reply::Done(Found::Nothing)
            }
            Call::Delete(_) | Call::Put(_) | Call::Update(_) => {
                refused("ConditionalCheckFailedException", "The conditional request failed")
            }
            Call::Condition(_) => refused("TransactionCanceledException", "[ConditionalCheckFailed]"),
        }
    }
}

impl Api for Scripted {
    fn call<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Reply> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner).push(call.clone());
        let reply = self.reply(call);
        Box::pin(async { reply })
    }
}
