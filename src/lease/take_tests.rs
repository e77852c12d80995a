//! Tests of acquiring and stealing: the shares of KCL 2.x, and the deliberate differences.

use super::*;
use crate::lease::handoff::NONE;
use crate::sequence::{Position, Sequence};
use crate::shard::HashRange;

const FAILOVER: Duration = Duration::from_secs(10);

fn lease(key: &str, owner: Option<&str>, counter: i64) -> Lease {
    let range = HashRange { start: 0, end: 9 };
    let mut lease = Lease::new(key.into(), Position::new(Sequence::TrimHorizon), BTreeSet::new(), range);
    lease.owner = owner.map(Into::into);
    lease.counter = counter;
    lease
}

/// This many leases of each owner; `-` means unowned.
fn fleet(owners: &[(&str, usize)]) -> Vec<Lease> {
    let mut leases = Vec::new();
    for (owner, count) in owners {
        for index in 0..*count {
            let owner = Some(*owner).filter(|owner| *owner != "-");
            leases.push(lease(&format!("{}-{index}", owner.unwrap_or("free")), owner, 1));
        }
    }
    leases
}

fn held(leases: &[Lease]) -> BTreeSet<LeaseKey> {
    let mine = leases.iter().filter(|lease| lease.owner == Some("me".into()));
    mine.map(|lease| lease.key.clone()).collect()
}

struct Question<'a> {
    held: &'a [&'a str],
    max_leases: usize,
    max_steals: usize,
}

impl Default for Question<'_> {
    fn default() -> Self {
        Self { held: &[], max_leases: usize::MAX, max_steals: 1 }
    }
}

impl Question<'_> {
    fn ask(&self, leases: &[Lease], history: &History, now: Instant) -> (Vec<String>, Vec<String>) {
        let held = self.held.iter().map(|id| LeaseKey::from(*id)).collect();
        let asker = Asker {
            me: &"me".into(),
            held: &held,
            failover: FAILOVER,
            max_leases: self.max_leases,
            max_steals: self.max_steals,
            priority: true,
            stalled: &NONE,
        };
        let plan = asker.view(leases, history, now).plan(&mut fastrand::Rng::with_seed(7));
        let names = |leases: Vec<&Lease>| {
            let mut names: Vec<String> = leases.iter().map(|lease| lease.key.to_string()).collect();
            names.sort();
            names
        };
        (names(plan.take), names(plan.steal))
    }

    fn taken(&self, leases: &[Lease], history: &History, now: Instant) -> Vec<String> {
        self.ask(leases, history, now).0
    }
}

/// How many a worker takes and steals that sees this fleet for the first time, holding its own.
fn first_look(owners: &[(&str, usize)]) -> (usize, usize) {
    let leases = fleet(owners);
    let held = held(&leases);
    let asker = Asker {
        me: &"me".into(),
        held: &held,
        failover: FAILOVER,
        max_leases: usize::MAX,
        max_steals: 1,
        priority: true,
        stalled: &NONE,
    };
    let mut history = History::default();
    let now = Instant::now();
    history.note_scan(&leases, now);
    let plan = asker.view(&leases, &history, now).plan(&mut fastrand::Rng::with_seed(3));
    (plan.take.len(), plan.steal.len())
}

#[test]
fn own_and_unowned_leases_are_acquired_at_once() {
    let start = Instant::now();
    let mut leases = vec![
        lease("a", None, 0),
        lease("b", Some("me"), 7),
        lease("c", Some("x"), 3),
        lease("d", Some("y"), 1),
    ];
    let mut history = History::default();
    history.note_scan(&leases, start);
    let question = Question::default();
    assert_eq!(question.taken(&leases, &history, start), ["a", "b"]);
    leases[3].counter = 2;
    let later = start + FAILOVER;
    history.note_scan(&leases, later);
    let question = Question { held: &["a", "b"], ..Question::default() };
    assert_eq!(
        question.taken(&leases, &history, later),
        [""; 0],
        "exactly the failover time is not yet over"
    );
    let later = later + Duration::from_millis(1);
    assert_eq!(
        question.taken(&leases, &history, later),
        [""; 0],
        "of four leases two are this worker's share"
    );
    let question = Question { held: &["b"], ..Question::default() };
    leases[0].owner = Some("y".into());
    leases[0].counter = 9;
    history.note_scan(&leases, later);
    assert_eq!(question.taken(&leases, &history, later), ["c"]);
}

#[test]
fn share_is_even_and_rounded_up_among_live_workers() {
    assert_eq!(first_look(&[("-", 8)]), (8, 0), "alone");
    assert_eq!(first_look(&[("x", 4), ("-", 4)]), (4, 0));
    assert_eq!(first_look(&[("x", 4), ("y", 4), ("-", 4)]), (4, 0));
    assert_eq!(first_look(&[("x", 1), ("y", 1), ("-", 1)]), (1, 0));
    assert_eq!(first_look(&[("me", 2), ("x", 2), ("-", 3)]), (2, 0), "seven among two: four");
    assert_eq!(first_look(&[("me", 1), ("x", 1), ("y", 1)]), (0, 0), "as many workers as leases");
}

#[test]
fn nothing_is_stolen_while_leases_can_be_acquired() {
    assert_eq!(first_look(&[("x", 9), ("-", 1)]), (1, 0));
}

#[test]
fn one_lease_is_stolen_from_a_worker_over_its_share() {
    assert_eq!(first_look(&[("x", 4)]), (0, 1));
    assert_eq!(first_look(&[("x", 2), ("y", 2)]), (0, 1), "nobody is over, but two are missing here");
    assert_eq!(first_look(&[("me", 1), ("x", 2)]), (0, 0), "one more here would be one less there");
    assert_eq!(first_look(&[("x", 1)]), (0, 0), "the only lease stays where it is");
    let leases = fleet(&[("x", 10)]);
    let mut history = History::default();
    history.note_scan(&leases, Instant::now());
    let greedy = Question { max_steals: 9, ..Question::default() };
    assert_eq!(greedy.ask(&leases, &history, Instant::now()).1.len(), 5, "no more than the share");
    let full = Question { max_leases: 0, ..Question::default() };
    assert_eq!(full.ask(&leases, &history, Instant::now()), (vec![], vec![]));
}

#[test]
fn victim_is_random_among_workers_over_their_share() {
    let leases = fleet(&[("x", 6), ("y", 6), ("z", 3)]);
    let mut history = History::default();
    let now = Instant::now();
    history.note_scan(&leases, now);
    let held = BTreeSet::new();
    let asker = Asker {
        me: &"me".into(),
        held: &held,
        failover: FAILOVER,
        max_leases: 99,
        max_steals: 1,
        priority: true,
        stalled: &NONE,
    };
    let mut random = fastrand::Rng::with_seed(1);
    let mut victims: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..100 {
        let plan = asker.view(&leases, &history, now).plan(&mut random);
        *victims.entry(plan.steal[0].owner.as_ref().unwrap().to_string()).or_default() += 1;
    }
    assert!(victims["x"] > 20 && victims["y"] > 20 && !victims.contains_key("z"), "{victims:?}");
}

#[test]
fn long_expired_lease_is_acquired_beyond_the_share() {
    let start = Instant::now();
    let mut leases = fleet(&[("me", 2), ("x", 1), ("-", 1)]);
    let mut history = History::default();
    history.note_scan(&leases, start);
    let mine = Question { held: &["me-0", "me-1"], ..Question::default() };
    assert_eq!(mine.taken(&leases, &history, start), [""; 0], "two of four are the share");
    let later = start + 3 * FAILOVER + Duration::from_millis(1);
    leases[2].counter += 1;
    history.note_scan(&leases, later);
    assert_eq!(mine.taken(&leases, &history, later), ["free-0"], "nobody took it");
}

#[test]
fn pending_handoff_is_left_to_its_live_owner() {
    let start = Instant::now();
    let mut handing = lease("a", Some("me"), 1);
    handing.checkpoint_owner = Some("old".into());
    let mut history = History::default();
    history.note_scan(std::slice::from_ref(&handing), start);
    assert_eq!(Question::default().ask(std::slice::from_ref(&handing), &history, start), (vec![], vec![]));
    let mut leases = fleet(&[("x", 4)]);
    leases.iter_mut().for_each(|lease| lease.checkpoint_owner = Some("y".into()));
    history.note_scan(&leases, start);
    assert_eq!(Question::default().ask(&leases, &history, start), (vec![], vec![]), "nor stolen");
}

#[test]
fn lease_limit_is_respected() {
    let start = Instant::now();
    let leases = [lease("a", None, 0), lease("b", None, 0), lease("c", None, 0), lease("x", Some("me"), 1)];
    let question = Question { held: &["x"], max_leases: 2, ..Question::default() };
    assert_eq!(question.taken(&leases, &History::default(), start).len(), 1);
}

#[test]
fn finished_shards_need_no_capacity_and_are_not_acquired() {
    let start = Instant::now();
    let mut leases = [lease("a", Some("me"), 1), lease("b", None, 0), lease("c", None, 0)];
    leases[0].checkpoint = Position::shard_end();
    leases[1].checkpoint = Position::shard_end();
    let question = Question { held: &["a"], max_leases: 1, ..Question::default() };
    assert_eq!(question.taken(&leases, &History::default(), start), ["c"]);
}

/// Their rows stay for long. Counted, those that nobody has would make every share too large to steal for,
/// and those that one worker keeps would cost it all its work.
#[test]
fn finished_shards_do_not_count_in_shares() {
    let finished = |owner: &str| {
        let mut leases = fleet(&[(owner, 100)]);
        leases.iter_mut().for_each(|lease| {
            lease.key = format!("old-{}", lease.key).as_str().into();
            lease.checkpoint = Position::shard_end();
        });
        leases
    };
    for (open, old, stolen) in
        [(("x", 4), "-", 1), (("x", 4), "x", 1), (("x", 4), "me", 1), (("x", 1), "x", 0)]
    {
        let mut leases = fleet(&[open]);
        leases.extend(finished(old));
        let mut history = History::default();
        let now = Instant::now();
        history.note_scan(&leases, now);
        let (taken, steals) = Question::default().ask(&leases, &history, now);
        assert_eq!((taken.len(), steals.len()), (0, stolen), "{open:?}, a hundred finished of {old}");
    }
}

#[test]
fn next_scan_is_due_at_the_next_acquirable_expiry() {
    let start = Instant::now();
    let mut leases = [lease("a", Some("x"), 1), lease("b", Some("me"), 1), lease("c", Some("y"), 1)];
    let mut history = History::default();
    let held = ["b".into()].into();
    let asker = |leases: &[Lease], history: &History, max_leases| {
        Asker {
            me: &"me".into(),
            held: &held,
            failover: FAILOVER,
            max_leases,
            max_steals: 1,
            priority: true,
            stalled: &NONE,
        }
        .view(leases, history, start)
        .next_expiry()
    };
    history.note_scan(&leases, start);
    assert_eq!(asker(&leases, &history, 2), None, "seen once, nobody is suspected");
    leases[2].counter += 1;
    history.note_scan(&leases, start + Duration::from_secs(5));
    let expiry = start + FAILOVER + Duration::from_millis(1);
    assert_eq!(asker(&leases, &history, 2), Some(expiry), "a stands still, c does not");
    assert_eq!(asker(&leases, &history, 1), None);
}

#[test]
fn unclaimed_lease_is_acquired_beyond_the_share_with_priority() {
    let start = Instant::now();
    // This worker has its share of five by three; the free lease is another's.
    let leases = fleet(&[("me", 2), ("x", 1), ("y", 1), ("-", 1)]);
    let mut history = History::default();
    history.note_scan(&leases, start);
    let held = held(&leases);
    let taken = |now, priority| {
        let (failover, max_leases) = (FAILOVER, usize::MAX);
        let asker = Asker {
            me: &"me".into(),
            held: &held,
            failover,
            max_leases,
            max_steals: 1,
            priority,
            stalled: &NONE,
        };
        asker.view(&leases, &history, now).plan(&mut fastrand::Rng::with_seed(1)).take.len()
    };
    assert_eq!(taken(start, true), 0);
    assert_eq!(taken(start + FAILOVER / 4, true), 0);
    let later = start + FAILOVER / 4 + Duration::from_millis(1);
    assert_eq!(taken(later, true), 1);
    assert_eq!(taken(later, false), 0);
}

/// Round after round, every worker plans on what it sees and all of it succeeds unless another was
/// faster: in the end nobody holds more than one lease more than another, and then nothing moves.
#[test]
fn any_fleet_settles_within_one_lease() {
    for seed in 0..100 {
        let mut random = fastrand::Rng::with_seed(seed);
        let (workers, count) = (random.usize(1..8), random.usize(1..30));
        let names: Vec<WorkerId> = (0..workers).map(|n| WorkerId::from(format!("w{n}").as_str())).collect();
        let mut leases = fleet(&[("-", count)]);
        let joined = |round: usize| (1 + round / 3).min(workers);
        let mut quiet = 0;
        for round in 0..150 {
            let mut moved = false;
            for me in &names[..joined(round)] {
                let held: BTreeSet<LeaseKey> = leases
                    .iter()
                    .filter(|lease| lease.owner.as_ref() == Some(me))
                    .map(|lease| lease.key.clone())
                    .collect();
                let mut history = History::default();
                history.note_scan(&leases, Instant::now());
                let asker = Asker {
                    me,
                    held: &held,
                    failover: FAILOVER,
                    max_leases: 99,
                    max_steals: 1,
                    priority: true,
                    stalled: &NONE,
                };
                let plan = asker.view(&leases, &history, Instant::now()).plan(&mut random);
                let wanted: Vec<LeaseKey> =
                    plan.take.iter().chain(&plan.steal).map(|lease| lease.key.clone()).collect();
                moved |= !wanted.is_empty();
                for lease in leases.iter_mut().filter(|lease| wanted.contains(&lease.key)) {
                    lease.owner = Some(me.clone());
                }
            }
            quiet = if moved || joined(round) < workers { 0 } else { quiet + 1 };
        }
        let shares = names.iter().map(|me| leases.iter().filter(|l| l.owner.as_ref() == Some(me)).count());
        let shares: Vec<usize> = shares.collect();
        let (least, most) = (shares.iter().min().unwrap(), shares.iter().max().unwrap());
        assert!(most - least <= 1 || *most <= count.div_ceil(workers), "seed {seed}: {shares:?}");
        assert!(quiet > 60, "seed {seed}: leases still move: {shares:?}");
    }
}
