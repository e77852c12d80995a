//! Access to AWS: endpoints, HTTP proxies and CA certificates from the environment, the profile and JVM system
//! properties. Names under `aws.example` and `amazonaws.com` are not resolved.

use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::forwarding::{Wire, private_ca};
use crate::proxy::Proxy;
use crate::rig::*;

/// Host names that the embedded endpoints accept, and that only the proxy of a test resolves.
const KINESIS: &str = "host.docker.internal";
const DYNAMODB: &str = "host.containers.internal";

/// Writes a properties file without endpoints; `more` may add some.
fn properties(rig: &Rig, more: &str) -> PathBuf {
    let file = rig.folder.join("remote.properties");
    let text = format!(
        "executableName = {}\nstreamName = {STREAM}\napplicationName = {APPLICATION}\n\
         AWSCredentialsProvider = DefaultCredentialsProvider\ninitialPositionInStream = TRIM_HORIZON\n\
         idleTimeBetweenReadsInMillis = 200\nmetricsLevel = NONE\nschedulerInitializationBackoffTimeMillis = 50\n\
         {more}",
        rig.scripted("each")
    );
    std::fs::write(&file, text).unwrap();
    file
}

fn set(rig: &mut Rig, pairs: &[(&str, &str)]) {
    rig.environment.extend(pairs.iter().map(|(name, value)| (name.into(), value.into())));
}

/// The output of `check --json`, and its exit code.
async fn checked(rig: &Rig, file: &Path, before: &[&str]) -> (Option<i32>, Value) {
    let words = [before, &["check", file.to_str().unwrap(), "--json"]].concat();
    let mut daemon = rig.command(&words);
    let code = daemon.ended().await.code();
    (code, serde_json::from_str(&daemon.printed.join("\n")).unwrap())
}

async fn logging(rig: &mut Rig) -> Proxy {
    let proxy = Proxy::to(&[]).await;
    set(rig, &[("HTTPS_PROXY", &format!("http://{}", proxy.address))]);
    proxy
}

#[tokio::test(flavor = "multi_thread")]
async fn check_names_the_ca_certificates_in_use() {
    let bundle = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/tls/certificate.pem");
    let empty = "EMPTY";
    for (name, variables, named) in [
        ("bundle", &[("AWS_CA_BUNDLE", bundle), ("SSL_CERT_DIR", empty)][..], "AWS_CA_BUNDLE = "),
        ("file", &[("SSL_CERT_FILE", bundle)], "SSL_CERT_FILE = "),
        // Fewer CAs on purpose: the built-in ones do not replace them.
        ("folder", &[("SSL_CERT_DIR", empty)], "0 of SSL_CERT_DIR = "),
        ("system", &[], " of this system"),
        ("blank-file", &[("SSL_CERT_FILE", "")], " of this system"),
        ("blank-folder", &[("SSL_CERT_FILE", " "), ("SSL_CERT_DIR", " ")], " of this system"),
    ] {
        let mut rig = Rig::start(&format!("certificates-{name}")).await;
        let folder = rig.folder.join("certificates").display().to_string();
        std::fs::create_dir(&folder).unwrap();
        for (name, value) in variables {
            set(&mut rig, &[(name, if *value == empty { &folder } else { value })]);
        }
        let file = properties(&rig, "regionName = us-east-1\n");
        let (code, shown) = checked(&rig, &file, &[]).await;
        let text = shown["caCertificates"].as_str().unwrap();
        assert!(code == Some(0) && text.contains(named), "{name}: {text}");
        assert!(!text.contains("built in"), "{name}: {text}");
        let mut table = rig.command(&["check", file.to_str().unwrap()]);
        assert_eq!(table.ended().await.code(), Some(0));
        assert!(table.printed.contains(&format!("CA certificates: {text}")), "{:?}", table.printed);
    }
}

/// Name, environment variables, lines of the properties file, and the host that is called.
type Case = (&'static str, &'static [(&'static str, &'static str)], &'static str, &'static str);

#[tokio::test(flavor = "multi_thread")]
async fn fips_and_dual_stack_variables_select_the_endpoints() {
    let profile = "[default]\nregion = us-east-1\nuse_fips_endpoint = true\n";
    let cases: [Case; 6] = [
        ("fips", &[("AWS_USE_FIPS_ENDPOINT", "true")], "", "dynamodb-fips.us-east-1.amazonaws.com:443"),
        ("dual-stack", &[("AWS_USE_DUALSTACK_ENDPOINT", "TRUE")], "", "dynamodb.us-east-1.api.aws:443"),
        ("profile", &[("AWS_CONFIG_FILE", "CONFIG")], "", "dynamodb-fips.us-east-1.amazonaws.com:443"),
        (
            "file",
            &[("AWS_USE_FIPS_ENDPOINT", "true")],
            "dynamoDbClient.fipsEnabled = false\n",
            "dynamodb.us-east-1.amazonaws.com:443",
        ),
        (
            "property",
            &[("JAVA_TOOL_OPTIONS", "-Xmx1g -Daws.useFipsEndpoint=true"), ("AWS_USE_FIPS_ENDPOINT", "false")],
            "",
            "dynamodb-fips.us-east-1.amazonaws.com:443",
        ),
        ("none", &[], "", "dynamodb.us-east-1.amazonaws.com:443"),
    ];
    for (name, variables, more, host) in cases {
        let mut rig = Rig::start(&format!("endpoint-{name}")).await;
        let config = rig.folder.join("config");
        std::fs::write(&config, profile).unwrap();
        for (name, value) in variables {
            set(&mut rig, &[(name, &value.replace("CONFIG", config.to_str().unwrap()))]);
        }
        let proxy = logging(&mut rig).await;
        let file = properties(&rig, &format!("regionName = us-east-1\n{more}"));
        let mut daemon = rig.daemon(&file);
        proxy.until(host, |asked| asked.target == host).await;
        assert!(proxy.asked().iter().all(|asked| asked.method == "CONNECT"), "{:?}", proxy.asked());
        daemon.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn check_shows_environment_values_with_their_source() {
    let mut rig = Rig::start("sources").await;
    let config = rig.folder.join("config");
    let profile = "[profile team]\nregion = eu-west-3\nuse_dualstack_endpoint = false\nservices = mine\n\
                   [services mine]\ndynamodb =\n  endpoint_url = http://dynamodb.profile.example\n";
    std::fs::write(&config, profile).unwrap();
    set(
        &mut rig,
        &[
            ("AWS_CONFIG_FILE", config.to_str().unwrap()),
            ("AWS_PROFILE", "team"),
            ("AWS_ENDPOINT_URL_KINESIS", "http://kinesis.variable.example"),
            ("JAVA_TOOL_OPTIONS", "-Daws.useFipsEndpoint=false -Daws.maxAttempts=3"),
            ("HTTPS_PROXY", "http://me:hush@p.example:3128"),
        ],
    );
    let (code, shown) = checked(&rig, &properties(&rig, "regionName = eu-west-1\n"), &[]).await;
    assert_eq!(code, Some(0), "{shown:#}");
    let of = |name: &str| {
        let setting = &shown["settings"][name];
        (setting["value"].clone(), setting["source"].clone(), shown["set_by"][name].clone())
    };
    let text = |words: (&str, &str, &str)| (words.0.into(), words.1.into(), words.2.into());
    assert_eq!(
        of("kinesisEndpoint"),
        text(("http://kinesis.variable.example", "environment", "AWS_ENDPOINT_URL_KINESIS"))
    );
    assert_eq!(
        of("dynamoDBEndpoint"),
        text(("http://dynamodb.profile.example", "profile", "dynamodb.endpoint_url"))
    );
    assert_eq!(of("network.httpsProxy"), text(("http://p.example:3128", "environment", "HTTPS_PROXY")));
    assert_eq!(
        of("kinesisClient.fipsEnabled"),
        (false.into(), "system property".into(), "aws.useFipsEndpoint".into())
    );
    assert_eq!(
        of("kinesisClient.dualstackEnabled"),
        (false.into(), "profile".into(), "use_dualstack_endpoint".into())
    );
    assert_eq!(of("regionName"), ("eu-west-1".into(), "file".into(), Value::Null));
    let keys: Vec<_> = shown["warnings"].as_array().unwrap().iter().map(|one| one["key"].clone()).collect();
    assert!(keys.contains(&"-Daws.maxAttempts".into()), "{keys:?}");
    assert!(!shown.to_string().contains("hush"), "{shown:#}");
    let (_, shown) = checked(&rig, &properties(&rig, ""), &[]).await;
    assert_eq!(shown["settings"]["regionName"]["source"], "profile");
    let (_, shown) = checked(&rig, &properties(&rig, ""), &["-Daws.region=eu-west-2"]).await;
    assert_eq!(shown["settings"]["regionName"]["value"], "eu-west-2");
    assert_eq!(shown["set_by"]["regionName"], "aws.region");
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_environment_value_is_rejected_with_its_name() {
    let cases = [
        ("AWS_USE_FIPS_ENDPOINT", "yes", "AWS_USE_FIPS_ENDPOINT"),
        ("AWS_ENDPOINT_URL", "localhost:4566", "AWS_ENDPOINT_URL"),
        ("AWS_CA_BUNDLE", "/no/such/ca.pem", "network.caBundle"),
    ];
    for (name, value, key) in cases {
        let mut rig = Rig::start("unusable").await;
        set(&mut rig, &[(name, value)]);
        let file = properties(&rig, "regionName = us-east-1\n");
        let (code, shown) = checked(&rig, &file, &[]).await;
        assert_eq!((code, &shown["errors"][0]["key"]), (Some(78), &key.into()), "{shown:#}");
        let mut daemon = rig.daemon(&file);
        assert_eq!(daemon.ended().await.code(), Some(78), "{}", rig.daemon_log());
        assert!(rig.daemon_log().contains(name), "{}", rig.daemon_log());
    }
    let mut rig = Rig::start("fips-endpoint").await;
    set(&mut rig, &[("AWS_USE_FIPS_ENDPOINT", "true")]);
    let (code, shown) = checked(&rig, &rig.properties("cat", ""), &[]).await;
    assert_eq!(code, Some(78), "{shown:#}");
    assert_eq!(shown["errors"].as_array().unwrap().len(), 2, "one for each client: {shown:#}");
}

/// Both endpoints over TLS with a private CA, under names that only the proxy resolves.
async fn behind_proxy(rig: &Rig) -> (Proxy, [Wire; 2]) {
    let bare = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let kinesis = Wire::of_private_ca(&bare(&rig.url)).await;
    let dynamodb = Wire::of_private_ca(&bare(&rig.tables.url())).await;
    let address = |wire: &Wire| wire.url.replace("https://localhost", "127.0.0.1");
    let proxy = Proxy::to(&[(KINESIS, &address(&kinesis)), (DYNAMODB, &address(&dynamodb))]).await;
    (proxy, [kinesis, dynamodb])
}

fn remote(more: &str) -> String {
    format!(
        "regionName = us-east-1\nkinesisEndpoint = https://{KINESIS}\ndynamoDBEndpoint = https://{DYNAMODB}\n{more}"
    )
}

#[tokio::test(flavor = "multi_thread")]
async fn polling_and_fan_out_work_through_a_proxy() {
    for mode in ["POLLING", "FANOUT"] {
        let mut rig = Rig::start(&format!("proxy-{mode}")).await;
        rig.stream(1).await;
        rig.put(&[("k".to_owned(), b"one".to_vec())]).await;
        let (proxy, _wires) = behind_proxy(&rig).await;
        set(
            &mut rig,
            &[
                ("HTTPS_PROXY", &format!("http://me:hu%40sh@{}", proxy.address)),
                ("AWS_CA_BUNDLE", private_ca().to_str().unwrap()),
                ("RUST_LOG", "trace"),
            ],
        );
        let file = properties(&rig, &remote(&format!("retrievalMode = {mode}\n")));
        let mut daemon = rig.daemon(&file);
        rig.until("a record", |log| count(log) == 1).await;
        assert_eq!(daemon.stop().await, Some(0));
        let asked = proxy.asked();
        for host in [KINESIS, DYNAMODB] {
            let to = format!("{host}:443");
            assert!(asked.iter().any(|one| one.target == to), "{mode}: {asked:?}");
        }
        // Base64 of me:hu@sh.
        let authorization = "bWU6aHVAc2g=";
        let expected = Some(format!("Basic {authorization}"));
        assert!(asked.iter().all(|one| one.authorization == expected), "{asked:?}");
        let log = std::fs::read_to_string(&daemon.stderr).unwrap();
        for secret in ["hu@sh", "hu%40sh", authorization] {
            assert!(!log.contains(secret), "{mode}: {secret} is in the log");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn padded_certificate_variables_name_files_and_folders() {
    for (name, variable) in [("file", "SSL_CERT_FILE"), ("folder", "SSL_CERT_DIR")] {
        let mut rig = Rig::start(&format!("padded-{name}")).await;
        rig.stream(1).await;
        rig.put(&[("k".to_owned(), b"one".to_vec())]).await;
        let (proxy, _wires) = behind_proxy(&rig).await;
        let folder = rig.folder.join("certificates");
        std::fs::create_dir(&folder).unwrap();
        let file = folder.join("ca.pem");
        std::fs::copy(private_ca(), &file).unwrap();
        let place = if variable == "SSL_CERT_DIR" { folder } else { file };
        let blank = if variable == "SSL_CERT_DIR" { "SSL_CERT_FILE" } else { "SSL_CERT_DIR" };
        let padded = format!("{}\r", place.display());
        set(&mut rig, &[("HTTPS_PROXY", &proxy.address), (variable, &padded), (blank, " ")]);
        let mut daemon = rig.daemon(&properties(&rig, &remote("retrievalMode = POLLING\n")));
        rig.until("a record", |log| count(log) == 1).await;
        assert_eq!(daemon.stop().await, Some(0), "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn http_endpoints_are_called_through_the_http_proxy() {
    let mut rig = Rig::start("proxy-http").await;
    rig.stream(1).await;
    rig.put(&[("k".to_owned(), b"one".to_vec())]).await;
    let bare = |url: String| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
    let (kinesis, dynamodb) = (bare(rig.url.clone()), bare(rig.tables.url()));
    let proxy = Proxy::to(&[(KINESIS, &kinesis), (DYNAMODB, &dynamodb)]).await;
    let (host, port) = proxy.address.split_once(':').unwrap();
    let options = format!("-Dhttp.proxyHost={host} -Dhttp.proxyPort={port} -Dhttp.proxyUser=me");
    set(&mut rig, &[("JAVA_TOOL_OPTIONS", &options), ("HTTPS_PROXY", "http://127.0.0.1:9")]);
    let file = properties(&rig, &remote("retrievalMode = POLLING\n").replace("https://", "http://"));
    let mut daemon = rig.daemon(&file);
    rig.until("a record", |log| count(log) == 1).await;
    assert_eq!(daemon.stop().await, Some(0));
    let asked = proxy.asked();
    assert!(asked.iter().any(|one| one.target.starts_with(&format!("http://{KINESIS}"))), "{asked:?}");
    assert!(asked.iter().all(|one| one.authorization.as_deref() == Some("Basic bWU6")), "{asked:?}");
}

/// Whether the error of a log line contains a name.
fn names(name: &str) -> impl Fn(&Value) -> bool {
    move |line| line["error"].as_str().is_some_and(|error| error.contains(name))
}

#[tokio::test(flavor = "multi_thread")]
async fn no_proxy_host_is_called_directly() {
    let mut rig = Rig::start("no-proxy").await;
    let proxy = logging(&mut rig).await;
    set(&mut rig, &[("NO_PROXY", ".aws.example")]);
    let nowhere = remote("").replace(DYNAMODB, "dynamodb.aws.example");
    let mut daemon = rig.daemon(&properties(&rig, &nowhere));
    rig.logged_where("start_failed", names("https://dynamodb.aws.example")).await;
    daemon.stop().await;
    assert_eq!(proxy.asked(), []);
}

#[tokio::test(flavor = "multi_thread")]
async fn rejecting_proxy_is_named_with_the_endpoint() {
    let mut rig = Rig::start("proxy-refuses").await;
    let proxy = logging(&mut rig).await;
    let mut daemon = rig.daemon(&properties(&rig, &remote("")));
    let line = rig.logged_where("start_failed", names(&format!("https://{DYNAMODB}"))).await;
    assert!(names(&proxy.address)(&line) && names("HTTPS_PROXY")(&line), "{line}");
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_region_is_reported_with_its_host() {
    let rig = Rig::start("no-region").await;
    let mut daemon = rig.daemon(&properties(&rig, "regionName = eu-centrl-1\n"));
    rig.logged_where("start_failed", names("https://dynamodb.eu-centrl-1.amazonaws.com")).await;
    daemon.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_ca_is_reported_with_the_remedy() {
    let mut rig = Rig::start("unknown-ca").await;
    let (proxy, _wires) = behind_proxy(&rig).await;
    let (name, value) = crate::forwarding::trust();
    rig.environment.push((name, value));
    set(&mut rig, &[("https_proxy", &proxy.address)]);
    let mut daemon = rig.daemon(&properties(&rig, &remote("")));
    let line = rig.logged_where("start_failed", names("UnknownIssuer")).await;
    assert!(names("AWS_CA_BUNDLE")(&line), "{line}");
    daemon.stop().await;
}
