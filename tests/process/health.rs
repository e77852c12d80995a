//! `multilangd health` and `multilangd install`.

use std::os::unix::fs::PermissionsExt as _;
use std::time::Duration;

use crate::rig::*;

/// Runs a command to its end; returns the exit code, and its own lines on stderr.
async fn run(rig: &Rig, arguments: &[&str]) -> (Option<i32>, String) {
    let log = rig.folder.join("command.log");
    let mut command = rig.command_to(arguments, std::fs::File::create(&log).unwrap().into());
    let code = command.ended().await.code();
    (code, std::fs::read_to_string(log).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn health_distinguishes_alive_ready_and_absent_daemons() {
    let mut rig = Rig::start("health").await;
    rig.environment.push(("MULTILANGD_STATUS".into(), "0".into()));
    // Without a stream the daemon is alive, but not ready.
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    let address = rig.status_address().await;
    // Commands find the port that the daemon got in their environment.
    rig.environment.push(("MULTILANGD_STATUS".into(), address.clone().into()));
    let file = file.to_str().unwrap();
    assert_eq!(run(&rig, &["health"]).await, (Some(0), String::new()));
    assert_eq!(run(&rig, &["health", file]).await, (Some(0), String::new()));
    let (code, text) = run(&rig, &["health", "--ready", file]).await;
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains(&format!("http://{address}/readyz")) && text.contains("503"), "{text}");

    rig.stream(1).await;
    let ready = async {
        let mut looks = tokio::time::interval(Duration::from_millis(100));
        while run(&rig, &["health", "--ready", "--status", &address]).await.0 != Some(0) {
            looks.tick().await;
        }
    };
    tokio::time::timeout(LIMIT, ready).await.expect("the daemon becomes ready");
    assert_eq!(daemon.stop().await, Some(0));
    let (code, text) = run(&rig, &["health"]).await;
    assert_eq!((code, text.lines().count()), (Some(1), 1), "{text}");
    assert!(text.contains(&format!("http://{address}/livez")), "{text}");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_without_an_address_names_the_setting() {
    let rig = Rig::start("health-off").await;
    for arguments in [&["health"][..], &["health", "--status", "0"], &["health", "/no/such.properties"]] {
        let (code, text) = run(&rig, arguments).await;
        let named = text.contains("--status ADDRESS:PORT") || text.contains("/no/such.properties");
        assert!(code == Some(1) && text.lines().count() == 1 && named, "{arguments:?}: {text}");
    }
    assert_eq!(run(&rig, &["health", "--status", "nowhere"]).await.0, Some(64));
}

#[tokio::test(flavor = "multi_thread")]
async fn installed_binary_runs_and_has_its_certificates() {
    let mut rig = Rig::start("install").await;
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/certificate.pem");
    rig.environment.push(("SSL_CERT_FILE".into(), bundle.into()));
    let folder = rig.folder.join("shared");
    std::fs::create_dir(&folder).unwrap();
    let mut install = rig.command(&["install", folder.to_str().unwrap()]);
    assert_eq!(install.ended().await.code(), Some(0), "{}", rig.daemon_log());
    let paths = ["multilangd", "ca-certificates.crt"].map(|name| folder.join(name));
    assert_eq!(install.printed, paths.clone().map(|path| format!("wrote {}", path.display())));
    assert_eq!(std::fs::metadata(&paths[0]).unwrap().permissions().mode() & 0o777, 0o755);
    assert!(std::fs::read_to_string(&paths[1]).unwrap().contains("BEGIN CERTIFICATE"));
    let version = std::process::Command::new(&paths[0]).arg("--version").output().unwrap();
    assert!(version.status.success());
    let missing = rig.folder.join("missing").to_str().unwrap().to_owned();
    let (code, text) = run(&rig, &["install", &missing]).await;
    assert!(code == Some(66) && text.contains(&missing), "{text}");
}
