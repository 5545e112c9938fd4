//! The compiled program against the interpreter, on the same graph.

use crate::tolerance::{self, Verdict};
use crate::{DebugError, Difference, Tensors};
use rabot_ir::interp;
use rabot_ir::{Graph, Value};
use rabot_runtime::Session;
use rabot_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{HashMap, HashSet};

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
#[derive(Clone, Debug, Serialize)]
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
struct Written {
    dtype: DType,
    bytes: Vec<u8>,
    sources: Vec<String>,
}

/// Runs a session and the interpreter on the same inputs. `graph` is the one that the session's program was
/// compiled from.
///
/// Several kernels may write parts of one value; what it holds when it is shown last is compared.
///
/// **Errors**: one of them cannot be run on these inputs.
pub fn compare(graph: &Graph, session: &Session, inputs: &Tensors) -> Result<Comparison, DebugError> {
    let mut written: HashMap<String, Written> = HashMap::new();
    let mut order: Vec<String> = Vec::new();
    let results = session.run_observed(inputs, &mut |observed| {
        let sources = observed.sources.iter().map(|s| (*s).to_owned()).collect();
        let now = Written { dtype: observed.dtype, bytes: observed.bytes.to_vec(), sources };
        if written.insert(observed.name.to_owned(), now).is_none() {
            order.push(observed.name.to_owned());
        }
    })?;
    let twice = names_of_several(graph);
    let mut found = Found::default();
    let wanted = |value: Value| graph.is_output(value) || written.contains_key(&**graph.value_name(value));
    let mut moved = moved_values(graph, inputs, &wanted);
    let mut known: HashSet<String> = HashSet::new();
    let expected = interp::run_observed(graph, inputs, &mut |value, tensor| {
        let name: &str = graph.value_name(value);
        known.insert(name.to_owned());
        if let Some(moved) = moved.remove(&value) {
            found.amplifications.insert(value, tolerance::amplification(&moved, tensor));
        }
        found.see(value, tensor, name, written.get(name), twice.contains(name));
    })
    .map_err(|error| DebugError::interp("the optimized graph", error))?;
    for name in order.into_iter().filter(|name| !known.contains(name)) {
        let form = OTHER_FORMS.iter().find(|ending| name.ends_with(*ending));
        let reason = match form {
            Some(form) => format!("held in another form:{form}"),
            None => "inside a conditional, or no value of the graph".to_owned(),
        };
        found.skipped.push(Skipped { name, reason });
    }
    let sources =
        |value: Value| written.get(&**graph.value_name(value)).map_or(vec![], |w| w.sources.clone());
    found.finish(graph, &results, &expected, &sources)
}

/// Names that more than one value has.
fn names_of_several(graph: &Graph) -> HashSet<String> {
    let mut once = HashSet::new();
    let names = graph.node_ids().flat_map(|id| graph.node(id).outputs.iter().map(|o| o.name.to_string()));
    names.filter(|name| !once.insert(name.clone())).collect()
}

/// Values of a run on perturbed inputs. Where that cannot be evaluated there are none, and amplification is unknown.
fn moved_values(graph: &Graph, inputs: &Tensors, wanted: &dyn Fn(Value) -> bool) -> HashMap<Value, Tensor> {
    let mut values = HashMap::new();
    if let Some(perturbed) = tolerance::perturbed(inputs) {
        let outcome = interp::run_observed(graph, &perturbed, &mut |value, tensor| {
            if wanted(value) {
                values.insert(value, tensor.clone());
            }
        });
        if outcome.is_err() {
            values.clear();
        }
    }
    values
}

/// What has been compared so far.
#[derive(Default)]
struct Found {
    shapes: HashMap<Value, Vec<usize>>,
    amplifications: HashMap<Value, f64>,
    compared: Vec<(Value, Row)>,
    skipped: Vec<Skipped>,
    not_written: usize,
}

impl Found {
    fn see(&mut self, value: Value, tensor: &Tensor, name: &str, written: Option<&Written>, twice: bool) {
        self.shapes.insert(value, tensor.shape().to_vec());
        let Some(written) = written else {
            self.not_written += 1;
            return;
        };
        let mut skip = |reason: String| self.skipped.push(Skipped { name: name.to_owned(), reason });
        if twice {
            return skip("several values have this name".to_owned());
        }
        if written.dtype != tensor.dtype() {
            return skip(format!("held as {}, not {}", written.dtype, tensor.dtype()));
        }
        let bytes = written.bytes.clone().into();
        let Ok(actual) = Tensor::from_bytes(tensor.dtype(), tensor.shape(), bytes) else {
            let (held, own) = (written.bytes.len(), tensor.bytes().len());
            return skip(format!("its buffer has {held} bytes, the value {own}"));
        };
        if let Some(row) = row(name, false, &actual, tensor, written.sources.clone()) {
            self.compared.push((value, row));
        }
    }

    fn finish(
        mut self,
        graph: &Graph,
        results: &Tensors,
        expected: &Tensors,
        sources: &dyn Fn(Value) -> Vec<String>,
    ) -> Result<Comparison, DebugError> {
        let tolerances = tolerance::derive(graph, &self.shapes)?;
        // What is an output is shown as one.
        self.compared.retain(|(value, _)| !graph.is_output(*value));
        for output in graph.outputs() {
            let name = output.name.to_string();
            let both = results.get(&name).zip(expected.get(&name));
            match both.and_then(|(a, b)| row(&name, true, a, b, sources(output.value))) {
                Some(row) => self.compared.push((output.value, row)),
                None => self
                    .compared
                    .push((output.value, mismatch(&name, results.get(&name), expected.get(&name)))),
            }
        }
        let mut rows = Vec::with_capacity(self.compared.len());
        for (value, mut row) in self.compared {
            let amplification = self.amplifications.get(&value).copied().unwrap_or(0.0);
            let tolerance = tolerances.get(&value).copied().unwrap_or_default().amplified(amplification);
            row.tolerance = tolerance.relative();
            row.tolerance_reason = tolerance.reason();
            row.verdict = tolerance.judge(graph.fact(value).dtype(), &row.difference);
            rows.push(row);
        }
        let badness = |row: &Row| {
            let share = if row.tolerance > 0.0 { row.difference.relative / row.tolerance } else { 0.0 };
            (row.verdict == Verdict::Exceeds, share)
        };
        // Those that are equally bad stay in the order of the run.
        rows.sort_by(|a, b| {
            let ((a_exceeds, a_share), (b_exceeds, b_share)) = (badness(a), badness(b));
            b_exceeds.cmp(&a_exceeds).then(b_share.total_cmp(&a_share))
        });
        let passed = !rows.iter().any(|row| row.output && row.verdict == Verdict::Exceeds);
        Ok(Comparison { rows, skipped: self.skipped, not_written: self.not_written, passed })
    }
}

fn row(name: &str, output: bool, a: &Tensor, b: &Tensor, sources: Vec<String>) -> Option<Row> {
    Some(Row {
        name: name.to_owned(),
        output,
        dtype: b.dtype().to_string(),
        shape: b.shape().to_vec(),
        difference: Difference::of(a, b)?,
        tolerance: 0.0,
        tolerance_reason: String::new(),
        verdict: Verdict::Equal,
        sources,
    })
}

/// An output that is not of the dtype or shape that the interpreter gives: as far off as can be.
fn mismatch(name: &str, a: Option<&Tensor>, b: Option<&Tensor>) -> Row {
    let ty = |t: Option<&Tensor>| t.map_or("nothing".to_owned(), |t| format!("{}{:?}", t.dtype(), t.shape()));
    let elements = b.map_or(0, Tensor::len);
    Row {
        name: name.to_owned(),
        output: true,
        dtype: format!("{}, expected {}", ty(a), ty(b)),
        shape: Vec::new(),
        difference: Difference::unlike(elements),
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
}
