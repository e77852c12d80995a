//! The data folder: state that persists across runs.

use std::path::PathBuf;
use std::process::Stdio;

use aws_sdk_kinesis::types::ShardIteratorType;
use multilangd::local::kinesis::{DataError, Error, Kinesis, Options};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Command;
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Failure, Outcome, ensure_eq, ours, some, texts};

const FIRST: &str = "shardId-000000000000";

/// A temporary folder, removed on drop.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let name = format!("multilangd-contract-{}-{:x}", std::process::id(), fastrand::u64(..));
        Self(std::env::temp_dir().join(name))
    }

    fn options(&self) -> Options {
        Options { data: Some(self.0.clone()), ..Options::default() }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        std::fs::remove_dir_all(&self.0).unwrap_or_default();
    }
}

/// Runs a test body against an endpoint on the folder, then stops the endpoint.
async fn run(folder: &Folder, body: impl AsyncFnOnce(&Endpoint) -> Outcome) {
    let kinesis = ours(folder.options()).await;
    let outcome = body(&Endpoint::of(&kinesis)).await;
    kinesis.stop().await;
    if let Err(Failure(why)) = outcome {
        panic!("{why}");
    }
}

#[tokio::test]
async fn streams_records_consumers_and_iterators_survive_a_restart() {
    let folder = Folder::new();
    let (mut name, mut iterator, mut shards, mut consumer) =
        (String::new(), String::new(), Vec::new(), String::new());
    run(&folder, async |at| {
        name = at.stream(1).await?;
        at.put(&name, "one").await?;
        iterator = at.iterator(&name, FIRST, ShardIteratorType::TrimHorizon).await?;
        let answer = at.client.get_records().shard_iterator(&iterator).send().await?;
        iterator = some(answer.next_shard_iterator, "the next iterator")?;
        at.put(&name, "two").await?;
        at.split(&name, FIRST, "1000").await?;
        at.put_with_hash_key(&name, "0", "low").await?;
        at.put_with_hash_key(&name, "1000", "high").await?;
        let increase = at.client.increase_stream_retention_period().stream_name(&name);
        increase.retention_period_hours(30).send().await?;
        consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let gone = at.stream(1).await?;
        at.client.delete_stream().stream_name(&gone).send().await?;
        shards = at.shards(&name).await?;
        Ok(())
    })
    .await;
    run(&folder, async |at| {
        ensure_eq!(at.shards(&name).await?, shards);
        let answer = at.client.get_records().shard_iterator(&iterator).send().await?;
        ensure_eq!(texts(&answer.records), ["two"]);
        ensure_eq!(answer.child_shards.unwrap_or_default().len(), 2);
        ensure_eq!(texts(&at.read_all(&name, "shardId-000000000001").await?), ["low"]);
        let listed = at.client.list_streams().send().await?;
        ensure_eq!(listed.stream_names, [name.clone()]);
        at.client.describe_stream_consumer().consumer_arn(&consumer).send().await?;
        let answer = at.client.describe_stream_summary().stream_name(&name).send().await?;
        let summary = some(answer.stream_description_summary, "the summary")?;
        ensure_eq!(summary.retention_period_hours, 30);
        at.put_with_hash_key(&name, "1000", "higher").await?;
        ensure_eq!(texts(&at.read_all(&name, "shardId-000000000002").await?), ["high", "higher"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn data_folder_in_use_stops_a_second_endpoint() {
    let folder = Folder::new();
    let first = ours(folder.options()).await;
    let error = Kinesis::start(folder.options()).await.unwrap_err();
    assert!(matches!(error, Error::Data(DataError::InUse { .. })), "{error}");
    first.stop().await;
    ours(folder.options()).await.stop().await;
}

#[tokio::test]
async fn damaged_file_stops_the_start_and_is_named() {
    let folder = Folder::new();
    run(&folder, async |at| at.stream(1).await.map(|_| ())).await;
    let journal = folder.0.join("journal.log");
    let mut content = std::fs::read(&journal).unwrap();
    content[30] ^= 1;
    std::fs::write(&journal, content).unwrap();
    let error = Kinesis::start(folder.options()).await.unwrap_err();
    assert!(matches!(error, Error::Data(DataError::Damaged { .. })), "{error}");
    assert!(error.to_string().contains("journal.log is damaged at byte 8"), "{error}");
}

#[tokio::test]
async fn truncated_journal_is_damage_after_a_killed_run() {
    let folder = Folder::new();
    let journal = folder.0.join("journal.log");
    let kinesis = ours(folder.options()).await;
    let at = Endpoint::of(&kinesis);
    let name = at.stream(1).await.unwrap();
    at.put(&name, "one").await.unwrap();
    let with_a_stream = std::fs::read(&journal).unwrap();
    at.split(&name, FIRST, "1000").await.unwrap();
    at.put_with_hash_key(&name, "1000", "high").await.unwrap();
    let with_children = std::fs::read(&journal).unwrap();
    let other = at.stream(1).await.unwrap();
    at.put(&other, "two").await.unwrap();
    kinesis.stop().await;
    // A killed run does not record the length of its files.
    std::fs::remove_file(folder.0.join("closed")).unwrap();
    let whole = std::fs::read(&journal).unwrap();
    for (content, missing) in
        [(&b""[..], name.as_str()), (&with_a_stream, "shardId-000000000002"), (&with_children, &other)]
    {
        std::fs::write(&journal, content).unwrap();
        let error = Kinesis::start(folder.options()).await.unwrap_err();
        assert!(matches!(error, Error::Data(DataError::Damaged { .. })), "{error}");
        let said = error.to_string();
        assert!(said.contains("journal.log is damaged") && said.contains(missing), "{missing}: {said}");
    }
    std::fs::write(&journal, whole).unwrap();
    ours(folder.options()).await.stop().await;
}

const WRITERS: usize = 4;

/// The endpoint is that of `multilangd local`, in a process that is killed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_records_survive_a_kill_of_the_process() {
    let folder = Folder::new();
    let mut local = Command::new(env!("CARGO_BIN_EXE_multilangd"))
        .args(["local", "--kinesis-port", "0", "--dynamodb-port", "0", "--status", "off", "--data"])
        .arg(&folder.0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(local.stdout.take().unwrap()).lines();
    let url = loop {
        let line = lines.next_line().await.unwrap().expect("the endpoint does not start");
        // The first address is that of Kinesis.
        if let Some((_, rest)) = line.split_once("http://") {
            break format!("http://{}", rest.split(',').next().unwrap());
        }
    };
    let at = Endpoint::new(&url);
    let name = at.stream(2).await.unwrap();
    let (progress, mut count) = tokio::sync::mpsc::unbounded_channel();
    let mut writers = JoinSet::new();
    for writer in 0..WRITERS {
        let (at, name, progress) = (at.clone(), name.clone(), progress.clone());
        writers.spawn(async move {
            let mut acknowledged = Vec::new();
            // Writes until the endpoint is killed.
            loop {
                let data = format!("{writer}:{}:{}", acknowledged.len(), "x".repeat(20_000));
                let Ok(number) = at.put(&name, &data).await else {
                    return acknowledged;
                };
                acknowledged.push((number, data));
                progress.send(()).unwrap_or_default();
            }
        });
    }
    for _ in 0..500 {
        count.recv().await.unwrap();
    }
    local.kill().await.unwrap();
    let acknowledged: Vec<_> = writers.join_all().await.into_iter().flatten().collect();
    assert!(acknowledged.len() >= 500, "{}", acknowledged.len());
    let folder = Folder(folder.0.join("kinesis"));
    run(&folder, async |at| {
        let mut kept = std::collections::BTreeMap::new();
        for shard in at.shards(&name).await? {
            for record in at.read_all(&name, &shard.shard_id).await? {
                kept.insert(record.sequence_number.clone(), crate::endpoint::text(&record));
            }
        }
        for (number, data) in &acknowledged {
            crate::endpoint::ensure!(kept.get(number) == Some(data), "{number} is lost or altered");
        }
        // Each writer can have at most one put that was executed but not acknowledged.
        crate::endpoint::ensure!(kept.len() <= acknowledged.len() + WRITERS, "{} kept", kept.len());
        Ok(())
    })
    .await;
}
