//! Why a call failed, and the one table that turns this into a gRPC code, a reason and a record. Nothing internal leaves the broker: KMS's
//! own message stays in the record.

mod denial;
mod kms;

use std::borrow::Cow;
use std::time::{Duration, Instant};

use key_broker_core::{InvalidValue, KeyArn, Outcome, Principal};
use tonic::Code;

use crate::attestation::DocumentFlaw;
use crate::method::LARGEST_REQUEST_BYTES as LARGEST_OTHER;
pub(crate) use denial::{Denial, DeniedContext, DeniedKey};
pub(crate) use kms::{KmsError, KmsErrorKind, cloudtrail_error_code};

/// Why a call got no answer.
#[derive(Debug, Clone)]
pub(crate) enum BrokerError {
    /// The request is not one that KMS or the broker could ever accept: the words say what to change.
    Rejected(Cow<'static, str>),
    /// The request is larger than the contract allows: this many bytes.
    TooLarge(usize),
    /// What the call says of itself is longer than the broker reads.
    MetadataTooLarge,
    /// The request is compressed.
    Compressed,
    /// The message is not an AWS Encryption SDK's, or was altered: the text says what is wrong.
    InvalidMessage(String),
    /// The message's encryption context has not this pair, which the caller expects.
    OtherMessage(String),
    /// The message was encrypted under other KMS keys than the one that the caller expects.
    OtherKey,
    /// The message's algorithm suite is not taken: the words say why.
    SuiteNotAllowed(String),
    /// The caller is beyond a wall that the broker is not: the plaintext would be the parent's.
    PlaintextOfEnclave,
    /// The attestation document is not one to trust.
    Attestation(DocumentFlaw),
    /// The broker's policy does not permit it.
    Denied(Box<Denial>),
    /// The broker's policy does not permit the key that KMS answered with, which the request did not name.
    DeniedKey(KeyArn),
    /// The encryption context is not one that this principal may use: the pair of this name is missing or another.
    WrongContext(Box<(Principal, String)>),
    /// The principal's name of a key means none.
    NoSuchKey,
    /// As many calls as the limit allows are in flight.
    TooManyCalls,
    /// As many calls as the limit for one principal allows are in flight.
    TooManyOwnCalls,
    /// The requests of this principal that are in flight have as many bytes as its share allows.
    TooManyOwnBytes,
    /// The principal has made as many calls as it may in a while; the next one is due after this.
    TooFast(Duration),
    /// KMS refused, failed or could not be reached.
    Kms(KmsError),
    /// As many calls to KMS as the limit allows are under way, and none ended in time.
    KmsBusy,
    /// KMS has not answered lately, so it is not asked again before this has passed.
    CircuitOpen(Duration),
    /// The caller's deadline passed.
    DeadlineExceeded,
    /// The caller went away.
    Cancelled,
    /// The broker is about to stop.
    Draining,
    /// The record cannot be written, so nothing may leave.
    JournalUnavailable,
    /// A defect of the broker.
    Bug,
}

impl BrokerError {
    /// The one table: every error's code, reason and record. `words` has the text for the caller.
    #[must_use]
    pub(crate) fn refusal(&self) -> Refusal<'_> {
        use Code::{
            Cancelled, DeadlineExceeded, FailedPrecondition, Internal, InvalidArgument, NotFound,
            PermissionDenied, ResourceExhausted, Unavailable, Unimplemented,
        };
        use Outcome::{Aborted, Denied, Failed, Rejected, Throttled};
        const MALFORMED: &str = "ValidationException";
        const THROTTLED: &str = "ThrottlingException";
        const INVALID_CIPHERTEXT: &str = "InvalidCiphertextException";
        const UNSUPPORTED: &str = "UnsupportedOperationException";
        let (code, reason, outcome, error_code) = match self {
            Self::Kms(error) => return error.refusal(),
            Self::Rejected(_) => (InvalidArgument, "MALFORMED_REQUEST", Rejected, MALFORMED),
            Self::TooLarge(_) => (InvalidArgument, "REQUEST_TOO_LARGE", Rejected, MALFORMED),
            Self::MetadataTooLarge => (ResourceExhausted, "METADATA_TOO_LARGE", Rejected, MALFORMED),
            Self::Compressed => (Unimplemented, "COMPRESSION_NOT_SUPPORTED", Rejected, MALFORMED),
            Self::InvalidMessage(_) => (InvalidArgument, "INVALID_MESSAGE", Rejected, INVALID_CIPHERTEXT),
            Self::OtherMessage(_) => {
                (InvalidArgument, "ENCRYPTION_CONTEXT_MISMATCH", Rejected, INVALID_CIPHERTEXT)
            }
            Self::OtherKey => (InvalidArgument, "INCORRECT_KEY", Rejected, "IncorrectKeyException"),
            Self::SuiteNotAllowed(_) => (FailedPrecondition, "SUITE_NOT_ALLOWED", Rejected, UNSUPPORTED),
            Self::PlaintextOfEnclave => (FailedPrecondition, "PLAINTEXT_OF_ENCLAVE", Rejected, UNSUPPORTED),
            Self::Attestation(DocumentFlaw::Debug) => {
                (PermissionDenied, "DEBUG_ENCLAVE", Denied, "AccessDenied")
            }
            Self::Attestation(DocumentFlaw::Stale | DocumentFlaw::CertificateExpired) => {
                (InvalidArgument, "ATTESTATION_EXPIRED", Rejected, MALFORMED)
            }
            Self::Attestation(DocumentFlaw::Early | DocumentFlaw::CertificateNotYetValid) => {
                (InvalidArgument, "ATTESTATION_NOT_YET_VALID", Rejected, MALFORMED)
            }
            Self::Attestation(_) => (InvalidArgument, "INVALID_ATTESTATION", Rejected, MALFORMED),
            Self::Denied(_) | Self::DeniedKey(_) => {
                (PermissionDenied, "DENIED_BY_POLICY", Denied, "AccessDenied")
            }
            Self::WrongContext(_) => {
                (PermissionDenied, "ENCRYPTION_CONTEXT_NOT_PERMITTED", Denied, "AccessDenied")
            }
            Self::NoSuchKey => (NotFound, "KEY_NOT_FOUND", Failed, "NotFoundException"),
            Self::TooManyOwnCalls | Self::TooManyOwnBytes => {
                (ResourceExhausted, "TOO_MANY_OWN_CALLS", Throttled, THROTTLED)
            }
            Self::TooFast(_) => (ResourceExhausted, "TOO_FAST", Throttled, THROTTLED),
            Self::TooManyCalls => (ResourceExhausted, "TOO_MANY_CALLS", Throttled, THROTTLED),
            Self::KmsBusy => (ResourceExhausted, "KMS_BUSY", Throttled, THROTTLED),
            Self::CircuitOpen(_) => (Unavailable, "KMS_UNAVAILABLE", Failed, "KMSUnavailable"),
            Self::DeadlineExceeded => (DeadlineExceeded, "DEADLINE_EXCEEDED", Failed, "DeadlineExceeded"),
            Self::Cancelled => (Cancelled, "CANCELLED", Aborted, "RequestCancelled"),
            Self::Draining => (Unavailable, "DRAINING", Failed, "ServiceUnavailable"),
            Self::JournalUnavailable => (Unavailable, "JOURNAL_UNAVAILABLE", Failed, "ServiceUnavailable"),
            Self::Bug => (Internal, "INTERNAL", Failed, "InternalFailure"),
        };
        let (message, retry_after) = (self.words(), self.retry_after());
        Refusal { code, reason, outcome, error_code, message, retry_after, from_kms: false }
    }

    /// Words for the caller, with what to do next.
    fn words(&self) -> Cow<'_, str> {
        let words = match self {
            Self::Rejected(why) => return Cow::Borrowed(why.as_ref()),
            Self::InvalidMessage(why) | Self::SuiteNotAllowed(why) => return Cow::Borrowed(why),
            Self::OtherMessage(name) => return other_message(name).into(),
            Self::OtherKey => {
                "the message was encrypted under another key than key_id names: do not use it, or pass the key that it has"
            }
            Self::PlaintextOfEnclave => {
                "messages are not encrypted or decrypted for callers over vsock, since the plaintext would be in the parent's memory: \
                 call GenerateDataKey or Decrypt with a recipient, and encrypt in the enclave"
            }
            Self::Attestation(flaw) => return flaw.to_string().into(),
            Self::Denied(denial) => return denial.words().into(),
            Self::WrongContext(of) => {
                let (principal, name) = (of.0.as_str(), &of.1);
                return format!(
                    "the broker's configuration binds the encryption contexts of {principal}: the pair {name:?} is missing or has \
                     another value; ask the broker's operator for the right one"
                )
                .into();
            }
            Self::Kms(error) => return error.refusal().message,
            Self::TooLarge(most) => return too_large(*most).into(),
            Self::MetadataTooLarge => {
                "the call's metadata is longer than 8,192 bytes (names, values and 32 bytes for each pair): send less; a retry does not \
                 help"
            }
            Self::Compressed => "the request is compressed: send it uncompressed (grpc-encoding: identity)",
            Self::DeniedKey(_) => {
                "the broker's policy does not permit the key of this ciphertext: ask the broker's operator for a permit"
            }
            Self::NoSuchKey => {
                "AWS KMS has no such key: check key_id (an alias begins with alias/), account and region"
            }
            Self::TooManyOwnCalls => {
                "this principal has as many calls in flight as its limit allows: retry after the given delay"
            }
            Self::TooManyOwnBytes => {
                "this principal has as many request bytes in flight as its share allows: retry after the given delay"
            }
            Self::TooFast(_) => {
                "this principal exceeds its limit of calls per second: retry after the given delay"
            }
            Self::TooManyCalls => {
                "the broker has as many calls in flight as its limit allows: retry after the given delay"
            }
            Self::KmsBusy => {
                "the broker has as many calls to AWS KMS in flight as its limit allows: retry after the given delay"
            }
            Self::CircuitOpen(_) => {
                "AWS KMS has not answered lately, so it is not called for now: retry after the given delay"
            }
            Self::DeadlineExceeded => {
                "the call's deadline passed: allow more time, or look in the broker's trail for what was slow"
            }
            Self::Cancelled => "the caller went away",
            Self::Draining => "the broker is draining: retry after the given delay",
            Self::JournalUnavailable => {
                "the broker cannot write its audit journal, so it refuses calls: ask its operator to check \
                 the journal's disk"
            }
            Self::Bug => {
                "an internal error of key-broker: please report it with the x-request-id of this reply"
            }
        };
        words.into()
    }

    /// When trying again may help.
    fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::TooManyOwnCalls | Self::TooManyOwnBytes | Self::TooManyCalls => Some(SOON),
            Self::TooFast(delay) | Self::CircuitOpen(delay) => Some(*delay),
            Self::KmsBusy | Self::Draining | Self::JournalUnavailable => Some(LATER),
            _ => None,
        }
    }
}

impl BrokerError {
    /// Why a call has ended whose caller is gone, and would have waited until then.
    #[must_use]
    pub(crate) fn abandoned(until: Option<Instant>, now: Instant) -> Self {
        // The caller's own timer runs ahead of ours by the way of the request: a call that is gone within that time of its
        // deadline ended by the deadline.
        match until {
            Some(until) if until.saturating_duration_since(now) <= DEADLINE_SLACK => Self::DeadlineExceeded,
            _ => Self::Cancelled,
        }
    }

    /// What happened, for a log line or the operator's own command: KMS's own words, where there are any.
    #[must_use]
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Kms(error) => match error.message.as_deref() {
                Some(message) if !message.is_empty() => format!("{}: {message}", error.code),
                _ => error.code.clone(),
            },
            other => other.refusal().message.into_owned(),
        }
    }
}

fn other_message(name: &str) -> String {
    format!(
        "the message's encryption context lacks the expected pair {name:?}, or has another value for it: it was encrypted for something \
         else; do not use it, or expect the pairs that it has"
    )
}

fn too_large(most: usize) -> String {
    if most == LARGEST_OTHER {
        return "the request is larger than 524,288 bytes: send less".into();
    }
    format!(
        "the message does not fit into one request of {most} bytes: use EncryptMessageStream or DecryptMessageStream, in parts of \
         65,536 bytes"
    )
}

impl From<InvalidValue> for BrokerError {
    fn from(malformed: InvalidValue) -> Self {
        Self::Rejected(malformed.0.into())
    }
}

impl From<KmsError> for BrokerError {
    fn from(error: KmsError) -> Self {
        Self::Kms(error)
    }
}

/// An error as the caller and the record see it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal<'a> {
    /// The gRPC code.
    pub code: Code,
    /// `ErrorInfo.reason`.
    pub reason: &'static str,
    /// The record's outcome.
    pub outcome: Outcome,
    /// The record's errorCode, in CloudTrail's vocabulary.
    pub error_code: &'a str,
    /// Words for the caller, with what to do next.
    pub message: Cow<'a, str>,
    /// When trying again may help.
    pub retry_after: Option<Duration>,
    /// Whether KMS said so itself.
    pub from_kms: bool,
}

/// The way of a request over a unix socket, and a slow machine's share.
const DEADLINE_SLACK: Duration = Duration::from_millis(20);
/// A slot is free again within a few calls.
const SOON: Duration = Duration::from_millis(100);
/// Long enough for a KMS quota's second, a restart or a disk to recover.
const LATER: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    //! The table that callers and auditors depend on, as a whole; and the contract's comment has the same
    //! codes and reasons.

    use std::collections::BTreeSet;

    use super::*;

    /// Every error, in the order of the table.
    fn errors() -> Vec<BrokerError> {
        use KmsErrorKind as Kind;
        let mut errors = vec![
            BrokerError::Rejected("words of the edge".into()),
            BrokerError::TooLarge(524_288),
            BrokerError::TooLarge(4 << 20),
            BrokerError::InvalidMessage("frame 2 was altered".into()),
            BrokerError::OtherMessage("tenant".into()),
            BrokerError::OtherKey,
            BrokerError::SuiteNotAllowed("suite 0x0178".into()),
            BrokerError::PlaintextOfEnclave,
            BrokerError::MetadataTooLarge,
            BrokerError::Compressed,
            BrokerError::Attestation(DocumentFlaw::Malformed("it is not a COSE_Sign1")),
            BrokerError::Attestation(DocumentFlaw::Untrusted("the chain does not hold")),
            BrokerError::Attestation(DocumentFlaw::Signature),
            BrokerError::Attestation(DocumentFlaw::CertificateExpired),
            BrokerError::Attestation(DocumentFlaw::CertificateNotYetValid),
            BrokerError::Attestation(DocumentFlaw::Stale),
            BrokerError::Attestation(DocumentFlaw::Early),
            BrokerError::Attestation(DocumentFlaw::NoPublicKey),
            BrokerError::Attestation(DocumentFlaw::Debug),
            BrokerError::WrongContext(Box::new((Principal::of_uid(1_000), "tenant".into()))),
            BrokerError::NoSuchKey,
            BrokerError::TooManyCalls,
            BrokerError::TooManyOwnCalls,
            BrokerError::TooManyOwnBytes,
            BrokerError::TooFast(Duration::from_millis(250)),
            BrokerError::KmsBusy,
            BrokerError::CircuitOpen(Duration::from_millis(2_500)),
            BrokerError::DeadlineExceeded,
            BrokerError::Cancelled,
            BrokerError::Draining,
            BrokerError::JournalUnavailable,
            BrokerError::Bug,
        ];
        errors.extend(denial::every().map(|denial| BrokerError::Denied(Box::new(denial))));
        for (kind, code) in [
            (Kind::Credentials, "ExpiredTokenException"),
            (Kind::AccountCredentials, "NoCredentials"),
            (Kind::AccessDenied, "AccessDeniedException"),
            (Kind::NotFound, "NotFoundException"),
            (Kind::Disabled, "DisabledException"),
            (Kind::InvalidState, "KMSInvalidStateException"),
            (Kind::InvalidKeyUsage, "InvalidKeyUsageException"),
            (Kind::InvalidCiphertext, "InvalidCiphertextException"),
            (Kind::IncorrectKey, "IncorrectKeyException"),
            (Kind::InvalidGrantToken, "InvalidGrantTokenException"),
            (Kind::Validation, "ValidationException"),
            (Kind::Throttled, "ThrottlingException"),
            (Kind::Unavailable, "KMSInternalException"),
            (Kind::OtherKey, "KMSUnexpectedAnswer"),
        ] {
            let message = Some("KMS's own words".to_owned());
            errors.push(BrokerError::Kms(KmsError {
                kind,
                code: code.into(),
                message,
                request_id: Some("id".into()),
            }));
        }
        errors
    }

    #[test]
    fn table() {
        let rows: Vec<String> = errors()
            .iter()
            .map(|error| {
                let row = error.refusal();
                assert!(!row.message.contains("own words"), "KMS's text is not for callers");
                let retry =
                    row.retry_after.map(|delay| format!(" retry after {delay:?}")).unwrap_or_default();
                format!(
                    "{:?} {} | {:?} {}{retry}\n    {}",
                    row.code, row.reason, row.outcome, row.error_code, row.message
                )
            })
            .collect();
        insta::assert_snapshot!(rows.join("\n"));
    }

    #[test]
    fn the_contract_lists_every_code_and_reason() {
        let contract = include_str!("../../../proto/keybroker/v1/key_broker.proto");
        let (_, table) = contract.split_once("code                 reasons\n").expect("the table");
        let (table, _) = table.split_once("\n//\n").expect("the table ends");
        let is_name = |word: &&str| word.chars().all(|c| c.is_ascii_uppercase() || c == '_');
        let (mut code, mut listed) = (String::new(), BTreeSet::new());
        for line in table.lines() {
            let line = line.strip_prefix("//   ").expect("a comment");
            // Words in parentheses explain a reason, perhaps over two lines.
            let (first, reasons) = line.split_at(line.find("  ").unwrap_or(line.len()));
            if !first.is_empty() {
                first.clone_into(&mut code);
            }
            let words = reasons.split([' ', ',', '(', ')']).filter(|word| word.len() > 3);
            listed.extend(words.filter(is_name).map(|reason| (code.clone(), reason.to_owned())));
        }
        let camel = |code: Code| format!("{code:?}").to_ascii_lowercase();
        let plain = |code: &str| code.to_ascii_lowercase().replace('_', "");
        let made: BTreeSet<_> = errors()
            .iter()
            .map(BrokerError::refusal)
            .map(|refusal| (camel(refusal.code), refusal.reason.to_owned()))
            .collect();
        let listed: BTreeSet<_> = listed.into_iter().map(|(code, reason)| (plain(&code), reason)).collect();
        assert_eq!(listed, made);
    }
}
