//! What a trace tells, row by row.

use super::{Ask, Draft, Evaluated, Split, TraceOptions};
use crate::compare::Comparison;
use crate::measure::Measured;
use crate::predict::Predicted;
use crate::tolerance::{self, Tolerance, Verdict};
use crate::{DebugError, Difference};
use rabot_ir::GraphError;
use rabot_rewrite::{Exactness, Stats};
use serde::Serialize;
use std::collections::HashMap;
use std::sync::Arc;

/// A change that a pass made.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The rule.
    pub rule: &'static str,
    /// Name of the node.
    pub node: String,
    /// What became of it.
    pub detail: String,
    /// Names of the model's own nodes that it is about; empty where the node itself tells.
    pub sources: Vec<String>,
}

/// A change that a pass could have made by its pattern and did not make.
#[derive(Clone, Debug, Serialize)]
pub struct SkippedChange {
    /// The rule.
    pub rule: &'static str,
    /// Name of the node.
    pub node: String,
    /// Why not.
    pub reason: String,
}

/// Error of one output after a pass.
#[derive(Clone, Debug, Serialize)]
pub struct OutputError {
    /// Name of the output.
    pub name: String,
    /// Hash of the output; see [`crate::golden::hash`].
    pub blake3: Option<String>,
    /// Against the graph before the pass.
    pub added: Difference,
    /// The part of it that the pass injected at the output itself.
    pub injected: Difference,
    /// The part of it that came through operands.
    pub inherited: Difference,
    /// Against the original graph.
    pub total: Difference,
    /// Largest relative error added that rounding explains.
    pub tolerance: f64,
    /// What that is derived from.
    pub tolerance_reason: String,
    /// The error added, measured by the tolerance.
    pub verdict: Verdict,
}

/// Error of a value inside the graph after a pass.
#[derive(Clone, Debug, Serialize)]
pub struct ValueError {
    /// Name of the value.
    pub name: String,
    /// Against the graph before the pass.
    pub added: Difference,
    /// The part of it that the pass injected at this value.
    pub injected: Difference,
    /// The part of it that came through operands.
    pub inherited: Difference,
    /// Against the original graph.
    pub total: Difference,
}

/// What became of a pass's promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "why")]
pub enum PassVerdict {
    /// The original graph: what the others are measured against.
    Reference,
    /// Outputs moved no further than the pass promises and rounding explains.
    Holds,
    /// The pass promises no bound; the text is the metric that does.
    Changes(String),
    /// An output moved no further than the pass promises, and further than rounding explains; the text says which.
    Exceeds(String),
    /// An output moved further than the pass promises; the text says which and by how much.
    Breaks(String),
}

impl PassVerdict {
    /// One word for tables.
    pub fn name(&self) -> &'static str {
        match self {
            PassVerdict::Reference => "reference",
            PassVerdict::Holds => "holds",
            PassVerdict::Changes(_) => "changes",
            PassVerdict::Exceeds(_) => "EXCEEDS",
            PassVerdict::Breaks(_) => "BREAKS",
        }
    }

    /// True if something is wrong.
    pub fn fails(&self) -> bool {
        matches!(self, PassVerdict::Exceeds(_) | PassVerdict::Breaks(_))
    }
}

/// The graph after one pass; the first row is the graph before all.
#[derive(Clone, Debug, Serialize)]
pub struct TraceRow {
    /// The pass with its options; `import` for the first row.
    pub pass: String,
    /// What the pass promises.
    pub exactness: String,
    /// Number of the first change in the pipeline; the others follow. 0 for the first row.
    pub first_change: usize,
    /// Changes made.
    pub applied: Vec<Change>,
    /// Changes not made.
    pub skipped: Vec<SkippedChange>,
    /// Operators.
    pub nodes: usize,
    /// Kernels, as groups and nodes without a group make them.
    pub kernels: usize,
    /// Bytes of the constants.
    pub constants_bytes: u64,
    /// Time the pass took, in milliseconds.
    pub pass_ms: f64,
    /// Time of a run, by a model of the target; none if the graph cannot be planned.
    pub predicted: Option<Predicted>,
    /// Compiled and timed.
    pub measured: Option<Measured>,
    /// Why there is no time, if there should be one.
    pub not_measured: Option<String>,
    /// Error of each output.
    pub outputs: Vec<OutputError>,
    /// Values inside the graph that the original graph has too, by name, with the same dtype and shape.
    pub values_compared: usize,
    /// Values that have the name of an original one and another dtype or shape.
    pub values_changed_type: usize,
    /// The value that is furthest from the original, relative to its largest magnitude; absent if all are equal.
    pub worst_value: Option<ValueError>,
    /// Where the error comes from: the value at which the pass injected most, relative to its largest magnitude.
    pub origin: Option<ValueError>,
    /// Every value that is not equal to the original one, operands first; empty unless they were asked for.
    pub values: Vec<ValueError>,
    /// The pass's promise.
    pub verdict: PassVerdict,
}

/// The compiled program of the last graph.
#[derive(Clone, Debug, Serialize)]
pub struct CompiledRow {
    /// Compile time, run time and number of kernels.
    pub measured: Measured,
    /// Run time by a model of the target.
    pub predicted: Option<Predicted>,
    /// Against the interpreter on the same graph.
    pub comparison: Comparison,
}

/// A pipeline, pass by pass.
#[derive(Clone, Debug, Serialize)]
pub struct Trace {
    /// The graph before all, then after each pass.
    pub rows: Vec<TraceRow>,
    /// The compiled program.
    pub compiled: CompiledRow,
    /// Operators that the interpreter applied, for all graphs together.
    pub evaluations: usize,
    /// True if every pass keeps its promise and the compiled outputs are within their tolerance.
    pub passed: bool,
}

/// The rows of all graphs. `amplified` is how much the model amplifies errors, by name of output.
///
/// **Errors**: a graph has a cycle.
pub(super) fn rows(
    drafts: &[Draft],
    found: &Evaluated,
    amplified: &HashMap<Arc<str>, f64>,
    predicted: &[Option<Predicted>],
    options: &TraceOptions,
) -> Result<Vec<TraceRow>, DebugError> {
    let mut before: HashMap<String, Tolerance> = HashMap::new();
    let mut rows = Vec::with_capacity(drafts.len());
    let mut stats: Option<(usize, Stats)> = None;
    for (at, draft) in drafts.iter().enumerate() {
        let same = stats.take().filter(|(outline, _)| *outline == draft.outline);
        let counted = same.map_or_else(|| Stats::of(&draft.stage.graph), |(_, stats)| stats);
        let now = tolerances(draft, found, amplified)?;
        let outputs: Vec<OutputError> =
            draft.outputs.iter().map(|output| output_error(draft, output, found, &now, &before)).collect();
        let predicted = predicted.get(at).copied().flatten();
        rows.push(TraceRow { predicted, ..row(draft, outputs, found, options, &counted) });
        stats = Some((draft.outline, counted));
        before = now;
    }
    Ok(rows)
}

fn tolerances(
    draft: &Draft,
    found: &Evaluated,
    amplified: &HashMap<Arc<str>, f64>,
) -> Result<HashMap<String, Tolerance>, GraphError> {
    let graph = &draft.stage.graph;
    let derived = tolerance::derive(graph, &found.shapes_of(&draft.stage))?;
    let output = |output: &rabot_ir::GraphOutput| {
        let amplification = amplified.get(&output.name).copied().unwrap_or(0.0);
        let tolerance = derived.get(&output.value).copied().unwrap_or_default().amplified(amplification);
        (output.name.to_string(), tolerance)
    };
    Ok(graph.outputs().iter().map(output).collect())
}

fn output_error(
    draft: &Draft,
    (name, port, split): &(String, super::Port, Option<Split>),
    found: &Evaluated,
    now: &HashMap<String, Tolerance>,
    before: &HashMap<String, Tolerance>,
) -> OutputError {
    let answer = |ask: fn(&Split) -> Ask| {
        let found_answer = split.as_ref().and_then(|split| found.answer(ask(split)));
        found_answer.unwrap_or_else(|| Difference::unlike(found.elements(*port)))
    };
    let of = |tolerances: &HashMap<String, Tolerance>| tolerances.get(name).copied().unwrap_or_default();
    // What a pass leaves out was rounded before it.
    let tolerance = of(now).or(of(before));
    let added = answer(|split| split.added);
    let value = draft.stage.graph.outputs().iter().find(|output| *output.name == **name);
    let dtype = value.map(|output| draft.stage.graph.fact(output.value).dtype());
    let verdict = dtype.map_or(Verdict::Exceeds, |dtype| tolerance.judge(dtype, &added));
    OutputError {
        name: name.clone(),
        blake3: found.kept.get(port).and_then(|datum| datum.tensor()).map(crate::golden::hash),
        added,
        injected: answer(|split| split.injected),
        inherited: answer(|split| split.inherited),
        total: answer(|split| split.total),
        tolerance: tolerance.relative(),
        tolerance_reason: tolerance.reason(),
        verdict,
    }
}

fn row(
    draft: &Draft,
    outputs: Vec<OutputError>,
    found: &Evaluated,
    options: &TraceOptions,
    stats: &Stats,
) -> TraceRow {
    let report = draft.step.as_ref().map(|step| &step.report);
    let verdict = match &draft.step {
        None => PassVerdict::Reference,
        Some(step) => judge(step.exactness, draft, &outputs),
    };
    let (mut values, mut compared, mut changed_type) = (Vec::new(), draft.same, 0);
    for (name, split) in &draft.values {
        match value_error(name, split, found) {
            None => changed_type += 1,
            Some(value) => {
                compared += 1;
                values.push(value);
            }
        }
    }
    let worst = |of: fn(&ValueError) -> &Difference| {
        let differing = values.iter().filter(|value| !of(value).is_equal());
        // Of those that are equally bad it is the first.
        differing.rev().max_by(|a, b| of(a).relative.total_cmp(&of(b).relative)).cloned()
    };
    let (worst_value, origin) = (worst(|value| &value.total), worst(|value| &value.injected));
    values.retain(|value| options.values && !(value.total.is_equal() && value.added.is_equal()));
    TraceRow {
        pass: draft.name.clone(),
        exactness: draft.step.as_ref().map_or(String::new(), |step| step.exactness.to_string()),
        first_change: draft.step.as_ref().map_or(0, |step| step.first_change),
        applied: report.map_or(vec![], |report| changes(&report.applied)),
        skipped: report.map_or(vec![], |report| skips(&report.skipped)),
        nodes: stats.nodes,
        kernels: stats.kernels,
        constants_bytes: stats.constants_bytes,
        pass_ms: report.map_or(0.0, |report| report.elapsed.as_secs_f64() * 1e3),
        predicted: None,
        measured: draft.measured,
        not_measured: draft.not_measured.clone(),
        outputs,
        values_compared: compared,
        values_changed_type: changed_type,
        worst_value,
        origin,
        values,
        verdict,
    }
}

fn value_error(name: &str, split: &Split, found: &Evaluated) -> Option<ValueError> {
    let total = found.answer(split.total)?;
    // Where the nodes of this pass cannot be evaluated on the values before it, nothing is told apart.
    let or_none = |ask: Ask| found.answer(ask).unwrap_or(Difference::none(total.elements));
    Some(ValueError {
        name: name.to_owned(),
        added: or_none(split.added),
        injected: or_none(split.injected),
        inherited: or_none(split.inherited),
        total,
    })
}

fn changes(applied: &[rabot_rewrite::Applied]) -> Vec<Change> {
    let change = |a: &rabot_rewrite::Applied| Change {
        rule: a.rule,
        node: a.node.clone(),
        detail: a.detail.clone(),
        sources: a.sources.iter().map(|source| source.to_string()).collect(),
    };
    applied.iter().map(change).collect()
}

fn skips(skipped: &[rabot_rewrite::Skipped]) -> Vec<SkippedChange> {
    let skip = |s: &rabot_rewrite::Skipped| SkippedChange {
        rule: s.rule,
        node: s.node.clone(),
        reason: s.reason.clone(),
    };
    skipped.iter().map(skip).collect()
}

/// Holds a pass to what it promises, and to what rounding explains.
fn judge(exactness: Exactness, draft: &Draft, outputs: &[OutputError]) -> PassVerdict {
    for (output, (name, _, split)) in outputs.iter().zip(&draft.outputs) {
        let difference = &output.added;
        if split.is_none() {
            return PassVerdict::Breaks(format!("output `{name}` is new"));
        }
        let allowed = match exactness {
            Exactness::Bitwise => difference.is_equal(),
            Exactness::Ulp(count) => difference.max_ulp <= u64::from(count),
            Exactness::Rel { rtol, atol } => {
                difference.is_equal() || difference.max_abs <= atol + rtol * difference.max_reference
            }
            Exactness::Changes(_) => true,
        };
        if !allowed {
            return PassVerdict::Breaks(format!(
                "{}, the pass promises {exactness}",
                moved(name, difference)
            ));
        }
    }
    let exceeds = |output: &&OutputError| output.verdict == Verdict::Exceeds;
    match (exactness, outputs.iter().find(exceeds)) {
        (Exactness::Changes(metric), _) if outputs.iter().any(|output| !output.added.is_equal()) => {
            PassVerdict::Changes(metric.to_owned())
        }
        (_, Some(output)) => PassVerdict::Exceeds(format!(
            "{}, rounding explains {:.2e}: {}",
            moved(&output.name, &output.added),
            output.tolerance,
            output.tolerance_reason
        )),
        (_, None) => PassVerdict::Holds,
    }
}

fn moved(name: &str, difference: &Difference) -> String {
    let Difference { max_abs, relative, max_ulp, differing, elements, .. } = difference;
    if max_abs.is_infinite() {
        return format!("output `{name}` has another dtype or shape, or is finite in one of both only");
    }
    format!(
        "output `{name}` moved by {max_abs:.2e} ({relative:.2e} of its largest magnitude, {max_ulp} ulp; \
         {differing} of {elements} elements)"
    )
}
