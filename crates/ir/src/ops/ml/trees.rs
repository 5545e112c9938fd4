//! Ensembles of decision trees, flattened into one list of nodes that is checked once and then only walked.

use super::Table;
use crate::ops::OpError;
use crate::ops::movement::reserve;

/// How a node decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    Leq,
    Lt,
    Gte,
    Gt,
    Eq,
    Neq,
    /// The feature is one of a set.
    Member,
    /// It does not: it has weights.
    Leaf,
}

/// A node of a tree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    /// What the feature is compared with.
    pub(super) value: f64,
    /// Column of the feature.
    pub(super) feature: u32,
    /// Next node where the comparison holds; of a leaf, its first weight.
    pub(super) yes: u32,
    /// Next node where it does not; of a leaf, the number of weights.
    pub(super) no: u32,
    /// Number of the set, for [`Mode::Member`].
    pub(super) set: u32,
    pub(super) mode: Mode,
    /// True if NaN goes the way of `yes`.
    pub(super) nan_is_yes: bool,
}

impl Node {
    /// True if a value goes the way of `yes`.
    fn holds(&self, value: f64, sets: &[Vec<f64>]) -> bool {
        let holds = match self.mode {
            Mode::Leq => value <= self.value,
            Mode::Lt => value < self.value,
            Mode::Gte => value >= self.value,
            Mode::Gt => value > self.value,
            Mode::Eq => value == self.value,
            Mode::Neq => value != self.value,
            Mode::Member => sets.get(self.set as usize).is_some_and(|set| set.contains(&value)),
            Mode::Leaf => false,
        };
        holds || (self.nan_is_yes && value.is_nan())
    }
}

/// How the weights that the trees give to a target become one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Aggregate {
    Average,
    Sum,
    Min,
    Max,
}

/// Trees that have been checked: every index exists, and every walk ends.
#[derive(Clone, Debug)]
pub(super) struct Ensemble {
    nodes: Vec<Node>,
    roots: Vec<u32>,
    /// Target and weight.
    weights: Vec<(u32, f64)>,
    sets: Vec<Vec<f64>>,
    /// Number of targets.
    pub(super) targets: usize,
    /// Number of columns that nodes look at.
    pub(super) features: usize,
    /// True if every node is `value <= threshold` and NaN has no way of its own: the usual case.
    plain: bool,
}

/// What trees say of rows.
pub(super) struct Votes {
    /// By row and target.
    pub(super) scores: Vec<f64>,
    /// True where a tree gave a weight.
    pub(super) seen: Vec<bool>,
}

/// Rows that go through one tree after the other together, so that the tree stays in the cache.
const BLOCK: usize = 128;

fn invalid(what: String) -> OpError {
    OpError::Value(format!("trees: {what}"))
}

impl Ensemble {
    /// Checks and takes over the parts.
    ///
    /// **Errors**: an index is out of range, or nodes form a cycle.
    pub(super) fn new(
        nodes: Vec<Node>,
        roots: Vec<u32>,
        weights: Vec<(u32, f64)>,
        sets: Vec<Vec<f64>>,
        targets: usize,
    ) -> Result<Self, OpError> {
        if let Some(root) = roots.iter().find(|&&root| root as usize >= nodes.len()) {
            return Err(invalid(format!("root {root} is not among {} nodes", nodes.len())));
        }
        if let Some((target, _)) = weights.iter().find(|(target, _)| *target as usize >= targets) {
            return Err(invalid(format!("a weight is for target {target} of {targets}")));
        }
        for (at, node) in nodes.iter().enumerate() {
            let (yes, no) = (node.yes as usize, node.no as usize);
            let good = match node.mode {
                Mode::Leaf => yes.checked_add(no).is_some_and(|end| end <= weights.len()),
                Mode::Member => yes.max(no) < nodes.len() && (node.set as usize) < sets.len(),
                _ => yes.max(no) < nodes.len(),
            };
            if !good {
                return Err(invalid(format!("node {at} refers to what is not there")));
            }
        }
        refuse_cycles(&nodes, &roots)?;
        let branches = || nodes.iter().filter(|node| node.mode != Mode::Leaf);
        let features = branches().map(|node| node.feature as usize + 1).max().unwrap_or(0);
        let plain = branches().all(|node| node.mode == Mode::Leq && !node.nan_is_yes);
        Ok(Ensemble { nodes, roots, weights, sets, targets, features, plain })
    }

    /// All weights.
    pub(super) fn weights(&self) -> &[(u32, f64)] {
        &self.weights
    }

    /// The leaf that a row comes to. The row has as many columns as nodes look at.
    fn leaf(&self, root: u32, row: &[f64]) -> &Node {
        if self.plain {
            return self.walk(root, row, |node, value| value <= node.value);
        }
        self.walk(root, row, |node, value| node.holds(value, &self.sets))
    }

    fn walk(&self, root: u32, row: &[f64], holds: impl Fn(&Node, f64) -> bool) -> &Node {
        let mut node = &self.nodes[root as usize];
        while node.mode != Mode::Leaf {
            let next = if holds(node, row[node.feature as usize]) { node.yes } else { node.no };
            node = &self.nodes[next as usize];
        }
        node
    }

    /// What all trees say of the rows. Weights are added in f64, in the order of the trees.
    ///
    /// **Errors**: there is not enough memory.
    pub(super) fn votes(&self, table: &Table, aggregate: Aggregate) -> Result<Votes, OpError> {
        let shape = [table.rows, self.targets];
        let mut votes = Votes { scores: reserve(&shape)?, seen: reserve(&shape)? };
        votes.scores.resize(table.rows * self.targets, 0.0);
        votes.seen.resize(table.rows * self.targets, false);
        for start in (0..table.rows).step_by(BLOCK) {
            let end = table.rows.min(start + BLOCK);
            for &root in &self.roots {
                for row in start..end {
                    let leaf = self.leaf(root, table.row(row));
                    let weights = &self.weights[leaf.yes as usize..(leaf.yes + leaf.no) as usize];
                    for &(target, weight) in weights {
                        let at = row * self.targets + target as usize;
                        let score = &mut votes.scores[at];
                        let first = !std::mem::replace(&mut votes.seen[at], true);
                        *score = match aggregate {
                            Aggregate::Min if !first => score.min(weight),
                            Aggregate::Max if !first => score.max(weight),
                            Aggregate::Min | Aggregate::Max => weight,
                            Aggregate::Sum | Aggregate::Average => *score + weight,
                        };
                    }
                }
            }
        }
        if aggregate == Aggregate::Average {
            let count = self.roots.len() as f64;
            votes.scores.iter_mut().for_each(|score| *score /= count);
        }
        Ok(votes)
    }
}

/// **Errors**: a walk from a root may come to a node twice.
fn refuse_cycles(nodes: &[Node], roots: &[u32]) -> Result<(), OpError> {
    #[derive(Clone, Copy, PartialEq)]
    enum State {
        New,
        Open,
        Done,
    }
    let mut states = vec![State::New; nodes.len()];
    let mut stack: Vec<u32> = Vec::new();
    for &root in roots {
        stack.push(root);
        while let Some(&at) = stack.last() {
            let node = &nodes[at as usize];
            match states[at as usize] {
                State::New => {
                    states[at as usize] = State::Open;
                    if node.mode == Mode::Leaf {
                        continue;
                    }
                    for next in [node.no, node.yes] {
                        match states[next as usize] {
                            State::Open => {
                                return Err(invalid(format!("nodes form a cycle by way of node {next}")));
                            }
                            State::New => stack.push(next),
                            State::Done => {}
                        }
                    }
                }
                State::Open | State::Done => {
                    states[at as usize] = State::Done;
                    stack.pop();
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn branch(feature: u32, value: f64, yes: u32, no: u32) -> Node {
        Node { value, feature, yes, no, set: 0, mode: Mode::Leq, nan_is_yes: false }
    }

    fn leaf(weight: u32) -> Node {
        Node { mode: Mode::Leaf, ..branch(0, 0.0, weight, 1) }
    }

    #[test]
    fn what_does_not_end_or_exist_is_refused() {
        let make = |nodes: Vec<Node>| Ensemble::new(nodes, vec![0], vec![(0, 1.0)], Vec::new(), 1);
        assert!(make(vec![branch(0, 0.0, 1, 2), leaf(0), leaf(0)]).is_ok());
        // Two ways to the same leaf are no cycle.
        assert!(make(vec![branch(0, 0.0, 1, 1), leaf(0)]).is_ok());
        for nodes in [
            vec![branch(0, 0.0, 0, 1), leaf(0)],
            vec![branch(0, 0.0, 1, 2), branch(0, 0.0, 2, 0), leaf(0)],
            vec![branch(0, 0.0, 1, 3), leaf(0)],
            vec![leaf(1)],
        ] {
            assert!(make(nodes.clone()).is_err(), "{nodes:?}");
        }
        assert!(Ensemble::new(vec![leaf(0)], vec![1], vec![(0, 1.0)], Vec::new(), 1).is_err());
        assert!(Ensemble::new(vec![leaf(0)], vec![0], vec![(1, 1.0)], Vec::new(), 1).is_err());
    }

    #[test]
    fn long_chains_need_no_stack() {
        let depth = 200_000;
        let mut nodes: Vec<Node> = (0..depth).map(|at| branch(0, 0.0, depth, at + 1)).collect();
        nodes.push(leaf(0));
        let trees = Ensemble::new(nodes, vec![0], vec![(0, 2.0)], Vec::new(), 1).unwrap();
        let table = Table { rows: 1, columns: 1, values: vec![1.0] };
        assert_eq!(trees.votes(&table, Aggregate::Sum).unwrap().scores, [2.0]);
    }
}
