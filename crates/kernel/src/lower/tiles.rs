//! Which contractions the tile unit takes, and their blocks.
//!
//! Six products of pieces in bf16 are as exact as one in f32. On the tile unit they take less than half the time of
//! multiply-adds, but operands that are not constant must be cut into pieces first, and tiles that are not full take as
//! long as full ones.

use super::Lowering;
use super::blocks::{WIDE_TILES, even_blocks};
use super::contract::{Axes, Product};
use super::conv::Convolution;
use crate::tiles::blocks_together;
use crate::{Operand, TILE_COLUMNS, TILE_ROWS, TILE_TERMS, Tile, Tiles};
use rabot_ir::Dim;
use rabot_target::Arch;
use rabot_tensor::DType;

/// Pieces of an f32: all of it.
const PIECES: usize = 3;

/// What the tile unit and 512-bit vectors need of a machine.
const FEATURES: [&str; 8] =
    ["amx-tile", "amx-bf16", "avx512f", "avx512bw", "avx512dq", "avx512vl", "bmi2", "fma"];

/// Nanoseconds of a multiply-add on vectors, and of one by six products on tiles (measured on Sapphire Rapids: 170 and
/// 320 GFLOP/s). Only their ratio to each other and to the next ones counts.
const VECTOR_NS: f64 = 2.0 / 170.0;
const TILE_NS: f64 = 2.0 / 320.0;

/// Nanoseconds for cutting an f32 into three pieces, and for a part of a line of a tile of sums beside its products.
const SPLIT_NS: f64 = 0.2;
const SUMS_NS: f64 = 100.0;

/// Bytes of a block of an operand that is cut into pieces as the kernel runs: a part of the second-level cache.
const BLOCK_BYTES: usize = 768 << 10;

/// Columns that are cut at a time.
const LANES: usize = 16;

/// A size of images that is not known.
const TYPICAL_SIZE: i64 = 64;

/// Tiles of rows from which on the tile unit must be faster, where only the run tells how many there are.
const MOST_LEAST_TILES: usize = 8;

/// Items below which a block is cut further, so that threads can share it.
const MIN_ITEMS: usize = 4;

/// Blocks of a contraction, and the unit that takes its products.
#[derive(Clone, Copy)]
pub(super) struct Blocking {
    /// The blocks.
    pub tile: Tile,
    /// Set for the tile unit.
    pub tiles: Option<Tiles>,
}

/// Sizes of a contraction, as known.
struct Sizes {
    m: usize,
    n: usize,
    /// Channels of a tap.
    channels: usize,
    taps: usize,
    /// Elements that are cut into pieces as the kernel runs, with those that fill vectors.
    split: usize,
    /// Lines of an image, each of which has an epilogue of its own.
    lines: usize,
}

impl Sizes {
    /// True if tiles take less time than vectors.
    fn suit_tiles(&self) -> bool {
        let product = |sizes: [usize; 4]| sizes.iter().map(|size| *size as f64).product::<f64>();
        let vectors = product([self.m, self.n, self.channels, self.taps]) * VECTOR_NS;
        let full = [
            self.m.next_multiple_of(TILE_ROWS),
            self.n.next_multiple_of(TILE_ROWS),
            self.channels.next_multiple_of(TILE_TERMS),
            self.taps,
        ];
        let parts = self.n.div_ceil(TILE_COLUMNS) + self.lines;
        let sums = self.m.div_ceil(TILE_COLUMNS) as f64 * parts as f64;
        product(full) * TILE_NS + self.split as f64 * SPLIT_NS + sums * SUMS_NS < vectors
    }
}

/// A size that is a product of symbols is at least that for the least ones.
fn least(dim: &Dim, symbol: i64) -> usize {
    dim.eval(&|_| Some(symbol)).ok().and_then(|size| usize::try_from(size).ok()).unwrap_or(0)
}

impl Lowering<'_, '_, '_> {
    fn has_tile_unit(&self) -> bool {
        let profile = self.b.profile;
        profile.arch == Arch::X86_64 && FEATURES.iter().all(|feature| profile.has(feature))
    }

    /// Blocks of a convolution in f32 on the tile unit, if that is faster. `image` is the operand B.
    pub(super) fn conv_tiles(&self, conv: &Convolution, result: &[Dim], image: &Operand) -> Option<Blocking> {
        if !self.has_tile_unit() || conv.x.dtype != DType::F32 || result.len() > 4 {
            return None;
        }
        let outputs: Vec<usize> = result[2..].iter().map(|dim| least(dim, TYPICAL_SIZE)).collect();
        let pixels: usize = outputs.iter().product();
        let channels = conv.channels;
        let (blocks, rows) = (channels.div_ceil(TILE_TERMS), conv.rows());
        let padded = channels.next_multiple_of(TILE_TERMS);
        let mut sizes = Sizes { m: rows, n: pixels, channels, taps: 1, split: padded * pixels, lines: 0 };
        let taps = if let Operand::Patches(patches) = image { patches.kernel.iter().product() } else { 1 };
        let together = blocks_together(blocks, taps, false).unwrap_or(blocks);
        let pixel_bytes = together * TILE_TERMS * PIECES * 2;
        let columns = even_blocks(&Dim::from(pixels), BLOCK_BYTES / pixel_bytes, TILE_COLUMNS);
        let (tiles, columns) = match image {
            Operand::Patches(patches) => {
                let axes = patches.kernel.len();
                let phases: usize = (0..axes).map(|axis| patches.phases(axis)).product();
                sizes.taps = taps;
                match outputs[..] {
                    [_] => {
                        sizes.split = padded * phases * (pixels + patches.reach(0));
                        (Tiles { pieces: PIECES, lines: 0, least_rows: 0 }, columns)
                    }
                    [height, width] => {
                        let line = width + patches.reach(1);
                        sizes.n = height * line;
                        let vectors = line.next_multiple_of(LANES);
                        sizes.split = padded * phases * (height + patches.reach(0)) * vectors;
                        sizes.lines = height;
                        let most = (BLOCK_BYTES / (pixel_bytes * phases * line).max(1))
                            .saturating_sub(patches.reach(0));
                        let lines = block_lines(height, most.max(1));
                        (Tiles { pieces: PIECES, lines, least_rows: 0 }, (lines * width).max(1))
                    }
                    _ => return None,
                }
            }
            Operand::Strided { .. } => (Tiles { pieces: PIECES, lines: 0, least_rows: 0 }, columns),
            Operand::Packed { .. } => return None,
        };
        if !sizes.suit_tiles() {
            return None;
        }
        let whole = columns >= pixels && result[2..].iter().all(|dim| dim.as_const().is_some());
        let parts = if whole && rows >= MIN_ITEMS * TILE_COLUMNS { MIN_ITEMS } else { 1 };
        let block = even_blocks(&Dim::from(rows), rows.div_ceil(parts), TILE_COLUMNS);
        let tile = Tile { mr: TILE_COLUMNS, nr: TILE_COLUMNS, rows: block, columns };
        Some(Blocking { tile, tiles: Some(tiles) })
    }

    /// Blocks of a matrix product in f32 on the tile unit, if that is faster. `is_constant`: B is, and all of the batch
    /// shares it.
    pub(super) fn matmul_tiles(&self, product: &Product, axes: &Axes, is_constant: bool) -> Option<Blocking> {
        let floats = product.a.dtype == DType::F32 && product.b.dtype == DType::F32;
        if !self.has_tile_unit() || !floats || !product.a_k.is(1) {
            return None;
        }
        let size =
            |dim: &Option<super::exprs::LoopDim>| dim.as_ref().map_or(Dim::from(1), |d| d.size.clone());
        let (m, n) = (size(&axes.row), size(&axes.column));
        let [rows, columns, k] = [&m, &n, &product.k].map(|dim| least(dim, 1));
        let suits = |rows: usize| {
            let split = rows * k + columns * k;
            (Sizes { m: rows, n: columns, channels: k, taps: 1, split, lines: 0 }).suit_tiles()
        };
        // Panels that both units read hold whole blocks of terms.
        let either = is_constant && m.as_const().is_none() && k.is_multiple_of(TILE_TERMS);
        let least_rows = match suits(rows) {
            true => 0,
            false if either => {
                (1..=MOST_LEAST_TILES).map(|tiles| tiles * TILE_ROWS).find(|rows| suits(*rows))?
            }
            false => return None,
        };
        // Of many terms, those of A that are taken at a time are to stay in the cache.
        let blocks = k.div_ceil(TILE_TERMS);
        let together = if is_constant { blocks_together(blocks, 1, true) } else { None };
        let most = BLOCK_BYTES / (together.unwrap_or(blocks) * TILE_TERMS * PIECES * 2).max(1);
        let (mr, nr) = if least_rows > 0 { WIDE_TILES[0] } else { (TILE_COLUMNS, TILE_COLUMNS) };
        let (rows, columns) = if least_rows > 0 {
            // Whole tiles of both units.
            (TILE_COLUMNS * mr / 2, even_blocks(&n, 256, TILE_COLUMNS))
        } else if is_constant {
            (even_blocks(&m, most, TILE_COLUMNS), even_blocks(&n, 256, TILE_COLUMNS))
        } else {
            (even_blocks(&m, most.min(256), TILE_COLUMNS), even_blocks(&n, most, TILE_COLUMNS))
        };
        let tile = Tile { mr, nr, rows, columns };
        Some(Blocking { tile, tiles: Some(Tiles { pieces: PIECES, lines: 0, least_rows }) })
    }
}

/// Lines of a block: `most` at most, as equal as can be, and enough blocks to share where there are lines enough.
fn block_lines(height: usize, most: usize) -> usize {
    let blocks = height.div_ceil(most).max(if height >= 4 * MIN_ITEMS { MIN_ITEMS } else { 1 });
    height.div_ceil(blocks).max(1)
}
