//! `NonMaxSuppression`: for each class of each image the best boxes, without those that overlap a better one too much.
//!
//! Boxes with a score of at most `score_threshold` are left out (none, without the operand). The others are taken from the
//! best on, those of equal scores in order of their indices; one is dropped if its intersection with a box already taken
//! is more than `iou_threshold` (0) of their union. At most `max_output_boxes_per_class` (0) are taken.
//!
//! **Shapes**: boxes `[n, b, 4]`, scores `[n, c, b]`, three optional scalars → `[k, 3]`: image, class and box, for
//! each box taken.
//!
//! **Dtypes**: boxes, scores and thresholds f32, the count i64; the result is i64. Areas are computed in f64.
//!
//! **Opsets**: 10, 11.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__NonMaxSuppression.html>

use super::float_order;
use crate::ops::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use crate::ops::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `NonMaxSuppression`: operands boxes, scores, optional count, IoU threshold, score threshold.
#[derive(Clone, Debug, PartialEq)]
pub struct NonMaxSuppression {
    /// Boxes are center x, center y, width, height; else two corners, as y, x, y, x.
    pub center_point_box: bool,
}

/// A box by its low and high corner.
#[derive(Clone, Copy)]
struct Corners {
    low: [f64; 2],
    high: [f64; 2],
}

impl Corners {
    fn area(&self) -> f64 {
        (self.high[0] - self.low[0]) * (self.high[1] - self.low[1])
    }

    /// True if the intersection is more than that part of the union.
    fn overlaps(&self, other: &Corners, threshold: f64) -> bool {
        let side = |axis: usize| {
            (self.high[axis].min(other.high[axis]) - self.low[axis].max(other.low[axis])).max(0.0)
        };
        let shared = side(0) * side(1);
        let union = self.area() + other.area() - shared;
        shared > 0.0 && union > 0.0 && shared / union > threshold
    }
}

impl NonMaxSuppression {
    fn corners(&self, values: &[f64]) -> Corners {
        let [a, b, c, d] = [0, 1, 2, 3].map(|at| values.get(at).copied().unwrap_or(0.0));
        match self.center_point_box {
            true => Corners { low: [a - c / 2.0, b - d / 2.0], high: [a + c / 2.0, b + d / 2.0] },
            false => Corners { low: [a.min(c), b.min(d)], high: [a.max(c), b.max(d)] },
        }
    }

    /// Names of the scalar operands from slot 2 on, with their dtypes.
    const SCALARS: [(&'static str, DType); 3] = [
        ("max_output_boxes_per_class", DType::I64),
        ("iou_threshold", DType::F32),
        ("score_threshold", DType::F32),
    ];
}

/// Boxes of one class of one image that are taken.
fn select(boxes: &[Corners], scores: &[f64], most: usize, (iou, least): (f64, Option<f64>)) -> Vec<usize> {
    let kept = |at: &usize| least.is_none_or(|least| scores[*at] > least);
    let mut order: Vec<usize> = (0..scores.len()).filter(kept).collect();
    order.sort_by(|&a, &b| float_order(scores[b], scores[a]).then(a.cmp(&b)));
    let mut taken: Vec<usize> = Vec::new();
    for at in order {
        if taken.len() >= most {
            break;
        }
        if !taken.iter().any(|&other| boxes[other].overlaps(&boxes[at], iou)) {
            taken.push(at);
        }
    }
    taken
}

fn scalar_operand(inputs: &[Option<&Tensor>], slot: usize) -> Result<Option<Tensor>, OpError> {
    let name = NonMaxSuppression::SCALARS[slot - 2].0;
    match optional(inputs, slot) {
        Some(tensor) if tensor.len() != 1 => {
            Err(OpError::Shape(format!("{name} has shape {:?}, expected a scalar", tensor.shape())))
        }
        operand => Ok(operand.cloned()),
    }
}

impl OpDef for NonMaxSuppression {
    const NAMES: &'static [&'static str] = &["NonMaxSuppression"];
    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["center_point_box"])?;
        Ok(NonMaxSuppression { center_point_box: attrs.int("center_point_box", 0)? != 0 })
    }
    fn name(&self) -> &'static str {
        "NonMaxSuppression"
    }
    fn attrs(&self) -> Attrs {
        let attrs = Attrs::new();
        if self.center_point_box { attrs.with("center_point_box", Attr::Int(1)) } else { attrs }
    }
    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 2, 5)?;
        let (boxes, scores) = (required(inputs, 0, "boxes")?, required(inputs, 1, "scores")?);
        expect_dtype(0, boxes.dtype(), "f32", |d| d == DType::F32)?;
        expect_dtype(1, scores.dtype(), "f32", |d| d == DType::F32)?;
        let ([images, count, four], [score_images, _, score_count]) = (boxes.shape(), scores.shape()) else {
            return Err(OpError::Shape(format!(
                "boxes {} and scores {}: expected rank 3",
                boxes.ty, scores.ty
            )));
        };
        cx.require_equal(images, score_images)?;
        cx.require_equal(count, score_count)?;
        cx.require_equal(four, &Dim::from(4))?;
        for (at, (name, dtype)) in Self::SCALARS.into_iter().enumerate() {
            let Some(fact) = optional(inputs, at + 2) else { continue };
            expect_dtype(at + 2, fact.dtype(), dtype.name(), |d| d == dtype)?;
            if fact.rank() > 1 {
                return Err(OpError::Shape(format!("{name} is {}, expected a scalar", fact.ty)));
            }
        }
        Ok(vec![Fact::of_type(DType::I64, vec![cx.fresh(), Dim::from(3)])])
    }
    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let (boxes, scores) = (required_tensor(inputs, 0, "boxes")?, required_tensor(inputs, 1, "scores")?);
        let (&[images, count, 4], &[score_images, classes, score_count]) = (boxes.shape(), scores.shape())
        else {
            return Err(OpError::Shape(format!("boxes {:?} and scores {:?}", boxes.shape(), scores.shape())));
        };
        if images != score_images || count != score_count {
            return Err(OpError::Shape(format!("boxes {:?} and scores {:?}", boxes.shape(), scores.shape())));
        }
        let float = |slot| Ok::<_, OpError>(scalar_operand(inputs, slot)?.and_then(|t| t.to_f64s().pop()));
        let most = scalar_operand(inputs, 2)?.and_then(|t| t.to_i64s().pop()).unwrap_or(0);
        let most = usize::try_from(most).unwrap_or(0);
        let thresholds = (float(3)?.unwrap_or(0.0), float(4)?);
        let corners: Vec<Corners> = boxes.to_f64s().chunks_exact(4).map(|b| self.corners(b)).collect();
        let scores = scores.to_f64s();
        let mut taken = Vec::new();
        // Without boxes there may be more images and classes than there is data.
        if count > 0 && most > 0 {
            for (row, scores) in scores.chunks_exact(count).enumerate() {
                let (image, class) = (row / classes, row % classes);
                let boxes = &corners[image * count..(image + 1) * count];
                for at in select(boxes, scores, most, thresholds) {
                    taken.extend([image as i64, class as i64, at as i64]);
                }
            }
        }
        Ok(vec![Tensor::from_vec(&[taken.len() / 3, 3], taken)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::testing::{eval, fact, inferred, plain, with};

    fn run(op: &crate::Op, boxes: &[f32], scores: &[f32], most: i64, iou: f32, least: f32) -> Vec<i64> {
        let boxes = Tensor::from_vec(&[1, boxes.len() / 4, 4], boxes.to_vec());
        let scores = Tensor::from_vec(&[1, 1, scores.len()], scores.to_vec());
        let scalars = (Tensor::scalar(most), Tensor::scalar(iou), Tensor::scalar(least));
        let taken = eval(op, &[&boxes, &scores, &scalars.0, &scalars.1, &scalars.2]).unwrap();
        taken.to_i64s().chunks_exact(3).map(|row| row[2]).collect()
    }

    #[test]
    fn better_boxes_drop_others() {
        let op = plain("NonMaxSuppression");
        let boxes = [0., 0., 1., 1., 1., 1., 0., 0.1, 0., 10., 1., 11.];
        assert_eq!(run(&op, &boxes, &[0.9, 0.95, 0.5], 3, 0.5, 0.0), [1, 2]);
        assert_eq!(run(&op, &boxes, &[0.9, 0.9, 0.5], 3, 0.95, 0.0), [0, 1, 2]);
        assert_eq!(run(&op, &boxes, &[0.9, 0.95, 0.5], 1, 0.5, 0.0), [1]);
        assert_eq!(run(&op, &boxes, &[0.9, 0.95, 0.5], 3, 0.5, 0.5), [1]);
        assert_eq!(run(&op, &boxes, &[0.9, 0.95, 0.5], 0, 0.5, 0.0), [0i64; 0]);
    }

    #[test]
    fn centers() {
        let op = with("NonMaxSuppression", Attrs::new().with("center_point_box", Attr::Int(1)));
        let boxes = [0.5, 0.5, 1., 1., 0.5, 0.6, 1., 1., 0.5, 10.5, 1., 1.];
        assert_eq!(run(&op, &boxes, &[0.9, 0.75, 0.6], 3, 0.5, 0.0), [0, 2]);
    }

    #[test]
    fn the_count_comes_with_the_data() {
        let (boxes, scores) = (fact(DType::F32, &["n", "b", "4"]), fact(DType::F32, &["n", "2", "b"]));
        assert_eq!(inferred(&plain("NonMaxSuppression"), &[&boxes, &scores]), "i64[node.0,3]");
    }
}
