//! Ops that change the shape of a value, not its elements: `Identity`, `Reshape`, `Flatten`, `Squeeze`,
//! `Unsqueeze`, `Expand`, `Transpose`, `Shape`.
//!
//! - `Reshape(x, shape)`: 0 in `shape` copies the dim of `x` (unless `allowzero`), one -1 takes what is left.
//! - `Flatten(x)`: `[d0·…·d(axis-1), d(axis)·…]`.
//! - `Squeeze(x, axes?)` removes dims of 1, `Unsqueeze(x, axes)` adds them; axes of `Unsqueeze` count in the result.
//! - `Expand(x, shape)`: `x` broadcast with `shape`, both ways (numpy's rule).
//! - `Transpose(x)`: dim `i` of the result is dim `perm[i]` of `x`; all dims reversed without `perm`.
//! - `Shape(x)`: the dims `start..end` of `x` as i64; out-of-range ends are clamped.
//!
//! **Dtypes**: all, strings too; `shape` and `axes` are i64.
//!
//! **Opsets**: Identity 1–25, Reshape 1, 5 (shape is an operand), 14 (`allowzero`), Flatten 1, 9, 11 (negative
//! axis), Squeeze and Unsqueeze 1, 11, 13 (axes are an operand), Expand 8, Transpose 1, Shape 1, 15 (`start`,
//! `end`); later versions only add dtypes.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Reshape.html> and the pages of the other ops.

use super::movement::{broadcast_shape, broadcast_strides, element_count, row_major, strided};
use super::tracked::{broadcast_contents, with_elements};
use super::util::{
    arity, expect_dtype, expect_index_list, known_attrs, normalize_axes, normalize_axis, optional, required,
    required_tensor,
};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Datum, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor, TensorError};

/// Contents go along with a change of shape.
fn reshaped_fact(data: &Fact, shape: Vec<Dim>) -> Fact {
    Fact { ty: crate::ValueType::new(data.dtype(), shape), constant: None, elements: data.dims() }
}

fn reshaped(data: &Tensor, shape: &[usize]) -> Result<Vec<Tensor>, OpError> {
    Ok(vec![data.reshaped(shape).map_err(|error: TensorError| OpError::Shape(error.to_string()))?])
}

/// Number of entries of a list, if it is known and small.
fn list_length(list: &Fact) -> Option<usize> {
    list.shape().first().and_then(Dim::as_usize).filter(|&n| n <= MAX_TRACKED_ELEMENTS)
}

/// `Identity`.
#[derive(Clone, Debug, PartialEq)]
pub struct Identity;

impl OpDef for Identity {
    const NAMES: &'static [&'static str] = &["Identity"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Identity)
    }
    fn name(&self) -> &'static str {
        "Identity"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        Ok(vec![required(inputs, 0, "input")?.clone()])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        Ok(vec![required_tensor(inputs, 0, "input")?.clone()])
    }
    const TAKES_DATA: bool = true;
    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        arity(inputs, 1, 1)?;
        let datum = optional(inputs, 0).ok_or(OpError::MissingInput { slot: 0, name: "input" })?;
        Ok(vec![datum.clone()])
    }
}

/// `Reshape`: operands data, shape (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Reshape {
    /// A zero in the target is a dim of zero, not a copied dim.
    pub allowzero: bool,
}

impl Reshape {
    /// Shape of the result for a target whose elements are known.
    fn target(&self, from: &[Dim], target: &[Dim], cx: &mut InferCx) -> Result<Vec<Dim>, OpError> {
        let mut shape = Vec::with_capacity(target.len());
        let (mut rest, mut copied) = (None, Vec::new());
        for (axis, dim) in target.iter().enumerate() {
            match dim.as_const() {
                Some(0) if !self.allowzero => match from.get(axis) {
                    Some(same) => {
                        copied.push(axis);
                        shape.push(same.clone());
                    }
                    None => return Err(refused(from, target, "there is no dim to copy for a 0")),
                },
                Some(-1) if rest.is_some() => return Err(refused(from, target, "it has more than one -1")),
                Some(-1) => {
                    rest = Some(axis);
                    shape.push(Dim::from(1));
                }
                Some(value) if value < 0 => return Err(refused(from, target, "a dim is negative")),
                _ => shape.push(dim.clone()),
            }
        }
        let (left, taken) = without_common(&without(from, &copied), &without(&shape, &copied));
        match rest {
            None => cx.require_equal(&left, &taken),
            Some(_) if taken.is(0) => Err(refused(from, target, "-1 beside a dim of 0 can be anything")),
            Some(axis) => {
                shape[axis] = left.floor_div(&taken);
                cx.require_equal(&left, &(taken * shape[axis].clone()))
            }
        }
        .map_err(|_| refused(from, target, "element counts differ"))?;
        Ok(shape)
    }
}

fn refused(from: &[Dim], target: &[Dim], reason: &str) -> OpError {
    OpError::Shape(format!("cannot reshape {from:?} to {target:?}: {reason}"))
}

fn without(shape: &[Dim], axes: &[usize]) -> Vec<Dim> {
    shape.iter().enumerate().filter(|(axis, _)| !axes.contains(axis)).map(|(_, dim)| dim.clone()).collect()
}

/// Element counts of two shapes after the symbolic dims that both have are left out.
///
/// So `[n + 1, m, 64] → [n + 1, -1]` needs no division by a sum.
fn without_common(from: &[Dim], to: &[Dim]) -> (Dim, Dim) {
    let mut left: Vec<&Dim> = from.iter().collect();
    let mut kept = Dim::from(1);
    for dim in to {
        match left.iter().position(|other| dim.as_const().is_none() && *other == dim) {
            Some(at) => {
                left.remove(at);
            }
            None => kept = kept * dim.clone(),
        }
    }
    (left.into_iter().product(), kept)
}

impl OpDef for Reshape {
    const NAMES: &'static [&'static str] = &["Reshape"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["allowzero"])?;
        Ok(Reshape { allowzero: attrs.int("allowzero", 0)? != 0 })
    }
    fn name(&self) -> &'static str {
        "Reshape"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("allowzero", Attr::Int(i64::from(self.allowzero)))
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, target) = (required(inputs, 0, "data")?, required(inputs, 1, "shape")?);
        expect_index_list(1, target)?;
        Ok(vec![match target.dims() {
            Some(target) => reshaped_fact(data, self.target(data.shape(), &target, cx)?),
            None => of_rank(data, list_length(target), cx),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "data")?;
        let target: Vec<Dim> =
            required_tensor(inputs, 1, "shape")?.to_i64s().into_iter().map(Dim::from).collect();
        let from: Vec<Dim> = data.shape().iter().map(|&d| Dim::from(d)).collect();
        let shape = self.target(&from, &target, &mut InferCx::default())?;
        let shape: Option<Vec<usize>> = shape.iter().map(Dim::as_usize).collect();
        reshaped(data, &shape.ok_or_else(|| refused(&from, &target, "a dim is negative"))?)
    }
}

/// `Flatten`.
#[derive(Clone, Debug, PartialEq)]
pub struct Flatten {
    /// First axis of the second dim.
    pub axis: i64,
}

impl Flatten {
    /// The axis counted from the front; the rank itself is one, too.
    fn split(&self, rank: usize) -> Result<usize, OpError> {
        match self.axis {
            axis if axis == rank as i64 => Ok(rank),
            axis => normalize_axis(axis, rank),
        }
    }
}

impl OpDef for Flatten {
    const NAMES: &'static [&'static str] = &["Flatten"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis"])?;
        Ok(Flatten { axis: attrs.int("axis", 1)? })
    }
    fn name(&self) -> &'static str {
        "Flatten"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new().with("axis", Attr::Int(self.axis))
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let data = required(inputs, 0, "input")?;
        let (outer, inner) = data.shape().split_at(self.split(data.rank())?);
        Ok(vec![reshaped_fact(data, vec![outer.iter().product(), inner.iter().product()])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "input")?;
        let (outer, inner) = data.shape().split_at(self.split(data.rank())?);
        reshaped(data, &[element_count(outer)?, element_count(inner)?])
    }
}

/// `Squeeze`: operands data, optional axes (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Squeeze;

impl Squeeze {
    /// Axes to remove when none are given; `None` if a dim may be 1 or not.
    fn all_ones(shape: &[Dim]) -> Option<Vec<usize>> {
        let known = shape.iter().all(|dim| dim.as_const().is_some());
        known.then(|| (0..shape.len()).filter(|&axis| shape[axis].is(1)).collect())
    }
}

impl OpDef for Squeeze {
    const NAMES: &'static [&'static str] = &["Squeeze"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Squeeze)
    }
    fn name(&self) -> &'static str {
        "Squeeze"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 2)?;
        let data = required(inputs, 0, "data")?;
        let axes = match optional(inputs, 1).map(known_axes).transpose()? {
            None => match Self::all_ones(data.shape()) {
                Some(axes) => axes,
                None => return Ok(vec![Fact::unranked(data.dtype())]),
            },
            Some(Axes::Known(axes)) => normalize_axes(&axes, data.rank())?,
            Some(Axes::Count(count)) => return Ok(vec![of_rank(data, data.rank().checked_sub(count), cx)]),
            Some(Axes::Unknown) => return Ok(vec![Fact::unranked(data.dtype())]),
        };
        for &axis in &axes {
            let dim = &data.shape()[axis];
            cx.require_equal(dim, &Dim::from(1)).map_err(|_| {
                OpError::Shape(format!(
                    "cannot squeeze axis {axis} of {:?}: it is {dim}, not 1",
                    data.shape()
                ))
            })?;
        }
        Ok(vec![reshaped_fact(data, without(data.shape(), &axes))])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "data")?;
        let axes = match optional(inputs, 1) {
            None => (0..data.rank()).filter(|&axis| data.shape()[axis] == 1).collect(),
            Some(axes) => normalize_axes(&axes.to_i64s(), data.rank())?,
        };
        let kept = data.shape().iter().enumerate().filter(|(axis, _)| !axes.contains(axis));
        reshaped(data, &kept.map(|(_, &dim)| dim).collect::<Vec<_>>())
    }
}

/// What is known of a list of axes.
enum Axes {
    /// The axes.
    Known(Vec<i64>),
    /// How many there are.
    Count(usize),
    /// Nothing.
    Unknown,
}

/// Axes are a list; exporters also give a single one as a scalar.
fn known_axes(axes: &Fact) -> Result<Axes, OpError> {
    if axes.rank() > 0 {
        expect_index_list(1, axes)?;
    }
    expect_dtype(1, axes.dtype(), "i64", |d| d == DType::I64)?;
    let count = if axes.rank() == 0 { Some(1) } else { list_length(axes) };
    Ok(match (axes.ints(), count) {
        (Some(axes), _) => Axes::Known(axes),
        (None, Some(count)) => Axes::Count(count),
        (None, None) => Axes::Unknown,
    })
}

/// A result of which the rank is known and no dim.
fn of_rank(data: &Fact, rank: Option<usize>, cx: &mut InferCx) -> Fact {
    match rank {
        Some(rank) => Fact::of_type(data.dtype(), (0..rank).map(|_| cx.fresh()).collect::<Vec<_>>()),
        None => Fact::unranked(data.dtype()),
    }
}

/// `Unsqueeze`: operands data, axes (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Unsqueeze;

impl Unsqueeze {
    fn shape<D: Clone>(data: &[D], axes: &[i64], one: D) -> Result<Vec<D>, OpError> {
        let axes = normalize_axes(axes, data.len() + axes.len())?;
        let mut dims = data.iter();
        let rank = data.len() + axes.len();
        let shape = (0..rank).map(|axis| match axes.contains(&axis) {
            true => one.clone(),
            false => dims.next().cloned().unwrap_or_else(|| one.clone()),
        });
        Ok(shape.collect())
    }
}

impl OpDef for Unsqueeze {
    const NAMES: &'static [&'static str] = &["Unsqueeze"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Unsqueeze)
    }
    fn name(&self) -> &'static str {
        "Unsqueeze"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, axes) = (required(inputs, 0, "data")?, required(inputs, 1, "axes")?);
        Ok(vec![match known_axes(axes)? {
            Axes::Known(axes) => reshaped_fact(data, Self::shape(data.shape(), &axes, Dim::from(1))?),
            Axes::Count(count) => of_rank(data, data.rank().checked_add(count), cx),
            Axes::Unknown => Fact::unranked(data.dtype()),
        }])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, axes) = (required_tensor(inputs, 0, "data")?, required_tensor(inputs, 1, "axes")?);
        reshaped(data, &Self::shape(data.shape(), &axes.to_i64s(), 1)?)
    }
}

/// `Expand`: operands data, shape (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Expand;

impl OpDef for Expand {
    const NAMES: &'static [&'static str] = &["Expand"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Expand)
    }
    fn name(&self) -> &'static str {
        "Expand"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (data, target) = (required(inputs, 0, "input")?, required(inputs, 1, "shape")?);
        expect_index_list(1, target)?;
        let shape = match target.dims() {
            Some(target) => {
                if let Some(dim) = target.iter().find(|d| d.as_const().is_some_and(|v| v < 0)) {
                    return Err(OpError::Value(format!("cannot expand to {target:?}: {dim} is negative")));
                }
                cx.broadcast(&[data.shape(), &target])?
            }
            None => {
                let Some(length) = list_length(target) else {
                    return Ok(vec![Fact::unranked(data.dtype())]);
                };
                let rank = length.max(data.rank());
                // A known dim above 1 stays as it is, since only 1 and itself broadcast with it.
                let known = |axis: usize| (axis + data.rank()).checked_sub(rank).map(|at| &data.shape()[at]);
                let keeps = |axis: usize, dim: &Dim| {
                    axis + length < rank || dim.as_const().is_some_and(|value| value != 1)
                };
                let dims = (0..rank).map(|axis| match known(axis) {
                    Some(dim) if keeps(axis, dim) => dim.clone(),
                    _ => cx.fresh(),
                });
                dims.collect()
            }
        };
        let elements = broadcast_contents(&[data], &shape).and_then(|mut contents| contents.pop());
        Ok(vec![with_elements(data.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (data, target) = (required_tensor(inputs, 0, "input")?, required_tensor(inputs, 1, "shape")?);
        let target = target.to_i64s();
        let dims: Option<Vec<usize>> = target.iter().map(|&d| usize::try_from(d).ok()).collect();
        let dims =
            dims.ok_or_else(|| OpError::Value(format!("cannot expand to {target:?}: negative dim")))?;
        let shape = broadcast_shape(&[data.shape(), &dims])?;
        Ok(vec![strided(data, &shape, &broadcast_strides(data.shape(), &shape), 0)?])
    }
}

/// `Transpose`.
#[derive(Clone, Debug, PartialEq)]
pub struct Transpose {
    /// Source axis of each result axis; reversed if absent.
    pub perm: Option<Vec<usize>>,
}

impl Transpose {
    /// Source axis of each result axis.
    ///
    /// **Errors**: `perm` is no permutation of the axes of that rank.
    pub fn permutation(&self, rank: usize) -> Result<Vec<usize>, OpError> {
        let Some(perm) = &self.perm else { return Ok((0..rank).rev().collect()) };
        let mut sorted = perm.clone();
        sorted.sort_unstable();
        if sorted.into_iter().eq(0..rank) {
            return Ok(perm.clone());
        }
        Err(OpError::Attribute {
            name: "perm".to_owned(),
            value: format!("{perm:?}"),
            reason: format!("no permutation of the {rank} axes of the operand"),
        })
    }
}

impl OpDef for Transpose {
    const NAMES: &'static [&'static str] = &["Transpose"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["perm"])?;
        let Some(perm) = attrs.ints("perm")? else { return Ok(Transpose { perm: None }) };
        let axes: Option<Vec<usize>> = perm.iter().map(|&axis| usize::try_from(axis).ok()).collect();
        let axes = axes.ok_or_else(|| OpError::Attribute {
            name: "perm".to_owned(),
            value: format!("{perm:?}"),
            reason: "an axis is negative".to_owned(),
        })?;
        Ok(Transpose { perm: Some(axes) })
    }
    fn name(&self) -> &'static str {
        "Transpose"
    }
    fn attrs(&self) -> Attrs {
        match &self.perm {
            None => Attrs::new(),
            Some(perm) => {
                Attrs::new().with("perm", Attr::Ints(perm.iter().map(|&axis| axis as i64).collect()))
            }
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let data = required(inputs, 0, "data")?;
        let perm = self.permutation(data.rank())?;
        let shape = perm.iter().map(|&axis| data.shape()[axis].clone()).collect();
        // A list or a scalar stays as it is; tables of dims are not worth following.
        let elements = data.dims().filter(|_| data.rank() <= 1);
        Ok(vec![with_elements(data.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let data = required_tensor(inputs, 0, "data")?;
        let perm = self.permutation(data.rank())?;
        let from = row_major(data.shape());
        let shape: Vec<usize> = perm.iter().map(|&axis| data.shape()[axis]).collect();
        let strides: Vec<isize> = perm.iter().map(|&axis| from[axis]).collect();
        Ok(vec![strided(data, &shape, &strides, 0)?])
    }
}

/// `Shape`.
#[derive(Clone, Debug, PartialEq)]
pub struct Shape {
    /// First axis.
    pub start: i64,
    /// Axis after the last.
    pub end: Option<i64>,
}

impl Shape {
    /// The dims that are asked for.
    fn of<'a, D>(&self, shape: &'a [D]) -> &'a [D] {
        let rank = shape.len() as i64;
        let clamp =
            |axis: i64| (if axis < 0 { axis.saturating_add(rank) } else { axis }).clamp(0, rank) as usize;
        let (start, end) = (clamp(self.start), self.end.map_or(shape.len(), clamp));
        &shape[start.min(end)..end]
    }
}

impl OpDef for Shape {
    const NAMES: &'static [&'static str] = &["Shape"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["start", "end"])?;
        let end = attrs.get("end").map(|_| attrs.required_int("end")).transpose()?;
        Ok(Shape { start: attrs.int("start", 0)?, end })
    }
    fn name(&self) -> &'static str {
        "Shape"
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new().with("start", Attr::Int(self.start));
        match self.end {
            None => attrs,
            Some(end) => attrs.with("end", Attr::Int(end)),
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let dims = self.of(required(inputs, 0, "data")?.shape()).to_vec();
        Ok(vec![Fact::of_elements(DType::I64, vec![Dim::from(dims.len())], dims)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let dims = self.of(required_tensor(inputs, 0, "data")?.shape());
        Ok(vec![Tensor::from_vec(&[dims.len()], dims.iter().map(|&d| d as i64).collect())])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, infer, inferred, list, list_fact, plain, with};
    use super::*;

    fn contents(shape: Vec<Dim>) -> Fact {
        Fact::of_elements(DType::I64, [Dim::from(shape.len())], shape)
    }

    #[test]
    fn reshape_resolves_zeros_and_the_rest() {
        let data = fact(DType::F32, &["n", "12", "m"]);
        let to = |target: &[i64]| inferred(&plain("Reshape"), &[&data, &list_fact(target)]);
        assert_eq!(to(&[0, 3, 4, -1]), "f32[n,3,4,m]");
        assert_eq!(to(&[-1, 6]), "f32[2*m*n,6]");
        assert_eq!(to(&[0, 0, 0]), "f32[n,12,m]");
        assert!(to(&[-1, -1]).contains("more than one -1"));
        assert!(to(&[0, 0, 0, 0]).contains("no dim to copy"));
        let fixed = fact(DType::F32, &["2", "6"]);
        assert_eq!(inferred(&plain("Reshape"), &[&fixed, &list_fact(&[3, -1])]), "f32[3,4]");
        assert!(
            inferred(&plain("Reshape"), &[&fixed, &list_fact(&[5, -1])]).contains("element counts differ")
        );
        assert!(inferred(&plain("Reshape"), &[&fixed, &list_fact(&[11])]).contains("element counts differ"));
    }

    #[test]
    fn reshape_to_dims_and_to_the_unknown() {
        let sum = Dim::symbol("n") + Dim::from(1);
        let data = Fact::of_type(DType::F32, [sum.clone(), Dim::symbol("m"), Dim::from(64)]);
        let target = contents(vec![sum, Dim::from(-1)]);
        assert_eq!(inferred(&plain("Reshape"), &[&data, &target]), "f32[n + 1,64*m]");
        let unknown = fact(DType::I64, &["2"]);
        assert_eq!(inferred(&plain("Reshape"), &[&data, &unknown]), "f32[node.0,node.1]");
        let endless = fact(DType::I64, &["k"]);
        assert_eq!(inferred(&plain("Reshape"), &[&data, &endless]), "f32[*]");
        assert_eq!(inferred(&plain("Unsqueeze"), &[&data, &unknown]).matches("node").count(), 5);
        assert_eq!(inferred(&plain("Squeeze"), &[&data, &unknown]), "f32[node.0]");
    }

    #[test]
    fn reshape_of_nothing() {
        let empty = Tensor::from_vec::<f32>(&[0, 5], vec![]);
        assert_eq!(eval(&plain("Reshape"), &[&empty, &list(&[0, -1])]).unwrap().shape(), [0, 5]);
        let op = with("Reshape", Attrs::new().with("allowzero", Attr::Int(1)));
        assert_eq!(eval(&op, &[&empty, &list(&[3, 0])]).unwrap().shape(), [3, 0]);
        assert!(eval(&op, &[&empty, &list(&[0, -1])]).is_err());
        let scalar = Tensor::scalar(1u8);
        assert_eq!(eval(&plain("Reshape"), &[&scalar, &list(&[])]).unwrap(), scalar);
    }

    #[test]
    fn squeeze_and_unsqueeze() {
        let data = fact(DType::Bool, &["1", "n", "1"]);
        assert_eq!(inferred(&plain("Squeeze"), &[&data, &list_fact(&[0, -1])]), "bool[n]");
        assert_eq!(inferred(&plain("Squeeze"), &[&data]), "bool[*]");
        assert!(
            inferred(&plain("Squeeze"), &[&fact(DType::F32, &["2"]), &list_fact(&[0])]).contains("not 1")
        );
        assert_eq!(inferred(&plain("Unsqueeze"), &[&data, &list_fact(&[0, -1])]), "bool[1,1,n,1,1]");
        assert!(infer(&plain("Unsqueeze"), &[&data, &list_fact(&[1, 1])]).is_err());
        let words = Tensor::from_strings(&[1, 2], vec!["a".into(), "b".into()]);
        assert_eq!(eval(&plain("Squeeze"), &[&words]).unwrap().shape(), [2]);
    }

    #[test]
    fn flatten_at_every_axis() {
        let data = fact(DType::F32, &["n", "3", "4"]);
        let at = |axis| inferred(&with("Flatten", Flatten { axis }.attrs()), &[&data]);
        assert_eq!([at(0), at(-1), at(3)], ["f32[1,12*n]", "f32[3*n,4]", "f32[12*n,1]"]);
        assert!(at(4).contains("out of range"));
    }

    #[test]
    fn expand_both_ways() {
        let data = Tensor::from_vec(&[2, 1], vec![1i16, 2]);
        let expanded = eval(&plain("Expand"), &[&data, &list(&[2, 1, 3])]).unwrap();
        assert_eq!(expanded, Tensor::from_vec(&[2, 2, 3], vec![1i16, 1, 1, 2, 2, 2, 1, 1, 1, 2, 2, 2]));
        assert!(eval(&plain("Expand"), &[&data, &list(&[-1])]).is_err());
        assert!(eval(&plain("Expand"), &[&data, &list(&[1 << 40, 1 << 40])]).is_err());
        let unknown = fact(DType::I64, &["3"]);
        let rows = fact(DType::F32, &["n", "1", "5"]);
        assert_eq!(inferred(&plain("Expand"), &[&rows, &unknown]), "f32[node.0,node.1,5]");
    }

    #[test]
    fn transpose() {
        let data = Tensor::from_vec(&[1, 2, 3], (0..6).collect::<Vec<i64>>());
        let op = with("Transpose", Attrs::new().with("perm", Attr::Ints(vec![2, 0, 1])));
        let moved = eval(&op, &[&data]).unwrap();
        assert_eq!(moved, Tensor::from_vec(&[3, 1, 2], vec![0i64, 3, 1, 4, 2, 5]));
        assert_eq!(inferred(&plain("Transpose"), &[&fact(DType::F32, &["n", "2"])]), "f32[2,n]");
        assert!(inferred(&op, &[&fact(DType::F32, &["n"])]).contains("no permutation"));
    }

    #[test]
    fn shape_clamps_its_ends() {
        let data = fact(DType::F32, &["n", "3", "m"]);
        let of =
            |start, end| infer(&with("Shape", Shape { start, end }.attrs()), &[&data]).unwrap().remove(0);
        assert_eq!(of(0, None).elements, Some(data.shape().to_vec()));
        assert_eq!(of(-1, Some(9)).elements, Some(vec![Dim::symbol("m")]));
        assert_eq!(of(2, Some(1)).elements, Some(vec![]));
    }

    #[test]
    fn shape_chains_resolve() {
        // The batch and the heads of attention: x[n, s, 64] → [n, s, 4, 16].
        let x = fact(DType::F32, &["n", "s", "64"]);
        let shape = infer(&plain("Shape"), &[&x]).unwrap().remove(0);
        let axis = |axis: i64| with("Gather", Attrs::new().with("axis", Attr::Int(axis)));
        let pick = |at: i64| {
            let dim = infer(&axis(0), &[&shape, &Fact::of_constant(Tensor::scalar(at))]).unwrap().remove(0);
            assert_eq!(dim.rank(), 0);
            infer(&plain("Unsqueeze"), &[&dim, &list_fact(&[0])]).unwrap().remove(0)
        };
        let concat = with("Concat", Attrs::new().with("axis", Attr::Int(0)));
        let heads = list_fact(&[4, -1]);
        let target = infer(&concat, &[&pick(0), &pick(-2), &heads]).unwrap().remove(0);
        assert_eq!(inferred(&plain("Reshape"), &[&x, &target]), "f32[n,s,4,16]");
    }
}
