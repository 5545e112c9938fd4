//! `algebra`: identities that hold to the bit.
//!
//! `x + 0` is not among them: it turns -0 into 0. `x + -0`, `x - 0` and `x * 1` leave every bit.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[2,3]
//! %1 = Constant [1.0] : f32[1]
//! %2 = Mul(%0, %1)
//! %3 = Transpose(%2) {perm=[1,0]}
//! %4 = Transpose(%3) {perm=[1,0]}
//! %5 = Relu(%4)
//! output "y" = %5
//! ; becomes
//! model "g"
//! input %0 "x" : f32[2,3]
//! %1 = Relu(%0)
//! output "y" = %1
//! ```

use super::views;
use rabot_ir::ops::{Binary, BinaryOp};
use rabot_ir::{Graph, Op, Value};
use rabot_rewrite::{
    Exactness, Match, Pass, PassCx, PassError, PassInfo, PatternError, Report, Rewriter, RuleInfo, Rules,
    Skip,
};
use rabot_tensor::{DType, Tensor};
use std::sync::LazyLock;

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "algebra", options: &[], make: |_| Ok(Box::new(Algebra)) };

/// Identities that hold to the bit.
#[derive(Clone, Debug)]
pub struct Algebra;

impl Pass for Algebra {
    fn name(&self) -> &'static str {
        "algebra"
    }

    fn summary(&self) -> &'static str {
        "apply identities that hold to the bit: x*1, double negation, no-op views and casts, views of views"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn rules(&self) -> Vec<RuleInfo> {
        [NUMBERS, &views::rules()].concat()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        static RULES: LazyLock<Result<Rules, PatternError>> = LazyLock::new(|| Rules::new(&Algebra.rules()));
        match &*RULES {
            Ok(rules) => rules.run(self.name(), graph, cx),
            Err(error) => Err(PassError::Pattern { pass: self.name(), error: error.clone() }),
        }
    }
}

const NUMBERS: &[RuleInfo] = &[
    RuleInfo {
        name: "times-one",
        identity: "x * 1 = x",
        lhs: &["Mul(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| neutral(r, m, &[1.0]),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "over-one",
        identity: "x / 1 = x",
        lhs: &["Div(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| neutral(r, m, &[1.0]),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "power-one",
        identity: "x ^ 1 = x",
        lhs: &["Pow(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| neutral(r, m, &[1.0]),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "plus-zero",
        identity: "x + -0 = x, and x + 0 = x for integers",
        lhs: &["Add(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| neutral(r, m, &[-0.0]),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "minus-zero",
        identity: "x - 0 = x",
        lhs: &["Sub(?x, #c)"],
        uses: &["x", "c"],
        apply: |r, m| neutral(r, m, &[0.0]),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "square",
        identity: "x ^ 2 = x * x: a product of floats of at most 24 bits is exact in f64, so both round once",
        lhs: &["Pow(?x, 2)"],
        uses: &["x"],
        apply: square,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "over-power-of-two",
        identity: "x / 2^k = x * 2^-k, where both powers are normal numbers",
        lhs: &["Div(?x, #c)"],
        uses: &["x", "c"],
        apply: over_power_of_two,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "double-negation",
        identity: "-(-x) = x",
        lhs: &["Neg(Neg(?x))"],
        uses: &["x"],
        apply: |r, m| r.value(m, "x"),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "double-not",
        identity: "not not x = x",
        lhs: &["Not(Not(?x))"],
        uses: &["x"],
        apply: |r, m| r.value(m, "x"),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "relu-twice",
        identity: "relu(relu(x)) = relu(x)",
        lhs: &["Relu(n:Relu(_x))"],
        uses: &["n"],
        apply: |r, m| r.value(m, "n"),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "abs-twice",
        identity: "||x|| = |x|",
        lhs: &["Abs(n:Abs(_x))"],
        uses: &["n"],
        apply: |r, m| r.value(m, "n"),
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "cast-to-same",
        identity: "a cast to the dtype that x has is x",
        lhs: &["Cast(?x)"],
        uses: &["x"],
        apply: same_type,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "cast-of-cast",
        identity: "a cast of a cast that kept every value is one cast",
        lhs: &["Cast(Cast(?x))"],
        uses: &["x"],
        apply: cast_of_cast,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "one-operand",
        identity: "the sum, mean, largest and smallest of one operand is the operand",
        lhs: &["Sum|Max|Min|Mean(?x)"],
        uses: &["x"],
        apply: same_type,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "sum-of-two",
        identity: "the sum of two is an addition",
        lhs: &["Sum(?x, ?y)"],
        uses: &["x", "y"],
        apply: sum_of_two,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "no-bounds",
        identity: "clip(x) without bounds = x",
        lhs: &["Clip(?x)"],
        uses: &["x"],
        apply: same_type,
        ..RuleInfo::BITWISE
    },
];

/// The operand itself; the driver refuses it if the type differs (broadcasting, say).
fn same_type(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let root = Value { node: found.root, slot: 0 };
    if rewriter.fact(x).ty == rewriter.fact(root).ty { Ok(x) } else { Err(Skip::NoMatch) }
}

/// `x`, if every element of the constant `c` is `neutral`, sign of zero included, and broadcasting changes nothing.
fn neutral(rewriter: &mut Rewriter<'_>, found: &Match, neutral: &[f64]) -> Result<Value, Skip> {
    let c = rewriter.tensor(found, "c")?;
    // Weights and tables are not neutral; their first element tells.
    let values = if c.len() <= 1 << 16 { c.to_f64s() } else { return Err(Skip::NoMatch) };
    let is_neutral = |v: &f64| {
        neutral
            .iter()
            .any(|n| v == n && (!c.dtype().is_float() || v.is_sign_negative() == n.is_sign_negative()))
    };
    if values.iter().all(is_neutral) { same_type(rewriter, found) } else { Err(Skip::NoMatch) }
}

fn square(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    if !matches!(rewriter.fact(x).dtype(), DType::F32 | DType::F16 | DType::BF16) {
        return Err(Skip::NoMatch);
    }
    rewriter.add(Op::Binary(Binary { op: BinaryOp::Mul }), vec![Some(x), Some(x)], "square")
}

fn over_power_of_two(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, c) = (rewriter.value(found, "x")?, rewriter.tensor(found, "c")?);
    if c.dtype() != DType::F32 || c.len() > 1 << 16 {
        return Err(Skip::NoMatch);
    }
    let values = c.to_f64s();
    let exact = |v: &f64| {
        // No mantissa bits, and an exponent whose inverse is normal too.
        let bits = (*v as f32).to_bits();
        let exponent = (bits >> 23) & 0xff;
        bits & 0x7f_ffff == 0 && (1..=253).contains(&exponent)
    };
    if !values.iter().all(exact) {
        return Err(Skip::NoMatch);
    }
    let inverse: Vec<f64> = values.iter().map(|v| 1.0 / v).collect();
    let inverse = rewriter.constant(Tensor::from_f64s(c.dtype(), c.shape(), &inverse), "inverse");
    rewriter.add(Op::Binary(Binary { op: BinaryOp::Mul }), vec![Some(x), Some(inverse)], "product")
}

fn cast_of_cast(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let x = rewriter.value(found, "x")?;
    let outer = rewriter.graph().node(found.root);
    let inner = outer.inputs.first().copied().flatten().ok_or(Skip::NoMatch)?;
    let (from, through) = (rewriter.fact(x).dtype(), rewriter.fact(inner).dtype());
    if !keeps_all_values(from, through) {
        return Err(Skip::NoMatch);
    }
    let to = rewriter.fact(Value { node: found.root, slot: 0 }).dtype();
    // What a float out of range becomes as an integer is not what an integer out of range becomes.
    if through.is_float() && to.is_int() && !keeps_all_values(from, to) {
        return Err(Skip::NoMatch);
    }
    let op = outer.op.clone();
    if outer.outputs.first().is_some_and(|o| o.fact.dtype() == from) {
        return Ok(x);
    }
    rewriter.add(op, vec![Some(x)], "cast")
}

/// True if every value of `from` is one of `to`.
fn keeps_all_values(from: DType, to: DType) -> bool {
    let mantissa = |dtype: DType| match dtype {
        DType::F64 => 53,
        DType::F32 => 24,
        DType::F16 => 11,
        DType::BF16 => 8,
        _ => 0,
    };
    match (from.int_range(), to.int_range()) {
        (Some((a, b)), Some((lo, hi))) => lo <= a && b <= hi,
        (Some((a, b)), None) => b.max(-a) <= 1i128 << mantissa(to),
        (None, _) if from == DType::Bool => to == DType::F32 || to == DType::F64 || to.is_int(),
        (None, _) => {
            matches!(
                (from, to),
                (DType::F32, DType::F64) | (DType::F16 | DType::BF16, DType::F32 | DType::F64)
            )
        }
    }
}

fn sum_of_two(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, y) = (rewriter.value(found, "x")?, rewriter.value(found, "y")?);
    rewriter.add(Op::Binary(Binary { op: BinaryOp::Add }), vec![Some(x), Some(y)], "sum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{becomes, example, run};

    /// How many nodes besides inputs and constants are left of `y = body`, given x, y : f32[2,3].
    fn left(body: &str) -> usize {
        let text = format!(
            "model \"g\"\ninput %0 \"x\" : f32[2,3]\ninput %1 \"i\" : i32[3]\ninput %2 \"b\" : bool[3]\n{body}"
        );
        let (graph, _) = run(&Algebra, &text);
        rabot_rewrite::Stats::of(&graph).nodes
    }

    #[test]
    fn header_example() {
        example(&Algebra, include_str!("algebra.rs"));
    }

    #[test]
    fn neutral_elements() {
        assert_eq!(left("%3 = Constant [1.0] : f32[1]\n%4 = Mul(%3, %0)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Constant [1.0] : f32[1]\n%4 = Div(%0, %3)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Constant [1.0] : f32[1]\n%4 = Div(%3, %0)\noutput \"o\" = %4"), 1);
        assert_eq!(left("%3 = Constant [-0.0] : f32[1]\n%4 = Add(%0, %3)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Constant [0.0] : f32[1]\n%4 = Add(%0, %3)\noutput \"o\" = %4"), 1);
        assert_eq!(left("%3 = Constant [0.0] : f32[1]\n%4 = Sub(%0, %3)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Constant [0] : i32[1]\n%4 = Add(%1, %3)\noutput \"o\" = %4"), 0);
        let broadcast = "%3 = Constant [1.0, 1.0] : f32[2,1,1]\n%4 = Mul(%0, %3)\noutput \"o\" = %4";
        assert_eq!(left(broadcast), 1);
    }

    #[test]
    fn what_nobody_uses_goes_with_its_operands() {
        let unused = "%3 = Shape(%0)\n%4 = Constant [1] : i64[1]\n%5 = Mul(%3, %4)\noutput \"o\" = %0";
        assert_eq!(left(unused), 0);
    }

    #[test]
    fn projections_and_involutions() {
        assert_eq!(left("%3 = Neg(%0)\n%4 = Neg(%3)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Not(%2)\n%4 = Not(%3)\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Relu(%0)\n%4 = Relu(%3)\noutput \"o\" = %4"), 1);
    }

    #[test]
    fn casts() {
        assert_eq!(left("%3 = Cast(%0) {to=\"f32\"}\noutput \"o\" = %3"), 0);
        assert_eq!(left("%3 = Cast(%1) {to=\"i64\"}\n%4 = Cast(%3) {to=\"i32\"}\noutput \"o\" = %4"), 0);
        assert_eq!(left("%3 = Cast(%1) {to=\"i64\"}\n%4 = Cast(%3) {to=\"f32\"}\noutput \"o\" = %4"), 1);
        assert_eq!(left("%3 = Cast(%0) {to=\"i32\"}\n%4 = Cast(%3) {to=\"f32\"}\noutput \"o\" = %4"), 2);
    }

    #[test]
    fn division_by_powers_of_two_only() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[2,3]
            %1 = Constant [8.0, 0.5, -4.0] : f32[3]
            %2 = Div(%0, %1)
            output "y" = %2"#,
            r#"model "g"
            input %0 "x" : f32[2,3]
            %1 = Constant [0.125, 2.0, -0.25] : f32[3]
            %2 = Mul(%0, %1)
            output "y" = %2"#,
        );
        let (_, report) = run(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[2,3]
            %1 = Constant [3.0] : f32[1]
            %2 = Div(%0, %1)
            output "y" = %2"#,
        );
        assert!(report.applied.is_empty());
    }

    #[test]
    fn squares_and_sums() {
        becomes(
            &Algebra,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [2.0] : f32[]
            %2 = Pow(%0, %1)
            %3 = Sum(%2, %0)
            %4 = Max(%3)
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Mul(%0, %0)
            %2 = Add(%1, %0)
            output "y" = %2"#,
        );
    }
}
