//! Worker metrics, and how the leader judges them.
//!
//! The row must be exactly as Java writes it: one limit that is no integer stops the leader of a whole Java
//! fleet. A worker without a fresh row is assigned nothing; one whose last sample failed is assigned nothing
//! and loses nothing, which is how a worker reports its imminent shutdown.
//!
//! In KCL: `WorkerMetricStats`, `WorkerMetricStatsManager`, `WorkerMetricStatsReporter`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use tokio::time::Instant;

use super::rows::Report;
use super::table_migration::SUPPORT;
use crate::lease::WorkerId;
use crate::lease::balance::{Member, Metric};

/// The short name of the use of processors.
const CPU: &str = "C";
/// A report without a sample.
const NONE: f64 = -1.0;
/// KCL keeps no more samples between two reports.
const SAMPLES: usize = 300;

/// Records the metrics of this worker.
#[derive(Debug)]
pub struct Recorder {
    samples: VecDeque<f64>,
    /// The averages so far, oldest first.
    averages: VecDeque<f64>,
    most: usize,
    /// Whether there is anything to measure.
    measured: bool,
}

impl Recorder {
    /// `most` averages are shown (`noOfPersistedMetricsPerWorkerMetrics`). Without `measured` the fleet goes
    /// by the throughput of this worker's leases.
    pub fn new(measured: bool, most: usize) -> Self {
        Self { samples: VecDeque::new(), averages: VecDeque::new(), most: most.max(1), measured }
    }

    /// One sample, in percent.
    pub fn sample(&mut self, percent: f64) {
        self.samples.push_back(percent);
        if self.samples.len() > SAMPLES {
            self.samples.pop_front();
        }
    }

    /// The row as it is due now, in seconds since 1970.
    pub fn report(&mut self, worker: &WorkerId, now: i64) -> Report {
        if self.measured {
            #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
            let count = self.samples.len() as f64;
            let mean =
                if self.samples.is_empty() { NONE } else { self.samples.drain(..).sum::<f64>() / count };
            self.averages.push_back(rounded(mean));
            if self.averages.len() > self.most {
                self.averages.pop_front();
            }
        }
        let samples = self.measured.then(|| self.averages.iter().copied().collect());
        row(worker, now, samples)
    }

    /// The row of a worker that is about to stop: it wants nothing more.
    pub fn farewell(worker: &WorkerId, now: i64) -> Report {
        row(worker, now, Some(vec![NONE]))
    }
}

fn row(worker: &WorkerId, now: i64, samples: Option<Vec<f64>>) -> Report {
    let limits = samples.is_some().then(|| (CPU.to_owned(), vec![100.0]));
    Report {
        worker: worker.to_string(),
        at: Some(now),
        samples: Some(samples.map(|samples| (CPU.to_owned(), samples)).into_iter().collect()),
        limits: Some(limits.into_iter().collect()),
        support: Some(SUPPORT),
        support_at: Some(now),
        most: None,
    }
}

/// To six decimals, halves away from zero.
fn rounded(value: f64) -> f64 {
    (value * 1e6).round() / 1e6
}

/// By what a leader judges.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// `workerMetricsReporterFreqInMillis`: twice as old, a report is over.
    pub every: Duration,
    /// `workerMetricsEMAAlpha`: the weight of what is newer.
    pub alpha: f64,
    /// `staleWorkerMetricsEntryCleanupDuration`: older reports are deleted.
    pub stale: Duration,
}

/// The verdict on the worker metrics.
#[derive(Debug, Clone, Default)]
pub struct Verdict {
    /// Workers that may be assigned leases.
    pub members: Vec<Member>,
    /// Whose report is fresh, whatever it says.
    pub reporting: BTreeSet<WorkerId>,
    /// How long before the judgement each of them was written, by its writer's clock; none from the future.
    pub ages: BTreeMap<WorkerId, Duration>,
    /// To be deleted: the worker and the time of its report.
    pub stale: Vec<(String, i64)>,
    /// Worker and `lut` of each report that is dated in the future and does not change.
    pub ahead: Vec<(String, i64)>,
}

/// Reports that are dated ahead of the clock, between judgements.
///
/// A clock that is ahead would make the report of a dead worker fresh for as long. So such a report counts only while
/// its worker writes new ones: one that has not changed for twice the report interval is over.
#[derive(Debug, Default)]
pub struct Ahead(BTreeMap<(String, i64), Instant>);

impl Ahead {
    /// Notes what is dated ahead, and returns what has not changed for too long. `wall` in seconds since 1970.
    fn over(
        &mut self,
        reports: &[Report],
        wall: i64,
        now: Instant,
        rules: &Rules,
    ) -> BTreeSet<(String, i64)> {
        let limit = rules.every * 2;
        let ahead = |at: i64| at.saturating_sub(wall) > seconds(limit);
        let dated = reports.iter().filter_map(|report| Some((report.worker.clone(), report.at?)));
        let dated = dated.filter(|(_, at)| ahead(*at));
        self.0 = dated
            .map(|key| (self.0.get(&key).copied().unwrap_or(now), key))
            .map(|(at, key)| (key, at))
            .collect();
        let over = self.0.iter().filter(|(_, since)| now.saturating_duration_since(**since) > limit);
        over.map(|(key, _)| key.clone()).collect()
    }

    /// Like [`judge`], but ignores reports that are dated in the future and do not change. `now` is of the monotonic clock.
    pub fn judge(&mut self, reports: &[Report], wall: i64, now: Instant, rules: &Rules) -> Verdict {
        let over = self.over(reports, wall, now, rules);
        let is_over =
            |report: &Report| report.at.is_some_and(|at| over.contains(&(report.worker.clone(), at)));
        let valid: Vec<Report> = reports.iter().filter(|report| !is_over(report)).cloned().collect();
        let mut verdict = judge(&valid, wall, rules);
        verdict.ahead = over.into_iter().collect();
        verdict
    }
}

fn seconds(time: Duration) -> i64 {
    i64::try_from(time.as_secs()).unwrap_or(i64::MAX)
}

/// Adds workers that the reports do not name and that may be assigned leases: this worker, unless it wants none, and the
/// workers that renew leases. They go by the throughput of their leases, as workers without metrics do.
///
/// Reports that were read count besides, and a worker whose report says that it wants nothing gets nothing.
#[must_use]
pub fn with_renewing(mut verdict: Verdict, me: Option<&WorkerId>, renewing: &BTreeSet<WorkerId>) -> Verdict {
    let known: BTreeSet<&WorkerId> = verdict.members.iter().map(|member| &member.id).collect();
    let missing =
        |id: &&WorkerId| !known.contains(id) && (me == Some(*id) || !verdict.reporting.contains(*id));
    let more: BTreeSet<&WorkerId> = renewing.iter().chain(me).filter(missing).collect();
    let more: Vec<Member> =
        more.into_iter().map(|id| Member { id: id.clone(), metrics: Vec::new(), most: usize::MAX }).collect();
    verdict.members.extend(more);
    verdict
}

/// Judges the rows of all workers, at `now` in seconds since 1970. Of several rows of one worker the newest
/// counts.
pub fn judge(reports: &[Report], now: i64, rules: &Rules) -> Verdict {
    let mut newest: BTreeMap<&str, &Report> = BTreeMap::new();
    for report in reports {
        let seen = newest.entry(&report.worker).or_insert(report);
        if report.at > seen.at {
            *seen = report;
        }
    }
    let mut verdict = Verdict::default();
    for (id, report) in newest {
        let Some(at) = report.at else { continue };
        let age = now.saturating_sub(at);
        if age > seconds(rules.stale) {
            verdict.stale.push((id.to_owned(), at));
        }
        if age > seconds(rules.every * 2) {
            continue;
        }
        let worker = WorkerId::from(id);
        verdict.reporting.insert(worker.clone());
        if let Ok(age) = u64::try_from(age) {
            verdict.ages.insert(worker.clone(), Duration::from_secs(age));
        }
        if let Some(metrics) = metrics(report, rules.alpha) {
            verdict.members.push(Member { id: worker, metrics, most: report.most.unwrap_or(usize::MAX) });
        }
    }
    verdict
}

/// The averages of a report; none if it can't be used or says that it wants nothing. An empty list is that of a
/// worker that goes by throughput.
fn metrics(report: &Report, alpha: f64) -> Option<Vec<Metric>> {
    let empty = BTreeMap::new();
    let (samples, limits) = match (&report.samples, &report.limits) {
        (None, None) => return Some(Vec::new()),
        (None, Some(limits)) if limits.is_empty() => return Some(Vec::new()),
        (None, Some(_)) => return None,
        (Some(samples), limits) => (samples, limits.as_ref().unwrap_or(&empty)),
    };
    let mut metrics = Vec::new();
    for (name, samples) in samples {
        let limit = *limits.get(name)?.first().filter(|limit| **limit > 0.0)?;
        let last = *samples.last()?;
        if last < 0.0 || !last.is_finite() {
            return None;
        }
        let valid = samples.iter().copied().filter(|sample| *sample >= 0.0);
        let value = valid.reduce(|so_far, next| alpha * next + (1.0 - alpha) * so_far)?;
        metrics.push(Metric { name: name.clone(), value, limit });
    }
    Some(metrics)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: i64 = 1_795_405_837;

    fn rules() -> Rules {
        Rules { every: Duration::from_secs(30), alpha: 0.5, stale: Duration::from_secs(86_400) }
    }

    fn says(samples: &[f64], at: i64) -> Report {
        row(&"w".into(), at, Some(samples.to_vec()))
    }

    #[test]
    fn report_has_the_last_averages_oldest_first() {
        let me = WorkerId::from("me");
        let mut recorder = Recorder::new(true, 3);
        let mut last = recorder.report(&me, 1);
        assert_eq!(last.samples.as_ref().unwrap()["C"], [-1.0], "nothing was measured yet");
        for samples in [&[1.0, 2.0][..], &[], &[10.0, 10.0, 11.0]] {
            samples.iter().for_each(|sample| recorder.sample(*sample));
            last = recorder.report(&me, 2);
        }
        assert_eq!(last.samples.unwrap()["C"], [1.5, -1.0, 10.333333]);
        assert_eq!(last.limits.unwrap()["C"], [100.0]);
    }

    #[test]
    fn member_has_the_room_that_it_reports() {
        let most = |most| judge(&[Report { most, ..says(&[5.0], NOW) }], NOW, &rules()).members[0].most;
        assert_eq!((most(Some(3)), most(Some(0)), most(None)), (3, 0, usize::MAX));
    }

    #[test]
    fn worker_without_a_gauge_reports_empty_maps() {
        let mut recorder = Recorder::new(false, 10);
        recorder.sample(7.0);
        let report = recorder.report(&"me".into(), NOW);
        assert_eq!((report.samples, report.limits), (Some(BTreeMap::new()), Some(BTreeMap::new())));
        let verdict = judge(&[Recorder::new(false, 1).report(&"me".into(), NOW)], NOW, &rules());
        assert_eq!(verdict.members[0].metrics.len(), 0);
    }

    #[test]
    fn values_are_averaged_exponentially_without_gaps() {
        let verdict = judge(&[says(&[10.0, -1.0, 20.0, 40.0], NOW)], NOW, &rules());
        let metric = &verdict.members[0].metrics[0];
        assert!((metric.value - 27.5).abs() < 1e-9 && (metric.limit - 100.0).abs() < 1e-9);
    }

    #[test]
    fn leaving_late_or_invalid_worker_is_assigned_nothing() {
        let members = |report: Report| {
            let verdict = judge(&[report], NOW, &rules());
            (verdict.members.len(), verdict.reporting.len(), verdict.stale.len())
        };
        assert_eq!(members(says(&[5.0], NOW - 60)), (1, 1, 0));
        assert_eq!(members(says(&[5.0], NOW - 61)), (0, 0, 0), "late");
        assert_eq!(members(says(&[5.0], NOW - 86_401)), (0, 0, 1), "for a day");
        assert_eq!(members(Recorder::farewell(&"w".into(), NOW)), (0, 1, 0));
        assert_eq!(members(says(&[5.0, -1.0], NOW)), (0, 1, 0));
        assert_eq!(members(Report { limits: None, ..says(&[5.0], NOW) }), (0, 1, 0));
        assert_eq!(members(Report { samples: None, ..says(&[5.0], NOW) }), (0, 1, 0));
        assert_eq!(members(Report { at: None, ..says(&[5.0], NOW) }), (0, 0, 0));
    }

    /// Judgements every 45 s, as a leader makes them; `at` is what the report says then.
    fn counts(at: impl Fn(i64) -> i64) -> Vec<(usize, usize)> {
        let (start, mut ahead) = (Instant::now(), Ahead::default());
        let judge = |step: i64| {
            let later = 45 * step;
            let now = start + Duration::from_secs(later.unsigned_abs());
            let verdict = ahead.judge(&[says(&[5.0], at(later))], NOW + later, now, &rules());
            (verdict.members.len(), verdict.ahead.len())
        };
        (0..4).map(judge).collect()
    }

    #[test]
    fn unchanged_report_from_the_future_is_ignored_and_deleted() {
        assert_eq!(counts(|_| NOW + 3_600), [(1, 0), (1, 0), (0, 1), (0, 1)]);
        assert_eq!(counts(|_| NOW * 1_000), [(1, 0), (1, 0), (0, 1), (0, 1)], "in milliseconds");
    }

    #[test]
    fn worker_with_a_clock_ahead_stays_a_member() {
        assert_eq!(counts(|later| NOW + later + 3_600), [(1, 0); 4]);
        assert_eq!(counts(|later| (NOW + later) * 1_000), [(1, 0); 4], "in milliseconds");
        assert_eq!(counts(|later| NOW + later + 60), [(1, 0); 4], "within twice the interval");
    }

    #[test]
    fn old_report_from_the_future_does_not_hide_new_ones() {
        let (start, mut ahead) = (Instant::now(), Ahead::default());
        let reports = [says(&[5.0], NOW + 3_600), says(&[7.0], NOW)];
        ahead.judge(&reports, NOW, start, &rules());
        let verdict = ahead.judge(&reports, NOW, start + Duration::from_secs(61), &rules());
        assert!((verdict.members[0].metrics[0].value - 7.0).abs() < 1e-9);
        assert_eq!(verdict.ahead, [("w".to_owned(), NOW + 3_600)]);
    }

    #[test]
    fn leader_and_renewing_workers_are_members_without_reports() {
        let (me, renewing) = (WorkerId::from("me"), BTreeSet::from(["a".into(), "b".into(), "me".into()]));
        let ids = |verdict: Verdict| -> Vec<String> {
            verdict.members.iter().map(|member| member.id.to_string()).collect()
        };
        assert_eq!(ids(with_renewing(Verdict::default(), Some(&me), &BTreeSet::new())), ["me"]);
        assert_eq!(ids(with_renewing(Verdict::default(), Some(&me), &renewing)), ["a", "b", "me"]);
        let read = judge(&[Recorder::farewell(&"a".into(), NOW), says(&[5.0], NOW)], NOW, &rules());
        assert_eq!(ids(with_renewing(read, Some(&me), &renewing)), ["w", "b", "me"], "a wants nothing");
    }

    #[test]
    fn newest_of_several_reports_counts() {
        let verdict =
            judge(&[says(&[5.0], NOW - 10), says(&[7.0], NOW), says(&[6.0], NOW - 5)], NOW, &rules());
        assert_eq!(verdict.members.len(), 1);
        assert!((verdict.members[0].metrics[0].value - 7.0).abs() < 1e-9);
    }
}
