//! Compares `multilangd check --json` with the settings of the Java daemon 3.5.1 for the same files.
//!
//! The files are those of `properties/tests/goldens/in`; `java-3.5.1/resolved.jsonl` has one row per file and
//! environment: Java's resolved configuration (only values that differ from the first row), or the error with
//! which Java refused to start. Intentional differences are in [`DIFFERENCES`]; docs/migrating.md shows
//! the same table.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::wildcard_enum_match_arm,
    missing_docs,
    reason = "test code"
)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Map, Value, json};

/// Files that Java rejects and multilangd accepts, or the reverse.
const DIFFERENCES: &[(&str, &str)] = &[
    ("c_full_old_name", "taken"),
    ("c_short_old_name", "taken"),
    ("c_sts_old_name", "taken"),
    ("h_kcl1_keys", "taken"),
    ("c_sts", "taken without AWS_REGION"),
    ("n_bad_timeout", "refused"),
    ("n_zero_dropped", "refused"),
    ("n_negative", "refused"),
    ("p08_latin1", "refused for a name"),
    ("p09_utf8_bytes", "refused for a name"),
    ("p18_quotes", "refused for a name"),
];

/// The keys that hold a name which AWS restricts; Java leaves the check to AWS.
const NAMES: [&str; 2] = ["streamName", "applicationName"];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn check(file: &Path, region: Option<&str>, more: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multilangd"));
    command.arg("check").arg(file).args(more).env_clear();
    command.env("AWS_EC2_METADATA_DISABLED", "true").env("HOME", "/nonexistent").env("PATH", "/usr/bin:/bin");
    region.map(|region| command.env("AWS_REGION", region));
    command.output().unwrap()
}

fn checked(file: &Path, region: Option<&str>) -> (Option<i32>, Value) {
    let output = check(file, region, &["--json"]);
    let shown = String::from_utf8(output.stdout).unwrap();
    (output.status.code(), serde_json::from_str(&shown).unwrap_or_else(|error| panic!("{error}: {shown}")))
}

struct Row {
    file: String,
    region: Option<String>,
    /// Java's error message, if it rejected the file.
    refused: Option<String>,
    settings: Map<String, Value>,
    command: Value,
}

fn rows() -> Vec<Row> {
    let text = std::fs::read_to_string(root().join("tests/settings/java-3.5.1/resolved.jsonl")).unwrap();
    let mut lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let first = lines.next().unwrap()["settings"].as_object().unwrap().clone();
    let row = |line: Value| {
        let mut settings = first.clone();
        settings.extend(line["settings"].as_object().cloned().unwrap_or_default());
        let text = |name: &str| line[name].as_str().map(str::to_owned);
        Row {
            file: text("file").unwrap(),
            region: text("AWS_REGION"),
            refused: text("refused"),
            settings,
            command: line["command"].clone(),
        }
    };
    lines.map(row).collect()
}

fn input(name: &str) -> PathBuf {
    root().join("properties/tests/goldens/in").join(format!("{name}.properties"))
}

/// Translates a Java value to ours: `A(…)` of a provider chain is A, `Tag(Key=k, Value=v)` is a pair.
fn translated(key: &str, java: &Value) -> Value {
    match java {
        Value::String(text) if key.starts_with("AWSCredentialsProvider") => {
            let list = text.split_once('[').unwrap().1.strip_suffix("])").unwrap();
            // KCL replaces the SDK's class by its own; our value includes the role.
            if list.contains("KclStsAssumeRoleCredentialsProvider") {
                return json!("StsAssumeRoleCredentialsProvider|arn:aws:iam::123456789012:role/r|session");
            }
            let mut names = Vec::new();
            let mut depth = 0;
            for piece in list.split_inclusive(['(', ')']) {
                if depth == 0 && piece.ends_with('(') {
                    names.push(piece.trim_start_matches(", ").trim_end_matches('(').to_owned());
                }
                let profile = piece.strip_prefix("profileName=").map(|piece| piece.trim_end_matches(')'));
                if let Some(profile) = profile.filter(|profile| *profile != "default") {
                    names.last_mut().unwrap().push_str(&format!("|{profile}"));
                }
                depth += if piece.ends_with('(') { 1 } else { -1 };
            }
            json!(names.join(", "))
        }
        Value::String(text) if text == "Optional.empty" => Value::Null,
        Value::String(text) if text.starts_with("Optional[") => {
            json!(text.trim_start_matches("Optional[").trim_end_matches(']').parse::<i64>().unwrap())
        }
        Value::Array(tags) if key.ends_with("Tags") => tags
            .iter()
            .map(|tag| {
                let (name, value) =
                    tag.as_str().unwrap().strip_prefix("Tag(Key=").unwrap().split_once(", Value=").unwrap();
                json!({"key": name, "value": value.strip_suffix(')').unwrap()})
            })
            .collect(),
        other => other.clone(),
    }
}

/// Whether a setting differs from Java on purpose.
fn differs_on_purpose(key: &str, ours: &Value, java: &Value) -> bool {
    let by_default = ours["source"] == "default" || ours["value"].is_null();
    match key {
        "shutdownGraceMillis" => by_default && ours["value"] == 5000 && *java == 0,
        // Generated at each start.
        "workerId" => by_default && java == "<uuid>",
        // Java reports null and uses the application's name.
        "fanoutConfig.consumerName" => java.is_null() && by_default,
        _ => false,
    }
}

#[test]
fn every_file_resolves_or_fails_as_in_java() {
    let mut faults = Vec::new();
    let mut seen = BTreeMap::new();
    for row in rows() {
        let (code, ours) = checked(&input(&row.file), row.region.as_deref());
        let refused = !ours["errors"].as_array().unwrap().is_empty();
        assert_eq!(code, Some(if refused { 78 } else { 0 }), "{}", row.file);
        let name = format!("{}{}", row.file, row.region.as_deref().map_or("", |_| " (with AWS_REGION)"));
        let errors = ours["errors"].as_array().unwrap();
        let only_names =
            errors.iter().all(|error| NAMES.contains(&error["key"].as_str().unwrap_or_default()));
        if refused != row.refused.is_some() {
            let what = if refused && only_names {
                "refused for a name"
            } else if refused {
                "refused"
            } else if row.file == "c_sts" {
                "taken without AWS_REGION"
            } else {
                "taken"
            };
            if DIFFERENCES.contains(&(row.file.as_str(), what)) {
                seen.insert(row.file.clone(), ());
            } else {
                faults.push(format!(
                    "{name}: ours is {what}: {} {}",
                    ours["errors"],
                    row.refused.unwrap_or_default()
                ));
            }
            // An invalid name does not change the settings.
            if what != "refused for a name" {
                continue;
            }
        } else if refused {
            continue;
        }
        for (key, java) in &row.settings {
            let (ours, java) = (&ours["settings"][key], translated(key, java));
            if ours["value"] != java && !differs_on_purpose(key, ours, &java) {
                faults.push(format!("{name}: {key} is {} here, {java} in Java", ours["value"]));
            }
        }
        let words: Vec<&str> = ours["settings"]["executableName"]["value"]
            .as_str()
            .unwrap()
            .split(' ')
            .filter(|word| !word.is_empty())
            .collect();
        if json!(words) != row.command {
            faults.push(format!("{name}: {words:?} is {} in Java", row.command));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    assert_eq!(seen.len(), DIFFERENCES.len(), "every difference is seen: {seen:?}");
}

#[test]
fn ten_errors_are_reported_with_their_lines() {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("ten-{}.properties", std::process::id()));
    let text = "streamName = s\napplicationName = \nmaxRecords = 20000\ninitialPositionInStream = NEWEST\n\
                timeoutInSeconds = ten\nmetricsLevel = LOUD\nkinesisEndpoint = localhost\nretrievalMode = push\n\
                regionName =\nAWSCredentialsProvider = my.Own\nmaxActiveThreads = x\nexecutableName =\n";
    std::fs::write(&file, text).unwrap();
    let (code, found) = checked(&file, Some("us-east-1"));
    let lines: Vec<u64> =
        found["errors"].as_array().unwrap().iter().filter_map(|error| error["line"].as_u64()).collect();
    assert_eq!((code, lines), (Some(78), (2..=11).collect()));
    let shown = String::from_utf8(check(&file, Some("us-east-1"), &[]).stdout).unwrap();
    let errors = shown.split("\nerrors:\n").nth(1).unwrap();
    assert_eq!(errors.lines().count(), 10, "{errors}");
    assert!(errors.lines().all(|line| line.trim_start().starts_with("line ")), "{errors}");
    std::fs::remove_file(file).unwrap();
}

#[test]
fn each_setting_reports_its_source() {
    let (_, found) = checked(&input("c_list"), Some("eu-west-1"));
    assert_eq!(found["settings"]["streamName"], json!({"value": "words", "source": "file", "line": 2}));
    assert_eq!(
        found["settings"]["failoverTimeMillis"],
        json!({"value": 10000, "source": "default", "line": null})
    );
    let (_, found) = checked(&input("r_missing_region"), Some("eu-west-1"));
    assert_eq!(
        found["settings"]["kinesisClient.region"],
        json!({"value": "eu-west-1", "source": "environment", "line": null})
    );
}

#[test]
fn migrating_page_lists_each_difference() {
    let page = std::fs::read_to_string(root().join("docs/migrating.md")).unwrap();
    for (file, _) in DIFFERENCES {
        assert!(page.contains(&format!("`{file}`")), "docs/migrating.md has no row for {file}");
    }
}
