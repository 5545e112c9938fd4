//! Plants faults in rewrites, and says whether a search named them.

use super::faults::Fault;
use super::half::Half;
use rabot::Tensors;
use rabot_debug::Difference;
use rabot_debug::bisect::{Bisection, Check, EditPlan, Expression, RewriteCulprit, Subject, bisect};
use rabot_ir::{Graph, NodeId, Value, interp};
use rabot_passes::pipeline;
use rabot_rewrite::{Exactness, Pass, PassCx, PassError, Pipeline, Report, RuleInfo, edit_branches};
use rabot_target::Profile;
use std::collections::{BTreeSet, HashSet};
use std::sync::{Arc, Mutex};

/// Most decibels that an output is held to.
const MOST_DECIBELS: f64 = 50.0;

/// A model and inputs for it, which passes also calibrate on.
pub struct Model {
    pub name: String,
    pub graph: Graph,
    pub inputs: Vec<Tensors>,
}

/// A rewrite that a pipeline makes: position of the pass, rule and node.
pub type Place = (usize, String, String);

/// A fault that was planted, and what was found.
pub struct Row {
    pub fault: String,
    pub model: String,
    pub place: String,
    /// What was not named, if something was not.
    pub missed: Option<String>,
    pub evaluations: usize,
    pub seconds: f64,
}

/// Names of the values that faults move first, in any run.
#[derive(Clone, Debug, Default)]
pub struct Moved(Arc<Mutex<BTreeSet<String>>>);

impl Moved {
    /// True if no fault was planted.
    pub fn is_empty(&self) -> bool {
        self.0.lock().unwrap().is_empty()
    }

    fn add(&self, names: BTreeSet<String>) {
        self.0.lock().unwrap().extend(names);
    }
}

/// The passes of a text, which may name the drill's own one.
fn passes(text: &str) -> impl Iterator<Item = Box<dyn Pass>> + '_ {
    text.split(',').map(|name| match name {
        "half" => Box::new(Half) as Box<dyn Pass>,
        name => Box::new(OfPipeline(pipeline(name).unwrap())),
    })
}

/// The rewrites that a pipeline makes.
pub fn places(model: &Model, text: &str) -> Vec<Place> {
    let mut graph = model.graph.clone();
    let cx = PassCx { calibration: Some(&model.inputs), ..PassCx::default() };
    let steps = Pipeline::new(passes(text).collect()).run(&mut graph, &cx, &mut |_, _| {}).unwrap();
    let of = |(at, step): (usize, &rabot_rewrite::Step)| {
        let one = |made: &rabot_rewrite::Applied| (at, made.rule.to_owned(), made.node.clone());
        step.report.applied.iter().map(one).collect::<Vec<_>>()
    };
    steps.iter().enumerate().flat_map(of).collect()
}

/// The pipeline with faults planted, and the values that they move first.
pub fn faulty(text: &str, planted: &[(&Place, Fault)]) -> (Pipeline, Moved) {
    let moved = Moved::default();
    let one = |(at, inner): (usize, Box<dyn Pass>)| {
        let mut pass = inner;
        for ((_, rule, node), fault) in planted.iter().filter(|((step, _, _), _)| *step == at) {
            let (rule, node, moved) = (rule.clone(), node.clone(), moved.clone());
            pass = Box::new(Faulty { inner: pass, rule, node, fault: *fault, moved });
        }
        pass
    };
    (Pipeline::new(passes(text).enumerate().map(one).collect()), moved)
}

/// Searches.
pub fn search(
    model: &Model,
    pipeline: &Pipeline,
    check: &Check,
    edit_plan: Option<&EditPlan>,
) -> Result<Bisection, rabot_debug::DebugError> {
    let profile = Profile::host().unwrap();
    bisect(Subject {
        graph: &model.graph,
        pipeline,
        calibration: &model.inputs,
        strict: false,
        without: &[],
        engine: None,
        inputs: &model.inputs,
        profile: &profile,
        check,
        edit_plan,
    })
}

/// Holds an output to the signal-to-noise ratio that the right pipeline leaves, less some decibels.
pub fn near_right(model: &Model, text: &str, decibels: f64) -> Check {
    let mut graph = model.graph.clone();
    let cx = PassCx { calibration: Some(&model.inputs), ..PassCx::default() };
    Pipeline::new(passes(text).collect()).run(&mut graph, &cx, &mut |_, _| {}).unwrap();
    let before = interp::run(&model.graph, &model.inputs[0]).unwrap();
    let after = interp::run(&graph, &model.inputs[0]).unwrap();
    let (name, wanted) = before.iter().find(|(_, tensor)| tensor.dtype().is_float()).unwrap();
    let ratio = Difference::of(&after[name], wanted).unwrap().sqnr_db.unwrap_or(f64::INFINITY);
    // Beyond this, an output is so well conditioned that the rounding of compiled kernels counts.
    let ratio = ratio.min(MOST_DECIBELS);
    Check::Expression(Expression::parse(&format!("sqnr(\"{name}\") > {}", ratio - decibels)).unwrap())
}

/// What a search did not name of planted faults: the rewrites, the first value that each moves, a remedy that works.
pub fn missed(found: &Bisection, planted: &[&Place], moved: &Moved) -> Option<String> {
    let is = |culprit: &RewriteCulprit, (step, rule, node): &Place| {
        culprit.key().step == *step && culprit.rule == *rule && culprit.node == *node
    };
    let all = planted.iter().all(|place| found.rewrites.iter().any(|culprit| is(culprit, place)));
    if found.rewrites.len() != planted.len() || !all {
        let named = |c: &RewriteCulprit| format!("{}@{} in pass {}", c.rule, c.node, c.key().step + 1);
        return Some(format!("found {:?}", found.rewrites.iter().map(named).collect::<Vec<_>>()));
    }
    let first = moved.0.lock().unwrap();
    let elsewhere = found.rewrites.iter().find(|culprit| {
        let failed = culprit.failure.is_some() && culprit.tensor.is_none();
        !failed && !culprit.tensor.as_ref().is_some_and(|tensor| first.contains(&tensor.name))
    });
    if let Some(culprit) = elsewhere {
        let tensor = culprit.tensor.as_ref().map(|tensor| &tensor.name);
        return Some(format!("first tensor {tensor:?}, not one of {first:?}"));
    }
    let holds = found.remedy.as_ref().is_some_and(|remedy| remedy.holds);
    (!holds).then(|| "the remedy does not help".to_owned())
}

/// A row of the table.
pub fn row(fault: &str, model: &Model, place: String, missed: Option<String>, found: &Bisection) -> Row {
    let (evaluations, seconds) = (found.evaluations, found.seconds);
    Row { fault: fault.to_owned(), model: model.name.clone(), place, missed, evaluations, seconds }
}

/// A place in words.
pub fn show(place: &Place) -> String {
    format!("pass {} {}@{}", place.0 + 1, place.1, place.2)
}

/// Evaluations that a search may take: it halves. How long they take is the machine's business, so it is only told.
const MOST_EVALUATIONS: usize = 40;

/// Prints all rows, and holds them to what the drill is to reach.
pub fn judge(rows: &[Row], fewest: usize) {
    println!("{:<28} {:<22} {:>5} {:>8}  place", "fault", "model", "evals", "seconds");
    for Row { fault, model, place, missed, evaluations, seconds } in rows {
        let missed = missed.as_ref().map_or(String::new(), |missed| format!("  MISSED: {missed}"));
        println!("{fault:<28} {model:<22} {evaluations:>5} {seconds:>8.3}  {place}{missed}");
    }
    let mut times: Vec<f64> = rows.iter().map(|row| row.seconds).collect();
    let mut evaluations: Vec<usize> = rows.iter().map(|row| row.evaluations).collect();
    times.sort_by(f64::total_cmp);
    evaluations.sort_unstable();
    let missed = rows.iter().filter(|row| row.missed.is_some()).count();
    assert!(rows.len() >= fewest, "only {} faults could be planted", rows.len());
    let (middle, last) = (rows.len() / 2, rows.len() - 1);
    println!(
        "{} faults, {} named; median {:.3} s and {} evaluations, longest {:.3} s, most evaluations {}",
        rows.len(),
        rows.len() - missed,
        times[middle],
        evaluations[middle],
        times[last],
        evaluations[last]
    );
    assert_eq!(missed, 0, "{missed} of {} faults were not named", rows.len());
    assert!(evaluations[last] <= MOST_EVALUATIONS, "a search takes {} evaluations", evaluations[last]);
}

/// The one pass of a pipeline.
#[derive(Debug)]
struct OfPipeline(Pipeline);

impl Pass for OfPipeline {
    fn name(&self) -> &'static str {
        self.0.passes()[0].name()
    }

    fn summary(&self) -> &'static str {
        self.0.passes()[0].summary()
    }

    fn exactness(&self) -> Exactness {
        self.0.passes()[0].exactness()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        self.0.passes()[0].run(graph, cx)
    }
}

/// A pass that does one rewrite wrong whenever it makes it.
#[derive(Debug)]
struct Faulty {
    inner: Box<dyn Pass>,
    rule: String,
    node: String,
    fault: Fault,
    moved: Moved,
}

impl Pass for Faulty {
    fn name(&self) -> &'static str {
        self.inner.name()
    }

    fn summary(&self) -> &'static str {
        self.inner.summary()
    }

    fn exactness(&self) -> Exactness {
        self.inner.exactness()
    }

    fn rules(&self) -> Vec<RuleInfo> {
        self.inner.rules()
    }

    fn options(&self) -> String {
        self.inner.options()
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let known: HashSet<String> = names(graph).collect();
        let report = self.inner.run(graph, cx)?;
        if report.applied.iter().any(|made| made.rule == self.rule && made.node == self.node) {
            self.plant(graph, &known)?;
        }
        Ok(report)
    }
}

impl Faulty {
    /// Does the rewrite wrong, in the graph itself or in a branch; true if it did.
    fn plant(&self, graph: &mut Graph, known: &HashSet<String>) -> Result<bool, PassError> {
        let node = graph.node_ids().find(|&id| *graph.node(id).name == *self.node);
        if let Some(node) = node {
            let value = Value { node, slot: 0 };
            let users: Vec<NodeId> = graph.users(value).into_iter().map(|(user, _)| user).collect();
            let planted = (self.fault)(graph, node);
            if planted {
                self.moved.add(first_moved(graph, node, users, known));
                for user in users_of_planted(graph) {
                    self.moved.add(first_moved(graph, user, Vec::new(), known));
                }
            }
            return Ok(planted);
        }
        let mut planted = false;
        edit_branches("fault", graph, &mut |branch| {
            let here = self.plant(branch, known)?;
            planted |= here;
            Ok(here)
        })?;
        if planted {
            // Values of a branch are not seen from outside: its results are.
            let holders = graph.node_ids().filter(|&id| !graph.node(id).op.regions().is_empty());
            let outputs = holders.flat_map(|id| graph.node(id).outputs.iter().map(|o| o.name.to_string()));
            self.moved.add(outputs.collect());
        }
        Ok(planted)
    }
}

fn names(graph: &Graph) -> impl Iterator<Item = String> + '_ {
    graph.node_ids().flat_map(|id| graph.node(id).outputs.iter().map(|output| output.name.to_string()))
}

/// Nodes that read a constant that a fault brought: what is wrong for all that share it moves the first of them.
fn users_of_planted(graph: &Graph) -> Vec<NodeId> {
    let constants = graph.node_ids().filter(|&id| &*graph.node(id).name == "planted");
    let users = constants.flat_map(|node| graph.users(Value { node, slot: 0 }));
    users.map(|(user, _)| user).collect()
}

/// The values that can be the first to move: the node's own, or those after it up to the nearest that the graph had before
/// under the same name.
fn first_moved(graph: &Graph, node: NodeId, users: Vec<NodeId>, known: &HashSet<String>) -> BTreeSet<String> {
    let there: HashSet<NodeId> = graph.node_ids().collect();
    // What is not used any more moves nothing. A constant is a value like others if it was computed before.
    let own = there.contains(&node) && graph.use_count(Value { node, slot: 0 }) > 0;
    let mut found = BTreeSet::new();
    let mut next: Vec<NodeId> = if own { vec![node] } else { users };
    let mut seen: HashSet<NodeId> = HashSet::new();
    while let Some(id) = next.pop() {
        if !there.contains(&id) || !seen.insert(id) {
            continue;
        }
        for (slot, output) in graph.node(id).outputs.iter().enumerate() {
            // A name that the pass made is there in trials that leave out another of its rewrites.
            found.insert(output.name.to_string());
            if !known.contains(&*output.name) {
                let value = Value { node: id, slot: slot as u32 };
                next.extend(graph.users(value).into_iter().map(|(user, _)| user));
            }
        }
    }
    found
}
