//! The faults of a run: workers that join, stop, die, are partitioned and freeze, resharding, missing permissions, and
//! mistakes of an operator.

use multilangd::lease::LeaseKey;
use multilangd::sequence::Position;
use tokio::time::{Instant, sleep};

use super::{MOST_WORKERS, SECOND, Story};
use crate::world::{Denied, Network};

impl Story {
    /// One more worker joins, unless there are enough.
    pub fn join_one(&mut self) {
        if self.workers.len() < MOST_WORKERS {
            self.join(None);
        }
    }

    /// One of several workers stops.
    pub fn stop_one(&mut self) {
        if self.workers.len() > 1 {
            let index = self.pick(self.workers.len());
            self.stop(index);
        }
    }

    /// One of several workers is killed.
    pub fn kill_one(&mut self) {
        if self.workers.len() > 1 {
            let index = self.pick(self.workers.len());
            self.kill(index);
        }
    }

    /// Dates the last step of the table migration back, so that the hour before the next step is over.
    fn age(&self) {
        if let Some(row) = &mut self.world.state().fleet.stage {
            row.now.at -= 7_200_000;
        }
    }

    /// An operator deletes a row.
    pub fn delete_by_hand(&self, key: &LeaseKey) {
        let mut state = self.world.state();
        state.oracle.lost_by_hand(key);
        assert!(state.rows.remove(key).is_some());
    }

    pub fn reshard(&self, most: usize) {
        let mut state = self.world.state();
        let stream = state.any_stream();
        let (of, open) = (stream.identifier.clone(), stream.open_shards());
        let shard = open[state.random.usize(0..open.len())].clone();
        let split = open.len() < most && (open.len() < 3 || state.random.bool());
        if split && state.stream_of_mut(of.as_ref()).split(&shard) {
            state.oracle.count("a shard was split");
        } else if !split && state.stream_of_mut(of.as_ref()).merge(&shard) {
            state.oracle.count("two shards were merged");
        }
    }

    /// Deletes the stream and creates it again with the given number of shards.
    pub fn create_again(&self, shards: u128) {
        let mut state = self.world.state();
        state.stream.create_again(shards);
        state.oracle.created_again();
    }

    /// An operator writes `SHARD_END` into the row of an open shard.
    pub fn finish_by_hand(&self) {
        let mut state = self.world.state();
        let open = state.stream.open_shards();
        let shard = open[state.random.usize(0..open.len())].clone();
        let key = state.stream.key(&shard);
        if let Some(row) = state.rows.get_mut(&key) {
            row.checkpoint = Position::shard_end();
            state.oracle.finished_by_hand(&key);
        }
    }

    /// An operator deletes the row of an open shard.
    pub fn delete_some_row(&self) {
        let key = {
            let state = self.world.state();
            // Only the holder of the lease knows the checkpoint of a deleted row.
            let held = |key: &LeaseKey| {
                let owner = state.rows.get(key).and_then(|row| row.owner.clone());
                owner.is_some_and(|owner| state.oracle.is_held(&owner, key))
            };
            state.stream.open_shards().iter().map(|shard| state.stream.key(shard)).find(held)
        };
        if let Some(key) = key {
            self.delete_by_hand(&key);
            self.count("a row was deleted by hand");
        }
    }

    /// Injects faults for some seconds.
    pub async fn inject_faults(&mut self, seconds: u32) {
        self.join(None);
        if self.pick(2) == 0 {
            self.join(None);
        }
        for _ in 0..seconds {
            sleep(SECOND).await;
            self.reap();
            let records = self.pick(8);
            self.put(records);
            match self.pick(40) {
                0 | 1 if self.workers.len() < MOST_WORKERS => {
                    self.join(None);
                    self.count("a worker joined");
                }
                2 if self.workers.len() > 1 => {
                    let index = self.pick(self.workers.len());
                    self.stop(index);
                    self.count("a worker was stopped");
                }
                3 | 4 if !self.workers.is_empty() => {
                    let index = self.pick(self.workers.len());
                    let id = self.kill(index);
                    self.count("a worker was killed");
                    // A worker joins under the same id at once, or later under another id, or none joins.
                    match self.pick(3) {
                        0 => drop(self.join(Some(id))),
                        1 => drop(self.join(None)),
                        _ if self.workers.is_empty() => drop(self.join(None)),
                        _ => {}
                    }
                }
                5..=7 => self.reshard(8),
                8 | 9 => self.cut_off(),
                10 | 11 => self.freeze(),
                12 | 13 => self.world.state().network = Network::BAD,
                14 | 15 => self.world.state().network = Network::FINE,
                16 | 17 => self.age(),
                18..=20 => self.deny(),
                _ => {}
            }
        }
    }

    pub fn cut_off(&self) {
        let worker = &self.workers[self.pick(self.workers.len())].id;
        let until = Instant::now() + SECOND * u32::try_from(1 + self.pick(30)).unwrap();
        self.count("a worker was partitioned");
        self.world.state().faults.entry(worker.clone()).or_default().partitioned = Some(until);
    }

    /// Removes a permission, or stops updates of the index, for one worker or for all.
    fn deny(&self) {
        let denied = Denied::of(self.pick(7));
        let until = Instant::now() + SECOND * u32::try_from(10 + self.pick(60)).unwrap();
        self.count("a permission was removed");
        let all = self.pick(2) == 0;
        let one = self.pick(self.workers.len());
        let workers = self.workers.iter().enumerate().filter(|(index, _)| all || *index == one);
        for (_, worker) in workers {
            self.world.state().faults.entry(worker.id.clone()).or_default().denied = Some((until, denied));
        }
    }

    pub fn freeze(&self) {
        let worker = &self.workers[self.pick(self.workers.len())].id;
        let until = Instant::now() + SECOND * u32::try_from(1 + self.pick(60)).unwrap();
        self.count("a worker froze");
        self.world.state().faults.entry(worker.clone()).or_default().frozen = Some(until);
    }
}
