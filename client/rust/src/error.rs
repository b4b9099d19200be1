//! Why a call failed, with what a program needs to decide what to do next.

use std::fmt;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
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
        let (why, kind) = deepest(error);
        let next = match (kind, address.strip_prefix("unix:").map(Path::new)) {
            (Some(io::ErrorKind::PermissionDenied), Some(path)) => not_allowed(path),
            _ => "is it running there?".to_owned(),
        };
        Self::local(Code::Unavailable, format!("cannot connect to the broker at {address}: {why}: {next}"))
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

/// The cause at the bottom of an error, and what kind of failure of the system it is.
fn deepest(error: &(dyn std::error::Error + 'static)) -> (String, Option<io::ErrorKind>) {
    let (mut why, mut kind, mut next) = (error.to_string(), None, Some(error));
    while let Some(error) = next {
        why = error.to_string();
        kind = error.downcast_ref::<io::Error>().map(io::Error::kind).or(kind);
        next = error.source();
    }
    (why, kind)
}

/// Who may connect to a socket, for somebody who may not.
fn not_allowed(path: &Path) -> String {
    match std::fs::symlink_metadata(path) {
        Ok(socket) => format!(
            "the socket is there, and this user may not connect to it: it is of uid {} and gid {}, with mode {:04o}, and to connect takes \
             write permission",
            socket.uid(),
            socket.gid(),
            socket.mode() & 0o777
        ),
        Err(_) => "this user may not look into its folder".to_owned(),
    }
}

/// Words for what the connection brought in place of a broker's answer; none for those of a broker.
fn of_the_connection(status: &Status) -> Option<(Code, String)> {
    let message = status.message();
    if let Some(http) = message.strip_prefix("grpc-status header missing, mapped from HTTP status code ") {
        let why = format!("the server there does not speak gRPC (HTTP status {http}): check the address");
        return Some((Code::Unavailable, why));
    }
    match (status.code(), message) {
        // tonic's own end of a call whose time is over.
        (Code::Cancelled, "Timeout expired") => {
            Some((Code::DeadlineExceeded, "no answer within the deadline".into()))
        }
        (code, "transport error" | "h2 protocol error: http2 error") => {
            let (why, _) = deepest(std::error::Error::source(status)?);
            let words = "the connection broke off before an answer came: does a broker listen there, and for TLS as you call it?";
            Some((code, format!("{words} ({why})")))
        }
        _ => None,
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some((code, words)) = of_the_connection(&status) {
            return Self::local(code, words);
        }
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
