//! Integer contractions: exact sums, then one multiplication in f32 and one rounding, as the interpreter does it.
//!
//! Weights lose their zero points when they are packed; those of the image and of a matrix that is not constant are
//! subtracted while it is packed. What is left for the epilogue is `saturate(round(f32(sum + bias) · m[c]) + y_zero)`
//! with `m[c] = (x_scale · w_scale[c]) / y_scale`, computed here once.

use super::Lowering;
use super::contract::{Epilogue, matrix_product};
use super::conv::{Convolution, PackedWeights};
use super::exprs::Exprs;
use super::frame::Frame;
use super::scalar::round_to_int;
use super::view::View;
use super::window::Depthwise;
use crate::pack::{PackSource, pack_i16};
use crate::{BinaryFn, ExprId};
use bytes::Bytes;
use rabot_ir::ops::Window;
use rabot_ir::{Dim, NodeId, Op, Value};
use rabot_tensor::{DType, Tensor};

/// Quantization parameters of a product, all known.
struct Parameters {
    x_zero: i32,
    /// One for all, or one for each output channel.
    w_zero: Vec<i32>,
    /// What becomes of a sum; absent where the sum is the result.
    requantization: Option<Requantization>,
    /// i32, one for each output channel.
    bias: Option<Value>,
}

/// From sums to quantized results.
struct Requantization {
    /// One for all, or one for each output channel.
    multipliers: Vec<f32>,
    y_zero: i32,
    /// Dtype of the result.
    y_dtype: DType,
}

impl Parameters {
    /// The result from the exact sum; `loads` are the multipliers, if there are several, and the bias, if there is one.
    fn requantize(&self, exprs: &mut Exprs<'_, '_>, sum: ExprId, loads: &[ExprId]) -> ExprId {
        let mut loads = loads.iter().copied();
        let Some(to) = &self.requantization else { return sum };
        let multiplier = match &to.multipliers[..] {
            [one] => exprs.dag.constant(DType::F32, f64::from(*one)),
            _ => loads.next().unwrap_or(sum),
        };
        let sum = match loads.next() {
            Some(bias) => exprs.dag.binary(BinaryFn::Add, sum, bias),
            None => sum,
        };
        let float = exprs.dag.cast(DType::F32, sum);
        let scaled = exprs.dag.binary(BinaryFn::Mul, float, multiplier);
        let zero = exprs.dag.constant(DType::I32, f64::from(to.y_zero));
        round_to_int(&mut exprs.dag, scaled, Some(zero), to.y_dtype)
    }
}

/// What runs on the host instead, and why.
type Refusal = &'static str;

const PARAMETERS: Refusal = "integer kernels need constant scales and zero points, one each, or one for each channel of the second operand";
const DTYPES: Refusal = "integer kernels multiply 8-bit integers";
const CONSTANT_WEIGHTS: Refusal = "integer convolutions need constant weights";
const GEOMETRY: Refusal = "its window does not fit its operands";
const ROW_ZERO_POINTS: Refusal = "a matrix that is not constant has one zero point for each column";
const STRIDES: Refusal = "no contraction kernel takes these strides";

impl Lowering<'_, '_, '_> {
    /// `QLinearConv`, `QLinearMatMul`, `ConvInteger`, `MatMulInteger`, with the elementwise nodes of its group.
    ///
    /// **Errors**: why no kernel takes it.
    pub(super) fn lower_quantized(&mut self, group: &[NodeId], anchor: NodeId) -> Result<(), Refusal> {
        let op = &self.graph.node(anchor).op;
        let sums = matches!(op, Op::ConvInteger(_) | Op::MatMulInteger(_));
        let weights = self.operand(anchor, if sums { 1 } else { 3 }).ok_or(GEOMETRY)?;
        let operands = [self.operand(anchor, 0).ok_or(GEOMETRY)?, weights];
        let byte = |&value: &Value| matches!(self.graph.fact(value).dtype(), DType::I8 | DType::U8);
        if !operands.iter().all(byte) {
            return Err(DTYPES);
        }
        let shape = self.graph.fact(weights).shape();
        let channels = match op {
            Op::QLinearConv(_) | Op::ConvInteger(_) => shape.first(),
            _ => shape.last().filter(|_| shape.len() > 1),
        };
        let parameters = self.quantization(anchor, sums, channels).ok_or(PARAMETERS)?;
        match op {
            Op::QLinearConv(op) => {
                let (window, groups) = (op.window.clone(), op.group);
                self.lower_quantized_conv(group, anchor, operands, (&window, groups), parameters)
            }
            Op::ConvInteger(op) => {
                let (window, groups) = (op.window.clone(), op.group);
                self.lower_quantized_conv(group, anchor, operands, (&window, groups), parameters)
            }
            _ => self.lower_quantized_matmul(group, anchor, operands, parameters),
        }
    }

    /// Scales and zero points of a node, if they are constant and of the kinds that kernels take: one, or for the second
    /// operand one for each of its channels. `sums`: the node's result are the sums.
    fn quantization(&self, id: NodeId, sums: bool, channels: Option<&Dim>) -> Option<Parameters> {
        let constant = |slot: usize| self.operand(id, slot).and_then(|value| self.graph.constant(value));
        let scales = |slot: usize| -> Option<Vec<f32>> {
            constant(slot).map(|tensor| tensor.to_f64s().into_iter().map(|v| v as f32).collect())
        };
        let zeros = |slot: usize| -> Option<Vec<i32>> {
            match (self.operand(id, slot), constant(slot)) {
                (None, _) => Some(vec![0]),
                (_, tensor) => tensor.map(|tensor| tensor.to_i64s().into_iter().map(|v| v as i32).collect()),
            }
        };
        let per_channel = |len: usize| len == 1 || channels.is_some_and(|dim| dim.is(len as i64));
        let [x_zero] = zeros(2)?[..] else { return None };
        let w_zero = zeros(if sums { 3 } else { 5 })?;
        if !per_channel(w_zero.len()) {
            return None;
        }
        // Where there are no channels there are no parameters of them, and nothing that they could change.
        let w_zero = if w_zero.is_empty() { vec![0] } else { w_zero };
        if sums {
            return Some(Parameters { x_zero, w_zero, requantization: None, bias: None });
        }
        let ([x_scale], [y_scale], [y_zero]) = (&scales(1)?[..], &scales(6)?[..], &zeros(7)?[..]) else {
            return None;
        };
        let multipliers: Vec<f32> =
            scales(4)?.into_iter().map(|w_scale| x_scale * w_scale / y_scale).collect();
        if !per_channel(multipliers.len()) {
            return None;
        }
        let multipliers = if multipliers.is_empty() { vec![1.0] } else { multipliers };
        let requantization = Requantization { multipliers, y_zero: *y_zero, y_dtype: constant(7)?.dtype() };
        let bias = self.operand(id, 8);
        Some(Parameters { x_zero, w_zero, requantization: Some(requantization), bias })
    }

    /// The vectors that the epilogue loads: multipliers, if there are several, and the bias.
    fn channel_vectors(&mut self, parameters: &Parameters) -> Vec<View> {
        let mut vectors = Vec::new();
        let multipliers = parameters.requantization.as_ref().map_or(&[][..], |to| &to.multipliers);
        if multipliers.len() > 1 {
            let tensor = Tensor::from_vec(&[multipliers.len()], multipliers.to_vec());
            vectors.push(self.packed_view(tensor.shared_bytes(), DType::F32));
        }
        vectors.extend(parameters.bias.map(|bias| self.view(bias)));
        vectors
    }

    fn finish(&mut self, epilogue: &Epilogue) {
        if !epilogue.late.is_empty() {
            self.lower_elementwise(&epilogue.late);
        }
    }

    fn lower_quantized_conv(
        &mut self,
        group: &[NodeId],
        anchor: NodeId,
        [x, w]: [Value; 2],
        (window, groups): (&Window, usize),
        parameters: Parameters,
    ) -> Result<(), Refusal> {
        let weights = self.graph.constant(w).cloned().ok_or(CONSTANT_WEIGHTS)?;
        let ([out_channels, channels, kernel @ ..], x_shape) = (weights.shape(), self.graph.fact(x).shape())
        else {
            return Err(GEOMETRY);
        };
        let spatial = x_shape.get(2..).ok_or(GEOMETRY)?;
        let geometry = window.geometry(spatial, kernel, false).map_err(|_| GEOMETRY)?;
        let (out_channels, channels, group_count) = (*out_channels, *channels, groups.max(1));
        if group_count > 1 && channels == 1 && out_channels == group_count {
            let epilogue = self.split_epilogue(group, anchor, true);
            let weights = self.centred(&weights, &parameters.w_zero);
            let vectors = self.channel_vectors(&parameters);
            let (source, fill) = (self.view(x), f64::from(parameters.x_zero));
            let depthwise = Depthwise { anchor, geometry: &geometry, source, fill, weights };
            self.emit_quantized_depthwise(&epilogue, &depthwise, &vectors, &parameters);
            self.finish(&epilogue);
            return Ok(());
        }
        let conv = Convolution {
            anchor,
            x: self.view(x),
            zero_point: parameters.x_zero,
            group: group_count,
            out_channels,
            channels,
            geometry,
            parameters: self.channel_vectors(&parameters),
        };
        let packed = self.pack_filters(&conv, &weights, &parameters.w_zero).ok_or(GEOMETRY)?;
        let epilogue = self.split_epilogue(group, anchor, true);
        self.emit_conv(conv, packed, &epilogue, |exprs, sum, loads| parameters.requantize(exprs, sum, loads));
        self.finish(&epilogue);
        Ok(())
    }

    /// The weights of a convolution in panels of pairs of i16, group after group.
    fn pack_filters(&mut self, conv: &Convolution, weights: &Tensor, zeros: &[i32]) -> Option<PackedWeights> {
        let (rows, k, mr) = (conv.rows(), conv.terms(), self.conv_tile(conv, DType::I32).mr);
        let mut bytes = Vec::new();
        for group in 0..conv.group {
            let source = PackSource {
                bytes: weights.bytes(),
                dtype: weights.dtype(),
                offset: group * rows * k,
                batch: 1,
                batch_stride: 0,
                outer: rows,
                outer_stride: k,
                k,
                k_stride: 1,
            };
            let zeros = if zeros.len() == 1 { zeros } else { zeros.get(group * rows..(group + 1) * rows)? };
            bytes.extend(self.b.pack(|| pack_i16(&source, mr, zeros)).ok()?);
        }
        let view = self.packed_view(Bytes::from(bytes), DType::I16);
        let group_stride = rows.next_multiple_of(mr) * k.next_multiple_of(2);
        Some(PackedWeights { view, group_stride, accumulator: DType::I32, blocking: None })
    }

    /// Weights without their zero points, as i16.
    fn centred(&mut self, weights: &Tensor, zeros: &[i32]) -> View {
        let channel_len = weights.shape()[1..].iter().product::<usize>().max(1);
        let zero = |at: usize| i64::from(zeros[if zeros.len() == 1 { 0 } else { at / channel_len }]);
        let values: Vec<i64> = weights.to_i64s().iter().enumerate().map(|(at, w)| w - zero(at)).collect();
        let tensor = Tensor::from_i64s(DType::I16, weights.shape(), &values);
        let shape: Vec<Dim> = weights.shape().iter().map(|&dim| Dim::from(dim)).collect();
        let buffer = self.b.packed(Bytes::copy_from_slice(tensor.bytes()), DType::I16);
        View::dense(buffer, DType::I16, &shape)
    }

    fn emit_quantized_depthwise(
        &mut self,
        epilogue: &Epilogue,
        depthwise: &Depthwise<'_>,
        vectors: &[View],
        parameters: &Parameters,
    ) {
        self.emit_depthwise(
            &epilogue.nodes,
            depthwise,
            vectors,
            |dag, x, w| {
                let (x, w) = (dag.cast(DType::I32, x), dag.cast(DType::I32, w));
                let zero = dag.constant(DType::I32, f64::from(parameters.x_zero));
                let x = dag.binary(BinaryFn::Sub, x, zero);
                dag.binary(BinaryFn::Mul, x, w)
            },
            |exprs, sum, loads| parameters.requantize(exprs, sum, loads),
        );
    }

    fn lower_quantized_matmul(
        &mut self,
        group: &[NodeId],
        anchor: NodeId,
        [a, b]: [Value; 2],
        parameters: Parameters,
    ) -> Result<(), Refusal> {
        if self.graph.constant(b).is_none() && parameters.w_zero.len() > 1 {
            return Err(ROW_ZERO_POINTS);
        }
        let result = self.graph.fact(Value { node: anchor, slot: 0 }).shape().to_vec();
        let (a, b) = (self.view(a), self.view(b));
        let product = matrix_product(a, b, result).ok_or(STRIDES)?;
        let epilogue = self.split_epilogue(group, anchor, true);
        let (axes, views) = self.product_axes(&product, &epilogue).ok_or(STRIDES)?;
        let width = self.micro_tile(DType::I32, None).nr;
        let pack = |source: &PackSource<'_>| pack_i16(source, width, &parameters.w_zero);
        let packed = self.pack_matrix(&axes, &product, DType::I16, pack);
        if packed.is_none() && parameters.w_zero.len() > 1 {
            return Err(STRIDES);
        }
        let vectors = self.channel_vectors(&parameters);
        let column = product.shape.len() - 1;
        let vectors: Vec<View> = vectors.iter().map(|view| view.along(column, &product.shape)).collect();
        let mut frame = Frame::default();
        let zeros = [parameters.x_zero, parameters.w_zero[0]];
        let (shape, [a, b], blocking) = self.matrices(&mut frame, &product, &axes, packed, DType::I32, zeros);
        let domain = axes.domain();
        let (dag, stores) =
            self.epilogue(&mut frame, &domain, &views, &epilogue, DType::I32, |exprs, sum| {
                let loads: Vec<ExprId> = vectors.iter().map(|view| exprs.load(view)).collect();
                parameters.requantize(exprs, sum, &loads)
            });
        self.call_contraction(frame, shape, a, b, DType::I32, dag, stores, blocking, &epilogue);
        self.finish(&epilogue);
        Ok(())
    }
}
