//! Elementwise functions of one operand: `y = f(x)`.
//!
//! | op | `f(x)` |
//! |---|---|
//! | `Celu` | `max(0, x) + min(0, α·(eˣᐟᵅ - 1))`, α = 1 |
//! | `Elu` | `x` where `x ≥ 0`, else `α·(eˣ - 1)`, α = 1 |
//! | `Gelu` | `x/2·(1 + erf(x/√2))`; with `approximate="tanh"` `x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³)))` |
//! | `HardSigmoid` | `max(0, min(1, α·x + β))`, α = 0.2, β = 0.5 |
//! | `HardSwish` | `x·max(0, min(1, x/6 + 1/2))` |
//! | `LeakyRelu` | `x` where `x ≥ 0`, else `α·x`, α = 0.01 |
//! | `Mish` | `x·tanh(ln(1 + eˣ))` |
//! | `Relu` | `max(0, x)` |
//! | `Round` | nearest integer, halves to the even one |
//! | `Selu` | `γ·x` where `x > 0`, else `γ·α·(eˣ - 1)`, α = 1.67326319…, γ = 1.05070102… |
//! | `Sigmoid` | `1/(1 + e⁻ˣ)` |
//! | `Softplus` | `ln(1 + eˣ)` |
//! | `Softsign` | `x/(1 + abs(x))` |
//! | `ThresholdedRelu` | `x` where `x > α`, else 0, α = 1 |
//!
//! The others are what their names say. NaN stays NaN.
//!
//! **Shapes**: that of the operand. **Dtypes**: f16, bf16, f32, f64; `Abs` and `Sign` all integers too, `Neg` and
//! `Relu` signed ones; `BitwiseNot` integers, `Not` bool; `IsNaN` any float → bool.
//!
//! **Opsets**: most 1, 6, 13 (bf16); Erf, Sign 9; Round 11; Celu 12; HardSwish, integer Relu 14; BitwiseNot, Mish
//! 18; Gelu 20; bf16 for the rest 22. Version 1 had an attribute `consumed_inputs` that means nothing.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Relu.html> and the pages of the other ops.

use super::elementwise::{is_arithmetic_float, is_arithmetic_int, is_numeric, map_floats, map_ints};
use super::tracked::with_elements;
use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Fact};
use rabot_tensor::{DType, Tensor};
use std::f64::consts::{FRAC_1_SQRT_2, FRAC_2_SQRT_PI};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum UnaryOp {
    /// `Abs`.
    Abs,
    /// `Acos`.
    Acos,
    /// `Acosh`.
    Acosh,
    /// `Asin`.
    Asin,
    /// `Asinh`.
    Asinh,
    /// `Atan`.
    Atan,
    /// `Atanh`.
    Atanh,
    /// `BitwiseNot`.
    BitwiseNot,
    /// `Ceil`.
    Ceil,
    /// `Cos`.
    Cos,
    /// `Cosh`.
    Cosh,
    /// `Erf`.
    Erf,
    /// `Exp`.
    Exp,
    /// `Floor`.
    Floor,
    /// `HardSwish`.
    HardSwish,
    /// `IsNaN`.
    IsNaN,
    /// `Log`.
    Log,
    /// `Mish`.
    Mish,
    /// `Neg`.
    Neg,
    /// `Not`.
    Not,
    /// `Reciprocal`.
    Reciprocal,
    /// `Relu`.
    Relu,
    /// `Round`.
    Round,
    /// `Sigmoid`.
    Sigmoid,
    /// `Sign`.
    Sign,
    /// `Sin`.
    Sin,
    /// `Sinh`.
    Sinh,
    /// `Softplus`.
    Softplus,
    /// `Softsign`.
    Softsign,
    /// `Sqrt`.
    Sqrt,
    /// `Tan`.
    Tan,
    /// `Tanh`.
    Tanh,
    /// `Celu`.
    Celu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Elu`.
    Elu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `HardSigmoid`.
    HardSigmoid {
        /// Attribute `alpha`.
        alpha: f32,
        /// Attribute `beta`.
        beta: f32,
    },
    /// `LeakyRelu`.
    LeakyRelu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Selu`.
    Selu {
        /// Attribute `alpha`.
        alpha: f32,
        /// Attribute `gamma`.
        gamma: f32,
    },
    /// `ThresholdedRelu`.
    ThresholdedRelu {
        /// Attribute `alpha`.
        alpha: f32,
    },
    /// `Gelu`.
    Gelu {
        /// True for `approximate="tanh"`.
        tanh: bool,
    },
}

/// Defaults of `Selu`: 1.67326319217681884765625 and 1.05070102214813232421875 in the specification.
const SELU_ALPHA: f32 = 1.673_263_2;
const SELU_GAMMA: f32 = 1.050_701;

/// Every function, with the defaults of its attributes.
const ALL: [UnaryOp; 39] = [
    UnaryOp::Abs,
    UnaryOp::Acos,
    UnaryOp::Acosh,
    UnaryOp::Asin,
    UnaryOp::Asinh,
    UnaryOp::Atan,
    UnaryOp::Atanh,
    UnaryOp::BitwiseNot,
    UnaryOp::Ceil,
    UnaryOp::Cos,
    UnaryOp::Cosh,
    UnaryOp::Erf,
    UnaryOp::Exp,
    UnaryOp::Floor,
    UnaryOp::HardSwish,
    UnaryOp::IsNaN,
    UnaryOp::Log,
    UnaryOp::Mish,
    UnaryOp::Neg,
    UnaryOp::Not,
    UnaryOp::Reciprocal,
    UnaryOp::Relu,
    UnaryOp::Round,
    UnaryOp::Sigmoid,
    UnaryOp::Sign,
    UnaryOp::Sin,
    UnaryOp::Sinh,
    UnaryOp::Softplus,
    UnaryOp::Softsign,
    UnaryOp::Sqrt,
    UnaryOp::Tan,
    UnaryOp::Tanh,
    UnaryOp::Celu { alpha: 1.0 },
    UnaryOp::Elu { alpha: 1.0 },
    UnaryOp::HardSigmoid { alpha: 0.2, beta: 0.5 },
    UnaryOp::LeakyRelu { alpha: 0.01 },
    UnaryOp::Selu { alpha: SELU_ALPHA, gamma: SELU_GAMMA },
    UnaryOp::ThresholdedRelu { alpha: 1.0 },
    UnaryOp::Gelu { tanh: false },
];

impl UnaryOp {
    /// ONNX name of the op.
    pub const fn name(self) -> &'static str {
        match self {
            UnaryOp::Abs => "Abs",
            UnaryOp::Acos => "Acos",
            UnaryOp::Acosh => "Acosh",
            UnaryOp::Asin => "Asin",
            UnaryOp::Asinh => "Asinh",
            UnaryOp::Atan => "Atan",
            UnaryOp::Atanh => "Atanh",
            UnaryOp::BitwiseNot => "BitwiseNot",
            UnaryOp::Ceil => "Ceil",
            UnaryOp::Cos => "Cos",
            UnaryOp::Cosh => "Cosh",
            UnaryOp::Erf => "Erf",
            UnaryOp::Exp => "Exp",
            UnaryOp::Floor => "Floor",
            UnaryOp::HardSwish => "HardSwish",
            UnaryOp::IsNaN => "IsNaN",
            UnaryOp::Log => "Log",
            UnaryOp::Mish => "Mish",
            UnaryOp::Neg => "Neg",
            UnaryOp::Not => "Not",
            UnaryOp::Reciprocal => "Reciprocal",
            UnaryOp::Relu => "Relu",
            UnaryOp::Round => "Round",
            UnaryOp::Sigmoid => "Sigmoid",
            UnaryOp::Sign => "Sign",
            UnaryOp::Sin => "Sin",
            UnaryOp::Sinh => "Sinh",
            UnaryOp::Softplus => "Softplus",
            UnaryOp::Softsign => "Softsign",
            UnaryOp::Sqrt => "Sqrt",
            UnaryOp::Tan => "Tan",
            UnaryOp::Tanh => "Tanh",
            UnaryOp::Celu { .. } => "Celu",
            UnaryOp::Elu { .. } => "Elu",
            UnaryOp::HardSigmoid { .. } => "HardSigmoid",
            UnaryOp::LeakyRelu { .. } => "LeakyRelu",
            UnaryOp::Selu { .. } => "Selu",
            UnaryOp::ThresholdedRelu { .. } => "ThresholdedRelu",
            UnaryOp::Gelu { .. } => "Gelu",
        }
    }

    /// The function with attributes other than the defaults.
    fn configured(self, attrs: &Attrs) -> Result<Self, OpError> {
        let known: &[&str] = match self {
            UnaryOp::Gelu { .. } => &["approximate"],
            UnaryOp::HardSigmoid { .. } => &["alpha", "beta"],
            UnaryOp::Selu { .. } => &["alpha", "gamma"],
            UnaryOp::Celu { .. }
            | UnaryOp::Elu { .. }
            | UnaryOp::LeakyRelu { .. }
            | UnaryOp::ThresholdedRelu { .. } => &["alpha"],
            _ => &[],
        };
        known_attrs(attrs, known)?;
        let float = |name, default| attrs.float(name, default);
        Ok(match self {
            UnaryOp::Celu { alpha } => UnaryOp::Celu { alpha: float("alpha", alpha)? },
            UnaryOp::Elu { alpha } => UnaryOp::Elu { alpha: float("alpha", alpha)? },
            UnaryOp::HardSigmoid { alpha, beta } => {
                UnaryOp::HardSigmoid { alpha: float("alpha", alpha)?, beta: float("beta", beta)? }
            }
            UnaryOp::LeakyRelu { alpha } => UnaryOp::LeakyRelu { alpha: float("alpha", alpha)? },
            UnaryOp::Selu { alpha, gamma } => {
                UnaryOp::Selu { alpha: float("alpha", alpha)?, gamma: float("gamma", gamma)? }
            }
            UnaryOp::ThresholdedRelu { alpha } => UnaryOp::ThresholdedRelu { alpha: float("alpha", alpha)? },
            UnaryOp::Gelu { .. } => match attrs.str("approximate", "none")?.as_str() {
                "none" => UnaryOp::Gelu { tanh: false },
                "tanh" => UnaryOp::Gelu { tanh: true },
                other => {
                    return Err(OpError::Attribute {
                        name: "approximate".to_owned(),
                        value: other.to_owned(),
                        reason: "expected none or tanh".to_owned(),
                    });
                }
            },
            plain => plain,
        })
    }

    /// What operands the function takes, in words and as a test.
    fn operand(self) -> (&'static str, fn(DType) -> bool) {
        match self {
            UnaryOp::Abs | UnaryOp::Sign => ("a number", is_numeric),
            UnaryOp::Neg | UnaryOp::Relu => {
                ("a float or signed integer", |d| is_numeric(d) && !d.is_unsigned_int())
            }
            UnaryOp::BitwiseNot => ("an integer", is_arithmetic_int),
            UnaryOp::Not => ("bool", |d| d == DType::Bool),
            UnaryOp::IsNaN => ("a float", DType::is_float),
            _ => ("f16, bf16, f32 or f64", is_arithmetic_float),
        }
    }

    /// The function on an integer, for those that take one.
    fn on_int(self, x: i128) -> Option<i128> {
        match self {
            UnaryOp::Abs => Some(x.abs()),
            UnaryOp::Sign => Some(x.signum()),
            UnaryOp::Neg => Some(-x),
            UnaryOp::Relu => Some(x.max(0)),
            UnaryOp::BitwiseNot => Some(!x),
            _ => None,
        }
    }
}

/// Elementwise function of one operand.
#[derive(Clone, Debug, PartialEq)]
pub struct Unary {
    /// The function.
    pub op: UnaryOp,
}

impl Unary {
    /// The basic functions on floats; `None` if this is another one.
    fn eval_basic(&self, x: &Tensor) -> Option<Result<Tensor, OpError>> {
        Some(match self.op {
            UnaryOp::Abs => map_floats(x, f64::abs),
            UnaryOp::Acos => map_floats(x, libm::acos),
            UnaryOp::Acosh => map_floats(x, libm::acosh),
            UnaryOp::Asin => map_floats(x, libm::asin),
            UnaryOp::Asinh => map_floats(x, libm::asinh),
            UnaryOp::Atan => map_floats(x, libm::atan),
            UnaryOp::Atanh => map_floats(x, libm::atanh),
            UnaryOp::Ceil => map_floats(x, f64::ceil),
            UnaryOp::Cos => map_floats(x, libm::cos),
            UnaryOp::Cosh => map_floats(x, libm::cosh),
            UnaryOp::Erf => map_floats(x, libm::erf),
            UnaryOp::Exp => map_floats(x, libm::exp),
            UnaryOp::Floor => map_floats(x, f64::floor),
            UnaryOp::Log => map_floats(x, libm::log),
            UnaryOp::Neg => map_floats(x, |v| -v),
            UnaryOp::Reciprocal => map_floats(x, |v| 1.0 / v),
            UnaryOp::Round => map_floats(x, f64::round_ties_even),
            UnaryOp::Sin => map_floats(x, libm::sin),
            UnaryOp::Sinh => map_floats(x, libm::sinh),
            UnaryOp::Sqrt => map_floats(x, f64::sqrt),
            UnaryOp::Tan => map_floats(x, libm::tan),
            UnaryOp::Tanh => map_floats(x, libm::tanh),
            _ => return None,
        })
    }

    /// Activation functions on floats; `None` if this is another function.
    fn eval_activation(&self, x: &Tensor) -> Option<Result<Tensor, OpError>> {
        Some(match self.op {
            UnaryOp::Celu { alpha } => {
                let alpha = f64::from(alpha);
                map_floats(x, |v| if v > 0.0 { v } else { alpha * libm::expm1(v / alpha) })
            }
            UnaryOp::Elu { alpha } => {
                let alpha = f64::from(alpha);
                map_floats(x, |v| if v >= 0.0 { v } else { alpha * libm::expm1(v) })
            }
            UnaryOp::Gelu { tanh: false } => map_floats(x, gelu),
            UnaryOp::Gelu { tanh: true } => map_floats(x, gelu_tanh),
            UnaryOp::HardSigmoid { alpha, beta } => {
                let (alpha, beta) = (f64::from(alpha), f64::from(beta));
                map_floats(x, |v| (alpha * v + beta).clamp(0.0, 1.0))
            }
            UnaryOp::HardSwish => map_floats(x, |v| v * (v / 6.0 + 0.5).clamp(0.0, 1.0)),
            UnaryOp::LeakyRelu { alpha } => {
                let alpha = f64::from(alpha);
                map_floats(x, |v| if v >= 0.0 { v } else { alpha * v })
            }
            UnaryOp::Mish => map_floats(x, |v| v * libm::tanh(softplus(v))),
            UnaryOp::Relu => map_floats(x, |v| if v <= 0.0 { 0.0 } else { v }),
            UnaryOp::Selu { alpha, gamma } => {
                let (alpha, gamma) = (f64::from(alpha), f64::from(gamma));
                map_floats(x, |v| gamma * if v > 0.0 { v } else { alpha * libm::expm1(v) })
            }
            UnaryOp::Sigmoid => map_floats(x, |v| 1.0 / (1.0 + libm::exp(-v))),
            UnaryOp::Sign => map_floats(x, sign),
            UnaryOp::Softplus => map_floats(x, softplus),
            UnaryOp::Softsign => map_floats(x, |v| v / (1.0 + v.abs())),
            UnaryOp::ThresholdedRelu { alpha } => {
                let alpha = f64::from(alpha);
                map_floats(x, |v| if v > alpha { v } else { 0.0 })
            }
            _ => return None,
        })
    }
}

fn sign(x: f64) -> f64 {
    // NaN stays; -0 becomes 0.
    if x > 0.0 {
        1.0
    } else if x < 0.0 {
        -1.0
    } else {
        x + 0.0
    }
}

fn softplus(x: f64) -> f64 {
    // The exponent is never positive, so nothing overflows.
    x.max(0.0) + libm::log1p(libm::exp(-x.abs()))
}

fn gelu(x: f64) -> f64 {
    0.5 * x * (1.0 + libm::erf(x * FRAC_1_SQRT_2))
}

fn gelu_tanh(x: f64) -> f64 {
    // √(2/π) = 2/√π · 1/√2.
    let inner = FRAC_2_SQRT_PI * FRAC_1_SQRT_2 * (x + 0.044715 * x * x * x);
    0.5 * x * (1.0 + libm::tanh(inner))
}

impl OpDef for Unary {
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
        let op = op.ok_or_else(|| OpError::Unsupported(format!("the function `{name}`")))?;
        Ok(Unary { op: op.configured(attrs)? })
    }
    fn name(&self) -> &'static str {
        self.op.name()
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new();
        match self.op {
            UnaryOp::Celu { alpha }
            | UnaryOp::Elu { alpha }
            | UnaryOp::LeakyRelu { alpha }
            | UnaryOp::ThresholdedRelu { alpha } => attrs.with("alpha", Attr::Float(alpha)),
            UnaryOp::HardSigmoid { alpha, beta } => {
                attrs.with("alpha", Attr::Float(alpha)).with("beta", Attr::Float(beta))
            }
            UnaryOp::Selu { alpha, gamma } => {
                attrs.with("alpha", Attr::Float(alpha)).with("gamma", Attr::Float(gamma))
            }
            UnaryOp::Gelu { tanh } => {
                attrs.with("approximate", Attr::Str(if tanh { "tanh" } else { "none" }.to_owned()))
            }
            _ => attrs,
        }
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        let (expected, allowed) = self.op.operand();
        expect_dtype(0, x.dtype(), expected, allowed)?;
        let dtype = if self.op == UnaryOp::IsNaN { DType::Bool } else { x.dtype() };
        let elements = x.dims().filter(|_| self.op == UnaryOp::Neg);
        let elements = elements.map(|elements| elements.into_iter().map(|e| -e).collect());
        Ok(vec![with_elements(dtype, x.shape().to_vec(), elements)])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        let (expected, allowed) = self.op.operand();
        expect_dtype(0, x.dtype(), expected, allowed)?;
        let result = match self.op {
            UnaryOp::Not => {
                let inverted = x.bytes().iter().map(|&b| u8::from(b == 0)).collect();
                Ok(Tensor::from_raw(DType::Bool, x.shape(), inverted))
            }
            UnaryOp::IsNaN => {
                let nans: Vec<bool> = x.to_f64s().into_iter().map(f64::is_nan).collect();
                Ok(Tensor::from_bools(x.shape(), &nans))
            }
            op if x.dtype().is_int() => map_ints(x, |v| op.on_int(v).unwrap_or(v)),
            _ => self
                .eval_basic(x)
                .or_else(|| self.eval_activation(x))
                .unwrap_or_else(|| Err(OpError::Unsupported(format!("{} of {}", self.op.name(), x.dtype())))),
        };
        Ok(vec![result?])
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{eval, infer, plain, with};
    use super::*;
    use half::f16;

    #[test]
    fn every_function_round_trips_and_keeps_nan() {
        for op in ALL {
            let op = with(op.name(), Unary { op }.attrs());
            if matches!(op.name(), "BitwiseNot" | "Not" | "IsNaN" | "ThresholdedRelu") {
                continue;
            }
            let result = eval(&op, &[&Tensor::from_vec(&[2], vec![f32::NAN, 0.5])]).unwrap().to_f64s();
            assert!(result[0].is_nan(), "{}", op.name());
            let finite = result[1].is_finite() || op.name() == "Acosh";
            assert!(finite, "{} of 0.5 is {}", op.name(), result[1]);
        }
    }

    #[test]
    fn known_values() {
        let cases: [(&str, f64, f64); 10] = [
            ("Erf", 1.0, 0.842700792949715),
            ("Gelu", -1.0, -0.158655253931457),
            ("HardSwish", -2.0, -1.0 / 3.0),
            ("LeakyRelu", -1.0, -0.01),
            ("Mish", 1.0, 0.865098388267310),
            ("Round", 2.5, 2.0),
            ("Selu", -1.0, -1.11133073769042),
            ("Sigmoid", -800.0, 0.0),
            ("Softplus", 800.0, 800.0),
            ("Sign", -0.0, 0.0),
        ];
        for (name, x, expected) in cases {
            let result = eval(&plain(name), &[&Tensor::scalar(x)]).unwrap().to_f64s()[0];
            assert!((result - expected).abs() < 1e-7, "{name}({x}) = {result}, not {expected}");
        }
        let half = eval(&plain("Exp"), &[&Tensor::scalar(f16::from_f32(1.0))]).unwrap();
        assert_eq!(half, Tensor::scalar(f16::from_f64(std::f64::consts::E)));
    }

    #[test]
    fn integers_wrap() {
        let x = Tensor::from_vec(&[3], vec![i8::MIN, -1, 5]);
        assert_eq!(eval(&plain("Abs"), &[&x]).unwrap(), Tensor::from_vec(&[3], vec![i8::MIN, 1, 5]));
        assert_eq!(eval(&plain("Relu"), &[&x]).unwrap(), Tensor::from_vec(&[3], vec![0i8, 0, 5]));
        let x = Tensor::from_vec(&[1], vec![1u16]);
        assert_eq!(eval(&plain("BitwiseNot"), &[&x]).unwrap(), Tensor::from_vec(&[1], vec![0xfffeu16]));
    }

    #[test]
    fn dtypes_and_attributes_are_checked() {
        let fact = Fact::of_type(DType::I32, []);
        assert!(matches!(infer(&plain("Exp"), &[&fact]), Err(OpError::DType { actual: DType::I32, .. })));
        let attrs = Attrs::new().with("alpha", Attr::Float(1.0));
        assert!(Unary::from_attrs("Relu", &attrs).is_err());
        assert!(Unary::from_attrs("Gelu", &Attrs::new().with("approximate", Attr::Str("x".into()))).is_err());
    }
}
