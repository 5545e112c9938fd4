//! Rules about parts of shapes: exporters take single dims of a shape and put them together again.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,m,k]
//! input %1 "y" : f32[1]
//! %2 = Shape(%0)
//! %3 = Constant [1] : i64[]
//! %4 = Gather(%2, %3)
//! %5 = Constant [0] : i64[1]
//! %6 = Unsqueeze(%4, %5)
//! %7 = Constant [2] : i64[1]
//! %8 = Constant [9223372036854775807] : i64[1]
//! %9 = Slice(%2, %7, %8)
//! %10 = Concat(%6, %9) {axis=0}
//! %11 = Expand(%1, %10)
//! output "z" = %11
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,m,k]
//! input %1 "y" : f32[1]
//! %2 = Shape(%0) {start=1}
//! %3 = Expand(%1, %2)
//! output "z" = %3
//! ```

use super::parts::{consecutive, cuts};
use super::root;
use rabot_ir::ops::{Concat, Shape};
use rabot_ir::{Graph, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};

pub(in crate::canonicalize) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "dim-of-shape",
        identity: "[shape(x)[i]] = shape(x)[i : i + 1]",
        lhs: &[
            "Unsqueeze(Gather(shape:Shape(?x), #indices), _axes)",
            "Reshape(Gather(shape:Shape(?x), #indices), _shape)",
        ],
        uses: &["shape", "x", "indices"],
        apply: gather_of_shape,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "gather-of-shape",
        identity: "shape(x) taken at the indices a, a + 1, ... b - 1 = shape(x)[a : b]",
        lhs: &["Gather(shape:Shape(?x), #indices)"],
        uses: &["shape", "x", "indices"],
        apply: gather_of_shape,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "slice-of-shape",
        identity: "a slice of a shape is the shape from one axis to another",
        lhs: &["Slice(shape:Shape(?x), ...)"],
        uses: &["shape", "x"],
        apply: slice_of_shape,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "concat-of-shapes",
        identity: "concat(shape(x)[a : b], shape(x)[b : c]) = shape(x)[a : c]",
        lhs: &["Concat(...)"],
        uses: &[],
        apply: concat_of_shapes,
        ..RuleInfo::BITWISE
    },
];

/// Some dims of a value: from one axis to another, counted from the front.
type Axes = (Value, i64, i64);

/// The value whose shape a node gives, and the axes it tells.
fn axes(graph: &Graph, value: Value) -> Option<Axes> {
    let node = graph.node(value.node);
    let Op::Shape(Shape { start, end }) = node.op else { return None };
    let x = node.inputs.first().copied().flatten()?;
    let rank = graph.fact(x).rank() as i64;
    let from_front = |axis: i64| if axis < 0 { axis + rank } else { axis }.clamp(0, rank);
    let start = from_front(start);
    Some((x, start, end.map_or(rank, from_front).max(start)))
}

fn add_shape(rewriter: &mut Rewriter<'_>, x: Value, start: i64, end: i64) -> Result<Value, Skip> {
    let rank = rewriter.fact(x).rank() as i64;
    let op = Shape { start, end: (end != rank).then_some(end) };
    rewriter.add(Op::Shape(op), vec![Some(x)], "shape")
}

fn gather_of_shape(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (shape, indices) = (rewriter.value(found, "shape")?, rewriter.tensor(found, "indices")?);
    let (x, start, end) = axes(rewriter.graph(), shape).ok_or(Skip::NoMatch)?;
    let (first, last) = consecutive(&indices, end - start).ok_or(Skip::NoMatch)?;
    // A single dim as a scalar is no shape.
    if rewriter.fact(root(found)).rank() != 1 {
        return Err(Skip::NoMatch);
    }
    add_shape(rewriter, x, start + first, start + last)
}

fn slice_of_shape(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, start, _) = axes(rewriter.graph(), rewriter.value(found, "shape")?).ok_or(Skip::NoMatch)?;
    let (_, taken) = cuts(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    let cut = taken.get(&0).filter(|cut| cut.step == 1).ok_or(Skip::NoMatch)?;
    // How many dims a value has is known, so the bounds are counted from the front.
    add_shape(rewriter, x, start + cut.start, start + cut.end.max(cut.start))
}

fn concat_of_shapes(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let node = rewriter.node(root(found));
    let operands: Vec<Value> = node.inputs.iter().copied().collect::<Option<_>>().ok_or(Skip::NoMatch)?;
    let op = node.op.clone();
    let Op::Concat(Concat { .. }) = op else { return Err(Skip::NoMatch) };
    // Runs of neighbouring axes: the operands, and the axes together.
    let mut runs: Vec<(Vec<Value>, Option<Axes>)> = Vec::new();
    for &operand in &operands {
        let next = axes(rewriter.graph(), operand);
        match (runs.last_mut(), next) {
            (Some((values, Some((x, _, end)))), Some((y, start, last))) if *x == y && *end == start => {
                *end = last;
                values.push(operand);
            }
            _ => runs.push((vec![operand], next)),
        }
    }
    let whole = runs.len() == 1;
    let mut values = Vec::new();
    for (run, part) in runs {
        let dies = |value: &Value| rewriter.graph().use_count(*value) == 1;
        match part {
            Some((x, start, end)) if run.len() > 1 && (whole || run.iter().all(dies)) => {
                run.iter().for_each(|&value| rewriter.absorb(value));
                values.push(add_shape(rewriter, x, start, end)?);
            }
            _ => values.extend(run),
        }
    }
    match values[..] {
        _ if values == operands => Err(Skip::NoMatch),
        [one] => Ok(one),
        _ => rewriter.add(op, values.into_iter().map(Some).collect(), "concat"),
    }
}

#[cfg(test)]
mod tests {
    use crate::canonicalize::algebra::Algebra;
    use crate::check::example;

    #[test]
    fn dims_that_are_put_together_again_are_a_part_of_the_shape() {
        example(&Algebra, include_str!("shapes.rs"));
    }
}
