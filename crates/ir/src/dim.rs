//! Symbolic dims: integer polynomials over named symbols, in a normal form.
//!
//! Two dims that are equal as polynomials are equal as values, so `2*n + n == 3*n` needs no prover.
//! What is not polynomial (floor division, min, max) becomes an opaque atom over normalized dims.
//!
//! A dim that would have more parts than [`MAX_PARTS`] becomes a symbol named after a hash of what it is: equal
//! expressions still have equal names, and the size is found when the value is there. Otherwise a few nodes that square
//! a shape could ask for more memory than there is.

use crate::text::escape;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::ops::{Add, Mul, Neg, Sub};
use std::sync::Arc;

/// Most atoms and terms of one dim, inner ones included.
pub const MAX_PARTS: usize = 1024;
/// What names of symbols start with that stand for a dim of more parts. Such a dim may be negative.
const LARGE: &str = "!";

/// One dim of a shape, or any integer computed from dims.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Dim(Repr);

#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Repr {
    Const(i64),
    /// Never a constant: at least one term has an atom.
    Poly(Arc<BTreeMap<Monomial, i64>>),
}

/// A product of atoms, sorted; empty for the constant term.
type Monomial = Vec<Atom>;

/// A factor that the polynomial normal form does not look into.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Atom {
    /// A named unknown, bound when the program runs.
    Symbol(Arc<str>),
    /// `floor(a / b)`, with b > 0 at run time.
    FloorDiv(Dim, Dim),
    /// The larger one.
    Max(Dim, Dim),
    /// The smaller one.
    Min(Dim, Dim),
}

/// A dim has no value under the given binding.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DimError {
    /// No value was given for a symbol.
    #[error("dim `{0}` is not known")]
    Unbound(String),
    /// A division by zero or less.
    #[error("dim expression `{0}` divides by {1}")]
    Division(String, i64),
    /// The value does not fit into 64 bits.
    #[error("dim expression `{0}` overflows")]
    Overflow(String),
}

impl Dim {
    /// A named unknown.
    pub fn symbol(name: impl Into<Arc<str>>) -> Self {
        Self::atom(Atom::Symbol(name.into()))
    }

    /// The value, if it has no unknowns.
    pub fn as_const(&self) -> Option<i64> {
        match self.0 {
            Repr::Const(value) => Some(value),
            Repr::Poly(_) => None,
        }
    }

    /// The value as a size, if it is known and not negative.
    pub fn as_usize(&self) -> Option<usize> {
        self.as_const().and_then(|value| usize::try_from(value).ok())
    }

    /// The name, if this is a bare symbol.
    pub fn as_symbol(&self) -> Option<&str> {
        let Repr::Poly(terms) = &self.0 else { return None };
        match terms.iter().next() {
            Some((atoms, 1)) if terms.len() == 1 => match atoms.as_slice() {
                [Atom::Symbol(name)] => Some(name),
                _ => None,
            },
            _ => None,
        }
    }

    /// True if the value is known to be `value`.
    pub fn is(&self, value: i64) -> bool {
        self.as_const() == Some(value)
    }

    /// `floor(self / divisor)`; exact parts are divided out, so `(4*n + 6) / 2` is `2*n + 3`.
    pub fn floor_div(&self, divisor: &Dim) -> Dim {
        if divisor.is(1) || self.is(0) {
            return self.clone();
        }
        if let (Some(a), Some(b)) = (self.as_const(), divisor.as_const()) {
            return match (a.checked_div_euclid(b), a.checked_rem_euclid(b)) {
                (Some(quotient), Some(rest)) => Dim::from(quotient - i64::from(b < 0 && rest != 0)),
                // Division by zero, or a quotient of 2^63: evaluation reports it.
                _ => Self::atom(Atom::FloorDiv(self.clone(), divisor.clone())),
            };
        }
        if self == divisor {
            return Dim::from(1);
        }
        let divisor_terms = divisor.terms();
        if divisor_terms.len() > 1
            && let Some(quotient) = self.multiple_of(divisor)
        {
            return quotient;
        }
        let (mut exact, mut rest) = (BTreeMap::new(), BTreeMap::new());
        for (atoms, coefficient) in self.terms() {
            let divided = match divisor_terms.as_slice() {
                [(by, by_coefficient)] if coefficient.checked_rem(*by_coefficient) == Some(0) => {
                    divide_monomial(&atoms, by).map(|left| (left, coefficient / by_coefficient))
                }
                _ => None,
            };
            match divided {
                Some((left, quotient)) => *exact.entry(left).or_insert(0) += quotient,
                None => *rest.entry(atoms).or_insert(0) += coefficient,
            }
        }
        let (exact, rest) = (Self::from_terms(exact), Self::from_terms(rest));
        if rest.is(0) {
            return exact;
        }
        match (rest.as_const(), divisor.as_const()) {
            (Some(a), Some(b)) if b > 0 => exact + Dim::from(a.div_euclid(b)),
            _ => exact + Self::atom(Atom::FloorDiv(rest, divisor.clone())),
        }
    }

    /// The single term `q` with `q * divisor == self`, if there is one.
    fn multiple_of(&self, divisor: &Dim) -> Option<Dim> {
        let (atoms, coefficient) = self.terms().pop()?;
        let (by, by_coefficient) = divisor.terms().pop()?;
        if by_coefficient == 0 || coefficient % by_coefficient != 0 {
            return None;
        }
        let term = BTreeMap::from([(divide_monomial(&atoms, &by)?, coefficient / by_coefficient)]);
        let quotient = Self::from_terms(term);
        (quotient.clone() * divisor.clone() == *self).then_some(quotient)
    }

    /// `ceil(self / divisor)` for a positive divisor.
    pub fn ceil_div(&self, divisor: &Dim) -> Dim {
        (self.clone() + divisor.clone() - Dim::from(1)).floor_div(divisor)
    }

    /// `self - divisor * floor(self / divisor)`.
    pub fn modulo(&self, divisor: &Dim) -> Dim {
        self.clone() - divisor.clone() * self.floor_div(divisor)
    }

    /// The larger of two dims.
    pub fn maximum(&self, other: &Dim) -> Dim {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference >= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Self::atom(Atom::Max(a.clone(), b.clone()))
            }
        }
    }

    /// The smaller of two dims.
    pub fn minimum(&self, other: &Dim) -> Dim {
        match (self.clone() - other.clone()).as_const() {
            Some(difference) if difference <= 0 => self.clone(),
            Some(_) => other.clone(),
            None => {
                let (a, b) = if self <= other { (self, other) } else { (other, self) };
                Self::atom(Atom::Min(a.clone(), b.clone()))
            }
        }
    }

    /// The value when each symbol has the value that `lookup` gives.
    ///
    /// **Errors**: an unbound symbol, a division by zero or less, an overflow.
    pub fn eval(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, DimError> {
        let overflow = || DimError::Overflow(self.to_string());
        let mut sum = 0i64;
        for (atoms, coefficient) in self.terms() {
            let mut product = coefficient;
            for atom in &atoms {
                let value = atom.eval(lookup)?;
                product = product.checked_mul(value).ok_or_else(overflow)?;
            }
            sum = sum.checked_add(product).ok_or_else(overflow)?;
        }
        Ok(sum)
    }

    /// The dim with symbols replaced by what `lookup` gives for them.
    pub fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        let Repr::Poly(terms) = &self.0 else { return self.clone() };
        let mut sum = Dim::from(0);
        for (atoms, coefficient) in terms.iter() {
            let product =
                atoms.iter().fold(Dim::from(*coefficient), |product, atom| product * atom.substitute(lookup));
            sum = sum + product;
        }
        sum
    }

    /// Calls `visit` with the name of every symbol in the dim, inner expressions included.
    pub fn for_each_symbol(&self, visit: &mut dyn FnMut(&Arc<str>)) {
        let Repr::Poly(terms) = &self.0 else { return };
        for atom in terms.keys().flatten() {
            match atom {
                Atom::Symbol(name) => visit(name),
                Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => {
                    a.for_each_symbol(visit);
                    b.for_each_symbol(visit);
                }
            }
        }
    }

    /// The terms: products of atoms and their coefficients, in a fixed order. The constant term has no atoms.
    pub fn terms(&self) -> Vec<(Vec<Atom>, i64)> {
        match &self.0 {
            Repr::Const(value) => vec![(Vec::new(), *value)],
            Repr::Poly(terms) => terms.iter().map(|(atoms, c)| (atoms.clone(), *c)).collect(),
        }
    }

    fn term_count(&self) -> usize {
        match &self.0 {
            Repr::Const(_) => 1,
            Repr::Poly(terms) => terms.len(),
        }
    }

    fn atom(atom: Atom) -> Self {
        Self::bounded(BTreeMap::from([(vec![atom], 1)]))
    }

    fn from_terms(mut terms: BTreeMap<Monomial, i64>) -> Self {
        terms.retain(|_, coefficient| *coefficient != 0);
        match terms.iter().next() {
            None => Dim(Repr::Const(0)),
            Some((atoms, value)) if terms.len() == 1 && atoms.is_empty() => Dim(Repr::Const(*value)),
            _ => Self::bounded(terms),
        }
    }

    fn bounded(terms: BTreeMap<Monomial, i64>) -> Self {
        let mut left = MAX_PARTS;
        match take_parts(&terms, &mut left) {
            true => Dim(Repr::Poly(Arc::new(terms))),
            false => Self::large(&terms),
        }
    }

    /// A symbol for something that has too many parts, by its contents.
    fn large(contents: &impl Hash) -> Self {
        let hash = |salt: u64| {
            let mut hasher = DefaultHasher::new();
            salt.hash(&mut hasher);
            contents.hash(&mut hasher);
            hasher.finish()
        };
        let name: Arc<str> = format!("{LARGE}{:016x}{:016x}", hash(1), hash(2)).into();
        Dim(Repr::Poly(Arc::new(BTreeMap::from([(vec![Atom::Symbol(name)], 1)]))))
    }
}

/// True if the terms have at most as many parts as are left, which become fewer.
fn take_parts(terms: &BTreeMap<Monomial, i64>, left: &mut usize) -> bool {
    let of_dim = |dim: &Dim, left: &mut usize| match &dim.0 {
        Repr::Const(_) => true,
        Repr::Poly(terms) => take_parts(terms, left),
    };
    terms.keys().all(|atoms| {
        let Some(rest) = left.checked_sub(1 + atoms.len()) else { return false };
        *left = rest;
        atoms.iter().all(|atom| match atom {
            Atom::Symbol(_) => true,
            Atom::FloorDiv(a, b) | Atom::Max(a, b) | Atom::Min(a, b) => of_dim(a, left) && of_dim(b, left),
        })
    })
}

/// `atoms / by`, if every atom of `by` is in `atoms`.
fn divide_monomial(atoms: &[Atom], by: &[Atom]) -> Option<Monomial> {
    let mut left = atoms.to_vec();
    for atom in by {
        let at = left.iter().position(|a| a == atom)?;
        left.remove(at);
    }
    Some(left)
}

impl Atom {
    /// True for a symbol that stands for an expression of too many parts: unlike a size, it may be negative.
    pub fn is_large(&self) -> bool {
        matches!(self, Atom::Symbol(name) if is_reserved(name))
    }

    fn eval(&self, lookup: &dyn Fn(&str) -> Option<i64>) -> Result<i64, DimError> {
        match self {
            Atom::Symbol(name) => lookup(name).ok_or_else(|| DimError::Unbound(name.to_string())),
            Atom::FloorDiv(a, b) => match (a.eval(lookup)?, b.eval(lookup)?) {
                (a, b) if b > 0 => Ok(a.div_euclid(b)),
                (_, b) => Err(DimError::Division(format!("{self}"), b)),
            },
            Atom::Max(a, b) => Ok(a.eval(lookup)?.max(b.eval(lookup)?)),
            Atom::Min(a, b) => Ok(a.eval(lookup)?.min(b.eval(lookup)?)),
        }
    }

    fn substitute(&self, lookup: &dyn Fn(&str) -> Option<Dim>) -> Dim {
        match self {
            Atom::Symbol(name) => lookup(name).unwrap_or_else(|| Dim::atom(self.clone())),
            Atom::FloorDiv(a, b) => a.substitute(lookup).floor_div(&b.substitute(lookup)),
            Atom::Max(a, b) => a.substitute(lookup).maximum(&b.substitute(lookup)),
            Atom::Min(a, b) => a.substitute(lookup).minimum(&b.substitute(lookup)),
        }
    }
}

impl Default for Dim {
    /// Zero.
    fn default() -> Self {
        Dim(Repr::Const(0))
    }
}

impl From<i64> for Dim {
    fn from(value: i64) -> Self {
        Dim(Repr::Const(value))
    }
}

impl From<i32> for Dim {
    fn from(value: i32) -> Self {
        Dim::from(i64::from(value))
    }
}

impl From<usize> for Dim {
    fn from(value: usize) -> Self {
        Dim(Repr::Const(i64::try_from(value).unwrap_or(i64::MAX)))
    }
}

// Saturating: a constant that large is no size of anything; whoever allocates checks.
impl Add for Dim {
    type Output = Dim;
    fn add(self, other: Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return Dim::from(a.saturating_add(b));
        }
        let mut terms: BTreeMap<Monomial, i64> = self.terms().into_iter().collect();
        for (atoms, coefficient) in other.terms() {
            let sum = terms.entry(atoms).or_insert(0);
            *sum = sum.saturating_add(coefficient);
        }
        Dim::from_terms(terms)
    }
}

impl Mul for Dim {
    type Output = Dim;
    fn mul(self, other: Dim) -> Dim {
        if let (Some(a), Some(b)) = (self.as_const(), other.as_const()) {
            return Dim::from(a.saturating_mul(b));
        }
        let mut terms: BTreeMap<Monomial, i64> = BTreeMap::new();
        let right = other.terms();
        if self.term_count() * right.len() > MAX_PARTS {
            let (a, b) = if self <= other { (self, other) } else { (other, self) };
            return Dim::large(&("*", a, b));
        }
        for (left_atoms, left) in self.terms() {
            for (right_atoms, right) in &right {
                let mut atoms = left_atoms.clone();
                atoms.extend(right_atoms.iter().cloned());
                atoms.sort();
                let sum = terms.entry(atoms).or_insert(0);
                *sum = sum.saturating_add(left.saturating_mul(*right));
            }
        }
        Dim::from_terms(terms)
    }
}

impl Neg for Dim {
    type Output = Dim;
    fn neg(self) -> Dim {
        self * Dim::from(-1)
    }
}

impl Sub for Dim {
    type Output = Dim;
    fn sub(self, other: Dim) -> Dim {
        self + -other
    }
}

impl<'a> std::iter::Product<&'a Dim> for Dim {
    fn product<I: Iterator<Item = &'a Dim>>(dims: I) -> Dim {
        dims.fold(Dim::from(1), |product, dim| product * dim.clone())
    }
}

impl fmt::Display for Dim {
    /// `2*n*m + floordiv(n, 2) - 1`; the text parser reads the same form.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut terms = self.terms();
        // The constant sorts first; people write it last.
        if terms.len() > 1 && terms[0].0.is_empty() {
            terms.rotate_left(1);
        }
        for (index, (atoms, coefficient)) in terms.iter().enumerate() {
            let magnitude = coefficient.unsigned_abs();
            match (index, *coefficient < 0) {
                (0, false) => {}
                (0, true) => write!(f, "-")?,
                (_, false) => write!(f, " + ")?,
                (_, true) => write!(f, " - ")?,
            }
            if atoms.is_empty() || magnitude != 1 {
                write!(f, "{magnitude}")?;
            }
            for (at, atom) in atoms.iter().enumerate() {
                let star = if at > 0 || magnitude != 1 { "*" } else { "" };
                write!(f, "{star}{atom}")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Atom::Symbol(name) if is_identifier(name) => write!(f, "{name}"),
            Atom::Symbol(name) => write!(f, "`{}`", escape(name, '`')),
            Atom::FloorDiv(a, b) => write!(f, "floordiv({a}, {b})"),
            Atom::Max(a, b) => write!(f, "max({a}, {b})"),
            Atom::Min(a, b) => write!(f, "min({a}, {b})"),
        }
    }
}

/// True if symbols of this name stand for expressions of too many parts, so that nothing else may be called so.
pub fn is_reserved(name: &str) -> bool {
    name.starts_with(LARGE)
}

fn is_identifier(name: &str) -> bool {
    let mut chars = name.chars();
    let reserved = matches!(name, "floordiv" | "max" | "min");
    !reserved
        && chars.next().is_some_and(|c| c.is_ascii_alphabetic() || c == '_')
        && chars.all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '.')
}

impl fmt::Debug for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn n() -> Dim {
        Dim::symbol("n")
    }

    #[test]
    fn polynomials_have_a_normal_form() {
        assert_eq!(n() * Dim::from(2) + n(), Dim::from(3) * n());
        assert_eq!(n() - n(), Dim::from(0));
        assert_eq!((n() + Dim::from(1)) * n(), n() * n() + n());
    }

    #[test]
    fn large_dims_become_symbols_by_their_contents() {
        let sum = |from: usize, to: usize| {
            (from..to).map(|at| Dim::symbol(format!("n{at}"))).reduce(|a, b| a + b).unwrap()
        };
        let (a, b) = (sum(0, 40), sum(20, 60));
        let product = a.clone() * b.clone();
        assert!(product.as_symbol().is_some_and(is_reserved), "{product}");
        assert_eq!(product, b.clone() * a.clone());
        assert_ne!(product, a.clone() * a.clone());
        let mut dim = n();
        for _ in 0..64 {
            dim = dim.clone() * dim.clone();
            dim = dim.maximum(&(dim.floor_div(&Dim::from(3)) + n()));
        }
        assert!(dim.to_string().len() < 100_000);
        assert!(dim.eval(&|name| (!is_reserved(name)).then_some(2)).is_err());
    }

    #[test]
    fn exact_parts_divide_out() {
        let even = Dim::from(4) * n() + Dim::from(7);
        assert_eq!(even.floor_div(&Dim::from(2)), Dim::from(2) * n() + Dim::from(3));
        assert_eq!((n() * Dim::symbol("m")).floor_div(&n()), Dim::symbol("m"));
        assert_eq!(n().floor_div(&Dim::from(2)).to_string(), "floordiv(n, 2)");
        let sum = n() + Dim::from(3);
        assert_eq!((sum.clone() * Dim::from(2)).floor_div(&sum), Dim::from(2));
        assert_eq!(Dim::from(-7).floor_div(&Dim::from(2)), Dim::from(-4));
    }

    #[test]
    fn evaluates_and_prints() {
        let dim = (n() - Dim::from(1)).floor_div(&Dim::from(2)) + Dim::from(1);
        assert_eq!(dim.to_string(), "floordiv(n - 1, 2) + 1");
        assert_eq!(dim.eval(&|_| Some(6)), Ok(3));
        assert_eq!(dim.eval(&|_| None), Err(DimError::Unbound("n".into())));
        assert_eq!(dim.substitute(&|_| Some(Dim::from(6))), Dim::from(3));
    }
}
