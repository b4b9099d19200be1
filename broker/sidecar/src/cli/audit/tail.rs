//! `key-broker audit tail`: follows the journal.

use std::collections::VecDeque;
use std::io;
use std::path::Path;
use std::time::Duration;

use key_broker_trail::journal::Follower;
use tokio::signal::unix::{SignalKind, signal};

use super::lines::Lines;
use super::output::note;
use super::source::BrokerArguments;
use super::{CommandResult, Failure};
use crate::cli::exit::Exit;

#[derive(Debug, clap::Args)]
#[expect(clippy::struct_excessive_bools, reason = "each is an argument")]
pub(super) struct Arguments {
    #[command(flatten)]
    broker: BrokerArguments,
    /// How many of the newest records to show first
    #[arg(long, short = 'n', value_name = "N", default_value_t = 10)]
    lines: usize,
    /// Continue with each new record (the default)
    #[arg(long, short)]
    follow: bool,
    /// Exit after the newest records
    #[arg(long, conflicts_with = "follow")]
    no_follow: bool,
    /// Show every record, also KMS records and those of the broker's and trail's own calls
    #[arg(long)]
    all: bool,
    /// Print records unchanged, one line of JSON each
    #[arg(long)]
    json: bool,
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit tail\n  \
    key-broker audit tail --config /etc/key-broker/key-broker.toml --lines 100\n  \
    key-broker audit tail --all   # with KMS records, and the trail's own calls\n  \
    key-broker audit tail --json | jq 'select(.errorCode)'";

pub(super) async fn run(arguments: Arguments) -> CommandResult {
    let explain = |error: io::Error| Failure::Unavailable(format!("cannot listen to signals: {error}"));
    let mut interrupt = signal(SignalKind::interrupt()).map_err(explain)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(explain)?;
    let dir = arguments.broker.journal_dir()?;
    let mut follower = Follower::new(&dir);
    let mut lines = Lines::new(arguments.json, arguments.all);
    let newest = newest(&mut follower, &lines, arguments.lines).map_err(|error| unreadable(&dir, &error))?;
    if newest.is_empty() && arguments.lines > 0 {
        note(format_args!(
            "nothing in {} waits to be delivered: `key-broker audit cat` shows what was",
            dir.display()
        ));
    }
    lines.make_room(&newest);
    for record in newest {
        lines.show(&record)?;
    }
    if arguments.no_follow {
        return Ok(Exit::Done.into());
    }
    let mut missed = follower.missed();
    loop {
        tokio::select! {
            _ = interrupt.recv() => return Ok(Exit::Done.into()),
            _ = terminate.recv() => return Ok(Exit::Done.into()),
            () = tokio::time::sleep(PAUSE) => {}
        }
        loop {
            match follower.next_record() {
                Ok(Some(record)) => lines.show(&record)?,
                // A directory that is away may come back, as the broker itself expects.
                Ok(None) => break,
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                Err(error) => return Err(unreadable(&dir, &error)),
            }
        }
        if follower.missed() > missed {
            let more = follower.missed() - missed;
            note(format_args!(
                "{more} records were delivered before they could be shown: `key-broker audit cat` has them"
            ));
            missed = follower.missed();
        }
    }
}

/// The newest records that `lines` shows.
fn newest(follower: &mut Follower, lines: &Lines, number: usize) -> io::Result<VecDeque<Vec<u8>>> {
    let mut newest = VecDeque::new();
    while let Some(record) = follower.next_record()? {
        if !lines.wants(&record) {
            continue;
        }
        newest.push_back(record);
        if newest.len() > number {
            newest.pop_front();
        }
    }
    Ok(newest)
}

fn unreadable(dir: &Path, error: &io::Error) -> Failure {
    let next = match error.kind() {
        io::ErrorKind::NotFound => "has a broker run with this configuration?",
        io::ErrorKind::PermissionDenied => "only the broker's own user and root may read it",
        _ => "look at its disk",
    };
    let told = format!("the journal in {}: {error}: {next}", dir.display());
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied => Failure::Configuration(told),
        _ => Failure::Unavailable(told),
    }
}

/// As fast as people look.
const PAUSE: Duration = Duration::from_millis(100);
