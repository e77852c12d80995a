//! The CA certificates by which endpoints are verified: those of the settings, otherwise those of the system, and if it has
//! none, those of Mozilla's list that are part of this binary.
//!
//! Certificates are only read for a connection with TLS, and by `multilangd check`.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, OnceLock};

use aws_smithy_http_client::tls::{TlsContext, TrustStore};
use rustls::RootCertStore;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls_native_certs::CertificateResult;
use tracing::{info, warn};
use webpki_root_certs::TLS_SERVER_ROOT_CERTS as BUILT_IN;

use crate::config::Source;
use crate::config::sdk::network::{CaBundle, Network};

/// The CA bundle cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to load the CA bundle {source_name} = {file}: {why} (expected a PEM file with the \
     certificates of the trusted CAs)"
)]
pub struct BadBundle {
    source_name: Source,
    file: String,
    why: String,
}

/// The certificates of one set of clients.
#[derive(Debug, Clone)]
pub(super) struct Trusted {
    network: Arc<Network>,
    /// None for those of the system, which the TLS library loads. Empty until a connection needs them.
    context: Arc<OnceLock<Option<TlsContext>>>,
}

impl Trusted {
    /// The certificates for a connection; none for those that the TLS library loads by itself.
    pub(super) fn get(&self) -> Option<&TlsContext> {
        let load = || {
            let mut certs = Vec::new();
            let origin = chosen(&self.network, || {
                let (found, system) = System::look(&self.network);
                certs = found;
                system
            });
            origin.log();
            match origin {
                // Loaded when this was made.
                Origin::Files(_) => None,
                // The TLS library would load what a blank variable names: nothing.
                Origin::System(_) if !has_blank_variable() => None,
                Origin::Folder(..) | Origin::System(_) => context(certs.iter().map(pem)).ok(),
                Origin::BuiltIn(_) => context(BUILT_IN.iter().map(pem)).ok(),
            }
        };
        self.context.get_or_init(load).as_ref()
    }
}

/// The certificates for clients with these settings.
///
/// # Errors
/// [`BadBundle`].
pub(super) fn trusted(network: &Network) -> Result<Trusted, BadBundle> {
    let context = OnceLock::new();
    let files: Vec<&CaBundle> = network.ca.iter().chain(&network.ca_file).collect();
    if let Some(first) = files.first() {
        let pems = files.iter().map(|file| certificates(file)).collect::<Result<Vec<_>, _>>()?;
        // `AWS_CA_BUNDLE` replaces the folder, `SSL_CERT_FILE` does not.
        let folder = network.ca_folder.as_ref().filter(|_| network.ca.is_none());
        let beside = folder.map(|folder| valid(of_folders(folder))).unwrap_or_default();
        let made = self::context(pems.into_iter().flatten().chain(beside.iter().map(pem)));
        let made = made.map_err(|error| first.bad(error))?;
        context.get_or_init(|| Some(made));
    }
    Ok(Trusted { network: Arc::new(network.clone()), context: Arc::new(context) })
}

fn context(pems: impl Iterator<Item = String>) -> Result<TlsContext, impl fmt::Display> {
    let mut store = TrustStore::empty();
    for pem in pems {
        store.add_pem_certificate(pem);
    }
    TlsContext::builder().with_trust_store(store).build()
}

/// Checks the CA bundle.
///
/// # Errors
/// [`BadBundle`].
pub fn check_bundle(network: &Network) -> Result<(), BadBundle> {
    trusted(network).map(drop)
}

/// Which certificates are in use, for people.
pub fn in_use(network: &Network) -> String {
    chosen(network, || System::look(network).1).to_string()
}

/// Where Linux distributions and macOS keep the CA certificates of the system in one file. The TLS library
/// searches the same files on Linux.
const SYSTEM_BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/ssl/cert.pem",
];

/// Folders of such files.
const SYSTEM_FOLDERS: &[&str] = &["/etc/ssl/certs", "/etc/pki/tls/certs"];

/// The certificates of the system, or of the folder that `SSL_CERT_DIR` names in their place.
#[derive(Debug, Clone, PartialEq, Eq)]
struct System {
    /// The number of valid ones.
    valid: usize,
    /// Why there are no others.
    fault: Option<String>,
}

impl System {
    /// The valid certificates, with what there is to say about them.
    fn look(network: &Network) -> (Vec<CertificateDer<'static>>, Self) {
        let (found, files) = match &network.ca_folder {
            Some(folder) => (of_folders(folder), &[][..]),
            None if has_blank_variable() => (of_platform(SYSTEM_BUNDLES, SYSTEM_FOLDERS), SYSTEM_BUNDLES),
            None => (rustls_native_certs::load_native_certs(), SYSTEM_BUNDLES),
        };
        let system = Self::new(&found, files);
        (valid(found), system)
    }

    /// `files` are those that may exist.
    fn new(found: &CertificateResult, files: &[impl AsRef<Path>]) -> Self {
        let mut store = RootCertStore::empty();
        let (valid, _) = store.add_parsable_certificates(found.certs.iter().cloned());
        let of_file = || {
            let file = files.iter().map(AsRef::as_ref).find(|file| file.exists())?;
            Some(format!("{} contains no certificate", file.display()))
        };
        let fault =
            found.errors.first().map(ToString::to_string).or_else(|| of_file().filter(|_| valid == 0));
        Self { valid, fault }
    }
}

/// Whether one of OpenSSL's variables is set to nothing but blanks. It counts as not set, but not for the TLS library.
fn has_blank_variable() -> bool {
    let is_blank = |name| {
        let value = std::env::var_os(name);
        value.is_some_and(|value| value.to_str().is_some_and(|text| text.trim().is_empty()))
    };
    ["SSL_CERT_FILE", "SSL_CERT_DIR"].into_iter().any(is_blank)
}

/// The certificates of the platform, whatever the variables are: of the first file, and of all folders.
fn of_platform(files: &[impl AsRef<Path>], folders: &[impl AsRef<Path>]) -> CertificateResult {
    let file = files.iter().map(AsRef::as_ref).find(|file| file.exists());
    let folders = folders.iter().map(AsRef::as_ref).filter(|folder| folder.exists());
    of_places(file, folders)
}

/// The certificates of folders that are separated by colons.
fn of_folders(folders: &CaBundle) -> CertificateResult {
    of_places(None, folders.file.split(':').filter(|folder| !folder.is_empty()).map(Path::new))
}

fn of_places<'a>(file: Option<&Path>, folders: impl Iterator<Item = &'a Path>) -> CertificateResult {
    let mut found = rustls_native_certs::load_certs_from_paths(file, None);
    for folder in folders {
        let more = rustls_native_certs::load_certs_from_paths(None, Some(folder));
        found.certs.extend(more.certs);
        found.errors.extend(more.errors);
    }
    found.certs.sort_unstable_by(|one, other| one.as_ref().cmp(other.as_ref()));
    found.certs.dedup();
    found
}

/// The SDK would panic at others.
fn valid(found: CertificateResult) -> Vec<CertificateDer<'static>> {
    let is_valid = |one: &CertificateDer<'static>| RootCertStore::empty().add(one.clone()).is_ok();
    found.certs.into_iter().filter(is_valid).collect()
}

/// Where the certificates in use come from.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Origin {
    /// Files that the settings name, and a folder beside them.
    Files(Vec<CaBundle>),
    /// The folder of `SSL_CERT_DIR`. Built-in certificates never replace it: it may name fewer CAs on purpose.
    Folder(CaBundle, System),
    /// The system, with that number of certificates.
    System(usize),
    /// This binary, and why those of the system are not used; none if it has no file of certificates.
    BuiltIn(Option<String>),
}

/// Chooses the certificates: of the settings, else of the system, else built in.
fn chosen(network: &Network, system: impl FnOnce() -> System) -> Origin {
    let named: Vec<CaBundle> = network.ca.iter().chain(&network.ca_file).cloned().collect();
    if !named.is_empty() {
        // `AWS_CA_BUNDLE` replaces the folder, `SSL_CERT_FILE` does not.
        let folder = network.ca_folder.iter().filter(|_| network.ca.is_none()).cloned();
        return Origin::Files(named.into_iter().chain(folder).collect());
    }
    let system = system();
    match &network.ca_folder {
        Some(folder) => Origin::Folder(folder.clone(), system),
        None if system.valid > 0 => Origin::System(system.valid),
        None => Origin::BuiltIn(system.fault),
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Files(files) => {
                let named = files.iter().map(|one| format!("{} = {}", one.source, one.file));
                f.write_str(&named.collect::<Vec<_>>().join(", "))
            }
            Self::Folder(folder, System { valid, fault }) => {
                write!(f, "{} of {} = {}", valid, folder.source, folder.file)?;
                fault.iter().filter(|_| *valid == 0).try_for_each(|why| write!(f, " ({why})"))
            }
            Self::System(valid) => write!(f, "{valid} of this system"),
            Self::BuiltIn(None) => write!(f, "{} built in: this system has none", BUILT_IN.len()),
            Self::BuiltIn(Some(why)) => write!(f, "{} built in: {why}", BUILT_IN.len()),
        }
    }
}

impl Origin {
    fn log(&self) {
        match self {
            Self::Files(_) | Self::System(_) => {}
            Self::Folder(_, System { valid, .. }) if *valid > 0 => {}
            Self::Folder(..) => warn!(event = "ca_certificates_missing", certificates = %self,
                "found no CA certificate, no endpoint can be verified (correct or unset SSL_CERT_DIR)"),
            Self::BuiltIn(None) => info!(event = "ca_certificates_built_in", certificates = %self,
                "verifying endpoints by the built-in CA certificates"),
            Self::BuiltIn(Some(_)) => warn!(event = "ca_certificates_unusable", certificates = %self,
                "failed to load the CA certificates of this system, verifying endpoints by the built-in ones \
                 (repair its certificates, or set AWS_CA_BUNDLE)"),
        }
    }
}

/// The CA certificates that the clients would use, as one PEM text: those of the settings, otherwise those of
/// the system. None if they are not in a file, but in a folder or nowhere.
///
/// # Errors
/// [`BadBundle`].
pub fn certificates_in_use(network: &Network) -> Result<Option<String>, BadBundle> {
    let named: Vec<&CaBundle> = network.ca.iter().chain(&network.ca_file).collect();
    if named.is_empty() {
        let has_folder = network.ca_folder.is_some();
        return Ok(if has_folder { None } else { first_bundle(SYSTEM_BUNDLES) });
    }
    let pems = named.into_iter().map(certificates).collect::<Result<Vec<_>, _>>()?;
    Ok(Some(pems.concat().concat()))
}

/// The text of the first file with a valid certificate.
fn first_bundle(files: &[impl AsRef<Path>]) -> Option<String> {
    files.iter().find_map(|file| {
        let text = std::fs::read_to_string(file).ok()?;
        let found = CertificateDer::pem_slice_iter(text.as_bytes()).filter_map(Result::ok);
        let (valid, _) = RootCertStore::empty().add_parsable_certificates(found);
        (valid > 0).then_some(text)
    })
}

/// All valid certificates of a bundle, as PEM: bundles of systems contain invalid ones, at which the SDK
/// would panic. A bundle without any is an error, because no call would succeed.
fn certificates(bundle: &CaBundle) -> Result<Vec<String>, BadBundle> {
    let text = std::fs::read(&bundle.file).map_err(|error| bundle.bad(error))?;
    let (mut roots, mut found) = (RootCertStore::empty(), Vec::new());
    for certificate in CertificateDer::pem_slice_iter(&text) {
        let certificate = certificate.map_err(|error| bundle.bad(error))?;
        let pem = pem(&certificate);
        if roots.add(certificate).is_ok() {
            found.push(pem);
        }
    }
    if found.is_empty() {
        return Err(bundle.bad("the file contains no certificate"));
    }
    Ok(found)
}

impl CaBundle {
    fn bad(&self, why: impl fmt::Display) -> BadBundle {
        BadBundle { source_name: self.source, file: self.file.clone(), why: why.to_string() }
    }
}

fn pem(certificate: &CertificateDer<'_>) -> String {
    use base64::Engine as _;
    let text = base64::engine::general_purpose::STANDARD.encode(certificate);
    let mut pem = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        pem.push_str(line);
        pem.push('\n');
        rest = more;
    }
    pem.push_str("-----END CERTIFICATE-----\n");
    pem
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bundle(file: &str) -> CaBundle {
        CaBundle { file: file.to_owned(), source: Source::Variable("AWS_CA_BUNDLE") }
    }

    #[test]
    fn bundle_without_certificates_is_rejected_with_its_name() {
        for file in ["/no/such.pem", "Cargo.toml", "tests/support/tls/key.pem", "."] {
            let error = certificates(&bundle(file)).unwrap_err().to_string();
            assert!(error.contains("AWS_CA_BUNDLE") && error.contains(file), "{error}");
        }
        assert_eq!(certificates(&bundle("tests/support/tls/certificate.pem")).unwrap().len(), 1);
    }

    #[test]
    fn certificates_of_the_settings_precede_those_of_the_system() {
        let file = "tests/support/tls/certificate.pem";
        let mut network = Network::default();
        network.ca = Some(bundle(file));
        network.ca_file = Some(bundle(file));
        let text = certificates_in_use(&network).unwrap().unwrap();
        assert_eq!(CertificateDer::pem_slice_iter(text.as_bytes()).count(), 2);
        network.ca_file = Some(bundle("Cargo.toml"));
        assert!(certificates_in_use(&network).is_err());
        let mut folder = Network::default();
        folder.ca_folder = Some(bundle("/certs"));
        assert_eq!(certificates_in_use(&folder).unwrap(), None);
    }

    #[test]
    fn bundle_of_the_system_without_certificates_is_passed_by() {
        let file = "tests/support/tls/certificate.pem";
        let text = std::fs::read_to_string(file).unwrap();
        let none = ["/dev/null", "/no/such.pem", "Cargo.toml", "tests/support/tls/key.pem"];
        assert_eq!(first_bundle(&none), None);
        assert_eq!(first_bundle(&[&none[..], &[file]].concat()), Some(text));
    }

    #[test]
    fn certificates_are_written_as_they_were_read() {
        let text = std::fs::read("tests/support/tls/certificate.pem").unwrap();
        let certificate = CertificateDer::pem_slice_iter(&text).next().unwrap().unwrap();
        assert_eq!(CertificateDer::from_pem_slice(pem(&certificate).as_bytes()).unwrap(), certificate);
    }

    fn system(valid: usize, fault: Option<&str>) -> System {
        System { valid, fault: fault.map(str::to_owned) }
    }

    #[test]
    fn settings_precede_the_system_and_built_in_certificates() {
        let file = "tests/support/tls/certificate.pem";
        let bare = Network::default();
        assert_eq!(chosen(&bare, || system(140, None)), Origin::System(140));
        assert_eq!(chosen(&bare, || system(1, Some("one is damaged"))), Origin::System(1));
        assert_eq!(chosen(&bare, || system(0, None)), Origin::BuiltIn(None));
        let why = Some("permission denied");
        assert_eq!(chosen(&bare, || system(0, why)), Origin::BuiltIn(why.map(str::to_owned)));
        let never = || unreachable!("the system is not asked");
        let mut named = Network::default();
        named.ca_file = Some(bundle(file));
        assert_eq!(chosen(&named, never), Origin::Files(vec![bundle(file)]));
        named.ca = Some(bundle("a"));
        assert_eq!(chosen(&named, never), Origin::Files(vec![bundle("a"), bundle(file)]));
        let mut folder = Network::default();
        folder.ca_folder = Some(bundle("/certs"));
        let chosen = chosen(&folder, || system(0, None));
        assert_eq!(
            chosen,
            Origin::Folder(bundle("/certs"), system(0, None)),
            "it may name fewer CAs on purpose"
        );
    }

    #[test]
    fn store_of_the_system_that_holds_no_certificate_is_named() {
        let folder = std::env::temp_dir().join(format!("multilangd-roots-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let (file, missing) = (folder.join("certificates.pem"), folder.join("missing.pem"));
        let load = |file: &Path| rustls_native_certs::load_certs_from_paths(Some(file), None);
        let none = CertificateResult::default();
        assert_eq!(System::new(&none, &[&missing]), system(0, None));
        std::fs::write(&file, "").unwrap();
        let empty = System::new(&load(&file), &[&missing, &file]);
        assert!(empty.valid == 0 && empty.fault.unwrap().contains("certificates.pem"));
        let unreadable = System::new(&load(&folder), &[&missing]);
        assert!(unreadable.valid == 0 && unreadable.fault.is_some());
        std::fs::copy("tests/support/tls/certificate.pem", &file).unwrap();
        assert_eq!(System::new(&load(&file), &[&file]), system(1, None));
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn folders_and_files_are_read_as_the_settings_name_them() {
        let folder = std::env::temp_dir().join(format!("multilangd-roots-of-{}", std::process::id()));
        let (one, other) = (folder.join("one"), folder.join("other"));
        for folder in [&one, &other] {
            std::fs::create_dir_all(folder).unwrap();
        }
        let text = std::fs::read("tests/support/tls/certificate.pem").unwrap();
        std::fs::write(one.join("a.pem"), &text).unwrap();
        std::fs::copy("tests/support/tls/private-ca.pem", other.join("b.pem")).unwrap();
        let named = |text: String| of_folders(&bundle(&text)).certs.len();
        assert_eq!(named(one.display().to_string()), 1);
        assert_eq!(named(format!("{}::{}", one.display(), other.display())), 2);
        assert_eq!(named(format!("{0}:{0}", one.display())), 1, "each once");
        let file = one.join("a.pem");
        let found = of_platform(&[&folder.join("missing"), &file], &[&one, &other, &folder.join("missing")]);
        assert_eq!((found.certs.len(), found.errors.len()), (2, 0));
        let mut network = Network::default();
        network.ca_folder = Some(bundle(&other.display().to_string()));
        let (certs, system) = System::look(&network);
        assert_eq!((certs.len(), system.valid), (1, 1));
        assert!(trusted(&network).unwrap().get().is_some(), "not left to the TLS library");
        network.ca_file = Some(bundle(&file.display().to_string()));
        assert!(trusted(&network).unwrap().context.get().unwrap().is_some());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn built_in_certificates_are_valid() {
        let mut store = RootCertStore::empty();
        let (valid, invalid) = store.add_parsable_certificates(BUILT_IN.iter().cloned());
        assert!(valid > 100 && invalid == 0, "{valid} valid, {invalid} not");
        // The CAs of AWS's endpoints.
        let texts = BUILT_IN.iter().map(|one| String::from_utf8_lossy(one).into_owned());
        assert!(texts.filter(|text| text.contains("Amazon Root CA")).count() >= 4);
    }
}
