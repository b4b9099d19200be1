//! `key-broker flush`: delivers at once what is recorded, for a hook that runs before the broker is stopped.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use key_broker_proto::admin::v1::FlushRequest;
use key_broker_proto::admin::v1::admin_client::AdminClient;
use tonic::transport::Endpoint;

use super::block_on;
use super::exit::{Exit, fail, mistake};
use super::target::DEV_DIR;
use crate::config::Config;

/// Which broker; without any of these, that of `key-broker dev` in this directory.
#[derive(Debug, clap::Args)]
#[group(multiple = false)]
struct AdminTarget {
    /// The folder of a `key-broker dev`
    #[arg(long, value_name = "DIR", default_value = DEV_DIR)]
    dir: PathBuf,
    /// The operator's socket of the broker (listen.admin)
    #[arg(long, value_name = "PATH")]
    admin: Option<PathBuf>,
    /// The configuration file that the broker runs with
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    target: AdminTarget,
    /// Give up after this many milliseconds
    #[arg(long, value_name = "MS", default_value_t = 25_000)]
    timeout_ms: u64,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let socket = match arguments.target.socket() {
        Ok(socket) => socket,
        Err(why) => return mistake(why),
    };
    block_on(1, async {
        let timeout = Duration::from_millis(arguments.timeout_ms);
        match tokio::time::timeout(timeout, flush(&socket)).await {
            Ok(Ok(digest)) => {
                println!("{digest}");
                Exit::Done.into()
            }
            Ok(Err(error)) => fail(error),
            Err(_) => {
                fail(format!("not delivered within {} ms: the broker goes on trying", arguments.timeout_ms))
            }
        }
    })
}

async fn flush(socket: &Path) -> Result<String, String> {
    let explain = |why: &dyn std::fmt::Display| format!("{}: {why}", socket.display());
    let uri = format!("unix:{}", socket.display());
    let endpoint = Endpoint::from_shared(uri).map_err(|error| explain(&error))?;
    let channel = endpoint.connect().await.map_err(|_| {
        explain(
            &"nobody listens there: is the broker running, with listen.admin, and are you root or its user?",
        )
    })?;
    let flushed = AdminClient::new(channel).flush(FlushRequest {}).await;
    Ok(flushed.map_err(|status| status.message().to_owned())?.into_inner().newest_digest)
}

impl AdminTarget {
    fn socket(&self) -> Result<PathBuf, String> {
        if let Some(path) = &self.admin {
            return Ok(path.clone());
        }
        let Some(file) = &self.config else { return Ok(self.dir.join("admin.sock")) };
        let admin = Config::load(file)?.listen.admin;
        admin.map(|address| address.path).ok_or_else(|| {
            format!("{}: no listen.admin: without it there is no way to tell the broker", file.display())
        })
    }
}
