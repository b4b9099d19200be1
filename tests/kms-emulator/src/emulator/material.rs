//! Time and key material, as tests arrange them.

use std::time::Duration;

use zeroize::Zeroizing;

use super::{Emulator, EmulatorError};
use crate::operations::{create_external_key, delete_material, import, rotate};

impl Emulator {
    /// Lets time pass: material expires, keys whose deletion date comes are gone, attestation documents grow old.
    pub fn advance(&self, by: Duration) -> Result<(), EmulatorError> {
        Ok(self.service.kms.store.advance(by)?)
    }

    /// The time that the emulator goes by: unix milliseconds.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.service.kms.store.now()
    }

    /// How long after a use of a key `GetKeyLastUsage` tells of it, and whether it tells of dry runs, too.
    pub fn track_last_usage(&self, delay: Duration, with_dry_runs: bool) {
        self.service.kms.usage.track(delay, with_dry_runs);
    }

    /// Gives a key new material. Returns its `KeyMaterialId`.
    pub fn rotate_key(&self, key_id: &str) -> Result<String, EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "RotateKeyOnDemand")?;
        Ok(rotate(store, &key)?)
    }

    /// A key under an alias, whose material is still to be imported: its ARN. An alias that exists is kept.
    pub fn ensure_external_key(&self, alias: &str) -> Result<String, EmulatorError> {
        Ok(create_external_key(&self.service.kms.store, alias)?.arn.clone())
    }

    /// Imports 32 bytes into a key of [`Emulator::ensure_external_key`], always the same ones, which expire after a while
    /// unless it is nothing. Returns their `KeyMaterialId`.
    pub fn import_material(
        &self,
        key_id: &str,
        material: &[u8],
        valid_for: Option<Duration>,
    ) -> Result<String, EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "ImportKeyMaterial")?;
        let millis = |valid_for: Duration| u64::try_from(valid_for.as_millis()).unwrap_or(u64::MAX);
        let expires = valid_for.map(|valid_for| store.now().saturating_add(millis(valid_for)));
        Ok(import(store, &key, Zeroizing::new(material.to_vec()), expires)?)
    }

    /// Deletes imported material.
    pub fn delete_material(&self, key_id: &str) -> Result<(), EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "DeleteImportedKeyMaterial")?;
        Ok(delete_material(store, &key)?)
    }
}
