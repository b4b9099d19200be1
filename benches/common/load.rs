//! The load: so many calls in flight, each followed by the next, over one connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use key_broker_proto::v1::GenerateDataKeyRequest;
use key_broker_proto::v1::key_broker_client::KeyBrokerClient;
use tokio::task::JoinSet;
use tonic::transport::Channel;

use super::machine::now;

/// Something that answers calls.
pub(crate) trait Target: Clone + Send + 'static {
    /// One call. A call that fails ends the measurement: a figure that holds failures says nothing.
    fn call(&mut self) -> impl Future<Output = ()> + Send;
}

/// The broker or the echo.
#[derive(Clone)]
pub(crate) struct Grpc {
    pub(crate) client: KeyBrokerClient<Channel>,
    pub(crate) request: GenerateDataKeyRequest,
}

impl Target for Grpc {
    async fn call(&mut self) {
        let answered = self.client.generate_data_key(self.request.clone()).await;
        answered.expect("every call is answered");
    }
}

/// When to stop, whichever comes first.
#[derive(Clone, Copy)]
pub(crate) struct Until {
    pub(crate) calls: u64,
    pub(crate) time: Duration,
}

/// The calls of one run.
#[derive(Default)]
pub(crate) struct Sample {
    pub(crate) latencies: Vec<Duration>,
    pub(crate) elapsed: Duration,
}

impl Sample {
    pub(crate) fn calls_per_second(&self) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "fewer than 2^52 calls")]
        let calls = self.latencies.len() as f64;
        calls / self.elapsed.as_secs_f64()
    }
}

pub(crate) async fn run<T: Target>(target: &T, in_flight: usize, until: Until) -> Sample {
    let start = now();
    let end = start + until.time;
    let begun = Arc::new(AtomicU64::new(0));
    let mut workers = JoinSet::new();
    for _ in 0..in_flight {
        workers.spawn(work(target.clone(), Arc::clone(&begun), until.calls, end));
    }
    let latencies = workers.join_all().await.concat();
    Sample { latencies, elapsed: start.elapsed() }
}

async fn work<T: Target>(mut target: T, begun: Arc<AtomicU64>, calls: u64, end: Instant) -> Vec<Duration> {
    let mut latencies = Vec::new();
    let mut start = now();
    while start < end && begun.fetch_add(1, Ordering::Relaxed) < calls {
        target.call().await;
        let ended = now();
        latencies.push(ended - start);
        start = ended;
    }
    latencies
}

/// The value below which the share `q` of `sorted` lies.
pub(crate) fn quantile(sorted: &[Duration], q: f64) -> Duration {
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "an index, between 0 and the length"
    )]
    let index = (sorted.len() as f64 * q) as usize;
    sorted.get(index.min(sorted.len().saturating_sub(1))).copied().unwrap_or_default()
}
