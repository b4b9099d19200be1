//! What imports of key material are wrapped with: a key of RSA and a token for each `GetParametersForImport`.
//! <https://docs.aws.amazon.com/kms/latest/developerguide/importing-keys-get-public-key-and-token.html>

use std::collections::VecDeque;
use std::sync::{Mutex, PoisonError};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rsa::{KeySize, OAEP_SHA256_MGF1SHA256, OaepPrivateDecryptingKey, PrivateDecryptingKey};
use zeroize::Zeroizing;

use crate::error::ApiError;
use crate::random;

/// The wrapping keys that were given out, the newest last. A restart forgets them.
#[derive(Default)]
pub(crate) struct Imports(Mutex<VecDeque<Wrapping>>);

struct Wrapping {
    key_id: String,
    token: [u8; TOKEN_LENGTH],
    private: OaepPrivateDecryptingKey,
    /// Unix milliseconds.
    valid_to: u64,
}

/// The parameters for an import.
pub(crate) struct ForImport {
    pub(crate) token: [u8; TOKEN_LENGTH],
    /// DER, `SubjectPublicKeyInfo`.
    pub(crate) public_key: Vec<u8>,
    /// Unix milliseconds.
    pub(crate) valid_to: u64,
}

impl Imports {
    /// A new wrapping key for the material of a key. It takes from 50 ms to a second.
    pub(crate) fn offer(&self, key_id: &str, size: KeySize, now: u64) -> Result<ForImport, String> {
        let private = PrivateDecryptingKey::generate(size).map_err(|error| error.to_string())?;
        let public: PublicKeyX509Der<'_> =
            private.public_key().as_der().map_err(|error| error.to_string())?;
        let offer = ForImport {
            token: random::array(),
            public_key: public.as_ref().to_vec(),
            valid_to: now.saturating_add(VALID_FOR),
        };
        let private = OaepPrivateDecryptingKey::new(private).map_err(|error| error.to_string())?;
        let wrapping =
            Wrapping { key_id: key_id.to_owned(), token: offer.token, private, valid_to: offer.valid_to };
        let mut offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if offered.len() >= MOST_OFFERED {
            offered.pop_front();
        }
        offered.push_back(wrapping);
        Ok(offer)
    }

    /// The material that was wrapped for a key.
    pub(crate) fn unwrap(
        &self,
        key_id: &str,
        token: &[u8],
        wrapped: &[u8],
        now: u64,
    ) -> Result<Zeroizing<Vec<u8>>, ApiError> {
        let offered = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let wrapping = offered
            .iter()
            .find(|wrapping| wrapping.token == token && wrapping.key_id == key_id)
            .ok_or_else(|| ApiError::bare("InvalidImportTokenException"))?;
        if wrapping.valid_to <= now {
            return Err(ApiError::bare("ExpiredImportTokenException"));
        }
        let mut material = Zeroizing::new(vec![0; wrapping.private.min_output_size()]);
        let opened = wrapping
            .private
            .decrypt(&OAEP_SHA256_MGF1SHA256, wrapped, &mut material, None)
            .map_err(|_| ApiError::invalid_ciphertext())?;
        Ok(Zeroizing::new(opened.to_vec()))
    }
}

pub(crate) const TOKEN_LENGTH: usize = 64;

/// Milliseconds: a day, as AWS has it.
const VALID_FOR: u64 = 24 * 60 * 60 * 1000;

/// The oldest are forgotten.
const MOST_OFFERED: usize = 100;
