//! Records at which every record processor fails go to the dead letters, one by one, and their shards continue.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use multilangd::letters::{Condition, Letter, list};
use multilangd::record::{Data, Record};
use multilangd::sequence::SequenceNumber;

use crate::life::aggregate;
use crate::parked::{parked, put_to, round, shard, worker};
use crate::rig::*;
use crate::status::{get, metric};

/// The maximum time from the put of a record to its delivery in a healthy shard.
const GAP: Duration = Duration::from_secs(2);

/// The letters in a folder.
fn letters(folder: &Path) -> Vec<Letter> {
    let mut paths: Vec<_> = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    let read = |path: &std::path::PathBuf| list::read(&std::fs::read(path).unwrap());
    paths.iter().flat_map(read).map(Result::unwrap).collect()
}

fn folder(rig: &Rig) -> std::path::PathBuf {
    let folder = rig.folder.join("letters");
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

/// The number of children that a shard had, by its reports.
fn starts(rig: &Rig, of: &str) -> usize {
    said(&rig.log, "initialize").iter().filter(|shard| **shard == of).count()
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_record_becomes_one_letter_while_shards_continue() {
    let mut rig = Rig::start("letters").await;
    rig.stream(8).await;
    let folder = folder(&rig);
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    let program = rig.scripted(&format!("each poison={}", rig.folder.join("fixed").display()));
    let more = format!(
        "failoverTimeMillis = 3000\ntaskBackoffTimeMillis = 50\nmultilangd.deadLetters = file:{}\n\
         multilangd.logFormat = json\n",
        folder.display()
    );
    let file = rig.properties(&program, &more);
    let mut workers = Vec::new();
    for name in ["one", "two", "three"] {
        workers.push(worker(&rig, name, &file).await);
    }
    round(&mut rig, &[0, 1, 2, 3, 4, 5, 6, 7]).await;

    let before = starts(&rig, &shard(1));
    let key = ((u128::MAX / 8) + 1_000).to_string();
    const RECORDS: usize = 40;
    let entries = (0..RECORDS).map(|n| {
        let data: &[u8] = if n == 17 { b"poison" } else { b"fine" };
        let entry = aws_sdk_kinesis::types::PutRecordsRequestEntry::builder();
        let entry = entry.partition_key("k").explicit_hash_key(&key);
        entry.data(aws_sdk_kinesis::primitives::Blob::new(data)).build().unwrap()
    });
    let put = rig.clients.kinesis.put_records().stream_name(STREAM).set_records(Some(entries.collect()));
    let put = put.send().await.unwrap();
    let numbers: Vec<_> = put.records().iter().map(|one| one.sequence_number().unwrap().to_owned()).collect();
    let mut largest = Duration::ZERO;
    while letters(&folder).is_empty() {
        largest = largest.max(round(&mut rig, &[0, 2, 3, 4, 5, 6, 7]).await);
    }
    largest = largest.max(round(&mut rig, &[0, 1, 2, 3, 4, 5, 6, 7]).await);
    eprintln!("largest gap of the healthy shards: {largest:?}");
    assert!(largest < GAP, "{largest:?}");

    let found = letters(&folder);
    assert_eq!(found.len(), 1, "{found:?}");
    let letter = &found[0];
    assert_eq!(
        (letter.record.sequence.as_str(), letter.lease.shard().as_str()),
        (numbers[17].as_str(), &*shard(1))
    );
    assert_eq!(letter.record.data.as_str(), "cG9pc29u");
    assert_eq!((letter.attempts, letter.last_error()), (3, "ValueError: cannot parse poison"));
    assert!(letter.stream.as_ref().is_some_and(|arn| arn.ends_with(STREAM)));
    let restarts = starts(&rig, &shard(1)) - before;
    let most = usize::try_from(RECORDS.next_power_of_two().ilog2()).unwrap() + 3;
    eprintln!("restarts of the shard's record processor: {restarts}, at most {most}");
    assert!(restarts <= most, "{restarts}");
    let seen: BTreeSet<_> =
        records(&rig.log)[&shard(1)].iter().map(|record| record.sequence.clone()).collect();
    assert!(numbers.iter().all(|number| seen.contains(number)), "nothing else is skipped");
    assert!(parked(&workers).await.is_empty());
    let mut written = 0.0;
    for worker in &workers {
        let text = get(&worker.address, "/metrics").await;
        let of_shard = format!("multilangd_dead_letters_total{{shard=\"{}\"}} ", shard(1));
        written += if text.contains(&of_shard) { metric(&text, &of_shard) } else { 0.0 };
    }
    assert!((written - 1.0).abs() < 0.1, "{written}");
    for worker in &mut workers {
        assert_eq!(worker.daemon.stop().await, Some(0));
    }
    // Another program processes the record.
    put_to(&rig, 1, b"fine").await;
}

/// A daemon on one shard with dead letters in `folder` and further settings.
fn daemon(rig: &Rig, behaviour: &str, destination: &str, more: &str) -> Daemon {
    let text = format!("taskBackoffTimeMillis = 20\nmultilangd.deadLetters = {destination}\n{more}");
    rig.daemon(&rig.properties(&rig.scripted(behaviour), &text))
}

fn data(all: &[Letter]) -> Vec<&str> {
    all.iter().map(|letter| letter.record.data.as_str()).collect()
}

/// The number of records after the last of which a shard is checkpointed.
async fn until_checkpointed(rig: &Rig, position: &str) {
    let wait = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        loop {
            looks.tick().await;
            if rig.rows().await.values().any(|row| row["checkpoint"].as_s().unwrap() == position) {
                return;
            }
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap_or_else(|_| panic!("{}", rig.daemon_log()));
}

#[tokio::test(flavor = "multi_thread")]
async fn swallowed_exception_is_a_failure_with_child_error_line() {
    let mut rig = Rig::start("swallowed").await;
    rig.stream(1).await;
    let folder = folder(&rig);
    let destination = format!("file:{}", folder.display());
    let mut all = vec![];
    for n in 0..30 {
        let data: &[u8] = if n % 10 == 3 { b"poison" } else { b"fine" };
        all.push(("k".to_owned(), data.to_vec()));
    }
    rig.put(&all).await;
    let mut daemon = daemon(&rig, "each swallows", &destination, "multilangd.childErrorLine = kclpy\n");
    rig.until("all records", |log| count(log) >= 30).await;
    let last = records(&rig.log)[&shard(0)].iter().map(|record| record.sequence.clone()).max().unwrap();
    until_checkpointed(&rig, &last).await;
    assert_eq!(daemon.stop().await, Some(0));
    let found = letters(&folder);
    assert_eq!(data(&found), ["cG9pc29u"; 3]);
    assert!(found[0].failures.iter().all(|failure| failure.reason.contains("childErrorLine")));
    assert_eq!(found[0].last_error(), "ValueError: cannot parse poison");
}

#[tokio::test(flavor = "multi_thread")]
async fn letter_in_a_stream_is_printed_by_tail_and_listed() {
    const LETTERS: &str = "bad-records";
    let mut rig = Rig::start("letter-stream").await;
    rig.stream(1).await;
    rig.put(&["fine", "poison", "last"].map(|data| ("k".to_owned(), data.as_bytes().to_vec()))).await;
    let behaviour = format!("each poison={}", rig.folder.join("fixed").display());
    let mut daemon = daemon(&rig, &behaviour, &format!("kinesis:{LETTERS}"), "multilangd.logFormat = json\n");
    // The stream of letters does not exist yet: the shard waits.
    rig.logged("dead_letter_failed").await;
    rig.clients.kinesis.create_stream().stream_name(LETTERS).shard_count(1).send().await.unwrap();
    rig.until("the record after it", |log| {
        records(log).get(&shard(0)).is_some_and(|seen| seen.iter().any(|seen| seen.data == b"last"))
    })
    .await;
    let last = records(&rig.log)[&shard(0)].iter().map(|record| record.sequence.clone()).max().unwrap();
    until_checkpointed(&rig, &last).await;
    assert_eq!(daemon.stop().await, Some(0));

    let file = rig.properties("none", "").display().to_string();
    let stream = format!("streamName={LETTERS}");
    let mut tail = rig.command(&["tail", &file, "--set", &stream, "--from", "TRIM_HORIZON", "--no-follow"]);
    assert_eq!(tail.ended().await.code(), Some(0), "{}", rig.daemon_log());
    let printed = rig.folder.join("printed.jsonl");
    std::fs::write(&printed, tail.printed.join("\n")).unwrap();
    let found: Vec<_> =
        list::read(&std::fs::read(&printed).unwrap()).into_iter().map(Result::unwrap).collect();
    assert_eq!((data(&found), found[0].record.partition_key.as_str()), (vec!["cG9pc29u"], "k"));
    let mut listed = rig.command(&["letters", printed.to_str().unwrap()]);
    assert_eq!(listed.ended().await.code(), Some(0), "{}", rig.daemon_log());
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_user_record_leaves_its_aggregate_alone() {
    let rig = Rig::start("bad-user-record").await;
    rig.stream(1).await;
    let out = rig.folder.join("letters.jsonl");
    rig.put(&[("outer".to_owned(), aggregate(&["a", "poison", "c", "d", "e"]))]).await;
    let behaviour = format!("each poison={}", rig.folder.join("fixed").display());
    let mut rig = rig;
    let mut daemon = daemon(&rig, &behaviour, &format!("exec:tee -a {}", out.display()), "");
    rig.until("the last user record", |log| {
        records(log).get(&shard(0)).and_then(|seen| seen.last()).is_some_and(|seen| seen.data == b"e")
            && said(log, "checkpointed").len() > 1
            && std::fs::exists(&out).unwrap()
    })
    .await;
    let outer = records(&rig.log)[&shard(0)][0].sequence.clone();
    until_checkpointed(&rig, &outer).await;
    assert_eq!(daemon.stop().await, Some(0));
    let found: Vec<_> = list::read(&std::fs::read(&out).unwrap()).into_iter().map(Result::unwrap).collect();
    assert_eq!(data(&found), ["cG9pc29u"]);
    assert_eq!((found[0].record.sequence.as_str(), found[0].record.sub), (outer.as_str(), 1));
    let seen: BTreeSet<_> = records(&rig.log)[&shard(0)].iter().map(|record| record.sub).collect();
    assert_eq!(seen, (0..5).collect());
    let row = rig.rows().await.remove(&shard(0)).unwrap();
    assert_eq!(row["checkpointSubSequenceNumber"].as_n().unwrap(), "4", "Java resumes after the aggregate");
}

#[tokio::test(flavor = "multi_thread")]
async fn outage_of_a_database_parks_the_shard() {
    let mut rig = Rig::start("outage").await;
    rig.stream(1).await;
    let folder = folder(&rig);
    let fixed = rig.folder.join("fixed");
    let all: Vec<_> = (0..12).map(|_| ("k".to_owned(), b"poison".to_vec())).collect();
    rig.put(&all).await;
    let more = "multilangd.maxDeadLettersInARow = 2\nmultilangd.maxParkedPauseMillis = 200\n\
                multilangd.maxRecordFailures = 2\n";
    let behaviour = format!("each poison={}", fixed.display());
    let mut daemon = daemon(&rig, &behaviour, &format!("file:{}", folder.display()), more);
    rig.logged("shard_parked").await;
    assert_eq!(letters(&folder).len(), 2);
    std::fs::write(&fixed, "").unwrap();
    rig.logged("shard_resumed").await;
    rig.until("a checkpoint of the last record", |log| {
        let seen = records(log).remove(&shard(0)).unwrap_or_default();
        seen.iter().map(|record| record.sequence.clone()).collect::<BTreeSet<_>>().len() == 12
    })
    .await;
    let last = records(&rig.log)[&shard(0)].last().unwrap().sequence.clone();
    until_checkpointed(&rig, &last).await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(letters(&folder).len(), 2, "the outage wrote no more");
}

#[tokio::test(flavor = "multi_thread")]
async fn shard_waits_until_its_destination_accepts_the_letter() {
    let mut rig = Rig::start("rejected").await;
    rig.stream(1).await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    let script = rig.folder.join("queue");
    std::fs::write(
        &script,
        format!("#!/bin/sh\ncp {0}/open {0}/accepted && exec cat >>{0}/accepted\n", rig.folder.display()),
    )
    .unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    rig.put(&[("k".to_owned(), b"poison".to_vec()), ("k".to_owned(), b"fine".to_vec())]).await;
    let behaviour = format!("each poison={}", rig.folder.join("fixed").display());
    let mut daemon = daemon(&rig, &behaviour, &format!("exec:{}", script.display()), "");
    rig.logged("dead_letter_failed").await;
    let address = rig.status_address().await;
    crate::status::until(&address, "a stuck shard", |status| {
        let shard = &status["shards"][0];
        shard["state"] == "stuck" && shard["reason"].as_str().is_some_and(|why| why.contains("dead letter"))
    })
    .await;
    assert!(!records(&rig.log).contains_key("fine"));
    std::fs::write(rig.folder.join("open"), "").unwrap();
    rig.until("the next record", |log| {
        let seen = records(log).remove(&shard(0)).unwrap_or_default();
        seen.last().is_some_and(|record| record.data == b"fine") && !said(log, "checkpointed").is_empty()
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(list::read(&std::fs::read(rig.folder.join("accepted")).unwrap()).len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn replay_writes_answered_records_again_unless_they_were_checkpointed() {
    for (behaviour, printed, again) in
        [("end", "1 processed, 3 failed", vec!["1", "2", "3"]), ("each", "3 processed, 1 failed", vec!["3"])]
    {
        let rig = Rig::start(&format!("replay-{behaviour}")).await;
        let folder = folder(&rig);
        let letter = |number: usize| Letter {
            condition: Condition::RetryAttemptsExhausted,
            at: 1,
            lease: shard(0).as_str().into(),
            stream: None,
            application: "app".to_owned(),
            worker: "w".to_owned(),
            program: "p".to_owned(),
            record: Record {
                sequence: SequenceNumber::parse(&number.to_string()).unwrap(),
                sub: 0,
                partition_key: "k".into(),
                data: Data::encode(if number == 3 { b"poison" } else { b"fine" }),
                arrival: None,
            },
            attempts: 3,
            failures: Vec::new(),
        };
        let path = folder.join("letters.jsonl");
        std::fs::write(&path, (1..=4).flat_map(|number| letter(number).line()).collect::<Vec<u8>>()).unwrap();
        let program = rig.scripted(&format!("{behaviour} poison={}", rig.folder.join("fixed").display()));
        let file = rig.properties(&program, "").display().to_string();
        let mut replayed = rig.command(&["replay", &file, &path.display().to_string()]);
        assert_eq!(replayed.ended().await.code(), Some(1), "{:?}", replayed.printed);
        assert!(replayed.printed.iter().any(|line| line.contains(printed)), "{:?}", replayed.printed);
        let found = list::read(&std::fs::read(folder.join("letters.failed-1.jsonl")).unwrap());
        let found: Vec<_> = found.into_iter().map(|letter| letter.unwrap().record.sequence).collect();
        assert_eq!(found.iter().map(SequenceNumber::as_str).collect::<Vec<_>>(), again);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn letters_are_listed_and_replayed() {
    let mut rig = Rig::start("replay").await;
    rig.stream(1).await;
    let folder = folder(&rig);
    let mut all = vec![("k".to_owned(), b"fine".to_vec()); 4];
    (all[1].1, all[3].1) = (b"poison".to_vec(), b"poison".to_vec());
    rig.put(&all).await;
    let fixed = rig.folder.join("fixed");
    let behaviour = format!("each poison={}", fixed.display());
    let mut first = daemon(&rig, &behaviour, &format!("file:{}", folder.display()), "");
    let wait = async {
        let mut looks = tokio::time::interval(Duration::from_millis(20));
        while letters(&folder).len() < 2 {
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, wait).await.unwrap();
    assert_eq!(first.stop().await, Some(0));
    let file = rig.folder.join("daemon.properties").display().to_string();
    let path = std::fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path().display().to_string();

    for of in [&file, &path] {
        let mut listed = rig.command(&["letters", of]);
        assert_eq!(listed.ended().await.code(), Some(0));
        assert_eq!(listed.printed.len(), 3, "{:?}", listed.printed);
        assert!(listed.printed[0].contains("shardId-000000000000"), "{:?}", listed.printed);
        assert!(listed.printed[0].ends_with("ValueError: cannot parse poison"), "{:?}", listed.printed);
    }
    // The program still fails: the letters go to a new file.
    let before = rig.log.len();
    let mut failed = rig.command(&["replay", &file, &path]);
    assert_eq!(failed.ended().await.code(), Some(1));
    let again = path.replace(".jsonl", ".failed-1.jsonl");
    let found = list::read(&std::fs::read(&again).unwrap());
    assert_eq!(found.iter().map(|letter| letter.as_ref().unwrap().attempts).collect::<Vec<_>>(), [4, 4]);

    std::fs::write(&fixed, "").unwrap();
    let mut replayed = rig.command(&["replay", &file, &again]);
    assert_eq!(replayed.ended().await.code(), Some(0), "{:?}", replayed.printed);
    assert_eq!(replayed.printed.last().unwrap(), "2 processed, 0 failed");
    rig.until("both records and a shutdown", |log| {
        said(&log[before..], "shutdownRequested").len() == 1
            && said(&log[before..], "checkpointed").len() >= 2
    })
    .await;
    let row = rig.rows().await.remove(&shard(0)).unwrap();
    assert!(!row.contains_key("leaseOwner"), "no lease was acquired: {row:?}");
}
