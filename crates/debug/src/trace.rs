//! A pipeline pass by pass: what each one did, what it gained, and the error it added.

use crate::compare::{Comparison, compare};
use crate::measure::{Measured, compile, measure};
use crate::{DebugError, Difference, Tensors};
use rabot_ir::{Graph, interp};
use rabot_rewrite::{Exactness, PassCx, Pipeline, Stats, Step};
use rabot_runtime::Session;
use rabot_target::Profile;
use rabot_tensor::Tensor;
use serde::Serialize;
use std::collections::HashMap;

/// How to trace.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Target of the compiled programs; it has to be one that runs here.
    pub profile: Profile,
    /// Threads of the compiled programs.
    pub threads: usize,
    /// Compile and time the graph after each pass, not only after the last.
    pub time: bool,
}

/// A change that a pass made.
#[derive(Clone, Debug, Serialize)]
pub struct Change {
    /// The rule.
    pub rule: &'static str,
    /// Name of the node.
    pub node: String,
    /// What became of it.
    pub detail: String,
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
    /// Against the graph before the pass.
    pub added: Difference,
    /// Against the original graph.
    pub total: Difference,
}

/// Error of a value inside the graph after a pass, against the original graph.
#[derive(Clone, Debug, Serialize)]
pub struct ValueError {
    /// Name of the value.
    pub name: String,
    /// The error.
    pub total: Difference,
}

/// What became of a pass's promise.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase", tag = "kind", content = "why")]
pub enum PassVerdict {
    /// The original graph: what the others are measured against.
    Reference,
    /// Outputs moved no further than the pass promises.
    Holds,
    /// The pass promises no bound; the text is the metric that does.
    Changes(String),
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
            PassVerdict::Breaks(_) => "BREAKS",
        }
    }
}

/// The graph after one pass; the first row is the graph before all.
#[derive(Clone, Debug, Serialize)]
pub struct TraceRow {
    /// The pass with its options; `import` for the first row.
    pub pass: String,
    /// What the pass promises.
    pub exactness: String,
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
    /// Where the error comes from: the first value, in the order of evaluation, that is off by at least a sixteenth
    /// of what the worst is off, relative to its largest magnitude.
    pub origin: Option<ValueError>,
    /// The pass's promise.
    pub verdict: PassVerdict,
}

/// The compiled program of the last graph.
#[derive(Clone, Debug, Serialize)]
pub struct CompiledRow {
    /// Compile time, run time and number of kernels.
    pub measured: Measured,
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
    /// True if every pass keeps its promise and the compiled outputs are within their tolerance.
    pub passed: bool,
}

/// Sees a graph, and the step that made it.
pub(crate) type Visit<'a> = dyn FnMut(Option<&Step>, &Graph) -> Result<(), DebugError> + 'a;

/// Runs a pipeline and hands every graph to `visit`: first the original one, without a step, then that after each
/// pass. Gives the last one.
///
/// **Errors**: a pass fails, or `visit` does.
pub(crate) fn walk(
    graph: &Graph,
    pipeline: &Pipeline,
    cx: &PassCx<'_>,
    visit: &mut Visit<'_>,
) -> Result<Graph, DebugError> {
    visit(None, graph)?;
    let mut last = graph.clone();
    let mut outcome = Ok(());
    pipeline.run(&mut last, cx, &mut |step, graph| {
        if outcome.is_ok() {
            outcome = visit(Some(step), graph);
        }
    })?;
    outcome.map(|()| last)
}

/// Name of a stage in messages.
pub(crate) fn stage_name(step: Option<&Step>) -> String {
    step.map_or("import".to_owned(), |step| step.pass.clone())
}

/// Runs a pipeline on a graph and evaluates the graph after each pass with the interpreter. `observe` sees each step
/// and the graph after it.
///
/// **Errors**: a pass fails, a graph cannot be evaluated on the inputs, or the last one cannot be compiled.
pub fn trace(
    graph: &Graph,
    pipeline: &Pipeline,
    cx: &PassCx<'_>,
    inputs: &Tensors,
    options: &TraceOptions,
    observe: &mut dyn FnMut(Option<&Step>, &Graph),
) -> Result<Trace, DebugError> {
    let mut tracer = Tracer { inputs, options, original: HashMap::new(), outputs: None, rows: Vec::new() };
    let last = walk(graph, pipeline, cx, &mut |step, graph| {
        observe(step, graph);
        tracer.visit(step, graph)
    })?;
    let measured = measure(&last, &options.profile, options.threads, inputs)?;
    let session = Session::with_threads(&compile(&last, &options.profile)?, options.threads)?;
    let comparison = compare(&last, &session, inputs)?;
    let rows = tracer.rows;
    let breaks = rows.iter().any(|row| matches!(row.verdict, PassVerdict::Breaks(_)));
    let passed = comparison.passed && !breaks;
    Ok(Trace { rows, compiled: CompiledRow { measured, comparison }, passed })
}

struct Tracer<'a> {
    inputs: &'a Tensors,
    options: &'a TraceOptions,
    /// Values of the original graph by name.
    original: HashMap<String, Tensor>,
    /// Outputs of the original graph, and of the graph before this pass.
    outputs: Option<(Tensors, Tensors)>,
    rows: Vec<TraceRow>,
}

impl Tracer<'_> {
    fn visit(&mut self, step: Option<&Step>, graph: &Graph) -> Result<(), DebugError> {
        let stage = stage_name(step);
        let mut values = Values::default();
        let original = &mut self.original;
        let outputs = interp::run_observed(graph, self.inputs, &mut |value, tensor| {
            if graph.constant(value).is_some() || graph.inputs().contains(&value.node) {
                return;
            }
            let name: &str = graph.value_name(value);
            match step {
                None => drop(original.insert(name.to_owned(), tensor.clone())),
                Some(_) => values.see(name, original.get(name), tensor),
            }
        })
        .map_err(|error| DebugError::interp(&format!("the graph after `{stage}`"), error))?;
        let (first, before) = self.outputs.take().unwrap_or_else(|| (outputs.clone(), outputs.clone()));
        let errors = output_errors(&outputs, &before, &first);
        let verdict = match step {
            None => PassVerdict::Reference,
            Some(step) => judge(step.exactness, &outputs, &before),
        };
        let (measured, not_measured) = self.time(graph);
        let stats = Stats::of(graph);
        let report = step.map(|step| &step.report);
        self.rows.push(TraceRow {
            pass: stage,
            exactness: step.map_or(String::new(), |step| step.exactness.to_string()),
            applied: report.map_or(vec![], |report| changes(&report.applied)),
            skipped: report.map_or(vec![], |report| skips(&report.skipped)),
            nodes: stats.nodes,
            kernels: stats.kernels,
            constants_bytes: stats.constants_bytes,
            pass_ms: report.map_or(0.0, |report| report.elapsed.as_secs_f64() * 1e3),
            measured,
            not_measured,
            outputs: errors,
            values_compared: values.compared,
            values_changed_type: values.changed_type,
            worst_value: values.worst().cloned(),
            origin: values.origin().cloned(),
            verdict,
        });
        self.outputs = Some((first, outputs));
        Ok(())
    }

    /// Compiles and times a graph, if asked to. That an intermediate graph cannot be compiled is no failure.
    fn time(&self, graph: &Graph) -> (Option<Measured>, Option<String>) {
        if !self.options.time {
            return (None, None);
        }
        match measure(graph, &self.options.profile, self.options.threads, self.inputs) {
            Ok(measured) => (Some(measured), None),
            Err(error) => (None, Some(error.to_string())),
        }
    }
}

/// Values inside a graph against the original ones.
#[derive(Default)]
struct Values {
    compared: usize,
    changed_type: usize,
    /// Those that differ, in the order of evaluation.
    differing: Vec<ValueError>,
}

impl Values {
    fn see(&mut self, name: &str, original: Option<&Tensor>, tensor: &Tensor) {
        let Some(original) = original else { return };
        let Some(total) = Difference::of(tensor, original) else {
            self.changed_type += 1;
            return;
        };
        self.compared += 1;
        if !total.is_equal() {
            self.differing.push(ValueError { name: name.to_owned(), total });
        }
    }

    fn worst(&self) -> Option<&ValueError> {
        self.differing.iter().max_by(|a, b| a.total.relative.total_cmp(&b.total.relative))
    }

    fn origin(&self) -> Option<&ValueError> {
        let worst = self.worst()?.total.relative;
        self.differing.iter().find(|value| value.total.relative >= worst / 16.0)
    }
}

fn changes(applied: &[rabot_rewrite::Applied]) -> Vec<Change> {
    let change =
        |a: &rabot_rewrite::Applied| Change { rule: a.rule, node: a.node.clone(), detail: a.detail.clone() };
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

fn output_errors(now: &Tensors, before: &Tensors, first: &Tensors) -> Vec<OutputError> {
    let apart = |name: &str, tensor: &Tensor, other: &Tensors| {
        other
            .get(name)
            .and_then(|other| Difference::of(tensor, other))
            .unwrap_or(Difference::unlike(tensor.len()))
    };
    let error = |(name, tensor): (&String, &Tensor)| OutputError {
        name: name.clone(),
        added: apart(name, tensor, before),
        total: apart(name, tensor, first),
    };
    now.iter().map(error).collect()
}

/// Holds a pass to what it promises.
fn judge(exactness: Exactness, now: &Tensors, before: &Tensors) -> PassVerdict {
    for (name, old) in before {
        let difference = now.get(name).and_then(|new| Difference::of(new, old));
        let Some(difference) = difference else {
            return PassVerdict::Breaks(format!("output `{name}` has another dtype or shape"));
        };
        let allowed = match exactness {
            Exactness::Bitwise => now.get(name) == Some(old),
            Exactness::Ulp(count) => difference.max_ulp <= u64::from(count),
            Exactness::Rel { rtol, atol } => {
                difference.is_equal() || difference.max_abs <= atol + rtol * difference.max_reference
            }
            Exactness::Changes(_) => true,
        };
        if !allowed {
            let Difference { max_abs, relative, max_ulp, differing, elements, .. } = difference;
            return PassVerdict::Breaks(format!(
                "output `{name}` moved by {max_abs:.2e} ({relative:.2e} of its largest magnitude, {max_ulp} ulp; \
                 {differing} of {elements} elements), the pass promises {exactness}"
            ));
        }
    }
    match exactness {
        Exactness::Changes(metric) => PassVerdict::Changes(metric.to_owned()),
        Exactness::Bitwise | Exactness::Ulp(_) | Exactness::Rel { .. } => PassVerdict::Holds,
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rabot_ir::Op;
    use rabot_ir::text::parse;
    use rabot_rewrite::{Pass, PassError, Report};

    pub(crate) const TEXT: &str = "model \"m\" input %0 \"x\" : f32[n,3]
        %1 = Constant [1.0, 2.0, 3.0] : f32[3] \"w\"
        %2 = Mul(%0, %1) \"scaled\"
        %3 = Relu(%2) \"kept\"
        output \"y\" = %3";

    pub(crate) fn inputs() -> Tensors {
        let x = Tensor::from_vec(&[2, 3], vec![0.5f32, -1.0, 0.25, 1.0, 2.0, -3.0]);
        Tensors::from_iter([("x".to_owned(), x)])
    }

    /// Says that it changes nothing, and adds to a constant.
    #[derive(Debug)]
    pub(crate) struct Sabotage(pub f32);

    impl Pass for Sabotage {
        fn name(&self) -> &'static str {
            "sabotage"
        }

        fn summary(&self) -> &'static str {
            "add to a weight"
        }

        fn exactness(&self) -> Exactness {
            Exactness::Bitwise
        }

        fn run(&self, graph: &mut Graph, _: &PassCx<'_>) -> Result<Report, PassError> {
            let id = graph.node_ids().find(|&id| matches!(graph.node(id).op, Op::Constant(_))).unwrap();
            graph.set_op(id, Op::Constant(Tensor::from_vec(&[3], vec![1.0, 2.0 + self.0, 3.0]))).unwrap();
            let mut report = Report::default();
            report.apply("sabotage", "w", "");
            Ok(report)
        }
    }

    #[test]
    fn the_pass_that_breaks_its_promise_is_named() {
        let graph = parse(TEXT).unwrap();
        let mut pipeline = rabot_passes::pipeline("fold,cse").unwrap();
        pipeline.push(Box::new(Sabotage(0.5)));
        for pass in ["dce", "group"] {
            pipeline.push(passes_of(pass));
        }
        let options = TraceOptions { profile: Profile::host().unwrap(), threads: 1, time: false };
        let found =
            trace(&graph, &pipeline, &PassCx::default(), &inputs(), &options, &mut |_, _| {}).unwrap();
        assert!(!found.passed);
        let names: Vec<&str> = found.rows.iter().map(|row| row.verdict.name()).collect();
        assert_eq!(names, ["reference", "holds", "holds", "BREAKS", "holds", "holds"]);
        let row = &found.rows[3];
        assert_eq!((row.pass.as_str(), row.outputs[0].name.as_str()), ("sabotage", "y"));
        assert_eq!(row.outputs[0].added.max_abs, 1.0);
        assert_eq!(row.origin.as_ref().unwrap().name, "scaled");
        // Later passes add nothing, but the error stays.
        assert_eq!(
            (found.rows[4].outputs[0].added.max_abs, found.rows[4].outputs[0].total.max_abs),
            (0.0, 1.0)
        );
        assert!(found.compiled.comparison.passed);
    }

    pub(crate) fn passes_of(name: &str) -> Box<dyn Pass> {
        let info = rabot_passes::PASSES.iter().find(|info| info.name == name).unwrap();
        (info.make)(&rabot_rewrite::Options::new(info.name, info.options)).unwrap()
    }

    #[test]
    fn the_default_pipeline_keeps_its_promises() {
        let graph = parse(TEXT).unwrap();
        let options = TraceOptions { profile: Profile::host().unwrap(), threads: 1, time: true };
        let pipeline = rabot_passes::default_pipeline();
        let mut seen = 0;
        let found =
            trace(&graph, &pipeline, &PassCx::default(), &inputs(), &options, &mut |_, _| seen += 1).unwrap();
        assert!(found.passed, "{found:?}");
        assert_eq!(seen, pipeline.passes().len() + 1);
        assert_eq!(found.rows.last().unwrap().kernels, 1);
        assert!(found.rows.iter().all(|row| row.measured.is_some()));
    }
}
