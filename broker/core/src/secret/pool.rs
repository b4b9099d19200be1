//! Slots of a few sizes in locked pages. Taking and giving back a slot is a push or a pop under a mutex; the kernel is asked
//! only when a size has no free slot left.

use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use zeroize::optimization_barrier;

use super::pages::{self, Pages};

/// The slots of this process.
pub(super) static POOL: Pool = Pool::new();

/// Slots by size.
pub(super) struct Pool {
    sizes: [SizeClass; SIZES.len()],
    warned: AtomicBool,
}

/// Slots of one size. Pages once mapped are kept: there are as many as the most plaintexts held at one time needed.
struct SizeClass {
    slot_bytes: usize,
    /// Zeroed slots. The one given back last is taken first: its memory is still in the processor's cache.
    free: Mutex<Vec<&'static mut [u8]>>,
}

/// A piece of locked memory with a plaintext in it. Zeroed when dropped.
pub(super) struct PageSlot {
    bytes: &'static mut [u8],
    len: usize,
    home: &'static SizeClass,
}

impl Pool {
    pub(super) const fn new() -> Self {
        let mut sizes = [const { SizeClass { slot_bytes: 0, free: Mutex::new(Vec::new()) } }; SIZES.len()];
        let mut i = 0;
        while i < SIZES.len() {
            sizes[i].slot_bytes = SIZES[i];
            i += 1;
        }
        Self { sizes, warned: AtomicBool::new(false) }
    }

    /// A slot with a copy of `bytes`, or `None` if they are longer than the largest slot or there is no memory.
    pub(super) fn take(&'static self, bytes: &[u8]) -> Option<PageSlot> {
        let home = self.sizes.iter().find(|size| bytes.len() <= size.slot_bytes)?;
        // In a statement of its own: the lock is released before new slots are asked for.
        let free = home.free().pop();
        let place = match free {
            Some(place) => place,
            None => self.grow(home).ok()?,
        };
        let (used, _) = place.split_at_mut(bytes.len());
        used.copy_from_slice(bytes);
        Some(PageSlot { bytes: place, len: bytes.len(), home })
    }

    /// Maps pages for more slots of `size` and takes one of them. Two threads may do so at once; both keep what they map.
    fn grow(&self, size: &'static SizeClass) -> io::Result<&'static mut [u8]> {
        let Pages { bytes, locked, undumped } = pages::map(CHUNK_BYTES)?;
        self.warn_once(locked.as_ref().err(), undumped.as_ref().err());
        let mut slots = bytes.chunks_exact_mut(size.slot_bytes);
        let taken = slots.next().ok_or(io::ErrorKind::OutOfMemory)?;
        size.free().extend(slots);
        Ok(taken)
    }

    fn warn_once(&self, unlocked: Option<&io::Error>, dumped: Option<&io::Error>) {
        if unlocked.is_none() && dumped.is_none() || self.warned.swap(true, Ordering::Relaxed) {
            return;
        }
        if let Some(error) = unlocked {
            tracing::warn!(
                %error,
                "key material may be swapped out: memory cannot be locked. Raise RLIMIT_MEMLOCK (systemd: LimitMEMLOCK=, \
                 containers: ulimit memlock) or give the process CAP_IPC_LOCK (Kubernetes: \
                 securityContext.capabilities.add: [IPC_LOCK], as uid 0), or see that the host has no swap"
            );
        }
        if let Some(error) = dumped {
            tracing::warn!(%error, "key material may be part of a core dump: madvise(MADV_DONTDUMP) fails");
        }
    }
}

impl SizeClass {
    fn free(&self) -> MutexGuard<'_, Vec<&'static mut [u8]>> {
        // Nothing panics while it is held; a list of free slots is whole at any moment.
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsRef<[u8]> for PageSlot {
    fn as_ref(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Drop for PageSlot {
    fn drop(&mut self) {
        let place = mem::take(&mut self.bytes);
        place[..self.len].fill(0);
        optimization_barrier::<[u8]>(place);
        self.home.free().push(place);
    }
}

/// AES keys and what two of them need are short; KMS's bounds are 1,024 random bytes and 4,096 bytes for a Decrypt.
const SIZES: [usize; 5] = [32, 64, 256, 1_024, 4_096];
/// 512 data keys of AES-256. Small, because the limit on locked memory may be 64 KiB in all, and each size takes its own.
const CHUNK_BYTES: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::thread;

    use bytes::Bytes;

    use super::*;

    fn new_pool() -> &'static Pool {
        Box::leak(Box::new(Pool::new()))
    }

    /// Proves: a slot is zeroed when it is given back, and taken again.
    #[test]
    fn slots_are_zeroed_and_used_again() {
        let pool = new_pool();
        for len in [1, 16, 32, 33, 64, 100, 1_024, 4_096] {
            let slot = pool.take(&vec![0xA5; len]).expect("a slot");
            assert_eq!(slot.as_ref(), vec![0xA5; len]);
            let (place, home) = (slot.as_ref().as_ptr(), slot.home);
            drop(slot);
            {
                let free = home.free();
                let last = free.last().expect("it was given back");
                assert_eq!((last.as_ptr(), last.len()), (place, home.slot_bytes));
                assert!(last.iter().all(|byte| *byte == 0), "{len}");
            }
            assert_eq!(pool.take(&vec![0xA5; len]).expect("a slot").as_ref().as_ptr(), place);
        }
        assert!(pool.take(&[0; 4_097]).is_none(), "no answer of KMS is longer");
    }

    /// Proves: bytes stay in their slot until the last reply is gone, and not longer.
    #[test]
    fn the_last_reply_zeroes_the_slot() {
        let pool = new_pool();
        let slot = pool.take(&[0xA5; 32]).expect("a slot");
        let home = slot.home;
        let free = home.free().len();
        let cached = Bytes::from_owner(slot);
        let reply = cached.clone();
        let part = reply.slice(8..16);
        drop((cached, reply));
        assert_eq!((home.free().len(), &part[..]), (free, &[0xA5; 8][..]));
        drop(part);
        let given_back = home.free();
        assert_eq!(given_back.len(), free + 1);
        assert!(given_back.iter().all(|slot| slot.iter().all(|byte| *byte == 0)));
    }

    /// Proves: 10,000 data keys need 20 mappings of 16 KiB, and no two share a byte.
    #[test]
    fn ten_thousand_data_keys_need_few_pages() {
        let pool = new_pool();
        let slots: Vec<_> =
            (0..10_000_u32).map(|n| pool.take(&[n.to_le_bytes(); 8].concat()).expect("a slot")).collect();
        for (n, slot) in (0..).zip(&slots) {
            assert_eq!(slot.as_ref(), [u32::to_le_bytes(n); 8].concat());
        }
        let places: HashSet<_> = slots.iter().map(|slot| slot.as_ref().as_ptr()).collect();
        assert_eq!(places.len(), 10_000);
        let home = slots[0].home;
        drop(slots);
        let slots_mapped = home.free().len();
        assert_eq!(slots_mapped.div_ceil(512), 20, "{slots_mapped} slots");
    }

    /// Proves: what one thread holds is never touched by another that takes and gives back as fast as it can.
    #[test]
    fn contents_never_overlap_under_threads() {
        let pool = new_pool();
        thread::scope(|scope| {
            for name in 1..=8_u8 {
                scope.spawn(move || {
                    let mut held = Vec::new();
                    for round in 0..20_000_usize {
                        let len = [16, 32, 48, 200, 1_000][(round + usize::from(name)) % 5];
                        held.push(pool.take(&vec![name; len]).expect("a slot"));
                        if held.len() > 16 {
                            let slot = held.swap_remove(round * 7 % held.len());
                            assert!(slot.as_ref().iter().all(|byte| *byte == name));
                        }
                    }
                });
            }
        });
        for home in &pool.sizes {
            assert!(home.free().iter().all(|slot| slot.iter().all(|byte| *byte == 0)));
        }
    }

    /// Proves: the pages are locked, left out of core dumps and wiped in forked children: "lo", "dd" and "wf" in proc(5).
    #[cfg(target_os = "linux")]
    #[test]
    fn pages_are_locked_and_not_dumped() {
        let slot = new_pool().take(&[1; 32]).expect("a slot");
        let place = slot.as_ref().as_ptr().addr();
        let flags = flags_at(place);
        let limit = rustix::process::getrlimit(rustix::process::Resource::Memlock).current;
        for flag in ["lo", "dd", "wf"] {
            assert!(flags.contains(flag), "{flag} is missing: {flags}; `ulimit -l` is {limit:?} bytes");
        }
    }

    /// The `VmFlags` of the mapping that holds `place`.
    #[cfg(target_os = "linux")]
    fn flags_at(place: usize) -> String {
        let maps = std::fs::read_to_string("/proc/self/smaps").expect("proc is mounted");
        let mut lines = maps.lines().skip_while(|line| {
            let range = line.split(' ').next().and_then(|range| range.split_once('-'));
            let range = range.and_then(|(start, end)| {
                Some(usize::from_str_radix(start, 16).ok()?..usize::from_str_radix(end, 16).ok()?)
            });
            !range.is_some_and(|range| range.contains(&place))
        });
        lines.find_map(|line| line.strip_prefix("VmFlags:")).expect("every mapping has flags").to_owned()
    }
}
