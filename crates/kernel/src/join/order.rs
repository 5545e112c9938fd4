//! The calls of a piece of a plan, and what must come before what.

use super::region::{self, Region};
use crate::{BufferId, Call, KernelDesc, Plan, Storage};
use rabot_ir::Dim;
use std::collections::{BTreeSet, HashMap};

/// A call before anything is joined.
#[derive(Debug)]
pub(super) struct Unit {
    pub call: Call,
    /// What it reads and writes.
    pub regions: Vec<Region>,
    /// Extents of the dims that its work items number, those of 1 left out.
    pub lead: Vec<Dim>,
    /// True for products and other contractions.
    pub is_contract: bool,
    /// False for a call that stays by itself.
    pub joins: bool,
}

/// How the units of a chain go together.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Link {
    /// All share these outermost dims, a step of the chain for each of their points.
    Lead(Vec<Dim>),
    /// Products of equal shape and blocking, a step for each work item.
    Items,
}

/// Units that become one call, in order.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Indices of units, ascending.
    pub units: Vec<usize>,
    /// Present where there are several.
    pub link: Option<Link>,
}

/// Calls without anything between them that is none.
#[derive(Debug)]
pub(super) struct Piece {
    pub units: Vec<Unit>,
    /// By index of the node; merged ones are `None`.
    pub nodes: Vec<Option<Node>>,
    /// Node of each unit.
    pub node_of: Vec<usize>,
    /// First and last unit of each node that was merged.
    spans: Vec<(usize, usize)>,
    /// Units that come before a unit, because both touch an element that one writes.
    pub before: Vec<BTreeSet<usize>>,
    /// Units that come after a unit.
    pub after: Vec<BTreeSet<usize>>,
}

impl Piece {
    pub fn new(calls: Vec<Call>, plan: &Plan) -> Self {
        let units: Vec<Unit> = calls.into_iter().map(|call| unit(call, plan)).collect();
        let mut before = vec![BTreeSet::new(); units.len()];
        let mut after = vec![BTreeSet::new(); units.len()];
        let mut seen: HashMap<BufferId, Vec<(usize, &Region)>> = HashMap::new();
        for (at, unit) in units.iter().enumerate() {
            for region in &unit.regions {
                for (other, earlier) in seen.get(&region.buffer).into_iter().flatten() {
                    if *other != at && !before[at].contains(other) && conflict(earlier, region) {
                        before[at].insert(*other);
                        after[*other].insert(at);
                    }
                }
            }
            for region in &unit.regions {
                seen.entry(region.buffer).or_default().push((at, region));
            }
        }
        let nodes = (0..units.len()).map(|at| Some(Node { units: vec![at], link: None })).collect();
        let node_of: Vec<usize> = (0..units.len()).collect();
        Piece { units, nodes, node_of, spans: Vec::new(), before, after }
    }

    /// Nodes that come right before a node.
    pub fn nodes_before(&self, node: usize) -> BTreeSet<usize> {
        self.neighbours(node, &self.before)
    }

    fn neighbours(&self, node: usize, of: &[BTreeSet<usize>]) -> BTreeSet<usize> {
        let units = self.nodes[node].iter().flat_map(|n| &n.units);
        let all = units.flat_map(|&unit| &of[unit]).map(|&unit| self.node_of[unit]);
        all.filter(|&other| other != node).collect()
    }

    /// True if a way leads from one of `members` through other nodes to one of them.
    pub fn has_way_around(&self, members: &BTreeSet<usize>) -> bool {
        let mut open: Vec<usize> = Vec::new();
        let mut seen: BTreeSet<usize> = BTreeSet::new();
        let end = self.end_of_ways(members);
        for &member in members {
            open.extend(self.neighbours(member, &self.after).difference(members));
        }
        while let Some(node) = open.pop() {
            if self.first_unit(node) > end || !seen.insert(node) {
                continue;
            }
            for next in self.neighbours(node, &self.after) {
                if members.contains(&next) {
                    return true;
                }
                open.push(next);
            }
        }
        false
    }

    /// The last unit that a way to one of `members` may leave a node by. Ways lead to later units, but those through
    /// merged nodes may come in at a later unit than they leave by.
    fn end_of_ways(&self, members: &BTreeSet<usize>) -> usize {
        let last = |&member: &usize| self.nodes[member].as_ref().and_then(|node| node.units.last().copied());
        let mut end = members.iter().filter_map(last).max().unwrap_or(0);
        while let Some((_, last)) = self.spans.iter().find(|(first, last)| *first < end && *last > end) {
            end = *last;
        }
        end
    }

    fn first_unit(&self, node: usize) -> usize {
        self.nodes[node].as_ref().and_then(|node| node.units.first().copied()).unwrap_or(0)
    }

    /// Makes one node of several; its index is that of the last one.
    pub fn merge(&mut self, members: &BTreeSet<usize>, link: Link) {
        let Some(&target) = members.last() else { return };
        let mut units: Vec<usize> =
            members.iter().filter_map(|&m| self.nodes[m].take()).flat_map(|node| node.units).collect();
        units.sort_unstable();
        for &unit in &units {
            self.node_of[unit] = target;
        }
        self.spans.extend(units.first().copied().zip(units.last().copied()));
        self.nodes[target] = Some(Node { units, link: Some(link) });
    }

    /// The nodes, each after all that come before it, otherwise by their last unit.
    pub fn in_order(&self) -> Vec<usize> {
        let mut waits: Vec<usize> = vec![0; self.nodes.len()];
        let mut ready: BTreeSet<(usize, usize)> = BTreeSet::new();
        let last = |node: usize| self.nodes[node].as_ref().and_then(|n| n.units.last().copied()).unwrap_or(0);
        for (node, _) in self.nodes.iter().enumerate().filter(|(_, n)| n.is_some()) {
            waits[node] = self.nodes_before(node).len();
            if waits[node] == 0 {
                ready.insert((last(node), node));
            }
        }
        let mut order = Vec::new();
        while let Some((_, node)) = ready.pop_first() {
            order.push(node);
            for next in self.neighbours(node, &self.after) {
                waits[next] -= 1;
                if waits[next] == 0 {
                    ready.insert((last(next), next));
                }
            }
        }
        order
    }
}

fn conflict(a: &Region, b: &Region) -> bool {
    let disjoint = || match (&a.map, &b.map) {
        (Some(a), Some(b)) => region::are_disjoint(a, b),
        _ => false,
    };
    (a.written || b.written) && !disjoint()
}

fn unit(call: Call, plan: &Plan) -> Unit {
    let kernel = plan.kernels.get(call.kernel);
    let size = |size: &crate::Size| match size {
        crate::Size::Const(value) => Some(Dim::from(*value)),
        crate::Size::Param(index) => call.params.get(*index).cloned(),
    };
    let is_constant =
        |buffer: BufferId| plan.buffers.get(buffer).is_none_or(|b| matches!(b.storage, Storage::Constant(_)));
    let mut regions = kernel.map_or_else(Vec::new, |kernel| region::regions(kernel, &call));
    regions.retain(|region| !is_constant(region.buffer));
    let (lead, blocks) = match kernel {
        Some(KernelDesc::Loop(kernel)) => {
            (kernel.outer[..kernel.items].iter().map(size).collect(), Some(Dim::from(1)))
        }
        Some(KernelDesc::Contract(kernel)) => {
            let blocks = |extent, block: usize| size(extent).map(|e: Dim| e.ceil_div(&Dim::from(block)));
            let (rows, columns) =
                (blocks(&kernel.m, kernel.tile.rows), blocks(&kernel.n, kernel.tile.columns));
            let lead: Option<Vec<Dim>> = kernel.batch.iter().map(size).collect();
            (lead, rows.zip(columns).map(|(rows, columns)| rows * columns))
        }
        Some(KernelDesc::Composite(_)) | None => (None, None),
    };
    let known = lead.is_some() && blocks.is_some();
    let lead: Vec<Dim> = lead.unwrap_or_default().into_iter().filter(|d| !d.is(1)).collect();
    let blocks = blocks.unwrap_or_else(|| Dim::from(1));
    let items = lead.iter().product::<Dim>() * blocks;
    let written = kernel.map_or(0, |k| k.args().iter().filter(|arg| arg.written).count());
    let has_elements = |buffer: &BufferId| plan.buffers.get(*buffer).is_some_and(|b| !b.elements.is(0));
    // Values are matched with written buffers by position, and what has no elements is never counted through.
    let joins =
        known && items == call.items && written == call.values.len() && call.args.iter().all(has_elements);
    let is_contract = matches!(kernel, Some(KernelDesc::Contract(_)));
    Unit { call, regions, lead, is_contract, joins }
}
