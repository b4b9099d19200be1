//! Exit codes, the same for all commands (docs/configuration.md, "Exit codes").

use std::fmt::Display;
use std::process::ExitCode;

/// The exit of a command. 0, 64 and 75 are from sysexits(3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Exit {
    /// It is done; the answer to a question is yes.
    Done,
    /// It could not be done; the answer to a question is no.
    No,
    /// Nothing wrong was found, but part of it could not be checked.
    CannotTell,
    /// Arguments, configuration or surroundings are wrong: somebody has to change them, and trying again changes nothing.
    Mistake,
    /// Stopped as requested, and something is left that the next start delivers, or that is lost.
    LeftBehind,
    /// Ended by a second SIGINT; the code is the shell's.
    CutOff,
}

impl Exit {
    /// The exit code of the process.
    pub(super) const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::No => 1,
            Self::CannotTell => 2,
            Self::Mistake => 64,
            Self::LeftBehind => 75,
            Self::CutOff => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        exit.code().into()
    }
}

/// Says why it could not be done.
pub(super) fn fail(error: impl Display) -> ExitCode {
    eprintln!("key-broker: {error}");
    Exit::No.into()
}

/// Reports a mistake in arguments, configuration or environment.
pub(super) fn mistake(error: impl Display) -> ExitCode {
    eprintln!("key-broker: {error}");
    Exit::Mistake.into()
}

#[cfg(test)]
mod tests {
    //! The table that operators read is the one that commands end by.

    use super::*;

    #[test]
    fn the_documented_table_has_every_code() {
        let text = include_str!("../../../../docs/configuration.md");
        let (_, table) = text.split_once("## Exit codes").expect("the table");
        let (table, _) = table.split_once("\n## ").expect("another heading");
        let documented: Vec<u8> = table
            .lines()
            .filter_map(|line| line.strip_prefix("| ")?.split_once(' ')?.0.parse().ok())
            .collect();
        let all = [Exit::Done, Exit::No, Exit::CannotTell, Exit::Mistake, Exit::LeftBehind, Exit::CutOff];
        assert_eq!(documented, all.map(Exit::code));
    }
}
