//! Callers that ask for everything, one call after the other, over restarts of the broker, and remember what they were told.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use key_broker_client::Error;
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::generate_data_key_request::Length;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

use super::dice::Dice;

/// Permits everything but one key.
pub const POLICY: &str = "permit(principal is Workload, action, resource);\n\
                          forbid(principal, action, resource in Alias::\"alias/forbidden\");";

/// A reply or a refusal that reached its caller: it has to be in the trail.
#[derive(Debug)]
pub struct Told {
    /// `x-request-id`.
    pub request_id: String,
    /// What its record must say; none where any will do.
    pub outcome: Option<&'static str>,
    /// The eventID of the KMS record behind a data key or plaintext.
    pub kms_event_id: Option<String>,
}

/// What all callers saw.
#[derive(Debug, Default)]
pub struct Seen {
    pub told: Vec<Told>,
    pub refused: Vec<Refusal>,
}

/// A call that was refused because the journal could not commit.
#[derive(Debug)]
pub struct Refusal {
    /// `x-request-id`.
    pub request_id: String,
    /// How long the caller waited.
    pub took: Duration,
}

impl Seen {
    pub fn answered(&self) -> usize {
        self.told.iter().filter(|told| told.outcome == Some("Allowed")).count()
    }

    fn add(&mut self, other: Self) {
        self.told.extend(other.told);
        self.refused.extend(other.refused);
    }
}

/// Callers at work, each with a connection of its own.
pub struct Load {
    stop: CancellationToken,
    callers: JoinSet<Seen>,
    answers: Arc<AtomicUsize>,
}

impl Load {
    /// Starts `callers` of them; each pauses for up to `pause` between two calls.
    pub fn start(socket: &Path, callers: u64, pause: Duration, dice: &mut Dice) -> Self {
        Self::start_large(socket, callers, pause, dice, 0)
    }

    /// The same, with an encryption context of some more bytes in every record.
    pub fn start_large(socket: &Path, callers: u64, pause: Duration, dice: &mut Dice, bytes: usize) -> Self {
        let (stop, answers) = (CancellationToken::new(), Arc::<AtomicUsize>::default());
        let mut set = JoinSet::new();
        for number in 0..callers {
            let caller = Caller {
                socket: socket.to_owned(),
                tenant: format!("{}{}", number % 3, "x".repeat(bytes)),
                dice: Dice::new(dice.below(u64::MAX)),
                pause,
                blob: Vec::new(),
                message: Bytes::new(),
                seen: Seen::default(),
                answers: Arc::clone(&answers),
            };
            set.spawn(caller.call_until(stop.clone()));
        }
        Self { stop, callers: set, answers }
    }

    /// How many calls were answered so far: on a busy machine that takes longer.
    pub fn answered(&self) -> usize {
        self.answers.load(Ordering::Relaxed)
    }

    /// Stops them after the calls that they are in.
    pub async fn stop(self) -> Seen {
        self.stop.cancel();
        let mut all = Seen::default();
        for seen in self.callers.join_all().await {
            all.add(seen);
        }
        all
    }
}

struct Caller {
    socket: PathBuf,
    tenant: String,
    dice: Dice,
    pause: Duration,
    /// The newest ciphertext, to be decrypted.
    blob: Vec<u8>,
    /// The newest message, to be decrypted.
    message: Bytes,
    seen: Seen,
    answers: Arc<AtomicUsize>,
}

impl Caller {
    async fn call_until(mut self, stop: CancellationToken) -> Seen {
        let uri = format!("unix:{}", self.socket.display());
        let endpoint = Endpoint::from_shared(uri).expect("a URI");
        let mut connected = None;
        while !stop.is_cancelled() {
            if connected.is_none() {
                connected = endpoint.connect().await.ok().map(KeyBrokerClient::new);
            }
            let Some(stub) = connected.clone() else {
                tokio::time::sleep(RECONNECT).await;
                continue;
            };
            if !self.call(stub).await {
                connected = None;
            }
            let micros = u64::try_from(self.pause.as_micros()).expect("a pause is short");
            tokio::time::sleep(Duration::from_micros(self.dice.below(micros + 1))).await;
        }
        self.seen
    }

    /// One call. False if the broker is gone.
    async fn call(&mut self, mut stub: KeyBrokerClient<Channel>) -> bool {
        let began = SystemClock.instant();
        let result = match self.dice.below(10) {
            0 => self.generate(&mut stub, "alias/forbidden", false).await,
            1 => self.generate(&mut stub, "", false).await,
            2 if !self.blob.is_empty() => self.decrypt(&mut stub).await,
            2..4 => self.generate(&mut stub, "alias/dev", true).await,
            4 if !self.message.is_empty() => self.decrypt_message(&mut stub).await,
            5 => self.encrypt_message(&mut stub).await,
            _ => self.generate(&mut stub, "alias/dev", false).await,
        };
        let status = match result {
            Ok(told) => {
                self.answers.fetch_add(1, Ordering::Relaxed);
                self.seen.told.push(told);
                return true;
            }
            Err(status) => Error::from(status),
        };
        assert!(began.elapsed() < DEADLINE, "a call hung: {status}");
        // Without an id it is not the broker's answer.
        let Some(request_id) = status.request_id().map(str::to_owned) else { return false };
        if status.reason() == Some("JOURNAL_UNAVAILABLE") {
            self.seen.refused.push(Refusal { request_id, took: began.elapsed() });
            return true;
        }
        let outcome = match status.code() {
            Code::PermissionDenied => Some("Denied"),
            Code::InvalidArgument => Some("Rejected"),
            _ => None,
        };
        self.seen.told.push(Told { request_id, outcome, kms_event_id: None });
        true
    }

    async fn generate(
        &mut self,
        stub: &mut KeyBrokerClient<Channel>,
        key: &str,
        fresh: bool,
    ) -> Result<Told, Status> {
        let request = pb::GenerateDataKeyRequest {
            key_id: key.into(),
            length: Some(Length::KeySpec(pb::KeySpec::Aes256.into())),
            encryption_context: [("tenant".to_owned(), self.tenant.clone())].into(),
            reuse: fresh.then(|| pb::Reuse { fresh: true, ..pb::Reuse::default() }),
            ..pb::GenerateDataKeyRequest::default()
        };
        let reply = stub.generate_data_key(request_of(request)).await?;
        let request_id = id(&reply);
        let reply = reply.into_inner();
        self.blob = reply.ciphertext_blob.to_vec();
        Ok(allowed(request_id, reply.provenance))
    }

    async fn encrypt_message(&mut self, stub: &mut KeyBrokerClient<Channel>) -> Result<Told, Status> {
        let length = usize::try_from(self.dice.below(10_000)).expect("short");
        let request = pb::EncryptMessageRequest {
            key_id: "alias/dev".into(),
            encryption_context: [("tenant".to_owned(), self.tenant.clone())].into(),
            plaintext: vec![7; length].into(),
            ..pb::EncryptMessageRequest::default()
        };
        let reply = stub.encrypt_message(request_of(request)).await?;
        let request_id = id(&reply);
        let reply = reply.into_inner();
        self.message = reply.message;
        Ok(allowed(request_id, reply.provenance))
    }

    async fn decrypt_message(&mut self, stub: &mut KeyBrokerClient<Channel>) -> Result<Told, Status> {
        let request = pb::DecryptMessageRequest {
            message: self.message.clone(),
            encryption_context: [("tenant".to_owned(), self.tenant.clone())].into(),
            ..pb::DecryptMessageRequest::default()
        };
        let reply = stub.decrypt_message(request_of(request)).await?;
        let request_id = id(&reply);
        Ok(allowed(request_id, reply.into_inner().provenance))
    }

    async fn decrypt(&mut self, stub: &mut KeyBrokerClient<Channel>) -> Result<Told, Status> {
        let request = pb::DecryptRequest {
            ciphertext_blob: self.blob.clone().into(),
            encryption_context: [("tenant".to_owned(), self.tenant.clone())].into(),
            ..pb::DecryptRequest::default()
        };
        let reply = stub.decrypt(request_of(request)).await?;
        let request_id = id(&reply);
        Ok(allowed(request_id, reply.into_inner().provenance))
    }
}

fn request_of<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(DEADLINE);
    request
}

fn id<T>(reply: &Response<T>) -> String {
    let id = reply.metadata().get("x-request-id").expect("every reply has an x-request-id");
    id.to_str().expect("text").to_owned()
}

fn allowed(request_id: String, provenance: Option<pb::Provenance>) -> Told {
    let kms_event_id = provenance.map(|provenance| provenance.kms_event_id);
    assert!(kms_event_id.as_ref().is_some_and(|id| !id.is_empty()), "every reply names its KMS record");
    Told { request_id, outcome: Some("Allowed"), kms_event_id }
}

const RECONNECT: Duration = Duration::from_millis(3);
/// Longer than any wait of the broker's: a call that ends by this hung.
const DEADLINE: Duration = Duration::from_secs(20);
