//! Control flow: `If`.

use super::{InferCx, OpError};
use crate::interp;
use crate::{Dim, Fact, Graph};
use rabot_tensor::{DType, Tensor};

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
    pub(super) fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
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
        then_facts.iter().zip(&else_facts).map(|(a, b)| join(a, b, cx)).collect()
    }

    pub(super) fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let Some(Some(condition)) = inputs.first() else {
            return Err(OpError::MissingInput { slot: 0, name: "cond" });
        };
        if condition.dtype() != DType::Bool || condition.len() != 1 {
            return Err(OpError::Value(format!("condition is {condition:?}, expected one bool")));
        }
        let branch = if condition.bytes()[0] != 0 { &self.then_branch } else { &self.else_branch };
        let captured: Vec<Option<Tensor>> = inputs[1..].iter().map(|i| i.cloned()).collect();
        interp::run_positional(branch, &captured).map_err(|e| OpError::Value(e.to_string()))
    }
}

/// What holds whichever branch ran: dims that differ become unknown.
fn join(a: &Fact, b: &Fact, cx: &mut InferCx) -> Result<Fact, OpError> {
    if a.dtype() != b.dtype() || a.rank() != b.rank() {
        let text = format!("branches give {} and {}", a.ty, b.ty);
        return Err(OpError::Unsupported(text));
    }
    let pairs = a.shape().iter().zip(b.shape());
    let shape: Vec<Dim> = pairs.map(|(x, y)| if x == y { x.clone() } else { cx.fresh() }).collect();
    Ok(Fact::of_type(a.dtype(), shape))
}
