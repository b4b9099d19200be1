//! Proves: no link between the documents leads nowhere, neither to a file nor to a heading, and every ADR has a status with a date.

#[path = "peers/mod.rs"]
mod peers;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use peers::root;

#[test]
fn every_link_leads_somewhere() {
    let documents = documents();
    assert!(documents.len() > 60, "{}", documents.len());
    let headings: BTreeMap<PathBuf, BTreeSet<String>> =
        documents.iter().map(|path| (path.clone(), anchors(&read(path)))).collect();
    let (mut broken, mut seen) = (Vec::new(), 0);
    for document in &documents {
        for link in links(&read(document)) {
            if link.contains("://") || link.starts_with("mailto:") {
                continue;
            }
            seen += 1;
            let (path, anchor) = link.split_once('#').unwrap_or((&link, ""));
            let folder = document.parent().expect("a folder");
            let target = if path.is_empty() { document.clone() } else { folder.join(path) };
            let Ok(target) = target.canonicalize() else {
                broken.push(format!("{}: {link}: no such file", document.display()));
                continue;
            };
            if !anchor.is_empty() && headings.get(&target).is_some_and(|known| !known.contains(anchor)) {
                broken.push(format!("{}: {link}: no such heading", document.display()));
            }
        }
    }
    assert!(seen > 200 && broken.is_empty(), "of {seen} links:\n{}", broken.join("\n"));
}

#[test]
fn every_decision_has_a_status_and_a_date() {
    let decisions =
        documents().into_iter().filter(|path| path.parent().is_some_and(|dir| dir.ends_with("docs/adr")));
    for decision in decisions {
        let text = read(&decision);
        let status = text.lines().find_map(|line| line.strip_prefix("Status: ")).unwrap_or_else(|| {
            panic!("{} has no line that begins with \"Status: \"", decision.display());
        });
        let has_date = status
            .split(|c: char| !(c.is_ascii_digit() || c == '-'))
            .any(|word| word.len() == 10 && word.split('-').count() == 3);
        assert!(has_date, "{}: {status}", decision.display());
    }
}

#[test]
fn anchors_are_those_of_github() {
    let text = "# One `two`, three\n```\n# no heading\n```\n## When KMS does not answer\n## Twice\n## Twice\n### `[reuse]` & more\n";
    let expected = ["one-two-three", "when-kms-does-not-answer", "twice", "twice-1", "reuse--more"];
    assert_eq!(anchors(text), expected.map(str::to_owned).into());
    let text = "see [a](b.md) and [c](<d e.md>), `[no](link)`\n```\n[no](link)\n```\n[e]( f.md#g \"title\")";
    assert_eq!(links(text), ["b.md", "d e.md", "f.md#g"]);
}

/// Every document of the repository.
fn documents() -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().canonicalize().expect("the repository")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_foreign = name.starts_with('.') || matches!(name, "target" | "node_modules" | "fixtures");
            if path.is_dir() && !path.is_symlink() && !is_foreign {
                folders.push(path);
            } else if path.extension() == Some("md".as_ref()) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("text")
}

/// Lines that are no code.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut is_code = false;
    text.lines().filter(move |line| {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        !is_code && !is_fence
    })
}

/// What `](…)` leads to.
fn links(text: &str) -> Vec<String> {
    let mut links = Vec::new();
    for line in prose(text) {
        // Every second piece is code.
        for piece in line.split('`').step_by(2).collect::<Vec<_>>().join("`").split("](").skip(1) {
            let piece = piece.trim_start();
            let target = match piece.strip_prefix('<') {
                Some(piece) => piece.split('>').next(),
                None => piece.split([')', ' ']).next(),
            };
            links.extend(target.filter(|target| !target.is_empty()).map(str::to_owned));
        }
    }
    links
}

/// The anchors of the headings, as GitHub makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let (mut anchors, mut times) = (BTreeSet::new(), BTreeMap::<String, usize>::new());
    for line in prose(text) {
        let title = line.trim_start_matches('#');
        let Some(title) = title.strip_prefix(' ').filter(|_| line.starts_with('#')) else { continue };
        let slug: String = title
            .trim()
            .to_lowercase()
            .chars()
            .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
            .map(|c| if c == ' ' { '-' } else { c })
            .collect();
        let count = times.entry(slug.clone()).or_default();
        anchors.insert(if *count == 0 { slug } else { format!("{slug}-{count}") });
        *count += 1;
    }
    anchors
}
