//! `subpixel`: a transposed convolution becomes one of its smaller image, whose channels are the phases of the result.
//!
//! An output `q·s + p` of a transposed convolution by steps of `s` reads the taps `p`, `p + s`, … of its window and no
//! other. So each phase `p` is a convolution of the image as it is, without the zeros that its definition puts between
//! the elements, and the phases lie side by side in the result.
//!
//! **Source**: Shi et al., *Is the deconvolution layer the same as a convolutional layer?*
//! <https://arxiv.org/abs/1609.07009>.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,1,3]
//! %1 = Constant [1.0, 2.0] : f32[1,1,2]
//! %2 = ConvTranspose(%0, %1) {strides=[2]}
//! output "y" = %2
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,1,3]
//! %1 = Constant [1.0, 2.0] : f32[2,1,1]
//! %2 = Conv(%0, %1)
//! %3 = Constant [-1, 1, 2, 3] : i64[4]
//! %4 = Reshape(%2, %3) {allowzero=1}
//! %5 = Transpose(%4) {perm=[0,1,3,2]}
//! %6 = Constant [-1, 1, 6] : i64[3]
//! %7 = Reshape(%5, %6) {allowzero=1}
//! output "y" = %7
//! ```

use super::fusion::ROUNDED;
use rabot_ir::ops::{AutoPad, Binary, BinaryOp, Concat, Conv, Reshape, Shape, Slice, Transpose, Window};
use rabot_ir::{Dim, Graph, Op, Value};
use rabot_rewrite::{
    Exactness, Match, Pass, PassCx, PassError, PassInfo, PatternError, Report, Rewriter, RuleInfo, Rules,
    Skip, Valid,
};
use rabot_tensor::Tensor;
use std::sync::LazyLock;

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "subpixel", options: &[], make: |_| Ok(Box::new(Subpixel)) };

const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "phases",
        identity: "ConvTranspose(x, w) by steps of s = the s phases of Conv(x, every s-th tap of w), side by side",
        lhs: &["ConvTranspose(?x, #w, [?b])"],
        uses: &["x", "w", "b"],
        apply: |rewriter, found| phases(rewriter, found, false),
        valid: Valid::Always,
        ..ROUNDED
    },
    RuleInfo {
        name: "phases-of-fewer-taps",
        identity: "as `phases`, where zeros fill the windows of the phases that have fewer taps than others",
        lhs: &["ConvTranspose(?x, #w, [?b])"],
        uses: &["x", "w", "b"],
        apply: |rewriter, found| phases(rewriter, found, true),
        ..ROUNDED
    },
];

/// Makes convolutions of transposed ones.
#[derive(Clone, Debug)]
pub struct Subpixel;

impl Pass for Subpixel {
    fn name(&self) -> &'static str {
        "subpixel"
    }

    fn summary(&self) -> &'static str {
        "make transposed convolutions by steps convolutions of the image as it is, one for each phase of the result"
    }

    fn exactness(&self) -> Exactness {
        Exactness::of_rules(&self.rules())
    }

    fn rules(&self) -> Vec<RuleInfo> {
        RULES.to_vec()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        static FOUND: LazyLock<Result<Rules, PatternError>> = LazyLock::new(|| Rules::new(RULES));
        match &*FOUND {
            Ok(rules) => rules.run(self.name(), graph, cx),
            Err(error) => Err(PassError::Pattern { pass: self.name(), error: error.clone() }),
        }
    }
}

/// A spatial axis of a transposed convolution.
struct Axis {
    /// Phases.
    stride: usize,
    /// Taps of the window, and of that of a phase.
    taps: usize,
    phase_taps: usize,
    /// Elements that are cut from the phases side by side, before and after.
    cut: [i64; 2],
}

impl Axis {
    /// The tap of the window that a phase multiplies at a place of its own, mirrored window by.
    fn tap(&self, phase: usize, place: usize) -> Option<usize> {
        Some(phase + self.stride * (self.phase_taps - 1 - place)).filter(|tap| *tap < self.taps)
    }
}

fn phases(rewriter: &mut Rewriter<'_>, found: &Match, has_zeros: bool) -> Result<Value, Skip> {
    let root = Value { node: found.root, slot: 0 };
    let (x, weights) = (rewriter.value(found, "x")?, rewriter.tensor(found, "w")?);
    let Op::ConvTranspose(op) = &rewriter.node(root).op else { return Err(Skip::NoMatch) };
    let group = op.group.max(1);
    let image: Vec<Dim> = rewriter.fact(x).shape().get(2..).ok_or(Skip::NoMatch)?.to_vec();
    let taps = weights.shape().get(2..).ok_or(Skip::NoMatch)?;
    let geometry = op.window.transposed_geometry(&image, taps, &op.output_padding, &op.output_shape);
    let geometry = geometry.map_err(|_| Skip::NoMatch)?;
    if geometry.strides.iter().all(|stride| *stride == 1) {
        return Err(Skip::NoMatch);
    }
    if geometry.dilations.iter().any(|dilation| *dilation != 1) {
        return Err(Skip::because("the taps of the window are apart"));
    }
    let axes: Vec<Axis> = (0..taps.len())
        .map(|axis| {
            let (stride, taps) = (geometry.strides[axis], geometry.kernel[axis]);
            let phase_taps = taps.div_ceil(stride);
            let before = geometry.pads_begin[axis].as_const();
            let whole = (image[axis].clone() + Dim::from(phase_taps - 1)) * Dim::from(stride);
            let before = before.filter(|cut| *cut >= 0).ok_or(Skip::NoMatch)?;
            let after = whole - Dim::from(before) - geometry.output[axis].clone();
            let after = after.as_const().filter(|cut| *cut >= 0);
            let after = after.ok_or_else(|| Skip::because("the result is larger than its phases"))?;
            Ok(Axis { stride, taps, phase_taps, cut: [before, after] })
        })
        .collect::<Result<_, Skip>>()?;
    if axes.iter().any(|axis| !axis.taps.is_multiple_of(axis.stride)) != has_zeros {
        return Err(Skip::NoMatch);
    }
    let pads: Vec<i64> = axes.iter().chain(&axes).map(|axis| axis.phase_taps as i64 - 1).collect();
    let window = Window {
        pads: if pads.iter().all(|pad| *pad == 0) { vec![] } else { pads },
        kernel_shape: vec![],
        strides: vec![],
        dilations: vec![],
        auto_pad: AutoPad::NotSet,
    };
    let mut operands = vec![Some(x), Some(rewriter.constant(of_phases(&weights, group, &axes)?, "weights"))];
    let count: usize = axes.iter().map(|axis| axis.stride).product();
    if rewriter.node(root).inputs.get(2).is_some_and(Option::is_some) {
        let bias = rewriter.tensor(found, "b").map_err(|_| Skip::because("the bias is not constant"))?;
        let repeated: Vec<f64> =
            bias.to_f64s().into_iter().flat_map(|value| std::iter::repeat_n(value, count)).collect();
        let bias = Tensor::from_f64s(bias.dtype(), &[repeated.len()], &repeated);
        operands.push(Some(rewriter.constant(bias, "bias")));
    }
    let conv = rewriter.add(Op::Conv(Conv { window, group }), operands, "phases")?;
    let spread = side_by_side(rewriter, conv, &axes)?;
    cut(rewriter, spread, &axes)
}

/// Weights `[C, M/group, taps…]` of a transposed convolution as `[M·phases, C/group, taps of a phase…]`.
fn of_phases(weights: &Tensor, group: usize, axes: &[Axis]) -> Result<Tensor, Skip> {
    let &[channels, outputs, ..] = weights.shape() else { return Err(Skip::NoMatch) };
    let rows = channels / group;
    let (strides, places): (Vec<usize>, Vec<usize>) =
        axes.iter().map(|axis| (axis.stride, axis.phase_taps)).unzip();
    let taps: usize = axes.iter().map(|axis| axis.taps).product();
    let values = weights.to_f64s();
    let mut packed = Vec::new();
    for output in 0..outputs * group {
        for phase in indices(&strides) {
            for row in 0..rows {
                let channel = output / outputs * rows + row;
                let start = (channel * outputs + output % outputs) * taps;
                for place in indices(&places) {
                    let tap = axes
                        .iter()
                        .zip(phase.iter().zip(&place))
                        .try_fold(0, |at, (axis, (p, i))| Some(at * axis.taps + axis.tap(*p, *i)?));
                    let value = tap.map_or(Some(&0.0), |tap| values.get(start + tap));
                    packed.push(*value.ok_or(Skip::NoMatch)?);
                }
            }
        }
    }
    let count: usize = strides.iter().product();
    let shape = [&[outputs * group * count, rows], places.as_slice()].concat();
    Ok(Tensor::from_f64s(weights.dtype(), &shape, &packed))
}

/// All indices of a shape, the last axis first.
fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
    shape.iter().fold(vec![vec![]], |before, &size| {
        before.iter().flat_map(|index| (0..size).map(move |at| [index.as_slice(), &[at]].concat())).collect()
    })
}

/// `[N, M·phases, …]` as `[N, M, … · stride]`.
fn side_by_side(rewriter: &mut Rewriter<'_>, conv: Value, axes: &[Axis]) -> Result<Value, Skip> {
    let shape = rewriter.fact(conv).shape().to_vec();
    let (batch, spatial) = (shape.first().ok_or(Skip::NoMatch)?, shape.get(2..).ok_or(Skip::NoMatch)?);
    let strides: Vec<i64> = axes.iter().map(|axis| axis.stride as i64).collect();
    let channels = shape.get(1).and_then(Dim::as_const).ok_or(Skip::NoMatch)?;
    let channels = channels / strides.iter().product::<i64>();
    let known = [&[channels], strides.as_slice()].concat();
    let dims: Vec<Dim> = [std::slice::from_ref(batch), &dims(&known), spatial].concat();
    let split = match target(&dims) {
        Some(target) => constant(rewriter, &target),
        None => {
            let batch = add_shape(rewriter, conv, 0, Some(1))?;
            let spatial = add_shape(rewriter, conv, 2, None)?;
            let known = constant(rewriter, &known);
            concat(rewriter, vec![batch, known, spatial])?
        }
    };
    let split = reshape(rewriter, conv, split)?;
    let rank = axes.len();
    let pairs = (0..rank).flat_map(|axis| [2 + rank + axis, 2 + axis]);
    let perm: Vec<usize> = [0, 1].into_iter().chain(pairs).collect();
    let moved = rewriter.add(Op::Transpose(Transpose { perm: Some(perm) }), vec![Some(split)], "moved")?;
    let sizes = spatial.iter().zip(axes).map(|(dim, axis)| dim.clone() * Dim::from(axis.stride));
    let dims: Vec<Dim> = [batch.clone(), Dim::from(channels)].into_iter().chain(sizes).collect();
    let merged = match target(&dims) {
        Some(target) => constant(rewriter, &target),
        None => {
            let batch = add_shape(rewriter, conv, 0, Some(1))?;
            let spatial = add_shape(rewriter, conv, 2, None)?;
            let (channels, strides) = (constant(rewriter, &[channels]), constant(rewriter, &strides));
            let product = Op::Binary(Binary { op: BinaryOp::Mul });
            let spatial = rewriter.add(product, vec![Some(spatial), Some(strides)], "sizes")?;
            concat(rewriter, vec![batch, channels, spatial])?
        }
    };
    reshape(rewriter, moved, merged)
}

fn dims(sizes: &[i64]) -> Vec<Dim> {
    sizes.iter().map(|size| Dim::from(*size)).collect()
}

/// A target of `Reshape`, if one dim at most is not known.
fn target(dims: &[Dim]) -> Option<Vec<i64>> {
    let unknown = dims.iter().filter(|dim| dim.as_const().is_none()).count();
    // The size of an empty tensor does not tell an unknown dim.
    let empty = dims.iter().any(|dim| dim.as_const() == Some(0));
    (unknown == 0 || (unknown == 1 && !empty))
        .then(|| dims.iter().map(|dim| dim.as_const().unwrap_or(-1)).collect())
}

fn constant(rewriter: &mut Rewriter<'_>, list: &[i64]) -> Value {
    rewriter.constant(Tensor::from_vec(&[list.len()], list.to_vec()), "list")
}

fn add_shape(rewriter: &mut Rewriter<'_>, of: Value, start: i64, end: Option<i64>) -> Result<Value, Skip> {
    rewriter.add(Op::Shape(Shape { start, end }), vec![Some(of)], "shape")
}

fn concat(rewriter: &mut Rewriter<'_>, parts: Vec<Value>) -> Result<Value, Skip> {
    rewriter.add(Op::Concat(Concat { axis: 0 }), parts.into_iter().map(Some).collect(), "target")
}

fn reshape(rewriter: &mut Rewriter<'_>, of: Value, target: Value) -> Result<Value, Skip> {
    rewriter.add(Op::Reshape(Reshape { allowzero: true }), vec![Some(of), Some(target)], "reshaped")
}

/// Cuts the elements that padding takes off.
fn cut(rewriter: &mut Rewriter<'_>, spread: Value, axes: &[Axis]) -> Result<Value, Skip> {
    if axes.iter().all(|axis| axis.cut == [0, 0]) {
        return Ok(spread);
    }
    let starts: Vec<i64> = axes.iter().map(|axis| axis.cut[0]).collect();
    let ends: Vec<i64> =
        axes.iter().map(|axis| if axis.cut[1] > 0 { -axis.cut[1] } else { i64::MAX }).collect();
    let numbers: Vec<i64> = (2..2 + axes.len() as i64).collect();
    let operands = [starts, ends, numbers].map(|list| Some(constant(rewriter, &list)));
    rewriter.add(Op::Slice(Slice), [vec![Some(spread)], operands.to_vec()].concat(), "cut")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{example, run};

    #[test]
    fn header_example() {
        example(&Subpixel, include_str!("subpixel.rs"));
    }

    /// Operators that are left of a transposed convolution.
    fn ops(shape: &str, weights: &str, bias: usize, attrs: &str) -> Vec<String> {
        let (graph, _) = run(
            &Subpixel,
            &format!(
                r#"
                model "g"
                input %0 "x" : f32[{shape}]
                %1 = Constant rand(5, -1.0, 1.0) : f32[{weights}]
                %2 = Constant rand(6, -1.0, 1.0) : f32[{bias}]
                %3 = ConvTranspose(%0, %1, %2) {{{attrs}}}
                output "y" = %3"#
            ),
        );
        let nodes = graph.topological().unwrap();
        let names = nodes.iter().map(|&id| graph.node(id).op.name().to_owned());
        names.filter(|name| !["Input", "Constant"].contains(&name.as_str())).collect()
    }

    #[test]
    fn windows_as_large_as_their_steps() {
        let views = ["Conv", "Reshape", "Transpose", "Reshape"];
        let mut found = ops("n,4,h,6", "4,3,2,2", 3, "strides=[2,2]");
        found.sort();
        let sizes =
            ["Concat", "Concat", "Conv", "Mul", "Reshape", "Reshape", "Shape", "Shape", "Shape", "Shape"];
        assert_eq!(found, [&sizes[..], &["Transpose"]].concat());
        assert_eq!(ops("n,4,7", "4,3,2", 3, "strides=[2]"), views);
        assert_eq!(ops("2,4,5,6", "4,3,2,2", 3, "strides=[2,2]"), views);
        assert_eq!(ops("2,4,3,2,3", "4,1,2,1,3", 2, "strides=[2,1,3], group=2"), views);
        assert_eq!(ops("1,0,3", "0,2,2", 2, "strides=[2]"), views);
    }

    #[test]
    fn windows_of_several_steps_and_what_padding_cuts() {
        let views = ["Conv", "Reshape", "Transpose", "Reshape", "Slice"];
        assert_eq!(ops("2,4,5,6", "4,3,4,4", 3, "strides=[2,2], pads=[1,1,1,1]"), views);
        assert_eq!(ops("2,6,9", "6,2,16", 4, "strides=[8], pads=[4,3], group=2"), views);
        assert_eq!(ops("2,4,5", "4,3,4", 3, "strides=[2], output_padding=[1], pads=[0,1]"), &views[..4]);
    }

    #[test]
    fn windows_that_are_no_multiple_of_their_steps() {
        let views = ["Conv", "Reshape", "Transpose", "Reshape", "Slice"];
        assert_eq!(ops("2,4,5,6", "4,3,3,3", 3, "strides=[2,2], pads=[1,1,1,1]"), views);
        let attrs = "strides=[2,2], pads=[1,1,1,1], output_padding=[1,1]";
        assert_eq!(ops("2,4,5,6", "4,3,3,3", 3, attrs), views);
        assert_eq!(ops("2,4,5", "4,3,2", 3, "strides=[3], output_padding=[1]"), &views[..4]);
    }

    #[test]
    fn others_stay() {
        let stays = ["ConvTranspose"];
        assert_eq!(ops("2,4,5", "4,3,3", 3, ""), stays);
        assert_eq!(ops("2,4,5", "4,3,2", 3, "strides=[2], dilations=[2]"), stays);
        assert_eq!(ops("2,4,5", "4,3,2", 3, "strides=[2], output_padding=[1]"), stays);
    }
}
