//! Text with `*` for any characters and `?` for any one, or text as it is.

/// A pattern for texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Pattern {
    Exactly(String),
    Like(Vec<char>),
}

impl Pattern {
    pub(super) fn like(text: &str) -> Pattern {
        Pattern::Like(text.chars().collect())
    }

    pub(super) fn matches(&self, text: &str) -> bool {
        match self {
            Pattern::Exactly(wanted) => wanted == text,
            Pattern::Like(pattern) => like(pattern, &text.chars().collect::<Vec<_>>()),
        }
    }
}

/// In time of the product of both lengths at most: only the last `*` is ever gone back to.
fn like(pattern: &[char], text: &[char]) -> bool {
    let (mut at, mut read) = (0, 0);
    let mut star: Option<(usize, usize)> = None;
    while read < text.len() {
        match pattern.get(at) {
            Some('*') => {
                star = Some((at, read));
                at += 1;
            }
            Some(wanted) if *wanted == '?' || *wanted == text[read] => {
                at += 1;
                read += 1;
            }
            _ => match star {
                Some((star_at, star_read)) => {
                    star = Some((star_at, star_read + 1));
                    at = star_at + 1;
                    read = star_read + 1;
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|rest| *rest == '*')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::Pattern;

    /// The same, told in two lines and without regard to time.
    fn told(pattern: &[char], text: &[char]) -> bool {
        match pattern.split_first() {
            None => text.is_empty(),
            Some(('*', rest)) => (0..=text.len()).any(|skipped| told(rest, &text[skipped..])),
            Some((first, rest)) => text
                .split_first()
                .is_some_and(|(read, after)| (*first == '?' || first == read) && told(rest, after)),
        }
    }

    proptest! {
        #[test]
        fn a_pattern_is_what_it_is_told_to_be(pattern in "[ab*?]{0,8}", text in "[ab]{0,8}") {
            let chars = |text: &str| text.chars().collect::<Vec<_>>();
            prop_assert_eq!(Pattern::like(&pattern).matches(&text), told(&chars(&pattern), &chars(&text)));
            prop_assert_eq!(Pattern::Exactly(pattern.clone()).matches(&text), pattern == text);
        }
    }
}
