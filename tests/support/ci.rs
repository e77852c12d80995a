//! Runs `examples/ci/check.sh` on the example record processors, and on copies with planted bugs.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::Duration;

use tokio::process::Command;
use tokio::time::timeout;

const LIMIT: Duration = Duration::from_secs(240);

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn folder(name: &str) -> PathBuf {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("ci-{name}-{}", std::process::id()));
    if folder.exists() {
        std::fs::remove_dir_all(&folder).unwrap();
    }
    std::fs::create_dir_all(folder.join("bin")).unwrap();
    symlink(env!("CARGO_BIN_EXE_multilangd"), folder.join("bin/multilangd")).unwrap();
    folder
}

async fn check(folder: &Path, options: &str, processor: &str) -> Output {
    let mut command = Command::new(root().join("examples/ci/check.sh"));
    let path = format!("{}:{}", folder.join("bin").display(), std::env::var("PATH").unwrap());
    command.args(processor.split(' ')).current_dir(folder).kill_on_drop(true);
    command.env("PATH", path).env("TEST_OPTIONS", options).env_remove("RUST_LOG");
    command.env("AWS_EC2_METADATA_DISABLED", "true");
    timeout(LIMIT, command.output()).await.unwrap().unwrap()
}

fn shown(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

pub async fn assert_passes(name: &str, processor: &str) {
    let workflow = std::fs::read_to_string(root().join("examples/ci/workflow.yml")).unwrap();
    assert!(workflow.contains(&format!("- {processor}\n")) && workflow.contains("examples/ci/check.sh"));
    let folder = folder(name);
    symlink(root().join("examples"), folder.join("examples")).unwrap();
    let output = check(&folder, "", processor).await;
    assert_eq!(output.status.code(), Some(0), "{}", shown(&output));
    assert!(shown(&output).contains("done: 1000 records put"), "{}", shown(&output));
    let reports = std::fs::read_dir(folder.join("results")).unwrap().count();
    assert_eq!(reports, 1);
}

/// A bug: the case that finds it, its code, and the text that it replaces in the processor.
pub type Bug = (&'static str, &'static str, &'static str, &'static str);

/// Plants each bug into a copy of a processor: the run fails with the code of the bug.
pub async fn assert_found(name: &str, example: &str, command: &str, bugs: &[Bug]) {
    let folder = folder(name);
    let text = std::fs::read_to_string(root().join(example)).unwrap();
    for (case, code, before, after) in bugs {
        assert_eq!(text.matches(before).count(), 1, "{before}");
        std::fs::write(folder.join("planted"), text.replace(before, after)).unwrap();
        let options = format!("--timeout 8 --case {case}");
        let output = check(&folder, &options, &format!("{command} planted")).await;
        assert_eq!(output.status.code(), Some(1), "{after}: {}", shown(&output));
        assert!(shown(&output).contains(code), "{after}: {}", shown(&output));
    }
}
