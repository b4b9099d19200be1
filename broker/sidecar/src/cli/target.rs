//! Which broker a client command talks to.

use std::fs;
use std::path::{Path, PathBuf};

use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;
use key_broker_client::{Client, Tls};

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
    /// The broker's TLS port
    #[arg(long, value_name = "HOST:PORT", requires_all = ["ca", "cert", "key"])]
    tls: Option<String>,
    /// The broker's plaintext port, on loopback only
    #[arg(long, value_name = "HOST:PORT")]
    insecure_tcp: Option<String>,
    /// What `--insecure-tcp` was called.
    #[arg(long, hide = true, value_parser = refuse_tcp)]
    tcp: Option<String>,
    /// The configuration file that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    #[command(flatten)]
    tls_arguments: TlsArguments,
}

/// What mutual TLS takes: files in PEM.
#[derive(Debug, Args)]
struct TlsArguments {
    /// With --tls: the authorities that vouch for the broker's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    ca: Option<PathBuf>,
    /// With --tls: the client's certificate, PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    cert: Option<PathBuf>,
    /// With --tls: its private key, PEM
    #[arg(long, value_name = "FILE", requires = "tls")]
    key: Option<PathBuf>,
    /// With --tls: the DNS name in the broker's certificate [default: HOST]
    #[arg(long, value_name = "NAME", requires = "tls")]
    server_name: Option<String>,
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Client, String> {
        if let Some(address) = &self.tls {
            let tls = self.tls_arguments.read(address)?;
            return Client::tls(address, &tls).await.map_err(|error| error.to_string());
        }
        if let Some(address) = &self.insecure_tcp {
            return insecure_tcp(address).await;
        }
        if let Some(path) = &self.unix {
            return unix(path).await;
        }
        let Some(file) = &self.config else { return unix(&self.dir.join("broker.sock")).await };
        let listen = Config::load(file)?.listen;
        match (listen.unix, listen.insecure_tcp) {
            (Some(address), _) => unix(&address.path).await,
            (None, Some(address)) => insecure_tcp(&address.to_string()).await,
            (None, None) => Err(format!(
                "{}: the broker listens for certificates or enclaves only: give --tls, --ca, --cert and --key",
                file.display()
            )),
        }
    }
}

impl TlsArguments {
    fn read(&self, address: &str) -> Result<Tls, String> {
        let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
        Ok(Tls {
            certificate: read(self.cert.as_deref())?,
            key: read(self.key.as_deref())?.into(),
            trust_bundle: read(self.ca.as_deref())?,
            server_name: self.server_name.clone().unwrap_or_else(|| host.to_owned()),
        })
    }
}

fn read(file: Option<&Path>) -> Result<Vec<u8>, String> {
    let file = file.ok_or("--tls takes --ca, --cert and --key")?;
    fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

async fn unix(path: &Path) -> Result<Client, String> {
    Client::unix(path).await.map_err(|error| error.to_string())
}

async fn insecure_tcp(address: &str) -> Result<Client, String> {
    Client::insecure_tcp(address).await.map_err(|error| error.to_string())
}

fn refuse_tcp(_: &str) -> Result<String, String> {
    Err("write --insecure-tcp for the plaintext port, --tls for mutual TLS".into())
}

/// What `key-broker dev` shows its emulator, which knows no secrets.
pub(super) fn dev_credentials() -> SharedCredentialsProvider {
    static_credentials("AKIADEVEXAMPLE000000", "dev-only")
}

/// Where `key-broker dev` keeps everything, unless told.
pub(super) const DEV_DIR: &str = "./.key-broker-dev";
