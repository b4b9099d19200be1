//! The process's memory after a rush: what the allocator keeps of it is given back, so that a small container has room for the next one.

use std::fs;
use std::time::Duration;

use key_broker_core::heap;

/// Looks now and then, and gives back what has come since the last time, if that is much.
pub(super) async fn give_back_after_peaks() {
    let mut least = u64::MAX;
    loop {
        let Some(resident) = resident_bytes() else { return };
        least = least.min(resident);
        if resident > least + MUCH_BYTES {
            // What is still in use then is not looked at again before there is much more.
            least = tokio::task::spawn_blocking(|| {
                heap::give_back();
                resident_bytes().unwrap_or(u64::MAX)
            })
            .await
            .unwrap_or(resident);
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// What of the process is in memory (proc(5)); none where there is no such file.
fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// A look is a read of some bytes that the kernel makes.
const EVERY: Duration = Duration::from_secs(10);
/// Less is not worth it: the allocator uses it again.
const MUCH_BYTES: u64 = 8 << 20;
