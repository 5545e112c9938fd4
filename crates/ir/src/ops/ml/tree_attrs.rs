//! Reads ensembles from attributes, of which there are two forms.

use super::trees::{Ensemble, Mode, Node};
use super::{refused, strs};
use crate::ops::OpError;
use crate::ops::util::known_attrs;
use crate::{Attr, Attrs};
use rabot_tensor::{DType, Tensor};
use std::collections::HashMap;

/// Attributes that lists of floats and tensors can give, without the prefix that says for what.
const VALUES: [&str; 3] = ["nodes_values", "nodes_hitrates", "base_values"];

/// Attributes of both older ops.
const COMMON: [&str; 14] = [
    "base_values",
    "base_values_as_tensor",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_hitrates_as_tensor",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_nodeids",
    "nodes_treeids",
    "nodes_truenodeids",
    "nodes_values",
    "nodes_values_as_tensor",
    "post_transform",
];

/// Checks the attributes and brings them to one form: numbers as tensors, and none that say nothing.
///
/// **Errors**: an attribute is unknown or given in two ways.
pub(super) fn canonical(attrs: &Attrs, prefix: &str, own: &[&str]) -> Result<Attrs, OpError> {
    let parts = ["ids", "nodeids", "treeids", "weights", "weights_as_tensor"];
    let weights = parts.map(|part| format!("{prefix}_{part}"));
    let known: Vec<&str> =
        COMMON.iter().copied().chain(weights.iter().map(String::as_str)).chain(own.iter().copied()).collect();
    known_attrs(attrs, &known)?;
    let mut attrs = attrs.clone();
    let weights = format!("{prefix}_weights");
    for name in VALUES.into_iter().chain([weights.as_str()]) {
        let as_tensor = format!("{name}_as_tensor");
        if attrs.get(name).is_none() {
            continue;
        }
        let values = attrs.floats(name)?.unwrap_or_default();
        attrs.remove(name);
        if values.is_empty() {
            continue;
        }
        if attrs.get(&as_tensor).is_some() {
            return Err(refused(name, "a list", "the same is given as a tensor"));
        }
        attrs.set(&as_tensor, Attr::Tensor(Tensor::from_vec(&[values.len()], values)));
    }
    // Statistics of training; nothing is computed from them.
    attrs.remove("nodes_hitrates_as_tensor");
    Ok(attrs)
}

/// The numbers of a tensor of floats; empty where it is absent.
pub(super) fn numbers(attrs: &Attrs, name: &str) -> Result<Vec<f64>, OpError> {
    match attrs.get(name) {
        None => Ok(Vec::new()),
        Some(Attr::Tensor(t)) if matches!(t.dtype(), DType::F32 | DType::F64 | DType::F16) => Ok(t.to_f64s()),
        Some(other) => Err(refused(name, format!("{other:?}"), "expected a tensor of floats")),
    }
}

/// A list of integers that has `len` values.
fn list(attrs: &Attrs, name: &str, len: usize) -> Result<Vec<i64>, OpError> {
    let values = attrs.ints(name)?.unwrap_or_default();
    expect_len(name, values.len(), len)?;
    Ok(values)
}

fn expect_len(name: &str, actual: usize, expected: usize) -> Result<(), OpError> {
    if actual == expected {
        return Ok(());
    }
    Err(refused(name, format!("{actual} values"), &format!("expected {expected}")))
}

/// An index that must fit.
fn index(name: &str, value: i64) -> Result<u32, OpError> {
    u32::try_from(value).map_err(|_| refused(name, value, "no index"))
}

fn mode_of(name: &str) -> Result<Mode, OpError> {
    Ok(match name {
        "BRANCH_LEQ" => Mode::Leq,
        "BRANCH_LT" => Mode::Lt,
        "BRANCH_GTE" => Mode::Gte,
        "BRANCH_GT" => Mode::Gt,
        "BRANCH_EQ" => Mode::Eq,
        "BRANCH_NEQ" => Mode::Neq,
        "LEAF" => Mode::Leaf,
        other => {
            return Err(refused("nodes_modes", other, "expected LEAF or one of BRANCH_LEQ, …, BRANCH_NEQ"));
        }
    })
}

/// Whether NaN goes the way of `yes`, for each node.
fn nan_ways(attrs: &Attrs, nodes: usize) -> Result<Vec<bool>, OpError> {
    let name = "nodes_missing_value_tracks_true";
    let ways = attrs.ints(name)?.unwrap_or_default();
    if ways.is_empty() {
        return Ok(vec![false; nodes]);
    }
    expect_len(name, ways.len(), nodes)?;
    Ok(ways.into_iter().map(|way| way == 1).collect())
}

/// The ensemble of `TreeEnsembleClassifier` (`prefix` is `class`) and `TreeEnsembleRegressor` (`target`), from
/// canonical attributes.
///
/// **Errors**: lists do not fit together; a node refers to one that is not there; nodes form a cycle.
pub(super) fn by_node_ids(attrs: &Attrs, prefix: &str, targets: usize) -> Result<Ensemble, OpError> {
    let modes = strs(attrs, "nodes_modes")?.unwrap_or_default();
    let count = modes.len();
    let trees = list(attrs, "nodes_treeids", count)?;
    let ids = list(attrs, "nodes_nodeids", count)?;
    let features = list(attrs, "nodes_featureids", count)?;
    let (yes, no) = (list(attrs, "nodes_truenodeids", count)?, list(attrs, "nodes_falsenodeids", count)?);
    let values = numbers(attrs, "nodes_values_as_tensor")?;
    expect_len("nodes_values", values.len(), count)?;
    let nan_ways = nan_ways(attrs, count)?;
    let mut places: HashMap<(i64, i64), u32> = HashMap::with_capacity(count);
    for (at, key) in trees.iter().copied().zip(ids.iter().copied()).enumerate() {
        if places.insert(key, index("nodes_nodeids", at as i64)?).is_some() {
            return Err(OpError::Value(format!("trees: node {} of tree {} is given twice", key.1, key.0)));
        }
    }
    let place = |tree: i64, id: i64| {
        let found = places.get(&(tree, id)).copied();
        found.ok_or_else(|| OpError::Value(format!("trees: there is no node {id} in tree {tree}")))
    };
    let mut nodes = Vec::with_capacity(count);
    for at in 0..count {
        let mode = mode_of(&modes[at])?;
        let mut node =
            Node { value: values[at], feature: 0, yes: 0, no: 0, set: 0, mode, nan_is_yes: nan_ways[at] };
        if mode != Mode::Leaf {
            node.feature = index("nodes_featureids", features[at])?;
            node.yes = place(trees[at], yes[at])?;
            node.no = place(trees[at], no[at])?;
        }
        nodes.push(node);
    }
    let weights = leaf_weights(attrs, prefix, &mut nodes, place)?;
    // A tree starts with its first node.
    let starts = (0..count).filter(|&at| at == 0 || trees[at] != trees[at - 1]);
    let roots = starts.map(|at| at as u32).collect();
    Ensemble::new(nodes, roots, weights, Vec::new(), targets)
}

/// Sorts the weights by leaf and tells the leaves where theirs are.
fn leaf_weights(
    attrs: &Attrs,
    prefix: &str,
    nodes: &mut [Node],
    place: impl Fn(i64, i64) -> Result<u32, OpError>,
) -> Result<Vec<(u32, f64)>, OpError> {
    let name = |part: &str| format!("{prefix}_{part}");
    let targets = attrs.ints(&name("ids"))?.unwrap_or_default();
    let count = targets.len();
    let trees = list(attrs, &name("treeids"), count)?;
    let ids = list(attrs, &name("nodeids"), count)?;
    let values = numbers(attrs, &name("weights_as_tensor"))?;
    expect_len(&name("weights"), values.len(), count)?;
    let mut entries = Vec::with_capacity(count);
    for at in 0..count {
        entries.push((place(trees[at], ids[at])?, index(&name("ids"), targets[at])?, values[at]));
    }
    entries.sort_by_key(|entry| entry.0);
    // Old converters gave weights to nodes that are no leaves; they mean nothing.
    entries.retain(|entry| nodes.get(entry.0 as usize).is_some_and(|node| node.mode == Mode::Leaf));
    let mut weights = Vec::with_capacity(entries.len());
    for (leaf, target, value) in entries {
        if let Some(node) = nodes.get_mut(leaf as usize) {
            if node.no == 0 {
                node.yes = index("weights", weights.len() as i64)?;
            }
            node.no += 1;
        }
        weights.push((target, value));
    }
    match nodes.iter().position(|node| node.mode == Mode::Leaf && node.no == 0) {
        Some(leaf) => Err(OpError::Value(format!("trees: the leaf at place {leaf} has no weight"))),
        None => Ok(weights),
    }
}

/// The ensemble of `TreeEnsemble`: nodes and leaves are lists of their own.
///
/// **Errors**: lists do not fit together; a node refers to one that is not there; nodes form a cycle.
pub(super) fn by_index(attrs: &Attrs, targets: usize) -> Result<Ensemble, OpError> {
    let splits = numbers(attrs, "nodes_splits")?;
    let count = splits.len();
    let modes = match attrs.get("nodes_modes") {
        Some(Attr::Tensor(tensor)) if tensor.dtype() == DType::U8 => tensor.bytes().to_vec(),
        _ => return Err(refused("nodes_modes", "another value", "expected a tensor of u8")),
    };
    expect_len("nodes_modes", modes.len(), count)?;
    let features = list(attrs, "nodes_featureids", count)?;
    let (yes, no) = (list(attrs, "nodes_truenodeids", count)?, list(attrs, "nodes_falsenodeids", count)?);
    let yes_leaf = list(attrs, "nodes_trueleafs", count)?;
    let no_leaf = list(attrs, "nodes_falseleafs", count)?;
    let nan_ways = nan_ways(attrs, count)?;
    let leaf_values = numbers(attrs, "leaf_weights")?;
    let leaf_targets = list(attrs, "leaf_targetids", leaf_values.len())?;
    let sets = sets(&numbers(attrs, "membership_values")?);
    // Leaves come after the nodes in one list.
    let place = |name: &str, at: i64, leaf: i64| {
        let limit = if leaf != 0 { leaf_values.len() } else { count };
        let found = usize::try_from(at).ok().filter(|&at| at < limit);
        let found = found.ok_or_else(|| refused(name, at, "no node or leaf has this number"))?;
        index(name, (if leaf != 0 { found + count } else { found }) as i64)
    };
    let mut nodes = Vec::with_capacity(count + leaf_values.len());
    let mut set = 0;
    for at in 0..count {
        let order = [Mode::Leq, Mode::Lt, Mode::Gte, Mode::Gt, Mode::Eq, Mode::Neq, Mode::Member];
        let mode = order.get(usize::from(modes[at])).copied();
        let mode = mode.ok_or_else(|| refused("nodes_modes", modes[at], "expected 0 to 6"))?;
        nodes.push(Node {
            value: splits[at],
            feature: index("nodes_featureids", features[at])?,
            yes: place("nodes_truenodeids", yes[at], yes_leaf[at])?,
            no: place("nodes_falsenodeids", no[at], no_leaf[at])?,
            set,
            mode,
            nan_is_yes: nan_ways[at],
        });
        set += u32::from(mode == Mode::Member);
    }
    let mut weights = Vec::with_capacity(leaf_values.len());
    for (at, (&value, &target)) in leaf_values.iter().zip(&leaf_targets).enumerate() {
        let first = index("leaf_weights", at as i64)?;
        nodes.push(Node {
            value: 0.0,
            feature: 0,
            yes: first,
            no: 1,
            set: 0,
            mode: Mode::Leaf,
            nan_is_yes: false,
        });
        weights.push((index("leaf_targetids", target)?, value));
    }
    let roots = attrs.ints("tree_roots")?.unwrap_or_default();
    let roots = roots.into_iter().map(|at| place("tree_roots", at, 0)).collect::<Result<_, _>>()?;
    Ensemble::new(nodes, roots, weights, sets, targets)
}

/// Sets are lists that end with NaN.
fn sets(values: &[f64]) -> Vec<Vec<f64>> {
    let mut sets: Vec<Vec<f64>> = values.split(|value| value.is_nan()).map(<[f64]>::to_vec).collect();
    if sets.last().is_some_and(Vec::is_empty) {
        sets.pop();
    }
    sets
}
