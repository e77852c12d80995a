//! `multilangd test`: each planted fault is found by the case that is meant for it; a correct record processor passes.

use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use rustix::process::Signal;
use tokio::process::Command;
use tokio::time::timeout;

use crate::rig::{Rig, alive, said};

const LIMIT: Duration = Duration::from_secs(240);

fn planted() -> String {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/planted.py").display().to_string()
}

async fn kit(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_multilangd"));
    command.arg("test").args(arguments).kill_on_drop(true).env_remove("RUST_LOG");
    timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

/// The cases of a run: the word in front, the name, and the codes of the findings.
fn cases(output: &Output) -> Vec<(String, String, Vec<String>)> {
    let text = String::from_utf8(output.stdout.clone()).unwrap();
    let lines =
        text.lines().filter(|line| ["ok  ", "note  ", "FAILED  "].iter().any(|word| line.starts_with(word)));
    let read = |line: &str| {
        let mut words = line.split_whitespace();
        let [word, name] = [(); 2].map(|()| words.next().unwrap().to_owned());
        let codes = words.skip(2).map(|code| code.trim_end_matches(',').to_owned()).collect();
        (word, name, codes)
    };
    lines.map(read).collect()
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn correct_record_processor_passes_all_cases() {
    let output = kit(&["--strict", "--", "python3", &planted()]).await;
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    let cases = cases(&output);
    assert!(cases.len() > 25 && cases.iter().all(|(word, ..)| word == "ok"), "{}", shown(&output));
}

/// The fault, a case that finds it, the code of the finding, whether it is a failure, and a case that it passes.
type Planted = (&'static str, &'static str, &'static str, bool, &'static str);

const PLANTED: &[Planted] = &[
    ("needs-a-number", "initialize-latest", "exited", true, "initialize-sequence-number"),
    ("answers-wrongly", "records-empty", "wrong-answer", true, "shutdown-without-records"),
    ("answers-twice", "end-of-input", "extra-status", true, "shutdown-without-records"),
    ("answers-twice", "records-aggregated", "extra-status", true, "shutdown-without-records"),
    ("dies-on-unicode", "records-unicode", "exited", true, "records-binary"),
    ("dies-on-binary", "records-binary", "exited", true, "records-unicode"),
    ("dies-on-empty", "records-empty", "exited", true, "records-binary"),
    ("dies-on-no-records", "records-none", "exited", true, "records-empty"),
    ("dies-on-sub-sequence", "records-aggregated", "exited", true, "records-10000"),
    ("limits-lines", "records-10-mib", "exited", true, "records-1-mib"),
    ("reads-pieces", "records-slow-pipe", "exited", true, "shutdown-without-records"),
    ("checkpoints-ahead", "records-empty", "refused-checkpoint", true, "shutdown-without-records"),
    ("dies-on-throttling", "checkpoint-throttled", "exited", true, "checkpoint-illegal-argument"),
    ("dies-on-throttling", "checkpoint-dependency", "exited", true, "checkpoint-lease-lost"),
    (
        "never-retries",
        "checkpoint-shard-end-throttled",
        "no-retry-at-shard-end",
        false,
        "checkpoint-throttled",
    ),
    ("forgets-the-end", "shard-ended", "no-checkpoint-at-shard-end", true, "lease-lost"),
    ("forgets-the-end", "shard-ended-without-records", "no-checkpoint-at-shard-end", true, "lease-lost"),
    ("leaves", "records-aggregated", "exited", true, "shutdown-without-records"),
    ("leaves-at-leaseLost", "lease-lost", "exited", true, "shard-ended"),
    ("leaves-at-leaseLost", "shutdown-requested", "exited-while-stopping", false, "shard-ended"),
    ("leaves-at-shutdownRequested", "shutdown-requested", "exited-while-stopping", false, "lease-lost"),
    ("dies-on-lost-lease", "checkpoint-lease-lost", "exited", true, "checkpoint-throttled"),
    ("prints-null", "records-empty", "null-on-stdout", true, "shutdown-without-records"),
    ("prints", "records-empty", "output-on-stdout", false, "shutdown-without-records"),
    ("answers-shutdown-wrongly", "shutdown-requested", "wrong-shutdown-answer", false, "shard-ended"),
    ("checkpoints-late", "end-of-input", "late-checkpoint", false, "end-of-input-at-start"),
    ("checkpoints-at-start", "records-empty", "misplaced-checkpoint", false, "end-of-input-at-start"),
    ("ends-with-1", "end-of-input-at-start", "exit-code", false, ""),
];

/// Faults that are found when the time is over.
const SLOW: &[Planted] = &[
    ("ignores-lease-lost", "lease-lost", "no-answer", true, "shard-ended"),
    ("prints-half-a-line", "records-empty", "no-answer", true, "shutdown-without-records"),
    ("adds-a-field", "lease-lost", "unreadable-message", true, "end-of-input-at-start"),
    ("closes-stdout", "records-empty", "stdout-closed", true, "shutdown-without-records"),
    ("never-ends", "end-of-input", "no-exit", true, ""),
];

async fn assert_found(planted_faults: &[Planted], seconds: &str) {
    for (fault, case, code, is_failure, passed) in planted_faults {
        let script = planted();
        let mut arguments = vec!["--timeout", seconds, "--case", case];
        if !passed.is_empty() {
            arguments.extend(["--case", passed]);
        }
        arguments.extend(["--", "python3", &script, fault]);
        let output = kit(&arguments).await;
        let why = || format!("{fault}: {}", shown(&output));
        assert_eq!(output.status.code(), Some(i32::from(*is_failure)), "{}", why());
        for (word, name, codes) in cases(&output) {
            if name == *case {
                assert_eq!(word, if *is_failure { "FAILED" } else { "note" }, "{}", why());
                assert!(codes.iter().any(|found| found == code), "{}", why());
            } else {
                assert_eq!((word.as_str(), name.as_str()), ("ok", *passed), "{}", why());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn planted_fault_is_found_by_its_case() {
    assert_found(PLANTED, "60").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn missing_answer_or_exit_is_found_at_the_deadline() {
    assert_found(SLOW, "4").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn note_fails_a_strict_run() {
    let script = planted();
    let run = ["--case", "records-empty", "--strict", "--", "python3", &script, "prints"];
    let output = kit(&run).await;
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

#[tokio::test(flavor = "multi_thread")]
async fn own_records_are_delivered_and_reported_as_junit() {
    let folder = folder("kit-records");
    let (records, junit) = (folder.join("records.jsonl"), folder.join("junit.xml"));
    std::fs::write(&records, "{\"text\":\"fine\"}\n{\"partitionKey\":\"k\",\"data\":\"cG9pc29u\"}\n")
        .unwrap();
    let (records, junit) = (records.to_str().unwrap(), junit.to_str().unwrap());
    let script = planted();
    let run = ["--records", records, "--junit", junit, "--case", "records-own", "--case", "records-empty"];
    let output = kit(&[&run[..], &["--", "python3", &script, "dies-on-data", "poison"]].concat()).await;
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    let xml = std::fs::read_to_string(junit).unwrap();
    assert!(xml.contains("tests=\"2\" failures=\"1\"") && xml.contains("<failure type=\"exited\""), "{xml}");
    assert!(xml.contains("found it"), "the last line on stderr: {xml}");
}

#[tokio::test(flavor = "multi_thread")]
async fn properties_file_names_the_program_and_its_protocol() {
    let folder = folder("kit-file");
    let file = folder.join("orders.properties");
    // It answers leaseLost and shardEnded of the current protocol only.
    let text = format!("executableName = python3 {}\nmultilangd.childProtocol = shutdown\n", planted());
    std::fs::write(&file, text).unwrap();
    let output = kit(&["--properties-file", file.to_str().unwrap(), "--case", "shard-ended"]).await;
    assert_eq!(output.status.code(), Some(1), "{}", shown(&output));
    assert_eq!(cases(&output)[0].2, ["no-checkpoint-at-shard-end"]);
}

/// The record processor would run for ever; the kit gives it a minute.
#[tokio::test(flavor = "multi_thread")]
async fn signal_ends_the_kit_and_its_child() {
    let mut rig = Rig::start("kit-signal").await;
    let script = rig.scripted("hangs ignores-stop");
    let words: Vec<&str> = script.split(' ').collect();
    let kit = [&["test", "--timeout", "60", "--case", "records-empty", "--"], &words[..]].concat();
    let mut kit = rig.command(&kit);
    rig.until("a child", |log| said(log, "initialize").len() == 1).await;
    kit.signal(Signal::INT);
    assert_eq!(kit.ended().await.code(), Some(130), "{}", rig.daemon_log());
    rig.until("the end of the child", |log| alive(log) == 0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_input_is_rejected_by_name() {
    let folder = folder("kit-input");
    let bad = folder.join("bad.jsonl");
    std::fs::write(&bad, "{\"text\":\"fine\"}\nno record\n").unwrap();
    let bad = bad.to_str().unwrap();
    for (arguments, code, part) in [
        (&["--case", "lease-last", "--", "true"][..], 64, "lease-last"),
        (&["--case", "records-own", "--", "true"], 64, "--records"),
        (&["--", "no-such-program"], 78, "no-such-program"),
        (&["--records", bad, "--", "true"], 66, "line 2"),
        (&["--records", "/no/such/file", "--", "true"], 66, "/no/such/file"),
        (&["--properties-file", "/no/such/file"], 66, "/no/such/file"),
    ] {
        let output = kit(arguments).await;
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?} {text}");
        assert!(text.contains(part) && text.lines().count() == 1, "{arguments:?} {text}");
    }
}
