//! `Einsum` as transposes, reshapes, products and sums.
//!
//! Each operand is brought to a form in which no label occurs twice and no axis that may be broadcast has length 1;
//! then operands are joined from the left: labels that no later operand or the result needs are summed, as the inner
//! dimension of a matrix product where both operands have them.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Einsum.html>

use super::Row;
use super::chain::Made;
use super::emit::wrong;
use super::extent::Extent;
use super::masks::diagonal;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[("", "Einsum", einsum)];

/// An axis of an operand or of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Label {
    /// One of those that an ellipsis stands for, counted from the last.
    Ellipsis(usize),
    /// A letter.
    Letter(char),
}

/// A value with a label for each axis, no two the same.
#[derive(Clone, Debug)]
struct Term {
    value: Value,
    labels: Vec<Label>,
}

/// A term of the equation: labels before and after an ellipsis, if it has one.
#[derive(Clone, Debug, Default)]
struct Pattern {
    before: Vec<char>,
    after: Vec<char>,
    ellipsis: bool,
}

impl Pattern {
    fn parse(text: &str) -> Option<Self> {
        let letters = |part: &str| {
            part.chars().map(|c| c.is_ascii_alphabetic().then_some(c)).collect::<Option<Vec<char>>>()
        };
        match text.split_once("...") {
            Some((before, after)) => {
                Some(Pattern { before: letters(before)?, after: letters(after)?, ellipsis: true })
            }
            None => Some(Pattern { before: letters(text)?, after: Vec::new(), ellipsis: false }),
        }
    }

    /// The labels, where the ellipsis stands for `count` axes.
    fn labels(&self, count: usize) -> Vec<Label> {
        let letters = |list: &[char]| list.iter().map(|&c| Label::Letter(c)).collect::<Vec<_>>();
        let middle = if self.ellipsis { (0..count).rev().map(Label::Ellipsis).collect() } else { Vec::new() };
        [letters(&self.before), middle, letters(&self.after)].concat()
    }

    fn letters(&self) -> impl Iterator<Item = char> + '_ {
        self.before.iter().chain(&self.after).copied()
    }
}

/// The terms of the operands, and of the result if it is given.
fn parse(equation: &str) -> Option<(Vec<Pattern>, Option<Pattern>)> {
    let text: String = equation.chars().filter(|c| !c.is_whitespace()).collect();
    let (operands, result) = match text.split_once("->") {
        Some((operands, result)) => (operands, Some(Pattern::parse(result)?)),
        None => (text.as_str(), None),
    };
    let operands = operands.split(',').map(Pattern::parse).collect::<Option<_>>()?;
    Some((operands, result))
}

/// Without a result in the equation: the ellipsis, then letters that occur once, in order.
fn implicit(operands: &[Pattern]) -> Pattern {
    let all: Vec<char> = operands.iter().flat_map(Pattern::letters).collect();
    let mut once: Vec<char> =
        all.iter().copied().filter(|c| all.iter().filter(|o| *o == c).count() == 1).collect();
    once.sort_unstable();
    Pattern { before: Vec::new(), after: once, ellipsis: operands.iter().any(|p| p.ellipsis) }
}

fn einsum(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["equation"])?;
    let equation = draft.attrs.str("equation", "").map_err(wrong)?;
    let refused = |reason: &str| Failure::unsupported(format!("equation `{equation}`: {reason}"));
    let (patterns, result) = parse(&equation).ok_or_else(|| refused("it cannot be read"))?;
    if patterns.len() != draft.inputs.len() {
        return Err(refused(&format!("{} terms for {} inputs", patterns.len(), draft.inputs.len())));
    }
    let result = result.unwrap_or_else(|| implicit(&patterns));
    let first = draft.operand(0, "Inputs")?;
    let dtype = draft.dtype_of(first);
    let work = match dtype {
        DType::I8 | DType::I16 => DType::I32,
        DType::U8 | DType::U16 => DType::U32,
        other => other,
    };
    let (mut terms, mut widest) = (Vec::new(), 0);
    for (slot, pattern) in patterns.iter().enumerate() {
        let value = draft.operand(slot, "Inputs")?;
        let (rank, letters) = (draft.rank_of(value)?, pattern.letters().count());
        let covered = rank.checked_sub(letters).filter(|&rest| pattern.ellipsis || rest == 0);
        let covered = covered.ok_or_else(|| refused(&format!("input {slot} is of rank {rank}")))?;
        widest = widest.max(covered);
        let value = draft.cast(value, work)?;
        terms.push(Term { value, labels: pattern.labels(covered) });
    }
    let wanted = result.labels(widest);
    let known = |label: &Label| match label {
        Label::Ellipsis(_) => true,
        label => terms.iter().any(|term| term.labels.contains(label)),
    };
    let repeated = wanted.iter().enumerate().any(|(at, label)| wanted[..at].contains(label));
    if repeated || !wanted.iter().all(known) {
        return Err(refused("the result has a label twice, or one that no operand has"));
    }
    let y = contract(&mut draft, terms, &wanted)?;
    let y = draft.cast(y, dtype)?;
    draft.finish_with(vec![Some(y)])
}

/// The sum of products of terms, with the axes of the result.
fn contract(draft: &mut Draft<'_>, terms: Vec<Term>, wanted: &[Label]) -> Made {
    let mut plain = Vec::with_capacity(terms.len());
    for term in terms {
        let term = without_repetition(draft, term)?;
        plain.push(without_ones(draft, term)?);
    }
    let mut rest = plain.into_iter().collect::<std::collections::VecDeque<Term>>();
    let Some(mut all) = rest.pop_front() else {
        return Err(Failure::unsupported("an equation without terms"));
    };
    while let Some(next) = rest.pop_front() {
        let needed = |label: &Label| wanted.contains(label) || rest.iter().any(|t| t.labels.contains(label));
        let left = summed(draft, all, |label| needed(label) || next.labels.contains(label))?;
        let right = summed(draft, next, |label| needed(label) || left.labels.contains(label))?;
        all = joined(draft, &left, &right, needed)?;
    }
    let all = summed(draft, all, |label| wanted.contains(label))?;
    let present: Vec<Label> = wanted.iter().copied().filter(|label| all.labels.contains(label)).collect();
    let value = arranged(draft, &all, &present)?;
    let absent = wanted.iter().enumerate().filter(|(_, label)| !present.contains(label));
    let absent: Vec<i64> = absent.map(|(axis, _)| axis as i64).collect();
    draft.unsqueeze(value, absent)
}

/// Diagonals for labels that occur more than once.
fn without_repetition(draft: &mut Draft<'_>, mut term: Term) -> Result<Term, Failure> {
    let again = |labels: &[Label]| {
        (0..labels.len()).find_map(|at| Some((labels[..at].iter().position(|l| *l == labels[at])?, at)))
    };
    while let Some((first, second)) = again(&term.labels) {
        term.value = diagonal(draft, term.value, first, second)?;
        term.labels.remove(second);
    }
    Ok(term)
}

/// Axes of length 1 take part in nothing; those of the result are put in at the end.
fn without_ones(draft: &mut Draft<'_>, term: Term) -> Result<Term, Failure> {
    let shape = draft.shape_of(term.value)?;
    let ones: Vec<i64> = (0..shape.len()).filter(|&at| shape[at].is(1)).map(|at| at as i64).collect();
    if ones.is_empty() {
        return Ok(term);
    }
    let labels = term.labels.iter().zip(&shape).filter(|(_, dim)| !dim.is(1)).map(|(l, _)| *l).collect();
    Ok(Term { value: draft.squeezed(term.value, &ones)?, labels })
}

/// The sum over labels that nothing needs.
fn summed(draft: &mut Draft<'_>, term: Term, needed: impl Fn(&Label) -> bool) -> Result<Term, Failure> {
    let axes: Vec<i64> =
        (0..term.labels.len()).filter(|&at| !needed(&term.labels[at])).map(|at| at as i64).collect();
    if axes.is_empty() {
        return Ok(term);
    }
    let axes = draft.list("axes", axes);
    let attrs = Attrs::new().with("keepdims", Attr::Int(0));
    let value = draft.node_with("ReduceSum", &attrs, &[term.value, axes])?;
    Ok(Term { value, labels: term.labels.into_iter().filter(|label| needed(label)).collect() })
}

/// The value with its axes in this order.
fn arranged(draft: &mut Draft<'_>, term: &Term, order: &[Label]) -> Made {
    if term.labels == order {
        return Ok(term.value);
    }
    let position = |label: &Label| term.labels.iter().position(|l| l == label).map(|at| at as i64);
    let perm: Option<Vec<i64>> = order.iter().map(position).collect();
    draft.transpose(term.value, &perm.unwrap_or_default())
}

/// Sizes of some axes.
fn extents(draft: &mut Draft<'_>, term: &Term, labels: &[Label]) -> Result<Vec<Extent>, Failure> {
    let mut sizes = Vec::with_capacity(labels.len());
    for label in labels {
        if let Some(axis) = term.labels.iter().position(|l| l == label) {
            sizes.push(draft.extent(term.value, axis)?);
        }
    }
    Ok(sizes)
}

/// The product of two terms, summed over the labels that both have and nothing else needs.
fn joined(
    draft: &mut Draft<'_>,
    left: &Term,
    right: &Term,
    needed: impl Fn(&Label) -> bool,
) -> Result<Term, Failure> {
    let shared = |keep: bool| {
        let both = left.labels.iter().copied().filter(|l| right.labels.contains(l));
        both.filter(|l| needed(l) == keep).collect::<Vec<Label>>()
    };
    let (batch, inner) = (shared(true), shared(false));
    let only =
        |a: &Term, b: &Term| a.labels.iter().copied().filter(|l| !b.labels.contains(l)).collect::<Vec<_>>();
    let (rows, columns) = (only(left, right), only(right, left));
    let labels = [batch.as_slice(), &rows, &columns].concat();
    let (a, b) = match inner.is_empty() {
        true => {
            let a = arranged(draft, left, &[batch.as_slice(), &rows].concat())?;
            let b = arranged(draft, right, &[batch.as_slice(), &columns].concat())?;
            let from = batch.len() as i64;
            let (m, n) = (rows.len() as i64, columns.len() as i64);
            (
                draft.unsqueeze(a, (from + m..from + m + n).collect())?,
                draft.unsqueeze(b, (from..from + m).collect())?,
            )
        }
        false => {
            let a = matrices(draft, left, &batch, [&rows, &inner])?;
            (a, matrices(draft, right, &batch, [&inner, &columns])?)
        }
    };
    if inner.is_empty() {
        return Ok(Term { value: draft.times(a, b)?, labels });
    }
    let product = draft.matmul(a, b)?;
    if rows.len() == 1 && columns.len() == 1 {
        return Ok(Term { value: product, labels });
    }
    let mut sizes = extents(draft, left, &batch)?;
    sizes.extend(extents(draft, left, &rows)?);
    sizes.extend(extents(draft, right, &columns)?);
    Ok(Term { value: draft.reshape_to(product, &sizes)?, labels })
}

/// A term as matrices: two groups of axes become one axis each, behind those of the batch.
fn matrices(draft: &mut Draft<'_>, term: &Term, batch: &[Label], groups: [&[Label]; 2]) -> Made {
    let value = arranged(draft, term, &[batch, groups[0], groups[1]].concat())?;
    if groups.iter().all(|group| group.len() == 1) {
        return Ok(value);
    }
    let mut sizes = extents(draft, term, batch)?;
    for group in groups {
        let parts = extents(draft, term, group)?;
        sizes.push(draft.extent_product(&parts)?);
    }
    draft.reshape_to(value, &sizes)
}
