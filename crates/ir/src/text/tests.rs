use super::*;
use crate::ops::Op;
use crate::{Dim, Fact, Graph};
use rabot_tensor::{DType, Tensor};

fn assert_canonical(text: &str) {
    match parse(text) {
        Ok(graph) => assert_eq!(print(&graph), text),
        Err(error) => panic!("{error}"),
    }
}

#[test]
fn constants_and_inputs_are_canonical() {
    assert_canonical(
        "model \"a \\\"b\\\"\\n\"\n\
         input %0 \"x\" : f32[2*n + floordiv(m - 1, 2) + 1,`odd name`,max(4, n)]\n\
         %1 = Constant [0.5, -1.0, 0x7f800000, -0.0, 1e30] : f32[5] \"w\" values=[\"w0\"]\n\
         %2 = Constant splat(-7) : i8[10,10]\n\
         %3 = Constant [true, false] : bool[2] sources=[\"a\", \"b\"] group=3\n\
         %4 = Constant [\"a\", \"\\u{1}\\\\\"] : string[2]\n\
         %5 = Constant [] : f64[0,3]\n\
         input %6 \"y\" : bool[]\n\
         inputs(%6, %0)\n\
         output \"o\" = %6\n",
    );
}

#[test]
fn blobs_come_from_the_store() {
    let mut graph = Graph::new("m");
    let values: Vec<f32> = (0..100).map(|v| v as f32).collect();
    let value = graph.add_constant("w", Tensor::from_vec(&[100], values));
    graph.add_output("o", value);
    let text = print(&graph);
    assert!(text.contains("@blob(\"blake3:"), "{text}");
    assert!(matches!(*parse(&text).unwrap_err().kind, ParseErrorKind::BlobMissing(_)));
    let read = parse_module(&text, &blobs(&graph)).unwrap();
    assert_eq!(read.graph, graph);
}

#[test]
fn errors_point_at_the_place() {
    let error = parse("model \"m\"\n  %0 = Constant [1, 300] : u8[2]\n").unwrap_err();
    assert_eq!((error.line, error.column), (2, 21));
    let shown = "2:21: 300 is no u8\n  |   %0 = Constant [1, 300] : u8[2]\n  |                     ^";
    assert_eq!(error.to_string(), shown);
}

#[test]
fn hostile_text_is_an_error() {
    let deep_dim = format!("model \"m\" input %0 \"x\" : f32[{}", "max(".repeat(100_000));
    let wide_dim = format!(
        "model \"m\" input %0 \"x\" : f32[{}1]",
        (0..200).map(|i| format!("floordiv(2*a{i} + 2*b{i}, 2)*")).collect::<String>()
    );
    let huge = "model \"m\" %0 = Constant splat(0) : i8[1000000,1000000]";
    let overflow = "model \"m\" %0 = Constant [] : i8[4294967296,4294967296,0,4294967296]";
    let extreme = "model \"m\" input %0 \"x\" : f32[floordiv(-9223372036854775807*n - n, -1)]";
    let rand = "model \"m\" %0 = Constant rand(1, 0, 300) : u8[3]";
    for text in [deep_dim.as_str(), huge, overflow, rand] {
        assert!(parse(text).is_err(), "{}", text.chars().take(80).collect::<String>());
    }
    // No value of these is right or wrong, but they must not panic, nor take long.
    let _ = (parse(extreme), parse(&wide_dim));
}

#[test]
fn random_bytes_never_panic() {
    let seed_text = print(&every_form());
    let words: Vec<&str> = seed_text.split_inclusive([' ', ',', '(', '[']).collect();
    let mut rng = SplitMix64::new(7);
    for _ in 0..3000 {
        let mut mixed: Vec<&str> = words.clone();
        for _ in 0..1 + rng.below(4) {
            let at = rng.below(mixed.len());
            match rng.below(3) {
                0 => mixed[at] = *rng.pick(&words),
                1 => drop(mixed.remove(at)),
                _ => mixed.insert(at, *rng.pick(&["-", "%", "}", "0x", "1e", "\"", "#", "9999999999", "é"])),
            }
        }
        let _ = parse(&mixed.concat());
    }
}

fn every_form() -> Graph {
    let mut graph = Graph::new("m");
    let n = Dim::symbol("n");
    let shape = vec![n.clone() * n.clone() + Dim::from(3), n.floor_div(&Dim::from(2)), n];
    let x = graph.add_input("x", Fact::of_type(DType::F32, shape));
    graph.add_constant("c", Tensor::from_vec(&[2, 2], vec![1.0f32, 2.5, f32::NAN, -0.0]));
    graph.add_constant("s", Tensor::zeros(DType::I64, &[100]));
    graph.add_constant("b", Tensor::from_bools(&[3], &[true, false, true]));
    graph.add_output("y", x);
    graph
}

#[test]
fn invalid_graphs_still_print() {
    let mut graph = Graph::new("m");
    let x = graph.add_input("x", Fact::of_type(DType::F32, vec![Dim::from(1)]));
    graph.add_output("y", crate::Value { slot: 3, ..x });
    assert!(print(&graph).ends_with("output \"y\" = %0#3\n"));
    assert!(matches!(graph.node(x.node).op, Op::Input));
}
