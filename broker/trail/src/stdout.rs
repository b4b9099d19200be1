//! Copies records to stdout, one line of JSON each, for a container's log collector.
//!
//! A separate thread follows the journal, so a reader that is slow delays only this copy; the trail has every record anyway. After a
//! restart, what the journal still holds is copied again.

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use super::journal::Journal;
use super::journal::follow::Follower;

/// The thread that copies.
pub struct StdoutCopy {
    stop: CancellationToken,
    stopped: oneshot::Receiver<()>,
}

impl StdoutCopy {
    /// Copies the records of `journal`, which is in `dir`, from now on.
    pub fn start(dir: &Path, journal: &Journal) -> io::Result<Self> {
        let (stop, (done, stopped)) = (CancellationToken::new(), oneshot::channel());
        let (follower, told, rounds) = (Follower::new(dir), stop.clone(), journal.copies());
        std::thread::Builder::new().name("stdout".into()).spawn(move || {
            copy_until_told(follower, &told, &rounds);
            rounds.send_replace(0);
            // The waiting caller may have given up.
            let _ = done.send(());
        })?;
        Ok(Self { stop, stopped })
    }

    /// Copies the rest, and ends; does not wait for a reader that does not read.
    pub async fn finish(self) {
        self.stop.cancel();
        if tokio::time::timeout(PATIENCE, self.stopped).await.is_err() {
            tracing::warn!("stdout is not read: its last records are in the trail only");
        }
    }
}

fn copy_until_told(mut follower: Follower, told: &CancellationToken, rounds: &watch::Sender<u64>) {
    let mut missed = 0;
    loop {
        let last = told.is_cancelled();
        if let Err(error) = copy_what_is_there(&mut follower) {
            tracing::warn!(%error, "records are no longer copied to stdout");
            return;
        }
        let more = follower.missed() - missed;
        if more > 0 {
            tracing::warn!(records = more, "records were delivered before they could be copied to stdout");
            missed += more;
        }
        rounds.send_modify(|rounds| *rounds += 1);
        if last {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

fn copy_what_is_there(follower: &mut Follower) -> io::Result<()> {
    let mut stdout = io::stdout().lock();
    while let Some(mut record) = follower.next_record()? {
        record.push(b'\n');
        stdout.write_all(&record)?;
    }
    stdout.flush()
}

/// As often as collectors look.
const PAUSE: Duration = Duration::from_millis(100);
const PATIENCE: Duration = Duration::from_secs(2);
