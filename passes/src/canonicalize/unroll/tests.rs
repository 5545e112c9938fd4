use super::*;
use crate::check::{compare, example, run};
use rabot_ir::interp::Tensors;
use rabot_ir::ops::{Binary, BinaryOp};
use rabot_ir::testing::{random_graph, run_checked};
use rabot_ir::text::print;
use rabot_ir::verify::verify;
use rabot_tensor::DType;

#[test]
fn header_example() {
    example(&Unroll::default(), include_str!("../unroll.rs"));
}

/// A loop over `trips` rounds (operand 0) with a first condition (operand 1), its body's condition as written.
fn looped(trips: &str, first: &str, condition: &str) -> String {
    format!(
        r#"model "g"
            input %0 "x" : f32[n,2]
            input %1 "t" : i64[]
            input %2 "c" : bool[]
            %3 = Constant [3] : i64[]
            %4 = Constant [0] : i64[]
            %5 = Constant [true] : bool[]
            %6 = Constant [false] : bool[]
            %7:2 = Loop({trips}, {first}, %0, %0) {{carried=1}} body "b" {{
                input %0 "i" : i64[]
                input %1 "go" : bool[]
                input %2 "v" : f32[n,2]
                input %3 "captured" : f32[n,2]
                %4 = Cast(%0) {{to="f32"}}
                %5 = Mul(%2, %4)
                %6 = Add(%5, %3)
                %7 = Constant [false] : bool[]
                %8 = Not(%1)
                %9 = Constant [2.0] : f32[]
                %10 = Div(%6, %9)
                output "next" = {condition}
                output "v'" = %6
                output "half" = %10
            }}
            output "last" = %7
            output "halves" = %7#1"#
    )
}

fn loops(graph: &Graph) -> usize {
    graph.node_ids().filter(|&id| matches!(graph.node(id).op, Op::Loop(_) | Op::Scan(_))).count()
}

#[test]
fn loops_of_known_trip_counts_become_their_rounds() {
    for (trips, first, condition, adds) in
        [("%3", "_", "%1", 3), ("%3", "%5", "%1", 3), ("_", "_", "%7", 1), ("%3", "%5", "%7", 1)]
    {
        let (graph, report) = run(&Unroll::default(), &looped(trips, first, condition));
        assert_eq!(loops(&graph), 0, "{report:?}");
        let count = |name: &str| graph.node_ids().filter(|&id| graph.node(id).op.name() == name).count();
        assert_eq!(count("Add"), adds);
        assert_eq!(report.applied[0].detail, format!("Loop, {adds} rounds"));
        assert!(graph.outputs().iter().all(|o| !graph.value_name(o.value).contains('/')));
    }
}

#[test]
fn loops_that_stay_say_why() {
    let reason = |trips, first, condition| {
        let (graph, report) = run(&Unroll::default(), &looped(trips, first, condition));
        assert_eq!((loops(&graph), report.skipped.len()), (1, 1));
        report.skipped[0].reason.clone()
    };
    assert_eq!(reason("%1", "_", "%1"), "its trip count is not constant");
    assert_eq!(reason("%3", "%2", "%1"), "its first condition is not constant");
    assert_eq!(reason("%3", "_", "%8"), "its body computes the condition for the next round");
    assert_eq!(reason("%4", "_", "%1"), "it goes no round");
    assert_eq!(reason("%3", "%6", "%1"), "it goes no round");
}

#[test]
fn the_limit_counts_all_rounds_of_all_loops() {
    let text = looped("%3", "_", "%1");
    let (graph, report) = run(&Unroll { max_nodes: 17 }, &text);
    assert_eq!(loops(&graph), 1);
    assert_eq!(report.skipped[0].reason, "its 3 rounds are 18 nodes, and max_nodes leaves 17");
    assert_eq!(loops(&run(&Unroll { max_nodes: 18 }, &text).0), 0);
}

#[test]
fn what_grows_from_round_to_round_is_kept() {
    let (graph, report) = run(
        &Unroll::default(),
        r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [3] : i64[]
            %2 = Loop(%1, _, %0, %0) {carried=1} body "b" {
                input %0 "i" : i64[]
                input %1 "go" : bool[]
                input %2 "v" : f32[2]
                input %3 "x" : f32[2]
                %4 = Concat(%2, %3) {axis=0}
                output "next" = %1
                output "v'" = %4
            }
            output "y" = %2"#,
    );
    assert_eq!(loops(&graph), 1);
    assert!(report.skipped[0].reason.contains("which it carries, is f32[2] at first"), "{report:?}");
}

#[test]
fn scans_go_along_any_axis_from_either_end() {
    for (axis, from, to, along, back) in [(1, 0, 0, -1, 1), (1, 1, 1, 0, 0), (-1, 1, 0, 1, 1)] {
        let text = format!(
            r#"model "g"
                input %0 "h" : f32[n]
                input %1 "x" : f32[n,4]
                %2:2 = Scan(%0, %1) {{num_scan_inputs=1, states=1, scan_input_axes=[{axis}], scan_input_directions=[{from}], scan_output_axes=[{along}], scan_output_directions=[{back}]}} body "b" {{
                    input %0 "old" : f32[n]
                    input %1 "slice" : f32[n]
                    %2 = Sub(%0, %1)
                    %3 = Mul(%2, %2)
                    output "new" = %3
                    output "all" = %2
                }}
                output "y" = %2#1
                output "h'" = %2
                output "scale{to}" = %0"#
        );
        let (graph, report) = run(&Unroll::default(), &text);
        assert_eq!((loops(&graph), report.applied.len()), (0, 1));
    }
    let (graph, report) = run(
        &Unroll::default(),
        r#"model "g"
            input %0 "x" : f32[n,4]
            %1 = Scan(%0) {num_scan_inputs=1, states=0, scan_input_axes=[0], scan_input_directions=[0], scan_output_axes=[0], scan_output_directions=[0]} body "b" {
                input %0 "slice" : f32[4]
                %1 = Neg(%0)
                output "all" = %1
            }
            output "y" = %1"#,
    );
    assert_eq!(loops(&graph), 1);
    assert_eq!(report.skipped[0].reason, "the number of its rounds, n, is not known");
}

#[test]
fn loops_in_loops_are_unrolled_from_within() {
    let (graph, report) = run(
        &Unroll::default(),
        r#"model "g"
            input %0 "x" : f32[2]
            %1 = Constant [2] : i64[]
            %2 = Loop(%1, _, %0) {carried=1} body "outer" {
                input %0 "i" : i64[]
                input %1 "go" : bool[]
                input %2 "v" : f32[2]
                %3 = Constant [3] : i64[]
                %4 = Loop(%3, _, %2) {carried=1} body "inner" {
                    input %0 "i" : i64[]
                    input %1 "go" : bool[]
                    input %2 "v" : f32[2]
                    %3 = Tanh(%2)
                    output "next" = %1
                    output "v'" = %3
                }
                output "next" = %1
                output "v'" = %4
            }
            output "y" = %2"#,
    );
    assert_eq!((loops(&graph), report.applied.len()), (0, 2));
    assert_eq!(graph.node_ids().filter(|&id| graph.node(id).op.name() == "Tanh").count(), 6);
}

/// Slices of tensors, stacked along an axis.
fn stack(slices: &[Tensor], axis: i64) -> Tensor {
    let axes = Tensor::from_vec(&[1], vec![axis]);
    let parts: Vec<Tensor> =
        slices.iter().flat_map(|t| Op::Unsqueeze(Unsqueeze).eval(&[Some(t), Some(&axes)]).unwrap()).collect();
    let parts: Vec<Option<&Tensor>> = parts.iter().map(Some).collect();
    Op::Concat(Concat { axis }).eval(&parts).unwrap().remove(0)
}

/// A scan whose body is a random graph: its inputs are scanned, its outputs stacked; and one state.
fn random_scan(seed: u64) -> (Graph, Tensors) {
    let (mut body, inputs) = random_graph(seed, 6);
    let (trips, reverse) = (1 + seed % 4, |at: usize| (seed as usize + at).is_multiple_of(3));
    let mut graph = Graph::new("scan");
    let mut given = Tensors::new();
    let mut operands = vec![Some(graph.add_input("state", Fact::of_type(DType::F32, [Dim::from(2)])))];
    given.insert("state".to_owned(), Tensor::from_vec(&[2], vec![0.5f32, -0.0]));
    let (mut from, slices) = (Vec::new(), body.inputs().to_vec());
    for (at, &input) in slices.iter().enumerate() {
        let (name, fact) = (body.node(input).name.clone(), &body.node(input).outputs[0].fact);
        let axis = (seed as usize + at) % (fact.rank() + 1);
        let mut shape = fact.shape().to_vec();
        shape.insert(axis, Dim::from(trips as i64));
        operands.push(Some(graph.add_input(&name, Fact::of_type(fact.dtype(), shape))));
        let of_round = |round: u64| match fact.dtype() {
            DType::F32 => {
                let values = inputs[&*name].to_f64s();
                let scaled = values.iter().map(|v| (v * (1.0 - 0.25 * round as f64)) as f32);
                Tensor::from_vec(inputs[&*name].shape(), scaled.collect::<Vec<f32>>())
            }
            _ => inputs[&*name].clone(),
        };
        let rounds: Vec<Tensor> = (0..trips).map(of_round).collect();
        given.insert(name.to_string(), stack(&rounds, axis as i64));
        from.push((axis as i64, reverse(at)));
    }
    let old = body.add_input("old", Fact::of_type(DType::F32, [Dim::from(2)]));
    body.set_input_order([old.node].into_iter().chain(slices).collect());
    let half = body.add_constant("half", Tensor::scalar(0.75f32));
    let next = body
        .add_node(Op::Binary(Binary { op: BinaryOp::Mul }), vec![Some(old), Some(half)], "next", vec![])
        .unwrap();
    let results: Vec<Value> = body.outputs().iter().map(|o| o.value).collect();
    body.add_output("last", old);
    for (at, value) in [Value { node: next, slot: 0 }].into_iter().chain(results.clone()).enumerate() {
        body.set_output(at, value);
    }
    let along = |(at, value): (usize, &Value)| {
        let axis = (seed as usize + at) % (body.fact(*value).rank() + 1);
        (axis as i64 - if at % 2 == 0 { 0 } else { body.fact(*value).rank() as i64 + 1 }, reverse(at + 1))
    };
    let outputs = results.iter().enumerate().map(along).collect();
    let scan = Op::Scan(Box::new(Scan { body, states: 1, inputs: from, outputs }));
    let node = graph.add_node(scan, operands, "scan", vec![]).unwrap();
    for slot in 0..=results.len() as u32 {
        graph.add_output(&format!("y{slot}"), Value { node, slot });
    }
    (graph, given)
}

#[test]
fn rounds_of_random_bodies_compute_what_the_scan_does() {
    let mut compared = 0;
    for seed in 0..300 {
        let (graph, inputs) = random_scan(seed);
        let Ok(expected) = run_checked(&graph, &inputs) else { continue };
        let mut changed = graph.clone();
        let report = Unroll::default().run(&mut changed, &PassCx::default()).unwrap();
        verify(&changed).unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{}", print(&changed)));
        if report.applied.is_empty() {
            assert_eq!(print(&changed), print(&graph), "seed {seed}");
            continue;
        }
        let actual = run_checked(&changed, &inputs).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        if let Err(what) = compare(&expected, &actual, Exactness::Bitwise) {
            panic!("seed {seed}: {what}\nbefore:\n{}\nafter:\n{}", print(&graph), print(&changed));
        }
        compared += 1;
    }
    assert!(compared > 100, "{compared}");
}
