//! Passes over every model of the zoo that has been fetched: each leaves a valid graph, and small models compute the
//! same before and after.

use rabot_ir::Graph;
use rabot_ir::interp::{self, Tensors};
use rabot_ir::testing::random_inputs;
use rabot_onnx::Limits;
use rabot_passes::{DEFAULT_PIPELINE, pipeline};
use rabot_rewrite::{Exactness, PassCx, Step};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Models whose interpretation takes a fraction of a second, with sizes for their symbolic dims.
const SMALL: &[(&str, &[(&str, usize)])] = &[
    ("magika", &[]),
    ("minilm-l6-v2", &[("batch", 2), ("sequence", 5)]),
    ("ncf-movielens", &[]),
    ("openwakeword-alexa", &[]),
    ("openwakeword-embedding", &[]),
    ("openwakeword-hey-jarvis", &[]),
    ("ppocrv4-cls", &[("x.dim2", 48), ("x.dim3", 64)]),
    ("silero-vad", &[("batch", 1), ("sequence", 512)]),
    ("spam-mlp", &[]),
];

/// Fetched models by name, in order of their names.
fn models() -> Vec<(String, PathBuf)> {
    let cache = std::env::var_os("RABOT_ZOO").map(PathBuf::from);
    let home = std::env::var_os("HOME").map(PathBuf::from).unwrap_or_default();
    let folder = cache.unwrap_or_else(|| home.join(".cache/rabot-zoo")).join("models");
    let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten();
    let mut models: Vec<(String, PathBuf)> = entries
        .map(|entry| (entry.file_name().to_string_lossy().into_owned(), entry.path().join("model.onnx")))
        .filter(|(_, path)| path.exists())
        .collect();
    models.sort();
    if models.is_empty() {
        eprintln!("skipped: no models in {}; zoo/README.md says how to fetch them", folder.display());
    }
    models
}

fn import(path: &Path) -> Graph {
    rabot_onnx::import_file(path, &Limits::default()).unwrap_or_else(|error| panic!("{error}")).graph
}

#[test]
fn every_model_goes_through_the_default_pipeline() {
    let pipeline = pipeline(DEFAULT_PIPELINE).unwrap();
    for (name, path) in models() {
        let mut graph = import(&path);
        let start = Instant::now();
        let steps = pipeline
            .run(&mut graph, &PassCx::default(), &mut |_, _| {})
            .unwrap_or_else(|error| panic!("{name}: {error}"));
        let (first, last) = (&steps[0].report.before, &steps[steps.len() - 1].report.after);
        let took = start.elapsed();
        println!(
            "{name}: {} nodes become {}, in {} kernels; {took:.1?}",
            first.nodes, last.nodes, last.kernels
        );
        let each = steps.iter().map(|step| format!("{} {:.1?}", step.pass, step.report.elapsed));
        println!("    {}", each.collect::<Vec<_>>().join(", "));
        assert!(last.nodes <= first.nodes && last.kernels <= last.nodes, "{name}");
        // What is done is done: a second time, no rule finds anything.
        let again = pipeline.run(&mut graph, &PassCx::default(), &mut |_, _| {}).unwrap();
        for step in again.iter().filter(|step| step.pass != "group") {
            assert!(step.report.applied.is_empty(), "{name}, {}: {:?}", step.pass, step.report.applied);
        }
    }
}

#[test]
fn small_models_compute_the_same_after_every_pass() {
    for (name, path) in models() {
        let Some((_, sizes)) = SMALL.iter().find(|(small, _)| *small == name) else { continue };
        let mut graph = import(&path);
        let size = |dim: &str| sizes.iter().find(|(name, _)| *name == dim).map(|(_, size)| *size);
        let mut inputs = random_inputs(&graph, 1, &size).unwrap_or_else(|error| panic!("{name}: {error}"));
        keep_in_range(&name, &mut inputs);
        let mut before = interp::run(&graph, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
        pipeline(DEFAULT_PIPELINE)
            .unwrap()
            .run(&mut graph, &PassCx::default(), &mut |step, graph| {
                let after = interp::run(graph, &inputs).unwrap_or_else(|error| panic!("{name}: {error}"));
                compare(&name, step, &before, &after);
                before = after;
            })
            .unwrap_or_else(|error| panic!("{name}: {error}"));
    }
}

/// Token types, masks and sample rates are not any integer.
fn keep_in_range(name: &str, inputs: &mut Tensors) {
    use rabot_tensor::{DType, Tensor};
    for (input, tensor) in inputs.iter_mut() {
        match (name, input.as_str()) {
            ("silero-vad", "sr") => *tensor = Tensor::from_i64s(DType::I64, tensor.shape(), &[16000]),
            ("minilm-l6-v2", "token_type_ids") => *tensor = Tensor::zeros(DType::I64, tensor.shape()),
            ("minilm-l6-v2", "attention_mask") => {
                *tensor = Tensor::from_i64s(DType::I64, tensor.shape(), &vec![1; tensor.len()]);
            }
            _ => {}
        }
    }
}

fn compare(name: &str, step: &Step, before: &Tensors, after: &Tensors) {
    for (output, expected) in before {
        let actual = &after[output];
        match step.exactness {
            Exactness::Bitwise => assert_eq!(actual, expected, "{name}, {}: `{output}`", step.pass),
            Exactness::Rel { rtol, atol } => {
                assert_eq!(actual.shape(), expected.shape(), "{name}, {}: `{output}`", step.pass);
                let values = expected.to_f64s();
                let bound = atol + rtol * values.iter().fold(0.0, |max: f64, v| max.max(v.abs()));
                for (a, b) in actual.to_f64s().into_iter().zip(values) {
                    assert!((a - b).abs() <= bound, "{name}, {}: `{output}` is {a}, not {b}", step.pass);
                }
            }
            Exactness::Changes(_) if step.report.applied.is_empty() => {
                assert_eq!(actual, expected, "{name}, {}: `{output}`", step.pass);
            }
            other => {
                panic!("{name}: {} declares {other}, which has no place in the default pipeline", step.pass)
            }
        }
    }
}
