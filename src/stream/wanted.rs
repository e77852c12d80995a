//! The streams of `multilangd.streams`, and the identifiers under which they are read.
//!
//! In KCL: `MultiStreamTracker.streamConfigList`, with which the application chooses the identifiers itself.

use std::collections::BTreeSet;

use super::identifier::StreamIdentifier;
use super::identity::{StreamId, real_account};
use crate::sequence::Sequence;

/// The account of a stream at a local endpoint that names none.
const LOCAL: &str = "000000000000";

/// A stream of `multilangd.streams`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// Its name.
    pub name: String,
    /// The account in its ARN; none if it is given by its name.
    pub account: Option<String>,
    /// The epoch of its identifier; none for the one in the lease table, or the time of its creation.
    pub epoch: Option<i64>,
    /// Its initial position, `LATEST` or `TRIM_HORIZON`; none for that of the application.
    pub initial: Option<Sequence>,
    /// The ARN of the consumer that reads it with enhanced fan-out; none to find or register one.
    pub consumer: Option<String>,
}

impl std::fmt::Display for Wanted {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.name)
    }
}

/// The beginning of the names of streams.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prefix {
    /// The beginning.
    pub text: String,
    /// As [`Wanted::initial`].
    pub initial: Option<Sequence>,
}

/// The streams of `multilangd.streams`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selection {
    /// Those that are named.
    pub named: Vec<Wanted>,
    /// All streams of the account of the credentials whose names begin so.
    pub prefixes: Vec<Prefix>,
}

impl Selection {
    /// Whether no stream is selected: one is read by `streamName`.
    pub fn is_empty(&self) -> bool {
        self.named.is_empty() && self.prefixes.is_empty()
    }

    /// A stream of that name, if it is selected by its beginning: by the longest, if there are several.
    pub fn by_prefix(&self, name: &str) -> Option<Wanted> {
        let prefixes = self.prefixes.iter().filter(|prefix| name.starts_with(&prefix.text));
        let prefix = prefixes.max_by_key(|prefix| prefix.text.len())?;
        Some(Wanted { initial: prefix.initial.clone(), ..Wanted::named(name) })
    }

    /// The entry that selects a stream, under any epoch.
    pub fn entry_of(&self, stream: &StreamIdentifier) -> Option<Wanted> {
        let named = self.named.iter().find(|wanted| wanted.is_under_any_epoch(stream)).cloned();
        named.or_else(|| self.by_prefix(stream.name()))
    }

    /// The entries as text, as they are configured.
    pub fn words(&self) -> impl Iterator<Item = String> {
        let prefixes = self.prefixes.iter().map(|prefix| format!("{}*", prefix.text));
        self.named.iter().map(|stream| stream.name.clone()).chain(prefixes)
    }
}

/// Why a stream has no identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unidentified {
    /// Neither AWS nor the configuration says what the identifier is.
    #[error(
        "the account and the creation time of the stream {0} are unknown (allow kinesis:DescribeStreamSummary, or \
         name the stream in multilangd.streams by its ARN and an epoch, as in ARN@1700000000)"
    )]
    Unknown(String),
    /// The lease table has leases of a stream of this name in another account.
    #[error(
        "multilangd.streams = {name}, a stream of account {account}, but the lease table has leases of {found}: if they are \
         of this stream, it would be read from its initial position again, and every record be delivered twice (name the \
         stream by its ARN if both are read, or delete those leases)"
    )]
    OtherAccount {
        /// The name of the stream.
        name: String,
        /// Its account.
        account: String,
        /// The identifier in the table.
        found: StreamIdentifier,
    },
    /// The lease table has leases of the stream under another epoch than the configured one.
    #[error(
        "multilangd.streams = {name}@{configured}, but the lease table has leases of this stream with the epoch {found}: \
         every record would be delivered twice (set {name}@{found}, or delete those leases)"
    )]
    OtherEpoch {
        /// The name of the stream.
        name: String,
        /// The configured epoch.
        configured: i64,
        /// The epoch in the table.
        found: i64,
    },
}

impl Wanted {
    /// The stream of a name in the account of the credentials.
    pub fn named(name: &str) -> Self {
        Self { name: name.to_owned(), account: None, epoch: None, initial: None, consumer: None }
    }

    /// Whether both can be one stream. A name alone can be a stream of any account.
    pub fn may_be(&self, other: &Self) -> bool {
        let is_other = self.account.is_some() && other.account.is_some() && self.account != other.account;
        self.name == other.name && !is_other
    }

    /// Whether an identifier can be that of this stream.
    pub fn is(&self, identifier: &StreamIdentifier) -> bool {
        self.is_under_any_epoch(identifier) && self.epoch.is_none_or(|epoch| epoch == identifier.epoch())
    }

    /// Whether an identifier can be that of this stream, or was.
    fn is_under_any_epoch(&self, identifier: &StreamIdentifier) -> bool {
        self.name == identifier.name()
            && self.account.as_deref().is_none_or(|account| account == identifier.account())
    }

    /// The identifier of the stream that `described` is, in a table that has leases under the identifiers `in_table`.
    ///
    /// A table that has leases of the stream decides the epoch, so that no record is read under two identifiers: Java's
    /// application may have chosen another one, and the stream may have been created again since.
    ///
    /// # Errors
    /// There is none, or another than the configured one is in use.
    pub fn identifier(
        &self,
        described: Option<&StreamId>,
        in_table: &BTreeSet<StreamIdentifier>,
    ) -> Result<StreamIdentifier, Unidentified> {
        let unknown = || Unidentified::Unknown(self.name.clone());
        let of_table = || {
            let named = in_table.iter().find(|identifier| identifier.name() == self.name);
            named.map(|identifier| identifier.account().to_owned())
        };
        let account = described.and_then(|id| real_account(id.arn()).map(str::to_owned));
        // A local endpoint knows no account.
        let local = || described.map(|_| of_table().unwrap_or_else(|| LOCAL.to_owned()));
        let account = account.or_else(|| self.account.clone()).or_else(local).ok_or_else(unknown)?;
        let (own, others): (Vec<_>, Vec<_>) = in_table
            .iter()
            .filter(|identifier| identifier.name() == self.name)
            .partition(|identifier| identifier.account() == account);
        // An application of Java can have chosen any account: KCL calls streams by their names.
        if let (None, [], Some(found)) = (&self.account, &own[..], others.first()) {
            let (name, found) = (self.name.clone(), (*found).clone());
            return Err(Unidentified::OtherAccount { name, account, found });
        }
        let found: BTreeSet<i64> = own.into_iter().map(StreamIdentifier::epoch).collect();
        let created = described.map(|id| (id.created() / 1000).max(1));
        let epoch = match (self.epoch, found.last()) {
            (Some(configured), Some(last)) if !found.contains(&configured) => {
                return Err(Unidentified::OtherEpoch { name: self.name.clone(), configured, found: *last });
            }
            (Some(configured), _) => configured,
            (None, Some(last)) => created.filter(|created| found.contains(created)).unwrap_or(*last),
            (None, None) => created.ok_or_else(unknown)?,
        };
        StreamIdentifier::parse(&format!("{account}:{}:{epoch}", self.name)).ok_or_else(unknown)
    }
}

/// The streams of a table that have leases under several epochs: each of their records is delivered once for each.
pub fn read_twice(in_table: &BTreeSet<StreamIdentifier>) -> Vec<&StreamIdentifier> {
    let is_twice = |one: &&StreamIdentifier| {
        in_table
            .iter()
            .any(|other| other != *one && other.account() == one.account() && other.name() == one.name())
    };
    in_table.iter().filter(is_twice).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(epoch: Option<i64>) -> Wanted {
        Wanted { epoch, ..Wanted::named("orders") }
    }

    fn table(texts: &[&str]) -> BTreeSet<StreamIdentifier> {
        texts.iter().map(|text| StreamIdentifier::parse(text).unwrap()).collect()
    }

    fn described(account: &str) -> StreamId {
        let arn = format!("arn:aws:kinesis:us-east-1:{account}:stream/orders");
        StreamId::new(&arn, 1_700_000_000_999)
    }

    #[test]
    fn leases_in_the_table_decide_the_epoch() {
        let id = described("111122223333");
        let chosen = |epoch, rows: &[&str]| {
            wanted(epoch).identifier(Some(&id), &table(rows)).map(|identifier| identifier.epoch())
        };
        assert_eq!(chosen(None, &[]), Ok(1_700_000_000), "the time of the creation in seconds");
        let others = ["111122223333:orders-2:8"];
        assert_eq!(chosen(None, &others), Ok(1_700_000_000), "of another stream");
        assert_eq!(chosen(None, &["111122223333:orders:5"]), Ok(5));
        assert_eq!(chosen(None, &["111122223333:orders:5", "111122223333:orders:6"]), Ok(6));
        assert_eq!(
            chosen(
                None,
                &[
                    "111122223333:orders:5",
                    "111122223333:orders:1700000000",
                    "111122223333:orders:1800000000"
                ]
            ),
            Ok(1_700_000_000)
        );
        assert_eq!(chosen(Some(9), &[]), Ok(9));
        assert_eq!(chosen(Some(5), &["111122223333:orders:5", "111122223333:orders:6"]), Ok(5));
        let other = Unidentified::OtherEpoch { name: "orders".to_owned(), configured: 9, found: 5 };
        assert_eq!(chosen(Some(9), &["111122223333:orders:5"]), Err(other));
    }

    #[test]
    fn leases_of_another_account_are_confirmed_by_an_arn() {
        let (id, rows) = (described("111122223333"), table(&["444455556666:orders:5"]));
        let refused = wanted(None).identifier(Some(&id), &rows);
        assert!(matches!(refused, Err(Unidentified::OtherAccount { .. })), "{refused:?}");
        let by_arn = Wanted { account: Some("111122223333".to_owned()), ..wanted(None) };
        assert_eq!(by_arn.identifier(Some(&id), &rows).unwrap().account(), "111122223333");
        let both = table(&["444455556666:orders:5", "111122223333:orders:6"]);
        assert_eq!(wanted(None).identifier(Some(&id), &both).unwrap().epoch(), 6);
    }

    #[test]
    fn stream_that_cannot_be_described_needs_account_and_epoch() {
        let unknown = Err(Unidentified::Unknown("orders".to_owned()));
        let named = |account: Option<&str>, epoch| {
            Wanted { account: account.map(str::to_owned), ..wanted(epoch) }.identifier(None, &BTreeSet::new())
        };
        assert_eq!(named(None, Some(5)), unknown);
        assert_eq!(named(Some("1"), None), unknown);
        assert_eq!(named(Some("1"), Some(5)).unwrap().as_str(), "1:orders:5");
    }

    #[test]
    fn account_of_a_local_endpoint_is_that_of_the_table() {
        for account in ["0000-0000-0000", "", "local"] {
            let id = described(account);
            let identifier = |rows: &[&str]| wanted(Some(5)).identifier(Some(&id), &table(rows)).unwrap();
            assert_eq!(identifier(&[]).account(), "000000000000", "{account}");
            assert_eq!(
                identifier(&["7:orders:5"]).account(),
                "7",
                "{account}: that of the application that began"
            );
        }
    }

    #[test]
    fn streams_with_two_epochs_are_found() {
        let rows = table(&["1:orders:5", "1:orders:6", "1:refunds:5", "2:refunds:6"]);
        let twice: Vec<&str> = read_twice(&rows).into_iter().map(StreamIdentifier::as_str).collect();
        assert_eq!(twice, ["1:orders:5", "1:orders:6"]);
    }
}
