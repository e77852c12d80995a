//! The example processor of the README, exactly as printed.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use crate::client::part;
use crate::rig::*;

#[tokio::test(flavor = "multi_thread")]
async fn readme_processor_runs_as_printed() {
    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md")).unwrap();
    let (_, rest) = page.split_once("```python\n").unwrap();
    let (program, _) = rest.split_once("```").unwrap();
    let mut rig = Rig::start("readme").await;
    rig.stream(1).await;
    let texts: Vec<String> = (0..20).map(|n| format!("record-{n:02}")).collect();
    rig.put(&texts.iter().map(|text| ("k".to_owned(), text.clone().into_bytes())).collect::<Vec<_>>()).await;
    let place = rig.folder.join("processor.py");
    std::fs::write(&place, program).unwrap();
    std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o755)).unwrap();
    rig.environment.push(("PYTHONPATH".into(), part("amazon_kclpy-3.2.0").into()));
    let file = rig.properties(place.to_str().unwrap(), "");
    let mut daemon = rig.daemon(&file);
    rig.logged("b'record-19'").await;
    assert_eq!(daemon.stop().await, Some(0));
    let log = rig.daemon_log();
    for text in texts {
        assert_eq!(log.matches(&format!("b'{text}'")).count(), 1, "{log}");
    }
    let row = rig.rows().await.remove("shardId-000000000000").unwrap();
    assert!(row["checkpoint"].as_s().unwrap().starts_with("49"), "{row:?}");
}
