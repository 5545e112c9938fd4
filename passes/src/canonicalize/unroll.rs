//! `unroll`: copies the rounds of short loops one behind the other.
//!
//! A `Scan` over a known number of slices and a `Loop` of a known trip count become what their rounds compute, so that
//! other passes see it, and kernels take the place of a program that is called for each round.
//!
//! ```text
//! model "g"
//! input %0 "h" : f32[2]
//! input %1 "x" : f32[2,2]
//! %2:2 = Scan(%0, %1) {num_scan_inputs=1, states=1, scan_input_axes=[0], scan_input_directions=[0], scan_output_axes=[0], scan_output_directions=[0]} body "b" {
//!     input %0 "old" : f32[2]
//!     input %1 "slice" : f32[2]
//!     %2 = Add(%0, %1)
//!     output "new" = %2
//!     output "all" = %2
//! }
//! output "y" = %2#1
//! ; becomes
//! model "g"
//! input %0 "h" : f32[2]
//! input %1 "x" : f32[2,2]
//! %2 = Constant [0] : i64[]
//! %3 = Gather(%1, %2)
//! %4 = Add(%0, %3)
//! %5 = Constant [0] : i64[1]
//! %6 = Unsqueeze(%4, %5)
//! %7 = Constant [1] : i64[]
//! %8 = Gather(%1, %7)
//! %9 = Add(%4, %8)
//! %10 = Unsqueeze(%9, %5)
//! %11 = Concat(%6, %10) {axis=0}
//! output "y" = %11
//! ```

use super::copy::{self, Copier, Values};
use super::fold::contents;
use rabot_ir::ops::{Concat, Gather, Loop, Scan, Unsqueeze};
use rabot_ir::{Dim, Fact, Graph, GraphError, Node, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options, remove_dead, taken_names,
};
use rabot_tensor::Tensor;
use std::collections::HashSet;
use std::sync::Arc;

const NAME: &str = "unroll";
const RULE: &str = "known-trips";

const OPTIONS: &[OptionInfo] = &[OptionInfo {
    name: "max_nodes",
    default: "1024",
    summary: "most nodes that take the place of loops, all together",
}];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: NAME, options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    Ok(Box::new(Unroll { max_nodes: options.get("max_nodes")? }))
}

/// Copies the rounds of short loops one behind the other.
#[derive(Clone, Debug)]
pub struct Unroll {
    /// Most nodes that take the place of loops, all together.
    pub max_nodes: u64,
}

impl Default for Unroll {
    fn default() -> Self {
        Unroll { max_nodes: 1024 }
    }
}

impl Pass for Unroll {
    fn name(&self) -> &'static str {
        NAME
    }

    fn summary(&self) -> &'static str {
        "copy the rounds of short loops and scans of a known trip count one behind the other"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn options(&self) -> String {
        print_options(OPTIONS, &[("max_nodes", self.max_nodes.to_string())])
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        let mut budget = self.max_nodes;
        unroll(graph, cx, &mut budget, &mut report)?;
        Ok(report)
    }
}

fn unroll(
    graph: &mut Graph,
    cx: &PassCx<'_>,
    budget: &mut u64,
    report: &mut Report,
) -> Result<(), PassError> {
    let error = |error| PassError::Graph { pass: NAME, error };
    // A loop within a round goes as often as rounds there are: the inner one first.
    edit_branches(NAME, graph, &mut |branch| {
        let before = report.applied.len();
        unroll(branch, cx, budget, report)?;
        Ok(report.applied.len() > before)
    })?;
    let is_loop = |graph: &Graph, id: NodeId| matches!(graph.node(id).op, Op::Loop(_) | Op::Scan(_));
    if !graph.node_ids().any(|id| is_loop(graph, id)) || cx.is_exhausted() {
        return Ok(());
    }
    let mut names = taken_names(graph);
    let mut changed = false;
    for id in graph.topological().map_err(error)? {
        if !graph.contains(id) {
            continue;
        }
        // What was unrolled before says more of its results.
        if changed || is_loop(graph, id) {
            graph.refresh_node(id).map_err(error)?;
        }
        if !is_loop(graph, id) {
            continue;
        }
        let node = graph.node(id).clone();
        match plan(graph, &node, *budget) {
            Err(reason) => report.skip(RULE, node.name.clone(), reason),
            Ok(plan) => match replace(graph, &mut names, id, &plan, cx) {
                Err(reason) => report.skip(RULE, node.name.clone(), reason.to_string()),
                Ok(false) => {}
                Ok(true) => {
                    changed = true;
                    *budget -= plan.nodes;
                    let rounds = plan.trips;
                    report.apply(RULE, node.name.clone(), format!("{}, {rounds} rounds", node.op.name()));
                }
            },
        }
    }
    if changed { graph.refresh().map_err(error) } else { Ok(()) }
}

/// A tensor of which each round gets a slice, or that is stacked from those of each round: the axis, and if from the
/// end.
type Along = (i64, bool);

/// What a loop is made of.
struct Plan {
    body: Graph,
    /// Number of rounds, at least one.
    trips: i64,
    /// Nodes that take its place.
    nodes: u64,
    /// The body has the number of the round and the condition as inputs, and the condition as an output.
    counted: bool,
    /// Operands that are carried.
    carried: Vec<Value>,
    scanned: Vec<(Along, Value)>,
    captured: Vec<Value>,
    stacked: Vec<Along>,
}

/// How a loop is unrolled; the error says why it is not.
fn plan(graph: &Graph, node: &Node, budget: u64) -> Result<Plan, String> {
    let own = node.op.own_operands();
    let operand = |slot: usize| {
        let value = node.inputs.get(slot).copied().flatten();
        value.ok_or_else(|| format!("its operand {slot} is absent"))
    };
    let (body, trips, carried, scanned, stacked) = match &node.op {
        Op::Loop(op) => {
            let scans = op.body.outputs().len().saturating_sub(1 + op.carried);
            (&op.body, loop_trips(graph, node, op)?, 2..2 + op.carried, &[][..], vec![(0, false); scans])
        }
        Op::Scan(op) => {
            (&op.body, scan_trips(graph, node, op)?, 0..op.states, &op.inputs[..], op.outputs.clone())
        }
        other => return Err(format!("{} has no rounds", other.name())),
    };
    if trips < 1 {
        return Err("it goes no round".to_owned());
    }
    let counted = matches!(node.op, Op::Loop(_));
    let first_scan = carried.end;
    let plan = Plan {
        body: body.clone(),
        trips,
        nodes: u64::try_from(trips)
            .unwrap_or(u64::MAX)
            .saturating_mul(inner_nodes(body).saturating_add((scanned.len() + stacked.len()) as u64)),
        counted,
        carried: carried.map(operand).collect::<Result<_, _>>()?,
        scanned: scanned
            .iter()
            .enumerate()
            .map(|(at, &along)| Ok((along, operand(first_scan + at)?)))
            .collect::<Result<_, String>>()?,
        captured: (own..node.inputs.len()).map(operand).collect::<Result<_, _>>()?,
        stacked,
    };
    same_in_all_rounds(graph, node, &plan)?;
    if plan.nodes > budget {
        return Err(format!("its {trips} rounds are {} nodes, and max_nodes leaves {budget}", plan.nodes));
    }
    Ok(plan)
}

/// Number of rounds of a `Loop`.
fn loop_trips(graph: &Graph, node: &Node, op: &Loop) -> Result<i64, String> {
    let known = |slot: usize, what: &str| match node.inputs.get(slot).copied().flatten() {
        None => Ok(None),
        Some(value) => {
            let tensor = contents(graph.fact(value)).filter(|tensor| tensor.len() == 1);
            let tensor = tensor.ok_or_else(|| format!("its {what} is not constant"))?;
            Ok::<_, String>(tensor.to_i64s().first().copied())
        }
    };
    let trips = known(0, "trip count")?;
    if known(1, "first condition")? == Some(0) {
        return Ok(0);
    }
    match (op.goes_on(), trips) {
        (_, Some(trips)) if trips <= 1 => Ok(trips),
        (Some(true), Some(trips)) => Ok(trips),
        (Some(true), None) => Err("it never ends".to_owned()),
        (Some(false), _) => Ok(1),
        (None, _) => Err("its body computes the condition for the next round".to_owned()),
    }
}

/// Number of slices of a `Scan`.
fn scan_trips(graph: &Graph, node: &Node, op: &Scan) -> Result<i64, String> {
    let mut trips = None;
    for (at, &(axis, _)) in op.inputs.iter().enumerate() {
        let Some(fact) = node.inputs.get(op.states + at).copied().flatten().map(|v| graph.fact(v)) else {
            return Err("a scanned tensor is absent".to_owned());
        };
        let axis = if axis < 0 { axis + fact.rank() as i64 } else { axis };
        let length = usize::try_from(axis).ok().and_then(|axis| fact.shape().get(axis));
        let length = length.ok_or("the rank of a scanned tensor is not known")?;
        let count =
            length.as_const().ok_or_else(|| format!("the number of its rounds, {length}, is not known"))?;
        if trips.is_some_and(|trips| trips != count) {
            return Err("its scanned tensors have different numbers of slices".to_owned());
        }
        trips = Some(count);
    }
    trips.ok_or_else(|| "it scans no tensor".to_owned())
}

/// Nodes of a body that compute something, those of nested graphs too.
fn inner_nodes(body: &Graph) -> u64 {
    let computes = |id: &NodeId| !matches!(body.node(*id).op, Op::Input | Op::Constant(_));
    let nested =
        |id: NodeId| body.node(id).op.regions().iter().map(|(_, region)| inner_nodes(region)).sum::<u64>();
    body.node_ids().filter(computes).map(|id| 1 + nested(id)).sum()
}

/// **Errors**: what is carried or stacked is no tensor, or has other sizes from round to round.
fn same_in_all_rounds(graph: &Graph, node: &Node, plan: &Plan) -> Result<(), String> {
    let first = if plan.counted { 2 } else { 0 };
    for (at, &value) in plan.carried.iter().enumerate() {
        let (outer, name) = (&graph.fact(value).ty, graph.value_name(value));
        if !outer.is_tensor() {
            return Err(format!("`{name}`, which it carries, is {outer}"));
        }
        let inner = plan.body.inputs().get(first + at).and_then(|&id| plan.body.node(id).outputs.first());
        let Some(inner) = inner.map(|output| &output.fact.ty) else {
            return Err("its body has too few inputs".to_owned());
        };
        if inner != outer {
            return Err(format!(
                "`{name}`, which it carries, is {outer} at first and {inner} in later rounds"
            ));
        }
    }
    let mut outside: HashSet<Arc<str>> = HashSet::new();
    for value in node.inputs.iter().flatten() {
        for_each_symbol(graph.fact(*value), &mut |name| {
            outside.insert(name.clone());
        });
    }
    let results = usize::from(plan.counted) + plan.carried.len();
    for output in plan.body.outputs().iter().skip(results) {
        let fact = plan.body.fact(output.value);
        let mut inner = !fact.ty.is_tensor();
        for_each_symbol(fact, &mut |name| inner |= !outside.contains(name));
        if inner {
            return Err(format!("slices of `{}` are {}, of sizes that rounds decide", output.name, fact.ty));
        }
    }
    Ok(())
}

fn for_each_symbol(fact: &Fact, visit: &mut dyn FnMut(&Arc<str>)) {
    for dim in fact.shape() {
        Dim::for_each_symbol(dim, visit);
    }
}

/// Puts the rounds in the place of a loop; false if that is not admitted. Nothing changes then, nor on an error.
fn replace(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    id: NodeId,
    plan: &Plan,
    cx: &PassCx<'_>,
) -> Result<bool, GraphError> {
    let node = graph.node(id).clone();
    let mut copier = Copier::new(graph, names, &node.name);
    let results = match rounds(&mut copier, plan, &node.sources) {
        Ok(results) => results,
        Err(error) => {
            copier.undo();
            return Err(error);
        }
    };
    if !cx.admits(RULE, &node.name) {
        copier.undo();
        return Ok(false);
    }
    let added: HashSet<NodeId> = copier.added().iter().copied().collect();
    for (slot, &value) in results.iter().enumerate() {
        graph.replace_value(Value { node: id, slot: slot as u32 }, value);
    }
    remove_dead(graph, id);
    // The results keep their names, by which they are found again.
    for (output, value) in node.outputs.iter().zip(results) {
        if graph.contains(value.node) && added.contains(&value.node) {
            graph.annotate(value.node, |made| {
                if let Some(made) = made.outputs.get_mut(value.slot as usize) {
                    made.name = output.name.clone();
                }
            });
        }
    }
    Ok(true)
}

/// Copies all rounds and gives what stands for the results of the loop.
fn rounds(copier: &mut Copier<'_>, plan: &Plan, sources: &[Arc<str>]) -> Result<Vec<Value>, GraphError> {
    let Plan { body, trips, counted, .. } = plan;
    let mut shared = Values::new();
    copier.constants(body, &mut shared);
    let own = |at: usize| body.inputs().get(at).map(|&node| Value { node, slot: 0 });
    let is_read = |value: Option<Value>| value.is_some_and(|value| body.use_count(value) > 0);
    let first = if *counted { 2 } else { 0 };
    let captured = first + plan.carried.len() + plan.scanned.len();
    let operands = (captured..).map_while(own).zip(plan.captured.iter().copied());
    shared.extend(operands);
    if *counted && let Some(condition) = own(1).filter(|&value| is_read(Some(value))) {
        shared.insert(condition, copier.constant(Tensor::from_bools(&[], &[true]), "condition"));
    }
    let mut stack = Stack::new(plan);
    let mut carried = plan.carried.clone();
    for round in 0..*trips {
        let mut values = shared.clone();
        if *counted && let Some(number) = own(0).filter(|&value| is_read(Some(value))) {
            values.insert(number, copier.constant(Tensor::scalar(round), "round"));
        }
        let inputs = (first..).map_while(own);
        let slices =
            plan.scanned.iter().map(|&(along, tensor)| slice(copier, along, tensor, round, *trips, sources));
        let slices: Vec<Value> = slices.collect::<Result<_, _>>()?;
        values.extend(inputs.zip(carried.iter().chain(&slices).copied()));
        copier.nodes(body, &mut values)?;
        let results = copy::results(body, &values)?;
        let results = results.get(usize::from(*counted)..).unwrap_or_default();
        let (next, given) = results.split_at_checked(carried.len()).unwrap_or((results, &[]));
        carried = next.to_vec();
        stack.push(copier, given, sources)?;
    }
    carried.extend(stack.join(copier, sources)?);
    Ok(carried)
}

/// What one round gets of a tensor.
fn slice(
    copier: &mut Copier<'_>,
    (axis, reverse): Along,
    tensor: Value,
    round: i64,
    trips: i64,
    sources: &[Arc<str>],
) -> Result<Value, GraphError> {
    let at = if reverse { trips - 1 - round } else { round };
    let index = copier.constant(Tensor::scalar(at), "index");
    copier.add(Op::Gather(Gather { axis }), vec![Some(tensor), Some(index)], "slice", sources)
}

/// What rounds give out, to be stacked.
struct Stack {
    /// For each result the axis, if from the end, and what the rounds gave.
    parts: Vec<(Along, Vec<Value>)>,
    /// The constant axes of each result.
    axes: Vec<Value>,
}

impl Stack {
    fn new(plan: &Plan) -> Self {
        Stack { parts: plan.stacked.iter().map(|&along| (along, Vec::new())).collect(), axes: Vec::new() }
    }

    fn push(
        &mut self,
        copier: &mut Copier<'_>,
        given: &[Value],
        sources: &[Arc<str>],
    ) -> Result<(), GraphError> {
        for (at, ((along, parts), &value)) in self.parts.iter_mut().zip(given).enumerate() {
            let axes = match self.axes.get(at) {
                Some(&axes) => axes,
                None => {
                    self.axes.push(copier.constant(Tensor::from_vec(&[1], vec![along.0]), "axes"));
                    self.axes[at]
                }
            };
            let inputs = vec![Some(value), Some(axes)];
            parts.push(copier.add(Op::Unsqueeze(Unsqueeze), inputs, "part", sources)?);
        }
        Ok(())
    }

    fn join(self, copier: &mut Copier<'_>, sources: &[Arc<str>]) -> Result<Vec<Value>, GraphError> {
        let join = |((axis, reverse), mut parts): (Along, Vec<Value>)| {
            if reverse {
                parts.reverse();
            }
            match parts[..] {
                [part] => Ok(part),
                _ => {
                    let parts = parts.into_iter().map(Some).collect();
                    copier.add(Op::Concat(Concat { axis }), parts, "stacked", sources)
                }
            }
        };
        self.parts.into_iter().map(join).collect()
    }
}

#[cfg(test)]
mod tests;
