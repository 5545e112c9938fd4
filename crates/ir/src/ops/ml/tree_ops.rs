//! `TreeEnsemble`, `TreeEnsembleClassifier`, `TreeEnsembleRegressor`: decision trees whose leaves add up.
//!
//! A row of features walks each tree from the root to a leaf; the leaf has weights for targets or classes, which are
//! summed (or averaged, …) over the trees; base values are added and a function is applied in the end.
//!
//! **Shapes**: `[n,f]` (or `[f]`, one row) → scores `[n,targets]`, labels `[n]`.
//!
//! **Dtypes**: features f32, f64, i32, i64; scores f32. `TreeEnsemble`: f32, f64, f16 throughout.
//!
//! Integers are compared as f32. Of classifiers with two classes, the conventions are those of ONNX Runtime: where only
//! one class has weights, it is the positive one; its score decides at 0.5 if no weight is negative, else at 0.
//!
//! **Opsets** (ai.onnx.ml): classifier and regressor 1, 3 (numbers as tensors); `TreeEnsemble` 5.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleClassifier.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsembleRegressor.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_TreeEnsemble.html>

use super::scores::{PostTransform, logistic};
use super::tree_attrs::{by_index, by_node_ids, canonical, numbers};
use super::trees::{Aggregate, Ensemble};
use super::{Labels, Table, expect_columns, implied_columns, is_feature, refused, table_dims};
use crate::ops::movement::reserve;
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

const FEATURES: &str = "f32, f64, i32 or i64";

/// `TreeEnsembleClassifier`: operand features; results labels and scores.
#[derive(Clone, Debug)]
pub struct TreeClassifier {
    attrs: Attrs,
    trees: Ensemble,
    labels: Labels,
    base: Vec<f64>,
    post: PostTransform,
    /// True if no weight is negative.
    positive: bool,
    /// True if there are two classes and only one of them has weights.
    binary: bool,
}

/// `TreeEnsembleRegressor`: operand features; result scores.
#[derive(Clone, Debug)]
pub struct TreeRegressor {
    attrs: Attrs,
    trees: Ensemble,
    base: Vec<f64>,
    post: PostTransform,
    aggregate: Aggregate,
}

/// `TreeEnsemble`: operand features; result scores.
#[derive(Clone, Debug)]
pub struct TreeEnsemble {
    attrs: Attrs,
    trees: Ensemble,
    post: PostTransform,
    aggregate: Aggregate,
    /// Dtype of splits and weights.
    dtype: DType,
}

impl PartialEq for TreeClassifier {
    fn eq(&self, other: &Self) -> bool {
        self.attrs == other.attrs
    }
}

impl PartialEq for TreeRegressor {
    fn eq(&self, other: &Self) -> bool {
        self.attrs == other.attrs
    }
}

impl PartialEq for TreeEnsemble {
    fn eq(&self, other: &Self) -> bool {
        self.attrs == other.attrs
    }
}

/// One value for each target, one for the only target, or none.
fn base_values(attrs: &Attrs, allowed: &[usize]) -> Result<Vec<f64>, OpError> {
    let base = numbers(attrs, "base_values_as_tensor")?;
    if base.is_empty() || allowed.contains(&base.len()) {
        return Ok(base);
    }
    Err(refused("base_values", format!("{} values", base.len()), "expected one for each target or class"))
}

fn infer_rows(inputs: &[Option<&Fact>], trees: &Ensemble) -> Result<Dim, OpError> {
    arity(inputs, 1, 1)?;
    let (rows, columns) = table_dims(required(inputs, 0, "X")?)?;
    expect_columns(&columns, trees.features, false)?;
    Ok(rows)
}

impl TreeClassifier {
    /// Label of a row by number, after base values are added to its scores. A score that stands for both classes is
    /// written twice.
    fn decide(&self, scores: &mut [f64], seen: &mut [bool]) -> Result<usize, OpError> {
        if scores.len() > 2 {
            for (at, base) in self.base.iter().enumerate() {
                scores[at] += base;
                seen[at] = true;
            }
            let best = (0..scores.len())
                .filter(|&at| seen[at])
                .reduce(|best, at| if scores[at] > scores[best] { at } else { best });
            self.post.apply(scores);
            return best.ok_or_else(|| OpError::Value("no tree gives a weight to any class".to_owned()));
        }
        let mut single = !seen.get(1).copied().unwrap_or(false);
        match (&self.base[..], &mut *scores) {
            ([_, base], [first, second]) if !single => {
                // The second score is that of both: as in ONNX Runtime, which takes the base values to be equal.
                *second = base + *first;
                *first = -*second;
            }
            ([low, high], [first, second]) => {
                *first += low;
                *second += high;
                single = false;
            }
            ([base], [first, ..]) => *first += base,
            _ => {}
        }
        let deciding = if seen.get(1).copied().unwrap_or(false) { scores[1] } else { scores[0] };
        let wins = deciding > if self.binary && self.positive { 0.5 } else { 0.0 };
        if scores.len() == 2 && single {
            self.both(scores)?;
        } else {
            // Whatever was added, a class that no tree speaks of has a score of 0.
            let unseen = scores.iter_mut().zip(seen.iter()).filter(|(_, seen)| !**seen);
            unseen.for_each(|(score, _)| *score = 0.0);
            self.post.apply(scores);
        }
        // With one class there is nothing to decide.
        Ok(usize::from(wins && scores.len() == 2))
    }

    /// Scores of both classes from that of the positive one, which comes first.
    fn both(&self, scores: &mut [f64]) -> Result<(), OpError> {
        let score = scores[0];
        let (first, second) = match (self.post, self.binary && self.positive) {
            (PostTransform::Probit, _) => {
                let reason =
                    "PROBIT where trees give a score to one of two classes: the other's is not defined";
                return Err(OpError::Unsupported(reason.to_owned()));
            }
            (PostTransform::Logistic, _) => (logistic(-score), logistic(score)),
            (_, true) => (1.0 - score, score),
            (_, false) => (-score, score),
        };
        (scores[0], scores[1]) = (first, second);
        Ok(())
    }
}

impl OpDef for TreeClassifier {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.TreeEnsembleClassifier"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let attrs = canonical(attrs, "class", &["classlabels_int64s", "classlabels_strings"])?;
        let labels = Labels::from_attrs(&attrs, "classlabels_int64s", "classlabels_strings")?;
        let classes = labels.len();
        let trees = by_node_ids(&attrs, "class", classes)?;
        let base = base_values(&attrs, if classes == 2 { &[1, 2] } else { std::slice::from_ref(&classes) })?;
        let post = PostTransform::parse(&attrs.str("post_transform", "NONE")?)?;
        let positive = trees.weights().iter().all(|(_, weight)| *weight >= 0.0);
        let first = trees.weights().first().map(|(class, _)| *class);
        let binary = classes == 2 && trees.weights().iter().all(|(class, _)| Some(*class) == first);
        Ok(TreeClassifier { attrs, trees, labels, base, post, positive, binary })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        self.attrs.clone()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let rows = infer_rows(inputs, &self.trees)?;
        expect_dtype(0, required(inputs, 0, "X")?.dtype(), FEATURES, is_feature)?;
        let labels = Fact::of_type(self.labels.dtype(), [rows.clone()]);
        Ok(vec![labels, Fact::of_type(DType::F32, [rows, Dim::from(self.labels.len())])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FEATURES, is_feature)?;
        let table = Table::of(x, self.trees.features)?;
        let classes = self.labels.len();
        let mut votes = self.trees.votes(&table, Aggregate::Sum)?;
        let mut picked = reserve(&[table.rows])?;
        let rows = votes.scores.chunks_exact_mut(classes).zip(votes.seen.chunks_exact_mut(classes));
        for (scores, seen) in rows {
            picked.push(self.decide(scores, seen)?);
        }
        let scores = Tensor::from_f64s(DType::F32, &[table.rows, classes], &votes.scores);
        Ok(vec![self.labels.pick(&picked)?, scores])
    }
}

impl OpDef for TreeRegressor {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.TreeEnsembleRegressor"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let attrs = canonical(attrs, "target", &["n_targets", "aggregate_function"])?;
        let targets = implied_columns("n_targets", attrs.required_int("n_targets")?)?;
        let aggregate = match attrs.str("aggregate_function", "SUM")?.as_str() {
            "SUM" => Aggregate::Sum,
            "AVERAGE" => Aggregate::Average,
            "MIN" => Aggregate::Min,
            "MAX" => Aggregate::Max,
            other => return Err(refused("aggregate_function", other, "expected SUM, AVERAGE, MIN or MAX")),
        };
        let trees = by_node_ids(&attrs, "target", targets)?;
        let base = base_values(&attrs, &[targets])?;
        let post = PostTransform::parse(&attrs.str("post_transform", "NONE")?)?;
        Ok(TreeRegressor { attrs, trees, base, post, aggregate })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        self.attrs.clone()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let rows = infer_rows(inputs, &self.trees)?;
        expect_dtype(0, required(inputs, 0, "X")?.dtype(), FEATURES, is_feature)?;
        Ok(vec![Fact::of_type(DType::F32, [rows, Dim::from(self.trees.targets)])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FEATURES, is_feature)?;
        let scores = regress(x, &self.trees, self.aggregate, &self.base, self.post)?;
        Ok(vec![Tensor::from_f64s(
            DType::F32,
            &[scores.len() / self.trees.targets, self.trees.targets],
            &scores,
        )])
    }
}

/// Scores of all rows and targets. A single target knows no function but PROBIT, as in ONNX Runtime.
fn regress(
    x: &Tensor,
    trees: &Ensemble,
    aggregate: Aggregate,
    base: &[f64],
    post: PostTransform,
) -> Result<Vec<f64>, OpError> {
    let table = Table::of(x, trees.features)?;
    let mut scores = trees.votes(&table, aggregate)?.scores;
    for row in scores.chunks_exact_mut(trees.targets) {
        row.iter_mut().zip(base).for_each(|(score, base)| *score += base);
        if trees.targets > 1 || post == PostTransform::Probit {
            post.apply(row);
        }
    }
    Ok(scores)
}

const ENSEMBLE: [&str; 16] = [
    "aggregate_function",
    "leaf_targetids",
    "leaf_weights",
    "membership_values",
    "n_targets",
    "nodes_falseleafs",
    "nodes_falsenodeids",
    "nodes_featureids",
    "nodes_hitrates",
    "nodes_missing_value_tracks_true",
    "nodes_modes",
    "nodes_splits",
    "nodes_trueleafs",
    "nodes_truenodeids",
    "post_transform",
    "tree_roots",
];

impl OpDef for TreeEnsemble {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.TreeEnsemble"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &ENSEMBLE)?;
        let mut attrs = attrs.clone();
        attrs.remove("nodes_hitrates");
        let targets = implied_columns("n_targets", attrs.int("n_targets", 1)?)?;
        let order = [Aggregate::Average, Aggregate::Sum, Aggregate::Min, Aggregate::Max];
        let code = attrs.int("aggregate_function", 1)?;
        let aggregate = usize::try_from(code).ok().and_then(|code| order.get(code)).copied();
        let aggregate = aggregate.ok_or_else(|| refused("aggregate_function", code, "expected 0 to 3"))?;
        let post = PostTransform::of_code(attrs.int("post_transform", 0)?)?;
        let dtype = match (attrs.get("nodes_splits"), attrs.get("leaf_weights")) {
            (Some(Attr::Tensor(splits)), Some(Attr::Tensor(weights)))
                if splits.dtype() == weights.dtype() =>
            {
                splits.dtype()
            }
            _ => {
                return Err(refused(
                    "leaf_weights",
                    "another value",
                    "expected a tensor of nodes_splits' dtype",
                ));
            }
        };
        let trees = by_index(&attrs, targets)?;
        Ok(TreeEnsemble { attrs, trees, post, aggregate, dtype })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        self.attrs.clone()
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let rows = infer_rows(inputs, &self.trees)?;
        let expected = format!("{}, as the splits", self.dtype);
        expect_dtype(0, required(inputs, 0, "X")?.dtype(), &expected, |d| d == self.dtype)?;
        Ok(vec![Fact::of_type(self.dtype, [rows, Dim::from(self.trees.targets)])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "the dtype of the splits", |d| d == self.dtype)?;
        let scores = regress(x, &self.trees, self.aggregate, &[], self.post)?;
        Ok(vec![Tensor::from_f64s(
            self.dtype,
            &[scores.len() / self.trees.targets, self.trees.targets],
            &scores,
        )])
    }
}
