//! The file in which an auditor's commands record their calls to KMS, in a folder that nobody else can change. They never write to a
//! broker's files, or to other people's.

use std::env;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, FileExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf, absolute};
use std::sync::{Mutex, PoisonError};

use rustix::fs::OFlags;
use rustix::process::{getegid, geteuid};

/// A reader's file of records, opened at the first call to KMS.
pub(crate) struct ReaderRecords {
    /// The path that was given; otherwise a state file of the current user.
    told: Option<PathBuf>,
    not_below: Vec<PathBuf>,
    open: Mutex<Option<File>>,
}

impl ReaderRecords {
    /// Writes to the file `told` or, without it, to [`OWN_FILE`] among the reader's state files; never to a file below `not_below`, where
    /// a broker has its own.
    #[must_use]
    pub(crate) fn new(told: Option<PathBuf>, not_below: Vec<PathBuf>) -> Self {
        Self { told, not_below, open: Mutex::new(None) }
    }

    /// Makes sure that records can be written. Errors are text for people.
    pub(crate) fn open(&self) -> Result<(), String> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.is_none() {
            *open = Some(self.open_file()?);
        }
        Ok(())
    }

    /// Appends records durably, a line each.
    pub(crate) fn append(&self, lines: &[u8]) -> Result<(), String> {
        self.open()?;
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        match &*open {
            Some(file) => append(file, lines).map_err(|error| explain(&self.shown(), &error)),
            None => Err(explain(&self.shown(), &"it is not open")),
        }
    }

    fn open_file(&self) -> Result<File, String> {
        let (file, is_own) = match (&self.told, own_file()) {
            (Some(told), _) => (told.clone(), false),
            (None, Some(own)) => (own, true),
            (None, None) => {
                return Err(explain("a state file", &"there is no home directory, and no XDG_STATE_HOME"));
            }
        };
        self.open_at(&file, is_own).map_err(|error| explain(&file.display().to_string(), &error))
    }

    /// Opens `file`, creating its folders if they are the default ones.
    fn open_at(&self, file: &Path, makes_folders: bool) -> io::Result<File> {
        let file = absolute(file)?;
        let (Some(folder), Some(name)) = (file.parent(), file.file_name()) else {
            return Err(io::Error::other("not a file's name"));
        };
        if makes_folders {
            // Whoever can change an existing folder above decides where the new ones are.
            let there = folder.ancestors().find(|above| above.exists()).unwrap_or(folder);
            only_own(&fs::canonicalize(there)?)?;
            DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
        }
        let folder = fs::canonicalize(folder)?;
        only_own(&folder)?;
        for dir in &self.not_below {
            if folder.starts_with(fs::canonicalize(dir).or_else(|_| absolute(dir))?) {
                let why = format!("it is below {}, where only the broker writes", dir.display());
                return Err(io::Error::other(why));
            }
        }
        let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
        let mut options = OpenOptions::new();
        options.read(true).append(true).create(true).mode(0o600).custom_flags(flags.bits().cast_signed());
        let opened = options.open(folder.join(name))?;
        let metadata = opened.metadata()?;
        let refused = if !metadata.is_file() {
            Some("it is not a regular file")
        } else if metadata.uid() != geteuid().as_raw() || metadata.nlink() != 1 {
            Some("it is not a file of your own")
        } else if metadata.mode() & 0o022 != 0 {
            Some("others may write it")
        } else {
            None
        };
        if let Some(why) = refused {
            return Err(io::Error::other(why));
        }
        File::open(folder)?.sync_all()?;
        Ok(opened)
    }

    /// The path of the file, whether it exists or not; `None` if there can be none.
    pub(crate) fn file(&self) -> Option<PathBuf> {
        self.told.clone().or_else(own_file)
    }

    fn shown(&self) -> String {
        self.file().unwrap_or_default().display().to_string()
    }
}

/// The default: below `$XDG_STATE_HOME` or `~/.local/state`.
fn own_file() -> Option<PathBuf> {
    // <https://specifications.freedesktop.org/basedir-spec/latest/>: a path that is not absolute is ignored.
    let told = env::var_os("XDG_STATE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    // Service users have homes that do not exist and must not be created.
    let home = || env::home_dir().filter(|home| home.is_absolute() && home.is_dir());
    Some(told.or_else(|| Some(home()?.join(".local/state")))?.join(OWN_FILE))
}

/// Whether only this user or root can change the contents of a folder and those above it. The path must be without links.
fn only_own(folder: &Path) -> io::Result<()> {
    let (user, group) = (geteuid().as_raw(), getegid().as_raw());
    for above in folder.ancestors() {
        let metadata = fs::symlink_metadata(above)?;
        let mode = metadata.mode();
        let is_of_others = metadata.uid() != user && metadata.uid() != 0;
        let is_open = mode & 0o002 != 0 || (mode & 0o020 != 0 && metadata.gid() != group);
        // In a sticky folder users cannot replace one another's files.
        if is_of_others || (is_open && mode & 0o1000 == 0) {
            let why = format!("another user may change {}", above.display());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, why));
        }
    }
    Ok(())
}

fn append(mut file: &File, lines: &[u8]) -> io::Result<()> {
    file.lock()?;
    let written = (|| {
        // A line that a full disk has cut off must not merge with the next one.
        let mut last = [b'\n'];
        if let Some(end) = file.metadata()?.len().checked_sub(1) {
            file.read_exact_at(&mut last, end)?;
        }
        let ended: &[u8] = if last == *b"\n" { b"" } else { b"\n" };
        file.write_all(&[ended, lines].concat())?;
        file.sync_data()
    })();
    file.unlock()?;
    written
}

fn explain(file: &str, why: &dyn std::fmt::Display) -> String {
    format!(
        "what KMS is asked cannot be recorded in {file}: {why}: name a file of your own, in a folder that only you may \
         change, with --record-to FILE"
    )
}

/// Below the reader's state files.
const OWN_FILE: &str = "key-broker/reader-records.jsonl";

#[cfg(test)]
mod tests {
    //! Records go only to a file of the reader's own: not through a link, into another user's folder, or below a broker's.

    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    fn records(file: &Path, not_below: &[PathBuf]) -> ReaderRecords {
        ReaderRecords::new(Some(file.to_owned()), not_below.to_vec())
    }

    #[test]
    fn lines_are_appended_to_a_private_file_and_a_cut_one_stays_alone() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = dir.path().join("records");
        records(&file, &[]).append(b"one\n").expect("appends");
        fs::write(&file, "one\ncut").expect("writes");
        let again = records(&file, &[]);
        again.append(b"two\n").expect("appends");
        again.append(b"three\n").expect("appends");
        assert_eq!(fs::read_to_string(&file).expect("reads"), "one\ncut\ntwo\nthree\n");
        assert_eq!(fs::metadata(&file).expect("there").permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_another_may_aim_is_refused_and_left_as_it_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let open_to_all = |path: &Path, mode| {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("changes");
        };
        fs::write(at("target"), "precious").expect("writes");
        symlink(at("target"), at("link")).expect("links");
        fs::hard_link(at("target"), at("second")).expect("links");
        fs::write(at("writable"), "").expect("writes");
        open_to_all(&at("writable"), 0o666);
        fs::create_dir_all(at("open/inner")).expect("makes");
        open_to_all(&at("open"), 0o777);
        fs::create_dir_all(at("journal/inner")).expect("makes");
        symlink(at("journal"), at("way")).expect("links");
        for (file, why) in [
            ("link", "os error 40"),
            ("second", "not a file of your own"),
            ("writable", "others may write it"),
            ("open/records", "another user may change"),
            ("open/inner/records", "another user may change"),
            ("journal/records", "only the broker writes"),
            ("journal/inner/records", "only the broker writes"),
            ("way/inner/records", "only the broker writes"),
            ("none/records", "os error 2"),
            ("open", ""),
        ] {
            let error = records(&at(file), &[at("journal")]).append(b"line\n").expect_err(file);
            assert!(error.contains(why) && error.contains("--record-to"), "{file}: {error}");
        }
        assert_eq!(fs::read_to_string(at("target")).expect("reads"), "precious");
        assert_eq!(fs::read_dir(at("journal/inner")).expect("lists").count(), 0);
        assert_eq!(fs::read_dir(at("open")).expect("lists").count(), 1);
    }

    #[test]
    fn a_folder_of_ones_own_is_made_only_below_such_folders() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        let own = ReaderRecords::new(None, Vec::new());
        let file = own.open_at(&at("state/key-broker/records"), true).expect("opens");
        assert_eq!(file.metadata().expect("there").mode() & 0o777, 0o600);
        assert_eq!(fs::metadata(at("state/key-broker")).expect("there").mode() & 0o777, 0o700);
        fs::create_dir(at("open")).expect("makes");
        fs::set_permissions(at("open"), fs::Permissions::from_mode(0o777)).expect("changes");
        assert!(own.open_at(&at("open/key-broker/records"), true).is_err());
        assert!(!at("open/key-broker").exists());
    }
}
