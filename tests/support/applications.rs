//! Several applications in one process: their files, their records, and the gaps between deliveries.

#![allow(dead_code, reason = "each test binary uses a part")]

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use aws_sdk_kinesis::primitives::Blob;
use serde_json::Value;
use tokio::time::{Instant, timeout};

use crate::rig::*;

/// Writes the file of an application into the folder `apps`. Its stream has its name.
pub fn write(rig: &Rig, application: &str, child: &str, more: &str) -> PathBuf {
    let folder = rig.folder.join("apps");
    std::fs::create_dir_all(&folder).unwrap();
    let text = std::fs::read_to_string(rig.properties(child, more)).unwrap();
    let text = text.replace(&format!("streamName = {STREAM}\n"), &format!("streamName = {application}\n"));
    let text = text.replace(
        &format!("applicationName = {APPLICATION}\n"),
        &format!("applicationName = {application}\n"),
    );
    let path = folder.join(format!("{application}.properties"));
    std::fs::write(&path, text).unwrap();
    path
}

pub async fn create(rig: &Rig, stream: &str, shards: i32) {
    rig.clients.kinesis.create_stream().stream_name(stream).shard_count(shards).send().await.unwrap();
}

/// Puts a record whose data begins with the name of the stream.
pub async fn put(rig: &Rig, stream: &str, number: usize) {
    let data = format!("{stream}-{number:05}");
    let request = rig.clients.kinesis.put_record().stream_name(stream).partition_key("key");
    request.data(Blob::new(data.into_bytes())).send().await.unwrap();
}

/// The state of an application in the JSON of all.
pub fn of<'a>(shown: &'a Value, name: &str) -> &'a Value {
    let all = shown["applications"].as_array().unwrap();
    all.iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {shown:#}"))
}

/// The numbers of the records that the children of an application received.
pub fn received(log: &[Report], application: &str) -> Vec<usize> {
    let begin = format!("{application}-");
    let data = |seen: Seen| String::from_utf8(seen.data).unwrap();
    let all = records(log).into_values().flatten().map(data);
    all.filter_map(|data| data.strip_prefix(&begin)?.parse().ok()).collect()
}

/// Puts a record into each stream every 100 ms, until at least `least` were put to each and `done`. Returns the number
/// put, and the largest gap between deliveries of each application. The time before the first delivery and the time after
/// the last one are gaps, too.
pub async fn feed(
    rig: &mut Rig,
    applications: &[&str],
    least: usize,
    mut done: impl FnMut(&Rig) -> bool,
) -> (usize, BTreeMap<String, Duration>) {
    let mut times: BTreeMap<&str, Vec<Instant>> =
        applications.iter().map(|application| (*application, vec![Instant::now()])).collect();
    let (mut number, mut seen) = (0, rig.log.len());
    let all = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while number < least || !done(rig) {
            looks.tick().await;
            number += 1;
            for application in applications {
                put(rig, application, number).await;
            }
            while let Ok(report) = rig.reports.try_recv() {
                rig.log.push(report);
            }
            for report in &rig.log[seen..] {
                for (application, times) in &mut times {
                    if !received(std::slice::from_ref(report), application).is_empty() {
                        times.push(Instant::now());
                    }
                }
            }
            seen = rig.log.len();
        }
    };
    let in_time = timeout(LIMIT, all).await.is_ok();
    assert!(in_time, "not reached after {number} records\n{}", rig.daemon_log());
    let end = Instant::now();
    let largest = |mut times: Vec<Instant>| {
        times.push(end);
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap()
    };
    (number, times.into_iter().map(|(name, times)| (name.to_owned(), largest(times))).collect())
}

/// Waits until the applications have received the records 1 to `count`, once and in order, if they were put since
/// `from` reports.
pub async fn assert_all_received(rig: &mut Rig, from: usize, applications: &[&str], count: usize) {
    let done = |log: &[Report]| applications.iter().all(|name| received(&log[from..], name).len() >= count);
    rig.until("every record", done).await;
    for application in applications {
        let expected: Vec<usize> = (1..=count).collect();
        assert_eq!(received(&rig.log[from..], application), expected, "{application}: once and in order");
    }
}
