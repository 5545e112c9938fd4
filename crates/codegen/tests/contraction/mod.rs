//! Running contractions that are written by hand, in memory that ends where it must not be touched.

#![allow(dead_code, reason = "each test binary uses its part")]

use crate::common::plan;
use rabot_codegen::{KernelFn, compile_jit};
use rabot_ir::Dim;
use rabot_kernel::{ContractKernel, KernelDesc, scratch_bytes};
use rabot_target::Profile;

/// Bytes that end at a page that may not be touched.
pub struct Guarded {
    map: *mut u8,
    map_bytes: usize,
    start: *mut u8,
    len: usize,
}

const PAGE: usize = 4096;

impl Guarded {
    pub fn new(bytes: &[u8]) -> Guarded {
        let map_bytes = bytes.len().next_multiple_of(PAGE) + PAGE;
        // SAFETY: a fresh private mapping; the last page of it is made inaccessible. `start..start + len` lies before
        // that page.
        unsafe {
            let protection = libc::PROT_READ | libc::PROT_WRITE;
            let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
            let map = libc::mmap(std::ptr::null_mut(), map_bytes, protection, flags, -1, 0).cast::<u8>();
            assert_ne!(map.cast(), libc::MAP_FAILED);
            assert_eq!(libc::mprotect(map.add(map_bytes - PAGE).cast(), PAGE, libc::PROT_NONE), 0);
            let start = map.add(map_bytes - PAGE - bytes.len());
            start.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len());
            Guarded { map, map_bytes, start, len: bytes.len() }
        }
    }

    pub fn pointer(&self) -> *mut u8 {
        self.start
    }

    pub fn bytes(&self) -> Vec<u8> {
        // SAFETY: `start..start + len` is inside the mapping, which lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start, self.len) }.to_vec()
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        // SAFETY: the mapping is this one's own, and nothing borrows from it.
        unsafe { libc::munmap(self.map.cast(), self.map_bytes) };
    }
}

/// Work items of a kernel with these sizes.
pub fn items(kernel: &ContractKernel, batch: usize, m: usize, n: usize) -> i64 {
    (batch * m.div_ceil(kernel.tile.rows) * n.div_ceil(kernel.tile.columns)) as i64
}

/// Runs a kernel at once and in pieces, which must agree; returns the last buffer.
pub fn run(
    kernel: &ContractKernel,
    profile: &Profile,
    params: &[i64],
    items: i64,
    k: usize,
    buffers: &[Vec<u8>],
) -> Vec<u8> {
    let scratch = scratch_bytes(kernel, &Dim::from(k)).as_usize().unwrap();
    run_in(kernel, profile, params, items, scratch, buffers)
}

/// As [`run`] with so many bytes of scratch memory.
pub fn run_in(
    kernel: &ContractKernel,
    profile: &Profile,
    params: &[i64],
    items: i64,
    scratch: usize,
    buffers: &[Vec<u8>],
) -> Vec<u8> {
    let program = compile_jit(&plan(KernelDesc::Contract(kernel.clone())), profile).unwrap();
    let function: KernelFn = program.kernel(0).unwrap();
    let call = |step: i64| {
        let guarded: Vec<Guarded> = buffers.iter().map(|buffer| Guarded::new(buffer)).collect();
        let pointers: Vec<*mut u8> = guarded.iter().map(Guarded::pointer).collect();
        let scratch = Guarded::new(&vec![0xff; scratch]);
        let mut status = 0i64;
        let mut begin = 0;
        while begin < items {
            let end = (begin + step).min(items);
            // SAFETY: a buffer for each argument and the scratch memory that the kernel asks for; what lies behind
            // them faults, so a kernel that leaves them cannot go unnoticed.
            unsafe {
                function(pointers.as_ptr(), params.as_ptr(), begin, end, scratch.pointer(), &mut status);
            }
            begin = end;
        }
        assert_eq!(status, 0);
        guarded[guarded.len() - 1].bytes()
    };
    let whole = call(items.max(1));
    assert!(whole == call(1), "the partition changes the result");
    whole
}

/// A machine with neither vectors nor a multiply-add, which this one can play.
pub fn scalar() -> Profile {
    Profile {
        name: "scalar".to_owned(),
        vector_bits: 0,
        fma: false,
        ..Profile::by_name("x86-64-v2").unwrap()
    }
}
