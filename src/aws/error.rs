//! Classifies failures of the SDK by their meaning for the caller. The only module that uses error codes.

use aws_credential_types::provider::error::CredentialsError;
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::SdkError;
use aws_smithy_runtime_api::http::StatusCode;
use aws_smithy_types::error::metadata::ProvideErrorMetadata;

use super::chain::NoCredentials;
use crate::lease::{LeaseKey, table};

/// The status of endpoints other than AWS's for calls that they do not support.
const NOT_IMPLEMENTED: u16 = 501;

/// Kinesis uses this status for its own faults too, but with a JSON body.
const FAULT: u16 = 500;
/// The code that an HTML page gets, since it has none.
const PAGE: &str = "HtmlPage";

/// Whether the answer is an HTML page.
fn is_page(answer: &HttpResponse) -> bool {
    let body = answer.body().bytes().unwrap_or_default();
    body.trim_ascii_start().starts_with(b"<")
}

/// The failure of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Failure {
    /// The service refused: the code, the message, and whether the service is at fault.
    Answered { code: String, message: String, service_fault: bool },
    /// No readable answer came in time: the request may have been executed.
    Unanswered(String),
    /// The request was not sent.
    NotSent(String),
}

pub(super) fn failure<E>(error: &SdkError<E, HttpResponse>) -> Failure
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    #[expect(clippy::wildcard_enum_match_arm, reason = "the enum is open: an unknown failure proves nothing")]
    match error {
        SdkError::ServiceError(answer) => answered(answer.err(), answer.raw().status()),
        SdkError::ResponseError(answer)
            if answer.raw().status().as_u16() == FAULT && is_page(answer.raw()) =>
        {
            let message = "status 500 with a page of HTML".to_owned();
            Failure::Answered { code: PAGE.to_owned(), message, service_fault: true }
        }
        SdkError::ConstructionFailure(_) => Failure::NotSent(causes(error)),
        SdkError::DispatchFailure(failure) if failure.is_user() => Failure::NotSent(causes(error)),
        // The SDK may add variants; none of them proves that the request was not executed.
        _ => Failure::Unanswered(causes(error)),
    }
}

/// The failure of an answer with that error and that status.
pub(super) fn answered(error: &impl ProvideErrorMetadata, status: StatusCode) -> Failure {
    let code = if status.as_u16() == NOT_IMPLEMENTED { Some("NotImplemented") } else { error.code() };
    Failure::Answered {
        code: code.unwrap_or("unknown error").to_owned(),
        message: error.message().unwrap_or_default().to_owned(),
        service_fault: status.is_server_error(),
    }
}

/// Most characters of an error's text. It contains the relevant parts, the endpoint and the system's error.
const MOST: usize = 500;

/// The chain of causes as text, down to the system's error.
pub(super) fn causes(error: &(dyn std::error::Error + 'static)) -> String {
    if let Some(none) = NoCredentials::of(error) {
        // The outer errors say less, and this text is complete.
        return none.to_string();
    }
    let mut said = Vec::new();
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            // The outer errors say less.
            said = vec!["failed to load AWS credentials from AWSCredentialsProvider".to_owned()];
        }
        let text = error.to_string().split_whitespace().collect::<Vec<_>>().join(" ");
        if said.last() != Some(&text) {
            said.push(text);
        }
        next = error.source();
    }
    let text = said.join(": ");
    format!("{}{}", shortened(&text), hint(&text))
}

/// Cuts a text between two words.
fn shortened(text: &str) -> String {
    let Some((end, _)) = text.char_indices().nth(MOST) else { return text.to_owned() };
    let end = text[..end].rfind(' ').unwrap_or(end);
    format!("{} ...", &text[..end])
}

/// A remedy for errors that proxies and private networks cause.
fn hint(text: &str) -> &'static str {
    if text.contains("UnknownIssuer") {
        " (the certificate's CA is not trusted: set AWS_CA_BUNDLE to a PEM file that holds it)"
    } else if text.contains("proxy authorization required") {
        " (put USER:PASSWORD@ into the proxy's URL)"
    } else {
        ""
    }
}

impl Failure {
    pub(super) fn code(&self) -> &str {
        match self {
            Self::Answered { code, .. } => code,
            Self::Unanswered(_) | Self::NotSent(_) => "",
        }
    }

    pub(super) fn is_throttling(&self) -> bool {
        matches!(
            self.code(),
            "ProvisionedThroughputExceededException"
                | "ThrottlingException"
                | "RequestLimitExceeded"
                | "LimitExceededException"
                | "KMSThrottlingException"
        )
    }
}

impl Failure {
    /// Whether the service rejected the request, for a reason that is not its load or its own fault.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self, Self::Answered { service_fault: false, .. }) && !self.is_throttling()
    }

    /// Whether the endpoint does not know the call.
    pub(super) fn is_unknown_call(&self) -> bool {
        matches!(self.code(), "UnknownOperationException" | "InvalidAction" | "NotImplemented")
    }

    /// Whether the endpoint answered with an HTML page, as some emulators do for calls of enhanced fan-out,
    /// which they do not support.
    pub(super) fn is_page(&self) -> bool {
        self.code() == PAGE
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Answered { code, message, .. } if message.is_empty() => f.write_str(code),
            Self::Answered { code, message, .. } => write!(f, "{code}: {message}"),
            Self::Unanswered(text) | Self::NotSent(text) => f.write_str(text),
        }
    }
}

/// The error of a failed request on a table. `written` names the row of a conditional write; a read can be
/// neither conflicting nor ambiguous.
pub(super) fn classify<E>(
    table: &str,
    error: &SdkError<E, HttpResponse>,
    written: Option<&LeaseKey>,
) -> table::Error
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    table_error(table, &failure(error), written)
}

/// As [`classify`], for a failure.
pub(super) fn table_error(table: &str, failure: &Failure, written: Option<&LeaseKey>) -> table::Error {
    use table::Error;
    let text = format!("table {table}: {failure}");
    match (failure, written) {
        (Failure::Answered { code, .. }, Some(row)) if code == "ConditionalCheckFailedException" => {
            Error::Conflict(row.clone())
        }
        // The reasons are only in the message: one for each step, in order.
        (Failure::Answered { code, message, .. }, Some(row))
            if code == "TransactionCanceledException" && message.contains("ConditionalCheckFailed") =>
        {
            Error::Conflict(row.clone())
        }
        (Failure::Answered { code, .. }, Some(_)) if code == "TransactionCanceledException" => {
            Error::Unavailable(text)
        }
        (Failure::Answered { code, .. }, _) if code == "ResourceNotFoundException" => {
            Error::Missing(table.to_owned())
        }
        (failure, _) if failure.is_throttling() => Error::Throttled(text),
        (Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_), Some(_)) => {
            Error::Ambiguous(text)
        }
        (Failure::Answered { service_fault: true, .. } | Failure::Unanswered(_), None) => {
            Error::Unavailable(text)
        }
        (Failure::Answered { .. } | Failure::NotSent(_), _) => Error::Denied(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_dynamodb::operation::scan::ScanError;
    use aws_smithy_runtime_api::client::result::ConnectorError;
    use aws_smithy_types::body::SdkBody;
    use aws_smithy_types::error::ErrorMetadata;

    fn answered(status: u16, code: &str) -> SdkError<ScanError, HttpResponse> {
        let raw = HttpResponse::new(StatusCode::try_from(status).unwrap(), SdkBody::empty());
        SdkError::service_error(ScanError::generic(ErrorMetadata::builder().code(code).build()), raw)
    }

    #[test]
    fn write_without_an_answer_may_have_been_applied() {
        let io = || "connection reset".into();
        let raw = || HttpResponse::new(StatusCode::try_from(200).unwrap(), SdkBody::empty());
        let unanswered: [SdkError<ScanError, HttpResponse>; 6] = [
            SdkError::timeout_error("no answer in time"),
            SdkError::dispatch_failure(ConnectorError::io(io())),
            SdkError::dispatch_failure(ConnectorError::timeout(io())),
            SdkError::dispatch_failure(ConnectorError::other(io(), None)),
            SdkError::response_error("unreadable", raw()),
            answered(500, "InternalServerError"),
        ];
        for error in unanswered {
            let write = classify("t", &error, Some(&"s".into()));
            assert!(matches!(write, table::Error::Ambiguous(_)), "{error:?}: {write:?}");
            let read = classify("t", &error, None);
            assert!(matches!(read, table::Error::Unavailable(_)), "{error:?}: {read:?}");
        }
    }

    #[test]
    fn refused_or_unsent_write_has_not_been_applied() {
        use table::Error;
        let row = LeaseKey::from("s");
        let write = |error| classify("t", &error, Some(&row));
        assert_eq!(write(answered(400, "ConditionalCheckFailedException")), Error::Conflict("s".into()));
        assert!(matches!(write(answered(400, "ThrottlingException")), Error::Throttled(_)));
        assert!(matches!(write(answered(400, "AccessDeniedException")), Error::Denied(_)));
        assert!(matches!(write(SdkError::construction_failure("no such header")), Error::Denied(_)));
        let user = SdkError::dispatch_failure(ConnectorError::user("not a URL".into()));
        assert!(matches!(write(user), Error::Denied(_)));
    }

    #[test]
    fn missing_credentials_replace_their_causes() {
        let none = CredentialsError::not_loaded("nobody has any");
        let error: SdkError<ScanError, HttpResponse> =
            SdkError::dispatch_failure(ConnectorError::other(none.into(), None));
        let Failure::Unanswered(text) = failure(&error) else { panic!("{error:?}") };
        assert!(text.starts_with("failed to load AWS credentials from AWSCredentialsProvider: "), "{text}");
        assert!(text.ends_with("nobody has any"), "{text}");
    }

    #[test]
    fn long_error_is_cut_between_words_with_its_hint() {
        let text = causes(&ConnectorError::io(format!("{} UnknownIssuer", "word ".repeat(300)).into()));
        assert!(text.contains("word ... (") && text.contains("AWS_CA_BUNDLE"), "{text}");
        assert!(text.len() < MOST + 150);
    }
}
