//! The smallest model that still fails: nodes, then sizes, then weights are taken away as long as the failure stays.
//!
//! The caller says what failing is: a function from a case to the name of its failure. A smaller case counts only if it
//! fails in the same way. What a removed part computed becomes an input of the rest, with the values that the original
//! model has there, so what stays sees what it saw before.
//!
//! Parts are taken away as in delta debugging: halves first, then quarters, down to single ones, until nothing more can
//! go. Source: Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 28 (2), 2002.

mod extract;
mod failure;
mod shrink;

pub use failure::{Demands, failure_of};

use crate::{DebugError, Tensors};
use extract::extract;
use rabot_ir::interp;
use rabot_ir::{Fact, Graph, NodeId, Op, Value};
use rabot_tensor::Tensor;
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::time::{Duration, Instant};

/// A model and its inputs.
#[derive(Clone, Debug)]
pub struct Case {
    /// The graph.
    pub graph: Graph,
    /// A tensor for each of its inputs.
    pub inputs: Tensors,
}

/// Names the failure of a case; `None` if it does not fail.
pub type Fails<'a> = dyn Fn(&Case) -> Option<String> + 'a;

/// How long to go on.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Most cases that are tried.
    pub tries: usize,
    /// No new case is tried after this time.
    pub time: Duration,
}

impl Default for Effort {
    fn default() -> Self {
        Effort { tries: 2000, time: Duration::from_secs(300) }
    }
}

/// Size of a case.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct CaseSize {
    /// Operators.
    pub nodes: usize,
    /// Elements of inputs and of constants that are written out.
    pub elements: usize,
}

impl CaseSize {
    /// Counts a case. A constant of one value counts as one element.
    pub fn of(case: &Case) -> Self {
        let graph = &case.graph;
        let mut size = CaseSize { nodes: 0, elements: case.inputs.values().map(Tensor::len).sum() };
        for id in graph.node_ids() {
            match &graph.node(id).op {
                Op::Input => {}
                Op::Constant(tensor) => size.elements += shrink::written_elements(tensor),
                _ => size.nodes += 1,
            }
        }
        size
    }
}

/// What is left of a case.
#[derive(Clone, Debug)]
pub struct Reduced {
    /// The smallest case found.
    pub case: Case,
    /// Its failure, which is that of the original.
    pub failure: String,
    /// Size of the original.
    pub before: CaseSize,
    /// Size now.
    pub after: CaseSize,
    /// Cases tried.
    pub tries: usize,
    /// True if the effort was used up before nothing more could be taken away.
    pub stopped: bool,
}

/// Takes away from a case whatever its failure does not need.
///
/// **Errors**: the case does not fail, or the original graph cannot be evaluated on the inputs.
pub fn reduce(case: &Case, fails: &Fails<'_>, effort: Effort) -> Result<Reduced, DebugError> {
    let Some(failure) = fails(case) else {
        return Err(DebugError::Reduce("the model does not fail on these inputs".to_owned()));
    };
    let mut search = Search {
        best: case.clone(),
        failure,
        fails,
        effort,
        started: Instant::now(),
        tries: 1,
        before: CaseSize::of(case),
    };
    search.fix_dims();
    search.nodes()?;
    search.sizes();
    search.contents();
    search.nodes()?;
    let stopped = search.is_over();
    let after = CaseSize::of(&search.best);
    let Search { best: case, failure, tries, before, .. } = search;
    Ok(Reduced { case, failure, before, after, tries, stopped })
}

struct Search<'a> {
    best: Case,
    failure: String,
    fails: &'a Fails<'a>,
    effort: Effort,
    started: Instant,
    tries: usize,
    before: CaseSize,
}

impl Search<'_> {
    fn is_over(&self) -> bool {
        self.tries >= self.effort.tries || self.started.elapsed() >= self.effort.time
    }

    /// Takes a case over if it fails as the original does.
    fn accept(&mut self, case: Case) -> bool {
        if self.is_over() {
            return false;
        }
        self.tries += 1;
        let same = (self.fails)(&case).is_some_and(|failure| failure == self.failure);
        if same {
            self.best = case;
        }
        same
    }

    /// Gives every symbolic dim the size that it has in these inputs.
    fn fix_dims(&mut self) {
        let mut case = self.best.clone();
        for input in case.graph.inputs().to_vec() {
            let node = case.graph.node(input);
            let Some(tensor) = case.inputs.get(&*node.name) else { continue };
            let dims = tensor.shape().iter().map(|&dim| dim.into()).collect::<Vec<_>>();
            case.graph.set_input_fact(input, Fact::of_type(tensor.dtype(), dims));
        }
        if case.graph.refresh().is_ok() {
            self.accept(case);
        }
    }

    /// Takes nodes away. What they computed becomes inputs.
    fn nodes(&mut self) -> Result<(), DebugError> {
        let values = values_of(&self.best)?;
        let order = operators(&self.best.graph)?;
        let source = self.best.clone();
        let mut kept: Vec<NodeId> = order;
        let mut chunk = kept.len().div_ceil(2);
        while chunk > 0 && !kept.is_empty() && !self.is_over() {
            let mut removed = false;
            let mut at = 0;
            while at < kept.len() && !self.is_over() {
                let end = (at + chunk).min(kept.len());
                let rest: BTreeSet<NodeId> = kept[..at].iter().chain(&kept[end..]).copied().collect();
                if !rest.is_empty() && extract(&source, &rest, &values).is_some_and(|case| self.accept(case))
                {
                    kept.drain(at..end);
                    removed = true;
                } else {
                    at = end;
                }
            }
            if !removed || chunk > kept.len() {
                chunk = if chunk == 1 && !removed { 0 } else { (chunk / 2).max(usize::from(removed)) };
            }
        }
        Ok(())
    }

    /// Halves sizes: all axes of inputs and constants that have one size shrink together, since they often have to fit.
    fn sizes(&mut self) {
        let mut done: BTreeSet<usize> = BTreeSet::new();
        loop {
            let sizes = shrink::sizes(&self.best);
            let Some(&size) = sizes.iter().rev().find(|size| !done.contains(*size)) else { return };
            let smaller = [1, size / 4, size / 2, size - 1];
            let found = smaller
                .into_iter()
                .filter(|&new| new >= 1 && new < size)
                .any(|new| shrink::resize(&self.best, size, new).is_some_and(|case| self.accept(case)));
            if !found {
                done.insert(size);
            }
            if self.is_over() {
                return;
            }
        }
    }

    /// Replaces the contents of constants and inputs by simpler ones.
    fn contents(&mut self) {
        let constants: Vec<NodeId> = self.best.graph.node_ids().collect();
        for id in constants {
            let candidates = match &self.best.graph.node(id).op {
                Op::Constant(tensor) => shrink::simpler(tensor),
                _ => continue,
            };
            for tensor in candidates {
                if shrink::with_constant(&self.best, id, tensor).is_some_and(|case| self.accept(case)) {
                    break;
                }
            }
        }
        let names: Vec<String> = self.best.inputs.keys().cloned().collect();
        for name in names {
            let candidates = self.best.inputs.get(&name).map(shrink::simpler).unwrap_or_default();
            for tensor in candidates {
                let mut case = self.best.clone();
                case.inputs.insert(name.clone(), tensor);
                if self.accept(case) {
                    break;
                }
            }
        }
    }
}

/// Every tensor that evaluating the case gives.
fn values_of(case: &Case) -> Result<HashMap<Value, Tensor>, DebugError> {
    let mut values = HashMap::new();
    interp::run_observed(&case.graph, &case.inputs, &mut |value, tensor| {
        values.insert(value, tensor.clone());
    })
    .map_err(|error| DebugError::interp("the model to be reduced", error))?;
    for &input in case.graph.inputs() {
        if let Some(tensor) = case.inputs.get(&*case.graph.node(input).name) {
            values.insert(Value { node: input, slot: 0 }, tensor.clone());
        }
    }
    Ok(values)
}

/// The nodes that compute, in order.
fn operators(graph: &Graph) -> Result<Vec<NodeId>, DebugError> {
    let order = graph.topological()?;
    Ok(order.into_iter().filter(|&id| !matches!(graph.node(id).op, Op::Input | Op::Constant(_))).collect())
}

#[cfg(test)]
mod tests;
