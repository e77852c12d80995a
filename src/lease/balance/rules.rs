//! The rules of the lease assignment by the leader.

/// Rules of the balancing.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `reBalanceThresholdPercentage`: so far from the average is still even.
    pub threshold: f64,
    /// `dampeningPercentage`: such a part of what is too much is moved in one run.
    pub dampening: f64,
    /// `allowThroughputOvershoot`: where every lease is more than what should move, the least moves.
    pub overshoot: bool,
    /// `maxThroughputPerHostKBps`: past it a worker gets no more.
    pub max_throughput: f64,
    /// `maxLeasesForWorker`.
    pub max_leases: usize,
}

impl Rules {
    /// A run that only assigns the available leases.
    pub fn assigning(&self) -> Run<'_> {
        Run { rules: self, balances: false }
    }

    /// A run that also balances the load.
    pub fn balancing(&self) -> Run<'_> {
        Run { rules: self, balances: true }
    }
}

/// One run by these rules.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Run<'a> {
    pub(super) rules: &'a Rules,
    pub(super) balances: bool,
}
