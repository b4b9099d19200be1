//! The thing to find: an id, or a ciphertext or message by its SHA-256.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use key_broker_envelope::HeaderReader;
use key_broker_trail::open_regular;
use sha2::{Digest as _, Sha256};
use std::io::Read as _;
use std::path::Path;
use uuid::Uuid;

/// An id as records have it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Wanted {
    /// A KMS requestID, a broker's request id, or an eventID: all are UUIDs.
    Id(String),
    /// The id of a trace.
    Trace(String),
    /// The SHA-256, in hex, of a data key's ciphertext, or of a message's header.
    Sha256(String),
}

impl Wanted {
    /// The text that a record has of it.
    pub(super) fn text(&self) -> &str {
        let (Self::Id(text) | Self::Trace(text) | Self::Sha256(text)) = self;
        text
    }

    /// The kind of id, as text.
    pub(super) fn what(&self) -> &'static str {
        match self {
            Self::Id(_) => "id",
            Self::Trace(_) => "trace",
            Self::Sha256(_) => "data key's ciphertext, or header of a message, with the SHA-256",
        }
    }
}

/// Reads it off the command line.
pub(super) fn parse(text: &str) -> Result<Wanted, String> {
    if let Some(path) = text.strip_prefix("fileb://") {
        return Ok(of_bytes(&read(Path::new(path)).map_err(|error| format!("{path}: {error}"))?));
    }
    let text = text.trim();
    let hex = text.to_ascii_lowercase();
    if text.len() == 36
        && let Ok(id) = Uuid::try_parse(text)
    {
        return Ok(Wanted::Id(id.to_string()));
    }
    if is_hex(&hex, 32) {
        return Ok(Wanted::Trace(hex));
    }
    if is_hex(&hex, 64) {
        return Ok(Wanted::Sha256(hex));
    }
    if let Some(id) = trace_of(&hex).or_else(|| xray_trace_of(&hex)) {
        return Ok(Wanted::Trace(id));
    }
    match BASE64.decode(text) {
        Ok(ciphertext) if ciphertext.len() >= SHORTEST_CIPHERTEXT => Ok(of_bytes(&ciphertext)),
        _ => Err("neither a UUID, nor a trace id (32 hex digits), nor a ciphertext or a message in base64, nor the SHA-256 of a ciphertext \
                  or of a message's header in hex; for a file of bytes write fileb://PATH"
            .into()),
    }
}

/// The trace id in a `traceparent`.
fn trace_of(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let (_, id, span, _) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
    (is_hex(id, 32) && is_hex(span, 16)).then(|| id.to_owned())
}

/// The same of AWS X-Ray's id, alone or in its header.
fn xray_trace_of(text: &str) -> Option<String> {
    let id = text.split(';').find_map(|part| part.trim().strip_prefix("root=")).unwrap_or(text);
    let (time, rest) = id.strip_prefix("1-")?.split_once('-')?;
    (is_hex(time, 8) && is_hex(rest, 24)).then(|| [time, rest].concat())
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A message is known by its header; anything else is taken for a ciphertext.
fn of_bytes(bytes: &[u8]) -> Wanted {
    let header = HeaderReader::default().push(&mut &*bytes).ok().flatten();
    Wanted::Sha256(
        header
            .map_or_else(|| hex::encode(Sha256::digest(bytes)), |header| hex::encode(header.facts().sha256)),
    )
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let length = open_regular(path)?.take(LONGEST_HEADER).read_to_end(&mut bytes)?;
    let is_message = HeaderReader::default().push(&mut &bytes[..]).is_ok_and(|header| header.is_some());
    if length > LONGEST_CIPHERTEXT && !is_message {
        return Err(std::io::Error::other(
            "longer than any ciphertext of KMS, and no message of the AWS Encryption SDK",
        ));
    }
    Ok(bytes)
}

/// KMS's shortest has more than a hundred bytes; a word typed by mistake has fewer.
const SHORTEST_CIPHERTEXT: usize = 48;
/// Decrypt takes 6,144 bytes.
const LONGEST_CIPHERTEXT: usize = 6_144;
/// How much of a message is read: no header is longer.
const LONGEST_HEADER: u64 = 65 << 10;

#[cfg(test)]
mod tests {
    //! Whatever is pasted from a log, a reply, a span or a record is taken for what it is, and a typo is not looked for.

    use key_broker_core::{CiphertextBlob, EncryptionContext, KeyArn, Plaintext};
    use key_broker_envelope::{EncryptedDataKey, Sealer};

    use super::*;

    #[test]
    fn what_is_pasted_is_known_by_its_form() {
        let id = "10fe60b1-47b4-478a-9705-498ff014af7a";
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        assert_eq!(parse(&id.to_uppercase()), Ok(Wanted::Id(id.into())));
        assert_eq!(parse(trace), Ok(Wanted::Trace(trace.into())));
        assert_eq!(parse(&format!("00-{trace}-00f067aa0ba902b7-01")), Ok(Wanted::Trace(trace.into())));
        for xray in [
            "1-4bf92f35-77b34da6a3ce929d0e0e4736",
            "Root=1-4bf92f35-77b34da6a3ce929d0e0e4736;Parent=00f067aa0ba902b7",
        ] {
            assert_eq!(parse(xray), Ok(Wanted::Trace(trace.into())), "{xray}");
        }
        let (ciphertext, sha256) = ([7; 152], hex::encode(Sha256::digest([7; 152])));
        assert_eq!(parse(&BASE64.encode(ciphertext)), Ok(Wanted::Sha256(sha256.clone())));
        assert_eq!(parse(&format!(" {sha256}\n")), Ok(Wanted::Sha256(sha256.clone())));
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), ciphertext).expect("writes");
        assert_eq!(parse(&format!("fileb://{}", file.path().display())), Ok(Wanted::Sha256(sha256)));
    }

    #[test]
    fn a_message_is_looked_for_by_its_header() {
        let arn =
            KeyArn::parse("arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab");
        let blob = CiphertextBlob::parse(vec![7; 152].into()).expect("a ciphertext");
        let encrypted = EncryptedDataKey::aws_kms(&arn.expect("an ARN"), &blob);
        let key = Plaintext::new(vec![1; 32]);
        let sealer =
            Sealer::new(Vec::new(), &key, encrypted, &EncryptionContext::default()).expect("a header");
        let wanted = Ok(Wanted::Sha256(hex::encode(sealer.facts().sha256)));
        let message = sealer.seal(&vec![0; 100_000]).expect("a message");
        let file = tempfile::NamedTempFile::new().expect("a file");
        std::fs::write(file.path(), &message).expect("writes");
        assert_eq!(parse(&format!("fileb://{}", file.path().display())), wanted);
        assert_eq!(parse(&BASE64.encode(&message[..10_000])), wanted, "its first bytes will do");
    }

    #[test]
    fn what_is_none_of_these_is_refused() {
        let zeros = tempfile::NamedTempFile::new().expect("a file");
        zeros.as_file().set_len(1 << 40).expect("a file with a hole");
        let zeros = format!("fileb://{}", zeros.path().display());
        for text in
            ["", "alias/dev", "10fe60b1-47b4-478a-9705-498ff014af7", "AQIDAHg=", "fileb://none", &zeros]
        {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
