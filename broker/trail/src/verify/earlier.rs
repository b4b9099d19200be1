//! Trails that an earlier run over many trails found sound. A run that was stopped continues with the remaining trails. Of a trail that has
//! grown, the new part is read, and the day before it. Digests are always read again and checked against one another, because they say
//! which log files belong to which trail.

use std::collections::{BTreeMap, HashSet};

use futures_util::StreamExt as _;
use futures_util::stream;
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::finding::{FindingKind, Findings, Report, Severity, TrailState, Verdict};
use super::resume::ResumePoint;
use super::uses::{Uses, UsesOf};
use super::{Before, Verification, VerifyOptions};
use crate::digest::sha256_hex;
use crate::reader::{DigestFile, DigestKey, TrailReader};

/// A trail that was found sound up to its newest digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PassedTrail {
    /// The trail's ARN.
    pub trail_arn: String,
    /// The newest digest's key, its SHA-256 and its signature, both in hex; and the number of digests.
    digest: String,
    hash: String,
    signature: String,
    digests: u64,
    /// Where verification continues if there are more digests.
    point: Option<ResumePoint>,
    log_files: u64,
    kms_records: u64,
    activity_records: u64,
    keys_used: u64,
    #[serde(with = "time::serde::rfc3339::option")]
    from: Option<OffsetDateTime>,
    /// `None` if they were not counted.
    uses: Option<Vec<(UsesOf, Uses)>>,
}

/// How much of the earlier result still holds.
pub(super) enum Holds {
    /// All of it, and there are no new digests: the report, and the log files of the trail.
    Whole(Box<Report>, HashSet<String>),
    /// Everything up to this point.
    Until(Box<ResumePoint>, HashSet<String>),
    Nothing,
}

impl PassedTrail {
    /// The trail after a verification up to its newest digest; `digests` are all of them.
    pub(super) fn of(verification: &Verification<'_>, digests: &[DigestKey]) -> Option<Self> {
        let Before::Digest(newest) = &verification.before else { return None };
        let (digest, hash, signature) = newest.parts()?;
        let is_newest = digests.last().is_some_and(|last| last.key == digest);
        is_newest.then(|| Self {
            trail_arn: verification.reader.names().trail_arn(),
            digest: digest.to_owned(),
            hash: hash.to_owned(),
            signature: signature.to_owned(),
            digests: digests.len() as u64,
            point: verification.done.resume.clone(),
            log_files: 0,
            kms_records: 0,
            activity_records: 0,
            keys_used: 0,
            from: None,
            uses: None,
        })
    }

    /// Adds the report's numbers. `None` if there is any finding except notes and that the trail is abandoned.
    pub(super) fn with(self, report: &Report, options: &VerifyOptions) -> Option<Self> {
        let is_passed = report.verdict != Verdict::Unsound
            && report.findings.iter().all(|finding| {
                finding.severity == Severity::Note || finding.kind == FindingKind::TrailAbandoned
            });
        is_passed.then(|| Self {
            log_files: report.log_files,
            kms_records: report.kms_records,
            activity_records: report.activity_records,
            keys_used: report.keys_used,
            from: report.from,
            uses: options.counts_uses.then(|| report.uses.clone().into_iter().collect()),
            ..self
        })
    }

    /// How much still holds if these are now the trail's digests, and `listed` all log files of the folder.
    pub(super) async fn holds(
        self,
        reader: &TrailReader,
        digests: &[DigestKey],
        listed: &HashSet<String>,
        options: &VerifyOptions,
    ) -> Holds {
        let passed = usize::try_from(self.digests).unwrap_or(usize::MAX);
        let Some(old) = digests.get(..passed).filter(|_| reader.names().trail_arn() == self.trail_arn) else {
            return Holds::Nothing;
        };
        let Some((newest, known)) = self.known(reader, old, &options.keys).await else {
            return Holds::Nothing;
        };
        if !known.is_subset(listed) {
            return Holds::Nothing;
        }
        let is_counted = !options.counts_uses || self.uses.is_some();
        match self.point.clone() {
            _ if passed == digests.len() && is_counted => {
                Holds::Whole(Box::new(self.report(&newest, digests, options)), known)
            }
            // Uses in a part of the trail cannot be separated from those in all of it.
            Some(point) if passed < digests.len() && !options.counts_uses => {
                Holds::Until(Box::new(point), known)
            }
            _ => Holds::Nothing,
        }
    }

    /// The newest of these digests and the log files in all of them, if they are the ones that were verified.
    async fn known(
        &self,
        reader: &TrailReader,
        digests: &[DigestKey],
        keys: &[crate::signature::PublicKey],
    ) -> Option<(DigestFile, HashSet<String>)> {
        let read = async |named: &DigestKey| reader.digest_file(&named.key).await;
        let files = stream::iter(digests).map(read).buffered(DIGESTS_AHEAD);
        let mut files = std::pin::pin!(files);
        let (mut known, mut newest) = (HashSet::new(), None::<DigestFile>);
        while let Some(read) = files.next().await {
            let file = read.ok()??;
            let before = newest.as_ref().map(|file| (file.key.clone(), sha256_hex(&file.json)));
            let digest = &file.digest;
            let named =
                digest.previous_digest_s3_object.clone().zip(digest.previous_digest_hash_value.clone());
            // The oldest digest may refer to one that is no longer here.
            if before.is_some() && before != named {
                return None;
            }
            known.extend(digest.log_files.iter().map(|entry| entry.s3_object.clone()));
            newest = Some(file);
        }
        let newest = newest?;
        let is_same = newest.key == self.digest
            && sha256_hex(&newest.json) == self.hash
            && newest.signature.as_ref() == Some(&self.signature);
        let is_signed = keys.is_empty() || newest.is_signed(keys);
        (is_same && is_signed).then_some((newest, known))
    }

    fn report(self, newest: &DigestFile, digests: &[DigestKey], options: &VerifyOptions) -> Report {
        let to = digests.last().map(|digest| digest.end);
        let state = to.map(|to| TrailState::of(&newest.digest, to, options.now));
        let mut findings = Findings::default();
        if let (Some(state), Some(to)) = (state, to) {
            state.tell(&newest.key, to, &mut findings);
        }
        let uses: BTreeMap<UsesOf, Uses> = self.uses.unwrap_or_default().into_iter().collect();
        let mut report = Report {
            digests: self.digests,
            log_files: self.log_files,
            records: self.kms_records + self.activity_records,
            kms_records: self.kms_records,
            activity_records: self.activity_records,
            keys_used: self.keys_used,
            from: self.from,
            to,
            newest_signature: Some(self.signature),
            state,
            uses,
            ..Report::default()
        };
        findings.conclude(&mut report);
        report
    }
}

/// As many as verification reads ahead.
const DIGESTS_AHEAD: usize = 8;
