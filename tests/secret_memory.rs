//! Proves, with the real program in a process of its own: no piece of a plaintext is left in the broker's memory after its
//! call; of a kept data key there is one copy, in locked memory, until it is evicted; the process is closed to its peers and
//! dumps no core; where no memory can be locked it says so once, and serves.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};
use std::slice;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use futures_util::stream;
use key_broker_client::{
    Client, Decrypt, DecryptMessage, Encrypt, EncryptMessage, GenerateDataKey, GenerateDataKeyPair,
    KeyPairSpec,
};
use kms_emulator::{Emulator, EmulatorConfig, Fault, KeySpec};
use support::memory::{Needle, PIECE, flags, search};
use support::process::{NOBODY, Process, write_config};

async fn emulator() -> Emulator {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    emulator.ensure_key("alias/dev", KeySpec::SymmetricDefault).expect("a key");
    emulator
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_ptrace"), ignore = "needs root: CAP_SYS_PTRACE, to read a process's memory")]
async fn no_plaintext_is_left_in_memory_after_its_call() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::serve(&write_config(dir.path(), &emulator.endpoint_url(), NO_REUSE));
    let marker = || Needle { name: "marker".into(), bytes: emulator.endpoint_url().into_bytes() };
    assert_finds(&broker, &marker());
    let socket = dir.path().join("broker.sock");
    let stays = Client::unix(&socket).await.expect("listens");
    let leaves = Client::unix(&socket).await.expect("listens");
    let mut plaintexts = Vec::new();
    for _ in 0..ROUNDS {
        plaintexts.extend(calls(stays.clone()).await);
        let callers: Vec<_> = (0..CALLERS).map(|_| tokio::spawn(calls(leaves.clone()))).collect();
        for caller in callers {
            plaintexts.extend(caller.await.expect("no panic"));
        }
        // Longer than what a connection keeps is overwritten by: on one that ends.
        plaintexts.extend(messages(leaves.clone()).await);
    }
    // The send buffer of a connection keeps what was sent last, until more is sent or the connection ends.
    stays.describe_key("alias/dev").await.expect("a description");
    drop(leaves);
    tokio::time::sleep(SETTLE).await;

    let needles: Vec<_> = plaintexts.iter().flat_map(|(name, bytes)| forms(name, bytes)).collect();
    let left = search(broker.pid(), &needles).expect("it could be read before");
    assert!(left.is_empty(), "{} pieces are left, such as {:#?}", left.len(), left.first());
    // The test has them all, so the search would have found them.
    let seen: BTreeSet<_> =
        search(std::process::id(), &needles).expect("our own").into_iter().map(|found| found.name).collect();
    assert_eq!(seen.len(), needles.len());
    assert!(!search(broker.pid(), &[marker()]).expect("it could be read before").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(not(capability = "sys_ptrace"), ignore = "needs root: CAP_SYS_PTRACE, to read a process's memory")]
async fn a_kept_data_key_is_in_locked_memory_only_and_gone_when_evicted() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let broker = Process::serve(&write_config(dir.path(), &emulator.endpoint_url(), ""));
    assert_finds(&broker, &Needle { name: "marker".into(), bytes: emulator.endpoint_url().into_bytes() });
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    let request = || GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
    let kept = client.generate_data_key(request()).await.expect("a data key");
    let again = client.generate_data_key(request()).await.expect("a data key");
    assert_eq!(kept.plaintext.expose(), again.plaintext.expose(), "it is kept");
    drop(client);
    tokio::time::sleep(SETTLE).await;

    let needles = forms("data key", kept.plaintext.expose());
    let found = search(broker.pid(), &needles).expect("it could be read before");
    assert_eq!(found.len(), needles[0].bytes.len() / PIECE, "one copy, not base64: {found:#?}");
    for piece in found {
        let flags = flags(broker.pid(), &piece.mapping).expect("it is there");
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.contains(flag), "{flag} is missing: {flags} at {}", piece.mapping);
        }
    }

    // The context is taken away from the broker: what is kept for it is drawn no more, and swept within a second.
    emulator.inject(Fault::access_denied().on("GenerateDataKey").times(1));
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    client.generate_data_key(request().fresh()).await.expect_err("KMS refuses");
    tokio::time::sleep(Duration::from_secs(2)).await;
    let left = search(broker.pid(), &needles).expect("it could be read before");
    assert!(left.is_empty(), "{left:#?}");
}

/// What is there is found: the program keeps even its own user out, but not `CAP_SYS_PTRACE`.
fn assert_finds(broker: &Process, marker: &Needle) {
    let found = search(broker.pid(), slice::from_ref(marker)).expect("CAP_SYS_PTRACE reads every process");
    assert!(!found.is_empty(), "what is there is found");
}

/// One call of each kind that returns a plaintext.
async fn calls(client: Client) -> Vec<(&'static str, Vec<u8>)> {
    let request = GenerateDataKey::aes_256("alias/dev").context("tenant", "acme");
    let key = client.generate_data_key(request).await.expect("a data key");
    let again = Decrypt::new(key.ciphertext_blob.clone()).context("tenant", "acme");
    let decrypted = client.decrypt(again).await.expect("a plaintext");
    assert_eq!(decrypted.plaintext.expose(), key.plaintext.expose());
    let long =
        client.generate_data_key(GenerateDataKey::bytes("alias/dev", 1_024)).await.expect("a data key");
    let random = client.generate_random(32).await.expect("random bytes");
    vec![
        ("data key", key.plaintext.expose().to_vec()),
        ("long data key", long.plaintext.expose().to_vec()),
        ("random bytes", random.plaintext.expose().to_vec()),
    ]
}

/// Plaintexts that the broker encrypts, has encrypted, and decrypts.
async fn messages(client: Client) -> Vec<(&'static str, Vec<u8>)> {
    let secret = |length: usize| {
        let mut bytes = vec![0; length];
        aws_lc_rs::rand::fill(&mut bytes).expect("randomness");
        bytes
    };
    let (whole, long, in_parts, short) = (secret(2_000), secret(100_000), secret(40_000), secret(500));
    for plaintext in [&whole, &long] {
        let request = EncryptMessage::new("alias/dev", plaintext.clone());
        let message = client.encrypt_message(request).await.expect("encrypted").message;
        let decrypted = client.decrypt_message(DecryptMessage::new(message)).await.expect("decrypted");
        assert_eq!(decrypted.plaintext.expose(), plaintext);
    }
    let parts: Vec<_> = in_parts.chunks(15_000).map(bytes::Bytes::copy_from_slice).collect();
    let request = EncryptMessage::new("alias/dev", "");
    let mut stream = client.encrypt_message_stream(&request, None, stream::iter(parts)).await.expect("begun");
    let mut message = Vec::new();
    while let Some(part) = stream.next().await.expect("encrypted") {
        message.extend_from_slice(&part);
    }
    let parts: Vec<_> = message.chunks(15_000).map(bytes::Bytes::copy_from_slice).collect();
    let request = DecryptMessage::new("");
    let mut stream =
        client.decrypt_message_stream(&request, false, stream::iter(parts)).await.expect("begun");
    let mut decrypted = Vec::new();
    while let Some(part) = stream.next().await.expect("decrypted") {
        decrypted.extend_from_slice(part.expose());
    }
    assert_eq!(decrypted, in_parts);
    client.encrypt(Encrypt::new("alias/dev", short.clone())).await.expect("encrypted");
    let request = GenerateDataKeyPair::new("alias/dev", KeyPairSpec::EccNistP256);
    let pair = client.generate_data_key_pair(request).await.expect("a pair");
    vec![
        ("message", whole),
        // A piece of each: all of it is looked for, and that takes its time.
        ("long message", long[50_000..50_512].to_vec()),
        ("message in parts", in_parts[20_000..20_512].to_vec()),
        ("short plaintext", short),
        // The scalar alone: around it are constants, and the public key.
        ("private key", pair.private_key.expect("a private key").expose()[36..68].to_vec()),
    ]
}

/// As KMS made it, and as it is in the JSON of KMS's answers.
fn forms(name: &str, bytes: &[u8]) -> [Needle; 2] {
    let base64 = STANDARD.encode(bytes);
    [
        Needle { name: format!("{name} {base64}, raw"), bytes: bytes.to_vec() },
        Needle { name: format!("{name} {base64}, base64"), bytes: base64.into_bytes() },
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_locked_memory_it_warns_once_and_serves() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let (broker, _) = Process::serve_as_ordinary_user(&config);
    assert_eq!(limit(broker.pid(), "Max locked memory"), ["0", "0"]);
    let warnings = || broker.log().matches("memory cannot be locked").count();
    assert_eq!(warnings(), 1, "before the first call: {}", broker.log());
    let client = Client::unix(dir.path().join("broker.sock")).await.expect("listens");
    // Each length takes pages of its own.
    for len in [16, 64, 200, 1_000] {
        let key = client.generate_data_key(GenerateDataKey::bytes("alias/dev", len)).await.expect("a key");
        assert_eq!(key.plaintext.expose().len(), len as usize);
    }
    assert_eq!(warnings(), 1, "{}", broker.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_process_is_closed_to_its_peers_and_dumps_no_core() {
    let emulator = emulator().await;
    let dir = tempfile::tempdir().expect("a directory");
    let config = write_config(dir.path(), &emulator.endpoint_url(), "");
    let (broker, user) = Process::serve_as_ordinary_user(&config);
    let dev_dir = tempfile::tempdir().expect("a directory");
    let dev = Process::dev(dev_dir.path());
    for pid in [broker.pid(), dev.pid()] {
        assert_eq!(limit(pid, "Max core file size"), ["0", "0"]);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("readable by all");
        assert!(status.lines().any(|line| line == "NoNewPrivs:\t1"), "{status}");
        // proc(5): of a process that is not dumpable, they are root's.
        assert_eq!(fs::metadata(format!("/proc/{pid}/mem")).expect("it is there").uid(), 0);
    }
    let mut other = Command::new("sleep");
    let mut other = as_user(&mut other, user).arg("60").spawn().expect("starts");
    let peer_reads = |pid: u32| {
        let mut peer = Command::new("cat");
        let peer = as_user(&mut peer, user).arg(format!("/proc/{pid}/environ"));
        peer.stdout(Stdio::null()).stderr(Stdio::null()).status().expect("cat runs").success()
    };
    let (reads_other, reads_broker) = (peer_reads(other.id()), peer_reads(broker.pid()));
    other.kill().expect("it is there");
    other.wait().expect("it can be waited for");
    assert!(reads_other, "one user's processes read one another");
    assert!(!reads_broker, "but not the broker");
}

/// Root's children become the user that the broker runs as; others are that user.
fn as_user(command: &mut Command, user: u32) -> &mut Command {
    if user == NOBODY { command.uid(user).gid(user) } else { command }
}

/// The soft and the hard limit, as in proc(5).
fn limit(pid: u32, name: &str) -> Vec<String> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).expect("readable by all");
    let line = limits.lines().find_map(|line| line.strip_prefix(name)).expect("every limit is listed");
    line.split_ascii_whitespace().take(2).map(str::to_owned).collect()
}

const ROUNDS: usize = 10;
/// Enough for several replies in one buffer.
const CALLERS: usize = 16;
/// The broker notices that a client has left.
const SETTLE: Duration = Duration::from_millis(500);
/// Every call goes to KMS, and nothing is kept.
const NO_REUSE: &str = "[reuse]\nenabled = false\n";
