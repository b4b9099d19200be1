//! `kms.fallback_regions`, their endpoints, and `[[kms.account]]`: other regions, and roles for the keys of other accounts.

use std::collections::BTreeMap;

use key_broker_core::partition_of;
use serde::Deserialize;

use super::session::role_arn;
use super::{checked_url, is_region};

/// `[[kms.account]]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct AccountSection {
    account_id: String,
    role_arn: String,
}

/// Checks the regions in which multi-Region keys are asked for when `home` does not answer, and where some of them are.
pub(super) fn check_regions(
    home: &str,
    regions: &[String],
    endpoints: &BTreeMap<String, String>,
    variable: impl Fn(&str) -> Option<String>,
) -> Result<(), String> {
    let key = "kms.fallback_regions";
    for (place, region) in regions.iter().enumerate() {
        if !is_region(region) {
            return Err(format!("{key}: {region:?} is not a region such as \"us-east-1\""));
        }
        if region == home || regions[..place].contains(region) {
            return Err(format!(
                "{key}: {region:?} is asked already: name each region once, kms.region not at all"
            ));
        }
        if partition_of(region) != partition_of(home) {
            return Err(format!(
                "{key}: {region:?} is in another partition of AWS than {home:?}: a multi-Region key has no replica there"
            ));
        }
        if !endpoints.contains_key(region)
            && let Some(set) = ENDPOINT_VARIABLES.into_iter().find(|name| variable(name).is_some())
        {
            return Err(format!(
                "{key}: the environment has {set}, one endpoint for all regions: give that of {region:?} in \
                 kms.fallback_endpoint_urls"
            ));
        }
    }
    for (region, url) in endpoints {
        checked_url(&format!("kms.fallback_endpoint_urls.{region}"), Some(url.clone()))?;
        if !regions.contains(region) {
            return Err(format!("kms.fallback_endpoint_urls: {region:?} is not among {key}"));
        }
    }
    Ok(())
}

/// The roles for the keys of other accounts, by account.
pub(super) fn account_roles(sections: Vec<AccountSection>) -> Result<BTreeMap<String, String>, String> {
    let mut roles = BTreeMap::new();
    for AccountSection { account_id, role_arn: arn } in sections {
        if account_id.len() != 12 || !account_id.bytes().all(|b| b.is_ascii_digit()) {
            return Err(format!("kms.account: account_id: {account_id:?} is not 12 digits"));
        }
        let role_arn = role_arn("kms.account: role_arn", arn)?;
        if roles.insert(account_id.clone(), role_arn).is_some() {
            return Err(format!("kms.account: account {account_id} has two roles: give it one"));
        }
    }
    Ok(roles)
}

/// The AWS SDK asks these before it finds a region's own endpoint.
const ENDPOINT_VARIABLES: [&str; 2] = ["AWS_ENDPOINT_URL_KMS", "AWS_ENDPOINT_URL"];

#[cfg(test)]
mod tests {
    //! Regions are named once, in one partition, each with an endpoint of its own; accounts have one role each.

    use super::*;

    fn of(regions: &[&str], endpoints: &[(&str, &str)], variables: &[&str]) -> Result<(), String> {
        let owned = |text: &&str| (*text).to_owned();
        let endpoints = endpoints.iter().map(|(region, url)| (owned(region), owned(url))).collect();
        let variable = |name: &str| variables.contains(&name).then(|| "http://localhost".to_owned());
        let regions: Vec<_> = regions.iter().map(owned).collect();
        check_regions("us-west-2", &regions, &endpoints, variable)
    }

    #[test]
    fn mistakes_in_regions_say_what_to_write() {
        let (east, ireland) = ("us-east-1", "eu-west-1");
        assert_eq!(of(&[ireland, east], &[(east, "https://kms.example")], &[]), Ok(()));
        assert_eq!(of(&[], &[], &["AWS_ENDPOINT_URL"]), Ok(()));
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
        let role = |sections| account_roles(sections).map(|roles| roles.len());
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
