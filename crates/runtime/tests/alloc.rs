//! A run of a warm session allocates nothing, on any thread.

use rabot_ir::text::parse;
use rabot_runtime::{Program, Session, Tensors};
use rabot_target::Profile;
use rabot_tensor::Tensor;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

/// Counts what is asked of the system's allocator.
struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call goes to `System` with the arguments it came with, and its answer goes back unchanged; counting
// allocates nothing.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller keeps the contract of `GlobalAlloc::alloc`, which is that of `System`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the pointer came from `System` by the functions of this impl, with this layout.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the pointer came from `System` with this layout; the caller answers for the size.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// A contraction, a reduction by rows, a loop, a window and a move.
const MODEL: &str = r#"model "m"
input %0 "x" : f32[batch,4,12,12]
%1 = Constant rand(1, -1.0, 1.0) : f32[8,4,3,3]
%2 = Conv(%0, %1) {pads=[1,1,1,1]}
%3 = Relu(%2)
%4 = MaxPool(%3) {kernel_shape=[2,2], strides=[2,2]}
%5 = Flatten(%4) {axis=1}
%6 = Constant rand(2, -1.0, 1.0) : f32[288,10]
%7 = MatMul(%5, %6)
%8 = Softmax(%7) {axis=-1}
%9 = Concat(%8, %7) {axis=1}
output "y" = %9
"#;

fn image(batch: usize) -> Tensors {
    let values: Vec<f32> = (0..batch * 576).map(|i| (i % 7) as f32 - 3.0).collect();
    Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&[batch, 4, 12, 12], values))])
}

/// One test, for others would allocate while it counts.
#[test]
fn a_warm_run_allocates_nothing() {
    let profile = Profile::host().unwrap();
    let plan = rabot_kernel::stages(&parse(MODEL).unwrap(), &profile).unwrap();
    let program = Program::new(plan, &profile).unwrap();
    for threads in [1, 2] {
        let session = Session::with_threads(&program, threads).unwrap();
        let inputs = image(3);
        let mut sum = 0u64;
        let mut read = |_: usize, bytes: &[u8]| sum += bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
        let before_first = ALLOCATIONS.load(Ordering::SeqCst);
        session.run_with(&inputs, &mut read).unwrap();
        let before = ALLOCATIONS.load(Ordering::SeqCst);
        assert!(before > before_first, "the first run allocates its arena, so the counter must count");
        for _ in 0..20 {
            session.run_with(&inputs, &mut read).unwrap();
        }
        let count = ALLOCATIONS.load(Ordering::SeqCst) - before;
        assert_eq!(count, 0, "{count} allocations in 20 warm runs on {threads} threads");
        assert!(sum > 0);
    }
}
