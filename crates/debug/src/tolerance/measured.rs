//! How far roundings move the outputs of a graph, measured: it is evaluated again with the roundings of every node made
//! much larger.
//!
//! What the amplification of errors of the inputs does not show, this does: sums of constants that cancel, floats that
//! come from integers, and functions whose error is amplified by the next one where that of their operand is not, as
//! `Log(Tanh(x))` for large x. A node with k roundings gets them all, at random signs, √k · 2⁻¹⁸ in the place of √k · u:
//! a sum in its terms, another operator in its result. Where a function is a difference of terms that cancel, as `Gelu`
//! of a negative number, the error is that of its terms. Decisions (integers, comparisons, rounding to integers) are those
//! of the exact evaluation: roundings so large would flip them far too often, and flips are judged as such.

use super::{F32, PERTURBATION, rounding, roundings};
use crate::{DebugError, Difference, Tensors};
use rabot_ir::interp::{self, Data, InterpError, run_node};
use rabot_ir::ops::{BinaryOp, ReduceOp, UnaryOp};
use rabot_ir::text::SplitMix64;
use rabot_ir::{Datum, Graph, Node, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap};

/// Evaluations with other signs; of a single element, roundings may cancel in one.
const DRAWS: u64 = 3;

type Values = HashMap<Value, Datum>;

/// Standard deviation of each output, relative to its largest element, by name; those that do not move are absent.
///
/// **Errors**: the graph cannot be evaluated on the inputs.
pub(super) fn deviations(graph: &Graph, inputs: &Tensors) -> Result<BTreeMap<String, f64>, DebugError> {
    let failed = |error| DebugError::interp("the graph", error);
    let data: Data =
        inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect();
    let bound = interp::bind(graph, &data).map_err(failed)?;
    let order = graph.topological()?;
    let exact = evaluate(graph, &order, &bound, None).map_err(failed)?;
    let mut found = BTreeMap::new();
    for draw in 0..DRAWS {
        let rounded = Rounded { exact: &exact, random: SplitMix64::new(draw) };
        // A node may fail on values that are off by so much; then there is nothing to be learnt.
        let Ok(moved) = evaluate(graph, &order, &bound, Some(rounded)) else { continue };
        for output in graph.outputs() {
            let tensor = |values: &Values| values.get(&output.value).and_then(Datum::tensor).cloned();
            let (Some(moved), Some(own)) = (tensor(&moved), tensor(&exact)) else { continue };
            let off = Difference::of(&moved, &own).map_or(0.0, |d| d.relative * F32 / PERTURBATION);
            if off.is_finite() && off > 0.0 {
                let worst = found.entry(output.name.to_string()).or_insert(0.0f64);
                *worst = worst.max(off);
            }
        }
    }
    Ok(found)
}

/// The values of a graph, and where its roundings are made larger.
struct Rounded<'a> {
    exact: &'a Values,
    random: SplitMix64,
}

fn evaluate(
    graph: &Graph,
    order: &[NodeId],
    inputs: &[Option<Datum>],
    mut rounded: Option<Rounded<'_>>,
) -> Result<Values, InterpError> {
    let mut values = Values::new();
    for &id in order {
        let node = graph.node(id);
        let results = match graph.inputs().iter().position(|&input| input == id) {
            Some(at) => inputs.get(at).cloned().flatten().into_iter().collect(),
            None => {
                let own: Vec<Option<Datum>> = node
                    .inputs
                    .iter()
                    .map(|input| input.and_then(|value| values.get(&value).cloned()))
                    .collect();
                match &mut rounded {
                    Some(rounded) => rounded.node(graph, id, own)?,
                    None => run(node, &own)?,
                }
            }
        };
        let results = results.into_iter().enumerate();
        values.extend(results.map(|(slot, datum)| (Value { node: id, slot: slot as u32 }, datum)));
    }
    Ok(values)
}

fn run(node: &Node, operands: &[Option<Datum>]) -> Result<Vec<Datum>, InterpError> {
    let operands: Vec<Option<&Datum>> = operands.iter().map(Option::as_ref).collect();
    run_node(node, &operands)
}

impl Rounded<'_> {
    /// Results of a node with its roundings.
    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        mut operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, InterpError> {
        let node = graph.node(id);
        let first = Value { node: id, slot: 0 };
        let own =
            (0..node.outputs.len() as u32).map(|slot| self.exact.get(&Value { node: id, slot }).cloned());
        if decides(&node.op) || node.outputs.iter().all(|output| !output.fact.dtype().is_float()) {
            return Ok(own.flatten().collect());
        }
        let shape = |value: Value| match self.exact.get(&value).and_then(Datum::tensor) {
            Some(tensor) => tensor.shape().to_vec(),
            None => Vec::new(),
        };
        let count = roundings(node, &shape, first);
        let deviation = |dtype: DType| rounding(dtype, count).sqrt() * PERTURBATION / F32;
        if sums(&node.op) {
            if let Some(Some(Datum::Tensor(terms))) = operands.first_mut() {
                let deviation = deviation(terms.dtype());
                *terms = self.moved(terms, None, deviation);
            }
            return run(node, &operands);
        }
        let results = run(node, &operands)?;
        let terms = operands.first().and_then(|operand| operand.as_ref()?.tensor());
        let moved = |datum: Datum| match datum {
            Datum::Tensor(tensor) => {
                let terms = terms.and_then(|x| terms_of(&node.op, x));
                let deviation = deviation(tensor.dtype());
                Datum::Tensor(self.moved(&tensor, terms.as_deref(), deviation))
            }
            other => other,
        };
        Ok(results.into_iter().map(moved).collect())
    }

    /// A tensor with each element off by `deviation` of itself, or of the terms that it is the difference of.
    fn moved(&mut self, tensor: &Tensor, terms: Option<&[f64]>, deviation: f64) -> Tensor {
        if deviation == 0.0 || !tensor.dtype().is_float() {
            return tensor.clone();
        }
        let mut values = tensor.to_f64s();
        for (at, value) in values.iter_mut().enumerate() {
            let size = terms.and_then(|terms| terms.get(at)).copied().unwrap_or(0.0).max(value.abs());
            let sign = if self.random.below(2) == 0 { -1.0 } else { 1.0 };
            *value += sign * deviation * size;
        }
        Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values)
    }
}

/// True if a small error of an operand can be a large one of a float result.
fn decides(op: &Op) -> bool {
    match op {
        Op::Unary(op) => {
            let steps = matches!(op.op, UnaryOp::Round | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Sign);
            steps || matches!(op.op, UnaryOp::ThresholdedRelu { .. })
        }
        Op::Binary(op) => matches!(op.op, BinaryOp::Mod { .. }),
        Op::QuantizeLinear(_) => true,
        _ => false,
    }
}

/// True if an operator sums many elements of its first operand.
fn sums(op: &Op) -> bool {
    match op {
        Op::Reduce(op) => !matches!(op.op, ReduceOp::Max | ReduceOp::Min | ReduceOp::Prod),
        Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_) | Op::Gemm(_) | Op::LayerNormalization(_) => true,
        Op::Pool(_) | Op::GlobalPool(_) | Op::LpPool(_) | Op::DeformConv(_) | Op::Resize(_) => true,
        Op::Cumulate(_) | Op::Dft(_) | Op::Stft(_) | Op::LinearAttention(_) => true,
        _ => false,
    }
}

/// The size of the terms that a function of x is the difference of.
fn terms_of(op: &Op, x: &Tensor) -> Option<Vec<f64>> {
    let Op::Unary(op) = op else { return None };
    let below = |size: &dyn Fn(f64) -> f64| {
        Some(x.to_f64s().into_iter().map(|x| if x < 0.0 { size(x) } else { 0.0 }).collect())
    };
    match op.op {
        UnaryOp::Gelu { .. } => below(&|x| -x / 2.0),
        UnaryOp::Elu { alpha } | UnaryOp::Celu { alpha } => below(&|_| f64::from(alpha).abs()),
        UnaryOp::Selu { alpha, gamma } => below(&|_| f64::from(alpha * gamma).abs()),
        _ => None,
    }
}
