//! The last line of defence of a program that works on files of strangers: it ends the process, with a message and exit
//! code 2, when the work takes more memory or time than it may. What can be foreseen is refused before, by name.
//!
//! It is for programs; a library must not end the process that it is in.

use std::alloc::{GlobalAlloc, Layout, System};
use std::io;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

/// Exit code: wrong usage or input.
const EXIT_CODE: libc::c_int = 2;

/// Bytes that are allocated.
static TAKEN: AtomicUsize = AtomicUsize::new(0);
/// Bytes that may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// The system's allocator, which counts. Memory-mapped files are not counted: they can be dropped and read again.
///
/// ```
/// #[global_allocator]
/// static ALLOCATOR: rabot_guard::Allocator = rabot_guard::Allocator;
/// # fn main() {}
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Allocator;

// SAFETY: every call is handed to the system's allocator as it is; what is added does not allocate or unwind.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        take(layout.size());
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        take(size.saturating_sub(layout.size()));
        TAKEN.fetch_sub(layout.size().saturating_sub(size), Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        TAKEN.fetch_sub(layout.size(), Ordering::Relaxed);
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Counts bytes that are about to be allocated.
fn take(bytes: usize) {
    let before = TAKEN.fetch_add(bytes, Ordering::Relaxed);
    if before.saturating_add(bytes) > LIMIT.load(Ordering::Relaxed) {
        end("memory", "--max-memory");
    }
}

/// Ends the process when more memory than this is allocated.
pub fn limit_memory(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
}

/// Memory that is allocated, in bytes; only where [`Allocator`] is the process's.
pub fn allocated() -> usize {
    TAKEN.load(Ordering::Relaxed)
}

/// Memory of this machine in bytes, if the system says.
pub fn machine_memory() -> Option<usize> {
    // SAFETY: no argument, no memory involved.
    let (pages, size) = unsafe { (libc::sysconf(libc::_SC_PHYS_PAGES), libc::sysconf(libc::_SC_PAGESIZE)) };
    usize::try_from(pages).ok()?.checked_mul(usize::try_from(size).ok()?).filter(|&bytes| bytes > 0)
}

/// Ends the process after this time, unless it has ended before.
///
/// **Errors**: the thread that waits cannot be started.
pub fn limit_time(time: Duration) -> io::Result<()> {
    let wait = move || {
        std::thread::sleep(time);
        end("time", "--max-time");
    };
    std::thread::Builder::new().name("max-time".to_owned()).spawn(wait).map(drop)
}

/// Says why and ends the process, without allocating.
fn end(what: &str, flag: &str) -> ! {
    // Anything that still allocates must not come back here.
    LIMIT.store(usize::MAX, Ordering::Relaxed);
    for part in ["\nerror: this takes more ", what, " than ", flag, " allows\n"] {
        // SAFETY: the bytes are there for the whole call. That nothing can be written is nothing to be told.
        let _ = unsafe { libc::write(libc::STDERR_FILENO, part.as_ptr().cast(), part.len()) };
    }
    // SAFETY: ends the process without running anything of it. Files are renamed into place when they are whole.
    unsafe { libc::_exit(EXIT_CODE) }
}
