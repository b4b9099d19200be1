//! Whether any connection can have a principal: otherwise policy about it is of no use.

use key_broker_core::{Principal, SpiffeId};

use crate::identity::Identities;
use crate::transport::opening::Listen;

/// Why, by the configuration, no connection can have this principal.
pub(super) fn unproved(principal: &Principal, identities: &Identities, listen: &Listen) -> Option<String> {
    let name = principal.as_str();
    if let Some(uid) = name.strip_prefix("unix:uid/").and_then(|uid| uid.parse::<u32>().ok()) {
        let of_user = identities.unix.iter().enumerate().filter(|(_, known)| known.uid == Some(uid));
        return of_user
            .into_iter()
            .map(|(place, known)| {
                let (place, other) = (place + 1, Principal::from(known.principal.clone()));
                match known.gid {
                    None => {
                        format!(
                            "no caller is {name}: identity.unix {place} makes this user {}",
                            other.as_str()
                        )
                    }
                    Some(gid) => {
                        format!("identity.unix {place} makes this user {}, with group {gid}", other.as_str())
                    }
                }
            })
            .next();
    }
    if let Some(cid) = name.strip_prefix("vsock:cid/").and_then(|cid| cid.parse::<u32>().ok()) {
        let may_connect = listen.vsock.as_ref().is_some_and(|address| address.cids.contains(&cid));
        return (!may_connect)
            .then(|| format!("no caller is {name}: listen.vsock.cids has no such context id"));
    }
    let id = SpiffeId::parse(name).ok()?;
    let is_mapped = identities.unix.iter().map(|known| &known.principal).chain(identities.dns.values());
    let is_mapped = is_mapped.into_iter().any(|known| *known == id);
    let domain = identities.trust_domain.as_deref().filter(|domain| *domain != id.trust_domain())?;
    (!is_mapped).then(|| format!("no caller is {name}: identity.trust_domain is {domain}"))
}
