//! Settings of multilangd. Each can be given as an option, as an environment variable, or in the file, in
//! this order of precedence. In the file they have a prefix that Java ignores, so that Java's daemon can
//! still use the file.

use std::net::{Ipv4Addr, SocketAddr};

use crate::config::Remark;
use crate::config::settings::Settings;

/// The prefix of multilangd's keys in the file. Java looks up the first part of the name, finds no such
/// property, and ignores the key (`BeanUtilsBean.setProperty`).
pub const PREFIX: &str = "multilangd.";
/// The prefix of multilangd's environment variables.
pub const VARIABLE_PREFIX: &str = "MULTILANGD_";

/// A setting of multilangd.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Own {
    /// The key in the file.
    pub name: &'static str,
    /// The process or the application, where one process runs several applications.
    pub scope: Scope,
    /// The allowed values.
    pub kind: OwnKind,
    /// The default.
    pub default: &'static str,
    /// The description for the documentation.
    pub doc: &'static str,
}

/// The owner of a setting, where one process runs several applications.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// The application: each properties file has its own value.
    Application,
    /// The process: all properties files must have one value.
    Process,
}

impl Scope {
    /// The scope in one word, for the documentation.
    pub fn word(self) -> &'static str {
        match self {
            Self::Application => "application",
            Self::Process => "process",
        }
    }
}

/// The allowed values of a setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnKind {
    /// One of these keywords.
    Word(&'static [&'static str]),
    /// An integer of at least this value.
    Number(i64),
    /// The keyword `same`, or an integer of at least this value.
    Or(i64),
    /// `off`, a port on loopback, or an address with a port.
    Address,
    /// Directives of a log filter, such as `warn,multilangd=debug`.
    Filter,
    /// `none`, or destinations of dead letters.
    Destinations,
    /// `none`, or any text.
    Text,
}

impl OwnKind {
    /// The values for the help of an option.
    pub fn value_name(self) -> String {
        match self {
            Self::Word(words) => words.join("|"),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Address => "PORT|ADDRESS:PORT|off".to_owned(),
            Self::Or(_) => format!("NUMBER|{SAME}"),
            Self::Filter => "FILTER".to_owned(),
            Self::Destinations => "DESTINATION,…".to_owned(),
            Self::Text => "TEXT".to_owned(),
        }
    }
}

/// `multilangd.onChildFailure`.
pub const ON_CHILD_FAILURE: &str = "multilangd.onChildFailure";
/// `multilangd.maxChildFailures`.
pub const MAX_CHILD_FAILURES: &str = "multilangd.maxChildFailures";
/// `multilangd.onHopelessShard`.
pub const ON_HOPELESS_SHARD: &str = "multilangd.onHopelessShard";
/// `multilangd.maxParkedPauseMillis`.
pub const MAX_PARKED_PAUSE: &str = "multilangd.maxParkedPauseMillis";
/// `multilangd.deadLetters`.
pub const DEAD_LETTERS: &str = "multilangd.deadLetters";
/// `multilangd.maxRecordFailures`.
pub const MAX_RECORD_FAILURES: &str = "multilangd.maxRecordFailures";
/// `multilangd.maxDeadLettersInARow`.
pub const MAX_DEAD_LETTERS_IN_A_ROW: &str = "multilangd.maxDeadLettersInARow";
/// `multilangd.maxRecordAgeMillis`.
pub const MAX_RECORD_AGE: &str = "multilangd.maxRecordAgeMillis";
/// `multilangd.skipOldRecords`.
pub const SKIP_OLD_RECORDS: &str = "multilangd.skipOldRecords";
/// `multilangd.maxBatchRecords`.
pub const MAX_BATCH_RECORDS: &str = "multilangd.maxBatchRecords";
/// `multilangd.batchWindowMillis`.
pub const BATCH_WINDOW: &str = "multilangd.batchWindowMillis";
/// `multilangd.childErrorLine`.
pub const CHILD_ERROR_LINE: &str = "multilangd.childErrorLine";
/// `multilangd.childProtocol`.
pub const CHILD_PROTOCOL: &str = "multilangd.childProtocol";
/// `multilangd.childExitGraceMillis`.
pub const CHILD_EXIT_GRACE: &str = "multilangd.childExitGraceMillis";
/// `multilangd.childKillGraceMillis`.
pub const CHILD_KILL_GRACE: &str = "multilangd.childKillGraceMillis";
/// `multilangd.childLog`.
pub const CHILD_LOG: &str = "multilangd.childLog";
/// `multilangd.logFormat`.
pub const LOG_FORMAT: &str = "multilangd.logFormat";
/// `multilangd.log`.
pub const LOG: &str = "multilangd.log";

/// `multilangd.workerIdSuffix`.
pub const WORKER_ID_SUFFIX: &str = "multilangd.workerIdSuffix";

/// `multilangd.useStreamArn`.
pub const USE_STREAM_ARN: &str = "multilangd.useStreamArn";

/// `multilangd.resumeLatest`.
pub const RESUME_LATEST: &str = "multilangd.resumeLatest";

/// `multilangd.bufferMegabytes`.
pub const BUFFER: &str = "multilangd.bufferMegabytes";
/// `multilangd.idleWhenBehindMillis`.
pub const IDLE_BEHIND: &str = "multilangd.idleWhenBehindMillis";

/// `multilangd.status`.
pub const STATUS: &str = "multilangd.status";
/// `multilangd.stuckAfterMillis`.
pub const STUCK_AFTER: &str = "multilangd.stuckAfterMillis";

/// The value that disables the status endpoint.
pub const OFF: &str = "off";
/// The value of a setting that is not used.
pub const NONE: &str = "none";

/// The value that enables a switch.
pub const TRUE: &str = "true";

/// The value that copies another setting.
pub const SAME: &str = "same";

/// All settings of multilangd.
#[rustfmt::skip]
pub const KEYS: &[Own] = &[
    Own { name: ON_CHILD_FAILURE, scope: Scope::Application, kind: OwnKind::Word(&["restart", "exit"]), default: "restart",
        doc: "Reaction to a failed record processor. restart: restart it from the last checkpoint of its shard; other shards are not affected. exit: exit with code 1, as the Java daemon does." },
    Own { name: MAX_CHILD_FAILURES, scope: Scope::Application, kind: OwnKind::Number(1), default: "5",
        doc: "Number of consecutive failures of the record processor of a shard, without a checkpoint between them, after which multilangd.onHopelessShard applies." },
    Own { name: ON_HOPELESS_SHARD, scope: Scope::Application, kind: OwnKind::Word(&["park", "exit"]), default: "park",
        doc: "Reaction to a shard whose record processor fails too often. park: keep the lease and restart the record processor after longer and longer pauses until it works again; exit with code 1 only if every shard is parked and no record processor has ever answered initialize. exit: exit with code 1." },
    Own { name: MAX_PARKED_PAUSE, scope: Scope::Application, kind: OwnKind::Number(1), default: "300000",
        doc: "Maximum milliseconds between two restarts of the record processor of a parked shard." },
    Own { name: DEAD_LETTERS, scope: Scope::Application, kind: OwnKind::Destinations, default: NONE,
        doc: "Destination of records at which the record processor fails: file:DIR, kinesis:STREAM with the name or the ARN of a stream, exec:PROGRAM ARGUMENTS, or several of them separated by commas; none: such a record is retried until it is processed. The batch is halved until the record fails alone, and the shard continues after it once every destination has a copy." },
    Own { name: MAX_RECORD_FAILURES, scope: Scope::Application, kind: OwnKind::Number(1), default: "3",
        doc: "Number of failures of a single record, each in a new record processor, after which it is written to multilangd.deadLetters." },
    Own { name: MAX_DEAD_LETTERS_IN_A_ROW, scope: Scope::Application, kind: OwnKind::Number(1), default: "10",
        doc: "Number of dead letters of a shard without a processed record between them after which no more are written until a record is processed; the shard is parked meanwhile. So an outage of a database does not empty the stream into the dead letters." },
    Own { name: MAX_RECORD_AGE, scope: Scope::Application, kind: OwnKind::Number(0), default: "0",
        doc: "Milliseconds since the arrival of a record at Kinesis after which it is not delivered any more but written to multilangd.deadLetters, which must be set, unless multilangd.skipOldRecords = true. 0: records of any age are delivered." },
    Own { name: SKIP_OLD_RECORDS, scope: Scope::Application, kind: OwnKind::Word(&[TRUE, "false"]), default: "false",
        doc: "Skip records older than multilangd.maxRecordAgeMillis where there are no multilangd.deadLetters: these records are lost. With dead letters it has no effect." },
    Own { name: MAX_BATCH_RECORDS, scope: Scope::Application, kind: OwnKind::Number(0), default: "0",
        doc: "Maximum number of records that are delivered to a record processor at once; larger responses are delivered in parts. 0: all records of a response." },
    Own { name: BATCH_WINDOW, scope: Scope::Application, kind: OwnKind::Number(0), default: "0",
        doc: "Milliseconds that a batch waits for more records before it is delivered, up to multilangd.maxBatchRecords (10,000 without it) or 4 MiB of data. 0: each response is delivered at once." },
    Own { name: CHILD_ERROR_LINE, scope: Scope::Application, kind: OwnKind::Text, default: NONE,
        doc: "Text on stderr by which a record processor reports an exception that it does not answer with: an action during which a line contains it has failed. kclpy and kclrb: the text of amazon_kclpy and of aws-kclrb. none: stderr is only logged." },
    Own { name: CHILD_PROTOCOL, scope: Scope::Application, kind: OwnKind::Word(&["current", "shutdown"]), default: "current",
        doc: "Messages sent to record processors. shutdown: those of KCL versions before 2.1, for clients such as amazon_kclpy 1.5 and aws-kcl 0.7." },
    Own { name: CHILD_EXIT_GRACE, scope: Scope::Application, kind: OwnKind::Number(1), default: "5000",
        doc: "Milliseconds between closing the stdin of a record processor and sending SIGTERM, if it does not exit." },
    Own { name: CHILD_KILL_GRACE, scope: Scope::Application, kind: OwnKind::Number(1), default: "1500",
        doc: "Milliseconds between SIGTERM and SIGKILL; during shutdown also between closing stdin and SIGTERM." },
    Own { name: BUFFER, scope: Scope::Process, kind: OwnKind::Number(40), default: "256",
        doc: "Maximum record data of all shards in memory, in MiB. User records of aggregated records, and the rest of a response that is being read, may exceed it until they are delivered. A quarter is divided among the shards, 18 MiB are reserved for one response of any size, and the rest is shared by the shards that have the most to read; at most 8 MiB wait for one record processor. At least 40." },
    Own { name: IDLE_BEHIND, scope: Scope::Application, kind: OwnKind::Or(0), default: "same",
        doc: "Milliseconds between a GetRecords response and the next call while there is more to read; same: idleTimeBetweenReadsInMillis. Kinesis allows five calls per second and shard for all applications together." },
    Own { name: WORKER_ID_SUFFIX, scope: Scope::Application, kind: OwnKind::Word(&["none", "random", "hostname"]), default: "none",
        doc: "Suffix that is appended to workerId with a hyphen, so that several processes can use one file: a random word for each start, or the host name. Without workerId the id is always random." },
    Own { name: RESUME_LATEST, scope: Scope::Application, kind: OwnKind::Word(&[TRUE, "false"]), default: TRUE,
        doc: "Start of an owner of a lease at LATEST that has no checkpoint yet. true: where the first owner began to read, so that records that it delivered before it failed are delivered again. false: at the newest record, as KCL does, unless the lease stores where reading began (multilangdLatestFrom), which an order to park or pause writes, or a worker with true." },
    Own { name: USE_STREAM_ARN, scope: Scope::Application, kind: OwnKind::Word(&[TRUE, "false"]), default: "false",
        doc: "Name the stream by streamArn in every call, which reads a stream of another account (its resource policy must allow it). false: by its name, as KCL does; a stream of another account or region than that of streamArn is then refused. Some local endpoints ignore ARNs." },
    Own { name: STATUS, scope: Scope::Process, kind: OwnKind::Address, default: "9465",
        doc: "Address of the status page, probes and Prometheus metrics: a port of 127.0.0.1, or an address with a port, as in 0.0.0.0:9465; off: none. If another process uses the default port, there is no status page." },
    Own { name: STUCK_AFTER, scope: Scope::Application, kind: OwnKind::Number(1), default: "60000",
        doc: "Milliseconds without progress, although there is work, after which a shard counts as stuck." },
    Own { name: CHILD_LOG, scope: Scope::Application, kind: OwnKind::Word(&["lines", "raw", "json"]), default: "lines",
        doc: "Form of the output of record processors in the log. lines: each line is a log entry with shard and pid. raw: stderr and the lines on stdout that are no messages are passed through byte for byte. json: with multilangd.logFormat = json, a line that is a JSON object becomes a log entry with its own fields, to which shard, pid and level are added; other lines as with lines." },
    Own { name: LOG_FORMAT, scope: Scope::Process, kind: OwnKind::Word(&["text", "json"]), default: "text",
        doc: "Format of the log lines on stderr." },
    Own { name: LOG, scope: Scope::Process, kind: OwnKind::Filter, default: "warn,multilangd=info,child=info",
        doc: "Log filter; the target child is the output of record processors. RUST_LOG takes precedence." },
];

/// A warning if `multilangd.childLog` has no effect.
pub fn no_child_log(settings: &Settings) -> Option<Remark> {
    let is = |key: &str| settings.text(key).as_deref() == Some("json");
    let text = "multilangd.childLog = json has no effect in a text log: output of record processors is logged as with \
                lines (set multilangd.logFormat = json)";
    let remark = Remark { line: None, key: Some(CHILD_LOG.to_owned()), text: text.to_owned() };
    (is(CHILD_LOG) && !is(LOG_FORMAT)).then_some(remark)
}

/// Parses a port on loopback, or an address with a port.
pub fn address(text: &str) -> Option<SocketAddr> {
    let of_this_machine = text.parse().map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    of_this_machine.ok().or_else(|| text.parse().ok())
}

impl Own {
    /// The name without the prefix as lower-case words, joined by `between`.
    fn words(&self, between: char) -> String {
        let mut out = String::new();
        for c in self.name.strip_prefix(PREFIX).unwrap_or(self.name).chars() {
            if c.is_ascii_uppercase() {
                out.push(between);
            }
            out.push(c.to_ascii_lowercase());
        }
        out
    }

    /// The option's name, without the hyphens.
    pub fn option(&self) -> String {
        self.words('-')
    }

    /// The environment variable's name.
    pub fn variable(&self) -> String {
        format!("{VARIABLE_PREFIX}{}", self.words('_').to_ascii_uppercase())
    }

    /// Checks a value.
    ///
    /// # Errors
    /// The values that would be accepted.
    pub fn check(&self, text: &str) -> Result<(), String> {
        match self.kind {
            OwnKind::Word(words) if words.contains(&text) => Ok(()),
            OwnKind::Word(words) => Err(format!("must be {}", words.join(" or "))),
            OwnKind::Number(least) => match text.parse::<u32>() {
                Ok(number) if i64::from(number) >= least => Ok(()),
                _ => Err(format!("must be a whole number of at least {least}")),
            },
            OwnKind::Or(least) => match text.parse::<u32>() {
                Ok(number) if i64::from(number) >= least => Ok(()),
                _ if text == SAME => Ok(()),
                _ => Err(format!("must be {SAME} or a whole number of at least {least}")),
            },
            OwnKind::Address if text == OFF || address(text).is_some() => Ok(()),
            OwnKind::Address => {
                Err("must be off, a port, or an address with a port, as in 127.0.0.1:9465".to_owned())
            }
            OwnKind::Destinations => super::super::letters::parse(text).map(drop),
            OwnKind::Text if text.is_empty() => Err("must not be empty".to_owned()),
            OwnKind::Text | OwnKind::Filter => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_has_three_names_and_a_valid_default() {
        for own in KEYS {
            assert!(own.name.starts_with(PREFIX));
            assert_eq!(own.check(own.default), Ok(()), "{}", own.name);
        }
        let own = &KEYS[1];
        assert_eq!(
            (own.option().as_str(), own.variable().as_str()),
            ("max-child-failures", "MULTILANGD_MAX_CHILD_FAILURES")
        );
        assert!(own.check("0").is_err() && own.check("five").is_err());
        assert!(KEYS[0].check("Exit").is_err());
    }
}
