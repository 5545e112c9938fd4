//! Patterns that almost match: how far they go, and the node that blocks them.

use crate::pattern::{COMMUTATIVE, Operand, Pattern, Term};
use rabot_ir::{Graph, NodeId, Value};

/// A pattern that fits in part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Near {
    /// Nodes of the graph that fit, the root first.
    pub fitting: Vec<NodeId>,
    /// Nodes that the whole pattern has.
    pub nodes: usize,
    /// What is in the way.
    pub blocked: Blocked,
}

/// Where a pattern stops to fit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocked {
    /// The value that does not fit, by name; the node that lacks an operand, if that is what is wrong.
    pub at: String,
    /// What is there.
    pub found: String,
    /// What the pattern has there.
    pub expected: String,
}

/// How far a pattern fits with its root at `node`. `None` if the root does not, and if all of it does.
pub fn near(pattern: &Pattern, graph: &Graph, node: NodeId) -> Option<Near> {
    let mut walk = Walk { graph, fitting: Vec::new(), blocked: None };
    walk.term(pattern.root(), Value { node, slot: 0 });
    let Walk { fitting, blocked, .. } = walk;
    let blocked = blocked?;
    (!fitting.is_empty()).then(|| Near { fitting, nodes: count(pattern.root()), blocked })
}

fn count(term: &Term) -> usize {
    match term {
        Term::Node { operands, .. } => 1 + operands.iter().map(|operand| count(&operand.term)).sum::<usize>(),
        _ => 0,
    }
}

struct Walk<'g> {
    graph: &'g Graph,
    fitting: Vec<NodeId>,
    /// The first thing in the way.
    blocked: Option<Blocked>,
}

impl Walk<'_> {
    fn block(&mut self, at: &str, found: String, expected: String) {
        self.blocked.get_or_insert(Blocked { at: at.to_owned(), found, expected });
    }

    fn term(&mut self, term: &Term, value: Value) {
        let node = self.graph.node(value.node);
        let name = self.graph.value_name(value).clone();
        let found = || format!("{} {}", node.op.name(), self.graph.fact(value).ty);
        match term {
            Term::Any { constant: true, .. } if self.graph.constant(value).is_none() => {
                let found = found();
                self.block(&name, found, "a constant".to_owned());
            }
            Term::Any { .. } => {}
            Term::Number(number) => {
                let tensor = self.graph.constant(value).filter(|tensor| tensor.len() == 1);
                let actual = tensor.and_then(|tensor| tensor.to_f64s().first().copied());
                if actual.is_none_or(|actual| (actual - number).abs() > 1e-6 * number.abs()) {
                    let found = actual.map_or_else(found, |actual| actual.to_string());
                    self.block(&name, found, number.to_string());
                }
            }
            Term::Node { ops, operands, .. } => {
                if value.slot != 0 || !ops.iter().any(|op| op == node.op.name()) {
                    let found = found();
                    return self.block(&name, found, ops.join(" or "));
                }
                self.fitting.push(value.node);
                self.operands(value, operands);
            }
        }
    }

    /// Operands in the order in which more of them fit.
    fn operands(&mut self, value: Value, operands: &[Operand]) {
        let node = self.graph.node(value.node);
        let inputs = node.inputs.clone();
        let mut best = self.in_order(value, operands, &inputs);
        if COMMUTATIVE.contains(&node.op.name())
            && let [a, b] = inputs[..]
        {
            let other = self.in_order(value, operands, &[b, a]);
            let goodness = |walk: &Walk<'_>| (walk.blocked.is_none(), walk.fitting.len());
            if goodness(&other) > goodness(&best) {
                best = other;
            }
        }
        self.fitting.extend(best.fitting);
        if self.blocked.is_none() {
            self.blocked = best.blocked;
        }
    }

    fn in_order(&self, value: Value, operands: &[Operand], inputs: &[Option<Value>]) -> Self {
        let mut walk = Walk { graph: self.graph, fitting: Vec::new(), blocked: None };
        for (slot, operand) in operands.iter().enumerate() {
            match inputs.get(slot).copied().flatten() {
                Some(input) => walk.term(&operand.term, input),
                None if operand.optional => {}
                None => {
                    let name = self.graph.value_name(value).clone();
                    walk.block(&name, format!("no operand {slot}"), "one".to_owned());
                }
            }
        }
        walk
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::text::parse;

    fn blocked(pattern: &str, body: &str) -> Option<(usize, usize, String)> {
        let text = format!("model \"m\" input %0 \"x\" : f32[4]\n{body}\noutput \"y\" = %9");
        let graph = parse(&text).unwrap();
        let root = graph.outputs()[0].value.node;
        let near = near(&Pattern::parse(pattern).unwrap(), &graph, root)?;
        let Blocked { at, found, expected } = near.blocked;
        Some((near.fitting.len(), near.nodes, format!("{at}: {found}, not {expected}")))
    }

    #[test]
    fn the_first_node_that_does_not_fit_is_named() {
        let body = "%1 = Constant [1.5] : f32[]\n%2 = Div(%0, %1) \"d\"\n%3 = Erf(%2)\n%9 = Mul(%3, %0)";
        let pattern = "Mul(?x, Erf(Div(?x, 1.4142135)))";
        assert_eq!(blocked(pattern, body), Some((3, 3, "v1: 1.5, not 1.4142135".to_owned())));
        let body = "%2 = Tanh(%0) \"t\"\n%3 = Erf(%2)\n%9 = Mul(%3, %0)";
        assert_eq!(blocked(pattern, body), Some((2, 3, "t: Tanh f32[4], not Div".to_owned())));
    }

    #[test]
    fn what_fits_is_not_near() {
        assert_eq!(blocked("Relu(?x)", "%9 = Relu(%0)"), None);
        assert_eq!(blocked("Relu(?x)", "%9 = Neg(%0)"), None);
    }
}
