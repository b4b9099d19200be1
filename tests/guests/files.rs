//! The files of a guest, as the kernel takes them: an archive of cpio's "newc" form
//! (<https://docs.kernel.org/driver-api/early-userspace/buffer-format.html>).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::peers::printed;

/// What a guest finds when it starts: files by their absolute paths.
#[derive(Default)]
pub struct Files(BTreeMap<PathBuf, (u32, Vec<u8>)>);

impl Files {
    /// A file to read.
    #[must_use]
    pub fn file(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), (0o644, bytes.into()));
        self
    }

    /// A file to run that needs no other: a script, or a static program.
    #[must_use]
    pub fn executable(mut self, path: impl Into<PathBuf>, bytes: impl Into<Vec<u8>>) -> Self {
        self.0.insert(path.into(), (0o755, bytes.into()));
        self
    }

    /// A program of this machine in `/bin`, without its symbols (they are most of it), and the libraries that it is linked
    /// with, where they are here.
    #[must_use]
    pub fn program(mut self, program: &Path) -> Self {
        for library in libraries(program) {
            let bytes = read(&library);
            self = self.executable(library, bytes);
        }
        let dir = tempfile::tempdir().expect("a directory");
        let stripped = dir.path().join("stripped");
        printed(Command::new("strip").arg("-o").arg(&stripped).arg(program));
        let name = program.file_name().expect("a program has a name");
        self.executable(Path::new("/bin").join(name), read(&stripped))
    }

    /// With what every guest has, out of the directory that it was installed in.
    pub(super) fn of_system(mut self, installed: &Path) -> Self {
        let modules = fs::read_dir(installed.join("modules")).expect("it was installed");
        for module in modules.map(|module| module.expect("an entry")) {
            self = self.file(Path::new("/modules").join(module.file_name()), read(module.path()));
        }
        self.executable("/bin/busybox", read(installed.join("busybox")))
            .executable("/init", include_bytes!("init").as_slice())
    }

    /// The archive.
    pub(super) fn archive(&self) -> Vec<u8> {
        let mut archive = Vec::new();
        let directories: BTreeSet<&Path> =
            self.0.keys().flat_map(|path| path.ancestors().skip(1)).chain(MOUNTS.map(Path::new)).collect();
        for directory in directories {
            append(&mut archive, directory, 0o040_755, &[]);
        }
        for (path, (mode, bytes)) in &self.0 {
            append(&mut archive, path, 0o100_000 | mode, bytes);
        }
        append(&mut archive, Path::new("TRAILER!!!"), 0, &[]);
        archive
    }
}

/// Appends an entry. The kernel takes paths relative to its root.
fn append(archive: &mut Vec<u8>, path: &Path, mode: u32, bytes: &[u8]) {
    let path = path.strip_prefix("/").unwrap_or(path);
    let path = if path == Path::new("") { Path::new(".") } else { path };
    let name = path.as_os_str().as_encoded_bytes();
    // Inode, mode, uid, gid, links, time, size, device (2), device of a special file (2), size of the name and its NUL,
    // checksum.
    let size = u32::try_from(bytes.len()).expect("files of guests are small");
    let name_size = u32::try_from(name.len() + 1).expect("and so are their names");
    archive.extend_from_slice(b"070701");
    for field in [0, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0] {
        archive.extend_from_slice(format!("{field:08x}").as_bytes());
    }
    archive.extend_from_slice(name);
    archive.push(0);
    align(archive);
    archive.extend_from_slice(bytes);
    align(archive);
}

fn align(archive: &mut Vec<u8>) {
    archive.resize(archive.len().next_multiple_of(4), 0);
}

/// The shared libraries of a program and what loads them, as the system says.
fn libraries(program: &Path) -> Vec<PathBuf> {
    let text = printed(Command::new("ldd").arg(program));
    let words = text.split_whitespace().filter(|word| word.starts_with('/'));
    words.map(PathBuf::from).collect()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Where a guest mounts what its kernel offers.
const MOUNTS: [&str; 4] = ["/proc", "/sys", "/dev", "/tmp"];
