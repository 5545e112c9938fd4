//! Quantized operators of ONNX's own domain whose parameters are computed when the model runs.
//!
//! Kernels take zero points that are constant. A sum of products is taken without the others, and what they would have
//! added is taken away again: `Σ(a − p)(b − q) = Σ a·b − p·Σ(b − q) − q·Σ a`, exact modulo 2³² as the sums are.

use super::Row;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};
use rabot_tensor::{DType, Tensor};

pub(super) const TABLE: &[Row] = &[
    ("", "DynamicQuantizeLinear", dynamic_quantize_linear),
    ("", "QuantizeLinear", quantize_linear),
    ("", "MatMulInteger", mat_mul_integer),
    ("", "ConvInteger", conv_integer),
];

/// Before opset 23 nothing said what the quotient of 16-bit floats is rounded to; it was taken in f32.
fn quantize_linear(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let short = matches!(draft.required(1)?.dtype(), DType::F16 | DType::BF16);
    if draft.opset < 23 && short && draft.attrs.get("precision").is_none() {
        draft.attrs.set("precision", Attr::Str(DType::F32.name().to_owned()));
    }
    draft.finish()
}

fn dynamic_quantize_linear(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(1)?;
    let x = draft.operand(0, "x")?;
    let [y, scale, zero] = dynamic(&mut draft, x, true)?;
    draft.finish_with(vec![Some(y), Some(scale), Some(zero)])
}

/// A tensor of f32 as u8, with the scale and zero point by which its range and 0 take all 256 values.
///
/// The quantized values are made only if they are wanted; else the first value is the tensor.
///
/// **Source**: the function body of <https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html>; where all
/// elements are 0 the scale is 1, as in ONNX Runtime.
pub(super) fn dynamic(draft: &mut Draft<'_>, x: Value, quantize: bool) -> Result<[Value; 3], Failure> {
    if draft.dtype_of(x) != DType::F32 {
        let dtype = draft.dtype_of(x);
        return Err(Failure::unsupported(format!("dynamic quantization of {dtype}; f32 is expected")));
    }
    let (nothing, most) = (draft.number(DType::F32, 0.0), draft.number(DType::F32, 255.0));
    let one = draft.number(DType::F32, 1.0);
    let low = draft.reduce_all("ReduceMin", x)?;
    let low = draft.node("Min", &[low, nothing])?;
    let high = draft.reduce_all("ReduceMax", x)?;
    let high = draft.node("Max", &[high, nothing])?;
    let range = draft.node("Sub", &[high, low])?;
    let flat = draft.node("Equal", &[range, nothing])?;
    let step = draft.node("Div", &[range, most])?;
    let scale = draft.node("Where", &[flat, one, step])?;
    let below = draft.node("Div", &[low, scale])?;
    let zero = draft.node("Sub", &[nothing, below])?;
    let zero = draft.node("Clip", &[zero, nothing, most])?;
    let zero = draft.node("Round", &[zero])?;
    let zero = draft.cast(zero, DType::U8)?;
    let y = if quantize { draft.node("QuantizeLinear", &[x, scale, zero])? } else { x };
    Ok([y, scale, zero])
}

/// True for a zero point that a kernel takes: absent, or a constant that fits `fits`.
fn is_direct(draft: &Draft<'_>, zero: Option<Value>, fits: impl Fn(&Tensor) -> bool) -> bool {
    match zero {
        None => true,
        Some(value) => draft.graph.constant(value).is_some_and(fits),
    }
}

fn mat_mul_integer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(4)?;
    let (a, b) = (draft.operand(0, "A")?, draft.operand(1, "B")?);
    let (a_zero, b_zero) = (draft.input(2), draft.input(3));
    let y = mat_mul(&mut draft, [a, b], [a_zero, b_zero])?;
    draft.finish_with(vec![Some(y)])
}

/// The product of integer matrices with their zero points taken away, i32.
pub(super) fn mat_mul(
    draft: &mut Draft<'_>,
    [a, b]: [Value; 2],
    [a_zero, b_zero]: [Option<Value>; 2],
) -> Result<Value, Failure> {
    let is_vector = draft.rank_of(a)? < 2 || draft.rank_of(b)? < 2;
    let constant_b = draft.graph.constant(b).is_some();
    let columns = draft.shape_of(b)?.last().and_then(|dim| dim.as_usize());
    let a_direct = is_vector || is_direct(draft, a_zero, |zero| zero.len() == 1);
    let b_direct = is_vector
        || is_direct(draft, b_zero, |zero| zero.len() == 1 || constant_b && Some(zero.len()) == columns);
    let own = |zero: Option<Value>, direct: bool| zero.filter(|_| direct);
    let operands = vec![Some(a), Some(b), own(a_zero, a_direct), own(b_zero, b_direct)];
    let mut y = draft.before("MatMulInteger", &Attrs::new(), operands)?;
    if let Some(zero) = a_zero.filter(|_| !a_direct) {
        let centred = without_zero(draft, b, b_zero)?;
        let sums = draft.reduce("ReduceSum", centred, &[-2])?;
        y = take_away(draft, y, zero, sums, true)?;
    }
    if let Some(zero) = b_zero.filter(|_| !b_direct) {
        let centred = without_zero(draft, a, own(a_zero, a_direct))?;
        let sums = draft.reduce("ReduceSum", centred, &[-1])?;
        y = take_away(draft, y, zero, sums, false)?;
    }
    Ok(y)
}

/// A tensor less its zero point, as i32.
fn without_zero(draft: &mut Draft<'_>, tensor: Value, zero: Option<Value>) -> Result<Value, Failure> {
    let wide = draft.cast(tensor, DType::I32)?;
    match zero {
        None => Ok(wide),
        Some(zero) => {
            let zero = draft.cast(zero, DType::I32)?;
            draft.node("Sub", &[wide, zero])
        }
    }
}

/// `y − zero · sums`; a vector of zero points is one for each row or for each column.
fn take_away(
    draft: &mut Draft<'_>,
    y: Value,
    zero: Value,
    sums: Value,
    rows: bool,
) -> Result<Value, Failure> {
    let mut zero = draft.cast(zero, DType::I32)?;
    if rows && draft.rank_of(zero)? == 1 && !draft.shape_of(zero)?[0].is(1) {
        zero = draft.unsqueeze(zero, vec![1])?;
    }
    let product = draft.node("Mul", &[sums, zero])?;
    draft.node("Sub", &[y, product])
}

fn conv_integer(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    let (x, w) = (draft.operand(0, "x")?, draft.operand(1, "w")?);
    let (x_zero, w_zero) = (draft.input(2), draft.input(3));
    let constant_w = draft.graph.constant(w).is_some() && is_direct(&draft, w_zero, |_| true);
    let Some(zero) = x_zero.filter(|_| constant_w && !is_direct(&draft, x_zero, |_| true)) else {
        return draft.finish();
    };
    let attrs = std::mem::take(&mut draft.attrs);
    let sums = draft.before("ConvInteger", &attrs, vec![Some(x), Some(w), None, w_zero])?;
    // Near the border not all weights meet an element: an image of ones tells the sums of those that do.
    let rank = draft.rank_of(x)?;
    let (one, rest) = (draft.list("one", vec![1]), draft.dims(x, 1, rank)?);
    let shape = draft.concat(0, &[one, rest])?;
    let one = Tensor::from_i64s(draft.dtype_of(x), &[1], &[1]);
    let ones =
        draft.node_with("ConstantOfShape", &Attrs::new().with("value", Attr::Tensor(one)), &[shape])?;
    let weights = draft.before("ConvInteger", &attrs, vec![Some(ones), Some(w), None, w_zero])?;
    let zero = draft.cast(zero, DType::I32)?;
    let product = draft.node("Mul", &[weights, zero])?;
    let y = draft.node("Sub", &[sums, product])?;
    draft.finish_with(vec![Some(y)])
}
