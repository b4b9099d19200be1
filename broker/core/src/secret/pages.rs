//! Pages for key material.
#![expect(
    unsafe_code,
    reason = "mmap, mlock and madvise are system calls on raw memory; there is no safe form of them"
)]

use std::ffi::c_void;
use std::io;
use std::ptr::null_mut;
use std::slice;

use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mlock, mmap_anonymous};

/// New pages, zeroed. They stay mapped until the process ends.
pub(super) struct Pages {
    pub(super) bytes: &'static mut [u8],
    /// Whether they stay out of swap: a limit on locked memory may forbid it.
    pub(super) locked: io::Result<()>,
    /// Whether they stay out of core dumps: a kernel before 3.4 or a sandbox may not know how.
    pub(super) undumped: io::Result<()>,
}

/// Maps at least `len` bytes, in whole pages.
pub(super) fn map(len: usize) -> io::Result<Pages> {
    let len = len.next_multiple_of(rustix::param::page_size());
    // SAFETY: the kernel chooses an address where nothing is mapped, so no other memory changes.
    let start =
        unsafe { mmap_anonymous(null_mut(), len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE) }?;
    let undumped = advise(start, len);
    // SAFETY: `start` and `len` are the whole mapping just made. Locking changes no contents.
    let locked = unsafe { mlock(start, len) };
    // SAFETY: the mapping is readable, writable, zeroed, `len` bytes long and aligned for bytes. Nobody else knows of it, and
    // nobody unmaps it: the slice is the only way to it, for as long as the process lives.
    let bytes = unsafe { slice::from_raw_parts_mut(start.cast::<u8>(), len) };
    Ok(Pages { bytes, locked: locked.map_err(Into::into), undumped })
}

#[cfg(target_os = "linux")]
fn advise(start: *mut c_void, len: usize) -> io::Result<()> {
    // A forked child sees zeros. Kernels before 4.14 do not know it; a child then shares the pages until it runs a program.
    // SAFETY: `start` and `len` are a whole mapping of the caller's that holds nothing yet. A child that finds zeros in it
    // finds valid bytes.
    let _ = unsafe { madvise(start, len, Advice::LinuxWipeOnFork) };
    // SAFETY: as above. What core dumps leave out changes no contents.
    unsafe { madvise(start, len, Advice::LinuxDontDump) }.map_err(Into::into)
}

#[cfg(not(target_os = "linux"))]
fn advise(_: *mut c_void, _: usize) -> io::Result<()> {
    Ok(())
}
