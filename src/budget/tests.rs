//! Tests of reservations: limit, order, borrowing, the part for one answer, and kept buffers.

use super::*;
use poll::now_or_never;

/// Polls a future once.
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
fn reservation_waits_at_the_limit_until_another_is_freed() {
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
fn reservation_above_the_limit_is_granted_alone() {
    let budget = Budget::new(10);
    let small = now_or_never(budget.reserve(1)).unwrap();
    assert!(now_or_never(budget.reserve(11)).is_none());
    drop(small);
    let mut large = now_or_never(budget.reserve(11)).unwrap();
    assert!(large.resize(20) && now_or_never(budget.reserve(1)).is_none());
}

#[test]
fn filled_reservation_is_freed_with_its_last_slice() {
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
fn buffer_is_reused_for_a_similar_size() {
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
async fn kept_buffers_are_freed_when_needed_old_or_many() {
    let budget = Budget::new(16 * MIB);
    let shard = budget.share();
    let memory = |bytes: usize| {
        let mut room = now_or_never(budget.reserve(0)).unwrap();
        let memory = room.memory(bytes).unwrap();
        room.fill_memory(memory)
    };
    let both = [memory(4 * MIB), memory(6 * MIB)];
    drop(both);
    assert_eq!(spare(&budget), [4 * MIB, 6 * MIB]);
    let wanted = now_or_never(budget.reserve(9 * MIB)).unwrap();
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

#[tokio::test]
async fn large_reservation_is_not_overtaken_by_small_ones() {
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
fn busy_shard_borrows_the_unused_shared_part() {
    let budget = Budget::new(256 * MIB);
    let shares: Vec<_> = (0..1_000).map(|_| budget.share()).collect();
    assert!(shares[0].part() > LARGEST, "{}", shares[0].part());
}

#[test]
fn stuck_shards_leave_room_for_others() {
    let budget = Budget::new(64 * MIB);
    let shares: Vec<_> = (0..100).map(|_| budget.share()).collect();
    let mut stuck = Vec::new();
    for share in &shares[1..] {
        let mut room = budget.nothing();
        assert!(room.resize(share.part()), "each has room for its part");
        stuck.push(room);
    }
    let part = shares[0].part();
    assert!((20_000..200_000).contains(&part), "{part}");
    let small = now_or_never(budget.reserve(part)).unwrap();
    let (is_awaited, awaited) = Awaited::new();
    assert!(now_or_never(budget.reserve_for(14 * MIB, &awaited)).is_none(), "its child is busy");
    is_awaited.send_replace(true);
    let large = now_or_never(budget.reserve_for(14 * MIB, &awaited)).unwrap();
    assert!(now_or_never(budget.reserve_for(14 * MIB, &awaited)).is_none(), "one at a time");
    assert!(budget.held() <= 64 * MIB, "{}", budget.held());
    drop(large);
    assert!(now_or_never(budget.reserve_for(14 * MIB, &awaited)).is_some());
    drop((small, stuck));
    assert_eq!((budget.held(), budget.lock().shared), (0, 0));
}

#[test]
fn grown_reservation_does_not_shrink_before_set() {
    let budget = Budget::new(100);
    let mut room = now_or_never(budget.nothing().grown(50)).unwrap();
    assert!(room.resize(10) && room.bytes() == 50);
    let _other = now_or_never(budget.reserve(50)).unwrap();
    assert!(room.resize(50) && !room.resize(51));
    room.set(10);
    assert_eq!(budget.held(), 60);
}
