//! Whole output channels that go, and everything that goes with them.

use super::cut;
use super::walk::{Reads, Space, Walk};
use rabot_ir::{Graph, GraphError};
use rabot_rewrite::{PassCx, Report};

const RULE: &str = "channel";

/// Removes the fraction `sparsity` of the output channels of every layer whose channels can be followed to all their
/// readers: those with the smallest norm. Layers that must lose the same channels are left alone, or, if `joint`, lose
/// those with the smallest sum of norms.
///
/// **Errors**: the graph has a cycle, or an operator refuses what is left.
pub(super) fn prune(
    graph: &mut Graph,
    sparsity: f64,
    joint: bool,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    let walk = Walk::new(graph, Reads::Unasked)?;
    let mut chosen: Vec<(Space, Vec<usize>)> = Vec::new();
    for (node, reason) in &walk.unfit {
        report.skip(RULE, graph.node(*node).name.clone(), reason.clone());
    }
    for space in walk.spaces() {
        let removed = ((space.size as f64 * sparsity).floor() as usize).min(space.size.saturating_sub(1));
        let reason = match &space.frozen {
            Some(reason) => Some(reason.clone()),
            None if removed == 0 => Some(format!("it has {} output channels", space.size)),
            None if space.producers.len() > 1 && !joint => Some(format!(
                "{} must lose the same channels; coupled=joint lets them",
                producers(graph, space).join(", ")
            )),
            None => None,
        };
        let mut names = space.producers.iter().map(|(node, ..)| &graph.node(*node).name);
        if reason.is_none() && !names.all(|name| cx.admits(RULE, name)) {
            continue;
        }
        if reason.is_none() {
            chosen.push((space.clone(), largest(graph, space, space.size - removed)));
        }
        for (node, ..) in &space.producers {
            let name = graph.node(*node).name.clone();
            match &reason {
                Some(reason) => report.skip(RULE, name, reason.clone()),
                None => report.apply(RULE, name, detail(graph, space, removed)),
            }
        }
    }
    cut::apply(graph, &chosen)
}

/// The `count` channels with the largest norm, in order.
fn largest(graph: &Graph, space: &Space, count: usize) -> Vec<usize> {
    let mut norms = vec![0.0; space.size];
    for &(_, weights, axis) in &space.producers {
        let Some(tensor) = graph.constant(weights) else { continue };
        let inner: usize = tensor.shape()[axis + 1..].iter().product::<usize>().max(1);
        let mut squares = vec![0.0; space.size];
        for (at, value) in tensor.to_f64s().into_iter().enumerate() {
            squares[at / inner % space.size] += value * value;
        }
        norms.iter_mut().zip(squares).for_each(|(norm, sum)| *norm += f64::sqrt(sum));
    }
    let mut channels: Vec<usize> = (0..space.size).collect();
    channels.sort_by(|&a, &b| norms[b].total_cmp(&norms[a]));
    channels.truncate(count);
    channels.sort();
    channels
}

fn producers<'g>(graph: &'g Graph, space: &Space) -> Vec<&'g str> {
    space.producers.iter().map(|(node, ..)| &*graph.node(*node).name).collect()
}

fn detail(graph: &Graph, space: &Space, removed: usize) -> String {
    let names = producers(graph, space);
    let together = match names.len() {
        0 | 1 => String::new(),
        _ => format!(", the same ones of {}", names.join(", ")),
    };
    format!("{removed} of {} output channels removed{together}", space.size)
}

#[cfg(test)]
mod tests {
    use super::super::magnitude::{Pattern, Prune};
    use rabot_ir::text::{parse, print};
    use rabot_ir::verify::verify;
    use rabot_ir::{Graph, Op, Value, interp};
    use rabot_rewrite::{Exactness, Pass, PassCx, Report};

    fn quarter(text: &str) -> (Graph, Report) {
        quarter_of(text, true)
    }

    /// Prunes a quarter of the channels. Weights must be such that these are zeros: then nothing changes.
    fn quarter_of(text: &str, joint: bool) -> (Graph, Report) {
        let before = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let mut graph = before.clone();
        let pass = Prune { sparsity: 0.25, pattern: Pattern::Channel, global: false, joint };
        let report = pass.run(&mut graph, &PassCx::default()).unwrap();
        verify(&graph).unwrap_or_else(|errors| panic!("{errors}\n{}", print(&graph)));
        let inputs = crate::check::random_inputs(&before, 1);
        let (expected, actual) =
            (interp::run(&before, &inputs).unwrap(), interp::run(&graph, &inputs).unwrap());
        let exactness = Exactness::Rel { rtol: 1e-6, atol: 0.0 };
        if let Err(difference) = crate::check::compare(&expected, &actual, exactness) {
            panic!("{difference}\n{}", print(&graph));
        }
        (graph, report)
    }

    /// Shapes of the weights of the layers, in order.
    fn shapes(graph: &Graph) -> Vec<String> {
        let order = graph.topological().unwrap();
        let layers = order.into_iter().map(|id| graph.node(id));
        let layers = layers.filter(|node| matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_)));
        let shape = |value: Value| graph.fact(value).ty.to_string();
        layers.filter_map(|node| node.inputs[1].map(shape)).collect()
    }

    #[test]
    fn neighbours_follow_through_norms_pools_depthwise_layers_and_views() {
        // Channel 2 of the first layer is 0, and stays 0 all the way.
        let (graph, report) = quarter(
            r#"model "g"
            input %0 "x" : f32[n,1,4,4]
            %1 = Constant [1.0, 2.0, 0.0, -3.0] : f32[4,1,1,1]
            %2 = Constant [0.5, 0.5, 0.0, 0.5] : f32[4]
            %3 = Conv(%0, %1, %2) "first"
            %4 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
            %5 = Constant [0.1, 0.2, 0.0, 0.4] : f32[4]
            %6 = Constant [0.3, 0.2, 0.0, 0.4] : f32[4]
            %7 = BatchNormalization(%3, %4, %5, %6, %4)
            %8 = Relu(%7)
            %9 = Constant rand(3, -1.0, 1.0) : f32[4,1,3,3]
            %10 = Constant [1.0, 2.0, 0.0, 4.0] : f32[4]
            %11 = Conv(%8, %9, %10) {group=4, pads=[1,1,1,1]} "depthwise"
            %12 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4,1,1]
            %13 = Mul(%12, %11)
            %14 = MaxPool(%13) {kernel_shape=[2,2], strides=[2,2]}
            %15 = Constant [-1, 16] : i64[2]
            %16 = Reshape(%14, %15)
            %17 = Constant rand(4, -1.0, 1.0) : f32[16,3]
            %18 = MatMul(%16, %17) "last"
            output "y" = %18"#,
        );
        assert_eq!(shapes(&graph), ["f32[3,1,1,1]", "f32[3,1,3,3]", "f32[12,3]"]);
        assert_eq!(report.applied.len(), 1);
        assert_eq!(report.applied[0].detail, "1 of 4 output channels removed");
        assert_eq!(report.skipped[0].reason, "`y` is an output of the graph");
    }

    #[test]
    fn residual_sums_lose_the_same_channels() {
        let text = r#"model "g"
            input %0 "x" : f32[n,2]
            %1 = Constant [1.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 5.0] : f32[2,4]
            %2 = MatMul(%0, %1) "a"
            %3 = Constant [1.0, 1.0, 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 2.0, 3.0, 4.0, 1.0, 0.0, 1.0, 1.0] : f32[4,4]
            %4 = Constant [1.0, 0.0, 1.0, 1.0] : f32[1,4]
            %5 = Gemm(%2, %3, %4) {transB=1} "b"
            %6 = Add(%5, %2)
            %7 = Relu(%6)
            %8 = Constant rand(4, -1.0, 1.0) : f32[4,2]
            %9 = MatMul(%7, %8) "c"
            output "y" = %9"#;
        let (graph, report) = quarter(text);
        assert_eq!(shapes(&graph), ["f32[2,3]", "f32[3,3]", "f32[3,2]"]);
        assert_eq!(report.applied[1].detail, "1 of 4 output channels removed, the same ones of a, b");
        let (graph, report) = quarter_of(text, false);
        assert_eq!(shapes(&graph), ["f32[2,4]", "f32[4,4]", "f32[4,2]"]);
        assert_eq!(report.skipped[1].reason, "a, b must lose the same channels; coupled=joint lets them");
    }

    #[test]
    fn what_cannot_follow_keeps_its_channels_and_is_named() {
        let (graph, report) = quarter(
            r#"model "g"
            input %0 "x" : f32[n,4,2,2]
            %1 = Constant rand(1, -1.0, 1.0) : f32[4,4,1,1]
            %2 = Conv(%0, %1) "a"
            %3 = Softmax(%2) {axis=1} "s"
            %4 = Constant rand(2, -1.0, 1.0) : f32[4,4,1,1]
            %5 = Conv(%3, %4) "b"
            %6 = Add(%5, %0) "sum"
            %7 = Constant rand(3, -1.0, 1.0) : f32[4,2,1,1]
            %8 = Conv(%6, %7) {group=2} "c"
            output "y" = %8"#,
        );
        assert_eq!(shapes(&graph), ["f32[4,4,1,1]", "f32[4,4,1,1]", "f32[4,2,1,1]"]);
        let skipped: Vec<(&str, &str)> =
            report.skipped.iter().map(|s| (s.node.as_str(), s.reason.as_str())).collect();
        let expected = [
            ("c", "its channels are in 2 groups"),
            ("a", "Softmax `s` cannot follow"),
            ("b", "an operand of Add `sum` has channels that are not followed"),
        ];
        assert_eq!(skipped, expected);
    }

    #[test]
    fn sizes_that_are_read_elsewhere_may_be_read_but_for_the_channels() {
        let text = |index: usize| {
            format!(
                r#"model "g"
                input %0 "x" : f32[n,1,2,2]
                %1 = Constant [1.0, 2.0, 0.0, -3.0] : f32[4,1,1,1]
                %2 = Conv(%0, %1) "a"
                %3 = Shape(%2) "sizes"
                %4 = Constant [{index}] : i64[1]
                %5 = Gather(%3, %4)
                %6 = Constant [-1] : i64[1]
                %7 = Concat(%5, %6) {{axis=0}}
                %8 = Reshape(%2, %7)
                %9 = Constant rand(4, -1.0, 1.0) : f32[16,2]
                %10 = MatMul(%8, %9)
                output "y" = %10"#
            )
        };
        let (graph, _) = quarter(&text(0));
        assert_eq!(shapes(&graph), ["f32[3,1,1,1]", "f32[12,2]"]);
        let (graph, report) = quarter(&text(0).replace("{axis=0}\n", "{axis=0}\noutput \"s\" = %3\n"));
        assert_eq!(shapes(&graph)[0], "f32[4,1,1,1]");
        assert_eq!(report.skipped[0].reason, "Shape `sizes` reads how many there are");
    }
}
