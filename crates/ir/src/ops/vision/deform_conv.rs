//! `DeformConv`: a convolution whose taps are read where offsets move them.
//!
//! X `[N, C, d1, …, dr]`, W `[M, C/group, k1, …, kr]`, offset `[N, offset_group · Πk · r, o1, …]`, optional B `[M]`,
//! optional mask `[N, offset_group · Πk, o1, …]` → Y `[N, M, o1, …]`:
//! Y[n, m, o] = B[m] + Σ mask · X[n, c, o · stride + tap · dilation − pad + offset] · W[m, c, tap] over taps and the
//! channels of m's group. X is interpolated linearly, and 0 outside. The channels of X are in `offset_group` groups
//! that are moved, and masked, together.
//!
//! **Dtypes**: f16, bf16, f32, f64, the same for all.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__DeformConv.html>.
//! **Opsets**: 19, 22 (bf16).

use super::{linear_taps, products};
use crate::ops::conv::{bias_shape, conv_shape, group_attr, window_attrs};
use crate::ops::dense::{filled, is_real, output_type, same_dtype};
use crate::ops::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use crate::ops::{Geometry, InferCx, OpDef, OpError, Window};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::Tensor;

/// `DeformConv`: operands X, W, offset, optional B, optional mask.
#[derive(Clone, Debug, PartialEq)]
pub struct DeformConv {
    /// Geometry.
    pub window: Window,
    /// Groups of channels that are convolved together.
    pub group: usize,
    /// Groups of channels that are moved together.
    pub offset_group: usize,
}

impl DeformConv {
    /// Shape and geometry, checked with the offsets and the mask.
    fn shape(
        &self,
        shapes: [&[Dim]; 3],
        mask: Option<&[Dim]>,
        cx: &mut InferCx,
    ) -> Result<(Vec<Dim>, Geometry), OpError> {
        let [x, w, offset] = shapes;
        let (shape, geometry) = conv_shape(&self.window, self.group, x, w, cx)?;
        if let Some(channels) = x[1].as_usize().filter(|c| c % self.offset_group != 0) {
            return Err(OpError::Shape(format!(
                "{channels} channels in {} offset groups",
                self.offset_group
            )));
        }
        let taps = Dim::from(geometry.taps()) * Dim::from(self.offset_group);
        let moved = taps.clone() * Dim::from(x.len() - 2);
        for (name, actual, numbers) in [("offset", Some(offset), moved), ("mask", mask, taps)] {
            let Some(actual) = actual else { continue };
            let mut expected = shape.clone();
            expected[1] = numbers;
            let refused = || OpError::Shape(format!("{name} is {actual:?}, expected {expected:?}"));
            if actual.len() != expected.len() {
                return Err(refused());
            }
            for (a, b) in actual.iter().zip(&expected) {
                cx.require_equal(a, b).map_err(|_| refused())?;
            }
        }
        Ok((shape, geometry))
    }
}

impl OpDef for DeformConv {
    const NAMES: &'static [&'static str] = &["DeformConv"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["kernel_shape", "strides", "dilations", "pads", "group", "offset_group"])?;
        let offset_group = attrs.int("offset_group", 1)?;
        let offset_group = u32::try_from(offset_group)
            .ok()
            .filter(|&g| g > 0)
            .ok_or_else(|| super::refused("offset_group", offset_group, "expected at least 1"))?;
        let window = Window::from_attrs(attrs)?;
        Ok(DeformConv { window, group: group_attr(attrs)?, offset_group: offset_group as usize })
    }

    fn name(&self) -> &'static str {
        "DeformConv"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = window_attrs(&self.window, self.group);
        attrs.set("offset_group", Attr::Int(self.offset_group as i64));
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 5)?;
        let (x, w) = (required(inputs, 0, "X")?, required(inputs, 1, "W")?);
        let offset = required(inputs, 2, "offset")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        for slot in 1..5 {
            if let Some(operand) = optional(inputs, slot) {
                same_dtype(slot, operand.dtype(), x.dtype())?;
            }
        }
        let mask = optional(inputs, 4).map(Fact::shape);
        let (shape, _) = self.shape([x.shape(), w.shape(), offset.shape()], mask, cx)?;
        if let Some(bias) = optional(inputs, 3) {
            bias_shape(bias.shape(), &shape[1], cx)?;
        }
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "X")?, required_tensor(inputs, 1, "W")?);
        let dims = |tensor: &Tensor| tensor.shape().iter().map(|&d| Dim::from(d)).collect::<Vec<_>>();
        let (_, geometry) = conv_shape(&self.window, self.group, &dims(x), &dims(w), &mut InferCx::new(""))?;
        let offset = required_tensor(inputs, 2, "offset")?.to_f64s();
        let mask = optional(inputs, 4).map(Tensor::to_f64s);
        let sizes = &x.shape()[2..];
        let (plane, positions): (usize, usize) = (sizes.iter().product(), shape[2..].iter().product());
        let (channels, outputs, taps) = (x.shape()[1], shape[1], geometry.taps());
        let (x, w) = (x.to_f64s(), w.to_f64s());
        let mut y = filled(&shape, 0.0)?;
        if let Some(bias) = optional(inputs, 3).map(Tensor::to_f64s) {
            for (row, y) in y.chunks_exact_mut(positions.max(1)).enumerate() {
                y.fill(bias[row % outputs]);
            }
        }
        let (inputs_of, outputs_of) = (channels / self.group, outputs / self.group);
        let moved_together = channels / self.offset_group;
        for at in 0..shape[0] * positions * self.offset_group * taps {
            let (rest, tap) = (at / taps, at % taps);
            let (rest, moved) = (rest / self.offset_group, rest % self.offset_group);
            let (image, position) = (rest / positions, rest % positions);
            let number = (image * self.offset_group + moved) * taps + tap;
            let factor = mask.as_ref().map_or(1.0, |mask| mask[number * positions + position]);
            let by = |axis: usize| offset[(number * sizes.len() + axis) * positions + position];
            let read = reads(&geometry, sizes, &shape[2..], (position, tap), by);
            for c in moved * moved_together..(moved + 1) * moved_together {
                let x = &x[(image * channels + c) * plane..][..plane];
                let value = factor * read.iter().map(|&(offset, weight)| x[offset] * weight).sum::<f64>();
                let group = c / inputs_of;
                for m in group * outputs_of..(group + 1) * outputs_of {
                    let w = w[(m * inputs_of + c % inputs_of) * taps + tap];
                    y[(image * outputs + m) * positions + position] += value * w;
                }
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// Offsets into a plane that a tap reads at an output position, and their weights.
fn reads(
    geometry: &Geometry,
    sizes: &[usize],
    output: &[usize],
    (mut position, mut tap): (usize, usize),
    moved: impl Fn(usize) -> f64,
) -> Vec<(usize, f64)> {
    let mut taps = Vec::with_capacity(sizes.len());
    for axis in (0..sizes.len()).rev() {
        let (at, k) = (position % output[axis], tap % geometry.kernel[axis]);
        (position, tap) = (position / output[axis], tap / geometry.kernel[axis]);
        let start = (at * geometry.strides[axis] + k * geometry.dilations[axis]) as f64;
        let pad = geometry.pads_begin[axis].as_const().unwrap_or(0) as f64;
        taps.push(linear_taps(start - pad + moved(axis), sizes[axis]));
    }
    let taps: Vec<_> = sizes.iter().zip(taps.iter().rev()).map(|(&size, taps)| (size, &taps[..])).collect();
    products(&taps)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, ints, op, values};

    #[test]
    fn without_offsets_it_is_a_convolution() {
        let attrs = || Attrs::new().with("pads", ints(&[1, 0, 0, 1])).with("group", Attr::Int(2));
        let (x, w) = (counting(&[1, 2, 3, 3]), counting(&[4, 1, 2, 2]));
        let still = Tensor::zeros(rabot_tensor::DType::F32, &[1, 8, 3, 3]);
        let bias = f32s(&[4], &[1., 2., 3., 4.]);
        let expected = values(&op("Conv", attrs()), &[&x, &w, &bias]);
        assert_eq!(values(&op("DeformConv", attrs()), &[&x, &w, &still, &bias]), expected);
    }

    #[test]
    fn taps_are_moved_and_masked() {
        let deform = op("DeformConv", Attrs::new());
        let (x, w) = (counting(&[1, 1, 4]), f32s(&[1, 1, 1], &[10.]));
        let offset = f32s(&[1, 1, 4], &[0.5, 1., -3., 1.5]);
        assert_eq!(values(&deform, &[&x, &w, &offset]), [15., 30., 0., 0.]);
        let mask = f32s(&[1, 1, 4], &[2., 0., 1., 1.]);
        let masked = deform.eval(&[Some(&x), Some(&w), Some(&offset), None, Some(&mask)]).unwrap();
        assert_eq!(masked[0].to_f64s(), [30., 0., 0., 0.]);
        assert!(eval(&deform, &[&x, &w, &f32s(&[1, 2, 4], &[0.; 8])]).is_err());
    }
}
