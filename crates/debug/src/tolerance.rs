//! How far rounding can move a value, derived from the graph that computes it.
//!
//! Two evaluations of one graph differ in the order of sums, in fused multiply-adds and in how exponentials are
//! approximated. Each rounding of a dtype with unit roundoff u (2⁻²⁴ for f32) is off by a factor of at most 1 ± u,
//! and roundings on a path from the inputs to a value add up as a random walk:
//!
//! ```text
//! variance(value)  =  max over operands variance(operand)  +  k · u²
//! tolerance(value) =  16 · sqrt(variance(value))        of max |value|
//! ```
//!
//! where k is the number of roundings of an element of the result: the number of products that are summed for
//! convolutions and matrix products, of elements for reductions, 8 for functions that are approximated, 1 for other
//! arithmetic, 0 where elements are only moved. A resized axis of n elements adds n² where its coordinates round: a
//! coordinate up to n is off by n · u elements then, and neighbours differ by about the largest. Sums of floats narrower than f32 are taken in f32, and the result is
//! rounded once to its own dtype. `QuantizeLinear` adds one step of its integers, 1 / 2^(bits − 1), since rounding
//! upstream can flip an integer to its neighbour; operators on those integers add nothing, for they are exact.
//!
//! The factor 16 is for conditioning: how much smaller a result is than the terms it was summed from. Where a model
//! is worse conditioned than that, the factor is four times the amplification that is measured: the graph is evaluated
//! again with every element of the float inputs off by a factor of 1 ± 2⁻¹⁸, signs at random, and the amplification of
//! a value is how far it moved, relative to its largest magnitude, over 2⁻¹⁸. It applies to roundings, not to integer
//! steps. A wrong kernel in a well-conditioned model is not excused by it.
//!
//! For the outputs of a graph, roundings inside it are measured too (`measured`): their tolerance is at least four times
//! the deviation that is found so.
//!
//! **Source**: N. J. Higham, T. Mary, "A New Approach to Probabilistic Rounding Error Analysis", 2019,
//! <https://doi.org/10.1137/18M1226312>: √k · u in the place of k · u.

use crate::{DebugError, Difference, Tensors};
use rabot_ir::ops::{If, PoolKind, ReduceOp, Resize, UnaryOp};
use rabot_ir::text::SplitMix64;
use rabot_ir::{Graph, GraphError, GraphOutput, Node, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{BTreeMap, HashMap};

mod measured;

/// Factor for conditioning.
pub const CONDITIONING: f64 = 16.0;

/// Factor for what is measured, an amplification or a deviation: one set of signs need not be the worst.
const AMPLIFIED: f64 = 4.0;

/// How far inputs are moved to measure amplification: far more than roundings move values.
const PERTURBATION: f64 = 1.0 / (1u64 << 18) as f64;

/// Roundings that an approximated function counts for.
const FUNCTION: f64 = 8.0;

/// Fraction of the elements of a decision (a comparison, an index, a cast to integers) that rounding may flip.
const FLIPS: f64 = 0.01;

/// Unit roundoff of f32, in which `roundings` are told.
const F32: f64 = 1.0 / (1u64 << 24) as f64;

/// How far a value may be off.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Tolerance {
    /// Sum of the squares of the relative errors of roundings, on the path with the largest variance.
    rounding: f64,
    /// The same of integers that flip to their neighbours.
    steps: f64,
    /// How much errors of the inputs are amplified on the way; 0 where it was not measured.
    amplification: f64,
    /// Deviation by the roundings of all nodes, relative to the largest element; 0 where it was not measured.
    deviation: f64,
}

/// What a difference is, measured by a tolerance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// No element differs.
    Equal,
    /// Off by no more than rounding explains.
    Within,
    /// Some integers or booleans are others, as rounding upstream explains.
    Flipped,
    /// Off by more.
    Exceeds,
}

impl Verdict {
    /// The word for it in tables.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Equal => "equal",
            Verdict::Within => "within",
            Verdict::Flipped => "flipped",
            Verdict::Exceeds => "EXCEEDS",
        }
    }
}

impl Tolerance {
    /// Largest |a − b| / max |b|; 0 if nothing upstream is rounded.
    pub fn relative(self) -> f64 {
        self.derived().max(AMPLIFIED * self.deviation)
    }

    fn derived(self) -> f64 {
        (self.factor().powi(2) * self.rounding + CONDITIONING.powi(2) * self.steps).sqrt()
    }

    /// The same where errors of the inputs are amplified so much.
    pub fn amplified(self, amplification: f64) -> Tolerance {
        // What is no number says nothing.
        Tolerance { amplification: if amplification.is_finite() { amplification } else { 0.0 }, ..self }
    }

    fn factor(self) -> f64 {
        CONDITIONING.max(AMPLIFIED * self.amplification)
    }

    fn variance(self) -> f64 {
        self.rounding + self.steps
    }

    /// The larger of two.
    pub(crate) fn or(self, other: Tolerance) -> Tolerance {
        if other.variance() > self.variance() { other } else { self }
    }

    fn and(self, other: Tolerance) -> Tolerance {
        Tolerance { rounding: self.rounding + other.rounding, steps: self.steps + other.steps, ..self }
    }

    /// Why it is what it is, in words.
    pub fn reason(self) -> String {
        if self.variance() == 0.0 {
            return "nothing is rounded on the way: equal".to_owned();
        }
        if AMPLIFIED * self.deviation > self.derived() {
            return format!(
                "{AMPLIFIED} * {:.2e}, which the roundings of all nodes were measured to add up to",
                self.deviation
            );
        }
        let roundings = self.rounding / (F32 * F32);
        let factor = if self.factor() > CONDITIONING {
            format!("{:.0} (the model amplifies errors {:.0} times)", self.factor(), self.amplification)
        } else {
            CONDITIONING.to_string()
        };
        let rounded = format!("{factor} * sqrt({roundings:.0} roundings of f32 on the longest path) * 2^-24");
        if self.steps == 0.0 {
            return rounded;
        }
        let steps = CONDITIONING * self.steps.sqrt();
        format!("root of the squares of {rounded} and {steps:.2e} for integers of QuantizeLinear that flip")
    }

    /// Judges a difference of tensors of this dtype.
    pub fn judge(self, dtype: DType, difference: &Difference) -> Verdict {
        if difference.is_equal() {
            return Verdict::Equal;
        }
        if self.variance() == 0.0 || difference.max_abs.is_infinite() {
            return Verdict::Exceeds;
        }
        if dtype.is_float() {
            let within = difference.max_abs <= self.relative() * difference.max_reference;
            return if within { Verdict::Within } else { Verdict::Exceeds };
        }
        let few = difference.differing as f64 <= (difference.elements as f64 * FLIPS).max(1.0);
        let near = dtype != DType::Bool
            && difference.max_abs <= (self.relative() * difference.max_reference).max(1.0);
        if few || near { Verdict::Flipped } else { Verdict::Exceeds }
    }
}

/// Inputs with the elements of f32 and f64 tensors moved by a factor of 1 ± 2⁻¹⁸; `None` if there are none.
pub(crate) fn perturbed(inputs: &Tensors) -> Option<Tensors> {
    let mut random = SplitMix64::new(1);
    let mut any = false;
    let mut moved = |tensor: &Tensor| {
        if !matches!(tensor.dtype(), DType::F32 | DType::F64) {
            return tensor.clone();
        }
        any = true;
        let sign = |random: &mut SplitMix64| if random.below(2) == 0 { -PERTURBATION } else { PERTURBATION };
        let values: Vec<f64> = tensor.to_f64s().iter().map(|v| v * (1.0 + sign(&mut random))).collect();
        Tensor::from_f64s(tensor.dtype(), tensor.shape(), &values)
    };
    let inputs = inputs.iter().map(|(name, tensor)| (name.clone(), moved(tensor))).collect();
    any.then_some(inputs)
}

/// Amplification of a value that perturbed inputs moved by so much.
pub(crate) fn amplification_of(moved: &Difference) -> f64 {
    moved.relative / PERTURBATION
}

/// How far rounding can move each output of a graph on these inputs, by name. The graph is evaluated, and evaluated
/// again on perturbed inputs, and with larger roundings.
///
/// **Errors**: the graph cannot be evaluated on the inputs.
pub fn for_outputs(graph: &Graph, inputs: &Tensors) -> Result<BTreeMap<String, Tolerance>, DebugError> {
    let measured = measured::measure(graph, inputs)?;
    let derived = derive(graph, &measured.shapes)?;
    let output = |output: &GraphOutput| {
        let amplification = measured.amplification.get(&*output.name).copied().unwrap_or(0.0);
        let tolerance = derived.get(&output.value).copied().unwrap_or_default().amplified(amplification);
        let deviation = measured.deviations.get(&*output.name).copied().unwrap_or(0.0);
        (output.name.to_string(), Tolerance { deviation, ..tolerance })
    };
    Ok(graph.outputs().iter().map(output).collect())
}

/// The tolerances of all values of a graph. `shapes` are those of a run; where one is missing, dims that are not
/// constant count as 1.
///
/// **Errors**: the graph has a cycle.
pub fn derive(
    graph: &Graph,
    shapes: &HashMap<Value, Vec<usize>>,
) -> Result<HashMap<Value, Tolerance>, GraphError> {
    derive_from(graph, shapes, &[])
}

/// As [`derive`], where the inputs carry errors themselves.
fn derive_from(
    graph: &Graph,
    shapes: &HashMap<Value, Vec<usize>>,
    inputs: &[Tolerance],
) -> Result<HashMap<Value, Tolerance>, GraphError> {
    let mut found: HashMap<Value, Tolerance> = HashMap::new();
    for id in graph.topological()? {
        let node = graph.node(id);
        let carried = |v: &Option<Value>| v.and_then(|v| found.get(&v)).copied().unwrap_or_default();
        let carried: Vec<Tolerance> = node.inputs.iter().map(carried).collect();
        let own = if matches!(node.op, Op::Input) {
            position(graph, id).and_then(|at| inputs.get(at)).copied().unwrap_or_default()
        } else {
            carried.iter().copied().fold(Tolerance::default(), Tolerance::or)
        };
        for slot in 0..node.outputs.len() {
            let value = Value { node: id, slot: slot as u32 };
            let added = match &node.op {
                Op::If(op) => branches(op, slot, &carried)?,
                _ => added(graph, node, value, shapes),
            };
            // Only shapes of its operand matter to it, and those are exact.
            let exact =
                graph.constant(value).is_some() || matches!(node.op, Op::Shape(_) | Op::ConstantOfShape(_));
            found.insert(value, if exact { Tolerance::default() } else { own.and(added) });
        }
    }
    Ok(found)
}

fn position(graph: &Graph, id: NodeId) -> Option<usize> {
    graph.inputs().iter().position(|&input| input == id)
}

/// What a node that is no conditional adds to one of its outputs.
fn added(graph: &Graph, node: &Node, value: Value, shapes: &HashMap<Value, Vec<usize>>) -> Tolerance {
    let dtype = graph.fact(value).dtype();
    let shape = |value: Value| match shapes.get(&value) {
        Some(shape) => shape.clone(),
        None => graph.fact(value).shape().iter().map(|dim| dim.as_usize().unwrap_or(1)).collect(),
    };
    match node.op {
        Op::QuantizeLinear(_) => Tolerance { steps: integer_step(dtype), ..Tolerance::default() },
        _ => {
            let rounding = rounding(dtype, roundings(node, &shape, value));
            Tolerance { rounding, ..Tolerance::default() }
        }
    }
}

/// What the branches of a conditional add up to at one of its outputs; `carried` are those of its operands.
fn branches(op: &If, slot: usize, carried: &[Tolerance]) -> Result<Tolerance, GraphError> {
    let captured = carried.get(1..).unwrap_or(&[]);
    let mut worst = Tolerance::default();
    for branch in [&op.then_branch, &op.else_branch] {
        let inner = derive_from(branch, &HashMap::new(), captured)?;
        let output = branch.outputs().get(slot).and_then(|output| inner.get(&output.value));
        worst = worst.or(output.copied().unwrap_or_default());
    }
    Ok(worst)
}

/// Variance that `count` roundings add; integers are exact.
fn rounding(dtype: DType, count: f64) -> f64 {
    let own = match dtype {
        DType::F32 => F32,
        DType::F64 => 2f64.powi(-53),
        DType::F16 => 2f64.powi(-11),
        DType::BF16 => 2f64.powi(-8),
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F6E2M3 => 2f64.powi(-4),
        DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F6E3M2 => 2f64.powi(-3),
        DType::F4E2M1 => 2f64.powi(-2),
        DType::F8E8M0 => 0.5,
        // Only moved.
        DType::C64 | DType::C128 => return 0.0,
        DType::I2 | DType::I4 | DType::I8 | DType::I16 | DType::I32 | DType::I64 => return 0.0,
        DType::U2 | DType::U4 | DType::U8 | DType::U16 | DType::U32 | DType::U64 => return 0.0,
        DType::Bool | DType::String => return 0.0,
    };
    let last = if own > F32 && count > 0.0 { own * own } else { 0.0 };
    count * own.min(F32).powi(2) + last
}

/// Variance that a flip to the neighbouring integer adds, so that the tolerance grows by that step.
fn integer_step(dtype: DType) -> f64 {
    let bits = match dtype {
        DType::I2 | DType::U2 | DType::F8E8M0 => 2,
        DType::I4 | DType::U4 => 4,
        DType::I16 | DType::U16 => 16,
        DType::F8E4M3FN | DType::F8E4M3FNUZ | DType::F6E2M3 => 5,
        DType::F8E5M2 | DType::F8E5M2FNUZ | DType::F6E3M2 => 4,
        DType::F4E2M1 => 3,
        _ => 8,
    };
    (2f64.powi(1 - bits) / CONDITIONING).powi(2)
}

/// Roundings of one element of a result.
fn roundings(node: &Node, shape: &dyn Fn(Value) -> Vec<usize>, output: Value) -> f64 {
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten().map(shape).unwrap_or_default();
    let product = |dims: &[usize]| dims.iter().product::<usize>() as f64;
    let tail = |shape: &[usize], from: usize| product(shape.get(from..).unwrap_or(&[]));
    let axis =
        |axis: i64, rank: usize| if axis < 0 { (axis + rank as i64).max(0) as usize } else { axis as usize };
    // Elements of the operand for each one of the result.
    let reduced = || (product(&operand(0)) / product(&shape(output)).max(1.0)).max(1.0);
    match &node.op {
        Op::Conv(_) => tail(&operand(1), 1) + 1.0,
        Op::ConvTranspose(_) => {
            let weights = operand(1);
            product(&weights) / weights.get(1).copied().unwrap_or(1).max(1) as f64 + 1.0
        }
        Op::MatMul(_) => operand(0).last().map_or(1.0, |&k| k as f64),
        Op::Gemm(op) => operand(0).get(usize::from(!op.trans_a)).map_or(1.0, |&k| k as f64) + 2.0,
        Op::Reduce(op) => match op.op {
            ReduceOp::Max | ReduceOp::Min => 0.0,
            _ => reduced() + FUNCTION,
        },
        Op::Softmax(op) => {
            let shape = operand(0);
            shape.get(axis(op.axis, shape.len())).map_or(1.0, |&n| n as f64) + 2.0 * FUNCTION
        }
        Op::LayerNormalization(op) => {
            let shape = operand(0);
            2.0 * tail(&shape, axis(op.axis, shape.len())) + FUNCTION
        }
        Op::DeformConv(_) => tail(&operand(1), 1) + 2.0 * FUNCTION,
        // Along an axis or over a sequence, at most as long as the longest.
        Op::Cumulate(_) | Op::Dft(_) | Op::Stft(_) | Op::LinearAttention(_) => {
            operand(0).iter().copied().max().unwrap_or(1) as f64 + 2.0 * FUNCTION
        }
        Op::LpPool(op) => product(&op.window.kernel_shape) + 2.0 * FUNCTION,
        Op::Lrn(op) => op.size as f64 + 2.0 * FUNCTION,
        Op::Pool(op) => match op.kind {
            PoolKind::Max => 0.0,
            PoolKind::Average => product(&op.window.kernel_shape) + 1.0,
        },
        Op::GlobalPool(op) => match op.kind {
            PoolKind::Max => 0.0,
            PoolKind::Average => reduced() + 1.0,
        },
        Op::BatchNormalization(_) => FUNCTION,
        Op::Resize(op) => FUNCTION + coordinates(op, &operand(0), &shape(output)),
        Op::Unary(op) if is_exact(&op.op) => 0.0,
        Op::Unary(_) => FUNCTION,
        Op::Binary(_) | Op::Variadic(_) => node.inputs.len().saturating_sub(1) as f64,
        Op::Cast(_) | Op::Range(_) | Op::DequantizeLinear(_) => 1.0,
        Op::QLinearConv(_) | Op::QLinearMatMul(_) | Op::ArgReduce(_) | Op::QuantizeLinear(_) => 0.0,
        Op::Input | Op::Constant(_) | Op::If(_) | Op::Identity(_) | Op::Reshape(_) | Op::Flatten(_) => 0.0,
        Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Expand(_) | Op::Transpose(_) | Op::Shape(_) => 0.0,
        Op::Slice(_) | Op::Split(_) | Op::Concat(_) | Op::Pad(_) | Op::Gather(_) => 0.0,
        Op::ConstantOfShape(_) | Op::Where(_) | Op::Clip(_) => 0.0,
        Op::ConvInteger(_) | Op::MatMulInteger(_) | Op::BitCast(_) => 0.0,
        _ => FUNCTION,
    }
}

/// True for functions whose results are numbers of the dtype as they are.
fn is_exact(op: &UnaryOp) -> bool {
    let signs = matches!(op, UnaryOp::Abs | UnaryOp::Neg | UnaryOp::Relu | UnaryOp::Sign | UnaryOp::Not);
    let steps = matches!(op, UnaryOp::Round | UnaryOp::Floor | UnaryOp::Ceil);
    signs || steps || matches!(op, UnaryOp::ThresholdedRelu { .. })
}

/// What rounding the coordinates of a resized tensor counts for; those of powers of two, and nearest ones, are exact.
fn coordinates(op: &Resize, from: &[usize], to: &[usize]) -> f64 {
    if op.mode == "nearest" {
        return 0.0;
    }
    let steps_back = matches!(op.coordinate_mode.as_str(), "align_corners" | "tf_crop_and_resize");
    let rounds = |&(&n, &m): &(&usize, &usize)| {
        let (small, large) = (n.min(m).max(1), n.max(m));
        n != m && (steps_back || large % small != 0 || !(large / small).is_power_of_two())
    };
    from.iter().zip(to).filter(rounds).map(|(&n, _)| (n * n) as f64).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;

    fn of_output(text: &str) -> Tolerance {
        let graph = parse(text).unwrap();
        derive(&graph, &HashMap::new()).unwrap()[&graph.outputs()[0].value]
    }

    #[test]
    fn sums_count_their_terms_and_moves_nothing() {
        let product = of_output(
            "model \"m\" input %0 \"x\" : f32[2,64] input %1 \"w\" : f32[64,3]
             %2 = MatMul(%0, %1) %3 = Transpose(%2) %4 = Relu(%3) output \"y\" = %4",
        );
        assert_eq!(product.relative(), 16.0 * 8.0 / 16777216.0);
        let moved = of_output("model \"m\" input %0 \"x\" : f32[2,3] %1 = Transpose(%0) output \"y\" = %1");
        assert_eq!(moved.relative(), 0.0);
    }

    #[test]
    fn bad_conditioning_is_measured() {
        let graph = |by: &str| {
            let text = "model \"m\" input %0 \"x\" : f32[4] %1 = Constant [BY] : f32[1] \"c\"
                 %2 = Sub(%0, %1) output \"y\" = %2";
            parse(&text.replace("BY", by)).unwrap()
        };
        let inputs = Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&[4], vec![1000.5f32; 4]))]);
        let measured = |graph: &Graph| {
            let y = |inputs: &Tensors| rabot_ir::interp::run(graph, inputs).unwrap()["y"].clone();
            amplification_of(&Difference::of(&y(&perturbed(&inputs).unwrap()), &y(&inputs)).unwrap())
        };
        let (good, bad) = (measured(&graph("-1000.0")), measured(&graph("1000.0")));
        assert!(good < 1.0 && (1000.0..4000.0).contains(&bad), "{good} {bad}");
        let rounding = Tolerance { rounding: F32 * F32, ..Tolerance::default() };
        assert_eq!(rounding.amplified(good), Tolerance { amplification: good, ..rounding });
        assert_eq!(rounding.amplified(good).relative(), rounding.relative());
        assert!(rounding.amplified(bad).relative() > 200.0 * rounding.relative());
        let outputs = for_outputs(&graph("1000.0"), &inputs).unwrap();
        assert_eq!(outputs["y"].relative(), rounding.amplified(bad).relative());
        assert!(outputs["y"].reason().contains("amplifies errors"), "{}", outputs["y"].reason());
        let integers = Tensors::from_iter([("x".to_owned(), Tensor::scalar(1i64))]);
        assert!(perturbed(&integers).is_none());
    }

    fn of_run(text: &str, inputs: &[(&str, Tensor)]) -> Tolerance {
        let inputs = inputs.iter().map(|(name, tensor)| (name.to_string(), tensor.clone())).collect();
        for_outputs(&parse(text).unwrap(), &inputs).unwrap()["y"]
    }

    #[test]
    fn roundings_inside_a_graph_are_measured() {
        // The logarithm of what is nearly 1: errors of x do not matter, that of the tangent does.
        let chain = |x: f32| {
            let text = "model \"m\" input %0 \"x\" : f32[4] %1 = Tanh(%0) %2 = Log(%1) output \"y\" = %2";
            of_run(text, &[("x", Tensor::from_vec(&[4], vec![x; 4]))])
        };
        let (good, bad) = (chain(0.1), chain(4.0));
        assert_eq!(good.relative(), good.derived());
        // ln tanh 4 = -6.7e-4: roundings of 1 are 1 500 times as large.
        assert!(bad.relative() > 20.0 * bad.derived() && bad.relative() < 2e-2, "{bad:?}");
        assert!(bad.reason().contains("measured"), "{}", bad.reason());
        // A sum of constants that cancels; no input is amplified.
        let sum = of_run(
            "model \"m\" %0 = Constant [1000.0, -999.5, 0.25] : f32[3] \"c\"
             %1 = Constant [0] : i64[1] \"axes\" %2 = ReduceSum(%0, %1) output \"y\" = %2",
            &[],
        );
        assert!(sum.relative() > 10.0 * sum.derived(), "{sum:?}");
        // What is on the edge of a decision is no reason to allow steps.
        let steps =
            "model \"m\" input %0 \"x\" : f32[4] %1 = Exp(%0) %2 = Round(%1) %3 = Exp(%2) output \"y\" = %3";
        let steps = of_run(steps, &[("x", Tensor::from_vec(&[4], vec![0.405_465_1f32; 4]))]);
        assert_eq!(steps.relative(), steps.derived());
    }

    #[test]
    fn coordinates_that_round_count() {
        let resize = |mode: &str, scale: &str| {
            let text = format!(
                "model \"m\" input %0 \"x\" : f32[1,1,4,100]
                 %1 = Constant [1.0, 1.0, 1.0, {scale}] : f32[4] \"scales\"
                 %2 = Resize(%0, _, %1) {{mode=\"linear\", coordinate_transformation_mode=\"{mode}\"}}
                 output \"y\" = %2"
            );
            (of_output(&text).relative() * 16777216.0 / 16.0).powi(2).round()
        };
        assert_eq!(resize("half_pixel", "2.0"), 8.0);
        assert_eq!(resize("half_pixel", "3.0"), 10_008.0);
        assert_eq!(resize("align_corners", "2.0"), 10_008.0);
    }

    #[test]
    fn integers_are_equal_unless_rounding_upstream_can_flip_them() {
        let difference = |a: Vec<i64>, b: Vec<i64>| {
            let tensor = |v: Vec<i64>| Tensor::from_vec(&[v.len()], v);
            Difference::of(&tensor(a), &tensor(b)).unwrap()
        };
        let one_off = difference(vec![1, 2, 3], vec![1, 2, 7]);
        let exact = of_output("model \"m\" input %0 \"x\" : i64[3] %1 = Add(%0, %0) output \"y\" = %1");
        assert_eq!(exact.judge(DType::I64, &one_off), Verdict::Exceeds);
        let decided = of_output(
            "model \"m\" input %0 \"x\" : f32[3,9] %1 = Exp(%0) %2 = ArgMax(%1) {axis=1, keepdims=0}
             output \"y\" = %2",
        );
        assert_eq!(decided.judge(DType::I64, &one_off), Verdict::Flipped);
        assert_eq!(decided.judge(DType::I64, &difference(vec![9, 9, 9], vec![1, 2, 7])), Verdict::Exceeds);
    }
}
