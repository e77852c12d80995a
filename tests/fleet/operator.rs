//! An operator moves all leases to the oldest record, or releases them, while the fleet runs: the workers lose their
//! leases, and every record is delivered again, parents before their children. Some commands are cut short.
//!
//! ```text
//! SEEDS=10000 cargo test --release --test fleet operator
//! ```

use std::collections::BTreeSet;
use std::time::Duration;

use multilangd::edit::plan::{self, Action, Rows, To};
use multilangd::lease::{Lease, WorkerId};
use multilangd::shard::Filter;
use tokio::time::{Instant, sleep};

use crate::oracle::OPERATOR;
use crate::story::{Plan, Report, Story, simulate};
use crate::streams::runs;
use crate::world::Network;

/// Executes a verb with `--force`, or its first steps.
fn operate(story: &Story, seek: bool, whole: bool) {
    let mut state = story.world.state();
    let leases: Vec<Lease> = state.rows.values().cloned().collect();
    let listed = state.list(None, false, Filter::All);
    let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: true };
    let steps = if seek { plan::seek(&rows, &listed, &To::TrimHorizon) } else { plan::release(&rows) };
    let most = if whole { steps.len() } else { state.random.usize(0..=steps.len()) };
    let operator = WorkerId::from(OPERATOR);
    for step in &steps[..most] {
        if let Action::Create(lease) = &step.action {
            let stream = Some(state.identity(None, false));
            state.oracle.moved_again(&lease.key);
            state.create(&Lease { stream, ..(**lease).clone() }, Instant::now());
        } else if let Some(update) = step.lease.as_ref().and_then(|row| step.update(row)) {
            state.write(&operator, Instant::now(), &step.key, &update).unwrap();
        }
    }
    for step in steps[most..].iter().filter(|step| seek && step.writes()) {
        state.oracle.not_moved(&step.key);
    }
    let what = match (seek, whole) {
        (true, true) => "moved all leases",
        (true, false) => "moved some leases",
        (false, _) => "released leases by hand",
    };
    state.oracle.count(what);
}

async fn operated(plan: Plan) -> Report {
    let mut story = Story::new(plan.seed, 4, plan.bug, plan.led);
    story.join(None);
    story.join(None);
    story.put(40);
    for _ in 0..60 {
        sleep(Duration::from_secs(1)).await;
        story.reap();
        let records = story.pick(8);
        story.put(records);
        match story.pick(30) {
            0 => story.join_one(),
            1 => story.stop_one(),
            2 => story.kill_one(),
            3 => story.freeze(),
            4 => story.world.state().network = Network::BAD,
            5 => story.world.state().network = Network::FINE,
            6 | 7 => story.reshard(8),
            8 => operate(&story, true, true),
            9 => operate(&story, true, false),
            10 | 11 => operate(&story, false, false),
            _ => {}
        }
    }
    operate(&story, true, true);
    story.calm(plan).await;
    story.end().await
}

#[test]
fn operator_moves_leases_of_a_running_fleet_without_loss() {
    runs(|plan| simulate(plan.seed, operated(plan)));
}
