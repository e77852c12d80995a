//! Messages that a child sends while no action is open are kept in order and processed in the next action, as
//! in Java; only a status among them is dropped.

use base64::Engine as _;

use super::scene::{Scene, of_kind, shard};
use crate::rig::Report;

fn say(text: &str) -> String {
    format!("say:{}", base64::engine::general_purpose::STANDARD.encode(text))
}

/// Clever's Go client checkpoints after its status line. The answer follows with the next action.
#[tokio::test(flavor = "multi_thread")]
async fn late_checkpoint_is_processed_with_the_next_action() {
    let run = Scene::new("late", 2).await.plan(0, "idle", "late").play().await;
    run.assert_sound();
    assert_eq!(run.failures(), []);
    let of_shard = |report: &&Report| matches!(report, Report::Said { shard: of, .. } if *of == shard(0));
    let said: Vec<&str> = run
        .log
        .iter()
        .filter(of_shard)
        .map(|report| match report {
            Report::Said { what, .. } => what.as_str(),
            Report::Gone { .. } => "",
        })
        .collect();
    let at = said.iter().position(|what| *what == "fault").unwrap();
    assert_eq!(said[at + 1..at + 3], ["processRecords", "answered"], "{said:?}");
    let (_, _, answer) = of_kind(&run.log, "answered").next().unwrap();
    assert!(answer["error"].is_null() && answer["sequenceNumber"].is_string(), "{answer}");
}

/// In Java it would complete the next batch before the child has read it, and so on for every later batch.
#[tokio::test(flavor = "multi_thread")]
async fn superfluous_status_is_dropped() {
    let twice = say("{\"action\":\"status\",\"responseFor\":\"processRecords\"}\n");
    let run = Scene::new("twice", 2).await.plan(0, "idle", twice).play().await;
    run.assert_sound();
    assert_eq!(run.failures(), []);
    let ignored = run.lines.iter().filter(|line| line["response_for"] == "processRecords");
    assert_eq!(ignored.count(), 1, "{}", run.text());
}
