//! A workload that OpenTelemetry's own packages instrument: it calls the broker, and its spans go to a collector.

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use super::collector::{Collector, Protocol};
use super::{Peers, cases, plain, root};

/// A workload that OpenTelemetry's own packages instrument, in Python if nothing else is said.
pub struct Caller<'a> {
    peers: &'a Peers,
    language: Language,
    environment: Vec<(String, String)>,
}

/// What a caller is written in; each has a peer of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Language {
    /// otelgrpc.
    Go,
    /// OpenTelemetry's agent, which knows nothing of the program.
    Java,
    /// OpenTelemetry's SDK for Node, with its instrumentation of gRPC.
    Node,
    /// OpenTelemetry's instrumentation of gRPC: `python-otel/caller.py`.
    Python,
}

impl Language {
    pub const ALL: [Self; 4] = [Self::Go, Self::Java, Self::Node, Self::Python];

    /// What is installed for it.
    pub const fn peer(self) -> &'static str {
        match self {
            Self::Go => "go-otel",
            Self::Java => "java-otel",
            Self::Node => "node-otel",
            Self::Python => "python-otel",
        }
    }

    /// By which its SDK exports if nothing else is said.
    pub const fn protocol(self) -> Protocol {
        match self {
            Self::Go | Self::Python => Protocol::Grpc,
            Self::Java | Self::Node => Protocol::Http,
        }
    }

    fn command(self, peers: &Peers) -> Command {
        let dir = peers.path(self.peer());
        match self {
            Self::Go => plain(dir.join("bin/caller")),
            Self::Java => {
                let mut java = plain("java");
                java.arg(format!("-javaagent:{}", dir.join("agent.jar").display()));
                java.args(["-cp", &format!("{0}/classes:{0}/lib/*", dir.display()), "Caller"]);
                java
            }
            Self::Node => {
                let mut node = plain("node");
                node.env("NODE_PATH", dir.join("node_modules"));
                node.arg(root().join("tests/peers/node-otel/caller.js"));
                node
            }
            Self::Python => script(peers, "caller.py"),
        }
    }
}

/// Calls of one kind; see `caller.py` for the kinds.
#[derive(Clone, Copy, Debug)]
pub struct Calls<'a> {
    pub kind: &'a str,
    pub times: usize,
    /// All together, not one after another.
    pub at_once: bool,
    /// Another key than `alias/dev`.
    pub key: Option<&'a str>,
}

impl<'a> Calls<'a> {
    pub const fn of(kind: &'a str, times: usize) -> Self {
        Self { kind, times, at_once: false, key: None }
    }

    pub const fn at_once(self) -> Self {
        Self { at_once: true, ..self }
    }

    pub const fn with_key(self, key: &'a str) -> Self {
        Self { key: Some(key), ..self }
    }
}

/// What the caller made of it.
#[derive(Debug)]
pub struct Checkout {
    pub trace_id: String,
    /// The span `checkout`, parent of the client span of each call.
    pub span_id: String,
    pub calls: Vec<Called>,
}

/// One call as its caller saw it.
#[derive(Clone, Debug)]
pub struct Called {
    pub kind: String,
    /// `OK`, or gRPC's name of the error.
    pub code: String,
    pub reason: Option<String>,
    pub domain: Option<String>,
    /// `x-request-id`.
    pub request_id: Option<String>,
    /// `x-amzn-requestid`.
    pub kms_request_id: Option<String>,
    pub trace_id: String,
    /// The span of the instrumentation, kind CLIENT: the parent that the broker is told of.
    pub span_id: String,
}

impl<'a> Caller<'a> {
    /// One that sends its own spans to `collector`, as the service `shop`; from the peer `python-otel`.
    pub fn new(peers: &'a Peers, collector: &Collector, protocol: Protocol) -> Self {
        Self { peers, language: Language::Python, environment: Vec::new() }
            .with("OTEL_SERVICE_NAME", "shop")
            .exporting(collector, protocol)
    }

    /// One in this language, with what its SDK does by default; a service that is called like the language's peer.
    pub fn of(language: Language, peers: &'a Peers, collector: &Collector) -> Self {
        Self { peers, language, environment: Vec::new() }
            .with("OTEL_SERVICE_NAME", language.peer())
            .exporting(collector, language.protocol())
    }

    fn exporting(self, collector: &Collector, protocol: Protocol) -> Self {
        let environment = collector.environment(protocol);
        environment.iter().fold(self, |caller, (name, value)| caller.with(name, value))
    }

    /// With another variable, such as `OTEL_TRACES_SAMPLER`.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.environment.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes the calls through the broker at this unix socket, and waits until they and the export are done. In Python they are
    /// children of one span.
    pub fn run(&self, socket: &Path, plan: &[Calls<'_>]) -> Checkout {
        let mut lines = self.lines(socket, plan);
        let checkout = lines.pop().filter(|last| last["kind"] == "checkout").expect("a last line");
        Checkout {
            trace_id: text(&checkout, "traceId"),
            span_id: text(&checkout, "spanId"),
            calls: lines.iter().map(Called::of).collect(),
        }
    }

    /// The same, in whatever language: only what became of the calls.
    pub fn call(&self, socket: &Path, plan: &[Calls<'_>]) -> Vec<Called> {
        let lines = self.lines(socket, plan);
        lines.iter().filter(|line| line["kind"] != "checkout").map(Called::of).collect()
    }

    fn lines(&self, socket: &Path, plan: &[Calls<'_>]) -> Vec<Value> {
        let plan: Value = plan
            .iter()
            .map(|calls| {
                json!({ "kind": calls.kind, "times": calls.times, "at_once": calls.at_once, "key_id": calls.key })
            })
            .collect();
        let mut command = self.language.command(self.peers);
        command.arg(format!("unix:{}", socket.display())).arg(plan.to_string());
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        cases(&mut command)
    }
}

impl Called {
    fn of(line: &Value) -> Self {
        let (text, maybe) = (|name| text(line, name), |name: &str| line[name].as_str().map(str::to_owned));
        Self {
            kind: text("kind"),
            code: text("code"),
            reason: maybe("reason"),
            domain: maybe("domain"),
            request_id: maybe("requestId"),
            kms_request_id: maybe("kmsRequestId"),
            trace_id: text("traceId"),
            span_id: text("spanId"),
        }
    }
}

fn text(line: &Value, name: &str) -> String {
    line[name].as_str().unwrap_or_else(|| panic!("no {name}: {line}")).to_owned()
}

/// One of the scripts that need the peer `python-otel`.
pub fn script(peers: &Peers, name: &str) -> Command {
    let mut command = peers.command("python-otel/bin/python");
    command.env("PYTHONDONTWRITEBYTECODE", "1").arg(root().join("tests/peers/python-otel").join(name));
    command
}
