//! Which broker a client command talks to.

use std::path::PathBuf;

use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;
use key_broker_client::Client;

use crate::config::Config;
use crate::kms::aws::static_credentials;

/// Which broker to talk to; without any of these, that of `key-broker dev` in this directory.
#[derive(Debug, Args)]
#[group(multiple = false)]
pub(super) struct Target {
    /// The folder of a `key-broker dev`
    #[arg(long, value_name = "DIR", default_value = DEV_DIR)]
    dir: PathBuf,
    /// The broker's unix socket
    #[arg(long, value_name = "PATH")]
    unix: Option<PathBuf>,
    /// The broker's plaintext TCP address, on loopback only
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Option<String>,
    /// The configuration file that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Client, String> {
        if let Some(address) = &self.tcp {
            return tcp(address).await;
        }
        if let Some(path) = &self.unix {
            return unix(path).await;
        }
        let Some(file) = &self.config else { return unix(&self.dir.join("broker.sock")).await };
        let listen = Config::load(file).map_err(|error| error.to_string())?.listen;
        match (listen.unix, listen.insecure_tcp) {
            (Some(address), _) => unix(&address.path).await,
            (None, Some(address)) => tcp(&address.to_string()).await,
            (None, None) => {
                Err(format!("{}: the broker listens with TLS only: call it with grpcurl", file.display()))
            }
        }
    }
}

async fn unix(path: &std::path::Path) -> Result<Client, String> {
    Client::unix(path).await.map_err(|error| error.to_string())
}

async fn tcp(address: &str) -> Result<Client, String> {
    Client::insecure_tcp(address).await.map_err(|error| error.to_string())
}

/// What `key-broker dev` shows its emulator, which knows no secrets.
pub(super) fn dev_credentials() -> SharedCredentialsProvider {
    static_credentials("AKIADEVEXAMPLE000000", "dev-only")
}

/// Where `key-broker dev` keeps everything, unless told.
pub(super) const DEV_DIR: &str = "./.key-broker-dev";
