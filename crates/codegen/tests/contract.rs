//! Contractions against plain loops that add in the same order: bit by bit, on every level of this machine.

mod common;
mod contraction;

use common::{access, arg, bytes, load, store, typed, values};
use contraction::{items, run, scalar};
use rabot_codegen::{CodegenError, KernelError, asm_text, compile_jit};
use rabot_kernel::{
    Access, Arg, BinaryFn, ContractKernel, Dag, Expr, ExprId, KernelDesc, Operand, PackSource, Size, Tile,
    UnaryFn, pack_f32, pack_half, pack_i16,
};
use rabot_target::Profile;
use rabot_tensor::DType;

/// Every level of this machine, and none.
fn levels() -> Vec<Profile> {
    common::levels().into_iter().chain([scalar()]).collect()
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Packed,
    /// Terms adjacent.
    Terms,
    /// Rows of A or columns of B adjacent.
    Lines,
    /// Neither.
    Apart,
}

const LAYOUTS: [Layout; 4] = [Layout::Packed, Layout::Terms, Layout::Lines, Layout::Apart];

/// What is done to the accumulator.
#[derive(Clone, Copy, Debug, PartialEq)]
enum After {
    Nothing,
    /// Bias per row, then the larger of that and 0.
    RowBiasRelu,
    /// Bias per column.
    ColumnBias,
    /// Added to a matrix of the result's shape; the result is written by columns.
    ResidualTransposed,
    Sigmoid,
    /// A function of it.
    Unary(UnaryFn),
    /// A function of it and of an element per column.
    Binary(BinaryFn),
    /// 1 less than it where it is less than an element per column, else that element.
    Decided,
    /// Kept within -1 and 6.
    Kept,
}

const AFTER: [After; 5] =
    [After::Nothing, After::RowBiasRelu, After::ColumnBias, After::ResidualTransposed, After::Sigmoid];

#[derive(Clone, Debug)]
struct Problem {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    a: Layout,
    b: Layout,
    /// Sizes and strides are parameters.
    symbolic: bool,
    /// All matrices of the batch share B.
    shared: bool,
    after: After,
    tile: Tile,
}

fn tile(mr: usize, nr: usize, rows: usize, columns: usize) -> Tile {
    Tile { mr, nr, rows: rows * mr, columns: columns * nr }
}

/// Sizes, as constants or as parameters.
struct Sizes {
    symbolic: bool,
    params: Vec<i64>,
}

impl Sizes {
    fn size(&mut self, value: usize) -> Size {
        if !self.symbolic {
            return Size::Const(value as i64);
        }
        self.params.push(value as i64);
        Size::Param(self.params.len() - 1)
    }
}

/// An operand made of the elements that `value(batch, line, term)` gives: its buffer and its description.
struct Made {
    buffer: Vec<u8>,
    operand: Operand,
    dtype: DType,
}

/// Elements of a matrix operand, and how they become bytes.
struct Elements<'a> {
    batch: usize,
    lines: usize,
    k: usize,
    dtype: DType,
    zero_point: i32,
    /// Bytes of an element.
    value: &'a dyn Fn(usize, usize, usize) -> Vec<u8>,
    shared: bool,
}

fn make(sizes: &mut Sizes, number: usize, layout: Layout, panel: usize, e: &Elements) -> Made {
    let (lines, k) = (e.lines, e.k);
    let (outer, term, matrix) = match layout {
        Layout::Packed | Layout::Terms => (k, 1, lines * k),
        Layout::Lines => (1, lines, lines * k),
        Layout::Apart => (3, lines * 3 + 5, (lines * 3 + 5) * k + 7),
    };
    let width = e.dtype.size_bytes();
    let stored = if e.shared { 1 } else { e.batch };
    let mut buffer = Vec::new();
    for (batch, line, t) in
        (0..stored).flat_map(|b| (0..lines).flat_map(move |l| (0..k).map(move |t| (b, l, t))))
    {
        let at = (batch * matrix + line * outer + t * term) * width;
        if buffer.len() < at + width {
            buffer.resize(at + width, 0xff);
        }
        buffer[at..at + width].copy_from_slice(&(e.value)(batch, line, t));
    }
    if layout != Layout::Packed {
        let batch = vec![sizes.size(if e.shared { 0 } else { matrix })];
        let (outer, k) = match layout {
            Layout::Terms => (sizes.size(outer), Size::Const(1)),
            Layout::Lines => (Size::Const(1), sizes.size(term)),
            _ => (sizes.size(outer), sizes.size(term)),
        };
        let (offset, zero_point) = (Size::Const(0), e.zero_point);
        return Made {
            buffer,
            operand: Operand::Strided { arg: number, offset, batch, outer, k, zero_point },
            dtype: e.dtype,
        };
    }
    let source = PackSource {
        bytes: &buffer,
        dtype: e.dtype,
        offset: 0,
        batch: stored,
        batch_stride: matrix,
        outer: lines,
        outer_stride: outer,
        k,
        k_stride: term,
    };
    let (packed, dtype, terms) = match e.dtype {
        DType::I8 | DType::U8 => {
            (pack_i16(&source, panel, &[e.zero_point]).unwrap().to_vec(), DType::I16, k.next_multiple_of(2))
        }
        DType::F16 | DType::BF16 if number == 1 => (pack_half(&source, panel).unwrap().to_vec(), e.dtype, k),
        _ => (pack_f32(&source, panel).unwrap().to_vec(), DType::F32, k),
    };
    let matrix = lines.next_multiple_of(panel) * terms;
    let batch = vec![sizes.size(if e.shared { 0 } else { matrix })];
    Made { buffer: packed, operand: Operand::Packed { arg: number, batch }, dtype }
}

fn epilogue(after: After, dtype: DType, sizes: &mut Sizes, m: usize, n: usize) -> (Dag, ExprId, Access) {
    let mut dag = Dag::default();
    let sum = dag.push(Expr::Accumulator, dtype);
    let by_row = Access {
        strides: vec![(0, sizes.size(m * n)), (1, sizes.size(n)), (2, Size::Const(1))],
        ..Access::default()
    };
    let value = match after {
        After::Nothing => sum,
        After::RowBiasRelu => {
            let bias = load(&mut dag, 2, DType::F32, access(&[(1, 1)]));
            let sum = dag.binary(BinaryFn::Add, sum, bias);
            let zero = dag.constant(DType::F32, 0.0);
            dag.binary(BinaryFn::Max, sum, zero)
        }
        After::ColumnBias => {
            let bias = load(&mut dag, 2, DType::F32, access(&[(2, 1)]));
            dag.binary(BinaryFn::Add, sum, bias)
        }
        After::ResidualTransposed => {
            let other = load(&mut dag, 2, DType::F32, by_row.clone());
            dag.binary(BinaryFn::Add, sum, other)
        }
        After::Sigmoid => dag.unary(UnaryFn::Sigmoid, sum),
        After::Unary(function) => dag.unary(function, sum),
        After::Binary(function) => {
            let other = load(&mut dag, 2, DType::F32, access(&[(2, 1)]));
            dag.binary(function, sum, other)
        }
        After::Decided => {
            let other = load(&mut dag, 2, DType::F32, access(&[(2, 1)]));
            let (less, nan) = (dag.binary(BinaryFn::Lt, sum, other), dag.unary(UnaryFn::IsNaN, sum));
            let (decided, one) = (dag.binary(BinaryFn::Or, less, nan), dag.constant(DType::F32, 1.0));
            let lower = dag.binary(BinaryFn::Sub, sum, one);
            dag.select(decided, lower, other)
        }
        After::Kept => {
            let (low, high) = (dag.constant(DType::F32, -1.0), dag.constant(DType::F32, 6.0));
            let value = dag.binary(BinaryFn::Max, sum, low);
            dag.binary(BinaryFn::Min, value, high)
        }
    };
    let by_column = Access {
        strides: vec![(0, sizes.size(m * n)), (2, sizes.size(m)), (1, Size::Const(1))],
        ..Access::default()
    };
    (dag, value, if after == After::ResidualTransposed { by_column } else { by_row })
}

/// The kernel of a problem with the given operands, its parameters and its result as bytes.
fn compute(
    p: &Problem,
    profile: &Profile,
    accumulator: DType,
    operands: [&Elements; 2],
    other: &[f32],
) -> (ContractKernel, Vec<u8>) {
    let mut sizes = Sizes { symbolic: p.symbolic, params: Vec::new() };
    let a = make(&mut sizes, 0, p.a, p.tile.mr, operands[0]);
    let b = make(&mut sizes, 1, p.b, p.tile.nr, operands[1]);
    let (epilogue, value, to) = epilogue(p.after, accumulator, &mut sizes, p.m, p.n);
    let args: Vec<Arg> =
        vec![arg(a.dtype, false), arg(b.dtype, false), arg(DType::F32, false), arg(accumulator, true)];
    let kernel = ContractKernel {
        args,
        batch: vec![sizes.size(p.batch)],
        m: sizes.size(p.m),
        n: sizes.size(p.n),
        k: sizes.size(p.k),
        a: a.operand,
        b: b.operand,
        accumulator,
        epilogue,
        line: None,
        stores: vec![store(3, to, value)],
        tile: p.tile,
        tiles: None,
        keeps_b: false,
    };
    let result = vec![0u8; p.batch * p.m * p.n * 4];
    let buffers = [a.buffer, b.buffer, bytes(other), result];
    let items = items(&kernel, p.batch, p.m, p.n);
    let out = run(&kernel, profile, &sizes.params, items, p.k, &buffers);
    (kernel, out)
}

/// Elements of A and B of a problem in f32.
struct Floats {
    a: Vec<f32>,
    b: Vec<f32>,
    other: Vec<f32>,
}

impl Floats {
    fn new(p: &Problem) -> Floats {
        Floats {
            a: values(p.batch * p.m * p.k, 1),
            b: values(p.batch * p.n * p.k, 2),
            other: values((p.batch * p.m * p.n).max(p.m).max(p.n), 3),
        }
    }

    fn b_at(&self, p: &Problem, batch: usize, column: usize, k: usize) -> f32 {
        let batch = if p.shared { 0 } else { batch };
        self.b[(batch * p.n + column) * p.k + k]
    }

    fn expected(&self, p: &Problem, fma: bool) -> Vec<f32> {
        let mut out = vec![0.0; p.batch * p.m * p.n];
        for (batch, i, j) in points(p) {
            // Chains of 256 terms, which are added up.
            let chain = |first: usize| {
                (first..p.k.min(first + 256)).fold(0f32, |sum, k| {
                    let (a, b) = (self.a[(batch * p.m + i) * p.k + k], self.b_at(p, batch, j, k));
                    if fma { a.mul_add(b, sum) } else { sum + a * b }
                })
            };
            let sum = (0..p.k).step_by(256).fold(0f32, |sum, first| sum + chain(first));
            let at = (batch * p.m + i) * p.n + j;
            let (value, at) = match p.after {
                After::Nothing => (sum, at),
                After::RowBiasRelu => ((sum + self.other[i]).max(0.0), at),
                After::ColumnBias => (sum + self.other[j], at),
                After::ResidualTransposed => (sum + self.other[at], (batch * p.n + j) * p.m + i),
                After::Sigmoid => (1.0 / (1.0 + (-sum).exp()), at),
                other => unreachable!("{other:?} is compared among tiles"),
            };
            out[at] = value;
        }
        out
    }
}

fn points(p: &Problem) -> impl Iterator<Item = (usize, usize, usize)> {
    let (batch, m, n) = (p.batch, p.m, p.n);
    (0..batch).flat_map(move |b| (0..m).flat_map(move |i| (0..n).map(move |j| (b, i, j))))
}

fn check(p: &Problem, profile: &Profile) {
    let data = Floats::new(p);
    let a = |batch: usize, i: usize, k: usize| data.a[(batch * p.m + i) * p.k + k].to_le_bytes().to_vec();
    let b = |batch: usize, j: usize, k: usize| data.b_at(p, batch, j, k).to_le_bytes().to_vec();
    let elements = |value, lines, shared| Elements {
        batch: p.batch,
        lines,
        k: p.k,
        dtype: DType::F32,
        zero_point: 0,
        value,
        shared,
    };
    let (_, out) = compute(
        p,
        profile,
        DType::F32,
        [&elements(&a, p.m, false), &elements(&b, p.n, p.shared)],
        &data.other,
    );
    let (got, expected) = (typed::<f32>(&out), data.expected(p, profile.fma));
    for (at, (got, expected)) in got.iter().zip(&expected).enumerate() {
        let close = match p.after {
            After::Sigmoid => (got - expected).abs() < 1e-6,
            _ => got == expected,
        };
        assert!(close, "{}: {at}: {got} is not {expected}: {p:?}", profile.name);
    }
}

/// A deterministic choice.
struct Choice(u64);

impl Choice {
    fn of<T: Clone>(&mut self, from: &[T]) -> T {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        from[(self.0 >> 33) as usize % from.len()].clone()
    }
}

fn random_problem(choice: &mut Choice) -> Problem {
    let tile = choice.of(&[
        tile(12, 4, 1, 1),
        tile(12, 4, 2, 10),
        tile(6, 8, 3, 4),
        tile(8, 12, 1, 3),
        tile(5, 4, 1, 8),
        tile(14, 32, 1, 2),
        tile(9, 48, 2, 1),
        tile(24, 16, 1, 3),
        tile(3, 16, 2, 4),
    ]);
    let lines = |panel: usize| [1, 2, panel - 1, panel, panel + 1, 2 * panel, 3 * panel + 1, 61];
    Problem {
        batch: choice.of(&[1, 1, 2, 3]),
        m: choice.of(&lines(tile.mr)),
        n: choice.of(&lines(tile.nr)),
        k: choice.of(&[1, 2, 3, 4, 5, 7, 8, 16, 33, 255, 257, 515]),
        a: choice.of(&LAYOUTS),
        b: choice.of(&LAYOUTS),
        symbolic: choice.of(&[false, true]),
        shared: choice.of(&[false, true]),
        after: choice.of(&AFTER),
        tile,
    }
}

/// Numbers at which functions change their ways.
fn special() -> Vec<f32> {
    let near = [
        0.0, 1e-45, 1e-38, 1e-30, 1e-4, 0.3, 0.625, 0.9277344, 1.0, 1.5, 2.0, 4.0, 9.0, 30.5, 87.3, 88.72284,
    ];
    let far = [90.0, 103.9, 1e6, 8388608.5, 1e20, f32::MAX, f32::INFINITY];
    let all = near.into_iter().chain(far);
    let signed: Vec<f32> = all.flat_map(|x| [x, -x]).collect();
    signed.into_iter().chain([f32::NAN]).chain(values(64, 7)).collect()
}

/// What `after` gives for each special number and each number of a column.
fn special_results(profile: &Profile, after: After, tile: Tile) -> Vec<f32> {
    let rows = special();
    let columns: Vec<f32> = rows.iter().rev().copied().collect();
    let (m, n) = (rows.len(), columns.len());
    let (a, b) = (Layout::Packed, Layout::Lines);
    let problem = Problem { batch: 1, m, n, k: 1, a, b, symbolic: false, shared: false, after, tile };
    let a = |_: usize, i: usize, _: usize| rows[i].to_le_bytes().to_vec();
    let b = |_: usize, _: usize, _: usize| 1f32.to_le_bytes().to_vec();
    let elements = |value, lines| Elements {
        batch: 1,
        lines,
        k: 1,
        dtype: DType::F32,
        zero_point: 0,
        value,
        shared: false,
    };
    let operands = [&elements(&a, m), &elements(&b, n)];
    typed::<f32>(&compute(&problem, profile, DType::F32, operands, &columns).1)
}

#[test]
fn functions_have_the_same_bits_on_wide_tiles() {
    use {BinaryFn as B, UnaryFn as U};
    let unary = [
        [U::Abs, U::Neg, U::Sqrt, U::Reciprocal, U::Exp, U::Log, U::Tanh],
        [U::Sigmoid, U::Erf, U::Floor, U::Ceil, U::Round, U::Sin, U::Cos],
    ];
    let binary = [B::Add, B::Sub, B::Mul, B::Div, B::Min, B::Max, B::Pow];
    let all = unary.concat().into_iter().map(After::Unary).chain(binary.map(After::Binary));
    for after in all.chain([After::Decided, After::Kept]) {
        for profile in levels() {
            let narrow = special_results(&profile, after, tile(12, 4, 1, 1));
            for wide in [tile(14, 32, 1, 2), tile(24, 16, 1, 1)] {
                let wide = special_results(&profile, after, wide);
                let same = |(a, b): (&f32, &f32)| a.to_bits() == b.to_bits() || (a.is_nan() && b.is_nan());
                let wrong = wide.iter().zip(&narrow).position(|pair| !same(pair));
                assert_eq!(wrong, None, "{}: {after:?}", profile.name);
            }
        }
    }
}

#[test]
fn f32_products_add_in_the_order_of_k_by_chains() {
    let mut choice = Choice(1);
    for _ in 0..200 {
        let problem = random_problem(&mut choice);
        levels().iter().for_each(|profile| check(&problem, profile));
    }
}

#[test]
fn every_layout_of_both_operands() {
    for (a, b) in LAYOUTS.iter().flat_map(|a| LAYOUTS.map(|b| (*a, b))) {
        for symbolic in [false, true] {
            let (after, tile) = (After::ColumnBias, tile(12, 4, 2, 4));
            let p = Problem { batch: 2, m: 29, n: 39, k: 19, a, b, symbolic, shared: false, after, tile };
            levels().iter().for_each(|profile| check(&p, profile));
        }
    }
}

#[test]
fn few_rows_take_several_panels_at_once() {
    for (m, n) in [1, 2, 3, 4].into_iter().flat_map(|m| [31, 32, 33, 64, 70].map(|n| (m, n))) {
        for (symbolic, a) in [(false, Layout::Terms), (true, Layout::Terms), (false, Layout::Packed)] {
            for b in [Layout::Packed, Layout::Lines] {
                let (after, tile) = (After::RowBiasRelu, tile(12, 4, 1, 17));
                let p = Problem { batch: 1, m, n, k: 9, a, b, symbolic, shared: false, after, tile };
                levels().iter().for_each(|profile| check(&p, profile));
            }
        }
    }
}

#[test]
fn empty_extents() {
    for (m, n, k) in [(0, 5, 3), (5, 0, 3), (5, 6, 0), (0, 0, 0)] {
        for (symbolic, layout) in [false, true].into_iter().flat_map(|s| LAYOUTS.map(|l| (s, l))) {
            let (after, tile) = (After::Nothing, tile(6, 8, 1, 1));
            let p = Problem { batch: 1, m, n, k, a: layout, b: layout, symbolic, shared: false, after, tile };
            levels().iter().for_each(|profile| check(&p, profile));
        }
    }
}

#[test]
fn bits_do_not_depend_on_the_tile() {
    for profile in levels() {
        let mut seen: Option<Vec<u8>> = None;
        for tile in [tile(12, 4, 1, 1), tile(6, 8, 2, 3), tile(1, 4, 7, 5), tile(16, 16, 1, 1)] {
            let (a, b, after) = (Layout::Terms, Layout::Lines, After::Sigmoid);
            let p =
                Problem { batch: 1, m: 23, n: 27, k: 31, a, b, symbolic: false, shared: false, after, tile };
            let data = Floats::new(&p);
            let a = |_: usize, i: usize, k: usize| data.a[i * p.k + k].to_le_bytes().to_vec();
            let b = |_: usize, j: usize, k: usize| data.b[j * p.k + k].to_le_bytes().to_vec();
            let elements = |value, lines| Elements {
                batch: 1,
                lines,
                k: p.k,
                dtype: DType::F32,
                zero_point: 0,
                value,
                shared: false,
            };
            let (_, out) =
                compute(&p, &profile, DType::F32, [&elements(&a, p.m), &elements(&b, p.n)], &data.other);
            assert!(*seen.get_or_insert_with(|| out.clone()) == out, "{}: {tile:?}", profile.name);
        }
    }
}

#[test]
fn not_a_number_and_infinity_stay_where_they_belong() {
    for profile in levels() {
        for (a_layout, b_layout) in [(Layout::Terms, Layout::Packed), (Layout::Packed, Layout::Terms)] {
            let (after, tile) = (After::Nothing, tile(12, 4, 1, 2));
            let (m, n, k) = (14, 9, 5);
            let p = Problem {
                batch: 1,
                m,
                n,
                k,
                a: a_layout,
                b: b_layout,
                symbolic: false,
                shared: false,
                after,
                tile,
            };
            // Row 12 of A holds a NaN, column 8 of B an infinity: both in cut tiles.
            let a = |_: usize, i: usize, t: usize| {
                (if (i, t) == (12, 3) { f32::NAN } else { 1.0 }).to_le_bytes().to_vec()
            };
            let b = |_: usize, j: usize, t: usize| {
                (if (j, t) == (8, 4) { f32::INFINITY } else { 1.0 }).to_le_bytes().to_vec()
            };
            let elements = |value, lines| Elements {
                batch: 1,
                lines,
                k,
                dtype: DType::F32,
                zero_point: 0,
                value,
                shared: false,
            };
            let (_, out) =
                compute(&p, &profile, DType::F32, [&elements(&a, m), &elements(&b, n)], &[0.0; 14]);
            for (at, value) in typed::<f32>(&out).into_iter().enumerate() {
                match (at / n, at % n) {
                    (12, _) => assert!(value.is_nan()),
                    (_, 8) => assert_eq!(value, f32::INFINITY),
                    _ => assert_eq!(value, k as f32),
                }
            }
        }
    }
}

#[test]
fn half_floats_are_widened_on_the_way_in() {
    for (profile, dtype) in levels().iter().flat_map(|p| [(p, DType::F16), (p, DType::BF16)]) {
        for (a_layout, b_layout) in LAYOUTS.iter().flat_map(|a| LAYOUTS.map(|b| (*a, b))) {
            let (after, tile) = (After::Nothing, tile(12, 4, 1, 2));
            let (m, n, k) = (13, 11, 6);
            let p = Problem {
                batch: 1,
                m,
                n,
                k,
                a: a_layout,
                b: b_layout,
                symbolic: false,
                shared: false,
                after,
                tile,
            };
            let value = |i: usize, t: usize| ((i * 7 + t * 3) % 23) as f32 * 0.25 - 2.5;
            let bits = |v: f32| match dtype {
                DType::F16 => half::f16::from_f32(v).to_le_bytes().to_vec(),
                _ => half::bf16::from_f32(v).to_le_bytes().to_vec(),
            };
            let element = |_: usize, i: usize, t: usize| bits(value(i, t));
            let elements =
                |lines| Elements { batch: 1, lines, k, dtype, zero_point: 0, value: &element, shared: false };
            let (_, out) = compute(&p, profile, DType::F32, [&elements(m), &elements(n)], &[0.0; 13]);
            for (at, got) in typed::<f32>(&out).into_iter().enumerate() {
                let expected: f32 = (0..k).map(|t| value(at / n, t) * value(at % n, t)).sum();
                assert_eq!(got, expected, "{}: {dtype} {a_layout:?} {b_layout:?}", profile.name);
            }
        }
    }
}

#[test]
fn integers_are_exact() {
    let mut choice = Choice(7);
    for _ in 0..120 {
        let mut p = random_problem(&mut choice);
        p.after = After::Nothing;
        let dtypes = [choice.of(&[DType::I8, DType::U8]), choice.of(&[DType::I8, DType::U8])];
        let zero_points =
            dtypes.map(|d| choice.of(if d == DType::I8 { &[-128, 0, 127] } else { &[0, 128, 255] }));
        // Extremes more often than not.
        let element = |which: usize, index: usize| {
            [0x80u8, 0x7f, 0xff, 0, index as u8][(index.wrapping_mul(2654435761) >> (5 + which)) % 5]
        };
        let a = |batch: usize, i: usize, k: usize| vec![element(0, (batch * p.m + i) * p.k + k)];
        let b = |batch: usize, j: usize, k: usize| vec![element(1, (batch * p.n + j) * p.k + k)];
        let number = |which: usize, byte: u8| {
            let value = if dtypes[which] == DType::I8 { i32::from(byte as i8) } else { i32::from(byte) };
            value - zero_points[which]
        };
        let sides = [(&a as &dyn Fn(usize, usize, usize) -> Vec<u8>, p.m, false), (&b, p.n, p.shared)];
        let elements: Vec<Elements> = (0..2)
            .map(|which| {
                let (value, lines, shared) = sides[which];
                let (dtype, zero_point) = (dtypes[which], zero_points[which]);
                Elements { batch: p.batch, lines, k: p.k, dtype, zero_point, value, shared }
            })
            .collect();
        for profile in levels() {
            let (_, out) = compute(&p, &profile, DType::I32, [&elements[0], &elements[1]], &[0.0; 61]);
            let got = typed::<i32>(&out);
            for ((batch, i, j), got) in points(&p).zip(got) {
                let b_batch = if p.shared { 0 } else { batch };
                let expected: i32 =
                    (0..p.k).map(|k| number(0, a(batch, i, k)[0]) * number(1, b(b_batch, j, k)[0])).sum();
                assert_eq!(got, expected, "{}: {dtypes:?} {zero_points:?} {p:?}", profile.name);
            }
        }
    }
}

#[test]
fn code_for_other_machines() {
    for name in ["aarch64", "riscv64", "x86-64-v2", "x86-64-v4", "x86-64-amx"] {
        let profile = Profile::by_name(name).unwrap();
        let wide = profile.vector_bits >= 512;
        for (a, b) in LAYOUTS.iter().flat_map(|a| LAYOUTS.map(|b| (*a, b))) {
            for dtype in [DType::F32, DType::U8] {
                let mut sizes = Sizes { symbolic: true, params: Vec::new() };
                let value = |_: usize, _: usize, _: usize| vec![0; dtype.size_bytes()];
                let tile = if wide { tile(8, 16, 2, 2) } else { tile(8, 8, 2, 2) };
                let e =
                    Elements { batch: 1, lines: 9, k: 5, dtype, zero_point: 3, value: &value, shared: false };
                let (a, b) = (make(&mut sizes, 0, a, tile.mr, &e), make(&mut sizes, 1, b, tile.nr, &e));
                let accumulator = if dtype == DType::F32 { DType::F32 } else { DType::I32 };
                let (epilogue, value, to) = epilogue(After::Nothing, accumulator, &mut sizes, 9, 9);
                let kernel = ContractKernel {
                    args: vec![
                        arg(a.dtype, false),
                        arg(b.dtype, false),
                        arg(DType::F32, false),
                        arg(accumulator, true),
                    ],
                    batch: vec![Size::Const(1)],
                    m: sizes.size(9),
                    n: sizes.size(9),
                    k: sizes.size(5),
                    a: a.operand,
                    b: b.operand,
                    accumulator,
                    epilogue,
                    line: None,
                    stores: vec![store(3, to, value)],
                    tile,
                    tiles: None,
                    keeps_b: false,
                };
                let text = asm_text(&common::plan(KernelDesc::Contract(kernel)), 0, &profile).unwrap();
                assert!(!text.is_empty());
                // Leaves, which only f32 has.
                assert_eq!(text.contains("%zmm"), wide && dtype == DType::F32, "{name} {dtype}");
            }
        }
    }
}

#[test]
fn what_cannot_be_compiled_is_an_error() {
    let profile = &levels()[0];
    let (a, b, after, tile) = (Layout::Terms, Layout::Terms, After::Nothing, tile(12, 4, 1, 1));
    let p = Problem { batch: 1, m: 2, n: 2, k: 2, a, b, symbolic: false, shared: false, after, tile };
    let value = |_: usize, _: usize, _: usize| vec![0; 4];
    let e =
        Elements { batch: 1, lines: 2, k: 2, dtype: DType::F32, zero_point: 0, value: &value, shared: false };
    let (kernel, _) = compute(&p, profile, DType::F32, [&e, &e], &[0.0; 2]);
    let error = |change: &dyn Fn(&mut ContractKernel)| {
        let mut kernel = kernel.clone();
        change(&mut kernel);
        let error = compile_jit(&common::plan(KernelDesc::Contract(kernel)), profile).unwrap_err();
        let CodegenError::Kernel { reason, .. } = error else { panic!("{error}") };
        reason
    };
    let reason = error(&|kernel| kernel.accumulator = DType::F64);
    assert!(matches!(reason, KernelError::DType { dtype: DType::F64, .. }), "{reason}");
    let reason = error(&|kernel| kernel.args[0].dtype = DType::I64);
    assert!(matches!(reason, KernelError::DType { dtype: DType::I64, .. }), "{reason}");
    let reason = error(&|kernel| kernel.tile.rows = 13);
    assert!(matches!(reason, KernelError::Inconsistent(_)), "{reason}");
    let reason = error(&|kernel| kernel.batch = vec![]);
    assert!(matches!(reason, KernelError::Inconsistent(_)), "{reason}");
}
