//! Making, reading and changing lists.

use super::{element_type, list, one_of};
use crate::ops::util::{arity, dtype_attr, known_attrs, required};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Datum, Fact, ValueType};
use rabot_tensor::{DType, Tensor};

/// What is done with a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SequenceOp {
    /// An empty list of tensors of a dtype.
    Empty(DType),
    /// A list of the operands.
    Construct,
    /// The element at a position.
    At,
    /// The list with a value before a position, by default at the end.
    Insert,
    /// The list without the element at a position, by default the last one.
    Erase,
    /// Number of elements.
    Length,
}

/// `SequenceEmpty`, `SequenceConstruct`, `SequenceAt`, `SequenceInsert`, `SequenceErase`, `SequenceLength`.
///
/// Positions are i32 or i64 and count from the end where they are negative.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__SequenceAt.html> and its neighbours.
#[derive(Clone, Debug, PartialEq)]
pub struct Sequence {
    /// What is done.
    pub op: SequenceOp,
}

impl OpDef for Sequence {
    const NAMES: &'static [&'static str] = &[
        "SequenceEmpty",
        "SequenceConstruct",
        "SequenceAt",
        "SequenceInsert",
        "SequenceErase",
        "SequenceLength",
    ];
    const TAKES_DATA: bool = true;

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, if name == "SequenceEmpty" { &["dtype"] } else { &[] })?;
        let op = match name {
            "SequenceEmpty" => SequenceOp::Empty(dtype_attr(attrs, "dtype")?.unwrap_or(DType::F32)),
            "SequenceConstruct" => SequenceOp::Construct,
            "SequenceAt" => SequenceOp::At,
            "SequenceInsert" => SequenceOp::Insert,
            "SequenceErase" => SequenceOp::Erase,
            _ => SequenceOp::Length,
        };
        Ok(Sequence { op })
    }

    fn name(&self) -> &'static str {
        match self.op {
            SequenceOp::Empty(_) => "SequenceEmpty",
            SequenceOp::Construct => "SequenceConstruct",
            SequenceOp::At => "SequenceAt",
            SequenceOp::Insert => "SequenceInsert",
            SequenceOp::Erase => "SequenceErase",
            SequenceOp::Length => "SequenceLength",
        }
    }

    fn attrs(&self) -> Attrs {
        match self.op {
            SequenceOp::Empty(dtype) => Attrs::new().with("dtype", Attr::Str(dtype.name().to_owned())),
            _ => Attrs::new(),
        }
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let sequence = || element_type(0, required(inputs, 0, "input_sequence")?);
        let ty = match self.op {
            SequenceOp::Empty(dtype) => {
                arity(inputs, 0, 0)?;
                ValueType::sequence(ValueType::unranked(dtype))
            }
            SequenceOp::Construct => {
                let mut joined = required(inputs, 0, "inputs")?.ty.as_element();
                for (slot, _) in inputs.iter().enumerate() {
                    joined = join(&joined, &required(inputs, slot, "inputs")?.ty)?;
                }
                ValueType::sequence(joined)
            }
            SequenceOp::At => {
                arity(inputs, 2, 2)?;
                expect_position(inputs, 1)?;
                one_of(sequence()?, cx)
            }
            SequenceOp::Insert => {
                arity(inputs, 2, 3)?;
                expect_position(inputs, 2)?;
                ValueType::sequence(join(sequence()?, &required(inputs, 1, "tensor")?.ty)?)
            }
            SequenceOp::Erase => {
                arity(inputs, 1, 2)?;
                expect_position(inputs, 1)?;
                ValueType::sequence(sequence()?.clone())
            }
            SequenceOp::Length => {
                arity(inputs, 1, 1)?;
                sequence()?;
                ValueType::new(DType::I64, [])
            }
        };
        Ok(vec![Fact::of(ty)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let text = format!("{} of {} tensors gives or takes a sequence", self.name(), inputs.len());
        Err(OpError::Unsupported(text))
    }

    fn eval_data(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let operand = |slot: usize| inputs.get(slot).copied().flatten();
        let value =
            |slot: usize| operand(slot).cloned().ok_or(OpError::MissingInput { slot, name: "tensor" });
        let result = match self.op {
            SequenceOp::Empty(_) => Datum::sequence(Vec::new()),
            SequenceOp::Construct => {
                Datum::sequence((0..inputs.len()).map(value).collect::<Result<Vec<_>, _>>()?)
            }
            SequenceOp::At => {
                let values = list(0, operand(0))?;
                let at = position(1, operand(1), values.len(), values.len())?;
                let at = at.ok_or(OpError::MissingInput { slot: 1, name: "position" })?;
                values[at].clone()
            }
            SequenceOp::Insert => {
                let values = list(0, operand(0))?;
                let at = position(2, operand(2), values.len(), values.len() + 1)?.unwrap_or(values.len());
                let mut values = values.to_vec();
                values.insert(at, value(1)?);
                Datum::sequence(values)
            }
            SequenceOp::Erase => {
                let values = list(0, operand(0))?;
                let last = values.len().checked_sub(1);
                let at = position(1, operand(1), values.len(), values.len())?.or(last);
                let at = at.ok_or_else(|| OpError::Value("the sequence is empty".to_owned()))?;
                let mut values = values.to_vec();
                values.remove(at);
                Datum::sequence(values)
            }
            SequenceOp::Length => Datum::Tensor(Tensor::scalar(list(0, operand(0))?.len() as i64)),
        };
        Ok(vec![result])
    }
}

fn join(a: &ValueType, b: &ValueType) -> Result<ValueType, OpError> {
    let joined = a.join(b, &mut || crate::Dim::symbol(crate::UNKNOWN_DIM)).map(|ty| ty.as_element());
    joined.ok_or_else(|| OpError::Shape(format!("a sequence cannot hold both {a} and {b}")))
}

fn expect_position(inputs: &[Option<&Fact>], slot: usize) -> Result<(), OpError> {
    match inputs.get(slot).copied().flatten() {
        Some(fact) if ![DType::I32, DType::I64].contains(&fact.dtype()) => {
            Err(OpError::DType { slot, actual: fact.dtype(), expected: "i32 or i64".to_owned() })
        }
        _ => Ok(()),
    }
}

/// A position in a list of `len` elements, less than `limit`; `None` if the operand is absent.
fn position(slot: usize, datum: Option<&Datum>, len: usize, limit: usize) -> Result<Option<usize>, OpError> {
    let Some(datum) = datum else { return Ok(None) };
    let at = datum.tensor().filter(|tensor| tensor.len() == 1).and_then(|t| t.to_i64s().first().copied());
    let at = at.ok_or_else(|| OpError::Value(format!("input {slot} is {datum}, expected one integer")))?;
    let from_start = if at < 0 { at.saturating_add(len as i64) } else { at };
    let found = usize::try_from(from_start).ok().filter(|&at| at < limit);
    found.map(Some).ok_or_else(|| OpError::Value(format!("position {at} in a sequence of {len}")))
}
