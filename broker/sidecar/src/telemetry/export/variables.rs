//! OpenTelemetry's environment variables. Invalid values are logged and ignored, as if the variable were not set: that is
//! what its specification wants (<https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/>), and no broker
//! fails to start for the sake of its telemetry.

mod known;

use std::fmt;
use std::time::Duration;

use opentelemetry_sdk::trace::Sampler;

use crate::telemetry::trace::{Propagation, Propagator};

/// What is asked for.
#[derive(Debug, Clone)]
pub(super) struct Variables {
    /// Where spans go; none if they go nowhere.
    pub traces: Option<Collector>,
    /// Where metrics go.
    pub metrics: Option<Collector>,
    /// Where log lines go, beside stderr.
    pub logs: Option<Collector>,
    /// The headers with a caller's trace.
    pub propagation: Propagation,
    /// Which calls are traced.
    pub sampler: Sampler,
    /// Spans held at most.
    pub queue: usize,
    /// Spans sent together at most.
    pub batch: usize,
    /// The time between two batches.
    pub delay: Duration,
    /// How long a batch may take.
    pub timeout: Duration,
}

/// A collector, as one signal reaches it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Collector {
    pub protocol: Protocol,
    /// The whole address, with HTTP's path for the signal.
    pub url: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Protocol {
    Grpc,
    Http,
}

/// A variable that is as if it were not set, since its value makes no sense.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ignored {
    /// Its name.
    pub(crate) variable: String,
    /// What is wrong with its value, which is not shown where it may be a secret.
    pub(crate) why: String,
}

impl fmt::Display for Ignored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.variable, self.why)
    }
}

impl fmt::Display for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let protocol = match self.protocol {
            Protocol::Grpc => "grpc",
            Protocol::Http => "http/protobuf",
        };
        write!(f, "{} ({protocol})", self.url)
    }
}

impl Variables {
    /// Reads the variables through `get`, and notes which are ignored.
    pub(super) fn read(get: impl Fn(&str) -> Option<String>) -> (Self, Vec<Ignored>) {
        let mut reader = Reader { get, ignored: Vec::new() };
        let is_disabled = reader.truth("OTEL_SDK_DISABLED");
        if !is_disabled {
            reader.tell_of_what_is_not_honoured();
        }
        let propagation = reader.propagation();
        let (traces, metrics) = (reader.collector("TRACES", true), reader.collector("METRICS", true));
        let logs = reader.collector("LOGS", false);
        if traces.is_some() || metrics.is_some() || logs.is_some() {
            reader.check_the_sdks_own();
        }
        let sampler = reader.sampler();
        let queue = reader.number("OTEL_BSP_MAX_QUEUE_SIZE", MAX_QUEUE).unwrap_or(QUEUE);
        let batch = reader.number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", MAX_QUEUE).unwrap_or(BATCH);
        let delay = reader.number("OTEL_BSP_SCHEDULE_DELAY", MAX_MILLISECONDS).unwrap_or(DELAY);
        let timeout = reader.number("OTEL_BSP_EXPORT_TIMEOUT", MAX_MILLISECONDS).unwrap_or(TIMEOUT);
        let variables = Self {
            traces: traces.filter(|_| !is_disabled),
            metrics: metrics.filter(|_| !is_disabled),
            logs: logs.filter(|_| !is_disabled),
            propagation,
            sampler,
            queue: usize::try_from(queue).unwrap_or(usize::MAX),
            batch: usize::try_from(batch.min(queue)).unwrap_or(usize::MAX),
            delay: Duration::from_millis(delay),
            timeout: Duration::from_millis(timeout),
        };
        (variables, reader.ignored)
    }

    /// What is exported, and where, in one line.
    pub(super) fn describe(&self) -> String {
        let signals = [("spans", &self.traces), ("metrics", &self.metrics), ("log lines", &self.logs)];
        let exported =
            signals.into_iter().filter_map(|(what, to)| Some(format!("{what} to {}", to.as_ref()?)));
        let exported: Vec<String> = exported.collect();
        if exported.is_empty() {
            return "nothing is exported: OTEL_EXPORTER_OTLP_ENDPOINT is not set".to_owned();
        }
        exported.join(", ")
    }
}

struct Reader<F> {
    get: F,
    ignored: Vec<Ignored>,
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// A variable that is set to something: an empty one is as if it were not set.
    fn value(&self, name: &str) -> Option<String> {
        (self.get)(name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    fn ignore(&mut self, variable: &str, why: String) {
        let ignored = Ignored { variable: variable.to_owned(), why };
        // Both signals look at what holds for both.
        if !self.ignored.contains(&ignored) {
            self.ignored.push(ignored);
        }
    }

    fn truth(&mut self, name: &str) -> bool {
        match self.value(name) {
            Some(value) if value.eq_ignore_ascii_case("true") => true,
            Some(value) if !value.eq_ignore_ascii_case("false") => {
                self.ignore(name, format!("{value:?} is neither \"true\" nor \"false\""));
                false
            }
            _ => false,
        }
    }

    fn number(&mut self, name: &str, most: u64) -> Option<u64> {
        let text = self.value(name)?;
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        if number.is_none() {
            self.ignore(name, format!("{text:?} is not a number of 1 to {most}"));
        }
        number
    }

    /// Where a signal is exported, if anywhere; `by_default`, if no variable says.
    fn collector(&mut self, signal: &str, by_default: bool) -> Option<Collector> {
        let exporter = format!("OTEL_{signal}_EXPORTER");
        let is_wanted = match self.value(&exporter).as_deref() {
            None => by_default,
            Some("otlp") => true,
            Some("none") => false,
            Some(other) => {
                self.ignore(&exporter, format!("{other:?} is neither \"otlp\" nor \"none\""));
                by_default
            }
        };
        let protocol = self.protocol(signal);
        let own = self.url(&format!("OTEL_EXPORTER_OTLP_{signal}_ENDPOINT"));
        let url = match (own, self.url("OTEL_EXPORTER_OTLP_ENDPOINT"), protocol) {
            (Some(own), _, _) => own,
            (None, Some(url), Protocol::Grpc) => url,
            // The address of all signals has a path for each
            // (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/#endpoint-urls-for-otlphttp>).
            (None, Some(url), Protocol::Http) => {
                format!("{}/v1/{}", url.trim_end_matches('/'), signal.to_ascii_lowercase())
            }
            (None, None, _) => return None,
        };
        is_wanted.then_some(Collector { protocol, url })
    }

    fn url(&mut self, name: &str) -> Option<String> {
        let url = self.value(name)?;
        if is_url(&url) {
            return Some(url);
        }
        self.ignore(name, format!("{url:?} is not an http or https URL"));
        None
    }

    fn protocol(&mut self, signal: &str) -> Protocol {
        for name in
            [format!("OTEL_EXPORTER_OTLP_{signal}_PROTOCOL"), "OTEL_EXPORTER_OTLP_PROTOCOL".to_owned()]
        {
            match self.value(&name).as_deref() {
                None => {}
                Some("grpc") => return Protocol::Grpc,
                Some("http/protobuf") => return Protocol::Http,
                Some(other) => {
                    self.ignore(&name, format!("{other:?} is neither \"grpc\" nor \"http/protobuf\""));
                }
            }
        }
        // The specification's default.
        Protocol::Http
    }

    /// The propagators in their order; `tracecontext` alone, unless others are named. Baggage is nobody's business here: it is neither
    /// read nor passed on.
    fn propagation(&mut self) -> Propagation {
        let name = "OTEL_PROPAGATORS";
        let Some(list) = self.value(name) else { return Propagation::default() };
        let (mut is_any_known, mut propagators) = (false, Vec::new());
        for propagator in list.split(',').map(str::trim).filter(|propagator| !propagator.is_empty()) {
            let known = match propagator {
                "tracecontext" => Some(Propagator::TraceContext),
                "xray" => Some(Propagator::Xray),
                "baggage" | "none" => None,
                other => {
                    let known = "tracecontext, baggage, xray and none";
                    self.ignore(name, format!("{other:?} is not one of {known}"));
                    continue;
                }
            };
            is_any_known = true;
            // The specification has each count once.
            propagators.extend(known.filter(|known| !propagators.contains(known)));
        }
        if is_any_known { Propagation::from(&propagators[..]) } else { Propagation::default() }
    }

    fn sampler(&mut self) -> Sampler {
        let name = self.value("OTEL_TRACES_SAMPLER").unwrap_or_default();
        match name.as_str() {
            "" | "parentbased_always_on" => {}
            "always_on" => return Sampler::AlwaysOn,
            "always_off" => return Sampler::AlwaysOff,
            "parentbased_always_off" => return Sampler::ParentBased(Box::new(Sampler::AlwaysOff)),
            "traceidratio" => return Sampler::TraceIdRatioBased(self.share()),
            "parentbased_traceidratio" => {
                return Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(self.share())));
            }
            other => {
                let known = SAMPLERS.join(", ");
                self.ignore("OTEL_TRACES_SAMPLER", format!("{other:?} is not one of {known}"));
            }
        }
        Sampler::ParentBased(Box::new(Sampler::AlwaysOn))
    }

    fn share(&mut self) -> f64 {
        let name = "OTEL_TRACES_SAMPLER_ARG";
        let Some(text) = self.value(name) else { return 1.0 };
        match text.parse() {
            Ok(share) if (0.0..=1.0).contains(&share) => share,
            _ => {
                self.ignore(name, format!("{text:?} is not a number of 0 to 1"));
                1.0
            }
        }
    }

    /// What the SDK reads itself, and ignores in silence.
    fn check_the_sdks_own(&mut self) {
        for name in known::MILLISECONDS {
            self.number(name, MAX_MILLISECONDS);
        }
        for name in known::NUMBERS {
            self.number(name, u32::MAX.into());
        }
        for (names, words) in known::WORDS {
            for name in names {
                let Some(value) = self.value(name) else { continue };
                if !words.iter().any(|word| value.eq_ignore_ascii_case(word)) {
                    self.ignore(name, format!("{value:?} is not one of {}", words.join(", ")));
                }
            }
        }
        for name in known::LISTS {
            let Some(list) = self.value(name) else { continue };
            let is_pair = |pair: &str| pair.split_once('=').is_some_and(|(name, _)| !name.trim().is_empty());
            let wrong = list.split_terminator(',').filter(|pair| !is_pair(pair)).count();
            if wrong > 0 {
                // They may be a collector's password.
                self.ignore(name, format!("not NAME=VALUE,NAME=VALUE: {wrong} of it have no = or no name"));
            }
        }
    }
}

impl<F: Fn(&str) -> Option<String>> Reader<F> {
    /// What the specification has, and this program not.
    fn tell_of_what_is_not_honoured(&mut self) {
        for (name, why) in known::NOT_HONOURED {
            if self.value(name).is_some() {
                self.ignore(name, format!("not honoured: {why}"));
            }
        }
    }
}

fn is_url(text: &str) -> bool {
    text.parse::<http::Uri>()
        .is_ok_and(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
}

/// Those of the SDK.
const SAMPLERS: [&str; 6] = [
    "always_on",
    "always_off",
    "traceidratio",
    "parentbased_always_on",
    "parentbased_always_off",
    "parentbased_traceidratio",
];
/// Some 100 MB of spans.
const MAX_QUEUE: u64 = 65_536;
/// A day.
const MAX_MILLISECONDS: u64 = 86_400_000;
// The specification's defaults.
const QUEUE: u64 = 2_048;
const BATCH: u64 = 512;
const DELAY: u64 = 5_000;
const TIMEOUT: u64 = 30_000;

#[cfg(test)]
mod tests {
    //! Whatever the variables are, they are read; what makes no sense is named and changes nothing.

    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn read(set: &BTreeMap<String, String>) -> (String, Vec<Ignored>) {
        let (variables, ignored) = Variables::read(|name| set.get(name).cloned());
        (format!("{variables:?}"), ignored)
    }

    fn set(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    const ENDPOINT: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318");

    #[test]
    fn a_value_that_makes_no_sense_is_as_if_it_were_not_there() {
        let without = read(&set(&[ENDPOINT])).0;
        let ratio = read(&set(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio")])).0;
        for (name, value) in [
            ("OTEL_SDK_DISABLED", "yes"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_METRICS_EXPORTER", "console"),
            ("OTEL_LOGS_EXPORTER", "console"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "lzma"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
            ("OTEL_SPAN_LINK_COUNT_LIMIT", "few"),
            ("OTEL_BLRP_SCHEDULE_DELAY", "1s"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "tcp"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "collector:4317"),
            ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "no url"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_PROPAGATORS", "b3"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "many"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "0"),
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "1.5"),
            ("OTEL_METRIC_EXPORT_INTERVAL", "abc"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "abc"),
            ("OTEL_RESOURCE_ATTRIBUTES", "a"),
        ] {
            let (variables, ignored) = read(&set(&[ENDPOINT, (name, value)]));
            assert_eq!(variables, without, "{name}={value}");
            assert_eq!(ignored.iter().map(|ignored| &*ignored.variable).collect::<Vec<_>>(), [name]);
            let none = read(&set(&[ENDPOINT, (name, "")]));
            assert_eq!(none, (without.clone(), Vec::new()), "{name} is empty");
        }
        let wrong =
            set(&[ENDPOINT, ("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")]);
        let (variables, ignored) = read(&wrong);
        assert_eq!((variables, ignored.len()), (ratio, 1));
    }

    #[test]
    fn what_may_be_a_password_is_not_shown() {
        let (_, ignored) = read(&set(&[ENDPOINT, ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2")]));
        assert!(!ignored[0].to_string().contains("hunter2"), "{}", ignored[0]);
    }

    #[test]
    fn each_signal_has_its_own_address() {
        let collector = |variables: &[(&str, &str)]| {
            let set = set(variables);
            let (variables, ignored) = Variables::read(|name| set.get(name).cloned());
            assert_eq!(ignored, []);
            variables.describe()
        };
        assert_eq!(
            collector(&[ENDPOINT]),
            "spans to http://127.0.0.1:4318/v1/traces (http/protobuf), metrics to http://127.0.0.1:4318/v1/metrics (http/protobuf)"
        );
        assert_eq!(
            collector(&[
                ENDPOINT,
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
                ("OTEL_METRICS_EXPORTER", "none")
            ]),
            "spans to http://127.0.0.1:4318 (grpc)"
        );
        assert_eq!(
            collector(&[
                ("OTEL_EXPORTER_OTLP_LOGS_ENDPOINT", "http://logs.example/v1/logs"),
                ("OTEL_LOGS_EXPORTER", "otlp")
            ]),
            "log lines to http://logs.example/v1/logs (http/protobuf)"
        );
        let own = ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "https://metrics.example/in");
        assert_eq!(collector(&[own]), "metrics to https://metrics.example/in (http/protobuf)");
        assert!(collector(&[ENDPOINT, ("OTEL_SDK_DISABLED", "true")]).starts_with("nothing"));
    }

    #[test]
    fn propagators_are_those_that_are_named() {
        let of = |list: &str| {
            let set = set(&[("OTEL_PROPAGATORS", list)]);
            let (variables, ignored) = Variables::read(|name| set.get(name).cloned());
            (format!("{:?}", variables.propagation), ignored.len())
        };
        for (list, propagators, ignored) in [
            ("", "[TraceContext]", 0),
            ("tracecontext,baggage", "[TraceContext]", 0),
            ("xray", "[Xray]", 0),
            ("xray, tracecontext,xray", "[Xray, TraceContext]", 0),
            ("baggage", "[]", 0),
            ("none", "[]", 0),
            ("b3,jaeger", "[TraceContext]", 2),
            ("b3,xray,b3", "[Xray]", 1),
        ] {
            assert_eq!(of(list), (propagators.to_owned(), ignored), "{list}");
        }
    }

    proptest! {
        #[test]
        fn whatever_they_are_they_are_read(
            values in prop::collection::btree_map("OTEL_(BSP_MAX_QUEUE_SIZE|PROPAGATORS|TRACES_SAMPLER|EXPORTER_OTLP_(ENDPOINT|HEADERS))", ".{0,20}", 0..5)
        ) {
            let (_, ignored) = read(&values);
            for ignored in ignored {
                prop_assert!(values.contains_key(&ignored.variable));
            }
        }
    }
}
