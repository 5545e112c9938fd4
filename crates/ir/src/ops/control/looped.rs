//! `Loop`.

use super::rounds::{MAX_TRIPS, too_many_rounds};
use super::{check_own_inputs, leave, outer_symbols};
use crate::ops::{InferCx, OpError};
use crate::{Attr, Attrs, Dim, Fact, Graph};
use rabot_tensor::DType;

/// `Loop`: operands are the trip count (i64, may be absent), the condition (bool, may be absent), the initial values of
/// what is carried, then what the body captures.
///
/// The body's inputs are the number of the round (`i64[]`), the condition (`bool[]`), what is carried, what is
/// captured; its outputs the condition for the next round, what is carried, and one tensor for each scan output, of
/// which those of all rounds are stacked.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__Loop.html>
#[derive(Clone, Debug, PartialEq)]
pub struct Loop {
    /// One round.
    pub body: Graph,
    /// Number of values that are carried.
    pub carried: usize,
}

impl Loop {
    pub(in crate::ops) fn attrs(&self) -> Attrs {
        Attrs::new().with("carried", Attr::Int(self.carried as i64))
    }

    /// Facts of the body's own inputs in the first round.
    pub(super) fn first_facts(&self, inputs: &[Option<&Fact>]) -> Result<Vec<Fact>, OpError> {
        for (slot, dtype) in [(0, DType::I64), (1, DType::Bool)] {
            if let Some(Some(fact)) = inputs.get(slot)
                && fact.dtype() != dtype
            {
                return Err(OpError::DType { slot, actual: fact.dtype(), expected: dtype.to_string() });
            }
        }
        let mut facts = vec![Fact::of_type(DType::I64, []), Fact::of_type(DType::Bool, [])];
        for slot in 2..2 + self.carried {
            let Some(Some(fact)) = inputs.get(slot) else {
                return Err(OpError::MissingInput { slot, name: "v_initial" });
            };
            facts.push(Fact::of(fact.ty.clone()));
        }
        Ok(facts)
    }

    pub(in crate::ops) fn infer(
        &self,
        inputs: &[Option<&Fact>],
        cx: &mut InferCx,
    ) -> Result<Vec<Fact>, OpError> {
        self.first_facts(inputs)?;
        check_own_inputs(&self.body, 2 + self.carried)?;
        let results = self.body.output_facts();
        if results.len() < 1 + self.carried {
            let (actual, least) = (results.len(), 1 + self.carried);
            return Err(OpError::Shape(format!("the body has {actual} outputs, expected at least {least}")));
        }
        self.check_trips(inputs)?;
        let outer = outer_symbols(inputs);
        let mut facts = Vec::new();
        for at in 0..self.carried {
            let initial = self.body.node(self.body.inputs()[2 + at]);
            facts.push(leave(&initial.outputs[0].fact, &outer, cx));
        }
        for result in &results[1 + self.carried..] {
            facts.push(match result.ty.is_tensor() {
                true => {
                    let inner = leave(result, &outer, cx);
                    let shape = [cx.fresh()].into_iter().chain(inner.shape().iter().cloned());
                    Fact::of_type(inner.dtype(), shape.collect::<Vec<Dim>>())
                }
                false => Fact::unranked(result.dtype()),
            });
        }
        Ok(facts)
    }

    /// **Errors**: the loop certainly goes more than [`MAX_TRIPS`] rounds.
    fn check_trips(&self, inputs: &[Option<&Fact>]) -> Result<(), OpError> {
        let constant =
            |slot: usize| inputs.get(slot).copied().flatten()?.constant.as_ref()?.to_i64s().first().copied();
        let trips = constant(0);
        let absent = |slot: usize| inputs.get(slot).copied().flatten().is_none();
        let begins = absent(1) || constant(1) == Some(1);
        let endless = absent(0) || trips.is_some_and(|trips| trips > MAX_TRIPS);
        match begins && endless && self.goes_on() == Some(true) {
            true => Err(too_many_rounds()),
            false => Ok(()),
        }
    }

    /// Whether another round follows each one that the trip count allows, where the body says the same in all rounds.
    pub fn goes_on(&self) -> Option<bool> {
        let condition = self.body.outputs().first()?.value;
        // A round only begins where the condition is true.
        let passed_on = self.body.inputs().get(1) == Some(&self.through_identities(condition).node);
        let constant = self.body.constant(condition).filter(|tensor| tensor.len() == 1);
        if passed_on { Some(true) } else { constant.map(|tensor| tensor.bytes() == [1]) }
    }

    fn through_identities(&self, mut value: crate::Value) -> crate::Value {
        while let crate::Op::Identity(_) = self.body.node(value.node).op {
            match self.body.node(value.node).inputs.first() {
                Some(Some(input)) => value = *input,
                _ => break,
            }
        }
        value
    }
}
