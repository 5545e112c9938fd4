//! A pipeline pass by pass: what each one did, what it gained, and the error it added.
//!
//! The graph after each pass is compared with the original one and with the one before, at every tensor that they have
//! by name. With *now*, *before* and *first* for a value in these graphs, and *new* for what the value's own node (or the
//! nodes that stand for the ones before) computes from the values of the graph before:
//!
//! ```text
//! added     = now − before        what the pass changed
//! injected  = new − before        what it changed at this very value
//! inherited = now − new           what comes through operands that it changed further up
//! total     = now − first         all passes so far
//! ```
//!
//! so that added = injected + inherited, element by element. *new* takes an operand from the graph before if that has a
//! value of the same name, dtype and rank, and else computes it in the same way; a value whose node did not change is
//! injected nothing.
//!
//! Graphs share what they have in common (`exprs`), and each operator is applied once to the same contents (`evaluate`):
//! a pipeline costs little more than what its passes change.

mod evaluate;
pub(crate) mod exprs;
mod outlines;
mod rows;

pub(crate) use evaluate::{Evaluated, Late, Outcome, Request, Side, evaluate};
use outlines::{Outlines, Planned};
pub use rows::{Change, CompiledRow, OutputError, PassVerdict, SkippedChange, Trace, TraceRow, ValueError};

use crate::compare::{Observation, Plan};
use crate::measure::{Measured, compile, measure, timed};
use crate::predict::{self, Predicted};
use crate::{DebugError, Difference, Tensors, tolerance};
use exprs::{Exprs, Port, Stage};
use rabot_ir::interp::{self, Data};
use rabot_ir::{Datum, Graph, Value};
use rabot_rewrite::{PassCx, Pipeline, Step};
use rabot_runtime::Session;
use rabot_target::Profile;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::Instant;

/// How to trace.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Target of the compiled programs; it has to be one that runs here.
    pub profile: Profile,
    /// Threads of the compiled programs.
    pub threads: usize,
    /// Compile and time the graph after each pass, not only after the last.
    pub time: bool,
    /// List every value that a pass moved, not only the worst.
    pub values: bool,
    /// Threads that evaluate graphs; results do not depend on how many.
    pub workers: usize,
}

impl TraceOptions {
    /// For a target: one thread for the compiled program, and all cores for evaluation.
    pub fn new(profile: Profile) -> Self {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(MOST_WORKERS);
        TraceOptions { profile, threads: 1, time: false, values: false, workers }
    }
}

/// More threads than graphs that are evaluated side by side are of no use.
const MOST_WORKERS: usize = 8;

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

/// Runs a pipeline on a graph and compares the graphs after each pass as the interpreter evaluates them, and the compiled
/// program with the last one. `observe` sees each step and the graph after it; all of them before the first evaluation.
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
    Ok(run(graph, pipeline, cx, inputs, options, observe)?.trace)
}

/// A trace, and the outputs that it saw.
pub(crate) struct Traced {
    /// The trace.
    pub trace: Trace,
    /// Outputs of the original graph and after each pass.
    pub outputs: Vec<Tensors>,
    /// Outputs of the compiled program.
    pub compiled: Tensors,
}

/// As [`trace`], and gives the outputs too.
///
/// **Errors**: as [`trace`].
pub(crate) fn run(
    graph: &Graph,
    pipeline: &Pipeline,
    cx: &PassCx<'_>,
    inputs: &Tensors,
    options: &TraceOptions,
    observe: &mut dyn FnMut(Option<&Step>, &Graph),
) -> Result<Traced, DebugError> {
    let bound = bind(graph, inputs)?;
    std::thread::scope(|scope| {
        let mut tracer = Tracer {
            inputs,
            bound,
            options,
            exprs: Exprs::default(),
            asks: Asks::default(),
            stages: vec![],
            outlines: Outlines::start(scope, &options.profile),
        };
        walk(graph, pipeline, cx, &mut |step, graph| {
            observe(step, graph);
            tracer.visit(step, graph)
        })?;
        tracer.finish()
    })
}

/// The inputs of a graph in its order.
///
/// **Errors**: one is missing, unknown or of another type.
pub(crate) fn bind(graph: &Graph, inputs: &Tensors) -> Result<Vec<Option<Datum>>, DebugError> {
    let data: Data =
        inputs.iter().map(|(name, tensor)| (name.clone(), Datum::Tensor(tensor.clone()))).collect();
    interp::bind(graph, &data).map_err(|error| DebugError::interp("the imported graph", error))
}

/// The difference of two values, asked for.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ask {
    /// They are one value.
    Same(Port),
    /// Number of the request.
    Request(usize),
}

/// What is to be compared.
#[derive(Debug, Default)]
pub(crate) struct Asks {
    requests: Vec<Request>,
    known: HashMap<(Port, Port), usize>,
}

impl Asks {
    /// Asks how far a value is from another one.
    pub fn apart(&mut self, left: Port, right: Port) -> Ask {
        if left == right {
            return Ask::Same(left);
        }
        let next = self.requests.len();
        let number = *self.known.entry((left, right)).or_insert(next);
        if number == next {
            self.requests.push(Request { left: Side::Port(left), right });
        }
        Ask::Request(number)
    }

    /// Asks how far something that is told later is from a value; gives the number of the request.
    pub fn later(&mut self, right: Port) -> usize {
        self.requests.push(Request { left: Side::Later, right });
        self.requests.len() - 1
    }

    /// The requests.
    pub fn into_requests(self) -> Vec<Request> {
        self.requests
    }
}

impl Evaluated {
    /// The answer; `None` if the values cannot be compared.
    pub fn answer(&self, ask: Ask) -> Option<Difference> {
        match ask {
            Ask::Same(port) => Some(Difference::none(self.elements(port))),
            Ask::Request(number) => match self.outcomes.get(number) {
                Some(Outcome::Apart(difference)) => Some(*difference),
                Some(Outcome::Unlike(_) | Outcome::Missing) | None => None,
            },
        }
    }

    /// Elements of a value; 0 if it is no tensor.
    pub fn elements(&self, port: Port) -> usize {
        self.shapes.get(&port).map_or(0, |shape| shape.iter().product())
    }

    /// Shapes of the values of a graph.
    pub fn shapes_of(&self, stage: &Stage) -> HashMap<Value, Vec<usize>> {
        let shape = |(value, port): (&Value, &Port)| Some((*value, self.shapes.get(port)?.clone()));
        stage.ports.iter().filter_map(shape).collect()
    }
}

/// The differences of one value that a row tells.
#[derive(Clone, Copy, Debug)]
struct Split {
    added: Ask,
    injected: Ask,
    inherited: Ask,
    total: Ask,
}

/// A graph of the pipeline, and what is to be said of it.
struct Draft {
    name: String,
    step: Option<Step>,
    stage: Stage,
    /// Number of its outline.
    outline: usize,
    measured: Option<Measured>,
    not_measured: Option<String>,
    /// Output, its value, and the differences; none where the graph before or the original has no such output.
    outputs: Vec<(String, Port, Option<Split>)>,
    /// Values that the original graph has too and that are not the same expression.
    values: Vec<(Arc<str>, Split)>,
    /// Those that are.
    same: usize,
}

struct Tracer<'a> {
    inputs: &'a Tensors,
    bound: Vec<Option<Datum>>,
    options: &'a TraceOptions,
    exprs: Exprs,
    asks: Asks,
    stages: Vec<Draft>,
    outlines: Outlines<'a>,
}

impl Tracer<'_> {
    fn visit(&mut self, step: Option<&Step>, graph: &Graph) -> Result<(), DebugError> {
        let before = self.stages.last();
        let unchanged = before.filter(|draft| *draft.stage.graph == *graph);
        let shared = match unchanged {
            Some(draft) => draft.stage.graph.clone(),
            None => Arc::new(graph.clone()),
        };
        let outline = match unchanged {
            Some(draft) => draft.outline,
            None => self.outlines.of(shared.clone()),
        };
        let number = self.stages.len();
        let stage = self.exprs.read(shared, &self.bound, Some(number), before.map(|draft| &draft.stage))?;
        let (outputs, values, same) = self.splits(&stage);
        let (measured, not_measured) = self.time(graph);
        self.stages.push(Draft {
            name: stage_name(step),
            step: step.cloned(),
            stage,
            outline,
            measured,
            not_measured,
            outputs,
            values,
            same,
        });
        Ok(())
    }

    /// Asks for the differences of a graph from the one before and from the original one.
    #[allow(clippy::type_complexity, reason = "the parts of a draft")]
    fn splits(
        &mut self,
        stage: &Stage,
    ) -> (Vec<(String, Port, Option<Split>)>, Vec<(Arc<str>, Split)>, usize) {
        let own = |output: &rabot_ir::GraphOutput| stage.ports.get(&output.value).copied();
        let (Some(first), Some(before)) = (self.stages.first(), self.stages.last()) else {
            let outputs = stage.graph.outputs().iter().filter_map(|o| Some((o, own(o)?)));
            let same = |port| Split {
                added: Ask::Same(port),
                injected: Ask::Same(port),
                inherited: Ask::Same(port),
                total: Ask::Same(port),
            };
            let outputs = outputs.map(|(o, port)| (o.name.to_string(), port, Some(same(port)))).collect();
            return (outputs, Vec::new(), 0);
        };
        let new = self.exprs.injected(stage, &before.stage);
        let asks = &mut self.asks;
        let mut split = |now: Port, new: Port, before: Port, first: Port| Split {
            added: asks.apart(now, before),
            injected: asks.apart(new, before),
            inherited: asks.apart(now, new),
            total: asks.apart(now, first),
        };
        let mut outputs = Vec::new();
        for output in stage.graph.outputs() {
            let Some(now) = own(output) else { continue };
            let of = |draft: &Draft| draft.outputs.iter().find(|o| *o.0 == *output.name).map(|o| o.1);
            let ports = of(before).zip(of(first));
            let new = new.get(&output.value).copied().unwrap_or(now);
            let split = ports.map(|(before, first)| split(now, new, before, first));
            outputs.push((output.name.to_string(), now, split));
        }
        let (mut values, mut same) = (Vec::new(), 0);
        for (name, value) in &stage.named {
            let of = |stage: &Stage| stage.ports.get(stage.by_name.get(name)?).copied();
            let Some((now, first)) = of(stage).zip(of(&first.stage)) else { continue };
            if now == first {
                same += 1;
                continue;
            }
            let new = new.get(value).copied().unwrap_or(now);
            // A name that the graph before did not have is held to the original one.
            let split = match of(&before.stage) {
                Some(before) => split(now, new, before, first),
                None => split(now, new, first, first),
            };
            values.push((name.clone(), split));
        }
        (outputs, values, same)
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

    fn finish(mut self) -> Result<Traced, DebugError> {
        let moved = self.moved()?;
        let outlines = std::mem::take(&mut self.outlines);
        let Some(last) = self.stages.last() else {
            return Err(DebugError::Bisect("there is no graph".to_owned()));
        };
        let plan = Plan::new(&last.stage, &mut self.asks);
        let keep: Vec<Port> =
            self.stages.iter().flat_map(|draft| draft.outputs.iter().map(|o| o.1)).collect();
        let requests = std::mem::take(&mut self.asks).into_requests();
        let mut compiled =
            Compiled { tracer: &self, plan: &plan, stage: &last.stage, made: None, seen: None };
        let found = evaluate(&self.exprs, requests, &keep, self.options.workers, &mut compiled);
        let seen = compiled.seen;
        let (observation, measured) =
            seen.unwrap_or_else(|| Err(DebugError::Bisect("the compiled program was not run".to_owned())))?;
        let found = found.map_err(|(stage, error)| {
            let name = self.stages.get(stage).map_or("import", |draft| &draft.name);
            DebugError::interp(&format!("the graph after `{name}`"), error)
        })?;
        let amplified: HashMap<Arc<str>, f64> = moved
            .into_iter()
            .filter_map(|(name, ask)| Some((name, tolerance::amplification_of(&found.answer(ask)?))))
            .collect();
        let predicted = self.predictions(outlines.finish(), &found);
        let rows = rows::rows(&self.stages, &found, &amplified, &predicted, self.options)?;
        let outputs = self.stages.iter().map(|draft| outputs_of(draft, &found)).collect();
        let amplification = |name: &str| amplified.get(name).copied();
        let (compiled, comparison) = plan.finish(observation, &last.stage, &found, &amplification)?;
        let fails = rows.iter().any(|row| row.verdict.fails());
        let passed = comparison.passed && !fails;
        let predicted = rows.last().and_then(|row| row.predicted);
        let compiled_row = CompiledRow { measured, predicted, comparison };
        let trace = Trace { rows, compiled: compiled_row, evaluations: found.applied, passed };
        Ok(Traced { trace, outputs, compiled })
    }

    /// The predicted time of each graph, with the sizes that its values had; graphs that are one share it.
    fn predictions(&self, outlines: Planned, found: &Evaluated) -> Vec<Option<Predicted>> {
        let mut known: HashMap<usize, Option<Predicted>> = HashMap::new();
        let mut one = |draft: &Draft| {
            *known.entry(draft.outline).or_insert_with(|| {
                let staged = outlines.get(draft.outline)?.as_ref()?;
                let sizes = predict::sizes(&draft.stage.graph, &found.shapes_of(&draft.stage));
                Some(predict::predict(staged, &self.options.profile, self.options.threads, &sizes))
            })
        };
        self.stages.iter().map(&mut one).collect()
    }

    /// Asks how far perturbed inputs move the values and outputs of the original graph; outputs by their own names.
    fn moved(&mut self) -> Result<Vec<(Arc<str>, Ask)>, DebugError> {
        let (Some(first), Some(inputs)) = (self.stages.first(), tolerance::perturbed(self.inputs)) else {
            return Ok(Vec::new());
        };
        let stage = &first.stage;
        let bound = bind(&stage.graph, &inputs)?;
        let moved = self.exprs.read(stage.graph.clone(), &bound, None, Some(stage))?;
        Ok(moved_values(stage, &moved, &mut self.asks))
    }
}

/// Asks how far a graph on perturbed inputs is from itself, at each value and output that moves.
pub(crate) fn moved_values(stage: &Stage, moved: &Stage, asks: &mut Asks) -> Vec<(Arc<str>, Ask)> {
    let values = stage.named.iter().map(|(name, value)| (name.clone(), *value));
    let outputs = stage.graph.outputs().iter().map(|output| (output.name.clone(), output.value));
    let mut found = Vec::new();
    for (name, value) in values.chain(outputs) {
        if let Some((moved, own)) = moved.ports.get(&value).zip(stage.ports.get(&value))
            && moved != own
        {
            found.push((name, asks.apart(*moved, *own)));
        }
    }
    found
}

fn outputs_of(draft: &Draft, found: &Evaluated) -> Tensors {
    let tensor = |(name, port, _): &(String, Port, Option<Split>)| {
        Some((name.clone(), found.kept.get(port)?.tensor()?.clone()))
    };
    draft.outputs.iter().filter_map(tensor).collect()
}

/// The compiled program of the last graph: it is compiled while graphs are evaluated.
struct Compiled<'t, 'a> {
    tracer: &'t Tracer<'a>,
    plan: &'t Plan,
    stage: &'t Stage,
    made: Option<Result<(Session, Observation, f64), DebugError>>,
    seen: Option<Result<(Observation, Measured), DebugError>>,
}

impl Compiled<'_, '_> {
    /// Compiles the graph and runs it once; the number is the time of compiling, in milliseconds.
    fn run(&self) -> Result<(Session, Observation, f64), DebugError> {
        let start = Instant::now();
        let Tracer { options, inputs, .. } = self.tracer;
        let program = compile(&self.stage.graph, &options.profile)?;
        let compile_ms = start.elapsed().as_secs_f64() * 1e3;
        let session = Session::with_threads(&program, options.threads)?;
        let observation = Observation::of(&session, inputs)?;
        Ok((session, observation, compile_ms))
    }
}

impl Late for Compiled<'_, '_> {
    fn make(&mut self) {
        self.made = Some(self.run());
    }

    /// The program's time is taken here, where nothing else is begun.
    fn tell(&mut self) -> Option<HashMap<usize, Side>> {
        let measured = self.made.take()?.and_then(|(session, observation, compile_ms)| {
            let measured = timed(&session, compile_ms, self.tracer.inputs)?;
            Ok((observation, measured))
        });
        let sides = measured.as_ref().ok().map(|(observation, _)| self.plan.sides(self.stage, observation));
        self.seen = Some(measured);
        sides
    }
}

#[cfg(test)]
pub(crate) mod tests;
