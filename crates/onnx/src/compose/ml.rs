//! Operators of the domain `ai.onnx.ml` that are expressions of others: linear models, scalers, imputers.
//!
//! **Source**: <https://onnx.ai/onnx/operators/index.html#ai-onnx-ml>; where the specification leaves a choice, it is
//! that of ONNX Runtime.

use super::Row;
use super::chain::Made;
use super::emit::{Size, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::{Draft, qualified};
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::{DType, Tensor};

const DOMAIN: &str = "ai.onnx.ml";

pub(super) const TABLE: &[Row] = &[
    (DOMAIN, "ArrayFeatureExtractor", array_feature_extractor),
    (DOMAIN, "Binarizer", binarizer),
    (DOMAIN, "CategoryMapper", category_mapper),
    (DOMAIN, "FeatureVectorizer", feature_vectorizer),
    (DOMAIN, "Imputer", imputer),
    (DOMAIN, "LabelEncoder", label_encoder),
    (DOMAIN, "LinearClassifier", linear_classifier),
    (DOMAIN, "LinearRegressor", linear_regressor),
    (DOMAIN, "Normalizer", normalizer),
    (DOMAIN, "Scaler", scaler),
];

fn refused(reason: impl Into<String>) -> Failure {
    Failure::unsupported(reason)
}

impl Draft<'_> {
    /// A list of floats; empty where the attribute is absent.
    fn floats(&self, name: &str) -> Result<Vec<f32>, Failure> {
        Ok(self.attrs.floats(name).map_err(wrong)?.unwrap_or_default())
    }

    /// A list of integers; empty where the attribute is absent.
    fn ints(&self, name: &str) -> Result<Vec<i64>, Failure> {
        Ok(self.attrs.ints(name).map_err(wrong)?.unwrap_or_default())
    }

    /// A list of strings; empty where the attribute is absent.
    fn strs(&self, name: &str) -> Result<Vec<String>, Failure> {
        match self.attrs.get(name) {
            None => Ok(Vec::new()),
            Some(Attr::Strs(values)) => Ok(values.clone()),
            Some(other) => {
                Err(refused(format!("attribute `{name}` = {other:?}, expected a list of strings")))
            }
        }
    }

    /// The features: of one of the four dtypes that the domain has.
    fn features(&self) -> Result<Value, Failure> {
        let x = self.operand(0, "X")?;
        match self.dtype_of(x) {
            DType::F32 | DType::F64 | DType::I32 | DType::I64 => Ok(x),
            other => Err(refused(format!("features of {other}"))),
        }
    }

    /// The features as f32 in rows; a list is one row.
    fn table(&mut self) -> Made {
        let x = self.features()?;
        let x = self.cast(x, DType::F32)?;
        match self.rank_of(x)? {
            1 => self.unsqueeze(x, vec![0]),
            2 => Ok(x),
            rank => Err(refused(format!("features of {rank} dims, expected 1 or 2"))),
        }
    }

    /// A constant list of floats of a dtype.
    fn row_of(&mut self, dtype: DType, values: &[f32]) -> Value {
        let values: Vec<f64> = values.iter().map(|&value| f64::from(value)).collect();
        self.constant("values", Tensor::from_f64s(dtype, &[values.len()], &values))
    }
}

/// Picks columns: the elements of `Y` along the last axis, which for a list becomes a row.
fn array_feature_extractor(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(2)?;
    let (x, columns) = (draft.operand(0, "X")?, draft.operand(1, "Y")?);
    let columns = draft.reshape(columns, &[Size::Rest])?;
    let x = if draft.rank_of(x)? == 1 { draft.unsqueeze(x, vec![0])? } else { x };
    let picked = draft.node_with("Gather", &Attrs::new().with("axis", Attr::Int(-1)), &[x, columns])?;
    draft.finish_with(vec![Some(picked)])
}

/// 1 where a value is above the threshold, else 0.
fn binarizer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["threshold"])?;
    let x = draft.features()?;
    let dtype = draft.dtype_of(x);
    let threshold = draft.float_attr("threshold", 0.0)?;
    // An integer is above a number if it is above the number cut to an integer.
    let threshold = if dtype.is_int() {
        draft.constant("threshold", Tensor::from_i64s(dtype, &[], &[threshold.floor() as i64]))
    } else {
        draft.number(dtype, threshold)
    };
    let above = draft.node("Greater", &[x, threshold])?;
    let result = draft.cast(above, dtype)?;
    draft.finish_with(vec![Some(result)])
}

/// Looks up labels with other attributes than `LabelEncoder` has them in: lists of both sides, of which the operand's
/// dtype chooses the keys.
fn encoder(mut draft: Draft<'_>, numbers: Vec<i64>, texts: Vec<String>) -> Result<Converted, Failure> {
    let x = draft.operand(0, "X")?;
    let mut attrs = Attrs::new();
    if draft.dtype_of(x) == DType::String {
        attrs.set("keys_strings", Attr::Strs(texts));
        attrs.set("values_int64s", Attr::Ints(numbers));
        attrs.set("default_int64", Attr::Int(draft.int_attr("default_int64", -1)?));
    } else {
        attrs.set("keys_int64s", Attr::Ints(numbers));
        attrs.set("values_strings", Attr::Strs(texts));
        attrs.set("default_string", Attr::Str(draft.attrs.str("default_string", "_Unused").map_err(wrong)?));
    }
    draft.attrs = attrs;
    draft.op = qualified(DOMAIN, "LabelEncoder");
    draft.finish()
}

fn category_mapper(draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["cats_int64s", "cats_strings", "default_int64", "default_string"])?;
    let (numbers, texts) = (draft.ints("cats_int64s")?, draft.strs("cats_strings")?);
    encoder(draft, numbers, texts)
}

/// The first version has one list of strings, whose places are the integers.
fn label_encoder(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    if draft.opset < 2 {
        draft.check_attrs(&["classes_strings", "default_int64", "default_string"])?;
        let texts = draft.strs("classes_strings")?;
        return encoder(draft, (0..).take(texts.len()).collect(), texts);
    }
    draft.op = qualified(DOMAIN, "LabelEncoder");
    draft.finish()
}

/// Features side by side as f32, each cut to or filled up with zeros to its number of columns.
fn feature_vectorizer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["inputdimensions"])?;
    let widths = draft.ints("inputdimensions")?;
    if widths.len() != draft.inputs.len() || widths.iter().any(|&width| width < 0) {
        return Err(refused(format!("inputdimensions = {widths:?} for {} inputs", draft.inputs.len())));
    }
    let mut parts = Vec::new();
    for (slot, width) in widths.into_iter().enumerate() {
        let x = draft.operand(slot, "X")?;
        let x = draft.cast(x, DType::F32)?;
        let x = match draft.rank_of(x)? {
            0 => return Err(refused(format!("input {slot} has no dims"))),
            1 => draft.unsqueeze(x, vec![0])?,
            2 => x,
            _ => draft.node_with("Flatten", &Attrs::new().with("axis", Attr::Int(1)), &[x])?,
        };
        parts.push(fit_columns(&mut draft, x, width)?);
    }
    let joined = draft.joined(&parts, 1)?;
    draft.finish_with(vec![Some(joined)])
}

/// A table with exactly `width` columns.
fn fit_columns(draft: &mut Draft<'_>, x: Value, width: i64) -> Made {
    match draft.known_length(x, 1) {
        Some(known) if known == width => return Ok(x),
        Some(known) if known > width => return draft.slice(x, 1, (0, width, 1)),
        _ => {}
    }
    // As many zeros as there could be missing, and then a cut.
    let zeros = draft.filled(DType::F32, 0.0, &[Size::Of(x, 0), Size::Is(width)])?;
    let filled = draft.concat(1, &[x, zeros])?;
    draft.slice(filled, 1, (0, width, 1))
}

/// Values of one kind are replaced by others, one for all columns or one for each.
fn imputer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known =
        ["imputed_value_floats", "imputed_value_int64s", "replaced_value_float", "replaced_value_int64"];
    draft.check_attrs(&known)?;
    let x = draft.features()?;
    let dtype = draft.dtype_of(x);
    let (missing, values) = if dtype.is_int() {
        let values = draft.ints("imputed_value_int64s")?;
        let replaced = draft.int_attr("replaced_value_int64", 0)?;
        let replaced = draft.constant("replaced", Tensor::from_i64s(dtype, &[], &[replaced]));
        let values = Tensor::from_i64s(dtype, &[values.len()], &values);
        (draft.node("Equal", &[x, replaced])?, draft.constant("imputed", values))
    } else {
        let values = draft.floats("imputed_value_floats")?;
        let replaced = draft.float_attr("replaced_value_float", 0.0)?;
        let missing = if replaced.is_nan() {
            draft.node("IsNaN", &[x])?
        } else {
            let replaced = draft.number(dtype, replaced);
            draft.node("Equal", &[x, replaced])?
        };
        (missing, draft.row_of(dtype, &values))
    };
    let count = draft.graph.fact(values).shape().first().and_then(rabot_ir::Dim::as_const).unwrap_or(0);
    if count == 0 {
        return Err(refused(format!("no imputed values of {dtype}")));
    }
    let rank = draft.rank_of(x)?;
    if rank == 0 || (count > 1 && draft.known_length(x, rank - 1).is_some_and(|columns| columns != count)) {
        return Err(refused(format!("{count} imputed values: expected one, or one for each column")));
    }
    let result = draft.node("Where", &[missing, values, x])?;
    draft.finish_with(vec![Some(result)])
}

/// Rows divided by their maximum, sum of magnitudes or length; rows where that is 0 stay.
fn normalizer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["norm"])?;
    let x = draft.features()?;
    let x = draft.cast(x, DType::F32)?;
    let axis = match draft.rank_of(x)? {
        rank @ 1..=2 => rank as i64 - 1,
        rank => return Err(refused(format!("features of {rank} dims, expected 1 or 2"))),
    };
    let norm = match draft.attrs.str("norm", "MAX").map_err(wrong)?.as_str() {
        "MAX" => draft.reduce("ReduceMax", x, &[axis])?,
        "L1" => draft.reduce("ReduceL1", x, &[axis])?,
        "L2" => draft.reduce("ReduceL2", x, &[axis])?,
        other => return Err(refused(format!("norm = {other:?}, expected MAX, L1 or L2"))),
    };
    let (zero, one) = (draft.number(DType::F32, 0.0), draft.number(DType::F32, 1.0));
    let none = draft.node("Equal", &[norm, zero])?;
    let divisor = draft.node("Where", &[none, one, norm])?;
    let result = draft.over(x, divisor)?;
    draft.finish_with(vec![Some(result)])
}

/// `(x - offset) * scale`, one for all columns or one for each.
fn scaler(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["offset", "scale"])?;
    let x = draft.features()?;
    let (offset, scale) = (draft.floats("offset")?, draft.floats("scale")?);
    // Integers and f64 are rounded to f32 in the end, not before.
    let working = if draft.dtype_of(x) == DType::F32 { DType::F32 } else { DType::F64 };
    let mut result = draft.cast(x, working)?;
    let rank = draft.rank_of(x)?;
    let columns = rank.checked_sub(1).and_then(|last| draft.known_length(x, last));
    for (name, values) in [("offset", &offset), ("scale", &scale)] {
        let count = values.len() as i64;
        if count > 1 && (rank == 0 || columns.is_some_and(|columns| columns != count)) {
            return Err(refused(format!("{count} values of {name}: expected one, or one for each column")));
        }
    }
    if !offset.is_empty() {
        let offset = draft.row_of(working, &offset);
        result = draft.minus(result, offset)?;
    }
    if !scale.is_empty() {
        let scale = draft.row_of(working, &scale);
        result = draft.times(result, scale)?;
    }
    let result = draft.cast(result, DType::F32)?;
    draft.finish_with(vec![Some(result)])
}

/// `x · coefficientsᵀ + intercepts`, rows of scores.
fn linear(draft: &mut Draft<'_>, targets: usize) -> Made {
    let x = draft.table()?;
    let coefficients = draft.floats("coefficients")?;
    let intercepts = draft.floats("intercepts")?;
    if targets == 0 || coefficients.is_empty() || !coefficients.len().is_multiple_of(targets) {
        return Err(refused(format!("{} coefficients for {targets} targets", coefficients.len())));
    }
    let features = coefficients.len() / targets;
    if draft.known_length(x, 1).is_some_and(|columns| columns != features as i64) {
        return Err(refused(format!("the model has {features} features, but the input has another number")));
    }
    let weights = draft.constant("coefficients", Tensor::from_vec(&[targets, features], coefficients));
    let mut operands = vec![x, weights];
    if !intercepts.is_empty() {
        if intercepts.len() != targets {
            return Err(refused(format!("{} intercepts for {targets} targets", intercepts.len())));
        }
        operands.push(draft.constant("intercepts", Tensor::from_vec(&[targets], intercepts)));
    }
    draft.node_with("Gemm", &Attrs::new().with("transB", Attr::Int(1)), &operands)
}

/// The function of the scores that the attribute names. A single score knows none but PROBIT.
fn transformed(draft: &mut Draft<'_>, scores: Value, columns: usize) -> Made {
    let name = draft.attrs.str("post_transform", "NONE").map_err(wrong)?;
    match name.as_str() {
        "PROBIT" => probit(draft, scores),
        "LOGISTIC" if columns > 1 => draft.node("Sigmoid", &[scores]),
        "SOFTMAX" if columns > 1 => {
            draft.node_with("Softmax", &Attrs::new().with("axis", Attr::Int(-1)), &[scores])
        }
        "SOFTMAX_ZERO" if columns > 1 => softmax_zero(draft, scores),
        "NONE" | "LOGISTIC" | "SOFTMAX" | "SOFTMAX_ZERO" => Ok(scores),
        other => Err(refused(format!(
            "post_transform = {other:?}, expected NONE, SOFTMAX, LOGISTIC, SOFTMAX_ZERO or PROBIT"
        ))),
    }
}

/// Softmax in which scores of 0 stay out of the sum.
fn softmax_zero(draft: &mut Draft<'_>, scores: Value) -> Made {
    let max = draft.reduce("ReduceMax", scores, &[-1])?;
    let above = draft.minus(scores, max)?;
    let power = draft.node("Exp", &[above])?;
    let magnitude = draft.node("Abs", &[scores])?;
    let (least, zero) = (draft.number(DType::F32, 1e-7), draft.number(DType::F32, 0.0));
    let takes_part = draft.node("Greater", &[magnitude, least])?;
    let part = draft.node("Where", &[takes_part, power, zero])?;
    let sum = draft.reduce("ReduceSum", part, &[-1])?;
    let falling = draft.node("Neg", &[max])?;
    let falling = draft.node("Exp", &[falling])?;
    let small = draft.times(scores, falling)?;
    let chosen = draft.node("Where", &[takes_part, power, small])?;
    draft.over(chosen, sum)
}

/// `√2 erf⁻¹(2v - 1)` by the approximation of Winitzki with a = 0.147.
fn probit(draft: &mut Draft<'_>, scores: Value) -> Made {
    const A: f64 = 0.147;
    let doubled = draft.scaled(scores, 2.0)?;
    let x = draft.shifted(doubled, -1.0)?;
    let falling = draft.scaled(x, -1.0)?;
    let (less, more) = (draft.shifted(falling, 1.0)?, draft.shifted(x, 1.0)?);
    let product = draft.times(less, more)?;
    let log = draft.node("Log", &[product])?;
    let half = draft.scaled(log, 0.5)?;
    let v = draft.shifted(half, 2.0 / (std::f64::consts::PI * A))?;
    let square = draft.times(v, v)?;
    let rest = draft.scaled(log, 1.0 / A)?;
    let inner = draft.minus(square, rest)?;
    let inner = draft.node("Sqrt", &[inner])?;
    let root = draft.minus(inner, v)?;
    let root = draft.node("Sqrt", &[root])?;
    let root = draft.scaled(root, std::f64::consts::SQRT_2)?;
    let opposite = draft.node("Neg", &[root])?;
    let zero = draft.number(DType::F32, 0.0);
    let negative = draft.node("Less", &[x, zero])?;
    draft.node("Where", &[negative, opposite, root])
}

fn linear_regressor(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["coefficients", "intercepts", "post_transform", "targets"])?;
    let targets = draft.int_attr("targets", 1)?;
    let targets = usize::try_from(targets).map_err(|_| refused(format!("targets = {targets}")))?;
    let scores = linear(&mut draft, targets)?;
    let result = transformed(&mut draft, scores, targets)?;
    draft.finish_with(vec![Some(result)])
}

/// The labels as a constant, and whether each is its own place.
fn class_labels(draft: &mut Draft<'_>) -> Result<(Tensor, bool), Failure> {
    let (texts, numbers) = (draft.strs("classlabels_strings")?, draft.ints("classlabels_ints")?);
    if !texts.is_empty() {
        return Ok((Tensor::from_strings(&[texts.len()], texts), false));
    }
    if numbers.is_empty() {
        return Err(refused("neither classlabels_strings nor classlabels_ints is there"));
    }
    let trivial = numbers.iter().copied().eq(0..numbers.len() as i64);
    Ok((Tensor::from_vec(&[numbers.len()], numbers), trivial))
}

/// Labels of the largest scores, and the scores; a single score is that of the second of two classes.
fn linear_classifier(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = [
        "classlabels_ints",
        "classlabels_strings",
        "coefficients",
        "intercepts",
        "multi_class",
        "post_transform",
    ];
    draft.check_attrs(&known)?;
    let (labels, trivial) = class_labels(&mut draft)?;
    let classes = labels.len();
    let targets = match draft.floats("intercepts")?.len() {
        0 => classes,
        count => count,
    };
    if targets != classes && (targets, classes) != (1, 2) {
        return Err(refused(format!("{classes} labels for {targets} intercepts")));
    }
    let scores = linear(&mut draft, targets)?;
    let pick = if targets == 1 {
        let zero = draft.number(DType::F32, 0.0);
        let positive = draft.node("Greater", &[scores, zero])?;
        let positive = draft.squeezed(positive, &[1])?;
        draft.cast(positive, DType::I64)?
    } else {
        let attrs = Attrs::new().with("axis", Attr::Int(1)).with("keepdims", Attr::Int(0));
        draft.node_with("ArgMax", &attrs, &[scores])?
    };
    let label = if trivial {
        pick
    } else {
        let labels = draft.constant("labels", labels);
        draft.node("Gather", &[labels, pick])?
    };
    let result = if (targets, classes) == (1, 2) {
        both(&mut draft, scores)?
    } else {
        transformed(&mut draft, scores, targets)?
    };
    draft.finish_with(vec![Some(label), Some(result)])
}

/// Scores of both classes from that of the second one.
fn both(draft: &mut Draft<'_>, scores: Value) -> Made {
    let name = draft.attrs.str("post_transform", "NONE").map_err(wrong)?;
    let falling = draft.node("Neg", &[scores])?;
    let (first, second) = match name.as_str() {
        "LOGISTIC" => (draft.node("Sigmoid", &[falling])?, draft.node("Sigmoid", &[scores])?),
        "NONE" | "SOFTMAX" | "SOFTMAX_ZERO" => (draft.shifted(falling, 1.0)?, scores),
        other => {
            return Err(refused(format!(
                "post_transform = {other:?} with one score for two classes: the other's is not defined"
            )));
        }
    };
    draft.concat(1, &[first, second])
}
