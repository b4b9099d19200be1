//! Whatever happens to journal, store and process, and in whatever order: a trail that lacks records of answered calls is never called
//! sound, and a trail that lacks none is.

mod bound;
mod fleet;
mod many;
#[path = "../../../sidecar/src/cli/audit/cost/plan.rs"]
mod plan;
mod site;
mod stray;
mod taken;
mod versions;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;

use super::encryption::Encryption;
use super::setup::{Means, SetupError, state_in_journal};
use super::{SigningConfig, StoreConfig, Trail, TrailConfig};
use crate::announcer::Announcer;
use crate::names::TrailNames;
use crate::store::Store;
use crate::verify::forge::{names, signer};
use site::{Kill, Site};

/// Continues the trail of a journal, as a start does once it knows its keys.
fn resume(
    store: Arc<dyn Store>,
    encryption: Option<Encryption>,
    announcer: &Announcer,
) -> Result<Trail, SetupError> {
    let config = config_of_the_trail();
    let state = state_in_journal(&config, announcer, None)?;
    let names = TrailNames { trail: state.trail.clone(), ..names() };
    let means = Means { names, store, signer: signer(), encryption };
    Ok(Trail::resume(&config, means, announcer.clone(), state))
}

fn config_of_the_trail() -> TrailConfig {
    TrailConfig {
        name: "key-broker".into(),
        // Unused: the test has its own store.
        store: StoreConfig::Directory { root: PathBuf::new(), bucket: "logs".into() },
        prefix: String::new(),
        delivery_interval: Duration::from_mins(5),
        digest_interval: Duration::from_hours(1),
        kms_key: None,
        signing: SigningConfig::File(PathBuf::new()),
    }
}

/// An event.
#[derive(Debug, Clone)]
enum Step {
    /// This many calls.
    Call(u8),
    Deliver,
    Digest,
    /// A reload that no call's record reports.
    Reload,
    StoreFails,
    StoreIsBack,
    /// A closed file of the journal is removed.
    Remove(usize),
    /// A byte of a closed file is changed.
    Edit(usize, usize),
    /// The journal's directory is removed and made again.
    RemoveDirectory,
    /// The same, after an object was stored and before that is noted.
    RemoveDirectoryWhileDelivering,
    /// The broker is stopped and started again.
    Stop,
    /// The broker is killed and started again.
    Kill(Kill),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        8 => (1..4_u8).prop_map(Step::Call),
        6 => Just(Step::Deliver),
        2 => Just(Step::Digest),
        1 => Just(Step::Reload),
        3 => Just(Step::StoreFails),
        3 => Just(Step::StoreIsBack),
        3 => any::<usize>().prop_map(Step::Remove),
        2 => (any::<usize>(), any::<usize>()).prop_map(|(file, byte)| Step::Edit(file, byte)),
        1 => Just(Step::RemoveDirectory),
        1 => Just(Step::RemoveDirectoryWhileDelivering),
        2 => Just(Step::Stop),
        3 => kill().prop_map(Step::Kill),
    ]
}

fn kill() -> impl Strategy<Value = Kill> {
    prop_oneof![
        any::<bool>().prop_map(|torn| Kill::Now { torn }),
        (0..4_usize, any::<bool>()).prop_map(|(puts, stored)| Kill::WhileDelivering { puts, stored }),
    ]
}

async fn run(steps: Vec<Step>) -> Result<(), TestCaseError> {
    let mut site = Site::new();
    for step in &steps {
        match step {
            Step::Call(times) => site.call(*times).await,
            Step::Deliver => site.deliver().await,
            Step::Digest => site.digest().await,
            Step::Reload => site.reload(),
            Step::StoreFails => site.store.fail(true),
            Step::StoreIsBack => site.store.fail(false),
            Step::Remove(file) => site.remove(*file),
            Step::Edit(file, byte) => site.edit(*file, *byte),
            Step::RemoveDirectory => site.remove_directory(),
            Step::RemoveDirectoryWhileDelivering => site.remove_directory_while_delivering().await,
            Step::Stop => {
                site.stop().await;
                site.start();
            }
            Step::Kill(kill) => {
                site.kill(*kill).await;
                // Verifying now finds what the next start would report.
                site.check_killed().await?;
                site.start();
            }
        }
    }
    site.store.fail(false);
    let remainder = site.stop().await;
    prop_assert!(remainder.is_nothing(), "nothing is left: {remainder}");
    site.check_stopped().await
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, max_shrink_iters: 400, ..ProptestConfig::default() })]

    #[test]
    fn a_trail_is_sound_if_and_only_if_it_has_every_record(steps in prop::collection::vec(step(), 1..28)) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(run(steps))?;
    }
}

/// Cases that were found by hand.
#[tokio::test]
async fn a_closed_file_that_is_gone_is_told_however_the_broker_ends() {
    let gone = || vec![Step::Call(1), Step::Deliver, Step::StoreFails, Step::Call(3), Step::Deliver];
    for rest in [
        vec![Step::Remove(0), Step::StoreIsBack],
        vec![Step::Remove(0), Step::Call(1), Step::StoreIsBack],
        vec![Step::Remove(0), Step::Deliver, Step::Kill(Kill::Now { torn: false })],
        vec![Step::Remove(0), Step::Deliver, Step::Kill(Kill::Now { torn: true }), Step::Call(1)],
        vec![Step::Edit(0, 400), Step::Kill(Kill::Now { torn: false }), Step::StoreIsBack],
        vec![Step::RemoveDirectory, Step::StoreIsBack],
    ] {
        let steps: Vec<_> = gone().into_iter().chain(rest).collect();
        run(steps.clone()).await.unwrap_or_else(|error| panic!("{steps:?}: {error}"));
    }
    // A closed trail is continued, and then lost with all that it has since.
    let steps = vec![Step::Stop, Step::Call(1), Step::RemoveDirectory, Step::Kill(Kill::Now { torn: false })];
    run(steps).await.expect("it does not look closed");
    // The same before the first call, which waits until the trail is open again.
    let lost = [Step::Remove(0), Step::RemoveDirectory, Step::Kill(Kill::Now { torn: false })];
    let steps: Vec<_> = [Step::Stop, Step::StoreFails, Step::Stop].into_iter().chain(lost).collect();
    run(steps).await.expect("nobody was answered");
    // The very first file, which no digest can reveal.
    let steps =
        vec![Step::StoreFails, Step::Call(3), Step::Deliver, Step::Remove(0), Step::Stop, Step::Call(1)];
    run(steps).await.expect("told");
}

/// Every stored object is in a digest, even if the directory is removed before that is noted.
#[tokio::test]
async fn a_log_file_that_could_not_be_noted_is_in_the_next_digest() {
    let mut site = Site::new();
    site.call(3).await;
    site.remove_directory_while_delivering().await;
    site.call(1).await;
    assert!(site.stop().await.is_nothing());
    assert_eq!(site.lacks().await, 0);
    site.check_stopped().await.expect("sound");
}

/// Notices come back together with the trail's state after the directory was removed.
#[tokio::test]
async fn what_is_to_be_told_outlives_a_removed_directory_and_a_kill() {
    let killed = Step::Kill(Kill::Now { torn: false });
    let steps = vec![
        Step::StoreFails,
        Step::Call(3),
        Step::Deliver,
        Step::Remove(0),
        Step::Deliver,
        Step::RemoveDirectory,
        Step::Call(2),
        Step::StoreIsBack,
        Step::Digest,
        killed,
    ];
    run(steps).await.expect("told");
}

/// The directory is removed, and the broker is killed before it could report the loss.
#[tokio::test]
async fn a_removed_directory_and_a_kill_are_never_called_sound() {
    let now = || Step::Kill(Kill::Now { torn: false });
    let removed = Step::Remove(0);
    for steps in [
        vec![
            Step::Call(1),
            now(),
            removed,
            Step::Deliver,
            Step::RemoveDirectory,
            Step::Kill(Kill::WhileDelivering { puts: 0, stored: false }),
        ],
        vec![Step::Call(1), Step::RemoveDirectoryWhileDelivering, Step::Digest, now()],
        vec![Step::Call(1), Step::RemoveDirectory, Step::Digest, now()],
        vec![Step::Call(1), Step::RemoveDirectory, now(), Step::Call(1)],
    ] {
        run(steps.clone()).await.unwrap_or_else(|error| panic!("{steps:?}: {error}"));
    }
}

/// A reload is reported although nobody calls, across stops and kills.
#[tokio::test]
async fn a_reload_that_no_call_tells_is_told_by_the_broker_once() {
    for steps in [
        vec![Step::Reload],
        vec![Step::Reload, Step::Kill(Kill::Now { torn: false })],
        vec![Step::Reload, Step::StoreFails, Step::Stop, Step::Kill(Kill::Now { torn: false })],
        vec![Step::Reload, Step::Deliver, Step::Kill(Kill::WhileDelivering { puts: 0, stored: true })],
    ] {
        run(steps.clone()).await.unwrap_or_else(|error| panic!("{steps:?}: {error}"));
    }
}
