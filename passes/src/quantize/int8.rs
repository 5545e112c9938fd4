//! `quantize`: static post-training quantization of layers to int8.
//!
//! Ranges of activations are those that calibration inputs show, smallest to largest, 0 included. Activations are
//! i8 with a scale and a zero point for the tensor, weights i8 with a scale for each output channel and no zero
//! point, biases i32 in units of x_scale · w_scale:
//!
//! ```text
//! Relu(Conv(x, w, b))  becomes  Dequantize(QLinearConv(Quantize(x), w8, b32))
//! ```
//!
//! A `Relu` is saturation: its range starts at 0, which the lowest integer stands for. Then integers are carried on
//! through pools and views to the next layer, so that a chain of layers converts at its ends only. What lies between
//! layers and is no layer, a residual sum say, computes in f32 between two conversions, which are elementwise and so
//! part of its kernel.

use super::calibrate::{Parameters, Range, observe};
use super::carry::carry;
use super::layers::{Classes, Layer, find};
use rabot_ir::interp::Tensors;
use rabot_ir::ops::{DequantizeLinear, QuantizeLinear};
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options, remove_dead, taken_names, unique_name,
};
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

const NAME: &str = "quantize";

const OPTIONS: &[OptionInfo] = &[
    OptionInfo {
        name: "scheme",
        default: "int8",
        summary: "int8: activations and weights in 8 bits, ranges from calibration inputs",
    },
    OptionInfo {
        name: "per",
        default: "channel",
        summary: "what has a weight scale of its own: each output channel, or the whole tensor",
    },
    OptionInfo {
        name: "samples",
        default: "128",
        summary: "calibration samples to look at, at least 1; input sets are not split",
    },
];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    if options.text("scheme") != "int8" {
        return Err(options.refuse("scheme"));
    }
    let per_channel = match options.text("per") {
        "channel" => true,
        "tensor" => false,
        _ => return Err(options.refuse("per")),
    };
    Ok(Box::new(Quantize { per_channel, samples: options.get_if("samples", |&count: &usize| count > 0)? }))
}

/// Quantizes convolutions and matrix products to int8.
#[derive(Clone, Debug)]
pub struct Quantize {
    /// A weight scale for each output channel, not one for the tensor.
    pub per_channel: bool,
    /// Calibration samples to look at.
    pub samples: usize,
}

impl Default for Quantize {
    fn default() -> Self {
        Quantize { per_channel: true, samples: 128 }
    }
}

impl Pass for Quantize {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "compute convolutions and matrix products in int8, calibrated on given inputs"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Changes("accuracy")
    }

    fn options(&self) -> String {
        let per = if self.per_channel { "channel" } else { "tensor" };
        let values = [("scheme", "int8".to_owned()), ("per", per.to_owned())];
        let values: Vec<_> = values.into_iter().chain([("samples", self.samples.to_string())]).collect();
        print_options(OPTIONS, &values)
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let error = |error| PassError::Graph { pass: NAME, error };
        let mut report = Report::default();
        skip_branches(graph, &mut report)?;
        let layers = find(graph, &mut report).map_err(error)?;
        if layers.is_empty() || cx.is_exhausted() {
            return Ok(report);
        }
        let sets = cx.calibration.filter(|sets| !sets.is_empty()).ok_or_else(|| {
            let reason = "the ranges of activations are not in the model; give some typical inputs with \
                          `--calibrate data.npz`, or a folder of such files (names as keys)";
            PassError::Calibration { pass: NAME, reason: reason.to_owned() }
        })?;
        let classes = Classes::new(graph, &layers).map_err(error)?;
        let ranges = || ranges(graph, &layers, sets, self.samples);
        let ranges = match cx.memo {
            Some(memo) => memo.get(&format!("{NAME} {} samples", self.samples), ranges)?,
            None => Rc::new(ranges()?),
        };
        let shared = shared_ranges(&layers, &classes, &ranges);
        let range = |value: Value| match classes.class(value) {
            Some(class) => shared[&class],
            None => ranges[&value],
        };
        let names = taken_names(graph);
        let mut rewriting =
            Rewriting { graph, names, per_channel: self.per_channel, quantized: HashMap::new() };
        for layer in &layers {
            let (x, y) = (range(layer.x), range(layer.output));
            let name = layer.name(rewriting.graph).to_owned();
            if x.not_finite + y.not_finite > 0 {
                let count = x.not_finite + y.not_finite;
                report.skip("int8", name, format!("{count} calibration values are infinite or no number"));
                continue;
            }
            if !cx.admits("int8", &name) {
                continue;
            }
            let detail = rewriting.layer(layer, x.parameters(), y.parameters()).map_err(error)?;
            report.apply("int8", name, detail);
        }
        let mut names = rewriting.names;
        graph.refresh().map_err(error)?;
        carry(graph, &mut names, cx, &mut report).map_err(error)?;
        graph.refresh().map_err(error)?;
        Ok(report)
    }
}

/// The ranges of what goes into layers and comes out, on calibration inputs.
fn ranges(
    graph: &Graph,
    layers: &[Layer],
    sets: &[Tensors],
    samples: usize,
) -> Result<HashMap<Value, Range>, PassError> {
    let values = layers.iter().flat_map(|layer| [layer.x, layer.output]);
    let mut ranges: HashMap<Value, Range> = values.map(|value| (value, Range::default())).collect();
    observe(NAME, graph, sets, samples, &mut ranges)?;
    Ok(ranges)
}

/// Layers inside of conditionals are not looked at: calibration sees only the branch that is taken.
fn skip_branches(graph: &mut Graph, report: &mut Report) -> Result<(), PassError> {
    edit_branches(NAME, graph, &mut |branch| {
        let mut inner = Report::default();
        let layers = find(branch, &mut inner).map_err(|error| PassError::Graph { pass: NAME, error })?;
        for layer in layers {
            report.skip("int8", layer.name(branch), "it is in a branch of a conditional");
        }
        report.extend(inner);
        Ok(false)
    })
}

/// What the layers of each class give, all together.
fn shared_ranges(
    layers: &[Layer],
    classes: &Classes,
    ranges: &HashMap<Value, Range>,
) -> HashMap<usize, Range> {
    let mut shared: HashMap<usize, Range> = HashMap::new();
    for layer in layers {
        if let Some(class) = classes.class(layer.output) {
            let range = shared.entry(class).or_default();
            *range = range.join(ranges[&layer.output]);
        }
    }
    shared
}

/// Puts integer layers in the place of the others.
struct Rewriting<'g> {
    graph: &'g mut Graph,
    names: HashSet<Arc<str>>,
    per_channel: bool,
    /// Quantized values, and their parameters as constants.
    quantized: HashMap<Value, [Value; 3]>,
}

impl Rewriting<'_> {
    fn layer(&mut self, layer: &Layer, x: Parameters, y: Parameters) -> Result<String, GraphError> {
        let old = self.graph.node(layer.node).clone();
        let last = self.graph.node(layer.output.node).clone();
        let mut sources: Vec<Arc<str>> = Vec::new();
        for source in layer.absorbed.iter().flat_map(|&id| self.graph.node(id).sources.clone()) {
            if !sources.contains(&source) {
                sources.push(source);
            }
        }
        let ops: Vec<&str> = layer.absorbed.iter().map(|&id| self.graph.node(id).op.name()).collect();
        // An earlier layer may have replaced the operand.
        let operand = old.inputs.first().copied().flatten().unwrap_or(layer.x);
        let [q, x_scale, x_zero] = self.quantize(operand, x, &sources)?;
        let integers = layer.integers(x, self.per_channel);
        let zeros = vec![0i8; integers.scales.len()];
        let w_zero =
            self.constant(&old.name, "w_zero_point", Tensor::from_vec(integers.scales.shape(), zeros));
        let w_scale = self.constant(&old.name, "w_scale", integers.scales);
        let w = self.constant(&old.name, "weights", integers.weights);
        let [y_scale, y_zero] = self.parameters(&old.name, y);
        let bias = integers.bias.map(|bias| self.constant(&old.name, "bias", bias));
        let mut inputs = [q, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero].map(Some).to_vec();
        inputs.extend(bias.map(Some));
        let integer = self.node(layer.op.clone(), inputs, &old.name, "int8", &sources)?;
        let op = Op::DequantizeLinear(DequantizeLinear { axis: 1, block_size: 0, output_dtype: None });
        let operands = vec![Some(integer), Some(y_scale), Some(y_zero)];
        let result = self.node(op, operands, &last.name, "dequantized", &sources)?;
        self.graph.replace_value(layer.output, result);
        remove_dead(self.graph, layer.output.node);
        self.graph.annotate(integer.node, |node| *node.name = old.name.clone());
        self.graph.annotate(result.node, |node| node.outputs[0].name = last.outputs[0].name.clone());
        Ok(format!(
            "{} → {}, x {:.3e} · (q − {}), y {:.3e} · (q − {})",
            ops.join(" + "),
            layer.op.name(),
            x.scale,
            x.zero,
            y.scale,
            y.zero
        ))
    }

    /// The value as integers, and their scale and zero point.
    fn quantize(
        &mut self,
        value: Value,
        parameters: Parameters,
        sources: &[Arc<str>],
    ) -> Result<[Value; 3], GraphError> {
        if let Some(&found) = self.quantized.get(&value) {
            return Ok(found);
        }
        let name = self.graph.value_name(value).clone();
        let [scale, zero] = self.parameters(&name, parameters);
        let op =
            QuantizeLinear { axis: 1, block_size: 0, saturate: true, output_dtype: None, precision: None };
        let inputs = vec![Some(value), Some(scale), Some(zero)];
        let quantized = self.node(Op::QuantizeLinear(op), inputs, &name, "quantized", sources)?;
        self.quantized.insert(value, [quantized, scale, zero]);
        Ok([quantized, scale, zero])
    }

    fn parameters(&mut self, base: &str, parameters: Parameters) -> [Value; 2] {
        let scale = self.constant(base, "scale", Tensor::scalar(parameters.scale));
        [scale, self.constant(base, "zero_point", Tensor::scalar(parameters.zero))]
    }

    fn constant(&mut self, base: &str, part: &str, tensor: Tensor) -> Value {
        let name = unique_name(&mut self.names, &format!("{base}/{part}"));
        self.graph.add_constant(&name, tensor)
    }

    fn node(
        &mut self,
        op: Op,
        inputs: Vec<Option<Value>>,
        base: &str,
        part: &str,
        sources: &[Arc<str>],
    ) -> Result<Value, GraphError> {
        let name = unique_name(&mut self.names, &format!("{base}/{part}"));
        let node: NodeId = self.graph.add_node(op, inputs, &name, sources.to_vec())?;
        Ok(Value { node, slot: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::interp::{self, Tensors};
    use rabot_ir::text::{parse, print, random_tensor};
    use rabot_ir::verify::verify;
    use rabot_tensor::DType;

    fn inputs(graph: &Graph, seed: u64) -> Tensors {
        crate::check::random_inputs(graph, seed)
    }

    /// Runs the pass; the result must be valid and near the original.
    fn quantize(pass: &Quantize, text: &str, tolerance: f64) -> (Graph, Report) {
        let before = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let sets: Vec<Tensors> = (0..4).map(|seed| inputs(&before, seed)).collect();
        let mut graph = before.clone();
        let report = pass.run(&mut graph, &PassCx { calibration: Some(&sets), ..PassCx::default() }).unwrap();
        verify(&graph).unwrap_or_else(|errors| panic!("{errors}\n{}", print(&graph)));
        for set in &sets {
            let (expected, actual) = (interp::run(&before, set).unwrap(), interp::run(&graph, set).unwrap());
            for (name, wanted) in &expected {
                let (wanted, got) = (wanted.to_f64s(), actual[name].to_f64s());
                let largest = wanted.iter().fold(0.0f64, |m, v| m.max(v.abs()));
                let worst = wanted.iter().zip(&got).fold(0.0f64, |m, (a, b)| m.max((a - b).abs()));
                assert!(worst <= tolerance * largest, "{name}: {worst} of {largest}\n{}", print(&graph));
            }
        }
        (graph, report)
    }

    fn ops(graph: &Graph) -> Vec<&'static str> {
        let order = graph.topological().unwrap();
        let nodes = order.into_iter().map(|id| &graph.node(id).op);
        nodes.filter(|op| !matches!(op, Op::Input | Op::Constant(_))).map(Op::name).collect()
    }

    const CHAIN: &str = r#"model "g"
        input %0 "x" : f32[n,3,8,8]
        %1 = Constant rand(1, -1.0, 1.0) : f32[8,3,3,3]
        %2 = Constant rand(2, -1.0, 1.0) : f32[8]
        %3 = Conv(%0, %1, %2) {pads=[1,1,1,1]} "c1"
        %4 = Relu(%3)
        %5 = MaxPool(%4) {kernel_shape=[2,2], strides=[2,2]}
        %6 = Constant rand(3, -1.0, 1.0) : f32[4,8,3,3]
        %7 = Conv(%5, %6) "c2"
        %8 = Constant [0.0] : f32[]
        %9 = Constant [6.0] : f32[]
        %10 = Clip(%7, %8, %9)
        %11 = Flatten(%10)
        %12 = Constant rand(4, -1.0, 1.0) : f32[10,16]
        %13 = Constant rand(5, -1.0, 1.0) : f32[10]
        %14 = Gemm(%11, %12, %13) {transB=1} "fc"
        output "y" = %14"#;

    #[test]
    fn a_chain_stays_in_integers_from_end_to_end() {
        let (graph, report) = quantize(&Quantize::default(), CHAIN, 0.05);
        let expected = [
            "QuantizeLinear",
            "QLinearConv",
            "MaxPool",
            "QLinearConv",
            "Flatten",
            "QLinearMatMul",
            "DequantizeLinear",
        ];
        assert_eq!(ops(&graph), expected);
        assert_eq!(report.applied.iter().filter(|a| a.rule == "int8").count(), 3);
        assert!(report.skipped.is_empty());
    }

    #[test]
    fn one_scale_for_all_channels_is_coarser() {
        let (graph, _) = quantize(&Quantize { per_channel: false, samples: 128 }, CHAIN, 0.1);
        let scales = graph.node_ids().filter(|&id| graph.node(id).name.ends_with("/w_scale"));
        assert!(scales.map(|id| graph.fact(Value { node: id, slot: 0 }).rank()).all(|rank| rank == 0));
    }

    #[test]
    fn a_residual_sum_is_between_two_conversions() {
        let (graph, report) = quantize(
            &Quantize::default(),
            r#"model "g"
            input %0 "x" : f32[n,4,6,6]
            %1 = Constant rand(1, -1.0, 1.0) : f32[4,4,3,3]
            %2 = Conv(%0, %1) {pads=[1,1,1,1]}
            %3 = Constant rand(2, -1.0, 1.0) : f32[4,4,3,3]
            %4 = Conv(%2, %3) {pads=[1,1,1,1]}
            %5 = Add(%4, %2)
            %6 = Relu(%5) "r"
            %7 = Constant rand(3, -1.0, 1.0) : f32[4,4,3,3]
            %8 = Conv(%6, %7)
            output "y" = %8"#,
            0.03,
        );
        let ops = ops(&graph);
        assert!(!ops.contains(&"Relu"), "{ops:?}");
        assert_eq!(ops.iter().filter(|op| **op == "QuantizeLinear").count(), 2);
        assert_eq!(ops.iter().filter(|op| **op == "DequantizeLinear").count(), 3);
        assert!(report.applied.iter().any(|a| a.rule == "relu-by-saturation" && a.node == "r"));
    }

    #[test]
    fn joined_results_share_a_scale() {
        let (graph, _) = quantize(
            &Quantize::default(),
            r#"model "g"
            input %0 "x" : f32[n,8]
            %1 = Constant rand(1, -1.0, 1.0) : f32[8,8]
            %2 = Constant rand(2, -1.0, 1.0) : f32[8]
            %3 = MatMul(%0, %1)
            %4 = Add(%3, %2)
            %5 = Constant rand(3, -2.0, 1.0) : f32[8,8]
            %6 = MatMul(%0, %5)
            %7 = Concat(%4, %6) {axis=1}
            %8 = Constant rand(4, -1.0, 1.0) : f32[16,8]
            %9 = MatMul(%7, %8)
            output "y" = %9"#,
            0.03,
        );
        let expected = [
            "QuantizeLinear",
            "QLinearMatMul",
            "QLinearMatMul",
            "Concat",
            "QLinearMatMul",
            "DequantizeLinear",
        ];
        assert_eq!(ops(&graph), expected);
    }

    #[test]
    fn what_stays_in_f32_says_why() {
        let (graph, report) = quantize(
            &Quantize::default(),
            r#"model "g"
            input %0 "x" : f32[n,8]
            input %1 "w" : f32[8,8]
            %2 = MatMul(%0, %1) "dynamic"
            %3 = Constant rand(1, -1.0, 1.0) : f32[8,2]
            %4 = MatMul(%2, %3) "tiny"
            output "y" = %4"#,
            0.0,
        );
        assert_eq!(ops(&graph), ["MatMul", "MatMul"]);
        let reasons: Vec<&str> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
        let tiny = "16 weights, fewer than 64: converting costs more than it gains";
        assert_eq!(reasons, ["its weights are not constant", tiny]);
    }

    #[test]
    fn a_bias_beyond_all_products_fits() {
        let (graph, _) = quantize(
            &Quantize::default(),
            r#"model "g"
            input %0 "x" : f32[n,8]
            %1 = Constant splat(0.0) : f32[8,8]
            %2 = Constant [1.0, -2.0, 0.5, 0.0, 1.0, 1.0, 1.0, 1.0] : f32[8]
            %3 = Gemm(%0, %1, %2)
            output "y" = %3"#,
            0.01,
        );
        assert!(ops(&graph).contains(&"QLinearMatMul"));
    }

    #[test]
    fn without_calibration_inputs_there_is_an_error() {
        let run = |calibration: Option<&[Tensors]>| {
            Quantize::default()
                .run(&mut parse(CHAIN).unwrap(), &PassCx { calibration, ..PassCx::default() })
                .unwrap_err()
        };
        assert!(run(None).to_string().contains("--calibrate"));
        assert!(run(Some(&[])).to_string().contains("--calibrate"));
        let wrong = random_tensor(DType::F32, &[1, 2], 1, 0.0, 1.0).unwrap();
        let sets = [Tensors::from([("x".to_owned(), wrong)])];
        assert!(matches!(run(Some(&sets)), PassError::Calibration { .. }));
    }
}
