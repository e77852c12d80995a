//! The exceptions of the endpoint, by their names in the Kinesis API reference.

use std::fmt;

/// An exception as the answer to a call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind}: {message}")]
pub(super) struct Exception {
    pub(super) kind: Kind,
    pub(super) message: String,
}

/// The types of exceptions, with their names and HTTP statuses.
/// <https://docs.aws.amazon.com/kinesis/latest/APIReference/CommonErrors.html>
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    AccessDenied,
    ExpiredIterator,
    ExpiredNextToken,
    InternalFailure,
    InvalidArgument,
    LimitExceeded,
    MissingAction,
    ProvisionedThroughputExceeded,
    RequestTooLarge,
    ResourceInUse,
    ResourceNotFound,
    Serialization,
    UnknownOperation,
    Validation,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::AccessDenied => "AccessDeniedException",
            Self::ExpiredIterator => "ExpiredIteratorException",
            Self::ExpiredNextToken => "ExpiredNextTokenException",
            Self::InternalFailure => "InternalFailure",
            Self::InvalidArgument => "InvalidArgumentException",
            Self::LimitExceeded => "LimitExceededException",
            Self::MissingAction => "MissingAction",
            Self::ProvisionedThroughputExceeded => "ProvisionedThroughputExceededException",
            Self::RequestTooLarge => "RequestEntityTooLargeException",
            Self::ResourceInUse => "ResourceInUseException",
            Self::ResourceNotFound => "ResourceNotFoundException",
            Self::Serialization => "SerializationException",
            Self::UnknownOperation => "UnknownOperationException",
            Self::Validation => "ValidationException",
        }
    }

    pub(super) const fn status(self) -> u16 {
        match self {
            Self::AccessDenied => 403,
            Self::InternalFailure => 500,
            Self::RequestTooLarge => 413,
            Self::ExpiredIterator
            | Self::ExpiredNextToken
            | Self::InvalidArgument
            | Self::LimitExceeded
            | Self::MissingAction
            | Self::ProvisionedThroughputExceeded
            | Self::ResourceInUse
            | Self::ResourceNotFound
            | Self::Serialization
            | Self::UnknownOperation
            | Self::Validation => 400,
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Exception {
    pub(super) fn new(kind: Kind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into() }
    }

    pub(super) fn invalid_argument(message: impl Into<String>) -> Self {
        Self::new(Kind::InvalidArgument, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(Kind::ResourceNotFound, message)
    }

    pub(super) fn in_use(message: impl Into<String>) -> Self {
        Self::new(Kind::ResourceInUse, message)
    }

    pub(super) fn limit(message: impl Into<String>) -> Self {
        Self::new(Kind::LimitExceeded, message)
    }

    pub(super) fn validation(message: impl Into<String>) -> Self {
        Self::new(Kind::Validation, message)
    }

    pub(super) fn internal(message: impl Into<String>) -> Self {
        Self::new(Kind::InternalFailure, message)
    }

    pub(super) fn throughput(message: impl Into<String>) -> Self {
        Self::new(Kind::ProvisionedThroughputExceeded, message)
    }
}
