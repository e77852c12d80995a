//! The table of cases that hold for any endpoint, and the two ways to run them.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use multilangd::local::kinesis::Options;
use tokio::task::JoinSet;

use crate::endpoint::{Endpoint, Failure, Outcome, ours};

/// No case takes longer, by far.
const PATIENCE: Duration = Duration::from_secs(60);

/// Names the other endpoint: `http://127.0.0.1:PORT`.
const PEER: &str = "MULTILANGD_KINESIS_LOCAL";

/// Cases that run against the other endpoint at a time.
const AT_ONCE: usize = 4;

type Running = Pin<Box<dyn Future<Output = Outcome> + Send>>;

struct Case {
    name: &'static str,
    run: fn(Endpoint) -> Running,
}

/// A case in which kinesis-local 0.6.2 does something else than AWS.
struct Difference {
    case: &'static str,
    /// What it does.
    how: &'static str,
    /// The page that says what is right; where AWS documents nothing, an answer of AWS that somebody
    /// quoted.
    decided_by: &'static str,
}

const DIFFERENCES: &[Difference] = &[
    Difference {
        case: "consumers::a_deregistered_consumer_is_gone",
        how: "still describes a consumer a minute after it was deregistered",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_DeregisterStreamConsumer.html",
    },
    Difference {
        case: "filters::at_trim_horizon_shows_the_shards_of_the_beginning",
        how: "shows every shard for AT_TRIM_HORIZON, not those open at the beginning",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_ShardFilter.html",
    },
    Difference {
        case: "reading::a_number_of_another_shard_is_refused",
        how: "takes a sequence number that is of another shard or of none",
        decided_by: "https://github.com/boto/boto3/issues/1478",
    },
    Difference {
        case: "reading::a_time_to_come_is_refused",
        how: "gives an iterator for a time to come",
        decided_by: "https://github.com/awslabs/amazon-kinesis-connector-flink/issues/13",
    },
    Difference {
        case: "reading::an_iterator_type_takes_what_belongs_to_it",
        how: "does not mind a sequence number or a time that is missing, or there is none for",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetShardIterator.html",
    },
    Difference {
        case: "reading::what_is_no_iterator_is_refused",
        how: "fails with status 500 on what is no iterator",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_GetRecords.html",
    },
    Difference {
        case: "shards::a_split_outside_the_range_is_refused",
        how: "splits at a hash key that leaves a child with no range",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SplitShard.html",
    },
    Difference {
        case: "shards::a_split_shard_has_two_children_that_share_its_range",
        how: "ends the parent above the numbers that the children start with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "shards::merged_shards_have_one_child_with_two_parents",
        how: "ends the parents above the number that the child starts with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "shards::scaling_leaves_uniform_shards_with_a_true_lineage",
        how: "ends parents above the numbers that their children start with",
        decided_by: "https://docs.aws.amazon.com/streams/latest/dev/key-concepts.html",
    },
    Difference {
        case: "streams::a_deleted_stream_is_gone_and_its_name_free",
        how: "takes a sequence number of a deleted stream for one of its successor",
        decided_by: "https://github.com/amazon-archives/amazon-kinesis-connectors/issues/8",
    },
    Difference {
        case: "streams::an_illegal_name_violates_a_constraint",
        how: "says InvalidArgumentException where a constraint of the shape is violated",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
    Difference {
        case: "subscribing::a_second_subscription_at_once_is_refused",
        how: "lets two subscriptions of one consumer to one shard begin at once",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html",
    },
    Difference {
        case: "subscribing::an_unknown_consumer_can_not_subscribe",
        how: "begins a subscription for a consumer that is not there",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShard.html",
    },
    Difference {
        case: "subscribing::the_end_of_a_shard_ends_the_subscription_with_its_children",
        how: "never ends the subscription to a closed shard",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_SubscribeToShardEvent.html",
    },
    Difference {
        case: "wire::an_unknown_action_is_refused",
        how: "says AccessDeniedException to an unknown action",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
    Difference {
        case: "wire::cbor_is_answered_in_cbor",
        how: "writes data as something else than a byte string in CBOR",
        decided_by: "https://github.com/aws/aws-sdk-java-v2/blob/master/core/protocols/aws-cbor-protocol/src/main/java/software/amazon/awssdk/protocols/cbor/internal/SdkCborGenerator.java",
    },
    Difference {
        case: "wire::cbor_times_are_milliseconds_under_tag_1",
        how: "writes times without a tag in CBOR",
        decided_by: "https://github.com/aws/aws-sdk-java-v2/blob/master/core/protocols/aws-cbor-protocol/src/main/java/software/amazon/awssdk/protocols/cbor/internal/SdkCborGenerator.java",
    },
    Difference {
        case: "writing::a_batch_of_501_is_refused_whole",
        how: "takes more than 500 records at once",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/API_PutRecords.html",
    },
    Difference {
        case: "writing::a_partition_key_is_needed_and_data_may_be_empty",
        how: "says InvalidArgumentException where a constraint of the shape is violated",
        decided_by: "https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html",
    },
];

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

/// Runs all cases; why those that failed did.
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

#[tokio::test(flavor = "multi_thread")]
async fn kinesis_local_keeps_the_contract_but_for_its_known_differences() {
    let Ok(url) = std::env::var(PEER) else {
        println!("kinesis-local was NOT asked: {PEER} does not name it ({} cases)", CASES.len());
        return;
    };
    let outcomes = run_on_peer(&Endpoint::new(&url)).await;
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
            wrong.push(format!("{} is no case", difference.case));
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
        a_new_stream_is_described_as_it_was_asked_for,
        an_on_demand_stream_has_four_shards,
        an_unknown_stream_is_not_found,
        a_name_is_taken_once,
        an_illegal_name_violates_a_constraint,
        a_deleted_stream_is_gone_and_its_name_free,
        streams_are_listed_in_pages,
        shards_are_described_in_pages,
        a_stream_is_known_by_its_arn,
        retention_goes_up_and_down_within_its_limits,
        tags_are_added_listed_and_removed;
    shards:
        a_split_shard_has_two_children_that_share_its_range,
        merged_shards_have_one_child_with_two_parents,
        a_split_outside_the_range_is_refused,
        a_closed_shard_is_not_split_again,
        only_neighbours_are_merged,
        an_unknown_shard_is_not_found,
        scaling_leaves_uniform_shards_with_a_true_lineage,
        scaling_by_more_than_double_or_half_is_refused,
        shards_are_listed_in_pages_by_token_alone;
    filters:
        at_latest_shows_the_open_shards,
        at_trim_horizon_shows_the_shards_of_the_beginning,
        from_trim_horizon_shows_everything_kept,
        after_a_shard_shows_those_with_higher_ids,
        a_time_before_the_stream_is_its_beginning,
        a_filter_needs_what_its_type_needs;
    reading:
        records_are_read_as_they_were_put,
        the_end_of_a_shard_names_its_children_and_no_iterator,
        the_child_of_a_merge_names_both_parents_at_either_end,
        reading_starts_at_or_after_a_number,
        latest_shows_what_comes_after_it,
        a_time_starts_with_the_first_record_not_before_it,
        a_time_to_come_is_refused,
        an_iterator_type_takes_what_belongs_to_it,
        a_number_of_another_shard_is_refused,
        a_limit_is_kept_and_the_rest_follows,
        what_is_no_iterator_is_refused,
        an_empty_open_shard_always_gives_a_next_iterator,
        an_answer_holds_ten_mebibytes_and_the_rest_follows;
    writing:
        an_explicit_hash_key_chooses_the_shard,
        the_md5_of_a_partition_key_chooses_the_shard,
        a_batch_keeps_its_order_in_each_shard,
        a_batch_of_501_is_refused_whole,
        a_record_over_a_mebibyte_is_refused,
        a_hash_key_out_of_the_space_is_refused,
        a_partition_key_is_needed_and_data_may_be_empty,
        after_a_split_records_go_to_the_children;
    consumers:
        a_registered_consumer_is_described_and_listed,
        a_consumer_name_is_taken_once,
        an_unknown_consumer_is_not_found,
        a_deregistered_consumer_is_gone,
        a_stream_with_consumers_is_deleted_only_by_force;
    subscribing:
        records_are_pushed_as_they_come,
        the_end_of_a_shard_ends_the_subscription_with_its_children,
        an_unknown_consumer_can_not_subscribe,
        a_second_subscription_at_once_is_refused;
    wire:
        cbor_is_answered_in_cbor,
        cbor_times_are_milliseconds_under_tag_1,
        an_unknown_action_is_refused,
        broken_json_is_refused,
        a_wrong_type_is_refused;
}
