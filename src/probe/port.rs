//! The calls of a check, their replies, and the port that makes them.

use std::fmt;

use crate::shard::BoxFuture;
use crate::stream::StreamId;

/// A service of AWS.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// The identity of the credentials.
    Sts,
    /// The stream.
    Kinesis,
    /// The tables.
    DynamoDb,
}

impl fmt::Display for Service {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Sts => "STS",
            Self::Kinesis => "Kinesis",
            Self::DynamoDb => "DynamoDB",
        })
    }
}

/// A table of the application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Table {
    /// The lease table.
    Leases,
    /// The coordinator's table of KCL 3.0 to 3.4.
    State,
    /// The table of worker metrics of KCL 3.0 to 3.4.
    Reports,
}

/// A consumer of enhanced fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Consumer {
    /// By its ARN.
    Arn(String),
    /// By its name, of the stream with this ARN.
    Of {
        /// The stream's ARN.
        stream: String,
        /// The consumer's name.
        name: String,
    },
}

/// A call. None has an effect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Call {
    /// `GetCallerIdentity`.
    Identity,
    /// `DescribeStreamSummary`.
    Summary,
    /// `DescribeStream`.
    Description,
    /// `ListShards`, for one open shard.
    Shards,
    /// `GetShardIterator` at `LATEST`.
    Iterator(String),
    /// `GetRecords` for one record, with this iterator.
    Records(String),
    /// `DescribeStreamConsumer`.
    Consumer(Consumer),
    /// `DescribeTable`.
    Table(Table),
    /// `Scan` for one row.
    Scan(Table),
    /// `Query` of the index of lease owners, for a worker that does not exist.
    Query,
    /// `GetItem` for a row that does not exist.
    Get(Table),
    /// `DeleteItem` with a condition that no row fulfils.
    Delete(Table),
    /// `PutItem` with a condition that no row fulfils.
    Put(Table),
    /// `UpdateItem` with a condition that no row fulfils.
    Update(Table),
    /// A transaction of a condition that no row fulfils.
    Condition(Table),
}

impl Call {
    /// The service.
    pub fn service(&self) -> Service {
        match self {
            Self::Identity => Service::Sts,
            Self::Summary
            | Self::Description
            | Self::Shards
            | Self::Iterator(_)
            | Self::Records(_)
            | Self::Consumer(_) => Service::Kinesis,
            Self::Table(_)
            | Self::Scan(_)
            | Self::Query
            | Self::Get(_)
            | Self::Delete(_)
            | Self::Put(_)
            | Self::Update(_)
            | Self::Condition(_) => Service::DynamoDb,
        }
    }

    /// The IAM action that permits the call.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Identity => "sts:GetCallerIdentity",
            Self::Summary => "kinesis:DescribeStreamSummary",
            Self::Description => "kinesis:DescribeStream",
            Self::Shards => "kinesis:ListShards",
            Self::Iterator(_) => "kinesis:GetShardIterator",
            Self::Records(_) => "kinesis:GetRecords",
            Self::Consumer(_) => "kinesis:DescribeStreamConsumer",
            Self::Table(_) => "dynamodb:DescribeTable",
            Self::Scan(_) => "dynamodb:Scan",
            Self::Query => "dynamodb:Query",
            Self::Get(_) => "dynamodb:GetItem",
            Self::Delete(_) => "dynamodb:DeleteItem",
            Self::Put(_) => "dynamodb:PutItem",
            Self::Update(_) => "dynamodb:UpdateItem",
            Self::Condition(_) => "dynamodb:ConditionCheckItem",
        }
    }
}

/// The reply to a call.
#[derive(Debug, Clone, PartialEq)]
pub enum Reply {
    /// The call succeeded.
    Done(Found),
    /// The service refused the call.
    Refused {
        /// The error code.
        code: String,
        /// The message.
        message: String,
        /// Whether the service is at fault.
        service_fault: bool,
    },
    /// The service was not reached or did not answer in time.
    Unreached(String),
}

/// The content of a successful reply.
#[derive(Debug, Clone, PartialEq)]
pub enum Found {
    /// Nothing that the report needs.
    Nothing,
    /// The caller's identity.
    Identity {
        /// The account.
        account: String,
        /// The ARN.
        arn: String,
    },
    /// The stream.
    Stream(StreamFacts),
    /// The id of an open shard.
    Shard(String),
    /// A shard iterator.
    Iterator(String),
    /// A consumer's ARN and status.
    Consumer {
        /// The ARN.
        arn: String,
        /// The status, such as `ACTIVE`.
        status: String,
    },
    /// A table.
    Table(TableFacts),
}

/// A stream, as `DescribeStreamSummary` or `DescribeStream` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamFacts {
    /// ARN and creation time.
    pub id: StreamId,
    /// The status, such as `ACTIVE`.
    pub status: String,
    /// `PROVISIONED` or `ON_DEMAND`.
    pub mode: Option<String>,
    /// The number of open shards.
    pub open_shards: Option<usize>,
    /// The number of registered consumers.
    pub consumers: Option<usize>,
    /// The KMS key of an encrypted stream.
    pub key: Option<String>,
    /// Hours for which records are kept.
    pub retention_hours: i64,
}

/// A table, as `DescribeTable` describes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TableFacts {
    /// The ARN.
    pub arn: Option<String>,
    /// The status, such as `ACTIVE`.
    pub status: String,
    /// Why the table is no lease table. Only determined for the lease table.
    pub shape: Option<String>,
    /// Whether the index of lease owners exists and can be used.
    pub index: bool,
}

/// Makes the calls, as the clients of a daemon would.
pub trait Api: Send + Sync {
    /// Makes a call, within a time limit.
    fn call<'a>(&'a self, call: &'a Call) -> BoxFuture<'a, Reply>;
}
