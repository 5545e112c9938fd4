//! Every pass over random graphs of every op: valid afterwards, and the same outputs as exactly as the pass says.

use crate::check::compare;
use crate::fuse::fusion::Fuse;
use crate::registry::{DEFAULT_PIPELINE, PASSES, pipeline};
use rabot_ir::Graph;
use rabot_ir::interp::Tensors;
use rabot_ir::testing::{random_graph, random_graph_of, run_checked};
use rabot_ir::text::print;
use rabot_rewrite::{Exactness, Pass, PassCx};

/// Runs a pipeline over a random graph and compares. The error holds both graphs.
fn check(text: &str, graph: &Graph, inputs: &Tensors) -> Result<usize, String> {
    let expected = run_checked(graph, inputs)?;
    let pipeline = pipeline(text).map_err(|error| error.to_string())?;
    let mut changed = graph.clone();
    let describe = |changed: &Graph, what: String| {
        format!("{text}: {what}\nbefore:\n{}\nafter:\n{}", print(graph), print(changed))
    };
    let steps = pipeline
        .run(&mut changed, &PassCx::default(), &mut |_, _| {})
        .map_err(|error| describe(&changed, error.to_string()))?;
    let actual = run_checked(&changed, inputs).map_err(|error| describe(&changed, error))?;
    let bitwise = steps.iter().all(|step| step.exactness == Exactness::Bitwise);
    let exactness = if bitwise { Exactness::Bitwise } else { Fuse.exactness() };
    if text == "convert" {
        // Narrow floats give other numbers, and where terms cancel quite others: of the same kind all the same.
        let kind = |tensors: &Tensors| -> Vec<_> {
            tensors.iter().map(|(name, t)| (name.clone(), t.dtype(), t.shape().to_vec())).collect()
        };
        let same = kind(&expected) == kind(&actual);
        same.then_some(()).ok_or_else(|| describe(&changed, "outputs of another kind".to_owned()))?;
    } else {
        compare(&expected, &actual, exactness).map_err(|error| describe(&changed, error))?;
    }
    Ok(steps.iter().map(|step| step.report.applied.len()).sum())
}

#[test]
fn passes_keep_what_random_graphs_compute() {
    for info in PASSES.iter().filter(|info| !matches!(info.name, "prune" | "quantize" | "fuse")) {
        let applied: Result<usize, String> = (0..300)
            .map(|seed| {
                let (graph, inputs) = random_graph(seed, 12);
                check(info.name, &graph, &inputs).map_err(|error| format!("seed {seed}: {error}"))
            })
            .sum();
        match applied {
            // What quantized layers are made of, or whole formulas, hardly meet by chance; loops are not drawn.
            Ok(applied) => {
                let rare = matches!(info.name, "unroll" | "channels" | "qdq" | "reassociate" | "compact");
                assert!(rare || applied > 0, "{} never applied", info.name);
            }
            Err(error) => panic!("{error}"),
        }
    }
}

#[test]
fn the_default_pipeline_keeps_what_random_graphs_compute() {
    let count = std::env::var("RABOT_RANDOM_GRAPHS").ok().and_then(|text| text.parse().ok()).unwrap_or(300);
    for seed in 0..count {
        let (graph, inputs) = random_graph(seed, 16);
        if let Err(error) = check(DEFAULT_PIPELINE, &graph, &inputs) {
            panic!("seed {seed}: {error}");
        }
    }
}

/// Ops that rules of `fuse` look for, so that they meet often.
#[test]
fn fusing_keeps_what_random_graphs_compute() {
    const OPS: &[&str] =
        &["Add", "Mul", "Sub", "Div", "Conv", "ConvTranspose", "Gemm", "MatMul", "BatchNormalization"];
    let mut applied = 0;
    for seed in 0..300 {
        let (graph, inputs) = random_graph_of(seed, 10, OPS);
        match check("cse,fold,fuse,dce,group", &graph, &inputs) {
            Ok(count) => applied += count,
            Err(error) => panic!("seed {seed}: {error}"),
        }
    }
    assert!(applied > 0);
}
