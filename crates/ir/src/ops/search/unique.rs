//! `Unique`: the different elements of a tensor, or its different slices along `axis`.
//!
//! Results are: the unique elements `y` (of slices: a tensor like `x` that is shorter along `axis`); for each, the index
//! of its first occurrence; for each element of `x`, the index of its equal in `y`; for each unique element, how often it
//! occurs. They are in ascending order (slices: by their first element that differs), or with `sorted=0` in order of first
//! occurrence. NaN equals NaN and comes last; complex numbers are ordered by real part, then by imaginary part.
//!
//! **Dtypes**: all, strings too; the indices and counts are i64.
//!
//! **Opsets**: 11.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Unique.html>

use super::{float_order, wide_ints};
use crate::ops::movement::{element_count, row_major, strided};
use crate::ops::util::{arity, known_attrs, normalize_axis, required, required_tensor};
use crate::ops::{Gather, InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};
use std::cmp::Ordering;

/// `Unique`.
#[derive(Clone, Debug, PartialEq)]
pub struct Unique {
    /// Axis whose slices are compared; without it, elements are.
    pub axis: Option<i64>,
    /// Results are in ascending order.
    pub sorted: bool,
}

/// For each element, how many different ones are less.
fn ranks_by<T>(items: &[T], order: impl Fn(&T, &T) -> Ordering) -> Vec<usize> {
    let mut sorted: Vec<usize> = (0..items.len()).collect();
    sorted.sort_by(|&a, &b| order(&items[a], &items[b]));
    let mut ranks = vec![0; items.len()];
    let mut rank = 0;
    for pair in sorted.windows(2) {
        if let [before, at] = *pair {
            rank += usize::from(order(&items[before], &items[at]) != Ordering::Equal);
            ranks[at] = rank;
        }
    }
    ranks
}

/// For each element of a tensor, how many different ones are less.
fn ranks(x: &Tensor) -> Vec<usize> {
    if let Some(strings) = x.strings() {
        return ranks_by(strings, Ord::cmp);
    }
    if let Some(parts) = x.parts() {
        let values = parts.to_f64s();
        let pairs: Vec<&[f64]> = values.chunks_exact(2).collect();
        return ranks_by(&pairs, |a, b| float_order(a[0], b[0]).then(float_order(a[1], b[1])));
    }
    match x.dtype().is_float() {
        true => ranks_by(&x.to_f64s(), |a, b| float_order(*a, *b)),
        false => ranks_by(&wide_ints(x), Ord::cmp),
    }
}

/// Which of several slices are the same.
struct Classes {
    /// First occurrence of each unique slice.
    first: Vec<i64>,
    /// For each slice, which unique one it is.
    inverse: Vec<i64>,
    /// How often each unique slice occurs.
    counts: Vec<i64>,
}

impl Classes {
    /// Of `count` slices; `rank_of(slice)` is the rank of a slice among all.
    fn new(ranks: &[usize], sorted: bool) -> Self {
        let mut order: Vec<usize> = (0..ranks.len()).collect();
        order.sort_by_key(|&at| ranks[at]);
        let mut classes: Vec<Vec<usize>> = Vec::new();
        for at in order {
            match classes.last_mut() {
                Some(class) if class.first().is_some_and(|&first| ranks[first] == ranks[at]) => {
                    class.push(at)
                }
                _ => classes.push(vec![at]),
            }
        }
        if !sorted {
            classes.sort_by_key(|class| class.first().copied());
        }
        let mut inverse = vec![0; ranks.len()];
        for (index, class) in classes.iter().enumerate() {
            class.iter().for_each(|&at| inverse[at] = index as i64);
        }
        let first = classes.iter().filter_map(|class| class.first().map(|&at| at as i64)).collect();
        Classes { first, inverse, counts: classes.iter().map(|class| class.len() as i64).collect() }
    }
}

impl Unique {
    /// Rank of each slice along an axis, by the ranks of its elements.
    fn slice_ranks(x: &Tensor, axis: usize) -> Result<Vec<usize>, OpError> {
        let count = x.shape()[axis];
        let (mut shape, mut strides) = (x.shape().to_vec(), row_major(x.shape()));
        let along = (shape.remove(axis), strides.remove(axis));
        shape.insert(0, along.0);
        strides.insert(0, along.1);
        let length = element_count(&shape[1..])?;
        if length == 0 || count == 0 {
            return Ok(vec![0; count]);
        }
        let ordered = ranks(&strided(x, &shape, &strides, 0)?);
        let slices: Vec<&[usize]> = ordered.chunks_exact(length).collect();
        Ok(ranks_by(&slices, Ord::cmp))
    }
}

impl OpDef for Unique {
    const NAMES: &'static [&'static str] = &["Unique"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "sorted"])?;
        let axis = attrs.get("axis").map(|_| attrs.required_int("axis")).transpose()?;
        Ok(Unique { axis, sorted: attrs.int("sorted", 1)? != 0 })
    }
    fn name(&self) -> &'static str {
        "Unique"
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        if let Some(axis) = self.axis {
            attrs.set("axis", Attr::Int(axis));
        }
        if !self.sorted {
            attrs.set("sorted", Attr::Int(0));
        }
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        let count = cx.fresh();
        let (shape, all) = match self.axis {
            None => (vec![count.clone()], x.ty.elements()),
            Some(axis) => {
                let axis = normalize_axis(axis, x.rank())?;
                let mut shape = x.shape().to_vec();
                let all = std::mem::replace(&mut shape[axis], count.clone());
                (shape, all)
            }
        };
        let list = |length| Fact::of_type(DType::I64, vec![length]);
        Ok(vec![Fact::of_type(x.dtype(), shape), list(count.clone()), list(all), list(count)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        let flat;
        let (x, axis) = match self.axis {
            Some(axis) => (x, normalize_axis(axis, x.rank())?),
            None => {
                flat = x.reshaped(&[x.len()]).map_err(|e| OpError::Shape(e.to_string()))?;
                (&flat, 0)
            }
        };
        let classes = Classes::new(&Self::slice_ranks(x, axis)?, self.sorted);
        let list = |values: Vec<i64>| Tensor::from_vec(&[values.len()], values);
        let first = list(classes.first);
        let mut results = Gather { axis: axis as i64 }.eval(&[Some(x), Some(&first)])?;
        results.extend([first, list(classes.inverse), list(classes.counts)]);
        Ok(results)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{fact, infer, list, plain, with};

    fn all(op: &crate::Op, x: &Tensor) -> Vec<Tensor> {
        op.eval(&[Some(x)]).unwrap()
    }

    #[test]
    fn elements_in_both_orders() {
        let x = Tensor::from_vec(&[2, 3], vec![2f32, 1.0, 1.0, 3.0, 4.0, 3.0]);
        let sorted = all(&plain("Unique"), &x);
        assert_eq!(sorted[0], Tensor::from_vec(&[4], vec![1f32, 2.0, 3.0, 4.0]));
        assert_eq!(sorted[1..], [list(&[1, 0, 3, 4]), list(&[1, 0, 0, 2, 3, 2]), list(&[2, 1, 2, 1])]);
        let first = all(&with("Unique", Attrs::new().with("sorted", Attr::Int(0))), &x);
        assert_eq!(first[0], Tensor::from_vec(&[4], vec![2f32, 1.0, 3.0, 4.0]));
        assert_eq!(first[1..], [list(&[0, 1, 3, 4]), list(&[0, 1, 1, 2, 3, 2]), list(&[1, 2, 2, 1])]);
    }

    #[test]
    fn slices() {
        let x = Tensor::from_vec(&[3, 3], vec![1i32, 0, 1, 1, 0, 1, 2, 3, 2]);
        let rows = all(&with("Unique", Attrs::new().with("axis", Attr::Int(0))), &x);
        assert_eq!(rows[0], Tensor::from_vec(&[2, 3], vec![1i32, 0, 1, 2, 3, 2]));
        assert_eq!(rows[1..], [list(&[0, 2]), list(&[0, 0, 1]), list(&[2, 1])]);
        let columns = all(&with("Unique", Attrs::new().with("axis", Attr::Int(-1))), &x);
        assert_eq!(columns[0], Tensor::from_vec(&[3, 2], vec![0i32, 1, 0, 1, 3, 2]));
        assert_eq!(columns[1..], [list(&[1, 0]), list(&[1, 0, 1]), list(&[1, 2])]);
    }

    #[test]
    fn strings_nan_and_nothing() {
        let words = Tensor::from_strings(&[3], vec!["b".into(), "a".into(), "b".into()]);
        assert_eq!(all(&plain("Unique"), &words)[0].strings().unwrap(), ["a", "b"]);
        let nans = Tensor::from_vec(&[3], vec![f32::NAN, 1.0, f32::NAN]);
        assert_eq!(all(&plain("Unique"), &nans)[2], list(&[1, 0, 1]));
        let none = Tensor::from_vec::<u8>(&[0], vec![]);
        assert!(all(&plain("Unique"), &none).iter().all(Tensor::is_empty));
    }

    #[test]
    fn one_symbol_for_the_count() {
        let facts = infer(&plain("Unique"), &[&fact(DType::F32, &["n", "2"])]).unwrap();
        let types: Vec<String> = facts.iter().map(|fact| fact.ty.to_string()).collect();
        assert_eq!(types, ["f32[node.0]", "i64[node.0]", "i64[2*n]", "i64[node.0]"]);
    }
}
