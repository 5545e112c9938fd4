//! Which kernels are at fault: each on the operands that it really had.

use super::check::Judged;
use super::{Bisection, Engine, Lab};
use crate::{DebugError, Difference, Tensors, Verdict, tolerance};
use rabot_ir::{Datum, Graph, Op, Value, interp};
use rabot_kernel::{Plan, Step};
use rabot_rewrite::{Admit, RewriteKey};
use rabot_runtime::Session;
use rabot_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Bytes of a vector in generated code.
const VECTOR: usize = 16;

/// Rewrites that are left out in turn to get around a kernel.
const REMEDIES: usize = 8;

/// A kernel that computes something else than the interpreter on the same operands.
#[derive(Clone, Debug, Serialize)]
pub struct KernelCulprit {
    /// Name of the kernel.
    pub kernel: String,
    /// The value that it writes.
    pub value: String,
    /// The model's own nodes in it.
    pub sources: Vec<String>,
    /// How far the value is from what the interpreter makes of the same operands.
    pub injected: Difference,
    /// Shape of the value.
    pub shape: Vec<usize>,
    /// Row-major index of the first wrong element.
    pub first_wrong: usize,
    /// Wrong elements.
    pub wrong: usize,
    /// True if all wrong elements lie after the last full vector of their row, or of the whole value.
    pub in_tail: bool,
}

struct Written {
    dtype: DType,
    bytes: Vec<u8>,
    sources: Vec<String>,
}

/// Finds the kernels at fault in the program of the graph without the rewrites that were found.
///
/// **Errors**: the program cannot be run.
pub(crate) fn search(lab: &Lab<'_>, found: &mut Bisection) -> Result<(), DebugError> {
    let without: BTreeSet<RewriteKey> = found.rewrites.iter().map(|culprit| culprit.key.clone()).collect();
    let trial = lab.trial(Admit::Without(without));
    let Ok(graph) = &trial.graph else { return Ok(()) };
    let judged = lab.judged(graph, Engine::Compiled);
    if judged.holds || !lab.judged(graph, Engine::Interpreter).holds {
        return Ok(());
    }
    let session = lab.session(graph)?;
    let Some(inputs) = lab.subject.inputs.get(lab.judge.worst_set()) else { return Ok(()) };
    found.kernels = culprits(graph, &session, inputs)?;
    if found.kernels.is_empty() {
        found.unexplained =
            Some("the program is wrong, but every value that a kernel wrote is right by itself".to_owned());
    }
    Ok(())
}

/// The kernels whose results are further from the interpreter's, on the same operands, than rounding explains; if there
/// is none, the one that is furthest.
fn culprits(graph: &Graph, session: &Session, inputs: &Tensors) -> Result<Vec<KernelCulprit>, DebugError> {
    let written = observed(session, inputs)?;
    let names = names(session);
    let mut seen: HashMap<Value, Datum> = HashMap::new();
    let mut local: Vec<(Value, Tensor, Tensor)> = Vec::new();
    let mut shapes: HashMap<Value, Vec<usize>> = HashMap::new();
    let twice = several(graph);
    for id in graph.topological()? {
        let node = graph.node(id);
        let results = match &node.op {
            Op::Input => inputs.get(&*node.name).map(|t| vec![Datum::Tensor(t.clone())]).unwrap_or_default(),
            Op::Constant(tensor) => vec![Datum::Tensor(tensor.clone())],
            _ => {
                let operands: Vec<Option<&Datum>> =
                    node.inputs.iter().map(|v| v.and_then(|v| seen.get(&v))).collect();
                interp::run_node(node, &operands)
                    .map_err(|error| DebugError::interp("a kernel's nodes", error))?
            }
        };
        for (slot, result) in results.into_iter().enumerate() {
            let value = Value { node: id, slot: slot as u32 };
            let name = graph.value_name(value);
            let expected = result.tensor().cloned();
            let got = written.get(&**name).filter(|_| !twice.contains(&**name)).zip(expected.as_ref());
            let got = got.and_then(|(w, t)| {
                let fits = w.dtype == t.dtype() && w.bytes.len() == t.bytes().len();
                fits.then(|| Tensor::from_raw(w.dtype, t.shape(), w.bytes.clone()))
            });
            if let Some(expected) = &expected {
                shapes.insert(value, expected.shape().to_vec());
            }
            match (got, expected) {
                (Some(got), Some(expected)) => {
                    seen.insert(value, Datum::Tensor(got.clone()));
                    if got != expected {
                        local.push((value, got, expected));
                    }
                }
                _ => {
                    seen.insert(value, result);
                }
            }
        }
    }
    let tolerances = tolerance::derive(graph, &shapes)?;
    Ok(beyond(graph, &local, &tolerances, &written, &names))
}

/// Of values that differ, with what was got and what is expected, those beyond their tolerance; the one that is furthest
/// off if there is none.
fn beyond(
    graph: &Graph,
    local: &[(Value, Tensor, Tensor)],
    tolerances: &HashMap<Value, tolerance::Tolerance>,
    written: &HashMap<String, Written>,
    names: &HashMap<String, String>,
) -> Vec<KernelCulprit> {
    let mut found = Vec::new();
    let mut worst: Option<(f64, KernelCulprit)> = None;
    for (value, got, expected) in local {
        let Some(injected) = Difference::of(got, expected) else { continue };
        let tolerance = tolerances.get(value).copied().unwrap_or_default();
        let name = graph.value_name(*value).to_string();
        let sources = written.get(&name).map_or(vec![], |w| w.sources.clone());
        let allowed = tolerance.relative() * injected.max_reference;
        let culprit = told(&name, names.get(&name), sources, injected, (got, expected), allowed);
        if tolerance.judge(expected.dtype(), &injected) == Verdict::Exceeds {
            found.push(culprit);
        } else if worst.as_ref().is_none_or(|(most, _)| *most < injected.relative) {
            worst = Some((injected.relative, culprit));
        }
    }
    if found.is_empty() {
        found.extend(worst.map(|(_, culprit)| culprit));
    }
    found
}

fn observed(session: &Session, inputs: &Tensors) -> Result<HashMap<String, Written>, DebugError> {
    let mut written = HashMap::new();
    session.run_observed(inputs, &mut |seen| {
        let sources = seen.sources.iter().map(|name| (*name).to_owned()).collect();
        let now = Written { dtype: seen.dtype, bytes: seen.bytes.to_vec(), sources };
        written.insert(seen.name.to_owned(), now);
    })?;
    Ok(written)
}

/// The kernel that writes each value, by name.
fn names(session: &Session) -> HashMap<String, String> {
    fn read(plan: &Plan, steps: &[Step], names: &mut HashMap<String, String>) {
        for step in steps {
            match step {
                Step::Call(call) => {
                    let kernel = plan.kernel_names.get(call.kernel).cloned().unwrap_or_default();
                    names.extend(call.values.iter().map(|value| (value.to_string(), kernel.clone())));
                }
                Step::Host(call) => {
                    let name = format!("host {}", call.op);
                    names.extend(call.values.iter().map(|value| (value.to_string(), name.clone())));
                }
                Step::If { then_steps, else_steps, .. } => {
                    read(plan, then_steps, names);
                    read(plan, else_steps, names);
                }
            }
        }
    }
    let mut names = HashMap::new();
    session.program().plans().for_each(|plan| read(plan, &plan.steps, &mut names));
    names
}

/// Names that more than one value has.
fn several(graph: &Graph) -> HashSet<String> {
    let mut once = HashSet::new();
    let names = graph.node_ids().flat_map(|id| graph.node(id).outputs.iter().map(|o| o.name.to_string()));
    names.filter(|name| !once.insert(name.clone())).collect()
}

fn told(
    name: &str,
    kernel: Option<&String>,
    sources: Vec<String>,
    injected: Difference,
    (got, expected): (&Tensor, &Tensor),
    allowed: f64,
) -> KernelCulprit {
    let pairs = got.to_f64s().into_iter().zip(expected.to_f64s());
    let off = |(x, y): (f64, f64)| {
        let same = x == y || (x.is_nan() && y.is_nan());
        let apart = (x - y).abs();
        !same && (apart.is_nan() || apart > allowed)
    };
    let wrong: Vec<usize> = pairs.enumerate().filter(|(_, pair)| off(*pair)).map(|(at, _)| at).collect();
    let shape = expected.shape().to_vec();
    let lanes = (VECTOR * expected.len() / expected.bytes().len().max(1)).max(1);
    let row = shape.last().copied().unwrap_or(1).max(1);
    let after_full =
        |at: usize, length: usize| !length.is_multiple_of(lanes) && at >= length - length % lanes;
    let tail = |&at: &usize| after_full(at % row, row) || after_full(at, expected.len());
    KernelCulprit {
        kernel: kernel.cloned().unwrap_or_default(),
        value: name.to_owned(),
        sources,
        injected,
        shape,
        first_wrong: wrong.first().copied().or(injected.worst).unwrap_or(0),
        in_tail: !wrong.is_empty() && wrong.iter().all(tail),
        wrong: wrong.len(),
    }
}

/// Leaves out, in turn, the rewrites that made the kernels' nodes, until the check holds.
pub(crate) fn remedy(lab: &Lab<'_>, before: &Judged, found: &mut Bisection) {
    let touched: HashSet<&str> =
        found.kernels.iter().flat_map(|k| k.sources.iter().map(String::as_str).chain([&*k.value])).collect();
    if touched.is_empty() {
        return;
    }
    let full = lab.trial(Admit::Without(BTreeSet::new()));
    let near: Vec<RewriteKey> = full
        .keys
        .iter()
        .rev()
        .filter(|key| touched.contains(key.node.as_str()))
        .take(REMEDIES)
        .cloned()
        .collect();
    let mut best = None;
    for key in near {
        let trial = lab.trial(Admit::Without([key.clone()].into()));
        let after = lab.try_out(&trial, Engine::Compiled);
        let better = best.as_ref().is_none_or(|(error, _)| after.error < *error);
        let holds = after.holds;
        if better {
            best = Some((after.error, super::told(&[key], before, &after)));
        }
        if holds {
            break;
        }
    }
    found.remedy = best.map(|(_, remedy)| remedy);
}
