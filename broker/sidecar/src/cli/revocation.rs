//! The cost of revocation checks, as text.

use crate::cache::rules::RevocationCheck;

/// The most that it costs in a day, at a price for 10,000 requests in USD.
pub(in crate::cli) fn words_of_cost(check: RevocationCheck, price_per_10000: f64) -> String {
    let most = u32::try_from(check.most_requests_a_day()).unwrap_or(u32::MAX);
    let usd = f64::from(most) / 10_000.0 * price_per_10000;
    let each = if check.by_context { "encryption context" } else { "KMS key" };
    format!(
        "Revocation checks ask KMS at most {most} times a day, USD {usd:.6}, for each {each} and operation in use; none while nothing is \
         drawn."
    )
}

/// USD, as AWS's price list has it for most regions (<https://aws.amazon.com/kms/pricing/>).
pub(in crate::cli) const PRICE_PER_10000: f64 = 0.03;
