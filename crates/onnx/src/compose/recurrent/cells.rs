//! One step of a recurrent layer.

use super::activation::Activation;
use crate::compose::chain::Made;
use crate::compose::microsoft_quantized::rounded_to_bytes;
use crate::error::Failure;
use crate::upgrade::Draft;
use rabot_ir::Value;

/// Weights of the state, transposed: `[hidden, gates · hidden]`.
#[derive(Clone, Debug)]
pub(super) enum Cell {
    /// Gates input, output, forget, cell.
    Lstm {
        /// Of all gates.
        r: Value,
        /// Weights of the cell in the gates input, output and forget.
        peepholes: Option<Vec<Value>>,
        /// The forget gate is what the input gate leaves.
        coupled: bool,
        /// The hidden values are rounded to 8 bits before they meet the weights.
        bytes: bool,
    },
    /// Gates update, reset, hidden.
    Gru {
        /// Of update and reset.
        gates: Value,
        /// Of the hidden gate.
        candidate: Value,
        /// The reset gate comes after the product.
        late: bool,
        /// Bias of the product under the reset gate, if that comes late.
        late_bias: Option<Value>,
    },
    /// One gate.
    Rnn {
        /// Its weights.
        r: Value,
    },
}

/// How a step is made.
#[derive(Debug)]
pub(super) struct Step<'a> {
    pub(super) cell: Cell,
    pub(super) activations: &'a [Activation],
    pub(super) clip: Option<f64>,
    pub(super) hidden: i64,
}

impl Step<'_> {
    /// The values from outside that a step takes, besides its input and state.
    pub(super) fn captured(&mut self) -> Vec<&mut Value> {
        match &mut self.cell {
            Cell::Lstm { r, peepholes, .. } => {
                std::iter::once(r).chain(peepholes.iter_mut().flatten()).collect()
            }
            Cell::Gru { gates, candidate, late_bias, .. } => {
                [gates, candidate].into_iter().chain(late_bias).collect()
            }
            Cell::Rnn { r } => vec![r],
        }
    }

    /// The state after a step: hidden values, then the cell if there is one.
    pub(super) fn make(
        &self,
        draft: &mut Draft<'_>,
        x: Value,
        states: &[Value],
    ) -> Result<Vec<Value>, Failure> {
        match (&self.cell, states) {
            (Cell::Lstm { r, peepholes, coupled, bytes }, &[h, c]) => {
                let h = if *bytes { rounded_to_bytes(draft, h)? } else { h };
                self.lstm(draft, (x, h, c), *r, peepholes.as_deref(), *coupled)
            }
            (Cell::Gru { gates, candidate, late: false, .. }, &[h]) => {
                self.gru(draft, x, h, *gates, *candidate)
            }
            (Cell::Gru { gates, candidate, late_bias, .. }, &[h]) => {
                self.late_gru(draft, (x, h), *gates, *candidate, *late_bias)
            }
            (Cell::Rnn { r }, &[h]) => {
                let product = draft.matmul(h, *r)?;
                let sum = draft.plus(x, product)?;
                Ok(vec![self.activation(draft, 0, sum)?])
            }
            _ => Err(Failure::unsupported(format!("a step with {} states", states.len()))),
        }
    }

    fn activation(&self, draft: &mut Draft<'_>, index: usize, x: Value) -> Made {
        let x = match self.clip {
            None => x,
            Some(clip) => {
                let (low, high) = (draft.scalar_like(x, -clip), draft.scalar_like(x, clip));
                draft.node("Clip", &[x, low, high])?
            }
        };
        self.unclipped(draft, index, x)
    }

    fn unclipped(&self, draft: &mut Draft<'_>, index: usize, x: Value) -> Made {
        let missing = || Failure::unsupported("an activation is missing");
        self.activations.get(index).ok_or_else(missing)?.of(draft, x)
    }

    fn lstm(
        &self,
        draft: &mut Draft<'_>,
        (x, h, c): (Value, Value, Value),
        r: Value,
        peepholes: Option<&[Value]>,
        coupled: bool,
    ) -> Result<Vec<Value>, Failure> {
        let product = draft.matmul(h, r)?;
        let sum = draft.plus(x, product)?;
        let gates = draft.parts(sum, 1, &[self.hidden; 4])?;
        let peep = |draft: &mut Draft<'_>, gate: Value, which: usize, cell: Value| match peepholes {
            None => Ok(gate),
            Some(weights) => {
                let seen = draft.times(weights[which], cell)?;
                draft.plus(gate, seen)
            }
        };
        let input = peep(draft, gates[0], 0, c)?;
        let input = self.activation(draft, 0, input)?;
        let forget = if coupled {
            let one = draft.scalar_like(input, 1.0);
            draft.minus(one, input)?
        } else {
            let forget = peep(draft, gates[2], 2, c)?;
            self.activation(draft, 0, forget)?
        };
        let candidate = self.activation(draft, 1, gates[3])?;
        let kept = draft.times(forget, c)?;
        let new = draft.times(input, candidate)?;
        let cell = draft.plus(kept, new)?;
        let output = peep(draft, gates[1], 1, cell)?;
        let output = self.activation(draft, 0, output)?;
        let shown = self.unclipped(draft, 2, cell)?;
        Ok(vec![draft.times(output, shown)?, cell])
    }

    /// (1 − z) · candidate + z · h.
    fn mixed(draft: &mut Draft<'_>, z: Value, candidate: Value, h: Value) -> Result<Vec<Value>, Failure> {
        let one = draft.scalar_like(z, 1.0);
        let rest = draft.minus(one, z)?;
        let new = draft.times(rest, candidate)?;
        let kept = draft.times(z, h)?;
        Ok(vec![draft.plus(new, kept)?])
    }

    /// The gates update and reset as one, and the input's part of the hidden gate.
    fn gates(
        &self,
        draft: &mut Draft<'_>,
        x: Value,
        h: Value,
        weights: Value,
    ) -> Result<[Value; 3], Failure> {
        let parts = draft.parts(x, 1, &[2 * self.hidden, self.hidden])?;
        let product = draft.matmul(h, weights)?;
        let sum = draft.plus(parts[0], product)?;
        let both = self.activation(draft, 0, sum)?;
        let gates = draft.parts(both, 1, &[self.hidden; 2])?;
        Ok([gates[0], gates[1], parts[1]])
    }

    fn gru(
        &self,
        draft: &mut Draft<'_>,
        x: Value,
        h: Value,
        weights: Value,
        candidate: Value,
    ) -> Result<Vec<Value>, Failure> {
        let [z, r, x] = self.gates(draft, x, h, weights)?;
        let reset = draft.times(r, h)?;
        let product = draft.matmul(reset, candidate)?;
        let sum = draft.plus(x, product)?;
        let candidate = self.activation(draft, 1, sum)?;
        Self::mixed(draft, z, candidate, h)
    }

    fn late_gru(
        &self,
        draft: &mut Draft<'_>,
        (x, h): (Value, Value),
        weights: Value,
        candidate: Value,
        bias: Option<Value>,
    ) -> Result<Vec<Value>, Failure> {
        let [z, r, x] = self.gates(draft, x, h, weights)?;
        let mut product = draft.matmul(h, candidate)?;
        if let Some(bias) = bias {
            product = draft.plus(product, bias)?;
        }
        let reset = draft.times(r, product)?;
        let sum = draft.plus(x, reset)?;
        let candidate = self.activation(draft, 1, sum)?;
        Self::mixed(draft, z, candidate, h)
    }
}
