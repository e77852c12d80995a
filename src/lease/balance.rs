//! Which worker gets which lease: the decision of a leader in one run.
//!
//! First the available leases go, one by one, to the worker with the least pressure. Then, if this is a run
//! that balances, workers above the fleet's average give leases away. Pressure is the worst of a
//! worker's metrics, as part of the fleet's average, plus what this run gives it. A worker without metrics is
//! weighed by the throughput of its leases, as part of an even share; one whose figures say nothing (nothing
//! measured, or zero everywhere) by how many leases it has.
//!
//! Invariants: a lease moves at most once a run, never to the worker that reads it already, and not while a
//! hand-off is open; nobody gets one past `maxLeasesForWorker`; the same input and seed give the same plan.
//!
//! In KCL: `VarianceBasedLeaseAssignmentDecider`; counts are evened out as in
//! `LeaseCountBasedLeaseAssignmentDecider`. As there, throughput has a limit of 100 %: a worker above its even
//! share is asked to give, whatever the threshold. On purpose different from Java:
//! * an available lease is never offered to the worker that let it expire, and such a worker comes last in
//!   this run and is left out of its balancing. To Java a dead worker is the best while its row is fresh;
//! * ties go to whoever has the fewest leases, then by worker id. In Java's heap they alternate between two
//!   workers, so that a fleet without traffic gives everything to two;
//! * a fleet without figures is balanced by count. Java compares with NaN, and never balances it;
//! * zero is the least pressure. In Java a worker at 0 stands where one at half the average does;
//! * throughput is weighed against an even share of the fleet's; Java's average of those weighed by it is
//!   zero when a fleet starts;
//! * balancing compares with averages that know what this run gave away. In Java everybody is above average
//!   once a dead worker's leases are shared out;
//! * a lease that is being handed over weighs on its next owner. In Java on the present one, and a run that
//!   comes before the hand-off has ended gives away as much again;
//! * where a lease fits nowhere, a smaller one is tried. Java stops, and drops the best worker from the run;
//! * an idle lease costs its polling: in choosing a worker it counts a little, so that idle leases don't all
//!   go to one; and it is not moved to balance throughput, since that relieves nobody.

use std::collections::{BTreeMap, BTreeSet};

use super::{LeaseKey, WorkerId};

mod rules;

pub use rules::{Rules, Run};

/// An idle lease weighs such a part of an average one.
const IDLE: f64 = 0.1;
/// Above by no more than this part is rounding, for which leases would move to and fro.
const SLACK: f64 = 1e-6;

/// One metric of a worker, as its row shows it, averaged.
#[derive(Debug, Clone, PartialEq)]
pub struct Metric {
    /// Its name.
    pub name: String,
    /// In percent.
    pub value: f64,
    /// The limit of the metric, in percent.
    pub limit: f64,
}

/// A worker that may be given leases. Without metrics it is weighed by the throughput of its leases.
#[derive(Debug, Clone, PartialEq)]
pub struct Member {
    /// The worker.
    pub id: WorkerId,
    /// The worker's metrics.
    pub metrics: Vec<Metric>,
    /// It has room for no more leases than this, as far as is known.
    pub most: usize,
}

/// An open or finished lease as the leader sees it now.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate<'l> {
    /// The lease's shard.
    pub key: &'l LeaseKey,
    /// `leaseOwner`.
    pub owner: Option<&'l WorkerId>,
    /// `checkpointOwner`: while a hand-off is open, who still reads the shard.
    pub checkpoint_owner: Option<&'l WorkerId>,
    /// In KB a second; none where nobody measured it.
    pub throughput: Option<f64>,
    /// Whether the lease is unowned or expired, and so must be assigned.
    pub available: bool,
    /// Order among the available: smaller first (longest without a renewal).
    pub rank: u64,
}

impl<'l> Candidate<'l> {
    /// The worker that carries the load, with the plans of this run: the next owner during a graceful
    /// handoff.
    fn weighs_on(&self) -> Option<&'l WorkerId> {
        if self.available {
            self.checkpoint_owner.or(self.owner)
        } else {
            self.owner.or(self.checkpoint_owner)
        }
    }
}

/// A lease's new owner.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Move {
    /// Index into the leases.
    pub lease: usize,
    /// The new owner.
    pub to: WorkerId,
}

/// The planned writes.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Plan {
    /// The available leases first, in the order in which they were given away.
    pub moves: Vec<Move>,
    /// Number of moves, the last ones, that balance the load; none if balancing was not due.
    pub balanced: Option<usize>,
    /// Available leases for which there was no room.
    pub left: usize,
}

/// Plans one run. `random` chooses among the leases of a worker that gives some away. `assigned` is called when the
/// available ones are given.
pub fn plan(
    leases: &[Candidate<'_>],
    members: &[Member],
    run: Run<'_>,
    random: &mut fastrand::Rng,
    assigned: impl FnOnce(),
) -> Plan {
    let mut fleet = Fleet::new(leases, members, run.rules);
    let left = fleet.assign_available();
    assigned();
    let given = fleet.moves.len();
    if run.balances {
        fleet.balance(random);
    }
    let balanced = run.balances.then(|| fleet.moves.len() - given);
    Plan { moves: fleet.moves, balanced, left }
}

/// The basis on which a worker is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Basis {
    Metrics,
    Throughput,
    Count,
}

/// A worker's metric, relative to the fleet's average. Throughput is one of them, at zero: the worker's level
/// contains it.
struct Measure {
    metric: usize,
    value: f64,
    limit: f64,
}

struct Worker<'m> {
    id: &'m WorkerId,
    most: usize,
    basis: Basis,
    measures: Vec<Measure>,
    /// KB/s of its leases.
    load: f64,
    /// KB/s of its leases, with a small weight for idle leases.
    weight: f64,
    count: usize,
    /// The increase of each of its metrics by this run.
    growth: f64,
    /// Let a lease expire.
    late: bool,
}

/// A worker's place among those with room: the first gets the next lease.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Rank {
    late: bool,
    /// As bits: those of a number that isn't negative are in its order.
    pressure: u64,
    count: usize,
    worker: usize,
}

/// The even shares that levels are parts of.
struct Scale {
    /// An even share of the throughput; 0 where there is none to go by.
    target: f64,
    /// Weight of an idle lease.
    idle: f64,
    /// An even share of the leases.
    share: f64,
    /// By how much a lease raises metrics where there is no throughput to go by.
    single: f64,
}

struct Fleet<'a> {
    leases: &'a [Candidate<'a>],
    rules: &'a Rules,
    scale: Scale,
    /// KB/s of each lease, the average where nobody measured it.
    throughput: Vec<f64>,
    /// In order of their ids.
    workers: Vec<Worker<'a>>,
    /// The worker that owns each lease, if it is one of the fleet. Moves change it.
    owners: Vec<Option<usize>>,
    /// The workers that have room.
    queue: BTreeSet<Rank>,
    /// How many metrics there are, throughput included.
    metrics: usize,
    /// Their averages before this run gave anything away.
    before: Vec<f64>,
    moves: Vec<Move>,
}

/// No figure is so large that it loses anything that matters here.
fn float(count: usize) -> f64 {
    count as f64
}

fn sound(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

impl<'a> Fleet<'a> {
    fn new(leases: &'a [Candidate<'a>], members: &'a [Member], rules: &'a Rules) -> Self {
        // A worker that is listed twice would get a double share in Java.
        let members: BTreeMap<&WorkerId, &Member> =
            members.iter().map(|member| (&member.id, member)).collect();
        let (scale, throughput) = scale(leases, members.len().max(1));
        let averages = averages(members.values().flat_map(|member| &member.metrics));
        let worker = |(id, member): (&'a WorkerId, &'a Member)| {
            let Member { metrics, most, .. } = member;
            let mut measures: Vec<_> =
                metrics.iter().filter_map(|metric| measure(metric, &averages)).collect();
            let basis = match metrics.is_empty() && scale.target > 0.0 {
                true => Basis::Throughput,
                false if measures.is_empty() => Basis::Count,
                false => Basis::Metrics,
            };
            if basis == Basis::Throughput {
                measures.push(Measure {
                    metric: averages.len(),
                    value: 0.0,
                    limit: 1.0 + rules.threshold / 100.0,
                });
            }
            Worker {
                id,
                most: *most,
                basis,
                measures,
                load: 0.0,
                weight: 0.0,
                count: 0,
                growth: 0.0,
                late: false,
            }
        };
        let metrics = averages.len() + 1;
        let mut workers: Vec<Worker<'a>> = members.into_iter().map(worker).collect();
        let mut owners = Vec::with_capacity(leases.len());
        for (lease, throughput) in leases.iter().zip(&throughput) {
            let owner = lease
                .weighs_on()
                .and_then(|owner| workers.binary_search_by(|worker| worker.id.cmp(owner)).ok());
            if let Some(worker) = owner.and_then(|owner| workers.get_mut(owner)) {
                worker.load += throughput;
                worker.weight += throughput.max(scale.idle);
                worker.count += 1;
                worker.late |= lease.available;
            }
            owners.push(owner);
        }
        let (queue, before, moves) = (BTreeSet::new(), Vec::new(), Vec::new());
        let mut fleet =
            Self { leases, rules, scale, throughput, workers, owners, queue, metrics, before, moves };
        fleet.before = fleet.means();
        (0..fleet.workers.len()).for_each(|worker| fleet.enqueue(worker));
        fleet
    }

    /// Gives each available lease to whoever has the least pressure; the answer is how many were left.
    fn assign_available(&mut self) -> usize {
        let mut order: Vec<usize> =
            (0..self.leases.len()).filter(|lease| self.leases[*lease].available).collect();
        // Of leases that wait as long the large ones come first: small ones even out at the end.
        order.sort_by(|a, b| {
            let [one, other] = [&self.leases[*a], &self.leases[*b]];
            let larger = || self.throughput[*b].total_cmp(&self.throughput[*a]);
            one.rank.cmp(&other.rank).then_with(larger).then_with(|| one.key.cmp(other.key))
        });
        let mut left = 0;
        for lease in order {
            let owner = self.owners[lease];
            if let ([only], Some(_)) = (self.workers.as_slice(), owner) {
                // There is no other worker. It discovers its own leases by itself; a lease that it was
                // handing off must be assigned to it again.
                if self.leases[lease].checkpoint_owner.is_some() {
                    self.moves.push(Move { lease, to: only.id.clone() });
                }
                continue;
            }
            match self.queue.iter().map(|place| place.worker).find(|worker| Some(*worker) != owner) {
                Some(to) => self.give(lease, to),
                None => left += 1,
            }
        }
        left
    }

    /// The average of each metric among those that balance.
    fn means(&self) -> Vec<f64> {
        let mean = |gauges: Vec<Gauge>| {
            gauges.iter().map(|gauge| gauge.value).sum::<f64>() / float(gauges.len().max(1))
        };
        (0..self.metrics).map(|metric| mean(self.gauges(metric))).collect()
    }

    fn balance(&mut self, random: &mut fastrand::Rng) {
        // The leases of each worker that may be taken from it.
        let mut movable = vec![Vec::new(); self.workers.len()];
        for (index, (lease, owner)) in self.leases.iter().zip(&self.owners).enumerate() {
            let busy = lease.available || lease.checkpoint_owner.is_some();
            if let Some(owner) = owner.filter(|_| !busy) {
                movable[owner].push(index);
            }
        }
        if self.workers.iter().filter(|worker| !worker.late).all(|worker| worker.basis == Basis::Count) {
            self.even_out(movable);
        } else {
            self.relieve_fullest(movable, random);
        }
    }

    /// Moves leases from the fullest worker to the emptiest until they differ by at most one. A worker with
    /// nothing to move while it is the fullest, or no room while it is the emptiest, has none later either.
    fn even_out(&mut self, mut movable: Vec<Vec<usize>>) {
        let workers = self.workers.iter().enumerate().filter(|(_, worker)| !worker.late);
        let mut order: BTreeSet<_> = workers.map(|(index, worker)| (worker.count, index)).collect();
        while let (Some(&(least, to)), Some(&(most, from))) = (order.first(), order.last())
            && most - least > 1
        {
            order.remove(&(least, to));
            if !self.has_room(to) {
                continue;
            }
            order.remove(&(most, from));
            if let Some(lease) = movable[from].pop() {
                self.give(lease, to);
                order.extend([(least + 1, to), (most - 1, from)]);
            } else {
                order.insert((least, to));
            }
        }
    }

    /// Takes leases from those that are above average in one metric, the one that shows the most to take.
    fn relieve_fullest(&mut self, mut movable: Vec<Vec<usize>>, random: &mut fastrand::Rng) {
        let means = self.means();
        let (mut chosen, mut most) = (Vec::new(), f64::NEG_INFINITY);
        for (metric, (mean, before)) in means.iter().zip(&self.before).enumerate() {
            let sources = self.sources(&self.gauges(metric), *mean, *before);
            let sum = sources.iter().map(|(take, _)| take).sum();
            if !sources.is_empty() && sum > most {
                (chosen, most) = (sources, sum);
            }
        }
        chosen.sort_by(|one, other| other.0.total_cmp(&one.0));
        for (take, source) in chosen {
            let mut theirs = std::mem::take(&mut movable[source]);
            random.shuffle(&mut theirs);
            self.relieve(source, take, &theirs, &means);
        }
    }

    /// The values of a metric for all workers, with the plans so far.
    fn gauges(&self, metric: usize) -> Vec<Gauge> {
        let mut gauges = Vec::new();
        for (index, worker) in self.workers.iter().enumerate().filter(|(_, worker)| !worker.late) {
            let theirs = worker.measures.iter().filter(|measure| measure.metric == metric);
            gauges.extend(theirs.map(|measure| Gauge {
                worker: index,
                value: measure.value + self.level(worker),
                limit: measure.limit,
            }));
        }
        gauges
    }

    /// The workers that should lose leases, and how much throughput each.
    fn sources(&self, gauges: &[Gauge], mean: f64, before: f64) -> Vec<(f64, usize)> {
        let threshold = self.rules.threshold / 100.0;
        let (upper, lower) = (mean * (1.0 + threshold), mean * (1.0 - threshold));
        let above = |gauge: &&Gauge| gauge.value > mean * (1.0 + SLACK);
        let over = |gauge: &Gauge| gauge.value > gauge.limit * (1.0 + SLACK);
        let uneven = |gauge: &Gauge| gauge.value > upper || gauge.value < lower || over(gauge);
        if !gauges.iter().any(uneven) {
            return Vec::new();
        }
        let asked = |gauge: &&Gauge| (gauge.value >= upper && above(gauge)) || over(gauge);
        let mut sources: Vec<&Gauge> = gauges.iter().filter(asked).collect();
        if sources.is_empty() {
            sources
                .extend(gauges.iter().max_by(|one, other| one.value.total_cmp(&other.value)).filter(above));
        }
        let take = |gauge: &Gauge| {
            // As much as Java, which weighs against the average before the run, but not below that after it.
            let part = |mean: f64| ((gauge.value - mean) / gauge.value).max(0.0);
            let most = part(before) * self.rules.dampening / 100.0;
            self.workers[gauge.worker].load * most.min(part(mean))
        };
        sources.into_iter().map(|gauge| (take(gauge), gauge.worker)).collect()
    }

    /// Moves up to `take` KB/s of a worker's leases to where they fit.
    fn relieve(&mut self, source: usize, take: f64, theirs: &[usize], means: &[f64]) {
        let idle = self.workers[source].load <= 0.0;
        let mut small_enough = false;
        // Whatever is as large as what fitted nowhere doesn't fit either.
        let (mut remaining, mut too_large) = (take, f64::INFINITY);
        for lease in theirs {
            let throughput = self.throughput[*lease];
            if throughput <= 0.0 || throughput >= remaining {
                continue;
            }
            small_enough = true;
            if throughput < too_large && self.place(*lease, source, means) {
                remaining -= throughput;
            } else {
                too_large = too_large.min(throughput);
            }
        }
        let busy = theirs.iter().filter(|lease| self.throughput[**lease] > 0.0);
        let least = busy.min_by(|a, b| self.throughput[**a].total_cmp(&self.throughput[**b]));
        let least = least.filter(|_| self.rules.overshoot && !small_enough);
        // Without load its metrics are high, and no lease tells why.
        let one = if idle { theirs.first() } else { least };
        if let Some(lease) = one {
            self.place(*lease, source, means);
        }
    }

    /// Gives a worker's lease to the best one that stays below average with it, if there is any.
    fn place(&mut self, lease: usize, source: usize, means: &[f64]) -> bool {
        let mut punctual = self.queue.iter().take_while(|place| !place.late).map(|place| place.worker);
        let to = punctual.find(|to| *to != source && self.fits(*to, lease, means));
        if let Some(to) = to {
            self.give(lease, to);
        }
        to.is_some()
    }

    fn fits(&self, worker: usize, lease: usize, means: &[f64]) -> bool {
        let worker = &self.workers[worker];
        let adds = match worker.basis {
            Basis::Metrics => self.growth(lease),
            Basis::Throughput => self.throughput[lease] / self.scale.target,
            Basis::Count => 1.0 / self.scale.share,
        };
        let level = self.level(worker) + adds;
        // By count, no measure tells.
        (worker.basis != Basis::Count || level <= 1.0)
            && worker.measures.iter().all(|measure| {
                let value = measure.value + level;
                value <= means[measure.metric] && value <= measure.limit
            })
    }

    /// A worker's load by its leases, relative to an even share. If it is measured, only the leases of this
    /// run: its metrics contain the others.
    fn level(&self, worker: &Worker<'_>) -> f64 {
        match worker.basis {
            Basis::Metrics => worker.growth,
            Basis::Throughput => worker.load / self.scale.target,
            Basis::Count => float(worker.count) / self.scale.share,
        }
    }

    fn pressure(&self, worker: &Worker<'_>) -> f64 {
        match worker.basis {
            Basis::Metrics => {
                worker.measures.iter().map(|measure| measure.value).fold(0.0, f64::max) + worker.growth
            }
            Basis::Throughput => worker.weight / self.scale.target,
            Basis::Count => self.level(worker),
        }
    }

    /// By how much a lease raises metrics.
    fn growth(&self, lease: usize) -> f64 {
        if self.scale.target > 0.0 {
            self.throughput[lease].max(self.scale.idle) / self.scale.target
        } else {
            self.scale.single
        }
    }

    fn give(&mut self, lease: usize, to: usize) {
        let (throughput, growth) = (self.throughput[lease], self.growth(lease));
        let weight = throughput.max(self.scale.idle);
        if let Some(from) = self.owners[lease].replace(to) {
            self.change(from, |worker| {
                worker.load -= throughput;
                worker.weight -= weight;
                worker.count -= 1;
            });
        }
        self.change(to, |worker| {
            worker.load += throughput;
            worker.weight += weight;
            worker.count += 1;
            worker.growth += growth;
        });
        self.moves.push(Move { lease, to: self.workers[to].id.clone() });
    }

    /// Its place in the queue goes by what is changed.
    fn change(&mut self, worker: usize, change: impl FnOnce(&mut Worker<'a>)) {
        let place = self.rank_of(worker);
        self.queue.remove(&place);
        change(&mut self.workers[worker]);
        self.enqueue(worker);
    }

    fn has_room(&self, worker: usize) -> bool {
        let worker = &self.workers[worker];
        worker.load <= self.rules.max_throughput && worker.count < self.rules.max_leases.min(worker.most)
    }

    fn rank_of(&self, index: usize) -> Rank {
        let worker = &self.workers[index];
        // Rounded, so that values that differ only by the order of their summands tie.
        let pressure = ((self.pressure(worker) * 1e9).round().max(0.0) + 0.0).to_bits();
        Rank { late: worker.late, pressure, count: worker.count, worker: index }
    }

    fn enqueue(&mut self, worker: usize) {
        if self.has_room(worker) {
            self.queue.insert(self.rank_of(worker));
        }
    }
}

/// A worker's value of a metric.
struct Gauge {
    worker: usize,
    value: f64,
    limit: f64,
}

fn scale(leases: &[Candidate<'_>], members: usize) -> (Scale, Vec<f64>) {
    let known = |lease: &Candidate<'_>| lease.throughput.filter(|value| sound(*value));
    let measured: Vec<f64> = leases.iter().filter_map(known).collect();
    let average = measured.iter().sum::<f64>() / float(measured.len().max(1));
    let throughput = leases.iter().map(|lease| known(lease).unwrap_or(average)).collect();
    let target = average * float(leases.len()) / float(members);
    let scale = Scale {
        target: if target.is_finite() { target } else { 0.0 },
        idle: average * IDLE,
        share: float(leases.len().max(1)) / float(members),
        single: 1.0 / float((leases.len() / members).max(1)),
    };
    (scale, throughput)
}

/// The metrics that say something, each with its place and its average over who has it.
fn averages<'m>(metrics: impl Iterator<Item = &'m Metric>) -> BTreeMap<&'m str, (usize, f64)> {
    let mut sums: BTreeMap<&str, (f64, usize)> = BTreeMap::new();
    for metric in metrics.filter(|metric| sound(metric.value)) {
        let (sum, count) = sums.entry(&metric.name).or_default();
        *sum += metric.value;
        *count += 1;
    }
    let averages = sums.into_iter().map(|(name, (sum, count))| (name, sum / float(count)));
    let telling = averages.filter(|(_, average)| average.is_finite() && *average > 0.0);
    telling.enumerate().map(|(index, (name, average))| (name, (index, average))).collect()
}

fn measure(metric: &Metric, averages: &BTreeMap<&str, (usize, f64)>) -> Option<Measure> {
    let (index, average) = averages.get(metric.name.as_str()).filter(|_| sound(metric.value))?;
    let limit = if metric.limit.is_nan() { f64::INFINITY } else { metric.limit / average };
    Some(Measure { metric: *index, value: metric.value / average, limit })
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
