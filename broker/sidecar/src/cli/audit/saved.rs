//! The progress of verification, in a file: an interrupted run continues there, and the next one begins where the last ended. For one trail
//! a position, for many a line for each that was found sound.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::verify::{PassedTrail, ResumePoint};

use super::Failure;

/// The file, if there is one.
pub(super) struct Saved {
    file: Option<PathBuf>,
    /// The point that the last run reached.
    pub(super) point: Option<ResumePoint>,
    /// The point that this run has reached, not noted yet.
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
            // A failed write is tried again, and reported at the end.
            let _ = self.write();
        }
    }

    /// Notes the end.
    pub(super) fn end(mut self) -> Result<(), Failure> {
        let shown = self.file.clone().unwrap_or_default();
        self.write().map_err(|error| Failure::Configuration(format!("--resume {}: {error}", shown.display())))
    }

    fn write(&mut self) -> io::Result<()> {
        let (Some(file), Some(point)) = (&self.file, self.latest.take()) else { return Ok(()) };
        replace(file, &serde_json::to_vec(&point)?)
    }
}

/// The file of a run over many trails: a line of JSON for each that need not be read again.
pub(super) struct SavedTrails {
    file: Option<(PathBuf, File)>,
    /// The notes of earlier runs.
    noted: BTreeMap<String, PassedTrail>,
    failed: Option<io::Error>,
}

impl SavedTrails {
    /// Reads `file`, if there is one, and what runs before have noted in it.
    pub(super) fn open(file: Option<PathBuf>) -> Result<(Self, Vec<PassedTrail>), Failure> {
        let saved = |file, noted| Self { file, noted, failed: None };
        let Some(path) = file else { return Ok((saved(None, BTreeMap::new()), Vec::new())) };
        let explain = |error: &dyn std::fmt::Display| {
            Failure::Configuration(format!("--resume {}: {error}: give another file", path.display()))
        };
        let text = match fs::read_to_string(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            read => read.map_err(|error| explain(&error))?,
        };
        // A run that was killed may have left half of its last line.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let mut passed = BTreeMap::new();
        for line in whole.lines() {
            let trail: PassedTrail = serde_json::from_str(line).map_err(|error| explain(&error))?;
            passed.insert(trail.trail_arn.clone(), trail);
        }
        if serde_json::from_str::<ResumePoint>(&text).is_ok() {
            return Err(explain(&"it is of one trail"));
        }
        let opened = rewritten(&path, &passed).map_err(|error| explain(&error))?;
        let earlier = passed.values().cloned().collect();
        Ok((saved(Some((path, opened)), passed), earlier))
    }

    /// Notes a trail that was judged.
    pub(super) fn note(&mut self, passed: Option<&PassedTrail>) {
        let (Some((_, file)), Some(passed)) = (&mut self.file, passed) else { return };
        if self.noted.get(&passed.trail_arn) == Some(passed) {
            return;
        }
        let line = serde_json::to_vec(passed).map_err(io::Error::from).and_then(|mut line| {
            line.push(b'\n');
            file.write_all(&line)
        });
        if let Err(error) = line {
            self.failed.get_or_insert(error);
        }
    }

    /// Notes the end.
    pub(super) fn end(self) -> Result<(), Failure> {
        let Some((path, file)) = self.file else { return Ok(()) };
        let ended = self.failed.map_or_else(|| file.sync_all(), Err);
        ended.map_err(|error| Failure::Configuration(format!("--resume {}: {error}", path.display())))
    }
}

/// The file with one line for each, to be written on.
fn rewritten(path: &Path, passed: &BTreeMap<String, PassedTrail>) -> io::Result<File> {
    let mut lines = Vec::new();
    for trail in passed.values() {
        lines.extend(serde_json::to_vec(trail)?);
        lines.push(b'\n');
    }
    replace(path, &lines)?;
    OpenOptions::new().append(true).open(path)
}

/// Replaces the file atomically.
fn replace(file: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut unfinished = file.as_os_str().to_owned();
    unfinished.push(".unfinished");
    let mut writer = File::create(&unfinished)?;
    writer.write_all(bytes)?;
    writer.sync_all()?;
    fs::rename(unfinished, file)
}

const EVERY: Duration = Duration::from_secs(5);
