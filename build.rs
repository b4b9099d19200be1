//! Generates the Rust code of the contract. `protox` compiles the .proto files, so no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("keybroker.binpb");
    std::fs::write(out, prost::Message::encode_to_vec(&descriptors))?;

    let mut config = prost_build::Config::new();
    // Key material must not be printable: lib.rs writes their Debug by hand, without it.
    config.skip_debug(RESPONSES_WITH_PLAINTEXT);
    // `Bytes` lets the broker hand over memory that erases itself when the last reference ends.
    config.bytes(["."]);
    config.btree_map(["."]);
    tonic_prost_build::configure().codec_path("crate::Codec").compile_fds_with_config(descriptors, config)?;
    Ok(())
}

const FILES: [&str; 2] = ["proto/keybroker/v1/key_broker.proto", "proto/keybroker/admin/v1/admin.proto"];
const RESPONSES_WITH_PLAINTEXT: [&str; 3] = [
    ".keybroker.v1.GenerateDataKeyResponse",
    ".keybroker.v1.DecryptResponse",
    ".keybroker.v1.GenerateRandomResponse",
];
