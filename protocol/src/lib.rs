//! The KCL MultiLang protocol: one JSON object per line, over stdin and stdout of a child process.
//!
//! This crate holds the wire format and the order of messages: no process, no clock, no AWS. Messages to the
//! child are byte for byte those of the Java MultiLangDaemon; messages from the child are read as leniently as
//! Java reads them.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | all messages, in both directions |
//! | [`batch`] | the `processRecords` line, written record by record |
//! | [`mod@line`] | splits the bytes of a pipe into lines of bounded length |
//! | [`failure`] | the error names of a failed checkpoint |
//! | [`session`] | the state machine of one conversation, without I/O |
//!
//! Invariants:
//! * at most one action is open at a time; the one `status` that names it ends it;
//! * each checkpoint request is answered exactly once, in the order of arrival, and only while an action is
//!   open;
//! * a line that is not a message is noise: it is reported and changes no state.
//!
//! In KCL: `MultiLangProtocol`, `MessageReader`, `MessageWriter` and the package `messages` of the multilang
//! module. `tests/transcripts.rs` compares with transcripts of the Java daemon.

mod action;
pub mod batch;
pub mod bytewise;
pub mod failure;
pub mod line;
pub mod message;
mod record;
pub mod session;
mod text;

pub use action::Action;
pub use batch::{BatchLine, Places, PlainRecord, Seconds, Time};
pub use failure::CheckpointFailure;
pub use line::{Line, LineSplitter};
pub use message::{CheckpointRequest, Dialect, FromChild, Noise, ToChild};
pub use record::Record;
pub use session::{Busy, Event, Received, Session};
