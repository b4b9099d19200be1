//! What `serve` needs from the host, before AWS. Whatever a try creates is removed again.

use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use key_broker_trail::delivery::check_state;

use super::report::{Finding, Report};
use crate::app::StartError;
use crate::cli::process_limits;
use crate::config::{Config, is_unlikely_region};
use crate::telemetry;
use crate::telemetry::export;
use crate::transport::opening;

/// Looks at all of it.
pub(super) async fn check(config: &mut Config, report: &mut Report) {
    if let Err(mistake) = process_limits::fit(config) {
        report.add("limits", Finding::Failed(mistake));
    }
    for attempt in opening::try_all(&config.listen, config.http).await {
        let found = match attempt.result {
            Ok(()) => Ok(format!("{} {}", attempt.key, attempt.place)),
            Err(error) => Err(error.to_string()),
        };
        report.add("listen", found);
    }
    let dir = &config.audit.journal.dir;
    report.add("journal", journal(dir));
}

/// Probable mistakes, and ignored environment variables.
pub(super) fn check_environment(config: &Config, report: &mut Report) {
    let region = &config.kms.region;
    if config.kms.endpoint_url.is_none() && is_unlikely_region(region) {
        report.add(
            "region",
            Finding::Note(format!("{region} does not look like an AWS region: is it a typo?")),
        );
    }
    let (outlook, ignored) = export::outlook();
    report.add("telemetry", Finding::Ok(outlook));
    for ignored in ignored {
        report.add("telemetry", Finding::Note(format!("{ignored}: it is ignored")));
    }
    if let Some(mistake) = telemetry::log_filter_mistake() {
        report.add("log", Finding::Note(format!("{mistake}: it is ignored")));
    }
}

fn journal(dir: &Path) -> Result<String, String> {
    let explain = |error| StartError::Journal { dir: dir.to_owned(), error }.to_string();
    let note = try_folder(dir).map_err(explain)?;
    if note == IS_THERE {
        refuse_locked(dir).map_err(explain)?;
        check_state(dir).map_err(|error| error.to_string())?;
    }
    Ok(format!("{}{note}", dir.display()))
}

/// Creates and removes a file in `dir`, or the folder itself if it does not exist yet; returns a remark.
pub(super) fn try_folder(dir: &Path) -> io::Result<&'static str> {
    let is_there = match fs::metadata(dir) {
        Ok(found) if found.is_dir() => true,
        Ok(_) => return Err(ErrorKind::NotADirectory.into()),
        Err(error) if error.kind() == ErrorKind::NotFound => false,
        Err(error) => return Err(error),
    };
    if is_there {
        let probe = dir.join(probe_name());
        OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
        fs::remove_file(&probe)?;
        return Ok(IS_THERE);
    }
    let place = first_there(dir);
    if !place.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    let probe = place.join(probe_name());
    DirBuilder::new().mode(0o700).create(&probe)?;
    fs::remove_dir(&probe)?;
    Ok(" (serve will create it)")
}

/// A journal has one broker.
fn refuse_locked(dir: &Path) -> io::Result<()> {
    let lock = match File::open(dir.join("lock")) {
        Ok(lock) => lock,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    match lock.try_lock() {
        Ok(()) => Ok(()),
        Err(TryLockError::WouldBlock) => Err(io::Error::new(
            ErrorKind::AddrInUse,
            format!(
                "another process writes the journal in {}: stop it or choose another directory (beside a broker that runs, check with \
                 --offline)",
                dir.display()
            ),
        )),
        Err(TryLockError::Error(error)) => Err(error),
    }
}

fn first_there(dir: &Path) -> PathBuf {
    let found = dir.ancestors().find(|place| fs::symlink_metadata(place).is_ok());
    found.filter(|place| !place.as_os_str().is_empty()).unwrap_or_else(|| Path::new(".")).to_owned()
}

fn probe_name() -> String {
    format!(".key-broker-check.{}", std::process::id())
}

const IS_THERE: &str = "";
