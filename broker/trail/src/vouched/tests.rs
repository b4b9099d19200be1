//! Only what a signed digest names is believed, and only if it is what the digest says; everything else is listed.

use proptest::prelude::*;

use super::*;
use crate::names::TrailNames;
use crate::record::record_time;
use crate::store::{Object, Store, StoreError};
use crate::verify::forge::{Forge, MemoryStore, START, names, signer};

async fn found(
    store: &MemoryStore,
    minutes: (Option<i64>, Option<i64>),
) -> (Vec<String>, Vec<&'static str>, u64) {
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let at = |minutes: i64| START + Duration::minutes(minutes);
    let keys = [signer().public_key().clone()];
    let (period, mut told) = ((minutes.0.map(at), minutes.1.map(at)), Vec::new());
    let mut tell = |done, all| told.push((done, all));
    let files = LogFiles::of(&reader, None, &keys, None, period, &mut tell).await;
    let digests = reader.digest_keys().await.expect("lists").own.len();
    assert_eq!(told, (1..=digests).map(|done| (done, digests)).collect::<Vec<_>>());
    let LogFiles { vouched, unvouched, of_others, .. } = files.expect("lists");
    let mut read = Vec::new();
    for file in vouched {
        if file.read(&reader).await.is_ok() {
            read.push(file.key().to_owned());
        }
    }
    (read, unvouched.into_iter().map(|(_, why)| why).collect(), of_others)
}

fn plant(store: &MemoryStore, key: &str) {
    store.insert(key, b"{\"Records\":[]}", BTreeMap::new());
}

#[tokio::test]
async fn what_a_signed_digest_names_is_believed_as_long_as_it_is_that() {
    let store = Forge::sound().store().await;
    let (all, unvouched, _) = found(&store, (None, None)).await;
    assert_eq!((all.len(), unvouched.len()), (3, 0));
    assert_eq!(found(&store, (Some(100), None)).await.0, all[2..]);
    assert_eq!(found(&store, (None, Some(100))).await.0, all[..2]);
    plant(&store, &all[1]);
    assert_eq!(found(&store, (None, None)).await.0, [all[0].clone(), all[2].clone()], "one was changed");
}

/// A store that returns all objects but one, which it lists.
struct Withholding {
    store: MemoryStore,
    key: String,
}

#[async_trait::async_trait]
impl Store for Withholding {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        self.store.put(object).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        if key == self.key { Err(StoreError("AccessDenied".into())) } else { self.store.get(key).await }
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.store.list(prefix).await
    }
}

/// A digest that the store keeps back is listed, with the time of the records that it may vouch for; the others vouch as ever.
#[tokio::test]
async fn a_digest_that_is_kept_back_is_listed_with_its_time() {
    let keys = [signer().public_key().clone()];
    let whole = Forge::sound().store().await;
    let reader = TrailReader::new(Arc::new(whole.copy()), names(), None);
    let digests = reader.digest_keys().await.expect("lists").own;
    let all =
        LogFiles::of(&reader, None, &keys, None, (None, None), &mut |_, _| {}).await.expect("reads").vouched;
    for (place, digest) in digests.iter().enumerate() {
        let store = Withholding { store: whole.copy(), key: digest.key.clone() };
        let reader = TrailReader::new(Arc::new(store), names(), None);
        let found =
            LogFiles::of(&reader, None, &keys, None, (None, None), &mut |_, _| {}).await.expect("reads");
        let [unread] = &found.unread[..] else { panic!("{place}: {:?}", found.unread) };
        assert_eq!(unread.key, digest.key);
        let lost: Vec<_> = all.iter().filter(|file| !found.vouched.contains(file)).collect();
        assert_eq!(found.unvouched.len(), lost.len(), "{place}");
        for file in lost {
            let [from, to] = unread.times;
            let [oldest, newest] = file.times;
            assert!(from <= oldest && newest <= to, "{place}: {unread:?} {file:?}");
        }
        let before = (Some(START - Duration::days(2)), Some(START - Duration::days(1)));
        let earlier = LogFiles::of(&reader, None, &keys, None, before, &mut |_, _| {}).await.expect("reads");
        assert!(earlier.unread.is_empty() || unread.times[0].is_none(), "{place}: {earlier:?}");
    }
}

/// The minutes of each digest's hour at which the records of its files happened, and how many the clock was set back before. Requests that are
/// signed with a time more than five minutes off are refused by AWS.
fn hours() -> impl Strategy<Value = Vec<(Vec<Vec<i64>>, i64)>> {
    let files = prop::collection::vec(prop::collection::vec(0_i64..60, 1..4), 0..3);
    prop::collection::vec((files, 0_i64..5), 2..6)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whichever digest is kept back, and wherever the clock was set back in between: its time has that of every record that it alone vouches for.
    #[test]
    fn the_time_of_a_digest_that_is_kept_back_has_its_records(hours in hours(), which in any::<prop::sample::Index>()) {
        let mut forge = Forge::default();
        for (hour, (files, back)) in (0..).zip(&hours) {
            let at = |minute: &i64| START + Duration::hours(hour) + Duration::minutes(*minute - back);
            let record = |minute| format!("{{\"eventTime\":\"{}\"}}", record_time(at(minute)));
            forge.digests.push(files.iter().map(|minutes| minutes.iter().map(record).collect()).collect());
        }
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        runtime.block_on(async {
            let (whole, keys) = (forge.store().await, [signer().public_key().clone()]);
            let reader = TrailReader::new(Arc::new(whole.copy()), names(), None);
            let digests = reader.digest_keys().await.expect("lists").own;
            let all = LogFiles::of(&reader, None, &keys, None, (None, None), &mut |_, _| {}).await.expect("reads");
            let key = which.get(&digests).key.clone();
            let reader = TrailReader::new(Arc::new(Withholding { store: whole, key }), names(), None);
            let found = LogFiles::of(&reader, None, &keys, None, (None, None), &mut |_, _| {}).await.expect("reads");
            let [unread] = &found.unread[..] else { panic!("{:?}", found.unread) };
            for lost in all.vouched.iter().filter(|file| !found.vouched.contains(file)) {
                let ([from, to], [oldest, newest]) = (unread.times, lost.times);
                assert!(from <= oldest && newest <= to, "{unread:?} {lost:?}");
            }
        });
    }
}

/// An object that cannot be read, put between two digests by somebody else, excuses nothing: the later one names its predecessor.
#[tokio::test]
async fn an_unreadable_object_between_two_digests_is_none() {
    let keys = [signer().public_key().clone()];
    for minutes in [1, 59, 61, 119, 121, 179] {
        let whole = Forge::sound().store().await;
        let key = names().digest(START + Duration::minutes(minutes));
        whole.insert(&key, b"{}", BTreeMap::new());
        let store = Withholding { store: whole, key };
        let reader = TrailReader::new(Arc::new(store), names(), None);
        let found = LogFiles::of(&reader, None, &keys, None, (None, None), &mut |_, _| {}).await;
        let found = found.expect("reads");
        assert_eq!((found.vouched.len(), found.unread), (3, vec![]), "{minutes}");
    }
}

/// A store that lists and returns nothing is not one with some objects missing, whatever the time that is asked for.
#[tokio::test]
async fn a_store_that_returns_nothing_is_an_error() {
    struct Listing(MemoryStore);

    #[async_trait::async_trait]
    impl Store for Listing {
        async fn put(&self, object: Object) -> Result<bool, StoreError> {
            self.0.put(object).await
        }

        async fn get(&self, _: &str) -> Result<Option<Object>, StoreError> {
            Err(StoreError("the line is down".into()))
        }

        async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
            self.0.list(prefix).await
        }
    }

    let store = MemoryStore::default();
    for hour in 1..=30 {
        store.insert(&names().digest(START + Duration::hours(hour)), b"{}", BTreeMap::new());
    }
    let reader = TrailReader::new(Arc::new(Listing(store)), names(), None);
    let since = (Some(START + Duration::hours(29)), None);
    let found = LogFiles::of(&reader, None, &[], None, since, &mut |_, _| {}).await;
    assert!(found.is_err(), "{found:?}");
}

/// A store in whose bucket the newest digest appears once somebody has listed it without.
struct DigestedMeanwhile {
    store: MemoryStore,
    newest: String,
    dir: std::path::PathBuf,
    after: State,
    was_listed: std::sync::atomic::AtomicBool,
}

#[async_trait::async_trait]
impl Store for DigestedMeanwhile {
    async fn put(&self, object: Object) -> Result<bool, StoreError> {
        self.store.put(object).await
    }

    async fn get(&self, key: &str) -> Result<Option<Object>, StoreError> {
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let mut keys = self.store.list(prefix).await?;
        let is_digests = prefix.contains("Digest");
        if is_digests && !self.was_listed.swap(true, std::sync::atomic::Ordering::Relaxed) {
            keys.retain(|key| *key != self.newest);
            self.after.save(&self.dir).expect("saves");
        }
        Ok(keys)
    }
}

/// What waits for a digest is vouched for by the broker's notes and then by the digest, with no gap in between.
#[tokio::test]
async fn a_digest_that_is_made_meanwhile_vouches_for_its_files() {
    let store = Forge::sound().store().await;
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let newest = reader.digest_keys().await.expect("lists").own.pop().expect("some").key;
    let digest = reader.digest(&newest).await.expect("reads").expect("is there");
    let dir = tempfile::tempdir().expect("a directory");
    let mut before = State::new(names().trail, START + Duration::hours(2));
    before.log_files = digest.log_files;
    before.save(dir.path()).expect("saves");
    let after = State::new(names().trail, START + Duration::hours(3));
    let (dir, was_listed) = (dir.path().to_owned(), false.into());
    let store = Arc::new(DigestedMeanwhile { store, newest, dir: dir.clone(), after, was_listed });
    let reader = TrailReader::new(store, names(), None);
    let keys = [signer().public_key().clone()];
    let files = LogFiles::of(&reader, None, &keys, Some(&dir), (None, None), &mut |_, _| {}).await;
    let files = files.expect("lists");
    assert_eq!((files.vouched.len(), files.unvouched), (3, vec![]));
}

#[tokio::test]
async fn what_nobody_has_signed_is_named_and_left_out() {
    let store = Forge::sound().store().await;
    // Within the digests' time, and in the minute after the newest of them.
    for minutes in [70, 181] {
        plant(&store, &names().log_file(START + Duration::minutes(minutes), &[9; 32]));
    }
    plant(&store, &format!("{}2026/03/01/stolen.json", names().log_folder()));
    let (believed, unvouched, _) = found(&store, (None, None)).await;
    assert_eq!((believed.len(), unvouched), (3, vec!["no digest names it"; 3]));
    assert_eq!(
        found(&store, (None, Some(20))).await.1.len(),
        2,
        "what comes later has no record of that time"
    );

    // A thief's own digest of this trail, and one of another.
    for key in store.keys().iter().filter(|key| key.contains("Digest") && key.contains("T1100")) {
        store.with(|objects| objects.get_mut(key).map(|object| object.metadata.clear()));
    }
    let (believed, unvouched, _) = found(&store, (None, None)).await;
    assert_eq!(believed.len(), 2);
    assert!(unvouched.contains(&"its digest is not signed with a key that was given"), "{unvouched:?}");
}

/// The first digest, as if it were another trail's of this time.
async fn of_another_trail(store: &MemoryStore, end: OffsetDateTime) -> Digest {
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let own = reader.digest_keys().await.expect("lists").own;
    let mut digest = reader.digest(&own[0].key).await.expect("reads").expect("is there");
    digest.digest_s3_object = TrailNames { trail: "other".into(), ..names() }.digest(end);
    digest
}

#[tokio::test]
async fn other_trails_are_left_out() {
    let store = Forge::sound().store().await;
    let (key, end) = (names().log_file(START + Duration::minutes(70), &[9; 32]), START + Duration::hours(4));
    plant(&store, &key);
    let mut digest = of_another_trail(&store, end).await;
    digest.log_files[0].s3_object = key;
    store.sign(&digest, &digest.to_json(), &signer()).await;
    let (believed, unvouched, of_others) = found(&store, (None, None)).await;
    assert_eq!((believed.len(), unvouched.len(), of_others), (3, 0, 1));
}

#[tokio::test]
async fn all_trails_together_vouch_for_their_log_files_and_for_no_other() {
    let store = Forge::sound().store().await;
    let (key, end) = (names().log_file(START + Duration::minutes(70), &[9; 32]), START + Duration::hours(4));
    plant(&store, &key);
    let mut digest = of_another_trail(&store, end).await;
    digest.log_files.truncate(1);
    digest.log_files[0].s3_object = key.clone();
    digest.log_files[0].hash_value = sha256_hex(b"{\"Records\":[]}");
    store.sign(&digest, &digest.to_json(), &signer()).await;
    plant(&store, &names().log_file(START + Duration::minutes(71), &[8; 32]));
    let reader = TrailReader::new(Arc::new(store.copy()), names(), None);
    let keys = [signer().public_key().clone()];
    let found = async |called| {
        LogFiles::of(&reader, called, &keys, None, (None, None), &mut |_, _| {}).await.expect("lists")
    };
    let all = found(Some("*")).await;
    assert_eq!((all.vouched.len(), all.unvouched.len(), all.of_others), (4, 1, 0));
    let other = all.vouched.iter().find(|file| file.key() == key).expect("vouched for");
    assert_eq!((&*other.trail, other.read(&reader).await.is_ok()), ("other", true));
    let some = found(Some("oth*")).await;
    assert_eq!((some.vouched.len(), some.unvouched.len()), (1, 0));
}
