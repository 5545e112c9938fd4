//! The first value that a rewrite moves.

use crate::{Difference, Tensors, tolerance};
use rabot_ir::{Graph, Value, interp};
use rabot_tensor::Tensor;
use serde::Serialize;
use std::collections::{HashMap, HashSet};

/// The first value, in the order of the graph, that deviates with a rewrite.
#[derive(Clone, Debug, Serialize)]
pub struct FirstTensor {
    /// Name of the value.
    pub name: String,
    /// Operator that makes it.
    pub op: String,
    /// How far it is from the value without the rewrite.
    pub difference: Difference,
    /// True if it was finite without the rewrite and is not with it.
    pub overflows: bool,
}

/// The values of a graph by name, as far as they can be evaluated. Of names that several values have, none is there.
pub(crate) fn of(graph: &Graph, inputs: &Tensors) -> HashMap<String, Tensor> {
    let mut found: HashMap<String, Tensor> = HashMap::new();
    let mut twice: HashSet<String> = HashSet::new();
    // What comes before a node that fails is of use.
    let _ = interp::run_observed(graph, inputs, &mut |value, tensor| {
        let name = graph.value_name(value).to_string();
        if found.insert(name.clone(), tensor.clone()).is_some() {
            twice.insert(name);
        }
    });
    found.retain(|name, _| !twice.contains(name));
    found
}

/// The first value of `after` that is further from that of the same name before than rounding explains; if there is
/// none, the one that is furthest.
pub(crate) fn first(
    before: &Graph,
    seen: &HashMap<String, Tensor>,
    after: &Graph,
    inputs: &Tensors,
) -> Option<FirstTensor> {
    let now = of(after, inputs);
    let values = before.node_ids().flat_map(|node| {
        let slots = before.node(node).outputs.len() as u32;
        (0..slots).map(move |slot| Value { node, slot })
    });
    let shapes =
        values.filter_map(|v| Some((v, seen.get(&**before.value_name(v))?.shape().to_vec()))).collect();
    let tolerances = tolerance::derive(before, &shapes).ok()?;
    let allowed: HashMap<&str, f64> =
        tolerances.iter().map(|(v, t)| (&**before.value_name(*v), t.relative())).collect();
    let mut worst: Option<FirstTensor> = None;
    for id in after.topological().ok()? {
        let node = after.node(id);
        for output in &node.outputs {
            let name: &str = &output.name;
            let Some((old, new)) = seen.get(name).zip(now.get(name)) else { continue };
            let Some(difference) = Difference::of(new, old) else { continue };
            if difference.is_equal() {
                continue;
            }
            let finite = |tensor: &Tensor| tensor.to_f64s().iter().all(|v| v.is_finite());
            let overflows = difference.max_abs.is_infinite() && finite(old);
            let found =
                FirstTensor { name: name.to_owned(), op: node.op.name().to_owned(), difference, overflows };
            if overflows || difference.relative > allowed.get(name).copied().unwrap_or(0.0).max(1e-6) {
                return Some(found);
            }
            if worst.as_ref().is_none_or(|w| w.difference.relative < difference.relative) {
                worst = Some(found);
            }
        }
    }
    worst
}
