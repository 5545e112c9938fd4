//! How far errors of the inputs and roundings move the outputs of a graph, measured: it is evaluated again on perturbed
//! inputs, and with the roundings of every node made much larger.
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
use rabot_ir::{Datum, Graph, GraphOutput, Node, NodeId, Op, Value, budget};
use rabot_tensor::{DType, Tensor};
use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

/// Evaluations with other signs; of a single element, roundings may cancel in one.
const DRAWS: u64 = 3;

type Values = HashMap<Value, Datum>;

/// What evaluations told of a graph on inputs.
#[derive(Default)]
pub(super) struct Measured {
    /// Shapes of the values.
    pub shapes: HashMap<Value, Vec<usize>>,
    /// How much errors of the inputs are amplified at each output, by name; those that do not move are absent.
    pub amplification: BTreeMap<String, f64>,
    /// Standard deviation of each output, relative to its largest element, by name; those that do not move are absent.
    pub deviations: BTreeMap<String, f64>,
}

/// Evaluates a graph on inputs, on perturbed ones, and with larger roundings.
///
/// **Errors**: the graph cannot be evaluated on the inputs.
pub(super) fn measure(graph: &Graph, inputs: &Tensors) -> Result<Measured, DebugError> {
    let failed = |error| DebugError::interp("the graph", error);
    let order = graph.topological()?;
    let bound = bound(graph, inputs).map_err(failed)?;
    let exact = evaluate(graph, &order, &bound, &mut Exactly).map_err(failed)?;
    let outputs = Outputs { graph, exact: &exact };
    let perturbed = super::perturbed(inputs).and_then(|inputs| bound_moved(graph, &inputs, &bound));
    let jobs = DRAWS as usize + 1;
    // A node may fail on values that are off by so much; then there is nothing to be learnt.
    let job = |job: usize| match (job.checked_sub(1), &perturbed) {
        (None, Some((inputs, moved))) => {
            let mut moved = Perturbed { exact: &exact, moved: moved.clone() };
            evaluate(graph, &order, inputs, &mut moved).map(|values| outputs.apart(&values)).ok()
        }
        (None, None) => None,
        (Some(draw), _) => {
            let mut rounded = Rounded { exact: &exact, random: SplitMix64::new(draw as u64) };
            evaluate(graph, &order, &bound, &mut rounded).map(|values| outputs.apart(&values)).ok()
        }
    };
    let mut found = Measured { shapes: shapes(&exact), ..Measured::default() };
    for (at, apart) in in_parallel(jobs, &job).into_iter().enumerate() {
        for (name, relative) in apart.into_iter().flatten() {
            if at == 0 {
                found.amplification.insert(name, relative / PERTURBATION);
                continue;
            }
            let off = relative * F32 / PERTURBATION;
            if off.is_finite() && off > 0.0 {
                let worst = found.deviations.entry(name).or_insert(0.0f64);
                *worst = worst.max(off);
            }
        }
    }
    Ok(found)
}

fn shapes(values: &Values) -> HashMap<Value, Vec<usize>> {
    let shape = |(value, datum): (&Value, &Datum)| Some((*value, datum.tensor()?.shape().to_vec()));
    values.iter().filter_map(shape).collect()
}

fn bound(graph: &Graph, inputs: &Tensors) -> Result<Vec<Option<Datum>>, InterpError> {
    let data: Data =
        inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect();
    interp::bind(graph, &data)
}

/// Perturbed inputs, and those that differ from the given ones.
#[allow(clippy::type_complexity, reason = "two lists")]
fn bound_moved(
    graph: &Graph,
    inputs: &Tensors,
    given: &[Option<Datum>],
) -> Option<(Vec<Option<Datum>>, HashSet<NodeId>)> {
    let bound = bound(graph, inputs).ok()?;
    let pairs = graph.inputs().iter().zip(bound.iter().zip(given));
    let moved = pairs.filter(|(_, (new, old))| new != old).map(|(id, _)| *id).collect();
    Some((bound, moved))
}

/// Results of `job` for the numbers below `count`, by number; on as many threads as there are cores.
fn in_parallel<T: Send>(count: usize, job: &(dyn Fn(usize) -> Option<T> + Sync)) -> Vec<Option<T>> {
    let (next, budget) = (AtomicUsize::new(0), budget::current());
    let found: Vec<Mutex<Option<T>>> = (0..count).map(|_| Mutex::new(None)).collect();
    let work = || {
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(slot) = found.get(at) else { return };
            *slot.lock().unwrap_or_else(PoisonError::into_inner) = job(at);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(count);
    std::thread::scope(|scope| {
        for _ in 1..threads {
            scope.spawn(|| budget::within(budget, work));
        }
        work();
    });
    found.into_iter().map(|slot| slot.into_inner().unwrap_or_else(PoisonError::into_inner)).collect()
}

/// How far outputs are from the exact ones.
struct Outputs<'a> {
    graph: &'a Graph,
    exact: &'a Values,
}

impl Outputs<'_> {
    /// Relative to the largest element of each, by name.
    fn apart(&self, moved: &Values) -> Vec<(String, f64)> {
        let one = |output: &GraphOutput| {
            let tensor = |values: &Values| values.get(&output.value).and_then(Datum::tensor).cloned();
            let (moved, own) = (tensor(moved)?, tensor(self.exact)?);
            let apart = Difference::of(&moved, &own)?;
            Some((output.name.to_string(), apart.relative))
        };
        self.graph.outputs().iter().filter_map(one).collect()
    }
}

/// How nodes are evaluated.
trait Nodes {
    /// True if all values are to be there in the end, not only the outputs.
    fn keeps(&self) -> bool {
        false
    }

    /// Results of a node on its operands.
    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, InterpError>;
}

struct Exactly;

impl Nodes for Exactly {
    fn keeps(&self) -> bool {
        true
    }

    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        own: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, InterpError> {
        run(graph.node(id), &own)
    }
}

/// On inputs that are off: what does not depend on those is as it was.
struct Perturbed<'a> {
    exact: &'a Values,
    moved: HashSet<NodeId>,
}

impl Nodes for Perturbed<'_> {
    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        own: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, InterpError> {
        let node = graph.node(id);
        if node.inputs.iter().flatten().any(|value| self.moved.contains(&value.node)) {
            self.moved.insert(id);
            return run(node, &own);
        }
        Ok(own_results(graph, id, self.exact))
    }
}

fn own_results(graph: &Graph, id: NodeId, exact: &Values) -> Vec<Datum> {
    let slots = 0..graph.node(id).outputs.len() as u32;
    slots.filter_map(|slot| exact.get(&Value { node: id, slot }).cloned()).collect()
}

fn evaluate(
    graph: &Graph,
    order: &[NodeId],
    inputs: &[Option<Datum>],
    nodes: &mut dyn Nodes,
) -> Result<Values, InterpError> {
    let mut uses: HashMap<Value, usize> = HashMap::new();
    let operands = order.iter().flat_map(|&id| graph.node(id).inputs.iter().flatten().copied());
    for value in operands.chain(graph.outputs().iter().map(|output| output.value)) {
        *uses.entry(value).or_insert(0) += 1;
    }
    let mut values = Values::new();
    for &id in order {
        let node = graph.node(id);
        let results = match graph.inputs().iter().position(|&input| input == id) {
            Some(at) => inputs.get(at).cloned().flatten().into_iter().collect(),
            None => {
                let operand = |input: &Option<Value>| input.and_then(|value| values.get(&value).cloned());
                let operands = node.inputs.iter().map(operand).collect();
                nodes.node(graph, id, operands)?
            }
        };
        let slots = results.into_iter().enumerate();
        let results = slots.map(|(slot, datum)| (Value { node: id, slot: slot as u32 }, datum));
        values.extend(results.filter(|(value, _)| nodes.keeps() || uses.contains_key(value)));
        for value in node.inputs.iter().flatten().filter(|_| !nodes.keeps()) {
            let left = uses.entry(*value).or_insert(1);
            *left -= 1;
            if *left == 0 {
                values.remove(value);
            }
        }
    }
    Ok(values)
}

/// The values of a graph, and where its roundings are made larger.
struct Rounded<'a> {
    exact: &'a Values,
    random: SplitMix64,
}

fn run(node: &Node, operands: &[Option<Datum>]) -> Result<Vec<Datum>, InterpError> {
    let operands: Vec<Option<&Datum>> = operands.iter().map(Option::as_ref).collect();
    run_node(node, &operands)
}

impl Nodes for Rounded<'_> {
    /// Results of a node with its roundings.
    fn node(
        &mut self,
        graph: &Graph,
        id: NodeId,
        mut operands: Vec<Option<Datum>>,
    ) -> Result<Vec<Datum>, InterpError> {
        let node = graph.node(id);
        let first = Value { node: id, slot: 0 };
        if decides(&node.op) || node.outputs.iter().all(|output| !output.fact.dtype().is_float()) {
            return Ok(own_results(graph, id, self.exact));
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
}

impl Rounded<'_> {
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
