//! A directory as a store: `ROOT/BUCKET/KEY`, an object's metadata beside it in `KEY.meta.json`.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use async_trait::async_trait;
use rustix::fs::{CWD, OFlags, RenameFlags, renameat_with};
use rustix::io::Errno;

use super::{MAX_OBJECT_BYTES, Object, Store, StoreError};
use crate::regular_file::read_regular;

/// A directory that holds one bucket.
#[derive(Debug, Clone)]
pub(crate) struct DirectoryStore {
    bucket: PathBuf,
}

impl DirectoryStore {
    /// The bucket of this name under `root`.
    #[must_use]
    pub(crate) fn new(root: &Path, bucket: &str) -> Self {
        Self { bucket: root.join(bucket) }
    }

    /// Runs file work where it may block.
    async fn work<T: Send + 'static>(
        &self,
        key: &str,
        work: impl FnOnce(&Path) -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let bucket = self.bucket.clone();
        let done = tokio::task::spawn_blocking(move || work(&bucket)).await;
        match done {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(error)) => Err(StoreError(format!("{}/{key}: {error}", self.bucket.display()))),
            Err(_) => Err(StoreError("the work on the directory was cut off".into())),
        }
    }
}

#[async_trait]
impl Store for DirectoryStore {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        let key = object.key.clone();
        self.work(&key, move |bucket| {
            let path = bucket.join(checked(&object.key)?);
            let folder = path.parent().unwrap_or(bucket);
            make_folders(folder)?;
            if found(fs::symlink_metadata(&path))?.is_some() {
                return Ok(false);
            }
            if !object.metadata.is_empty() {
                // First: an object that is there has its metadata.
                let metadata = serde_json::to_vec(&object.metadata)?;
                write_durably(&metadata_path(&path), &metadata)?;
            }
            let is_new = write_anew(&path, &object.bytes)?;
            File::open(folder)?.sync_all()?;
            Ok(is_new)
        })
        .await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        let wanted = key.to_owned();
        self.work(key, move |bucket| {
            let path = bucket.join(checked(&wanted)?);
            let Some(bytes) = found(read_regular(&path, MAX_OBJECT_BYTES))? else { return Ok(None) };
            let metadata: BTreeMap<String, String> =
                match found(read_regular(&metadata_path(&path), MAX_METADATA_BYTES))? {
                    Some(json) => serde_json::from_slice(&json)?,
                    None => BTreeMap::new(),
                };
            Ok(Some(Object { key: wanted, bytes, metadata }))
        })
        .await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let wanted = prefix.to_owned();
        self.work(prefix, move |bucket| {
            let mut keys = Vec::new();
            // A prefix need not end at a slash; the folder before its last one holds all that can match.
            let folder = wanted.rsplit_once('/').map_or("", |(folder, _)| folder);
            collect(bucket, &bucket.join(checked(folder)?), &mut keys)?;
            keys.retain(|key| key.starts_with(&wanted));
            keys.sort();
            Ok(keys)
        })
        .await
    }
}

/// A key that stays under the bucket: a digest names objects, and digests come from where anybody may have written.
fn checked(key: &str) -> io::Result<&str> {
    let plain = |part: &str| part != ".." && part != "." && !part.contains('\0');
    if key.starts_with('/') || !key.split('/').all(plain) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a key with .. or a leading / is refused"));
    }
    Ok(key)
}

fn collect(bucket: &Path, folder: &Path, keys: &mut Vec<String>) -> io::Result<()> {
    let Some(entries) = found(fs::read_dir(folder))? else { return Ok(()) };
    for entry in entries {
        let entry = entry?;
        let path = entry.path();
        if entry.file_type()?.is_dir() {
            collect(bucket, &path, keys)?;
        } else if let Some(key) = path.strip_prefix(bucket).ok().and_then(Path::to_str)
            && !key.ends_with(METADATA)
            && !key.ends_with(UNFINISHED)
        {
            keys.push(key.to_owned());
        }
    }
    Ok(())
}

fn make_folders(folder: &Path) -> io::Result<()> {
    if folder.is_dir() {
        return Ok(());
    }
    DirBuilder::new().recursive(true).mode(0o750).create(folder)?;
    for made in folder.ancestors().take(FOLDERS_OF_A_KEY) {
        // Read-only ancestors need no sync: nothing was made in them.
        if let Ok(made) = File::open(made) {
            made.sync_all()?;
        }
    }
    Ok(())
}

/// All or nothing: under its name only once it is whole and synced.
pub(crate) fn write_durably(path: &Path, bytes: &[u8]) -> io::Result<()> {
    fs::rename(write_unfinished(path, bytes)?, path)
}

/// The same, where nothing has the name. False if something has: that stays.
fn write_anew(path: &Path, bytes: &[u8]) -> io::Result<bool> {
    let unfinished = write_unfinished(path, bytes)?;
    match renameat_with(CWD, &unfinished, CWD, path, RenameFlags::NOREPLACE) {
        Ok(()) => return Ok(true),
        Err(Errno::EXIST) => {
            fs::remove_file(&unfinished)?;
            return Ok(false);
        }
        // A filesystem that cannot do this in one step, such as NFS.
        Err(Errno::INVAL | Errno::NOSYS | Errno::OPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    let linked = fs::hard_link(&unfinished, path);
    fs::remove_file(&unfinished)?;
    match linked {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
        Err(error) => Err(error),
    }
}

fn write_unfinished(path: &Path, bytes: &[u8]) -> io::Result<PathBuf> {
    let unfinished = with_suffix(path, UNFINISHED);
    let mut options = OpenOptions::new();
    // Others may write in a store's folders, too.
    options.write(true).create(true).truncate(true).mode(0o640);
    let mut file = options.custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    Ok(unfinished)
}

fn metadata_path(path: &Path) -> PathBuf {
    with_suffix(path, METADATA)
}

fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// None where there is no such file.
pub(crate) fn found<T>(result: io::Result<T>) -> io::Result<Option<T>> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

const METADATA: &str = ".meta.json";
const UNFINISHED: &str = ".unfinished";
/// As S3's limit of user metadata, with room for its names.
const MAX_METADATA_BYTES: u64 = 16 << 10;
/// `AWSLogs/ACCOUNT/CloudTrail/REGION/YYYY/MM/DD`, bucket and root, and a prefix of a few folders.
const FOLDERS_OF_A_KEY: usize = 16;

#[cfg(test)]
mod tests {
    //! What is put is got and listed, whole; no key leads out of the bucket.

    use super::*;

    #[tokio::test]
    async fn objects_come_back_with_their_metadata_and_in_order() {
        let root = tempfile::tempdir().expect("dir");
        let store = DirectoryStore::new(root.path(), "logs");
        assert_eq!(store.list("AWSLogs/").await.expect("lists"), Vec::<String>::new());
        for key in ["AWSLogs/1/b.gz", "AWSLogs/1/a.gz", "AWSLogs/2/c.gz"] {
            let metadata = BTreeMap::from([("signature".to_owned(), "ab".to_owned())]);
            let object = Object { key: key.into(), bytes: key.as_bytes().to_vec(), metadata };
            assert!(store.put(object.clone()).await.expect("puts"), "it is new");
            let other = Object { bytes: b"other".to_vec(), metadata: BTreeMap::new(), ..object.clone() };
            assert!(!store.put(other).await.expect("looks"), "one is there");
            assert_eq!(store.get(key).await.expect("gets"), Some(object), "it stays");
        }
        assert_eq!(store.list("AWSLogs/1/").await.expect("lists"), ["AWSLogs/1/a.gz", "AWSLogs/1/b.gz"]);
        assert_eq!(store.list("AWSLogs/1/a").await.expect("lists"), ["AWSLogs/1/a.gz"]);
        assert_eq!(store.get("AWSLogs/1/none").await.expect("gets"), None);
        assert!(root.path().join("logs/AWSLogs/1/a.gz.meta.json").exists());
    }

    #[tokio::test]
    async fn of_two_that_put_at_once_one_has_put() {
        let root = tempfile::tempdir().expect("dir");
        for round in 0..50 {
            let puts = [b"one", b"two"].map(|bytes| {
                let store = DirectoryStore::new(root.path(), "logs");
                let object =
                    Object { key: format!("a/{round}"), bytes: bytes.to_vec(), metadata: BTreeMap::new() };
                tokio::spawn(async move { store.put(object).await })
            });
            let mut new = 0;
            for put in puts {
                // Whoever has lost may find the unfinished file gone.
                new += usize::from(put.await.expect("no panic").unwrap_or(false));
            }
            assert_eq!(new, 1, "round {round}");
        }
    }

    #[tokio::test]
    async fn keys_stay_in_the_bucket() {
        let root = tempfile::tempdir().expect("dir");
        fs::write(root.path().join("secret"), "x").expect("writes");
        let store = DirectoryStore::new(root.path(), "logs");
        for key in ["../secret", "a/../../secret", "/etc/passwd", "a/./b", "a\0b"] {
            assert!(store.get(key).await.is_err(), "{key:?}");
            let object = Object { key: key.into(), bytes: Vec::new(), metadata: BTreeMap::new() };
            assert!(store.put(object).await.is_err(), "{key:?}");
        }
    }
}
