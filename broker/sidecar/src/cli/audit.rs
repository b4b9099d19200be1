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
    /// Shows the newest records that are not delivered yet, then each new one. It goes on over deliveries and restarts of the
    /// broker, until Ctrl-C. Records that are delivered are shown by `audit cat`.
    #[command(after_help = tail::EXAMPLES)]
    Tail(tail::Arguments),

    /// Print log files of the trail, decrypted
    ///
    /// All of them, oldest first, unless told which. To decrypt a log file KMS is asked for its data key; that is recorded in a file
    /// of yours, see --record-to, before anything is shown.
    #[command(after_help = cat::EXAMPLES)]
    Cat(cat::Arguments),

    /// List the trails in a bucket, as their digests say
    ///
    /// Each with the time that it covers, whether it is open, stale, abandoned or closed, and the pod or host on which it began. Nothing of
    /// this is verified.
    #[command(after_help = trails::EXAMPLES)]
    Trails(trails::Arguments),

    /// Tell the story of one call, or of one data key
    ///
    /// Who asked, which policy allowed it, whether KMS was called for it and by which request, every other use of the same data key,
    /// and the trace. It is looked for in the journal and in the log files that a signed digest vouches for; others are named, and left out.
    ///
    /// Exits with 0 if it is found, 1 if there is nothing, 2 if something could not be looked at; with 64 if the arguments or the
    /// configuration are wrong.
    #[command(after_help = find::EXAMPLES)]
    Find(find::Arguments),

    /// Say whether the trail is what the broker delivered, all of it
    ///
    /// Looks at every digest, signature, hash and record, at what is in no digest, at the time between digests, at the journal,
    /// and recomputes from the records alone that no data key was used beyond its age, messages and bytes.
    ///
    /// Exits with 0 if the trail is sound, 1 if it was tampered with or something is wrong, 2 if that cannot be told, as when the
    /// store or a key cannot be reached; with 64 if the arguments or the configuration are wrong.
    #[command(after_help = verify::EXAMPLES)]
    Verify(verify::Arguments),

    /// Join the trail's KMS records with AWS's own CloudTrail
    ///
    /// Every call to KMS that the broker records is in AWS CloudTrail, too, under the same requestID. This tells which calls have
    /// both records, which only one, and in which fields two records of one call differ. A call that AWS has and the trail has
    /// not was made with the broker's credentials by somebody else, or its answer never reached the broker.
    /// Those of an auditor who read the trail with the same credentials are in the auditor's own records: --reader-records.
    ///
    /// Exits with 0 if all is matched, 1 if something is missing on either side or differs, 2 if that cannot be told; with 64 if the
    /// arguments or the configuration are wrong.
    #[command(after_help = reconcile::EXAMPLES)]
    Reconcile(reconcile::Arguments),

    /// Ring when a key that only brokers may use was last used by somebody else
    ///
    /// For a timer: KMS is asked when each key was last used, and by which request (GetKeyLastUsage). What it tells is kept in --state,
    /// and looked for in the trails once every trail that was open then vouches for that time. If it is in none, this rings, and in every
    /// run after that until --acknowledge says that somebody has looked.
    ///
    /// It samples: of each key only the last use is seen, up to an hour late. A thief who makes a broker use the key after him is not.
    ///
    /// Exits with 0 if nothing rings, 1 if something does, 2 if that cannot be told, as when a trail is late or abandoned; with 64 if the
    /// arguments or the configuration are wrong.
    #[command(after_help = watch::EXAMPLES)]
    Watch(watch::Arguments),

    /// Count the requests to KMS, made and saved, and predict the trail's own
    ///
    /// By day, region, account, key and operation. Requests are made for workloads, for the trail itself and to check
    /// revocation; a use that is served from the cache is a request that was saved.
    #[command(after_help = cost::EXAMPLES)]
    Cost(cost::Arguments),

    /// Deliver the journal of a broker that is dead
    ///
    /// As the broker's own end would have: its records become log files of its own trail, which is closed then. The journal must not be
    /// in use, and is changed: run this as the broker's user. Exits with 0 if everything is delivered, 75 if something is left.
    #[command(after_help = deliver::EXAMPLES)]
    Deliver(deliver::Arguments),

    /// Print the public key that digests are checked with
    #[command(after_help = public_key::EXAMPLES)]
    PublicKey(public_key::Arguments),
}

pub(super) const EXAMPLES: &str = "Examples:\n  \
    key-broker audit tail                     # what the broker of `key-broker dev` does, as it does it\n  \
    key-broker audit verify                   # is its trail what was delivered?\n  \
    key-broker audit cat --records | jq .     # its records";

/// Why a command failed.
#[derive(Debug)]
pub(in crate::cli) enum Failure {
    /// Configuration or arguments are wrong.
    Configuration(String),
    /// Something that the command needs cannot be reached.
    Unavailable(String),
    /// Whoever read stdout wants no more.
    NobodyReads,
}

/// How a command ends.
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
