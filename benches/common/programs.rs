//! The programs that are measured, built as they are released.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rsa::{KeyPair, KeySize};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use tempfile::TempDir;

use super::Failure;

/// Copies of the built programs: a build that runs meanwhile does not change what is measured.
pub(crate) struct Programs {
    dir: TempDir,
}

impl Programs {
    /// Builds the broker and the emulator into the target directory of the running bench.
    pub(crate) fn build() -> Result<Self, Failure> {
        Self::build_of(&[BROKER, EMULATOR], &target()?, &[])
    }

    /// The same with symbols and frame pointers, in a target directory of their own, for profiles.
    pub(crate) fn build_for_profiles() -> Result<Self, Failure> {
        Self::build_of(&[BROKER, EMULATOR], &target()?.join("profiles"), &SYMBOLS)
    }

    /// The same, and the broker without records.
    pub(crate) fn build_all() -> Result<Self, Failure> {
        Self::build_of(&[BROKER, BROKER_UNRECORDED, EMULATOR], &target()?, &[])
    }

    fn build_of(programs: &[Program], target: &Path, environment: &[(&str, &str)]) -> Result<Self, Failure> {
        // On the disk of the target directory: /tmp may be memory, where fsync costs nothing.
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR"))?;
        for &(program, arguments, built) in programs {
            eprintln!("building {program}");
            let status = Command::new(env!("CARGO"))
                .args(["build", "--quiet", "--release", "--target-dir"])
                .arg(target)
                .args(arguments)
                .envs(environment.iter().copied())
                .current_dir(env!("CARGO_MANIFEST_DIR"))
                .status()?;
            if !status.success() {
                return Err(format!("{program} does not build").into());
            }
            fs::copy(target.join("release").join(built), dir.path().join(program))?;
        }
        Ok(Self { dir })
    }

    /// Copies one more program here, to be called by `name`.
    pub(crate) fn add(&self, name: &str, program: &Path) -> Result<(), Failure> {
        let copied = fs::copy(program, self.path(name));
        copied.map_err(|error| format!("{} cannot be copied: {error}", program.display()))?;
        Ok(())
    }

    /// A directory on a real disk, for journals too.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The path of a key that digests are signed with: RSA, 2,048 bits, made at the first call.
    pub(crate) fn signing_key(&self) -> Result<String, Failure> {
        let path = self.path("signing.pem");
        if !path.exists() {
            let pair = KeyPair::generate(KeySize::Rsa2048)?;
            let der = AsDer::<Pkcs8V1Der<'_>>::as_der(&pair)?;
            let body = BASE64.encode(der.as_ref());
            let lines: Vec<&str> =
                body.as_bytes().chunks(64).map(std::str::from_utf8).collect::<Result<_, _>>()?;
            let (begin, end) = ("-----BEGIN PRIVATE KEY-----", "-----END PRIVATE KEY-----");
            fs::write(&path, format!("{begin}\n{}\n{end}\n", lines.join("\n")))?;
        }
        Ok(path.to_str().ok_or("a path of text")?.to_owned())
    }

    pub(crate) fn broker_bytes(&self) -> Result<u64, Failure> {
        Ok(fs::metadata(self.path("key-broker"))?.len())
    }
}

/// The target directory of the running bench.
fn target() -> Result<PathBuf, Failure> {
    let bench = std::env::current_exe()?;
    Ok(bench.ancestors().nth(3).ok_or("a bench is at target/<profile>/deps/<bench>")?.to_owned())
}

/// What `perf` needs to name functions and their callers.
const SYMBOLS: [(&str, &str); 3] = [
    ("CARGO_PROFILE_RELEASE_STRIP", "none"),
    ("CARGO_PROFILE_RELEASE_DEBUG", "line-tables-only"),
    ("RUSTFLAGS", "-C force-frame-pointers=yes"),
];

/// The name of the copy, what cargo is told, and where the program is then, below `release`.
type Program = (&'static str, &'static [&'static str], &'static str);
const BROKER: Program = ("key-broker", &["-p", "key-broker"], "key-broker");
const BROKER_UNRECORDED: Program = (
    UNRECORDED,
    &["-p", "key-broker", "--example", "unrecorded", "--features", "bench-unrecorded"],
    "examples/unrecorded",
);
const EMULATOR: Program = ("kms-emulator", &["-p", "kms-emulator"], "kms-emulator");
/// The broker without records.
pub(crate) const UNRECORDED: &str = "key-broker-unrecorded";
/// Another build of the broker, to be measured beside this one.
pub(crate) const BESIDE: &str = "key-broker-beside";
