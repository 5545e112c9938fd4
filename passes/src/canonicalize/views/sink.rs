//! Rules that move transposes and reshapes past elementwise operators, where others then cancel them.
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

use super::{permutation, root, target};
use rabot_ir::ops::{Reshape, Transpose};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;
use std::collections::HashMap;

pub(in crate::canonicalize) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "transpose-through-elementwise",
        identity: "transpose(f(transpose(x, p), y), q) = f(transpose(x, p of q), transpose(y, q)), with fewer transposes",
        lhs: &["Transpose(?y)"],
        uses: &["y"],
        apply: transposes,
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

/// True for nodes whose every element depends on the elements at its place in the operands, with broadcasting.
fn is_elementwise(op: &Op) -> bool {
    matches!(op, Op::Unary(_) | Op::Binary(_) | Op::Variadic(_) | Op::Where(_) | Op::Clip(_) | Op::Cast(_))
}

fn operands(graph: &Graph, id: NodeId) -> Vec<Value> {
    graph.node(id).inputs.iter().flatten().copied().collect()
}

/// The elementwise nodes above `start` whose values nobody outside sees, `start` last. `root` may use them.
fn region(graph: &Graph, start: Value, root: NodeId) -> Option<Vec<NodeId>> {
    let rank = graph.fact(start).rank();
    let fits = |value: Value| {
        let node = graph.node(value.node);
        is_elementwise(&node.op) && node.outputs.len() == 1 && graph.fact(value).rank() == rank
    };
    if !fits(start) {
        return None;
    }
    let mut outside: Vec<NodeId> = Vec::new();
    loop {
        let mut found: Vec<NodeId> = Vec::new();
        let mut stack = vec![start];
        while let Some(value) = stack.pop() {
            if found.contains(&value.node) || outside.contains(&value.node) || !fits(value) {
                continue;
            }
            if found.len() == MOST {
                return None;
            }
            found.push(value.node);
            stack.extend(operands(graph, value.node));
        }
        let seen = |id: &&NodeId| {
            let value = Value { node: **id, slot: 0 };
            let users = graph.users(value);
            graph.is_output(value) || users.iter().any(|(user, _)| *user != root && !found.contains(user))
        };
        match found.iter().find(seen) {
            None => return Some(found),
            Some(&id) if id == start.node => return None,
            Some(&id) => outside.push(id),
        }
    }
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
    let start = rewriter.value(found, "y")?;
    let nodes = region(rewriter.graph(), start, found.root).ok_or(Skip::NoMatch)?;
    let perm = permutation(rewriter, root(found))?;
    let graph = rewriter.graph();
    let mut leaves: HashMap<Value, Leaf> = HashMap::new();
    // Transposes that there are less of: the root, and those above whose every user is in the region.
    let mut gain = 1;
    for &id in &nodes {
        for value in operands(graph, id) {
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
            Leaf::Transposed(x, perm) => {
                let op = Op::Transpose(Transpose { perm: Some(perm) });
                rewriter.add(op, vec![Some(x)], "transpose")?
            }
        };
        made.insert(value, new);
    }
    rebuild(rewriter, start, &mut made)
}

/// In the order of nodes, so that the same graph always comes out the same.
fn ordered(leaves: HashMap<Value, Leaf>) -> Vec<(Value, Leaf)> {
    let mut leaves: Vec<(Value, Leaf)> = leaves.into_iter().collect();
    leaves.sort_by_key(|(value, _)| *value);
    leaves
}

/// The value with what is in `made` in the place of its operands, through as many nodes as it takes.
fn rebuild(
    rewriter: &mut Rewriter<'_>,
    value: Value,
    made: &mut HashMap<Value, Value>,
) -> Result<Value, Skip> {
    if let Some(&new) = made.get(&value) {
        return Ok(new);
    }
    let node = rewriter.node(value).clone();
    let mut operands = Vec::with_capacity(node.inputs.len());
    for input in &node.inputs {
        operands.push(match input {
            Some(input) => Some(rebuild(rewriter, *input, made)?),
            None => None,
        });
    }
    let new = rewriter.add_like(node.op, operands, value)?;
    made.insert(value, new);
    Ok(new)
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
    let moved = rebuild(rewriter, start, &mut made)?;
    let Some(shape) = shape else { return Ok(moved) };
    let shape = rewriter.constant(Tensor::from_vec(&[shape.len()], shape), "shape");
    rewriter.add(Op::Reshape(Reshape { allowzero: false }), vec![Some(moved), Some(shape)], "reshape")
}

/// The further operands of the nodes from `start` up to `end`.
fn graph_scalars(graph: &Graph, start: Value, end: Value) -> Vec<Value> {
    let (mut at, mut scalars) = (start, Vec::new());
    while at != end {
        let operands = operands(graph, at.node);
        scalars.extend(operands.iter().skip(1));
        match operands.first() {
            Some(&first) => at = first,
            None => break,
        }
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
