//! OTLP's JSON, as the Collector's exporter writes it to a file: each request of an export is a line.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value, json};

/// All requests until now, taken apart.
#[derive(Default)]
pub struct Received {
    /// How far the file has been read: whole lines only.
    pub until: u64,
    /// Spans without ids by the name `mark`: `Collector::send_mark` sends them.
    pub marks: usize,
    pub spans: Vec<Span>,
    pub metrics: Vec<Value>,
    pub log_lines: usize,
}

/// A `service.instance.id`, and attributes in JSON.
pub type Series = (String, String);

/// A span as it was received. Ids are lowercase hexadecimal, as `traceparent` has them.
#[derive(Clone, Debug, PartialEq)]
#[expect(clippy::struct_field_names, reason = "OpenTelemetry's names")]
pub struct Span {
    pub name: String,
    /// INTERNAL, SERVER, CLIENT, PRODUCER or CONSUMER.
    pub kind: String,
    pub trace_id: String,
    pub span_id: String,
    pub parent_span_id: Option<String>,
    /// As the header `tracestate` has it.
    pub trace_state: String,
    /// In nanoseconds since 1970.
    pub start: u64,
    pub end: u64,
    pub attributes: BTreeMap<String, Value>,
    pub links: Vec<Link>,
    pub events: Vec<Event>,
    pub status: Status,
    /// The name of the instrumentation scope.
    pub scope: String,
    /// The attributes of the resource.
    pub resource: BTreeMap<String, Value>,
    /// How many attributes, events and links the sender says that it left out.
    pub dropped: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Link {
    pub trace_id: String,
    pub span_id: String,
    pub trace_state: String,
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    pub time: u64,
    pub attributes: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    /// UNSET, OK or ERROR.
    pub code: String,
    pub message: String,
}

impl Received {
    /// What the file has from `until` on. The last line may not be whole yet.
    pub fn take(&mut self, bytes: &[u8]) {
        for line in bytes.split_inclusive(|byte| *byte == b'\n').filter(|line| line.ends_with(b"\n")) {
            self.until += u64::try_from(line.len()).expect("a length");
            self.take_request(&serde_json::from_slice(line).expect("a line of JSON"));
        }
    }

    /// The last value of each counter, and the count of each histogram, by its name and the instance and attributes of its series.
    pub fn counters(&self) -> BTreeMap<String, BTreeMap<Series, u64>> {
        let mut counters = BTreeMap::<String, BTreeMap<_, _>>::new();
        for metric in &self.metrics {
            let (data, count) = match &metric["sum"] {
                Value::Null => (&metric["histogram"], "count"),
                sum if sum["isMonotonic"] == true => (sum, "asInt"),
                _ => continue,
            };
            for point in list(&data["dataPoints"]) {
                let instance = metric["resource"]["service.instance.id"].to_string();
                let value = text(&point[count]).parse().expect("64-bit numbers are text");
                // They are cumulative: the last one counts.
                let series = counters.entry(text(&metric["name"])).or_default();
                series.insert((instance, json!(attributes(point)).to_string()), value);
            }
        }
        counters
    }

    /// One line of the file: the request of one export.
    fn take_request(&mut self, request: &Value) {
        for of_resource in list(&request["resourceSpans"]) {
            let resource = attributes(&of_resource["resource"]);
            for of_scope in list(&of_resource["scopeSpans"]) {
                let scope = text(&of_scope["scope"]["name"]);
                for span in list(&of_scope["spans"]) {
                    if text(&span["traceId"]).is_empty() && span["name"] == "mark" {
                        self.marks += 1;
                    } else {
                        self.spans.push(Span::of(span, &scope, &resource));
                    }
                }
            }
        }
        for of_resource in list(&request["resourceMetrics"]) {
            let resource = json!(attributes(&of_resource["resource"]));
            for metric in list(&of_resource["scopeMetrics"]).iter().flat_map(|scope| list(&scope["metrics"]))
            {
                let mut metric = metric.clone();
                metric["resource"] = resource.clone();
                self.metrics.push(metric);
            }
        }
        for scope in
            list(&request["resourceLogs"]).iter().flat_map(|of_resource| list(&of_resource["scopeLogs"]))
        {
            self.log_lines += list(&scope["logRecords"]).len();
        }
    }
}

impl Span {
    /// The value of an attribute; null where it has none.
    pub fn attribute(&self, name: &str) -> &Value {
        self.attributes.get(name).unwrap_or(&Value::Null)
    }

    pub fn is_child_of(&self, parent: &Self) -> bool {
        self.trace_id == parent.trace_id && self.parent_span_id.as_ref() == Some(&parent.span_id)
    }

    pub fn links_to(&self, other: &Self) -> bool {
        self.links.iter().any(|link| (&link.trace_id, &link.span_id) == (&other.trace_id, &other.span_id))
    }

    fn of(span: &Value, scope: &str, resource: &BTreeMap<String, Value>) -> Self {
        let counts = ["droppedAttributesCount", "droppedEventsCount", "droppedLinksCount"];
        Self {
            name: text(&span["name"]),
            kind: named(&span["kind"], &KINDS),
            trace_id: id(&span["traceId"], 16),
            span_id: id(&span["spanId"], 8),
            parent_span_id: (!text(&span["parentSpanId"]).is_empty()).then(|| id(&span["parentSpanId"], 8)),
            trace_state: text(&span["traceState"]),
            start: nanoseconds(&span["startTimeUnixNano"]),
            end: nanoseconds(&span["endTimeUnixNano"]),
            attributes: attributes(span),
            links: list(&span["links"]).iter().map(Link::of).collect(),
            events: list(&span["events"]).iter().map(Event::of).collect(),
            status: Status {
                code: named(&span["status"]["code"], &CODES),
                message: text(&span["status"]["message"]),
            },
            scope: scope.to_owned(),
            resource: resource.clone(),
            dropped: counts.iter().filter_map(|count| span[*count].as_u64()).sum(),
        }
    }
}

impl Link {
    fn of(link: &Value) -> Self {
        Self {
            trace_id: id(&link["traceId"], 16),
            span_id: id(&link["spanId"], 8),
            trace_state: text(&link["traceState"]),
            attributes: attributes(link),
        }
    }
}

impl Event {
    fn of(event: &Value) -> Self {
        Self {
            name: text(&event["name"]),
            time: nanoseconds(&event["timeUnixNano"]),
            attributes: attributes(event),
        }
    }
}

/// What OTLP's JSON leaves out is what proto3 has as its default.
fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An enum is a number.
fn named(value: &Value, names: &[&str]) -> String {
    let number = value.as_u64().unwrap_or(0);
    let name = usize::try_from(number).ok().and_then(|number| names.get(number));
    (*name.unwrap_or_else(|| panic!("neither of {names:?}: {value}"))).to_owned()
}

fn nanoseconds(value: &Value) -> u64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no time: {value}"))
}

/// OTLP's JSON has ids in hexadecimal, and not in base64 as other bytes.
fn id(value: &Value, length: usize) -> String {
    let id = text(value);
    let bytes = hex::decode(&id).unwrap_or_default();
    let is_id = bytes.len() == length && bytes.iter().any(|byte| *byte != 0);
    assert!(is_id, "not an id of {length} bytes: {value}");
    id
}

/// OTLP forbids the same key twice.
fn attributes(of: &Value) -> BTreeMap<String, Value> {
    let mut attributes = BTreeMap::new();
    for pair in list(&of["attributes"]) {
        let before = attributes.insert(text(&pair["key"]), value(&pair["value"]));
        assert!(before.is_none(), "the same attribute twice: {of}");
    }
    attributes
}

/// `AnyValue` as plain JSON: whole numbers stay apart from doubles; bytes become `{"base64": …}`.
fn value(any: &Value) -> Value {
    let Some((kind, inner)) = any.as_object().and_then(|object| object.iter().next()) else {
        return Value::Null;
    };
    match kind.as_str() {
        "intValue" => text(inner).parse::<i64>().expect("64-bit numbers are text").into(),
        // NaN and the infinities are text.
        "doubleValue" => {
            inner.as_f64().and_then(Number::from_f64).map_or_else(|| inner.clone(), Value::Number)
        }
        "arrayValue" => list(&inner["values"]).iter().map(value).collect(),
        "kvlistValue" => {
            let pairs = list(&inner["values"]).iter();
            Value::Object(
                pairs.map(|pair| (text(&pair["key"]), value(&pair["value"]))).collect::<Map<_, _>>(),
            )
        }
        "bytesValue" => json!({ "base64": inner }),
        _ => inner.clone(),
    }
}

/// By OTLP's numbers.
const KINDS: [&str; 6] = ["UNSPECIFIED", "INTERNAL", "SERVER", "CLIENT", "PRODUCER", "CONSUMER"];
const CODES: [&str; 3] = ["UNSET", "OK", "ERROR"];
