//! SPIFFE IDs (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>, 2).

use std::sync::Arc;

/// The name of a workload: `spiffe://TRUST-DOMAIN/PATH`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId(Arc<str>);

impl SpiffeId {
    /// Checks the form, strictly: two texts that differ are two workloads. A trust domain without a path is no workload.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("{text:?} is not a workload's SPIFFE ID: {why}"));
        if text.len() > MAX_BYTES {
            return Err(format!("a SPIFFE ID has at most {MAX_BYTES} bytes"));
        }
        let Some((domain, path)) = text.strip_prefix(SCHEME).and_then(|rest| rest.split_once('/')) else {
            return refuse("write spiffe://TRUST-DOMAIN/PATH");
        };
        if let Err(why) = check_trust_domain(domain) {
            return refuse(&why);
        }
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let segment =
            |part: &str| !part.is_empty() && part != "." && part != ".." && part.bytes().all(letter);
        if !path.split('/').all(segment) {
            return refuse(
                "its path is segments of letters, digits, dots, dashes and underscores, none empty",
            );
        }
        Ok(Self(text.into()))
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The trust domain, which vouches for the id.
    #[must_use]
    pub fn trust_domain(&self) -> &str {
        let rest = self.0.strip_prefix(SCHEME).unwrap_or_default();
        rest.split('/').next().unwrap_or_default()
    }
}

impl From<SpiffeId> for Arc<str> {
    fn from(id: SpiffeId) -> Self {
        id.0
    }
}

/// Checks the form of a trust domain's name.
pub fn check_trust_domain(domain: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
    if (1..=MAX_DOMAIN_BYTES).contains(&domain.len()) && domain.bytes().all(letter) {
        Ok(())
    } else {
        Err("its trust domain is 1 to 255 lower-case letters, digits, dots, dashes and underscores".into())
    }
}

const SCHEME: &str = "spiffe://";
/// SPIFFE-ID 2.3.
const MAX_BYTES: usize = 2_048;
const MAX_DOMAIN_BYTES: usize = 255;

#[cfg(test)]
mod tests {
    //! Only what SPIFFE calls a workload's ID is one.

    use super::*;

    #[test]
    fn ids_of_workloads_parse_and_nothing_else() {
        for (good, domain) in [
            ("spiffe://example.org/orders", "example.org"),
            ("spiffe://prod_1.acme-x/ns/shop/sa/Orders.v2", "prod_1.acme-x"),
            ("spiffe://1.2.3.4/...", "1.2.3.4"),
        ] {
            let id = SpiffeId::parse(good).expect(good);
            assert_eq!((id.as_str(), id.trust_domain()), (good, domain));
        }
        let long = format!("spiffe://example.org/{}", "a".repeat(2_048));
        let domain = format!("spiffe://{}/a", "a".repeat(256));
        for bad in [
            "",
            "spiffe://",
            "spiffe://example.org",
            "spiffe://example.org/",
            "spiffe:///orders",
            "https://example.org/orders",
            "SPIFFE://example.org/orders",
            "spiffe://Example.org/orders",
            "spiffe://example.org/orders/",
            "spiffe://example.org//orders",
            "spiffe://example.org/./orders",
            "spiffe://example.org/../orders",
            "spiffe://example.org/or%20ders",
            "spiffe://example.org/orders?x=1",
            "spiffe://example.org/orders#x",
            "spiffe://user@example.org/orders",
            "spiffe://example.org:443/orders",
            "spiffe://example.org/orders\0",
            "spiffe://exämple.org/orders",
            " spiffe://example.org/orders",
            &long,
            &domain,
        ] {
            assert!(SpiffeId::parse(bad).is_err(), "{bad:?}");
        }
    }
}
