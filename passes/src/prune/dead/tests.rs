use super::*;
use crate::check::{example, run};
use rabot_ir::Op;
use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{SplitMix64, parse, print};
use rabot_ir::verify::verify;
use rabot_rewrite::Pipeline;
use rabot_tensor::Tensor;
use std::fmt::Write;

/// Shapes of the weights of the layers, in order.
fn weights(graph: &Graph) -> Vec<String> {
    let order = graph.topological().unwrap();
    let layers = order.into_iter().map(|id| graph.node(id));
    let layers = layers.filter(|node| matches!(node.op, Op::Conv(_) | Op::Gemm(_) | Op::MatMul(_)));
    layers.filter_map(|node| node.inputs[1].map(|w| graph.fact(w).ty.to_string())).collect()
}

#[test]
fn header_example() {
    example(&Channels::default(), include_str!("../dead.rs"));
}

#[test]
fn options_round_trip() {
    for text in ["channels", "channels{zeros=true}"] {
        assert_eq!(Pipeline::parse(text, &[INFO]).unwrap().to_string(), text);
    }
}

/// A convolution of 6 channels, a norm and an activation, then what is written.
fn layer(rest: &str) -> String {
    format!(
        r#"model "g"
            input %0 "x" : f32[n,2,4,4]
            %1 = Constant rand(1, -1.0, 1.0) : f32[6,2,3,3]
            %2 = Constant rand(2, -1.0, 1.0) : f32[6]
            %3 = Conv(%0, %1, %2) {{pads=[1,1,1,1]}} "a"
            %4 = Constant [0.5, 1.0, 1.5, 2.0, 2.5, 3.0] : f32[6]
            %5 = BatchNormalization(%3, %4, %2, %4, %4)
            %6 = Relu(%5)
            {rest}"#
    )
}

#[test]
fn slices_and_splits_say_what_is_read() {
    let slices = r#"%7 = Constant [1] : i64[1]
            %8 = Constant [-2] : i64[1]
            %9 = Slice(%6, %7, %8, %7)
            %10 = Constant [2] : i64[1]
            %11 = Constant [9223372036854775807] : i64[1]
            %12 = Constant [2] : i64[1]
            %13 = Slice(%9, %10, %11, %12)
            %14 = Slice(%6, %10, %8, %7, %10)
            output "y" = %13
            output "z" = %14"#;
    assert_eq!(weights(&run(&Channels::default(), &layer(slices)).0), ["f32[3,2,3,3]"]);
    let split = r#"%7 = Constant [1, 2, 0, 3] : i64[4]
            %8:4 = Split(%6, %7) {axis=1, num_outputs=4}
            output "y" = %8#1
            output "z" = %8#2"#;
    assert_eq!(weights(&run(&Channels::default(), &layer(split)).0), ["f32[2,2,3,3]"]);
    let equal = r#"%7:3 = Split(%6) {axis=1, num_outputs=3}
            %8 = Add(%7, %7#2)
            output "y" = %8"#;
    let (graph, report) = run(&Channels::default(), &layer(equal));
    assert_eq!(weights(&graph), ["f32[4,2,3,3]"]);
    assert_eq!(report.applied[0].detail, "2 of 6 output channels are not read");
}

#[test]
fn what_reads_all_channels_keeps_them() {
    let slice = r#"%7 = Constant [1] : i64[1]
            %8 = Constant [2] : i64[1]
            %9 = Slice(%6, %7, %8, %7)
            output "y" = %9"#;
    assert_eq!(weights(&run(&Channels::default(), &layer(slice)).0), ["f32[1,2,3,3]"]);
    for more in [
        "output \"z\" = %6",
        "%10 = Softmax(%6) {axis=1}\noutput \"z\" = %10",
        "%10 = Constant rand(3, -1.0, 1.0) : f32[2,6,1,1]\n%11 = Conv(%6, %10)\noutput \"z\" = %11",
        "input %10 \"i\" : i64[2]\n%11 = Gather(%6, %10) {axis=1}\noutput \"z\" = %11",
        "%10 = Constant [-1] : i64[1]\n%11 = Slice(%6, %8, %7, %7, %10)\noutput \"z\" = %11",
    ] {
        let (graph, report) = run(&Channels::default(), &layer(&format!("{slice}\n{more}")));
        assert_eq!(weights(&graph)[0], "f32[6,2,3,3]", "{more}");
        assert!(report.applied.is_empty());
    }
    // Weights that are used twice would be there twice.
    let tied = format!("{slice}\n%10 = Conv(%0, %1)\noutput \"z\" = %10");
    let (_, report) = run(&Channels::default(), &layer(&tied));
    assert!(report.skipped[0].reason.ends_with("is used elsewhere too"), "{report:?}");
}

#[test]
fn parts_of_flattened_channels_are_counted_by_element() {
    let (graph, _) = run(
        &Channels::default(),
        &layer(
            r#"%7 = Constant [0, 96] : i64[2]
                %8 = Reshape(%6, %7)
                %9 = Constant [40, 95, -1] : i64[3]
                %10 = Gather(%8, %9) {axis=-1}
                %11 = Constant [37] : i64[1]
                %12 = Constant [50] : i64[1]
                %13 = Constant [1] : i64[1]
                %14 = Slice(%8, %11, %12, %13)
                output "y" = %10
                output "z" = %14"#,
        ),
    );
    assert_eq!(weights(&graph), ["f32[3,2,3,3]"]);
}

#[test]
fn zeros_of_the_next_layer_read_nothing_where_that_is_asked_for() {
    let text = layer(
        r#"%7 = GlobalAveragePool(%6)
            %8 = Flatten(%7)
            %9 = Constant [1.0, 2.0, 0.0, -0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 1.0, 4.0, 0.0] : f32[6,2]
            %10 = MatMul(%8, %9)
            output "y" = %10"#,
    );
    assert_eq!(weights(&run(&Channels::default(), &text).0), ["f32[6,2,3,3]", "f32[6,2]"]);
    let (graph, _) = run(&Channels { zeros: true }, &text);
    assert_eq!(weights(&graph), ["f32[4,2,3,3]", "f32[4,2]"]);
}

/// A graph of a layer, what its channels go through, and what takes some of them; all at random.
struct Drawn {
    rng: SplitMix64,
    text: String,
    next: usize,
    /// The value that goes on, its shape, and the axis of its channels.
    value: String,
    shape: Vec<usize>,
    axis: usize,
}

impl Drawn {
    fn below(&mut self, bound: usize) -> usize {
        (self.rng.next_u64() % bound as u64) as usize
    }

    fn add(&mut self, line: &str) -> String {
        self.next += 1;
        writeln!(self.text, "%{}{line}", self.next).unwrap();
        format!("%{}", self.next)
    }

    fn weights(&mut self, shape: &[usize]) -> String {
        let seed = self.next;
        self.add(&format!(" = Constant rand({seed}, -1.0, 1.0) : f32{shape:?}"))
    }

    fn ints(&mut self, values: &[i64]) -> String {
        self.add(&format!(" = Constant {values:?} : i64[{}]", values.len()))
    }

    fn layer(&mut self, kind: usize, channels: usize) -> String {
        match kind {
            0 => {
                let w = self.weights(&[channels, 2, 2, 2]);
                self.shape = vec![2, channels, 2, 2];
                self.axis = 1;
                self.add(&format!(" = Conv(%0, {w})"))
            }
            1 => {
                let (w, c) = (self.weights(&[channels, 4]), self.weights(&[channels]));
                self.shape = vec![3, channels];
                self.axis = 1;
                self.add(&format!(" = Gemm(%0, {w}, {c}) {{transB=1}}"))
            }
            _ => {
                let w = self.weights(&[4, channels]);
                self.shape = vec![2, 3, channels];
                self.axis = 2;
                self.add(&format!(" = MatMul(%0, {w})"))
            }
        }
    }

    /// Something that hands on the channels.
    fn follow(&mut self) {
        let (value, shape, axis) = (self.value.clone(), self.shape.clone(), self.axis);
        match self.below(6) {
            0 => self.value = self.add(&format!(" = Relu({value})")),
            1 => {
                let behind = vec![1; shape.len() - axis - 1];
                let c = self.weights(&[&shape[axis..=axis], &behind].concat());
                self.value = self.add(&format!(" = Mul({c}, {value})"));
            }
            2 => {
                let turn = self.below(shape.len());
                let perm: Vec<usize> = (0..shape.len()).map(|at| (at + turn) % shape.len()).collect();
                self.shape = perm.iter().map(|&at| shape[at]).collect();
                self.axis = perm.iter().position(|&at| at == axis).unwrap();
                self.value = self.add(&format!(" = Transpose({value}) {{perm={perm:?}}}"));
            }
            3 if axis + 1 < shape.len() => {
                let joined = self.shape.remove(axis + 1);
                self.shape[axis] *= joined;
                let target: Vec<i64> = self.shape.iter().map(|&dim| dim as i64).collect();
                let target = self.ints(&target);
                self.value = self.add(&format!(" = Reshape({value}, {target})"));
            }
            4 if shape.len() > 1 => {
                let gone = (axis + 1 + self.below(shape.len() - 1)) % shape.len();
                let axes = self.ints(&[gone as i64]);
                self.shape.remove(gone);
                self.axis -= usize::from(gone < axis);
                self.value = self.add(&format!(" = ReduceMax({value}, {axes}) {{keepdims=0}}"));
            }
            _ => self.value = self.add(&format!(" = Add({value}, {value})")),
        }
    }

    /// Something that takes a part, along the channels mostly.
    fn take(&mut self) -> String {
        let axis = if self.below(4) == 0 { self.below(self.shape.len()) } else { self.axis };
        let (value, size) = (self.value.clone(), self.shape[axis]);
        match self.below(4) {
            0 => {
                let at = self.below(2 * size) as i64 - size as i64;
                let index = self.add(&format!(" = Constant [{at}] : i64[]"));
                self.add(&format!(" = Gather({value}, {index}) {{axis={axis}}}"))
            }
            1 => {
                let count = 1 + self.below(3);
                let picks: Vec<i64> = (0..count).map(|_| self.below(2 * size) as i64 - size as i64).collect();
                let picks = self.ints(&picks);
                self.add(&format!(" = Gather({value}, {picks}) {{axis={axis}}}"))
            }
            2 => {
                let (a, b) = (self.below(size) as i64, self.below(size + 2) as i64 + 1);
                let (start, end) = (self.ints(&[a.min(b) - 1]), self.ints(&[a.max(b)]));
                let step = 1 + self.below(2) as i64;
                let (axes, steps) = (self.ints(&[axis as i64]), self.ints(&[step]));
                self.add(&format!(" = Slice({value}, {start}, {end}, {axes}, {steps})"))
            }
            _ => {
                let first = self.below(size + 1);
                let second = self.below(size - first + 1);
                let lengths = [first, second, size - first - second].map(|length| length as i64);
                let lengths = self.ints(&lengths);
                let split =
                    self.add(&format!(":3 = Split({value}, {lengths}) {{axis={axis}, num_outputs=3}}"));
                let slot = self.below(3);
                if slot == 0 { split } else { format!("{split}#{slot}") }
            }
        }
    }

    fn graph(seed: u64) -> Graph {
        let mut drawn = Drawn {
            rng: SplitMix64::new(seed),
            text: String::new(),
            next: 0,
            value: String::new(),
            shape: Vec::new(),
            axis: 0,
        };
        let (kind, channels) = (drawn.below(3), 2 + drawn.below(6));
        let input = ["2,2,3,3", "3,4", "2,3,4"][kind];
        writeln!(drawn.text, "model \"g\"\ninput %0 \"x\" : f32[{input}]").unwrap();
        drawn.value = drawn.layer(kind, channels);
        if drawn.below(3) == 0 {
            let other = drawn.layer(kind, channels);
            drawn.value = drawn.add(&format!(" = Sub({other}, {})", drawn.value.clone()));
        }
        let mut outputs = Vec::new();
        for _ in 0..1 + drawn.below(2) {
            (0..drawn.below(4)).for_each(|_| drawn.follow());
            outputs.push(drawn.take());
        }
        for (at, output) in outputs.iter().enumerate() {
            writeln!(drawn.text, "output \"y{at}\" = {output}").unwrap();
        }
        parse(&drawn.text).unwrap_or_else(|error| panic!("{error}\n{}", drawn.text))
    }
}

#[test]
fn cut_channels_change_no_bit_of_others_whatever_the_values() {
    const SPECIAL: [f32; 6] = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, 3e38];
    let mut applied = 0;
    for seed in 0..600 {
        let graph = Drawn::graph(seed);
        let mut changed = graph.clone();
        let report = Channels::default().run(&mut changed, &PassCx::default()).unwrap();
        verify(&changed).unwrap_or_else(|errors| panic!("seed {seed}: {errors}\n{}", print(&changed)));
        applied += usize::from(!report.applied.is_empty());
        let shape =
            graph.fact(rabot_ir::Value { node: graph.inputs()[0], slot: 0 }).ty.static_shape().unwrap();
        let mut rng = SplitMix64::new(seed);
        let mut value = || match rng.next_u64() % 40 {
            at @ 0..6 => SPECIAL[at as usize],
            at => at as f32 / 7.0 - 3.0,
        };
        let values: Vec<f32> = (0..shape.iter().product()).map(|_| value()).collect();
        let inputs = Tensors::from_iter([("x".to_owned(), Tensor::from_vec(&shape, values))]);
        let (expected, actual) =
            (interp::run(&graph, &inputs).unwrap(), interp::run(&changed, &inputs).unwrap());
        for (name, wanted) in &expected {
            let same = |(a, b): (f64, f64)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
            let equal = wanted.to_f64s().into_iter().zip(actual[name].to_f64s()).all(same);
            let (before, after) = (print(&graph), print(&changed));
            assert!(equal && wanted.shape() == actual[name].shape(), "seed {seed}\n{before}\n{after}");
        }
    }
    assert!(applied > 200, "{applied}");
}
