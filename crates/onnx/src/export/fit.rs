//! What a file leaves out so that it is not larger than it should be.

use super::Exported;
use super::error::ExportError;
use super::graph::Layout;
use super::repeated::Repeated;

/// Constants of fewer bytes are smaller than the nodes that would compute them.
const SMALLEST_COMPUTED: u64 = 128;

/// Writes a model in at most `fit` bytes, or in as few as can be: with all constants stored if that fits, without types
/// of values in between if it does not, with constants computed that repeat one element, or one a row, if that does not either.
///
/// `sizes` are the bytes of such constants, `write` makes the file.
///
/// **Errors**: what `write` says.
pub(super) fn fitting(
    fit: u64,
    sizes: &[u64],
    write: &mut dyn FnMut(Layout) -> Result<Exported, ExportError>,
) -> Result<Exported, ExportError> {
    let stored_bytes = |limit: u64, sizes: &[u64]| {
        sizes.iter().filter(|&&size| size < limit).fold(0u64, |sum, &size| sum.saturating_add(size))
    };
    let layout = |typed, limit| Layout { typed, repeated: Repeated::StoredBelow(limit) };
    let smaller = |found: Option<Exported>, made: Exported| match found {
        Some(found) if found.bytes() <= made.bytes() => found,
        _ => made,
    };
    let mut smallest: Option<Exported> = None;
    // What alone is too large is not put together.
    if stored_bytes(u64::MAX, sizes) <= fit {
        for typed in [true, false] {
            let made = write(layout(typed, u64::MAX))?;
            if made.bytes() <= fit {
                return Ok(made);
            }
            smallest = Some(smaller(smallest, made));
        }
    }
    let mut limits: Vec<u64> = sizes.iter().copied().filter(|&size| size >= SMALLEST_COMPUTED).collect();
    limits.sort_unstable();
    limits.dedup();
    // The largest limit with which the file fits: those before `low` do, those from `high` on do not.
    let (mut low, mut high, mut fitting) = (0, limits.len(), None);
    while low < high {
        let middle = low.midpoint(high);
        if stored_bytes(limits[middle], sizes) > fit {
            high = middle;
            continue;
        }
        let made = write(layout(false, limits[middle]))?;
        if made.bytes() <= fit {
            (low, fitting) = (middle + 1, Some(made));
        } else {
            high = middle;
            smallest = Some(smaller(smallest, made));
        }
    }
    match fitting.or(smallest) {
        Some(made) => Ok(made),
        None => write(layout(false, limits.first().copied().unwrap_or(0))),
    }
}
