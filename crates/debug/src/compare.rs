//! The compiled program against the interpreter, on the same graph.

use crate::tolerance::{self, Verdict};
use crate::trace::exprs::{Exprs, Port, Stage};
use crate::trace::{Ask, Asks, Evaluated, Late, Outcome, Side, bind, evaluate, moved_values};
use crate::{DebugError, Difference, Tensors};
use bytes::Bytes;
use rabot_ir::{Graph, Value};
use rabot_runtime::Session;
use rabot_tensor::DType;
use serde::Serialize;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Endings of names of buffers that hold a value in some other form than its own.
const OTHER_FORMS: [&str; 4] = [" (permuted)", " (padded)", " (spread)", " (broadcast)"];

/// One tensor that both have.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Name of the value.
    pub name: String,
    /// True for outputs of the model; their names are those that callers see.
    pub output: bool,
    /// Element type.
    pub dtype: String,
    /// Shape in this run.
    pub shape: Vec<usize>,
    /// How far the compiled value is from the interpreter's.
    #[serde(flatten)]
    pub difference: Difference,
    /// Largest relative difference that rounding explains.
    pub tolerance: f64,
    /// What that is derived from.
    pub tolerance_reason: String,
    /// The difference, measured by the tolerance.
    pub verdict: Verdict,
    /// Source nodes of the kernel that wrote the value; empty for inputs and constants.
    pub sources: Vec<String>,
}

/// A value that a kernel wrote and that was not compared.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// Name of the buffer's value.
    pub name: String,
    /// Why not.
    pub reason: String,
}

/// All tensors that both have, worst first.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Comparison {
    /// The tensors: those furthest beyond their tolerance first.
    pub rows: Vec<Row>,
    /// What was not compared.
    pub skipped: Vec<Skipped>,
    /// Values of the interpreter that no kernel writes: they are fused away, or constant.
    pub not_written: usize,
    /// True if no output exceeds its tolerance.
    pub passed: bool,
}

impl Comparison {
    /// The outputs of the model, in no order.
    pub fn outputs(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|row| row.output)
    }
}

/// What a kernel wrote last under a name.
#[derive(Debug)]
struct Written {
    dtype: DType,
    bytes: Bytes,
    sources: Vec<String>,
}

/// What a compiled program wrote in one run.
#[derive(Debug)]
pub(crate) struct Observation {
    written: HashMap<String, Written>,
    /// Their names in the order in which they were first written.
    order: Vec<String>,
    results: Tensors,
}

impl Observation {
    /// Runs a session. Several kernels may write parts of one value; what it holds when it is shown last counts.
    ///
    /// **Errors**: it cannot be run on these inputs.
    pub fn of(session: &Session, inputs: &Tensors) -> Result<Observation, DebugError> {
        let mut written: HashMap<String, Written> = HashMap::new();
        let mut order: Vec<String> = Vec::new();
        let results = session.run_observed(inputs, &mut |observed| {
            let sources = observed.sources.iter().map(|s| (*s).to_owned()).collect();
            let now = Written { dtype: observed.dtype, bytes: observed.bytes.to_vec().into(), sources };
            if written.insert(observed.name.to_owned(), now).is_none() {
                order.push(observed.name.to_owned());
            }
        })?;
        Ok(Observation { written, order, results })
    }
}

/// Runs a session and the interpreter on the same inputs. `graph` is the one that the session's program was
/// compiled from.
///
/// **Errors**: one of them cannot be run on these inputs.
pub fn compare(graph: &Graph, session: &Session, inputs: &Tensors) -> Result<Comparison, DebugError> {
    let observation = Observation::of(session, inputs)?;
    let mut evaluation = Evaluation::new(graph, inputs)?;
    let plan = Plan::new(&evaluation.stage, &mut evaluation.asks);
    let sides = plan.sides(&evaluation.stage, &observation);
    let (stage, found, amplified) = evaluation.run(&[], sides)?;
    Ok(plan.finish(observation, &stage, &found, &|name| amplified.get(name).copied())?.1)
}

/// A graph that is to be evaluated on inputs, and on perturbed ones.
pub(crate) struct Evaluation {
    exprs: Exprs,
    /// The graph.
    pub stage: Stage,
    /// What is to be compared.
    pub asks: Asks,
    moved: Vec<(Arc<str>, Ask)>,
}

/// A graph, what its evaluation found, and how much it amplifies errors at each value and output, by name.
pub(crate) type Amplified = (Stage, Evaluated, HashMap<Arc<str>, f64>);

/// What is there before the evaluation begins.
struct Known(HashMap<usize, Side>);

impl Late for Known {
    fn make(&mut self) {}

    fn tell(&mut self) -> Option<HashMap<usize, Side>> {
        Some(std::mem::take(&mut self.0))
    }
}

impl Evaluation {
    /// **Errors**: the inputs are not those of the graph, or it has a cycle.
    pub fn new(graph: &Graph, inputs: &Tensors) -> Result<Evaluation, DebugError> {
        let (mut exprs, mut asks) = (Exprs::default(), Asks::default());
        let graph = Arc::new(graph.clone());
        let stage = exprs.read(graph.clone(), &bind(&graph, inputs)?, Some(0), None)?;
        let mut moved = Vec::new();
        if let Some(perturbed) = tolerance::perturbed(inputs) {
            let perturbed = exprs.read(graph.clone(), &bind(&graph, &perturbed)?, None, Some(&stage))?;
            moved = moved_values(&stage, &perturbed, &mut asks);
        }
        Ok(Evaluation { exprs, stage, asks, moved })
    }

    /// Evaluates; `keep` are values to be kept, `sides` what is compared besides, by number of the request.
    ///
    /// **Errors**: a node fails.
    pub fn run(self, keep: &[Port], sides: HashMap<usize, Side>) -> Result<Amplified, DebugError> {
        let workers = std::thread::available_parallelism().map_or(1, |n| n.get()).min(2);
        // What no comparison needs is evaluated too, for its shape.
        let outputs = self.stage.graph.outputs().iter().filter_map(|o| self.stage.ports.get(&o.value));
        let keep: Vec<Port> = keep.iter().chain(outputs).copied().collect();
        let found = evaluate(&self.exprs, self.asks.into_requests(), &keep, workers, &mut Known(sides))
            .map_err(|(_, error)| DebugError::interp("the graph", error))?;
        let amplification =
            |(name, ask): (Arc<str>, Ask)| Some((name, tolerance::amplification_of(&found.answer(ask)?)));
        let amplified = self.moved.into_iter().filter_map(amplification).collect();
        Ok((self.stage, found, amplified))
    }
}

/// A comparison of a compiled program with a graph, before the program was run.
#[derive(Debug)]
pub(crate) struct Plan {
    /// Values of the graph that kernels may write, and the numbers of the requests.
    values: Vec<(Value, usize)>,
    /// Outputs of the graph, with the same.
    outputs: Vec<(String, usize)>,
}

impl Plan {
    /// Asks for what a program writes to be compared with the values of the graph that it is compiled from.
    pub fn new(stage: &Stage, asks: &mut Asks) -> Plan {
        let mut later = |value: Value| Some((value, asks.later(*stage.ports.get(&value)?)));
        let values = stage.values.iter().filter_map(|&value| later(value)).collect();
        let outputs = stage.graph.outputs().iter();
        let outputs = outputs.filter_map(|o| Some((o.name.to_string(), later(o.value)?.1))).collect();
        Plan { values, outputs }
    }

    /// What the program wrote, by number of the request.
    pub fn sides(&self, stage: &Stage, observation: &Observation) -> HashMap<usize, Side> {
        let twice = names_of_several(&stage.graph);
        let written = |(value, number): &(Value, usize)| {
            let name: &str = stage.graph.value_name(*value);
            let written = observation.written.get(name).filter(|_| !twice.contains(name))?;
            Some((*number, Side::Bytes(written.dtype, written.bytes.clone())))
        };
        let result = |(name, number): &(String, usize)| {
            Some((*number, Side::Tensor(observation.results.get(name)?.clone())))
        };
        let values = self.values.iter().filter_map(written);
        values.chain(self.outputs.iter().filter_map(result)).collect()
    }

    /// What was not compared, and how many values no kernel writes.
    fn skipped(stage: &Stage, observation: &Observation) -> (Vec<Skipped>, usize) {
        let graph = &stage.graph;
        let twice = names_of_several(graph);
        let (mut skipped, mut not_written) = (Vec::new(), 0);
        let mut known: HashSet<&str> = HashSet::new();
        for value in &stage.values {
            let name: &str = graph.value_name(*value);
            known.insert(name);
            if !observation.written.contains_key(name) {
                not_written += 1;
            } else if twice.contains(name) {
                let reason = "several values have this name".to_owned();
                skipped.push(Skipped { name: name.to_owned(), reason });
            }
        }
        for name in observation.order.iter().filter(|name| !known.contains(name.as_str())) {
            let form = OTHER_FORMS.iter().find(|ending| name.ends_with(*ending));
            let reason = match form {
                Some(form) => format!("held in another form:{form}"),
                None => "inside a conditional, or no value of the graph".to_owned(),
            };
            skipped.push(Skipped { name: name.clone(), reason });
        }
        (skipped, not_written)
    }

    /// The comparison, and the outputs of the program. `amplification` is that of a value or output, by name.
    ///
    /// **Errors**: the graph has a cycle.
    pub fn finish(
        self,
        observation: Observation,
        stage: &Stage,
        found: &Evaluated,
        amplification: &dyn Fn(&str) -> Option<f64>,
    ) -> Result<(Tensors, Comparison), DebugError> {
        let graph = &stage.graph;
        let tolerances = tolerance::derive(graph, &found.shapes_of(stage))?;
        let (mut skipped, not_written) = Plan::skipped(stage, &observation);
        let mut rows = Vec::new();
        let judged = |mut row: Row, value: Value, name: &str| {
            let amplification = amplification(name).unwrap_or(0.0);
            let tolerance = tolerances.get(&value).copied().unwrap_or_default().amplified(amplification);
            row.tolerance = tolerance.relative();
            row.tolerance_reason = tolerance.reason();
            if row.verdict != Verdict::Exceeds {
                row.verdict = tolerance.judge(graph.fact(value).dtype(), &row.difference);
            }
            row
        };
        let sources = |value: Value| {
            let written = observation.written.get(&**graph.value_name(value));
            written.map_or(vec![], |written| written.sources.clone())
        };
        let (port, twice) = (|value: Value| stage.ports.get(&value).copied(), names_of_several(graph));
        for (value, number) in &self.values {
            let name = graph.value_name(*value);
            match found.outcomes.get(*number) {
                _ if twice.contains(&**name) || !observation.written.contains_key(&**name) => {}
                // What is an output is shown as one.
                _ if graph.is_output(*value) => {}
                Some(Outcome::Apart(difference)) => {
                    let row = row(name, false, graph.fact(*value).dtype(), *difference, sources(*value));
                    rows.push(judged(shaped(row, found, port(*value)), *value, name));
                }
                other => {
                    let unlike = if let Some(Outcome::Unlike(reason)) = other { reason } else { "no tensor" };
                    skipped.push(Skipped { name: name.to_string(), reason: unlike.to_owned() });
                }
            }
        }
        for output in graph.outputs() {
            let name = output.name.to_string();
            let asked = self.outputs.iter().find(|(other, _)| *other == name);
            let outcome = asked.and_then(|(_, number)| found.outcomes.get(*number));
            let row = match outcome {
                Some(Outcome::Apart(difference)) => {
                    let dtype = graph.fact(output.value).dtype();
                    row(&name, true, dtype, *difference, sources(output.value))
                }
                Some(Outcome::Unlike(reason)) => mismatch(&name, reason),
                Some(Outcome::Missing) | None => mismatch(&name, "nothing to compare"),
            };
            rows.push(judged(shaped(row, found, port(output.value)), output.value, &name));
        }
        sort(&mut rows);
        let passed = !rows.iter().any(|row| row.output && row.verdict == Verdict::Exceeds);
        Ok((observation.results, Comparison { rows, skipped, not_written, passed }))
    }
}

/// Worst first; those that are equally bad stay in the order of the run.
fn sort(rows: &mut [Row]) {
    let badness = |row: &Row| {
        let share = if row.tolerance > 0.0 { row.difference.relative / row.tolerance } else { 0.0 };
        (row.verdict == Verdict::Exceeds, share)
    };
    rows.sort_by(|a, b| {
        let ((a_exceeds, a_share), (b_exceeds, b_share)) = (badness(a), badness(b));
        b_exceeds.cmp(&a_exceeds).then(b_share.total_cmp(&a_share))
    });
}

/// Names that more than one value has.
fn names_of_several(graph: &Graph) -> HashSet<String> {
    let mut once = HashSet::new();
    let names = graph.node_ids().flat_map(|id| graph.node(id).outputs.iter().map(|o| o.name.to_string()));
    names.filter(|name| !once.insert(name.clone())).collect()
}

fn row(name: &str, output: bool, dtype: DType, difference: Difference, sources: Vec<String>) -> Row {
    Row {
        name: name.to_owned(),
        output,
        dtype: dtype.to_string(),
        shape: Vec::new(),
        difference,
        tolerance: 0.0,
        tolerance_reason: String::new(),
        verdict: Verdict::Equal,
        sources,
    }
}

/// With the shape that the value had.
fn shaped(row: Row, found: &Evaluated, port: Option<Port>) -> Row {
    let shape = port.and_then(|port| found.shapes.get(&port)).cloned().unwrap_or_default();
    Row { shape, ..row }
}

/// An output that is not of the dtype or shape that the interpreter gives: as far off as can be.
fn mismatch(name: &str, types: &str) -> Row {
    Row {
        name: name.to_owned(),
        output: true,
        dtype: types.to_owned(),
        shape: Vec::new(),
        difference: Difference::unlike(1),
        tolerance: 0.0,
        tolerance_reason: String::new(),
        verdict: Verdict::Exceeds,
        sources: Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::compile;
    use rabot_ir::text::parse;
    use rabot_target::Profile;
    use rabot_tensor::Tensor;

    const TEXT: &str = "model \"m\" input %0 \"x\" : f32[n,4]
        %1 = Constant [2.0] : f32[1] \"two\"
        %2 = Mul(%0, %1) \"double\"
        %3 = Exp(%2) \"grow\"
        output \"y\" = %3";

    fn inputs() -> Tensors {
        let x = Tensor::from_vec(&[2, 4], vec![0.5f32, -1.0, 0.25, 0.0, 1.0, 2.0, -3.0, 0.125]);
        Tensors::from_iter([("x".to_owned(), x)])
    }

    fn session(text: &str) -> Session {
        let program = compile(&parse(text).unwrap(), &Profile::host().unwrap()).unwrap();
        Session::new(&program).unwrap()
    }

    #[test]
    fn the_same_graph_passes() {
        let found = compare(&parse(TEXT).unwrap(), &session(TEXT), &inputs()).unwrap();
        assert!(found.passed, "{found:?}");
        let names: Vec<&str> = found.rows.iter().map(|row| row.name.as_str()).collect();
        assert!(names.contains(&"y") && names.contains(&"double"), "{names:?}");
    }

    #[test]
    fn a_wrong_kernel_is_named() {
        // The program multiplies by another number than the graph does.
        let found =
            compare(&parse(TEXT).unwrap(), &session(&TEXT.replace("[2.0]", "[2.001]")), &inputs()).unwrap();
        assert!(!found.passed);
        let wrong: Vec<&str> =
            found.rows.iter().filter(|r| r.verdict == Verdict::Exceeds).map(|r| r.name.as_str()).collect();
        assert!(wrong.contains(&"double") && wrong.contains(&"y"), "{wrong:?}");
        let row = found.rows.iter().find(|row| row.name == "double").unwrap();
        assert_eq!(row.sources, ["double"]);
    }

    #[test]
    fn what_is_written_inside_a_border_is_compared() {
        let text = "model \"m\" input %0 \"x\" : f32[1,2,5,7]
            %1 = Exp(%0) \"grow\"
            %2 = MaxPool(%1) {kernel_shape=[3,3], pads=[1,1,1,1]} \"pool\"
            output \"y\" = %2";
        let x = Tensor::from_vec(&[1, 2, 5, 7], (0..70).map(|v| v as f32 / 70.0).collect());
        let inputs = Tensors::from_iter([("x".to_owned(), x)]);
        let session = session(text);
        let held = session.program().plans().any(|plan| plan.forms.contains_key("grow (permuted)"));
        let found = compare(&parse(text).unwrap(), &session, &inputs).unwrap();
        let row = found.rows.iter().find(|row| row.name == "grow");
        assert!(held && found.passed && found.skipped.is_empty(), "{found:?}");
        assert!(row.is_some_and(|row| row.verdict != Verdict::Exceeds), "{found:?}");
    }
}
