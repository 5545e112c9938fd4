//! Ops that take parts of tensors or put them together: `Slice`, `Split`, `Concat`.
//!
//! - `Slice(x, starts, ends, axes?, steps?)`: Python's `x[start:end:step]` on each of `axes` (all by default).
//! - `Split(x, split?)`: parts along `axis` of the given lengths, or `num_outputs` equal ones, the last smaller.
//! - `Concat(x…)`: operands one after the other along `axis`.
//!
//! **Dtypes**: all, strings too; starts, ends, steps and axes are i32 or i64, `split` i64.
//!
//! **Opsets**: Slice 1, 10 (operands, steps), 11 (negative steps), Split 1, 2, 13 (split is an operand), 18
//! (`num_outputs`), Concat 1, 4, 11, 13.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Slice.html> and the pages of the other ops.

use super::elementwise::same_dtype;
use super::movement::{Move, element_count, move_elements, row_major, strided};
use super::tracked::{at_least_zero, maximum, minimum, non_negative};
use super::util::{
    arity, expect_dtype, expect_index_list, known_attrs, normalize_axes, normalize_axis, optional, required,
    required_tensor,
};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor};

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
            // Only a tensor without elements has strides that do not fit.
            base = isize::wrapping_add(base, first.wrapping_mul(strides[axis]));
            // With one element the step is of no matter, and it may be huge.
            strides[axis] = if count > 1 { strides[axis].wrapping_mul(step as isize) } else { 0 };
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
            let tensor = strided(data, &shape, &strides, (first as isize).wrapping_mul(strides[axis]));
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
            let joined = shape[axis].checked_add(tensor.shape()[axis]);
            shape[axis] =
                joined.ok_or_else(|| OpError::Value("a dim of the result is too large".to_owned()))?;
        }
        let outer = element_count(&shape[..axis])?;
        let blocks = tensors.iter().map(|t| element_count(&t.shape()[axis..])).collect::<Result<_, _>>()?;
        Ok(vec![move_elements(&shape, &tensors, &Join { outer, blocks })?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, infer, inferred, list, list_fact, plain, with};
    use super::*;

    fn sliced(dim: &str, start: i64, end: i64, step: i64) -> String {
        let lists = [list_fact(&[start]), list_fact(&[end]), list_fact(&[0]), list_fact(&[step])];
        let [starts, ends, axes, steps] = &lists;
        inferred(&plain("Slice"), &[&fact(DType::F32, &[dim]), starts, ends, axes, steps])
    }

    #[test]
    fn symbolic_slices() {
        assert_eq!(sliced("n", 0, i64::MAX, 1), "f32[n]");
        assert_eq!(sliced("n", 0, i64::from(i32::MAX), 2), "f32[floordiv(n + 1, 2)]");
        assert_eq!(sliced("n", 0, -1, 1), "f32[max(0, n - 1)]");
        assert_eq!(sliced("n", -3, i64::MAX, 1), "f32[min(3, n)]");
        assert_eq!(sliced("n", 2, 5, 1), "f32[max(0, min(5, n) - 2)]");
        assert_eq!(sliced("n", -1, i64::MIN, -1), "f32[n]");
        assert_eq!(sliced("n", i64::MAX, i64::MIN, -2), "f32[floordiv(n + 1, 2)]");
        assert_eq!(sliced("7", 1, -1, 2), "f32[3]");
        assert!(sliced("7", 1, 2, 0).contains("step"));
    }

    #[test]
    fn inference_agrees_with_evaluation() {
        // Every small case: the symbolic length, evaluated, is the length of what comes out.
        let bounds = [i64::MIN, -9, -5, -4, -1, 0, 1, 4, 5, 9, i64::MAX];
        for size in 0..6usize {
            let data = Tensor::from_vec(&[size], (0..size as i32).collect());
            for (start, end) in bounds.iter().flat_map(|&s| bounds.iter().map(move |&e| (s, e))) {
                for step in [1, 2, 7, -1, -3] {
                    let lists = [list(&[start]), list(&[end]), list(&[0]), list(&[step])];
                    let [starts, ends, axes, steps] = &lists;
                    let actual = eval(&plain("Slice"), &[&data, starts, ends, axes, steps]).unwrap();
                    let mut facts = vec![fact(DType::I32, &["n"])];
                    facts.extend(lists.iter().map(|l| Fact::of_constant(l.clone())));
                    let inferred =
                        infer(&plain("Slice"), &facts.iter().collect::<Vec<_>>()).unwrap().remove(0);
                    let length = inferred.shape()[0].eval(&|_| Some(size as i64));
                    assert_eq!(
                        length,
                        Ok(actual.len() as i64),
                        "{size} [{start}:{end}:{step}] {}",
                        inferred.ty
                    );
                }
            }
        }
    }

    #[test]
    fn slices_copy_backward_and_across() {
        let data = Tensor::from_vec(&[2, 3], (0..6).collect::<Vec<i32>>());
        let lists = [list(&[-1, 0]), list(&[i64::MIN, 2]), list(&[1, 0]), list(&[-2, 1])];
        let [starts, ends, axes, steps] = &lists;
        let sliced = eval(&plain("Slice"), &[&data, starts, ends, axes, steps]).unwrap();
        assert_eq!(sliced, Tensor::from_vec(&[2, 2], vec![2, 0, 5, 3]));
        let n = Dim::symbol("n");
        let dims = Fact::of_elements(DType::I64, [Dim::from(3)], vec![n.clone(), Dim::from(2), n.clone()]);
        let last = infer(&plain("Slice"), &[&dims, &list_fact(&[-2]), &list_fact(&[9])]).unwrap().remove(0);
        assert_eq!(last.elements, Some(vec![Dim::from(2), n]));
    }

    #[test]
    fn bounds_that_are_dims() {
        let n = Dim::symbol("n");
        let end = Fact::of_elements(DType::I64, [Dim::from(1)], vec![n.clone()]);
        let data = fact(DType::F32, &["8"]);
        assert_eq!(inferred(&plain("Slice"), &[&data, &list_fact(&[0]), &end]), "f32[min(8, n)]");
        let unknown = fact(DType::I64, &["1"]);
        assert_eq!(inferred(&plain("Slice"), &[&data, &unknown, &end]), "f32[node.0]");
    }

    #[test]
    fn split_into_equal_and_given_parts() {
        let op = with("Split", Attrs::new().with("num_outputs", Attr::Int(2)));
        let facts = infer(&op, &[&fact(DType::F32, &["7", "n"])]).unwrap();
        assert_eq!(facts.iter().map(|f| f.ty.to_string()).collect::<Vec<_>>(), ["f32[4,n]", "f32[3,n]"]);
        let data = Tensor::from_strings(&[3], ["a", "b", "c"].map(str::to_owned).to_vec());
        let parts = op.eval(&[Some(&data), Some(&list(&[1, 2]))]).unwrap();
        assert_eq!(parts[1].strings().unwrap(), ["b", "c"]);
        assert!(op.eval(&[Some(&data), Some(&list(&[2, 2]))]).is_err());
        assert!(op.eval(&[Some(&data), Some(&list(&[4, -1]))]).is_err());
        let dims = Fact::of_elements(DType::I64, [Dim::from(2)], vec![Dim::symbol("n"), Dim::from(3)]);
        assert_eq!(infer(&op, &[&dims]).unwrap()[1].elements, Some(vec![Dim::from(3)]));
    }

    #[test]
    fn concat_along_an_inner_axis() {
        let op = with("Concat", Attrs::new().with("axis", Attr::Int(-1)));
        let (a, b) = (Tensor::from_vec(&[2, 1], vec![1u8, 2]), Tensor::from_vec(&[2, 2], vec![3u8, 4, 5, 6]));
        let empty = Tensor::from_vec::<u8>(&[2, 0], vec![]);
        let joined = eval(&op, &[&a, &empty, &b]).unwrap();
        assert_eq!(joined, Tensor::from_vec(&[2, 3], vec![1u8, 3, 4, 2, 5, 6]));
        let (a, b) = (fact(DType::F32, &["n", "2"]), fact(DType::F32, &["4", "m"]));
        assert_eq!(inferred(&op, &[&a, &b]), "f32[4,m + 2]");
        assert!(inferred(&op, &[&b, &fact(DType::F32, &["5", "m"])]).contains("only axis 1 may differ"));
    }
}
