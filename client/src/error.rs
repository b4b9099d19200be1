//! Why a call failed, with what a program needs to decide what to do next.

use std::fmt;
use std::time::Duration;

use key_broker_proto as proto;
use tonic::{Code, Status};
use tonic_types::StatusExt;

/// Why there is no answer.
#[derive(Debug)]
pub struct Error {
    code: Code,
    message: String,
    reason: Option<String>,
    domain: Option<String>,
    request_id: Option<String>,
    kms_request_id: Option<String>,
    retry_after: Option<Duration>,
}

impl Error {
    /// The gRPC code. A broker that cannot be reached is [`Code::Unavailable`].
    #[must_use]
    pub fn code(&self) -> Code {
        self.code
    }

    /// The error's name for programs, such as `KEY_DISABLED`: the table is in the contract, `key_broker.proto`.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        self.reason.as_deref()
    }

    /// Whether AWS KMS itself gave this answer.
    #[must_use]
    pub fn is_from_kms(&self) -> bool {
        self.domain.as_deref() == Some(proto::DOMAIN_KMS)
    }

    /// The broker's id of the call, the `requestID` of its activity record.
    #[must_use]
    pub fn request_id(&self) -> Option<&str> {
        self.request_id.as_deref()
    }

    /// The requestID of KMS's answer, as AWS CloudTrail has it.
    #[must_use]
    pub fn kms_request_id(&self) -> Option<&str> {
        self.kms_request_id.as_deref()
    }

    /// How long to wait before trying again; none where trying again cannot help.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        self.retry_after
    }

    /// Words for a person, with what to do next.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    pub(crate) fn address(message: String) -> Self {
        Self::local(Code::InvalidArgument, message)
    }

    pub(crate) fn connect(address: &str, error: &tonic::transport::Error) -> Self {
        let mut why = error.to_string();
        let mut cause = std::error::Error::source(error);
        while let Some(error) = cause {
            why = error.to_string();
            cause = error.source();
        }
        Self::local(
            Code::Unavailable,
            format!("cannot connect to the broker at {address}: {why}: is it running there?"),
        )
    }

    fn local(code: Code, message: String) -> Self {
        Self {
            code,
            message,
            reason: None,
            domain: None,
            request_id: None,
            kms_request_id: None,
            retry_after: None,
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        let details = status.get_error_details();
        let header =
            |name| status.metadata().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let info = details.error_info();
        Self {
            code: status.code(),
            message: status.message().to_owned(),
            reason: info.map(|info| info.reason.clone()),
            domain: info.map(|info| info.domain.clone()),
            request_id: header(proto::HEADER_REQUEST_ID),
            kms_request_id: header(proto::HEADER_KMS_REQUEST_ID),
            retry_after: details.retry_info().and_then(|info| info.retry_delay),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let facts = [
            ("reason", &self.reason),
            ("x-request-id", &self.request_id),
            ("x-amzn-requestid", &self.kms_request_id),
        ];
        for (name, value) in facts {
            if let Some(value) = value {
                write!(f, " [{name} {value}]")?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Error {}
