//! The verbs of `multilangd leases FILE`: an operator moves, releases or parks leases.
//!
//! | module | holds |
//! |---|---|
//! | [`plan`] | the steps of `seek` and `release`, and why they are refused: pure |
//! | [`order`] | an order for one lease, and its write: pure |
//! | [`orders`] | the steps of `park`, `unpark`, `pause` and `resume`: pure |
//! | [`copy`] | the steps of `copy`: pure |
//! | [`locate`] | the position of a time or a sequence number in a shard |
//!
//! Only conditional writes, in the order of the plan. If a step cannot be written, those after it are not written
//! either; a second run completes the verb.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;

use crate::lease::orders::Pause;
use crate::lease::{Lease, LeaseKey, Table, WorkerId, liveness, table};
use crate::shard::some;
use crate::stream::StreamId;

pub mod copy;
pub mod locate;
pub mod order;
pub mod orders;
pub mod plan;

use plan::{Action, Step};

/// Most attempts to write a row that its owner renews meanwhile.
const ATTEMPTS: u32 = 8;

/// A step was not written; those after it were not, either.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A worker changed the row since it was read.
    #[error(
        "the lease of {0} was changed by a worker meanwhile: {1} of {2} leases are written (run the command again; for \
         seek and release, stop the workers first)"
    )]
    Changed(LeaseKey, usize, usize),
    /// Another operator gave a later order for the application.
    #[error(
        "the order was replaced by a later one of {by}, after {written} leases were written: the application is {now} \
         (run the command again to replace that one)"
    )]
    Replaced {
        /// The other operator.
        by: String,
        /// Leases that were written before.
        written: usize,
        /// The state of the application.
        now: &'static str,
    },
    /// The table cannot be written.
    #[error("failed to write the lease of {0}: {3}; {1} of {2} leases are written (run the command again)")]
    Table(LeaseKey, usize, usize, #[source] table::Error),
}

/// Two scans of the lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scans {
    /// The rows of the second scan.
    pub leases: Vec<Lease>,
    /// The owners that renewed a lease between the scans.
    pub live: BTreeSet<WorkerId>,
}

/// The time between two scans that shows which owners are alive: a lease expires once its counter has not changed for the
/// failover time, so no shorter one does. None if leases are taken from live owners, too.
pub fn between(failover: Duration, watch: Option<Duration>, force: bool) -> Duration {
    if force { Duration::ZERO } else { watch.map_or(failover, |watch| watch.max(failover)) }
}

/// Scans the lease table twice, because only a change of its counter shows that an owner is alive; once if no lease has
/// an owner.
///
/// # Errors
/// The table cannot be read.
pub async fn scan(table: &dyn Table, between: Duration) -> Result<Scans, table::Error> {
    let before = table.list().await?;
    if before.iter().all(|lease| lease.actual_owner().is_none()) {
        return Ok(Scans { leases: before, live: BTreeSet::new() });
    }
    sleep(between).await;
    let leases = table.list().await?;
    let live = liveness::renewed_between(&before, &leases);
    Ok(Scans { leases, live })
}

/// The attributes that all new rows share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct NewRows {
    /// Whether they have a type ([`Lease::typed`]).
    pub typed: bool,
    /// The stream with which they are marked.
    pub stream: Option<StreamId>,
}

/// Writes the steps in order. `force` writes rows that their owners renew meanwhile.
///
/// # Errors
/// The first step that was not written.
pub async fn execute(table: &dyn Table, steps: &[Step], new: &NewRows, force: bool) -> Result<usize, Error> {
    let all = steps.iter().filter(|step| step.writes()).count();
    for (written, step) in steps.iter().filter(|step| step.writes()).enumerate() {
        let key = || step.key.clone();
        match write(table, step, new, force).await {
            Ok(true) => {}
            Ok(false) => return Err(Error::Changed(key(), written, all)),
            Err(error) => return Err(Error::Table(key(), written, all, error)),
        }
    }
    Ok(all)
}

/// Most scans after an order for the whole application.
const SCANS: usize = 3;

/// Completes an order for the whole application after its first steps were written: workers may have created rows since
/// they were read. Returns the number of rows written.
///
/// # Errors
/// The first step that was not written, or a later order of another operator.
pub async fn follow(
    table: &dyn Table,
    order: &Pause,
    latest_from: i64,
    mut written: usize,
) -> Result<usize, Error> {
    for _ in 0..SCANS {
        // A worker brings the order to rows that this does not see.
        let Ok(leases) = table.list().await else { break };
        let steps = orders::bring(&leases, order, latest_from).map_err(|later| Error::Replaced {
            by: later.by().to_owned(),
            written,
            now: if later.is_on() { "paused" } else { "resumed" },
        })?;
        let more = execute(table, &steps, &NewRows::default(), false).await?;
        if more == 0 {
            break;
        }
        written += more;
    }
    Ok(written)
}

/// Writes one step. Returns false if the row has changed.
async fn write(table: &dyn Table, step: &Step, new: &NewRows, force: bool) -> Result<bool, table::Error> {
    if let Action::Create(lease) = &step.action {
        let lease = Lease { typed: new.typed, stream: new.stream.clone(), ..(**lease).clone() };
        // Another run of the command may have created it.
        return Ok(
            table.create(&lease).await? || table.get(&step.key).await?.is_some_and(|row| step.is_done(&row))
        );
    }
    let Some(seen) = &step.lease else { return Ok(true) };
    let mut row = seen.clone();
    for _ in 0..ATTEMPTS {
        let Some(update) = step.update(&row) else { return Ok(true) };
        match table.update(&step.key, &update).await {
            Ok(_) | Err(table::Error::Written { .. }) => return Ok(true),
            Err(table::Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
        match table.get(&step.key).await? {
            // An earlier attempt of the request was applied.
            Some(now) if step.is_done(&now) => return Ok(true),
            // An order has no other step after it, and a worker may have marked the row with its stream.
            Some(now) if step.is_order() && (now.stream == seen.stream || seen.stream.is_none()) => row = now,
            // The steps after it were planned for a shard that is read further, or that is finished.
            Some(now) if force && now.is_complete() == seen.is_complete() && now.stream == seen.stream => {
                row = now;
            }
            // A row that is deleted needs no order.
            None if step.is_order() => return Ok(true),
            Some(_) | None => return Ok(false),
        }
    }
    Ok(false)
}

/// The plan as one JSON object. `unknown` are the workers of [`orders::disobedient`]. `written` is none for a dry run and for a refused plan.
pub fn json(
    name: &str,
    verb: &str,
    steps: &[Step],
    unknown: &BTreeMap<&WorkerId, Vec<&LeaseKey>>,
    written: Option<usize>,
) -> Value {
    let unknown = unknown.iter().map(|(worker, keys)| {
        let shards: Vec<String> = keys.iter().map(|key| key.to_string()).collect();
        json!({"worker": worker.as_str(), "shards": shards})
    });
    let unknown: Vec<Value> = unknown.collect();
    let steps = steps.iter().map(|step| {
        let before = step.lease.as_ref().map(|lease| lease.checkpoint.to_string());
        let (action, after, reason) = describe(step);
        json!({
            "shard": step.key.to_string(),
            "owner": step.lease.as_ref().and_then(Lease::actual_owner).map(WorkerId::as_str),
            "before": before,
            "action": action,
            "after": after,
            "reason": reason,
        })
    });
    json!({"table": name, "verb": verb, "steps": steps.collect::<Vec<_>>(), "unknownWorkers": unknown, "written": written})
}

/// The plan as text.
pub fn text(steps: &[Step]) -> String {
    let is_seek = |step: &Step| matches!(step.action, Action::Move(_) | Action::Create(_));
    let last = if steps.iter().any(is_seek) { "NEW CHECKPOINT" } else { "NOTE" };
    let mut rows = vec![["SHARD", "OWNER", "CHECKPOINT", "ACTION", last].map(str::to_owned)];
    for step in steps {
        let owner = step.lease.as_ref().and_then(Lease::actual_owner);
        let (action, after, reason) = describe(step);
        rows.push([
            step.key.to_string(),
            owner.map_or("-".to_owned(), ToString::to_string),
            step.lease.as_ref().map_or("-".to_owned(), |lease| lease.checkpoint.to_string()),
            action.to_owned(),
            after.or(reason).unwrap_or_default(),
        ]);
    }
    let mut out = String::new();
    crate::inspect::columns(&mut out, &rows);
    out
}

/// The action, the new checkpoint, and the reason for no write.
fn describe(step: &Step) -> (&'static str, Option<String>, Option<String>) {
    match &step.action {
        Action::Move(to) => ("seek", Some(to.to_string()), None),
        Action::Create(lease) => ("create", Some(lease.checkpoint.to_string()), None),
        Action::Release => ("release", None, None),
        Action::Order(order) => (order.word(), None, None),
        Action::Keep(why) => ("keep", None, Some(why.to_string())),
        Action::Refuse(why) => ("refuse", None, Some(why.to_string())),
    }
}

/// One line for each worker of [`orders::disobedient`].
pub fn warnings(unknown: &BTreeMap<&WorkerId, Vec<&LeaseKey>>) -> String {
    let line = |(worker, keys): (&&WorkerId, &Vec<&LeaseKey>)| {
        let shards = some(keys.iter().copied());
        format!(
            "\nwarning: worker {worker} is not known as a worker of multilangd. A Java worker ignores the order and \
             continues to deliver {shards} (stop it)\n"
        )
    };
    unknown.iter().map(line).collect()
}

/// One line for each refusal; none if there is none.
pub fn refusals(steps: &[Step]) -> Option<String> {
    let mut out = String::new();
    for step in steps {
        if let Action::Refuse(why) = &step.action {
            let _infallible = write!(out, "\n  {}: {why}", step.key);
        }
    }
    (!out.is_empty()).then(|| format!("nothing is written:{out}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lease::memory::{Fault, Memory};
    use crate::lease::sync;
    use crate::sequence::{Position, Sequence, SequenceNumber};
    use crate::shard::{HashRange, Shard};
    use plan::{Rows, To};

    fn shards() -> Vec<Shard> {
        let number = |value: u32| SequenceNumber::parse(&value.to_string()).unwrap();
        let shard = |n: u32| Shard {
            id: format!("shard-{n}").as_str().into(),
            parent: None,
            adjacent_parent: None,
            range: HashRange { start: 0, end: 9 },
            starting: number(100 * n),
            ending: None,
        };
        (0..3).map(shard).collect()
    }

    /// Three rows with an owner, the last one missing.
    fn table() -> Memory {
        let table = Memory::default();
        for shard in shards().iter().take(2) {
            let mut row = sync::new_lease(shard, Sequence::Latest);
            row.owner = Some("worker".into());
            table.put(row);
        }
        table
    }

    async fn planned(table: &Memory) -> Vec<Step> {
        let leases = table.list().await.unwrap();
        let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
        plan::seek(&rows, &shards(), &To::TrimHorizon)
    }

    fn renew(table: &Memory) {
        let mut row = table.row(&"shard-1".into()).unwrap();
        row.counter += 1;
        table.put(row);
    }

    #[test]
    fn owner_counts_as_dead_only_after_a_failover_time() {
        let second = Duration::from_secs(1);
        assert_eq!(between(second * 10, None, false), second * 10);
        assert_eq!(between(second * 10, Some(second), false), second * 10);
        assert_eq!(between(second * 10, Some(second * 60), false), second * 60);
        assert_eq!(between(second * 10, Some(second * 60), true), Duration::ZERO);
    }

    #[tokio::test]
    async fn row_renewed_since_the_plan_is_not_written() {
        let table = table();
        let steps = planned(&table).await;
        renew(&table);
        let done = execute(&table, &steps, &NewRows::default(), false).await;
        assert_eq!(done, Err(Error::Changed("shard-1".into(), 1, 3)));
        let row = |shard: &str| table.row(&shard.into());
        assert_eq!(row("shard-1").unwrap().checkpoint, Position::new(Sequence::Latest));
        assert_eq!(row("shard-2"), None, "the steps after it are not written");
        // A second run completes it.
        let steps = planned(&table).await;
        assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
        assert!(planned(&table).await.iter().all(|step| !step.writes()));
    }

    #[tokio::test(start_paused = true)]
    async fn scan_waits_for_renewals_only_if_a_lease_has_an_owner() {
        let (table, second) = (table(), Duration::from_secs(1));
        let renewal = async {
            sleep(second).await;
            renew(&table);
        };
        let (seen, ()) = tokio::join!(scan(&table, second * 2), renewal);
        assert_eq!(seen.unwrap().live, BTreeSet::from(["worker".into()]));
        let steps = planned(&table).await;
        execute(&table, &steps, &NewRows::default(), false).await.unwrap();
        let began = tokio::time::Instant::now();
        assert_eq!(scan(&table, second).await.unwrap().live, BTreeSet::new());
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test]
    async fn forced_step_is_written_despite_renewals() {
        let table = table();
        let steps = planned(&table).await;
        renew(&table);
        assert_eq!(execute(&table, &steps, &NewRows::default(), true).await, Ok(3));
        let row = table.row(&"shard-1".into()).unwrap();
        assert_eq!((row.owner, row.counter), (None, 2));
        assert_eq!(row.checkpoint, Position::new(Sequence::TrimHorizon));
    }

    #[tokio::test]
    async fn order_is_written_despite_renewals_and_ends_no_lease() {
        let table = table();
        let operator = orders::Operator { by: "ann", now: 7, latest_from: 5 };
        let leases = table.list().await.unwrap();
        let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
        let steps = orders::park(&rows, operator);
        renew(&table);
        let ended = Lease { checkpoint: Position::shard_end(), ..leases[0].clone() };
        table.put(Lease { counter: 9, ..ended.clone() });
        assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
        let row = |shard: &str| table.row(&shard.into()).unwrap();
        let parked = row("shard-1");
        assert_eq!((parked.owner, parked.counter, parked.latest_from), (Some("worker".into()), 1, Some(5)));
        assert!(parked.park.is_some());
        assert_eq!(row("shard-0").park, None, "it is finished");
        let unknown = orders::disobedient(&steps, &leases);
        let shown = json("app", "park", &steps, &unknown, Some(2));
        assert_eq!(shown["unknownWorkers"], json!([{"worker": "worker", "shards": ["shard-0", "shard-1"]}]));
        assert!(warnings(&unknown).contains("worker worker"));
    }

    #[tokio::test]
    async fn rows_created_during_a_pause_are_paused_too() {
        let table = table();
        let operator = orders::Operator { by: "ann", now: 7, latest_from: 5 };
        let leases = table.list().await.unwrap();
        let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
        let steps = orders::pause(&rows, operator);
        table.put(sync::new_lease(&shards()[2], Sequence::TrimHorizon));
        let written = execute(&table, &steps, &NewRows::default(), false).await.unwrap();
        assert_eq!(follow(&table, orders::chosen(&steps).unwrap(), 5, written).await, Ok(3));
        assert!(table.list().await.unwrap().iter().all(|lease| lease.parking().is_some()));
    }

    #[tokio::test]
    async fn later_order_of_another_operator_is_not_replaced() {
        let table = table();
        let operator = |now| orders::Operator { by: "ann", now, latest_from: 5 };
        let leases = table.list().await.unwrap();
        let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
        let (pause, later) = (orders::pause(&rows, operator(7)), orders::pause(&rows, operator(8)));
        assert_eq!(execute(&table, &later, &NewRows::default(), false).await, Ok(2));
        let after = table.list().await.unwrap();
        assert_eq!(execute(&table, &pause, &NewRows::default(), false).await, Ok(2));
        assert_eq!(table.list().await.unwrap(), after);
        assert_eq!(follow(&table, orders::chosen(&pause).unwrap(), 5, 2).await, Ok(2), "it is paused, too");
        // A later order that contradicts it ends the command.
        let rows = Rows { leases: &after, live: &BTreeSet::new(), selected: None, force: false };
        let resume = orders::resume(&rows, operator(9));
        assert_eq!(execute(&table, &resume, &NewRows::default(), false).await, Ok(2));
        let after = table.list().await.unwrap();
        let ended = follow(&table, orders::chosen(&pause).unwrap(), 5, 2).await;
        assert_eq!(ended, Err(Error::Replaced { by: "ann".to_owned(), written: 2, now: "resumed" }));
        assert_eq!(table.list().await.unwrap(), after);
    }

    #[tokio::test]
    async fn finished_row_keeps_no_order_that_has_ended() {
        let table = table();
        let operator = |now| orders::Operator { by: "ann", now, latest_from: 5 };
        let ordered = |leases: &[Lease]| leases.iter().any(|lease| lease.parking().is_some());
        let rows_of = |leases: &[Lease]| leases.to_vec();
        for (give, end) in [(true, true), (false, false)] {
            let leases = rows_of(&table.list().await.unwrap());
            let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
            let steps =
                if give { orders::park(&rows, operator(7)) } else { orders::pause(&rows, operator(8)) };
            assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
            // The shard ends before its owner has seen the order.
            let row = table.row(&"shard-0".into()).unwrap();
            let counter = row.counter + 1;
            table.put(Lease { checkpoint: Position::shard_end(), counter, ..row.clone() });
            let leases = rows_of(&table.list().await.unwrap());
            let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
            let steps = if end { orders::unpark(&rows) } else { orders::resume(&rows, operator(9)) };
            assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
            assert!(!ordered(&table.list().await.unwrap()));
            table.put(Lease { counter: counter + 1, ..row });
            let leases = table.list().await.unwrap();
            let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
            let steps = if end { orders::unpark(&rows) } else { orders::resume(&rows, operator(10)) };
            execute(&table, &steps, &NewRows::default(), false).await.unwrap();
        }
    }

    #[tokio::test]
    async fn order_reaches_a_row_that_a_worker_marks_or_deletes_meanwhile() {
        let table = table();
        let operator = orders::Operator { by: "ann", now: 7, latest_from: 5 };
        let leases = table.list().await.unwrap();
        let rows = Rows { leases: &leases, live: &BTreeSet::new(), selected: None, force: false };
        let steps = orders::park(&rows, operator);
        let stream = StreamId::parse("arn:aws:kinesis:us-east-1:123456789012:stream/s@5");
        assert!(stream.is_some());
        let row = table.row(&"shard-0".into()).unwrap();
        table.put(Lease { counter: row.counter + 1, stream, ..row });
        table.remove(&"shard-1".into());
        assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
        assert!(table.row(&"shard-0".into()).unwrap().park.is_some());
        assert_eq!(table.row(&"shard-1".into()), None);
    }

    #[tokio::test]
    async fn shard_finished_since_the_plan_is_not_written() {
        let table = table();
        let steps = planned(&table).await;
        let ended =
            Lease { checkpoint: Position::shard_end(), counter: 9, ..table.row(&"shard-0".into()).unwrap() };
        table.put(ended.clone());
        let done = execute(&table, &steps, &NewRows::default(), true).await;
        assert_eq!(done, Err(Error::Changed("shard-0".into(), 0, 3)));
        assert_eq!(table.row(&"shard-0".into()), Some(ended));
    }

    #[tokio::test]
    async fn write_applied_by_an_earlier_attempt_counts() {
        let table = table();
        let steps = planned(&table).await;
        table.set_fault(Fault::Retried);
        assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(3));
        assert_eq!(table.writes(), 2);
    }

    #[tokio::test]
    async fn lost_answer_ends_the_verb_and_a_second_run_completes_it() {
        let table = table();
        let steps = planned(&table).await;
        table.set_fault(Fault::LostAnswer);
        let done = execute(&table, &steps, &NewRows::default(), false).await;
        assert!(matches!(done, Err(Error::Table(key, 0, 3, _)) if key == "shard-0".into()));
        table.set_fault(Fault::None);
        let steps = planned(&table).await;
        assert_eq!(execute(&table, &steps, &NewRows::default(), false).await, Ok(2));
    }

    #[tokio::test]
    async fn plan_is_shown_as_text_and_json() {
        let table = table();
        let steps = planned(&table).await;
        let shown = json("app", "seek", &steps, &BTreeMap::new(), Some(3));
        assert_eq!(shown["steps"][0]["before"], "LATEST");
        assert_eq!(shown["steps"][2]["action"], "create");
        assert_eq!(
            (shown["written"].as_u64(), shown["steps"][1]["owner"].as_str()),
            (Some(3), Some("worker"))
        );
        assert_eq!(text(&steps).lines().count(), 4);
        assert_eq!(refusals(&steps), None);
    }
}
