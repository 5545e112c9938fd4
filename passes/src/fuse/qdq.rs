//! `qdq`: operators between `DequantizeLinear` and `QuantizeLinear` compute on the integers.
//!
//! Quantizers that write QDQ form leave `Quantize(Conv(Dequantize(x), Dequantize(w), Dequantize(b)))`: a convolution of
//! f32. Here it becomes the convolution of integers that was meant. What only moves or compares elements does so on
//! integers, so that a chain of layers never leaves them. Additions, multiplications and functions stay between a
//! `DequantizeLinear` and a `QuantizeLinear`: all three are elementwise, so they are one kernel that reads and writes
//! integers.
//!
//! It comes before `fold`, which would make constants of f32 of integer weights.
//!
//! ```text
//! model "g"
//! input %0 "x" : i8[n,2]
//! %1 = Constant [0.5] : f32[]
//! %2 = Constant [3] : i8[]
//! %3 = DequantizeLinear(%0, %1, %2)
//! %4 = Constant [1, 2, 3, 4] : i8[2,2]
//! %5 = Constant [0.25] : f32[]
//! %6 = Constant [0] : i8[]
//! %7 = DequantizeLinear(%4, %5, %6)
//! %8 = MatMul(%3, %7)
//! %9 = Constant [2.0] : f32[]
//! %10 = Constant [0] : u8[]
//! %11 = Relu(%8)
//! %12 = QuantizeLinear(%11, %9, %10)
//! output "y" = %12
//! ; becomes
//! model "g"
//! input %0 "x" : i8[n,2]
//! %1 = Constant [0.5] : f32[]
//! %2 = Constant [3] : i8[]
//! %3 = Constant [1, 2, 3, 4] : i8[2,2]
//! %4 = Constant [0.25] : f32[]
//! %5 = Constant [0] : i8[]
//! %6 = Constant [2.0] : f32[]
//! %7 = Constant [0] : u8[]
//! %8 = QLinearMatMul(%0, %1, %2, %3, %4, %5, %6, %7)
//! output "y" = %8
//! ```

use crate::quantize::carry::carry;
use rabot_ir::ops::{Gemm, QLinearConv, QLinearMatMul};
use rabot_ir::{Graph, Op, Value};
use rabot_rewrite::{
    Exactness, Match, Pass, PassCx, PassError, PassInfo, PatternError, Report, Rewriter, RuleInfo, Rules,
    Skip, Valid, edit_branches, taken_names,
};
use rabot_tensor::{DType, Tensor};
use std::sync::LazyLock;

const NAME: &str = "qdq";

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: &[], make: |_| Ok(Box::new(Qdq)) };

/// An integer sum is exact where that of f32 is rounded, and is scaled once where operands are scaled one by one: near
/// the middle between two steps the results differ by one of them.
const STEP: RuleInfo = RuleInfo {
    exactness: Exactness::Changes("one step of a quantized result"),
    valid: Valid::Finite,
    ..RuleInfo::BITWISE
};

const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "integer-convolution",
        identity: "quantize(conv(dequantize(x), dequantize(w)) + b) = qlinear_conv(x, w, b)",
        lhs: &["QuantizeLinear(layer:Conv(?x, ?w, [?b]), #scale, [#zero])"],
        uses: &["layer", "x", "w", "b", "scale", "zero"],
        apply: |r, m| layer(r, m, false),
        ..STEP
    },
    RuleInfo {
        name: "integer-convolution",
        identity: "quantize(relu(conv(…))) = qlinear_conv(…), where 0 is the lowest integer of the result",
        lhs: &["QuantizeLinear(Relu(layer:Conv(?x, ?w, [?b])), #scale, [#zero])"],
        uses: &["layer", "x", "w", "b", "scale", "zero"],
        apply: |r, m| layer(r, m, true),
        ..STEP
    },
    RuleInfo {
        name: "integer-product",
        identity: "quantize(dequantize(a) dequantize(b) + c) = qlinear_matmul(a, b, c)",
        lhs: &[
            "QuantizeLinear(layer:MatMul|Gemm(?x, ?w, [?b]), #scale, [#zero])",
            "QuantizeLinear(Add(layer:MatMul(?x, ?w), ?b), #scale, [#zero])",
        ],
        uses: &["layer", "x", "w", "b", "scale", "zero"],
        apply: |r, m| layer(r, m, false),
        ..STEP
    },
    RuleInfo {
        name: "integer-product",
        identity: "quantize(relu(dequantize(a) dequantize(b) + c)) = qlinear_matmul(a, b, c), where 0 is the lowest integer",
        lhs: &[
            "QuantizeLinear(Relu(layer:MatMul|Gemm(?x, ?w, [?b])), #scale, [#zero])",
            "QuantizeLinear(Relu(Add(layer:MatMul(?x, ?w), ?b)), #scale, [#zero])",
        ],
        uses: &["layer", "x", "w", "b", "scale", "zero"],
        apply: |r, m| layer(r, m, true),
        ..STEP
    },
];

/// Operators between `DequantizeLinear` and `QuantizeLinear` compute on the integers.
#[derive(Clone, Debug)]
pub struct Qdq;

impl Pass for Qdq {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "compute what lies between DequantizeLinear and QuantizeLinear on the integers"
    }

    fn exactness(&self) -> Exactness {
        Exactness::of_rules(&self.rules())
    }

    fn rules(&self) -> Vec<RuleInfo> {
        RULES.to_vec()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        static COMPILED: LazyLock<Result<Rules, PatternError>> = LazyLock::new(|| Rules::new(RULES));
        if !is_quantized(graph) {
            return Ok(Report::default());
        }
        let rules =
            COMPILED.as_ref().map_err(|error| PassError::Pattern { pass: NAME, error: error.clone() })?;
        let mut report = rules.run(NAME, graph, cx)?;
        carry_all(graph, cx, &mut report)?;
        Ok(report)
    }
}

/// True if there is anything to do, which most models have not.
fn is_quantized(graph: &Graph) -> bool {
    graph.node_ids().any(|id| {
        let op = &graph.node(id).op;
        matches!(op, Op::QuantizeLinear(_)) || op.regions().iter().any(|(_, region)| is_quantized(region))
    })
}

/// Carries integers through what moves them, in nested graphs too.
fn carry_all(graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
    edit_branches(NAME, graph, &mut |branch| {
        let before = report.applied.len();
        carry_all(branch, cx, report)?;
        Ok(report.applied.len() > before)
    })?;
    let mut names = taken_names(graph);
    carry(graph, &mut names, cx, report).map_err(|error| PassError::Graph { pass: NAME, error })?;
    graph.refresh().map_err(|error| PassError::Graph { pass: NAME, error })
}

/// What a `DequantizeLinear` reads.
struct Quantized {
    integers: Value,
    scale: Value,
    zero: Value,
}

/// The operand of a `DequantizeLinear` of bytes by constants: one for the tensor, or one for each step along `axis`.
fn dequantized(rewriter: &mut Rewriter<'_>, value: Value, axis: Option<usize>) -> Result<Quantized, Skip> {
    let node = rewriter.node(value);
    let Op::DequantizeLinear(op) = &node.op else { return Err(Skip::NoMatch) };
    let name = node.name.clone();
    let (block_size, along) = (op.block_size, op.axis);
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let (Some(integers), Some(scale), zero) = (operand(0), operand(1), operand(2)) else {
        return Err(Skip::NoMatch);
    };
    let (dtype, rank) = (rewriter.fact(integers).dtype(), rewriter.fact(integers).rank());
    let Some(scales) = rewriter.graph().constant(scale).cloned() else {
        return Err(Skip::because(format!("the scale of `{name}` is not constant")));
    };
    let along = if along < 0 { along + rank as i64 } else { along };
    let fits = scales.len() == 1 || axis.is_some_and(|axis| along == axis as i64 && scales.rank() == 1);
    let is_byte = matches!(dtype, DType::I8 | DType::U8);
    if !is_byte || block_size > 0 || !fits || scales.dtype() != DType::F32 {
        return Err(Skip::because(format!("`{name}` is of {dtype} with scales {:?}", scales.shape())));
    }
    if scales.to_f64s().iter().any(|s| !(s.is_normal() && *s > 0.0)) {
        return Err(Skip::because(format!("a scale of `{name}` is not a positive number")));
    }
    let zero = match zero {
        Some(zero) if rewriter.graph().constant(zero).is_some() => zero,
        Some(_) => return Err(Skip::because(format!("the zero point of `{name}` is not constant"))),
        None => {
            let zeros = vec![0; scales.len()];
            rewriter.constant(Tensor::from_i64s(dtype, scales.shape(), &zeros), "zero")
        }
    };
    Ok(Quantized { integers, scale, zero })
}

/// A convolution or a product of integers in the place of the whole match.
fn layer(rewriter: &mut Rewriter<'_>, found: &Match, relu: bool) -> Result<Value, Skip> {
    let root = Value { node: found.root, slot: 0 };
    let dtype = rewriter.fact(root).dtype();
    let scale = rewriter.value(found, "scale")?;
    let scales = rewriter.tensor(found, "scale")?;
    if scales.len() != 1 || scales.dtype() != DType::F32 || !matches!(dtype, DType::I8 | DType::U8) {
        return Err(Skip::because(format!("the result is of {dtype} with scales {:?}", scales.shape())));
    }
    let zero = match found.get("zero") {
        Some(zero) => zero,
        None => rewriter.constant(Tensor::from_i64s(dtype, scales.shape(), &[0]), "zero"),
    };
    let lowest = dtype.int_range().map(|range| range.0);
    let zero_point =
        rewriter.graph().constant(zero).and_then(|t| t.to_i64s().first().copied()).map(i128::from);
    if relu && zero_point != lowest {
        return Err(Skip::because("0 is not the lowest integer of the result, so saturation is no Relu"));
    }
    let op = rewriter.node(rewriter.value(found, "layer")?).op.clone();
    let is_conv = matches!(op, Op::Conv(_));
    let x = dequantized(rewriter, rewriter.value(found, "x")?, None)?;
    let (w, transposed) = (rewriter.value(found, "w")?, matches!(&op, Op::Gemm(op) if op.trans_b));
    let rank = rewriter.fact(w).rank();
    let channels = if is_conv || transposed { 0 } else { rank.saturating_sub(1) };
    let mut w = dequantized(rewriter, w, Some(channels))?;
    let new = match op {
        Op::Conv(op) => Op::QLinearConv(QLinearConv { window: op.window, group: op.group }),
        Op::Gemm(op) => {
            check_factors(&op)?;
            Op::QLinearMatMul(QLinearMatMul)
        }
        _ => Op::QLinearMatMul(QLinearMatMul),
    };
    if transposed {
        w.integers = transpose(rewriter, w.integers)?;
    }
    let mut operands: Vec<Option<Value>> =
        [x.integers, x.scale, x.zero, w.integers, w.scale, w.zero, scale, zero].map(Some).to_vec();
    if let Some(b) = found.get("b") {
        let axis = if is_conv { 0 } else { rank.saturating_sub(1) };
        operands.push(Some(bias(rewriter, b, &x, &w, axis)?));
    }
    rewriter.add(new, operands, "integers")
}

fn check_factors(op: &Gemm) -> Result<(), Skip> {
    if op.alpha == 1.0 && op.beta == 1.0 && !op.trans_a {
        return Ok(());
    }
    Err(Skip::because(format!(
        "a Gemm with alpha = {}, beta = {}, transA = {} has no form on integers",
        op.alpha,
        op.beta,
        i32::from(op.trans_a)
    )))
}

/// A constant matrix, transposed.
fn transpose(rewriter: &mut Rewriter<'_>, matrix: Value) -> Result<Value, Skip> {
    let tensor = rewriter.graph().constant(matrix).cloned();
    let tensor = tensor.ok_or_else(|| Skip::because("its second operand is transposed and not constant"))?;
    let [rows, columns] = tensor.shape()[..] else { return Err(Skip::NoMatch) };
    let values = tensor.to_i64s();
    let turned: Vec<i64> = (0..values.len()).map(|at| values[at % rows * columns + at / rows]).collect();
    Ok(rewriter.constant(Tensor::from_i64s(tensor.dtype(), &[columns, rows], &turned), "weights"))
}

/// The bias in units of `x_scale · w_scale`: as it is where it is given so, else rounded to them.
fn bias(
    rewriter: &mut Rewriter<'_>,
    b: Value,
    x: &Quantized,
    w: &Quantized,
    axis: usize,
) -> Result<Value, Skip> {
    let constant = |rewriter: &Rewriter<'_>, value: Value| rewriter.graph().constant(value).cloned();
    let x_scale =
        constant(rewriter, x.scale).and_then(|t| t.to_f64s().first().copied()).ok_or(Skip::NoMatch)?;
    let w_scales = constant(rewriter, w.scale).ok_or(Skip::NoMatch)?.to_f64s();
    let shape = rewriter.fact(w.integers).shape().to_vec();
    let channels = shape.get(axis).and_then(rabot_ir::Dim::as_usize).ok_or(Skip::NoMatch)?;
    let unit = |at: usize| x_scale * if w_scales.len() == 1 { w_scales[0] } else { w_scales[at] };
    let node = rewriter.node(b).clone();
    let values: Vec<f64> = match &node.op {
        Op::DequantizeLinear(op) => {
            let operands: Option<Vec<&Tensor>> =
                node.inputs.iter().flatten().map(|&v| rewriter.graph().constant(v)).collect();
            let operands = operands.ok_or_else(|| Skip::because("its bias is not constant"))?;
            let operands: Vec<Option<&Tensor>> = operands.into_iter().map(Some).collect();
            let result = Op::DequantizeLinear(op.clone()).eval(&operands);
            result.ok().and_then(|mut t| t.pop()).ok_or(Skip::NoMatch)?.to_f64s()
        }
        _ => constant(rewriter, b).ok_or_else(|| Skip::because("its bias is not constant"))?.to_f64s(),
    };
    let shape = rewriter.fact(b).shape();
    let along_channels = shape.last().is_none_or(|last| last.is(1) || last.as_usize() == Some(channels));
    if values.len() != 1 && (values.len() != channels || !along_channels)
        || shape.len() > 1 && values.len() != channels
    {
        return Err(Skip::because(format!(
            "its bias {shape:?} is not one value for each of {channels} channels"
        )));
    }
    let mut integers = Vec::with_capacity(channels);
    for at in 0..channels {
        let steps = (values[if values.len() == 1 { 0 } else { at }] / unit(at)).round_ties_even();
        // Half the range is left to the sum of products.
        if !steps.is_finite() || steps.abs() > f64::from(1 << 30) {
            return Err(Skip::because(format!("a bias of {steps} steps does not fit an i32")));
        }
        integers.push(steps as i32);
    }
    Ok(rewriter.constant(Tensor::from_vec(&[channels], integers), "bias"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::interp;
    use rabot_ir::text::parse;
    use rabot_rewrite::PassCx;

    /// Ops left of a graph, and how far outputs, which are integers, are from those before.
    fn converted(text: &str) -> (Vec<&'static str>, f64) {
        let mut graph = parse(text).unwrap();
        let inputs = crate::check::random_inputs(&graph, 1);
        let before = interp::run(&graph, &inputs).unwrap();
        Qdq.run(&mut graph, &PassCx::default()).unwrap();
        let after = interp::run(&graph, &inputs).unwrap();
        let (a, b) = (before["y"].to_f64s(), after["y"].to_f64s());
        let error = a.iter().zip(&b).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
        let ops = graph.topological().unwrap().into_iter().map(|id| graph.node(id).op.name());
        (ops.filter(|name| !matches!(*name, "Input" | "Constant")).collect(), error)
    }

    #[test]
    fn header_example() {
        let header: String = include_str!("qdq.rs")
            .lines()
            .filter_map(|line| line.strip_prefix("//! "))
            .map(|l| format!("{l}\n"))
            .collect();
        let (before, rest) = header.split_once("; becomes\n").unwrap();
        let before = &before[before.find("model").unwrap()..];
        let after = &rest[..rest.find("```").unwrap()];
        let (ops, error) = converted(before);
        let expected = parse(after).unwrap();
        let expected =
            expected.topological().unwrap().into_iter().map(|id| expected.node(id).op.name().to_owned());
        let expected: Vec<String> = expected.filter(|name| name != "Input" && name != "Constant").collect();
        assert_eq!(ops, expected);
        assert!(error <= 1.0, "{error}");
    }

    #[test]
    fn convolution_with_bias_pool_and_concat_stays_in_integers() {
        let text = r#"model "g"
            input %0 "x" : i8[1,4,6,6]
            %1 = Constant [0.02] : f32[]
            %2 = Constant [3] : i8[]
            %3 = DequantizeLinear(%0, %1, %2)
            %4 = Constant rand(1, -90, 90) : i8[3,4,3,3]
            %5 = Constant [0.01, 0.02, 0.03] : f32[3]
            %6 = Constant [0, 0, 0] : i8[3]
            %7 = DequantizeLinear(%4, %5, %6) {axis=0}
            %8 = Constant [100, -200, 300] : i32[3]
            %9 = Constant [0.0002, 0.0004, 0.0006] : f32[3]
            %10 = DequantizeLinear(%8, %9) {axis=0}
            %11 = Conv(%3, %7, %10)
            %12 = Relu(%11)
            %13 = Constant [0.01] : f32[]
            %14 = Constant [0] : u8[]
            %15 = QuantizeLinear(%12, %13, %14)
            %16 = DequantizeLinear(%15, %13, %14)
            %17 = MaxPool(%16) {kernel_shape=[2,2]}
            %18 = QuantizeLinear(%17, %13, %14)
            output "y" = %18"#;
        let (ops, error) = converted(text);
        assert_eq!(ops, ["QLinearConv", "MaxPool"]);
        assert!(error <= 1.0, "{error}");
    }

    #[test]
    fn gemm_with_transposed_weights() {
        let text = r#"model "g"
            input %0 "x" : i8[n,4]
            %1 = Constant [0.02] : f32[]
            %2 = Constant [3] : i8[]
            %3 = DequantizeLinear(%0, %1, %2)
            %4 = Constant rand(1, -90, 90) : i8[3,4]
            %5 = Constant [0.01] : f32[]
            %7 = DequantizeLinear(%4, %5)
            %8 = Constant [0.5, -0.25, 0.125] : f32[3]
            %11 = Gemm(%3, %7, %8) {transB=1}
            %13 = Constant [0.05] : f32[]
            %14 = Constant [1] : i8[]
            %15 = QuantizeLinear(%11, %13, %14)
            output "y" = %15"#;
        let (ops, error) = converted(text);
        assert_eq!(ops, ["QLinearMatMul"]);
        assert!(error <= 1.0, "{error}");
    }

    #[test]
    fn a_relu_whose_zero_is_not_the_lowest_integer_stays() {
        let text = r#"model "g"
            input %0 "x" : i8[n,4]
            %1 = Constant [0.02] : f32[]
            %2 = Constant [3] : i8[]
            %3 = DequantizeLinear(%0, %1, %2)
            %4 = Constant rand(1, -90, 90) : i8[4,3]
            %5 = Constant [0.01] : f32[]
            %7 = DequantizeLinear(%4, %5)
            %11 = MatMul(%3, %7)
            %12 = Relu(%11)
            %13 = Constant [0.05] : f32[]
            %14 = Constant [1] : i8[]
            %15 = QuantizeLinear(%12, %13, %14)
            output "y" = %15"#;
        let (ops, error) = converted(text);
        assert!(ops.contains(&"Relu") && error == 0.0);
    }
}
