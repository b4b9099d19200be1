//! Proves, with the real program: three neighbours without a permit, two of them users of the unix socket and one with a certificate
//! that is trusted, do all that they can think of at once for two minutes. Meanwhile a workload with a permit has each of its calls
//! answered in time, probes are answered, and memory stays within a small container's. They are answered nothing; what they leave in
//! the trail stays below a rate, and the trail is sound.

mod support;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use key_broker_client::{Client, Decrypt, GenerateDataKey};
use key_broker_core::clock::{Clock as _, SystemClock};
use support::neighbour::{Door, Neighbour};
use support::site::Site;
use support::street::{PATIENCE, SMALL_CONTAINER_MIB, Street};
use support::trail::{inflated, log_files};
use tokio_util::sync::CancellationToken;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_neighbours_without_a_permit_keep_nobody_from_anything() {
    let own = rustix::process::getuid().as_raw();
    let policy = format!("permit(principal == Workload::\"unix:uid/{own}\", action, resource);");
    let street = Street::with(&policy, AUDIT, "").await;
    let alone = Workload::call_until(&street, Duration::from_secs(10)).await;
    let stop = CancellationToken::new();
    let attacks: Vec<_> =
        neighbours(&street).into_iter().map(|neighbour| neighbour.attack(stop.clone())).collect();
    let attacked = Workload::call_until(&street, ATTACK).await;
    stop.cancel();
    for (deeds, thread) in attacks {
        thread.join().expect("no panic");
        println!("{deeds:?}");
        assert_eq!(deeds.answered.load(Ordering::Relaxed), 0, "nothing is permitted");
        let did = |deed: &AtomicU64| deed.load(Ordering::Relaxed);
        assert!(did(&deeds.connections) > 1_000 && did(&deeds.calls) > 1_000, "it has hardly tried");
        assert!(did(&deeds.refused) > 100, "its calls were kept from the broker by its own connections");
    }
    street.others_are_served("afterwards").await;
    println!("alone: {alone}; beside them: {attacked}");
    let log = street.broker.log();
    assert!(!log.contains("panicked"), "{log}");
    let (dir, config, _kms) = street.end();
    Site::verify(&config);
    let log_files = log_files(&dir.path().join("trail"));
    let bytes = log_files.values().map(|file| inflated(file).len() as u64).sum::<u64>();
    let rate = bytes / ATTACK.as_secs();
    println!("{bytes} bytes of records, {rate} a second; {} bytes of log", log.len());
    assert!(rate < MOST_BYTES_A_SECOND, "{rate}");
}

/// Two users and a certificate; three certificates where the test may not become other users.
fn neighbours(street: &Street) -> Vec<Neighbour> {
    let telemetry = street.address("telemetry");
    let of_user = |uid| Neighbour { door: Door::Unix(street.socket()), uid: Some(uid), telemetry };
    let with_certificate = |name| {
        let connector = street.leaf(name).connector(&street.authority);
        Neighbour { door: Door::Tls(street.address("tls"), connector), uid: None, telemetry }
    };
    if cfg!(capability = "setuid") {
        vec![of_user(2_001), of_user(2_002), with_certificate("intruder")]
    } else {
        ["first", "second", "third"].map(with_certificate).into()
    }
}

/// What the workload saw.
struct Workload {
    calls: usize,
    median: Duration,
    p99: Duration,
    longest: Duration,
    most_resident_mib: u64,
}

impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { calls, median, p99, longest, most_resident_mib } = self;
        write!(
            f,
            "{calls} calls, median {median:?}, p99 {p99:?}, longest {longest:?}; {most_resident_mib} MiB resident"
        )
    }
}

impl Workload {
    /// Calls for so long: from a kept data key, past it, on new connections. Every call has to be answered in time.
    async fn call_until(street: &Street, time: Duration) -> Self {
        let (began, mut took, mut most_resident_mib) = (SystemClock.instant(), Vec::new(), 0);
        let connect =
            || async { Client::unix(street.socket()).await.expect("connects").with_deadline(PATIENCE) };
        let mut client = connect().await;
        let mut probed = began;
        while began.elapsed() < time {
            if took.len() % 20 == 0 {
                client = connect().await;
            }
            let called = SystemClock.instant();
            let outcome = match took.len() % 4 {
                0 => client.generate_random(8).await.map(drop),
                1 => {
                    let key = GenerateDataKey::aes_256("alias/dev").context("tenant", "acme").fresh();
                    let key = client.generate_data_key(key).await.expect("answered");
                    let again = Decrypt::new(key.ciphertext_blob).context("tenant", "acme");
                    client.decrypt(again).await.map(drop)
                }
                _ => client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.map(drop),
            };
            let log = || street.broker.log().lines().rev().take(5).collect::<Vec<_>>().join("\n");
            assert!(
                outcome.is_ok(),
                "call {} after {:?}: {:?}\n{}",
                took.len(),
                began.elapsed(),
                outcome.err(),
                log()
            );
            took.push(called.elapsed());
            most_resident_mib = most_resident_mib.max(street.broker.resident_kib() >> 10);
            assert!(most_resident_mib < SMALL_CONTAINER_MIB, "after {:?}", began.elapsed());
            if probed.elapsed() > Duration::from_secs(4) {
                street.others_are_served("beside them").await;
                probed = SystemClock.instant();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        took.sort();
        let part = |hundredths| took[took.len() * hundredths / 100];
        Self {
            calls: took.len(),
            median: part(50),
            p99: part(99),
            longest: took[took.len() - 1],
            most_resident_mib,
        }
    }
}

const AUDIT: &str = "store = { directory = \"trail\", bucket = \"logs\" }\nsigning = { pem_file = \"signing.pem\" }\n\
                     delivery_interval_seconds = 1\ndigest_interval_seconds = 10";
const ATTACK: Duration = Duration::from_mins(2);
/// Three principals of 100 records of some 2 KB a second each, and what is counted; the workload's own records are among them.
const MOST_BYTES_A_SECOND: u64 = 1 << 20;
