//! `SVMClassifier`, `SVMRegressor`: support vector machines.
//!
//! With support vectors `v_k`, coefficients `c` and a kernel `K`, a decision is `Σ c_k K(x, v_k) + ρ`. The classifier
//! makes one for each pair of classes and counts votes; with `prob_a` and `prob_b` it makes probabilities of pairs
//! (Platt) and couples them. Without support vectors it is linear: one decision `x · c + ρ_0` for each class.
//!
//! **Kernels**: LINEAR `x·v`, POLY `(γ x·v + r)^d`, RBF `exp(-γ |x - v|²)`, SIGMOID `tanh(γ x·v + r)`, of
//! `kernel_params = [γ, r, d]`.
//!
//! **Shapes**: `[n,f]` (or `[f]`, one row) → labels `[n]` and scores `[n,classes]`, or `[n,pairs]` where there are no
//! probabilities and more than two classes; the regressor gives `[n,1]`.
//!
//! **Dtypes**: features f32, f64, i32, i64; scores f32.
//!
//! **Opsets** (ai.onnx.ml): 1.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMClassifier.html>,
//! <https://onnx.ai/onnx/operators/onnx_aionnxml_SVMRegressor.html>; coupling:
//! <https://www.csie.ntu.edu.tw/~cjlin/papers/svmprob/svmprob.pdf>

use super::scores::{PostTransform, logistic};
use super::{Labels, Table, expect_columns, is_feature, refused, table_dims};
use crate::ops::movement::reserve;
use crate::ops::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

const FEATURES: &str = "f32, f64, i32 or i64";

#[derive(Clone, Copy, Debug, PartialEq)]
enum KernelKind {
    Linear,
    Poly,
    Rbf,
    Sigmoid,
}

/// A kernel with its parameters.
#[derive(Clone, Debug, PartialEq)]
struct Kernel {
    kind: KernelKind,
    params: Vec<f32>,
}

impl Kernel {
    fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        let kind = match attrs.str("kernel_type", "LINEAR")?.as_str() {
            "LINEAR" => KernelKind::Linear,
            "POLY" => KernelKind::Poly,
            "RBF" => KernelKind::Rbf,
            "SIGMOID" => KernelKind::Sigmoid,
            other => return Err(refused("kernel_type", other, "expected LINEAR, POLY, RBF or SIGMOID")),
        };
        let params = attrs.floats("kernel_params")?.unwrap_or_default();
        if params.len() != 3 && !(params.is_empty() && kind == KernelKind::Linear) {
            return Err(refused("kernel_params", format!("{params:?}"), "expected gamma, coef0 and degree"));
        }
        Ok(Kernel { kind, params })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            KernelKind::Linear => "LINEAR",
            KernelKind::Poly => "POLY",
            KernelKind::Rbf => "RBF",
            KernelKind::Sigmoid => "SIGMOID",
        }
    }

    fn of(&self, x: &[f64], vector: &[f32]) -> f64 {
        let param = |at: usize| self.params.get(at).map_or(0.0, |&p| f64::from(p));
        let (gamma, coef, degree) = (param(0), param(1), param(2));
        let pairs = || x.iter().zip(vector).map(|(&x, &v)| (x, f64::from(v)));
        let dot = || pairs().map(|(x, v)| x * v).sum::<f64>();
        match self.kind {
            KernelKind::Linear => dot(),
            KernelKind::Poly => (gamma * dot() + coef).powf(degree),
            KernelKind::Sigmoid => (gamma * dot() + coef).tanh(),
            KernelKind::Rbf => (-gamma * pairs().map(|(x, v)| (x - v) * (x - v)).sum::<f64>()).exp(),
        }
    }
}

fn floats(attrs: &Attrs, name: &str) -> Result<Vec<f32>, OpError> {
    Ok(attrs.floats(name)?.unwrap_or_default())
}

fn set_floats(attrs: &mut Attrs, name: &str, values: &[f32]) {
    if !values.is_empty() {
        attrs.set(name, Attr::Floats(values.to_vec()));
    }
}

fn expect_len(name: &str, actual: usize, expected: usize) -> Result<(), OpError> {
    if actual == expected {
        return Ok(());
    }
    Err(refused(name, format!("{actual} values"), &format!("expected {expected}")))
}

/// Length of each of `count` vectors that lie one after the other.
fn vector_len(name: &str, values: &[f32], count: usize) -> Result<usize, OpError> {
    if count == 0 || values.is_empty() || !values.len().is_multiple_of(count) {
        return Err(refused(name, format!("{} values", values.len()), &format!("expected {count} vectors")));
    }
    Ok(values.len() / count)
}

/// `SVMClassifier`: operand features; results labels and scores.
#[derive(Clone, Debug, PartialEq)]
pub struct SvmClassifier {
    labels: Labels,
    kernel: Kernel,
    coefficients: Vec<f32>,
    support: Vec<f32>,
    per_class: Vec<i64>,
    /// Where the vectors of each class start, and where the last ones end.
    starts: Vec<usize>,
    rho: Vec<f32>,
    prob_a: Vec<f32>,
    prob_b: Vec<f32>,
    post: PostTransform,
    features: usize,
}

impl SvmClassifier {
    fn linear(&self) -> bool {
        self.vectors() == 0
    }

    fn vectors(&self) -> usize {
        self.starts.last().copied().unwrap_or(0)
    }

    fn probabilities(&self) -> bool {
        !self.prob_a.is_empty()
    }

    /// Columns of the scores.
    fn columns(&self) -> usize {
        let classes = self.labels.len();
        if self.linear() || self.probabilities() || classes <= 2 {
            classes
        } else {
            classes * (classes - 1) / 2
        }
    }

    fn check(&self) -> Result<(), OpError> {
        let classes = self.labels.len();
        let pairs = classes * (classes - 1) / 2;
        if self.linear() {
            return if self.rho.is_empty() {
                Err(OpError::MissingAttribute("rho".to_owned()))
            } else {
                Ok(())
            };
        }
        if classes < 2 {
            return Err(refused("classlabels", format!("{classes} labels"), "expected 2 or more"));
        }
        expect_len("vectors_per_class", self.per_class.len(), classes)?;
        expect_len("coefficients", self.coefficients.len(), self.vectors().saturating_mul(classes - 1))?;
        if self.rho.len() < pairs {
            expect_len("rho", self.rho.len(), pairs)?;
        }
        expect_len("prob_b", self.prob_b.len(), self.prob_a.len())?;
        if self.probabilities() && self.prob_a.len() < pairs {
            expect_len("prob_a", self.prob_a.len(), pairs)?;
        }
        if classes == 2 && !self.probabilities() && self.post == PostTransform::Probit {
            let reason = "PROBIT of the score of one of two classes: the other's is not defined";
            return Err(OpError::Unsupported(reason.to_owned()));
        }
        Ok(())
    }

    /// One decision for each pair of classes, and the votes for classes.
    fn decisions(&self, kernels: &[f64]) -> (Vec<f64>, Vec<usize>) {
        let classes = self.labels.len();
        let vectors = self.vectors();
        let mut decisions = Vec::with_capacity(classes * (classes - 1) / 2);
        let mut votes = vec![0; classes];
        // The part of class `of` in its decision against another, whose coefficients are in row `row`.
        let part = |of: usize, row: usize| {
            let range = self.starts[of]..self.starts[of + 1];
            let weights = &self.coefficients[row * vectors + range.start..row * vectors + range.end];
            weights.iter().zip(&kernels[range]).map(|(&c, &k)| f64::from(c) * k).sum::<f64>()
        };
        for i in 0..classes {
            for j in i + 1..classes {
                let sum = part(i, j - 1) + part(j, i) + f64::from(self.rho[decisions.len()]);
                votes[if sum > 0.0 { i } else { j }] += 1;
                decisions.push(sum);
            }
        }
        (decisions, votes)
    }

    /// Probabilities of classes from decisions between pairs.
    fn couple(&self, decisions: &[f64]) -> Vec<f64> {
        let classes = self.labels.len();
        let mut pairwise = vec![0.0; classes * classes];
        let mut at = 0;
        for i in 0..classes {
            for j in i + 1..classes {
                let value = decisions[at] * f64::from(self.prob_a[at]) + f64::from(self.prob_b[at]);
                let probability = (1.0 - logistic(value)).clamp(1e-7, 1.0 - 1e-7);
                pairwise[i * classes + j] = probability;
                pairwise[j * classes + i] = 1.0 - probability;
                at += 1;
            }
        }
        couple(classes, &pairwise)
    }

    /// Scores of a row and the number of its label.
    fn row(&self, x: &[f64]) -> (Vec<f64>, usize) {
        let classes = self.labels.len();
        if self.linear() {
            let vectors = self.coefficients.chunks_exact(self.features);
            let linear = Kernel { kind: KernelKind::Linear, params: Vec::new() };
            let mut scores: Vec<f64> =
                vectors.map(|vector| linear.of(x, vector) + f64::from(self.rho[0])).collect();
            let best = first_max(&scores);
            let label = if classes == 2 { self.linear_pair(scores[best], best) } else { best };
            self.post.apply(&mut scores);
            return (scores, label);
        }
        let kernels: Vec<f64> =
            self.support.chunks_exact(self.features).map(|vector| self.kernel.of(x, vector)).collect();
        let (decisions, votes) = self.decisions(&kernels);
        let label =
            votes.iter().enumerate().fold(0, |best, (at, &n)| if n > votes[best] { at } else { best });
        let mut scores = if self.probabilities() { self.couple(&decisions) } else { decisions };
        if let [score] = scores[..] {
            // One decision for two classes.
            let pair = match self.post {
                PostTransform::None => vec![-score, score],
                PostTransform::Logistic => vec![logistic(-score), logistic(score)],
                _ => vec![1.0 - score, score],
            };
            return (pair, label);
        }
        self.post.apply(&mut scores);
        (scores, label)
    }

    /// Label of one of two classes by the larger score, as ONNX Runtime has it.
    fn linear_pair(&self, max: f64, best: usize) -> usize {
        let positive = self.coefficients.iter().all(|&c| c >= 0.0);
        let second = !self.probabilities() && if positive { max >= 0.5 } else { max > 0.0 };
        if second { 1 } else { best }
    }
}

fn first_max(values: &[f64]) -> usize {
    (0..values.len()).fold(0, |best, at| if values[at] > values[best] { at } else { best })
}

/// Probabilities of classes that fit those of pairs best: the second method of Wu, Lin and Weng, with the limits that
/// libsvm has.
fn couple(classes: usize, pairwise: &[f64]) -> Vec<f64> {
    let r = |i: usize, j: usize| pairwise[i * classes + j];
    let q = |i: usize, j: usize| {
        if i == j {
            (0..classes).filter(|&k| k != i).map(|k| r(k, i) * r(k, i)).sum::<f64>()
        } else {
            -r(j, i) * r(i, j)
        }
    };
    let mut p = vec![1.0 / classes as f64; classes];
    let enough = 0.005 / classes as f64;
    for _ in 0..100 {
        let mut qp: Vec<f64> = (0..classes).map(|i| (0..classes).map(|j| q(i, j) * p[j]).sum()).collect();
        let mut pqp: f64 = p.iter().zip(&qp).map(|(p, qp)| p * qp).sum();
        if qp.iter().all(|qp| (qp - pqp).abs() < enough) {
            break;
        }
        for i in 0..classes {
            let diff = (pqp - qp[i]) / q(i, i);
            p[i] += diff;
            pqp = (pqp + diff * (diff * q(i, i) + 2.0 * qp[i])) / (1.0 + diff) / (1.0 + diff);
            for j in 0..classes {
                qp[j] = (qp[j] + diff * q(i, j)) / (1.0 + diff);
                p[j] /= 1.0 + diff;
            }
        }
    }
    p
}

impl OpDef for SvmClassifier {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.SVMClassifier"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let known = [
            "classlabels_ints",
            "classlabels_strings",
            "coefficients",
            "kernel_params",
            "kernel_type",
            "post_transform",
            "prob_a",
            "prob_b",
            "rho",
            "support_vectors",
            "vectors_per_class",
        ];
        known_attrs(attrs, &known)?;
        let labels = Labels::from_attrs(attrs, "classlabels_ints", "classlabels_strings")?;
        let per_class = attrs.ints("vectors_per_class")?.unwrap_or_default();
        let mut starts = vec![0usize];
        for &count in &per_class {
            let end = usize::try_from(count).ok().and_then(|n| starts.last().and_then(|s| s.checked_add(n)));
            starts.push(end.ok_or_else(|| refused("vectors_per_class", count, "no number of vectors"))?);
        }
        let vectors = starts.last().copied().unwrap_or(0);
        let (coefficients, support) = (floats(attrs, "coefficients")?, floats(attrs, "support_vectors")?);
        let features = match vectors {
            0 => vector_len("coefficients", &coefficients, labels.len())?,
            _ => vector_len("support_vectors", &support, vectors)?,
        };
        let op = SvmClassifier {
            labels,
            kernel: Kernel::from_attrs(attrs)?,
            coefficients,
            support,
            per_class,
            starts,
            rho: floats(attrs, "rho")?,
            prob_a: floats(attrs, "prob_a")?,
            prob_b: floats(attrs, "prob_b")?,
            post: PostTransform::parse(&attrs.str("post_transform", "NONE")?)?,
            features,
        };
        op.check()?;
        Ok(op)
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.labels.add_to(&mut attrs, "classlabels_ints", "classlabels_strings");
        attrs.set("kernel_type", Attr::Str(self.kernel.name().to_owned()));
        attrs.set("post_transform", Attr::Str(self.post.name().to_owned()));
        set_floats(&mut attrs, "kernel_params", &self.kernel.params);
        set_floats(&mut attrs, "coefficients", &self.coefficients);
        set_floats(&mut attrs, "support_vectors", &self.support);
        set_floats(&mut attrs, "rho", &self.rho);
        set_floats(&mut attrs, "prob_a", &self.prob_a);
        set_floats(&mut attrs, "prob_b", &self.prob_b);
        if !self.per_class.is_empty() {
            attrs.set("vectors_per_class", Attr::Ints(self.per_class.clone()));
        }
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FEATURES, is_feature)?;
        let (rows, columns) = table_dims(x)?;
        expect_columns(&columns, self.features, true)?;
        let labels = Fact::of_type(self.labels.dtype(), [rows.clone()]);
        Ok(vec![labels, Fact::of_type(DType::F32, [rows, Dim::from(self.columns())])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let table = exact_table(inputs, self.features)?;
        let mut scores: Vec<f64> = reserve(&[table.rows, self.columns()])?;
        let mut picked = reserve(&[table.rows])?;
        for row in 0..table.rows {
            let (of_row, label) = self.row(table.row(row));
            scores.extend(of_row);
            picked.push(label);
        }
        let scores = Tensor::from_f64s(DType::F32, &[table.rows, self.columns()], &scores);
        Ok(vec![self.labels.pick(&picked)?, scores])
    }
}

fn exact_table(inputs: &[Option<&Tensor>], features: usize) -> Result<Table, OpError> {
    let x = required_tensor(inputs, 0, "X")?;
    expect_dtype(0, x.dtype(), FEATURES, is_feature)?;
    let table = Table::of(x, features)?;
    if table.columns != features {
        return Err(OpError::Shape(format!("{} features where the model has {features}", table.columns)));
    }
    Ok(table)
}

/// `SVMRegressor`: operand features; result one score a row.
#[derive(Clone, Debug, PartialEq)]
pub struct SvmRegressor {
    kernel: Kernel,
    coefficients: Vec<f32>,
    support: Vec<f32>,
    vectors: usize,
    rho: Vec<f32>,
    /// Not applied: a single score knows no function, as in ONNX Runtime.
    post: PostTransform,
    /// True if the score is only whether the decision is positive: 1 or -1.
    one_class: bool,
    features: usize,
}

impl OpDef for SvmRegressor {
    const NAMES: &'static [&'static str] = &["ai.onnx.ml.SVMRegressor"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let known = [
            "coefficients",
            "kernel_params",
            "kernel_type",
            "n_supports",
            "one_class",
            "post_transform",
            "rho",
            "support_vectors",
        ];
        known_attrs(attrs, &known)?;
        let count = attrs.int("n_supports", 0)?;
        let vectors = usize::try_from(count).map_err(|_| refused("n_supports", count, "no number"))?;
        let (coefficients, support) = (floats(attrs, "coefficients")?, floats(attrs, "support_vectors")?);
        let features = match vectors {
            0 => vector_len("coefficients", &coefficients, 1)?,
            _ => {
                expect_len("coefficients", coefficients.len(), vectors)?;
                vector_len("support_vectors", &support, vectors)?
            }
        };
        let rho = floats(attrs, "rho")?;
        expect_len("rho", rho.len(), 1)?;
        let post = PostTransform::parse(&attrs.str("post_transform", "NONE")?)?;
        let one_class = attrs.int("one_class", 0)? != 0;
        let kernel = Kernel::from_attrs(attrs)?;
        Ok(SvmRegressor { kernel, coefficients, support, vectors, rho, one_class, post, features })
    }
    fn name(&self) -> &'static str {
        Self::NAMES[0]
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        attrs.set("kernel_type", Attr::Str(self.kernel.name().to_owned()));
        attrs.set("post_transform", Attr::Str(self.post.name().to_owned()));
        attrs.set("n_supports", Attr::Int(self.vectors as i64));
        attrs.set("one_class", Attr::Int(self.one_class.into()));
        set_floats(&mut attrs, "kernel_params", &self.kernel.params);
        set_floats(&mut attrs, "coefficients", &self.coefficients);
        set_floats(&mut attrs, "support_vectors", &self.support);
        set_floats(&mut attrs, "rho", &self.rho);
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), FEATURES, is_feature)?;
        let (rows, columns) = table_dims(x)?;
        expect_columns(&columns, self.features, true)?;
        Ok(vec![Fact::of_type(DType::F32, [rows, Dim::from(1)])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let table = exact_table(inputs, self.features)?;
        let rho = self.rho.first().map_or(0.0, |&rho| f64::from(rho));
        let linear = Kernel { kind: KernelKind::Linear, params: Vec::new() };
        let mut scores: Vec<f64> = reserve(&[table.rows])?;
        for row in 0..table.rows {
            let x = table.row(row);
            let sum = if self.vectors == 0 {
                linear.of(x, &self.coefficients)
            } else {
                let vectors = self.support.chunks_exact(self.features);
                let terms = vectors.zip(&self.coefficients);
                terms.map(|(vector, &c)| f64::from(c) * self.kernel.of(x, vector)).sum()
            };
            let score = sum + rho;
            scores.push(match self.one_class {
                true if score > 0.0 => 1.0,
                true => -1.0,
                false => score,
            });
        }
        Ok(vec![Tensor::from_f64s(DType::F32, &[table.rows, 1], &scores)])
    }
}
