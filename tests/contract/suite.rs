//! The table of cases that hold for any endpoint, and the two ways to run them.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use multilangd::local::kinesis::Options;

use crate::endpoint::{Endpoint, Failure, Outcome, ours};

/// No case takes longer, by far.
const PATIENCE: Duration = Duration::from_secs(60);

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

struct Case {
    name: &'static str,
    run: fn(Endpoint) -> Running,
}

async fn bounded(running: impl Future<Output = Outcome>) -> Outcome {
    match tokio::time::timeout(PATIENCE, running).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure(format!("not done after {PATIENCE:?}"))),
    }
}

async fn run_on_ours(running: impl FnOnce(Endpoint) -> Running) {
    let kinesis = ours(Options::default()).await;
    let outcome = bounded(running(Endpoint::of(&kinesis))).await;
    kinesis.stop().await;
    if let Err(Failure(why)) = outcome {
        panic!("{why}");
    }
}

macro_rules! cases {
    ($($module:ident: $($case:ident),+ $(,)?;)+) => {
        const CASES: &[Case] = &[$($(
            Case {
                name: concat!(stringify!($module), "::", stringify!($case)),
                run: |endpoint| Box::pin(crate::$module::$case(endpoint)),
            },
        )+)+];

        $(mod $module {
            $(
                #[tokio::test]
                async fn $case() {
                    super::run_on_ours(|endpoint| Box::pin(crate::$module::$case(endpoint))).await;
                }
            )+
        })+
    };
}

cases! {
    streams:
        a_new_stream_is_described_as_it_was_asked_for;
    shards:
        a_split_shard_has_two_children_that_share_its_range;
    reading:
        records_are_read_as_they_were_put,
        the_end_of_a_shard_names_its_children_and_no_iterator;
    writing:
        an_explicit_hash_key_chooses_the_shard;
}
