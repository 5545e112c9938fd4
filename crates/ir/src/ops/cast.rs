//! `Cast`: the same elements in another dtype.
//!
//! - float → float: nearest, halves to even; what is too large becomes infinity.
//! - float → integer: toward zero, saturating (4 bits: low bits); NaN becomes 0. ONNX leaves what is out of range
//!   undefined.
//! - integer → integer: low bits. integer → float: nearest.
//! - to `bool`: whether it is not 0 (NaN is not). From `bool`: 0 or 1.
//! - to 8-bit floats: nearest; with `saturate` what is too large, infinity too, becomes the largest value, else
//!   infinity or NaN.
//! - string → number: decimal or scientific, `INF`, `-INF`, `NaN` in any case; number → string: the shortest text
//!   that reads back as the same value.
//!
//! **Shapes**: that of the operand. **Dtypes**: any to any; strings not to and from bool.
//!
//! **Opsets**: 1, 6, 9 (strings), 13 (bf16), 19 (8-bit floats, `saturate`), 21 (4-bit integers), 24 (`round_mode`,
//! which is about `float8e8m0` only; rabot does not have that dtype).
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Cast.html>

use super::tracked::with_elements;
use super::util::{arity, dtype_attr, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Float8, Tensor};

/// `Cast`.
#[derive(Clone, Debug, PartialEq)]
pub struct Cast {
    /// Dtype of the result.
    pub to: DType,
    /// Whether 8-bit floats saturate.
    pub saturate: bool,
}

impl Cast {
    /// Strings and bools do not convert to each other.
    fn check(&self, from: DType) -> Result<(), OpError> {
        match (from, self.to) {
            (DType::String, DType::Bool) | (DType::Bool, DType::String) => {
                Err(OpError::Unsupported(format!("a cast from {from} to {}", self.to)))
            }
            _ => Ok(()),
        }
    }

    fn of_strings(&self, shape: &[usize], texts: &[String]) -> Result<Tensor, OpError> {
        let refused = |text: &String| OpError::Value(format!("the string {text:?} is no {}", self.to));
        if self.to.is_int() {
            let parse = |text: &String| {
                // Decimal fractions are cut off, as "100.5" to 100.
                let exact = text.trim().parse::<i128>();
                let value = exact.or_else(|_| text.trim().parse::<f64>().map(|v| v as i128));
                value.map(|v| v as i64).map_err(|_| refused(text))
            };
            let values = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            return Ok(Tensor::from_i64s(self.to, shape, &values));
        }
        let parse = |text: &String| text.trim().parse::<f64>().map_err(|_| refused(text));
        let values = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        if self.to == DType::F32 {
            // Straight to f32: by way of f64 it would be rounded twice.
            let parse = |text: &String| text.trim().parse::<f32>().map_err(|_| refused(text));
            let values = texts.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
            return Ok(Tensor::from_vec(shape, values));
        }
        Ok(self.of_floats(shape, &values))
    }

    /// From values that are exact in f64, or whose rounding to it does not matter.
    fn of_floats(&self, shape: &[usize], values: &[f64]) -> Tensor {
        match Float8::of(self.to) {
            Some(format) => {
                let codes = values.iter().map(|&v| format.encode(v, self.saturate)).collect();
                Tensor::from_raw(self.to, shape, codes)
            }
            // Narrow integers take the low bits, as ONNX's own test data does.
            None if matches!(self.to, DType::I4 | DType::U4) => {
                Tensor::from_i64s(self.to, shape, &values.iter().map(|&v| v as i64).collect::<Vec<_>>())
            }
            None => Tensor::from_f64s(self.to, shape, values),
        }
    }

    fn of_unsigned(&self, shape: &[usize], values: &[u64]) -> Tensor {
        match self.to {
            DType::F32 => Tensor::from_vec(shape, values.iter().map(|&v| v as f32).collect()),
            to if to.is_float() => {
                self.of_floats(shape, &values.iter().map(|&v| v as f64).collect::<Vec<_>>())
            }
            to => Tensor::from_i64s(to, shape, &values.iter().map(|&v| v as i64).collect::<Vec<_>>()),
        }
    }
}

/// The shortest text that reads back as the same value; exponents only for the very small and large.
fn float_text(value: f64, shortest: impl Fn(bool) -> String) -> String {
    if value.is_nan() {
        return "NaN".to_owned();
    }
    if value.is_infinite() {
        return if value > 0.0 { "INF" } else { "-INF" }.to_owned();
    }
    shortest(value != 0.0 && !(1e-5..1e16).contains(&value.abs()))
}

fn to_strings(tensor: &Tensor) -> Vec<String> {
    if let Ok(values) = tensor.to_slice::<u64>() {
        return values.iter().map(u64::to_string).collect();
    }
    if tensor.dtype().is_int() {
        return tensor.to_i64s().iter().map(i64::to_string).collect();
    }
    let text = |value: f64| match tensor.dtype() {
        DType::F64 => {
            float_text(value, |exponent| if exponent { format!("{value:e}") } else { value.to_string() })
        }
        _ => {
            let short = value as f32;
            float_text(value, |exponent| if exponent { format!("{short:e}") } else { short.to_string() })
        }
    };
    tensor.to_f64s().into_iter().map(text).collect()
}

impl OpDef for Cast {
    const NAMES: &'static [&'static str] = &["Cast"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["to", "saturate", "round_mode"])?;
        let to = dtype_attr(attrs, "to")?.ok_or_else(|| OpError::MissingAttribute("to".to_owned()))?;
        Ok(Cast { to, saturate: attrs.int("saturate", 1)? != 0 })
    }
    fn name(&self) -> &'static str {
        "Cast"
    }
    fn attrs(&self) -> Attrs {
        Attrs::new()
            .with("to", Attr::Str(self.to.name().to_owned()))
            .with("saturate", Attr::Int(i64::from(self.saturate)))
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
            (from, to) if !from.is_float() && Float8::of(to).is_none() => {
                Tensor::from_i64s(to, shape, &x.to_i64s())
            }
            _ => self.of_floats(shape, &x.to_f64s()),
        };
        Ok(vec![result])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, infer, with};
    use super::*;

    fn cast(x: &Tensor, to: DType) -> Tensor {
        eval(&with("Cast", Cast { to, saturate: true }.attrs()), &[x]).unwrap()
    }

    #[test]
    fn codes_and_names_are_dtypes() {
        let of = |attr: Attr| Cast::from_attrs("Cast", &Attrs::new().with("to", attr));
        assert_eq!(of(Attr::Int(7)), of(Attr::Str("i64".to_owned())));
        assert!(of(Attr::Int(0)).is_err() && of(Attr::Int(14)).is_err());
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
        let open = eval(&with("Cast", Cast { to, saturate: false }.attrs()), &[&x]).unwrap();
        assert!(open.to_f64s()[0].is_nan());
        assert_eq!(cast(&cast(&x, to), DType::F32).to_f64s(), [448.0, 1.0]);
    }

    #[test]
    fn strings() {
        let texts = ["1e-5", "-INF", "nan", "100.5"].map(str::to_owned).to_vec();
        let numbers = cast(&Tensor::from_strings(&[4], texts), DType::F32);
        assert_eq!(numbers.to_slice::<f32>().unwrap()[0], 1e-5);
        assert_eq!(numbers.to_slice::<f32>().unwrap()[1], f32::NEG_INFINITY);
        assert!(numbers.to_slice::<f32>().unwrap()[2].is_nan());
        let back = cast(&numbers, DType::String);
        assert_eq!(back.strings().unwrap(), ["1e-5", "-INF", "NaN", "100.5"]);
        let word = Tensor::from_strings(&[], vec!["word".into()]);
        let op = with("Cast", Cast { to: DType::I32, saturate: true }.attrs());
        assert_eq!(eval(&op, &[&word]), Err(OpError::Value("the string \"word\" is no i32".to_owned())));
    }

    #[test]
    fn contents_go_along_where_they_fit() {
        let dims = Fact::of_elements(DType::I64, [Dim::from(1)], vec![Dim::symbol("n")]);
        let to = |to| infer(&with("Cast", Cast { to, saturate: true }.attrs()), &[&dims]).unwrap().remove(0);
        assert_eq!(to(DType::I32).elements, dims.elements);
        assert_eq!(to(DType::I8).elements, None);
        assert_eq!(to(DType::F32).elements, None);
    }
}
