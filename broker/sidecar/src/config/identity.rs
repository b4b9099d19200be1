//! `[identity]`: which connections belong to which workloads; and the pairs that their encryption contexts must have.

use std::collections::{BTreeMap, HashMap};

use key_broker_core::{EncryptionContext, Principal, SpiffeId, check_trust_domain};
use serde::Deserialize;

use crate::identity::{Identities, OverflowIds, UnixIdentity};
use crate::policy::bindings::Binding;

/// `[identity]`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default, expecting = "a table")]
pub(super) struct IdentitySection {
    trust_domain: Option<String>,
    unix: Vec<UnixSection>,
    dns: Vec<DnsSection>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct UnixSection {
    uid: Option<u32>,
    gid: Option<u32>,
    principal: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
struct DnsSection {
    name: String,
    principal: String,
}

/// One `[[policy.encryption_context]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, expecting = "a table")]
pub(super) struct BindingSection {
    principal: Option<String>,
    #[serde(default)]
    require: BTreeMap<String, String>,
    #[serde(default)]
    inject: BTreeMap<String, String>,
}

impl IdentitySection {
    pub(super) fn check(self) -> Result<Identities, String> {
        if let Some(domain) = &self.trust_domain {
            check_trust_domain(domain).map_err(|why| format!("identity.trust_domain: {domain:?}: {why}"))?;
        }
        let mut unix: Vec<UnixIdentity> = Vec::new();
        for (place, UnixSection { uid, gid, principal }) in self.unix.into_iter().enumerate() {
            let name = format!("identity.unix {}", place + 1);
            if uid.is_none() && gid.is_none() {
                return Err(format!("{name}: matches every process: give uid, gid or both"));
            }
            let includes = |mine: Option<u32>, theirs| mine.is_none() || mine == theirs;
            if unix.iter().any(|earlier| includes(earlier.uid, uid) && includes(earlier.gid, gid)) {
                return Err(format!("{name}: never holds, since an earlier one matches all that it matches"));
            }
            let principal = SpiffeId::parse(&principal).map_err(|why| format!("{name}: principal: {why}"))?;
            unix.push(UnixIdentity { uid, gid, principal });
        }
        let mut dns = HashMap::new();
        for (place, section) in self.dns.into_iter().enumerate() {
            let name = format!("identity.dns {}", place + 1);
            let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-');
            if section.name.is_empty() || !section.name.bytes().all(letter) {
                return Err(format!(
                    "{name}: {:?} is not a DNS name of lower-case letters, digits, dots and dashes (patterns are not allowed)",
                    section.name
                ));
            }
            let principal =
                SpiffeId::parse(&section.principal).map_err(|why| format!("{name}: principal: {why}"))?;
            if dns.insert(section.name, principal).is_some() {
                return Err(format!("{name}: the name is there twice"));
            }
        }
        Ok(Identities {
            unix,
            dns,
            trust_domain: self.trust_domain,
            overflow: OverflowIds::of_this_process(),
        })
    }
}

impl BindingSection {
    pub(super) fn check(self, place: usize) -> Result<Binding, String> {
        let name = format!("policy.encryption_context {}", place + 1);
        let Self { principal, require, inject } = self;
        if require.is_empty() && inject.is_empty() {
            return Err(format!("{name}: give pairs to require or to inject"));
        }
        if let Some(twice) = require.keys().find(|pair| inject.contains_key(*pair)) {
            return Err(format!(
                "{name}: {twice:?} is required and injected: an injected pair is always there"
            ));
        }
        for pairs in [&require, &inject] {
            EncryptionContext::parse(pairs.clone())
                .map_err(|malformed| format!("{name}: {}", malformed.0))?;
        }
        let principal = principal.map(|text| Principal::parse(&text)).transpose();
        let principal = principal.map_err(|why| format!("{name}: principal: {why}"))?;
        Ok(Binding { principal, require, inject })
    }
}
