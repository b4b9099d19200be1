//! KMS keys, by every name that KMS accepts.

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use crate::invalid::InvalidValue;

/// A KMS key as the caller wrote it: key id, key ARN, alias name or alias ARN.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct KeyId(Arc<str>);

impl KeyId {
    /// Checks the form that KMS documents for `KeyId`
    /// (<https://docs.aws.amazon.com/kms/latest/APIReference/API_GenerateDataKey.html>).
    pub fn parse(text: &str) -> Result<Self, InvalidValue> {
        if text.is_empty() {
            return Err(InvalidValue(
                "key_id is empty: give a key id, key ARN, alias name (alias/…) or alias ARN".into(),
            ));
        }
        if text.len() > MAX_KEY_ID_BYTES {
            return Err(InvalidValue(format!(
                "key_id has {} bytes; KMS takes at most {MAX_KEY_ID_BYTES}",
                text.len()
            )));
        }
        let valid = match text.split_once(':') {
            Some(("arn", rest)) => is_kms_arn(rest),
            Some(_) => false,
            None => is_resource(text.strip_prefix("alias/").map_or(("key", text), |name| ("alias", name))),
        };
        if valid {
            Ok(Self(text.into()))
        } else {
            Err(InvalidValue(
                "key_id is not one of: key id, key ARN (arn:aws:kms:REGION:ACCOUNT:key/ID), alias name (alias/NAME), alias \
                 ARN"
                    .into(),
            ))
        }
    }

    /// The key as the caller wrote it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether this names the key of `arn` whatever the aliases mean now: by its id or its ARN; a multi-Region key by the ARN of any
    /// of its replicas.
    #[must_use]
    pub fn names(&self, arn: &KeyArn) -> bool {
        if self.is_alias() {
            return false;
        }
        if self.0.starts_with("arn:") {
            *self == arn.0 || KeyArn::parse(&self.0).is_some_and(|named| named.is_same_key(arn))
        } else {
            arn.as_str().rsplit('/').next() == Some(&*self.0)
        }
    }

    /// Whether this is an alias, by name or by ARN.
    #[must_use]
    pub fn is_alias(&self) -> bool {
        self.0.starts_with("alias/") || self.0.contains(":alias/")
    }

    /// An alias without account and region, where it is one of these, or says neither.
    #[must_use]
    pub fn short_alias(&self, region: &str, account_id: &str) -> Option<Self> {
        if self.0.starts_with("alias/") {
            return Some(self.clone());
        }
        let [_, _, _, of, account, name] = self.0.splitn(6, ':').collect::<Vec<_>>()[..] else { return None };
        let own = of == region && account == account_id && name.starts_with("alias/");
        own.then(|| Self(name.into()))
    }
}

impl From<&KeyArn> for KeyId {
    fn from(arn: &KeyArn) -> Self {
        arn.0.clone()
    }
}

/// The ARN of a KMS key (never of an alias).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct KeyArn(KeyId);

impl KeyArn {
    /// Reads `arn:PARTITION:kms:REGION:ACCOUNT:key/ID`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let rest = text.strip_prefix("arn:")?;
        (text.contains(":key/") && is_kms_arn(rest)).then(|| Self(KeyId(text.into())))
    }

    /// The first key ARN that stands in a sentence: KMS names the key in the messages of its errors.
    #[must_use]
    pub fn find_in(message: &str) -> Option<Self> {
        message.match_indices("arn:").find_map(|(at, _)| {
            let text = &message[at..];
            let end = text
                .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, ':' | '/' | '-')))
                .unwrap_or(text.len());
            Self::parse(&text[..end])
        })
    }

    /// The ARN.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// The ARN as KMS takes it for a `KeyId`.
    #[must_use]
    pub fn as_key_id(&self) -> &KeyId {
        &self.0
    }

    /// Whether it is a multi-Region key: one key with a replica, and so an ARN, in each of several regions
    /// (<https://docs.aws.amazon.com/kms/latest/developerguide/multi-region-keys-overview.html>: "The mrk- prefix").
    #[must_use]
    pub fn is_multi_region(&self) -> bool {
        self.as_str().rsplit_once(":key/").is_some_and(|(_, id)| id.starts_with(MULTI_REGION_PREFIX))
    }

    /// The ARN of a multi-Region key's replica in `region`; any other key is where it is.
    #[must_use]
    pub fn in_region(&self, region: &str) -> Self {
        if !self.is_multi_region() || self.region() == region {
            return self.clone();
        }
        let parts: Vec<&str> = self.as_str().splitn(6, ':').collect();
        let [arn, partition, service, _, account, resource] = parts[..] else { return self.clone() };
        Self(KeyId([arn, partition, service, region, account, resource].join(":").into()))
    }

    /// Whether both are ARNs of one key: of replicas of a multi-Region key, or equal.
    #[must_use]
    pub(crate) fn is_same_key(&self, other: &Self) -> bool {
        self == other || (self.is_multi_region() && self.in_region(other.region()) == *other)
    }

    /// The region that the key is in.
    #[must_use]
    pub fn region(&self) -> &str {
        self.as_str().split(':').nth(3).unwrap_or_default()
    }

    /// The account that owns the key: 12 digits.
    #[must_use]
    pub fn account_id(&self) -> &str {
        self.as_str().split(':').nth(4).unwrap_or_default()
    }
}

impl fmt::Display for KeyArn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The text after `arn:` in the ARN of a KMS key or alias.
fn is_kms_arn(rest: &str) -> bool {
    let parts: Vec<&str> = rest.splitn(5, ':').collect();
    let [partition, "kms", region, account, resource] = parts[..] else { return false };
    let Some(kind_and_name) = resource.split_once('/') else { return false };
    (partition == "aws" || partition.starts_with("aws-"))
        && !region.is_empty()
        && [partition, region]
            .iter()
            .all(|part| part.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'))
        && account.len() == 12
        && account.bytes().all(|b| b.is_ascii_digit())
        && is_resource(kind_and_name)
}

fn is_resource((kind, name): (&str, &str)) -> bool {
    let more = match kind {
        "key" => "-",
        "alias" => "-_/",
        _ => return false,
    };
    !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || more.as_bytes().contains(&b))
}

/// The AWS partition that a region is in, by its name: the partition of an ARN that AWS gave is to be preferred.
#[must_use]
pub fn partition_of(region: &str) -> &'static str {
    let found = PARTITIONS.iter().find(|(_, areas)| areas.iter().any(|area| region.starts_with(area)));
    found.map_or("aws", |(partition, _)| partition)
}

/// Partitions, and how the names of their regions begin (`partitions.json` of the AWS SDKs); all other regions are in `aws`.
const PARTITIONS: [(&str, &[&str]); 7] = [
    ("aws-cn", &["cn-"]),
    ("aws-eusc", &["eusc-"]),
    ("aws-iso", &["us-iso-"]),
    ("aws-iso-b", &["us-isob-"]),
    ("aws-iso-e", &["eu-isoe-"]),
    ("aws-iso-f", &["us-isof-"]),
    ("aws-us-gov", &["us-gov-"]),
];

/// How the id of every multi-Region key begins, and of no other.
const MULTI_REGION_PREFIX: &str = "mrk-";
/// KMS: `KeyId` has 1 to 2,048 characters.
const MAX_KEY_ID_BYTES: usize = 2_048;

#[cfg(test)]
mod tests {
    //! Only what KMS could accept becomes a value, and an ARN is found where KMS writes one.

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn key_ids_of_every_form_parse_and_others_do_not() {
        for good in [
            "1234abcd-12ab-34cd-56ef-1234567890ab",
            "mrk-1234abcd12ab34cd56ef1234567890ab",
            "alias/dev",
            "alias/team/app_1",
            "arn:aws:kms:us-west-2:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab",
            "arn:aws-cn:kms:cn-north-1:111122223333:alias/dev",
        ] {
            assert_eq!(KeyId::parse(good).expect(good).as_str(), good);
        }
        let long = "a".repeat(2_049);
        for bad in [
            "",
            "alias/",
            "alias/a b",
            "../etc/passwd",
            "key/1234",
            "arn:aws:s3:us-west-2:111122223333:key/1",
            "arn:aws:kms:us-west-2:1111:key/1",
            "arn:aws:kms:us-west-2:111122223333:grant/1",
            "arn:aws:kms:us-west-2:111122223333:key/",
            "arn:aws:kms::111122223333:key/1",
            "1234\n",
            "ключ",
            &long,
        ] {
            assert!(KeyId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn every_region_is_in_its_partition() {
        for (region, partition) in [
            ("us-west-2", "aws"),
            ("il-central-1", "aws"),
            ("cn-north-1", "aws-cn"),
            ("us-gov-east-1", "aws-us-gov"),
            ("eusc-de-east-1", "aws-eusc"),
            ("us-iso-east-1", "aws-iso"),
            ("us-isob-east-1", "aws-iso-b"),
            ("eu-isoe-west-1", "aws-iso-e"),
            ("us-isof-south-1", "aws-iso-f"),
        ] {
            assert_eq!(partition_of(region), partition, "{region}");
            let arn = format!("arn:{partition}:kms:{region}:111122223333:key/1234-ab");
            assert!(KeyArn::parse(&arn).is_some(), "{arn}");
        }
    }

    #[test]
    fn key_arn_is_found_in_the_messages_of_kms() {
        let arn = "arn:aws:kms:us-west-2:111122223333:key/1234-ab";
        for message in [
            format!("{arn} is disabled."),
            format!("Key '{arn}' does not exist"),
            format!("Alias arn:aws:kms:us-west-2:111122223333:alias/x, {arn}."),
        ] {
            assert_eq!(KeyArn::find_in(&message).expect("named").as_str(), arn);
        }
        assert_eq!(KeyArn::find_in("arn: nothing here, arn:aws:iam::1:role/x"), None);
    }

    #[test]
    fn replicas_of_a_multi_region_key_are_one_key_and_no_others_are() {
        let arn = |region: &str, account: &str, id: &str| {
            KeyArn::parse(&format!("arn:aws:kms:{region}:{account}:key/{id}")).expect("an ARN")
        };
        let (own, id) = ("111122223333", "mrk-1234abcd12ab34cd56ef1234567890ab");
        let (west, east) = (arn("us-west-2", own, id), arn("us-east-1", own, id));
        assert!(west.is_multi_region() && west.is_same_key(&east) && west.in_region("us-east-1") == east);
        assert!(KeyId::from(&east).names(&west) && KeyId::parse(id).expect("an id").names(&east));
        let single = "1234abcd-12ab-34cd-56ef-1234567890ab";
        for other in [
            arn("us-east-1", "444455556666", id),
            arn("us-east-1", own, "mrk-2234abcd12ab34cd56ef1234567890ab"),
            arn("us-west-2", own, single),
        ] {
            assert!(!west.is_same_key(&other) && !KeyId::from(&other).names(&west), "{other}");
        }
        let (one, two) = (arn("us-west-2", own, single), arn("us-east-1", own, single));
        assert!(!one.is_multi_region() && !one.is_same_key(&two) && one.in_region("us-east-1") == one);
        assert!(!KeyId::from(&two).names(&one));
    }

    proptest! {
        #[test]
        fn any_text_is_a_key_id_or_an_error(text in ".{0,80}") {
            if let Ok(key) = KeyId::parse(&text) {
                prop_assert!(key.as_str().is_ascii());
            }
            let _ = KeyArn::find_in(&text);
        }
    }
}
