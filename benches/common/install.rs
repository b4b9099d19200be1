//! The programs of others, installed by `tests/peers/install` as for tests, and a command for each.

use std::env;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use super::root;

/// Installs what is not there yet. What is said where that cannot be done is for the report.
pub(crate) fn install(what: &str) -> Result<PathBuf, String> {
    if env::var_os("KEY_BROKER_SKIP_PEERS").is_some_and(|skip| skip == "1") {
        return Err("KEY_BROKER_SKIP_PEERS is 1".into());
    }
    eprintln!("installing {what}, if it is not there");
    let root = root().map_err(|error| error.to_string())?;
    let dir = env::var_os("PEERS_DIR").map_or_else(|| root.join("target/peers"), PathBuf::from);
    let ran = Command::new(root.join("tests/peers/install"))
        .arg(what)
        .env("PEERS_DIR", &dir)
        .stdin(Stdio::null())
        .output()
        .map_err(|error| error.to_string())?;
    if !ran.status.success() {
        let told = String::from_utf8_lossy(&ran.stderr).trim().to_owned();
        eprintln!("{told}");
        return Err(told.lines().last().unwrap_or("it does not say why").to_owned());
    }
    Ok(dir.join(what))
}

/// A command that has nothing of whoever runs this but where programs are.
pub(crate) fn command(program: impl Into<PathBuf>) -> Command {
    let mut command = Command::new(program.into());
    command.env_clear().stdin(Stdio::null());
    for name in ["PATH", "HOME"] {
        if let Some(value) = env::var_os(name) {
            command.env(name, value);
        }
    }
    command
}
