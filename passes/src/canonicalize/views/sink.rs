//! Rules that move transposes past operators that do the same in another order of axes, and reshapes past elementwise
//! ones, where others then cancel them.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2,3]
//! input %1 "z" : f32[n,2,1]
//! %2 = Transpose(%0) {perm=[0,2,1]}
//! %3 = Transpose(%1) {perm=[0,2,1]}
//! %4 = Constant [1.0, 2.0] : f32[2]
//! %5 = Mul(%2, %4)
//! %6 = Add(%5, %3)
//! %7 = Tanh(%6)
//! %8 = Sub(%7, %6)
//! %9 = Transpose(%8) {perm=[0,2,1]}
//! output "y" = %9
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2,3]
//! input %1 "z" : f32[n,2,1]
//! %2 = Constant [1.0, 2.0] : f32[1,2,1]
//! %3 = Mul(%0, %2)
//! %4 = Add(%3, %1)
//! %5 = Tanh(%4)
//! %6 = Sub(%5, %4)
//! output "y" = %6
//! ```

use super::{axes, permutation, root, target};
use rabot_ir::ops::{Reshape, Transpose};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;
use std::collections::HashMap;

pub(in crate::canonicalize) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "transpose-through",
        identity: "transpose(f(transpose(x, p), y), q) = f(transpose(x, p of q), transpose(y, q)), with fewer transposes",
        lhs: &["Transpose(?y)"],
        uses: &["y"],
        apply: transposes,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "reduce-of-transpose",
        identity: "reduce(transpose(x, p), axes) = reduce(x, p(axes)) where the axes that stay keep their order",
        lhs: &["ReduceMean|ReduceSum|ReduceMax|ReduceMin(moved:Transpose(?x), _axes)"],
        uses: &["x", "moved"],
        apply: reduced,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "reshape-through-elementwise",
        identity: "reshape(f(reshape(x))) = reshape(f(x)) for f of one operand",
        lhs: &["Reshape|Squeeze|Unsqueeze|Flatten(?y, [_a])"],
        uses: &["y"],
        apply: reshapes,
        ..RuleInfo::BITWISE
    },
];

/// Most operators that a transpose is moved past at once.
const MOST: usize = 32;

/// The nodes above `start` that do the same in another order of axes, `start` last. `root`, and what it is like, may
/// use them; so may others, if `shared`.
fn region(graph: &Graph, start: Value, root: NodeId, perm: &[usize], shared: bool) -> Option<Vec<NodeId>> {
    let fits = |value: Value| axes::moved(graph, value.node, perm).is_some();
    if !fits(start) {
        return None;
    }
    let mut outside: Vec<NodeId> = Vec::new();
    loop {
        let mut found: Vec<NodeId> = Vec::new();
        let mut stack = vec![start];
        while let Some(value) = stack.pop() {
            let known = found.contains(&value.node) || outside.contains(&value.node);
            if known || found.len() == MOST || !fits(value) {
                continue;
            }
            found.push(value.node);
            stack.extend(axes::data(graph, value.node));
        }
        let seen = |id: &&NodeId| {
            outputs(graph, **id).any(|value| {
                let users = graph.users(value);
                graph.is_output(value) || users.iter().any(|(user, _)| *user != root && !found.contains(user))
            })
        };
        match found.iter().find(seen) {
            Some(&id) if !shared && id == start.node => return None,
            Some(&id) if !shared => outside.push(id),
            _ => return Some(found),
        }
    }
}

fn outputs(graph: &Graph, node: NodeId) -> impl Iterator<Item = Value> {
    (0..graph.node(node).outputs.len() as u32).map(move |slot| Value { node, slot })
}

/// What becomes of an operand of a region when it is transposed.
enum Leaf {
    /// It is the same, whatever the order of axes.
    Same,
    /// A constant that is transposed now.
    Constant(Tensor),
    /// The value that was transposed before.
    Cancelled(Value),
    /// A transpose of this value.
    Transposed(Value, Vec<usize>),
}

fn leaf(rewriter: &Rewriter<'_>, value: Value, perm: &[usize]) -> Option<Leaf> {
    let (graph, fact) = (rewriter.graph(), rewriter.fact(value));
    if fact.shape().iter().all(|dim| dim.is(1)) {
        return Some(Leaf::Same);
    }
    if let Some(tensor) = graph.constant(value) {
        // Broadcasting puts axes of size 1 before those that are there.
        let missing = perm.len().checked_sub(tensor.rank())?;
        let shape = [&vec![1; missing][..], tensor.shape()].concat();
        let op = Op::Transpose(Transpose { perm: Some(perm.to_vec()) });
        let transposed = op.eval(&[Some(&tensor.reshaped(&shape).ok()?)]).ok()?.pop()?;
        return Some(Leaf::Constant(transposed));
    }
    if fact.rank() != perm.len() {
        return None;
    }
    let operand = graph.node(value.node).inputs.first().copied().flatten();
    match (permutation(rewriter, value), operand) {
        (Ok(inner), Some(x)) => {
            let both: Vec<usize> =
                perm.iter().map(|&axis| inner.get(axis).copied()).collect::<Option<_>>()?;
            let same = both.iter().enumerate().all(|(to, &from)| to == from);
            Some(if same { Leaf::Cancelled(x) } else { Leaf::Transposed(x, both) })
        }
        _ => Some(Leaf::Transposed(value, perm.to_vec())),
    }
}

fn transposes(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    move_region(rewriter, found, true).or_else(|_| move_region(rewriter, found, false))
}

fn move_region(rewriter: &mut Rewriter<'_>, found: &Match, shared: bool) -> Result<Value, Skip> {
    let start = rewriter.value(found, "y")?;
    let perm = permutation(rewriter, root(found))?;
    let nodes = region(rewriter.graph(), start, found.root, &perm, shared).ok_or(Skip::NoMatch)?;
    let graph = rewriter.graph();
    let mut leaves: HashMap<Value, Leaf> = HashMap::new();
    // Transposes that there are less of: those like the root, and those above whose every user is in the region.
    let mut gain = 0;
    for &id in &nodes {
        for value in axes::data(graph, id) {
            if nodes.contains(&value.node) || leaves.contains_key(&value) {
                continue;
            }
            let leaf = leaf(rewriter, value, &perm).ok_or(Skip::NoMatch)?;
            let goes = matches!(graph.node(value.node).op, Op::Transpose(_))
                && !graph.is_output(value)
                && graph.users(value).iter().all(|(user, _)| nodes.contains(user));
            gain += i64::from(goes) - i64::from(matches!(leaf, Leaf::Transposed(..)));
            leaves.insert(value, leaf);
        }
    }
    let mut seen: Vec<Value> = Vec::new();
    for value in nodes.iter().flat_map(|&id| outputs(graph, id)) {
        let is_like_root = |id: NodeId| {
            let value = Value { node: id, slot: 0 };
            permutation(rewriter, value).is_ok_and(|other| other == perm)
        };
        let users: Vec<NodeId> = graph.users(value).iter().map(|(user, _)| *user).collect();
        let users: Vec<NodeId> = users.into_iter().filter(|user| !nodes.contains(user)).collect();
        let others = users.iter().filter(|user| !is_like_root(**user)).count();
        let is_seen = graph.is_output(value) || others > 0;
        gain += (users.len() - others) as i64 - i64::from(is_seen);
        if is_seen || users.iter().any(|user| *user != found.root) {
            seen.push(value);
        }
    }
    if gain <= 0 || !leaves.values().any(|leaf| matches!(leaf, Leaf::Cancelled(_))) {
        return Err(Skip::NoMatch);
    }
    let mut made: HashMap<Value, Value> = HashMap::new();
    for (value, leaf) in ordered(leaves) {
        let new = match leaf {
            Leaf::Same => value,
            Leaf::Constant(tensor) => rewriter.constant(tensor, "constant"),
            Leaf::Cancelled(x) => {
                rewriter.absorb(value);
                x
            }
            Leaf::Transposed(x, perm) => transpose(rewriter, x, perm)?,
        };
        made.insert(value, new);
    }
    let new = rebuild(rewriter, start, &perm, &mut made)?;
    for value in seen {
        let moved = rebuild(rewriter, value, &perm, &mut made)?;
        let back = transpose(rewriter, moved, inverse(&perm))?;
        rewriter.also(value, back);
    }
    Ok(new)
}

fn transpose(rewriter: &mut Rewriter<'_>, of: Value, perm: Vec<usize>) -> Result<Value, Skip> {
    rewriter.add(Op::Transpose(Transpose { perm: Some(perm) }), vec![Some(of)], "transpose")
}

fn inverse(perm: &[usize]) -> Vec<usize> {
    (0..perm.len()).filter_map(|axis| perm.iter().position(|&from| from == axis)).collect()
}

/// In the order of nodes, so that the same graph always comes out the same.
fn ordered(leaves: HashMap<Value, Leaf>) -> Vec<(Value, Leaf)> {
    let mut leaves: Vec<(Value, Leaf)> = leaves.into_iter().collect();
    leaves.sort_by_key(|(value, _)| *value);
    leaves
}

/// The value in another order of axes, through as many nodes as it takes: `made` has what takes the place of operands.
fn rebuild(
    rewriter: &mut Rewriter<'_>,
    value: Value,
    perm: &[usize],
    made: &mut HashMap<Value, Value>,
) -> Result<Value, Skip> {
    if let Some(&new) = made.get(&value) {
        return Ok(new);
    }
    let axes::Moved { op, constants } =
        axes::moved(rewriter.graph(), value.node, perm).ok_or(Skip::NoMatch)?;
    let node = rewriter.node(value);
    let (mut operands, data) = (node.inputs.clone(), axes::data_operands(&node.op));
    for operand in operands.iter_mut().take(data).flatten() {
        *operand = rebuild(rewriter, *operand, perm, made)?;
    }
    for (slot, constant) in constants {
        let constant = rewriter.constant(constant, "axes");
        operands.resize(operands.len().max(slot + 1), None);
        operands[slot] = Some(constant);
    }
    let new = rewriter.add_like(op, operands, value)?;
    for slot in 0..rewriter.node(value).outputs.len() as u32 {
        made.insert(Value { slot, ..value }, Value { slot, ..new });
    }
    Ok(Value { slot: value.slot, ..new })
}

fn reduced(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, transposed) = (rewriter.value(found, "x")?, rewriter.value(found, "moved")?);
    let perm = permutation(rewriter, transposed)?;
    let graph = rewriter.graph();
    let node = graph.node(found.root);
    let Op::Reduce(op) = &node.op else { return Err(Skip::NoMatch) };
    let axes = node.inputs.get(1).copied().flatten().map(|axes| graph.fact(axes));
    let goes = op.reduced_axes(perm.len(), axes).map_err(|_| Skip::NoMatch)?;
    let (gone, stays): (Vec<usize>, Vec<usize>) = (0..perm.len()).partition(|&axis| goes[axis]);
    let from = |axes: &[usize]| axes.iter().map(|&axis| perm[axis]).collect::<Vec<_>>();
    // A sum is rounded otherwise in another order.
    let in_order = from(&gone).is_sorted() || axes::is_any_order(op.op);
    if op.keepdims || gone.is_empty() || !in_order || !from(&stays).is_sorted() {
        return Err(Skip::NoMatch);
    }
    let (op, axes) = (node.op.clone(), from(&gone).iter().map(|&axis| axis as i64).collect());
    let axes = rewriter.constant(Tensor::from_vec(&[gone.len()], axes), "axes");
    rewriter.add(op, vec![Some(x), Some(axes)], "reduced")
}

/// True for a node of one operand and scalars: its elements do not depend on the shape.
fn is_pointwise(graph: &Graph, id: NodeId) -> bool {
    let node = graph.node(id);
    match &node.op {
        Op::Unary(_) | Op::Cast(_) => true,
        Op::Clip(_) => node.inputs.iter().skip(1).flatten().all(|&v| graph.fact(v).rank() == 0),
        _ => false,
    }
}

fn is_reshape(op: &Op) -> bool {
    matches!(op, Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_))
}

fn reshapes(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let start = rewriter.value(found, "y")?;
    let graph = rewriter.graph();
    let mut at = start;
    let mut count = 0;
    let x = loop {
        let node = graph.node(at.node);
        let operand = node.inputs.first().copied().flatten().ok_or(Skip::NoMatch)?;
        if graph.use_count(at) != 1 || count > MOST {
            return Err(Skip::NoMatch);
        }
        if is_reshape(&node.op) && graph.fact(operand).ty.is_tensor() {
            break operand;
        }
        if !is_pointwise(graph, at.node) {
            return Err(Skip::NoMatch);
        }
        (at, count) = (operand, count + 1);
    };
    if count == 0 {
        return Err(Skip::NoMatch);
    }
    let (from, to) = (rewriter.fact(x).shape().to_vec(), rewriter.fact(root(found)).shape().to_vec());
    let shape = if from == to { None } else { Some(target(&from, &to).ok_or(Skip::NoMatch)?) };
    rewriter.absorb(at);
    let scalars = graph_scalars(rewriter.graph(), start, at);
    let mut made: HashMap<Value, Value> = scalars.into_iter().map(|value| (value, value)).collect();
    made.insert(at, x);
    let same: Vec<usize> = (0..rewriter.fact(start).rank()).collect();
    let moved = rebuild(rewriter, start, &same, &mut made)?;
    let Some(shape) = shape else { return Ok(moved) };
    let shape = rewriter.constant(Tensor::from_vec(&[shape.len()], shape), "shape");
    rewriter.add(Op::Reshape(Reshape { allowzero: false }), vec![Some(moved), Some(shape)], "reshape")
}

/// The further operands of the nodes from `start` up to `end`.
fn graph_scalars(graph: &Graph, start: Value, end: Value) -> Vec<Value> {
    let (mut at, mut scalars) = (start, Vec::new());
    while at != end {
        let mut operands = graph.node(at.node).inputs.iter().flatten().copied();
        let Some(first) = operands.next() else { break };
        scalars.extend(operands);
        at = first;
    }
    scalars
}

#[cfg(test)]
mod tests {
    use crate::canonicalize::algebra::Algebra;
    use crate::check::{becomes, example, run};

    #[test]
    fn transposes_around_elementwise_operators_cancel() {
        example(&Algebra, include_str!("sink.rs"));
    }

    #[test]
    fn channels_last_layers_cancel_through_operators_with_axes() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,3,4,5]
            input %1 "z" : f32[n,2,4,5]
            %2 = Transpose(%0) {perm=[0,2,3,1]}
            %3 = Transpose(%1) {perm=[0,2,3,1]}
            %4 = Concat(%2, %3) {axis=-1}
            %5 = Constant [0, 1, 2, 0, 0, 3, 4, 0] : i64[8]
            %6 = Pad(%4, %5)
            %7 = Softmax(%6) {axis=3}
            %8 = Constant [1, 2] : i64[2]
            %9 = ReduceMean(%7, %8)
            %10 = Mul(%7, %9)
            %11 = Constant [1] : i64[1]
            %12 = Constant [-1] : i64[1]
            %13 = Slice(%10, %11, %12, %11)
            %14 = Constant [1.0, 2.0, 2.0, 1.0] : f32[4]
            %15 = Resize(%13, _, %14)
            %16:2 = Split(%15) {axis=3, num_outputs=2}
            %17 = Transpose(%16) {perm=[0,3,1,2]}
            %18 = Transpose(%16#1) {perm=[0,3,1,2]}
            output "a" = %17
            output "b" = %18"#,
            r#"model "g"
            input %0 "x" : f32[n,3,4,5]
            input %1 "z" : f32[n,2,4,5]
            %2 = Constant [0, 0, 1, 2, 0, 0, 3, 4] : i64[8]
            %3 = Constant [2, 3] : i64[2]
            %4 = Constant [1] : i64[1]
            %5 = Constant [-1] : i64[1]
            %6 = Constant [2] : i64[1]
            %7 = Constant [1.0, 1.0, 2.0, 2.0] : f32[4]
            %8 = Concat(%0, %1) {axis=1}
            %9 = Pad(%8, %2)
            %10 = Softmax(%9) {axis=1}
            %11 = ReduceMean(%10, %3)
            %12 = Mul(%10, %11)
            %13 = Slice(%12, %4, %5, %6)
            %14 = Resize(%13, _, %7)
            %15:2 = Split(%14) {axis=1, num_outputs=2}
            output "a" = %15
            output "b" = %15#1"#,
        );
    }

    #[test]
    fn reductions_read_what_was_transposed() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,3,4,5]
            %1 = Transpose(%0) {perm=[0,2,3,1]}
            %2 = Constant [1, 2] : i64[2]
            %3 = ReduceMean(%1, %2) {keepdims=0}
            output "y" = %3"#,
            r#"model "g"
            input %0 "x" : f32[n,3,4,5]
            %1 = Constant [2, 3] : i64[2]
            %2 = ReduceMean(%0, %1) {keepdims=0}
            output "y" = %2"#,
        );
    }

    #[test]
    fn values_that_others_need_are_transposed_back() {
        let text = r#"model "g"
            input %0 "x" : f32[2,3]
            input %1 "z" : f32[2,3]
            %2 = Transpose(%0)
            %3 = Relu(%2)
            %4 = Transpose(%3)
            %5 = Transpose(%1)
            %6 = Add(%5, %3)
            %7 = Relu(%6)
            %8 = Transpose(%7)
            output "t" = %4
            output "y" = %8"#;
        let (graph, _) = run(&Algebra, text);
        let names = graph.topological().unwrap();
        assert!(names.iter().all(|&id| graph.node(id).op.name() != "Transpose"));
    }

    #[test]
    fn sums_in_another_order_are_others() {
        let text = r#"model "g"
            input %0 "x" : f32[2,3,4]
            %1 = Transpose(%0) {perm=[0,2,1]}
            %2 = Constant [1, 2] : i64[2]
            %3 = ReduceSum(%1, %2)
            %4 = Mul(%1, %3)
            %5 = Transpose(%4) {perm=[0,2,1]}
            output "y" = %5"#;
        assert!(run(&Algebra, text).1.applied.is_empty());
        assert!(!run(&Algebra, &text.replace("ReduceSum", "ReduceMax")).1.applied.is_empty());
    }

    #[test]
    fn a_transpose_that_others_need_stays() {
        let text = r#"model "g"
            input %0 "x" : f32[2,3]
            input %1 "z" : f32[3,2]
            %2 = Transpose(%0)
            %3 = Add(%2, %1)
            %4 = Transpose(%3)
            output "y" = %4
            output "t" = %2"#;
        assert!(run(&Algebra, text).1.applied.is_empty());
    }

    #[test]
    fn reshapes_around_elementwise_operators_are_one() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,6]
            %1 = Constant [-1] : i64[1]
            %2 = Reshape(%0, %1)
            %3 = Tanh(%2)
            %4 = Constant [1.0] : f32[]
            %5 = Clip(%3, %4)
            %6 = Constant [-1, 2, 3] : i64[3]
            %7 = Reshape(%5, %6)
            output "y" = %7"#,
            r#"model "g"
            input %0 "x" : f32[n,6]
            %1 = Tanh(%0)
            %2 = Constant [1.0] : f32[]
            %3 = Clip(%1, %2)
            %4 = Constant [0, 2, 3] : i64[3]
            %5 = Reshape(%3, %4)
            output "y" = %5"#,
        );
    }
}
