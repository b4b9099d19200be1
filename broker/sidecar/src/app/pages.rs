//! Probe and metrics pages, from before the trail is open until after the drain.

use std::net::SocketAddr;
use std::sync::Arc;

use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::telemetry::http::Pages;

/// Pages that are being served, until this is dropped.
pub(super) struct PagesServer {
    address: Option<SocketAddr>,
    serving: JoinHandle<()>,
    stop: DropGuard,
}

impl PagesServer {
    /// Serves the pages to connections of `listener`.
    pub(super) fn start(listener: TcpListener, pages: Arc<Pages>) -> Self {
        let (address, stop) = (listener.local_addr().ok(), CancellationToken::new());
        let serving = tokio::spawn(pages.serve(listener, stop.clone()));
        Self { address, serving, stop: stop.drop_guard() }
    }

    /// The address.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Stops serving.
    pub(super) async fn stop(self) {
        drop(self.stop);
        let _ = self.serving.await;
    }
}
