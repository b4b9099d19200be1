//! Normalizes when credentials expire: services other than AWS's own write it differently.

use aws_smithy_runtime_api::client::orchestrator::HttpResponse;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt as _, Limited};
use serde_json::Value;
use time::format_description::well_known::Rfc3339;
use time::{OffsetDateTime, UtcOffset};

/// The same answer with the expiration in UTC: RFC 3339 allows any offset, but the SDK only accepts `Z`.
pub(super) async fn in_utc(mut answer: HttpResponse) -> Result<HttpResponse, ConnectorError> {
    let body = std::mem::replace(answer.body_mut(), SdkBody::taken());
    let whole = Limited::new(body, MAX_ANSWER_BYTES)
        .collect()
        .await
        .map_err(|error| ConnectorError::other(error, None))?
        .to_bytes();
    let rewritten = rewritten(&whole);
    let body = rewritten.map_or_else(|| SdkBody::from(whole), SdkBody::from);
    if let Some(length) = body.content_length() {
        answer.headers_mut().insert("content-length", length.to_string());
    }
    *answer.body_mut() = body;
    Ok(answer)
}

/// `None` if nothing must be changed.
fn rewritten(json: &[u8]) -> Option<Vec<u8>> {
    let mut object: serde_json::Map<String, Value> = serde_json::from_slice(json).ok()?;
    let mut is_changed = false;
    for (name, value) in &mut object {
        if !(name.eq_ignore_ascii_case("Expiration") || name.eq_ignore_ascii_case("ExpiresAt")) {
            continue;
        }
        let Some(text) = value.as_str().filter(|text| !text.ends_with('Z')) else { continue };
        let Ok(at) = OffsetDateTime::parse(text, &Rfc3339) else { continue };
        let Ok(in_utc) = at.to_offset(UtcOffset::UTC).format(&Rfc3339) else { continue };
        *value = in_utc.into();
        is_changed = true;
    }
    is_changed.then(|| serde_json::to_vec(&object).ok()).flatten()
}

/// Credentials have some 2 KB.
const MAX_ANSWER_BYTES: usize = 256 * 1_024;

#[cfg(test)]
mod tests {
    //! Every RFC 3339 form of a time is understood, and other text is left unchanged.

    use proptest::prelude::*;

    use super::*;

    fn expiration(text: &str) -> String {
        let json = serde_json::json!({ "AccessKeyId": "ASIA1", "Expiration": text }).to_string();
        let read: Value =
            serde_json::from_slice(&rewritten(json.as_bytes()).unwrap_or(json.into())).expect("JSON");
        assert_eq!(read["AccessKeyId"], "ASIA1");
        read["Expiration"].as_str().expect("text").to_owned()
    }

    #[test]
    fn offsets_become_utc() {
        for (one, other) in [
            ("2026-11-28T10:00:00Z", "2026-11-28T10:00:00Z"),
            ("2026-11-28T10:00:00+00:00", "2026-11-28T10:00:00Z"),
            ("2026-11-28T10:00:00.123456+00:00", "2026-11-28T10:00:00.123456Z"),
            ("2026-11-28T10:00:00-00:00", "2026-11-28T10:00:00Z"),
            ("2026-11-28T00:30:00+05:45", "2026-11-27T18:45:00Z"),
            ("tomorrow", "tomorrow"),
        ] {
            assert_eq!(expiration(one), other);
        }
        for other in ["no JSON", "[1]", "null", "{\"Expiration\":1}"] {
            assert_eq!(rewritten(other.as_bytes()), None, "{other}");
        }
    }

    proptest! {
        #[test]
        fn the_moment_stays_the_same(at in 0_i64..4_000_000_000, minutes in -1_439_i32..1_440) {
            let at = OffsetDateTime::from_unix_timestamp(at).expect("a moment");
            let offset = UtcOffset::from_whole_seconds(minutes * 60).expect("an offset");
            let text = at.to_offset(offset).format(&Rfc3339).expect("formats");
            let read = expiration(&text);
            prop_assert!(read.ends_with('Z'));
            prop_assert_eq!(OffsetDateTime::parse(&read, &Rfc3339).expect("a moment"), at);
        }
    }
}
