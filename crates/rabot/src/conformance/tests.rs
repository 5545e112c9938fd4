use super::*;
use rabot_onnx::write_tensor;
use rabot_tensor::{DType, Tensor};
use std::fs;
use std::path::Path;

/// A case of the demo's model, with these values as its output.
fn demo_case(folder: &Path, change: impl Fn(usize, f64) -> f64) -> Case {
    let model = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../demo/digits.onnx");
    let data = folder.join("test_data_set_0");
    fs::create_dir_all(&data).unwrap();
    fs::copy(&model, folder.join("model.onnx")).unwrap();
    let image = Tensor::from_vec(&[1, 1, 8, 8], vec![0.5f32; 64]);
    let graph = crate::import(&model, &Options::default()).unwrap().graph;
    let output = interp::run(&graph, &crate::Tensors::from_iter([("image".to_owned(), image.clone())]));
    let logits = output.unwrap()["logits"].clone();
    let values: Vec<f64> = logits.to_f64s().into_iter().enumerate().map(|(at, v)| change(at, v)).collect();
    let expected = Tensor::from_f64s(DType::F32, logits.shape(), &values);
    fs::write(data.join("input_0.pb"), write_tensor("", &image)).unwrap();
    fs::write(data.join("output_0.pb"), write_tensor("", &expected)).unwrap();
    Case { name: "demo".to_owned(), folder: folder.to_owned() }
}

#[test]
fn right_and_wrong_outputs_in_both_ways() {
    let folder = tempfile::tempdir().unwrap();
    let settings = |reference| Settings { reference, ..Settings::default() };
    let right = demo_case(&folder.path().join("right"), |_, value| value);
    assert_eq!(run_case(&right, &settings(true)).max_ulp, Some(0));
    let compiled = run_case(&right, &settings(false));
    assert_eq!((compiled.status, compiled.reason), (Verdict::Pass, None));
    let wrong =
        demo_case(&folder.path().join("wrong"), |at, value| if at == 3 { value + 1.0 } else { value });
    for reference in [true, false] {
        let outcome = run_case(&wrong, &settings(reference));
        assert_eq!(outcome.status, Verdict::Fail);
        assert!(outcome.reason.unwrap().contains("1 of 10 elements differ, the first at [0, 3]"));
        assert!(outcome.max_ulp.is_some_and(|ulp| ulp > 1000));
    }
    let found = find_cases(folder.path()).unwrap();
    assert_eq!(found.iter().map(|case| &*case.name).collect::<Vec<_>>(), ["right", "wrong"]);
}

#[test]
fn a_case_without_its_files_fails() {
    let folder = tempfile::tempdir().unwrap();
    let case = demo_case(folder.path(), |_, value| value);
    let reason = |case: &Case| run_case(case, &Settings::default()).reason.unwrap_or_default();
    fs::write(folder.path().join("tolerance.json"), "{}").unwrap();
    assert!(reason(&case).contains("tolerance.json"));
    fs::remove_file(folder.path().join("tolerance.json")).unwrap();
    fs::remove_file(folder.path().join("test_data_set_0/output_0.pb")).unwrap();
    assert_eq!(reason(&case), "test_data_set_0 has 0 output_N.pb, but the model has 1 outputs");
    fs::remove_dir_all(folder.path().join("test_data_set_0")).unwrap();
    assert_eq!(reason(&case), "the case has no folder test_data_set_0");
    assert!(matches!(find_cases(&folder.path().join("none")), Err(ConformanceError::Read { .. })));
}
