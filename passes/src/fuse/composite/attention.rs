//! Attention: where the scale goes, and heads of queries that share those of keys and values.
//!
//! The form that is left is in the header of the folder.

use super::{binary, number, reshape_to, root, scalar};
use crate::fuse::fusion::ROUNDED;
use rabot_ir::ops::{BinaryOp, MatMul, Transpose, UnaryOp, Unsqueeze};
use rabot_ir::{Dim, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;

pub(super) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "scale-through-views",
        identity: "view(W x + b) c = view((W x + b) c), where the scale becomes part of W and b",
        lhs: &["Mul(view:Transpose|Reshape|Unsqueeze|Squeeze(?y, [?shape]), #c)"],
        uses: &["view", "y", "shape", "c"],
        apply: |r, m| {
            let c = number(r, m, "c")?;
            scale_through_view(r, m, c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-through-views",
        identity: "view(W x + b) / c = view((W x + b) (1 / c)), where the scale becomes part of W and b",
        lhs: &["Div(view:Transpose|Reshape|Unsqueeze|Squeeze(?y, [?shape]), #c)"],
        uses: &["view", "y", "shape", "c"],
        apply: |r, m| {
            let c = number(r, m, "c")?;
            scale_through_view(r, m, 1.0 / c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-after-product",
        identity: "(q c) k = (q k) c",
        lhs: &["MatMul(Mul(?q, #c), ?k)", "MatMul(?q, Mul(?k, #c))"],
        uses: &["q", "k", "c"],
        apply: |r, m| {
            let (q, k, c) = (r.value(m, "q")?, r.value(m, "k")?, number(r, m, "c")?);
            scaled_product(r, m, q, k, c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-after-product",
        identity: "(q / c) k = (q k) (1 / c)",
        lhs: &["MatMul(Div(?q, #c), ?k)", "MatMul(?q, Div(?k, #c))"],
        uses: &["q", "k", "c"],
        apply: |r, m| {
            let (q, k, c) = (r.value(m, "q")?, r.value(m, "k")?, number(r, m, "c")?);
            scaled_product(r, m, q, k, 1.0 / c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-after-product",
        identity: "q transpose(k c) = (q transpose(k)) c",
        lhs: &["MatMul(?q, t:Transpose(Mul(?k, #c)))"],
        uses: &["q", "k", "c", "t"],
        apply: |r, m| {
            let (q, k, c) = (r.value(m, "q")?, r.value(m, "k")?, number(r, m, "c")?);
            let op = r.node(r.value(m, "t")?).op.clone();
            let k = r.add(op, vec![Some(k)], "transposed")?;
            scaled_product(r, m, q, k, c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "scale-after-product",
        identity: "q transpose(k / c) = (q transpose(k)) (1 / c)",
        lhs: &["MatMul(?q, t:Transpose(Div(?k, #c)))"],
        uses: &["q", "k", "c", "t"],
        apply: |r, m| {
            let (q, k, c) = (r.value(m, "q")?, r.value(m, "k")?, number(r, m, "c")?);
            let op = r.node(r.value(m, "t")?).op.clone();
            let k = r.add(op, vec![Some(k)], "transposed")?;
            scaled_product(r, m, q, k, 1.0 / c)
        },
        ..ROUNDED
    },
    RuleInfo {
        name: "shared-heads",
        identity: "products broadcast over the heads that share keys and values, as the expand of these did",
        lhs: &["MatMul(p:Softmax(?scores), values:Reshape(expanded:Expand(?v, _size), _shape))"],
        uses: &["p", "scores", "values", "expanded", "v"],
        apply: shared_heads,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "transpose-of-merged",
        identity: "axes that are merged stay neighbours: transpose(merge(y)) = merge(transpose(y))",
        lhs: &["Transpose(merged:Reshape(product:MatMul(_a, _b), _shape))"],
        uses: &["merged", "product"],
        apply: transpose_of_merged,
        ..RuleInfo::BITWISE
    },
];

/// True if a constant factor of `value` can become part of weights: a product with constant weights, and its bias.
fn takes_scale(rewriter: &Rewriter<'_>, mut value: Value) -> bool {
    let graph = rewriter.graph();
    loop {
        if graph.use_count(value) != 1 || graph.is_output(value) {
            return false;
        }
        let node = graph.node(value.node);
        let constant =
            |slot: usize| node.inputs.get(slot).copied().flatten().filter(|&v| graph.constant(v).is_some());
        value = match &node.op {
            Op::Transpose(_) | Op::Reshape(_) | Op::Unsqueeze(_) | Op::Squeeze(_) => {
                match node.inputs.first() {
                    Some(&Some(operand)) => operand,
                    _ => return false,
                }
            }
            Op::Binary(op) if op.op == BinaryOp::Add => {
                let sum: Vec<Value> = node.inputs.iter().flatten().copied().collect();
                match sum.iter().find(|&&v| graph.constant(v).is_none()) {
                    Some(&product) if constant(0).is_some() || constant(1).is_some() => product,
                    _ => return false,
                }
            }
            Op::MatMul(_) | Op::Gemm(_) | Op::Conv(_) => return constant(1).is_some(),
            _ => return false,
        };
    }
}

fn scale_through_view(rewriter: &mut Rewriter<'_>, found: &Match, factor: f64) -> Result<Value, Skip> {
    let (y, view) = (rewriter.value(found, "y")?, rewriter.value(found, "view")?);
    // A constant of higher rank would add dims.
    if rewriter.fact(view).ty != rewriter.fact(root(found)).ty || !takes_scale(rewriter, y) {
        return Err(Skip::NoMatch);
    }
    let factor = scalar(rewriter, y, factor, "scale");
    let scaled = binary(rewriter, BinaryOp::Mul, y, factor)?;
    let op = rewriter.node(view).op.clone();
    rewriter.add(op, std::iter::once(Some(scaled)).chain(found.get("shape").map(Some)).collect(), "view")
}

/// `(q k) factor`, for operands that are both computed.
fn scaled_product(
    rewriter: &mut Rewriter<'_>,
    found: &Match,
    q: Value,
    k: Value,
    factor: f64,
) -> Result<Value, Skip> {
    let is_constant = |value: Value| rewriter.graph().constant(value).is_some();
    if is_constant(q) || is_constant(k) || !rewriter.fact(q).dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    let product = rewriter.add(Op::MatMul(MatMul), vec![Some(q), Some(k)], "product")?;
    if rewriter.fact(product).ty != rewriter.fact(root(found)).ty {
        return Err(Skip::NoMatch);
    }
    let factor = scalar(rewriter, product, factor, "scale");
    binary(rewriter, BinaryOp::Mul, product, factor)
}

/// Heads of keys that queries share: `[batch, heads, 1, positions, size]` expanded to `shared`, then merged.
struct Shared {
    heads: Dim,
    shared: Dim,
}

impl Shared {
    /// If `merged` is `expanded` with axes 1 and 2 merged, and `expanded` is `narrow` with axis 2 repeated.
    fn of(rewriter: &Rewriter<'_>, narrow: Value, expanded: Value, merged: Value) -> Result<Self, Skip> {
        let shape = |value: Value| rewriter.fact(value).shape();
        let [batch, heads, one, positions, size] = shape(narrow) else { return Err(Skip::NoMatch) };
        let [batch2, heads2, shared, positions2, size2] = shape(expanded) else { return Err(Skip::NoMatch) };
        let [batch3, all, positions3, size3] = shape(merged) else { return Err(Skip::NoMatch) };
        let repeated = one.is(1) && shared.as_const().is_some_and(|shared| shared > 1);
        let kept = [batch, heads, positions, size] == [batch2, heads2, positions2, size2];
        let rest = [batch, positions, size] == [batch3, positions3, size3];
        if !repeated || !kept || !rest || heads.clone() * shared.clone() != *all {
            return Err(Skip::NoMatch);
        }
        Ok(Shared { heads: heads.clone(), shared: shared.clone() })
    }

    /// A shape with the heads apart.
    fn apart(&self, shape: &[Dim]) -> Vec<Dim> {
        let mut dims = shape.to_vec();
        if dims.len() == 4 {
            dims.splice(1..2, [self.heads.clone(), self.shared.clone()]);
        }
        dims
    }
}

fn shared_heads(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let [v, expanded, values] =
        [rewriter.value(found, "v")?, rewriter.value(found, "expanded")?, rewriter.value(found, "values")?];
    let shared = Shared::of(rewriter, v, expanded, values)?;
    let wanted = rewriter.fact(root(found)).shape().to_vec();
    let p = rewriter.value(found, "p")?;
    let op = rewriter.node(p).op.clone();
    let is_last = matches!(&op, Op::Softmax(op) if op.axis == -1 || op.axis == 3);
    if !is_last || wanted.len() != 4 {
        return Err(Skip::NoMatch);
    }
    let scores = rewriter.value(found, "scores")?;
    let scores = raised(rewriter, scores, &shared)?;
    let softmax = Op::Softmax(rabot_ir::ops::Softmax { axis: -1, log: false });
    let probabilities = rewriter.add(softmax, vec![Some(scores)], "probabilities")?;
    let mixed = rewriter.add(Op::MatMul(MatMul), vec![Some(probabilities), Some(v)], "mixed")?;
    if rewriter.fact(mixed).shape() != shared.apart(&wanted) {
        return Err(Skip::because("its heads are not those of the keys"));
    }
    reshape_to(rewriter, mixed, &wanted, "merged")
}

/// The scores with their heads apart: what comes behind the product of queries and keys is done on 5 dims.
fn raised(rewriter: &mut Rewriter<'_>, value: Value, shared: &Shared) -> Result<Value, Skip> {
    let graph = rewriter.graph();
    let name = graph.value_name(value).clone();
    if graph.use_count(value) != 1 || graph.is_output(value) {
        return Err(Skip::because(format!("`{name}` is used by other nodes too")));
    }
    let node = graph.node(value.node).clone();
    let operands: Vec<Value> = node.inputs.iter().flatten().copied().collect();
    match &node.op {
        Op::MatMul(_) => raised_product(rewriter, &operands, shared),
        Op::Binary(_) | Op::Where(_) | Op::Cast(_) | Op::Unary(_) => {
            if matches!(&node.op, Op::Unary(op) if op.op != UnaryOp::Tanh) {
                return Err(Skip::because(format!(
                    "there is a {} between product and softmax",
                    node.op.name()
                )));
            }
            let full = rewriter.fact(value).shape().to_vec();
            let mut inputs = Vec::with_capacity(operands.len());
            let mut found = false;
            for &operand in &operands {
                let is_path =
                    !found && rewriter.fact(operand).shape() == full && leads_to_product(rewriter, operand);
                found |= is_path;
                inputs.push(Some(match is_path {
                    true => raised(rewriter, operand, shared)?,
                    false => aside(rewriter, operand, shared)?,
                }));
            }
            if !found {
                return Err(Skip::because("its scores are no product of queries and keys"));
            }
            rewriter.add(node.op.clone(), inputs, "scores")
        }
        other => Err(Skip::because(format!("there is a {} between product and softmax", other.name()))),
    }
}

/// True if following first operands of elementwise nodes ends at a product.
fn leads_to_product(rewriter: &Rewriter<'_>, mut value: Value) -> bool {
    let full = rewriter.fact(value).shape().to_vec();
    loop {
        let node = rewriter.node(value);
        let next = match &node.op {
            Op::MatMul(_) => return true,
            Op::Binary(_) | Op::Where(_) | Op::Cast(_) | Op::Unary(_) => {
                let full = |v: &&Value| {
                    rewriter.fact(**v).shape() == full && rewriter.graph().constant(**v).is_none()
                };
                node.inputs.iter().flatten().rfind(full).copied()
            }
            _ => None,
        };
        let Some(next) = next else { return false };
        value = next;
    }
}

/// The product of queries and keys with their heads apart; the keys are not repeated any more.
fn raised_product(rewriter: &mut Rewriter<'_>, operands: &[Value], shared: &Shared) -> Result<Value, Skip> {
    let not = || Skip::because("its keys are not repeated as its values are");
    let &[q, transposed] = operands else { return Err(not()) };
    let operand =
        |rewriter: &Rewriter<'_>, value: Value| rewriter.node(value).inputs.first().copied().flatten();
    let Op::Transpose(Transpose { perm: Some(perm) }) = &rewriter.node(transposed).op else {
        return Err(not());
    };
    if perm[..] != [0, 1, 3, 2] {
        return Err(not());
    }
    let merged = operand(rewriter, transposed).ok_or_else(not)?;
    let expanded = operand(rewriter, merged).ok_or_else(not)?;
    let narrow = operand(rewriter, expanded).ok_or_else(not)?;
    if !matches!((&rewriter.node(merged).op, &rewriter.node(expanded).op), (Op::Reshape(_), Op::Expand(_))) {
        return Err(not());
    }
    let keys = Shared::of(rewriter, narrow, expanded, merged)?;
    if keys.heads != shared.heads || keys.shared != shared.shared {
        return Err(not());
    }
    let dims = shared.apart(rewriter.fact(q).shape());
    let q = reshape_to(rewriter, q, &dims, "queries")?;
    let turn = Op::Transpose(Transpose { perm: Some(vec![0, 1, 2, 4, 3]) });
    let k = rewriter.add(turn, vec![Some(narrow)], "keys")?;
    rewriter.add(Op::MatMul(MatMul), vec![Some(q), Some(k)], "scores")
}

/// An operand that broadcasts to the scores, with a dim for the heads that share keys.
fn aside(rewriter: &mut Rewriter<'_>, value: Value, shared: &Shared) -> Result<Value, Skip> {
    let shape = rewriter.fact(value).shape().to_vec();
    match shape.len() {
        // Broadcasting aligns the last dims.
        0..=2 => Ok(value),
        rank @ 3..=4 if shape[rank - 3].is(1) => {
            let axes = rewriter.constant(Tensor::from_vec(&[1], vec![rank as i64 - 2]), "axes");
            rewriter.add(Op::Unsqueeze(Unsqueeze), vec![Some(value), Some(axes)], "mask")
        }
        4 => {
            let dims = shared.apart(&shape);
            reshape_to(rewriter, value, &dims, "mask")
        }
        _ => Err(Skip::because(format!("a mask of shape {shape:?} does not fit shared heads"))),
    }
}

/// Two neighbouring axes merged by a reshape stay neighbours in a transpose.
fn transpose_of_merged(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (product, merged) = (rewriter.value(found, "product")?, rewriter.value(found, "merged")?);
    let Op::Transpose(Transpose { perm: Some(perm) }) = &rewriter.graph().node(found.root).op else {
        return Err(Skip::NoMatch);
    };
    let (from, to) = (rewriter.fact(product).shape(), rewriter.fact(merged).shape());
    if from.len() != to.len() + 1 {
        return Err(Skip::NoMatch);
    }
    // The first axis that differs, or is one of several that are alike, is the merged one.
    let at = from.iter().zip(to).take_while(|(a, b)| a == b).count();
    let merges =
        at < to.len() && from[at].clone() * from[at + 1].clone() == to[at] && from[at + 2..] == to[at + 1..];
    if !merges {
        return Err(Skip::NoMatch);
    }
    let wide = perm.iter().flat_map(|&axis| match axis.cmp(&at) {
        std::cmp::Ordering::Less => vec![axis],
        std::cmp::Ordering::Equal => vec![at, at + 1],
        std::cmp::Ordering::Greater => vec![axis + 1],
    });
    let op = Op::Transpose(Transpose { perm: Some(wide.collect()) });
    let wanted = rewriter.fact(root(found)).shape().to_vec();
    let turned = rewriter.add(op, vec![Some(product)], "turned")?;
    reshape_to(rewriter, turned, &wanted, "merged")
}
