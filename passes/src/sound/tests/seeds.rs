//! Graphs for rules whose conditions random graphs hardly ever meet. Their inputs are drawn at random all the same.

/// Texts of graphs.
pub(super) const SEEDS: &[&str] = &[
    // transpose-through operators with axes
    r#"model "channels last"
    input %0 "x" : f32[n,3,4]
    %1 = Transpose(%0) {perm=[0,2,1]}
    %2 = Constant [0, 1, 0, 1, 0, 2] : i64[6]
    %3 = Pad(%1, %2)
    %4 = Concat(%3, %3) {axis=2}
    %5 = Softmax(%4) {axis=1}
    %6 = Constant [-1] : i64[1]
    %7 = ReduceMean(%5, %6)
    %8 = Sub(%4, %7)
    %9 = Constant [0] : i64[1]
    %10 = Constant [2] : i64[1]
    %11 = Slice(%8, %9, %10, %6)
    %12 = Transpose(%11) {perm=[0,2,1]}
    output "y" = %12
    output "z" = %5"#,
    r#"model "channels last, enlarged"
    input %0 "x" : f32[n,2,3,2]
    %1 = Transpose(%0) {perm=[0,2,3,1]}
    %2 = Constant [1.0, 2.0, 1.5, 1.0] : f32[4]
    %3 = Resize(%1, _, %2) {mode="linear"}
    %4:2 = Split(%3) {axis=2, num_outputs=2}
    %5 = Transpose(%4) {perm=[0,3,1,2]}
    %6 = Transpose(%4#1) {perm=[0,3,1,2]}
    output "y" = %5
    output "z" = %6"#,
    // scale-through-views
    r#"model "scaled heads"
    input %0 "x" : f32[n,2,3]
    %1 = Constant rand(1, -1.0, 1.0) : f32[3,4]
    %2 = MatMul(%0, %1)
    %3 = Transpose(%2) {perm=[0,2,1]}
    %4 = Constant [0.25] : f32[]
    %5 = Mul(%3, %4)
    output "y" = %5"#,
    // products-of-slices
    r#"model "steps"
    input %0 "x" : f32[n,3,4]
    %1 = Constant rand(1, -1.0, 1.0) : f32[4,5]
    %2 = Constant [0] : i64[]
    %3 = Gather(%0, %2) {axis=1}
    %4 = MatMul(%3, %1)
    %5 = Constant [-2] : i64[]
    %6 = Gather(%0, %5) {axis=1}
    %7 = MatMul(%6, %1)
    %8 = Constant [2] : i64[1]
    %9 = Constant [3] : i64[1]
    %10 = Constant [1] : i64[1]
    %11 = Slice(%0, %8, %9, %10)
    %12 = MatMul(%11, %1)
    output "a" = %4
    output "b" = %7
    output "c" = %12"#,
    // layers-of-slices
    r#"model "cells"
    input %0 "x" : f32[n,2,4]
    %1 = Constant rand(1, -1.0, 1.0) : f32[5,4]
    %2 = Constant rand(2, -1.0, 1.0) : f32[5]
    %3 = Constant [0] : i64[]
    %4 = Gather(%0, %3) {axis=1}
    %5 = Gemm(%4, %1, %2) {transB=1}
    %6 = Constant [1] : i64[]
    %7 = Gather(%0, %6) {axis=1}
    %8 = Gemm(%7, %1, %2) {transB=1}
    output "a" = %5
    output "b" = %8"#,
    // layer-norm with its scale before the product
    r#"model "layer norm"
    input %0 "x" : f32[n,4]
    %1 = Constant [-1] : i64[1]
    %2 = ReduceMean(%0, %1)
    %3 = Sub(%0, %2)
    %4 = Mul(%3, %3)
    %5 = ReduceMean(%4, %1)
    %6 = Constant [0.5] : f32[]
    %7 = Add(%5, %6)
    %8 = Sqrt(%7)
    %9 = Reciprocal(%8)
    %10 = Constant [1.0, 2.0, 3.0, 4.0] : f32[4]
    %11 = Mul(%9, %10)
    %12 = Mul(%3, %11)
    output "y" = %12"#,
    // rotary-halves, half by half
    r#"model "rotary"
    input %0 "x" : f32[2,3,5,8]
    input %1 "cos" : f32[1,1,5,4]
    input %2 "sin" : f32[1,1,5,4]
    %3:2 = Split(%0) {axis=3, num_outputs=2}
    %4 = Mul(%3, %1)
    %5 = Mul(%3#1, %2)
    %6 = Sub(%4, %5)
    %7 = Mul(%3, %2)
    %8 = Mul(%3#1, %1)
    %9 = Add(%7, %8)
    %10 = Concat(%6, %9) {axis=3}
    output "y" = %10"#,
    // integer-convolution without a function behind it
    r#"model "convolution in integers"
    input %0 "x" : u8[1,2,5,5]
    %1 = Constant [0.02] : f32[]
    %2 = Constant [3] : u8[]
    %3 = DequantizeLinear(%0, %1, %2)
    %4 = Constant rand(2, -90.0, 90.0) : i8[2,2,3,3]
    %5 = Constant [0.01, 0.02] : f32[2]
    %6 = Constant [0, 0] : i8[2]
    %7 = DequantizeLinear(%4, %5, %6) {axis=0}
    %8 = Conv(%3, %7)
    %9 = Constant [0.05] : f32[]
    %10 = Constant [128] : u8[]
    %11 = QuantizeLinear(%8, %9, %10)
    output "y" = %11"#,
    // integer-product
    r#"model "product in integers"
    input %0 "x" : u8[3,4]
    %1 = Constant [0.02] : f32[]
    %2 = Constant [3] : u8[]
    %3 = DequantizeLinear(%0, %1, %2)
    %4 = Constant [3, -5, 90, 17, -42, 8, 66, -1] : i8[4,2]
    %5 = Constant [0.01] : f32[]
    %6 = Constant [0] : i8[]
    %7 = DequantizeLinear(%4, %5, %6)
    %8 = MatMul(%3, %7)
    %9 = Constant [0.02] : f32[]
    %10 = Constant [128] : u8[]
    %11 = QuantizeLinear(%8, %9, %10)
    output "y" = %11"#,
    // integer-product with Relu
    r#"model "product in integers, positive"
    input %0 "x" : u8[3,4]
    %1 = Constant [0.02] : f32[]
    %2 = Constant [3] : u8[]
    %3 = DequantizeLinear(%0, %1, %2)
    %4 = Constant [3, -5, 90, 17, -42, 8, 66, -1] : i8[4,2]
    %5 = Constant [0.01] : f32[]
    %6 = Constant [0] : i8[]
    %7 = DequantizeLinear(%4, %5, %6)
    %8 = MatMul(%3, %7)
    %9 = Relu(%8)
    %10 = Constant [0.02] : f32[]
    %11 = Constant [0] : u8[]
    %12 = QuantizeLinear(%9, %10, %11)
    output "y" = %12"#,
];
