//! Writing updates into a copy of a tensor.

use crate::ops::OpError;
use crate::ops::elementwise::{float_max, float_min, is_arithmetic_float};
use crate::ops::movement::{Move, move_elements};
use crate::{Attr, Attrs};
use rabot_tensor::{DType, Tensor};

/// What becomes of an element that is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reduction {
    /// The last update.
    None,
    /// Its sum with the updates.
    Add,
    /// Its product with the updates.
    Mul,
    /// The largest of it and the updates; NaN if one is.
    Max,
    /// The smallest of it and the updates; NaN if one is.
    Min,
}

const NAMES: [(Reduction, &str); 5] = [
    (Reduction::None, "none"),
    (Reduction::Add, "add"),
    (Reduction::Mul, "mul"),
    (Reduction::Max, "max"),
    (Reduction::Min, "min"),
];

impl Reduction {
    /// The attribute `reduction`. **Errors**: there is no such reduction.
    pub(super) fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let name = attrs.str("reduction", "none")?;
        let row = NAMES.iter().find(|row| row.1 == name).map(|row| row.0);
        row.ok_or_else(|| OpError::Attribute {
            name: "reduction".to_owned(),
            value: name,
            reason: "expected none, add, mul, max or min".to_owned(),
        })
    }

    /// Adds the attribute, unless it is the default.
    pub(super) fn set(self, attrs: &mut Attrs) {
        if let Some((_, name)) = NAMES.iter().find(|row| row.0 == self && self != Reduction::None) {
            attrs.set("reduction", Attr::Str((*name).to_owned()));
        }
    }

    /// Checks that the reduction is defined for elements of a dtype.
    pub(super) fn check(self, dtype: DType) -> Result<(), OpError> {
        let numeric = is_arithmetic_float(dtype) || dtype.is_int() || dtype == DType::Bool;
        match self == Reduction::None || numeric {
            true => Ok(()),
            false => Err(OpError::DType {
                slot: 0,
                actual: dtype,
                expected: "a number or bool, for a reduction".to_owned(),
            }),
        }
    }

    fn on_floats(self, a: f64, b: f64) -> f64 {
        match self {
            Reduction::None => b,
            Reduction::Add => a + b,
            Reduction::Mul => a * b,
            Reduction::Max => float_max(a, b),
            Reduction::Min => float_min(a, b),
        }
    }

    fn on_ints(self, a: i128, b: i128) -> i128 {
        match self {
            Reduction::None => b,
            Reduction::Add => a.wrapping_add(b),
            Reduction::Mul => a.wrapping_mul(b),
            Reduction::Max => a.max(b),
            Reduction::Min => a.min(b),
        }
    }
}

/// Writes blocks of updates to places of a copy.
struct Written<'a> {
    places: &'a [usize],
    block: usize,
}

impl Move for Written<'_> {
    fn append<T: Clone>(&self, out: &mut Vec<T>, operands: &[&[T]]) {
        let start = out.len();
        out.extend_from_slice(operands[0]);
        for (update, &place) in self.places.iter().enumerate() {
            let from = &operands[1][update * self.block..(update + 1) * self.block];
            out[start + place..start + place + self.block].clone_from_slice(from);
        }
    }
}

/// `data` with `updates` written to places: blocks of updates, one after the other.
///
/// **Errors**: dtypes differ; the updates are not as many as the places ask for; the reduction is not defined for the
/// dtype.
pub(super) fn write(
    data: &Tensor,
    updates: &Tensor,
    (places, block): (&[usize], usize),
    reduction: Reduction,
) -> Result<Tensor, OpError> {
    if places.len().checked_mul(block) != Some(updates.len()) {
        return Err(OpError::Shape(format!(
            "updates of shape {:?} for {} places of {block} elements",
            updates.shape(),
            places.len()
        )));
    }
    reduction.check(data.dtype())?;
    if reduction == Reduction::None || data.dtype() != updates.dtype() {
        return move_elements(data.shape(), &[data, updates], &Written { places, block });
    }
    let targets = places.iter().flat_map(|&place| place..place + block);
    if is_arithmetic_float(data.dtype()) {
        let mut values = data.to_f64s();
        for (target, update) in targets.zip(updates.to_f64s()) {
            values[target] = reduction.on_floats(values[target], update);
        }
        return Ok(Tensor::from_f64s(data.dtype(), data.shape(), &values));
    }
    let wide = |tensor: &Tensor| -> Vec<i128> {
        let unsigned = tensor.dtype() == DType::U64;
        let widen = |v: i64| if unsigned { i128::from(v as u64) } else { i128::from(v) };
        tensor.to_i64s().into_iter().map(widen).collect()
    };
    let mut values = wide(data);
    for (target, update) in targets.zip(wide(updates)) {
        values[target] = reduction.on_ints(values[target], update);
    }
    // The low bits are those of the wrapped result.
    let low: Vec<i64> = values
        .into_iter()
        .map(|v| if data.dtype() == DType::Bool { i64::from(v != 0) } else { v as i64 })
        .collect();
    Ok(Tensor::from_i64s(data.dtype(), data.shape(), &low))
}
