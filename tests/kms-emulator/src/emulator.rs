//! The library's face: configuration, start and stop, what tests ask and arrange.

mod access;
mod material;

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::account::Account;
use crate::attestation::{Conditions, check_root};
use crate::calls::{Call, Calls};
use crate::cms::RecipientForm;
use crate::error::ApiError;
use crate::fault::{Fault, Faults};
use crate::imports::Imports;
use crate::key::KeySpec;
use crate::operations::{self, Kms, ensure_key, move_alias, replicate, set_enabled};
use crate::recipient::Recipients;
use crate::server::{self, Service};
use crate::store::Store;
use crate::sts::RoleSessions;
use crate::usage::Usage;

/// How an emulator is to be.
#[derive(Debug, Clone)]
pub struct EmulatorConfig {
    /// The address to listen on; loopback only. Port 0 takes a free one. Default `127.0.0.1:0`.
    pub listen: SocketAddr,
    /// The AWS Region it plays. Default `us-west-2`.
    pub region: String,
    /// The AWS account it plays: 12 digits. Default `111122223333`.
    pub account_id: String,
    /// The file for keys and aliases, mode 0600, in a directory that exists. Without it, which is the default, they are in memory.
    pub state_file: Option<PathBuf>,
    /// The ARN that `GetCallerIdentity` tells everybody. Default
    /// `arn:aws:sts::111122223333:assumed-role/key-broker-dev/dev-session`.
    pub caller_arn: String,
    /// The `UserId` that `GetCallerIdentity` tells everybody. Default `AROADEVKEYBROKER00001:dev-session`.
    pub caller_user_id: String,
    /// The root certificates (DER) whose attestation documents are believed: AWS's, or a test's
    /// [`Authority::root_der`](crate::attestation::Authority::root_der). Default none: every document is refused.
    pub attestation_roots: Vec<Vec<u8>>,
    /// How `CiphertextForRecipient` is written down. Default as KMS does.
    pub recipient_form: RecipientForm,
    /// How long after a use of a key `GetKeyLastUsage` tells of it. Default at once; AWS takes up to an hour.
    pub last_usage_delay: Duration,
    /// Whether `GetKeyLastUsage` tells of dry runs, too. Default not: AWS tells of successful operations.
    pub dry_runs_are_uses: bool,
}

impl Default for EmulatorConfig {
    fn default() -> EmulatorConfig {
        EmulatorConfig {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            region: "us-west-2".to_owned(),
            account_id: "111122223333".to_owned(),
            state_file: None,
            caller_arn: "arn:aws:sts::111122223333:assumed-role/key-broker-dev/dev-session".to_owned(),
            caller_user_id: "AROADEVKEYBROKER00001:dev-session".to_owned(),
            attestation_roots: Vec::new(),
            recipient_form: RecipientForm::default(),
            last_usage_delay: Duration::ZERO,
            dry_runs_are_uses: false,
        }
    }
}

/// Why the emulator cannot start, or cannot do as it was told.
#[derive(Debug)]
#[non_exhaustive]
pub enum EmulatorError {
    /// The account is not 12 digits, or the Region is not a name like `us-west-2`.
    Account(String),
    /// An attestation root is not a certificate, or a condition not one of AWS's.
    Attestation(String),
    /// The address to listen on is not a loopback address: plaintext keys would cross a network.
    NotLoopback(SocketAddr),
    /// The address cannot be listened on.
    Listen(SocketAddr, std::io::Error),
    /// The state file cannot be read, is another emulator's, or belongs to another region or account.
    State(String),
    /// The request is one that KMS would refuse: AWS's error type and message.
    Refused(String),
}

impl fmt::Display for EmulatorError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            EmulatorError::NotLoopback(address) => {
                write!(formatter, "{address} is not a loopback address: the emulator sends keys in the clear")
            }
            EmulatorError::Listen(address, error) => write!(formatter, "cannot listen on {address}: {error}"),
            EmulatorError::State(message) => write!(formatter, "state file: {message}"),
            EmulatorError::Account(message)
            | EmulatorError::Attestation(message)
            | EmulatorError::Refused(message) => formatter.write_str(message),
        }
    }
}

impl std::error::Error for EmulatorError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            EmulatorError::Listen(_, error) => Some(error),
            EmulatorError::Account(_)
            | EmulatorError::Attestation(_)
            | EmulatorError::NotLoopback(_)
            | EmulatorError::State(_)
            | EmulatorError::Refused(_) => None,
        }
    }
}

impl From<ApiError> for EmulatorError {
    fn from(error: ApiError) -> EmulatorError {
        EmulatorError::Refused(error.to_string())
    }
}

/// A running emulator. Dropping it stops it in the background and frees the state file; [`Emulator::shutdown`] waits
/// until it has stopped.
pub struct Emulator {
    address: SocketAddr,
    service: Arc<Service>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

impl Emulator {
    /// Reads the state file, listens, and serves on the current tokio runtime (with I/O and time enabled).
    pub async fn start(config: EmulatorConfig) -> Result<Emulator, EmulatorError> {
        if !config.listen.ip().is_loopback() {
            return Err(EmulatorError::NotLoopback(config.listen));
        }
        let account = Account {
            region: config.region,
            id: config.account_id,
            caller_arn: config.caller_arn,
            caller_user_id: config.caller_user_id,
        };
        check_account(&account)?;
        for root in &config.attestation_roots {
            check_root(root)
                .map_err(|error| EmulatorError::Attestation(format!("attestation root: {error}")))?;
        }
        let recipients = Recipients { roots: config.attestation_roots, form: config.recipient_form };
        let store = Store::open(account, config.state_file).map_err(EmulatorError::State)?;
        let listen = |error| EmulatorError::Listen(config.listen, error);
        let listener = TcpListener::bind(config.listen).await.map_err(listen)?;
        let address = listener.local_addr().map_err(listen)?;
        let usage = Usage::since(store.now());
        usage.track(config.last_usage_delay, config.dry_runs_are_uses);
        let service = Arc::new(Service {
            kms: Kms { store, recipients, imports: Imports::default(), usage },
            faults: Faults::default(),
            calls: Calls::default(),
            role_sessions: RoleSessions::default(),
        });
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        tasks.spawn(server::accept(listener, Arc::clone(&service), stop.clone(), tasks.clone()));
        Ok(Emulator { address, service, stop, tasks })
    }

    /// The endpoint to give to an SDK, for KMS and for STS: `http://127.0.0.1:PORT`.
    #[must_use]
    pub fn endpoint_url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The ARN of the key behind an alias (`alias/…`). An alias that exists is kept; else the key and the alias are
    /// made, in one change. It waits for the disk, and for an RSA key up to seconds: call it before the work starts.
    pub fn ensure_key(&self, alias: &str, spec: KeySpec) -> Result<String, EmulatorError> {
        let key = ensure_key(&self.service.kms.store, alias, spec, false)?;
        if key.spec != spec {
            let (is, wanted) = (key.spec.as_str(), spec.as_str());
            return Err(EmulatorError::Refused(format!("{alias} is a key of spec {is}, not {wanted}")));
        }
        Ok(key.arn.clone())
    }

    /// The same, for a symmetric multi-Region key, which can have replicas.
    pub fn ensure_multi_region_key(&self, alias: &str) -> Result<String, EmulatorError> {
        let key = ensure_key(&self.service.kms.store, alias, KeySpec::SymmetricDefault, true)?;
        if !key.multi_region() {
            return Err(EmulatorError::Refused(format!("{alias} is not a multi-Region key")));
        }
        Ok(key.arn.clone())
    }

    /// Lets an alias mean another key, named by its id or ARN.
    pub fn move_alias(&self, alias: &str, key_id: &str) -> Result<(), EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find_by_id(&store.snapshot(), key_id, "UpdateAlias")?;
        Ok(move_alias(store, alias, &key)?)
    }

    /// Makes a replica of a multi-Region key in another emulator, which plays another region of the same account, and returns its
    /// ARN: the same key id and material. It is enabled, whatever becomes of the other, and no alias means it.
    pub fn replicate_key(&self, key_id: &str, other: &Emulator) -> Result<String, EmulatorError> {
        let store = &self.service.kms.store;
        let key = store.find(&store.snapshot(), key_id, "ReplicateKey")?;
        let replica = replicate(&other.service.kms.store, &key, &store.account().region)?;
        Ok(replica.arn.clone())
    }

    /// Enables or disables a key, named in any form that KMS takes.
    pub fn set_enabled(&self, key_id: &str, enabled: bool) -> Result<(), EmulatorError> {
        let store = &self.service.kms.store;
        let operation = if enabled { "EnableKey" } else { "DisableKey" };
        let key = store.find(&store.snapshot(), key_id, operation)?;
        Ok(set_enabled(store, &key, enabled)?)
    }

    /// Puts conditions on attestation documents on a key, named in any form that KMS takes, in place of those that it
    /// had: condition keys by AWS's names, values in lower-case hex. From then on GenerateDataKey and Decrypt with the
    /// key need a document that has all of it. None of them lifts the conditions. It waits for the disk.
    ///
    /// ```no_run
    /// # fn example(kms: &kms_emulator::Emulator) -> Result<(), kms_emulator::EmulatorError> {
    /// let image = "01".repeat(48);
    /// kms.require_attestation("alias/orders", &[("kms:RecipientAttestation:PCR0", &image)])?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn require_attestation(
        &self,
        key_id: &str,
        conditions: &[(&str, &str)],
    ) -> Result<(), EmulatorError> {
        require_attestation(&self.service.kms.store, [(key_id, conditions.to_vec())])
    }

    /// Adds a fault, behind those in force.
    pub fn inject(&self, fault: Fault) {
        self.service.faults.inject(fault);
    }

    /// Removes all faults.
    pub fn clear_faults(&self) {
        self.service.faults.replace(Vec::new());
    }

    /// The faults in force; `times` is what is left of it.
    #[must_use]
    pub fn faults(&self) -> Vec<Fault> {
        self.service.faults.list()
    }

    /// The last 200,000 calls, oldest first.
    #[must_use]
    pub fn calls(&self) -> Vec<Call> {
        self.service.calls.list()
    }

    /// How many calls of an operation arrived, by AWS's name: exact, however many.
    #[must_use]
    pub fn call_count(&self, operation: &str) -> u64 {
        self.service.calls.count(operation)
    }

    /// Forgets all calls and counts.
    pub fn clear_calls(&self) {
        self.service.calls.clear();
    }

    /// Stops listening, lets requests finish (for a second), and lets go of the state file.
    pub async fn shutdown(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

/// Conditions for keys named in any form, all or none.
pub(crate) fn require_attestation<'a>(
    store: &Store,
    keys: impl IntoIterator<Item = (&'a str, Vec<(&'a str, &'a str)>)>,
) -> Result<(), EmulatorError> {
    let state = store.snapshot();
    let keys = keys.into_iter().map(|(key_id, conditions)| {
        let key = store.find(&state, key_id, "PutKeyPolicy")?;
        let conditions = Conditions::parse(conditions).map_err(EmulatorError::Attestation)?;
        Ok((key.id.clone(), conditions))
    });
    Ok(operations::require_attestation(store, keys.collect::<Result<_, EmulatorError>>()?)?)
}

/// ARNs are made of both.
fn check_account(account: &Account) -> Result<(), EmulatorError> {
    let Account { region, id, .. } = account;
    if id.len() != 12 || !id.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EmulatorError::Account(format!("account {id:?} is not 12 digits")));
    }
    let of_a_name = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    if region.is_empty() || !region.bytes().all(of_a_name) {
        return Err(EmulatorError::Account(format!("region {region:?} is not a name like us-west-2")));
    }
    Ok(())
}

impl Drop for Emulator {
    fn drop(&mut self) {
        self.stop.cancel();
        self.service.kms.store.close();
    }
}

impl fmt::Debug for Emulator {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Emulator").field("address", &self.address).finish_non_exhaustive()
    }
}
