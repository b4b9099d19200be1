//! The command line.

mod admin;
mod allocator;
mod audit;
mod call;
mod check;
#[cfg(feature = "dev")]
mod dev;
mod exit;
mod flush;
mod hardening;
mod health;
mod manual;
mod process_limits;
mod revocation;
mod serve;
mod target;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use key_broker_trail::Remainder;
use tokio_util::sync::CancellationToken;

use crate::app::StartError;
use exit::{Exit, fail, mistake};

/// AWS KMS for local workloads: encryption, data keys and decrypts, with an audit record of every use.
///
/// key-broker runs beside a workload and is the only process there that holds AWS credentials. Workloads call it over gRPC,
/// through a unix socket, mutual TLS or vsock. Every call is recorded before its reply leaves.
#[derive(Debug, Parser)]
#[command(
    name = "key-broker",
    version,
    long_version = manual::LONG_VERSION,
    max_term_width = 100,
    after_help = "New here? `key-broker dev` runs everything on this machine, with no AWS account.\n\
                  Log lines go to stderr; KEY_BROKER_LOG=debug shows more of them.\n\n\
                  Exit codes: 0 done, or yes; 1 failed, or no; 2 cannot tell; 64 mistake in arguments, configuration or environment;\n\
                  75 stopped with records left behind."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the sidecar
    ///
    /// Runs until SIGTERM or SIGINT. Then it accepts no new calls, finishes those in flight, delivers their records, and exits with 0,
    /// or with 75 if some could not be written or delivered in time (the last log line says how many; the next start delivers what is
    /// in the journal). It exits with 64 at start if somebody has to change something: the configuration, a missing folder, a socket
    /// in use. AWS credentials come from the AWS SDK's default chain: environment, profile, IRSA, EKS Pod Identity, ECS, IMDS.
    Serve(ConfigArgument),

    /// Run everything on this machine, with no AWS account
    ///
    /// Starts a KMS emulator on loopback and a broker that uses it, and writes into DIR: broker.sock, admin.sock, journal/ and trail/
    /// (the records), kms/ (the emulator's keys), policy.cedar, key-broker.toml (the configuration in use) and dev.json (addresses
    /// and keys). Keys and records stay from run to run.
    #[cfg(feature = "dev")]
    Dev(dev::Arguments),

    /// In a build without the emulator: says how to get one
    #[cfg(not(feature = "dev"))]
    #[command(hide = true)]
    Dev {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
        _arguments: Vec<std::ffi::OsString>,
    },

    /// Call a broker from the command line
    ///
    /// Prints the reply as JSON, bytes in base64. This includes the plaintext of data keys, which stays in the terminal's scrollback.
    #[command(
        after_help = "Example:\n  key-broker call generate-data-key --key-id alias/dev --context tenant=acme"
    )]
    Call(call::Arguments),

    /// Check a configuration, and everything that `serve` needs
    ///
    /// Reads policy and variables, tries sockets, ports and folders (and removes what it created there), and makes dry runs at AWS.
    ///
    /// Exits with 0 if all is well, 1 if `serve` would lack something, 2 if something could not be checked, 64 if the configuration
    /// itself is wrong. With --as: 0 if the action is allowed, 1 if it is denied, 2 if that depends on something unknown.
    Check(check::Arguments),

    /// Read the trail: follow, print, search, verify, reconcile with AWS CloudTrail, count
    ///
    /// Every command takes --dir for the folder of a `key-broker dev` (by default the one in this directory), --config for a
    /// broker's configuration, or the trail's location.
    #[command(after_help = audit::EXAMPLES)]
    Audit(Box<audit::Arguments>),

    /// Make a broker deliver its trail now, for hooks that run before it is stopped
    ///
    /// Exits with 0 once everything recorded so far, and a digest of it, is in the store, and prints the digest's name; otherwise with 1,
    /// and the broker keeps trying. Uses the operator's socket, as root or the broker's own user.
    Flush(flush::Arguments),

    /// Ask a broker whether it is serving, for exec probes
    ///
    /// Exits with 0 if it is, otherwise with 1. Without --live this is readiness: the broker is not serving while it drains, while its
    /// journal cannot commit, or while KMS does not answer.
    Health(health::Arguments),

    /// Administer a broker: status, cache entries, eviction
    ///
    /// Uses the operator's socket, `listen.admin.path`, as root or the broker's own user. Prints JSON.
    #[command(after_help = admin::EXAMPLES)]
    Admin(admin::Arguments),

    /// Print a shell completion script
    #[command(after_help = "Example:\n  key-broker completion bash > /etc/bash_completion.d/key-broker")]
    Completion(manual::CompletionArguments),

    /// Write man pages
    #[command(after_help = "Example:\n  key-broker man /usr/local/share/man/man1")]
    Man(manual::ManArguments),
}

#[derive(Debug, clap::Args)]
struct ConfigArgument {
    /// The configuration file
    #[arg(long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
}

/// Runs the command of this process to its end.
#[must_use]
pub fn run() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(told) => {
            // Help and version are not mistakes, and a closed stdout is none either.
            let _ = told.print();
            return if told.use_stderr() { Exit::Mistake.into() } else { Exit::Done.into() };
        }
    };
    match cli.command {
        Command::Serve(arguments) => serve::run(&arguments.config),
        #[cfg(feature = "dev")]
        Command::Dev(arguments) => dev::run(&arguments),
        #[cfg(not(feature = "dev"))]
        Command::Dev { .. } => mistake(
            "this build has no KMS emulator: run `cargo dev` in the repository, or build with `--features dev`",
        ),
        Command::Call(arguments) => call::run(arguments),
        Command::Check(arguments) => check::run(&arguments),
        Command::Audit(arguments) => audit::run(*arguments),
        Command::Flush(arguments) => flush::run(&arguments),
        Command::Health(arguments) => health::run(&arguments),
        Command::Admin(arguments) => admin::run(arguments),
        Command::Completion(arguments) => manual::completion(&arguments),
        Command::Man(arguments) => manual::man(&arguments),
    }
}

/// The end of a broker that was stopped.
fn stopped(remainder: &Remainder) -> ExitCode {
    if remainder.is_nothing() { Exit::Done.into() } else { Exit::LeftBehind.into() }
}

/// How a broker ends that could not start, or not go on.
fn not_started(error: &StartError) -> ExitCode {
    if error.is_a_mistake() { mistake(error) } else { fail(error) }
}

/// Runs `work` on a runtime of `threads` threads.
fn block_on(threads: usize, work: impl Future<Output = ExitCode>) -> ExitCode {
    let mut builder = match threads {
        0 | 1 => tokio::runtime::Builder::new_current_thread(),
        n => {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            builder.worker_threads(n);
            builder
        }
    };
    match builder.enable_all().build() {
        Ok(runtime) => {
            let code = runtime.block_on(work);
            // A hanging disk makes a thread hang; do not wait for it.
            runtime.shutdown_timeout(LAST_THREADS);
            code
        }
        Err(error) => fail(format!("cannot start the runtime: {error}")),
    }
}

/// Cancelled by the first SIGTERM or SIGINT. A further SIGTERM changes nothing, so that repeated signals cut off no call.
/// A second SIGINT, from somebody at a terminal who does not want to wait, ends the process at once.
fn drain_on_signal() -> std::io::Result<CancellationToken> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let drain = CancellationToken::new();
    let token = drain.clone();
    tokio::spawn(async move {
        let mut interrupts = 0;
        loop {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => interrupts += 1,
            }
            if interrupts > 1 {
                tracing::warn!("stopped by a second SIGINT: calls in flight are cut off");
                std::process::exit(Exit::CutOff.code().into());
            }
            if token.is_cancelled() {
                tracing::info!("draining already: see limits.drain_seconds");
            } else {
                tracing::info!("draining: calls in flight are finished, new ones refused");
                token.cancel();
            }
        }
    });
    Ok(drain)
}

/// How long abandoned threads may go on.
const LAST_THREADS: std::time::Duration = std::time::Duration::from_millis(500);
const DEFAULT_CONFIG: &str = "/etc/key-broker/key-broker.toml";
