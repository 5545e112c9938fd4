//! Threads that share the work items of one kernel call at a time.
//!
//! Which thread does which item does not change a bit of the result, so items are handed out as threads become free:
//! a slow or busy core delays a run by one chunk at most.

use crate::RunError;
use crate::bind::BoundCall;
use crate::memory::Block;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicPtr, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{JoinHandle, Thread};

/// Operations of a call below which waking other threads costs more than it gains: about 10 µs of work.
const MIN_SHARED_FLOPS: i64 = 200_000;
/// Chunks per thread: few enough to cost nothing, enough to even out a slow core.
const CHUNKS_PER_THREAD: i64 = 4;
/// Turns of waiting before a thread goes to sleep: about 50 µs, longer than most gaps between kernels.
const SPINS: usize = 2_000;

/// One call as all threads see it.
#[derive(Clone, Copy)]
struct Job {
    call: BoundCall,
    args: *const *mut u8,
    params: *const i64,
    chunk: i64,
}

struct Shared {
    /// Written by the caller between calls only, while no worker reads it.
    job: std::cell::UnsafeCell<Option<Job>>,
    /// Counts calls; a worker that sees a new value takes part.
    epoch: AtomicU64,
    /// First item that nobody has taken.
    next: AtomicI64,
    /// Workers that have not finished the current call.
    busy: AtomicUsize,
    status: AtomicI64,
    stop: AtomicBool,
    asleep: Vec<AtomicBool>,
    scratch: Vec<AtomicPtr<u8>>,
}

// SAFETY: `job` is written only by the one caller that holds the pool, while `busy` is 0, and published by the release
// store of `epoch`; workers read it only between seeing the new epoch (acquire) and decrementing `busy` (release).
// The raw pointers in it are valid for that call.
unsafe impl Sync for Shared {}
// SAFETY: as for Sync; nothing in it is tied to a thread.
unsafe impl Send for Shared {}

/// A caller and `threads - 1` workers.
pub(crate) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
    handles: Vec<Thread>,
    scratch: Vec<Block>,
}

impl Pool {
    /// Starts the workers.
    ///
    /// **Errors**: a thread cannot be started.
    pub fn new(threads: usize) -> Result<Self, RunError> {
        let workers = threads.saturating_sub(1);
        let shared = Arc::new(Shared {
            job: std::cell::UnsafeCell::new(None),
            epoch: AtomicU64::new(0),
            next: AtomicI64::new(0),
            busy: AtomicUsize::new(0),
            status: AtomicI64::new(0),
            stop: AtomicBool::new(false),
            asleep: (0..workers).map(|_| AtomicBool::new(false)).collect(),
            scratch: (0..threads.max(1)).map(|_| AtomicPtr::new(std::ptr::null_mut())).collect(),
        });
        let scratch = (0..threads.max(1)).map(|_| Block::new("scratch")).collect();
        let mut pool = Pool { shared, workers: Vec::new(), handles: Vec::new(), scratch };
        for index in 0..workers {
            let shared = pool.shared.clone();
            let builder = std::thread::Builder::new().name(format!("rabot-{}", index + 1));
            let worker = builder.spawn(move || work(&shared, index))?;
            pool.handles.push(worker.thread().clone());
            pool.workers.push(worker);
        }
        Ok(pool)
    }

    /// Makes room for scratch memory.
    ///
    /// **Errors**: the memory cannot be had.
    pub fn reserve_scratch(&mut self, bytes: usize) -> Result<(), RunError> {
        for (block, slot) in self.scratch.iter_mut().zip(&self.shared.scratch) {
            block.reserve(bytes)?;
            slot.store(block.start(), Ordering::Relaxed);
        }
        Ok(())
    }

    /// Does all items of a call; gives the status word, 0 if all is well.
    ///
    /// # Safety
    ///
    /// `args` and `params` are what the call's kernel asks for (see [`rabot_codegen::KernelFn`]), and scratch memory
    /// is reserved.
    pub unsafe fn run(&mut self, call: &BoundCall, args: *const *mut u8, params: *const i64) -> i64 {
        let threads = self.workers.len() as i64 + 1;
        if threads == 1 || call.items < 2 || call.flops < MIN_SHARED_FLOPS {
            let mut status = 0i64;
            let scratch = self.scratch[0].start();
            // SAFETY: handed on from the caller; the status word is ours.
            unsafe { (call.function)(args, params, 0, call.items, scratch, &mut status) };
            return status;
        }
        let chunk = (call.items / (threads * CHUNKS_PER_THREAD)).max(1);
        let job = Job { call: *call, args, params, chunk };
        let shared = &*self.shared;
        // SAFETY: `busy` is 0 since the last call ended, so no worker reads the cell, and `&mut self` makes this the
        // only caller.
        unsafe { *shared.job.get() = Some(job) };
        shared.next.store(0, Ordering::Relaxed);
        shared.status.store(0, Ordering::Relaxed);
        shared.busy.store(self.workers.len(), Ordering::Relaxed);
        shared.epoch.fetch_add(1, Ordering::SeqCst);
        for (flag, thread) in shared.asleep.iter().zip(&self.handles) {
            if flag.swap(false, Ordering::SeqCst) {
                thread.unpark();
            }
        }
        take_items(shared, &job, 0);
        let mut spins = 0usize;
        while shared.busy.load(Ordering::Acquire) != 0 {
            spins += 1;
            if spins.is_multiple_of(SPINS) {
                // A worker's core is busy with something else: let it run.
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
        shared.status.load(Ordering::Relaxed)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        self.shared.epoch.fetch_add(1, Ordering::SeqCst);
        for worker in self.workers.drain(..) {
            worker.thread().unpark();
            // A worker that panicked has printed why; there is nothing left to do for it.
            let _ = worker.join();
        }
    }
}

/// Takes chunks of items until none is left.
fn take_items(shared: &Shared, job: &Job, thread: usize) {
    let scratch = shared.scratch[thread].load(Ordering::Relaxed);
    loop {
        let begin = shared.next.fetch_add(job.chunk, Ordering::Relaxed);
        if begin >= job.call.items {
            return;
        }
        let end = (begin + job.chunk).min(job.call.items);
        let mut status = 0i64;
        // SAFETY: the job is valid until `busy` is 0 (see `Pool::run`); items of different chunks write different
        // elements, and each thread has its own scratch memory.
        unsafe { (job.call.function)(job.args, job.params, begin, end, scratch, &mut status) };
        if status != 0 {
            shared.status.store(status, Ordering::Relaxed);
        }
    }
}

fn work(shared: &Shared, index: usize) {
    let mut seen = 0u64;
    loop {
        wait(shared, index, seen);
        seen = shared.epoch.load(Ordering::Acquire);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        // SAFETY: the epoch has changed and this worker has not decremented `busy` since, so the caller does not write.
        let job = unsafe { *shared.job.get() };
        if let Some(job) = job {
            take_items(shared, &job, index + 1);
        }
        shared.busy.fetch_sub(1, Ordering::Release);
    }
}

/// Waits for the epoch to leave `seen`: spinning for a while, then asleep.
fn wait(shared: &Shared, index: usize, seen: u64) {
    for _ in 0..SPINS {
        if shared.epoch.load(Ordering::Acquire) != seen {
            return;
        }
        std::hint::spin_loop();
    }
    loop {
        shared.asleep[index].store(true, Ordering::SeqCst);
        // Looked at again after the flag is up, so that no wake-up is missed.
        if shared.epoch.load(Ordering::SeqCst) != seen {
            shared.asleep[index].store(false, Ordering::SeqCst);
            return;
        }
        std::thread::park();
        if shared.epoch.load(Ordering::SeqCst) != seen {
            shared.asleep[index].store(false, Ordering::SeqCst);
            return;
        }
    }
}

/// A lock that a panic elsewhere does not poison: what it guards is rebuilt by every run.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
