//! The emulator as a program.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Parser;
use kms_emulator::{Emulator, EmulatorConfig, KeySpec, RecipientForm};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;
use tokio::signal::unix::{SignalKind, signal};

/// An AWS KMS (and STS GetCallerIdentity and AssumeRole) on loopback, for tests and development.
///
/// Point an AWS SDK at the printed endpoint:
///
///   kms-emulator --key alias/orders --state-file kms.json &
///   export AWS_ENDPOINT_URL_KMS=http://127.0.0.1:4566 AWS_ENDPOINT_URL_STS=http://127.0.0.1:4566
///   export AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY=none AWS_REGION=us-west-2
///   aws kms generate-data-key --key-id alias/orders --key-spec AES_256
///
/// Any credentials do: signatures are not checked. Faults and the log of calls are under /_emulator/; see the README.
/// Never keep real data under its keys: it is not a KMS, only like one.
#[derive(Parser)]
#[expect(clippy::doc_markdown, reason = "clap prints the comment as it is")]
#[command(version, verbatim_doc_comment)]
struct Arguments {
    /// Loopback address and port; port 0 takes a free one
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:4566")]
    listen: SocketAddr,
    /// AWS Region to play
    #[arg(long, default_value = "us-west-2")]
    region: String,
    /// AWS account to play: 12 digits
    #[arg(long, value_name = "ID", default_value = "111122223333")]
    account: String,
    /// File that keeps keys and aliases (made with mode 0600); without it they are gone at the end
    #[arg(long, value_name = "PATH")]
    state_file: Option<PathBuf>,
    /// Symmetric key to make under this alias unless it exists; may be given again
    #[arg(long = "key", value_name = "ALIAS")]
    keys: Vec<String>,
    /// Root certificate whose attestation documents are believed (PEM, all of the file, or DER); may be given again.
    /// Without it every document is refused
    #[arg(long = "attestation-root", value_name = "FILE")]
    attestation_roots: Vec<PathBuf>,
    /// How CiphertextForRecipient is written: ber-constructed as KMS does, ber-primitive, der
    #[arg(long, value_name = "FORM", default_value_t)]
    recipient_form: RecipientForm,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match run(Arguments::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("kms-emulator: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn std::error::Error>> {
    // Before the endpoint is printed: whoever reads it may send a signal at once.
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let emulator = start(arguments).await?;
    let mut stdout = std::io::stdout();
    writeln!(stdout, "kms-emulator: listening on {}", emulator.endpoint_url())?;
    stdout.flush()?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    emulator.shutdown().await;
    Ok(())
}

async fn start(arguments: Arguments) -> Result<Emulator, Box<dyn std::error::Error>> {
    let mut attestation_roots = Vec::new();
    for path in &arguments.attestation_roots {
        attestation_roots.extend(certificates(path).map_err(|error| format!("{}: {error}", path.display()))?);
    }
    let caller_arn = format!("arn:aws:sts::{}:assumed-role/key-broker-dev/dev-session", arguments.account);
    let emulator = Emulator::start(EmulatorConfig {
        listen: arguments.listen,
        region: arguments.region,
        account_id: arguments.account,
        state_file: arguments.state_file,
        caller_arn,
        attestation_roots,
        recipient_form: arguments.recipient_form,
        ..EmulatorConfig::default()
    })
    .await?;
    for alias in &arguments.keys {
        emulator.ensure_key(alias, KeySpec::SymmetricDefault)?;
    }
    Ok(emulator)
}

/// All certificates of a PEM file, or the one of a DER file.
fn certificates(path: &Path) -> Result<Vec<Vec<u8>>, Box<dyn std::error::Error>> {
    let file = std::fs::read(path)?;
    // A sequence of 256 to 65535 bytes, as every certificate's DER is, and no text.
    if file.starts_with(&[0x30, 0x82]) {
        return Ok(vec![file]);
    }
    let certificates: Vec<Vec<u8>> = CertificateDer::pem_slice_iter(&file)
        .map(|certificate| certificate.map(|certificate| certificate.to_vec()))
        .collect::<Result<_, _>>()?;
    if certificates.is_empty() { Err("there is no certificate in it".into()) } else { Ok(certificates) }
}
