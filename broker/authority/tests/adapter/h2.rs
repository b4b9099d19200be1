//! h2 itself, with and without the adapter.

use http::uri::Authority;
use key_broker_authority::NormalizeAuthority;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::wire::{BEST, HUFFMAN, INDEX, Wire, request};

/// Proves: h2 refuses a default-configured C-core client's request, and accepts it behind the adapter.
#[tokio::test]
async fn h2_accepts_what_it_refuses_without_the_adapter() {
    for huffman in [false, true] {
        let bytes = request("%2Ftmp%2Fx.sock", huffman);

        let (mut client, server) = connected(&bytes).await;
        let mut connection = h2::server::handshake(server).await.expect("the preface is valid");
        tokio::select! {
            _ = connection.accept() => panic!("h2 has learned to accept '%': is this adapter still needed?"),
            reset = reset_code(&mut client) => assert_eq!(reset, h2::Reason::PROTOCOL_ERROR),
        }

        let (_client, server) = connected(&bytes).await;
        let mut connection = h2::server::handshake(NormalizeAuthority::new(server)).await.expect("as above");
        let (request, _) = connection.accept().await.expect("a request").expect("accepted");
        assert_eq!(request.uri(), "http://-2Ftmp-2Fx.sock/p.S/M");
    }
}

/// Proves: h2 and the adapter agree about the dynamic table over a long connection with evictions.
#[tokio::test]
async fn h2_follows_a_long_connection() {
    let mut wire = Wire::default();
    for n in 0..300 {
        let long = "v".repeat(n % 97 * 3);
        let rare = format!("x-{}", n % 29);
        wire.request(&[
            (":authority", "%2Fx", BEST | INDEX | if n % 2 == 0 { HUFFMAN } else { 0 }),
            (&rare, &long, BEST | INDEX | HUFFMAN),
        ]);
    }
    let (_client, server) = connected(&wire.bytes).await;
    let mut connection =
        h2::server::handshake(NormalizeAuthority::new(server)).await.expect("the preface is valid");
    for n in 0..300 {
        let (request, mut reply) = connection.accept().await.expect("a request").expect("accepted");
        assert_eq!(request.uri().authority().map(Authority::as_str), Some("-2Fx"));
        assert_eq!(request.headers()[&format!("x-{}", n % 29)].len(), n % 97 * 3);
        reply.send_response(http::Response::new(()), true).expect("the stream is open");
    }
}

/// A unix socket whose client has sent `bytes`.
async fn connected(bytes: &[u8]) -> (UnixStream, UnixStream) {
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    client.write_all(bytes).await.expect("they fit the socket's buffer");
    (client, server)
}

/// Reads the server's frames up to its `RST_STREAM`.
async fn reset_code(client: &mut UnixStream) -> h2::Reason {
    loop {
        let mut header = [0; 9];
        client.read_exact(&mut header).await.expect("a frame");
        let [l0, l1, l2, kind, ..] = header;
        let mut payload = vec![0; u32::from_be_bytes([0, l0, l1, l2]) as usize];
        client.read_exact(&mut payload).await.expect("its payload");
        if kind == RST_STREAM {
            return u32::from_be_bytes(payload.try_into().expect("an error code")).into();
        }
    }
}

/// RFC 9113, section 6.4.
const RST_STREAM: u8 = 3;
