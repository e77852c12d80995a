//! A reply, as the state of a permission.

use super::port::Reply;

/// The state of a permission.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// It is granted.
    Granted,
    /// It is denied, or a key of KMS cannot be used.
    Denied(String),
    /// AWS does not accept the credentials, for any call.
    Credentials(String),
    /// The call was refused for a reason that shows nothing about the permission.
    Unknown(String),
    /// The endpoint does not support the call.
    Unsupported(String),
    /// The service is at fault.
    Fault(String),
    /// The service was not reached.
    Unreached(String),
}

/// Stands for the code of an answer with status 403 that has none.
pub const FORBIDDEN: &str = "status 403";

/// Missing permissions, and KMS keys that cannot be used: the owner of the key must act.
const DENIED: &[&str] = &[
    "AccessDeniedException",
    "AccessDenied",
    "AuthorizationError",
    FORBIDDEN,
    "NotAuthorizedException",
    "UnauthorizedException",
    "UnauthorizedOperation",
    "KMSAccessDeniedException",
    "KMSDisabledException",
    "KMSInvalidStateException",
    "KMSNotFoundException",
    "KMSOptInRequired",
];
/// Credentials, signatures and accounts that no call can use.
const CREDENTIALS: &[&str] = &[
    "ExpiredToken",
    "ExpiredTokenException",
    "IncompleteSignature",
    "IncompleteSignatureException",
    "InvalidAccessKeyId",
    "InvalidClientTokenId",
    "InvalidSignatureException",
    "InvalidToken",
    "MissingAuthenticationToken",
    "MissingAuthenticationTokenException",
    "OptInRequired",
    "RequestExpired",
    "RequestTimeTooSkewed",
    "SignatureDoesNotMatch",
    "UnrecognizedClientException",
];
/// Refusals that come after the decision about permission.
const PERMITTED: &[&str] = &[
    "ConditionalCheckFailedException",
    "ExpiredIteratorException",
    "KMSThrottlingException",
    "LimitExceededException",
    "ProvisionedThroughputExceededException",
    "RequestLimitExceeded",
    "ResourceInUseException",
    "ResourceNotFoundException",
    "ThrottlingException",
];
const UNSUPPORTED: &[&str] =
    &["HtmlPage", "InvalidAction", "NotImplemented", "UnknownOperationException", "UnsupportedOperation"];

/// Judges a reply.
pub fn judge(reply: &Reply) -> Judgement {
    let (code, message, service_fault) = match reply {
        Reply::Done(_) => return Judgement::Granted,
        Reply::Unreached(why) => return Judgement::Unreached(why.clone()),
        Reply::Refused { code, message, service_fault } => (code.as_str(), message, *service_fault),
    };
    let text = if message.is_empty() { code.to_owned() } else { format!("{code}: {message}") };
    let is_condition = code == "TransactionCanceledException" && message.contains("ConditionalCheckFailed");
    if DENIED.contains(&code) {
        Judgement::Denied(text)
    } else if CREDENTIALS.contains(&code) {
        Judgement::Credentials(text)
    } else if PERMITTED.contains(&code) || is_condition {
        Judgement::Granted
    } else if UNSUPPORTED.contains(&code) {
        Judgement::Unsupported(text)
    } else if service_fault {
        Judgement::Fault(text)
    } else {
        Judgement::Unknown(text)
    }
}

/// Whether the reply says that the resource does not exist.
pub fn is_missing(reply: &Reply) -> bool {
    matches!(reply, Reply::Refused { code, .. } if code == "ResourceNotFoundException")
}

/// Whether a write with an impossible condition was refused for it: further such writes have no effect either. A denied
/// one was not executed, by an endpoint that decides as AWS does.
pub fn is_harmless(reply: &Reply) -> bool {
    let is_condition =
        matches!(reply, Reply::Refused { code, .. } if code == "ConditionalCheckFailedException");
    is_condition || is_missing(reply) || matches!(judge(reply), Judgement::Denied(_))
}

#[cfg(test)]
mod tests {
    use super::super::port::Found;
    use super::*;

    fn refused(code: &str, message: &str, service_fault: bool) -> Reply {
        Reply::Refused { code: code.to_owned(), message: message.to_owned(), service_fault }
    }

    #[test]
    fn codes_are_judged_by_what_they_prove() {
        let of = |code: &str| judge(&refused(code, "m", false));
        let text = |code: &str| format!("{code}: m");
        for code in DENIED {
            assert_eq!(of(code), Judgement::Denied(text(code)));
        }
        for code in CREDENTIALS {
            assert_eq!(of(code), Judgement::Credentials(text(code)));
        }
        for code in PERMITTED {
            assert_eq!(of(code), Judgement::Granted, "{code}");
        }
        assert_eq!(of("ValidationException"), Judgement::Unknown(text("ValidationException")));
        assert!(matches!(of("UnknownOperationException"), Judgement::Unsupported(_)));
        assert!(matches!(judge(&refused("InternalFailure", "", true)), Judgement::Fault(_)));
        assert_eq!(judge(&Reply::Done(Found::Nothing)), Judgement::Granted);
        assert!(matches!(judge(&Reply::Unreached("u".to_owned())), Judgement::Unreached(_)));
    }

    #[test]
    fn cancelled_transaction_is_permitted_only_for_its_condition() {
        let of = |message: &str| judge(&refused("TransactionCanceledException", message, false));
        assert_eq!(of("reasons [ConditionalCheckFailed]"), Judgement::Granted);
        assert!(matches!(of("reasons [ValidationError]"), Judgement::Unknown(_)));
    }

    #[test]
    fn writes_follow_only_a_refused_one() {
        for code in ["ConditionalCheckFailedException", "ResourceNotFoundException", "AccessDeniedException"]
        {
            assert!(is_harmless(&refused(code, "", false)), "{code}");
        }
        // An endpoint that ignores the condition deletes a row that does not exist, and succeeds.
        assert!(!is_harmless(&Reply::Done(Found::Nothing)));
        assert!(!is_harmless(&refused("ValidationException", "", false)));
        assert!(!is_harmless(&refused("InternalServerError", "", true)));
        assert!(!is_harmless(&Reply::Unreached(String::new())));
    }
}
