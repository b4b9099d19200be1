//! Verifies one digest: its contents, its signature, and that it follows the previous digest.

use serde_json::Value;
use time::OffsetDateTime;

use super::finding::{FindingKind, Findings, Place};
use super::ids;
use super::record::is_compact;
use crate::digest::{ChainSpan, Digest, HASH_ALGORITHM, LogFile, Position, SIGNATURE_ALGORITHM, sha256_hex};
use crate::names::TrailNames;
use crate::reader::{DigestFile, DigestKey};
use crate::record::record_time;
use crate::signature::PublicKey;

/// The digest before a digest in the store.
pub(super) enum Before {
    /// None: it is the oldest one.
    Nothing,
    /// This one.
    Digest(DigestLink),
    /// An unreadable one with this key.
    Unreadable(String),
}

/// What the next digest should say about a digest.
pub(super) struct DigestLink {
    key: String,
    hash: String,
    signature: Option<String>,
    end: String,
}

impl DigestLink {
    pub(super) fn of(file: &DigestFile) -> Self {
        Self {
            key: file.key.clone(),
            hash: sha256_hex(&file.json),
            signature: file.signature.clone(),
            end: file.digest.digest_end_time.clone(),
        }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Its key, its hash and its signature, if it has one.
    pub(super) fn parts(&self) -> Option<(&str, &str, &str)> {
        Some((&self.key, &self.hash, self.signature.as_deref()?))
    }

    pub(super) fn is(&self, key: &str, hash: &str, signature: &str) -> bool {
        self.key == key && self.hash == hash && self.signature.as_deref() == Some(signature)
    }
}

/// Checks what a digest says about itself and its log files.
pub(super) fn check_content(
    file: &DigestFile,
    digest_key: &DigestKey,
    names: &TrailNames,
    findings: &mut Findings,
) {
    let place = || Place::object(&file.key);
    let digest = &file.digest;
    if digest.digest_s3_object != file.key
        || digest.digest_s3_bucket != names.bucket
        || digest.digest_end_time != record_time(digest_key.end)
    {
        let words = format!(
            "written for {}/{}, ending {}",
            digest.digest_s3_bucket, digest.digest_s3_object, digest.digest_end_time
        );
        findings.unsound(FindingKind::DigestMoved, place(), words);
    }
    if file.newer_version().is_some() {
        return;
    }
    if !is_written(digest, &file.json) {
        let words = "not compact JSON with its fields in order, as a broker writes it";
        findings.unsound(FindingKind::DigestMalformed, place(), words);
    }
    if let Err(why) = check_fields(digest, names) {
        findings.unsound(FindingKind::DigestMalformed, place(), why);
    }
    for log_file in &digest.log_files {
        if log_file.s3_bucket != names.bucket || names.log_file_minute(&log_file.s3_object).is_none() {
            let words = format!(
                "it names {}/{}, which no broker of this account and region writes",
                log_file.s3_bucket, log_file.s3_object
            );
            findings.unsound(FindingKind::LogFileName, place(), words);
        }
    }
}

/// Whether a broker writes it like this. Later brokers may add fields, which are signed with the rest.
fn is_written(digest: &Digest, json: &[u8]) -> bool {
    let known = digest.to_json();
    known == json || (is_compact(json) && has_all(json, &known))
}

/// Whether `json` has everything that `known` has, and possibly more.
fn has_all(json: &[u8], known: &[u8]) -> bool {
    fn has(all: &Value, known: &Value) -> bool {
        match (all, known) {
            (Value::Object(all), Value::Object(known)) => {
                known.iter().all(|(name, known)| all.get(name).is_some_and(|all| has(all, known)))
            }
            (Value::Array(all), Value::Array(known)) => {
                all.len() == known.len() && all.iter().zip(known).all(|(all, known)| has(all, known))
            }
            (all, known) => all == known,
        }
    }
    let (Ok(all), Ok(known)) = (serde_json::from_slice(json), serde_json::from_slice(known)) else {
        return false;
    };
    all != known && has(&all, &known)
}

fn check_fields(digest: &Digest, names: &TrailNames) -> Result<(), String> {
    let demand = |holds: bool, otherwise: &str| if holds { Ok(()) } else { Err(otherwise.to_owned()) };
    demand(digest.aws_account_id == names.account_id, "awsAccountId is another account's")?;
    let start = ids::seconds(&digest.digest_start_time).ok_or("digestStartTime is no time")?;
    let end = ids::seconds(&digest.digest_end_time).ok_or("digestEndTime is no time")?;
    demand(start < end, "it ends before it starts")?;
    demand(digest.digest_signature_algorithm == SIGNATURE_ALGORITHM, "digestSignatureAlgorithm is another")?;
    demand(is_hex(&digest.digest_public_key_fingerprint, 32), "digestPublicKeyFingerprint is none")?;
    if let Some(own) = &digest.key_broker {
        let is_first = digest.previous_digest_s3_object.is_none();
        demand(
            is_first == (own.position == Some(Position::Opening)),
            "it is opening, and another one is before it, or the other way round",
        )?;
        demand(own.origin.is_none() || is_first, "a digest that is not the first has an origin")?;
    }
    let previous = [
        &digest.previous_digest_s3_bucket,
        &digest.previous_digest_s3_object,
        &digest.previous_digest_hash_value,
        &digest.previous_digest_hash_algorithm,
        &digest.previous_digest_signature,
    ];
    demand(
        previous.iter().all(|field| field.is_some()) || previous.iter().all(|field| field.is_none()),
        "some of the five fields of the previous digest are null, but not all",
    )?;
    demand(
        digest.previous_digest_hash_algorithm.as_deref().is_none_or(|name| name == HASH_ALGORITHM),
        "previousDigestHashAlgorithm is another",
    )?;
    for log_file in &digest.log_files {
        let LogFile { hash_value, hash_algorithm, oldest_event_time, newest_event_time, .. } = log_file;
        demand(is_hex(hash_value, 64) && hash_algorithm == HASH_ALGORITHM, "a log file's hash is none")?;
        let (oldest, newest) = (ids::seconds(oldest_event_time), ids::seconds(newest_event_time));
        demand(oldest.is_some() && oldest <= newest, "a log file's times are none")?;
        let span = log_file.journal_chain.as_ref();
        demand(
            span.is_none_or(|span| ChainSpan::links(span).is_some()),
            "a log file's journalChain names no places in a chain",
        )?;
    }
    let (oldest, newest) = (
        digest.log_files.iter().map(|file| &file.oldest_event_time).min(),
        digest.log_files.iter().map(|file| &file.newest_event_time).max(),
    );
    demand(
        digest.oldest_event_time.as_ref() == oldest && digest.newest_event_time.as_ref() == newest,
        "oldestEventTime or newestEventTime is not that of its log files",
    )
}

pub(super) fn check_signature(file: &DigestFile, keys: &[PublicKey], findings: &mut Findings) {
    let place = || Place::object(&file.key);
    let Some(signature) = &file.signature else {
        return findings.unsound(FindingKind::DigestUnsigned, place(), "its metadata has no signature");
    };
    let fingerprint = &file.digest.digest_public_key_fingerprint;
    if keys.iter().all(|key| key.fingerprint() != *fingerprint) {
        let words = format!(
            "signed with a key of fingerprint {fingerprint}, whose public half was not given: give it, too"
        );
        return findings.cannot_tell(FindingKind::DigestOtherKey, place(), words);
    }
    let is_right = file.is_signed(keys);
    let algorithm = file.signature_algorithm.as_deref() == Some(SIGNATURE_ALGORITHM);
    // Brokers write lower case, and other software may compare the text.
    if !is_right || !algorithm || signature.bytes().any(|b| b.is_ascii_uppercase()) {
        findings.unsound(
            FindingKind::DigestSignature,
            place(),
            "its signature is wrong: changed after it was signed, or signed by somebody else",
        );
    }
}

/// What a digest's place in the chain is checked against.
pub(super) struct LinkContext<'a> {
    pub(super) names: &'a TrailNames,
    /// The previous digest in the store.
    pub(super) before: &'a Before,
    /// All digests in the store.
    pub(super) listed: &'a [DigestKey],
    /// The start of the period, if it does not begin with the trail.
    pub(super) from: Option<OffsetDateTime>,
}

/// Checks that a digest follows the previous one.
pub(super) fn check_link(file: &DigestFile, around: &LinkContext<'_>, findings: &mut Findings) {
    let LinkContext { names, before, listed, from } = around;
    let place = || Place::object(&file.key);
    let digest = &file.digest;
    let previous = match (&digest.previous_digest_s3_object, before) {
        (None, Before::Nothing) => return,
        (None, Before::Digest(DigestLink { key, .. }) | Before::Unreadable(key)) => {
            let words = format!(
                "it begins a chain of its own after {key}: the journal's directory was lost or replaced, and with it what was \
                 not delivered; nothing vouches for the time between"
            );
            return findings.unsound(FindingKind::ChainGap, place(), words);
        }
        (Some(_), Before::Nothing) if from.is_some_and(|from| begins_by(digest, from)) => return,
        (Some(previous), Before::Nothing) => {
            let words = format!(
                "the digest before it, {previous}, is not there: everything until {} is gone, by a rule that deletes what is \
                 old, or by somebody's hand; verify from then on",
                digest.digest_start_time
            );
            return findings.cannot_tell(FindingKind::BeginningMissing, place(), words);
        }
        (Some(previous), _) => previous,
    };
    let in_this_bucket = digest.previous_digest_s3_bucket.as_ref() == Some(&names.bucket);
    let is_there = |end| listed.binary_search_by_key(&end, |digest| digest.end).is_ok();
    if !in_this_bucket || !names.digest_end(previous).is_some_and(is_there) {
        let words = format!("the digest that it follows, {previous}, is not there");
        return findings.unsound(FindingKind::DigestMissing, place(), words);
    }
    let known = match before {
        Before::Digest(known) if known.key == *previous => known,
        Before::Unreadable(key) if key == previous => return,
        Before::Digest(DigestLink { key, .. }) | Before::Unreadable(key) => {
            let words = format!("it follows {previous} and passes over {key}, which nothing vouches for");
            return findings.unsound(FindingKind::ChainGap, place(), words);
        }
        Before::Nothing => return,
    };
    if digest.previous_digest_hash_value.as_ref() != Some(&known.hash) {
        let words = format!("its previousDigestHashValue is not the hash of {previous}");
        findings.unsound(FindingKind::PreviousHash, place(), words);
    }
    if digest.previous_digest_signature != known.signature {
        let words =
            format!("its previousDigestSignature is not the signature of {previous}: that was signed again");
        findings.unsound(FindingKind::PreviousSignature, place(), words);
    }
    if digest.digest_start_time != known.end {
        let words = format!("it starts {}, but {previous} ends {}", digest.digest_start_time, known.end);
        findings.unsound(FindingKind::ChainGap, place(), words);
    }
}

fn begins_by(digest: &Digest, from: OffsetDateTime) -> bool {
    ids::seconds(&digest.digest_start_time).is_some_and(|start| start <= from.unix_timestamp())
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}
