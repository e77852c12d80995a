//! The record of a run: records put, reports of children, samples of the lease table and faults of daemons, all
//! on one clock. It is the input of the checks.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

/// Microseconds of the system's monotonic clock, which all processes share.
pub type Micros = u64;
pub const SECOND: Micros = 1_000_000;
pub type Shard = Arc<str>;

/// A position in a shard. Positions compare as the integers that sequence numbers are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Mark {
    Horizon,
    /// The number of digits comes first, so that the derived order is that of the integers.
    Record {
        length: usize,
        digits: Arc<str>,
        sub: u64,
    },
    End,
}

impl Mark {
    pub fn parse(text: &str, sub: u64) -> Self {
        match text {
            "TRIM_HORIZON" => Self::Horizon,
            "SHARD_END" => Self::End,
            digits => {
                assert!(!digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()), "{digits:?}");
                let digits = digits.trim_start_matches('0');
                Self::Record { length: digits.len(), digits: digits.into(), sub }
            }
        }
    }
}

/// A record that the endpoint acknowledged. Ids ascend within each partition key.
#[derive(Debug, Clone)]
pub struct Put {
    pub id: u64,
    pub key: u64,
    pub shard: Shard,
    pub mark: Mark,
}

/// A report of a child.
#[derive(Debug, Clone)]
pub struct Said {
    pub at: Micros,
    /// Identifies the process, even if its pid is reused.
    pub child: Arc<str>,
    /// The worker id and the number of its start: `b2`.
    pub daemon: Arc<str>,
    pub shard: Shard,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq)]
pub enum What {
    Started {
        from: Mark,
    },
    Given(Vec<(Mark, u64)>),
    /// A checkpoint beyond all previous ones was acknowledged.
    Stored {
        asked: Micros,
        mark: Mark,
    },
    Refused,
    Ended,
    LeaseLost,
    StopAsked,
}

/// The relevant attributes of a lease row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    pub owner: Option<Arc<str>>,
    pub counter: i64,
    pub checkpoint: Mark,
}

/// The rows of one scan: each is as it was at some time from `before` to `after`.
#[derive(Debug, Clone)]
pub struct Sample {
    pub before: Micros,
    pub after: Micros,
    /// A row that did not change since the last sample is shared with it.
    pub rows: BTreeMap<Shard, Arc<Row>>,
}

/// A fault or a change of a daemon's state.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fate {
    Started,
    Killed,
    Stopped,
    Frozen,
    Woken,
    /// Stopped at the end of the test.
    Dismissed,
}

#[derive(Debug, Clone)]
pub struct Happened {
    pub at: Micros,
    pub daemon: Arc<str>,
    pub fate: Fate,
}

#[derive(Debug, Clone, Default)]
pub struct Ledger {
    pub puts: Vec<Put>,
    pub said: Vec<Said>,
    pub samples: Vec<Sample>,
    pub happened: Vec<Happened>,
    /// The parents of each shard, as in ListShards.
    pub parents: BTreeMap<Shard, Vec<Shard>>,
}

/// The life of one child.
#[derive(Debug)]
pub struct Run<'a> {
    pub child: &'a str,
    pub daemon: &'a str,
    pub shard: &'a Shard,
    pub started: Micros,
    pub from: &'a Mark,
    /// The delivery time of each record, in order.
    pub given: Vec<(Micros, &'a Mark, u64)>,
    pub stored: Vec<(Micros, Micros, &'a Mark)>,
}

/// The worker of a daemon: `b` for `b2`.
pub fn worker(daemon: &str) -> &str {
    daemon.trim_end_matches(|c: char| c.is_ascii_digit())
}

impl Ledger {
    /// Sorts the reports of children by time. They arrive over separate sockets, so reports of two children may
    /// arrive in the reverse order.
    pub fn sort(&mut self) {
        self.said.sort_by_key(|said| said.at);
    }

    /// Every child that was initialized, in the order of the starts.
    pub fn runs(&self) -> Vec<Run<'_>> {
        let mut runs: Vec<Run<'_>> = Vec::new();
        let mut index: HashMap<&str, usize> = HashMap::new();
        for said in &self.said {
            if let What::Started { from } = &said.what {
                index.insert(&said.child, runs.len());
                runs.push(Run {
                    child: &said.child,
                    daemon: &said.daemon,
                    shard: &said.shard,
                    started: said.at,
                    from,
                    given: Vec::new(),
                    stored: Vec::new(),
                });
            }
            let Some(run) = index.get(&*said.child).and_then(|at| runs.get_mut(*at)) else { continue };
            match &said.what {
                What::Given(records) => {
                    run.given.extend(records.iter().map(|(mark, id)| (said.at, mark, *id)));
                }
                What::Stored { asked, mark } => run.stored.push((*asked, said.at, mark)),
                What::Started { .. } | What::Refused | What::Ended | What::LeaseLost | What::StopAsked => {}
            }
        }
        runs
    }

    /// The records of each shard, in order.
    pub fn contents(&self) -> BTreeMap<&Shard, Vec<(&Mark, u64)>> {
        let mut contents: BTreeMap<&Shard, Vec<(&Mark, u64)>> = BTreeMap::new();
        for put in &self.puts {
            contents.entry(&put.shard).or_default().push((&put.mark, put.id));
        }
        contents.values_mut().for_each(|records| records.sort());
        contents
    }

    /// The time at which each record was first delivered.
    pub fn first_seen(&self) -> HashMap<u64, Micros> {
        let mut first = HashMap::new();
        for said in &self.said {
            if let What::Given(records) = &said.what {
                for (_, id) in records {
                    let at: &mut Micros = first.entry(*id).or_insert(said.at);
                    *at = said.at.min(*at);
                }
            }
        }
        first
    }

    /// The last state change of a worker before the given time.
    pub fn fate(&self, worker_id: &str, at: Micros) -> Option<Fate> {
        let of = self.happened.iter().filter(|happened| worker(&happened.daemon) == worker_id);
        of.filter(|happened| happened.at <= at).max_by_key(|happened| happened.at).map(|last| last.fate)
    }

    /// The last state change of one daemon before the given time.
    pub fn fate_of_daemon(&self, daemon: &str, at: Micros) -> Option<Fate> {
        let of = self.happened.iter().filter(|happened| &*happened.daemon == daemon);
        of.filter(|happened| happened.at <= at).max_by_key(|happened| happened.at).map(|last| last.fate)
    }

    pub fn is_alive(&self, worker_id: &str, at: Micros) -> bool {
        matches!(self.fate(worker_id, at), Some(Fate::Started | Fate::Woken))
    }

    /// One row in all samples that contain it.
    pub fn history<'a>(&'a self, shard: &'a str) -> Vec<(&'a Sample, &'a Arc<Row>)> {
        let row = |sample: &'a Sample| sample.rows.get(shard).map(|row| (sample, row));
        self.samples.iter().filter_map(row).collect()
    }
}
