//! A TCP proxy before a server: it can be down, break off what a client sends, and remembers what clients sent.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

/// The proxy, until the test ends.
pub struct Proxy {
    address: SocketAddr,
    up: watch::Sender<bool>,
    shared: Arc<Shared>,
}

struct Shared {
    sent: Mutex<Vec<u8>>,
    /// A connection that has sent so many bytes is broken off.
    break_after: AtomicU64,
}

impl Proxy {
    /// Before the server at `http://HOST:PORT`.
    pub async fn before(endpoint: &str) -> Self {
        let server: SocketAddr = endpoint.strip_prefix("http://").expect("http").parse().expect("an address");
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let (up, is_up) = watch::channel(true);
        let shared = Arc::new(Shared { sent: Mutex::default(), break_after: AtomicU64::new(u64::MAX) });
        let all = Arc::clone(&shared);
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let (mut is_up, shared) = (is_up.clone(), Arc::clone(&all));
                if !*is_up.borrow() {
                    continue;
                }
                tokio::spawn(async move {
                    tokio::select! {
                        () = shared.carry(client, server) => {}
                        _ = is_up.wait_for(|up| !up) => {}
                    }
                });
            }
        });
        Self { address, up, shared }
    }

    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Down, connections end and new ones are closed at once.
    pub fn set_up(&self, up: bool) {
        self.up.send_replace(up);
    }

    /// Breaks every connection off once it has sent so many bytes.
    pub fn break_after(&self, bytes: u64) {
        self.shared.break_after.store(bytes, Ordering::Relaxed);
    }

    /// The values of a header in everything that clients sent.
    pub fn sent_headers(&self, name: &str) -> Vec<String> {
        let sent = self.shared.sent.lock().expect("whole");
        let text = String::from_utf8_lossy(&sent).into_owned();
        let lines = text.split("\r\n").filter_map(|line| line.split_once(": "));
        let named = lines.filter(|(header, _)| header.eq_ignore_ascii_case(name));
        named.map(|(_, value)| value.to_owned()).collect()
    }
}

impl Shared {
    async fn carry(&self, client: TcpStream, server: SocketAddr) {
        let Ok(server) = TcpStream::connect(server).await else { return };
        let (mut from_client, to_client) = client.into_split();
        let (from_server, mut to_server) = server.into_split();
        tokio::select! {
            () = self.forward(&mut from_client, &mut to_server) => {}
            () = back(from_server, to_client) => {}
        }
    }

    async fn forward(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf) {
        let (mut buffer, mut bytes) = (vec![0; 8_192], 0);
        while let Ok(read @ 1..) = from.read(&mut buffer).await {
            bytes += read as u64;
            self.sent.lock().expect("whole").extend_from_slice(&buffer[..read]);
            if bytes > self.break_after.load(Ordering::Relaxed)
                || to.write_all(&buffer[..read]).await.is_err()
            {
                return;
            }
        }
    }
}

async fn back(mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
    // Whoever ends it ends it.
    let _ = tokio::io::copy(&mut from, &mut to).await;
}
