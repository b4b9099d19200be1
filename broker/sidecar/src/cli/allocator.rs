//! The setting of glibc's allocator that suits the broker, which glibc reads only when a program starts.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Starts this program again, in the same process and with the same arguments, with [`SETTING`]. Nothing happens where the environment
/// has settings already, as it has the second time, and where it cannot be done: then the allocator is as glibc ships it.
///
/// To be called first: what the process is by then, it is no longer afterwards.
pub(super) fn tune() {
    if cfg!(not(target_env = "gnu")) || std::env::var_os(VARIABLE).is_some() {
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
        .exec();
}

/// <https://www.gnu.org/software/libc/manual/html_node/Memory-Allocation-Tunables.html>.
const VARIABLE: &str = "GLIBC_TUNABLES";
/// How many freed blocks of each size a thread keeps: by default seven, and calls come in bursts of as many as are in flight.
const SETTING: &str = "glibc.malloc.tcache_count=200";
