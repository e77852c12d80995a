//! JVM system properties: `-Dname=value` on a Java-style command line, in `JAVA_TOOL_OPTIONS`,
//! `JDK_JAVA_OPTIONS` and `_JAVA_OPTIONS`.
//!
//! Start scripts and images of the Java daemon set regions, credentials and proxies in them. A property that
//! concerns AWS or the network and is not honoured gets a warning; all others concern only the JVM.

use std::collections::BTreeMap;
use std::fmt;

use super::super::Remark;

/// Variables from which a JVM reads options, in ascending precedence; the command line overrides these, and
/// `_JAVA_OPTIONS` overrides the command line.
const BEFORE: [&str; 2] = ["JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS"];
const BEHIND: &str = "_JAVA_OPTIONS";

/// Properties that are honoured.
const HONOURED: &[&str] = &[
    "aws.accessKeyId",
    "aws.configFile",
    "aws.disableEc2Metadata",
    "aws.endpointUrl",
    "aws.endpointUrlCloudWatch",
    "aws.endpointUrlDynamoDb",
    "aws.endpointUrlKinesis",
    "aws.ignoreConfiguredEndpointUrls",
    "aws.profile",
    "aws.region",
    "aws.roleArn",
    "aws.roleSessionName",
    "aws.secretAccessKey",
    "aws.sessionToken",
    "aws.sharedCredentialsFile",
    "aws.useDualstackEndpoint",
    "aws.useFipsEndpoint",
    "aws.webIdentityTokenFile",
    "http.nonProxyHosts",
    "http.proxyHost",
    "http.proxyPassword",
    "http.proxyPort",
    "http.proxyUser",
    "https.proxyHost",
    "https.proxyPassword",
    "https.proxyPort",
    "https.proxyUser",
];

/// Properties that are not honoured, with the equivalent here.
const INSTEAD: &[(&str, &str)] = &[
    ("aws.appId", "set AWS_SDK_UA_APP_ID"),
    ("aws.containerAuthorizationToken", "set AWS_CONTAINER_AUTHORIZATION_TOKEN"),
    ("aws.containerAuthorizationTokenFile", "set AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE"),
    ("aws.containerCredentialsFullUri", "set AWS_CONTAINER_CREDENTIALS_FULL_URI"),
    ("aws.containerCredentialsPath", "set AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"),
    ("aws.ec2MetadataServiceEndpoint", "set AWS_EC2_METADATA_SERVICE_ENDPOINT"),
    ("aws.ec2MetadataServiceEndpointMode", "set AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE"),
    ("aws.maxAttempts", "multilangd retries by itself"),
    ("aws.retryMode", "multilangd retries by itself"),
    ("javax.net.ssl.trustStore", "set AWS_CA_BUNDLE to a PEM file with the certificates of the CAs"),
    ("javax.net.ssl.keyStore", "client certificates are not supported"),
    ("socksProxyHost", "SOCKS proxies are not supported; set HTTPS_PROXY to an HTTP proxy"),
    ("java.net.useSystemProxies", "set HTTPS_PROXY"),
    ("java.net.preferIPv6Addresses", "set AWS_USE_DUALSTACK_ENDPOINT"),
];

/// The given system properties, by name.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Properties(BTreeMap<String, String>);

impl fmt::Debug for Properties {
    /// Shows only the names: values can be secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Properties {
    /// Reads the environment variables and the `words` of a command line.
    pub fn read(variables: &BTreeMap<String, String>, words: &[String]) -> Self {
        let of = |name: &str| variables.get(name).map(|text| split(text)).unwrap_or_default();
        let mut all: Vec<String> = BEFORE.iter().flat_map(|name| of(name)).collect();
        all.extend_from_slice(words);
        all.extend(of(BEHIND));
        let pairs = all.iter().filter_map(|word| word.strip_prefix("-D"));
        let pairs = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        Self(pairs.filter(|(name, _)| !name.is_empty()).map(owned).collect())
    }

    /// A value; none if it is absent or blank.
    pub fn get(&self, name: &str) -> Option<&str> {
        super::set(self.0.get(name)?)
    }
}

fn owned((name, value): (&str, &str)) -> (String, String) {
    (name.to_owned(), value.to_owned())
}

/// Splits options as a JVM does: at white space outside quotes of either kind, which are removed.
fn split(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    for c in text.chars() {
        match quote {
            Some(open) if c == open => quote = None,
            None if c == '"' || c == '\'' => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            None if c.is_whitespace() => words.extend(word.take()),
            Some(_) | None => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// Warnings about properties that Java or its SDK would honour.
pub(super) fn unhonoured(properties: &Properties) -> Vec<Remark> {
    let concerns = |name: &str| {
        let network = ["http.proxy", "https.proxy", "http.nonProxy", "javax.net.ssl.", "socksProxy"];
        name.starts_with("aws.") || network.iter().any(|start| name.starts_with(start))
    };
    let mut remarks = Vec::new();
    for name in properties.0.keys() {
        let instead = INSTEAD.iter().find(|(known, _)| known == name).map(|(_, instead)| *instead);
        if HONOURED.contains(&name.as_str()) || !(concerns(name) || instead.is_some()) {
            continue;
        }
        // Options of a key store or a SOCKS proxy are covered by the warning about it.
        let belongs = INSTEAD.iter().any(|(known, _)| *known != name && name.starts_with(known));
        if belongs && instead.is_none() {
            continue;
        }
        let hint = instead.map(|instead| format!(" ({instead})")).unwrap_or_default();
        let text = format!("system property -D{name} is not supported{hint}");
        remarks.push(Remark { line: None, key: Some(format!("-D{name}")), text });
    }
    remarks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_are_split_at_blanks_outside_quotes() {
        assert_eq!(split(" -Da=b\t-Dc='d e' -D\"f g\"=h  '' "), ["-Da=b", "-Dc=d e", "-Df g=h", ""]);
        assert_eq!(split("  "), [""; 0]);
    }

    #[test]
    fn jvm_options_have_the_jvms_precedence() {
        let variables =
            |pairs: &[(&str, &str)]| pairs.iter().map(|pair| owned(*pair)).collect::<BTreeMap<_, _>>();
        let tool = ("JAVA_TOOL_OPTIONS", "-Xmx1g -Daws.region=tool -Daws.profile=p");
        let words = ["-Daws.region=word".to_owned(), "-ea".to_owned()];
        let found = Properties::read(&variables(&[tool]), &words);
        assert_eq!((found.get("aws.region"), found.get("aws.profile")), (Some("word"), Some("p")));
        let found = Properties::read(&variables(&[tool, ("JDK_JAVA_OPTIONS", "-Daws.region=jdk")]), &[]);
        assert_eq!(found.get("aws.region"), Some("jdk"));
        let found = Properties::read(&variables(&[tool, ("_JAVA_OPTIONS", "-Daws.region=last")]), &words);
        assert_eq!(found.get("aws.region"), Some("last"));
    }

    #[test]
    fn unhonoured_property_is_named_once_without_its_value() {
        let words = [
            "-Daws.maxAttempts=9",
            "-Daws.newThing=hush",
            "-Daws.region=r",
            "-Djavax.net.ssl.trustStore=s",
            "-Djavax.net.ssl.trustStorePassword=hush",
            "-Dlog4j.configuration=x",
            "-Dhttps.proxyHost=h",
            "-DsocksProxyHost=s",
        ];
        let words = words.map(str::to_owned);
        let properties = Properties::read(&BTreeMap::new(), &words);
        let remarks = unhonoured(&properties);
        let keys: Vec<_> = remarks.iter().filter_map(|remark| remark.key.as_deref()).collect();
        let expected =
            ["-Daws.maxAttempts", "-Daws.newThing", "-Djavax.net.ssl.trustStore", "-DsocksProxyHost"];
        assert_eq!(keys, expected);
        assert!(!format!("{remarks:?} {properties:?}").contains("hush"));
    }
}
