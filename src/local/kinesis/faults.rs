//! Fault injection and call counts: the switches by which tests make the endpoint misbehave.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::operations::{Operation, Scope};

/// The effect of a fault on a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Effect {
    /// The call is executed after this time.
    Delay(Duration),
    /// `ProvisionedThroughputExceededException`, and nothing is executed. On PutRecords with a shard, the
    /// records for that shard fail and the others are accepted.
    Throttle,
    /// `InternalFailure` with status 500, and nothing is executed. On PutRecords as for `Throttle`.
    Fail,
    /// The call is executed, and the connection closes without an answer.
    LoseAnswer,
    /// The call is executed, and the connection closes in the middle of the answer; for a subscription, in
    /// the middle of its first event.
    CutAnswer,
    /// `UnknownOperationException`, as an endpoint without that call answers.
    Unknown,
}

/// A fault: the calls that it affects, its effect, and how often.
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

    /// Affects only calls about this stream, by name.
    #[must_use]
    pub fn stream(mut self, name: impl Into<String>) -> Self {
        self.stream = Some(name.into());
        self
    }

    /// Affects only calls about this shard, by id.
    #[must_use]
    pub fn shard(mut self, id: impl Into<String>) -> Self {
        self.shard = Some(id.into());
        self
    }

    /// Affects only the next `count` matching calls.
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

/// The faults of one endpoint. They are tried in the order in which they were added; the first that matches
/// affects the call.
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

    /// Removes all faults.
    pub fn clear(&self) {
        self.armed().clear();
    }

    /// Number of calls of an operation, whatever their result. Unreadable calls are not counted.
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

    /// Takes the effect on a call from the faults.
    pub(super) fn strike(&self, operation: Operation, scope: impl FnOnce() -> Scope) -> Option<Effect> {
        self.strike_where(scope, |fault, scope| fault.fits(operation, scope))
    }

    /// Takes the effect on the part of a call that concerns one shard.
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
    fn fault_affects_its_calls_the_given_number_of_times() {
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
    fn fault_without_a_count_stays_until_cleared() {
        let faults = Faults::default();
        faults.add(Fault::on(Operation::PutRecord, Effect::Fail));
        for _ in 0..3 {
            assert_eq!(faults.strike(Operation::PutRecord, Scope::default), Some(Effect::Fail));
        }
        faults.clear();
        assert_eq!(faults.strike(Operation::PutRecord, Scope::default), None);
    }
}
