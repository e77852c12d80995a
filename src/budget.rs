//! How much data of records the daemon holds at once.
//!
//! What is fetched takes its place before it comes and gives it back with its last copy, so that whatever
//! arrives and whoever is stuck, the sum stays below the limit; but for what is there already and can't be sent back
//! (user records of aggregates, which are larger than what they came in; the rest of an answer of which the beginning
//! is in a line; a pushed event that is larger than the one before): who comes next waits the longer. Shards share
//! the limit in equal parts: one that is stuck with its part leaves the others theirs.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::Notify;
use tokio::time::{Duration, Instant};

/// This part of the limit is little.
const LITTLE: usize = 100;

/// Memory is asked for in multiples of this, so that the next answer fits where the last one was; less isn't kept.
const STEP: usize = 256 * 1024;
/// Pieces of free memory that are kept at most, and how long: the system clears what it gives, which costs as much as
/// to copy it. Together with what is held they are never more than the limit, and none is kept without a shard.
const SPARE: usize = 16;
const KEPT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Held {
    bytes: usize,
    spare: Vec<(Instant, Vec<u8>)>,
}

impl Held {
    /// Takes out what may be kept no longer; who calls lets go of it.
    #[must_use]
    fn trim(&mut self, limit: usize) -> Vec<(Instant, Vec<u8>)> {
        let mut free = limit.saturating_sub(self.bytes);
        let mut gone = Vec::new();
        // Those that came last are the most useful.
        for (since, memory) in std::mem::take(&mut self.spare).into_iter().rev() {
            let left = free.checked_sub(memory.capacity());
            if let (Some(left), true, true) = (left, self.spare.len() < SPARE, since.elapsed() < KEPT) {
                free = left;
                self.spare.insert(0, (since, memory));
            } else {
                gone.push((since, memory));
            }
        }
        gone
    }
}

/// The limit, and what is held.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: Mutex<Held>,
    freed: Notify,
    /// Who waits for room, in turn: a large one isn't passed by small ones for ever.
    turn: tokio::sync::Mutex<()>,
    shares: AtomicUsize,
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            held: Mutex::default(),
            freed: Notify::new(),
            turn: tokio::sync::Mutex::default(),
            shares: AtomicUsize::new(0),
        })
    }

    /// Bytes held.
    pub fn held(&self) -> usize {
        self.lock().bytes
    }

    /// Waits until so many bytes may be held. What is larger than the whole limit must be alone. Whoever came
    /// first is served first, but that little things pass large ones that don't fit yet.
    pub async fn reserve(self: &Arc<Self>, bytes: usize) -> Room {
        if bytes <= self.limit / LITTLE && self.try_add(bytes) {
            return self.room(bytes);
        }
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            if self.try_add(bytes) {
                return self.room(bytes);
            }
            freed.await;
        }
    }

    /// Takes so many bytes now, past the limit if need be: others wait the longer.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Room {
        self.change(|held| held.bytes += bytes);
        self.room(bytes)
    }

    /// Room for nothing, which can be made larger.
    pub fn nothing(self: &Arc<Self>) -> Room {
        self.room(0)
    }

    fn room(self: &Arc<Self>, bytes: usize) -> Room {
        Room { budget: self.clone(), bytes, most: usize::MAX }
    }

    /// One more shard has a part in the limit, as long as this lives.
    pub fn share(self: &Arc<Self>) -> Share {
        self.shares.fetch_add(1, Ordering::Relaxed);
        Share(self.clone())
    }

    fn try_add(&self, bytes: usize) -> bool {
        self.change(|held| {
            let fits = held.bytes == 0 || held.bytes.saturating_add(bytes) <= self.limit;
            if fits {
                held.bytes += bytes;
            }
            fits
        })
    }

    fn give_back(&self, bytes: usize) {
        self.change(|held| held.bytes -= bytes);
        // One waits at most: the others wait for their turn.
        self.freed.notify_one();
    }

    /// What is spare goes where there is no room for it any more.
    fn change<T>(&self, change: impl FnOnce(&mut Held) -> T) -> T {
        let (changed, gone) = {
            let mut held = self.lock();
            (change(&mut held), held.trim(self.limit))
        };
        drop(gone);
        changed
    }

    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One shard's part in the limit.
#[derive(Debug)]
pub struct Share(Arc<Budget>);

/// A shard holds three things: what waits, what is on its way, and what the child has in hand.
const THINGS: usize = 3;

impl Share {
    /// How many bytes each of those three may be at present, so that nobody's share is taken by others.
    pub fn part(&self) -> usize {
        self.0.limit / self.0.shares.load(Ordering::Relaxed).max(1) / THINGS
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let others = self.0.shares.fetch_sub(1, Ordering::Relaxed) - 1;
        if others == 0 {
            drop(std::mem::take(&mut self.0.lock().spare));
        }
    }
}

/// Bytes that are held, until this is dropped.
#[derive(Debug)]
pub struct Room {
    budget: Arc<Budget>,
    bytes: usize,
    most: usize,
}

impl Room {
    /// Of what it is a part.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// It may not be made larger than this.
    #[must_use]
    pub fn at_most(mut self, most: usize) -> Self {
        self.most = most;
        self
    }

    /// Makes it so many; false, and nothing is changed, if there is no room for them now, or may not be.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        let fits = match bytes.checked_sub(self.bytes) {
            Some(1..) if bytes > self.most => false,
            None => {
                self.budget.give_back(self.bytes - bytes);
                true
            }
            // What is larger than the limit fits if it is alone.
            Some(more) => {
                let Budget { limit, .. } = *self.budget;
                self.budget.change(|held| {
                    let fits = held.bytes == self.bytes || held.bytes.saturating_add(more) <= limit;
                    if fits {
                        held.bytes += more;
                    }
                    fits
                })
            }
        };
        if fits {
            self.bytes = bytes;
        }
        fits
    }

    /// Makes it so many, whatever is held besides.
    pub fn set(&mut self, bytes: usize) {
        if let Some(more) = bytes.checked_sub(self.bytes) {
            self.budget.change(|held| held.bytes += more);
        } else {
            self.budget.give_back(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    /// Empty memory for so many bytes, within a room for as many, which is made as large as the memory is. None, and
    /// nothing is changed, if there is no room for so many.
    pub fn memory(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let roomy = if bytes < STEP { bytes } else { bytes.next_multiple_of(STEP) };
        if !self.resize(roomy) && !self.resize(bytes) {
            return None;
        }
        let fits = |spare: &(Instant, Vec<u8>)| (bytes..=self.bytes).contains(&spare.1.capacity());
        let spare = self.budget.change(|held| {
            // What was used last is at hand.
            let at = held.spare.iter().rposition(fits)?;
            Some(held.spare.remove(at).1)
        });
        Some(spare.unwrap_or_else(|| Vec::with_capacity(self.bytes)))
    }

    /// As [`Room::fill`]; the memory is then free for the next who wants [`Room::memory`].
    pub fn fill_memory(self, memory: Vec<u8>) -> Bytes {
        Bytes::from_owner(Memory { memory, room: self })
    }

    /// Bytes whose room is given back with their last copy.
    pub fn fill(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Filled { bytes, _room: self })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes);
    }
}

struct Filled<B> {
    bytes: B,
    _room: Room,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Filled<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

struct Memory {
    memory: Vec<u8>,
    room: Room,
}

impl AsRef<[u8]> for Memory {
    fn as_ref(&self) -> &[u8] {
        &self.memory
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        let mut memory = std::mem::take(&mut self.memory);
        memory.clear();
        let bytes = std::mem::take(&mut self.room.bytes);
        let budget = &self.room.budget;
        budget.change(|held| {
            held.bytes -= bytes;
            if memory.capacity() >= STEP && budget.shares.load(Ordering::Relaxed) > 0 {
                held.spare.push((Instant::now(), memory));
            }
        });
        // Its room tells those who wait.
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use poll::now_or_never;

    /// One poll.
    mod poll {
        use std::pin::pin;
        use std::task::{Context, Poll, Waker};

        pub(super) fn now_or_never<F: Future>(future: F) -> Option<F::Output> {
            match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
                Poll::Ready(output) => Some(output),
                Poll::Pending => None,
            }
        }
    }

    #[test]
    fn no_more_is_held_than_the_limit_and_what_goes_makes_room() {
        let budget = Budget::new(100);
        let first = now_or_never(budget.reserve(60)).unwrap();
        assert!(now_or_never(budget.reserve(41)).is_none());
        let mut second = now_or_never(budget.reserve(40)).unwrap();
        assert!(!second.resize(41) && second.bytes() == 40);
        drop(first);
        assert!(second.resize(100));
        assert!(second.resize(10));
        assert_eq!(budget.held(), 10);
    }

    #[test]
    fn what_is_larger_than_the_limit_comes_alone() {
        let budget = Budget::new(10);
        let small = now_or_never(budget.reserve(1)).unwrap();
        assert!(now_or_never(budget.reserve(11)).is_none());
        drop(small);
        let mut large = now_or_never(budget.reserve(11)).unwrap();
        assert!(large.resize(20) && now_or_never(budget.reserve(1)).is_none());
    }

    #[test]
    fn filled_room_is_given_back_with_the_last_part_of_what_fills_it() {
        let budget = Budget::new(10);
        let bytes = now_or_never(budget.reserve(4)).unwrap().fill(b"abcd".to_vec());
        let part = bytes.slice(1..2);
        drop(bytes);
        assert_eq!((budget.held(), &part[..]), (4, &b"b"[..]));
        drop(part);
        assert_eq!(budget.held(), 0);
    }

    const MIB: usize = 1024 * 1024;

    fn spare(budget: &Budget) -> Vec<usize> {
        budget.lock().spare.iter().map(|(_, memory)| memory.capacity()).collect()
    }

    #[test]
    fn memory_is_used_again_by_who_wants_about_as_much() {
        let budget = Budget::new(10 * MIB);
        let _shard = budget.share();
        let mut room = now_or_never(budget.reserve(1)).unwrap();
        let mut memory = room.memory(MIB - 7).unwrap();
        memory.extend_from_slice(b"abc");
        let place = memory.as_ptr();
        assert_eq!((memory.capacity(), budget.held()), (MIB, MIB));
        let bytes = room.fill_memory(memory);
        let part = bytes.slice(1..);
        drop(bytes);
        assert_eq!((budget.held(), spare(&budget), &part[..]), (MIB, vec![], &b"bc"[..]));
        drop(part);
        assert_eq!((budget.held(), spare(&budget)), (0, vec![MIB]));
        let mut small = now_or_never(budget.reserve(1)).unwrap();
        assert!(small.memory(MIB / 2).unwrap().capacity() < MIB);
        let mut again = now_or_never(budget.reserve(1)).unwrap();
        let memory = again.memory(MIB - 9).unwrap();
        assert!(memory.as_ptr() == place && memory.is_empty() && spare(&budget).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_spare_goes_when_its_room_is_wanted_when_it_is_old_or_much() {
        let budget = Budget::new(10 * MIB);
        let shard = budget.share();
        let memory = |bytes: usize| {
            let mut room = now_or_never(budget.reserve(0)).unwrap();
            let memory = room.memory(bytes).unwrap();
            room.fill_memory(memory)
        };
        let both = [memory(4 * MIB), memory(6 * MIB)];
        drop(both);
        assert_eq!(spare(&budget), [4 * MIB, 6 * MIB]);
        let wanted = now_or_never(budget.reserve(3 * MIB)).unwrap();
        assert_eq!(spare(&budget), [6 * MIB], "the room is for what is wanted");
        drop(wanted);
        tokio::time::advance(KEPT).await;
        drop(now_or_never(budget.reserve(1)).unwrap());
        assert_eq!(spare(&budget), [0; 0], "nobody wanted it");
        drop([(); SPARE + 2].map(|()| memory(MIB / 2)));
        assert_eq!(spare(&budget), [MIB / 2; SPARE]);
        drop(memory(STEP - 1));
        assert_eq!(spare(&budget).len(), SPARE, "not worth while");
        let late = memory(MIB / 2);
        drop(shard);
        assert_eq!(spare(&budget), [0; 0], "who reads nothing keeps nothing");
        drop(late);
        assert_eq!((spare(&budget), budget.held()), (vec![], 0));
    }

    #[test]
    fn memory_for_which_there_is_just_room_is_not_larger() {
        let budget = Budget::new(MIB);
        let mut room = now_or_never(budget.reserve(1)).unwrap().at_most(MIB - 5);
        assert_eq!(room.memory(MIB - 4), None);
        assert_eq!((room.memory(MIB - 5).unwrap().capacity(), room.bytes()), (MIB - 5, MIB - 5));
    }

    #[tokio::test]
    async fn who_waits_for_much_is_not_passed_by_who_wants_little() {
        let budget = Budget::new(1_000);
        let first = budget.reserve(500).await;
        let mut waiting = tokio::task::JoinSet::new();
        let large = budget.clone();
        waiting.spawn(async move { large.reserve(1_000).await.bytes() });
        tokio::task::yield_now().await;
        assert!(now_or_never(budget.reserve(30)).is_none(), "there is room for it, but it came later");
        assert!(now_or_never(budget.reserve(10)).is_some());
        drop(first);
        assert_eq!(waiting.join_next().await.unwrap().unwrap(), 1_000);
    }

    #[test]
    fn the_limit_is_shared_in_equal_parts() {
        let budget = Budget::new(60);
        let one = budget.share();
        assert_eq!(one.part(), 20);
        let two = budget.share();
        assert_eq!((one.part(), two.part()), (10, 10));
        drop(two);
        assert_eq!(one.part(), 20);
    }

    #[test]
    fn what_may_not_be_larger_is_not_made_larger_though_there_is_room() {
        let budget = Budget::new(100);
        let mut room = now_or_never(budget.reserve(10)).unwrap().at_most(20);
        assert!(!room.resize(21) && room.resize(20) && room.resize(5));
        assert_eq!(budget.held(), 5);
    }
}
