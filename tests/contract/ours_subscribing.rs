//! Subscriptions of the embedded endpoint with shortened times: renewal, displacement, injected faults.

use std::time::Duration;

use aws_sdk_kinesis::types::ShardIteratorType;
use multilangd::local::kinesis::Options;

use crate::endpoint::{Failure, ensure, ensure_eq};
use crate::ours::with;
use crate::subscribing::{FIRST, event, position, subscribe, take};

/// Options with a short subscription duration.
fn short() -> Options {
    Options {
        subscription_length: Duration::from_millis(100),
        subscription_cooldown: Duration::ZERO,
        ..Options::default()
    }
}

/// A reader renews its subscription repeatedly while records 0 to `count` are put.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn renewed_subscriptions_have_no_gap_and_no_duplicate() {
    const COUNT: usize = 2000;
    with(short(), async |_, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let mut writer = tokio::task::JoinSet::new();
        let writing = (at.clone(), name.clone());
        writer.spawn(async move {
            let (at, name) = writing;
            for record in 0..COUNT {
                at.put(&name, &record.to_string()).await?;
            }
            Ok::<(), Failure>(())
        });
        let mut seen = Vec::new();
        let mut renewals = 0;
        let mut from = position(ShardIteratorType::TrimHorizon, None)?;
        while seen.len() < COUNT {
            let mut subscription = subscribe(at, &consumer, from.clone()).await?;
            while let Some(event) = event(&mut subscription).await? {
                seen.extend(crate::endpoint::texts(&event.records));
                let number = event.continuation_sequence_number;
                from = position(ShardIteratorType::AfterSequenceNumber, Some(&number))?;
            }
            renewals += 1;
        }
        let wanted: Vec<_> = (0..COUNT).map(|record| record.to_string()).collect();
        ensure!(seen == wanted, "other records were seen than put");
        ensure!(renewals > 1, "no renewal happened");
        while let Some(written) = writer.join_next().await {
            written.map_err(|error| Failure(error.to_string()))??;
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn continuation_of_an_empty_event_misses_no_record() {
    with(short(), async |_, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        at.put(&name, "before").await?;
        let mut first = subscribe(at, &consumer, position(ShardIteratorType::Latest, None)?).await?;
        let mut number = String::new();
        while let Some(event) = event(&mut first).await? {
            ensure_eq!(event.records.len(), 0);
            number = event.continuation_sequence_number;
        }
        at.put(&name, "after").await?;
        let from = position(ShardIteratorType::AfterSequenceNumber, Some(&number))?;
        let mut second = subscribe(at, &consumer, from).await?;
        ensure_eq!(take(&mut second, 1).await?.0, ["after"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn later_subscription_displaces_the_first() {
    let options = Options { subscription_cooldown: Duration::ZERO, ..Options::default() };
    with(options, async |_, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let from = position(ShardIteratorType::TrimHorizon, None)?;
        let mut first = subscribe(at, &consumer, from.clone()).await?;
        let mut second = subscribe(at, &consumer, from).await?;
        let error = loop {
            match event(&mut first).await {
                Ok(Some(_)) => {}
                Ok(None) => break None,
                Err(Failure(why)) => break Some(why),
            }
        };
        ensure!(
            error.is_some_and(|why| why.contains("ResourceInUseException")),
            "the error does not name the cause"
        );
        at.put(&name, "one").await?;
        ensure_eq!(take(&mut second, 1).await?.0, ["one"]);
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn injected_drop_ends_the_subscription_with_an_error() {
    let options = Options { subscription_cooldown: Duration::ZERO, ..Options::default() };
    with(options, async |kinesis, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let from = position(ShardIteratorType::TrimHorizon, None)?;
        let mut subscription = subscribe(at, &consumer, from).await?;
        ensure_eq!(kinesis.drop_subscriptions(Some("another"), None), 0);
        ensure_eq!(kinesis.drop_subscriptions(Some(&name), Some(FIRST)), 1);
        while let Ok(seen) = event(&mut subscription).await {
            ensure!(seen.is_some(), "it ended as if its time were up");
        }
        Ok(())
    })
    .await;
}

#[tokio::test]
async fn deregistered_consumer_loses_its_subscription() {
    with(Options::default(), async |_, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let from = position(ShardIteratorType::TrimHorizon, None)?;
        let mut subscription = subscribe(at, &consumer, from).await?;
        at.client.deregister_stream_consumer().consumer_arn(&consumer).send().await?;
        loop {
            match event(&mut subscription).await {
                Ok(Some(_)) => {}
                Ok(None) => return Err(Failure("it ended without a word".to_owned())),
                Err(Failure(why)) => {
                    ensure!(why.contains("ResourceNotFoundException"), "{why}");
                    return Ok(());
                }
            }
        }
    })
    .await;
}

#[tokio::test]
async fn subscription_without_records_receives_empty_events() {
    let options = Options { heartbeat: Duration::from_millis(20), ..Options::default() };
    with(options, async |_, at| {
        let name = at.stream(1).await?;
        let consumer = at.consumer(&at.arn(&name).await?, "c").await?;
        let from = position(ShardIteratorType::TrimHorizon, None)?;
        let mut subscription = subscribe(at, &consumer, from).await?;
        for _ in 0..3 {
            let Some(event) = event(&mut subscription).await? else {
                return Err(Failure("the subscription ended".to_owned()));
            };
            ensure_eq!((event.records.len(), event.millis_behind_latest), (0, 0));
        }
        Ok(())
    })
    .await;
}
