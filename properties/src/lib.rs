//! Reads `.properties` files exactly as the Java MultiLangDaemon does, and converts values by Java's rules to
//! numbers, booleans, durations and lists.
//!
//! The crate is pure: bytes in, values out. It does no I/O, logs nothing, and knows no key by name; the daemon
//! defines the keys and their meaning.
//!
//! Invariants:
//! * [`File::read`] accepts and rejects the same bytes as `java.util.Properties.load(InputStream)` of JDK 17
//!   and finds the same pairs. It never panics.
//! * Each pair has its position in the file. No pair is dropped; superseded ones are marked.
//! * Diagnostics never change the meaning of a file: a likely mistake is a [`Notice`] beside the pairs.
//! * A text that Java silently converts to 0 or `false` is [`value::Read::Unreadable`], never a zero.
//!
//! Sources: `java.util.Properties`, `java.util.concurrent.ConcurrentHashMap` (iteration order),
//! commons-beanutils 1.11 (`NumberConverter`, `BooleanConverter`, `ArrayConverter`), `java.time.Duration`, and
//! the KCL's `DurationConverter` and `TagConverter`. `tests/java.rs` compares with stored output of the Java
//! program.

mod entry;
mod file;
mod notice;
mod syntax;
mod table;
pub mod value;

pub use entry::Entry;
pub use file::{File, Malformed};
pub use notice::{Kind, Notice, Part};
pub use syntax::{BadEscape, Position};
pub use table::java_hash;
