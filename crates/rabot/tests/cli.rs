//! The command line: every verb on the demo's network, and what it says of bad input.

use rabot::{DType, Tensor, Tensors, npz};
use serde_json::Value;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx");
const TEST_DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-test.npz");
const CALIBRATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits-calibration.npz");

fn rabot(args: &[&str]) -> Output {
    let output = Command::new(env!("CARGO_BIN_EXE_rabot")).args(args).output().unwrap();
    let stderr = text(&output.stderr);
    assert!(!stderr.contains("panicked"), "{args:?}: {stderr}");
    assert!(output.status.code().is_some(), "{args:?} was killed: {stderr}");
    output
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Standard output of a call that must succeed.
fn done(args: &[&str]) -> String {
    let output = rabot(args);
    assert_eq!(output.status.code(), Some(0), "{args:?}: {}", text(&output.stderr));
    text(&output.stdout)
}

fn json(args: &[&str]) -> Value {
    let text = done(args);
    serde_json::from_str(&text).unwrap_or_else(|error| panic!("{args:?}: {error}: {text}"))
}

/// Standard error of a call that must be refused, which names all of `parts`.
fn refused(args: &[&str], parts: &[&str]) -> String {
    let output = rabot(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{args:?}: {stderr}");
    assert!(stderr.contains("error: "), "{args:?}: {stderr}");
    for part in parts {
        assert!(stderr.contains(part), "{args:?}: no `{part}` in: {stderr}");
    }
    assert!(output.stdout.is_empty(), "{args:?}: {}", text(&output.stdout));
    stderr
}

fn folder() -> tempfile::TempDir {
    tempfile::tempdir().unwrap()
}

fn path(folder: &tempfile::TempDir, name: &str) -> String {
    folder.path().join(name).display().to_string()
}

fn save(path: &str, name: &str, tensor: Tensor) {
    npz::write_npz(File::create(path).unwrap(), &Tensors::from_iter([(name.to_owned(), tensor)])).unwrap();
}

fn images(count: usize) -> Tensor {
    let pixels: Vec<f32> = (0..count * 64).map(|i| (i % 17) as f32 / 16.0).collect();
    Tensor::from_vec(&[count, 1, 8, 8], pixels)
}

fn names(folder: &Path) -> Vec<String> {
    let entries =
        fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().to_string_lossy().into_owned());
    let mut names: Vec<String> = entries.collect();
    names.sort();
    names
}

#[test]
fn help_and_version_are_there_for_every_verb() {
    assert!(done(&["--version"]).starts_with("rabot "));
    let help = done(&["--help"]);
    for verb in ["inspect", "run", "bench", "compile", "explain", "onnx-test", "ops", "passes", "targets"] {
        assert!(help.contains(verb), "{help}");
        assert!(done(&[verb, "--help"]).contains("Examples:"), "{verb}");
    }
    let wrong = rabot(&["plane"]);
    assert_eq!(wrong.status.code(), Some(2));
}

#[test]
fn inspect_tells_what_is_in_a_model() {
    let text = done(&["inspect", MODEL]);
    assert!(text.contains("f32[batch,1,8,8]") && text.contains("Everything in it is supported"), "{text}");
    let json = json(&["inspect", MODEL, "--dim", "batch=2", "--json"]);
    assert_eq!(json["inputs"][0]["name"], "image");
    assert_eq!(json["inputs"][0]["type"], "f32[2,1,8,8]");
    assert_eq!(json["outputs"][0]["type"], "f32[2,10]");
    assert_eq!(json["ops"]["Conv"], 4);
    assert_eq!(json["supported"], true);
    assert_eq!(json["weights_bytes"], json["parameters"].as_u64().unwrap() * 4);
    assert!(json["flops"].as_u64().unwrap() > 1_000_000, "{json}");
}

#[test]
fn run_gives_what_the_interpreter_gives_on_any_number_of_threads() {
    let folder = folder();
    let (compiled, threads, reference) =
        (path(&folder, "a.npz"), path(&folder, "b.npz"), path(&folder, "c.npz"));
    let call = |out: &str, more: &[&str]| {
        let mut args = vec!["run", MODEL, "--inputs", TEST_DATA, "--outputs", out];
        args.extend_from_slice(more);
        let text = done(&args);
        assert!(text.contains("logits") && text.contains("[360,10]"), "{text}");
        npz::read_npz(Path::new(out)).unwrap()
    };
    let first = call(&compiled, &[]);
    assert_eq!(fs::read(&compiled).unwrap(), {
        call(&threads, &["--threads", "3"]);
        fs::read(&threads).unwrap()
    });
    let expected = call(&reference, &["--reference"])["logits"].to_f64s();
    let labels = npz::read_npz(Path::new(TEST_DATA)).unwrap()["label"].to_i64s();
    let logits = first["logits"].to_f64s();
    assert!(logits.iter().zip(&expected).all(|(a, b)| (a - b).abs() < 1e-4));
    let best = |row: &[f64]| (0..10).max_by(|&a, &b| row[a].total_cmp(&row[b])).unwrap() as i64;
    let right = logits.chunks(10).zip(&labels).filter(|(row, label)| best(row) == **label).count();
    assert!(right * 100 >= labels.len() * 98, "{right} of {}", labels.len());
}

#[test]
fn run_takes_a_folder_one_array_or_a_seed() {
    let folder = folder();
    let (inputs, outputs) = (folder.path().join("in"), folder.path().join("out"));
    fs::create_dir(&inputs).unwrap();
    for count in [1usize, 3] {
        save(&inputs.join(format!("{count}.npz")).display().to_string(), "image", images(count));
    }
    done(&[
        "run",
        MODEL,
        "--inputs",
        &inputs.display().to_string(),
        "--outputs",
        &outputs.display().to_string(),
    ]);
    assert_eq!(names(&outputs), ["1.npz", "3.npz"]);
    let three = npz::read_npz(&outputs.join("3.npz")).unwrap();
    assert_eq!(three["logits"].shape(), [3, 10]);

    let npy = path(&folder, "image.npy");
    npz::write_npy(&mut File::create(&npy).unwrap(), &images(3)).unwrap();
    let one = json(&["run", MODEL, "--input", &format!("image={npy}"), "--json"]);
    let top = one["runs"][0]["outputs"][0]["top"][0]["value"].as_f64().unwrap();
    let row = &three["logits"].to_f64s()[..10];
    assert_eq!(top, row.iter().copied().fold(f64::MIN, f64::max));

    let seeded = |seed: &str| {
        json(&["run", MODEL, "--random", seed, "--dim", "batch=4", "--json"])["runs"][0]["outputs"].clone()
    };
    assert_eq!(seeded("1")[0]["shape"], serde_json::json!([4, 10]));
    assert_eq!(seeded("1"), seeded("1"));
    assert_ne!(seeded("1"), seeded("2"));
}

#[test]
fn run_quantizes_with_calibration() {
    let pipeline = "cse,fold,algebra,fuse,subpixel,fold,algebra,cse,quantize,dce,group";
    let args =
        ["run", MODEL, "--inputs", TEST_DATA, "--pipeline", pipeline, "--calibrate", CALIBRATION, "--json"];
    assert_eq!(json(&args)["runs"][0]["outputs"][0]["name"], "logits");
    let args = ["run", MODEL, "--inputs", TEST_DATA, "--pipeline", pipeline];
    refused_after_note(&args, "calibrat");
}

/// As [`refused`], where notes may come before the error.
fn refused_after_note(args: &[&str], part: &str) {
    let output = rabot(args);
    let stderr = text(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{stderr}");
    assert!(stderr.contains("error: ") && stderr.contains(part), "{stderr}");
}

#[test]
fn bench_measures() {
    let json = json(&["bench", MODEL, "--seconds", "0.05", "--dim", "batch=2", "--threads", "2", "--json"]);
    for key in ["compile_ms", "load_ms", "median_ms", "p99_ms", "runs", "peak_rss_mb"] {
        assert!(json[key].as_f64().unwrap() > 0.0, "{key}: {json}");
    }
    assert!(json["load_ms"].as_f64() < json["compile_ms"].as_f64());
    let output = rabot(&["bench", MODEL, "--seconds", "0"]);
    assert!(text(&output.stderr).contains("batch=1"), "{}", text(&output.stderr));
    assert!(text(&output.stdout).contains("median_ms"));
}

#[test]
fn compile_emits_every_form() {
    let graph = done(&["compile", MODEL, "--emit", "text"]);
    assert!(graph.contains("model \"digits\"") && graph.contains("Conv("), "{graph}");
    assert!(done(&["compile", MODEL, "--emit", "clif", "-o", "-"]).contains("function"));
    let asm = done(&["compile", MODEL, "--emit", "asm", "--target", "aarch64"]);
    assert!(asm.contains("__aarch64") && asm.contains("fmla"), "no vectors in {} bytes", asm.len());
    let folder = folder();
    let file = path(&folder, "my-digits.o");
    let args =
        ["compile", MODEL, "--emit", "obj", "--dim", "batch=1", "--target", "aarch64", "-o", &file, "--json"];
    assert_eq!(json(&args)["files"].as_array().unwrap().len(), 2);
    assert_eq!(names(folder.path()), ["my-digits.h", "my-digits.o"]);
    let object = fs::read(&file).unwrap();
    assert_eq!(object[..4], *b"\x7fELF");
    // The machine of the ELF header: EM_AARCH64.
    assert_eq!(object[18..20], [183, 0]);
    assert!(fs::read_to_string(path(&folder, "my-digits.h")).unwrap().contains("rabot_my_digits_run"));
}

#[test]
fn compile_to_an_object_needs_a_file_and_sizes() {
    refused(&["compile", MODEL, "--emit", "obj"], &["-o"]);
    let folder = folder();
    refused(&["compile", MODEL, "--emit", "obj", "-o", &path(&folder, "d.o")], &["batch", "--dim"]);
    assert!(names(folder.path()).is_empty());
    let missing = path(&folder, "no/d.s");
    refused(&["compile", MODEL, "--emit", "asm", "-o", &missing], &[&missing]);
}

#[test]
fn explain_lists_kernels() {
    let json = json(&["explain", MODEL, "--json"]);
    let kernels = json["kernels"].as_array().unwrap();
    assert!(!kernels.is_empty());
    for kernel in kernels {
        let kind = kernel["kind"].as_str().unwrap();
        assert!(["loop", "contract", "move"].contains(&kind), "{kernel}");
        assert!(!kernel["name"].as_str().unwrap().is_empty());
        assert!(!kernel["sources"].as_array().unwrap().is_empty(), "{kernel}");
        assert!(!kernel["values"].as_array().unwrap().is_empty(), "{kernel}");
    }
    let text = done(&["explain", MODEL]);
    assert!(text.contains("contract") && text.contains("gemm"), "{text}");
    // Without passes nothing is fused.
    let plain = self::json(&["explain", MODEL, "--pipeline", "", "--json"]);
    assert!(plain["kernels"].as_array().unwrap().len() > kernels.len());
}

#[test]
fn lists_are_complete() {
    let ops = json(&["ops", "--json"]);
    let has = |name: &str| ops["ops"].as_array().unwrap().iter().any(|op| op["op"] == name);
    assert!(has("Conv") && has("If") && has("Dropout") && has("Loop") && !has("Frobnicate"));
    assert!(done(&["ops"]).contains("MatMul"));
    let passes = json(&["passes", "--json"]);
    let names: Vec<&str> =
        passes["passes"].as_array().unwrap().iter().filter_map(|p| p["name"].as_str()).collect();
    for pass in passes["default_pipeline"].as_str().unwrap().split(',') {
        assert!(names.contains(&pass), "{pass}");
    }
    assert!(done(&["passes"]).contains("bitwise"));
    let rules = json(&["passes", "--rules", "--json"]);
    for rule in rules["rules"].as_array().unwrap() {
        assert!(rule["identity"].as_str().is_some_and(|text| !text.is_empty()), "{rule}");
        assert!(matches!(rule["valid"].as_str(), Some("always" | "finite values")), "{rule}");
    }
    assert!(done(&["passes", "--rules"]).contains("x * 1 = x"));
    let targets = json(&["targets", "--json"]);
    let host = targets["targets"].as_array().unwrap().iter().find(|t| t["name"] == "host").unwrap();
    assert_eq!(host["runs_here"], true);
    assert!(done(&["targets"]).contains("riscv64"));
}

#[test]
fn files_that_are_no_models_are_refused() {
    let folder = folder();
    let whole = fs::read(MODEL).unwrap();
    let (file, out) = (path(&folder, "model.onnx"), path(&folder, "out.npz"));
    // Bytes without a pattern, always the same ones.
    let mut state = 1u64;
    let noise: Vec<u8> = (0..5000)
        .map(|_| {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        })
        .collect();
    let contents: [&[u8]; 5] =
        [&whole[..whole.len() / 2], &whole[..100], &noise, b"", b"version https://git-lfs"];
    for content in contents {
        fs::write(&file, content).unwrap();
        refused(&["run", &file, "--random", "1", "--dim", "batch=1", "--outputs", &out], &[&file]);
        refused(&["inspect", &file], &[&file]);
        refused(&["explain", &file], &[&file]);
        refused(&["compile", &file, "--emit", "text", "-o", &out], &[&file]);
        refused(&["bench", &file], &[&file]);
    }
    assert_eq!(names(folder.path()), ["model.onnx"]);
    refused(&["inspect", "no such.onnx"], &["no such.onnx"]);
    refused(&["inspect", &folder.path().display().to_string()], &[&folder.path().display().to_string()]);
}

#[test]
fn inputs_that_do_not_fit_are_named() {
    let folder = folder();
    let (file, out) = (path(&folder, "in.npz"), path(&folder, "out.npz"));
    let refused_with = |parts: &[&str]| {
        for more in [&["--reference"][..], &[]] {
            let mut args = vec!["run", MODEL, "--inputs", &file, "--outputs", &out];
            args.extend_from_slice(more);
            refused(&args, parts);
        }
        assert_eq!(names(folder.path()), ["in.npz"]);
    };
    save(&file, "picture", images(1));
    refused_with(&["image", "missing", "f32[batch,1,8,8]"]);
    save(&file, "image", Tensor::zeros(DType::F64, &[1, 1, 8, 8]));
    refused_with(&["image", "f64", "f32"]);
    save(&file, "image", Tensor::zeros(DType::F32, &[1, 1, 8, 9]));
    refused_with(&["image", "[1, 1, 8, 9]", "8"]);
    save(&file, "image", Tensor::zeros(DType::F32, &[64]));
    refused_with(&["image", "[64]"]);
    fs::write(&file, b"PK\x03\x04 this is no archive").unwrap();
    refused_with(&["in.npz"]);
    save(&file, "image", images(40));
    let whole = fs::read(&file).unwrap();
    fs::write(&file, &whole[..whole.len() / 2]).unwrap();
    refused_with(&["in.npz"]);
    let npy = path(&folder, "in.npz");
    refused(&["run", MODEL, "--input", &format!("image={npy}")], &["in.npz", "npy"]);
    refused(&["run", MODEL, "--input", &format!("picture={npy}")], &["picture", "image"]);
    refused(&["run", MODEL], &["--inputs"]);
    let empty = self::folder();
    refused(&["run", MODEL, "--inputs", &empty.path().display().to_string()], &["no npz file"]);
}

#[test]
fn options_that_make_no_sense_are_named() {
    let run = |more: &[&str], parts: &[&str]| {
        let mut args = vec!["run", MODEL, "--inputs", TEST_DATA];
        args.extend_from_slice(more);
        refused(&args, parts);
    };
    run(&["--dim", "depth=3"], &["depth", "batch"]);
    run(&["--dim", "batch=x"], &["batch=x"]);
    run(&["--dim", "batch=1", "--dim", "batch=2"], &["batch", "twice"]);
    run(&["--dim", "batch=7"], &["image", "7", "360"]);
    run(&["--target", "z80"], &["z80", "x86-64-v3"]);
    run(&["--pipeline", "plane"], &["plane", "fold"]);
    run(&["--pipeline", "fold{depth=3}"], &["depth", "fold"]);
    run(&["--pipeline", "fold{"], &["fold{"]);
    run(&["-O4"], &["4", "0..=3"]);
    run(&["-O1", "--pipeline", "fold"], &["-O", "--pipeline"]);
    run(&["--precision", "bf16"], &["bf16"]);
    run(&["--threads", "0"], &["--threads"]);
    run(&["--target", foreign()], &[foreign()]);
    refused(&["bench", MODEL, "--seconds", "-1"], &["seconds"]);
    refused(&["run", MODEL, "--random", "1", "--dim", "batch=1000000000000"], &["image", "too large"]);
}

/// A target that is not this machine's.
fn foreign() -> &'static str {
    if cfg!(target_arch = "riscv64") { "aarch64" } else { "riscv64" }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let run = ["run", MODEL, "--inputs", TEST_DATA, "--outputs", "/dev/full"];
    refused_after_note(&run, "/dev/full");
    refused(&["compile", MODEL, "--emit", "text", "-o", "/dev/full"], &["/dev/full"]);
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let output = Command::new(env!("CARGO_BIN_EXE_rabot")).arg("ops").stdout(full()).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert!(
        text(&output.stderr).starts_with("error: cannot write to standard output"),
        "{}",
        text(&output.stderr)
    );
    assert!(PathBuf::from("/dev/full").exists());
}

#[test]
fn places_that_cannot_be_written_are_named() {
    let folder = folder();
    let nowhere = path(&folder, "none/out.npz");
    refused(&["run", MODEL, "--random", "1", "--dim", "batch=1", "--outputs", &nowhere], &[&nowhere]);
    let here = folder.path().display().to_string();
    refused(&["run", MODEL, "--random", "1", "--dim", "batch=1", "--outputs", &here], &[&here]);
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let mut child = Command::new(env!("CARGO_BIN_EXE_rabot"))
        .args(["compile", MODEL, "--emit", "clif"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), text(&output.stderr)), (Some(0), String::new()));
}

#[test]
fn optimization_levels_are_pipelines() {
    let emitted = |more: &[&str]| done(&[&["compile", MODEL, "--emit", "text"][..], more].concat());
    assert_eq!(emitted(&["-O0"]), emitted(&["--pipeline", ""]));
    assert_eq!(emitted(&["-O2"]), emitted(&[]));
    assert_ne!(emitted(&["-O1"]), emitted(&["-O2"]));
    done(&["compare", MODEL, "--random", "1", "-O3"]);
}

#[test]
fn compile_to_onnx_gives_a_model_again() {
    let folder = folder();
    let (file, again) = (path(&folder, "d.onnx"), path(&folder, "again.onnx"));
    let arguments = ["compile", MODEL, "--emit", "onnx", "--pipeline", ""];
    let wrote = json(&[&arguments[..], &["-o", &file, "--external-data", "1024", "--json"]].concat());
    assert_eq!(wrote["emit"], "onnx");
    assert_eq!(wrote["files"][1]["path"], format!("{file}.data"));
    // The same graph, whatever is beside it; and the optimized one computes the same.
    let text = |model: &str| done(&["compile", model, "--emit", "text", "--pipeline", ""]);
    assert_eq!(text(&file), text(MODEL));
    done(&["compile", &file, "--emit", "onnx", "--opset", "20", "-o", &again]);
    assert_eq!(json(&["inspect", &again, "--json"])["opsets"]["ai.onnx"], 20);
    done(&["compare", &again, "--random", "2"]);
}

#[test]
fn onnx_files_that_cannot_be_written_are_refused() {
    let folder = folder();
    let file = path(&folder, "d.onnx");
    let onnx = ["compile", MODEL, "--emit", "onnx"];
    let refuse = |more: &[&str], parts: &[&str]| refused(&[&onnx[..], more].concat(), parts);
    refuse(&[], &["an ONNX file", "-o"]);
    refuse(&["-o", &file, "--opset", "6"], &["operator set 6", "7 to 28"]);
    refuse(&["-o", &path(&folder, "missing/d.onnx")], &["cannot write", "missing/d.onnx"]);
    refused(&["compile", MODEL, "--emit", "text", "--opset", "17"], &["--opset", "--emit onnx"]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
