//! A child that sends its messages and exits before it has read the answer to an earlier checkpoint. Its
//! messages are processed before its exit, however long storing the checkpoint takes.

use std::time::Duration;

use multilangd::multilang::{Child, Event, ForShard, Launcher, Program};
use multilangd_protocol::{Action, Dialect, ToChild, session};
use tokio::time::timeout;

use crate::rig::{LIMIT, watch};

async fn next(child: &mut Child) -> Event {
    timeout(LIMIT, child.next()).await.expect("nothing happens")
}

/// When the grace period of a shutdown is over, the daemon closes the stdin of a busy child; the child then
/// requests a checkpoint that is not answered, and exits. The exit is reported at once, not after the SIGTERM
/// and SIGKILL delays.
#[tokio::test]
async fn exit_is_reported_despite_a_pending_answer() {
    let script = "read line; printf '{\"action\":\"checkpoint\"}\\n'; read answer; exit 7";
    let folder =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("owed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("owed.sh"), script).unwrap();
    let program = Program::find(&format!("/bin/sh {}", folder.join("owed.sh").display()), None).unwrap();
    let program = program.started_by(Launcher::direct().unwrap());
    let mut child = Child::spawn(&program, Dialect::Current, &ForShard::of(&"s".into())).await.unwrap();
    child.send(&ToChild::ShutdownRequested);
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));
    child.close_stdin();
    assert_eq!(next(&mut child).await, Event::Exited("exit code 7".to_owned()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn messages_before_the_exit_are_processed() {
    let script = "read line\n\
                  printf '{\"action\":\"checkpoint\"}\\n{\"action\":\"checkpoint\"}\\n{\"action\":\"status\",\"responseFor\":\"shardEnded\"}\\n'";
    let folder =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("early-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("early.sh"), script).unwrap();
    let program = Program::find(&format!("/bin/sh {}", folder.join("early.sh").display()), None).unwrap();
    let program = program.started_by(Launcher::direct().unwrap());
    let mut child = Child::spawn(&program, Dialect::Current, &ForShard::of(&"s".into())).await.unwrap();
    let process = watch(i32::try_from(child.pid()).unwrap()).unwrap();
    child.send(&ToChild::ShardEnded);
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));

    // The process is gone while its checkpoint is being stored, and time advances.
    process.ended().await;
    let early = timeout(Duration::from_millis(1500), child.next()).await;
    assert!(early.is_err(), "reported before the answer: {early:?}");

    child.acknowledge(Ok(()));
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));
    child.acknowledge(Ok(()));
    assert_eq!(next(&mut child).await, Event::Said(session::Event::Done(Action::ShardEnded)));
    assert!(matches!(next(&mut child).await, Event::Exited(_)));
    std::fs::remove_dir_all(folder).unwrap();
}
