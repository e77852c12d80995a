//! A list of [`Provider`]s becomes the SDK's.
//!
//! The first of the list that has credentials is used. Roles are assumed with the default chain's.

use aws_config::default_provider::credentials::DefaultCredentialsChain;
use aws_config::ecs::EcsCredentialsProvider;
use aws_config::environment::EnvironmentVariableCredentialsProvider;
use aws_config::imds::credentials::ImdsCredentialsProvider;
use aws_config::meta::credentials::CredentialsProviderChain;
use aws_config::profile::ProfileFileCredentialsProvider;
use aws_config::provider_config::ProviderConfig;
use aws_config::sts::AssumeRoleProvider;
use aws_config::web_identity_token::{StaticConfiguration, WebIdentityTokenCredentialsProvider};
use aws_config::{Region, SdkConfig};
use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_sdk_dynamodb::config::{Credentials, SharedCredentialsProvider};

use crate::config::credentials::{AssumeRole, Provider};

/// What Java takes from `-Daws.accessKeyId` and the like.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct SystemProperties {
    /// `aws.accessKeyId`.
    pub access_key_id: Option<String>,
    /// `aws.secretAccessKey`.
    pub secret_access_key: Option<String>,
    /// `aws.sessionToken`.
    pub session_token: Option<String>,
}

impl std::fmt::Debug for SystemProperties {
    /// Never the secrets.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SystemProperties").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl SystemProperties {
    /// A pair of keys.
    pub fn of(id: &str, secret: &str) -> Self {
        Self {
            access_key_id: Some(id.to_owned()),
            secret_access_key: Some(secret.to_owned()),
            session_token: None,
        }
    }

    fn credentials(&self) -> Option<Credentials> {
        let (id, secret) = (self.access_key_id.as_ref()?, self.secret_access_key.as_ref()?);
        Some(Credentials::new(id, secret, self.session_token.clone(), None, "SystemProperties"))
    }
}

/// What providers are made with.
pub(super) struct Base<'a> {
    /// The region, the HTTP stack, the clock.
    pub(super) shared: &'a SdkConfig,
    pub(super) provider: &'a ProviderConfig,
    pub(super) system: &'a SystemProperties,
    /// Of this client; STS is called there if nothing else names a region.
    pub(super) region: Option<&'a str>,
}

/// The SDK's provider for a list; none if requests are not to be signed.
pub(super) async fn provider(providers: &[Provider], base: &Base<'_>) -> Option<SharedCredentialsProvider> {
    let mut chain: Option<CredentialsProviderChain> = None;
    for provider in providers.iter().take_while(|provider| **provider != Provider::Anonymous) {
        let (name, made) = one(provider, base).await;
        chain = Some(match chain {
            None => CredentialsProviderChain::first_try(name, made),
            Some(chain) => chain.or_else(name, made),
        });
    }
    chain.map(SharedCredentialsProvider::new)
}

async fn one(provider: &Provider, base: &Base<'_>) -> (&'static str, SharedCredentialsProvider) {
    let config = base.provider;
    match provider {
        Provider::Default | Provider::Anonymous => ("Default", default_chain(base).await),
        Provider::Environment => {
            ("Environment", SharedCredentialsProvider::new(EnvironmentVariableCredentialsProvider::new()))
        }
        Provider::SystemProperties => {
            let made = match base.system.credentials() {
                Some(credentials) => SharedCredentialsProvider::new(credentials),
                // Nothing to give: the chain goes on.
                None => SharedCredentialsProvider::new(Nothing),
            };
            ("SystemProperties", made)
        }
        Provider::Profile { name, file } => {
            let mut builder = ProfileFileCredentialsProvider::builder().configure(config);
            if let Some(name) = name {
                builder = builder.profile_name(name);
            }
            if let Some(file) = file {
                let files = EnvConfigFiles::builder().with_file(EnvConfigFileKind::Credentials, file).build();
                builder = builder.profile_files(files);
            }
            ("Profile", SharedCredentialsProvider::new(builder.build()))
        }
        Provider::InstanceProfile => {
            let made = ImdsCredentialsProvider::builder().configure(config).build();
            ("InstanceProfile", SharedCredentialsProvider::new(made))
        }
        Provider::Container => {
            let made = EcsCredentialsProvider::builder().configure(config).build();
            ("Container", SharedCredentialsProvider::new(made))
        }
        Provider::WebIdentity(given) => {
            let mut builder = WebIdentityTokenCredentialsProvider::builder().configure(config);
            if let Some(given) = given {
                builder = builder.static_configuration(StaticConfiguration {
                    web_identity_token_file: given.token_file.clone().into(),
                    role_arn: given.role.clone(),
                    session_name: given.session.clone(),
                });
            }
            ("WebIdentity", SharedCredentialsProvider::new(builder.build()))
        }
        Provider::AssumeRole(assume) => ("AssumeRole", assumed(assume, base).await),
    }
}

/// In the order of Java's `DefaultCredentialsProvider`: the SDK's own chain knows no system properties, and asks the
/// profile before a web identity.
async fn default_chain(base: &Base<'_>) -> SharedCredentialsProvider {
    let given = base.system.credentials();
    let given = given.map_or_else(|| SharedCredentialsProvider::new(Nothing), SharedCredentialsProvider::new);
    // STS is called where the SDK's chain would call it: near this machine, not near the stream.
    let nearby = super::region::nearby().await;
    let is_known = nearby.is_some() || !super::region::may_have_metadata();
    let nearby = nearby.or_else(|| base.region.map(str::to_owned)).map(Region::new);
    let near = base.provider.clone().with_region(nearby.clone());
    let web = WebIdentityTokenCredentialsProvider::builder().configure(&near).build();
    let mut rest = DefaultCredentialsChain::builder().configure(base.provider.clone());
    // Without one it asks instance metadata, and says at length where there is none.
    rest.set_region(nearby.filter(|_| is_known));
    let rest = rest.build().await;
    SharedCredentialsProvider::new(
        CredentialsProviderChain::first_try("SystemProperties", given)
            .or_else("Environment", EnvironmentVariableCredentialsProvider::new())
            .or_else("WebIdentity", web)
            .or_else("Default", rest),
    )
}

/// Java takes the region of STS from the value or from the SDK's chain, and can't start without one; here
/// the client's own is the last resort.
async fn assumed(assume: &AssumeRole, base: &Base<'_>) -> SharedCredentialsProvider {
    let region = match &assume.region {
        Some(region) => Some(Region::new(region.clone())),
        None => {
            let nearby = super::region::nearby().await;
            nearby.or_else(|| base.region.map(str::to_owned)).map(Region::new)
        }
    };
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
    SharedCredentialsProvider::new(builder.build_from_provider(default_chain(base).await).await)
}

/// Has no credentials.
#[derive(Debug)]
struct Nothing;

impl aws_sdk_dynamodb::config::ProvideCredentials for Nothing {
    fn provide_credentials<'a>(&'a self) -> aws_credential_types::provider::future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        aws_credential_types::provider::future::ProvideCredentials::ready(Err(
            aws_credential_types::provider::error::CredentialsError::not_loaded(
                "no -Daws.accessKeyId and -Daws.secretAccessKey on the command line",
            ),
        ))
    }
}
