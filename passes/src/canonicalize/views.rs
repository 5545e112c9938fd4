//! Rules of `algebra` about views: operations that move no element, or only say where it is.
//!
//! Every rule here lowers one of these, and raises none: the number of operators, the number of transposes, the
//! number of operators that are no mere reshape, how many operands a concatenation has.

mod axes;
pub(crate) mod pads;
mod parts;
mod shapes;
mod sink;

use rabot_ir::ops::{Reshape, Transpose, Unsqueeze};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

/// The rules of all files about views, in the order in which they are tried.
pub(super) fn rules() -> Vec<RuleInfo> {
    [RULES, parts::RULES, shapes::RULES, pads::RULES, sink::RULES].concat()
}

const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "identity",
        identity: "identity(x) = x",
        lhs: &["Identity(?x)"],
        uses: &["x"],
        apply: |r, m| r.value(m, "x"),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "view-to-same",
        identity: "a view of the same type has the same elements in the same order",
        lhs: &["Reshape|Unsqueeze|Expand|Squeeze(?x, [_a])"],
        uses: &["x"],
        apply: unchanged,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "flatten-to-same",
        identity: "a view of the same type has the same elements in the same order",
        lhs: &["Flatten(?x)"],
        uses: &["x"],
        apply: unchanged,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "concat-of-one",
        identity: "concat(x) = x",
        lhs: &["Concat(?x)"],
        uses: &["x"],
        apply: unchanged,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "slice-of-all",
        identity: "a slice by steps of 1 that is as long as x is x",
        lhs: &["Slice(?x, _starts, _ends, [_axes], [#steps])"],
        uses: &["x", "steps"],
        apply: slice_of_all,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "pad-by-none",
        identity: "pad(x, 0) = x",
        lhs: &["Pad(?x, #pads, [_value], [_axes])"],
        uses: &["x", "pads"],
        apply: pad_by_none,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "transpose-to-same",
        identity: "a transpose that moves no axis is x",
        lhs: &["Transpose(?x)"],
        uses: &["x"],
        apply: transpose_to_same,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "transpose-of-transpose",
        identity: "transpose(transpose(x, p), q) = transpose(x, p of q)",
        lhs: &["Transpose(inner:Transpose(?x))"],
        uses: &["x", "inner"],
        apply: transpose_of_transpose,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "reshape-of-view",
        identity: "a reshape only looks at the order of elements, which no view before it changes",
        lhs: &["Reshape(Reshape|Unsqueeze|Squeeze(?x, [_a]), _shape)"],
        uses: &["x"],
        apply: reshape,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "reshape-of-flatten",
        identity: "a reshape only looks at the order of elements, which no view before it changes",
        lhs: &["Reshape(Flatten|Identity(?x), _shape)"],
        uses: &["x"],
        apply: reshape,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "reshape-target",
        identity: "a target known up to one dim, or up to dims that x has too, need not be computed",
        lhs: &["Reshape(?x, ?shape)"],
        uses: &["x", "shape"],
        apply: reshape_target,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "unsqueeze-of-unsqueeze",
        identity: "unsqueeze(unsqueeze(x, a), b) = unsqueeze(x, a and b)",
        lhs: &["Unsqueeze(Unsqueeze(?x, #a), #b)"],
        uses: &["x", "a", "b"],
        apply: unsqueeze_of_unsqueeze,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "view-of-view",
        identity: "views that keep the order of elements are one reshape",
        lhs: &["Unsqueeze|Squeeze|Flatten(Reshape|Unsqueeze|Squeeze|Flatten(?x, [_a]), [_b])"],
        uses: &["x"],
        apply: |r, m| unchanged(r, m).or_else(|_| reshape(r, m)),
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "transpose-of-ones",
        identity: "a transpose that moves axes of size 1 only is a reshape",
        lhs: &["Transpose(?x)"],
        uses: &["x"],
        apply: transpose_of_ones,
        ..RuleInfo::BITWISE
    },
];

fn root(found: &Match) -> Value {
    Value { node: found.root, slot: 0 }
}

fn unchanged(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    if rewriter.fact(x).ty == rewriter.fact(root(found)).ty { Ok(x) } else { Err(Skip::NoMatch) }
}

fn slice_of_all(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    // With steps of 1, a result as long as the operand starts at its start.
    let forward = match found.get("steps") {
        None => true,
        Some(_) => rewriter.tensor(found, "steps")?.to_i64s().iter().all(|&step| step == 1),
    };
    if forward { unchanged(rewriter, found) } else { Err(Skip::NoMatch) }
}

fn pad_by_none(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let none = rewriter.tensor(found, "pads")?.to_i64s().iter().all(|&pad| pad == 0);
    if none { unchanged(rewriter, found) } else { Err(Skip::NoMatch) }
}

/// Source axis of each axis of a transposed value.
fn permutation(rewriter: &Rewriter<'_>, value: Value) -> Result<Vec<usize>, Skip> {
    let Op::Transpose(op) = &rewriter.node(value).op else { return Err(Skip::NoMatch) };
    let rank = rewriter.fact(value).rank();
    Ok(op.perm.clone().unwrap_or_else(|| (0..rank).rev().collect()))
}

fn transpose_to_same(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let perm = permutation(rewriter, root(found))?;
    let same = perm.iter().enumerate().all(|(to, &from)| to == from);
    if same { rewriter.value(found, "x") } else { Err(Skip::NoMatch) }
}

fn transpose_of_transpose(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let outer = permutation(rewriter, root(found))?;
    let inner = permutation(rewriter, rewriter.value(found, "inner")?)?;
    let perm: Option<Vec<usize>> = outer.iter().map(|&axis| inner.get(axis).copied()).collect();
    let perm = perm.ok_or(Skip::NoMatch)?;
    let x = rewriter.value(found, "x")?;
    rewriter.add(Op::Transpose(Transpose { perm: Some(perm) }), vec![Some(x)], "transpose")
}

fn reshape(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let from = rewriter.fact(x).shape().to_vec();
    let to = rewriter.fact(root(found)).shape().to_vec();
    let target = target(&from, &to)
        .ok_or_else(|| Skip::because(format!("{from:?} to {to:?} needs a target computed at run time")))?;
    let len = target.len();
    let shape = rewriter.constant(Tensor::from_vec(&[len], target), "shape");
    let op = Op::Reshape(Reshape { allowzero: false });
    rewriter.add(op, vec![Some(x), Some(shape)], "reshape")
}

fn reshape_target(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let shape = rewriter.value(found, "shape")?;
    if rewriter.graph().constant(shape).is_some() { Err(Skip::NoMatch) } else { reshape(rewriter, found) }
}

/// The operand `shape` of a Reshape between these shapes: numbers, 0 for a dim that is taken over, at most one -1.
fn target(from: &[Dim], to: &[Dim]) -> Option<Vec<i64>> {
    let mut inferred = false;
    let dims = to.iter().enumerate().map(|(axis, dim)| match dim.as_const() {
        // 0 in a target means "as in the operand".
        Some(0) if from.get(axis) != Some(dim) => None,
        Some(value) => Some(value),
        None if from.get(axis) == Some(dim) => Some(0),
        None if !std::mem::replace(&mut inferred, true) => Some(-1),
        None => None,
    });
    let target: Vec<i64> = dims.collect::<Option<_>>()?;
    // With no elements there is nothing to infer a -1 from, and a 0 does not tell how many elements there are.
    if from.iter().chain(to).any(|dim| dim.is(0)) { None } else { Some(target) }
}

fn unsqueeze_of_unsqueeze(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (a, b) = (rewriter.tensor(found, "a")?.to_i64s(), rewriter.tensor(found, "b")?.to_i64s());
    let rank = rewriter.fact(root(found)).rank();
    let outer: Option<Vec<usize>> = b.iter().map(|&axis| parts::axis_of(axis, rank)).collect();
    let mut axes = outer.ok_or(Skip::NoMatch)?;
    // Where the axes of the inner result are in the outer one.
    let kept: Vec<usize> = (0..rank).filter(|axis| !axes.contains(axis)).collect();
    for &axis in &a {
        let inner = parts::axis_of(axis, kept.len()).and_then(|axis| kept.get(axis));
        axes.push(*inner.ok_or(Skip::NoMatch)?);
    }
    axes.sort_unstable();
    let axes: Vec<i64> = axes.into_iter().map(|axis| axis as i64).collect();
    let x = rewriter.value(found, "x")?;
    let axes = rewriter.constant(Tensor::from_vec(&[axes.len()], axes), "axes");
    rewriter.add(Op::Unsqueeze(Unsqueeze), vec![Some(x), Some(axes)], "unsqueeze")
}

fn transpose_of_ones(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let perm = permutation(rewriter, root(found))?;
    let (from, to) = (rewriter.fact(x).shape().to_vec(), rewriter.fact(root(found)).shape().to_vec());
    let others = perm.iter().filter(|&&axis| from.get(axis).is_some_and(|dim| !dim.is(1)));
    // A transpose beside it would be merged with it, and a reshape would be in the way.
    let is_transpose = |id| matches!(rewriter.graph().node(id).op, Op::Transpose(_));
    let users = rewriter.graph().users(root(found));
    let lonely = !is_transpose(x.node) && !users.iter().any(|(user, _)| is_transpose(*user));
    if !others.is_sorted() || !lonely {
        return Err(Skip::NoMatch);
    }
    let target = target(&from, &to).ok_or(Skip::NoMatch)?;
    let shape = rewriter.constant(Tensor::from_vec(&[target.len()], target), "shape");
    rewriter.add(Op::Reshape(Reshape { allowzero: false }), vec![Some(x), Some(shape)], "reshape")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::canonicalize::algebra::Algebra;
    use crate::check::{becomes, run};

    #[test]
    fn targets() {
        let n = || Dim::symbol("n");
        let m = || Dim::symbol("m");
        let dims = |values: &[i64]| values.iter().map(|&v| Dim::from(v)).collect::<Vec<_>>();
        assert_eq!(target(&dims(&[2, 3]), &dims(&[6])), Some(vec![6]));
        assert_eq!(target(&[n(), 6.into()], &[n(), 2.into(), 3.into()]), Some(vec![0, 2, 3]));
        assert_eq!(target(&[n(), 6.into()], &[n() * 2.into(), 3.into()]), Some(vec![-1, 3]));
        assert_eq!(target(&[n(), m()], &[m(), n()]), None);
        assert_eq!(target(&[0.into(), n()], &[n(), 0.into()]), None);
    }

    #[test]
    fn shape_chains_go() {
        let report = becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,m,6]
            %1 = Shape(%0) {end=2}
            %2 = Constant [2, 3] : i64[2]
            %3 = Concat(%1, %2) {axis=0}
            %4 = Reshape(%0, %3)
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[n,m,6]
            %1 = Constant [0, 0, 2, 3] : i64[4]
            %2 = Reshape(%0, %1)
            output "y" = %2"#,
        );
        assert_eq!(report.applied[0].rule, "reshape-target");
    }

    #[test]
    fn views_of_unknown_rank_stay() {
        let text = r#"model "g"
            input %0 "x" : f32[n,2,3]
            %1 = Squeeze(%0)
            %2 = Constant [0] : i64[1]
            %3 = Unsqueeze(%1, %2)
            %4 = Transpose(%3)
            %5 = Transpose(%4)
            output "y" = %5"#;
        becomes(&Algebra, text, text);
    }

    #[test]
    fn views_of_views() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,2,3,4]
            %1 = Flatten(%0) {axis=1}
            %2 = Constant [-1, 6, 4] : i64[3]
            %3 = Reshape(%1, %2)
            %4 = Transpose(%3) {perm=[2,0,1]}
            %5 = Transpose(%4) {perm=[2,0,1]}
            output "y" = %5"#,
            r#"model "g"
            input %0 "x" : f32[n,2,3,4]
            %1 = Constant [0, 6, 4] : i64[3]
            %2 = Reshape(%0, %1)
            %3 = Transpose(%2) {perm=[1,2,0]}
            output "y" = %3"#,
        );
    }

    #[test]
    fn views_that_change_nothing() {
        let (graph, _) = run(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [0] : i64[1]
            %2 = Constant [9223372036854775807] : i64[1]
            %3 = Slice(%0, %1, %2, %1)
            %4 = Constant [0, 0, 0, 0] : i64[4]
            %5 = Pad(%3, %4) {mode="constant"}
            %6 = Concat(%5) {axis=0}
            %7 = Constant [0, 2] : i64[2]
            %8 = Reshape(%6, %7)
            %9 = Flatten(%8) {axis=1}
            %10 = Identity(%9)
            output "y" = %10"#,
        );
        assert_eq!(graph.outputs()[0].value.node, graph.inputs()[0]);
    }

    #[test]
    fn a_reversed_slice_stays() {
        let (graph, _) = run(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [-1] : i64[1]
            %2 = Constant [-3] : i64[1]
            %3 = Constant [0] : i64[1]
            %4 = Slice(%0, %1, %2, %3, %1)
            output "y" = %4"#,
        );
        assert_eq!(graph.node_count(), 5);
    }

    #[test]
    fn expands_that_broadcasting_makes_needless() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[2,1]
            input %1 "y" : f32[2,3]
            %2 = Constant [2, 3] : i64[2]
            %3 = Expand(%0, %2)
            %4 = Sub(%1, %3)
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[2,1]
            input %1 "y" : f32[2,3]
            %2 = Sub(%1, %0)
            output "y" = %2"#,
        );
    }
}
