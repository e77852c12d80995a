//! A damaged data folder of `multilangd local`: one message names the file, there is no panic, and nothing is
//! changed or silently dropped.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::rig::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy(&entry.path(), &target);
        } else {
            std::fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Every file of a folder with its content, except the lock file, which is empty.
fn contents(folder: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let (mut found, mut left) = (BTreeMap::new(), vec![folder.to_owned()]);
    while let Some(path) = left.pop() {
        if path.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        } else if !path.ends_with("lock") && !path.to_string_lossy().ends_with("-shm") {
            let content = std::fs::read(&path).unwrap();
            found.insert(path, content);
        }
    }
    found
}

type Harm = fn(&Path, Vec<u8>);

fn write(path: &Path, content: &[u8]) {
    std::fs::write(path, content).unwrap();
}

/// Cuts off the last of the file's frames: the remaining file is valid in itself.
fn cut_a_frame(path: &Path, content: Vec<u8>) {
    let mut end = 8;
    let mut last = end;
    while end < content.len() {
        last = end;
        let length = u32::from_le_bytes(content[end..end + 4].try_into().unwrap());
        end += 16 + usize::try_from(length).unwrap();
    }
    write(path, &content[..last]);
}

#[tokio::test(flavor = "multi_thread")]
async fn damaged_file_is_named_and_left_unchanged() {
    let rig = Rig::start("damage").await;
    let whole = rig.folder.join("whole");
    let run = |data: &Path| {
        let data = data.to_str().unwrap();
        rig.command(&[
            "local",
            "--kinesis-port",
            "0",
            "--dynamodb-port",
            "0",
            "--shards",
            "1",
            "--data",
            data,
        ])
    };
    let mut daemon = run(&whole);
    daemon.until(has_progress).await;
    assert_eq!(daemon.stop().await, Some(0));

    let files: Vec<String> = contents(&whole)
        .keys()
        .map(|path| path.strip_prefix(&whole).unwrap().to_str().unwrap().to_owned())
        .collect();
    let log = files.iter().find(|file| file.contains("shardId-")).unwrap();
    assert_eq!(files.len(), 4, "{files:?}");
    let harms: [(&str, Harm); 8] = [
        ("emptied", |path, _| write(path, b"")),
        ("removed", |path, _| std::fs::remove_file(path).unwrap()),
        ("cut in the middle", |path, content| write(path, &content[..content.len() / 2])),
        ("cut by a byte", |path, content| write(path, &content[..content.len() - 1])),
        ("cut between frames", cut_a_frame),
        ("overwritten", |path, content| write(path, &vec![0x5a; content.len()])),
        ("overwritten in the middle", |path, mut content| {
            // The beginning of a page of SQLite, if the file has one.
            let middle = content.len() / 2;
            let middle = if middle > 4096 { middle / 4096 * 4096 } else { middle };
            let end = content.len().min(middle + 512);
            content[middle..end].fill(0xa5);
            write(path, &content);
        }),
        ("replaced by a folder", |path, _| {
            std::fs::remove_file(path).unwrap();
            std::fs::create_dir(path).unwrap();
        }),
    ];
    let mut number = 0;
    for file in ["kinesis/journal.log", log.as_str(), "dynamodb.sqlite", "kinesis/closed"] {
        for (what, harm) in harms {
            let is_left_out = match file {
                // The next test covers these cases.
                "dynamodb.sqlite" => ["removed", "cut between frames"].contains(&what),
                // A killed run does not leave this file.
                "kinesis/closed" => ["removed", "cut between frames"].contains(&what),
                _ => false,
            };
            if is_left_out {
                continue;
            }
            number += 1;
            let data = rig.folder.join(format!("data-{number}"));
            copy(&whole, &data);
            let path = data.join(file);
            let content = std::fs::read(&path).unwrap();
            harm(&path, content);
            let before = contents(&data);
            std::fs::remove_file(rig.folder.join("stderr.log")).unwrap();
            let mut daemon = run(&data);
            let code = daemon.ended().await.code();
            let said = std::fs::read_to_string(&daemon.stderr).unwrap();
            let case = format!("{file} {what}");
            assert_eq!(code, Some(66), "{case}: {said}");
            assert!(said.contains(path.to_str().unwrap()), "{case}: {said}");
            assert!(said.contains("--data") && !said.contains("panicked"), "{case}: {said}");
            let now = contents(&data);
            let paths = |files: &BTreeMap<PathBuf, Vec<u8>>| files.keys().cloned().collect::<Vec<_>>();
            assert_eq!(paths(&now), paths(&before), "{case}");
            let changed = before.iter().find(|(path, content)| now[*path] != **content);
            assert!(changed.is_none(), "{case}: {:?} was changed", changed.unwrap().0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn streams_without_tables_are_read_again_with_a_warning() {
    let rig = Rig::start("no-tables").await;
    let data = rig.folder.join("data");
    let arguments =
        ["local", "--kinesis-port", "0", "--dynamodb-port", "0", "--data", data.to_str().unwrap()];
    for expected in [0, 1] {
        let mut daemon = rig.command(&arguments);
        daemon.until(has_progress).await;
        assert_eq!(daemon.stop().await, Some(0));
        let tables = data.join("dynamodb.sqlite");
        let warnings = logged(&daemon.stderr, "tables_missing");
        let warnings = warnings.iter().filter(|line| line["file"] == tables.to_str().unwrap());
        assert_eq!(warnings.count(), expected, "{}", rig.daemon_log());
        std::fs::remove_file(tables).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_a_killed_run_is_used() {
    let rig = Rig::start("killed-data").await;
    let data = rig.folder.join("data");
    let arguments =
        ["local", "--kinesis-port", "0", "--dynamodb-port", "0", "--data", data.to_str().unwrap()];
    let mut daemon = rig.command(&arguments);
    daemon.until(has_progress).await;
    daemon.signal(rustix::process::Signal::KILL);
    daemon.ended().await;
    let mut daemon = rig.command(&arguments);
    daemon.until(has_progress).await;
    assert_eq!(daemon.stop().await, Some(0));
}
