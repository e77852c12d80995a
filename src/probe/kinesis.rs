//! The calls of Kinesis, and lines about the stream and its consumer.

use super::judge::{Judgement, is_missing, judge};
use super::port::{Api, Call, Consumer, Found, Reply, Service, StreamFacts};
use super::report::{Line, Section, Status};
use super::session::Session;
use crate::config::keys::kcl;
use crate::config::permissions::{On, Permission};
use crate::exit::Exit;
use crate::retrieval::registration;
use crate::shard;
use crate::stream::ConfiguredArn;

/// Most registered consumers of a stream, by default.
const MOST_CONSUMERS: usize = 20;
/// A shard that every stream had at its creation. Its iterator is asked for if none can be listed.
const FIRST_SHARD: &str = "shardId-000000000000";

/// The settings that decide which calls are made.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// The name of the stream.
    pub stream: &'a str,
    /// `streamArn`.
    pub arn: Option<&'a ConfiguredArn>,
    /// The setting that names the stream, unless `streamArn` does.
    pub key: &'a str,
    /// `fanoutConfig`, with enhanced fan-out.
    pub fanout: Option<&'a registration::Settings>,
    /// The streams of dead letters, by name or ARN.
    pub letters: Vec<&'a str>,
    /// The permissions that the settings need.
    pub needed: &'a [&'static Permission],
    /// Why no calls can be made.
    pub ended: Option<String>,
}

/// The result.
#[derive(Debug)]
pub struct Checked {
    /// The lines.
    pub lines: Vec<Line>,
    /// The stream, if it could be described.
    pub stream: Option<StreamFacts>,
}

impl Wanted<'_> {
    fn needs(&self, action: &str) -> bool {
        self.needed.iter().any(|permission| permission.action == action)
    }
}

/// Makes the calls.
pub async fn check(api: &dyn Api, wanted: &Wanted<'_>) -> Checked {
    let mut session = Session::new(api, Service::Kinesis, wanted.ended.clone());
    let configured = wanted.arn.map(|arn| arn.arn.clone());
    let mut on = configured.clone().unwrap_or_else(|| format!("stream {}", wanted.stream));
    let described = describe(&mut session, wanted, &on).await;
    if let Described::As(facts) = &described {
        on = facts.id.arn().to_owned();
    }
    let shard = match session.probe(&Call::Shards, &on).await {
        Some(Reply::Done(Found::Shard(shard))) => shard,
        _ => FIRST_SHARD.to_owned(),
    };
    let iterator = session.probe(&Call::Iterator(shard), &on).await;
    match iterator {
        Some(Reply::Done(Found::Iterator(iterator))) => {
            session.probe(&Call::Records(iterator), &on).await;
        }
        _ => {
            let why = session.ended().unwrap_or("GetShardIterator returned no iterator").to_owned();
            session.line(Status::NotChecked, "kinesis:GetRecords", &on, why);
        }
    }
    let facts = match described {
        Described::As(facts) => Some(facts),
        Described::Missing => {
            let text = format!(
                "the stream does not exist for these credentials (check {}, regionName, kinesisEndpoint, and the account)",
                if wanted.arn.is_some() { "streamArn" } else { wanted.key }
            );
            let failed = Status::Failed(Exit::Unavailable);
            session.lines.push(Line::of(Section::Stream, failed, wanted.stream, text));
            None
        }
        Described::Unknown => {
            if session.ended().is_none() {
                let text = "not described, see kinesis:DescribeStreamSummary";
                session.lines.push(Line::of(Section::Stream, Status::NotChecked, wanted.stream, text));
            }
            None
        }
    };
    if let Some(facts) = &facts {
        session.lines.extend(stream_lines(facts, wanted));
    }
    let exists = consumer(&mut session, wanted, facts.as_ref(), &on).await;
    let consumers = match wanted.fanout.and_then(|fanout| fanout.arn.clone()) {
        Some(arn) => arn,
        None => format!("{on}/consumer/*"),
    };
    for permission in wanted.needed {
        match permission.on {
            On::Stream if exists && permission.action == "kinesis:RegisterStreamConsumer" => {
                session.line(Status::Ok, permission.action, &on, "not needed while the consumer exists");
            }
            On::Stream | On::StreamAndConsumers => session.effect(permission, &on),
            On::Consumers => session.effect(permission, &consumers),
            On::LetterStreams => {
                wanted
                    .letters
                    .iter()
                    .for_each(|stream| session.effect(permission, &format!("stream {stream}")));
            }
            On::Tables | On::LeaseTable | On::LeaseTableIndex | On::Metrics | On::Account => {}
        }
    }
    Checked { lines: session.lines, stream: facts }
}

enum Described {
    As(StreamFacts),
    Missing,
    Unknown,
}

/// Describes the stream, by `DescribeStream` if `DescribeStreamSummary` is denied. The daemon does the same, except for
/// enhanced fan-out, which needs the latter for the ARN of the stream.
async fn describe(session: &mut Session<'_>, wanted: &Wanted<'_>, on: &str) -> Described {
    let summary = session.call(&Call::Summary).await;
    let denial = summary.as_ref().map(judge);
    let Some(Judgement::Denied(denial)) = denial else {
        session.judged(&Call::Summary, on, summary.as_ref());
        return described(summary);
    };
    let other = session.call(&Call::Description).await;
    let is_granted = other.as_ref().is_some_and(|reply| judge(reply) == Judgement::Granted);
    let needs_summary = wanted.needs("kinesis:DescribeStreamConsumer");
    if is_granted && !needs_summary {
        let text = format!("kinesis:DescribeStream is granted and used instead; {denial}");
        session.line(Status::Warning, Call::Summary.action(), on, text);
    } else {
        session.judged(&Call::Summary, on, summary.as_ref());
    }
    if is_granted { described(other) } else { Described::Unknown }
}

fn described(reply: Option<Reply>) -> Described {
    match reply {
        Some(Reply::Done(Found::Stream(facts))) => Described::As(facts),
        Some(reply) if is_missing(&reply) => Described::Missing,
        _ => Described::Unknown,
    }
}

fn stream_lines(facts: &StreamFacts, wanted: &Wanted<'_>) -> Vec<Line> {
    let arn = facts.id.arn();
    if let Some(configured) = wanted.arn.filter(|configured| configured.differs_from(arn)) {
        let error = shard::Error::Namesake { configured: configured.arn.clone(), found: arn.to_owned() };
        return vec![Line::of(Section::Stream, Status::Failed(Exit::Config), arn, error.to_string())];
    }
    let count = |count: Option<usize>, of: &str| count.map(|count| format!("{count} {of}"));
    let key = facts.key.as_ref().map(|key| format!("encrypted with KMS key {key}"));
    let parts = [
        Some(facts.status.clone()),
        facts.mode.clone(),
        count(facts.open_shards, "open shards"),
        Some(format!("records are kept for {} h", facts.retention_hours)),
        Some(key.unwrap_or_else(|| "not encrypted".to_owned())),
        count(facts.consumers, &format!("registered consumers ({MOST_CONSUMERS} at most)")),
    ];
    let text = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
    let is_usable = ["ACTIVE", "UPDATING"].contains(&facts.status.as_str());
    let status = if is_usable { Status::Ok } else { Status::Warning };
    let mut lines = vec![Line::of(Section::Stream, status, arn, text)];
    if let Some(key) = &facts.key {
        let text = "GetRecords at LATEST returns no record that is decrypted with the key";
        lines.push(Line::permission(Status::NotChecked, "kms:Decrypt", key, text));
    }
    lines
}

/// Looks for the consumer of enhanced fan-out. Returns whether it exists.
async fn consumer(
    session: &mut Session<'_>,
    wanted: &Wanted<'_>,
    facts: Option<&StreamFacts>,
    on: &str,
) -> bool {
    let Some(fanout) = wanted.fanout else { return false };
    let known = facts.map(|facts| facts.id.arn()).or_else(|| wanted.arn.map(|arn| arn.arn.as_str()));
    let call = match (&fanout.arn, known) {
        (Some(arn), _) => Call::Consumer(Consumer::Arn(arn.clone())),
        (None, Some(stream)) => {
            Call::Consumer(Consumer::Of { stream: stream.to_owned(), name: fanout.name.clone() })
        }
        (None, None) => {
            let why = session.ended().unwrap_or("the ARN of the stream is not known").to_owned();
            session.line(Status::NotChecked, "kinesis:DescribeStreamConsumer", on, why);
            return false;
        }
    };
    // The daemon does not describe a consumer whose ARN is configured.
    let is_configured = fanout.arn.is_some();
    let reply = if is_configured { session.call(&call).await } else { session.probe(&call, on).await };
    let name = fanout.arn.as_ref().unwrap_or(&fanout.name).clone();
    let line = |status, text: String| Line::of(Section::Stream, status, format!("consumer {name}"), text);
    let (line, exists) = match reply {
        Some(Reply::Done(Found::Consumer { arn, status })) => {
            let is_usable = ["ACTIVE", "CREATING"].contains(&status.as_str());
            let found = if is_usable { Status::Ok } else { Status::Warning };
            (line(found, format!("{status}, {arn}")), true)
        }
        Some(reply) if is_missing(&reply) && is_configured => {
            let is_only = wanted.key == kcl::STREAM.name();
            let key = if is_only { kcl::CONSUMER_ARN.name() } else { wanted.key };
            let text = format!("the consumer does not exist (correct {key}, or remove it)");
            (line(Status::Failed(Exit::Config), text), false)
        }
        Some(reply) if is_missing(&reply) => {
            let is_full = facts.and_then(|facts| facts.consumers) >= Some(MOST_CONSUMERS);
            let (status, text) = if is_full {
                (Status::Warning, "does not exist, and the stream may have as many consumers as it can")
            } else {
                (Status::Ok, "does not exist, the daemon registers it")
            };
            (line(status, text.to_owned()), false)
        }
        Some(reply) => {
            let why = match judge(&reply) {
                Judgement::Denied(text)
                | Judgement::Credentials(text)
                | Judgement::Unknown(text)
                | Judgement::Unsupported(text)
                | Judgement::Fault(text)
                | Judgement::Unreached(text) => text,
                Judgement::Granted => "not known".to_owned(),
            };
            (line(Status::NotChecked, why), false)
        }
        None => return false,
    };
    session.lines.push(line);
    exists
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::memory::Scripted;
    use super::super::report::Report;
    use super::*;
    use crate::config::permissions::{self, Probe};
    use crate::config::resolve::{Given, resolve};

    fn needed(more: &str) -> Vec<&'static Permission> {
        let file =
            format!("executableName = p\nstreamName = s\napplicationName = app\nregionName = r\n{more}");
        let settings = resolve(&Given { bytes: file.into_bytes(), ..Given::default() }).settings;
        permissions::needed(&settings).collect()
    }

    fn fanout(arn: Option<&str>) -> registration::Settings {
        registration::Settings {
            arn: arn.map(str::to_owned),
            name: "app".to_owned(),
            stream_attempts: 1,
            describe_attempts: 1,
            register_attempts: 1,
            pause: Duration::ZERO,
        }
    }

    async fn checked(api: &Scripted, fanout: Option<&registration::Settings>) -> Checked {
        let mode = if fanout.is_some() { "FANOUT" } else { "POLLING" };
        let arn = fanout.and_then(|fanout| fanout.arn.as_deref());
        let arn = arn.map_or(String::new(), |arn| format!("fanoutConfig.consumerArn = {arn}\n"));
        let needed = needed(&format!("retrievalMode = {mode}\n{arn}"));
        let wanted = Wanted {
            stream: "s",
            arn: None,
            key: "streamName",
            fanout,
            letters: Vec::new(),
            needed: &needed,
            ended: None,
        };
        check(api, &wanted).await
    }

    fn of<'a>(checked: &'a Checked, action: &str) -> Vec<&'a Line> {
        checked.lines.iter().filter(|line| line.action == Some(action)).collect()
    }

    fn exit(checked: &Checked) -> Exit {
        Report { lines: checked.lines.clone() }.exit()
    }

    #[tokio::test]
    async fn every_needed_action_has_one_line() {
        for fanout in [None, Some(fanout(None)), Some(fanout(Some("arn:c")))] {
            let api = Scripted::default().with_consumer();
            let checked = checked(&api, fanout.as_ref()).await;
            assert_eq!(exit(&checked), Exit::Clean, "{:?}", checked.lines);
            let mode = if fanout.is_some() { "FANOUT" } else { "POLLING" };
            for permission in needed(&format!("retrievalMode = {mode}\n")) {
                let is_needed = match permission.action {
                    "kinesis:DescribeStreamConsumer" | "kinesis:RegisterStreamConsumer" => {
                        fanout.as_ref().is_some_and(|fanout| fanout.arn.is_none())
                    }
                    action => action.starts_with("kinesis:"),
                };
                let lines = of(&checked, permission.action);
                assert_eq!(lines.len(), usize::from(is_needed), "{}: {:?}", permission.action, checked.lines);
            }
        }
    }

    #[tokio::test]
    async fn each_denied_action_is_named_with_the_resource() {
        let fanout = fanout(None);
        for permission in needed("retrievalMode = FANOUT\n") {
            let Probe::Call(_) = permission.probe else { continue };
            if !permission.action.starts_with("kinesis:") {
                continue;
            }
            let api =
                Scripted::default().with_consumer().refusing(permission.action, "AccessDeniedException");
            let checked = checked(&api, Some(&fanout)).await;
            assert_eq!(exit(&checked), Exit::Denied);
            let failed: Vec<&Line> =
                checked.lines.iter().filter(|line| line.status == Status::Failed(Exit::Denied)).collect();
            assert_eq!(failed.len(), 1, "{:?}", checked.lines);
            assert_eq!(failed[0].action, Some(permission.action));
            assert!(failed[0].resource.contains("s") && failed[0].text.contains("AccessDeniedException"));
        }
    }

    #[tokio::test]
    async fn describe_stream_replaces_a_denied_summary_unless_fan_out_needs_it() {
        let api = Scripted::default().refusing("kinesis:DescribeStreamSummary", "AccessDeniedException");
        let polled = checked(&api, None).await;
        assert_eq!(exit(&polled), Exit::Clean);
        assert_eq!(of(&polled, "kinesis:DescribeStreamSummary")[0].status, Status::Warning);
        assert!(polled.stream.is_some());
        let pushed = checked(&api, Some(&fanout(None))).await;
        assert_eq!(exit(&pushed), Exit::Denied);
        let api = api.refusing("kinesis:DescribeStream", "AccessDeniedException");
        assert_eq!(exit(&checked(&api, None).await), Exit::Denied);
    }

    #[tokio::test]
    async fn missing_stream_proves_the_permissions_and_fails() {
        let checked = checked(&Scripted::default().without_stream(), None).await;
        assert_eq!(exit(&checked), Exit::Unavailable);
        for action in ["kinesis:DescribeStreamSummary", "kinesis:ListShards", "kinesis:GetShardIterator"] {
            assert_eq!(of(&checked, action)[0].status, Status::Ok, "{action}");
        }
        assert_eq!(of(&checked, "kinesis:GetRecords")[0].status, Status::NotChecked);
    }

    #[tokio::test]
    async fn configured_consumer_must_exist_and_another_is_registered() {
        let arn = fanout(Some("arn:c"));
        assert_eq!(exit(&checked(&Scripted::default(), Some(&arn)).await), Exit::Config);
        // The daemon does not need to describe it.
        let api = Scripted::default().refusing("kinesis:DescribeStreamConsumer", "AccessDeniedException");
        assert_eq!(exit(&checked(&api, Some(&arn)).await), Exit::Clean);
        let new = checked(&Scripted::default(), Some(&fanout(None))).await;
        assert_eq!(exit(&new), Exit::Clean);
        assert_eq!(of(&new, "kinesis:RegisterStreamConsumer")[0].status, Status::NotChecked);
        let old = checked(&Scripted::default().with_consumer(), Some(&fanout(None))).await;
        assert_eq!(of(&old, "kinesis:RegisterStreamConsumer")[0].status, Status::Ok);
    }

    #[tokio::test]
    async fn only_reading_calls_are_made() {
        let api = Scripted::default().with_consumer().encrypted();
        let checked = checked(&api, Some(&fanout(None))).await;
        assert_eq!(of(&checked, "kms:Decrypt").len(), 1);
        let consumer = Consumer::Of {
            stream: "arn:aws:kinesis:us-east-1:123456789012:stream/s".to_owned(),
            name: "app".to_owned(),
        };
        assert_eq!(
            api.calls(),
            [
                Call::Summary,
                Call::Shards,
                Call::Iterator("shardId-000000000002".to_owned()),
                Call::Records("iterator".to_owned()),
                Call::Consumer(consumer),
            ]
        );
    }

    #[tokio::test]
    async fn no_call_is_made_without_credentials() {
        let (api, needed) = (Scripted::default(), needed("retrievalMode = FANOUT\n"));
        let fanout = fanout(None);
        let wanted = Wanted {
            stream: "s",
            key: "streamName",
            arn: None,
            fanout: Some(&fanout),
            letters: vec!["l"],
            needed: &needed,
            ended: Some("no credentials".to_owned()),
        };
        let checked = check(&api, &wanted).await;
        assert!(api.calls().is_empty());
        assert!(checked.lines.iter().all(|line| line.status == Status::NotChecked), "{:?}", checked.lines);
    }
}
