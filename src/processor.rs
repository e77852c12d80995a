//! How busy the processors are that this worker runs on, for a leader that balances by it.
//!
//! Where it can be told is found out once: in a container of ECS, in one of Kubernetes, on a machine of EC2;
//! elsewhere not, and the fleet goes by throughput. Every wait is bounded. In KCL: `WorkerMetricsSelector`,
//! `OperatingRangeDataProvider` and the metrics of package `worker.metric.impl`.

use std::path::PathBuf;

use tokio::time::Instant;
use tracing::debug;

mod cgroup;
mod ecs;
mod host;
mod http;

/// What tells where this process runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surroundings {
    /// `/`: what the system tells of itself is looked up below it.
    pub root: PathBuf,
    /// `ECS_CONTAINER_METADATA_URI_V4`.
    pub ecs: Option<String>,
    /// `ECS_CONTAINER_METADATA_URI`: in ECS, but not so that its use can be told.
    pub old_ecs: bool,
    /// Where the metadata of EC2 is; none if it must not be asked (`AWS_EC2_METADATA_DISABLED`).
    pub ec2: Option<String>,
}

impl Surroundings {
    /// Those of this process.
    pub fn of_process() -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let barred = variable("AWS_EC2_METADATA_DISABLED").is_some_and(|is| is.eq_ignore_ascii_case("true"));
        Self {
            root: PathBuf::from("/"),
            ecs: variable("ECS_CONTAINER_METADATA_URI_V4"),
            old_ecs: variable("ECS_CONTAINER_METADATA_URI").is_some(),
            ec2: (!barred).then(|| "http://169.254.169.254".to_owned()),
        }
    }
}

/// Where the figures come from.
#[derive(Debug)]
enum Source {
    Ecs(ecs::Ecs),
    Cgroup(cgroup::Cgroup),
    Host(host::Host),
}

/// Measures how busy the processors are.
#[derive(Debug)]
pub struct Gauge {
    source: Source,
    failing: bool,
}

/// Finds a gauge, if there is one here.
pub async fn detect(surroundings: &Surroundings) -> Option<Gauge> {
    let gauge = |source| Some(Gauge { source, failing: false });
    let root = &surroundings.root;
    match &surroundings.ecs {
        Some(metadata) => return gauge(Source::Ecs(ecs::Ecs::new(metadata.clone()))),
        None if surroundings.old_ecs => return None,
        None => {}
    }
    if root.join("var/run/secrets/kubernetes.io/serviceaccount/token").exists() {
        return cgroup::Cgroup::find(root).and_then(|found| gauge(Source::Cgroup(found)));
    }
    let metadata = surroundings.ec2.as_ref()?;
    (http::is_ec2(metadata).await && root.join("proc/stat").exists())
        .then(|| gauge(Source::Host(host::Host::new(root))))?
}

impl Gauge {
    /// What is measured.
    pub fn name(&self) -> &'static str {
        match &self.source {
            Source::Ecs(_) => "the task metadata of ECS",
            Source::Cgroup(_) => "the control group",
            Source::Host(_) => "/proc/stat",
        }
    }

    /// The use since the last call, in percent; the first call gives 0. None if it can't be told now.
    pub async fn measure(&mut self, now: Instant) -> Option<f64> {
        let measured = match &mut self.source {
            Source::Ecs(ecs) => ecs.measure().await,
            Source::Cgroup(cgroup) => cgroup.measure(now),
            Source::Host(host) => host.measure(),
        };
        let sound = |percent: &f64| percent.is_finite() && (0.0..=100.0).contains(percent);
        let valid = measured.ok_or("it can't be read").and_then(|percent| {
            if sound(&percent) { Ok(percent) } else { Err("it is not between 0 and 100") }
        });
        if let Err(why) = valid
            && !std::mem::replace(&mut self.failing, true)
        {
            debug!(by = self.name(), why, "this worker's load can't be told");
        }
        self.failing = valid.is_err();
        valid.ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    /// A made-up tree of files, removed in the end.
    pub(super) struct Tree(pub(super) PathBuf);

    impl Tree {
        pub(super) fn new(files: &[(&str, &str)]) -> Self {
            static NEXT: AtomicU32 = AtomicU32::new(0);
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            let root = std::env::temp_dir().join(format!("multilangd-load-{}-{number}", std::process::id()));
            let tree = Self(root);
            files.iter().for_each(|(path, text)| tree.write(path, text));
            tree
        }

        pub(super) fn write(&self, path: &str, text: &str) {
            let path = self.0.join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _left_behind = std::fs::remove_dir_all(&self.0).is_err();
        }
    }

    fn nowhere(tree: &Tree) -> Surroundings {
        Surroundings { root: tree.0.clone(), ecs: None, old_ecs: false, ec2: None }
    }

    const TOKEN: (&str, &str) = ("var/run/secrets/kubernetes.io/serviceaccount/token", "t");

    #[tokio::test]
    async fn containers_are_found_before_machines_and_a_strange_place_has_no_gauge() {
        let tree = Tree::new(&[("proc/stat", "cpu 1 1 1 1 1\n")]);
        assert!(detect(&nowhere(&tree)).await.is_none());
        let ecs = Surroundings { ecs: Some("http://127.0.0.1:1".into()), ..nowhere(&tree) };
        assert_eq!(detect(&ecs).await.unwrap().name(), "the task metadata of ECS");
        assert!(detect(&Surroundings { old_ecs: true, ..nowhere(&tree) }).await.is_none());
        let pod = Tree::new(&[TOKEN, ("sys/fs/cgroup/cgroup.controllers", "cpu")]);
        assert_eq!(detect(&nowhere(&pod)).await.unwrap().name(), "the control group");
        let bare = Tree::new(&[TOKEN]);
        assert!(detect(&nowhere(&bare)).await.is_none());
        let unreachable = Surroundings { ec2: Some("http://127.0.0.1:1".into()), ..nowhere(&tree) };
        assert!(detect(&unreachable).await.is_none());
    }

    #[tokio::test]
    async fn what_makes_no_sense_is_no_sample() {
        let tree = Tree::new(&[("proc/stat", "cpu 0 0 0 0 0\n")]);
        let mut gauge = Gauge { source: Source::Host(host::Host::new(&tree.0)), failing: false };
        let now = Instant::now();
        assert_eq!(gauge.measure(now).await, Some(0.0));
        tree.write("proc/stat", "rubbish");
        assert_eq!(gauge.measure(now).await, None);
        tree.write("proc/stat", "cpu 25 0 25 50 0\n");
        assert_eq!(gauge.measure(now).await, Some(50.0));
    }
}
