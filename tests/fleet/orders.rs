//! An operator parks and unparks shards, pauses and resumes the application, while the fleet runs: no record is delivered
//! for a shard that has been parked for the failover time, whoever owns its lease, and none is lost. Some commands are cut
//! short, and some plans are old when they are written.
//!
//! ```text
//! SEED=123 cargo test --test fleet orders                    one run
//! SEEDS=10000 cargo test --release --test fleet orders       many
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use multilangd::edit::orders::{self, Operator};
use multilangd::edit::plan::{Rows, Step};
use multilangd::lease::{Lease, WorkerId};
use tokio::time::{Instant, sleep};

use crate::oracle::OPERATOR;
use crate::story::{Plan, Report, Story, simulate, wall};
use crate::streams::runs;
use crate::world::{Bug, FAILOVER, Network};

const SECOND: Duration = Duration::from_secs(1);
/// Audits and a failover time, until leases that were created during a pause are paused.
const PAUSED: u32 = 90;

#[derive(Debug, Clone, Copy)]
enum Verb {
    Park,
    ParkByForce,
    Unpark,
    Pause,
    Resume,
}

impl Verb {
    const ALL: [Self; 5] = [Self::Park, Self::ParkByForce, Self::Unpark, Self::Pause, Self::Resume];

    fn count(self) -> &'static str {
        match self {
            Self::Park => "parked a shard",
            Self::ParkByForce => "parked a shard and took its lease away",
            Self::Unpark => "unparked a shard",
            Self::Pause => "paused a lease",
            Self::Resume => "resumed a lease",
        }
    }
}

/// The steps of a verb for one random shard or, for an order for the application and half of the others, for all shards.
fn plan(story: &Story, verb: Verb) -> Vec<Step> {
    let leases: Vec<Lease> = story.world.state().rows.values().cloned().collect();
    let one = BTreeSet::from([leases[story.pick(leases.len())].shard().clone()]);
    let for_all = matches!(verb, Verb::Pause | Verb::Resume) || story.pick(2) == 0;
    let live = BTreeSet::new();
    let rows = Rows {
        leases: &leases,
        live: &live,
        selected: (!for_all).then_some(&one),
        force: matches!(verb, Verb::ParkByForce),
    };
    // The clocks of operators differ.
    let now = wall() - i64::try_from(story.pick(60_000)).unwrap();
    let operator = Operator { by: OPERATOR, now, latest_from: wall() };
    match verb {
        Verb::Park | Verb::ParkByForce => orders::park(&rows, operator),
        Verb::Unpark => orders::unpark(&rows),
        Verb::Pause => orders::pause(&rows, operator),
        Verb::Resume => orders::resume(&rows, operator),
    }
}

/// Writes the first steps; a row that has changed since is left alone.
fn write(story: &Story, verb: Verb, steps: &[Step], most: usize) {
    let mut state = story.world.state();
    let operator = WorkerId::from(OPERATOR);
    for step in steps.iter().filter(|step| step.writes()).take(most) {
        let Some(update) = step.lease.as_ref().and_then(|row| step.update(row)) else { continue };
        if state.write(&operator, Instant::now(), &step.key, &update).is_ok() {
            state.oracle.count(verb.count());
        }
    }
}

fn give(story: &Story, verb: Verb) {
    write(story, verb, &plan(story, verb), usize::MAX);
}

/// Ends all orders, as far as they are known.
fn end_orders(story: &Story) {
    for verb in [Verb::Unpark, Verb::Resume] {
        // Until all shards were selected.
        for _ in 0..100 {
            give(story, verb);
        }
    }
}

async fn ordered(plan_of_run: Plan) -> Report {
    let mut story = Story::new(plan_of_run.seed, 4, plan_of_run.bug, plan_of_run.led);
    story.join(None);
    story.join(None);
    story.put(40);
    sleep(SECOND * 5).await;
    let mut old: Option<(Verb, Vec<Step>)> = None;
    for _ in 0..90 {
        sleep(SECOND).await;
        story.reap();
        let records = story.pick(8);
        story.put(records);
        match story.pick(30) {
            0 => story.join_one(),
            1 => story.stop_one(),
            2 => story.kill_one(),
            3 => story.freeze(),
            4 => story.cut_off(),
            5 => story.world.state().network = Network::BAD,
            6 => story.world.state().network = Network::FINE,
            7 | 8 => story.reshard(8),
            9..=16 => {
                let verb = Verb::ALL[story.pick(Verb::ALL.len())];
                let steps = plan(&story, verb);
                let most = if story.pick(3) == 0 { story.pick(steps.len() + 1) } else { steps.len() };
                write(&story, verb, &steps, most);
            }
            17 => {
                let verb = Verb::ALL[story.pick(Verb::ALL.len())];
                old = Some((verb, plan(&story, verb)));
            }
            _ => {
                if let Some((verb, steps)) = old.take() {
                    write(&story, verb, &steps, usize::MAX);
                }
            }
        }
    }
    end_orders(&story);
    story.calm(plan_of_run).await;
    story.end().await
}

/// A pause of some minutes.
async fn paused(plan_of_run: Plan) -> Report {
    let mut story = Story::new(plan_of_run.seed, 4, plan_of_run.bug, plan_of_run.led);
    story.join(None);
    story.join(None);
    story.put(40);
    for _ in 0..20 {
        sleep(SECOND).await;
        let records = story.pick(8);
        story.put(records);
        match story.pick(6) {
            0 => story.reshard(8),
            1 => story.join_one(),
            _ => {}
        }
    }
    give(&story, Verb::Pause);
    for _ in 0..PAUSED {
        sleep(SECOND).await;
        story.reap();
        let records = story.pick(4);
        story.put(records);
        match story.pick(20) {
            0 => story.reshard(8),
            1 => story.kill_one(),
            2 => story.join_one(),
            3 => story.stop_one(),
            _ => {}
        }
    }
    let deliveries = {
        let mut state = story.world.state();
        let open = state.rows.values().filter(|row| !row.is_complete() && row.parking().is_none());
        let unpaused: Vec<_> = open.map(|row| row.key.to_string()).collect();
        if !unpaused.is_empty() {
            state.oracle.violated("unpaused", unpaused.join(", "));
        }
        state.oracle.deliveries
    };
    sleep(FAILOVER * 3).await;
    let now = story.world.state().oracle.deliveries;
    if now != deliveries {
        story.world.state().oracle.violated("delivered-in-pause", format!("{} records", now - deliveries));
    }
    give(&story, Verb::Resume);
    story.calm(plan_of_run).await;
    story.end().await
}

/// Leases at the latest record that are parked before anything is put.
async fn parked_at_latest(plan_of_run: Plan) -> Report {
    let mut story = Story::new(plan_of_run.seed, 4, plan_of_run.bug, plan_of_run.led);
    story.begins_at_latest();
    story.join(None);
    let pause = 50 * u64::try_from(story.pick(200)).unwrap();
    while story.world.state().rows.len() < 4 {
        sleep(SECOND / 20).await;
    }
    sleep(Duration::from_millis(pause)).await;
    give(&story, Verb::Pause);
    for _ in 0..60 {
        let records = story.pick(2);
        story.put(records);
        sleep(SECOND).await;
        story.reap();
        match story.pick(16) {
            0 | 1 => story.join_one(),
            2 => story.stop_one(),
            3 | 4 => story.kill_one(),
            5 => story.freeze(),
            6 => story.world.state().network = Network::BAD,
            7 => story.world.state().network = Network::FINE,
            8 => give(&story, Verb::Resume),
            9 => give(&story, Verb::Pause),
            _ => {}
        }
    }
    give(&story, Verb::Resume);
    story.calm(plan_of_run).await;
    story.end().await
}

/// Leases at the latest record that are paused. Their workers, which do not store where they began to read, stop, and
/// others start when the pause is over, or before.
async fn stopped_in_pause(plan_of_run: Plan) -> Report {
    let mut story = Story::new(plan_of_run.seed, 4, plan_of_run.bug, plan_of_run.led);
    story.begins_at_latest();
    story.resumes_no_latest();
    story.join(None);
    story.join(None);
    while !(story.is_settled() && story.is_begun()) {
        sleep(SECOND).await;
        story.reap();
    }
    give(&story, Verb::Pause);
    sleep(FAILOVER * 2).await;
    while story.len() > 0 {
        story.stop(0);
    }
    for _ in 0..20 {
        story.put(2);
        sleep(SECOND).await;
        story.reap();
    }
    let is_resumed_first = story.pick(2) == 0;
    if is_resumed_first {
        give(&story, Verb::Resume);
    }
    story.join(None);
    story.join(None);
    let millis = u64::try_from(story.pick(20_000)).unwrap();
    sleep(Duration::from_millis(millis)).await;
    give(&story, Verb::Resume);
    story.calm(plan_of_run).await;
    story.end().await
}

#[test]
fn orders_of_an_operator_are_obeyed_without_loss() {
    runs(|plan| simulate(plan.seed, ordered(plan)));
}

#[test]
fn paused_application_delivers_nothing_until_it_is_resumed() {
    runs(|plan| simulate(plan.seed, paused(plan)));
}

#[test]
fn leases_at_latest_skip_nothing_while_parked() {
    runs(|plan| simulate(plan.seed, parked_at_latest(plan)));
}

#[test]
fn pause_outlives_its_workers_where_latest_is_not_resumed() {
    runs(|plan| simulate(plan.seed, stopped_in_pause(plan)));
}

/// Each injected fault violates an invariant of the orders.
#[test]
fn faults_of_orders_violate_their_invariants() {
    type Told = fn(Plan) -> Report;
    let told: [(Bug, &str, Told); 4] = [
        (Bug::HidesOrders, "delivered-while-parked", |plan| simulate(plan.seed, ordered(plan))),
        (Bug::HidesOrders, "delivered-in-pause", |plan| simulate(plan.seed, paused(plan))),
        (Bug::ForgetsTheStart, "undelivered", |plan| simulate(plan.seed, parked_at_latest(plan))),
        (Bug::ForgetsTheStart, "undelivered", |plan| simulate(plan.seed, stopped_in_pause(plan))),
    ];
    for (bug, invariant, story) in told {
        let violates = |seed| {
            let report = story(Plan { bug: Some(bug), long: false, ..Plan::of(seed) });
            report.violations.iter().any(|violation| violation.starts_with(&format!("{invariant}:")))
        };
        assert!((0..40).any(violates), "{bug:?} does not violate {invariant}");
    }
}
