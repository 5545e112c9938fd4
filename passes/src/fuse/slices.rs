//! Rules of `fuse` about products of all slices of a tensor with the same weights: the steps of a recurrent layer that an
//! exporter unrolled, for example.

use super::fusion::ROUNDED;
use rabot_ir::ops::{Binary, BinaryOp, Gather, Gemm, MatMul, Slice, Transpose};
use rabot_ir::{Dim, Graph, Node, NodeId, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;
use std::collections::BTreeMap;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "products-of-slices",
        identity: "x[:, t] W = (x W)[:, t]",
        lhs: &["MatMul(?slice, #w)"],
        uses: &["slice", "w"],
        apply: products_of_slices,
        ..RuleInfo::BITWISE
    },
    // The product is rounded before the bias is added.
    RuleInfo {
        name: "layers-of-slices",
        identity: "x[:, t] W + b = (x W + b)[:, t]",
        lhs: &["layer:Gemm(?slice, #w, [#b])"],
        uses: &["layer", "slice", "w", "b"],
        apply: layers_of_slices,
        ..ROUNDED
    },
];

/// What a value takes of another one, along an axis that is not the last.
#[derive(Clone, Debug, PartialEq)]
struct Part {
    of: Value,
    axis: usize,
    start: i64,
    length: i64,
    /// The axis, of length 1, is gone.
    dropped: bool,
}

/// The part that a value is, if all of it is known.
fn part(graph: &Graph, value: Value) -> Option<Part> {
    let node = graph.node(value.node);
    let of = node.inputs.first().copied().flatten()?;
    let found = match &node.op {
        Op::Gather(op) => of_gather(graph, node, of, op)?,
        Op::Slice(_) => of_slice(graph, node, of)?,
        Op::Split(op) => {
            let axis = axis_of(op.axis, graph.fact(of).rank())?;
            let dims = node.outputs.iter().map(|output| output.fact.shape().get(axis)?.as_const());
            let lengths: Vec<i64> = dims.collect::<Option<_>>()?;
            let slot = value.slot as usize;
            let start = lengths.iter().take(slot).sum();
            Part { of, axis, start, length: *lengths.get(slot)?, dropped: false }
        }
        Op::Squeeze(_) | Op::Reshape(_) => {
            if matches!(graph.node(of.node).op, Op::Squeeze(_) | Op::Reshape(_)) {
                return None;
            }
            let kept = part(graph, of).filter(|part| part.length == 1 && !part.dropped)?;
            let mut shape = graph.fact(of).shape().to_vec();
            shape.remove(kept.axis);
            (graph.fact(value).shape() == shape).then_some(Part { dropped: true, ..kept })?
        }
        _ => return None,
    };
    (found.axis + 1 < graph.fact(found.of).rank()).then_some(found)
}

fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    usize::try_from(if axis < 0 { axis + rank as i64 } else { axis }).ok().filter(|&axis| axis < rank)
}

fn of_gather(graph: &Graph, node: &Node, of: Value, op: &Gather) -> Option<Part> {
    let axis = axis_of(op.axis, graph.fact(of).rank())?;
    let dim = graph.fact(of).shape().get(axis)?.as_const()?;
    let index = graph.constant(node.inputs.get(1).copied().flatten()?).filter(|index| index.rank() == 0)?;
    let &start = index.to_i64s().first()?;
    let start = if start < 0 { start + dim } else { start };
    (0..dim).contains(&start).then_some(Part { of, axis, start, length: 1, dropped: true })
}

/// A slice along one axis, forward and without gaps.
fn of_slice(graph: &Graph, node: &Node, of: Value) -> Option<Part> {
    let list = |slot: usize| node.inputs.get(slot).copied().flatten().map(|value| graph.fact(value).ints());
    let single = |slot: usize, absent: i64| match list(slot) {
        None => Some(absent),
        Some(list) => <[i64; 1]>::try_from(list?).ok().map(|[value]| value),
    };
    let (start, axis, step) = (single(1, 0)?, single(3, 0)?, single(4, 1)?);
    if step != 1 {
        return None;
    }
    let axis = axis_of(axis, graph.fact(of).rank())?;
    let dim = graph.fact(of).shape().get(axis)?.as_const()?;
    let start = if start < 0 { start.saturating_add(dim) } else { start }.clamp(0, dim);
    let length = node.outputs.first()?.fact.shape().get(axis)?.as_const()?;
    Some(Part { of, axis, start, length, dropped: false })
}

/// What reads a value as the node `layer` does its operand: with the same op and the same other operands.
fn alike(graph: &Graph, value: Value, layer: &Node) -> Option<NodeId> {
    let is_alike = |&(user, slot): &(NodeId, usize)| {
        let node = graph.node(user);
        slot == 0 && node.op == layer.op && node.inputs.get(1..) == layer.inputs.get(1..)
    };
    graph.users(value).into_iter().find(is_alike).map(|(user, _)| user)
}

/// The parts of a tensor along an axis that go through equal layers: where each begins, and its length.
fn layered(graph: &Graph, wanted: &Part, layer: &Node) -> BTreeMap<i64, i64> {
    let mut found = BTreeMap::new();
    let outputs =
        |node: NodeId| (0..graph.node(node).outputs.len() as u32).map(move |slot| Value { node, slot });
    for (user, slot) in graph.users(wanted.of) {
        for taken in outputs(user).filter(|_| slot == 0) {
            let views = graph.users(taken).into_iter().flat_map(|(view, _)| outputs(view));
            for value in std::iter::once(taken).chain(views) {
                let part = part(graph, value).filter(|p| p.of == wanted.of && p.axis == wanted.axis);
                if let Some(part) = part.filter(|_| alike(graph, value, layer).is_some()) {
                    found.insert(part.start, part.length);
                }
            }
        }
    }
    found
}

/// **Errors**: there are slices of the tensor that do not go through such a layer, or there is only one.
fn all_layered(graph: &Graph, part: &Part, layer: &Node) -> Result<(), Skip> {
    let parts = layered(graph, part, layer);
    let dim = graph.fact(part.of).shape().get(part.axis).and_then(Dim::as_const);
    let covered: i64 = parts.values().sum();
    match dim {
        _ if parts.len() < 2 => Err(Skip::NoMatch),
        Some(dim) if covered == dim => Ok(()),
        _ => {
            let all = graph.value_name(part.of);
            let text = format!("these weights are multiplied by {covered} slices of `{all}`, not all");
            Err(Skip::because(text))
        }
    }
}

fn products_of_slices(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (slice, w) = (rewriter.value(found, "slice")?, rewriter.value(found, "w")?);
    let graph = rewriter.graph();
    let part = part(graph, slice).ok_or(Skip::NoMatch)?;
    if graph.fact(w).rank() != 2 || graph.constant(part.of).is_some() {
        return Err(Skip::NoMatch);
    }
    let layer = graph.node(found.root);
    let product = match alike(graph, part.of, layer) {
        Some(node) => Value { node, slot: 0 },
        None => {
            all_layered(graph, &part, layer)?;
            rewriter.add(Op::MatMul(MatMul), vec![Some(part.of), Some(w)], "product")?
        }
    };
    rewriter.absorb(slice);
    take(rewriter, product, &part)
}

/// A `Gemm` has no dims beside rows and columns: a product and a sum of all take its place.
fn layers_of_slices(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let slice = rewriter.value(found, "slice")?;
    let graph = rewriter.graph();
    let part = part(graph, slice).filter(|part| graph.constant(part.of).is_none()).ok_or(Skip::NoMatch)?;
    let layer = graph.node(found.root);
    let Op::Gemm(Gemm { alpha: 1.0, beta: 1.0, trans_a: false, trans_b }) = layer.op else {
        return Err(Skip::NoMatch);
    };
    let (w, bias) = (rewriter.tensor(found, "w")?, found.get("b"));
    let is_row = |b: Value| graph.fact(b).shape().iter().rev().skip(1).all(|dim| dim.is(1));
    if !w.dtype().is_float() || !bias.is_none_or(is_row) {
        return Err(Skip::NoMatch);
    }
    let w = match trans_b {
        false => w,
        true => {
            let turned = Op::Transpose(Transpose { perm: None }).eval(&[Some(&w)]).ok();
            turned.and_then(|mut tensors| tensors.pop()).ok_or(Skip::NoMatch)?
        }
    };
    let sum = match whole_layer(graph, part.of, &w, bias) {
        Some(sum) => sum,
        None => {
            all_layered(graph, &part, layer)?;
            let w = rewriter.constant(w, "weights");
            let product = rewriter.add(Op::MatMul(MatMul), vec![Some(part.of), Some(w)], "product")?;
            match bias {
                None => product,
                bias => rewriter.add(ADD, vec![Some(product), bias], "sum")?,
            }
        }
    };
    rewriter.absorb(slice);
    take(rewriter, sum, &part)
}

const ADD: Op = Op::Binary(Binary { op: BinaryOp::Add });

/// The product of a whole tensor with weights, plus a bias, if it is there.
fn whole_layer(graph: &Graph, of: Value, w: &Tensor, bias: Option<Value>) -> Option<Value> {
    let value = |node: NodeId| Value { node, slot: 0 };
    let products = graph.users(of).into_iter().filter(|&(user, slot)| {
        let node = graph.node(user);
        let weights = || node.inputs.get(1).copied().flatten().and_then(|w| graph.constant(w));
        slot == 0 && matches!(node.op, Op::MatMul(_)) && weights() == Some(w)
    });
    let mut sums = products.filter_map(|(product, _)| match bias {
        None => Some(value(product)),
        Some(_) => {
            let is_sum = |user: &NodeId| {
                let node = graph.node(*user);
                node.op == ADD && node.inputs.get(1) == Some(&bias)
            };
            graph.users(value(product)).into_iter().map(|(user, _)| user).find(is_sum).map(value)
        }
    });
    sums.next()
}

/// The same part of another value.
fn take(rewriter: &mut Rewriter<'_>, of: Value, part: &Part) -> Result<Value, Skip> {
    let axis = part.axis as i64;
    if part.dropped {
        let index = rewriter.constant(Tensor::scalar(part.start), "index");
        return rewriter.add(Op::Gather(Gather { axis }), vec![Some(of), Some(index)], "slice");
    }
    let mut list =
        |value: i64, name: &str| Some(rewriter.constant(Tensor::from_vec(&[1], vec![value]), name));
    let (starts, ends) = (list(part.start, "start"), list(part.start + part.length, "end"));
    let operands = vec![Some(of), starts, ends, list(axis, "axis")];
    rewriter.add(Op::Slice(Slice), operands, "slice")
}

#[cfg(test)]
mod tests {
    use crate::check::run;
    use crate::fuse::fusion::Fuse;

    /// Steps `x[:, 0]`, `x[:, 1]` and one more, each multiplied by weights.
    fn steps(dims: &str, last: &str, weights: usize) -> String {
        format!(
            r#"model "g"
            input %0 "x" : f32[{dims},4]
            %1 = Constant rand(1, -1.0, 1.0) : f32[4,5]
            %2 = Constant rand(2, -1.0, 1.0) : f32[4,5]
            %3 = Constant [0] : i64[]
            %4 = Gather(%0, %3) {{axis=1}}
            %5 = MatMul(%4, %1)
            %6 = Constant [1] : i64[1]
            %7 = Constant [2] : i64[1]
            %8 = Slice(%0, %6, %7, %6)
            %9 = Squeeze(%8, %6)
            %10 = MatMul(%9, %1)
            %11 = Constant [{last}] : i64[]
            %12 = Gather(%0, %11) {{axis=1}}
            %13 = MatMul(%12, %{weights})
            output "a" = %5
            output "b" = %10
            output "c" = %13"#
        )
    }

    fn products(text: &str) -> (usize, Vec<String>) {
        let (graph, report) = run(&Fuse, text);
        let products = graph.node_ids().filter(|&id| graph.node(id).op.name() == "MatMul").count();
        (products, report.skipped.into_iter().map(|skip| skip.reason).collect())
    }

    #[test]
    fn all_slices_are_multiplied_at_once() {
        assert_eq!(products(&steps("n,3", "-1", 1)), (1, vec![]));
    }

    /// As torch exports the cells of a recurrent layer.
    #[test]
    fn layers_with_a_bias_are_a_product_and_a_sum() {
        let text = |bias: &str| {
            format!(
                r#"model "g"
                input %0 "x" : f32[n,2,4]
                %1 = Constant rand(1, -1.0, 1.0) : f32[5,4]
                %2 = Constant rand(2, -1.0, 1.0) : f32[5]
                %3 = Constant [0] : i64[]
                %4 = Gather(%0, %3) {{axis=1}}
                %5 = Gemm(%4, %1{bias}) {{transB=1}}
                %6 = Constant [1] : i64[]
                %7 = Gather(%0, %6) {{axis=1}}
                %8 = Gemm(%7, %1{bias}) {{transB=1}}
                output "a" = %5
                output "b" = %8"#
            )
        };
        for (bias, sums) in [("", 0), (", %2", 1)] {
            let (graph, _) = run(&Fuse, &text(bias));
            let count = |name: &str| graph.node_ids().filter(|&id| graph.node(id).op.name() == name).count();
            assert_eq!((count("MatMul"), count("Add"), count("Gemm")), (1, sums, 0));
        }
        assert_eq!(
            products(
                &text(", %2")
                    .replace("%8 = Gemm(%7, %1", "%8 = Gemm(%7, %9")
                    .replace("%6 =", "%9 = Constant rand(3, -1.0, 1.0) : f32[5,4]\n%6 =")
            )
            .0,
            0
        );
    }

    #[test]
    fn a_part_of_the_slices_is_not() {
        let reason = "these weights are multiplied by 2 slices of `x`, not all";
        for text in [steps("n,3", "2", 2), steps("n,3", "1", 1)] {
            let (count, reasons) = products(&text);
            assert_eq!((count, reasons.first().map(String::as_str)), (3, Some(reason)));
        }
        // A slice of an axis of unknown length may be empty.
        assert_eq!(products(&steps("2,n", "1", 1)).0, 3);
    }
}
