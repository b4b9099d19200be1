//! Tries an enclave's keys end to end: generates a data key and decrypts it again, both for this enclave alone.
//!
//! Prints everything that is not secret, and `OK`. Exit codes: 0 success, 1 failure, 64 wrong arguments.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::{env, fs};

use key_broker_client::enclave::{Enclave, FileDocument, Nsm, RecipientKey};
use key_broker_client::{Client, Decrypt, GenerateDataKey, Provenance};
use zeroize::Zeroizing;

fn main() -> ExitCode {
    let arguments = match Arguments::parse(env::args().skip(1)) {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(mistake) => {
            eprintln!("enclave-demo: {mistake}; see --help");
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(arguments)));
    match outcome {
        Ok(()) => {
            println!("OK");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("enclave-demo: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> Result<(), Box<dyn Error>> {
    let client = match &arguments.unix {
        Some(path) => Client::unix(path).await?,
        None => Client::vsock(arguments.cid, arguments.port).await?,
    };
    let enclave = match &arguments.attestation {
        Attestation::Nsm => Enclave::new(client, Nsm::open().map_err(|error| format!("/dev/nsm: {error}"))?)?,
        Attestation::File { document, key } => {
            let provider = FileDocument::read(document).map_err(|error| unread(document, &error))?;
            let key = Zeroizing::new(fs::read(key).map_err(|error| unread(key, &error))?);
            Enclave::with_key(client, provider, RecipientKey::from_pkcs8(&key)?)
        }
    };

    let mut generate = GenerateDataKey::aes_256(arguments.key_id);
    for (name, value) in &arguments.context {
        generate = generate.context(name, value);
    }
    let data_key = enclave.generate_data_key(generate).await.map_err(during("GenerateDataKey"))?;
    println!(
        "GenerateDataKey: {} bytes under {}, encrypted in {} bytes, {}",
        data_key.plaintext.expose().len(),
        data_key.key_id,
        data_key.ciphertext_blob.len(),
        origin(&data_key.provenance)
    );

    let mut decrypt = Decrypt::new(data_key.ciphertext_blob).key_id(data_key.key_id);
    for (name, value) in &arguments.context {
        decrypt = decrypt.context(name, value);
    }
    let decrypted = enclave.decrypt(decrypt).await.map_err(during("Decrypt"))?;
    if decrypted.plaintext.expose() != data_key.plaintext.expose() {
        return Err("Decrypt: the answer is not the data key that was generated".into());
    }
    println!("Decrypt: the same data key, {}", origin(&decrypted.provenance));

    let random = enclave.generate_random(RANDOM_BYTES).await.map_err(during("GenerateRandom"))?;
    println!("GenerateRandom: {} bytes, {}", random.plaintext.expose().len(), origin(&random.provenance));
    Ok(())
}

fn origin(provenance: &Provenance) -> String {
    let source = if provenance.from_cache { "an earlier KMS call" } else { "KMS" };
    format!("from {source}, requestID {}", provenance.kms_request_id)
}

fn during<E: Error>(action: &str) -> impl FnOnce(E) -> String {
    move |error| format!("{action}: {error}")
}

fn unread(path: &Path, error: &std::io::Error) -> String {
    format!("{}: {error}", path.display())
}

struct Arguments {
    key_id: String,
    context: Vec<(String, String)>,
    cid: u32,
    port: u32,
    unix: Option<PathBuf>,
    attestation: Attestation,
}

enum Attestation {
    Nsm,
    File { document: PathBuf, key: PathBuf },
}

impl Arguments {
    /// None asks for help.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Option<Self>, String> {
        let (mut key_id, mut unix, mut rsa_key) = (None, None, None);
        let (mut cid, mut port) = (Client::PARENT_CID, Client::DEFAULT_VSOCK_PORT);
        let mut attestation = "nsm".to_owned();
        let mut context = Vec::new();
        while let Some(option) = words.next() {
            if matches!(&*option, "--help" | "-h") {
                return Ok(None);
            }
            let mut value = || words.next().ok_or(format!("{option} needs a value"));
            match &*option {
                "--key-id" => key_id = Some(value()?),
                "--context" => context.push(pair(&value()?)?),
                "--cid" => cid = number(&option, &value()?)?,
                "--port" => port = number(&option, &value()?)?,
                "--unix" => unix = Some(value()?.into()),
                "--attestation" => attestation = value()?,
                "--rsa-key" => rsa_key = Some(value()?.into()),
                _ => return Err(format!("unknown option {option:?}")),
            }
        }
        let attestation = match (attestation.strip_prefix("file:"), rsa_key) {
            (Some(document), Some(key)) => Attestation::File { document: document.into(), key },
            (Some(_), None) => return Err("--attestation file:… needs --rsa-key".into()),
            (None, None) if attestation == "nsm" => Attestation::Nsm,
            (None, None) => return Err(format!("--attestation is nsm or file:…, not {attestation:?}")),
            (None, Some(_)) => return Err("--rsa-key goes with --attestation file:… only".into()),
        };
        let key_id = key_id.ok_or("--key-id is missing")?;
        Ok(Some(Self { key_id, context, cid, port, unix, attestation }))
    }
}

fn pair(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or(format!("--context is NAME=VALUE, not {text:?}"))?;
    Ok((name.into(), value.into()))
}

fn number(option: &str, text: &str) -> Result<u32, String> {
    text.parse().map_err(|_| format!("{option} is a number, not {text:?}"))
}

const RANDOM_BYTES: u32 = 32;
/// `EX_USAGE` of sysexits.h, as the broker has it.
const EXIT_USAGE: u8 = 64;

const HELP: &str = "\
Tries key-broker from inside a Nitro enclave: generates a data key for this enclave alone, decrypts it again, compares, and
asks for random bytes. Prints what is not secret.

Usage: enclave-demo --key-id KEY [options]

  --key-id KEY           the KMS key: key id, key ARN, alias/… or alias ARN
  --context NAME=VALUE   a pair of the encryption context; may be given several times
  --cid CID              where the broker is; default 3, an enclave's parent instance
  --port PORT            its vsock port; default 7890
  --unix PATH            its unix socket instead, to try this without vsock
  --attestation nsm      documents from the Nitro Security Module, the default
  --attestation file:DOC a document made beforehand, for the key in
  --rsa-key FILE         an RSA private key in PKCS#8, DER, as `openssl pkcs8 -topk8 -nocrypt -outform DER` writes it

Exit codes: 0 all is well, 1 something failed, 64 the arguments are wrong.
";
