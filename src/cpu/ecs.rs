//! CPU utilisation of a container by the metadata of its ECS task, version 4. In KCL: `EcsCpuWorkerMetric`.
//!
//! The containers of a task share its CPUs by their weights. Without weights a container has no share: Java
//! divides 0 by 0 then, and its row is never written. Here such a task has no gauge.

use std::io;
use std::time::Duration;

use serde_json::Value;
use tracing::warn;

use super::http::{self, Limits, Request};
use super::reading::{fault, of_limit, usable};

/// Java sets no timeouts. The metadata are read every second, from the same machine.
const LIMITS: Limits = Limits { connect: Duration::from_secs(2), whole: Duration::from_secs(2) };

/// Weight of a container that is not listed.
const UNLISTED: f64 = 2.0;

#[derive(Debug)]
pub(super) struct Ecs {
    uri: String,
    /// Read once, as in Java.
    allowed: Option<Allowed>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
struct Allowed {
    /// Number of CPUs of the machine.
    online: f64,
    /// Number of CPUs that the container is granted, including fractions.
    limit: f64,
}

impl Ecs {
    /// An endpoint that does not answer yet is accepted, since it may answer later; an answer without a share
    /// is not.
    pub(super) async fn find(uri: &str) -> io::Result<Self> {
        let mut ecs = Self { uri: uri.trim_end_matches('/').to_owned(), allowed: None };
        match ecs.get("/stats").await {
            Ok(stats) => match ecs.allowed(&stats).await {
                Ok(Some(allowed)) => ecs.allowed = Some(allowed),
                Ok(None) => return Err(fault("the metadata of the ECS task contains no CPU limit for it")),
                Err(error) => warn!(event = "cpu_unknown", %error,
                    "CPU limit of the ECS task is not known yet"),
            },
            Err(error) => warn!(event = "cpu_unknown", %error,
                "CPU utilisation of the ECS task is not known yet"),
        }
        Ok(ecs)
    }

    pub(super) async fn measure(&mut self) -> io::Result<f64> {
        let stats = self.get("/stats").await?;
        let allowed = match self.allowed {
            Some(allowed) => allowed,
            None => self
                .allowed(&stats)
                .await?
                .ok_or_else(|| fault("the metadata of the ECS task contains no CPU limit"))?,
        };
        self.allowed = Some(allowed);
        percent(&stats, allowed)
    }

    /// None if the metadata contain no share.
    async fn allowed(&self, stats: &Value) -> io::Result<Option<Allowed>> {
        let online = number(stats, "/cpu_stats/online_cpus").and_then(usable);
        let online = online.ok_or_else(|| fault(format!("{}/stats contains no CPU statistics", self.uri)))?;
        let task = self.get("/task").await?;
        let own = self.get("").await?;
        Ok(limit(&task, &own, online).map(|limit| Allowed { online, limit }))
    }

    async fn get(&self, path: &str) -> io::Result<Value> {
        let url = format!("{}{path}", self.uri);
        let body = http::body(&Request { method: "GET", url: &url, headers: &[] }, LIMITS).await?;
        serde_json::from_slice(&body).map_err(|error| fault(format!("{url}: {error}")))
    }
}

fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path).and_then(Value::as_f64)
}

/// The container's share, among the containers of its task, of the CPUs that the task may use.
fn limit(task: &Value, own: &Value, online: f64) -> Option<f64> {
    let whole = number(task, "/Limits/CPU").unwrap_or(online);
    let weight = |container: &Value| number(container, "/Limits/CPU").unwrap_or(0.0);
    let containers = task.get("Containers").and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
    let id = own.get("DockerId").and_then(Value::as_str);
    let listed = containers
        .iter()
        .find(|container| id.is_some() && container.get("DockerId").and_then(Value::as_str) == id);
    let sum: f64 = containers.iter().map(weight).sum();
    usable(listed.map_or(UNLISTED, weight) / sum * whole)
}

/// The metadata contain the counters of the last two samples, so no state is kept. The counters of the
/// earlier sample are 0 at first.
fn percent(stats: &Value, allowed: Allowed) -> io::Result<f64> {
    let count = |path| stats.pointer(path).and_then(Value::as_u64).unwrap_or(0);
    let used = (count("/precpu_stats/cpu_usage/total_usage"), count("/cpu_stats/cpu_usage/total_usage"));
    let all = (count("/precpu_stats/system_cpu_usage"), count("/cpu_stats/system_cpu_usage"));
    if (used.0, all.0) == (0, 0) {
        return Ok(0.0);
    }
    match (used.1.checked_sub(used.0), all.1.checked_sub(all.0)) {
        (_, Some(0)) => Ok(100.0),
        (Some(used), Some(all)) => Ok(of_limit(used as f64 / all as f64 * allowed.online, allowed.limit)),
        (None, _) | (_, None) => Err(fault("the CPU counters of ECS decreased")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Reply, Server, refusing};
    use super::super::{Gauge, Surroundings, detect};
    use super::*;
    use serde_json::json;
    use tokio::time::Instant;

    fn stats(used: [u64; 2], all: [u64; 2]) -> Value {
        json!({
            "precpu_stats": { "cpu_usage": { "total_usage": used[0] }, "system_cpu_usage": all[0] },
            "cpu_stats": {
                "cpu_usage": { "total_usage": used[1] }, "system_cpu_usage": all[1], "online_cpus": 4,
            },
        })
    }

    fn task(limits: &Value, weights: [&Value; 2]) -> Value {
        json!({ "Limits": limits, "Containers": [
            { "DockerId": "a", "Limits": weights[0] }, { "DockerId": "b", "Limits": weights[1] },
        ]})
    }

    fn cpu(count: f64) -> Value {
        json!({ "CPU": count, "Memory": 512 })
    }

    #[test]
    fn container_has_its_share_of_the_task() {
        let (own, none) = (json!({ "DockerId": "b" }), json!({}));
        let weighed = |limits: &Value| task(limits, [&cpu(10.0), &cpu(30.0)]);
        assert_eq!(limit(&weighed(&cpu(8.0)), &own, 4.0), Some(6.0));
        assert_eq!(limit(&weighed(&cpu(0.5)), &own, 4.0), Some(0.375));
        assert_eq!(limit(&weighed(&json!({ "Memory": 512 })), &own, 4.0), Some(3.0));
        assert_eq!(limit(&weighed(&Value::Null), &own, 4.0), Some(3.0));
        assert_eq!(limit(&weighed(&cpu(8.0)), &none, 4.0), Some(0.4), "a container that isn't listed");
    }

    #[test]
    fn container_without_weights_has_no_share() {
        let (own, none) = (json!({ "DockerId": "b" }), json!({}));
        assert_eq!(limit(&task(&cpu(8.0), [&none, &none]), &own, 4.0), None);
        assert_eq!(limit(&task(&cpu(8.0), [&none, &none]), &none, 4.0), None);
        assert_eq!(limit(&task(&cpu(8.0), [&cpu(10.0), &none]), &own, 4.0), None);
        assert_eq!(limit(&task(&cpu(0.0), [&none, &cpu(30.0)]), &own, 4.0), None);
        assert_eq!(limit(&none, &none, 4.0), None);
    }

    #[test]
    fn utilisation_is_used_over_granted_cpus() {
        let of = |used, all| percent(&stats(used, all), Allowed { online: 4.0, limit: 2.0 }).ok();
        assert_eq!(of([100, 150], [1000, 1400]), Some(25.0));
        assert_eq!(of([100, 500], [1000, 1400]), Some(100.0), "a burst is capped");
        assert_eq!(of([0, 500], [0, 1400]), Some(0.0), "the first look");
        assert_eq!(of([100, 150], [1000, 1000]), Some(100.0), "no time for anything else");
        assert_eq!(of([0, 50], [1000, 1400]), Some(25.0));
        assert_eq!(of([100, 50], [1000, 1400]), None);
        assert_eq!(of([100, 150], [1000, 900]), None);
    }

    async fn serve(stats: Reply, task: &Value) -> Server {
        let own = Reply::ok(r#"{ "DockerId": "b" }"#);
        let task = Reply::chunked(&task.to_string());
        Server::start(vec![("GET /v4/x/stats ", stats), ("GET /v4/x/task ", task), ("GET /v4/x ", own)]).await
    }

    async fn found(url: &str) -> Option<Gauge> {
        let ecs = Some(format!("{url}/v4/x"));
        detect(&Surroundings { root: "nowhere".into(), ecs, ecs_old: true, imds: None }).await
    }

    #[tokio::test]
    async fn share_is_requested_once() {
        let answer = Reply::chunked(&stats([100, 150], [1000, 1400]).to_string());
        let server = serve(answer, &task(&cpu(2.0), [&cpu(10.0), &cpu(10.0)])).await;
        let mut gauge = found(&server.url).await.unwrap();
        assert_eq!(gauge.name(), "ECS task metadata");
        assert_eq!(gauge.measure(Instant::now()).await, Some(50.0));
        assert_eq!(gauge.measure(Instant::now()).await, Some(50.0));
        let paths: Vec<String> =
            server.asked().iter().map(|head| head.split(' ').nth(1).unwrap().to_owned()).collect();
        assert_eq!(paths, ["/v4/x/stats", "/v4/x/task", "/v4/x", "/v4/x/stats", "/v4/x/stats"]);
    }

    #[tokio::test]
    async fn task_without_weights_has_no_gauge() {
        let answer = Reply::ok(&stats([100, 150], [1000, 1400]).to_string());
        let server = serve(answer, &task(&cpu(2.0), [&json!({}), &json!({})])).await;
        assert!(found(&server.url).await.is_none());
    }

    #[tokio::test]
    async fn silent_endpoint_is_accepted_and_sampled_later() {
        let (_socket, nobody) = refusing();
        let good = Reply::ok(&stats([100, 150], [1000, 1400]).to_string());
        let weighed = task(&cpu(2.0), [&cpu(10.0), &cpu(10.0)]);
        let answers = serve(good, &weighed).await;
        let mut ecs = Ecs::find(&nobody).await.unwrap();
        assert!(ecs.measure().await.is_err());
        ecs.uri = format!("{}/v4/x", answers.url);
        assert_eq!(ecs.measure().await.unwrap(), 50.0);
    }

    #[tokio::test]
    async fn empty_metadata_are_no_sample() {
        let weighed = task(&cpu(2.0), [&cpu(10.0), &cpu(10.0)]);
        for answer in [Reply::status("500 Sorry"), Reply::ok("null"), Reply::ok("{"), Reply::ok("{}")] {
            let server = serve(answer, &weighed).await;
            let mut gauge = found(&server.url).await.unwrap();
            assert_eq!(gauge.measure(Instant::now()).await, None);
        }
    }
}
