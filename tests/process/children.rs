//! Misbehaving children, one file per behaviour. For each, a fault that makes Java exit or wait affects only
//! its own shard: no record is lost, the reason is logged once, and no process remains.
//!
//! | file | the child |
//! |---|---|
//! | `ends.rs` | exits with 0, with 1 or by a signal, at each point of its life |
//! | `answers_wrongly.rs` | answers with another action's name, or with none |
//! | `closes_stdout.rs` | closes stdout and keeps running |
//! | `closes_stdin.rs` | closes stdin and keeps running |
//! | `stops_reading.rs` | does not read stdin |
//! | `never_answers.rs` | exceeds `timeoutInSeconds` |
//! | `ignores_sigterm.rs` | exits only on SIGKILL |
//! | `leaves_a_grandchild.rs` | exits and leaves a process that holds its pipes |
//! | `leaves_early.rs` | exits before it has read a pending answer |
//! | `floods_stderr.rs` | writes more to stderr than the log accepts |
//! | `prints_noise.rs` | prints lines to stdout that are not messages |
//! | `floods_stdout.rs` | prints such lines without end |
//! | `asks_at_every_moment.rs` | requests checkpoints at every point, and many at once |
//! | `asks_without_reading.rs` | requests many checkpoints before it reads an answer |
//! | `speaks_between_actions.rs` | sends messages while no action is open |
//! | `fails_for_good.rs` | fails permanently |
//!
//! Each claim is a check of a [`scene::Run`], which holds all reports of the children and the daemon's log. Two
//! things show that a check can fail: `scene.rs` applies each of them to an incorrect run, and faults that make
//! Java exit are repeated with `multilangd.onChildFailure = exit`, where the claim is false.

mod answers_wrongly;
mod asks_at_every_moment;
mod asks_without_reading;
mod closes_stdin;
mod closes_stdout;
mod ends;
mod fails_for_good;
mod floods_stderr;
mod floods_stdout;
mod ignores_sigterm;
mod leaves_a_grandchild;
mod leaves_early;
mod never_answers;
mod prints_noise;
mod scene;
mod speaks_between_actions;
mod stops_reading;
