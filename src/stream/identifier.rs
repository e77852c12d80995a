//! The identifier of a stream in the keys of a lease table of several streams.

use std::fmt;
use std::sync::Arc;

use super::identity::{StreamId, real_account};

/// A stream in a lease table of several streams: `ACCOUNT:NAME:EPOCH`, where the epoch stands for the creation of the
/// stream. KCL takes the epoch from the application and never verifies it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct StreamIdentifier(Arc<str>);

impl StreamIdentifier {
    /// Parses the form in which KCL writes it. Another spelling of the same numbers would be another key of the table.
    pub fn parse(text: &str) -> Option<Self> {
        Self::is_valid(text).then(|| Self(text.into()))
    }

    fn is_valid(text: &str) -> bool {
        let is_digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        let Some((account, rest)) = text.split_once(':') else { return false };
        let Some((name, epoch)) = rest.split_once(':') else { return false };
        let is_epoch = |text: &str| {
            is_digits(text) && !text.starts_with('0') && text.parse::<i64>().is_ok_and(|epoch| epoch > 0)
        };
        is_digits(account) && !name.is_empty() && is_epoch(epoch)
    }

    /// The identifier and the shard's id in a key of a table of several streams. None for another text.
    pub fn split(key: &str) -> Option<(Self, &str)> {
        let (stream, shard) = Self::split_text(key)?;
        Some((Self(stream.into()), shard))
    }

    /// [`StreamIdentifier::split`] as texts.
    pub fn split_text(key: &str) -> Option<(&str, &str)> {
        key.rsplit_once(':').filter(|(stream, _)| Self::is_valid(stream))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The account of the stream.
    pub fn account(&self) -> &str {
        self.0.split(':').next().unwrap_or_default()
    }

    /// The name of the stream.
    pub fn name(&self) -> &str {
        self.0.split(':').nth(1).unwrap_or_default()
    }

    /// Whether a stream that was found can be the one of this identifier, which says nothing about its creation. A stream
    /// at a local endpoint has no account.
    pub fn may_be(&self, found: &StreamId) -> bool {
        found.name() == self.name()
            && real_account(found.arn()).is_none_or(|account| account == self.account())
    }

    /// The epoch.
    pub fn epoch(&self) -> i64 {
        self.0.rsplit(':').next().and_then(|text| text.parse().ok()).unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identifier_is_parsed_as_kcl_writes_it_only() {
        let text = "123456789012:orders:1700000000";
        let identifier = StreamIdentifier::parse(text).unwrap();
        assert_eq!((identifier.as_str(), identifier.name()), (text, "orders"));
        assert_eq!((identifier.account(), identifier.epoch()), ("123456789012", 1_700_000_000));
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
    fn identifier_is_compared_with_account_and_name_of_a_stream() {
        let identifier = StreamIdentifier::parse("111122223333:orders:5").unwrap();
        let may_be = |account: &str, name: &str| {
            let arn = format!("arn:aws:kinesis:eu-west-1:{account}:stream/{name}");
            identifier.may_be(&StreamId::new(&arn, 6000))
        };
        assert!(may_be("111122223333", "orders") && may_be("000000000000", "orders"));
        assert!(!may_be("444455556666", "orders") && !may_be("111122223333", "orders-2"));
    }
}
