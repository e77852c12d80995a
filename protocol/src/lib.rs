//! The KCL MultiLang protocol: one JSON object a line over the stdin and stdout of a record
//! processor's process.
//!
//! This crate is the wire and the order of speaking, nothing else: no process, no clock, no AWS.
//! What goes to the child is written byte for byte as the Java MultiLangDaemon writes it; what
//! comes from the child is read as leniently as Java reads it.
//!
//! | module | holds |
//! |---|---|
//! | [`message`] | every message both ways |
//! | [`batch`] | the line of `processRecords`, record by record |
//! | [`mod@line`] | bytes of a pipe into lines, bounded |
//! | [`failure`] | the error names that a checkpoint can be answered with |
//! | [`session`] | who may speak, what is owed: the conversation without I/O |
//!
//! Invariants:
//! * at most one action is open at a time, and it ends with the one `status` that names it;
//! * a checkpoint request is answered exactly once, in the order in which it came, and only while
//!   an action is open;
//! * a line that is not a message is noise: it is reported and changes nothing.
//!
//! In KCL: `MultiLangProtocol`, `MessageReader`, `MessageWriter` and the package `messages` of the
//! multilang module. Tests against transcripts of the Java daemon are in `tests/transcripts.rs`.

pub mod batch;
pub mod bytewise;
pub mod failure;
pub mod line;
pub mod message;
pub mod session;
mod text;

pub use batch::{BatchLine, Places, PlainRecord, Seconds, Time};
pub use failure::CheckpointFailure;
pub use line::{Line, LineSplitter};
pub use message::{Action, CheckpointRequest, Dialect, FromChild, Noise, Record, ToChild};
pub use session::{Busy, Event, Received, Session};
