//! Loads an emulator with `GenerateDataKey` and prints the calls per second.
//!
//! `cargo run --release -p kms-emulator -- --key alias/load &`
//! `cargo run --release -p kms-emulator --example load -- http://127.0.0.1:4566 alias/load 16 10`
//! (endpoint, key, connections with one call in flight each, seconds)

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

type Failure = Box<dyn Error + Send + Sync>;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [endpoint, key, connections, seconds] = arguments.as_slice() else {
        return Err("four arguments: ENDPOINT KEY CONNECTIONS SECONDS".into());
    };
    let (connections, seconds): (u32, u32) = (connections.parse()?, seconds.parse()?);
    let address = endpoint.strip_prefix("http://").ok_or("an endpoint is http://ADDRESS:PORT")?;
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..connections {
        tasks.spawn(load(address.to_owned(), key.clone(), Arc::clone(&stop), Arc::clone(&done)));
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let before = done.load(Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(seconds.into())).await;
    let calls = done.load(Ordering::Relaxed) - before;
    stop.store(true, Ordering::Relaxed);
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    println!("{} calls/s over {connections} connections", calls / u64::from(seconds));
    Ok(())
}

/// One call after the other over one connection.
async fn load(
    address: String,
    key: String,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
) -> Result<(), Failure> {
    let stream = TcpStream::connect(address).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let body = format!(r#"{{"KeyId":"{key}","KeySpec":"AES_256","EncryptionContext":{{"tenant":"7"}}}}"#);
    let body = Bytes::from(body);
    while !stop.load(Ordering::Relaxed) {
        let request = Request::post("/")
            .header("host", "localhost")
            .header("x-amz-target", "TrentService.GenerateDataKey")
            .header("content-type", "application/x-amz-json-1.1")
            .header("authorization", AUTHORIZATION)
            .body(Full::new(body.clone()))?;
        sender.ready().await?;
        let response = sender.send_request(request).await?;
        if response.status() != StatusCode::OK {
            return Err(format!("{:?}", response.into_body().collect().await?.to_bytes()).into());
        }
        response.into_body().collect().await?;
        done.fetch_add(1, Ordering::Relaxed);
    }
    Ok(())
}

const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=AKIDEXAMPLE/20260101/us-west-2/kms/aws4_request, \
                             SignedHeaders=host;x-amz-date, Signature=00";
