//! Events that are counted, each emitted once, at the place where it happens.
//!
//! [`events`] is the catalogue of events; each [`Sink`] uses those that it needs. [`board`] keeps the present
//! state by shard, which [`prometheus`] renders; [`cloudwatch`] aggregates the metrics that KCL sends to
//! CloudWatch; [`of_stream`] tells the shards of several streams apart.

pub mod board;
pub mod cloudwatch;
pub mod events;
pub mod fleet;
pub mod histogram;
pub mod of_stream;
pub mod pending;
pub mod prometheus;
pub mod rate;
mod sink;

pub use board::{Board, Totals};
pub use events::{Coverage, Ending, LastLines, Move, OfShard, OfWorker, Step, Supporters, Tables};
pub use fleet::FleetReader;
pub use sink::{Both, Discard, Sink};
