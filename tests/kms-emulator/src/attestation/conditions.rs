//! Conditions that a key's policy puts on attestation documents.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/conditions-attestation.html>

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use super::document::Document;
use super::measurements::{Measurement, Measurements};
use crate::key::hex;

/// Conditions on the attestation document with which a key is used. All must hold; without any, no document is needed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Conditions(BTreeMap<ConditionKey, Measurement>);

/// A register by AWS's name for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum ConditionKey {
    /// `kms:RecipientAttestation:ImageSha384`, an enclave's PCR0.
    ImageSha384,
    /// `kms:RecipientAttestation:PCR0` to `PCR31`.
    Pcr(u8),
    /// `kms:RecipientAttestation:NitroTPMPCR0` to `NitroTPMPCR23`.
    NitroTpmPcr(u8),
}

impl Conditions {
    /// Condition keys by AWS's names and the values they must have, in lower-case hex.
    pub(crate) fn parse<'a>(
        conditions: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> Result<Conditions, String> {
        let mut parsed = BTreeMap::new();
        for (name, value) in conditions {
            let key: ConditionKey = name.parse()?;
            let value = measurement(value)
                .ok_or_else(|| format!("{name}: {value:?} is not 96 lower-case hex digits"))?;
            if parsed.insert(key, value).is_some() {
                return Err(format!("{name} is there twice"));
            }
        }
        Ok(Conditions(parsed))
    }

    /// Whether a call may use the key that shows this document, or none.
    pub(crate) fn permit(&self, document: Option<&Document>) -> bool {
        self.0.iter().all(|(key, value)| document.and_then(|document| key.of(document)) == Some(value))
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As text, the reverse of [`Conditions::parse`].
    pub(crate) fn texts(&self) -> BTreeMap<String, String> {
        self.0.iter().map(|(key, value)| (key.to_string(), hex(value))).collect()
    }
}

impl ConditionKey {
    /// The value that a document has for it.
    fn of(self, document: &Document) -> Option<&Measurement> {
        match (self, &document.measurements) {
            (ConditionKey::ImageSha384, Measurements::Enclave(registers)) => registers.get(&0),
            (ConditionKey::Pcr(index), Measurements::Enclave(registers))
            | (ConditionKey::NitroTpmPcr(index), Measurements::NitroTpm(registers)) => registers.get(&index),
            _ => None,
        }
    }
}

impl fmt::Display for ConditionKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(PREFIX)?;
        match self {
            ConditionKey::ImageSha384 => formatter.write_str("ImageSha384"),
            ConditionKey::Pcr(index) => write!(formatter, "PCR{index}"),
            ConditionKey::NitroTpmPcr(index) => write!(formatter, "NitroTPMPCR{index}"),
        }
    }
}

impl FromStr for ConditionKey {
    type Err = String;

    fn from_str(name: &str) -> Result<ConditionKey, String> {
        let known = || {
            let name = name.strip_prefix(PREFIX)?;
            if name == "ImageSha384" {
                return Some(ConditionKey::ImageSha384);
            }
            match name.strip_prefix("NitroTPMPCR") {
                Some(index) => register(index, 24).map(ConditionKey::NitroTpmPcr),
                None => register(name.strip_prefix("PCR")?, 32).map(ConditionKey::Pcr),
            }
        };
        known().ok_or_else(|| {
            format!("{name:?} is not {PREFIX}ImageSha384, {PREFIX}PCR0 to PCR31, or {PREFIX}NitroTPMPCR0 to NitroTPMPCR23")
        })
    }
}

/// An index below `count`, written in the one way there is.
fn register(text: &str, count: u8) -> Option<u8> {
    text.parse().ok().filter(|index: &u8| *index < count && index.to_string() == text)
}

fn measurement(text: &str) -> Option<Measurement> {
    let digit = |byte: u8| match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        _ => None,
    };
    let pairs = text.as_bytes().chunks(2).map(|pair| match *pair {
        [high, low] => Some(digit(high)? << 4 | digit(low)?),
        _ => None,
    });
    let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
    bytes.try_into().ok()
}

/// How AWS's names begin.
const PREFIX: &str = "kms:RecipientAttestation:";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_aws() {
        let value = "0a".repeat(48);
        for name in ["ImageSha384", "PCR0", "PCR31", "NitroTPMPCR0", "NitroTPMPCR23"] {
            let name = format!("{PREFIX}{name}");
            let conditions = Conditions::parse([(name.as_str(), value.as_str())]).expect("a condition");
            assert_eq!(conditions.texts(), BTreeMap::from([(name, value.clone())]));
        }
        for name in ["PCR", "PCR32", "PCR00", "PCR+1", "NitroTPMPCR24", "imageSha384", ""] {
            assert!(
                Conditions::parse([(format!("{PREFIX}{name}").as_str(), value.as_str())]).is_err(),
                "{name}"
            );
        }
        assert!(Conditions::parse([("PCR0", value.as_str())]).is_err(), "no prefix");
    }

    #[test]
    fn values_are_lower_case_hex() {
        let name = format!("{PREFIX}PCR0");
        for value in ["", "0a", &"0A".repeat(48), &"0g".repeat(48), &"0a".repeat(49), &"0".repeat(95)] {
            assert!(Conditions::parse([(name.as_str(), value)]).is_err(), "{value}");
        }
        let value = "0a".repeat(48);
        assert!(Conditions::parse([(name.as_str(), value.as_str()); 2]).is_err(), "twice");
    }
}
