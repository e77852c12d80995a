//! The identity of a stream: its ARN and the time of its creation.
//!
//! A lease table belongs to one stream. The name does not identify a stream: one can be deleted and created
//! again under its name, and a configuration can name the wrong one. So each lease row that a worker of
//! multilangd acquires stores the identity (`crate::recognition`, `crate::lease::origin`).
//!
//! A table of several streams has its own form of the identity in each key: [`StreamIdentifier`].
//!
//! At AWS: `StreamARN` and `StreamCreationTimestamp` of `DescribeStreamSummary`. In KCL: `StreamIdentifier`.

mod by_stream;
mod identifier;
mod identity;
mod wanted;

pub use by_stream::ByStream;
pub use identifier::StreamIdentifier;
pub use identity::{ConfiguredArn, Relation, StreamId};
pub use wanted::{Prefix, Selection, Unidentified, Wanted, read_twice};
