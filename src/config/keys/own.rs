//! Settings of multilangd. Each can be given as an option, as an environment variable, or in the file, in
//! this order of precedence. In the file they have a prefix that Java ignores, so that Java's daemon can
//! still use the file.

use std::net::{Ipv4Addr, SocketAddr};

use super::handle::{Class, Count, Handle, Maybe, Millis, Number, Switch, Times, Word};
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
    /// `true` or `false`.
    Switch,
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
    /// `none`, or streams.
    Streams,
    /// `none`, or any text.
    Text,
}

impl OwnKind {
    const fn class(self) -> Class {
        match self {
            Self::Word(_) | Self::Address | Self::Filter => Class::Word,
            Self::Destinations | Self::Streams | Self::Text => Class::Word,
            Self::Switch => Class::Switch,
            Self::Number(_) => Class::Number,
            Self::Or(_) => Class::MaybeNumber,
        }
    }

    /// The values for the help of an option.
    pub fn value_name(self) -> String {
        match self {
            Self::Word(words) => words.join("|"),
            Self::Switch => SWITCH.join("|"),
            Self::Number(_) => "NUMBER".to_owned(),
            Self::Address => "PORT|ADDRESS:PORT|off".to_owned(),
            Self::Or(_) => format!("NUMBER|{SAME}"),
            Self::Filter => "FILTER".to_owned(),
            Self::Destinations => "DESTINATION,…".to_owned(),
            Self::Streams => "STREAM,…".to_owned(),
            Self::Text => "TEXT".to_owned(),
        }
    }
}

/// The value that disables the status endpoint.
pub const OFF: &str = "off";
/// The value of a setting that is not used.
pub const NONE: &str = "none";

/// The value that enables a switch.
pub const TRUE: &str = "true";
/// The values of a switch.
const SWITCH: [&str; 2] = [TRUE, "false"];

/// The value that copies another setting.
pub const SAME: &str = "same";

/// Makes a handle of each row, and the table of all rows.
macro_rules! keys {
    ($($handle:ident: $read:ty = ($name:literal, $scope:expr, $kind:expr, $default:expr, $doc:expr);)*) => {
        $(
            #[doc = concat!("`", $name, "`.")]
            pub const $handle: Handle<$read> = Handle::of($name, $kind.class());
        )*

        /// All settings of multilangd.
        pub const KEYS: &[Own] =
            &[$(Own { name: $name, scope: $scope, kind: $kind, default: $default, doc: $doc }),*];
    };
}

keys! {
    ON_CHILD_FAILURE: Word = ("multilangd.onChildFailure", Scope::Application, OwnKind::Word(&["restart", "exit"]), "restart",
        "Reaction to a failed record processor. restart: restart it from the last checkpoint of its shard; other shards are not affected. exit: exit with code 1, as the Java daemon does.");
    MAX_CHILD_FAILURES: Times = ("multilangd.maxChildFailures", Scope::Application, OwnKind::Number(1), "5",
        "Number of consecutive failures of the record processor of a shard, without a checkpoint between them, after which multilangd.onHopelessShard applies.");
    ON_HOPELESS_SHARD: Word = ("multilangd.onHopelessShard", Scope::Application, OwnKind::Word(&["park", "exit"]), "park",
        "Reaction to a shard whose record processor fails too often. park: keep the lease and restart the record processor after longer and longer pauses until it works again; exit with code 1 only if every shard is parked and no record processor has ever answered initialize. exit: exit with code 1.");
    MAX_PARKED_PAUSE: Millis = ("multilangd.maxParkedPauseMillis", Scope::Application, OwnKind::Number(1), "300000",
        "Maximum milliseconds between two restarts of the record processor of a parked shard.");
    DEAD_LETTERS: Word = ("multilangd.deadLetters", Scope::Application, OwnKind::Destinations, NONE,
        "Destination of records at which the record processor fails: file:DIR, kinesis:STREAM with the name or the ARN of a stream, exec:PROGRAM ARGUMENTS, or several of them separated by commas; none: such a record is retried until it is processed. The batch is halved until the record fails alone, and the shard continues after it once every destination has a copy.");
    MAX_RECORD_FAILURES: Times = ("multilangd.maxRecordFailures", Scope::Application, OwnKind::Number(1), "3",
        "Number of failures of a single record, each in a new record processor, after which it is written to multilangd.deadLetters.");
    MAX_DEAD_LETTERS_IN_A_ROW: Times = ("multilangd.maxDeadLettersInARow", Scope::Application, OwnKind::Number(1), "10",
        "Number of dead letters of a shard without a processed record between them after which no more are written until a record is processed; the shard is parked meanwhile. So an outage of a database does not empty the stream into the dead letters.");
    MAX_RECORD_AGE: Number = ("multilangd.maxRecordAgeMillis", Scope::Application, OwnKind::Number(0), "0",
        "Milliseconds since the arrival of a record at Kinesis after which it is not delivered any more but written to multilangd.deadLetters, which must be set, unless multilangd.skipOldRecords = true. 0: records of any age are delivered.");
    SKIP_OLD_RECORDS: Switch = ("multilangd.skipOldRecords", Scope::Application, OwnKind::Switch, "false",
        "Skip records older than multilangd.maxRecordAgeMillis where there are no multilangd.deadLetters: these records are lost. With dead letters it has no effect.");
    MAX_BATCH_RECORDS: Count = ("multilangd.maxBatchRecords", Scope::Application, OwnKind::Number(0), "0",
        "Maximum number of records that are delivered to a record processor at once; larger responses are delivered in parts. 0: all records of a response.");
    BATCH_WINDOW: Millis = ("multilangd.batchWindowMillis", Scope::Application, OwnKind::Number(0), "0",
        "Milliseconds that a batch waits for more records before it is delivered, up to multilangd.maxBatchRecords (10,000 without it) or 4 MiB of data. 0: each response is delivered at once.");
    CHILD_ERROR_LINE: Word = ("multilangd.childErrorLine", Scope::Application, OwnKind::Text, NONE,
        "Text on stderr by which a record processor reports an exception that it does not answer with: an action during which a line contains it has failed. kclpy and kclrb: the text of amazon_kclpy and of aws-kclrb. none: stderr is only logged.");
    CHILD_PROTOCOL: Word = ("multilangd.childProtocol", Scope::Application, OwnKind::Word(&["current", "shutdown"]), "current",
        "Messages sent to record processors. shutdown: those of KCL versions before 2.1, for clients such as amazon_kclpy 1.5 and aws-kcl 0.7.");
    CHILD_EXIT_GRACE: Millis = ("multilangd.childExitGraceMillis", Scope::Application, OwnKind::Number(1), "5000",
        "Milliseconds between closing the stdin of a record processor and sending SIGTERM, if it does not exit.");
    CHILD_KILL_GRACE: Millis = ("multilangd.childKillGraceMillis", Scope::Application, OwnKind::Number(1), "1500",
        "Milliseconds between SIGTERM and SIGKILL; during shutdown also between closing stdin and SIGTERM.");
    BUFFER: Count = ("multilangd.bufferMegabytes", Scope::Process, OwnKind::Number(40), "256",
        "Maximum record data of all shards in memory, in MiB. User records of aggregated records, and the rest of a response that is being read, may exceed it until they are delivered. A quarter is divided among the shards, 18 MiB are reserved for one response of any size, and the rest is shared by the shards that have the most to read; at most 8 MiB wait for one record processor. At least 40.");
    IDLE_BEHIND: Maybe<Millis> = ("multilangd.idleWhenBehindMillis", Scope::Application, OwnKind::Or(0), "same",
        "Milliseconds between a GetRecords response and the next call while there is more to read; same: idleTimeBetweenReadsInMillis. Kinesis allows five calls per second and shard for all applications together.");
    WORKER_ID_SUFFIX: Word = ("multilangd.workerIdSuffix", Scope::Application, OwnKind::Word(&["none", "random", "hostname"]), "none",
        "Suffix that is appended to workerId with a hyphen, so that several processes can use one file: a random word for each start, or the host name. Without workerId the id is always random.");
    RESUME_LATEST: Switch = ("multilangd.resumeLatest", Scope::Application, OwnKind::Switch, TRUE,
        "Start of an owner of a lease at LATEST that has no checkpoint yet. true: where the first owner began to read, so that records that it delivered before it failed are delivered again. false: at the newest record, as KCL does, unless the lease stores where reading began (multilangdLatestFrom), which an order to park or pause writes, or a worker with true.");
    USE_STREAM_ARN: Switch = ("multilangd.useStreamArn", Scope::Application, OwnKind::Switch, "false",
        "Name the stream by streamArn in every call, which reads a stream of another account (its resource policy must allow it). false: by its name, as KCL does; a stream of another account or region than that of streamArn is then refused. Some local endpoints ignore ARNs.");
    STREAMS: Word = ("multilangd.streams", Scope::Application, OwnKind::Streams, NONE,
        "Streams that are read with one lease table, in place of streamName: names or ARNs, separated by commas; NAME* selects all streams of the account whose names begin so, new ones included. The table has the form of a KCL application with MultiStreamTracker, and both can share it. NAME@EPOCH sets the epoch in the keys of a stream; without it, that of its leases in the table, or else its creation time in seconds. NAME=LATEST or NAME=TRIM_HORIZON sets the initial position of a stream; the ARN of a consumer selects its stream, which is then read by that consumer. none: streamName is read.");
    DELETE_FORMER: Millis = ("multilangd.deleteFormerStreamsAfterMillis", Scope::Application, OwnKind::Number(0), "0",
        "Milliseconds after which the leader deletes the leases, and with them the checkpoints, of a stream that multilangd.streams does not select any more; until then they are read. More than twice the time of a deployment, so that all workers have the new list in time. 0: such leases are kept and read.");
    STATUS: Word = ("multilangd.status", Scope::Process, OwnKind::Address, "9465",
        "Address of the status page, probes and Prometheus metrics: a port of 127.0.0.1, or an address with a port, as in 0.0.0.0:9465; off: none. If another process uses the default port, there is no status page.");
    STUCK_AFTER: Millis = ("multilangd.stuckAfterMillis", Scope::Application, OwnKind::Number(1), "60000",
        "Milliseconds without progress, although there is work, after which a shard counts as stuck.");
    CHILD_LOG: Word = ("multilangd.childLog", Scope::Application, OwnKind::Word(&["lines", "raw", "json"]), "lines",
        "Form of the output of record processors in the log. lines: each line is a log entry with shard and pid. raw: stderr and the lines on stdout that are no messages are passed through byte for byte. json: with multilangd.logFormat = json, a line that is a JSON object becomes a log entry with its own fields, to which shard, pid and level are added; other lines as with lines.");
    LOG_FORMAT: Word = ("multilangd.logFormat", Scope::Process, OwnKind::Word(&["text", "json"]), "text",
        "Format of the log lines on stderr.");
    LOG: Word = ("multilangd.log", Scope::Process, OwnKind::Filter, "warn,multilangd=info,child=info",
        "Log filter; the target child is the output of record processors. RUST_LOG takes precedence.");
}

/// A warning if `multilangd.childLog` has no effect.
pub fn no_child_log(settings: &Settings) -> Option<Remark> {
    let is = |key: Handle<Word>| settings.of(key) == "json";
    let text = "multilangd.childLog = json has no effect in a text log: output of record processors is logged as with \
                lines (set multilangd.logFormat = json)";
    let remark = Remark { line: None, key: Some(CHILD_LOG.name().to_owned()), text: text.to_owned() };
    (is(CHILD_LOG) && !is(LOG_FORMAT)).then_some(remark)
}

fn one_of(words: &[&str], text: &str) -> Result<(), String> {
    if words.contains(&text) { Ok(()) } else { Err(format!("must be {}", words.join(" or "))) }
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
            OwnKind::Word(words) => one_of(words, text),
            OwnKind::Switch => one_of(&SWITCH, text),
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
            OwnKind::Streams => super::super::streams::parse(text).map(drop),
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
