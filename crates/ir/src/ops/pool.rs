//! Pooling.
//!
//! `MaxPool`, `AveragePool`: X `[N, C, d1, …]` → Y `[N, C, o1, …]`, the maximum or the mean of the elements
//! under the window. Padding never wins a maximum. A mean divides by the number of data elements under the
//! window, or, with `count_include_pad`, of taps that lie within data and padding; what `ceil_mode` adds
//! beyond the padding never counts. `GlobalMaxPool`, `GlobalAveragePool`: the window is the whole plane, and
//! every spatial dim of Y is 1. A NaN under the window gives NaN. Over no element at all, a maximum is the
//! lowest value of its dtype, a mean NaN.
//!
//! With `num_outputs = 2`, an attribute of rabot's, `MaxPool` also gives where each maximum was found, the first of
//! equals: an index (i64) into all of X, or, with `storage_order = 1`, that of planes stored by columns. A window
//! over no element has −1. `storage_order` speaks of nothing else and is dropped without indices.
//!
//! **Dtypes**: f16, bf16, f32, f64; `MaxPool` i8 and u8 too.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__MaxPool.html>,
//! <https://onnx.ai/onnx/operators/onnx__AveragePool.html>,
//! <https://onnx.ai/onnx/operators/onnx__GlobalAveragePool.html>.
//! **Opsets**: `MaxPool` 1, 8 (indices), 10 (ceil_mode, dilations), 11, 12 (i8, u8), 22 (bf16); `AveragePool`
//! 1, 7 (count_include_pad), 10 (ceil_mode), 11, 19 (dilations), 22 (bf16); global pools 1, 22 (bf16).

use super::dense::{filled, is_real, output_type};
use super::util::{arity, expect_dtype, known_attrs, required, required_tensor};
use super::window::TapTable;
use super::{Geometry, InferCx, OpDef, OpError, Window};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// What pooling computes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PoolKind {
    /// The largest element.
    Max,
    /// The mean.
    Average,
}

/// Pooling over a sliding window.
#[derive(Clone, Debug, PartialEq)]
pub struct Pool {
    /// Max or average.
    pub kind: PoolKind,
    /// Geometry.
    pub window: Window,
    /// Round the output size up.
    pub ceil_mode: bool,
    /// Averages count padding.
    pub count_include_pad: bool,
    /// `MaxPool` has a second output.
    pub indices: Option<StorageOrder>,
}

/// How planes are stored, for indices of their elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageOrder {
    /// The last axis is the one without gaps.
    Rows,
    /// The first spatial axis is.
    Columns,
}

impl Pool {
    /// The window laid over an input with these spatial dims.
    ///
    /// **Errors**: as [`Window::geometry`].
    pub fn geometry(&self, input: &[Dim]) -> Result<Geometry, OpError> {
        self.window.geometry(input, &self.window.kernel_shape, self.ceil_mode)
    }
}

impl OpDef for Pool {
    const NAMES: &'static [&'static str] = &["MaxPool", "AveragePool"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        let kind = if name == "MaxPool" { PoolKind::Max } else { PoolKind::Average };
        let own = match kind {
            PoolKind::Max => &["ceil_mode", "storage_order", "num_outputs"][..],
            PoolKind::Average => &["ceil_mode", "count_include_pad"],
        };
        known_attrs(attrs, &[&Window::ATTRS[..], own].concat())?;
        let window = Window::from_attrs(attrs)?;
        if window.kernel_shape.is_empty() {
            return Err(OpError::MissingAttribute("kernel_shape".to_owned()));
        }
        Ok(Pool {
            kind,
            window,
            ceil_mode: attrs.int("ceil_mode", 0)? != 0,
            count_include_pad: attrs.int("count_include_pad", 0)? != 0,
            indices: indices_attr(attrs)?,
        })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "MaxPool",
            PoolKind::Average => "AveragePool",
        }
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        self.window.write(&mut attrs);
        for (name, value) in [("ceil_mode", self.ceil_mode), ("count_include_pad", self.count_include_pad)] {
            if value {
                attrs.set(name, Attr::Int(1));
            }
        }
        if let Some(order) = self.indices {
            attrs.set("num_outputs", Attr::Int(2));
            attrs.set("storage_order", Attr::Int(i64::from(order == StorageOrder::Columns)));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        check_dtype(self.kind, x.dtype())?;
        let [batch, channels, spatial @ ..] = x.shape() else { return Err(no_plane(x)) };
        let mut shape = vec![batch.clone(), channels.clone()];
        shape.extend(self.geometry(spatial)?.output);
        let mut facts = vec![Fact::of_type(x.dtype(), shape.clone())];
        if self.indices.is_some() {
            facts.push(Fact::of_type(DType::I64, shape));
        }
        Ok(facts)
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let input = &x.shape()[2..];
        let dims: Vec<Dim> = input.iter().map(|&d| Dim::from(d)).collect();
        let geometry = self.geometry(&dims)?;
        let table = TapTable::forward(&geometry, input)?;
        let counts = match self.count_include_pad {
            true => padded_counts(&geometry, input),
            false => (0..table.positions).map(|p| data_taps(&table, p).count() as f64).collect(),
        };
        let plane: usize = input.iter().product();
        if let Some(order) = self.indices {
            return maxima(x, &shape, &table, order);
        }
        let (values, mut y) = (x.to_f64s(), filled(&shape, 0.0)?);
        for (channel, y) in y.chunks_exact_mut(table.positions.max(1)).enumerate() {
            let x = &values[channel * plane..][..plane];
            for (position, y) in y.iter_mut().enumerate() {
                let taken = data_taps(&table, position).map(|offset| x[offset]);
                *y = match self.kind {
                    PoolKind::Max => taken.fold(lowest(dtype), larger),
                    PoolKind::Average => taken.sum::<f64>() / counts[position],
                };
            }
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

/// The attribute `num_outputs` and what `storage_order` then says.
fn indices_attr(attrs: &Attrs) -> Result<Option<StorageOrder>, OpError> {
    let order = match attrs.int("storage_order", 0)? {
        0 => StorageOrder::Rows,
        1 => StorageOrder::Columns,
        other => return Err(attribute("storage_order", other, "expected 0 or 1")),
    };
    match attrs.int("num_outputs", 1)? {
        1 => Ok(None),
        2 => Ok(Some(order)),
        other => Err(attribute("num_outputs", other, "expected 1 or 2")),
    }
}

fn attribute(name: &str, value: i64, reason: &str) -> OpError {
    OpError::Attribute { name: name.to_owned(), value: value.to_string(), reason: reason.to_owned() }
}

/// Maxima and where they are.
fn maxima(
    x: &Tensor,
    shape: &[usize],
    table: &TapTable,
    order: StorageOrder,
) -> Result<Vec<Tensor>, OpError> {
    let input = &x.shape()[2..];
    let plane: usize = input.iter().product();
    let values = x.to_f64s();
    let (mut y, mut indices) = (filled(shape, lowest(x.dtype()))?, filled(shape, -1i64)?);
    let results =
        y.chunks_exact_mut(table.positions.max(1)).zip(indices.chunks_exact_mut(table.positions.max(1)));
    for (channel, (y, indices)) in results.enumerate() {
        let x = &values[channel * plane..][..plane];
        for (position, (y, index)) in y.iter_mut().zip(indices).enumerate() {
            let mut found: Option<usize> = None;
            for offset in data_taps(table, position) {
                let value = x[offset];
                if found.is_none_or(|best| value > x[best] || value.is_nan() && !x[best].is_nan()) {
                    found = Some(offset);
                }
            }
            if let Some(found) = found {
                *y = x[found];
                let within = if order == StorageOrder::Rows { found } else { by_columns(found, input) };
                *index = (channel * plane + within) as i64;
            }
        }
    }
    Ok(vec![Tensor::from_f64s(x.dtype(), shape, &y), Tensor::from_i64s(DType::I64, shape, &indices)])
}

/// The row-major offset into a plane as that of a plane whose first axis has no gaps.
fn by_columns(mut offset: usize, plane: &[usize]) -> usize {
    let mut step: usize = plane.iter().product();
    let mut result = 0;
    for &size in plane.iter().rev() {
        step /= size;
        result += offset % size * step;
        offset /= size;
    }
    result
}

fn data_taps(table: &TapTable, position: usize) -> impl Iterator<Item = usize> + '_ {
    table.row(position).iter().copied().filter(|&offset| offset != TapTable::OUTSIDE)
}

/// Taps of each output position that lie within data and padding.
fn padded_counts(geometry: &Geometry, input: &[usize]) -> Vec<f64> {
    let mut counts = vec![1.0];
    for (axis, &size) in input.iter().enumerate() {
        let pad = |dim: &Dim| dim.as_usize().unwrap_or(0);
        let end = pad(&geometry.pads_begin[axis]) + size + pad(&geometry.pads_end[axis]);
        let (stride, dilation) = (geometry.strides[axis], geometry.dilations[axis]);
        let within = |out: usize| {
            (0..geometry.kernel[axis]).filter(|tap| out * stride + tap * dilation < end).count() as f64
        };
        let here: Vec<f64> = (0..pad(&geometry.output[axis])).map(within).collect();
        counts = counts.iter().flat_map(|&outer| here.iter().map(move |&inner| outer * inner)).collect();
    }
    counts
}

/// The larger of two numbers; NaN if any is NaN.
pub(super) fn larger(a: f64, b: f64) -> f64 {
    if a >= b || a.is_nan() { a } else { b }
}

/// The maximum over nothing.
pub(super) fn lowest(dtype: DType) -> f64 {
    dtype.int_range().map_or(f64::NEG_INFINITY, |(low, _)| low as f64)
}

fn check_dtype(kind: PoolKind, dtype: DType) -> Result<(), OpError> {
    match kind {
        PoolKind::Max => expect_dtype(0, dtype, "f16, bf16, f32, f64, i8 or u8", |d| {
            is_real(d) || matches!(d, DType::I8 | DType::U8)
        }),
        PoolKind::Average => expect_dtype(0, dtype, "f16, bf16, f32 or f64", is_real),
    }
}

fn no_plane(x: &Fact) -> OpError {
    OpError::Shape(format!("X is {}, expected batch, channels and spatial axes", x.ty))
}

/// Pooling over all spatial axes.
#[derive(Clone, Debug, PartialEq)]
pub struct GlobalPool {
    /// Max or average.
    pub kind: PoolKind,
}

impl OpDef for GlobalPool {
    const NAMES: &'static [&'static str] = &["GlobalMaxPool", "GlobalAveragePool"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(GlobalPool { kind: if name == "GlobalMaxPool" { PoolKind::Max } else { PoolKind::Average } })
    }

    fn name(&self) -> &'static str {
        match self.kind {
            PoolKind::Max => "GlobalMaxPool",
            PoolKind::Average => "GlobalAveragePool",
        }
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let x = required(inputs, 0, "X")?;
        expect_dtype(0, x.dtype(), "f16, bf16, f32 or f64", is_real)?;
        let [batch, channels, spatial @ ..] = x.shape() else { return Err(no_plane(x)) };
        let mut shape = vec![batch.clone(), channels.clone()];
        shape.extend(spatial.iter().map(|_| Dim::from(1)));
        Ok(vec![Fact::of_type(x.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let x = required_tensor(inputs, 0, "X")?;
        let plane: usize = x.shape()[2..].iter().product();
        let (values, mut y) = (x.to_f64s(), filled(&shape, 0.0)?);
        for (channel, y) in y.iter_mut().enumerate() {
            let x = values[channel * plane..][..plane].iter().copied();
            *y = match self.kind {
                PoolKind::Max => x.fold(f64::NEG_INFINITY, larger),
                PoolKind::Average => x.sum::<f64>() / plane as f64,
            };
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, ints, num, op, shape, sym, values};

    fn attrs(kernel: &[i64], strides: &[i64], pads: &[i64]) -> Attrs {
        Attrs::new()
            .with("kernel_shape", ints(kernel))
            .with("strides", ints(strides))
            .with("pads", ints(pads))
    }

    #[test]
    fn padding_never_wins_a_maximum() {
        let x = f32s(&[1, 1, 3], &[-1., -2., -3.]);
        assert_eq!(values(&op("MaxPool", attrs(&[2], &[1], &[1, 1])), &[&x]), [-1., -1., -2., -3.]);
        let x = Tensor::from_vec(&[1, 1, 2], vec![-128i8, -5]);
        assert_eq!(values(&op("MaxPool", attrs(&[2], &[2], &[1, 1])), &[&x]), [-128., -5.]);
    }

    #[test]
    fn averages_divide_by_data_or_by_padding_too() {
        let x = f32s(&[1, 1, 3], &[2., 4., 6.]);
        let plain = attrs(&[3], &[2], &[1, 1]);
        assert_eq!(values(&op("AveragePool", plain.clone()), &[&x]), [3., 5.]);
        let with_pads = plain.with("count_include_pad", Attr::Int(1));
        assert_eq!(
            values(&op("AveragePool", with_pads), &[&x]),
            [2., 10. / 3.].map(|v: f32| f64::from(v)).to_vec()
        );
    }

    #[test]
    fn what_ceil_mode_adds_never_counts() {
        // The second window covers 4, one padding element, and one beyond.
        let x = f32s(&[1, 1, 4], &[1., 2., 3., 4.]);
        let attrs = attrs(&[3], &[3], &[0, 1])
            .with("ceil_mode", Attr::Int(1))
            .with("count_include_pad", Attr::Int(1));
        assert_eq!(values(&op("AveragePool", attrs), &[&x]), [2., 2.]);
    }

    #[test]
    fn dilated_maximum_in_two_dims() {
        let attrs = attrs(&[2, 2], &[1, 1], &[0, 0, 0, 0]).with("dilations", ints(&[2, 1]));
        assert_eq!(values(&op("MaxPool", attrs), &[&counting(&[1, 1, 3, 3])]), [8., 9.]);
    }

    #[test]
    fn nan_under_the_window_shows() {
        let x = f32s(&[1, 1, 3], &[f32::NAN, 1., 2.]);
        let y = values(&op("MaxPool", attrs(&[2], &[1], &[0, 0])), &[&x]);
        assert!(y[0].is_nan() && y[1] == 2.0);
    }

    #[test]
    fn global_pools() {
        let x = counting(&[1, 2, 2, 2]);
        assert_eq!(values(&op("GlobalAveragePool", Attrs::new()), &[&x]), [2.5, 6.5]);
        assert_eq!(eval(&op("GlobalMaxPool", Attrs::new()), &[&x]).unwrap(), f32s(&[1, 2, 1, 1], &[4., 8.]));
        let symbolic =
            shape(&op("GlobalMaxPool", Attrs::new()), &[vec![sym("n"), num(3), sym("h")]]).unwrap().0;
        assert_eq!(symbolic, [sym("n"), num(3), num(1)]);
    }

    #[test]
    fn indices_count_through_all_channels() {
        let x = f32s(&[1, 2, 2, 3], &[1., 5., 5., 2., 0., 3., 9., 1., 1., 1., 1., 9.]);
        let with = |order| {
            let attrs = attrs(&[2, 2], &[1, 1], &[0, 0, 0, 0]).with("num_outputs", Attr::Int(2));
            op("MaxPool", attrs.with("storage_order", Attr::Int(order)))
        };
        let indices = |order| with(order).eval(&[Some(&x)]).unwrap()[1].to_i64s();
        assert_eq!(values(&with(0), &[&x]), [5., 5., 9., 9.]);
        assert_eq!(indices(0), [1, 1, 6, 11]);
        assert_eq!(indices(1), [2, 2, 6, 11]);
        let nothing = op("MaxPool", attrs(&[1], &[1], &[1, 0]).with("num_outputs", Attr::Int(2)));
        assert_eq!(nothing.eval(&[Some(&f32s(&[1, 1, 1], &[7.]))]).unwrap()[1].to_i64s(), [-1, 0]);
    }

    #[test]
    fn refusals() {
        assert!(Pool::from_attrs("MaxPool", &Attrs::new()).is_err());
        let dropped = attrs(&[2], &[1], &[0, 0]).with("storage_order", Attr::Int(1));
        assert!(Pool::from_attrs("MaxPool", &dropped).is_ok());
        assert!(Pool::from_attrs("AveragePool", &dropped).is_err());
        let average = op("AveragePool", attrs(&[2], &[1], &[0, 0]));
        assert!(matches!(
            eval(&average, &[&Tensor::from_vec(&[1, 1, 2], vec![1u8, 2])]),
            Err(OpError::DType { slot: 0, .. })
        ));
        assert!(shape(&average, &[vec![num(2)]]).is_err());
    }
}
