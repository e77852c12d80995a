//! A log that nobody reads holds nobody up.

use std::os::fd::OwnedFd;
use std::process::Stdio;

use crate::rig::*;

/// stderr is a pipe that is full and never read, and the child prints all the time: records go on.
#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_does_not_read_holds_nobody_up() {
    let mut rig = Rig::start("unread").await;
    rig.stream(2).await;
    let script = rig.folder.join("chatty.sh");
    let text =
        format!("#!/bin/sh\nhead -c 3000000 /dev/zero | tr '\\0' '\\n' >&2\nexec {}\n", rig.scripted("each"));
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = rig.properties(script.to_str().unwrap(), "failoverTimeMillis = 6000\n");
    let (unread, stderr) = std::io::pipe().unwrap();
    let mut daemon =
        rig.command_to(&["--log", "trace", file.to_str().unwrap()], Stdio::from(OwnedFd::from(stderr)));
    for round in 0..5 {
        let records: Vec<_> = (0..50).map(|n| (format!("{round}-{n}"), vec![b'x'; 1000])).collect();
        rig.put(&records).await;
        rig.until("a round of records", |log| count(log) == 50 * (round + 1)).await;
    }
    assert_eq!(said(&rig.log, "initialize").len(), 2, "no lease was lost");
    daemon.signal(rustix::process::Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0));
    drop(unread);
}
