//! Keeps what changed from graph to graph.

use super::data::{
    ChangeData, ErrorData, LedgerRow, NodeData, Number, OutputData, PortData, Run, Stage, Statistics,
    ValueData,
};
use super::evaluate::{Evaluated, evaluate, shared};
use super::kernels::kernels;
use super::statistics::statistics;
use crate::trace::stage_name;
use crate::{DebugError, Tensors, Trace, TraceOptions, TraceRow, ValueError};
use rabot_ir::interp::Data;
use rabot_ir::{Attr, Datum, Graph, Node, NodeId, Op, Value};
use rabot_rewrite::Step;
use rabot_tensor::Tensor;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Elements of constants that a report spells out.
const SHOWN_ELEMENTS: usize = 16;
/// Characters of attributes that a report spells out.
const MAX_TEXT: usize = 400;

/// What a run is about.
#[derive(Clone, Debug)]
pub struct About {
    /// The model's file or name.
    pub model: String,
    /// The pipeline as text.
    pub pipeline: String,
}

/// Sees the graph after each pass, and keeps what a report says of it.
#[derive(Default)]
pub struct Recorder {
    inputs: Data,
    names: Names,
    stages: Vec<Stage>,
    evaluated: Evaluated,
    /// Tensors of the values of the stage before, and what was counted in them.
    counted: HashMap<Arc<str>, (Tensor, Option<Statistics>)>,
    nodes: HashMap<usize, NodeData>,
    outputs: Vec<PortData>,
    last: Option<Graph>,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({} stages)", self.stages.len())
    }
}

/// Texts by number.
#[derive(Default)]
pub(super) struct Names {
    numbers: HashMap<String, usize>,
    texts: Vec<String>,
}

impl Names {
    /// The number of a text.
    pub fn number(&mut self, text: &str) -> usize {
        if let Some(&number) = self.numbers.get(text) {
            return number;
        }
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), self.texts.len() - 1);
        self.texts.len() - 1
    }
}

impl Recorder {
    /// For a model on these inputs.
    pub fn new(inputs: &Tensors) -> Self {
        let datum = |(name, tensor): (&String, &Tensor)| (name.clone(), Datum::Tensor(tensor.clone()));
        Recorder { inputs: inputs.iter().map(datum).collect(), ..Self::default() }
    }

    /// Sees a graph: the original one, without a step, then that after each pass.
    ///
    /// **Errors**: it cannot be evaluated.
    pub fn visit(&mut self, step: Option<&Step>, graph: &Graph) -> Result<(), DebugError> {
        let pass = stage_name(step);
        let failed = |error| DebugError::interp(&format!("the graph after `{pass}`"), error);
        let evaluated = evaluate(graph, &self.inputs, &self.evaluated).map_err(failed)?;
        let values = self.count(&evaluated);
        self.evaluated = evaluated;
        let ids = self.ids(graph)?;
        let (nodes, removed) = self.changed(graph, &ids)?;
        let outputs: Vec<PortData> = graph
            .outputs()
            .iter()
            .filter_map(|output| {
                let value = (*ids.get(&output.value.node)?, output.value.slot);
                Some(PortData { name: output.name.to_string(), value })
            })
            .collect();
        let outputs = (outputs != self.outputs || self.stages.is_empty()).then_some(outputs);
        if let Some(outputs) = &outputs {
            self.outputs.clone_from(outputs);
        }
        self.stages.push(Stage { pass, nodes, removed, values, outputs, ..Stage::default() });
        self.last = Some(graph.clone());
        Ok(())
    }

    /// Counts the values that are not those of the stage before.
    fn count(&mut self, evaluated: &Evaluated) -> Vec<ValueData> {
        let mut counted = HashMap::with_capacity(evaluated.order.len());
        let mut found = Vec::new();
        for (name, datum) in &evaluated.order {
            let Datum::Tensor(tensor) = datum else { continue };
            let known = self.counted.remove(name);
            let same = known.as_ref().is_some_and(|(old, _)| shared(old, tensor));
            let statistics = match known {
                Some((_, statistics)) if same => statistics,
                _ => statistics(tensor),
            };
            if !same {
                let (name, shape) = (self.names.number(name), Some(tensor.shape().to_vec()));
                found.push(ValueData { name, shape, statistics: statistics.clone(), error: None });
            }
            counted.insert(name.clone(), (tensor.clone(), statistics));
        }
        self.counted = counted;
        found
    }

    /// The number of each node: that of its name, or, if another one has it, of its name and a number.
    fn ids(&mut self, graph: &Graph) -> Result<HashMap<NodeId, usize>, DebugError> {
        let mut taken = HashSet::new();
        let mut ids = HashMap::new();
        for id in graph.topological()? {
            let name = &graph.node(id).name;
            let mut number = self.names.number(name);
            let mut copy = 2usize;
            while !taken.insert(number) {
                number = self.names.number(&format!("{name} #{copy}"));
                copy += 1;
            }
            ids.insert(id, number);
        }
        Ok(ids)
    }

    fn changed(
        &mut self,
        graph: &Graph,
        ids: &HashMap<NodeId, usize>,
    ) -> Result<(Vec<NodeData>, Vec<usize>), DebugError> {
        let mut nodes = HashMap::new();
        let mut changed = Vec::new();
        for id in graph.topological()? {
            let Some(&number) = ids.get(&id) else { continue };
            let data = self.node(graph.node(id), number, ids);
            if self.nodes.get(&number) != Some(&data) {
                changed.push(data.clone());
            }
            nodes.insert(number, data);
        }
        let mut removed: Vec<usize> =
            self.nodes.keys().filter(|id| !nodes.contains_key(id)).copied().collect();
        removed.sort_unstable();
        self.nodes = nodes;
        Ok((changed, removed))
    }

    fn node(&mut self, node: &Node, id: usize, ids: &HashMap<NodeId, usize>) -> NodeData {
        let operand = |value: Value| ids.get(&value.node).map(|&id| (id, value.slot));
        let own = matches!(&node.sources[..], [only] if *only == node.name) || node.sources.is_empty();
        let sources = (!own).then(|| node.sources.iter().map(|name| self.names.number(name)).collect());
        let outputs = node.outputs.iter().map(|output| OutputData {
            name: self.names.number(&output.name),
            ty: output.fact.ty.to_string(),
        });
        NodeData {
            id,
            op: node.op.name().to_owned(),
            attrs: attributes(&node.op),
            inputs: node.inputs.iter().map(|input| input.and_then(operand)).collect(),
            outputs: outputs.collect(),
            sources,
            group: node.group,
        }
    }

    /// The whole run, with what the trace found and the kernels of the last graph.
    ///
    /// **Errors**: the last graph cannot be compiled or run.
    pub fn finish(
        mut self,
        trace: &Trace,
        about: About,
        options: &TraceOptions,
        inputs: &Tensors,
    ) -> Result<Run, DebugError> {
        let mut before: HashMap<usize, ErrorData> = HashMap::new();
        for (stage, row) in self.stages.iter_mut().zip(&trace.rows) {
            stage.ledger = ledger_row(row);
            let applied = row.applied.iter().map(|c| change(c.rule, &c.node, &c.detail));
            stage.applied = applied.collect();
            stage.skipped = row.skipped.iter().map(|c| change(c.rule, &c.node, &c.reason)).collect();
            let errors: HashMap<usize, ErrorData> =
                row.values.iter().map(|value| (self.names.number(&value.name), error_data(value))).collect();
            merge_errors(stage, &errors, &before);
            before = errors;
        }
        let mut found = (Vec::new(), Vec::new());
        if let Some(graph) = &self.last {
            let staged = rabot_kernel::stages(graph, &options.profile)?;
            found = kernels(&staged, &options.profile, options.threads, inputs, &mut self.names)?;
        }
        let profile = &options.profile;
        Ok(Run {
            model: about.model,
            pipeline: about.pipeline,
            target: profile.name.clone(),
            machine: format!(
                "{} with {} cores: {}",
                profile.arch.name(),
                profile.cores,
                profile.features.join(" ")
            ),
            threads: options.threads,
            names: self.names.texts,
            stages: self.stages,
            compiled: compiled_row(trace),
            kernels: found.0,
            code: found.1,
        })
    }
}

/// Puts errors into the values of a stage: a value whose numbers stay and whose error does not is told again, without
/// its statistics.
fn merge_errors(stage: &mut Stage, errors: &HashMap<usize, ErrorData>, before: &HashMap<usize, ErrorData>) {
    let mut told = HashSet::new();
    for value in &mut stage.values {
        value.error = errors.get(&value.name).cloned();
        told.insert(value.name);
    }
    let mut others: Vec<usize> = errors.keys().chain(before.keys()).copied().collect();
    others.sort_unstable();
    others.dedup();
    for name in others {
        let error = errors.get(&name);
        if !told.contains(&name) && error != before.get(&name) {
            stage.values.push(ValueData { name, shape: None, statistics: None, error: error.cloned() });
        }
    }
}

fn change(rule: &str, node: &str, detail: &str) -> ChangeData {
    ChangeData { rule: rule.to_owned(), node: node.to_owned(), detail: detail.to_owned() }
}

fn error_data(value: &ValueError) -> ErrorData {
    ErrorData {
        max: Number(value.total.max_abs),
        relative: Number(value.total.relative),
        rms: Number(value.total.rms),
        sqnr_db: value.total.sqnr_db.map(Number),
        added: Number(value.added.relative),
        injected: Number(value.injected.relative),
        inherited: Number(value.inherited.relative),
    }
}

fn ledger_row(row: &TraceRow) -> LedgerRow {
    let worst = row.outputs.iter().max_by(|a, b| a.added.relative.total_cmp(&b.added.relative));
    let total = row.outputs.iter().map(|output| output.total.relative).fold(0.0, f64::max);
    let why = match &row.verdict {
        crate::PassVerdict::Breaks(why) | crate::PassVerdict::Exceeds(why) => why.clone(),
        _ => String::new(),
    };
    LedgerRow {
        exactness: row.exactness.clone(),
        verdict: row.verdict.name().to_owned(),
        why,
        nodes: row.nodes,
        kernels: row.kernels,
        constants_bytes: row.constants_bytes,
        pass_ms: Number(row.pass_ms),
        run_ms: row.measured.map(|measured| Number(measured.median_ms)),
        predicted_ms: row.predicted.map(|predicted| Number(predicted.ms)),
        added: Number(worst.map_or(0.0, |output| output.added.relative)),
        added_sqnr_db: worst.and_then(|output| output.added.sqnr_db).map(Number),
        total: Number(total),
    }
}

fn compiled_row(trace: &Trace) -> LedgerRow {
    let compiled = &trace.compiled;
    let outputs = compiled.comparison.outputs();
    let worst = outputs.max_by(|a, b| a.difference.relative.total_cmp(&b.difference.relative));
    let last = trace.rows.last();
    LedgerRow {
        exactness: worst.map_or(String::new(), |row| format!("rounding: {:.1e}", row.tolerance)),
        verdict: worst.map_or("equal".to_owned(), |row| row.verdict.name().to_owned()),
        why: String::new(),
        nodes: last.map_or(0, |row| row.nodes),
        kernels: compiled.measured.kernels,
        constants_bytes: last.map_or(0, |row| row.constants_bytes),
        pass_ms: Number(compiled.measured.compile_ms),
        run_ms: Some(Number(compiled.measured.median_ms)),
        predicted_ms: compiled.predicted.map(|predicted| Number(predicted.ms)),
        added: Number(worst.map_or(0.0, |row| row.difference.relative)),
        added_sqnr_db: worst.and_then(|row| row.difference.sqnr_db).map(Number),
        total: Number(worst.map_or(0.0, |row| row.difference.relative)),
    }
}

/// Attributes as text; of a constant, its first elements.
fn attributes(op: &Op) -> String {
    let text = match op {
        Op::Constant(tensor) => elements(tensor),
        op => {
            let attrs = op.attrs();
            let mut parts: Vec<String> =
                attrs.iter().map(|(name, attr)| format!("{name}={}", attribute(attr))).collect();
            for (name, region) in op.regions() {
                parts.push(format!("{name}={{{} nodes}}", region.node_count()));
            }
            parts.join(", ")
        }
    };
    match text.char_indices().nth(MAX_TEXT) {
        Some((at, _)) => format!("{} ...", text.get(..at).unwrap_or_default()),
        None => text,
    }
}

fn attribute(attr: &Attr) -> String {
    match attr {
        Attr::Int(value) => value.to_string(),
        Attr::Float(value) => value.to_string(),
        Attr::Str(text) => format!("{text:?}"),
        Attr::Tensor(tensor) => format!("{}{:?} {}", tensor.dtype(), tensor.shape(), elements(tensor)),
        Attr::Ints(values) => format!("{values:?}"),
        Attr::Floats(values) => format!("{values:?}"),
        Attr::Strs(values) => format!("{values:?}"),
    }
}

/// The elements of a tensor, if they are few.
fn elements(tensor: &Tensor) -> String {
    if tensor.len() > SHOWN_ELEMENTS {
        return String::new();
    }
    if let Some(strings) = tensor.strings() {
        return format!("{strings:?}");
    }
    let values: Vec<String> = tensor.to_f64s().iter().map(ToString::to_string).collect();
    format!("[{}]", values.join(", "))
}
