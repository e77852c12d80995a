//! Compares the metrics sent to CloudWatch with those that the Java daemon sent in a comparable run.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use ciborium::Value as Cbor;
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::rig::*;

/// Java's leader first assigns leases before its own worker has reported metrics, and then has no capacity to
/// assign to; our leader includes its own worker from the first assignment on. `metrics::cloudwatch` tests that
/// the metric is sent when leases remain unassigned.
const JAVAS_START: &[(&str, &str)] = &[("LeaseAssignmentManager", "LeaseSpillover")];
/// Metrics that we send and the recorded run lacks; Java sends them in other runs.
const IN_OTHER_RUNS: &[(&str, &str)] = &[
    ("Scheduler:Initialize", "Initialize.Success"),
    ("ShutdownTask", "UpdateLease.Success"),
    ("ShutdownTask", "UpdateLease.Time"),
];

/// KCL 3.5.1 sends it; the recorded run is of an older version.
const SINCE_3_5: &[(&str, &str)] = &[("TableMigration", "StatusOrdinal")];

/// Operation, name, unit, names of the other dimensions.
type Metric = (String, String, String, String);

#[derive(Debug)]
struct Sent {
    namespace: String,
    metrics: Vec<(Metric, BTreeMap<String, f64>)>,
}

fn field<'a>(map: &'a Cbor, name: &str) -> &'a Cbor {
    let map = map.as_map().unwrap();
    map.iter().find(|(key, _)| key.as_text() == Some(name)).map_or(&Cbor::Null, |(_, value)| value)
}

fn text(map: &Cbor, name: &str) -> String {
    field(map, name).as_text().unwrap_or_else(|| panic!("{name} in {map:?}")).to_owned()
}

fn read(body: &[u8]) -> Sent {
    let body: Cbor = ciborium::from_reader(body).unwrap();
    let data = field(&body, "MetricData").as_array().unwrap();
    assert!(data.len() <= 20, "CloudWatch took no more at a time when KCL was made");
    let metrics = data.iter().map(|datum| {
        let mut dimensions: BTreeMap<String, String> = BTreeMap::new();
        for one in field(datum, "Dimensions").as_array().unwrap() {
            dimensions.insert(text(one, "Name"), text(one, "Value"));
        }
        let operation = dimensions.remove("Operation").unwrap_or_default();
        let further: Vec<String> = dimensions.into_keys().collect();
        let further = if further.is_empty() { "-".to_owned() } else { further.join(" ") };
        let values = field(datum, "StatisticValues");
        let values = ["SampleCount", "Sum", "Minimum", "Maximum"]
            .map(|name| (name.to_owned(), field(values, name).as_float().unwrap()));
        ((operation, text(datum, "MetricName"), text(datum, "Unit"), further), values.into())
    });
    Sent { namespace: text(&body, "Namespace"), metrics: metrics.collect() }
}

/// A CloudWatch endpoint that accepts every request and forwards it to the test.
async fn endpoint(tasks: &mut JoinSet<()>) -> (String, mpsc::UnboundedReceiver<Sent>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (sender, sent) = mpsc::unbounded_channel();
    tasks.spawn(async move {
        let mut connections = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let sender = sender.clone();
            connections.spawn(async move {
                let mut stream = BufReader::new(stream);
                loop {
                    let (mut length, mut line) = (0, String::new());
                    while line != "\r\n" {
                        line.clear();
                        if stream.read_line(&mut line).await.unwrap_or(0) == 0 {
                            return;
                        }
                        if let Some(value) = line.to_lowercase().strip_prefix("content-length:") {
                            length = value.trim().parse().unwrap();
                        }
                        assert!(!line.to_lowercase().starts_with("content-encoding"), "{line}");
                    }
                    let mut body = vec![0; length];
                    stream.read_exact(&mut body).await.unwrap();
                    let _test_is_over = sender.send(read(&body)).is_err();
                    let answer = "HTTP/1.1 200 OK\r\nsmithy-protocol: rpc-v2-cbor\r\ncontent-type: application/cbor\r\n\
                                  content-length: 1\r\n\r\n";
                    stream.get_mut().write_all(&[answer.as_bytes(), &[0xA0]].concat()).await.unwrap();
                }
            });
        }
    });
    (format!("http://{address}"), sent)
}

/// Java's metrics at the given level.
fn javas(level: &str) -> BTreeSet<Metric> {
    let table = include_str!("java-3.1.3/cloudwatch.tsv");
    let rows = table.lines().filter(|line| !line.starts_with('#')).map(|line| {
        let [level, operation, name, unit, further] =
            <[&str; 5]>::try_from(line.split('\t').collect::<Vec<_>>()).unwrap();
        (level.to_owned(), (operation.to_owned(), name.to_owned(), unit.to_owned(), further.to_owned()))
    });
    let rows: Vec<(String, Metric)> = rows.collect();
    assert!(rows.len() > 50);
    rows.into_iter().filter(|(of, _)| level == "DETAILED" || of == level).map(|(_, metric)| metric).collect()
}

async fn run(level: &str, more: &str) -> (BTreeSet<Metric>, Vec<Sent>) {
    let mut tasks = JoinSet::new();
    let (url, mut sent) = endpoint(&mut tasks).await;
    let rig = Rig::start("cloudwatch").await;
    rig.stream(2).await;
    rig.put(&(0..500).map(|n| (format!("key-{n}"), b"0123456789".to_vec())).collect::<Vec<_>>()).await;
    let more = format!(
        "metricsLevel = {level}\nmetricsBufferTimeMillis = 500\ncloudWatchClient.endpointOverride = {url}\n\
         retrievalMode = POLLING\nworkerId = w\n{more}"
    );
    let file = rig.properties(&rig.scripted("each"), &more);
    let mut daemon = rig.daemon(&file);
    let missing: BTreeSet<Metric> =
        javas(level).into_iter().filter(|metric| !is_one_of(metric, JAVAS_START)).collect();
    let early: BTreeSet<Metric> =
        missing.iter().filter(|metric| metric.0 != "ShutdownTask").cloned().collect();
    let (mut all, mut seen) = (Vec::new(), BTreeSet::new());
    let whole = more.contains("metricsEnabledDimensions");
    let wait = async {
        while whole && all.len() < 4 || !whole && !early.is_subset(&seen) {
            let one: Sent = sent.recv().await.unwrap();
            seen.extend(one.metrics.iter().map(|(metric, _)| metric.clone()));
            all.push(one);
        }
    };
    if timeout(LIMIT, wait).await.is_err() {
        panic!("never sent: {:#?}\n{}", missing.difference(&seen).collect::<Vec<_>>(), rig.daemon_log());
    }
    assert_eq!(daemon.stop().await, Some(0));
    while let Ok(Some(one)) = timeout(Duration::from_millis(100), sent.recv()).await {
        seen.extend(one.metrics.iter().map(|(metric, _)| metric.clone()));
        all.push(one);
    }
    let never: Vec<&Metric> = missing.difference(&seen).collect();
    assert!(whole || never.is_empty(), "never sent: {never:#?}");
    (seen, all)
}

fn is_one_of(metric: &Metric, list: &[(&str, &str)]) -> bool {
    list.iter().any(|(operation, name)| metric.0 == *operation && metric.1 == *name)
}

async fn compare(level: &str) {
    let (seen, all) = run(level, "").await;
    let java = javas(level);
    let strange: Vec<&Metric> = seen
        .difference(&java)
        .filter(|metric| !is_one_of(metric, &[IN_OTHER_RUNS, SINCE_3_5].concat()))
        .collect();
    assert!(strange.is_empty(), "Java doesn't send these at {level}: {strange:#?}");
    assert!(all.iter().all(|sent| sent.namespace == APPLICATION));
    // A new application uses one table from the start.
    let ordinals =
        all.iter().flat_map(|sent| &sent.metrics).filter(|(metric, _)| metric.1 == "StatusOrdinal");
    let ordinals: Vec<f64> =
        ordinals.flat_map(|(_, values)| [values["Minimum"], values["Maximum"]]).collect();
    assert!(!ordinals.is_empty() && ordinals.iter().all(|ordinal| *ordinal == 4.0), "{ordinals:?}");
    // A run without errors has zeros for the error metrics.
    for zero in ["NumStreamsToSync", "NumSkippedShardSyncTask", "NumStreamsWithPartialLeases", "LostLeases"] {
        let values = all.iter().flat_map(|sent| &sent.metrics).filter(|(metric, _)| metric.1 == zero);
        let most: Vec<f64> = values.map(|(_, values)| values["Maximum"]).collect();
        assert!(!most.is_empty() && most.iter().all(|value| *value == 0.0), "{zero}: {most:?}");
    }
    let sum = |name: &str, value: &str| -> f64 {
        let of = |sent: &Sent| {
            let values =
                sent.metrics.iter().filter(|(metric, _)| metric.1 == name && metric.0 == "ProcessTask");
            values.map(|(_, values)| values[value]).sum::<f64>()
        };
        all.iter().map(of).sum()
    };
    assert!((sum("RecordsProcessed", "Sum") - 500.0).abs() < 0.1);
    assert!((sum("DataBytesProcessed", "Sum") - 5_000.0).abs() < 0.1);
    assert!(sum("RecordsProcessed", "SampleCount") >= 2.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn names_units_and_dimensions_equal_those_of_java() {
    for row in JAVAS_START {
        assert!(javas("DETAILED").iter().any(|metric| is_one_of(metric, &[*row])), "{row:?} is not Java's");
    }
    compare("DETAILED").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn summary_level_equals_that_of_java() {
    compare("SUMMARY").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn disabled_dimensions_are_omitted() {
    let (seen, _) = run("SUMMARY", "metricsEnabledDimensions = Operation\n").await;
    assert!(
        seen.iter().all(|(operation, _, _, further)| !operation.is_empty() && further == "-"),
        "{seen:#?}"
    );
}
