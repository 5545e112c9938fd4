//! Functions of the C library that compiled code may call.

use cranelift_codegen::ir::types::{F32, F64};
use cranelift_codegen::ir::{AbiParam, Signature};
use cranelift_codegen::isa::CallConv;

/// Namespace of these functions among external names; the index is that in [`SYMBOLS`].
pub const NAMESPACE: u32 = 1;

/// A function that compiled code may call.
#[derive(Clone, Copy)]
pub struct Symbol {
    /// Its name in the C library.
    pub name: &'static str,
    /// Number of operands.
    pub operands: usize,
    /// True if it works on f32, false if on f64.
    pub single: bool,
    /// The same function here, for code that is run in memory.
    pub address: fn() -> *const u8,
}

macro_rules! symbols {
    (unary { $($n1:ident $n1f:ident $m1:expr, $m1f:expr;)* } binary { $($n2:ident $n2f:ident $m2:expr, $m2f:expr;)* }) => {
        $(
            extern "C" fn $n1(x: f64) -> f64 { $m1(x) }
            extern "C" fn $n1f(x: f32) -> f32 { $m1f(x) }
        )*
        $(
            extern "C" fn $n2(x: f64, y: f64) -> f64 { $m2(x, y) }
            extern "C" fn $n2f(x: f32, y: f32) -> f32 { $m2f(x, y) }
        )*
        /// All of them.
        pub const SYMBOLS: &[Symbol] = &[
            $(
                Symbol { name: stringify!($n1), operands: 1, single: false, address: || $n1 as *const u8 },
                Symbol { name: stringify!($n1f), operands: 1, single: true, address: || $n1f as *const u8 },
            )*
            $(
                Symbol { name: stringify!($n2), operands: 2, single: false, address: || $n2 as *const u8 },
                Symbol { name: stringify!($n2f), operands: 2, single: true, address: || $n2f as *const u8 },
            )*
        ];
    };
}

symbols! {
    unary {
        exp expf f64::exp, f32::exp;
        exp2 exp2f f64::exp2, f32::exp2;
        expm1 expm1f f64::exp_m1, f32::exp_m1;
        log logf f64::ln, f32::ln;
        log2 log2f f64::log2, f32::log2;
        log10 log10f f64::log10, f32::log10;
        log1p log1pf f64::ln_1p, f32::ln_1p;
        sin sinf f64::sin, f32::sin;
        cos cosf f64::cos, f32::cos;
        tan tanf f64::tan, f32::tan;
        asin asinf f64::asin, f32::asin;
        acos acosf f64::acos, f32::acos;
        atan atanf f64::atan, f32::atan;
        sinh sinhf f64::sinh, f32::sinh;
        cosh coshf f64::cosh, f32::cosh;
        tanh tanhf f64::tanh, f32::tanh;
        asinh asinhf libm::asinh, libm::asinhf;
        acosh acoshf libm::acosh, libm::acoshf;
        atanh atanhf libm::atanh, libm::atanhf;
        cbrt cbrtf f64::cbrt, f32::cbrt;
        erf erff libm::erf, libm::erff;
        erfc erfcf libm::erfc, libm::erfcf;
        lgamma lgammaf libm::lgamma, libm::lgammaf;
        tgamma tgammaf libm::tgamma, libm::tgammaf;
    }
    binary {
        pow powf f64::powf, f32::powf;
        fmod fmodf |x: f64, y: f64| x % y, |x: f32, y: f32| x % y;
        atan2 atan2f f64::atan2, f32::atan2;
    }
}

/// Index in [`SYMBOLS`] of the f32 or f64 variant of the function with this (f64) name.
pub fn index(name: &str, single: bool, operands: usize) -> Option<usize> {
    SYMBOLS.iter().position(|symbol| {
        let base = if symbol.single { symbol.name.strip_suffix('f') } else { Some(symbol.name) };
        base == Some(name) && symbol.single == single && symbol.operands == operands
    })
}

/// Signature of a function.
pub fn signature(symbol: &Symbol, call_conv: CallConv) -> Signature {
    let ty = if symbol.single { F32 } else { F64 };
    let mut signature = Signature::new(call_conv);
    signature.params.resize(symbol.operands, AbiParam::new(ty));
    signature.returns.push(AbiParam::new(ty));
    signature
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_inverse_of_tanh_is_exact_near_both_ends() {
        // The standard library's loses all digits near -1.
        let near: f32 = -0.999_999_94;
        assert_eq!(atanhf(near), -atanhf(-near));
        assert!((f64::from(atanhf(near)) - libm::atanh(f64::from(near))).abs() < 1e-6);
    }

    #[test]
    fn finds_both_precisions() {
        let single = index("erf", true, 1).map(|i| SYMBOLS[i].name);
        assert_eq!(single, Some("erff"));
        assert_eq!(index("erf", false, 1).map(|i| SYMBOLS[i].name), Some("erf"));
        assert_eq!(index("erf", true, 2), None);
        assert_eq!(index("system", true, 1), None);
    }
}
