//! Side by side: kernels that do not depend on each other, their work items laid one behind the other.

use super::order::Piece;
use std::collections::BTreeSet;

/// Most parts of a set.
const MAX_PARTS: usize = 16;
/// How many sets back a node may join one: what is done earlier than needed stays in memory for longer.
const MAX_BACK: usize = 6;

/// Sets of nodes, in the order in which they are done.
///
/// Work side by side costs nothing, for each item is done as before; it saves a call, and threads wait for each other
/// once instead of several times. So a node joins the latest set that comes after all that it needs.
pub(super) fn find(piece: &Piece) -> Vec<Vec<usize>> {
    let mut sets: Vec<Vec<usize>> = Vec::new();
    let mut set_of = vec![usize::MAX; piece.nodes.len()];
    for node in piece.in_order() {
        let needs: BTreeSet<usize> = piece.nodes_before(node).into_iter().map(|n| set_of[n]).collect();
        let first = needs.last().map_or(0, |last| last + 1).max(sets.len().saturating_sub(MAX_BACK));
        let joins = |node: usize| {
            piece.nodes[node].as_ref().is_some_and(|n| n.units.iter().all(|&unit| piece.units[unit].joins))
        };
        let open = |set: &Vec<usize>| set.len() < MAX_PARTS && set.iter().all(|&other| joins(other));
        let found = (first..sets.len()).rev().find(|&at| joins(node) && open(&sets[at]));
        let at = found.unwrap_or_else(|| {
            sets.push(Vec::new());
            sets.len() - 1
        });
        sets[at].push(node);
        set_of[node] = at;
    }
    sets
}
