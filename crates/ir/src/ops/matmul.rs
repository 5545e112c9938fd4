//! Matrix products.
//!
//! `MatMul`: numpy's `matmul`. A `[…, M, K]` times B `[…, K, N]` → `[…, M, N]`; the batch dims broadcast. A
//! one-dimensional A counts as a row, a one-dimensional B as a column, and the added dim is dropped again.
//! `Gemm`: alpha · A' · B' + beta · C → `[M, N]`, where A' and B' may be transposed and C broadcasts. With
//! beta = 0, C is not read.
//!
//! **Dtypes**: f16, bf16, f32, f64, i32, i64, u32, u64, the same for all; integers wrap.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__MatMul.html>,
//! <https://onnx.ai/onnx/operators/onnx__Gemm.html>.
//! **Opsets**: `MatMul` 1, 9 (integers), 13 (bf16); `Gemm` 1, 6, 7 (numpy broadcasting), 9 (integers), 11 (C
//! optional), 13 (bf16).

use super::contract::{self, Acc, PANEL};
use super::dense::{
    broadcast_strides, filled, is_real, is_wide_int, output_type, require_broadcast_to, same_dtype,
    strided_offset,
};
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use half::{bf16, f16};
use rabot_tensor::{DType, Element, Tensor};

const DTYPES: &str = "f16, bf16, f32, f64, i32, i64, u32 or u64";

fn multiplies(dtype: DType) -> bool {
    is_real(dtype) || is_wide_int(dtype)
}

/// `MatMul` (numpy's rules).
#[derive(Clone, Debug, PartialEq)]
pub struct MatMul;

impl OpDef for MatMul {
    const NAMES: &'static [&'static str] = &["MatMul"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &[])?;
        Ok(MatMul)
    }

    fn name(&self) -> &'static str {
        "MatMul"
    }

    fn attrs(&self) -> Attrs {
        Attrs::new()
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 2)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(0, a.dtype(), DTYPES, multiplies)?;
        same_dtype(1, b.dtype(), a.dtype())?;
        Ok(vec![Fact::of_type(a.dtype(), matmul_shape(a.shape(), b.shape(), cx)?)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (a, b) = (required_tensor(inputs, 0, "A")?, required_tensor(inputs, 1, "B")?);
        let product = Product::of(a.shape(), b.shape())?;
        if dtype.is_int() {
            let mut y = filled(&shape, 0i64)?;
            product.run(&a.to_i64s(), &b.to_i64s(), |v| v, &mut y);
            return Ok(vec![Tensor::from_i64s(dtype, &shape, &y)]);
        }
        let mut y = filled(&shape, 0.0)?;
        let a = a.to_f64s();
        // B, often a large weight, is widened a panel at a time.
        match dtype {
            DType::F32 => product.run(&a, &elements::<f32>(b)?, f64::from, &mut y),
            DType::F16 => product.run(&a, &elements::<f16>(b)?, f64::from, &mut y),
            DType::BF16 => product.run(&a, &elements::<bf16>(b)?, f64::from, &mut y),
            _ => product.run(&a, &b.to_f64s(), |v| v, &mut y),
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

fn elements<T: Element>(tensor: &Tensor) -> Result<std::borrow::Cow<'_, [T]>, OpError> {
    tensor.to_slice::<T>().map_err(|error| OpError::Value(error.to_string()))
}

/// Shape of the product of arrays of these shapes, by numpy's rules.
pub(super) fn matmul_shape(a: &[Dim], b: &[Dim], cx: &mut InferCx) -> Result<Vec<Dim>, OpError> {
    let refused = |why: &str| OpError::Shape(format!("cannot multiply {a:?} by {b:?}: {why}"));
    let (Some(a_depth), Some(b_last)) = (a.last(), b.last()) else {
        return Err(refused("a scalar is no matrix"));
    };
    let b_depth = if b.len() == 1 { b_last } else { &b[b.len() - 2] };
    cx.require_equal(a_depth, b_depth).map_err(|_| refused("the inner dims differ"))?;
    let batch = |shape: &'_ [Dim]| shape[..shape.len().saturating_sub(2)].to_vec();
    let mut shape = cx.broadcast(&[&batch(a), &batch(b)])?;
    if a.len() > 1 {
        shape.push(a[a.len() - 2].clone());
    }
    if b.len() > 1 {
        shape.push(b_last.clone());
    }
    Ok(shape)
}

/// A product of stacks of matrices, in numbers.
pub(super) struct Product {
    rows: usize,
    depth: usize,
    /// Columns of one matrix of the result.
    pub(super) columns: usize,
    batch: Vec<usize>,
    /// Strides of A and B over the batch dims, in matrices.
    strides: [Vec<usize>; 2],
}

impl Product {
    /// For shapes that [`matmul_shape`] has accepted.
    pub(super) fn of(a: &[usize], b: &[usize]) -> Result<Self, OpError> {
        let (a_batch, [rows, depth]) = matrix(a, true);
        let (b_batch, [_, columns]) = matrix(b, false);
        let rank = a_batch.len().max(b_batch.len());
        let dim = |shape: &[usize], at: usize| match (at + shape.len()).checked_sub(rank) {
            Some(at) => shape[at],
            None => 1,
        };
        let size = |at| if dim(a_batch, at) == 1 { dim(b_batch, at) } else { dim(a_batch, at) };
        let mut batch: Vec<usize> = (0..rank).map(size).collect();
        let mut strides = [broadcast_strides(a_batch, &batch), broadcast_strides(b_batch, &batch)];
        let mut rows = rows;
        if b_batch.iter().all(|&d| d == 1) {
            // One B for all: the stack of A is one tall matrix, and B is packed once.
            rows *= batch.iter().product::<usize>();
            batch = vec![];
            strides = [vec![], vec![]];
        }
        Ok(Product { rows, depth, columns, batch, strides })
    }

    /// `y = a · b`, all row-major; `widen` makes a factor of an element of `b`.
    pub(super) fn run<T: Acc, E: Copy>(&self, a: &[T], b: &[E], widen: impl Fn(E) -> T, y: &mut [T]) {
        let Product { rows, depth, columns, .. } = *self;
        for index in 0..self.batch.iter().product() {
            let [a_at, b_at] = [0, 1].map(|i| strided_offset(index, &self.batch, &self.strides[i]));
            let a = &a[a_at * rows * depth..][..rows * depth];
            let b = &b[b_at * depth * columns..][..depth * columns];
            let y = &mut y[index * rows * columns..][..rows * columns];
            let pack = |first: usize, panel: &mut [T]| {
                let width = PANEL.min(columns - first);
                for (slot, row) in panel.chunks_exact_mut(PANEL).zip(b.chunks_exact(columns)) {
                    for (slot, &value) in slot.iter_mut().zip(&row[first..first + width]) {
                        *slot = widen(value);
                    }
                }
            };
            let store = |row: usize, column: usize, values: &[T]| {
                y[row * columns + column..][..values.len()].copy_from_slice(values);
            };
            contract::multiply(a, [rows, depth, columns], pack, store);
        }
    }
}

/// Batch dims and matrix of a shape; a vector is a row (on the left) or a column.
fn matrix(shape: &[usize], left: bool) -> (&[usize], [usize; 2]) {
    match shape {
        [batch @ .., rows, columns] => (batch, [*rows, *columns]),
        [len] if left => (&[], [1, *len]),
        [len] => (&[], [*len, 1]),
        [] => (&[], [1, 1]),
    }
}

/// `Gemm`: operands A, B, optional C.
#[derive(Clone, Debug, PartialEq)]
pub struct Gemm {
    /// Factor of the product.
    pub alpha: f32,
    /// Factor of C.
    pub beta: f32,
    /// A is transposed.
    pub trans_a: bool,
    /// B is transposed.
    pub trans_b: bool,
}

impl OpDef for Gemm {
    const NAMES: &'static [&'static str] = &["Gemm"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["alpha", "beta", "transA", "transB"])?;
        Ok(Gemm {
            alpha: attrs.float("alpha", 1.0)?,
            beta: attrs.float("beta", 1.0)?,
            trans_a: attrs.int("transA", 0)? != 0,
            trans_b: attrs.int("transB", 0)? != 0,
        })
    }

    fn name(&self) -> &'static str {
        "Gemm"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        for (name, value) in [("alpha", self.alpha), ("beta", self.beta)] {
            if value != 1.0 {
                attrs.set(name, Attr::Float(value));
            }
        }
        for (name, value) in [("transA", self.trans_a), ("transB", self.trans_b)] {
            if value {
                attrs.set(name, Attr::Int(1));
            }
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 3)?;
        let (a, b) = (required(inputs, 0, "A")?, required(inputs, 1, "B")?);
        expect_dtype(0, a.dtype(), DTYPES, multiplies)?;
        same_dtype(1, b.dtype(), a.dtype())?;
        let ([a_rows, a_columns], [b_rows, b_columns]) = (a.shape(), b.shape()) else {
            return Err(OpError::Shape(format!("A {:?} and B {:?} must be matrices", a.shape(), b.shape())));
        };
        let (rows, a_depth) = if self.trans_a { (a_columns, a_rows) } else { (a_rows, a_columns) };
        let (b_depth, columns) = if self.trans_b { (b_columns, b_rows) } else { (b_rows, b_columns) };
        cx.require_equal(a_depth, b_depth).map_err(|_| {
            OpError::Shape(format!("cannot multiply: A' has {a_depth} columns, B' has {b_depth} rows"))
        })?;
        let shape = vec![rows.clone(), columns.clone()];
        if let Some(c) = optional(inputs, 2) {
            same_dtype(2, c.dtype(), a.dtype())?;
            require_broadcast_to(cx, "C", c.shape(), &shape)?;
        }
        Ok(vec![Fact::of_type(a.dtype(), shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let (a, b) = (required_tensor(inputs, 0, "A")?, required_tensor(inputs, 1, "B")?);
        let c = optional(inputs, 2).filter(|_| self.beta != 0.0);
        let sizes = [shape[0], if self.trans_a { a.shape()[0] } else { a.shape()[1] }, shape[1]];
        let c_at = |tensor: &Tensor| {
            let strides = broadcast_strides(tensor.shape(), &shape);
            let shape = shape.clone();
            move |index: usize| strided_offset(index, &shape, &strides)
        };
        if dtype.is_int() {
            let mut y = filled(&shape, 0i64)?;
            self.product(sizes, a.to_i64s(), &b.to_i64s(), |v| v, &mut y);
            scale_ints(&mut y, self.alpha);
            if let Some(c) = c {
                let (mut values, at) = (c.to_i64s(), c_at(c));
                scale_ints(&mut values, self.beta);
                y.iter_mut().enumerate().for_each(|(i, y)| *y = y.wrapping_add(values[at(i)]));
            }
            return Ok(vec![Tensor::from_i64s(dtype, &shape, &y)]);
        }
        let mut y = filled(&shape, 0.0)?;
        match dtype {
            DType::F32 => self.product(sizes, a.to_f64s(), &elements::<f32>(b)?, f64::from, &mut y),
            _ => self.product(sizes, a.to_f64s(), &b.to_f64s(), |v| v, &mut y),
        }
        let (alpha, beta) = (f64::from(self.alpha), f64::from(self.beta));
        y.iter_mut().for_each(|y| *y *= alpha);
        if let Some(c) = c {
            let (values, at) = (c.to_f64s(), c_at(c));
            y.iter_mut().enumerate().for_each(|(i, y)| *y += beta * values[at(i)]);
        }
        Ok(vec![Tensor::from_f64s(dtype, &shape, &y)])
    }
}

impl Gemm {
    /// `y = A' · B'`.
    fn product<T: Acc, E: Copy>(
        &self,
        sizes: [usize; 3],
        a: Vec<T>,
        b: &[E],
        widen: impl Fn(E) -> T,
        y: &mut [T],
    ) {
        let [rows, depth, columns] = sizes;
        let a = if self.trans_a { transposed(&a, depth, rows) } else { a };
        let [step_depth, step_column] = if self.trans_b { [1, depth] } else { [columns, 1] };
        let pack = |first: usize, panel: &mut [T]| {
            let width = PANEL.min(columns - first);
            for (k, slot) in panel.chunks_exact_mut(PANEL).enumerate() {
                for (j, slot) in slot[..width].iter_mut().enumerate() {
                    *slot = widen(b[k * step_depth + (first + j) * step_column]);
                }
            }
        };
        let store = |row: usize, column: usize, values: &[T]| {
            y[row * columns + column..][..values.len()].copy_from_slice(values);
        };
        contract::multiply(&a, sizes, pack, store);
    }
}

/// A row-major matrix with `rows` rows, transposed.
fn transposed<T: Copy>(a: &[T], rows: usize, columns: usize) -> Vec<T> {
    (0..columns).flat_map(|c| (0..rows).map(move |r| a[r * columns + c])).collect()
}

/// Multiplies integers by a float factor; the results truncate toward zero.
fn scale_ints(values: &mut [i64], factor: f32) {
    if factor != 1.0 {
        values.iter_mut().for_each(|v| *v = (*v as f64 * f64::from(factor)) as i64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, num, op, shape, sym, values};

    fn matmul(a: &[usize], b: &[usize]) -> Tensor {
        eval(&op("MatMul", Attrs::new()), &[&counting(a), &counting(b)]).unwrap()
    }

    #[test]
    fn vectors_lose_the_dim_they_were_lent() {
        assert_eq!(matmul(&[2], &[2]), Tensor::scalar(5.0f32));
        assert_eq!(matmul(&[2], &[2, 2]), f32s(&[2], &[7., 10.]));
        assert_eq!(matmul(&[2, 2], &[2]), f32s(&[2], &[5., 11.]));
    }

    #[test]
    fn batches_broadcast() {
        let y = matmul(&[2, 1, 1, 2], &[3, 2, 1]);
        assert_eq!(y.shape(), [2, 3, 1, 1]);
        assert_eq!(y.to_f64s(), [5., 11., 17., 11., 25., 39.]);
        assert_eq!(matmul(&[2, 1, 2], &[2, 1]).to_f64s(), [5., 11.]);
    }

    #[test]
    fn empty_sums_are_zero() {
        assert_eq!(matmul(&[2, 0], &[0, 2]).to_f64s(), [0.; 4]);
        assert_eq!(matmul(&[0, 2], &[2, 3]).shape(), [0, 3]);
    }

    #[test]
    fn integers_wrap_and_do_not_round() {
        let a = Tensor::from_vec(&[1, 2], vec![u64::MAX, 3]);
        let b = Tensor::from_vec(&[2, 1], vec![2u64, (1 << 62) + 1]);
        let y = eval(&op("MatMul", Attrs::new()), &[&a, &b]).unwrap();
        assert_eq!(y, Tensor::from_vec(&[1, 1], vec![(3u64 << 62).wrapping_add(1)]));
    }

    #[test]
    fn sums_round_once() {
        // In f32 the ones would be lost one by one.
        let a = f32s(&[1, 4], &[16777216., 1., 1., 1.]);
        assert_eq!(values(&op("MatMul", Attrs::new()), &[&a, &f32s(&[4, 1], &[1.; 4])]), [16777220.]);
    }

    #[test]
    fn symbolic_dims() {
        let op = op("MatMul", Attrs::new());
        let (result, equal) =
            shape(&op, &[vec![sym("b"), sym("s"), num(4)], vec![num(1), sym("k"), num(5)]]).unwrap();
        assert_eq!(result, [sym("b"), sym("s"), num(5)]);
        assert_eq!(equal, [(num(4), sym("k"))]);
        assert!(shape(&op, &[vec![num(2), num(3)], vec![num(4), num(2)]]).is_err());
        assert!(shape(&op, &[vec![], vec![num(4)]]).is_err());
    }

    #[test]
    fn gemm_transposes_scales_and_broadcasts() {
        let attrs = Attrs::new()
            .with("transA", Attr::Int(1))
            .with("transB", Attr::Int(1))
            .with("alpha", Attr::Float(2.0))
            .with("beta", Attr::Float(0.5));
        let (a, b, c) = (counting(&[2, 1]), counting(&[3, 2]), f32s(&[3], &[2., 4., 6.]));
        // A' = [1 2], B' = [1 3 5; 2 4 6].
        assert_eq!(values(&op("Gemm", attrs.clone()), &[&a, &b, &c]), [11., 24., 37.]);
        let refused = eval(&op("Gemm", attrs), &[&a, &counting(&[2, 3])]);
        assert!(matches!(refused, Err(OpError::Shape(_))), "{refused:?}");
    }

    #[test]
    fn gemm_does_not_read_c_for_beta_zero() {
        let gemm = op("Gemm", Attrs::new().with("beta", Attr::Float(0.0)));
        let one = counting(&[1, 1]);
        assert_eq!(values(&gemm, &[&one, &one, &f32s(&[1], &[f32::NAN])]), [1.]);
        let wide = f32s(&[2], &[0., 0.]);
        assert!(eval(&gemm, &[&one, &one, &wide]).is_err());
    }
}
