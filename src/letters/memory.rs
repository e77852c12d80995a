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

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Destination for std::sync::Arc<Memory> {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), Rejected>> {
        (**self).send(letter)
    }
}

impl Destination for Memory {
    fn send<'a>(&'a self, letter: &'a Letter) -> BoxFuture<'a, Result<(), Rejected>> {
        Box::pin(async move {
            let mut state = self.state();
            if state.is_down {
                return Err(Rejected { destination: "memory".to_owned(), reason: "it is down".to_owned() });
            }
            state.letters.push(letter.clone());
            Ok(())
        })
    }
}
