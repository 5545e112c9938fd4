//! Operands of the tile unit: f32 cut into pieces of bf16, and images whose lines serve all taps of a window.
//!
//! A constant A is cut when it is packed: it is read again for each block of an image. A constant B, which a product reads
//! once for each block of rows, stays in f32 until then: two thirds of the bytes, and the vector unit reads the same
//! panels.

use crate::desc::{KEPT_BYTES, TILE_COLUMNS, TILE_ROWS, TILE_TERMS};
use crate::pack::{PackError, PackSource, in_panels};
use crate::{ContractKernel, Operand, Patches, Size};
use bytes::Bytes;
use half::f16;
use rabot_ir::Dim;
use rabot_tensor::DType;

/// Bytes of bf16.
const BF16_BYTES: usize = 2;

/// Bytes of f32.
const F32_BYTES: usize = 4;

/// Half of the last place of bf16, in the bits of an f32.
const HALF_PLACE: u32 = 0x8000;

/// The first number that bf16 rounds to infinity, in the bits of an f32.
const TOO_LARGE: u32 = 0x7f7f_8000;

/// Bytes of a pair of terms.
const PAIR_BYTES: usize = 4;

/// Bytes of one piece of a tile.
pub const TILE_BYTES: usize = TILE_ROWS * TILE_TERMS * BF16_BYTES;

/// Bytes of a block of terms of a panel of a constant B.
pub const BLOCK_BYTES: usize = TILE_COLUMNS * TILE_TERMS * F32_BYTES;

/// The smallest magnitude that the largest element of an operand may have, unless all are 0: below it, the last piece
/// of elements that matter could be a denormal, which the tile unit takes for 0.
pub const LEAST_LARGEST: f32 = 8.673_617e-19;

/// Which line, or place in a line, of a phase a tap reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tap {
    /// The phase: which of every `stride` elements.
    pub phase: usize,
    /// How far on from the window's beginning, in elements of the phase.
    pub distance: usize,
}

impl Patches {
    /// Phases of an axis: elements whose distance is a multiple of the window's step lie next to each other.
    pub fn phases(&self, axis: usize) -> usize {
        if self.kernel[axis] == 1 { 1 } else { self.strides[axis] }
    }

    /// What the taps of an axis read.
    pub fn taps(&self, axis: usize) -> Vec<Tap> {
        let (stride, dilation) = (self.strides[axis], self.dilations[axis]);
        let tap = |at: usize| Tap { phase: (at * dilation) % stride, distance: (at * dilation) / stride };
        (0..self.kernel[axis]).map(tap).collect()
    }

    /// Elements of a phase beyond those where windows begin.
    pub fn reach(&self, axis: usize) -> usize {
        self.taps(axis).iter().map(|tap| tap.distance).max().unwrap_or(0)
    }
}

impl ContractKernel {
    /// Taps of a window; 1 for matrices.
    pub fn taps(&self) -> usize {
        match &self.b {
            Operand::Patches(patches) => patches.kernel.iter().product(),
            Operand::Packed { .. } | Operand::Strided { .. } => 1,
        }
    }
}

/// Scratch memory of a kernel whose products the tile unit takes: the block of B, or a panel of a constant one, then that
/// of A, and the sums that wait. `columns` is the width of B's images, where it has lines.
///
/// **Units**: bytes.
pub fn tile_scratch_bytes(kernel: &ContractKernel, pieces: usize, k: &Dim, columns: &Dim) -> Dim {
    let taps = kernel.taps().max(1);
    let blocks = k.ceil_div(&Dim::from(taps * TILE_TERMS));
    let b = match &kernel.b {
        Operand::Packed { .. } => Dim::from(TILE_COLUMNS * PAIR_BYTES),
        Operand::Strided { .. } => row_bytes(Dim::from(kernel.tile.columns)),
        Operand::Patches(patches) => row_bytes(patch_elements(kernel, patches, columns)),
    };
    let a = match &kernel.a {
        Operand::Packed { .. } => 0,
        Operand::Strided { .. } | Operand::Patches(_) => {
            kernel.scratch_rows().div_ceil(TILE_ROWS) * pieces * TILE_BYTES
        }
    };
    let kept = if kernel.keeps_b { KEPT_BYTES } else { 0 };
    blocks * (b * Dim::from(pieces * TILE_ROWS) + Dim::from(a)) + sum_bytes(kernel, columns) + Dim::from(kept)
}

/// Tiles of terms, blocks times taps, that are taken at a time where a sum has more: then what is read again and again
/// stays in the second-level cache.
const TILES_TOGETHER: usize = 32;

/// Tiles of terms of an image that are still taken at once: parts of a sum are stored and loaded again.
const MOST_TILES_OF_IMAGE: usize = 128;

/// Blocks of terms that are taken at a time of so many with so many taps each, unless they are all taken at once.
/// `streams`: each panel of the constant operand is read once in an item, by all of the other.
pub fn blocks_together(blocks: usize, taps: usize, streams: bool) -> Option<usize> {
    let most = if streams { TILES_TOGETHER } else { MOST_TILES_OF_IMAGE };
    (blocks.saturating_mul(taps) > most).then(|| {
        let together = (TILES_TOGETHER / taps.max(1)).max(1);
        blocks.div_ceil(blocks.div_ceil(together))
    })
}

impl ContractKernel {
    /// Blocks of terms that are taken at a time, if the sums of a block wait in scratch memory for the rest.
    pub fn blocks_at_a_time(&self) -> Option<usize> {
        let (Some(_), Size::Const(k)) = (self.tiles, self.k) else { return None };
        let taps = self.taps().max(1);
        let blocks = usize::try_from(k).ok()?.div_ceil(taps * TILE_TERMS);
        match (&self.a, &self.b) {
            (_, Operand::Packed { .. }) => blocks_together(blocks, taps, true),
            (Operand::Packed { .. }, _) => blocks_together(blocks, taps, false),
            _ => None,
        }
    }
}

/// Bytes of the sums of a block that wait; `columns` is the width of B's images, where it has lines.
fn sum_bytes(kernel: &ContractKernel, columns: &Dim) -> Dim {
    if kernel.blocks_at_a_time().is_none() {
        return Dim::from(0);
    }
    let columns = match (&kernel.b, kernel.tiles.map_or(0, |tiles| tiles.lines)) {
        (Operand::Patches(patches), 1..) => patch_elements(kernel, patches, columns),
        _ => Dim::from(kernel.tile.columns),
    };
    let rows = kernel.tile.rows.next_multiple_of(TILE_COLUMNS);
    (columns + Dim::from(TILE_COLUMNS)) * Dim::from(rows * size_of::<f32>())
}

/// Elements of a block of an image, all phases of it.
fn patch_elements(kernel: &ContractKernel, patches: &Patches, columns: &Dim) -> Dim {
    let phases: usize = (0..patches.kernel.len()).map(|axis| patches.phases(axis)).product();
    let inner = patches.kernel.len() - 1;
    let (lines, width) = match kernel.tiles.map_or(0, |tiles| tiles.lines) {
        0 => (1, Dim::from(kernel.tile.columns)),
        lines => (lines + patches.reach(0), columns.clone()),
    };
    (width + Dim::from(patches.reach(inner))) * Dim::from(lines * phases)
}

/// An upper bound of the bytes of a row with so many pairs: whole cache lines, an odd number of them (then the rows of
/// a tile lie in different sets of the cache), and a tile more, which is read but not used.
fn row_bytes(elements: Dim) -> Dim {
    elements * Dim::from(PAIR_BYTES) + Dim::from(TILE_COLUMNS * PAIR_BYTES + 2 * 64)
}

/// The pieces of a finite f32: each is what is left, rounded to bf16.
#[inline(always)]
fn pieces(value: f32) -> [u16; 3] {
    let mut rest = value;
    [0; 3].map(|_| {
        let upper = (rest.to_bits() + HALF_PLACE) & 0xffff_0000;
        rest -= f32::from_bits(upper);
        (upper >> 16) as u16
    })
}

/// Packs a constant matrix as A into `[batch][⌈outer/16⌉][blocks][pieces][16][32]` of bf16; its terms are numbered
/// (channel, tap).
///
/// **Errors**: as [`pack_tiles_b`].
pub fn pack_tiles_a(source: &PackSource<'_>, count: usize, taps: usize) -> Result<Bytes, PackError> {
    source.check()?;
    match source.dtype {
        DType::F32 => pack_a(source, count, taps, f32::from_le_bytes),
        DType::F16 => pack_a(source, count, taps, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => pack_a(source, count, taps, widen_bf16),
        other => Err(PackError::DType(other, DType::BF16)),
    }
}

/// Packs a constant matrix as B into `[batch][⌈outer/32⌉][⌈terms/32⌉][32][32]` of f32, columns innermost.
///
/// **Errors**: a dtype that is no float; a matrix that is not inside its buffer; an infinity or NaN, or nothing but
/// very small numbers, see [`LEAST_LARGEST`].
pub fn pack_tiles_b(source: &PackSource<'_>) -> Result<Bytes, PackError> {
    source.check()?;
    match source.dtype {
        DType::F32 => pack_b(source, f32::from_le_bytes),
        DType::F16 => pack_b(source, |b| f16::from_le_bytes(b).to_f32()),
        DType::BF16 => pack_b(source, widen_bf16),
        other => Err(PackError::DType(other, DType::F32)),
    }
}

fn widen_bf16([low, high]: [u8; 2]) -> f32 {
    f32::from_le_bytes([0, 0, low, high])
}

fn pack_a<const N: usize>(
    source: &PackSource<'_>,
    count: usize,
    taps: usize,
    widen: impl Fn([u8; N]) -> f32 + Sync,
) -> Result<Bytes, PackError> {
    let elements = checked(source, &widen)?;
    let channels = source.k / taps.max(1);
    let blocks = channels.div_ceil(TILE_TERMS) * taps;
    in_panels(source, TILE_ROWS, blocks * count * TILE_TERMS, BF16_BYTES, |batch, first, block| {
        for (at, panel) in block.chunks_mut(blocks * count * TILE_BYTES).enumerate() {
            let first = first + at * TILE_ROWS;
            for (number, tile) in panel.chunks_mut(count * TILE_BYTES).enumerate() {
                let (channel, tap) = (number / taps * TILE_TERMS, number % taps);
                for row in 0..TILE_ROWS.min(source.outer - first) {
                    let start = source.index(batch, first + row, channel * taps + tap);
                    for term in 0..TILE_TERMS.min(channels - channel) {
                        let to = (row * TILE_TERMS + term) * BF16_BYTES;
                        let value = widen(elements[start + term * taps * source.k_stride]);
                        put(tile, count, TILE_BYTES, to, value);
                    }
                }
            }
        }
    })
}

fn pack_b<const N: usize>(
    source: &PackSource<'_>,
    widen: impl Fn([u8; N]) -> f32 + Sync,
) -> Result<Bytes, PackError> {
    let elements = checked(source, &widen)?;
    let terms = source.k.next_multiple_of(TILE_TERMS);
    let row_bytes = TILE_COLUMNS * F32_BYTES;
    in_panels(source, TILE_COLUMNS, terms, F32_BYTES, |batch, first, block| {
        for (at, panel) in block.chunks_mut(terms * row_bytes).enumerate() {
            let first = first + at * TILE_COLUMNS;
            for (term, row) in panel.chunks_mut(row_bytes).take(source.k).enumerate() {
                let start = source.index(batch, first, term);
                let columns = row.as_chunks_mut::<F32_BYTES>().0.iter_mut().take(source.outer - first);
                for (column, to) in columns.enumerate() {
                    *to = widen(elements[start + column * source.outer_stride]).to_le_bytes();
                }
            }
        }
    })
}

/// Writes the pieces of a value, `step` bytes apart.
fn put(tile: &mut [u8], count: usize, step: usize, to: usize, value: f32) {
    for (piece, bits) in pieces(value).into_iter().take(count).enumerate() {
        tile[piece * step + to..][..BF16_BYTES].copy_from_slice(&bits.to_le_bytes());
    }
}

/// The elements of a matrix, if the tile unit can multiply them.
fn checked<'s, const N: usize>(
    source: &PackSource<'s>,
    widen: &(impl Fn([u8; N]) -> f32 + Sync),
) -> Result<&'s [[u8; N]], PackError> {
    let (elements, _) = source.bytes.as_chunks::<N>();
    let largest = elements.iter().map(|value| widen(*value).to_bits() & 0x7fff_ffff).max().unwrap_or(0);
    if largest >= TOO_LARGE {
        return Err(PackError::NotFinite);
    }
    if largest > 0 && largest < LEAST_LARGEST.to_bits() {
        return Err(PackError::Small);
    }
    Ok(elements)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(bits: u16) -> f32 {
        f32::from_bits(u32::from(bits) << 16)
    }

    #[test]
    fn three_pieces_add_up() {
        for number in [0.0, -0.0, 1.0, -1.5e-3, 3.1234567, 3.38e38, f32::MIN_POSITIVE * 3e5, 16777215.0] {
            let [high, middle, low] = pieces(number).map(value);
            assert_eq!(high + (middle + low), number, "{number:e}");
        }
    }

    #[test]
    fn panels_hold_pieces_where_tiles_read_them() {
        let (outer, channels, taps) = (19, 35, 3);
        let numbers: Vec<f32> = (0..outer * channels * taps).map(|i| 1.0 + i as f32 * 0.37).collect();
        let bytes: Vec<u8> = numbers.iter().flat_map(|v| v.to_le_bytes()).collect();
        let source = PackSource {
            bytes: &bytes,
            dtype: DType::F32,
            offset: 0,
            batch: 1,
            batch_stride: 0,
            outer,
            outer_stride: channels * taps,
            k: channels * taps,
            k_stride: 1,
        };
        let bits = |packed: &[u8], at: usize| value(u16::from_le_bytes(packed.as_chunks().0[at]));
        let packed = pack_tiles_a(&source, 3, taps).unwrap();
        assert_eq!(packed.len(), 2 * 2 * taps * 3 * TILE_BYTES);
        for (row, channel, tap) in [(0, 0, 0), (18, 34, 2), (17, 31, 1), (3, 32, 0)] {
            let tile = (row / 16 * 2 + channel / 32) * taps + tap;
            let at = |piece| ((tile * 3 + piece) * 16 + row % 16) * 32 + channel % 32;
            let sum: f32 = (0..3).map(|piece| bits(&packed, at(piece))).sum();
            assert_eq!(sum, numbers[(row * channels + channel) * taps + tap]);
        }
        let packed = pack_tiles_b(&source).unwrap();
        assert_eq!(packed.len(), 4 * BLOCK_BYTES);
        let number = |at: usize| f32::from_le_bytes(packed.as_chunks().0[at]);
        let (column, term) = (18, 97);
        assert_eq!(number(term * 32 + column), numbers[column * channels * taps + term]);
        assert_eq!(number(110 * 32), 0.0);
    }

    #[test]
    fn numbers_without_three_pieces_are_refused() {
        let source = |bytes: &'static [u8]| PackSource {
            bytes,
            dtype: DType::F32,
            offset: 0,
            batch: 1,
            batch_stride: 0,
            outer: 1,
            outer_stride: 1,
            k: 1,
            k_stride: 1,
        };
        assert_eq!(pack_tiles_b(&source(&[0, 0, 0x80, 0x7f])), Err(PackError::NotFinite));
        assert_eq!(pack_tiles_a(&source(&[1, 0, 0, 0]), 3, 1), Err(PackError::Small));
        assert!(pack_tiles_a(&source(&[0, 0, 0, 0]), 3, 1).is_ok());
    }
}
