//! Ops that take parts of tensors or put them together: `Slice`, `Split`, `Concat`, `Pad`.
//!
//! - `Slice(x, starts, ends, axes?, steps?)`: Python's `x[start:end:step]` on each of `axes` (all by default).
//! - `Split(x, split?)`: parts along `axis` of the given lengths, or `num_outputs` equal ones, the last smaller.
//! - `Concat(x…)`: operands one after the other along `axis`.
//! - `Pad(x, pads, value?, axes?)`: `pads` holds what is added before each of `axes`, then what is added after;
//!   negative amounts remove.
//!
//! **Dtypes**: all, strings too; starts, ends, steps and axes are i32 or i64, `split` and `pads` i64.
//!
//! **Opsets**: Slice 1, 10 (operands, steps), 11 (negative steps), Split 1, 2, 13 (split is an operand), 18
//! (`num_outputs`), Concat 1, 4, 11, 13, Pad 1, 2, 11 (operands), 18 (`axes`), 19 (`wrap`); later ones add dtypes.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Slice.html> and the pages of the other ops.

use super::elementwise::same_dtype;
use super::movement::{Move, move_elements, row_major, strided};
use super::tracked::{at_least_zero, maximum, minimum, non_negative};
use super::util::{
    arity, expect_dtype, expect_index_list, known_attrs, normalize_axes, normalize_axis, optional, required,
    required_tensor,
};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor};

/// What `Pad` fills the border with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PadMode {
    /// A constant value.
    Constant,
    /// The mirror image, without the edge.
    Reflect,
    /// The edge.
    Edge,
    /// The other end.
    Wrap,
}

/// `Slice`: operands data, starts, ends, optional axes, optional steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Slice;

/// A value that stands for "to the end" whatever the dim is: exporters write `i32::MAX`, `i64::MAX`, or, as JAX's
/// does, a billion. So a symbolic dim is taken to be less than this.
const TO_THE_END: i64 = 1_000_000_000;

/// A slice bound, counted from the front but not clamped; `None` if its sign is not known.
fn from_front(bound: &Dim, dim: &Dim) -> Option<Dim> {
    if non_negative(bound) {
        Some(bound.clone())
    } else if non_negative(&(-bound.clone() - Dim::from(1))) {
        Some(dim.clone() + bound.clone())
    } else {
        None
    }
}

/// Elements that `start..end` with a positive step takes of a dim.
fn forward(dim: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<Dim> {
    let step = Dim::from(step);
    let first = from_front(start, dim)?;
    if end.as_const().is_some_and(|end| end >= TO_THE_END) {
        let counted_from_end = (first.clone() - dim.clone()).as_const().filter(|&offset| offset <= 0);
        // `max(0, dim - max(0, dim - k))` is `min(dim, k)`.
        let length = match counted_from_end {
            Some(offset) => minimum(dim, &Dim::from(offset.saturating_neg())),
            None => at_least_zero(&(dim.clone() - at_least_zero(&first))),
        };
        return Some(length.ceil_div(&step));
    }
    // A start behind the end gives a length below zero, so it needs no clamp of its own.
    let last = minimum(&from_front(end, dim)?, dim);
    Some(at_least_zero(&(last - at_least_zero(&first))).ceil_div(&step))
}

/// Elements that `start..end` with a negative step takes of a dim; `step` is its magnitude.
fn backward(dim: &Dim, start: &Dim, end: &Dim, step: i64) -> Option<Dim> {
    let (one, before) = (Dim::from(1), Dim::from(-1));
    let first = match start.as_const() {
        Some(start) if start >= TO_THE_END => dim.clone() - one,
        _ => minimum(&from_front(start, dim)?, &(dim.clone() - one)),
    };
    let last = match end.as_const() {
        Some(end) if end <= -TO_THE_END => before,
        _ => maximum(&from_front(end, dim)?, &before),
    };
    Some(at_least_zero(&(first - last)).ceil_div(&Dim::from(step)))
}

/// The slice of one axis of `dim` elements: first index and number of elements.
fn slice_axis(dim: usize, start: i64, end: i64, step: i64) -> (isize, usize) {
    let size = dim as i64;
    let from_front = |bound: i64| if bound < 0 { bound.saturating_add(size) } else { bound };
    let (first, span) = if step > 0 {
        let first = from_front(start).clamp(0, size);
        (first, from_front(end).clamp(0, size) - first)
    } else {
        let first = from_front(start).clamp(-1, size - 1);
        (first, first - from_front(end).clamp(-1, size - 1))
    };
    let count = if span <= 0 { 0 } else { (span as u64).div_ceil(step.unsigned_abs()) };
    (if count == 0 { 0 } else { first as isize }, count as usize)
}

impl Slice {
    fn index_lists<'a>(inputs: &[Option<&'a Fact>]) -> Result<[Option<&'a Fact>; 4], OpError> {
        let (starts, ends) = (required(inputs, 1, "starts")?, required(inputs, 2, "ends")?);
        let lists = [Some(starts), Some(ends), optional(inputs, 3), optional(inputs, 4)];
        for (index, list) in lists.iter().enumerate() {
            let Some(list) = list else { continue };
            let slot = index + 1;
            expect_dtype(slot, list.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
            let fits = match (list.shape(), starts.shape()) {
                ([length], [expected]) => {
                    !(length.as_const().is_some() && expected.as_const().is_some()) || length == expected
                }
                _ => false,
            };
            if !fits {
                let reason = format!(
                    "input {slot} is {}, input 1 is {}: both must be lists of one length",
                    list.ty, starts.ty
                );
                return Err(OpError::Shape(reason));
            }
        }
        Ok(lists)
    }

    /// Lists of bounds must have an entry for each axis.
    fn check_lengths(counts: &[usize]) -> Result<(), OpError> {
        match counts.iter().all(|count| Some(count) == counts.first()) {
            true => Ok(()),
            false => {
                Err(OpError::Value(format!("starts, ends, axes and steps differ in length: {counts:?}")))
            }
        }
    }

    /// Contents of a slice of a list.
    fn contents(data: &Fact, starts: &[Dim], ends: &[Dim], steps: &[i64]) -> Option<Vec<Dim>> {
        let elements = data.dims().filter(|_| data.rank() == 1)?;
        let ([start], [end], [step]) = (starts, ends, steps) else { return None };
        let (first, count) = slice_axis(elements.len(), start.as_const()?, end.as_const()?, *step);
        let at = |index: usize| elements.get((first as i64 + index as i64 * step) as usize).cloned();
        (0..count).map(at).collect()
    }
}

impl OpDef for Slice {
    const NAMES: &'static [&'static str] = &["Slice"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Slice)
    }
    fn name(&self) -> &'static str {
        "Slice"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 5)?;
        let data = required(inputs, 0, "data")?;
        let [starts, ends, axes, steps] = Self::index_lists(inputs)?;
        let count = [starts, ends, axes, steps].iter().flatten().find_map(|l| l.shape()[0].as_usize());
        let axes = match (axes.map(Fact::ints), count) {
            (Some(Some(axes)), _) => Some(axes),
            (None, Some(count)) => Some((0..count as i64).collect()),
            _ => None,
        };
        let Some(axes) = axes else {
            let shape: Vec<Dim> = data.shape().iter().map(|_| cx.fresh()).collect();
            return Ok(vec![Fact::of_type(data.dtype(), shape)]);
        };
        let axes = normalize_axes(&axes, data.rank())?;
        let (starts, ends) = (starts.and_then(Fact::dims), ends.and_then(Fact::dims));
        let steps = steps.map_or(Some(vec![1; axes.len()]), Fact::ints);
        if steps.iter().flatten().any(|&step| step == 0) {
            return Err(OpError::Value(format!("a step of Slice is 0: {steps:?}")));
        }
        let mut shape = data.shape().to_vec();
        let (Some(starts), Some(ends), Some(steps)) = (starts, ends, steps) else {
            for axis in axes {
                shape[axis] = cx.fresh();
            }
            return Ok(vec![Fact::of_type(data.dtype(), shape)]);
        };
        Self::check_lengths(&[axes.len(), starts.len(), ends.len(), steps.len()])?;
        for (index, &axis) in axes.iter().enumerate() {
            let (dim, start, end, step) = (&data.shape()[axis], &starts[index], &ends[index], steps[index]);
            let length = match step > 0 {
                true => forward(dim, start, end, step),
                false => backward(dim, start, end, step.saturating_neg()),
            };
            shape[axis] = length.unwrap_or_else(|| cx.fresh());
        }
        let contents = Self::contents(data, &starts, &ends, &steps);
        Ok(vec![Fact { elements: contents, ..Fact::of_type(data.dtype(), shape) }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "data")?;
        let starts = required_tensor(inputs, 1, "starts")?.to_i64s();
        let ends = required_tensor(inputs, 2, "ends")?.to_i64s();
        let axes = optional(inputs, 3).map_or_else(|| (0..starts.len() as i64).collect(), Tensor::to_i64s);
        let axes = normalize_axes(&axes, data.rank())?;
        let steps = optional(inputs, 4).map_or_else(|| vec![1; starts.len()], Tensor::to_i64s);
        Self::check_lengths(&[axes.len(), starts.len(), ends.len(), steps.len()])?;
        let (mut shape, mut strides, mut base) = (data.shape().to_vec(), row_major(data.shape()), 0);
        for (index, &axis) in axes.iter().enumerate() {
            let step = steps[index];
            if step == 0 {
                return Err(OpError::Value(format!("a step of Slice is 0: {steps:?}")));
            }
            let (first, count) = slice_axis(shape[axis], starts[index], ends[index], step);
            shape[axis] = count;
            base += first * strides[axis];
            // With one element the step is of no matter, and it may be huge.
            strides[axis] = if count > 1 { strides[axis] * step as isize } else { 0 };
        }
        Ok(vec![strided(data, &shape, &strides, base)?])
    }
}

/// `Split`: operands data, optional split (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Split {
    /// Axis to split.
    pub axis: i64,
    /// Number of parts; equal ones (the last may be smaller) unless the operand `split` is given.
    pub num_outputs: usize,
}

impl Split {
    /// Lengths of equal parts; only the last is smaller.
    fn equal_parts(&self, dim: &Dim) -> Result<Vec<Dim>, OpError> {
        let part = dim.ceil_div(&Dim::from(self.num_outputs));
        let last = dim.clone() - part.clone() * Dim::from(self.num_outputs - 1);
        if last.as_const().is_some_and(|last| last < 0) {
            let parts = self.num_outputs;
            return Err(OpError::Shape(format!("a dim of {dim} cannot be split into {parts} equal parts")));
        }
        let mut parts = vec![part; self.num_outputs - 1];
        parts.push(last);
        Ok(parts)
    }

    fn check_count(&self, parts: usize) -> Result<(), OpError> {
        match parts == self.num_outputs {
            true => Ok(()),
            false => {
                Err(OpError::Value(format!("split has {parts} lengths for {} outputs", self.num_outputs)))
            }
        }
    }
}

impl OpDef for Split {
    const NAMES: &'static [&'static str] = &["Split"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "num_outputs"])?;
        let count = attrs.required_int("num_outputs")?;
        // More outputs than this are no model's; the bound keeps a bad file from asking for memory.
        let num_outputs = usize::try_from(count).ok().filter(|n| (1..=1 << 20).contains(n));
        let num_outputs = num_outputs.ok_or_else(|| OpError::Attribute {
            name: "num_outputs".to_owned(),
            value: count.to_string(),
            reason: "expected 1 to 1048576".to_owned(),
        })?;
        Ok(Split { axis: attrs.int("axis", 0)?, num_outputs })
    }
    fn name(&self) -> &'static str {
        "Split"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("axis", Attr::Int(self.axis))
            .with("num_outputs", Attr::Int(self.num_outputs as i64))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 2)?;
        let data = required(inputs, 0, "input")?;
        let axis = normalize_axis(self.axis, data.rank())?;
        let dim = &data.shape()[axis];
        let parts = match optional(inputs, 1) {
            None => self.equal_parts(dim)?,
            Some(split) => {
                expect_index_list(1, split)?;
                match split.dims() {
                    None => (0..self.num_outputs).map(|_| cx.fresh()).collect(),
                    Some(parts) => {
                        let sum = parts.iter().cloned().fold(Dim::from(0), |sum, part| sum + part);
                        cx.require_equal(&sum, dim).map_err(|_| {
                            OpError::Shape(format!(
                                "parts {parts:?} do not make up axis {axis}, which is {dim}"
                            ))
                        })?;
                        parts
                    }
                }
            }
        };
        self.check_count(parts.len())?;
        let elements = data.dims().filter(|_| data.rank() == 1);
        let mut taken = 0;
        let facts = parts.into_iter().map(|part| {
            let length = part.as_usize();
            let contents = elements.as_ref().zip(length).and_then(|(e, length)| e.get(taken..taken + length));
            taken += length.unwrap_or(0);
            let contents = contents.map(<[Dim]>::to_vec);
            let mut shape = data.shape().to_vec();
            shape[axis] = part;
            Fact { elements: contents, ..Fact::of_type(data.dtype(), shape) }
        });
        Ok(facts.collect())
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "input")?;
        let axis = normalize_axis(self.axis, data.rank())?;
        let dim = data.shape()[axis];
        let parts: Option<Vec<usize>> = match optional(inputs, 1) {
            None => self.equal_parts(&Dim::from(dim))?.iter().map(Dim::as_usize).collect(),
            Some(split) => split.to_i64s().iter().map(|&part| usize::try_from(part).ok()).collect(),
        };
        let parts = parts
            .filter(|parts| parts.iter().try_fold(0usize, |sum, &part| sum.checked_add(part)) == Some(dim));
        let parts = parts.ok_or_else(|| {
            OpError::Value(format!("the parts of Split do not make up axis {axis}, which is {dim}"))
        })?;
        self.check_count(parts.len())?;
        let strides = row_major(data.shape());
        let mut first = 0;
        let tensors = parts.into_iter().map(|part| {
            let mut shape = data.shape().to_vec();
            shape[axis] = part;
            let tensor = strided(data, &shape, &strides, first as isize * strides[axis]);
            first += part;
            tensor
        });
        tensors.collect()
    }
}

/// `Concat`.
#[derive(Clone, Debug, PartialEq)]
pub struct Concat {
    /// Axis to join.
    pub axis: i64,
}

/// Joins blocks of operands; block `i` of an operand is what lies behind outer index `i`.
struct Join {
    outer: usize,
    blocks: Vec<usize>,
}

impl Move for Join {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        for index in 0..self.outer {
            for (operand, &block) in operands.iter().zip(&self.blocks) {
                out.extend_from_slice(&operand[index * block..(index + 1) * block]);
            }
        }
    }
}

impl OpDef for Concat {
    const NAMES: &'static [&'static str] = &["Concat"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(Concat { axis: attrs.required_int("axis")? })
    }
    fn name(&self) -> &'static str {
        "Concat"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let first = required(inputs, 0, "inputs")?;
        let axis = normalize_axis(self.axis, first.rank())?;
        let mut shape = first.shape().to_vec();
        // Joined along the first axis, contents follow one another.
        let mut elements = if axis == 0 { first.dims() } else { None };
        for slot in 1..inputs.len() {
            let fact = required(inputs, slot, "inputs")?;
            same_dtype(slot, fact, first)?;
            let differ = || {
                let (actual, expected) = (&fact.ty, &first.ty);
                OpError::Shape(format!(
                    "input {slot} is {actual}, input 0 is {expected}: only axis {axis} may differ"
                ))
            };
            if fact.rank() != first.rank() {
                return Err(differ());
            }
            for (at, dim) in fact.shape().iter().enumerate() {
                if at == axis {
                    shape[at] = shape[at].clone() + dim.clone();
                    continue;
                }
                cx.require_equal(dim, &shape[at]).map_err(|_| differ())?;
                if dim.as_const().is_some() {
                    shape[at] = dim.clone();
                }
            }
            elements = elements.zip(fact.dims()).map(|(mut all, more)| {
                all.extend(more);
                all
            });
        }
        let elements = elements.filter(|all| all.len() <= MAX_TRACKED_ELEMENTS);
        Ok(vec![Fact { elements, ..Fact::of_type(first.dtype(), shape) }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let tensors: Vec<&Tensor> = (0..inputs.len())
            .map(|slot| required_tensor(inputs, slot, "inputs"))
            .collect::<Result<_, _>>()?;
        let first = required_tensor(inputs, 0, "inputs")?;
        let axis = normalize_axis(self.axis, first.rank())?;
        let mut shape = first.shape().to_vec();
        shape[axis] = 0;
        for (slot, tensor) in tensors.iter().enumerate() {
            let fits = tensor.rank() == first.rank()
                && (0..shape.len()).all(|at| at == axis || tensor.shape()[at] == shape[at]);
            if !fits {
                let (actual, expected) = (tensor.shape(), first.shape());
                let reason = format!(
                    "input {slot} is {actual:?}, input 0 is {expected:?}: only axis {axis} may differ"
                );
                return Err(OpError::Shape(reason));
            }
            shape[axis] += tensor.shape()[axis];
        }
        let outer = shape[..axis].iter().product();
        let blocks = tensors.iter().map(|t| t.shape()[axis..].iter().product()).collect();
        Ok(vec![move_elements(&shape, &tensors, &Join { outer, blocks })?])
    }
}

/// `Pad`: operands data, pads, optional value, optional axes.
#[derive(Clone, Debug, PartialEq)]
pub struct Pad {
    /// What fills the border.
    pub mode: PadMode,
}

/// What is added before and after each axis; `None` if not known.
type Pads<T> = Vec<(T, T)>;

/// `pads` by axis: the first half is what comes before, the second what comes after.
fn pads_by_axis<T: Clone>(pads: &[T], axes: &[usize], rank: usize, zero: T) -> Result<Pads<T>, OpError> {
    if pads.len() != 2 * axes.len() {
        return Err(OpError::Value(format!("pads has {} entries for {} axes", pads.len(), axes.len())));
    }
    let mut by_axis = vec![(zero.clone(), zero); rank];
    for (index, &axis) in axes.iter().enumerate() {
        by_axis[axis] = (pads[index].clone(), pads[index + axes.len()].clone());
    }
    Ok(by_axis)
}

impl Pad {
    /// Source index along one axis for each index of the result; `None` for the constant border.
    fn axis_map(&self, dim: usize, before: i64, after: i64) -> Result<Vec<Option<usize>>, OpError> {
        let size = dim as i64;
        let length = size.checked_add(before).and_then(|n| n.checked_add(after)).filter(|&n| n >= 0);
        let refused = |reason: &str| {
            let mode = self.mode_name();
            OpError::Value(format!("cannot pad an axis of {dim} by {before} and {after} ({mode}): {reason}"))
        };
        let length = length.ok_or_else(|| refused("nothing is left"))?;
        super::movement::element_count(&[length as usize])?;
        if dim == 0 && length > 0 && self.mode != PadMode::Constant {
            return Err(refused("there is nothing to repeat"));
        }
        let source = |index: i64| match index - before {
            at if (0..size).contains(&at) => Some(at),
            at => match self.mode {
                PadMode::Constant => None,
                PadMode::Edge => Some(at.clamp(0, size - 1)),
                PadMode::Wrap => Some(at.rem_euclid(size)),
                PadMode::Reflect if size == 1 => Some(0),
                PadMode::Reflect => {
                    let period = 2 * (size - 1);
                    let folded = at.rem_euclid(period);
                    Some(folded.min(period - folded))
                }
            },
        };
        Ok((0..length).map(|index| source(index).map(|at| at as usize)).collect())
    }

    fn mode_name(&self) -> &'static str {
        match self.mode {
            PadMode::Constant => "constant",
            PadMode::Reflect => "reflect",
            PadMode::Edge => "edge",
            PadMode::Wrap => "wrap",
        }
    }
}

/// Copies by a source index for each axis; operand 1 is the constant of the border.
struct PadMove {
    maps: Vec<Vec<Option<usize>>>,
    strides: Vec<isize>,
}

impl PadMove {
    fn axis<T: Clone>(&self, out: &mut Vec<T>, data: &[T], fill: &T, axis: usize, base: usize) {
        let Some(map) = self.maps.get(axis) else {
            return out.push(data[base].clone());
        };
        if axis + 1 == self.maps.len() {
            return out.extend(map.iter().map(|source| source.map_or(fill, |at| &data[base + at])).cloned());
        }
        let inner: usize = self.maps[axis + 1..].iter().map(Vec::len).product();
        for source in map {
            match source {
                None => out.resize(out.len() + inner, fill.clone()),
                Some(at) => self.axis(out, data, fill, axis + 1, base + at * self.strides[axis] as usize),
            }
        }
    }
}

impl Move for PadMove {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        self.axis(out, operands[0], &operands[1][0], 0, 0);
    }
}

impl OpDef for Pad {
    const NAMES: &'static [&'static str] = &["Pad"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["mode"])?;
        let mode = match attrs.str("mode", "constant")?.as_str() {
            "constant" => PadMode::Constant,
            "reflect" => PadMode::Reflect,
            "edge" => PadMode::Edge,
            "wrap" => PadMode::Wrap,
            other => {
                return Err(OpError::Attribute {
                    name: "mode".to_owned(),
                    value: other.to_owned(),
                    reason: "expected constant, reflect, edge or wrap".to_owned(),
                });
            }
        };
        Ok(Pad { mode })
    }
    fn name(&self) -> &'static str {
        "Pad"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("mode", Attr::Str(self.mode_name().to_owned()))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 4)?;
        let (data, pads) = (required(inputs, 0, "data")?, required(inputs, 1, "pads")?);
        expect_index_list(1, pads)?;
        if let Some(value) = optional(inputs, 2) {
            same_dtype(2, value, data)?;
            if !value.ty.elements().is(1) {
                return Err(OpError::Shape(format!(
                    "the padding value must be one element, not {}",
                    value.ty
                )));
            }
        }
        let axes = match optional(inputs, 3) {
            None => Some((0..data.rank()).collect()),
            Some(axes) => {
                expect_dtype(3, axes.dtype(), "i32 or i64", |d| matches!(d, DType::I32 | DType::I64))?;
                axes.ints().map(|axes| normalize_axes(&axes, data.rank())).transpose()?
            }
        };
        let shape = match (pads.dims(), axes) {
            (Some(pads), Some(axes)) => {
                let pads = pads_by_axis(&pads, &axes, data.rank(), Dim::from(0))?;
                let padded =
                    data.shape().iter().zip(pads).map(|(d, (before, after))| d.clone() + before + after);
                padded.collect()
            }
            (None, Some(axes)) => {
                let mut shape = data.shape().to_vec();
                axes.into_iter().for_each(|axis| shape[axis] = cx.fresh());
                shape
            }
            _ => data.shape().iter().map(|_| cx.fresh()).collect::<Vec<Dim>>(),
        };
        if shape.iter().any(|dim| dim.as_const().is_some_and(|value| value < 0)) {
            return Err(OpError::Value(format!("padding {} gives the shape {shape:?}", data.ty)));
        }
        Ok(vec![Fact::of_type(data.dtype(), shape)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, pads) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "pads")?);
        let axes = match optional(inputs, 3) {
            None => (0..data.rank()).collect(),
            Some(axes) => normalize_axes(&axes.to_i64s(), data.rank())?,
        };
        let pads = pads_by_axis(&pads.to_i64s(), &axes, data.rank(), 0)?;
        let maps: Vec<Vec<Option<usize>>> = data
            .shape()
            .iter()
            .zip(pads)
            .map(|(&dim, (before, after))| self.axis_map(dim, before, after))
            .collect::<Result<_, _>>()?;
        let default = match data.dtype() {
            DType::String => Tensor::from_strings(&[], vec![String::new()]),
            dtype => Tensor::zeros(dtype, &[]),
        };
        let value = optional(inputs, 2).unwrap_or(&default);
        if value.len() != 1 {
            return Err(OpError::Shape(format!(
                "the padding value must be one element, not {:?}",
                value.shape()
            )));
        }
        let shape: Vec<usize> = maps.iter().map(Vec::len).collect();
        let moves = PadMove { maps, strides: row_major(data.shape()) };
        Ok(vec![move_elements(&shape, &[data, value], &moves)?])
    }
}
