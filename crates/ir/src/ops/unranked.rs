//! Inference where a tensor's number of dims is not known.

use super::{InferCx, OpDef, OpError};
use crate::{Dim, Fact, Form};

/// Numbers of dims that are tried, the most usual ones first.
const RANKS: [usize; 7] = [2, 3, 4, 1, 5, 6, 0];

/// Inference of a family of ops, for operands of any form.
///
/// **Errors**: those of the op; operands that are no tensors, where the op takes only tensors.
pub(super) fn infer_family<T: OpDef>(
    op: &T,
    inputs: &[Option<&Fact>],
    cx: &mut InferCx,
) -> Result<Vec<Fact>, OpError> {
    if T::TAKES_DATA {
        return op.infer(inputs, cx);
    }
    let mut unranked = false;
    for (slot, fact) in inputs.iter().enumerate() {
        match fact.map(|fact| &fact.ty.form) {
            None | Some(Form::Tensor) => {}
            Some(Form::Unranked) => unranked = true,
            Some(_) => {
                let actual = fact.map_or_else(String::new, |fact| fact.ty.to_string());
                return Err(OpError::Form { slot, actual, expected: "a tensor" });
            }
        }
    }
    if unranked { infer_unranked(op, inputs, cx) } else { op.infer(inputs, cx) }
}

/// Infers for each of several ranks, and keeps what all agree on: dtypes never depend on ranks.
fn infer_unranked<T: OpDef>(
    op: &T,
    inputs: &[Option<&Fact>],
    cx: &mut InferCx,
) -> Result<Vec<Fact>, OpError> {
    let mut found: Option<Vec<Fact>> = None;
    let mut failure = None;
    for rank in RANKS {
        let tried: Vec<Option<Fact>> = inputs.iter().map(|fact| fact.map(|f| with_rank(f, rank))).collect();
        let facts: Vec<Option<&Fact>> = tried.iter().map(Option::as_ref).collect();
        // Dims that must be equal for one rank say nothing of another.
        match op.infer(&facts, &mut InferCx::new(&cx.node)) {
            Err(error) => failure = failure.or(Some(error)),
            Ok(facts) => {
                found = Some(match found {
                    None => facts,
                    Some(before) => before.iter().zip(&facts).map(|(a, b)| common(a, b)).collect(),
                });
            }
        }
    }
    let facts = match (found, failure) {
        (Some(facts), _) => facts,
        (None, Some(error)) => return Err(error),
        (None, None) => Vec::new(),
    };
    // Of the dims, only numbers hold for certain: symbols are those of the ranks that were tried.
    let mut dim = |dim: &Dim| if dim.as_const().is_some() { dim.clone() } else { cx.fresh() };
    let settle = |fact: Fact| match fact.ty.form {
        Form::Tensor => Fact::of_type(fact.dtype(), fact.shape().iter().map(&mut dim).collect::<Vec<_>>()),
        _ => Fact::of(fact.ty),
    };
    Ok(facts.into_iter().map(settle).collect())
}

fn with_rank(fact: &Fact, rank: usize) -> Fact {
    match fact.ty.form {
        Form::Unranked => {
            let dims: Vec<Dim> = (0..rank).map(|at| Dim::symbol(format!("?{rank}.{at}"))).collect();
            Fact::of_type(fact.dtype(), dims)
        }
        _ => fact.clone(),
    }
}

fn common(a: &Fact, b: &Fact) -> Fact {
    let mut unknown = || Dim::symbol("?");
    Fact::of(a.ty.join(&b.ty, &mut unknown).unwrap_or_else(|| crate::ValueType::unranked(a.dtype())))
}

#[cfg(test)]
mod tests {
    use crate::ops::InferCx;
    use crate::{Attrs, Fact, Op};
    use rabot_tensor::DType;

    #[test]
    fn what_does_not_depend_on_the_rank_is_known() {
        let data = Fact::unranked(DType::F32);
        let infer = |name: &str| {
            let op = Op::from_attrs(name, &Attrs::new()).unwrap().unwrap();
            op.infer(&[Some(&data)], &mut InferCx::new("n")).unwrap()[0].ty.to_string()
        };
        assert_eq!(infer("Relu"), "f32[*]");
        assert_eq!(infer("Shape"), "i64[n.0]");
        assert_eq!(infer("Flatten"), "f32[n.0,n.1]");
    }
}
