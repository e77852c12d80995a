//! An unmodified amazon_kclpy 3.2.0, which answers well when its record processor raises an exception.

use std::collections::BTreeSet;

use multilangd::letters::list;

use crate::client::{Client, Runs};
use crate::rig::*;
use crate::table::KCLPY;

const RAISES: Client = Client {
    runs: Runs::Python { script: "raises.py", packages: &["amazon_kclpy-3.2.0"], interface: "" },
    ..KCLPY
};

/// Runs 60 records, six of which raise an exception, until the last is processed. Returns the data of the processed
/// records and of the letters.
async fn run(name: &str, more: &str) -> (BTreeSet<String>, BTreeSet<String>) {
    let mut rig = Rig::start(name).await;
    rig.stream(1).await;
    let folder = rig.folder.join("letters");
    std::fs::create_dir_all(&folder).unwrap();
    let settings = format!(
        "maxRecords = 20\ntaskBackoffTimeMillis = 20\nmultilangd.deadLetters = file:{}\n{more}",
        folder.display()
    );
    let file = RAISES.properties(&mut rig, &settings);
    let name = |n: usize| if n % 10 == 4 { format!("poison {n}") } else { format!("fine {n}") };
    let all: Vec<_> = (0..60).map(|n| ("k".to_owned(), name(n).into_bytes())).collect();
    rig.put(&all).await;
    let mut daemon = rig.daemon(&file);
    rig.child_wrote("cannot parse poison").await;
    rig.put(&[("k".to_owned(), b"last".to_vec())]).await;
    let text = |data: &[u8]| String::from_utf8(data.to_vec()).unwrap();
    rig.until("the last record", |log| {
        records(log).values().flatten().any(|record| record.data == b"last")
            && !said(log, "checkpointed").is_empty()
    })
    .await;
    assert_eq!(daemon.stop().await, Some(0), "{}", rig.daemon_log());
    let processed = records(&rig.log).values().flatten().map(|record| text(&record.data)).collect();
    let mut letters = BTreeSet::new();
    for entry in std::fs::read_dir(&folder).unwrap() {
        for letter in list::read(&std::fs::read(entry.unwrap().path()).unwrap()) {
            let letter = letter.unwrap();
            assert_eq!(letter.last_error(), "ValueError: cannot parse poison");
            letters.insert(text(&base64_of(letter.record.data.as_str())));
        }
    }
    (processed, letters)
}

fn base64_of(data: &str) -> Vec<u8> {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.decode(data).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_raise_become_letters_with_child_error_line() {
    let (processed, letters) = run("raises", "multilangd.childErrorLine = kclpy\n").await;
    let poison = |n: &usize| n % 10 == 4;
    assert_eq!(letters, (0..60).filter(poison).map(|n| format!("poison {n}")).collect());
    let fine = (0..60).filter(|n| !poison(n)).map(|n| format!("fine {n}"));
    assert_eq!(processed, fine.chain(["last".to_owned()]).collect());
}

/// The reason for the setting: Java's daemon loses the records too.
#[tokio::test(flavor = "multi_thread")]
async fn records_that_raise_are_lost_without_child_error_line() {
    let (processed, letters) = run("raises-unseen", "").await;
    assert!(letters.is_empty() && !processed.contains("fine 5"), "{processed:?}");
}
