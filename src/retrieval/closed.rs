//! The closed shards of the stream, by `ListShards`: one listing for all feeds, seldom repeated. Also decides
//! when a polled shard has ended whose end Kinesis does not report: [`Quiet`].

use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};
use tracing::debug;

use crate::shard::{self, ChildShard, Filter, HashRange, Shard, ShardId};

/// Least time between two listings.
const APART: Duration = Duration::from_secs(30);
/// Timeout of a listing: the feed that runs it does not read meanwhile.
const LISTING: Duration = Duration::from_secs(10);
/// After this time without records a feed checks whether its shard is closed: the end of a shard comes with
/// its last records or directly after them.
pub(super) const QUIET: Duration = Duration::from_secs(10);
/// First pause between two checks of a polled shard that was open; it doubles each time.
const OPEN: Duration = Duration::from_secs(60);
const OPEN_MOST: Duration = Duration::from_secs(10 * 60);

/// The shards that are known to be closed. Shared by all feeds of the worker.
#[derive(Debug, Default)]
pub struct Closed(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    asked: Option<Instant>,
    /// The last successful listing, and when it was requested.
    listing: Option<(Instant, Vec<Shard>)>,
}

/// The state of a shard according to `ListShards`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// No listing is available now.
    Unknown,
    /// The shard may accept records, or its child shards are not all listed yet.
    Open,
    /// The shard accepts no more records.
    Closed {
        /// The child shards; empty if the listing is incomplete.
        children: Vec<ChildShard>,
    },
}

impl Closed {
    /// Whether the shard is known to be closed, by a listing that was requested after `since`: an earlier
    /// stream of that name may have had a shard of that id. Nothing is known while another feed runs the
    /// listing, or after it failed.
    pub(super) async fn has(&self, shard: &ShardId, since: Instant, shards: &dyn shard::Api) -> bool {
        matches!(self.state(shard, since, shards).await, State::Closed { .. })
    }

    /// As [`Closed::has`], with the child shards.
    pub(super) async fn state(&self, shard: &ShardId, since: Instant, shards: &dyn shard::Api) -> State {
        let Ok(mut known) = self.0.try_lock() else { return State::Unknown };
        if known.asked.is_none_or(|asked| asked.elapsed() >= APART) {
            let asked = Instant::now();
            known.asked = Some(asked);
            match timeout(LISTING, shards.list(Filter::All)).await {
                Ok(Ok(listed)) => known.listing = Some((asked, listed)),
                Ok(Err(error)) => debug!(%error, "failed to list the closed shards"),
                Err(_) => {
                    debug!(error = %format_args!("no response in {LISTING:?}"), "failed to list the closed shards")
                }
            }
        }
        match &known.listing {
            Some((at, listed)) if *at >= since => state(shard, listed),
            Some(_) | None => State::Unknown,
        }
    }
}

fn state(shard: &ShardId, listed: &[Shard]) -> State {
    let this = listed.iter().find(|listed| listed.id == *shard);
    let Some(this) = this.filter(|this| this.ending.is_some()) else { return State::Open };
    let of_this = listed.iter().filter(|listed| listed.parents().any(|parent| parent == shard));
    let children: Vec<ChildShard> = of_this
        .map(|child| ChildShard {
            id: child.id.clone(),
            parents: child.parents().cloned().collect(),
            range: child.range,
        })
        .collect();
    let whole = covers(this.range, children.iter().map(|child| child.range).collect());
    State::Closed { children: if whole { children } else { Vec::new() } }
}

/// Whether the ranges together cover all hash keys of `range`.
fn covers(range: HashRange, mut by: Vec<HashRange>) -> bool {
    by.sort();
    let mut next = range.start;
    for part in by {
        if part.start > next {
            return false;
        }
        if part.end >= range.end {
            return true;
        }
        next = next.max(part.end.saturating_add(1));
    }
    false
}

/// The next step of a polled shard.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Poll again.
    Read,
    /// Ask [`Closed`] for a listing requested after that time, and pass the result to [`Quiet::listed`].
    Ask(Instant),
    /// Report the end of the shard.
    End(Vec<ChildShard>),
}

/// Detects the end of a polled shard on endpoints that never report it: npm's kinesis-local returns another
/// iterator for ever.
///
/// The shard has ended if no record came for [`QUIET`], a listing requested after that reports it as closed,
/// and a `GetRecords` sent after that listing returned no records either. All of these answers must be at the
/// tip: empty answers are normal where records are sparse.
#[derive(Debug)]
pub(super) struct Quiet {
    /// When the last record came, or when reading started.
    since: Instant,
    /// The earliest time of the next check.
    ask: Instant,
    pause: Duration,
    closed: Option<(Instant, Vec<ChildShard>)>,
}

impl Quiet {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, ask: now, pause: OPEN, closed: None }
    }

    /// Notes that records came or that reading was resumed.
    pub(super) fn moved(&mut self, now: Instant) {
        (self.since, self.closed) = (now, None);
    }

    /// Handles the answer to a `GetRecords` sent at `sent`, with its number of records.
    pub(super) fn answered(
        &mut self,
        sent: Instant,
        now: Instant,
        records: usize,
        millis_behind_latest: Option<i64>,
    ) -> Next {
        if records > 0 || millis_behind_latest != Some(0) {
            self.moved(now);
            return Next::Read;
        }
        match self.closed.take_if(|(listed, _)| sent >= *listed) {
            Some((_, children)) => Next::End(children),
            None if self.closed.is_none() && now >= self.ask && now >= self.since + QUIET => {
                Next::Ask(self.since)
            }
            None => Next::Read,
        }
    }

    /// Handles the result of `ListShards`.
    pub(super) fn listed(&mut self, now: Instant, state: State) {
        match state {
            State::Unknown => self.ask = now + QUIET,
            State::Closed { children } if !children.is_empty() => self.closed = Some((now, children)),
            State::Open | State::Closed { .. } => {
                self.ask = now + self.pause;
                self.pause = (self.pause * 2).min(OPEN_MOST);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sequence::SequenceNumber;

    fn child() -> Vec<ChildShard> {
        vec![ChildShard { id: "c".into(), parents: vec!["s".into()], range: HashRange { start: 0, end: 9 } }]
    }

    fn closed() -> State {
        State::Closed { children: child() }
    }

    struct Life(Quiet, Instant);

    impl Life {
        fn new() -> Self {
            let now = Instant::now();
            Self(Quiet::new(now), now)
        }
        fn at(&self, seconds: u64) -> Instant {
            self.1 + Duration::from_secs(seconds)
        }
        /// An empty answer at that second to a request sent at the same second.
        fn empty(&mut self, second: u64) -> Next {
            self.0.answered(self.at(second), self.at(second), 0, Some(0))
        }
    }

    #[test]
    fn quiet_closed_shard_ends_after_one_more_read() {
        let mut life = Life::new();
        assert_eq!(life.empty(9), Next::Read, "not quiet for long enough");
        assert_eq!(life.empty(10), Next::Ask(life.at(0)));
        life.0.listed(life.at(12), closed());
        assert_eq!(life.0.answered(life.at(11), life.at(13), 0, Some(0)), Next::Read, "sent before");
        assert_eq!(life.empty(13), Next::End(child()));
    }

    #[test]
    fn any_record_restarts_the_wait() {
        for (records, behind) in [(1, Some(0)), (0, Some(1)), (0, None), (0, Some(-1))] {
            let mut life = Life::new();
            assert_eq!(life.empty(10), Next::Ask(life.at(0)));
            life.0.listed(life.at(11), closed());
            assert_eq!(life.0.answered(life.at(12), life.at(12), records, behind), Next::Read);
            assert_eq!(life.empty(13), Next::Read, "{records} {behind:?}");
            assert_eq!(life.empty(21), Next::Read, "{records} {behind:?}");
            assert_eq!(life.empty(22), Next::Ask(life.at(12)), "by a listing after what came");
        }
    }

    #[test]
    fn open_shard_is_checked_seldom_and_never_ends() {
        let (mut life, mut asked) = (Life::new(), Vec::new());
        for second in 0..3_600 {
            // An occasional record does not matter.
            if second % 600 == 599 {
                life.0.answered(life.at(second), life.at(second), 1, Some(0));
            }
            match life.empty(second) {
                Next::Read => {}
                Next::Ask(_) => {
                    asked.push(second);
                    let half = State::Closed { children: Vec::new() };
                    life.0.listed(life.at(second), if asked.len() == 2 { half } else { State::Open });
                }
                Next::End(_) => panic!("it is open"),
            }
        }
        assert_eq!(asked, [10, 70, 190, 430, 910, 1_510, 2_110, 2_710, 3_310]);
    }

    fn shard(id: &str, parents: &[&str], range: (u128, u128), open: bool) -> Shard {
        Shard {
            id: id.into(),
            parent: parents.first().map(|parent| (*parent).into()),
            adjacent_parent: parents.get(1).map(|parent| (*parent).into()),
            range: HashRange { start: range.0, end: range.1 },
            starting: SequenceNumber::parse("1").unwrap(),
            ending: (!open).then(|| SequenceNumber::parse("9").unwrap()),
        }
    }

    #[test]
    fn children_are_known_once_they_cover_their_parent() {
        let (a, b) = (shard("a", &["s"], (0, 4), true), shard("b", &["s"], (5, 9), true));
        let parent = |open| shard("s", &[], (0, 9), open);
        let of = |listed: &[Shard]| match state(&"s".into(), listed) {
            State::Closed { children } => Some(children.len()),
            State::Open | State::Unknown => None,
        };
        assert_eq!(of(&[parent(false), a.clone(), b.clone()]), Some(2));
        assert_eq!(of(&[parent(false), a.clone()]), Some(0));
        assert_eq!(of(&[parent(false), b.clone()]), Some(0));
        assert_eq!(of(&[parent(true), a.clone(), b]), None);
        assert_eq!(of(&[a]), None, "it isn't listed");
        let merged = shard("m", &["r", "s"], (0, 19), true);
        assert_eq!(of(&[parent(false), merged]), Some(1));
    }

    struct Lists(std::sync::atomic::AtomicUsize);

    impl shard::Api for Lists {
        fn list(&self, _: Filter) -> shard::BoxFuture<'_, Result<Vec<Shard>, shard::Error>> {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let listed = vec![shard("s", &[], (0, 9), false), shard("m", &["s"], (0, 9), true)];
            Box::pin(async { Ok(listed) })
        }
        fn identity(&self) -> shard::BoxFuture<'_, Result<crate::stream::StreamId, shard::Error>> {
            Box::pin(async { Err(shard::Error::Denied("d".to_owned())) })
        }
    }

    #[tokio::test(start_paused = true)]
    async fn stale_listing_is_ignored_and_not_repeated_soon() {
        let (closed, lists) = (Closed::default(), Lists(0.into()));
        let shard = ShardId::from("s");
        let first = Instant::now();
        assert!(closed.has(&shard, first, &lists).await);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(closed.state(&shard, Instant::now(), &lists).await, State::Unknown);
        assert!(closed.has(&shard, first, &lists).await);
        assert_eq!(lists.0.load(std::sync::atomic::Ordering::Relaxed), 1);
        tokio::time::advance(APART).await;
        assert!(closed.has(&shard, Instant::now(), &lists).await);
        assert_eq!(lists.0.load(std::sync::atomic::Ordering::Relaxed), 2);
    }
}
