//! Kernel descriptions.
//!
//! A generated kernel is a function
//! `fn(args: *const *mut u8, params: *const i64, begin: i64, end: i64, scratch: *mut u8, status: *mut i64)`
//! that does the work items `begin..end`. Items are independent, and each is computed in the same way whatever
//! the range, so the partition among threads cannot change a bit.

use crate::{Access, Coord, Dag, ExprId, Size};
use rabot_tensor::DType;

/// A buffer that a kernel reads or writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Arg {
    /// Element type in memory.
    pub dtype: DType,
    /// True if the kernel writes it.
    pub written: bool,
}

/// One of the kinds of kernel that are compiled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(
    clippy::large_enum_variant,
    reason = "a plan holds a few hundred at most, and code makers match on them by value"
)]
pub enum KernelDesc {
    /// Loops over index maps.
    Loop(LoopKernel),
    /// A batch of matrix products.
    Contract(ContractKernel),
    /// Several kernels in one call.
    Composite(CompositeKernel),
}

impl KernelDesc {
    /// The buffers, in the order in which a call passes them.
    pub fn args(&self) -> &[Arg] {
        match self {
            KernelDesc::Loop(kernel) => &kernel.args,
            KernelDesc::Contract(kernel) => &kernel.args,
            KernelDesc::Composite(kernel) => &kernel.args,
        }
    }
}

impl KernelDesc {
    /// True if the tile unit computes it.
    pub fn uses_tiles(&self) -> bool {
        matches!(self, KernelDesc::Contract(kernel) if kernel.tiles.is_some())
    }
}

/// Kernels that are done in one call, each with its own arguments and parameters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CompositeKernel {
    /// Buffers: those of the parts, one part after the other.
    pub args: Vec<Arg>,
    /// How the parts go together.
    pub arrangement: Arrangement,
    /// The parts.
    pub parts: Vec<Part>,
    /// Items that a chain does in one go, part after part; at least 1. Any number gives the same result.
    pub block: Size,
    /// Set where the items of a chain are blocks of rows.
    pub rows: Option<RowSteps>,
}

/// Items of a chain that are blocks of rows of matrices, one matrix after the other. What its parts hand on is there for
/// one block at a time only, in scratch memory.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RowSteps {
    /// Blocks of a matrix.
    pub steps: Size,
    /// Rows of a matrix.
    pub rows: Size,
    /// Rows of a block; the last one of a matrix may have fewer.
    pub block: Size,
    /// For each part, its work items in a matrix; [`Part::per`] are those of a block.
    pub items: Vec<Size>,
    /// For each part, where its own scratch memory begins, in bytes.
    pub scratch: Vec<Size>,
    /// What is handed on.
    pub handed_on: Vec<HandedOn>,
}

/// An argument of a part of a chain that is a block of rows in scratch memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HandedOn {
    /// Index among the arguments of the whole.
    pub arg: usize,
    /// Where the block begins, in bytes.
    pub start: Size,
    /// Bytes of a row.
    pub row_bytes: Size,
}

/// How the parts of a [`CompositeKernel`] go together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arrangement {
    /// For item `i`, each part in turn does its own items `i·per..(i + 1)·per`. What a part reads of an earlier one's
    /// results, that one wrote in the same item.
    Chain,
    /// The parts do not depend on each other. Each has `⌈count / per⌉` items, one part's after the other's; its item
    /// `i` does its own items `i·per..(i + 1)·per`.
    Side,
}

/// A part of a [`CompositeKernel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Part {
    /// Index in [`crate::Plan::kernels`].
    pub kernel: usize,
    /// Index of its first argument.
    pub args: usize,
    /// Index of its first parameter.
    pub params: usize,
    /// Its number of work items; 0 is passed where it has no results.
    pub count: Size,
    /// Its work items in one item of the whole; at least 1 where there are any.
    pub per: Size,
}

/// Elementwise chains, broadcasts, views, reductions, softmax, norms, pools, depthwise convolution, moves.
///
/// For each point of `outer`: the stages, one after the other, each looping over its own `inner` dims. Coordinates
/// `0..outer.len()` are the outer ones; `outer.len()..` are the inner ones of the current stage.
///
/// Work items number the points of `outer[..items]`, row-major; the other outer dims are loops inside an item.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LoopKernel {
    /// Buffers.
    pub args: Vec<Arg>,
    /// Extents of the outer dims.
    pub outer: Vec<Size>,
    /// How many of the outer dims are work items.
    pub items: usize,
    /// What is done for each outer point.
    pub stages: Vec<Stage>,
    /// Which loop becomes vectors, where dtypes and strides allow.
    pub vectorize: Vectorize,
}

/// Which loop of a [`LoopKernel`] is turned into vectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vectorize {
    /// The last outer dim (never one of the items): every lane runs all stages.
    Outer,
    /// The last inner dim of each stage; reductions are combined across lanes in a fixed order.
    Inner,
    /// None.
    No,
}

/// One pass over the inner dims.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stage {
    /// Extents of the inner dims; empty for a single point.
    pub inner: Vec<Size>,
    /// What is computed at each point.
    pub dag: Dag,
    /// Values combined over all inner points; later stages see them as `Expr::Reduced`.
    pub reductions: Vec<Reduction>,
    /// Values written at each inner point.
    pub stores: Vec<Store>,
}

/// A reduction over the inner dims of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Reduction {
    /// How values are combined.
    pub function: ReduceFn,
    /// What is combined.
    pub value: ExprId,
}

/// How a reduction combines values. The dtype is that of the value; f32 sums accumulate in f32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReduceFn {
    /// Sum; starts at 0. A value `Binary(Mul, a, b)` may be contracted to a multiply-add.
    Sum,
    /// Product; starts at 1.
    Prod,
    /// Maximum, NaN if any is; starts at the lowest value.
    Max,
    /// Minimum, NaN if any is; starts at the highest value.
    Min,
}

/// A write.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Store {
    /// Which argument.
    pub arg: usize,
    /// Which element.
    pub access: Access,
    /// What; converted to the argument's dtype (f32 → f16, bf16 to nearest even; wider integers wrap).
    pub value: ExprId,
}

/// `C[batch, m, n] = epilogue(Σ_k A[batch, m, k] · B[batch, k, n])`: matrix products, convolutions.
///
/// Coordinates in the epilogue: `0..batch.len()` the batch dims, then the row, then the column; with `line`, also
/// the line, `column / line`.
///
/// Work items number `batch × row blocks × column blocks`, row-major in that order. A block is
/// `tile.rows` × `tile.columns` elements of C, less at the edges.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ContractKernel {
    /// Buffers.
    pub args: Vec<Arg>,
    /// Extents of the batch dims.
    pub batch: Vec<Size>,
    /// Rows of A and C.
    pub m: Size,
    /// Columns of B and C.
    pub n: Size,
    /// Terms of the sum.
    pub k: Size,
    /// Left operand.
    pub a: Operand,
    /// Right operand.
    pub b: Operand,
    /// Dtype of operands as multiplied: f32 (f16 and bf16 are widened on the way in), or i32 for i8 and u8 operands.
    pub accumulator: DType,
    /// What is done to the accumulator.
    pub epilogue: Dag,
    /// Columns of a line, where accesses of the epilogue have gaps between lines: the pixels of an image that lies
    /// inside a larger one.
    pub line: Option<Size>,
    /// Where results go; vectors run along the column.
    pub stores: Vec<Store>,
    /// Blocking.
    pub tile: Tile,
    /// Set where the tile unit takes the products.
    pub tiles: Option<Tiles>,
    /// True if the pieces of B stay in scratch memory from call to call; see [`KEPT_BYTES`].
    pub keeps_b: bool,
}

/// Bytes of scratch memory that say what a kernel of the tile unit keeps there. The caller sets the first two words to
/// -1, the third to 0 and the fourth to 1 in f32 before the first call.
pub const KEPT_BYTES: usize = 64;

/// Products of bf16 on a tile unit, whose tiles are 16 rows of 64 bytes.
///
/// An f32 is cut into pieces of bf16 that add up to it: the number rounded, what is left of it rounded, and the rest.
/// With three pieces, the six products that count are summed, which is as exact as a sum in f32; with two, three
/// products; with one, the operands are cut to bf16.
///
/// The terms of the sum go in blocks of [`TILE_TERMS`]; in a convolution they are numbered (block of channels, tap,
/// channel). A packed A is `[⌈m/16⌉][blocks][pieces][16][32]` of bf16, a packed B `[⌈n/32⌉][blocks][32][32]` of f32,
/// columns innermost; both hold finite numbers only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tiles {
    /// Pieces of an f32: 1, 2 or 3.
    pub pieces: usize,
    /// Where B is [`Operand::Patches`] of images with two axes: lines of the result in a block. It is 0 elsewhere.
    pub lines: usize,
    /// Fewer rows than these go to the vector unit, where only the run tells their number. It is 0 elsewhere.
    pub least_rows: usize,
}

/// Rows of a tile.
pub const TILE_ROWS: usize = 16;

/// Terms of the sum, in bf16, in a row of a tile.
pub const TILE_TERMS: usize = 32;

/// Columns of a panel of B, two tiles wide.
pub const TILE_COLUMNS: usize = 32;

/// How a matrix operand is read. Strides are in elements; `batch` has one stride per batch dim.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Operand {
    /// Packed at compile time into panels: for A `[⌈m/mr⌉][k][mr]`, for B `[⌈n/nr⌉][k][nr]`, padded with zeros.
    /// For integers, values have their zero point subtracted and are stored as i16, pairs of k innermost:
    /// `[⌈m/mr⌉][⌈k/2⌉][mr][2]`. B may be bf16, or f16 without infinities and NaN: it is widened as it is read.
    Packed {
        /// Which argument.
        arg: usize,
        /// Strides of the batch dims.
        batch: Vec<Size>,
    },
    /// Any strided matrix. An A whose k stride is 1 may be read in place; else it is packed when the kernel runs.
    Strided {
        /// Which argument.
        arg: usize,
        /// Constant part of the index.
        offset: Size,
        /// Strides of the batch dims.
        batch: Vec<Size>,
        /// Stride of the row of A, or of the column of B.
        outer: Size,
        /// Stride of k.
        k: Size,
        /// Subtracted from each element (integers); the value of the argument's padding is thereby 0.
        zero_point: i32,
    },
    /// Patches of an image, for convolution: `k` runs over (channel, kernel position), the column over output positions.
    Patches(Patches),
}

/// Convolution's view of its input as the matrix B (never A). Lists are per spatial axis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patches {
    /// Which argument.
    pub arg: usize,
    /// Constant part of the index.
    pub offset: Size,
    /// Strides of the batch dims.
    pub batch: Vec<Size>,
    /// Stride of the channel.
    pub channel: Size,
    /// Extents of the image.
    pub input: Vec<Size>,
    /// Strides of the image.
    pub input_strides: Vec<Size>,
    /// Extents of the output.
    pub output: Vec<Size>,
    /// Extents of the window.
    pub kernel: Vec<usize>,
    /// Steps of the window.
    pub strides: Vec<usize>,
    /// Distances of taps.
    pub dilations: Vec<usize>,
    /// Padding before each axis; elements outside the image are 0 (after the zero point is subtracted).
    pub pads: Vec<Size>,
    /// Subtracted from each element (integers).
    pub zero_point: i32,
}

impl Operand {
    /// Which argument is read.
    pub fn arg(&self) -> usize {
        match self {
            Operand::Packed { arg, .. } | Operand::Strided { arg, .. } => *arg,
            Operand::Patches(patches) => patches.arg,
        }
    }
}

/// Blocking of a contraction, in elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tile {
    /// Rows of the micro-kernel.
    pub mr: usize,
    /// Columns of the micro-kernel; a multiple of the vector's lanes.
    pub nr: usize,
    /// Rows of an item; a multiple of `mr`.
    pub rows: usize,
    /// Columns of an item; a multiple of `nr`.
    pub columns: usize,
}

impl LoopKernel {
    /// Coordinate of inner dim `index` of any stage.
    pub fn inner_coord(&self, index: usize) -> Coord {
        self.outer.len() + index
    }
}

impl ContractKernel {
    /// Coordinate of the row in the epilogue.
    pub fn row(&self) -> Coord {
        self.batch.len()
    }

    /// Coordinate of the column in the epilogue.
    pub fn column(&self) -> Coord {
        self.batch.len() + 1
    }

    /// Coordinate of the line in the epilogue, where there are lines.
    pub fn line_coord(&self) -> Coord {
        self.batch.len() + 2
    }
}
