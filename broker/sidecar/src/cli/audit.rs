//! `key-broker audit`: the trail, for operators and auditors.

mod cat;
mod cost;
mod deliver;
#[cfg(feature = "dev")]
mod dev;
mod find;
pub(in crate::cli) mod lines;
mod log_files;
mod output;
mod period;
mod progress;
mod public_key;
mod reconcile;
mod saved;
mod source;
mod tail;
mod trails;
mod verify;
mod watch;

use std::process::ExitCode;

use clap::Subcommand;
use key_broker_core::secret;

use super::block_on;
use super::exit::{Exit, fail, mistake};
use super::hardening::harden;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Follow the journal: a line for each record as it is written
    ///
    /// Shows the newest records that are not delivered yet, then each new one, across deliveries and restarts of the broker, until
    /// Ctrl-C. `audit cat` shows delivered records.
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Arguments),

    /// Print log files of the trail, decrypted
    ///
    /// All of them, oldest first, unless some are named. Decrypting a log file takes a KMS call for its data key, which is recorded in
    /// a file of yours (--record-to) before anything is shown.
    #[command(after_help = cat::EXAMPLES)]
    Cat(cat::Arguments),

    /// List the trails in a bucket, according to their digests
    ///
    /// Each with the time that it covers, its state (open, stale, abandoned or closed), and the pod or host on which it began. Nothing
    /// is verified.
    #[command(after_help = trails::EXAMPLES)]
    Trails(trails::Arguments),

    /// Show the story of one call, or of one data key
    ///
    /// Shows who called, which policy allowed it, whether and by which request KMS was called, every other use of the same data key, and
    /// the trace. Searches the journal and the log files that a signed digest vouches for; others are named and left out.
    ///
    /// Exits with 0 if something is found, 1 if not, 2 if something could not be searched, 64 if arguments or configuration are wrong.
    #[command(after_help = find::EXAMPLES)]
    Find(find::Arguments),

    /// Verify that the trail is complete and unaltered
    ///
    /// Checks every digest, signature, hash and record, objects that are in no digest, gaps between digests and the journal, and
    /// recomputes from the records alone that no data key was used beyond its limits on age, messages and bytes.
    ///
    /// Exits with 0 if the trail is sound, 1 if it was tampered with or something is wrong, 2 if it cannot tell, as when the store or
    /// a key cannot be reached, 64 if arguments or configuration are wrong.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Arguments),

    /// Compare the trail's KMS records with AWS CloudTrail
    ///
    /// Every KMS call that the broker records is in AWS CloudTrail too, under the same requestID. This reports which calls have both
    /// records, which only one, and which fields differ. A call that only AWS has was made by somebody else with the broker's
    /// credentials, or its answer never reached the broker. Calls of an auditor who read the trail with the same credentials are
    /// in the auditor's own records: --reader-records.
    ///
    /// Exits with 0 if everything matches, 1 if something is missing on either side or differs, 2 if it cannot tell, 64 if arguments
    /// or configuration are wrong.
    #[command(after_help = reconcile::EXAMPLES)]
    Reconcile(reconcile::Arguments),

    /// Raise an alarm if somebody else last used a key that only brokers may use
    ///
    /// For a timer. Asks KMS when each key was last used, and by which request (GetKeyLastUsage), keeps the answer in --state, and looks
    /// for it in the trails once every trail that was open then vouches for that time. If none has it, this is an alarm, in every run
    /// until --acknowledge.
    ///
    /// It samples: it sees only the last use of each key, up to an hour late, so a thief who makes a broker use the key afterwards is
    /// not seen.
    ///
    /// Exits with 0 without an alarm, 1 with one, 2 if it cannot tell, as when a trail is late or abandoned, 64 if arguments or
    /// configuration are wrong.
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::Arguments),

    /// Count the KMS requests made and saved, and predict the trail's own
    ///
    /// By day, region, account, key and operation. Requests are made for workloads, for the trail and for revocation checks; every use
    /// served from the cache saves one.
    #[command(after_help = cost::EXAMPLES)]
    Cost(cost::Arguments),

    /// Deliver the journal of a dead broker
    ///
    /// As the broker would have at its end: the records become log files of its own trail, which is then closed. The journal must not be
    /// in use, and is changed: run this as the broker's user. Exits with 0 if everything is delivered, 75 if something is left.
    #[command(after_help = deliver::EXAMPLES)]
    Deliver(deliver::Arguments),

    /// Print the public key that verifies digests
    #[command(after_help = public_key::EXAMPLES)]
    PublicKey(public_key::Arguments),
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit tail                     # follow the broker of `key-broker dev`\n  \
    key-broker audit verify                   # is its trail complete and unaltered?\n  \
    key-broker audit cat --records | jq .     # its delivered records";

/// Why a command failed.
#[derive(Debug)]
pub(in crate::cli) enum Failure {
    /// Configuration or arguments are wrong.
    Configuration(String),
    /// Something that the command needs cannot be reached.
    Unavailable(String),
    /// The reader of stdout has closed it.
    NobodyReads,
}

/// The outcome of a command.
type CommandResult = Result<ExitCode, Failure>;

pub(super) fn run(arguments: Arguments) -> ExitCode {
    // Data keys of log files are key material. A read-only command runs even where the process cannot be
    // hardened.
    let _ = harden();
    secret::prepare();
    block_on(1, async {
        let (done, unavailable) = match arguments.command {
            Command::Tail(arguments) => (tail::run(arguments).await, Exit::No),
            Command::Cat(arguments) => (Box::pin(cat::run(arguments)).await, Exit::No),
            Command::Find(arguments) => (Box::pin(find::run(arguments)).await, Exit::CannotTell),
            Command::Trails(arguments) => (Box::pin(trails::run(arguments)).await, Exit::No),
            Command::Verify(arguments) => (Box::pin(verify::run(arguments)).await, Exit::CannotTell),
            Command::Reconcile(arguments) => (Box::pin(reconcile::run(arguments)).await, Exit::CannotTell),
            Command::Watch(arguments) => (Box::pin(watch::run(arguments)).await, Exit::CannotTell),
            Command::Cost(arguments) => (Box::pin(cost::run(arguments)).await, Exit::No),
            Command::Deliver(arguments) => (Box::pin(deliver::run(arguments)).await, Exit::No),
            Command::PublicKey(arguments) => (Box::pin(public_key::run(arguments)).await, Exit::No),
        };
        match done {
            Ok(code) => code,
            Err(Failure::NobodyReads) => Exit::Done.into(),
            Err(Failure::Configuration(why)) => mistake(why),
            Err(Failure::Unavailable(why)) => {
                let _ = fail(why);
                unavailable.into()
            }
        }
    })
}
