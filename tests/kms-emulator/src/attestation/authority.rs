//! A public key infrastructure for tests, of the shape of Nitro's: whoever trusts its root believes what it claims.

use std::fmt;
use std::fmt::Write as _;
use std::ops::RangeInclusive;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use ciborium::Value;
use coset::{CborSerializable as _, CoseSign1Builder, HeaderBuilder, TaggedCborSerializable as _, iana};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    PKCS_ECDSA_P384_SHA384, date_time_ymd,
};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use time::OffsetDateTime;

use super::claims::DocumentClaims;

/// Four P-384 certificates (root, region, zone, instance) and the instance's key, which signs a leaf for every document.
/// As Nitro's, but for their validity: all four are valid from 2019-10-28 to 2049-10-28.
///
/// Two authorities do not trust each other: a document of one is what the other's readers must refuse.
pub struct Authority {
    /// In the order of a document's `cabundle`: the root first.
    cabundle: Vec<Vec<u8>>,
    instance: KeyPair,
}

/// A certificate that signs documents, and its key: for documents that [`Authority::document`] does not make.
pub struct Leaf {
    certificate: Vec<u8>,
    key: EcdsaKeyPair,
}

/// Why a text is no authority.
#[derive(Debug)]
pub struct NoAuthority(String);

impl Authority {
    /// A new one, with keys of its own.
    ///
    /// # Panics
    /// Never: AWS-LC makes and uses keys for P-384.
    #[must_use]
    pub fn generate() -> Authority {
        Authority::generate_with_zone(None)
    }

    /// The same, with a zone's certificate that is valid at the given unix milliseconds only.
    ///
    /// # Panics
    /// If a time is in or after the year 10000.
    #[must_use]
    pub fn generate_with_zone(zone: Option<&RangeInclusive<u64>>) -> Authority {
        let root = authority_certificate(ROOT, BasicConstraints::Unconstrained);
        let (mut issuer, certificate) = self_signed(root);
        let mut cabundle = vec![certificate];
        for (name, path_length) in [(REGION, 2), (ZONE, 1)] {
            let key = p384_key();
            let mut params = authority_certificate(name, BasicConstraints::Constrained(path_length));
            if let Some(zone) = zone.filter(|_| name == ZONE) {
                (params.not_before, params.not_after) = (date(*zone.start()), date(*zone.end()));
            }
            let certificate = params.signed_by(&key, &issuer).expect(SIGNS);
            cabundle.push(certificate.der().to_vec());
            issuer = Issuer::new(params, key);
        }
        let instance = p384_key();
        let certificate = instance_certificate().signed_by(&instance, &issuer).expect(SIGNS);
        cabundle.push(certificate.der().to_vec());
        Authority { cabundle, instance }
    }

    /// One that [`Authority::to_pem`] wrote, perhaps in another process.
    pub fn from_pem(text: &str) -> Result<Authority, NoAuthority> {
        let explain = |what: &str, error: &dyn fmt::Display| NoAuthority(format!("{what}: {error}"));
        let cabundle: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(text.as_bytes())
            .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
            .collect::<Result<_, _>>()
            .map_err(|error| explain("certificates", &error))?;
        if cabundle.len() != CABUNDLE_LENGTH {
            return Err(NoAuthority(format!("{} certificates, not {CABUNDLE_LENGTH}", cabundle.len())));
        }
        let key = PrivatePkcs8KeyDer::from_pem_slice(text.as_bytes())
            .map_err(|error| explain("private key", &error))?;
        let instance = KeyPair::from_pkcs8_der_and_sign_algo(&key, &PKCS_ECDSA_P384_SHA384)
            .map_err(|error| explain("private key", &error))?;
        // The certificate has the point as it is, uncompressed.
        let point = instance.public_key_raw();
        if !cabundle[CABUNDLE_LENGTH - 1].windows(point.len()).any(|window| window == point) {
            return Err(NoAuthority("the private key is not that of the last certificate".to_owned()));
        }
        Ok(Authority { cabundle, instance })
    }

    /// All of it: the four certificates, root first, and the instance's private key.
    #[must_use]
    pub fn to_pem(&self) -> String {
        let mut text: String =
            self.cabundle.iter().map(|certificate| pem("CERTIFICATE", certificate)).collect();
        text.push_str(&pem("PRIVATE KEY", self.instance.serialized_der()));
        text
    }

    /// The root certificate: what a reader of the documents is to trust.
    #[must_use]
    pub fn root_der(&self) -> Vec<u8> {
        self.cabundle[0].clone()
    }

    /// The same as text.
    #[must_use]
    pub fn root_pem(&self) -> String {
        pem("CERTIFICATE", &self.cabundle[0])
    }

    /// The certificates between root and leaf, both ends: root, region, zone, instance.
    #[must_use]
    pub fn cabundle(&self) -> &[Vec<u8>] {
        &self.cabundle
    }

    /// A signed document.
    ///
    /// # Panics
    /// If a time of the claims is in or after the year 10000.
    #[must_use]
    pub fn document(&self, claims: &DocumentClaims) -> Vec<u8> {
        let validity = claims.leaf_validity.clone().unwrap_or_else(|| nitro_validity(claims.timestamp));
        let leaf = self.leaf(&claims.module_id, &validity, claims.leaf_may_sign);
        leaf.sign(&self.payload(claims, &leaf.certificate), claims.tagged)
    }

    /// A leaf certificate for a module, valid at the given unix milliseconds.
    ///
    /// # Panics
    /// If a time is in or after the year 10000.
    #[must_use]
    pub fn leaf(&self, module_id: &str, validity: &RangeInclusive<u64>, may_sign: bool) -> Leaf {
        let key = p384_key();
        let mut params =
            named(&[("ST", "Washington"), ("L", "Seattle")], &format!("{module_id}.us-east-1.aws"));
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::ContentCommitment];
        if may_sign {
            params.key_usages.push(KeyUsagePurpose::DigitalSignature);
        }
        (params.not_before, params.not_after) = (date(*validity.start()), date(*validity.end()));
        let issuer = Issuer::new(instance_certificate(), &self.instance);
        let certificate = params.signed_by(&key, &issuer).expect(SIGNS).der().to_vec();
        let key = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_FIXED_SIGNING, key.serialized_der())
            .expect("a key for P-384");
        Leaf { certificate, key }
    }

    /// The CBOR map that is signed, its members in Nitro's order.
    fn payload(&self, claims: &DocumentClaims, leaf: &[u8]) -> Vec<u8> {
        let mut cabundle = self.cabundle.clone();
        if let Some(root) = &claims.shown_root {
            cabundle[0].clone_from(root);
        }
        let registers = claims.measurements.registers().iter();
        let optional = |bytes: &Option<Vec<u8>>| bytes.clone().map_or(Value::Null, Value::Bytes);
        let members = [
            ("module_id", claims.module_id.clone().into()),
            ("digest", "SHA384".into()),
            ("timestamp", claims.timestamp.into()),
            (
                claims.measurements.member(),
                Value::Map(
                    registers.map(|(index, value)| ((*index).into(), value.to_vec().into())).collect(),
                ),
            ),
            ("certificate", Value::Bytes(leaf.to_vec())),
            ("cabundle", Value::Array(cabundle.into_iter().map(Value::Bytes).collect())),
            ("public_key", optional(&claims.public_key)),
            ("user_data", optional(&claims.user_data)),
            ("nonce", optional(&claims.nonce)),
        ];
        // Map heads by hand, as ciborium writes definite lengths only: RFC 8949, section 3.2.2.
        let mut payload = vec![if claims.indefinite_map { 0xbf } else { 0xa9 }];
        for (name, value) in members {
            ciborium::into_writer(name, &mut payload).expect(WRITES);
            ciborium::into_writer(&value, &mut payload).expect(WRITES);
        }
        if claims.indefinite_map {
            payload.push(0xff);
        }
        payload
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Leaf {
    /// The certificate, DER: what a payload has as `certificate`.
    #[must_use]
    pub fn certificate(&self) -> &[u8] {
        &self.certificate
    }

    /// A `COSE_Sign1` over any payload, signed with ES384.
    ///
    /// # Panics
    /// Never: P-384 signs every message.
    #[must_use]
    pub fn sign(&self, payload: &[u8], tagged: bool) -> Vec<u8> {
        let sign = |message: &[u8]| {
            let signature = self.key.sign(&SystemRandom::new(), message).expect(SIGNS);
            signature.as_ref().to_vec()
        };
        let signed = CoseSign1Builder::new()
            .protected(HeaderBuilder::new().algorithm(iana::Algorithm::ES384).build())
            .payload(payload.to_vec())
            .create_signature(b"", sign)
            .build();
        if tagged { signed.to_tagged_vec() } else { signed.to_vec() }.expect(WRITES)
    }
}

impl fmt::Debug for Leaf {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Leaf").finish_non_exhaustive()
    }
}

impl fmt::Display for NoAuthority {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "not an attestation authority: {}", self.0)
    }
}

impl std::error::Error for NoAuthority {}

fn self_signed(params: CertificateParams) -> (Issuer<'static, KeyPair>, Vec<u8>) {
    let key = p384_key();
    let certificate = params.self_signed(&key).expect(SIGNS).der().to_vec();
    (Issuer::new(params, key), certificate)
}

fn authority_certificate(name: &str, constraints: BasicConstraints) -> CertificateParams {
    let mut params = named(&[], name);
    params.is_ca = IsCa::Ca(constraints);
    params.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params
}

/// The last of the four. Always the same but for its key, so that it need not be read to issue leaves.
fn instance_certificate() -> CertificateParams {
    let mut params = named(&[("ST", "Washington"), ("L", "Seattle")], INSTANCE);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn named(place: &[(&str, &str)], name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::CountryName, "US");
    for (kind, value) in place {
        let kind = if *kind == "ST" { DnType::StateOrProvinceName } else { DnType::LocalityName };
        params.distinguished_name.push(kind, *value);
    }
    params.distinguished_name.push(DnType::OrganizationName, "Amazon");
    params.distinguished_name.push(DnType::OrganizationalUnitName, "AWS");
    params.distinguished_name.push(DnType::CommonName, name);
    (params.not_before, params.not_after) = (date_time_ymd(2019, 10, 28), date_time_ymd(2049, 10, 28));
    params
}

fn p384_key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P384_SHA384).expect("AWS-LC makes keys for P-384")
}

/// From 3 seconds before the timestamp until 3 hours after it.
fn nitro_validity(timestamp: u64) -> RangeInclusive<u64> {
    let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    timestamp.saturating_sub(millis(Duration::from_secs(3)))
        ..=timestamp.saturating_add(millis(Duration::from_hours(3)))
}

fn date(unix_millis: u64) -> OffsetDateTime {
    let seconds = i64::try_from(unix_millis / 1000).ok();
    seconds
        .and_then(|seconds| OffsetDateTime::from_unix_timestamp(seconds).ok())
        .expect("the claims are of a time before the year 10000")
}

/// RFC 7468.
fn pem(label: &str, der: &[u8]) -> String {
    let text = BASE64.encode(der);
    let mut pem = format!("-----BEGIN {label}-----\n");
    for line in text.as_bytes().chunks(64) {
        pem.extend(line.iter().map(|byte| char::from(*byte)));
        pem.push('\n');
    }
    writeln!(pem, "-----END {label}-----").expect(WRITES);
    pem
}

const ROOT: &str = "aws.nitro-enclaves";
const REGION: &str = "0123456789abcdef.us-east-1.aws.nitro-enclaves";
const ZONE: &str = "fedcba9876543210.zonal.us-east-1.aws.nitro-enclaves";
const INSTANCE: &str = "i-0123456789abcdef0.us-east-1.aws.nitro-enclaves";

/// Root, region, zone, instance.
const CABUNDLE_LENGTH: usize = 4;

const SIGNS: &str = "a P-384 key signs what is well formed";
const WRITES: &str = "writing to memory does not fail";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_authority_that_was_written_down_is_the_same() {
        let authority = Authority::generate();
        let text = authority.to_pem();
        let again = Authority::from_pem(&text).expect("an authority");
        assert_eq!(again.to_pem(), text);
        assert_eq!(again.root_der(), authority.root_der());
        assert!(text.starts_with(&authority.root_pem()), "the root first");
        assert!(Authority::from_pem(&authority.root_pem()).is_err(), "only a root");
        assert!(Authority::from_pem("").is_err());
        let key = text.split_once("-----BEGIN PRIVATE").expect("a key").1;
        let other = Authority::generate().to_pem();
        let other = other.split_once("-----BEGIN PRIVATE").expect("a key").0;
        let mixed = Authority::from_pem(&format!("{other}-----BEGIN PRIVATE{key}")).expect_err("mixed");
        assert!(mixed.to_string().ends_with("not that of the last certificate"), "{mixed}");
    }

    #[test]
    fn documents_have_the_forms_of_nitro() {
        let authority = Authority::generate();
        let claims = DocumentClaims::enclave(1_795_651_200_000);
        let document = authority.document(&claims);
        assert_eq!(document[..7], [0x84, 0x44, 0xa1, 0x01, 0x38, 0x22, 0xa0], "an untagged COSE_Sign1");
        assert_eq!(document[10], 0xbf, "an indefinite map");
        assert!((2500..6000).contains(&document.len()), "{}", document.len());
        let older = DocumentClaims { indefinite_map: false, tagged: true, ..claims };
        let document = authority.document(&older);
        assert_eq!((document[0], document[11]), (0xd2, 0xa9), "tag 18, a definite map");
    }
}
