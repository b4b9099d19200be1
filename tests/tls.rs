//! Proves: on the TLS port only a trusted certificate gets a connection, only the workload that it proves
//! gets what policy permits, and refused and allowed calls are recorded as fully; certificates are replaced
//! under load without one failed call, whole or not at all; clients of other languages connect with the TLS
//! that they have.

#[path = "peers/mod.rs"]
mod peers;
mod support;

use std::net::SocketAddr;
use std::time::Duration;

use key_broker::{Identities, Tls, TlsFiles};
use key_broker_client::{Client, Error, GenerateDataKey};
use key_broker_core::SpiffeId;
use kms_emulator::{Emulator, EmulatorConfig};
use peers::{Peers, cases, printed, root};
use rcgen::SanType;
use rustix::process::{Signal, getpid, kill_process};
use serde_json::Value;
use support::pki::{Authority, Leaf, SERVER, dns, uri};
use support::process::{Process, binary, write_config};
use support::scrape::{Sample, Scrape, ask};
use support::{Setup, TestBroker};
use tempfile::TempDir;
use tonic::Code;

const POLICY: &str = r#"permit(principal == Workload::"spiffe://example.org/orders", action, resource);"#;

/// A broker that shows a certificate of `authority`, and trusts its clients.
struct Site {
    authority: Authority,
    files: TempDir,
    broker: TestBroker,
}

impl Site {
    async fn new(identities: Identities) -> Self {
        let (authority, files) = (Authority::new(), tempfile::tempdir().expect("a directory"));
        authority.leaf(vec![dns(SERVER)]).write(files.path(), &authority.pem());
        let tls = Tls::load(&paths(&files)).expect("they fit together");
        let setup = Setup { policy: POLICY.into(), tls: Some(tls), identities, ..Setup::default() };
        Self { authority, files, broker: TestBroker::with(setup).await }
    }

    fn address(&self) -> String {
        self.broker.tcp_address().expect("it listens").to_string()
    }

    async fn connect(&self, leaf: &Leaf) -> Result<Client, Error> {
        Client::tls(&self.address(), &leaf.client(&self.authority)).await
    }

    /// One call with such a certificate: the code that it ends with.
    async fn call(&self, names: Vec<SanType>) -> Code {
        let leaf = self.authority.leaf(names);
        let client = self.connect(&leaf).await.expect("the certificate is trusted");
        call(&client).await.map_or_else(|error| error.code(), |()| Code::Ok)
    }
}

fn paths(files: &TempDir) -> TlsFiles {
    let path = |name: &str| files.path().join("current").join(name);
    TlsFiles { certificate: path("tls.crt"), key: path("tls.key"), trust_bundle: path("ca.crt") }
}

async fn call(client: &Client) -> Result<(), Error> {
    client.generate_data_key(GenerateDataKey::aes_256("alias/dev")).await.map(drop)
}

/// Whether a connection, or its first call, fails as one that was never let in.
async fn is_shut_out(connected: Result<Client, Error>) -> bool {
    match connected {
        Err(error) => error.code() == Code::Unavailable,
        // With TLS 1.3 the client's side of the handshake ends before the server has seen its certificate.
        Ok(client) => call(&client).await.is_err_and(|error| error.request_id().is_none()),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_certificate_gets_what_policy_permits_its_workload_and_no_more() {
    let dns_identity =
        [("orders.internal".to_owned(), SpiffeId::parse("spiffe://example.org/orders").expect("an id"))];
    let trust_domain = Some("example.org".to_owned());
    let site =
        Site::new(Identities { dns: dns_identity.into(), trust_domain, ..Identities::default() }).await;
    let orders = || uri("spiffe://example.org/orders");
    for (names, code) in [
        (vec![orders()], Code::Ok),
        (vec![orders(), dns("anything.example.com")], Code::Ok),
        (vec![dns("orders.internal")], Code::Ok),
        (vec![dns("Orders.Internal")], Code::Ok),
        (vec![uri("spiffe://example.org/billing")], Code::PermissionDenied),
        (vec![uri("spiffe://example.com/orders")], Code::PermissionDenied),
        (vec![orders(), uri("spiffe://example.org/billing")], Code::PermissionDenied),
        (vec![orders(), uri("https://example.org/orders")], Code::PermissionDenied),
        (vec![uri("spiffe://example.org/orders/")], Code::PermissionDenied),
        (vec![uri("https://example.org/orders"), dns("orders.internal")], Code::PermissionDenied),
        (vec![dns("evil.internal")], Code::PermissionDenied),
        (vec![dns("*.internal")], Code::PermissionDenied),
        (vec![dns("orders.internal.evil.com")], Code::PermissionDenied),
    ] {
        assert_eq!(site.call(names.clone()).await, code, "{names:?}");
    }
    let records = site.broker.stop().await;
    assert_eq!(records.activity.len(), 13, "{:?}", records.activity);
    for (place, record) in records.activity.iter().enumerate() {
        let identity = &record["userIdentity"];
        let (kind, principal, outcome) = match place {
            0..4 => ("SpiffeWorkload", "spiffe://example.org/orders", "Allowed"),
            4 => ("SpiffeWorkload", "spiffe://example.org/billing", "Denied"),
            _ => ("Unknown", "unknown", "Denied"),
        };
        assert_eq!(
            (&identity["type"], &identity["principalId"]),
            (&kind.into(), &principal.into()),
            "{record}"
        );
        assert_eq!(record["additionalEventData"]["outcome"], outcome, "{record}");
        assert_eq!(record["sourceIPAddress"], "127.0.0.1");
        let details = &identity["details"];
        assert_eq!(details["transport"], "tls");
        assert_eq!(details["certificateSHA256"].as_str().map(str::len), Some(64));
        let by_name = matches!(place, 2 | 3).then_some("orders.internal");
        assert_eq!(details["dnsName"].as_str(), by_name);
        assert_eq!(record["requestParameters"]["keyId"], "alias/dev", "as fully for a no as for a yes");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_trusted_certificate_there_is_no_connection() {
    let site = Site::new(Identities::default()).await;
    let names = || vec![uri("spiffe://example.org/orders")];
    let (good, expired) = (site.authority.leaf(names()), site.authority.expired(names()));
    let stranger = Authority::new();
    let strange = stranger.leaf(names());
    assert!(call(&site.connect(&good).await.expect("trusted")).await.is_ok());
    assert!(is_shut_out(site.connect(&expired).await).await, "expired");
    assert!(is_shut_out(site.connect(&strange).await).await, "of another authority");
    let mut chained = site.authority.leaf(names());
    chained.certificate.push_str(&strange.certificate);
    assert!(
        call(&site.connect(&chained).await.expect("trusted")).await.is_ok(),
        "more in the chain is no harm"
    );
    let address = site.address();
    assert!(is_shut_out(Client::insecure_tcp(&address).await).await, "plaintext");
    for options in [&["-tls1_2"][..], &["-tls1_3"]] {
        let mut openssl = std::process::Command::new("openssl");
        openssl.args(["s_client", "-connect", &address, "-alpn", "h2", "-ign_eof"]).args(options);
        let output = openssl.stdin(std::process::Stdio::null()).output().expect("openssl is installed");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("alert"), "no certificate, {options:?}: {said}");
    }
    let records = site.broker.stop().await;
    assert_eq!(records.activity.len(), 2, "who is not let in calls nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_command_line_calls_with_a_certificate() {
    let site = Site::new(Identities::default()).await;
    let folder = tempfile::tempdir().expect("a directory");
    let client = site.authority.leaf(vec![uri("spiffe://example.org/orders")]);
    client.write(folder.path(), &site.authority.pem());
    let run = |arguments: &[&str], server_name: &str| {
        let TlsFiles { certificate, key, trust_bundle } = paths(&folder);
        let mut command = std::process::Command::new(binary());
        command.args(arguments).args(["--tls", &site.address(), "--server-name", server_name]);
        command.arg("--ca").arg(trust_bundle).arg("--cert").arg(certificate).arg("--key").arg(key);
        command.output().expect("it runs")
    };
    assert_eq!(run(&["health"], SERVER).stdout, b"SERVING\n");
    let random = run(&["call", "generate-random"], SERVER);
    assert!(random.status.success(), "{}", String::from_utf8_lossy(&random.stderr));
    assert!(!run(&["health"], "another.test").status.success(), "the broker's name counts");
    let records = site.broker.stop().await;
    assert_eq!(records.activity.len(), 1);
    assert_eq!(records.activity[0]["userIdentity"]["principalId"], "spiffe://example.org/orders");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_replaced_under_load_without_a_failed_call() {
    let site = Site::new(Identities::default()).await;
    let leaf = site.authority.leaf(vec![uri("spiffe://example.org/orders")]);
    let stays = site.connect(&leaf).await.expect("trusted");
    // The next authority, too, is trusted before anybody shows a certificate of it.
    let next = Authority::new();
    let (both, address) = (format!("{}{}", site.authority.pem(), next.pem()), site.address());
    let old = leaf.client(&site.authority);
    let load = tokio::spawn(async move {
        let mut calls = 0_u32;
        let until = tokio::time::sleep(Duration::from_secs(3));
        tokio::pin!(until);
        loop {
            let each = async {
                let comes = Client::tls(&address, &old).await.expect("it is let in");
                for _ in 0..5 {
                    call(&stays).await.expect("an open connection stays");
                    call(&comes).await.expect("a new one works");
                }
            };
            tokio::select! {
                () = &mut until => return calls,
                () = each => calls += 10,
            }
        }
    });
    for _ in 0..10 {
        site.authority.leaf(vec![dns(SERVER)]).write(site.files.path(), &both);
        kill_process(getpid(), Signal::HUP).expect("it is us");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let calls = load.await.expect("no call fails");
    assert!(calls > 100, "{calls}");
    // Now the next authority alone: it is shown, and nobody else is trusted.
    next.leaf(vec![dns(SERVER)]).write(site.files.path(), &next.pem());
    kill_process(getpid(), Signal::HUP).expect("it is us");
    let new_leaf = next.leaf(vec![uri("spiffe://example.org/orders")]);
    let address = site.address();
    let mut let_in = false;
    for _ in 0..500 {
        let_in = match Client::tls(&address, &new_leaf.client(&next)).await {
            Ok(client) => call(&client).await.is_ok(),
            Err(_) => false,
        };
        if let_in {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(let_in);
    assert!(
        is_shut_out(Client::tls(&address, &leaf.client(&next)).await).await,
        "the old one is no longer trusted"
    );
    let records = site.broker.stop().await;
    let told = |name: &str| sum(&records.activity, name);
    assert!((2..=11).contains(&told("certificates")), "{}", told("certificates"));
    assert_eq!(told("certificatesRefused"), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_that_do_not_fit_together_change_nothing_and_are_told() {
    let site = Site::new(Identities::default()).await;
    let leaf = site.authority.leaf(vec![uri("spiffe://example.org/orders")]);
    let good = site.authority.leaf(vec![dns(SERVER)]);
    let other = site.authority.leaf(vec![dns(SERVER)]);
    let half = good.certificate[..good.certificate.len() / 2].to_owned();
    let bundle = site.authority.pem();
    for (certificate, key, bundle) in [
        (good.certificate.clone(), other.key.clone(), bundle.clone()),
        (half, good.key.clone(), bundle.clone()),
        (String::new(), good.key.clone(), bundle.clone()),
        (good.certificate.clone(), "no key".into(), bundle.clone()),
        (good.certificate.clone(), good.key.clone(), String::new()),
    ] {
        Leaf { certificate, key }.write(site.files.path(), &bundle);
        kill_process(getpid(), Signal::HUP).expect("it is us");
        tokio::time::sleep(Duration::from_millis(150)).await;
        call(&site.connect(&leaf).await.expect("trusted")).await.expect("as before");
    }
    let refused = Tls::load(&paths(&site.files)).err().expect("a broker does not start with them");
    assert!(refused.contains("ca.crt: no certificate"), "{refused}");
    let records = site.broker.stop().await;
    assert_eq!(sum(&records.activity, "certificatesRefused"), 5);
    assert_eq!(sum(&records.activity, "certificates"), 0);
}

/// Proves: a trust bundle that is written in place, the first of its authorities before the second, is never taken half; it is taken
/// once it has stayed the same for five seconds.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn half_a_trust_bundle_is_not_taken() {
    let site = Site::new(Identities::default()).await;
    let leaf = site.authority.leaf(vec![uri("spiffe://example.org/orders")]);
    let next = Authority::new();
    let bundle = site.files.path().join("current/ca.crt");
    // The first half trusts nobody whom the broker trusts now.
    let whole = next.pem() + &site.authority.pem();
    std::fs::write(&bundle, next.pem()).expect("writes");
    for _ in 0..5 {
        kill_process(getpid(), Signal::HUP).expect("it is us");
        tokio::time::sleep(Duration::from_millis(200)).await;
        call(&site.connect(&leaf).await.expect("trusted")).await.expect("as before");
    }
    std::fs::write(&bundle, whole).expect("writes");
    kill_process(getpid(), Signal::HUP).expect("it is us");
    let new = next.leaf(vec![uri("spiffe://example.org/orders")]);
    let address = site.address();
    // It shows the new authority's certificate, and trusts the broker's by the old.
    let identity =
        key_broker_client::Tls { trust_bundle: site.authority.pem().into_bytes(), ..new.client(&next) };
    let mut let_in = false;
    for _ in 0..100 {
        let_in = match Client::tls(&address, &identity).await {
            Ok(client) => call(&client).await.is_ok(),
            Err(_) => false,
        };
        if let_in {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(let_in);
    call(&site.connect(&leaf).await.expect("trusted")).await.expect("both are");
    let records = site.broker.stop().await;
    assert_eq!(
        (sum(&records.activity, "certificates"), sum(&records.activity, "certificatesRefused")),
        (1, 0)
    );
}

/// Who is not let in is counted by why, and the log tells of one in a while: with the peer and what to do.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn refused_handshakes_are_counted_and_told_once_in_a_while() {
    let emulator = Emulator::start(EmulatorConfig::default()).await.expect("the emulator starts");
    let (authority, dir) = (Authority::new(), tempfile::tempdir().expect("a directory"));
    authority.leaf(vec![dns(SERVER)]).write(dir.path(), &authority.pem());
    let at = |port| SocketAddr::from(([127, 2, 0, 1], port));
    let (tls, pages) = (at(7_890), at(9_464));
    let config =
        write_config(dir.path(), &emulator.endpoint_url(), &format!("[telemetry]\nhttp = \"{pages}\"\n"));
    let listen = format!(
        "tls = {{ address = \"{tls}\", certificate_file = \"current/tls.crt\", key_file = \"current/tls.key\", \
         trust_bundle_file = \"current/ca.crt\" }}\n[kms]"
    );
    let text = std::fs::read_to_string(&config).expect("reads");
    std::fs::write(&config, text.replace("[kms]", &listen)).expect("writes");
    let broker = tokio::task::block_in_place(|| Process::serve(&config));
    let names = || vec![uri("spiffe://example.org/orders")];
    let stranger = Authority::new();
    for _ in 0..3 {
        let strange = stranger.leaf(names()).client(&authority);
        assert!(is_shut_out(Client::tls(&tls.to_string(), &strange).await).await);
    }
    let expired = authority.expired(names()).client(&authority);
    assert!(is_shut_out(Client::tls(&tls.to_string(), &expired).await).await);
    let distrustful = authority.leaf(names()).client(&stranger);
    assert!(is_shut_out(Client::tls(&tls.to_string(), &distrustful).await).await);
    assert!(is_shut_out(Client::insecure_tcp(&tls.to_string()).await).await, "plaintext");
    drop(tokio::net::TcpStream::connect(tls).await.expect("connects"));
    let expected = [
        ("unknown_authority", 3.0),
        ("not_valid_now", 1.0),
        ("by_client", 1.0),
        ("no_tls", 1.0),
        ("gone", 1.0),
    ];
    let mut counted = Vec::new();
    for _ in 0..500 {
        let scrape = Scrape::parse(&ask(pages, "GET", "/metrics").await.body);
        let of = |reason: &str| {
            let is_it = |sample: &&Sample| {
                sample.name == "keybroker_tls_handshakes_refused_total"
                    && sample.labels.get("keybroker_tls_refusal").is_some_and(|label| label == reason)
            };
            scrape.samples.iter().find(is_it).map_or(0.0, |sample| sample.value)
        };
        counted = expected.map(|(reason, _)| (reason, of(reason))).to_vec();
        // Clients try again as they like.
        if counted.iter().zip(expected).all(|(counted, expected)| counted.1 >= expected.1) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for (counted, expected) in counted.iter().zip(expected) {
        assert!(counted.1 >= expected.1, "{counted:?} {expected:?}");
    }
    let log = broker.log();
    let told: Vec<Value> = log
        .lines()
        .filter(|line| line.contains("TLS handshake failed"))
        .map(|line| serde_json::from_str(line).expect("JSON"))
        .collect();
    assert_eq!(told.len(), 1, "one in ten seconds: {log}");
    assert_eq!(
        (&told[0]["peer"], &told[0]["reason"]),
        (&"127.0.0.1".into(), &"unknown_authority".into()),
        "{log}"
    );
    assert!(told[0]["next"].as_str().is_some_and(|next| next.contains("trust_bundle_file")), "{log}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_does_not_end_the_handshake_is_cut_off_and_holds_up_nobody() {
    let site = Site::new(Identities::default()).await;
    let address = site.broker.tcp_address().expect("it listens");
    let mut idle = Vec::new();
    for _ in 0..50 {
        idle.push(tokio::net::TcpStream::connect(address).await.expect("connects"));
    }
    let leaf = site.authority.leaf(vec![uri("spiffe://example.org/orders")]);
    call(&site.connect(&leaf).await.expect("trusted")).await.expect("served meanwhile");
    let mut buffer = [0; 64];
    for stream in &mut idle {
        let ended =
            tokio::time::timeout(Duration::from_secs(10), tokio::io::AsyncReadExt::read(stream, &mut buffer));
        assert!(matches!(ended.await, Ok(Ok(0) | Err(_))), "it is cut off within seconds");
    }
    site.broker.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
async fn clients_of_other_languages_connect_with_their_own_tls() {
    let peers = Peers::install(&["python", "grpcurl"]);
    let site = Site::new(Identities::default()).await;
    let files = tempfile::tempdir().expect("a directory");
    let (address, dir) = (site.address(), files.path().to_owned());
    for (workload, code) in [("orders", "OK"), ("billing", "PERMISSION_DENIED")] {
        let leaf = site.authority.leaf(vec![uri(&format!("spiffe://example.org/{workload}"))]);
        leaf.write(&dir, &site.authority.pem());
        let path = |name: &str| dir.join("current").join(name);
        let (bundle, certificate, key) = (path("ca.crt"), path("tls.crt"), path("tls.key"));
        let mut python = peers.command("python/bin/python");
        python.arg(root().join("tests/peers/python/tls.py")).args([&address, SERVER]);
        python.args([&bundle, &certificate, &key]);
        let mut grpcurl = peers.command("grpcurl/bin/grpcurl");
        grpcurl.arg("-cacert").arg(bundle).arg("-cert").arg(certificate).arg("-key").arg(key);
        grpcurl.args(["-authority", SERVER, &address, "grpc.health.v1.Health/Check"]);
        let said = tokio::task::spawn_blocking(move || (cases(&mut python), printed(&mut grpcurl)));
        let (said, health) = said.await.expect("both run");
        assert_eq!(said[0]["code"], code, "{said:?}");
        assert!(health.contains("SERVING"), "{health}");
    }
    site.broker.stop().await;
}

fn sum(records: &[Value], name: &str) -> u64 {
    records.iter().filter_map(|record| record["additionalEventData"]["reloads"][name].as_u64()).sum()
}
