//! Which of many changes that each add error added the most.
//!
//! Where a pass changes what a model computes, every one of its rewrites adds some error, and the check turns at the one
//! that makes the sum too large: not always at the one that is wrong. So the graph before the pass and the one after it
//! are evaluated, and each value that both have is compared. What a rewrite adds is the error of its result less the
//! largest error of what its result is computed from. The rewrites that add most are left out in turn, and where that
//! helps far more than leaving out the one at which the check turned, it is the culprit.

use super::lab::Lab;
use super::values::Named;
use super::{Engine, Trial};
use crate::Difference;
use rabot_ir::{Graph, Node, Value};
use rabot_rewrite::{Admit, Exactness, RewriteKey};
use std::collections::{BTreeSet, HashMap};

/// Rewrites that are left out in turn.
const TRIED: usize = 3;

/// Leaving out another rewrite has to leave at most this part of the error.
const BETTER: f64 = 0.5;

/// The change that adds the most, if it is not the one at which the check turns: `keys[number - 1]` of the changes
/// `keys`, which are all but those in `without`.
pub(crate) fn most(
    lab: &Lab<'_>,
    full: &Trial,
    keys: &[RewriteKey],
    number: usize,
    without: &BTreeSet<RewriteKey>,
    engine: Engine,
) -> Option<RewriteKey> {
    let turned = keys.get(number.checked_sub(1)?)?;
    let changes = |key: &&RewriteKey| {
        let step = full.steps.get(key.step);
        step.is_some_and(|step| matches!(step.exactness, Exactness::Changes(_)))
    };
    let step = keys.get(..number)?.iter().rev().find(changes)?.step;
    let low = keys.iter().position(|key| key.step == step)?;
    let same = keys.get(low..)?.iter().take_while(|key| key.step == step && key.rule == keys[low].rule);
    let high = low + same.count();
    let before = lab.trial(Admit::FirstWithout(low, without.clone())).graph.ok()?;
    let after = lab.trial(Admit::FirstWithout(high, without.clone())).graph.ok()?;
    let added = added(lab, &before, &after)?;
    let mut ranked: Vec<(f64, &RewriteKey)> =
        keys[low..high].iter().map(|key| (of_rewrite(key, &before, &after, &added), key)).collect();
    ranked.sort_by(|a, b| b.0.total_cmp(&a.0));
    let left = |key: &RewriteKey| {
        let mut without = without.clone();
        without.insert(key.clone());
        lab.try_out(&lab.trial(Admit::Without(without)), engine).error
    };
    let rest = left(turned);
    let others = ranked.into_iter().filter(|(added, _)| *added > 0.0).take(TRIED);
    let others = others.map(|(_, key)| key).filter(|key| *key != turned);
    let best = others.map(|key| (left(key), key)).min_by(|a, b| a.0.total_cmp(&b.0))?;
    (best.0 < BETTER * rest).then(|| best.1.clone())
}

/// What the node of each value adds to the error of what it is computed from, for values that both graphs have.
fn added(lab: &Lab<'_>, before: &Graph, after: &Graph) -> Option<HashMap<Value, f64>> {
    let inputs = lab.subject.inputs.get(lab.judge.worst_set())?;
    let (right, now) = (Named::new(&lab.known, before, inputs)?, Named::new(&lab.known, after, inputs)?);
    let mut errors: HashMap<Value, f64> = HashMap::new();
    let mut added = HashMap::new();
    for id in after.topological().ok()? {
        let node = after.node(id);
        let given = node.inputs.iter().flatten().filter_map(|value| errors.get(value));
        let given = given.copied().fold(0.0, f64::max);
        for (slot, output) in node.outputs.iter().enumerate() {
            let value = Value { node: id, slot: slot as u32 };
            let here = noise(&now, &right, &output.name);
            errors.insert(value, here.unwrap_or(given));
            if let Some(here) = here {
                added.insert(value, here - given);
            }
        }
    }
    Some(added)
}

/// Noise of a value of floats relative to the signal, as a ratio of root mean squares.
fn noise(now: &Named<'_>, right: &Named<'_>, name: &str) -> Option<f64> {
    if !right.is_float(name) {
        return None;
    }
    if now.same(right, name) {
        return Some(0.0);
    }
    let difference = Difference::of(&now.get(name)?, &right.get(name)?)?;
    match difference.sqnr_db {
        _ if difference.is_equal() => Some(0.0),
        Some(db) if db.is_finite() => Some(10f64.powf(-db / 20.0)),
        _ => Some(f64::INFINITY),
    }
}

/// The most that a result of a rewrite adds: of nodes of its name, and of those of the model's nodes it is about.
fn of_rewrite(key: &RewriteKey, before: &Graph, after: &Graph, added: &HashMap<Value, f64>) -> f64 {
    let old = before.node_ids().map(|id| before.node(id)).find(|node| *node.name == *key.node);
    let about = |node: &Node| {
        let sources = |old: &Node| {
            !old.sources.is_empty() && old.sources.iter().all(|source| node.sources.contains(source))
        };
        *node.name == *key.node || old.is_some_and(sources)
    };
    let of = added.iter().filter(|(value, _)| about(after.node(value.node)));
    of.map(|(_, added)| *added).fold(0.0, f64::max)
}
