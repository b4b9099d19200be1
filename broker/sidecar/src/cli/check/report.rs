//! The results of a check, as text or JSON.

use std::process::ExitCode;

use serde_json::{Value, json};

use crate::cli::exit::Exit;

/// What was found of one thing that `serve` needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Finding {
    /// It is as it has to be.
    Ok(String),
    /// Fine, with a remark.
    Note(String),
    /// It was not looked at, as was asked for.
    Skipped(String),
    /// Unknown.
    NotKnown(String),
    /// It is not.
    Failed(String),
}

impl Finding {
    fn word(&self) -> &'static str {
        match self {
            Self::Ok(_) => "ok",
            Self::Note(_) => "note",
            Self::Skipped(_) => "skipped",
            Self::NotKnown(_) => "not known",
            Self::Failed(_) => "FAILED",
        }
    }

    fn words(&self) -> &str {
        match self {
            Self::Ok(words)
            | Self::Note(words)
            | Self::Skipped(words)
            | Self::NotKnown(words)
            | Self::Failed(words) => words,
        }
    }
}

impl From<Result<String, String>> for Finding {
    fn from(result: Result<String, String>) -> Self {
        match result {
            Ok(words) => Self::Ok(words),
            Err(words) => Self::Failed(words),
        }
    }
}

/// All findings so far.
pub(super) struct Report {
    findings: Vec<(String, Finding)>,
    /// Where lines are printed as they come; none where JSON is at the end.
    as_json: bool,
}

impl Report {
    pub(super) fn new(as_json: bool) -> Self {
        Self { findings: Vec::new(), as_json }
    }

    /// Adds the finding about `what`.
    pub(super) fn add(&mut self, what: &str, finding: impl Into<Finding>) {
        let finding = finding.into();
        if !self.as_json {
            println!("{:<9}  {what:<13} {}", finding.word(), finding.words());
        }
        self.findings.push((what.to_owned(), finding));
    }

    /// The exit: a failure takes precedence over unknowns.
    pub(super) fn end(&self) -> Exit {
        let has = |is: fn(&Finding) -> bool| self.findings.iter().any(|(_, finding)| is(finding));
        if has(|finding| matches!(finding, Finding::Failed(_))) {
            Exit::No
        } else if has(|finding| matches!(finding, Finding::NotKnown(_))) {
            Exit::CannotTell
        } else {
            Exit::Done
        }
    }

    /// Prints the rest, and ends with `exit`.
    pub(super) fn print(&self, exit: Exit) -> ExitCode {
        if self.as_json {
            println!("{:#}", self.json(exit));
        }
        exit.into()
    }

    fn json(&self, exit: Exit) -> Value {
        let checks: Vec<_> = self
            .findings
            .iter()
            .map(|(what, finding)| {
                let result = match finding {
                    Finding::NotKnown(_) => "notKnown",
                    Finding::Failed(_) => "failed",
                    other => other.word(),
                };
                json!({ "what": what, "result": result, "words": finding.words() })
            })
            .collect();
        json!({ "exitCode": exit.code(), "checks": checks })
    }
}

#[cfg(test)]
mod tests {
    //! The worst that was found decides how a check ends.

    use super::*;

    #[test]
    fn the_worst_decides() {
        let ends = |findings: &[Finding]| {
            let mut report = Report::new(true);
            for finding in findings {
                report.add("it", finding.clone());
            }
            report.end()
        };
        let [ok, note, skipped, not_known, failed] =
            [Finding::Ok, Finding::Note, Finding::Skipped, Finding::NotKnown, Finding::Failed]
                .map(|finding| finding("words".into()));
        assert_eq!(ends(&[]), Exit::Done);
        assert_eq!(ends(&[ok.clone(), note, skipped]), Exit::Done);
        assert_eq!(ends(&[ok.clone(), not_known.clone()]), Exit::CannotTell);
        assert_eq!(ends(&[failed, not_known, ok]), Exit::No);
    }
}
