//! Rules about views that take parts of values and put them together: slices, splits, concatenations, gathers.
//!
//! ```text
//! model "g"
//! input %0 "x" : f32[n,8]
//! input %1 "z" : f32[n,4]
//! %2 = Concat(%0, %1) {axis=1}
//! %3 = Constant [1] : i64[1]
//! %4 = Constant [7] : i64[1]
//! %5 = Slice(%2, %3, %4, %3)
//! %6 = Constant [2] : i64[1]
//! %7 = Constant [-1] : i64[1]
//! %8 = Slice(%5, %6, %7, %3, %6)
//! output "y" = %8
//! ; becomes
//! model "g"
//! input %0 "x" : f32[n,8]
//! input %1 "z" : f32[n,4]
//! %2 = Constant [3] : i64[1]
//! %3 = Constant [6] : i64[1]
//! %4 = Constant [1] : i64[1]
//! %5 = Constant [2] : i64[1]
//! %6 = Slice(%0, %2, %3, %4, %5)
//! output "y" = %6
//! ```

use super::{root, unchanged};
use rabot_ir::ops::{Concat, Slice};
use rabot_ir::{Dim, Graph, NodeId, Op, Value};
use rabot_rewrite::{Match, Rewriter, RuleInfo, Skip};
use rabot_tensor::Tensor;
use std::collections::BTreeMap;

pub(in crate::canonicalize) const RULES: &[RuleInfo] = &[
    RuleInfo {
        name: "slice-of-slice",
        identity: "x[a : e : s][b : f : t] = x[a + s b : min(e, a + s f) : s t]",
        lhs: &["Slice(inner:Slice(?x, ...), ...)"],
        uses: &["inner", "x"],
        apply: slice_of_slice,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "slice-of-concat",
        identity: "a slice of a concatenation that lies within one operand is a slice of that operand",
        lhs: &["Slice(joined:Concat(...), ...)"],
        uses: &["joined"],
        apply: slice_of_concat,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "concat-of-concat",
        identity: "concat(concat(x, y), z) = concat(x, y, z) along one axis",
        lhs: &["Concat(...)"],
        uses: &[],
        apply: concat_of_concat,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "concat-without-empty",
        identity: "an operand without elements adds nothing to a concatenation",
        lhs: &["Concat(...)"],
        uses: &[],
        apply: concat_without_empty,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "concat-of-parts",
        identity: "concat(x[a : b], x[b : c]) = x[a : c]",
        lhs: &["Concat(...)"],
        uses: &[],
        apply: concat_of_parts,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "split-of-one",
        identity: "split(x) into one part = x",
        lhs: &["Split(?x, [_sizes])"],
        uses: &["x"],
        apply: unchanged,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "split-of-concat",
        identity: "a split of a concatenation at the seams gives the operands",
        lhs: &["Split(joined:Concat(...), [_sizes])"],
        uses: &["joined"],
        apply: split_of_concat,
        shared: true,
        ..RuleInfo::BITWISE
    },
    RuleInfo {
        name: "gather-to-slice",
        identity: "x taken at the indices a, a + 1, ... b - 1 = x[a : b]",
        lhs: &["Gather(?x, #indices)"],
        uses: &["x", "indices"],
        apply: gather_to_slice,
        ..RuleInfo::BITWISE
    },
];

/// To the end, whatever the dim.
const END: i64 = i64::MAX;

/// From here on a bound means "to the end"; inference takes it so too.
const TO_THE_END: i64 = 1_000_000_000;

/// What a slice takes along one axis: every `step`-th element of `start..end`. Bounds are counted from the front and
/// clamped where the dim is known, and otherwise as the operands have them.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Cut {
    pub(super) start: i64,
    pub(super) end: i64,
    pub(super) step: i64,
}

impl Cut {
    /// True if the bounds are in order whatever the dim is.
    fn is_ordered(self) -> bool {
        self.start == 0 || self.end == END || (self.start < 0) == (self.end < 0) && self.start <= self.end
    }

    /// True if it takes everything of a dim.
    fn is_all(self, dim: &Dim) -> bool {
        self.start == 0 && self.step == 1 && (self.end == END || dim.is(self.end))
    }
}

/// Cuts by axis.
type Cuts = BTreeMap<usize, Cut>;

/// An axis counted from the front.
pub(super) fn axis_of(axis: i64, rank: usize) -> Option<usize> {
    let axis = if axis < 0 { axis + rank as i64 } else { axis };
    usize::try_from(axis).ok().filter(|&axis| axis < rank)
}

/// What a Slice with known bounds and positive steps takes, and of which value.
pub(super) fn cuts(graph: &Graph, id: NodeId) -> Option<(Value, Cuts)> {
    let node = graph.node(id);
    if !matches!(node.op, Op::Slice(_)) {
        return None;
    }
    let operand = |slot: usize| node.inputs.get(slot).copied().flatten();
    let list = |slot: usize, default: Vec<i64>| match operand(slot) {
        None => Some(default),
        Some(value) => graph.fact(value).ints(),
    };
    let x = operand(0)?;
    let shape = graph.fact(x).shape();
    let (starts, ends) = (list(1, Vec::new())?, list(2, Vec::new())?);
    let axes = list(3, (0..starts.len() as i64).collect())?;
    let steps = list(4, vec![1; starts.len()])?;
    let mut cuts = Cuts::new();
    for (((start, end), axis), step) in starts.into_iter().zip(ends).zip(axes).zip(steps) {
        let axis = axis_of(axis, shape.len())?;
        let clamped =
            |bound: i64, dim: i64| if bound < 0 { bound.saturating_add(dim) } else { bound }.clamp(0, dim);
        let cut = match shape.get(axis)?.as_const() {
            Some(dim) => Cut { start: clamped(start, dim), end: clamped(end, dim), step },
            None => Cut { start, end: if end >= TO_THE_END { END } else { end }, step },
        };
        if step < 1 || cuts.insert(axis, cut).is_some() {
            return None;
        }
    }
    Some((x, cuts))
}

/// A slice of `x`, or `x` itself if the cuts take everything.
fn add_slice(rewriter: &mut Rewriter<'_>, x: Value, mut cuts: Cuts) -> Result<Value, Skip> {
    let shape = rewriter.fact(x).shape().to_vec();
    cuts.retain(|&axis, cut| shape.get(axis).is_none_or(|dim| !cut.is_all(dim)));
    if cuts.is_empty() {
        return Ok(x);
    }
    let mut list = |part: &str, of: &dyn Fn(usize, &Cut) -> i64| {
        let values: Vec<i64> = cuts.iter().map(|(&axis, cut)| of(axis, cut)).collect();
        Some(rewriter.constant(Tensor::from_vec(&[values.len()], values), part))
    };
    let mut operands = vec![Some(x), list("starts", &|_, cut| cut.start), list("ends", &|_, cut| cut.end)];
    operands.push(list("axes", &|axis, _| axis as i64));
    if cuts.values().any(|cut| cut.step != 1) {
        operands.push(list("steps", &|_, cut| cut.step));
    }
    rewriter.add(Op::Slice(Slice), operands, "slice")
}

fn slice_of_slice(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let inner = rewriter.value(found, "inner")?.node;
    let (x, mut merged) = cuts(rewriter.graph(), inner).ok_or(Skip::NoMatch)?;
    let (_, outer) = cuts(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    for (axis, cut) in outer {
        let cut = match merged.get(&axis) {
            Some(&inner) => both(inner, cut).ok_or(Skip::NoMatch)?,
            None => cut,
        };
        merged.insert(axis, cut);
    }
    add_slice(rewriter, x, merged)
}

/// The cut that taking `inner`, then `outer` comes to, whatever the dim is.
fn both(inner: Cut, outer: Cut) -> Option<Cut> {
    if inner.start < 0 || outer.start < 0 {
        return None;
    }
    let start = inner.start.checked_add(inner.step.checked_mul(outer.start)?)?;
    let end = if outer.end == END {
        inner.end
    } else if outer.end >= 0 && inner.end >= 0 {
        inner.end.min(inner.start.saturating_add(inner.step.saturating_mul(outer.end)))
    } else if outer.end < 0 && inner.step == 1 && inner.end == END {
        outer.end
    } else {
        return None;
    };
    Some(Cut { start, end, step: inner.step.checked_mul(outer.step)? })
}

/// The operands of a Concat and its axis.
fn joined(graph: &Graph, id: NodeId) -> Option<(Vec<Value>, usize)> {
    let node = graph.node(id);
    let Op::Concat(Concat { axis }) = node.op else { return None };
    let rank = node.outputs.first()?.fact.rank();
    Some((node.inputs.iter().copied().collect::<Option<_>>()?, axis_of(axis, rank)?))
}

/// The concatenation of values, or the value itself if it is one.
fn add_concat(rewriter: &mut Rewriter<'_>, values: &[Value], axis: usize) -> Result<Value, Skip> {
    match values {
        [one] => Ok(*one),
        _ => {
            let operands = values.iter().copied().map(Some).collect();
            rewriter.add(Op::Concat(Concat { axis: axis as i64 }), operands, "concat")
        }
    }
}

fn slice_of_concat(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let concat = rewriter.value(found, "joined")?.node;
    let (operands, axis) = joined(rewriter.graph(), concat).ok_or(Skip::NoMatch)?;
    let (_, mut taken) = cuts(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    let cut = *taken.get(&axis).ok_or(Skip::NoMatch)?;
    let mut before = 0;
    for (at, &operand) in operands.iter().enumerate() {
        let dim = rewriter.fact(operand).shape().get(axis).and_then(Dim::as_const);
        let to_the_end = at + 1 == operands.len() && cut.end == END;
        let within = dim.is_some_and(|dim| cut.start < before + dim && (0..=before + dim).contains(&cut.end));
        if cut.start >= before && (to_the_end || within) {
            let end = if cut.end == END { END } else { (cut.end - before).max(0) };
            taken.insert(axis, Cut { start: cut.start - before, end, ..cut });
            return add_slice(rewriter, operand, taken);
        }
        before += dim.ok_or(Skip::NoMatch)?;
    }
    Err(Skip::NoMatch)
}

fn concat_of_concat(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (operands, axis) = joined(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    let mut flat = Vec::new();
    for &operand in &operands {
        // One that stays for others would be copied twice.
        let inner = joined(rewriter.graph(), operand.node)
            .filter(|(_, other)| *other == axis && rewriter.graph().use_count(operand) == 1);
        match inner {
            Some((values, _)) => {
                rewriter.absorb(operand);
                flat.extend(values);
            }
            None => flat.push(operand),
        }
    }
    if flat == operands { Err(Skip::NoMatch) } else { add_concat(rewriter, &flat, axis) }
}

fn concat_without_empty(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (operands, axis) = joined(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    let has_elements = |value: &&Value| rewriter.fact(**value).shape().get(axis).is_none_or(|dim| !dim.is(0));
    let left: Vec<Value> = operands.iter().filter(has_elements).copied().collect();
    if left.is_empty() || left == operands {
        return Err(Skip::NoMatch);
    }
    add_concat(rewriter, &left, axis)
}

/// Something that an operand of a Concat is a part of.
struct Part {
    of: Value,
    /// What it takes along the axis of the Concat.
    cut: Cut,
    /// What it takes along other axes.
    others: Cuts,
}

/// The part that a value is, along an axis.
fn part(graph: &Graph, value: Value, axis: usize) -> Option<Part> {
    let node = graph.node(value.node);
    if let Op::Split(split) = &node.op {
        let of = node.inputs.first().copied().flatten()?;
        if axis_of(split.axis, graph.fact(of).rank())? != axis {
            return None;
        }
        let dims = node.outputs.iter().map(|output| output.fact.shape().get(axis).and_then(Dim::as_const));
        let lengths: Vec<i64> = dims.collect::<Option<_>>()?;
        let slot = value.slot as usize;
        let start: i64 = lengths.iter().take(slot).sum();
        let cut = Cut { start, end: start + lengths.get(slot)?, step: 1 };
        return Some(Part { of, cut, others: Cuts::new() });
    }
    let (of, mut others) = cuts(graph, value.node)?;
    let cut = others.remove(&axis)?;
    (cut.step == 1 && cut.is_ordered()).then_some(Part { of, cut, others })
}

/// The part that two neighbouring ones are together.
fn together(a: &Part, b: &Part) -> Option<Part> {
    let joins = a.of == b.of && a.others == b.others && a.cut.end == b.cut.start;
    let cut = Cut { end: b.cut.end, ..a.cut };
    joins.then(|| Part { of: a.of, cut, others: a.others.clone() })
}

fn concat_of_parts(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (operands, axis) = joined(rewriter.graph(), found.root).ok_or(Skip::NoMatch)?;
    if operands.len() < 2 {
        return Err(Skip::NoMatch);
    }
    // Runs of operands that are one part together.
    let mut runs: Vec<(Vec<Value>, Option<Part>)> = Vec::new();
    for &operand in &operands {
        let next = part(rewriter.graph(), operand, axis);
        let joint = match (runs.last(), &next) {
            (Some((_, Some(last))), Some(next)) => together(last, next),
            _ => None,
        };
        match (joint, runs.last_mut()) {
            (Some(joint), Some((values, last))) => {
                values.push(operand);
                *last = Some(joint);
            }
            _ => runs.push((vec![operand], next)),
        }
    }
    let whole = runs.len() == 1;
    let mut values = Vec::new();
    for (run, part) in runs {
        let Some(part) = part.filter(|_| run.len() > 1) else {
            values.extend(run);
            continue;
        };
        let dim = rewriter.fact(part.of).shape().get(axis).cloned().ok_or(Skip::NoMatch)?;
        let is_all = part.cut.is_all(&dim) && part.others.is_empty();
        let graph = rewriter.graph();
        let dies =
            |value: &Value| graph.use_count(*value) == 1 && matches!(graph.node(value.node).op, Op::Slice(_));
        // A slice beside the Concat has to take the place of at least two.
        if !(whole || is_all || run.iter().all(dies)) {
            values.extend(run);
            continue;
        }
        run.iter().for_each(|&value| rewriter.absorb(value));
        let mut taken = part.others;
        taken.insert(axis, part.cut);
        values.push(add_slice(rewriter, part.of, taken)?);
    }
    if values == operands { Err(Skip::NoMatch) } else { add_concat(rewriter, &values, axis) }
}

fn split_of_concat(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let concat = rewriter.value(found, "joined")?;
    let (operands, axis) = joined(rewriter.graph(), concat.node).ok_or(Skip::NoMatch)?;
    let split = rewriter.node(root(found));
    let Op::Split(op) = &split.op else { return Err(Skip::NoMatch) };
    let rank = rewriter.fact(concat).rank();
    if axis_of(op.axis, rank) != Some(axis) {
        return Err(Skip::NoMatch);
    }
    let dim = |shape: &[Dim]| shape.get(axis).cloned().ok_or(Skip::NoMatch);
    let mut rest = operands.iter();
    let mut parts: Vec<Vec<Value>> = Vec::new();
    for output in &split.outputs {
        let wanted = dim(output.fact.shape())?;
        let (mut length, mut part) = (Dim::from(0), Vec::new());
        while part.is_empty() || length != wanted {
            let &operand = rest.next().ok_or(Skip::NoMatch)?;
            length = length + dim(rewriter.fact(operand).shape())?;
            part.push(operand);
        }
        parts.push(part);
    }
    // Each part of several operands is a Concat again: at most one, in the place of the one that goes.
    let new = parts.iter().filter(|part| part.len() > 1).count();
    let goes = usize::from(rewriter.graph().use_count(concat) == 1);
    if rest.next().is_some() || new > goes {
        return Err(Skip::NoMatch);
    }
    let mut first = None;
    for (part, slot) in parts.iter().zip(0..) {
        let value = add_concat(rewriter, part, axis)?;
        if slot == 0 {
            first = Some(value);
        } else {
            rewriter.also(Value { slot, ..root(found) }, value);
        }
    }
    first.ok_or(Skip::NoMatch)
}

/// The bounds of indices that follow one another, counted from the front of `dim` elements.
pub(super) fn consecutive(indices: &Tensor, dim: i64) -> Option<(i64, i64)> {
    // A table of indices is no range; none that matters is so long.
    if indices.is_empty() || indices.len() > 1 << 16 {
        return None;
    }
    let from_front = |index: i64| if index < 0 { index + dim } else { index };
    let indices: Vec<i64> = indices.to_i64s().into_iter().map(from_front).collect();
    let (first, last) = (*indices.first()?, *indices.last()?);
    let in_order = indices.iter().copied().eq(first..=last);
    (in_order && 0 <= first && last < dim).then_some((first, last + 1))
}

fn gather_to_slice(rewriter: &mut Rewriter<'_>, found: &Match) -> Result<Value, Skip> {
    let (x, indices) = (rewriter.value(found, "x")?, rewriter.tensor(found, "indices")?);
    let Op::Gather(op) = &rewriter.node(root(found)).op else { return Err(Skip::NoMatch) };
    let shape = rewriter.fact(x).shape();
    let axis = axis_of(op.axis, shape.len()).ok_or(Skip::NoMatch)?;
    // Where the dim is not known, an index may be out of range, which a slice would hide.
    let dim = shape[axis].as_const().ok_or(Skip::NoMatch)?;
    if indices.rank() != 1 {
        return Err(Skip::NoMatch);
    }
    let (start, end) = consecutive(&indices, dim).ok_or(Skip::NoMatch)?;
    add_slice(rewriter, x, Cuts::from([(axis, Cut { start, end, step: 1 })]))
}

#[cfg(test)]
mod tests;
