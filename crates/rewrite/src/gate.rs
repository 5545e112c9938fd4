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

impl Admit {
    /// True if a change is let through after `count` others were.
    fn admits(&self, count: usize, key: &RewriteKey) -> bool {
        match self {
            Admit::First(most) => count < *most,
            Admit::FirstWithout(most, without) => count < *most && !without.contains(key),
            Admit::Without(without) => !without.contains(key),
            Admit::WithoutAt(without) => !without.contains(&(key.rule.clone(), key.node.clone())),
        }
    }

    /// True if no change is let through any more after `count` were.
    fn is_exhausted(&self, count: usize) -> bool {
        matches!(self, Admit::First(most) | Admit::FirstWithout(most, _) if count >= *most)
    }
}

/// What a pass asked its gate, with the answers. Where the answers are the same, so is what the pass does.
#[derive(Clone, Debug, Default)]
pub struct Asked(Vec<Question>);

#[derive(Clone, Debug)]
enum Question {
    Admits(RewriteKey, bool),
    Exhausted(bool),
}

impl Asked {
    /// True if every answer would be the same under `admit`, where `count` changes were let through by the passes
    /// before.
    pub fn same_under(&self, admit: &Admit, count: usize) -> bool {
        let mut count = count;
        self.0.iter().all(|question| match question {
            Question::Admits(key, true) => {
                let same = admit.admits(count, key);
                count += 1;
                same
            }
            Question::Admits(key, false) => !admit.admits(count, key),
            Question::Exhausted(answer) => admit.is_exhausted(count) == *answer,
        })
    }
}

/// Lets changes through, and remembers them in order.
#[derive(Debug)]
pub struct Gate {
    admit: Admit,
    /// Rules at nodes that are never let through.
    left_out: BTreeSet<(String, String)>,
    state: RefCell<State>,
}

#[derive(Debug, Default)]
struct State {
    step: usize,
    /// Changes of this pass by rule and node.
    repeats: HashMap<(String, String), usize>,
    admitted: Vec<RewriteKey>,
    refused: BTreeSet<RewriteKey>,
    /// Of this pass.
    asked: Vec<Question>,
}

impl Gate {
    /// A gate for one run of one pipeline.
    pub fn new(admit: Admit) -> Self {
        Gate::resume(admit, Vec::new())
    }

    /// A gate for the rest of a run, whose passes so far made these changes.
    pub fn resume(admit: Admit, admitted: Vec<RewriteKey>) -> Self {
        let state = RefCell::new(State { admitted, ..State::default() });
        Gate { admit, left_out: BTreeSet::new(), state }
    }

    /// The gate, but never letting these through, whatever the pass and however often: pairs of rule and node.
    pub fn leaving_out(mut self, rewrites: impl IntoIterator<Item = (String, String)>) -> Self {
        self.left_out.extend(rewrites);
        self
    }

    /// What the last pass asked, with the answers.
    pub fn asked(&self) -> Asked {
        Asked(self.state.borrow().asked.clone())
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
        state.asked.clear();
    }

    pub(crate) fn is_exhausted(&self) -> bool {
        let mut state = self.state.borrow_mut();
        let answer = self.admit.is_exhausted(state.admitted.len());
        state.asked.push(Question::Exhausted(answer));
        answer
    }

    pub(crate) fn admits(&self, rule: &str, node: &str) -> bool {
        let mut state = self.state.borrow_mut();
        let place = (rule.to_owned(), node.to_owned());
        let repeat = state.repeats.get(&place).copied().unwrap_or(0);
        let key = RewriteKey { step: state.step, rule: place.0.clone(), node: place.1.clone(), repeat };
        let count = state.admitted.len();
        let left_out = self.left_out.contains(&(key.rule.clone(), key.node.clone()));
        let admitted = !left_out && self.admit.admits(count, &key);
        // What is left out in any case tells nothing of what the gate admits.
        if !left_out {
            state.asked.push(Question::Admits(key.clone(), admitted));
        }
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
    fn what_was_asked_tells_whether_another_gate_answers_the_same() {
        let gate = Gate::new(Admit::First(2));
        gate.start(3);
        for node in ["a", "b", "c"] {
            gate.admits("r", node);
        }
        let asked = gate.asked();
        assert!(asked.same_under(&Admit::First(2), 0));
        assert!(asked.same_under(&Admit::First(5), 3), "three changes before leave two");
        assert!(!asked.same_under(&Admit::First(3), 0));
        let key = |node: &str| RewriteKey { step: 3, rule: "r".into(), node: node.into(), repeat: 0 };
        assert!(asked.same_under(&Admit::Without([key("c")].into()), 0));
        assert!(!asked.same_under(&Admit::Without([key("b")].into()), 0));
        assert!(gate.is_exhausted());
        assert!(!gate.asked().same_under(&Admit::Without([key("c")].into()), 0));
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
