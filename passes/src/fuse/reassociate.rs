//! `reassociate`: identities of real numbers that move rounding errors further than a few units in the last place.
//!
//! They are not part of `-O2`: how far an output moves depends on the values.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
//! %2 = Constant [1.0, 0.0, 1.0, 1.0] : f32[2,2]
//! %3 = MatMul(%0, %1)
//! %4 = MatMul(%3, %2)
//! output "y" = %4
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [3.0, 2.0, 7.0, 4.0] : f32[2,2]
//! %2 = MatMul(%0, %1)
//! output "y" = %2
//! ```

use rabot_ir::ops::{Binary, BinaryOp, MatMul, Reduce};
use rabot_ir::{Graph, Op, Value};
use rabot_rewrite::{
    Exactness, Match, Pass, PassCx, PassError, PassInfo, PatternError, Report, Rewriter, RuleInfo, Rules,
    Skip, Valid,
};
use std::sync::LazyLock;

/// The pass in the registry.
pub const INFO: PassInfo =
    PassInfo { name: "reassociate", options: &[], make: |_| Ok(Box::new(Reassociate)) };

/// Where the rules start from. Sums in another order: an error of the length of the sums times a unit in the last
/// place of their largest term, here for 1e4 terms.
const REORDERED: RuleInfo = RuleInfo {
    exactness: Exactness::Rel { rtol: 1e-3, atol: 1e-5 },
    valid: Valid::Finite,
    ..RuleInfo::BITWISE
};

const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "two-products",
        identity: "(x A) B = x (A B)",
        lhs: &["MatMul(MatMul(?x, #a), #b)"],
        uses: &["x", "a", "b"],
        apply: two_products,
        ..REORDERED
    },
    // Jax writes variances so. The difference of two large numbers is worse than the mean of squares.
    RuleInfo {
        name: "variance",
        identity: "mean(x^2) - mean(x)^2 = mean((x - mean(x))^2)",
        lhs: &["Sub(ReduceMean(Mul(?x, ?x), #axes), Mul(mean:ReduceMean(?x, #axes2), ?mean))"],
        uses: &["x", "axes", "axes2", "mean"],
        apply: variance,
        ..REORDERED
    },
];

/// Reorders sums and products.
#[derive(Clone, Debug)]
pub struct Reassociate;

impl Pass for Reassociate {
    fn name(&self) -> &'static str {
        "reassociate"
    }

    fn summary(&self) -> &'static str {
        "reorder sums and products where that saves work: rounding errors move with the values"
    }

    fn exactness(&self) -> Exactness {
        Exactness::of_rules(&self.rules())
    }

    fn rules(&self) -> Vec<RuleInfo> {
        RULES.to_vec()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        static COMPILED: LazyLock<Result<Rules, PatternError>> = LazyLock::new(|| Rules::new(RULES));
        match &*COMPILED {
            Ok(rules) => rules.run(self.name(), graph, cx),
            Err(error) => Err(PassError::Pattern { pass: self.name(), error: error.clone() }),
        }
    }
}

/// The product of the weights, where it is no larger than they are together.
fn two_products(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, a, b) = (rewriter.value(found, "x")?, rewriter.tensor(found, "a")?, rewriter.tensor(found, "b")?);
    let (&[rows, _], &[_, columns]) = (a.shape(), b.shape()) else { return Err(Skip::NoMatch) };
    if rewriter.graph().constant(x).is_some() || rewriter.fact(x).rank() < 2 || !a.dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    if rows * columns > a.len() + b.len() {
        let (apart, one) = (a.len() + b.len(), rows * columns);
        return Err(Skip::because(format!("one matrix of {one} weights is larger than two of {apart}")));
    }
    let product = Op::MatMul(MatMul).eval(&[Some(&a), Some(&b)]).ok().and_then(|mut t| t.pop());
    let product = product.ok_or(Skip::NoMatch)?;
    if product.to_f64s().iter().any(|v| !v.is_finite()) {
        return Err(Skip::because("a weight of the product is not finite"));
    }
    let product = rewriter.constant(product, "weights");
    rewriter.add(Op::MatMul(MatMul), vec![Some(x), Some(product)], "product")
}

fn variance(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, axes) = (rewriter.value(found, "x")?, rewriter.value(found, "axes")?);
    // A mean of integers is rounded to one.
    if !rewriter.fact(x).dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    let reduce = match &rewriter.node(rewriter.value(found, "mean")?).op {
        Op::Reduce(reduce) => reduce.clone(),
        _ => return Err(Skip::NoMatch),
    };
    if !rewriter.fact(x).dtype().is_float() {
        return Err(Skip::NoMatch);
    }
    if rewriter.tensor(found, "axes")?.to_i64s() != rewriter.tensor(found, "axes2")?.to_i64s() {
        return Err(Skip::because("the two means are taken over different axes"));
    }
    let kept = Op::Reduce(Reduce { keepdims: true, ..reduce.clone() });
    let mean = rewriter.add(kept, vec![Some(x), Some(axes)], "mean")?;
    let binary = |op| Op::Binary(Binary { op });
    let centered = rewriter.add(binary(BinaryOp::Sub), vec![Some(x), Some(mean)], "centered")?;
    let square = rewriter.add(binary(BinaryOp::Mul), vec![Some(centered), Some(centered)], "square")?;
    rewriter.add(Op::Reduce(reduce), vec![Some(square), Some(axes)], "variance")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{example, run};

    #[test]
    fn header_example() {
        example(&Reassociate, include_str!("reassociate.rs"));
    }

    #[test]
    fn variances_as_jax_writes_them() {
        let (graph, report) = run(
            &Reassociate,
            r#"model "g"
            input %0 "x" : f32[n,8]
            %1 = Constant [1] : i64[1]
            %2 = ReduceMean(%0, %1)
            %3 = Mul(%0, %0)
            %4 = ReduceMean(%3, %1)
            %5 = Mul(%2, %2)
            %6 = Sub(%4, %5)
            output "y" = %6"#,
        );
        assert_eq!(report.applied[0].rule, "variance");
        let ops: Vec<_> = graph.topological().unwrap().iter().map(|&id| graph.node(id).op.name()).collect();
        assert_eq!(ops.iter().filter(|name| **name == "ReduceMean").count(), 2);
    }
}
