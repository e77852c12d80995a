//! A child that says what is owed and ends before it has read the answer to an earlier checkpoint. What it
//! said comes before its end, however long the checkpoint takes to be stored.

use std::time::Duration;

use multilangd::multilang::{Child, Event, Launcher, Program};
use multilangd_protocol::{Action, Dialect, ToChild, session};
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use tokio::time::timeout;

use crate::rig::LIMIT;

async fn next(child: &mut Child) -> Event {
    timeout(LIMIT, child.next()).await.expect("nothing happens")
}

/// A stop whose grace is over closes the stdin of a child that is busy; the child then asks for a checkpoint
/// that nobody answers, and ends. Its end is told at once, not after SIGTERM and SIGKILL have had their time.
#[tokio::test]
async fn is_gone_although_an_answer_was_owed_when_its_stdin_was_closed() {
    let script = "read line; printf '{\"action\":\"checkpoint\"}\\n'; read answer; exit 7";
    let folder =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("owed-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("owed.sh"), script).unwrap();
    let program = Program::find(&format!("/bin/sh {}", folder.join("owed.sh").display()), None).unwrap();
    let program = program.started_by(Launcher::direct().unwrap());
    let mut child = Child::spawn(&program, Dialect::Current, &"s".into()).await.unwrap();
    child.send(&ToChild::ShutdownRequested);
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));
    child.close_stdin();
    assert_eq!(next(&mut child).await, Event::Exited("exit code 7".to_owned()));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test]
async fn is_heard_to_the_end() {
    let script = "read line\n\
                  printf '{\"action\":\"checkpoint\"}\\n{\"action\":\"checkpoint\"}\\n{\"action\":\"status\",\"responseFor\":\"shardEnded\"}\\n'";
    let folder =
        std::path::PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("early-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join("early.sh"), script).unwrap();
    let program = Program::find(&format!("/bin/sh {}", folder.join("early.sh").display()), None).unwrap();
    let program = program.started_by(Launcher::direct().unwrap());
    let mut child = Child::spawn(&program, Dialect::Current, &"s".into()).await.unwrap();
    let pid = Pid::from_raw(i32::try_from(child.pid()).unwrap()).unwrap();
    let ended = pidfd_open(pid, PidfdFlags::empty()).unwrap();
    child.send(&ToChild::ShardEnded);
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));

    // The process is gone while its checkpoint is being stored, and time goes by.
    #[expect(
        deprecated,
        reason = "its replacement is unsafe for types that could close their descriptor; OwnedFd can't"
    )]
    let ended = tokio::io::unix::AsyncFd::new(ended).unwrap();
    let _guard = ended.readable().await.unwrap();
    let early = timeout(Duration::from_millis(1500), child.next()).await;
    assert!(early.is_err(), "told before the answer: {early:?}");

    child.acknowledge(Ok(()));
    assert!(matches!(next(&mut child).await, Event::Said(session::Event::Checkpoint { .. })));
    child.acknowledge(Ok(()));
    assert_eq!(next(&mut child).await, Event::Said(session::Event::Done(Action::ShardEnded)));
    assert!(matches!(next(&mut child).await, Event::Exited(_)));
    std::fs::remove_dir_all(folder).unwrap();
}
