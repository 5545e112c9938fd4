//! `Scan`.

use super::{check_own_inputs, leave, outer_symbols};
use crate::ops::util::{known_attrs, normalize_axis};
use crate::ops::{InferCx, OpError};
use crate::{Attr, Attrs, Dim, Fact, Graph};

/// `Scan`: operands are the initial states, the tensors that are scanned, then what the body captures.
///
/// The body's inputs are the states, one slice of each scanned tensor, what is captured; its outputs the states and one
/// slice of each scan output.
///
/// **Source**: <https://onnx.ai/onnx/operators/onnx__Scan.html>
#[derive(Clone, Debug, PartialEq)]
pub struct Scan {
    /// One step.
    pub body: Graph,
    /// Number of states.
    pub states: usize,
    /// For each scanned tensor, the axis along which it is scanned, and if from the end.
    pub inputs: Vec<(i64, bool)>,
    /// For each scan output, the axis along which slices are stacked, and if from the end.
    pub outputs: Vec<(i64, bool)>,
}

const INPUT_AXES: &str = "scan_input_axes";
const INPUT_DIRECTIONS: &str = "scan_input_directions";
const OUTPUT_AXES: &str = "scan_output_axes";
const OUTPUT_DIRECTIONS: &str = "scan_output_directions";

/// Most states or scanned tensors.
const MAX_OPERANDS: usize = 1 << 16;

/// Axes and directions, of which there must be as many.
fn along(attrs: &Attrs, axes: &str, directions: &str) -> Result<Vec<(i64, bool)>, OpError> {
    let axes_list = attrs.ints(axes)?.unwrap_or_default();
    let flags = attrs.ints(directions)?.unwrap_or_default();
    if axes_list.len() != flags.len() || flags.iter().any(|flag| !(0..=1).contains(flag)) {
        let (name, value) = (directions.to_owned(), format!("{flags:?}"));
        return Err(OpError::Attribute {
            name,
            value,
            reason: format!("expected 0 or 1 for each of `{axes}`"),
        });
    }
    Ok(axes_list.into_iter().zip(flags).map(|(axis, flag)| (axis, flag == 1)).collect())
}

impl Scan {
    /// The attributes: those of ONNX, all of them.
    pub(in crate::ops) fn attrs(&self) -> Attrs {
        let axes = |list: &[(i64, bool)]| Attr::Ints(list.iter().map(|along| along.0).collect());
        let directions = |list: &[(i64, bool)]| Attr::Ints(list.iter().map(|along| along.1.into()).collect());
        Attrs::new()
            .with("num_scan_inputs", Attr::Int(self.inputs.len() as i64))
            .with("states", Attr::Int(self.states as i64))
            .with(INPUT_AXES, axes(&self.inputs))
            .with(INPUT_DIRECTIONS, directions(&self.inputs))
            .with(OUTPUT_AXES, axes(&self.outputs))
            .with(OUTPUT_DIRECTIONS, directions(&self.outputs))
    }

    /// A scan with these attributes and an empty body.
    ///
    /// **Errors**: an attribute is missing, of the wrong kind or unknown, or lists do not have one length.
    pub fn from_attrs(attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(
            attrs,
            &["num_scan_inputs", "states", INPUT_AXES, INPUT_DIRECTIONS, OUTPUT_AXES, OUTPUT_DIRECTIONS],
        )?;
        let count = |name: &str| {
            let count = attrs.required_int(name)?;
            usize::try_from(count).ok().filter(|&count| count <= MAX_OPERANDS).ok_or_else(|| {
                OpError::Attribute {
                    name: name.to_owned(),
                    value: count.to_string(),
                    reason: format!("expected 0 to {MAX_OPERANDS}"),
                }
            })
        };
        let inputs = along(attrs, INPUT_AXES, INPUT_DIRECTIONS)?;
        let scans = count("num_scan_inputs")?;
        if inputs.len() != scans {
            let reason = format!("expected {scans} axes");
            return Err(OpError::Attribute {
                name: INPUT_AXES.to_owned(),
                value: inputs.len().to_string(),
                reason,
            });
        }
        let outputs = along(attrs, OUTPUT_AXES, OUTPUT_DIRECTIONS)?;
        Ok(Scan { body: Graph::default(), states: count("states")?, inputs, outputs })
    }

    /// Number of tensors that are scanned.
    pub(super) fn scans(&self) -> usize {
        self.inputs.len()
    }

    /// Facts of the body's own inputs in the first step.
    pub(super) fn first_facts(&self, inputs: &[Option<&Fact>]) -> Result<Vec<Fact>, OpError> {
        let mut facts = Vec::new();
        for slot in 0..self.states {
            let Some(Some(fact)) = inputs.get(slot) else {
                return Err(OpError::MissingInput { slot, name: "initial state" });
            };
            facts.push(Fact::of(fact.ty.clone()));
        }
        for (at, (axis, _)) in self.inputs.iter().enumerate() {
            let slot = self.states + at;
            let Some(Some(fact)) = inputs.get(slot) else {
                return Err(OpError::MissingInput { slot, name: "scan input" });
            };
            if !fact.ty.is_tensor() {
                facts.push(Fact::unranked(fact.dtype()));
                continue;
            }
            let mut shape = fact.shape().to_vec();
            shape.remove(normalize_axis(*axis, shape.len())?);
            facts.push(Fact::of_type(fact.dtype(), shape));
        }
        Ok(facts)
    }

    pub(in crate::ops) fn infer(
        &self,
        inputs: &[Option<&Fact>],
        cx: &mut InferCx,
    ) -> Result<Vec<Fact>, OpError> {
        self.first_facts(inputs)?;
        check_own_inputs(&self.body, self.states + self.inputs.len())?;
        let steps = self.steps(inputs, cx)?;
        let results = self.body.output_facts();
        let expected = self.states + self.outputs.len();
        if results.len() != expected {
            let text = format!("the body has {} outputs, expected {expected}", results.len());
            return Err(OpError::Shape(text));
        }
        let outer = outer_symbols(inputs);
        let mut facts = Vec::new();
        for at in 0..self.states {
            let initial = self.body.node(self.body.inputs()[at]);
            facts.push(leave(&initial.outputs[0].fact, &outer, cx));
        }
        for (result, (axis, _)) in results[self.states..].iter().zip(&self.outputs) {
            let inner = leave(result, &outer, cx);
            facts.push(match inner.ty.is_tensor() {
                true => {
                    let mut shape = inner.shape().to_vec();
                    shape.insert(normalize_axis(*axis, shape.len() + 1)?, steps.clone());
                    Fact::of_type(inner.dtype(), shape)
                }
                false => Fact::unranked(inner.dtype()),
            });
        }
        Ok(facts)
    }

    fn steps(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Dim, OpError> {
        let mut steps: Option<Dim> = None;
        for (at, (axis, _)) in self.inputs.iter().enumerate() {
            let Some(Some(fact)) = inputs.get(self.states + at) else { continue };
            if !fact.ty.is_tensor() {
                continue;
            }
            let length = &fact.shape()[normalize_axis(*axis, fact.rank())?];
            match &steps {
                None => steps = Some(length.clone()),
                Some(steps) => cx.require_equal(steps, length)?,
            }
        }
        Ok(steps.unwrap_or_else(|| cx.fresh()))
    }
}
