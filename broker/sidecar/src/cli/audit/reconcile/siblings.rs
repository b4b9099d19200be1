//! Other trails in the bucket: brokers that share a role make calls that only their own trails have.
//!
//! A thief of the role's credentials can put a trail there, signed by the same key. So a trail excuses a call only if the auditor expects
//! it; an unexpected one is named, and there is no verdict.

use std::collections::{BTreeMap, HashMap};

use key_broker_trail::record::{ReadRecord, UserIdentity};
use key_broker_trail::{LogFiles, records};
use serde::Serialize;

use super::super::Failure;
use super::super::output::note;
use super::super::period::Period;
use super::super::source::Source;
use super::super::source::keys::SigningKey;

/// Calls to KMS that other trails have.
#[derive(Default)]
pub(super) struct Siblings {
    /// The trails, and whether they are expected.
    trails: Vec<(String, bool)>,
    /// By requestID and eventName, the place of the trail.
    calls: HashMap<(String, String), usize>,
    /// Trails that could not be read, or that no given key has signed.
    unverified: Vec<String>,
}

/// The results for calls that other trails have.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfSiblings {
    /// Calls that trails have which are expected.
    pub(super) expected: usize,
    /// Calls that other trails have, by trail.
    pub(super) unexpected: BTreeMap<String, usize>,
    /// Trails here of which nothing can be believed.
    pub(super) unverified: Vec<String>,
}

impl Siblings {
    /// Reads the other trails of the bucket. `add` is given whose calls are those of the expected ones.
    pub(super) async fn read(
        source: &Source,
        key: &SigningKey,
        period: &Period,
        expect: &[String],
        add: &mut dyn FnMut(&UserIdentity<'_>),
    ) -> Result<Self, Failure> {
        let mut siblings = Self::default();
        let readers = source.reader.siblings().await;
        let readers = readers.map_err(|error| Failure::Unavailable(format!("the trail's store: {error}")))?;
        for wanted in expect {
            if !readers.iter().any(|reader| is_like(&reader.names().trail, wanted)) {
                note(format_args!("--expect {wanted}: there is no such trail here"));
            }
        }
        if readers.is_empty() {
            return Ok(siblings);
        }
        let keys = source.public_keys(key).await?;
        for reader in readers {
            let name = reader.names().trail.clone();
            let is_expected = expect.iter().any(|wanted| is_like(&name, wanted));
            let named = LogFiles::named(&reader, &keys, (period.since, period.until)).await;
            let (vouched, left_out) = match named {
                Ok(LogFiles { vouched, unvouched, unread, .. }) => (vouched, unvouched.len() + unread.len()),
                Err(error) => {
                    note(format_args!("trail {name}: {error}: it is left out"));
                    (Vec::new(), 1)
                }
            };
            let place = siblings.trails.len();
            siblings.trails.push((name.clone(), is_expected));
            let mut unread = left_out;
            for file in vouched {
                match file.read(&reader).await {
                    Ok(json) => siblings.add_all(&json, place, is_expected, &mut *add),
                    Err(error) => {
                        note(format_args!("{}: {error}: it is left out", file.key()));
                        unread += 1;
                    }
                }
            }
            if unread > 0 {
                siblings.unverified.push(name);
            }
        }
        Ok(siblings)
    }

    fn add_all(
        &mut self,
        json: &[u8],
        place: usize,
        is_expected: bool,
        add: &mut dyn FnMut(&UserIdentity<'_>),
    ) {
        for record in records(json).flatten() {
            let Ok(record) = ReadRecord::parse(record) else { continue };
            if !record.is_of_kms() {
                continue;
            }
            if is_expected {
                add(&record.user_identity);
            }
            let call = (record.request_id.to_string(), record.event_name.to_string());
            self.calls.entry(call).or_insert(place);
        }
    }

    /// Counts a call that our trail has not, if another one has it.
    pub(super) fn take(&mut self, request_id: &str, event_name: &str, found: &mut OfSiblings) -> bool {
        let Some(place) = self.calls.remove(&(request_id.to_owned(), event_name.to_owned())) else {
            return false;
        };
        let (name, is_expected) = &self.trails[place];
        if *is_expected {
            found.expected += 1;
        } else {
            *found.unexpected.entry(name.clone()).or_default() += 1;
        }
        true
    }

    /// Made by hand: trails with the requestIDs of their data keys, and those of which nothing can be believed.
    #[cfg(test)]
    pub(super) fn made(trails: &[(&str, bool, &[&str])], unverified: &[&str]) -> Self {
        let mut made = Self::default();
        for (place, (name, is_expected, requests)) in trails.iter().enumerate() {
            made.trails.push(((*name).to_owned(), *is_expected));
            let calls = requests.iter().map(|request| ((*request).to_owned(), "GenerateDataKey".to_owned()));
            made.calls.extend(calls.map(|call| (call, place)));
        }
        made.unverified = unverified.iter().map(|name| (*name).to_owned()).collect();
        made
    }

    /// Trails here of which nothing can be believed.
    pub(super) fn unverified(&self) -> &[String] {
        &self.unverified
    }
}

/// Whether a trail has this name; `*` stands for any characters.
fn is_like(name: &str, pattern: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(mut rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    true
}

#[cfg(test)]
mod tests {
    //! Names of trails are matched as a shell matches names of files.

    use super::is_like;

    #[test]
    fn names_are_matched() {
        for (name, pattern, is_one) in [
            ("orders", "orders", true),
            ("orders", "order", false),
            ("orders", "*", true),
            ("orders-1a2b", "orders-*", true),
            ("orders-1a2b", "*-1a2b", true),
            ("orders-1a2b", "o*-*b", true),
            ("orders-1a2b", "o*x*b", false),
            ("ab", "ab*b", false),
        ] {
            assert_eq!(is_like(name, pattern), is_one, "{name} {pattern}");
        }
    }
}
