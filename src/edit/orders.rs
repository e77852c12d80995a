//! Plans `park`, `unpark`, `pause` and `resume`: pure steps over the rows of the lease table.
//!
//! No step depends on another one: whatever part of them is written, each lease is delivered as before, or as ordered,
//! and a second run plans the rest. Leases keep their owners, so live owners are no obstacle. Owners that are not known
//! as workers of multilangd are named, because KCL ignores the orders.

use std::collections::{BTreeMap, BTreeSet};

use super::order::{Order, has_owner};
use super::plan::{Action, Kept, Refusal, Rows, Step};
use crate::lease::orders::{self, Park, Pause};
use crate::lease::{Lease, LeaseKey, WorkerId};

/// The operator who gives an order, and the time.
#[derive(Debug, Clone, Copy)]
pub struct Operator<'a> {
    /// The name of the operator.
    pub by: &'a str,
    /// The time of the order, in milliseconds since 1970.
    pub now: i64,
    /// A time at AWS that is not later than the order.
    pub latest_from: i64,
}

/// Plans `park`.
pub fn park(rows: &Rows<'_>, operator: Operator<'_>) -> Vec<Step> {
    let action = |lease: &Lease| {
        let takes = rows.force && has_owner(lease);
        match &lease.park {
            Some(_) if !takes => Action::Keep(Kept::AlreadyParked),
            known => {
                let park = known.clone().unwrap_or_else(|| Park::new(operator.now, operator.by));
                Action::Order(Order::Park { park, latest_from: operator.latest_from, takes })
            }
        }
    };
    each(rows, action)
}

/// Plans `unpark`.
pub fn unpark(rows: &Rows<'_>) -> Vec<Step> {
    each(rows, |lease| match &lease.park {
        Some(_) => Action::Order(Order::Unpark),
        None => Action::Keep(Kept::NotParked),
    })
}

/// Plans `pause`. An order that was interrupted is completed.
pub fn pause(rows: &Rows<'_>, operator: Operator<'_>) -> Vec<Step> {
    let in_force = orders::in_force(rows.leases);
    let pause = match in_force {
        Some(pause) if pause.is_on() => pause.clone(),
        Some(earlier) => Pause::new(true, operator.now.max(earlier.since() + 1), operator.by),
        None => Pause::new(true, operator.now, operator.by),
    };
    each(rows, |lease| {
        if lease.pause.as_ref() == Some(&pause) {
            return Action::Keep(Kept::AlreadyPaused);
        }
        Action::Order(Order::Pause { pause: pause.clone(), latest_from: operator.latest_from })
    })
}

/// Plans `resume`. An order that was interrupted is completed. Every row receives it, so that none pauses the application
/// again.
pub fn resume(rows: &Rows<'_>, operator: Operator<'_>) -> Vec<Step> {
    let resume = match orders::in_force(rows.leases) {
        Some(pause) if pause.is_on() => {
            Some(Pause::new(false, operator.now.max(pause.since() + 1), operator.by))
        }
        known => known.cloned(),
    };
    each(rows, |lease| match &resume {
        Some(resume) if lease.pause.as_ref() != Some(resume) => {
            Action::Order(Order::Pause { pause: resume.clone(), latest_from: operator.latest_from })
        }
        Some(_) | None => Action::Keep(Kept::NotPaused),
    })
}

/// The order for the whole application that these steps of `pause` or `resume` write; none if no row needs it.
pub fn chosen(steps: &[Step]) -> Option<&Pause> {
    steps.iter().find_map(|step| {
        if let Action::Order(Order::Pause { pause, .. }) = &step.action { Some(pause) } else { None }
    })
}

/// Plans to bring an order for the whole application to rows that workers have created since it was planned.
///
/// # Errors
/// A later order of another operator, which contradicts it, is in force.
pub fn bring(leases: &[Lease], order: &Pause, latest_from: i64) -> Result<Vec<Step>, Pause> {
    if let Some(later) = orders::in_force(leases).filter(|known| *known != order && known.covers(order)) {
        return if later.is_on() == order.is_on() { Ok(Vec::new()) } else { Err(later.clone()) };
    }
    let rows = Rows { leases, live: &BTreeSet::new(), selected: None, force: false };
    let order = Order::Pause { pause: order.clone(), latest_from };
    Ok(each(&rows, |lease| {
        if order.is_done(lease) { Action::Keep(Kept::NotPaused) } else { Action::Order(order.clone()) }
    }))
}

fn each(rows: &Rows<'_>, action: impl Fn(&Lease) -> Action) -> Vec<Step> {
    let mut steps = rows.unknown(&rows.leases.iter().map(|lease| lease.shard()).collect(), &Refusal::NoLease);
    for lease in rows.leases.iter().filter(|lease| rows.selects(lease.shard())) {
        let action = action(lease);
        // In a finished row, only the mark of an order that ends is removed.
        let is_needed = matches!(&action, Action::Order(order) if !order.is_done(lease));
        let action = if lease.is_complete() && !is_needed { Action::Keep(Kept::Finished) } else { action };
        steps.push(Step {
            key: lease.key.clone(),
            lease: Some(lease.clone()),
            children: BTreeSet::new(),
            action,
        });
    }
    steps
}

/// The owners of leases whose deliveries are stopped that are not known as workers of multilangd, with those leases. A
/// worker of multilangd marks each row that it acquires with its process.
pub fn disobedient<'a>(steps: &'a [Step], leases: &[Lease]) -> BTreeMap<&'a WorkerId, Vec<&'a LeaseKey>> {
    let is_known = |worker: &WorkerId| {
        leases.iter().any(|lease| lease.process.as_ref().is_some_and(|process| process.is_of(worker)))
    };
    let mut owners: BTreeMap<&WorkerId, Vec<&LeaseKey>> = BTreeMap::new();
    for step in steps {
        let takes = match &step.action {
            Action::Order(order) if order.stops() => matches!(order, Order::Park { takes: true, .. }),
            Action::Keep(Kept::AlreadyParked | Kept::AlreadyPaused) => false,
            Action::Order(_)
            | Action::Keep(_)
            | Action::Move(_)
            | Action::Create(_)
            | Action::Release
            | Action::Refuse(_) => continue,
        };
        let Some(lease) = step.lease.as_ref().filter(|_| !takes) else { continue };
        // Of a handoff, the next owner will read the shard soon.
        let of_row = lease.owner.iter().chain(&lease.checkpoint_owner);
        for owner in of_row.filter(|owner| !is_known(owner)) {
            owners.entry(owner).or_default().push(&lease.key);
        }
    }
    owners
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::lease::{ProcessId, update};
    use crate::sequence::{Position, Sequence};
    use crate::shard::HashRange;

    const ANN: Operator<'_> = Operator { by: "ann", now: 50, latest_from: 40 };

    fn lease(shard: &str) -> Lease {
        let at = Position::new(Sequence::Latest);
        let lease = Lease::new(shard.into(), at, BTreeSet::new(), HashRange { start: 0, end: 9 });
        Lease { owner: Some("w".into()), counter: 7, ..lease }
    }

    fn rows(leases: &[Lease]) -> Rows<'_> {
        static NONE: BTreeSet<WorkerId> = BTreeSet::new();
        Rows { leases, live: &NONE, selected: None, force: false }
    }

    fn write(leases: &mut [Lease], steps: &[Step], most: usize) {
        for step in steps.iter().filter(|step| step.writes()).take(most) {
            let row = leases.iter_mut().find(|row| row.key == step.key).unwrap();
            let update = step.update(row).unwrap();
            assert!(update.holds(row));
            update.apply(row);
            assert!(step.is_done(row), "{step:?}");
        }
    }

    fn writes(steps: &[Step]) -> Vec<&str> {
        steps.iter().filter(|step| step.writes()).map(|step| step.key.shard().as_str()).collect()
    }

    #[test]
    fn parked_lease_keeps_its_owner_until_it_is_unparked() {
        let ended = Lease { checkpoint: Position::shard_end(), ..lease("z") };
        let mut leases = [lease("a"), lease("b"), ended.clone()];
        let selected = BTreeSet::from(["a".into(), "z".into()]);
        let steps = park(&Rows { selected: Some(&selected), ..rows(&leases) }, ANN);
        assert_eq!(writes(&steps), ["a"]);
        write(&mut leases, &steps, 9);
        let parked = Lease { park: Some(Park::new(50, "ann")), latest_from: Some(40), ..lease("a") };
        assert_eq!(leases, [parked, lease("b"), ended]);
        assert_eq!(writes(&park(&rows(&leases), ANN)), ["b"], "a second run completes it");
        let steps = unpark(&rows(&leases));
        assert_eq!(writes(&steps), ["a"]);
        write(&mut leases, &steps, 9);
        assert_eq!(leases[0], Lease { latest_from: Some(40), ..lease("a") });
        let unknown = BTreeSet::from(["x".into()]);
        let steps = park(&Rows { selected: Some(&unknown), ..rows(&leases) }, ANN);
        assert!(matches!(steps[..], [Step { action: Action::Refuse(Refusal::NoLease), .. }]));
    }

    #[test]
    fn forced_park_takes_the_lease_from_its_owner() {
        let mut leases = [Lease { checkpoint_owner: Some("v".into()), ..lease("a") }];
        let steps = park(&Rows { force: true, ..rows(&leases) }, ANN);
        let old = leases[0].clone();
        write(&mut leases, &steps, 1);
        assert!(!has_owner(&leases[0]) && leases[0].park.is_some());
        assert!(!update::renew(&old).holds(&leases[0]), "the owner loses the lease");
        assert_eq!(disobedient(&steps, &leases).len(), 0);
        leases[0].owner = Some("w".into());
        assert_eq!(writes(&park(&rows(&leases), ANN)), [""; 0]);
        let again = park(&Rows { force: true, ..rows(&leases) }, Operator { now: 99, ..ANN });
        write(&mut leases, &again, 1);
        assert_eq!((leases[0].park.clone(), has_owner(&leases[0])), (Some(Park::new(50, "ann")), false));
    }

    #[test]
    fn owners_unknown_as_workers_of_ours_are_named() {
        let process = |worker: &str| Some(ProcessId::new(1, "x", &worker.into()));
        let owned = |shard: &str, owner: Option<&str>, of: Option<&str>| Lease {
            owner: owner.map(Into::into),
            process: of.and_then(process),
            ..lease(shard)
        };
        let leases = [
            owned("a", Some("ours"), Some("ours")),
            owned("b", Some("java"), None),
            owned("c", Some("java"), Some("ours")),
            owned("d", None, None),
            // Assigned by the leader, and not yet acquired.
            owned("e", Some("ours"), None),
        ];
        let steps = park(&rows(&leases), ANN);
        let named = disobedient(&steps, &leases);
        let (java, shards) = (WorkerId::from("java"), ["b".into(), "c".into()]);
        assert_eq!(named, BTreeMap::from([(&java, shards.iter().collect())]));
        let resumed = resume(&rows(&leases), ANN);
        assert_eq!(disobedient(&resumed, &leases).len(), 0);
    }

    proptest! {
        /// Whatever part of an order was written, and whatever rows were created since, a second run completes it.
        #[test]
        fn interrupted_orders_are_completed(verbs in prop::collection::vec((0..4usize, 0..6usize), 1..6), now in 0..60i64) {
            let mut leases: Vec<Lease> = (0..4).map(|n| lease(&n.to_string())).collect();
            let mut at = now;
            for (verb, most) in verbs {
                // The clocks of operators differ.
                at = (at * 7 + 13) % 60;
                let operator = Operator { now: at, ..ANN };
                let plan = |leases: &[Lease]| match verb {
                    0 => park(&rows(leases), operator),
                    1 => unpark(&rows(leases)),
                    2 => pause(&rows(leases), operator),
                    _ => resume(&rows(leases), operator),
                };
                let steps = plan(&leases);
                write(&mut leases, &steps, most);
                let more = leases.len().to_string();
                leases.push(lease(&more));
                let steps = plan(&leases);
                write(&mut leases, &steps, 99);
                prop_assert!(writes(&plan(&leases)).is_empty());
                let paused = leases.iter().filter(|lease| lease.pause.as_ref().is_some_and(Pause::is_on)).count();
                let parked = leases.iter().filter(|lease| lease.park.is_some()).count();
                match verb {
                    0 => prop_assert_eq!(parked, leases.len()),
                    1 => prop_assert_eq!(parked, 0),
                    2 => prop_assert_eq!(paused, leases.len()),
                    _ => prop_assert_eq!(paused, 0),
                }
            }
        }
    }
}
