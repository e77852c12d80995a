//! Converts a list of [`Provider`]s into the SDK's.
//!
//! The first provider that has credentials is used. Roles are assumed with the credentials of the default
//! chain.

use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{Region, SdkConfig};
use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::future;
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};

use super::chain::{Chain, Step};
use super::profile;
use crate::config::credentials::{AssumeRole, Provider, WebIdentity};
use crate::config::sdk::{Keys, Sdk};

/// Inputs for the construction of providers.
pub(super) struct Base<'a> {
    /// The region, the HTTP stack and the clock.
    pub(super) shared: &'a SdkConfig,
    pub(super) provider: &'a ProviderConfig,
    pub(super) sdk: &'a Sdk,
    /// The client's region, which STS uses if no other region is configured.
    pub(super) region: Option<&'a str>,
}

impl Base<'_> {
    /// The region of STS: that of this machine, not of the stream.
    fn nearby(&self) -> Option<Region> {
        self.sdk.region.as_deref().or(self.region).map(|region| Region::new(region.to_owned()))
    }

    /// The provider configuration for calls of STS.
    fn near(&self) -> ProviderConfig {
        self.provider.clone().with_region(self.nearby())
    }
}

/// The SDK's provider for a list; none if requests are not signed.
pub(super) async fn provider(providers: &[Provider], base: &Base<'_>) -> Option<Chain> {
    let shown: Vec<String> = providers.iter().map(shown).collect();
    let mut steps = Vec::new();
    for provider in providers.iter().take_while(|provider| **provider != Provider::Anonymous) {
        if *provider == Provider::Default {
            steps.extend(default_steps(base));
        } else {
            steps.push(one(provider, base).await);
        }
    }
    (!steps.is_empty()).then(|| Chain::new(shown.join(", "), steps))
}

/// The name without the arguments, which can be secret.
fn shown(provider: &Provider) -> String {
    provider.to_string().split('|').next().unwrap_or_default().to_owned()
}

/// The steps of Java's `DefaultCredentialsProvider` in its order: the SDK's own chain knows no system
/// properties and tries the profile before a web identity.
fn default_steps(base: &Base<'_>) -> Vec<Step> {
    let container = ["AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    vec![
        system_properties(&base.sdk.keys),
        environment(),
        web_identity(None, base),
        from_profile(None, None, base),
        Step::new(
            container.join(" and "),
            EcsCredentialsProvider::builder().configure(base.provider).build(),
        ),
        metadata(base),
    ]
}

async fn one(provider: &Provider, base: &Base<'_>) -> Step {
    match provider {
        Provider::Environment => environment(),
        Provider::SystemProperties => system_properties(&base.sdk.keys),
        Provider::Profile { name, file } => from_profile(name.as_deref(), file.as_deref(), base),
        Provider::InstanceProfile => metadata(base),
        Provider::Container => {
            let made = EcsCredentialsProvider::builder().configure(base.provider).build();
            Step::new("the metadata of an ECS task or an EKS pod", made)
        }
        Provider::WebIdentity(given) => web_identity(given.as_ref(), base),
        Provider::AssumeRole(assume) => {
            Step::new(format!("the role {}", assume.role), assumed(assume, base).await)
        }
        Provider::Default | Provider::Anonymous => {
            Step::new("the default chain", Chain::new(shown(provider), default_steps(base)))
        }
    }
}

fn environment() -> Step {
    Step::new("AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", EnvironmentVariableCredentialsProvider::new())
}

fn system_properties(keys: &Keys) -> Step {
    let name = "-Daws.accessKeyId and -Daws.secretAccessKey";
    match (&keys.access_key_id, &keys.secret_access_key) {
        (Some(id), Some(secret)) => {
            let token = keys.session_token.clone();
            Step::new(name, Credentials::new(id, secret, token, None, "SystemProperties"))
        }
        // No keys: the chain continues.
        (None, _) | (_, None) => Step::new(name, Nothing("not set")),
    }
}

fn from_profile(name: Option<&str>, file: Option<&str>, base: &Base<'_>) -> Step {
    let profile = &base.sdk.profile;
    let chosen = name.unwrap_or(&profile.name);
    let chosen = if chosen.is_empty() { "default" } else { chosen };
    let files = match file {
        Some(file) => EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build(),
        None => profile::chosen(&base.sdk.profile_files),
    };
    let place = file.map_or_else(|| profile.files.join(" and "), str::to_owned);
    let builder = ProfileFileCredentialsProvider::builder().configure(&base.near());
    let made = builder.profile_name(chosen).profile_files(files).build();
    Step::new(format!("profile {chosen:?} in {place}"), made)
}

fn metadata(base: &Base<'_>) -> Step {
    let address = base.sdk.metadata.as_deref().unwrap_or("http://169.254.169.254");
    let name = format!("instance metadata at {address}");
    if base.sdk.no_metadata {
        return Step::new(name, Nothing("forbidden by AWS_EC2_METADATA_DISABLED"));
    }
    Step::new(name, ImdsCredentialsProvider::builder().configure(base.provider).build()).may_be_missing()
}

fn web_identity(given: Option<&WebIdentity>, base: &Base<'_>) -> Step {
    let mut builder = WebIdentityTokenCredentialsProvider::builder().configure(&base.near());
    if let Some(given) = given.or(base.sdk.web_identity.as_ref()) {
        builder = builder.static_configuration(StaticConfiguration {
            web_identity_token_file: given.token_file.clone().into(),
            role_arn: given.role.clone(),
            session_name: given.session.clone(),
        });
    }
    Step::new("AWS_WEB_IDENTITY_TOKEN_FILE and AWS_ROLE_ARN", builder.build())
}

/// Java takes the region of STS from the value or the SDK's region chain, and fails without one; here the
/// client's region is the last resort.
async fn assumed(assume: &AssumeRole, base: &Base<'_>) -> SharedCredentialsProvider {
    let region = assume.region.clone().map(Region::new).or_else(|| base.nearby());
    let mut shared = base.shared.to_builder().region(region.clone());
    shared.set_endpoint_url(assume.endpoint.clone());
    let mut builder =
        AssumeRoleProvider::builder(&assume.role).session_name(&assume.session).configure(&shared.build());
    if let Some(region) = region {
        builder = builder.region(region);
    }
    if let Some(id) = &assume.external_id {
        builder = builder.external_id(id);
    }
    let chain = Chain::new(shown(&Provider::Default), default_steps(base));
    SharedCredentialsProvider::new(builder.build_from_provider(chain).await)
}

/// A provider without credentials, for this reason.
#[derive(Debug)]
struct Nothing(&'static str);

impl ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::ready(Err(CredentialsError::not_loaded(self.0)))
    }
}
