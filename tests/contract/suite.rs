//! The table of cases that hold for any endpoint, and the two ways to run them: each as a test against the
//! embedded endpoint, and all against npm's kinesis-local, in `tests/kinesis_local`.
#![allow(dead_code, clippy::print_stdout, reason = "tests/kinesis_local uses the second way")]

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use multilangd::local::kinesis::Options;
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Failure, Outcome, ours};

/// Upper bound of a case, far above its normal duration.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Number of cases that run concurrently against kinesis-local.
const AT_ONCE: usize = 4;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// A case and its name.
struct Case {
    name: &'static str,
    run: fn(Endpoint) -> Running,
}

/// A case in which kinesis-local 0.6.2 differs from AWS.
struct Difference {
    case: &'static str,
    /// The behaviour of kinesis-local.
    how: &'static str,
    /// The page that documents the behaviour of AWS; where AWS documents none, a page that quotes a response of
    /// AWS.
    decided_by: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "consumers::a_deregistered_consumer_is_not_found",
        how: "still describes a consumer a minute after it was deregistered",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DeregisterStreamConsumer.html",
    },
    Difference {
        case: "filters::at_trim_horizon_shows_the_initial_shards",
        how: "shows every shard for AT_TRIM_HORIZON, not those open at the beginning",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ShardFilter.html",
    },
    Difference {
        case: "reading::a_sequence_number_of_another_shard_is_rejected",
        how: "accepts a sequence number of another shard or of none",
        decided_by: "https://github.com/boto/boto3/issues/1478",
    },
    Difference {
        case: "reading::a_future_timestamp_is_rejected",
        how: "returns an iterator for a future timestamp",
        decided_by: "https://github.com/awslabs/amazon-kinesis-connector-flink/issues/13",
    },
    Difference {
        case: "reading::an_iterator_type_requires_exactly_its_fields",
        how: "accepts a missing or superfluous sequence number or timestamp",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html",
    },
    Difference {
        case: "reading::an_invalid_iterator_is_rejected",
        how: "fails with status 500 on an invalid iterator",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html",
    },
    Difference {
        case: "shards::a_split_outside_the_range_is_refused",
        how: "splits at a hash key that leaves a child with an empty range",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SplitShard.html",
    },
    Difference {
        case: "shards::a_split_shard_has_two_children_covering_its_range",
        how: "ends the parent above the numbers that the children start with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "shards::merged_shards_have_one_child_with_two_parents",
        how: "ends the parents above the number that the child starts with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "shards::scaling_produces_uniform_shards_with_correct_lineage",
        how: "ends parents above the numbers that their children start with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "streams::a_deleted_stream_frees_its_name",
        how: "accepts a sequence number of a deleted stream for a stream of the same name",
        decided_by: "https://github.com/amazon-archives/amazon-kinesis-connectors/issues/8",
    },
    Difference {
        case: "streams::an_illegal_name_violates_a_constraint",
        how: "returns InvalidArgumentException for a violated constraint of the shape",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
    Difference {
        case: "subscribing::a_second_subscription_within_five_seconds_is_rejected",
        how: "lets two subscriptions of one consumer to one shard begin at once",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html",
    },
    Difference {
        case: "subscribing::an_unknown_consumer_can_not_subscribe",
        how: "begins a subscription for an unknown consumer",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html",
    },
    Difference {
        case: "subscribing::end_of_a_shard_ends_the_subscription_with_children",
        how: "never ends the subscription to a closed shard",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShardEvent.html",
    },
    Difference {
        case: "wire::an_unknown_action_is_refused",
        how: "returns AccessDeniedException for an unknown action",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
    Difference {
        case: "wire::cbor_is_answered_in_cbor",
        how: "does not encode data as a byte string in CBOR",
        decided_by: "https://github.com/aws/aws-sdk-java-v2/blob/master/core/protocols/aws-cbor-protocol/src/main/java/software/amazon/awssdk/protocols/cbor/internal/SdkCborGenerator.java",
    },
    Difference {
        case: "wire::cbor_times_are_milliseconds_under_tag_1",
        how: "writes times without a tag in CBOR",
        decided_by: "https://github.com/aws/aws-sdk-java-v2/blob/master/core/protocols/aws-cbor-protocol/src/main/java/software/amazon/awssdk/protocols/cbor/internal/SdkCborGenerator.java",
    },
    Difference {
        case: "writing::a_batch_of_501_is_rejected_as_a_whole",
        how: "accepts more than 500 records per call",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html",
    },
    Difference {
        case: "writing::partition_key_is_required_and_data_may_be_empty",
        how: "returns InvalidArgumentException for a violated constraint of the shape",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
];

async fn bounded(running: impl Future<Output = Outcome>) -> Outcome {
    match tokio::time::timeout(TIMEOUT, running).await {
        Ok(outcome) => outcome,
        Err(_) => Err(Failure(format!("not done after {TIMEOUT:?}"))),
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

/// Runs all cases and returns their outcomes.
async fn run_on_peer(peer: &Endpoint) -> BTreeMap<&'static str, Result<(), String>> {
    let mut outcomes = BTreeMap::new();
    for cases in CASES.chunks(AT_ONCE) {
        let mut running = JoinSet::new();
        for case in cases {
            let at = peer.clone();
            running.spawn(async move { (case.name, bounded((case.run)(at)).await) });
        }
        for (name, outcome) in running.join_all().await {
            outcomes.insert(name, outcome.map_err(|Failure(why)| why));
        }
    }
    outcomes
}

/// Asserts that kinesis-local, at that URL, passes all cases except the known differences.
pub(crate) async fn assert_peer_passes(url: &str) {
    let outcomes = run_on_peer(&Endpoint::new(url)).await;
    let mut wrong = Vec::new();
    for (case, outcome) in &outcomes {
        let known = DIFFERENCES.iter().find(|difference| difference.case == *case);
        match (outcome, known) {
            (Ok(()), None) => println!("same    {case}"),
            (Err(why), Some(Difference { how, decided_by, .. })) => {
                let why: String = why.chars().take(200).collect();
                println!("differs {case}: {how} ({decided_by})\n        {why}");
            }
            (Ok(()), Some(_)) => wrong.push(format!("{case} no longer differs")),
            (Err(why), None) => wrong.push(format!("{case}: {why}")),
        }
    }
    for difference in DIFFERENCES {
        if !outcomes.contains_key(difference.case) {
            wrong.push(format!("{} is not a case", difference.case));
        }
    }
    assert!(wrong.is_empty(), "{} of {} cases:\n{}", wrong.len(), outcomes.len(), wrong.join("\n"));
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
        a_new_stream_is_described_as_requested,
        an_on_demand_stream_has_four_shards,
        an_unknown_stream_is_not_found,
        a_duplicate_stream_name_is_rejected,
        an_illegal_name_violates_a_constraint,
        a_deleted_stream_frees_its_name,
        streams_are_listed_in_pages,
        shards_are_described_in_pages,
        a_stream_is_accepted_by_its_arn,
        retention_goes_up_and_down_within_its_limits,
        tags_are_added_listed_and_removed;
    shards:
        a_split_shard_has_two_children_covering_its_range,
        merged_shards_have_one_child_with_two_parents,
        a_split_outside_the_range_is_refused,
        a_closed_shard_is_not_split_again,
        merge_of_non_adjacent_shards_is_rejected,
        an_unknown_shard_is_not_found,
        scaling_produces_uniform_shards_with_correct_lineage,
        scaling_by_more_than_double_or_half_is_refused,
        shards_are_listed_in_pages_by_token_alone;
    filters:
        at_latest_shows_the_open_shards,
        at_trim_horizon_shows_the_initial_shards,
        from_trim_horizon_shows_all_retained_shards,
        after_a_shard_shows_those_with_higher_ids,
        a_time_before_the_stream_is_its_beginning,
        a_filter_without_its_required_field_is_rejected;
    reading:
        records_are_read_as_they_were_put,
        end_of_a_shard_returns_children_and_no_iterator,
        end_of_either_merged_parent_returns_the_child,
        at_and_after_sequence_number_start_reading_there,
        latest_shows_only_later_records,
        at_timestamp_starts_with_the_first_later_record,
        a_future_timestamp_is_rejected,
        an_iterator_type_requires_exactly_its_fields,
        a_sequence_number_of_another_shard_is_rejected,
        limited_read_is_continued_by_the_next_iterator,
        an_invalid_iterator_is_rejected,
        an_empty_open_shard_always_returns_a_next_iterator,
        a_response_holds_at_most_ten_mebibytes;
    writing:
        an_explicit_hash_key_selects_the_shard,
        the_md5_of_the_partition_key_selects_the_shard,
        a_batch_keeps_its_order_in_each_shard,
        a_batch_of_501_is_rejected_as_a_whole,
        a_record_over_a_mebibyte_is_refused,
        a_hash_key_out_of_range_is_rejected,
        partition_key_is_required_and_data_may_be_empty,
        after_a_split_records_go_to_the_children;
    consumers:
        a_registered_consumer_is_described_and_listed,
        a_duplicate_consumer_name_is_rejected,
        an_unknown_consumer_is_not_found,
        a_deregistered_consumer_is_not_found,
        a_stream_with_consumers_is_deleted_only_by_force;
    subscribing:
        records_are_pushed_as_they_arrive,
        end_of_a_shard_ends_the_subscription_with_children,
        an_unknown_consumer_can_not_subscribe,
        a_second_subscription_within_five_seconds_is_rejected;
    wire:
        cbor_is_answered_in_cbor,
        cbor_times_are_milliseconds_under_tag_1,
        an_unknown_action_is_refused,
        broken_json_is_refused,
        a_wrong_type_is_refused;
}
