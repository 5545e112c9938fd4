//! Weights that become 0 where they are.

use super::magnitude::weights;
use rabot_ir::{Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{PassCx, Report};
use rabot_tensor::Tensor;

/// A constant that layers multiply by.
struct Weights {
    value: Value,
    /// The first layer that uses it.
    layer: NodeId,
    /// Axis along which products are summed.
    depth_axis: usize,
}

/// The weights of all layers, each constant once, in the order of the layers.
fn find(graph: &Graph, rule: &'static str, report: &mut Report) -> Result<Vec<Weights>, GraphError> {
    let mut found: Vec<Weights> = Vec::new();
    for layer in graph.topological()? {
        let Some(value) = weights(graph, layer) else { continue };
        if found.iter().any(|known| known.value == value) {
            continue;
        }
        match depth_axis(graph, layer, value) {
            Ok(depth_axis) => found.push(Weights { value, layer, depth_axis }),
            Err(reason) => report.skip(rule, graph.node(layer).name.clone(), reason),
        }
    }
    Ok(found)
}

/// The axis of the weights along which products are summed; the error says why they cannot be pruned.
fn depth_axis(graph: &Graph, layer: NodeId, value: Value) -> Result<usize, String> {
    let tensor = graph.constant(value).ok_or("its weights are not constant")?;
    if !matches!(graph.node(value.node).op, Op::Constant(_)) || graph.is_output(value) {
        return Err("its weights are seen from outside".to_owned());
    }
    if !tensor.dtype().is_float() {
        return Err(format!("its weights are {}", tensor.dtype()));
    }
    let other = |user: &NodeId| weights(graph, *user) != Some(value);
    if let Some((user, _)) = graph.users(value).iter().find(|(user, slot)| *slot != 1 || other(user)) {
        return Err(format!("its weights are used by `{}` too", graph.node(*user).name));
    }
    Ok(match &graph.node(layer).op {
        Op::Conv(_) => 1,
        Op::Gemm(op) => usize::from(op.trans_b),
        _ => tensor.rank().saturating_sub(2),
    })
}

/// Makes the smallest weights 0: of each tensor, or of all together.
///
/// **Errors**: the graph has a cycle.
pub(super) fn unstructured(
    graph: &mut Graph,
    sparsity: f64,
    global: bool,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    const RULE: &str = "unstructured";
    let found = find(graph, RULE, report)?;
    let mut common = global.then(|| {
        let tensors = found.iter().filter_map(|weights| graph.constant(weights.value));
        Smallest::of(tensors.flat_map(magnitudes).collect(), sparsity)
    });
    for weights in found {
        let Some(tensor) = graph.constant(weights.value) else { continue };
        let (magnitudes, mut values) = (magnitudes(tensor), tensor.to_f64s());
        let mut own;
        let smallest = match &mut common {
            Some(common) => common,
            None => {
                own = Smallest::of(magnitudes.clone(), sparsity);
                &mut own
            }
        };
        let name = graph.node(weights.layer).name.clone();
        if magnitudes.iter().all(|&m| m <= smallest.threshold) && smallest.threshold > 0.0 && global {
            let reason = format!(
                "all of its {} weights are at most {:e}: it would compute nothing",
                values.len(),
                smallest.threshold
            );
            report.skip(RULE, name, reason);
            continue;
        }
        for (value, magnitude) in values.iter_mut().zip(magnitudes) {
            if smallest.takes(magnitude) {
                *value = 0.0;
            }
        }
        if cx.admits(RULE, &graph.node(weights.layer).name) {
            write(graph, &weights, &values, RULE, report);
        }
    }
    graph.refresh()
}

fn magnitudes(tensor: &Tensor) -> Vec<f32> {
    tensor.to_f64s().into_iter().map(|v| v.abs() as f32).collect()
}

/// Tells the smallest of some magnitudes from the others: a given number of them, in order where they are equal.
struct Smallest {
    threshold: f32,
    /// How many of those that equal the threshold are left to take.
    ties: usize,
}

impl Smallest {
    /// The smallest `fraction` of them.
    fn of(mut magnitudes: Vec<f32>, fraction: f64) -> Self {
        let count = (magnitudes.len() as f64 * fraction).floor() as usize;
        if count == 0 || count >= magnitudes.len() {
            return Smallest { threshold: 0.0, ties: 0 };
        }
        let (below, &mut threshold, _) = magnitudes.select_nth_unstable_by(count - 1, f32::total_cmp);
        let ties = 1 + below.iter().filter(|&&m| m == threshold).count();
        Smallest { threshold, ties }
    }

    fn takes(&mut self, magnitude: f32) -> bool {
        if magnitude == self.threshold && self.ties > 0 {
            self.ties -= 1;
            return true;
        }
        magnitude < self.threshold
    }
}

/// Of each `of` neighbours along the depth, keeps the `keep` largest.
///
/// **Errors**: the graph has a cycle.
pub(super) fn grouped(
    graph: &mut Graph,
    keep: usize,
    of: usize,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    const RULE: &str = "n-of-m";
    for weights in find(graph, RULE, report)? {
        let Some(tensor) = graph.constant(weights.value) else { continue };
        let depth = tensor.shape().get(weights.depth_axis).copied().unwrap_or(1);
        if depth <= keep {
            let name = graph.node(weights.layer).name.clone();
            report.skip(RULE, name, format!("it sums over {depth} inputs: {keep} of {of} are no fewer"));
            continue;
        }
        let stride: usize = tensor.shape()[weights.depth_axis + 1..].iter().product::<usize>().max(1);
        let mut values = tensor.to_f64s();
        for block in values.chunks_mut(depth * stride) {
            for lane in 0..stride {
                for first in (0..depth).step_by(of) {
                    let mut group: Vec<usize> =
                        (first..depth.min(first + of)).map(|k| k * stride + lane).collect();
                    group.sort_by(|&a, &b| block[b].abs().total_cmp(&block[a].abs()));
                    group.into_iter().skip(keep).for_each(|at| block[at] = 0.0);
                }
            }
        }
        if cx.admits(RULE, &graph.node(weights.layer).name) {
            write(graph, &weights, &values, RULE, report);
        }
    }
    graph.refresh()
}

/// Puts new values in the place of weights, under the same name.
fn write(graph: &mut Graph, weights: &Weights, values: &[f64], rule: &'static str, report: &mut Report) {
    let old = graph.node(weights.value.node).clone();
    let Op::Constant(tensor) = &old.op else { return };
    let name = graph.node(weights.layer).name.clone();
    let zeros = values.iter().filter(|&&v| v == 0.0).count();
    let percent = 100.0 * zeros as f64 / values.len().max(1) as f64;
    report.apply(rule, name, format!("{zeros} of {} weights are 0 ({percent:.1} %)", values.len()));
    let pruned = Tensor::from_f64s(tensor.dtype(), tensor.shape(), values);
    let new = graph.add_constant(&old.name, pruned);
    graph.replace_value(weights.value, new);
    graph.remove_node(weights.value.node);
    graph.annotate(new.node, |node| {
        *node.sources = old.sources.clone();
        node.outputs[0].name = old.outputs[0].name.clone();
    });
}

#[cfg(test)]
mod tests {
    use super::super::magnitude::{Pattern, Prune};
    use rabot_ir::text::parse;
    use rabot_ir::verify::verify;
    use rabot_ir::{Graph, Op};
    use rabot_rewrite::{Pass, PassCx, Report};

    fn prune(pass: &Prune, text: &str) -> (Graph, Report) {
        let mut graph = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let report = pass.run(&mut graph, &PassCx::default()).unwrap();
        verify(&graph).unwrap();
        (graph, report)
    }

    fn constants(graph: &Graph) -> Vec<Vec<f64>> {
        let ops = graph.node_ids().map(|id| &graph.node(id).op);
        let mut constants: Vec<Vec<f64>> = ops
            .filter_map(|op| match op {
                Op::Constant(tensor) => Some(tensor.to_f64s()),
                _ => None,
            })
            .collect();
        constants.sort_by_key(|values| std::cmp::Reverse(values.len()));
        constants
    }

    const TWO: &str = r#"model "g"
        input %0 "x" : f32[n,4]
        %1 = Constant [4.0, -3.0, 0.5, 1.0, 2.0, -0.5, 0.5, 7.0] : f32[4,2]
        %2 = MatMul(%0, %1) "first"
        %3 = Constant [0.1, 0.2] : f32[1,2]
        %4 = Gemm(%2, %3) {transB=1} "second"
        output "y" = %4"#;

    #[test]
    fn the_smallest_half_of_each_layer_goes() {
        let (graph, report) = prune(&Prune::default(), TWO);
        let expected = [vec![4.0, -3.0, 0.0, 0.0, 2.0, 0.0, 0.0, 7.0], vec![0.0, f64::from(0.2f32)]];
        assert_eq!(constants(&graph), expected);
        assert_eq!(report.applied[0].detail, "4 of 8 weights are 0 (50.0 %)");
    }

    #[test]
    fn equal_magnitudes_go_in_order() {
        let (graph, _) = prune(&Prune { sparsity: 0.25, ..Prune::default() }, TWO);
        assert_eq!(constants(&graph)[0], [4.0, -3.0, 0.0, 1.0, 2.0, 0.0, 0.5, 7.0]);
    }

    #[test]
    fn a_common_threshold_spares_a_layer_that_would_vanish() {
        let (graph, report) = prune(&Prune { global: true, ..Prune::default() }, TWO);
        assert_eq!(constants(&graph)[0], [4.0, -3.0, 0.0, 1.0, 2.0, 0.0, 0.0, 7.0]);
        assert_eq!(report.skipped.len(), 1);
        assert_eq!(report.skipped[0].node, "second");
    }

    #[test]
    fn two_of_four_along_the_input_channels() {
        let (graph, _) = prune(
            &Prune { pattern: Pattern::Grouped { keep: 2, of: 4 }, ..Prune::default() },
            r#"model "g"
            input %0 "x" : f32[n,5,2]
            %1 = Constant [1.0, 9.0, 2.0, 8.0, 3.0, 7.0, 4.0, 6.0, 5.0, 5.0] : f32[1,5,2]
            %2 = Conv(%0, %1)
            output "y" = %2"#,
        );
        assert_eq!(constants(&graph)[0], [0.0, 9.0, 0.0, 8.0, 3.0, 0.0, 4.0, 0.0, 5.0, 5.0]);
    }

    #[test]
    fn tied_weights_and_short_sums_are_left() {
        let (_, report) = prune(
            &Prune { pattern: Pattern::Grouped { keep: 2, of: 4 }, ..Prune::default() },
            r#"model "g"
            input %0 "i" : i64[n]
            %1 = Constant rand(1, -1.0, 1.0) : f32[8,8]
            %2 = Gather(%1, %0) "embed"
            %3 = MatMul(%2, %1) "tied"
            %4 = Constant rand(2, -1.0, 1.0) : f32[4,1,2,2]
            %5 = Constant [1, 1, 8, -1] : i64[4]
            %6 = Reshape(%3, %5)
            %7 = Conv(%6, %4) "narrow"
            output "y" = %7"#,
        );
        let reasons: Vec<&str> = report.skipped.iter().map(|s| s.reason.as_str()).collect();
        let narrow = "it sums over 1 inputs: 2 of 4 are no fewer";
        assert_eq!(reasons, ["its weights are used by `embed` too", narrow]);
    }
}
