//! Control flow: ops that hold graphs.
//!
//! A nested graph has inputs of its own first (those of a loop's body, say), then one for each captured operand, in
//! order. What a nested graph captures are the last operands of its node.

mod conditional;
mod looped;
mod rounds;
mod scan;

pub use conditional::If;
pub use looped::Loop;
pub use rounds::{MAX_TRIPS, Rounds};
pub use scan::Scan;

use super::{InferCx, Op, OpError};
use crate::{Datum, Dim, Fact, Graph, GraphError, interp};
use std::collections::HashSet;
use std::sync::Arc;

impl Op {
    /// The nested graphs, each with the word that stands before it in text.
    pub fn regions(&self) -> Vec<(&'static str, &Graph)> {
        match self {
            Op::If(op) => vec![("then", &op.then_branch), ("else", &op.else_branch)],
            Op::Loop(op) => vec![("body", &op.body)],
            Op::Scan(op) => vec![("body", &op.body)],
            _ => Vec::new(),
        }
    }

    /// The nested graphs, to be edited. Types are stale until [`Graph::refresh_node`].
    pub fn regions_mut(&mut self) -> Vec<&mut Graph> {
        match self {
            Op::If(op) => vec![&mut op.then_branch, &mut op.else_branch],
            Op::Loop(op) => vec![&mut op.body],
            Op::Scan(op) => vec![&mut op.body],
            _ => Vec::new(),
        }
    }

    /// Number of operands before those that nested graphs capture.
    pub fn own_operands(&self) -> usize {
        match self {
            Op::If(_) => 1,
            _ => self.own_inputs(),
        }
    }

    /// Number of inputs of each nested graph before those that are captured.
    pub fn own_inputs(&self) -> usize {
        match self {
            Op::Loop(op) => 2 + op.carried,
            Op::Scan(op) => op.states + op.scans(),
            _ => 0,
        }
    }

    /// Facts of the inputs of the nested graphs that are not captured, for operands with these facts; those of carried
    /// values as they are in the first round.
    pub fn own_input_facts(&self, operands: &[Option<&Fact>]) -> Result<Vec<Fact>, OpError> {
        match self {
            Op::Loop(op) => op.first_facts(operands),
            Op::Scan(op) => op.first_facts(operands),
            _ => Ok(Vec::new()),
        }
    }

    /// Which inputs of the body are carried from round to round, and which output each comes from.
    pub fn carried(&self) -> Vec<(usize, usize)> {
        match self {
            Op::Loop(op) => (0..op.carried).map(|at| (2 + at, 1 + at)).collect(),
            Op::Scan(op) => (0..op.states).map(|at| (at, at)).collect(),
            _ => Vec::new(),
        }
    }
}

/// Hands the facts of operands to the nested graphs of a node and infers them again, until what is carried from round
/// to round has types that hold in each.
pub(crate) fn refresh_regions(op: &mut Op, operands: &[Option<&Fact>], node: &str) -> Result<(), GraphError> {
    let named = |op: &Op, error: OpError| GraphError::Op {
        node: node.to_owned(),
        op: op.name(),
        inputs: operands
            .iter()
            .map(|f| f.map_or("-".to_owned(), |f| f.ty.to_string()))
            .collect::<Vec<_>>()
            .join(", "),
        error: Box::new(error),
    };
    let mut own = op.own_input_facts(operands).map_err(|error| named(op, error))?;
    let captured: Vec<Option<&Fact>> = operands.iter().skip(op.own_operands()).copied().collect();
    let carried = op.carried();
    loop {
        for region in op.regions_mut() {
            let inputs = region.inputs().to_vec();
            let facts = own.iter().map(Some).chain(captured.iter().copied());
            for (input, fact) in inputs.into_iter().zip(facts) {
                if let Some(fact) = fact {
                    region.set_input_fact(input, fact.clone());
                }
            }
            region.refresh()?;
        }
        let Some((_, body)) = op.regions().into_iter().next().filter(|_| !carried.is_empty()) else {
            return Ok(());
        };
        let results = body.output_facts();
        let widened = widen(&own, &results, &carried, node).map_err(|error| named(op, error))?;
        match widened {
            None => return Ok(()),
            Some(facts) => own = facts,
        }
    }
}

/// Facts of a body's inputs that hold in every round, if those of the first do not: dims that change become symbols of
/// the body.
///
/// **Errors**: a carried value changes its dtype or kind.
pub fn widen(
    own: &[Fact],
    results: &[Fact],
    carried: &[(usize, usize)],
    node: &str,
) -> Result<Option<Vec<Fact>>, OpError> {
    let mut widened = own.to_vec();
    let mut changed = false;
    for (at, &(input, output)) in carried.iter().enumerate() {
        let (Some(before), Some(after)) = (own.get(input), results.get(output)) else {
            return Err(OpError::Shape(format!("the body has {} outputs", results.len())));
        };
        let mut count = 0;
        let joined = before.ty.join(&after.ty, &mut || {
            count += 1;
            Dim::symbol(format!("{node}.carried{at}.{}", count - 1))
        });
        let joined = joined.ok_or_else(|| {
            OpError::Shape(format!("carried value {at} begins as {} and becomes {}", before.ty, after.ty))
        })?;
        // The symbols of a dim are counted among those that differ: a dim that was widened before differs again, and
        // gets the name that its place among them has now.
        if joined != before.ty && !only_renamed(&before.ty.shape, &joined.shape, node) {
            widened[input] = Fact::of(joined);
            changed = true;
        }
    }
    Ok(changed.then_some(widened))
}

/// True if dims differ only where they already were symbols of the body.
fn only_renamed(before: &[Dim], after: &[Dim], node: &str) -> bool {
    let of_body = |dim: &Dim| dim.as_symbol().is_some_and(|name| is_carried_symbol(name, node));
    before.len() == after.len()
        && !before.is_empty()
        && before.iter().zip(after).all(|(a, b)| a == b || (of_body(a) && of_body(b)))
}

fn is_carried_symbol(name: &str, node: &str) -> bool {
    name.strip_prefix(node).is_some_and(|rest| rest.starts_with(".carried"))
}

/// **Errors**: a body has fewer inputs than its loop hands over.
fn check_own_inputs(body: &Graph, expected: usize) -> Result<(), OpError> {
    match body.inputs().len() {
        count if count < expected => {
            Err(OpError::Shape(format!("the body has {count} inputs, expected at least {expected}")))
        }
        _ => Ok(()),
    }
}

/// The symbols in facts of operands: those that mean something outside of a nested graph.
fn outer_symbols(operands: &[Option<&Fact>]) -> HashSet<Arc<str>> {
    let mut symbols = HashSet::new();
    for fact in operands.iter().flatten() {
        for dim in fact.shape().iter().chain(fact.elements.iter().flatten()) {
            dim.for_each_symbol(&mut |name| {
                symbols.insert(name.clone());
            });
        }
    }
    symbols
}

/// A type of a nested graph as it is outside: dims with symbols of the nested graph are unknown.
fn leave(fact: &Fact, outer: &HashSet<Arc<str>>, cx: &mut InferCx) -> Fact {
    let mut ty = fact.ty.clone();
    for dim in &mut ty.shape {
        let mut inner = false;
        dim.for_each_symbol(&mut |name| inner |= !outer.contains(name));
        if inner {
            *dim = cx.fresh();
        }
    }
    Fact::of(ty)
}

/// Evaluates a loop or scan with the interpreter.
pub(super) fn eval_rounds(op: &Op, inputs: &[Option<&Datum>]) -> Result<Vec<Datum>, OpError> {
    let mut rounds = Rounds::new(op, inputs)?;
    while let Some(operands) = rounds.start()? {
        let results = eval_region(rounds.body(), &operands)?;
        rounds.finish(results)?;
    }
    rounds.outputs()
}

/// Evaluates a nested graph.
fn eval_region(region: &Graph, inputs: &[Option<Datum>]) -> Result<Vec<Datum>, OpError> {
    interp::run_positional(region, inputs).map_err(|error| OpError::Value(error.to_string()))
}
