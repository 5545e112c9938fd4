//! Functions of f32 against f64: errors in ULP, limits, and the same bits from scalars and vectors.

mod common;

use common::{access, arg, bytes, levels, load, run, stage, store, typed};
use rabot_kernel::{Dag, LoopKernel, Size, UnaryFn, Vectorize};
use rabot_target::Profile;
use rabot_tensor::DType;

fn evaluate(function: UnaryFn, profile: &Profile, x: &[f32], vectorize: Vectorize) -> Vec<f32> {
    let mut dag = Dag::default();
    let loaded = load(&mut dag, 0, DType::F32, access(&[(1, 1)]));
    let y = dag.unary(function, loaded);
    let kernel = LoopKernel {
        args: vec![arg(DType::F32, false), arg(DType::F32, true)],
        outer: vec![Size::Const(1)],
        items: 1,
        stages: vec![stage(vec![Size::Param(0)], dag, vec![store(1, access(&[(1, 1)]), y)])],
        vectorize,
    };
    let mut buffers = vec![bytes(x), vec![0; x.len() * 4]];
    assert_eq!(run(&kernel, profile, &[x.len() as i64], 1, &mut buffers), 0);
    typed(&buffers[1])
}

/// All exponents, both signs, several mantissas; the edges; and dense samples where functions bend.
fn samples() -> Vec<f32> {
    let mut x = vec![0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1.0, -1.0, f32::MAX, f32::MIN];
    x.extend([
        88.72283,
        88.72284,
        -87.33655,
        -103.97,
        -103.98,
        -104.5,
        89.5,
        0.625,
        0.927_734_4,
        1_048_576.0,
    ]);
    for exponent in 0..255u32 {
        for step in 0..64u32 {
            let mantissa = (step.wrapping_mul(0x0002_1357) ^ (exponent << 9)) & 0x007f_ffff;
            let value = f32::from_bits(exponent << 23 | mantissa);
            x.extend([value, -value]);
        }
    }
    x.extend((-40_000..40_000).map(|i| i as f32 * 0.002_501));
    x.extend((0..20_000).map(|i| 0.5 + i as f32 * 0.000_1));
    x.extend((0..2_000).map(|i| (i as f64 * std::f64::consts::FRAC_PI_2) as f32));
    x
}

/// Distance in units of the last place of the f32 nearest to `exact`.
fn ulps(actual: f32, exact: f64) -> f64 {
    let nearest = exact as f32;
    if actual == nearest || (actual.is_nan() && exact.is_nan()) {
        return 0.0;
    }
    if actual.is_nan() != exact.is_nan() || actual.is_infinite() || nearest.is_infinite() {
        // Just over the edge counts as one.
        let over = |v: f32| v.abs() >= f32::MAX;
        return if over(actual) && over(nearest) && actual.is_sign_positive() == nearest.is_sign_positive() {
            1.0
        } else {
            f64::INFINITY
        };
    }
    let unit = (f32::from_bits((nearest.abs().to_bits() + 1).min(f32::MAX.to_bits())) as f64
        - nearest.abs() as f64)
        .max(f64::from(f32::from_bits(1)));
    (actual as f64 - exact).abs() / unit
}

fn check(function: UnaryFn, exact: fn(f64) -> f64, bound: f64) {
    let x = samples();
    for profile in levels() {
        let scalar = evaluate(function, &profile, &x, Vectorize::No);
        let vector = evaluate(function, &profile, &x, Vectorize::Inner);
        let mut worst = (0.0, 0.0f32, 0.0f32);
        for ((&x, &s), &v) in x.iter().zip(&scalar).zip(&vector) {
            assert!(
                s.to_bits() == v.to_bits() || (s.is_nan() && v.is_nan()),
                "{function:?}({x}): {s} and {v}"
            );
            let exact = exact(x as f64);
            // Documented: these two give 0 instead of denormals.
            let flushed = matches!(function, UnaryFn::Exp | UnaryFn::Sigmoid) && s == 0.0;
            if flushed && exact <= f32::MIN_POSITIVE as f64 * 1.000_01 {
                continue;
            }
            let error = ulps(s, exact);
            if error > worst.0 {
                worst = (error, x, s);
            }
        }
        let (error, x, y) = worst;
        eprintln!("{function:?} on {}: {error:.2} ULP at {x:e}", profile.name);
        assert!(error <= bound, "{function:?}({x:e}) = {y:e} is off by {error} ULP on {}", profile.name);
    }
}

#[test]
fn exp() {
    check(UnaryFn::Exp, f64::exp, 1.5);
}

#[test]
fn log() {
    check(UnaryFn::Log, f64::ln, 1.5);
}

#[test]
fn sin() {
    check(UnaryFn::Sin, f64::sin, 1.5);
}

#[test]
fn cos() {
    check(UnaryFn::Cos, f64::cos, 1.5);
}

#[test]
fn tanh() {
    check(UnaryFn::Tanh, f64::tanh, 2.0);
}

#[test]
fn sigmoid() {
    check(
        UnaryFn::Sigmoid,
        |x| if x < 0.0 { x.exp() / (1.0 + x.exp()) } else { 1.0 / (1.0 + (-x).exp()) },
        2.5,
    );
}

#[test]
fn erf() {
    check(UnaryFn::Erf, libm::erf, 2.0);
}

#[test]
fn plain_functions_are_exact() {
    check(UnaryFn::Sqrt, f64::sqrt, 0.5001);
    check(UnaryFn::Reciprocal, |x| 1.0 / x, 0.5001);
    check(UnaryFn::Floor, f64::floor, 0.0);
    check(UnaryFn::Ceil, f64::ceil, 0.0);
    check(UnaryFn::Round, f64::round_ties_even, 0.0);
    check(UnaryFn::Libm("atan"), f64::atan, 1.0);
}

#[test]
fn signed_zeros_survive() {
    let profile = Profile::host().unwrap();
    for function in [UnaryFn::Sin, UnaryFn::Tanh, UnaryFn::Erf, UnaryFn::Round] {
        let y = evaluate(function, &profile, &[-0.0, 0.0, -0.0, 0.0, -0.0], Vectorize::Inner);
        let signs: Vec<bool> = y.iter().map(|v| v.is_sign_negative() && *v == 0.0).collect();
        assert_eq!(signs, [true, false, true, false, true], "{function:?}");
    }
}
