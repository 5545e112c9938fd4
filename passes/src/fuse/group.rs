//! `group`: says which nodes become one kernel, by giving them the same `Node::group`.
//!
//! A group has at most one *anchor* (a contraction, a reduction, a pool or a norm). Elementwise nodes go along: after
//! the anchor (its *epilogue*, element by element of its result), before a reduction (its *prologue*), or with each
//! other. Views that are index maps go along with the elementwise nodes that read them.
//!
//! Groups grow from users to operands: a node joins the group that holds all its users, so a group has one result and
//! no path leaves it and comes back. The planner may still split a group that it has no kernel for.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,2]
//! input %1 "r" : f32[n,2]
//! %2 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
//! %3 = MatMul(%0, %2)
//! %4 = Add(%3, %1)
//! %5 = Relu(%4)
//! %6 = MatMul(%5, %2)
//! output "y" = %6
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,2]
//! input %1 "r" : f32[n,2]
//! %2 = Constant [1.0, 2.0, 3.0, 4.0] : f32[2,2]
//! %3 = MatMul(%0, %2) : f32[n,2] group=0
//! %4 = Add(%3, %1) : f32[n,2] group=0
//! %5 = Relu(%4) : f32[n,2] group=0
//! %6 = MatMul(%5, %2)
//! output "y" = %6
//! ```

use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_rewrite::{
    Exactness, OptionError, OptionInfo, Options, Pass, PassCx, PassError, PassInfo, Report, edit_branches,
    print_options,
};
use rabot_tensor::DType;
use std::collections::HashMap;

const OPTIONS: &[OptionInfo] =
    &[OptionInfo { name: "max_nodes", default: "64", summary: "most nodes of a group, at least 1" }];

/// The pass in the registry.
pub const INFO: PassInfo = PassInfo { name: "group", options: OPTIONS, make };

fn make(options: &Options) -> Result<Box<dyn Pass>, OptionError> {
    Ok(Box::new(Group { max_nodes: options.get_if("max_nodes", |&count: &usize| count > 0)? }))
}

/// Says which nodes become one kernel.
#[derive(Clone, Debug)]
pub struct Group {
    /// Most nodes of a group: compile time grows with the longest chain of scalar operations.
    pub max_nodes: usize,
}

impl Default for Group {
    fn default() -> Self {
        Group { max_nodes: 64 }
    }
}

impl Pass for Group {
    fn name(&self) -> &'static str {
        "group"
    }

    fn summary(&self) -> &'static str {
        "join contractions and reductions with the elementwise operators around them into kernels"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Bitwise
    }

    fn options(&self) -> String {
        print_options(OPTIONS, &[("max_nodes", self.max_nodes.to_string())])
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let mut report = Report::default();
        self.group(graph, cx, &mut report)?;
        Ok(report)
    }
}

/// What a node is to grouping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    /// One product per element: scale, add, compare …
    Elementwise,
    /// Sums of products.
    Contraction,
    /// Reads whole rows of its operand and can compute them on the way.
    Reduction,
    /// Reads windows of its operand: computing the operand on the way would do it many times.
    Window,
    /// Result elements are operand elements: an index map.
    View,
    /// A kernel, a copy or a host function of its own, or nothing at all.
    Alone,
}

fn role(graph: &Graph, id: NodeId) -> Role {
    let node = graph.node(id);
    // What inference knows needs no kernel; strings never are in one; a kernel has one result.
    let known = node.outputs.iter().all(|o| o.fact.constant.is_some() || o.fact.elements.is_some());
    let strings = node.outputs.iter().any(|o| o.fact.dtype() == DType::String);
    let used = (1..node.outputs.len() as u32).any(|slot| graph.use_count(Value { node: id, slot }) > 0);
    if known || strings || used {
        return Role::Alone;
    }
    match &node.op {
        Op::Unary(_) | Op::Binary(_) | Op::Variadic(_) | Op::Where(_) | Op::Clip(_) | Op::Cast(_) => {
            Role::Elementwise
        }
        Op::QuantizeLinear(_) | Op::DequantizeLinear(_) | Op::BatchNormalization(_) => Role::Elementwise,
        Op::Conv(_) | Op::ConvTranspose(_) | Op::MatMul(_) | Op::Gemm(_) => Role::Contraction,
        Op::QLinearConv(_) | Op::QLinearMatMul(_) => Role::Contraction,
        Op::ConvInteger(_) | Op::MatMulInteger(_) => Role::Contraction,
        Op::Reduce(_) | Op::Softmax(_) | Op::LayerNormalization(_) | Op::GlobalPool(_) => Role::Reduction,
        Op::Pool(_) | Op::Lrn(_) | Op::ArgReduce(_) => Role::Window,
        Op::Transpose(_) | Op::Slice(_) | Op::Expand(_) => Role::View,
        _ => Role::Alone,
    }
}

/// A group that is being built; its result is that of `root`.
#[derive(Debug)]
struct Cluster {
    root: NodeId,
    nodes: Vec<NodeId>,
    anchor: Option<Role>,
}

/// Groups of a graph while they grow.
struct Clusters<'a> {
    graph: &'a Graph,
    max_nodes: usize,
    roles: HashMap<NodeId, Role>,
    clusters: Vec<Cluster>,
    of: HashMap<NodeId, usize>,
    /// Nodes whose value, element by element, is what the elementwise root of their cluster needs at that element.
    aligned: HashMap<NodeId, bool>,
}

impl Group {
    fn group(&self, graph: &mut Graph, cx: &PassCx<'_>, report: &mut Report) -> Result<(), PassError> {
        edit_branches("group", graph, &mut |branch| {
            self.group(branch, cx, report)?;
            Ok(true)
        })?;
        let order = graph.topological().map_err(|error| PassError::Graph { pass: "group", error })?;
        let roles = order.iter().map(|&id| (id, role(graph, id))).collect();
        let mut clusters = Clusters {
            graph,
            max_nodes: self.max_nodes,
            roles,
            clusters: Vec::new(),
            of: HashMap::new(),
            aligned: HashMap::new(),
        };
        let mut reasons: HashMap<NodeId, String> = HashMap::new();
        for &id in order.iter().rev() {
            clusters.join_elementwise(id, &mut reasons);
        }
        for &id in order.iter().rev() {
            clusters.join_as_operand(id, &mut reasons);
        }
        let Clusters { clusters, of, .. } = clusters;
        write(graph, &order, &clusters, &of, cx, report);
        for id in order {
            let alone = of.get(&id).is_some_and(|&at| clusters[at].root == id);
            if let Some(reason) = reasons.remove(&id).filter(|_| alone) {
                report.skip("join-user", graph.node(id).name.clone(), reason);
            }
        }
        Ok(())
    }
}

/// Numbers the groups of two and more nodes by the position of their first node.
fn write(
    graph: &mut Graph,
    order: &[NodeId],
    clusters: &[Cluster],
    of: &HashMap<NodeId, usize>,
    cx: &PassCx<'_>,
    report: &mut Report,
) {
    let mut numbers: HashMap<usize, u32> = HashMap::new();
    let mut members: HashMap<usize, Vec<&'static str>> = HashMap::new();
    let mut admitted: HashMap<usize, bool> = HashMap::new();
    for &id in order {
        let cluster = of.get(&id).copied().filter(|&at| clusters[at].nodes.len() > 1);
        let mut asked = |at: &usize| {
            let root = &graph.node(clusters[*at].root).name;
            *admitted.entry(*at).or_insert_with(|| cx.admits(rule_of(&clusters[*at]), root))
        };
        let cluster = cluster.filter(|at| asked(at));
        let group = cluster.map(|at| {
            let next = numbers.len() as u32;
            members.entry(at).or_default().push(graph.node(id).op.name());
            *numbers.entry(at).or_insert(next)
        });
        graph.annotate(id, |node| *node.group = group);
    }
    for &id in order {
        let Some(&at) = of.get(&id) else { continue };
        if let Some(ops) = members.get(&at).filter(|_| clusters[at].root == id) {
            report.apply(rule_of(&clusters[at]), graph.node(id).name.clone(), ops.join(" + "));
        }
    }
}

/// The rule that made a cluster.
fn rule_of(cluster: &Cluster) -> &'static str {
    match cluster.anchor {
        Some(Role::Contraction) => "contraction",
        Some(_) => "reduction",
        None => "elementwise",
    }
}

impl Clusters<'_> {
    fn shape(&self, id: NodeId) -> &[rabot_ir::Dim] {
        self.graph.fact(Value { node: id, slot: 0 }).shape()
    }

    /// The one cluster that holds every user of a node; the error says why there is none, `None` if not worth saying.
    fn user_cluster(&self, id: NodeId) -> Result<usize, Option<String>> {
        let value = Value { node: id, slot: 0 };
        let name = self.graph.value_name(value);
        if self.graph.is_output(value) {
            return Err(Some(format!("`{name}` is an output of the graph")));
        }
        let users = self.graph.users(value);
        let Some(&(first, _)) = users.first() else { return Err(None) };
        let cluster = self.of.get(&first).copied();
        match users.iter().find(|(user, _)| self.of.get(user).copied() != cluster) {
            None => cluster.ok_or(None),
            Some((other, _)) => {
                let (first, other) = (&self.graph.node(first).name, &self.graph.node(*other).name);
                Err(Some(format!("`{name}` is used by `{first}` and `{other}`, which are not one kernel")))
            }
        }
    }

    fn start(&mut self, id: NodeId) {
        let anchor = Some(self.roles[&id]).filter(|role| !matches!(role, Role::Elementwise | Role::View));
        self.of.insert(id, self.clusters.len());
        self.aligned.insert(id, self.roles[&id] == Role::Elementwise);
        self.clusters.push(Cluster { root: id, nodes: vec![id], anchor });
    }

    fn is_full(&self, cluster: usize, extra: usize) -> Option<String> {
        let count = self.clusters[cluster].nodes.len();
        let full = count + extra > self.max_nodes;
        full.then(|| format!("the kernel has {count} nodes already, of at most {}", self.max_nodes))
    }

    /// First round: elementwise nodes and anchors join the elementwise nodes that use them element by element.
    fn join_elementwise(&mut self, id: NodeId, reasons: &mut HashMap<NodeId, String>) {
        let role = self.roles[&id];
        if matches!(role, Role::Alone | Role::View) {
            return;
        }
        match self.elementwise_target(id, role) {
            Ok(cluster) => {
                self.of.insert(id, cluster);
                self.aligned.insert(id, role == Role::Elementwise);
                self.clusters[cluster].nodes.push(id);
                if role != Role::Elementwise {
                    self.clusters[cluster].anchor = Some(role);
                }
            }
            Err(reason) => {
                if let Some(reason) = reason {
                    reasons.insert(id, reason);
                }
                self.start(id);
            }
        }
    }

    fn elementwise_target(&self, id: NodeId, role: Role) -> Result<usize, Option<String>> {
        let cluster = self.user_cluster(id)?;
        let target = &self.clusters[cluster];
        let users = self.graph.users(Value { node: id, slot: 0 });
        if !users.iter().all(|(user, _)| self.aligned.get(user).copied().unwrap_or(false)) {
            return Err(None);
        }
        if self.shape(id) != self.shape(target.root) {
            let (own, root) = (self.shape(id), self.shape(target.root));
            let text = format!(
                "its shape {own:?} is not the {root:?} of the kernel: it would be computed repeatedly"
            );
            return Err(Some(text));
        }
        if role != Role::Elementwise && target.anchor.is_some() {
            let root = &self.graph.node(target.root).name;
            return Err(Some(format!("the kernel of `{root}` has an anchor already")));
        }
        // An operand that the epilogue only needs as an operand can be computed before the anchor's result is there.
        self.is_full(cluster, 1).map_or(Ok(cluster), |full| Err(Some(full)))
    }

    /// Second round: views join the kernels that read them; elementwise kernels join those that read them through
    /// views, and reductions over them.
    fn join_as_operand(&mut self, id: NodeId, reasons: &mut HashMap<NodeId, String>) {
        let role = self.roles[&id];
        let own = self.of.get(&id).copied();
        let is_root =
            own.is_some_and(|at| self.clusters[at].root == id && self.clusters[at].anchor.is_none());
        let joins = match role {
            Role::View => true,
            Role::Elementwise => is_root,
            _ => false,
        };
        if !joins {
            return;
        }
        let moved = own.map_or_else(|| vec![id], |at| self.clusters[at].nodes.clone());
        match self.operand_target(id, role, moved.len()) {
            Ok(cluster) if Some(cluster) != own => {
                reasons.remove(&id);
                if let Some(own) = own {
                    self.clusters[own].nodes.clear();
                }
                for &node in &moved {
                    self.of.insert(node, cluster);
                }
                self.clusters[cluster].nodes.extend(moved);
            }
            Ok(_) | Err(None) => {}
            Err(Some(reason)) => {
                reasons.entry(id).or_insert(reason);
            }
        }
    }

    fn operand_target(&self, id: NodeId, role: Role, count: usize) -> Result<usize, Option<String>> {
        let cluster = self.user_cluster(id)?;
        let target = &self.clusters[cluster];
        if matches!(target.anchor, Some(Role::Contraction | Role::Window)) {
            let root = &self.graph.node(target.root).name;
            return Err(Some(format!("the kernel of `{root}` reads its operands many times")));
        }
        for (user, slot) in self.graph.users(Value { node: id, slot: 0 }) {
            let fits = match self.roles[&user] {
                Role::Elementwise => role == Role::View || self.shape(id) == self.shape(user),
                // A reduction computes its first operand row by row; scales and axes it reads as they are.
                Role::Reduction => slot == 0,
                // Each element of a transposed or sliced value is needed once at most; an expanded one many times.
                Role::View => {
                    slot == 0 && (role == Role::View || !matches!(self.graph.node(user).op, Op::Expand(_)))
                }
                Role::Contraction | Role::Window | Role::Alone => false,
            };
            if !fits {
                let user = &self.graph.node(user).name;
                return Err(Some(format!("`{user}` would compute its elements repeatedly")));
            }
        }
        self.is_full(cluster, count).map_or(Ok(cluster), |full| Err(Some(full)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::check::{example, run};

    /// Ops of each group of two and more, in order.
    fn groups(body: &str) -> Vec<String> {
        let text = format!("model \"g\"\ninput %0 \"x\" : f32[n,4]\ninput %1 \"z\" : f32[n,4]\n{body}");
        let (graph, _) = run(&Group::default(), &text);
        let mut groups: Vec<Vec<&str>> = Vec::new();
        for id in graph.topological().unwrap() {
            if let Some(group) = graph.node(id).group {
                groups.resize(groups.len().max(group as usize + 1), Vec::new());
                groups[group as usize].push(graph.node(id).op.name());
            }
        }
        groups.into_iter().map(|group| group.join(" ")).collect()
    }

    const W: &str = "%10 = Constant rand(1, -1.0, 1.0) : f32[4,4]";

    #[test]
    fn header_example() {
        example(&Group::default(), include_str!("group.rs"));
    }

    #[test]
    fn a_gate_that_reads_the_result_twice_is_an_epilogue() {
        let body =
            format!("{W}\n%2 = MatMul(%0, %10)\n%3 = Sigmoid(%2)\n%4 = Mul(%2, %3)\noutput \"y\" = %4");
        assert_eq!(groups(&body), ["MatMul Sigmoid Mul"]);
    }

    #[test]
    fn one_anchor_a_group() {
        let body =
            format!("{W}\n%2 = MatMul(%0, %10)\n%3 = MatMul(%1, %10)\n%4 = Add(%2, %3)\noutput \"y\" = %4");
        assert_eq!(groups(&body), ["MatMul Add"]);
    }

    #[test]
    fn outputs_and_shared_values_end_groups() {
        let body = format!("{W}\n%2 = MatMul(%0, %10)\n%3 = Relu(%2)\noutput \"y\" = %3\noutput \"z\" = %2");
        assert!(groups(&body).is_empty());
        let (_, report) = run(
            &Group::default(),
            "model \"g\"\ninput %0 \"x\" : f32[n,4]\n%1 = Exp(%0) \"e\"\n%2 = Relu(%1)\noutput \"y\" = %2
             output \"z\" = %1",
        );
        assert_eq!(report.skipped[0].reason, "`e` is an output of the graph");
    }

    #[test]
    fn softmax_takes_scale_and_mask_before_it() {
        let body = "%10 = Constant [0.125] : f32[1]\n%2 = Mul(%0, %10)\n%3 = Add(%2, %1)
            %4 = Softmax(%3)\n%5 = Neg(%4)\noutput \"y\" = %5";
        assert_eq!(groups(body), ["Mul Add Softmax Neg"]);
    }

    #[test]
    fn a_contraction_keeps_its_epilogue_before_a_reduction() {
        let body =
            format!("{W}\n%2 = MatMul(%0, %10)\n%3 = Add(%2, %1)\n%4 = Softmax(%3)\noutput \"y\" = %4");
        assert_eq!(groups(&body), ["MatMul Add"]);
    }

    #[test]
    fn what_is_broadcast_is_computed_once() {
        let body = "%2 = Constant [1] : i64[1]\n%3 = ReduceMax(%0, %2)\n%4 = Exp(%3)\n%5 = Mul(%1, %4)
            %6 = Neg(%5)\noutput \"y\" = %6";
        assert_eq!(groups(body), ["ReduceMax Exp", "Mul Neg"]);
    }

    #[test]
    fn views_join_their_readers() {
        let body = "%2 = Exp(%0)\n%3 = Transpose(%2) {perm=[1,0]}\n%4 = Transpose(%1) {perm=[1,0]}
            %5 = Add(%3, %4)\n%6 = Relu(%5)\noutput \"y\" = %6";
        assert_eq!(groups(body), ["Exp Transpose Transpose Add Relu"]);
    }

    #[test]
    fn groups_have_a_limit() {
        let body: String =
            (2..12).map(|i| format!("%{i} = Exp(%{})\n", i - if i == 2 { 2 } else { 1 })).collect();
        let text = format!("model \"g\"\ninput %0 \"x\" : f32[n]\n{body}output \"y\" = %11");
        let (graph, _) = run(&Group { max_nodes: 4 }, &text);
        let ids: Vec<_> =
            graph.topological().unwrap().iter().filter_map(|&id| graph.node(id).group).collect();
        assert_eq!(ids, [0, 0, 1, 1, 1, 1, 2, 2, 2, 2]);
    }
}
