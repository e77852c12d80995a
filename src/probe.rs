//! `multilangd check FILE --aws`: whether a daemon with this file can work, by calls of AWS that have no effect.
//!
//! AWS decides about permission before it looks for a resource: a call that fails because a stream, a table or a row
//! does not exist is permitted. Writes of rows carry a condition that no row fulfils, whether it exists or not, on a key
//! that no worker writes. Nothing is written if the endpoint ignores conditions either: the first such call deletes that
//! row, which does not exist, and the others follow only once a condition or a denial has refused it.
//!
//! | module | holds |
//! |---|---|
//! | [`port`] | the calls, their replies, and the port that makes them |
//! | [`judge`] | a reply, as the state of a permission |
//! | [`report`] | the lines of the report and its verdict, as text and as JSON |
//! | [`session`] | a sequence of calls of one service, which ends when the service is not reached |
//! | [`kinesis`] | the calls of Kinesis, and lines about the stream and its consumer |
//! | [`dynamodb`] | the calls of DynamoDB, and lines about the tables |
//! | [`machine`] | lines about credentials, endpoints, the clock, open files and processes |

pub mod dynamodb;
pub mod judge;
pub mod kinesis;
pub mod machine;
#[cfg(test)]
mod memory;
pub mod port;
pub mod report;
pub mod session;
