//! Proves that the contract keeps buf's STANDARD rules, that no change of it breaks a client of the released one, and that its table of
//! errors has every reason that the broker gives, each beside its code.
//!
//! The released contract is `proto/keybroker.v1.released.binpb`. It is renewed when a release changes the contract, never to
//! make this test pass: `buf build --exclude-source-info -o proto/keybroker.v1.released.binpb`.

#[path = "peers/mod.rs"]
mod peers;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use peers::{Peers, output, printed, root};

const RELEASED: &str = "proto/keybroker.v1.released.binpb";

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_contract_keeps_the_standard_rules() {
    let peers = Peers::install(&["buf"]);
    printed(buf(&peers, root()).arg("lint"));
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn the_contract_breaks_nobody() {
    let peers = Peers::install(&["buf"]);
    printed(breaking(&mut buf(&peers, root())));
}

#[test]
#[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
fn a_contract_without_a_released_field_is_found() {
    let peers = Peers::install(&["buf"]);
    let copy = tempfile::tempdir().expect("a directory");
    let file = "proto/keybroker/v1/key_broker.proto";
    fs::create_dir_all(copy.path().join(file).parent().expect("a parent")).expect("a directory");
    fs::copy(root().join("buf.yaml"), copy.path().join("buf.yaml")).expect("copies");
    let text = fs::read_to_string(root().join(file)).expect("text");
    let field = "  string key_material_id = 4;\n";
    assert!(text.contains(field), "the contract has no {field:?} any more: take another");
    fs::write(copy.path().join(file), text.replacen(field, "", 1)).expect("writes");

    let judged = output(breaking(&mut buf(&peers, copy.path())));
    let verdict = String::from_utf8_lossy(&judged.stdout);
    assert!(
        !judged.status.success() && verdict.contains("field \"4\" with name \"key_material_id\""),
        "{verdict}"
    );
}

/// In the code a reason stands behind its code: `(NotFound, "KEY_NOT_FOUND", …)`.
#[test]
fn the_table_of_errors_is_complete() {
    let errors = root().join("broker/sidecar/src");
    let given: BTreeSet<(String, String)> = ["error.rs", "error/kms.rs"]
        .iter()
        .map(|file| fs::read_to_string(errors.join(file)).expect("a source"))
        .flat_map(|text| reasons_in_code(&text))
        .collect();
    let text = fs::read_to_string(root().join("proto/keybroker/v1/key_broker.proto")).expect("the contract");
    let told = reasons_in_table(&text);
    assert!(told.len() > 30, "{told:?}");
    let missing: Vec<_> = given.difference(&told).collect();
    let needless: Vec<_> = told.difference(&given).collect();
    assert!(
        missing.is_empty() && needless.is_empty(),
        "not in the table: {missing:?}; in no code: {needless:?}"
    );
}

/// Pairs of code and reason, such as `NOT_FOUND` and `KEY_NOT_FOUND`.
fn reasons_in_code(text: &str) -> Vec<(String, String)> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || "_\"".contains(c)));
    let words: Vec<&str> = words.filter(|word| !word.is_empty()).collect();
    let reason = |word: &str| {
        let reason = word.strip_prefix('"')?.strip_suffix('"')?;
        is_reason(reason).then(|| reason.to_owned())
    };
    let pairs = words.windows(2).filter_map(|pair| Some((screaming(pair[0])?, reason(pair[1])?)));
    pairs.collect()
}

/// `NotFound` as gRPC writes it.
fn screaming(code: &str) -> Option<String> {
    const CODES: [&str; 10] = [
        "InvalidArgument",
        "NotFound",
        "PermissionDenied",
        "FailedPrecondition",
        "ResourceExhausted",
        "Unavailable",
        "DeadlineExceeded",
        "Cancelled",
        "Unimplemented",
        "Internal",
    ];
    CODES.contains(&code).then(|| {
        let mut screaming = String::new();
        for (at, letter) in code.chars().enumerate() {
            if at > 0 && letter.is_ascii_uppercase() {
                screaming.push('_');
            }
            screaming.push(letter.to_ascii_uppercase());
        }
        screaming
    })
}

/// The rows of the table: a code, then reasons, with words in parentheses.
fn reasons_in_table(text: &str) -> BTreeSet<(String, String)> {
    let (_, table) = text.split_once("//   code                 reasons\n").expect("the table");
    let (table, _) = table.split_once("\n//\n").expect("its end");
    let (mut code, mut told, mut depth) = (String::new(), BTreeSet::new(), 0);
    for line in table.lines() {
        let line = line.strip_prefix("//   ").unwrap_or_else(|| panic!("{line}"));
        let (first, rest) = line.split_at(21.min(line.len()));
        if !first.trim().is_empty() {
            first.trim().clone_into(&mut code);
        }
        for word in rest.split_inclusive(['(', ')', ',', ' ']) {
            let bare = word.trim_end_matches(['(', ')', ',', ' ']);
            if depth == 0 && is_reason(bare) {
                told.insert((code.clone(), bare.to_owned()));
            }
            depth += word.matches('(').count();
            depth -= word.matches(')').count().min(depth);
        }
    }
    told
}

fn is_reason(word: &str) -> bool {
    word.len() > 4 && word.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_')
}

fn buf(peers: &Peers, dir: &Path) -> Command {
    let mut command = peers.command("buf/bin/buf");
    command.current_dir(dir);
    command
}

fn breaking(buf: &mut Command) -> &mut Command {
    buf.arg("breaking").arg("--against").arg(root().join(RELEASED))
}
