//! Connections report their TLS details; the first key share of the `ClientHello` is a post-quantum one; errors have the kinds that the
//! SDK retries. With real sockets.

use std::collections::BTreeMap;
use std::sync::Arc;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs::kx_group;
use rustls::version::{TLS12, TLS13};
use rustls_pki_types::PrivateKeyDer;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

use key_broker_core::clock::SystemClock;

use super::*;
use crate::kms::aws::{AwsKms, AwsSettings, static_credentials};

const ANSWER: &[u8] = b"answer";

/// A server of TLS on loopback that answers everything; the authorities that know it, and its port.
async fn server(
    version: &'static rustls::SupportedProtocolVersion,
    group: &'static dyn rustls::crypto::SupportedKxGroup,
    alpn: &'static [u8],
) -> (RootCertStore, u16) {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(vec!["localhost".into()]).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(cert.der().clone()).expect("a root");
    let mut provider = rustls::crypto::aws_lc_rs::default_provider();
    provider.kx_groups = vec![group];
    let key = PrivateKeyDer::try_from(signing_key.serialize_der()).expect("a key");
    let mut config = ServerConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[version])
        .expect("a version")
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .expect("a certificate");
    config.alpn_protocols = vec![alpn.to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                let answer = service_fn(|_: http::Request<Incoming>| async {
                    Ok::<_, io::Error>(http::Response::new(Full::new(Bytes::from_static(ANSWER))))
                });
                let (stream, executor) = (TokioIo::new(stream), TokioExecutor::new());
                if alpn == b"h2" {
                    let _closed = hyper::server::conn::http2::Builder::new(executor)
                        .serve_connection(stream, answer)
                        .await;
                } else {
                    let _closed =
                        hyper::server::conn::http1::Builder::new().serve_connection(stream, answer).await;
                }
            });
        }
    });
    (roots, port)
}

fn request(port: u16) -> HttpRequest {
    let mut request = HttpRequest::new(SdkBody::empty());
    request.set_uri(format!("https://localhost:{port}/")).expect("a URI");
    request
}

fn settings(connect: Duration, read: Duration) -> HttpConnectorSettings {
    HttpConnectorSettings::builder().connect_timeout(connect).read_timeout(read).build()
}

const LONG: Duration = Duration::from_secs(20);
const SHORT: Duration = Duration::from_millis(200);

#[tokio::test]
async fn a_connection_tells_how_it_is_encrypted() {
    for (version, group, alpn, told) in [
        (&TLS13, kx_group::X25519MLKEM768, &b"h2"[..], ("TLSv1.3", Some("X25519MLKEM768"))),
        (&TLS13, kx_group::X25519, b"http/1.1", ("TLSv1.3", Some("x25519"))),
        (&TLS13, kx_group::SECP384R1, b"h2", ("TLSv1.3", Some("secp384r1"))),
        (&TLS12, kx_group::SECP256R1, b"http/1.1", ("TLSv1.2", Some("secp256r1"))),
    ] {
        let (roots, port) = server(version, group, alpn).await;
        let encrypted = Encrypted::trusting(roots);
        let connector = encrypted.with(&settings(LONG, LONG));
        // The second request uses the same connection and gets the same details.
        for _ in 0..2 {
            let mut asked = request(port);
            let captured = CaptureSmithyConnection::new();
            asked.add_extension(captured.clone());
            let response = connector.call(asked).await.expect("an answer");
            assert_eq!(response.status().as_u16(), 200);
            let encryption = response.extension::<Encryption>().expect("it tells");
            assert_eq!((encryption.version, encryption.key_exchange), told);
            let suite = encryption.cipher_suite;
            assert!(suite.starts_with("TLS_") && !suite.starts_with("TLS13"), "{suite}");
            let connection = captured.get().expect("the SDK knows it");
            assert_eq!(connection.remote_addr().map(|address| address.port()), Some(port));
            assert!(connection.local_addr().is_some());
        }
    }
}

/// RFC 8446, 4.1.2 and 4.2.8; draft-ietf-tls-ecdhe-mlkem: X25519MLKEM768 is 0x11EC.
#[tokio::test]
async fn the_first_key_share_is_post_quantum() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = listener.local_addr().expect("an address").port();
    let hello = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.expect("a connection");
        let mut header = [0; 5];
        stream.read_exact(&mut header).await.expect("a record");
        assert_eq!(header[0], 22, "a handshake");
        let mut hello = vec![0; usize::from(u16::from_be_bytes([header[3], header[4]]))];
        stream.read_exact(&mut hello).await.expect("a whole record");
        hello
    });
    let settings = AwsSettings {
        region: "us-west-2".into(),
        endpoint_url: Some(format!("https://127.0.0.1:{port}")),
        sts_endpoint_url: Some(format!("https://127.0.0.1:{port}")),
        connect_timeout: LONG,
        attempt_timeout: LONG,
        max_attempts: 1,
        role_arn: None,
        session_name: None,
        imds_connect_timeout: SHORT,
        imds_read_timeout: SHORT,
        fallback_regions: Vec::new(),
        fallback_endpoint_urls: BTreeMap::new(),
        account_roles: BTreeMap::new(),
    };
    let credentials = static_credentials("AKIATEST", "test");
    let kms = AwsKms::new(settings, Some(credentials), Arc::new(SystemClock)).await;
    let asked = tokio::spawn(async move { kms.home.client().describe_key().key_id("k").send().await });
    let groups = key_shares(&hello.await.expect("a ClientHello"));
    assert_eq!(groups.first(), Some(&0x11EC), "{groups:x?}");
    assert!(asked.await.expect("no panic").is_err(), "nobody answered");
}

/// The groups of a `ClientHello`'s `key_share`, in their order.
fn key_shares(hello: &[u8]) -> Vec<u16> {
    let number = |bytes: &[u8]| bytes.iter().fold(0, |number, byte| number << 8 | usize::from(*byte));
    assert_eq!((hello[0], number(&hello[1..4])), (1, hello.len() - 4), "a whole ClientHello");
    // After version and random, three lists: session id, cipher suites, compression methods.
    let mut rest = &hello[4 + 2 + 32..];
    for length in [1, 2, 1] {
        rest = &rest[length + number(&rest[..length])..];
    }
    let mut extensions = &rest[2..];
    while !extensions.is_empty() {
        let (kind, length) = (number(&extensions[..2]), number(&extensions[2..4]));
        let (extension, after) = extensions[4..].split_at(length);
        if kind == 51 {
            let mut shares = &extension[2..];
            let mut groups = Vec::new();
            while !shares.is_empty() {
                groups.push(u16::try_from(number(&shares[..2])).expect("two bytes"));
                shares = &shares[4 + number(&shares[2..4])..];
            }
            return groups;
        }
        extensions = after;
    }
    panic!("no key_share");
}

#[tokio::test]
async fn what_may_be_tried_again_is_told_apart() {
    let nowhere = Encrypted::trusting(RootCertStore::empty());
    let port = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("listens");
        listener.local_addr().expect("an address").port()
    };
    let refused = nowhere.with(&settings(LONG, LONG)).call(request(port)).await.expect_err("nobody is there");
    assert!(refused.is_io(), "{refused:?}");

    let (_roots, port) = server(&TLS13, kx_group::X25519, b"http/1.1").await;
    let stranger = nowhere.with(&settings(LONG, LONG)).call(request(port)).await.expect_err("not trusted");
    assert!(stranger.is_io() && format!("{stranger:?}").contains("UnknownIssuer"), "{stranger:?}");

    // It takes connections, and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("listens");
    let port = silent.local_addr().expect("an address").port();
    let late = Encrypted::new().with(&settings(SHORT, LONG)).call(request(port)).await.expect_err("late");
    assert!(late.is_timeout(), "{late:?}");
    let late = Encrypted::new().with(&settings(LONG, SHORT)).call(request(port)).await.expect_err("late");
    assert!(late.is_timeout(), "{late:?}");
}
