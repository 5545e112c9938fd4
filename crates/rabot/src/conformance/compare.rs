//! Whether a value is as expected, as ONNX's own runner asks.

use super::ulp::max_ulp;
use rabot_ir::{Datum, Map};
use rabot_tensor::{DType, Tensor};

/// How far a floating-point element may be from what is expected: `atol + rtol * |expected|`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Tolerance {
    /// Relative tolerance.
    pub rtol: f64,
    /// Absolute tolerance.
    pub atol: f64,
}

impl Default for Tolerance {
    /// Those of ONNX's suite.
    fn default() -> Self {
        Tolerance { rtol: 1e-3, atol: 1e-7 }
    }
}

/// Two units in the last place of bf16: the runner allows no less.
const BF16_RTOL: f64 = 1.0 / 64.0;

/// The result of a comparison.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Compared {
    /// What differs, to be put behind the name of the value; `None` if the value is as expected.
    pub problem: Option<String>,
    /// Largest error in units in the last place, if there are floating-point elements to compare.
    pub max_ulp: Option<u64>,
}

impl Compared {
    fn differs(problem: impl Into<String>) -> Self {
        Compared { problem: Some(problem.into()), max_ulp: None }
    }

    /// Takes in the result for a part of the value, `place` of it.
    fn take(&mut self, place: &str, part: Compared) {
        self.max_ulp = self.max_ulp.max(part.max_ulp);
        if self.problem.is_none() {
            self.problem = part.problem.map(|problem| format!("{place}{problem}"));
        }
    }
}

/// Compares a value with what is expected: kind, dtype and shape must be equal, integers, booleans and strings too.
/// Floating-point elements must be within the tolerance, which is computed in their dtype; NaN equals NaN, and an
/// infinity only itself.
pub fn compare(actual: &Datum, expected: &Datum, tolerance: Tolerance) -> Compared {
    match (actual, expected) {
        (Datum::Tensor(actual), Datum::Tensor(expected)) => tensors(actual, expected, tolerance),
        (Datum::Sequence(actual), Datum::Sequence(expected)) if actual.len() == expected.len() => {
            let mut compared = Compared::default();
            for (at, (actual, expected)) in actual.iter().zip(expected.iter()).enumerate() {
                compared.take(&format!(", element {at}"), compare(actual, expected, tolerance));
            }
            compared
        }
        (Datum::Optional(None), Datum::Optional(None)) => Compared::default(),
        (Datum::Optional(Some(actual)), Datum::Optional(Some(expected))) => {
            compare(actual, expected, tolerance)
        }
        (Datum::Map(actual), Datum::Map(expected)) => maps(actual, expected, tolerance),
        _ => Compared::differs(format!(" is {actual}, expected {expected}")),
    }
}

/// Maps are the same in any order.
fn maps(actual: &Map, expected: &Map, tolerance: Tolerance) -> Compared {
    let order = |keys: &Tensor| {
        let mut order: Vec<usize> = (0..keys.len()).collect();
        match keys.strings() {
            Some(strings) => order.sort_by_key(|&at| strings.get(at)),
            None => {
                let numbers = keys.to_i64s();
                order.sort_by_key(|&at| numbers.get(at).copied());
            }
        }
        order
    };
    let mut compared = Compared::default();
    for (what, actual_part, expected_part) in
        [("keys", &actual.keys, &expected.keys), ("values", &actual.values, &expected.values)]
    {
        let picked =
            (picked(actual_part, &order(&actual.keys)), picked(expected_part, &order(&expected.keys)));
        match picked {
            (Some(actual), Some(expected)) => {
                compared.take(&format!(", its {what}"), tensors(&actual, &expected, tolerance));
            }
            _ => compared.take("", Compared::differs(format!(", its {what}: not as many values as keys"))),
        }
    }
    compared
}

/// Elements of a tensor of rank 1 in this order; `None` if there are not as many.
fn picked(tensor: &Tensor, order: &[usize]) -> Option<Tensor> {
    if tensor.len() != order.len() {
        return None;
    }
    if let Some(strings) = tensor.strings() {
        let strings = order.iter().map(|&at| strings.get(at).cloned()).collect::<Option<Vec<_>>>()?;
        return Some(Tensor::from_strings(&[order.len()], strings));
    }
    let width = tensor.dtype().size_bytes();
    let mut bytes = Vec::with_capacity(tensor.bytes().len());
    for &at in order {
        bytes.extend_from_slice(tensor.bytes().get(at * width..(at + 1) * width)?);
    }
    Tensor::from_bytes(tensor.dtype(), &[order.len()], bytes.into()).ok()
}

fn tensors(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Compared {
    let same_type = actual.dtype() == expected.dtype() && actual.shape() == expected.shape();
    if !same_type {
        return Compared::differs(format!(
            " is {}{:?}, expected {}{:?}",
            actual.dtype(),
            actual.shape(),
            expected.dtype(),
            expected.shape()
        ));
    }
    let wrong = match expected.dtype() {
        DType::String => strings_that_differ(actual, expected),
        DType::C64 | DType::C128 => complex_that_differ(actual, expected, tolerance),
        dtype if dtype.is_float() => floats_that_differ(actual, expected, tolerance),
        dtype => {
            let width = dtype.size_bytes().max(1);
            let pairs = actual.bytes().chunks_exact(width).zip(expected.bytes().chunks_exact(width));
            positions(pairs.map(|(a, e)| a != e))
        }
    };
    let problem = wrong.first().map(|&first| {
        let (count, of) = (wrong.len(), expected.len());
        let place = place(first, expected.shape());
        let (a, e) = (shown(actual, first), shown(expected, first));
        format!(": {count} of {of} elements differ, the first at {place}: {a}, expected {e}")
    });
    Compared { problem, max_ulp: max_ulp(actual, expected) }
}

fn positions(differ: impl Iterator<Item = bool>) -> Vec<usize> {
    differ.enumerate().filter(|(_, differs)| *differs).map(|(at, _)| at).collect()
}

fn strings_that_differ(actual: &Tensor, expected: &Tensor) -> Vec<usize> {
    let pair = (actual.strings().unwrap_or_default(), expected.strings().unwrap_or_default());
    positions(pair.0.iter().zip(pair.1).map(|(a, e)| a != e))
}

/// As `numpy.isclose`, whose every operation rounds to the dtype of its operands.
fn floats_that_differ(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Vec<usize> {
    let dtype = expected.dtype();
    let rtol = if dtype == DType::BF16 { tolerance.rtol.max(BF16_RTOL) } else { tolerance.rtol };
    // The runner compares bf16 as f32, and numpy has no narrower type than f64 for the other short ones.
    let working = match dtype {
        DType::F16 => DType::F16,
        DType::F32 | DType::BF16 => DType::F32,
        _ => DType::F64,
    };
    let rounded = |values: Vec<f64>| Tensor::from_f64s(working, &[values.len()], &values).to_f64s();
    let (a, e) = (actual.to_f64s(), expected.to_f64s());
    let limits = rounded(vec![rtol, tolerance.atol]);
    let (rtol, atol) = (limits[0], limits[1]);
    let scaled = rounded(e.iter().map(|e| rtol * e.abs()).collect());
    let allowed = rounded(scaled.iter().map(|scaled| atol + scaled).collect());
    let off = rounded(a.iter().zip(&e).map(|(a, e)| (a - e).abs()).collect());
    let values = a.iter().zip(&e).zip(off.iter().zip(&allowed));
    positions(values.map(|((a, e), (off, allowed))| {
        let close = off <= allowed && e.is_finite();
        !(close || a == e || a.is_nan() && e.is_nan())
    }))
}

fn complex_that_differ(actual: &Tensor, expected: &Tensor, tolerance: Tolerance) -> Vec<usize> {
    let parts = |tensor: &Tensor| tensor.parts().map_or_else(Vec::new, |parts| parts.to_f64s());
    let (a, e) = (parts(actual), parts(expected));
    let pairs = a.chunks_exact(2).zip(e.chunks_exact(2));
    positions(pairs.map(|(a, e)| {
        let off = (a[0] - e[0]).hypot(a[1] - e[1]);
        let size = e[0].hypot(e[1]);
        let close = off <= tolerance.atol + tolerance.rtol * size && e.iter().all(|e| e.is_finite());
        let is_nan = |number: &[f64]| number.iter().any(|part| part.is_nan());
        !(close || a == e || is_nan(a) && is_nan(e))
    }))
}

/// Coordinates of an element, as text.
fn place(at: usize, shape: &[usize]) -> String {
    let mut left = at;
    let mut place: Vec<usize> = Vec::with_capacity(shape.len());
    for &dim in shape.iter().rev() {
        place.push(left % dim.max(1));
        left /= dim.max(1);
    }
    place.reverse();
    format!("{place:?}")
}

fn shown(tensor: &Tensor, at: usize) -> String {
    let get = |values: &[f64], at: usize| values.get(at).map_or_else(String::new, |v| format!("{v:?}"));
    if let Some(strings) = tensor.strings() {
        return strings.get(at).map_or_else(String::new, |text| format!("{text:?}"));
    }
    if let Some(parts) = tensor.parts() {
        let parts = parts.to_f64s();
        return format!("({}, {})", get(&parts, 2 * at), get(&parts, 2 * at + 1));
    }
    match tensor.dtype() {
        DType::F32 => tensor.to_f64s().get(at).map_or_else(String::new, |&v| format!("{:?}", v as f32)),
        dtype if dtype.is_float() => get(&tensor.to_f64s(), at),
        DType::U64 => tensor.to_i64s().get(at).map_or_else(String::new, |&v| (v as u64).to_string()),
        _ => tensor.to_i64s().get(at).map_or_else(String::new, i64::to_string),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(dtype: DType, actual: f64, expected: f64) -> Option<String> {
        let of = |value| Datum::Tensor(Tensor::from_f64s(dtype, &[1], &[value]));
        compare(&of(actual), &of(expected), Tolerance::default()).problem
    }

    #[test]
    fn floats_are_compared_with_tolerance() {
        assert_eq!(problem(DType::F32, 1.0005, 1.0), None);
        assert_eq!(
            problem(DType::F32, 1.5, 1.0).unwrap(),
            ": 1 of 1 elements differ, the first at [0]: 1.5, expected 1.0"
        );
        assert_eq!(problem(DType::F32, f64::NAN, f64::NAN), None);
        assert!(problem(DType::F32, f64::NAN, 1.0).is_some());
        assert_eq!(problem(DType::F32, f64::INFINITY, f64::INFINITY), None);
        assert!(problem(DType::F32, f64::NEG_INFINITY, f64::INFINITY).is_some());
        assert!(problem(DType::F32, f64::from(f32::MAX), f64::INFINITY).is_some());
        // One step of f16 is within the tolerance, one of an f8 is not, two of bf16 are.
        assert_eq!(problem(DType::F16, 1.0 + 1.0 / 1024.0, 1.0), None);
        assert!(problem(DType::F8E5M2, 1.25, 1.0).is_some());
        assert_eq!(problem(DType::BF16, 1.0 + 1.0 / 64.0, 1.0), None);
        assert!(problem(DType::BF16, 1.0 + 3.0 / 128.0, 1.0).is_some());
    }

    #[test]
    fn everything_else_is_exact() {
        assert!(problem(DType::I32, 1_000_001.0, 1_000_000.0).is_some());
        let strings = |text: &str| Datum::Tensor(Tensor::from_strings(&[1], vec![text.to_owned()]));
        let tolerance = Tolerance::default();
        assert_eq!(compare(&strings("a"), &strings("a"), tolerance), Compared::default());
        assert!(compare(&strings("a"), &strings("b"), tolerance).problem.is_some());
        let (row, column) = (Tensor::zeros(DType::F32, &[1, 2]), Tensor::zeros(DType::F32, &[2, 1]));
        let problem = compare(&row.clone().into(), &column.into(), tolerance).problem.unwrap();
        assert_eq!(problem, " is f32[1, 2], expected f32[2, 1]");
        let ints = Tensor::zeros(DType::I32, &[1, 2]);
        assert!(compare(&row.into(), &ints.into(), tolerance).problem.is_some());
    }

    #[test]
    fn values_that_are_no_tensors() {
        let tolerance = Tolerance::default();
        let tensor = |value: f32| Datum::from(Tensor::scalar(value));
        let list = |values: &[f32]| Datum::sequence(values.iter().map(|&v| tensor(v)).collect());
        assert_eq!(compare(&list(&[1.0, 2.0]), &list(&[1.0, 2.0]), tolerance).problem, None);
        assert!(compare(&list(&[1.0]), &list(&[1.0, 2.0]), tolerance).problem.is_some());
        let problem = compare(&list(&[1.0, 3.0]), &list(&[1.0, 2.0]), tolerance).problem.unwrap();
        assert!(problem.starts_with(", element 1: 1 of 1"), "{problem}");
        let some = |value: f32| Datum::Optional(Some(Box::new(tensor(value))));
        assert_eq!(compare(&some(1.0), &some(1.0), tolerance).problem, None);
        assert!(compare(&some(1.0), &Datum::Optional(None), tolerance).problem.is_some());
        let map = |keys: [i64; 2], values: [f32; 2]| {
            let keys = Tensor::from_vec(&[2], keys.to_vec());
            Datum::Map(Map { keys, values: Tensor::from_vec(&[2], values.to_vec()) })
        };
        assert_eq!(compare(&map([1, 2], [5.0, 6.0]), &map([2, 1], [6.0, 5.0]), tolerance).problem, None);
        assert!(compare(&map([1, 2], [5.0, 6.0]), &map([2, 1], [5.0, 6.0]), tolerance).problem.is_some());
    }
}
