//! `kms.fallback_regions`, their endpoints, and `[[kms.account]]`: other regions, and roles for the keys of other accounts.

use std::collections::BTreeMap;

use key_broker_core::partition_of;
use serde::Deserialize;

use super::session::role_arn;
use super::{checked_url, is_region};
use crate::kms::aws::{AccountRole, FallbackRegion};

/// `[[kms.account]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountSection {
    account_id: String,
    role_arn: String,
}

/// The regions in which multi-Region keys are asked for when `home` does not answer, in their order.
pub(super) fn fallbacks(
    home: &str,
    regions: Vec<String>,
    mut endpoints: BTreeMap<String, String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<Vec<FallbackRegion>, String> {
    let mut found = Vec::<FallbackRegion>::new();
    for region in regions {
        let key = "kms.fallback_regions";
        if !is_region(&region) {
            return Err(format!("{key}: {region:?} is not a region such as \"us-east-1\""));
        }
        if region == home || found.iter().any(|other| other.region == region) {
            return Err(format!("{key}: {region:?} is asked already: name each region once, kms.region not at all"));
        }
        if partition_of(&region) != partition_of(home) {
            return Err(format!(
                "{key}: {region:?} is in another partition of AWS than {home:?}: a multi-Region key has no replica there"
            ));
        }
        let name = format!("kms.fallback_endpoint_urls.{region}");
        let endpoint_url = checked_url(&name, endpoints.remove(&region))?;
        if endpoint_url.is_none()
            && let Some(set) = ENDPOINT_VARIABLES.into_iter().find(|name| variable(name).is_some())
        {
            return Err(format!(
                "{key}: the environment has {set}, one endpoint for all regions: give that of {region:?} in \
                 kms.fallback_endpoint_urls"
            ));
        }
        found.push(FallbackRegion { region, endpoint_url });
    }
    match endpoints.keys().next() {
        Some(region) => Err(format!("kms.fallback_endpoint_urls: {region:?} is not among kms.fallback_regions")),
        None => Ok(found),
    }
}

/// The roles for the keys of other accounts.
pub(super) fn accounts(sections: Vec<AccountSection>) -> Result<Vec<AccountRole>, String> {
    let mut found = Vec::<AccountRole>::new();
    for AccountSection { account_id, role_arn: arn } in sections {
        if account_id.len() != 12 || !account_id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("kms.account: account_id: {account_id:?} is not 12 digits"));
        }
        if found.iter().any(|other| other.account_id == account_id) {
            return Err(format!("kms.account: account {account_id} has two roles: give it one"));
        }
        let role_arn = role_arn("kms.account: role_arn", arn)?;
        found.push(AccountRole { account_id, role_arn });
    }
    Ok(found)
}

/// The AWS SDK asks these before it finds a region's own endpoint.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"];

#[cfg(test)]
mod tests {
    //! Regions are named once, in one partition, each with an endpoint of its own; accounts have one role each.

    use super::*;

    fn of(regions: &[&str], endpoints: &[(&str, &str)], variables: &[&str]) -> Result<Vec<FallbackRegion>, String> {
        let owned = |text: &&str| (*text).to_owned();
        let endpoints = endpoints.iter().map(|(region, url)| (owned(region), owned(url))).collect();
        let variable = |name: &str| variables.contains(&name).then(|| "http://localhost".to_owned());
        fallbacks("us-west-2", regions.iter().map(owned).collect(), endpoints, variable)
    }

    #[test]
    fn regions_keep_their_order_and_mistakes_say_what_to_write() {
        let (east, ireland) = ("us-east-1", "eu-west-1");
        let found = of(&[ireland, east], &[(east, "https://kms.example")], &[]).expect("good");
        let found: Vec<_> =
            found.iter().map(|other| (&*other.region, other.endpoint_url.as_deref())).collect();
        assert_eq!(found, [(ireland, None), (east, Some("https://kms.example"))]);
        assert_eq!(of(&[], &[], &["AWS_ENDPOINT_URL"]), Ok(Vec::new()));
        assert!(of(&[east], &[(east, "http://127.0.0.1:1")], &["AWS_ENDPOINT_URL_KMS"]).is_ok());
        for (mistake, word) in [
            (of(&["us east"], &[], &[]), "not a region"),
            (of(&["us-west-2"], &[], &[]), "asked already"),
            (of(&[east, east], &[], &[]), "asked already"),
            (of(&["cn-north-1"], &[], &[]), "partition"),
            (of(&[east], &[(ireland, "http://localhost")], &[]), "not among"),
            (of(&[east], &[(east, "localhost")], &[]), "fallback_endpoint_urls.us-east-1"),
            (of(&[east], &[], &["AWS_ENDPOINT_URL_KMS"]), "AWS_ENDPOINT_URL_KMS"),
        ] {
            assert!(mistake.as_ref().is_err_and(|why| why.contains(word)), "{mistake:?}");
        }
    }

    #[test]
    fn an_account_has_one_role() {
        let section = |account: &str, role: &str| AccountSection {
            account_id: account.to_owned(),
            role_arn: format!("arn:aws:iam::444455556666:role/{role}"),
        };
        let role = |sections| accounts(sections).map(|roles| roles.len());
        assert_eq!(role(vec![section("444455556666", "kb"), section("777788889999", "kb")]), Ok(2));
        for (wrong, word) in [
            (vec![section("4444", "kb")], "12 digits"),
            (vec![section("444455556666", "")], "role_arn"),
            (vec![section("444455556666", "a"), section("444455556666", "b")], "two roles"),
        ] {
            assert!(role(wrong).is_err_and(|why| why.contains(word)), "{word}");
        }
    }
}
