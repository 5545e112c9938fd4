//! Reasoning over dims, for inference: signs, clamps, and contents of small integer values.
//!
//! Symbols stand for sizes, so they are never negative; that is all that is assumed.

use super::movement::broadcast_elements;
use crate::{Atom, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::DType;
use std::cmp::Ordering;

/// A value that the dim is never below, if one can be told.
fn lower_bound(dim: &Dim) -> Option<i64> {
    let mut sum = 0i64;
    for (atoms, coefficient) in dim.terms() {
        let least = match atoms.as_slice() {
            [] => 1,
            _ if coefficient < 0 => return None,
            [atom] => atom_lower_bound(atom)?,
            // A product is least where its factors are only if none is negative.
            atoms => atoms.iter().try_fold(1i64, |product, atom| {
                product.checked_mul(atom_lower_bound(atom).filter(|&bound| bound >= 0)?)
            })?,
        };
        sum = sum.checked_add(coefficient.checked_mul(least)?)?;
    }
    Some(sum)
}

fn atom_lower_bound(atom: &Atom) -> Option<i64> {
    match atom {
        atom if atom.is_large() => None,
        Atom::Symbol(_) => Some(0),
        Atom::FloorDiv(a, b) => {
            let bound = lower_bound(a)?;
            match b.as_const() {
                Some(b) if b > 0 => Some(bound.div_euclid(b)),
                _ => (bound >= 0).then_some(0),
            }
        }
        Atom::Max(a, b) => lower_bound(a).max(lower_bound(b)),
        Atom::Min(a, b) => Some(lower_bound(a)?.min(lower_bound(b)?)),
    }
}

/// True if the dim is known not to be negative.
pub(super) fn non_negative(dim: &Dim) -> bool {
    lower_bound(dim).is_some_and(|bound| bound >= 0)
}

/// How two dims compare whatever the symbols are, if that can be told.
pub(super) fn order(a: &Dim, b: &Dim) -> Option<Ordering> {
    let difference = a.clone() - b.clone();
    match difference.as_const() {
        Some(value) => Some(value.cmp(&0)),
        None if non_negative(&(difference.clone() - Dim::from(1))) => Some(Ordering::Greater),
        None if non_negative(&(-difference - Dim::from(1))) => Some(Ordering::Less),
        None => None,
    }
}

/// The smaller dim; without an opaque `min` where it can be told.
pub(super) fn minimum(a: &Dim, b: &Dim) -> Dim {
    match (a.clone() - b.clone(), b.clone() - a.clone()) {
        (_, over) if non_negative(&over) => a.clone(),
        (over, _) if non_negative(&over) => b.clone(),
        _ => a.minimum(b),
    }
}

/// The larger dim; without an opaque `max` where it can be told.
pub(super) fn maximum(a: &Dim, b: &Dim) -> Dim {
    match (a.clone() - b.clone(), b.clone() - a.clone()) {
        (over, _) if non_negative(&over) => a.clone(),
        (_, over) if non_negative(&over) => b.clone(),
        _ => a.maximum(b),
    }
}

/// The dim, or 0 where it is negative.
pub(super) fn at_least_zero(dim: &Dim) -> Dim {
    maximum(dim, &Dim::from(0))
}

/// The fact of a result with these contents, or without any where they are not known or would wrap around.
///
/// Contents are tracked for signed integers only: those of unsigned ones wrap where a dim goes below zero.
pub(super) fn with_elements(dtype: DType, shape: Vec<Dim>, elements: Option<Vec<Dim>>) -> Fact {
    let fits = |dim: &Dim| match (dim.as_const(), dtype.int_range()) {
        // Arithmetic on dims saturates, so a value at the very end may be a saturated one.
        (Some(value), Some((low, high))) => {
            value != i64::MAX && value != i64::MIN && i128::from(value) >= low && i128::from(value) <= high
        }
        (None, Some(_)) => true,
        (_, None) => false,
    };
    match elements {
        Some(elements) if dtype.is_signed_int() && elements.iter().all(fits) => {
            Fact::of_elements(dtype, shape, elements)
        }
        _ => Fact::of_type(dtype, shape),
    }
}

/// Contents of operands, broadcast to a shape, if all are known and few.
pub(super) fn broadcast_contents(facts: &[&Fact], shape: &[Dim]) -> Option<Vec<Vec<Dim>>> {
    let to: Vec<usize> = shape.iter().map(Dim::as_usize).collect::<Option<_>>()?;
    let count = to.iter().try_fold(1usize, |n, &d| n.checked_mul(d))?;
    if count > MAX_TRACKED_ELEMENTS {
        return None;
    }
    let contents = facts.iter().map(|fact| {
        let from = fact.ty.static_shape()?;
        let elements = fact.dims()?;
        Some(broadcast_elements(&elements, &from, &to))
    });
    contents.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_decide_clamps() {
        let n = Dim::symbol("n");
        let half = (n.clone() - Dim::from(1)).floor_div(&Dim::from(2)) + Dim::from(1);
        assert!(non_negative(&half));
        assert_eq!(at_least_zero(&half), half);
        assert_eq!(at_least_zero(&(n.clone() - Dim::from(1))).to_string(), "max(0, n - 1)");
        assert_eq!(minimum(&n, &(n.clone() + Dim::symbol("m"))), n);
        assert_eq!(order(&n, &Dim::from(-1)), Some(Ordering::Greater));
        assert_eq!(order(&n, &Dim::from(0)), None);
    }

    #[test]
    fn contents_that_would_wrap_are_dropped() {
        let fact = with_elements(DType::I32, vec![Dim::from(1)], Some(vec![Dim::from(1i64 << 40)]));
        assert_eq!(fact.elements, None);
    }
}
