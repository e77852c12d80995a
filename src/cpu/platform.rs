//! Detects the platform of this process. In KCL: `EcsResource`, `EksResource`, `Ec2Resource`.

use std::time::Duration;

use tracing::debug;

use super::http::{self, Limits, Request};
use super::reading::exists;
use super::surroundings::Surroundings;

/// Java waits 5 s for a connection and 5 s for data, twice. The metadata service answers within milliseconds:
/// one second to connect and two in all are enough, and a start elsewhere is delayed by at most 4 s.
pub(super) const LIMITS: Limits = Limits { connect: Duration::from_secs(1), whole: Duration::from_secs(2) };

const TOKEN: &str = "var/run/secrets/kubernetes.io/serviceaccount/token";

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Platform<'a> {
    /// The address of the task metadata; none if only the older metadata exist.
    Ecs(Option<&'a str>),
    Kubernetes,
    Ec2,
    Elsewhere,
}

/// The first platform that matches. EC2 comes last: the others run on it too, and its detection needs a
/// request.
pub(super) async fn find(surroundings: &Surroundings, limits: Limits) -> Platform<'_> {
    let ecs = surroundings.ecs.as_deref().filter(|uri| !uri.is_empty());
    if ecs.is_some() || surroundings.ecs_old {
        return Platform::Ecs(ecs);
    }
    if exists(&surroundings.root.join(TOKEN)).await {
        return Platform::Kubernetes;
    }
    match &surroundings.imds {
        Some(imds) if is_ec2(imds, limits).await => Platform::Ec2,
        Some(_) | None => Platform::Elsewhere,
    }
}

/// Whether the EC2 metadata service answers. Without a token the request is made as in IMDSv1, which some
/// instances still allow.
async fn is_ec2(imds: &str, limits: Limits) -> bool {
    let ttl = [("X-aws-ec2-metadata-token-ttl-seconds", "600")];
    let url = format!("{imds}/latest/api/token");
    let token = match http::body(&Request { method: "PUT", url: &url, headers: &ttl }, limits).await {
        Ok(token) => String::from_utf8(token).ok(),
        Err(error) => {
            debug!(%error, "failed to get a token for the instance metadata");
            None
        }
    };
    let header = token.as_deref().map(|token| ("X-aws-ec2-metadata-token", token.trim()));
    let url = format!("{imds}/latest/dynamic/instance-identity/document");
    match http::body(&Request { method: "GET", url: &url, headers: header.as_slice() }, limits).await {
        Ok(_) => true,
        Err(error) => {
            debug!(%error, "failed to read the instance metadata");
            false
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::made_up::{Reply, Server, Tree, refusing};
    use super::super::{Gauge, detect, detect_within};
    use super::*;

    const PUT: &str = "PUT /latest/api/token ";
    const GET: &str = "GET /latest/dynamic/instance-identity/document ";
    const STAT: (&str, &str) = ("proc/stat", "cpu 1 2 3 4 5\n");
    /// Timeouts for a service that never answers. Other requests do not use them, since the machine may be
    /// busy.
    const HASTY: Limits = Limits { connect: Duration::from_millis(50), whole: Duration::from_millis(50) };

    fn around(tree: &Tree, imds: &str) -> Surroundings {
        let imds = Some(imds.to_owned());
        Surroundings { root: tree.root().to_owned(), ecs: None, ecs_old: false, imds }
    }

    async fn ec2() -> Server {
        Server::start(vec![(PUT, Reply::ok("secret")), (GET, Reply::ok("{}"))]).await
    }

    fn name(gauge: Option<Gauge>) -> Option<&'static str> {
        gauge.map(|gauge| gauge.name())
    }

    #[tokio::test]
    async fn ec2_is_detected_with_a_token() {
        let (tree, server) = (Tree::new(&[STAT]), ec2().await);
        assert_eq!(name(detect(&around(&tree, &server.url)).await), Some("host /proc/stat"));
        let asked = server.asked();
        assert!(asked[0].starts_with(PUT) && asked[0].contains("token-ttl-seconds: 600\r\n"), "{asked:?}");
        assert!(asked[1].starts_with(GET) && asked[1].contains("metadata-token: secret\r\n"), "{asked:?}");
        assert_eq!(asked.len(), 2);
    }

    #[tokio::test]
    async fn ec2_is_detected_without_a_token() {
        let tree = Tree::new(&[STAT]);
        for none in [Reply::status("403 Forbidden"), Reply::Close(String::new())] {
            let server = Server::start(vec![(PUT, none), (GET, Reply::ok("{}"))]).await;
            assert_eq!(find(&around(&tree, &server.url), LIMITS).await, Platform::Ec2);
            assert!(!server.asked()[1].contains("metadata-token"), "{:?}", server.asked());
        }
    }

    #[tokio::test]
    async fn refusal_timeout_or_error_is_not_ec2() {
        let tree = Tree::new(&[STAT]);
        let (socket, url) = refusing();
        assert!(detect(&around(&tree, &url)).await.is_none());
        drop(socket);
        let hangs = Server::start(vec![("", Reply::Keep(String::new()))]).await;
        assert!(detect_within(&around(&tree, &hangs.url), HASTY).await.is_none());
        let denies = Server::start(vec![(PUT, Reply::ok("t")), (GET, Reply::status("401 No"))]).await;
        assert!(detect(&around(&tree, &denies.url)).await.is_none());
    }

    #[tokio::test]
    async fn disabled_metadata_service_is_not_called() {
        let tree = Tree::new(&[STAT]);
        assert!(detect(&Surroundings { imds: None, ..around(&tree, "") }).await.is_none());
    }

    #[tokio::test]
    async fn unmeasurable_ec2_instance_has_no_gauge() {
        let (tree, server) = (Tree::new(&[]), ec2().await);
        assert!(detect(&around(&tree, &server.url)).await.is_none());
    }

    #[tokio::test]
    async fn kubernetes_precedes_ec2_even_without_a_gauge() {
        let (tree, server) = (Tree::new(&[STAT, (TOKEN, "t")]), ec2().await);
        assert!(detect(&around(&tree, &server.url)).await.is_none());
        tree.write("sys/fs/cgroup/cgroup.controllers", "");
        tree.write("sys/fs/cgroup/cpu.max", "50000 100000");
        tree.write("sys/fs/cgroup/cpu.stat", "usage_usec 7");
        assert_eq!(name(detect(&around(&tree, &server.url)).await), Some("cgroup v2"));
        assert_eq!(server.asked(), Vec::<String>::new());
    }

    #[tokio::test]
    async fn ecs_precedes_all_even_without_a_gauge() {
        let (tree, server) = (Tree::new(&[STAT, (TOKEN, "t")]), ec2().await);
        let mut here = Surroundings { ecs_old: true, ..around(&tree, &server.url) };
        assert!(detect(&here).await.is_none());
        assert_eq!(find(&here, HASTY).await, Platform::Ecs(None));
        here.ecs = Some("http://127.0.0.1:1/v4".to_owned());
        here.ecs_old = false;
        assert_eq!(find(&here, HASTY).await, Platform::Ecs(here.ecs.as_deref()));
        here.ecs = Some(String::new());
        assert_eq!(find(&here, HASTY).await, Platform::Kubernetes);
        assert_eq!(server.asked(), Vec::<String>::new());
    }
}
