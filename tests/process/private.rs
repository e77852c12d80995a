//! Files of `multilangd local`: accessible to their user only, never written through links, and no foreign file
//! is deleted.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};

use rustix::process::Signal;

use crate::rig::*;

const ANY_PORTS: [&str; 5] = ["local", "--kinesis-port", "0", "--dynamodb-port", "0"];

fn with<'a>(more: &[&'a str]) -> Vec<&'a str> {
    [&ANY_PORTS[..], more].concat()
}

/// The modes of a folder and everything within it.
fn modes(folder: &Path) -> BTreeMap<PathBuf, u32> {
    let mut modes = BTreeMap::new();
    let mut left = vec![folder.to_owned()];
    while let Some(path) = left.pop() {
        let found = std::fs::symlink_metadata(&path).unwrap();
        if found.is_dir() {
            left.extend(std::fs::read_dir(&path).unwrap().map(|entry| entry.unwrap().path()));
        }
        modes.insert(path, found.permissions().mode() & 0o7777);
    }
    modes
}

#[tokio::test(flavor = "multi_thread")]
async fn example_folder_is_private_and_foreign_files_stay() {
    let mut rig = Rig::start("private-temporary").await;
    let temporary = rig.folder.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    rig.environment.push(("TMPDIR".into(), temporary.clone().into()));
    let inside = || std::fs::read_dir(&temporary).unwrap().map(|entry| entry.unwrap().path());

    let mut daemon = rig.command(&with(&[]));
    let pid = daemon.pid().to_string();
    daemon.until(has_progress).await;
    let folders: Vec<PathBuf> = inside().collect();
    let [folder] = &folders[..] else { panic!("{folders:?}") };
    let name = folder.file_name().unwrap().to_str().unwrap();
    let random = name.strip_prefix("multilangd-local-").unwrap();
    assert!(random.len() == 32 && random != pid && random.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    let processor = folder.join("processor.py");
    assert_eq!(modes(folder), BTreeMap::from([(folder.clone(), 0o700), (processor.clone(), 0o600)]));
    // A file that the daemon did not create.
    let other = folder.join("other");
    std::fs::write(&other, "kept").unwrap();
    assert_eq!(daemon.stop().await, Some(0));
    assert_eq!(inside().collect::<Vec<_>>(), folders);
    assert!(other.exists() && !processor.exists());
    std::fs::remove_dir_all(folder).unwrap();

    let mut daemon = rig.command(&with(&[]));
    daemon.until(has_progress).await;
    daemon.signal(Signal::INT);
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert_eq!(inside().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn temporary_folder_writable_by_others_is_rejected() {
    let mut rig = Rig::start("private-sticky").await;
    let temporary = rig.folder.join("tmp");
    std::fs::create_dir(&temporary).unwrap();
    std::fs::set_permissions(&temporary, Permissions::from_mode(0o777)).unwrap();
    rig.environment.push(("TMPDIR".into(), temporary.clone().into()));
    let mut daemon = rig.command(&with(&[]));
    assert_eq!(daemon.ended().await.code(), Some(78));
    let log = std::fs::read_to_string(&daemon.stderr).unwrap();
    assert!(log.contains(temporary.to_str().unwrap()) && log.contains("TMPDIR"), "{log}");
    assert_eq!(std::fs::read_dir(&temporary).unwrap().count(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn data_is_accessible_to_its_user_only() {
    let rig = Rig::start("private-data").await;
    let data = rig.folder.join("of/this/run");
    let mut daemon = rig.command(&with(&["--data", data.to_str().unwrap()]));
    daemon.until(has_progress).await;
    let running = modes(&data);
    assert_eq!(daemon.stop().await, Some(0));
    for modes in [running, modes(&data)] {
        assert!(modes.keys().any(|path| path.ends_with("dynamodb.sqlite")), "{modes:?}");
        assert!(modes.keys().any(|path| path.extension().is_some_and(|end| end == "log")), "{modes:?}");
        for (path, mode) in &modes {
            let wanted = if path.is_dir() { 0o700 } else { 0o600 };
            assert_eq!(*mode, wanted, "{} has {mode:o}", path.display());
        }
        assert!(!modes.keys().any(|path| path.ends_with("processor.py")), "it is not data: {modes:?}");
    }
    let exposed = logged(&daemon.stderr, "data_folder_exposed");
    assert!(exposed.is_empty(), "a folder of mode 0700 is not exposed: {exposed:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn data_folder_open_to_others_is_named_and_unchanged() {
    let rig = Rig::start("private-wide").await;
    let data = rig.folder.join("wide");
    std::fs::create_dir(&data).unwrap();
    std::fs::set_permissions(&data, Permissions::from_mode(0o755)).unwrap();
    let mut daemon = rig.command(&with(&["--data", data.to_str().unwrap()]));
    daemon.until(has_progress).await;
    assert_eq!(daemon.stop().await, Some(0));
    let warnings = logged(&daemon.stderr, "data_folder_exposed");
    let [warning] = &warnings[..] else { panic!("{warnings:#?}") };
    assert_eq!((&warning["level"], &warning["mode"]), (&"WARN".into(), &"0755".into()));
    assert_eq!(warning["folder"], data.to_str().unwrap());
    assert_eq!(modes(&data)[&data], 0o755);
}

#[tokio::test(flavor = "multi_thread")]
async fn links_within_the_data_folder_are_not_followed() {
    let rig = Rig::start("private-links").await;
    let victim = rig.folder.join("victim");
    std::fs::write(&victim, "not ours").unwrap();
    let elsewhere = rig.folder.join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    for (number, (name, target)) in [
        ("kinesis", &elsewhere),
        ("kinesis/lock", &victim),
        ("kinesis/journal.log", &victim),
        ("kinesis/streams", &elsewhere),
        ("dynamodb.sqlite", &victim),
        ("dynamodb.sqlite-wal", &victim),
    ]
    .into_iter()
    .enumerate()
    {
        let data = rig.folder.join(format!("data-{number}"));
        let link = data.join(name);
        std::fs::create_dir_all(link.parent().unwrap()).unwrap();
        symlink(target, &link).unwrap();
        let mut daemon = rig.command(&with(&["--data", data.to_str().unwrap()]));
        // The folder of a stream is created with its first record, which is then rejected.
        let code = daemon.ended().await.code();
        let log = std::fs::read_to_string(&daemon.stderr).unwrap();
        assert!(code.is_some_and(|code| code == 66), "{name}: {code:?}\n{log}");
        assert!(log.contains(link.to_str().unwrap()), "{name}: {log}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "not ours", "{name}");
        assert_eq!(std::fs::read_dir(&elsewhere).unwrap().count(), 0, "{name}");
    }
}
