//! Names of values: unique in a graph and in all graphs around it.

use super::error::ExportError;
use rabot_ir::{Graph, Op, Value};
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};

/// Names of the values of one graph.
pub(super) struct Names {
    values: HashMap<Value, String>,
    /// Names of the graph's outputs, in order.
    outputs: Vec<String>,
    output_set: HashSet<String>,
    /// Outputs that are copies of values with other names: source, name.
    copies: Vec<(String, String)>,
    own_inputs: usize,
}

impl Names {
    /// Name of a value; empty if the graph has no such value.
    pub(super) fn of(&self, value: Value) -> &str {
        self.values.get(&value).map_or("", String::as_str)
    }

    /// Names of the outputs, in order.
    pub(super) fn outputs(&self) -> &[String] {
        &self.outputs
    }

    /// True for the name of an output.
    pub(super) fn is_output(&self, name: &str) -> bool {
        self.output_set.contains(name)
    }

    /// Outputs that a node of their own must make: the value's name, the output's name.
    pub(super) fn copies(&self) -> &[(String, String)] {
        &self.copies
    }

    /// Number of inputs that are not captured.
    pub(super) fn own_inputs(&self) -> usize {
        self.own_inputs
    }

    fn output(&mut self, name: String, value: Value, copied: bool) {
        match copied {
            true => self.copies.push((self.of(value).to_owned(), name.clone())),
            false => {
                self.values.insert(value, name.clone());
            }
        }
        self.output_set.insert(name.clone());
        self.outputs.push(name);
    }
}

/// Names of one graph.
#[derive(Default)]
struct Scope {
    /// Names, and how many have been made of each.
    taken: HashMap<String, usize>,
    constants: HashMap<String, Tensor>,
    /// Constants that something uses.
    used: HashSet<String>,
}

/// Names of a graph and those around it, the outermost first.
#[derive(Default)]
pub(super) struct Scopes(Vec<Scope>);

impl Scopes {
    /// Names for the values of a model's graph; those of inputs and outputs are kept.
    ///
    /// **Errors**: two of those are the same.
    pub(super) fn open_main(&mut self, graph: &Graph) -> Result<Names, ExportError> {
        self.0.push(Scope::default());
        let mut names = empty(graph.inputs().len());
        for &input in graph.inputs() {
            let value = Value { node: input, slot: 0 };
            let name = graph.value_name(value).to_string();
            if !self.claim(&name) {
                return Err(ExportError::Duplicate { what: "input", name });
            }
            names.values.insert(value, name);
        }
        for output in graph.outputs() {
            let (name, is_input) = (output.name.to_string(), names.values.contains_key(&output.value));
            let same = is_input && names.of(output.value) == name && !names.is_output(&name);
            if !same && !self.claim(&name) {
                return Err(ExportError::Duplicate { what: "output", name });
            }
            names.output(name, output.value, is_input && !same);
        }
        self.others(graph, &mut names)?;
        Ok(names)
    }

    /// Names for the values of a nested graph with this many inputs before those that are captured, which have the
    /// names they have outside.
    ///
    /// **Errors**: the graph has a cycle.
    pub(super) fn open_nested(
        &mut self,
        graph: &Graph,
        own: usize,
        captured: &[String],
    ) -> Result<Names, ExportError> {
        self.0.push(Scope::default());
        let mut names = empty(own);
        let mut outer = HashSet::new();
        for (at, &input) in graph.inputs().iter().enumerate() {
            let value = Value { node: input, slot: 0 };
            let name = match at.checked_sub(own) {
                None => self.unique(graph.value_name(value)),
                Some(at) => {
                    outer.insert(value);
                    captured.get(at).cloned().unwrap_or_default()
                }
            };
            names.values.insert(value, name);
        }
        for id in graph.node_ids() {
            let value = Value { node: id, slot: 0 };
            if let Op::Constant(tensor) = &graph.node(id).op
                && self.is_outer(graph.value_name(value), tensor)
            {
                outer.insert(value);
                names.values.insert(value, graph.value_name(value).to_string());
            }
        }
        for output in graph.outputs() {
            let value = output.value;
            let known = names.values.contains_key(&value);
            let same = known && !outer.contains(&value) && names.of(value) == &*output.name;
            let same = same && !names.is_output(&output.name);
            let name = if same { output.name.to_string() } else { self.unique(&output.name) };
            names.output(name, value, known && !same);
        }
        self.others(graph, &mut names)?;
        Ok(names)
    }

    /// Ends the innermost graph.
    pub(super) fn close(&mut self) {
        self.0.pop();
    }

    /// True if this is a constant of the innermost graph that something uses.
    pub(super) fn uses(&self, name: &str) -> bool {
        self.0.last().is_some_and(|scope| scope.used.contains(name))
    }

    /// Notes that a value is used, which may be a constant of any of the graphs.
    pub(super) fn use_constant(&mut self, name: &str) {
        let holder = self.0.iter_mut().rev().find(|scope| scope.constants.contains_key(name));
        if let Some(scope) = holder
            && !scope.used.contains(name)
        {
            scope.used.insert(name.to_owned());
        }
    }

    /// A name like `base` that no value of these graphs has.
    pub(super) fn unique(&mut self, base: &str) -> String {
        let base = if base.is_empty() { "value" } else { base };
        if self.claim(base) {
            return base.to_owned();
        }
        let mut count = self.0.last().and_then(|scope| scope.taken.get(base)).copied().unwrap_or(0);
        loop {
            count += 1;
            let candidate = format!("{base}_{count}");
            if self.claim(&candidate) {
                if let Some(scope) = self.0.last_mut() {
                    scope.taken.insert(base.to_owned(), count);
                }
                return candidate;
            }
        }
    }

    fn claim(&mut self, name: &str) -> bool {
        if self.0.iter().any(|scope| scope.taken.contains_key(name)) {
            return false;
        }
        if let Some(scope) = self.0.last_mut() {
            scope.taken.insert(name.to_owned(), 0);
        }
        true
    }

    /// True if a graph around the innermost has this very constant.
    fn is_outer(&self, name: &str, tensor: &Tensor) -> bool {
        let found = self.0.iter().rev().skip(1).find_map(|scope| scope.constants.get(name));
        found.is_some_and(|other| {
            let shared = std::ptr::eq(other.bytes(), tensor.bytes()) && other.shape() == tensor.shape();
            (shared && other.dtype() == tensor.dtype() && tensor.strings().is_none()) || other == tensor
        })
    }

    /// Names for what has none yet.
    fn others(&mut self, graph: &Graph, names: &mut Names) -> Result<(), ExportError> {
        for id in graph.topological()? {
            let node = graph.node(id);
            for (slot, output) in node.outputs.iter().enumerate() {
                let value = Value { node: id, slot: slot as u32 };
                names.values.entry(value).or_insert_with(|| self.unique(&output.name));
            }
            let name = names.of(Value { node: id, slot: 0 });
            if let (Op::Constant(tensor), Some(scope)) = (&node.op, self.0.last_mut())
                && scope.taken.contains_key(name)
            {
                scope.constants.insert(name.to_owned(), tensor.clone());
            }
        }
        Ok(())
    }
}

fn empty(own_inputs: usize) -> Names {
    Names {
        values: HashMap::new(),
        outputs: Vec::new(),
        output_set: HashSet::new(),
        copies: Vec::new(),
        own_inputs,
    }
}
