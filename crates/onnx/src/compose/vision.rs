//! Pools and operators on images whose older forms differ, and grids.

use super::Row;
use super::emit::{working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[
    ("", "MaxPool", max_pool),
    ("", "LpPool", lp_pool),
    ("", "GlobalLpPool", global_lp_pool),
    ("", "RoiAlign", roi_align),
    ("", "GridSample", grid_sample),
    ("", "AffineGrid", affine_grid),
];

/// The second output is made only where it is asked for: without it, the pool is a kernel.
fn max_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.attrs.get("num_outputs").is_some() {
        return Err(Failure::unsupported("attribute `num_outputs` is not known"));
    }
    if draft.outputs > 1 {
        draft.attrs.set("num_outputs", Attr::Int(2));
    }
    draft.finish()
}

/// Before version 2 of the operator, p was a float.
fn whole_exponent(draft: &mut Draft<'_>) -> Result<i64, Failure> {
    let p = match draft.attrs.get("p") {
        Some(Attr::Float(p)) if p.fract() == 0.0 && (1.0..1e6).contains(p) => *p as i64,
        Some(Attr::Float(p)) => return Err(Failure::unsupported(format!("p = {p}; expected an integer"))),
        _ => draft.attrs.int("p", 2).map_err(wrong)?,
    };
    match p {
        1.. => Ok(p),
        _ => Err(Failure::unsupported(format!("p = {p}; expected at least 1"))),
    }
}

fn lp_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let p = whole_exponent(&mut draft)?;
    draft.attrs.set("p", Attr::Int(p));
    draft.finish()
}

/// `(Σ |x|^p)^(1/p)` of each plane.
fn global_lp_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["p"])?;
    draft.check_inputs(1)?;
    let p = whole_exponent(&mut draft)?;
    let x = draft.operand(0, "X")?;
    let (dtype, rank) = (draft.dtype_of(x), draft.rank_of(x)?);
    if rank < 2 {
        return Err(Failure::unsupported(format!("an input of rank {rank}; expected at least 2")));
    }
    let axes: Vec<i64> = (2..rank as i64).collect();
    let wide = draft.cast(x, working(dtype))?;
    let y = match p {
        1 => draft.reduce("ReduceL1", wide, &axes)?,
        2 => draft.reduce("ReduceL2", wide, &axes)?,
        p => {
            let magnitude = draft.node("Abs", &[wide])?;
            let (power, root) =
                (draft.number(working(dtype), p as f64), draft.number(working(dtype), 1.0 / p as f64));
            let powers = draft.node("Pow", &[magnitude, power])?;
            let sum = draft.reduce("ReduceSum", powers, &axes)?;
            draft.node("Pow", &[sum, root])?
        }
    };
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// Before opset 16, coordinates were not shifted by half a pixel.
fn roi_align(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 16 {
        draft.check_attrs(&["mode", "output_height", "output_width", "sampling_ratio", "spatial_scale"])?;
        draft.attrs.set("coordinate_transformation_mode", Attr::Str("output_half_pixel".to_owned()));
    }
    draft.finish()
}

/// Before opset 20, modes were called after images.
fn grid_sample(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 20 {
        let mode = match draft.attrs.str("mode", "bilinear").map_err(wrong)?.as_str() {
            "bilinear" => "linear",
            "bicubic" => "cubic",
            "nearest" => "nearest",
            other => {
                let reason = format!("mode = `{other}`; expected `bilinear`, `bicubic` or `nearest`");
                return Err(Failure::unsupported(reason));
            }
        };
        draft.attrs.set("mode", Attr::Str(mode.to_owned()));
    }
    draft.finish()
}

/// `theta · (x, y, 1)` for the coordinates of each pixel of an image of that size; with z of a volume.
fn affine_grid(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["align_corners"])?;
    draft.check_inputs(2)?;
    let align = draft.attrs.int("align_corners", 0).map_err(wrong)? != 0;
    let (theta, size) = (draft.operand(0, "theta")?, draft.operand(1, "size")?);
    let dtype = draft.dtype_of(theta);
    let (matrix, list) = (draft.shape_of(theta)?, draft.shape_of(size)?);
    let axes = match (&matrix[..], &list[..]) {
        ([_, rows, columns], [count]) if count.is(4) || rows.is(2) || columns.is(3) => 2,
        ([_, _, _], [_]) => 3,
        _ => {
            let reason = format!("theta of shape {matrix:?} with a size of shape {list:?}");
            return Err(Failure::unsupported(reason));
        }
    };
    let wide = draft.cast(theta, working(dtype))?;
    // The last column is what is added; the others are for x, y, z, of which x runs along the last axis.
    let mut grid = column(&mut draft, wide, axes as i64, axes)?;
    for axis in 0..axes {
        let factor = column(&mut draft, wide, axis as i64, axes)?;
        let position = coordinates(&mut draft, size, axes + 1 - axis, align, working(dtype))?;
        let position = draft.unsqueeze(position, (1..=axis as i64 + 1).collect())?;
        let term = draft.node("Mul", &[factor, position])?;
        grid = draft.node("Add", &[grid, term])?;
    }
    let grid = draft.cast(grid, dtype)?;
    draft.finish_with(vec![Some(grid)])
}

/// A column of each matrix as the last axis of a grid with dims of 1.
fn column(draft: &mut Draft<'_>, theta: Value, at: i64, axes: usize) -> Result<Value, Failure> {
    let at = draft.list("column", vec![at]);
    let column = draft.node_with("Gather", &Attrs::new().with("axis", Attr::Int(2)), &[theta, at])?;
    let row = draft.transpose(column, &[0, 2, 1])?;
    draft.unsqueeze(row, (1..axes as i64).collect())
}

/// Where the pixels of an axis are, from −1 to 1.
fn coordinates(
    draft: &mut Draft<'_>,
    size: Value,
    axis: usize,
    align: bool,
    work: DType,
) -> Result<Value, Failure> {
    let at = draft.integer(DType::I64, axis as i64);
    let count = draft.node_with("Gather", &Attrs::new().with("axis", Attr::Int(0)), &[size, at])?;
    let (zero, one) = (draft.integer(DType::I64, 0), draft.integer(DType::I64, 1));
    let indices = draft.node("Range", &[zero, count, one])?;
    let indices = draft.cast(indices, work)?;
    let (two, unit) = (draft.number(work, 2.0), draft.number(work, 1.0));
    let doubled = draft.node("Mul", &[indices, two])?;
    let count = draft.cast(count, work)?;
    let (from, steps) = if align {
        let steps = draft.node("Sub", &[count, unit])?;
        // An axis of one pixel has it at −1.
        (doubled, draft.node("Max", &[steps, unit])?)
    } else {
        (draft.node("Add", &[doubled, unit])?, count)
    };
    let ratio = draft.node("Div", &[from, steps])?;
    draft.node("Sub", &[ratio, unit])
}
