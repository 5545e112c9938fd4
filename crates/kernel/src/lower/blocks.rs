//! Blocks and tiles of contractions.

use crate::Tile;
use rabot_ir::Dim;

/// Elements of a block of B that is packed when the kernel runs: 256 KiB of f32, a part of the second-level cache.
const BLOCK_ELEMENTS: i64 = 65536;
/// Items below which a contraction is cut further, so that threads can share it.
const MIN_ITEMS: i64 = 4;

/// `count` cut into blocks of at most `max`, a multiple of `unit`, as equal as can be.
pub(super) fn even_blocks(count: &Dim, max: usize, unit: usize) -> usize {
    let max = max.max(unit) / unit * unit;
    match count.as_usize() {
        None => max,
        Some(count) => {
            let blocks = count.div_ceil(max).max(1);
            count.div_ceil(blocks).next_multiple_of(unit).max(unit)
        }
    }
}

/// Lanes of f32 in 512 bits.
pub(super) const WIDE: usize = 16;

/// Rows and columns of tiles in 32 registers of 512 bits: accumulators, a row of B, and two for the factors of A.
pub(super) const WIDE_TILES: [(usize, usize); 3] = [(14, 2 * WIDE), (9, 3 * WIDE), (24, WIDE)];

/// The tile for a number of columns: wide ones load less for a multiply-add, narrow ones waste less at the edge.
pub(super) fn wide_tile(columns: usize) -> (usize, usize) {
    let wasted = |nr: usize| columns.div_ceil(nr).saturating_mul(nr) - columns;
    WIDE_TILES.into_iter().min_by_key(|(_, nr)| wasted(*nr)).unwrap_or(WIDE_TILES[0])
}

/// Blocks of a matrix product. Where B is packed already, items are cut along the columns so that each streams its
/// own weights; else along the rows, so that few blocks of B are packed more than once.
pub(super) fn blocks(tile: Tile, m: &Dim, n: &Dim, k: &Dim, batch: &Dim, packed_b: bool) -> Tile {
    let k = k.as_const().unwrap_or(256).max(1);
    let (rows, mut columns) = if packed_b {
        (even_blocks(m, 384, tile.mr), even_blocks(n, 256, tile.nr))
    } else {
        let widest = (BLOCK_ELEMENTS / k).clamp(tile.nr as i64, 512) as usize;
        (even_blocks(m, 768, tile.mr), even_blocks(n, widest, tile.nr))
    };
    if let (Some(batch), Some(m), Some(n)) = (batch.as_const(), m.as_usize(), n.as_usize()) {
        let items = batch * (m.div_ceil(rows) * n.div_ceil(columns)) as i64;
        if items < MIN_ITEMS && n * k as usize >= 16384 {
            columns = even_blocks(&Dim::from(n), n.div_ceil(MIN_ITEMS as usize), tile.nr);
        }
    }
    Tile { rows, columns, ..tile }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_even_and_whole_tiles() {
        assert_eq!(even_blocks(&Dim::from(49), 1024, 8), 56);
        assert_eq!(even_blocks(&Dim::from(1000), 512, 8), 504);
        assert_eq!(even_blocks(&Dim::from(0), 512, 8), 8);
        assert_eq!(even_blocks(&Dim::symbol("n"), 100, 8), 96);
    }
}
