//! Elementwise choices: `Where`, `Clip`.
//!
//! - `Where(condition, x, y)`: `x` where the condition holds, else `y`; all three broadcast by numpy's rule.
//! - `Clip(x, min?, max?)`: `min(max(x, min), max)`, so `max` wins where `min > max`; NaN stays NaN.
//!
//! **Dtypes**: `Where` any, strings too, and a bool condition; `Clip` any number, bounds of the dtype of `x`.
//!
//! **Opsets**: Where 9, 16 (bf16); Clip 1, 6, 11 (bounds are operands), 12 (integers), 13 (bf16).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Where.html>, <https://onnx.ai/onnx/operators/onnx__Clip.html>

use super::elementwise::{is_numeric, map_floats, map_ints, same_dtype, wide};
use super::movement::{Move, Walk, broadcast_shape, move_elements};
use super::tracked::{broadcast_contents, maximum, minimum, with_elements};
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor};

/// `Where`: `condition ? x : y`, with broadcasting.
#[derive(Clone, Debug, PartialEq)]
pub struct Where;

/// Picks from the operands `x` and `y` by the bytes of the condition.
struct Choose<'a> {
    condition: &'a [u8],
    walk: Walk<3>,
}

impl Move for Choose<'_> {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        let (x, y) = (operands[0], operands[1]);
        self.walk.rows([0; 3], |at, step, len| {
            out.extend((0..len as isize).map(|k| {
                let index = |n: usize| (at[n] + k * step[n]) as usize;
                if self.condition[index(0)] != 0 { x[index(1)].clone() } else { y[index(2)].clone() }
            }));
        });
    }
}

impl Where {
    /// Contents of the result, where both choices are known and the condition is or does not matter.
    fn contents(condition: &Fact, x: &Fact, y: &Fact, shape: &[Dim]) -> Option<Vec<Dim>> {
        let contents = broadcast_contents(&[x, y], shape)?;
        let [x, y] = contents.as_slice() else { return None };
        // The condition as integers broadcasts like any other contents.
        let known = condition.constant.as_ref().filter(|c| c.len() <= MAX_TRACKED_ELEMENTS).and_then(|c| {
            let flags = Fact::of_constant(Tensor::from_i64s(DType::I64, c.shape(), &c.to_i64s()));
            broadcast_contents(&[&flags], shape)?.pop()
        });
        let pick = |at: usize| match &known {
            Some(flags) if flags[at].is(0) => Some(y[at].clone()),
            Some(_) => Some(x[at].clone()),
            None => (x[at] == y[at]).then(|| x[at].clone()),
        };
        (0..x.len()).map(pick).collect()
    }
}

impl OpDef for Where {
    const NAMES: &'static [&'static str] = &["Where"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Where)
    }
    fn name(&self) -> &'static str {
        "Where"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let (condition, x, y) =
            (required(inputs, 0, "condition")?, required(inputs, 1, "X")?, required(inputs, 2, "Y")?);
        expect_dtype(0, condition.dtype(), "bool", |d| d == DType::Bool)?;
        expect_dtype(2, y.dtype(), &format!("{}, as input 1", x.dtype()), |d| d == x.dtype())?;
        let shape = cx.broadcast(&[condition.shape(), x.shape(), y.shape()])?;
        let elements = Self::contents(condition, x, y, &shape);
        Ok(vec![with_elements(x.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let condition = required_tensor(inputs, 0, "condition")?;
        let (x, y) = (required_tensor(inputs, 1, "X")?, required_tensor(inputs, 2, "Y")?);
        expect_dtype(0, condition.dtype(), "bool", |d| d == DType::Bool)?;
        let shape = broadcast_shape(&[condition.shape(), x.shape(), y.shape()])?;
        let walk = Walk::broadcast([condition.shape(), x.shape(), y.shape()], &shape);
        Ok(vec![move_elements(&shape, &[x, y], &Choose { condition: condition.bytes(), walk })?])
    }
}

/// `Clip`: operands x, optional scalar min, optional scalar max.
#[derive(Clone, Debug, PartialEq)]
pub struct Clip;

/// The one element of a bound.
fn bound<T: Copy>(slot: usize, tensor: &Tensor, values: &[T]) -> Result<T, OpError> {
    match values {
        [value] => Ok(*value),
        _ => Err(OpError::Shape(format!("input {slot} must be a scalar, not {:?}", tensor.shape()))),
    }
}

/// An integer tensor without loss.
fn wide_elements(tensor: &Tensor) -> Vec<i128> {
    match tensor.to_slice::<u64>() {
        Ok(values) => values.iter().map(|&v| wide(v)).collect(),
        Err(_) => tensor.to_i64s().into_iter().map(i128::from).collect(),
    }
}

impl OpDef for Clip {
    const NAMES: &'static [&'static str] = &["Clip"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(Clip)
    }
    fn name(&self) -> &'static str {
        "Clip"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 3)?;
        let x = required(inputs, 0, "input")?;
        expect_dtype(0, x.dtype(), "a number", is_numeric)?;
        let mut elements = x.dims();
        for (slot, pick) in [(1, maximum as fn(&Dim, &Dim) -> Dim), (2, minimum)] {
            let Some(bound) = optional(inputs, slot) else { continue };
            same_dtype(slot, bound, x)?;
            if bound.rank() > 1 || !bound.ty.elements().is(1) {
                return Err(OpError::Shape(format!("input {slot} must be a scalar, not {}", bound.ty)));
            }
            let bound = bound.dims().and_then(|mut dims| dims.pop());
            elements = elements.zip(bound).map(|(all, bound)| all.iter().map(|e| pick(e, &bound)).collect());
        }
        Ok(vec![with_elements(x.dtype(), x.shape().to_vec(), elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "input")?;
        expect_dtype(0, x.dtype(), "a number", is_numeric)?;
        let bounds = [1, 2].map(|slot| optional(inputs, slot));
        for (index, tensor) in bounds.iter().enumerate() {
            let Some(tensor) = tensor else { continue };
            let expected = format!("{}, as input 0", x.dtype());
            expect_dtype(index + 1, tensor.dtype(), &expected, |d| d == x.dtype())?;
        }
        if x.dtype().is_int() {
            let value = |index: usize, default| {
                bounds[index].map_or(Ok(default), |t| bound(index + 1, t, &wide_elements(t)))
            };
            let (low, high) = (value(0, i128::MIN)?, value(1, i128::MAX)?);
            return Ok(vec![map_ints(x, |v| v.max(low).min(high))?]);
        }
        let value =
            |index: usize, default| bounds[index].map_or(Ok(default), |t| bound(index + 1, t, &t.to_f64s()));
        let (low, high) = (value(0, f64::NEG_INFINITY)?, value(1, f64::INFINITY)?);
        let clip = |v: f64| {
            let raised = if v < low { low } else { v };
            if raised > high { high } else { raised }
        };
        Ok(vec![map_floats(x, clip)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, infer, list_fact, plain};
    use super::*;

    #[test]
    fn choices_broadcast_for_every_dtype() {
        let condition = Tensor::from_bools(&[2, 1], &[true, false]);
        let x = Tensor::from_strings(&[], vec!["yes".into()]);
        let y = Tensor::from_strings(&[2], vec!["no".into(), "never".into()]);
        let chosen = eval(&plain("Where"), &[&condition, &x, &y]).unwrap();
        assert_eq!(chosen.shape(), [2, 2]);
        assert_eq!(chosen.strings().unwrap(), ["yes", "yes", "no", "never"]);
        let (x, y) = (Tensor::from_vec(&[2], vec![1u8, 2]), Tensor::scalar(9u8));
        let chosen = eval(&plain("Where"), &[&condition, &x, &y]).unwrap();
        assert_eq!(chosen, Tensor::from_vec(&[2, 2], vec![1u8, 2, 9, 9]));
    }

    #[test]
    fn contents_are_chosen() {
        let n = Dim::symbol("n");
        let dims = Fact::of_elements(DType::I64, [Dim::from(2)], vec![n.clone(), Dim::from(-1)]);
        let ones = list_fact(&[1, 1]);
        let is_open = infer(&plain("Equal"), &[&dims, &list_fact(&[-1])]).unwrap().remove(0);
        let chosen = infer(&plain("Where"), &[&is_open, &ones, &dims]).unwrap().remove(0);
        assert_eq!(chosen.elements, Some(vec![n, Dim::from(1)]));
    }

    #[test]
    fn the_upper_bound_wins_and_nan_stays() {
        let x = Tensor::from_vec(&[3], vec![f32::NAN, -5.0, 5.0]);
        let clipped = eval(&plain("Clip"), &[&x, &Tensor::scalar(2f32), &Tensor::scalar(1f32)]).unwrap();
        assert!(clipped.to_f64s()[0].is_nan());
        assert_eq!(clipped.to_f64s()[1..], [1.0, 1.0]);
        let x = Tensor::from_vec(&[2], vec![u64::MAX, 0]);
        let clipped = eval(&plain("Clip"), &[&x, &Tensor::scalar(1u64)]).unwrap();
        assert_eq!(clipped, Tensor::from_vec(&[2], vec![u64::MAX, 1]));
        assert!(eval(&plain("Clip"), &[&x, &x]).is_err());
    }
}
