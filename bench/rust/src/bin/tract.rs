//! tract. It optimizes a model for shapes that it knows, so it is told those of the inputs.

#![forbid(unsafe_code)]

use rabot_bench_peers::{Peer, Result, Tensor, main as turn};
use std::path::Path;
use std::sync::Arc;
use tract_onnx::prelude::{Tensor as TractTensor, *};

struct Tract {
    plan: Arc<TypedSimplePlan>,
    inputs: TVec<TValue>,
    input_names: Vec<String>,
    output_names: Vec<String>,
    outputs: TVec<TValue>,
}

/// numpy's names of types, and tract's.
const TYPES: [(&str, DatumType); 4] = [
    ("float32", DatumType::F32),
    ("int32", DatumType::I32),
    ("int64", DatumType::I64),
    ("bool", DatumType::Bool),
];

fn datum_type(tensor: &Tensor) -> Result<DatumType> {
    let found = TYPES.iter().find(|(name, _)| *name == tensor.dtype);
    Ok(found.ok_or_else(|| format!("no input of {}", tensor.dtype))?.1)
}

fn value(tensor: &Tensor) -> Result<TValue> {
    let dims = tensor.dims.as_slice();
    Ok(match datum_type(tensor)? {
        DatumType::F32 => TractTensor::from_shape(dims, &tensor.elements(f32::from_le_bytes))?,
        DatumType::I32 => TractTensor::from_shape(dims, &tensor.elements(i32::from_le_bytes))?,
        DatumType::I64 => TractTensor::from_shape(dims, &tensor.elements(i64::from_le_bytes))?,
        _ => TractTensor::from_shape(dims, &tensor.elements(|[byte]| byte != 0))?,
    }
    .into())
}

impl Peer for Tract {
    fn load(model: &Path, inputs: &[Tensor]) -> Result<Self> {
        // What a file says of shapes inside has symbols, which would contradict the sizes.
        let onnx = tract_onnx::onnx().with_ignore_value_info(true).with_ignore_output_shapes(true);
        let mut model = onnx.model_for_path(model)?;
        let input_names: Vec<String> =
            model.input_outlets()?.iter().map(|outlet| model.node(outlet.node).name.clone()).collect();
        for (index, name) in input_names.iter().enumerate() {
            let tensor = inputs.iter().find(|tensor| tensor.name == *name);
            let tensor = tensor.ok_or_else(|| format!("no input is called {name}"))?;
            model.set_input_fact(index, InferenceFact::dt_shape(datum_type(tensor)?, &tensor.dims))?;
        }
        let outlets = model.output_outlets()?.iter();
        let output_names = outlets
            .map(|outlet| model.outlet_label(*outlet).unwrap_or(&model.node(outlet.node).name).to_owned())
            .collect();
        let plan = model.into_optimized()?.into_runnable()?;
        Ok(Tract { plan, inputs: tvec![], input_names, output_names, outputs: tvec![] })
    }

    fn bind(&mut self, inputs: &[Tensor]) -> Result<()> {
        for name in &self.input_names {
            let tensor = inputs.iter().find(|tensor| tensor.name == *name);
            self.inputs.push(value(tensor.ok_or_else(|| format!("no input is called {name}"))?)?);
        }
        Ok(())
    }

    fn run(&mut self) -> Result<()> {
        self.outputs = self.plan.run(self.inputs.clone())?;
        Ok(())
    }

    fn outputs(&self) -> Result<Vec<Tensor>> {
        let mut tensors = Vec::new();
        for (name, value) in self.output_names.iter().zip(&self.outputs) {
            let dtype = TYPES.iter().find(|(_, dtype)| *dtype == value.datum_type());
            let dtype = dtype.ok_or_else(|| format!("no output of {:?}", value.datum_type()))?.0.to_owned();
            let (dims, bytes) = (value.shape().to_vec(), value.as_bytes().to_vec());
            tensors.push(Tensor { name: name.clone(), dtype, dims, bytes });
        }
        Ok(tensors)
    }
}

fn main() {
    turn::<Tract>();
}
