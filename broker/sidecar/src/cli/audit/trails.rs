//! `key-broker audit trails`: lists trails, according to their digests.

use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_trail::record::record_time;
use key_broker_trail::verify::{TrailSummary, trails};
use serde_json::json;

use super::output::{Columns, plain, write};
use super::source::SourceArguments;
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Print one line of JSON for each
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    source: SourceArguments,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit trails --config key-broker.toml\n  \
    key-broker audit trails --s3-bucket my-trail --account 111122223333 --region us-west-2 --trail 'orders-*'\n  \
    key-broker audit trails --json | jq -r 'select(.state == \"abandoned\") | .name'";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let Arguments { json: is_json, source } = arguments;
    let (source, called) = source.open_many(false).await?;
    let found = trails(&source.reader, &called, SystemClock.now()).await;
    let found = found.map_err(|failure| Failure::Unavailable(failure.to_string()))?;
    let text = if is_json {
        found.iter().fold(String::new(), |text, trail| text + &json!(trail).to_string() + "\n")
    } else {
        table(&found)
    };
    write(text.as_bytes())?;
    Ok(Exit::Done.into())
}

fn table(trails: &[TrailSummary]) -> String {
    if trails.is_empty() {
        return "No trails are here.\n".into();
    }
    let mut rows = vec![HEAD.map(str::to_owned).to_vec()];
    let time = |at: Option<_>| at.map_or_else(|| "-".to_owned(), record_time);
    rows.extend(trails.iter().map(|trail| {
        vec![
            plain(&trail.name),
            trail.state.to_string(),
            time(trail.from),
            time(trail.to),
            plain(&place(trail)),
            trail.digests.to_string(),
            trail.records.map_or_else(|| "-".to_owned(), |records| records.to_string()),
        ]
    }));
    Columns::table(&rows, HEAD.len() - 2)
}

/// Where it began: a pod and its node, or a host.
fn place(TrailSummary { host, pod, namespace, node, .. }: &TrailSummary) -> String {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    match (pod, node) {
        (Some(pod), Some(node)) => format!("{}/{pod} on {node}", text(namespace)),
        (Some(pod), None) => format!("{}/{pod}", text(namespace)),
        (None, _) => host.clone().unwrap_or_else(|| "-".to_owned()),
    }
}

const HEAD: [&str; 7] = ["TRAIL", "STATE", "FROM", "TO", "WHERE", "DIGESTS", "RECORDS"];
