//! `.properties` files exactly as the Java MultiLangDaemon reads them, and Java's rules for turning values
//! into numbers, booleans, durations and lists.
//!
//! The crate is pure: bytes in, values out. It reads no file, logs nothing, and knows not one key by name;
//! which keys exist and what they mean is the daemon's business.
//!
//! Invariants:
//! * [`File::read`] accepts and refuses the same bytes as `java.util.Properties.load(InputStream)` of JDK 17
//!   and finds the same pairs. It never panics.
//! * Each pair knows where it stands; no pair is dropped, a superseded one is marked.
//! * Help never changes meaning: what merely looks wrong is a [`Notice`] beside the pairs.
//! * A text that Java quietly turns into 0 or `false` is [`value::Read::Unreadable`], never a zero.
//!
//! Sources: `java.util.Properties`, `java.util.concurrent.ConcurrentHashMap` (order of walking),
//! commons-beanutils 1.11 (`NumberConverter`, `BooleanConverter`, `ArrayConverter`), `java.time.Duration`,
//! and the KCL's `DurationConverter` and `TagConverter`. The tests in `tests/java.rs` compare with stored
//! output of the Java program.

mod file;
mod notice;
mod syntax;
mod table;
pub mod value;

pub use file::{Entry, File, Malformed};
pub use notice::{Kind, Notice, Part};
pub use syntax::{BadEscape, Position};
pub use table::java_hash;
