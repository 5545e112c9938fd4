//! `Col2Im`: adds columns of blocks up into images, the reverse of taking blocks out of them.
//!
//! Block element `(c, k…)` of block `l…` is added to pixel `l·stride − pad_begin + k·dilation` of channel `c`, along each
//! spatial axis; what falls into the padding is dropped.
//!
//! **Shapes**: `x: [n, c·∏block, ∏blocks]`, `image: [s…]`, `block: [k…]` → `[n, c, s…]`.
//!
//! **Dtypes**: `x` any number or bool (which adds up as "or"); floats are added in f64 and rounded once. Shapes are i64.
//!
//! **Opsets**: 18.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__Col2Im.html>

use super::for_each_index;
use crate::ops::dense::filled;
use crate::ops::elementwise::is_numeric;
use crate::ops::util::{arity, expect_dtype, expect_index_list, known_attrs, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::{DType, Tensor};

/// `Col2Im`: operands input, image shape, block shape.
#[derive(Clone, Debug, PartialEq)]
pub struct Col2Im {
    /// Steps between blocks, by spatial axis; 1 by default.
    pub strides: Option<Vec<i64>>,
    /// Steps between elements of a block; 1 by default.
    pub dilations: Option<Vec<i64>>,
    /// Padding before each axis, then after each; 0 by default.
    pub pads: Option<Vec<i64>>,
}

/// One spatial axis.
struct Axis {
    image: i64,
    block: i64,
    stride: i64,
    dilation: i64,
    pad: i64,
    /// Number of blocks along it.
    count: usize,
}

impl Col2Im {
    /// An attribute of one value per spatial axis (or two). **Errors**: another number of values, or one too small.
    fn values(list: Option<&Vec<i64>>, name: &str, count: usize, least: i64) -> Result<Vec<i64>, OpError> {
        let values = list.cloned().unwrap_or_else(|| vec![least; count]);
        match values.len() == count && values.iter().all(|&v| v >= least && v <= i64::from(i32::MAX)) {
            true => Ok(values),
            false => Err(OpError::Attribute {
                name: name.to_owned(),
                value: format!("{values:?}"),
                reason: format!("expected {count} values of at least {least}"),
            }),
        }
    }

    fn axes(&self, image: &[i64], block: &[i64]) -> Result<Vec<Axis>, OpError> {
        let rank = image.len();
        let sized = |dims: &[i64]| dims.iter().all(|&d| (1..=i64::from(i32::MAX)).contains(&d));
        if block.len() != rank || rank == 0 || !sized(image) || !sized(block) {
            return Err(OpError::Value(format!("blocks of {block:?} in images of {image:?}")));
        }
        let strides = Self::values(self.strides.as_ref(), "strides", rank, 1)?;
        let dilations = Self::values(self.dilations.as_ref(), "dilations", rank, 1)?;
        let pads = Self::values(self.pads.as_ref(), "pads", 2 * rank, 0)?;
        let axis = |a: usize| {
            let room = image[a] + pads[a] + pads[a + rank] - (dilations[a] * (block[a] - 1) + 1);
            let count = if room < 0 { 0 } else { (room / strides[a] + 1) as usize };
            let (image, block, stride) = (image[a], block[a], strides[a]);
            Axis { image, block, stride, dilation: dilations[a], pad: pads[a], count }
        };
        Ok((0..rank).map(axis).collect())
    }

    /// Offset in the image of each block element of each block, in that order; `None` in the padding.
    fn targets(axes: &[Axis]) -> Result<Vec<Option<usize>>, OpError> {
        let block: Vec<usize> = axes.iter().map(|axis| axis.block as usize).collect();
        let blocks: Vec<usize> = axes.iter().map(|axis| axis.count).collect();
        let mut targets = Vec::new();
        for_each_index(&[block, blocks].concat(), |_, index| {
            let (within, which) = index.split_at(axes.len());
            let mut offset = Some(0usize);
            for ((axis, &k), &l) in axes.iter().zip(within).zip(which) {
                let at = l as i64 * axis.stride - axis.pad + k as i64 * axis.dilation;
                offset = offset
                    .filter(|_| (0..axis.image).contains(&at))
                    .map(|o| o * axis.image as usize + at as usize);
            }
            targets.push(offset);
            Ok(())
        })?;
        Ok(targets)
    }
}

/// Adds values up where targets say: `images` of one size, each of as many values as there are targets.
fn fold<T: Copy>(
    values: &[T],
    targets: &[Option<usize>],
    shape: &[usize],
    zero: T,
    add: impl Fn(T, T) -> T,
) -> Result<Vec<T>, OpError> {
    let mut out = filled(shape, zero)?;
    let size: usize = shape[2..].iter().product();
    if targets.is_empty() || size == 0 {
        return Ok(out);
    }
    for (image, values) in out.chunks_exact_mut(size).zip(values.chunks_exact(targets.len())) {
        for (target, &value) in targets.iter().zip(values) {
            if let Some(at) = *target {
                image[at] = add(image[at], value);
            }
        }
    }
    Ok(out)
}

impl OpDef for Col2Im {
    const NAMES: &'static [&'static str] = &["Col2Im"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["strides", "dilations", "pads"])?;
        Ok(Col2Im {
            strides: attrs.ints("strides")?,
            dilations: attrs.ints("dilations")?,
            pads: attrs.ints("pads")?,
        })
    }
    fn name(&self) -> &'static str {
        "Col2Im"
    }
    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, list) in [("strides", &self.strides), ("dilations", &self.dilations), ("pads", &self.pads)]
        {
            if let Some(list) = list {
                attrs.set(name, Attr::Ints(list.clone()));
            }
        }
        attrs
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 3)?;
        let x = required(inputs, 0, "input")?;
        let (image, block) = (required(inputs, 1, "image_shape")?, required(inputs, 2, "block_shape")?);
        expect_dtype(0, x.dtype(), "a number or bool", |d| is_numeric(d) || d == DType::Bool)?;
        expect_index_list(1, image)?;
        expect_index_list(2, block)?;
        let [samples, rows, columns] = x.shape() else {
            return Err(OpError::Shape(format!("input 0 is {}, expected rank 3", x.ty)));
        };
        let channels = match block.ints() {
            None => cx.fresh(),
            Some(block) => {
                let size = block.iter().try_fold(1i64, |n, &d| n.checked_mul(d)).filter(|&n| n > 0);
                let size = Dim::from(size.ok_or_else(|| OpError::Value(format!("blocks of {block:?}")))?);
                let channels = rows.floor_div(&size);
                cx.require_equal(&(channels.clone() * size), rows)?;
                channels
            }
        };
        if let (Some(image), Some(block)) = (image.ints(), block.ints()) {
            let count: usize = self.axes(&image, &block)?.iter().map(|axis| axis.count).product();
            cx.require_equal(columns, &Dim::from(count))?;
        }
        let spatial = match (image.dims(), image.shape()[0].as_usize().or(block.shape()[0].as_usize())) {
            (Some(dims), _) => dims,
            (None, Some(rank)) if rank <= MAX_TRACKED_ELEMENTS => (0..rank).map(|_| cx.fresh()).collect(),
            _ => return Ok(vec![Fact::unranked(x.dtype())]),
        };
        Ok(vec![Fact::of_type(x.dtype(), [vec![samples.clone(), channels], spatial].concat())])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let x = required_tensor(inputs, 0, "input")?;
        let image = required_tensor(inputs, 1, "image_shape")?.to_i64s();
        let block = required_tensor(inputs, 2, "block_shape")?.to_i64s();
        let [samples, rows, columns] = *x.shape() else {
            return Err(OpError::Shape(format!("an input of shape {:?}, expected rank 3", x.shape())));
        };
        let axes = self.axes(&image, &block)?;
        let size = block.iter().try_fold(1usize, |n, &d| n.checked_mul(d as usize));
        let count = axes.iter().try_fold(1usize, |n, axis| n.checked_mul(axis.count));
        let size = size.filter(|&size| rows % size == 0 && count == Some(columns)).ok_or_else(|| {
            OpError::Shape(format!(
                "an input of shape {:?} for blocks of {block:?} in images of {image:?}",
                x.shape()
            ))
        })?;
        let mut shape = vec![samples, rows / size];
        shape.extend(image.iter().map(|&d| d as usize));
        // The table is as large as the part of the input that one channel has.
        let targets = if x.is_empty() { Vec::new() } else { Self::targets(&axes)? };
        if crate::ops::elementwise::is_arithmetic_float(x.dtype()) {
            let out = fold(&x.to_f64s(), &targets, &shape, 0.0, |a, b| a + b)?;
            return Ok(vec![Tensor::from_f64s(x.dtype(), &shape, &out)]);
        }
        let out = fold(&x.to_i64s(), &targets, &shape, 0, i64::wrapping_add)?;
        Ok(vec![Tensor::from_i64s(x.dtype(), &shape, &out)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, list, list_fact, plain, with};

    #[test]
    fn overlapping_blocks_add_up() {
        let x = Tensor::from_vec(&[1, 2, 3], vec![1f32, 2.0, 3.0, 10.0, 20.0, 30.0]);
        let y = eval(&plain("Col2Im"), &[&x, &list(&[4]), &list(&[2])]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1, 1, 4], vec![1f32, 12.0, 23.0, 30.0]));
        let padded = with("Col2Im", Attrs::new().with("pads", Attr::Ints(vec![1, 1])));
        let y = eval(&padded, &[&x, &list(&[2]), &list(&[2])]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1, 1, 2], vec![12f32, 23.0]));
        assert!(eval(&plain("Col2Im"), &[&x, &list(&[5]), &list(&[2])]).is_err());
        assert!(eval(&plain("Col2Im"), &[&x, &list(&[4]), &list(&[0])]).is_err());
    }

    #[test]
    fn infers_channels() {
        let x = fact(DType::F32, &["n", "20", "9"]);
        assert_eq!(
            inferred(&plain("Col2Im"), &[&x, &list_fact(&[4, 4]), &list_fact(&[2, 2])]),
            "f32[n,5,4,4]"
        );
        assert!(
            inferred(&plain("Col2Im"), &[&x, &list_fact(&[4, 4]), &list_fact(&[3, 3])])
                .contains("must equal")
        );
    }
}
