//! Every variable that the specification calls general, and those of OTLP: which are honoured, by this program or by the SDK, and which
//! are not, and why. docs/telemetry.md has the same in a table.

/// What the SDK reads itself, in milliseconds.
pub(super) const MILLISECONDS: [&str; 8] = [
    "OTEL_METRIC_EXPORT_INTERVAL",
    "OTEL_METRIC_EXPORT_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TIMEOUT",
    "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT",
    "OTEL_EXPORTER_OTLP_METRICS_TIMEOUT",
    "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT",
    "OTEL_BLRP_SCHEDULE_DELAY",
    "OTEL_BLRP_EXPORT_TIMEOUT",
];

/// Other numbers that it reads.
pub(super) const NUMBERS: [&str; 5] = [
    "OTEL_BLRP_MAX_QUEUE_SIZE",
    "OTEL_BLRP_MAX_EXPORT_BATCH_SIZE",
    "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
    "OTEL_SPAN_EVENT_COUNT_LIMIT",
    "OTEL_SPAN_LINK_COUNT_LIMIT",
];

/// Words that it reads.
pub(super) const WORDS: [(&[&str], &[&str]); 2] = [
    (
        &[
            "OTEL_EXPORTER_OTLP_COMPRESSION",
            "OTEL_EXPORTER_OTLP_TRACES_COMPRESSION",
            "OTEL_EXPORTER_OTLP_METRICS_COMPRESSION",
            "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION",
        ],
        &["gzip", "none"],
    ),
    (&["OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"], &["cumulative", "delta", "lowmemory"]),
];

/// Lists of pairs.
pub(super) const LISTS: [&str; 5] = [
    "OTEL_EXPORTER_OTLP_HEADERS",
    "OTEL_EXPORTER_OTLP_TRACES_HEADERS",
    "OTEL_EXPORTER_OTLP_METRICS_HEADERS",
    "OTEL_EXPORTER_OTLP_LOGS_HEADERS",
    "OTEL_RESOURCE_ATTRIBUTES",
];

/// Variables without effect here; setting one is logged.
pub(super) const NOT_HONOURED: [(&str, &str); 37] = [
    ("OTEL_EXPORTER_OTLP_CERTIFICATE", AUTHORITIES),
    ("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE", AUTHORITIES),
    ("OTEL_EXPORTER_OTLP_METRICS_CERTIFICATE", AUTHORITIES),
    ("OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE", AUTHORITIES),
    ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_CERTIFICATE", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_CERTIFICATE", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_CLIENT_KEY", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_METRICS_CLIENT_KEY", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_LOGS_CLIENT_KEY", NO_CLIENT_CERTIFICATE),
    ("OTEL_EXPORTER_OTLP_INSECURE", SCHEME),
    ("OTEL_EXPORTER_OTLP_TRACES_INSECURE", SCHEME),
    ("OTEL_EXPORTER_OTLP_METRICS_INSECURE", SCHEME),
    ("OTEL_EXPORTER_OTLP_LOGS_INSECURE", SCHEME),
    // Obsolete names of two of them.
    ("OTEL_EXPORTER_OTLP_SPAN_INSECURE", SCHEME),
    ("OTEL_EXPORTER_OTLP_METRIC_INSECURE", SCHEME),
    ("OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION", "bounds are those of docs/telemetry.md"),
    ("OTEL_METRICS_EXEMPLAR_FILTER", "the SDK has no exemplars"),
    ("OTEL_EXPORTER_PROMETHEUS_HOST", PROMETHEUS),
    ("OTEL_EXPORTER_PROMETHEUS_PORT", PROMETHEUS),
    ("OTEL_EXPORTER_ZIPKIN_ENDPOINT", ZIPKIN),
    ("OTEL_EXPORTER_ZIPKIN_TIMEOUT", ZIPKIN),
    ("OTEL_EXPORTER_ZIPKIN_PROTOCOL", ZIPKIN),
    ("OTEL_LOG_LEVEL", "KEY_BROKER_LOG says which lines are written"),
    ("OTEL_CONFIG_FILE", NO_FILE),
    ("OTEL_EXPERIMENTAL_CONFIG_FILE", NO_FILE),
    ("OTEL_ENTITIES", "OTEL_RESOURCE_ATTRIBUTES says who tells"),
    ("OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT", LIMITS),
    ("OTEL_ATTRIBUTE_COUNT_LIMIT", LIMITS),
    ("OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT", LIMITS),
    ("OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT", LIMITS),
    ("OTEL_LINK_ATTRIBUTE_COUNT_LIMIT", LIMITS),
    ("OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT", LIMITS),
    ("OTEL_LOGRECORD_ATTRIBUTE_COUNT_LIMIT", LIMITS),
    ("OTEL_BSP_MAX_CONCURRENT_EXPORTS", "batches are sent one after the other"),
];

const AUTHORITIES: &str = "the system's authorities count, or those in the file that SSL_CERT_FILE names";
const NO_CLIENT_CERTIFICATE: &str = "the broker shows a collector no certificate: give a header, or a proxy";
const SCHEME: &str = "the endpoint says it, with http:// or https://";
const PROMETHEUS: &str = "telemetry.http of the configuration says where metrics are read";
const ZIPKIN: &str = "spans go out over OTLP only";
const NO_FILE: &str = "telemetry is configured by variables only";
const LIMITS: &str = "the SDK for Rust has no such limit, and attributes here are few and short";

#[cfg(test)]
mod tests {
    //! Operators read which variables count: those that are looked at, and no others.

    use std::collections::BTreeSet;

    use super::*;

    /// What this program reads itself.
    const OWN: [&str; 25] = [
        "OTEL_SDK_DISABLED",
        "OTEL_SERVICE_NAME",
        "OTEL_PROPAGATORS",
        "OTEL_TRACES_SAMPLER",
        "OTEL_TRACES_SAMPLER_ARG",
        "OTEL_TRACES_EXPORTER",
        "OTEL_METRICS_EXPORTER",
        "OTEL_LOGS_EXPORTER",
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL",
        "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL",
        "OTEL_BSP_MAX_QUEUE_SIZE",
        "OTEL_BSP_MAX_EXPORT_BATCH_SIZE",
        "OTEL_BSP_SCHEDULE_DELAY",
        "OTEL_BSP_EXPORT_TIMEOUT",
        "OTEL_METRIC_EXPORT_INTERVAL",
        "OTEL_METRIC_EXPORT_TIMEOUT",
        "OTEL_RESOURCE_ATTRIBUTES",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_EXPORTER_OTLP_TIMEOUT",
    ];

    fn table<'a>(text: &'a str, name: &str) -> BTreeSet<&'a str> {
        let (_, table) = text.split_once(&format!("<!-- variables: {name} -->")).expect("the table");
        let (table, _) = table.split_once("<!-- end -->").expect("its end");
        let cells = table.lines().filter_map(|line| line.strip_prefix("| ")?.split(" | ").next());
        cells.flat_map(|cell| cell.split('`').filter(|word| word.starts_with("OTEL_"))).collect()
    }

    #[test]
    fn the_documented_tables_have_every_variable() {
        let text = include_str!("../../../../../../docs/telemetry.md");
        let words = WORDS.iter().flat_map(|(names, _)| *names).copied();
        let honoured: BTreeSet<_> =
            OWN.into_iter().chain(MILLISECONDS).chain(NUMBERS).chain(LISTS).chain(words).collect();
        assert_eq!(table(text, "honoured"), honoured);
        let not_honoured: BTreeSet<_> = NOT_HONOURED.iter().map(|(name, _)| *name).collect();
        assert_eq!(table(text, "not honoured"), not_honoured);
        assert!(honoured.is_disjoint(&not_honoured));
    }
}
