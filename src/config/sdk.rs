//! AWS settings outside the properties file: JVM system properties, environment variables and the profile,
//! with their meaning in the AWS SDK for Java.
//!
//! The properties file precedes all three; then a system property (`-Daws.region=…`), then an environment
//! variable, then the profile. A blank value counts as not set. In the Java SDK: `SdkSystemSetting`,
//! `ProfileProperty`, `AwsClientEndpointProvider`, `DualstackEnabledProvider`, `FipsEnabledProvider`.
//!
//! | module | holds |
//! |---|---|
//! | [`jvm`] | system properties: where they are given, and which are honoured |
//! | [`network`] | proxies, and the CA bundle |

use std::collections::BTreeMap;
use std::fmt;

use super::keys::client::Service;
use super::{Remark, Source};

pub mod jvm;
pub mod network;

use jvm::Properties;
use network::Network;

/// The three names of one setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Name {
    /// The JVM system property.
    pub property: &'static str,
    /// Environment variables; the first one that is set applies.
    pub variables: &'static [&'static str],
    /// The key of the profile; empty if there is none.
    pub key: &'static str,
}

const fn name(property: &'static str, variables: &'static [&'static str], key: &'static str) -> Name {
    Name { property, variables, key }
}

/// The region.
pub const REGION: Name = name("aws.region", &["AWS_REGION", "AWS_DEFAULT_REGION"], "region");
/// The name of the profile.
pub const PROFILE: Name = name("aws.profile", &["AWS_PROFILE"], "");
/// The config file.
pub const CONFIG_FILE: Name = name("aws.configFile", &["AWS_CONFIG_FILE"], "");
/// The credentials file.
pub const CREDENTIALS_FILE: Name = name("aws.sharedCredentialsFile", &["AWS_SHARED_CREDENTIALS_FILE"], "");
const FIPS: Name = name("aws.useFipsEndpoint", &["AWS_USE_FIPS_ENDPOINT"], "use_fips_endpoint");
const DUAL_STACK: Name =
    name("aws.useDualstackEndpoint", &["AWS_USE_DUALSTACK_ENDPOINT"], "use_dualstack_endpoint");
const IGNORE_ENDPOINTS: Name = name(
    "aws.ignoreConfiguredEndpointUrls",
    &["AWS_IGNORE_CONFIGURED_ENDPOINT_URLS"],
    "ignore_configured_endpoint_urls",
);
const NO_METADATA: Name = name("aws.disableEc2Metadata", &["AWS_EC2_METADATA_DISABLED"], "");
const METADATA: Name = name("", &["AWS_EC2_METADATA_SERVICE_ENDPOINT"], "");
const TOKEN_FILE: Name = name("aws.webIdentityTokenFile", &["AWS_WEB_IDENTITY_TOKEN_FILE"], "");
const ROLE: Name = name("aws.roleArn", &["AWS_ROLE_ARN"], "");
const SESSION: Name = name("aws.roleSessionName", &["AWS_ROLE_SESSION_NAME"], "");

/// Endpoint URLs: of each service, then of all. Within one source the service's precedes the global one; the
/// environment precedes the profile.
const ENDPOINT: Name = name("aws.endpointUrl", &["AWS_ENDPOINT_URL"], "endpoint_url");
const ENDPOINTS: [(Service, Name); 3] = [
    (Service::Kinesis, name("aws.endpointUrlKinesis", &["AWS_ENDPOINT_URL_KINESIS"], "kinesis.endpoint_url")),
    (
        Service::DynamoDb,
        name("aws.endpointUrlDynamoDb", &["AWS_ENDPOINT_URL_DYNAMODB"], "dynamodb.endpoint_url"),
    ),
    (
        Service::CloudWatch,
        name("aws.endpointUrlCloudWatch", &["AWS_ENDPOINT_URL_CLOUDWATCH"], "cloudwatch.endpoint_url"),
    ),
];

/// Keys of the profile that are read. A dot marks a service's key, in the `services` section that the profile
/// names.
pub const KEYS: [&str; 9] = [
    REGION.key,
    FIPS.key,
    DUAL_STACK.key,
    IGNORE_ENDPOINTS.key,
    ENDPOINT.key,
    ENDPOINTS[0].1.key,
    ENDPOINTS[1].1.key,
    ENDPOINTS[2].1.key,
    network::CA_BUNDLE.key,
];

/// The selected AWS profile.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Profile {
    /// The profile's name.
    pub name: String,
    /// Paths of the config file and the credentials file, whether they exist or not.
    pub files: Vec<String>,
    /// The settings that name a file that does not exist.
    pub missing: Vec<Source>,
    /// Whether one of the files contains the profile.
    pub exists: bool,
    /// The values under [`KEYS`].
    pub values: BTreeMap<String, String>,
    /// Why the files could not be read.
    pub failure: Option<String>,
}

/// The sources of settings outside the file.
#[derive(Debug, Clone, Copy)]
pub struct Outside<'a> {
    /// Environment variables.
    pub variables: &'a BTreeMap<String, String>,
    /// System properties.
    pub properties: &'a Properties,
    /// The profile.
    pub profile: &'a Profile,
}

/// A value and its source.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found<'a> {
    /// The value without surrounding blanks.
    pub value: &'a str,
    /// The source.
    pub source: Source,
}

impl<'a> Outside<'a> {
    /// The value that applies: the first of system property, environment variable and profile.
    pub fn find(&self, name: Name) -> Option<Found<'a>> {
        self.find_nearer(name).or_else(|| self.find_in_profile(name))
    }

    fn find_nearer(&self, name: Name) -> Option<Found<'a>> {
        let property = self.properties.get(name.property);
        property.map(|value| Found { value, source: Source::Property(name.property) }).or_else(|| {
            name.variables.iter().find_map(|variable| {
                let value = set(self.variables.get(*variable)?)?;
                Some(Found { value, source: Source::Variable(variable) })
            })
        })
    }

    fn find_in_profile(&self, name: Name) -> Option<Found<'a>> {
        let value = set(self.profile.values.get(name.key)?)?;
        Some(Found { value, source: Source::Profile(name.key) })
    }

    /// The endpoint of a service; none if endpoint settings are disabled.
    fn endpoint(&self, service: Service, faults: &mut Vec<Remark>) -> Option<Found<'a>> {
        if self.switch(IGNORE_ENDPOINTS, faults).is_some_and(|(ignored, _)| ignored) {
            return None;
        }
        let own = ENDPOINTS.iter().find(|(of, _)| *of == service).map_or(ENDPOINT, |(_, name)| *name);
        let nearer = self.find_nearer(own).or_else(|| self.find_nearer(ENDPOINT));
        nearer.or_else(|| self.find_in_profile(own)).or_else(|| self.find_in_profile(ENDPOINT))
    }

    /// A boolean in any case. Any other value is an error, as in Java.
    fn switch(&self, name: Name, faults: &mut Vec<Remark>) -> Option<(bool, Source)> {
        let found = self.find(name)?;
        let is = |word: &str| found.value.eq_ignore_ascii_case(word);
        if is("true") || is("false") {
            return Some((is("true"), found.source));
        }
        let text = format!("{} = {:?} must be true or false", found.source, found.value);
        if !faults.iter().any(|fault| fault.text == text) {
            faults.push(Remark { line: None, key: Some(found.source.to_string()), text });
        }
        None
    }
}

fn set(text: &str) -> Option<&str> {
    Some(text.trim()).filter(|text| !text.is_empty())
}

/// One client's settings from outside the file.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OfClient {
    /// The endpoint.
    pub endpoint: Option<(String, Source)>,
    /// Whether FIPS 140 endpoints are used.
    pub fips: Option<(bool, Source)>,
    /// Whether dual-stack endpoints are used.
    pub dual_stack: Option<(bool, Source)>,
}

/// Reads one client's settings; an invalid value is an error.
pub fn of_client(outside: &Outside<'_>, service: Service, faults: &mut Vec<Remark>) -> OfClient {
    let endpoint = outside.endpoint(service, faults).filter(|found| {
        let checked = super::value::uri(found.value);
        if let Err(why) = &checked {
            let text = format!("{} = {:?} {why}", found.source, found.value);
            if !faults.iter().any(|fault| fault.text == text) {
                faults.push(Remark { line: None, key: Some(found.source.to_string()), text });
            }
        }
        checked.is_ok()
    });
    OfClient {
        endpoint: endpoint.map(|found| (found.value.to_owned(), found.source)),
        fips: outside.switch(FIPS, faults),
        dual_stack: outside.switch(DUAL_STACK, faults),
    }
}

/// Settings from outside the file that are shared by all clients and the credentials.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Sdk {
    /// The region of this machine, for STS. It may differ from the stream's.
    pub region: Option<String>,
    /// The profile.
    pub profile: Profile,
    /// Profile files that a system property names, which the SDK for Rust does not read.
    pub profile_files: ProfileFiles,
    /// Credentials in system properties.
    pub keys: Keys,
    /// A web identity that is at least partly set by system properties.
    pub web_identity: Option<super::credentials::WebIdentity>,
    /// The address of the instance metadata service, if it is not the usual one.
    pub metadata: Option<String>,
    /// Whether the instance metadata service must not be called.
    pub no_metadata: bool,
    /// Whether FIPS 140 endpoints are used, for STS and SSO too.
    pub fips: Option<bool>,
    /// Whether dual-stack endpoints are used, for STS and SSO too.
    pub dual_stack: Option<bool>,
    /// Proxies and the CA bundle.
    pub network: Network,
}

/// Profile files that system properties name.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ProfileFiles {
    /// `aws.configFile`.
    pub config: Option<String>,
    /// `aws.sharedCredentialsFile`.
    pub credentials: Option<String>,
}

impl ProfileFiles {
    /// Reads the system properties.
    pub fn of(properties: &Properties) -> Self {
        let get = |name: Name| properties.get(name.property).map(str::to_owned);
        Self { config: get(CONFIG_FILE), credentials: get(CREDENTIALS_FILE) }
    }
}

/// Credentials in JVM system properties.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Keys {
    /// `aws.accessKeyId`.
    pub access_key_id: Option<String>,
    /// `aws.secretAccessKey`.
    pub secret_access_key: Option<String>,
    /// `aws.sessionToken`.
    pub session_token: Option<String>,
}

impl fmt::Debug for Keys {
    /// Omits the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Keys").field("access_key_id", &self.access_key_id).finish_non_exhaustive()
    }
}

impl Keys {
    /// An access key id with its secret.
    pub fn of(id: &str, secret: &str) -> Self {
        Self {
            access_key_id: Some(id.to_owned()),
            secret_access_key: Some(secret.to_owned()),
            session_token: None,
        }
    }
}

/// Resolves the settings that are shared by all clients.
pub fn resolve(outside: &Outside<'_>, warnings: &mut Vec<Remark>, faults: &mut Vec<Remark>) -> Sdk {
    let Outside { properties, profile, .. } = *outside;
    warnings.extend(jvm::unhonoured(properties));
    warn_about_profile(outside, warnings);
    let text = |name: Name| outside.find(name).map(|found| found.value.to_owned());
    let get = |property: &str| properties.get(property).map(str::to_owned);
    let from_property =
        [TOKEN_FILE, ROLE, SESSION].iter().any(|name| properties.get(name.property).is_some());
    let web_identity = from_property.then(|| {
        let session = text(SESSION).unwrap_or_else(|| "multilangd".to_owned());
        Some(super::credentials::WebIdentity { role: text(ROLE)?, session, token_file: text(TOKEN_FILE)? })
    });
    Sdk {
        region: text(REGION),
        profile: profile.clone(),
        profile_files: ProfileFiles::of(properties),
        keys: Keys {
            access_key_id: get("aws.accessKeyId"),
            secret_access_key: get("aws.secretAccessKey"),
            session_token: get("aws.sessionToken"),
        },
        web_identity: web_identity.flatten(),
        metadata: text(METADATA),
        no_metadata: outside.switch(NO_METADATA, faults).is_some_and(|(disabled, _)| disabled),
        fips: outside.switch(FIPS, faults).map(|(is, _)| is),
        dual_stack: outside.switch(DUAL_STACK, faults).map(|(is, _)| is),
        network: network::resolve(outside, warnings),
    }
}

/// Warns about an unusable profile. It does not prevent the start unless the profile is needed.
fn warn_about_profile(outside: &Outside<'_>, warnings: &mut Vec<Remark>) {
    let profile = outside.profile;
    let files = profile.files.join(" and ");
    warnings.extend(profile.missing.iter().map(|source| {
        let text = format!("{source} names a file that does not exist: profiles are read from {files}");
        Remark { line: None, key: Some(source.to_string()), text }
    }));
    let text = match (&profile.failure, outside.find(PROFILE)) {
        (Some(failure), _) => format!("failed to read the profiles in {files}: {failure}"),
        (None, Some(found)) if !profile.exists => {
            format!("{} = {}: profile not found in {files}", found.source, found.value)
        }
        (None, _) => return,
    };
    warnings.push(Remark { line: None, key: Some("AWS_PROFILE".to_owned()), text });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    struct World(BTreeMap<String, String>, Properties, Profile);

    impl World {
        fn new(variables: &[(&str, &str)], properties: &[&str], profile: &[(&str, &str)]) -> Self {
            let variables = map(variables);
            let words: Vec<String> = properties.iter().map(|word| (*word).to_owned()).collect();
            let properties = Properties::read(&variables, &words);
            Self(variables, properties, Profile { values: map(profile), ..Profile::default() })
        }

        fn outside(&self) -> Outside<'_> {
            Outside { variables: &self.0, properties: &self.1, profile: &self.2 }
        }

        fn endpoint(&self, service: Service) -> Option<(String, Source)> {
            let mut faults = Vec::new();
            let found = of_client(&self.outside(), service, &mut faults).endpoint;
            assert_eq!(faults, []);
            found
        }
    }

    #[test]
    fn property_precedes_variable_precedes_profile_and_blank_is_unset() {
        let find = |variables: &[(&str, &str)], properties: &[&str]| {
            let world = World::new(variables, properties, &[("region", "from-profile")]);
            let found = world.outside().find(REGION).unwrap();
            (found.value.to_owned(), found.source)
        };
        let variables = [("AWS_REGION", "from-variable"), ("AWS_DEFAULT_REGION", "from-default")];
        let property = ("from-property".to_owned(), Source::Property("aws.region"));
        assert_eq!(find(&variables, &["-Daws.region=from-property"]), property);
        assert_eq!(find(&variables, &[]), ("from-variable".to_owned(), Source::Variable("AWS_REGION")));
        let variables = [("AWS_REGION", " "), ("AWS_DEFAULT_REGION", "from-default")];
        assert_eq!(
            find(&variables, &["-Daws.region="]),
            ("from-default".to_owned(), Source::Variable("AWS_DEFAULT_REGION"))
        );
        assert_eq!(find(&[], &[]), ("from-profile".to_owned(), Source::Profile("region")));
    }

    #[test]
    fn service_endpoint_precedes_global_endpoint_of_its_source() {
        let profile = [("endpoint_url", "http://p"), ("kinesis.endpoint_url", "http://p-kinesis")];
        let variables = [("AWS_ENDPOINT_URL", "http://v"), ("AWS_ENDPOINT_URL_KINESIS", "http://v-kinesis")];
        let world = World::new(&variables, &[], &profile);
        let of = |world: &World, service| world.endpoint(service).unwrap().0;
        assert_eq!(of(&world, Service::Kinesis), "http://v-kinesis");
        assert_eq!(of(&world, Service::DynamoDb), "http://v");
        let world = World::new(&[], &[], &profile);
        assert_eq!(of(&world, Service::Kinesis), "http://p-kinesis");
        assert_eq!(of(&world, Service::CloudWatch), "http://p");
        let world = World::new(&variables[..1], &[], &profile);
        assert_eq!(of(&world, Service::Kinesis), "http://v", "any variable wins over the profile");
        let ignored = [("AWS_ENDPOINT_URL", "http://v"), ("AWS_IGNORE_CONFIGURED_ENDPOINT_URLS", "True")];
        assert_eq!(World::new(&ignored, &[], &profile).endpoint(Service::Kinesis), None);
    }

    #[test]
    fn invalid_switch_is_an_error_reported_once() {
        let variables = [("AWS_USE_FIPS_ENDPOINT", "yes"), ("AWS_ENDPOINT_URL", "localhost:4566")];
        let world = World::new(&variables, &[], &[]);
        let mut faults = Vec::new();
        let _found =
            [Service::Kinesis, Service::DynamoDb].map(|one| of_client(&world.outside(), one, &mut faults));
        let keys: Vec<_> = faults.iter().filter_map(|fault| fault.key.as_deref()).collect();
        assert_eq!(keys, ["AWS_ENDPOINT_URL", "AWS_USE_FIPS_ENDPOINT"]);
    }

    #[test]
    fn web_identity_is_completed_from_properties_and_variables() {
        let variables = [("AWS_ROLE_ARN", "arn")];
        let world = World::new(&variables, &["-Daws.webIdentityTokenFile=/t"], &[]);
        let sdk = resolve(&world.outside(), &mut Vec::new(), &mut Vec::new());
        let found = sdk.web_identity.unwrap();
        assert_eq!((found.role.as_str(), found.token_file.as_str()), ("arn", "/t"));
        let world = World::new(&variables, &[], &[]);
        let sdk = resolve(&world.outside(), &mut Vec::new(), &mut Vec::new());
        assert_eq!(sdk.web_identity, None, "variables alone are the SDK's");
    }

    #[test]
    fn missing_profile_is_named_with_the_files_read() {
        let mut world = World::new(&[("AWS_PROFILE", "team")], &[], &[]);
        world.2 =
            Profile { name: "team".to_owned(), files: vec!["/a".into(), "/b".into()], ..Profile::default() };
        let mut warnings = Vec::new();
        resolve(&world.outside(), &mut warnings, &mut Vec::new());
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(["team", "/a", "/b"].iter().all(|part| warning.text.contains(part)), "{warning}");
    }
}
