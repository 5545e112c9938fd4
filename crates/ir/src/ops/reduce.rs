//! Reductions along axes.
//!
//! `Reduce*`: data, optional axes → data with the axes reduced; they stay as 1 (`keepdims`) or go. No axes
//! means all, or none with `noop_with_empty_axes`; the functions that also change single elements (squares,
//! logarithms) still do so then. Over nothing: L1, L2, Sum, SumSquare 0, Prod 1, LogSum and LogSumExp −∞, Max
//! and Min the lowest and highest value of the dtype (±∞), Mean NaN (0 for integers).
//! Integers are computed exactly and wrap; Mean, L2, LogSum and LogSumExp of integers truncate toward zero.
//!
//! `ArgMax`, `ArgMin`: index (i64) of the extreme along one axis, the first or last of equals. The first
//! element is the candidate and only a greater (smaller) one replaces it, so NaN never replaces a number.
//!
//! **Dtypes**: f16, bf16, f32, f64, i32, i64, u32, u64; Max and Min also i8, u8 and bool; ArgMax and ArgMin
//! all of these but bool, and i16, u16.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__ReduceSum.html>,
//! <https://onnx.ai/onnx/operators/onnx__ArgMax.html>.
//! **Opsets**: 1, 11 (negative axes), 13 (ReduceSum: axes as operand), 18 (all: axes as operand), Max and Min
//! 20 (bool); ArgMax, ArgMin 1, 11, 12 (`select_last_index`), 13 (bf16).

use super::dense::{filled, is_real, is_wide_int, output_type};
use super::pool::larger;
use super::util::{arity, expect_dtype, known_attrs, normalize_axis, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// Which function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReduceOp {
    /// `ReduceL1`.
    L1,
    /// `ReduceL2`.
    L2,
    /// `ReduceLogSum`.
    LogSum,
    /// `ReduceLogSumExp`.
    LogSumExp,
    /// `ReduceMax`.
    Max,
    /// `ReduceMean`.
    Mean,
    /// `ReduceMin`.
    Min,
    /// `ReduceProd`.
    Prod,
    /// `ReduceSum`.
    Sum,
    /// `ReduceSumSquare`.
    SumSquare,
}

const OPS: [(ReduceOp, &str); 10] = [
    (ReduceOp::L1, "ReduceL1"),
    (ReduceOp::L2, "ReduceL2"),
    (ReduceOp::LogSum, "ReduceLogSum"),
    (ReduceOp::LogSumExp, "ReduceLogSumExp"),
    (ReduceOp::Max, "ReduceMax"),
    (ReduceOp::Mean, "ReduceMean"),
    (ReduceOp::Min, "ReduceMin"),
    (ReduceOp::Prod, "ReduceProd"),
    (ReduceOp::Sum, "ReduceSum"),
    (ReduceOp::SumSquare, "ReduceSumSquare"),
];

/// Reduction: operands data, optional axes (i64).
#[derive(Clone, Debug, PartialEq)]
pub struct Reduce {
    /// The function.
    pub op: ReduceOp,
    /// Reduced axes stay as 1.
    pub keepdims: bool,
    /// No axes means no reduction, not all axes.
    pub noop_with_empty_axes: bool,
}

impl Reduce {
    /// Which axes are reduced, for data of the given rank; `axes` is the second operand.
    ///
    /// **Errors**: axes that are not known, not i64, or out of range.
    pub fn reduced_axes(&self, rank: usize, axes: Option<&Fact>) -> Result<Vec<bool>, OpError> {
        let mut listed = vec![];
        if let Some(axes) = axes {
            expect_dtype(1, axes.dtype(), "i64", |dtype| dtype == DType::I64)?;
            if axes.rank() > 1 {
                return Err(OpError::Shape(format!("axes is {}, expected one dim", axes.ty)));
            }
            listed = axes.ints().ok_or_else(|| {
                OpError::Unsupported(format!("reduction over axes ({}) that only the run tells", axes.ty))
            })?;
        }
        let mut reduced = vec![listed.is_empty() && !self.noop_with_empty_axes; rank];
        for axis in listed {
            reduced[normalize_axis(axis, rank)?] = true;
        }
        Ok(reduced)
    }

    /// The result where only running tells the axes.
    fn of_unknown_axes(&self, data: &Fact, axes: &Fact, cx: &mut InferCx) -> Fact {
        let count = axes.shape().first().and_then(Dim::as_usize);
        let rank = match (self.keepdims, count) {
            (true, _) => Some(data.rank()),
            (false, Some(0)) if self.noop_with_empty_axes => Some(data.rank()),
            (false, Some(0)) => Some(0),
            (false, count) => count.and_then(|count| data.rank().checked_sub(count)),
        };
        match rank {
            Some(rank) => Fact::of_type(data.dtype(), (0..rank).map(|_| cx.fresh()).collect::<Vec<_>>()),
            None => Fact::unranked(data.dtype()),
        }
    }

    /// The result as dims, where the data are dims and all are reduced.
    fn reduce_dims(&self, data: &Fact, reduced: &[bool]) -> Option<Dim> {
        let elements = data.dims().filter(|e| !e.is_empty() && reduced.iter().all(|&r| r))?;
        let fold = |f: &dyn Fn(Dim, &Dim) -> Dim| elements[1..].iter().fold(elements[0].clone(), f);
        match self.op {
            ReduceOp::Sum => Some(fold(&|a, b| a + b.clone())),
            ReduceOp::Prod => Some(fold(&|a, b| a * b.clone())),
            ReduceOp::Max => Some(fold(&|a, b| a.maximum(b))),
            ReduceOp::Min => Some(fold(&|a, b| a.minimum(b))),
            ReduceOp::L1 | ReduceOp::L2 | ReduceOp::LogSum | ReduceOp::LogSumExp => None,
            ReduceOp::Mean | ReduceOp::SumSquare => None,
        }
    }
}

impl OpDef for Reduce {
    const NAMES: &'static [&'static str] = &[
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    ];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["keepdims", "noop_with_empty_axes"])?;
        let row = OPS.iter().find(|row| row.1 == name);
        let row = row.ok_or_else(|| OpError::Unsupported(format!("reduction `{name}`")))?;
        Ok(Reduce {
            op: row.0,
            keepdims: attrs.int("keepdims", 1)? != 0,
            noop_with_empty_axes: attrs.int("noop_with_empty_axes", 0)? != 0,
        })
    }

    fn name(&self) -> &'static str {
        // The table lists the variants in declaration order; a unit test holds it to that.
        OPS[self.op as usize].1
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new();
        if !self.keepdims {
            attrs.set("keepdims", Attr::Int(0));
        }
        if self.noop_with_empty_axes {
            attrs.set("noop_with_empty_axes", Attr::Int(1));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 2)?;
        let data = required(inputs, 0, "data")?;
        let narrow = matches!(self.op, ReduceOp::Max | ReduceOp::Min);
        let expected = if narrow {
            "f16, bf16, f32, f64, i8, u8, i32, i64, u32, u64 or bool"
        } else {
            "f16, bf16, f32, f64, i32, i64, u32 or u64"
        };
        expect_dtype(0, data.dtype(), expected, |dtype| {
            is_real(dtype)
                || is_wide_int(dtype)
                || narrow && matches!(dtype, DType::I8 | DType::U8 | DType::Bool)
        })?;
        if let Some(unknown) = optional(inputs, 1).filter(|axes| axes.ints().is_none()) {
            expect_dtype(1, unknown.dtype(), "i64", |dtype| dtype == DType::I64)?;
            return Ok(vec![self.of_unknown_axes(data, unknown, cx)]);
        }
        let reduced = self.reduced_axes(data.rank(), optional(inputs, 1))?;
        let shape = reduced_shape(data.shape(), &reduced, self.keepdims, Dim::from(1));
        Ok(vec![match self.reduce_dims(data, &reduced) {
            Some(dim) if data.dtype().is_int() => Fact::of_elements(data.dtype(), shape, vec![dim]),
            _ => Fact::of_type(data.dtype(), shape),
        }])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (dtype, shape) = output_type(self, inputs)?;
        let data = required_tensor(inputs, 0, "data")?;
        let axes = optional(inputs, 1).map(|axes| Fact::of_constant(axes.clone()));
        let reduced = self.reduced_axes(data.rank(), axes.as_ref())?;
        let lines = Lines::new(data.shape(), &reduced);
        if is_real(dtype) {
            let results = self.reduce_floats(&lines, &data.to_f64s(), &shape)?;
            return Ok(vec![Tensor::from_f64s(dtype, &shape, &results)]);
        }
        let values: Vec<i128> = match dtype {
            DType::U64 => data.to_i64s().into_iter().map(|v| i128::from(v as u64)).collect(),
            _ => data.to_i64s().into_iter().map(i128::from).collect(),
        };
        let results = self.reduce_ints(&lines, &values, &shape, dtype)?;
        Ok(vec![Tensor::from_i64s(dtype, &shape, &results)])
    }
}

impl Reduce {
    fn reduce_floats(&self, lines: &Lines, x: &[f64], shape: &[usize]) -> Result<Vec<f64>, OpError> {
        let start = match self.op {
            ReduceOp::Max | ReduceOp::LogSumExp => f64::NEG_INFINITY,
            ReduceOp::Min => f64::INFINITY,
            ReduceOp::Prod => 1.0,
            ReduceOp::L1 | ReduceOp::L2 | ReduceOp::LogSum | ReduceOp::Mean => 0.0,
            ReduceOp::Sum | ReduceOp::SumSquare => 0.0,
        };
        let mut y = filled(shape, start)?;
        match self.op {
            ReduceOp::L1 => lines.fold(x, &mut y, |y, x| y + x.abs()),
            ReduceOp::L2 | ReduceOp::SumSquare => lines.fold(x, &mut y, |y, x| y + x * x),
            ReduceOp::LogSum | ReduceOp::Mean | ReduceOp::Sum => lines.fold(x, &mut y, |y, x| y + x),
            ReduceOp::Prod => lines.fold(x, &mut y, |y, x| y * x),
            ReduceOp::Max | ReduceOp::LogSumExp => lines.fold(x, &mut y, larger),
            ReduceOp::Min => lines.fold(x, &mut y, |y, x| -larger(-y, -x)),
        }
        match self.op {
            ReduceOp::L2 => y.iter_mut().for_each(|y| *y = y.sqrt()),
            ReduceOp::LogSum => y.iter_mut().for_each(|y| *y = libm::log(*y)),
            ReduceOp::Mean => y.iter_mut().for_each(|y| *y /= lines.count as f64),
            ReduceOp::LogSumExp => {
                // Shifted by the maximum, as the sum would overflow; an infinite one shifts to NaN.
                let shift: Vec<f64> = y.iter().map(|&m| if m.is_infinite() { 0.0 } else { m }).collect();
                let mut sums = filled(shape, 0.0)?;
                lines.for_each(|at, out| sums[out] += libm::exp(x[at] - shift[out]));
                y = sums.iter().zip(&shift).map(|(&sum, &shift)| libm::log(sum) + shift).collect();
            }
            ReduceOp::L1 | ReduceOp::Max | ReduceOp::Min | ReduceOp::Prod => {}
            ReduceOp::Sum | ReduceOp::SumSquare => {}
        }
        Ok(y)
    }

    fn reduce_ints(
        &self,
        lines: &Lines,
        x: &[i128],
        shape: &[usize],
        dtype: DType,
    ) -> Result<Vec<i64>, OpError> {
        let (low, high) = dtype.int_range().unwrap_or((0, 1));
        let start = match self.op {
            ReduceOp::Max => low,
            ReduceOp::Min => high,
            ReduceOp::Prod => 1,
            ReduceOp::L1 | ReduceOp::L2 | ReduceOp::LogSum | ReduceOp::Mean => 0,
            ReduceOp::Sum | ReduceOp::SumSquare => 0,
            ReduceOp::LogSumExp => {
                let floats: Vec<f64> = x.iter().map(|&x| x as f64).collect();
                let results = self.reduce_floats(lines, &floats, shape)?;
                return Ok(results.into_iter().map(|v| v as i128 as i64).collect());
            }
        };
        let mut y = filled(shape, start)?;
        match self.op {
            ReduceOp::L1 => lines.fold(x, &mut y, |y, x| y + x.abs()),
            ReduceOp::L2 | ReduceOp::SumSquare => {
                lines.fold(x, &mut y, |y, x| y.wrapping_add(x.wrapping_mul(x)))
            }
            ReduceOp::Prod => lines.fold(x, &mut y, i128::wrapping_mul),
            ReduceOp::Max => lines.fold(x, &mut y, i128::max),
            ReduceOp::Min => lines.fold(x, &mut y, i128::min),
            ReduceOp::LogSum | ReduceOp::LogSumExp | ReduceOp::Mean | ReduceOp::Sum => {
                lines.fold(x, &mut y, |y, x| y + x);
            }
        }
        let count = lines.count.max(1) as i128;
        let finish = |y: i128| match self.op {
            ReduceOp::L2 => (y as f64).sqrt() as i128,
            ReduceOp::LogSum => libm::log(y as f64) as i128,
            ReduceOp::Mean => y / count,
            ReduceOp::L1 | ReduceOp::LogSumExp | ReduceOp::Max | ReduceOp::Min => y,
            ReduceOp::Prod | ReduceOp::Sum | ReduceOp::SumSquare => y,
        };
        // The low bits of an i128 are those of the wrapped result.
        Ok(y.into_iter().map(|y| finish(y) as i64).collect())
    }
}

/// The dims that are left.
fn reduced_shape<D: Clone>(shape: &[D], reduced: &[bool], keepdims: bool, one: D) -> Vec<D> {
    let axes = shape.iter().zip(reduced).filter(|(_, reduced)| keepdims || !**reduced);
    axes.map(|(dim, &reduced)| if reduced { one.clone() } else { dim.clone() }).collect()
}

/// Which result each element goes to: the elements of `shape` in order, with strides of the result.
struct Lines {
    shape: Vec<usize>,
    strides: Vec<usize>,
    /// Elements that make one result.
    count: usize,
}

impl Lines {
    fn new(shape: &[usize], reduced: &[bool]) -> Self {
        let mut strides = vec![0; shape.len()];
        let (mut step, mut count) = (1, 1);
        for axis in (0..shape.len()).rev() {
            if reduced[axis] {
                count *= shape[axis];
            } else {
                strides[axis] = step;
                step *= shape[axis];
            }
        }
        Lines { shape: shape.to_vec(), strides, count }
    }

    /// Calls `visit` with the index of each element and that of its result.
    fn for_each(&self, mut visit: impl FnMut(usize, usize)) {
        let (outer, last, step) = match (self.shape.split_last(), self.strides.split_last()) {
            (Some((&last, outer)), Some((&step, _))) => (outer, last, step),
            _ => return visit(0, 0),
        };
        for row in 0..outer.iter().product() {
            let out = super::dense::strided_offset(row, outer, &self.strides[..outer.len()]);
            for at in 0..last {
                visit(row * last + at, out + at * step);
            }
        }
    }

    fn fold<T: Copy>(&self, x: &[T], y: &mut [T], f: impl Fn(T, T) -> T) {
        self.for_each(|at, out| y[out] = f(y[out], x[at]));
    }
}

/// Index of the extreme.
#[derive(Clone, Debug, PartialEq)]
pub struct ArgReduce {
    /// `ArgMax`, else `ArgMin`.
    pub max: bool,
    /// Axis searched.
    pub axis: i64,
    /// The axis stays as 1.
    pub keepdims: bool,
    /// The last of equals, not the first.
    pub select_last_index: bool,
}

impl OpDef for ArgReduce {
    const NAMES: &'static [&'static str] = &["ArgMax", "ArgMin"];

    fn from_attrs(name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["axis", "keepdims", "select_last_index"])?;
        Ok(ArgReduce {
            max: name == "ArgMax",
            axis: attrs.int("axis", 0)?,
            keepdims: attrs.int("keepdims", 1)? != 0,
            select_last_index: attrs.int("select_last_index", 0)? != 0,
        })
    }

    fn name(&self) -> &'static str {
        if self.max { "ArgMax" } else { "ArgMin" }
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new().with("axis", Attr::Int(self.axis));
        if !self.keepdims {
            attrs.set("keepdims", Attr::Int(0));
        }
        if self.select_last_index {
            attrs.set("select_last_index", Attr::Int(1));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], _cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 1, 1)?;
        let data = required(inputs, 0, "data")?;
        expect_dtype(0, data.dtype(), "a float or integer of 8 to 64 bits", |dtype| {
            is_real(dtype) || dtype.is_int() && dtype.bits() >= 8
        })?;
        let axis = normalize_axis(self.axis, data.rank())?;
        if data.shape()[axis].is(0) {
            return Err(OpError::Shape(format!("axis {axis} of {} has no elements to choose from", data.ty)));
        }
        let reduced: Vec<bool> = (0..data.rank()).map(|a| a == axis).collect();
        let shape = reduced_shape(data.shape(), &reduced, self.keepdims, Dim::from(1));
        Ok(vec![Fact::of_type(DType::I64, shape)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (_, shape) = output_type(self, inputs)?;
        let data = required_tensor(inputs, 0, "data")?;
        let indices = match data.dtype() {
            DType::U64 => self.search(data, &data.to_i64s().iter().map(|&v| v as u64).collect::<Vec<_>>()),
            dtype if dtype.is_int() => self.search(data, &data.to_i64s()),
            _ => self.search(data, &data.to_f64s()),
        }?;
        Ok(vec![Tensor::from_vec(&shape, indices)])
    }
}

impl ArgReduce {
    fn search<T: PartialOrd>(&self, data: &Tensor, x: &[T]) -> Result<Vec<i64>, OpError> {
        let axis = normalize_axis(self.axis, data.rank())?;
        let (len, inner) = (data.shape()[axis], data.shape()[axis + 1..].iter().product::<usize>());
        let wins = |new: &T, best: &T| {
            let better = if self.max { new > best } else { new < best };
            better || self.select_last_index && new == best
        };
        let lines = x.len() / len.max(1);
        Ok((0..lines)
            .map(|line| {
                let at = |i: usize| &x[(line / inner * len + i) * inner + line % inner];
                (1..len).fold(0, |best, i| if wins(at(i), at(best)) { i } else { best }) as i64
            })
            .collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{counting, eval, f32s, num, op, sym, values};

    fn axes(axes: &[i64]) -> Tensor {
        Tensor::from_vec(&[axes.len()], axes.to_vec())
    }

    #[test]
    fn table_follows_declaration_order() {
        for (index, row) in OPS.iter().enumerate() {
            assert_eq!((row.0 as usize, Reduce::NAMES[index]), (index, row.1));
            assert_eq!(op(row.1, Attrs::new()).name(), row.1);
        }
    }

    #[test]
    fn known_values() {
        let x = f32s(&[1, 2], &[3., -4.]);
        let rounded = |v: f64| f64::from(v as f32);
        for (name, expected) in [
            ("ReduceL1", 7.),
            ("ReduceL2", 5.),
            ("ReduceLogSumExp", rounded((3f64.exp() + (-4f64).exp()).ln())),
            ("ReduceMax", 3.),
            ("ReduceMean", -0.5),
            ("ReduceMin", -4.),
            ("ReduceProd", -12.),
            ("ReduceSum", -1.),
            ("ReduceSumSquare", 25.),
        ] {
            assert_eq!(values(&op(name, Attrs::new()), &[&x, &axes(&[-1])]), [expected], "{name}");
        }
        assert_eq!(values(&op("ReduceLogSum", Attrs::new()), &[&counting(&[2])]), [rounded(3f64.ln())]);
    }

    #[test]
    fn axes_and_keepdims() {
        let x = counting(&[2, 3, 2]);
        let kept = eval(&op("ReduceSum", Attrs::new()), &[&x, &axes(&[0, -1])]).unwrap();
        assert_eq!(kept, f32s(&[1, 3, 1], &[18., 26., 34.]));
        let dropped = op("ReduceSum", Attrs::new().with("keepdims", Attr::Int(0)));
        assert_eq!(eval(&dropped, &[&x, &axes(&[1])]).unwrap(), f32s(&[2, 2], &[9., 12., 27., 30.]));
        assert_eq!(eval(&dropped, &[&x, &axes(&[])]).unwrap(), Tensor::scalar(78f32));
        let noop = op("ReduceSumSquare", Attrs::new().with("noop_with_empty_axes", Attr::Int(1)));
        assert_eq!(eval(&noop, &[&counting(&[2]), &axes(&[])]).unwrap(), f32s(&[2], &[1., 4.]));
        assert!(eval(&dropped, &[&x, &axes(&[3])]).is_err());
    }

    #[test]
    fn nothing_to_reduce() {
        let x = counting(&[0, 2]);
        for (name, expected) in [("ReduceSum", 0.), ("ReduceProd", 1.), ("ReduceMax", f64::NEG_INFINITY)] {
            assert_eq!(values(&op(name, Attrs::new()), &[&x, &axes(&[0])]), [expected; 2], "{name}");
        }
        let ints = Tensor::from_vec::<i32>(&[0], vec![]);
        assert_eq!(values(&op("ReduceMin", Attrs::new()), &[&ints]), [f64::from(i32::MAX)]);
    }

    #[test]
    fn integers_are_exact() {
        let x = Tensor::from_vec(&[2], vec![u64::MAX, u64::MAX - 2]);
        let result = |name| eval(&op(name, Attrs::new()), &[&x]).unwrap();
        assert_eq!(result("ReduceSum"), Tensor::from_vec(&[1], vec![u64::MAX - 3]));
        assert_eq!(result("ReduceMean"), Tensor::from_vec(&[1], vec![u64::MAX - 1]));
        assert_eq!(result("ReduceMax"), Tensor::from_vec(&[1], vec![u64::MAX]));
        let negative = Tensor::from_vec(&[2], vec![-3i32, -4]);
        assert_eq!(values(&op("ReduceMean", Attrs::new()), &[&negative]), [-3.]);
        let flags = Tensor::from_bools(&[2], &[true, false]);
        assert_eq!(
            eval(&op("ReduceMin", Attrs::new()), &[&flags]).unwrap(),
            Tensor::from_bools(&[1], &[false])
        );
    }

    #[test]
    fn infinities_and_nan() {
        let low = f32s(&[2], &[f32::NEG_INFINITY; 2]);
        assert_eq!(values(&op("ReduceLogSumExp", Attrs::new()), &[&low]), [f64::NEG_INFINITY]);
        let big = f32s(&[2], &[1000., 1000.]);
        assert_eq!(
            values(&op("ReduceLogSumExp", Attrs::new()), &[&big]),
            [f64::from((1000. + 2f64.ln()) as f32)]
        );
        for name in ["ReduceMax", "ReduceMin", "ReduceSum"] {
            let x = f32s(&[3], &[1., f32::NAN, 2.]);
            assert!(values(&op(name, Attrs::new()), &[&x])[0].is_nan(), "{name}");
        }
    }

    #[test]
    fn symbolic_dims_and_tracked_elements() {
        let reduce = op("ReduceProd", Attrs::new());
        let shape = Fact::of_elements(DType::I64, vec![num(3)], vec![sym("n"), num(3), num(4)]);
        let product = reduce.infer(&[Some(&shape)], &mut InferCx::new("n")).unwrap().remove(0);
        assert_eq!(product.dims(), Some(vec![num(12) * sym("n")]));
        let data = Fact::of_type(DType::F32, vec![sym("n"), sym("m")]);
        let last = Fact::of_constant(axes(&[-1]));
        let fact = reduce.infer(&[Some(&data), Some(&last)], &mut InferCx::new("n")).unwrap().remove(0);
        assert_eq!(fact.shape(), [sym("n"), num(1)]);
        let unknown = Fact::of_type(DType::I64, vec![num(1)]);
        let open = reduce.infer(&[Some(&data), Some(&unknown)], &mut InferCx::new("n")).unwrap();
        assert_eq!(open[0].ty.to_string(), "f32[n.0,n.1]");
    }

    #[test]
    fn arg_reductions() {
        let x = f32s(&[2, 3], &[2., 5., 5., 1., 1., 0.]);
        let attrs = Attrs::new().with("axis", Attr::Int(-1)).with("keepdims", Attr::Int(0));
        assert_eq!(eval(&op("ArgMax", attrs.clone()), &[&x]).unwrap(), Tensor::from_vec(&[2], vec![1i64, 0]));
        let last = attrs.clone().with("select_last_index", Attr::Int(1));
        assert_eq!(values(&op("ArgMax", last), &[&x]), [2., 1.]);
        assert_eq!(values(&op("ArgMin", attrs), &[&x]), [0., 2.]);
        assert_eq!(
            eval(&op("ArgMin", Attrs::new()), &[&x]).unwrap(),
            Tensor::from_vec(&[1, 3], vec![1i64, 1, 1])
        );
        assert!(eval(&op("ArgMax", Attrs::new()), &[&counting(&[0, 2])]).is_err());
        let big = Tensor::from_vec(&[2], vec![i64::MAX - 1, i64::MAX]);
        assert_eq!(values(&op("ArgMax", Attrs::new()), &[&big]), [1.]);
    }
}
