//! Opens only regular files, for folders in which another user may write, perhaps while this runs as root.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Opens a file for reading. Links are not followed, pipes are not waited for, and anything else that is no regular file is an error.
pub fn open_regular(path: &Path) -> io::Result<File> {
    let flags = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new().read(true).custom_flags(flags.bits().cast_signed()).open(path);
    let file = opened.map_err(|error| match error.raw_os_error() {
        Some(code) if code == rustix::io::Errno::LOOP.raw_os_error() => no_file("a symbolic link"),
        // A socket.
        Some(code) if code == rustix::io::Errno::NXIO.raw_os_error() => no_file("a socket or a device"),
        _ => error,
    })?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(no_file("a folder, a pipe or a device")) }
}

/// All of a regular file, if it has at most `limit` bytes.
pub(crate) fn read_regular(path: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    open_regular(path)?.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, format!("more than {limit} bytes")));
    }
    Ok(bytes)
}

fn no_file(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, format!("{what}, where only a file may be"))
}

#[cfg(test)]
mod tests {
    //! Regular files are read up to a limit; anything else is refused at once.

    use std::fs;
    use std::os::unix::fs::symlink;
    use std::os::unix::net::UnixListener;

    use rustix::fs::{CWD, FileType, Mode, mknodat};

    use super::*;

    #[test]
    fn only_files_are_opened() {
        let dir = tempfile::tempdir().expect("a directory");
        let at = |name: &str| dir.path().join(name);
        fs::write(at("file"), "12345").expect("writes");
        assert_eq!(read_regular(&at("file"), 5).expect("reads"), b"12345");
        let long = read_regular(&at("file"), 4).expect_err("too long");
        assert_eq!(long.kind(), io::ErrorKind::FileTooLarge);
        assert_eq!(open_regular(&at("none")).expect_err("nothing").kind(), io::ErrorKind::NotFound);

        symlink(at("file"), at("link")).expect("links");
        mknodat(CWD, at("pipe"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("makes a pipe");
        let _socket = UnixListener::bind(at("socket")).expect("binds");
        for other in [at("link"), at("pipe"), at("socket"), dir.path().to_owned(), "/dev/null".into()] {
            let error = open_regular(&other).expect_err("no file");
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput, "{}: {error}", other.display());
        }
    }
}
