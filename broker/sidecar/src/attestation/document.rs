//! The payload, by the Nitro Secure Module or NitroTPM
//! (<https://docs.aws.amazon.com/enclaves/latest/user/set-up-attestation.html>,
//! <https://github.com/aws/aws-nitro-enclaves-nsm-api/blob/main/docs/attestation_process.md>).

use std::collections::BTreeMap;

use minicbor::Decoder;
use minicbor::data::Type;
use time::OffsetDateTime;

use super::DocumentFlaw;
use super::measurements::{Measurements, PCR_BYTES, PlatformKind};

/// A payload, read. Nothing is verified yet.
pub(super) struct Document<'a> {
    pub(super) made_at: OffsetDateTime,
    /// Whose signature the document bears.
    pub(super) certificate: &'a [u8],
    /// The root, then what leads from it to `certificate`.
    pub(super) bundle: Vec<&'a [u8]>,
    pub(super) public_key: Option<&'a [u8]>,
    pub(super) measurements: Measurements,
}

/// The document's fields, as they are read.
#[derive(Default)]
struct DocumentFields<'a> {
    module_id: Option<&'a str>,
    digest: Option<&'a str>,
    timestamp: Option<u64>,
    pcrs: Option<Pcrs>,
    nitrotpm_pcrs: Option<Pcrs>,
    certificate: Option<&'a [u8]>,
    bundle: Option<Vec<&'a [u8]>>,
    public_key: Option<&'a [u8]>,
}

type Pcrs = BTreeMap<u8, [u8; PCR_BYTES]>;

impl<'a> Document<'a> {
    pub(super) fn parse(payload: &'a [u8]) -> Result<Self, DocumentFlaw> {
        let mut decoder = Decoder::new(payload);
        let fields = DocumentFields::read(&mut decoder)?;
        if decoder.position() != payload.len() {
            return Err(DocumentFlaw::Malformed("something follows its payload"));
        }
        fields.check()
    }
}

impl<'a> DocumentFields<'a> {
    fn read(decoder: &mut Decoder<'a>) -> Result<Self, DocumentFlaw> {
        let mut fields = Self::default();
        let mut seen: Vec<&str> = Vec::new();
        let mut entries = CborEntries::of(decoder, CborCollection::Map, MAX_FIELDS)?;
        while entries.next(decoder)? {
            let name = decoder.str().map_err(cbor)?;
            if seen.contains(&name) {
                return Err(TWICE);
            }
            seen.push(name);
            match name {
                "module_id" => fields.module_id = Some(decoder.str().map_err(cbor)?),
                "digest" => fields.digest = Some(decoder.str().map_err(cbor)?),
                "timestamp" => fields.timestamp = Some(decoder.u64().map_err(cbor)?),
                "pcrs" => fields.pcrs = Some(pcrs(decoder)?),
                "nitrotpm_pcrs" => fields.nitrotpm_pcrs = Some(pcrs(decoder)?),
                "certificate" => fields.certificate = Some(certificate(decoder)?),
                "cabundle" => fields.bundle = Some(bundle(decoder)?),
                "public_key" => fields.public_key = optional(decoder)?,
                "user_data" | "nonce" => drop(optional(decoder)?),
                _ => decoder.skip().map_err(cbor)?,
            }
        }
        Ok(fields)
    }

    fn check(self) -> Result<Document<'a>, DocumentFlaw> {
        let missing = DocumentFlaw::Malformed("a field that every genuine one has is missing");
        if self.digest.ok_or(missing)? != "SHA384" {
            return Err(DocumentFlaw::Malformed("its digest is not SHA384"));
        }
        let millis = self.timestamp.ok_or(missing)?;
        let made_at = OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
            .map_err(|_| DocumentFlaw::Malformed("its timestamp is not a valid time"))?;
        let module_id = self.module_id.ok_or(missing)?;
        let (kind, pcrs) = match (self.pcrs, self.nitrotpm_pcrs) {
            (Some(pcrs), None) => (PlatformKind::Enclave, pcrs),
            (None, Some(pcrs)) => (PlatformKind::NitroTpm, pcrs),
            (None, None) => return Err(missing),
            (Some(_), Some(_)) => {
                return Err(DocumentFlaw::Malformed("it is of an enclave and of a NitroTPM"));
            }
        };
        let measurements = Measurements::new(module_id, kind, pcrs).ok_or(DocumentFlaw::Malformed(
            "its module_id or its PCRs are none of an enclave or a NitroTPM",
        ))?;
        Ok(Document {
            made_at,
            certificate: self.certificate.ok_or(missing)?,
            bundle: self.bundle.ok_or(missing)?,
            public_key: self.public_key,
            measurements,
        })
    }
}

fn pcrs(decoder: &mut Decoder<'_>) -> Result<Pcrs, DocumentFlaw> {
    let mut pcrs = Pcrs::new();
    let mut entries = CborEntries::of(decoder, CborCollection::Map, MAX_PCRS)?;
    while entries.next(decoder)? {
        let index = decoder.u8().map_err(cbor)?;
        let value = decoder.bytes().map_err(cbor)?;
        let value = value.try_into().map_err(|_| DocumentFlaw::Malformed("a PCR has not 48 bytes"))?;
        if pcrs.insert(index, value).is_some() {
            return Err(TWICE);
        }
    }
    Ok(pcrs)
}

fn bundle<'a>(decoder: &mut Decoder<'a>) -> Result<Vec<&'a [u8]>, DocumentFlaw> {
    let mut bundle = Vec::new();
    let mut entries = CborEntries::of(decoder, CborCollection::Array, MAX_CERTIFICATES)?;
    while entries.next(decoder)? {
        bundle.push(certificate(decoder)?);
    }
    if bundle.is_empty() { Err(DocumentFlaw::Malformed("its cabundle is empty")) } else { Ok(bundle) }
}

fn certificate<'a>(decoder: &mut Decoder<'a>) -> Result<&'a [u8], DocumentFlaw> {
    let der = decoder.bytes().map_err(cbor)?;
    if (1..=MAX_CERTIFICATE_BYTES).contains(&der.len()) {
        Ok(der)
    } else {
        Err(DocumentFlaw::Malformed("a certificate is empty or has more than 1,024 bytes"))
    }
}

/// Bytes that the enclave chose, or none: CBOR's null, or nothing in them.
fn optional<'a>(decoder: &mut Decoder<'a>) -> Result<Option<&'a [u8]>, DocumentFlaw> {
    if decoder.datatype().map_err(cbor)? == Type::Null {
        decoder.null().map_err(cbor)?;
        return Ok(None);
    }
    let bytes = decoder.bytes().map_err(cbor)?;
    if bytes.len() > MAX_OPTIONAL_BYTES {
        return Err(DocumentFlaw::Malformed("public_key, user_data or nonce has more than 1,024 bytes"));
    }
    Ok(Some(bytes).filter(|bytes| !bytes.is_empty()))
}

/// Reads the entries of a CBOR map or array, of definite or indefinite length.
struct CborEntries {
    left: Option<u64>,
    most: u64,
}

#[derive(Clone, Copy)]
enum CborCollection {
    Map,
    Array,
}

impl CborEntries {
    fn of(decoder: &mut Decoder<'_>, kind: CborCollection, most: u64) -> Result<Self, DocumentFlaw> {
        let left = match kind {
            CborCollection::Map => decoder.map(),
            CborCollection::Array => decoder.array(),
        };
        Ok(Self { left: left.map_err(cbor)?, most })
    }

    /// Whether there is another.
    fn next(&mut self, decoder: &mut Decoder<'_>) -> Result<bool, DocumentFlaw> {
        match &mut self.left {
            Some(0) => return Ok(false),
            Some(left) => *left -= 1,
            None if decoder.datatype().map_err(cbor)? == Type::Break => {
                decoder.set_position(decoder.position() + 1);
                return Ok(false);
            }
            None => {}
        }
        self.most = self
            .most
            .checked_sub(1)
            .ok_or(DocumentFlaw::Malformed("it has more of something than any genuine one"))?;
        Ok(true)
    }
}

fn cbor(_: minicbor::decode::Error) -> DocumentFlaw {
    DocumentFlaw::Malformed("its payload is not a CBOR map of the right types")
}

const TWICE: DocumentFlaw = DocumentFlaw::Malformed("it says something twice");
/// Nine to eleven are known; AWS may add some.
const MAX_FIELDS: u64 = 32;
/// AWS: PCRs have indexes 0 to 31.
const MAX_PCRS: u64 = 32;
/// Genuine bundles have four.
const MAX_CERTIFICATES: u64 = 8;
/// AWS: 1 to 1,024 bytes.
const MAX_CERTIFICATE_BYTES: usize = 1_024;
/// AWS's text says 512 for two of them; genuine modules take 1,024.
const MAX_OPTIONAL_BYTES: usize = 1_024;
