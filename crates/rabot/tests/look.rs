//! Looking into a model from the command line: taps, one node's story, smaller failing models, recipes, the cache.

use rabot::{DType, Tensor, Tensors, npz};
use serde_json::Value;
use std::fs::{self, File};
use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx");

/// A batch norm whose mean nearly cancels what comes in. Folding its factor into the weights rounds the large numbers
/// before they are subtracted.
const CANCELS: &str = "model \"cancels\"
input %0 \"x\" : f32[n,1,4]
%1 = Relu(%0) \"first\"
%2 = Constant [1.0] : f32[1,1,1] \"w\"
%3 = Conv(%1, %2) \"conv\"
%4 = Constant [1.1] : f32[1] \"scale\"
%5 = Constant [0.0] : f32[1] \"bias\"
%6 = Constant [1000000.0] : f32[1] \"mean\"
%7 = Constant [1.0] : f32[1] \"variance\"
%8 = BatchNormalization(%3, %4, %5, %6, %7) {epsilon=0.0} \"norm\"
%9 = Tanh(%8) \"squash\"
%10 = Add(%9, %8) \"sum\"
output \"y\" = %10
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

fn json(args: &[&str]) -> Value {
    serde_json::from_str(&done(args)).unwrap()
}

fn refused(args: &[&str], part: &str) {
    let output = rabot(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(stderr.contains(part), "{args:?}: no `{part}` in: {stderr}");
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn save(path: &str, tensor: Tensor) {
    npz::write_npz(File::create(path).unwrap(), &Tensors::from_iter([("x".to_owned(), tensor)])).unwrap();
}

#[test]
fn taps_store_what_is_inside_kernels_and_prove_that_nothing_else_changed() {
    let folder = tempfile::tempdir().unwrap();
    let taps = path(&folder, "taps.npz");
    let args = ["run", MODEL, "--random", "1", "--dim", "batch=3", "--tap-all", "--taps", &taps];
    let text = done(&args);
    assert!(text.contains("the outputs are the same bits with and without taps (BLAKE3 "), "{text}");
    let stored = npz::read_npz(taps.as_ref()).unwrap();
    assert!(stored.len() > 3 && stored.values().all(|tensor| tensor.dtype() == DType::F32), "{stored:?}");
    let name = stored.keys().next().unwrap();
    let found = json(&["run", MODEL, "--random", "1", "--dim", "batch=3", "--tap", name, "--json"]);
    let taps = &found["runs"][0]["taps"];
    assert_eq!(taps["values"].as_array().map(Vec::len), Some(1));
    assert_eq!(taps["proof"]["plain"], taps["proof"]["tapped"]);
    refused(&["run", MODEL, "--random", "1", "--tap", "nothing"], "there is no value `nothing`");
    refused(&["run", MODEL, "--random", "1", "--taps", "t.npz"], "--taps without any tap");
}

#[test]
fn a_failing_model_gets_smaller_and_still_fails() {
    let folder = tempfile::tempdir().unwrap();
    let (model, inputs, out) = (path(&folder, "m.rbt"), path(&folder, "in.npz"), path(&folder, "reduced"));
    fs::write(&model, CANCELS).unwrap();
    let values: Vec<f32> = (0..32).map(|i| 1_000_000.0 + i as f32 * 0.0625).collect();
    save(&inputs, Tensor::from_vec(&[8, 1, 4], values));
    let args = ["reduce", &model, "--inputs", &inputs, "--pipeline", "fuse", "-o", &out, "--json"];
    let found = json(&args);
    assert_eq!(found["failure"], "pass `fuse` moves an output further than it promises");
    assert_eq!(found["after"]["nodes"], 1, "the batch norm alone: {found}");
    let elements = |key: &str| found[key]["elements"].as_u64().unwrap();
    assert!(elements("after") < elements("before") / 2, "{found}");
    let command = fs::read_to_string(format!("{out}/command")).unwrap();
    assert!(command.starts_with("rabot debug model.onnx --inputs inputs.npz"), "{command}");
    // What is written fails as it says.
    let (smaller, inputs) = (format!("{out}/model.onnx"), format!("{out}/inputs.npz"));
    let again = rabot(&["debug", &smaller, "--inputs", &inputs, "--pipeline", "fuse"]);
    assert_eq!(again.status.code(), Some(1), "{}", text(&again.stderr));
    refused(&["reduce", &model, "--inputs", args[3], "--pipeline", "cse", "-o", &out], "does not fail");
}

#[test]
fn one_node_has_a_story() {
    let folder = tempfile::tempdir().unwrap();
    let model = path(&folder, "m.rbt");
    fs::write(&model, CANCELS).unwrap();
    let found = json(&["explain", &model, "--op", "norm", "--json"]);
    assert!(found["origin"].as_str().unwrap().starts_with("BatchNormalization("), "{found}");
    let applied = found["applied"].as_array().unwrap();
    assert!(applied.iter().any(|event| event["pass"] == "fuse"), "{found}");
    assert!(!found["kernels"].as_array().unwrap().is_empty(), "{found}");
    refused(&["explain", &model, "--op", "nor"], "there is norm");
}

#[test]
fn a_recipe_says_how_to_compile() {
    let folder = tempfile::tempdir().unwrap();
    let (recipe, wrong) = (path(&folder, "r.toml"), path(&folder, "w.toml"));
    fs::write(&recipe, "pipeline = \"\"\ntarget = \"x86-64-v2\"\n[dims]\nbatch = 2\n").unwrap();
    let text = done(&["compile", MODEL, "--emit", "text", "--recipe", &recipe]);
    assert!(text.contains("f32[2,1,8,8]") && !text.contains("group="), "{text}");
    let text = done(&["compile", MODEL, "--emit", "text", "--recipe", &recipe, "--pipeline", "group"]);
    assert!(text.contains("group="), "options go before the recipe: {text}");
    fs::write(&recipe, "level = 0").unwrap();
    let text = done(&["compile", MODEL, "--emit", "text", "--recipe", &recipe]);
    assert!(!text.contains("group="), "{text}");
    fs::write(&recipe, "level = 4").unwrap();
    refused(&["compile", MODEL, "--emit", "text", "--recipe", &recipe], "there is no level 4");
    fs::write(&recipe, "without = [\"contraction@relu_2\"]").unwrap();
    let left_out = done(&["compile", MODEL, "--emit", "text", "--recipe", &recipe]);
    let given = ["compile", MODEL, "--emit", "text", "--without", "contraction@relu_2"];
    assert_eq!(left_out, done(&given));
    assert_ne!(left_out, done(&["compile", MODEL, "--emit", "text"]));
    fs::write(&wrong, "pipline = \"\"").unwrap();
    refused(&["run", MODEL, "--random", "1", "--recipe", &wrong], "unknown field `pipline`");
}

#[test]
fn a_cached_run_gives_the_same_graph() {
    let folder = tempfile::tempdir().unwrap();
    let cache = path(&folder, "cache");
    let args = ["compile", MODEL, "--emit", "text", "--cache", &cache];
    let first = done(&args);
    assert!(fs::read_dir(&cache).unwrap().count() > 0);
    assert_eq!(done(&args), first);
    assert_eq!(done(&["compile", MODEL, "--emit", "text"]), first);
}

/// Prints the part of rows of ten whose largest element is at the same place in two npz files. A shell is all it needs:
/// rabot's arrays are stored as they are, 128 bytes after the start of their header.
#[cfg(unix)]
const METRIC: &str = r#"#!/bin/sh
export LC_ALL=C
places() {
    at=$(grep -abo NUMPY "$1" | head -n 1 | cut -d : -f 1)
    od -An -v -tf4 -w4 -j $((at + 127)) -N 640 "$1" |
        awk 'NR % 10 == 1 || $1 > most { most = $1; at = NR } NR % 10 == 0 { print at }'
}
places "$1" > "$1.places"
places "$2" > "$2.places"
paste "$1.places" "$2.places" | awk '$1 == $2 { same++ } END { print same / NR }'
"#;

/// Inputs of the demo, and calibration inputs whose range is cut off far below theirs.
#[cfg(unix)]
fn miscalibrated(folder: &tempfile::TempDir) -> [String; 2] {
    const SOURCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-calibration.npz");
    let images = npz::read_npz(SOURCE.as_ref()).unwrap()["image"].to_f64s()[..16 * 64].to_vec();
    let paths = [path(folder, "images.npz"), path(folder, "dark.npz")];
    for (path, factor) in paths.iter().zip([1.0, 0.02]) {
        let values: Vec<f32> = images.iter().map(|v| (v * factor) as f32).collect();
        let tensors = Tensors::from_iter([("image".to_owned(), Tensor::from_vec(&[16, 1, 8, 8], values))]);
        npz::write_npz(File::create(path).unwrap(), &tensors).unwrap();
    }
    paths
}

#[cfg(unix)]
#[test]
fn a_metric_finds_layers_that_were_calibrated_on_other_inputs() {
    use std::os::unix::fs::PermissionsExt;
    let folder = tempfile::tempdir().unwrap();
    let [inputs, dark] = miscalibrated(&folder);
    let metric = path(&folder, "metric");
    fs::write(&metric, METRIC).unwrap();
    fs::set_permissions(&metric, fs::Permissions::from_mode(0o755)).unwrap();
    let pipeline = "fold,fuse,quantize,dce,group";
    let searched = |calibration: &str, engine: &str| {
        let args = ["bisect", MODEL, "--inputs", &inputs, "--calibrate", calibration, "--pipeline", pipeline];
        let more = ["--metric", &metric, "--min", "0.95", "--engine", engine, "--json"];
        let output = rabot(&[&args[..], &more[..]].concat());
        let found: Value = serde_json::from_slice(&output.stdout).unwrap();
        (output.status.code(), found["bisection"].clone())
    };
    for engine in ["interpreter", "compiled"] {
        let (code, found) = searched(&dark, engine);
        assert_eq!((code, &found["engine"]), (Some(1), &Value::from(engine)), "{found}");
        let rewrites = found["rewrites"].as_array().unwrap();
        assert!(!rewrites.is_empty() && rewrites.iter().all(|made| made["rule"] == "int8"), "{found}");
        assert!(rewrites.iter().all(|made| !made["tensor"].is_null()), "{found}");
        let wrong = rewrites.iter().filter(|made| !made["parameter"].is_null()).count();
        assert!(wrong > 0, "a scale is named: {found}");
        assert_eq!(found["remedy"]["holds"], true, "{found}");
    }
    assert_eq!(searched(&inputs, "interpreter").0, Some(0), "calibrated on its own inputs it is right");
}

#[cfg(unix)]
#[test]
fn what_breaks_a_check_can_be_left_out_and_made_smaller() {
    let folder = tempfile::tempdir().unwrap();
    let ([inputs, dark], out) = (miscalibrated(&folder), path(&folder, "reduced"));
    let common = ["--inputs", &inputs, "--calibrate", &dark, "--pipeline", "fold,fuse,quantize,dce,group"];
    let check = ["--check", "sqnr(\"logits\") > 20"];
    let call = |verb: &str, more: &[&str]| rabot(&[&[verb, MODEL][..], &common[..], more].concat());
    let first = call("bisect", &[&check[..], &["--json"]].concat());
    let found: Value = serde_json::from_slice(&first.stdout).unwrap();
    assert_eq!(first.status.code(), Some(1));
    let remedy = found["bisection"]["remedy"]["without"].as_array().unwrap();
    let without: Vec<&str> = remedy.iter().flat_map(|one| ["--without", one.as_str().unwrap()]).collect();
    let again = call("bisect", &[&check[..], &without[..]].concat());
    assert_eq!(again.status.code(), Some(0), "{}{}", text(&again.stdout), text(&again.stderr));
    let debugged = call("debug", &without);
    assert!(debugged.stderr.is_empty(), "{}", text(&debugged.stderr));
    for verb in ["bisect", "debug"] {
        let wrong = call(verb, &["--without", "int8@nothing"]);
        assert_eq!(wrong.status.code(), Some(2));
        assert!(text(&wrong.stderr).contains("there is no rewrite `int8` at `nothing`"), "{wrong:?}");
    }
    refused(
        &["golden", "record", MODEL, "--random", "1", "--without", "a@b", "-o", &out],
        "not for this verb",
    );
    // A check that only holds where nothing is rounded to integers.
    let strict = ["--random", "1", "--pipeline", "quantize", "-o", &out];
    let check = ["--check", "sqnr(\"logits\") > 60", "--tries", "6"];
    let reduced = done(&[&["reduce", MODEL][..], &strict[..], &check[..]].concat());
    assert!(
        reduced.contains("the check `sqnr(\"logits\") > 60` is false for the compiled outputs"),
        "{reduced}"
    );
    let command = fs::read_to_string(format!("{out}/command")).unwrap();
    assert!(command.starts_with("rabot bisect model.onnx") && command.contains("--check 'sqnr"), "{command}");
}
