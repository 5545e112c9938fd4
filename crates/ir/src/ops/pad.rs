//! `Pad`: the operand with a border.
//!
//! `pads` holds what is added before each of `axes` (all by default), then what is added after; negative amounts
//! remove. `mode` says what the border is: `constant` the operand `value` (0, or the empty string), `edge` the
//! nearest element, `reflect` the mirror image without the edge, `wrap` the other end. The last two repeat as
//! often as the border asks for.
//!
//! **Dtypes**: all, strings too; `pads` i64, `axes` i32 or i64.
//!
//! **Opsets**: 1, 2, 11 (pads and value are operands), 18 (`axes`), 19 (`wrap`); later ones add dtypes.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Pad.html>

use super::elementwise::same_dtype;
use super::movement::{Move, element_count, move_elements, row_major};
use super::util::{
    arity, expect_dtype, expect_index_list, known_attrs, normalize_axes, optional, required, required_tensor,
};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
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
    /// Length of one axis of the result.
    fn padded(&self, dim: usize, before: i64, after: i64) -> Result<usize, OpError> {
        let refused = |reason: &str| {
            let mode = self.mode_name();
            OpError::Value(format!("cannot pad an axis of {dim} by {before} and {after} ({mode}): {reason}"))
        };
        let length = (dim as i64).checked_add(before).and_then(|n| n.checked_add(after));
        let length = length.ok_or_else(|| refused("the result is too large"))?;
        if dim == 0 && length > 0 && self.mode != PadMode::Constant {
            return Err(refused("there is nothing to repeat"));
        }
        usize::try_from(length).map_err(|_| refused("nothing is left"))
    }

    /// Source index along an axis of `dim` for each of `length` indices of the result; `None` for the constant.
    fn axis_map(&self, dim: usize, length: usize, before: i64) -> Vec<Option<usize>> {
        let size = dim as i64;
        let source = |index: i64| match index.saturating_sub(before) {
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
        (0..length as i64).map(|index| source(index).map(|at| at as usize)).collect()
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
        let lengths =
            data.shape().iter().zip(&pads).map(|(&d, &(before, after))| self.padded(d, before, after));
        let shape: Vec<usize> = lengths.collect::<Result<_, _>>()?;
        // The maps take as much room as the dims, so the result has to fit before they are made.
        let empty = element_count(&shape)? == 0;
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
        if empty {
            let nothing = match data.dtype() {
                DType::String => Tensor::from_strings(&shape, Vec::new()),
                dtype => Tensor::zeros(dtype, &shape),
            };
            return Ok(vec![nothing]);
        }
        let axes = data.shape().iter().zip(&shape).zip(&pads);
        let maps = axes.map(|((&dim, &length), &(before, _))| self.axis_map(dim, length, before)).collect();
        let moves = PadMove { maps, strides: row_major(data.shape()) };
        Ok(vec![move_elements(&shape, &[data, value], &moves)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, list, list_fact, plain, with};
    use super::*;

    #[test]
    fn pad_in_every_mode() {
        let data = Tensor::from_vec(&[3], vec![1i32, 2, 3]);
        let padded = |mode, pads: &[i64]| {
            let op = with("Pad", Pad { mode }.attrs());
            eval(&op, &[&data, &list(pads)]).map(|t| t.to_slice::<i32>().unwrap().to_vec())
        };
        assert_eq!(padded(PadMode::Constant, &[1, 2]), Ok(vec![0, 1, 2, 3, 0, 0]));
        assert_eq!(padded(PadMode::Constant, &[-1, 1]), Ok(vec![2, 3, 0]));
        assert_eq!(padded(PadMode::Reflect, &[2, 3]), Ok(vec![3, 2, 1, 2, 3, 2, 1, 2]));
        assert_eq!(padded(PadMode::Edge, &[2, 1]), Ok(vec![1, 1, 1, 2, 3, 3]));
        assert_eq!(padded(PadMode::Wrap, &[1, 4]), Ok(vec![3, 1, 2, 3, 1, 2, 3, 1]));
        assert!(padded(PadMode::Constant, &[-2, -2]).is_err());
        assert!(padded(PadMode::Edge, &[i64::MAX, i64::MAX]).is_err());
        assert!(padded(PadMode::Edge, &[1]).is_err());
    }

    #[test]
    fn pad_by_dims_on_some_axes() {
        let op = plain("Pad");
        let pads = Fact::of_elements(DType::I64, [Dim::from(2)], vec![Dim::from(0), Dim::symbol("k")]);
        let inputs = [fact(DType::F32, &["n", "m"]), pads, list_fact(&[-1])];
        let [data, pads, axes] = &inputs;
        let facts = op.infer(&[Some(data), Some(pads), None, Some(axes)], &mut InferCx::new("node")).unwrap();
        assert_eq!(facts[0].ty.to_string(), "f32[n,k + m]");
        let value = Tensor::scalar(9f32);
        let data = Tensor::from_vec(&[2, 1], vec![1f32, 2.0]);
        let outputs = op.eval(&[Some(&data), Some(&list(&[1, 0])), Some(&value), Some(&list(&[1]))]).unwrap();
        assert_eq!(outputs[0], Tensor::from_vec(&[2, 2], vec![9f32, 1.0, 9.0, 2.0]));
    }
}
