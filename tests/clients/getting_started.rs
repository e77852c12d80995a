//! docs/getting-started.md: the commands that need Node, Go or a library, run as they are printed.

use std::os::unix::fs::symlink;
use std::path::Path;

use crate::client::{fetched, part};
use crate::terminal::*;

#[tokio::test(flavor = "multi_thread")]
async fn page_amazon_kclpy() {
    let mut desk = Desk::new("page-kclpy");
    // As `tar -xzf` leaves it.
    symlink(part("amazon_kclpy-3.2.0"), desk.folder.join("amazon_kclpy-3.2.0")).unwrap();
    delivers_all(&mut desk, "Python/With amazon_kclpy").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_node_without_a_library() {
    delivers_all(&mut Desk::new("page-node"), "Node/Without a library").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_aws_kcl() {
    let mut desk = Desk::new("page-aws-kcl");
    // As `npm install` leaves it.
    symlink(part("aws-kcl-2.3.2").join("node_modules"), desk.folder.join("node_modules")).unwrap();
    delivers_all(&mut desk, "Node/With aws-kcl").await;
}

/// Go where `get.sh` finds it.
fn with_go(name: &str) -> Desk {
    let mut desk = Desk::new(name);
    desk.search(Path::new("/usr/local/go/bin"));
    desk.search(&fetched().join("venv/bin"));
    desk
}

#[tokio::test(flavor = "multi_thread")]
async fn page_go_without_a_library() {
    delivers_all(&mut with_go("page-go"), "Go/Without a library").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn page_amazon_kinesis_client_go() {
    delivers_all(&mut with_go("page-clever-go"), "Go/With amazon-kinesis-client-go").await;
}
