//! Programs in stages: plans, and between them what only a run can tell.
//!
//! A plan needs to know the sizes of all its tensors from those of its inputs. Where a graph has nodes that do not let
//! that be (sizes that depend on data, loops, lists, strings), those run on the host one by one, and what lies between
//! them is planned as graphs of their own. A graph without such nodes is one plan.

use crate::Plan;
use crate::lower::{PlanError, Target, plan_with};
use rabot_ir::{Dim, Graph, GraphError, NodeId, Op, Value, ValueType};
use rabot_target::Profile;
use rabot_tensor::{DType, Tensor};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

/// A program: values in slots, and what is done with them in order.
#[derive(Clone, Debug)]
pub struct Staged {
    /// Name of the model.
    pub name: String,
    /// Inputs, in order.
    pub inputs: Vec<StagePort>,
    /// Outputs, in order.
    pub outputs: Vec<StagePort>,
    /// Number of slots.
    pub slots: usize,
    /// Slots that hold constants.
    pub constants: Vec<(usize, Tensor)>,
    /// What is done.
    pub stages: Vec<StageStep>,
}

/// An input or output of a program.
#[derive(Clone, Debug)]
pub struct StagePort {
    /// Name.
    pub name: Arc<str>,
    /// Type.
    pub ty: ValueType,
    /// Where it is.
    pub slot: usize,
}

/// One thing done.
#[derive(Clone, Debug)]
pub struct StageStep {
    /// What is done.
    pub work: Work,
    /// Slots of the operands; `None` for an absent one.
    pub inputs: Vec<Option<usize>>,
    /// Slots of the results.
    pub outputs: Vec<usize>,
    /// Slots that nothing reads any more.
    pub frees: Vec<usize>,
}

/// What a stage does.
#[derive(Clone, Debug)]
pub enum Work {
    /// Compiled kernels.
    Kernels(Box<Plan>),
    /// A node on the host.
    Host(Box<HostStage>),
}

/// A node that runs on the host: by its reference evaluation, or, with nested graphs, by programs of their own.
#[derive(Clone, Debug)]
pub struct HostStage {
    /// Name of the node.
    pub node: Arc<str>,
    /// The operator.
    pub op: Op,
    /// Why it is not compiled.
    pub reason: String,
    /// Types of the results. Dims that nothing before has told are found here.
    pub types: Vec<ValueType>,
    /// The nested graphs, in the order of [`Op::regions`].
    pub regions: Vec<Staged>,
    /// Names of the source nodes.
    pub sources: Vec<Arc<str>>,
    /// Names of the results.
    pub values: Vec<Arc<str>>,
}

impl Staged {
    /// The plan, if the whole program is one.
    pub fn single(&self) -> Option<&Plan> {
        match &self.stages[..] {
            [StageStep { work: Work::Kernels(plan), .. }] if self.is_passed_through(plan) => Some(plan),
            _ => None,
        }
    }

    fn is_passed_through(&self, plan: &Plan) -> bool {
        let same = |ports: &[StagePort], names: Vec<&str>| {
            ports.iter().map(|port| &*port.name).collect::<Vec<_>>() == names
        };
        same(&self.inputs, plan.inputs.iter().map(|p| &*p.name).collect())
            && same(&self.outputs, plan.outputs.iter().map(|p| &*p.name).collect())
            && plan.symbols.is_empty()
    }

    /// All plans, those of nested graphs after those around them.
    pub fn plans(&self) -> Vec<&Plan> {
        let mut plans = Vec::new();
        for stage in &self.stages {
            match &stage.work {
                Work::Kernels(plan) => plans.push(&**plan),
                Work::Host(host) => plans.extend(host.regions.iter().flat_map(Staged::plans)),
            }
        }
        plans
    }

    /// All nodes that run on the host between plans, those of nested graphs after those that hold them.
    pub fn hosts(&self) -> Vec<&HostStage> {
        let mut hosts = Vec::new();
        for stage in &self.stages {
            if let Work::Host(host) = &stage.work {
                hosts.push(&**host);
                hosts.extend(host.regions.iter().flat_map(Staged::hosts));
            }
        }
        hosts
    }
}

/// Plans a graph for a target, in as few stages as it allows.
///
/// **Errors**: every node that cannot be compiled, at once.
pub fn stages(graph: &Graph, profile: &Profile) -> Result<Staged, PlanError> {
    let known = symbols_of_inputs(graph);
    staged(graph, Target { profile, pack: true }, &known)
}

/// As [`stages`], without reading the weights: what is to be packed is left out, so this can be looked at and not be run.
///
/// **Errors**: as [`stages`].
pub fn outline(graph: &Graph, profile: &Profile) -> Result<Staged, PlanError> {
    let known = symbols_of_inputs(graph);
    staged(graph, Target { profile, pack: false }, &known)
}

/// Whether a graph can be planned, without reading the weights.
///
/// **Errors**: as [`stages`].
pub fn check(graph: &Graph, profile: &Profile) -> Result<(), PlanError> {
    outline(graph, profile).map(drop)
}

type Symbols = HashSet<Arc<str>>;

fn symbols_of_inputs(graph: &Graph) -> Symbols {
    let mut known = HashSet::new();
    for &input in graph.inputs() {
        add_symbols(&graph.node(input).outputs[0].fact.ty, &mut known);
    }
    known
}

fn add_symbols(ty: &ValueType, known: &mut Symbols) {
    for dim in &ty.shape {
        dim.for_each_symbol(&mut |name| {
            known.insert(name.clone());
        });
    }
}

fn has_others(ty: &ValueType, known: &Symbols) -> bool {
    let mut others = false;
    for dim in &ty.shape {
        dim.for_each_symbol(&mut |name| others |= !known.contains(name));
    }
    others
}

/// A graph of which the symbols `known` mean something outside.
fn staged(graph: &Graph, target: Target<'_>, known: &Symbols) -> Result<Staged, PlanError> {
    let order = graph.topological()?;
    let dynamic = dynamic_nodes(graph, &order, known);
    // Inputs and constants may be given out as they are.
    let inputs = graph.inputs().iter().map(|&id| &graph.node(id).outputs[0].fact.ty);
    let outputs = graph.outputs().iter().map(|output| &graph.fact(output.value).ty);
    if dynamic.is_empty() && inputs.chain(outputs).all(in_kernels) {
        let whole = whole(graph, target, known)?;
        return Ok(whole);
    }
    let mut builder = StageBuilder::new(graph, target, dynamic, known.clone());
    builder.assign_levels(&order);
    builder.build(&order)
}

/// A graph as one plan.
fn whole(graph: &Graph, target: Target<'_>, known: &Symbols) -> Result<Staged, PlanError> {
    let plan = plan_with(graph, target, known)?;
    let port =
        |slot: usize, name: &Arc<str>, ty: &ValueType| StagePort { name: name.clone(), ty: ty.clone(), slot };
    let inputs: Vec<StagePort> = graph
        .inputs()
        .iter()
        .enumerate()
        .map(|(slot, &id)| port(slot, &graph.node(id).name, &graph.node(id).outputs[0].fact.ty))
        .collect();
    let count = inputs.len();
    let outputs = graph.outputs().iter().enumerate();
    let outputs: Vec<StagePort> =
        outputs.map(|(at, o)| port(count + at, &o.name, &graph.fact(o.value).ty)).collect();
    let stage = StageStep {
        work: Work::Kernels(Box::new(plan)),
        inputs: (0..count).map(Some).collect(),
        outputs: (count..count + outputs.len()).collect(),
        frees: Vec::new(),
    };
    let slots = count + outputs.len();
    Ok(Staged {
        name: graph.name.clone(),
        inputs,
        outputs,
        slots,
        constants: Vec::new(),
        stages: vec![stage],
    })
}

/// True for types that plans compute with.
fn in_kernels(ty: &ValueType) -> bool {
    ty.is_tensor() && ty.dtype != DType::String
}

/// Nodes that cannot be part of a plan, each with the reason.
fn dynamic_nodes(graph: &Graph, order: &[NodeId], known: &Symbols) -> HashMap<NodeId, String> {
    let mut known = known.clone();
    let mut dynamic = HashMap::new();
    for &id in order {
        let node = graph.node(id);
        if !matches!(node.op, Op::Input | Op::Constant(_))
            && let Some(reason) = why_dynamic(graph, id, &known)
        {
            dynamic.insert(id, reason);
        }
        for output in &node.outputs {
            add_symbols(&output.fact.ty, &mut known);
        }
    }
    dynamic
}

fn why_dynamic(graph: &Graph, id: NodeId, known: &Symbols) -> Option<String> {
    let node = graph.node(id);
    match &node.op {
        Op::Loop(_) | Op::Scan(_) => return Some("a loop goes on for as long as data say".to_owned()),
        _ => {}
    }
    let operands = node.inputs.iter().flatten().map(|&value| &graph.fact(value).ty);
    for ty in operands.chain(node.outputs.iter().map(|o| &o.fact.ty)) {
        if !in_kernels(ty) {
            return Some(format!("no kernel has values of type {ty}"));
        }
    }
    if node.outputs.iter().any(|o| has_others(&o.fact.ty, known)) {
        return Some("the size of its result depends on data".to_owned());
    }
    for (_, region) in node.op.regions() {
        let order = region.topological().ok()?;
        let mut known = known.clone();
        for &input in region.inputs() {
            add_symbols(&region.node(input).outputs[0].fact.ty, &mut known);
        }
        if let Some((inner, reason)) = dynamic_nodes(region, &order, &known).into_iter().min() {
            return Some(format!("it holds `{}`: {reason}", region.node(inner).name));
        }
    }
    None
}

/// Builds the stages of a graph with dynamic nodes.
///
/// Each node has a level: plan 0, then the dynamic nodes of level 0, then plan 1, and so on. A node in a plan has the
/// level of its operands, one more after a dynamic one; a dynamic node has the level of its operands.
struct StageBuilder<'g, 'p> {
    graph: &'g Graph,
    target: Target<'p>,
    dynamic: HashMap<NodeId, String>,
    known: Symbols,
    levels: HashMap<NodeId, usize>,
    slots: HashMap<Value, usize>,
    constants: Vec<(usize, Tensor)>,
    stages: Vec<StageStep>,
}

impl<'g, 'p> StageBuilder<'g, 'p> {
    fn new(graph: &'g Graph, target: Target<'p>, dynamic: HashMap<NodeId, String>, known: Symbols) -> Self {
        StageBuilder {
            graph,
            target,
            dynamic,
            known,
            levels: HashMap::new(),
            slots: HashMap::new(),
            constants: Vec::new(),
            stages: Vec::new(),
        }
    }

    fn assign_levels(&mut self, order: &[NodeId]) {
        let mut needed: HashSet<NodeId> = self.graph.outputs().iter().map(|o| o.value.node).collect();
        for &id in order.iter().rev() {
            if needed.contains(&id) {
                needed.extend(self.graph.node(id).inputs.iter().flatten().map(|value| value.node));
            }
        }
        for &id in order {
            let node = self.graph.node(id);
            if !needed.contains(&id) || matches!(node.op, Op::Input | Op::Constant(_)) {
                continue;
            }
            let own = self.dynamic.contains_key(&id);
            let level = |value: &Value| {
                let level = self.levels.get(&value.node).copied()?;
                Some(level + usize::from(!own && self.dynamic.contains_key(&value.node)))
            };
            let level = node.inputs.iter().flatten().filter_map(level).max().unwrap_or(0);
            self.levels.insert(id, level);
        }
    }

    fn slot(&mut self, value: Value) -> usize {
        if let Some(&slot) = self.slots.get(&value) {
            return slot;
        }
        let slot = self.slots.len();
        self.slots.insert(value, slot);
        if let Op::Constant(tensor) = &self.graph.node(value.node).op {
            self.constants.push((slot, tensor.clone()));
        }
        slot
    }

    fn build(mut self, order: &[NodeId]) -> Result<Staged, PlanError> {
        let mut problems = Vec::new();
        let inputs: Vec<StagePort> = self
            .graph
            .inputs()
            .iter()
            .map(|&id| {
                let node = self.graph.node(id);
                let slot = self.slot(Value { node: id, slot: 0 });
                StagePort { name: node.name.clone(), ty: node.outputs[0].fact.ty.clone(), slot }
            })
            .collect();
        let mut by_level: BTreeMap<usize, (Vec<NodeId>, Vec<NodeId>)> = BTreeMap::new();
        for &id in order {
            if let Some(&level) = self.levels.get(&id) {
                let (kernels, hosts) = by_level.entry(level).or_default();
                if self.dynamic.contains_key(&id) { hosts.push(id) } else { kernels.push(id) }
            }
        }
        for (kernels, hosts) in by_level.into_values() {
            for result in [self.kernels(&kernels)].into_iter().chain(hosts.iter().map(|&id| self.host(id))) {
                match result {
                    Err(PlanError::Unsupported(mut more)) => problems.append(&mut more),
                    result => result?,
                }
            }
        }
        if !problems.is_empty() {
            return Err(PlanError::Unsupported(problems));
        }
        let outputs: Vec<StagePort> = self
            .graph
            .outputs()
            .iter()
            .map(|o| StagePort {
                name: o.name.clone(),
                ty: self.graph.fact(o.value).ty.clone(),
                slot: self.slot(o.value),
            })
            .collect();
        let keep: BTreeSet<usize> =
            outputs.iter().map(|o| o.slot).chain(self.constants.iter().map(|c| c.0)).collect();
        free_after_last_use(&mut self.stages, &keep);
        let (slots, name) = (self.slots.len(), self.graph.name.clone());
        Ok(Staged { name, inputs, outputs, slots, constants: self.constants, stages: self.stages })
    }

    /// A plan of some nodes.
    fn kernels(&mut self, nodes: &[NodeId]) -> Result<(), PlanError> {
        if nodes.is_empty() {
            return Ok(());
        }
        let members: HashSet<NodeId> = nodes.iter().copied().collect();
        let part = self.part(nodes, &members)?;
        let plan = plan_with(&part.graph, self.target, &self.known)?;
        let inputs = part.inputs.iter().map(|&value| Some(self.slot(value))).collect();
        let outputs = part.outputs.iter().map(|&value| self.slot(value)).collect();
        self.stages.push(StageStep {
            work: Work::Kernels(Box::new(plan)),
            inputs,
            outputs,
            frees: Vec::new(),
        });
        Ok(())
    }

    /// Some nodes as a graph of their own.
    fn part(&self, nodes: &[NodeId], members: &HashSet<NodeId>) -> Result<Part, GraphError> {
        let mut graph = Graph::new(&self.graph.name);
        let mut values: HashMap<Value, Value> = HashMap::new();
        let (mut inputs, mut outputs) = (Vec::new(), Vec::new());
        for &id in nodes {
            let node = self.graph.node(id);
            for &value in node.inputs.iter().flatten() {
                if members.contains(&value.node) || values.contains_key(&value) {
                    continue;
                }
                let source = self.graph.node(value.node);
                let copy = match &source.op {
                    Op::Constant(_) => Value { node: graph.add_copy(source, Vec::new()), slot: 0 },
                    _ => {
                        inputs.push(value);
                        graph.add_input(self.graph.value_name(value), self.graph.fact(value).clone())
                    }
                };
                values.insert(value, copy);
            }
            let operands =
                node.inputs.iter().map(|input| input.and_then(|v| values.get(&v).copied())).collect();
            let copy = graph.add_copy(node, operands);
            for slot in 0..node.outputs.len() as u32 {
                values.insert(Value { node: id, slot }, Value { node: copy, slot });
            }
        }
        for &id in nodes {
            for slot in 0..self.graph.node(id).outputs.len() as u32 {
                let value = Value { node: id, slot };
                let outside = self
                    .graph
                    .users(value)
                    .iter()
                    .any(|(user, _)| !members.contains(user) && self.levels.contains_key(user));
                if outside || self.graph.is_output(value) {
                    graph.add_output(self.graph.value_name(value), values[&value]);
                    outputs.push(value);
                }
            }
        }
        Ok(Part { graph, inputs, outputs })
    }

    /// A node on the host.
    fn host(&mut self, id: NodeId) -> Result<(), PlanError> {
        let node = self.graph.node(id);
        let inputs = node.inputs.iter().map(|input| input.map(|value| self.slot(value))).collect();
        for output in &node.outputs {
            add_symbols(&output.fact.ty, &mut self.known);
        }
        let mut regions = Vec::new();
        for (_, region) in node.op.regions() {
            let mut known = self.known.clone();
            for &input in region.inputs() {
                add_symbols(&region.node(input).outputs[0].fact.ty, &mut known);
            }
            regions.push(staged(region, self.target, &known)?);
        }
        let outputs =
            (0..node.outputs.len() as u32).map(|slot| self.slot(Value { node: id, slot })).collect();
        let own = std::slice::from_ref(&node.name);
        let stage = HostStage {
            node: node.name.clone(),
            op: node.op.clone(),
            reason: self.dynamic.get(&id).cloned().unwrap_or_default(),
            types: node.outputs.iter().map(|o| o.fact.ty.clone()).collect(),
            regions,
            sources: if node.sources.is_empty() { own.to_vec() } else { node.sources.clone() },
            values: node.outputs.iter().map(|o| o.name.clone()).collect(),
        };
        self.stages.push(StageStep { work: Work::Host(Box::new(stage)), inputs, outputs, frees: Vec::new() });
        Ok(())
    }
}

/// Some nodes of a graph, and the values of that graph that their graph's inputs and outputs are.
struct Part {
    graph: Graph,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
}

/// Notes in each stage which slots it is the last to read.
fn free_after_last_use(stages: &mut [StageStep], keep: &BTreeSet<usize>) {
    let mut seen: BTreeSet<usize> = keep.clone();
    for stage in stages.iter_mut().rev() {
        let touched = stage.inputs.iter().flatten().chain(&stage.outputs);
        stage.frees = touched.copied().filter(|slot| seen.insert(*slot)).collect();
    }
}

/// The symbols in types of a plan's graph that its inputs do not tell.
pub(crate) fn outer_symbols(graph: &Graph, known: &Symbols) -> Vec<Arc<str>> {
    let mut own: HashSet<Arc<str>> = HashSet::new();
    for &input in graph.inputs() {
        let shape = &graph.node(input).outputs[0].fact.ty.shape;
        own.extend(shape.iter().filter_map(Dim::as_symbol).map(Arc::from));
    }
    let mut found = BTreeSet::new();
    collect_symbols(graph, &mut found);
    found.into_iter().filter(|name| known.contains(name) && !own.contains(name)).collect()
}

fn collect_symbols(graph: &Graph, found: &mut BTreeSet<Arc<str>>) {
    for id in graph.node_ids() {
        let node = graph.node(id);
        let facts = node.outputs.iter().map(|o| &o.fact);
        let dims = facts.flat_map(|f| f.shape().iter().chain(f.elements.iter().flatten()));
        for dim in dims.chain(node.equal.iter().flat_map(|(a, b)| [a, b])) {
            dim.for_each_symbol(&mut |name| {
                found.insert(name.clone());
            });
        }
        for (_, region) in node.op.regions() {
            collect_symbols(region, found);
        }
    }
}
