//! The service `keybroker.admin.v1.Admin`: cache entries, eviction, flush and status, for the operator, on a separate socket.

use std::sync::{Arc, OnceLock};

use key_broker_core::clock::Clock;
use key_broker_core::{KeyId, Outcome};
use key_broker_proto as proto;
use key_broker_proto::admin::v1 as pb;
use key_broker_proto::admin::v1::evict_request::Which;
use key_broker_trail::delivery::NewestDigest;
use key_broker_trail::journal::{Journal, JournalUnavailable};
use key_broker_trail::record::{ActivityEventData, ActivityRecord, AwsCaller, Open, UserIdentity};
use serde_json::{Value, json};
use time::OffsetDateTime;
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt};
use uuid::Uuid;

use crate::cache::{Cache, EntryView, EvictionScope, Usage};
use crate::error::BrokerError;
use crate::identity::Peer;
use crate::limits::CallLimits;
use crate::service::wire;

/// The service `keybroker.admin.v1.Admin`.
#[derive(Clone)]
pub(crate) struct Admin {
    /// The cache of data keys.
    pub cache: Cache,
    /// The calls of workloads.
    pub limits: CallLimits,
    /// The journal.
    pub journal: Journal,
    /// The account and region in every record.
    pub caller: Arc<AwsCaller>,
    /// The clock for the records' times.
    pub clock: Arc<dyn Clock>,
    /// The trail, if there is one.
    pub trail: Option<Arc<OnceLock<TrailLinks>>>,
    /// Cancelled when the broker is about to stop.
    pub drain: CancellationToken,
    /// When the broker started.
    pub started_at: OffsetDateTime,
    /// The broker's own user: it and root may administer.
    pub uid: u32,
}

/// The operator's requests to an open trail.
pub(crate) struct TrailLinks {
    /// Asks it to deliver now.
    pub flush_orders: FlushOrders,
    /// The newest delivery.
    pub newest_digest: watch::Receiver<Option<NewestDigest>>,
}

/// Sends requests to deliver now to the trail, each with a channel for the result.
type FlushOrders = mpsc::Sender<oneshot::Sender<Result<NewestDigest, String>>>;

/// What the layers around the service know of a call; they put it into the request's extensions.
#[derive(Clone)]
pub(crate) struct AdminCall {
    /// The call's id.
    pub request_id: Uuid,
    /// The caller.
    pub peer: Arc<Peer>,
}

impl Admin {
    /// The methods of the contract.
    pub(crate) const METHODS: [&str; 4] = ["ListEntries", "Evict", "Flush", "Status"];

    /// Refuses callers that are neither root nor the broker's own user. Being able to open the socket is no
    /// proof, since a group or a wide mode may let others in.
    fn admit<T>(&self, request: &Request<T>) -> Result<AdminCall, Status> {
        // Without the layers the caller is unknown.
        let call = request.extensions().get::<AdminCall>().ok_or_else(|| Status::internal("no peer"))?;
        let who = &call.peer.details;
        if who.uid.is_some_and(|uid| uid == 0 || uid == self.uid) {
            return Ok(call.clone());
        }
        tracing::warn!(uid = who.uid, pid = who.pid, request_id = %call.request_id, "refused to administer");
        let uid = who.uid.map_or_else(|| "unknown".to_owned(), |uid| uid.to_string());
        let words = format!(
            "user {uid} may not administer this broker: run as root or as the broker's own user, {}",
            self.uid
        );
        let metadata = [(proto::METADATA_REQUEST_ID.to_owned(), call.request_id.to_string())];
        let details = ErrorDetails::with_error_info("NOT_AN_ADMINISTRATOR", proto::DOMAIN_BROKER, metadata);
        Err(Status::with_error_details(Code::PermissionDenied, words, details))
    }

    /// The same for a call that is recorded even if it is refused.
    async fn admit_recorded<T>(
        &self,
        method: &'static str,
        request: &Request<T>,
    ) -> Result<AdminCall, Status> {
        let admitted = self.admit(request);
        if let (Err(refused), Some(call)) = (&admitted, request.extensions().get::<AdminCall>()) {
            self.record(method, call, None, Some(refused.message())).await;
        }
        admitted
    }

    /// Records an operator's call, whether or not the journal can commit.
    async fn record(
        &self,
        method: &'static str,
        AdminCall { request_id, peer }: &AdminCall,
        operator: Option<Value>,
        refusal: Option<&str>,
    ) {
        let outcome = if refusal.is_some() { Outcome::Denied } else { Outcome::Allowed };
        let identity = UserIdentity::workload(peer.kind, peer.principal.as_str(), &peer.details);
        let data = ActivityEventData { operator: operator.map(Open::Written), ..outcome.into() };
        let now = self.clock.now();
        let AwsCaller { region, account_id, .. } = &*self.caller;
        let mut record = ActivityRecord::new(identity, now, method, region, account_id, data);
        record.source_ip_address = Some("unix".into());
        (record.request_id, record.event_id) = ((*request_id).into(), Uuid::new_v4().into());
        if let Some(words) = refusal {
            record.fail("AccessDenied", words);
        }
        let mut line = Vec::new();
        record.append_to(&mut line);
        if let Err(JournalUnavailable(Some(line))) = self.journal.append_of(None, line).wait().await {
            self.journal.defer(&line);
        }
    }
}

#[tonic::async_trait]
impl pb::admin_server::Admin for Admin {
    async fn list_entries(
        &self,
        request: Request<pb::ListEntriesRequest>,
    ) -> Result<Response<pb::ListEntriesResponse>, Status> {
        let call = self.admit_recorded("ListEntries", &request).await?;
        let request = request.into_inner();
        let after = PageCursor::parse(&request.page_token).map_err(|error| call.refuse(&error))?;
        let size = match request.page_size {
            0 => MAX_PAGE,
            n => usize::try_from(n).unwrap_or(MAX_PAGE).min(MAX_PAGE),
        };
        self.record("ListEntries", &call, None, None).await;
        Ok(Response::new(page(&self.cache, after, size)))
    }

    async fn evict(&self, request: Request<pb::EvictRequest>) -> Result<Response<pb::EvictResponse>, Status> {
        let call = self.admit_recorded("Evict", &request).await?;
        let what = EvictionTarget::parse(request.into_inner()).map_err(|error| call.refuse(&error))?;
        let evicted = self.cache.evict(&what.scope());
        let who = &call.peer.details;
        tracing::info!(
            uid = who.uid,
            pid = who.pid,
            request_id = %call.request_id,
            what = what.name(),
            evicted,
            "evicted"
        );
        let evicted = evicted as u64;
        let told = json!({ "target": what.name(), "evicted": evicted });
        self.record("Evict", &call, Some(told), None).await;
        Ok(Response::new(pb::EvictResponse { evicted }))
    }

    async fn flush(&self, request: Request<pb::FlushRequest>) -> Result<Response<pb::FlushResponse>, Status> {
        let call = self.admit_recorded("Flush", &request).await?;
        // Before it is done, so that it is delivered with the rest.
        self.record("Flush", &call, None, None).await;
        let refuse = |code, reason: &str, words: String| {
            let metadata = [(proto::METADATA_REQUEST_ID.to_owned(), call.request_id.to_string())];
            let details = ErrorDetails::with_error_info(reason, proto::DOMAIN_BROKER, metadata);
            Status::with_error_details(code, words, details)
        };
        let Some(trail) = &self.trail else {
            let words = "no audit.store: this broker delivers no trail".to_owned();
            return Err(refuse(Code::FailedPrecondition, "NO_TRAIL", words));
        };
        let not_delivered = |why: &str| {
            refuse(Code::Unavailable, "NOT_DELIVERED", format!("not everything is delivered: {why}"))
        };
        let Some(TrailLinks { flush_orders: orders, .. }) = trail.get() else {
            return Err(not_delivered("the trail's first digest is not in the store yet"));
        };
        let (order, done) = oneshot::channel();
        let ending = || "the broker is ending, which delivers, too".to_owned();
        let delivered = match orders.send(order).await {
            Ok(()) => done.await.unwrap_or_else(|_| Err(ending())),
            Err(_) => Err(ending()),
        };
        let NewestDigest { object, signature, .. } = delivered.map_err(|why| not_delivered(&why))?;
        Ok(Response::new(pb::FlushResponse { newest_digest: object, newest_digest_signature: signature }))
    }

    async fn status(
        &self,
        request: Request<pb::StatusRequest>,
    ) -> Result<Response<pb::StatusResponse>, Status> {
        self.admit(&request)?;
        let mut entries = 0;
        self.cache.list(&mut |_| entries += 1);
        let totals = self.cache.totals();
        let trail = self.trail.as_ref().and_then(|trail| trail.get());
        let newest_digest = trail.and_then(|trail| trail.newest_digest.borrow().clone());
        let (newest_digest, newest_digest_signature) =
            newest_digest.map(|newest| (newest.object, newest.signature)).unwrap_or_default();
        let health = self.journal.health();
        Ok(Response::new(pb::StatusResponse {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            started_at: Some(wire::timestamp(self.started_at)),
            entries,
            uses_from_cache: totals.uses_from_cache,
            kms_calls: totals.kms_calls,
            evictions: totals.evictions,
            calls_in_flight: self.limits.now(),
            // A journal that is gone cannot commit.
            journal_healthy: *health.borrow() && health.has_changed().is_ok(),
            draining: self.drain.is_cancelled(),
            undelivered_bytes: self.journal.totals().undelivered_bytes,
            newest_digest,
            newest_digest_signature,
        }))
    }
}

impl AdminCall {
    fn refuse(&self, error: &BrokerError) -> Status {
        wire::status(error, self.request_id)
    }
}

/// What to evict, checked.
enum EvictionTarget {
    Key(KeyId),
    Principal(String),
    All,
}

impl EvictionTarget {
    fn parse(request: pb::EvictRequest) -> Result<Self, BrokerError> {
        match request.which {
            Some(Which::KeyId(key)) => Ok(Self::Key(KeyId::parse(&key)?)),
            Some(Which::Principal(principal)) if !principal.is_empty() => Ok(Self::Principal(principal)),
            Some(Which::All(true)) => Ok(Self::All),
            _ => Err(BrokerError::Rejected("nothing to evict: set key_id, principal, or all to true".into())),
        }
    }

    fn scope(&self) -> EvictionScope<'_> {
        match self {
            Self::Key(key) => EvictionScope::Key(key),
            Self::Principal(principal) => EvictionScope::Principal(principal),
            Self::All => EvictionScope::All,
        }
    }

    fn name(&self) -> &str {
        match self {
            Self::Key(key) => key.as_str(),
            Self::Principal(principal) => principal,
            Self::All => "all",
        }
    }
}

/// The position of an entry in the list: ordered by the time of KMS's answer, then by that answer's eventID,
/// which is unique. Keys minted later come later, so a list that is read page by page misses no entry that
/// stays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct PageCursor(i128, Uuid);

impl PageCursor {
    fn of(view: &EntryView<'_>) -> Self {
        Self(view.source.at.unix_timestamp_nanos(), view.source.event_id)
    }

    /// The position after which a page begins; none for the first page.
    fn parse(token: &str) -> Result<Option<Self>, BrokerError> {
        if token.is_empty() {
            return Ok(None);
        }
        let parsed =
            token.split_once('.').and_then(|(at, id)| Some(Self(at.parse().ok()?, id.parse().ok()?)));
        parsed.map(Some).ok_or_else(|| {
            BrokerError::Rejected(
                "page_token is not a next_page_token of this broker: begin without one".into(),
            )
        })
    }

    fn token(self) -> String {
        format!("{}.{}", self.0, self.1)
    }
}

fn page(cache: &Cache, after: Option<PageCursor>, size: usize) -> pb::ListEntriesResponse {
    let mut found = Vec::new();
    cache.list(&mut |view| {
        let place = PageCursor::of(view);
        if after.is_none_or(|after| place > after) {
            found.push((place, entry(view)));
        }
    });
    found.sort_unstable_by_key(|(place, _)| *place);
    let more = found.len() > size;
    found.truncate(size);
    let last = found.last().map(|(place, _)| place.token());
    pb::ListEntriesResponse {
        entries: found.into_iter().map(|(_, entry)| entry).collect(),
        next_page_token: last.filter(|_| more).unwrap_or_default(),
    }
}

fn entry(view: &EntryView<'_>) -> pb::Entry {
    let reuse = |number: fn(&Usage) -> u64| view.reuse.as_ref().map_or(0, number);
    pb::Entry {
        owner: view.owner.to_owned(),
        is_shared: view.is_shared,
        key_id: view.key.map(|key| key.as_str().to_owned()).unwrap_or_default(),
        key_arn: view.arn.to_string(),
        action: view.action.name().to_owned(),
        kms_request_id: String::from(&*view.source.request_id),
        kms_event_id: view.source.event_id.to_string(),
        minted_at: Some(wire::timestamp(view.source.at)),
        expires_at: Some(wire::timestamp(view.expires_at)),
        messages_used: reuse(|reuse| reuse.used.messages),
        messages_limit: reuse(|reuse| reuse.limit.messages),
        bytes_used: reuse(|reuse| reuse.used.bytes),
        bytes_limit: reuse(|reuse| reuse.limit.bytes),
    }
}

/// See `page_size` in `admin.proto`: an entry has at most 2,048 bytes of key id twice, a principal or partition, and some
/// three hundred more.
const MAX_PAGE: usize = 500;
