//! Writes dead letters, and reports the search for their records.

use tokio::time::Instant;
use tracing::{error, warn};

use super::Consumer;
use super::event::Event;
use crate::letters::{Condition, Failure, Letter};
use crate::metrics::OfShard;
use crate::record::Record;

/// Most failures in one letter.
const FAILURES: usize = 10;

impl Consumer {
    pub(super) fn bisecting(&mut self, reason: String, records: usize, alone: u32) {
        let stderr = self.stderr();
        self.emit(OfShard::ChildFailed { times: 1, reason: &reason, stderr: &stderr });
        self.emit(OfShard::Bisecting { records });
        if alone == 0 {
            warn!(
                event = "batch_divided",
                pid = self.pid,
                error = reason,
                stderr = stderr.last(),
                records,
                "record processor failed at one of these records, delivering fewer of them at once"
            );
            return;
        }
        warn!(
            event = "record_failed",
            pid = self.pid,
            error = reason,
            stderr = stderr.last(),
            failures = alone,
            "record processor failed at a single record"
        );
        self.alone = alone;
        if alone == 1 {
            self.failures.clear();
        }
        if self.failures.len() == FAILURES {
            self.failures.remove(0);
        }
        let at = self.parts.letters.as_ref().map_or(0, |letters| (letters.wall)());
        self.failures.push(Failure { at, reason, stderr });
    }

    /// Completes with [`Event::Lettered`].
    pub(super) fn write_letter(&mut self, record: Record) {
        let position = record.position();
        let Some(letters) = self.parts.letters.clone() else {
            let reason = "no destination is configured".to_owned();
            self.events.push_back(Event::Lettered(position, Err(reason)));
            return;
        };
        // Another worker may process the record by now.
        if !self.held.is_live(Instant::now()) {
            self.held.mark_lost();
            self.events.push_back(Event::Lettered(position, Err("the lease has expired".to_owned())));
            return;
        }
        let letter = Letter {
            condition: Condition::RetryAttemptsExhausted,
            at: (letters.wall)(),
            shard: self.held.shard().clone(),
            stream: self.parts.source.recognition.current().map(|stream| stream.arn().to_owned()),
            application: letters.application,
            worker: letters.worker,
            program: self.parts.program.to_string(),
            attempts: self.alone,
            failures: self.failures.clone(),
            record,
        };
        let (sink, shard) = (self.parts.sink.clone(), self.held.shard().clone());
        self.spawn(async move {
            let sent = letters.destination.send(&letter).await;
            if sent.is_ok() {
                error!(event = "dead_letter_written", %position, id = letter.id(), error = letter.last_error(),
                    "wrote a record to the dead letters, continuing after it");
                sink.shard(&shard, OfShard::DeadLetter { position: &position, error: letter.last_error() });
            }
            Event::Lettered(position, sent.map_err(|error| error.to_string()))
        });
    }
}
