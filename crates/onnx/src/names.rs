//! Names of nodes and captured values.

use crate::wire::{GraphProto, NodeProto};
use indexmap::IndexSet;
use std::collections::{HashMap, HashSet};

/// Makes names unique. Symbols are named after nodes, so two nodes of a model must never share a name.
#[derive(Clone, Default)]
pub(crate) struct UniqueNames {
    taken: HashMap<String, usize>,
}

impl UniqueNames {
    /// Keeps a name from being given to a node.
    pub(crate) fn reserve(&mut self, name: &str) {
        self.taken.entry(name.to_owned()).or_insert(0);
    }

    /// `base`, or `base_1` and so on if that is taken.
    pub(crate) fn unique(&mut self, base: &str) -> String {
        let Some(count) = self.taken.get(base).copied() else {
            self.reserve(base);
            return base.to_owned();
        };
        let mut count = count;
        loop {
            count += 1;
            let candidate = format!("{base}_{count}");
            if !self.taken.contains_key(&candidate) {
                self.taken.insert(base.to_owned(), count);
                self.reserve(&candidate);
                return candidate;
            }
        }
    }
}

/// The node's name, or one made of its op and first output.
pub(crate) fn node_label(node: &NodeProto) -> String {
    match node.name.is_empty() {
        false => node.name.clone(),
        true => {
            let output = node.output.iter().find(|name| !name.is_empty()).map_or("", String::as_str);
            format!("{}_{output}", node.op_type)
        }
    }
}

/// The graphs in a node's attributes.
pub(crate) fn subgraphs(node: &NodeProto) -> impl Iterator<Item = &GraphProto> {
    node.attribute.iter().flat_map(|attribute| attribute.g.as_deref().into_iter().chain(&attribute.graphs))
}

/// The values that a node takes: its inputs, then what its graphs capture.
pub(crate) fn operands(node: &NodeProto) -> IndexSet<&str> {
    let mut names: IndexSet<&str> =
        node.input.iter().map(String::as_str).filter(|name| !name.is_empty()).collect();
    for graph in subgraphs(node) {
        names.extend(captures(graph));
    }
    names.extend(differentiated(node));
    names
}

/// The values that a node of the op `Gradient` names in its attributes: xs, zs, then y.
pub(crate) fn differentiated(node: &NodeProto) -> Vec<&str> {
    if (node.domain.as_str(), node.op_type.as_str()) != ("ai.onnx.preview.training", "Gradient") {
        return Vec::new();
    }
    let named = |name: &str| node.attribute.iter().find(|attribute| attribute.name == name);
    let lists = ["xs", "zs"].into_iter().filter_map(named).flat_map(|attribute| &attribute.strings);
    let y = named("y").and_then(|attribute| attribute.s.as_ref());
    lists.chain(y).filter_map(|text| std::str::from_utf8(text).ok()).filter(|name| !name.is_empty()).collect()
}

/// The names that a nested graph takes from outside, in order of first use.
pub(crate) fn captures(graph: &GraphProto) -> IndexSet<&str> {
    let mut defined: HashSet<&str> = graph.input.iter().map(|input| input.name.as_str()).collect();
    defined.extend(graph.initializer.iter().map(|tensor| tensor.name.as_str()));
    let sparse = graph.sparse_initializer.iter().filter_map(|tensor| tensor.values.as_ref());
    defined.extend(sparse.map(|values| values.name.as_str()));
    defined.extend(graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str)));
    let outputs = graph.output.iter().map(|output| output.name.as_str());
    let used = graph.node.iter().flat_map(operands).chain(outputs.filter(|name| !name.is_empty()));
    used.filter(|name| !defined.contains(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::AttributeProto;

    #[test]
    fn names_become_unique() {
        let mut names = UniqueNames::default();
        names.reserve("x_1");
        assert_eq!(names.unique("x"), "x");
        assert_eq!(names.unique("x"), "x_2");
        assert_eq!(names.unique("x"), "x_3");
        assert_eq!(names.unique("x_1"), "x_1_1");
    }

    #[test]
    fn captures_are_what_is_used_and_not_defined() {
        let node = |inputs: &[&str], output: &str| NodeProto {
            input: inputs.iter().map(|s| (*s).to_owned()).collect(),
            output: vec![output.to_owned()],
            ..NodeProto::default()
        };
        let inner = GraphProto { node: vec![node(&["a", "local"], "r")], ..GraphProto::default() };
        let attribute = AttributeProto { g: Some(Box::new(inner)), ..AttributeProto::default() };
        let outer = GraphProto {
            node: vec![
                node(&["b", ""], "local"),
                NodeProto { attribute: vec![attribute], ..node(&["b"], "out") },
            ],
            ..GraphProto::default()
        };
        assert_eq!(captures(&outer).into_iter().collect::<Vec<_>>(), ["b", "a"]);
    }
}
