//! Data keys with bounded reuse: a draw is served from a key that is there, within its bounds, or waits for one call to
//! KMS that all who want the same key share.
//!
//! Attested calls cannot get here: the requests that this module takes have no recipient.

pub mod bounds;
mod partition;
mod revocation;
pub mod rules;
mod slot;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use moka::ops::compute::Op;
use time::OffsetDateTime;

use crate::audit::record::{Action, DeclaredUse};
use crate::clock::Clock;
use crate::error::{BrokerError, KmsError, KmsErrorKind};
use crate::identity::Principal;
use crate::key::{KeyArn, KeyId};
use crate::kms::recorded::{Recorded, RecordedKms, Source, UnwrittenRecords};
use crate::kms::{DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey, Uses};
use crate::policy::Permit;
use bounds::{Bounds, Moment, Reuse, UNBOUNDED, UNUSED};
use partition::{Owner, Partition, Subject};
use rules::{Rule, Rules};
use slot::{Demand, Draw, Failure, Minted, REFRESH_PAUSE, Slot, Step};

/// The keys that are kept, and the way to KMS for those that are not.
#[derive(Clone)]
pub struct Cache(Arc<Inner>);

struct Inner {
    rules: Rules,
    kms: RecordedKms,
    clock: Arc<dyn Clock>,
    data_keys: Pool<DataKey>,
    encrypted_data_keys: Pool<EncryptedDataKey>,
    decrypted: Pool<Decrypted>,
    counts: Counts,
}

#[derive(Default)]
struct Counts {
    uses_from_cache: AtomicU64,
    kms_calls: AtomicU64,
    evictions: AtomicU64,
}

impl Counts {
    fn call<T>(&self, result: &Result<T, BrokerError>) {
        // These were refused before KMS was asked.
        if !matches!(result, Err(BrokerError::KmsBusy | BrokerError::KmsResting(_))) {
            self.kms_calls.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// What happened since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Totals {
    /// Draws that were served by a call to KMS made for another draw.
    pub uses_from_cache: u64,
    /// Calls to KMS made for draws.
    pub kms_calls: u64,
    /// Keys that were dropped before they came to their bounds.
    pub evictions: u64,
}

/// What came of a draw, with what its record needs.
pub struct Drawn<T> {
    /// The key, or why there is none.
    pub result: Result<Arc<T>, BrokerError>,
    /// The call to KMS behind it.
    pub source: Option<Source>,
    /// Whether that call was made for this draw.
    pub called_kms: bool,
    /// How far the data key is used, and may be; none for what is no data key.
    pub reuse: Option<Reused>,
    /// When the answer is handed out for the last time; none if it is handed out once.
    pub expires_at: Option<OffsetDateTime>,
    /// KMS records to be committed with this call's; none where they are in the journal already.
    pub records: Option<UnwrittenRecords>,
}

/// How far a data key has been used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reused {
    /// Charged so far, this draw included.
    pub used: DeclaredUse,
    /// Allowed in all.
    pub limit: DeclaredUse,
}

/// Something that KMS makes and the cache may keep.
#[async_trait]
trait Mint: Uses + Send + Sync + Sized + 'static {
    type Request: Send + Sync + 'static;

    /// Whether draws are charged: a data key encrypts, a decrypted ciphertext is only looked at again.
    const IS_CHARGED: bool;

    fn pool(inner: &Inner) -> &Pool<Self>;

    fn partition(owner: Owner<'_>, action: Action, request: &Self::Request) -> Partition;

    /// Whether a request may be answered by a kept key at all.
    fn may_reuse(request: &Self::Request) -> bool;

    fn key(request: &Self::Request) -> Option<&KeyId>;

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<Self::Request>,
        until: Instant,
    ) -> Recorded<Self>;
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub fn new(rules: Rules, kms: RecordedKms, clock: Arc<dyn Clock>) -> Self {
        let max_entries = rules.max_entries;
        Self(Arc::new(Inner {
            rules,
            kms,
            clock,
            data_keys: Pool::new(max_entries),
            encrypted_data_keys: Pool::new(max_entries),
            decrypted: Pool::new(max_entries),
            counts: Counts::default(),
        }))
    }

    /// A data key.
    pub async fn data_key(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DataKeyRequest>,
        wish: Wish,
    ) -> Drawn<DataKey> {
        self.draw(permit, principal, request, wish).await
    }

    /// A data key in encrypted form only.
    pub async fn encrypted_data_key(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DataKeyRequest>,
        wish: Wish,
    ) -> Drawn<EncryptedDataKey> {
        self.draw(permit, principal, request, wish).await
    }

    /// A decrypt.
    pub async fn decrypt(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DecryptRequest>,
        wish: Wish,
    ) -> Drawn<Decrypted> {
        self.draw(permit, principal, request, wish).await
    }

    async fn draw<T: Mint>(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<T::Request>,
        wish: Wish,
    ) -> Drawn<T> {
        let rule = self.0.rules.of(principal, T::key(&request));
        let mut bounds = rule.bounds.tightened(&wish.reuse);
        if !T::IS_CHARGED {
            bounds = Bounds { max_age: bounds.max_age, ..UNBOUNDED };
        }
        let fits = bounds.charge(UNUSED, wish.declared).is_some();
        if !rule.enabled || wish.reuse.fresh || !fits || !T::may_reuse(&request) {
            return self.call_kms(permit, request, wish).await;
        }
        match self.draw_kept(&permit, principal, &request, rule, bounds, wish).await {
            Some(drawn) => {
                if drawn.result.is_ok() && !drawn.called_kms {
                    self.0.counts.uses_from_cache.fetch_add(1, Ordering::Relaxed);
                }
                drawn
            }
            // Its slot went out of use meanwhile: the cache is full of others.
            None => self.call_kms(permit, request, wish).await,
        }
    }

    /// A draw from the partition's slot; `None` if that goes out of use.
    async fn draw_kept<T: Mint>(
        &self,
        permit: &Permit,
        principal: &Principal,
        request: &Arc<T::Request>,
        rule: &Rule,
        bounds: Bounds,
        wish: Wish,
    ) -> Option<Drawn<T>> {
        let owner = rule.partition.as_deref().map_or(Owner::Principal(principal.as_str()), Owner::Shared);
        let partition = T::partition(owner, permit.action(), request);
        let entry = T::pool(&self.0).entry(partition, rule, owner, permit.action(), T::key(request));
        let now = Moment::now(&*self.0.clock);
        let demand = Demand { permit: permit.again(), declared: wish.declared, bounds };
        let step = entry.slot().draw(&now, demand);
        let (wait, call) = match step {
            Step::Retired => return None,
            Step::Drawn(draw, refresh) => {
                if let Some(permit) = refresh {
                    self.spawn_mint(permit, entry, Arc::clone(request));
                }
                return Some(Drawn::of(draw, bounds, T::IS_CHARGED));
            }
            Step::Wait(wait, call) => (wait, call),
        };
        if let Some(permit) = call {
            self.spawn_mint(permit, entry, Arc::clone(request));
        }
        let remaining = wish.until.saturating_duration_since(now.instant);
        match tokio::time::timeout(remaining, wait).await {
            Ok(Ok(Ok(draw))) => Some(Drawn::of(draw, bounds, T::IS_CHARGED)),
            Ok(Ok(Err(Failure::Error(error)))) => Some(Drawn::failed(error)),
            Ok(Ok(Err(Failure::Retired))) => None,
            // The task that makes the call ends by panic only.
            Ok(Err(_)) => Some(Drawn::failed(BrokerError::Bug)),
            Err(_) => Some(Drawn::failed(BrokerError::DeadlineExceeded)),
        }
    }

    /// A key that is handed out once and not kept.
    async fn call_kms<T: Mint>(&self, permit: Permit, request: Arc<T::Request>, wish: Wish) -> Drawn<T> {
        let minted = T::mint(&self.0.kms, permit, Arc::clone(&request), wish.until).await;
        self.0.counts.call(&minted.result);
        if let Err(BrokerError::Kms(error)) = &minted.result {
            self.heed_refusal(error, T::key(&request));
        }
        // A data key that is handed out once has its use as its limit.
        let once = Reused { used: wish.declared, limit: wish.declared };
        Drawn { reuse: (T::IS_CHARGED && minted.result.is_ok()).then_some(once), ..minted.into() }
    }

    /// Calls KMS for a slot in a task of its own, and again while somebody is left waiting.
    fn spawn_mint<T: Mint>(&self, permit: Permit, entry: Arc<Entry<T>>, request: Arc<T::Request>) {
        let cache = self.clone();
        self.0.kms.tasks().spawn(async move {
            let mut next = Some(permit);
            while let Some(permit) = next {
                next = cache.mint_once(permit, &entry, Arc::clone(&request)).await;
            }
        });
    }

    async fn mint_once<T: Mint>(
        &self,
        permit: Permit,
        entry: &Entry<T>,
        request: Arc<T::Request>,
    ) -> Option<Permit> {
        let inner = &*self.0;
        let epoch = entry.slot().epoch();
        let asked = Moment::now(&*inner.clock);
        let until = asked.instant + inner.rules.kms_deadline;
        let Recorded { result, source, records } =
            T::mint(&inner.kms, permit, Arc::clone(&request), until).await;
        inner.counts.call(&result);
        // Every reply that this key will be in must find its KMS record in the journal.
        let committed = records.commit().await;
        let result = match (result, source, committed) {
            (Ok(value), Some(source), Ok(())) => Ok(Minted { value: Arc::new(value), source, asked }),
            (Ok(_), _, Err(_)) => Err(BrokerError::JournalUnavailable),
            (Ok(_), None, Ok(())) => Err(BrokerError::Bug),
            (Err(error), _, _) => Err(error),
        };
        let now = Moment::now(&*inner.clock);
        match result {
            Ok(minted) => {
                let mut slot = entry.slot();
                if let Some((arn, _)) = minted.value.used_key() {
                    slot.judge(arn);
                }
                slot.minted(&now, epoch, minted)
            }
            Err(error) => {
                let for_good = match &error {
                    BrokerError::Kms(kms) => {
                        self.heed_refusal(kms, T::key(&request));
                        !matches!(kms.kind, KmsErrorKind::Throttled | KmsErrorKind::Unavailable)
                    }
                    // The guard has made them wait already, or would refuse again.
                    BrokerError::KmsBusy | BrokerError::KmsResting(_) => true,
                    _ => false,
                };
                let not_before =
                    Moment { instant: now.instant + REFRESH_PAUSE, wall: now.wall + REFRESH_PAUSE };
                entry.slot().failed(not_before, &error, for_good)
            }
        }
    }

    /// KMS has refused a key: nothing that was made with it is handed out again.
    pub fn heed_refusal(&self, error: &KmsError, asked: Option<&KeyId>) {
        use KmsErrorKind::{AccessDenied, Disabled, InvalidState, NotFound};
        if !matches!(error.kind, AccessDenied | Disabled | InvalidState | NotFound) {
            return;
        }
        // A key has several names: what is kept under the refused one tells which key it is.
        let mut arns: Vec<KeyArn> = error.message.as_deref().and_then(KeyArn::find_in).into_iter().collect();
        self.list(&mut |entry| {
            let Some((key, arn)) = asked.zip(entry.arn) else { return };
            if (entry.key == Some(key) || key.names(arn)) && !arns.contains(arn) {
                arns.push(arn.clone());
            }
        });
        let mut refused: Vec<KeyId> = arns.iter().map(KeyId::from).collect();
        if let Some(asked) = asked.filter(|asked| !refused.contains(asked)) {
            refused.push(asked.clone());
        }
        let evicted: usize = refused.iter().map(|key| self.evict(&Chosen::Key(key))).sum();
        if evicted > 0 {
            tracing::warn!(error = error.code, evicted, "KMS refuses a key: its data keys are dropped");
        }
    }

    /// Drops the chosen keys, and what calls to KMS under way will bring of them. Returns how many keys were dropped. A draw
    /// that begins afterwards gets none of them.
    #[expect(clippy::must_use_candidate, reason = "the keys are gone whether or not anybody counts them")]
    pub fn evict(&self, chosen: &Chosen<'_>) -> usize {
        let inner = &*self.0;
        let evicted = inner.data_keys.evict(chosen)
            + inner.encrypted_data_keys.evict(chosen)
            + inner.decrypted.evict(chosen);
        inner.counts.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
        evicted
    }

    /// Shows every kept key to `show`.
    pub fn list(&self, show: &mut dyn FnMut(&Listed<'_>)) {
        let inner = &*self.0;
        inner.data_keys.list(show);
        inner.encrypted_data_keys.list(show);
        inner.decrypted.list(show);
    }

    /// What happened since the start.
    #[must_use]
    pub fn totals(&self) -> Totals {
        let counts = &self.0.counts;
        Totals {
            uses_from_cache: counts.uses_from_cache.load(Ordering::Relaxed),
            kms_calls: counts.kms_calls.load(Ordering::Relaxed),
            evictions: counts.evictions.load(Ordering::Relaxed),
        }
    }

    /// Drops keys that are past their age.
    pub fn sweep_now(&self) {
        self.0.sweep();
    }

    /// Drops keys that are past their age again and again, so that they do not stay in memory, until the cache itself is dropped.
    pub async fn sweep(self, every: Duration) {
        let inner = Arc::downgrade(&self.0);
        drop(self);
        loop {
            tokio::time::sleep(every).await;
            let Some(inner) = inner.upgrade() else { return };
            inner.sweep();
        }
    }
}

impl Inner {
    fn sweep(&self) {
        let now = Moment::now(&*self.clock);
        self.data_keys.sweep(&now);
        self.encrypted_data_keys.sweep(&now);
        self.decrypted.sweep(&now);
    }
}

/// What a caller wants of a draw, beside the key.
#[derive(Debug, Clone, Copy)]
pub struct Wish {
    /// What the key will encrypt.
    pub declared: DeclaredUse,
    /// Tighter bounds.
    pub reuse: Reuse,
    /// When the caller stops waiting.
    pub until: Instant,
}

/// Which kept keys to drop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Chosen<'a> {
    /// Everything.
    All,
    /// What is kept for this principal alone.
    Principal(&'a str),
    /// What callers asked for by the same words, and what is under the KMS key that these words name.
    Key(&'a KeyId),
}

/// A kept key, without its secrets.
pub struct Listed<'a> {
    /// Whose it is: a principal, or a shared partition.
    pub owner: &'a str,
    /// Whether that is a shared partition.
    pub is_shared: bool,
    /// What it answers.
    pub action: Action,
    /// The KMS key as the caller wrote it.
    pub key: Option<&'a KeyId>,
    /// The KMS key's ARN.
    pub arn: Option<&'a KeyArn>,
    /// The call to KMS behind it.
    pub source: &'a Source,
    /// When it is handed out for the last time.
    pub expires_at: OffsetDateTime,
    /// How far it is used; none for what is no data key.
    pub reuse: Option<Reused>,
}

impl<T> From<Recorded<T>> for Drawn<T> {
    fn from(recorded: Recorded<T>) -> Self {
        let Recorded { result, source, records } = recorded;
        Self {
            result: result.map(Arc::new),
            source,
            called_kms: true,
            reuse: None,
            expires_at: None,
            records: Some(records),
        }
    }
}

impl<T> Drawn<T> {
    fn of(draw: Draw<T>, bounds: Bounds, is_charged: bool) -> Self {
        let limit = DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes };
        Self {
            result: Ok(draw.value),
            source: Some(draw.source),
            called_kms: draw.called_kms,
            reuse: is_charged.then_some(Reused { used: draw.used, limit }),
            expires_at: Some(draw.asked.wall + bounds.max_age),
            records: None,
        }
    }

    fn failed(error: BrokerError) -> Self {
        Self {
            result: Err(error),
            source: None,
            called_kms: true,
            reuse: None,
            expires_at: None,
            records: None,
        }
    }
}

/// The slots of one kind of key.
struct Pool<T>(moka::sync::Cache<Partition, Arc<Entry<T>>>);

struct Entry<T> {
    owner: String,
    is_shared: bool,
    action: Action,
    key: Option<KeyId>,
    slot: Mutex<Slot<T>>,
}

impl<T: Mint> Pool<T> {
    fn new(max_entries: u64) -> Self {
        // moka bounds the number; age is ours to keep. Least recently used, so that a newcomer is always let in.
        let retire = |_: Arc<Partition>, entry: Arc<Entry<T>>, _| {
            entry.slot().retire();
        };
        let cache = moka::sync::Cache::builder()
            .max_capacity(max_entries)
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .eviction_listener(retire)
            .build();
        Self(cache)
    }

    fn entry(
        &self,
        partition: Partition,
        rule: &Rule,
        owner: Owner<'_>,
        action: Action,
        key: Option<&KeyId>,
    ) -> Arc<Entry<T>> {
        let bounds =
            if T::IS_CHARGED { rule.bounds } else { Bounds { max_age: rule.bounds.max_age, ..UNBOUNDED } };
        self.0.get_with(partition, || {
            Arc::new(Entry {
                owner: owner.name().to_owned(),
                is_shared: matches!(owner, Owner::Shared(_)),
                action,
                key: key.cloned(),
                slot: Mutex::new(Slot::new(bounds, rule.refresh_at)),
            })
        })
    }

    fn evict(&self, chosen: &Chosen<'_>) -> usize {
        let evicted = self.0.iter().map(|(_, entry)| entry.evict(chosen)).sum();
        // An entry that moka takes out on another thread may be missed above, while a draw still holds it: its keys are
        // dropped by the listener. moka's own tasks exclude each other, so the listener has run when this returns.
        self.0.run_pending_tasks();
        evicted
    }

    fn list(&self, show: &mut dyn FnMut(&Listed<'_>)) {
        for (_, entry) in &self.0 {
            let slot = entry.slot();
            for (minted, used) in slot.kept() {
                show(&entry.listed(slot.bounds(), minted, used));
            }
        }
    }

    fn sweep(&self, now: &Moment) {
        for (partition, entry) in &self.0 {
            if entry.slot().sweep(now) {
                // Only this very entry: another may have taken its place.
                self.0.entry(*partition).and_compute_with(|found| match found {
                    Some(found) if Arc::ptr_eq(found.value(), &entry) => Op::Remove,
                    _ => Op::Nop,
                });
            }
        }
        self.0.run_pending_tasks();
    }
}

impl<T: Mint> Entry<T> {
    fn slot(&self) -> MutexGuard<'_, Slot<T>> {
        // A panic in the state machine is a defect; what it holds is still within its bounds.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evict(&self, chosen: &Chosen<'_>) -> usize {
        let mut slot = self.slot();
        let wholly = match chosen {
            Chosen::All => true,
            Chosen::Principal(principal) => !self.is_shared && self.owner == *principal,
            Chosen::Key(key) if self.key.as_ref() == Some(*key) => true,
            Chosen::Key(key) if self.key.as_ref().is_some_and(|own| !own.may_mean(key)) => false,
            Chosen::Key(key) => {
                return slot.evict_key(key, |value| value.used_key().is_some_and(|(arn, _)| key.names(arn)));
            }
        };
        if wholly { slot.evict() } else { 0 }
    }

    fn listed<'a>(&'a self, bounds: &Bounds, minted: &'a Minted<T>, used: DeclaredUse) -> Listed<'a> {
        let limit = DeclaredUse { messages: bounds.max_messages, bytes: bounds.max_bytes };
        Listed {
            owner: &self.owner,
            is_shared: self.is_shared,
            action: self.action,
            key: self.key.as_ref(),
            arn: minted.value.used_key().map(|(arn, _)| arn),
            source: &minted.source,
            expires_at: minted.asked.wall + bounds.max_age,
            reuse: T::IS_CHARGED.then_some(Reused { used, limit }),
        }
    }
}

#[async_trait]
impl Mint for DataKey {
    type Request = DataKeyRequest;
    const IS_CHARGED: bool = true;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.data_keys
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DataKeyRequest) -> Partition {
        Partition::of(owner, action, &Subject::DataKey(&request.key, request.length), &request.context)
    }

    fn may_reuse(request: &DataKeyRequest) -> bool {
        request.grant_tokens.as_slice().is_empty()
    }

    fn key(request: &DataKeyRequest) -> Option<&KeyId> {
        Some(&request.key)
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        until: Instant,
    ) -> Recorded<Self> {
        kms.generate_data_key(permit, request, until).await
    }
}

#[async_trait]
impl Mint for EncryptedDataKey {
    type Request = DataKeyRequest;
    const IS_CHARGED: bool = true;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.encrypted_data_keys
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DataKeyRequest) -> Partition {
        DataKey::partition(owner, action, request)
    }

    fn may_reuse(request: &DataKeyRequest) -> bool {
        DataKey::may_reuse(request)
    }

    fn key(request: &DataKeyRequest) -> Option<&KeyId> {
        Some(&request.key)
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DataKeyRequest>,
        until: Instant,
    ) -> Recorded<Self> {
        kms.generate_data_key_without_plaintext(permit, request, until).await
    }
}

#[async_trait]
impl Mint for Decrypted {
    type Request = DecryptRequest;
    const IS_CHARGED: bool = false;

    fn pool(inner: &Inner) -> &Pool<Self> {
        &inner.decrypted
    }

    fn partition(owner: Owner<'_>, action: Action, request: &DecryptRequest) -> Partition {
        let subject = Subject::Decrypt(request.ciphertext.as_bytes(), request.key.as_ref());
        Partition::of(owner, action, &subject, &request.context)
    }

    fn may_reuse(request: &DecryptRequest) -> bool {
        request.grant_tokens.as_slice().is_empty()
    }

    fn key(request: &DecryptRequest) -> Option<&KeyId> {
        request.key.as_ref()
    }

    async fn mint(
        kms: &RecordedKms,
        permit: Permit,
        request: Arc<DecryptRequest>,
        until: Instant,
    ) -> Recorded<Self> {
        kms.decrypt(permit, request, until).await
    }
}
