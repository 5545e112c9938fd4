//! Contractions on the tile unit against sums in f64: no farther from them than a chain of multiply-adds in f32 may be.

mod common;
mod contraction;

use common::{access, arg, bytes, load, store, typed, values};
use contraction::run_in;
use rabot_codegen::{asm_text, compile_jit};
use rabot_ir::Dim;
use rabot_kernel::{
    Access, BinaryFn, ContractKernel, Dag, Expr, KernelDesc, Operand, PackSource, Patches, Size, Tile, Tiles,
    pack_tiles_a, pack_tiles_b, scratch_bytes, tile_scratch_bytes,
};
use rabot_target::Profile;
use rabot_tensor::DType;

/// The profile with a tile unit, if this machine has one.
fn profile() -> Option<Profile> {
    let profile = Profile::by_name("x86-64-amx").unwrap();
    match profile.runs_here() {
        Ok(()) => Some(profile),
        Err(error) => {
            eprintln!("skipped: {error}");
            None
        }
    }
}

/// How an operand lies in memory.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Layout {
    Packed,
    /// Terms adjacent.
    Terms,
    /// Columns adjacent.
    Columns,
    /// Neither.
    Apart,
}

/// A batch of matrix products.
#[derive(Clone, Debug)]
struct Problem {
    batch: usize,
    m: usize,
    n: usize,
    k: usize,
    packed_a: bool,
    b: Layout,
    pieces: usize,
    symbolic: bool,
    rows: usize,
    columns: usize,
    least_rows: usize,
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

fn source(bytes: &[u8], batch: usize, outer: usize, k: usize) -> PackSource<'_> {
    PackSource {
        bytes,
        dtype: DType::F32,
        offset: 0,
        batch,
        batch_stride: outer * k,
        outer,
        outer_stride: k,
        k,
        k_stride: 1,
    }
}

/// How far a sum may be from the exact one: `magnitude` is that of its terms.
fn tolerance(pieces: usize, k: usize, magnitude: f64) -> f64 {
    let unit = match pieces {
        3 => 2f64.powi(-24) * (4.0 + (k as f64).sqrt()),
        2 => 2f64.powi(-15),
        _ => 2f64.powi(-7),
    };
    unit * magnitude + f64::from(f32::MIN_POSITIVE)
}

impl Problem {
    fn of_matrices([m, n, k]: [usize; 3], packed_a: bool, b: Layout) -> Self {
        let symbolic = false;
        Problem { batch: 1, m, n, k, packed_a, b, pieces: 3, symbolic, rows: 32, columns: 32, least_rows: 0 }
    }

    /// The kernel, its parameters, and B as it lies in memory. Elements of A and B are given row by row, terms adjacent.
    // tidy: long, because a kernel is described with its operands.
    fn kernel(&self, a: &[f32], b: &[f32]) -> (ContractKernel, Vec<i64>, [Vec<u8>; 2]) {
        let mut sizes = Sizes { symbolic: self.symbolic, params: vec![] };
        let (batch, m, n, k) = (self.batch, self.m, self.n, self.k);
        let blocks = k.div_ceil(32) * self.pieces * 512;
        let a_bytes = bytes(a);
        let (left, a_buffer) = if self.packed_a {
            let stride = sizes.size(m.div_ceil(16) * blocks);
            let packed = pack_tiles_a(&source(&a_bytes, batch, m, k), self.pieces, 1).unwrap().to_vec();
            (Operand::Packed { arg: 0, batch: vec![stride] }, packed)
        } else {
            let (batch, outer) = (vec![sizes.size(m * k)], sizes.size(k));
            let k = Size::Const(1);
            (Operand::Strided { arg: 0, offset: Size::Const(0), batch, outer, k, zero_point: 0 }, a_bytes)
        };
        let (outer, term, matrix) = match self.b {
            Layout::Packed | Layout::Terms => (k, 1, n * k),
            Layout::Columns => (1, n, n * k),
            Layout::Apart => (3, n * 3 + 5, (n * 3 + 5) * k + 7),
        };
        let (right, b_buffer) = if self.b == Layout::Packed {
            let stride = sizes.size(n.div_ceil(32) * k.div_ceil(32) * 1024);
            let packed = pack_tiles_b(&source(&bytes(b), batch, n, k)).unwrap().to_vec();
            (Operand::Packed { arg: 1, batch: vec![stride] }, packed)
        } else {
            let mut at = vec![f32::NAN; (matrix * (batch - 1) + (n - 1) * outer + k.max(1) * term).max(1)];
            for (index, value) in b.iter().enumerate() {
                at[index / (n * k) * matrix + index / k % n * outer + index % k * term] = *value;
            }
            let strides = vec![sizes.size(matrix)];
            let outer = if outer == 1 { Size::Const(1) } else { sizes.size(outer) };
            let k = sizes.size(term);
            (
                Operand::Strided { arg: 1, offset: Size::Const(0), batch: strides, outer, k, zero_point: 0 },
                bytes(&at),
            )
        };
        let mut epilogue = Dag::default();
        let sum = epilogue.push(Expr::Accumulator, DType::F32);
        let bias = load(&mut epilogue, 2, DType::F32, access(&[(2, 1)]));
        let value = epilogue.binary(BinaryFn::Add, sum, bias);
        let to = Access {
            strides: vec![(0, sizes.size(m * n)), (1, sizes.size(n)), (2, Size::Const(1))],
            ..Access::default()
        };
        let dtype = |packed: bool| if packed { DType::BF16 } else { DType::F32 };
        let kernel = ContractKernel {
            args: vec![
                arg(dtype(self.packed_a), false),
                arg(DType::F32, false),
                arg(DType::F32, false),
                arg(DType::F32, true),
            ],
            batch: vec![sizes.size(batch)],
            m: sizes.size(m),
            n: sizes.size(n),
            k: sizes.size(k),
            a: left,
            b: right,
            accumulator: DType::F32,
            epilogue,
            line: None,
            stores: vec![store(3, to, value)],
            tile: Tile {
                mr: if self.least_rows > 0 { 14 } else { 32 },
                nr: 32,
                rows: self.rows,
                columns: self.columns,
            },
            tiles: Some(Tiles { pieces: self.pieces, lines: 0, least_rows: self.least_rows }),
            keeps_b: false,
        };
        (kernel, sizes.params, [a_buffer, b_buffer])
    }

    fn run(&self, profile: &Profile, a: &[f32], b: &[f32]) -> Vec<f32> {
        let (kernel, params, [a, b]) = self.kernel(a, b);
        let bias = bytes(&vec![0f32; self.n]);
        let result = vec![0u8; self.batch * self.m * self.n * 4];
        let items = self.batch * self.m.div_ceil(self.rows) * self.n.div_ceil(self.columns);
        let k = Dim::from(self.k);
        let scratch = tile_scratch_bytes(&kernel, self.pieces, &k, &Dim::from(1));
        let scratch = scratch.maximum(&scratch_bytes(&kernel, &k)).as_usize().unwrap();
        typed(&run_in(&kernel, profile, &params, items as i64, scratch, &[a, b, bias, result]))
    }

    fn check(&self, profile: &Profile) {
        let (m, n, k) = (self.m, self.n, self.k);
        let (a, b) = (values(self.batch * m * k, 1), values(self.batch * n * k, 2));
        for (at, got) in self.run(profile, &a, &b).into_iter().enumerate() {
            let (matrix, row, column) = (at / (m * n), at / n % m, at % n);
            let terms = (0..k).map(|t| {
                f64::from(a[(matrix * m + row) * k + t]) * f64::from(b[(matrix * n + column) * k + t])
            });
            let magnitude: f64 = terms.clone().map(f64::abs).sum();
            let expected: f64 = terms.sum();
            let error = (f64::from(got) - expected).abs();
            let most = tolerance(self.pieces, k, magnitude);
            assert!(error <= most, "{at}: {got} is not {expected}, {error:e} more than {most:e}: {self:?}");
        }
    }
}

#[test]
fn products_of_matrices() {
    let Some(profile) = profile() else { return };
    let sizes = [1, 2, 15, 16, 17, 31, 32, 33, 70];
    let terms = [1, 2, 3, 31, 32, 33, 64, 100, 1024, 1025, 2100];
    let mut state = 7u64;
    let mut choose = |from: &[usize]| {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        from[(state >> 33) as usize % from.len()]
    };
    for round in 0..120 {
        let layouts = [Layout::Packed, Layout::Terms, Layout::Columns, Layout::Apart];
        let problem = Problem {
            batch: choose(&[1, 1, 2]),
            m: choose(&sizes),
            n: choose(&sizes),
            k: choose(&terms),
            packed_a: choose(&[0, 1]) == 1,
            b: layouts[choose(&[0, 1, 2, 3])],
            pieces: choose(&[3, 3, 2, 1]),
            symbolic: round % 2 == 1,
            rows: choose(&[32, 64]),
            columns: choose(&[32, 96]),
            least_rows: 0,
        };
        problem.check(&profile);
    }
}

#[test]
fn few_rows_go_to_the_vector_unit() {
    let Some(profile) = profile() else { return };
    for m in [0, 1, 3, 13, 14, 31, 47, 48, 49, 225, 300] {
        for [n, k] in [[1, 32], [33, 64], [300, 1056]] {
            let problem = Problem {
                symbolic: true,
                rows: 224,
                columns: 256,
                least_rows: 48,
                ..Problem::of_matrices([m, n, k], false, Layout::Packed)
            };
            problem.check(&profile);
        }
    }
}

#[test]
fn sums_of_nothing_are_zero() {
    let Some(profile) = profile() else { return };
    let problem = Problem { symbolic: true, ..Problem::of_matrices([3, 5, 0], false, Layout::Columns) };
    assert_eq!(problem.run(&profile, &[], &[]), [0.0; 15]);
}

#[test]
fn numbers_that_have_no_pieces_go_another_way() {
    let Some(profile) = profile() else { return };
    let quiet = f32::from_bits(0x7f80_0001);
    for special in [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, quiet, f32::MAX, 1e-40, 1e-30] {
        for (packed_a, b) in [(true, Layout::Columns), (false, Layout::Packed), (false, Layout::Terms)] {
            let (m, n, k) = (19, 35, 40);
            let problem = Problem { rows: 32, columns: 64, ..Problem::of_matrices([m, n, k], packed_a, b) };
            let scale = if special.abs() < 1e-20 { special } else { 1.0 };
            let (mut left, mut right) = (values(m * k, 1), values(n * k, 2));
            let changed = if packed_a { &mut right } else { &mut left };
            changed.iter_mut().for_each(|value| *value *= scale);
            changed[5 * k + 7] = special;
            let lines = |changed: bool, count: usize| if changed { vec![5] } else { (0..count).collect() };
            for (at, got) in problem.run(&profile, &left, &right).into_iter().enumerate() {
                let (row, column) = (at / n, at % n);
                let terms = (0..k).map(|t| left[row * k + t].mul_add(right[column * k + t], 0.0));
                let chain = (0..k).fold(0f32, |sum, t| left[row * k + t].mul_add(right[column * k + t], sum));
                let magnitude: f64 = terms.map(|term| f64::from(term.abs())).sum();
                let touched = lines(!packed_a, m).contains(&row) && lines(packed_a, n).contains(&column);
                if chain.is_finite() {
                    let error = (f64::from(got) - f64::from(chain)).abs();
                    assert!(error <= magnitude * 2f64.powi(-20), "{special:e}: {got:e} is not {chain:e}");
                } else {
                    assert!(
                        touched && (got == chain || got.is_nan() && chain.is_nan()),
                        "{special}: {got} {chain}"
                    );
                }
            }
        }
    }
}

/// A convolution of images; lists are per spatial axis.
#[derive(Clone, Debug)]
struct Conv {
    images: usize,
    channels: usize,
    rows: usize,
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
    pads_after: Vec<usize>,
    channels_last: bool,
    symbolic: bool,
    block: usize,
}

impl Conv {
    fn output(&self) -> Vec<usize> {
        let output = |axis: usize| {
            let window = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
            let padded = self.input[axis] + self.pads[axis] + self.pads_after[axis];
            if padded < window { 0 } else { (padded - window) / self.strides[axis] + 1 }
        };
        (0..self.input.len()).map(output).collect()
    }

    fn taps(&self) -> usize {
        self.kernel.iter().product()
    }

    fn pixels(&self) -> usize {
        self.input.iter().product()
    }

    /// Index of the element that a tap reads for an output position; none if it lies in the padding.
    fn source(&self, image: usize, channel: usize, mut tap: usize, mut column: usize) -> Option<usize> {
        let output = self.output();
        let (mut at, mut scale) = (0, if self.channels_last { self.channels } else { 1 });
        for axis in (0..self.input.len()).rev() {
            let place =
                column % output[axis] * self.strides[axis] + tap % self.kernel[axis] * self.dilations[axis];
            column /= output[axis];
            tap /= self.kernel[axis];
            at += place.checked_sub(self.pads[axis]).filter(|place| *place < self.input[axis])? * scale;
            scale *= self.input[axis];
        }
        let channel = channel * if self.channels_last { 1 } else { self.pixels() };
        Some(image * self.channels * self.pixels() + channel + at)
    }

    fn operand(&self, sizes: &mut Sizes) -> Operand {
        let scale = if self.channels_last { self.channels } else { 1 };
        let mut strides = vec![scale; self.input.len()];
        for axis in (0..self.input.len() - 1).rev() {
            strides[axis] = strides[axis + 1] * self.input[axis + 1];
        }
        let mut all =
            |values: &[usize]| -> Vec<Size> { values.iter().map(|value| sizes.size(*value)).collect() };
        let mut input_strides = all(&strides);
        if !self.channels_last
            && let Some(last) = input_strides.last_mut()
        {
            *last = Size::Const(1);
        }
        Operand::Patches(Patches {
            arg: 1,
            offset: Size::Const(0),
            batch: all(&[self.channels * self.pixels()]),
            channel: all(&[if self.channels_last { 1 } else { self.pixels() }])[0],
            input: all(&self.input),
            input_strides,
            output: all(&self.output()),
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads: all(&self.pads),
            zero_point: 0,
        })
    }

    // tidy: long, because a kernel is described, run and compared.
    fn check(&self, profile: &Profile) {
        let mut sizes = Sizes { symbolic: self.symbolic, params: vec![] };
        let output = self.output();
        let (columns, k) = (output.iter().product::<usize>(), self.channels * self.taps());
        let b = self.operand(&mut sizes);
        let mut epilogue = Dag::default();
        let sum = epilogue.push(Expr::Accumulator, DType::F32);
        let bias = load(&mut epilogue, 2, DType::F32, access(&[(1, 1)]));
        let value = epilogue.binary(BinaryFn::Add, sum, bias);
        let to = Access {
            strides: vec![
                (0, sizes.size(self.rows * columns)),
                (1, sizes.size(columns)),
                (2, Size::Const(1)),
            ],
            ..Access::default()
        };
        let lines = if output.len() == 2 { self.block } else { 0 };
        let kernel = ContractKernel {
            args: vec![
                arg(DType::BF16, false),
                arg(DType::F32, false),
                arg(DType::F32, false),
                arg(DType::F32, true),
            ],
            batch: vec![sizes.size(self.images)],
            m: Size::Const(self.rows as i64),
            n: sizes.size(columns),
            k: Size::Const(k as i64),
            a: Operand::Packed { arg: 0, batch: vec![Size::Const(0)] },
            b,
            accumulator: DType::F32,
            epilogue,
            line: None,
            stores: vec![store(3, to, value)],
            tile: Tile { mr: 32, nr: 32, rows: 32, columns: 32 * self.block },
            tiles: Some(Tiles { pieces: 3, lines, least_rows: 0 }),
            keeps_b: false,
        };
        let image = values(self.images * self.channels * self.pixels(), 1);
        let (weights, bias) = (values(self.rows * k, 2), values(self.rows, 3));
        let weight_bytes = bytes(&weights);
        let packed = pack_tiles_a(&source(&weight_bytes, 1, self.rows, k), 3, self.taps()).unwrap().to_vec();
        let blocks = if lines > 0 { output[0].div_ceil(lines) } else { columns.div_ceil(32 * self.block) };
        let items = self.images * self.rows.div_ceil(32) * blocks;
        let scratch = tile_scratch_bytes(&kernel, 3, &Dim::from(k), &Dim::from(output[output.len() - 1]));
        let buffers = [packed, bytes(&image), bytes(&bias), vec![0; self.images * self.rows * columns * 4]];
        let scratch = scratch.as_usize().unwrap();
        let out: Vec<f32> = typed(&run_in(&kernel, profile, &sizes.params, items as i64, scratch, &buffers));
        for (at, got) in out.into_iter().enumerate() {
            let (number, row, column) = (at / columns / self.rows, at / columns % self.rows, at % columns);
            let (mut expected, mut magnitude) = (f64::from(bias[row]), f64::from(bias[row].abs()));
            for term in 0..k {
                let (channel, tap) = (term / self.taps(), term % self.taps());
                let pixel = self.source(number, channel, tap, column).map_or(0.0, |index| image[index]);
                let product = f64::from(weights[row * k + term]) * f64::from(pixel);
                expected += product;
                magnitude += product.abs();
            }
            let error = (f64::from(got) - expected).abs();
            assert!(
                error <= tolerance(3, k, magnitude),
                "image {number}, row {row}, column {column}: {got} is not {expected}: {self:?}"
            );
        }
    }
}

fn conv(channels: usize, rows: usize, input: &[usize], kernel: &[usize]) -> Conv {
    let axes = input.len();
    Conv {
        images: 1,
        channels,
        rows,
        input: input.to_vec(),
        kernel: kernel.to_vec(),
        strides: vec![1; axes],
        dilations: vec![1; axes],
        pads: vec![0; axes],
        pads_after: vec![0; axes],
        channels_last: false,
        symbolic: false,
        block: 1,
    }
}

#[test]
fn images_of_one_axis() {
    let Some(profile) = profile() else { return };
    conv(3, 5, &[17], &[3]).check(&profile);
    Conv { strides: vec![2], pads: vec![1], pads_after: vec![2], images: 2, ..conv(33, 40, &[77], &[4]) }
        .check(&profile);
    Conv { dilations: vec![3], pads: vec![5], symbolic: true, ..conv(70, 13, &[130], &[3]) }.check(&profile);
}

#[test]
fn images_of_two_axes() {
    let Some(profile) = profile() else { return };
    let same = Conv { pads: vec![1, 1], pads_after: vec![1, 1], ..conv(35, 34, &[9, 11], &[3, 3]) };
    for block in [1, 2, 4, 9] {
        Conv { block, ..same.clone() }.check(&profile);
    }
    Conv { images: 2, symbolic: true, block: 2, ..same.clone() }.check(&profile);
    Conv { strides: vec![2, 2], images: 2, block: 3, ..same.clone() }.check(&profile);
    Conv { strides: vec![2, 3], dilations: vec![2, 1], symbolic: true, block: 2, ..same.clone() }
        .check(&profile);
    Conv { strides: vec![3, 2], dilations: vec![1, 2], block: 2, ..same.clone() }.check(&profile);
    Conv { pads: vec![0, 3], pads_after: vec![2, 0], block: 5, ..same.clone() }.check(&profile);
    Conv { channels_last: true, images: 2, block: 2, ..same.clone() }.check(&profile);
    Conv { strides: vec![2, 2], block: 2, ..conv(64, 16, &[7, 8], &[1, 1]) }.check(&profile);
    Conv { kernel: vec![1, 5], pads: vec![0, 2], pads_after: vec![0, 2], block: 3, ..same }.check(&profile);
}

#[test]
fn images_of_many_channels_whose_sums_wait() {
    let Some(profile) = profile() else { return };
    let same = Conv { pads: vec![1, 1], pads_after: vec![1, 1], ..conv(600, 34, &[4, 9], &[3, 3]) };
    Conv { block: 4, ..same.clone() }.check(&profile);
    Conv { block: 3, images: 2, symbolic: true, strides: vec![1, 2], ..same }.check(&profile);
    Conv { pads: vec![2], pads_after: vec![2], block: 2, ..conv(850, 7, &[70], &[5]) }.check(&profile);
}

#[test]
fn lines_of_all_widths() {
    let Some(profile) = profile() else { return };
    for width in [1, 5, 7, 14, 15, 16, 17, 31, 32, 33, 50] {
        let conv =
            Conv { pads: vec![1, 1], pads_after: vec![1, 1], block: 3, ..conv(20, 18, &[7, width], &[3, 3]) };
        conv.check(&profile);
    }
    let large = Conv { pads: vec![3, 3], pads_after: vec![3, 3], block: 2, ..conv(2, 3, &[2, 1], &[5, 4]) };
    large.check(&profile);
}

#[test]
fn only_machines_with_a_tile_unit_get_code_for_it() {
    let problem = Problem {
        batch: 1,
        m: 32,
        n: 32,
        k: 64,
        packed_a: true,
        b: Layout::Columns,
        pieces: 3,
        symbolic: false,
        rows: 32,
        columns: 32,
        least_rows: 0,
    };
    let (kernel, ..) = problem.kernel(&[1.0; 32 * 64], &[1.0; 32 * 64]);
    let plan = common::plan(KernelDesc::Contract(kernel));
    let text = asm_text(&plan, 0, &Profile::by_name("x86-64-amx").unwrap()).unwrap();
    assert!(text.contains("tdpbf16ps") && text.contains("ldtilecfg") && text.contains("tilerelease"));
    for name in ["x86-64-v3", "x86-64-v4", "aarch64"] {
        let error = asm_text(&plan, 0, &Profile::by_name(name).unwrap()).unwrap_err().to_string();
        assert!(error.contains("tile unit"), "{error}");
    }
    if let Some(profile) = profile() {
        assert!(compile_jit(&plan, &profile).is_ok());
    }
}
