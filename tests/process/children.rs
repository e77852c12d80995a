//! Children that misbehave, one file a behaviour. For each: what Java would die of, or wait for, touches
//! the one shard alone; nothing is lost; the reason stands in the log once; nobody is left behind.
//!
//! | file | the child |
//! |---|---|
//! | `ends.rs` | ends with 0, with 1, by a signal, at each moment of its life |
//! | `answers_wrongly.rs` | answers with another action's name, or none |
//! | `closes_stdout.rs` | closes stdout and lives |
//! | `closes_stdin.rs` | closes stdin and lives |
//! | `stops_reading.rs` | leaves stdin unread |
//! | `never_answers.rs` | overruns `timeoutInSeconds` |
//! | `ignores_sigterm.rs` | can't be ended but by SIGKILL |
//! | `leaves_a_grandchild.rs` | ends and leaves a process that holds its pipes |
//! | `leaves_early.rs` | ends before it has read what is owed to it |
//! | `floods_stderr.rs` | writes more to stderr than a log takes |
//! | `prints_noise.rs` | prints to stdout what is no message |
//! | `floods_stdout.rs` | does so without end |
//! | `asks_at_every_moment.rs` | checkpoints at every moment, and many times at once |
//! | `asks_without_reading.rs` | checkpoints many times before it reads an answer |
//! | `speaks_between_actions.rs` | says something while no action is open |
//! | `fails_for_good.rs` | never gets further |
//!
//! Each claim is a check over a [`scene::Run`], which holds everything that children reported and the
//! daemon logged. That a check can fail is shown in two ways: `scene.rs` gives each of them a doctored
//! run, and behaviours that Java ends for are played again under `multilangd.onChildFailure = exit`,
//! where the claim is false.

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
