//! `key-broker check`: is everything there that `serve` needs? Changes nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use rustix::fs::Access;

use super::{ConfigArgument, block_on, wrong_configuration};
use crate::clock::SystemClock;
use crate::config::Config;
use crate::key::KeyId;
use crate::kms::Answers;
use crate::kms::aws::AwsKms;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigArgument,
    /// A KMS key under which the broker must be able to make data keys; may be given more than once
    #[arg(long = "key-id", value_name = "KEY", value_parser = parse_key)]
    keys: Vec<KeyId>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let path = &arguments.config.config;
    let config = match Config::load(path) {
        Ok(config) => config,
        Err(error) => return wrong_configuration(error),
    };
    let mut report = Report { failed: false };
    report.line("configuration", &Ok(path.display().to_string()));
    report.line(
        "policy",
        &Ok(match config.policy.len() {
            0 => "no policies: every call will be denied".to_owned(),
            n => format!("{n} policies"),
        }),
    );
    report.line("journal", &journal_dir(&config.audit.journal.dir));
    block_on(1, async {
        let kms = AwsKms::new(config.kms, None, Arc::new(SystemClock)).await;
        let caller = kms.caller().await.map(|caller| caller.arn);
        report.line("credentials", &caller.map_err(|error| format!("sts:GetCallerIdentity: {error}")));
        for key in &arguments.keys {
            let asked = kms.dry_run_generate_data_key(key, &Answers::default()).await;
            let result = asked.map(|()| format!("may GenerateDataKey under {}", key.as_str()));
            report.line(
                "kms",
                &result.map_err(|error| {
                    format!(
                        "GenerateDataKey under {}: {}: {}",
                        key.as_str(),
                        error.code,
                        error.message.unwrap_or_default()
                    )
                }),
            );
        }
        if report.failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    })
}

struct Report {
    failed: bool,
}

impl Report {
    fn line(&mut self, what: &str, result: &Result<String, String>) {
        self.failed |= result.is_err();
        match result {
            Ok(found) => println!("ok      {what:<13} {found}"),
            Err(error) => println!("FAILED  {what:<13} {error}"),
        }
    }
}

fn journal_dir(dir: &Path) -> Result<String, String> {
    let (place, note) =
        if dir.exists() { (dir.to_owned(), "") } else { (first_existing(dir), " (serve will make it)") };
    rustix::fs::access(&place, Access::WRITE_OK | Access::EXEC_OK)
        .map(|()| format!("{}{note}", dir.display()))
        .map_err(|error| format!("cannot write in {}: {}", place.display(), io::Error::from(error)))
}

fn first_existing(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|place| place.exists());
    found.filter(|place| !place.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}
