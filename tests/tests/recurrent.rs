//! Recurrent layers that an exporter unrolled, step by step: few kernels, and the interpreter's answers.

use rabot::Session;
use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{parse, random_tensor};
use rabot_ir::{Graph, Op};
use rabot_tensor::DType;
use rabot_tests::{levels, optimized, program};
use std::fmt::Write;

/// Sizes of a layer; the batch is a size or a symbol.
struct Lstm {
    steps: usize,
    input: usize,
    hidden: usize,
    batch: &'static str,
    /// The gates are four slices; otherwise one split.
    slices: bool,
    /// Products are those of torch's cells, each with a bias; otherwise there is one bias for both.
    cells: bool,
}

impl Lstm {
    /// The graph as torch's exporter writes it: `x[:, t]` times `W`, plus `h R + b`, cut into gates.
    fn graph(&self) -> Graph {
        let Lstm { steps, input, hidden, batch, .. } = *self;
        let gates = 4 * hidden;
        let mut text = format!(
            "model \"lstm\"\n\
             input %0 \"x\" : f32[{batch},{steps},{input}]\n\
             input %1 \"h\" : f32[{batch},{hidden}]\n\
             input %2 \"c\" : f32[{batch},{hidden}]\n\
             %3 = Constant rand(1, -0.2, 0.2) : f32[{input},{gates}]\n\
             %4 = Constant rand(2, -0.2, 0.2) : f32[{hidden},{gates}]\n\
             %5 = Constant rand(3, -0.2, 0.2) : f32[{gates}]\n\
             %6 = Constant [1] : i64[1]\n"
        );
        for at in 0..5 {
            writeln!(text, "%{} = Constant [{}] : i64[1]", 7 + at, at * hidden).unwrap();
        }
        let (mut h, mut c, mut all) = ("%1".to_owned(), "%2".to_owned(), Vec::new());
        let mut next = 12;
        for step in 0..steps {
            let mut add = |line: &str| {
                next += 1;
                writeln!(text, "%{next}{line}").unwrap();
                format!("%{next}")
            };
            let t = add(&format!(" = Constant [{step}] : i64[]"));
            let x = add(&format!(" = Gather(%0, {t}) {{axis=1}}"));
            let product = |x: &str, w: &str| match self.cells {
                true => format!(" = Gemm({x}, {w}, %5)"),
                false => format!(" = MatMul({x}, {w})"),
            };
            let xw = add(&product(&x, "%3"));
            let hr = add(&product(&h, "%4"));
            let mut z = add(&format!(" = Add({xw}, {hr})"));
            if !self.cells {
                z = add(&format!(" = Add({z}, %5)"));
            }
            let gate: Vec<String> = match self.slices {
                true => (7..11).map(|at| add(&format!(" = Slice({z}, %{at}, %{}, %6)", at + 1))).collect(),
                false => {
                    let split = add(&format!(":4 = Split({z}) {{axis=1, num_outputs=4}}"));
                    (0..4)
                        .map(|slot| if slot == 0 { split.clone() } else { format!("{split}#{slot}") })
                        .collect()
                }
            };
            let sigmoid: Vec<String> =
                [0, 1, 3].iter().map(|&at| add(&format!(" = Sigmoid({})", gate[at]))).collect();
            let new = add(&format!(" = Tanh({})", gate[2]));
            let kept = add(&format!(" = Mul({}, {c})", sigmoid[1]));
            let added = add(&format!(" = Mul({}, {new})", sigmoid[0]));
            c = add(&format!(" = Add({kept}, {added})"));
            let squashed = add(&format!(" = Tanh({c})"));
            h = add(&format!(" = Mul({}, {squashed})", sigmoid[2]));
            all.push(add(&format!(" = Unsqueeze({h}, %6)")));
        }
        writeln!(text, "%{} = Concat({}) {{axis=1}}", next + 1, all.join(", ")).unwrap();
        writeln!(text, "output \"y\" = %{}\noutput \"h'\" = {h}\noutput \"c'\" = {c}", next + 1).unwrap();
        parse(&text).unwrap_or_else(|error| panic!("{error}\n{text}"))
    }

    fn inputs(&self, batch: usize) -> Tensors {
        let tensor = |seed, shape: &[usize]| random_tensor(DType::F32, shape, seed, -1.0, 1.0).unwrap();
        Tensors::from_iter([
            ("x".to_owned(), tensor(1, &[batch, self.steps, self.input])),
            ("h".to_owned(), tensor(2, &[batch, self.hidden])),
            ("c".to_owned(), tensor(3, &[batch, self.hidden])),
        ])
    }
}

fn assert_runs(graph: &Graph, optimized: &Graph, inputs: &Tensors) {
    let expected = interp::run(graph, inputs).unwrap();
    for profile in levels() {
        let program = program(optimized, &profile).unwrap();
        for threads in [1, 2] {
            let actual = Session::with_threads(&program, threads).unwrap().run(inputs).unwrap();
            for (name, wanted) in &expected {
                let pairs = wanted.to_f64s().into_iter().zip(actual[name].to_f64s());
                let worst = pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(worst < 1e-5, "{name} on {}, {threads} threads: {worst}", profile.name);
            }
        }
    }
}

#[test]
fn a_step_of_an_unrolled_lstm_is_two_kernels() {
    for (batch, slices, cells) in
        [("n", false, false), ("n", true, true), ("1", true, false), ("1", false, true), ("3", false, false)]
    {
        let lstm = Lstm { steps: 20, input: 32, hidden: 64, batch, slices, cells };
        let graph = lstm.graph();
        let optimized = optimized(&graph).unwrap();
        // One product for all inputs, then for each step the product with the state, and the cell.
        for profile in levels() {
            let calls: usize =
                program(&optimized, &profile).unwrap().plans().map(|plan| plan.steps.len()).sum();
            assert!(calls <= 1 + 2 * lstm.steps, "{calls} calls on {}, batch {batch}", profile.name);
        }
        assert_runs(&graph, &optimized, &lstm.inputs(batch.parse().unwrap_or(3)));
    }
}

#[test]
fn a_scan_of_known_length_is_kernels() {
    let text = r#"model "scan"
        input %0 "h" : f32[n,8]
        input %1 "x" : f32[6,n,8]
        %2 = Constant rand(1, -0.3, 0.3) : f32[8,8]
        %3:2 = Scan(%0, %1, %2) {num_scan_inputs=1, states=1, scan_input_axes=[0], scan_input_directions=[1], scan_output_axes=[1], scan_output_directions=[1]} body "step" {
            input %0 "old" : f32[n,8]
            input %1 "x" : f32[n,8]
            input %2 "w" : f32[8,8]
            %3 = MatMul(%0, %2)
            %4 = MatMul(%1, %2)
            %5 = Add(%3, %4)
            %6 = Tanh(%5)
            output "new" = %6
            output "all" = %6
        }
        output "last" = %3
        output "all" = %3#1"#;
    let graph = parse(text).unwrap();
    let optimized = optimized(&graph).unwrap();
    let is_scan = |graph: &Graph| graph.node_ids().any(|id| matches!(graph.node(id).op, Op::Scan(_)));
    assert!(is_scan(&graph) && !is_scan(&optimized));
    let tensor = |seed, shape: &[usize]| random_tensor(DType::F32, shape, seed, -1.0, 1.0).unwrap();
    let inputs =
        Tensors::from_iter([("h".to_owned(), tensor(1, &[3, 8])), ("x".to_owned(), tensor(2, &[6, 3, 8]))]);
    assert_runs(&graph, &optimized, &inputs);
}
