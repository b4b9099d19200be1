//! The cache of data keys and decrypts, with bounded reuse. A draw, that is one request that the cache may answer, is served from
//! a cached key within its bounds, or waits for a call to KMS that all draws for the same key share.
//!
//! Attested calls never get here: the requests that this module takes have no recipient.

mod cacheable;
mod counts;
mod draw_outcome;
mod key_index;
mod partition;
mod pool;
mod revocation;
pub(crate) mod rules;
mod slot;
mod standing;
mod standings;

use std::future::{Ready, ready};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, Either};
use key_broker_core::clock::{Clock, Moment};
use key_broker_core::{Bounds, DeclaredUse, Principal, Reuse};
use opentelemetry::context::FutureExt as _;
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument as _, info_span};

use crate::error::BrokerError;
use crate::kms::recorded::{RecordedKms, RecordedReply, silence, time_to_tell};
use crate::operation::{
    DataKeyRequest, DataKeyWithoutPlaintextRequest, DecryptMessageRequest, DecryptRequest,
    EncryptMessageRequest,
};
use crate::policy::Permitted;
use crate::telemetry::vocabulary;
use cacheable::{Cacheable, CacheableReply, UNBOUNDED};
use counts::CacheCounters;
pub(crate) use counts::CacheTotals;
pub(crate) use draw_outcome::DrawOutcome;
use pool::{AnyPool, Entry, Pool};
pub(crate) use pool::{CacheSize, EntryView, EvictionScope, Usage};
use rules::{Rule, Rules, tightened};
use slot::{Blame, Demand, DrawFailure, DrawStep, Mint, MintedReply, REFRESH_PAUSE};
use standing::Due;
use standings::Standings;

/// The cached data keys, and the way to KMS for all other requests.
#[derive(Clone)]
pub(crate) struct Cache(Arc<Inner>);

struct Inner {
    rules: Rules,
    kms: RecordedKms,
    clock: Arc<dyn Clock>,
    data_keys: Pool<DataKeyRequest>,
    encrypted_data_keys: Pool<DataKeyWithoutPlaintextRequest>,
    decrypted: Pool<DecryptRequest>,
    message_keys: Pool<EncryptMessageRequest>,
    decrypted_message_keys: Pool<DecryptMessageRequest>,
    standings: Standings,
    counts: CacheCounters,
}

/// A request that the cache may answer, with its pool.
pub(crate) trait CachedRequest: Cacheable {
    /// The pool that holds replies to it.
    fn pool(cache: &Cache) -> &Pool<Self>;
}

impl CachedRequest for DataKeyRequest {
    fn pool(cache: &Cache) -> &Pool<Self> {
        &cache.0.data_keys
    }
}

impl CachedRequest for DataKeyWithoutPlaintextRequest {
    fn pool(cache: &Cache) -> &Pool<Self> {
        &cache.0.encrypted_data_keys
    }
}

impl CachedRequest for EncryptMessageRequest {
    fn pool(cache: &Cache) -> &Pool<Self> {
        &cache.0.message_keys
    }
}

impl CachedRequest for DecryptMessageRequest {
    fn pool(cache: &Cache) -> &Pool<Self> {
        &cache.0.decrypted_message_keys
    }
}

impl CachedRequest for DecryptRequest {
    fn pool(cache: &Cache) -> &Pool<Self> {
        &cache.0.decrypted
    }
}

impl Cache {
    /// An empty cache.
    #[must_use]
    pub(crate) fn new(rules: Rules, kms: RecordedKms, clock: Arc<dyn Clock>) -> Self {
        let (max_entries, standings) = (rules.max_entries, Standings::new(rules.revocation_check));
        Self(Arc::new(Inner {
            rules,
            kms,
            clock,
            data_keys: Pool::new(max_entries),
            encrypted_data_keys: Pool::new(max_entries),
            decrypted: Pool::new(max_entries),
            message_keys: Pool::new(max_entries),
            decrypted_message_keys: Pool::new(max_entries),
            standings,
            counts: CacheCounters::default(),
        }))
    }

    /// Serves a draw. Only waiting for KMS takes a future, which is boxed so that the callers' futures stay small.
    pub(crate) fn draw<R: CachedRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        principal: &Principal,
        terms: DrawTerms,
    ) -> DrawFuture<R::Reply> {
        let request = permitted.subject();
        let rule = self.0.rules.of(principal, request.key());
        let mut bounds = tightened(R::bounds(&rule), &terms.reuse);
        if !R::IS_CHARGED {
            bounds = Bounds { max_age: bounds.max_age, ..UNBOUNDED };
        }
        let fits = bounds.charge(DeclaredUse::default(), terms.declared).is_some();
        let found = if rule.enabled && !terms.reuse.fresh && fits && request.may_reuse() {
            self.look_up(&permitted, principal, &rule, bounds, &terms)
        } else {
            Lookup::Nothing
        };
        let cache = self.clone();
        match found {
            Lookup::Drawn(drawn) => Either::Left(ready(drawn)),
            Lookup::Wait(wait) => Either::Right(Box::pin(async move {
                match cache.wait::<R>(wait, bounds, terms.deadline).await {
                    Some(drawn) => drawn,
                    None => cache.call_kms(permitted, terms).await,
                }
            })),
            Lookup::Check(ended) => {
                let (principal, rule) = (principal.clone(), rule.into_owned());
                Either::Right(Box::pin(async move {
                    cache.draw_checked(permitted, &principal, &rule, bounds, terms, ended).await
                }))
            }
            Lookup::Nothing => Either::Right(Box::pin(async move { cache.call_kms(permitted, terms).await })),
        }
    }

    /// Serves a draw after a revocation check has ended.
    async fn draw_checked<R: CachedRequest>(
        &self,
        permitted: Permitted<Arc<R>>,
        principal: &Principal,
        rule: &Rule,
        bounds: Bounds,
        terms: DrawTerms,
        mut ended: CancellationToken,
    ) -> DrawOutcome<R::Reply> {
        for _ in 0..MOST_CHECKS {
            let remaining = terms.deadline.saturating_duration_since(self.0.clock.instant());
            let kept = time_to_tell(remaining);
            if tokio::time::timeout(remaining.saturating_sub(kept), ended.cancelled()).await.is_err() {
                return DrawOutcome::failed(if kept.is_zero() {
                    BrokerError::DeadlineExceeded
                } else {
                    silence()
                });
            }
            ended = match self.look_up(&permitted, principal, rule, bounds, &terms) {
                Lookup::Drawn(drawn) => return drawn,
                Lookup::Wait(wait) => match self.wait::<R>(wait, bounds, terms.deadline).await {
                    Some(drawn) => return drawn,
                    None => break,
                },
                Lookup::Check(ended) => ended,
                Lookup::Nothing => break,
            };
        }
        self.call_kms(permitted, terms).await
    }

    /// Looks in the partition's slot: for a key, or for the call to KMS that the draw waits for.
    fn look_up<R: CachedRequest>(
        &self,
        permitted: &Permitted<Arc<R>>,
        principal: &Principal,
        rule: &Rule,
        bounds: Bounds,
        terms: &DrawTerms,
    ) -> Lookup<R::Reply> {
        let entry = R::pool(self).entry(&**permitted.subject(), rule, principal);
        let now = Moment::now(&*self.0.clock);
        let demand = Demand { request: permitted.clone(), declared: terms.declared, bounds };
        let step = entry.slot().draw(&now, demand);
        match step {
            DrawStep::Drawn(draw, refresh, check) => {
                self.0.counts.uses_from_cache.fetch_add(1, Ordering::Relaxed);
                if let Some(mint) = refresh {
                    // In a trace of its own, since no call waits for it.
                    let span = info_span!(parent: None, vocabulary::CACHE_REFRESH);
                    self.0.kms.tasks().spawn(self.clone().mint(mint, entry).instrument(span));
                }
                if let Some(check) = check {
                    self.spawn_check(check, &**permitted.subject());
                }
                Lookup::Drawn(DrawOutcome::of(draw, bounds, R::IS_CHARGED))
            }
            DrawStep::Check(Due { ended, check }) => {
                if let Some(check) = check {
                    self.spawn_check(check, &**permitted.subject());
                }
                Lookup::Check(ended)
            }
            DrawStep::Wait(wait, mints) => {
                for mint in mints {
                    self.spawn_mint(mint, &entry);
                }
                Lookup::Wait(wait)
            }
            // Other partitions have taken its place in the cache.
            DrawStep::Retired => Lookup::Nothing,
        }
    }

    /// Waits for the call to KMS that a draw shares; `None` if its slot is retired.
    async fn wait<R: Cacheable>(
        &self,
        wait: oneshot::Receiver<slot::DrawResult<R::Reply>>,
        bounds: Bounds,
        deadline: Instant,
    ) -> Option<DrawOutcome<R::Reply>> {
        let remaining = deadline.saturating_duration_since(self.0.clock.instant());
        let kept = time_to_tell(remaining);
        match tokio::time::timeout(remaining.saturating_sub(kept), wait).await {
            Ok(Ok(Ok(draw))) => {
                let counts = &self.0.counts;
                let uses = if draw.called_kms { &counts.uses_from_kms } else { &counts.uses_from_cache };
                uses.fetch_add(1, Ordering::Relaxed);
                Some(DrawOutcome::of(draw, bounds, R::IS_CHARGED))
            }
            Ok(Ok(Err(DrawFailure::Error(error)))) => Some(DrawOutcome::failed(error)),
            Ok(Ok(Err(DrawFailure::Retired))) => None,
            // The task that calls KMS can end without an answer only by a panic.
            Ok(Err(_)) => Some(DrawOutcome::failed(BrokerError::Bug)),
            Err(_) if kept.is_zero() => Some(DrawOutcome::failed(BrokerError::DeadlineExceeded)),
            Err(_) => Some(DrawOutcome::failed(silence())),
        }
    }

    /// Calls KMS for a key that is handed out once and not cached.
    async fn call_kms<R: Cacheable>(
        &self,
        permitted: Permitted<Arc<R>>,
        terms: DrawTerms,
    ) -> DrawOutcome<R::Reply> {
        let request = Arc::clone(permitted.subject());
        let reply = self.0.kms.call(permitted, terms.deadline).await;
        self.0.counts.call(&reply.result);
        if reply.result.is_ok() {
            self.0.counts.uses_from_kms.fetch_add(1, Ordering::Relaxed);
        }
        if let Err(BrokerError::Kms(error)) = &reply.result {
            self.refused(error, &*request);
        }
        // The only use of a key that is handed out once is its limit.
        let once = Usage { used: terms.declared, limit: terms.declared };
        DrawOutcome { reuse: (R::IS_CHARGED && reply.result.is_ok()).then_some(once), ..reply.into() }
    }

    fn spawn_mint<R: CachedRequest>(&self, mint: Mint<Permitted<Arc<R>>>, entry: &Arc<Entry<R>>) {
        // Boxed, since such a task can start further ones.
        let task: BoxFuture<'static, ()> = Box::pin(self.clone().mint(mint, Arc::clone(entry)));
        self.0.kms.tasks().spawn(task.with_current_context());
    }

    /// The body of a task: calls KMS for a slot, and again while draws are left waiting.
    async fn mint<R: CachedRequest>(self, mint: Mint<Permitted<Arc<R>>>, entry: Arc<Entry<R>>) {
        let mut next = Some(mint);
        while let Some(mint) = next {
            let mut mints = self.mint_once(mint, &entry).await.into_iter();
            next = mints.next();
            for mint in mints {
                self.spawn_mint(mint, &entry);
            }
        }
    }

    /// Makes one call to KMS for a slot. Returns the calls that are still needed.
    async fn mint_once<R: CachedRequest>(
        &self,
        mint: Mint<Permitted<Arc<R>>>,
        entry: &Arc<Entry<R>>,
    ) -> Vec<Mint<Permitted<Arc<R>>>> {
        let inner = &*self.0;
        let Mint { request: permitted, ticket } = mint;
        let under_way = R::pool(self).begin_call(entry);
        let requested_at = Moment::now(&*inner.clock);
        let deadline = requested_at.instant + inner.rules.kms_deadline;
        let RecordedReply { result, source, region, records } =
            inner.kms.call(permitted.clone(), deadline).await;
        inner.counts.call(&result);
        // Every reply with this key refers to its KMS record, so that must be in the journal.
        let committed = records.commit().await;
        let result = match (result, source, committed) {
            // Only a key that policy permits is cached, even if the request left the choice of the key to KMS.
            (Ok(value), _, Ok(())) if !permitted.admits(value.key()) => {
                Err(BrokerError::DeniedKey(value.key().clone()))
            }
            (Ok(value), Some(source), Ok(())) => {
                let request = permitted.subject().dry_run(value.key().into());
                let standing = inner.standings.of(&request, value.key(), &region);
                let requested_at = source.requested_at(requested_at);
                standing.allowed(requested_at, source.clone());
                Ok(MintedReply { value: Arc::new(value), source, requested_at, standing })
            }
            (Ok(_), _, Err(_)) => Err(BrokerError::JournalUnavailable),
            (Ok(_), None, Ok(())) => Err(BrokerError::Bug),
            (Err(error), _, _) => Err(error),
        };
        let now = Moment::now(&*inner.clock);
        let mints = match result {
            Ok(minted) => {
                R::pool(self).answered(entry, minted.value.key());
                let mut slot = entry.slot();
                slot.judge(ticket, minted.value.key());
                slot.minted(&now, ticket, minted)
            }
            Err(error) => {
                if let BrokerError::Kms(kms) = &error {
                    self.refused(kms, &**permitted.subject());
                }
                let not_before =
                    Moment { instant: now.instant + REFRESH_PAUSE, wall: now.wall + REFRESH_PAUSE };
                entry.slot().failed(not_before, ticket, &error, blame(&error))
            }
        };
        // Until here a refusal of the KMS key still finds what this call brings.
        drop(under_way);
        mints
    }

    /// Drops the keys in `scope`, including those that calls under way will bring, and returns how many were cached. A draw that
    /// begins afterwards gets none of them.
    pub(crate) fn evict(&self, scope: &EvictionScope<'_>) -> usize {
        let evicted = self.0.pools().iter().map(|pool| pool.evict(scope)).sum();
        self.0.counts.evictions.fetch_add(evicted as u64, Ordering::Relaxed);
        evicted
    }

    /// Shows every cached key to `show`.
    pub(crate) fn list(&self, show: &mut dyn FnMut(&EntryView<'_>)) {
        self.0.pools().iter().for_each(|pool| pool.list(show));
    }

    /// Counts since the start.
    #[must_use]
    pub(crate) fn totals(&self) -> CacheTotals {
        self.0.counts.totals()
    }

    /// How much is cached. Visits every entry.
    #[must_use]
    pub(crate) fn size(&self) -> CacheSize {
        let add = |sum: CacheSize, size: CacheSize| CacheSize {
            entries: sum.entries + size.entries,
            bytes: sum.bytes + size.bytes,
        };
        self.0.pools().iter().map(|pool| pool.size()).fold(CacheSize::default(), add)
    }

    /// Drops expired keys from memory at this interval, until the cache itself is dropped.
    pub(crate) async fn sweep(self, every: Duration) {
        let inner = Arc::downgrade(&self.0);
        drop(self);
        loop {
            tokio::time::sleep(every).await;
            let Some(inner) = inner.upgrade() else { return };
            inner.sweep();
        }
    }
}

/// A draw: done already, or waiting for KMS.
pub(crate) type DrawFuture<T> =
    Either<Ready<DrawOutcome<T>>, Pin<Box<dyn Future<Output = DrawOutcome<T>> + Send>>>;

/// What the cache has for a draw.
#[expect(clippy::large_enum_variant, reason = "it is looked at once, where it is made")]
enum Lookup<T> {
    Drawn(DrawOutcome<T>),
    Wait(oneshot::Receiver<slot::DrawResult<T>>),
    /// A check must end first; the token is cancelled then.
    Check(CancellationToken),
    Nothing,
}

impl Inner {
    fn sweep(&self) {
        let now = Moment::now(&*self.clock);
        self.pools().iter().for_each(|pool| pool.sweep(&now));
        self.standings.sweep();
    }

    /// The pools of all kinds of replies.
    fn pools(&self) -> [&dyn AnyPool; 5] {
        [
            &self.data_keys,
            &self.encrypted_data_keys,
            &self.decrypted,
            &self.message_keys,
            &self.decrypted_message_keys,
        ]
    }
}

/// Which waiting draws a failed call for a slot concerns.
fn blame(error: &BrokerError) -> Blame {
    match error {
        BrokerError::Kms(kms) if !kms.kind.is_transient() => Blame::Everybody,
        // The circuit breaker would refuse the next call, too.
        BrokerError::CircuitOpen(_) => Blame::Everybody,
        // They have already waited in the guard's queue.
        BrokerError::KmsBusy => Blame::Served,
        _ => Blame::Leader,
    }
}

#[derive(Clone)]
pub(crate) struct DrawTerms {
    /// What the key will encrypt.
    pub declared: DeclaredUse,
    /// The caller's tighter bounds.
    pub reuse: Reuse,
    /// When the caller stops waiting.
    pub deadline: Instant,
}

/// How many checks one draw waits for: of the KMS key, of its own context, and again if KMS could not be asked.
const MOST_CHECKS: usize = 4;

#[cfg(test)]
mod tests;
