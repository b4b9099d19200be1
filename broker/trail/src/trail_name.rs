//! A trail's name: the configured name, and an id of its journal. So no two journals deliver to the same trail, however many brokers share
//! a configuration, and after a lost journal there is another trail.

use uuid::Uuid;

/// The name of a new journal's trail, unique by 60 random bits.
#[must_use]
pub(crate) fn of_new_journal(configured: &str) -> String {
    let (_, bits) = Uuid::new_v4().as_u64_pair();
    // The upper two bits are the same in every UUID.
    let letters = (0..ID_CHARACTERS).map(|place| {
        let letter = usize::try_from((bits >> (5 * place)) & 31).expect("less than 32");
        char::from(ALPHABET[letter])
    });
    format!("{configured}-{}", letters.collect::<String>())
}

/// A name that no journal has, for questions about a trail that does not exist yet.
#[must_use]
pub(crate) fn of_no_journal(configured: &str) -> String {
    format!("{configured}-{}", "0".repeat(ID_CHARACTERS))
}

/// Whether a journal has made this name from the configured one.
#[must_use]
pub(crate) fn is_of(name: &str, configured: &str) -> bool {
    let id = name.strip_prefix(configured).and_then(|rest| rest.strip_prefix('-'));
    id.is_some_and(|id| id.len() == ID_CHARACTERS && id.bytes().all(|byte| ALPHABET.contains(&byte)))
}

/// Whether `called` matches this name: the name itself, the configured one, or a pattern in which `*` matches anything.
#[must_use]
pub(crate) fn is_called(name: &str, called: &str) -> bool {
    name == called || is_of(name, called) || (called.contains('*') && matches(name, called))
}

fn matches(name: &str, pattern: &str) -> bool {
    let Some((before, after)) = pattern.split_once('*') else { return name == pattern };
    let Some(rest) = name.strip_prefix(before) else { return false };
    (0..=rest.len()).filter(|at| rest.is_char_boundary(*at)).any(|at| matches(&rest[at..], after))
}

/// The configured name from which a journal made this one.
#[must_use]
pub(crate) fn configured(name: &str) -> &str {
    match name.rsplit_once('-') {
        Some((configured, _)) if is_of(name, configured) => configured,
        _ => name,
    }
}

const ID_CHARACTERS: usize = 12;
/// Without i, l, o and u, which are misread.
const ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

#[cfg(test)]
mod tests {
    //! Every journal has a name of its own, from which the configured name can be told.

    use std::collections::HashSet;

    use super::*;

    #[test]
    fn names_differ_and_say_what_is_configured() {
        let names: HashSet<String> = (0..1_000).map(|_| of_new_journal("orders")).collect();
        assert_eq!(names.len(), 1_000);
        assert!(names.iter().all(|name| is_of(name, "orders") && !is_of(name, "order")), "{names:?}");
        assert!(is_of(&of_no_journal("orders"), "orders"));
        assert_eq!(configured(&of_no_journal("orders-eu")), "orders-eu");
        assert_eq!(configured("orders-eu"), "orders-eu");
        for other in
            ["orders", "orders-", "orders-0123456789a", "orders-0123456789abc", "orders-0123456789aL"]
        {
            assert!(!is_of(other, "orders"), "{other}");
        }
        assert!(!is_of(&of_new_journal("orders-eu"), "orders"), "another configuration's");
        for (called, is_it) in
            [("*", true), ("orders-*", true), ("o*-*4", true), ("*s", false), ("orders", false)]
        {
            assert_eq!(is_called("orders-eu-1234", called), is_it, "{called}");
        }
        assert!(is_called(&of_no_journal("orders"), "orders") && is_called("orders", "orders"));
    }
}
