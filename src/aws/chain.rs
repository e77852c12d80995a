//! A chain of credentials providers that are tried in order, with one error line about all of them if none
//! has credentials.
//!
//! In the Java SDK: `AwsCredentialsProviderChain`. The SDK's own chain logs each attempt with its causes, in
//! several hundred characters, and names neither files nor variables.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aws_credential_types::provider::error::CredentialsError;
use aws_credential_types::provider::{self, future};
use aws_sdk_dynamodb::config::{Credentials, ProvideCredentials, SharedCredentialsProvider};
use tokio::time::{Instant, timeout};
use tracing::debug;

/// Timeout of the first load. A provider that takes longer fails for another reason than missing credentials.
const FIRST: Duration = Duration::from_secs(10);
/// Credentials that were loaded before the first call serve it for this time. The next calls can be an hour later, when
/// those credentials have expired or been replaced.
const FRESH: Duration = Duration::from_secs(10);

/// Several providers. Clones share the loaded credentials.
#[derive(Debug, Clone)]
pub struct Chain(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// The providers as the properties file names them.
    name: String,
    steps: Vec<Step>,
    /// Credentials that were loaded before the first call of a client, and when.
    first: Mutex<Option<(Instant, Credentials)>>,
    /// Whether a client has got credentials.
    has_given: AtomicBool,
}

/// One provider of a chain.
#[derive(Debug)]
pub(super) struct Step {
    /// The place where it looks for credentials.
    place: String,
    provider: SharedCredentialsProvider,
    /// Whether any failure means that there are no credentials, because the place may not exist.
    may_be_missing: bool,
}

impl Step {
    pub(super) fn new(place: impl Into<String>, provider: impl ProvideCredentials + 'static) -> Self {
        let provider = SharedCredentialsProvider::new(provider);
        Self { place: place.into(), provider, may_be_missing: false }
    }

    /// Marks a place that exists only on some machines. On others anything may answer at its address, such as
    /// a proxy that refuses.
    pub(super) fn may_be_missing(self) -> Self {
        Self { may_be_missing: true, ..self }
    }
}

/// No provider has credentials.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "failed to load AWS credentials from AWSCredentialsProvider = {name}: found none in {places} (set \
     AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, name a profile that has credentials in AWS_PROFILE, or \
     assign a role to the task, the pod or the instance)"
)]
pub struct NoCredentials {
    name: String,
    places: String,
}

impl NoCredentials {
    /// The `NoCredentials` among the causes of an error.
    pub(super) fn of<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Self> {
        std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
    }
}

impl Chain {
    pub(super) fn new(name: String, steps: Vec<Step>) -> Self {
        Self(Arc::new(Inner { name, steps, first: Mutex::default(), has_given: AtomicBool::new(false) }))
    }

    /// Loads credentials for the first call, unless a client has got some already: clients of other applications share
    /// this chain.
    ///
    /// # Errors
    /// There are none. Other failures are ignored here: they may be temporary, and the calls report them.
    pub async fn load(&self) -> Result<(), NoCredentials> {
        if self.0.has_given.load(Ordering::Relaxed) {
            return Ok(());
        }
        match timeout(FIRST, self.ask()).await {
            Ok(Ok(credentials)) => {
                self.keep(credentials);
                Ok(())
            }
            Ok(Err(error)) => NoCredentials::of(&error).cloned().map_or(Ok(()), Err),
            Err(_) => Ok(()),
        }
    }

    /// The place of the first provider that has credentials. They are kept for the first call.
    ///
    /// # Errors
    /// Why there are none.
    pub async fn locate(&self) -> Result<String, String> {
        match timeout(FIRST, self.find()).await {
            Ok(Ok((place, credentials))) => {
                self.keep(credentials);
                Ok(place.to_owned())
            }
            Ok(Err(error)) => Err(super::error::causes(&error)),
            Err(_) => Err(format!(
                "failed to load AWS credentials from AWSCredentialsProvider = {}: no answer within {} s",
                self.0.name,
                FIRST.as_secs()
            )),
        }
    }

    fn keep(&self, credentials: Credentials) {
        let first = Some((Instant::now(), credentials));
        *self.0.first.lock().unwrap_or_else(PoisonError::into_inner) = first;
    }

    async fn ask(&self) -> provider::Result {
        self.find().await.map(|(_, credentials)| credentials)
    }

    /// The first credentials, with their place.
    async fn find(&self) -> Result<(&str, Credentials), CredentialsError> {
        let mut places = Vec::with_capacity(self.0.steps.len());
        for Step { place, provider, may_be_missing } in &self.0.steps {
            let error = match provider.provide_credentials().await {
                Ok(credentials) => return Ok((place, credentials)),
                Err(error) => error,
            };
            if !(*may_be_missing || matches!(error, CredentialsError::CredentialsNotLoaded(_))) {
                return Err(error);
            }
            debug!(place, error = super::error::causes(&error), "found no credentials in this provider");
            places.push(format!("{place}{}", reason(&error)));
        }
        let (name, places) = (self.0.name.clone(), places.join(", "));
        Err(CredentialsError::not_loaded(NoCredentials { name, places }))
    }

    async fn provide(&self) -> provider::Result {
        let first = self.0.first.lock().unwrap_or_else(PoisonError::into_inner).take();
        let provided = match first {
            Some((at, credentials)) if at.elapsed() <= FRESH => Ok(credentials),
            _ => self.ask().await,
        };
        if provided.is_ok() {
            self.0.has_given.store(true, Ordering::Relaxed);
        }
        provided
    }
}

/// Why a place has no credentials, in brackets, if its provider says so briefly.
fn reason(error: &CredentialsError) -> String {
    let first = std::error::Error::source(error);
    let causes = std::iter::successors(first, |error| error.source()).map(ToString::to_string);
    let text = causes.collect::<Vec<_>>().join(": ").split_whitespace().collect::<Vec<_>>().join(" ");
    // An unset variable is the usual case, and the list of places says as much.
    let says_more = !["not set", "must be set", "not configured"].iter().any(|usual| text.contains(usual));
    if says_more && !text.is_empty() && text.len() <= 200 { format!(" ({text})") } else { String::new() }
}

impl ProvideCredentials for Chain {
    fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
    where
        Self: 'a,
    {
        future::ProvideCredentials::new(self.provide())
    }

    fn fallback_on_interrupt(&self) -> Option<Credentials> {
        self.0.steps.iter().find_map(|step| step.provider.fallback_on_interrupt())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Fails(fn() -> CredentialsError);

    impl ProvideCredentials for Fails {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err((self.0)()))
        }
    }

    fn none() -> Step {
        Step::new("place one", Fails(|| CredentialsError::not_loaded("no\nfile")))
    }

    #[tokio::test]
    async fn missing_credentials_are_one_line_with_all_places() {
        let second =
            Step::new("VARIABLE", Fails(|| CredentialsError::not_loaded("environment variable not set")));
        let chain = Chain::new("A, B".to_owned(), vec![none(), second]);
        let text = chain.load().await.unwrap_err().to_string();
        assert!(text.contains("AWSCredentialsProvider = A, B: ") && text.lines().count() == 1, "{text}");
        assert!(text.contains("place one (no file), VARIABLE ("), "{text}");
    }

    #[tokio::test]
    async fn place_of_credentials_is_located() {
        let keys = Step::new("k", Credentials::new("i", "s", None, None, "t"));
        let chain = Chain::new("A".to_owned(), vec![none(), keys]);
        assert_eq!(chain.locate().await.as_deref(), Ok("k"));
        assert!(chain.0.first.lock().unwrap().is_some());
        let text = Chain::new("A".to_owned(), vec![none()]).locate().await.unwrap_err();
        assert!(text.contains("place one"), "{text}");
    }

    #[tokio::test]
    async fn failing_provider_does_not_mean_missing_credentials() {
        let fails = Step::new("STS", Fails(|| CredentialsError::provider_error("throttled")));
        assert_eq!(Chain::new("A".to_owned(), vec![none(), fails]).load().await, Ok(()));
    }

    #[tokio::test]
    async fn failing_optional_place_counts_as_missing() {
        let fails = || Step::new("metadata", Fails(|| CredentialsError::provider_error("forbidden")));
        let chain = Chain::new("A".to_owned(), vec![none(), fails().may_be_missing()]);
        let text = chain.load().await.unwrap_err().to_string();
        assert!(text.contains("metadata (forbidden)"), "{text}");
    }

    #[tokio::test]
    async fn preloaded_credentials_are_used_once() {
        let chain =
            Chain::new("A".to_owned(), vec![Step::new("k", Credentials::new("i", "s", None, None, "t"))]);
        assert_eq!(chain.load().await, Ok(()));
        assert!(chain.0.first.lock().unwrap().is_some());
        assert_eq!(chain.provide_credentials().await.unwrap().access_key_id(), "i");
        assert!(chain.0.first.lock().unwrap().is_none());
    }

    /// Gives other credentials each time.
    #[derive(Debug, Default)]
    struct Rotates(std::sync::atomic::AtomicUsize);

    impl ProvideCredentials for Rotates {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            let id = self.0.fetch_add(1, Ordering::Relaxed).to_string();
            future::ProvideCredentials::ready(Ok(Credentials::new(id, "s", None, None, "t")))
        }
    }

    #[tokio::test(start_paused = true)]
    async fn preloaded_credentials_are_dropped_after_seconds() {
        let chain = Chain::new("A".to_owned(), vec![Step::new("k", Rotates::default())]);
        assert_eq!(chain.load().await, Ok(()));
        tokio::time::advance(FRESH + Duration::from_secs(1)).await;
        assert_eq!(chain.provide_credentials().await.unwrap().access_key_id(), "1");
    }

    #[tokio::test]
    async fn chain_in_use_loads_no_first_credentials() {
        let chain = Chain::new("A".to_owned(), vec![Step::new("k", Rotates::default())]);
        assert_eq!(chain.load().await, Ok(()));
        assert_eq!(chain.provide_credentials().await.unwrap().access_key_id(), "0");
        assert_eq!(chain.clone().load().await, Ok(()));
        assert!(chain.0.first.lock().unwrap().is_none());
        assert_eq!(chain.provide_credentials().await.unwrap().access_key_id(), "1");
    }
}
