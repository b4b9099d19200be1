//! Proves: an enclave attests each call anew, takes only what is encrypted to it and is what it asked for, and says why it took
//! nothing; the demonstration program works end to end. A broker of our own answers, over a real unix socket.

mod support;

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::server::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use key_broker_client::enclave::{
    AttestationError, AttestationProvider, Enclave, Error, FileDocument, RecipientKey,
};
use key_broker_client::{Client, Decrypt, GenerateDataKey};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_server::{KeyBroker, KeyBrokerServer};
use support::{Form, Message};
use tempfile::TempDir;
use tokio::net::UnixListener;
use tonic::codegen::BoxStream;
use tonic::{Code, Request, Response, Status, Streaming, async_trait};

#[tokio::test]
async fn what_is_encrypted_to_the_enclave_is_opened() {
    for form in [Form::Der, Form::Primitive, Form::Constructed(16)] {
        let broker = Broker::start(Answers { form, ..Answers::default() });
        let enclave = broker.enclave(Echo::default()).await;

        let request = GenerateDataKey::aes_256("alias/app").context("tenant", "acme");
        let data_key = enclave.generate_data_key(request).await.expect("a data key");
        assert_eq!(data_key.plaintext.expose(), [DATA_KEY; 32]);
        assert_eq!((&*data_key.ciphertext_blob, &*data_key.key_id), (b"wrapped".as_slice(), ARN));

        let short =
            enclave.generate_data_key(GenerateDataKey::aes_128("alias/app")).await.expect("a data key");
        assert_eq!(short.plaintext.expose(), [DATA_KEY; 16]);
        let long =
            enclave.generate_data_key(GenerateDataKey::bytes("alias/app", 1_024)).await.expect("a data key");
        assert_eq!(long.plaintext.expose(), [DATA_KEY; 1_024]);

        let decrypted =
            enclave.decrypt(Decrypt::new(data_key.ciphertext_blob).key_id(ARN)).await.expect("decrypts");
        assert_eq!((decrypted.plaintext.expose(), &*decrypted.key_id), ([DATA_KEY; 32].as_slice(), ARN));

        let random = enclave.generate_random(24).await.expect("random bytes");
        assert_eq!(random.plaintext.expose(), [RANDOM; 24]);
    }
}

#[tokio::test]
async fn every_call_has_a_document_of_its_own() {
    let broker = Broker::start(Answers::default());
    let calls = Echo::default();
    let enclave = broker.enclave(calls.clone()).await;
    for call in 1..=3 {
        enclave.clone().generate_random(8).await.expect("random bytes");
        assert_eq!(calls.0.load(Ordering::Relaxed), call);
    }
}

#[tokio::test]
async fn plaintext_that_others_could_read_is_thrown_away() {
    // Beside the right ciphertext, and alone.
    for without_ciphertext in [false, true] {
        let broker = Broker::start(Answers { plaintext: true, without_ciphertext, ..Answers::default() });
        let failures = failures(&broker.enclave(Echo::default()).await).await;
        assert!(failures.iter().all(|error| matches!(error, Error::PlaintextExposed)), "{failures:?}");
    }
}

#[tokio::test]
async fn an_answer_with_nothing_for_the_enclave_is_refused() {
    let broker = Broker::start(Answers { without_ciphertext: true, ..Answers::default() });
    let failures = failures(&broker.enclave(Echo::default()).await).await;
    assert!(failures.iter().all(|error| matches!(error, Error::NotForRecipient)), "{failures:?}");
}

#[tokio::test]
async fn an_answer_of_another_length_is_as_one_that_does_not_open() {
    for excess in [-1, 1] {
        let broker = Broker::start(Answers { excess, ..Answers::default() });
        let enclave = broker.enclave(Echo::default()).await;
        let errors = [
            enclave.generate_data_key(GenerateDataKey::aes_256("alias/app")).await.expect_err("length"),
            enclave.generate_data_key(GenerateDataKey::bytes("alias/app", 7)).await.expect_err("length"),
            enclave.generate_random(8).await.expect_err("length"),
        ];
        assert!(errors.iter().all(|error| matches!(error, Error::NotOpened)), "{errors:?}");
        enclave.decrypt(Decrypt::new("wrapped")).await.expect("has no length to expect");
    }
}

#[tokio::test]
async fn an_answer_for_another_key_does_not_open() {
    let broker = Broker::start(Answers::default());
    let other = RecipientKey::generate().expect("a key");
    let failures = failures(&broker.enclave(Fixed(other.public_key_spki().to_vec())).await).await;
    assert!(failures.iter().all(|error| matches!(error, Error::NotOpened)), "{failures:?}");
}

#[tokio::test]
async fn without_a_document_the_broker_is_not_asked() {
    let broker = Broker::start(Answers::default());
    let failures = failures(&broker.enclave(Broken).await).await;
    assert!(failures.iter().all(|error| error.to_string() == "no attestation document: no module here"));
    let failures = self::failures(&broker.enclave(Panicking).await).await;
    assert!(failures.iter().all(|error| matches!(error, Error::Attestation(_))), "{failures:?}");
    assert_eq!(broker.answers.calls.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_refusal_keeps_its_code() {
    let broker = Broker::start(Answers { refuse: true, ..Answers::default() });
    for error in failures(&broker.enclave(Echo::default()).await).await {
        let Error::Broker(error) = error else { panic!("{error:?}") };
        assert_eq!((error.code(), error.message()), (Code::PermissionDenied, "denied by policy"));
    }
}

#[test]
fn a_file_serves_the_key_that_it_names() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = directory.path().join("document");
    std::fs::write(&path, b"a document with the key SPKI").expect("writes");
    let document = FileDocument::read(&path).expect("reads");
    assert_eq!(document.attest(b"SPKI").expect("it is there"), b"a document with the key SPKI");
    let error = document.attest(b"another").expect_err("it is not there");
    assert_eq!(error.to_string(), "the attestation document was made for another key");
}

#[test]
fn what_is_no_rsa_key_is_refused() {
    for no_key in [b"".as_slice(), b"\x30\x00", &[0xff; 2_000]] {
        RecipientKey::from_pkcs8(no_key).expect_err("no key");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_demonstration_runs() {
    let broker = Broker::start(Answers::default());
    // In DER, OpenSSL's genpkey writes PKCS#1: it takes pkcs8 to have PKCS#8.
    let genpkey = "genpkey -algorithm RSA -pkeyopt rsa_keygen_bits:2048 -out key.pem";
    for arguments in [genpkey, "pkcs8 -topk8 -nocrypt -in key.pem -outform DER -out key"] {
        let mut openssl = Command::new("openssl");
        openssl.args(arguments.split(' ')).current_dir(broker.directory.path());
        openssl.output().expect("openssl is installed");
    }
    let pkcs8 = std::fs::read(broker.path("key")).expect("openssl wrote it");
    let key = RecipientKey::from_pkcs8(&pkcs8).expect("a key");
    std::fs::write(broker.path("document"), key.public_key_spki()).expect("writes");

    let output = demo(&broker, &["--key-id", "alias/app", "--context", "tenant=acme"]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let expected = format!(
        "GenerateDataKey: 32 bytes under {ARN}, encrypted in 7 bytes, from KMS, requestID k-1\n\
         Decrypt: the same data key, from KMS, requestID k-1\n\
         GenerateRandom: 32 bytes, from KMS, requestID k-1\n\
         OK\n"
    );
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);

    let output = demo(&broker, &["--key-id", "alias/app", "--surprise"]);
    assert_eq!(output.status.code(), Some(64));
    assert_eq!(
        String::from_utf8_lossy(&output.stderr),
        "enclave-demo: unknown option \"--surprise\"; see --help\n"
    );

    let broker =
        Broker { answers: Arc::default(), directory: broker.directory, socket: "nobody/listens".into() };
    let output = demo(&broker, &["--key-id", "alias/app"]);
    assert_eq!((output.status.code(), output.stdout.is_empty()), (Some(1), true), "{output:?}");
}

fn demo(broker: &Broker, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_enclave-demo"))
        .args(arguments)
        .arg("--unix")
        .arg(broker.path(&broker.socket))
        .arg("--attestation")
        .arg(format!("file:{}", broker.path("document").display()))
        .arg("--rsa-key")
        .arg(broker.path("key"))
        .output()
        .expect("it runs")
}

async fn failures(enclave: &Enclave) -> [Error; 3] {
    [
        enclave.generate_data_key(GenerateDataKey::aes_256("alias/app")).await.expect_err("no data key"),
        enclave.decrypt(Decrypt::new("wrapped")).await.expect_err("no plaintext"),
        enclave.generate_random(8).await.expect_err("no random bytes"),
    ]
}

/// Makes a document that is the public key alone: the broker here encrypts to it. Counts.
#[derive(Clone, Default)]
struct Echo(Arc<AtomicUsize>);

impl AttestationProvider for Echo {
    fn attest(&self, public_key_spki: &[u8]) -> Result<Vec<u8>, AttestationError> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(public_key_spki.to_vec())
    }
}

struct Fixed(Vec<u8>);

impl AttestationProvider for Fixed {
    fn attest(&self, _: &[u8]) -> Result<Vec<u8>, AttestationError> {
        Ok(self.0.clone())
    }
}

struct Broken;

impl AttestationProvider for Broken {
    fn attest(&self, _: &[u8]) -> Result<Vec<u8>, AttestationError> {
        Err("no module here".into())
    }
}

struct Panicking;

impl AttestationProvider for Panicking {
    fn attest(&self, _: &[u8]) -> Result<Vec<u8>, AttestationError> {
        panic!("a provider with a mistake")
    }
}

struct Broker {
    answers: Arc<Answers>,
    directory: TempDir,
    socket: String,
}

impl Broker {
    fn start(answers: Answers) -> Self {
        let (answers, directory) = (Arc::new(answers), tempfile::tempdir().expect("a directory"));
        let broker = Self { answers, directory, socket: "broker.sock".into() };
        let listener = UnixListener::bind(broker.path(&broker.socket)).expect("listens");
        let service = KeyBrokerServer::from_arc(broker.answers.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(service.clone());
                let connection = http2::Builder::new(TokioExecutor::new());
                tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
            }
        });
        broker
    }

    async fn enclave(&self, provider: impl AttestationProvider) -> Enclave {
        let client = Client::unix(self.path(&self.socket)).await.expect("connects");
        Enclave::new(client, provider).expect("a key")
    }

    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.directory.path().join(name)
    }
}

/// How the broker answers.
#[derive(Default)]
struct Answers {
    form: Form,
    plaintext: bool,
    without_ciphertext: bool,
    excess: isize,
    refuse: bool,
    calls: AtomicUsize,
}

impl Answers {
    /// The two fields of an answer.
    fn answer(
        &self,
        recipient: Option<pb::Recipient>,
        byte: u8,
        length: usize,
    ) -> Result<(Vec<u8>, Vec<u8>), Status> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        if self.refuse {
            return Err(Status::permission_denied("denied by policy"));
        }
        let recipient = recipient.ok_or(Status::invalid_argument("no recipient"))?;
        assert_eq!(recipient.key_encryption_algorithm, "RSAES_OAEP_SHA_256");
        let plaintext = vec![byte; length.saturating_add_signed(self.excess)];
        let ciphertext = if self.without_ciphertext {
            Vec::new()
        } else {
            Message::new(&recipient.attestation_document, &plaintext).write(self.form)
        };
        Ok((if self.plaintext { plaintext } else { Vec::new() }, ciphertext))
    }
}

#[async_trait]
impl KeyBroker for Answers {
    async fn generate_data_key(
        &self,
        request: Request<pb::GenerateDataKeyRequest>,
    ) -> Result<Response<pb::GenerateDataKeyResponse>, Status> {
        use pb::generate_data_key_request::Length;
        let request = request.into_inner();
        let length = match request.length {
            Some(Length::NumberOfBytes(number)) => usize::try_from(number).expect("small"),
            Some(Length::KeySpec(spec)) if spec == i32::from(pb::KeySpec::Aes128) => 16,
            _ => 32,
        };
        let (plaintext, ciphertext) = self.answer(request.recipient, DATA_KEY, length)?;
        Ok(Response::new(pb::GenerateDataKeyResponse {
            plaintext: plaintext.into(),
            ciphertext_blob: "wrapped".into(),
            key_id: ARN.into(),
            ciphertext_for_recipient: ciphertext.into(),
            provenance: Some(provenance()),
            ..pb::GenerateDataKeyResponse::default()
        }))
    }

    async fn decrypt(
        &self,
        request: Request<pb::DecryptRequest>,
    ) -> Result<Response<pb::DecryptResponse>, Status> {
        let (plaintext, ciphertext) = self.answer(request.into_inner().recipient, DATA_KEY, 32)?;
        Ok(Response::new(pb::DecryptResponse {
            plaintext: plaintext.into(),
            key_id: ARN.into(),
            ciphertext_for_recipient: ciphertext.into(),
            provenance: Some(provenance()),
            ..pb::DecryptResponse::default()
        }))
    }

    async fn generate_random(
        &self,
        request: Request<pb::GenerateRandomRequest>,
    ) -> Result<Response<pb::GenerateRandomResponse>, Status> {
        let request = request.into_inner();
        let length = usize::try_from(request.number_of_bytes).expect("small");
        let (plaintext, ciphertext) = self.answer(request.recipient, RANDOM, length)?;
        Ok(Response::new(pb::GenerateRandomResponse {
            plaintext: plaintext.into(),
            ciphertext_for_recipient: ciphertext.into(),
            provenance: Some(provenance()),
        }))
    }

    async fn encrypt_message(
        &self,
        _: Request<pb::EncryptMessageRequest>,
    ) -> Result<Response<pb::EncryptMessageResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn decrypt_message(
        &self,
        _: Request<pb::DecryptMessageRequest>,
    ) -> Result<Response<pb::DecryptMessageResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn encrypt(&self, _: Request<pb::EncryptRequest>) -> Result<Response<pb::EncryptResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn re_encrypt(
        &self,
        _: Request<pb::ReEncryptRequest>,
    ) -> Result<Response<pb::ReEncryptResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn generate_data_key_pair(
        &self,
        _: Request<pb::GenerateDataKeyPairRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn generate_data_key_pair_without_plaintext(
        &self,
        _: Request<pb::GenerateDataKeyPairWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyPairWithoutPlaintextResponse>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    type EncryptMessageStreamStream = BoxStream<pb::EncryptMessageStreamResponse>;

    async fn encrypt_message_stream(
        &self,
        _: Request<Streaming<pb::EncryptMessageStreamRequest>>,
    ) -> Result<Response<Self::EncryptMessageStreamStream>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    type DecryptMessageStreamStream = BoxStream<pb::DecryptMessageStreamResponse>;

    async fn decrypt_message_stream(
        &self,
        _: Request<Streaming<pb::DecryptMessageStreamRequest>>,
    ) -> Result<Response<Self::DecryptMessageStreamStream>, Status> {
        Err(Status::unimplemented("not for these tests"))
    }

    async fn generate_data_key_without_plaintext(
        &self,
        _: Request<pb::GenerateDataKeyWithoutPlaintextRequest>,
    ) -> Result<Response<pb::GenerateDataKeyWithoutPlaintextResponse>, Status> {
        Err(Status::unimplemented("takes no recipient"))
    }

    async fn describe_key(
        &self,
        _: Request<pb::DescribeKeyRequest>,
    ) -> Result<Response<pb::DescribeKeyResponse>, Status> {
        Err(Status::unimplemented("takes no recipient"))
    }
}

fn provenance() -> pb::Provenance {
    pb::Provenance { kms_request_id: "k-1".into(), ..pb::Provenance::default() }
}

const ARN: &str = "arn:aws:kms:eu-central-1:111122223333:key/1234abcd-12ab-34cd-56ef-1234567890ab";
const DATA_KEY: u8 = 0xd4;
const RANDOM: u8 = 0x4d;
