//! `ConvInteger` and `MatMulInteger`: the exact sums of products, as i32.

use super::spread::Side;
use super::{centered, is_byte};
use crate::ops::conv::{Layout, conv_shape, group_attr, window_attrs};
use crate::ops::dense::{filled, output_type, same_dtype};
use crate::ops::matmul::{Product, matmul_shape};
use crate::ops::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError, Window};
use crate::{Attrs, Fact};
use rabot_tensor::{DType, Tensor};

/// `ConvInteger`: operands x, w, optional x_zero_point, optional w_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvInteger {
    /// Geometry.
    pub window: Window,
    /// Number of groups.
    pub group: usize,
}

/// Checks dtypes and zero points; gives the two operands.
fn operands<'a>(
    inputs: &[Option<&'a Fact>],
    names: [&'static str; 2],
    sides: [Side; 2],
    cx: &mut InferCx,
) -> Result<[&'a Fact; 2], OpError> {
    arity(inputs, 2, 4)?;
    let data = [required(inputs, 0, names[0])?, required(inputs, 1, names[1])?];
    for (slot, (fact, side)) in data.iter().zip(sides).enumerate() {
        expect_dtype(slot, fact.dtype(), "i8 or u8", is_byte)?;
        if let Some(zero) = optional(inputs, slot + 2) {
            same_dtype(slot + 2, zero.dtype(), fact.dtype())?;
            side.check(zero, fact, cx)?;
        }
    }
    Ok(data)
}

/// An operand with its zero point taken away, if it has one.
fn centered_operand(inputs: &[Option<&Tensor>], slot: usize, side: Side) -> Result<Vec<i32>, OpError> {
    let tensor = required_tensor(inputs, slot, "operand")?;
    match optional(inputs, slot + 2) {
        Some(zero) => centered(tensor, zero, side),
        None => Ok(tensor.to_i64s().into_iter().map(|v| v as i32).collect()),
    }
}

impl OpDef for ConvInteger {
    const NAMES: &'static [&'static str] = &["ConvInteger"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[&Window::ATTRS[..], &["group"]].concat())?;
        Ok(ConvInteger { window: Window::from_attrs(attrs)?, group: group_attr(attrs)? })
    }

    fn name(&self) -> &'static str {
        "ConvInteger"
    }

    fn attrs(&self) -> Attrs {
        window_attrs(&self.window, self.group)
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let [x, w] = operands(inputs, ["x", "w"], [Side::Whole, Side::Filter], cx)?;
        let (shape, _) = conv_shape(&self.window, self.group, x.shape(), w.shape(), cx)?;
        Ok(vec![Fact::of_type(DType::I32, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (_, shape) = output_type(self, inputs)?;
        let (x, w) = (required_tensor(inputs, 0, "x")?, required_tensor(inputs, 1, "w")?);
        let layout = Layout::of_conv(&self.window, self.group, x.shape(), w.shape())?;
        let mut sums = filled(&shape, 0i32)?;
        let x = centered_operand(inputs, 0, Side::Whole)?;
        layout.convolve(&x, &centered_operand(inputs, 1, Side::Filter)?, &mut sums);
        Ok(vec![Tensor::from_vec(&shape, sums)])
    }
}

/// `MatMulInteger`: operands A, B, optional a_zero_point, optional b_zero_point.
#[derive(Clone, Debug, PartialEq)]
pub struct MatMulInteger;

impl OpDef for MatMulInteger {
    const NAMES: &'static [&'static str] = &["MatMulInteger"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(MatMulInteger)
    }

    fn name(&self) -> &'static str {
        "MatMulInteger"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        let [a, b] = operands(inputs, ["A", "B"], [Side::Rows, Side::Columns], cx)?;
        Ok(vec![Fact::of_type(DType::I32, matmul_shape(a.shape(), b.shape(), cx)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (_, shape) = output_type(self, inputs)?;
        let (a, b) = (required_tensor(inputs, 0, "A")?, required_tensor(inputs, 1, "B")?);
        let product = Product::of(a.shape(), b.shape())?;
        let mut sums = filled(&shape, 0i32)?;
        let a = centered_operand(inputs, 0, Side::Rows)?;
        product.run(&a, &centered_operand(inputs, 1, Side::Columns)?, |v| v, &mut sums);
        Ok(vec![Tensor::from_vec(&shape, sums)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{eval, ints, op};

    #[test]
    fn zero_points_of_rows_and_columns() {
        let product = op("MatMulInteger", Attrs::new());
        let a = Tensor::from_vec(&[2, 2], vec![255u8, 1, 2, 3]);
        let b = Tensor::from_vec(&[2, 2], vec![-128i8, 1, 2, 3]);
        let plain = eval(&product, &[&a, &b]).unwrap();
        assert_eq!(plain, Tensor::from_vec(&[2, 2], vec![-32638i32, 258, -250, 11]));
        let (rows, columns) = (Tensor::from_vec(&[2], vec![1u8, 2]), Tensor::from_vec(&[1, 2], vec![1i8, 3]));
        let y = eval(&product, &[&a, &b, &rows, &columns]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[2, 2], vec![254 * -129, 254 * -2, 1, 0]));
        assert!(eval(&product, &[&a, &b, &Tensor::from_vec(&[3], vec![0u8; 3])]).is_err());
        assert!(eval(&product, &[&a, &b, &Tensor::scalar(0i8)]).is_err());
    }

    #[test]
    fn padding_adds_nothing() {
        let conv = op("ConvInteger", Attrs::new().with("pads", ints(&[1, 1])));
        let x = Tensor::from_vec(&[1, 1, 2], vec![3u8, 4]);
        let w = Tensor::from_vec(&[2, 1, 2], vec![1u8, 2, 3, 4]);
        let (x_zero, w_zero) = (Tensor::scalar(1u8), Tensor::from_vec(&[2], vec![0u8, 3]));
        let y = eval(&conv, &[&x, &w, &x_zero, &w_zero]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1, 2, 3], vec![4i32, 8, 3, 2, 3, 0]));
    }
}
