//! Makes, signs and stores digests in order. Contents, end and signature are noted before a digest is stored, so that after an
//! interruption the same digest is stored again.

use std::collections::BTreeMap;
use std::time::Duration;

use tracing::field::Empty;
use tracing::{Instrument as _, info_span, record_all};

use super::{DIGEST_SIGNATURE, DIGEST_SPAN, NewestDigest, Trail, TrailError, whole_second};
use crate::digest::{
    Digest, HASH_ALGORITHM, KMS_REQUEST_METADATA, OwnFields, Position, SIGNATURE_ALGORITHM,
    SIGNATURE_ALGORITHM_METADATA, SIGNATURE_METADATA, sha256_hex,
};
use crate::format_version::FORMAT_VERSION;
use crate::log_file;
use crate::names::TrailNames;
use crate::record::record_time;
use crate::state::{DigestSignature, PendingDigest, Previous, State};
use crate::store::Object;

impl Trail {
    /// Whether the trail is open in the store: its newest digest is there and does not close the trail. No call is answered before, or
    /// all later records could vanish and leave a closed trail in which nothing seems to be missing.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.state.previous.as_ref().is_some_and(|previous| !previous.is_closing)
    }

    /// Whether no digest has been delivered.
    pub(super) fn is_new(&self) -> bool {
        self.state.previous.is_none()
    }

    /// Delivers a digest of what was delivered since the previous one, or finishes an interrupted digest.
    pub(crate) async fn digest(&mut self) -> Result<(), TrailError> {
        self.digest_as(false).await
    }

    /// The same, with a new digest marked as the last.
    pub(super) async fn closing_digest(&mut self) -> Result<(), TrailError> {
        self.digest_as(true).await
    }

    async fn digest_as(&mut self, is_closing: bool) -> Result<(), TrailError> {
        self.note_again().await?;
        let span = info_span!(
            parent: None,
            DIGEST_SPAN,
            { DIGEST_SIGNATURE } = Empty,
            "error.type" = Empty,
            otel.status_code = Empty
        );
        let delivered = self.put_digest(is_closing).instrument(span.clone()).await;
        match &delivered {
            Ok(()) => {
                if let Some(newest) = self.newest_digest.borrow().as_ref() {
                    span.record(DIGEST_SIGNATURE, newest.signature.as_str());
                }
            }
            Err(_) => record_all!(span, "error.type" = "_OTHER", otel.status_code = "ERROR"),
        }
        delivered
    }

    async fn put_digest(&mut self, is_closing: bool) -> Result<(), TrailError> {
        self.keep_hold().await?;
        if self.state.sealed.is_none() {
            self.seal(is_closing).await?;
        }
        let Some(sealed) = self.state.sealed.clone() else { return Ok(()) };
        let signed = match &sealed.signed {
            Some(signed) => signed.clone(),
            None => self.sign(&sealed).await?,
        };
        let digest = self.state.digest(&sealed, &self.names, &signed.fingerprint);
        let json = digest.to_json();
        let signature = signed.signature;
        let mut metadata = BTreeMap::from([
            (SIGNATURE_METADATA.to_owned(), signature.clone()),
            (SIGNATURE_ALGORITHM_METADATA.to_owned(), SIGNATURE_ALGORITHM.to_owned()),
        ]);
        metadata.extend(signed.kms_request_id.map(|id| (KMS_REQUEST_METADATA.to_owned(), id)));
        let (key, hash) = (digest.digest_s3_object.clone(), sha256_hex(&json));
        let put = self.put(Object { key, bytes: log_file::compress(&json)?, metadata }, Some(&hash)).await;
        if let Err(TrailError::Occupied(_)) = put {
            self.seal_later(&sealed).await?;
        }
        put?;
        let (object, end) = (format!("{}/{}", digest.digest_s3_bucket, digest.digest_s3_object), sealed.end);
        let mut state = self.state.clone();
        state.previous = Some(Previous {
            bucket: digest.digest_s3_bucket,
            object: digest.digest_s3_object,
            hash,
            signature: signature.clone(),
            is_closing: sealed.own.position == Some(Position::Closing),
        });
        (state.start, state.sealed) = (end, None);
        // If this fails, the same digest is found in the store.
        self.note(state).await?;
        self.next_digest = self.clock.instant() + self.digest_interval;
        let log_files = digest.log_files.len();
        tracing::info!(digest = object, log_files, signature, "digest delivered");
        self.newest_digest.send_replace(Some(NewestDigest { object, signature, end }));
        Ok(())
    }

    /// Fixes the contents of the next digest.
    async fn seal(&mut self, is_closing: bool) -> Result<(), TrailError> {
        // Whatever the clock does, each digest ends after the previous one.
        let end = whole_second(self.clock.now()).max(self.state.start + Duration::from_secs(1));
        let is_opening = self.is_new();
        let position = match (is_opening, is_closing) {
            (true, _) => Some(Position::Opening),
            (false, true) => Some(Position::Closing),
            (false, false) => None,
        };
        let own = OwnFields {
            version: FORMAT_VERSION,
            position,
            digest_interval_seconds: self.digest_interval.as_secs(),
            origin: is_opening.then(|| self.announcer.origin.clone()),
        };
        let mut state = self.state.clone();
        let log_files = std::mem::take(&mut state.log_files);
        state.sealed = Some(PendingDigest { end, log_files, own, signed: None });
        self.note(state).await
    }

    /// Moves a digest's end by a second, because another object has its name.
    async fn seal_later(&mut self, sealed: &PendingDigest) -> Result<(), TrailError> {
        let mut state = self.state.clone();
        let end = sealed.end + Duration::from_secs(1);
        state.sealed = Some(PendingDigest { end, signed: None, ..sealed.clone() });
        self.note(state).await
    }

    /// Signs a digest and saves the signature.
    async fn sign(&mut self, sealed: &PendingDigest) -> Result<DigestSignature, TrailError> {
        let fingerprint = self.signer.public_key().fingerprint();
        let digest = self.state.digest(sealed, &self.names, &fingerprint);
        let text = digest.string_to_sign(&digest.to_json());
        let signed = self.signer.sign(text.as_bytes());
        let (signature, kms_request_id) =
            self.in_time(async { signed.await.map_err(TrailError::Key) }).await?;
        let signed = DigestSignature { fingerprint, signature: hex::encode(signature), kms_request_id };
        let mut state = self.state.clone();
        state.sealed = Some(PendingDigest { signed: Some(signed.clone()), ..sealed.clone() });
        self.note(state).await?;
        Ok(signed)
    }
}

impl State {
    pub(super) fn newest_digest(&self) -> Option<NewestDigest> {
        let Previous { bucket, object, signature, .. } = self.previous.as_ref()?;
        let object = format!("{bucket}/{object}");
        Some(NewestDigest { object, signature: signature.clone(), end: self.start })
    }

    fn digest(&self, sealed: &PendingDigest, names: &TrailNames, fingerprint: &str) -> Digest {
        let previous = self.previous.as_ref();
        Digest {
            aws_account_id: names.account_id.clone(),
            digest_start_time: record_time(self.start),
            digest_end_time: record_time(sealed.end),
            digest_s3_bucket: names.bucket.clone(),
            digest_s3_object: names.digest(sealed.end),
            digest_public_key_fingerprint: fingerprint.to_owned(),
            digest_signature_algorithm: SIGNATURE_ALGORITHM.into(),
            newest_event_time: sealed.log_files.iter().map(|file| file.newest_event_time.clone()).max(),
            oldest_event_time: sealed.log_files.iter().map(|file| file.oldest_event_time.clone()).min(),
            previous_digest_s3_bucket: previous.map(|previous| previous.bucket.clone()),
            previous_digest_s3_object: previous.map(|previous| previous.object.clone()),
            previous_digest_hash_value: previous.map(|previous| previous.hash.clone()),
            previous_digest_hash_algorithm: previous.map(|_| HASH_ALGORITHM.into()),
            previous_digest_signature: previous.map(|previous| previous.signature.clone()),
            log_files: sealed.log_files.clone(),
            key_broker: Some(sealed.own.clone()),
        }
    }
}
