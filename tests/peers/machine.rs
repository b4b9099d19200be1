//! For the build script of the package that has these tests: what the machine can run, as `cfg`s. libtest knows what it ignores
//! when it is compiled, so a test that cannot run here is counted as ignored, with its reason, and never passes without a proof:
//!
//! ```ignore
//! #[cfg_attr(skip_peers, ignore = "KEY_BROKER_SKIP_PEERS=1")]
//! #[cfg_attr(not(debian_x86_64), ignore = "needs Debian on x86_64")]
//! #[cfg_attr(not(capability = "setuid"), ignore = "needs root: CAP_SETUID")]
//! ```

use std::{env, fs};

/// Tells cargo the `cfg`s: `skip_peers` if `KEY_BROKER_SKIP_PEERS` is 1, `debian_x86_64`, and a `capability` for
/// each of [`CAPABILITIES`] that this process has.
pub(crate) fn tell_cargo() {
    let names = CAPABILITIES.map(|(name, _)| format!("{name:?}")).join(", ");
    println!("cargo::rustc-check-cfg=cfg(skip_peers, debian_x86_64)");
    println!("cargo::rustc-check-cfg=cfg(capability, values({names}))");
    println!("cargo::rerun-if-env-changed=KEY_BROKER_SKIP_PEERS");
    if env::var_os("KEY_BROKER_SKIP_PEERS").is_some_and(|skip| skip == "1") {
        println!("cargo::rustc-cfg=skip_peers");
    }
    if (env::consts::OS, env::consts::ARCH) == ("linux", "x86_64") && is_debian() {
        println!("cargo::rustc-cfg=debian_x86_64");
    }
    // Another user may build in the same directory.
    println!("cargo::rerun-if-env-changed=USER");
    let effective = effective_capabilities();
    for (name, _) in CAPABILITIES.iter().filter(|(_, bit)| effective & (1 << bit) != 0) {
        println!("cargo::rustc-cfg=capability={name:?}");
    }
}

/// As `tests/peers/install` asks it.
fn is_debian() -> bool {
    let release = fs::read_to_string("/etc/os-release").unwrap_or_default();
    release.lines().any(|line| line == "ID=debian")
}

/// The bits of capabilities(7); none where there is no proc(5).
fn effective_capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status.lines().find_map(|line| line.strip_prefix("CapEff:"));
    effective.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0)
}

/// What tests need, with its number in `linux/capability.h`: to become another user, to read another process's memory, to mount.
const CAPABILITIES: [(&str, u32); 3] = [("setuid", 7), ("sys_ptrace", 19), ("sys_admin", 21)];
