//! What evaluation may take: sizes of results, and time.
//!
//! Whoever starts an evaluation sets a budget around it, with [`within`]; everything that is evaluated on the thread until
//! that returns is held to it, nested graphs and nodes without kernels in compiled programs too. It is a scope like a
//! parameter of every call would be, and not state that outlives it.

use crate::ops::{InferCx, Op, OpError};
use crate::{Datum, Fact, MAX_TRACKED_ELEMENTS};
use rabot_tensor::Tensor;
use std::cell::Cell;
use std::time::Instant;

/// What evaluation on a thread may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Most bytes of the results of one node, and of all tensors of one run of compiled code.
    pub bytes: u64,
    /// Most bytes of constants that nodes without inputs may become while a graph is compiled.
    pub folded_bytes: u64,
    /// When evaluation has to end. It is looked at before each node and each round of a loop.
    pub deadline: Option<Instant>,
}

impl Default for Budget {
    /// 16 GiB, 1 GiB of constants, and no end.
    fn default() -> Self {
        Budget { bytes: 16 << 30, folded_bytes: 1 << 30, deadline: None }
    }
}

thread_local! {
    static CURRENT: Cell<Option<Budget>> = const { Cell::new(None) };
}

/// Does `work` within a budget.
pub fn within<T>(budget: Budget, work: impl FnOnce() -> T) -> T {
    struct Restore(Option<Budget>);
    impl Drop for Restore {
        fn drop(&mut self) {
            CURRENT.set(self.0);
        }
    }
    let _restore = Restore(CURRENT.replace(Some(budget)));
    work()
}

/// Sets the budget of this thread for as long as it goes on: for programs that do one thing.
pub fn set(budget: Budget) {
    CURRENT.set(Some(budget));
}

/// The budget of what is being done on this thread.
pub fn current() -> Budget {
    CURRENT.get().unwrap_or_default()
}

/// **Errors**: the time is over.
pub(crate) fn check_time() -> Result<(), OpError> {
    match current().deadline {
        Some(deadline) if Instant::now() >= deadline => {
            Err(OpError::Value("the time that the run may take is over (--max-time)".to_owned()))
        }
        _ => Ok(()),
    }
}

/// **Errors**: a tensor of so many elements is more than the budget, whatever they are.
pub(crate) fn check_elements(shape: &[usize], count: usize) -> Result<(), OpError> {
    let limit = current().bytes;
    match count as u64 > limit {
        true => Err(OpError::Value(format!(
            "a tensor of shape {shape:?} is more than the {limit} bytes that a run may take (--max-memory)"
        ))),
        false => Ok(()),
    }
}

/// Checks the size of a node's results, as far as inference tells it from the operands, before anything is allocated.
///
/// **Errors**: they are too large.
pub(crate) fn check_results(op: &Op, inputs: &[Option<&Tensor>]) -> Result<(), OpError> {
    let limit = current().bytes;
    let given: usize = inputs.iter().flatten().map(|tensor| tensor.len()).sum();
    let facts: Vec<Option<Fact>> = inputs.iter().map(|input| input.map(fact)).collect();
    let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
    // What it refuses, evaluation refuses too, and says it of the values themselves.
    let Ok(results) = op.infer(&facts, &mut InferCx::new(op.name())) else { return Ok(()) };
    for result in &results {
        let Some(shape) = result.ty.static_shape() else { continue };
        let size = result.dtype().size_bytes().max(1);
        let bytes = shape.iter().try_fold(size, |bytes, &dim| bytes.checked_mul(dim));
        let fits = shape.contains(&0) || bytes.is_some_and(|bytes| bytes as u64 <= limit.max(given as u64));
        if !fits {
            let ty = &result.ty;
            let text =
                format!("a result {ty} is more than the {limit} bytes that a run may take (--max-memory)");
            return Err(OpError::Value(text));
        }
    }
    Ok(())
}

/// As [`check_results`], for operands that need not be tensors; those that are none are not looked at.
///
/// **Errors**: as [`check_results`].
pub(crate) fn check_data(op: &Op, inputs: &[Option<&Datum>]) -> Result<(), OpError> {
    let tensor = |input: &Option<&'_ Datum>| match input {
        None => Some(None),
        Some(Datum::Tensor(tensor)) => Some(Some(tensor.clone())),
        Some(_) => None,
    };
    let Some(tensors) = inputs.iter().map(tensor).collect::<Option<Vec<Option<Tensor>>>>() else {
        return Ok(());
    };
    check_results(op, &tensors.iter().map(Option::as_ref).collect::<Vec<_>>())
}

/// Contents are given where they can be sizes.
fn fact(tensor: &Tensor) -> Fact {
    match tensor.dtype().is_int() && tensor.len() <= MAX_TRACKED_ELEMENTS || tensor.len() == 1 {
        true => Fact::of_constant(tensor.clone()),
        false => Fact { constant: None, ..Fact::of_constant(tensor.clone()) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Attrs;
    use std::time::Duration;

    fn eval(op: &str, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let op = Op::from_attrs(op, &Attrs::new()).unwrap().unwrap();
        op.eval(&inputs.iter().copied().map(Some).collect::<Vec<_>>())
    }

    #[test]
    fn large_results_are_refused_before_they_are_made() {
        let list = |values: &[i64]| Tensor::from_i64s(rabot_tensor::DType::I64, &[values.len()], values);
        let one = Tensor::from_vec(&[1, 1], vec![1f32]);
        let shape = list(&[1 << 20, 1 << 20]);
        for (op, inputs) in [("ConstantOfShape", vec![&shape]), ("Expand", vec![&one, &shape])] {
            let error = eval(op, &inputs).unwrap_err().to_string();
            assert!(error.contains("--max-memory"), "{op}: {error}");
        }
        let small = Budget { bytes: 100, ..Budget::default() };
        let (row, column) =
            (Tensor::from_vec(&[1, 9], vec![1f32; 9]), Tensor::from_vec(&[9, 1], vec![1f32; 9]));
        assert_eq!(eval("MatMul", &[&column, &row]).unwrap()[0].shape(), [9, 9]);
        let error = within(small, || eval("MatMul", &[&column, &row])).unwrap_err().to_string();
        assert!(error.contains("100 bytes"), "{error}");
        assert_eq!(current(), Budget::default());
    }

    #[test]
    fn time_runs_out() {
        let now = Instant::now();
        let budget = |deadline| Budget { deadline: Some(deadline), ..Budget::default() };
        assert!(within(budget(now + Duration::from_secs(3600)), check_time).is_ok());
        assert!(within(budget(now), check_time).is_err());
        assert!(check_time().is_ok());
    }
}
