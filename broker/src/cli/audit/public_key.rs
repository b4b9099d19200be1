//! `key-broker audit public-key`: what digests are checked with, to be kept where the broker's host cannot change it.

use std::process::ExitCode;

use serde_json::json;

use super::Done;
use super::output::write;
use super::source::SourceArguments;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print JSON, with the fingerprint that digests name the key by
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit public-key --config /etc/key-broker/key-broker.toml > signing.pem\n  \
    key-broker audit public-key --json";

pub(super) async fn run(arguments: Arguments) -> Done {
    let json = arguments.json;
    let key = arguments.source.open().await?.public_key().await?;
    let (pem, fingerprint) = (key.to_pem(), key.fingerprint());
    let text =
        if json { format!("{:#}\n", json!({ "fingerprint": fingerprint, "publicKey": pem })) } else { pem };
    write(text.as_bytes())?;
    Ok(ExitCode::SUCCESS)
}
