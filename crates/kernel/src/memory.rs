//! Where buffers lie in the arena.

/// A buffer's size and when it is live.
#[derive(Clone, Copy, Debug)]
pub struct Interval {
    /// Bytes it takes.
    pub bytes: usize,
    /// First step that touches it.
    pub first: usize,
    /// Last step that touches it.
    pub last: usize,
}

/// Alignment of every buffer: a cache line, and the row of a tile unit.
pub const BUFFER_ALIGN_BYTES: usize = 64;

/// Slack after every buffer, so that a vector load of its last element stays inside the arena.
const SLACK_BYTES: usize = 64;

/// Offsets for buffers such that no two that are live at the same step overlap, and the size of the arena.
///
/// Greedy by size: the largest first, each at the lowest gap that fits. `None` if the total overflows.
pub fn assign_offsets(intervals: &[Interval]) -> Option<(Vec<usize>, usize)> {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&i| (std::cmp::Reverse(intervals[i].bytes), i));
    let mut offsets = vec![0usize; intervals.len()];
    let mut placed: Vec<(usize, usize, usize)> = Vec::new(); // (offset, end, interval), by offset
    let mut total = 0usize;
    for index in order {
        let wanted = intervals[index];
        let bytes = wanted.bytes.checked_add(SLACK_BYTES)?.checked_next_multiple_of(BUFFER_ALIGN_BYTES)?;
        let mut offset = 0usize;
        for &(start, end, other) in &placed {
            let other = intervals[other];
            let overlaps_in_time = other.first <= wanted.last && wanted.first <= other.last;
            if !overlaps_in_time {
                continue;
            }
            if start >= offset.checked_add(bytes)? {
                break;
            }
            offset = offset.max(end);
        }
        let end = offset.checked_add(bytes)?;
        let at = placed.partition_point(|&(start, _, _)| start < offset);
        placed.insert(at, (offset, end, index));
        offsets[index] = offset;
        total = total.max(end);
    }
    Some((offsets, total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn live_buffers_never_overlap_and_dead_ones_are_reused() {
        let interval = |bytes, first, last| Interval { bytes, first, last };
        let intervals = [interval(1000, 0, 1), interval(1000, 1, 2), interval(900, 2, 3), interval(10, 0, 3)];
        let (offsets, total) = assign_offsets(&intervals).unwrap();
        for (i, a) in intervals.iter().enumerate() {
            for (j, b) in intervals.iter().enumerate().skip(i + 1) {
                if a.first <= b.last && b.first <= a.last {
                    let apart = offsets[i] + a.bytes <= offsets[j] || offsets[j] + b.bytes <= offsets[i];
                    assert!(apart, "{i} and {j}");
                }
            }
        }
        assert!(total < 1000 + 1000 + 900, "{total}");
        assert!(assign_offsets(&[interval(usize::MAX, 0, 0)]).is_none());
    }
}
