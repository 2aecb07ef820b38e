//! Memory that the allocator keeps of a larger past, given back to the system.

/// Gives free pages back to the system, wherever in the heap they lie.
///
/// glibc by itself returns only the top of a heap, and one small block that outlived ten thousand sessions keeps all of
/// their pages below it. Takes milliseconds on a large heap and holds each arena's lock meanwhile: for when many sessions
/// have left, not for every now and then.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
#[expect(unsafe_code, reason = "glibc offers this as a C function only")]
pub fn trim() {
    // SAFETY: `malloc_trim` takes no pointer and may be called from any thread at any time (malloc_trim(3)).
    let _released = unsafe { libc::malloc_trim(0) };
}

/// Nothing to do: other allocators return memory by themselves.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn trim() {}
