//! The IAM policy that allows exactly what a daemon with given settings needs, as `check --permissions` prints it.
//!
//! The account is a placeholder that IAM rejects, unless `streamArn` names it: a policy with a wrong account would be
//! accepted and allow nothing.

use serde_json::{Value, json};

use super::arn::{StreamArn, stream_of_arn};
use super::keys::handle::{Handle, Text};
use super::keys::{client, kcl, own};
use super::letters;
use super::permissions::{self, On};
use super::settings::Settings;
use super::streams;
use crate::stream::Wanted;

/// Stands for an account that the settings do not contain.
const ACCOUNT: &str = "<ACCOUNT>";
/// Stands for a region that the settings do not contain.
const REGION: &str = "<REGION>";

/// The policy.
pub fn policy(settings: &Settings) -> Value {
    let mut groups: Vec<(On, Vec<&str>)> = Vec::new();
    for permission in permissions::needed(settings) {
        match groups.iter_mut().find(|(on, _)| *on == permission.on) {
            Some((_, actions)) => actions.push(permission.action),
            None => groups.push((permission.on, vec![permission.action])),
        }
    }
    let statement = |(on, actions): (On, Vec<&str>)| {
        let mut statement = json!({
            "Sid": sid(on), "Effect": "Allow", "Action": actions, "Resource": resources(on, settings),
        });
        if on == On::Metrics {
            let namespace = settings.of(kcl::APPLICATION).unwrap_or_default();
            statement["Condition"] = json!({"StringEquals": {"cloudwatch:namespace": namespace}});
        }
        statement
    };
    let statements: Vec<Value> = groups.into_iter().map(statement).collect();
    json!({"Version": "2012-10-17", "Statement": statements})
}

/// The name of a statement.
fn sid(on: On) -> &'static str {
    match on {
        On::Stream => "ReadStream",
        On::StreamAndConsumers => "FindConsumer",
        On::Consumers => "SubscribeToShards",
        On::LetterStreams => "WriteDeadLetters",
        On::Tables => "Tables",
        On::LeaseTable => "LeaseTable",
        On::LeaseTableIndex => "FindOwnLeases",
        On::Metrics => "PutMetrics",
        On::Account => "ListStreams",
    }
}

/// The ARNs of a resource. All but the account and the region are known.
fn resources(on: On, settings: &Settings) -> Vec<String> {
    let text = |key: Handle<Text>| settings.of(key).unwrap_or_default();
    let streams = || stream_arns(settings);
    let consumers = || match settings.of(kcl::CONSUMER_ARN) {
        Some(arn) => vec![arn],
        None => {
            let of_consumers: Vec<String> =
                streams::of(settings).named.into_iter().filter_map(|one| one.consumer).collect();
            let of_named =
                |stream: &String| of_consumers.iter().all(|arn| !arn.starts_with(&format!("{stream}/")));
            let others = streams().into_iter().filter(of_named).map(|stream| format!("{stream}/consumer/*"));
            others.chain(of_consumers.iter().cloned()).collect()
        }
    };
    let table = |key: Handle<Text>| table_arn(&text(key), settings);
    match on {
        On::Stream => streams(),
        On::StreamAndConsumers => [streams(), consumers()].concat(),
        On::Consumers => consumers(),
        On::LetterStreams => {
            let destinations = letters::parse(&settings.of(own::DEAD_LETTERS)).unwrap_or_default();
            let stream = |destination| match destination {
                letters::Destination::Kinesis(stream) => Some(letters_arn(&stream, settings)),
                letters::Destination::File(_) | letters::Destination::Exec(_) => None,
            };
            destinations.into_iter().filter_map(stream).collect()
        }
        On::Tables => [kcl::TABLE, kcl::WORKER_METRICS_TABLE, kcl::COORDINATOR_STATE_TABLE].map(table).into(),
        On::LeaseTable => vec![table(kcl::TABLE)],
        On::LeaseTableIndex => vec![format!("{}/index/*", table(kcl::TABLE))],
        On::Metrics | On::Account => vec!["*".to_owned()],
    }
}

fn configured(settings: &Settings) -> Option<StreamArn> {
    settings.of(kcl::STREAM_ARN).and_then(|arn| stream_of_arn(&arn))
}

/// The streams of the daemon.
fn stream_arns(settings: &Settings) -> Vec<String> {
    let several = streams::of(settings);
    if several.is_empty() {
        return vec![stream_arn(&settings.of(kcl::STREAM).unwrap_or_default(), settings)];
    }
    let region = settings.of(client::KINESIS_REGION);
    let arn = |stream: Wanted| {
        let account = stream.account.as_deref().unwrap_or(ACCOUNT);
        of_region("kinesis", region.clone(), account, &format!("stream/{}", stream.name))
    };
    let prefixes = several.prefixes.iter();
    let prefixes = prefixes
        .map(|prefix| of_region("kinesis", region.clone(), ACCOUNT, &format!("stream/{}*", prefix.text)));
    let named = several.named.into_iter().map(arn);
    named.chain(prefixes).collect()
}

/// The stream of the daemon, or of a name in its account and region.
fn stream_arn(name: &str, settings: &Settings) -> String {
    let region = settings.of(client::KINESIS_REGION);
    match configured(settings) {
        Some(arn) => arn_of(&arn.partition, "kinesis", &arn.region, &arn.account, &format!("stream/{name}")),
        None => of_region("kinesis", region, ACCOUNT, &format!("stream/{name}")),
    }
}

/// A stream of dead letters.
fn letters_arn(stream: &str, settings: &Settings) -> String {
    if stream.starts_with("arn:") {
        return stream.to_owned();
    }
    let region = settings.of(client::KINESIS_REGION);
    of_region("kinesis", region, &own_account(settings), &format!("stream/{stream}"))
}

fn table_arn(table: &str, settings: &Settings) -> String {
    if table.starts_with("arn:") {
        return table.to_owned();
    }
    let region = settings.of(client::DYNAMODB_REGION);
    of_region("dynamodb", region, &own_account(settings), &format!("table/{table}"))
}

/// The account of the credentials: that of `streamArn`, unless the ARN is used to read a stream of another account.
fn own_account(settings: &Settings) -> String {
    let is_used = settings.of(own::USE_STREAM_ARN);
    configured(settings).filter(|_| !is_used).map_or(ACCOUNT.to_owned(), |arn| arn.account)
}

fn of_region(service: &str, region: Option<String>, account: &str, resource: &str) -> String {
    let region = region.unwrap_or_else(|| REGION.to_owned());
    arn_of(partition(&region), service, &region, account, resource)
}

fn arn_of(partition: &str, service: &str, region: &str, account: &str, resource: &str) -> String {
    format!("arn:{partition}:{service}:{region}:{account}:{resource}")
}

/// The partition of a region.
pub fn partition(region: &str) -> &'static str {
    let partitions = [
        ("cn-", "aws-cn"),
        ("us-gov-", "aws-us-gov"),
        ("us-isob-", "aws-iso-b"),
        ("us-isof-", "aws-iso-f"),
        ("us-iso-", "aws-iso"),
        ("eu-isoe-", "aws-iso-e"),
        ("eusc-", "aws-eusc"),
    ];
    partitions.iter().find(|(begin, _)| region.starts_with(begin)).map_or("aws", |(_, name)| name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::resolve::{Given, resolve};

    fn settings(more: &str) -> Settings {
        let file = format!("executableName = p\nstreamName = s\napplicationName = app\n{more}");
        resolve(&Given { bytes: file.into_bytes(), ..Given::default() }).settings
    }

    /// Actions and resources of all statements.
    fn allowed(settings: &Settings) -> BTreeSet<(String, String)> {
        let policy = policy(settings);
        let list = |value: &Value| -> Vec<String> {
            value.as_array().unwrap().iter().map(|one| one.as_str().unwrap().to_owned()).collect()
        };
        let statements = policy["Statement"].as_array().unwrap().clone();
        let pairs = statements.iter().flat_map(|statement| {
            let resources = list(&statement["Resource"]);
            list(&statement["Action"]).into_iter().flat_map(move |action| {
                resources.clone().into_iter().map(move |resource| (action.clone(), resource))
            })
        });
        pairs.collect()
    }

    #[test]
    fn policy_allows_the_needed_actions_and_no_other() {
        let stream = "streamArn = arn:aws:kinesis:us-east-1:123456789012:stream/t\nregionName = us-east-1\n";
        for more in [
            "regionName = eu-west-1\nretrievalMode = POLLING\nmetricsLevel = NONE\n",
            "retrievalMode = FANOUT\nleaseTablePitrEnabled = true\nmultilangd.deadLetters = kinesis:l,file:d\n",
            &format!("{stream}migrateAllEntitiesToLeaseTable = true\n"),
        ] {
            let settings = settings(more);
            let actions: BTreeSet<String> =
                allowed(&settings).into_iter().map(|(action, _)| action).collect();
            let needed: BTreeSet<String> =
                permissions::needed(&settings).map(|one| one.action.to_owned()).collect();
            assert_eq!(actions, needed, "{more}");
        }
    }

    #[test]
    fn resources_carry_names_region_and_partition() {
        let allowed = allowed(&settings(
            "regionName = cn-north-1\ndynamoDbClient.region = us-gov-west-1\nretrievalMode = FANOUT\n\
             multilangd.deadLetters = kinesis:l\ntableName = leases\n",
        ));
        for (action, resource) in [
            ("kinesis:ListShards", "arn:aws-cn:kinesis:cn-north-1:<ACCOUNT>:stream/s"),
            ("kinesis:SubscribeToShard", "arn:aws-cn:kinesis:cn-north-1:<ACCOUNT>:stream/s/consumer/*"),
            ("kinesis:DescribeStreamConsumer", "arn:aws-cn:kinesis:cn-north-1:<ACCOUNT>:stream/s/consumer/*"),
            ("kinesis:DescribeStreamConsumer", "arn:aws-cn:kinesis:cn-north-1:<ACCOUNT>:stream/s"),
            ("kinesis:PutRecord", "arn:aws-cn:kinesis:cn-north-1:<ACCOUNT>:stream/l"),
            ("dynamodb:PutItem", "arn:aws-us-gov:dynamodb:us-gov-west-1:<ACCOUNT>:table/leases"),
            ("dynamodb:Scan", "arn:aws-us-gov:dynamodb:us-gov-west-1:<ACCOUNT>:table/app-WorkerMetricStats"),
            ("dynamodb:Query", "arn:aws-us-gov:dynamodb:us-gov-west-1:<ACCOUNT>:table/leases/index/*"),
            ("cloudwatch:PutMetricData", "*"),
        ] {
            assert!(allowed.contains(&(action.to_owned(), resource.to_owned())), "{action}: {allowed:#?}");
        }
    }

    #[test]
    fn account_is_that_of_the_stream_unless_it_may_be_another() {
        let arn = "streamArn = arn:aws:kinesis:us-east-1:123456789012:stream/t\nregionName = us-east-1\n";
        let table = |more: &str| {
            let allowed = allowed(&settings(&format!("{arn}{more}")));
            let stream = "arn:aws:kinesis:us-east-1:123456789012:stream/t".to_owned();
            assert!(allowed.contains(&("kinesis:GetRecords".to_owned(), stream)), "{allowed:#?}");
            allowed.into_iter().find(|(action, _)| action == "dynamodb:UpdateTable").unwrap().1
        };
        assert_eq!(table(""), "arn:aws:dynamodb:us-east-1:123456789012:table/app");
        assert_eq!(
            table("multilangd.useStreamArn = true\n"),
            "arn:aws:dynamodb:us-east-1:<ACCOUNT>:table/app"
        );
        let of_arn = table("tableName = arn:aws:dynamodb:us-east-1:999999999999:table/x\n");
        assert_eq!(of_arn, "arn:aws:dynamodb:us-east-1:999999999999:table/x");
    }

    #[test]
    fn configured_consumer_is_the_only_one_allowed() {
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/s/consumer/c:1700000000";
        let allowed =
            allowed(&settings(&format!("retrievalMode = FANOUT\nfanoutConfig.consumerArn = {arn}\n")));
        let subscribe: Vec<_> =
            allowed.iter().filter(|(action, _)| action == "kinesis:SubscribeToShard").collect();
        assert_eq!(subscribe, [&("kinesis:SubscribeToShard".to_owned(), arn.to_owned())]);
    }

    #[test]
    fn each_of_several_streams_has_its_consumer_or_any() {
        let arn = "arn:aws:kinesis:eu-west-1:123456789012:stream/s/consumer/c:1700000000";
        let of = |streams: &str| {
            let file = format!(
                "executableName = p\napplicationName = app\nregionName = eu-west-1\nretrievalMode = FANOUT\n\
                 multilangd.streams = {streams}\n"
            );
            allowed(&resolve(&Given { bytes: file.into_bytes(), ..Given::default() }).settings)
        };
        let on = |allowed: &BTreeSet<(String, String)>, asked: &str| -> Vec<String> {
            let pairs = allowed.iter().filter(|(action, _)| action == asked);
            pairs.map(|(_, resource)| resource.clone()).collect()
        };
        let both = of(&format!("{arn}, t"));
        assert_eq!(
            on(&both, "kinesis:SubscribeToShard"),
            [
                "arn:aws:kinesis:eu-west-1:123456789012:stream/s/consumer/c:1700000000",
                "arn:aws:kinesis:eu-west-1:<ACCOUNT>:stream/t/consumer/*"
            ]
        );
        assert!(!on(&both, "kinesis:RegisterStreamConsumer").is_empty());
        assert_eq!(on(&of(arn), "kinesis:RegisterStreamConsumer"), Vec::<String>::new());
    }
}
