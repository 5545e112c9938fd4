//! Nodes that run as Rust functions, each with its reason.

use super::Lowering;
use crate::{HostCall, HostFn, Step};
use rabot_ir::{NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use std::sync::Arc;

/// Why a pool that gives places runs on the host.
pub(super) const MAXIMA: &str = "places of maxima are found on the host";

/// Why an op that has no kernel runs on the host.
pub(super) fn reason(op: &Op) -> &'static str {
    match op {
        Op::Random(_) | Op::Multinomial(_) | Op::Dropout(_) => "random numbers are drawn on the host",
        Op::Dft(_) | Op::Stft(_) => "transforms of unknown length run on the host",
        Op::Inverse(_) => "matrices are inverted on the host",
        Op::ImageDecoder(_) => "images are decoded on the host",
        Op::SignalWindow(_) | Op::MelWeightMatrix(_) => "sizes are read on the host",
        Op::BitCast(_) => "bits are read as another dtype on the host",
        Op::LpPool(_) => "norms of windows are computed on the host",
        Op::LinearAttention(_) | Op::Cumulate(_) | Op::Det(_) => "each result depends on the one before",
        Op::DeformConv(_) | Op::GridSample(_) | Op::MaxUnpool(_) | Op::MaxRoiPool(_) | Op::RoiAlign(_) => {
            "images are read at computed places on the host"
        }
        Op::Shape(_) | Op::ArgReduce(_) => "index searches run on the host",
        Op::GatherElements(_) | Op::GatherNd(_) | Op::ScatterElements(_) | Op::ScatterNd(_) => {
            "elements at computed places are moved on the host"
        }
        Op::TensorScatter(_) | Op::Compress(_) | Op::ReverseSequence(_) | Op::Col2Im(_) => {
            "elements at computed places are moved on the host"
        }
        Op::TopK(_) | Op::NonZero(_) | Op::Unique(_) | Op::NonMaxSuppression(_) => "searches run on the host",
        Op::TreeClassifier(_) | Op::TreeRegressor(_) | Op::TreeEnsemble(_) => "trees are walked on the host",
        Op::SvmClassifier(_) | Op::SvmRegressor(_) => "support vectors are compared on the host",
        Op::LabelEncoder(_) | Op::OneHotEncoder(_) | Op::TfIdfVectorizer(_) => {
            "values are looked up on the host"
        }
        _ => "no kernel computes it",
    }
}

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
