//! Reductions: where they start and how they combine.

use crate::clif::context::KernelCx;
use crate::clif::ops::Ops;
use crate::error::KernelError;
use crate::prim::Prim;
use cranelift_codegen::ir::types::{I8, I64};
use cranelift_codegen::ir::{InstBuilder, Value};
use rabot_kernel::{BinaryFn, ReduceFn, Reduction, Stage};
use rabot_tensor::DType;

/// Dtype of a reduction: that of its value.
pub(crate) fn dtype(stage: &Stage, reduction: &Reduction) -> Result<DType, KernelError> {
    let count = stage.dag.nodes().len();
    let node = stage.dag.nodes().get(reduction.value);
    node.map(|n| n.dtype).ok_or(KernelError::Index { what: "node", index: reduction.value, count })
}

/// The function of two values that a reduction repeats.
pub(crate) fn function(reduce: ReduceFn) -> BinaryFn {
    match reduce {
        ReduceFn::Sum => BinaryFn::Add,
        ReduceFn::Prod => BinaryFn::Mul,
        ReduceFn::Max => BinaryFn::Max,
        ReduceFn::Min => BinaryFn::Min,
    }
}

/// The value that a reduction starts at.
///
/// **Errors**: the dtype cannot be reduced.
pub(crate) fn identity(
    cx: &mut KernelCx,
    wide: bool,
    reduce: ReduceFn,
    dtype: DType,
) -> Result<Value, KernelError> {
    let o = &mut Ops { cx, wide };
    let float = match reduce {
        ReduceFn::Sum => 0.0,
        ReduceFn::Prod => 1.0,
        ReduceFn::Max => f32::NEG_INFINITY,
        ReduceFn::Min => f32::INFINITY,
    };
    let (low, high) = dtype.int_range().unwrap_or((0, 1));
    let int = match reduce {
        ReduceFn::Sum => 0,
        ReduceFn::Prod => 1,
        ReduceFn::Max => low as i64,
        // As bits: the highest u64 is -1.
        ReduceFn::Min => high as i64,
    };
    Ok(match dtype {
        DType::F32 => o.f32(float),
        DType::F64 => o.f64(float as f64),
        DType::Bool if wide => o.i32(-(int as i32)),
        DType::Bool => o.cx.builder.ins().iconst(I8, int),
        DType::I64 | DType::U64 => o.cx.builder.ins().iconst(I64, int),
        _ if dtype.is_int() => o.i32(int as i32),
        _ => return Err(KernelError::DType { operation: format!("{reduce:?}"), dtype }),
    })
}
