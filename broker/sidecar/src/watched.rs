//! Watches a file that may be replaced or rewritten at any time, and decides when it is complete.
//!
//! A file that was renamed into place, which its new inode shows, was complete before it got its name, so it is loaded at once. A file
//! written in place may be incomplete and still valid: it is loaded once two checks five seconds apart find the same content. A new file
//! that is written in place cannot be told from a renamed one: rename.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The file at a path, and what the last look found.
pub(crate) struct WatchedFile {
    path: PathBuf,
    /// None while there is no such file.
    inode: Option<Inode>,
    digest: [u8; 32],
    /// When this was first seen; none at the start.
    since: Option<Instant>,
    is_whole: bool,
}

/// What a look found.
pub(crate) struct Look {
    /// The file's bytes. They may be a private key.
    pub bytes: Zeroizing<Vec<u8>>,
    /// Whether they are all that is being written.
    pub is_whole: bool,
}

/// The result of checking files again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reloaded {
    /// The contents are those in force.
    Same,
    /// They had other contents, which are in force now.
    Changed,
    /// They hold something else, which may still be being written.
    NotYet,
}

/// Which file it is, whatever its name: device and inode.
type Inode = (u64, u64);

impl WatchedFile {
    /// Reads the file for the first time: it is taken as it is.
    pub(crate) fn open(path: &Path) -> Result<(Self, Zeroizing<Vec<u8>>), String> {
        let found = Found::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
        let file = Self {
            path: path.to_owned(),
            inode: Some(found.inode),
            digest: found.digest(),
            since: None,
            is_whole: true,
        };
        Ok((file, found.bytes))
    }

    /// The path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again. Blocks.
    pub(crate) fn look(&mut self, now: Instant) -> Result<Look, String> {
        let found = Found::read(&self.path).map_err(|error| {
            // What comes next may have the same inode, or come in pieces.
            self.inode = None;
            format!("{}: {error}", self.path.display())
        })?;
        self.judge(&found, now);
        Ok(Look { bytes: found.bytes, is_whole: self.is_whole })
    }

    fn judge(&mut self, found: &Found, now: Instant) {
        let digest = found.digest();
        let is_other_file = self.inode.is_some_and(|inode| inode != found.inode);
        if is_other_file && found.is_steady {
            (self.is_whole, self.since) = (true, Some(now));
        } else if is_other_file || digest != self.digest || !found.is_steady || self.inode.is_none() {
            (self.is_whole, self.since) = (false, Some(now));
        } else {
            let age = self.since.map(|since| now.saturating_duration_since(since));
            self.is_whole |= age.is_none_or(|age| age >= SETTLED);
        }
        (self.inode, self.digest) = (Some(found.inode), digest);
    }
}

/// A file, read.
struct Found {
    bytes: Zeroizing<Vec<u8>>,
    inode: Inode,
    /// Nobody wrote it during the look.
    is_steady: bool,
}

impl Found {
    fn read(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let before = file.metadata()?;
        let mut bytes = Zeroizing::new(Vec::new());
        file.read_to_end(&mut bytes)?;
        let after = file.metadata()?;
        let written =
            |metadata: &std::fs::Metadata| (metadata.len(), metadata.mtime(), metadata.mtime_nsec());
        let is_steady = written(&before) == written(&after);
        Ok(Self { bytes, inode: (after.dev(), after.ino()), is_steady })
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(&*self.bytes).into()
    }
}

/// A file written in place is complete once it has stayed the same for this long.
const SETTLED: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    //! What is written in place counts only when it has stayed the same; what is renamed into place counts at once; and no order of
    //! both brings a half.

    use std::fs;

    use key_broker_core::clock::{Clock as _, SystemClock};
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone)]
    enum Step {
        /// The next file is made beside it and renamed into place.
        Rename,
        /// The first half of the next file is written in place.
        WriteHalf,
        /// The rest of it.
        WriteRest,
        /// The file is removed.
        Remove,
        /// A check, this many seconds after the last one.
        Look(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            1 => Just(Step::Rename),
            2 => Just(Step::WriteHalf),
            2 => Just(Step::WriteRest),
            1 => Just(Step::Remove),
            6 => (0_u64..=4).prop_map(Step::Look),
        ]
    }

    fn whole(n: u32) -> String {
        format!("{n}: permit; forbid;")
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        /// A writer that takes less than five seconds between its two writes is never seen half, whatever SIGHUPs come between.
        #[test]
        fn no_half_is_taken(steps in prop::collection::vec(step(), 1..40)) {
            let dir = tempfile::tempdir().expect("a directory");
            let path = dir.path().join("policy.cedar");
            fs::write(&path, whole(0)).expect("writes");
            let (mut file, _) = WatchedFile::open(&path).expect("reads");
            let (mut n, mut half_for) = (0, None::<u64>);
            let mut now = SystemClock.instant();
            for step in steps {
                match step {
                    Step::Rename => {
                        n += 1;
                        let beside = dir.path().join("next");
                        fs::write(&beside, whole(n)).expect("writes");
                        fs::rename(&beside, &path).expect("renames");
                        half_for = None;
                    }
                    Step::WriteHalf => {
                        n += 1;
                        let text = whole(n);
                        // The broker has seen that the file is another, or gone: it looks every five seconds.
                        prop_assert_eq!(file.look(now).is_err(), !path.exists());
                        fs::write(&path, &text[..text.len() / 2]).expect("writes");
                        half_for = Some(0);
                    }
                    Step::WriteRest if half_for.is_some() => {
                        fs::write(&path, whole(n)).expect("writes");
                        half_for = None;
                    }
                    Step::WriteRest => {}
                    Step::Remove => {
                        let _ = fs::remove_file(&path);
                        half_for = None;
                    }
                    Step::Look(seconds) => {
                        // The writer is slow, but not that slow.
                        let seconds = half_for.map_or(seconds, |passed| seconds.min(4_u64.saturating_sub(passed)));
                        half_for = half_for.map(|passed| passed + seconds);
                        now += Duration::from_secs(seconds);
                        if let Ok(look) = file.look(now) && look.is_whole {
                            let text = String::from_utf8(look.bytes.to_vec()).expect("text");
                            prop_assert!(text.ends_with("forbid;"), "{text}");
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn renamed_at_once_and_in_place_after_five_seconds() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, beside) = (dir.path().join("file"), dir.path().join("beside"));
        fs::write(&path, "one").expect("writes");
        let (mut file, bytes) = WatchedFile::open(&path).expect("reads");
        assert_eq!(&**bytes, b"one");
        let mut now = SystemClock.instant();
        let mut is_whole = |after: u64| {
            now += Duration::from_secs(after);
            file.look(now).expect("reads").is_whole
        };
        assert!(is_whole(1));
        fs::write(&beside, "two").expect("writes");
        fs::rename(&beside, &path).expect("renames");
        assert!(is_whole(1), "renamed into place");
        fs::write(&path, "three").expect("writes");
        assert!(!is_whole(1) && !is_whole(4) && is_whole(1));
        fs::write(&path, "four").expect("writes");
        assert!(!is_whole(10), "however long after the last look");
        fs::write(&path, "five").expect("writes");
        assert!(!is_whole(5) && is_whole(5));
    }
}
