//! A receiver of OTLP in this process, over both transports: what it was sent, with OpenTelemetry's own messages.
#![allow(
    dead_code,
    unreachable_pub,
    reason = "it is a module of tests, as those of `support` are, and each uses its part"
)]

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Arc, Mutex, MutexGuard};
use std::thread;

use http::{Request, Response};
use http_body::Body as _;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::logs::v1::LogRecord;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::resource::v1::Resource;
use prost::Message;
use tokio_util::sync::CancellationToken;
use tonic::body::Body;
use tonic::server::Grpc;
use tonic_prost::ProstCodec;
use tower::service_fn;

/// Attributes by their names.
pub type Attributes = BTreeMap<String, String>;

/// Listens on loopback until it is dropped.
pub struct Receiver {
    address: SocketAddr,
    received: Arc<Mutex<Received>>,
    end: CancellationToken,
}

#[derive(Default)]
struct Received {
    traces: Vec<ExportTraceServiceRequest>,
    metrics: Vec<ExportMetricsServiceRequest>,
    logs: Vec<ExportLogsServiceRequest>,
}

/// A log line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub message: String,
    pub attributes: Attributes,
    /// In hex; empty where it has none.
    pub trace_id: String,
    pub span_id: String,
}

impl Receiver {
    pub fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (received, end) = (Arc::<Mutex<Received>>::default(), CancellationToken::new());
        let (all, ended) = (Arc::clone(&received), end.clone());
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(serve(listener, all, ended));
        });
        Self { address, received, end }
    }

    /// The variables by which any SDK exports to here.
    pub fn environment(&self, protocol: &str) -> [(&'static str, String); 2] {
        [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", self.address)),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", protocol.to_owned()),
        ]
    }

    /// The different resources that spans, metrics and log lines came from.
    pub fn resources(&self) -> BTreeMap<&'static str, BTreeSet<Attributes>> {
        let received = self.received();
        let of = |resource: &Option<Resource>| attributes(&resource.clone().unwrap_or_default().attributes);
        let traces =
            received.traces.iter().flat_map(|sent| &sent.resource_spans).map(|sent| of(&sent.resource));
        let metrics =
            received.metrics.iter().flat_map(|sent| &sent.resource_metrics).map(|sent| of(&sent.resource));
        let logs = received.logs.iter().flat_map(|sent| &sent.resource_logs).map(|sent| of(&sent.resource));
        BTreeMap::from([
            ("spans", traces.collect()),
            ("metrics", metrics.collect()),
            ("logs", logs.collect()),
        ])
    }

    /// Each counter's last value, by its name and the instance and attributes of its series.
    pub fn counters(&self) -> BTreeMap<String, BTreeMap<(String, Attributes), u64>> {
        let mut counters = BTreeMap::<String, BTreeMap<_, _>>::new();
        for sent in self.received().metrics.iter().flat_map(|sent| &sent.resource_metrics) {
            let instance =
                attributes(&sent.resource.clone().unwrap_or_default().attributes)["service.instance.id"]
                    .clone();
            for metric in sent.scope_metrics.iter().flat_map(|scope| &scope.metrics) {
                let points: Vec<(Attributes, u64)> = match &metric.data {
                    Some(Data::Sum(sum)) if sum.is_monotonic => sum
                        .data_points
                        .iter()
                        .map(|point| (attributes(&point.attributes), whole(point.value)))
                        .collect(),
                    Some(Data::Histogram(histogram)) => {
                        let points = histogram.data_points.iter();
                        points.map(|point| (attributes(&point.attributes), point.count)).collect()
                    }
                    _ => continue,
                };
                let series = counters.entry(metric.name.clone()).or_default();
                // They are cumulative: the last one counts.
                series.extend(points.into_iter().map(|(point, value)| ((instance.clone(), point), value)));
            }
        }
        counters
    }

    /// All log lines, in the order in which they came.
    pub fn lines(&self) -> Vec<Line> {
        let received = self.received();
        let scopes =
            received.logs.iter().flat_map(|sent| &sent.resource_logs).flat_map(|sent| &sent.scope_logs);
        scopes.flat_map(|scope| &scope.log_records).map(Line::from).collect()
    }

    /// The trace ids of all spans, in hex.
    pub fn traces(&self) -> BTreeSet<String> {
        let received = self.received();
        let scopes =
            received.traces.iter().flat_map(|sent| &sent.resource_spans).flat_map(|sent| &sent.scope_spans);
        scopes.flat_map(|scope| &scope.spans).map(|span| hex::encode(&span.trace_id)).collect()
    }

    /// Everything as text, to look for what must not be there.
    pub fn text(&self) -> String {
        let Received { traces, metrics, logs } = &*self.received();
        format!("{traces:?}{metrics:?}{logs:?}")
    }

    fn received(&self) -> MutexGuard<'_, Received> {
        self.received.lock().expect("nobody panics with it")
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.end.cancel();
    }
}

impl From<&LogRecord> for Line {
    fn from(record: &LogRecord) -> Self {
        Self {
            message: text(record.body.as_ref()),
            attributes: attributes(&record.attributes),
            trace_id: hex::encode(&record.trace_id),
            span_id: hex::encode(&record.span_id),
        }
    }
}

fn attributes(of: &[KeyValue]) -> Attributes {
    of.iter().map(|attribute| (attribute.key.clone(), text(attribute.value.as_ref()))).collect()
}

fn text(value: Option<&AnyValue>) -> String {
    match value.and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(truth)) => truth.to_string(),
        Some(other) => format!("{other:?}"),
        None => String::new(),
    }
}

fn whole(number: Option<Number>) -> u64 {
    match number {
        Some(Number::AsInt(number)) => u64::try_from(number).expect("it counts up"),
        other => panic!("a counter of {other:?}"),
    }
}

async fn serve(listener: TcpListener, received: Arc<Mutex<Received>>, end: CancellationToken) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    let incoming = futures_util::stream::unfold(listener, async |listener| {
        let accepted = listener.accept().await.map(|(connection, _)| connection);
        Some((accepted, listener))
    });
    let service = service_fn(move |request: Request<Body>| {
        let received = Arc::clone(&received);
        async move {
            let path = request.uri().path().to_owned();
            let response = if path.ends_with("TraceService/Export") || path == "/v1/traces" {
                take(request, |sent| received.lock().expect("nobody panics with it").traces.push(sent)).await
            } else if path.ends_with("MetricsService/Export") || path == "/v1/metrics" {
                take(request, |sent| received.lock().expect("nobody panics with it").metrics.push(sent)).await
            } else {
                take(request, |sent| received.lock().expect("nobody panics with it").logs.push(sent)).await
            };
            Ok::<_, Infallible>(response)
        }
    });
    let server = tonic::transport::Server::builder().accept_http1(true);
    server.serve_with_incoming_shutdown(service, incoming, end.cancelled_owned()).await.expect("serves");
}

/// Takes one request over either transport, and answers with nothing: all of it was taken.
async fn take<M: Message + Default + Clone + Send + Sync + 'static>(
    request: Request<Body>,
    keep: impl FnOnce(M),
) -> Response<Body> {
    if !request.uri().path().ends_with("/Export") {
        let mut body = pin!(request.into_body());
        let mut bytes = Vec::new();
        while let Some(frame) = poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            if let Ok(data) = frame.expect("a whole request").into_data() {
                bytes.extend_from_slice(&data);
            }
        }
        keep(M::decode(&bytes[..]).expect("a request of OTLP"));
        return Response::new(Body::empty());
    }
    let taken = Arc::new(Mutex::new(None));
    let slot = Arc::clone(&taken);
    let service = service_fn(move |request: tonic::Request<M>| {
        let slot = Arc::clone(&slot);
        async move {
            *slot.lock().expect("nobody panics with it") = Some(request.into_inner());
            Ok(tonic::Response::new(()))
        }
    });
    let response = Grpc::new(ProstCodec::<(), M>::default()).unary(service, request).await;
    if let Some(sent) = taken.lock().expect("nobody panics with it").take() {
        keep(sent);
    }
    response
}
