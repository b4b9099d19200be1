//! An enclave without its hypervisor: documents of a PKI of our own, about whatever a test says that it measures.

use std::sync::{Arc, Mutex, PoisonError};

use key_broker::Trust;
use key_broker_client::Client;
use key_broker_client::enclave::{AttestationError, AttestationProvider, Enclave, RecipientKey};
use key_broker_core::clock::{Clock, SystemClock};
use kms_emulator::attestation::{Authority, DocumentClaims};
use kms_emulator::{EmulatorConfig, RecipientForm};

use super::Setup;

/// Who attests. Clones share what is measured.
#[derive(Clone)]
pub struct Attester {
    authority: Arc<Authority>,
    claims: Arc<Mutex<DocumentClaims>>,
    clock: Arc<dyn Clock>,
}

impl Attester {
    pub fn new() -> Self {
        let claims = Arc::new(Mutex::new(DocumentClaims::enclave(0)));
        Self { authority: Arc::new(Authority::generate()), claims, clock: Arc::new(SystemClock) }
    }

    /// Documents are made by this clock.
    pub fn by(self, clock: Arc<dyn Clock>) -> Self {
        Self { clock, ..self }
    }

    /// A broker, and an emulator, that trust nobody else.
    pub fn setup(&self) -> Setup {
        let emulator = EmulatorConfig {
            attestation_roots: vec![self.authority.root_der()],
            ..EmulatorConfig::default()
        };
        Setup { trust: self.trust(), emulator, ..Setup::default() }
    }

    pub fn setup_with(&self, recipient_form: RecipientForm) -> Setup {
        let setup = self.setup();
        Setup { emulator: EmulatorConfig { recipient_form, ..setup.emulator }, ..setup }
    }

    pub fn trust(&self) -> Trust {
        Trust { roots: vec![self.authority.root_der().into()], ..Trust::aws() }
    }

    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// From now on, documents claim something else.
    pub fn change(&self, change: impl FnOnce(DocumentClaims) -> DocumentClaims) {
        let mut claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner);
        *claims = change(claims.clone());
    }

    /// What documents claim, made now.
    pub fn claims(&self) -> DocumentClaims {
        let claims = self.claims.lock().unwrap_or_else(PoisonError::into_inner).clone();
        DocumentClaims { timestamp: claims.timestamp + self.now(), ..claims }
    }

    /// An enclave with a key of its own.
    pub fn enclave(&self, client: Client) -> Enclave {
        Enclave::new(client, self.clone()).expect("a key")
    }

    /// The same with a key that exists.
    pub fn enclave_with(&self, client: Client, key: RecipientKey) -> Enclave {
        Enclave::with_key(client, self.clone(), key)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.clock.now().unix_timestamp_nanos() / 1_000_000).expect("after 1970")
    }
}

impl AttestationProvider for Attester {
    fn attest(&self, public_key_spki: &[u8]) -> Result<Vec<u8>, AttestationError> {
        Ok(self.authority.document(&self.claims().with_public_key(public_key_spki)))
    }
}
