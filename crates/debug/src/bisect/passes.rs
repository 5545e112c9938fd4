//! Which rewrites are at fault.

use super::parameters::{self, Parameter};
use super::values::{self, FirstTensor, Named};
use super::{Bisection, Engine, Lab, Trial, share};
use rabot_rewrite::{Admit, RewriteKey};
use serde::Serialize;
use std::collections::BTreeSet;

/// Most rewrites that are found.
const MOST: usize = 16;

/// A rewrite that breaks the check.
#[derive(Clone, Debug, Serialize)]
pub struct RewriteCulprit {
    /// Number of the change in the pipeline, from 1.
    pub number: usize,
    /// The pass, with its options.
    pub pass: String,
    /// The rule.
    pub rule: String,
    /// The node it was made at.
    pub node: String,
    /// What became of it, in words.
    pub detail: String,
    /// The model's own nodes that it is about.
    pub sources: Vec<String>,
    /// True if the check holds when this one alone is left out.
    pub sole: bool,
    /// Rewrites without which it does no harm, as `RULE@NODE`.
    pub only_with: Vec<String>,
    /// The first value that deviates.
    pub tensor: Option<FirstTensor>,
    /// The quantization parameter that is wrong.
    pub parameter: Option<Parameter>,
    /// Why the graph could not be evaluated with it, if so.
    pub failure: Option<String>,
    #[serde(skip)]
    pub(crate) key: RewriteKey,
}

impl RewriteCulprit {
    /// The rewrite, for a gate.
    pub fn key(&self) -> &RewriteKey {
        &self.key
    }
}

/// Finds the rewrites that break the check, one after another, each left out once it is found.
pub(crate) fn search(lab: &Lab<'_>, full: &Trial, found: &mut Bisection) {
    let mut without: BTreeSet<RewriteKey> = BTreeSet::new();
    let mut keys = full.keys.clone();
    while found.rewrites.len() < MOST {
        let Some(turned) = turn(lab, &keys, &without, found.engine) else {
            found.unexplained =
                Some("the check fails before the first change, with this evaluation".to_owned());
            return;
        };
        let most = share::most(lab, full, &keys, turned, &without, found.engine);
        let most = most.and_then(|key| keys.iter().position(|other| *other == key));
        let number = most.map_or(turned, |at| at + 1);
        let with = lab.trial(Admit::FirstWithout(number, without.clone()));
        let before = lab.trial(Admit::FirstWithout(number - 1, without.clone()));
        let Some(key) = with.keys.get(number - 1).cloned() else {
            found.unexplained = Some("a change differs from run to run".to_owned());
            return;
        };
        let mut culprit = told(&key, number, full, &with);
        explain(lab, &before, &with, &mut culprit);
        let mut alone = without.clone();
        match bringer(lab, &culprit, &with, &without) {
            Some((number, key)) => {
                alone.insert(key.clone());
                culprit = brought(lab, culprit, told(&key, number, full, &with), &with, &without, &alone);
            }
            None => {
                alone.insert(key.clone());
                if most.is_none() {
                    culprit.only_with = partner(lab, &with, number, &without, found.engine);
                }
            }
        }
        let rest = lab.trial(Admit::Without(alone.clone()));
        let holds = lab.try_out(&rest, found.engine).holds;
        culprit.sole = holds && without.is_empty();
        found.monotone &= culprit.only_with.is_empty();
        found.rewrites.push(culprit);
        without = alone;
        keys = rest.keys;
        if holds {
            return;
        }
    }
    found.unexplained = Some(format!("more than {MOST} rewrites break the check"));
}

/// The earlier change that brought the parameter with which a change breaks the check: where two layers read one value,
/// a wrong scale of one of them shows once nothing converts the value between them.
fn bringer(
    lab: &Lab<'_>,
    culprit: &RewriteCulprit,
    with: &Trial,
    without: &BTreeSet<RewriteKey>,
) -> Option<(usize, RewriteKey)> {
    let name = &culprit.parameter.as_ref().filter(|wrong| wrong.holds)?.name;
    let tensor = parameters::constant(with.graph.as_ref().ok()?, name)?;
    let lacks = |count: usize| {
        let trial = lab.trial(Admit::FirstWithout(count, without.clone()));
        trial.graph.is_ok_and(|graph| !parameters::is_there(&graph, name, tensor))
    };
    let number = if lacks(0) { halve(0, culprit.number, &lacks) } else { return None };
    let key = with.keys.get(number - 1).filter(|_| number < culprit.number)?;
    Some((number, key.clone()))
}

/// What is told of a change `first` that brought a wrong parameter, which a later one showed. `alone` are the changes that
/// are left out with it.
fn brought(
    lab: &Lab<'_>,
    shown: RewriteCulprit,
    first: RewriteCulprit,
    with: &Trial,
    without: &BTreeSet<RewriteKey>,
    alone: &BTreeSet<RewriteKey>,
) -> RewriteCulprit {
    let (all, rest) = (Admit::Without(without.clone()), Admit::Without(alone.clone()));
    let mut culprit = first;
    explain(lab, &lab.trial(rest), &lab.trial(all), &mut culprit);
    let other = with.keys.get(shown.number.saturating_sub(1));
    let only_with = other.map(|other| format!("{}@{}", other.rule, other.node)).into_iter().collect();
    RewriteCulprit { parameter: shown.parameter, only_with, ..culprit }
}

/// The number of a change with which the check fails and before which it holds, by pass and then by change; `None` if
/// it fails with none.
fn turn(lab: &Lab<'_>, keys: &[RewriteKey], without: &BTreeSet<RewriteKey>, engine: Engine) -> Option<usize> {
    let holds = |count: usize| {
        let trial = lab.trial(Admit::FirstWithout(count, without.clone()));
        lab.try_out(&trial, engine).holds
    };
    let ends = (1..keys.len()).filter(|&at| keys[at].step != keys[at - 1].step);
    let ends: Vec<usize> = std::iter::once(0).chain(ends).chain([keys.len()]).collect();
    if keys.is_empty() || !holds(0) {
        return None;
    }
    let at = halve(0, ends.len() - 1, &|at| holds(ends[at]));
    Some(halve(ends[at - 1], ends[at], &holds))
}

/// A position with which something fails and before which it holds; it holds at `low` and fails at `high`.
fn halve(mut low: usize, mut high: usize, holds: &dyn Fn(usize) -> bool) -> usize {
    while high - low > 1 {
        let middle = low + (high - low) / 2;
        if holds(middle) { low = middle } else { high = middle }
    }
    high
}

/// The earlier change without which this one does no harm though it is made, if there is one.
fn partner(
    lab: &Lab<'_>,
    with: &Trial,
    number: usize,
    without: &BTreeSet<RewriteKey>,
    engine: Engine,
) -> Vec<String> {
    let (Some(earlier), Some(key)) = (with.keys.get(..number - 1), with.keys.get(number - 1)) else {
        return Vec::new();
    };
    // Made and harmless: a change that is not made because others are missing says nothing.
    let harmless = |left_out: &[RewriteKey]| {
        let mut without = without.clone();
        without.extend(left_out.iter().cloned());
        let all = lab.trial(Admit::Without(without.clone()));
        let Some(count) = all.keys.iter().position(|made| made == key) else { return false };
        let trial = lab.trial(Admit::FirstWithout(count + 1, without));
        lab.try_out(&trial, engine).holds
    };
    if earlier.is_empty() || !harmless(earlier) {
        return Vec::new();
    }
    let at = halve(0, earlier.len(), &|count| !harmless(&earlier[..count]));
    let other = &earlier[at - 1];
    if harmless(std::slice::from_ref(other)) {
        vec![format!("{}@{}", other.rule, other.node)]
    } else {
        Vec::new()
    }
}

fn told(key: &RewriteKey, number: usize, full: &Trial, with: &Trial) -> RewriteCulprit {
    let steps = if with.steps.is_empty() { &full.steps } else { &with.steps };
    let step = steps.get(key.step);
    let made = step.and_then(|step| {
        let same = |change: &&rabot_rewrite::Applied| change.rule == key.rule && change.node == key.node;
        step.report.applied.iter().filter(same).nth(key.repeat)
    });
    RewriteCulprit {
        number,
        pass: step.map_or(format!("number {}", key.step + 1), |step| step.pass.clone()),
        rule: key.rule.clone(),
        node: key.node.clone(),
        detail: made.map_or(String::new(), |made| made.detail.clone()),
        sources: made.map_or(vec![], |made| made.sources.iter().map(|name| name.to_string()).collect()),
        sole: false,
        only_with: Vec::new(),
        tensor: None,
        parameter: None,
        failure: None,
        key: key.clone(),
    }
}

/// The first tensor that deviates, and the parameter that is wrong.
fn explain(lab: &Lab<'_>, before: &Trial, with: &Trial, culprit: &mut RewriteCulprit) {
    match (&before.graph, &with.graph) {
        (Ok(before), Ok(after)) => {
            let Some(inputs) = lab.subject.inputs.get(lab.judge.worst_set()) else { return };
            let judged = lab.try_out(with, Engine::Interpreter);
            culprit.failure = judged.unable.then(|| judged.why.clone()).flatten();
            let Some(seen) = Named::new(&lab.known, before, inputs) else { return };
            let now = Named::new(&lab.known, after, inputs);
            culprit.tensor = now.and_then(|now| values::first(&seen, &now));
            culprit.parameter = parameters::find(lab, &seen, after, &judged);
        }
        (_, Err(error)) => culprit.failure = Some(error.clone()),
        _ => {}
    }
}
