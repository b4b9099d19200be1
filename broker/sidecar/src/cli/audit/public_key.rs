//! `key-broker audit public-key`: the key that verifies digests, to be kept where the broker's host cannot change it.

use serde_json::json;

use super::CommandResult;
use super::output::write;
use super::source::SourceArguments;
use super::source::keys::SigningKey;
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, with the key's fingerprint as in digests
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit public-key --config /etc/key-broker/key-broker.toml > signing.pem\n  \
    key-broker audit public-key --json";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { json, key, source } = arguments;
    for key in source.open().await?.public_keys(&key).await? {
        let (pem, fingerprint) = (key.to_pem(), key.fingerprint());
        let described = || format!("{:#}\n", json!({ "fingerprint": fingerprint, "publicKey": pem }));
        write(if json { described() } else { pem.clone() }.as_bytes())?;
    }
    Ok(Exit::Done.into())
}
