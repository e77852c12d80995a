//! The value of `multilangd.streams`.

use super::Remark;
use super::arn::{StreamArn, stream_of_arn};
use super::keys::handle::{Handle, Text};
use super::keys::{kcl, own};
use super::letters::is_stream_name;
use super::settings::Settings;
use crate::lease::sync::InitialPosition;
use crate::stream::{Prefix, Selection, Wanted};

/// Parses streams, separated by commas: names, or ARNs of streams or consumers, each with an epoch if it is followed by
/// `@EPOCH`, and beginnings of names, each followed by `*`. Each can end with `=` and its initial position. None for `none`.
///
/// # Errors
/// The values that would be accepted, or a stream that is named twice.
pub fn parse(text: &str) -> Result<Selection, String> {
    let mut selection = Selection::default();
    let Selection { named: streams, prefixes } = &mut selection;
    if text == own::NONE {
        return Ok(selection);
    }
    for part in text.split(',').map(str::trim) {
        let (part, initial) = match part.split_once('=') {
            Some((part, position)) => (part.trim_end(), Some(initial(position.trim_start())?.sequence())),
            None => (part, None),
        };
        if let Some(text) = part.strip_suffix('*').filter(|text| is_stream_name(text)) {
            if prefixes.iter().any(|other| other.text == text) {
                return Err(format!("names {part} twice"));
            }
            prefixes.push(Prefix { text: text.to_owned(), initial });
            continue;
        }
        let stream = one(part).ok_or_else(|| {
            format!(
                "must be none, or names or ARNs of streams, or ARNs of their consumers, separated by commas, each with \
                 @EPOCH if its leases have another epoch than the creation time of the stream, or beginnings of names, \
                 as in orders-*; {part:?} is none of these"
            )
        })?;
        let stream = Wanted { initial, ..stream };
        if streams.iter().any(|other| other.may_be(&stream)) {
            return Err(format!("names the stream {stream} twice"));
        }
        streams.push(stream);
    }
    Ok(selection)
}

fn initial(text: &str) -> Result<InitialPosition, String> {
    InitialPosition::named(text).ok_or_else(|| {
        format!("must have LATEST or TRIM_HORIZON as the initial position of a stream, not {text:?}")
    })
}

/// The stream of a consumer's ARN, `arn:…:stream/NAME/consumer/CONSUMER:CREATED`, or of its own.
pub(super) fn of_arn(text: &str) -> Option<Wanted> {
    let arn = stream_of_arn(text).filter(|arn| is_stream_name(&arn.name))?;
    let (_, resource) = text.split_once("stream/")?;
    let is_consumer = match resource.split('/').collect::<Vec<_>>()[..] {
        [_] => false,
        [_, "consumer", consumer] => {
            let (name, created) = consumer.split_once(':')?;
            if name.is_empty() || created.is_empty() || !created.bytes().all(|b| b.is_ascii_digit()) {
                return None;
            }
            true
        }
        _ => return None,
    };
    let consumer = is_consumer.then(|| text.to_owned());
    Some(Wanted { account: Some(arn.account), consumer, ..Wanted::named(&arn.name) })
}

fn one(text: &str) -> Option<Wanted> {
    let (stream, epoch) = match text.rsplit_once('@') {
        Some((stream, epoch)) => (stream, Some(epoch.parse().ok().filter(|epoch: &i64| *epoch > 0)?)),
        None => (text, None),
    };
    let wanted = of_arn(stream).or_else(|| is_stream_name(stream).then(|| Wanted::named(stream)))?;
    Some(Wanted { epoch, ..wanted })
}

/// The streams of valid settings; none if there is one stream only.
pub fn of(settings: &Settings) -> Selection {
    parse(&settings.of(own::STREAMS)).unwrap_or_default()
}

/// The ARNs among the streams.
pub(super) fn arns(settings: &Settings) -> Vec<StreamArn> {
    let text = settings.of(own::STREAMS);
    let arn = |part: &str| stream_of_arn(part.trim().split(['@', '=']).next().unwrap_or_default());
    text.split(',').filter_map(arn).collect()
}

/// Why several streams cannot be combined with another setting.
pub(super) fn conflict(settings: &Settings) -> Option<String> {
    if settings.of(own::STREAMS) == own::NONE {
        return None;
    }
    let key = own::STREAMS;
    let given = |other: Handle<Text>| settings.of(other).is_some();
    if let Some(other) = [kcl::STREAM_ARN, kcl::STREAM].into_iter().find(|other| given(*other)) {
        return Some(format!("{key} cannot be combined with {other} (name all streams in {key})"));
    }
    given(kcl::CONSUMER_ARN).then(|| {
        let other = kcl::CONSUMER_ARN;
        format!("{key} cannot be combined with {other}, the consumer of one stream (name the ARN of the consumer in {key}, in \
             place of its stream)")
    })
}

/// Warnings about settings of several streams that have no effect.
pub(super) fn without_effect(settings: &Settings) -> Vec<Remark> {
    let remark = |key: &str, text: String| Remark { line: None, key: Some(key.to_owned()), text };
    let selection = of(settings);
    let mut remarks = Vec::new();
    let (after, mode) = (own::DELETE_FORMER, kcl::RETRIEVAL_MODE);
    if selection.is_empty() && !settings.of(after).is_zero() {
        remarks.push(remark(after.name(), format!("{after} has no effect without {}", own::STREAMS)));
    }
    if settings.of(mode) != "FANOUT" && selection.named.iter().any(|stream| stream.consumer.is_some()) {
        let key = own::STREAMS;
        let text = format!(
            "{key} names a consumer, which has no effect while records are polled (set {mode} = FANOUT)"
        );
        remarks.push(remark(key.name(), text));
    }
    remarks
}

/// The ARN of a stream that the requests do not reach: they go to one region.
pub(super) fn elsewhere(settings: &Settings, region: &str) -> Option<String> {
    let other = arns(settings).into_iter().find(|arn| arn.region != region)?;
    let key = own::STREAMS;
    Some(format!(
        "{key} names the region {}, but requests go to {region} (use one properties file for each region)",
        other.region
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_names_or_arns_with_an_epoch() {
        let stream = |name: &str, account: Option<&str>, epoch| Wanted {
            account: account.map(str::to_owned),
            epoch,
            ..Wanted::named(name)
        };
        let arn = "arn:aws:kinesis:eu-west-1:111122223333:stream/refunds";
        let Selection { named: parsed, prefixes } =
            parse(&format!("orders, pay.ments@5 ,{arn},{arn}-2@7, logs-*")).unwrap();
        let expected = [
            stream("orders", None, None),
            stream("pay.ments", None, Some(5)),
            stream("refunds", Some("111122223333"), None),
            stream("refunds-2", Some("111122223333"), Some(7)),
        ];
        assert_eq!(
            (parsed, prefixes),
            (expected.into(), vec![Prefix { text: "logs-".to_owned(), initial: None }])
        );
        assert_eq!(parse("none"), Ok(Selection::default()));
        let other = arn.replace("1111", "4444");
        assert_eq!(parse(&format!("{arn},{other}")).unwrap().named.len(), 2, "of two accounts");
        for text in [
            "",
            "a,",
            "a b",
            "a@",
            "a@0",
            "a@x",
            "@5",
            "a,a",
            "a,b,a@5",
            "refunds,",
            "arn:aws:kinesis",
            "*",
            "a*b",
            "a-*,a-*",
            "a=",
            "a=AT_TIMESTAMP",
            "=LATEST",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/refunds/consumer/c",
            "arn:aws:kinesis:eu-west-1:111122223333:stream/refunds/other/c:1",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("refunds,{arn}")).is_err());
    }

    #[test]
    fn streams_can_have_a_position_and_a_consumer_of_their_own() {
        let consumer = "arn:aws:kinesis:eu-west-1:111122223333:stream/refunds/consumer/c:1700000000";
        let text =
            format!("a = TRIM_HORIZON, b@5=LATEST, {consumer}@7=TRIM_HORIZON, {consumer}-x, logs-*=LATEST");
        assert!(parse(&text).is_err(), "a digit is missing");
        let [oldest, latest] =
            [InitialPosition::TrimHorizon, InitialPosition::Latest].map(InitialPosition::sequence);
        let selection = parse(&text.replace(&format!(" {consumer}-x,"), "")).unwrap();
        let shown = selection
            .named
            .iter()
            .map(|one| (one.name.as_str(), one.epoch, one.initial.clone(), one.consumer.as_deref()));
        let expected = [
            ("a", None, Some(oldest.clone()), None),
            ("b", Some(5), Some(latest.clone()), None),
            ("refunds", Some(7), Some(oldest.clone()), Some(consumer)),
        ];
        assert_eq!(shown.collect::<Vec<_>>(), expected);
        assert_eq!(selection.prefixes, [Prefix { text: "logs-".to_owned(), initial: Some(latest.clone()) }]);
        let position = |name| selection.by_prefix(name).map(|wanted| wanted.initial);
        assert_eq!((position("logs-1"), position("log")), (Some(Some(latest.clone())), None));
    }
}
