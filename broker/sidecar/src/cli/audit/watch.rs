//! `key-broker audit watch`: compares KMS's last use of each key with the records of all brokers.

mod asked;
mod bell;
mod found;
mod judgement;
mod records;
mod report;
mod state;
mod text;
mod watcher;

use std::path::PathBuf;

use key_broker_core::KeyId;
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::{Coverage, PublicKey};
use time::{Duration, OffsetDateTime};

use super::output::{note, write_report};
use super::reconcile::reader_records::ReaderRecords;
use super::source::keys::SigningKey;
use super::source::{Source, SourceArguments};
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;
use asked::{Asked, Wanted};
use found::Found;
use records::Records;
use report::{Report, Verdict};
use state::WatchState;
use watcher::{acknowledge, judge_pending, see};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// A file of your own that keeps what earlier runs have seen; created if missing
    #[arg(long, value_name = "FILE")]
    state: PathBuf,
    /// A KMS key that only brokers may use, by ARN, id or alias; may be given more than once
    /// [default: those of the trails' calls from now on]
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = parse_key)]
    key: Vec<KeyId>,
    /// A KMS key that others may use, too, likewise: it is reported as shared, and not watched
    #[arg(long, value_name = "KEY", num_args = 1.., value_parser = parse_key)]
    shared: Vec<KeyId>,
    /// Watch the keys that sign and encrypt the trails, too
    #[arg(long)]
    trail_keys: bool,
    /// The readers' records of their own KMS calls: their --record-to files; may be given more than once
    #[arg(long, value_name = "FILE", num_args = 1.., requires = "trail_keys")]
    reader_records: Vec<PathBuf>,
    /// How many minutes the clocks of brokers and of KMS may differ
    #[arg(long, value_name = "N", default_value_t = 5, value_parser = clap::value_parser!(u32).range(..=60))]
    skew_minutes: u32,
    /// The KMS requestID of an alarm that somebody has investigated: it is not repeated; may be given more than once
    #[arg(long, value_name = "ID", num_args = 1..)]
    acknowledge: Vec<String>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    signing: SigningKey,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit watch --config key-broker.toml --state /var/lib/key-broker-audit/watch.json\n  \
    key-broker audit watch --state watch.json --key alias/orders --s3-bucket my-trail \\\n    \
    --account 111122223333 --region us-west-2 --public-key signing.pem\n  \
    key-broker audit watch --state watch.json --acknowledge c929ebc7-094a-4ee5-839d-975205113c0f\n\n\
All trails of the bucket are looked at, unless --trail names some. Use credentials of your own,\n\
    not the broker's: they take kms:GetKeyLastUsage and kms:DescribeKey on the keys, in the keys'\n\
    account, and what reading the trail takes. Replicas of multi-Region keys are asked each for\n\
    itself. What an alarm names is in AWS CloudTrail: `aws cloudtrail lookup-events\n\
    --lookup-attributes AttributeKey=EventId,AttributeValue=ID`. Where OTEL_EXPORTER_OTLP_ENDPOINT\n\
    is set, what was found is pushed there as metrics.";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments {
        state: file,
        key,
        shared,
        trail_keys,
        reader_records,
        skew_minutes,
        acknowledge: acknowledged,
        json,
        signing,
        source,
    } = arguments;
    let is_told = source.names_a_trail();
    let (source, called) = source.open_many(!is_told).await?;
    let readers = read_reader_records(&reader_records, source.own_records())?;
    let names = source.reader.names();
    let trails = format!("{}/{}{called}", names.bucket, names.log_folder());
    let mut state = WatchState::load(&file, &trails).map_err(Failure::Configuration)?;
    for id in acknowledged {
        if !acknowledge(&mut state, &id) {
            note(format_args!("--acknowledge {id}: there is no such alarm"));
        }
    }
    let keys = source.public_keys(&signing).await?;
    let skew = Duration::minutes(skew_minutes.into());
    let now = SystemClock.now();
    let (coverage, records) = look(&source, &called, &keys, &state, (key.is_empty(), skew, now)).await?;
    let (trail_records, is_in_s3) = (records.trail_keys.clone(), source.is_in_s3);
    let found = Found { coverage: &coverage, records: &records, readers: &readers, is_in_s3, skew, now };
    let judged = judge_pending(&mut state, &found, now);
    let wanted = Wanted {
        named: key,
        shared,
        known: state.keys.keys().chain(&records.keys).cloned().collect(),
        of_trails: trail_records,
        with_trail_keys: trail_keys,
    };
    let mut asked = asked::ask_all(&source.kms, &names.account_id, wanted).await;
    for (key, answer) in &mut asked {
        let Asked::Told(seen) = answer else { continue };
        if let Err(why) = see(&mut state, key, seen.take(), now) {
            *answer = Asked::Failed(why.to_owned());
        }
    }
    asked::forget_gone(&mut state, &asked);
    state.read_until = Some(now);
    state
        .save(&file)
        .map_err(|error| Failure::Configuration(format!("--state {}: {error}", file.display())))?;
    let report = Report::new(&state, &judged, &asked, now);
    if let Err(error) = bell::ring(&report).await {
        note(format_args!("the metrics of this run are not exported: {error}"));
    }
    let text = if json { format!("{:#}\n", serde_json::json!(report)) } else { text::of(&report) };
    write_report(&text)?;
    Ok(match report.verdict {
        Verdict::Quiet => Exit::Done.into(),
        Verdict::Alarm => Exit::No.into(),
        Verdict::CannotTell => Exit::CannotTell.into(),
    })
}

/// Looks through what the trails vouch for since the oldest use that is not judged yet and, where keys are taken from them, since the run
/// before.
async fn look(
    source: &Source,
    called: &str,
    keys: &[PublicKey],
    state: &WatchState,
    (takes_keys, skew, now): (bool, Duration, OffsetDateTime),
) -> Result<(Coverage, Records), Failure> {
    let pending = state.keys.values().flat_map(|of_key| &of_key.pending).map(|seen| seen.at);
    let for_keys = takes_keys.then(|| state.read_until.unwrap_or(now - FIRST_LOOK));
    let since = pending.chain(for_keys).min().unwrap_or(now) - skew;
    let unavailable = |error: &dyn std::fmt::Display| Failure::Unavailable(error.to_string());
    let coverage = Coverage::since(&source.reader, called, keys, since, now).await;
    let coverage = coverage.map_err(|error| unavailable(&error))?;
    if coverage.trails.is_empty() {
        let names = source.reader.trail_names(called).await.map_err(|error| unavailable(&error))?;
        if names.is_empty() {
            return Err(Failure::Unavailable(format!(
                "no trail called {called} is here: every use of a key would be somebody else's"
            )));
        }
    }
    let mut records = Records::new(state, skew);
    found::read_all(source, &coverage, &mut records).await?;
    Ok((coverage, records))
}

/// Those that were given, and the reader's own, if there are any yet.
fn read_reader_records(files: &[PathBuf], own: Option<PathBuf>) -> Result<ReaderRecords, Failure> {
    let mut readers = ReaderRecords::default();
    for file in files.iter().chain(&own.filter(|own| own.exists())) {
        readers.add_file(file).map_err(|error| {
            Failure::Configuration(format!("--reader-records {}: {error}", file.display()))
        })?;
    }
    Ok(readers)
}

fn parse_key(text: &str) -> Result<KeyId, String> {
    KeyId::parse(text).map_err(|malformed| malformed.0)
}

/// The first run takes keys from the records of so long.
const FIRST_LOOK: Duration = Duration::hours(25);
