//! Which step breaks a check: the pass, its rewrite, the first tensor, the quantization parameter, or the kernel.
//!
//! Every change of a pipeline goes through a gate, so the graph after the first `n` changes can be had for any `n`. With
//! none the check holds, with all it fails, and halving finds two neighbours between which it turns: that change is a
//! culprit, whether the effect is monotone or not. It is left out and the search begins anew, until the check holds.
//! A change that is harmless by itself is reported with the earlier one that it breaks together with. Of a pass each of
//! whose changes adds some error, the one that adds the most is sought (`share.rs`).
//!
//! Trials share values (`known.rs`): each costs what its rewrite changes.
//!
//! What the interpreter finds right and the compiled program wrong is the kernels': each value that a kernel wrote is
//! compared with the interpreter's on the operands that the kernel really had, so an error is not blamed on those that
//! only pass it on.
//!
//! Source of the search: Zeller, Hildebrandt, "Simplifying and isolating failure-inducing input", IEEE TSE 28 (2), 2002.

pub mod check;
mod expr;
mod kernels;
mod known;
mod lab;
mod parameters;
mod passes;
mod share;
mod values;

pub use check::Check;
pub use expr::{Expression, ExpressionError};
pub use kernels::KernelCulprit;
pub use parameters::Parameter;
pub use passes::RewriteCulprit;
pub use values::FirstTensor;

use crate::{DebugError, Tensors};
use check::{Judge, Judged};
use known::Known;
use lab::{Lab, Trial};
use rabot_ir::Graph;
use rabot_kernel::Staged;
use rabot_rewrite::{Admit, Exactness, Pipeline, RewriteKey, Step};
use rabot_target::Profile;
use serde::Serialize;
use std::fmt;
use std::time::{Duration, Instant};

/// The interpreter takes part in the search up to this time for one evaluation of the original.
const SLOW: Duration = Duration::from_secs(1);

/// Changes a plan before code is made of it.
pub type EditPlan = dyn Fn(&mut Staged);

/// What fails.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The model as imported.
    pub graph: &'a Graph,
    /// The passes.
    pub pipeline: &'a Pipeline,
    /// Input sets for passes that calibrate; empty for none.
    pub calibration: &'a [Tensors],
    /// Leave out rules that only hold for finite values.
    pub strict: bool,
    /// Rewrites that are left out from the start, as pairs of rule and node.
    pub without: &'a [(String, String)],
    /// What graphs are evaluated with in the search; chosen by the interpreter's time if absent.
    pub engine: Option<Engine>,
    /// Inputs; the check has to hold on every set.
    pub inputs: &'a [Tensors],
    /// Machine to compile for.
    pub profile: &'a Profile,
    /// What outputs have to be like.
    pub check: &'a Check,
    /// Applied to every plan; how a drill makes a wrong kernel.
    pub edit_plan: Option<&'a EditPlan>,
}

impl fmt::Debug for Subject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Subject({}, {})", self.graph.name, self.pipeline)
    }
}

/// What evaluates graphs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Engine {
    /// The reference.
    Interpreter,
    /// Compiled programs.
    Compiled,
}

/// What was tried against the failure, and how it went.
#[derive(Clone, Debug, Serialize)]
pub struct Remedy {
    /// In words: what to leave out.
    pub text: String,
    /// The rewrites that it leaves out, as `RULE@NODE`.
    pub without: Vec<String>,
    /// Largest error of an output relative to its largest magnitude, before.
    pub before: f64,
    /// The same with the remedy.
    pub after: f64,
    /// True if the check holds with it.
    pub holds: bool,
}

/// What was found.
#[derive(Clone, Debug, Serialize)]
pub struct Bisection {
    /// True if the check fails at all.
    pub fails: bool,
    /// What the search evaluated graphs with.
    pub engine: Engine,
    /// Why.
    pub engine_reason: String,
    /// Largest relative error of an output of the compiled program.
    pub error: f64,
    /// Changes that the pipeline makes.
    pub changes: usize,
    /// Rewrites at fault, in the order in which they were found.
    pub rewrites: Vec<RewriteCulprit>,
    /// Kernels at fault, in the order of the run.
    pub kernels: Vec<KernelCulprit>,
    /// True if no culprit needs another rewrite to break the check.
    pub monotone: bool,
    /// What was tried.
    pub remedy: Option<Remedy>,
    /// What is left if not everything was explained.
    pub unexplained: Option<String>,
    /// Graphs that were evaluated.
    pub evaluations: usize,
    /// Time of the search.
    pub seconds: f64,
}

/// Finds what breaks the check.
///
/// **Errors**: the original cannot be evaluated or fails the check itself, or a check by tolerance is asked for where a
/// pass changes what the model computes.
pub fn bisect(subject: Subject<'_>) -> Result<Bisection, DebugError> {
    let started = Instant::now();
    let first = subject.inputs.first().ok_or_else(|| DebugError::Bisect("there are no inputs".to_owned()))?;
    let (known, timed) = (Known::default(), Instant::now());
    known.run(subject.graph, first).map_err(|error| DebugError::interp("the model as imported", error))?;
    let slow = timed.elapsed() > SLOW;
    let judge = Judge::new(&known, subject.graph, subject.inputs, subject.check)?;
    let lab = Lab::new(subject, judge, known);
    let original = lab.judge.original()?;
    if !original.holds {
        let why = original.why.unwrap_or_default();
        return Err(DebugError::Bisect(format!("the check fails for the model as imported: {why}")));
    }
    let full = lab.trial(Admit::Without(Default::default()));
    if let (Ok(_), Some((rule, node))) = (&full.graph, lab.never_asked_for()) {
        return Err(DebugError::Bisect(format!("there is no rewrite `{rule}` at `{node}` to leave out")));
    }
    refuse_tolerance(&subject, &full.steps)?;
    let compiled = lab.try_out(&full, Engine::Compiled);
    let mut found = Bisection {
        fails: !compiled.holds,
        engine: Engine::Interpreter,
        engine_reason: "it is fast enough".to_owned(),
        error: compiled.error,
        changes: full.keys.len(),
        rewrites: Vec::new(),
        kernels: Vec::new(),
        monotone: true,
        remedy: None,
        unexplained: None,
        evaluations: 0,
        seconds: 0.0,
    };
    let interpreted = lab.try_out(&full, Engine::Interpreter);
    found.fails |= !interpreted.holds;
    if !interpreted.holds {
        choose_engine(&lab, slow, &mut found)?;
        passes::search(&lab, &full, &mut found);
    }
    if found.fails {
        kernels::search(&lab, &mut found)?;
        remedy(&lab, &compiled, &mut found);
    }
    found.evaluations = lab.evaluations();
    found.seconds = started.elapsed().as_secs_f64();
    Ok(found)
}

/// What changes what is computed cannot be held to rounding.
fn refuse_tolerance(subject: &Subject<'_>, steps: &[Step]) -> Result<(), DebugError> {
    let changes =
        |step: &&Step| matches!(step.exactness, Exactness::Changes(_)) && !step.report.applied.is_empty();
    match (subject.check, steps.iter().find(changes)) {
        (Check::Tolerance, Some(step)) => Err(DebugError::Bisect(format!(
            "pass `{}` {}, so outputs are not those of the model; say what they have to be like, with a check or a metric",
            step.pass, step.exactness
        ))),
        _ => Ok(()),
    }
}

/// Compiled programs do where the interpreter is slow or they are asked for, once they are cleared on the original.
///
/// **Errors**: compiled programs are asked for and not cleared.
fn choose_engine(lab: &Lab<'_>, slow: bool, found: &mut Bisection) -> Result<(), DebugError> {
    let asked = lab.subject.engine;
    if asked == Some(Engine::Interpreter) {
        found.engine_reason = "it was asked for".to_owned();
    }
    if !(asked == Some(Engine::Compiled) || (asked.is_none() && slow)) {
        return Ok(());
    }
    let cleared = lab.judged(lab.subject.graph, Engine::Compiled);
    if cleared.holds {
        found.engine = Engine::Compiled;
        let why = if asked.is_some() { "it was asked for" } else { "the interpreter is slow" };
        found.engine_reason = format!("{why}, and the original passes the check when it is compiled");
        return Ok(());
    }
    found.engine_reason = "the original fails the check when it is compiled".to_owned();
    match asked {
        None => Ok(()),
        Some(_) => Err(DebugError::Bisect(format!(
            "{}, so compiled programs cannot tell which rewrite breaks it",
            found.engine_reason
        ))),
    }
}

/// Leaves out what is at fault, and measures.
fn remedy(lab: &Lab<'_>, before: &Judged, found: &mut Bisection) {
    let keys: Vec<RewriteKey> = found.rewrites.iter().map(|culprit| culprit.key.clone()).collect();
    if !keys.is_empty() {
        let trial = lab.trial(Admit::Without(keys.iter().cloned().collect()));
        let after = lab.try_out(&trial, Engine::Compiled);
        found.remedy = Some(told(&keys, before, &after));
        return;
    }
    kernels::remedy(lab, before, found);
}

/// A remedy that leaves out these rewrites.
pub(crate) fn told(keys: &[RewriteKey], before: &Judged, after: &Judged) -> Remedy {
    let one = |key: &RewriteKey| match key.rule.as_str() {
        "int8" => format!("keep `{}` in f32", key.node),
        rule => format!("leave out `{rule}` at `{}`", key.node),
    };
    Remedy {
        text: keys.iter().map(one).collect::<Vec<_>>().join(" and "),
        without: keys.iter().map(|key| format!("{}@{}", key.rule, key.node)).collect(),
        before: before.error,
        after: after.error,
        holds: after.holds,
    }
}

#[cfg(test)]
mod tests;
