//! Proves, with the real program: what one broker encrypts another decrypts, while one of them is stopped, and killed, under load.
//! Both can decrypt every message afterwards, and no record of one is missing.

#[path = "support/fleet.rs"]
mod fleet;
mod support;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use fleet::Fleet;
use futures_util::stream;
use key_broker_client::{Client, DecryptMessage, EncryptMessage, Error};
use key_broker_envelope::HeaderReader;
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
    // Also by the broker that had been killed, long after.
    for place in [0, 1] {
        let mut broker = fleet.caller(place);
        for Exchanged { message, length } in &messages {
            assert!(broker.decrypt(message).await == plaintext(*length), "at {place}, {length} bytes");
        }
    }
    for broker in [first, second] {
        broker.signal(Signal::TERM);
        assert!(broker.wait().success());
    }
    let trails = fleet.trails();
    assert_eq!(trails.len(), 2);
    for trail in &trails {
        let (code, report) = fleet.verify(trail);
        let found = (code, report["verdict"].as_str(), report["state"].as_str());
        assert_eq!(found, (Some(0), Some("sound"), Some("closed")), "{report:#}");
    }
    // One record of the encryption, and three of decryptions: one was under way, two were after it.
    let recorded = fleet.messages_recorded();
    for Exchanged { message, length } in &messages {
        let [encrypted, decrypted] = recorded[&header_of(message)];
        assert!(encrypted >= 1 && decrypted >= 3, "{length} bytes: {encrypted} and {decrypted} records");
    }
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
                messages.push(Exchanged { message, length });
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

/// A message that one broker encrypted and another decrypted.
struct Exchanged {
    message: Bytes,
    /// Of its plaintext.
    length: usize,
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
