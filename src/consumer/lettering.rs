//! Writes dead letters, and reports the search for their records.

use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::event::Event;
use super::{Consumer, REPORT_AGAIN};
use crate::letters::{self, Condition, Failure, Letter};
use crate::metrics::OfShard;
use crate::record::Record;
use crate::sequence::Position;

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
        let at = (self.parts.wall)();
        letters::note_failure(&mut self.failures, Failure { at, reason, stderr });
    }

    /// Reports records that were passed because they were too old; logs their number at a limited rate.
    pub(super) fn aged(&mut self, records: usize, first: &Position, last: &Position) {
        self.emit(OfShard::Aged { records, first, last });
        self.aged.0 = self.aged.0.saturating_add(records as u64);
        let now = Instant::now();
        if self.aged.1.is_none_or(|at| now.saturating_duration_since(at) >= REPORT_AGAIN) {
            self.log_aged();
        }
    }

    /// Logs the records that were passed for their age since the last time.
    pub(super) fn log_aged(&mut self) {
        let (records, last) = (std::mem::take(&mut self.aged.0), &mut self.aged.1);
        if records == 0 {
            return;
        }
        *last = Some(Instant::now());
        let max_age_millis = self.parts.settings.max_age.map(|limit| limit.millis);
        if self.parts.settings.max_age.is_some_and(|limit| limit.writes_letters) {
            warn!(
                event = "old_records_lettered",
                records,
                max_age_millis,
                "wrote records older than multilangd.maxRecordAgeMillis to the dead letters"
            );
        } else {
            warn!(
                event = "old_records_skipped",
                records,
                max_age_millis,
                "skipped records older than multilangd.maxRecordAgeMillis (multilangd.skipOldRecords)"
            );
        }
    }

    /// Writes letters of these records. Completes with [`Event::AgedLettered`] if they are too old, otherwise with
    /// [`Event::Lettered`].
    pub(super) fn write_letters(&mut self, records: Vec<Record>, condition: Condition) {
        let Some(first) = records.first().map(Record::position) else { return };
        let Some(letters) = self.parts.letters.clone() else {
            let reason = "no destination is configured".to_owned();
            self.events.push_back(written(condition, first, Err(reason)));
            return;
        };
        // Another worker may process the records by now.
        if !self.held.is_live(Instant::now()) {
            self.held.mark_lost();
            self.events.push_back(written(condition, first, Err("the lease has expired".to_owned())));
            return;
        }
        let is_old = condition == Condition::RecordAgeExceeded;
        let (at, lease) = ((self.parts.wall)(), self.held.key().clone());
        let stream = self.source.recognition.current().map(|stream| stream.arn().to_owned());
        let program = self.parts.program.to_string();
        let of_record = |record| Letter {
            condition,
            at,
            lease: lease.clone(),
            stream: stream.clone(),
            application: letters.application.clone(),
            worker: letters.worker.clone(),
            program: program.clone(),
            attempts: if is_old { 0 } else { self.alone },
            failures: if is_old { Vec::new() } else { self.failures.clone() },
            record,
        };
        let all: Vec<Letter> = records.into_iter().map(of_record).collect();
        let sink = self.source.sink.clone();
        self.spawn(async move {
            let sent = letters.destination.send(&all).await.map_err(|error| error.to_string());
            let outcome = sent.and_then(|count| {
                let written = all.iter().take(count).map(|letter| {
                    let position = letter.record.position();
                    // Old records are logged together.
                    if is_old {
                        debug!(%position, id = letter.id(), "wrote an old record to the dead letters");
                    } else {
                        error!(event = "dead_letter_written", %position, id = letter.id(),
                            error = letter.last_error(), "wrote a record to the dead letters, continuing after it");
                    }
                    sink.shard(lease.shard(), OfShard::DeadLetter { position: &position, error: letter.last_error() });
                    position
                });
                let written: Vec<Position> = written.collect();
                let reason = || "its destination accepted no letter".to_owned();
                (!written.is_empty()).then_some(written).ok_or_else(reason)
            });
            written(condition, first, outcome)
        });
    }
}

/// The event that letters were written, from that of the record at `first` on, or that this one was rejected.
fn written(condition: Condition, first: Position, outcome: Result<Vec<Position>, String>) -> Event {
    match condition {
        Condition::RecordAgeExceeded => Event::AgedLettered { first, outcome },
        Condition::RetryAttemptsExhausted => Event::Lettered(first, outcome.map(drop)),
    }
}
