//! `streamArn` of another account: refused, unless calls name the stream by its ARN.

use multilangd::local::kinesis::Options;

use crate::rig::*;

const OWN: &str = "111122223333";
const OTHER: &str = "444455556666";

fn arn(region: &str, account: &str) -> String {
    format!("streamArn = arn:aws:kinesis:{region}:{account}:stream/{STREAM}\n")
}

async fn rig(name: &str) -> Rig {
    let rig = Rig::with(name, Options { account: OWN.to_owned(), ..Options::default() }).await;
    rig.stream(2).await;
    rig
}

#[tokio::test(flavor = "multi_thread")]
async fn namesake_of_another_account_or_region_is_refused_untouched() {
    let rig = rig("namesake").await;
    for arn in [arn("us-east-1", OTHER), arn("eu-west-1", OWN)] {
        let mut daemon = rig.daemon(&rig.properties(&rig.scripted("each"), &arn));
        assert_eq!(daemon.ended().await.code(), Some(78), "{}", rig.daemon_log());
        let log = rig.daemon_log();
        let named = ["multilangd.useStreamArn", OWN, arn.trim().split_once(" = ").unwrap().1];
        assert!(named.iter().all(|part| log.contains(part)), "{log}");
    }
    assert!(rig.all_rows().await.is_empty(), "no row was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn stream_is_read_by_its_arn() {
    for mode in ["POLLING", "FANOUT"] {
        let mut rig = rig("by-arn").await;
        rig.put(&[("a".to_owned(), b"1".to_vec()), ("b".to_owned(), b"2".to_vec())]).await;
        let more =
            format!("multilangd.useStreamArn = true\nretrievalMode = {mode}\n{}", arn("us-east-1", OWN));
        let mut daemon = rig.daemon(&rig.properties(&rig.scripted("each"), &more));
        rig.until("both records", |log| count(log) == 2).await;
        assert_eq!(daemon.stop().await, Some(0));
    }
}

/// The endpoint knows no stream of the other account, although it has one of that name: each call had the ARN.
#[tokio::test(flavor = "multi_thread")]
async fn arn_of_another_account_reaches_no_namesake() {
    let rig = rig("by-arn-only").await;
    let more = format!("multilangd.useStreamArn = true\n{}", arn("us-east-1", OTHER));
    let mut daemon = rig.daemon(&rig.properties(&rig.scripted("each"), &more));
    rig.logged_where("start_failed", |line| {
        line["error"].as_str().is_some_and(|error| error.contains(STREAM))
    })
    .await;
    daemon.signal(rustix::process::Signal::KILL);
    daemon.ended().await;
    assert!(rig.all_rows().await.is_empty(), "no row was written");
}

#[tokio::test(flavor = "multi_thread")]
async fn tail_and_put_use_the_arn_or_refuse_the_namesake() {
    let rig = rig("tail-by-arn").await;
    let lines = rig.folder.join("lines");
    std::fs::write(&lines, "a\nb\n").unwrap();
    let lines = lines.to_str().unwrap();
    for (account, used, code) in [(OTHER, false, 78), (OWN, true, 0)] {
        let more = format!("multilangd.useStreamArn = {used}\n{}", arn("us-east-1", account));
        let file = rig.properties("none", &more);
        let file = file.to_str().unwrap();
        let put = rig.command(&["put", file, lines]).ended().await.code();
        let tail = rig.command(&["tail", file, "--no-follow"]).ended().await.code();
        assert_eq!((put, tail), (Some(code), Some(code)), "{}", rig.daemon_log());
    }
}
