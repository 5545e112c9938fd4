//! Models that faults are planted in: small ones as text, and the demo's.

use super::plant::Model;
use rabot::Tensors;
use rabot_ir::text::{SplitMix64, parse};
use rabot_ir::{Fact, Graph};
use rabot_tensor::Tensor;
use std::path::Path;

const CONVOLUTIONS: &str = r#"model "convolutions"
input %0 "x" : f32[1,3,9,9]
%1 = Constant rand(1, -1.0, 1.0) : f32[8,3,3,3]
%2 = Constant rand(2, -1.0, 1.0) : f32[8]
%3 = Conv(%0, %1, %2) {pads=[1,1,1,1]} "c1"
%4 = Constant rand(3, 0.5, 2.0) : f32[8]
%5 = Constant rand(4, -1.0, 1.0) : f32[8]
%6 = Constant rand(5, -1.0, 1.0) : f32[8]
%7 = Constant rand(6, 0.5, 2.0) : f32[8]
%8 = BatchNormalization(%3, %4, %5, %6, %7) {epsilon=0.01} "bn1"
%9 = Relu(%8) "relu1"
%10 = Constant rand(7, -1.0, 1.0) : f32[8,8,3,3]
%11 = Conv(%9, %10) {pads=[1,1,1,1]} "c2"
%12 = Constant rand(8, 0.5, 2.0) : f32[8]
%13 = BatchNormalization(%11, %12, %5, %6, %7) {epsilon=0.01} "bn2"
%14 = Add(%13, %9) "residual"
%15 = Sigmoid(%14) "gate"
%16 = Mul(%14, %15) "swish"
%17 = Flatten(%16) "flat"
%18 = Constant rand(9, -0.2, 0.2) : f32[648,7]
%19 = MatMul(%17, %18) "fc"
%20 = Constant rand(10, -1.0, 1.0) : f32[7]
%21 = Add(%19, %20) "logits"
output "y" = %21"#;

const ATTENTION: &str = r#"model "attention"
input %0 "x" : f32[1,5,8]
%1 = Constant rand(1, -1.0, 1.0) : f32[8,8]
%2 = Constant rand(2, -1.0, 1.0) : f32[8,8]
%3 = Constant rand(3, -1.0, 1.0) : f32[8,8]
%4 = MatMul(%0, %1) "query"
%5 = MatMul(%0, %2) "key"
%6 = MatMul(%0, %3) "value"
%7 = Transpose(%5) {perm=[0,2,1]} "key_t"
%8 = MatMul(%4, %7) "scores"
%9 = Constant [2.8284271] : f32[]
%10 = Div(%8, %9) "scaled"
%11 = Softmax(%10) {axis=-1} "weights"
%12 = MatMul(%11, %6) "mixed"
%13 = Add(%12, %0) "residual"
%14 = Constant [-1] : i64[1]
%15 = ReduceMean(%13, %14) "mean"
%16 = Sub(%13, %15) "centered"
%17 = Constant [2.0] : f32[]
%18 = Pow(%16, %17) "squares"
%19 = ReduceMean(%18, %14) "variance"
%20 = Constant [1e-5] : f32[]
%21 = Add(%19, %20) "stable"
%22 = Sqrt(%21) "deviation"
%23 = Div(%16, %22) "normal"
%24 = Constant rand(4, 0.5, 2.0) : f32[8]
%25 = Mul(%23, %24) "scaled_normal"
%26 = Constant rand(5, -1.0, 1.0) : f32[8]
%27 = Add(%25, %26) "shifted"
%28 = Constant rand(6, -1.0, 1.0) : f32[8,13]
%29 = MatMul(%27, %28) "up"
%30 = Constant [1.4142135] : f32[]
%31 = Div(%29, %30) "gelu_in"
%32 = Erf(%31) "erf"
%33 = Constant [1.0] : f32[]
%34 = Add(%32, %33) "erf1"
%35 = Mul(%29, %34) "gelu_twice"
%36 = Constant [0.5] : f32[]
%37 = Mul(%35, %36) "gelu"
output "y" = %37"#;

const ELEMENTWISE: &str = r#"model "elementwise"
input %0 "x" : f32[3,7]
%1 = Constant [1.5] : f32[]
%2 = Constant [0.25] : f32[]
%3 = Mul(%1, %2) "constant1"
%4 = Exp(%1) "constant2"
%5 = Mul(%0, %3) "scaled"
%6 = Tanh(%5) "tanh1"
%7 = Tanh(%5) "tanh2"
%8 = Sub(%6, %4) "minus"
%9 = Abs(%7) "absolute"
%10 = Add(%8, %9) "sum"
%11 = Transpose(%10) {perm=[1,0]} "turned"
%12 = Softmax(%11) {axis=-1} "softmax"
%13 = Constant [-1] : i64[1]
%14 = ReduceMax(%10, %13) "largest"
%15 = Sub(%10, %14) "below"
%16 = Exp(%15) "powers"
output "soft" = %12
output "powers" = %16"#;

/// All models.
pub fn models() -> Vec<Model> {
    let texts = [("convolutions", CONVOLUTIONS), ("attention", ATTENTION), ("elementwise", ELEMENTWISE)];
    let mut models: Vec<Model> =
        texts.into_iter().map(|(name, text)| of(name, parse(text).unwrap())).collect();
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../demo/digits.onnx");
    let options = rabot::Options { dims: vec![], ..rabot::Options::default() };
    models.push(of("digits", rabot::import(path, &options).unwrap().graph));
    models
}

fn of(name: &str, graph: Graph) -> Model {
    let (name, inputs) = (name.to_owned(), vec![random(&graph)]);
    Model { name, graph, inputs }
}

/// Seeded inputs; symbolic dims are 2.
fn random(graph: &Graph) -> Tensors {
    let mut random = SplitMix64::new(7);
    let one = |&id: &rabot_ir::NodeId| {
        let node = graph.node(id);
        let fact: &Fact = &node.outputs[0].fact;
        let shape: Vec<usize> = fact.shape().iter().map(|dim| dim.as_usize().unwrap_or(2)).collect();
        let values: Vec<f64> =
            (0..shape.iter().product::<usize>()).map(|_| random.uniform(-1.0, 1.0)).collect();
        (node.name.to_string(), Tensor::from_f64s(fact.dtype(), &shape, &values))
    };
    graph.inputs().iter().map(one).collect()
}
