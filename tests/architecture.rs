//! Proves: no module of a crate under broker/ imports in a circle with another at its own level, no source file is too long to hold
//! one idea, no function too long to be read at a glance, few items are public, and the crates depend on one another in the
//! direction that docs/architecture.md shows.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Modules at one level, by the path of their parent: who imports whom, and where.
type Imports = BTreeMap<Vec<String>, BTreeMap<String, BTreeMap<String, String>>>;

#[test]
fn modules_of_one_level_do_not_import_in_a_circle() {
    let mut circles = Vec::new();
    for source in sources() {
        for (parent, imports) in imports(&source) {
            let mut seen = BTreeSet::new();
            for module in imports.keys() {
                if let Some(circle) = circle_from(module, &imports, &mut seen) {
                    circles.push(format!("{}: {}: {circle}", source.display(), parent.join("::")));
                }
            }
        }
    }
    assert!(circles.is_empty(), "{}", circles.join("\n"));
}

#[test]
fn circles_are_found_where_there_are_some() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().expect("a folder")).expect("makes");
        fs::write(path, text).expect("writes");
    };
    file("lib.rs", "mod a;\nmod b;\nmod c;\n");
    file("a.rs", "mod inner;\nuse crate::{c, b::{One, Two}};\n");
    file("a/inner.rs", "use super::super::b;\n");
    file("b.rs", "// crate::a\nfn f() { let _ = \"crate::a\"; }\n");
    file("c.rs", "fn f() { super::b::g() }\n");
    let all = imports(dir.path());
    let top = &all[&Vec::new()];
    assert!(circle_from("a", top, &mut BTreeSet::new()).is_none(), "{top:?}");
    file("b.rs", "fn f() { crate::c::g() }\n");
    let all = imports(dir.path());
    let circle = circle_from("b", &all[&Vec::new()], &mut BTreeSet::new()).expect("b and c");
    assert!(circle.contains("b -> c") && circle.contains("c -> b"), "{circle}");
}

#[test]
fn files_hold_one_idea() {
    let mut long = Vec::new();
    for source in sources() {
        for file in files(&source) {
            let lines = fs::read_to_string(&file).expect("reads").lines().count();
            if lines > MAX_LINES {
                long.push(format!("{}: {lines} lines", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "more than {MAX_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn functions_are_read_at_a_glance() {
    let mut long = Vec::new();
    for file in sources().iter().flat_map(|source| files(source)) {
        let text = fs::read_to_string(&file).expect("reads");
        for (name, lines) in functions(&text) {
            if lines > MAX_FUNCTION_LINES {
                long.push(format!("{}: {name}: {lines} lines", file.display()));
            }
        }
    }
    assert!(long.is_empty(), "more than {MAX_FUNCTION_LINES} lines:\n{}", long.join("\n"));
}

#[test]
fn functions_are_measured_from_their_name_to_their_last_brace() {
    let text = "trait T {\n    fn a(\n        &self,\n    ) -> u8;\n    fn b() {}\n}\n\npub(crate) async fn c()\nwhere\n    u8: Sized,\n{\n    \
                if true {\n    }\n}\n#[cfg(test)]\nmod tests {\n    fn d() {\n    }\n}\n";
    let expected = [("a", 3), ("b", 1), ("c", 7)].map(|(name, lines)| (name.to_owned(), lines));
    assert_eq!(functions(text), expected);
}

/// What is public binds whoever depends on the crate; and what only tests need is not public at all.
#[test]
fn few_items_are_public() {
    let kinds = [
        "fn",
        "async fn",
        "const fn",
        "unsafe fn",
        "struct",
        "enum",
        "trait",
        "type",
        "const",
        "static",
        "mod",
        "use",
    ];
    let is_public = |line: &str| {
        let item = line.trim_start().strip_prefix("pub ");
        item.is_some_and(|item| {
            kinds.iter().any(|kind| item.strip_prefix(kind).is_some_and(|rest| rest.starts_with(' ')))
        })
    };
    let text = |file: PathBuf| fs::read_to_string(file).expect("reads");
    let public: usize = sources()
        .iter()
        .flat_map(|source| files(source))
        .map(|file| text(file).lines().filter(|line| is_public(line)).count())
        .sum();
    assert!(public < MAX_PUBLIC_ITEMS, "{public} public items under broker/");
}

#[test]
fn crates_depend_downwards_only() {
    let order = ["core", "authority", "envelope", "trail", "sidecar"];
    for (place, name) in order.iter().enumerate() {
        let manifest =
            fs::read_to_string(root().join("broker").join(name).join("Cargo.toml")).expect("reads");
        for above in &order[place..] {
            let package =
                if *above == "sidecar" { "key-broker".to_owned() } else { format!("key-broker-{above}") };
            let dependencies = manifest.split("[dev-dependencies]").next().unwrap_or_default();
            let depends = dependencies.lines().any(|line| line.starts_with(&format!("{package}.")));
            assert!(!depends, "broker/{name} depends on broker/{above}");
        }
    }
}

/// A test file that cargo is not told of would never run.
#[test]
fn every_test_file_is_a_target() {
    let manifest = fs::read_to_string(root().join("broker/sidecar/Cargo.toml")).expect("reads");
    for entry in fs::read_dir(root().join("tests")).expect("reads") {
        let path = entry.expect("reads").path();
        if path.extension().is_some_and(|extension| extension == "rs") {
            let name = path.file_name().and_then(|name| name.to_str()).expect("text").to_owned();
            assert!(manifest.contains(&format!("/tests/{name}\"")), "{name} is no target");
        }
    }
}

/// The `src` folders of all crates under broker/.
fn sources() -> Vec<PathBuf> {
    let crates = fs::read_dir(root().join("broker")).expect("reads");
    let mut sources: Vec<_> = crates.map(|entry| entry.expect("reads").path().join("src")).collect();
    sources.sort();
    assert!(sources.len() >= 5, "{sources:?}");
    sources
}

/// The repository: these tests are of the package broker/sidecar.
fn root() -> &'static Path {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).ancestors().find(|dir| dir.join("Cargo.lock").exists());
    top.expect("a package is in its workspace")
}

/// The source files under `folder`, tests left out.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("reads") {
        let path = entry.expect("reads").path();
        let is_tests = path.file_stem().is_some_and(|stem| stem == "tests");
        if path.is_dir() && !is_tests {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") && !is_tests {
            found.push(path);
        }
    }
    found
}

/// The functions of formatted Rust text, with their numbers of lines; those of its unit tests left out.
fn functions(text: &str) -> Vec<(String, usize)> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let lines: Vec<_> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let Some(name) = function_name(line) else { continue };
        let indent = &line[..line.len() - line.trim_start().len()];
        let ends = |line: &&str| {
            let rest = line.strip_prefix(indent);
            rest.is_some_and(|rest| rest == "}" || (rest.starts_with(')') && rest.ends_with(';')))
        };
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        let end = if is_one_line { 0 } else { lines[at..].iter().position(ends).expect("it ends") };
        found.push((name, end + 1));
    }
    found
}

fn function_name(line: &str) -> Option<String> {
    let mut words = line.split_whitespace().skip_while(|word| {
        word.starts_with("pub") || word.ends_with(')') || matches!(*word, "const" | "async" | "unsafe")
    });
    let name = (words.next()? == "fn").then(|| words.next())??;
    Some(name.split(['(', '<']).next().unwrap_or_default().to_owned())
}

/// Which modules of each level import which others of the same level.
fn imports(source: &Path) -> Imports {
    let mut imports = Imports::new();
    let paths: Vec<_> = files(source).into_iter().map(|file| (module(source, &file), file)).collect();
    let modules: BTreeSet<_> = paths.iter().map(|(module, _)| module.clone()).collect();
    for (own, file) in &paths {
        let text = fs::read_to_string(file).expect("reads");
        for path in used_paths(&tokens(&text), own) {
            // Where the two part: the modules on each side are of one level.
            let level = own.iter().zip(&path).take_while(|(mine, theirs)| mine == theirs).count();
            let (Some(mine), Some(theirs)) = (own.get(level), path.get(level)) else { continue };
            if modules.contains(&path[..=level]) {
                let level = imports.entry(own[..level].to_vec()).or_default();
                let place = file.strip_prefix(source).unwrap_or(file).display().to_string();
                level.entry(mine.clone()).or_default().entry(theirs.clone()).or_insert(place);
                level.entry(theirs.clone()).or_default();
            }
        }
    }
    imports
}

/// The path of a file's module in its crate.
fn module(source: &Path, file: &Path) -> Vec<String> {
    let inside = file.strip_prefix(source).expect("inside").with_extension("");
    let parts = inside.iter().map(|part| part.to_str().expect("text").to_owned());
    parts.filter(|part| part != "lib" && part != "main").collect()
}

/// Words, `::`, braces and commas of Rust text, without comments, strings and the unit tests at its end.
fn tokens(text: &str) -> Vec<String> {
    let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap_or_default();
    let mut tokens = Vec::new();
    for line in text.lines() {
        let line = line.split("//").next().unwrap_or_default();
        for (place, code) in line.split('"').enumerate() {
            if place % 2 == 1 {
                continue;
            }
            let mut word = String::new();
            for (at, c) in code.char_indices() {
                if c.is_alphanumeric() || c == '_' {
                    word.push(c);
                    continue;
                }
                if !word.is_empty() {
                    tokens.push(std::mem::take(&mut word));
                }
                if code[at..].starts_with("::") {
                    tokens.push("::".to_owned());
                } else if matches!(c, '{' | '}' | ',' | ';') {
                    tokens.push(c.to_string());
                }
            }
            if !word.is_empty() {
                tokens.push(word);
            }
        }
    }
    tokens
}

/// The paths that begin with `crate` or `super`, from the crate's root.
fn used_paths(tokens: &[String], own: &[String]) -> Vec<Vec<String>> {
    let mut found = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let starts = at == 0 || tokens[at - 1] != "::";
        let base = match token.as_str() {
            "crate" => Vec::new(),
            "super" => own[..own.len().saturating_sub(1)].to_vec(),
            _ => continue,
        };
        if starts && tokens.get(at + 1).is_some_and(|next| next == "::") {
            follow(&tokens[at + 2..], base, &mut found);
        }
    }
    found
}

/// Follows one path, or a tree of them, from behind a `::`. Returns how many tokens that took.
fn follow(tokens: &[String], mut path: Vec<String>, found: &mut Vec<Vec<String>>) -> usize {
    let mut at = 0;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    if tokens[at] == "," {
                        at += 1;
                    } else {
                        at += follow(&tokens[at..], path.clone(), found).max(1);
                    }
                }
                return at + 1;
            }
            "super" => drop(path.pop()),
            word => path.push(word.to_owned()),
        }
        at += 1;
        if tokens.get(at).is_none_or(|token| token != "::") {
            break;
        }
        at += 1;
    }
    found.push(path);
    at
}

/// A way from `start` back to itself, if there is one.
fn circle_from(
    start: &str,
    imports: &BTreeMap<String, BTreeMap<String, String>>,
    seen: &mut BTreeSet<String>,
) -> Option<String> {
    fn walk(
        at: &str,
        start: &str,
        imports: &BTreeMap<String, BTreeMap<String, String>>,
        visited: &mut BTreeSet<String>,
    ) -> Option<Vec<String>> {
        for (next, place) in imports.get(at)? {
            let step = format!("{at} -> {next} ({place})");
            if next == start {
                return Some(vec![step]);
            }
            if visited.insert(next.clone())
                && let Some(mut way) = walk(next, start, imports, visited)
            {
                way.insert(0, step);
                return Some(way);
            }
        }
        None
    }
    if seen.contains(start) {
        return None;
    }
    let mut visited = BTreeSet::new();
    let way = walk(start, start, imports, &mut visited)?;
    seen.extend(visited);
    Some(way.join(", "))
}

/// A file that is longer holds more than one idea.
const MAX_LINES: usize = 500;
/// A function that is longer does not fit a screen.
const MAX_FUNCTION_LINES: usize = 70;
/// Of all crates under broker/ together.
const MAX_PUBLIC_ITEMS: usize = 349;
