//! Calls with a recipient, through a broker and the AWS SDK to a KMS that checks documents itself.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use key_broker::{Binding, Bindings};
use key_broker_client::enclave::{Enclave, Error as EnclaveError, RecipientKey};
use key_broker_client::{Client, Decrypt, Error, GenerateDataKey, GenerateDataKeyPair, KeyPairSpec};
use key_broker_core::Principal;
use key_broker_proto::v1 as pb;
use kms_emulator::attestation::DocumentClaims;
use kms_emulator::{Effect, Emulator, Fault, KeySpec, RecipientForm};
use serde_json::{Value, json};
use tonic::Code;

use crate::peers::check_records;
use crate::support::enclave::Attester;
use crate::support::memory::{Needle, search};
use crate::support::process::{Process, write_config};
use crate::support::{Setup, TestBroker, journal_lines, reuse, rule};

/// As KMS records have it, of the claims that [`Attester`] begins with.
fn of_kms() -> Value {
    let pcr = |index: u8| format!("{:02x}", index + 1).repeat(48);
    json!({
        "attestationDocumentModuleId": "i-0123456789abcdef0-enc0123456789abcdef0",
        "attestationDocumentEnclaveImageDigest": pcr(0),
        "attestationDocumentEnclavePCR1": pcr(1),
        "attestationDocumentEnclavePCR2": pcr(2),
        "attestationDocumentEnclavePCR3": pcr(3),
        "attestationDocumentEnclavePCR4": pcr(4),
        "attestationDocumentEnclavePCR8": pcr(8),
    })
}

/// As activity records have it: the registers of which CloudTrail has nothing, too.
fn of_activity() -> Value {
    let mut recipient = of_kms();
    for index in [5, 6, 7].into_iter().chain(9..16) {
        recipient[format!("attestationDocumentEnclavePCR{index}")] = "00".repeat(48).into();
    }
    recipient
}

fn request() -> GenerateDataKey {
    GenerateDataKey::aes_256("alias/dev").context("tenant", "acme")
}

fn refused(error: EnclaveError) -> Error {
    match error {
        EnclaveError::Broker(error) => *error,
        other => panic!("{other}"),
    }
}

fn reason(error: &Error) -> (Code, &str) {
    (error.code(), error.reason().expect("a reason"))
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn an_enclave_gets_what_only_it_can_read_from_kms_each_time_with_records_of_what_was_measured() {
    for form in [RecipientForm::BerConstructed, RecipientForm::BerPrimitive, RecipientForm::Der] {
        let attester = Attester::new();
        // Data keys and decrypts of others are kept.
        let broker = TestBroker::with(Setup { reuse: reuse(rule()), ..attester.setup_with(form) }).await;
        let client = broker.client().await;
        let enclave = attester.enclave(client.clone());
        let kept = client.generate_data_key(request()).await.expect("a data key");
        let first = enclave.generate_data_key(request()).await.expect("a data key");
        let second = enclave.generate_data_key(request()).await.expect("a data key");
        assert_ne!(first.plaintext.expose(), second.plaintext.expose());
        assert_ne!(first.plaintext.expose(), kept.plaintext.expose());
        assert!(!first.provenance.from_cache && !second.provenance.from_cache);
        assert_eq!((first.provenance.messages_used, first.provenance.messages_limit), (1, 1));
        assert_eq!(first.key_id, broker.key_arn);

        let decrypt =
            || Decrypt::new(first.ciphertext_blob.clone()).key_id("alias/dev").context("tenant", "acme");
        let unattested = client.decrypt(decrypt()).await.expect("a plaintext");
        assert_eq!(
            unattested.plaintext.expose(),
            first.plaintext.expose(),
            "the ciphertext blob is KMS's own"
        );
        for _ in 0..2 {
            let decrypted = enclave.decrypt(decrypt()).await.expect("a plaintext");
            assert_eq!(decrypted.plaintext.expose(), first.plaintext.expose());
            assert!(!decrypted.provenance.from_cache);
        }
        let random = enclave.generate_random(1_024).await.expect("random bytes");
        assert_eq!(random.plaintext.expose().len(), 1_024);
        let asked_for_it = broker.emulator.calls().into_iter().filter(|call| call.attested).count();
        assert_eq!(asked_for_it, 5, "each of them is one call to KMS");

        let random_id = random.provenance.kms_request_id;
        let lines = journal_lines(&broker.journal_dir());
        let records = broker.stop().await;
        check_records(&lines);
        for id in [&first.provenance.kms_request_id, &second.provenance.kms_request_id, &random_id] {
            assert_eq!(records.kms_of(id)["additionalEventData"]["recipient"], of_kms());
        }
        assert_eq!(records.kms_of(&random_id)["requestParameters"], Value::Null);
        assert_eq!(records.kms_of(&random_id)["resources"], json!([]));
        let with = |recipient: &Value, records: &[Value]| {
            records.iter().filter(|record| record["additionalEventData"]["recipient"] == *recipient).count()
        };
        assert_eq!((with(&of_kms(), &records.kms), with(&of_activity(), &records.activity)), (5, 5));
        let without = |records: &[Value]| {
            records.iter().filter(|record| record["additionalEventData"].get("recipient").is_none()).count()
        };
        assert_eq!((without(&records.kms), without(&records.activity)), (2, 2), "as their callers had none");
        let no_secret = |line: &&String| line.contains(&STANDARD.encode(first.plaintext.expose()));
        assert_eq!(lines.iter().find(no_secret), None);
    }
}

#[tokio::test]
async fn the_private_key_of_a_pair_is_for_the_enclave_alone() {
    let attester = Attester::new();
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    let request = GenerateDataKeyPair::new("alias/dev", KeyPairSpec::EccNistP256);
    let pair = enclave.generate_data_key_pair(request).await.expect("a pair");
    let private = pair.private_key.as_ref().expect("for this enclave");
    let client = broker.client().await;
    let opened = client.decrypt(Decrypt::new(pair.private_key_ciphertext_blob)).await.expect("decrypted");
    assert_eq!(opened.plaintext.expose(), private.expose());
    let records = broker.stop().await;
    let of_pair = |records: &[Value]| {
        let record =
            records.iter().find(|record| record["eventName"] == "GenerateDataKeyPair").expect("a record");
        record["additionalEventData"]["recipient"].clone()
    };
    assert_eq!((of_pair(&records.kms), of_pair(&records.activity)), (of_kms(), of_activity()));
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn nitro_tpm_documents_are_recorded_as_cloudtrail_does() {
    let attester = Attester::new();
    attester.change(|_| DocumentClaims::nitro_tpm(0));
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    let value = "05".repeat(48);
    let condition = [("kms:RecipientAttestation:NitroTPMPCR4", value.as_str())];
    broker.emulator.require_attestation("alias/dev", &condition).expect("a key");
    enclave.generate_data_key(request()).await.expect("a data key");
    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    let recipient = &records.kms[0]["additionalEventData"]["recipient"];
    let names: Vec<_> = recipient.as_object().expect("an object").keys().map(String::as_str).collect();
    let pcr = |index: u8| format!("attestationDocumentNitroTPMPCR{index}");
    let mut expected = vec!["attestationDocumentModuleId".to_owned()];
    expected.extend([4, 7, 8, 9, 16, 23].map(pcr));
    assert_eq!(names, expected);
    assert_eq!(recipient[pcr(4)], value);
}

/// AWS's sample policies pin PCR12, the kernel's command line; CloudTrail has nothing of it.
#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn what_policy_looked_at_is_in_the_activity_record() {
    let attester = Attester::new();
    let command_line = "0c".repeat(48);
    attester.change(|_| DocumentClaims::nitro_tpm(0).with_pcr(12, [0x0c; 48]));
    let policy = format!(
        r#"@id("pinned") permit(principal, action, resource) when {{ context has recipient.nitroTpmPcr12 &&
            context.recipient.nitroTpmPcr12 == "{command_line}" }};"#
    );
    let broker = TestBroker::with(Setup { policy, ..attester.setup() }).await;
    let enclave = attester.enclave(broker.client().await);
    enclave.generate_data_key(request()).await.expect("a data key");
    attester.change(|claims| claims.with_pcr(12, [0xee; 48]));
    let denied = refused(enclave.generate_data_key(request()).await.expect_err("another command line"));
    assert_eq!(reason(&denied), (Code::PermissionDenied, "DENIED_BY_POLICY"));
    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    let pcr12 = |record: &Value| {
        record["additionalEventData"]["recipient"]["attestationDocumentNitroTPMPCR12"].clone()
    };
    let answered = records.activity.iter().find(|record| record["eventName"] == "GenerateDataKey");
    assert_eq!(pcr12(answered.expect("a record")), command_line);
    assert_eq!(pcr12(records.activity_of(denied.request_id().expect("an id"))), "ee".repeat(48));
    assert_eq!(pcr12(&records.kms[0]), Value::Null, "CloudTrail has none");
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn kms_denies_another_image_and_the_record_shows_what_was_presented() {
    let attester = Attester::new();
    let broker = TestBroker::with(Setup { reuse: reuse(rule()), ..attester.setup() }).await;
    let client = broker.client().await;
    let enclave = attester.enclave(client.clone());
    let kept = client.generate_data_key(request()).await.expect("a data key");
    let image = "01".repeat(48);
    let condition = [("kms:RecipientAttestation:ImageSha384", image.as_str())];
    broker.emulator.require_attestation("alias/dev", &condition).expect("a key");
    let key = enclave.generate_data_key(request()).await.expect("the right image");

    attester.change(|claims| claims.with_pcr(0, [0xee; 48]));
    let error = refused(enclave.generate_data_key(request()).await.expect_err("another image"));
    assert_eq!(reason(&error), (Code::FailedPrecondition, "KMS_ACCESS_DENIED"));
    let decrypt = Decrypt::new(key.ciphertext_blob).context("tenant", "acme");
    let decrypt_error = refused(enclave.decrypt(decrypt).await.expect_err("another image"));
    assert_eq!(reason(&decrypt_error), (Code::FailedPrecondition, "KMS_ACCESS_DENIED"));
    let again =
        client.generate_data_key(request()).await.expect("still kept: what was refused is the enclave");
    assert_eq!(again.plaintext.expose(), kept.plaintext.expose());

    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    let activity = records.activity_of(error.request_id().expect("an id"));
    assert_eq!(activity["errorCode"], "AccessDenied");
    assert_eq!(
        activity["additionalEventData"]["recipient"]["attestationDocumentEnclaveImageDigest"],
        "ee".repeat(48)
    );
    assert_eq!(activity["requestParameters"]["keyId"], "alias/dev");
    let kms = records.kms_of(error.kms_request_id().expect("KMS has answered"));
    assert_eq!(
        (&kms["errorCode"], kms.get("additionalEventData")),
        (&"AccessDenied".into(), None),
        "as CloudTrail"
    );
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn policy_sees_what_was_measured_and_its_denial_is_recorded_with_it() {
    let attester = Attester::new();
    let policy = format!(
        r#"@id("image") permit(principal is Workload, action, resource) when {{
             context has recipient.imageSha384 && context.recipient.imageSha384 == "{}" }};"#,
        "01".repeat(48)
    );
    let broker = TestBroker::with(Setup { policy, ..attester.setup() }).await;
    let client = broker.client().await;
    let enclave = attester.enclave(client.clone());
    let key = enclave.generate_data_key(request()).await.expect("permitted");
    enclave.generate_random(32).await.expect("permitted");
    let asked = broker.emulator.calls().len();

    let plain = client.generate_data_key(request()).await.expect_err("without a recipient");
    assert_eq!(reason(&plain), (Code::PermissionDenied, "DENIED_BY_POLICY"));
    attester.change(|claims| claims.with_pcr(0, [0xee; 48]));
    let errors = [
        refused(enclave.generate_data_key(request()).await.expect_err("another image")),
        refused(enclave.decrypt(Decrypt::new(key.ciphertext_blob)).await.expect_err("another image")),
        refused(enclave.generate_random(32).await.expect_err("another image")),
    ];
    let missing = GenerateDataKey::aes_256("alias/none");
    let missing = refused(enclave.generate_data_key(missing).await.expect_err("another image"));
    let asked_meanwhile = broker.emulator.calls().split_off(asked);
    assert!(asked_meanwhile.iter().all(|call| call.operation == "DescribeKey"), "{asked_meanwhile:?}");
    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    for error in errors.iter().chain([&missing]) {
        assert_eq!(reason(error), (Code::PermissionDenied, "DENIED_BY_POLICY"));
        let data = &records.activity_of(error.request_id().expect("an id"))["additionalEventData"];
        assert_eq!(data["outcome"], "Denied");
        assert_eq!(data["recipient"]["attestationDocumentEnclaveImageDigest"], "ee".repeat(48));
        assert_eq!(data["policy"]["determiningPolicies"], json!([]));
    }
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn documents_that_are_not_right_are_refused_before_kms_is_asked() {
    let attester = Attester::new();
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    let minute = 60_000;
    let good = attester.claims().with_public_key(RecipientKey::generate().expect("a key").public_key_spki());
    let now = good.timestamp;
    let document = |claims: DocumentClaims| attester.authority().document(&claims);
    let valid = Some(now - 60 * minute..=now + 60 * minute);
    let old = DocumentClaims { timestamp: now - 6 * minute, leaf_validity: valid.clone(), ..good.clone() };
    let early = DocumentClaims { timestamp: now + 2 * minute, leaf_validity: valid, ..good.clone() };
    let expired = DocumentClaims { leaf_validity: Some(now - 2 * minute..=now - minute), ..good.clone() };
    let tomorrow =
        DocumentClaims { leaf_validity: Some(now + 1_440 * minute..=now + 1_500 * minute), ..good.clone() };
    let debug = (0..3).fold(good.clone(), |claims, index| claims.with_pcr(index, [0; 48]));
    let mut altered = document(good.clone());
    let last = altered.len() - 1;
    altered[last] ^= 1;
    let stranger = Attester::new();

    let invalid = (Code::InvalidArgument, "INVALID_ATTESTATION");
    let gone = (Code::InvalidArgument, "ATTESTATION_EXPIRED");
    let not_yet = (Code::InvalidArgument, "ATTESTATION_NOT_YET_VALID");
    let malformed = (Code::InvalidArgument, "MALFORMED_REQUEST");
    let rejected = ("Rejected", "ValidationException");
    let cases = [
        ("altered", altered, "", invalid, rejected, false),
        ("of nobody trusted", stranger.authority().document(&good), "", invalid, rejected, false),
        ("no document", vec![1, 2, 3], "", invalid, rejected, false),
        (
            "without a public key",
            document(DocumentClaims { public_key: None, ..good.clone() }),
            "",
            invalid,
            rejected,
            true,
        ),
        ("early", document(early), "", not_yet, rejected, true),
        ("with a certificate of tomorrow", document(tomorrow), "", not_yet, rejected, false),
        ("old", document(old), "", gone, rejected, true),
        ("expired", document(expired), "", gone, rejected, false),
        (
            "in debug mode",
            document(debug),
            "",
            (Code::PermissionDenied, "DEBUG_ENCLAVE"),
            ("Denied", "AccessDenied"),
            true,
        ),
        ("empty", Vec::new(), "", malformed, rejected, false),
        ("too long", vec![0; 262_145], "", malformed, rejected, false),
        ("for another algorithm", document(good), "RSAES_OAEP_SHA_1", malformed, rejected, false),
    ];
    let mut stub = broker.stub().await;
    let mut told = Vec::new();
    for (name, document, algorithm, expected, outcome, proved) in cases {
        let recipient = pb::Recipient {
            attestation_document: document.into(),
            key_encryption_algorithm: algorithm.into(),
        };
        let request = pb::GenerateDataKeyRequest {
            key_id: "alias/dev".into(),
            length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
            recipient: Some(recipient),
            ..pb::GenerateDataKeyRequest::default()
        };
        let error = Error::from(stub.generate_data_key(request).await.expect_err(name));
        assert_eq!(reason(&error), expected, "{name}");
        told.push((name, error, outcome, proved));
    }
    assert_eq!(broker.emulator.calls().iter().filter(|call| call.operation == "GenerateDataKey").count(), 0);
    enclave.generate_data_key(request()).await.expect("a good one is taken");
    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    for (name, error, (outcome, error_code), proved) in told {
        let record = records.activity_of(error.request_id().expect("an id"));
        assert_eq!(
            (&record["additionalEventData"]["outcome"], &record["errorCode"]),
            (&outcome.into(), &error_code.into()),
            "{name}"
        );
        let recipient = record["additionalEventData"].get("recipient");
        assert_eq!(recipient.is_some(), proved, "{name}: what is proved is recorded, and nothing else");
    }
}

#[tokio::test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn an_answer_that_is_not_for_the_recipient_alone_is_none() {
    let attester = Attester::new();
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    let key = enclave.generate_data_key(request()).await.expect("a data key");
    for effect in
        [Effect::PlaintextDespiteRecipient, Effect::MissingCiphertextForRecipient, Effect::WrongKeyId]
    {
        broker.emulator.inject(Fault::new(effect.clone()));
        let decrypt =
            Decrypt::new(key.ciphertext_blob.clone()).context("tenant", "acme").key_id(&broker.key_arn);
        let mut errors = vec![
            enclave.generate_data_key(GenerateDataKey::aes_256(&broker.key_arn)).await.map(drop),
            enclave.decrypt(decrypt).await.map(drop),
        ];
        if effect != Effect::WrongKeyId {
            errors.push(enclave.generate_random(32).await.map(drop));
        }
        for error in errors {
            let error = refused(error.expect_err("not for the recipient alone"));
            assert_eq!(reason(&error), (Code::Unavailable, "KMS_UNAVAILABLE"), "{effect}: {error}");
        }
        broker.emulator.clear_faults();
    }
    check_records(&journal_lines(&broker.journal_dir()));
    let records = broker.stop().await;
    let failed =
        records.activity.iter().filter(|record| record["additionalEventData"]["outcome"] == "Failed");
    assert_eq!(failed.clone().count(), 8);
    for record in failed {
        assert_eq!(record["additionalEventData"]["recipient"], of_activity(), "what was presented");
    }
}

#[tokio::test]
async fn a_retried_call_has_its_recipient_each_time() {
    let attester = Attester::new();
    let broker = TestBroker::with(attester.setup()).await;
    let enclave = attester.enclave(broker.client().await);
    broker.emulator.inject(Fault::throttling().on("GenerateDataKey").times(2));
    enclave.generate_data_key(request()).await.expect("the third time");
    let calls = broker.emulator.calls();
    let attempts: Vec<_> = calls.iter().filter(|call| call.operation == "GenerateDataKey").collect();
    assert_eq!(attempts.len(), 3);
    assert!(attempts.iter().all(|call| call.attested));
}

#[tokio::test]
async fn a_bound_encryption_context_binds_enclaves_too() {
    let attester = Attester::new();
    let uid = rustix::process::getuid().as_raw();
    let principal = Principal::parse(&format!("unix:uid/{uid}")).expect("a principal");
    let pairs = |name: &str| [(name.to_owned(), "app".to_owned())].into();
    let binding = Binding { principal: Some(principal), require: pairs("role"), inject: pairs("broker") };
    let broker = TestBroker::with(Setup { bindings: Bindings(vec![binding]), ..attester.setup() }).await;
    let enclave = attester.enclave(broker.client().await);
    let error = refused(enclave.generate_data_key(request()).await.expect_err("a pair is missing"));
    assert_eq!(reason(&error), (Code::PermissionDenied, "ENCRYPTION_CONTEXT_NOT_PERMITTED"));
    let key = enclave.generate_data_key(request().context("role", "app")).await.expect("with the pair");
    let decrypt = Decrypt::new(key.ciphertext_blob).context("tenant", "acme").context("role", "app");
    assert_eq!(enclave.decrypt(decrypt).await.expect("the same").plaintext.expose(), key.plaintext.expose());
    let calls = broker.emulator.calls();
    let bound =
        calls.iter().filter(|call| call.encryption_context.get("broker").is_some_and(|value| value == "app"));
    assert_eq!(bound.count(), 2, "what is injected is bound to the ciphertext");
}

/// Proves, with the real program in a process of its own: what an enclave gets is never in the parent's memory.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_ptrace"), ignore = "needs root: CAP_SYS_PTRACE, to read a process's memory")]
async fn the_parent_never_has_the_plaintext() {
    let attester = Attester::new();
    let emulator = Emulator::start(attester.setup().emulator).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    let dir = tempfile::tempdir().expect("a directory");
    std::fs::write(dir.path().join("root.pem"), attester.authority().root_pem()).expect("writes");
    let config =
        write_config(dir.path(), &emulator.endpoint_url(), "[attestation]\nroots = [\"root.pem\"]\n");
    let broker = Process::serve(&config);
    let marker = || [Needle { name: "marker".into(), bytes: emulator.endpoint_url().into_bytes() }];
    let found = search(broker.pid(), &marker()).expect("CAP_SYS_PTRACE reads every process");
    assert!(!found.is_empty(), "what is there is found");
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    let enclave = attester.enclave(client);
    let mut needles = Vec::new();
    for round in 0..4 {
        for bytes in plaintexts(&enclave).await {
            let base64 = STANDARD.encode(&bytes).into_bytes();
            needles.push(Needle { name: format!("{round}, raw"), bytes });
            needles.push(Needle { name: format!("{round}, base64"), bytes: base64 });
        }
    }
    // At once: not even what is about to be erased may be there.
    let found = search(broker.pid(), &needles).expect("it could be read before");
    assert!(found.is_empty(), "{found:#?}");
    assert!(
        !search(std::process::id(), &needles).expect("our own").is_empty(),
        "the search would have found them"
    );
    assert!(!search(broker.pid(), &marker()).expect("it could be read before").is_empty());
}

async fn plaintexts(enclave: &Enclave) -> [Vec<u8>; 2] {
    let key = enclave.generate_data_key(request()).await.expect("a data key");
    let decrypt = Decrypt::new(key.ciphertext_blob).context("tenant", "acme");
    let decrypted = enclave.decrypt(decrypt).await.expect("a plaintext");
    assert_eq!(decrypted.plaintext.expose(), key.plaintext.expose());
    let random = enclave.generate_random(256).await.expect("random bytes");
    [key.plaintext.expose().to_vec(), random.plaintext.expose().to_vec()]
}
