//! Shell completion, man pages, and the commit and features of this build.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::CommandFactory as _;
use clap_complete::Shell;

use super::Cli;
use super::exit::{Exit, fail};

#[derive(Debug, clap::Args)]
pub(super) struct CompletionArguments {
    /// The shell
    #[arg(value_enum)]
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub(super) struct ManArguments {
    /// The folder that the pages are written to, one for each command; made if it is missing
    #[arg(value_name = "DIR")]
    dir: PathBuf,
}

/// Prints the script that completes commands.
pub(super) fn completion(arguments: &CompletionArguments) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Cli::command(), "key-broker", &mut script);
    // A reader that has closed the pipe wants no more.
    let _ = io::Write::write_all(&mut io::stdout(), &script);
    Exit::Done.into()
}

/// Writes the man pages.
pub(super) fn man(arguments: &ManArguments) -> ExitCode {
    match write_pages(&arguments.dir) {
        Ok(()) => Exit::Done.into(),
        Err(error) => fail(format!("{}: {error}", arguments.dir.display())),
    }
}

fn write_pages(dir: &Path) -> io::Result<()> {
    fs::create_dir_all(dir)?;
    clap_mangen::generate_to(Cli::command(), dir)
}

/// The version, the commit it was built from, and additional features of this build.
pub(super) const LONG_VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("KEY_BROKER_COMMIT"),
    "\nfeatures: ",
    env!("KEY_BROKER_FEATURES"),
    "\ntarget: ",
    env!("KEY_BROKER_TARGET"),
);
