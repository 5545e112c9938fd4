//! Makes graphs with some of the changes of a pipeline, and evaluates them.
//!
//! A trial begins after the last pass that did the same in an earlier one: of every pass that was run, what it asked its
//! gate is kept with the graph that it left. Where the new gate gives the same answers, that graph is taken. What a pass
//! found out about a graph, such as ranges on calibration inputs, is kept with it. A graph is judged once.

use super::Engine;
use super::Subject;
use super::check::{Judge, Judged};
use super::known::Known;
use crate::DebugError;
use crate::measure::compile;
use rabot_ir::{Graph, Op};
use rabot_rewrite::{Admit, Asked, Gate, Memo, PassCx, RewriteKey, Step};
use rabot_runtime::{Program, Session};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::rc::Rc;

/// Most bytes of constants that kept graphs have each for itself.
const MOST_BYTES: usize = 1 << 30;

/// Most graphs that are kept.
const MOST_GRAPHS: usize = 256;

/// A graph after some of the changes of the pipeline.
pub(crate) struct Trial {
    /// The graph, or why it could not be made.
    pub graph: Result<Graph, String>,
    /// The changes made.
    pub keys: Vec<RewriteKey>,
    /// What each pass did.
    pub steps: Vec<Step>,
    /// Number of the graph among all that were made.
    id: usize,
}

/// A graph that passes left.
struct Kept {
    /// The graph before the last pass.
    parent: Option<usize>,
    graph: Graph,
    keys: Vec<RewriteKey>,
    /// What the last pass asked.
    asked: Asked,
    /// What the last pass did.
    did: Option<Step>,
    /// What passes found out about the graph.
    memo: Rc<Memo>,
    /// Bytes of constants that the graph before does not have.
    bytes: usize,
}

/// Evaluates trials.
pub(crate) struct Lab<'a> {
    pub subject: Subject<'a>,
    pub judge: Judge<'a>,
    /// Values that the interpreter found in any trial.
    pub known: Known,
    evaluations: Cell<usize>,
    kept: RefCell<BTreeMap<usize, Kept>>,
    next: Cell<usize>,
    judged: RefCell<HashMap<(usize, Engine), (Judged, usize)>>,
    /// Rewrites left out from the start that a pass asked for.
    left_out: RefCell<BTreeSet<(String, String)>>,
}

impl<'a> Lab<'a> {
    /// A lab in which nothing was tried.
    pub fn new(subject: Subject<'a>, judge: Judge<'a>, known: Known) -> Self {
        let root = Kept {
            parent: None,
            graph: subject.graph.clone(),
            keys: Vec::new(),
            asked: Asked::default(),
            did: None,
            memo: Rc::default(),
            bytes: 0,
        };
        Lab {
            subject,
            judge,
            known,
            evaluations: Cell::new(0),
            kept: RefCell::new([(0, root)].into()),
            next: Cell::new(1),
            judged: RefCell::default(),
            left_out: RefCell::default(),
        }
    }

    /// The first rewrite to be left out from the start that no pass asked for.
    pub fn never_asked_for(&self) -> Option<&(String, String)> {
        let left_out = self.left_out.borrow();
        self.subject.without.iter().find(|rewrite| !left_out.contains(*rewrite))
    }

    /// Graphs that were evaluated.
    pub fn evaluations(&self) -> usize {
        self.evaluations.get()
    }

    /// The graph after the changes that are let through.
    pub fn trial(&self, admit: Admit) -> Trial {
        let subject = &self.subject;
        let (mut at, mut steps) = self.furthest(&admit);
        let (mut graph, keys, mut memo) = {
            let kept = self.kept.borrow();
            let kept = &kept[&at];
            (kept.graph.clone(), kept.keys.clone(), kept.memo.clone())
        };
        let gate = Gate::resume(admit, keys).leaving_out(subject.without.iter().cloned());
        let calibration = (!subject.calibration.is_empty()).then_some(subject.calibration);
        loop {
            let cx = PassCx { calibration, strict: subject.strict, gate: Some(&gate), memo: Some(&memo) };
            match subject.pipeline.run_one(steps.len(), &mut graph, &cx) {
                Ok(Some(step)) => {
                    steps.push(step.clone());
                    (at, memo) = self.keep(at, &graph, &gate, step);
                }
                Ok(None) => break,
                Err(error) => {
                    let id = self.number();
                    let (keys, graph) = (gate.admitted(), Err(error.to_string()));
                    return Trial { graph, keys, steps: Vec::new(), id };
                }
            }
        }
        self.forget(at);
        let refused = gate.refused().into_iter().map(|key| (key.rule, key.node));
        self.left_out.borrow_mut().extend(refused.filter(|rewrite| subject.without.contains(rewrite)));
        Trial { graph: Ok(graph), keys: gate.admitted(), steps, id: at }
    }

    /// The last graph on the way that was made before, and what the passes did until then.
    fn furthest(&self, admit: &Admit) -> (usize, Vec<Step>) {
        let kept = self.kept.borrow();
        let (mut at, mut steps) = (0, Vec::new());
        loop {
            let count = kept[&at].keys.len();
            let next = kept
                .iter()
                .find(|(_, child)| child.parent == Some(at) && child.asked.same_under(admit, count));
            let Some((&id, child)) = next else { return (at, steps) };
            steps.extend(child.did.clone());
            at = id;
        }
    }

    fn number(&self) -> usize {
        self.next.replace(self.next.get() + 1)
    }

    fn keep(&self, parent: usize, graph: &Graph, gate: &Gate, did: Step) -> (usize, Rc<Memo>) {
        let mut kept = self.kept.borrow_mut();
        let bytes = kept.get(&parent).map_or(0, |before| bytes_apart(graph, &before.graph));
        let memo: Rc<Memo> = Rc::default();
        let new = Kept {
            parent: Some(parent),
            graph: graph.clone(),
            keys: gate.admitted(),
            asked: gate.asked(),
            did: Some(did),
            memo: memo.clone(),
            bytes,
        };
        let id = self.number();
        kept.insert(id, new);
        (id, memo)
    }

    /// Forgets the oldest graphs that no other was made of, until the rest fits; never the one at `last`.
    fn forget(&self, last: usize) {
        let mut kept = self.kept.borrow_mut();
        loop {
            let bytes: usize = kept.values().map(|graph| graph.bytes).sum();
            if bytes <= MOST_BYTES && kept.len() <= MOST_GRAPHS {
                return;
            }
            let parents: HashSet<usize> = kept.values().filter_map(|graph| graph.parent).collect();
            let leaf = kept.keys().copied().find(|id| *id != last && *id != 0 && !parents.contains(id));
            let Some(leaf) = leaf else { return };
            kept.remove(&leaf);
        }
    }

    /// The check on a graph. A graph that cannot be evaluated fails it.
    pub fn judged(&self, graph: &Graph, engine: Engine) -> Judged {
        self.evaluations.set(self.evaluations.get() + 1);
        match engine {
            Engine::Interpreter => {
                self.judge.all(&|set| self.known.run(graph, set).map_err(|error| error.to_string()))
            }
            Engine::Compiled => match self.session(graph) {
                Ok(session) => self.judge.all(&|set| session.run(set).map_err(|error| error.to_string())),
                Err(error) => Judged::failed(error.to_string()),
            },
        }
    }

    /// The check on a trial. The same graph is evaluated once.
    pub fn try_out(&self, trial: &Trial, engine: Engine) -> Judged {
        let graph = match &trial.graph {
            Ok(graph) => graph,
            Err(error) => return Judged::failed(error.clone()),
        };
        let known = self.judged.borrow().get(&(trial.id, engine)).cloned();
        if let Some((judged, set)) = known {
            if !judged.holds {
                self.judge.set_worst_set(set);
            }
            return judged;
        }
        let judged = self.judged(graph, engine);
        let set = self.judge.worst_set();
        self.judged.borrow_mut().insert((trial.id, engine), (judged.clone(), set));
        judged
    }

    /// A program of a graph.
    ///
    /// **Errors**: it cannot be compiled.
    pub fn session(&self, graph: &Graph) -> Result<Session, DebugError> {
        Ok(Session::new(&self.program(graph)?)?)
    }

    fn program(&self, graph: &Graph) -> Result<Program, DebugError> {
        let profile = self.subject.profile;
        let Some(edit) = self.subject.edit_plan else { return compile(graph, profile) };
        let mut staged = rabot_kernel::stages(graph, profile)?;
        edit(&mut staged);
        Ok(Program::new(staged, profile)?)
    }
}

/// Bytes of the constants of a graph that are not shared with those of another.
fn bytes_apart(graph: &Graph, other: &Graph) -> usize {
    let constants = |graph: &Graph| {
        let of = |id| match &graph.node(id).op {
            Op::Constant(tensor) => Some((tensor.bytes().as_ptr() as usize, tensor.bytes().len())),
            _ => None,
        };
        graph.node_ids().filter_map(of).collect::<HashSet<_>>()
    };
    let there = constants(other);
    constants(graph).difference(&there).map(|(_, bytes)| bytes).sum()
}
