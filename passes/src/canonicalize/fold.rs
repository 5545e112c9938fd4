//! `fold`: evaluates at compile time what does not depend on inputs.
//!
//! Constants are computed by the interpreter, so folding cannot change a bit. Shape arithmetic whose result
//! inference knows becomes a constant, a conditional whose condition is known becomes its branch.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [1.0, 2.0] : f32[2]
//! %2 = Constant [4.0] : f32[1]
//! %3 = Mul(%1, %2)
//! %4 = Add(%0, %3)
//! output "y" = %4
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2]
//! %1 = Constant [4.0, 8.0] : f32[2]
//! %2 = Add(%0, %1)
//! output "y" = %2
//! ```

use super::copy::{self, Copier, Values};
use rabot_ir::ops::If;
use rabot_ir::{Fact, Graph, GraphError, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    flops, print_options, remove_dead, taken_names,
};
use rabot_tensor::Tensor;
use std::collections::HashSet;
use std::sync::Arc;

/// Constants may grow by this much in one fold: tables of positions and masks are worth it, broadcast weights and
/// second copies of shared ones are not.
const MAX_GROWTH_BYTES: u64 = 4 << 20;
/// Most bytes of one `ConstantOfShape` that become a constant, so that rules can work with it: more than the weights of
/// any convolution that a batch norm is folded into, less than matrices that only cost memory.
const MAX_SPREAD_BYTES: u64 = 16 << 20;

/// Most operations of one product or convolution of constants that are done while compiling, one by one: some tenths
/// of a second.
const MAX_FLOPS: i64 = 1 << 28;

const OPTIONS: &[OptionInfo] = &[OptionInfo {
    name: "max_bytes",
    default: "1073741824",
    summary: "most bytes of constants that ConstantOfShape may make, all together",
}];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "fold", options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    Ok(Box::new(Fold { max_bytes: options.get("max_bytes")? }))
}

/// Evaluates at compile time what does not depend on inputs.
#[derive(Clone, Debug)]
pub struct Fold {
    /// Most bytes of constants that `ConstantOfShape` may make, all together: models without weights hold them so.
    pub max_bytes: u64,
}

impl Default for Fold {
    fn default() -> Self {
        Fold { max_bytes: 1 << 30 }
    }
}

impl Pass for Fold {
    fn name(&self) -> &'static str {
        "fold"
    }

    fn summary(&self) -> &'static str {
        "evaluate what does not depend on inputs: constants, known shapes, conditionals with a known condition"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn options(&self) -> String {
        print_options(OPTIONS, &[("max_bytes", self.max_bytes.to_string())])
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        let mut budget = self.max_bytes.min(rabot_ir::budget::current().folded_bytes);
        fold(graph, cx, &mut budget, &mut report)?;
        Ok(report)
    }
}

/// Why a node stays, or that it has gone.
enum Outcome {
    Folded,
    Kept,
    Skipped(String),
}

fn fold(graph: &mut Graph, cx: &PassCx<'_>, budget: &mut u64, report: &mut Report) -> Result<(), PassError> {
    let error = |error| PassError::Graph { pass: "fold", error };
    let mut names = taken_names(graph);
    for id in graph.topological().map_err(error)? {
        // An earlier fold may have removed it with the last of its users.
        if !graph.contains(id) || matches!(graph.node(id).op, Op::Input | Op::Constant(_)) {
            continue;
        }
        graph.refresh_node(id).map_err(error)?;
        let name = graph.node(id).name.clone();
        let rule = if matches!(graph.node(id).op, Op::If(_)) { "known-condition" } else { "constant" };
        let op = graph.node(id).op.name();
        let outcome = match rule {
            "known-condition" => inline_branch(graph, &mut names, id, cx).map_err(error)?,
            _ => fold_node(graph, id, cx, budget),
        };
        match outcome {
            Outcome::Folded => report.apply(rule, name, op),
            Outcome::Skipped(reason) => report.skip(rule, name, reason),
            Outcome::Kept => {}
        }
    }
    edit_branches("fold", graph, &mut |branch| {
        let before = report.applied.len();
        fold(branch, cx, budget, report)?;
        Ok(report.applied.len() > before)
    })?;
    // What was inlined has types of its own, and a constant says more than the value it stands for.
    graph.refresh().map_err(error)
}

fn fold_node(graph: &mut Graph, id: NodeId, cx: &PassCx<'_>, budget: &mut u64) -> Outcome {
    let facts: Vec<Fact> = graph.node(id).outputs.iter().map(|o| o.fact.clone()).collect();
    let known: Option<Vec<Tensor>> = facts.iter().map(contents).collect();
    let tensors = match known {
        Some(tensors) => tensors,
        None => match evaluate(graph, id, &facts, budget) {
            Ok(Some(tensors)) => tensors,
            Ok(None) => return Outcome::Kept,
            Err(reason) => return Outcome::Skipped(reason),
        },
    };
    if !cx.admits("constant", &graph.node(id).name) {
        return Outcome::Kept;
    }
    become_constants(graph, id, tensors);
    Outcome::Folded
}

/// The contents of a value, if all are known.
pub(super) fn contents(fact: &Fact) -> Option<Tensor> {
    if let Some(tensor) = &fact.constant {
        return Some(tensor.clone());
    }
    let ints: Vec<i64> = fact.elements.as_ref()?.iter().map(|dim| dim.as_const()).collect::<Option<_>>()?;
    Some(Tensor::from_i64s(fact.dtype(), &fact.ty.static_shape()?, &ints))
}

/// The outputs of a node whose operands are all known; `None` if one is not. The error says why it is not evaluated.
fn evaluate(
    graph: &Graph,
    id: NodeId,
    facts: &[Fact],
    budget: &mut u64,
) -> Result<Option<Vec<Tensor>>, String> {
    let node = graph.node(id);
    // A loop may go on for long; and what is no tensor cannot be a constant.
    if !node.op.regions().is_empty() || facts.iter().any(|fact| !fact.ty.is_tensor()) {
        return Ok(None);
    }
    let operands: Option<Vec<Option<Tensor>>> = node
        .inputs
        .iter()
        .map(|input| match input {
            None => Some(None),
            Some(value) => contents(graph.fact(*value)).map(Some),
        })
        .collect();
    let Some(operands) = operands else { return Ok(None) };
    if matches!(node.op, Op::DequantizeLinear(_)) {
        return Err(
            "quantized weights stay as they are: integers are smaller, and kernels compute with them".into(),
        );
    }
    let bytes = |tensor: &Tensor| tensor.bytes().len() as u64;
    // What something else uses too stays, whatever becomes of this node.
    let goes = |value: &Value| graph.use_count(*value) == 1;
    let given: u64 = node
        .inputs
        .iter()
        .zip(&operands)
        .filter_map(|(input, tensor)| input.filter(goes).and(tensor.as_ref()))
        .map(bytes)
        .sum();
    let made: Option<u64> = facts.iter().map(size_bytes).sum();
    if matches!(node.op, Op::ConstantOfShape(_)) {
        let made = made.ok_or("its size is not known")?;
        if made > MAX_SPREAD_BYTES {
            return Err(format!("{made} bytes of one value are read as they are, without being written out"));
        }
        if made > *budget {
            return Err(format!("it would make {made} bytes of constants, and max_bytes leaves {budget}"));
        }
        *budget -= made;
    } else if let Some(made) = made.filter(|&made| made > given + MAX_GROWTH_BYTES) {
        return Err(format!("{made} bytes of constants would take the place of {given}"));
    }
    let work = flops(graph, id);
    if work.as_const().is_none_or(|work| work > MAX_FLOPS) {
        return Err(format!("{work} operations are too many to be done while compiling"));
    }
    let borrowed: Vec<Option<&Tensor>> = operands.iter().map(Option::as_ref).collect();
    node.op.eval(&borrowed).map(Some).map_err(|error| error.to_string())
}

fn size_bytes(fact: &Fact) -> Option<u64> {
    let shape = fact.ty.static_shape()?;
    let size = fact.dtype().size_bytes() as u64;
    shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim as u64))
}

/// Puts constants in the place of a node, with its name and those of its outputs.
fn become_constants(graph: &mut Graph, id: NodeId, tensors: Vec<Tensor>) {
    let old = graph.node(id).clone();
    let operands = old.inputs.iter().flatten().map(|v| v.node);
    let mut sources: Vec<Arc<str>> = Vec::new();
    for source in operands.flat_map(|operand| graph.node(operand).sources.clone()).chain(old.sources.clone())
    {
        if !sources.contains(&source) {
            sources.push(source);
        }
    }
    let mut made = Vec::new();
    for (slot, tensor) in tensors.into_iter().enumerate().take(old.outputs.len()) {
        let value = Value { node: id, slot: slot as u32 };
        if graph.use_count(value) > 0 {
            let constant = graph.add_constant(&old.name, tensor);
            graph.replace_value(value, constant);
            made.push((slot, constant.node));
        }
    }
    remove_dead(graph, id);
    for (slot, constant) in made {
        let name = old.outputs[slot].name.clone();
        graph.annotate(constant, |node| {
            *node.name = if slot == 0 { old.name.clone() } else { name.clone() };
            *node.sources = sources.clone();
            node.outputs[0].name = name;
        });
    }
}

/// Puts the branch that a known condition chooses in the place of a conditional.
fn inline_branch(
    graph: &mut Graph,
    names: &mut HashSet<Arc<str>>,
    id: NodeId,
    cx: &PassCx<'_>,
) -> Result<Outcome, GraphError> {
    let node = graph.node(id).clone();
    let Op::If(op) = &node.op else { return Ok(Outcome::Kept) };
    let condition = node.inputs.first().copied().flatten().and_then(|v| contents(graph.fact(v)));
    let Some(condition) = condition.filter(|tensor| tensor.len() == 1) else { return Ok(Outcome::Kept) };
    if !cx.admits("known-condition", &node.name) {
        return Ok(Outcome::Kept);
    }
    let If { then_branch, else_branch } = op.as_ref();
    let branch = if condition.bytes().first() == Some(&1) { then_branch } else { else_branch };
    let mut values = Values::new();
    for (&input, operand) in branch.inputs().iter().zip(node.inputs.iter().skip(1)) {
        let Some(operand) = operand else {
            return Ok(Outcome::Skipped("a captured value is absent".to_owned()));
        };
        values.insert(Value { node: input, slot: 0 }, *operand);
    }
    let mut copier = Copier::new(graph, names, &node.name);
    copier.constants(branch, &mut values);
    copier.nodes(branch, &mut values)?;
    for (slot, value) in copy::results(branch, &values)?.into_iter().enumerate() {
        graph.replace_value(Value { node: id, slot: slot as u32 }, value);
    }
    remove_dead(graph, id);
    Ok(Outcome::Folded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{becomes, example, run};

    #[test]
    fn header_example() {
        example(&Fold::default(), include_str!("fold.rs"));
    }

    #[test]
    fn known_parts_of_shapes_become_constants() {
        becomes(
            &Fold::default(),
            r#"model "g"
            input %0 "x" : f32[n,2,3]
            %1 = Shape(%0) {start=1}
            %2 = Constant [-1] : i64[1]
            %3 = Concat(%1, %2) {axis=0}
            %4 = Reshape(%0, %3)
            output "y" = %4"#,
            r#"model "g"
            input %0 "x" : f32[n,2,3]
            %1 = Constant [2, 3, -1] : i64[3]
            %2 = Reshape(%0, %1)
            output "y" = %2"#,
        );
    }

    #[test]
    fn weights_held_as_constant_of_shape_are_made_up_to_the_limit() {
        let text = r#"model "g"
            input %0 "x" : f32[n,3]
            %1 = Constant [3, 4] : i64[2]
            %2 = ConstantOfShape(%1) {value=f32[1] [0.5]}
            %3 = MatMul(%0, %2)
            output "y" = %3"#;
        let (graph, report) = run(&Fold::default(), text);
        assert_eq!((graph.node_count(), report.skipped.len()), (3, 0));
        let (graph, report) = run(&Fold { max_bytes: 47 }, text);
        assert_eq!(graph.node_count(), 4);
        assert_eq!(report.skipped[0].reason, "it would make 48 bytes of constants, and max_bytes leaves 47");
    }

    #[test]
    fn constants_do_not_grow_much() {
        let text = r#"model "g"
            input %0 "x" : f32[1]
            %1 = Constant [2048, 1024] : i64[2]
            %2 = Constant [1.0] : f32[1]
            %3 = Expand(%2, %1)
            %4 = Add(%0, %3)
            output "y" = %4"#;
        let (graph, report) = run(&Fold::default(), text);
        assert_eq!(graph.node_count(), 5);
        assert_eq!(report.skipped[0].reason, "8388608 bytes of constants would take the place of 20");
    }

    #[test]
    fn large_weights_are_not_kept_twice() {
        let text = |more: &str| {
            format!(
                r#"model "g"
                input %0 "x" : f32[1,2]
                input %1 "i" : i64[1]
                %2 = Constant rand(1, -1.0, 1.0) : f32[1048577,2]
                %3 = Transpose(%2)
                %4 = MatMul(%0, %3)
                output "y" = %4
                {more}"#
            )
        };
        let (graph, _) = run(&Fold::default(), &text(""));
        assert_eq!(graph.node_count(), 4);
        let tied = text("%5 = Constant [0] : i64[1]\n%6 = Gather(%2, %5)\noutput \"z\" = %6");
        let (_, report) = run(&Fold::default(), &tied);
        assert_eq!(report.skipped[0].reason, "8388616 bytes of constants would take the place of 0");
    }

    #[test]
    fn a_known_condition_chooses_its_branch() {
        becomes(
            &Fold::default(),
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [false] : bool[1]
            %2 = If(%1, %0) then "t" {
                input %0 "a" : f32[2]
                %1 = Relu(%0)
                output "o" = %1
            } else "e" {
                input %0 "a" : f32[2]
                %1 = Neg(%0)
                output "o" = %1
            }
            output "y" = %2"#,
            r#"model "g"
            input %0 "x" : f32[2]
            %1 = Neg(%0)
            output "y" = %1"#,
        );
    }

    #[test]
    fn branches_are_folded_with_what_they_capture() {
        let (graph, _) = run(
            &Fold::default(),
            r#"model "g"
            input %0 "c" : bool[1]
            %1 = Constant [2.0, 3.0] : f32[2]
            %2 = If(%0, %1) then "t" {
                input %0 "a" : f32[2]
                %1 = Neg(%0)
                output "o" = %1
            } else "e" {
                input %0 "a" : f32[2]
                output "o" = %0
            }
            output "y" = %2"#,
        );
        let Op::If(op) = &graph.node(graph.outputs()[0].value.node).op else { panic!("no conditional") };
        assert!(matches!(op.then_branch.node(op.then_branch.outputs()[0].value.node).op, Op::Constant(_)));
    }
}
