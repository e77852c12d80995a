//! docs/getting-started.md: its commands, run as they are printed. Those of Node, Go and the libraries run in
//! `tests/clients`.

use crate::terminal::*;

/// Every block of the page is run by a test here or in `tests/clients/getting_started.rs`.
#[test]
fn every_command_block_has_a_test() {
    let here = [
        "Run the example",
        "Write a properties file",
        "Python/Without a library",
        "Local mode/In CI",
        "A fleet on one machine",
        "A fleet on one machine",
        "A fleet on one machine",
    ];
    let beside_clients = [
        "Python/With amazon_kclpy",
        "Node/Without a library",
        "Node/With aws-kcl",
        "Go/Without a library",
        "Go/With amazon-kinesis-client-go",
    ];
    let mut known: Vec<&str> = here.iter().chain(&beside_clients).copied().collect();
    let found = blocks();
    let mut found: Vec<&str> = found.iter().map(|(place, _)| place.as_str()).collect();
    known.sort_unstable();
    found.sort_unstable();
    assert_eq!(found, known);
}

#[tokio::test(flavor = "multi_thread")]
async fn example_delivers_records() {
    let mut desk = Desk::new("page-example");
    let mut terminal = desk.start(&under("Run the example")[0]);
    terminal.until_delivered(1).await;
    assert_eq!(terminal.stop().await, Some(0), "{}", terminal.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_file_passes_the_check() {
    let mut desk = Desk::new("page-check");
    let mut terminal = desk.start(&under("Write a properties file")[0]);
    assert_eq!(terminal.end().await, Some(0), "{}", terminal.output());
    assert!(terminal.output().contains("order-reader"), "{}", terminal.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn python_processor_without_a_library_gets_all_records() {
    delivers_all(&mut Desk::new("page-python"), "Python/Without a library").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn run_in_ci_ends_with_0_when_done() {
    let mut desk = Desk::new("page-ci");
    let [block] = &under("Local mode/In CI")[..] else { panic!("one block") };
    let mut terminal = desk.start(block);
    assert_eq!(terminal.end().await, Some(0), "{}", terminal.output());
    assert!(terminal.output().contains("done: 20000 records put"), "{}", terminal.output());
}

#[tokio::test(flavor = "multi_thread")]
async fn second_worker_joins_the_fleet_on_one_machine() {
    let mut desk = Desk::new("page-fleet");
    let [first, second, leases] = &under("A fleet on one machine")[..] else { panic!("three terminals") };
    let mut first = desk.start(first);
    first.until_delivered(20_000).await;
    let mut second = desk.start(second);
    // The output of the record processor of examples/python.
    second.until("a record processor", |line| line.contains("starting after")).await;
    let mut leases = desk.start(leases);
    assert_eq!(leases.end().await, Some(0), "{}", leases.output());
    assert!(leases.output().contains("shardId-000000000007"), "{}", leases.output());
    assert_eq!(second.stop().await, Some(0), "{}", second.output());
    assert_eq!(first.stop().await, Some(0), "{}", first.output());
}
