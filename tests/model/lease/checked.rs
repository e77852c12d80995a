//! Within which bounds every state is visited, and what has to be seen on the way.

use std::collections::BTreeSet;
use std::sync::Arc;

use stateright::{Checker as _, Model as _};

use super::{Bounds, Broken};

const HAPPENS: [&str; 10] = [
    "a free lease was taken",
    "a lease was taken again by its owner",
    "an abandoned lease was taken",
    "a lease was stolen",
    "a lease was given back",
    "a late write was refused",
    "a lost answer was made good by reading the row",
    "a worker learned that its lease is lost",
    "a hand-off was ended by its old owner",
    "a leader forced a hand-off",
];

/// Losses, steals and zombies.
fn plain() -> Bounds {
    Bounds {
        ticks: 3,
        requests: 2,
        sends: 4,
        checkpoints: 1,
        crashes: 0,
        hand_offs: 0,
        slow: false,
        java: false,
        broken: None,
        seen: Arc::default(),
    }
}

/// A leader moves the lease.
fn led() -> Bounds {
    Bounds { sends: 3, hand_offs: 1, ..plain() }
}

/// Answers come late.
fn slow() -> Bounds {
    Bounds { sends: 3, slow: true, ..plain() }
}

/// A worker dies and comes back by its name.
fn crashing() -> Bounds {
    Bounds { sends: 3, crashes: 1, ..plain() }
}

/// The first broken promise that is found, and what has happened in all states together.
fn check(bounds: &Bounds) -> (Option<&'static str>, usize) {
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let checker = bounds.clone().checker().threads(threads).spawn_bfs().join();
    let wrong = checker.discovery("nothing goes wrong").map(|path| {
        let found = path.last_state().wrong.unwrap();
        println!("{found}:");
        for action in path.into_actions() {
            println!("  {action:?}");
        }
        found
    });
    (wrong, checker.unique_state_count())
}

/// No promise is broken in any of them, and together they have seen everything.
fn assert_kept(configurations: [Bounds; 4]) {
    let mut seen = BTreeSet::new();
    for bounds in configurations {
        let (wrong, states) = check(&bounds);
        println!("{states} states");
        assert_eq!(wrong, None);
        seen.extend(bounds.seen.lock().unwrap().iter().copied());
    }
    for what in HAPPENS {
        assert!(seen.contains(what), "never: {what}");
    }
}

#[test]
fn two_of_ours_keep_every_promise_in_every_order_of_events() {
    assert_kept([plain(), slow(), led(), crashing()]);
}

#[test]
fn so_does_one_of_ours_beside_one_of_javas() {
    let java = |bounds| Bounds { java: true, ..bounds };
    assert_kept([java(plain()), java(slow()), java(led()), java(crashing())]);
}

#[test]
fn each_promise_is_found_broken_where_it_is() {
    let (fence, early) =
        ("somebody else moved a checkpoint", "a lease was taken for abandoned while its holder could use it");
    for (broken, bounds, promise) in [
        (Broken::NoCounter, plain(), fence),
        (Broken::ProvenByTheAnswer, slow(), early),
        (Broken::NeverWaits, plain(), early),
        (Broken::BelievesAnyRow, plain(), fence),
        (Broken::ForgetsTheCheckpoint, plain(), "a checkpoint moved back"),
        (Broken::IgnoresHandOffs, led(), "a renewal passed over a hand-off"),
    ] {
        let (wrong, states) = check(&Bounds { broken: Some(broken), ..bounds });
        println!("{broken:?}: {wrong:?} after {states} states");
        assert_eq!(wrong, Some(promise), "{broken:?}");
    }
}
