//! `Cast`: the same elements in another dtype.
//!
//! - float → float: nearest, halves to even; what is too large becomes infinity.
//! - float → integer: toward zero, saturating (2 and 4 bits: low bits); NaN becomes 0. ONNX leaves what is out of range
//!   undefined.
//! - integer → integer: low bits. integer → float: nearest.
//! - to `bool`: whether it is not 0 (NaN is not). From `bool`: 0 or 1.
//! - to floats of 4, 6 and 8 bits: nearest; with `saturate` what is too large, infinity too, becomes the largest value,
//!   else infinity or NaN; those of 4 and 6 bits always saturate, and make -0 of NaN.
//! - to `f8e8m0`: the magnitude rounded to a power of two as `round_mode` says; with `saturate` into its range.
//! - string → number: decimal or scientific, `INF`, `-INF`, `NaN` in any case; number → string: the shortest text
//!   that reads back as the same value; bools are `True` and `False`.
//!
//! **Shapes**: that of the operand. **Dtypes**: any to any but complex ones.
//!
//! **Opsets**: 1, 6, 9 (strings), 13 (bf16), 19 (8-bit floats, `saturate`), 21 (4-bit integers), 23 (`f4e2m1`), 24
//! (`f8e8m0`, `round_mode`), 25 (2-bit integers), 28 (6-bit floats).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Cast.html>

mod bits;
mod text;

pub use bits::BitCast;

use super::tracked::with_elements;
use super::util::{arity, dtype_attr, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, RoundMode, ShortFloat, Tensor, bf16_of_u64};
use text::{Parsed, parse, to_strings};

/// `Cast`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// Dtype of the result.
    pub to: DType,
    /// Whether 8-bit floats saturate.
    pub saturate: bool,
    /// How `f8e8m0` rounds.
    pub round_mode: RoundMode,
}

impl Cast {
    /// A cast without options.
    pub fn to(to: DType) -> Self {
        Cast { to, saturate: true, round_mode: RoundMode::Up }
    }

    /// Complex numbers convert to and from nothing.
    fn check(&self, from: DType) -> Result<(), OpError> {
        if from != self.to && (from.is_complex() || self.to.is_complex()) {
            return Err(OpError::Unsupported(format!("a cast from {from} to {}", self.to)));
        }
        Ok(())
    }

    fn of_strings(&self, shape: &[usize], texts: &[String]) -> Result<Tensor, OpError> {
        Ok(match parse(texts, self.to)? {
            Parsed::Integers(values) => Tensor::from_i64s(self.to, shape, &values),
            Parsed::Singles(values) => Tensor::from_vec(shape, values),
            Parsed::Floats(values) => self.of_floats(shape, &values),
        })
    }

    /// From values that are exact in f64, or whose rounding to it does not matter.
    fn of_floats(&self, shape: &[usize], values: &[f64]) -> Tensor {
        match ShortFloat::of(self.to) {
            Some(format) => {
                let code = |v: &f64| format.encode_power(*v, self.saturate, self.round_mode);
                Tensor::from_raw(self.to, shape, values.iter().map(code).collect())
            }
            // Narrow integers take the low bits, as ONNX's own test data does.
            None if self.to.is_int() && self.to.bits() < 8 => {
                Tensor::from_i64s(self.to, shape, &values.iter().map(|&v| v as i64).collect::<Vec<_>>())
            }
            None => Tensor::from_f64s(self.to, shape, values),
        }
    }

    fn of_unsigned(&self, shape: &[usize], values: &[u64]) -> Tensor {
        match self.to {
            DType::F32 => Tensor::from_vec(shape, values.iter().map(|&v| v as f32).collect()),
            DType::BF16 => Tensor::from_vec(shape, values.iter().map(|&v| bf16_of_u64(v)).collect()),
            to if to.is_float() => {
                self.of_floats(shape, &values.iter().map(|&v| v as f64).collect::<Vec<_>>())
            }
            to => Tensor::from_i64s(to, shape, &values.iter().map(|&v| v as i64).collect::<Vec<_>>()),
        }
    }
}

impl OpDef for Cast {
    const NAMES: &'static [&'static str] = &["Cast"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["to", "saturate", "round_mode"])?;
        let to = dtype_attr(attrs, "to")?.ok_or_else(|| OpError::MissingAttribute("to".to_owned()))?;
        let round_mode = match attrs.str("round_mode", "up")?.as_str() {
            "up" => RoundMode::Up,
            "down" => RoundMode::Down,
            "nearest" => RoundMode::Nearest,
            other => {
                return Err(OpError::Attribute {
                    name: "round_mode".to_owned(),
                    value: other.to_owned(),
                    reason: "expected up, down or nearest".to_owned(),
                });
            }
        };
        Ok(Cast { to, saturate: attrs.int("saturate", 1)? != 0, round_mode })
    }
    fn name(&self) -> &'static str {
        "Cast"
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new()
            .with("to", Attr::Str(self.to.name().to_owned()))
            .with("saturate", Attr::Int(i64::from(self.saturate)));
        match self.round_mode {
            RoundMode::Up => attrs,
            RoundMode::Down => attrs.with("round_mode", Attr::Str("down".to_owned())),
            RoundMode::Nearest => attrs.with("round_mode", Attr::Str("nearest".to_owned())),
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "input")?;
        self.check(x.dtype())?;
        if x.dtype() == self.to {
            return Ok(vec![x.clone()]);
        }
        // A dim fits into 32 bits; into less it may not.
        let takes_dims = matches!(self.to, DType::I32 | DType::I64);
        let flags =
            x.constant.as_ref().filter(|c| c.dtype() == DType::Bool && c.len() <= MAX_TRACKED_ELEMENTS);
        let elements = match flags {
            Some(flags) => Some(flags.to_i64s().into_iter().map(Dim::from).collect()),
            None => x.dims().filter(|e: &Vec<Dim>| takes_dims || e.iter().all(|d| d.as_const().is_some())),
        };
        Ok(vec![with_elements(self.to, x.shape().to_vec(), elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "input")?;
        self.check(x.dtype())?;
        let shape = x.shape();
        let result = match (x.dtype(), self.to) {
            (from, to) if from == to => x.clone(),
            (DType::String, _) => self.of_strings(shape, x.strings().unwrap_or(&[]))?,
            (_, DType::String) => Tensor::from_strings(shape, to_strings(x)),
            (DType::U64, _) => {
                let values = x.to_slice::<u64>().map_err(|error| OpError::Value(error.to_string()))?;
                self.of_unsigned(shape, &values)
            }
            (from, to) if !from.is_float() && !to.is_short_float() => {
                Tensor::from_i64s(to, shape, &x.to_i64s())
            }
            _ => self.of_floats(shape, &x.to_f64s()),
        };
        Ok(vec![result])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, infer, with};

    fn cast(x: &Tensor, to: DType) -> Tensor {
        eval(&with("Cast", Cast::to(to).attrs()), &[x]).unwrap()
    }

    #[test]
    fn codes_and_names_are_dtypes() {
        let of = |attr: Attr| Cast::from_attrs("Cast", &Attrs::new().with("to", attr));
        assert_eq!(of(Attr::Int(7)), of(Attr::Str("i64".to_owned())));
        assert!(of(Attr::Int(0)).is_err() && of(Attr::Int(29)).is_err());
        assert_eq!(Cast::from_attrs("Cast", &Attrs::new()), Err(OpError::MissingAttribute("to".to_owned())));
    }

    #[test]
    fn floats_saturate_and_integers_wrap() {
        let floats = Tensor::from_vec(&[5], vec![f32::NAN, -1.9, 300.0, f32::INFINITY, -0.0]);
        assert_eq!(cast(&floats, DType::U8), Tensor::from_vec(&[5], vec![0u8, 0, 255, 255, 0]));
        assert_eq!(cast(&floats, DType::I8), Tensor::from_vec(&[5], vec![0i8, -1, 127, 127, 0]));
        assert_eq!(cast(&floats, DType::Bool), Tensor::from_bools(&[5], &[true, true, true, true, false]));
        let ints = Tensor::from_vec(&[2], vec![200i16, -1]);
        assert_eq!(cast(&ints, DType::I8), Tensor::from_vec(&[2], vec![-56i8, -1]));
        assert_eq!(cast(&ints, DType::U64), Tensor::from_vec(&[2], vec![200u64, u64::MAX]));
        // By way of f64 this would round down: it lies just above the middle of two f32s.
        let middle = Tensor::scalar((1i64 << 60) + (1 << 36) + 1);
        assert_eq!(cast(&middle, DType::F32), Tensor::scalar(((1i64 << 60) + (1 << 37)) as f32));
        assert_eq!(cast(&Tensor::scalar(u64::MAX), DType::F64), Tensor::scalar(u64::MAX as f64));
    }

    #[test]
    fn short_floats_saturate_if_asked() {
        let x = Tensor::from_vec(&[2], vec![1e6f32, 1.0]);
        let to = DType::F8E4M3FN;
        assert_eq!(cast(&x, to).to_f64s(), [448.0, 1.0]);
        let open = eval(&with("Cast", Cast { saturate: false, ..Cast::to(to) }.attrs()), &[&x]).unwrap();
        assert!(open.to_f64s()[0].is_nan());
        assert_eq!(cast(&cast(&x, to), DType::F32).to_f64s(), [448.0, 1.0]);
    }

    #[test]
    fn narrow_dtypes() {
        let x = Tensor::from_vec(&[5], vec![-3.0f32, -2.0, 1.0, 2.0, 3.0]);
        assert_eq!(cast(&x, DType::I2).to_i64s(), [1, -2, 1, -2, -1]);
        assert_eq!(cast(&x, DType::U2).to_i64s(), [1, 2, 1, 2, 3]);
        let x = Tensor::from_vec(&[4], vec![-8f32, f32::NAN, 1.05, 0.25]);
        assert_eq!(cast(&x, DType::F4E2M1).to_f64s(), [-6.0, -0.0, 1.0, 0.0]);
        let attrs =
            Attrs::new().with("to", Attr::Int(24)).with("round_mode", Attr::Str("nearest".to_owned()));
        let scales = eval(&with("Cast", attrs), &[&Tensor::from_vec(&[3], vec![1.4f32, 1.5, 0.0])]).unwrap();
        assert_eq!(scales.to_f64s(), [1.0, 2.0, 2f64.powi(-127)]);
        let complex = Fact::of_type(DType::C64, []);
        assert!(infer(&with("Cast", Cast::to(DType::F32).attrs()), &[&complex]).is_err());
    }

    #[test]
    fn strings() {
        let texts = ["1e-5", "-INF", "nan", "100.5"].map(str::to_owned).to_vec();
        let numbers = cast(&Tensor::from_strings(&[4], texts), DType::F32);
        assert_eq!(numbers.to_slice::<f32>().unwrap()[0], 1e-5);
        assert_eq!(numbers.to_slice::<f32>().unwrap()[1], f32::NEG_INFINITY);
        assert!(numbers.to_slice::<f32>().unwrap()[2].is_nan());
        let back = cast(&numbers, DType::String);
        assert_eq!(back.strings().unwrap(), ["1e-05", "-INF", "NaN", "100.5"]);
        let halves = Tensor::from_f64s(DType::F16, &[3], &[0.1, 1.0, 1e-6]);
        assert_eq!(cast(&halves, DType::String).strings().unwrap(), ["0.1", "1.0", "1e-06"]);
        let flags = Tensor::from_bools(&[2], &[true, false]);
        assert_eq!(cast(&cast(&flags, DType::String), DType::Bool), flags);
        let word = Tensor::from_strings(&[], vec!["word".into()]);
        let op = with("Cast", Cast::to(DType::I32).attrs());
        assert_eq!(eval(&op, &[&word]), Err(OpError::Value("the string \"word\" is no i32".to_owned())));
    }

    #[test]
    fn contents_go_along_where_they_fit() {
        let dims = Fact::of_elements(DType::I64, [Dim::from(1)], vec![Dim::symbol("n")]);
        let to = |to| infer(&with("Cast", Cast::to(to).attrs()), &[&dims]).unwrap().remove(0);
        assert_eq!(to(DType::I32).elements, dims.elements);
        assert_eq!(to(DType::I8).elements, None);
        assert_eq!(to(DType::F32).elements, None);
    }
}
