//! `multilangd test` beside each client: the known results, which docs/clients.md shows.
//!
//! `BLESS=1` writes them to `conformance.tsv`, and `BLESS=1 cargo test --test tidy` then updates the page.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use crate::client::Client;
use crate::rig::Rig;

/// Seconds for each answer. `amazon-kinesis-client-go` waits five before it repeats a throttled checkpoint.
const TIMEOUT: &str = "12";

fn results() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients/conformance.tsv")
}

fn known() -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(results()).unwrap_or_default();
    text.lines()
        .filter_map(|line| line.split_once('\t'))
        .map(|(name, row)| (name.into(), row.into()))
        .collect()
}

/// Cases passed, cases run, and the codes of failures and of notes, each with the number of its cases.
fn row(printed: &[String]) -> String {
    let (mut passed, mut run) = (0, 0);
    let mut codes: [BTreeMap<String, Vec<&str>>; 2] = Default::default();
    for line in printed {
        let mut words = line.split_whitespace();
        let (Some(word), Some(case)) = (words.next(), words.next()) else { continue };
        // A finding begins with the same word, and its code ends with a colon.
        if !["ok", "note", "FAILED"].contains(&word) || case.ends_with(':') {
            continue;
        }
        run += 1;
        passed += usize::from(word != "FAILED");
        for code in words.skip(2) {
            let code = code.trim_end_matches(',');
            let is_note = multilangd::conformance::finding::KINDS.iter().any(|row| {
                row.code == code && row.severity == multilangd::conformance::finding::Severity::Note
            });
            codes[usize::from(is_note)].entry(code.to_owned()).or_default().push(case);
        }
    }
    let shown = codes.map(|codes| {
        let texts = codes.into_iter().map(|(code, cases)| format!("{code}: {}", cases.join(" ")));
        texts.collect::<Vec<_>>().join("; ")
    });
    format!("{passed}\t{run}\t{}\t{}", shown[0], shown[1])
}

/// Runs the kit and compares with the known results.
pub async fn assert_known_results(name: &str, client: &Client) {
    static WRITING: Mutex<()> = Mutex::new(());
    let mut rig = Rig::start(&format!("kit-{name}")).await;
    let file = client.properties(&mut rig, "");
    let mut kit = rig.command(&["test", "--properties-file", file.to_str().unwrap(), "--timeout", TIMEOUT]);
    let last = |line: &str| line.starts_with("ok: ") || line.starts_with("FAILED: ");
    while !kit.printed.last().is_some_and(|line| last(line)) {
        kit.until(|line| !line.is_empty()).await;
    }
    let code = kit.ended().await.code();
    // The line with the verdict has no duration.
    let lines = kit.printed.iter().filter(|line| !last(line)).cloned().collect::<Vec<_>>();
    let row = row(&lines);
    assert_eq!(code, Some(i32::from(lines.iter().any(|line| line.starts_with("FAILED ")))), "{row}");
    if std::env::var_os("BLESS").is_some() {
        let _guard = WRITING.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all = known();
        all.insert(name.to_owned(), row);
        let text: String = all.into_iter().map(|(name, row)| format!("{name}\t{row}\n")).collect();
        std::fs::write(results(), text).unwrap();
    } else {
        assert_eq!(known().get(name), Some(&row), "{}", kit.printed.join("\n"));
    }
}
