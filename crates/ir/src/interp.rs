//! The reference interpreter: the oracle that every pass and every kernel is held to.
//!
//! It evaluates node by node with the plain loops of `ops`, and drops a value after its last use.

use crate::ops::{Op, OpError};
use crate::{Datum, Graph, GraphError, Node, NodeId, Value, budget};
use indexmap::IndexMap;
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// The graph cannot be evaluated on these inputs.
#[derive(Debug, thiserror::Error)]
pub enum InterpError {
    /// An input has no value.
    #[error("input `{name}` ({ty}) is missing")]
    MissingInput {
        /// Name of the input.
        name: String,
        /// Its type.
        ty: String,
    },
    /// A value was given for an input the graph does not have.
    #[error("the model has no input `{name}`; its inputs are {known}")]
    UnknownInput {
        /// The name given.
        name: String,
        /// The names there are.
        known: String,
    },
    /// An input is not of the declared type.
    #[error("input `{name}` is {dtype}{shape:?}, expected {ty}")]
    InputType {
        /// Name of the input.
        name: String,
        /// Dtype given.
        dtype: DType,
        /// Shape given.
        shape: Vec<usize>,
        /// The declared type.
        ty: String,
    },
    /// An input that is no tensor is not of the declared type.
    #[error("input `{name}` is {actual}, expected {ty}")]
    InputForm {
        /// Name of the input.
        name: String,
        /// What was given.
        actual: String,
        /// The declared type.
        ty: String,
    },
    /// An output is no tensor, and only tensors were asked for.
    #[error("output `{name}` is {actual}, not a tensor")]
    OutputForm {
        /// Name of the output.
        name: String,
        /// What it is.
        actual: String,
    },
    /// An operator failed.
    #[error("{op} `{node}`: {error} (inputs: {inputs})")]
    Op {
        /// Name of the node.
        node: String,
        /// Name of its op.
        op: &'static str,
        /// Types of the operands.
        inputs: String,
        /// What the op said.
        error: Box<OpError>,
    },
    /// The graph is not valid.
    #[error(transparent)]
    Graph(#[from] GraphError),
}

/// Tensors by name, in order.
pub type Tensors = IndexMap<String, Tensor>;

/// Values of any kind by name, in order.
pub type Data = IndexMap<String, Datum>;

/// Evaluates a graph on named inputs; gives its outputs by name.
///
/// **Errors**: a missing, unknown or wrongly typed input, or an operator that fails.
pub fn run(graph: &Graph, inputs: &Tensors) -> Result<Tensors, InterpError> {
    run_observed(graph, inputs, &mut |_, _| {})
}

/// As [`run`], for inputs and outputs that need not be tensors.
///
/// **Errors**: as [`run`].
pub fn run_data(graph: &Graph, inputs: &Data) -> Result<Data, InterpError> {
    let positional = bind(graph, inputs)?;
    let outputs = evaluate(graph, &positional, &mut |_, _| {})?;
    let names = graph.outputs().iter().map(|o| o.name.to_string());
    Ok(names.zip(outputs).collect())
}

/// As [`run`], and shows every tensor to `observe` as soon as it is known; inputs and constants too.
pub fn run_observed(
    graph: &Graph,
    inputs: &Tensors,
    observe: &mut dyn FnMut(Value, &Tensor),
) -> Result<Tensors, InterpError> {
    let data = inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect();
    let positional = bind(graph, &data)?;
    let outputs = evaluate(graph, &positional, observe)?;
    let named = graph.outputs().iter().map(|o| o.name.to_string()).zip(outputs);
    let tensor = |(name, datum): (String, Datum)| match datum {
        Datum::Tensor(tensor) => Ok((name, tensor)),
        other => Err(InterpError::OutputForm { name, actual: other.to_string() }),
    };
    named.map(tensor).collect()
}

/// Evaluates a graph on inputs given in its own order; for nested graphs.
///
/// **Errors**: as [`run`].
pub fn run_positional(graph: &Graph, inputs: &[Option<Datum>]) -> Result<Vec<Datum>, InterpError> {
    evaluate(graph, inputs, &mut |_, _| {})
}

/// Named inputs in the order of the graph's own, checked against their types.
///
/// **Errors**: a missing, unknown or wrongly typed input.
pub fn bind(graph: &Graph, inputs: &Data) -> Result<Vec<Option<Datum>>, InterpError> {
    let names: Vec<&str> = graph.inputs().iter().map(|&id| &*graph.node(id).name).collect();
    if let Some(name) = inputs.keys().find(|name| !names.contains(&name.as_str())) {
        return Err(InterpError::UnknownInput { name: name.clone(), known: names.join(", ") });
    }
    let mut symbols: HashMap<String, usize> = HashMap::new();
    let mut bound = Vec::new();
    for &id in graph.inputs() {
        let node = graph.node(id);
        let ty = &node.outputs[0].fact.ty;
        let datum = inputs
            .get(&*node.name)
            .ok_or_else(|| InterpError::MissingInput { name: node.name.to_string(), ty: ty.to_string() })?;
        let fits = datum.dims_of(ty, &mut |dim, actual| match dim.as_symbol() {
            Some(name) => *symbols.entry(name.to_owned()).or_insert(actual) == actual,
            None => true,
        });
        if !fits {
            let (name, ty) = (node.name.to_string(), ty.to_string());
            return Err(match datum {
                Datum::Tensor(tensor) => {
                    InterpError::InputType { name, dtype: tensor.dtype(), shape: tensor.shape().to_vec(), ty }
                }
                other => InterpError::InputForm { name, actual: other.to_string(), ty },
            });
        }
        bound.push(Some(datum.clone()));
    }
    Ok(bound)
}

fn evaluate(
    graph: &Graph,
    inputs: &[Option<Datum>],
    observe: &mut dyn FnMut(Value, &Tensor),
) -> Result<Vec<Datum>, InterpError> {
    let order = graph.topological()?;
    let mut uses: HashMap<Value, usize> = HashMap::new();
    for &id in &order {
        for value in graph.node(id).inputs.iter().flatten() {
            *uses.entry(*value).or_insert(0) += 1;
        }
    }
    for output in graph.outputs() {
        *uses.entry(output.value).or_insert(0) += 1;
    }
    let mut values: HashMap<Value, Datum> = HashMap::new();
    for &id in &order {
        let results = match &graph.node(id).op {
            Op::Input => {
                let position = graph.inputs().iter().position(|&input| input == id);
                let datum = position.and_then(|at| inputs.get(at).cloned().flatten());
                datum.into_iter().collect()
            }
            _ => evaluate_node(graph, id, &values)?,
        };
        for (slot, datum) in results.into_iter().enumerate() {
            let value = Value { node: id, slot: slot as u32 };
            if let Datum::Tensor(tensor) = &datum {
                observe(value, tensor);
            }
            if uses.contains_key(&value) {
                values.insert(value, datum);
            }
        }
        for value in graph.node(id).inputs.iter().flatten() {
            if let Some(left) = uses.get_mut(value) {
                *left -= 1;
                if *left == 0 {
                    values.remove(value);
                }
            }
        }
    }
    let missing = |value: &Value| InterpError::MissingInput {
        name: graph.value_name(*value).to_string(),
        ty: graph.fact(*value).ty.to_string(),
    };
    let outputs = graph.outputs().iter().map(|o| &o.value);
    outputs.map(|v| values.get(v).cloned().ok_or_else(|| missing(v))).collect()
}

fn evaluate_node(
    graph: &Graph,
    id: NodeId,
    values: &HashMap<Value, Datum>,
) -> Result<Vec<Datum>, InterpError> {
    let node = graph.node(id);
    let operands: Vec<Option<&Datum>> = node.inputs.iter().map(|i| i.and_then(|v| values.get(&v))).collect();
    run_node(node, &operands)
}

/// Evaluates one node, which is no input, on its operands.
///
/// **Errors**: the operator fails, or the time is over.
pub fn run_node(node: &Node, operands: &[Option<&Datum>]) -> Result<Vec<Datum>, InterpError> {
    let result = budget::check_time().and_then(|()| node.op.eval_data(operands));
    result.map_err(|error| {
        let types = operands.iter().map(|t| match t {
            Some(datum) => datum.to_string(),
            None => "-".to_owned(),
        });
        let inputs = types.collect::<Vec<_>>().join(", ");
        InterpError::Op { node: node.name.to_string(), op: node.op.name(), inputs, error: Box::new(error) }
    })
}
