//! Which scale or zero point is wrong.
//!
//! The right ones follow from the values that are quantized: an activation's from its range on the given inputs, a
//! weight's from the largest magnitude. Each is put in the place of the one that the graph has, one at a time, then a
//! scale with its zero point; the first with which the check holds is the wrong one.

use super::check::Judged;
use super::values::Named;
use super::{Engine, Lab};
use rabot_ir::{Graph, Node, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{BTreeSet, HashSet};

/// Numbers that are shown of a parameter.
const SHOWN: usize = 8;

/// The operand of an integer convolution that is its bias.
const BIAS: usize = 8;

/// Pairs of scale and zero point that are tried.
const TRIED: usize = 12;

/// Parameters closer than this are not told apart.
const SAME: f64 = 1e-3;

/// A quantization parameter that is wrong.
#[derive(Clone, Debug, Serialize)]
pub struct Parameter {
    /// Name of the constant.
    pub name: String,
    /// What it is: `scale`, `zero point` or `scale and zero point`, of which value.
    pub role: String,
    /// What it is now; the first elements.
    pub value: Vec<f64>,
    /// What it should be, in the same order.
    pub right: Vec<f64>,
    /// Elements of `value` that differ.
    pub differing: usize,
    /// Largest relative error of an output with the right one.
    pub error: f64,
    /// True if the check holds with the right one.
    pub holds: bool,
}

/// A scale and zero point, and what is right.
struct Pair {
    scale: Value,
    zero: Option<Value>,
    of: String,
    right_scale: Tensor,
    right_zero: Option<Tensor>,
}

/// True if a graph has the constant that a parameter is.
pub(crate) fn is_there(graph: &Graph, name: &str, tensor: &Tensor) -> bool {
    let is = |id: NodeId| {
        let node = graph.node(id);
        *node.name == *name && matches!(&node.op, Op::Constant(other) if other == tensor)
    };
    graph.node_ids().any(is)
}

/// The constant of a name.
pub(crate) fn constant<'g>(graph: &'g Graph, name: &str) -> Option<&'g Tensor> {
    graph.node_ids().find_map(|id| match &graph.node(id).op {
        Op::Constant(tensor) if *graph.node(id).name == *name => Some(tensor),
        _ => None,
    })
}

/// The parameter that is wrong in `after`, which was judged. `seen` are the values before the rewrite.
pub(crate) fn find(lab: &Lab<'_>, seen: &Named<'_>, after: &Graph, now: &Judged) -> Option<Parameter> {
    let mut best: Option<Parameter> = None;
    let suspects = suspects(seen, after);
    for pair in &suspects {
        let scale = (pair.scale, pair.right_scale.clone(), "scale");
        let zero = pair.zero.zip(pair.right_zero.clone()).map(|(v, t)| (v, t, "zero point"));
        let both: Vec<_> = std::iter::once(scale.clone()).chain(zero.clone()).collect();
        let wrong = |set: &[(Value, Tensor, &str)]| set.iter().all(|(v, t, _)| differs(after, *v, t) > 0);
        let sets = [vec![scale], zero.into_iter().collect(), both];
        for set in sets.into_iter().filter(|set| !set.is_empty() && wrong(set)) {
            let values: Vec<(Value, &Tensor)> = set.iter().map(|(value, right, _)| (*value, right)).collect();
            let judged = tried(lab, after, &values);
            let found = told(after, &pair.of, &set, judged.error, judged.holds);
            if judged.holds && !now.holds {
                return found;
            }
            if best.as_ref().is_none_or(|best| judged.error < best.error) {
                best = found;
            }
        }
    }
    // One that changes next to nothing is not what is wrong, or not alone.
    best.filter(|best| best.error < 0.5 * now.error).or_else(|| all(lab, after, &suspects, now))
}

/// The check with right constants in place of others. Biases in integers are in units of the scale of a layer's input, and
/// it is not known whether they were made with the wrong or with the right one: the better of both counts.
fn tried(lab: &Lab<'_>, after: &Graph, values: &[(Value, &Tensor)]) -> Judged {
    let mut graph = after.clone();
    let biases = biases(after, values);
    values.iter().for_each(|(value, right)| replace(&mut graph, *value, right));
    let judged = lab.judged(&graph, Engine::Interpreter);
    if biases.is_empty() || judged.holds {
        return judged;
    }
    for (node, bias) in biases {
        let new = graph.add_constant("bias (right)", bias);
        graph.set_input(node, BIAS, Some(new));
    }
    let other = lab.judged(&graph, Engine::Interpreter);
    if other.holds || other.error < judged.error { other } else { judged }
}

/// The biases of convolutions whose input scales are replaced, in units of the right ones.
fn biases(graph: &Graph, values: &[(Value, &Tensor)]) -> Vec<(NodeId, Tensor)> {
    let one = |id: NodeId| {
        let node = graph.node(id);
        let constant = |slot: usize| node.inputs.get(slot).copied().flatten();
        let bias = graph.constant(constant(BIAS)?)?;
        let scale = constant(1)?;
        let (_, right) = values.iter().find(|(value, _)| *value == scale)?;
        let (now, right) = (graph.constant(scale)?.to_f64s(), right.to_f64s());
        let factor = now.first()? / right.first()?;
        let all: Vec<f64> = bias.to_f64s().into_iter().map(|v| (v * factor).round()).collect();
        Some((id, Tensor::from_f64s(bias.dtype(), bias.shape(), &all)))
    };
    let layers = graph.node_ids().filter(|&id| matches!(graph.node(id).op, Op::QLinearConv(_)));
    layers.filter_map(one).collect()
}

/// The parameter that is furthest off, where all of them have to be right for it to help.
fn all(lab: &Lab<'_>, after: &Graph, suspects: &[Pair], now: &Judged) -> Option<Parameter> {
    let mut values: Vec<(Value, &Tensor)> = Vec::new();
    for pair in suspects {
        let zero = pair.zero.zip(pair.right_zero.as_ref());
        for (value, right) in std::iter::once((pair.scale, &pair.right_scale)).chain(zero) {
            if values.iter().all(|(known, _)| *known != value) {
                values.push((value, right));
            }
        }
    }
    let judged = tried(lab, after, &values);
    let pair = suspects.first().filter(|_| suspects.len() > 1 && judged.error < 0.5 * now.error)?;
    let set = [(pair.scale, pair.right_scale.clone(), "scale")];
    let found = told(after, &pair.of, &set, judged.error, judged.holds)?;
    let others: Vec<String> = suspects.iter().skip(1).map(|other| format!("`{}`", other.of)).collect();
    Some(Parameter { role: format!("{}, with those of {}", found.role, others.join(", ")), ..found })
}

/// Pairs to try: those that the rewrite brought, or all if it brought none, the furthest off first.
fn suspects(seen: &Named<'_>, after: &Graph) -> Vec<Pair> {
    let before = seen.graph();
    let names: HashSet<&str> =
        before.node_ids().flat_map(|id| before.node(id).outputs.iter().map(|o| &*o.name)).collect();
    let (known, new): (Vec<Pair>, Vec<Pair>) =
        pairs(seen, after).into_iter().partition(|pair| names.contains(&**after.value_name(pair.scale)));
    let mut found = if new.is_empty() { known } else { new };
    let off = |pair: &Pair| {
        let now = numbers(after, pair.scale);
        let right = pair.right_scale.to_f64s();
        let apart = now.iter().zip(&right).map(|(now, right)| (now / right).ln().abs());
        let zero = pair.zero.zip(pair.right_zero.as_ref()).map_or(0.0, |(zero, right)| {
            let pairs = numbers(after, zero).into_iter().zip(right.to_f64s());
            pairs.map(|(now, right)| (now - right).abs() / 255.0).fold(0.0, f64::max)
        });
        apart.fold(zero, f64::max)
    };
    found.sort_by(|a, b| off(b).total_cmp(&off(a)));
    found.truncate(TRIED);
    found
}

fn numbers(graph: &Graph, value: Value) -> Vec<f64> {
    graph.constant(value).map(Tensor::to_f64s).unwrap_or_default()
}

fn told(
    graph: &Graph,
    of: &str,
    set: &[(Value, Tensor, &str)],
    error: f64,
    holds: bool,
) -> Option<Parameter> {
    let (value, right, _) = set.first()?;
    let roles: Vec<&str> = set.iter().map(|(_, _, role)| *role).collect();
    let now = graph.constant(*value)?.to_f64s();
    let right_values = right.to_f64s();
    let off: Vec<usize> = (0..now.len()).filter(|&at| apart(now.get(at), right_values.get(at))).collect();
    let take = |values: &[f64]| off.iter().take(SHOWN).filter_map(|&at| values.get(at)).copied().collect();
    Some(Parameter {
        name: graph.value_name(*value).to_string(),
        role: format!("{} of `{of}`", roles.join(" and ")),
        value: take(&now),
        right: take(&right_values),
        differing: off.len(),
        error,
        holds,
    })
}

fn apart(now: Option<&f64>, right: Option<&f64>) -> bool {
    now.zip(right).is_none_or(|(a, b)| (a - b).abs() > SAME * b.abs().max(1e-12))
}

/// Elements of a constant that are not what is right.
fn differs(graph: &Graph, value: Value, right: &Tensor) -> usize {
    let Some(now) = graph.constant(value).filter(|now| now.shape() == right.shape()) else { return 0 };
    let (now, right) = (now.to_f64s(), right.to_f64s());
    (0..now.len()).filter(|&at| apart(now.get(at), right.get(at))).count()
}

/// Puts a constant in the place of another wherever that is used.
fn replace(graph: &mut Graph, old: Value, tensor: &Tensor) {
    let name = format!("{} (right)", graph.value_name(old));
    let new = graph.add_constant(&name, tensor.clone());
    graph.replace_value(old, new);
}

/// Scales and zero points of `after`, each pair once, in order.
fn pairs(seen: &Named<'_>, after: &Graph) -> Vec<Pair> {
    let mut found: Vec<Pair> = Vec::new();
    let mut known: BTreeSet<(Value, Option<Value>)> = BTreeSet::new();
    for id in after.topological().unwrap_or_default() {
        let node = after.node(id);
        let input = |slot: usize| node.inputs.get(slot).copied().flatten();
        let of = |name: &str, scale: usize| {
            let values = seen.get(name)?;
            activation(after, input(scale)?, input(scale + 1), name, &values)
        };
        let output = node.outputs.first().map(|output| output.name.to_string()).unwrap_or_default();
        let own = match &node.op {
            Op::QuantizeLinear(_) => vec![input(0).and_then(|x| of(after.value_name(x), 1))],
            Op::DequantizeLinear(_) => vec![of(&output, 1)],
            Op::QLinearConv(_) | Op::QLinearMatMul(_) => {
                let given = input(0)
                    .and_then(|x| quantized(after, x).or_else(|| was_quantized(seen.graph(), after, x)));
                let result = dequantized(after, id);
                let given = given.and_then(|name| of(&name, 1));
                vec![given, weight(seen.graph(), after, id), result.and_then(|name| of(&name, 6))]
            }
            _ => vec![],
        };
        found.extend(own.into_iter().flatten().filter(|pair| known.insert((pair.scale, pair.zero))));
    }
    found
}

/// Name of the floats that an operand in integers stands for.
fn quantized(graph: &Graph, value: Value) -> Option<String> {
    let node = graph.node(value.node);
    match &node.op {
        Op::QuantizeLinear(_) => {
            node.inputs.first().copied().flatten().map(|x| graph.value_name(x).to_string())
        }
        _ => dequantized(graph, value.node),
    }
}

/// The same for an operand that a layer in integers makes, by the graph before, where it is made floats.
fn was_quantized(before: &Graph, after: &Graph, value: Value) -> Option<String> {
    let name = &after.node(value.node).name;
    let was = before.node_ids().find(|&id| before.node(id).name == *name);
    was.and_then(|id| dequantized(before, id))
}

/// Name of the floats that the result of a node in integers stands for.
fn dequantized(graph: &Graph, node: NodeId) -> Option<String> {
    let users = graph.users(Value { node, slot: 0 });
    let back = users
        .into_iter()
        .find(|(user, slot)| *slot == 0 && matches!(graph.node(*user).op, Op::DequantizeLinear(_)));
    back.map(|(user, _)| graph.value_name(Value { node: user, slot: 0 }).to_string())
}

fn activation(graph: &Graph, scale: Value, zero: Option<Value>, name: &str, values: &Tensor) -> Option<Pair> {
    let dtype = zero.map_or(DType::U8, |zero| graph.fact(zero).dtype());
    let (low, high) = match dtype {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        _ => return None,
    };
    if graph.constant(scale)?.len() != 1 || !values.dtype().is_float() {
        return None;
    }
    let finite = values.to_f64s().into_iter().filter(|v| v.is_finite());
    let (min, max) = finite.fold((0f64, 0f64), |(min, max), v| (min.min(v), max.max(v)));
    let right = if max > min { (max - min) / (high - low) } else { return None };
    let point = (low - min / right).round().clamp(low, high);
    let like = |value: Value, number: f64| {
        let now = graph.constant(value)?;
        Some(Tensor::from_f64s(now.dtype(), now.shape(), &vec![number; now.len()]))
    };
    Some(Pair {
        scale,
        zero,
        of: name.to_owned(),
        right_scale: like(scale, right)?,
        right_zero: zero.and_then(|zero| like(zero, point)),
    })
}

/// The scale of the weights of a layer: largest magnitude of the floats over that of the integers.
fn weight(before: &Graph, after: &Graph, id: NodeId) -> Option<Pair> {
    let node = after.node(id);
    let constant = |slot: usize| node.inputs.get(slot).copied().flatten().and_then(|v| after.constant(v));
    let (weights, scales) = (constant(3)?, constant(4)?);
    let layer = before.node_ids().map(|id| before.node(id)).find(|old| old.name == node.name)?;
    let floats = float_weights(before, layer)?;
    if floats.len() != weights.len() {
        return None;
    }
    let channels = scales.len();
    let last = matches!(node.op, Op::QLinearMatMul(_));
    // Weights of a Gemm may lie transposed.
    let transposed = floats.shape() != weights.shape();
    let along = |tensor: &Tensor, last: bool| {
        let values = tensor.to_f64s();
        let per = values.len() / channels.max(1);
        let channel = |at: usize| if last { at % channels.max(1) } else { at / per.max(1) };
        let mut most = vec![0f64; channels];
        for (at, value) in values.iter().enumerate() {
            if let Some(most) = most.get_mut(channel(at)) {
                *most = most.max(value.abs());
            }
        }
        most
    };
    let (float, integer) = (along(floats, last != transposed), along(weights, last));
    let right: Vec<f64> =
        float.iter().zip(&integer).map(|(f, q)| if *q > 0.0 { f / q } else { 1.0 }).collect();
    let now = scales.to_f64s();
    // A coarse integer grid tells the scale only so well: keep what agrees within a step.
    let near = |(&now, (&right, &q)): (&f64, (&f64, &f64))| {
        if q == 0.0 || (now - right).abs() <= right / q { now } else { right }
    };
    let right: Vec<f64> = now.iter().zip(right.iter().zip(&integer)).map(near).collect();
    Some(Pair {
        scale: node.inputs.get(4).copied().flatten()?,
        zero: None,
        of: format!("{} (weights)", node.name),
        right_scale: Tensor::from_f64s(scales.dtype(), scales.shape(), &right),
        right_zero: None,
    })
}

/// The constant weights of a layer in floats.
fn float_weights<'g>(graph: &'g Graph, layer: &Node) -> Option<&'g Tensor> {
    let constants = layer.inputs.iter().flatten().filter_map(|&value| graph.constant(value));
    // Of a layer that is in integers already, nothing is known.
    constants.max_by_key(|tensor| tensor.len()).filter(|tensor| tensor.dtype().is_float())
}
