//! How a call to KMS was encrypted.

use super::{demand, is_there};
use crate::record::{Record, TlsDetails};

pub(super) fn check<D>(details: &TlsDetails<'_>, record: &Record<'_, D>) -> Result<(), String> {
    let TlsDetails { tls_version, cipher_suite, client_provided_host_header, key_exchange } = details;
    demand(
        record.user_identity.invoked_by.is_none(),
        "CloudTrail has no tlsDetails of calls that no workload asked for",
    )?;
    demand(
        tls_version.as_deref().is_some_and(|version| matches!(version, "TLSv1.2" | "TLSv1.3")),
        "tlsDetails has no tlsVersion of TLSv1.2 or TLSv1.3",
    )?;
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
    demand(
        cipher_suite.as_deref().is_some_and(is_name) && key_exchange.as_deref().is_none_or(is_name),
        "tlsDetails has no cipherSuite, or a name that is none",
    )?;
    demand(is_there(client_provided_host_header.as_ref()), "tlsDetails has no clientProvidedHostHeader")
}
