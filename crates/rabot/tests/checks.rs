//! The verbs that check numbers: demo, compare, debug and golden, on the demo's network.

use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::Command;

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx");
const CALIBRATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-calibration.npz");

/// Exit code, standard output and standard error of a call.
fn rabot(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_rabot")).args(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(args: &[&str]) -> Value {
    let (code, stdout, stderr) = rabot(args);
    assert_eq!(code, Some(0), "{args:?}: {stderr}{stdout}");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn the_demo_reads_digits_in_five_ways() {
    let found = json(&["demo", "--json", "--digit", "3"]);
    let rows = found["rows"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().map(|row| row["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["f32", "fused", "int8", "pruned", "both"]);
    let of =
        |name: &str, key: &str| rows.iter().find(|row| row["name"] == name).unwrap()[key].as_f64().unwrap();
    let full = of("f32", "accuracy_percent");
    assert!(full > 98.0, "{full}");
    assert_eq!(of("fused", "accuracy_percent"), full);
    assert!(of("int8", "accuracy_percent") >= full - 0.5);
    assert!(of("pruned", "accuracy_percent") >= full - 1.0);
    assert!(of("fused", "kernels") < of("f32", "kernels"));
    assert!(of("int8", "weight_bytes") < of("fused", "weight_bytes") / 3.0);
    assert!(of("pruned", "weight_bytes") < of("fused", "weight_bytes") * 0.9);
    assert_eq!(found["digit"]["answer"], found["digit"]["label"]);
    let (code, text, _) = rabot(&["demo"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("██") && text.contains("The model says"), "{text}");
    assert_eq!(rabot(&["demo", "--digit", "360"]).0, Some(2));
}

#[test]
fn compiled_code_is_right_and_says_by_how_much() {
    let found = json(&["compare", MODEL, "--random", "1", "--dim", "batch=3", "--json"]);
    let rows = found["comparison"]["rows"].as_array().unwrap();
    let logits = rows.iter().find(|row| row["name"] == "logits").unwrap();
    assert_eq!((&logits["output"], &logits["shape"]), (&Value::from(true), &serde_json::json!([3, 10])));
    assert!(logits["relative"].as_f64().unwrap() <= logits["tolerance"].as_f64().unwrap());
    assert!(rows.len() > 3 && !logits["sources"].as_array().unwrap().is_empty());
    let (code, text, _) = rabot(&["compare", MODEL, "--random", "1"]);
    assert_eq!(code, Some(0));
    assert!(text.contains("all outputs are right"), "{text}");
    assert_eq!(rabot(&["compare", MODEL]).0, Some(2));
}

#[test]
fn passes_are_shown_one_by_one() {
    let found = json(&["debug", MODEL, "--random", "1", "--time", "--values", "--json"]);
    let rows = found["trace"]["rows"].as_array().unwrap();
    assert_eq!(rows[0]["pass"], "import");
    assert_eq!(rows.len(), found["pipeline"].as_str().unwrap().split(',').count() + 1);
    assert!(rows.iter().all(|row| row["measured"]["median_ms"].as_f64().unwrap() > 0.0));
    let fuse = rows.iter().find(|row| row["pass"] == "fuse").unwrap();
    assert_eq!(
        (fuse["applied"].as_array().unwrap().len(), &fuse["verdict"]["kind"]),
        (4, &Value::from("holds"))
    );
    let pipeline = "fold,fuse,quantize,dce,group";
    let args = ["debug", MODEL, "--random", "1", "--diff", "--explain", "--calibrate", CALIBRATION];
    let (code, text, stderr) =
        rabot(&[&args[..], &["--pipeline", pipeline, "--print-after", "quantize"]].concat());
    assert_eq!(code, Some(0), "{stderr}{text}");
    for part in ["; after quantize", "QLinearConv", "changes accuracy", "applied fold-batch-norm", "compiled"]
    {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    // Operands are called by their names, so that a difference shows what the pass did and no numbers.
    for part in ["--- fold", "+++ fuse", "\n-%", "\n+%"] {
        assert!(text.contains(part), "no `{part}` in {text}");
    }
    assert_eq!(rabot(&["debug", MODEL, "--random", "1", "--print-after", "nothing"]).0, Some(2));
}

#[test]
fn errors_are_split_into_what_is_injected_and_what_is_inherited() {
    let pipeline = "fold,fuse,prune{sparsity=0.5},dce,group";
    let found = json(&["debug", MODEL, "--random", "1", "--values", "--json", "--pipeline", pipeline]);
    let rows = found["trace"]["rows"].as_array().unwrap();
    let prune = rows.iter().find(|row| row["pass"].as_str().unwrap().starts_with("prune")).unwrap();
    let values = prune["values"].as_array().unwrap();
    let error = |value: &Value, part: &str| value[part]["max_abs"].as_f64().unwrap();
    assert!(values.iter().all(|value| {
        error(value, "added") <= error(value, "injected") + error(value, "inherited") + 1e-6
    }));
    assert!(values.iter().any(|value| error(value, "injected") > 0.0));
    // What a view of a wrong value shows is inherited.
    assert!(values.iter().any(|value| error(value, "injected") == 0.0 && error(value, "inherited") > 0.0));
    let output = &prune["outputs"][0];
    assert!(output["added"]["cosine"].as_f64().unwrap() < 1.0);
    assert!(output["tolerance"].as_f64().unwrap() > 0.0 && !output["tolerance_reason"].is_null());
    assert!(rows.iter().all(|row| row["predicted"]["ms"].as_f64().unwrap() > 0.0));
}

#[test]
fn ledgers_name_the_pass_that_got_worse() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_owned();
    let write = |name: &str, pipeline: &str| {
        let args =
            ["debug", MODEL, "--random", "1", "--pipeline", pipeline, "--ledger", &path(name), "--json"];
        assert_eq!(rabot(&args).0, Some(0));
    };
    write("half.json", "fold,fuse,prune{sparsity=0.25},dce,group");
    write("more.json", "fold,fuse,prune{sparsity=0.9},dce,group");
    let same = ["ledger", "diff", &path("half.json"), &path("half.json"), "--json"];
    assert_eq!(json(&same)["diff"]["moves"], serde_json::json!([]));
    let (code, stdout, _) = rabot(&["ledger", "diff", &path("half.json"), &path("more.json"), "--json"]);
    assert_eq!(code, Some(1), "{stdout}");
    let found: Value = serde_json::from_str(&stdout).unwrap();
    let moves = found["diff"]["moves"].as_array().unwrap();
    let worse: Vec<&Value> =
        moves.iter().filter(|m| m["turn"] == "worse" && m["metric"] == "error").collect();
    assert!(!worse.is_empty() && worse.iter().all(|m| m["stage"] == "prune"), "{worse:?}");
    let loose = ["ledger", "diff", &path("half.json"), &path("more.json"), "--max-error", "1000"];
    let (code, text, _) = rabot(&[&loose[..], &["--max-time", "1e6", "--all"]].concat());
    assert_eq!(code, Some(0), "{text}");
    assert!(text.contains("prune") && text.contains("the pipeline was"), "{text}");
    fs::write(path("broken.json"), "{}").unwrap();
    assert_eq!(rabot(&["ledger", "diff", &path("half.json"), &path("broken.json")]).0, Some(2));
}

#[test]
fn golden_packs_name_the_pass_that_moved_an_output() {
    let folder = tempfile::tempdir().unwrap();
    let pack = folder.path().join("pack");
    let place = pack.to_str().unwrap();
    let record =
        ["golden", "record", MODEL, "--random", "1", "-o", place, "--pipeline", "fold,fuse,dce,group"];
    assert_eq!(rabot(&record).0, Some(0));
    let (code, text, stderr) = rabot(&["golden", "check", place]);
    assert_eq!(code, Some(0), "{stderr}{text}");
    assert!(text.contains("nothing moved"), "{text}");

    let (code, _, stderr) = rabot(&record);
    assert!(code == Some(2) && stderr.contains("--reason"), "{stderr}");
    assert_eq!(rabot(&[&record[..], &["--reason", "as a test"]].concat()).0, Some(0));
    let toml = fs::read_to_string(pack.join("golden.toml")).unwrap();
    assert!(toml.contains("as a test"), "{toml}");

    // Another pipeline, as if a pass had begun to change numbers: the pass is named.
    fs::write(
        pack.join("golden.toml"),
        toml.replace("fold,fuse,dce,group", "fold,fuse,prune{pattern=2:4},group"),
    )
    .unwrap();
    let (code, _, stderr) = rabot(&["golden", "check", place]);
    assert!(code == Some(2) && stderr.contains("dce"), "{stderr}");
    let staged = toml.replace("fold,fuse,dce,group", "fold,fuse,prune,group").replace("\"dce\"", "\"prune\"");
    fs::write(pack.join("golden.toml"), staged).unwrap();
    let (code, text, stderr) = rabot(&["golden", "check", place]);
    assert_eq!(code, Some(1), "{stderr}{text}");
    assert!(text.contains("`logits` moved at prune"), "{text}");
    assert!(text.contains("beyond"), "{text}");
}

#[test]
fn what_is_no_pack_is_not_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().to_str().unwrap();
    fs::write(folder.path().join("precious"), b"x").unwrap();
    let record = ["golden", "record", MODEL, "--random", "1", "-o", place, "--reason", "r"];
    assert_eq!(rabot(&record).0, Some(2));
    assert!(Path::new(place).join("precious").is_file());
    assert_eq!(rabot(&["golden", "check", place]).0, Some(2));
}
