//! The outcome of a draw.

use std::sync::Arc;

use key_broker_core::Bounds;
use key_broker_core::clock::Moment;
use time::OffsetDateTime;

use super::pool::Usage;
use super::slot::Draw;
use super::standing::Evidence;
use crate::error::BrokerError;
use crate::kms::recorded::{Provenance, RecordedReply, UnwrittenRecords};

/// The outcome of a draw, with what its record needs.
pub(crate) struct DrawOutcome<T> {
    /// The key, or the reason why there is none.
    pub result: Result<Arc<T>, BrokerError>,
    /// The call to KMS behind it.
    pub source: Option<Provenance>,
    /// Whether that call was made for this draw.
    pub called_kms: bool,
    /// The data key's usage and limits; `None` for a decrypt.
    pub reuse: Option<Usage>,
    /// When the cached key expires; `None` for a key that is handed out once.
    pub expires_at: Option<OffsetDateTime>,
    /// When a cached key was drawn: its age was judged by the clock as it was then.
    pub drawn_at: Option<Moment>,
    /// Why a cached key may still be drawn.
    pub evidence: Evidence,
    /// KMS records to commit with this call's record; `None` if they are in the journal already.
    pub records: Option<UnwrittenRecords>,
}

impl<T> From<RecordedReply<T>> for DrawOutcome<T> {
    fn from(reply: RecordedReply<T>) -> Self {
        let RecordedReply { result, source, records, .. } = reply;
        Self {
            result: result.map(Arc::new),
            source,
            called_kms: true,
            reuse: None,
            expires_at: None,
            drawn_at: None,
            evidence: Evidence::default(),
            records: Some(records),
        }
    }
}

impl<T> DrawOutcome<T> {
    pub(super) fn of(draw: Draw<T>, bounds: Bounds, is_charged: bool) -> Self {
        Self {
            result: Ok(draw.value),
            source: Some(draw.source),
            called_kms: draw.called_kms,
            reuse: is_charged.then_some(Usage { used: draw.used, limit: draw.limit }),
            expires_at: Some(draw.requested_at.wall + bounds.max_age),
            drawn_at: Some(draw.drawn_at),
            evidence: draw.evidence,
            records: None,
        }
    }

    pub(super) fn failed(error: BrokerError) -> Self {
        Self {
            result: Err(error),
            source: None,
            called_kms: true,
            reuse: None,
            expires_at: None,
            drawn_at: None,
            evidence: Evidence::default(),
            records: None,
        }
    }
}
