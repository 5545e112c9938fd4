//! Which kernels are at fault: each on the operands that it really had.

use super::check::Judged;
use super::{Bisection, Engine, Lab};
use crate::{DebugError, Difference, Tensors, Verdict, tolerance};
use rabot_ir::{Datum, Graph, Node, Op, Value, interp};
use rabot_kernel::{Plan, Step};
use rabot_rewrite::{Admit, RewriteKey};
use rabot_runtime::Session;
use rabot_tensor::{DType, Tensor};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap, HashSet};

/// Endings of names of buffers that hold a copy of a node's first operand.
const COPIES: [&str; 2] = [" (padded)", " (spread)"];

/// Bytes of a vector in generated code.
const VECTOR: usize = 16;

/// Rewrites that are left out in turn to get around a kernel.
const REMEDIES: usize = 8;

/// A kernel that computes something else than the interpreter on the same operands.
#[derive(Clone, Debug, Serialize)]
pub struct KernelCulprit {
    /// Name of the kernel.
    pub kernel: String,
    /// Name of the composite kernel that it is a part of, if it is one.
    pub within: Option<String>,
    /// The value that it writes; of a copy of an operand, the node that reads it and the form.
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
    /// True if rounding does not explain it.
    pub beyond: bool,
}

/// A kernel by name, and the composite one that it is a part of.
#[derive(Clone)]
struct Kernel {
    name: String,
    within: Option<String>,
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
    if lab.try_out(&trial, Engine::Compiled).holds || !lab.try_out(&trial, Engine::Interpreter).holds {
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
    let names = names(session);
    let mut seen = SeenValues {
        graph,
        written: observed(session, inputs)?,
        twice: several(graph),
        data: HashMap::new(),
        shapes: HashMap::new(),
        local: Vec::new(),
        copies: Vec::new(),
    };
    for id in graph.topological()? {
        let node = graph.node(id);
        let results = match &node.op {
            Op::Input => inputs.get(&*node.name).map(|t| vec![Datum::Tensor(t.clone())]).unwrap_or_default(),
            Op::Constant(tensor) => vec![Datum::Tensor(tensor.clone())],
            _ => {
                let operands = seen.operands(node);
                let operands: Vec<Option<&Datum>> = operands.iter().map(Option::as_ref).collect();
                interp::run_node(node, &operands)
                    .map_err(|error| DebugError::interp("a kernel's nodes", error))?
            }
        };
        for (slot, result) in results.into_iter().enumerate() {
            seen.note(Value { node: id, slot: slot as u32 }, result);
        }
    }
    let tolerances = tolerance::derive(graph, &seen.shapes)?;
    let mut found: Vec<KernelCulprit> =
        seen.copies.iter().filter_map(|copy| seen.copied(copy, &names)).collect();
    // What reads a wrong copy had that one, not its own operand: it is judged by what it had.
    let others = beyond(graph, &seen.local, &tolerances, &seen.written, &names);
    let wrong = |k: &KernelCulprit| k.beyond || found.is_empty();
    let others: Vec<KernelCulprit> = others.into_iter().filter(wrong).collect();
    found.extend(others);
    Ok(found)
}

/// What kernels wrote, node by node.
struct SeenValues<'g> {
    graph: &'g Graph,
    written: HashMap<String, Written>,
    /// Names that more than one value has.
    twice: HashSet<String>,
    /// Values as they were in the run.
    data: HashMap<Value, Datum>,
    shapes: HashMap<Value, Vec<usize>>,
    /// Values that are not what their operands make: what was got, and what is expected.
    local: Vec<(Value, Tensor, Tensor)>,
    /// Copies of operands that are not what was copied: the name, what was got, and what is expected.
    copies: Vec<(String, Tensor, Tensor)>,
}

impl SeenValues<'_> {
    /// What a kernel wrote under a name, as a tensor like another one.
    fn like(&self, name: &str, like: &Tensor) -> Option<Tensor> {
        let written = self.written.get(name).filter(|_| !self.twice.contains(name))?;
        let fits = written.dtype == like.dtype() && written.bytes.len() == like.bytes().len();
        fits.then(|| Tensor::from_raw(written.dtype, like.shape(), written.bytes.clone()))
    }

    /// Operands as the node's kernel had them: of the first one it may have read a copy.
    fn operands(&mut self, node: &Node) -> Vec<Option<Datum>> {
        let own = |input: &Option<Value>| input.and_then(|value| self.data.get(&value).cloned());
        let mut operands: Vec<Option<Datum>> = node.inputs.iter().map(own).collect();
        let names = COPIES.iter().map(|ending| format!("{}{ending}", node.name));
        if let Some(Some(Datum::Tensor(first))) = operands.first_mut()
            && let Some((name, copy)) =
                names.into_iter().find_map(|n| self.like(&n, first).map(|copy| (n, copy)))
            && copy != *first
        {
            self.copies.push((name, copy.clone(), first.clone()));
            *first = copy;
        }
        operands
    }

    /// Notes a result that the interpreter made of the operands that were there.
    fn note(&mut self, value: Value, result: Datum) {
        let Datum::Tensor(expected) = &result else {
            self.data.insert(value, result);
            return;
        };
        self.shapes.insert(value, expected.shape().to_vec());
        let Some(got) = self.like(self.graph.value_name(value), expected) else {
            self.data.insert(value, result);
            return;
        };
        self.data.insert(value, Datum::Tensor(got.clone()));
        if got != *expected {
            self.local.push((value, got, expected.clone()));
        }
    }

    /// The kernel that copied an operand wrong.
    fn copied(
        &self,
        copy: &(String, Tensor, Tensor),
        names: &HashMap<String, Kernel>,
    ) -> Option<KernelCulprit> {
        let (name, got, expected) = copy;
        let injected = Difference::of(got, expected).filter(|injected| !injected.is_equal())?;
        let sources = self.written.get(name).map_or(vec![], |written| written.sources.clone());
        let culprit = told(name, names.get(name), sources, injected, (got, expected), 0.0);
        Some(KernelCulprit { beyond: true, ..culprit })
    }
}

/// Of values that differ, with what was got and what is expected, those beyond their tolerance; the one that is furthest
/// off if there is none.
fn beyond(
    graph: &Graph,
    local: &[(Value, Tensor, Tensor)],
    tolerances: &HashMap<Value, tolerance::Tolerance>,
    written: &HashMap<String, Written>,
    names: &HashMap<String, Kernel>,
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
            found.push(KernelCulprit { beyond: true, ..culprit });
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
fn names(session: &Session) -> HashMap<String, Kernel> {
    fn read(plan: &Plan, steps: &[Step], names: &mut HashMap<String, Kernel>) {
        for step in steps {
            match step {
                Step::Call(call) => {
                    let name = |kernel: usize| plan.kernel_names.get(kernel).cloned().unwrap_or_default();
                    for (shown, writer) in call.values.iter().zip(plan.writers(call)) {
                        let value = plan.forms.get(shown).map_or(shown, |form| &form.name);
                        let within = (writer != call.kernel).then(|| name(call.kernel));
                        names.insert(value.to_string(), Kernel { name: name(writer), within });
                    }
                }
                Step::Host(call) => {
                    let kernel = Kernel { name: format!("host {}", call.op), within: None };
                    names.extend(call.values.iter().map(|value| (value.to_string(), kernel.clone())));
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
    kernel: Option<&Kernel>,
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
        kernel: kernel.map_or_else(String::new, |kernel| kernel.name.clone()),
        within: kernel.and_then(|kernel| kernel.within.clone()),
        value: name.to_owned(),
        sources,
        injected,
        shape,
        first_wrong: wrong.first().copied().or(injected.worst).unwrap_or(0),
        in_tail: !wrong.is_empty() && wrong.iter().all(tail),
        wrong: wrong.len(),
        beyond: false,
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
