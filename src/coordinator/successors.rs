//! The successors of a worker's leases at its shutdown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{OnceCell, mpsc, oneshot};
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::SuccessorQuery;
use super::tasks::Tools;
use crate::fleet::report::Verdict;
use crate::lease::handoff;
use crate::lease::history::History;
use crate::lease::take::Asker;
use crate::lease::update::Next;
use crate::lease::{Held, LeaseKey, Table, WorkerId};

/// The longest time to choose the successor of a lease.
pub(super) const CHOOSE: Duration = Duration::from_millis(500);

/// The successors of this worker's leases at its shutdown: each time the worker with the fewest leases.
pub(super) struct Successors {
    ask: mpsc::Sender<SuccessorQuery>,
    me: WorkerId,
    failover: Duration,
    table: Arc<dyn Table>,
    history: Arc<History>,
    /// The number of leases of each worker that renews them: a report alone may be that of a dead worker.
    live: OnceCell<BTreeMap<WorkerId, usize>>,
    /// The number of leases that each was offered since.
    given: Mutex<BTreeMap<WorkerId, usize>>,
}

impl Successors {
    pub(super) fn new(tools: &Tools, ask: mpsc::Sender<SuccessorQuery>, history: Arc<History>) -> Self {
        Self {
            ask,
            me: tools.settings.me.clone(),
            failover: tools.settings.failover,
            table: tools.table.clone(),
            history,
            live: OnceCell::new(),
            given: Mutex::default(),
        }
    }

    /// The worker that the leader designated, unless it has left the fleet; otherwise the live worker with the fewest leases.
    pub(super) async fn of(&self, held: &Held) -> Next {
        let named = held.named().await;
        match (self.ask().await, named) {
            (None, _) => Next::Nobody,
            (Some(verdict), Some(named)) if verdict.members.iter().any(|member| member.id == named) => {
                Next::Worker(named)
            }
            (Some(verdict), Some(_)) => Next::Instead(self.next(&verdict).await),
            (Some(verdict), None) => self.next(&verdict).await.map_or(Next::Nobody, Next::Worker),
        }
    }

    /// The live workers. Other workers may be about to stop as well, so this is asked for each lease.
    pub(super) async fn ask(&self) -> Option<Arc<Verdict>> {
        let (answer, answered) = oneshot::channel();
        let asked = async {
            self.ask.send(answer).await.ok()?;
            answered.await.ok()
        };
        let verdict = timeout(CHOOSE, asked).await.ok().flatten();
        if verdict.is_none() {
            debug!("found no successor for the lease");
        }
        verdict
    }

    pub(super) async fn next(&self, verdict: &Verdict) -> Option<WorkerId> {
        let live = self.live.get_or_init(|| self.look()).await;
        let mut given = self.given.lock().unwrap_or_else(PoisonError::into_inner);
        let others = verdict.members.iter().filter(|member| member.id != self.me);
        let has = |id: &WorkerId| Some(live.get(id)? + given.get(id).copied().unwrap_or(0));
        let with_room = others.filter(|member| has(&member.id).is_some_and(|count| count < member.most));
        let fewest = with_room.map(|member| &member.id).min_by_key(|id| has(id))?.clone();
        *given.entry(fewest.clone()).or_default() += 1;
        Some(fewest)
    }

    async fn look(&self) -> BTreeMap<WorkerId, usize> {
        let Ok(Ok(leases)) = timeout(CHOOSE, self.table.list()).await else { return BTreeMap::new() };
        let (now, held, mut history) = (Instant::now(), BTreeSet::new(), History::clone(&self.history));
        history.note_scan(&leases, now);
        let (me, failover) = (&self.me, self.failover);
        asker(me, &held, failover)
            .view(&leases, &history, now)
            .counts()
            .iter()
            .map(|(id, count)| ((*id).clone(), *count))
            .collect()
    }
}

/// An asker that only needs to know which workers are live.
pub(super) fn asker<'a>(me: &'a WorkerId, held: &'a BTreeSet<LeaseKey>, failover: Duration) -> Asker<'a> {
    let stalled = &handoff::NONE;
    Asker { me, held, failover, max_leases: usize::MAX, max_steals: 0, priority: false, stalled }
}
