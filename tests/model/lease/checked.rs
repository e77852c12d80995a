//! The bounds within which every state is visited, and the events that must be observed.

use std::sync::Arc;

use super::{Bounds, Fault};
use crate::checker::{assert_no_violation, check};

const EXPECTED_EVENTS: [&str; 10] = [
    "an unowned lease was acquired",
    "a lease was reacquired by its owner",
    "an expired lease was acquired",
    "a lease was stolen",
    "a lease was released",
    "a late write was rejected",
    "a lost response was resolved by reading the row",
    "a worker noticed that its lease is lost",
    "a graceful handoff was completed by its old owner",
    "a leader forced a graceful handoff",
];

/// Lost leases, steals and frozen workers.
fn plain() -> Bounds {
    Bounds {
        ticks: 3,
        requests: 2,
        sends: 4,
        checkpoints: 1,
        crashes: 0,
        handoffs: 0,
        slow: false,
        java: false,
        fault: None,
        seen: Arc::default(),
    }
}

/// A leader starts a graceful handoff.
fn led() -> Bounds {
    Bounds { sends: 3, handoffs: 1, ..plain() }
}

/// Responses are delayed.
fn slow() -> Bounds {
    Bounds { sends: 3, slow: true, ..plain() }
}

/// A worker crashes and restarts under the same name.
fn crashing() -> Bounds {
    Bounds { sends: 3, crashes: 1, ..plain() }
}

#[test]
fn two_workers_keep_every_invariant() {
    assert_no_violation(&[plain(), slow(), led(), crashing()], &EXPECTED_EVENTS);
}

#[test]
fn worker_with_java_keeps_every_invariant() {
    let java = |bounds| Bounds { java: true, ..bounds };
    assert_no_violation(&[java(plain()), java(slow()), java(led()), java(crashing())], &EXPECTED_EVENTS);
}

#[test]
fn each_fault_violates_its_invariant() {
    let (fence, early) = (
        "a worker without the lease stored a checkpoint",
        "a lease was treated as expired while its owner could use it",
    );
    for (fault, bounds, invariant) in [
        (Fault::NoCounter, plain(), fence),
        (Fault::ProvenByTheAnswer, slow(), early),
        (Fault::NeverWaits, plain(), early),
        (Fault::BelievesAnyRow, plain(), fence),
        (Fault::ForgetsTheCheckpoint, plain(), "a checkpoint moved back"),
        (Fault::IgnoresHandoffs, led(), "a renewal overlooked a graceful handoff"),
    ] {
        let (violation, states) = check(&Bounds { fault: Some(fault), ..bounds });
        println!("{fault:?}: {violation:?} after {states} states");
        assert_eq!(violation, Some(invariant), "{fault:?}");
    }
}
