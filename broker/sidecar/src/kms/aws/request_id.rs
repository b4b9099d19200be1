//! The ids of KMS's and STS's answers.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;

/// The requestID of an answer, if it has a usable one.
pub(super) fn request_id_of(response: &HttpResponse) -> Option<&str> {
    let id = response.headers().get(REQUEST_ID_HEADER)?;
    let is_usable = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_');
    ((1..=MAX_REQUEST_ID_BYTES).contains(&id.len()) && id.bytes().all(is_usable)).then_some(id)
}

/// `x-amzn-RequestId`, on every answer of KMS. Header names are lower-case here.
const REQUEST_ID_HEADER: &str = "x-amzn-requestid";
/// KMS's ids are UUIDs, of 36 bytes.
const MAX_REQUEST_ID_BYTES: usize = 128;
