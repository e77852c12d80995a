//! Parses `AWSCredentialsProvider` and its two siblings into a list of [`Provider`]s.
//!
//! Java constructs the providers that it can and ignores the rest silently; it fails only if none is left.
//! This applies here too, with a warning for each ignored one. Names of the SDK's first generation, which the
//! present Java daemon refuses, are accepted if no other provider would be left.
//!
//! In KCL: `AwsCredentialsProviderPropertyValueDecoder`, `KclStsAssumeRoleCredentialsProvider`.

use std::fmt;

/// A source of credentials.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Provider {
    /// The SDK's default chain.
    Default,
    /// `AWS_ACCESS_KEY_ID`, `AWS_SECRET_ACCESS_KEY`, `AWS_SESSION_TOKEN`.
    Environment,
    /// `-Daws.accessKeyId`, `-Daws.secretAccessKey`, `-Daws.sessionToken` of a Java-style command line.
    SystemProperties,
    /// A profile, which can use SSO, roles, processes or static keys. The name defaults to `AWS_PROFILE`,
    /// then `default`; the file to the usual ones.
    Profile {
        /// The profile's name.
        name: Option<String>,
        /// The file.
        file: Option<String>,
    },
    /// The EC2 instance metadata service.
    InstanceProfile,
    /// The metadata of ECS, or EKS pod identity.
    Container,
    /// A token file and a role; none for `AWS_WEB_IDENTITY_TOKEN_FILE` and `AWS_ROLE_ARN`.
    WebIdentity(Option<WebIdentity>),
    /// No credentials: requests are not signed.
    Anonymous,
    /// A role, assumed with the credentials of the default chain.
    AssumeRole(AssumeRole),
}

/// Parameters of `AssumeRoleWithWebIdentity`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebIdentity {
    /// The role's ARN.
    pub role: String,
    /// The session's name.
    pub session: String,
    /// The file with the token.
    pub token_file: String,
}

/// Parameters of `AssumeRole`.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct AssumeRole {
    /// The role's ARN.
    pub role: String,
    /// The session's name.
    pub session: String,
    /// The external id that the role's owner requires.
    pub external_id: Option<String>,
    /// The region of STS; otherwise the SDK's region chain; otherwise `regionName`, where Java would not
    /// start.
    pub region: Option<String>,
    /// The endpoint URL of STS, if it is not the regional one.
    pub endpoint: Option<String>,
}

impl fmt::Display for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("DefaultCredentialsProvider"),
            Self::Environment => f.write_str("EnvironmentVariableCredentialsProvider"),
            Self::SystemProperties => f.write_str("SystemPropertyCredentialsProvider"),
            Self::Profile { name, .. } => {
                f.write_str("ProfileCredentialsProvider")?;
                name.iter().try_for_each(|name| write!(f, "|{name}"))
            }
            Self::InstanceProfile => f.write_str("InstanceProfileCredentialsProvider"),
            Self::Container => f.write_str("ContainerCredentialsProvider"),
            Self::WebIdentity(identity) => {
                f.write_str("WebIdentityTokenFileCredentialsProvider")?;
                identity
                    .iter()
                    .try_for_each(|web| write!(f, "|{}|{}|{}", web.role, web.session, web.token_file))
            }
            Self::Anonymous => f.write_str("AnonymousCredentialsProvider"),
            Self::AssumeRole(assume) => {
                write!(f, "StsAssumeRoleCredentialsProvider|{}|{}", assume.role, assume.session)
            }
        }
    }
}

/// The result of parsing a value.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// The providers in the order in which they are tried; the first that has credentials is used.
    pub providers: Vec<Provider>,
    /// Warnings about parts of the value.
    pub warnings: Vec<String>,
}

const SDK: &str = "software.amazon.awssdk.auth.credentials.";
const KCL: &str = "software.amazon.kinesis.multilang.auth.";
const STS: &str = "software.amazon.awssdk.services.sts.auth.";
const OLD_SDK: &str = "com.amazonaws.auth.";

/// Parses a value.
///
/// # Errors
/// No provider is left: the fault of each part, and the remedy.
pub fn chain(text: &str) -> Result<Chain, String> {
    let pieces: Vec<&str> = text.split(',').map(str::trim).filter(|piece| !piece.is_empty()).collect();
    if pieces.is_empty() {
        return Err("names no provider (DefaultCredentialsProvider is the usual one)".to_owned());
    }
    let mut chain = Chain::default();
    let mut passed_over = Vec::new();
    for piece in &pieces {
        match current(piece, &mut chain.warnings) {
            Ok(provider) => chain.providers.push(provider),
            Err(why) => passed_over.push(format!("{} {why}", shown(piece))),
        }
    }
    if !chain.providers.is_empty() {
        chain.warnings.extend(passed_over.into_iter().map(|text| format!("{text}; skipped, as in Java")));
        return Ok(chain);
    }
    for piece in &pieces {
        if let Some(provider) = first_generation(piece, &mut chain.warnings) {
            let name = shown(piece);
            chain.warnings.push(format!(
                "{name} is a name of KCL 1.x and 2.0 to 2.6, using {provider}; Java KCL 3.x rejects it"
            ));
            chain.providers.push(provider);
        }
    }
    if chain.providers.is_empty() { Err(passed_over.join("; ")) } else { Ok(chain) }
}

/// The name without its arguments, which can be secret.
fn shown(piece: &str) -> &str {
    piece.split('|').next().unwrap_or_default()
}

/// Splits `Name|argument|argument`, without trailing empty arguments.
fn parts(piece: &str) -> (&str, Vec<&str>) {
    let mut words = piece.trim_end_matches('|').split('|');
    (words.next().unwrap_or_default(), words.collect())
}

/// A provider that the Java daemon 3.5 can construct.
fn current(piece: &str, warnings: &mut Vec<String>) -> Result<Provider, String> {
    let (name, arguments) = parts(piece);
    let forgotten = |warnings: &mut Vec<String>| {
        if !arguments.is_empty() {
            warnings.push(format!("{name} takes no arguments like these, they are ignored, as in Java"));
        }
    };
    let short = name.strip_prefix(SDK).unwrap_or(name);
    if short == "ProfileCredentialsProvider" {
        if arguments.len() > 1 {
            forgotten(warnings);
        }
        let profile = if let [one] = arguments[..] { Some(one.to_owned()) } else { None };
        return Ok(Provider::Profile { name: profile, file: None });
    }
    let simple = match short {
        "DefaultCredentialsProvider" => Some(Provider::Default),
        "EnvironmentVariableCredentialsProvider" => Some(Provider::Environment),
        "SystemPropertyCredentialsProvider" => Some(Provider::SystemProperties),
        "InstanceProfileCredentialsProvider" => Some(Provider::InstanceProfile),
        "ContainerCredentialsProvider" => Some(Provider::Container),
        "WebIdentityTokenFileCredentialsProvider" => Some(Provider::WebIdentity(None)),
        "AnonymousCredentialsProvider" => Some(Provider::Anonymous),
        _ => None,
    };
    if let Some(provider) = simple {
        forgotten(warnings);
        return Ok(provider);
    }
    let sts = name.strip_prefix(KCL).or_else(|| name.strip_prefix(STS)).unwrap_or(name);
    match sts {
        "StsAssumeRoleCredentialsProvider" | "KclStsAssumeRoleCredentialsProvider" => {
            assume(&arguments, warnings)
        }
        _ => Err(unknown(short)),
    }
}

fn unknown(short: &str) -> String {
    match short {
        "StaticCredentialsProvider"
        | "PropertiesFileCredentialsProvider"
        | "ClasspathPropertiesFileCredentialsProvider" => {
            "cannot be created from a properties file (put the keys into a profile for \
             ProfileCredentialsProvider, or into the environment)"
                .to_owned()
        }
        "ProcessCredentialsProvider" => {
            "cannot be created from a properties file (name the process in a profile with \
             credential_process and use ProfileCredentialsProvider)"
                .to_owned()
        }
        _ => format!("is an unknown provider ({})", KNOWN.join(", ")),
    }
}

const KNOWN: &[&str] = &[
    "DefaultCredentialsProvider",
    "EnvironmentVariableCredentialsProvider",
    "ProfileCredentialsProvider",
    "InstanceProfileCredentialsProvider",
    "ContainerCredentialsProvider",
    "WebIdentityTokenFileCredentialsProvider",
    "StsAssumeRoleCredentialsProvider",
    "AnonymousCredentialsProvider",
    "SystemPropertyCredentialsProvider",
];

/// Role and session, then `name=value` in any order. In KCL: `NestedPropertyKey`.
fn assume(arguments: &[&str], warnings: &mut Vec<String>) -> Result<Provider, String> {
    let [role, session, nested @ ..] = arguments else {
        return Err("requires a role and a session, as in \
             StsAssumeRoleCredentialsProvider|arn:aws:iam::123456789012:role/reader|my-session"
            .to_owned());
    };
    let mut assume =
        AssumeRole { role: (*role).to_owned(), session: (*session).to_owned(), ..AssumeRole::default() };
    for argument in nested {
        let Some((name, value)) = argument.split_once('=').filter(|(_, value)| !value.contains('=')) else {
            warnings.push(format!("{argument:?} is not NAME=VALUE with one =, it is ignored, as in Java"));
            continue;
        };
        match name {
            "endpointRegion" => assume.region = Some(region(value)?),
            "externalId" => assume.external_id = Some(value.to_owned()),
            "endpoint" => {
                let parts: Vec<&str> = value.split('^').collect();
                let [address, signed_for] = parts[..] else {
                    return Err(format!("has endpoint={value}, which must be ADDRESS^REGION"));
                };
                let has_scheme = address.starts_with("http://") || address.starts_with("https://");
                assume.endpoint =
                    Some(if has_scheme { address.to_owned() } else { format!("https://{address}") });
                assume.region = Some(region(signed_for)?);
            }
            _ => warnings.push(format!(
                "{name} is none of externalId, endpoint and endpointRegion, it is ignored, as in Java"
            )),
        }
    }
    Ok(Provider::AssumeRole(assume))
}

/// A region. Java requires one that its SDK lists; here it must have the form of a region.
fn region(text: &str) -> Result<String, String> {
    let parts: Vec<&str> = text.split('-').collect();
    let is_word =
        |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let ends_in_number = parts.last().is_some_and(|last| last.parse::<u8>().is_ok());
    if parts.len() >= 3 && parts.iter().all(is_word) && ends_in_number {
        Ok(text.to_owned())
    } else {
        Err(format!("has the invalid STS region {text:?}"))
    }
}

/// A provider by a name of the Java SDK's first generation.
fn first_generation(piece: &str, warnings: &mut Vec<String>) -> Option<Provider> {
    let (name, arguments) = parts(piece);
    let short = name.strip_prefix(OLD_SDK).unwrap_or(name);
    let text = |index: usize| arguments.get(index).map(|text| (*text).to_owned());
    let had_prefix = short.len() < name.len();
    Some(match short.strip_prefix(KCL).unwrap_or(short) {
        "DefaultAWSCredentialsProviderChain" => Provider::Default,
        "EnvironmentVariableCredentialsProvider" if had_prefix => Provider::Environment,
        "InstanceProfileCredentialsProvider" if had_prefix => Provider::InstanceProfile,
        "ContainerCredentialsProvider" if had_prefix => Provider::Container,
        "SystemPropertiesCredentialsProvider" => Provider::SystemProperties,
        "profile.ProfileCredentialsProvider" | "ProfileCredentialsProvider" => match arguments.len() {
            2 => Provider::Profile { file: text(0), name: text(1) },
            _ => Provider::Profile { file: None, name: text(0) },
        },
        "EC2ContainerCredentialsProviderWrapper" => Provider::Container,
        "WebIdentityTokenCredentialsProvider" => Provider::WebIdentity(None),
        "STSAssumeRoleSessionCredentialsProvider" | "KclSTSAssumeRoleSessionCredentialsProvider" => {
            return assume(&arguments, warnings).ok();
        }
        "STSAssumeRoleWithWebIdentitySessionCredentialsProvider" => {
            Provider::WebIdentity(Some(WebIdentity {
                role: text(0)?,
                session: text(1)?,
                token_file: text(2)?,
            }))
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(text: &str) -> Vec<String> {
        chain(text).unwrap().providers.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn list_keeps_constructible_providers_and_warns_of_others() {
        let text = "NoSuchProvider, EnvironmentVariableCredentialsProvider ,ProfileCredentialsProvider,,\
                    DefaultAWSCredentialsProviderChain";
        assert_eq!(names(text), ["EnvironmentVariableCredentialsProvider", "ProfileCredentialsProvider"]);
        let warnings = chain(text).unwrap().warnings;
        assert!(warnings.len() == 2 && warnings[0].starts_with("NoSuchProvider"), "{warnings:?}");
        assert!(
            warnings[1].starts_with("DefaultAWSCredentialsProviderChain"),
            "an old name beside a new one"
        );
    }

    #[test]
    fn provider_names_are_short_or_full_in_exact_case() {
        assert_eq!(
            names("software.amazon.awssdk.auth.credentials.DefaultCredentialsProvider"),
            ["DefaultCredentialsProvider"]
        );
        assert_eq!(names("ProfileCredentialsProvider|team"), ["ProfileCredentialsProvider|team"]);
        assert_eq!(
            names("ProfileCredentialsProvider|a|b"),
            ["ProfileCredentialsProvider"],
            "the arguments are forgotten"
        );
        for refused in [
            "",
            " , ",
            "defaultcredentialsprovider",
            "StaticCredentialsProvider|a|b",
            "my.own.Provider",
            "StsAssumeRoleCredentialsProvider|role",
        ] {
            assert!(chain(refused).is_err(), "{refused}");
        }
    }

    #[test]
    fn first_generation_names_alone_are_accepted_with_a_warning() {
        for (old, new) in [
            ("DefaultAWSCredentialsProviderChain", "DefaultCredentialsProvider"),
            (
                "com.amazonaws.auth.EnvironmentVariableCredentialsProvider",
                "EnvironmentVariableCredentialsProvider",
            ),
            ("com.amazonaws.auth.profile.ProfileCredentialsProvider|team", "ProfileCredentialsProvider|team"),
            ("STSAssumeRoleSessionCredentialsProvider|r|s", "StsAssumeRoleCredentialsProvider|r|s"),
        ] {
            assert_eq!(names(old), [new]);
            assert_eq!(chain(old).unwrap().warnings.len(), 1, "{old}");
        }
    }

    #[test]
    fn role_parameters_come_in_any_order() {
        let text = "StsAssumeRoleCredentialsProvider|role|session|externalId=x|endpoint=sts.example^eu-west-1|nope|a=b=c|z=1";
        let Chain { providers, warnings } = chain(text).unwrap();
        let [Provider::AssumeRole(assume)] = &providers[..] else { panic!("{providers:?}") };
        assert_eq!(
            (assume.external_id.as_deref(), assume.region.as_deref(), assume.endpoint.as_deref()),
            (Some("x"), Some("eu-west-1"), Some("https://sts.example"))
        );
        assert_eq!(warnings.len(), 3);
        assert!(chain("StsAssumeRoleCredentialsProvider|r|s|endpointRegion=nowhere").is_err());
        assert!(chain("StsAssumeRoleCredentialsProvider|r|s|endpoint=a").is_err());
    }
}
