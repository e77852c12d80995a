//! The generated blocks of the documentation: tables of the source, and files of `examples/`.
//!
//! A block stands between `<!-- generated: NAME -->` and `<!-- end -->`.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use multilangd::config::keys::kcl::KEYS;
use multilangd::config::keys::{Key, Use, client, own};
use multilangd::config::permissions::PERMISSIONS;
use multilangd::conformance::case::CASES;
use multilangd::conformance::finding::{self as findings, Severity};
use multilangd::daemon::stop::ORDER;
use multilangd::exit::EXITS;
use multilangd::metrics::prometheus::{FAMILIES, Family, Kind};

use crate::pages::pages;
use crate::{log_events, page, root};

const BEGIN: &str = "\n<!-- generated: ";
const END: &str = "<!-- end -->";

pub(crate) fn code(text: &str) -> String {
    format!("`{text}`")
}

pub(crate) fn table(head: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut text = format!("| {} |\n|{}\n", head.join(" | "), "---|".repeat(head.len()));
    for row in rows {
        assert_eq!(row.len(), head.len(), "{row:?}");
        text.push_str(&format!("| {} |\n", row.join(" | ")));
    }
    text
}

/// The headings of the properties, in the order of the page, by the class of KCL that the keys set.
const GROUPS: &[(&str, &[&str])] = &[
    ("Application, stream, record processor", &["MultiLangDaemonConfig"]),
    (
        "AWS region and endpoints",
        &["AwsClientBuilder", "KinesisAsyncClientBuilder", "DynamoDbAsyncClientBuilder"],
    ),
    ("Coordination and versions", &["CoordinatorConfig"]),
    ("Leases", &["LeaseManagementConfig"]),
    ("Graceful handoff", &["GracefulLeaseHandoffConfig"]),
    ("Load-aware lease assignment", &["WorkerUtilizationAwareAssignmentConfig"]),
    ("Delivery of records", &["ProcessorConfig", "LifecycleConfig", "CheckpointConfig"]),
    ("Retrieval", &["RetrievalConfig"]),
    ("Polling", &["PollingConfig"]),
    ("Enhanced fan-out", &["FanOutConfig"]),
    ("CloudWatch metrics", &["MetricsConfig"]),
    ("Tables of KCL 3.0 to 3.4", &["WorkerMetricsTableConfig", "CoordinatorStateTableConfig"]),
];

/// Keys that every file sets stand first, whatever class of KCL takes them.
const FIRST: &[&str] = &[
    "applicationName",
    "streamName",
    "streamArn",
    "tableName",
    "workerId",
    "initialPositionInStream",
    "initialPositionInStreamExtended",
];

fn properties() -> String {
    let mut text = String::new();
    for key in KEYS.iter().filter(|key| key.used == Use::Yes) {
        let known = GROUPS.iter().any(|(_, classes)| classes.contains(&class_of(key)));
        assert!(known, "{}: no heading for {}", key.name, key.sets);
    }
    for (heading, classes) in GROUPS {
        let keys = KEYS.iter().filter(|key| key.used == Use::Yes && classes.contains(&class_of(key)));
        let rows = keys.map(|key| vec![names(key), key.absent.to_string(), key.doc.to_owned()]);
        text.push_str(&format!("### {heading}\n\n{}\n", table(&["key", "default", "effect"], rows)));
    }
    text.trim_end().to_owned() + "\n"
}

fn class_of(key: &Key) -> &'static str {
    if FIRST.contains(&key.name) { "MultiLangDaemonConfig" } else { key.sets }
}

fn names(key: &Key) -> String {
    let mut names: Vec<String> = [key.name].iter().chain(key.aliases).map(|name| code(name)).collect();
    names.extend(key.bean.map(|bean| code(&format!("{bean}.{}", key.name))));
    names.join(", ")
}

/// Why a key has no effect; none if it has.
fn reason(used: Use) -> Option<String> {
    match used {
        Use::Yes => None,
        Use::NotYet(instead) => Some(format!("not implemented; {instead}")),
        Use::NoEffect(why) => Some(format!("without effect in Java too: {why}")),
        Use::Never(why) => Some(why.to_owned()),
    }
}

/// The known results of `multilangd test` beside the published clients, which `tests/clients` compares.
fn results() -> String {
    let text = page("tests/clients/conformance.tsv");
    let rows = text.lines().map(|line| {
        let [name, passed, run, failures, notes] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("not a result: {line}")
        };
        let cell = |findings: &str| {
            let one = |finding: &str| {
                let (kind, cases) = finding.split_once(": ").unwrap();
                let cases: Vec<String> = cases.split(' ').map(code).collect();
                let cases = if cases.len() > 4 { format!("{} cases", cases.len()) } else { cases.join(", ") };
                format!("{kind}: {cases}")
            };
            let all: Vec<String> = findings.split("; ").filter(|text| !text.is_empty()).map(one).collect();
            if all.is_empty() { "-".to_owned() } else { all.join("; ") }
        };
        vec![code(name), format!("{passed} of {run}"), cell(failures), cell(notes)]
    });
    table(&["test", "passed", "failures", "notes"], rows)
}

fn block(name: &str) -> String {
    match name {
        "properties" => properties(),
        "properties without effect" => {
            let rows = KEYS.iter().filter_map(|key| Some(vec![names(key), reason(key.used)?]));
            table(&["key", "reason"], rows)
        }
        "client keys" => {
            let keys = client::KEYS.iter().filter(|key| key.used == Use::Yes);
            table(&["key", "effect"], keys.map(|key| vec![code(key.name), key.doc.to_owned()]))
        }
        "client keys without effect" => {
            let rows = client::KEYS.iter().filter_map(|key| Some(vec![code(key.name), reason(key.used)?]));
            table(&["key", "reason"], rows)
        }
        "own settings" => {
            let rows = own::KEYS.iter().map(|key| {
                let names = [code(key.name), code(&format!("--{}", key.option())), code(&key.variable())];
                vec![names.join(", "), code(key.default), key.scope.word().to_owned(), key.doc.to_owned()]
            });
            table(&["setting", "default", "of", "effect"], rows)
        }
        "exit codes" => {
            let row = |(_, number, name, why): &(_, u8, &str, &str)| {
                vec![number.to_string(), code(name), (*why).to_owned()]
            };
            table(&["code", "name", "when"], EXITS.iter().map(row))
        }
        "permissions" => {
            let rows = PERMISSIONS.iter();
            let rows = rows.map(|one| {
                vec![code(one.action), one.on.to_string(), one.probe.to_string(), one.when.to_owned()]
            });
            table(&["action", "on", "`check --aws`", "when"], rows)
        }
        "metrics" => {
            let rows = FAMILIES.iter().map(|family| {
                let labels = if family.labels.is_empty() { "-".to_owned() } else { family.labels.join(", ") };
                vec![code(family.name), family.kind.word().to_owned(), labels, family.help.to_owned()]
            });
            table(&["metric", "type", "labels", "content"], rows)
        }
        "log events" => log_events::rows(),
        "order of a stop" => {
            let rows = ORDER.iter().enumerate().map(|(index, step)| {
                let seconds = |limit: Duration| format!("{} s", limit.as_secs());
                let limit = step.limit.map_or("that of each child".to_owned(), seconds);
                let words = [step.part, step.at_once, step.at_its_turn].map(str::to_owned);
                [&[(index + 1).to_string()][..], &words, &[limit]].concat()
            });
            table(&["step", "part", "at once", "in its turn", "limit"], rows)
        }
        "test cases" => {
            let rows = CASES.iter().map(|case| vec![code(case.name), case.about.to_owned()]);
            table(&["case", "content"], rows)
        }
        "test findings" => {
            let rows = findings::KINDS.iter().map(|row| {
                let severity = match row.severity {
                    Severity::Failure => "failure",
                    Severity::Note => "note",
                };
                let [effect, remedy] =
                    [row.effect, row.remedy].map(|text| text.replace('{', "`{").replace('}', "}`"));
                vec![code(row.code), severity.to_owned(), row.about.to_owned(), effect, remedy]
            });
            table(&["finding", "severity", "meaning", "effect", "remedy"], rows)
        }
        "test results" => results(),
        _ => {
            let Some(path) = name.strip_prefix("file ") else {
                panic!("no generated block is called {name}")
            };
            let language = match path.rsplit('.').next().unwrap() {
                "py" => "python",
                // A block of this language would be a command to be run.
                "sh" => "bash",
                "js" => "javascript",
                other => other,
            };
            format!("```{language}\n{}```\n", page(path))
        }
    }
}

/// A table that is copied by hand, and an example that is, is wrong after the next change.
#[test]
fn generated_blocks_equal_their_sources() {
    let mut found: BTreeMap<String, String> = BTreeMap::new();
    let mut faults = Vec::new();
    for name in pages().into_iter().filter(|name| name.starts_with("docs/")) {
        let text = page(&name);
        let mut parts = text.split(BEGIN);
        let mut expected = parts.next().unwrap().to_owned();
        for part in parts {
            let (block_name, rest) = part.split_once(" -->\n").unwrap_or_else(|| panic!("{name}: {part}"));
            let (_, after) =
                rest.split_once(END).unwrap_or_else(|| panic!("{name}: {block_name} has no end"));
            expected.push_str(&format!("{BEGIN}{block_name} -->\n{}{END}{after}", block(block_name)));
            if let Some(other) = found.insert(block_name.to_owned(), name.clone()) {
                faults.push(format!("{block_name} stands in {other} and in {name}"));
            }
        }
        if expected != text {
            if std::env::var_os("BLESS").is_some() {
                // Renamed, as other tests read the page at the same time.
                let (place, new) = (root().join(&name), root().join(format!("{name}.new")));
                std::fs::write(&new, expected).unwrap();
                std::fs::rename(new, place).unwrap();
            } else {
                let mut pairs = expected.lines().zip(text.lines());
                let differs = pairs.find(|(expected, text)| expected != text);
                faults.push(format!(
                    "{name}: a generated block differs (BLESS=1 cargo test --test tidy): {differs:#?}"
                ));
            }
        }
    }
    let tables = ["properties", "properties without effect", "client keys", "client keys without effect"];
    let others = [
        "own settings",
        "exit codes",
        "permissions",
        "metrics",
        "log events",
        "order of a stop",
        "test cases",
    ];
    for name in tables.iter().chain(&others) {
        if !found.contains_key(*name) {
            faults.push(format!("no page has the block {name}"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// A dashboard or an alert on a metric that does not exist is never seen to be wrong.
#[test]
fn dashboards_and_alerts_use_existing_metrics() {
    for file in ["grafana.json", "alerts.yaml"] {
        let text = page(&format!("deploy/{file}"));
        let names: BTreeSet<String> = text
            .split("multilangd_")
            .skip(1)
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_lowercase() || *c == '_').collect())
            .collect();
        assert!(names.len() > 4, "{file}");
        for name in names {
            let name = format!("multilangd_{name}");
            let is_part = |family: &Family| {
                let part = name.strip_prefix(family.name);
                family.kind == Kind::Histogram
                    && part.is_some_and(|part| ["_bucket", "_sum", "_count"].contains(&part))
            };
            assert!(
                FAMILIES.iter().any(|family| family.name == name || is_part(family)),
                "{file} uses {name}"
            );
        }
    }
}

/// A missing permission is noticed when it is too late; one too many is a risk.
#[test]
fn permissions_equal_the_calls_in_the_source() {
    let mut called = BTreeSet::new();
    for (file, service) in [
        ("kinesis", "kinesis"),
        ("fanout", "kinesis"),
        ("letters", "kinesis"),
        ("cloudwatch", "cloudwatch"),
        ("dynamodb", "dynamodb"),
        ("dynamodb/ensure", "dynamodb"),
        ("state", "dynamodb"),
        ("table_migration", "dynamodb"),
    ] {
        let text = page(&format!("src/aws/{file}.rs"));
        let code = text.split("#[cfg(test)]").next().unwrap().split_whitespace().collect::<String>();
        // self.client.get_records() …
        for rest in code.split("client.").skip(1) {
            let Some((name, _)) = rest.split_once("()") else { continue };
            if !name.chars().all(|c| c.is_ascii_lowercase() || c == '_')
                || name == "config"
                || name == "clone"
            {
                continue;
            }
            let action: String = name.split('_').map(|word| word[..1].to_uppercase() + &word[1..]).collect();
            // A transaction needs the permissions of its parts.
            let action = if action == "TransactWriteItems" { "ConditionCheckItem" } else { &action };
            called.insert(format!("{service}:{action}"));
        }
    }
    let named: BTreeSet<String> = PERMISSIONS.iter().map(|one| one.action.to_owned()).collect();
    assert!(called.len() > 12, "{called:?}");
    assert_eq!(called, named);

    let policy: serde_json::Value = serde_json::from_str(&page("deploy/policy.json")).unwrap();
    let statements = policy["Statement"].as_array().unwrap();
    let allowed = statements.iter().flat_map(|statement| statement["Action"].as_array().unwrap());
    let allowed: BTreeSet<String> = allowed.map(|action| action.as_str().unwrap().to_owned()).collect();
    assert_eq!(allowed, named, "deploy/policy.json");
}
