//! The identity of a stream: its ARN and the time of its creation.

use std::cmp::Ordering;
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
        real_account(found).is_some() && parts(&self.arn) != parts(found)
    }
}

/// The account in an ARN. None in that of a local endpoint: zeros, or something that is no account.
pub(super) fn real_account(arn: &str) -> Option<&str> {
    let is_account = |text: &&str| text.len() == 12 && text.bytes().all(|b| b.is_ascii_digit());
    let is_at_aws = |text: &&str| text.bytes().any(|b| b != b'0');
    arn.split(':').nth(4).filter(is_account).filter(is_at_aws)
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

    /// The account; none at a local endpoint.
    pub fn account(&self) -> Option<&str> {
        real_account(&self.arn)
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

#[cfg(test)]
mod tests {
    use super::*;

    const ARN: &str = "arn:aws:kinesis:us-east-1:123456789012:stream/orders";

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
