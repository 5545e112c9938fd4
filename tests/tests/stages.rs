//! Programs in stages: sizes that depend on data, loops, branches and lists between compiled plans.

use rabot::{Program, RunError, Session};
use rabot_ir::interp::{self, Data, Tensors};
use rabot_ir::{Datum, Graph, text};
use rabot_target::Profile;
use rabot_tensor::Tensor;
use rabot_tests::{levels, optimized, program};

/// Rows that are not all zero, through a layer, and how many there are; then the sum of them in a loop.
const ROWS: &str = r#"model "rows"
input %0 "x" : f32[n,4]
%1 = Constant rand(1, -1.0, 1.0) : f32[4,8]
%2 = ReduceSum(%0) {keepdims=0} : f32[]
%3 = Abs(%0)
%4 = Constant [1] : i64[1]
%5 = ReduceMax(%3, %4) {keepdims=0} : f32[n]
%6 = NonZero(%5)
%7 = Constant [0] : i64[1]
%8 = Squeeze(%6, %7)
%9 = Gather(%0, %8) {axis=0}
%10 = MatMul(%9, %1)
%11 = Relu(%10)
%12 = Shape(%11) {start=0, end=1}
%13 = Squeeze(%12, %7)
%14 = Constant [0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0] : f32[8]
%15:2 = Loop(%13, _, %14, %11) {carried=1} body "add" {
  input %0 "i" : i64[]
  input %1 "more" : bool[]
  input %2 "sum" : f32[8]
  input %3 "rows" : f32[v6.0,8]
  %4 = Gather(%3, %0) {axis=0}
  %5 = Add(%2, %4)
  output "more" = %1
  output "sum" = %5
  output "sums" = %5
}
output "hidden" = %11
output "sum" = %15
output "sums" = %15#1
"#;

fn parse(source: &str) -> Graph {
    text::parse(source).unwrap_or_else(|error| panic!("{error}"))
}

fn host() -> Profile {
    Profile::host().unwrap_or_else(|error| panic!("{error}"))
}

fn compile(graph: &Graph, profile: &Profile) -> Program {
    program(graph, profile).unwrap_or_else(|error| panic!("{error}"))
}

/// Every third row is zero.
fn rows(count: usize) -> Tensors {
    let value = |i: usize| if (i / 4).is_multiple_of(3) { 0.0 } else { (i as f32 * 0.7).sin() };
    let values: Vec<f32> = (0..count * 4).map(value).collect();
    Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&[count, 4], values))])
}

fn assert_close(expected: &Tensors, actual: &Tensors, what: &str) {
    for (name, tensor) in expected {
        assert_eq!(tensor.shape(), actual[name].shape(), "{what}: {name}");
        for (e, a) in tensor.to_f64s().into_iter().zip(actual[name].to_f64s()) {
            assert!((e - a).abs() <= 1e-5, "{what}: {name}: {a}, expected {e}");
        }
    }
}

#[test]
fn sizes_that_depend_on_data_are_found_anew_in_each_run() {
    let graph = parse(ROWS);
    for (graph, what) in [(graph.clone(), "as it is"), (optimized(&graph).unwrap(), "optimized")] {
        for profile in levels() {
            let session = Session::new(&compile(&graph, &profile)).unwrap();
            for count in [5, 1, 40, 0, 5] {
                let expected = interp::run(&graph, &rows(count)).unwrap();
                let actual = session.run(&rows(count)).unwrap();
                assert_close(&expected, &actual, &format!("{what}, {}, {count} rows", profile.name));
            }
        }
    }
}

#[test]
fn threads_do_not_change_a_bit() {
    let program = compile(&parse(ROWS), &host());
    let one = Session::new(&program).unwrap().run(&rows(300)).unwrap();
    for threads in [2, 3] {
        let session = Session::with_threads(&program, threads).unwrap();
        assert_eq!(session.run(&rows(300)).unwrap(), one);
    }
}

#[test]
fn what_runs_on_the_host_is_told_with_its_reason() {
    let staged = rabot::lower(&parse(ROWS), &host()).unwrap();
    let hosts: Vec<&str> = staged.hosts().iter().map(|host| host.op.name()).collect();
    assert_eq!(hosts, ["NonZero", "Loop"]);
    assert!(staged.hosts()[0].reason.contains("depends on data"), "{}", staged.hosts()[0].reason);
    assert!(staged.single().is_none());
    // The product is compiled, before and after; so is the body of the loop.
    assert_eq!(staged.plans().len(), 3);
}

#[test]
fn lists_go_in_and_out() {
    let graph = parse(
        r#"model "lists"
input %0 "list" : sequence(f32[_])
input %1 "x" : f32[n]
%2 = Add(%1, %1)
%3 = SequenceInsert(%0, %2)
output "longer" = %3
"#,
    );
    let session = Session::new(&compile(&graph, &host())).unwrap();
    let tensor = |values: &[f32]| Datum::Tensor(Tensor::from_vec(&[values.len()], values.to_vec()));
    let inputs = Data::from_iter([
        ("list".to_owned(), Datum::sequence(vec![tensor(&[7.0])])),
        ("x".to_owned(), tensor(&[1.0, 2.0])),
    ]);
    let longer = session.run_data(&inputs).unwrap();
    assert_eq!(longer["longer"], Datum::sequence(vec![tensor(&[7.0]), tensor(&[2.0, 4.0])]));
    assert_eq!(interp::run_data(&graph, &inputs).unwrap(), longer);

    let wrong = Data::from_iter([("list".to_owned(), tensor(&[7.0])), ("x".to_owned(), tensor(&[1.0]))]);
    let error = session.run_data(&wrong).unwrap_err().to_string();
    assert!(error.contains("list") && error.contains("sequence"), "{error}");
}

#[test]
fn an_output_that_is_no_tensor_is_refused_where_tensors_are_asked_for() {
    let graph =
        parse("model \"m\"\ninput %0 \"x\" : f32[n]\n%1 = SequenceConstruct(%0)\noutput \"list\" = %1\n");
    let session = Session::new(&compile(&graph, &host())).unwrap();
    let inputs = Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&[1], vec![1.0f32]))]);
    assert!(matches!(session.run(&inputs), Err(RunError::OutputForm { .. })));
    assert!(interp::run(&graph, &inputs).is_err());
}

#[test]
fn a_loop_that_never_ends_is_an_error() {
    let endless = r#"model "endless"
input %0 "trips" : i64[]
input %1 "x" : f32[]
%2 = Loop(%0, _, %1) {carried=1} body "round" {
  input %0 "i" : i64[]
  input %1 "more" : bool[]
  input %2 "x" : f32[]
  output "more" = %1
  output "x" = %2
}
output "y" = %2
"#;
    let session = Session::new(&compile(&parse(endless), &host())).unwrap();
    let run = |trips: i64| {
        session.run(&Tensors::from_iter([
            ("trips".to_owned(), Tensor::scalar(trips)),
            ("x".to_owned(), Tensor::scalar(2.0f32)),
        ]))
    };
    assert_eq!(run(3).unwrap()["y"].to_f64s(), [2.0]);
    assert_eq!(run(-1).unwrap()["y"].to_f64s(), [2.0]);
    let error = run(i64::MAX).unwrap_err().to_string();
    assert!(error.contains("rounds"), "{error}");
    // A constant trip count is refused before anything runs.
    let constant =
        endless.replace("input %0 \"trips\" : i64[]", "%0 = Constant [9223372036854775807] : i64[]");
    assert!(text::parse(&constant).is_err());
}
