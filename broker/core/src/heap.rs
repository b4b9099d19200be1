//! Returns free memory from the allocator to the system.
#![cfg_attr(
    all(target_os = "linux", target_env = "gnu"),
    expect(unsafe_code, reason = "a function of the C library is declared; it is safe to call")
)]

/// Returns free memory. Blocks for some milliseconds, allocations in other threads included. Other allocators than glibc's return
/// by themselves, or not.
pub fn give_back_memory() {
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
