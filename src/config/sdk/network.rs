//! The network path to endpoints: HTTP proxies, and the CA bundle that certificates are verified with.
//!
//! A system property (`https.proxyHost`) precedes a variable (`https_proxy`, then `HTTPS_PROXY`), as in the
//! Java SDK. The proxy for the endpoint's scheme is used. Addresses of this machine and of its metadata
//! services are never reached through a proxy, where they would mean another machine.

use std::fmt;
use std::net::IpAddr;

use super::super::{Remark, Source};
use super::{Name, Outside, name, set};

/// The CA bundle that replaces the system's, as for the AWS CLI.
pub(super) const CA_BUNDLE: Name = name("", &["AWS_CA_BUNDLE"], "ca_bundle");
/// The certificate file by OpenSSL's variable.
const SSL_CERT_FILE: Name = name("", &["SSL_CERT_FILE"], "");
/// The folder of certificate files by OpenSSL's variable.
const SSL_CERT_DIR: Name = name("", &["SSL_CERT_DIR"], "");

/// Proxies and CA certificates.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Network {
    /// The proxy for http endpoints.
    pub http: Option<Proxy>,
    /// The proxy for https endpoints.
    pub https: Option<Proxy>,
    exempt: Vec<Rule>,
    /// CA certificates that replace the system's.
    pub ca: Option<CaBundle>,
    /// CA certificates in addition to `ca`; without `ca` they replace the system's, as in OpenSSL.
    pub ca_file: Option<CaBundle>,
    /// A folder of CA certificates, or several, separated by colons; without `ca` they replace the system's, as in OpenSSL.
    pub ca_folder: Option<CaBundle>,
}

/// A file of CA certificates.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaBundle {
    /// The path.
    pub file: String,
    /// The source of the setting.
    pub source: Source,
}

/// An HTTP proxy. Its credentials are never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Scheme, host and port.
    pub url: String,
    /// User and password, percent-encoded as in a URL.
    pub user: Option<(String, String)>,
    /// The source of the setting.
    pub source: Source,
}

impl fmt::Display for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.url)
    }
}

impl fmt::Debug for Proxy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Proxy({} of {})", self.url, self.source)
    }
}

/// A host that is reached without a proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Rule {
    All,
    /// A domain and its subdomains, at one port if it is given.
    Domain(String, Option<u16>),
    /// The addresses that share this number of first bits with this one.
    Network(IpAddr, u8),
    /// Java's pattern: a prefix and a suffix around `*`; without a `*` the two are the whole name.
    Pattern {
        begin: String,
        end: String,
        open: bool,
    },
}

impl Network {
    /// The proxy for a URL; none for a direct connection.
    pub fn proxy(&self, url: &str) -> Option<&Proxy> {
        let (scheme, rest) = url.split_once("://")?;
        let proxy = if scheme == "https" { self.https.as_ref() } else { self.http.as_ref() }?;
        let (host, port) = host_of(rest)?;
        let port = port.unwrap_or(if scheme == "https" { 443 } else { 80 });
        let direct = is_near(host) || self.exempt.iter().any(|rule| rule.holds(host, port));
        (!direct).then_some(proxy)
    }
}

/// Whether a URL is one of this machine, or of a metadata service that only this machine can reach.
pub fn is_of_this_machine(url: &str) -> bool {
    url.split_once("://").and_then(|(_, rest)| host_of(rest)).is_some_and(|(host, _)| is_near(host))
}

/// Host and port of a URL after its scheme. The host of an IPv6 address has no brackets.
fn host_of(rest: &str) -> Option<(&str, Option<u16>)> {
    let authority = rest.split(['/', '?', '#']).next()?;
    let authority = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    if let Some(inside) = authority.strip_prefix('[') {
        let (host, port) = inside.split_once(']')?;
        return match port.strip_prefix(':') {
            Some(port) => Some((host, Some(port.parse().ok()?))),
            None => port.is_empty().then_some((host, None)),
        };
    }
    match authority.split_once(':') {
        Some((host, port)) => Some((host, Some(port.parse().ok()?))),
        None => Some((authority, None)),
    }
}

/// Whether a host is this machine, or a metadata service of EC2, ECS or EKS, which only this machine can
/// reach.
fn is_near(host: &str) -> bool {
    let named = |name: &str| host.eq_ignore_ascii_case(name);
    match host.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V4(address)) => {
            address.is_loopback() || address.is_link_local() || address.is_unspecified()
        }
        Ok(IpAddr::V6(address)) => {
            let metadata = address.segments()[..2] == [0xfd00, 0x0ec2];
            address.is_loopback() || address.is_unicast_link_local() || address.is_unspecified() || metadata
        }
        Err(_) => named("localhost") || host.to_ascii_lowercase().ends_with(".localhost"),
    }
}

impl Rule {
    fn holds(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        match self {
            Self::All => true,
            Self::Domain(domain, only) => {
                let within = host.strip_suffix(domain.as_str());
                only.is_none_or(|only| only == port)
                    && within.is_some_and(|before| before.is_empty() || before.ends_with('.'))
            }
            Self::Network(network, bits) => {
                host.parse::<IpAddr>().is_ok_and(|address| prefix(address, *bits) == prefix(*network, *bits))
            }
            Self::Pattern { begin, end, open: true } => {
                host.len() >= begin.len() + end.len() && host.starts_with(begin) && host.ends_with(end)
            }
            Self::Pattern { begin, open: false, .. } => host == *begin,
        }
    }

    /// A rule of `NO_PROXY`, as in curl.
    fn of_variable(text: &str) -> Option<Self> {
        if text == "*" {
            return Some(Self::All);
        }
        let (address, bits) = text.split_once('/').unwrap_or((text, ""));
        let address = address.trim_start_matches('[').trim_end_matches(']');
        if let Ok(address) = address.parse::<IpAddr>() {
            let all = if address.is_ipv4() { 32 } else { 128 };
            let bits = if bits.is_empty() { all } else { bits.parse().ok().filter(|bits| *bits <= all)? };
            return Some(Self::Network(address, bits));
        }
        let (domain, port) = host_of(text)?;
        let domain = domain.trim_start_matches('*').trim_start_matches('.').to_ascii_lowercase();
        (!domain.is_empty()).then_some(Self::Domain(domain, port))
    }

    /// A rule of `http.nonProxyHosts`: a `*` at the start or the end matches anything.
    fn of_property(text: &str) -> Self {
        let text = text.to_ascii_lowercase();
        let text = text.trim_start_matches('[').trim_end_matches(']');
        match text.split_once('*') {
            Some((begin, end)) => Self::Pattern { begin: begin.to_owned(), end: end.to_owned(), open: true },
            None => Self::Pattern { begin: text.to_owned(), end: String::new(), open: false },
        }
    }
}

/// The family of an address, and its first bits.
fn prefix(address: IpAddr, bits: u8) -> (bool, u128) {
    let (is_four, number, all) = match address {
        IpAddr::V4(address) => (true, u128::from(address.to_bits()), 32),
        IpAddr::V6(address) => (false, address.to_bits(), 128),
    };
    (is_four, number.checked_shr(all - u32::from(bits)).unwrap_or(0))
}

/// Reads the environment variables and the system properties. A value that cannot be honoured gets a warning,
/// and endpoints are then reached directly.
pub(super) fn resolve(outside: &Outside<'_>, warnings: &mut Vec<Remark>) -> Network {
    let mut found = |scheme: Scheme| match proxy(outside, &scheme) {
        Ok(proxy) => proxy,
        Err((source, why)) => {
            let text =
                format!("ignoring {source}, {} endpoints are called without a proxy: {why}", scheme.name);
            warnings.push(Remark { line: None, key: Some(source.to_string()), text });
            None
        }
    };
    let (http, https) = (found(HTTP), found(HTTPS));
    let exempt = exempt(outside, warnings);
    let all = ["all_proxy", "ALL_PROXY"]
        .iter()
        .find(|name| outside.variables.get(**name).and_then(|text| set(text)).is_some());
    if let (Some(name), None) = (all, &https) {
        let text = format!("ignoring {name}, as in Java (set HTTPS_PROXY)");
        warnings.push(Remark { line: None, key: Some((*name).to_owned()), text });
    }
    let bundle = |name| {
        let found = outside.find(name);
        found.map(|found| CaBundle { file: found.value.to_owned(), source: found.source })
    };
    let (ca, ca_file, ca_folder) = (bundle(CA_BUNDLE), bundle(SSL_CERT_FILE), bundle(SSL_CERT_DIR));
    Network { http, https, exempt, ca, ca_file, ca_folder }
}

struct Scheme {
    name: &'static str,
    host: Name,
    port: &'static str,
    default_port: &'static str,
    user: &'static str,
    password: &'static str,
}

const HTTP: Scheme = Scheme {
    name: "http",
    host: name("http.proxyHost", &["http_proxy", "HTTP_PROXY"], ""),
    port: "http.proxyPort",
    default_port: "80",
    user: "http.proxyUser",
    password: "http.proxyPassword",
};

const HTTPS: Scheme = Scheme {
    name: "https",
    host: name("https.proxyHost", &["https_proxy", "HTTPS_PROXY"], ""),
    port: "https.proxyPort",
    default_port: "443",
    user: "https.proxyUser",
    password: "https.proxyPassword",
};

fn proxy(outside: &Outside<'_>, scheme: &Scheme) -> Result<Option<Proxy>, (Source, String)> {
    let Some(found) = outside.find(scheme.host) else { return Ok(None) };
    let source = found.source;
    let parsed = if let Source::Property(_) = source {
        let properties = outside.properties;
        let port = properties.get(scheme.port).unwrap_or(scheme.default_port);
        let user = properties.get(scheme.user).map(|user| {
            (
                encoded(user.as_bytes()),
                encoded(properties.get(scheme.password).unwrap_or_default().as_bytes()),
            )
        });
        parse(&format!("http://{}:{port}", found.value)).map(|(url, _)| (url, user))
    } else {
        parse(found.value)
    };
    parsed.map(|(url, user)| Some(Proxy { url, user, source })).map_err(|why| (source, why))
}

/// User and password of a proxy.
type User = Option<(String, String)>;

/// Splits a proxy's URL into the part that may be shown, and the credentials. No error repeats the text,
/// which can contain a password.
fn parse(text: &str) -> Result<(String, User), String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("http", text));
    let scheme = scheme.to_ascii_lowercase();
    if scheme != "http" && scheme != "https" {
        return Err(format!("{scheme} proxies are not supported, only http and https ones"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let (user, place) = match authority.rsplit_once('@') {
        Some((user, place)) => (Some(user), place),
        None => (None, authority),
    };
    let unreadable = || "it must be http://HOST:PORT or http://USER:PASSWORD@HOST:PORT".to_owned();
    let (host, port) = host_of(place).ok_or_else(unreadable)?;
    let is_host = |c: char| c.is_ascii_alphanumeric() || ".-_:".contains(c);
    if host.is_empty() || !host.chars().all(is_host) {
        return Err(unreadable());
    }
    let host = if host.contains(':') { format!("[{host}]") } else { host.to_owned() };
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    let user = user.map(|user| {
        let (user, password) = user.split_once(':').unwrap_or((user, ""));
        (encoded(&decoded(user)), encoded(&decoded(password)))
    });
    Ok((format!("{scheme}://{host}{port}"), user))
}

fn decoded(text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        let code = digits.filter(|_| *first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok());
        out.push(code.unwrap_or(*first));
        rest = if code.is_some() { &tail[2..] } else { tail };
    }
    out
}

/// Percent-encodes bytes for a URL.
fn encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for byte in bytes {
        if byte.is_ascii_alphanumeric() {
            out.push(char::from(*byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Hosts that the variable or the system property exempts.
fn exempt(outside: &Outside<'_>, warnings: &mut Vec<Remark>) -> Vec<Rule> {
    let mut rules = Vec::new();
    if let Some(found) = outside.find(name("", &["no_proxy", "NO_PROXY"], "")) {
        let entries = found.value.split([',', '|', ' ', '\t']).filter(|entry| !entry.is_empty());
        for entry in entries {
            match Rule::of_variable(entry) {
                Some(rule) => rules.push(rule),
                None => {
                    let text = format!(
                        "{}: {entry:?} is skipped: it is neither a host nor an address",
                        found.source
                    );
                    warnings.push(Remark { line: None, key: Some(found.source.to_string()), text });
                }
            }
        }
    }
    let given = outside.properties.get("http.nonProxyHosts").unwrap_or_default();
    rules.extend(given.split('|').filter_map(set).map(Rule::of_property));
    rules
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::super::Profile;
    use super::super::jvm::Properties;
    use super::*;

    fn network(variables: &[(&str, &str)], words: &[&str]) -> (Network, Vec<String>) {
        let pairs = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let variables: BTreeMap<String, String> = pairs.collect();
        let words: Vec<String> = words.iter().map(|word| (*word).to_owned()).collect();
        let (properties, profile) = (Properties::read(&variables, &words), Profile::default());
        let outside = Outside { variables: &variables, properties: &properties, profile: &profile };
        let mut warnings = Vec::new();
        let found = resolve(&outside, &mut warnings);
        (found, warnings.into_iter().map(|warning| warning.text).collect())
    }

    fn urls(network: &Network, urls: &[&str]) -> Vec<bool> {
        urls.iter().map(|url| network.proxy(url).is_some()).collect()
    }

    #[test]
    fn proxy_of_the_endpoints_scheme_is_chosen() {
        let (found, warnings) =
            network(&[("HTTPS_PROXY", "http://s:1"), ("HTTP_PROXY", "h:2"), ("https_proxy", " ")], &[]);
        assert_eq!(found.proxy("https://kinesis.example/").unwrap().url, "http://s:1");
        assert_eq!(found.proxy("http://kinesis.example:4566/").unwrap().url, "http://h:2");
        assert_eq!(warnings, [""; 0]);
        let (found, _) = network(&[("HTTPS_PROXY", "http://upper"), ("https_proxy", "http://lower")], &[]);
        let proxy = found.proxy("https://kinesis.example").unwrap();
        assert_eq!((proxy.url.as_str(), proxy.source), ("http://lower", Source::Variable("https_proxy")));
        assert!(found.proxy("http://kinesis.example").is_none());
    }

    #[test]
    fn system_property_precedes_the_variable() {
        let words = ["-Dhttps.proxyHost=p.corp", "-Dhttps.proxyPort=3128", "-Dhttps.proxyUser=a b"];
        let (found, _) = network(&[("HTTPS_PROXY", "http://v")], &words);
        let proxy = found.https.unwrap();
        assert_eq!(
            (proxy.url.as_str(), proxy.source),
            ("http://p.corp:3128", Source::Property("https.proxyHost"))
        );
        assert_eq!(proxy.user, Some(("a%20b".to_owned(), String::new())));
        assert_eq!(network(&[], &words[..1]).0.https.unwrap().url, "http://p.corp:443", "Java's default");
    }

    #[test]
    fn metadata_services_and_this_machine_are_always_direct() {
        let (found, _) = network(&[("HTTP_PROXY", "http://p"), ("HTTPS_PROXY", "http://p")], &[]);
        let near = [
            "http://169.254.169.254/latest",
            "http://169.254.170.2/v2",
            "http://169.254.170.23/v1",
            "http://[fd00:ec2::254]/latest",
            "http://[fd00:ec2::23]/",
            "http://127.0.0.1:4566",
            "https://localhost:1/",
            "http://[::1]:4567/x",
            "http://[::ffff:127.0.0.1]/",
            "http://kinesis.LOCALHOST/",
        ];
        assert_eq!(urls(&found, &near), [false; 10]);
        let far = ["https://kinesis.eu-west-1.amazonaws.com/", "http://10.0.0.1/", "http://notlocalhost/"];
        assert_eq!(urls(&found, &far), [true; 3]);
    }

    #[test]
    fn no_proxy_exempts_domains_addresses_and_networks() {
        let rules = "internal.example, .amazonaws.com|*.corp  10.0.0.0/8,fd12::/16,192.0.2.7,with.port:8443";
        let (found, warnings) = network(&[("HTTPS_PROXY", "http://p"), ("NO_PROXY", rules)], &[]);
        assert_eq!(warnings, [""; 0]);
        let exempt = [
            "https://internal.example/",
            "https://a.Internal.Example",
            "https://kinesis.us-east-1.amazonaws.com/",
            "https://x.corp",
            "https://10.9.8.7:1/",
            "https://[fd12::1]/",
            "https://192.0.2.7",
            "https://with.port:8443",
        ];
        assert_eq!(urls(&found, &exempt), [false; 8]);
        let proxied = [
            "https://notinternal.example",
            "https://11.0.0.1",
            "https://[fd13::1]",
            "https://192.0.2.8",
            "https://with.port",
        ];
        assert_eq!(urls(&found, &proxied), [true; 5]);
        let (found, _) = network(&[("HTTPS_PROXY", "http://p"), ("no_proxy", "*")], &[]);
        assert_eq!(urls(&found, &proxied), [false; 5]);
        let (_, warnings) = network(&[("NO_PROXY", "10.0.0.0/33")], &[]);
        assert_eq!(warnings.len(), 1);
    }

    #[test]
    fn non_proxy_hosts_match_as_in_java() {
        let words =
            ["-Dhttps.proxyHost=p", "-Dhttp.nonProxyHosts=*.internal|kinesis.*|exact.example|[fd12::1]"];
        let (found, _) = network(&[], &words);
        let exempt =
            ["https://a.internal", "https://kinesis.eu", "https://EXACT.example", "https://[fd12::1]:4"];
        assert_eq!(urls(&found, &exempt), [false; 4]);
        let proxied = ["https://internal", "https://a.kinesis.eu", "https://sub.exact.example"];
        assert_eq!(urls(&found, &proxied), [true; 3]);
    }

    #[test]
    fn unusable_proxy_warns_without_its_password() {
        for text in
            ["socks5://me:hush@p:1", "http://me:hush@:3128", "http://me:hush@p:x", "http://me:hush@a b"]
        {
            let (found, warnings) = network(&[("HTTPS_PROXY", text)], &[]);
            assert!(found.https.is_none() && warnings.len() == 1, "{text}: {warnings:?}");
            assert!(warnings[0].contains("HTTPS_PROXY") && !warnings[0].contains("hush"), "{warnings:?}");
        }
        let (_, warnings) = network(&[("ALL_PROXY", "http://p")], &[]);
        assert!(warnings.len() == 1 && warnings[0].contains("ALL_PROXY"), "{warnings:?}");
        let (_, warnings) = network(&[("ALL_PROXY", "http://p"), ("HTTPS_PROXY", "http://p")], &[]);
        assert_eq!(warnings, [""; 0]);
    }

    #[test]
    fn proxy_credentials_are_decoded_once_and_never_shown() {
        let (found, _) = network(&[("HTTPS_PROXY", "http://me:hu%40sh%@[2001:db8::1]:3128/x")], &[]);
        let proxy = found.https.clone().unwrap();
        assert_eq!(proxy.url, "http://[2001:db8::1]:3128");
        assert_eq!(proxy.user, Some(("me".to_owned(), "hu%40sh%25".to_owned())));
        assert!(!format!("{found:?} {proxy}").contains("hu"));
    }

    #[test]
    fn blank_ca_bundle_is_not_set() {
        let files = |variables: &[(&str, &str)]| {
            let (found, _) = network(variables, &[]);
            (found.ca.map(|ca| ca.file), found.ca_file.map(|ca| ca.file))
        };
        let (a, b) = (Some("/a".to_owned()), Some("/b".to_owned()));
        assert_eq!(files(&[("AWS_CA_BUNDLE", "/a"), ("SSL_CERT_FILE", "/b")]), (a, b.clone()));
        assert_eq!(files(&[("AWS_CA_BUNDLE", ""), ("SSL_CERT_FILE", "/b")]), (None, b));
    }

    proptest::proptest! {
        #[test]
        fn arbitrary_text_does_not_panic(proxy in "(https?://)?[ -~ü]{0,20}", rules in "[ -~ü]{0,20}", url in "https://[ -~ü]{0,20}") {
            let (found, _) = network(&[("HTTPS_PROXY", &proxy), ("NO_PROXY", &rules)], &[]);
            let _route = found.proxy(&url);
        }
    }
}
