//! Rotary embeddings: `x cos + rotate(x) sin`, where `rotate` swaps the two of each pair and negates the first.
//!
//! The canonical form has a dim of 2 for the pairs, so that swapping is a view with a negative stride, and the sign is
//! with the sines, which all heads and layers share: `y cos + reverse(y) (±sin)`. It is one elementwise kernel; the
//! spelled form cuts x in two, copies the halves into another order and reads that.
//!
//! **Source**: Su et al., arXiv:2104.09864; <https://onnx.ai/onnx/operators/onnx__RotaryEmbedding.html>

use super::{binary, reshape_to, root};
use rabot_ir::ops::{BinaryOp, Concat, Slice, Split, Unsqueeze};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    // transformers: rotate_half(x) = concat(-x[half:], x[:half]).
    RuleInfo {
        name: "rotary-halves",
        identity: "x cos + concat(-b, a) sin = y cos + reverse(y) (-sin, sin), for y = x as the halves a and b",
        lhs: &["Add(Mul(?x, ?cos), Mul(rotated:Concat(Neg(?second), ?first), ?sin))"],
        uses: &["x", "cos", "sin", "rotated", "first", "second"],
        apply: |r, m| {
            let rotated = r.value(m, "rotated")?;
            let last = rank_of(r, rotated)? as i64 - 1;
            let Op::Concat(Concat { axis }) = r.node(rotated).op else { return Err(Skip::NoMatch) };
            if axis != last && axis != -1 {
                return Err(Skip::NoMatch);
            }
            rotate(r, m, Pairs::Halves, Angles::Full)
        },
        ..RuleInfo::BITWISE
    },
    // GPT-J: rotate_every_two(x) = flatten(stack(-x[1::2], x[::2])).
    RuleInfo {
        name: "rotary-interleaved",
        identity: "x cos + flatten(stack(-b, a)) sin = y cos + reverse(y) (-sin, sin), for y = x as pairs (a, b)",
        lhs: &[
            "Add(Mul(?x, ?cos), Mul(Reshape(rotated:Concat(Unsqueeze(Neg(?second), _a), Unsqueeze(?first, _b)), _s), ?sin))",
        ],
        uses: &["x", "cos", "sin", "rotated", "first", "second"],
        apply: |r, m| {
            let (x, rotated) = (r.value(m, "x")?, r.value(m, "rotated")?);
            let last = rank_of(r, rotated)? as i64 - 1;
            let Op::Concat(Concat { axis }) = r.node(rotated).op else { return Err(Skip::NoMatch) };
            if (axis != last && axis != -1) || rank_of(r, rotated)? != rank_of(r, x)? + 1 {
                return Err(Skip::NoMatch);
            }
            rotate(r, m, Pairs::Interleaved, Angles::Full)
        },
        ..RuleInfo::BITWISE
    },
    // What ONNX's RotaryEmbedding is made of, and what Llama's exporters write by hand.
    RuleInfo {
        name: "rotary-halves",
        identity: "concat(a cos - b sin, a sin + b cos) = y cos + reverse(y) (-sin, sin), for y = x as the halves a and b",
        lhs: &[
            "Concat(Sub(Mul(?cos, ?first), Mul(?sin, ?second)), Add(Mul(?sin, ?first), Mul(?cos, ?second)))",
        ],
        uses: &["cos", "sin", "first", "second"],
        apply: |r, m| {
            let last = rank_of(r, root(m))? as i64 - 1;
            let Op::Concat(Concat { axis }) = r.node(root(m)).op else { return Err(Skip::NoMatch) };
            if axis != last && axis != -1 {
                return Err(Skip::NoMatch);
            }
            rotate(r, m, Pairs::Halves, Angles::Half)
        },
        ..RuleInfo::BITWISE
    },
];

/// Which elements of the last axis are pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pairs {
    /// Element i with element i + d/2.
    Halves,
    /// Element 2 i with element 2 i + 1.
    Interleaved,
}

/// Whether there is an angle for every element or one for every pair.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Angles {
    Full,
    Half,
}

fn rank_of(rewriter: &Rewriter<'_>, value: Value) -> Result<usize, Skip> {
    match rewriter.fact(value).rank() {
        0 => Err(Skip::NoMatch),
        rank => Ok(rank),
    }
}

/// The size of the last axis, if it is known.
fn last_size(rewriter: &Rewriter<'_>, value: Value) -> Result<i64, Skip> {
    rewriter.fact(value).shape().last().and_then(Dim::as_const).ok_or(Skip::NoMatch)
}

/// The canonical form in the place of the match.
fn rotate(rewriter: &mut Rewriter<'_>, found: &Match, pairs: Pairs, angles: Angles) -> Result<Value, Skip> {
    let names = ["first", "second", "cos", "sin"];
    let [mut first, mut second, mut cos, mut sin] = values(rewriter, found, names)?;
    // Products match in either order, so angles and elements may have changed places.
    let x = match (operand_of_part(rewriter, first), found.get("x")) {
        (Ok(x), Some(other)) => {
            cos = if other == x { cos } else { other };
            x
        }
        (Ok(x), None) => x,
        (Err(_), None) => {
            [first, second, cos, sin] = [cos, sin, first, second];
            operand_of_part(rewriter, first)?
        }
        (Err(skip), Some(_)) => return Err(skip),
    };
    let size = last_size(rewriter, x)?;
    if size % 2 != 0 || size == 0 || !rewriter.fact(x).dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    if !is_part(rewriter, first, x, size, pairs, 0) || !is_part(rewriter, second, x, size, pairs, 1) {
        return Err(Skip::NoMatch);
    }
    let wanted = rewriter.fact(root(found)).shape().to_vec();
    if rewriter.fact(x).shape() != wanted {
        return Err(Skip::because("the angles broadcast the heads"));
    }
    let cos = paired_angles(rewriter, cos, size, pairs, angles)?;
    let sin = paired_angles(rewriter, sin, size, pairs, angles)?;
    let dtype = rewriter.fact(sin).dtype();
    let signs: &[usize] = if pairs == Pairs::Halves { &[2, 1] } else { &[2] };
    let signs = rewriter.constant(Tensor::from_f64s(dtype, signs, &[-1.0, 1.0]), "signs");
    let sin = binary(rewriter, BinaryOp::Mul, sin, signs)?;
    let dims = paired(rewriter.fact(x).shape(), size, pairs);
    let y = reshape_to(rewriter, x, &dims, "pairs")?;
    let axis: i64 = if pairs == Pairs::Halves { -2 } else { -1 };
    let [starts, ends, axes, steps] = [("starts", -1), ("ends", i64::MIN), ("axes", axis), ("steps", -1)]
        .map(|(part, value)| rewriter.constant(Tensor::from_vec(&[1], vec![value]), part));
    let operands = vec![Some(y), Some(starts), Some(ends), Some(axes), Some(steps)];
    let swapped = rewriter.add(Op::Slice(Slice), operands, "swapped")?;
    let straight = binary(rewriter, BinaryOp::Mul, y, cos)?;
    let turned = binary(rewriter, BinaryOp::Mul, swapped, sin)?;
    let sum = binary(rewriter, BinaryOp::Add, straight, turned)?;
    if rewriter.fact(sum).shape() != dims {
        return Err(Skip::because("the angles broadcast the heads"));
    }
    reshape_to(rewriter, sum, &wanted, "rotated")
}

fn values(rewriter: &Rewriter<'_>, found: &Match, names: [&str; 4]) -> Result<[Value; 4], Skip> {
    let [a, b, c, d] = names.map(|name| rewriter.value(found, name));
    Ok([a?, b?, c?, d?])
}

/// The shape with the last dim apart as pairs.
fn paired(shape: &[Dim], size: i64, pairs: Pairs) -> Vec<Dim> {
    let (two, half) = (Dim::from(2), Dim::from(size / 2));
    let last = if pairs == Pairs::Halves { [two, half] } else { [half, two] };
    shape.iter().take(shape.len().saturating_sub(1)).cloned().chain(last).collect()
}

/// Cosines or sines with a dim for the pairs: of size 2, or of 1 where both of a pair have the same.
fn paired_angles(
    rewriter: &mut Rewriter<'_>,
    value: Value,
    size: i64,
    pairs: Pairs,
    angles: Angles,
) -> Result<Value, Skip> {
    let actual = last_size(rewriter, value)?;
    match angles {
        Angles::Full if actual == size => {
            let dims = paired(rewriter.fact(value).shape(), size, pairs);
            reshape_to(rewriter, value, &dims, "angles")
        }
        Angles::Half if actual == size / 2 => {
            let axis: i64 = if pairs == Pairs::Halves { -2 } else { -1 };
            let axes = rewriter.constant(Tensor::from_vec(&[1], vec![axis]), "axes");
            rewriter.add(Op::Unsqueeze(Unsqueeze), vec![Some(value), Some(axes)], "angles")
        }
        _ => Err(Skip::because(format!("{actual} angles for {size} elements"))),
    }
}

/// What a slice or a part of a split is taken from.
fn operand_of_part(rewriter: &Rewriter<'_>, part: Value) -> Result<Value, Skip> {
    let node = rewriter.node(part);
    match node.op {
        Op::Slice(_) | Op::Split(_) => node.inputs.first().copied().flatten().ok_or(Skip::NoMatch),
        _ => Err(Skip::NoMatch),
    }
}

/// True if `part` is the first (0) or the second (1) of each pair of the last axis of `x`.
fn is_part(rewriter: &Rewriter<'_>, part: Value, x: Value, size: i64, pairs: Pairs, which: i64) -> bool {
    let node = rewriter.node(part);
    let last = rewriter.fact(x).rank() as i64 - 1;
    if operand_of_part(rewriter, part) != Ok(x) || last_size(rewriter, part) != Ok(size / 2) {
        return false;
    }
    let is_last = |axis: i64| axis == -1 || axis == last;
    match &node.op {
        Op::Split(Split { axis, num_outputs }) => {
            pairs == Pairs::Halves && is_last(*axis) && *num_outputs == 2 && i64::from(part.slot) == which
        }
        Op::Slice(_) => {
            let one = |slot: usize, default: i64| -> Option<i64> {
                let Some(value) = node.inputs.get(slot).copied().flatten() else { return Some(default) };
                match rewriter.graph().constant(value)?.to_i64s()[..] {
                    [value] => Some(value),
                    _ => None,
                }
            };
            let (Some(start), Some(axis), Some(step)) = (one(1, 0), one(3, 0), one(4, 1)) else {
                return false;
            };
            let start = if start < 0 { start + size } else { start };
            // With its length known, start and step say all.
            let expected = if pairs == Pairs::Halves { (which * (size / 2), 1) } else { (which, 2) };
            is_last(axis) && (start, step) == expected
        }
        _ => false,
    }
}
