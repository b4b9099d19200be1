//! Proves: nothing in the repository reads what lies outside of it, so that a clone anywhere proves the same; and what others made
//! is listed, with its source, in the README beside it.

#[path = "peers/mod.rs"]
mod peers;

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use peers::root;

#[test]
fn no_path_leads_out_of_the_repository() {
    let mut found = Vec::new();
    let mut looked_at = 0;
    for file in files_below(root()) {
        // What is not text has no paths to follow.
        let Ok(text) = fs::read_to_string(&file) else { continue };
        looked_at += 1;
        found.extend(ways_out(&file, &text).map(|path| format!("{}: {path}", file.display())));
    }
    assert!(looked_at > 300, "{looked_at} files are not the repository");
    assert!(found.is_empty(), "these are not in a clone elsewhere:\n{}", found.join("\n"));
}

/// The search finds what it is for, wherever a path is resolved from.
#[test]
fn a_path_that_leads_out_is_found() {
    let out = |file: &str, text: &str| ways_out(&root().join(file), text).count() == 1;
    let up = |levels: usize| format!("{}elsewhere", "../".repeat(levels));
    let joined = |to: &str, levels| format!("{to}.join(\"{}\")", up(levels));
    let manifest = "Path::new(env!(\"CARGO_MANIFEST_DIR\"))";
    for (file, text, is_out) in [
        ("tests/calls.rs", joined("root()", 1), true),
        ("tests/peers/mod.rs", joined("self::root()", 1), true),
        ("tests/calls.rs", joined(manifest, 1), true),
        ("tests/calls.rs", format!("{manifest}.join(\"{}\")", ".."), true),
        ("client/rust/tests/cms.rs", joined(manifest, 2), false),
        ("client/rust/tests/cms.rs", joined(manifest, 3), true),
        ("tests/kms-emulator/tests/fixtures/mod.rs", joined(manifest, 3), true),
        ("client/rust/tests/cms.rs", format!("concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/{}\")", up(3)), true),
        ("client/rust/tests/cms.rs", format!("include_bytes!(\"{}\")", up(3)), false),
        ("client/rust/tests/cms.rs", format!("include_bytes!(\"{}\")", up(4)), true),
        ("client/rust/Cargo.toml", format!("proto = {{ path = \"{}\" }}", up(3)), true),
        ("tests/peers/node/client.js", format!("path.join(__dirname, '{}')", up(4)), true),
        ("docs/audit.md", format!("[elsewhere]({})", up(2)), true),
        ("docs/audit.md", format!("[elsewhere](a/{})", up(2)), false),
    ] {
        assert_eq!(out(file, &text), is_out, "{file}: {text}");
    }
}

#[test]
fn what_is_vendored_has_its_source_beside_it() {
    for folder in ["tests/fixtures", "tests/schema", "tests/judges"] {
        let readme = fs::read_to_string(root().join(folder).join("README.md")).expect("a README");
        for file in files_below(&root().join(folder)) {
            let name = file.file_name().and_then(OsStr::to_str).expect("text");
            let is_listed = readme.contains(&format!("`{name}`"));
            assert!(is_listed || ["README.md", ".gitattributes"].contains(&name), "{folder}: {name}");
        }
    }
}

/// The relative paths in a text that lead out of the repository.
fn ways_out<'a>(file: &'a Path, text: &'a str) -> impl Iterator<Item = &'a str> {
    let is_of_a_path = |c: char| c.is_ascii_alphanumeric() || "._-/".contains(c);
    text.split(move |c: char| !is_of_a_path(c)).filter(move |word| {
        let start = word.as_ptr().addr() - text.as_ptr().addr();
        // Two dots alone are a range, or Clippy's own list of names.
        let is_parent = *word == ".." && text[..start].ends_with("join(\"");
        if !word.contains("../") && !is_parent {
            return false;
        }
        let base = resolved_from(file, &text[..start]);
        !NO_PATHS.contains(word) && leads_out(&base, word.trim_start_matches('/'))
    })
}

/// What a path is relative to that stands behind `before` in a file: by the rest of its statement, the repository, the
/// directory of the package or that of the file.
fn resolved_from(file: &Path, before: &str) -> PathBuf {
    let statement = before.rsplit([';', '{', '}']).next().unwrap_or_default();
    if statement.contains("root()") {
        root().to_owned()
    } else if statement.contains("CARGO_MANIFEST_DIR") {
        let is_package = |dir: &&Path| dir.join("Cargo.toml").exists();
        file.ancestors().skip(1).find(is_package).expect("of a package").to_owned()
    } else {
        file.parent().expect("a file is in a directory").to_owned()
    }
}

/// Whether following `path` from a directory of the repository leaves it at any step.
fn leads_out(base: &Path, path: &str) -> bool {
    let mut depth = base.strip_prefix(root()).expect("in the repository").components().count();
    for component in Path::new(path).components() {
        match component {
            Component::ParentDir if depth == 0 => return true,
            Component::ParentDir => depth -= 1,
            Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    false
}

/// The files of the repository: not what git, cargo and the fuzzer keep in it, and no links.
fn files_below(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![dir.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(directory).expect("it can be read") {
            let entry = entry.expect("an entry");
            let kind = entry.file_type().expect("a kind");
            if kind.is_file() {
                files.push(entry.path());
            } else if kind.is_dir() && !NOT_OURS.iter().any(|name| entry.file_name() == *name) {
                directories.push(entry.path());
            }
        }
    }
    files
}

/// Directories with what is not in a clone.
const NOT_OURS: [&str; 5] = [".git", "target", "corpus", "artifacts", ".key-broker-dev"];
/// Names of keys and objects that look like paths, in tests that they are refused; and the one path that is relative to another
/// directory than its file's: `tests/peers/go`.
const NO_PATHS: [&str; 3] =
    ["../../etc/passwd", "a/../../secret", "../../../proto/keybroker/v1/key_broker.proto"];
