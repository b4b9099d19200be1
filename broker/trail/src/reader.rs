//! Reads a trail: its digests, its log files and their records, without verifying that they are what the broker delivered.
//!
//! Objects may have been put there by somebody else, so reading them is bounded, decompression included.

mod data_key;
pub(crate) mod pieces;
pub(crate) mod records;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io::{self, Read as _};
use std::sync::Arc;

use flate2::bufread::GzDecoder;
use key_broker_core::Plaintext;
use key_broker_envelope::{Header, OpenError};
use time::OffsetDateTime;
use zeroize::Zeroizing;

use super::digest::{Digest, KMS_REQUEST_METADATA, SIGNATURE_ALGORITHM_METADATA, SIGNATURE_METADATA};
use super::format_version::FORMAT_VERSION;
use super::names::{TrailNames, trail_of};
use super::store::{Store, StoreError};
use crate::keys::Decrypter;
use crate::signature::PublicKey;
use crate::trail_name;

/// A reader of one trail.
pub struct TrailReader {
    store: Arc<dyn Store>,
    names: TrailNames,
    decrypter: Option<Arc<dyn Decrypter>>,
}

/// The objects in the folder of a bucket's digests.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DigestKeys {
    /// This trail's digests in order of time.
    pub(crate) own: Vec<DigestKey>,
    /// The keys of everything else there, such as other trails' digests.
    pub(crate) others: Vec<String>,
}

/// The name of one digest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestKey {
    /// Its key in the bucket.
    pub(crate) key: String,
    /// Its end, according to its name.
    pub(crate) end: OffsetDateTime,
}

/// A digest as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DigestFile {
    /// Its key in the bucket.
    pub(crate) key: String,
    /// Its uncompressed bytes, which are hashed and signed.
    pub(crate) json: Vec<u8>,
    /// Their contents.
    pub digest: Digest,
    /// The signature in the object's metadata, in hex.
    pub(crate) signature: Option<String>,
    /// The signature's algorithm in the object's metadata.
    pub(crate) signature_algorithm: Option<String>,
    /// The requestID of KMS's Sign in the object's metadata.
    pub(crate) kms_request_id: Option<String>,
}

/// Why an object cannot be read.
#[derive(Debug)]
pub enum ReadFailure {
    /// The store failed.
    Store(StoreError),
    /// It is encrypted, and this reader or KMS cannot decrypt it.
    Locked(String),
    /// Brokers do not deliver such an object: it was altered, moved or planted.
    Malformed(String),
}

impl fmt::Display for ReadFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => write!(f, "the trail's store: {error}"),
            Self::Locked(why) | Self::Malformed(why) => f.write_str(why),
        }
    }
}

impl std::error::Error for ReadFailure {}

impl From<StoreError> for ReadFailure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl DigestFile {
    /// The format version, if it is later than what this program reads.
    pub(crate) fn newer_version(&self) -> Option<u32> {
        let version = self.digest.key_broker.as_ref()?.version;
        (version > FORMAT_VERSION).then_some(version)
    }

    /// Whether one of these keys has signed it.
    pub(crate) fn is_signed(&self, keys: &[PublicKey]) -> bool {
        let fingerprint = &self.digest.digest_public_key_fingerprint;
        let Some(key) = keys.iter().find(|key| key.fingerprint() == *fingerprint) else { return false };
        let signature = self.signature.as_deref().and_then(|hex| hex::decode(hex).ok());
        let signed = self.digest.string_to_sign(&self.json);
        signature.is_some_and(|signature| key.verifies(signed.as_bytes(), &signature))
    }
}

/// The digests of the trails with this name, by trail and in order, and other objects among them.
pub(crate) async fn digests_by_trail(
    reader: &TrailReader,
    called: &str,
) -> Result<(BTreeMap<String, Vec<DigestKey>>, Vec<String>), StoreError> {
    let (mut trails, mut others) = (BTreeMap::<String, Vec<DigestKey>>::new(), Vec::new());
    for key in reader.digest_folder_keys().await? {
        let named = trail_of(&key).map(|(name, end)| (name.to_owned(), end));
        match named.filter(|(name, end)| reader.names_of(name).digest(*end) == key) {
            Some((name, end)) if trail_name::is_called(&name, called) => {
                trails.entry(name).or_default().push(DigestKey { key, end });
            }
            Some(_) => {}
            None => others.push(key),
        }
    }
    for digests in trails.values_mut() {
        digests.sort_by_key(|digest| digest.end);
    }
    Ok((trails, others))
}

/// The digests of trails with this name, by trail and in order, that end on the days from `from` to `to`.
pub(crate) async fn digests_between(
    reader: &TrailReader,
    called: &str,
    from: OffsetDateTime,
    to: OffsetDateTime,
) -> Result<BTreeMap<String, Vec<DigestKey>>, StoreError> {
    let mut trails = BTreeMap::<String, Vec<DigestKey>>::new();
    let (mut day, last) = (from.date(), to.date().saturating_add(time::Duration::DAY));
    while day <= last {
        for key in reader.store.list(&reader.names.digest_folder_of(day)).await? {
            let Some((name, end)) = trail_of(&key).map(|(name, end)| (name.to_owned(), end)) else {
                continue;
            };
            if trail_name::is_called(&name, called) && reader.names_of(&name).digest(end) == key {
                trails.entry(name).or_default().push(DigestKey { key, end });
            }
        }
        let Some(next) = day.next_day() else { break };
        day = next;
    }
    for digests in trails.values_mut() {
        digests.sort_by_key(|digest| digest.end);
    }
    Ok(trails)
}

impl TrailReader {
    /// Reads the trail with these names. Without a `decrypter`, encrypted log files in a directory are [`ReadFailure::Locked`]; S3 decrypts
    /// by itself.
    #[must_use]
    pub fn new(store: Arc<dyn Store>, names: TrailNames, decrypter: Option<Arc<dyn Decrypter>>) -> Self {
        Self { store, names, decrypter }
    }

    /// The names of the trail.
    #[must_use]
    pub fn names(&self) -> &TrailNames {
        &self.names
    }

    /// The names of the trails here that match `called`, or whose journals added an id to it, in order; `*` matches anything.
    pub async fn trail_names(&self, called: &str) -> Result<Vec<String>, StoreError> {
        let keys = self.digest_folder_keys().await?;
        let names: BTreeSet<&str> =
            keys.iter().filter_map(|key| trail_of(key)).map(|(name, _)| name).collect();
        Ok(names.into_iter().filter(|name| trail_name::is_called(name, called)).map(str::to_owned).collect())
    }

    /// The same store, for another of its trails.
    pub(crate) fn of(&self, trail: &str) -> Self {
        let (store, decrypter) = (Arc::clone(&self.store), self.decrypter.clone());
        Self { store, names: self.names_of(trail), decrypter }
    }

    pub(crate) fn names_of(&self, trail: &str) -> TrailNames {
        TrailNames { trail: trail.to_owned(), ..self.names.clone() }
    }

    pub(crate) async fn digest_folder_keys(&self) -> Result<Vec<String>, StoreError> {
        self.store.list(&self.names.digest_folder()).await
    }

    pub(crate) async fn digest_keys(&self) -> Result<DigestKeys, StoreError> {
        let mut keys = DigestKeys::default();
        for key in self.store.list(&self.names.digest_folder()).await? {
            match self.names.digest_end(&key) {
                Some(end) => keys.own.push(DigestKey { key, end }),
                None => keys.others.push(key),
            }
        }
        keys.own.sort_by_key(|digest| digest.end);
        Ok(keys)
    }

    /// The other trails of this account and region that have digests here.
    pub async fn siblings(&self) -> Result<Vec<Self>, StoreError> {
        let keys = self.digest_keys().await?;
        let trails: BTreeSet<&str> = keys
            .others
            .iter()
            .filter_map(|key| Some(trail_of(key)?.0))
            .filter(|trail| *trail != self.names.trail)
            .collect();
        let of = |trail: &str| Self {
            store: Arc::clone(&self.store),
            names: TrailNames { trail: trail.to_owned(), ..self.names.clone() },
            decrypter: self.decrypter.clone(),
        };
        Ok(trails.into_iter().map(of).collect())
    }

    /// The keys of all log files of this account and region, including other brokers', sorted by name and so by minute.
    pub(crate) async fn log_file_keys(&self) -> Result<Vec<String>, StoreError> {
        self.store.list(&self.names.log_folder()).await
    }

    /// The digest with this key, if there is one.
    pub(crate) async fn digest(&self, key: &str) -> Result<Option<Digest>, ReadFailure> {
        Ok(self.digest_file(key).await?.map(|file| file.digest))
    }

    /// The same as it is stored.
    pub(crate) async fn digest_file(&self, key: &str) -> Result<Option<DigestFile>, ReadFailure> {
        let Some(mut object) = self.store.get(key).await? else { return Ok(None) };
        let json = gunzip(&object.bytes)?;
        let digest = serde_json::from_slice(&json)
            .map_err(|error| ReadFailure::Malformed(format!("not a digest: {error}")))?;
        Ok(Some(DigestFile {
            key: object.key,
            json,
            digest,
            signature: object.metadata.remove(SIGNATURE_METADATA),
            signature_algorithm: object.metadata.remove(SIGNATURE_ALGORITHM_METADATA),
            kms_request_id: object.metadata.remove(KMS_REQUEST_METADATA),
        }))
    }

    /// The text of the log file with this key, if there is one, decrypted if necessary.
    pub async fn log_file(&self, key: &str) -> Result<Option<Vec<u8>>, ReadFailure> {
        let Some(fetched) = self.fetch(key).await? else { return Ok(None) };
        off_the_loop(move || fetched.open()).await.map(Some)
    }

    /// The log file with this key, if there is one, as it is stored, with its data key.
    pub(crate) async fn fetch(&self, key: &str) -> Result<Option<FetchedLogFile>, ReadFailure> {
        let Some(object) = self.store.get(key).await? else { return Ok(None) };
        let bytes = object.bytes;
        if bytes.first() != Some(&ENVELOPE_VERSION) {
            return Ok(Some(FetchedLogFile { bytes, envelope: None }));
        }
        let mut rest = bytes.as_slice();
        let header = Header::read(&mut rest).map_err(|error| malformed(&error))?;
        let front = bytes.len() - rest.len();
        let Some(decrypter) = &self.decrypter else {
            return Err(ReadFailure::Locked(
                "encrypted under a KMS key: give a configuration with which KMS can be asked to decrypt it"
                    .into(),
            ));
        };
        let data_key = data_key::decrypt(&**decrypter, &self.names, key, &header).await?;
        Ok(Some(FetchedLogFile { bytes, envelope: Some((header, data_key, front)) }))
    }
}

/// A log file as it is stored.
pub(crate) struct FetchedLogFile {
    bytes: Vec<u8>,
    /// For an encrypted one: the header, the data key, and the header's length.
    envelope: Option<(Header, Plaintext, usize)>,
}

impl FetchedLogFile {
    /// Its text. Takes long, and blocks.
    pub(crate) fn open(self) -> Result<Vec<u8>, ReadFailure> {
        gunzip(&self.unlock()?)
    }

    /// Its compressed text. Takes long, and blocks.
    pub(crate) fn unlock(self) -> Result<Zeroizing<Vec<u8>>, ReadFailure> {
        let Some((header, data_key, front)) = self.envelope else { return Ok(self.bytes.into()) };
        header.open_whole(&data_key, &self.bytes[front..]).map_err(|error| malformed(&error))
    }
}

/// What an auditor is told: the envelope's own words are for whoever has a message to decrypt.
fn malformed(error: &OpenError) -> ReadFailure {
    ReadFailure::Malformed(match error {
        OpenError::CutOff(_) => "it is encrypted, and its end is missing".to_owned(),
        OpenError::TrailingBytes => "it is encrypted, and other bytes follow its end".to_owned(),
        OpenError::HeaderTag
        | OpenError::Commitment
        | OpenError::Sequence { .. }
        | OpenError::LastFrameLength { .. }
        | OpenError::FrameTag(_)
        | OpenError::Signature => {
            "it is encrypted, and some of its bytes are not those that its broker encrypted".to_owned()
        }
        OpenError::Suite(suite) | OpenError::FormatOne(suite) => {
            format!("it is encrypted in another way (suite 0x{suite:04x}) than brokers encrypt log files")
        }
        _ => "it begins like an encrypted file, and is none that brokers deliver".to_owned(),
    })
}

/// Uncompresses an object, which must be a single gzip member with nothing after it: programs disagree about a second member and about
/// trailing bytes, so both are refused.
pub(crate) fn gunzip(bytes: &[u8]) -> Result<Vec<u8>, ReadFailure> {
    gunzip_within(bytes, MAX_UNCOMPRESSED_BYTES)
}

fn gunzip_within(bytes: &[u8], limit: usize) -> Result<Vec<u8>, ReadFailure> {
    let mut decoder = GzDecoder::new(bytes);
    let mut json = Vec::with_capacity(stated_length(bytes).min(limit + 1));
    let read = decoder.by_ref().take(limit as u64 + 1).read_to_end(&mut json);
    let malformed = |why: String| Err(ReadFailure::Malformed(why));
    match read {
        Ok(length) if length > limit => {
            malformed(format!("more than {limit} bytes uncompressed: a broker delivers less"))
        }
        Ok(_) if !decoder.into_inner().is_empty() => malformed("bytes follow the end of its gzip".into()),
        Ok(_) => Ok(json),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => malformed("its gzip is cut off".into()),
        Err(error) => malformed(format!("no gzip: {error}")),
    }
}

/// The uncompressed length according to gzip (RFC 1952, ISIZE): only a hint that saves copies.
fn stated_length(gzip: &[u8]) -> usize {
    let stated = gzip.last_chunk().map_or(0, |isize| u32::from_le_bytes(*isize));
    // Deflate compresses to a thousandth at best.
    (stated as usize).saturating_add(1).min(gzip.len().saturating_mul(1_032))
}

/// Does long work on a thread that may block.
async fn off_the_loop<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, ReadFailure> + Send + 'static,
) -> Result<T, ReadFailure> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|_| Err(ReadFailure::Store(StoreError("the reading was cut off".into()))))
}

/// A log file has at most some 47 MB (a file of the journal has 50), and one more record.
pub(crate) const MAX_UNCOMPRESSED_BYTES: usize = 64 << 20;
/// The first byte of an AWS Encryption SDK message of format 2. A gzip's is 0x1f.
const ENVELOPE_VERSION: u8 = 2;

#[cfg(test)]
mod tests;
