//! Packing of matrix operands into panels, and the scratch memory of contractions.
//!
//! A and B are packed alike: the rows of A, or the columns of B, are the *outer* dim, cut into panels of `width`
//! (the micro-kernel's `mr` or `nr`). In f32 a panel is `[k][width]`; in integers `[⌈k/2⌉][width][2]` of i16, so that
//! one multiply-add of pairs takes two terms of the sum. What is beyond the matrix is zero.

use crate::{ContractKernel, Operand, Size};
use bytes::Bytes;
use half::f16;
use rabot_ir::Dim;
use rabot_tensor::DType;

/// A constant matrix to pack, or a batch of them.
#[derive(Clone, Copy, Debug)]
pub struct PackSource<'a> {
    /// Little-endian elements.
    pub bytes: &'a [u8],
    /// Their dtype: f32, f16 or bf16 for [`pack_f32`]; 8-bit or 4-bit integers for [`pack_i16`].
    pub dtype: DType,
    /// Index of the first element.
    pub offset: usize,
    /// Number of matrices.
    pub batch: usize,
    /// Distance of matrices, in elements.
    pub batch_stride: usize,
    /// Rows of A, or columns of B.
    pub outer: usize,
    /// Distance of rows of A, or of columns of B, in elements.
    pub outer_stride: usize,
    /// Terms of the sum.
    pub k: usize,
    /// Distance of terms, in elements.
    pub k_stride: usize,
}

/// A constant that cannot be packed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PackError {
    /// No packed form for this dtype.
    #[error("cannot pack a constant matrix of {0} into panels of {1}")]
    DType(DType, DType),
    /// The matrix does not lie in its buffer.
    #[error("constant matrix needs {needed} elements, its buffer has {available}")]
    Range {
        /// Elements up to the last one that would be read.
        needed: u128,
        /// Elements there are.
        available: usize,
    },
    /// The panels would not fit into memory.
    #[error("packed panels of {batch} matrices of {outer} × {k} do not fit into memory")]
    Size {
        /// Number of matrices.
        batch: usize,
        /// Rows of A, or columns of B.
        outer: usize,
        /// Terms of the sum.
        k: usize,
    },
    /// Infinities and NaN would become numbers, or numbers NaN.
    #[error("an infinity or NaN in a constant matrix whose panels hold numbers only")]
    NotFinite,
    /// The tile unit would take parts of the numbers for 0.
    #[error("nothing but very small numbers in a constant matrix for the tile unit")]
    Small,
    /// Zero points come one for all, or one for each row of A or column of B.
    #[error("{given} zero points for {outer} rows or columns")]
    ZeroPoints {
        /// How many were given.
        given: usize,
        /// How many there should be.
        outer: usize,
    },
}

/// Panels that one pass of a thread fills side by side, so that it reads whole cache lines of the source.
const PANELS_ABREAST: usize = 8;
/// Terms of the sum in one pass.
const TERMS_ABREAST: usize = 64;
/// Bytes of an f32, or of a pair of i16.
const BYTES_PER_TERM: usize = 4;
/// Packed bytes below which a second thread costs more than it gains.
const BYTES_PER_THREAD: usize = 1 << 20;

impl ContractKernel {
    /// True if rows of A with adjacent terms can be read in place: tiles of [`IN_PLACE_ROWS`] at most.
    pub fn reads_a_in_place(&self) -> bool {
        match &self.a {
            Operand::Strided { arg, k, .. } => {
                *k == Size::Const(1) && self.args.get(*arg).is_some_and(|arg| arg.dtype == DType::F32)
            }
            Operand::Packed { .. } | Operand::Patches(_) => false,
        }
    }

    /// True if an item packs A into scratch, or most of it.
    pub fn packs_a(&self) -> bool {
        let few = matches!(self.m, Size::Const(m) if m <= IN_PLACE_ROWS as i64);
        let ready = matches!(self.a, Operand::Packed { .. }) || (few && self.reads_a_in_place());
        !ready
    }

    /// True if an item packs B into scratch.
    pub fn packs_b(&self) -> bool {
        !matches!(self.b, Operand::Packed { .. })
    }

    /// Rows for which an item needs scratch: those of a block, or all there are if that is less.
    pub fn scratch_rows(&self) -> usize {
        at_most(self.m, self.tile.rows, self.tile.mr)
    }

    /// Columns for which an item needs scratch: those of a block, or all there are if that is less.
    pub fn scratch_columns(&self) -> usize {
        at_most(self.n, self.tile.columns, self.tile.nr)
    }
}

/// Whole panels that hold `extent`, and a block at most.
fn at_most(extent: Size, block: usize, panel: usize) -> usize {
    match extent {
        Size::Const(extent) => block.min(usize::try_from(extent).unwrap_or(0).next_multiple_of(panel)),
        Size::Param(_) => block,
    }
}

/// Rows of A that a micro-kernel reads in place at most: a pointer for each, and few enough that packing them would
/// cost more than it saves.
pub const IN_PLACE_ROWS: usize = 4;

/// Alignment of the pieces of scratch memory, in bytes.
pub const SCRATCH_ALIGN_BYTES: usize = 64;

/// Scratch memory that each thread needs for a kernel whose sum has `k` terms: the packed block of B, then that
/// of A, each a multiple of [`SCRATCH_ALIGN_BYTES`].
///
/// **Units**: bytes.
pub fn scratch_bytes(kernel: &ContractKernel, k: &Dim) -> Dim {
    let piece = |packed: bool, width: usize| match packed {
        false => Dim::from(0),
        true => {
            let align = Dim::from(SCRATCH_ALIGN_BYTES);
            let bytes = match kernel.accumulator == DType::F32 {
                true => k.clone() * Dim::from(width * BYTES_PER_TERM),
                false => k.ceil_div(&Dim::from(2)) * Dim::from(width * BYTES_PER_TERM),
            };
            bytes.ceil_div(&align) * align
        }
    };
    piece(kernel.packs_b(), kernel.scratch_columns()) + piece(kernel.packs_a(), kernel.scratch_rows())
}

/// Packs a float matrix into `[batch][⌈outer/width⌉][k][width]` of f32, little-endian.
///
/// **Errors**: a dtype that is not f32, f16 or bf16; a matrix that is not inside its buffer.
pub fn pack_f32(source: &PackSource<'_>, width: usize) -> Result<Bytes, PackError> {
    source.check()?;
    match source.dtype {
        DType::F32 => pack_f32_from(source, width, |b: [u8; 4]| b),
        DType::F16 => pack_f32_from(source, width, |b| f16::from_le_bytes(b).to_f32().to_le_bytes()),
        DType::BF16 => pack_f32_from(source, width, |b: [u8; 2]| [0, 0, b[0], b[1]]),
        other => Err(PackError::DType(other, DType::F32)),
    }
}

/// Packs a matrix of f16 or bf16 into panels as [`pack_f32`] does, of the same dtype.
///
/// **Errors**: a dtype that is not f16 or bf16; a matrix that is not inside its buffer; an infinity or NaN among f16,
/// which kernels widen without looking for them.
pub fn pack_half(source: &PackSource<'_>, width: usize) -> Result<Bytes, PackError> {
    source.check()?;
    match source.dtype {
        DType::F16 if source.bytes.as_chunks().0.iter().any(|b| !f16::from_le_bytes(*b).is_finite()) => {
            Err(PackError::NotFinite)
        }
        DType::F16 | DType::BF16 => pack_f32_from(source, width, |b: [u8; 2]| b),
        other => Err(PackError::DType(other, DType::F16)),
    }
}

/// Packs an integer matrix into `[batch][⌈outer/width⌉][⌈k/2⌉][width][2]` of i16, little-endian, zero points
/// subtracted. `zero_points` holds one for all, or one for each row of A or column of B.
///
/// **Errors**: a dtype of more than 8 bits; a matrix that is not inside its buffer; a wrong number of zero points.
pub fn pack_i16(source: &PackSource<'_>, width: usize, zero_points: &[i32]) -> Result<Bytes, PackError> {
    source.check()?;
    if zero_points.len() != 1 && zero_points.len() != source.outer {
        return Err(PackError::ZeroPoints { given: zero_points.len(), outer: source.outer });
    }
    match source.dtype {
        DType::I8 | DType::I4 | DType::I2 => {
            pack_i16_from(source, width, zero_points, |b| i32::from(b as i8))
        }
        DType::U8 | DType::U4 | DType::U2 => pack_i16_from(source, width, zero_points, i32::from),
        other => Err(PackError::DType(other, DType::I16)),
    }
}

impl PackSource<'_> {
    pub(crate) fn check(&self) -> Result<(), PackError> {
        if self.batch == 0 || self.outer == 0 || self.k == 0 {
            return Ok(());
        }
        let span = |count: usize, stride: usize| (count as u128 - 1) * stride as u128;
        let needed = self.offset as u128
            + span(self.batch, self.batch_stride)
            + span(self.outer, self.outer_stride)
            + span(self.k, self.k_stride)
            + 1;
        let available = self.bytes.len() / self.dtype.size_bytes().max(1);
        if needed > available as u128 { Err(PackError::Range { needed, available }) } else { Ok(()) }
    }

    /// Index of an element of the matrix `batch`.
    pub(crate) fn index(&self, batch: usize, outer: usize, k: usize) -> usize {
        self.offset + batch * self.batch_stride + outer * self.outer_stride + k * self.k_stride
    }
}

fn pack_f32_from<const N: usize, const M: usize>(
    source: &PackSource<'_>,
    width: usize,
    widen: impl Fn([u8; N]) -> [u8; M] + Sync,
) -> Result<Bytes, PackError> {
    let (elements, _) = source.bytes.as_chunks::<N>();
    in_panels(source, width, source.k, M, |batch, first, block| {
        let (block, _) = block.as_chunks_mut::<M>();
        if source.k_stride == 1 && source.outer_stride != 1 {
            for_each_panel(source, width, first, block, |panel, column, lanes| {
                for (at, terms) in panel.chunks_mut(TERMS_ABREAST * width).enumerate() {
                    for lane in 0..lanes {
                        let line = &elements[source.index(batch, column + lane, at * TERMS_ABREAST)..];
                        terms[lane..]
                            .iter_mut()
                            .step_by(width)
                            .zip(line)
                            .for_each(|(to, from)| *to = widen(*from));
                    }
                }
            });
            return;
        }
        for k in 0..source.k {
            for_each_panel(source, width, first, block, |panel, column, lanes| {
                let to = panel[k * width..][..lanes].iter_mut();
                let line = &elements[source.index(batch, column, k)..];
                match source.outer_stride {
                    0 => to.zip(std::iter::repeat(&line[0])).for_each(|(to, from)| *to = widen(*from)),
                    1 => to.zip(line).for_each(|(to, from)| *to = widen(*from)),
                    stride => {
                        let line = line.iter().step_by(stride);
                        to.zip(line).for_each(|(to, from)| *to = widen(*from));
                    }
                }
            });
        }
    })
}

/// Calls `visit` with each panel of a block, its first row or column, and how many of them are there.
fn for_each_panel<const M: usize>(
    source: &PackSource<'_>,
    width: usize,
    first: usize,
    block: &mut [[u8; M]],
    mut visit: impl FnMut(&mut [[u8; M]], usize, usize),
) {
    for (at, panel) in block.chunks_mut(source.k * width).enumerate() {
        let column = first + at * width;
        visit(panel, column, width.min(source.outer - column));
    }
}

fn pack_i16_from(
    source: &PackSource<'_>,
    width: usize,
    zero_points: &[i32],
    widen: impl Fn(u8) -> i32 + Sync,
) -> Result<Bytes, PackError> {
    let pairs = source.k.div_ceil(2);
    in_panels(source, width, pairs, BYTES_PER_TERM, |batch, first, block| {
        for (at, panel) in block.chunks_mut(pairs * width * 4).enumerate() {
            let column = first + at * width;
            for lane in 0..width.min(source.outer - column) {
                let zero = *zero_points.get(column + lane).unwrap_or(&zero_points[0]);
                for k in 0..source.k {
                    let value = widen(source.bytes[source.index(batch, column + lane, k)]) - zero;
                    let to = ((k / 2) * width + lane) * 4 + (k % 2) * 2;
                    panel[to..to + 2].copy_from_slice(&(value as i16).to_le_bytes());
                }
            }
        }
    })
}

/// Allocates zeroed panels and hands blocks of [`PANELS_ABREAST`] of them, with the matrix and the first row or
/// column they hold, to `fill`, on as many threads as are worth it.
pub(crate) fn in_panels(
    source: &PackSource<'_>,
    width: usize,
    terms: usize,
    term_bytes: usize,
    fill: impl Fn(usize, usize, &mut [u8]) + Sync,
) -> Result<Bytes, PackError> {
    let too_large = || PackError::Size { batch: source.batch, outer: source.outer, k: source.k };
    let panels = source.outer.div_ceil(width);
    let matrix = [terms, width, term_bytes, panels]
        .iter()
        .try_fold(1usize, |product, factor| product.checked_mul(*factor))
        .ok_or_else(too_large)?;
    let total = matrix.checked_mul(source.batch).filter(|total| isize::try_from(*total).is_ok());
    let total = total.ok_or_else(too_large)?;
    if total == 0 {
        return Ok(Bytes::new());
    }
    // Rows of tiles and wide vectors are cache lines, so panels begin with one.
    let mut memory = vec![0u8; total.checked_add(SCRATCH_ALIGN_BYTES).ok_or_else(too_large)?];
    let start = memory.as_ptr().align_offset(SCRATCH_ALIGN_BYTES).min(SCRATCH_ALIGN_BYTES);
    let packed = &mut memory[start..start + total];
    let block = terms * width * term_bytes * PANELS_ABREAST;
    let blocks: Vec<(usize, usize, &mut [u8])> = packed
        .chunks_mut(matrix)
        .enumerate()
        .flat_map(|(batch, matrix)| {
            matrix
                .chunks_mut(block)
                .enumerate()
                .map(move |(at, block)| (batch, at * PANELS_ABREAST * width, block))
        })
        .collect();
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let threads = threads.min(matrix * source.batch / BYTES_PER_THREAD).min(blocks.len()).max(1);
    let share = blocks.len().div_ceil(threads);
    let mut blocks = blocks.into_iter();
    std::thread::scope(|scope| {
        for _ in 1..threads {
            let mine: Vec<_> = blocks.by_ref().take(share).collect();
            let fill = &fill;
            scope.spawn(move || mine.into_iter().for_each(|(batch, first, block)| fill(batch, first, block)));
        }
        blocks.for_each(|(batch, first, block)| fill(batch, first, block));
    });
    Ok(Bytes::from(memory).slice(start..start + total))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source<'a>(
        bytes: &'a [u8],
        dtype: DType,
        outer: usize,
        k: usize,
        strides: (usize, usize),
    ) -> PackSource<'a> {
        let (outer_stride, k_stride) = strides;
        PackSource { bytes, dtype, offset: 0, batch: 1, batch_stride: 0, outer, outer_stride, k, k_stride }
    }

    fn floats(bytes: &[u8]) -> Vec<f32> {
        bytes.as_chunks::<4>().0.iter().map(|b| f32::from_le_bytes(*b)).collect()
    }

    #[test]
    fn both_source_orders_give_the_same_panels() {
        for (outer, k, width) in [(1, 1, 4), (70, 131, 8), (8, 64, 8), (13, 5, 6), (9, 0, 6), (0, 3, 8)] {
            let value = |o: usize, t: usize| (o * 1000 + t) as f32 + 0.5;
            let make = |at: &dyn Fn(usize) -> (usize, usize)| -> Vec<u8> {
                (0..outer * k).map(at).flat_map(|(o, t)| value(o, t).to_le_bytes()).collect()
            };
            let by_row = make(&|i| (i / k, i % k));
            let by_term = make(&|i| (i % outer, i / outer));
            let packed = pack_f32(&source(&by_row, DType::F32, outer, k, (k, 1)), width).unwrap();
            assert_eq!(packed, pack_f32(&source(&by_term, DType::F32, outer, k, (1, outer)), width).unwrap());
            for (i, got) in floats(&packed).into_iter().enumerate() {
                let (panel, term, lane) = (i / (k * width), i / width % k, i % width);
                let row = panel * width + lane;
                assert_eq!(got, if row < outer { value(row, term) } else { 0.0 }, "{outer} × {k}, {i}");
            }
            assert_eq!(packed.len(), outer.next_multiple_of(width) * k * 4);
        }
    }

    #[test]
    fn one_element_stands_for_all() {
        let packed = pack_f32(&source(&3f32.to_le_bytes(), DType::F32, 5, 2, (0, 0)), 4).unwrap();
        let lanes = |count: usize| (0..4).map(move |lane| if lane < count { 3.0 } else { 0.0 });
        let expected: Vec<f32> = [4, 4, 1, 1].into_iter().flat_map(lanes).collect();
        assert_eq!(floats(&packed), expected);
    }

    #[test]
    fn half_floats_are_widened() {
        let bf16: Vec<u8> = [0x3f80u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect();
        let f16: Vec<u8> = [0x3c00u16, 0xc000].iter().flat_map(|v| v.to_le_bytes()).collect();
        for (bytes, dtype) in [(bf16, DType::BF16), (f16, DType::F16)] {
            let packed = pack_f32(&source(&bytes, dtype, 2, 1, (1, 2)), 4).unwrap();
            assert_eq!(floats(&packed), [1.0, -2.0, 0.0, 0.0]);
        }
    }

    #[test]
    fn panels_of_16_bits_hold_finite_numbers() {
        let halves = |values: [f32; 4]| values.map(|v| f16::from_f32(v).to_le_bytes()).concat();
        let (good, bad) = (halves([1.0, 2.0, 3.0, 4.0]), halves([1.0, f32::INFINITY, 3.0, 4.0]));
        let packed = pack_half(&source(&good, DType::F16, 2, 2, (2, 1)), 4).unwrap();
        let expected = [halves([1.0, 3.0, 0.0, 0.0]), halves([2.0, 4.0, 0.0, 0.0])].concat();
        assert_eq!(packed, expected);
        let refused = pack_half(&source(&bad, DType::F16, 2, 2, (2, 1)), 4);
        assert!(matches!(refused, Err(PackError::NotFinite)), "{refused:?}");
        assert!(pack_half(&source(&good, DType::F32, 2, 1, (1, 1)), 4).is_err());
    }

    #[test]
    fn integers_come_in_pairs_without_their_zero_points() {
        let bytes = [0u8, 255, 7, 1, 2, 3];
        let packed = pack_i16(&source(&bytes, DType::U8, 2, 3, (3, 1)), 4, &[255, 1]).unwrap();
        let values: Vec<i16> = packed.as_chunks::<2>().0.iter().map(|b| i16::from_le_bytes(*b)).collect();
        assert_eq!(values, [-255, 0, 0, 1, 0, 0, 0, 0, -248, 0, 2, 0, 0, 0, 0, 0]);
        let signed = pack_i16(&source(&bytes, DType::I8, 1, 2, (2, 1)), 1, &[0]).unwrap();
        assert_eq!(signed[..], [0, 0, 255, 255]);
    }

    #[test]
    fn wrong_sources_are_errors() {
        let bytes = [0u8; 15];
        let range = pack_f32(&source(&bytes, DType::F32, 2, 2, (2, 1)), 4);
        assert_eq!(range, Err(PackError::Range { needed: 4, available: 3 }));
        assert!(matches!(pack_f32(&source(&bytes, DType::I8, 1, 1, (1, 1)), 4), Err(PackError::DType(..))));
        assert!(matches!(
            pack_i16(&source(&bytes, DType::F32, 1, 1, (1, 1)), 4, &[0]),
            Err(PackError::DType(..))
        ));
        let zeros = pack_i16(&source(&bytes, DType::I8, 3, 1, (1, 1)), 4, &[0, 0]);
        assert_eq!(zeros, Err(PackError::ZeroPoints { given: 2, outer: 3 }));
    }
}
