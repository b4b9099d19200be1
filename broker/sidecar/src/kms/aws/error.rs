//! Converts the SDK's errors.

use std::error::Error;

use aws_credential_types::provider::error::CredentialsError;
use aws_sdk_kms::error::{ProvideErrorMetadata, SdkError};
use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

use super::request_id::request_id_of;
use crate::kms::{KmsError, KmsErrorKind};

/// The broker's error for a failed call to KMS.
pub(super) fn kms_error<E: ProvideErrorMetadata>(error: &SdkError<E, HttpResponse>) -> KmsError {
    let request_id = error.raw_response().and_then(request_id_of).map(str::to_owned);
    let is_identified = request_id.is_some();
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
                // All of KMS's answers have an id, so this is from somewhere else and says nothing about the key.
                Some(code) if !is_identified => {
                    of(KmsErrorKind::Unavailable, code, metadata.message().map(str::to_owned))
                }
                Some(code) => of(kind_of(code), code, metadata.message().map(str::to_owned)),
                None => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
            }
        }
        SdkError::ResponseError(_) => of(KmsErrorKind::Unavailable, UNEXPECTED, Some(UNREADABLE.into())),
        SdkError::TimeoutError(_) => {
            of(KmsErrorKind::Unavailable, UNREACHED, Some("KMS did not answer in time".into()))
        }
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(error) if is_of_credentials(error) => no_credentials(chain(error)),
            error => of(KmsErrorKind::Unavailable, UNREACHED, error.map(|error| chain(error))),
        },
        SdkError::ConstructionFailure(_) => no_credentials("no usable AWS credentials were found".into()),
        _ => of(KmsErrorKind::Unavailable, UNREACHED, None),
    }
}

/// Whether an error is about the broker's credentials.
pub(super) fn is_about_credentials(code: &str) -> bool {
    kind_of(code) == KmsErrorKind::Credentials
}

/// The kinds of KMS's errors (AWS KMS API reference, each operation's "Errors", and "Common Errors").
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
        "AccessDeniedException" | "NotAuthorized" => KmsErrorKind::AccessDenied,
        "ExpiredToken"
        | "ExpiredTokenException"
        | "IncompleteSignature"
        | "IncompleteSignatureException"
        | "InvalidAccessKeyId"
        | "InvalidClientTokenId"
        | "InvalidSignature"
        | "InvalidSignatureException"
        | "MissingAuthenticationToken"
        | "MissingAuthenticationTokenException"
        | "OptInRequired"
        | "RequestExpired"
        | "RequestInTheFuture"
        | "RequestTimeTooSkewed"
        | "SignatureDoesNotMatch"
        | "UnrecognizedClient"
        | "UnrecognizedClientException" => KmsErrorKind::Credentials,
        _ => KmsErrorKind::Unavailable,
    }
}

/// The error of a call that was not made because there were no credentials.
fn no_credentials(message: String) -> KmsError {
    let (kind, code) = (KmsErrorKind::Credentials, "NoCredentials".to_owned());
    KmsError { kind, code, message: Some(message), request_id: None }
}

/// Whether it came from the provider of credentials.
fn is_of_credentials(error: &(dyn Error + 'static)) -> bool {
    let mut next = Some(error);
    while let Some(error) = next {
        if error.is::<CredentialsError>() {
            return true;
        }
        next = error.source();
    }
    false
}

pub(crate) fn unexpected(message: &str) -> KmsError {
    answer_of(KmsErrorKind::Unavailable, message)
}

/// The error for an answer with another key than requested.
pub(super) fn other_key() -> KmsError {
    answer_of(KmsErrorKind::OtherKey, "the answer is for another key than was asked for")
}

fn answer_of(kind: KmsErrorKind, message: &str) -> KmsError {
    KmsError { kind, code: UNEXPECTED.into(), message: Some(message.into()), request_id: None }
}

/// The display forms of an error and its causes. Never the debug form: it can hold the body of an answer, and
/// that can hold a plaintext.
pub(super) fn chain(error: &(dyn Error + 'static)) -> String {
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

#[cfg(test)]
mod tests {
    //! Trouble with the broker's own credentials says nothing about a key.

    use std::time::Duration;

    use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider, future};
    use key_broker_core::KeyId;
    use key_broker_core::clock::SystemClock;

    use super::*;
    use crate::kms::aws::{AwsKms, AwsSettings};
    use crate::kms::{AttemptLog, Kms as _};
    use crate::operation::DescribeKeyRequest;
    use crate::policy::own;

    #[derive(Debug)]
    struct NoCredentials;

    impl ProvideCredentials for NoCredentials {
        fn provide_credentials<'a>(&'a self) -> future::ProvideCredentials<'a>
        where
            Self: 'a,
        {
            future::ProvideCredentials::ready(Err(CredentialsError::provider_error("the file is gone")))
        }
    }

    #[tokio::test]
    async fn a_provider_that_has_no_credentials_is_the_brokers_own_trouble() {
        let nowhere = Some("http://127.0.0.1:9".to_owned());
        let settings = AwsSettings {
            region: "us-west-2".into(),
            endpoint_url: nowhere.clone(),
            sts_endpoint_url: nowhere,
            connect_timeout: Duration::from_secs(1),
            attempt_timeout: Duration::from_secs(3),
            max_attempts: 1,
            role_arn: None,
            session_name: None,
            imds_connect_timeout: Duration::from_secs(2),
            imds_read_timeout: Duration::from_secs(10),
            fallback_regions: Vec::new(),
            fallback_endpoint_urls: std::collections::BTreeMap::new(),
            account_roles: std::collections::BTreeMap::new(),
        };
        let provider = SharedCredentialsProvider::new(NoCredentials);
        let kms = AwsKms::new(settings, Some(provider), std::sync::Arc::new(SystemClock)).await;
        let request = DescribeKeyRequest::from(KeyId::parse("alias/dev").expect("an alias"));
        let permitted = own::permit(request).expect("permitted").widen();
        let error = kms.call(permitted, &AttemptLog::default()).await.err().expect("there are none");
        assert_eq!((error.kind, &*error.code), (KmsErrorKind::Credentials, "NoCredentials"), "{error:?}");
        assert!(error.message.is_some_and(|words| words.contains("the file is gone")));
    }
}
