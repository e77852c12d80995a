//! Faults on order, and what was called: the switches by which tests make the endpoint misbehave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::operations::{Operation, Scope};

/// What a fault does to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The call is carried out after this time.
    Delay(Duration),
    /// `ProvisionedThroughputExceededException`, and nothing is carried out. On PutRecords with a
    /// shard, the records that go to that shard fail and the others are taken.
    Throttle,
    /// `InternalFailure` with status 500, and nothing is carried out. On PutRecords as above.
    Fail,
    /// The call is carried out, and the connection ends without an answer.
    LoseAnswer,
    /// The call is carried out, and the connection ends in the middle of the answer; of a subscription in the
    /// middle of its first event.
    CutAnswer,
    /// `UnknownOperationException`, as of an endpoint that has no such call.
    Unknown,
}

/// A fault: on which calls it acts, how, and how often.
#[derive(Clone, Debug)]
pub struct Fault {
    operation: Operation,
    stream: Option<String>,
    shard: Option<String>,
    effect: Effect,
    left: Option<u32>,
}

impl Fault {
    /// A fault on every call of an operation, until [`Faults::clear`].
    #[must_use]
    pub const fn on(operation: Operation, effect: Effect) -> Self {
        Self { operation, stream: None, shard: None, effect, left: None }
    }

    /// Only on calls about this stream, by name.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// Only on calls about this shard, by id.
    #[must_use]
    pub fn shard(mut self, id: impl Into<String>) -> Self {
        self.shard = Some(id.into());
        self
    }

    /// Only on the next `count` calls that it fits.
    #[must_use]
    pub const fn times(mut self, count: u32) -> Self {
        self.left = Some(count);
        self
    }

    fn fits(&self, operation: Operation, scope: &Scope) -> bool {
        let fits = |wanted: &Option<String>, given: &Option<String>| wanted.is_none() || wanted == given;
        self.left != Some(0)
            && self.operation == operation
            && fits(&self.stream, &scope.stream)
            && fits(&self.shard, &scope.shard)
    }
}

/// The switches of one endpoint. Faults are tried in the order in which they were added; each call is
/// hit by the first that fits.
#[derive(Debug)]
pub struct Faults {
    armed: Mutex<Vec<Fault>>,
    calls: Vec<AtomicU64>,
}

impl Default for Faults {
    fn default() -> Self {
        Self { armed: Mutex::default(), calls: Operation::ALL.iter().map(|_| AtomicU64::new(0)).collect() }
    }
}

impl Faults {
    /// Adds a fault.
    pub fn add(&self, fault: Fault) {
        self.armed().push(fault);
    }

    /// Takes all faults back.
    pub fn clear(&self) {
        self.armed().clear();
    }

    /// How often an operation was called, whatever came of it. Calls that were not understood don't
    /// count.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.calls.get(operation.index()).map_or(0, |calls| calls.load(Ordering::SeqCst))
    }

    fn armed(&self) -> MutexGuard<'_, Vec<Fault>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self, operation: Operation) {
        if let Some(calls) = self.calls.get(operation.index()) {
            calls.fetch_add(1, Ordering::SeqCst);
        }
    }

    /// The effect on a call, which is used up.
    pub(super) fn strike(&self, operation: Operation, scope: impl FnOnce() -> Scope) -> Option<Effect> {
        self.strike_where(scope, |fault, scope| fault.fits(operation, scope))
    }

    /// The effect on the part of a call that concerns one shard, which is used up.
    pub(super) fn strike_shard(&self, operation: Operation, scope: impl FnOnce() -> Scope) -> Option<Effect> {
        self.strike_where(scope, |fault, scope| {
            let refuses = matches!(fault.effect, Effect::Throttle | Effect::Fail);
            fault.shard.is_some() && refuses && fault.fits(operation, scope)
        })
    }

    fn strike_where(
        &self,
        scope: impl FnOnce() -> Scope,
        fits: impl Fn(&Fault, &Scope) -> bool,
    ) -> Option<Effect> {
        let mut armed = self.armed();
        if armed.is_empty() {
            return None;
        }
        let scope = scope();
        let fault = armed.iter_mut().find(|fault| fits(fault, &scope))?;
        if let Some(left) = &mut fault.left {
            *left -= 1;
        }
        let effect = fault.effect;
        armed.retain(|fault| fault.left != Some(0));
        Some(effect)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope(stream: &str, shard: &str) -> Scope {
        Scope { stream: Some(stream.to_owned()), shard: Some(shard.to_owned()) }
    }

    #[test]
    fn a_fault_hits_what_it_names_and_as_often_as_it_says() {
        let faults = Faults::default();
        let fault = Fault::on(Operation::GetRecords, Effect::Throttle).stream("s").times(2);
        faults.add(fault.shard("shardId-000000000001"));
        let hit = |operation, stream, shard| faults.strike(operation, || scope(stream, shard)).is_some();
        assert!(!hit(Operation::PutRecord, "s", "shardId-000000000001"));
        assert!(!hit(Operation::GetRecords, "t", "shardId-000000000001"));
        assert!(!hit(Operation::GetRecords, "s", "shardId-000000000000"));
        assert!(hit(Operation::GetRecords, "s", "shardId-000000000001"));
        assert!(hit(Operation::GetRecords, "s", "shardId-000000000001"));
        assert!(!hit(Operation::GetRecords, "s", "shardId-000000000001"));
    }

    #[test]
    fn a_fault_without_a_count_stays_until_cleared() {
        let faults = Faults::default();
        faults.add(Fault::on(Operation::PutRecord, Effect::Fail));
        for _ in 0..3 {
            assert_eq!(faults.strike(Operation::PutRecord, Scope::default), Some(Effect::Fail));
        }
        faults.clear();
        assert_eq!(faults.strike(Operation::PutRecord, Scope::default), None);
    }
}
