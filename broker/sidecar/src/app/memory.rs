//! After a burst, returns the allocator's free memory to the system, so that a small container has room for the next burst.

use std::fs;
use std::time::Duration;

use key_broker_core::give_back_memory;

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
