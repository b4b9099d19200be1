//! What is compared: the broker, what one would take instead, and what bounds them all.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use crate::common::Failure;
use crate::common::broker::{Broker, Setup};
use crate::common::echo::Echo;
use crate::common::kms::{self, Emulator, Sdk};
use crate::common::load::{Grpc, Sample, Until, run};
use crate::common::programs::Programs;
use crate::install::{command, install};
use crate::loader::Loader;
use crate::openbao::{DataKeys, OpenBao};
use crate::root;
use crate::syncs::Syncs;

/// One row.
pub(crate) struct Contender {
    pub(crate) what: What,
    pub(crate) name: &'static str,
    /// What a call leaves for whoever asks later.
    pub(crate) record: &'static str,
    pub(crate) version: String,
    pub(crate) load: Result<Load, String>,
}

/// What a call gives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum What {
    /// A data key, in clear and encrypted.
    DataKey,
    /// A message of 1 KiB, encrypted.
    Message,
    /// Nothing of use: it bounds the others.
    Bound,
}

/// How calls are made.
pub(crate) enum Load {
    Grpc(Box<Grpc>),
    Sdk(Sdk),
    OpenBao(DataKeys),
    Loader(Loader),
    Syncs(Syncs),
}

impl Load {
    pub(crate) async fn round(&mut self, in_flight: usize, time: Duration) -> Result<Sample, Failure> {
        let until = Until { calls: u64::MAX, time };
        Ok(match self {
            Self::Grpc(target) => run(&**target, in_flight, until).await,
            Self::Sdk(target) => run(target, in_flight, until).await,
            Self::OpenBao(target) => run(target, in_flight, until).await,
            Self::Loader(loader) => loader.round(in_flight, time)?,
            Self::Syncs(syncs) => syncs.round(in_flight, time)?,
        })
    }
}

/// The servers that contenders call, started.
pub(crate) struct Stage<'a> {
    programs: &'a Programs,
    emulator: &'a Emulator,
    key: String,
    synced: Broker,
    written: Broker,
    echo: Echo,
    openbao: Result<OpenBao, String>,
}

impl<'a> Stage<'a> {
    pub(crate) async fn start(programs: &'a Programs, emulator: &'a Emulator) -> Result<Self, Failure> {
        let synced = Broker::start(programs, emulator, Setup::default()).await?;
        let written = Setup { commit: "write", ..Setup::default() };
        let written = Broker::start(programs, emulator, written).await?;
        let reply = synced.client().await?.generate_data_key(kms::request()).await?.into_inner();
        let openbao = match install("openbao") {
            Ok(dir) => {
                let started = OpenBao::start(&dir.join("bin/bao"), programs.dir()).await;
                started.map_err(|error| error.to_string())
            }
            Err(why) => Err(why),
        };
        Ok(Self {
            programs,
            emulator,
            key: Sdk::new(emulator).key_arn().await?,
            synced,
            written,
            echo: Echo::start(programs, &reply, 1)?,
            openbao,
        })
    }

    /// In the order of the report.
    pub(crate) async fn contenders(&self) -> Result<Vec<Contender>, Failure> {
        let mut all = vec![
            self.broker("key-broker, Rust", SYNCED, &self.synced).await?,
            self.broker("key-broker, Rust, `write`", "written before the reply", &self.written).await?,
        ];
        let (version, load) = match &self.openbao {
            Ok(openbao) => (openbao.version.clone(), Ok(Load::OpenBao(openbao.keys.clone()))),
            Err(why) => (String::new(), Err(why.clone())),
        };
        let (what, name, record) = (What::DataKey, "OpenBao transit, Rust", "written, never synced");
        all.push(Contender { what, name, record, version, load });
        all.push(Contender {
            what,
            name: "KMS directly, Rust",
            record: CLOUDTRAIL,
            version: format!("aws-sdk-kms for Rust {}", aws_sdk_kms::meta::PKG_VERSION),
            load: Ok(Load::Sdk(Sdk::new(self.emulator))),
        });
        let package = self.built_node_package().map_err(|error| error.to_string());
        all.extend([
            loaded(what, "KMS directly, Go", CLOUDTRAIL, self.go()),
            loaded(what, "KMS directly, Java", CLOUDTRAIL, self.java()),
            loaded(what, "key-broker, Node", SYNCED, self.node_package(&package, "data-key")),
            loaded(what, "KMS directly, Node", CLOUDTRAIL, self.node("kms")),
            loaded(what, "key-broker, Python", SYNCED, self.python("data-key")),
            loaded(what, "KMS directly, Python", CLOUDTRAIL, self.python("kms")),
        ]);
        let what = What::Message;
        all.extend([
            loaded(what, "key-broker, Node", SYNCED, self.node_package(&package, "message")),
            loaded(what, "Encryption SDK, Node", NONE, self.node("encryption-sdk")),
            loaded(what, "key-broker, Python", SYNCED, self.python("message")),
            loaded(what, "Encryption SDK, Python", NONE, self.python("encryption-sdk")),
        ]);
        let (what, record, version) = (What::Bound, NONE, String::new());
        let echo = Load::Grpc(Box::new(self.echo.target().await?));
        all.push(Contender { what, name: "gRPC echo", record, version, load: Ok(echo) });
        let syncs = Load::Syncs(Syncs::in_directory(self.programs.dir()));
        let (name, record, version) = ("`fdatasync` of 2 KiB", "nothing else", String::new());
        all.push(Contender { what, name, record, version, load: Ok(syncs) });
        Ok(all)
    }

    async fn broker(
        &self,
        name: &'static str,
        record: &'static str,
        broker: &Broker,
    ) -> Result<Contender, Failure> {
        let target = Grpc { request: kms::cached_request(), ..broker.target().await? };
        let version = format!("key-broker {}", env!("CARGO_PKG_VERSION"));
        Ok(Contender { what: What::DataKey, name, record, version, load: Ok(Load::Grpc(Box::new(target))) })
    }

    fn go(&self) -> Result<Loader, Failure> {
        self.load(&mut command(install("kms-go")?.join("bin/kms-go")))
    }

    fn java(&self) -> Result<Loader, Failure> {
        let dir = install("kms-java")?;
        let classes = format!("{}/classes:{}/lib/*", dir.display(), dir.display());
        self.load(command("java").args(["-cp", &classes, "Load"]))
    }

    fn python(&self, kind: &str) -> Result<Loader, Failure> {
        let root = root()?;
        let mut python = command(install("client-python")?.join("bin/python"));
        python.arg(root.join("benches/peers/load.py")).arg(kind);
        python.env("PYTHONPATH", root.join("client/python/src")).env("PYTHONDONTWRITEBYTECODE", "1");
        self.load(&mut python)
    }

    fn node(&self, kind: &str) -> Result<Loader, Failure> {
        // What stands behind `createRequire` is a file beside node_modules.
        let from = install("encryption-sdk-node")?.join("package.json");
        self.load(command("node").arg(root()?.join("benches/peers/load.mjs")).arg(kind).arg(from))
    }

    fn node_package(&self, package: &Result<PathBuf, String>, kind: &str) -> Result<Loader, Failure> {
        let package = package.as_ref().map_err(Clone::clone)?;
        let mut node = command("node");
        node.arg(root()?.join("benches/peers/load.mjs")).arg(kind).arg(package);
        self.load(&mut node)
    }

    /// The package's module, built in a copy.
    fn built_node_package(&self) -> Result<PathBuf, Failure> {
        let modules = install("client-node")?.join("node_modules");
        let package = self.programs.path("client-node");
        let copied = command("cp").arg("-r").arg(root()?.join("client/node")).arg(&package).status()?;
        if !copied.success() {
            return Err("client/node cannot be copied".into());
        }
        let _ = fs::remove_dir_all(package.join("node_modules"));
        symlink(modules, package.join("node_modules"))?;
        let mut compiler = command("node");
        compiler
            .args(["node_modules/typescript/bin/tsc", "--project", "tsconfig.json"])
            .current_dir(&package);
        let built = compiler.output()?;
        if !built.status.success() {
            let told = String::from_utf8_lossy(&built.stdout).into_owned();
            return Err(format!("client/node does not build: {told}").into());
        }
        Ok(package.join("dist/esm/index.js"))
    }

    fn load(&self, command: &mut Command) -> Result<Loader, Failure> {
        command
            .env("KMS_KEY", &self.key)
            .env("KEY_BROKER_ADDRESS", format!("unix:{}", self.synced.socket().display()))
            .env("AWS_ENDPOINT_URL_KMS", &self.emulator.endpoint)
            .env("AWS_REGION", "us-west-2")
            .env("AWS_DEFAULT_REGION", "us-west-2")
            .env("AWS_ACCESS_KEY_ID", kms::ACCESS_KEY_ID)
            .env("AWS_SECRET_ACCESS_KEY", kms::SECRET_ACCESS_KEY)
            .env("AWS_EC2_METADATA_DISABLED", "true")
            // That AWS's SDK will want a newer Node is not what is measured.
            .env("NODE_NO_WARNINGS", "1");
        Loader::start(command)
    }
}

fn loaded(
    what: What,
    name: &'static str,
    record: &'static str,
    loader: Result<Loader, Failure>,
) -> Contender {
    let version = loader.as_ref().map_or_else(|_| String::new(), |loader| loader.versions.clone());
    let load = loader.map(Load::Loader).map_err(|error| error.to_string());
    Contender { what, name, record, version, load }
}

const SYNCED: &str = "on disk before the reply";
/// Only AWS knows of the call.
const CLOUDTRAIL: &str = "CloudTrail's, minutes later";
const NONE: &str = "none";
