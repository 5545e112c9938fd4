//! What is done to scores of classes or targets in the end.

use super::refused;
use crate::ops::OpError;

/// A function of the scores of a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PostTransform {
    None,
    Softmax,
    Logistic,
    /// Softmax in which scores of 0 stay out of the sum.
    SoftmaxZero,
    Probit,
}

/// All, in the order of the integers that `TreeEnsemble` has for them.
const ALL: [(PostTransform, &str); 5] = [
    (PostTransform::None, "NONE"),
    (PostTransform::Softmax, "SOFTMAX"),
    (PostTransform::Logistic, "LOGISTIC"),
    (PostTransform::SoftmaxZero, "SOFTMAX_ZERO"),
    (PostTransform::Probit, "PROBIT"),
];

impl PostTransform {
    /// The function with this name. **Errors**: there is none.
    pub(super) fn parse(name: &str) -> Result<Self, OpError> {
        let found = ALL.iter().find(|(_, known)| *known == name).map(|(kind, _)| *kind);
        found.ok_or_else(|| {
            refused("post_transform", name, "expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT")
        })
    }

    /// The function with this number. **Errors**: there is none.
    pub(super) fn of_code(code: i64) -> Result<Self, OpError> {
        let found = usize::try_from(code).ok().and_then(|at| ALL.get(at)).map(|(kind, _)| *kind);
        found.ok_or_else(|| refused("post_transform", code, "expected 0 to 4"))
    }

    /// ONNX's name.
    pub(super) fn name(self) -> &'static str {
        ALL.iter().find(|(kind, _)| *kind == self).map_or("NONE", |(_, name)| name)
    }

    /// Applies it to the scores of a row.
    pub(super) fn apply(self, scores: &mut [f64]) {
        match self {
            PostTransform::None => {}
            PostTransform::Logistic => scores.iter_mut().for_each(|v| *v = logistic(*v)),
            PostTransform::Probit => scores.iter_mut().for_each(|v| *v = probit(*v)),
            PostTransform::Softmax => softmax(scores, |_| true),
            PostTransform::SoftmaxZero => softmax(scores, |v| v.abs() > 1e-7),
        }
    }
}

/// `exp(v - max) / Σ`; what does not take part is only scaled.
fn softmax(scores: &mut [f64], takes_part: impl Fn(f64) -> bool) {
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let mut sum = 0.0;
    for score in scores.iter_mut() {
        if takes_part(*score) {
            *score = (*score - max).exp();
            sum += *score;
        } else {
            *score *= (-max).exp();
        }
    }
    scores.iter_mut().for_each(|score| *score /= sum);
}

/// `1 / (1 + exp(-v))`.
pub(super) fn logistic(value: f64) -> f64 {
    let positive = 1.0 / (1.0 + (-value.abs()).exp());
    if value < 0.0 { 1.0 - positive } else { positive }
}

/// The quantile function of the normal distribution, by the approximation that ONNX Runtime has:
/// `√2 erf⁻¹(2v - 1)` after Winitzki, with a = 0.147.
///
/// **Source**: <https://en.wikipedia.org/wiki/Error_function#Approximation_with_elementary_functions>
pub(super) fn probit(value: f64) -> f64 {
    const A: f64 = 0.147;
    let x = 2.0 * value - 1.0;
    let log = ((1.0 - x) * (1.0 + x)).ln();
    let v = 2.0 / (std::f64::consts::PI * A) + 0.5 * log;
    let root = (-v + (v * v - log / A).sqrt()).sqrt();
    std::f64::consts::SQRT_2 * if x < 0.0 { -root } else { root }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transforms_have_their_formulas() {
        let mut scores = [0.0, 1.0, -1.0];
        PostTransform::Softmax.apply(&mut scores);
        assert!((scores[1] - 0.665_240_9).abs() < 1e-6 && (scores.iter().sum::<f64>() - 1.0).abs() < 1e-12);
        let mut scores = [0.0, 1.0, 1.0];
        PostTransform::SoftmaxZero.apply(&mut scores);
        assert_eq!(scores, [0.0, 0.5, 0.5]);
        let mut scores = [0.0, -40.0];
        PostTransform::Logistic.apply(&mut scores);
        assert!(scores[0] == 0.5 && scores[1] < 1e-16);
        // The quantile of 0.975 is 1.96; the approximation is good to 3 digits.
        assert!((probit(0.975) - 1.959_96).abs() < 4e-3 && (probit(0.025) + 1.959_96).abs() < 4e-3);
        for (kind, name) in ALL {
            assert_eq!(PostTransform::parse(name).map(PostTransform::name), Ok(name));
            assert_eq!(PostTransform::parse(name), Ok(kind));
        }
        assert!(PostTransform::parse("TANH").is_err() && PostTransform::of_code(5).is_err());
    }
}
