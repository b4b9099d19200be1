//! The documents of the repository, as far as they are no prose: fenced blocks, and words in backticks.
#![allow(dead_code, unreachable_pub, reason = "every test file uses another part of this one")]

use std::fs;
use std::path::Path;

use super::peers::root;

/// A fenced block.
#[derive(Debug, Clone)]
pub struct Block {
    /// The document's path, from the top of the repository.
    pub document: String,
    /// The line of its opening fence.
    pub line: usize,
    /// What the fence says that it is.
    pub tag: String,
    pub text: String,
}

impl Block {
    /// Where it is, for messages.
    pub fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    pub fn is(&self, document: &str, tag: &str) -> bool {
        self.document == document && self.tag == tag
    }
}

/// Every document, by its path from the top, with its text.
pub fn documents() -> Vec<(String, String)> {
    let (mut found, mut folders) = (Vec::new(), vec![root().to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let is_foreign = name.starts_with('.') || matches!(name, "target" | "node_modules");
            if path.is_dir() && !path.is_symlink() && !is_foreign {
                folders.push(path);
            } else if path.extension() == Some("md".as_ref()) {
                let name = path.strip_prefix(root()).expect("it is below").display().to_string();
                found.push((name, fs::read_to_string(&path).expect("text")));
            }
        }
    }
    found.sort();
    found
}

/// The text of one document.
pub fn document(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Its fenced blocks; an error for what would be code to GitHub and is none here.
pub fn blocks(document: &str, text: &str) -> Result<Vec<Block>, String> {
    let (mut found, mut open, mut before) = (Vec::new(), None::<Block>, "");
    for (number, line) in (1..).zip(text.lines()) {
        let trimmed = line.trim_start();
        let fence = trimmed.strip_prefix("```");
        match (&mut open, fence) {
            (None, Some(tag)) => {
                let (document, tag) = (document.to_owned(), tag.trim().to_owned());
                open = Some(Block { document, line: number, tag, text: String::new() });
            }
            (Some(block), None) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (Some(_), Some("")) => found.extend(open.take()),
            (Some(_), Some(tag)) => return Err(format!("{document}:{number}: ```{tag} inside of a block")),
            (None, None) => {
                let is_list =
                    trimmed.starts_with(['-', '*']) || trimmed.starts_with(|c: char| c.is_ascii_digit());
                let is_indented = line.starts_with("    ") || line.starts_with('\t');
                if trimmed.starts_with("~~~") || is_indented && before.trim().is_empty() && !is_list {
                    return Err(format!("{document}:{number}: write code between ``` and ```: {line}"));
                }
            }
        }
        before = line;
    }
    match open {
        Some(block) => Err(format!("{}: this block does not end", block.place())),
        None => Ok(found),
    }
}

/// What stands between two backticks, with the line on which its paragraph begins.
pub fn spans(text: &str) -> Vec<(usize, String)> {
    let (mut found, mut paragraph, mut is_code) = (Vec::new(), (1, String::new()), false);
    let mut end = |paragraph: &mut (usize, String), next: usize| {
        let pieces = paragraph.1.split('`').skip(1).step_by(2);
        found.extend(pieces.map(|piece| (paragraph.0, piece.to_owned())));
        *paragraph = (next, String::new());
    };
    for (number, line) in (1..).zip(text.lines()) {
        let is_fence = line.trim_start().starts_with("```");
        is_code ^= is_fence;
        if is_fence || line.trim().is_empty() || line.starts_with('|') {
            end(&mut paragraph, number);
        }
        if !is_code && !is_fence {
            paragraph.1.push_str(line.trim());
            paragraph.1.push(' ');
        }
    }
    end(&mut paragraph, 0);
    found
}

/// Whether a file of the repository has such a text.
pub fn has(path: impl AsRef<Path>, text: &str) -> bool {
    fs::read_to_string(root().join(path)).is_ok_and(|it| it.contains(text))
}
