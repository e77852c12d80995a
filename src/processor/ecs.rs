//! The use of a container of ECS, by the task metadata endpoint (version 4). In KCL: `EcsCpuWorkerMetric`.

use serde_json::Value;

use super::http;

/// What Docker gives a container that asks for nothing.
const SHARES: f64 = 2.0;

/// One container.
#[derive(Debug)]
pub(super) struct Ecs {
    base: String,
    /// Processors that it may use; asked once.
    limit: Option<f64>,
}

impl Ecs {
    pub(super) fn new(base: String) -> Self {
        Self { base: base.trim_end_matches('/').to_owned(), limit: None }
    }

    pub(super) async fn measure(&mut self) -> Option<f64> {
        let stats = self.ask("/stats").await?;
        let limit = match self.limit {
            Some(limit) => limit,
            None => {
                let (task, own) = (self.ask("/task").await?, self.ask("").await?);
                *self.limit.insert(limit(&task, &own, &stats)?)
            }
        };
        used(&stats, limit)
    }

    async fn ask(&self, path: &str) -> Option<Value> {
        serde_json::from_str(&http::get(&format!("{}{path}", self.base)).await?).ok()
    }
}

fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path)?.as_f64()
}

/// The task's processors, and of them what falls to this container by its shares.
fn limit(task: &Value, own: &Value, stats: &Value) -> Option<f64> {
    let all = number(task, "/Limits/CPU").or_else(|| number(stats, "/cpu_stats/online_cpus"))?;
    let shares = |container: &Value| number(container, "/Limits/CPU").unwrap_or(SHARES);
    let id = own.get("DockerId")?.as_str()?;
    let containers = task.get("Containers")?.as_array()?;
    let mine = containers.iter().find(|one| one.get("DockerId").and_then(Value::as_str) == Some(id))?;
    let limit = all * shares(mine) / containers.iter().map(shares).sum::<f64>();
    // Shares of 0 would be 0 of 0.
    (limit.is_finite() && limit > 0.0).then_some(limit)
}

fn used(stats: &Value, limit: f64) -> Option<f64> {
    let of = |name: &str| {
        let used = number(stats, &format!("/{name}/cpu_usage/total_usage")).unwrap_or(0.0);
        (used, number(stats, &format!("/{name}/system_cpu_usage")).unwrap_or(0.0))
    };
    let ((now, system_now), (before, system_before)) = (of("cpu_stats"), of("precpu_stats"));
    // The first figures of a container have none before them.
    if before == 0.0 && system_before == 0.0 {
        return Some(0.0);
    }
    let (used, system) = (now - before, system_now - system_before);
    if system <= 0.0 {
        return Some(100.0);
    }
    let processors = number(stats, "/cpu_stats/online_cpus")?;
    Some((used / system * processors / limit * 100.0).clamp(0.0, 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn stats(now: (u64, u64), before: (u64, u64)) -> Value {
        let of = |(used, system): (u64, u64)| json!({"cpu_usage": {"total_usage": used}, "system_cpu_usage": system, "online_cpus": 4});
        json!({"cpu_stats": of(now), "precpu_stats": of(before)})
    }

    #[test]
    fn a_container_has_its_share_of_the_tasks_processors() {
        let task = |mine: Value, other: Value| {
            json!({"Limits": {"CPU": 2.0}, "Containers": [
                {"DockerId": "a", "Limits": {"CPU": mine}}, {"DockerId": "b", "Limits": {"CPU": other}}]})
        };
        let own = json!({"DockerId": "a"});
        let some = stats((1, 1), (1, 1));
        assert_eq!(limit(&task(json!(256), json!(768)), &own, &some), Some(0.5));
        assert_eq!(limit(&task(json!(0), json!(0)), &own, &some), None, "nothing of nothing");
        let unlimited = json!({"Containers": [{"DockerId": "a"}]});
        assert_eq!(limit(&unlimited, &own, &some), Some(4.0));
        assert_eq!(limit(&unlimited, &json!({"DockerId": "x"}), &some), None);
    }

    #[test]
    fn use_is_what_was_used_of_what_may_be() {
        let close =
            |seen: Option<f64>, wanted: f64| assert!((seen.unwrap() - wanted).abs() < 1e-9, "{seen:?}");
        close(used(&stats((150, 2_000), (100, 1_000)), 0.5), 40.0);
        close(used(&stats((900, 2_000), (100, 1_000)), 0.5), 100.0);
        close(used(&stats((150, 2_000), (0, 0)), 0.5), 0.0);
        close(used(&stats((150, 1_000), (100, 1_000)), 0.5), 100.0);
    }
}
