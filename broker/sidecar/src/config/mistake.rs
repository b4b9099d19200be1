//! Mistakes of syntax and type in the configuration file, with place, key, and what belongs there, in TOML's terms.

use std::path::Path;

/// One line about `error` in `text`, which the file at `path` has.
pub(super) fn told(text: &str, path: &Path, error: &toml::de::Error) -> String {
    let line = error.span().map(|span| text[..span.start.min(text.len())].matches('\n').count() + 1);
    let place = line.map_or_else(|| path.display().to_string(), |line| format!("{}:{line}", path.display()));
    let message = error.message().lines().collect::<Vec<_>>().join(" ");
    // Only `listen` has had such a key.
    if message.starts_with("unknown field `tcp`, expected one of `unix`") {
        return format!(
            "{place}: listen.tcp is now listen.tls (mutual TLS); plaintext is listen.insecure_tcp"
        );
    }
    format!("{place}: {}", words_of(&message, key_of(error).as_deref()))
}

/// The key that the error is about, or the table that it is in.
fn key_of(error: &toml::de::Error) -> Option<String> {
    let mut bare = error.clone();
    // With the text, it shows the line in place of the key.
    bare.set_input(None);
    let shown = bare.to_string();
    let key = shown.trim_end().rsplit_once("\nin `")?.1.strip_suffix('`')?;
    Some(key.to_owned())
}

fn words_of(message: &str, key: Option<&str>) -> String {
    let within = |name: &str| key.map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
    if let Some((name, known)) =
        message.strip_prefix("unknown field `").and_then(|rest| rest.split_once("`, expected "))
    {
        let known = quoted(known);
        // The key itself is the last part of where the error is.
        let table = key.and_then(|key| key.strip_suffix(name)).map_or(key, |table| table.strip_suffix('.'));
        let place = table
            .filter(|table| !table.is_empty())
            .map_or_else(|| name.to_owned(), |table| format!("{table}.{name}"));
        let meant = nearest(name, &known).map(|meant| format!(": did you mean {meant}?"));
        let (meant, known) = (meant.unwrap_or_default(), known.join(", "));
        return format!("{place}: there is no such key{meant} (keys here: {known})");
    }
    if let Some(name) = message.strip_prefix("missing field `").and_then(|rest| rest.strip_suffix('`')) {
        return format!("{} is missing", within(name));
    }
    let place = key.map(|key| format!("{key}: ")).unwrap_or_default();
    if let Some((value, known)) =
        message.strip_prefix("unknown variant `").and_then(|rest| rest.split_once("`, expected "))
    {
        return format!("{place}{value:?} is not one of {}", quoted(known).join(", "));
    }
    let wrong = message.strip_prefix("invalid type: ").or_else(|| message.strip_prefix("invalid value: "));
    if let Some((found, expected)) = wrong.and_then(|rest| rest.rsplit_once(", expected ")) {
        let found =
            found.replace("floating point", "number").replace("map", "table").replace("sequence", "list");
        return format!("{place}{found} is not {}", kind(expected));
    }
    if message == "invalid socket address syntax" {
        return format!("{place}write ADDRESS:PORT, such as 127.0.0.1:7890 or [::1]:7890");
    }
    format!("{place}{message}")
}

/// What belongs there, without Rust's words.
fn kind(expected: &str) -> &str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "usize" => "a whole number from 0 on",
        "i64" | "i32" => "a whole number",
        "f32" | "f64" => "a number",
        "a boolean" => "true or false",
        "a sequence" => "a list: [ … ], or tables that each begin with [[…]]",
        "path string" | "a path" => "a path in quotes",
        "a string" => "text in quotes",
        "a map" => "a table",
        other => other,
    }
}

/// The names in backquotes.
fn quoted(list: &str) -> Vec<&str> {
    list.split('`').skip(1).step_by(2).collect()
}

/// The name that was meant, if one is near.
fn nearest<'a>(name: &str, known: &[&'a str]) -> Option<&'a str> {
    let likeness = |other: &&str| strsim::jaro_winkler(name, other);
    let nearest = known.iter().copied().max_by(|one, other| likeness(one).total_cmp(&likeness(other)))?;
    (likeness(&nearest) > LIKE).then_some(nearest)
}

/// As clap has it for arguments.
const LIKE: f64 = 0.7;
