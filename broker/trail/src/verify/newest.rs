//! Checks that the newest digests are there, by the broker's notes and by a signature kept elsewhere.

use super::Verification;
use super::digests::Before;
use super::finding::{FindingKind, Place};
use super::stretch::Stretch;
use crate::reader::{DigestKey, DigestKeys};
use crate::record::record_time;
use crate::state::State;

impl Verification<'_> {
    /// Reports a broker that has lost its notes: it knows of no digest although there are some.
    fn chain_begins_anew(&mut self, state: &State) {
        let Before::Digest(known) = &self.before else { return };
        // Its first digest may just have been delivered.
        let names = self.reader.names();
        if state.sealed.as_ref().is_some_and(|sealed| names.digest(sealed.end) == known.key()) {
            return;
        }
        let words = "the broker goes on without knowing of this digest: the journal's directory was lost or replaced, and with it \
                     what was not delivered";
        self.checker.findings.unsound(FindingKind::ChainGap, Place::object(known.key()), words);
        self.continuity.begin_anew();
    }

    /// Verifies digests delivered since the list was made; the newest must be the one in the broker's notes.
    pub(super) async fn newer_digests(&mut self, state: &State, listed: &[DigestKey]) {
        let Some(noted) = &state.previous else { return self.chain_begins_anew(state) };
        let is_noted = |before: &Before| match before {
            Before::Digest(known) => known.is(&noted.object, &noted.hash, &noted.signature),
            _ => false,
        };
        if is_noted(&self.before) || self.is_unread(&noted.object) {
            return;
        }
        if let Ok(DigestKeys { own, .. }) = self.reader.digest_keys().await {
            let last = listed.last().map(|digest| digest.end);
            let newer: Vec<DigestKey> =
                own.iter().filter(|digest| Some(digest.end) > last).cloned().collect();
            for digest in &newer {
                self.read_digests(std::slice::from_ref(digest), &own).await;
                if is_noted(&self.before) || self.is_unread(&noted.object) {
                    return;
                }
            }
        }
        let place = Place::object(&noted.object);
        let words = match &self.before {
            Before::Digest(known) if known.key() == noted.object => {
                "the newest digest is not the one that the broker noted: it was changed or signed again"
            }
            _ => {
                "the broker noted this digest as its newest one, but the newest one here is another: was it deleted?"
            }
        };
        self.checker.findings.unsound(FindingKind::NewestMissing, place, words);
    }

    /// Whether the newest digest is this one, and could not be read: that is told already.
    fn is_unread(&self, key: &str) -> bool {
        matches!(&self.before, Before::Unreadable(unread) if unread == key)
    }

    /// Checks that the signature kept elsewhere belongs to a digest of this trail.
    pub(super) async fn check_newest(&mut self, stretch: &Stretch<'_>) {
        let Some(kept) = &self.options.newest_signature else { return };
        if self.options.to.is_some() || self.kept_is_found {
            return;
        }
        for digest in stretch.around() {
            if let Ok(Some(file)) = self.reader.digest_file(&digest.key).await
                && file.signature.as_ref() == Some(kept)
            {
                return;
            }
        }
        let place = Place::object(&self.reader.names().digest_folder());
        let words = match self.report.to {
            Some(to) => format!(
                "no digest has the signature that was kept: what came after {} was deleted",
                record_time(to)
            ),
            None => "no digest has the signature that was kept: they were deleted".to_owned(),
        };
        self.checker.findings.unsound(FindingKind::NewestMissing, place, words);
    }
}
