//! Integer kernels equal the interpreter to the bit, on every target that this machine can run.

use rabot::kernel::{Step, stages};
use rabot::{Program, Session};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::text::{parse, random_tensor};
use rabot_ir::{Graph, Value};
use rabot_tensor::DType;

/// Inputs for batch size `n`, over the whole range of their dtypes.
fn inputs(graph: &Graph, n: i64) -> Tensors {
    let inputs = graph.inputs().iter().zip(0..);
    inputs
        .map(|(&node, at)| {
            let fact = graph.fact(Value { node, slot: 0 });
            let dims = fact.shape().iter().map(|dim| dim.eval(&|_| Some(n)).expect("a size") as usize);
            let shape: Vec<usize> = dims.collect();
            let (lo, hi) = match fact.dtype().int_range() {
                Some((lo, hi)) => (lo as f64, hi as f64),
                None => (-3.0, 3.0),
            };
            let tensor = random_tensor(fact.dtype(), &shape, 31 * n as u64 + at, lo, hi);
            (graph.node(node).name.to_string(), tensor.expect("random values"))
        })
        .collect()
}

/// Compiles the graph and compares outputs for some batch sizes. `hosts` is how many nodes run on the host.
fn check(text: &str, hosts: usize) {
    let graph = parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    for profile in rabot_tests::levels() {
        let staged = stages(&graph, &profile).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let steps = staged.plans().into_iter().flat_map(|plan| &plan.steps);
        let host = steps.filter(|step| matches!(step, Step::Host(_))).count();
        assert_eq!(host, hosts, "{text}");
        let program = Program::new(staged, &profile).unwrap_or_else(|error| panic!("{error}\n{text}"));
        let session = Session::new(&program).expect("a session");
        for n in [1, 2, 7] {
            let inputs = inputs(&graph, n);
            let expected = interp::run(&graph, &inputs).unwrap_or_else(|error| panic!("{error}\n{text}"));
            let actual = session.run(&inputs).unwrap_or_else(|error| panic!("{error}\n{text}"));
            for (name, wanted) in &expected {
                let (wanted, got) = (wanted.to_f64s(), actual[name].to_f64s());
                let first = wanted.iter().zip(&got).position(|(a, b)| a != b);
                assert_eq!((wanted.len(), first), (got.len(), None), "{} n={n} {name}\n{text}", profile.name);
            }
        }
    }
}

/// Operands of a product of x and w; `channels` scales and zero points for w if `per_channel`.
struct Product {
    x: DType,
    w: DType,
    y: DType,
    channels: usize,
    per_channel: bool,
    bias: bool,
}

impl Product {
    /// Constants `%1` to `%9` but for `%3`, the weights; and the operands of the op.
    fn parameters(&self) -> (String, String) {
        let Product { x, w, y, channels, per_channel, bias } = self;
        let zero = |dtype: &DType| if *dtype == DType::U8 { 130 } else { -7 };
        let count = if *per_channel { *channels } else { 1 };
        let scales: Vec<f32> = (0..count).map(|c| 0.01 + 0.003 * c as f32).collect();
        let zeros: Vec<i64> = (0..count as i64).map(|c| zero(w) + c % 5).collect();
        let (bias, last) = match bias {
            true => (format!("%9 = Constant rand(5, -3000.0, 3000.0) : i32[{channels}]"), ", %9"),
            false => (String::new(), ""),
        };
        let constants = format!(
            "%1 = Constant [0.05] : f32[1]
            %2 = Constant [{}] : {x}[1]
            %4 = Constant {scales:?} : f32[{count}]
            %5 = Constant {zeros:?} : {w}[{count}]
            %6 = Constant [0.7] : f32[1]
            %7 = Constant [{}] : {y}[1]
            {bias}",
            zero(x),
            zero(y)
        );
        (constants, format!("%0, %1, %2, %3, %4, %5, %6, %7{last}"))
    }

    fn weights(&self, shape: &str) -> String {
        let (lo, hi) = self.w.int_range().expect("an integer type");
        format!("%3 = Constant rand(3, {lo}.0, {hi}.0) : {}{shape}", self.w)
    }

    fn conv(&self, x: &str, w: &str, attrs: &str, rest: &str) -> String {
        let (constants, operands) = self.parameters();
        format!(
            "model \"g\"
            input %0 \"x\" : {}{x}
            {constants}
            {}
            %10 = QLinearConv({operands}) {attrs}
            {rest}",
            self.x,
            self.weights(w)
        )
    }

    fn matmul(&self, x: &str, w: &str, constant: bool) -> String {
        let (constants, operands) = self.parameters();
        let weights = if constant { self.weights(w) } else { format!("input %3 \"w\" : {}{w}", self.w) };
        let (before, after) = if constant { ("", &*weights) } else { (&*weights, "") };
        format!(
            "model \"g\"
            input %0 \"x\" : {}{x}
            {before}
            {constants}
            {after}
            %10 = QLinearMatMul({operands})
            output \"y\" = %10",
            self.x
        )
    }
}

const SIGNED: Product =
    Product { x: DType::I8, w: DType::I8, y: DType::I8, channels: 7, per_channel: true, bias: true };
const UNSIGNED: Product = Product { x: DType::U8, w: DType::U8, y: DType::U8, bias: false, ..SIGNED };
const OUTPUT: &str = "output \"y\" = %10";

#[test]
fn convolutions() {
    check(&SIGNED.conv("[n,5,9,9]", "[7,5,3,3]", "{pads=[1,1,1,1]}", OUTPUT), 0);
    let uneven = "{pads=[1,0,1,2], strides=[2,1]}";
    check(&UNSIGNED.conv("[n,3,8,11]", "[7,3,3,3]", uneven, OUTPUT), 0);
    let one_scale = Product { per_channel: false, ..SIGNED };
    check(&one_scale.conv("[n,17,7,7]", "[7,17,1,1]", "{}", OUTPUT), 0);
    check(&SIGNED.conv("[n,16,7,7]", "[7,16,1,1]", "{strides=[2,2]}", OUTPUT), 0);
    check(&SIGNED.conv("[n,6,33]", "[7,6,5]", "{dilations=[2]}", OUTPUT), 0);
    let ten = Product { channels: 10, ..SIGNED };
    check(&ten.conv("[n,6,7,7]", "[10,3,3,3]", "{group=2}", OUTPUT), 0);
}

#[test]
fn depthwise_convolutions() {
    check(&SIGNED.conv("[n,7,9,13]", "[7,1,3,3]", "{group=7, pads=[1,1,1,1]}", OUTPUT), 0);
    let strided = "{group=7, pads=[1,1,1,1], strides=[2,2]}";
    check(&UNSIGNED.conv("[n,7,9,23]", "[7,1,3,3]", strided, OUTPUT), 0);
}

#[test]
fn a_residual_sum_in_the_epilogue() {
    let rest = "%11 = Constant [0.7] : f32[1]
        %12 = Constant [-7] : i8[1]
        %13 = DequantizeLinear(%10, %11, %12) group=1
        %14 = Constant rand(8, -20.0, 20.0) : f32[1,7,7,7]
        %15 = Add(%13, %14) group=1
        %16 = Relu(%15) group=1
        %17 = Constant [0.3] : f32[1]
        %18 = Constant [-128] : i8[1]
        %19 = QuantizeLinear(%16, %17, %18) group=1
        output \"y\" = %19";
    check(&SIGNED.conv("[n,6,9,9]", "[7,6,3,3]", "{} group=1", rest), 0);
}

#[test]
fn matrix_products() {
    check(&SIGNED.matmul("[n,33]", "[33,7]", true), 0);
    let wide = Product { channels: 40, ..UNSIGNED };
    check(&wide.matmul("[n,64]", "[64,40]", true), 0);
    let mixed = Product { w: DType::U8, per_channel: false, ..SIGNED };
    check(&mixed.matmul("[2,n,31]", "[31,7]", true), 0);
    check(&SIGNED.matmul("[33]", "[33,7]", true), 0);
    let vector = Product { channels: 1, per_channel: false, ..UNSIGNED };
    check(&vector.matmul("[n,33]", "[33]", true), 0);
    let dynamic = Product { per_channel: false, ..SIGNED };
    check(&dynamic.matmul("[2,n,31]", "[2,31,7]", false), 0);
    // A zero point for each column of a matrix that is not constant: nothing packs that.
    check(&SIGNED.matmul("[n,31]", "[31,7]", false), 1);
}

#[test]
fn conversions() {
    let zeros = [("i8", "-3"), ("u8", "200"), ("i16", "-300"), ("u16", "300"), ("i32", "2000000000")];
    for (dtype, zero) in zeros {
        check(
            &format!(
                "model \"g\"
                input %0 \"x\" : {dtype}[n,37]
                %1 = Constant [0.37] : f32[1]
                %2 = Constant [{zero}] : {dtype}[1]
                %3 = DequantizeLinear(%0, %1, %2)
                output \"y\" = %3"
            ),
            0,
        );
    }
    for (dtype, zero) in &zeros[..4] {
        check(
            &format!(
                "model \"g\"
                input %0 \"x\" : f32[n,3,37]
                input %1 \"i\" : i32[n,37]
                %2 = Constant [0.011, 0.5, 0.00001] : f32[3]
                %3 = Constant [{zero}, 5, 0] : {dtype}[3]
                %4 = QuantizeLinear(%0, %2, %3)
                %5 = Constant [1e7] : f32[]
                %6 = Constant [{zero}] : {dtype}[]
                %7 = QuantizeLinear(%1, %5, %6)
                output \"y\" = %4
                output \"z\" = %7"
            ),
            0,
        );
    }
    let blocks = "model \"g\"
        input %0 \"x\" : f32[2,6]
        %1 = Constant [1.0, 2.0, 3.0, 4.0, 5.0, 6.0] : f32[2,3]
        %2 = QuantizeLinear(%0, %1) {axis=1, block_size=2}
        output \"y\" = %2";
    check(blocks, 1);
}

#[test]
fn pools_and_moves_of_integers() {
    check(
        "model \"g\"
        input %0 \"x\" : i8[n,3,9,19]
        %1 = MaxPool(%0) {kernel_shape=[3,3], strides=[2,2], pads=[1,1,1,1]}
        %2 = Transpose(%0) {perm=[0,2,3,1]}
        %3 = Flatten(%0)
        %4 = Concat(%0, %0) {axis=1}
        output \"p\" = %1
        output \"t\" = %2
        output \"f\" = %3
        output \"c\" = %4",
        0,
    );
}
