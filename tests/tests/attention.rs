//! Attention over long sequences: scores that do not stay in the cache whole go in blocks of rows.

use rabot::{Profile, Session};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::{Graph, text};
use rabot_kernel::KernelDesc;
use rabot_tensor::Tensor;
use rabot_tests::{optimized, program};

const HEADS: usize = 5;
const ROWS: usize = 330;
const KEYS: usize = 1000;
const WIDTH: usize = 64;

/// Attention of a symbolic batch; with `scores`, they are an output too.
fn attention(scores: bool) -> Graph {
    let scores = if scores { "\noutput \"scores\" = %5" } else { "" };
    let source = format!(
        r#"model "attention"
input %0 "q" : f32[n,{HEADS},{ROWS},{WIDTH}]
input %1 "k" : f32[n,{HEADS},{KEYS},{WIDTH}]
input %2 "v" : f32[n,{HEADS},{KEYS},{WIDTH}]
%3 = Transpose(%1) {{perm=[0,1,3,2]}}
%4 = Constant [0.158] : f32[]
%5 = MatMul(%0, %3)
%6 = Mul(%5, %4)
%7 = Softmax(%6) {{axis=-1}}
%8 = MatMul(%7, %2)
output "y" = %8{scores}"#
    );
    optimized(&text::parse(&source).unwrap_or_else(|error| panic!("{error}")))
        .unwrap_or_else(|error| panic!("{error}"))
}

/// Keys of the second head are all very small, and a value of the first one is infinite: what a kernel keeps of one head
/// must not be taken for the next one's.
fn inputs(batch: usize) -> Tensors {
    let tensor = |rows: usize, step: f32, change: &dyn Fn(usize, f32) -> f32| {
        let matrix = rows * WIDTH;
        let value = |at: usize| change(at / matrix % HEADS, (at as f32 * step).sin());
        let mut values: Vec<f32> = (0..batch * HEADS * matrix).map(value).collect();
        if step == 0.3 {
            values[7] = f32::INFINITY;
        }
        Tensor::from_vec(&[batch, HEADS, rows, WIDTH], values)
    };
    Tensors::from_iter([
        ("q".to_owned(), tensor(ROWS, 0.7, &|_, value| value)),
        ("k".to_owned(), tensor(KEYS, 0.11, &|head, value| if head == 1 { value * 1e-30 } else { value })),
        ("v".to_owned(), tensor(KEYS, 0.3, &|_, value| value)),
    ])
}

#[test]
fn scores_in_blocks_of_rows_are_those_of_the_whole() {
    let profile = Profile::host().unwrap();
    let graph = attention(false);
    let inputs = inputs(2);
    let wanted = interp::run(&graph, &inputs).unwrap();
    let program_of = |graph: &Graph| program(graph, &profile).unwrap_or_else(|error| panic!("{error}"));
    let whole = program_of(&attention(true));
    let whole = Session::new(&whole).unwrap().run(&inputs).unwrap();
    let blocks = program_of(&graph);
    for threads in [1, 2, 3] {
        let found = Session::with_threads(&blocks, threads).unwrap().run(&inputs).unwrap();
        assert_eq!(found["y"].bytes(), whole["y"].bytes(), "{threads} threads");
        for (got, want) in found["y"].to_f64s().into_iter().zip(wanted["y"].to_f64s()) {
            assert!(got == want || (got - want).abs() < 1e-5, "{got} is not {want}");
        }
    }
}

#[test]
fn only_scores_that_nobody_else_reads_go_in_blocks_of_rows() {
    let profile = Profile::host().unwrap();
    if !["amx-tile", "amx-bf16"].iter().all(|feature| profile.has(feature)) {
        eprintln!("skipped: this machine has no tile unit");
        return;
    }
    let in_rows = |graph: &Graph| {
        let staged = rabot::lower(graph, &profile).unwrap();
        let kernels = staged.plans().into_iter().flat_map(|plan| &plan.kernels);
        kernels.filter(|kernel| matches!(kernel, KernelDesc::Composite(k) if k.rows.is_some())).count()
    };
    assert_eq!(in_rows(&attention(false)), 1);
    assert_eq!(in_rows(&attention(true)), 0);
}
