//! The broker's HTTP listener asked by hand, and Prometheus's text format read strictly
//! (<https://prometheus.io/docs/instrumenting/exposition_formats/>, "Text-based format").

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::TestBroker;

/// An answer of the HTTP listener.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// With names in lower case, as hyper writes them.
    pub head: String,
    pub body: String,
}

/// One request on a connection of its own.
pub async fn ask(address: SocketAddr, method: &str, path: &str) -> Answer {
    let request = format!("{method} {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    let mut stream = TcpStream::connect(address).await.expect("it listens");
    stream.write_all(request.as_bytes()).await.expect("it reads");
    let mut text = String::new();
    let read = tokio::time::timeout(Duration::from_secs(20), stream.read_to_string(&mut text)).await;
    read.expect("in time").expect("it answers");
    let (head, body) = text.split_once("\r\n\r\n").expect("an HTTP answer");
    let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
    Answer { status, head: head.to_owned(), body: body.to_owned() }
}

/// `/metrics`, read.
pub struct Scrape {
    pub text: String,
    /// Names and types.
    pub families: BTreeMap<String, String>,
    pub samples: Vec<Sample>,
}

#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

impl Scrape {
    pub async fn of(broker: &TestBroker) -> Self {
        let answer = ask(broker.telemetry_address().expect("it listens"), "GET", "/metrics").await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert!(answer.head.contains("content-type: text/plain; version=0.0.4"), "{}", answer.head);
        Self::parse(&answer.body)
    }

    /// Panics at anything that the format does not have.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with('\n'), "the last line ends");
        let mut scrape = Self { text: text.to_owned(), families: BTreeMap::new(), samples: Vec::new() };
        let (mut family, mut seen) = (String::new(), BTreeSet::new());
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("words");
                assert!(is_name(name) && !words.is_empty(), "{line}");
                name.clone_into(&mut family);
            } else if let Some(typed) = line.strip_prefix("# TYPE ") {
                let (name, kind) = typed.split_once(' ').expect("a type");
                assert_eq!(name, family, "HELP stands before TYPE");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(scrape.families.insert(name.to_owned(), kind.to_owned()).is_none(), "twice: {line}");
            } else {
                let sample = Sample::parse(line);
                let base = match scrape.families[&family].as_str() {
                    "histogram" => ["_bucket", "_sum", "_count"]
                        .iter()
                        .find_map(|suffix| sample.name.strip_suffix(suffix))
                        .unwrap_or_else(|| panic!("no part of a histogram: {line}")),
                    _ => &sample.name,
                };
                assert_eq!(base, family, "samples stand below their TYPE");
                assert!(seen.insert((sample.name.clone(), sample.labels.clone())), "twice: {line}");
                scrape.samples.push(sample);
            }
        }
        scrape.check_histograms();
        scrape
    }

    /// The sum of all samples of this name with at least these labels; 0 if there are none.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.find(name, labels).map(|sample| sample.value).sum()
    }

    pub fn find<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&'a str, &'a str)],
    ) -> impl Iterator<Item = &'a Sample> {
        self.samples.iter().filter(move |sample| sample.name == name && sample.has(labels))
    }

    /// Buckets only grow, and the last has everything.
    fn check_histograms(&self) {
        let mut before: Option<&Sample> = None;
        for sample in &self.samples {
            let Some(base) = sample.name.strip_suffix("_bucket") else { continue };
            let le = &sample.labels["le"];
            let mut others = sample.labels.clone();
            others.remove("le");
            if let Some(before) = before.filter(|before| before.name == sample.name)
                && before.labels["le"] != "+Inf"
            {
                assert!(before.value <= sample.value, "{sample:?}");
            }
            if le == "+Inf" {
                let count = format!("{base}_count");
                let is_count = |other: &&Sample| other.name == count && other.labels == others;
                let count = self.samples.iter().find(is_count).expect("a count");
                assert!((count.value - sample.value).abs() < 0.5, "{sample:?}");
            }
            before = Some(sample);
        }
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').expect("closed")),
            None => (series, ""),
        };
        assert!(is_name(name), "{line}");
        let mut found = BTreeMap::new();
        for label in labels.split(',').filter(|label| !label.is_empty()) {
            let (name, value) = label.split_once('=').expect("a label");
            let value = value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).expect("quoted");
            assert!(is_name(name) && !value.contains(['"', '\\', '\n']), "{line}");
            assert!(found.insert(name.to_owned(), value.to_owned()).is_none(), "twice: {line}");
        }
        Self { name: name.to_owned(), labels: found, value: value.parse().expect("a number") }
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|found| found == value))
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
}
