//! Which broker a client command talks to.

use std::fs;
use std::path::{Path, PathBuf};

use std::process::ExitCode;

use aws_credential_types::provider::SharedCredentialsProvider;
use clap::Args;
use key_broker_client::{Client, Error, Tls};
use tonic::Code;

use super::exit::{fail, mistake};
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
    /// The broker's vsock port, from an enclave (its parent is 3) or from the parent
    #[arg(long, value_name = "CID:PORT", value_parser = vsock_address)]
    vsock: Option<(u32, u32)>,
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
    /// With --tls: the authorities that the broker's certificate chains to, PEM
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

/// Why a client command has no answer.
#[derive(Debug)]
pub(super) enum CallFailure {
    /// Arguments or configuration are wrong.
    Mistake(String),
    /// The broker, or the connection to it.
    Failed(String),
}

impl CallFailure {
    /// The failure of a call with this timeout.
    pub(super) fn of(error: &Error, timeout_ms: u64) -> Self {
        // A broker gives its reason.
        match (error.code(), error.reason()) {
            (Code::DeadlineExceeded, None) => {
                Self::Failed(format!("no answer within {timeout_ms} ms (--timeout-ms)"))
            }
            _ => error.into(),
        }
    }

    /// Says it, and ends the process.
    pub(super) fn end(&self) -> ExitCode {
        match self {
            Self::Mistake(why) => mistake(why),
            Self::Failed(why) => fail(why),
        }
    }
}

impl From<&Error> for CallFailure {
    fn from(error: &Error) -> Self {
        // Without a reason, it is the client that refuses an address.
        if error.code() == Code::InvalidArgument && error.reason().is_none() {
            Self::Mistake(error.to_string())
        } else {
            Self::Failed(error.to_string())
        }
    }
}

impl Target {
    pub(super) async fn connect(&self) -> Result<Client, CallFailure> {
        let explain = |error: Error| CallFailure::from(&error);
        if let Some(address) = &self.tls {
            let tls = self.tls_arguments.read(address).map_err(CallFailure::Mistake)?;
            return Client::tls(address, &tls).await.map_err(explain);
        }
        if let Some(address) = &self.insecure_tcp {
            return Client::insecure_tcp(address).await.map_err(explain);
        }
        if let Some((cid, port)) = self.vsock {
            return Client::vsock(cid, port).await.map_err(explain);
        }
        if let Some(path) = &self.unix {
            return Client::unix(path).await.map_err(explain);
        }
        let Some(file) = &self.config else {
            return Client::unix(self.dir.join("broker.sock")).await.map_err(explain);
        };
        let listen = Config::load(file).map_err(CallFailure::Mistake)?.listen;
        match (listen.unix, listen.insecure_tcp) {
            (Some(address), _) => Client::unix(&address.path).await.map_err(explain),
            (None, Some(address)) => Client::insecure_tcp(&address.to_string()).await.map_err(explain),
            (None, None) => Err(CallFailure::Mistake(format!(
                "{}: the broker listens only for TLS or enclaves: give --tls HOST:PORT with --ca, --cert and --key, or --vsock",
                file.display()
            ))),
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

fn vsock_address(text: &str) -> Result<(u32, u32), String> {
    let parts = text.split_once(':').and_then(|(cid, port)| Some((cid.parse().ok()?, port.parse().ok()?)));
    parts.ok_or_else(|| "write CONTEXT-ID:PORT, such as 3:7890 from an enclave".into())
}

/// NAME=VALUE.
pub(super) fn parse_pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() => Ok((name.to_owned(), value.to_owned())),
        _ => Err("write NAME=VALUE".into()),
    }
}

/// The name that is given twice, with any values.
pub(super) fn twice(pairs: &[(String, String)]) -> Option<String> {
    let is_repeated = |(place, (name, _)): &(usize, &(String, String))| {
        pairs[..*place].iter().any(|(earlier, _)| earlier == name)
    };
    let (_, (name, _)) = pairs.iter().enumerate().find(is_repeated)?;
    Some(format!("--context: {name:?} is given twice: an encryption context has one value for each name"))
}

fn refuse_tcp(_: &str) -> Result<String, String> {
    Err("write --insecure-tcp for the plaintext port, --tls for mutual TLS".into())
}

/// What `key-broker dev` shows its emulator, which knows no secrets.
pub(super) fn dev_credentials() -> SharedCredentialsProvider {
    static_credentials("AKIADEVEXAMPLE000000", "dev-only")
}

/// The default folder of `key-broker dev`.
pub(super) const DEV_DIR: &str = "./.key-broker-dev";
