//! A fleet that Java 3.1.3 began, with its three tables, migrates to one table beside a worker on the KCL library 3.5.1.
//! Either kind of worker is the leader that carries it out; ours goes back half way and begins again.

use aws_sdk_dynamodb::types::AttributeValue;

use crate::fleet::{Fleet, all_have, coordinator_row, leader, until};
use crate::java::{JAVA_3_LED, LIBRARY_LED};
use crate::library::SOON;
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, said};

const ROW: &str = "TableMigration3.5";
const MIGRATING: &str =
    "migrateAllEntitiesToLeaseTable = true\ntableMigrationCompleteBakeTimeSeconds = 3600\n";
const BOTH: [&str; 2] = ["java-1", "ours-1"];

struct Story {
    fleet: Fleet,
    /// The worker that carries out the migration, and the other.
    driver: &'static str,
    other: &'static str,
}

impl Story {
    fn start(&mut self, worker: &'static str) {
        if worker.starts_with("java") { self.fleet.java(worker) } else { self.fleet.ours(worker) }
    }

    async fn leads(&self, worker: &str) {
        let fleet = &self.fleet;
        until(&format!("{worker} is the leader"), async || leader(fleet).await.as_deref() == Some(worker))
            .await;
    }

    /// Waits until both workers own leases and the driver is the leader.
    async fn is_complete(&mut self, what: &str) {
        self.fleet.load.until_rows(what, |rows| all_have(rows, &BOTH)).await;
        self.leads(self.driver).await;
        self.fleet.load.put_and_catch_up(200).await;
    }

    /// Waits until both workers own leases and one of them is the leader. A Java leader that moves the lock may lose it.
    async fn is_led(&mut self, what: &str) {
        self.fleet.load.until_rows(what, |rows| all_have(rows, &BOTH)).await;
        let fleet = &self.fleet;
        until("a worker is the leader", async || {
            leader(fleet).await.is_some_and(|leader| BOTH.contains(&leader.as_str()))
        })
        .await;
        self.fleet.load.put_and_catch_up(200).await;
    }

    async fn stage(&self) -> String {
        let row = coordinator_row(&self.fleet, ROW).await;
        let stage = row.and_then(|row| row.get("tm")?.as_s().ok().cloned()).unwrap_or_default();
        stage.strip_prefix("TABLE_MIGRATION_STATUS_").unwrap_or(&stage).to_owned()
    }

    async fn reaches(&self, stage: &str) {
        until(&format!("the stage is {stage}"), async || self.stage().await == stage).await;
    }

    async fn driver_reaches(&self, stage: &str) {
        self.reaches(stage).await;
        let by = coordinator_row(&self.fleet, ROW).await.unwrap()["mb"].as_s().unwrap().clone();
        assert_eq!(by, self.driver, "{stage}");
    }

    /// Makes the stage an hour older.
    async fn an_hour_passes(&self) {
        let client = &self.fleet.load.rig.clients.dynamodb;
        let edit = client.update_item().table_name(format!("{APPLICATION}-CoordinatorState"));
        let edit = edit.key("key", AttributeValue::S(ROW.to_owned())).update_expression("ADD mts :hour");
        let hour = AttributeValue::N("-3600000".to_owned());
        edit.expression_attribute_values(":hour", hour).send().await.unwrap();
        eprintln!("an hour passes");
    }

    /// Restarts one worker after the other with these lines, the driver first: it leads again when the
    /// other one has stopped.
    async fn restart(&mut self, lines: &str) {
        self.fleet.lines = format!("{SOON}{lines}");
        for (worker, stays) in [(self.driver, self.other), (self.other, self.driver)] {
            self.fleet.stop(worker).await;
            self.fleet
                .load
                .until_rows(&format!("{worker} has stopped"), |rows| all_have(rows, &[stays]))
                .await;
            self.leads(stays).await;
            self.start(worker);
            self.fleet.load.until_rows(&format!("{worker} is back"), |rows| all_have(rows, &BOTH)).await;
        }
        self.is_complete("both were restarted").await;
    }

    /// The keys of the rows beside the leases in the lease table that are no worker metrics.
    async fn moved(&self) -> Vec<String> {
        let rows = self.fleet.load.rig.all_rows().await;
        let kinds = ["LEASE", "WORKER_METRIC_STATS"];
        let is_moved = |row: &std::collections::BTreeMap<String, AttributeValue>| {
            row.get("entityType").is_some_and(|kind| !kinds.contains(&kind.as_s().unwrap().as_str()))
        };
        rows.into_iter().filter(|(_, row)| is_moved(row)).map(|(key, _)| key).collect()
    }
}

/// `back`: the migration goes back once.
async fn play(name: &str, driver: &'static str, other: &'static str, back: bool) {
    let _turn = crate::turn(1).await;
    let mut load = Load::start(name, 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, JAVA_3_LED, crate::fleet::SOON);
    fleet.java("java-1");
    let all = |worker| move |rows: &Rows| rows.len() == 4 && all_have(rows, &[worker]);
    fleet.load.until_rows("Java 3.1.3 owns all leases", all("java-1")).await;
    fleet.load.rig.until("its children run", |log| said(log, "initialize").len() >= 4).await;
    fleet.load.catch_up().await;
    fleet.stop("java-1").await;

    (fleet.peer, fleet.lines) = (LIBRARY_LED, SOON.to_owned());
    let mut story = Story { fleet, driver, other };
    story.start(driver);
    story.fleet.load.until_rows("the driver owns all leases", all(driver)).await;
    story.leads(driver).await;
    story.start(other);
    story.is_complete("both have leases").await;
    story.driver_reaches("INIT").await;
    story.an_hour_passes().await;
    story.driver_reaches("DEPLOYED").await;
    assert_eq!(story.moved().await, Vec::<String>::new());

    story.restart(MIGRATING).await;
    story.driver_reaches("PENDING").await;
    let rows = ["Migration3.0"];
    assert_eq!(story.moved().await, rows);
    if back {
        story.restart("migrateAllEntitiesToLeaseTable = false\n").await;
        story.reaches("DEPLOYED").await;
        story.restart(MIGRATING).await;
        story.driver_reaches("PENDING").await;
    }
    story.an_hour_passes().await;
    story.driver_reaches("COMPLETE").await;
    story.is_led("the lock has moved").await;
    assert_eq!(story.moved().await, ["Leader", "Migration3.0", ROW]);
    assert!(coordinator_row(&story.fleet, "Migration3.0").await.is_none());

    // The operator deletes the old tables.
    for table in ["CoordinatorState", "WorkerMetricStats"] {
        let client = &story.fleet.load.rig.clients.dynamodb;
        client.delete_table().table_name(format!("{APPLICATION}-{table}")).send().await.unwrap();
    }
    story.fleet.stop(other).await;
    story.fleet.load.until_rows("the driver is alone", |rows| all_have(rows, &[driver])).await;
    story.start(other);
    story.is_led("without the old tables").await;
    story.fleet.all_seen_few_twice().await;
    story.fleet.stop_all().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_migrate_with_our_leader() {
    play("moved-ours", "ours-1", "java-1", true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_migrate_with_a_library_leader() {
    play("moved-java", "java-1", "ours-1", false).await;
}
