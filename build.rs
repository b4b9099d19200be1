//! Generates the Rust code of the contract. `protox` compiles the .proto files, so no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

use prost_types::field_descriptor_proto::Type;
use prost_types::{DescriptorProto, FieldDescriptorProto, FileDescriptorProto};

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out.join("keybroker.binpb"), prost::Message::encode_to_vec(&descriptors))?;

    let mut config = prost_build::Config::new();
    // Key material must not be printable: a message that holds some has a Debug that leaves it out.
    let secret = descriptors.file.iter().flat_map(secret_messages).collect::<Vec<_>>();
    let messages = secret.iter().map(|(package, message)| format!(".{package}.{}", message.name()));
    let oneofs = || secret.iter().flat_map(|(package, message)| oneofs(package, message));
    config.skip_debug(messages.chain(oneofs().map(|oneof| oneof.path)));
    let debug: Vec<_> = secret.iter().map(|(package, message)| debug_of(package, message)).collect();
    let debug = [debug.concat(), oneofs().map(|oneof| oneof.debug).collect()];
    std::fs::write(out.join("debug.rs"), debug.concat())?;
    // `Bytes` lets the broker hand over memory that erases itself when the last reference ends.
    config.bytes(["."]);
    config.btree_map(["."]);
    tonic_prost_build::configure().codec_path("crate::Codec").compile_fds_with_config(descriptors, config)?;
    Ok(())
}

/// The messages with a field of plaintext, by package and name.
fn secret_messages(file: &FileDescriptorProto) -> impl Iterator<Item = (&str, &DescriptorProto)> {
    let is_secret = |field: &FieldDescriptorProto| field.name().ends_with("plaintext");
    let messages = file.message_type.iter().filter(move |message| message.field.iter().any(is_secret));
    messages.map(|message| (file.package(), message))
}

/// A `Debug` of all fields but those of bytes: plaintexts and ciphertexts.
fn debug_of(package: &str, message: &DescriptorProto) -> String {
    let module = package.trim_start_matches("keybroker.").replace('.', "::");
    let name = message.name();
    let is_shown = |field: &&FieldDescriptorProto| field.r#type() != Type::Bytes && !is_in_oneof(field);
    let shown = message.field.iter().filter(is_shown);
    let shown: Vec<_> = shown.map(|field| format!(".field({0:?}, &self.{0})", field.name())).collect();
    format!(
        "impl std::fmt::Debug for {module}::{name} {{
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{
                f.debug_struct({name:?}){}.finish_non_exhaustive()
            }}
        }}\n",
        shown.concat()
    )
}

/// Of a message with plaintext, a oneof: one of its fields may be that.
struct SecretOneof {
    path: String,
    /// A `Debug` of nothing but its name.
    debug: String,
}

fn oneofs(package: &str, message: &DescriptorProto) -> Vec<SecretOneof> {
    let used = |index: usize| {
        message.field.iter().any(|field| {
            is_in_oneof(field) && field.oneof_index.and_then(|of| of.try_into().ok()) == Some(index)
        })
    };
    let named = message.oneof_decl.iter().enumerate().filter(|(index, _)| used(*index));
    let module = package.trim_start_matches("keybroker.").replace('.', "::");
    let snake = snake_case(message.name());
    let oneof = |name: &str| {
        let (first, rest) = name.split_at(1);
        let ty = first.to_uppercase() + rest;
        SecretOneof {
            path: format!(".{package}.{}.{name}", message.name()),
            debug: format!(
                "impl std::fmt::Debug for {module}::{snake}::{ty} {{
                    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {{
                        f.write_str({ty:?})
                    }}
                }}\n"
            ),
        }
    };
    named.map(|(_, declared)| oneof(declared.name())).collect()
}

/// As protobuf means it: an `optional` field is in a oneof of its own, which is nobody's.
fn is_in_oneof(field: &FieldDescriptorProto) -> bool {
    field.oneof_index.is_some() && !field.proto3_optional()
}

fn snake_case(name: &str) -> String {
    let mut snake = String::new();
    for (place, letter) in name.char_indices() {
        if letter.is_uppercase() && place > 0 {
            snake.push('_');
        }
        snake.extend(letter.to_lowercase());
    }
    snake
}

const FILES: [&str; 2] = ["proto/keybroker/v1/key_broker.proto", "proto/keybroker/admin/v1/admin.proto"];
