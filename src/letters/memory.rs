//! Letters in memory, with a switch that rejects them.

use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Destination, Letter, Rejected};
use crate::shard::BoxFuture;

/// Keeps letters.
#[derive(Debug, Default)]
pub struct Memory(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    letters: Vec<Letter>,
    is_down: bool,
    /// Most letters that are accepted at once; 0 for any number.
    most: usize,
}

impl Memory {
    /// The accepted letters, in order.
    pub fn letters(&self) -> Vec<Letter> {
        self.state().letters.clone()
    }

    /// From now on, letters are rejected, or accepted again.
    pub fn set_down(&self, is_down: bool) {
        self.state().is_down = is_down;
    }

    /// From now on, at most that many letters are accepted at once.
    pub fn set_most(&self, most: usize) {
        self.state().most = most;
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for std::sync::Arc<Memory> {
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        (**self).send(letters)
    }
}

impl Destination for Memory {
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let mut state = self.state();
            if state.is_down {
                return Err(Rejected { destination: "memory".to_owned(), reason: "it is down".to_owned() });
            }
            let most = if state.most == 0 { letters.len() } else { state.most };
            let before = state.letters.len();
            state.letters.extend(letters.iter().take(most).cloned());
            Ok(state.letters.len() - before)
        })
    }
}
