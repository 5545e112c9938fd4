//! What the goldens cannot say: maps, and models that are refused.

use super::super::testing::{eval, fact, infer, with};
use crate::ops::{InferCx, OpError};
use crate::{Attr, Attrs, Datum, Fact, Map, Op, ValueType};
use rabot_tensor::{DType, Tensor};

fn ints(values: &[i64]) -> Attr {
    Attr::Ints(values.to_vec())
}

fn floats(values: &[f32]) -> Attr {
    Attr::Floats(values.to_vec())
}

fn strings(values: &[&str]) -> Attr {
    Attr::Strs(texts(values))
}

fn texts(values: &[&str]) -> Vec<String> {
    values.iter().map(|&text| text.to_owned()).collect()
}

fn refused(name: &str, attrs: Attrs) -> String {
    match Op::from_attrs(name, &attrs) {
        Some(Err(error)) => error.to_string(),
        other => panic!("{name}: {other:?}"),
    }
}

fn evaluated(op: &Op, x: Datum) -> Result<Datum, OpError> {
    op.eval_data(&[Some(&x)]).map(|mut outputs| outputs.remove(0))
}

/// One node `x[0] <= 1` and two leaves; the attributes `more` on top.
fn stump(kind: &str, more: &[(&str, Attr)]) -> Attrs {
    let mut attrs = Attrs::new()
        .with("nodes_treeids", ints(&[0, 0, 0]))
        .with("nodes_nodeids", ints(&[0, 1, 2]))
        .with("nodes_featureids", ints(&[0, 0, 0]))
        .with("nodes_modes", strings(&["BRANCH_LEQ", "LEAF", "LEAF"]))
        .with("nodes_values", floats(&[1.0, 0.0, 0.0]))
        .with("nodes_truenodeids", ints(&[1, 0, 0]))
        .with("nodes_falsenodeids", ints(&[2, 0, 0]));
    for (part, values) in [("treeids", [0, 0]), ("nodeids", [1, 2]), ("ids", [0, 0])] {
        attrs.set(&format!("{kind}_{part}"), ints(&values));
    }
    attrs.set(&format!("{kind}_weights"), floats(&[0.25, -2.0]));
    for (name, value) in more {
        attrs.set(name, value.clone());
    }
    attrs
}

#[test]
fn trees_that_do_not_hold_together_are_refused() {
    let regressor = |more: &[(&str, Attr)]| {
        let mut all = vec![("n_targets", Attr::Int(1))];
        all.extend_from_slice(more);
        refused("ai.onnx.ml.TreeEnsembleRegressor", stump("target", &all))
    };
    assert!(regressor(&[("nodes_truenodeids", ints(&[0, 0, 0]))]).contains("cycle"));
    assert!(regressor(&[("nodes_truenodeids", ints(&[7, 0, 0]))]).contains("no node 7"));
    assert!(regressor(&[("nodes_nodeids", ints(&[0, 1, 1]))]).contains("twice"));
    assert!(regressor(&[("nodes_featureids", ints(&[-1, 0, 0]))]).contains("-1"));
    assert!(regressor(&[("nodes_values", floats(&[1.0]))]).contains("expected 3"));
    assert!(regressor(&[("target_ids", ints(&[0, 1]))]).contains("target 1 of 1"));
    assert!(regressor(&[("target_nodeids", ints(&[1, 1]))]).contains("no weight"));
    assert!(regressor(&[("nodes_modes", strings(&["BRANCH_ODD", "LEAF", "LEAF"]))]).contains("BRANCH_ODD"));
    assert!(regressor(&[("n_targets", Attr::Int(0))]).contains("positive"));
    assert!(regressor(&[("base_values", floats(&[1.0, 2.0]))]).contains("2 values"));
    let twice = Attr::Tensor(Tensor::from_vec(&[3], vec![1f64, 0.0, 0.0]));
    assert!(regressor(&[("nodes_values_as_tensor", twice)]).contains("as a tensor"));
}

#[test]
fn features_must_be_there() {
    let op = with("ai.onnx.ml.TreeEnsembleRegressor", stump("target", &[("n_targets", Attr::Int(1))]));
    assert!(eval(&op, &[&Tensor::zeros(DType::F32, &[2, 0])]).is_err());
    assert_eq!(eval(&op, &[&Tensor::zeros(DType::F32, &[0, 0])]).unwrap().shape(), [0, 1]);
    // A list is one row, and further columns do not matter.
    let row = Tensor::from_vec(&[3], vec![2i64, 9, 9]);
    assert_eq!(eval(&op, &[&row]).unwrap(), Tensor::from_vec(&[1, 1], vec![-2f32]));
    assert!(infer(&op, &[&fact(DType::F32, &["n", "0"])]).is_err());
    assert!(infer(&op, &[&fact(DType::String, &["n", "2"])]).is_err());
}

#[test]
fn one_of_two_classes_stands_for_both() {
    let more = [("classlabels_int64s", ints(&[5, 9])), ("post_transform", Attr::Str("LOGISTIC".to_owned()))];
    let op = with("ai.onnx.ml.TreeEnsembleClassifier", stump("class", &more));
    let outputs = op.eval(&[Some(&Tensor::from_vec(&[2, 1], vec![1f32, 2.0]))]).unwrap();
    assert_eq!(outputs[0], Tensor::from_vec(&[2], vec![9i64, 5]));
    let scores = outputs[1].to_f64s();
    assert!((scores[1] - 0.562_176_5).abs() < 1e-6 && (scores[0] + scores[1] - 1.0).abs() < 1e-6);
    assert!((scores[3] - 0.119_202_9).abs() < 1e-6);
    let more = [("classlabels_int64s", ints(&[5, 9])), ("post_transform", Attr::Str("PROBIT".to_owned()))];
    let op = with("ai.onnx.ml.TreeEnsembleClassifier", stump("class", &more));
    assert!(op.eval(&[Some(&Tensor::from_vec(&[1, 1], vec![1f32]))]).is_err());
}

#[test]
fn support_vectors_that_do_not_fit_are_refused() {
    let attrs = |more: &[(&str, Attr)]| {
        let mut attrs = Attrs::new()
            .with("classlabels_ints", ints(&[0, 1, 2]))
            .with("vectors_per_class", ints(&[1, 1, 1]))
            .with("coefficients", floats(&[1.0; 6]))
            .with("support_vectors", floats(&[0.5; 6]))
            .with("rho", floats(&[0.0; 3]));
        more.iter().for_each(|(name, value)| attrs.set(name, value.clone()));
        attrs
    };
    let name = "ai.onnx.ml.SVMClassifier";
    assert!(matches!(Op::from_attrs(name, &attrs(&[])), Some(Ok(_))));
    assert!(refused(name, attrs(&[("rho", floats(&[0.0]))])).contains("rho"));
    assert!(refused(name, attrs(&[("coefficients", floats(&[1.0; 5]))])).contains("coefficients"));
    assert!(refused(name, attrs(&[("support_vectors", floats(&[1.0; 5]))])).contains("3 vectors"));
    assert!(refused(name, attrs(&[("vectors_per_class", ints(&[1, -1, 3]))])).contains("-1"));
    assert!(refused(name, attrs(&[("prob_a", floats(&[1.0; 3]))])).contains("prob_b"));
    assert!(refused(name, attrs(&[("kernel_type", Attr::Str("RBF".to_owned()))])).contains("gamma"));
}

#[test]
fn labels_are_looked_up_by_what_they_are() {
    let attrs = Attrs::new()
        .with("keys_strings", strings(&["a", "b", "a"]))
        .with("values_floats", floats(&[1.5, 2.5, 9.0]));
    let op = with("ai.onnx.ml.LabelEncoder", attrs.clone());
    let x = Tensor::from_strings(&[3], texts(&["b", "a", "c"]));
    assert_eq!(eval(&op, &[&x]).unwrap(), Tensor::from_vec(&[3], vec![2.5f32, 1.5, -0.0]));
    let name = "ai.onnx.ml.LabelEncoder";
    assert!(refused(name, attrs.clone().with("values_floats", floats(&[1.0]))).contains("3 keys"));
    assert!(refused(name, attrs.with("keys_int64s", ints(&[1]))).contains("several"));
    let hot = with(
        "ai.onnx.ml.OneHotEncoder",
        Attrs::new().with("cats_strings", strings(&["a"])).with("zeros", Attr::Int(0)),
    );
    assert!(eval(&hot, &[&x]).is_err());
    assert!(infer(&hot, &[&fact(DType::I64, &["n"])]).is_err());
}

#[test]
fn maps_are_made_and_read() {
    let zip = with("ai.onnx.ml.ZipMap", Attrs::new().with("classlabels_strings", strings(&["a", "b"])));
    let scores = Tensor::from_vec(&[2, 2], vec![1f32, 2.0, 3.0, 4.0]);
    let rows = evaluated(&zip, scores.clone().into()).unwrap();
    let Datum::Sequence(rows) = &rows else { panic!("{rows}") };
    assert_eq!(rows.len(), 2);
    let read = Attrs::new().with("string_vocabulary", strings(&["c", "b", "a", "b"]));
    let read = with("ai.onnx.ml.DictVectorizer", read);
    let values = evaluated(&read, rows[1].clone()).unwrap();
    assert_eq!(values, Tensor::from_vec(&[1, 4], vec![0f32, 4.0, 3.0, 4.0]).into());
    let three = with("ai.onnx.ml.ZipMap", Attrs::new().with("classlabels_int64s", ints(&[1, 2, 3])));
    assert!(evaluated(&three, scores.into()).is_err());
    assert!(evaluated(&read, Tensor::scalar(1f32).into()).is_err());
}

#[test]
fn maps_are_cast() {
    let cast = |to: &str, sparse: Option<i64>, keys: &[i64], values: Tensor| {
        let mut attrs = Attrs::new().with("cast_to", Attr::Str(to.to_owned()));
        if let Some(places) = sparse {
            attrs.set("map_form", Attr::Str("SPARSE".to_owned()));
            attrs.set("max_map", Attr::Int(places));
        }
        let map = Map { keys: Tensor::from_vec(&[keys.len()], keys.to_vec()), values };
        evaluated(&with("ai.onnx.ml.CastMap", attrs), Datum::Map(map))
    };
    let floats = || Tensor::from_vec(&[2], vec![2.5f32, -1.0]);
    let words = || Tensor::from_strings(&[2], texts(&["7", " 3.5"]));
    let row = |values: Vec<f32>| Ok(Tensor::from_vec(&[1, values.len()], values).into());
    assert_eq!(cast("TO_FLOAT", None, &[5, 1], floats()), row(vec![-1.0, 2.5]));
    assert_eq!(cast("TO_FLOAT", Some(3), &[5, 1], floats()), row(vec![0.0, -1.0, 0.0]));
    assert_eq!(
        cast("TO_INT64", None, &[1, 5], floats()),
        Ok(Tensor::from_vec(&[1, 2], vec![2i64, -1]).into())
    );
    assert_eq!(cast("TO_FLOAT", None, &[1, 5], words()), row(vec![7.0, 3.5]));
    let padded = Tensor::from_strings(&[1, 3], texts(&["0.f", "2.500000", "0.f"]));
    assert_eq!(cast("TO_STRING", Some(3), &[1, 5], floats()), Ok(padded.into()));
    assert!(cast("TO_INT64", None, &[1, 5], words()).is_err());
    assert!(cast("TO_FLOAT", Some(3), &[-1, 5], floats()).is_err());
}

#[test]
fn maps_have_types() {
    let map = Fact::of(ValueType::map(DType::I64, ValueType::new(DType::F32, [])));
    let cast = with("ai.onnx.ml.CastMap", Attrs::new());
    let inferred = |op: &Op, fact: &Fact| {
        let facts = op.infer(&[Some(fact)], &mut InferCx::new("n"));
        facts.map_or_else(|error| error.to_string(), |facts| facts[0].ty.to_string())
    };
    assert_eq!(inferred(&cast, &map), "f32[1,n.0]");
    assert!(inferred(&cast, &fact(DType::F32, &["2"])).contains("expected a map"));
    let zip = with("ai.onnx.ml.ZipMap", Attrs::new().with("classlabels_int64s", ints(&[1, 2])));
    assert_eq!(inferred(&zip, &fact(DType::F32, &["n", "2"])), "sequence(map(i64, f32[]))");
    assert!(inferred(&zip, &fact(DType::F32, &["n", "3"])).contains("3 features"));
    assert!(inferred(&zip, &map).contains("expected a tensor"));
}
