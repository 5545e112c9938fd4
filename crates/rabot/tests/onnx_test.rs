//! `rabot onnx-test` on cases made from the demo's network.

use rabot::onnx::write_tensor;
use rabot::{DType, Options, Session, Tensor, Tensors};
use serde_json::Value;
use std::fs;
use std::path::Path;
use std::process::{Command, Output};

const MODEL: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../demo/digits.onnx");

fn onnx_test(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_rabot")).arg("onnx-test").args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// A case whose expected output is off by `error` in its first element.
fn case(folder: &Path, error: f32) {
    let data = folder.join("test_data_set_0");
    fs::create_dir_all(&data).unwrap();
    fs::copy(MODEL, folder.join("model.onnx")).unwrap();
    let session = Session::new(&rabot::compile(MODEL, &Options::default()).unwrap()).unwrap();
    let image = Tensor::from_vec(&[1, 1, 8, 8], vec![0.5f32; 64]);
    let outputs = session.run(&Tensors::from_iter([("image".to_owned(), image.clone())])).unwrap();
    let mut logits = outputs["logits"].to_f64s();
    logits[0] += f64::from(error);
    let expected = Tensor::from_f64s(DType::F32, &[1, 10], &logits);
    fs::write(data.join("input_0.pb"), write_tensor("image", &image)).unwrap();
    fs::write(data.join("output_0.pb"), write_tensor("logits", &expected)).unwrap();
}

#[test]
fn cases_are_told_line_by_line_and_lists_are_held_to() {
    let folder = tempfile::tempdir().unwrap();
    for (name, error) in [("kind/test_b_wrong", 1.0), ("kind/test_a_right", 0.0), ("other/test_c_right", 0.0)]
    {
        case(&folder.path().join(name), error);
    }
    let root = folder.path().display().to_string();
    for extra in [&["--json"][..], &["--json", "--reference", "--jobs", "3"]] {
        let output = onnx_test(&[&[root.as_str()], extra].concat());
        assert_eq!(output.status.code(), Some(1), "{}", text(&output.stderr));
        let rows: Vec<Value> =
            text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let cells: Vec<_> =
            rows.iter().map(|row| (row["name"].as_str().unwrap(), row["status"].as_str().unwrap())).collect();
        let expected =
            [("kind/test_a_right", "pass"), ("kind/test_b_wrong", "fail"), ("other/test_c_right", "pass")];
        assert_eq!(cells, expected);
        assert!(rows[1]["reason"].as_str().unwrap().contains("1 of 10 elements differ"));
        assert!(rows[0]["max_ulp"].is_u64() && rows[0]["reason"].is_null());
    }
    let filtered = onnx_test(&[&root, "--filter", "test_?_right", "--quiet"]);
    assert_eq!(filtered.status.code(), Some(0));
    assert_eq!(text(&filtered.stdout), "2 cases: 2 pass, 0 fail, 0 unsupported\n");
    assert_eq!(onnx_test(&[&root, "--atol", "2"]).status.code(), Some(0));

    let list = folder.path().join("list.txt");
    let path = list.display().to_string();
    fs::write(&list, "kind/test_b_wrong\tthe expected output is wrong\n").unwrap();
    assert_eq!(onnx_test(&[&root, "--allow", &path]).status.code(), Some(0));
    fs::write(&list, "kind/test_b_wrong\twrong\nkind/test_a_right\tnot so\nkind/test_z\tgone\n").unwrap();
    let stale = onnx_test(&[&root, "--allow", &path, "--quiet"]);
    assert_eq!(stale.status.code(), Some(1));
    let stdout = text(&stale.stdout);
    assert!(stdout.contains("listed as not passing, but passes: kind/test_a_right"), "{stdout}");
    assert!(stdout.contains("listed as not passing, but there is no such case: kind/test_z"), "{stdout}");
}

#[test]
fn folders_without_cases_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().display().to_string();
    let output = onnx_test(&[&root]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("holds no cases"), "{}", text(&output.stderr));
    case(&folder.path().join("test_a"), 0.0);
    let output = onnx_test(&[&root, "--filter", "nothing"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("--filter"), "{}", text(&output.stderr));
}
