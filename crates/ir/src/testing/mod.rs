//! Test support: random graphs, random inputs, and an evaluation that holds inference to its word.
//!
//! Nothing here is for programs; it is public so that the tests of every crate can use it.

mod builder;
mod control;
mod dense;
mod elementwise;
mod movement;
mod quant;
mod reduce;

use crate::interp::{self, Tensors};
use crate::text::random_tensor;
use crate::{Datum, Dim, DimError, Graph, Value};
use builder::Builder;
use rabot_tensor::{DType, Tensor};
use std::cell::RefCell;
use std::collections::HashMap;

/// Adds a node of the op with this name, and what it needs; `None` if it does not fit what is there.
type Recipe = fn(&mut Builder, &'static str) -> Option<()>;

/// How each op comes into a random graph.
const RECIPES: &[(Recipe, &[&str])] = &[
    (
        elementwise::unary,
        &[
            "Abs",
            "Acos",
            "Acosh",
            "Asin",
            "Asinh",
            "Atan",
            "Atanh",
            "Ceil",
            "Celu",
            "Cos",
            "Cosh",
            "Elu",
            "Erf",
            "Exp",
            "Floor",
            "Gelu",
            "HardSigmoid",
            "HardSwish",
            "IsNaN",
            "LeakyRelu",
            "Log",
            "Mish",
            "Neg",
            "Reciprocal",
            "Relu",
            "Round",
            "Selu",
            "Sigmoid",
            "Sign",
            "Sin",
            "Sinh",
            "Softplus",
            "Softsign",
            "Sqrt",
            "Tan",
            "Tanh",
            "ThresholdedRelu",
        ],
    ),
    (elementwise::logic, &["Not", "And", "Or", "Xor"]),
    (elementwise::bitwise, &["BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor"]),
    (elementwise::arithmetic, &["Add", "Sub", "Mul", "Div", "Pow", "PRelu", "Mod"]),
    (elementwise::comparison, &["Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual"]),
    (elementwise::variadic, &["Max", "Min", "Sum", "Mean"]),
    (elementwise::select, &["Where"]),
    (elementwise::clip, &["Clip"]),
    (elementwise::cast, &["Cast"]),
    (quant::bit_cast, &["BitCast"]),
    (movement::view, &["Identity", "Flatten", "Squeeze", "Unsqueeze", "Transpose"]),
    (movement::reshape, &["Reshape"]),
    (movement::expand, &["Expand"]),
    (movement::shape, &["Shape"]),
    (movement::slice, &["Slice"]),
    (movement::split, &["Split"]),
    (movement::concat, &["Concat"]),
    (movement::pad, &["Pad"]),
    (movement::gather, &["Gather"]),
    (movement::constant_of_shape, &["ConstantOfShape"]),
    (movement::range, &["Range"]),
    (dense::mat_mul, &["MatMul"]),
    (dense::gemm, &["Gemm"]),
    (dense::conv, &["Conv", "ConvTranspose"]),
    (dense::pool, &["MaxPool", "AveragePool"]),
    (dense::global_pool, &["GlobalMaxPool", "GlobalAveragePool"]),
    (dense::resize, &["Resize"]),
    (
        reduce::reduce,
        &[
            "ReduceL1",
            "ReduceL2",
            "ReduceLogSum",
            "ReduceLogSumExp",
            "ReduceMax",
            "ReduceMean",
            "ReduceMin",
            "ReduceProd",
            "ReduceSum",
            "ReduceSumSquare",
        ],
    ),
    (reduce::arg_reduce, &["ArgMax", "ArgMin"]),
    (reduce::batch_norm, &["BatchNormalization"]),
    (reduce::layer_norm, &["LayerNormalization", "RMSNormalization"]),
    (reduce::lrn, &["LRN"]),
    (reduce::softmax, &["Softmax", "LogSoftmax"]),
    (quant::quantize, &["QuantizeLinear"]),
    (quant::dequantize, &["DequantizeLinear"]),
    (quant::qlinear_conv, &["QLinearConv"]),
    (quant::qlinear_mat_mul, &["QLinearMatMul"]),
    (quant::conv_integer, &["ConvInteger"]),
    (quant::mat_mul_integer, &["MatMulInteger"]),
    (control::conditional, &["If"]),
];

/// A random graph of about `size` operators, and inputs for it. The same seed always gives the same.
///
/// Every op of the table occurs; most values are f32, of rank 0 to 4, with sizes around vector widths and
/// sometimes 0; in half of the graphs some dims are symbols. Values stay moderate: operands are kept within the
/// domain of an op, and what is discontinuous (`Floor`, comparisons, `ArgMax` …) gets operands that carry no
/// rounding error, so that another evaluation of the same graph must agree closely.
///
/// **Panics** if inference or evaluation refuses what a recipe made: then one of the two is wrong.
pub fn random_graph(seed: u64, size: usize) -> (Graph, Tensors) {
    let all: Vec<(Recipe, &'static str)> =
        RECIPES.iter().flat_map(|(recipe, names)| names.iter().map(|name| (*recipe, *name))).collect();
    random_graph_from(seed, size, &all)
}

/// Names of the ops that random graphs are made of, besides inputs, constants and conditionals: those with kernels.
pub fn drawn_ops() -> impl Iterator<Item = &'static str> {
    include_str!("drawn.txt").lines()
}

/// As [`random_graph`], with the ops named here only (and those that recipes need around them).
///
/// **Panics** as [`random_graph`], and if a name is no op of a recipe.
pub fn random_graph_of(seed: u64, size: usize, ops: &[&str]) -> (Graph, Tensors) {
    let chosen = ops.iter().map(|op| {
        let found = RECIPES.iter().find_map(|(recipe, names)| {
            let name = names.iter().find(|name| *name == op)?;
            Some((*recipe, *name))
        });
        found.unwrap_or_else(|| panic!("no recipe makes `{op}`"))
    });
    random_graph_from(seed, size, &chosen.collect::<Vec<_>>())
}

fn random_graph_from(seed: u64, size: usize, recipes: &[(Recipe, &'static str)]) -> (Graph, Tensors) {
    // A recipe that does not fit is followed by another; all of them can start from nothing.
    const TRIES: usize = 50;
    let mut builder = Builder::new(seed);
    for _ in 0..size.max(1) {
        for _ in 0..TRIES {
            let (recipe, name) = *builder.rng.pick(recipes);
            if recipe(&mut builder, name).is_some() {
                break;
            }
        }
    }
    builder.finish()
}

/// Random inputs that fit the declared types: floats in [-1, 1), integers 0 to 3, booleans by a coin.
///
/// `dim` gives sizes of symbols; for those where it gives none, it is 2, 3, … in the order of their names.
///
/// **Errors**: an input of strings or 8-bit floats, or a dim that has no value.
pub fn random_inputs(
    graph: &Graph,
    seed: u64,
    dim: &dyn Fn(&str) -> Option<usize>,
) -> Result<Tensors, String> {
    let sizes: HashMap<String, i64> = graph
        .symbols()
        .iter()
        .zip(2i64..)
        .map(|(name, default)| (name.to_string(), dim(name).map_or(default, |d| d as i64)))
        .collect();
    let mut inputs = Tensors::new();
    for (&id, at) in graph.inputs().iter().zip(0u64..) {
        let node = graph.node(id);
        let fact = graph.fact(Value { node: id, slot: 0 });
        let shape = eval_shape(fact.shape(), &|name| sizes.get(name).copied())
            .map_err(|e| format!("input `{}`: {e}", node.name))?;
        let (lo, hi) = if fact.dtype().is_float() { (-1.0, 1.0) } else { (0.0, 3.0) };
        let seed = seed.wrapping_mul(1000).wrapping_add(at);
        let tensor = random_tensor(fact.dtype(), &shape, seed, lo, hi)
            .map_err(|e| format!("input `{}`: {e}", node.name))?;
        inputs.insert(node.name.to_string(), tensor);
    }
    Ok(inputs)
}

fn eval_shape(dims: &[Dim], lookup: &dyn Fn(&str) -> Option<i64>) -> Result<Vec<usize>, DimError> {
    let size = |dim: &Dim| {
        let value = dim.eval(lookup)?;
        usize::try_from(value).map_err(|_| DimError::Overflow(dim.to_string()))
    };
    dims.iter().map(size).collect()
}

/// Evaluates a graph and checks every value against what inference says of it: dtype, dims, contents.
///
/// **Errors**: what evaluation says, or the first value that is not as inferred.
pub fn run_checked(graph: &Graph, inputs: &Tensors) -> Result<Tensors, String> {
    let mut sizes: HashMap<String, i64> = HashMap::new();
    for &id in graph.inputs() {
        let fact = graph.fact(Value { node: id, slot: 0 });
        let Some(tensor) = inputs.get(&*graph.node(id).name) else { continue };
        for (dim, &size) in fact.shape().iter().zip(tensor.shape()) {
            sizes.extend(dim.as_symbol().map(|name| (name.to_owned(), size as i64)));
        }
    }
    let sizes = RefCell::new(sizes);
    let mut problem = None;
    let outputs = interp::run_observed(graph, inputs, &mut |value, tensor| {
        if problem.is_none() {
            let found = check_value(graph, value, tensor, &sizes);
            problem = found.map(|p| {
                let node = graph.node(value.node);
                format!("{} `{}`: {p}", node.op.name(), node.outputs[value.slot as usize].name)
            });
        }
    });
    let outputs = outputs.map_err(|e| e.to_string())?;
    if let Some(problem) = problem {
        return Err(problem);
    }
    let sizes = sizes.into_inner();
    let lookup = |name: &str| sizes.get(name).copied();
    for id in graph.node_ids() {
        for (a, b) in &graph.node(id).equal {
            if let (Ok(x), Ok(y)) = (a.eval(&lookup), b.eval(&lookup))
                && x != y
            {
                return Err(format!(
                    "`{}` says that {a} = {b}, but they are {x} and {y}",
                    graph.node(id).name
                ));
            }
        }
    }
    Ok(outputs)
}

/// What is wrong with a value; symbols that are not known yet are bound to what they turn out to be.
fn check_value(
    graph: &Graph,
    value: Value,
    tensor: &Tensor,
    sizes: &RefCell<HashMap<String, i64>>,
) -> Option<String> {
    let fact = graph.fact(value);
    let wrong = || Some(format!("is {}{:?}, inferred {}", tensor.dtype(), tensor.shape(), fact.ty));
    if !fact.ty.is_tensor() {
        return if Datum::Tensor(tensor.clone()).fits(&fact.ty) { None } else { wrong() };
    }
    if tensor.dtype() != fact.dtype() || tensor.rank() != fact.rank() {
        return wrong();
    }
    for (dim, &size) in fact.shape().iter().zip(tensor.shape()) {
        if let Some(name) = dim.as_symbol() {
            sizes.borrow_mut().entry(name.to_owned()).or_insert(size as i64);
        }
        let known = dim.eval(&|name| sizes.borrow().get(name).copied());
        match known {
            Ok(known) if known == size as i64 => {}
            Err(DimError::Unbound(_)) => {}
            Ok(_) | Err(_) => return wrong(),
        }
    }
    if fact.constant.as_ref().is_some_and(|constant| constant != tensor) {
        return Some(format!("is {tensor:?}, inferred {:?}", fact.constant));
    }
    let elements = fact.elements.as_ref()?;
    let actual = tensor.to_i64s();
    let same = |(dim, actual): (&Dim, &i64)| match dim.eval(&|name| sizes.borrow().get(name).copied()) {
        Ok(known) => known == *actual,
        Err(error) => matches!(error, DimError::Unbound(_)),
    };
    let all = elements.len() == actual.len() && elements.iter().zip(&actual).all(same);
    (!all).then(|| format!("has the elements {actual:?}, inferred {elements:?}"))
}

/// Smallest and largest element of a numeric tensor; `None` if it has none.
fn bounds(tensor: &Tensor) -> Option<(f64, f64)> {
    let values = tensor.to_f64s();
    let first = *values.first()?;
    Some(values.iter().fold((first, first), |(lo, hi), &v| (lo.min(v), hi.max(v))))
}

/// True for what most recipes work on.
fn is_f32(dtype: DType) -> bool {
    dtype == DType::F32
}

#[cfg(test)]
mod tests;
