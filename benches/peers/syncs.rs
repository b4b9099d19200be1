//! The disk alone: 2 KiB appended, and on disk before the next.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::common::Failure;
use crate::common::load::Sample;
use crate::common::machine::now;

/// A file that is appended to.
pub(crate) struct Syncs(PathBuf);

impl Syncs {
    pub(crate) fn in_directory(dir: &Path) -> Self {
        Self(dir.join("syncs"))
    }

    /// So many writers of one file, each of which syncs what it has written.
    pub(crate) fn round(&self, writers: usize, time: Duration) -> Result<Sample, Failure> {
        let start = now();
        let end = start + time;
        let write = || -> std::io::Result<Vec<Duration>> {
            let mut file = File::options().append(true).create(true).open(&self.0)?;
            let mut latencies = Vec::new();
            let mut began = now();
            while began < end {
                file.write_all(&[b'x'; TWO_RECORDS])?;
                file.sync_data()?;
                let ended = now();
                latencies.push(ended - began);
                began = ended;
            }
            Ok(latencies)
        };
        let latencies = thread::scope(|scope| {
            let writers: Vec<_> = (0..writers).map(|_| scope.spawn(write)).collect();
            writers
                .into_iter()
                .map(|writer| writer.join().map_err(|_| "a writer panicked")?.map_err(Failure::from))
                .collect::<Result<Vec<_>, Failure>>()
        })?;
        Ok(Sample { latencies: latencies.concat(), elapsed: start.elapsed() })
    }
}

/// An activity record and a KMS record, in bytes.
const TWO_RECORDS: usize = 2_048;
