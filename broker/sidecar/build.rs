//! Tells this package's tests what the machine can run, and the program which commit it was built from.

#[path = "../../tests/peers/machine.rs"]
mod machine;

use std::env;
use std::path::Path;
use std::process::Command;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=KEY_BROKER_COMMIT");
    machine::tell_cargo();
    println!("cargo::rustc-env=KEY_BROKER_COMMIT={}", commit());
    println!("cargo::rustc-env=KEY_BROKER_FEATURES={}", features());
    println!("cargo::rustc-env=KEY_BROKER_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// The commit that is built: from the environment if the repository is not there (image builds), otherwise from git.
fn commit() -> String {
    if let Some(told) = env::var("KEY_BROKER_COMMIT").ok().filter(|told| !told.is_empty()) {
        return told;
    }
    if env::var("PROFILE").is_ok_and(|profile| profile != "release") {
        // Whoever develops commits often, and each time all of it would be built again.
        return "not told: this is no release build".to_owned();
    }
    let git = |arguments: &[&str]| {
        let output =
            Command::new("git").args(arguments).output().ok().filter(|output| output.status.success())?;
        String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
    };
    // Its name changes when another branch is checked out, and the branch's file with each commit.
    for file in ["HEAD", "logs/HEAD"] {
        if let Some(path) = git(&["rev-parse", "--git-path", file]).filter(|path| Path::new(path).exists()) {
            println!("cargo::rerun-if-changed={path}");
        }
    }
    git(&["rev-parse", "--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}

/// The features of this package that are on.
fn features() -> String {
    let on: Vec<_> = env::vars()
        .filter_map(|(name, _)| {
            Some(name.strip_prefix("CARGO_FEATURE_")?.to_ascii_lowercase().replace('_', "-"))
        })
        .filter(|feature| feature != "default")
        .collect();
    if on.is_empty() { "none".to_owned() } else { on.join(", ") }
}
