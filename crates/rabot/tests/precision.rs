//! Narrow floats from the command line: what overflows is found, files get smaller, kernels stay; and errors that name
//! the part of a kernel that they are of.

use rabot::{Tensor, Tensors, npz};
use serde_json::Value;
use std::fs::{self, File};
use std::process::{Command, Output};

/// The second product's result is too large for f16.
const OVERFLOWS: &str = "model \"overflows\"
input %0 \"x\" : f32[1,8]
%1 = Constant rand(1, 0.5, 1.0) : f32[8,64] \"w1\"
%2 = Constant rand(2, 200.0, 300.0) : f32[64,64] \"w2\"
%3 = Constant rand(3, 0.00001, 0.00002) : f32[64,8] \"w3\"
%4 = MatMul(%0, %1) \"first\"
%5 = MatMul(%4, %2) \"large\"
%6 = Relu(%5) \"relu\"
%7 = MatMul(%6, %3) \"last\"
output \"y\" = %7
";

/// Two tables that are read side by side.
const TABLES: &str = "model \"tables\"
input %0 \"ids\" : i64[4]
input %1 \"places\" : i64[4]
%2 = Constant rand(1, -1.0, 1.0) : f32[8,16]
%3 = Constant rand(2, -1.0, 1.0) : f32[9,16]
%4 = Gather(%2, %0) \"words\"
%5 = Gather(%3, %1) \"positions\"
output \"y\" = %4
output \"z\" = %5
";

/// A value in a branch.
const BRANCHES: &str = "model \"branches\"
input %0 \"flag\" : bool[]
input %1 \"x\" : f32[2]
%2 = If(%0, %1) : f32[2] then \"yes\" {
  input %0 \"a\" : f32[2]
  %1 = Neg(%0) : f32[2] \"inner\"
  %2 = Exp(%1) : f32[2] \"result\"
  output \"r\" = %2
} else \"no\" {
  input %0 \"a\" : f32[2]
  %1 = Abs(%0) : f32[2] \"other\"
  output \"r\" = %1
}
output \"y\" = %2
";

fn rabot(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rabot")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn done(args: &[&str]) -> String {
    let output = rabot(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

/// A folder with a model, and where its inputs go.
fn model(source: &str, inputs: &[(&str, Tensor)]) -> (tempfile::TempDir, String, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (model, data) = (path("m.rbt"), path("in.npz"));
    fs::write(&model, source).unwrap();
    let inputs = inputs.iter().map(|(name, tensor)| ((*name).to_owned(), tensor.clone()));
    npz::write_npz(File::create(&data).unwrap(), &Tensors::from_iter(inputs)).unwrap();
    (folder, model, data)
}

#[test]
fn an_overflow_in_f16_is_found() {
    let x = Tensor::from_vec(&[1, 8], vec![3.0f32; 8]);
    let (_folder, model, data) = model(OVERFLOWS, &[("x", x)]);
    let check = "max_rel_err(\"y\") < 0.1";
    let args =
        ["bisect", &model, "--inputs", &data, "--check", check, "--pipeline", "convert,group", "--json"];
    let output = rabot(&args);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
    let found: Value = serde_json::from_slice(&output.stdout).unwrap();
    let found = found.to_string();
    assert!(found.contains("\"narrow\"") && found.contains("\"large\""), "{found}");
    // With inputs to calibrate on, the layer stays in f32 by itself.
    let keeps = ["--pipeline", "convert", "--calibrate", &data, "--inputs", &data];
    done(&[&["bisect", &model, "--check", check][..], &keeps].concat());
}

#[test]
fn narrow_weights_halve_a_file_and_keep_the_kernels() {
    let (folder, model, data) = model(OVERFLOWS, &[("x", Tensor::from_vec(&[1, 8], vec![0.1f32; 8]))]);
    let size = |pipeline: &str| {
        let path = folder.path().join("out.onnx").display().to_string();
        done(&["compile", &model, "--emit", "onnx", "-o", &path, "--pipeline", pipeline]);
        fs::metadata(&path).unwrap().len() as f64
    };
    let whole = size("");
    assert!(size("convert{what=weights}") < 0.65 * whole);
    assert!(size("convert{to=bf16}") < 0.65 * whole);
    let kernels = |pipeline: &str| {
        let listed: Value =
            serde_json::from_str(&done(&["explain", &model, "--json", "--pipeline", pipeline])).unwrap();
        listed["kernels"].as_array().map(Vec::len)
    };
    assert_eq!(kernels("group"), kernels("convert{what=weights},group"));
    assert!(kernels("group").is_some());
    let text = done(&["compare", &model, "--inputs", &data, "--pipeline", "convert{what=weights},group"]);
    assert!(!text.contains("EXCEEDS"), "{text}");
}

#[test]
fn an_index_out_of_range_names_its_part_of_the_kernel() {
    let ids = |last: i64| Tensor::from_vec(&[4], vec![0, 1, 2, last]);
    for (bad, name, other) in [("ids", "words", "positions"), ("places", "positions", "words")] {
        let of = |input: &str| ids(if input == bad { 100 } else { 3 });
        let (_folder, model, data) = model(TABLES, &[("ids", of("ids")), ("places", of("places"))]);
        let kernels = done(&["explain", &model]);
        assert!(kernels.contains("words, positions"), "not one kernel: {kernels}");
        for threads in ["1", "2"] {
            let output = rabot(&["run", &model, "--inputs", &data, "--threads", threads]);
            let stderr = text(&output.stderr);
            assert_eq!(output.status.code(), Some(2), "{stderr}");
            assert!(stderr.contains(&format!("{name}: an index is out of range")), "{stderr}");
            assert!(!stderr.contains(other), "{stderr}");
        }
    }
}

#[test]
fn a_tap_within_a_branch_says_where_the_value_is() {
    let flag = Tensor::from_bools(&[], &[true]);
    let (_folder, model, data) =
        model(BRANCHES, &[("flag", flag), ("x", Tensor::from_vec(&[2], vec![1.0f32, 2.0]))]);
    let output = rabot(&["run", &model, "--inputs", &data, "--tap", "inner"]);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("in the nested graph `then` of If `v2`"), "{stderr}");
}
