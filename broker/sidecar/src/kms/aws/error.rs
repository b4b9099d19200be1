//! The SDK's errors, as the broker tells them.

use std::error::Error;

use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::watch::REQUEST_ID_HEADER;
use crate::kms::{KmsError, KmsErrorKind};

/// What a failed call to KMS means.
pub(super) fn kms_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> KmsError {
    let request_id = error.raw_response().and_then(|response| response.headers().get(REQUEST_ID_HEADER));
    let request_id = request_id.map(str::to_owned);
    let of = |kind, code: &str, message: Option<String>| KmsError {
        kind,
        code: code.to_owned(),
        message,
        request_id,
    };
    match error {
        SdkError::ServiceError(service) => {
            let metadata = service.err().meta();
            match metadata.code() {
                Some(code) => of(kind_of(code), code, metadata.message().map(str::to_owned)),
                None => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
            }
        }
        SdkError::ResponseError(_) => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
        SdkError::TimeoutError(_) => {
            of(KmsErrorKind::Unavailable, UNREACHED, Some("KMS did not answer in time".into()))
        }
        SdkError::DispatchFailure(failure) => {
            of(KmsErrorKind::Unavailable, UNREACHED, failure.as_connector_error().map(|error| chain(error)))
        }
        SdkError::ConstructionFailure(_) => of(
            KmsErrorKind::Unavailable,
            "NoCredentials",
            Some("no usable AWS credentials were found".into()),
        ),
        _ => of(KmsErrorKind::Unavailable, UNREACHED, None),
    }
}

/// KMS's names of errors (AWS KMS API reference, each operation's "Errors", and "Common Errors").
fn kind_of(code: &str) -> KmsErrorKind {
    match code {
        "NotFoundException" => KmsErrorKind::NotFound,
        "DisabledException" => KmsErrorKind::Disabled,
        "KMSInvalidStateException" => KmsErrorKind::InvalidState,
        "InvalidKeyUsageException" | "UnsupportedOperationException" => KmsErrorKind::InvalidKeyUsage,
        "InvalidCiphertextException" => KmsErrorKind::InvalidCiphertext,
        "IncorrectKeyException" => KmsErrorKind::IncorrectKey,
        "InvalidGrantTokenException" => KmsErrorKind::InvalidGrantToken,
        "ValidationException" | "InvalidArnException" => KmsErrorKind::Validation,
        "ThrottlingException" | "Throttling" | "LimitExceededException" => KmsErrorKind::Throttled,
        "AccessDeniedException"
        | "UnrecognizedClientException"
        | "InvalidClientTokenId"
        | "InvalidSignatureException"
        | "IncompleteSignature"
        | "MissingAuthenticationTokenException"
        | "MissingAuthenticationToken"
        | "ExpiredTokenException"
        | "OptInRequired"
        | "NotAuthorized" => KmsErrorKind::AccessDenied,
        _ => KmsErrorKind::Unavailable,
    }
}

pub(super) fn unexpected(message: &str) -> KmsError {
    KmsError {
        kind: KmsErrorKind::Unavailable,
        code: UNEXPECTED.into(),
        message: Some(message.into()),
        request_id: None,
    }
}

/// The display forms of an error and its causes. Never the debug form: it can hold the body of an answer, and
/// that can hold a plaintext.
fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

pub(super) fn sts_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> String {
    let error = kms_error(error);
    format!("{}: {}", error.code, error.message.unwrap_or_default())
}

/// KMS could not be reached.
const UNREACHED: &str = "KMSUnavailable";
/// KMS's answer makes no sense.
const UNEXPECTED: &str = "KMSUnexpectedAnswer";
const UNREADABLE: &str = "the answer cannot be read";
