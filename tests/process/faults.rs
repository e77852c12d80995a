//! Children that cannot be started, that do not exit, or that leave other processes in their group. Faults in
//! the conversation are in `children/`.

use std::time::Duration;

use rustix::process::Signal;
use tokio::time::Instant;

use crate::rig::*;

fn records_of(n: usize) -> Vec<(String, Vec<u8>)> {
    (0..n).map(|n| (n.to_string(), vec![b'x'; 10])).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn permanently_failing_child_ends_the_daemon_with_code_1() {
    let rig = Rig::start("hopeless").await;
    rig.stream(1).await;
    let file = rig.properties(&rig.scripted("dies-at-start"), "taskBackoffTimeMillis = 20\n");
    let mut daemon = rig.daemon(&file);
    assert_eq!(daemon.ended().await.code(), Some(1));
    let error = fatal_error(&daemon);
    assert!(error.contains("shardId-000000000000") && error.contains("exit code 4"), "{error}");
    assert!(!rig.rows().await["shardId-000000000000"].contains_key("leaseOwner"), "its leases are released");
}

#[tokio::test(flavor = "multi_thread")]
async fn unresponsive_child_is_killed_within_the_container_stop_timeout() {
    let mut rig = Rig::start("ignores-stop").await;
    rig.stream(1).await;
    rig.put(&records_of(1)).await;
    let file = rig.properties(&rig.scripted("ignores-stop hangs"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    let started = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(pids(&rig.log).into_iter().all(is_gone));
}

/// `timeout` and some supervisors signal a process and then its process group.
#[tokio::test(flavor = "multi_thread")]
async fn signals_in_quick_succession_count_as_one() {
    let mut rig = Rig::start("together").await;
    rig.stream(2).await;
    rig.put(&records_of(20)).await;
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("everything", |log| count(log) == 20).await;
    for signal in [Signal::TERM, Signal::INT, Signal::TERM] {
        daemon.signal(signal);
    }
    assert_eq!(daemon.ended().await.code(), Some(0));
    assert!(rig.rows().await.values().all(|row| !row.contains_key("leaseOwner")), "leases are released");
}

/// Images and supervisors choose the signal (`STOPSIGNAL SIGQUIT`, `KillSignal=`).
#[tokio::test(flavor = "multi_thread")]
async fn every_stop_signal_releases_the_leases() {
    for (name, signal) in [("term", Signal::TERM), ("int", Signal::INT), ("quit", Signal::QUIT)] {
        let mut rig = Rig::start(&format!("stop-by-{name}")).await;
        rig.stream(1).await;
        rig.put(&records_of(1)).await;
        let file = rig.properties(&rig.scripted("each"), "");
        let mut daemon = rig.daemon(&file);
        rig.until("a batch", |log| count(log) == 1).await;
        daemon.signal(signal);
        assert_eq!(daemon.ended().await.code(), Some(0), "{name}");
        rig.until("the end of its child", |log| said(log, "shutdownRequested").len() == 1).await;
        assert!(rig.rows().await.values().all(|row| !row.contains_key("leaseOwner")), "{name}");
    }
}

/// Operators send SIGHUP to daemons that reload their files.
#[tokio::test(flavor = "multi_thread")]
async fn sighup_of_a_program_and_sigusr1_are_logged_without_a_stop() {
    let mut rig = Rig::start("reload").await;
    rig.stream(1).await;
    rig.put(&records_of(1)).await;
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    daemon.signal(Signal::HUP);
    rig.logged("reload_not_supported").await;
    daemon.signal(Signal::USR1);
    let logged = rig.logged("status_logged").await;
    let status: serde_json::Value = serde_json::from_str(logged["status"].as_str().unwrap()).unwrap();
    assert_eq!(status["shards"].as_array().map(Vec::len), Some(1), "{status}");
    rig.put(&records_of(1)).await;
    rig.until("another batch", |log| count(log) == 2).await;
    assert_eq!(daemon.stop().await, Some(0));
}

/// A daemon that is the leader of a session, until SIGTERM closes its terminal.
const TERMINAL: &str = "import os, pty, signal, sys\n\
    log = os.dup(2)\n\
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])\n\
    pid, terminal = pty.fork()\n\
    if pid == 0:\n\
    \x20   signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGTERM])\n\
    \x20   os.dup2(log, 2)\n\
    \x20   os.execv(sys.argv[1], sys.argv[1:])\n\
    signal.sigwait([signal.SIGTERM])\n\
    os.close(terminal)\n\
    sys.exit(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) & 255)\n";

#[tokio::test(flavor = "multi_thread")]
async fn terminal_that_goes_away_stops_the_daemon() {
    let mut rig = Rig::start("terminal").await;
    rig.stream(1).await;
    rig.put(&records_of(1)).await;
    let script = rig.folder.join("terminal.py");
    std::fs::write(&script, TERMINAL).unwrap();
    rig.wrapper = vec!["python3".into(), script.into()];
    let file = rig.properties(&rig.scripted("each"), "");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.ended().await.code(), Some(0), "{}", rig.daemon_log());
    assert_eq!(rig.logged("signal_received").await["signal"], "SIGHUP");
    assert!(rig.rows().await.values().all(|row| !row.contains_key("leaseOwner")), "leases are released");
}

// Elsewhere the daemon handles all signals.
#[cfg(target_os = "linux")]
#[tokio::test(flavor = "multi_thread")]
async fn a_signal_ignored_at_start_stays_ignored() {
    for (name, signal) in [("HUP", Signal::HUP), ("INT", Signal::INT), ("QUIT", Signal::QUIT)] {
        let mut rig = Rig::start(&format!("ignored-{name}")).await;
        rig.ignored = Some(name);
        rig.stream(1).await;
        rig.put(&records_of(1)).await;
        let file = rig.properties(&rig.scripted("each"), "");
        let mut daemon = rig.daemon(&file);
        rig.until("a batch", |log| count(log) == 1).await;
        assert!(daemon.ignores(signal), "{name}");
        daemon.signal(signal);
        assert_eq!(daemon.stop().await, Some(0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn second_signal_after_a_while_exits_at_once() {
    let mut rig = Rig::start("again").await;
    rig.stream(1).await;
    rig.put(&records_of(1)).await;
    let file = rig.properties(&rig.scripted("ignores-stop hangs"), "shutdownGraceMillis = 60000\n");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    let started = Instant::now();
    let mut asking = tokio::time::interval(Duration::from_millis(200));
    while logged(&daemon.stderr, "second_signal_received").is_empty() {
        asking.tick().await;
        daemon.signal(Signal::TERM);
        assert!(started.elapsed() < LIMIT);
    }
    assert_eq!(daemon.ended().await.code(), Some(130));
    let took = started.elapsed();
    assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&took), "{took:?}");
    assert!(pids(&rig.log).into_iter().all(is_gone));
}

#[tokio::test(flavor = "multi_thread")]
async fn other_commands_exit_at_the_first_signal() {
    let rig = Rig::start("leases-asked").await;
    let file = rig.properties(&rig.scripted(""), "");
    // Accepts requests and never answers.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("dynamoDBEndpoint=http://{}", silent.local_addr().unwrap());
    let mut leases = rig.command(&["leases", "--set", &endpoint, file.to_str().unwrap()]);
    let _asked = tokio::time::timeout(LIMIT, silent.accept()).await.unwrap().unwrap();
    assert_eq!(leases.stop().await, Some(130));
}

#[tokio::test(flavor = "multi_thread")]
async fn orphans_of_a_wrapper_are_killed_before_restart() {
    let mut rig = Rig::start("wrapper").await;
    rig.stream(1).await;
    rig.put(&records_of(1)).await;
    let script = rig.folder.join("wrapper.sh");
    // The processor is not the process that the daemon starts, and outlives it.
    let text = format!("#!/bin/sh\nexec 3<&0\n{} <&3 3<&- &\nwait\n", rig.scripted("hangs"));
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let file = rig.properties(script.to_str().unwrap(), "taskBackoffTimeMillis = 20\n");
    let mut daemon = rig.daemon(&file);
    rig.until("a batch", |log| count(log) == 1).await;
    let [first] = pids(&rig.log).into_iter().collect::<Vec<_>>()[..] else { panic!("one child") };
    kill_parent_of(first);
    rig.until("a second child", |log| said(log, "initialize").len() >= 2).await;
    let place = |wanted: &dyn Fn(&Report) -> bool| rig.log.iter().position(wanted);
    let gone = place(&|report| *report == Report::Gone { pid: first });
    let second = place(&|report| matches!(report, Report::Said { pid, .. } if *pid != first));
    assert!(gone.is_some() && gone < second, "{:?}", rig.log);
    daemon.stop().await;
    assert!(pids(&rig.log).into_iter().all(is_gone));
}

/// Kills the wrapper script, which the daemon started, by its pid.
fn kill_parent_of(pid: i32) {
    let parent = parent(pid);
    assert!(parent > 1);
    let command = command_line(parent);
    assert!(command.contains("wrapper.sh"), "{command}");
    rustix::process::kill_process(
        rustix::process::Pid::from_raw(parent).unwrap(),
        rustix::process::Signal::KILL,
    )
    .unwrap();
}

/// Forwards connections until it is closed; from then on it accepts data and answers nothing.
async fn gate(
    to: &str,
) -> (std::net::SocketAddr, tokio::sync::watch::Sender<bool>, tokio::task::JoinSet<()>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (shut, is_shut) = tokio::sync::watch::channel(false);
    let to = to.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let mut task = tokio::task::JoinSet::new();
    task.spawn(async move {
        let mut connections = tokio::task::JoinSet::new();
        loop {
            let (mut near, _) = listener.accept().await.unwrap();
            let (to, mut is_shut) = (to.clone(), is_shut.clone());
            connections.spawn(async move {
                let mut far = tokio::net::TcpStream::connect(to).await.unwrap();
                let shut = async { is_shut.wait_for(|shut| *shut).await.map(|_| ()) };
                tokio::select! {
                    biased;
                    _shut = shut => std::future::pending().await,
                    _ended = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                }
            });
        }
    });
    (address, shut, task)
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_is_bounded_with_hanging_dynamodb_and_stuck_children() {
    let mut rig = Rig::start("hanging").await;
    rig.stream(4).await;
    let (address, shut, _task) = gate(&rig.tables.url()).await;
    let file = rig.properties(&rig.scripted("ignores-stop hangs"), "");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&rig.tables.url(), &format!("http://{address}"))).unwrap();
    let mut daemon = rig.daemon(&file);
    let records: Vec<_> = (0..40).map(|n| (format!("key-{n}"), vec![b'x'; 10])).collect();
    rig.put(&records).await;
    rig.until("a batch for each child", |log| said(log, "processRecords").len() == 4).await;
    shut.send_replace(true);
    let started = Instant::now();
    assert_eq!(daemon.stop().await, Some(0));
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert!(pids(&rig.log).into_iter().all(is_gone));
}

/// Each kind of request fails during the outage; the leases expire, which is one line for each shard.
#[tokio::test(flavor = "multi_thread")]
async fn dynamodb_outage_is_one_warning_and_one_recovery() {
    let mut rig = Rig::start("outage").await;
    rig.stream(2).await;
    let (address, shut, _task) = gate(&rig.tables.url()).await;
    let file = rig.properties(&rig.scripted("checkpoints"), "failoverTimeMillis = 3000\n");
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replace(&rig.tables.url(), &format!("http://{address}"))).unwrap();
    let mut daemon = rig.daemon(&file);
    rig.put(&records_of(20)).await;
    rig.until("both shards are read", |log| count(log) == 20).await;
    shut.send_replace(true);
    let endpoint = format!("http://{address}");
    rig.logged_where("endpoint_unreachable", |line| {
        line["endpoint"].as_str().unwrap().starts_with(&endpoint)
    })
    .await;
    rig.until("both leases are lost", |log| said(log, "leaseLost").len() == 2).await;
    shut.send_replace(false);
    rig.logged_where("endpoint_reachable", |line| line["endpoint"].as_str().unwrap().starts_with(&endpoint))
        .await;
    rig.put(&records_of(40)).await;
    rig.until("both shards are read again", |log| count(log) >= 60).await;
    assert_eq!(daemon.stop().await, Some(0));
    let lines = log_lines(&daemon.stderr);
    let of_worker = |line: &&serde_json::Value| line["level"] != "INFO" && line.get("shard").is_none();
    // On a slow machine the outage lasts until the worker reports that it accepts no leases.
    let is_report = |line: &serde_json::Value| line["event"] == "worker_unavailable";
    let of_worker: Vec<_> = lines.iter().filter(of_worker).filter(|line| !is_report(line)).collect();
    assert_eq!(of_worker.len(), 1, "{of_worker:#?}");
    assert_eq!(of_worker[0]["event"], "endpoint_unreachable");
}
