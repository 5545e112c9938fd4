//! The last line of defence of a program that works on files of strangers: it ends the process, with a message and exit
//! code 2, when the work takes more memory or time than it may. What can be foreseen is refused before, by name.
//!
//! It is for programs; a library must not end the process that it is in.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicIsize, AtomicUsize, Ordering};
use std::time::Duration;

/// Exit code: wrong usage or input.
const EXIT_CODE: libc::c_int = 2;

/// Bytes that are allocated, but for those that threads have not added yet.
static TAKEN: AtomicIsize = AtomicIsize::new(0);
/// Bytes that may be.
static LIMIT: AtomicUsize = AtomicUsize::new(usize::MAX);

/// Bytes that a thread takes or gives back before it adds them to those of all: threads that work on graphs allocate
/// small things all the time, and would wait for each other's count.
const UNCOUNTED_BYTES: usize = 16 << 10;

thread_local! {
    /// Bytes that this thread took, less those that it gave back, which are not in `TAKEN`.
    static UNCOUNTED: Cell<isize> = const { Cell::new(0) };
}

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
        count(layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size as isize - layout.size() as isize);
        // SAFETY: as promised by the caller.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        count(-(layout.size() as isize));
        // SAFETY: as promised by the caller.
        unsafe { System.dealloc(old, layout) }
    }
}

/// Counts bytes that are about to be allocated, or are given back where they are negative. A layout has `isize::MAX` bytes
/// at most.
fn count(bytes: isize) {
    // A thread that is ending has no place for its own count any more.
    let own = UNCOUNTED.try_with(|own| own.replace(0)).unwrap_or(0);
    let all = own.saturating_add(bytes);
    if all.unsigned_abs() < UNCOUNTED_BYTES && UNCOUNTED.try_with(|own| own.set(all)).is_ok() {
        return;
    }
    let before = TAKEN.fetch_add(all, Ordering::Relaxed);
    let taken = usize::try_from(before.saturating_add(all)).unwrap_or(0);
    if bytes > 0 && taken > LIMIT.load(Ordering::Relaxed) {
        end("memory", "--max-memory");
    }
}

/// Ends the process when more memory than this is allocated.
pub fn limit_memory(bytes: usize) {
    LIMIT.store(bytes, Ordering::Relaxed);
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
