//! Patterns over graphs, written as text: `BatchNormalization(conv:Conv(?x, #w, [#b]), #scale, #bias, #mean, #var)`.
//!
//! | text | matches |
//! |---|---|
//! | `?x` | any value; the same name twice must be the same value |
//! | `#w` | a value whose contents are constant |
//! | `_a` | any value; binds nothing |
//! | `0.5` | a one-element constant of this value, to f32 precision |
//! | `Op(p, …)` | output 0 of a node of this op whose operands match; there must be no further operands |
//! | `A\|B(…)` | a node of one of these ops |
//! | `n:Op(…)` | the same, and names the node; `?n` elsewhere is its value |
//! | `[p]` | an optional operand: absent, or matching `p` |
//! | `...` | last: any number of further operands, which bind nothing |
//!
//! Two operands of `Add`, `Mul`, `Max`, `Min`, `Sum`, `And`, `Or` and `Xor` match in either order.

use rabot_ir::{Graph, NodeId, Op, Value};
use std::collections::BTreeMap;

/// A pattern text is not well formed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// The text cannot be read.
    #[error("pattern `{text}`, at byte {at}: expected {expected}")]
    Syntax {
        /// The whole pattern.
        text: String,
        /// Where reading stopped.
        at: usize,
        /// What should be there.
        expected: &'static str,
    },
    /// There is no such op.
    #[error("pattern `{text}`: there is no op `{op}`")]
    UnknownOp {
        /// The whole pattern.
        text: String,
        /// The op's name.
        op: String,
    },
    /// The rule uses a name that the pattern does not bind.
    #[error("pattern `{text}` does not bind `{name}`; it binds {bound}")]
    Unbound {
        /// The whole pattern.
        text: String,
        /// The name.
        name: String,
        /// The names it binds.
        bound: String,
    },
    /// A table's entry is not a whole rule.
    #[error("rule `{rule}` has no identity or no pattern")]
    Incomplete {
        /// Name of the rule.
        rule: String,
    },
    /// The pattern binds a name once and the rule does not use it.
    #[error("pattern `{text}` binds `{name}`, which the rule does not use")]
    Unused {
        /// The whole pattern.
        text: String,
        /// The name.
        name: String,
    },
}

/// A parsed pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Pattern {
    text: String,
    root: Term,
}

/// A part of a pattern: what a value has to be.
#[derive(Debug, Clone, PartialEq)]
pub enum Term {
    /// `?x`, `#x` or `_x`.
    Any {
        /// The name; it binds nothing if it starts with `_`.
        name: String,
        /// Its contents have to be constant.
        constant: bool,
    },
    /// A one-element constant of this value.
    Number(f64),
    /// Output 0 of a node.
    Node {
        /// Name of the node's value.
        label: Option<String>,
        /// The ops, one of which the node has.
        ops: Vec<String>,
        /// The operands, in order.
        operands: Vec<Operand>,
        /// True if further operands may follow.
        open: bool,
    },
}

/// An operand of a node of a pattern.
#[derive(Debug, Clone, PartialEq)]
pub struct Operand {
    /// What it has to be, if it is present.
    pub term: Term,
    /// It may be absent.
    pub optional: bool,
}

impl Term {
    /// Nodes on the longest way from the term to a value that is no node of it.
    fn depth(&self) -> usize {
        match self {
            Term::Any { .. } | Term::Number(_) => 0,
            Term::Node { operands, .. } => 1 + operands.iter().map(|o| o.term.depth()).max().unwrap_or(0),
        }
    }
}

/// Where a pattern matched.
#[derive(Debug, Clone, PartialEq)]
pub struct Match {
    /// The node that the whole pattern stands for.
    pub root: NodeId,
    /// Every matched node, the root first.
    pub nodes: Vec<NodeId>,
    values: BTreeMap<String, Option<Value>>,
}

impl Match {
    /// The value bound to a name; `None` if it is an absent optional operand or the pattern has no such name.
    pub fn get(&self, name: &str) -> Option<Value> {
        self.values.get(name).copied().flatten()
    }
}

pub(crate) const COMMUTATIVE: [&str; 8] = ["Add", "Mul", "Max", "Min", "Sum", "And", "Or", "Xor"];

impl Pattern {
    /// Reads a pattern.
    ///
    /// **Errors**: syntax, an unknown op, or a whole pattern that is not an op.
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let mut parser = Parser { text, at: 0 };
        let root = parser.term()?;
        parser.spaces();
        if parser.at != text.len() {
            return Err(parser.expected("the end"));
        }
        if !matches!(root, Term::Node { .. }) {
            return Err(Parser { text, at: 0 }.expected("an op"));
        }
        Ok(Pattern { text: text.to_owned(), root })
    }

    /// Checks that a rule which uses these names fits the pattern: every one is bound, and every bound one is used
    /// by the rule or is there twice.
    ///
    /// **Errors**: an unbound or an unused name.
    pub fn check_uses(&self, uses: &[&str]) -> Result<(), PatternError> {
        let mut counts = BTreeMap::new();
        count_names(&self.root, &mut counts);
        if let Some(name) = uses.iter().find(|name| !counts.contains_key(**name)) {
            let bound = counts.keys().cloned().collect::<Vec<_>>().join(", ");
            return Err(PatternError::Unbound { text: self.text.clone(), name: (*name).to_owned(), bound });
        }
        // `_` says that the operand does not matter.
        let unused = counts
            .iter()
            .find(|(name, count)| **count == 1 && !name.starts_with('_') && !uses.contains(&name.as_str()));
        match unused {
            None => Ok(()),
            Some((name, _)) => Err(PatternError::Unused { text: self.text.clone(), name: name.clone() }),
        }
    }

    /// The term that the whole pattern is; always a node.
    pub fn root(&self) -> &Term {
        &self.root
    }

    /// Ops that the root of a match can have.
    pub fn root_ops(&self) -> &[String] {
        match &self.root {
            Term::Node { ops, .. } => ops,
            Term::Any { .. } | Term::Number(_) => &[],
        }
    }

    /// How many nodes lie on the longest way up from the root of a match, itself included.
    pub fn depth(&self) -> usize {
        self.root.depth()
    }

    /// True if a node of this op can be the root of a match.
    pub fn starts_with(&self, op: &Op) -> bool {
        self.root_ops().iter().any(|name| name == op.name())
    }

    /// The first match with its root at `node`. Uses of interior values elsewhere are not looked at.
    pub fn find(&self, graph: &Graph, node: NodeId) -> Option<Match> {
        if !self.starts_with(&graph.node(node).op) {
            return None;
        }
        let empty = Match { root: node, nodes: Vec::new(), values: BTreeMap::new() };
        matches(&self.root, graph, Value { node, slot: 0 }, empty).into_iter().next()
    }
}

fn count_names(term: &Term, counts: &mut BTreeMap<String, usize>) {
    match term {
        Term::Number(_) => {}
        Term::Any { name, .. } => *counts.entry(name.clone()).or_insert(0) += 1,
        Term::Node { label, operands, .. } => {
            if let Some(label) = label {
                *counts.entry(label.clone()).or_insert(0) += 1;
            }
            for operand in operands {
                count_names(&operand.term, counts);
            }
        }
    }
}

/// Every way in which `term` matches `value`, given what is bound already.
fn matches(term: &Term, graph: &Graph, value: Value, state: Match) -> Vec<Match> {
    match term {
        Term::Any { name, constant } => {
            if *constant && graph.constant(value).is_none() {
                return Vec::new();
            }
            let binds = !name.starts_with('_');
            let state = if binds { bind(state, name, Some(value)) } else { Some(state) };
            state.into_iter().collect()
        }
        Term::Number(expected) => {
            let tensor = graph.constant(value).filter(|t| t.len() == 1);
            let actual = tensor.and_then(|t| t.to_f64s().first().copied());
            // 1e-6: two f32 roundings of the same real number differ by less.
            let close = |a: f64| (a - expected).abs() <= 1e-6 * expected.abs();
            if actual.is_some_and(close) { vec![state] } else { Vec::new() }
        }
        Term::Node { label, ops, operands, open } => {
            let node = graph.node(value.node);
            if value.slot != 0 || !ops.iter().any(|name| name == node.op.name()) {
                return Vec::new();
            }
            let bound = match label {
                Some(label) => bind(state, label, Some(value)),
                None => Some(state),
            };
            let Some(mut state) = bound else { return Vec::new() };
            if !state.nodes.contains(&value.node) {
                state.nodes.push(value.node);
            }
            let inputs = &node.inputs;
            if !open && inputs.iter().skip(operands.len()).any(Option::is_some) {
                return Vec::new();
            }
            let mut found = match_operands(operands, graph, inputs, state.clone());
            // Both orders, even if the first one fits: a name bound later may rule it out.
            if COMMUTATIVE.contains(&node.op.name()) && inputs.len() == 2 {
                found.extend(match_operands(operands, graph, &[inputs[1], inputs[0]], state));
            }
            found
        }
    }
}

fn match_operands(operands: &[Operand], graph: &Graph, inputs: &[Option<Value>], state: Match) -> Vec<Match> {
    let mut states = vec![state];
    for (slot, operand) in operands.iter().enumerate() {
        let input = inputs.get(slot).copied().flatten();
        states = match input {
            Some(value) => states.into_iter().flat_map(|s| matches(&operand.term, graph, value, s)).collect(),
            None if operand.optional => states,
            None => return Vec::new(),
        };
    }
    states
}

fn bind(mut state: Match, name: &str, value: Option<Value>) -> Option<Match> {
    match state.values.get(name) {
        Some(bound) => (*bound == value).then_some(state),
        None => {
            state.values.insert(name.to_owned(), value);
            Some(state)
        }
    }
}

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl Parser<'_> {
    fn rest(&self) -> &str {
        self.text.get(self.at..).unwrap_or("")
    }

    fn spaces(&mut self) {
        self.at = self.text.len() - self.rest().trim_start().len();
    }

    fn expected(&self, expected: &'static str) -> PatternError {
        PatternError::Syntax { text: self.text.to_owned(), at: self.at, expected }
    }

    fn eat(&mut self, symbol: char) -> bool {
        self.spaces();
        let found = self.rest().starts_with(symbol);
        self.at += if found { symbol.len_utf8() } else { 0 };
        found
    }

    fn word(&mut self, expected: &'static str) -> Result<String, PatternError> {
        self.spaces();
        let letters = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let end = self.rest().find(|c| !letters(c)).unwrap_or(self.rest().len());
        if end == 0 {
            return Err(self.expected(expected));
        }
        let word = self.rest()[..end].to_owned();
        self.at += end;
        Ok(word)
    }

    fn term(&mut self) -> Result<Term, PatternError> {
        self.spaces();
        if self.rest().starts_with('_') {
            return Ok(Term::Any { name: self.word("a name")?, constant: false });
        }
        for (symbol, constant) in [('?', false), ('#', true)] {
            if self.eat(symbol) {
                return Ok(Term::Any { name: self.word("a name")?, constant });
            }
        }
        self.spaces();
        if self.rest().starts_with(|c: char| c.is_ascii_digit() || c == '-') {
            return self.number();
        }
        let mut word = self.word("?name, #name, a number or an op")?;
        let mut label = None;
        if self.eat(':') {
            label = Some(std::mem::replace(&mut word, self.word("an op")?));
        }
        let mut ops = vec![word];
        while self.eat('|') {
            ops.push(self.word("an op")?);
        }
        if let Some(op) = ops.iter().find(|op| !Op::names().contains(&op.as_str())) {
            return Err(PatternError::UnknownOp { text: self.text.to_owned(), op: op.clone() });
        }
        if !self.eat('(') {
            return Err(self.expected("`(`"));
        }
        let (operands, open) = self.operands()?;
        Ok(Term::Node { label, ops, operands, open })
    }

    /// The operands up to the closing parenthesis, and whether others may follow.
    fn operands(&mut self) -> Result<(Vec<Operand>, bool), PatternError> {
        let mut operands = Vec::new();
        loop {
            self.spaces();
            if self.rest().starts_with("...") {
                self.at += 3;
                return if self.eat(')') { Ok((operands, true)) } else { Err(self.expected("`)`")) };
            }
            let optional = self.eat('[');
            operands.push(Operand { term: self.term()?, optional });
            if optional && !self.eat(']') {
                return Err(self.expected("`]`"));
            }
            if self.eat(')') {
                return Ok((operands, false));
            }
            if !self.eat(',') {
                return Err(self.expected("`,` or `)`"));
            }
        }
    }

    fn number(&mut self) -> Result<Term, PatternError> {
        let digits = |c: char| c.is_ascii_digit() || matches!(c, '-' | '.' | 'e');
        let end = self.rest().find(|c| !digits(c)).unwrap_or(self.rest().len());
        let number = self.rest()[..end].parse().map_err(|_| self.expected("a number"))?;
        self.at += end;
        Ok(Term::Number(number))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rabot_ir::Fact;
    use rabot_ir::ops::{Binary, BinaryOp, Unary, UnaryOp};
    use rabot_tensor::{DType, Tensor};

    #[test]
    fn refuses_what_is_no_pattern() {
        assert!(matches!(Pattern::parse("Add(?x"), Err(PatternError::Syntax { .. })));
        assert!(matches!(Pattern::parse("?x"), Err(PatternError::Syntax { .. })));
        assert!(matches!(Pattern::parse("Relu(?x) y"), Err(PatternError::Syntax { .. })));
        assert!(matches!(Pattern::parse("Frobnicate(?x)"), Err(PatternError::UnknownOp { .. })));
    }

    #[test]
    fn names_must_be_bound_and_used() {
        let pattern = Pattern::parse("Add(Mul(?x, #c), ?y)").unwrap();
        assert_eq!(pattern.check_uses(&["x", "c", "y"]), Ok(()));
        assert!(matches!(pattern.check_uses(&["x", "c", "y", "z"]), Err(PatternError::Unbound { .. })));
        assert!(matches!(pattern.check_uses(&["x", "c"]), Err(PatternError::Unused { .. })));
    }

    #[test]
    fn further_operands_are_matched_where_the_pattern_says_so() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", Fact::of_type(DType::F32, vec![2.into()]));
        let concat = Op::from_attrs("Concat", &rabot_ir::Attrs::new().with("axis", rabot_ir::Attr::Int(0)));
        let node = graph.add_node(concat.unwrap().unwrap(), vec![Some(x); 3], "c", vec![]).unwrap();
        let finds = |text: &str| Pattern::parse(text).unwrap().find(&graph, node).is_some();
        assert!(finds("Concat(_a, _b, _c)") && finds("Concat(_a, ...)") && finds("Concat(...)"));
        assert!(!finds("Concat(_a, _b)") && !finds("Concat(_a, _b, _c, _d, ...)"));
        assert!(Pattern::parse("Concat(..., ?x)").is_err());
        assert_eq!(Pattern::parse("Add(Mul(?x, ?y), Relu(Neg(?z)))").unwrap().depth(), 3);
    }

    #[test]
    fn matches_either_order_and_same_value() {
        let mut graph = Graph::new("g");
        let x = graph.add_input("x", Fact::of_type(DType::F32, vec![2.into()]));
        let half = graph.add_constant("half", Tensor::scalar(0.5f32));
        let sigmoid = Op::Unary(Unary { op: UnaryOp::Sigmoid });
        let s = Value { node: graph.add_node(sigmoid, vec![Some(x)], "s", vec![]).unwrap(), slot: 0 };
        let mul = Op::Binary(Binary { op: BinaryOp::Mul });
        let m = graph.add_node(mul.clone(), vec![Some(s), Some(x)], "m", vec![]).unwrap();
        let scaled = graph
            .add_node(mul, vec![Some(half), Some(Value { node: m, slot: 0 })], "scaled", vec![])
            .unwrap();
        let silu = Pattern::parse("Mul(?x, Sigmoid(?x))").unwrap();
        assert_eq!(silu.find(&graph, m).unwrap().get("x"), Some(x));
        assert_eq!(silu.find(&graph, scaled), None);
        let outer = Pattern::parse("Mul(n:Mul(Sigmoid(?y), ?x), 0.5)").unwrap();
        let found = outer.find(&graph, scaled).unwrap();
        assert_eq!(found.nodes, vec![scaled, m, s.node]);
        assert_eq!(found.get("n"), Some(Value { node: m, slot: 0 }));
        assert_eq!(Pattern::parse("Mul(?x, 0.25)").unwrap().find(&graph, scaled), None);
    }
}
