//! What a document says, read from its CBOR. Nothing here is verified: that is `verify`'s.
//!
//! The members: <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>, but where genuine
//! documents differ from that text they are right: maps may be indefinite, absent members are null, a `NitroTPM`'s
//! registers have a name of their own.

use std::collections::BTreeMap;

use ciborium::Value;

use super::measurements::{Measurement, Measurements};

/// The contents of a verified document.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Which enclave or instance: `i-…-enc…` or `i-…-tpm…`.
    pub module_id: String,
    /// When it was made: unix milliseconds.
    pub timestamp: u64,
    /// The measurements.
    pub measurements: Measurements,
    /// Set by the requester; for KMS an RSA key, DER `SubjectPublicKeyInfo`.
    pub public_key: Option<Vec<u8>>,
    /// Set by the requester.
    pub user_data: Option<Vec<u8>>,
    /// Set by the requester.
    pub nonce: Option<Vec<u8>>,
}

/// A document and the certificates that are to prove it.
pub(super) struct Claims {
    pub(super) document: Document,
    /// The leaf, DER.
    pub(super) certificate: Vec<u8>,
    /// From the root down to the leaf's issuer, DER.
    pub(super) cabundle: Vec<Vec<u8>>,
}

impl Claims {
    /// Reads the signed map; the error says what is wrong with it.
    pub(super) fn read(payload: &[u8]) -> Result<Claims, String> {
        let mut members = Members::read(payload)?;
        if members.required("digest", text)? != "SHA384" {
            return Err("digest is not SHA384".to_owned());
        }
        Ok(Claims {
            document: Document {
                module_id: members.required("module_id", text)?,
                timestamp: members.required("timestamp", number)?,
                measurements: measurements(&mut members)?,
                public_key: members.optional("public_key", short_bytes)?,
                user_data: members.optional("user_data", short_bytes)?,
                nonce: members.optional("nonce", short_bytes)?,
            },
            certificate: members.required("certificate", bytes)?,
            cabundle: members.required("cabundle", certificates)?,
        })
    }
}

/// The members of the map that nobody has taken yet.
struct Members(BTreeMap<String, Value>);

impl Members {
    /// A map whose keys are texts, each there once, and nothing after it.
    fn read(mut payload: &[u8]) -> Result<Members, String> {
        let value: Value =
            ciborium::from_reader(&mut payload).map_err(|_| "the payload is not CBOR".to_owned())?;
        if !payload.is_empty() {
            return Err("bytes follow the payload".to_owned());
        }
        let entries = value.into_map().map_err(|_| "the payload is not a map".to_owned())?;
        let mut members = BTreeMap::new();
        for (name, value) in entries {
            let name = name.into_text().map_err(|_| "a member's name is not a text".to_owned())?;
            if members.contains_key(&name) {
                return Err(format!("{name:?} is there twice"));
            }
            members.insert(name, value);
        }
        Ok(Members(members))
    }

    /// A member that may be absent or null.
    fn optional<T>(&mut self, name: &str, read: impl Fn(Value) -> Option<T>) -> Result<Option<T>, String> {
        match self.0.remove(name) {
            None | Some(Value::Null) => Ok(None),
            Some(value) => read(value).map(Some).ok_or_else(|| format!("{name} is not what it should be")),
        }
    }

    fn required<T>(&mut self, name: &str, read: impl Fn(Value) -> Option<T>) -> Result<T, String> {
        self.optional(name, read)?.ok_or_else(|| format!("{name} is missing"))
    }
}

fn measurements(members: &mut Members) -> Result<Measurements, String> {
    let enclave = members.optional("pcrs", |value| registers(value, ENCLAVE_REGISTERS))?;
    let nitro_tpm = members.optional("nitrotpm_pcrs", |value| registers(value, NITRO_TPM_REGISTERS))?;
    match (enclave, nitro_tpm) {
        (Some(registers), None) => Ok(Measurements::Enclave(registers)),
        (None, Some(registers)) => Ok(Measurements::NitroTpm(registers)),
        (None, None) => Err("pcrs and nitrotpm_pcrs are missing".to_owned()),
        (Some(_), Some(_)) => Err("it has both pcrs and nitrotpm_pcrs".to_owned()),
    }
}

/// At least one register, none twice, each below `count`.
fn registers(value: Value, count: u8) -> Option<BTreeMap<u8, Measurement>> {
    let mut registers = BTreeMap::new();
    for (index, value) in value.into_map().ok()? {
        let index = u8::try_from(index.into_integer().ok()?).ok().filter(|index| *index < count)?;
        let value = Measurement::try_from(bytes(value)?).ok()?;
        if registers.insert(index, value).is_some() {
            return None;
        }
    }
    (!registers.is_empty()).then_some(registers)
}

fn text(value: Value) -> Option<String> {
    value.into_text().ok().filter(|text| !text.is_empty())
}

fn number(value: Value) -> Option<u64> {
    u64::try_from(value.into_integer().ok()?).ok()
}

fn bytes(value: Value) -> Option<Vec<u8>> {
    value.into_bytes().ok()
}

fn short_bytes(value: Value) -> Option<Vec<u8>> {
    bytes(value).filter(|bytes| bytes.len() <= SHORT)
}

fn certificates(value: Value) -> Option<Vec<Vec<u8>>> {
    value.into_array().ok()?.into_iter().map(bytes).collect()
}

/// AWS's text allows indices below 32; genuine documents have 16.
const ENCLAVE_REGISTERS: u8 = 32;

/// A TPM has 24 registers.
const NITRO_TPM_REGISTERS: u8 = 24;

/// The most bytes of a public key, user data or a nonce: the Nitro Security Module's limit.
const SHORT: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    /// A payload with these members, each written as (name, CBOR).
    fn payload(members: &[(&str, Value)]) -> Vec<u8> {
        let entries = members.iter().map(|(name, value)| ((*name).into(), value.clone())).collect();
        let mut bytes = Vec::new();
        ciborium::into_writer(&Value::Map(entries), &mut bytes).expect("writes");
        bytes
    }

    fn registers_of(indices: &[u64], length: usize) -> Value {
        Value::Map(indices.iter().map(|index| ((*index).into(), Value::Bytes(vec![1; length]))).collect())
    }

    fn members() -> Vec<(&'static str, Value)> {
        vec![
            ("module_id", "i-1-enc2".into()),
            ("digest", "SHA384".into()),
            ("timestamp", 5.into()),
            ("pcrs", registers_of(&[0, 1], 48)),
            ("certificate", Value::Bytes(vec![1])),
            ("cabundle", Value::Array(vec![Value::Bytes(vec![2])])),
        ]
    }

    /// Why a payload is refused whose member `name` is `value`.
    fn refused(name: &'static str, value: Value) -> String {
        let mut members = members();
        members.retain(|(known, _)| *known != name);
        members.push((name, value));
        Claims::read(&payload(&members)).err().unwrap_or_else(|| panic!("{name} is accepted"))
    }

    #[test]
    fn unknown_members_are_skipped_and_null_ones_are_absent() {
        let mut members = members();
        members.extend([("public_key", Value::Null), ("nitrotpm_pcrs", Value::Null), ("new", true.into())]);
        let claims = Claims::read(&payload(&members)).expect("reads");
        assert_eq!((claims.document.timestamp, claims.document.public_key), (5, None));
        assert_eq!(claims.document.measurements.registers().len(), 2);
    }

    #[test]
    fn what_is_there_twice_is_refused() {
        let mut twice = members();
        twice.push(("timestamp", 5.into()));
        assert_eq!(Claims::read(&payload(&twice)).err().as_deref(), Some("\"timestamp\" is there twice"));
        assert_eq!(refused("pcrs", registers_of(&[0, 0], 48)), "pcrs is not what it should be");
    }

    #[test]
    fn what_follows_is_refused() {
        let mut long = payload(&members());
        long.push(0);
        assert_eq!(Claims::read(&long).err().as_deref(), Some("bytes follow the payload"));
    }

    #[test]
    fn members_of_the_wrong_kind_are_refused() {
        assert_eq!(refused("digest", "SHA512".into()), "digest is not SHA384");
        assert_eq!(refused("pcrs", registers_of(&[32], 48)), "pcrs is not what it should be");
        assert_eq!(refused("pcrs", registers_of(&[0], 32)), "pcrs is not what it should be");
        assert_eq!(refused("pcrs", registers_of(&[], 48)), "pcrs is not what it should be");
        assert_eq!(refused("pcrs", Value::Null), "pcrs and nitrotpm_pcrs are missing");
        assert_eq!(refused("nitrotpm_pcrs", registers_of(&[23], 48)), "it has both pcrs and nitrotpm_pcrs");
        assert_eq!(
            refused("nitrotpm_pcrs", registers_of(&[24], 48)),
            "nitrotpm_pcrs is not what it should be"
        );
        assert_eq!(refused("timestamp", Value::Float(5.0)), "timestamp is not what it should be");
        assert_eq!(refused("timestamp", (-5).into()), "timestamp is not what it should be");
        assert_eq!(refused("module_id", "".into()), "module_id is not what it should be");
        assert_eq!(refused("certificate", Value::Null), "certificate is missing");
        assert_eq!(refused("cabundle", Value::Array(vec![1.into()])), "cabundle is not what it should be");
        assert_eq!(refused("nonce", Value::Bytes(vec![0; 1025])), "nonce is not what it should be");
    }
}
