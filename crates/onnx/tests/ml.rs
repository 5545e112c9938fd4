//! Operators of `ai.onnx.ml` that are expressions of others.

mod common;

use common::*;
use rabot_onnx::wire::*;
use rabot_tensor::Tensor;

const STRING: i32 = 8;

/// A model of one node of the domain.
fn ml(
    version: i64,
    inputs: &[ValueInfoProto],
    op: &str,
    outputs: &[&str],
    attrs: Vec<AttributeProto>,
) -> ModelProto {
    let names: Vec<&str> = inputs.iter().map(|input| input.name.as_str()).collect();
    let mut node = node(op, &names, outputs);
    node.domain = "ai.onnx.ml".to_owned();
    node.attribute = attrs;
    let mut proto = single(21, inputs, node);
    proto.opset_import.push(OperatorSetIdProto { domain: "ai.onnx.ml".to_owned(), version });
    proto
}

fn texts(name: &str, values: &[&str]) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        r#type: attribute_type::STRINGS,
        strings: values.iter().map(|value| value.to_string().into()).collect(),
        ..AttributeProto::default()
    }
}

fn on_rows(op: &str, attrs: Vec<AttributeProto>, shape: &[usize], values: &[f64]) -> Tensor {
    run(&ml(3, &[value("x", FLOAT, "n,2")], op, &["y"], attrs), &[("x", shape, values)])
}

#[test]
fn features_are_scaled_and_imputed() {
    let scaled = vec![floats("offset", &[1.0, 2.0]), floats("scale", &[2.0, 0.5])];
    assert_eq!(on_rows("Scaler", scaled, &[1, 2], &[3.0, 6.0]).to_f64s(), [4.0, 2.0]);
    let imputed = vec![floats("imputed_value_floats", &[7.0, 8.0]), float("replaced_value_float", f32::NAN)];
    let result = on_rows("Imputer", imputed, &[2, 2], &[f64::NAN, 1.0, 2.0, f64::NAN]);
    assert_eq!(result.to_f64s(), [7.0, 1.0, 2.0, 8.0]);
    assert_eq!(
        on_rows("Binarizer", vec![float("threshold", 0.5)], &[1, 2], &[0.5, 0.6]).to_f64s(),
        [0.0, 1.0]
    );
    // The maximum is that of the numbers, not of their magnitudes; rows of zeros stay.
    let normal = on_rows("Normalizer", Vec::new(), &[2, 2], &[-3.0, 2.0, 0.0, 0.0]);
    assert_eq!(normal.to_f64s(), [-1.5, 1.0, 0.0, 0.0]);
    assert_eq!(
        on_rows("Normalizer", vec![text("norm", "L2")], &[1, 2], &[3.0, -4.0]).to_f64s(),
        [0.6f32 as f64, -0.8f32 as f64]
    );
}

#[test]
fn columns_are_put_together_and_picked() {
    let inputs = [value("a", FLOAT, "n,2"), value("b", FLOAT, "n,k")];
    let proto = ml(1, &inputs, "FeatureVectorizer", &["y"], vec![ints("inputdimensions", &[1, 3])]);
    let joined = run(&proto, &[("a", &[2, 2], &[1.0, 2.0, 3.0, 4.0]), ("b", &[2, 2], &[5.0, 6.0, 7.0, 8.0])]);
    assert_eq!(joined.shape(), [2, 4]);
    assert_eq!(joined.to_f64s(), [1.0, 5.0, 6.0, 0.0, 3.0, 7.0, 8.0, 0.0]);
    let mut proto = ml(1, &[value("x", FLOAT, "3")], "ArrayFeatureExtractor", &["y"], Vec::new());
    let graph = proto.graph.as_mut().unwrap();
    graph.initializer = vec![tensor_i64("i", &[2], &[2, 0])];
    graph.node[0].input.push("i".to_owned());
    let picked = run(&proto, &[("x", &[3], &[1.0, 2.0, 3.0])]);
    assert_eq!((picked.shape(), picked.to_f64s()), (&[1, 2][..], vec![3.0, 1.0]));
}

#[test]
fn linear_models_are_products() {
    let attrs = |post: &str| {
        vec![
            floats("coefficients", &[0.5, 0.25]),
            floats("intercepts", &[-1.0]),
            ints("classlabels_ints", &[5, 9]),
            text("post_transform", post),
        ]
    };
    let model = |post: &str| ml(1, &[value("x", FLOAT, "n,2")], "LinearClassifier", &["l", "s"], attrs(post));
    let x: (&str, &[usize], &[f64]) = ("x", &[2, 2], &[1.0, 1.0, 2.0, 4.0]);
    assert_eq!(run(&model("NONE"), &[x]), Tensor::from_vec(&[2], vec![5i64, 9]));
    let reason = &refused(&model("PROBIT"))[0].reason;
    assert!(reason.contains("PROBIT"), "{reason}");
    let regressor = |coefficients: &[f32]| {
        let attrs = vec![floats("coefficients", coefficients), int("targets", 2)];
        ml(1, &[value("x", FLOAT, "n,2")], "LinearRegressor", &["y"], attrs)
    };
    assert_eq!(run(&regressor(&[1.0, 0.0, 1.0, 2.0]), &[x]).to_f64s(), [1.0, 3.0, 2.0, 10.0]);
    assert!(refused(&regressor(&[1.0; 3]))[0].reason.contains("3 coefficients"));
    assert!(refused(&regressor(&[1.0; 6]))[0].reason.contains("3 features"));
}

#[test]
fn labels_of_all_versions_are_looked_up() {
    let words =
        || [("x".to_owned(), Tensor::from_strings(&[2], vec!["b".to_owned(), "c".to_owned()]))].into_iter();
    let x = [value("x", STRING, "n")];
    let first = ml(1, &x, "LabelEncoder", &["y"], vec![texts("classes_strings", &["a", "b"])]);
    assert_eq!(run_with(&first, words()), Tensor::from_vec(&[2], vec![1i64, -1]));
    let pairs = vec![texts("keys_strings", &["c", "b"]), ints("values_int64s", &[7, 8])];
    assert_eq!(
        run_with(&ml(2, &x, "LabelEncoder", &["y"], pairs), words()),
        Tensor::from_vec(&[2], vec![8i64, 7])
    );
    let both =
        vec![texts("cats_strings", &["b", "a"]), ints("cats_int64s", &[3, 4]), int("default_int64", 9)];
    assert_eq!(
        run_with(&ml(1, &x, "CategoryMapper", &["y"], both), words()),
        Tensor::from_vec(&[2], vec![3i64, 9])
    );
}

#[test]
fn attributes_that_are_not_known_are_refused() {
    for op in ["Scaler", "Imputer", "Normalizer", "LabelEncoder", "LinearRegressor", "TreeEnsembleRegressor"]
    {
        let proto = ml(1, &[value("x", FLOAT, "n,2")], op, &["y"], vec![int("secret", 1)]);
        assert!(refused(&proto)[0].reason.contains("secret"), "{op}");
    }
}
