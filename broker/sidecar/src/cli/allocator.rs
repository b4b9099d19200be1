//! The setting of glibc's allocator that suits the broker, which glibc reads only when a program starts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Starts this program again, once, in the same process and with the same arguments, with [`SETTING`]. Nothing happens where the
/// environment has settings already, and where it cannot be done: then the allocator is as glibc ships it.
///
/// To be called first: what the process is by then, it is no longer afterwards.
pub(super) fn tune() {
    let is_set = |name| std::env::var_os(name).is_some();
    if cfg!(not(target_env = "gnu")) || is_set(VARIABLE) || is_set(AGAIN) {
        return;
    }
    let Ok(program) = std::env::current_exe() else { return };
    let mut arguments = std::env::args_os();
    let name = arguments.next();
    // It returns only if it fails.
    let _ = Command::new(&program)
        .arg0(name.as_deref().unwrap_or(OsStr::new("key-broker")))
        .args(arguments)
        .env(VARIABLE, SETTING)
        .env(AGAIN, "1")
        .exec();
}

/// <https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html>.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// Set the second time. The other one may be gone by then: glibc takes it from programs with file capabilities.
const AGAIN: &str = "KEY_BROKER_STARTED_AGAIN";
/// How many freed blocks of each size a thread keeps: by default seven, and calls come in bursts of as many as are in flight.
const SETTING: &str = "glibc.malloc.tcache_count=200";
