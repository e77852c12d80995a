//! The identity of a stream: its ARN and the time of its creation.
//!
//! A lease table belongs to one stream. The name does not identify a stream: one can be deleted and created
//! again under its name, and a configuration can name the wrong one. So each lease row that a worker of
//! multilangd acquires stores the identity (`crate::recognition`, `crate::lease::origin`).
//!
//! A table of several streams has its own form of the identity in each key: [`StreamIdentifier`].
//!
//! At AWS: `StreamARN` and `StreamCreationTimestamp` of `DescribeStreamSummary`. In KCL: `StreamIdentifier`.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

/// `streamArn` of the configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfiguredArn {
    /// The ARN.
    pub arn: String,
    /// `multilangd.useStreamArn`: whether calls name the stream by the ARN. Otherwise they name it by the
    /// stream's name alone, as KCL does, and the stream must be the one of the ARN.
    pub used: bool,
}

impl ConfiguredArn {
    /// Whether `found`, the ARN of the stream that the calls reach, is a stream of another region or account. An
    /// ARN of a local endpoint never is.
    pub fn differs_from(&self, found: &str) -> bool {
        // arn:PARTITION:kinesis:REGION:ACCOUNT:stream/NAME
        fn parts(arn: &str) -> [Option<&str>; 2] {
            let mut parts = arn.split(':').skip(3);
            [parts.next(), parts.next()]
        }
        // Local endpoints return zeros, or something that is no account.
        let is_account = |text: &str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
        let is_at_aws = |text: &str| is_account(text) && text.bytes().any(|b| b != b'0');
        let found = parts(found);
        found[1].is_some_and(is_at_aws) && parts(&self.arn) != found
    }
}

/// A stream's ARN and creation time. Two streams of one name have different creation times.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamId {
    arn: Arc<str>,
    /// Creation time in milliseconds since 1970.
    created: i64,
}

/// How two identities compare.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Relation {
    /// Both are the same stream.
    Same,
    /// The ARN is the same and the other was created later: the stream was deleted and created again.
    CreatedAgain,
    /// The ARN is the same and the other was created earlier, which does not happen at AWS.
    Older,
    /// The name, account or region differs.
    Different,
}

impl StreamId {
    /// The identity of a stream with that ARN and that creation time in milliseconds since 1970.
    pub fn new(arn: &str, created: i64) -> Self {
        Self { arn: arn.into(), created }
    }

    /// The ARN.
    pub fn arn(&self) -> &str {
        &self.arn
    }

    /// The stream's name, the last part of the ARN.
    pub fn name(&self) -> &str {
        self.arn.rsplit_once('/').map_or(&*self.arn, |(_, name)| name)
    }

    /// Creation time in milliseconds since 1970.
    pub fn created(&self) -> i64 {
        self.created
    }

    /// Parses the output of [`fmt::Display`]: `ARN@MILLISECONDS`.
    pub fn parse(text: &str) -> Option<Self> {
        let (arn, created) = text.rsplit_once('@')?;
        Some(Self::new(arn, created.parse().ok()?)).filter(|id| !id.arn.is_empty())
    }

    /// How `other` relates to this one.
    pub fn relation(&self, other: &Self) -> Relation {
        match (self.arn == other.arn, other.created.cmp(&self.created)) {
            (false, _) => Relation::Different,
            (true, Ordering::Equal) => Relation::Same,
            (true, Ordering::Greater) => Relation::CreatedAgain,
            (true, Ordering::Less) => Relation::Older,
        }
    }
}

impl fmt::Display for StreamId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.arn, self.created)
    }
}

/// A stream in a lease table of several streams: `ACCOUNT:NAME:EPOCH`, where the epoch stands for the creation of the
/// stream. KCL takes the epoch from the application and never verifies it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIdentifier(Arc<str>);

impl StreamIdentifier {
    /// Parses the form in which KCL writes it. Another spelling of the same numbers would be another key of the table.
    pub fn parse(text: &str) -> Option<Self> {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let (account, rest) = text.split_once(':')?;
        let (name, epoch) = rest.split_once(':')?;
        let is_epoch = |text: &str| {
            is_digits(text) && !text.starts_with('0') && text.parse::<i64>().is_ok_and(|epoch| epoch > 0)
        };
        (is_digits(account) && !name.is_empty() && is_epoch(epoch)).then(|| Self(text.into()))
    }

    /// The identifier and the shard's id in a key of a table of several streams. None for another text.
    pub fn split(key: &str) -> Option<(Self, &str)> {
        let (stream, shard) = key.rsplit_once(':')?;
        Some((Self::parse(stream)?, shard))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The name of the stream.
    pub fn name(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }
}

impl fmt::Display for StreamIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for StreamIdentifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A value for each stream of a lease table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ByStream<T> {
    /// For the only stream of a table of one stream.
    One(T),
    /// For each stream of a table of several streams.
    Several(BTreeMap<StreamIdentifier, T>),
}

impl<T> ByStream<T> {
    /// The value for the stream that the key of a lease names. None for a stream that has none, and for a key of the other
    /// kind of table.
    pub fn get(&self, stream: Option<&StreamIdentifier>) -> Option<&T> {
        match (self, stream) {
            (Self::One(value), None) => Some(value),
            (Self::Several(values), Some(stream)) => values.get(stream),
            (Self::One(_), Some(_)) | (Self::Several(_), None) => None,
        }
    }

    /// The streams, none for the only one, with their values.
    pub fn iter(&self) -> impl Iterator<Item = (Option<&StreamIdentifier>, &T)> {
        let (one, several) = match self {
            Self::One(value) => (Some((None, value)), None),
            Self::Several(values) => (None, Some(values)),
        };
        let several = several.into_iter().flatten().map(|(stream, value)| (Some(stream), value));
        one.into_iter().chain(several)
    }

    /// The values.
    pub fn values(&self) -> impl Iterator<Item = &T> {
        self.iter().map(|(_, value)| value)
    }

    /// Another value for each stream.
    pub fn map<U>(self, mut make: impl FnMut(Option<&StreamIdentifier>, T) -> U) -> ByStream<U> {
        match self {
            Self::One(value) => ByStream::One(make(None, value)),
            Self::Several(values) => {
                let of = |(stream, value)| {
                    let made = make(Some(&stream), value);
                    (stream, made)
                };
                ByStream::Several(values.into_iter().map(of).collect())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn value_of_a_stream_is_found_in_its_kind_of_table_only() {
        let [orders, payments] =
            ["1:orders:5", "1:payments:5"].map(|text| StreamIdentifier::parse(text).unwrap());
        let one = ByStream::One(7);
        assert_eq!((one.get(None), one.get(Some(&orders))), (Some(&7), None));
        let several = ByStream::Several(BTreeMap::from([(orders.clone(), 8)]));
        assert_eq!(several.get(Some(&orders)), Some(&8));
        assert_eq!((several.get(Some(&payments)), several.get(None)), (None, None));
        let named = several.map(|stream, value| format!("{} {value}", stream.unwrap().name()));
        assert_eq!(named.values().collect::<Vec<_>>(), ["orders 8"]);
    }

    #[test]
    fn identifier_is_parsed_as_kcl_writes_it_only() {
        let text = "123456789012:orders:1700000000";
        let identifier = StreamIdentifier::parse(text).unwrap();
        assert_eq!((identifier.as_str(), identifier.name()), (text, "orders"));
        let greatest = format!("1:a:{}", i64::MAX);
        assert!(StreamIdentifier::parse(&greatest).is_some());
        for text in [
            "",
            "orders",
            "1:orders",
            "1::5",
            ":orders:5",
            "a1:orders:5",
            "1:orders:",
            "1:orders:0",
            "1:orders:05",
            "1:orders:-5",
            "1:orders:+5",
            "1:orders:5 ",
            "1:orders:5:6",
            "1:or:ders:5",
            "1:orders:9223372036854775808",
            "arn:aws:kinesis:eu-west-1:123456789012:stream/orders",
        ] {
            assert_eq!(StreamIdentifier::parse(text), None, "{text}");
        }
    }

    #[test]
    fn configured_arn_differs_in_real_accounts_and_regions_only() {
        let arn = |region: &str, account: &str| format!("arn:aws:kinesis:{region}:{account}:stream/orders");
        let configured = ConfiguredArn { arn: arn("eu-west-1", "111122223333"), used: false };
        let differs = |region: &str, account: &str| configured.differs_from(&arn(region, account));
        assert!(!differs("eu-west-1", "111122223333"));
        assert!(differs("eu-west-1", "444455556666") && differs("us-east-1", "111122223333"));
        for local in ["000000000000", "0000-0000-0000", "", "local"] {
            assert!(!differs("us-east-1", local), "{local}");
        }
        assert!(!configured.differs_from("no ARN"));
    }

    const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";

    #[test]
    fn identity_survives_display_and_parse() {
        let id = StreamId::new(ARN, 1_795_000_000_123);
        assert_eq!(StreamId::parse(&id.to_string()), Some(id.clone()));
        assert_eq!(id.name(), "orders");
        for text in ["", "@", "@5", "arn", "arn@", "arn@x"] {
            assert_eq!(StreamId::parse(text), None, "{text}");
        }
    }

    #[test]
    fn relation_distinguishes_created_again_from_different() {
        let id = StreamId::new(ARN, 5);
        assert_eq!(id.relation(&id), Relation::Same);
        assert_eq!(id.relation(&StreamId::new(ARN, 6)), Relation::CreatedAgain);
        assert_eq!(id.relation(&StreamId::new(ARN, 4)), Relation::Older);
        let staging = "arn:aws:kinesis:us-east-1:123456789012:stream/orders-staging";
        assert_eq!(id.relation(&StreamId::new(staging, 6)), Relation::Different);
    }
}
