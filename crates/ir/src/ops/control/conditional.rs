//! `If`.

use super::{eval_region, leave, outer_symbols};
use crate::ops::{InferCx, OpError};
use crate::{Datum, Fact, Graph};
use rabot_tensor::DType;

/// `If`: the first operand is the condition (bool, one element); the others are what the branches capture.
///
/// Both branches have one input per captured operand, in the same order, and the same number of outputs.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__If.html>
#[derive(Clone, Debug, PartialEq)]
pub struct If {
    /// Evaluated where the condition holds.
    pub then_branch: Graph,
    /// Evaluated where it does not.
    pub else_branch: Graph,
}

impl If {
    pub(in crate::ops) fn infer(
        &self,
        inputs: &[Option<&Fact>],
        cx: &mut InferCx,
    ) -> Result<Vec<Fact>, OpError> {
        let Some(Some(condition)) = inputs.first() else {
            return Err(OpError::MissingInput { slot: 0, name: "cond" });
        };
        if condition.dtype() != DType::Bool {
            let expected = "bool".to_owned();
            return Err(OpError::DType { slot: 0, actual: condition.dtype(), expected });
        }
        let then_facts = self.then_branch.output_facts();
        let else_facts = self.else_branch.output_facts();
        if then_facts.len() != else_facts.len() {
            let counts = format!("{} and {}", then_facts.len(), else_facts.len());
            return Err(OpError::Shape(format!("branches have {counts} outputs")));
        }
        let outer = outer_symbols(inputs);
        let mut join = |(a, b): (&Fact, &Fact)| {
            let joined =
                a.ty.join(&b.ty, &mut || cx.fresh())
                    .ok_or_else(|| OpError::Unsupported(format!("branches give {} and {}", a.ty, b.ty)))?;
            // A symbol that both branches happen to use means nothing outside of them.
            let known = joined == a.ty && joined == b.ty;
            Ok(if known { leave(&Fact::of(joined), &outer, cx) } else { Fact::of(joined) })
        };
        then_facts.iter().zip(&else_facts).map(&mut join).collect()
    }

    pub(in crate::ops) fn eval(&self, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
        let condition = match inputs.first() {
            Some(Some(Datum::Tensor(tensor))) => tensor,
            _ => return Err(OpError::MissingInput { slot: 0, name: "cond" }),
        };
        if condition.dtype() != DType::Bool || condition.len() != 1 {
            return Err(OpError::Value(format!("condition is {condition:?}, expected one bool")));
        }
        let branch = if condition.bytes()[0] != 0 { &self.then_branch } else { &self.else_branch };
        let captured: Vec<Option<Datum>> = inputs[1..].iter().map(|i| i.cloned()).collect();
        eval_region(branch, &captured)
    }
}
