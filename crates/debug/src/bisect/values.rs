//! The first value that a rewrite moves.

use super::known::{Known, Seen};
use crate::{Difference, Tensors, tolerance};
use rabot_ir::{Graph, Value};
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

/// The values of a graph by name; their contents are computed when they are asked for.
pub(crate) struct Named<'g> {
    known: &'g Known,
    seen: Seen<'g>,
    by_name: HashMap<&'g str, Value>,
}

impl<'g> Named<'g> {
    /// The values of a graph, as far as they can be evaluated. Of names that several values have, none is there. `None` if
    /// nothing can be evaluated.
    pub fn new(known: &'g Known, graph: &'g Graph, inputs: &Tensors) -> Option<Named<'g>> {
        let seen = known.look(graph, inputs).ok()?;
        let mut by_name: HashMap<&str, Value> = HashMap::new();
        let mut twice: HashSet<&str> = HashSet::new();
        for node in graph.node_ids() {
            for (slot, output) in graph.node(node).outputs.iter().enumerate() {
                let value = Value { node, slot: slot as u32 };
                if seen.of(value).is_some() && by_name.insert(&output.name, value).is_some() {
                    twice.insert(&output.name);
                }
            }
        }
        by_name.retain(|name, _| !twice.contains(name));
        Some(Named { known, seen, by_name })
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<Tensor> {
        let value = self.by_name.get(name)?;
        self.known.content(&self.seen, *value).ok()?.tensor().cloned()
    }

    /// True if both have the value, of the same contents.
    pub fn same(&self, other: &Named<'_>, name: &str) -> bool {
        let hash = |of: &Named<'_>| Some(of.seen.of(*of.by_name.get(name)?)?.hash);
        hash(self).is_some() && hash(self) == hash(other)
    }

    /// True if there is a value of the name that is a tensor of floats.
    pub fn is_float(&self, name: &str) -> bool {
        let value = self.by_name.get(name);
        value.is_some_and(|value| self.seen.graph.fact(*value).dtype().is_float())
    }

    /// The graph.
    pub fn graph(&self) -> &'g Graph {
        self.seen.graph
    }
}

/// The first value of the graph after that is further from that of the same name before than rounding explains; if there
/// is none, the one that is furthest.
pub(crate) fn first(before: &Named<'_>, after: &Named<'_>) -> Option<FirstTensor> {
    let tolerances = tolerance::derive(before.graph(), &before.seen.shapes()).ok()?;
    let allowed: HashMap<&str, f64> =
        tolerances.iter().map(|(v, t)| (&**before.graph().value_name(*v), t.relative())).collect();
    let mut worst: Option<FirstTensor> = None;
    for id in after.graph().topological().ok()? {
        let node = after.graph().node(id);
        for output in &node.outputs {
            let name: &str = &output.name;
            if after.same(before, name) {
                continue;
            }
            let Some((old, new)) = before.get(name).zip(after.get(name)) else { continue };
            let Some(difference) = Difference::of(&new, &old) else { continue };
            if difference.is_equal() {
                continue;
            }
            let finite = |tensor: &Tensor| tensor.to_f64s().iter().all(|v| v.is_finite());
            let overflows = difference.max_abs.is_infinite() && finite(&old);
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
