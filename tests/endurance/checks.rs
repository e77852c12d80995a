//! The invariants, each as a pure function from the ledger to its violations. No check depends on how the
//! daemon works; each holds for every correct run, however slow the machine.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::ledger::*;

/// Two samples further apart than this do not show who made the writes between them: the lease may have had two
/// other owners meanwhile.
pub const CLOSE: Micros = SECOND;

type Check = fn(&Ledger) -> Vec<String>;

/// Every check with its name.
pub const ALL: [(&str, Check); 9] = [
    ("every record that was put is delivered", undelivered),
    ("a child receives its shard's records in order, without a gap, from the checkpoint", skipped),
    ("a key's records are first delivered in the order in which they were put", out_of_order),
    ("no checkpoint passes an undelivered record", checkpointed_before_delivery),
    ("a shard starts after all its parents ended", early),
    ("no checkpoint moves back, and acknowledged checkpoints are stored", moved_back),
    ("only children of the lease owner move its checkpoint", moved_by_non_owners),
    ("checkpoints are acknowledged to the owner's children only", acknowledged_to_non_owners),
    ("checkpointed records are not delivered to the next owner", repeated),
];

/// The maximum number of violations shown per invariant.
const SHOWN: usize = 10;

/// All violations, each prefixed by the name of its invariant.
pub fn violations(ledger: &Ledger) -> Vec<String> {
    let mut violations = Vec::new();
    for (name, check) in ALL {
        let faults = check(ledger);
        violations.extend(faults.iter().take(SHOWN).map(|fault| format!("{name}: {fault}")));
        if faults.len() > SHOWN {
            violations.push(format!("{name}: {} more", faults.len() - SHOWN));
        }
    }
    violations
}

/// Every record is delivered at least once, unchanged.
pub fn undelivered(ledger: &Ledger) -> Vec<String> {
    let mut seen = HashSet::new();
    for said in &ledger.said {
        if let What::Given(records) = &said.what {
            seen.extend(records.iter().map(|(mark, id)| (&said.shard, mark, *id)));
        }
    }
    let mut faults = Vec::new();
    for put in &ledger.puts {
        if !seen.remove(&(&put.shard, &put.mark, put.id)) {
            faults.push(format!("record {} of {} was not delivered", put.id, put.shard));
        }
    }
    faults.extend(
        seen.into_iter().map(|(shard, _, id)| format!("record {id} of {shard} was delivered but not put")),
    );
    faults
}

/// A child receives the records that follow its starting position in the shard, consecutively: in order, none
/// twice, without a gap.
pub fn skipped(ledger: &Ledger) -> Vec<String> {
    let contents = ledger.contents();
    let mut faults = Vec::new();
    for run in ledger.runs() {
        let records = contents.get(run.shard).map_or(&[][..], Vec::as_slice);
        let after = &records[records.partition_point(|(mark, _)| *mark <= run.from)..];
        let mut expected = after.iter();
        for (at, mark, id) in &run.given {
            let next = expected.next();
            if next != Some(&(*mark, *id)) {
                faults.push(format!(
                    "child {} of {} on {} (from {:?}) received record {id} at {at}, expected {next:?}",
                    run.child, run.daemon, run.shard, run.from
                ));
                break;
            }
        }
    }
    faults
}

/// The order of a partition key's records is preserved across splits and merges.
pub fn out_of_order(ledger: &Ledger) -> Vec<String> {
    let first = ledger.first_seen();
    let mut latest: HashMap<u64, (Micros, u64)> = HashMap::new();
    let mut puts: Vec<&Put> = ledger.puts.iter().collect();
    puts.sort_by_key(|put| put.id);
    let mut faults = Vec::new();
    for put in puts {
        let Some(at) = first.get(&put.id) else { continue };
        if let Some((before, id)) = latest.insert(put.key, (*at, put.id))
            && before > *at
        {
            faults.push(format!("record {} of key {} was delivered before record {id}", put.id, put.key));
        }
    }
    faults
}

/// Every statement that all records up to a position are processed (an acknowledgement, a lease row, the start
/// of a child) follows the delivery of the last of these records.
pub fn checkpointed_before_delivery(ledger: &Ledger) -> Vec<String> {
    let first = ledger.first_seen();
    let contents = ledger.contents();
    // For each record the time at which it and all preceding records had been delivered.
    let mut done: BTreeMap<&Shard, Vec<(&Mark, u64, Micros)>> = BTreeMap::new();
    for (shard, records) in contents {
        let mut all = 0;
        let list = records.into_iter().map(|(mark, id)| {
            all = all.max(first.get(&id).copied().unwrap_or(Micros::MAX));
            (mark, id, all)
        });
        done.insert(shard, list.collect());
    }
    let mut faults = Vec::new();
    let mut claim = |what: &str, shard: &Shard, mark: &Mark, at: Micros| {
        let records = done.get(shard).map_or(&[][..], Vec::as_slice);
        let through = &records[..records.partition_point(|(of, ..)| *of <= mark)];
        if let Some((_, id, all)) = through.last()
            && *all > at
        {
            faults.push(format!(
                "{what} of {shard} is {mark:?} at {at}, though not all up to record {id} came"
            ));
        }
    };
    for run in ledger.runs() {
        claim("the start", run.shard, run.from, run.started);
        for (_, at, mark) in &run.stored {
            claim("the acknowledgement", run.shard, mark, *at);
        }
    }
    for Change { sample, shard, row, .. } in changes(ledger) {
        claim("the row", shard, &row.checkpoint, sample.after);
    }
    faults
}

/// A child of a shard starts only after all its parents ended.
pub fn early(ledger: &Ledger) -> Vec<String> {
    let mut ended: HashMap<&Shard, Micros> = HashMap::new();
    for said in ledger.said.iter().filter(|said| said.what == What::Ended) {
        ended.entry(&said.shard).or_insert(said.at);
    }
    let mut faults = Vec::new();
    let mut known = HashSet::new();
    for run in ledger.runs().iter().filter(|run| known.insert(run.shard)) {
        for parent in ledger.parents.get(run.shard).into_iter().flatten() {
            if ended.get(parent).is_none_or(|at| *at > run.started) {
                faults.push(format!(
                    "{} started at {}, its parent {parent} ended at {:?}",
                    run.shard,
                    run.started,
                    ended.get(parent)
                ));
            }
        }
    }
    faults
}

/// Verified with the samples, and with the checkpoints that were acknowledged between them.
pub fn moved_back(ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    for Change { sample, shard, before, row } in changes(ledger) {
        let Some((_, before)) = before else { continue };
        if row.checkpoint < before.checkpoint {
            faults.push(format!("{shard} at {}: from {before:?} back to {row:?}", sample.after));
        }
        if row.counter <= before.counter {
            faults
                .push(format!("{shard} at {}: {before:?} became {row:?} by no counted write", sample.after));
        }
    }
    for run in ledger.runs() {
        let history = ledger.history(run.shard);
        for (_, at, mark) in &run.stored {
            let next = history.partition_point(|(sample, _)| sample.before <= *at);
            if let Some((sample, row)) = history.get(next)
                && row.checkpoint < **mark
            {
                faults.push(format!(
                    "{} of {}: {mark:?} was acknowledged at {at}, the row at {} is {row:?}",
                    run.shard, run.daemon, sample.before
                ));
            }
        }
    }
    faults
}

/// A daemon that has lost a lease without noticing (because it was frozen, say) stores no checkpoint: a new
/// checkpoint is one that a child of the lease owner can have requested.
pub fn moved_by_non_owners(ledger: &Ledger) -> Vec<String> {
    // The positions at which children of each worker ended a batch or a shard, with the earliest time.
    let mut places: HashMap<(&str, &Shard, &Mark), Micros> = HashMap::new();
    for said in &ledger.said {
        let mark = match &said.what {
            What::Given(records) => records.last().map(|(mark, _)| mark),
            What::Ended => Some(&Mark::End),
            What::Started { .. }
            | What::Stored { .. }
            | What::Refused
            | What::LeaseLost
            | What::StopAsked => None,
        };
        if let Some(mark) = mark {
            places.entry((worker(&said.daemon), &said.shard, mark)).or_insert(said.at);
        }
    }
    let mut faults = Vec::new();
    for Change { sample, shard, before, row } in changes(ledger) {
        let Some((earlier, before)) = before else { continue };
        if row.checkpoint == before.checkpoint || sample.after - earlier.before > CLOSE {
            continue;
        }
        let owners: BTreeSet<&str> =
            [&before.owner, &row.owner].into_iter().flatten().map(|o| &**o).collect();
        let was_there = |owner: &&str| {
            places.get(&(*owner, shard, &row.checkpoint)).is_some_and(|at| *at <= sample.after)
        };
        if !owners.iter().any(was_there) {
            let who: Vec<&str> = places
                .keys()
                .filter(|(_, of, mark)| *of == shard && **mark == row.checkpoint)
                .map(|p| p.0)
                .collect();
            faults.push(format!(
                "{shard} at {}: {before:?} became {row:?}, where children of {who:?} were",
                sample.after
            ));
        }
    }
    faults
}

/// Between the last sample before the request and the first one after the acknowledgement, the worker of the
/// requesting child was the owner in at least one sample.
pub fn acknowledged_to_non_owners(ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    for run in ledger.runs() {
        let history = ledger.history(run.shard);
        for (asked, at, mark) in &run.stored {
            let first = history.partition_point(|(sample, _)| sample.after < *asked).saturating_sub(1);
            let last = history.partition_point(|(sample, _)| sample.before <= *at);
            let Some(around) = history.get(first..=last) else { continue };
            let mut pairs = around.windows(2);
            if pairs.any(|pair| pair[1].0.after - pair[0].0.before > CLOSE) {
                continue;
            }
            let me = worker(run.daemon);
            if !around.iter().any(|(_, row)| row.owner.as_deref() == Some(me)) {
                let owners: BTreeSet<_> = around.iter().map(|(_, row)| row.owner.as_deref()).collect();
                faults.push(format!(
                    "{} of {}: {mark:?} was acknowledged at {at} while the row was of {owners:?}",
                    run.shard, run.daemon
                ));
            }
        }
    }
    faults
}

/// A new owner of a lease starts at or after the checkpoint of the previous owner.
///
/// If the lease was just acquired, that is the last row of another owner before the child's start. Otherwise
/// the lease may have been lost while the child was starting, which the daemon notices only at its next write:
/// then the last row of another owner before the daemon's own row counts.
pub fn repeated(ledger: &Ledger) -> Vec<String> {
    let mut faults = Vec::new();
    for run in ledger.runs() {
        let history = ledger.history(run.shard);
        let is_own =
            |(_, row): &(&Sample, &std::sync::Arc<Row>)| row.owner.as_deref() == Some(worker(run.daemon));
        let started = history.partition_point(|(sample, _)| sample.after <= run.started);
        let next = history.partition_point(|(sample, _)| sample.before < run.started);
        let is_held =
            history.get(started.saturating_sub(1)..=next).is_none_or(|around| around.iter().any(is_own));
        let before = &history[..started];
        let own = if is_held { Some(started) } else { before.iter().rposition(is_own) };
        let foreign = own.and_then(|own| before[..own].iter().rfind(|seen| !is_own(seen)));
        if let Some((sample, row)) = foreign
            && *run.from < row.checkpoint
        {
            faults.push(format!(
                "child {} of {} on {} started at {:?}, the row at {} was {row:?}",
                run.child, run.daemon, run.shard, run.from, sample.before
            ));
        }
    }
    faults
}

/// A row when it first appeared, or when it differed from the previous sample.
pub struct Change<'a> {
    pub sample: &'a Sample,
    pub shard: &'a Shard,
    /// The last sample that showed the previous row, and that row.
    pub before: Option<(&'a Sample, &'a Row)>,
    pub row: &'a Row,
}

pub fn changes(ledger: &Ledger) -> Vec<Change<'_>> {
    let mut last: HashMap<&Shard, (&Sample, &Row)> = HashMap::new();
    let mut changes = Vec::new();
    for sample in &ledger.samples {
        for (shard, row) in &sample.rows {
            let before = last.insert(shard, (sample, row));
            if before.is_none_or(|(_, before)| *before != **row) {
                changes.push(Change { sample, shard, before, row });
            }
        }
    }
    changes
}

/// The duplicate deliveries by cause. Duplicates without a known cause are violations.
pub fn duplicates(ledger: &Ledger) -> (BTreeMap<&'static str, usize>, Vec<String>) {
    let runs = ledger.runs();
    let mut by_shard: BTreeMap<&Shard, Vec<&Run<'_>>> = BTreeMap::new();
    for run in &runs {
        by_shard.entry(run.shard).or_default().push(run);
    }
    let (mut counts, mut faults) = (BTreeMap::new(), Vec::new());
    for (shard, runs) in by_shard {
        let mut given: Vec<(Micros, usize, u64)> = Vec::new();
        for (number, run) in runs.iter().enumerate() {
            given.extend(run.given.iter().map(|(at, _, id)| (*at, number, *id)));
        }
        given.sort_unstable();
        let mut seen: HashMap<u64, HashSet<usize>> = HashMap::new();
        for (at, number, id) in given {
            let before = seen.entry(id).or_default();
            let again = !before.insert(number);
            let repeated = again || before.len() > 1;
            if !repeated {
                continue;
            }
            match if again { None } else { cause(ledger, &runs, number, at) } {
                Some(cause) => *counts.entry(cause).or_default() += 1,
                None => faults.push(format!(
                    "record {id} of {shard} was delivered again to child {} of {} at {at}",
                    runs[number].child, runs[number].daemon
                )),
            }
        }
    }
    (counts, faults)
}

/// The reason why child `number` of a shard may receive a record that another child received before.
fn cause(ledger: &Ledger, runs: &[&Run<'_>], number: usize, at: Micros) -> Option<&'static str> {
    let run = runs[number];
    if runs.get(number + 1).is_some_and(|next| next.started <= at) {
        return Some("the former owner continued until it noticed the loss");
    }
    let before = runs.get(number.checked_sub(1)?)?;
    if before.daemon == run.daemon {
        return Some("the daemon restarted the child");
    }
    Some(match ledger.fate_of_daemon(before.daemon, run.started)? {
        Fate::Killed => "the former daemon was killed",
        Fate::Stopped | Fate::Dismissed => "the former daemon was stopped",
        Fate::Frozen => "the former daemon was frozen",
        Fate::Started | Fate::Woken => "the lease was stolen from a live daemon",
    })
}
