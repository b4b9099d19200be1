//! Errors of KMS.

use key_broker_core::Outcome;
use tonic::Code;

use super::{LATER, Refusal};

/// What went wrong between the broker and KMS.
#[derive(Debug, Clone)]
pub(crate) struct KmsError {
    /// The kind, which decides what the caller sees.
    pub kind: KmsErrorKind,
    /// KMS's own name of the error (`DisabledException`), or the broker's where KMS did not answer.
    pub code: String,
    /// KMS's own words: for record and log, never for the caller.
    pub message: Option<String>,
    /// The requestID of the answer; none where KMS did not answer.
    pub request_id: Option<String>,
}

/// The kinds of KMS errors that callers and operators must tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum KmsErrorKind {
    /// AWS rejects the broker's credentials or clock, or there are no credentials: this says nothing about any key.
    Credentials,
    /// The same of the role for the keys of one account: nothing is said about any other key.
    AccountCredentials,
    /// KMS does not permit the broker what it asks for.
    AccessDenied,
    /// No such key.
    NotFound,
    /// The key is disabled.
    Disabled,
    /// The key is in a state that does not allow it, such as pending deletion.
    InvalidState,
    /// The key is for something else, such as signing.
    InvalidKeyUsage,
    /// The ciphertext was altered, or the encryption context is another.
    InvalidCiphertext,
    /// The ciphertext belongs to another key.
    IncorrectKey,
    /// A grant token is not valid.
    InvalidGrantToken,
    /// KMS finds the request malformed.
    Validation,
    /// Too many requests.
    Throttled,
    /// KMS failed, could not be reached, or gave an answer that makes no sense.
    Unavailable,
    /// KMS answered for another key than it was asked for: no answer, and no failure of KMS as a whole.
    OtherKey,
}

impl KmsErrorKind {
    /// Words for the caller, with what to do next. What KMS said itself stays in the record.
    fn words(self) -> &'static str {
        match self {
            Self::Credentials => {
                "AWS rejects the broker's own credentials, or its clock is wrong: retry after the given delay, and ask the broker's \
                 operator to check its log"
            }
            Self::AccountCredentials => {
                "AWS rejects the broker's credentials for the account of this key: retry after the given delay, and ask the broker's \
                 operator to check its log"
            }
            Self::AccessDenied => {
                "AWS KMS denies this to the broker's role, or to the measurements of an attested call: ask the broker's operator \
                 to check IAM and key policy"
            }
            Self::NotFound => {
                "AWS KMS has no such key: check key_id (an alias begins with alias/), account and region"
            }
            Self::Disabled => "the KMS key is disabled: enable it or use another",
            Self::InvalidState => {
                "the KMS key's state does not allow this (pending deletion or import, or unavailable): see DescribeKey"
            }
            Self::InvalidKeyUsage => "the KMS key has another key usage: use a symmetric encryption key",
            Self::InvalidCiphertext => {
                "the ciphertext was altered, or the encryption context differs from the one at encryption: send both \
                 unchanged"
            }
            Self::IncorrectKey => {
                "key_id is not the key that encrypted this ciphertext: name that key by the ARN that came with the data key (an alias \
                 may mean another key by now)"
            }
            Self::InvalidGrantToken => "a grant token is not valid: leave it out or renew it",
            Self::Validation => "AWS KMS rejects the request as invalid: check key_id and sizes",
            Self::Throttled => "AWS KMS throttles this account: retry after the given delay",
            Self::Unavailable | Self::OtherKey => {
                "AWS KMS cannot be reached or failed: retry after the given delay"
            }
        }
    }

    /// Whether it says nothing about the key: the next call may succeed.
    #[must_use]
    pub(crate) fn is_transient(self) -> bool {
        matches!(
            self,
            Self::Credentials
                | Self::AccountCredentials
                | Self::Throttled
                | Self::Unavailable
                | Self::OtherKey
        )
    }
}

impl KmsError {
    pub(super) fn refusal(&self) -> Refusal<'_> {
        use Code::{FailedPrecondition, InvalidArgument, NotFound, ResourceExhausted, Unavailable};
        use KmsErrorKind as Kind;
        use Outcome::{Failed, Rejected, Throttled};
        let (code, reason, outcome) = match self.kind {
            Kind::Credentials | Kind::AccountCredentials => (Unavailable, "BROKER_CREDENTIALS", Failed),
            Kind::AccessDenied => (FailedPrecondition, "KMS_ACCESS_DENIED", Failed),
            Kind::NotFound => (NotFound, "KEY_NOT_FOUND", Failed),
            Kind::Disabled => (FailedPrecondition, "KEY_DISABLED", Failed),
            Kind::InvalidState => (FailedPrecondition, "KEY_INVALID_STATE", Failed),
            Kind::InvalidKeyUsage => (FailedPrecondition, "KEY_INVALID_USAGE", Failed),
            Kind::InvalidCiphertext => (InvalidArgument, "INVALID_CIPHERTEXT", Rejected),
            Kind::IncorrectKey => (InvalidArgument, "INCORRECT_KEY", Rejected),
            Kind::InvalidGrantToken => (InvalidArgument, "INVALID_GRANT_TOKEN", Rejected),
            Kind::Validation => (InvalidArgument, "KMS_VALIDATION", Rejected),
            Kind::Throttled => (ResourceExhausted, "KMS_THROTTLED", Throttled),
            Kind::Unavailable | Kind::OtherKey => (Unavailable, "KMS_UNAVAILABLE", Failed),
        };
        Refusal {
            code,
            reason,
            outcome,
            error_code: cloudtrail_error_code(&self.code),
            message: self.kind.words().into(),
            retry_after: self.kind.is_transient().then_some(LATER),
            from_kms: self.request_id.is_some(),
        }
    }
}

/// CloudTrail's spelling of a KMS error's name: `AccessDenied`, not the API's `AccessDeniedException`.
#[must_use]
pub(crate) fn cloudtrail_error_code(code: &str) -> &str {
    if code == "AccessDeniedException" { "AccessDenied" } else { code }
}
