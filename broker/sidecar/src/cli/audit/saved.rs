//! How far verifying is, in a file: a run that was stopped goes on there, and the next one begins where the last has ended.

use std::fs;
use std::io::{ErrorKind, Write as _};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::verify::ResumePoint;

use super::Failure;

/// The file, if there is one.
pub(super) struct Saved {
    file: Option<PathBuf>,
    /// Where the last run got to.
    pub(super) point: Option<ResumePoint>,
    /// Where this one is, and is not noted yet.
    latest: Option<ResumePoint>,
    noted_at: Instant,
}

impl Saved {
    /// Reads `file`, if there is one, of the trail of this ARN.
    pub(super) fn open(file: Option<PathBuf>, trail_arn: &str) -> Result<Self, Failure> {
        let point = match &file {
            None => None,
            Some(path) => match fs::read(path) {
                Ok(json) => Some(serde_json::from_slice::<ResumePoint>(&json).map_err(|error| {
                    Failure::Configuration(format!("--resume {}: {error}: give another file", path.display()))
                })?),
                Err(error) if error.kind() == ErrorKind::NotFound => None,
                Err(error) => {
                    return Err(Failure::Configuration(format!("--resume {}: {error}", path.display())));
                }
            },
        };
        if let (Some(path), Some(point)) = (&file, &point)
            && point.trail_arn != trail_arn
        {
            return Err(Failure::Configuration(format!(
                "--resume {}: it is of {}, and this trail is {trail_arn}: give another file",
                path.display(),
                point.trail_arn
            )));
        }
        Ok(Self { file, point, latest: None, noted_at: SystemClock.instant() })
    }

    /// Notes where verifying can go on, once in a while.
    pub(super) fn note(&mut self, point: &ResumePoint) {
        if self.file.is_none() || self.latest.as_ref() == Some(point) {
            return;
        }
        self.latest = Some(point.clone());
        let now = SystemClock.instant();
        if now.saturating_duration_since(self.noted_at) >= EVERY {
            self.noted_at = now;
            // It is tried again, and told at the end.
            let _ = self.write();
        }
    }

    /// Notes the end.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        let shown = self.file.clone().unwrap_or_default();
        self.write().map_err(|error| Failure::Configuration(format!("--resume {}: {error}", shown.display())))
    }

    fn write(&mut self) -> std::io::Result<()> {
        let (Some(file), Some(point)) = (&self.file, self.latest.take()) else { return Ok(()) };
        let mut unfinished = file.clone().into_os_string();
        unfinished.push(".unfinished");
        let mut writer = fs::File::create(&unfinished)?;
        writer.write_all(&serde_json::to_vec(&point)?)?;
        writer.sync_all()?;
        fs::rename(unfinished, file)
    }
}

const EVERY: Duration = Duration::from_secs(5);
