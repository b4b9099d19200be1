//! After a burst, returns the allocator's free memory to the system, so that a small container has room for the next burst.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a function of the C library is declared; it is safe to call")
)]

use std::fs;
use std::time::Duration;

/// Checks memory use from time to time, and returns free memory if use has grown. Only the allocator knows how much is free, so
/// this tries again, and less often when a try has gained nothing.
pub(super) async fn give_back_after_peaks() {
    let (mut least, mut pause) = (u64::MAX, EVERY);
    loop {
        let Some(resident) = resident_bytes() else { return };
        least = least.min(resident);
        if resident > least + MUCH_BYTES {
            let then = tokio::task::spawn_blocking(|| {
                give_back_memory();
                resident_bytes()
            });
            let then = then.await.ok().flatten().unwrap_or(resident);
            let was_of_use = resident.saturating_sub(then) > LITTLE_BYTES;
            pause = if was_of_use { EVERY } else { (pause * 2).min(SELDOM) };
        } else {
            pause = EVERY;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Returns free memory. Blocks for some milliseconds, allocations in other threads included. Other allocators than glibc's return
/// by themselves, or not.
fn give_back_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    {
        use std::ffi::c_int;

        // SAFETY: malloc_trim(3), as glibc declares it. It takes a number and touches only what is free.
        unsafe extern "C" {
            safe fn malloc_trim(pad: usize) -> c_int;
        }

        malloc_trim(0);
    }
}

/// The process's resident memory in bytes (proc(5)); none where there is no such file.
fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// Each check reads one small file of the kernel's.
const EVERY: Duration = Duration::from_secs(10);
/// The pause after a try that gained nothing, since returning memory delays all allocations for some milliseconds.
const SELDOM: Duration = Duration::from_mins(1);
/// A try that returns less has gained nothing.
const LITTLE_BYTES: u64 = 1 << 20;
/// Growth below this is ignored, because the allocator will use that memory again.
const MUCH_BYTES: u64 = 8 << 20;
