//! After a burst, returns the allocator's free memory to the system, so that a small container has room for the next burst.

use std::fs;
use std::time::Duration;

use key_broker_core::give_back_memory;

/// Checks from time to time, and returns free memory if memory use has grown. What is in use then may be free soon, and the
/// allocator alone knows: so it is tried again, less often where it was of no use.
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

/// What of the process is in memory (proc(5)); none where there is no such file.
fn resident_bytes() -> Option<u64> {
    let pages = fs::read_to_string("/proc/self/statm").ok()?.split(' ').nth(1)?.parse::<u64>().ok()?;
    pages.checked_mul(rustix::param::page_size() as u64)
}

/// A look is a read of some bytes that the kernel makes.
const EVERY: Duration = Duration::from_secs(10);
/// While giving back is of no use: it holds up who allocates meanwhile for some milliseconds.
const SELDOM: Duration = Duration::from_mins(1);
/// A look that gives back less was of no use.
const LITTLE_BYTES: u64 = 1 << 20;
/// Less is not worth it: the allocator uses it again.
const MUCH_BYTES: u64 = 8 << 20;
