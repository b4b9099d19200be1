//! KMS: the emulator as a process, and the AWS SDK before it without a broker.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::Duration;

use aws_credential_types::Credentials;
use aws_sdk_kms::config::timeout::TimeoutConfig;
use aws_sdk_kms::config::{BehaviorVersion, Region};
use aws_sdk_kms::types::DataKeySpec;
use key_broker_proto::v1 as pb;

use super::Failure;
use super::load::Target;
use super::process::Process;
use super::programs::Programs;

/// A running emulator.
pub(crate) struct Emulator {
    pub(crate) process: Process,
    pub(crate) endpoint: String,
}

impl Emulator {
    pub(crate) fn start(programs: &Programs) -> Result<Self, Failure> {
        let mut command = Command::new(programs.path("kms-emulator"));
        command.args(["--listen", "127.0.0.1:0", "--key", KEY]).stdout(Stdio::piped());
        let mut process = Process::spawn(&mut command)?;
        let stdout = process.child().stdout.take().ok_or("the emulator has a stdout")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        let endpoint = line.trim().rsplit(' ').next().filter(|word| word.starts_with("http://"));
        let endpoint = endpoint.ok_or("the emulator prints its endpoint")?.to_owned();
        Ok(Self { process, endpoint })
    }
}

/// A data key that nobody else has had: every call is asked of KMS.
pub(crate) fn request() -> pb::GenerateDataKeyRequest {
    let reuse = pb::Reuse { fresh: true, ..Default::default() };
    pb::GenerateDataKeyRequest { reuse: Some(reuse), ..cached_request() }
}

/// A data key bound to a context of two pairs, which may be one that the broker has.
pub(crate) fn cached_request() -> pb::GenerateDataKeyRequest {
    pb::GenerateDataKeyRequest {
        key_id: KEY.into(),
        length: Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into())),
        encryption_context: CONTEXT.map(|(name, value)| (name.to_owned(), value.to_owned())).into(),
        ..Default::default()
    }
}

/// The SDK, set up as the broker does.
#[derive(Clone)]
pub(crate) struct Sdk(aws_sdk_kms::Client);

impl Sdk {
    pub(crate) fn new(emulator: &Emulator) -> Self {
        let timeouts = TimeoutConfig::builder()
            .connect_timeout(Duration::from_secs(1))
            .operation_attempt_timeout(Duration::from_secs(3))
            .build();
        let config = aws_sdk_kms::Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .region(Region::new("us-west-2"))
            .credentials_provider(Credentials::new(ACCESS_KEY_ID, SECRET_ACCESS_KEY, None, None, "bench"))
            .timeout_config(timeouts)
            .endpoint_url(&emulator.endpoint)
            .build();
        Self(aws_sdk_kms::Client::from_conf(config))
    }

    /// Of the key that is called by its alias elsewhere here.
    pub(crate) async fn key_arn(&self) -> Result<String, Failure> {
        let described = self.0.describe_key().key_id(KEY).send().await?;
        let arn = described.key_metadata.and_then(|key| key.arn);
        Ok(arn.ok_or("a key has an ARN")?)
    }
}

impl Target for Sdk {
    async fn call(&mut self) {
        let mut call = self.0.generate_data_key().key_id(KEY).key_spec(DataKeySpec::Aes256);
        for (name, value) in CONTEXT {
            call = call.encryption_context(name, value);
        }
        call.send().await.expect("every call is answered");
    }
}

/// Of nobody: the emulator asks for any.
pub(crate) const ACCESS_KEY_ID: &str = "AKIATESTEXAMPLE00000";
pub(crate) const SECRET_ACCESS_KEY: &str = "test-only";
const KEY: &str = "alias/bench";
const CONTEXT: [(&str, &str); 2] = [("tenant", "acme"), ("purpose", "orders")];
