//! Proves, with emulated machines for a parent instance and its enclaves, and vsock between them: an enclave that is listed and
//! measures right gets data keys that open in it alone; the records, on the parent, say who it was and what it measured; a wrong
//! image is denied by policy; an enclave that is not listed, and the host, have no connection.

mod guests;
#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::io::Read as _;
use std::time::Duration;

use aws_lc_rs::encoding::{AsDer as _, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeySize, PrivateDecryptingKey};
use guests::{Files, Guest, PARENT};
use key_broker_client::enclave::RecipientKey;
use peers::{Peers, check_records};
use serde_json::{Value, json};
use support::Records;
use support::enclave::Attester;
use support::process::{binary, enclave_demo, kms_emulator};

const ENCLAVE: u32 = 4;
const STRANGER: u32 = 5;
const WITHIN: Duration = Duration::from_mins(1);

const CONFIG: &str = r#"
[listen]
vsock = { cids = [4] }
[kms]
region = "us-west-2"
endpoint_url = "http://127.0.0.1:4566"
sts_endpoint_url = "http://127.0.0.1:4566"
[policy]
file = "policy.cedar"
[attestation]
roots = ["root.pem"]
[audit]
journal_dir = "/tmp/journal"
"#;

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
fn an_enclave_gets_its_keys_over_vsock_and_nobody_else_does() {
    // Minutes in a new clone, in which a document would grow too old.
    Peers::install(&["guests", "records"]);
    let (broker, kms, demo) = (binary(), kms_emulator(), enclave_demo());
    let attester = Attester::new();
    let key = PrivateDecryptingKey::generate(KeySize::Rsa2048).expect("a key");
    let pkcs8: Pkcs8V1Der<'_> = key.as_der().expect("it has a form");
    let public = RecipientKey::from_pkcs8(pkcs8.as_ref()).expect("it is one").public_key_spki().to_vec();
    let claims = || attester.claims().with_public_key(public.clone());
    let document = attester.authority().document(&claims());
    let other_image = attester.authority().document(&claims().with_pcr(0, [0xee; 48]));
    let image = "01".repeat(48);
    let policy = format!(
        r#"permit(principal == Workload::"vsock:cid/4", action, resource)
           when {{ context has recipient.imageSha384 && context.recipient.imageSha384 == "{image}" }};"#
    );
    let conditions = json!({ "alias/dev": { "kms:RecipientAttestation:ImageSha384": image } }).to_string();
    let put = format!(
        "PUT /_emulator/attestation HTTP/1.1\r\nHost: kms\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{conditions}",
        conditions.len()
    );
    let on_parent = Files::default()
        .program(broker)
        .program(&kms)
        .file("/etc/key-broker/key-broker.toml", CONFIG)
        .file("/etc/key-broker/policy.cedar", policy)
        // An authority for AWS, too, though the emulator speaks plain HTTP.
        .file("/etc/key-broker/root.pem", attester.authority().root_pem())
        .file("/put", put)
        .file("/environment", ENVIRONMENT);
    let in_enclave = || {
        let files = Files::default().program(&demo).file("/key", pkcs8.as_ref());
        files.file("/document", document.clone()).file("/other", other_image.clone())
    };
    let guests = [(PARENT, on_parent), (ENCLAVE, in_enclave()), (STRANGER, in_enclave())];
    let [mut parent, mut enclave, mut stranger] = Guest::boot(guests);
    parent.run("kms-emulator --key alias/dev --attestation-root /etc/key-broker/root.pem &", WITHIN);
    parent.wait_for("listening on http://127.0.0.1:4566", WITHIN);
    let answer = parent.run("(cat /put; sleep 1) | nc 127.0.0.1 4566", WITHIN);
    assert!(answer[0].contains(" 200 "), "{answer:?}");
    parent.run(
        ". /environment; key-broker serve --config /etc/key-broker/key-broker.toml 2>&1 | cat &",
        WITHIN,
    );
    parent.wait_for("\"serving\"", WITHIN);

    let demo = |document: &str| {
        format!(
            "enclave-demo --key-id alias/dev --context tenant=acme --attestation file:{document} --rsa-key /key 2>&1"
        )
    };
    let printed = enclave.run(&demo("/document"), WITHIN);
    assert_eq!(printed.last().map(String::as_str), Some("OK"), "{printed:?}");
    let refused = enclave.run(&format!("{} || true", demo("/other")), WITHIN);
    assert!(refused.iter().any(|line| line.contains("DENIED_BY_POLICY")), "{refused:?}");
    let refused = stranger.run(&format!("{} || true", demo("/document")), WITHIN);
    assert!(
        refused.iter().any(|line| line.contains("cannot connect to the broker at vsock:3:7890")),
        "{refused:?}"
    );
    parent.wait_for("\"cid\":5", WITHIN);
    // The test itself comes as the host, CID 2.
    let mut connection = parent.connect(7_890);
    assert_eq!(connection.read(&mut [0; 64]).unwrap_or_default(), 0, "closed at once");
    parent.wait_for("\"cid\":2", WITHIN);

    let lines: Vec<_> =
        parent.run("cat /tmp/journal/*.open", WITHIN).iter().filter_map(|line| record(line)).collect();
    check_records(&lines);
    let records = Records::of(lines.iter().map(|line| serde_json::from_str(line).expect("a record")));
    let of = |record: &Value| {
        let outcome = record["additionalEventData"]["outcome"].as_str().expect("an outcome");
        (record["eventName"].as_str().expect("a name").to_owned(), outcome.to_owned())
    };
    let calls = [
        ("GenerateDataKey", "Allowed"),
        ("Decrypt", "Allowed"),
        ("GenerateRandom", "Allowed"),
        ("GenerateDataKey", "Denied"),
    ];
    let told: Vec<_> = records.activity.iter().map(of).collect();
    assert_eq!(told, calls.map(|(name, outcome)| (name.to_owned(), outcome.to_owned())));
    assert_eq!(records.kms.len(), 3);
    let digest = "attestationDocumentEnclaveImageDigest";
    for record in &records.activity {
        let identity = json!({
            "type": "EnclaveWorkload",
            "principalId": "vsock:cid/4",
            "details": { "transport": "vsock", "cid": 4 },
        });
        assert_eq!((&record["userIdentity"], &record["sourceIPAddress"]), (&identity, &"vsock:4".into()));
        let presented = if of(record).1 == "Denied" { "ee".repeat(48) } else { image.clone() };
        assert_eq!(record["additionalEventData"]["recipient"][digest], presented);
    }
    for record in &records.kms {
        assert_eq!(record["additionalEventData"]["recipient"][digest], image);
    }
    // A broker that goes closes its connections, and one that comes back is found again.
    parent.run("kill $(pidof key-broker); while pidof key-broker >/dev/null; do sleep 0.1; done", WITHIN);
    let gone = enclave.run(&format!("{} || true", demo("/document")), WITHIN);
    assert!(gone.iter().any(|line| line.contains("cannot connect")), "{gone:?}");
    parent.run(
        ". /environment; key-broker serve --config /etc/key-broker/key-broker.toml >/tmp/log 2>&1 &",
        WITHIN,
    );
    parent.run("while ! grep -q '\"serving\"' /tmp/log; do sleep 0.1; done", WITHIN);
    let printed = enclave.run(&demo("/document"), WITHIN);
    assert_eq!(printed.last().map(String::as_str), Some("OK"), "{printed:?}");
}

/// The record in a line of the journal, amid what else is printed.
fn record(line: &str) -> Option<String> {
    let start = line.find('{')?;
    line.contains("\"eventVersion\"").then(|| line[start..].to_owned())
}

const ENVIRONMENT: &str = "export AWS_ACCESS_KEY_ID=AKIATESTEXAMPLE00000 AWS_SECRET_ACCESS_KEY=test-only \
                           AWS_EC2_METADATA_DISABLED=true SSL_CERT_FILE=/etc/key-broker/root.pem KEY_BROKER_LOG=warn,key_broker=info\n";
