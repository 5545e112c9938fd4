//! Elementwise functions of two operands: `c = f(a, b)`.
//!
//! - `Add`, `Sub`, `Mul`, `Div`: arithmetic. Integers wrap; integer `Div` truncates toward zero.
//! - `Mod`: `a - b·⌊a/b⌋`, of the sign of `b`; with `fmod=1` C's `fmod`, of the sign of `a`.
//! - `Pow`: `a` to the power `b`, in the dtype of `a`.
//! - `PRelu(x, slope)`: `x` where `x ≥ 0`, else `slope·x`; `slope` broadcasts to `x`, not the other way.
//! - `Equal`, `Greater`, `GreaterOrEqual`, `Less`, `LessOrEqual` → bool. All are false for NaN.
//! - `And`, `Or`, `Xor` of bools; `BitwiseAnd`, `BitwiseOr`, `BitwiseXor` of integers.
//!
//! **Shapes**: broadcast by numpy's rule.
//!
//! **Dtypes**: both operands the same (`Pow` aside); arithmetic and order any number (`Pow`'s base f16, bf16, f32,
//! f64, i32, i64; `PRelu` no 8- and 16-bit integers), `Equal` bool and string too.
//!
//! **Opsets**: arithmetic 1, 7 (numpy broadcasting), 13, 14 (all integers); Pow 12 (two dtypes), 15; comparisons 1,
//! 7, 9, 11, 13, Equal 19 (strings), GreaterOrEqual and LessOrEqual 12, 16; Mod 10, 13, 28 (floats without
//! `fmod`); bitwise 18; PRelu 1, 7, 9, 16.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Add.html> and the pages of the other ops.

use super::elementwise::{
    elements, is_arithmetic_float, is_arithmetic_int, is_numeric, wide, zip_broadcast, zip_floats, zip_ints,
};
use super::movement::broadcast_shape;
use super::tracked::{broadcast_contents, non_negative, order, with_elements};
use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use half::{bf16, f16};
use rabot_tensor::{DType, Element, Tensor};
use std::cmp::Ordering;

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum BinaryOp {
    /// `Add`.
    Add,
    /// `And`.
    And,
    /// `BitwiseAnd`.
    BitwiseAnd,
    /// `BitwiseOr`.
    BitwiseOr,
    /// `BitwiseXor`.
    BitwiseXor,
    /// `Div`.
    Div,
    /// `Equal`.
    Equal,
    /// `Greater`.
    Greater,
    /// `GreaterOrEqual`.
    GreaterOrEqual,
    /// `Less`.
    Less,
    /// `LessOrEqual`.
    LessOrEqual,
    /// `Mul`.
    Mul,
    /// `Or`.
    Or,
    /// `PRelu`.
    PRelu,
    /// `Pow`.
    Pow,
    /// `Sub`.
    Sub,
    /// `Xor`.
    Xor,
    /// `Mod`.
    Mod {
        /// C's `fmod` (sign of the dividend) instead of Python's `%`.
        fmod: bool,
    },
}

/// Every function, with the defaults of its attributes.
const ALL: [BinaryOp; 18] = [
    BinaryOp::Add,
    BinaryOp::And,
    BinaryOp::BitwiseAnd,
    BinaryOp::BitwiseOr,
    BinaryOp::BitwiseXor,
    BinaryOp::Div,
    BinaryOp::Equal,
    BinaryOp::Greater,
    BinaryOp::GreaterOrEqual,
    BinaryOp::Less,
    BinaryOp::LessOrEqual,
    BinaryOp::Mul,
    BinaryOp::Or,
    BinaryOp::PRelu,
    BinaryOp::Pow,
    BinaryOp::Sub,
    BinaryOp::Xor,
    BinaryOp::Mod { fmod: false },
];

impl BinaryOp {
    /// ONNX name of the op.
    pub const fn name(self) -> &'static str {
        match self {
            BinaryOp::Add => "Add",
            BinaryOp::And => "And",
            BinaryOp::BitwiseAnd => "BitwiseAnd",
            BinaryOp::BitwiseOr => "BitwiseOr",
            BinaryOp::BitwiseXor => "BitwiseXor",
            BinaryOp::Div => "Div",
            BinaryOp::Equal => "Equal",
            BinaryOp::Greater => "Greater",
            BinaryOp::GreaterOrEqual => "GreaterOrEqual",
            BinaryOp::Less => "Less",
            BinaryOp::LessOrEqual => "LessOrEqual",
            BinaryOp::Mul => "Mul",
            BinaryOp::Or => "Or",
            BinaryOp::PRelu => "PRelu",
            BinaryOp::Pow => "Pow",
            BinaryOp::Sub => "Sub",
            BinaryOp::Xor => "Xor",
            BinaryOp::Mod { .. } => "Mod",
        }
    }

    /// True if the result is bool whatever the operands are.
    pub fn is_comparison(self) -> bool {
        self.accepts().is_some()
    }

    /// For a comparison: which orders of the operands make it true.
    fn accepts(self) -> Option<fn(Option<Ordering>) -> bool> {
        Some(match self {
            BinaryOp::Equal => |o| o == Some(Ordering::Equal),
            BinaryOp::Greater => |o| o == Some(Ordering::Greater),
            BinaryOp::GreaterOrEqual => |o| matches!(o, Some(Ordering::Greater | Ordering::Equal)),
            BinaryOp::Less => |o| o == Some(Ordering::Less),
            BinaryOp::LessOrEqual => |o| matches!(o, Some(Ordering::Less | Ordering::Equal)),
            _ => return None,
        })
    }

    /// What operand 0 may be, in words and as a test.
    fn operand(self) -> (&'static str, fn(DType) -> bool) {
        match self {
            BinaryOp::And | BinaryOp::Or | BinaryOp::Xor => ("bool", |d| d == DType::Bool),
            BinaryOp::BitwiseAnd | BinaryOp::BitwiseOr | BinaryOp::BitwiseXor => {
                ("an integer", is_arithmetic_int)
            }
            BinaryOp::Equal => {
                ("a number, bool or string", |d| is_numeric(d) || matches!(d, DType::Bool | DType::String))
            }
            BinaryOp::Pow => {
                ("a float, i32 or i64", |d| is_arithmetic_float(d) || matches!(d, DType::I32 | DType::I64))
            }
            BinaryOp::PRelu => ("a float, i32, i64, u32 or u64", |d| {
                is_arithmetic_float(d) || matches!(d, DType::I32 | DType::I64 | DType::U32 | DType::U64)
            }),
            _ => ("a number", is_numeric),
        }
    }

    /// The function on dims, where the result is one again.
    fn on_dims(self, a: &Dim, b: &Dim) -> Option<Dim> {
        let constants = a.as_const().zip(b.as_const());
        // Floor and truncation agree for these.
        let divides = non_negative(a) && non_negative(b) && !b.is(0);
        match (self, constants) {
            (BinaryOp::Add, _) => Some(a.clone() + b.clone()),
            (BinaryOp::Sub, _) => Some(a.clone() - b.clone()),
            (BinaryOp::Mul, _) => Some(a.clone() * b.clone()),
            (BinaryOp::Div, Some((a, b))) => a.checked_div(b).map(Dim::from),
            (BinaryOp::Mod { fmod: true }, Some((a, b))) => a.checked_rem(b).map(Dim::from),
            (BinaryOp::Mod { fmod: false }, Some((a, b))) => {
                let rest = a.checked_rem(b)?;
                Some(Dim::from(if rest != 0 && (rest < 0) != (b < 0) { rest + b } else { rest }))
            }
            (BinaryOp::Div, None) if divides => Some(a.floor_div(b)),
            (BinaryOp::Mod { .. }, None) if divides => Some(a.modulo(b)),
            _ => None,
        }
    }
}

/// Elementwise function of two operands, with broadcasting.
#[derive(Clone, Debug, PartialEq)]
pub struct Binary {
    /// The function.
    pub op: BinaryOp,
}

impl Binary {
    fn check(&self, a: DType, b: DType) -> Result<(), OpError> {
        let (expected, allowed) = self.op.operand();
        expect_dtype(0, a, expected, allowed)?;
        match self.op {
            BinaryOp::Pow => expect_dtype(1, b, "a number", is_numeric),
            _ => expect_dtype(1, b, &format!("{a}, as input 0"), |d| d == a),
        }
    }

    /// A comparison of values known as dims, if each is decided whatever the symbols are.
    fn compared(&self, contents: &[Vec<Dim>], shape: &[Dim]) -> Option<Tensor> {
        let accepts = self.op.accepts()?;
        let [left, right] = contents else { return None };
        let decided = left.iter().zip(right).map(|(a, b)| order(a, b).map(|o| accepts(Some(o))));
        let shape: Option<Vec<usize>> = shape.iter().map(Dim::as_usize).collect();
        Some(Tensor::from_bools(&shape?, &decided.collect::<Option<Vec<bool>>>()?))
    }

    fn eval_floats(&self, a: &Tensor, b: &Tensor) -> Option<Result<Tensor, OpError>> {
        Some(match self.op {
            BinaryOp::Add => zip_floats(a, b, |x, y| x + y),
            BinaryOp::Sub => zip_floats(a, b, |x, y| x - y),
            BinaryOp::Mul => zip_floats(a, b, |x, y| x * y),
            BinaryOp::Div => zip_floats(a, b, |x, y| x / y),
            BinaryOp::Mod { fmod: true } => zip_floats(a, b, libm::fmod),
            BinaryOp::Mod { fmod: false } => zip_floats(a, b, float_modulo),
            BinaryOp::PRelu => zip_floats(a, b, |x, slope| if x >= 0.0 { x } else { slope * x }),
            _ => return None,
        })
    }

    fn eval_ints(&self, a: &Tensor, b: &Tensor) -> Option<Result<Tensor, OpError>> {
        let divides = matches!(self.op, BinaryOp::Div | BinaryOp::Mod { .. });
        if divides && !a.is_empty() && b.to_i64s().contains(&0) {
            return Some(Err(OpError::Value(format!("integer {} by zero", self.op.name()))));
        }
        Some(match self.op {
            BinaryOp::Add => zip_ints(a, b, |x, y| x + y),
            BinaryOp::Sub => zip_ints(a, b, |x, y| x - y),
            BinaryOp::Mul => zip_ints(a, b, i128::wrapping_mul),
            BinaryOp::Div => zip_ints(a, b, |x, y| x / y),
            BinaryOp::Mod { fmod: true } => zip_ints(a, b, |x, y| x % y),
            BinaryOp::Mod { fmod: false } => zip_ints(a, b, |x, y| {
                let rest = x % y;
                if rest != 0 && (rest < 0) != (y < 0) { rest + y } else { rest }
            }),
            BinaryOp::PRelu => zip_ints(a, b, |x, y| if x >= 0 { x } else { x.wrapping_mul(y) }),
            BinaryOp::BitwiseAnd => zip_ints(a, b, |x, y| x & y),
            BinaryOp::BitwiseOr => zip_ints(a, b, |x, y| x | y),
            BinaryOp::BitwiseXor => zip_ints(a, b, |x, y| x ^ y),
            _ => return None,
        })
    }

    fn eval_bools(&self, a: &Tensor, b: &Tensor) -> Option<Result<Tensor, OpError>> {
        let f: fn(u8, u8) -> u8 = match self.op {
            BinaryOp::And => |x, y| u8::from(x != 0 && y != 0),
            BinaryOp::Or => |x, y| u8::from(x != 0 || y != 0),
            BinaryOp::Xor => |x, y| u8::from((x != 0) != (y != 0)),
            _ => return None,
        };
        let zipped = zip_broadcast((a.bytes(), a.shape()), (b.bytes(), b.shape()), f);
        Some(zipped.map(|(shape, out)| Tensor::from_raw(DType::Bool, &shape, out)))
    }
}

/// Python's `%`: the result has the sign of the divisor, zeros too.
fn float_modulo(x: f64, y: f64) -> f64 {
    let rest = libm::fmod(x, y);
    if rest == 0.0 {
        0f64.copysign(y)
    } else if (rest < 0.0) != (y < 0.0) {
        rest + y
    } else {
        rest
    }
}

/// Compares elements, with broadcasting.
fn compare(a: &Tensor, b: &Tensor, accepts: fn(Option<Ordering>) -> bool) -> Result<Tensor, OpError> {
    fn typed<T: Element>(
        a: &Tensor,
        b: &Tensor,
        accepts: fn(Option<Ordering>) -> bool,
    ) -> Result<Tensor, OpError> {
        of_slices((&elements::<T>(a)?, a.shape()), (&elements::<T>(b)?, b.shape()), accepts)
    }
    fn of_slices<T: Copy + PartialOrd>(
        a: (&[T], &[usize]),
        b: (&[T], &[usize]),
        accepts: fn(Option<Ordering>) -> bool,
    ) -> Result<Tensor, OpError> {
        let (shape, out) = zip_broadcast(a, b, |x: T, y: T| accepts(x.partial_cmp(&y)))?;
        Ok(Tensor::from_bools(&shape, &out))
    }
    match a.dtype() {
        DType::F32 => typed::<f32>(a, b, accepts),
        DType::F64 => typed::<f64>(a, b, accepts),
        DType::F16 => typed::<f16>(a, b, accepts),
        DType::BF16 => typed::<bf16>(a, b, accepts),
        DType::I8 => typed::<i8>(a, b, accepts),
        DType::U8 => typed::<u8>(a, b, accepts),
        DType::I16 => typed::<i16>(a, b, accepts),
        DType::U16 => typed::<u16>(a, b, accepts),
        DType::I32 => typed::<i32>(a, b, accepts),
        DType::U32 => typed::<u32>(a, b, accepts),
        DType::I64 => typed::<i64>(a, b, accepts),
        DType::U64 => typed::<u64>(a, b, accepts),
        DType::Bool => of_slices((a.bytes(), a.shape()), (b.bytes(), b.shape()), accepts),
        DType::String => {
            let texts = |t: &'_ Tensor| t.strings().map_or_else(Vec::new, <[String]>::to_vec);
            let (left, right) = (texts(a), texts(b));
            let left: Vec<&str> = left.iter().map(String::as_str).collect();
            let right: Vec<&str> = right.iter().map(String::as_str).collect();
            of_slices((&left, a.shape()), (&right, b.shape()), accepts)
        }
        other => Err(OpError::Unsupported(format!("comparison of {other}"))),
    }
}

/// An integer to an integer power, wrapping; what is below 1 in magnitude truncates to 0.
fn int_power(base: i128, exponent: i128) -> Option<i128> {
    if exponent < 0 {
        return match base {
            0 => None,
            1 => Some(1),
            -1 => Some(if exponent % 2 == 0 { 1 } else { -1 }),
            _ => Some(0),
        };
    }
    let (mut result, mut square, mut left) = (1i128, base, exponent);
    while left > 0 {
        if left & 1 == 1 {
            result = result.wrapping_mul(square);
        }
        square = square.wrapping_mul(square);
        left >>= 1;
    }
    Some(result)
}

fn float_power(base: f64, exponent: f64) -> f64 {
    // Exact for every dtype but f64, and there as exact as `pow`.
    if exponent == 2.0 { base * base } else { libm::pow(base, exponent) }
}

fn power(a: &Tensor, b: &Tensor) -> Result<Tensor, OpError> {
    if a.dtype().is_int() && b.dtype().is_int() {
        let exponents: Vec<i128> = match b.dtype() {
            DType::U64 => elements::<u64>(b)?.iter().map(|&v| wide(v)).collect(),
            _ => b.to_i64s().into_iter().map(i128::from).collect(),
        };
        let bases = a.to_i64s();
        let power = |x: i64, y: i128| int_power(i128::from(x), y).map(|v| v as i64);
        let (shape, out) = zip_broadcast((&bases, a.shape()), (&exponents, b.shape()), power)?;
        let out: Option<Vec<i64>> = out.into_iter().collect();
        let out = out.ok_or_else(|| OpError::Value("integer 0 to a negative power".to_owned()))?;
        return Ok(Tensor::from_i64s(a.dtype(), &shape, &out));
    }
    let (bases, exponents) = (a.to_f64s(), b.to_f64s());
    let (shape, out) = zip_broadcast((&bases, a.shape()), (&exponents, b.shape()), float_power)?;
    Ok(Tensor::from_f64s(a.dtype(), &shape, &out))
}

/// `slope` must broadcast to `x` without widening it.
fn check_slope<D: PartialEq + std::fmt::Debug>(
    x: &[D],
    result: &[D],
    is_one: impl Fn(&D) -> bool,
) -> Result<(), OpError> {
    let widened = x.len() != result.len() || x.iter().zip(result).any(|(x, r)| is_one(x) && !is_one(r));
    match widened {
        false => Ok(()),
        true => Err(OpError::Shape(format!("the slope of PRelu widens {x:?} to {result:?}"))),
    }
}

impl OpDef for Binary {
    const NAMES: &'static [&'static str] = &{
        let mut names = [""; ALL.len()];
        let mut index = 0;
        while index < ALL.len() {
            names[index] = ALL[index].name();
            index += 1;
        }
        names
    };
    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let op = ALL.into_iter().find(|op| op.name() == name);
        let op = match op.ok_or_else(|| OpError::Unsupported(format!("the function `{name}`")))? {
            BinaryOp::Mod { .. } => {
                known_attrs(attrs, &["fmod"])?;
                BinaryOp::Mod { fmod: attrs.int("fmod", 0)? != 0 }
            }
            plain => {
                known_attrs(attrs, &[])?;
                plain
            }
        };
        Ok(Binary { op })
    }
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn attrs(&self) -> Attrs {
        match self.op {
            BinaryOp::Mod { fmod } => Attrs::new().with("fmod", Attr::Int(i64::from(fmod))),
            _ => Attrs::new(),
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        self.check(a.dtype(), b.dtype())?;
        let shape = cx.broadcast(&[a.shape(), b.shape()])?;
        if self.op == BinaryOp::PRelu {
            check_slope(a.shape(), &shape, |d| d.is(1))?;
        }
        if self.op.is_comparison() {
            let constant = broadcast_contents(&[a, b], &shape).and_then(|c| self.compared(&c, &shape));
            return Ok(vec![Fact { constant, ..Fact::of_type(DType::Bool, shape) }]);
        }
        let elements = broadcast_contents(&[a, b], &shape).and_then(|contents| {
            let [left, right] = contents.as_slice() else { return None };
            left.iter().zip(right).map(|(a, b)| self.op.on_dims(a, b)).collect()
        });
        Ok(vec![with_elements(a.dtype(), shape, elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (a, b) = (required_tensor(inputs, 0, "A")?, required_tensor(inputs, 1, "B")?);
        self.check(a.dtype(), b.dtype())?;
        if self.op == BinaryOp::PRelu {
            check_slope(a.shape(), &broadcast_shape(&[a.shape(), b.shape()])?, |&d| d == 1)?;
        }
        if let Some(accepts) = self.op.accepts() {
            return Ok(vec![compare(a, b, accepts)?]);
        }
        if self.op == BinaryOp::Pow {
            return Ok(vec![power(a, b)?]);
        }
        let result = match a.dtype() {
            DType::Bool => self.eval_bools(a, b),
            dtype if dtype.is_int() => self.eval_ints(a, b),
            _ => self.eval_floats(a, b),
        };
        let unsupported = || Err(OpError::Unsupported(format!("{} of {}", self.op.name(), a.dtype())));
        Ok(vec![result.unwrap_or_else(unsupported)?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, fact, infer, inferred, list_fact, plain, with};
    use super::*;

    fn fmod() -> crate::Op {
        with("Mod", Attrs::new().with("fmod", Attr::Int(1)))
    }

    #[test]
    fn broadcasts() {
        let a = Tensor::from_vec(&[2, 1], vec![10f32, 20.0]);
        let b = Tensor::from_vec(&[3], vec![1f32, 2.0, 3.0]);
        let sum = eval(&plain("Add"), &[&a, &b]).unwrap();
        assert_eq!(sum, Tensor::from_vec(&[2, 3], vec![11f32, 12.0, 13.0, 21.0, 22.0, 23.0]));
        let empty = Tensor::from_vec::<f32>(&[0, 3], vec![]);
        assert_eq!(eval(&plain("Mul"), &[&empty, &b]).unwrap(), empty);
        assert!(eval(&plain("Add"), &[&b, &Tensor::from_vec(&[2], vec![1f32, 2.0])]).is_err());
        assert_eq!(
            inferred(&plain("Sub"), &[&fact(DType::F32, &["n", "1"]), &fact(DType::F32, &["4"])]),
            "f32[n,4]"
        );
    }

    #[test]
    fn integers_wrap_and_divide_toward_zero() {
        let pair = |a: &[i32], b: &[i32]| {
            (Tensor::from_vec(&[a.len()], a.to_vec()), Tensor::from_vec(&[b.len()], b.to_vec()))
        };
        let (a, b) = pair(&[i32::MAX, -7, i32::MIN], &[1, 2, -1]);
        let check = |op: &crate::Op, expected: &[i32]| {
            assert_eq!(
                eval(op, &[&a, &b]).unwrap(),
                Tensor::from_vec(&[3], expected.to_vec()),
                "{}",
                op.name()
            );
        };
        check(&plain("Add"), &[i32::MIN, -5, i32::MAX]);
        check(&plain("Div"), &[i32::MAX, -3, i32::MIN]);
        check(&plain("Mod"), &[0, 1, 0]);
        check(&fmod(), &[0, -1, 0]);
        let zero = Tensor::scalar(0i32);
        assert!(matches!(eval(&plain("Div"), &[&a, &zero]), Err(OpError::Value(_))));
        assert_eq!(eval(&plain("Div"), &[&pair(&[], &[]).0, &zero]).unwrap().len(), 0);
        let big = Tensor::scalar(u64::MAX);
        assert_eq!(eval(&plain("Mul"), &[&big, &big]).unwrap(), Tensor::scalar(1u64));
        assert_eq!(
            eval(&plain("Div"), &[&big, &Tensor::scalar(2u64)]).unwrap(),
            Tensor::scalar(u64::MAX / 2)
        );
    }

    #[test]
    fn powers_have_the_dtype_of_the_base() {
        let base = Tensor::from_vec(&[2], vec![3i32, -2]);
        let cube = eval(&plain("Pow"), &[&base, &Tensor::scalar(3f32)]).unwrap();
        assert_eq!(cube, Tensor::from_vec(&[2], vec![27i32, -8]));
        let wrapped = eval(&plain("Pow"), &[&base, &Tensor::scalar(33i64)]).unwrap();
        assert_eq!(wrapped, Tensor::from_vec(&[2], vec![3i32.wrapping_pow(33), 0]));
        let root = eval(&plain("Pow"), &[&Tensor::scalar(2f32), &Tensor::scalar(-1i64)]).unwrap();
        assert_eq!(root, Tensor::scalar(0.5f32));
        assert!(eval(&plain("Pow"), &[&Tensor::scalar(0i64), &Tensor::scalar(-1i64)]).is_err());
    }

    #[test]
    fn comparisons_of_nan_zeros_and_strings() {
        let a = Tensor::from_vec(&[3], vec![f32::NAN, -0.0, 1.0]);
        let b = Tensor::from_vec(&[3], vec![f32::NAN, 0.0, 0.5]);
        let check = |name: &str, expected: [bool; 3]| {
            assert_eq!(eval(&plain(name), &[&a, &b]).unwrap(), Tensor::from_bools(&[3], &expected), "{name}");
        };
        check("Equal", [false, true, false]);
        check("GreaterOrEqual", [false, true, true]);
        check("Less", [false, false, false]);
        let words = Tensor::from_strings(&[2], vec!["a".into(), "b".into()]);
        let word = Tensor::from_strings(&[], vec!["b".into()]);
        let equal = eval(&plain("Equal"), &[&words, &word]).unwrap();
        assert_eq!(equal, Tensor::from_bools(&[2], &[false, true]));
    }

    #[test]
    fn slopes_do_not_widen() {
        let x = Tensor::from_vec(&[1, 2], vec![-1f32, 2.0]);
        let slope = Tensor::from_vec(&[2, 1], vec![0.5f32, 0.25]);
        assert!(matches!(eval(&plain("PRelu"), &[&x, &slope]), Err(OpError::Shape(_))));
        let scaled = eval(&plain("PRelu"), &[&x, &Tensor::scalar(0.5f32)]).unwrap();
        assert_eq!(scaled, Tensor::from_vec(&[1, 2], vec![-0.5f32, 2.0]));
    }

    #[test]
    fn contents_follow_dims() {
        let n = Dim::symbol("n");
        let dims = Fact::of_elements(DType::I64, [Dim::from(2)], vec![n.clone(), Dim::from(7)]);
        let elements =
            |name: &str, other: &Fact| infer(&plain(name), &[&dims, other]).unwrap().remove(0).elements;
        assert_eq!(elements("Mul", &list_fact(&[2])), Some(vec![n.clone() * Dim::from(2), Dim::from(14)]));
        assert_eq!(elements("Div", &list_fact(&[2])).unwrap()[0].to_string(), "floordiv(n, 2)");
        // The sign of the dividend is not known, and truncation is not the floor there.
        assert_eq!(elements("Div", &list_fact(&[-2])), None);
        let wide = list_fact(&[i64::MAX]);
        assert_eq!(elements("Add", &wide), None);
        let equal = infer(&plain("Equal"), &[&dims, &list_fact(&[-1])]).unwrap().remove(0);
        assert_eq!(equal.constant, Some(Tensor::from_bools(&[2], &[false, false])));
        let unknown = infer(&plain("Equal"), &[&dims, &list_fact(&[1])]).unwrap().remove(0);
        assert_eq!(unknown.constant, None);
    }
}
