//! The value of `multilangd.streams`.

use super::arn::{StreamArn, stream_of_arn};
use super::keys::handle::{Handle, Text};
use super::keys::{kcl, own};
use super::letters::is_stream_name;
use super::settings::Settings;
use crate::stream::{Selection, Wanted};

/// Parses streams, separated by commas: names or ARNs, each with an epoch if it is followed by `@EPOCH`, and beginnings of
/// names, each followed by `*`. None for `none`.
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
        if let Some(prefix) = part.strip_suffix('*').filter(|prefix| is_stream_name(prefix)) {
            if prefixes.iter().any(|other| other == prefix) {
                return Err(format!("names {part} twice"));
            }
            prefixes.push(prefix.to_owned());
            continue;
        }
        let stream = one(part).ok_or_else(|| {
            format!(
                "must be none, or names or ARNs of streams, separated by commas, each with @EPOCH if its leases have \
                 another epoch than the creation time of the stream, or beginnings of names, as in orders-*; {part:?} \
                 is none of these"
            )
        })?;
        if streams.iter().any(|other| other.may_be(&stream)) {
            return Err(format!("names the stream {stream} twice"));
        }
        streams.push(stream);
    }
    Ok(selection)
}

fn one(text: &str) -> Option<Wanted> {
    let (stream, epoch) = match text.rsplit_once('@') {
        Some((stream, epoch)) => (stream, Some(epoch.parse().ok().filter(|epoch: &i64| *epoch > 0)?)),
        None => (text, None),
    };
    match stream_of_arn(stream) {
        Some(arn) => Some(Wanted { name: arn.name, account: Some(arn.account), epoch }),
        None => is_stream_name(stream).then(|| Wanted { name: stream.to_owned(), account: None, epoch }),
    }
}

/// The streams of valid settings; none if there is one stream only.
pub fn of(settings: &Settings) -> Selection {
    parse(&settings.of(own::STREAMS)).unwrap_or_default()
}

/// The ARNs among the streams.
pub(super) fn arns(settings: &Settings) -> Vec<StreamArn> {
    let text = settings.of(own::STREAMS);
    let arn = |part: &str| stream_of_arn(part.trim().split('@').next().unwrap_or_default());
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
        format!("{key} cannot be combined with {other}, the consumer of one stream (set consumerName, or leave both out)")
    })
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
            name: name.to_owned(),
            account: account.map(str::to_owned),
            epoch,
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
        assert_eq!((parsed, prefixes), (expected.into(), vec!["logs-".to_owned()]));
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
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
        assert!(parse(&format!("refunds,{arn}")).is_err());
    }
}
