//! Proves: what is exported is what is on the list, within calls that are sampled; no event becomes a span event; the sampler is
//! asked once for a call; of a call that is not sampled there is no span at all; and a span names the record of its call.

use std::fs;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::FutureExt as _;
use key_broker_core::clock::SystemClock;
use key_broker_trail::journal::{Durability, Journal, JournalConfig};
use key_broker_trail::record::AwsCaller;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{
    Sampler, SdkTracerProvider, ShouldSample, Span as SdkSpan, SpanData, SpanProcessor,
};
use tracing::callsite::{Callsite, Identifier};
use tracing::field::{Empty, FieldSet};
use tracing::metadata::Kind;
use tracing::subscriber::{Interest, with_default};
use tracing::{Level, Metadata, debug_span, error, info, info_span, record_all};
use tracing_subscriber::filter::filter_fn;
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::audit::Audit;
use crate::audit::refusals::Refusals;
use crate::identity::Identities;

#[test]
fn what_is_on_the_list_is_exported_and_no_event() {
    let spans = in_a_call(Sampler::AlwaysOn, &HeaderMap::new(), |_| {
        let within = info_span!("within", answer = Empty).entered();
        info!("of the broker");
        error!(target: "h2::codec", secret = "bytes", "of a library");
        record_all!(within, answer = "yes");
        drop(within);
        drop(debug_span!(target: SDK, "try_attempt", attempt = 1_u32));
        drop(debug_span!(target: SDK, "try_attempt", body = "secret"));
        drop(debug_span!(target: SDK, "finally_attempt", attempt = 1_u32));
        drop(debug_span!(target: "aws_config::profile", "load_config_file", file = "secret"));
        drop(debug_span!(target: "key_brokerage", "of another crate"));
    });
    let names: Vec<_> = spans.iter().map(|span| &*span.name).collect();
    assert_eq!(names, ["within", "try_attempt", "keybroker.v1.KeyBroker/Decrypt"]);
    let server = &spans[2];
    assert!(spans.iter().all(|span| span.events.is_empty()));
    assert!(spans[..2].iter().all(|span| span.parent_span_id == server.span_context.span_id()));
    assert_eq!(spans[0].attributes.len(), 1, "no attributes but its own: {:?}", spans[0].attributes);
}

#[test]
fn parts_are_children_of_their_call_and_end_before_it() {
    let spans = in_a_call(Sampler::AlwaysOn, &HeaderMap::new(), |trace| {
        let mut authorize = trace.span().begin("authorize");
        authorize.set(|| [KeyValue::new("answer", "allow")]);
        drop(authorize);
        trace.span().begin("audit.commit").fail("journal_unavailable");
        trace.span().end([KeyValue::new("outcome", "Denied")], true);
        drop(trace.span().begin("cache"));
        trace.span().end([KeyValue::new("outcome", "Allowed")], false);
    });
    let [authorize, commit, server, late] = &spans[..] else { panic!("{spans:?}") };
    let attributes = |span: &SpanData| span.attributes.clone();
    assert_eq!((&*authorize.name, &authorize.status), ("authorize", &Status::Unset));
    assert_eq!(attributes(authorize), [KeyValue::new("answer", "allow")]);
    assert_eq!((&*commit.name, &commit.status), ("audit.commit", &Status::error("")));
    assert_eq!(attributes(commit), [KeyValue::new(vocabulary::ERROR_TYPE, "journal_unavailable")]);
    assert_eq!(server.attributes.last(), Some(&KeyValue::new("outcome", "Denied")), "it ends once");
    assert_eq!((&server.span_kind, &server.status), (&SpanKind::Server, &Status::error("")));
    assert!(
        [authorize, commit, late].iter().all(|part| part.parent_span_id == server.span_context.span_id())
    );
}

#[test]
fn of_a_call_that_is_not_sampled_there_is_no_span() {
    let mut unsampled = HeaderMap::new();
    unsampled.insert("traceparent", UNSAMPLED.parse().expect("ascii"));
    let by_parent = || Sampler::ParentBased(Box::new(Sampler::AlwaysOn));
    for (sampler, headers) in [(Sampler::AlwaysOff, HeaderMap::new()), (by_parent(), unsampled)] {
        let spans = in_a_call(sampler, &headers, |trace| {
            assert!(!trace.span().is_exported() && trace.ids().server.is_none());
            let caller = trace.ids().caller.map(|caller| format!("{}-{}", caller.trace_id, caller.span_id));
            let told = headers.get("traceparent").and_then(|told| told.to_str().ok());
            assert_eq!(caller.as_deref(), told.map(|told| &told[3..52]), "the caller's span stands for it");
            trace.span().begin("authorize").set::<1>(|| unreachable!("nobody sees it"));
            assert!(info_span!("within").is_disabled());
        });
        assert_eq!(spans.len(), 0);
    }
}

#[test]
fn a_sampler_is_asked_once_for_a_call() {
    let spans = exported(Sampler::TraceIdRatioBased(0.5), |traces| {
        for _ in 0..4_000 {
            drop(traces.call(Method::Decrypt, "unix", &HeaderMap::new()));
        }
    });
    // 2,000, give or take six times the deviation of 32; asked twice, 1,000.
    assert!((1_800..2_200).contains(&spans.len()), "{}", spans.len());
}

#[test]
fn a_trace_of_its_own_is_none_of_the_call_during_which_it_begins() {
    let spans = in_a_call(Sampler::AlwaysOn, &HeaderMap::new(), |_| {
        drop(info_span!(parent: None, vocabulary::CACHE_REFRESH));
    });
    let [refresh, call] = &spans[..] else { panic!("{spans:?}") };
    assert_ne!(refresh.span_context.trace_id(), call.span_context.trace_id());
}

#[tokio::test]
async fn the_span_of_a_call_that_is_dropped_during_its_commit_names_its_record() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = JournalConfig::new(dir.path().to_owned(), Durability::Fsync, Duration::from_secs(5));
    let (journal, thread) = Journal::open(&config, Arc::new(SystemClock)).expect("a journal");
    let caller = AwsCaller {
        account_id: "111122223333".into(),
        partition: "aws".into(),
        region: "us-west-2".into(),
        kms_host: "kms.us-west-2.amazonaws.com".into(),
        source_address: "127.0.0.1".into(),
    };
    let caller = Arc::new(caller);
    let refusals = Refusals::new(journal.clone(), Arc::clone(&caller));
    let audit = Arc::new(Audit { journal, caller, redaction: None, refusals, clock: Arc::new(SystemClock) });
    let spans = exported(Sampler::AlwaysOn, |traces| {
        let trace = traces.call(Method::Decrypt, "unix", &HeaderMap::new());
        let peer = Arc::new(Identities::default().unix_peer(1_000, 1_000, None));
        let mut scope =
            audit.open(Method::Decrypt.event_name(), peer, None, trace.span().clone(), trace.ids());
        drop(trace);
        scope.record().allowed();
        assert!(scope.commit().now_or_never().is_none(), "the disk takes longer than that");
    });
    drop(audit);
    drop(thread);

    let record = (0..1_000).find_map(|_| {
        std::thread::sleep(Duration::from_millis(10));
        // `SEQUENCE HASH RECORD`, after a first line of another kind.
        let text = fs::read_to_string(dir.path().join("journal-00000001.open")).expect("reads");
        let (_, line) = text.strip_suffix('\n')?.split_once('\n')?;
        let record = line.splitn(3, ' ').last()?;
        Some(serde_json::from_str::<serde_json::Value>(record).expect("a record"))
    });
    let record = record.expect("it is written within ten seconds");
    let [commit, server] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!((&*commit.name, commit.parent_span_id), ("audit.commit", server.span_context.span_id()));
    let attribute = |name: &str| {
        let found = server.attributes.iter().find(|attribute| attribute.key.as_str() == name);
        found.map(|attribute| attribute.value.to_string())
    };
    assert_eq!(attribute("keybroker.event_id").as_deref(), record["eventID"].as_str());
    assert_eq!(attribute("keybroker.outcome").as_deref(), Some("Allowed"));
    assert_eq!(record["additionalEventData"]["trace"]["spanId"], server.span_context.span_id().to_string());
}

/// HTTP/2 has several for each frame, and each would cost a call that is not traced.
#[test]
fn events_that_the_log_never_shows_are_not_made() {
    struct Place;
    impl Callsite for Place {
        fn set_interest(&self, _: Interest) {}

        fn metadata(&self) -> &Metadata<'_> {
            &OF_HTTP_2
        }
    }
    static PLACE: Place = Place;
    static OF_HTTP_2: Metadata<'static> = Metadata::new(
        "event",
        "h2::codec::framed_read",
        Level::DEBUG,
        None,
        None,
        None,
        FieldSet::new(&["message"], Identifier(&PLACE)),
        Kind::EVENT,
    );
    let provider = SdkTracerProvider::builder().build();
    let traces = Traces::new(Some(provider.tracer("test")), Propagation::default());
    let log = tracing_subscriber::fmt::layer().with_filter(filter_fn(lines::may_show));
    let subscriber = tracing_subscriber::registry().with(log).with(traces.layer());
    assert!(subscriber.register_callsite(&OF_HTTP_2).is_never());
}

/// What is exported of a call that came with these headers and does this.
fn in_a_call(
    sampler: impl ShouldSample + 'static,
    headers: &HeaderMap,
    work: impl FnOnce(&CallTrace),
) -> Vec<SpanData> {
    exported(sampler, |traces| {
        let trace = traces.call(Method::Decrypt, "unix", headers);
        let _attached = trace.context.clone().unwrap_or_default().attach();
        work(&trace);
    })
}

fn exported(sampler: impl ShouldSample + 'static, work: impl FnOnce(&Traces)) -> Vec<SpanData> {
    let ended = Ended::default();
    let provider =
        SdkTracerProvider::builder().with_sampler(sampler).with_span_processor(ended.clone()).build();
    let traces = Traces::new(Some(provider.tracer("test")), Propagation::default());
    with_default(tracing_subscriber::registry().with(traces.layer()), || work(&traces));
    std::mem::take(&mut *ended.0.lock().expect("whole"))
}

#[derive(Debug, Clone, Default)]
struct Ended(Arc<Mutex<Vec<SpanData>>>);

impl SpanProcessor for Ended {
    fn on_start(&self, _: &mut SdkSpan, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        self.0.lock().expect("whole").push(span);
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}

const SDK: &str = "aws_smithy_runtime::client::orchestrator";
const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
