//! Convolutions as contractions over image patches, against plain loops that add in the same order.

mod common;
mod contraction;

use common::{access, arg, bytes, levels, load, store, typed, values};
use contraction::{items, run, scalar};
use rabot_kernel::{
    Access, BinaryFn, ContractKernel, Dag, Expr, Operand, PackSource, Patches, Size, Tile, pack_f32, pack_i16,
};
use rabot_target::Profile;
use rabot_tensor::DType;

/// A convolution; lists are per spatial axis.
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
    /// Channels last.
    channels_last: bool,
    symbolic: bool,
    tile: Tile,
}

impl Conv {
    fn output(&self) -> Vec<usize> {
        (0..self.input.len())
            .map(|axis| {
                let window = (self.kernel[axis] - 1) * self.dilations[axis] + 1;
                let padded = self.input[axis] + self.pads[axis] + self.pads_after[axis];
                if padded < window { 0 } else { (padded - window) / self.strides[axis] + 1 }
            })
            .collect()
    }

    fn terms(&self) -> usize {
        self.channels * self.kernel.iter().product::<usize>()
    }

    fn columns(&self) -> usize {
        self.output().iter().product()
    }

    fn pixels(&self) -> usize {
        self.input.iter().product()
    }

    /// Strides of image, channel and spatial axes.
    fn image_strides(&self) -> (usize, usize, Vec<usize>) {
        let scale = if self.channels_last { self.channels } else { 1 };
        let mut strides = vec![scale; self.input.len()];
        for axis in (0..self.input.len() - 1).rev() {
            strides[axis] = strides[axis + 1] * self.input[axis + 1];
        }
        (self.channels * self.pixels(), if self.channels_last { 1 } else { self.pixels() }, strides)
    }

    /// Index of the element that a term reads for an output position; none if it lies in the padding.
    fn source(&self, image: usize, term: usize, column: usize) -> Option<usize> {
        let (image_stride, channel_stride, strides) = self.image_strides();
        let (output, mut term, mut column) = (self.output(), term, column);
        let mut at = 0;
        for axis in (0..self.input.len()).rev() {
            let position =
                column % output[axis] * self.strides[axis] + term % self.kernel[axis] * self.dilations[axis];
            column /= output[axis];
            term /= self.kernel[axis];
            at += position.checked_sub(self.pads[axis]).filter(|p| *p < self.input[axis])? * strides[axis];
        }
        Some(image * image_stride + term * channel_stride + at)
    }

    fn kernel(&self, dtype: DType, zero_point: i32, accumulator: DType) -> (ContractKernel, Vec<i64>) {
        let mut params = Vec::new();
        let mut size = |value: usize| {
            if !self.symbolic {
                return Size::Const(value as i64);
            }
            params.push(value as i64);
            Size::Param(params.len() - 1)
        };
        let (image, channel, strides) = self.image_strides();
        let mut sizes = |values: &[usize]| -> Vec<Size> { values.iter().map(|value| size(*value)).collect() };
        let (input, output, pads) = (sizes(&self.input), sizes(&self.output()), sizes(&self.pads));
        let (input_strides, batch) = (sizes(&strides), sizes(&[image]));
        let [columns, k, matrix, channel, images] =
            [self.columns(), self.terms(), self.rows * self.columns(), channel, self.images]
                .map(|v| sizes(&[v])[0]);
        let patches = Patches {
            arg: 1,
            offset: Size::Const(0),
            batch,
            channel,
            input,
            input_strides,
            output,
            kernel: self.kernel.clone(),
            strides: self.strides.clone(),
            dilations: self.dilations.clone(),
            pads,
            zero_point,
        };
        let mut epilogue = Dag::default();
        let sum = epilogue.push(Expr::Accumulator, accumulator);
        let bias = load(&mut epilogue, 2, accumulator, access(&[(1, 1)]));
        let value = epilogue.binary(BinaryFn::Add, sum, bias);
        let to =
            Access { strides: vec![(0, matrix), (1, columns), (2, Size::Const(1))], ..Access::default() };
        let weights = if accumulator == DType::F32 { DType::F32 } else { DType::I16 };
        let kernel = ContractKernel {
            args: vec![
                arg(weights, false),
                arg(dtype, false),
                arg(accumulator, false),
                arg(accumulator, true),
            ],
            batch: vec![images],
            m: Size::Const(self.rows as i64),
            n: columns,
            k,
            a: Operand::Packed { arg: 0, batch: vec![Size::Const(0)] },
            b: Operand::Patches(patches),
            accumulator,
            epilogue,
            line: None,
            stores: vec![store(3, to, value)],
            tile: self.tile,
            tiles: None,
            keeps_b: false,
        };
        (kernel, params)
    }

    fn weights<'a>(&self, bytes: &'a [u8], dtype: DType) -> PackSource<'a> {
        let k = self.terms();
        PackSource {
            bytes,
            dtype,
            offset: 0,
            batch: 1,
            batch_stride: 0,
            outer: self.rows,
            outer_stride: k,
            k,
            k_stride: 1,
        }
    }
}

fn check_f32(conv: &Conv, profile: &Profile) {
    let (kernel, params) = conv.kernel(DType::F32, 0, DType::F32);
    let image = values(conv.images * conv.channels * conv.pixels(), 1);
    let (weights, bias) = (values(conv.rows * conv.terms(), 2), values(conv.rows, 3));
    let weight_bytes = bytes(&weights);
    let packed = pack_f32(&conv.weights(&weight_bytes, DType::F32), conv.tile.mr).unwrap().to_vec();
    let count = conv.images * conv.rows * conv.columns();
    let buffers = [packed, bytes(&image), bytes(&bias), vec![0; count * 4]];
    let items = items(&kernel, conv.images, conv.rows, conv.columns());
    let out: Vec<f32> = typed(&run(&kernel, profile, &params, items, conv.terms(), &buffers));
    for (at, got) in out.into_iter().enumerate() {
        let (column, row) = (at % conv.columns(), at / conv.columns() % conv.rows);
        let number = at / conv.columns() / conv.rows;
        let mut sum = 0f32;
        for term in 0..conv.terms() {
            let pixel = conv.source(number, term, column).map_or(0.0, |index| image[index]);
            let weight = weights[row * conv.terms() + term];
            sum = if profile.fma { weight.mul_add(pixel, sum) } else { sum + weight * pixel };
        }
        assert_eq!(
            got,
            sum + bias[row],
            "{}: image {number}, row {row}, column {column}: {conv:?}",
            profile.name
        );
    }
}

fn check_u8(conv: &Conv, profile: &Profile) {
    let zero_point = 131;
    let (kernel, params) = conv.kernel(DType::U8, zero_point, DType::I32);
    let byte = |index: usize| [0u8, 255, 131, index as u8][(index.wrapping_mul(2654435761) >> 7) % 4];
    let image: Vec<u8> = (0..conv.images * conv.channels * conv.pixels()).map(byte).collect();
    let weights: Vec<u8> = (0..conv.rows * conv.terms()).map(|index| byte(index + 1)).collect();
    let bias: Vec<i32> = (0..conv.rows as i32).map(|row| row * 1000 - 700).collect();
    let packed = pack_i16(&conv.weights(&weights, DType::I8), conv.tile.mr, &[0]).unwrap().to_vec();
    let count = conv.images * conv.rows * conv.columns();
    let buffers = [packed, image.clone(), bytes(&bias), vec![0; count * 4]];
    let items = items(&kernel, conv.images, conv.rows, conv.columns());
    let out: Vec<i32> = typed(&run(&kernel, profile, &params, items, conv.terms(), &buffers));
    for (at, got) in out.into_iter().enumerate() {
        let (column, row) = (at % conv.columns(), at / conv.columns() % conv.rows);
        let number = at / conv.columns() / conv.rows;
        let product = |term: usize| {
            let pixel =
                conv.source(number, term, column).map_or(0, |index| i32::from(image[index]) - zero_point);
            pixel * i32::from(weights[row * conv.terms() + term] as i8)
        };
        let expected: i32 = (0..conv.terms()).map(product).sum::<i32>() + bias[row];
        assert_eq!(got, expected, "{}: image {number}, row {row}, column {column}: {conv:?}", profile.name);
    }
}

/// Rows and columns of tiles of vectors of 512 bits.
const WIDE: [(usize, usize); 3] = [(14, 32), (9, 48), (24, 16)];

fn check(conv: &Conv) {
    check_tile(conv);
    for (mr, nr) in WIDE {
        check_tile(&Conv { tile: Tile { mr, nr, rows: 2 * mr, columns: 2 * nr }, ..conv.clone() });
    }
}

fn check_tile(conv: &Conv) {
    for profile in levels().into_iter().chain([scalar()]) {
        check_f32(conv, &profile);
        check_u8(conv, &profile);
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
        tile: Tile { mr: 12, nr: 4, rows: 24, columns: 32 },
    }
}

#[test]
fn one_axis() {
    check(&conv(3, 5, &[17], &[3]));
    check(&Conv { strides: vec![2], pads: vec![1], pads_after: vec![2], ..conv(3, 5, &[17], &[4]) });
    check(&Conv { dilations: vec![3], pads: vec![5], ..conv(2, 13, &[30], &[3]) });
}

#[test]
fn two_axes() {
    let same = Conv { pads: vec![1, 1], pads_after: vec![1, 1], ..conv(3, 14, &[9, 11], &[3, 3]) };
    check(&same);
    check(&Conv { images: 2, symbolic: true, ..same.clone() });
    check(&Conv { strides: vec![2, 2], images: 2, ..same.clone() });
    check(&Conv { strides: vec![2, 3], dilations: vec![2, 1], symbolic: true, ..same.clone() });
    check(&Conv { pads: vec![0, 3], pads_after: vec![2, 0], ..same.clone() });
    check(&Conv { channels_last: true, images: 2, ..same.clone() });
    check(&Conv { tile: Tile { mr: 6, nr: 8, rows: 6, columns: 16 }, ..same.clone() });
    check(&Conv { strides: vec![2, 2], ..conv(6, 3, &[7, 8], &[1, 1]) });
    check(&Conv { kernel: vec![1, 5], pads: vec![0, 2], pads_after: vec![0, 2], ..same });
}

#[test]
fn vectors_of_several_lines() {
    for width in [5, 6, 7, 8, 14, 15, 16, 17, 33] {
        check(&Conv { pads: vec![1, 1], pads_after: vec![1, 1], ..conv(2, 5, &[6, width], &[3, 3]) });
        check(&Conv {
            pads: vec![0, 2],
            pads_after: vec![2, 0],
            images: 2,
            ..conv(2, 3, &[5, width], &[2, 3])
        });
    }
}

#[test]
fn vectors_of_lines_with_strides() {
    for (stride, width) in
        [(2, 13), (2, 16), (2, 17), (2, 31), (2, 32), (2, 67), (3, 22), (3, 50), (4, 23), (4, 66), (5, 60)]
    {
        let strides = vec![2, stride];
        let base = conv(3, 5, &[7, width], &[3, 3]);
        check(&Conv { strides: strides.clone(), pads: vec![1, 1], pads_after: vec![1, 1], ..base.clone() });
        check(&Conv { strides, pads: vec![0, 2], pads_after: vec![2, 4], images: 2, symbolic: true, ..base });
    }
}

#[test]
fn three_axes() {
    let base = conv(2, 7, &[4, 5, 6], &[2, 3, 3]);
    check(&base);
    check(&Conv { strides: vec![1, 2, 1], pads: vec![1, 0, 2], symbolic: true, ..base });
}

#[test]
fn windows_larger_than_the_image() {
    check(&Conv { pads: vec![3, 3], pads_after: vec![3, 3], ..conv(2, 3, &[2, 1], &[5, 4]) });
    check(&conv(2, 3, &[2, 2], &[3, 3]));
}
