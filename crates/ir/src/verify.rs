//! The verifier: what every pass may rely on, and must leave true.
//!
//! | number | invariant |
//! |---|---|
//! | V1 | The graph is acyclic. |
//! | V2 | Every operand is an output that its node has. |
//! | V3 | The stored types, contents and dim equations of every node are those that inference gives. |
//! | V4 | Names of inputs are unique, and names of outputs are. |
//! | V6 | Outputs are values that exist; the list of inputs holds every `Input` node once, and no other. |
//! | V7 | Groups can be run one after the other: no path leaves a group and comes back, directly or through other groups. |
//! | V8 | Bytes of constants of `bool` and of dtypes of less than 8 bits are values of their dtype. |
//! | V9 | A branch of a conditional has one input for each captured operand, of its type; each branch is itself valid. |
//!
//! By construction, since a [`Graph`] has no way to break them: an operand's node exists (a node that is used cannot
//! be removed), edges follow operands, a constant has as many bytes as its type needs ([`Tensor`] checks), and both
//! branches of a conditional give the same number of outputs (inference refuses others, V3).

use crate::ops::{InferCx, Op, OpError};
use crate::{Fact, Graph, Node, NodeId, Value, ValueType};
use rabot_tensor::{DType, Tensor};
use std::collections::{HashMap, HashSet};
use std::fmt;
use std::sync::Arc;

/// Everything that is wrong with a graph.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyErrors(pub Vec<VerifyError>);

impl fmt::Display for VerifyErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the graph is not valid:")?;
        self.0.iter().try_for_each(|error| write!(f, "\n  {error}"))
    }
}

impl std::error::Error for VerifyErrors {}

/// One violation of an invariant.
#[derive(Debug, Clone, PartialEq)]
pub struct VerifyError {
    /// The node it is about, in the outermost graph.
    pub node: Option<NodeId>,
    /// The invariant and what breaks it.
    pub violation: Violation,
}

impl fmt::Display for VerifyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "V{}: {}", self.violation.number(), self.violation)
    }
}

/// How an invariant is broken.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum Violation {
    /// V1.
    #[error("there is a cycle through `{0}`")]
    Cycle(String),
    /// V2.
    #[error("{node}: operand {operand} is output {slot} of `{source_node}`, which has {count}")]
    MissingOutput {
        /// The node, with its op.
        node: String,
        /// Position of the operand.
        operand: usize,
        /// Output asked for.
        slot: u32,
        /// The node that should make it.
        source_node: String,
        /// Outputs it has.
        count: usize,
    },
    /// V3: an op refuses its operands.
    #[error("{node}: {error} (inputs: {inputs})")]
    Refused {
        /// The node, with its op.
        node: String,
        /// Types of the operands.
        inputs: String,
        /// What the op said.
        error: OpError,
    },
    /// V3: types that are not the inferred ones.
    #[error("{node}: stored {stored}, but inference gives {inferred}")]
    StaleType {
        /// The node, with its op.
        node: String,
        /// Types in the graph.
        stored: String,
        /// Types that follow from the operands.
        inferred: String,
    },
    /// V3: contents or dim equations that are not the inferred ones, under the right types.
    #[error("{node}: the stored {what} is not what inference gives")]
    StaleFact {
        /// The node, with its op.
        node: String,
        /// What is stale.
        what: &'static str,
    },
    /// V4.
    #[error("two {what} are named `{name}`")]
    DuplicateName {
        /// Inputs or outputs.
        what: &'static str,
        /// The name.
        name: String,
    },
    /// V6: an output that is not there.
    #[error("output `{0}` is a value that does not exist")]
    MissingGraphOutput(String),
    /// V6: the list of inputs.
    #[error("`{node}` {problem}")]
    InputList {
        /// Name of the node.
        node: String,
        /// What does not fit.
        problem: &'static str,
    },
    /// V7.
    #[error("group {group} needs a result of {through}, which needs a result of group {group}")]
    GroupNotConvex {
        /// The group.
        group: u32,
        /// What lies between: a node or another group.
        through: String,
    },
    /// V8.
    #[error("constant `{node}` is {dtype}, but has the byte {byte:#04x}")]
    ConstantByte {
        /// Name of the node.
        node: String,
        /// Its dtype.
        dtype: DType,
        /// A byte that is no such value.
        byte: u8,
    },
    /// V9: wrong number of inputs of a branch.
    #[error("{node}: branch `{branch}` has {inputs} inputs for {captured} captured operands")]
    BranchInputs {
        /// The node, with its op.
        node: String,
        /// Name of the branch.
        branch: String,
        /// Inputs of the branch.
        inputs: usize,
        /// Operands after the condition.
        captured: usize,
    },
    /// V9: wrong type of an input of a branch.
    #[error("{node}: input `{input}` of branch `{branch}` is {actual}, the captured operand is {expected}")]
    BranchInputType {
        /// The node, with its op.
        node: String,
        /// Name of the branch.
        branch: String,
        /// Name of the input.
        input: String,
        /// Type in the branch.
        actual: String,
        /// Type of the operand.
        expected: String,
    },
    /// V9: a branch that is not valid.
    #[error("{node}: in branch `{branch}`: {error}")]
    InBranch {
        /// The node, with its op.
        node: String,
        /// Name of the branch.
        branch: String,
        /// What is wrong there.
        error: Box<VerifyError>,
    },
}

impl Violation {
    /// Number of the invariant, as in the list at the top.
    pub fn number(&self) -> u32 {
        match self {
            Violation::Cycle(_) => 1,
            Violation::MissingOutput { .. } => 2,
            Violation::Refused { .. } | Violation::StaleType { .. } | Violation::StaleFact { .. } => 3,
            Violation::DuplicateName { .. } => 4,
            Violation::MissingGraphOutput(_) | Violation::InputList { .. } => 6,
            Violation::GroupNotConvex { .. } => 7,
            Violation::ConstantByte { .. } => 8,
            Violation::BranchInputs { .. }
            | Violation::BranchInputType { .. }
            | Violation::InBranch { .. } => 9,
        }
    }
}

/// Checks every invariant.
///
/// **Errors**: all violations, by invariant of the graph as a whole, then node by node.
pub fn verify(graph: &Graph) -> Result<(), VerifyErrors> {
    let mut errors = Errors(Vec::new());
    let order = check_acyclic(graph, &mut errors);
    check_names(graph, &mut errors);
    check_ends(graph, &mut errors);
    if let Some(order) = &order {
        check_groups(graph, order, &mut errors);
    }
    for id in order.unwrap_or_else(|| graph.node_ids().collect()) {
        check_node(graph, id, &mut errors);
    }
    if errors.0.is_empty() { Ok(()) } else { Err(VerifyErrors(errors.0)) }
}

struct Errors(Vec<VerifyError>);

impl Errors {
    fn push(&mut self, node: impl Into<Option<NodeId>>, violation: Violation) {
        self.0.push(VerifyError { node: node.into(), violation });
    }
}

fn describe(node: &Node) -> String {
    format!("{} `{}`", node.op.name(), node.name)
}

fn exists(graph: &Graph, value: Value) -> bool {
    graph.contains(value.node) && (value.slot as usize) < graph.node(value.node).outputs.len()
}

/// V1.
fn check_acyclic(graph: &Graph, errors: &mut Errors) -> Option<Vec<NodeId>> {
    match graph.topological() {
        Ok(order) => Some(order),
        Err(error) => {
            let name = match error {
                crate::GraphError::Cycle(name) => name,
                other @ crate::GraphError::Op { .. } => other.to_string(),
            };
            let node = graph.node_ids().find(|&id| *graph.node(id).name == *name);
            errors.push(node, Violation::Cycle(name));
            None
        }
    }
}

/// V4.
fn check_names(graph: &Graph, errors: &mut Errors) {
    let mut seen: HashSet<&Arc<str>> = HashSet::new();
    for &id in graph.inputs().iter().filter(|&&id| graph.contains(id)) {
        let name = &graph.node(id).name;
        if !seen.insert(name) {
            errors.push(id, Violation::DuplicateName { what: "inputs", name: name.to_string() });
        }
    }
    seen.clear();
    for output in graph.outputs() {
        if !seen.insert(&output.name) {
            let name = output.name.to_string();
            errors.push(None, Violation::DuplicateName { what: "outputs", name });
        }
    }
}

/// V6.
fn check_ends(graph: &Graph, errors: &mut Errors) {
    for output in graph.outputs().iter().filter(|o| !exists(graph, o.value)) {
        errors.push(None, Violation::MissingGraphOutput(output.name.to_string()));
    }
    let mut listed: HashMap<NodeId, usize> = HashMap::new();
    for &id in graph.inputs() {
        *listed.entry(id).or_insert(0) += 1;
    }
    for id in graph.node_ids() {
        let node = graph.node(id);
        let is_input = matches!(node.op, Op::Input);
        let problem = match (is_input, listed.get(&id).copied().unwrap_or(0)) {
            (true, 0) => "is an input that the list of inputs does not have",
            (false, 1..) => "is in the list of inputs, but is none",
            (_, 2..) => "is in the list of inputs twice",
            (true, 1) if !node.inputs.is_empty() => "is an input, but has operands",
            (true, 1) if node.outputs.len() != 1 => "is an input, but has not one output",
            (true, 1) | (false, 0) => continue,
        };
        errors.push(id, Violation::InputList { node: node.name.to_string(), problem });
    }
}

/// V7: with every group drawn together into one, the graph is still acyclic.
fn check_groups(graph: &Graph, order: &[NodeId], errors: &mut Errors) {
    let groups: HashSet<u32> = order.iter().filter_map(|&id| graph.node(id).group).collect();
    if groups.is_empty() {
        return;
    }
    // A block is a group or a node of its own; `first` is the node that comes first in order.
    let mut blocks: Vec<(Option<u32>, NodeId)> = Vec::new();
    let mut block_of_group: HashMap<u32, usize> = HashMap::new();
    let mut block_of: HashMap<NodeId, usize> = HashMap::new();
    for &id in order {
        let group = graph.node(id).group;
        let known = group.and_then(|g| block_of_group.get(&g).copied());
        let block = known.unwrap_or(blocks.len());
        if known.is_none() {
            blocks.push((group, id));
            block_of_group.extend(group.map(|g| (g, block)));
        }
        block_of.insert(id, block);
    }
    let mut needs: Vec<Vec<usize>> = vec![Vec::new(); blocks.len()];
    for &id in order {
        for value in graph.node(id).inputs.iter().flatten() {
            if let (Some(&user), Some(&source)) = (block_of.get(&id), block_of.get(&value.node))
                && user != source
            {
                needs[user].push(source);
            }
        }
    }
    for (block, through) in cycles(&needs) {
        let (Some(group), first) = blocks[block] else { continue };
        let (through_group, through_first) = blocks[through];
        let through = match through_group {
            Some(other) => format!("group {other}"),
            None => format!("`{}`", graph.node(through_first).name),
        };
        errors.push(first, Violation::GroupNotConvex { group, through });
    }
}

/// Blocks that need themselves, each with a block that it needs directly and that needs it.
fn cycles(needs: &[Vec<usize>]) -> Vec<(usize, usize)> {
    let mut graph = petgraph::graph::DiGraph::<(), ()>::new();
    let nodes: Vec<_> = needs.iter().map(|_| graph.add_node(())).collect();
    for (block, sources) in needs.iter().enumerate() {
        for &source in sources {
            graph.add_edge(nodes[block], nodes[source], ());
        }
    }
    let mut found = Vec::new();
    for component in petgraph::algo::tarjan_scc(&graph).into_iter().filter(|c| c.len() > 1) {
        let members: HashSet<usize> = component.iter().map(|n| n.index()).collect();
        for &block in &members {
            let through = needs[block].iter().copied().find(|source| members.contains(source));
            found.extend(through.map(|through| (block, through)));
        }
    }
    found.sort_unstable();
    found
}

fn check_node(graph: &Graph, id: NodeId, errors: &mut Errors) {
    let node = graph.node(id);
    let mut operands_exist = true;
    for (operand, value) in node.inputs.iter().enumerate() {
        let Some(value) = value.filter(|&v| !exists(graph, v)) else { continue };
        operands_exist = false;
        let source = graph.contains(value.node).then(|| graph.node(value.node));
        errors.push(
            id,
            Violation::MissingOutput {
                node: describe(node),
                operand,
                slot: value.slot,
                source_node: source.map_or_else(|| "a removed node".to_owned(), |n| n.name.to_string()),
                count: source.map_or(0, |n| n.outputs.len()),
            },
        );
    }
    if let Op::Constant(tensor) = &node.op {
        check_constant(id, node, tensor, errors);
    }
    // What an op says of operands that do not exist means nothing.
    if !operands_exist || matches!(node.op, Op::Input) {
        return;
    }
    let facts: Vec<Option<&Fact>> = node.inputs.iter().map(|i| i.map(|v| graph.fact(v))).collect();
    check_regions(id, node, &facts, errors);
    check_types(id, node, &facts, errors);
}

/// V3.
fn check_types(id: NodeId, node: &Node, facts: &[Option<&Fact>], errors: &mut Errors) {
    let join = |types: &mut dyn Iterator<Item = Option<&ValueType>>| {
        let texts: Vec<String> = types.map(|t| t.map_or("_".to_owned(), ValueType::to_string)).collect();
        texts.join(", ")
    };
    let mut cx = InferCx::new(&node.name);
    let inferred = match node.op.infer(facts, &mut cx) {
        Ok(inferred) => inferred,
        Err(error) => {
            let inputs = join(&mut facts.iter().map(|f| f.map(|f| &f.ty)));
            errors.push(id, Violation::Refused { node: describe(node), inputs, error });
            return;
        }
    };
    let stored: Vec<&Fact> = node.outputs.iter().map(|o| &o.fact).collect();
    let same_types =
        stored.len() == inferred.len() && stored.iter().zip(&inferred).all(|(a, b)| a.ty == b.ty);
    if !same_types {
        let stored = join(&mut stored.iter().map(|f| Some(&f.ty)));
        let inferred = join(&mut inferred.iter().map(|f| Some(&f.ty)));
        errors.push(id, Violation::StaleType { node: describe(node), stored, inferred });
        return;
    }
    let mut stale = |is: bool, what| {
        if is {
            errors.push(id, Violation::StaleFact { node: describe(node), what });
        }
    };
    let pairs = || stored.iter().zip(&inferred);
    stale(pairs().any(|(a, b)| !same_contents(a, b)), "contents");
    stale(pairs().any(|(a, b)| a.elements != b.elements), "tracked elements");
    stale(node.equal != cx.equal, "list of dims that must be equal");
}

/// Equality of known contents; data that is shared is not read.
fn same_contents(a: &Fact, b: &Fact) -> bool {
    match (&a.constant, &b.constant) {
        (None, None) => true,
        (Some(a), Some(b)) => {
            let shared = std::ptr::eq(a.bytes(), b.bytes()) && a.strings().is_none();
            shared && a.shape() == b.shape() && a.dtype() == b.dtype() || a == b
        }
        (Some(_), None) | (None, Some(_)) => false,
    }
}

/// V8.
fn check_constant(id: NodeId, node: &Node, tensor: &Tensor, errors: &mut Errors) {
    let dtype = tensor.dtype();
    let allowed: fn(u8) -> bool = match dtype {
        DType::Bool => |b| b < 2,
        DType::F6E2M3 | DType::F6E3M2 => |b| b < 64,
        DType::U4 | DType::F4E2M1 => |b| b < 16,
        DType::U2 => |b| b < 4,
        DType::I4 => |b| (-8..8).contains(&(b as i8)),
        DType::I2 => |b| (-2..2).contains(&(b as i8)),
        _ => return,
    };
    if let Some(&byte) = tensor.bytes().iter().find(|&&b| !allowed(b)) {
        errors.push(id, Violation::ConstantByte { node: node.name.to_string(), dtype, byte });
    }
}

/// V9.
fn check_regions(id: NodeId, node: &Node, facts: &[Option<&Fact>], errors: &mut Errors) {
    let captured = facts.get(node.op.own_operands()..).unwrap_or_default();
    let own = node.op.own_inputs();
    for (_, branch) in node.op.regions() {
        if branch.inputs().len() != own + captured.len() {
            errors.push(
                id,
                Violation::BranchInputs {
                    node: describe(node),
                    branch: branch.name.clone(),
                    inputs: branch.inputs().len().saturating_sub(own),
                    captured: captured.len(),
                },
            );
        }
        for (&input, operand) in branch.inputs().iter().skip(own).zip(captured) {
            let input = branch.node(input);
            let actual = input.outputs.first().map(|o| &o.fact.ty);
            let Some(operand) = operand.filter(|o| actual != Some(&o.ty)) else { continue };
            errors.push(
                id,
                Violation::BranchInputType {
                    node: describe(node),
                    branch: branch.name.clone(),
                    input: input.name.to_string(),
                    actual: actual.map_or_else(|| "nothing".to_owned(), ValueType::to_string),
                    expected: operand.ty.to_string(),
                },
            );
        }
        for error in verify(branch).err().into_iter().flat_map(|errors| errors.0) {
            let (node, branch) = (describe(node), branch.name.clone());
            errors.push(id, Violation::InBranch { node, branch, error: Box::new(error) });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Dim;

    fn numbers(graph: &Graph) -> Vec<u32> {
        verify(graph).err().map_or(vec![], |e| e.0.iter().map(|e| e.violation.number()).collect())
    }

    fn vector(n: i64) -> Fact {
        Fact::of_type(DType::F32, vec![Dim::from(n)])
    }

    #[test]
    fn v6_outputs_and_inputs() {
        let mut graph = Graph::new("m");
        let x = graph.add_input("x", vector(2));
        graph.add_output("y", Value { slot: 1, ..x });
        assert_eq!(numbers(&graph), [6]);
        graph.set_output(0, x);
        assert_eq!(numbers(&graph), []);
        let constant = graph.add_constant("c", Tensor::scalar(1.0f32));
        graph.set_op(constant.node, Op::Input).unwrap();
        assert_eq!(numbers(&graph), [6]);
    }

    #[test]
    fn v8_bytes_of_constants() {
        let mut graph = Graph::new("m");
        graph.add_constant("b", Tensor::from_raw(DType::Bool, &[2], vec![1, 7]));
        graph.add_constant("i", Tensor::from_raw(DType::I4, &[2], vec![0xf8, 8]));
        graph.add_constant("u", Tensor::from_raw(DType::U4, &[2], vec![15, 0]));
        assert_eq!(numbers(&graph), [8, 8]);
    }
}
