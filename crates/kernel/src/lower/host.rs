//! Nodes that run as Rust functions, each with its reason.

use super::Lowering;
use crate::{HostCall, HostFn, Step};
use rabot_ir::{NodeId, Value};
use rabot_tensor::{DType, Tensor};
use std::sync::Arc;

impl Lowering<'_, '_, '_> {
    /// Plans a node as a call of its reference evaluation. `rabot explain` shows the reason.
    pub(super) fn lower_host(&mut self, id: NodeId, reason: &str) {
        let node = self.graph.node(id);
        let dtypes = node.inputs.iter().flatten().map(|&v| self.graph.fact(v).dtype());
        let mut dtypes = dtypes.chain(node.outputs.iter().map(|o| o.fact.dtype()));
        if dtypes.any(|dtype| dtype == DType::String) {
            return self
                .problem(id, "string tensors cannot be compiled yet; use --reference to run the model");
        }
        let op = node.op.clone();
        let (name, inputs, outputs) = (node.op.name().to_owned(), node.inputs.clone(), node.outputs.len());
        let inputs: Vec<_> = inputs
            .into_iter()
            .map(|input| {
                input.map(|value| {
                    let view = self.dense_view(value);
                    (view.buffer, view.shape)
                })
            })
            .collect();
        let values: Vec<Value> = (0..outputs).map(|slot| Value { node: id, slot: slot as u32 }).collect();
        let outputs = values
            .iter()
            .map(|&value| {
                let fact = self.graph.fact(value);
                let view = self.b.arena(fact.dtype(), fact.shape());
                self.views.insert(value, view.clone());
                (view.buffer, view.shape)
            })
            .collect();
        let function: Arc<HostFn> = Arc::new(move |operands: &[Option<Tensor>]| {
            let operands: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
            op.eval(&operands).map_err(|error| error.to_string())
        });
        let origin = self.origin(&[id], &values);
        let (sources, values) = (origin.sources, origin.values);
        let reason = reason.to_owned();
        self.b.step(Step::Host(HostCall { op: name, reason, inputs, outputs, function, sources, values }));
    }
}
