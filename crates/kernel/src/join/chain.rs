//! Chains: kernels done one after the other for each point of the dims that they share.

use super::order::{Link, Piece, Unit};
use super::region::{Map, Region, are_disjoint, exact, have_same_lead, is_same_point, with_lead};
use crate::{KernelDesc, Plan};
use rabot_ir::Dim;
use std::collections::BTreeSet;

/// Most parts of a chain: all of an attention or of a rotary embedding, with room.
const MAX_PARTS: usize = 12;
/// Steps of a chain that are enough for threads to share, where its parts have more work items than that.
const MIN_STEPS: i64 = 4;
/// Most operations of a chain of one step: some microseconds.
const ONE_STEP_FLOPS: i64 = 1 << 18;

/// Merges nodes into chains where that is legal and worth it.
///
/// A chain saves calls and keeps what its parts hand on in the cache. It is worth it unless it takes away work items
/// that threads could share: it has at least [`MIN_STEPS`] steps, or as many as all its parts (without
/// products, as one of them) have items. Parts of one work item each are a chain of one step.
pub(super) fn find(piece: &mut Piece, plan: &Plan) {
    for at in 0..piece.units.len() {
        if !piece.units[at].joins {
            continue;
        }
        loop {
            let node = piece.node_of[at];
            let makers = makers(piece, node);
            let mut members: BTreeSet<usize> = BTreeSet::from([node]);
            let mut link = None;
            // All that it reads from, else those that go with it, the latest first.
            for maker in makers.into_iter().rev() {
                let mut more = members.clone();
                more.insert(maker);
                if let Some(found) = link_of(piece, &more, plan)
                    && !piece.has_way_around(&more)
                {
                    (members, link) = (more, Some(found));
                }
            }
            match link {
                Some(link) => piece.merge(&members, link),
                None => break,
            }
        }
    }
}

/// Nodes that write what a node reads.
fn makers(piece: &Piece, node: usize) -> Vec<usize> {
    let Some(own) = &piece.nodes[node] else { return Vec::new() };
    let reads = own.units.iter().flat_map(|&unit| &piece.units[unit].regions).filter(|r| !r.written);
    let read: BTreeSet<usize> = reads.map(|region| region.buffer).collect();
    let writes = |other: &usize| {
        let units = piece.nodes[*other].iter().flat_map(|n| &n.units);
        units.flat_map(|&unit| &piece.units[unit].regions).any(|r| r.written && read.contains(&r.buffer))
    };
    piece.nodes_before(node).into_iter().filter(writes).collect()
}

/// How these nodes are a chain, if they can be one.
fn link_of(piece: &Piece, members: &BTreeSet<usize>, plan: &Plan) -> Option<Link> {
    let mut units: Vec<usize> =
        members.iter().filter_map(|&m| piece.nodes[m].as_ref()).flat_map(|n| n.units.clone()).collect();
    units.sort_unstable();
    let units: Vec<&Unit> = units.into_iter().map(|unit| &piece.units[unit]).collect();
    if units.len() > MAX_PARTS || units.iter().any(|unit| !unit.joins) {
        return None;
    }
    if have_equal_items(&units, plan) && pairs_fit(&units, is_same_point) {
        return Some(Link::Items);
    }
    if are_one_step(&units) {
        return Some(Link::Lead(Vec::new()));
    }
    let mut leads: Vec<Vec<Dim>> = Vec::new();
    for unit in &units {
        for length in (1..=unit.lead.len()).rev() {
            let lead = unit.lead[..length].to_vec();
            if !leads.contains(&lead) {
                leads.push(lead);
            }
        }
    }
    leads.retain(|lead| is_worth_it(lead, &units));
    // The most steps first: a dim more, or the same dims in more pieces.
    leads.sort_by_key(|lead| std::cmp::Reverse(at_least(&lead.iter().product())));
    leads.into_iter().find(|lead| fits(lead, &units)).map(Link::Lead)
}

/// True if the units have one work item each, and so little work together that it is not worth waking a thread for those
/// that do not depend on each other.
fn are_one_step(units: &[&Unit]) -> bool {
    let flops: Dim = units.iter().fold(Dim::from(0), |sum, unit| sum + unit.call.flops.clone());
    units.iter().all(|unit| unit.call.items.is(1))
        && flops.as_const().is_some_and(|flops| flops <= ONE_STEP_FLOPS)
}

/// A lower bound of a dim, for sizes of at least 1.
fn at_least(dim: &Dim) -> i64 {
    dim.eval(&|_| Some(1)).unwrap_or(0)
}

fn is_worth_it(lead: &[Dim], units: &[&Unit]) -> bool {
    let steps: Dim = lead.iter().product();
    let has_all = |unit: &&Unit| unit.call.items == steps;
    let keeps_items = match units.iter().any(|unit| unit.is_contract) {
        true => units.iter().all(has_all),
        false => units.iter().any(has_all),
    };
    keeps_items || at_least(&steps) >= MIN_STEPS
}

fn have_equal_items(units: &[&Unit], plan: &Plan) -> bool {
    let form = |unit: &Unit| match plan.kernels.get(unit.call.kernel) {
        Some(KernelDesc::Contract(kernel)) => {
            let size = |size| match size {
                crate::Size::Const(value) => Some(Dim::from(value)),
                crate::Size::Param(index) => unit.call.params.get(index).cloned(),
            };
            Some((unit.lead.clone(), size(kernel.m)?, size(kernel.n)?, kernel.tile.rows, kernel.tile.columns))
        }
        _ => None,
    };
    let first = units.first().and_then(|unit| form(unit));
    first.is_some() && units.iter().all(|unit| form(unit) == first)
}

/// Work items of a unit for each point of `lead`.
pub(super) fn items_per_step(unit: &Unit, lead: &[Dim]) -> Option<Dim> {
    exact(&unit.call.items, &lead.iter().product())
}

fn fits(lead: &[Dim], units: &[&Unit]) -> bool {
    let splits = |unit: &&Unit| {
        let own: Vec<super::region::Axis> = unit
            .lead
            .iter()
            .map(|extent| super::region::Axis { extent: extent.clone(), stride: Dim::from(0) })
            .collect();
        let map = Map { offset: Dim::from(0), lead: own, rest: Vec::new(), is_point: false };
        with_lead(&map, lead).is_some() && items_per_step(unit, lead).is_some()
    };
    let same = |a: &Map, b: &Map| match (with_lead(a, lead), with_lead(b, lead)) {
        (Some(a), Some(b)) => have_same_lead(&a, &b),
        _ => false,
    };
    units.iter().all(splits) && pairs_fit(units, same)
}

fn pairs_fit(units: &[&Unit], same: impl Fn(&Map, &Map) -> bool) -> bool {
    regions_fit(&units.iter().map(|unit| unit.regions.as_slice()).collect::<Vec<_>>(), same)
}

/// True if what two units both touch, and one writes, they touch in the same step of the chain. `units` are the regions
/// of each.
pub(super) fn regions_fit(units: &[&[Region]], same: impl Fn(&Map, &Map) -> bool) -> bool {
    units.iter().enumerate().all(|(at, a)| {
        units[at + 1..].iter().all(|b| {
            a.iter().all(|x| {
                let both = b.iter().filter(|y| y.buffer == x.buffer && (x.written || y.written));
                both.into_iter().all(|y| match (&x.map, &y.map) {
                    (Some(x), Some(y)) => same(x, y) || are_disjoint(x, y),
                    _ => false,
                })
            })
        })
    })
}
