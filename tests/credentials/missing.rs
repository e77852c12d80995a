//! Missing credentials: one error line that names all sources, and exit code 78 at once.

use tokio::time::timeout;

use super::{LIMIT, Run};

/// The exit code, and the lines of stderr that are not warnings.
async fn refused(mut run: Run) -> (Option<i32>, Vec<String>) {
    let output = timeout(LIMIT, run.command().output()).await.expect("the daemon doesn't end").unwrap();
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(run.issuer.requests().iter().filter(|one| one.target.starts_with("DynamoDB")).count(), 0);
    std::fs::remove_dir_all(&run.folder).unwrap();
    (output.status.code(), text.lines().map(str::to_owned).collect())
}

async fn line(run: Run) -> String {
    let (code, lines) = refused(run).await;
    let errors: Vec<_> = lines.iter().filter(|line| line.starts_with("multilangd:")).collect();
    let warnings = lines.iter().filter(|line| line.contains(" WARN ") && !line.contains("AWS_")).count();
    assert_eq!((code, errors.len(), warnings), (Some(78), 1, 0), "{lines:#?}");
    errors[0].clone()
}

#[tokio::test]
async fn default_chain_without_credentials_names_every_source() {
    let run = Run::new("none", "DefaultCredentialsProvider").await.env("AWS_EC2_METADATA_DISABLED", "true");
    let files = ["FOLDER/config", "FOLDER/credentials"].map(|name| run.filled(name));
    let line = line(run).await;
    let places = [
        "DefaultCredentialsProvider",
        "aws.accessKeyId",
        "AWS_ACCESS_KEY_ID",
        "AWS_WEB_IDENTITY_TOKEN_FILE",
        "\"default\"",
        &files[0],
        &files[1],
        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
        "http://169.254.169.254",
        "AWS_EC2_METADATA_DISABLED",
    ];
    for place in places {
        assert!(line.contains(place), "{place} is not in {line}");
    }
}

#[tokio::test]
async fn missing_profile_is_named_with_its_files() {
    let keys = "[team]\naws_access_key_id = A\naws_secret_access_key = hush\n";
    let run = Run::new("no-profile", "ProfileCredentialsProvider|taem").await.file("credentials", keys);
    let file = run.filled("FOLDER/credentials");
    let text = line(run).await;
    assert!(text.contains("\"taem\"") && text.contains(&file), "{text}");
    let run = Run::new("no-aws-profile", "ProfileCredentialsProvider").await.env("AWS_PROFILE", "taem");
    assert!(line(run.file("credentials", keys)).await.contains("\"taem\""));
}

#[tokio::test]
async fn assumed_role_without_base_credentials_names_their_sources() {
    let role = "StsAssumeRoleCredentialsProvider|arn:aws:iam::1:role/r|me";
    let run = Run::new("no-base", role).await.env("AWS_EC2_METADATA_DISABLED", "true");
    assert!(line(run).await.contains("AWS_ACCESS_KEY_ID"));
}
