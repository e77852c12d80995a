//! Checks of the settings that concern the clients and the stream's ARN.

use super::super::Remark;
use super::super::arn::stream_of_arn;
use super::super::keys::client::{self, CLIENTS, Service};
use super::super::keys::{kcl, own};
use super::super::streams;
use super::super::value::Value;
use super::Maker;

impl Maker {
    /// Checks `streamArn` against the region of the requests.
    pub(super) fn check_region(&mut self) {
        let by_arn = self.settings.of(own::USE_STREAM_ARN);
        if by_arn && self.settings.of(kcl::STREAM_ARN).is_none() && streams::arns(&self.settings).is_empty() {
            let text =
                format!("{} = true needs streamArn, or an ARN in {}", own::USE_STREAM_ARN, own::STREAMS);
            self.fault(own::USE_STREAM_ARN.name(), text);
        }
        let region = self.settings.of(client::KINESIS_REGION);
        if let Some(text) = region.and_then(|region| streams::elsewhere(&self.settings, &region)) {
            self.own_fault(own::STREAMS, text);
        }
        let Some(stream) = self.settings.of(kcl::STREAM_ARN).and_then(|arn| stream_of_arn(&arn)) else {
            return;
        };
        let Some(region) = self.settings.of(client::KINESIS_REGION).filter(|it| *it != stream.region) else {
            return;
        };
        let other = format!("streamArn names the region {}, but requests go to {region}", stream.region);
        if by_arn {
            self.fault(kcl::STREAM_ARN.name(), format!("{other} (set regionName to the region of the ARN)"));
        } else {
            self.warn(
                kcl::STREAM_ARN.name(),
                format!(
                    "{other}: only the stream name of the ARN is used, as in Java, and a stream of another region is \
                     refused at the start"
                ),
            );
        }
    }

    /// Dual-stack or FIPS with an endpoint override: the SDKs for Java and Rust refuse every call.
    pub(super) fn check_endpoints(&mut self) {
        let metrics = self.settings.of(kcl::METRICS_LEVEL) != "NONE";
        for (prefix, service) in CLIENTS.iter().filter(|(_, one)| metrics || *one != Service::CloudWatch) {
            let held = |name| self.bean.clients.get(&(*service, name));
            let Some(endpoint) = held("endpointOverride") else { continue };
            for name in ["fipsEnabled", "dualstackEnabled"] {
                let Some(held) = held(name).filter(|held| held.value == Value::Bool(true)) else { continue };
                let text = format!(
                    "{} = true cannot be combined with {} = {} (leave the endpoint out, or set \
                     {prefix}.{name} = false)",
                    held.key, endpoint.key, endpoint.value
                );
                let line = endpoint.source.line().or(held.source.line());
                let key = Some(held.key.clone());
                self.bean.faults.push(Remark { line, key, text });
            }
        }
    }
}
