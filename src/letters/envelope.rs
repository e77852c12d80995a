//! A letter as one line of JSON.
//!
//! The fields outside `multilangd` are those that AWS Lambda sends to the on-failure destination of a Kinesis
//! event source mapping, so that scripts for them can be used; `data` and `multilangd` are added.

use serde_json::{Value, json};

use super::{Condition, Letter};
use crate::clock;

impl Condition {
    /// Lambda's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::RetryAttemptsExhausted => "RetryAttemptsExhausted",
            Self::RecordAgeExceeded => "RecordAgeExceeded",
        }
    }
}

impl Letter {
    /// Identifies the record: two letters of one record have one id.
    pub fn id(&self) -> String {
        let Self { application, lease, record, .. } = self;
        format!("{application}/{lease}/{}/{}", record.sequence, record.sub)
    }

    /// The letter as JSON.
    pub fn json(&self) -> Value {
        let record = &self.record;
        let (number, arrival) = (record.sequence.as_str(), record.arrival.map(clock::utc));
        let failures = self.failures.iter().map(|failure| {
            json!({"at": clock::utc(failure.at), "reason": failure.reason, "stderr": failure.stderr})
        });
        json!({
            "version": "1.0",
            "timestamp": clock::utc(self.at),
            "requestContext": {
                "condition": self.condition.name(),
                "approximateInvokeCount": self.attempts,
            },
            "KinesisBatchInfo": {
                "shardId": self.lease.shard().as_str(),
                "startSequenceNumber": number,
                "endSequenceNumber": number,
                "approximateArrivalOfFirstRecord": arrival,
                "approximateArrivalOfLastRecord": arrival,
                "batchSize": 1,
                "streamArn": self.stream,
            },
            "multilangd": {
                "id": self.id(),
                "application": self.application,
                "worker": self.worker,
                "leaseKey": self.lease.to_string(),
                "subSequenceNumber": record.sub,
                "partitionKey": record.partition_key.as_str(),
                "arrival": record.arrival,
                "program": self.program,
                "failures": failures.collect::<Value>(),
            },
            "data": record.data.as_str(),
        })
    }

    /// The letter as one line, with its end.
    pub fn line(&self) -> Vec<u8> {
        let mut line = self.json().to_string().into_bytes();
        line.push(b'\n');
        line
    }
}
