//! Why a broker cannot start, and whether somebody has to change something before it can.

use std::fmt;
use std::io::{self, ErrorKind};
use std::path::PathBuf;

use key_broker_trail::delivery::SetupError;

use crate::transport::opening::{ListenError, needs_somebody};

/// Why a broker cannot start.
#[derive(Debug)]
pub enum StartError {
    /// The policies cannot apply to the AWS account of the broker.
    Policy(String),
    /// The journal cannot be opened.
    Journal {
        /// Its directory.
        dir: PathBuf,
        /// The error.
        error: io::Error,
    },
    /// Records cannot be copied to stdout.
    Stdout(io::Error),
    /// The trail cannot be as it is configured.
    Trail(SetupError),
    /// The sessions of the broker's credentials have another name than configured.
    SessionName(String),
    /// The broker was stopped before it was serving.
    Stopped,
    /// The broker had to stop: its credentials are of another account than its trail.
    OtherAccount(String),
    /// A socket cannot be opened.
    Listen(ListenError),
}

impl StartError {
    /// Whether somebody has to change configuration or surroundings: the next start would end the same way.
    #[must_use]
    pub(crate) fn is_a_mistake(&self) -> bool {
        match self {
            Self::Policy(_) | Self::SessionName(_) | Self::Trail(SetupError::Refused(_)) => true,
            Self::Journal { error, .. } => needs_somebody(error.kind()),
            Self::Listen(error) => error.is_a_mistake(),
            Self::Stdout(_) | Self::Trail(SetupError::NotNow(_)) | Self::OtherAccount(_) | Self::Stopped => {
                false
            }
        }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Policy(mistake) => write!(f, "policy.file: {mistake}"),
            Self::Journal { dir, error } => {
                let dir = dir.display();
                match error.kind() {
                    // Its words name the directory.
                    ErrorKind::AddrInUse => write!(f, "audit.journal_dir: {error}"),
                    ErrorKind::AlreadyExists | ErrorKind::NotADirectory => {
                        write!(
                            f,
                            "audit.journal_dir: {dir}, or a part of it, is not a folder: choose another"
                        )
                    }
                    ErrorKind::PermissionDenied | ErrorKind::ReadOnlyFilesystem | ErrorKind::NotFound => {
                        let user = rustix::process::geteuid().as_raw();
                        write!(
                            f,
                            "audit.journal_dir: {dir}: {error}: uid {user} cannot create or write it: allow it, or choose another folder"
                        )
                    }
                    // Of a later format version.
                    ErrorKind::Unsupported => write!(f, "audit.journal_dir: {dir}: {error}"),
                    _ => write!(f, "audit.journal_dir: {dir}: {error}: check its disk"),
                }
            }
            Self::Stdout(error) => write!(f, "audit.stdout: {error}"),
            Self::Listen(error) => write!(f, "{error}"),
            Self::Trail(error) => write!(f, "{error}"),
            Self::SessionName(mistake) => f.write_str(mistake),
            Self::OtherAccount(words) => write!(f, "stopped: {words}"),
            Self::Stopped => f.write_str("stopped before it was serving"),
        }
    }
}

impl std::error::Error for StartError {}
