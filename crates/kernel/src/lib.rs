//! Planning: from a graph to a list of kernels with tiles, layouts, packed weights and buffers.
//!
//! A kernel is data: [`LoopKernel`] or [`ContractKernel`]. Both carry a scalar DAG ([`Dag`]), so that an
//! activation is written once and serves every kind. Code makers read these descriptions and never see a graph.

#![forbid(unsafe_code)]

mod dag;
mod desc;
mod join;
mod lower;
mod memory;
mod pack;
mod plan;
mod stages;
mod tiles;

pub use dag::{Access, BinaryFn, Coord, Dag, Expr, ExprId, ExprNode, Size, UnaryFn};
pub use desc::{
    Arg, Arrangement, CompositeKernel, ContractKernel, HandedOn, KEPT_BYTES, KernelDesc, LoopKernel, Operand,
    Part, Patches, ReduceFn, Reduction, RowSteps, Stage, Store, TILE_COLUMNS, TILE_ROWS, TILE_TERMS, Tile,
    Tiles, Vectorize,
};
pub use lower::{PlanError, Unplannable, plan};
pub use memory::{BUFFER_ALIGN_BYTES, Interval, assign_offsets};
pub use pack::{
    IN_PLACE_ROWS, PackError, PackSource, SCRATCH_ALIGN_BYTES, pack_f32, pack_half, pack_i16, scratch_bytes,
};
pub use plan::{Buffer, BufferId, Call, Check, Constant, Form, HostCall, HostFn, Plan, Port, Step, Storage};
pub use stages::{HostStage, StagePort, StageStep, Staged, Work, check, outline, stages};
pub use tiles::{
    BLOCK_BYTES, LEAST_LARGEST, TILE_BYTES, Tap, pack_tiles_a, pack_tiles_b, tile_scratch_bytes,
};
