//! The bounds within which every state is visited, the events that must be observed, and a fault for each invariant.

use std::sync::Arc;

use super::{Bounds, Fault};
use crate::checker::{assert_no_violation, check};

/// Most events of the workers: 5, or `MODEL_EVENTS`. With 7 the check takes minutes.
fn events() -> u8 {
    std::env::var("MODEL_EVENTS").map_or(5, |events| events.parse().unwrap())
}

fn shared() -> Bounds {
    Bounds {
        led: false,
        ticks: 3,
        events: events(),
        losses: 1,
        stops: 1,
        crashes: 1,
        assignments: 0,
        fault: None,
        seen: Arc::default(),
    }
}

fn led() -> Bounds {
    Bounds { led: true, ticks: 2, assignments: 2, ..shared() }
}

const EXPECTED_EVENTS: [&str; 7] = [
    "a lease was acquired",
    "a lease was stolen",
    "a lease was released",
    "a lease was lost",
    "a lease was assigned",
    "another worker was faster",
    "a response was lost",
];

#[test]
fn coordinators_keep_their_invariants_in_every_order_of_events() {
    assert_no_violation(&[shared(), led()], &EXPECTED_EVENTS);
}

#[test]
fn each_fault_around_a_coordinator_violates_its_invariant() {
    for (fault, bounds, invariant) in [
        (Fault::ForgetsAcquisitions, shared(), "alive"),
        (Fault::ForgetsReleases, shared(), "alive"),
        (Fault::ReportsTwice, shared(), "one request"),
        (Fault::ForgetsStops, shared(), "stopped"),
        (Fault::SeesNoRenewals, shared(), "fair"),
        (Fault::MisreadsOwners, led(), "assigned"),
    ] {
        let (violation, states) = check(&Bounds { fault: Some(fault), ..bounds });
        println!("{fault:?}: {violation:?} after {states} states");
        assert!(violation.is_some_and(|found| found.starts_with(invariant)), "{fault:?}: {violation:?}");
    }
}
