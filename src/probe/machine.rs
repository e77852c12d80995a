//! Lines about credentials, endpoints, the clock, open files and processes.

use super::judge::{Judgement, judge};
use super::port::{Found, Reply};
use super::report::{Line, Section, Status};
use crate::clock::TOLERATED_SKEW_MILLIS;
use crate::config::sdk::network::Network;
use crate::exit::Exit;
use crate::limits::Limits;

/// The endpoint of a service: the origin that was called, or none, and the region.
pub fn endpoint(service: &str, origin: Option<&str>, region: Option<&str>, network: &Network) -> Line {
    let proxy = origin.and_then(|origin| network.proxy(origin));
    let way = proxy.map_or("no proxy".to_owned(), |proxy| format!("proxy {proxy} of {}", proxy.source));
    let region = region.unwrap_or("the default region");
    let text = match origin {
        Some(origin) => format!("{origin}, {region}, {way}"),
        None => format!("{region}, not called"),
    };
    Line::of(Section::Endpoints, Status::Ok, service, text)
}

/// The CA certificates in use.
pub fn certificates(in_use: impl Into<String>) -> Line {
    Line::of(Section::Endpoints, Status::Ok, "CA certificates", in_use)
}

/// The source of the credentials of some services, or why there are none.
pub fn credentials(services: &str, source: &Result<String, String>) -> Line {
    let (status, text) = match source {
        Ok(place) => (Status::Ok, format!("loaded from {place}")),
        Err(why) => (Status::Failed(Exit::Config), why.clone()),
    };
    Line::of(Section::Credentials, status, services, text)
}

/// The identity. The daemon does not ask for it, so that it is no failure if it is not known.
pub fn identity(reply: &Reply) -> Line {
    let (status, text) = match (reply, judge(reply)) {
        (Reply::Done(Found::Identity { account, arn }), _) => {
            (Status::Ok, format!("{arn}, account {account}"))
        }
        (_, Judgement::Credentials(why)) => (Status::Failed(Exit::Denied), why),
        (Reply::Unreached(why), _) => (Status::NotChecked, why.clone()),
        (Reply::Refused { code, message, .. }, _) => (Status::NotChecked, format!("{code}: {message}")),
        (Reply::Done(_), _) => (Status::NotChecked, "STS returned no identity".to_owned()),
    };
    Line::of(Section::Credentials, status, "identity", text)
}

/// This machine's clock, which is that many milliseconds ahead of the dates of DynamoDB.
pub fn clock(ahead_millis: Option<i64>) -> Line {
    let (status, text) = match ahead_millis {
        None => (Status::NotChecked, "no response of DynamoDB had a date".to_owned()),
        Some(ahead) if ahead.abs() > TOLERATED_SKEW_MILLIS => {
            let (seconds, way) = (ahead.abs() / 1_000, if ahead > 0 { "ahead of" } else { "behind" });
            let text = format!(
                "{seconds} s {way} DynamoDB: other workers misjudge the age of the worker metrics, and AWS rejects \
                 requests from 5 minutes on (synchronise the clock with NTP)"
            );
            (Status::Warning, text)
        }
        Some(_) => (Status::Ok, format!("within {} s of DynamoDB", TOLERATED_SKEW_MILLIS / 1_000)),
    };
    Line::of(Section::Machine, status, "clock", text)
}

/// Open files and processes against the open shards, all of which one worker may have to own.
pub fn limits(limits: &Limits, open_shards: Option<usize>) -> Line {
    let leases = limits.leases(1);
    let text = format!("{limits}; they suffice for {leases} leases");
    let (status, text) = match open_shards {
        Some(shards) if shards > leases => {
            let text = format!(
                "{text}, and the stream has {shards} open shards (raise the limits, or run more workers)"
            );
            (Status::Warning, text)
        }
        Some(shards) => (Status::Ok, format!("{text}, the stream has {shards} open shards")),
        None => (Status::Ok, text),
    };
    Line::of(Section::Machine, status, "limits", text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clock_off_by_more_than_five_seconds_is_a_warning() {
        for (ahead, status) in [
            (Some(0), Status::Ok),
            (Some(5_000), Status::Ok),
            (Some(-5_000), Status::Ok),
            (Some(5_001), Status::Warning),
            (Some(-60_000), Status::Warning),
            (None, Status::NotChecked),
        ] {
            assert_eq!(clock(ahead).status, status, "{ahead:?}");
        }
        assert!(clock(Some(-61_000)).text.starts_with("61 s behind"));
    }

    #[test]
    fn limits_below_the_open_shards_are_a_warning() {
        let few = Limits { original_files: None, files: 1_024, processes: None };
        assert_eq!(limits(&few, Some(192)).status, Status::Ok);
        assert_eq!(limits(&few, Some(193)).status, Status::Warning);
        assert_eq!(limits(&few, None).status, Status::Ok);
    }

    #[test]
    fn unknown_identity_is_no_failure_unless_credentials_are_rejected() {
        let refused = |code: &str| Reply::Refused {
            code: code.to_owned(),
            message: String::new(),
            service_fault: false,
        };
        assert_eq!(identity(&Reply::Unreached("no route".to_owned())).status, Status::NotChecked);
        assert_eq!(identity(&refused("AccessDenied")).status, Status::NotChecked);
        assert_eq!(identity(&refused("InvalidClientTokenId")).status, Status::Failed(Exit::Denied));
    }

    #[test]
    fn endpoint_names_region_and_proxy() {
        let line = endpoint("Kinesis", Some("https://h:1"), Some("eu-west-1"), &Network::default());
        assert_eq!(line.text, "https://h:1, eu-west-1, no proxy");
        let line = endpoint("CloudWatch", None, None, &Network::default());
        assert_eq!(line.text, "the default region, not called");
    }
}
