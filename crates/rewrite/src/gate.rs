//! Which rewrites are let through: what bisecting turns on and off.
//!
//! A pass asks [`PassCx::admits`](crate::PassCx::admits) once before each change it makes, and makes it only if the
//! answer is yes. So changes can be counted over a whole pipeline and cut off after any number, or left out one by one.

use std::cell::RefCell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

/// A change, named so that it is the same one in a run in which others are left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RewriteKey {
    /// Position of the pass in its pipeline, from 0.
    pub step: usize,
    /// The rule.
    pub rule: String,
    /// Name of the node it is made at.
    pub node: String,
    /// How many changes of this rule at this node the pass made before.
    pub repeat: usize,
}

impl fmt::Display for RewriteKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` at `{}` (pass {})", self.rule, self.node, self.step + 1)?;
        if self.repeat > 0 { write!(f, ", time {}", self.repeat + 1) } else { Ok(()) }
    }
}

/// Which changes are let through.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admit {
    /// Those before this position in the order of the pipeline.
    First(usize),
    /// Those before this position, but for these.
    FirstWithout(usize, BTreeSet<RewriteKey>),
    /// All but these.
    Without(BTreeSet<RewriteKey>),
    /// All but those of a rule at a node, whatever the pass and however often: pairs of rule and node.
    WithoutAt(BTreeSet<(String, String)>),
}

/// Lets changes through, and remembers them in order.
#[derive(Debug)]
pub struct Gate {
    admit: Admit,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    step: usize,
    /// Changes of this pass by rule and node.
    repeats: HashMap<(String, String), usize>,
    admitted: Vec<RewriteKey>,
    refused: BTreeSet<RewriteKey>,
}

impl Gate {
    /// A gate for one run of one pipeline.
    pub fn new(admit: Admit) -> Self {
        Gate { admit, state: RefCell::default() }
    }

    /// The changes let through, in order: number `n` of the pipeline is element `n - 1`.
    pub fn admitted(&self) -> Vec<RewriteKey> {
        self.state.borrow().admitted.clone()
    }

    /// The changes that were not let through, each once.
    pub fn refused(&self) -> Vec<RewriteKey> {
        self.state.borrow().refused.iter().cloned().collect()
    }

    pub(crate) fn start(&self, step: usize) {
        let mut state = self.state.borrow_mut();
        state.step = step;
        state.repeats.clear();
    }

    pub(crate) fn admits(&self, rule: &str, node: &str) -> bool {
        let mut state = self.state.borrow_mut();
        let place = (rule.to_owned(), node.to_owned());
        let repeat = state.repeats.get(&place).copied().unwrap_or(0);
        let key = RewriteKey { step: state.step, rule: place.0.clone(), node: place.1.clone(), repeat };
        let count = state.admitted.len();
        let admitted = match &self.admit {
            Admit::First(most) => count < *most,
            Admit::FirstWithout(most, without) => count < *most && !without.contains(&key),
            Admit::Without(without) => !without.contains(&key),
            Admit::WithoutAt(without) => !without.contains(&(key.rule.clone(), key.node.clone())),
        };
        if admitted {
            *state.repeats.entry(place).or_insert(0) += 1;
            state.admitted.push(key);
        } else {
            state.refused.insert(key);
        }
        admitted
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_few_pass() {
        let gate = Gate::new(Admit::First(2));
        gate.start(0);
        assert!(gate.admits("r", "a"));
        assert!(gate.admits("r", "a"));
        gate.start(1);
        assert!(!gate.admits("r", "a"));
        assert_eq!(gate.admitted().iter().map(|key| key.repeat).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(gate.refused()[0].step, 1);
    }

    #[test]
    fn one_is_left_out_whatever_comes_before() {
        let key = RewriteKey { step: 0, rule: "r".into(), node: "b".into(), repeat: 0 };
        let gate = Gate::new(Admit::Without([key.clone()].into()));
        gate.start(0);
        assert!(gate.admits("r", "a"));
        assert!(!gate.admits("r", "b"));
        assert!(!gate.admits("r", "b"), "it stays out when it is tried again");
        assert_eq!(gate.refused(), [key]);
    }

    #[test]
    fn a_rule_stays_out_at_a_node_in_every_pass() {
        let gate = Gate::new(Admit::WithoutAt([("r".to_owned(), "b".to_owned())].into()));
        for step in 0..2 {
            gate.start(step);
            assert!(gate.admits("r", "a"));
            assert!(!gate.admits("r", "b"));
            assert!(gate.admits("s", "b"));
        }
        assert_eq!(gate.refused().len(), 2);
    }
}
