//! Proves: the names of telemetry in the code are those of `telemetry/registry`, none more and none less, and docs/telemetry.md
//! describes them as the registry does. What a run sends is held to the registry in tests/telemetry.rs and tests/metrics.rs.

#[path = "peers/mod.rs"]
mod peers;
#[path = "support/registry.rs"]
mod registry;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use peers::root;
use registry::Registry;

#[test]
fn the_code_names_what_the_registry_declares() {
    let registry = Registry::read(root());
    let declared: BTreeSet<String> = registry
        .attributes
        .keys()
        .cloned()
        .chain(registry.metrics.iter().map(|metric| metric.name.clone()))
        .filter(|name| name.starts_with(PREFIX))
        .collect();
    let mut named = BTreeSet::new();
    for file in sources(&root().join("broker")) {
        let text = fs::read_to_string(&file).expect("a source");
        let words = text.split('"').filter(|word| is_name(word));
        named.extend(words.map(str::to_owned));
    }
    assert_eq!(named, declared);
}

#[test]
fn the_documentation_describes_what_the_registry_declares() {
    let (registry, path) = (Registry::read(root()), root().join("docs/telemetry.md"));
    let text = fs::read_to_string(&path).expect("it is there");
    let mut made = text.clone();
    for (name, table) in [
        ("resource", resource(&registry)),
        ("spans", spans(&registry)),
        ("attributes", attributes(&registry)),
        ("metrics", metrics(&registry)),
    ] {
        let (begin, end) = (format!("<!-- {name}: made from telemetry/registry -->\n"), "<!-- end -->");
        let (before, rest) = made.split_once(&begin).unwrap_or_else(|| panic!("{begin} is missing"));
        let (_, after) = rest.split_once(end).expect("an end");
        made = format!("{before}{begin}{table}{end}{after}");
    }
    if std::env::var_os("KEY_BROKER_MAKE_DOCS").is_some() {
        fs::write(&path, &made).expect("writes");
        return;
    }
    assert!(
        text == made,
        "docs/telemetry.md is not what telemetry/registry says; make it again: \
         KEY_BROKER_MAKE_DOCS=1 cargo test -p key-broker --test vocabulary"
    );
}

fn resource(registry: &Registry) -> String {
    let mut table = String::from("\n| attribute | what |\n|---|---|\n");
    for name in &registry.resource {
        writeln!(table, "| `{name}` | {} |", registry.brief(name)).expect("text");
    }
    table + "\n"
}

fn spans(registry: &Registry) -> String {
    let mut table = String::from("\n| span | kind | what | attributes |\n|---|---|---|---|\n");
    for span in &registry.spans {
        let told = [&*span.brief, ". ", &span.note].concat();
        let told = told.trim_end_matches([' ', '.']);
        let named: Vec<String> = span.attributes.iter().map(|name| format!("`{name}`")).collect();
        writeln!(table, "| `{}` | {} | {told} | {} |", span.name, span.kind, named.join(", ")).expect("text");
    }
    table + "\n"
}

fn attributes(registry: &Registry) -> String {
    let mut names: Vec<&String> = Vec::new();
    for name in registry.spans.iter().flat_map(|span| &span.attributes) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut table = String::from("\n| attribute | what |\n|---|---|\n");
    for name in names {
        writeln!(table, "| `{name}` | {} |", registry.brief(name)).expect("text");
    }
    table + "\n"
}

fn metrics(registry: &Registry) -> String {
    let mut table = String::from(
        "\n| OpenTelemetry | Prometheus | type | unit | attributes | meaning |\n|---|---|---|---|---|---|\n",
    );
    for metric in &registry.metrics {
        let meaning = [&*metric.brief, ". ", &metric.note].concat();
        let meaning = meaning.trim_end_matches([' ', '.']);
        let named: Vec<String> = metric
            .attributes
            .iter()
            .map(|name| match registry.attributes.get(name).and_then(registry::Attribute::members) {
                Some(members) => {
                    let members: Vec<String> =
                        members.iter().map(|(value, brief)| format!("`{value}` ({brief})")).collect();
                    format!("`{name}`: {}", members.join(", "))
                }
                None => format!("`{name}`"),
            })
            .collect();
        writeln!(
            table,
            "| `{}` | `{}` | {} | {} | {} | {meaning} |",
            metric.name,
            metric.prometheus_name(),
            metric.instrument,
            metric.unit,
            named.join("; ")
        )
        .expect("text");
    }
    table + "\n"
}

/// The sources of all crates, but not their tests.
fn sources(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).expect("a directory").map(|entry| entry.expect("an entry").path());
    let is_source = |path: &PathBuf| {
        path.extension().is_some_and(|extension| extension == "rs") && !path.ends_with("tests.rs")
    };
    entries
        .flat_map(|path| match path.is_dir() {
            true if path.ends_with("tests") => Vec::new(),
            true => sources(&path),
            false => vec![path],
        })
        .filter(is_source)
        .collect()
}

fn is_name(word: &str) -> bool {
    word.strip_prefix(PREFIX).is_some_and(|rest| {
        !rest.is_empty() && rest.chars().all(|c| c.is_ascii_lowercase() || "._".contains(c))
    })
}

const PREFIX: &str = "keybroker.";
