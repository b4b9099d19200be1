//! A neighbour that may open a socket and has no permit: all that it can think of, at once, for as long as it is let.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use hyper_util::rt::TokioIo;
use key_broker_core::clock::{Clock as _, SystemClock};
use key_broker_proto::v1 as pb;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use prost::Message as _;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsConnector;
use tokio_util::sync::CancellationToken;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request};
use tower::service_fn;

use super::http2::{END_HEADERS, PREFACE, block, call, frame, no_window};
use super::pki::SERVER;
use super::raw::hold;

/// A neighbour.
#[derive(Clone)]
pub struct Neighbour {
    pub door: Door,
    /// Whom the kernel takes it for; none for the test's own user.
    pub uid: Option<u32>,
    /// Where the broker's probes and metrics are.
    pub telemetry: SocketAddr,
}

/// Where it comes in.
#[derive(Clone)]
pub enum Door {
    Unix(PathBuf),
    Tls(SocketAddr, TlsConnector),
}

/// What it achieved.
#[derive(Debug, Default)]
pub struct Deeds {
    /// Connections on which it did mischief.
    pub connections: AtomicU64,
    /// Calls that it made.
    pub calls: AtomicU64,
    /// Those that were refused.
    pub refused: AtomicU64,
    /// Those that were answered.
    pub answered: AtomicU64,
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

impl Door {
    async fn open(&self) -> std::io::Result<Box<dyn Stream>> {
        Ok(match self {
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
            Self::Tls(address, connector) => {
                let name = ServerName::try_from(SERVER).expect("a name");
                let handshake = connector.connect(name, TcpStream::connect(address).await?);
                let patience = tokio::time::timeout(Duration::from_secs(10), handshake);
                Box::new(patience.await.unwrap_or(Err(std::io::ErrorKind::TimedOut.into()))?)
            }
        })
    }

    async fn channel(&self) -> Option<Channel> {
        let door = self.clone();
        let connector = service_fn(move |_| {
            let door = door.clone();
            async move { door.open().await.map(TokioIo::new) }
        });
        Endpoint::from_static("http://localhost").connect_with_connector(connector).await.ok()
    }
}

impl Neighbour {
    /// Does everything at once, on a thread of its own, until `stop`: the kernel tells a socket's other end the user of the thread
    /// that connects.
    pub fn attack(self, stop: CancellationToken) -> (Arc<Deeds>, JoinHandle<()>) {
        let deeds = Arc::<Deeds>::default();
        let done = Arc::clone(&deeds);
        let thread = std::thread::spawn(move || {
            if let Some(uid) = self.uid {
                let uid = rustix::process::Uid::from_raw(uid);
                rustix::thread::set_thread_res_uid(uid, uid, uid).expect("root may");
            }
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(stop.run_until_cancelled(self.everything(deeds)));
        });
        (done, thread)
    }

    async fn everything(self, deeds: Arc<Deeds>) {
        let mut all = JoinSet::new();
        for (size, bytes) in openings() {
            all.spawn(self.clone().crowd(size, bytes, Arc::clone(&deeds)));
        }
        for request in requests() {
            all.spawn(self.clone().flood(request, Arc::clone(&deeds)));
        }
        for (path, message) in messages_without_end() {
            all.spawn(self.clone().hold(path, message, Arc::clone(&deeds)));
        }
        all.spawn(self.clone().crowd_telemetry());
        all.join_all().await;
    }

    /// Opens connection after connection, sends the same on each and reads nothing. Every now and then it lets go of them all: a
    /// principal's connections push one another out, and on a slow machine none of its calls would come to be refused.
    async fn crowd(self, size: usize, bytes: Vec<u8>, deeds: Arc<Deeds>) {
        let mut held = std::collections::VecDeque::new();
        let mut began = SystemClock.instant();
        loop {
            if began.elapsed() > CROWDED {
                held.clear();
                tokio::time::sleep(QUIET).await;
                began = SystemClock.instant();
            }
            if held.len() == size {
                held.pop_front();
            }
            if let Ok(mut stream) = self.door.open().await {
                let _ = tokio::time::timeout(Duration::from_millis(200), stream.write_all(&bytes)).await;
                deeds.connections.fetch_add(1, Ordering::Relaxed);
                held.push_back(stream);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// The same at the listener of probes.
    async fn crowd_telemetry(self) {
        let mut held = std::collections::VecDeque::new();
        for n in 0_u64.. {
            if held.len() == 200 {
                held.pop_front();
            }
            if let Ok(mut stream) = TcpStream::connect(self.telemetry).await {
                if n % 2 == 0 {
                    let _ = stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x").await;
                }
                held.push_back(stream);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Calls and calls again, some at a time.
    async fn flood(self, request: fn(u64) -> Hostile, deeds: Arc<Deeds>) {
        let mut number = 0;
        loop {
            let Some(channel) = self.door.channel().await else {
                tokio::time::sleep(PAUSE).await;
                continue;
            };
            let mut calls = JoinSet::new();
            for _ in 0..CALLS_OF_A_CONNECTION {
                if calls.len() == AT_A_TIME {
                    calls.join_next().await;
                }
                number += 1;
                calls.spawn(request(number).send(channel.clone(), Arc::clone(&deeds)));
            }
            calls.join_all().await;
        }
    }

    /// Begins requests that never end.
    async fn hold(self, path: &'static str, message: Vec<u8>, deeds: Arc<Deeds>) {
        loop {
            if let Some(channel) = self.door.channel().await {
                let held: Vec<_> = (0..100).map(|_| hold(channel.clone(), path, message.clone())).collect();
                deeds.connections.fetch_add(1, Ordering::Relaxed);
                tokio::time::sleep(Duration::from_secs(5)).await;
                drop(held);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// A call for which there is no permit.
enum Hostile {
    Generate(pb::GenerateDataKeyRequest),
    Decrypt(pb::DecryptRequest),
}

impl Hostile {
    async fn send(self, channel: Channel, deeds: Arc<Deeds>) {
        let mut stub = KeyBrokerClient::new(channel);
        deeds.calls.fetch_add(1, Ordering::Relaxed);
        let refusal = match self {
            Self::Generate(request) => stub.generate_data_key(timed(request)).await.err(),
            Self::Decrypt(request) => stub.decrypt(timed(request)).await.err(),
        };
        match refusal.map(|status| status.code()) {
            None => deeds.answered.fetch_add(1, Ordering::Relaxed),
            // The connection ended, or this call's time.
            Some(Code::Unknown | Code::Cancelled | Code::DeadlineExceeded) => 0,
            Some(_) => deeds.refused.fetch_add(1, Ordering::Relaxed),
        };
    }
}

fn timed<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(Duration::from_secs(10));
    request
}

/// What it sends on connections, and how many of each it holds.
fn openings() -> Vec<(usize, Vec<u8>)> {
    let after_preface = |bytes: Vec<u8>| [PREFACE, &bytes].concat();
    let headers: Vec<(String, String)> = (0..150).map(|n| (format!("x-{n}"), "y".into())).collect();
    let headers: Vec<_> = headers.iter().map(|(name, value)| (&**name, &**value)).collect();
    let fat = |n: u32| frame(1, END_HEADERS, 2 * n + 1, &block(CALL, &headers));
    let calls =
        |path, streams| (0..streams).flat_map(|n| call(path, 2 * n + 1, &permitted())).collect::<Vec<_>>();
    // CANCEL, as RFC 9113 numbers it.
    let reset =
        |n: u32| [call(CALL, 2 * n + 1, &permitted()), frame(3, 0, 2 * n + 1, &[0, 0, 0, 8])].concat();
    vec![
        (256, Vec::new()),
        (256, PREFACE[..10].to_vec()),
        (256, PREFACE.to_vec()),
        (50, after_preface((0..100).flat_map(fat).collect())),
        (100, after_preface([no_window(), calls(CALL, 25)].concat())),
        (100, after_preface([no_window(), calls(HEALTH, 25)].concat())),
        (50, after_preface(calls(WATCH, 100))),
        (50, after_preface(calls(CALL, 100))),
        (20, after_preface((0..500).flat_map(reset).collect())),
    ]
}

/// A request that would be answered if it were permitted.
fn permitted() -> Vec<u8> {
    generate("alias/dev".into()).encode_to_vec()
}

fn generate(key_id: String) -> pb::GenerateDataKeyRequest {
    let length = Some(pb::generate_data_key_request::Length::KeySpec(pb::KeySpec::Aes256.into()));
    pb::GenerateDataKeyRequest { key_id, length, ..Default::default() }
}

/// Calls to be refused: denied, with as long a record as it can make; about keys that are not there; without end; with a document
/// that says nothing.
fn requests() -> Vec<fn(u64) -> Hostile> {
    let long: fn(u64) -> Hostile = |n| {
        let long = String::from_utf8(vec![1; 8_180]).expect("control characters");
        let context = [(n.to_string(), long)].into();
        Hostile::Generate(pb::GenerateDataKeyRequest {
            encryption_context: context,
            ..generate("alias/dev".into())
        })
    };
    let made_up: fn(u64) -> Hostile = |n| Hostile::Generate(generate(format!("alias/made-up-{n}")));
    let other_account: fn(u64) -> Hostile = |n| {
        Hostile::Generate(generate(format!(
            "arn:aws:kms:us-west-2:999999999999:key/00000000-0000-4000-8000-{n:012}"
        )))
    };
    let without_key: fn(u64) -> Hostile = |n| {
        let ciphertext_blob = n.to_be_bytes().repeat(700).into();
        Hostile::Decrypt(pb::DecryptRequest { ciphertext_blob, ..Default::default() })
    };
    let document: fn(u64) -> Hostile = |n| {
        let attestation_document = n.to_be_bytes().repeat(2_000).into();
        let key_encryption_algorithm = "RSAES_OAEP_SHA_256".into();
        let recipient = Some(pb::Recipient { attestation_document, key_encryption_algorithm });
        Hostile::Generate(pb::GenerateDataKeyRequest { recipient, ..generate("alias/dev".into()) })
    };
    vec![long, made_up, other_account, without_key, document]
}

fn messages_without_end() -> Vec<(&'static str, Vec<u8>)> {
    let begin = |bytes: u32, sent: usize| {
        let mut message = vec![0];
        message.extend(bytes.to_be_bytes());
        message.resize(sent, 0);
        message
    };
    vec![
        (HEALTH, begin(4_000_000, 3_900_000)),
        (HEALTH, begin(4_000, 3_900)),
        (REFLECTION, begin(4_000, 3_900)),
        (CALL, begin(524_288, 500_000)),
        (CALL, begin(4_000, 3_900)),
        (MESSAGE, begin(4 << 20, 3_900_000)),
        (MESSAGES, begin(524_288, 500_000)),
    ]
}

const CALL: &str = "/keybroker.v1.KeyBroker/GenerateDataKey";
const MESSAGE: &str = "/keybroker.v1.KeyBroker/EncryptMessage";
const MESSAGES: &str = "/keybroker.v1.KeyBroker/DecryptMessageStream";
const HEALTH: &str = "/grpc.health.v1.Health/Check";
const WATCH: &str = "/grpc.health.v1.Health/Watch";
const REFLECTION: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
/// Between two connections of a crowd.
const PAUSE: Duration = Duration::from_millis(50);
/// How long it crowds the broker, and how long it then only calls.
const CROWDED: Duration = Duration::from_secs(10);
const QUIET: Duration = Duration::from_secs(5);
const AT_A_TIME: usize = 32;
const CALLS_OF_A_CONNECTION: usize = 2_000;
