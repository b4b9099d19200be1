//! Tells the tests of this package what the machine can run.

#[path = "../../tests/peers/machine.rs"]
mod machine;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    machine::tell_cargo();
}
