//! The unix socket: its path appears with mode and group already set, and never replaces that of a live broker.

use std::fs;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags};
use tokio::net::UnixListener;

/// A listening unix socket, whose path is removed when this is dropped.
pub(crate) struct UnixSocket {
    /// Accepts connections.
    pub listener: UnixListener,
    path: PathBuf,
    inode: u64,
}

/// Where to listen, and who may connect.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnixAddress {
    /// The path; at most 107 bytes (unix(7)).
    pub path: PathBuf,
    /// The socket's permission bits. Connecting needs write permission.
    pub mode: u32,
    /// The group that owns the socket.
    pub gid: Option<u32>,
}

impl UnixAddress {
    /// Refuses what is no path although it stands where people write socket addresses: abstract sockets, and addresses as gRPC writes
    /// them. Taken as a path, it would be a file of that name, which no client finds. The error says what to write.
    pub(crate) fn refuse_what_is_no_path(path: &Path) -> Result<(), String> {
        let text = path.to_string_lossy();
        if text.is_empty() {
            return Err("it is empty: write the path of a file, such as /run/key-broker/broker.sock".into());
        }
        if text.starts_with(['@', '\0']) || text.starts_with("unix-abstract:") {
            return Err(format!(
                "{text:?} is an abstract socket, which has no owner, group or mode: whoever shares the network namespace could connect; \
                 write the path of a file, such as /run/key-broker/broker.sock"
            ));
        }
        if text.contains('\0') {
            return Err(format!("{text:?} has a zero byte: write the path of a file"));
        }
        match scheme(&text) {
            Some(scheme) => Err(format!(
                "{text:?} is an address, not a path: write the path alone, without {scheme}: (or ./{text} for a file of that name)"
            )),
            None => Ok(()),
        }
    }
}

/// The scheme if `text` begins with one and a colon (RFC 3986, 3.1).
fn scheme(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once(':')?;
    let is_one = scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    is_one.then_some(scheme)
}

impl UnixSocket {
    /// Binds the socket. It may replace that of a dead process, but not that of a live one.
    pub(crate) fn bind(address: &UnixAddress) -> io::Result<Self> {
        let path = &address.path;
        check_folder(path)?;
        if is_left_behind(path)? {
            tracing::info!(path = %path.display(), "replacing the socket of a dead process");
        }
        let (listener, hidden) = bind_hidden(address)?;
        let finished = fs::rename(&hidden, path).and_then(|()| fs::symlink_metadata(path));
        match finished {
            Ok(metadata) => Ok(Self { listener, path: path.clone(), inode: metadata.ino() }),
            Err(error) => {
                remove_if_there(&hidden)?;
                Err(explain(&error, path))
            }
        }
    }

    /// Whether the socket could be bound. Nothing appears at its path, and nothing is left behind.
    pub(crate) fn try_at(address: &UnixAddress) -> io::Result<()> {
        check_folder(&address.path)?;
        is_left_behind(&address.path)?;
        let (_listener, hidden) = bind_hidden(address)?;
        remove_if_there(&hidden)
    }
}

/// Binds a socket beside its path and sets mode and group, so that nobody can connect before the atomic rename.
fn bind_hidden(address: &UnixAddress) -> io::Result<(UnixListener, PathBuf)> {
    let path = &address.path;
    let mut hidden = path.clone().into_os_string();
    hidden.push(format!(".{}", std::process::id()));
    let hidden = PathBuf::from(hidden);
    remove_if_there(&hidden)?;
    let listener = UnixListener::bind(&hidden).map_err(|error| explain_bind(&error, path))?;
    match set_access(&hidden, address) {
        Ok(()) => Ok((listener, hidden)),
        Err(error) => {
            remove_if_there(&hidden)?;
            Err(explain_access(&error, address))
        }
    }
}

impl Drop for UnixSocket {
    fn drop(&mut self) {
        // Another broker may have taken over the path meanwhile.
        if fs::symlink_metadata(&self.path).is_ok_and(|metadata| metadata.ino() == self.inode)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(%error, path = %self.path.display(), "cannot remove the unix socket");
        }
    }
}

/// Sets mode and group of a socket, but not of anything that somebody with access to the folder puts in its place.
fn set_access(socket: &Path, address: &UnixAddress) -> io::Result<()> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let held = rustix::fs::open(socket, flags, Mode::empty())?;
    if FileType::from_raw_mode(rustix::fs::fstat(&held)?.st_mode) != FileType::Socket {
        return Err(io::Error::other("something else was put in the socket's place"));
    }
    // The open file, whatever its path refers to by now.
    let held = format!("/proc/self/fd/{}", held.as_raw_fd());
    fs::set_permissions(&held, fs::Permissions::from_mode(address.mode))?;
    chown(&held, None, address.gid)
}

/// Whether the path has the socket of a dead process; an error if it has anything else.
fn is_left_behind(path: &Path) -> io::Result<bool> {
    let refuse = |kind, reason: &str| Err(io::Error::new(kind, format!("{}: {reason}", path.display())));
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(explain(&error, path)),
        Ok(metadata) if !metadata.file_type().is_socket() => refuse(
            io::ErrorKind::AlreadyExists,
            "exists and is not a socket: remove it or choose another path",
        ),
        Ok(_) => match UnixStream::connect(path) {
            Ok(_) => refuse(
                io::ErrorKind::AddrInUse,
                "another process listens there: stop it or choose another path",
            ),
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(true),
            Err(error) => Err(explain(&error, path)),
        },
    }
}

/// Checks that the socket's folder exists. A broker creates none, since it cannot know who should own it.
fn check_folder(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let refuse = |kind, reason: &str| Err(io::Error::new(kind, format!("{} {reason}", folder.display())));
    match fs::metadata(folder) {
        Ok(found) if found.is_dir() => Ok(()),
        Ok(_) => refuse(io::ErrorKind::NotADirectory, "is not a folder: choose another path"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            refuse(io::ErrorKind::NotFound, "does not exist: make it, or choose another path")
        }
        Err(error) => Err(explain(&error, folder)),
    }
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(explain(&error, path)),
        _ => Ok(()),
    }
}

fn explain_bind(error: &io::Error, path: &Path) -> io::Error {
    match error.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            let user = rustix::process::geteuid().as_raw();
            let why = format!(
                "{}: {error}: uid {user} may make no socket in its folder: let it, or choose another path",
                path.display()
            );
            io::Error::new(error.kind(), why)
        }
        _ => explain(error, path),
    }
}

fn explain_access(error: &io::Error, address: &UnixAddress) -> io::Error {
    let path = address.path.display();
    match (error.kind(), address.gid) {
        (io::ErrorKind::PermissionDenied, Some(gid)) => {
            let user = rustix::process::geteuid().as_raw();
            let why = format!(
                "{path}: uid {user} is not in group {gid}, and cannot give the socket to it: add it to the group, or choose another \
                 group"
            );
            io::Error::new(error.kind(), why)
        }
        _ => explain(error, &address.path),
    }
}

fn explain(error: &io::Error, path: &Path) -> io::Error {
    io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    //! The path belongs to one live broker, has the right mode from its first moment, and is removed with it.

    use super::*;

    #[test]
    fn abstract_sockets_and_addresses_are_no_paths() {
        for (text, why) in [
            ("@name", "abstract"),
            ("@", "abstract"),
            ("\0name", "abstract"),
            ("unix-abstract:name", "abstract"),
            ("unix:/run/broker.sock", "without unix:"),
            ("unix:///run/broker.sock", "without unix:"),
            ("unix:broker.sock", "without unix:"),
            ("unix:@name", "without unix:"),
            ("vsock:3:7890", "without vsock:"),
            ("file:///run/broker.sock", "without file:"),
            ("http+unix://broker.sock", "without http+unix:"),
            ("run\0broker.sock", "zero byte"),
            ("", "empty"),
        ] {
            let error = UnixAddress::refuse_what_is_no_path(Path::new(text)).expect_err(text);
            assert!(error.contains(why), "{text:?}: {error}");
        }
        for text in
            ["broker.sock", "/run/a:b", "./unix:name", "./@name", "run@host/broker.sock", "/run/@/b.sock"]
        {
            UnixAddress::refuse_what_is_no_path(Path::new(text)).expect(text);
        }
    }

    fn address(dir: &Path) -> UnixAddress {
        UnixAddress { path: dir.join("broker.sock"), mode: 0o620, gid: None }
    }

    #[tokio::test]
    async fn mode_is_set_and_the_path_goes_with_the_socket() {
        let dir = tempfile::tempdir().expect("dir");
        let address = address(dir.path());
        let socket = UnixSocket::bind(&address).expect("binds");
        assert_eq!(fs::metadata(&address.path).expect("there").permissions().mode() & 0o777, 0o620);
        assert_eq!(fs::read_dir(dir.path()).expect("dir").count(), 1, "no other name is left");
        drop(socket);
        assert!(!address.path.exists());
    }

    #[tokio::test]
    async fn a_live_socket_is_refused_and_a_dead_one_replaced() {
        let dir = tempfile::tempdir().expect("dir");
        let address = address(dir.path());
        let _first = UnixSocket::bind(&address).expect("binds");
        let error = UnixSocket::bind(&address).err().expect("refused");
        assert!(error.to_string().contains("another process listens"), "{error}");
        // A process that dies leaves its path behind.
        let dead = dir.path().join("dead.sock");
        drop(std::os::unix::net::UnixListener::bind(&dead).expect("binds"));
        let replaced = UnixSocket::bind(&UnixAddress { path: dead.clone(), ..address }).expect("replaces");
        UnixStream::connect(&dead).expect("connects");
        drop(replaced);
    }

    #[tokio::test]
    async fn anything_but_a_socket_is_left_alone() {
        let dir = tempfile::tempdir().expect("dir");
        let address = address(dir.path());
        fs::write(&address.path, "precious").expect("writes");
        assert!(UnixSocket::bind(&address).is_err());
        assert_eq!(fs::read_to_string(&address.path).expect("there"), "precious");
    }

    #[test]
    fn what_is_put_in_its_place_keeps_its_mode() {
        let dir = tempfile::tempdir().expect("a directory");
        let (target, link) = (dir.path().join("target"), dir.path().join("link"));
        fs::write(&target, "precious").expect("writes");
        fs::set_permissions(&target, fs::Permissions::from_mode(0o600)).expect("changes");
        std::os::unix::fs::symlink(&target, &link).expect("links");
        for path in [&link, &target] {
            assert!(set_access(path, &UnixAddress { mode: 0o666, ..address(dir.path()) }).is_err());
            assert_eq!(fs::metadata(&target).expect("there").permissions().mode() & 0o777, 0o600);
        }
    }
}
