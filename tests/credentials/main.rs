//! Sources of credentials: the binary with each provider, and a loopback server that acts as STS, SSO, instance
//! and container metadata, and as the DynamoDB that sees which key signed a call.
//!
//! The DynamoDB denies access, which ends the daemon at once with exit code 77.
#![cfg(feature = "local")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    missing_docs,
    unreachable_pub,
    reason = "test code"
)]

mod issuer;
mod missing;

use std::path::PathBuf;
use std::time::Duration;

use issuer::{Issuer, Request};
use tokio::process::Command;
use tokio::time::timeout;

/// Turns a hang into a failure.
const LIMIT: Duration = Duration::from_secs(60);

/// One run of the daemon.
struct Run {
    issuer: Issuer,
    folder: PathBuf,
    arguments: Vec<String>,
    environment: Vec<(String, String)>,
    lines: String,
    region: bool,
}

impl Run {
    async fn new(name: &str, provider: &str) -> Self {
        let issuer = Issuer::open().await;
        let folder =
            PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let lines = format!("AWSCredentialsProvider = {}\n", provider.replace("ISSUER", &issuer.url()));
        Self { issuer, folder, arguments: Vec::new(), environment: Vec::new(), lines, region: true }
    }

    /// Replaces `ISSUER` by the server's address and `FOLDER` by the test's folder.
    fn filled(&self, text: &str) -> String {
        text.replace("ISSUER", &self.issuer.url()).replace("FOLDER", self.folder.to_str().unwrap())
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), self.filled(value)));
        self
    }

    fn file(self, name: &str, text: &str) -> Self {
        let path = self.folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, self.filled(text)).unwrap();
        self
    }

    fn lines(mut self, lines: &str) -> Self {
        self.lines.push_str(lines);
        self
    }

    /// The daemon's command, with no environment variables except those of the test.
    fn command(&self) -> Command {
        let file = self.folder.join("daemon.properties");
        let region = if self.region { "regionName = eu-west-1\n" } else { "" };
        let text = format!(
            "schedulerInitializationBackoffTimeMillis = 1\nexecutableName = true\nstreamName = s\napplicationName = app\nmetricsLevel = NONE\nmaxRecords = 1\n{region}\
             kinesisEndpoint = {url}\ndynamoDBEndpoint = {url}\n{lines}",
            url = self.issuer.url(),
            lines = self.lines
        );
        std::fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_multilangd"));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &self.folder).kill_on_drop(true);
        command.env("AWS_CONFIG_FILE", self.folder.join("config"));
        command.env("AWS_SHARED_CREDENTIALS_FILE", self.folder.join("credentials"));
        command.envs(self.environment.iter().cloned()).args(&self.arguments).arg(&file);
        command
    }

    /// Runs the daemon until DynamoDB has denied access, and returns all requests.
    async fn seen(mut self) -> Vec<Request> {
        let output = timeout(LIMIT, self.command().output()).await.expect("the daemon doesn't end").unwrap();
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(77), "{log}\n{:#?}", self.issuer.requests());
        assert!(!log.contains("hush"), "a secret in the log: {log}");
        std::fs::remove_dir_all(&self.folder).unwrap();
        self.issuer.requests()
    }

    /// The access key that signed the first call to DynamoDB; none if the call was unsigned.
    async fn signer(self) -> Option<String> {
        signer(&self.seen().await)
    }
}

fn signer(requests: &[Request]) -> Option<String> {
    let call = requests.iter().find(|request| request.target.starts_with("DynamoDB")).unwrap();
    let (_, rest) = call.authorization.split_once("Credential=")?;
    Some(rest.split('/').next().unwrap().to_owned())
}

const KEYS: [(&str, &str); 2] = [("AWS_ACCESS_KEY_ID", "FROM-ENV"), ("AWS_SECRET_ACCESS_KEY", "hush")];

/// Puts access keys into the environment.
trait WithKeys {
    fn keys(self) -> Self;
}

impl WithKeys for Run {
    fn keys(self) -> Self {
        KEYS.iter().fold(self, |run, (name, value)| run.env(name, value))
    }
}

#[tokio::test]
async fn environment_provider_uses_environment_keys() {
    let run = Run::new("env", "EnvironmentVariableCredentialsProvider").await.keys();
    assert_eq!(run.signer().await.as_deref(), Some("FROM-ENV"));
}

#[tokio::test]
async fn default_chain_uses_environment_keys_under_both_names() {
    for provider in ["DefaultCredentialsProvider", "com.amazonaws.auth.DefaultAWSCredentialsProviderChain"] {
        assert_eq!(Run::new("default", provider).await.keys().signer().await.as_deref(), Some("FROM-ENV"));
    }
}

#[tokio::test]
async fn named_profile_precedes_environment_keys() {
    let run = Run::new("profile", "ProfileCredentialsProvider|team").await.keys();
    let run =
        run.file("credentials", "[team]\naws_access_key_id = FROM-TEAM\naws_secret_access_key = hush\n");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-TEAM"));
}

#[tokio::test]
async fn profile_with_credential_process_uses_its_keys() {
    let run = Run::new("process", "ProfileCredentialsProvider").await.env("AWS_PROFILE", "p");
    let run = run
        .file("keys.json", r#"{"Version": 1, "AccessKeyId": "FROM-PROCESS", "SecretAccessKey": "hush"}"#)
        .file("config", "[profile p]\ncredential_process = cat FOLDER/keys.json\n");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-PROCESS"));
}

#[tokio::test]
async fn profile_with_sso_session_uses_its_keys() {
    let run = Run::new("sso", "ProfileCredentialsProvider|p").await;
    // The name of the cache file is the SHA-1 of the session's name, "s".
    let run = run
        .file(
            "config",
            "[profile p]\nsso_session = s\nsso_account_id = 123456789012\nsso_role_name = r\n\
             endpoint_url = ISSUER\n[sso-session s]\nsso_region = eu-west-1\nsso_start_url = https://start.example\n",
        )
        .file(
            ".aws/sso/cache/a0f1490a20d0211c997b44bc357e1972deab8ae3.json",
            r#"{"accessToken": "token", "expiresAt": "2999-01-01T00:00:00Z", "region": "eu-west-1", "startUrl": "https://start.example"}"#,
        )
        .env("AWS_ENDPOINT_URL", "ISSUER");
    let seen = run.seen().await;
    assert_eq!(signer(&seen).as_deref(), Some("FROM-SSO"), "{seen:#?}");
    assert!(
        seen.iter().any(|request| request.path.contains("account_id=123456789012")
            && request.path.contains("role_name=r"))
    );
}

#[tokio::test]
async fn instance_metadata_provides_keys() {
    let run = Run::new("imds", "InstanceProfileCredentialsProvider").await.keys();
    let run = run.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ISSUER");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-INSTANCE"));
}

#[tokio::test]
async fn container_metadata_provides_keys() {
    let run = Run::new("ecs", "ContainerCredentialsProvider").await.keys();
    let run = run.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "ISSUER/container");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-CONTAINER"));
}

/// As in Java's default chain: that of the Rust SDK would use the profile.
#[tokio::test]
async fn default_chain_order_is_that_of_java() {
    let run = async |name, words: &[&str]| {
        let mut run = Run::new(name, "DefaultCredentialsProvider").await;
        run.arguments = words.iter().map(|word| (*word).to_owned()).collect();
        run.file("credentials", "[default]\naws_access_key_id = FROM-PROFILE\naws_secret_access_key = hush\n")
            .file("token", "a-token")
            .env("AWS_WEB_IDENTITY_TOKEN_FILE", "FOLDER/token")
            .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/web")
            .env("AWS_ENDPOINT_URL_STS", "ISSUER")
    };
    assert_eq!(run("chain-web", &[]).await.signer().await.as_deref(), Some("FROM-WEB"));
    let words = [
        "-Daws.accessKeyId=FROM-SYSTEM",
        "-Daws.secretAccessKey=hush",
        "software.amazon.kinesis.multilang.MultiLangDaemon",
        "--properties-file",
    ];
    let run = run("chain-system", &words).await.keys();
    assert_eq!(run.signer().await.as_deref(), Some("FROM-SYSTEM"));
}

#[tokio::test]
async fn web_identity_token_is_exchanged_for_keys() {
    let run = Run::new("web", "WebIdentityTokenFileCredentialsProvider").await.keys();
    let run = run
        .file("token", "a-token")
        .env("AWS_WEB_IDENTITY_TOKEN_FILE", "FOLDER/token")
        .env("AWS_ROLE_ARN", "arn:aws:iam::1:role/web")
        .env("AWS_ENDPOINT_URL_STS", "ISSUER");
    let seen = run.seen().await;
    assert_eq!(signer(&seen).as_deref(), Some("FROM-WEB"), "{seen:#?}");
    assert!(seen.iter().any(|request| request.body.contains("WebIdentityToken=a-token")));
}

#[tokio::test]
async fn assumed_role_is_requested_with_its_parameters() {
    let provider = "StsAssumeRoleCredentialsProvider|arn:aws:iam::1:role/r|me|externalId=from-them|endpoint=ISSUER^eu-north-1";
    let seen = Run::new("sts", provider).await.keys().seen().await;
    assert_eq!(signer(&seen).as_deref(), Some("FROM-ROLE"), "{seen:#?}");
    let call = seen.iter().find(|request| request.body.contains("Action=AssumeRole&")).unwrap();
    for part in ["RoleArn=arn%3Aaws%3Aiam%3A%3A1%3Arole%2Fr", "RoleSessionName=me", "ExternalId=from-them"] {
        assert!(call.body.contains(part), "{}", call.body);
    }
    assert!(
        call.authorization.contains("Credential=FROM-ENV/")
            && call.authorization.contains("/eu-north-1/sts/"),
        "{}",
        call.authorization
    );
}

#[tokio::test]
async fn role_without_region_is_assumed_in_client_region() {
    let run =
        Run::new("sts-region", "StsAssumeRoleCredentialsProvider|arn:aws:iam::1:role/r|me").await.keys();
    let seen = run.env("AWS_ENDPOINT_URL_STS", "ISSUER").seen().await;
    let call = seen.iter().find(|request| request.body.contains("Action=AssumeRole&")).unwrap();
    assert!(call.authorization.contains("/eu-west-1/sts/"), "{}", call.authorization);
}

#[tokio::test]
async fn system_properties_of_a_java_command_line_are_used() {
    let mut run = Run::new("system", "SystemPropertyCredentialsProvider").await.keys();
    run.arguments = [
        "-Daws.accessKeyId=FROM-SYSTEM",
        "-Daws.secretAccessKey=hush",
        "-cp",
        "x",
        "software.amazon.kinesis.multilang.MultiLangDaemon",
    ]
    .map(str::to_owned)
    .to_vec();
    assert_eq!(run.signer().await.as_deref(), Some("FROM-SYSTEM"));
}

#[tokio::test]
async fn anonymous_provider_leaves_calls_unsigned() {
    assert_eq!(Run::new("anonymous", "AnonymousCredentialsProvider").await.keys().signer().await, None);
}

#[tokio::test]
async fn first_provider_with_credentials_in_list_is_used() {
    let list = "SystemPropertyCredentialsProvider, ProfileCredentialsProvider|nobody, EnvironmentVariableCredentialsProvider";
    assert_eq!(Run::new("list", list).await.keys().signer().await.as_deref(), Some("FROM-ENV"));
}

#[tokio::test]
async fn dynamodb_uses_its_own_provider() {
    let run = Run::new("own", "EnvironmentVariableCredentialsProvider").await.keys();
    let run = run
        .file("credentials", "[default]\naws_access_key_id = FROM-DEFAULT\naws_secret_access_key = hush\n")
        .lines("AwsCredentialsProviderDynamoDB = ProfileCredentialsProvider\n");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-DEFAULT"));
}

#[tokio::test]
async fn profile_and_files_of_system_properties_are_used() {
    let run = Run::new("property-profile", "DefaultCredentialsProvider").await;
    let options = "-Daws.profile=team -Daws.sharedCredentialsFile=FOLDER/elsewhere";
    let run = run.env("JAVA_TOOL_OPTIONS", options).env("AWS_PROFILE", "other");
    let run = run.file("elsewhere", "[team]\naws_access_key_id = FROM-TEAM\naws_secret_access_key = hush\n");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-TEAM"));
}

#[tokio::test]
async fn metadata_services_are_called_without_the_proxy() {
    // No server listens at this address.
    let proxied =
        |run: Run| run.env("HTTP_PROXY", "http://127.0.0.1:9").env("HTTPS_PROXY", "http://127.0.0.1:9");
    let run = proxied(Run::new("imds-proxy", "InstanceProfileCredentialsProvider").await);
    let run = run.env("AWS_EC2_METADATA_SERVICE_ENDPOINT", "ISSUER");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-INSTANCE"));
    let run = proxied(Run::new("ecs-proxy", "ContainerCredentialsProvider").await);
    let run = run.env("AWS_CONTAINER_CREDENTIALS_FULL_URI", "ISSUER/container");
    assert_eq!(run.signer().await.as_deref(), Some("FROM-CONTAINER"));
}
