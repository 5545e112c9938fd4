//! Sessions: shared among threads, at many sizes, and with inputs that are wrong.

use rabot::{Program, RunError, Session};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::{Graph, text};
use rabot_target::Profile;
use rabot_tensor::Tensor;
use rabot_tests::{levels, program};

const MLP: &str = r#"model "mlp"
input %0 "x" : f32[batch,8]
%1 = Constant rand(1, -1.0, 1.0) : f32[8,16]
%2 = Constant rand(2, -1.0, 1.0) : f32[16]
%3 = MatMul(%0, %1)
%4 = Add(%3, %2)
%5 = Relu(%4)
%6 = Softmax(%5) {axis=-1}
output "y" = %6
"#;

const GATHER: &str = r#"model "lookup"
input %0 "table" : f32[rows,3]
input %1 "which" : i64[n]
%2 = Gather(%0, %1) {axis=0} : f32[n,3]
%3 = Relu(%2)
output "y" = %3
"#;

fn parse(text: &str) -> Graph {
    text::parse(text).unwrap_or_else(|error| panic!("{error}"))
}

fn host() -> Profile {
    Profile::host().unwrap_or_else(|error| panic!("{error}"))
}

fn compile(text: &str) -> Program {
    program(&parse(text), &host()).unwrap_or_else(|error| panic!("{error}"))
}

fn session(text: &str) -> Session {
    Session::new(&compile(text)).unwrap_or_else(|error| panic!("{error}"))
}

fn tensors<const N: usize>(entries: [(&str, Tensor); N]) -> Tensors {
    entries.into_iter().map(|(name, tensor)| (name.to_owned(), tensor)).collect()
}

/// A batch of the MLP's inputs.
fn batch(size: usize) -> Tensors {
    let values: Vec<f32> = (0..size * 8).map(|i| (i as f32 * 0.7).sin()).collect();
    tensors([("x", Tensor::from_vec(&[size, 8], values))])
}

fn close(expected: &Tensor, actual: &Tensor) -> bool {
    let pairs = expected.to_f64s().into_iter().zip(actual.to_f64s());
    expected.shape() == actual.shape() && pairs.into_iter().all(|(e, a)| (e - a).abs() <= 1e-5)
}

#[test]
fn a_session_is_shared_among_threads() {
    fn is_shareable<T: Send + Sync>(_: &T) {}
    let program = compile(MLP);
    let session = Session::with_threads(&program, 2).unwrap();
    is_shareable(&program);
    is_shareable(&session);
    // Sizes differ from thread to thread, so that runs that mixed would show.
    let expected: Vec<Tensors> = (1..5).map(|size| session.run(&batch(size)).unwrap()).collect();
    std::thread::scope(|scope| {
        for (size, expected) in (1..5).zip(&expected) {
            let session = &session;
            scope.spawn(move || {
                for _ in 0..50 {
                    assert_eq!(&session.run(&batch(size)).unwrap(), expected, "batch {size}");
                }
            });
        }
    });
}

#[test]
fn sessions_of_one_program_are_independent() {
    let program = compile(MLP);
    let sessions = [1, 2, 3].map(|threads| Session::with_threads(&program, threads).unwrap());
    let outputs = sessions.each_ref().map(|session| session.run(&batch(7)).unwrap());
    assert_eq!(outputs[0], outputs[1]);
    assert_eq!(outputs[0], outputs[2]);
    drop(program);
    assert_eq!(sessions[2].run(&batch(7)).unwrap(), outputs[0]);
}

#[test]
fn one_program_serves_every_batch_size() {
    let graph = parse(MLP);
    for level in levels() {
        let program = program(&graph, &level).unwrap_or_else(|error| panic!("{error}"));
        let session = Session::new(&program).unwrap();
        // Down as well as up: what a large batch leaves behind must not show in a small one.
        for size in [1, 33, 0, 5, 200, 2] {
            let inputs = batch(size);
            let expected = interp::run(&graph, &inputs).unwrap();
            let actual = session.run(&inputs).unwrap_or_else(|error| panic!("batch {size}: {error}"));
            assert_eq!(actual["y"].shape(), [size, 16]);
            assert!(close(&expected["y"], &actual["y"]), "{}, batch {size}", level.name);
        }
    }
}

#[test]
fn wrong_inputs_are_refused() {
    let session = session(MLP);
    let error = session.run(&Tensors::new()).unwrap_err();
    assert!(matches!(&error, RunError::MissingInput { name, .. } if name == "x"), "{error}");
    assert_eq!(error.to_string(), "input `x` (f32[batch,8]) is missing");

    let mut more = batch(2);
    more.insert("z".to_owned(), Tensor::scalar(1.0f32));
    let error = session.run(&more).unwrap_err();
    assert!(matches!(&error, RunError::UnknownInput { name, .. } if name == "z"), "{error}");

    let wrong = [
        Tensor::from_vec(&[2, 8], vec![1i32; 16]),
        Tensor::from_vec(&[2, 7], vec![1.0f32; 14]),
        Tensor::from_vec(&[8], vec![1.0f32; 8]),
    ];
    for tensor in wrong {
        let error = session.run(&tensors([("x", tensor)])).unwrap_err();
        assert!(matches!(error, RunError::InputType { .. } | RunError::Dims { .. }), "{error}");
        assert!(error.to_string().contains('x'), "{error}");
    }
    // A refused run leaves the session as it was.
    assert!(session.run(&batch(2)).is_ok());
}

#[test]
fn dims_that_must_be_equal_are_checked() {
    let session = session(
        "model \"add\"\ninput %0 \"a\" : f32[n]\ninput %1 \"b\" : f32[n]\n%2 = Add(%0, %1)\noutput \"y\" = %2\n",
    );
    let of = |n: usize| Tensor::from_vec(&[n], vec![1.0f32; n]);
    assert_eq!(session.run(&tensors([("a", of(3)), ("b", of(3))])).unwrap()["y"].to_f64s(), [2.0; 3]);
    let error = session.run(&tensors([("a", of(3)), ("b", of(4))])).unwrap_err();
    assert!(error.to_string().contains('3') && error.to_string().contains('4'), "{error}");
}

#[test]
fn an_index_out_of_range_is_an_error_that_names_the_node() {
    let table = Tensor::from_vec(&[4, 3], (0..12).map(|v| v as f32).collect::<Vec<_>>());
    let run = |session: &Session, which: Vec<i64>| {
        let which = Tensor::from_vec(&[which.len()], which);
        session.run(&tensors([("table", table.clone()), ("which", which)]))
    };
    let graph = parse(GATHER);
    for level in levels() {
        let session = Session::new(&program(&graph, &level).unwrap()).unwrap();
        assert_eq!(run(&session, vec![-1]).unwrap()["y"].to_f64s(), [9.0, 10.0, 11.0]);
        for index in [4, -5, i64::MAX, i64::MIN] {
            let error = run(&session, vec![0, index, 1]).unwrap_err();
            let RunError::Data { nodes, .. } = &error else { panic!("{index}: {error}") };
            assert!(nodes.contains("v2"), "{index}: {error}");
        }
        assert_eq!(run(&session, vec![0]).unwrap()["y"].to_f64s(), [0.0, 1.0, 2.0]);
    }
}
