//! Three daemons, which are killed, stopped or frozen one after the other, in an order derived from a seed.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustix::process::Signal;
use tokio::time::{Instant, sleep_until};

use crate::ledger::{Fate, Mark};
use crate::rig::{APPLICATION, Daemon, Rig, STREAM};
use crate::world::World;

/// The time in milliseconds for which all three run before the next fault. It is random: a fixed time would hit
/// the daemons' timers always at the same point.
const SETTLE: std::ops::Range<u64> = 5_000..14_000;
/// Longer than the expiry of a dead worker's leases, so that the others must acquire them.
const KILLED: Duration = Duration::from_secs(25);
const STOPPED: Duration = Duration::from_secs(12);
const FROZEN: Duration = Duration::from_secs(60);

struct Member {
    worker: &'static str,
    /// The number of times that this worker was started.
    starts: u32,
    daemon: Daemon,
}

impl Member {
    fn name(&self) -> String {
        format!("{}{}", self.worker, self.starts)
    }
}

pub struct Fleet {
    members: Vec<Member>,
    /// Duration and exit code of each graceful shutdown.
    pub stops: Vec<(String, Duration, Option<i32>)>,
}

impl Fleet {
    pub fn start(rig: &Rig, world: &World) -> Self {
        let members = ["a", "b", "c"].map(|worker| {
            let member = Member { worker, starts: 1, daemon: launch(rig, worker, 1) };
            world.happened(&member.name(), Fate::Started);
            member
        });
        Self { members: members.into(), stops: Vec::new() }
    }

    /// Injects faults until the time is over. Each daemon restarts before the next fault.
    pub async fn inject_faults(&mut self, rig: &Rig, world: &mut World, seed: u64, end: Instant) {
        let mut random = fastrand::Rng::with_seed(seed);
        let mut at = tokio::time::Instant::now();
        loop {
            let mut blows = [(Fate::Killed, KILLED), (Fate::Stopped, STOPPED), (Fate::Frozen, FROZEN)];
            random.shuffle(&mut blows);
            let mut dealt = false;
            for (blow, lasts) in blows {
                let settle = Duration::from_millis(random.u64(SETTLE));
                if at + settle + lasts > end {
                    continue;
                }
                dealt = true;
                sleep_until(at + settle).await;
                world.assert_sound();
                at += settle + lasts;
                let victim = self.victim(world, &mut random);
                self.inject(rig, world, victim, blow, at).await;
            }
            if !dealt {
                sleep_until(end).await;
                return;
            }
        }
    }

    /// The owner of a random open lease: workers with more leases are chosen more often, because more is
    /// affected.
    fn victim(&self, world: &World, random: &mut fastrand::Rng) -> usize {
        let owners: Vec<Arc<str>> = world.read(|notes| {
            let rows = notes.ledger.samples.last().unwrap().rows.values();
            rows.filter(|row| row.checkpoint != Mark::End).filter_map(|row| row.owner.clone()).collect()
        });
        let owner = random.choice(&owners).expect("some open lease has an owner");
        self.members.iter().position(|member| member.worker == &**owner).unwrap()
    }

    async fn inject(&mut self, rig: &Rig, world: &World, number: usize, blow: Fate, until: Instant) {
        let member = &mut self.members[number];
        let name = member.name();
        // Recorded before the signal is sent, because its consequences must be dated later.
        world.happened(&name, blow);
        match blow {
            Fate::Frozen => {
                member.daemon.signal(Signal::STOP);
                sleep_until(until).await;
                world.happened(&name, Fate::Woken);
                member.daemon.signal(Signal::CONT);
                return;
            }
            Fate::Killed => {
                member.daemon.signal(Signal::KILL);
                assert_eq!(member.daemon.ended().await.code(), None);
            }
            Fate::Started | Fate::Stopped | Fate::Woken | Fate::Dismissed => {
                self.stops.push(stop(member).await);
            }
        }
        sleep_until(until).await;
        member.starts += 1;
        world.happened(&member.name(), Fate::Started);
        member.daemon = launch(rig, member.worker, member.starts);
    }

    /// Stops all daemons concurrently.
    pub async fn stop_all(&mut self, world: &World) {
        for member in &self.members {
            world.happened(&member.name(), Fate::Dismissed);
        }
        let started = tokio::time::Instant::now();
        for member in &self.members {
            member.daemon.signal(Signal::TERM);
        }
        for member in &mut self.members {
            let code = member.daemon.ended().await.code();
            self.stops.push((member.name(), started.elapsed(), code));
        }
    }
}

async fn stop(member: &mut Member) -> (String, Duration, Option<i32>) {
    let started = tokio::time::Instant::now();
    let code = member.daemon.stop().await;
    (member.name(), started.elapsed(), code)
}

/// The daemon's log: one file per worker.
pub fn log(rig: &Rig, worker: &str) -> PathBuf {
    rig.folder.join(format!("{worker}.log"))
}

pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/endurance/processor.py")
}

fn launch(rig: &Rig, worker: &str, start: u32) -> Daemon {
    let file = rig.folder.join(format!("{worker}.properties"));
    let text = format!(
        "clientVersionConfig = CLIENT_VERSION_CONFIG_COMPATIBLE_WITH_2X_PHASE1\n\
         executableName = python3 -S -E {} {} {worker}{start}\nstreamName = {STREAM}\n\
         applicationName = {APPLICATION}\nmetricsLevel = NONE\nworkerId = {worker}\n\
         AWSCredentialsProvider = DefaultCredentialsProvider\nregionName = us-east-1\n\
         kinesisEndpoint = {}\ndynamoDBEndpoint = {}\ninitialPositionInStream = TRIM_HORIZON\n\
         failoverTimeMillis = 10000\nparentShardPollIntervalMillis = 1000\n\
         idleTimeBetweenReadsInMillis = 250\n",
        script().display(),
        rig.port(),
        rig.kinesis.url(),
        rig.tables.url()
    );
    std::fs::write(&file, text).unwrap();
    let path = log(rig, worker);
    let stderr = std::fs::OpenOptions::new().create(true).append(true).open(&path).unwrap();
    let mut daemon = rig.command_to(&["--properties-file", file.to_str().unwrap()], stderr.into());
    daemon.stderr = path;
    daemon
}
