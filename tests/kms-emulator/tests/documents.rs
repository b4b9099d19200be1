//! Proves that genuine documents and the test authority's verify, and that nothing else does.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod fixtures;

use kms_emulator::attestation::{
    Authority, DocumentClaims, DocumentError, Measurements, NoAuthority, verify,
};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

/// 2026-11-26.
const NOW: u64 = 1_795_651_200_000;

#[test]
fn what_the_authority_claims_is_what_a_document_says() {
    let authority = Authority::generate();
    let roots = [Authority::generate().root_der(), authority.root_der()];
    for claims in [
        DocumentClaims::enclave(NOW),
        DocumentClaims::nitro_tpm(NOW).with_public_key([4; 65]),
        DocumentClaims { indefinite_map: false, tagged: true, ..DocumentClaims::enclave(NOW) }
            .with_pcr(31, [9; 48]),
        DocumentClaims {
            user_data: Some(vec![]),
            nonce: Some(vec![1; 1024]),
            ..DocumentClaims::enclave(NOW)
        },
    ] {
        let document = verify(&authority.document(&claims), &roots, NOW).unwrap();
        assert_eq!((document.module_id, document.timestamp), (claims.module_id, claims.timestamp));
        assert_eq!(document.measurements, claims.measurements);
        assert_eq!(document.public_key, claims.public_key);
        assert_eq!((document.user_data, document.nonce), (claims.user_data, claims.nonce));
    }
}

#[test]
fn an_authority_signs_in_another_process_too() -> Result<(), NoAuthority> {
    let authority = Authority::generate();
    let again = Authority::from_pem(&authority.to_pem())?;
    verify(&again.document(&DocumentClaims::enclave(NOW)), &[authority.root_der()], NOW).unwrap();
    Ok(())
}

#[test]
fn a_document_is_valid_as_long_as_its_leaf() {
    let authority = Authority::generate();
    let roots = [authority.root_der()];
    let hours = 3_600_000;
    let document = authority.document(&DocumentClaims::enclave(NOW));
    for now in [NOW - 3000, NOW, NOW + 3 * hours] {
        verify(&document, &roots, now).unwrap();
    }
    for now in [NOW - 4000, NOW + 3 * hours + 1000, 0, 4_102_444_800_000] {
        assert_eq!(verify(&document, &roots, now), Err(DocumentError::Expired), "{now}");
    }
    let claims =
        DocumentClaims { leaf_validity: Some(NOW - 2 * hours..=NOW - hours), ..DocumentClaims::enclave(NOW) };
    assert_eq!(verify(&authority.document(&claims), &roots, NOW), Err(DocumentError::Expired));
}

#[test]
fn only_a_trusted_root_is_believed() {
    let (authority, other) = (Authority::generate(), Authority::generate());
    let document = other.document(&DocumentClaims::enclave(NOW));
    let refused = verify(&document, &[authority.root_der()], NOW).unwrap_err();
    assert_eq!(refused.to_string(), "its root certificate is not a trusted one");
    assert!(matches!(verify(&document, &[], NOW), Err(DocumentError::Untrusted(_))));

    let forged = DocumentClaims { shown_root: Some(authority.root_der()), ..DocumentClaims::enclave(NOW) };
    let refused = verify(&other.document(&forged), &[authority.root_der()], NOW);
    assert!(matches!(refused, Err(DocumentError::Untrusted(_))), "{refused:?}");

    let silent = DocumentClaims { leaf_may_sign: false, ..DocumentClaims::enclave(NOW) };
    let refused = verify(&authority.document(&silent), &[authority.root_der()], NOW).unwrap_err();
    assert_eq!(refused.to_string(), "its certificate may not sign");
}

#[test]
fn a_leaf_signs_its_own_documents_only() {
    let authority = Authority::generate();
    let roots = [authority.root_der()];
    let leaf = || authority.leaf("i-0-enc0", &(NOW..=NOW + 1000), true);
    let claims = DocumentClaims::enclave(NOW);
    let payload = payload(&authority.document(&claims));
    // The payload shows the leaf that signed it first.
    assert_eq!(verify(&leaf().sign(&payload, false), &roots, NOW), Err(DocumentError::Signature));
    let refused = verify(&leaf().sign(b"\xa0", false), &roots, NOW);
    assert!(matches!(refused, Err(DocumentError::Malformed(_))), "{refused:?}");
}

#[test]
fn a_document_ends_where_it_ends() {
    let authority = Authority::generate();
    let roots = [authority.root_der()];
    let document = authority.document(&DocumentClaims::enclave(NOW));
    let mut long = document.clone();
    long.push(0);
    for wrong in [&long, &document[..document.len() - 1], &[], &[0xd2], &vec![0xf6; 1 << 15]] {
        assert!(matches!(verify(wrong, &roots, NOW), Err(DocumentError::Malformed(_))));
    }
}

#[test]
fn hostile_cbor_costs_nothing() {
    let authority = Authority::generate();
    let roots = [authority.root_der()];
    let leaf = authority.leaf("i-0-enc0", &(NOW..=NOW + 1000), true);
    let deep = [0x81, 0x9f, 0xa1, 0xbf, 0xc2, 0x5f].map(|head| vec![head; 16_000]);
    let long = [0x5b, 0x7b, 0x9b, 0xbb].map(|head| [vec![head], vec![0xff; 8], vec![0; 64]].concat());
    for cbor in deep.iter().chain(&long) {
        assert!(matches!(verify(cbor, &roots, NOW), Err(DocumentError::Malformed(_))));
        assert!(matches!(verify(&leaf.sign(cbor, false), &roots, NOW), Err(DocumentError::Malformed(_))));
    }
}

#[test]
fn genuine_documents_verify_at_their_own_time() {
    let root = fixtures::nitro_root();
    for (name, module, timestamp) in [
        ("anjuna-prod-pubkey.bin", "i-0a6d65e7122308898-enc017846bcd2f820da", 1_616_602_241_734),
        ("base-nitro-validator-repaired.bin", "i-0368fa67e156d6d23-enc019b8596b1a9dad6", 1_767_472_867_402),
        ("vaportpm-nitrotpm.bin", "i-01cfb383223e42522-tpm0000000000000000", 1_770_113_522_437),
    ] {
        let bytes = fixtures::read(&format!("attestation/{name}"));
        let document = verify(&bytes, std::slice::from_ref(&root), timestamp).unwrap();
        assert_eq!((document.module_id.as_str(), document.timestamp), (module, timestamp), "{name}");
        let tpm = matches!(document.measurements, Measurements::NitroTpm(_));
        assert_eq!(
            (tpm, document.measurements.registers().len()),
            (name.contains("tpm"), if tpm { 24 } else { 16 })
        );
        let now = verify(&bytes, std::slice::from_ref(&root), NOW);
        assert_eq!(now, Err(DocumentError::Expired), "{name}");
    }
    for name in ["anjuna-full.bin", "evervault-valid.bin"] {
        let bytes = fixtures::read(&format!("attestation/{name}"));
        let expired = verify(&bytes, std::slice::from_ref(&root), NOW);
        assert_eq!(expired, Err(DocumentError::Expired), "{name}");
        let timestamp = fixtures::timestamp(&bytes);
        let document = verify(&bytes, std::slice::from_ref(&root), timestamp).unwrap();
        let image = document.measurements.registers()[&0];
        assert_eq!(image == [0; 48], name == "anjuna-full.bin", "a debug enclave has no image");
    }
}

#[test]
fn bad_documents_fail_at_their_own_time() {
    let root = fixtures::nitro_root();
    let roots = [root];
    let invalid = fixtures::read_base64("attestation/eternis-invalid.b64");
    let refused = verify(&invalid, &roots, fixtures::timestamp(&invalid));
    assert_eq!(refused, Err(DocumentError::Signature));
    for bytes in [
        fixtures::read_base64("attestation/base-nitro-validator.b64"),
        fixtures::read("attestation/qemu-10.0.2-nitro-enclave-unsigned.bin"),
    ] {
        let refused = verify(&bytes, &roots, 1_767_472_867_402);
        assert!(
            matches!(refused, Err(DocumentError::Malformed(_) | DocumentError::Untrusted(_))),
            "{refused:?}"
        );
    }
}

#[test]
fn no_mutation_verifies() {
    let authority = Authority::generate();
    let mut subjects = vec![(authority.document(&DocumentClaims::enclave(NOW)), authority.root_der(), NOW)];
    let genuine = fixtures::read("attestation/anjuna-prod-pubkey.bin");
    subjects.push((genuine, fixtures::nitro_root(), 1_616_602_241_734));
    let mut runner = TestRunner::new(Config { cases: 2500, failure_persistence: None, ..Config::default() });
    for (document, root, now) in subjects {
        let mutation = (any::<prop::sample::Index>(), 1..=255_u8, 0..4_u8);
        let roots = [root];
        runner
            .run(&mutation, |(at, flip, kind)| {
                let at = at.index(document.len());
                let mut mutated = document.clone();
                match kind {
                    0 | 1 => mutated[at] ^= flip,
                    2 => mutated.truncate(at),
                    _ => mutated.insert(at, flip),
                }
                prop_assert!(verify(&mutated, &roots, now).is_err(), "{kind} at {at}: {flip}");
                Ok(())
            })
            .unwrap();
    }
}

/// What a document of the test authority signs: between a head of 10 bytes and a signature of 98.
fn payload(document: &[u8]) -> Vec<u8> {
    document[10..document.len() - 98].to_vec()
}
