//! The layers that can compute in integers: convolutions and matrix products with constant weights.

use super::calibrate::Parameters;
use rabot_ir::ops::{BinaryOp, Conv, QLinearConv, QLinearMatMul, UnaryOp};
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::Report;
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// Weights below which converting to integers and back costs more than it gains.
const MIN_WEIGHTS: usize = 64;
/// Most that the sum of products, and the bias, may each come to: together they fit an i32.
const MAX_SUM: f64 = (1u64 << 30) as f64;
/// Largest product of an activation, its zero point subtracted, and a weight.
const MAX_PRODUCT: f64 = 255.0 * 127.0;

/// A layer, its bias and its activation.
#[derive(Debug)]
pub(super) struct Layer {
    /// `Conv`, `Gemm` or `MatMul`.
    pub node: NodeId,
    /// The operator on integers.
    pub op: Op,
    /// The node and what comes after it that becomes part of it.
    pub absorbed: Vec<NodeId>,
    /// The operand.
    pub x: Value,
    /// `[M, C / group, taps…]` for a convolution, `[K, N]` for a product.
    pub weights: Vec<f32>,
    /// Shape of the weights.
    pub shape: Vec<usize>,
    /// Axis of the weights along which output channels lie.
    pub axis: usize,
    /// One for each output channel.
    pub bias: Option<Vec<f64>>,
    /// What the layer computes, bias and activation included.
    pub output: Value,
}

/// Weights and bias as integers.
#[derive(Debug)]
pub(super) struct Integers {
    /// i8, symmetric.
    pub weights: Tensor,
    /// One f32, or one for each output channel.
    pub scales: Tensor,
    /// i32, in units of x_scale · scale.
    pub bias: Option<Tensor>,
}

/// Finds the layers, operands before users; says of the others why they stay as they are.
///
/// **Errors**: the graph has a cycle.
pub(super) fn find(graph: &Graph, report: &mut Report) -> Result<Vec<Layer>, GraphError> {
    let mut layers = Vec::new();
    for id in graph.topological()? {
        if matches!(graph.node(id).op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_)) {
            match layer(graph, id) {
                Ok(layer) => layers.push(layer),
                Err(reason) => report.skip("int8", graph.node(id).name.clone(), reason),
            }
        }
    }
    Ok(layers)
}

fn layer(graph: &Graph, id: NodeId) -> Result<Layer, String> {
    let node = graph.node(id);
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let (Some(x), Some(w)) = (operand(0), operand(1)) else { return Err("an operand is missing".into()) };
    let weights = graph.constant(w).ok_or("its weights are not constant")?;
    if graph.constant(x).is_some() {
        return Err("its operand is constant: fold it first".into());
    }
    let dtype = weights.dtype();
    let values = weights.to_slice::<f32>().map_err(|_| format!("it computes in {dtype}, not in f32"))?;
    if weights.len() < MIN_WEIGHTS {
        return Err(format!(
            "{} weights, fewer than {MIN_WEIGHTS}: converting costs more than it gains",
            weights.len()
        ));
    }
    if let Some(value) = values.iter().find(|v| !v.is_finite()) {
        return Err(format!("a weight is {value}"));
    }
    let (values, shape) = (values.into_owned(), weights.shape().to_vec());
    let mut layer = match &node.op {
        Op::Conv(op) => conv(graph, id, op, x, values, shape)?,
        _ => product(graph, id, x, values, shape)?,
    };
    let depth = layer.weights.len() / layer.shape[layer.axis].max(1);
    if depth as f64 * MAX_PRODUCT > MAX_SUM {
        return Err(format!("a sum of {depth} products may not fit an i32"));
    }
    if layer.bias.iter().flatten().any(|b| !b.is_finite()) {
        return Err("its bias is not finite".into());
    }
    absorb_bias(graph, &mut layer);
    absorb_activation(graph, &mut layer);
    Ok(layer)
}

fn conv(
    graph: &Graph,
    id: NodeId,
    op: &Conv,
    x: Value,
    weights: Vec<f32>,
    shape: Vec<usize>,
) -> Result<Layer, String> {
    let bias = match graph.node(id).inputs.get(2).copied().flatten() {
        None => None,
        Some(b) => Some(graph.constant(b).ok_or("its bias is not constant")?.to_f64s()),
    };
    let op = Op::QLinearConv(QLinearConv { window: op.window.clone(), group: op.group });
    let output = Value { node: id, slot: 0 };
    Ok(Layer { node: id, op, absorbed: vec![id], x, weights, shape, axis: 0, bias, output })
}

/// `MatMul`, or `Gemm` with its factors and transpositions applied to the weights.
fn product(
    graph: &Graph,
    id: NodeId,
    x: Value,
    mut weights: Vec<f32>,
    mut shape: Vec<usize>,
) -> Result<Layer, String> {
    let [rows, columns] = shape[..] else {
        return Err(format!("its weights have the shape {shape:?}, not that of a matrix"));
    };
    let mut bias = None;
    if let Op::Gemm(op) = &graph.node(id).op {
        if op.trans_a {
            return Err("its operand is transposed".into());
        }
        weights.iter_mut().for_each(|w| *w *= op.alpha);
        if op.trans_b {
            let by_column = |at: usize| weights[at % rows * columns + at / rows];
            weights = (0..weights.len()).map(by_column).collect();
            shape = vec![columns, rows];
        }
        let c = graph.node(id).inputs.get(2).copied().flatten().filter(|_| op.beta != 0.0);
        if let Some(c) = c {
            let c = graph.constant(c).ok_or("its bias is not constant")?;
            let reason = || format!("its bias of shape {:?} is not one for each column", c.shape());
            let values = per_column(c, shape[1]).ok_or_else(reason)?;
            bias = Some(values.into_iter().map(|v| v * f64::from(op.beta)).collect());
        }
    }
    let op = Op::QLinearMatMul(QLinearMatMul);
    let output = Value { node: id, slot: 0 };
    Ok(Layer { node: id, op, absorbed: vec![id], x, weights, shape, axis: 1, bias, output })
}

/// An addend as one value for each column, if it is the same for all rows.
fn per_column(tensor: &Tensor, columns: usize) -> Option<Vec<f64>> {
    let values = tensor.to_f64s();
    match values.len() {
        1 => Some(vec![values[0]; columns]),
        len if len == columns && tensor.shape().last() == Some(&columns) => Some(values),
        _ => None,
    }
}

/// The only user of a value, if nothing else sees it.
fn only_user(graph: &Graph, value: Value) -> Option<NodeId> {
    let [(user, _)] = graph.users(value)[..] else { return None };
    (!graph.is_output(value)).then_some(user)
}

/// Takes a constant that is added to the columns of a `MatMul` along.
fn absorb_bias(graph: &Graph, layer: &mut Layer) {
    if layer.bias.is_some() || !matches!(layer.op, Op::QLinearMatMul(_)) {
        return;
    }
    let Some(user) = only_user(graph, layer.output) else { return };
    let (Op::Binary(op), [Some(a), Some(b)]) = (&graph.node(user).op, &graph.node(user).inputs[..]) else {
        return;
    };
    let addend = if *a == layer.output { *b } else { *a };
    let sum = Value { node: user, slot: 0 };
    let same_shape = graph.fact(sum).shape() == graph.fact(layer.output).shape();
    let Some(tensor) = graph.constant(addend).filter(|_| op.op == BinaryOp::Add && same_shape) else {
        return;
    };
    if let Some(bias) = per_column(tensor, layer.shape[1]).filter(|b| b.iter().all(|v| v.is_finite())) {
        layer.bias = Some(bias);
        layer.absorbed.push(user);
        layer.output = sum;
    }
}

/// Takes a `Relu`, or a `Clip` from 0 on, along: saturation does what it does.
fn absorb_activation(graph: &Graph, layer: &mut Layer) {
    let Some(user) = only_user(graph, layer.output) else { return };
    let node = graph.node(user);
    let bound = |slot: usize| node.inputs.get(slot).copied().flatten();
    let value = |bound: Value| graph.constant(bound).and_then(|t| t.to_f64s().first().copied());
    let absorbed = match &node.op {
        Op::Unary(op) => op.op == UnaryOp::Relu,
        // What is observed behind an upper bound is within it.
        Op::Clip(_) => bound(1).and_then(value) == Some(0.0) && bound(2).is_none_or(|b| value(b).is_some()),
        _ => false,
    };
    if absorbed && bound(0) == Some(layer.output) {
        layer.absorbed.push(user);
        layer.output = Value { node: user, slot: 0 };
    }
}

impl Layer {
    /// The layer's name.
    pub fn name<'g>(&self, graph: &'g Graph) -> &'g str {
        &graph.node(self.node).name
    }

    /// Weights and bias as integers, for an operand of this scale.
    pub fn integers(&self, x: Parameters, per_channel: bool) -> Integers {
        let channels = self.shape[self.axis];
        let inner: usize = self.shape[self.axis + 1..].iter().product::<usize>().max(1);
        let channel = |at: usize| at / inner % channels;
        let mut largest = vec![0.0f64; channels];
        for (at, &w) in self.weights.iter().enumerate() {
            largest[channel(at)] = largest[channel(at)].max(f64::from(w).abs());
        }
        let x_scale = f64::from(x.scale);
        for (channel, scale) in largest.iter_mut().enumerate() {
            // A bias far beyond all products must still fit.
            let bias = self.bias.as_ref().map_or(0.0, |b| b[channel].abs());
            *scale = (*scale / 127.0).max(bias / (x_scale * MAX_SUM));
        }
        if !per_channel {
            largest = vec![largest.into_iter().fold(0.0, f64::max)];
        }
        let usable = |&scale: &f64| Some(scale as f32).filter(|s| s.is_normal()).unwrap_or(1.0);
        let scales: Vec<f32> = largest.iter().map(usable).collect();
        let scale = |channel: usize| f64::from(scales[if per_channel { channel } else { 0 }]);
        let round = |(at, &w): (usize, &f32)| {
            (f64::from(w) / scale(channel(at))).round_ties_even().clamp(-127.0, 127.0) as i64
        };
        let weights: Vec<i64> = self.weights.iter().enumerate().map(round).collect();
        let bias = self.bias.as_ref().map(|bias| {
            let steps = |(at, b): (usize, &f64)| (b / (x_scale * scale(at))).round_ties_even() as i32;
            Tensor::from_vec(&[channels], bias.iter().enumerate().map(steps).collect::<Vec<i32>>())
        });
        let shape: &[usize] = if per_channel { &[channels] } else { &[] };
        Integers {
            weights: Tensor::from_i64s(DType::I8, &self.shape, &weights),
            scales: Tensor::from_vec(shape, scales),
            bias,
        }
    }
}

/// Values that must have the same scale and zero point, so that integers can be carried from one to the other.
#[derive(Debug, Default)]
pub(super) struct Classes {
    of: HashMap<Value, usize>,
    parents: Vec<usize>,
}

impl Classes {
    /// Results of the layers, and what is moved or selected out of them.
    ///
    /// **Errors**: the graph has a cycle.
    pub fn new(graph: &Graph, layers: &[Layer]) -> Result<Self, GraphError> {
        let mut classes = Classes::default();
        for id in graph.topological()? {
            let output = Value { node: id, slot: 0 };
            let node = graph.node(id);
            if layers.iter().any(|layer| layer.output == output) {
                classes.of.insert(output, classes.parents.len());
                classes.parents.push(classes.parents.len());
            } else if matches!(node.op, Op::Concat(_)) {
                let operands: Option<Vec<usize>> =
                    node.inputs.iter().map(|input| input.and_then(|v| classes.class(v))).collect();
                if let Some([first, rest @ ..]) = operands.as_deref() {
                    rest.iter().for_each(|&other| classes.join(*first, other));
                    classes.of.insert(output, *first);
                }
            } else if super::carry::carries(&node.op) {
                let class = node.inputs.first().copied().flatten().and_then(|v| classes.class(v));
                classes.of.extend(class.map(|class| (output, class)));
            }
        }
        Ok(classes)
    }

    /// The class of a value, if it has one.
    pub fn class(&self, value: Value) -> Option<usize> {
        self.of.get(&value).map(|&class| self.root(class))
    }

    fn root(&self, mut class: usize) -> usize {
        while self.parents[class] != class {
            class = self.parents[class];
        }
        class
    }

    fn join(&mut self, a: usize, b: usize) {
        let (a, b) = (self.root(a), self.root(b));
        self.parents[b] = a;
    }
}
