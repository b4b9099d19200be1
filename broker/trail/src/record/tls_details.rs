//! How the connection of a KMS call was encrypted.

use serde::{Deserialize, Serialize};

use super::Text;

/// CloudTrail's `tlsDetails`
/// (<https://docs.aws.amazon.com/awscloudtrail/latest/userguide/cloudtrail-event-reference-record-contents.html>).
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct TlsDetails<'a> {
    /// `TLSv1.3`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub tls_version: Option<Text<'a>>,
    /// The cipher suite's name at IANA.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub cipher_suite: Option<Text<'a>>,
    /// The host that was called.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub client_provided_host_header: Option<Text<'a>>,
    /// The group of the key agreement, such as `X25519MLKEM768`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key_exchange: Option<Text<'a>>,
}
