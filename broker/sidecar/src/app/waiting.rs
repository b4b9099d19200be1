//! A broker whose sockets are open before its trail is: health says not ready, and calls wait.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use key_broker_trail::delivery::Trail;
use key_broker_trail::journal::JournalThread;
use key_broker_trail::record::RevocationPromise;
use key_broker_trail::{Ending, StdoutCopy};
use tokio_util::task::AbortOnDropHandle;

use super::foundation::Foundation;
use super::observed::MetricSources;
use super::pages::PagesServer;
use super::{Addresses, Broker, StartError};
use crate::admin::TrailLinks;
use crate::config::audit::Audit as AuditConfig;
use crate::kms::aws::AwsKms;
use crate::policy::file::Policies;

/// What has begun.
pub(super) struct Waiting {
    pub base: Foundation,
    pub journal: JournalThread,
    /// Where the operator's calls find the trail.
    pub links: Arc<OnceLock<TrailLinks>>,
    pub sources: MetricSources,
    pub pages: Option<PagesServer>,
    pub serving: AbortOnDropHandle<()>,
    pub addresses: Addresses,
    pub grace: Duration,
    pub promise: RevocationPromise,
}

impl Waiting {
    /// Opens the trail, as soon as its store and keys answer: then calls go on.
    pub(super) async fn open(
        self,
        audit: AuditConfig,
        kms: &AwsKms,
        policies: &Policies,
    ) -> Result<Broker, StartError> {
        let Self { base, journal, links, mut sources, pages, serving, addresses, grace, promise } = self;
        let mut parts = base.trail_parts();
        let trail = match base.start_trail(audit.trail.as_ref(), &parts).await {
            Err(StartError::Stopped) => {
                // Waiting calls get an error.
                let _ = serving.await;
                return Err(StartError::Stopped);
            }
            started => started?,
        };
        parts.identity = kms.known_session();
        parts.reuse = Some(promise);
        parts.policy_version = Some(policies.current().version().to_string());
        let mut ending = Ending::begin(&parts, journal, base.drain.clone());
        let stdout = if audit.stdout {
            Some(StdoutCopy::start(&base.journal_dir, &base.journal).map_err(StartError::Stdout)?)
        } else {
            None
        };
        sources.newest_digest = trail.as_ref().map(Trail::newest_digest);
        base.publish(sources);
        if let Some(trail) = trail {
            let (flush_orders, newest_digest) = (trail.flush_orders.clone(), trail.newest_digest());
            links.get_or_init(|| TrailLinks { flush_orders, newest_digest });
            ending.deliver(trail);
        }
        base.trail_is_open.send_replace(true);
        Ok(Broker {
            serving,
            addresses,
            drain: base.drain,
            grace,
            kms_calls: base.kms_calls,
            stdout,
            metrics: base.metrics,
            pages,
            refusals: base.refusals,
            audit: ending,
            clock: base.clock,
        })
    }
}
