//! The rounds of a loop or scan, whoever evaluates the body.

use super::{Loop, Scan};
use crate::ops::util::normalize_axis;
use crate::ops::{Concat, Gather, Op, OpDef, OpError, Unsqueeze};
use crate::{Datum, Dim, Graph};
use rabot_tensor::Tensor;
use std::collections::HashMap;

/// Most rounds that a loop may go, so that a loop that never ends is an error.
pub const MAX_TRIPS: i64 = 10_000_000;

/// A tensor of which each round gets a slice, or that is stacked from those of each round.
#[derive(Clone, Copy, Debug)]
struct Along {
    axis: i64,
    /// From the end to the start.
    reverse: bool,
}

/// One evaluation of a loop or scan.
#[derive(Debug)]
pub struct Rounds<'a> {
    body: &'a Graph,
    is_loop: bool,
    /// Number of rounds, as far as that is known before.
    trips: Option<i64>,
    round: i64,
    goes_on: bool,
    carried: Vec<Datum>,
    carried_count: usize,
    scanned: Vec<(Along, Tensor)>,
    captured: Vec<Option<Datum>>,
    /// Sizes of dims, for the shape of what is stacked where there is no round.
    sizes: HashMap<String, i64>,
    stacked: Vec<(Along, Vec<Tensor>)>,
}

impl<'a> Rounds<'a> {
    /// Before the first round.
    ///
    /// **Errors**: operands that are missing, are no single elements where they must be, or differ in length.
    pub fn new(op: &'a Op, inputs: &[Option<&Datum>]) -> Result<Self, OpError> {
        match op {
            Op::Loop(op) => Self::of_loop(op, inputs),
            Op::Scan(op) => Self::of_scan(op, inputs),
            other => Err(OpError::Unsupported(format!("rounds of a {}", other.name()))),
        }
    }

    fn of_loop(op: &'a Loop, inputs: &[Option<&Datum>]) -> Result<Self, OpError> {
        let single = |slot: usize| match inputs.get(slot).copied().flatten() {
            None => Ok(None),
            Some(Datum::Tensor(tensor)) if tensor.len() == 1 => Ok(tensor.to_i64s().first().copied()),
            Some(other) => Err(OpError::Value(format!("input {slot} is {other}, expected one element"))),
        };
        let scans = op.body.outputs().len().saturating_sub(1 + op.carried);
        let first = Along { axis: 0, reverse: false };
        Ok(Rounds {
            body: &op.body,
            is_loop: true,
            trips: single(0)?,
            round: 0,
            goes_on: single(1)?.is_none_or(|condition| condition != 0),
            carried: initial(inputs, 2, op.carried)?,
            carried_count: op.carried,
            scanned: Vec::new(),
            captured: inputs.iter().skip(2 + op.carried).map(|i| i.cloned()).collect(),
            sizes: sizes(&op.body, 2, inputs.get(2..).unwrap_or_default()),
            stacked: vec![(first, Vec::new()); scans],
        })
    }

    fn of_scan(op: &'a Scan, inputs: &[Option<&Datum>]) -> Result<Self, OpError> {
        let mut scanned = Vec::new();
        let mut trips = None;
        for (at, &(axis, reverse)) in op.inputs.iter().enumerate() {
            let slot = op.states + at;
            let Some(Some(Datum::Tensor(tensor))) = inputs.get(slot) else {
                return Err(OpError::MissingInput { slot, name: "scan input" });
            };
            let length = tensor.shape()[normalize_axis(axis, tensor.rank())?] as i64;
            if trips.is_some_and(|trips| trips != length) {
                let text = format!("scanned tensors have {} and {length} slices", trips.unwrap_or(0));
                return Err(OpError::Shape(text));
            }
            trips = Some(length);
            scanned.push((Along { axis, reverse }, tensor.clone()));
        }
        let stacked = op.outputs.iter().map(|&(axis, reverse)| (Along { axis, reverse }, Vec::new()));
        Ok(Rounds {
            body: &op.body,
            is_loop: false,
            trips: Some(trips.unwrap_or(0)),
            round: 0,
            goes_on: true,
            carried: initial(inputs, 0, op.states)?,
            carried_count: op.states,
            scanned,
            captured: inputs.iter().skip(op.states + op.inputs.len()).map(|i| i.cloned()).collect(),
            sizes: sizes(&op.body, 0, inputs.get(..op.states).unwrap_or_default()),
            stacked: stacked.collect(),
        })
    }

    /// The graph of one round.
    pub fn body(&self) -> &'a Graph {
        self.body
    }

    /// The body's operands in the next round, if there is one.
    ///
    /// **Errors**: there were more than [`MAX_TRIPS`] rounds.
    pub fn start(&mut self) -> Result<Option<Vec<Option<Datum>>>, OpError> {
        if !self.goes_on || self.trips.is_some_and(|trips| self.round >= trips) {
            return Ok(None);
        }
        if self.is_loop && self.round >= MAX_TRIPS {
            return Err(too_many_rounds());
        }
        crate::budget::check_time()?;
        let mut operands = Vec::new();
        if self.is_loop {
            operands.push(Some(Datum::Tensor(Tensor::scalar(self.round))));
            operands.push(Some(Datum::Tensor(Tensor::from_bools(&[], &[true]))));
        }
        // What is carried is handed over, so that the body may hold the only copy.
        operands.extend(std::mem::take(&mut self.carried).into_iter().map(Some));
        for (along, tensor) in &self.scanned {
            let last = self.trips.unwrap_or(0) - 1;
            let at = if along.reverse { last - self.round } else { self.round };
            let slices = Gather { axis: along.axis }.eval(&[Some(tensor), Some(&Tensor::scalar(at))])?;
            operands.extend(slices.into_iter().map(|slice| Some(Datum::Tensor(slice))));
        }
        operands.extend(self.captured.iter().cloned());
        Ok(Some(operands))
    }

    /// Takes the body's results.
    ///
    /// **Errors**: there are too few, the condition is no single bool, or a slice is no tensor.
    pub fn finish(&mut self, results: Vec<Datum>) -> Result<(), OpError> {
        let mut results = results.into_iter();
        if self.is_loop {
            self.goes_on = match results.next() {
                Some(Datum::Tensor(tensor)) if tensor.len() == 1 => tensor.bytes().first() == Some(&1),
                other => {
                    let other = other.map_or_else(|| "missing".to_owned(), |other| other.to_string());
                    return Err(OpError::Value(format!(
                        "the body's condition is {other}, expected one bool"
                    )));
                }
            };
        }
        self.carried = results.by_ref().take(self.carried_count).collect();
        if self.carried.len() < self.carried_count {
            return Err(OpError::Value("the body gives too few results".to_owned()));
        }
        for ((_, stack), result) in self.stacked.iter_mut().zip(results) {
            match result {
                Datum::Tensor(tensor) => stack.push(tensor),
                other => return Err(OpError::Value(format!("a scan output is {other}, expected a tensor"))),
            }
        }
        self.round += 1;
        Ok(())
    }

    /// The results after the last round.
    ///
    /// **Errors**: slices of several rounds do not have one shape.
    pub fn outputs(self) -> Result<Vec<Datum>, OpError> {
        let results = self.body.output_facts();
        let first = usize::from(self.is_loop) + self.carried_count;
        let mut outputs = self.carried;
        for ((along, mut slices), fact) in self.stacked.into_iter().zip(results.iter().skip(first)) {
            if along.reverse {
                slices.reverse();
            }
            let axis = normalize_axis(along.axis, slices.first().map_or(fact.rank(), Tensor::rank) + 1)?;
            outputs.push(Datum::Tensor(match slices.is_empty() {
                false => stack(&slices, axis as i64)?,
                true => {
                    let size = |dim: &Dim| dim.eval(&|name| self.sizes.get(name).copied()).unwrap_or(0);
                    let dims = fact.shape().iter().map(|dim| usize::try_from(size(dim)).unwrap_or(0));
                    let mut shape: Vec<usize> = dims.collect();
                    shape.insert(axis, 0);
                    empty(fact.dtype(), &shape)
                }
            }));
        }
        Ok(outputs)
    }
}

/// Sizes of the symbolic dims of a body's inputs from `first` on, from operands.
fn sizes(body: &Graph, first: usize, operands: &[Option<&Datum>]) -> HashMap<String, i64> {
    let mut sizes = HashMap::new();
    for (&input, operand) in body.inputs().iter().skip(first).zip(operands) {
        let Some(Datum::Tensor(tensor)) = operand else { continue };
        for (dim, &size) in body.node(input).outputs[0].fact.shape().iter().zip(tensor.shape()) {
            if let Some(name) = dim.as_symbol() {
                sizes.insert(name.to_owned(), size as i64);
            }
        }
    }
    sizes
}

fn initial(inputs: &[Option<&Datum>], first: usize, count: usize) -> Result<Vec<Datum>, OpError> {
    let one = |slot: usize| {
        let datum = inputs.get(slot).copied().flatten().cloned();
        datum.ok_or(OpError::MissingInput { slot, name: "initial value" })
    };
    (first..first + count).map(one).collect()
}

pub(super) fn too_many_rounds() -> OpError {
    OpError::Value(format!("the loop goes more than {MAX_TRIPS} rounds, or never ends"))
}

fn empty(dtype: rabot_tensor::DType, shape: &[usize]) -> Tensor {
    match dtype {
        rabot_tensor::DType::String => Tensor::from_strings(shape, Vec::new()),
        dtype => Tensor::zeros(dtype, shape),
    }
}

/// Slices of one shape along a new axis.
fn stack(slices: &[Tensor], axis: i64) -> Result<Tensor, OpError> {
    let axes = Tensor::from_vec(&[1], vec![axis]);
    let unsqueeze = |slice: &Tensor| Unsqueeze {}.eval(&[Some(slice), Some(&axes)]);
    let parts: Vec<Tensor> =
        slices.iter().map(unsqueeze).collect::<Result<Vec<_>, _>>()?.into_iter().flatten().collect();
    let parts: Vec<Option<&Tensor>> = parts.iter().map(Some).collect();
    let mut joined = Concat { axis }.eval(&parts)?;
    joined.pop().ok_or_else(|| OpError::Value("nothing to stack".to_owned()))
}
