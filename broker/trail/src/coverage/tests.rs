//! A trail vouches for a time once a digest that it has signed begins after that, or once it is closed; before that it is told whether more
//! is to come, and what stands in the way is never taken for nothing.

use super::*;
use crate::verify::forge::{Forge, MemoryStore, START, names, signer};

const SKEW: Duration = Duration::minutes(5);

async fn covered(store: &MemoryStore, since: i64) -> Coverage {
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let keys = [signer().public_key().clone()];
    let now = START + Duration::hours(90);
    Coverage::since(&reader, "*", &keys, START + Duration::minutes(since), now).await.expect("reads")
}

fn vouching(coverage: &Coverage, minute: i64, now_hours: i64) -> Vouching {
    let [trail] = &coverage.trails[..] else { panic!("{} trails", coverage.trails.len()) };
    trail.vouching(START + Duration::minutes(minute), SKEW, START + Duration::hours(now_hours))
}

/// The newest digest, said to be the last of its trail.
async fn close(store: &MemoryStore) {
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let newest = reader.digest_keys().await.expect("lists").own.pop().expect("some").key;
    let mut digest = reader.digest(&newest).await.expect("reads").expect("is there");
    digest.key_broker.as_mut().expect("ours").position = Some(Position::Closing);
    store.sign(&digest, &digest.to_json(), &signer()).await;
}

/// The forge's digests end after one, two and three hours.
#[tokio::test]
async fn a_digest_that_begins_later_vouches() {
    let coverage = covered(&Forge::sound().store().await, 0).await;
    assert_eq!(coverage.trails[0].files.len(), 3);
    for (minute, now, expected) in [
        (-10, 4, Vouching::NotOpen),
        (-5, 4, Vouching::Whole),
        (30, 4, Vouching::Whole),
        (114, 4, Vouching::Whole),
        (115, 4, Vouching::NotYet),
        (170, 4, Vouching::NotYet),
        (185, 4, Vouching::NotYet),
        (170, 6, Vouching::Late),
        (170, 40, Vouching::Abandoned),
        (20 * 60, 40, Vouching::Abandoned),
        (30 * 60, 40, Vouching::NotOpen),
    ] {
        assert_eq!(vouching(&coverage, minute, now), expected, "minute {minute}, seen after {now} hours");
    }
}

#[tokio::test]
async fn a_trail_that_is_closed_has_all() {
    let store = Forge::sound().store().await;
    close(&store).await;
    let coverage = covered(&store, 0).await;
    for (minute, expected) in [(170, Vouching::Whole), (185, Vouching::Whole), (186, Vouching::NotOpen)] {
        assert_eq!(vouching(&coverage, minute, 90), expected, "{minute}");
    }
}

#[tokio::test]
async fn only_what_can_tell_of_a_time_is_read() {
    let store = Forge::sound().store().await;
    assert_eq!(
        covered(&store, 130).await.trails[0].files.len(),
        1,
        "and of the digest before, which has none"
    );
    assert_eq!(
        covered(&store, 60 * 60).await.trails[0].files.len(),
        1,
        "the newest tells whether more is to come"
    );
    assert!(covered(&store, 80 * 60).await.trails.is_empty(), "whatever it was, it was not open then");
}

#[tokio::test]
async fn what_nobody_signed_and_what_is_missing_is_told() {
    let sound = Forge::sound().store().await;
    let named = |store: &MemoryStore, hour: &str| {
        store.keys().into_iter().find(|key| key.contains("Digest") && key.contains(hour)).expect("there")
    };
    for (hour, expected) in
        [("T0900", Vouching::Broken), ("T1000", Vouching::Broken), ("T1100", Vouching::Unsigned)]
    {
        let store = sound.copy();
        let key = named(&store, hour);
        store.with(|objects| objects.get_mut(&key).map(|object| object.metadata.clear()));
        assert_eq!(vouching(&covered(&store, 0).await, 30, 4), expected, "{hour}");
    }
    let store = sound.copy();
    let key = named(&store, "T1000");
    store.with(|objects| objects.remove(&key));
    assert_eq!(vouching(&covered(&store, 0).await, 30, 4), Vouching::Broken);
    let lost = Forge { lost: Some((0, 3)), ..Forge::sound() }.store().await;
    assert_eq!(vouching(&covered(&lost, 0).await, 30, 4), Vouching::Broken, "records of the journal");
}

#[tokio::test]
async fn where_the_broker_runs_is_in_the_first_digest() {
    let store = Forge::sound().store().await;
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let first = reader.digest_keys().await.expect("lists").own.remove(0).key;
    let mut digest = reader.digest(&first).await.expect("reads").expect("is there");
    let origin = crate::origin::Origin {
        pod: Some("orders-0".into()),
        namespace: Some("shop".into()),
        ..Default::default()
    };
    digest.key_broker.as_mut().expect("ours").origin = Some(origin);
    store.sign(&digest, &digest.to_json(), &signer()).await;
    // The first digest is not among those that are read.
    let coverage = covered(&store, 130).await;
    assert_eq!(coverage.trails[0].place.as_deref(), Some("shop/orders-0"));
}
