//! Proves, with the real program: what one broker encrypts another decrypts, while one of them is stopped, and killed, under load; of the
//! client for Rust and of the packages for Python and Node, which exchange messages with no failed call. Both brokers can decrypt every
//! message afterwards, and no record of one is missing.

#[path = "peers/exchange.rs"]
mod exchange;
#[path = "support/fleet.rs"]
mod fleet;
#[path = "peers/installed.rs"]
mod installed;
#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use exchange::{Exchange, Exchanged};
use fleet::Fleet;
use futures_util::{future, stream};
use installed::{Node, Python, copied};
use key_broker_client::{Client, DecryptMessage, EncryptMessage, Error};
use key_broker_envelope::HeaderReader;
use peers::{Peers, root};
use rustix::process::Signal;
use support::process::Process;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Code;

/// What one broker encrypts the other decrypts, whole and in parts; the second is told to stop, and later killed, under this load.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_pass_between_two_brokers_while_one_of_them_is_restarted() {
    let fleet = Fleet::new().await;
    let [first, second] = [0, 1].map(|place| fleet.start_reusing(place));
    let (callers, stop) = fleet.exchange(4);
    tokio::time::sleep(BETWEEN).await;
    let second = fleet.restarted(second, |broker| {
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    });
    tokio::time::sleep(BETWEEN).await;
    let second = fleet.restarted(second, Process::kill);
    tokio::time::sleep(BETWEEN).await;
    stop.cancel();
    let mut messages = Vec::new();
    for caller in callers {
        messages.extend(caller.await.expect("every call is answered"));
    }
    assert!(messages.len() > 50, "{} messages are too few to prove anything", messages.len());
    fleet.every_message_is_opened_and_recorded([first, second], &messages).await;
}

/// Callers with bare stubs do the same beside the packages: they show that the restarts were felt.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn two_languages_exchange_messages_while_a_broker_is_restarted() {
    let peers = Peers::install(&["client-python", "client-node"]);
    let work = copied(&["client/python", "client/node"]);
    let languages = (Python::install(&peers, work.path()), Node::install(&peers, work.path()));
    let fleet = Fleet::new().await;
    let [first, second] = [0, 1].map(|place| fleet.start_reusing(place));
    let exchanges = ["package", "bare"].map(|kind| fleet.exchange_of_languages(&languages, kind));
    let go_on = || tokio::task::block_in_place(|| exchanges.iter().for_each(|exchange| exchange.go_on(40)));
    go_on();
    let second = fleet.restarted(second, |broker| {
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    });
    go_on();
    let second = fleet.restarted(second, Process::kill);
    go_on();
    let [package, bare] = tokio::task::block_in_place(|| exchanges.map(Exchange::end));
    for seen in &package {
        assert_eq!(seen.calls["failed"], 0, "{}", seen.calls);
        eprintln!("over two restarts: {} messages, {}", seen.messages.len(), seen.calls);
    }
    for seen in &bare {
        assert!(seen.calls["failed"].as_u64() > Some(0), "the restarts were none: {}", seen.calls);
        eprintln!("over two restarts, without the package: {} messages, {}", seen.messages.len(), seen.calls);
    }
    let messages: Vec<_> = package.into_iter().chain(bare).flat_map(|seen| seen.messages).collect();
    fleet.every_message_is_opened_and_recorded([first, second], &messages).await;
}

impl Fleet {
    /// The second broker again, once it has ended.
    fn restarted(&self, broker: Process, end: impl FnOnce(Process)) -> Process {
        tokio::task::block_in_place(|| {
            end(broker);
            self.start_reusing(1)
        })
    }

    fn caller(&self, place: usize) -> Caller {
        Caller { socket: self.socket(place), client: None }
    }

    /// So many callers that have one broker encrypt and the other decrypt, by turns, until they are told to stop. They return the messages.
    fn exchange(&self, callers: usize) -> (Vec<JoinHandle<Vec<Exchanged>>>, CancellationToken) {
        let stop = CancellationToken::new();
        let exchange = async |mut brokers: [Caller; 2], first: usize, stop: CancellationToken| {
            let mut messages = Vec::new();
            while !stop.is_cancelled() {
                brokers.swap(0, 1);
                let number = first + messages.len();
                let length = number * 7_919 % 20_000;
                let message = brokers[0].encrypt(length, number.is_multiple_of(3)).await;
                assert!(brokers[1].decrypt(&message).await == plaintext(length), "{length} bytes");
                messages.push(Exchanged { message, plaintext: plaintext(length) });
            }
            messages
        };
        let callers = (0..callers).map(|caller| {
            let (brokers, stop) = ([self.caller(0), self.caller(1)], stop.clone());
            // A thread for each, so that none waits for a broker that is started.
            tokio::task::spawn_blocking(move || Handle::current().block_on(exchange(brokers, caller, stop)))
        });
        (callers.collect(), stop)
    }

    /// The packages, or bare stubs: where callers of one language have the first broker, those of the other have the second.
    fn exchange_of_languages(&self, (python, node): &(Python, Node), kind: &str) -> Exchange {
        let addresses = [0, 1].map(|place| format!("unix:{}", self.socket(place).display()));
        let mut of_python = python.command();
        of_python.arg(root().join("tests/peers/client-python/exchange.py")).arg(kind).args(&addresses);
        let program = node.project().join("exchange.mjs");
        fs::copy(root().join("tests/peers/client-node/exchange.mjs"), program).expect("copies");
        let mut of_node = node.command();
        of_node.arg("exchange.mjs").arg(kind).args(addresses.iter().rev());
        of_node.env("CONTRACT", root().join("proto/keybroker/v1/key_broker.proto"));
        Exchange::start([("Python", of_python), ("Node", of_node)])
    }

    /// By each broker, also by the one that had been killed, long after; and their trails are whole.
    async fn every_message_is_opened_and_recorded(&self, brokers: [Process; 2], messages: &[Exchanged]) {
        let by_each = |messages| [0, 1].map(|place| self.caller(place).open_all(messages));
        future::join_all(messages.chunks(messages.len().div_ceil(4)).flat_map(by_each)).await;
        for broker in brokers {
            broker.signal(Signal::TERM);
            assert!(broker.wait().success());
        }
        let trails = self.trails();
        assert_eq!(trails.len(), 2);
        for trail in &trails {
            let (code, report) = self.verify(trail);
            let found = (code, report["verdict"].as_str(), report["state"].as_str());
            assert_eq!(found, (Some(0), Some("sound"), Some("closed")), "{report:#}");
        }
        // One record of the encryption, and three of decryptions: one was under way, two were after it.
        let recorded = self.messages_recorded();
        for Exchanged { message, plaintext } in messages {
            let [encrypted, decrypted] = recorded[&header_of(message)];
            let length = plaintext.len();
            assert!(encrypted >= 1 && decrypted >= 3, "{length} bytes: {encrypted} and {decrypted} records");
        }
    }

    /// How often records tell that a message was encrypted and decrypted, by the SHA-256 of its header.
    fn messages_recorded(&self) -> BTreeMap<String, [u64; 2]> {
        let mut recorded: BTreeMap<String, [u64; 2]> = BTreeMap::new();
        let files = self.of_kind(false);
        for record in files.iter().flat_map(|file| file["Records"].as_array().expect("records")) {
            let data = &record["additionalEventData"];
            let Some(header) = data["message"]["headerSHA256"].as_str() else { continue };
            let place = usize::from(record["eventName"] == "DecryptMessage");
            recorded.entry(header.to_owned()).or_default()[place] += u64::from(data["outcome"] == "Allowed");
        }
        recorded
    }
}

/// Somebody who calls a broker, and again if it is away.
struct Caller {
    socket: PathBuf,
    client: Option<Client>,
}

impl Caller {
    async fn encrypt(&mut self, length: usize, is_in_parts: bool) -> Bytes {
        let request = |plaintext| EncryptMessage::new("alias/dev", plaintext).context("tenant", "acme");
        self.persistently(async |client| {
            if !is_in_parts {
                return Ok(client.encrypt_message(request(plaintext(length))).await?.message);
            }
            let parts: Vec<_> = plaintext(length).chunks(3_000).map(Bytes::copy_from_slice).collect();
            let declared = Some(length as u64);
            let parts = stream::iter(parts);
            let mut stream = client.encrypt_message_stream(&request(Bytes::new()), declared, parts).await?;
            let mut message = Vec::new();
            while let Some(part) = stream.next().await? {
                message.extend_from_slice(&part);
            }
            Ok(message.into())
        })
        .await
    }

    async fn decrypt(&mut self, message: &Bytes) -> Vec<u8> {
        self.persistently(async |client| {
            let request = DecryptMessage::new(message.clone()).context("tenant", "acme");
            Ok(client.decrypt_message(request).await?.plaintext.expose().to_vec())
        })
        .await
    }

    async fn open_all(mut self, messages: &[Exchanged]) {
        for Exchanged { message, plaintext } in messages {
            let (found, socket) = (self.decrypt(message).await, self.socket.display());
            assert!(found == *plaintext, "{socket}: {} bytes", plaintext.len());
        }
    }

    /// As the packages do: a call is made again whose connection broke, or whose broker drains.
    async fn persistently<T>(&mut self, call: impl AsyncFn(&Client) -> Result<T, Error>) -> T {
        for _ in 0..1_000 {
            if self.client.is_none() {
                self.client = Client::unix(&self.socket).await.ok();
            }
            if let Some(client) = &self.client {
                match call(client).await {
                    Ok(answer) => return answer,
                    Err(error) if error.reason().is_none() || error.code() == Code::Unavailable => {
                        self.client = None;
                    }
                    Err(error) => panic!("{error}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("{} is away for long", self.socket.display());
    }
}

fn plaintext(length: usize) -> Bytes {
    (0..=250_u8).cycle().take(length).collect::<Vec<_>>().into()
}

/// The SHA-256 of a message's header, by which records name it.
fn header_of(message: &[u8]) -> String {
    let header = HeaderReader::default().push(&mut &message[..]).expect("a header").expect("whole");
    hex::encode(header.facts().sha256)
}

/// Long enough for many calls, before, between and after restarts.
const BETWEEN: Duration = Duration::from_secs(1);
