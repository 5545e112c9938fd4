//! RTen. Its threads are those of the environment variable `RTEN_NUM_THREADS`.

#![forbid(unsafe_code)]

use rabot_bench_peers::{Peer, Result, Tensor, main as turn};
use rten::{Model, ModelOptions, NodeId, Value};
use rten_tensor::Tensor as RtenTensor;
use rten_tensor::prelude::*;
use std::path::Path;

struct Rten {
    model: Model,
    inputs: Vec<(NodeId, Value)>,
    outputs: Vec<Value>,
}

/// RTen has no 64-bit integers, nor booleans: both are its `i32`.
fn value(tensor: &Tensor) -> Result<Value> {
    let dims = tensor.dims.as_slice();
    Ok(match tensor.dtype.as_str() {
        "float32" => RtenTensor::from_data(dims, tensor.elements(f32::from_le_bytes)).into(),
        "int32" => RtenTensor::from_data(dims, tensor.elements(i32::from_le_bytes)).into(),
        "int64" => {
            let narrow: std::result::Result<Vec<i32>, _> =
                tensor.elements(i64::from_le_bytes).into_iter().map(i32::try_from).collect();
            RtenTensor::from_data(dims, narrow?).into()
        }
        "bool" => RtenTensor::from_data(dims, tensor.elements(|[byte]| i32::from(byte))).into(),
        other => return Err(format!("no input of {other}").into()),
    })
}

impl Peer for Rten {
    fn load(model: &Path, _: &[Tensor]) -> Result<Self> {
        let model = ModelOptions::with_all_ops().prepack_weights(true).load_file(model)?;
        Ok(Rten { model, inputs: Vec::new(), outputs: Vec::new() })
    }

    fn bind(&mut self, inputs: &[Tensor]) -> Result<()> {
        for tensor in inputs {
            self.inputs.push((self.model.node_id(&tensor.name)?, value(tensor)?));
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        let inputs = self.inputs.iter().map(|(id, value)| (*id, value.into())).collect();
        self.outputs = self.model.run(inputs, self.model.output_ids(), None)?;
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::new();
        for (id, value) in self.model.output_ids().iter().zip(&self.outputs) {
            let name = self.model.node_info(*id).and_then(|info| info.name()).unwrap_or_default().to_owned();
            let (dtype, bytes) = match value {
                Value::FloatTensor(tensor) => {
                    ("float32", tensor.iter().copied().flat_map(f32::to_le_bytes).collect())
                }
                Value::Int32Tensor(tensor) => {
                    ("int32", tensor.iter().copied().flat_map(i32::to_le_bytes).collect())
                }
                other => return Err(format!("no output of {}", other.dtype()).into()),
            };
            tensors.push(Tensor { name, dtype: dtype.to_owned(), dims: value.shape().to_vec(), bytes });
        }
        Ok(tensors)
    }
}

fn main() {
    turn::<Rten>();
}
