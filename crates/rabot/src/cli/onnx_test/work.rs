//! Work on several threads whose results are taken in order.

use super::Failure;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc;
use std::thread;

/// Deeply nested models take deep recursion.
const STACK_BYTES: usize = 64 << 20;

/// Applies `work` to every item on `jobs` threads; gives the results to `take` in the order of the items, each as soon
/// as those before it are there.
///
/// **Errors**: a thread cannot be started.
pub(super) fn in_order<T: Sync, R: Send>(
    items: &[T],
    jobs: usize,
    work: impl Fn(&T) -> R + Sync,
    mut take: impl FnMut(R),
) -> Result<(), Failure> {
    let next = AtomicUsize::new(0);
    let (send, receive) = mpsc::channel();
    thread::scope(|scope| {
        for _ in 0..jobs.min(items.len()) {
            let (send, next, work) = (send.clone(), &next, &work);
            let run = move || {
                while let Some((at, item)) = claim(items, next) {
                    // Nobody takes results any more if this fails.
                    if send.send((at, work(item))).is_err() {
                        return;
                    }
                }
            };
            thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn_scoped(scope, run)
                .map_err(|error| Failure::new(format!("cannot start a thread: {error}")))?;
        }
        drop(send);
        let mut waiting = BTreeMap::new();
        let mut due = 0;
        for (at, result) in receive {
            waiting.insert(at, result);
            while let Some(result) = waiting.remove(&due) {
                take(result);
                due += 1;
            }
        }
        Ok(())
    })
}

fn claim<'a, T>(items: &'a [T], next: &AtomicUsize) -> Option<(usize, &'a T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    items.get(at).map(|item| (at, item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn results_keep_their_order() {
        let items: Vec<u64> = (0..40).collect();
        let mut seen = Vec::new();
        let work = |item: &u64| {
            thread::sleep(Duration::from_millis((*item * 7) % 5));
            *item
        };
        in_order(&items, 8, work, |result| seen.push(result)).unwrap();
        assert_eq!(seen, items);
    }
}
