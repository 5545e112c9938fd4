//! Aligned memory for the arena, outputs and scratch.

use crate::RunError;
use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::ptr::NonNull;

/// Alignment of every block: a cache line, and the row of a tile unit.
const ALIGN_BYTES: usize = 64;

/// A block of zeroed memory that only grows.
#[derive(Debug)]
pub(crate) struct Block {
    start: NonNull<u8>,
    capacity: usize,
    what: &'static str,
}

// SAFETY: a block owns its memory, like a `Vec<u8>`.
unsafe impl Send for Block {}

impl Block {
    /// An empty block; `what` names it in errors.
    pub fn new(what: &'static str) -> Self {
        Block { start: NonNull::<[u64; 8]>::dangling().cast(), capacity: 0, what }
    }

    /// Makes room for `bytes`. Contents are lost when the block moves. True if it moved.
    ///
    /// **Errors**: the memory cannot be had.
    pub fn reserve(&mut self, bytes: usize) -> Result<bool, RunError> {
        if bytes <= self.capacity {
            return Ok(false);
        }
        let failed = || RunError::Memory { bytes, what: self.what };
        let layout = Layout::from_size_align(bytes, ALIGN_BYTES).map_err(|_| failed())?;
        // SAFETY: the layout's size is `bytes`, which is larger than `capacity` and so not zero.
        let start = unsafe { alloc_zeroed(layout) };
        let start = NonNull::new(start).ok_or_else(failed)?;
        self.free();
        (self.start, self.capacity) = (start, bytes);
        Ok(true)
    }

    /// Where the block starts; aligned to 64 bytes even if it is empty.
    pub fn start(&self) -> *mut u8 {
        self.start.as_ptr()
    }

    /// The first `len` bytes.
    ///
    /// **Panics** if the block is smaller.
    pub fn bytes(&self, len: usize) -> &[u8] {
        assert!(len <= self.capacity, "{len} of {} bytes", self.capacity);
        // SAFETY: `start` points to `capacity` initialized bytes (zeroed when allocated), and `len` is not more.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), len) }
    }

    fn free(&mut self) {
        if self.capacity > 0
            && let Ok(layout) = Layout::from_size_align(self.capacity, ALIGN_BYTES)
        {
            // SAFETY: the memory was allocated in `reserve` with this very layout.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.free();
    }
}
