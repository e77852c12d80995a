//! Large fleets: they settle quickly, make few calls, and no cost grows quadratically.
//!
//! The default test runs a small fleet; larger ones (the second takes two minutes):
//!
//! ```text
//! SCALE=1x1000 cargo test --release --test fleet scale -- --nocapture
//! SCALE=100x10000 cargo test --release --test fleet scale -- --nocapture
//! ```

use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::story::{Story, simulate};

const SECOND: Duration = Duration::from_secs(1);

/// The measurements of one fleet size.
#[derive(Debug)]
struct Figures {
    /// Simulated time from the start until the last lease has its first owner, and until shares are even.
    owned: Duration,
    even: Duration,
    /// Calls per lease-hour at rest.
    calls: f64,
    scans: f64,
    /// CPU time per simulated lease-hour at rest, of the daemon and the simulation together.
    cpu: Duration,
    /// Resident memory per lease in bytes, without children and their records, but with the simulation's
    /// tables.
    memory: usize,
}

/// CPU time of this process so far.
fn cpu_time() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ThreadCPUTime);
    Duration::new(u64::try_from(time.tv_sec).unwrap(), u32::try_from(time.tv_nsec).unwrap())
}

/// Resident memory of this process in bytes.
fn resident() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: usize = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size()
}

fn measure(workers: usize, shards: u128) -> Figures {
    let before = resident();
    simulate(1, async {
        let mut story = Story::quiet(1, shards);
        for _ in 0..workers {
            story.join(None);
        }
        let start = Instant::now();
        let wait = async |what: &str, reached: &dyn Fn(&Story) -> bool| {
            while !reached(&story) {
                assert!(start.elapsed() < SECOND * 900, "{what}: not within 15 min");
                sleep(SECOND).await;
            }
            start.elapsed()
        };
        let all = usize::try_from(shards).unwrap();
        let owned = |story: &Story| {
            let owners = story.owners();
            !owners.contains_key(&None) && owners.values().map(Vec::len).sum::<usize>() == all
        };
        let owned = wait("every lease has an owner", &owned).await;
        let even = wait("the shares are even", &Story::is_settled).await;
        sleep(SECOND * 60).await;
        let memory = resident().saturating_sub(before) / all;
        let (calls, time) = (story.world.state().calls.clone(), cpu_time());
        let rest = SECOND * 120;
        sleep(rest).await;
        let spent = cpu_time() - time;
        let now = story.world.state().calls.clone();
        #[expect(clippy::cast_precision_loss, reason = "small numbers")]
        let lease_hours = all as f64 * rest.as_secs_f64() / 3_600.0;
        let rate = |names: &[&str]| {
            let made: u64 =
                names.iter().map(|name| now.get(name).unwrap_or(&0) - calls.get(name).unwrap_or(&0)).sum();
            #[expect(clippy::cast_precision_loss, reason = "small numbers")]
            let rate = made as f64 / lease_hours;
            rate
        };
        assert!(
            story.world.state().oracle.violations.is_empty(),
            "{:?}",
            story.world.state().oracle.violations
        );
        Figures {
            owned,
            even,
            calls: rate(&["UpdateItem", "Scan", "GetItem", "PutItem", "DeleteItem"]),
            scans: rate(&["Scan"]),
            cpu: spent.div_f64(lease_hours),
            memory,
        }
    })
}

#[test]
fn fleets_of_any_size_settle_with_few_calls() {
    let sizes = match std::env::var("SCALE") {
        Ok(text) => {
            let (workers, shards) = text.split_once('x').expect("SCALE is WORKERSxSHARDS");
            vec![(workers.parse().unwrap(), shards.parse().unwrap())]
        }
        Err(_) => vec![(1, 200), (10, 200), (10, 400)],
    };
    for (workers, shards) in sizes {
        let figures = measure(workers, shards);
        println!(
            "{workers} workers, {shards} shards: all owned after {:.0?}, even after {:.0?}; a lease-hour: {:.0} calls ({:.1} \
             scans), {:.0?} of a cpu; {} bytes a lease",
            figures.owned, figures.even, figures.calls, figures.scans, figures.cpu, figures.memory
        );
        assert!(figures.owned <= SECOND * 20, "{figures:?}");
        // Java: 1,088 renewals, and 745 further calls per worker and hour.
        assert!(figures.calls < 1_088.0 + 745.0, "{figures:?}");
    }
}
