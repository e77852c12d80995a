//! Bounds the memory that records take in the daemon.
//!
//! Each answer of Kinesis reserves memory before it arrives and frees it when its last copy is dropped. So
//! the sum stays below the limit, whatever arrives and whichever child is stuck. The exception is data that
//! is in memory already and cannot be refused: user records of aggregates, which are larger than their
//! aggregate; the rest of an answer whose beginning is already encoded in a line; a pushed event that is
//! larger than the one before. These may exceed the limit, and the next reservation waits longer.
//!
//! | part of the limit | purpose |
//! |---|---|
//! | a quarter | guaranteed to the first bytes of each reservation: a shard always has this much |
//! | [`LARGEST`] | one answer of any size at a time that does not fit in the shared part |
//! | the rest | shared: a busy shard borrows from it, a quarter of the free part at a time |
//!
//! So one busy shard among a thousand idle ones can hold nearly all of the limit, and each shard that does
//! not free what it holds leaves the others three quarters of what was free.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{Duration, Instant};

/// Upper bound of one answer in bytes: 10 MiB of data as base64, and the fields of 10,000 records.
pub const LARGEST: usize = 18 * 1024 * 1024;
/// The least limit, in bytes, at which an answer of any size can be read while other shards hold their parts.
pub const LEAST: usize = 40 * 1024 * 1024;
/// The limit divided by this is guaranteed to the first bytes of reservations.
const GUARANTEED: usize = 4;
/// Most reservations of one shard at a time: answers in transit, queued, and held by the child.
const ROOMS: usize = 6;
/// The free shared bytes divided by this may be one shard's next answer.
const BORROWED: usize = 4;
/// Reservations of at most the limit divided by this are small: they may pass larger ones that wait.
const LITTLE: usize = 100;

/// Buffers are allocated in multiples of this many bytes, so that the next answer fits into the buffer of the
/// last one. Smaller buffers are not kept.
const STEP: usize = 256 * 1024;
/// Most free buffers that are kept, and for how long. The system zeroes the memory that it returns, which
/// costs as much as a copy. Held and kept memory together never exceed the limit, and no buffer is kept while
/// there is no shard.
const SPARE: usize = 16;
const KEPT: Duration = Duration::from_secs(5);

#[derive(Debug, Default)]
struct Held {
    /// All reserved bytes.
    bytes: usize,
    /// The part of `bytes` that is taken from the shared part of the limit.
    shared: usize,
    spare: Vec<(Instant, Vec<u8>)>,
}

impl Held {
    /// Removes the free buffers that may no longer be kept. The caller drops them outside of the lock.
    #[must_use]
    fn trim(&mut self, limit: usize) -> Vec<(Instant, Vec<u8>)> {
        let mut free = limit.saturating_sub(self.bytes);
        let mut gone = Vec::new();
        // The buffers used last are the most useful.
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

/// The limit and the memory that is reserved under it.
#[derive(Debug)]
pub struct Budget {
    limit: usize,
    held: Mutex<Held>,
    freed: Notify,
    /// Held by the reservation that is served next, so that small reservations do not overtake a large one
    /// for ever.
    turn: tokio::sync::Mutex<()>,
    shares: AtomicUsize,
    /// The permit for one answer that does not fit in the shared part.
    lane: Arc<Semaphore>,
    /// Permits for answers whose bodies wait in their connection for memory. Calls share a connection, and
    /// two large bodies leave its window open for others.
    in_connection: Semaphore,
}

impl Budget {
    /// A budget with a limit in bytes.
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

    /// Reserved bytes.
    pub fn held(&self) -> usize {
        self.lock().bytes
    }

    /// Waits until `bytes` can be reserved. A reservation larger than the whole shared part must be alone in
    /// it. Reservations are served in order of arrival, except that small ones may pass larger ones that do
    /// not fit yet.
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

    /// Reserves memory for the next answer of a shard. If the shared part has no room while a child waits for
    /// the answer, the part for one answer of any size is used.
    pub async fn reserve_for(self: &Arc<Self>, bytes: usize, awaited: &Awaited) -> Reservation {
        let lane = async {
            awaited.wait().await;
            match self.lane.clone().acquire_owned().await {
                Ok(lane) => lane,
                // The semaphore is never closed.
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

    /// Reserves `bytes` at once, beyond the limit if necessary: other reservations wait longer.
    pub fn take(self: &Arc<Self>, bytes: usize) -> Reservation {
        let mut room = self.nothing();
        room.set(bytes);
        room
    }

    /// An empty reservation, which can grow.
    pub fn nothing(self: &Arc<Self>) -> Reservation {
        self.room(0, self.floor())
    }

    fn room(self: &Arc<Self>, bytes: usize, floor: usize) -> Reservation {
        Reservation { budget: self.clone(), bytes, floor, least: 0, lane: None, awaited: Awaited::default() }
    }

    /// Guaranteed bytes of a reservation, which are not counted in the shared part.
    fn floor(&self) -> usize {
        match self.shares.load(Ordering::Relaxed) {
            0 => 0,
            shares => self.limit / GUARANTEED / shares / ROOMS,
        }
    }

    /// Bytes in the shared part of the limit.
    fn shared(&self) -> usize {
        let guaranteed = if self.shares.load(Ordering::Relaxed) > 0 { self.limit / GUARANTEED } else { 0 };
        let lane = if self.limit >= LEAST { LARGEST } else { 0 };
        self.limit - guaranteed - lane
    }

    /// Adds a shard that has a part in the limit until the returned value is dropped.
    pub fn share(self: &Arc<Self>) -> Share {
        self.shares.fetch_add(1, Ordering::Relaxed);
        Share(self.clone())
    }

    fn try_add(&self, bytes: usize, floor: usize) -> bool {
        self.try_change(0, 0, bytes, bytes.saturating_sub(floor))
    }

    /// Changes a reservation from `old` to `new` bytes, of which `old_shared` and `new_shared` are in the
    /// shared part. Returns false if there is no room.
    fn try_change(&self, old: usize, old_shared: usize, new: usize, new_shared: usize) -> bool {
        let limit = self.shared();
        self.change(|held| {
            let others = held.shared - old_shared;
            // While shards are being added, the guaranteed bytes of reservations can exceed their part.
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

    fn free(&self, bytes: usize, shared: usize) {
        self.change(|held| {
            held.bytes -= bytes;
            held.shared -= shared;
        });
        // At most one reservation waits for this: the others wait for `turn`.
        self.freed.notify_one();
    }

    /// Applies a change and then frees the kept buffers for which there is no room any more.
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
    /// Most bytes that the next answer may have to leave room for other shards.
    pub fn part(&self) -> usize {
        let budget = &self.0;
        let free = budget.shared().saturating_sub(budget.lock().shared);
        (free / BORROWED).max(budget.floor())
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        let others = self.0.shares.fetch_sub(1, Ordering::Relaxed) - 1;
        // The part of each other shard grows.
        self.0.freed.notify_one();
        if others == 0 {
            drop(std::mem::take(&mut self.0.lock().spare));
        }
    }
}

/// Whether a child waits for the next answer of its shard, so that the answer is delivered as soon as it
/// arrives.
#[derive(Debug, Clone, Default)]
pub struct Awaited(Option<watch::Receiver<bool>>);

impl Awaited {
    /// A flag that is false, and its sender.
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

/// Reserved bytes, freed on drop.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: usize,
    /// Guaranteed bytes, which are not taken from the shared part.
    floor: usize,
    /// The reservation does not shrink below this before [`Reservation::set`].
    least: usize,
    /// Present if this is the one answer that does not fit in the shared part.
    lane: Option<OwnedSemaphorePermit>,
    awaited: Awaited,
}

impl Reservation {
    /// The budget that this is a part of.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The size in bytes.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Waits for a reservation of `bytes`, which does not shrink until the needed size is
    /// [set](Reservation::set). The present one is freed first, so that two reservations never wait for each
    /// other.
    pub async fn grown(self, bytes: usize) -> Self {
        let (budget, awaited) = (self.budget.clone(), self.awaited.clone());
        drop(self);
        let mut room = budget.reserve_for(bytes, &awaited).await;
        room.least = bytes;
        room
    }

    /// Grows the reservation of an answer whose body waits in its connection meanwhile. Returns none if there
    /// is no room at once and other bodies already wait.
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

    /// Changes the size to `bytes`. Returns false and changes nothing if there is no room now. A size larger
    /// than the shared part fits if it is alone in it.
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

    /// Changes the size to `bytes`, even beyond the limit.
    pub fn set(&mut self, bytes: usize) {
        self.least = 0;
        // An answer that turns out to fit in the shared part releases the permit for one answer.
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

    /// An empty buffer with a capacity of at least `bytes`; the reservation grows to that capacity. Returns
    /// none and changes nothing if there is no room.
    pub fn memory(&mut self, bytes: usize) -> Option<Vec<u8>> {
        let roomy = if bytes < STEP { bytes } else { bytes.next_multiple_of(STEP) };
        if !self.resize(roomy) && !self.resize(bytes) {
            return None;
        }
        let fits = |spare: &(Instant, Vec<u8>)| (bytes..=self.bytes).contains(&spare.1.capacity());
        let spare = self.budget.change(|held| {
            // The buffer used last is most likely in the cache.
            let at = held.spare.iter().rposition(fits)?;
            Some(held.spare.remove(at).1)
        });
        Some(spare.unwrap_or_else(|| Vec::with_capacity(self.bytes)))
    }

    /// As [`Reservation::fill`]; afterwards the buffer is kept for [`Reservation::memory`].
    pub fn fill_memory(self, memory: Vec<u8>) -> Bytes {
        Bytes::from_owner(Memory { memory, room: self })
    }

    /// Bytes whose reservation is freed when their last copy is dropped.
    pub fn fill(self, bytes: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Filled { bytes, _room: self })
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.budget.free(self.bytes, self.shared(self.bytes));
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
        // Dropping `room` wakes the reservation that waits.
    }
}

#[cfg(test)]
mod tests;
