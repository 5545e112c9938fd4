//! What outputs have to be like.

use super::expr::Expression;
use super::known::Known;
use crate::{DebugError, Difference, Tensors, Tolerance, Verdict, tolerance};
use rabot_ir::Graph;
use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;

/// A number from outputs and the outputs of the original model.
pub type Metric = dyn Fn(&Tensors, &Tensors) -> Result<f64, String>;

/// What outputs have to be like.
pub enum Check {
    /// Those of the original within what rounding explains.
    Tolerance,
    /// An expression over outputs is true.
    Expression(Expression),
    /// A metric lies within bounds.
    Metric {
        /// Finds the metric.
        evaluate: Box<Metric>,
        /// Smallest value that is right.
        min: f64,
        /// Largest value that is right.
        max: f64,
    },
}

impl fmt::Debug for Check {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Check::Tolerance => write!(f, "Tolerance"),
            Check::Expression(expression) => write!(f, "Expression({})", expression.text()),
            Check::Metric { min, max, .. } => write!(f, "Metric({min}..={max})"),
        }
    }
}

/// A check on one graph.
#[derive(Clone, Debug)]
pub(crate) struct Judged {
    /// True if it holds on every set of inputs.
    pub holds: bool,
    /// Largest relative difference of an output from the original's.
    pub error: f64,
    /// Why it does not hold.
    pub why: Option<String>,
    /// True if the graph could not be evaluated.
    pub unable: bool,
}

impl Judged {
    /// A graph that cannot be evaluated.
    pub fn failed(why: String) -> Self {
        Judged { holds: false, error: f64::INFINITY, why: Some(why), unable: true }
    }
}

/// A check, with what it needs of the original.
pub(crate) struct Judge<'a> {
    check: &'a Check,
    inputs: &'a [Tensors],
    reference: Vec<Tensors>,
    tolerances: Vec<BTreeMap<String, Tolerance>>,
    worst_set: Cell<usize>,
}

impl<'a> Judge<'a> {
    /// **Errors**: the original cannot be evaluated.
    pub fn new(
        known: &Known,
        graph: &Graph,
        inputs: &'a [Tensors],
        check: &'a Check,
    ) -> Result<Self, DebugError> {
        let (mut reference, mut tolerances) = (Vec::new(), Vec::new());
        for set in inputs {
            let outputs =
                known.run(graph, set).map_err(|error| DebugError::interp("the model as imported", error))?;
            reference.push(outputs);
            if matches!(check, Check::Tolerance) {
                tolerances.push(tolerance::for_outputs(graph, set)?);
            }
        }
        Ok(Judge { check, inputs, reference, tolerances, worst_set: Cell::new(0) })
    }

    /// The check on the original's own outputs.
    ///
    /// **Errors**: it cannot be evaluated: an output that is not there, or a program that fails.
    pub fn original(&self) -> Result<Judged, DebugError> {
        let mut judged = Judged { holds: true, error: 0.0, why: None, unable: false };
        for at in 0..self.inputs.len() {
            let outputs = self.reference.get(at).cloned().unwrap_or_default();
            if let Some(why) = self.one(at, &outputs).map_err(DebugError::Bisect)? {
                judged = Judged { holds: false, why: Some(why), ..judged };
            }
        }
        Ok(judged)
    }

    /// Number of the set of inputs on which the check failed last.
    pub fn worst_set(&self) -> usize {
        self.worst_set.get()
    }

    /// Takes note of the set on which the check failed when it was judged before.
    pub fn set_worst_set(&self, at: usize) {
        self.worst_set.set(at);
    }

    /// The check on what `run` makes of every set of inputs.
    pub fn all(&self, run: &dyn Fn(&Tensors) -> Result<Tensors, String>) -> Judged {
        let mut judged = Judged { holds: true, error: 0.0, why: None, unable: false };
        for (at, set) in self.inputs.iter().enumerate() {
            let outcome =
                run(set).and_then(|outputs| Ok((self.error(at, &outputs), self.one(at, &outputs)?)));
            let (error, why) = match outcome {
                Ok(found) => found,
                Err(why) => {
                    self.worst_set.set(at);
                    return Judged::failed(why);
                }
            };
            judged.error = judged.error.max(error);
            if why.is_some() {
                if judged.holds {
                    self.worst_set.set(at);
                }
                judged = Judged { holds: false, why, ..judged };
            }
        }
        judged
    }

    fn error(&self, at: usize, outputs: &Tensors) -> f64 {
        let Some(reference) = self.reference.get(at) else { return f64::INFINITY };
        let one = |(name, wanted): (&String, &rabot_tensor::Tensor)| {
            let found = outputs.get(name).and_then(|got| Difference::of(got, wanted));
            found.map_or(f64::INFINITY, |found| found.relative)
        };
        reference.iter().map(one).fold(0.0, f64::max)
    }

    /// Why the check fails on one set.
    ///
    /// **Errors**: it cannot be evaluated.
    fn one(&self, at: usize, outputs: &Tensors) -> Result<Option<String>, String> {
        let none = Tensors::new();
        let reference = self.reference.get(at).unwrap_or(&none);
        match self.check {
            Check::Tolerance => Ok(self.beyond(at, outputs, reference)),
            Check::Expression(expression) => {
                let holds = expression.holds(outputs, reference)?;
                Ok((!holds).then(|| format!("`{}` is false", expression.text())))
            }
            Check::Metric { evaluate, min, max } => {
                let value = evaluate(outputs, reference)?;
                let holds = value >= *min && value <= *max;
                Ok((!holds).then(|| format!("the metric is {value}")))
            }
        }
    }

    fn beyond(&self, at: usize, outputs: &Tensors, reference: &Tensors) -> Option<String> {
        let tolerances = self.tolerances.get(at)?;
        for (name, wanted) in reference {
            let found = outputs.get(name).and_then(|got| Difference::of(got, wanted));
            let Some(found) = found else { return Some(format!("output `{name}` is of another type")) };
            let tolerance = tolerances.get(name).copied().unwrap_or_default();
            let dtype = wanted.dtype();
            if tolerance.judge(dtype, &found) == Verdict::Exceeds {
                let (relative, allowed) = (found.relative, tolerance.relative());
                return Some(format!("output `{name}` is off by {relative:.2e}, allowed {allowed:.2e}"));
            }
        }
        None
    }
}
