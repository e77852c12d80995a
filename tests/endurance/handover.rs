//! The time for which the shards of a stopped, killed or frozen daemon have no live owner.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::*;

/// After a SIGTERM the leases are released, and the others only have to scan the table.
pub const AFTER_STOP: Micros = 2 * SECOND;
/// After a SIGKILL the leases must first expire (`failoverTimeMillis`).
pub const AFTER_KILL: Micros = FAILOVER + 5 * SECOND;
pub const FAILOVER: Micros = 10 * SECOND;

/// One open lease of a daemon that was stopped, killed or frozen.
#[derive(Debug, Clone)]
pub struct Handover {
    pub shard: Shard,
    pub daemon: String,
    pub fate: Fate,
    /// The time until the first sample with a live owner, from the SIGKILL or SIGSTOP, or, after SIGTERM, from
    /// the release of the lease; none if there was no live owner.
    pub took: Option<Micros>,
}

pub fn handovers(ledger: &Ledger) -> Vec<Handover> {
    let mut found = Vec::new();
    for blow in &ledger.happened {
        if !matches!(blow.fate, Fate::Killed | Fate::Stopped | Fate::Frozen) {
            continue;
        }
        let struck = ledger.samples.partition_point(|sample| sample.after <= blow.at);
        let Some(last) = struck.checked_sub(1).and_then(|at| ledger.samples.get(at)) else { continue };
        let me = worker(&blow.daemon);
        for (shard, row) in &last.rows {
            if row.owner.as_deref() != Some(me) || row.checkpoint == Mark::End {
                continue;
            }
            if let Some(took) = watch(ledger, &ledger.samples[struck..], blow, shard) {
                found.push(Handover {
                    shard: shard.clone(),
                    daemon: blow.daemon.to_string(),
                    fate: blow.fate,
                    took,
                });
            }
        }
    }
    found
}

/// None if the shard ended, or its row was deleted, before it needed another owner.
fn watch(ledger: &Ledger, samples: &[Sample], blow: &Happened, shard: &Shard) -> Option<Option<Micros>> {
    let me = worker(&blow.daemon);
    let again = ledger.happened.iter().filter(|happened| {
        worker(&happened.daemon) == me && happened.at > blow.at && happened.fate != Fate::Dismissed
    });
    let again = again.map(|happened| happened.at).min();
    let over = ledger.happened.iter().filter(|happened| happened.fate == Fate::Dismissed);
    let over = over.map(|happened| happened.at).min().unwrap_or(Micros::MAX);
    // The time since which the lease lacks a live owner.
    let mut since = (blow.fate != Fate::Stopped).then_some(blow.at);
    // A worker that has returned owns its old row again once it renews it.
    let mut standing = None;
    for sample in samples.iter().take_while(|sample| sample.after < over) {
        let row = sample.rows.get(shard)?;
        let mine = row.owner.as_deref() == Some(me);
        if mine && row.checkpoint == Mark::End {
            return None;
        }
        if !mine {
            since.get_or_insert(sample.after);
        }
        let returned = again.is_some_and(|again| sample.before > again);
        let counter = *standing.get_or_insert(row.counter);
        if mine && !returned {
            standing = Some(row.counter);
        }
        let moved = !mine || (returned && row.counter != counter);
        let alive = row.owner.as_deref().is_some_and(|owner| ledger.is_alive(owner, sample.after));
        if alive && moved {
            return Some(Some(sample.after - since.unwrap_or(sample.after)));
        }
    }
    Some(None)
}

/// Leases that took longer than allowed.
pub fn late(handovers: &[Handover]) -> Vec<String> {
    let is_late = |handover: &&Handover| {
        let limit = match handover.fate {
            Fate::Stopped => AFTER_STOP,
            Fate::Killed => AFTER_KILL,
            // A freeze is detected like a kill, but the time after waking up has no bound.
            Fate::Started | Fate::Frozen | Fate::Woken | Fate::Dismissed => return false,
        };
        handover.took.is_none_or(|took| took > limit)
    };
    let shown = |late: &Handover| {
        let Handover { shard, daemon, fate, took } = late;
        format!("{shard} of {daemon} ({fate:?}): {}", took.map_or_else(|| "never".to_owned(), seconds))
    };
    handovers.iter().filter(is_late).map(shown).collect()
}

/// A line for each fault: the number of leases, and the time each took.
pub fn figures(handovers: &[Handover]) -> Vec<String> {
    let mut blows: BTreeMap<(Fate, &str), Vec<Option<Micros>>> = BTreeMap::new();
    for handover in handovers {
        blows.entry((handover.fate, &handover.daemon)).or_default().push(handover.took);
    }
    let line = |((fate, daemon), mut took): ((Fate, &str), Vec<Option<Micros>>)| {
        // A lease that was never acquired sorts last.
        took.sort_by_key(|took| took.unwrap_or(Micros::MAX));
        let each: Vec<String> =
            took.iter().map(|took| took.map_or_else(|| "never".to_owned(), seconds)).collect();
        let largest = each.last().cloned().unwrap_or_default();
        format!("{fate:?} {daemon}: {} leases, the largest {largest}: {}", each.len(), each.join(" "))
    };
    blows.into_iter().map(line).collect()
}

/// The time until the leases of new shards had their first owner.
pub fn newcomers(ledger: &Ledger) -> Vec<(&Shard, Micros)> {
    let mut waiting: BTreeMap<&Shard, Micros> = BTreeMap::new();
    let mut owned = Vec::new();
    let mut known: BTreeSet<&Shard> =
        ledger.samples.iter().take(1).flat_map(|sample| sample.rows.keys()).collect();
    for sample in &ledger.samples {
        for (shard, row) in &sample.rows {
            if known.insert(shard) {
                waiting.insert(shard, sample.after);
            }
            if row.owner.is_some()
                && let Some(since) = waiting.remove(shard)
            {
                owned.push((shard, sample.after - since));
            }
        }
    }
    owned
}

pub fn seconds(micros: Micros) -> String {
    let tenths = micros.div_ceil(SECOND / 10);
    format!("{}.{} s", tenths / 10, tenths % 10)
}
