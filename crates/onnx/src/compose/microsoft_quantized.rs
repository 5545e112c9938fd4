//! Quantized operators of ONNX Runtime (domain `com.microsoft`).
//!
//! Those of elementwise functions and pools are the float operators between `DequantizeLinear` and `QuantizeLinear`:
//! results are those of ONNX Runtime, up to one step where the exact result is half way between two. Products are
//! exact sums of integers that are scaled once.
//!
//! **Source**: <https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md>

use super::Row;
use super::emit::wrong;
use super::quantized::{dynamic, mat_mul};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::DType;

const DOMAIN: &str = "com.microsoft";

pub(super) const TABLE: &[Row] = &[
    (DOMAIN, "DequantizeLinear", dequantize_linear),
    (DOMAIN, "DynamicQuantizeLSTM", dynamic_quantize_lstm),
    (DOMAIN, "DynamicQuantizeMatMul", dynamic_quantize_mat_mul),
    (DOMAIN, "MatMulInteger16", mat_mul_integer16),
    (DOMAIN, "MatMulIntegerToFloat", mat_mul_integer_to_float),
    (DOMAIN, "MulInteger", mul_integer),
    (DOMAIN, "NhwcMaxPool", nhwc_max_pool),
    (DOMAIN, "QAttention", q_attention),
    (DOMAIN, "QGemm", q_gemm),
    (DOMAIN, "QLinearAdd", |draft| q_linear_binary(draft, "Add")),
    (DOMAIN, "QLinearAveragePool", q_linear_average_pool),
    (DOMAIN, "QLinearConcat", q_linear_concat),
    (DOMAIN, "QLinearConv", q_linear_conv),
    (DOMAIN, "QLinearGlobalAveragePool", q_linear_global_average_pool),
    (DOMAIN, "QLinearLeakyRelu", |draft| q_linear_unary(draft, "LeakyRelu", &["alpha"])),
    (DOMAIN, "QLinearMul", |draft| q_linear_binary(draft, "Mul")),
    (DOMAIN, "QLinearReduceMean", q_linear_reduce_mean),
    (DOMAIN, "QLinearSigmoid", |draft| q_linear_unary(draft, "Sigmoid", &[])),
    (DOMAIN, "QLinearSoftmax", q_linear_softmax),
    (DOMAIN, "QLinearWhere", q_linear_where),
    (DOMAIN, "QuantizeLinear", quantize_linear),
    (DOMAIN, "ReduceSumInteger", reduce_sum_integer),
];

impl Draft<'_> {
    /// The operand at `slot` in f32; its scale and optional zero point come next.
    fn real(&mut self, slot: usize, name: &str) -> Result<Value, Failure> {
        let x = self.operand(slot, name)?;
        let scale = self.operand(slot + 1, "scale")?;
        self.before("DequantizeLinear", &Attrs::new(), vec![Some(x), Some(scale), self.input(slot + 2)])
    }

    /// A value of f32 quantized with the scale at `slot` and the optional zero point after it.
    fn quantized(&mut self, y: Value, slot: usize, dtype: DType) -> Result<Value, Failure> {
        let (scale, zero) = (self.operand(slot, "scale")?, self.input(slot + 1));
        let attrs = match zero {
            Some(_) => Attrs::new(),
            None => Attrs::new().with("output_dtype", Attr::Str(dtype.name().to_owned())),
        };
        self.before("QuantizeLinear", &attrs, vec![Some(y), Some(scale), zero])
    }

    /// The attributes that the op of ONNX has too.
    fn only_attrs(&self, names: &[&str]) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, value) in self.attrs.iter().filter(|(name, _)| names.contains(name)) {
            attrs.set(name, value.clone());
        }
        attrs
    }

    /// One element as a scalar, whatever its rank; other values as they are.
    fn scalar(&mut self, value: Value) -> Result<Value, Failure> {
        let shape = self.shape_of(value)?;
        match !shape.is_empty() && shape.iter().all(|dim| dim.is(1)) {
            true => {
                let axes = (0..shape.len() as i64).collect();
                let axes = self.list("axes", axes);
                self.node("Squeeze", &[value, axes])
            }
            false => Ok(value),
        }
    }

    /// Images with the channels last, with them as the second axis.
    fn channels_second(&mut self, x: Value) -> Result<Value, Failure> {
        let rank = self.rank_of(x)? as i64;
        let perm: Vec<i64> = [0, rank - 1].into_iter().chain(1..rank - 1).collect();
        self.transpose(x, &perm)
    }

    /// The other way round.
    fn channels_last(&mut self, x: Value) -> Result<Value, Failure> {
        let rank = self.rank_of(x)? as i64;
        let perm: Vec<i64> = [0].into_iter().chain(2..rank).chain([1]).collect();
        self.transpose(x, &perm)
    }

    /// `make` applied to images whose channels are the last axis if `last`.
    fn on_channels(
        &mut self,
        x: Value,
        last: bool,
        make: impl FnOnce(&mut Self, Value) -> Result<Value, Failure>,
    ) -> Result<Value, Failure> {
        if !last {
            return make(self, x);
        }
        if self.rank_of(x)? < 3 {
            let rank = self.rank_of(x)?;
            return Err(Failure::unsupported(format!("channels_last with an input of rank {rank}")));
        }
        let x = self.channels_second(x)?;
        let y = make(self, x)?;
        self.channels_last(y)
    }

    fn dtype_at(&self, slot: usize) -> Result<DType, Failure> {
        Ok(self.required(slot)?.dtype())
    }
}

fn done(draft: Draft<'_>, y: Value) -> Result<Converted, Failure> {
    draft.finish_with(vec![Some(y)])
}

/// Quantized values keep the quotient in f32, as ONNX Runtime has it.
fn quantize_linear(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    draft.domain.clear();
    draft.attrs.set("precision", Attr::Str(DType::F32.name().to_owned()));
    draft.finish()
}

fn dequantize_linear(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    draft.domain.clear();
    draft.finish()
}

fn q_linear_binary(mut draft: Draft<'_>, op: &str) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(8)?;
    let dtype = draft.dtype_at(0)?;
    let (a, b) = (draft.real(0, "A")?, draft.real(3, "B")?);
    let c = draft.node(op, &[a, b])?;
    let c = draft.quantized(c, 6, dtype)?;
    done(draft, c)
}

fn q_linear_unary(mut draft: Draft<'_>, op: &str, attrs: &[&str]) -> Result<Converted, Failure> {
    draft.check_attrs(attrs)?;
    draft.check_inputs(5)?;
    let dtype = draft.dtype_at(0)?;
    let x = draft.real(0, "X")?;
    let attrs = draft.only_attrs(attrs);
    let y = draft.node_with(op, &attrs, &[x])?;
    let y = draft.quantized(y, 3, dtype)?;
    done(draft, y)
}

/// `opset` says which softmax is meant: before 13 that over all dims from `axis` on, taken as one.
fn q_linear_softmax(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis", "opset"])?;
    draft.check_inputs(5)?;
    let opset = draft.attrs.required_int("opset").map_err(wrong)?;
    let axis = draft.int_attr("axis", if opset < 13 { 1 } else { -1 })?;
    let dtype = draft.dtype_at(0)?;
    let x = draft.real(0, "X")?;
    let rank = draft.rank_of(x)? as i64;
    let first = if axis < 0 { axis.saturating_add(rank) } else { axis };
    if !(0..rank.max(1)).contains(&first) {
        return Err(Failure::unsupported(format!("axis {axis} of an input of rank {rank}")));
    }
    let y = if opset < 13 && first + 1 < rank {
        let flat = draft.node_with("Flatten", &Attrs::new().with("axis", Attr::Int(first)), &[x])?;
        let y = draft.node_with("Softmax", &Attrs::new().with("axis", Attr::Int(1)), &[flat])?;
        let shape = draft.dims(x, 0, rank as usize)?;
        draft.node_with("Reshape", &Attrs::new().with("allowzero", Attr::Int(1)), &[y, shape])?
    } else {
        draft.node_with("Softmax", &Attrs::new().with("axis", Attr::Int(first)), &[x])?
    };
    let y = draft.quantized(y, 3, dtype)?;
    done(draft, y)
}

fn q_linear_where(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(9)?;
    let dtype = draft.dtype_at(1)?;
    let condition = draft.operand(0, "condition")?;
    let (x, y) = (draft.real(1, "X")?, draft.real(4, "Y")?);
    let z = draft.node("Where", &[condition, x, y])?;
    let z = draft.quantized(z, 7, dtype)?;
    done(draft, z)
}

/// Operands come in threes: tensor, scale, zero point.
fn q_linear_concat(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axis"])?;
    let axis = draft.attrs.required_int("axis").map_err(wrong)?;
    let count = draft.inputs.len().saturating_sub(2);
    if count == 0 || !count.is_multiple_of(3) {
        return Err(Failure::unsupported(format!(
            "{count} operands to join, expected three for each tensor"
        )));
    }
    let dtype = draft.dtype_at(1)?;
    let mut parts = Vec::new();
    for slot in (2..2 + count).step_by(3) {
        parts.push(draft.real(slot, "tensor")?);
    }
    let y = draft.concat(axis, &parts)?;
    let y = draft.quantized(y, 0, dtype)?;
    done(draft, y)
}

const POOL: [&str; 6] = ["auto_pad", "ceil_mode", "count_include_pad", "kernel_shape", "pads", "strides"];

fn q_linear_average_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[POOL.as_slice(), &["channels_last"]].concat())?;
    draft.check_inputs(5)?;
    let last = draft.flag("channels_last", false)?;
    let (dtype, attrs) = (draft.dtype_at(0)?, draft.only_attrs(&POOL));
    let x = draft.real(0, "X")?;
    let y = draft.on_channels(x, last, |draft, x| draft.node_with("AveragePool", &attrs, &[x]))?;
    let y = draft.quantized(y, 3, dtype)?;
    done(draft, y)
}

fn q_linear_global_average_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["channels_last"])?;
    draft.check_inputs(5)?;
    let last = draft.flag("channels_last", false)?;
    let dtype = draft.dtype_at(0)?;
    let x = draft.real(0, "X")?;
    let y = draft.on_channels(x, last, |draft, x| draft.node("GlobalAveragePool", &[x]))?;
    let y = draft.quantized(y, 3, dtype)?;
    done(draft, y)
}

fn nhwc_max_pool(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = ["auto_pad", "ceil_mode", "dilations", "kernel_shape", "pads", "strides"];
    draft.check_attrs(&known)?;
    draft.check_inputs(1)?;
    let attrs = draft.only_attrs(&known);
    let x = draft.operand(0, "x")?;
    let y = draft.on_channels(x, true, |draft, x| draft.node_with("MaxPool", &attrs, &[x]))?;
    done(draft, y)
}

fn q_linear_conv(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    draft.check_attrs(&[known.as_slice(), &["channels_last"]].concat())?;
    draft.check_inputs(9)?;
    let last = draft.flag("channels_last", false)?;
    let attrs = draft.only_attrs(&known);
    let x = draft.operand(0, "x")?;
    let y = draft.on_channels(x, last, |draft, x| {
        let mut inputs = draft.inputs.clone();
        inputs[0] = Some(x);
        draft.before("QLinearConv", &attrs, inputs)
    })?;
    done(draft, y)
}

fn q_linear_reduce_mean(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axes", "keepdims"])?;
    draft.check_inputs(5)?;
    let keepdims = Attrs::new().with("keepdims", Attr::Int(i64::from(draft.flag("keepdims", true)?)));
    let (dtype, axes) = (draft.dtype_at(0)?, draft.attrs.ints("axes").map_err(wrong)?);
    let x = draft.real(0, "data")?;
    let axes = axes.filter(|axes| !axes.is_empty()).map(|axes| draft.list("axes", axes));
    let y = draft.before("ReduceMean", &keepdims, vec![Some(x), axes])?;
    let y = draft.quantized(y, 3, dtype)?;
    done(draft, y)
}

fn reduce_sum_integer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["axes", "keepdims"])?;
    draft.check_inputs(1)?;
    let keepdims = Attrs::new().with("keepdims", Attr::Int(i64::from(draft.flag("keepdims", true)?)));
    let axes = draft.attrs.ints("axes").map_err(wrong)?;
    let x = draft.operand(0, "data")?;
    let to = if draft.dtype_of(x).is_unsigned_int() { DType::U32 } else { DType::I32 };
    let x = draft.cast(x, to)?;
    let axes = axes.filter(|axes| !axes.is_empty()).map(|axes| draft.list("axes", axes));
    let y = draft.before("ReduceSum", &keepdims, vec![Some(x), axes])?;
    done(draft, y)
}

fn mul_integer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(4)?;
    let mut factors = Vec::new();
    for slot in [0, 2] {
        let value = draft.operand(slot, "operand")?;
        let mut value = draft.cast(value, DType::I32)?;
        if let Some(zero) = draft.input(slot + 1) {
            let zero = draft.scalar(zero)?;
            let zero = draft.cast(zero, DType::I32)?;
            value = draft.minus(value, zero)?;
        }
        factors.push(value);
    }
    let y = draft.node("Mul", &factors)?;
    done(draft, y)
}

fn mat_mul_integer16(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(2)?;
    let (a, b) = (draft.operand(0, "A")?, draft.operand(1, "B")?);
    let unsigned = draft.dtype_of(a).is_unsigned_int() && draft.dtype_of(b).is_unsigned_int();
    let to = if unsigned { DType::U32 } else { DType::I32 };
    let (a, b) = (draft.cast(a, to)?, draft.cast(b, to)?);
    let y = draft.matmul(a, b)?;
    done(draft, y)
}

/// Sums of products as floats: `f32(sums) · (a_scale · b_scale) + bias`.
fn scaled_sums(
    draft: &mut Draft<'_>,
    sums: Value,
    [a_scale, b_scale]: [Value; 2],
    bias: Option<Value>,
) -> Result<Value, Failure> {
    if !draft.shape_of(a_scale)?.iter().all(|dim| dim.is(1)) {
        let ty = draft.graph.fact(a_scale).ty.clone();
        return Err(Failure::unsupported(format!("a scale of A of type {ty}, expected one element")));
    }
    let (a_scale, b_scale) = (draft.scalar(a_scale)?, draft.scalar(b_scale)?);
    let result = draft.dtype_of(b_scale);
    let (a_scale, b_scale) = (draft.cast(a_scale, DType::F32)?, draft.cast(b_scale, DType::F32)?);
    let factor = draft.times(a_scale, b_scale)?;
    let sums = draft.cast(sums, DType::F32)?;
    let mut y = draft.times(sums, factor)?;
    if let Some(bias) = bias {
        let bias = draft.cast(bias, DType::F32)?;
        y = draft.plus(y, bias)?;
    }
    draft.cast(y, result)
}

fn mat_mul_integer_to_float(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(7)?;
    let (a, b) = (draft.operand(0, "A")?, draft.operand(1, "B")?);
    let scales = [draft.operand(2, "a_scale")?, draft.operand(3, "b_scale")?];
    let (a_zero, b_zero, bias) = (draft.input(4), draft.input(5), draft.input(6));
    let sums = mat_mul(&mut draft, [a, b], [a_zero, b_zero])?;
    let y = scaled_sums(&mut draft, sums, scales, bias)?;
    done(draft, y)
}

fn dynamic_quantize_mat_mul(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(5)?;
    let (a, b) = (draft.operand(0, "A")?, draft.operand(1, "B")?);
    let b_scale = draft.operand(2, "b_scale")?;
    let (b_zero, bias) = (draft.input(3), draft.input(4));
    let [a, a_scale, a_zero] = dynamic(&mut draft, a, true)?;
    let sums = mat_mul(&mut draft, [a, b], [Some(a_zero), b_zero])?;
    let y = scaled_sums(&mut draft, sums, [a_scale, b_scale], bias)?;
    done(draft, y)
}

/// C is added to the sums, as integers of the scale `alpha · a_scale · b_scale`.
fn q_gemm(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha", "transA", "transB"])?;
    draft.check_inputs(9)?;
    let alpha = draft.float_attr("alpha", 1.0)?;
    let mut operands = [draft.operand(0, "A")?, draft.operand(3, "B")?];
    for (operand, name) in operands.iter_mut().zip(["transA", "transB"]) {
        if draft.int_attr(name, 0)? != 0 {
            *operand = draft.transpose(*operand, &[1, 0])?;
        }
    }
    let (a_zero, b_zero) = (draft.input(2), draft.input(5));
    let mut sums = mat_mul(&mut draft, operands, [a_zero, b_zero])?;
    if let Some(c) = draft.input(6) {
        sums = draft.plus(sums, c)?;
    }
    let (a_scale, b_scale) = (draft.operand(1, "a_scale")?, draft.operand(4, "b_scale")?);
    let a_scale = draft.scaled(a_scale, alpha)?;
    let mut y = scaled_sums(&mut draft, sums, [a_scale, b_scale], None)?;
    if draft.input(7).is_some() {
        let dtype = draft.fact(8).map_or(DType::U8, |zero| zero.dtype());
        y = draft.quantized(y, 7, dtype)?;
    }
    done(draft, y)
}

/// Attention of the numbers that input and weights stand for.
fn q_attention(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let known = [
        "do_rotary",
        "mask_filter_value",
        "num_heads",
        "past_present_share_buffer",
        "scale",
        "unidirectional",
    ];
    draft.check_attrs(&known)?;
    draft.check_inputs(9)?;
    let rule = super::find(DOMAIN, "Attention")
        .ok_or_else(|| Failure::unsupported("Attention of com.microsoft, which this is expressed by"))?;
    let (input, weight) = (draft.operand(0, "input")?, draft.operand(1, "weight")?);
    let (scales, zeros) = ([draft.input(3), draft.input(4)], [draft.input(6), draft.input(7)]);
    let input = draft.before("DequantizeLinear", &Attrs::new(), vec![Some(input), scales[0], zeros[0]])?;
    let columns = Attrs::new().with("axis", Attr::Int(1));
    let weight = draft.before("DequantizeLinear", &columns, vec![Some(weight), scales[1], zeros[1]])?;
    let (bias, mask, past) = (draft.input(2), draft.input(5), draft.input(8));
    draft.inputs = vec![Some(input), Some(weight), bias, mask, past];
    while draft.inputs.last() == Some(&None) {
        draft.inputs.pop();
    }
    draft.op = "Attention".to_owned();
    rule(draft)
}

/// `LSTM` of weights `[directions, inputs, 4 · hidden]`, whose input and state are rounded to 8 bits before they meet
/// the weights.
fn dynamic_quantize_lstm(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_inputs(12)?;
    let mut weights = Vec::new();
    for (slot, scale) in [(1, 8), (2, 10)] {
        let (w, zero) = (draft.operand(slot, "weights")?, draft.input(scale + 1));
        let scale = draft.operand(scale, "scale")?;
        let scale = of_directions(&mut draft, scale)?;
        let mut w = draft.cast(w, DType::F32)?;
        if let Some(zero) = zero {
            let zero = of_directions(&mut draft, zero)?;
            let zero = draft.cast(zero, DType::F32)?;
            w = draft.minus(w, zero)?;
        }
        let w = draft.times(w, scale)?;
        weights.push(draft.transpose(w, &[0, 2, 1])?);
    }
    let x = draft.operand(0, "X")?;
    draft.inputs.truncate(8);
    let x = rounded_to_bytes(&mut draft, x)?;
    draft.set_input(0, Some(x));
    draft.set_input(1, weights.first().copied());
    draft.set_input(2, weights.get(1).copied());
    super::recurrent::quantized_lstm(draft)
}

/// Parameters of each direction, or of each of its gates' rows, so that they broadcast to the weights.
fn of_directions(draft: &mut Draft<'_>, value: Value) -> Result<Value, Failure> {
    let axes = if draft.rank_of(value)? == 1 { vec![1, 2] } else { vec![1] };
    draft.unsqueeze(value, axes)
}

/// The values that the 8-bit numbers nearest to those of a tensor stand for, of the range that the tensor has.
pub(super) fn rounded_to_bytes(draft: &mut Draft<'_>, x: Value) -> Result<Value, Failure> {
    let [x, scale, zero] = dynamic(draft, x, true)?;
    draft.node("DequantizeLinear", &[x, scale, zero])
}
