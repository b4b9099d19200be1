//! Checks that a record is byte for byte as a broker writes it. This finds what parsing ignores: fields that no broker writes, missing
//! ones, and a different order.

use serde::Serialize;

use crate::record::shown;

/// Serializes what was parsed: the result must be the JSON that it came from.
pub(super) fn check_written(json: &str, read: &impl Serialize) -> Result<(), String> {
    let mut written = Vec::with_capacity(json.len());
    serde_json::to_writer(&mut written, read).map_err(|error| error.to_string())?;
    if written == json.as_bytes() {
        return Ok(());
    }
    let same = json.bytes().zip(&written).take_while(|(one, other)| one == *other).count();
    // From the beginning of the field, so that its name is shown.
    let start = json.as_bytes()[..same]
        .iter()
        .rposition(|byte| matches!(byte, b'{' | b'[' | b','))
        .map_or(0, |before| before + 1);
    Err(format!(
        "not as a broker writes it, from byte {start} on: {} where there should be {}",
        shown(&json[start..]),
        shown(&String::from_utf8_lossy(&written[start..]))
    ))
}

/// Whether JSON has no white space between its parts. Raw parts are not serialized again, so they need this check.
pub(in crate::verify) fn is_compact(json: &[u8]) -> bool {
    let mut rest = json;
    while let Some(text) = rest.iter().position(|byte| *byte == b'"') {
        if rest[..text].iter().any(u8::is_ascii_whitespace) {
            return false;
        }
        rest = &rest[text + 1..];
        // Most texts have no escapes, so they are skipped at once.
        loop {
            let Some(end) = memchr::memchr2(b'"', b'\\', rest) else { return true };
            let is_escape = rest[end] == b'\\';
            rest = rest.get(end + 1 + usize::from(is_escape)..).unwrap_or_default();
            if !is_escape {
                break;
            }
        }
    }
    !rest.iter().any(u8::is_ascii_whitespace)
}

#[cfg(test)]
mod tests {
    //! Proves: white space is found wherever it is, and nowhere else.

    use proptest::prelude::*;

    use super::is_compact;

    /// The same, one byte at a time.
    fn model(json: &[u8]) -> bool {
        let (mut in_text, mut escaped) = (false, false);
        for byte in json {
            if in_text {
                in_text = escaped || *byte != b'"';
                escaped = !escaped && *byte == b'\\';
            } else if byte.is_ascii_whitespace() {
                return false;
            } else {
                in_text = *byte == b'"';
            }
        }
        true
    }

    proptest! {
        #[test]
        fn it_is_as_byte_by_byte(json in r#"[\\" \na{:]{0,40}"#) {
            prop_assert_eq!(is_compact(json.as_bytes()), model(json.as_bytes()));
        }
    }
}
