//! Proves that the contract keeps buf's STANDARD rules, and that no change of it breaks a client of the released one.
//!
//! The released contract is `proto/keybroker.v1.released.binpb`. It is renewed when a release changes the contract, never to
//! make this test pass: `buf build --exclude-source-info -o proto/keybroker.v1.released.binpb`.

#[path = "peers/mod.rs"]
mod peers;

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

fn buf(peers: &Peers, dir: &Path) -> Command {
    let mut command = peers.command("buf/bin/buf");
    command.current_dir(dir);
    command
}

fn breaking(buf: &mut Command) -> &mut Command {
    buf.arg("breaking").arg("--against").arg(root().join(RELEASED))
}
