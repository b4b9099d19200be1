//! AWS's errors: type, message, HTTP status.
//!
//! Types: <https://docs.aws.amazon.com/kms/latest/APIReference/CommonErrors.html> and each operation's page.
//! The messages are those that AWS is seen to send; a type without a message has none there either.

use std::borrow::Cow;
use std::fmt;

use http::StatusCode;

/// An error that AWS answers with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ApiError {
    /// AWS's name, for example `NotFoundException`.
    pub(crate) code: Cow<'static, str>,
    /// AWS's message.
    pub(crate) message: Option<String>,
}

impl fmt::Display for ApiError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.code)?;
        self.message.iter().try_for_each(|message| write!(formatter, ": {message}"))
    }
}

impl ApiError {
    pub(crate) fn new(code: &'static str, message: impl Into<String>) -> ApiError {
        ApiError { code: code.into(), message: Some(message.into()) }
    }

    /// An error of which AWS says nothing but the type.
    pub(crate) fn bare(code: &'static str) -> ApiError {
        ApiError { code: code.into(), message: None }
    }

    /// An error by its name alone, with AWS's usual words where it has some.
    pub(crate) fn named(code: &str) -> ApiError {
        let message = match code {
            "ThrottlingException" => {
                "You have exceeded the rate at which you may call KMS. Reduce the frequency of your calls."
            }
            "AccessDeniedException" => "User is not authorized to perform this operation on this resource.",
            "UnrecognizedClientException" => "The security token included in the request is invalid.",
            "ExpiredTokenException" => "The security token included in the request is expired",
            "DryRunOperationException" => "The request would have succeeded, but the DryRun option is set.",
            "IncorrectKeyException" => {
                "The key ID in the request does not identify a CMK that can perform this operation."
            }
            _ => return ApiError { code: code.to_owned().into(), message: None },
        };
        ApiError { code: code.to_owned().into(), message: Some(message.to_owned()) }
    }

    pub(crate) fn not_found(message: impl Into<String>) -> ApiError {
        ApiError::new("NotFoundException", message)
    }

    pub(crate) fn validation(message: impl Into<String>) -> ApiError {
        ApiError::new("ValidationException", message)
    }

    /// A member that breaks one of the model's constraints, in AWS's words.
    pub(crate) fn constraint(broken: &str) -> ApiError {
        ApiError::validation(format!("1 validation error detected: {broken}"))
    }

    pub(crate) fn unsupported(message: impl Into<String>) -> ApiError {
        ApiError::new("UnsupportedOperationException", message)
    }

    pub(crate) fn invalid_state(message: impl Into<String>) -> ApiError {
        ApiError::new("KMSInvalidStateException", message)
    }

    /// A ciphertext that is not one, was altered, or belongs to another context: AWS does not say which.
    pub(crate) fn invalid_ciphertext() -> ApiError {
        ApiError::bare("InvalidCiphertextException")
    }

    /// A fault of the emulator itself.
    pub(crate) fn internal(message: impl Into<String>) -> ApiError {
        ApiError::new("KMSInternalException", message)
    }

    /// The status KMS sends with it: 400 for all that is the caller's fault.
    pub(crate) fn status(&self) -> StatusCode {
        match self.code.as_ref() {
            "KMSInternalException"
            | "DependencyTimeoutException"
            | "KeyUnavailableException"
            | "InternalFailure"
            | "InternalServerError" => StatusCode::INTERNAL_SERVER_ERROR,
            "ServiceUnavailable" | "ServiceUnavailableException" => StatusCode::SERVICE_UNAVAILABLE,
            "RequestEntityTooLargeException" => StatusCode::PAYLOAD_TOO_LARGE,
            _ => StatusCode::BAD_REQUEST,
        }
    }
}
