//! The contracts of tokio's `AsyncRead` and `AsyncWrite`, and of tonic's `Connected`.

use std::io;

use key_broker_authority::NormalizeAuthority;
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::UnixStream;
use tonic::transport::server::Connected;

use crate::socket::{Arrivals, through_whole};
use crate::wire::request;

/// Proves: a read of nothing asks the connection for nothing, and errors come through with the held bytes kept.
#[tokio::test]
async fn reads_keep_the_contract() {
    let bytes = request("%2Fx", false);
    let (early, late) = bytes.split_at(bytes.len() - 2);
    let arrivals = Arrivals([Ok(early), Err(io::ErrorKind::Interrupted), Ok(late)].into());
    let mut adapter = NormalizeAuthority::new(arrivals);
    assert_eq!(adapter.read(&mut []).await.expect("nothing"), 0);
    let mut out = vec![0; bytes.len()];
    let begun = adapter.read(&mut out).await.expect("what stands before the block");
    let error = adapter.read(&mut out[begun..]).await.expect_err("the connection failed");
    assert_eq!(error.kind(), io::ErrorKind::Interrupted);
    adapter.read_exact(&mut out[begun..]).await.expect("the block");
    assert_eq!(out, through_whole(&bytes));
}

/// Proves: writes reach the connection as they were made, vectored ones as one.
#[tokio::test]
async fn writes_pass_through() {
    let (mut client, server) = UnixStream::pair().expect("a pair of sockets");
    let is_write_vectored = server.is_write_vectored();
    let mut adapter = NormalizeAuthority::new(server);
    assert_eq!(adapter.is_write_vectored(), is_write_vectored);
    let slices = [io::IoSlice::new(b"ab"), io::IoSlice::new(b"cd")];
    assert_eq!(adapter.write_vectored(&slices).await.expect("writes"), 4);
    adapter.write_all(b"ef").await.expect("writes");
    adapter.shutdown().await.expect("shuts down");
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.expect("reads");
    assert_eq!(read, b"abcdef");
}

/// Proves: tonic's handlers learn as much of the peer as without the adapter.
#[tokio::test]
async fn the_peer_stays_known() {
    let (_client, server) = UnixStream::pair().expect("a pair of sockets");
    let expected = server.peer_cred().expect("credentials");
    let connected = NormalizeAuthority::new(server).connect_info();
    assert_eq!(connected.peer_cred, Some(expected));
}
