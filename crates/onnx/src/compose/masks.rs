//! Operators that pick elements by comparing positions.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Trilu.html> and the pages of the other operators.

use super::Row;
use super::chain::Made;
use super::emit::wrong;
use super::extent::Extent;
use crate::dtype;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] =
    &[("", "Trilu", trilu), ("", "EyeLike", eye_like), ("", "OneHot", one_hot), ("", "Hardmax", hardmax)];

/// `column - row` of matrices that are the last two axes of a value.
fn diagonals(draft: &mut Draft<'_>, x: Value) -> Made {
    let rank = draft.rank_of(x)?;
    if rank < 2 {
        return Err(Failure::unsupported(format!("an input of rank {rank}, expected at least 2")));
    }
    let (height, width) = (draft.extent(x, rank - 2)?, draft.extent(x, rank - 1)?);
    let (rows, columns) = (draft.counting(height, 0, 2)?, draft.counting(width, 1, 2)?);
    draft.minus(columns, rows)
}

/// One element of zeros, empty strings or `false`.
pub(super) fn zero(dtype: DType) -> Tensor {
    match dtype {
        DType::String => Tensor::from_strings(&[], vec![String::new()]),
        _ => Tensor::zeros(dtype, &[]),
    }
}

/// Elements on one side of a diagonal; zeros on the other.
fn trilu(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["upper"])?;
    let x = draft.operand(0, "input")?;
    let upper = draft.flag("upper", true)?;
    let k = match draft.input(1) {
        Some(k) => {
            let scalar = draft.list("scalar", vec![]);
            draft.node("Reshape", &[k, scalar])?
        }
        None => draft.integer(DType::I64, 0),
    };
    let diagonal = diagonals(&mut draft, x)?;
    let kept = draft.node(if upper { "GreaterOrEqual" } else { "LessOrEqual" }, &[diagonal, k])?;
    let dtype = draft.dtype_of(x);
    let nothing = draft.constant("zero", zero(dtype));
    let y = draft.node("Where", &[kept, x, nothing])?;
    draft.finish_with(vec![Some(y)])
}

/// Ones on a diagonal, in the shape of a matrix.
fn eye_like(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["dtype", "k"])?;
    let x = draft.operand(0, "input")?;
    match draft.rank_of(x)? {
        2 => {}
        rank => return Err(Failure::unsupported(format!("an input of rank {rank}, expected 2"))),
    }
    let code = match draft.attrs.get("dtype") {
        None => i64::from(dtype::code(draft.dtype_of(x))),
        Some(_) => draft.attrs.required_int("dtype").map_err(wrong)?,
    };
    let k = draft.int_attr("k", 0)?;
    let k = draft.integer(DType::I64, k);
    let diagonal = diagonals(&mut draft, x)?;
    let ones = draft.node("Equal", &[diagonal, k])?;
    let y = draft.node_with("Cast", &Attrs::new().with("to", Attr::Int(code)), &[ones])?;
    draft.finish_with(vec![Some(y)])
}

/// A new axis, on which the positions that indices name have one value and all others another.
fn one_hot(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    let (indices, depth) = (draft.operand(0, "indices")?, draft.operand(1, "depth")?);
    let values = draft.operand(2, "values")?;
    let rank = draft.rank_of(indices)? + 1;
    let axis = draft.int_attr("axis", -1)?;
    let axis = draft.front_axis(axis, rank)?;
    let one = draft.list("one", vec![1]);
    let depth = draft.node("Reshape", &[depth, one])?;
    let depth = draft.cast(depth, DType::I64)?;
    let extent = draft.extent_at(depth, 0)?;
    let length = draft.extent_value(extent);
    let indices = draft.cast(indices, DType::I64)?;
    let zero = draft.integer(DType::I64, 0);
    let (negative, from_end) = (draft.node("Less", &[indices, zero])?, draft.plus(indices, length)?);
    let from_front = draft.node("Where", &[negative, from_end, indices])?;
    let wanted = draft.unsqueeze(from_front, vec![axis as i64])?;
    let positions = draft.counting(extent, axis, rank)?;
    let hit = draft.node("Equal", &[wanted, positions])?;
    let (off, on) = (draft.integer(DType::I64, 0), draft.integer(DType::I64, 1));
    let (off, on) = (draft.node("Gather", &[values, off])?, draft.node("Gather", &[values, on])?);
    let y = draft.node("Where", &[hit, on, off])?;
    draft.finish_with(vec![Some(y)])
}

/// One where the first maximum along an axis is, else zero.
fn hardmax(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    let x = draft.operand(0, "input")?;
    let rank = draft.rank_of(x)?;
    if draft.opset >= 13 {
        let axis = draft.int_attr("axis", -1)?;
        let axis = draft.front_axis(axis, rank)?;
        let y = hard_along(&mut draft, x, axis, rank)?;
        return draft.finish_with(vec![Some(y)]);
    }
    // The axes from `axis` on were taken as one.
    let axis = draft.int_attr("axis", 1)?;
    let first = if axis == rank as i64 { rank } else { draft.front_axis(axis, rank)? };
    let flat = draft.node_with("Flatten", &Attrs::new().with("axis", Attr::Int(first as i64)), &[x])?;
    let hard = hard_along(&mut draft, flat, 1, 2)?;
    let sizes: Vec<Extent> = (0..rank).map(|axis| draft.extent(x, axis)).collect::<Result<_, _>>()?;
    let y = draft.reshape_to(hard, &sizes)?;
    draft.finish_with(vec![Some(y)])
}

fn hard_along(draft: &mut Draft<'_>, x: Value, axis: usize, rank: usize) -> Made {
    let at = draft.node_with("ArgMax", &Attrs::new().with("axis", Attr::Int(axis as i64)), &[x])?;
    let size = draft.extent(x, axis)?;
    let positions = draft.counting(size, axis, rank)?;
    let ones = draft.node("Equal", &[positions, at])?;
    let dtype = draft.dtype_of(x);
    draft.cast(ones, dtype)
}

/// The elements where two axes have the same position, along the first of them; the second is gone.
pub(super) fn diagonal(draft: &mut Draft<'_>, x: Value, first: usize, second: usize) -> Made {
    let rank = draft.rank_of(x)?;
    let (size, other) = (draft.extent(x, first)?, draft.extent(x, second)?);
    if let (Extent::Known(a), Extent::Known(b)) = (size, other)
        && a != b
    {
        return Err(Failure::unsupported(format!("a diagonal of {a} and {b} elements")));
    }
    // Beyond the shorter one there is nothing.
    let (rows, columns) = (draft.counting(size, first, rank)?, draft.counting(other, second, rank)?);
    let same = draft.node("Equal", &[rows, columns])?;
    let dtype = draft.dtype_of(x);
    let nothing = draft.constant("zero", zero(dtype));
    let kept = draft.node("Where", &[same, x, nothing])?;
    let axes = draft.list("axes", vec![second as i64]);
    draft.node_with("ReduceSum", &Attrs::new().with("keepdims", Attr::Int(0)), &[kept, axes])
}
