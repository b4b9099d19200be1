//! Describes a mistake in policies in one line: its place, the mistake, and Cedar's suggestion.

use std::fmt;

use cedar_policy::Policy as CedarPolicy;
use miette::Diagnostic;

/// A mistake in the text of policies.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Mistake {
    /// Line and column, from 1.
    place: Option<(usize, usize)>,
    words: String,
}

impl Mistake {
    /// A mistake in the text as a whole.
    pub(super) fn of_all(words: impl Into<String>) -> Self {
        Self { place: None, words: words.into() }
    }

    /// Cedar's error with its suggestion.
    pub(super) fn of_cedar(text: &str, error: &(impl fmt::Display + Diagnostic)) -> Self {
        let mut words = one_line(error);
        // The place already says which policy it is, and people know their policies by `@id`.
        if let Some((policy, rest)) =
            words.strip_prefix("for policy `").and_then(|rest| rest.split_once("`, "))
        {
            words = format!("{policy}: {rest}");
        }
        if let Some(help) = error.help() {
            words = format!("{words}: {}", one_line(&help));
        }
        let offset = error.labels().and_then(|mut labels| labels.next()).map(|label| label.offset());
        Self { place: offset.map(|offset| place_of(text, offset)), words }
    }

    /// A mistake in a policy: at `part`, if its text contains that, else at its beginning.
    pub(super) fn of_policy(text: &str, policy: &CedarPolicy, part: &str, words: String) -> Self {
        // A parsed policy prints as it was written.
        let written = policy.to_string();
        let place = text.find(written.trim()).map(|begin| {
            let within = written.trim().find(part).unwrap_or(0);
            place_of(text, begin + within)
        });
        Self { place, words }
    }

    /// The mistake with the file's name.
    pub(super) fn in_file(&self, file: &std::path::Path) -> String {
        let separator = if self.place.is_some() { ":" } else { ": " };
        format!("{}{separator}{self}", file.display())
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place {
            Some((line, column)) => write!(f, "{line}:{column}: {}", self.words),
            None => f.write_str(&self.words),
        }
    }
}

/// Line and column of a byte, both from 1; columns count characters.
fn place_of(text: &str, offset: usize) -> (usize, usize) {
    let before = &text[..text.floor_char_boundary(offset.min(text.len()))];
    let line_begins = before.rfind('\n').map_or(0, |end| end + 1);
    (before.matches('\n').count() + 1, before[line_begins..].chars().count() + 1)
}

/// Joins Cedar's message, which may have several lines, into one.
pub(super) fn one_line(words: &impl fmt::Display) -> String {
    words.to_string().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    //! Every byte of a text has a place, the one that an editor shows.

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn places_are_those_of_editors() {
        let text = "é\nab\n";
        for (offset, place) in [(0, (1, 1)), (1, (1, 1)), (2, (1, 2)), (3, (2, 1)), (5, (2, 3)), (9, (3, 1))]
        {
            assert_eq!(place_of(text, offset), place, "{offset}");
        }
    }

    proptest! {
        #[test]
        fn every_offset_has_a_place(text in "[a-zé\n]{0,40}", offset in 0..60_usize) {
            let (line, column) = place_of(&text, offset);
            prop_assert!(line >= 1 && column >= 1);
            prop_assert!(line <= text.matches('\n').count() + 1);
        }
    }
}
