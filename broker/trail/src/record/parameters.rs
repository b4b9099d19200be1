//! `requestParameters`: what was requested.

use std::fmt;

use key_broker_core::{DataKeyLength, DeclaredUse, EncryptionContext};
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::Text;

/// `requestParameters` as in the KMS operation.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RequestParameters<'a> {
    /// `DIGEST` on Sign.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub message_type: Option<Text<'a>>,
    /// `SYMMETRIC_DEFAULT` on Decrypt.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub encryption_algorithm: Option<Text<'a>>,
    /// The key as the caller wrote it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key_id: Option<Text<'a>>,
    /// `RSA_2048`, on GenerateDataKeyPair.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key_pair_spec: Option<Text<'a>>,
    /// `AES_256` or `AES_128`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub key_spec: Option<Text<'a>>,
    /// The number of bytes, if no key spec was given. Callers other than the broker may ask KMS for any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub number_of_bytes: Option<i64>,
    /// `RSASSA_PKCS1_V1_5_SHA_256` on Sign.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub signing_algorithm: Option<Text<'a>>,
    /// The encryption context, if there is any.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub encryption_context: Option<ContextPairs<'a>>,
    /// On ReEncrypt, the algorithm of the key that had encrypted: `SYMMETRIC_DEFAULT`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub source_encryption_algorithm: Option<Text<'a>>,
    /// The encryption context of the old ciphertext, if there was any.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub source_encryption_context: Option<ContextPairs<'a>>,
    /// The key of the old ciphertext, if the caller named it.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub source_key_id: Option<Text<'a>>,
    /// On ReEncrypt, the key that encrypts.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub destination_key_id: Option<Text<'a>>,
    /// `SYMMETRIC_DEFAULT`.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub destination_encryption_algorithm: Option<Text<'a>>,
    /// The encryption context of the new ciphertext, if there is any.
    #[serde(borrow, skip_serializing_if = "Option::is_none")]
    pub destination_encryption_context: Option<ContextPairs<'a>>,
    /// Activity records only: the SHA-256, in hex, of the ciphertext.
    #[serde(borrow, skip_serializing_if = "Option::is_none", rename = "ciphertextBlobSHA256")]
    pub ciphertext_sha256: Option<Text<'a>>,
    /// Activity records only: what the caller declared.
    #[serde(skip_serializing_if = "Option::is_none", rename = "use")]
    pub declared_use: Option<UseData>,
}

/// What the caller declared that it would encrypt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct UseData {
    /// At least 1.
    pub messages: u64,
    /// Missing for a stream of which no length was declared. Of a data key, 0 is not declared.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
}

impl From<DeclaredUse> for UseData {
    fn from(DeclaredUse { messages, bytes }: DeclaredUse) -> Self {
        Self { messages, bytes: Some(bytes) }
    }
}

impl<'a> RequestParameters<'a> {
    /// Sets a data key's length in the field where KMS has it.
    #[must_use]
    pub fn with_length(mut self, length: DataKeyLength) -> Self {
        match length {
            DataKeyLength::Aes256 => self.key_spec = Some("AES_256".into()),
            DataKeyLength::Aes128 => self.key_spec = Some("AES_128".into()),
            DataKeyLength::Bytes(n) => self.number_of_bytes = Some(u16::from(n).into()),
        }
        self
    }

    /// Cuts the caller's long texts, for records of refused calls, which must not cost more than others. True if anything was cut.
    #[must_use]
    pub fn cut(mut self) -> (Self, bool) {
        let mut rest = REFUSED_TEXT_BYTES;
        let mut is_cut = false;
        for key in
            [&mut self.key_id, &mut self.source_key_id, &mut self.destination_key_id].into_iter().flatten()
        {
            is_cut |= key.cut(&mut rest);
        }
        for ContextPairs(pairs) in self.contexts_mut().into_iter().flatten() {
            // A pair whose name does not fit is left out, since part of a name would be another name.
            pairs.retain_mut(|(name, value)| {
                let is_left_out = name.cut(&mut rest);
                is_cut |= is_left_out || value.cut(&mut rest);
                !is_left_out
            });
        }
        for context in self.contexts_mut() {
            *context = context.take().filter(|context| context.iter().next().is_some());
        }
        (self, is_cut)
    }

    /// Sets the two encryption contexts of a ReEncrypt. CloudTrail leaves out empty ones.
    #[must_use]
    pub fn with_contexts(
        mut self,
        source: &'a EncryptionContext,
        destination: &'a EncryptionContext,
    ) -> Self {
        self.source_encryption_context = ContextPairs::of(source);
        self.destination_encryption_context = ContextPairs::of(destination);
        self
    }

    /// All fields for encryption contexts.
    pub fn contexts_mut(&mut self) -> [&mut Option<ContextPairs<'a>>; 3] {
        [
            &mut self.encryption_context,
            &mut self.source_encryption_context,
            &mut self.destination_encryption_context,
        ]
    }

    /// All encryption contexts in it.
    pub(crate) fn contexts(&self) -> impl Iterator<Item = &ContextPairs<'a>> {
        [&self.encryption_context, &self.source_encryption_context, &self.destination_encryption_context]
            .into_iter()
            .flatten()
    }

    /// Sets the encryption context. CloudTrail leaves out an empty one.
    #[must_use]
    pub fn with_context(mut self, context: &'a EncryptionContext) -> Self {
        self.encryption_context = ContextPairs::of(context);
        self
    }
}

/// The most of the key's name and the encryption context in a record of a refused call, in JSON's encoding.
const REFUSED_TEXT_BYTES: usize = 1_024;

/// The pairs of an encryption context in the order of the record. One that was read may have a name twice.
#[derive(Debug)]
pub struct ContextPairs<'a>(Vec<(Text<'a>, Text<'a>)>);

impl<'a> ContextPairs<'a> {
    /// `None` without pairs.
    fn of(context: &'a EncryptionContext) -> Option<Self> {
        let pairs = context.pairs().iter().map(|(name, value)| (name.into(), value.into()));
        (!context.pairs().is_empty()).then(|| Self(pairs.collect()))
    }
}

impl ContextPairs<'_> {
    /// Names and values.
    pub(crate) fn iter(&self) -> impl DoubleEndedIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (&**name, &**value))
    }
}

impl<'a> FromIterator<(Text<'a>, Text<'a>)> for ContextPairs<'a> {
    fn from_iter<T: IntoIterator<Item = (Text<'a>, Text<'a>)>>(pairs: T) -> Self {
        Self(pairs.into_iter().collect())
    }
}

impl<'a> IntoIterator for ContextPairs<'a> {
    type Item = (Text<'a>, Text<'a>);
    type IntoIter = std::vec::IntoIter<Self::Item>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl Serialize for ContextPairs<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for ContextPairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = ContextPairs<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an encryption context")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ContextPairs<'de>, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(ContextPairs(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}
