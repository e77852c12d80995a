//! Our worker starts while Java 3.1.3 creates the tables of a new application: it uses Java's table layout rather
//! than a single table, which would shut Java out.

use std::time::Duration;

use tokio::time::{interval, timeout};

use crate::fleet::{Fleet, SOON, all_have};
use crate::java::JAVA_3_LED;
use crate::load::{Load, Rows};
use crate::rig::{APPLICATION, LIMIT};

/// The tables of the application, without the lease table.
async fn other_tables(fleet: &Fleet) -> usize {
    let tables = fleet.load.rig.clients.dynamodb.list_tables().send().await.unwrap();
    tables.table_names().iter().filter(|name| name.starts_with(APPLICATION) && *name != APPLICATION).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn layout_of_a_table_that_java_3_is_creating_is_kept() {
    let _turn = crate::turn(1).await;
    let mut load = Load::start("begun", 4).await;
    load.feed();
    let mut fleet = Fleet::new(load, JAVA_3_LED, SOON);
    fleet.java("java-1");
    let lease_table = async {
        let mut looks = interval(Duration::from_millis(10));
        loop {
            looks.tick().await;
            let described = fleet.load.rig.clients.dynamodb.describe_table().table_name(APPLICATION);
            if described.send().await.is_ok() {
                return;
            }
        }
    };
    timeout(LIMIT, lease_table).await.expect("Java creates the lease table");
    let others = other_tables(&fleet).await;
    fleet.ours("ours-1");
    assert_eq!(others, 0, "our worker starts before Java has created the other tables");
    let both = |rows: &Rows| rows.len() == 4 && all_have(rows, &["java-1", "ours-1"]);
    fleet.load.until_rows("both own leases", both).await;
    assert_eq!(other_tables(&fleet).await, 2, "Java's layout has three tables");
    fleet.load.all_seen().await;
    fleet.stop_all().await;
}
