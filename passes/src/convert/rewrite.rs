//! The changes: nodes that become narrow one by one, and the conversions around them.

use super::classes::{Class, class, largest, narrowed, takes_data};
use super::{Convert, NAME};
use crate::quantize::calibrate::{Range, observe};
use rabot_ir::ops::Cast;
use rabot_ir::{Fact, Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{PassCx, PassError, Report, remove_dead, taken_names, unique_name};
use rabot_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};
use std::sync::Arc;

/// Calibration samples that are looked at.
const SAMPLES: usize = 128;

/// Constants of fewer dims are no weights: scales and biases, a small part of the bytes.
const WEIGHT_RANK: usize = 2;

/// What is known of the nodes before the first change.
struct Plan {
    order: Vec<NodeId>,
    /// Nodes that could be narrow.
    classes: HashMap<NodeId, Class>,
    /// Why those stay in f32 that do.
    reasons: HashMap<NodeId, String>,
    /// Nodes whose result reaches a contraction that is narrow.
    useful: HashSet<NodeId>,
    /// Nodes all of whose users are narrow for sure.
    wanted: HashSet<NodeId>,
}

/// Converts computation and weights.
///
/// **Errors**: calibration inputs that do not fit, a graph that cannot be edited.
pub(super) fn compute(
    pass: &Convert,
    graph: &mut Graph,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), PassError> {
    let mut constants = Constants { to: pass.to, made: HashMap::new() };
    let plan = plan(pass, graph, cx, &mut constants)?;
    let names = taken_names(graph);
    let mut rewriting = Rewriting {
        pass,
        graph,
        names,
        constants,
        narrow: HashMap::new(),
        widened: HashMap::new(),
        old: Vec::new(),
        casts: Vec::new(),
    };
    rewriting.all(&plan, cx, report).map_err(|error| PassError::Graph { pass: NAME, error })
}

fn plan(
    pass: &Convert,
    graph: &Graph,
    cx: &PassCx<'_>,
    constants: &mut Constants,
) -> Result<Plan, PassError> {
    let order = graph.topological().map_err(|error| PassError::Graph { pass: NAME, error })?;
    let classes: HashMap<NodeId, Class> =
        order.iter().filter_map(|&id| candidate(graph, id).map(|class| (id, class))).collect();
    let mut reasons = HashMap::new();
    let overflows = overflows(pass, graph, cx, &classes)?;
    for &id in order.iter().filter(|id| classes.contains_key(id)) {
        let node = graph.node(id);
        let kept = pass.kept_by(node).map(|pattern| format!("`keep` names it: {pattern}"));
        let reason = kept
            .or_else(|| data(graph, id).find_map(|value| overflows.get(&value).cloned()))
            .or_else(|| outputs(graph, id).find_map(|value| overflows.get(&value).cloned()))
            .or_else(|| data(graph, id).find_map(|value| constants.refuses(graph, value)));
        reasons.extend(reason.map(|reason| (id, reason)));
    }
    let (mut useful, mut wanted) = (HashSet::new(), HashSet::new());
    for &id in order.iter().rev().filter(|id| classes.contains_key(id)) {
        let users: Vec<(NodeId, usize)> = outputs(graph, id).flat_map(|value| graph.users(value)).collect();
        let is_narrow = |(user, slot): &(NodeId, usize), set: &HashSet<NodeId>| {
            let fits = takes_data(&graph.node(*user).op, *slot) && !reasons.contains_key(user);
            let class = classes.get(user).filter(|_| fits);
            class.is_some_and(|class| *class == Class::Contraction || set.contains(user))
        };
        if users.iter().any(|user| is_narrow(user, &useful)) {
            useful.insert(id);
        }
        let hidden = !outputs(graph, id).any(|value| graph.is_output(value));
        let moves = classes.get(&id) == Some(&Class::Move);
        if moves && hidden && !users.is_empty() && users.iter().all(|user| is_narrow(user, &wanted)) {
            wanted.insert(id);
        }
    }
    Ok(Plan { order, classes, reasons, useful, wanted })
}

/// The values that overflow on the calibration inputs, and how far.
fn overflows(
    pass: &Convert,
    graph: &Graph,
    cx: &PassCx<'_>,
    classes: &HashMap<NodeId, Class>,
) -> Result<HashMap<Value, String>, PassError> {
    let Some(sets) = cx.calibration.filter(|sets| !sets.is_empty()) else { return Ok(HashMap::new()) };
    let computed = |value: &Value| graph.constant(*value).is_none();
    let values = classes.keys().flat_map(|&id| data(graph, id).chain(outputs(graph, id)));
    let mut ranges: HashMap<Value, Range> =
        values.filter(computed).map(|value| (value, Range::default())).collect();
    observe(NAME, graph, sets, SAMPLES, &mut ranges)?;
    let most = largest(pass.to);
    let far = ranges.into_iter().filter(|(_, range)| range.high.max(-range.low) > most);
    let text = |value: Value, range: Range| {
        let (name, reached) = (graph.value_name(value), range.high.max(-range.low));
        format!("`{name}` reaches {reached:.3e} on the calibration inputs; {} ends at {most:.3e}", pass.to)
    };
    Ok(far.map(|(value, range)| (value, text(value, range))).collect())
}

/// The class of a node that computes on f32 and may become narrow.
fn candidate(graph: &Graph, id: NodeId) -> Option<Class> {
    let node = graph.node(id);
    let class = class(&node.op);
    let table = matches!(node.op, Op::Gather(_))
        && data(graph, id).next().is_some_and(|value| graph.constant(value).is_some());
    let is_f32 = |fact: &Fact| fact.dtype() == DType::F32;
    let first = node.outputs.first().is_some_and(|output| is_f32(&output.fact));
    let known = node.outputs.iter().all(|output| output.fact.constant.is_some());
    let fits = class != Class::Wide && first && !known && data(graph, id).next().is_some();
    // A table is weights as a product's are.
    fits.then_some(if table { Class::Contraction } else { class })
}

/// The f32 operands that a node computes on.
fn data(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> + '_ {
    let node = graph.node(id);
    let present = node.inputs.iter().enumerate().filter_map(|(slot, input)| input.map(|value| (slot, value)));
    let data = present.filter(|(slot, _)| takes_data(&node.op, *slot)).map(|(_, value)| value);
    data.filter(|value| graph.fact(*value).dtype() == DType::F32)
}

/// The f32 results of a node.
fn outputs(graph: &Graph, id: NodeId) -> impl Iterator<Item = Value> + '_ {
    let slots = 0..graph.node(id).outputs.len() as u32;
    let values = slots.map(move |slot| Value { node: id, slot });
    values.filter(|value| graph.fact(*value).dtype() == DType::F32)
}

/// Constants in the narrow type, each converted once.
struct Constants {
    to: DType,
    made: HashMap<Value, Result<Tensor, String>>,
}

impl Constants {
    /// Why a value, if it is constant, cannot be narrow.
    fn refuses(&mut self, graph: &Graph, value: Value) -> Option<String> {
        let tensor = graph.constant(value)?;
        let to = self.to;
        let made = self.made.entry(value).or_insert_with(|| narrowed(tensor, to));
        made.as_ref().err().map(|reason| format!("constant `{}`: {reason}", graph.value_name(value)))
    }
}

struct Rewriting<'g> {
    pass: &'g Convert,
    graph: &'g mut Graph,
    names: HashSet<Arc<str>>,
    constants: Constants,
    /// The narrow form of f32 values.
    narrow: HashMap<Value, Value>,
    /// The narrow value behind each conversion to f32.
    widened: HashMap<Value, Value>,
    /// Nodes that have a narrow one in their place, and that one. They go at the end: an id that is free is used anew.
    old: Vec<(NodeId, NodeId)>,
    /// Conversions, of which some are not needed in the end.
    casts: Vec<NodeId>,
}

impl Rewriting<'_> {
    fn all(&mut self, plan: &Plan, cx: &PassCx<'_>, report: &mut Report) -> Result<(), GraphError> {
        if self.pass.convert_io {
            self.inputs(cx, report)?;
        }
        for &id in &plan.order {
            let Some(&class) = plan.classes.get(&id) else { continue };
            if !self.pays(plan, id, class) {
                continue;
            }
            let node = self.graph.node(id).clone();
            if let Some(reason) = plan.reasons.get(&id) {
                report.skip("narrow", node.name, reason.clone());
            } else if cx.admits("narrow", &node.name) {
                match self.node(id)? {
                    None => {
                        let detail = format!("{} in {}", node.op.name(), self.pass.to);
                        report.apply_to("narrow", node.name, detail, node.sources);
                    }
                    Some(refused) => report.skip("narrow", node.name, refused),
                }
            }
        }
        if self.pass.convert_io {
            self.outputs(cx, report);
        }
        self.clean_up();
        self.graph.refresh()
    }

    /// True if a node belongs among narrow values.
    fn pays(&self, plan: &Plan, id: NodeId, class: Class) -> bool {
        let computed = || data(self.graph, id).filter(|value| self.graph.constant(*value).is_none());
        let is_narrow = |value: Value| self.widened.contains_key(&value);
        match class {
            Class::Contraction => true,
            Class::Elementwise => plan.useful.contains(&id) && computed().any(is_narrow),
            Class::Move => {
                plan.wanted.contains(&id) || (computed().next().is_some() && computed().all(is_narrow))
            }
            Class::Wide => false,
        }
    }

    /// Puts a narrow node in the place of one; gives the reason if the operator refuses.
    fn node(&mut self, id: NodeId) -> Result<Option<String>, GraphError> {
        let old = self.graph.node(id).clone();
        let mut inputs = old.inputs.clone();
        for (slot, input) in inputs.iter_mut().enumerate() {
            let Some(value) = *input else { continue };
            if takes_data(&old.op, slot) && self.graph.fact(value).dtype() == DType::F32 {
                *input = Some(self.narrow(value)?);
            }
        }
        let name = self.name(&old.name);
        let new = match self.graph.add_node(old.op.clone(), inputs, &name, old.sources.clone()) {
            Ok(new) => new,
            Err(error) => return Ok(Some(error.to_string())),
        };
        for (slot, output) in (0..).zip(&old.outputs) {
            let (before, after) = (Value { node: id, slot }, Value { node: new, slot });
            let mut reading = after;
            if output.fact.dtype() == DType::F32 {
                reading = self.cast(after, &output.name, DType::F32)?;
                self.widened.insert(reading, after);
            }
            self.graph.replace_value(before, reading);
        }
        self.old.push((id, new));
        Ok(None)
    }

    /// The narrow form of an f32 value.
    fn narrow(&mut self, value: Value) -> Result<Value, GraphError> {
        let known = self.widened.get(&value).or_else(|| self.narrow.get(&value));
        if let Some(&known) = known {
            return Ok(known);
        }
        let name = self.graph.value_name(value).clone();
        let made = match self.constants.made.get(&value) {
            Some(Ok(tensor)) => {
                let tensor = tensor.clone();
                let name = self.name(&name);
                self.graph.add_constant(&name, tensor)
            }
            _ => self.cast(value, &name, self.pass.to)?,
        };
        self.narrow.insert(value, made);
        Ok(made)
    }

    fn cast(&mut self, value: Value, base: &str, to: DType) -> Result<Value, GraphError> {
        let sources = self.graph.node(value.node).sources.clone();
        let name = unique_name(&mut self.names, &format!("{base}/{to}"));
        let node = self.graph.add_node(Op::Cast(Cast::to(to)), vec![Some(value)], &name, sources)?;
        self.casts.push(node);
        Ok(Value { node, slot: 0 })
    }

    fn name(&mut self, base: &str) -> Arc<str> {
        unique_name(&mut self.names, &format!("{base}/{}", self.pass.to))
    }

    /// Makes the model's f32 inputs narrow; what follows reads them through a conversion.
    fn inputs(&mut self, cx: &PassCx<'_>, report: &mut Report) -> Result<(), GraphError> {
        for id in self.graph.inputs().to_vec() {
            let value = Value { node: id, slot: 0 };
            let fact = self.graph.fact(value).clone();
            let name = self.graph.node(id).name.clone();
            if fact.dtype() != DType::F32 || !cx.admits("io", &name) {
                continue;
            }
            self.graph.set_input_fact(id, Fact::of_type(self.pass.to, fact.shape().to_vec()));
            let cast = self.cast(value, &name, DType::F32)?;
            self.graph.replace_value(value, cast);
            self.graph.set_input(cast.node, 0, Some(value));
            self.widened.insert(cast, value);
            report.apply("io", name, format!("input in {}", self.pass.to));
        }
        Ok(())
    }

    fn outputs(&mut self, cx: &PassCx<'_>, report: &mut Report) {
        for (index, output) in self.graph.outputs().to_vec().into_iter().enumerate() {
            let Some(&narrow) = self.widened.get(&output.value) else { continue };
            if cx.admits("io", &output.name) {
                self.graph.set_output(index, narrow);
                report.apply("io", output.name, format!("output in {}", self.pass.to));
            }
        }
    }

    /// Removes what nobody reads, and hands names on. Groups no longer fit: a conversion may lie inside of one.
    fn clean_up(&mut self) {
        let mut named = Vec::new();
        for &(old, new) in &self.old {
            let node = self.graph.node(old);
            let values: Vec<Arc<str>> = node.outputs.iter().map(|output| output.name.clone()).collect();
            named.push((new, node.name.clone(), values));
        }
        for id in self.old.iter().map(|(old, _)| *old).chain(self.casts.iter().copied()) {
            remove_dead(self.graph, id);
        }
        for (new, name, values) in named {
            if self.graph.contains(new) {
                self.graph.annotate(new, |node| {
                    *node.name = name;
                    node.outputs.iter_mut().zip(values).for_each(|(output, name)| output.name = name);
                });
            }
        }
        if !self.old.is_empty() {
            ungroup(self.graph);
        }
    }
}

fn ungroup(graph: &mut Graph) {
    for id in graph.node_ids().collect::<Vec<_>>() {
        graph.annotate(id, |node| *node.group = None);
    }
}

/// Stores weights narrow, with a conversion for their readers.
///
/// **Errors**: a graph that cannot be edited.
pub(super) fn weights(
    pass: &Convert,
    graph: &mut Graph,
    cx: &PassCx<'_>,
    report: &mut Report,
) -> Result<(), GraphError> {
    let mut names = taken_names(graph);
    let mut constants = Constants { to: pass.to, made: HashMap::new() };
    let mut seen = HashSet::new();
    let mut dead = Vec::new();
    for id in graph.topological()? {
        if candidate(graph, id) != Some(Class::Contraction) {
            continue;
        }
        let is_weight = |value: &Value| graph.constant(*value).is_some_and(|t| t.rank() >= WEIGHT_RANK);
        let found: Vec<Value> = data(graph, id).filter(is_weight).collect();
        let node = graph.node(id).clone();
        for value in found {
            if !matches!(graph.node(value.node).op, Op::Constant(_)) || !seen.insert(value) {
                continue;
            }
            let kept = pass.kept_by(&node).map(|pattern| format!("`keep` names it: {pattern}"));
            if let Some(reason) = kept.or_else(|| constants.refuses(graph, value)) {
                report.skip("weights", node.name.clone(), reason);
                continue;
            }
            let Some(Ok(tensor)) = constants.made.remove(&value) else { continue };
            if !cx.admits("weights", &node.name) {
                continue;
            }
            let detail = format!("`{}` in {}", graph.value_name(value), pass.to);
            let base = graph.value_name(value).clone();
            let narrow = graph.add_constant(&unique_name(&mut names, &format!("{base}/{}", pass.to)), tensor);
            let name = unique_name(&mut names, &format!("{base}/f32"));
            let cast = Op::Cast(Cast::to(DType::F32));
            let cast = graph.add_node(cast, vec![Some(narrow)], &name, node.sources.clone())?;
            graph.replace_value(value, Value { node: cast, slot: 0 });
            dead.push(value.node);
            report.apply_to("weights", node.name.clone(), detail, node.sources.clone());
        }
    }
    let changed = !dead.is_empty();
    dead.into_iter().for_each(|id| remove_dead(graph, id));
    if changed {
        ungroup(graph);
        graph.refresh()?;
    }
    Ok(())
}
