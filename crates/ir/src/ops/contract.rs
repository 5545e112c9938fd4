//! The one product loop of the interpreter: rows times columns, summed over the depth.
//!
//! Sums run in order of the depth, in f64 or in wrapping integers. Columns are gathered into panels once and
//! used by all rows, so that the oracle takes seconds, not minutes, on real models.

/// A number that products are summed in.
pub(super) trait Acc: Copy + Default {
    /// `self + a * b`.
    fn plus_product(self, a: Self, b: Self) -> Self;
}

impl Acc for f64 {
    fn plus_product(self, a: f64, b: f64) -> f64 {
        self + a * b
    }
}

impl Acc for i32 {
    fn plus_product(self, a: i32, b: i32) -> i32 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

impl Acc for i64 {
    fn plus_product(self, a: i64, b: i64) -> i64 {
        self.wrapping_add(a.wrapping_mul(b))
    }
}

/// Columns of a panel.
pub(super) const PANEL: usize = 4;

/// Rows computed together. With the columns of a panel they fill the vector registers of any x86-64.
const ROWS: usize = 4;

/// Elements of all panels held at once: 1 MiB of f64, so that they stay in the cache.
const PANEL_ELEMENTS: usize = 1 << 17;

/// Multiplies `a`, row-major `[rows, depth]`, by a matrix of `columns` columns.
///
/// `pack(column, panel)` writes the columns from `column` on into `panel`, `[depth, PANEL]`; what it does not
/// write stays zero or unused. `store(row, column, values)` takes the results of one row.
pub(super) fn multiply<T: Acc>(
    a: &[T],
    [rows, depth, columns]: [usize; 3],
    mut pack: impl FnMut(usize, &mut [T]),
    mut store: impl FnMut(usize, usize, &[T]),
) {
    let panel_len = depth * PANEL;
    let panels = (PANEL_ELEMENTS / panel_len.max(1)).clamp(1, columns.div_ceil(PANEL).max(1));
    let mut buffer = vec![T::default(); panels * panel_len];
    for first in (0..columns).step_by(panels * PANEL) {
        let here = (columns - first).div_ceil(PANEL).min(panels);
        for panel in 0..here {
            pack(first + panel * PANEL, &mut buffer[panel * panel_len..][..panel_len]);
        }
        for row in (0..rows).step_by(ROWS) {
            for panel in 0..here {
                let column = first + panel * PANEL;
                let width = PANEL.min(columns - column);
                let block = &buffer[panel * panel_len..][..panel_len];
                if row + ROWS <= rows {
                    let sums = four_rows(&a[row * depth..][..ROWS * depth], depth, block);
                    for (i, sums) in sums.iter().enumerate() {
                        store(row + i, column, &sums[..width]);
                    }
                } else {
                    for row in row..rows {
                        store(row, column, &one_row(&a[row * depth..][..depth], block)[..width]);
                    }
                }
            }
        }
    }
}

fn four_rows<T: Acc>(a: &[T], depth: usize, panel: &[T]) -> [[T; PANEL]; ROWS] {
    let mut sums = [[T::default(); PANEL]; ROWS];
    let (a0, rest) = a.split_at(depth);
    let (a1, rest) = rest.split_at(depth);
    let (a2, a3) = rest.split_at(depth);
    let rows = a0.iter().zip(a1).zip(a2).zip(a3);
    for (b, (((&a0, &a1), &a2), &a3)) in panel.chunks_exact(PANEL).zip(rows) {
        for (sums, a) in sums.iter_mut().zip([a0, a1, a2, a3]) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum = sum.plus_product(a, b);
            }
        }
    }
    sums
}

fn one_row<T: Acc>(a: &[T], panel: &[T]) -> [T; PANEL] {
    let mut sums = [T::default(); PANEL];
    for (b, &a) in panel.chunks_exact(PANEL).zip(a) {
        for (sum, &b) in sums.iter_mut().zip(b) {
            *sum = sum.plus_product(a, b);
        }
    }
    sums
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every mix of whole and partial row blocks and panels, and more panels than are held at once.
    #[test]
    fn equals_the_textbook_product() {
        for (rows, depth, columns) in [(1, 1, 1), (4, 3, 4), (5, 7, 9), (3, 0, 2), (0, 2, 5), (9, 40_000, 6)]
        {
            let a: Vec<i64> = (0..rows * depth).map(|i| i as i64 % 7 - 3).collect();
            let b: Vec<i64> = (0..depth * columns).map(|i| i as i64 % 5 - 2).collect();
            let mut y = vec![i64::MAX; rows * columns];
            let pack = |first: usize, panel: &mut [i64]| {
                for (k, slot) in panel.chunks_exact_mut(PANEL).enumerate() {
                    for j in 0..PANEL.min(columns - first) {
                        slot[j] = b[k * columns + first + j];
                    }
                }
            };
            let store = |row: usize, column: usize, values: &[i64]| {
                y[row * columns + column..][..values.len()].copy_from_slice(values);
            };
            multiply(&a, [rows, depth, columns], pack, store);
            for (i, &y) in y.iter().enumerate() {
                let (row, column) = (i / columns, i % columns);
                let expected: i64 = (0..depth).map(|k| a[row * depth + k] * b[k * columns + column]).sum();
                assert_eq!(y, expected, "{rows}x{depth}x{columns} at {i}");
            }
        }
    }
}
