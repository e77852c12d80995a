//! Sends metrics to CloudWatch with `PutMetricData`.

use aws_sdk_cloudwatch::types::{Dimension, MetricDatum, StandardUnit, StatisticSet};
use aws_smithy_types::error::display::DisplayErrorContext;

use crate::metrics::cloudwatch::{Key, Publisher, Statistics, Unit};
use crate::shard::BoxFuture;

/// Sends metrics to one namespace.
#[derive(Debug, Clone)]
pub struct CloudWatch {
    /// The client.
    pub client: aws_sdk_cloudwatch::Client,
    /// `applicationName`.
    pub namespace: String,
}

fn datum((key, values): &(Key, Statistics)) -> MetricDatum {
    let dimensions =
        key.dimensions.iter().map(|(name, value)| Dimension::builder().name(*name).value(value).build());
    let unit = match key.unit {
        Unit::Count => StandardUnit::Count,
        Unit::Milliseconds => StandardUnit::Milliseconds,
        Unit::Bytes => StandardUnit::Bytes,
        Unit::None => StandardUnit::None,
    };
    let statistics = StatisticSet::builder()
        .sample_count(values.count)
        .sum(values.sum)
        .minimum(values.least)
        .maximum(values.most)
        .build();
    MetricDatum::builder()
        .metric_name(&key.name)
        .unit(unit)
        .set_dimensions(Some(dimensions.collect()))
        .statistic_values(statistics)
        .build()
}

impl Publisher for CloudWatch {
    fn put<'a>(&'a self, data: &'a [(Key, Statistics)]) -> BoxFuture<'a, Result<(), String>> {
        let data = data.iter().map(datum).collect();
        let call = self.client.put_metric_data().namespace(&self.namespace).set_metric_data(Some(data));
        Box::pin(async move {
            call.send().await.map(|_| ()).map_err(|error| DisplayErrorContext(&error).to_string())
        })
    }
}
