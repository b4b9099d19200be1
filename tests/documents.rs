//! Proves: no link between the documents leads nowhere, neither to a file nor to a heading; every source that they name is there; and every
//! ADR has a date and a status, and names the ADR that it was replaced by.

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

/// SECURITY.md and docs/threat-model.md name the test behind each promise: by its path, or as much of the end as one needs to find it.
#[test]
fn every_source_that_is_named_is_there() {
    let sources = files("rs");
    let (mut missing, mut seen) = (Vec::new(), 0);
    for document in documents() {
        for line in read(&document).lines() {
            for name in line.split('`').skip(1).step_by(2).filter(|name| is_source(name)) {
                seen += 1;
                if !name.contains("NAME") && !sources.iter().any(|source| source.ends_with(name)) {
                    missing.push(format!("{}: {name}", document.display()));
                }
            }
        }
    }
    assert!(seen > 150 && missing.is_empty(), "of {seen} sources:\n{}", missing.join("\n"));
}

#[test]
fn every_decision_has_a_status_and_a_date_and_names_its_successor() {
    let decisions: Vec<_> = documents()
        .into_iter()
        .filter(|path| path.parent().is_some_and(|dir| dir.ends_with("docs/adr")))
        .collect();
    for decision in &decisions {
        let status = status(&read(decision)).unwrap_or_else(|told| panic!("{}: {told}", decision.display()));
        for number in status.successors {
            let successor = decisions.iter().find(|path| number_of(path) == Some(number.clone()));
            let successor = read(successor.unwrap_or_else(|| panic!("{}: no {number}", decision.display())));
            let back = number_of(decision).expect("a number");
            let back = back.trim_start_matches('0');
            assert!(
                successor.contains(&format!("ADR {back}")),
                "ADR {number} does not say that it replaces {back}"
            );
        }
    }
}

#[test]
fn statuses_are_read() {
    let of = |line: &str| status(&format!("# 7. Title\n\nStatus: {line}\n")).map(|status| status.successors);
    assert_eq!(of("accepted, 2026-11-21."), Ok(Vec::new()));
    assert_eq!(
        of("superseded in part by [ADR 21](0021-a.md), 2026-11-21. More."),
        Ok(vec!["0021".to_owned()])
    );
    for bad in ["accepted", "done, 2026-11-21", "superseded, 2026-11-21", "accepted, 2026-1-1"] {
        assert!(of(bad).is_err(), "{bad}");
    }
}

fn is_source(name: &str) -> bool {
    Path::new(name).extension() == Some("rs".as_ref())
}

struct Status {
    /// The numbers of the decisions that replace this one, wholly or in part.
    successors: Vec<String>,
}

/// `Status: accepted, DATE`, or `Status: superseded [in part] by [ADR N](NNNN-title.md), DATE`; anything may follow.
fn status(text: &str) -> Result<Status, String> {
    let status = text
        .lines()
        .find_map(|line| line.strip_prefix("Status: "))
        .ok_or("no line begins with \"Status: \"")?;
    let has_date = status.split([' ', ',', '.', ';']).any(|word| {
        word.len() == 10
            && word
                .bytes()
                .enumerate()
                .all(|(i, byte)| if i == 4 || i == 7 { byte == b'-' } else { byte.is_ascii_digit() })
    });
    if !has_date {
        return Err(format!("no date: {status}"));
    }
    let successors = links(status).iter().filter_map(|link| number_of(Path::new(link))).collect::<Vec<_>>();
    match status.split([' ', ',']).next() {
        Some("accepted") if !status.contains("superseded") => Ok(Status { successors: Vec::new() }),
        Some("superseded") if !successors.is_empty() => Ok(Status { successors }),
        _ => Err(format!("neither accepted nor superseded by another: {status}")),
    }
}

/// `0021` of `0021-spans-are-tracings.md`.
fn number_of(decision: &Path) -> Option<String> {
    let number = decision.file_name()?.to_str()?.split('-').next()?;
    (number.len() == 4 && number.bytes().all(|byte| byte.is_ascii_digit())).then(|| number.to_owned())
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
    files("md")
}

/// Every file of the repository with this ending.
fn files(ending: &str) -> Vec<PathBuf> {
    let (mut found, mut folders) = (Vec::new(), vec![root().canonicalize().expect("the repository")]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_foreign = name.starts_with('.') || matches!(name, "target" | "node_modules" | "fixtures");
            if path.is_dir() && !path.is_symlink() && !is_foreign {
                folders.push(path);
            } else if path.extension() == Some(ending.as_ref()) {
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
