//! The simulated destination of dead letters.

use multilangd::lease::table::Error;
use multilangd::letters::{Condition, Destination, Letter, Rejected};
use multilangd::shard::BoxFuture;

use crate::links::Link;
use crate::story::wall;
use crate::world::Bug;

impl Destination for Link {
    /// Of several letters it may store some of the first ones only.
    fn send<'a>(&'a self, letters: &'a [Letter]) -> BoxFuture<'a, Result<usize, Rejected>> {
        Box::pin(async move {
            let shard = letters[0].lease.shard().clone();
            let numbers: Vec<u64> =
                letters.iter().map(|letter| letter.record.sequence.as_str().parse().unwrap()).collect();
            let is_aged = letters[0].condition == Condition::RecordAgeExceeded;
            if is_aged {
                self.check_ages(&numbers);
            }
            let (worker, given) = (self.worker.clone(), numbers.len());
            let write = self.write("Letter", move |world| {
                let mut state = world.state();
                let bug = state.bug;
                if state.ledger.as_ref().unwrap().is_down {
                    state.oracle.count("a dead letter was rejected");
                    return Err(Error::Unavailable("the destination is down".to_owned()));
                }
                if bug == Some(Bug::LosesLetters) {
                    return Ok(given);
                }
                let accepted = if state.chance(300) { state.random.usize(1..=given) } else { given };
                if accepted < given {
                    state.oracle.count("stored some of several letters");
                }
                for number in &numbers[..accepted] {
                    let is_first = state.ledger.as_mut().unwrap().lettered(&worker, &shard, *number);
                    if is_aged {
                        let key = state.stream.key(&shard);
                        state.oracle.passed(&key, [*number]);
                    }
                    let what = if is_first { "wrote a dead letter" } else { "wrote a dead letter again" };
                    state.oracle.count(what);
                }
                Ok(if bug == Some(Bug::ConfirmsTooMany) { given } else { accepted })
            });
            let rejected =
                |error: Error| Rejected { destination: "simulated".to_owned(), reason: error.to_string() };
            write.await.map_err(rejected)
        })
    }
}

impl Link {
    /// Checks that records whose letters say so are too old.
    fn check_ages(&self, numbers: &[u64]) {
        let mut state = self.world.state();
        for number in numbers {
            state.oracle.count("wrote a letter of an old record");
            if !state.ledger.as_ref().unwrap().is_old(*number, wall()) {
                let what = format!("the letter of {number} says that it is old");
                state.oracle.violated("young-passed", what);
            }
        }
    }
}
