//! The promises, each as a pure function from the ledger to what breaks it. None of them knows how
//! the daemon works; what each says is true of every run in which the promise was kept, however slow
//! the machine.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use crate::ledger::*;

/// Two samples that are further apart say too little about who wrote what lies between them: a lease
/// may have changed hands twice.
pub const CLOSE: Micros = SECOND;

type Check = fn(&Ledger) -> Vec<String>;

/// Every check with its name.
pub const ALL: [(&str, Check); 9] = [
    ("every record that was put is delivered", undelivered),
    ("a child gets its shard's records in order, without a gap, from where the lease stood", skipped),
    ("a key's records are first seen in the order in which they were put", overtaken),
    ("no checkpoint passes a record that no child has got", passed_over),
    ("a shard starts after all its parents were reported ended", early),
    ("no checkpoint moves back, and what was acknowledged is stored", moved_back),
    ("a checkpoint moves to where a child of the lease's owner was", moved_by_strangers),
    ("a checkpoint is acknowledged to the owner's children alone", acknowledged_to_strangers),
    ("what was checkpointed before a lease changed hands is not repeated", repeated),
];

/// A promise that is broken everywhere needn't be shown everywhere.
const SHOWN: usize = 10;

/// What breaks a promise, each with the promise's name before it.
pub fn broken(ledger: &Ledger) -> Vec<String> {
    let mut broken = Vec::new();
    for (name, check) in ALL {
        let faults = check(ledger);
        broken.extend(faults.iter().take(SHOWN).map(|fault| format!("{name}: {fault}")));
        if faults.len() > SHOWN {
            broken.push(format!("{name}: {} more", faults.len() - SHOWN));
        }
    }
    broken
}

/// At least once, and as it was put.
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
            faults.push(format!("record {} of {} came to no child", put.id, put.shard));
        }
    }
    faults.extend(seen.into_iter().map(|(shard, _, id)| format!("record {id} of {shard} was never put so")));
    faults
}

/// What a child got is what the shard has behind the child's starting point, one after the other:
/// this is order, none twice and no gap in one.
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
                    "child {} of {} on {} (from {:?}) got record {id} at {at} where {next:?} was next",
                    run.child, run.daemon, run.shard, run.from
                ));
                break;
            }
        }
    }
    faults
}

/// Order holds for a key through every split and merge.
pub fn overtaken(ledger: &Ledger) -> Vec<String> {
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
            faults.push(format!("record {} of key {} came before record {id}", put.id, put.key));
        }
    }
    faults
}

/// Whoever says that everything up to a mark is done (an acknowledgement, a row, the start of a child)
/// says it after a child got the last of it.
pub fn passed_over(ledger: &Ledger) -> Vec<String> {
    let first = ledger.first_seen();
    let contents = ledger.contents();
    // For each record the moment at which it and all before it had been seen.
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
            claim("what was acknowledged", run.shard, mark, *at);
        }
    }
    for Change { sample, shard, row, .. } in changes(ledger) {
        claim("the row", shard, &row.checkpoint, sample.after);
    }
    faults
}

/// A child of a shard waits for both its parents.
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

/// By the samples, and by what children were told beside the samples.
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

/// A daemon that has lost a lease without knowing it (frozen, say) moves nothing: where an owner
/// stands, its own children were.
pub fn moved_by_strangers(ledger: &Ledger) -> Vec<String> {
    // Where each worker's children were last in a batch, or at a shard's end, and when first.
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

/// From the last sample before the question to the first one after the answer, the worker whose child
/// asked was seen as the owner at least once.
pub fn acknowledged_to_strangers(ledger: &Ledger) -> Vec<String> {
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

/// Who takes a lease goes on at least from where it stood when somebody else had it last.
///
/// That is the last row of another owner before the child's start, if the lease was just taken. If not,
/// it may have been taken away again while the child was being started, which its daemon learns with its
/// next write only: then what counts is the last row of another owner before the daemon's own.
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
                "child {} of {} on {} started from {:?}, the row at {} was {row:?}",
                run.child, run.daemon, run.shard, run.from, sample.before
            ));
        }
    }
    faults
}

/// A row as it first was, or when it was different from before.
pub struct Change<'a> {
    pub sample: &'a Sample,
    pub shard: &'a Shard,
    /// With the last sample that still showed it.
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

/// Duplicate deliveries by what caused them; those of no known cause are faults.
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
                    "record {id} of {shard} came to child {} of {} again at {at}",
                    runs[number].child, runs[number].daemon
                )),
            }
        }
    }
    (counts, faults)
}

/// Why the child `number` of a shard may get a record that another one got before.
fn cause(ledger: &Ledger, runs: &[&Run<'_>], number: usize, at: Micros) -> Option<&'static str> {
    let run = runs[number];
    if runs.get(number + 1).is_some_and(|next| next.started <= at) {
        return Some("the former owner went on for a moment");
    }
    let before = runs.get(number.checked_sub(1)?)?;
    if before.daemon == run.daemon {
        return Some("a child was started anew by its daemon");
    }
    Some(match ledger.fate_of_daemon(before.daemon, run.started)? {
        Fate::Killed => "the former daemon was killed",
        Fate::Stopped | Fate::Dismissed => "the former daemon was stopped",
        Fate::Frozen => "the former daemon was frozen",
        Fate::Started | Fate::Woken => "the lease was taken from a daemon that lived",
    })
}
