//! `key-broker audit cost`: requests to KMS and S3.

mod plan;
mod requests;

use std::fmt::Write as _;
use std::time::Duration;

use crate::cache::rules::RevocationCheck;
use crate::cli::revocation::{PRICE_PER_10000, words_of_cost};
use key_broker_trail::delivery::SigningConfig;
use key_broker_trail::record::{ReadRecord, record_time};
use plan::{Encrypted, Plan, PlannedRequests};
use requests::{Costs, Requests, Subject, price_of, price_of_puts};
use serde_json::{Value, json};

use super::CommandResult;
use super::log_files::believed;
use super::output::{Columns, write};
use super::period::Period;
use super::source::keys::SigningKey;
use super::source::{Source, SourceArguments};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    period: Period,
    /// The price of 10,000 KMS requests in US dollars: <https://aws.amazon.com/kms/pricing/> has yours
    #[arg(long, value_name = "USD", default_value_t = PRICE_PER_10000, value_parser = price)]
    price_per_10000: f64,
    /// The price of 1,000 S3 puts, likewise: <https://aws.amazon.com/s3/pricing/>
    #[arg(long, value_name = "USD", default_value_t = 0.005, value_parser = price)]
    price_per_1000_puts: f64,
    /// Take every trail of the bucket together; with * in --trail, those that match
    #[arg(long, conflicts_with = "trail")]
    all_trails: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    key: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
    #[command(flatten)]
    prediction: Prediction,
}

#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Prediction of the trail's own requests")]
struct Prediction {
    /// Seconds between log files [default: as configured, or 300]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    delivery_interval_seconds: Option<u64>,
    /// Seconds between digests [default: as configured, or 3600]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    digest_interval_seconds: Option<u64>,
    /// Trails that begin and end in a day, if brokers come and go with their journals: each takes one more log file and two digests
    #[arg(long, value_name = "N", default_value_t = 0)]
    trails_per_day: u32,
    /// Brokers in each region of each account
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    brokers: u32,
    /// Regions in each account
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    regions: u32,
    /// Accounts
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    accounts: u32,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit cost --since 2026-11-01 --until 2026-11-30\n  \
    key-broker audit cost --delivery-interval-seconds 300 --regions 2 --accounts 3\n  \
    key-broker audit cost --s3-bucket my-trail --account 111122223333 --region us-west-2 \\\n    \
    --all-trails --public-key signing.pem\n  \
    key-broker audit cost --json | jq '.total'";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { source, key, period, prediction, price_per_10000, price_per_1000_puts, all_trails, json } =
        arguments;
    period.check()?;
    let (source, called) = source.open_some(all_trails).await?;
    let mut costs = Costs::default();
    let mut believed = believed(&source, called.as_deref(), &key, &period).await?;
    let counted = believed.for_each_record(&source, |_, record| {
        let record = ReadRecord::parse(record).map_err(|malformed| malformed.to_string())?;
        if period.has(record.event_time) {
            costs.add(&record).map_err(|malformed| malformed.to_string())?;
        }
        Ok(())
    });
    counted.await?;
    let report = Report {
        costs,
        plan: prediction.plan(&source),
        revocation_check: source.revocation_check,
        brokers: prediction,
        price: price_per_10000,
        price_of_puts: price_per_1000_puts,
        is_in_s3: source.is_in_s3,
    };
    let text = if json { format!("{:#}\n", report.json()) } else { report.text() };
    write(text.as_bytes())?;
    Ok(believed.exit_code())
}

impl Prediction {
    /// Regions of accounts.
    fn places(&self) -> u64 {
        u64::from(self.regions) * u64::from(self.accounts)
    }

    fn plan(&self, source: &Source) -> Plan {
        let config = source.config.as_ref();
        let interval = |told: Option<u64>, configured: Option<Duration>, usual: Duration| {
            told.map(Duration::from_secs).or(configured).unwrap_or(usual)
        };
        let delivery_interval = interval(
            self.delivery_interval_seconds,
            config.map(|config| config.delivery_interval),
            CLOUDTRAILS_DELIVERY,
        );
        let digest_interval = interval(
            self.digest_interval_seconds,
            config.map(|config| config.digest_interval),
            CLOUDTRAILS_DIGEST,
        );
        let encrypted = match config {
            Some(config) if config.kms_key.is_none() => Encrypted::Nothing,
            _ if source.is_in_s3 => Encrypted::AllObjects,
            _ => Encrypted::LogFiles,
        };
        let kms_signs = config.is_none_or(|config| matches!(config.signing, SigningConfig::Kms(_)));
        Plan {
            delivery_interval,
            digest_interval,
            encrypted,
            kms_signs,
            brokers: u64::from(self.brokers) * self.places(),
            trails: u64::from(self.trails_per_day) * self.places(),
        }
    }
}

struct Report {
    costs: Costs,
    plan: Plan,
    revocation_check: Option<RevocationCheck>,
    brokers: Prediction,
    price: f64,
    price_of_puts: f64,
    is_in_s3: bool,
}

impl Report {
    fn json(&self) -> Value {
        let total = self.costs.total();
        let per_day = self.plan.requests(DAY);
        let rows: Vec<Value> = self
            .costs
            .rows()
            .map(|(subject, requests)| {
                let (mut row, counts) = (json!(subject), json!(requests));
                if let (Some(row), Value::Object(counts)) = (row.as_object_mut(), counts) {
                    row.extend(counts);
                }
                row
            })
            .collect();
        json!({
            "range": self.costs.range().map(|(from, to)| json!({ "from": record_time(from), "to": record_time(to) })),
            "rows": rows,
            "total": {
                "workloads": total.workloads, "trail": total.trail, "checks": total.checks, "saved": total.saved,
                "made": total.made(), "savedPercent": total.saved_percent(),
                "usd": price_of(total.made(), self.price), "usdSaved": price_of(total.saved, self.price),
            },
            "predictedPerDay": {
                "dataKeys": per_day.data_keys, "signatures": per_day.signatures,
                "usd": price_of(per_day.data_keys + per_day.signatures, self.price),
                "deliveryIntervalSeconds": self.plan.delivery_interval.as_secs(),
                "digestIntervalSeconds": self.plan.digest_interval.as_secs(),
                "encrypted": self.plan.encrypted, "kmsSigns": self.plan.kms_signs,
                "brokers": self.brokers.brokers, "regions": self.brokers.regions, "accounts": self.brokers.accounts,
                "revocationChecks": self.revocation_check.map(|check| check.most_requests_a_day()),
                "trails": self.plan.trails, "logFiles": per_day.log_files, "digests": per_day.digests,
                "puts": self.puts(&per_day), "usdOfPuts": price_of_puts(self.puts(&per_day), self.price_of_puts),
            },
            "usdPer10000": self.price, "usdPer1000Puts": self.price_of_puts,
        })
    }

    fn text(&self) -> String {
        let mut text = match self.costs.range() {
            Some((from, to)) => {
                format!(
                    "Requests to KMS in the delivered log files, {} to {}:\n\n{}\n",
                    record_time(from),
                    record_time(to),
                    self.table()
                )
            }
            None => "No requests to KMS in the delivered log files of this time.\n".into(),
        };
        let total = self.costs.total();
        if let Some(percent) = total.saved_percent() {
            let asked = total.workloads + total.saved;
            let _ = writeln!(
                text,
                "Reuse saved {} of {asked} requests of workloads: {percent:.1} %.",
                total.saved
            );
        }
        if self.costs.range().is_some() {
            let _ = writeln!(
                text,
                "Made: {} requests, USD {:.6}. Saved: USD {:.6}.",
                total.made(),
                price_of(total.made(), self.price),
                price_of(total.saved, self.price)
            );
        }
        self.add_prediction(&mut text);
        let _ = writeln!(
            text,
            "\nAt USD {} for 10,000 requests (https://aws.amazon.com/kms/pricing/); --price-per-10000 takes yours. The free tier\n\
             is not taken off.",
            self.price
        );
        if self.is_in_s3 {
            let _ = writeln!(
                text,
                "A put at USD {} for 1,000 (https://aws.amazon.com/s3/pricing/); --price-per-1000-puts takes yours.",
                self.price_of_puts
            );
        }
        text
    }

    fn table(&self) -> String {
        let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
        rows.extend(self.costs.rows().map(|(subject, requests)| {
            [
                vec![
                    subject.day.clone(),
                    subject.region.clone(),
                    subject.account.clone(),
                    key_of(subject),
                    subject.operation.clone(),
                ],
                numbers(requests),
            ]
            .concat()
        }));
        let empty = String::new;
        rows.push(
            [vec!["total".into(), empty(), empty(), empty(), empty()], numbers(&self.costs.total())].concat(),
        );
        Columns::table(&rows, HEAD.len() - 4)
    }

    fn add_prediction(&self, text: &mut String) {
        let per_day = self.plan.requests(DAY);
        let Prediction { brokers, regions, accounts, .. } = self.brokers;
        let _ = writeln!(
            text,
            "\nThe trail itself will ask KMS at most {} times a day, USD {:.6} (brokers in a region: {brokers}, regions: {regions}, accounts: \
             {accounts}):",
            per_day.data_keys + per_day.signatures,
            price_of(per_day.data_keys + per_day.signatures, self.price),
        );
        let Plan { delivery_interval, digest_interval, encrypted, kms_signs, .. } = self.plan;
        let every = |what: &str, interval: Duration| format!("{what} every {} s", interval.as_secs());
        let (log_files, digests) =
            (every("a log file", delivery_interval), every("a digest", digest_interval));
        let data_keys = match encrypted {
            Encrypted::Nothing => "no audit.kms_key_id is configured".to_owned(),
            Encrypted::LogFiles => log_files,
            Encrypted::AllObjects => format!("{log_files}, {digests}, which S3 encrypts"),
        };
        let signatures = if kms_signs { digests } else { "a key in a file signs digests".to_owned() };
        let _ = writeln!(text, "  {:>8}  GenerateDataKey: {data_keys}", per_day.data_keys);
        let _ = writeln!(text, "  {:>8}  Sign: {signatures}", per_day.signatures);
        if let Some(check) = self.revocation_check {
            let _ = writeln!(text, "\n{}", words_of_cost(check, self.price));
        }
        if self.is_in_s3 {
            let puts = self.puts(&per_day);
            let price = price_of_puts(puts, self.price_of_puts);
            let _ = writeln!(
                text,
                "\nIt will put at most {puts} objects into S3 a day, USD {price:.6}: {} log files and {} digests.",
                per_day.log_files, per_day.digests
            );
        }
    }

    /// A directory takes no money.
    fn puts(&self, per_day: &PlannedRequests) -> u64 {
        if self.is_in_s3 { per_day.log_files + per_day.digests } else { 0 }
    }
}

/// Short where account and region say the rest.
fn key_of(subject: &Subject) -> String {
    let Some(key) = &subject.key else { return "-".into() };
    let own = format!(":kms:{}:{}:", subject.region, subject.account);
    match key.split_once(&own) {
        Some((_, short)) => short.to_owned(),
        None => key.clone(),
    }
}

fn numbers(requests: &Requests) -> Vec<String> {
    [requests.workloads, requests.trail, requests.checks, requests.saved].map(|n| n.to_string()).to_vec()
}

fn price(text: &str) -> Result<f64, String> {
    let price: f64 = text.parse().map_err(|_| "give a number, such as 0.03".to_owned())?;
    if price.is_finite() && price >= 0.0 { Ok(price) } else { Err("give a number from 0 on".into()) }
}

const HEAD: [&str; 9] =
    ["DAY", "REGION", "ACCOUNT", "KEY", "OPERATION", "WORKLOADS", "TRAIL", "CHECKS", "SAVED"];
/// CloudTrail delivers about every five minutes, and digests every hour.
const CLOUDTRAILS_DELIVERY: Duration = Duration::from_mins(5);
const DAY: Duration = Duration::from_hours(24);
const CLOUDTRAILS_DIGEST: Duration = Duration::from_hours(1);
