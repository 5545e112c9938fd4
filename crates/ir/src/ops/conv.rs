//! Convolutions.
//!
//! `Conv`: X `[N, C, d1, …]`, W `[M, C/group, k1, …]`, optional B `[M]` → Y `[N, M, o1, …]`,
//! Y[n, m, o] = B[m] + Σ X[n, c, o·stride + tap·dilation − pad] · W[m, c, tap] over the channels of m's group.
//! `ConvTranspose`: W is `[C, M/group, k1, …]`; each input element adds its multiple of the window to the
//! output. Any number of spatial axes.
//!
//! **Dtypes**: f16, bf16, f32, f64, the same for all.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Conv.html>,
//! <https://onnx.ai/onnx/operators/onnx__ConvTranspose.html>.
//! **Opsets**: `Conv` 1, 11 (defaults of strides and dilations), 22 (bf16); `ConvTranspose` 1, 11 (same), 22
//! (bf16). The attributes mean the same in all.

use super::contract::{self, Acc, PANEL};
use super::dense::{filled, is_real, output_type, same_dtype};
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::window::{TapTable, extents, set_extents};
use super::{Geometry, InferCx, OpDef, OpError, Window};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// `Conv`: operands X, W, optional B.
#[derive(Clone, Debug, PartialEq)]
pub struct Conv {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
}

impl OpDef for Conv {
    const NAMES: &'static [&'static str] = &["Conv"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[&Window::ATTRS[..], &["group"]].concat())?;
        Ok(Conv { window: Window::from_attrs(attrs)?, group: group_attr(attrs)? })
    }

    fn name(&self) -> &'static str {
        "Conv"
    }

    fn attrs(&self) -> Attrs {
        window_attrs(&self.window, self.group)
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        same_dtype(1, w.dtype(), x.dtype())?;
        let (shape, _) = conv_shape(&self.window, self.group, x.shape(), w.shape(), cx)?;
        check_bias(inputs, 2, x, &shape[1], cx)?;
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "W")?);
        let layout = Layout::of_conv(&self.window, self.group, x.shape(), w.shape())?;
        let mut y = filled(&shape, 0.0)?;
        layout.convolve(&x.to_f64s(), &w.to_f64s(), &mut y);
        add_bias(&mut y, optional(inputs, 2), &layout);
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// `ConvTranspose`: operands X, W, optional B.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvTranspose {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
    /// Extra size at the end of each axis; empty for none.
    pub output_padding: Vec<usize>,
    /// Spatial shape asked for; empty for none.
    pub output_shape: Vec<usize>,
}

impl ConvTranspose {
    fn shape(&self, x: &[Dim], w: &[Dim], cx: &mut InferCx) -> Result<(Vec<Dim>, Geometry), OpError> {
        let kernel = spatial_kernel(x, w)?;
        let group = Dim::from(self.group);
        cx.require_equal(&x[1], &w[0])
            .map_err(|_| OpError::Shape(format!("X has {} channels, W takes {}", x[1], w[0])))?;
        if let Some(channels) = w[0].as_usize().filter(|c| c % self.group != 0) {
            return Err(OpError::Shape(format!("{channels} channels in {} groups", self.group)));
        }
        let geometry =
            self.window.transposed_geometry(&x[2..], &kernel, &self.output_padding, &self.output_shape)?;
        let mut shape = vec![x[0].clone(), w[1].clone() * group];
        shape.extend(geometry.output.iter().cloned());
        Ok((shape, geometry))
    }
}

impl OpDef for ConvTranspose {
    const NAMES: &'static [&'static str] = &["ConvTranspose"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[&Window::ATTRS[..], &["group", "output_padding", "output_shape"]].concat())?;
        Ok(ConvTranspose {
            window: Window::from_attrs(attrs)?,
            group: group_attr(attrs)?,
            output_padding: extents(attrs, "output_padding", 0)?,
            output_shape: extents(attrs, "output_shape", 1)?,
        })
    }

    fn name(&self) -> &'static str {
        "ConvTranspose"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = window_attrs(&self.window, self.group);
        set_extents(&mut attrs, "output_padding", &self.output_padding);
        set_extents(&mut attrs, "output_shape", &self.output_shape);
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        same_dtype(1, w.dtype(), x.dtype())?;
        let (shape, _) = self.shape(x.shape(), w.shape(), cx)?;
        check_bias(inputs, 2, x, &shape[1], cx)?;
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "W")?);
        let (_, geometry) = self.shape(&dims(x.shape()), &dims(w.shape()), &mut InferCx::new(""))?;
        let table = TapTable::transposed(&geometry, &x.shape()[2..])?;
        let layout = Layout::new(x.shape(), shape[1], self.group, table);
        let mut y = filled(&shape, 0.0)?;
        layout.convolve(&x.to_f64s(), &self.rows_of_outputs(&w.to_f64s(), &layout), &mut y);
        add_bias(&mut y, optional(inputs, 2), &layout);
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

impl ConvTranspose {
    /// Weights `[C, M/group, taps]` as `[M, C/group, taps]`, the order of `Conv`.
    fn rows_of_outputs(&self, w: &[f64], layout: &Layout) -> Vec<f64> {
        let taps = layout.table.taps;
        let (inputs, outputs) = (layout.channels / self.group, layout.outputs / self.group);
        let mut rows = Vec::with_capacity(w.len());
        for m in 0..layout.outputs {
            for c in 0..inputs {
                let from = ((m / outputs * inputs + c) * outputs + m % outputs) * taps;
                rows.extend_from_slice(&w[from..from + taps]);
            }
        }
        rows
    }
}

/// Shape and geometry of a convolution of X by W; the integer one is the same.
pub(super) fn conv_shape(
    window: &Window,
    group: usize,
    x: &[Dim],
    w: &[Dim],
    cx: &mut InferCx,
) -> Result<(Vec<Dim>, Geometry), OpError> {
    let kernel = spatial_kernel(x, w)?;
    let taken = w[1].clone() * Dim::from(group);
    cx.require_equal(&x[1], &taken).map_err(|_| {
        OpError::Shape(format!("X has {} channels, W takes {} in {group} groups", x[1], w[1]))
    })?;
    if let Some(outputs) = w[0].as_usize().filter(|m| m % group != 0) {
        return Err(OpError::Shape(format!("{outputs} output channels in {group} groups")));
    }
    let geometry = window.geometry(&x[2..], &kernel, false)?;
    let mut shape = vec![x[0].clone(), w[0].clone()];
    shape.extend(geometry.output.iter().cloned());
    Ok((shape, geometry))
}

/// Where operands and result of a convolution lie.
pub(super) struct Layout {
    batch: usize,
    channels: usize,
    /// Output channels.
    pub(super) outputs: usize,
    group: usize,
    /// Elements of one input channel.
    plane: usize,
    /// What each output position reads.
    pub(super) table: TapTable,
}

impl Layout {
    /// For shapes that [`conv_shape`] has accepted.
    pub(super) fn of_conv(window: &Window, group: usize, x: &[usize], w: &[usize]) -> Result<Self, OpError> {
        let (_, geometry) = conv_shape(window, group, &dims(x), &dims(w), &mut InferCx::new(""))?;
        Ok(Self::new(x, w[0], group, TapTable::forward(&geometry, &x[2..])?))
    }

    fn new(x: &[usize], outputs: usize, group: usize, table: TapTable) -> Self {
        let plane = x[2..].iter().product();
        Layout { batch: x[0], channels: x[1], outputs, group, plane, table }
    }

    /// Adds nothing but products: `y[n, m, position] = Σ x · w`, weights as `[M, C/group, taps]`.
    pub(super) fn convolve<T: Acc>(&self, x: &[T], w: &[T], y: &mut [T]) {
        let (table, plane) = (&self.table, self.plane);
        let (inputs, rows) = (self.channels / self.group, self.outputs / self.group);
        let depth = inputs * table.taps;
        for image in 0..self.batch {
            for group in 0..self.group {
                let x = &x[(image * self.channels + group * inputs) * plane..][..inputs * plane];
                let w = &w[group * rows * depth..][..rows * depth];
                let y = &mut y[(image * self.outputs + group * rows) * table.positions..];
                let pack = |first: usize, panel: &mut [T]| {
                    for column in 0..PANEL.min(table.positions - first) {
                        let offsets = table.row(first + column);
                        for (c, panel) in panel.chunks_exact_mut(table.taps * PANEL).enumerate() {
                            let x = &x[c * plane..][..plane];
                            for (slot, &offset) in panel.chunks_exact_mut(PANEL).zip(offsets) {
                                slot[column] = x.get(offset).copied().unwrap_or_default();
                            }
                        }
                    }
                };
                let store = |row: usize, column: usize, values: &[T]| {
                    y[row * table.positions + column..][..values.len()].copy_from_slice(values);
                };
                contract::multiply(w, [rows, depth, table.positions], pack, store);
            }
        }
    }
}

fn add_bias(y: &mut [f64], bias: Option<&Tensor>, layout: &Layout) {
    let Some(bias) = bias.map(Tensor::to_f64s) else { return };
    if layout.table.positions == 0 {
        return;
    }
    for (row, y) in y.chunks_exact_mut(layout.table.positions).enumerate() {
        let bias = bias[row % layout.outputs];
        y.iter_mut().for_each(|y| *y += bias);
    }
}

/// The extents of the window, from the weights.
fn spatial_kernel(x: &[Dim], w: &[Dim]) -> Result<Vec<usize>, OpError> {
    if x.len() < 3 || w.len() != x.len() {
        return Err(OpError::Shape(format!(
            "X {x:?} and W {w:?} must have the same rank, with at least one spatial axis"
        )));
    }
    let kernel: Option<Vec<usize>> = w[2..].iter().map(Dim::as_usize).collect();
    kernel.ok_or_else(|| OpError::Unsupported(format!("weights {w:?} whose spatial shape is not known")))
}

fn check_bias(
    inputs: &[Option<&Fact>],
    slot: usize,
    x: &Fact,
    outputs: &Dim,
    cx: &mut InferCx,
) -> Result<(), OpError> {
    let Some(bias) = optional(inputs, slot) else { return Ok(()) };
    same_dtype(slot, bias.dtype(), x.dtype())?;
    bias_shape(bias.shape(), outputs, cx)
}

/// Checks that a bias is one number for each output.
pub(super) fn bias_shape(bias: &[Dim], outputs: &Dim, cx: &mut InferCx) -> Result<(), OpError> {
    let refused = || OpError::Shape(format!("bias {bias:?} for {outputs} outputs"));
    match bias {
        [dim] => cx.require_equal(dim, outputs).map_err(|_| refused()),
        _ => Err(refused()),
    }
}

pub(super) fn group_attr(attrs: &Attrs) -> Result<usize, OpError> {
    let group = attrs.int("group", 1)?;
    usize::try_from(group).ok().filter(|&g| g > 0).ok_or_else(|| OpError::Attribute {
        name: "group".to_owned(),
        value: group.to_string(),
        reason: "expected at least 1".to_owned(),
    })
}

pub(super) fn window_attrs(window: &Window, group: usize) -> Attrs {
    let mut attrs = Attrs::new();
    window.write(&mut attrs);
    if group != 1 {
        attrs.set("group", Attr::Int(group as i64));
    }
    attrs
}

fn dims(shape: &[usize]) -> Vec<Dim> {
    shape.iter().map(|&d| Dim::from(d)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, ints, num, op, shape, sym, values};

    #[test]
    fn asymmetric_padding_and_bias() {
        let conv = op("Conv", Attrs::new().with("pads", ints(&[1, 0])));
        let (x, w, b) = (f32s(&[1, 1, 3], &[1., 2., 3.]), f32s(&[1, 1, 2], &[10., 1.]), f32s(&[1], &[0.5]));
        assert_eq!(values(&conv, &[&x, &w, &b]), [1.5, 12.5, 23.5]);
    }

    #[test]
    fn groups_strides_and_dilations() {
        let attrs = Attrs::new()
            .with("group", Attr::Int(2))
            .with("strides", ints(&[2]))
            .with("dilations", ints(&[2]));
        let (x, w) = (counting(&[1, 2, 6]), f32s(&[4, 1, 2], &[1., 0., 0., 1., 1., 1., -1., 1.]));
        // Channels 1..6 and 7..12; windows start at 0 and 2, and take every other element.
        assert_eq!(values(&op("Conv", attrs), &[&x, &w]), [1., 3., 3., 5., 16., 20., 2., 2.]);
    }

    #[test]
    fn three_spatial_axes_count_their_taps() {
        let (x, w) = (f32s(&[1, 1, 3, 3, 3], &[1.; 27]), f32s(&[1, 1, 2, 2, 2], &[1.; 8]));
        let conv = op("Conv", Attrs::new().with("auto_pad", Attr::Str("SAME_UPPER".to_owned())));
        let y = values(&conv, &[&x, &w]);
        assert_eq!((y[0], y[2], y[8], y[26]), (8., 4., 2., 1.));
    }

    #[test]
    fn transposed_spreads_each_element() {
        let attrs = Attrs::new().with("strides", ints(&[2])).with("output_padding", ints(&[1]));
        let (x, w) = (f32s(&[1, 1, 2], &[1., 10.]), f32s(&[1, 1, 3], &[1., 2., 3.]));
        assert_eq!(values(&op("ConvTranspose", attrs), &[&x, &w]), [1., 2., 13., 20., 30., 0.]);
        let cut = Attrs::new().with("strides", ints(&[2])).with("pads", ints(&[1, 0]));
        assert_eq!(values(&op("ConvTranspose", cut), &[&x, &w]), [2., 13., 20., 30.]);
    }

    #[test]
    fn transposed_groups() {
        let attrs = Attrs::new().with("group", Attr::Int(2));
        let (x, w) = (f32s(&[1, 2, 1], &[1., 10.]), f32s(&[2, 2, 1], &[1., 2., 3., 4.]));
        assert_eq!(values(&op("ConvTranspose", attrs), &[&x, &w]), [1., 2., 30., 40.]);
    }

    #[test]
    fn symbolic_batch_and_size() {
        let conv = op("Conv", Attrs::new().with("strides", ints(&[2, 1])).with("pads", ints(&[1, 1, 1, 1])));
        let x = vec![sym("b"), num(3), num(2) * sym("h"), sym("w")];
        let w = vec![num(8), num(3), num(3), num(3)];
        let (shape, equal) = shape(&conv, &[x, w]).unwrap();
        assert_eq!(shape[..2], [sym("b"), num(8)]);
        assert_eq!(shape[2].eval(&|_| Some(5)), Ok(5));
        assert_eq!(shape[3], sym("w"));
        assert!(equal.is_empty());
    }

    #[test]
    fn wrong_operands_are_refused() {
        let conv = op("Conv", Attrs::new().with("group", Attr::Int(2)));
        let dims = |dims: &[i64]| dims.iter().map(|&d| num(d)).collect::<Vec<Dim>>();
        for (x, w) in [
            (dims(&[1, 3, 8]), dims(&[4, 2, 3])),
            (dims(&[1, 4, 8]), dims(&[3, 2, 3])),
            (dims(&[1, 4]), dims(&[4, 2])),
            (dims(&[1, 4, 2]), dims(&[4, 2, 3])),
            (dims(&[1, 4, 8]), dims(&[4, 2, 0])),
        ] {
            assert!(shape(&conv, &[x, w]).is_err());
        }
        assert!(Conv::from_attrs("Conv", &Attrs::new().with("group", Attr::Int(0))).is_err());
        assert!(Conv::from_attrs("Conv", &Attrs::new().with("grp", Attr::Int(1))).is_err());
    }

    #[test]
    fn no_images() {
        let y = eval(&op("Conv", Attrs::new()), &[&counting(&[0, 2, 4]), &counting(&[3, 2, 2])]).unwrap();
        assert_eq!(y.shape(), [0, 3, 3]);
    }
}
