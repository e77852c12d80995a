//! Runs the model checker on a model within its bounds.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex};

use stateright::{Checker as _, Model};

/// The events that a check has observed in any state, so that a check that never reaches one cannot pass as one that
/// does.
pub(crate) type Seen = Arc<Mutex<BTreeSet<&'static str>>>;

/// A model with a property named "no violation".
pub(crate) trait Checked: Model {
    /// The invariant that a state violates.
    fn violation(state: &Self::State) -> Option<&'static str>;

    /// The events observed.
    fn seen(&self) -> &Seen;
}

/// The first violation found, with its events printed, and the number of states.
pub(crate) fn check<M>(model: &M) -> (Option<&'static str>, usize)
where
    M: Checked<State: Debug + Hash + Send + Sync, Action: Debug> + Clone + Send + Sync + 'static,
    M::State: Clone + PartialEq,
    M::Action: Clone + PartialEq,
{
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = model.clone().checker().threads(threads).spawn_bfs().join();
    let violation = checker.discovery("no violation").map(|path| {
        let found = M::violation(path.last_state()).unwrap();
        println!("{found}:");
        for action in path.into_actions() {
            println!("  {action:?}");
        }
        found
    });
    (violation, checker.unique_state_count())
}

/// Asserts that no configuration has a violation, and that together they observe every expected event.
pub(crate) fn assert_no_violation<M>(configurations: &[M], expected_events: &[&str])
where
    M: Checked<State: Debug + Hash + Send + Sync, Action: Debug> + Clone + Send + Sync + 'static,
    M::State: Clone + PartialEq,
    M::Action: Clone + PartialEq,
{
    let mut seen = BTreeSet::new();
    for model in configurations {
        let (violation, states) = check(model);
        println!("{states} states");
        assert_eq!(violation, None);
        seen.extend(model.seen().lock().unwrap().iter().copied());
    }
    for what in expected_events {
        assert!(seen.contains(what), "never: {what}");
    }
}
