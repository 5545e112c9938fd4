//! Loop kernels on vectors of 512 bits against those on 128 bits, to the bit, in memory that ends where it must not be
//! touched; and which targets have such code.

mod common;
#[path = "contraction/mod.rs"]
mod contraction;

use common::{access, arg, bytes, levels, load, plan, stage, store, typed, values};
use contraction::Guarded;
use rabot_codegen::{asm_text, compile_jit};
use rabot_kernel::{
    Access, BinaryFn, Dag, Expr, ExprId, KernelDesc, LoopKernel, ReduceFn, Reduction, Size, Stage, UnaryFn,
    Vectorize,
};
use rabot_target::Profile;
use rabot_tensor::DType;

use Size::{Const, Param};

/// Numbers among which are NaN, infinities, zeros of either sign and denormals.
fn specials(count: usize, seed: u64) -> Vec<f32> {
    let special = [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, -0.0, 1e-40, -1e-41, f32::MAX, 0.0];
    let mut list = values(count, seed);
    for (index, value) in list.iter_mut().enumerate().skip(seed as usize % 7).step_by(11) {
        *value = special[(index / 11 + seed as usize) % special.len()];
    }
    list
}

/// A kernel on one machine, by all items at once and by a few at a time; what it writes.
fn run(
    kernel: &LoopKernel,
    profile: &Profile,
    params: &[i64],
    items: i64,
    buffers: &[Vec<u8>],
) -> Vec<Vec<u8>> {
    let program = compile_jit(&plan(KernelDesc::Loop(kernel.clone())), profile).unwrap();
    let function = program.kernel(0).unwrap();
    let call = |step: i64| {
        let guarded: Vec<Guarded> = buffers.iter().map(|buffer| Guarded::new(buffer)).collect();
        let pointers: Vec<*mut u8> = guarded.iter().map(Guarded::pointer).collect();
        let (mut status, mut scratch, mut begin) = (0i64, [0u8; 64], 0);
        while begin < items {
            let end = (begin + step).min(items);
            // SAFETY: a buffer for each argument; what lies behind each faults. Loop kernels use no scratch memory.
            unsafe {
                function(pointers.as_ptr(), params.as_ptr(), begin, end, scratch.as_mut_ptr(), &mut status);
            }
            begin = end;
        }
        assert_eq!(status, 0);
        guarded.iter().map(Guarded::bytes).collect::<Vec<_>>()
    };
    let whole = call(items.max(1));
    assert!(whole == call(5), "the partition changes the result");
    whole
}

/// The bits of numbers of a dtype; one for all NaN.
fn bits(dtype: DType, bytes: &[u8]) -> Vec<u32> {
    let canonical = |value: u32, infinity: u32, magnitude: u32| {
        if value & magnitude > infinity { u32::MAX } else { value }
    };
    match dtype {
        DType::F32 => {
            typed::<u32>(bytes).into_iter().map(|bits| canonical(bits, 0x7f80_0000, u32::MAX / 2)).collect()
        }
        DType::F16 | DType::BF16 => {
            let infinity = if dtype == DType::F16 { 0x7c00 } else { 0x7f80 };
            typed::<u16>(bytes).into_iter().map(|bits| canonical(bits.into(), infinity, 0x7fff)).collect()
        }
        _ => bytes.iter().map(|byte| u32::from(*byte)).collect(),
    }
}

/// Runs a kernel on 128 bits and on 512; true if there is a machine with both.
fn compare(kernel: &LoopKernel, params: &[i64], items: i64, buffers: &[Vec<u8>], what: &str) -> bool {
    let mut machines = levels();
    machines.retain(|profile| profile.fma);
    let [narrow, wide @ ..] = &machines[..] else { return false };
    let expected = run(kernel, narrow, params, items, buffers);
    for profile in wide {
        let text = asm_text(&plan(KernelDesc::Loop(kernel.clone())), 0, profile).unwrap();
        assert!(text.contains("%zmm"), "{what}: no leaf on {}", profile.name);
        let got = run(kernel, profile, params, items, buffers);
        for (argument, (got, expected)) in got.iter().zip(&expected).enumerate() {
            let dtype = kernel.args[argument].dtype;
            let (got, expected) = (bits(dtype, got), bits(dtype, expected));
            let place = got.iter().zip(&expected).position(|(a, b)| a != b);
            assert_eq!(place, None, "{what}: argument {argument} on {}", profile.name);
        }
    }
    !wide.is_empty()
}

/// What a window is.
#[derive(Clone, Copy, Debug)]
struct Shape {
    rows: usize,
    columns: usize,
    kernel: usize,
    stride: usize,
    dilation: usize,
    symbolic: bool,
    after: u8,
}

/// A stride, in the code or among the parameters.
struct Sizes {
    symbolic: bool,
    params: Vec<i64>,
}

impl Sizes {
    fn size(&mut self, value: usize) -> Size {
        if !self.symbolic {
            return Const(value as i64);
        }
        self.params.push(value as i64);
        Param(self.params.len() - 1)
    }
}

/// What follows a sum: nothing, a clip, or a multiplication with the sigmoid.
fn activated(dag: &mut Dag, sum: ExprId, after: u8) -> ExprId {
    match after {
        0 => sum,
        1 => {
            let (zero, six) = (dag.constant(DType::F32, 0.0), dag.constant(DType::F32, 6.0));
            let sum = dag.binary(BinaryFn::Max, sum, zero);
            dag.binary(BinaryFn::Min, sum, six)
        }
        _ => {
            let sigmoid = dag.unary(UnaryFn::Sigmoid, sum);
            dag.binary(BinaryFn::Mul, sum, sigmoid)
        }
    }
}

/// `y[c, i, j] = f(Σ x[c, s·i + d·u, s·j + d·v] · w[c, u, v] + b[c])`, and the maximum of the window.
fn windows(shape: Shape, channels: usize) {
    let Shape { rows, columns, kernel: k, stride, dilation, symbolic, after } = shape;
    let extent = |n: usize| if n == 0 { 0 } else { (n - 1) * stride + (k - 1) * dilation + 1 };
    let (height, width) = (extent(rows), extent(columns));
    let mut sizes = Sizes { symbolic, params: Vec::new() };
    let row = sizes.size(width * stride);
    let tap_row = if symbolic && dilation == 1 && stride == 1 { row } else { sizes.size(width * dilation) };
    let window = Access {
        strides: vec![
            (0, sizes.size(height * width)),
            (1, row),
            (2, Const(stride as i64)),
            (3, tap_row),
            (4, Const(dilation as i64)),
        ],
        ..Access::default()
    };
    let mut dag = Dag::default();
    let x = load(&mut dag, 0, DType::F32, window);
    let w = load(&mut dag, 1, DType::F32, access(&[(0, (k * k) as i64), (3, k as i64), (4, 1)]));
    let product = dag.binary(BinaryFn::Mul, x, w);
    let mut last = Dag::default();
    let sum = last.push(Expr::Reduced(0), DType::F32);
    let max = last.push(Expr::Reduced(1), DType::F32);
    let bias = load(&mut last, 2, DType::F32, access(&[(0, 1)]));
    let sum = last.binary(BinaryFn::Add, sum, bias);
    let sum = activated(&mut last, sum, after);
    let to = Access {
        strides: vec![(0, sizes.size(rows * columns)), (1, sizes.size(columns)), (2, Const(1))],
        ..Access::default()
    };
    let reduction = |function, value| Reduction { function, value };
    let kernel = LoopKernel {
        args: [vec![arg(DType::F32, false); 3], vec![arg(DType::F32, true); 2]].concat(),
        outer: vec![Const(channels as i64), sizes.size(rows), sizes.size(columns)],
        items: 2,
        stages: vec![
            Stage {
                inner: vec![Const(k as i64); 2],
                dag,
                reductions: vec![reduction(ReduceFn::Sum, product), reduction(ReduceFn::Max, x)],
                stores: vec![],
            },
            stage(vec![], last, vec![store(3, to.clone(), sum), store(4, to, max)]),
        ],
        vectorize: Vectorize::Outer,
    };
    let result = vec![0; channels * rows * columns * 4];
    let buffers = [
        bytes(&specials(channels * height * width, 3 + columns as u64)),
        bytes(&values(channels * k * k, 4)),
        bytes(&values(channels, 5)),
        result.clone(),
        result,
    ];
    compare(&kernel, &sizes.params, (channels * rows) as i64, &buffers, &format!("{shape:?}"));
}

#[test]
fn windows_of_all_widths() {
    for (columns, stride) in
        [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 32, 33, 50].iter().flat_map(|&n| [(n, 1), (n, 2)])
    {
        for kernel in [1, 2, 3, 5] {
            let after = (kernel % 3) as u8;
            windows(Shape { rows: 7, columns, kernel, stride, dilation: 1, symbolic: false, after }, 2);
        }
    }
}

#[test]
fn windows_of_other_shapes() {
    for rows in [0, 1, 2, 3, 4, 5, 9] {
        for (stride, dilation, symbolic) in [(1, 1, true), (2, 1, true), (1, 2, false), (1, 2, true)] {
            let after = (rows % 3) as u8;
            windows(Shape { rows, columns: 21, kernel: 3, stride, dilation, symbolic, after }, 3);
        }
    }
    windows(Shape { rows: 5, columns: 9, kernel: 7, stride: 1, dilation: 1, symbolic: false, after: 1 }, 2);
}

#[test]
fn elementwise_rows() {
    // y[i, j] = tanh(x[i, j] · row[j]) + column[i] / 3, and its negative, in place of x.
    for n in (4..40).chain([48, 63, 64, 65]) {
        for extent in [Const(n as i64), Param(0)] {
            let rows = 5;
            let mut dag = Dag::default();
            let matrix = Access { strides: vec![(0, extent), (1, Const(1))], ..Access::default() };
            let x = load(&mut dag, 3, DType::F32, matrix.clone());
            let row = load(&mut dag, 0, DType::F32, access(&[(1, 1)]));
            let column = load(&mut dag, 1, DType::F32, access(&[(0, 1)]));
            let three = dag.constant(DType::F32, 3.0);
            let scaled = dag.binary(BinaryFn::Div, column, three);
            let product = dag.binary(BinaryFn::Mul, x, row);
            let y = dag.unary(UnaryFn::Tanh, product);
            let y = dag.binary(BinaryFn::Add, y, scaled);
            let mut negative = Dag::default();
            let again = load(&mut negative, 2, DType::F32, matrix.clone());
            let minus = negative.unary(UnaryFn::Neg, again);
            let args = [false, false, true, true].map(|written| arg(DType::F32, written)).to_vec();
            let kernel = LoopKernel {
                args,
                outer: vec![Const(rows)],
                items: 1,
                stages: vec![
                    stage(vec![extent], dag, vec![store(2, matrix.clone(), y)]),
                    stage(vec![extent], negative, vec![store(3, matrix, minus)]),
                ],
                vectorize: Vectorize::Inner,
            };
            let count = rows as usize * n;
            let buffers = [
                bytes(&specials(n, 1)),
                bytes(&values(rows as usize, 2)),
                vec![0; 4 * count],
                bytes(&specials(count, 7)),
            ];
            compare(&kernel, &[n as i64], rows, &buffers, &format!("{n} columns"));
        }
    }
}

#[test]
fn halves_in_rows_and_columns() {
    // y[i, j] = x[i, j] · row[j] + column[i], rounded to one half, stored as another; x may be the other one.
    let halves = [DType::F16, DType::BF16];
    let lists = [UnaryFn::RoundF16, UnaryFn::RoundBF16];
    for (n, (from, to)) in (4..40)
        .chain([64, 65, 130])
        .flat_map(|n| halves.map(|from| (n, from)))
        .flat_map(|(n, from)| halves.map(|to| (n, (from, to))))
    {
        for vectorize in [Vectorize::Inner, Vectorize::Outer] {
            let rows = 5;
            let mut dag = Dag::default();
            let matrix = access(&[(0, n), (1, 1)]);
            let x = load(&mut dag, 0, from, matrix.clone());
            let row = load(&mut dag, 1, to, access(&[(1, 1)]));
            let column = load(&mut dag, 2, from, access(&[(0, 1)]));
            let y = dag.push(Expr::MulAdd(x, row, column), DType::F32);
            let rounded = dag.unary(lists[usize::from(from == DType::BF16)], y);
            let columns = Const(n);
            let (outer, inner) = match vectorize {
                Vectorize::Outer => (vec![Const(rows), columns], vec![]),
                _ => (vec![Const(rows)], vec![columns]),
            };
            let kernel = LoopKernel {
                args: vec![arg(from, false), arg(to, false), arg(from, false), arg(to, true)],
                outer,
                items: 1,
                stages: vec![stage(inner, dag, vec![store(3, matrix, rounded)])],
                vectorize,
            };
            // Any bits: numbers of all sizes, NaN and infinities.
            let any = |count: i64, seed: u32| {
                let number = |i: i64| (i as u32).wrapping_mul(0x9e37_79b9).rotate_left(seed) as u16;
                bytes(&(0..count).map(number).collect::<Vec<u16>>())
            };
            let buffers = [any(rows * n, 3), any(n, 7), any(rows, 11), vec![0; (2 * rows * n) as usize]];
            compare(&kernel, &[], rows, &buffers, &format!("{n}: {from} {to} {vectorize:?}"));
        }
    }
}

/// Any bits.
fn noise(count: usize, seed: u32) -> Vec<u8> {
    (0..count).map(|i| ((i as u32 + 1).wrapping_mul(0x9e37_79b9).rotate_left(seed) >> 9) as u8).collect()
}

/// `y[c, i, j] = f(Σ (x[c, i + u, s·j + v] - 7) · w[c, u, v])`, scaled, rounded and cut to 8 bits; x too, 3 × 3.
fn quantized_window(columns: usize, step: usize, from: DType, to: DType) -> LoopKernel {
    let width = (step * (columns - 1) + 3) as i64;
    let mut dag = Dag::default();
    let window = access(&[(0, 7 * width), (1, width), (2, step as i64), (3, width), (4, 1)]);
    let x = load(&mut dag, 0, from, window);
    let w = load(&mut dag, 1, DType::I16, access(&[(0, 9), (3, 3), (4, 1)]));
    let (x, w) = (dag.cast(DType::I32, x), dag.cast(DType::I32, w));
    let seven = dag.constant(DType::I32, 7.0);
    let x = dag.binary(BinaryFn::Sub, x, seven);
    let product = dag.binary(BinaryFn::Mul, x, w);
    let reductions = [(ReduceFn::Sum, product), (ReduceFn::Min, x)];
    let reductions = reductions.map(|(function, value)| Reduction { function, value }).to_vec();
    let taps = Stage { inner: vec![Const(3); 2], dag, reductions, stores: vec![] };
    let mut last = Dag::default();
    let sum = last.push(Expr::Reduced(0), DType::I32);
    let least = last.push(Expr::Reduced(1), DType::I32);
    let bias = load(&mut last, 2, DType::I32, access(&[(0, 1)]));
    let sum = last.binary(BinaryFn::Add, sum, bias);
    let sum = last.cast(DType::F32, sum);
    let scale = last.constant(DType::F32, 0.013);
    let scaled = last.binary(BinaryFn::Mul, sum, scale);
    let rounded = last.unary(UnaryFn::Round, scaled);
    let integer = last.cast(DType::I32, rounded);
    let (low, high) = (last.constant(DType::I32, -100.0), last.constant(DType::I32, 120.0));
    let clamped = last.binary(BinaryFn::Max, integer, low);
    let clamped = last.binary(BinaryFn::Min, clamped, high);
    let narrow = last.cast(to, clamped);
    let plane = access(&[(0, 5 * columns as i64), (1, columns as i64), (2, 1)]);
    let dtypes = [(from, false), (DType::I16, false), (DType::I32, false), (to, true), (DType::I16, true)];
    LoopKernel {
        args: dtypes.map(|(dtype, written)| arg(dtype, written)).to_vec(),
        outer: vec![Const(2), Const(5), Const(columns as i64)],
        items: 2,
        stages: vec![
            taps,
            stage(vec![], last, vec![store(3, plane.clone(), narrow), store(4, plane, least)]),
        ],
        vectorize: Vectorize::Outer,
    }
}

#[test]
fn integer_windows() {
    for columns in [1usize, 2, 15, 16, 17, 31, 33] {
        for (from, to) in [(DType::U8, DType::U8), (DType::I8, DType::I8), (DType::U8, DType::I8)] {
            for step in [1, 2] {
                let kernel = quantized_window(columns, step, from, to);
                let buffers = [
                    noise(2 * 7 * (step * (columns - 1) + 3), 3),
                    noise(36, 5),
                    noise(8, 9),
                    vec![0; 10 * columns],
                    vec![0; 20 * columns],
                ];
                compare(&kernel, &[], 10, &buffers, &format!("{columns} by {step} {from} {to}"));
            }
        }
    }
}

#[test]
fn integer_rows() {
    // Casts of any f32 to integers, and back; sums, products and maxima of integers.
    for (n, to) in (4..37)
        .chain([65])
        .flat_map(|n| [DType::I8, DType::U8, DType::I16, DType::U16, DType::I32].map(|to| (n as usize, to)))
    {
        let rows = 3usize;
        let matrix = access(&[(0, n as i64), (1, 1)]);
        let mut dag = Dag::default();
        let x = load(&mut dag, 0, DType::F32, matrix.clone());
        let thousand = dag.constant(DType::F32, 1000.0);
        let large = dag.binary(BinaryFn::Mul, x, thousand);
        let integer = dag.cast(to, large);
        let other = load(&mut dag, 1, to, access(&[(1, 1)]));
        let row = load(&mut dag, 2, to, access(&[(0, 1)]));
        let sum = dag.binary(BinaryFn::Add, integer, other);
        let product = dag.binary(BinaryFn::Mul, sum, row);
        let is_less = dag.push(Expr::Binary(BinaryFn::Lt, product, other), DType::Bool);
        let chosen = dag.push(Expr::Select(is_less, product, integer), to);
        let reductions = [(ReduceFn::Sum, chosen), (ReduceFn::Max, product), (ReduceFn::Prod, other)];
        let reductions = reductions.map(|(function, value)| Reduction { function, value }).to_vec();
        let stores = vec![store(3, matrix.clone(), chosen)];
        let first = Stage { inner: vec![Const(n as i64)], dag, reductions, stores };
        let mut last = Dag::default();
        let [sum, max, product] = [0, 1, 2].map(|number| last.push(Expr::Reduced(number), to));
        let mixed = last.binary(BinaryFn::Xor, sum, product);
        let mixed = last.binary(BinaryFn::Sub, mixed, max);
        let float = last.cast(DType::F32, mixed);
        let outs = stage(vec![], last, vec![store(4, access(&[(0, 1)]), float)]);
        let dtypes = [(DType::F32, false), (to, false), (to, false), (to, true), (DType::F32, true)];
        let kernel = LoopKernel {
            args: dtypes.map(|(dtype, written)| arg(dtype, written)).to_vec(),
            outer: vec![Const(rows as i64)],
            items: 1,
            stages: vec![first, outs],
            vectorize: Vectorize::Inner,
        };
        let size = to.size_bytes();
        let buffers = [
            bytes(&specials(rows * n, 3)),
            noise(n * size, 5),
            noise(rows * size, 8),
            vec![0; rows * n * size],
            vec![0; rows * 4],
        ];
        compare(&kernel, &[], rows as i64, &buffers, &format!("{n} {to}"));
    }
}

#[test]
fn every_second_element() {
    // y[i, 2j] = 2 · x[i, j]; z[i, j] = x[i, 2j] - x[i, 2j + 1] + x[i, 2j + 2].
    for n in (4..40).chain([63, 64, 65]) {
        let rows = 3usize;
        let matrix = |stride: usize| access(&[(0, (stride * n) as i64), (1, 1)]);
        let second = |stride: usize, first: i64| Access {
            offset: Some(Const(first)),
            ..access(&[(0, stride as i64), (1, 2)])
        };
        let mut write = Dag::default();
        let x = load(&mut write, 0, DType::F32, matrix(1));
        let doubled = write.binary(BinaryFn::Add, x, x);
        let mut read = Dag::default();
        let [a, b, c] = [0, 1, 2].map(|first| load(&mut read, 0, DType::F32, second(2 * n + 1, first)));
        let difference = read.binary(BinaryFn::Sub, a, b);
        let sum = read.binary(BinaryFn::Add, difference, c);
        let inner = vec![Const(n as i64)];
        let stages = [
            (stage(inner.clone(), write, vec![store(1, second(2 * n - 1, 0), doubled)]), rows * (2 * n - 1)),
            (stage(inner, read, vec![store(1, matrix(1), sum)]), rows * n),
        ];
        for (which, (stage, size)) in stages.into_iter().enumerate() {
            let kernel = LoopKernel {
                args: vec![arg(DType::F32, false), arg(DType::F32, true)],
                outer: vec![Const(rows as i64)],
                items: 1,
                stages: vec![stage],
                vectorize: Vectorize::Inner,
            };
            let buffers = [bytes(&specials(rows * (2 * n + 1), 9)), vec![0x55; 4 * size]];
            compare(&kernel, &[], rows as i64, &buffers, &format!("{which}: {n} columns"));
        }
    }
}

/// Softmax of rows with a mask, then a norm without an offset: reductions of each kind in one kernel.
fn row_kernel(extent: Size, rows: Size, items: usize) -> LoopKernel {
    let matrix = Access { strides: vec![(0, extent), (1, Const(1))], ..Access::default() };
    let reduction = |function, value| vec![Reduction { function, value }];
    let operand = |dag: &mut Dag| {
        let x = load(dag, 0, DType::F32, matrix.clone());
        let mask = load(dag, 1, DType::F32, access(&[(1, 1)]));
        dag.binary(BinaryFn::Add, x, mask)
    };
    let mut first = Dag::default();
    let x = operand(&mut first);
    let maximum =
        Stage { inner: vec![extent], dag: first, reductions: reduction(ReduceFn::Max, x), stores: vec![] };
    let mut second = Dag::default();
    let x = operand(&mut second);
    let max = second.push(Expr::Reduced(0), DType::F32);
    let centred = second.binary(BinaryFn::Sub, x, max);
    let e = second.unary(UnaryFn::Exp, centred);
    let square = second.binary(BinaryFn::Mul, e, e);
    let reductions = [reduction(ReduceFn::Sum, e), reduction(ReduceFn::Sum, square)].concat();
    let sum =
        Stage { inner: vec![extent], dag: second, reductions, stores: vec![store(2, matrix.clone(), e)] };
    let mut third = Dag::default();
    let e = load(&mut third, 2, DType::F32, matrix.clone());
    let sums = third.push(Expr::Reduced(1), DType::F32);
    let size = third.push(Expr::Size(extent), DType::I64);
    let length = third.cast(DType::F32, size);
    let mean = third.binary(BinaryFn::Div, sums, length);
    let inverse = third.unary(UnaryFn::Reciprocal, mean);
    let scaled = third.binary(BinaryFn::Mul, e, inverse);
    let scale = stage(vec![extent], third, vec![store(2, matrix, scaled)]);
    let mut last = Dag::default();
    let squares = last.push(Expr::Reduced(2), DType::F32);
    let root = last.unary(UnaryFn::Sqrt, squares);
    let norm = stage(vec![], last, vec![store(3, access(&[(0, 1)]), root)]);
    LoopKernel {
        args: [false, false, true, true].map(|written| arg(DType::F32, written)).to_vec(),
        outer: vec![rows],
        items,
        stages: vec![maximum, sum, scale, norm],
        vectorize: Vectorize::Inner,
    }
}

#[test]
fn reductions_of_rows() {
    for n in (4..52).chain([63, 64, 65, 100, 197]) {
        for (extent, items) in [(Const(n as i64), 1), (Param(0), 1), (Param(0), 0)] {
            let rows = 6usize;
            let kernel = row_kernel(extent, Const(rows as i64), items);
            let count = if items == 0 { 1 } else { rows as i64 };
            for special in [false, true] {
                let data = |count, seed| if special { specials(count, seed) } else { values(count, seed) };
                let buffers = [
                    bytes(&data(rows * n, 3)),
                    bytes(&values(n, 4)),
                    vec![0; rows * n * 4],
                    vec![0; rows * 4],
                ];
                compare(&kernel, &[n as i64], count, &buffers, &format!("{n} columns"));
            }
        }
    }
}

/// Softmax over k of x[i, k, j], times the sum over k of the squares of w[k], and the largest element.
fn column_kernel(rows: usize, width: Size, matrix: Size, points: Size) -> LoopKernel {
    let cube = Access { strides: vec![(0, matrix), (1, Const(1)), (2, width)], ..Access::default() };
    let plane = Access { strides: vec![(0, width), (1, Const(1))], ..Access::default() };
    let reduction = |function, value| Reduction { function, value };
    let mut first = Dag::default();
    let x = load(&mut first, 0, DType::F32, cube.clone());
    let w = load(&mut first, 1, DType::F32, access(&[(2, 1)]));
    let square = first.binary(BinaryFn::Mul, w, w);
    let reductions = vec![reduction(ReduceFn::Max, x), reduction(ReduceFn::Sum, square)];
    let first = Stage { inner: vec![points], dag: first, reductions, stores: vec![] };
    let mut second = Dag::default();
    let x = load(&mut second, 0, DType::F32, cube.clone());
    let max = second.push(Expr::Reduced(0), DType::F32);
    let centred = second.binary(BinaryFn::Sub, x, max);
    let e = second.unary(UnaryFn::Exp, centred);
    let reductions = vec![reduction(ReduceFn::Sum, e)];
    let stores = vec![store(2, cube.clone(), e)];
    let second = Stage { inner: vec![points], dag: second, reductions, stores };
    let mut third = Dag::default();
    let e = load(&mut third, 2, DType::F32, cube.clone());
    let sum = third.push(Expr::Reduced(2), DType::F32);
    let scale = third.push(Expr::Reduced(1), DType::F32);
    let y = third.binary(BinaryFn::Div, e, sum);
    let y = third.binary(BinaryFn::Mul, y, scale);
    let mut last = Dag::default();
    let max = last.push(Expr::Reduced(0), DType::F32);
    let third = stage(vec![points], third, vec![store(2, cube, y)]);
    LoopKernel {
        args: [false, false, true, true].map(|written| arg(DType::F32, written)).to_vec(),
        outer: vec![Const(rows as i64), width],
        items: 1,
        stages: vec![first, second, third, stage(vec![], last, vec![store(3, plane, max)])],
        vectorize: Vectorize::Outer,
    }
}

#[test]
fn reductions_of_columns() {
    for n in [0, 1, 3, 15, 16, 17, 31, 33, 64, 65, 127, 130] {
        // A few known points are unrolled: that is a window.
        for (k, symbolic) in [(70usize, false), (70, true), (0, true), (1, true), (5, true)] {
            let rows = 3usize;
            let mut sizes = Sizes { symbolic, params: Vec::new() };
            let kernel = column_kernel(rows, sizes.size(n), sizes.size(k * n), sizes.size(k));
            let buffers = [
                bytes(&specials(rows * k * n, 3)),
                bytes(&values(k, 4)),
                vec![0; rows * k * n * 4],
                vec![0; rows * n * 4],
            ];
            compare(&kernel, &sizes.params, rows as i64, &buffers, &format!("{k} × {n}"));
        }
    }
}

#[test]
fn only_wide_targets_have_wide_code() {
    let kernel = row_kernel(Const(50), Const(4), 1);
    for name in ["x86-64-v2", "x86-64-v3", "x86-64-v4", "x86-64-amx", "aarch64", "riscv64"] {
        let profile = Profile::by_name(name).unwrap();
        let text = asm_text(&plan(KernelDesc::Loop(kernel.clone())), 0, &profile).unwrap();
        assert_eq!(text.contains("%zmm"), profile.vector_bits >= 512, "{name}");
    }
}
