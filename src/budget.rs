//! How much data of records the daemon holds at once.
//!
//! Each answer reserves its room before it comes and frees it with its last copy, so that the sum stays below the
//! limit whatever arrives and whichever child is stuck; but for what is there already and can't be sent back (user
//! records of aggregates, which are larger than what they came in; the rest of an answer of which the beginning is in a
//! line; a pushed event that is larger than the one before): the next reservation waits the longer.
//!
//! | part of the limit | for |
//! |---|---|
//! | a quarter | the first bytes of each reservation: a shard always has this much, whatever others hold |
//! | [`LARGEST`] | one answer of any size at a time, for which the rest has no room |
//! | the rest | shared: whoever reads much borrows from it, a quarter of what is free at a time |
//!
//! So one busy shard among a thousand idle ones can hold nearly all, and each shard that does not let go of what it
//! holds leaves the others three quarters of what was free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, Instant};

/// No answer is larger: 10 MiB of data, in base64, and what belongs to each of 10,000 records.
pub const LARGEST: usize = 18 * 1024 * 1024;
/// The least limit with which an answer of any size can be read while other shards hold what they may.
pub const LEAST: usize = 40 * 1024 * 1024;
/// This part of the limit is for the first bytes of each reservation.
const GUARANTEED: usize = 4;
/// A shard has no more reservations than this at a time: what is on its way, what waits, what the child has in hand.
const ROOMS: usize = 6;
/// This part of what is free may be the next answer of one shard.
const BORROWED: usize = 4;
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
    /// All of it.
    bytes: usize,
    /// Of it, what is taken from the shared part.
    shared: usize,
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
    /// For one answer for which there is no room in the shared part.
    lane: Arc<Semaphore>,
    /// Answers whose bodies wait in their connection for room. Calls share a connection, whose window two large bodies
    /// leave open for others.
    in_connection: Semaphore,
}

impl Budget {
    /// So many bytes.
    pub fn new(limit: usize) -> Arc<Self> {
        Arc::new(Self {
            limit,
            lane: Arc::new(Semaphore::new(usize::from(limit >= LEAST))),
            in_connection: Semaphore::new(2),
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

    /// Waits until so many bytes may be held. What is larger than the whole shared part must be alone in it. Reservations
    /// are served in the order in which they came, but that little ones pass large ones that don't fit yet.
    pub async fn reserve(self: &Arc<Self>, bytes: usize) -> Reservation {
        let floor = self.floor();
        if (bytes <= floor || bytes <= self.limit / LITTLE) && self.try_add(bytes, floor) {
            return self.room(bytes, floor);
        }
        let _turn = self.turn.lock().await;
        loop {
            let freed = self.freed.notified();
            let floor = self.floor();
            if self.try_add(bytes, floor) {
                return self.room(bytes, floor);
            }
            freed.await;
        }
    }

    /// Reserves room for the next answer of a shard. While a child waits for it, and there is no room in the shared part, the
    /// room that is kept for one answer is taken.
    pub async fn reserve_for(self: &Arc<Self>, bytes: usize, awaited: &Awaited) -> Reservation {
        let lane = async {
            awaited.wait().await;
            match self.lane.clone().acquire_owned().await {
                Ok(lane) => lane,
                // It is never closed.
                Err(_) => std::future::pending().await,
            }
        };
        let mut room = tokio::select! {
            biased;
            room = self.reserve(bytes) => room,
            lane = lane => {
                let mut room = self.nothing();
                room.lane = Some(lane);
                room.set(bytes);
                room
            }
        };
        room.awaited = awaited.clone();
        room
    }

    /// Takes so many bytes now, past the limit if need be: others wait the longer.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Reservation {
        let mut room = self.nothing();
        room.set(bytes);
        room
    }

    /// Room for nothing, which can be made larger.
    pub fn nothing(self: &Arc<Self>) -> Reservation {
        self.room(0, self.floor())
    }

    fn room(self: &Arc<Self>, bytes: usize, floor: usize) -> Reservation {
        Reservation { budget: self.clone(), bytes, floor, least: 0, lane: None, awaited: Awaited::default() }
    }

    /// The first bytes of a reservation, which need no room in the shared part.
    fn floor(&self) -> usize {
        match self.shares.load(Ordering::Relaxed) {
            0 => 0,
            shares => self.limit / GUARANTEED / shares / ROOMS,
        }
    }

    /// The shared part of the limit.
    fn shared(&self) -> usize {
        let guaranteed = if self.shares.load(Ordering::Relaxed) > 0 { self.limit / GUARANTEED } else { 0 };
        let lane = if self.limit >= LEAST { LARGEST } else { 0 };
        self.limit - guaranteed - lane
    }

    /// One more shard has a part in the limit, as long as this lives.
    pub fn share(self: &Arc<Self>) -> Share {
        self.shares.fetch_add(1, Ordering::Relaxed);
        Share(self.clone())
    }

    fn try_add(&self, bytes: usize, floor: usize) -> bool {
        self.try_change(0, 0, bytes, bytes.saturating_sub(floor))
    }

    /// A room of `old` bytes, of which the shared part has `old_shared`, becomes one of `new`, if there is room.
    fn try_change(&self, old: usize, old_shared: usize, new: usize, new_shared: usize) -> bool {
        let limit = self.shared();
        self.change(|held| {
            let others = held.shared - old_shared;
            // The first bytes of reservations add up to more than their part while shards are added.
            let whole = (held.bytes - old).saturating_add(new);
            let fits = new_shared <= old_shared
                || others == 0
                || others.saturating_add(new_shared) <= limit && whole <= self.limit;
            if fits {
                held.shared = others + new_shared;
                held.bytes = held.bytes - old + new;
            }
            fits
        })
    }

    fn give_back(&self, bytes: usize, shared: usize) {
        self.change(|held| {
            held.bytes -= bytes;
            held.shared -= shared;
        });
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

impl Share {
    /// How many bytes the next answer may have, so that others have room for theirs.
    pub fn part(&self) -> usize {
        let budget = &self.0;
        let free = budget.shared().saturating_sub(budget.lock().shared);
        (free / BORROWED).max(budget.floor())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let others = self.0.shares.fetch_sub(1, Ordering::Relaxed) - 1;
        // There is more for each of the others.
        self.0.freed.notify_one();
        if others == 0 {
            drop(std::mem::take(&mut self.0.lock().spare));
        }
    }
}

/// Whether a child waits for the next answer of its shard: what is read then leaves at once.
#[derive(Debug, Clone, Default)]
pub struct Awaited(Option<watch::Receiver<bool>>);

impl Awaited {
    /// And the place where it is said.
    pub fn new() -> (watch::Sender<bool>, Self) {
        let (sender, receiver) = watch::channel(false);
        (sender, Self(Some(receiver)))
    }

    async fn wait(&self) {
        let awaited = match &self.0 {
            Some(awaited) => awaited.clone().wait_for(|awaited| *awaited).await.is_ok(),
            None => false,
        };
        if !awaited {
            std::future::pending().await
        }
    }
}

/// Bytes that are held, until this is dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    /// The first bytes, which are not taken from the shared part.
    floor: usize,
    /// It is not made smaller than this before it is [set](Reservation::set).
    least: usize,
    /// It is the one answer for which the shared part had no room.
    lane: Option<OwnedSemaphorePermit>,
    awaited: Awaited,
}

impl Reservation {
    /// Of what it is a part.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// How many.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Becomes room for so many bytes, as soon as there is, and is kept as large until it is known how much is needed. What
    /// it is now is freed first, so that no two wait for each other.
    pub async fn grown(self, bytes: usize) -> Self {
        let (budget, awaited) = (self.budget.clone(), self.awaited.clone());
        drop(self);
        let mut room = budget.reserve_for(bytes, &awaited).await;
        room.least = bytes;
        room
    }

    /// Grows the room of an answer whose body waits in its connection meanwhile. None if others do that already and there is no
    /// room at once.
    pub async fn grown_in_connection(mut self, bytes: usize) -> Option<Self> {
        if self.resize(bytes) {
            self.least = self.bytes;
            return Some(self);
        }
        let budget = self.budget.clone();
        let _place = budget.in_connection.try_acquire().ok()?;
        Some(self.grown(bytes).await)
    }

    fn shared(&self, bytes: usize) -> usize {
        if self.lane.is_some() { 0 } else { bytes.saturating_sub(self.floor) }
    }

    /// Makes it so many; false, and nothing is changed, if there is no room for them now. What is larger than the shared
    /// part fits if it is alone in it.
    #[must_use]
    pub fn resize(&mut self, bytes: usize) -> bool {
        let bytes = bytes.max(self.least);
        let (old, new) = (self.shared(self.bytes), self.shared(bytes));
        let fits = self.budget.try_change(self.bytes, old, bytes, new);
        if fits {
            let smaller = new < old;
            self.bytes = bytes;
            if smaller {
                self.budget.freed.notify_one();
            }
        }
        fits
    }

    /// Makes it so many, whatever is held besides.
    pub fn set(&mut self, bytes: usize) {
        self.least = 0;
        // An answer that turns out to fit in the shared part leaves the room for one answer to others.
        if self.lane.is_some()
            && self.budget.try_change(self.bytes, 0, bytes, bytes.saturating_sub(self.floor))
        {
            (self.lane, self.bytes) = (None, bytes);
            return;
        }
        let (old, new, before) = (self.shared(self.bytes), self.shared(bytes), self.bytes);
        self.budget.change(|held| {
            held.bytes = held.bytes - before + bytes;
            held.shared = held.shared - old + new;
        });
        self.bytes = bytes;
        if new < old {
            self.budget.freed.notify_one();
        }
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

    /// As [`Reservation::fill`]; the memory is then free for the next who wants [`Reservation::memory`].
    pub fn fill_memory(self, memory: Vec<u8>) -> Bytes {
        Bytes::from_owner(Memory { memory, room: self })
    }

    /// Bytes whose room is given back with their last copy.
    pub fn fill(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Filled { bytes, _room: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.give_back(self.bytes, self.shared(self.bytes));
    }
}

struct Filled<B> {
    bytes: B,
    _room: Reservation,
}

impl<B: AsRef<[u8]>> AsRef<[u8]> for Filled<B> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

struct Memory {
    memory: Vec<u8>,
    room: Reservation,
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
        let (bytes, shared) = (self.room.bytes, self.room.shared(self.room.bytes));
        self.room.bytes = 0;
        let budget = &self.room.budget;
        budget.change(|held| {
            held.bytes -= bytes;
            held.shared -= shared;
            if memory.capacity() >= STEP && budget.shares.load(Ordering::Relaxed) > 0 {
                held.spare.push((Instant::now(), memory));
            }
        });
        // Its room tells those who wait.
    }
}

#[cfg(test)]
mod tests;
