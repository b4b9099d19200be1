//! Proves: KMS records of calls that went over TLS say how, as CloudTrail's do; the broker's own calls have none, as in CloudTrail; and
//! the trail is sound.

mod peers;
mod support;

use std::fs;
use std::path::Path;
use std::sync::Arc;

use key_broker_client::{Client, GenerateDataKey};
use peers::check_records;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustix::process::Signal;
use rustls::ServerConfig;
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use support::dev_folder::{command, text};
use support::process::{Process, write_config};
use support::site::Site;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// TLS before the emulator, for a certificate of `localhost` that is written to a file: its port.
async fn tls_before(emulator: &str, certificate: &Path) -> u16 {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    fs::write(certificate, cert.pem()).expect("writes");
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let emulator = emulator.strip_prefix("http://").expect("http").to_owned();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (acceptor, emulator) = (acceptor.clone(), emulator.clone());
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                let mut behind = TcpStream::connect(emulator).await.expect("the emulator runs");
                let _closed = tokio::io::copy_bidirectional(&mut stream, &mut behind).await;
            });
        }
    });
    port
}

#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kms_records_say_how_the_call_was_encrypted() {
    let site = Site::new().await;
    let authority = site.dir.path().join("authority.pem");
    let port = tls_before(&site.emulator.endpoint_url(), &authority).await;
    let audit = "store = { directory = \"trail\", bucket = \"logs\" }\nsigning = { pem_file = \"signing.pem\" }\n\
                 delivery_interval_seconds = 1\ndigest_interval_seconds = 2\nkms_key_id = \"alias/dev\"\n";
    let config = write_config(site.dir.path(), &format!("https://localhost:{port}"), audit);
    let mut serve = Process::serve_command(&config);
    serve.env("SSL_CERT_FILE", &authority);
    let broker = Process::serve_by(serve, &config);
    let client = Client::unix(site.socket()).await.expect("listens");
    let key = client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.expect("a key");
    broker.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || broker.wait()).await.expect("waits");
    assert!(ended.success(), "{ended}");

    let audit = |arguments: &[&str]| {
        let mut audit = command();
        audit.arg("audit").args(arguments).arg("--config").arg(&config).env("SSL_CERT_FILE", &authority);
        audit.arg("--record-to").arg(site.dir.path().join("reader-records")).output().expect("runs")
    };
    let shown = audit(&["cat", "--records"]);
    let lines: Vec<String> = text(&shown.stdout).lines().map(str::to_owned).collect();
    check_records(&lines);
    let records: Vec<Value> =
        lines.iter().map(|line| serde_json::from_str(line).expect("a record")).collect();
    let (of_workloads, own): (Vec<_>, Vec<_>) = records
        .iter()
        .filter(|record| record["eventSource"] == "kms.amazonaws.com")
        .partition(|record| record["userIdentity"].get("invokedBy").is_none());
    let record = of_workloads.iter().find(|record| record["requestID"] == key.provenance.kms_request_id);
    assert_eq!(
        record.expect("the call's record")["tlsDetails"],
        json!({
            "tlsVersion": "TLSv1.3", "cipherSuite": "TLS_AES_256_GCM_SHA384",
            "clientProvidedHostHeader": format!("localhost:{port}"), "keyExchange": "X25519MLKEM768",
        })
    );
    assert!(!own.is_empty() && own.iter().all(|record| record.get("tlsDetails").is_none()), "{own:?}");
    let told = records.iter().filter(|record| record.get("tlsDetails").is_some());
    assert_eq!(told.count(), of_workloads.len(), "no activity record has any");
    let public_key = site.dir.path().join("public.pem");
    fs::write(&public_key, site.key.to_pem()).expect("writes");
    let verified = audit(&["verify", "--public-key", public_key.to_str().expect("a path")]);
    assert_eq!(verified.status.code(), Some(0), "{}{}", text(&verified.stdout), text(&verified.stderr));
}
