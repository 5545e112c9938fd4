//! Applying a scalar function to every element, whatever the dtype.
//!
//! Floats are computed in f64 and rounded once to their dtype; integers exactly, then wrapped to their width.

use super::OpError;
use super::movement::{Walk, broadcast_shape, reserve};
use super::util::expect_dtype;
use crate::Fact;
use half::{bf16, f16};
use rabot_tensor::{DType, Element, Tensor};

/// Floats that arithmetic is defined for: 16, 32 and 64 bits.
pub(super) fn is_arithmetic_float(dtype: DType) -> bool {
    matches!(dtype, DType::F16 | DType::BF16 | DType::F32 | DType::F64)
}

/// Integers that arithmetic is defined for: 8 to 64 bits.
pub(super) fn is_arithmetic_int(dtype: DType) -> bool {
    dtype.is_int() && dtype.bits() >= 8
}

/// What ONNX calls all numeric types.
pub(super) fn is_numeric(dtype: DType) -> bool {
    is_arithmetic_float(dtype) || is_arithmetic_int(dtype)
}

/// Checks that an operand has the dtype of operand 0.
pub(super) fn same_dtype(slot: usize, fact: &Fact, first: &Fact) -> Result<(), OpError> {
    let expected = first.dtype();
    expect_dtype(slot, fact.dtype(), &format!("{expected}, as input 0"), |d| d == expected)
}

fn refused(tensor: &Tensor, expected: &str) -> OpError {
    OpError::DType { slot: 0, actual: tensor.dtype(), expected: expected.to_owned() }
}

/// The elements, as the type of the tensor's dtype. **Errors**: it is another one.
pub(super) fn elements<T: Element>(tensor: &Tensor) -> Result<std::borrow::Cow<'_, [T]>, OpError> {
    tensor.to_slice::<T>().map_err(|_| refused(tensor, T::DTYPE.name()))
}

/// An integer element without loss: `u64` does not fit into i64.
pub(super) fn wide<T: Element>(value: T) -> i128 {
    match T::DTYPE {
        DType::U64 => i128::from(value.to_i64() as u64),
        _ => i128::from(value.to_i64()),
    }
}

/// The low bits of an integer.
pub(super) fn wrap<T: Element>(value: i128) -> T {
    T::from_i64(value as i64)
}

fn map<T: Element>(tensor: &Tensor, f: impl Fn(T) -> T) -> Result<Tensor, OpError> {
    Ok(Tensor::from_vec(tensor.shape(), elements::<T>(tensor)?.iter().map(|&v| f(v)).collect()))
}

/// Applies a function to every element of a float tensor.
///
/// **Errors**: another dtype.
pub(super) fn map_floats(tensor: &Tensor, f: impl Fn(f64) -> f64) -> Result<Tensor, OpError> {
    match tensor.dtype() {
        DType::F32 => map(tensor, |v: f32| f(f64::from(v)) as f32),
        DType::F64 => map(tensor, f),
        DType::F16 => map(tensor, |v: f16| f16::from_f64(f(v.to_f64()))),
        DType::BF16 => map(tensor, |v: bf16| <bf16 as Element>::from_f64(f(v.to_f64()))),
        _ => Err(refused(tensor, "a float")),
    }
}

/// Applies a function to every element of an integer tensor; results wrap.
///
/// **Errors**: another dtype.
pub(super) fn map_ints(tensor: &Tensor, f: impl Fn(i128) -> i128) -> Result<Tensor, OpError> {
    fn go<T: Element>(tensor: &Tensor, f: impl Fn(i128) -> i128) -> Result<Tensor, OpError> {
        map(tensor, |v: T| wrap(f(wide(v))))
    }
    match tensor.dtype() {
        DType::I8 => go::<i8>(tensor, f),
        DType::U8 => go::<u8>(tensor, f),
        DType::I16 => go::<i16>(tensor, f),
        DType::U16 => go::<u16>(tensor, f),
        DType::I32 => go::<i32>(tensor, f),
        DType::U32 => go::<u32>(tensor, f),
        DType::I64 => go::<i64>(tensor, f),
        DType::U64 => go::<u64>(tensor, f),
        _ => Err(refused(tensor, "an integer")),
    }
}

/// `f(a, b)` over operands that the walk broadcasts, in row-major order.
pub(super) fn zip<A: Copy, B: Copy, R>(
    out: &mut Vec<R>,
    (a, b): (&[A], &[B]),
    walk: &Walk<2>,
    f: impl Fn(A, B) -> R,
) {
    walk.rows([0, 0], |[at_a, at_b], [step_a, step_b], len| {
        let (i, j) = (at_a as usize, at_b as usize);
        match (step_a, step_b) {
            (1, 1) => out.extend(a[i..i + len].iter().zip(&b[j..j + len]).map(|(&x, &y)| f(x, y))),
            (1, 0) => {
                let y = b[j];
                out.extend(a[i..i + len].iter().map(|&x| f(x, y)));
            }
            (0, 1) => {
                let x = a[i];
                out.extend(b[j..j + len].iter().map(|&y| f(x, y)));
            }
            _ => out.extend(
                (0..len as isize)
                    .map(|k| f(a[(at_a + k * step_a) as usize], b[(at_b + k * step_b) as usize])),
            ),
        }
    });
}

/// `f(a, b)` over the broadcast of two slices with shapes; gives the result and its shape.
///
/// **Errors**: the shapes do not broadcast.
pub(super) fn zip_broadcast<A: Copy, B: Copy, R>(
    (a, a_shape): (&[A], &[usize]),
    (b, b_shape): (&[B], &[usize]),
    f: impl Fn(A, B) -> R,
) -> Result<(Vec<usize>, Vec<R>), OpError> {
    let shape = broadcast_shape(&[a_shape, b_shape])?;
    let mut out = reserve(&shape)?;
    zip(&mut out, (a, b), &Walk::broadcast([a_shape, b_shape], &shape), f);
    Ok((shape, out))
}

fn zip_tensors<T: Element>(a: &Tensor, b: &Tensor, f: impl Fn(T, T) -> T) -> Result<Tensor, OpError> {
    let (left, right) = (elements::<T>(a)?, elements::<T>(b)?);
    let (shape, out) = zip_broadcast((&left, a.shape()), (&right, b.shape()), f)?;
    Ok(Tensor::from_vec(&shape, out))
}

/// Applies a function to pairs of elements of float tensors, with broadcasting.
///
/// **Errors**: other dtypes, or shapes that do not broadcast.
pub(super) fn zip_floats(a: &Tensor, b: &Tensor, f: impl Fn(f64, f64) -> f64) -> Result<Tensor, OpError> {
    match a.dtype() {
        DType::F32 => zip_tensors(a, b, |x: f32, y: f32| f(f64::from(x), f64::from(y)) as f32),
        DType::F64 => zip_tensors(a, b, f),
        DType::F16 => zip_tensors(a, b, |x: f16, y: f16| Element::from_f64(f(x.to_f64(), y.to_f64()))),
        DType::BF16 => zip_tensors(a, b, |x: bf16, y: bf16| Element::from_f64(f(x.to_f64(), y.to_f64()))),
        _ => Err(refused(a, "a float")),
    }
}

/// Applies a function to pairs of elements of integer tensors, with broadcasting; results wrap.
///
/// **Errors**: other dtypes, or shapes that do not broadcast.
pub(super) fn zip_ints(a: &Tensor, b: &Tensor, f: impl Fn(i128, i128) -> i128) -> Result<Tensor, OpError> {
    fn go<T: Element>(a: &Tensor, b: &Tensor, f: impl Fn(i128, i128) -> i128) -> Result<Tensor, OpError> {
        zip_tensors(a, b, |x: T, y: T| wrap(f(wide(x), wide(y))))
    }
    match a.dtype() {
        DType::I8 => go::<i8>(a, b, f),
        DType::U8 => go::<u8>(a, b, f),
        DType::I16 => go::<i16>(a, b, f),
        DType::U16 => go::<u16>(a, b, f),
        DType::I32 => go::<i32>(a, b, f),
        DType::U32 => go::<u32>(a, b, f),
        DType::I64 => go::<i64>(a, b, f),
        DType::U64 => go::<u64>(a, b, f),
        _ => Err(refused(a, "an integer")),
    }
}

/// The larger value; NaN if either is, and 0 rather than -0.
pub(super) fn float_max(a: f64, b: f64) -> f64 {
    if a.is_nan() || b.is_nan() {
        f64::NAN
    } else if a == 0.0 && b == 0.0 {
        if a.is_sign_negative() { b } else { a }
    } else if a > b {
        a
    } else {
        b
    }
}

/// The smaller value; NaN if either is, and -0 rather than 0.
pub(super) fn float_min(a: f64, b: f64) -> f64 {
    -float_max(-a, -b)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn maximum_and_minimum_follow_ieee() {
        assert!(float_max(f64::NAN, 1.0).is_nan() && float_min(1.0, f64::NAN).is_nan());
        assert_eq!(float_max(-0.0, 0.0).to_bits(), 0);
        assert_eq!(float_min(0.0, -0.0).to_bits(), (-0.0f64).to_bits());
        assert_eq!(float_min(2.0, -3.0), -3.0);
    }

    #[test]
    fn unsigned_64_bit_values_are_exact() {
        let tensor = Tensor::from_vec(&[2], vec![u64::MAX, 3]);
        let halved = map_ints(&tensor, |v| v / 2).unwrap();
        assert_eq!(halved.to_slice::<u64>().unwrap()[..], [u64::MAX / 2, 1]);
    }
}
