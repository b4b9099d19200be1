//! Data keys with bounded reuse: a draw is served from a key that is there, within its bounds, or waits for one call to
//! KMS that all who want the same key share.
//!
//! Attested calls cannot get here: the requests that this module takes have no recipient.

pub mod bounds;
mod counts;
mod mint;
mod partition;
mod pool;
mod revocation;
pub mod rules;
mod slot;

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::Either;
use opentelemetry::context::FutureExt as _;
use time::OffsetDateTime;
use tokio::sync::oneshot;
use tracing::{Instrument as _, info_span};

use crate::audit::record::DeclaredUse;
use crate::clock::Clock;
use crate::error::{BrokerError, KmsError, KmsErrorKind};
use crate::identity::Principal;
use crate::key::{KeyArn, KeyId};
use crate::kms::recorded::{Recorded, RecordedKms, Source, UnwrittenRecords, Waiting};
use crate::kms::{DataKey, DataKeyRequest, DecryptRequest, Decrypted, EncryptedDataKey};
use crate::policy::Permit;
use crate::telemetry::vocabulary;
use bounds::{Bounds, Moment, Reuse, UNBOUNDED, UNUSED};
use counts::Counts;
pub use counts::Totals;
use mint::Mint;
use partition::Owner;
pub use pool::{Chosen, Listed, Size};
use pool::{Entry, Pool};
use rules::{Rule, Rules};
use slot::{Demand, Draw, Failure, Minted, REFRESH_PAUSE, Step};

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
    pub fn data_key(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DataKeyRequest>,
        wish: Wish,
    ) -> impl Future<Output = Drawn<DataKey>> + use<> {
        self.draw(permit, principal, request, wish)
    }

    /// A data key in encrypted form only.
    pub fn encrypted_data_key(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DataKeyRequest>,
        wish: Wish,
    ) -> impl Future<Output = Drawn<EncryptedDataKey>> + use<> {
        self.draw(permit, principal, request, wish)
    }

    /// A decrypt.
    pub fn decrypt(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<DecryptRequest>,
        wish: Wish,
    ) -> impl Future<Output = Drawn<Decrypted>> + use<> {
        self.draw(permit, principal, request, wish)
    }

    /// Draws at once: only what waits for KMS is a future, boxed, so that the callers' futures stay small.
    fn draw<T: Mint>(
        &self,
        permit: Permit,
        principal: &Principal,
        request: Arc<T::Request>,
        wish: Wish,
    ) -> Drawing<T> {
        let rule = self.0.rules.of(principal, T::key(&request));
        let mut bounds = rule.bounds.tightened(&wish.reuse);
        if !T::IS_CHARGED {
            bounds = Bounds { max_age: bounds.max_age, ..UNBOUNDED };
        }
        let fits = bounds.charge(UNUSED, wish.declared).is_some();
        let kept = if rule.enabled && !wish.reuse.fresh && fits && T::may_reuse(&request) {
            self.draw_kept(&permit, principal, &request, rule, bounds, &wish)
        } else {
            Kept::Nothing
        };
        let cache = self.clone();
        match kept {
            Kept::Drawn(drawn) => Either::Left(ready(drawn)),
            Kept::Wait(wait) => Either::Right(Box::pin(async move {
                match cache.wait(wait, bounds, wish.waiting.until).await {
                    Some(drawn) => drawn,
                    None => cache.call_kms(permit, request, wish).await,
                }
            })),
            Kept::Nothing => {
                Either::Right(Box::pin(async move { cache.call_kms(permit, request, wish).await }))
            }
        }
    }

    /// A draw from the partition's slot, or the call to KMS that it waits for.
    fn draw_kept<T: Mint>(
        &self,
        permit: &Permit,
        principal: &Principal,
        request: &Arc<T::Request>,
        rule: &Rule,
        bounds: Bounds,
        wish: &Wish,
    ) -> Kept<T> {
        let owner = rule.partition.as_deref().map_or(Owner::Principal(principal.as_str()), Owner::Shared);
        let partition = T::partition(owner, permit.action(), request);
        let entry = T::pool(&self.0).entry(
            partition,
            rule,
            owner,
            permit.action(),
            T::key(request).map(|key| &key.written),
        );
        let now = Moment::now(&*self.0.clock);
        let demand = Demand { permit: permit.again(), declared: wish.declared, bounds };
        let step = entry.slot().draw(&now, demand);
        match step {
            Step::Drawn(draw, refresh) => {
                self.0.counts.uses_from_cache.fetch_add(1, Ordering::Relaxed);
                if let Some(permit) = refresh {
                    // In a trace of its own: nobody waits for it.
                    let span = info_span!(parent: None, vocabulary::CACHE_REFRESH);
                    let refresh = self.clone().mint(permit, entry, Arc::clone(request));
                    self.0.kms.tasks().spawn(refresh.instrument(span));
                }
                Kept::Drawn(Drawn::of(draw, bounds, T::IS_CHARGED))
            }
            Step::Wait(wait, call) => {
                if let Some(permit) = call {
                    let mint = self.clone().mint(permit, entry, Arc::clone(request));
                    self.0.kms.tasks().spawn(mint.with_current_context());
                }
                Kept::Wait(wait)
            }
            // The cache is full of others.
            Step::Retired => Kept::Nothing,
        }
    }

    /// Waits for the call to KMS that a draw shares; `None` if its slot goes out of use.
    async fn wait<T: Mint>(
        &self,
        wait: oneshot::Receiver<slot::Answer<T>>,
        bounds: Bounds,
        until: Instant,
    ) -> Option<Drawn<T>> {
        let remaining = until.saturating_duration_since(self.0.clock.instant());
        match tokio::time::timeout(remaining, wait).await {
            Ok(Ok(Ok(draw))) => {
                let counts = &self.0.counts;
                let uses = if draw.called_kms { &counts.uses_from_kms } else { &counts.uses_from_cache };
                uses.fetch_add(1, Ordering::Relaxed);
                Some(Drawn::of(draw, bounds, T::IS_CHARGED))
            }
            Ok(Ok(Err(Failure::Error(error)))) => Some(Drawn::failed(error)),
            Ok(Ok(Err(Failure::Retired))) => None,
            // The task that makes the call ends by panic only.
            Ok(Err(_)) => Some(Drawn::failed(BrokerError::Bug)),
            Err(_) => Some(Drawn::failed(BrokerError::DeadlineExceeded)),
        }
    }

    /// A key that is handed out once and not kept.
    async fn call_kms<T: Mint>(&self, permit: Permit, request: Arc<T::Request>, wish: Wish) -> Drawn<T> {
        let minted = T::mint(&self.0.kms, permit, Arc::clone(&request), wish.waiting).await;
        self.0.counts.call(&minted.result);
        if minted.result.is_ok() {
            self.0.counts.uses_from_kms.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(BrokerError::Kms(error)) = &minted.result {
            self.heed_refusal(error, T::key(&request).map(|key| &key.asked));
        }
        // A data key that is handed out once has its use as its limit.
        let once = Reused { used: wish.declared, limit: wish.declared };
        Drawn { reuse: (T::IS_CHARGED && minted.result.is_ok()).then_some(once), ..minted.into() }
    }

    /// Calls KMS for a slot, and again while somebody is left waiting: for a task of its own.
    async fn mint<T: Mint>(self, permit: Permit, entry: Arc<Entry<T>>, request: Arc<T::Request>) {
        let mut next = Some(permit);
        while let Some(permit) = next {
            next = self.mint_once(permit, &entry, Arc::clone(&request)).await;
        }
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
            T::mint(&inner.kms, permit, Arc::clone(&request), until.into()).await;
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
                        self.heed_refusal(kms, T::key(&request).map(|key| &key.asked));
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
        self.0.counts.totals()
    }

    /// How much is kept. Walks through everything.
    #[must_use]
    pub fn size(&self) -> Size {
        let inner = &*self.0;
        let sizes = [inner.data_keys.size(), inner.encrypted_data_keys.size(), inner.decrypted.size()];
        let add = |sum: Size, size: Size| Size {
            entries: sum.entries + size.entries,
            bytes: sum.bytes + size.bytes,
        };
        sizes.into_iter().fold(Size::default(), add)
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

/// A draw that is done, or one that waits for KMS.
type Drawing<T> = Either<Ready<Drawn<T>>, Pin<Box<dyn Future<Output = Drawn<T>> + Send>>>;

/// What a slot has for a draw.
#[expect(clippy::large_enum_variant, reason = "it is looked at once, where it is made")]
enum Kept<T> {
    Drawn(Drawn<T>),
    Wait(oneshot::Receiver<slot::Answer<T>>),
    Nothing,
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
#[derive(Clone)]
pub struct Wish {
    /// What the key will encrypt.
    pub declared: DeclaredUse,
    /// Tighter bounds.
    pub reuse: Reuse,
    /// Who waits.
    pub waiting: Waiting,
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
