//! Small disks. Mounting takes root.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

/// A tmpfs, gone when the test ends.
pub struct TinyDisk(TempDir);

impl TinyDisk {
    /// One of so many KiB.
    pub fn mount(kib: u32) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let size = format!("size={kib}k");
        let mounted =
            Command::new("mount").args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(dir.path()).status();
        assert!(mounted.is_ok_and(|status| status.success()), "mount -t tmpfs fails: it takes CAP_SYS_ADMIN");
        Self(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for TinyDisk {
    fn drop(&mut self) {
        // Lazily: the broker's files may still be open.
        let unmounted = Command::new("umount").arg("-l").arg(self.0.path()).status();
        assert!(
            unmounted.is_ok_and(|status| status.success()) || std::thread::panicking(),
            "the tmpfs stays behind"
        );
    }
}
