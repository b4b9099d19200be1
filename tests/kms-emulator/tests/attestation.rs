//! Proves that an attested caller gets what only it can open, and that nobody else gets anything.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod ber;
mod support;

use http::{Method, StatusCode};
use kms_emulator::attestation::{Authority, DocumentClaims};
use kms_emulator::{Effect, Emulator, EmulatorConfig, EmulatorError, Fault, KeySpec};
use serde_json::{Value, json};

use ber::Enclave;
use support::{ALIAS, Client, Reply, base64, now};

/// An enclave, whom the emulator believes, and a key under [`ALIAS`].
struct Attested {
    authority: Authority,
    enclave: Enclave,
    emulator: Emulator,
    client: Client,
    arn: String,
}

impl Attested {
    async fn start() -> Attested {
        let authority = Authority::generate();
        let config =
            EmulatorConfig { attestation_roots: vec![authority.root_der()], ..EmulatorConfig::default() };
        let emulator = Emulator::start(config).await.unwrap();
        let arn = emulator.ensure_key(ALIAS, KeySpec::SymmetricDefault).unwrap();
        let client = Client::connect(&emulator.endpoint_url()).await;
        Attested { authority, enclave: Enclave::new(), emulator, client, arn }
    }

    /// What the enclave claims: made now, with its key.
    fn claims(&self) -> DocumentClaims {
        DocumentClaims::enclave(now()).with_public_key(self.enclave.public_key())
    }

    /// A call that shows a document with these claims.
    async fn call(&mut self, operation: &str, request: Value, claims: &DocumentClaims) -> Reply {
        let document = self.authority.document(claims);
        self.call_with(operation, request, &document).await
    }

    async fn call_with(&mut self, operation: &str, mut request: Value, document: &[u8]) -> Reply {
        request["Recipient"] = json!({ "AttestationDocument": base64(document), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" });
        self.client.call(operation, request).await
    }

    /// What only the enclave reads in an answer, and that nobody else does.
    fn open(&self, reply: &Reply) -> Vec<u8> {
        let ciphertext = reply.bytes("CiphertextForRecipient");
        assert!(reply.json().get("Plaintext").is_none(), "{reply:?}");
        self.enclave.open(&ciphertext)
    }
}

fn data_key() -> Value {
    json!({ "KeyId": ALIAS, "KeySpec": "AES_256", "EncryptionContext": { "a": "b" } })
}

fn decrypt(blob: &str) -> Value {
    json!({ "CiphertextBlob": blob, "EncryptionContext": { "a": "b" } })
}

/// 48 times a byte, as a condition's value.
fn hex(byte: u8) -> String {
    format!("{byte:02x}").repeat(48)
}

#[tokio::test]
async fn a_data_key_is_for_the_enclave_alone() {
    let mut attested = Attested::start().await;
    let claims = attested.claims();
    let made = attested.call("GenerateDataKey", data_key(), &claims).await;
    let plaintext = attested.open(&made);
    assert_eq!((plaintext.len(), made.text("KeyId")), (32, attested.arn.clone()));

    let blob = made.text("CiphertextBlob");
    let opened = attested.call("Decrypt", decrypt(&blob), &claims).await;
    assert_eq!(attested.open(&opened), plaintext);
    assert_eq!(opened.text("KeyId"), attested.arn);
    let unattested = attested.client.call("Decrypt", decrypt(&blob)).await;
    assert_eq!(unattested.bytes("Plaintext"), plaintext, "the blob is as any other");
    assert!(unattested.json().get("CiphertextForRecipient").is_none());

    let random = attested.call("GenerateRandom", json!({ "NumberOfBytes": 77 }), &claims).await;
    assert_eq!(attested.open(&random).len(), 77);
    let flags: Vec<bool> = attested.emulator.calls().iter().map(|call| call.attested).collect();
    assert_eq!(flags, [true, true, false, true]);
}

#[tokio::test]
async fn a_nitro_tpm_is_a_recipient_too() {
    let mut attested = Attested::start().await;
    let claims = DocumentClaims::nitro_tpm(now()).with_public_key(attested.enclave.public_key());
    attested
        .emulator
        .require_attestation(
            ALIAS,
            &[
                ("kms:RecipientAttestation:NitroTPMPCR4", &hex(5)),
                ("kms:RecipientAttestation:NitroTPMPCR22", &hex(0xff)),
            ],
        )
        .unwrap();
    let made = attested.call("GenerateDataKey", data_key(), &claims).await;
    assert_eq!(attested.open(&made).len(), 32);
    let other = claims.with_pcr(4, [0; 48]);
    assert_eq!(attested.call("GenerateDataKey", data_key(), &other).await.error(), "AccessDeniedException");
    // PCR4 of an enclave is not PCR4 of a NitroTPM.
    let enclave = attested.claims();
    assert_eq!(attested.call("GenerateDataKey", data_key(), &enclave).await.error(), "AccessDeniedException");
}

#[tokio::test]
async fn conditions_bind_a_key_to_measurements() {
    let mut attested = Attested::start().await;
    let claims = attested.claims();
    let blob = attested.client.call("GenerateDataKey", data_key()).await.text("CiphertextBlob");
    let denied = format!(
        "User: arn:aws:sts::111122223333:assumed-role/key-broker-dev/dev-session is not authorized to perform: \
         kms:Decrypt on resource: {} because no resource-based policy allows the kms:Decrypt action",
        attested.arn
    );
    let right = [
        ("kms:RecipientAttestation:ImageSha384", hex(1)),
        ("kms:RecipientAttestation:PCR0", hex(1)),
        ("kms:RecipientAttestation:PCR8", hex(9)),
        ("kms:RecipientAttestation:PCR15", hex(0)),
    ];
    for (name, value) in &right {
        attested.emulator.require_attestation(ALIAS, &[(name, value)]).unwrap();
        let opened = attested.call("Decrypt", decrypt(&blob), &claims).await;
        assert_eq!(attested.open(&opened).len(), 32, "{name}");

        attested.emulator.require_attestation(&attested.arn, &[(name, &hex(0xee))]).unwrap();
        let refused = attested.call("Decrypt", decrypt(&blob), &claims).await;
        assert_eq!((refused.error().as_str(), refused.message()), ("AccessDeniedException", denied.clone()));
        let missing = attested.client.call("Decrypt", decrypt(&blob)).await;
        assert_eq!((missing.error().as_str(), missing.message()), ("AccessDeniedException", denied.clone()));
        let missing = attested.client.call("GenerateDataKey", data_key()).await;
        assert_eq!(missing.error(), "AccessDeniedException");
    }
    let (right, wrong) = ((right[0].0, right[0].1.as_str()), ("kms:RecipientAttestation:PCR31", hex(0)));
    attested.emulator.require_attestation(ALIAS, &[right, (wrong.0, &wrong.1)]).unwrap();
    assert_eq!(
        attested.call("Decrypt", decrypt(&blob), &claims).await.error(),
        "AccessDeniedException",
        "all conditions, and no document has PCR31"
    );
    attested.emulator.require_attestation(ALIAS, &[]).unwrap();
    assert_eq!(attested.client.call("Decrypt", decrypt(&blob)).await.bytes("Plaintext").len(), 32);
}

#[tokio::test]
async fn operations_without_a_recipient_have_no_conditions() {
    let mut attested = Attested::start().await;
    attested.emulator.require_attestation(ALIAS, &[("kms:RecipientAttestation:PCR0", &hex(0xee))]).unwrap();
    let claims = attested.claims();
    for (operation, request) in [
        ("GenerateDataKeyWithoutPlaintext", data_key()),
        ("Encrypt", json!({ "KeyId": ALIAS, "Plaintext": base64(b"x") })),
        ("DescribeKey", json!({ "KeyId": ALIAS })),
    ] {
        let reply = attested.call(operation, request, &claims).await;
        assert_eq!(reply.status, StatusCode::OK, "{operation}: a Recipient is skipped there");
        assert!(reply.json().get("CiphertextForRecipient").is_none(), "{operation}");
    }
    let random = attested.call("GenerateRandom", json!({ "NumberOfBytes": 8 }), &claims).await;
    assert_eq!(attested.open(&random).len(), 8, "no key, no conditions");
}

#[tokio::test]
async fn a_document_that_cannot_be_believed_is_invalid() {
    let mut attested = Attested::start().await;
    let claims = attested.claims();
    let hour = 3_600_000;
    let mut altered = attested.authority.document(&claims);
    let middle = altered.len() / 2;
    altered[middle] ^= 1;
    let expired = DocumentClaims { leaf_validity: Some(now() - 2 * hour..=now() - hour), ..claims.clone() };
    let forged = DocumentClaims { shown_root: Some(attested.authority.root_der()), ..claims.clone() };
    let other = Authority::generate();
    let mut tampered = attested.authority.document(&claims);
    *tampered.last_mut().unwrap() ^= 1;
    for (document, words) in [
        (altered, ""),
        (tampered, "its signature is wrong."),
        (attested.authority.document(&expired), "a certificate of it is not valid now."),
        (other.document(&claims), "its root certificate is not a trusted one."),
        (other.document(&forged), ""),
        (b"none".to_vec(), "it is not a COSE_Sign1."),
        (vec![0; 20_000], "it is longer than 16384 bytes."),
    ] {
        for (operation, request) in
            [("GenerateDataKey", data_key()), ("GenerateRandom", json!({ "NumberOfBytes": 8 }))]
        {
            let refused = attested.call_with(operation, request, &document).await;
            assert_eq!(refused.error(), "ValidationException", "{words}");
            let message = refused.message();
            assert!(message.starts_with("The attestation document is not valid: "), "{message}");
            assert!(message.ends_with(words), "{message}");
        }
    }
}

#[tokio::test]
async fn a_recipient_needs_an_rsa_key_and_the_one_algorithm() {
    let mut attested = Attested::start().await;
    for public_key in [None, Some(vec![4; 65]), Some(Vec::new())] {
        let claims = DocumentClaims { public_key, ..DocumentClaims::enclave(now()) };
        let refused = attested.call("GenerateDataKey", data_key(), &claims).await;
        assert_eq!(refused.error(), "ValidationException");
        assert_eq!(refused.message(), "The attestation document has no RSA public key of 2048 bits or more.");
    }
    let document = base64(&attested.authority.document(&attested.claims()));
    for recipient in [
        json!({}),
        json!({ "AttestationDocument": document }),
        json!({ "AttestationDocument": document, "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_1" }),
        json!({ "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" }),
        json!({ "AttestationDocument": "", "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" }),
    ] {
        let mut request = data_key();
        request["Recipient"] = recipient.clone();
        let refused = attested.client.call("GenerateDataKey", request).await;
        assert_eq!(refused.error(), "ValidationException", "{recipient}");
        assert!(refused.message().contains("recipient."), "{}", refused.message());
    }
    let mut request = data_key();
    request["Recipient"] = Value::Null;
    assert_eq!(attested.client.call("GenerateDataKey", request).await.bytes("Plaintext").len(), 32);
}

#[tokio::test]
async fn without_a_root_every_document_is_refused() {
    let (_emulator, mut client, _) = support::start().await;
    let document = Authority::generate().document(&DocumentClaims::enclave(now()));
    let mut request = data_key();
    request["Recipient"] =
        json!({ "AttestationDocument": base64(&document), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" });
    let refused = client.call("GenerateDataKey", request).await;
    assert_eq!(refused.error(), "ValidationException");
    assert!(refused.message().contains("--attestation-root"), "{}", refused.message());

    let config =
        EmulatorConfig { attestation_roots: vec![b"no certificate".to_vec()], ..EmulatorConfig::default() };
    assert!(matches!(Emulator::start(config).await, Err(EmulatorError::Attestation(_))));
}

#[tokio::test]
async fn a_dry_run_of_an_attested_call_succeeds_by_failing() {
    let mut attested = Attested::start().await;
    attested.emulator.require_attestation(ALIAS, &[("kms:RecipientAttestation:PCR0", &hex(1))]).unwrap();
    let mut request = data_key();
    request["DryRun"] = true.into();
    let claims = attested.claims();
    let dry = attested.call("GenerateDataKey", request.clone(), &claims).await;
    assert_eq!(dry.error(), "DryRunOperationException");
    let denied = claims.clone().with_pcr(0, [2; 48]);
    let refused = attested.call("GenerateDataKey", request.clone(), &denied).await;
    assert_eq!(refused.error(), "AccessDeniedException");
    let invalid = attested.call_with("GenerateDataKey", request, b"none").await;
    assert_eq!(invalid.error(), "ValidationException");
}

#[tokio::test]
async fn faults_break_the_promise_on_purpose() {
    let mut attested = Attested::start().await;
    let claims = attested.claims();
    attested.emulator.inject(Fault::new(Effect::PlaintextDespiteRecipient));
    let betrayed = attested.call("GenerateDataKey", data_key(), &claims).await;
    let plaintext = betrayed.bytes("Plaintext");
    assert_eq!(attested.enclave.open(&betrayed.bytes("CiphertextForRecipient")), plaintext);
    let plain = attested.client.call("GenerateDataKey", data_key()).await;
    assert_eq!(plain.bytes("Plaintext").len(), 32, "nothing to betray");
    let hidden = attested.client.call("GenerateDataKeyWithoutPlaintext", data_key()).await;
    assert!(hidden.json().get("Plaintext").is_none(), "{hidden:?}");

    attested.emulator.clear_faults();
    attested.emulator.inject(Fault::new(Effect::MissingCiphertextForRecipient));
    let missing = attested.call("GenerateDataKey", data_key(), &claims).await;
    assert_eq!(missing.text("KeyId"), attested.arn);
    assert!(missing.json().get("CiphertextForRecipient").is_none());
    assert!(missing.json().get("Plaintext").is_none());
    let log = format!("{:?}", attested.emulator.calls());
    assert!(!log.contains(&base64(&plaintext)), "key material in the log");
}

#[tokio::test]
async fn another_process_puts_conditions_on_keys() {
    let mut attested = Attested::start().await;
    let put = async |client: &mut Client, body: Value| {
        client.send(Method::PUT, "/_emulator/attestation", &[], &body.to_string()).await.unwrap()
    };
    let condition = json!({ "kms:RecipientAttestation:PCR0": hex(0xee) });
    let there = put(&mut attested.client, json!({ ALIAS: condition })).await;
    assert_eq!(there.status, StatusCode::OK, "{there:?}");
    assert_eq!(there.json(), json!({ attested.arn.clone(): condition }));
    let claims = attested.claims();
    assert_eq!(attested.call("GenerateDataKey", data_key(), &claims).await.error(), "AccessDeniedException");
    for wrong in [
        json!([]),
        json!({ "alias/none": {} }),
        json!({ ALIAS: { "kms:RecipientAttestation:PCR0": "EE" } }),
        json!({ ALIAS: {}, "alias/none": {} }),
    ] {
        let refused = put(&mut attested.client, wrong.clone()).await;
        assert_eq!(refused.status, StatusCode::BAD_REQUEST, "{wrong}");
        let listed = attested.client.send(Method::GET, "/_emulator/attestation", &[], "").await.unwrap();
        assert_eq!(listed.json(), there.json(), "all or nothing");
    }
    assert_eq!(put(&mut attested.client, json!({ ALIAS: {} })).await.json(), json!({}));
    let made = attested.call("GenerateDataKey", data_key(), &claims).await;
    assert_eq!(attested.open(&made).len(), 32);
}
