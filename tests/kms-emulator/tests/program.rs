//! Proves the program: it tells its endpoint, keeps its keys, stops on signals, refuses what it must, teaches its use.

#![expect(clippy::unwrap_used, reason = "a panic fails the test")]

mod ber;
mod support;

use std::io::{BufRead as _, BufReader, Read as _};
use std::process::{Child, Command, Output, Stdio};

use kms_emulator::attestation::{Authority, DocumentClaims};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::json;

use ber::Enclave;
use support::{Client, base64, now};

fn program() -> Command {
    Command::new(env!("CARGO_BIN_EXE_kms-emulator"))
}

/// Starts it and reads the endpoint that it prints.
fn start(arguments: &[&str]) -> (Child, String) {
    let mut child = program().args(arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let endpoint = line.trim().strip_prefix("kms-emulator: listening on ").unwrap().to_owned();
    (child, endpoint)
}

fn stop(mut child: Child, signal: Signal) {
    kill_process(Pid::from_child(&child), signal).unwrap();
    assert!(child.wait().unwrap().success(), "{signal:?}");
}

fn ended(arguments: &[&str]) -> Output {
    program().args(arguments).output().unwrap()
}

#[tokio::test]
async fn it_serves_until_a_signal_and_keeps_its_keys() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let arguments = [
        "--listen",
        "127.0.0.1:0",
        "--state-file",
        path.to_str().unwrap(),
        "--key",
        "alias/a",
        "--key",
        "alias/b",
    ];
    let mut arns = Vec::new();
    for signal in [Signal::TERM, Signal::INT] {
        let (child, endpoint) = start(&arguments);
        let mut client = Client::connect(&endpoint).await;
        let made = client.call("GenerateDataKey", json!({ "KeyId": "alias/b", "KeySpec": "AES_256" })).await;
        arns.push(made.text("KeyId"));
        drop(client);
        stop(child, signal);
    }
    assert_eq!(arns[0], arns[1]);
}

#[test]
fn it_refuses_to_leave_loopback() {
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.1:0"] {
        let output = ended(&["--listen", address]);
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8(output.stderr).unwrap().contains("is not a loopback address"), "{address}");
    }
}

#[tokio::test]
async fn it_believes_the_roots_that_it_is_given() {
    let directory = tempfile::tempdir().unwrap();
    let (pem, der) = (directory.path().join("root.pem"), directory.path().join("root.der"));
    let authorities = [Authority::generate(), Authority::generate()];
    std::fs::write(&pem, authorities[0].root_pem()).unwrap();
    std::fs::write(&der, authorities[1].root_der()).unwrap();
    let (pem, der) = (pem.to_str().unwrap(), der.to_str().unwrap());
    let roots = ["--listen", "127.0.0.1:0", "--attestation-root", pem, "--attestation-root", der];
    let (child, endpoint) = start(&[&roots[..], &["--recipient-form", "der"]].concat());
    let mut client = Client::connect(&endpoint).await;
    let enclave = Enclave::new();
    for authority in &authorities {
        let document =
            authority.document(&DocumentClaims::enclave(now()).with_public_key(enclave.public_key()));
        let recipient = json!({ "AttestationDocument": base64(&document), "KeyEncryptionAlgorithm": "RSAES_OAEP_SHA_256" });
        let made = client.call("GenerateRandom", json!({ "NumberOfBytes": 9, "Recipient": recipient })).await;
        let ciphertext = made.bytes("CiphertextForRecipient");
        assert_eq!((enclave.open(&ciphertext).len(), ciphertext[1]), (9, 0x82), "a definite length");
    }
    drop(client);
    stop(child, Signal::TERM);
    std::fs::write(der, "no certificate").unwrap();
    for (arguments, words) in [
        (&["--attestation-root", der][..], "there is no certificate in it"),
        (&["--attestation-root", "/none"], "/none: No such file"),
        (&["--recipient-form", "ber"], "is not ber-constructed, ber-primitive or der"),
    ] {
        let said = String::from_utf8(ended(arguments).stderr).unwrap();
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn a_second_one_on_the_same_file_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("kms.json");
    let arguments = ["--listen", "127.0.0.1:0", "--state-file", path.to_str().unwrap()];
    let (first, _) = start(&arguments);
    let mut second = program().args(arguments).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
    let mut said = String::new();
    second.stderr.take().unwrap().read_to_string(&mut said).unwrap();
    assert!(said.contains("another emulator has this state file"), "{said}");
    assert_eq!(second.wait().unwrap().code(), Some(1));
    stop(first, Signal::TERM);
}

#[test]
fn its_help_teaches() {
    let help = String::from_utf8(ended(&["--help"]).stdout).unwrap();
    for word in [
        "AWS_ENDPOINT_URL_KMS",
        "--state-file",
        "--key",
        "--listen",
        "--region",
        "--account",
        "--attestation-root",
        "--recipient-form",
        "127.0.0.1:4566",
    ] {
        assert!(help.contains(word), "{word} in {help}");
    }
}
