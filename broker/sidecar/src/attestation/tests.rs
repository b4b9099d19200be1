//! Proves: attestation documents are verified as AWS makes them, genuine ones and those of a PKI of our own, and every other is
//! refused for its own reason.

use std::fs;
use std::path::Path;
use std::sync::OnceLock;
use std::thread;
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use kms_emulator::attestation::{Authority, DocumentClaims};
use time::OffsetDateTime;

use super::*;
use crate::operation::{recorded, recorded_at_kms};

/// Genuine documents: name, when it was made (milliseconds), when its leaf certificate expires (seconds), and what is wrong with
/// it by default.
const GENUINE: [(&str, u64, i64, Option<DocumentFlaw>); 5] = [
    ("anjuna-prod-pubkey.bin", 1_616_602_241_734, 1_616_612_782, None),
    ("anjuna-full.bin", 1_706_120_065_635, 1_706_130_857, Some(DocumentFlaw::Debug)),
    ("base-nitro-validator-repaired.bin", 1_767_472_867_402, 1_767_483_628, Some(DocumentFlaw::NoPublicKey)),
    ("evervault-valid.bin", 1_665_651_482_136, 1_665_662_282, Some(DocumentFlaw::NoPublicKey)),
    ("vaportpm-nitrotpm.bin", 1_770_113_522_437, 1_770_124_322, Some(DocumentFlaw::NoPublicKey)),
];

#[test]
fn genuine_documents_verify_when_they_were_made_and_not_after_their_certificates_expire() {
    for (name, made_at, expires_at, flaw) in GENUINE {
        let document = fixture(name);
        let verify = |trust: &Trust, at: OffsetDateTime| trust.verify(document.clone(), at);
        let made_at = moment(made_at);
        match (verify(&Trust::aws(), made_at), flaw) {
            (Ok(recipient), None) => assert_eq!(recipient.document(), &document, "{name}: unchanged"),
            (Err(error), Some(flaw)) => {
                assert_eq!(error.flaw, flaw, "{name}");
                assert!(error.measurements.is_some(), "{name}: it is genuine all the same");
            }
            (verified, _) => panic!("{name}: {verified:?}"),
        }
        // Whatever else is asked of it: it is authentic for the last second of its certificate, and no longer.
        let patient = Trust { max_age: Duration::from_hours(4), allow_debug: true, ..Trust::aws() };
        let expires_at = OffsetDateTime::from_unix_timestamp(expires_at).expect("a moment");
        let last = verify(&patient, expires_at);
        assert!(
            last.as_ref().is_ok_and(|_| flaw != Some(DocumentFlaw::NoPublicKey))
                || is(&last, DocumentFlaw::NoPublicKey),
            "{name}"
        );
        let late = verify(&patient, expires_at + Duration::from_secs(1));
        assert!(is(&late, DocumentFlaw::CertificateExpired), "{name}: {late:?}");
        assert!(
            late.err().and_then(|error| error.measurements).is_none(),
            "{name}: nobody vouches for it now"
        );
        let other = Trust { roots: vec![Authority::generate().root_der().into()], ..patient };
        assert!(
            matches!(verify(&other, made_at), Err(AttestationError { flaw: DocumentFlaw::Untrusted(_), .. })),
            "{name}"
        );
    }
}

#[test]
fn the_root_is_the_one_that_aws_publishes() {
    let [root] = &Trust::aws().roots[..] else { panic!("one root") };
    let published = "641a0321a3e244efe456463195d606317ed7cdcc3c1756e09893f3c68f79bb5b";
    assert_eq!(hex::encode(digest(&SHA256, root)), published);
}

#[test]
fn what_genuine_documents_measure_is_read_as_kms_names_it() {
    let document = fixture("anjuna-prod-pubkey.bin");
    let enclave = Trust::aws().verify(document, moment(GENUINE[0].1)).expect("genuine");
    let measured = enclave.measurements();
    assert_eq!((measured.kind(), measured.is_debug()), (PlatformKind::Enclave, false));
    assert_eq!(measured.module_id(), "i-0a6d65e7122308898-enc017846bcd2f820da");
    let pcrs: Vec<_> = measured.pcrs().collect();
    assert_eq!((pcrs.len(), measured.image_sha384().as_ref()), (16, Some(&pcrs[0].1)));
    let document = fixture("vaportpm-nitrotpm.bin");
    let tpm = Trust::aws()
        .verify(document, moment(GENUINE[4].1))
        .expect_err("its public key is a point of a curve");
    let tpm = tpm.measurements.expect("genuine");
    assert_eq!((tpm.kind(), tpm.pcrs().count()), (PlatformKind::NitroTpm, 24));
    assert_eq!(tpm.image_sha384(), None, "CloudTrail has no image digest of it");
    let of_kms = [enclave.measurements(), &tpm]
        .map(|measured| serde_json::to_string_pretty(&recorded_at_kms(measured)).expect("JSON"));
    insta::assert_snapshot!(of_kms.join("\n"));
    let of_activity = [enclave.measurements(), &tpm].map(|measured| {
        let recipient = serde_json::to_value(recorded(measured)).expect("JSON");
        recipient.as_object().expect("an object").len()
    });
    // The module's id, the image's digest, and PCR1 to PCR15; of a NitroTPM PCR0 to PCR23.
    assert_eq!(of_activity, [1 + 1 + 15, 1 + 24]);
}

#[test]
fn documents_that_are_not_right_are_refused_for_their_own_reason() {
    let trust = Trust { max_age: Duration::from_hours(4), allow_debug: true, ..Trust::aws() };
    let mut told = Vec::new();
    for (name, made_at) in [
        ("eternis-invalid.b64", 1_721_770_180_771),
        ("base-nitro-validator.b64", GENUINE[2].1),
        ("qemu-10.0.2-nitro-enclave-unsigned.bin", 1_795_249_195_000),
    ] {
        let document = fixture(name);
        let error = trust.verify(document, moment(made_at)).expect_err(name);
        assert_eq!(error.measurements, None, "{name}: what nobody signed is no evidence");
        told.push(format!("{name}: {}", error.flaw));
    }
    insta::assert_snapshot!(told.join("\n"));
}

/// Proves: whichever bytes of a genuine document change, it is refused, or what counts in it has not changed: some 100,000 ways.
#[test]
fn no_mutation_of_a_genuine_document_is_accepted() {
    let trust = Trust { max_age: Duration::from_hours(4), ..Trust::aws() };
    let ours = Authority::generate();
    let claims = DocumentClaims::enclave(GENUINE[0].1).with_public_key(rsa());
    let our_trust = Trust { roots: vec![ours.root_der().into()], ..trust.clone() };
    let documents = [(our_trust, Bytes::from(ours.document(&claims))), (trust, fixture(GENUINE[0].0))];
    let at = moment(GENUINE[0].1);
    let try_all = |trust: &Trust, document: &Bytes, seed: u64| {
        let mut dice = Dice::new(seed);
        let mut refused = 0;
        assert!(trust.verify(document.clone(), at).is_ok());
        for round in 0..MUTATIONS {
            let mutated = Bytes::from(mutated(document, round, &mut dice));
            if mutated == document {
                continue;
            }
            // The unprotected header is signed by nobody, and counts for nothing: nothing else may change.
            match trust.verify(mutated, at) {
                Ok(taken) => assert_eq!(signed(taken.document()), signed(document), "{round}"),
                Err(_) => refused += 1,
            }
        }
        assert!(refused >= MUTATIONS - MUTATIONS / 100, "{refused}");
    };
    thread::scope(|scope| {
        for (seed, (trust, document)) in documents.iter().enumerate() {
            scope.spawn(move || try_all(trust, document, seed as u64));
        }
    });
}

#[test]
fn forms_that_aws_never_makes_are_refused() {
    let authority = Authority::generate();
    let trust = Trust { roots: vec![authority.root_der().into()], ..Trust::aws() };
    let now = 1_795_651_200_000;
    let claims = || DocumentClaims::enclave(now).with_public_key(rsa());
    let verify = |document: Vec<u8>| trust.verify(document.into(), moment(now));
    let made = |claims: DocumentClaims| verify(authority.document(&claims));

    assert!(made(claims()).is_ok());
    assert!(made(DocumentClaims { tagged: true, indefinite_map: false, ..claims() }).is_ok());
    assert!(
        made(DocumentClaims { user_data: Some(vec![1; 1_024]), nonce: Some(vec![2; 1_024]), ..claims() })
            .is_ok()
    );
    assert!(made(DocumentClaims::nitro_tpm(now).with_public_key(rsa())).is_ok());

    let stranger = Authority::generate();
    let minute = 60_000;
    let refusals = [
        ("another root", made(DocumentClaims { shown_root: Some(stranger.root_der()), ..claims() })),
        ("another authority", verify(stranger.document(&claims()))),
        (
            "another authority under our root",
            verify(stranger.document(&DocumentClaims { shown_root: Some(authority.root_der()), ..claims() })),
        ),
        ("not for signatures", made(DocumentClaims { leaf_may_sign: false, ..claims() })),
        ("expired", made(DocumentClaims { leaf_validity: Some(now - minute..=now - 1_000), ..claims() })),
        (
            "not valid yet",
            made(DocumentClaims { leaf_validity: Some(now + 31_000..=now + minute), ..claims() }),
        ),
        ("5:30 old", made(DocumentClaims { timestamp: now - 331_000, ..claims() })),
        (
            "made in 31 s",
            made(DocumentClaims {
                timestamp: now + 31_000,
                leaf_validity: Some(now - minute..=now + minute),
                ..claims()
            }),
        ),
        ("debug", made(debug(claims()))),
        ("no public key", made(DocumentClaims::enclave(now))),
        ("an empty public key", made(DocumentClaims { public_key: Some(Vec::new()), ..claims() })),
        ("a public key of no form", made(DocumentClaims { public_key: Some(vec![4; 97]), ..claims() })),
        ("a long public key", made(DocumentClaims { public_key: Some(vec![1; 1_025]), ..claims() })),
        ("a long nonce", made(DocumentClaims { nonce: Some(vec![1; 1_025]), ..claims() })),
        ("a module's name", made(DocumentClaims { module_id: "i-lab-enc42".into(), ..claims() })),
        ("a TPM's name", made(DocumentClaims { module_id: "i-0a-tpm00".into(), ..claims() })),
        ("PCR32", made(claims().with_pcr(32, [1; 48]))),
        ("NitroTPM PCR24", made(DocumentClaims::nitro_tpm(now).with_public_key(rsa()).with_pcr(24, [1; 48]))),
        ("no bytes", verify(Vec::new())),
        ("more bytes", verify([authority.document(&claims()), vec![0]].concat())),
        ("a null", verify(vec![0xf6])),
    ];
    let told: Vec<_> = refusals
        .into_iter()
        .map(|(name, verified)| format!("{name}: {:?}", verified.map(|_| ()).expect_err(name).flaw))
        .collect();
    insta::assert_snapshot!(told.join("\n"));
    // At the very edge it is taken.
    assert!(made(DocumentClaims { timestamp: now - 330_000, ..claims() }).is_ok());
    let early = DocumentClaims {
        timestamp: now + 30_000,
        leaf_validity: Some(now - minute..=now + minute),
        ..claims()
    };
    assert!(made(early).is_ok());
    let careless = Trust { allow_debug: true, ..trust.clone() };
    assert!(careless.verify(authority.document(&debug(claims())).into(), moment(now)).is_ok());
}

/// Proves: whenever leaf and zone begin and end, a document is taken if and only if no clock that is as far ahead as allowed would find one
/// of them not valid yet, and neither has ended; and what is refused is refused for what it is.
#[test]
fn certificates_count_from_the_clock_skew_before_their_time_and_never_after_it() {
    const NOW: u64 = 1_795_651_200_000;
    let days = 86_400_000;
    let offsets = [-2 * days, -1_000, 0, 1_000, 2_000, 30_000, 31_000, 3 * days];
    let at = |offset: i64| NOW.checked_add_signed(offset).expect("a moment");
    for zone_start in offsets {
        for zone_end in [-1_000, 0, 40_000, 4 * days].into_iter().filter(|end| *end > zone_start) {
            let authority = Authority::generate_with_zone(Some(&(at(zone_start)..=at(zone_end))));
            let trust = Trust { roots: vec![authority.root_der().into()], ..Trust::aws() };
            for leaf_start in offsets {
                let claims = DocumentClaims {
                    leaf_validity: Some(at(leaf_start)..=at(4 * days)),
                    ..DocumentClaims::enclave(NOW).with_public_key(rsa())
                };
                let verified = trust.verify(authority.document(&claims).into(), moment(NOW));
                let flaw = verified.err().map(|error| error.flaw);
                let is_early = [zone_start, leaf_start].iter().any(|start| *start > 30_000);
                let name = format!("zone {zone_start}..{zone_end}, leaf from {leaf_start}");
                match flaw {
                    None => assert!(!is_early && zone_end >= 0 && zone_end >= leaf_start, "{name}"),
                    Some(DocumentFlaw::CertificateNotYetValid) => assert!(is_early, "{name}"),
                    Some(DocumentFlaw::CertificateExpired) => {
                        assert!(zone_end < 0 || zone_end < leaf_start, "{name}");
                    }
                    Some(flaw) => panic!("{name}: {flaw:?}"),
                }
            }
        }
    }
    // The configuration decides how far clocks may differ.
    let authority = Authority::generate();
    let made = |start: u64| {
        let claims = DocumentClaims::enclave(NOW).with_public_key(rsa());
        authority.document(&DocumentClaims { leaf_validity: Some(start..=NOW + 10_800_000), ..claims })
    };
    for skew in [0, 1, 300] {
        let (roots, clock_skew) = (vec![authority.root_der().into()], Duration::from_secs(skew));
        let trust = Trust { roots, clock_skew, ..Trust::aws() };
        let verify = |start: u64| trust.verify(made(start).into(), moment(NOW));
        assert!(verify(NOW + skew * 1_000).is_ok());
        assert!(is(&verify(NOW + (skew + 1) * 1_000), DocumentFlaw::CertificateNotYetValid));
    }
}

#[test]
fn payloads_that_are_signed_and_yet_no_document_are_refused() {
    let authority = Authority::generate();
    let trust = Trust { roots: vec![authority.root_der().into()], ..Trust::aws() };
    let now = 1_795_651_200_000;
    let leaf = authority.leaf("i-0a-enc0b", &(now - 1_000..=now + 60_000), true);
    let bundle: Vec<&[u8]> = authority.cabundle().iter().map(Vec::as_slice).collect();
    let good = Payload { timestamp: now, leaf: leaf.certificate(), bundle: &bundle };
    let verify = |payload: Vec<u8>| trust.verify(leaf.sign(&payload, false).into(), moment(now));
    assert!(verify(good.members(&[])).is_ok(), "the helper makes good ones");
    assert!(
        verify(good.members(&[("of_later", &[0x82, 0x01, 0xa1, 0x02, 0xf6])])).is_ok(),
        "unknown ones are skipped"
    );

    let deep = [vec![0x81; 4_000], vec![0x00]].concat();
    let long = [vec![0x59, 0x40, 0x01], vec![0; 0x4001]].concat();
    let refusals = [
        ("a name twice", verify(good.members(&[("digest", &[0x66, b'S', b'H', b'A', b'3', b'8', b'4'])]))),
        ("an unknown name twice", verify(good.members(&[("later", &[0x01]), ("later", &[0x01])]))),
        (
            "a PCR twice",
            verify(good.with(
                "pcrs",
                &[&[0xa2, 0x00, 0x58, 48][..], &[1; 48], &[0x00, 0x58, 48], &[1; 48]].concat(),
            )),
        ),
        ("a short PCR", verify(good.with("pcrs", &[0xa1, 0x00, 0x41, 0x01]))),
        ("no PCR", verify(good.with("pcrs", &[0xa0]))),
        ("PCRs in an array", verify(good.with("pcrs", &[0x80]))),
        ("both kinds of PCR", verify(good.members(&[("nitrotpm_pcrs", &[0xa0])]))),
        ("another digest", verify(good.with("digest", &[0x66, b'S', b'H', b'A', b'5', b'1', b'2']))),
        ("a timestamp of text", verify(good.with("timestamp", &[0x61, b'1']))),
        (
            "a timestamp beyond time",
            verify(good.with("timestamp", &[0x1b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff])),
        ),
        ("an empty bundle", verify(good.with("cabundle", &[0x80]))),
        ("a certificate of no bytes", verify(good.with("certificate", &[0x40]))),
        (
            "a bundle of a hundred",
            verify(good.with("cabundle", &[vec![0x98, 100], [0x41, 0x00].repeat(100)].concat())),
        ),
        ("arrays in arrays", verify(good.members(&[("deep", &deep)]))),
        ("a long payload", verify(good.members(&[("long", &long)]))),
        ("a map that does not end", verify([&[0xbf][..], &good.members(&[])[1..]].concat())),
        ("bytes after the map", verify([good.members(&[]), vec![0x00]].concat())),
        ("nothing", verify(Vec::new())),
    ];
    let told: Vec<_> = refusals
        .into_iter()
        .map(|(name, verified)| match verified {
            Ok(_) => format!("{name}: taken"),
            Err(error) => format!("{name}: {:?}", error.flaw),
        })
        .collect();
    insta::assert_snapshot!(told.join("\n"));
}

/// A payload, written member by member.
struct Payload<'a> {
    timestamp: u64,
    leaf: &'a [u8],
    bundle: &'a [&'a [u8]],
}

impl Payload<'_> {
    /// With more members at its end.
    fn members(&self, more: &[(&str, &[u8])]) -> Vec<u8> {
        self.write(None, more)
    }

    /// With one member of another value.
    fn with(&self, name: &str, value: &[u8]) -> Vec<u8> {
        self.write(Some((name, value)), &[])
    }

    fn write(&self, other: Option<(&str, &[u8])>, more: &[(&str, &[u8])]) -> Vec<u8> {
        let bytes = |bytes: &[u8]| {
            let length = u16::try_from(bytes.len()).expect("short").to_be_bytes();
            [&[0x59], &length[..], bytes].concat()
        };
        let text = |text: &str| [&[0x78, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat();
        let pcrs = (0..3).map(|index| [vec![index], bytes(&[7; 48])].concat()).collect::<Vec<_>>().concat();
        let bundle = self.bundle.iter().map(|der| bytes(der)).collect::<Vec<_>>().concat();
        let mut payload = vec![0xb8, u8::try_from(7 + more.len()).expect("few")];
        for (name, value) in [
            ("module_id", text("i-0a-enc0b")),
            ("digest", text("SHA384")),
            ("timestamp", [&[0x1b][..], &self.timestamp.to_be_bytes()].concat()),
            ("pcrs", [vec![0xa3], pcrs].concat()),
            ("certificate", bytes(self.leaf)),
            ("cabundle", [vec![0x84], bundle].concat()),
            ("public_key", bytes(&rsa())),
        ] {
            payload.extend(text(name));
            payload
                .extend(other.filter(|(other, _)| *other == name).map_or(value, |(_, value)| value.to_vec()));
        }
        for (name, value) in more {
            payload.extend(text(name));
            payload.extend(*value);
        }
        payload
    }
}

/// One change, or some: a bit, a byte, a cut, a repetition.
/// Numbers that follow from a seed (xorshift64*, Vigna 2016).
struct Dice(u64);

impl Dice {
    fn new(seed: u64) -> Self {
        // Zero would stay zero.
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Less than `bound`.
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 16) % bound
    }
}

fn mutated(document: &[u8], round: usize, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = document.to_vec();
    // Every byte once, then anything.
    if let Some(byte) = bytes.get_mut(round) {
        *byte ^= 1 << dice.below(8);
        return bytes;
    }
    let mut below = |bound: usize| usize::try_from(dice.below(bound.max(1) as u64)).expect("it is less");
    for _ in 0..=below(3) {
        let (at, byte) = (below(bytes.len()), u8::try_from(below(256)).unwrap_or_default());
        match below(5) {
            0 => bytes.truncate(at),
            1 => bytes.extend_from_slice(&document[at.min(document.len())..]),
            2 => bytes.insert(at, byte),
            _ if bytes.is_empty() => {}
            3 => drop(bytes.remove(at)),
            _ => bytes[at] = byte,
        }
    }
    bytes
}

/// The parts that the signature is over, and the signature: all but the tag, the array's head and the unprotected header.
fn signed(document: &[u8]) -> (Vec<u8>, Vec<u8>) {
    // Protected header `44 a1013822`, then an empty map, then the payload `59 xxxx`.
    let start =
        document.windows(5).position(|part| part == [0x44, 0xa1, 0x01, 0x38, 0x22]).expect("a header");
    let payload = document[start..].iter().position(|byte| *byte == 0x59).expect("a payload") + start;
    (document[start..start + 5].to_vec(), document[payload..].to_vec())
}

/// A public key of 2,048 bits, in DER of `SubjectPublicKeyInfo`.
fn rsa() -> Vec<u8> {
    static KEY: OnceLock<Vec<u8>> = OnceLock::new();
    let make = || {
        let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
        let spki: PublicKeyX509Der<'_> = key.public_key().as_der().expect("it has a form");
        spki.as_ref().to_vec()
    };
    KEY.get_or_init(make).clone()
}

fn debug(claims: DocumentClaims) -> DocumentClaims {
    (0..3).fold(claims, |claims, index| claims.with_pcr(index, [0; 48]))
}

fn is(verified: &Result<VerifiedRecipient, AttestationError>, flaw: DocumentFlaw) -> bool {
    verified.as_ref().is_err_and(|error| error.flaw == flaw)
}

fn moment(millis: u64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000).expect("a moment")
}

/// A file of `tests/fixtures/attestation`.
fn fixture(name: &str) -> Bytes {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/attestation").join(name);
    let bytes = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    if path.extension().is_none_or(|extension| extension != "b64") {
        return bytes.into();
    }
    let text = String::from_utf8(bytes).expect("base64 is text");
    STANDARD.decode(text.trim()).expect("base64").into()
}

const MUTATIONS: usize = 50_000;
