//! Recurrent layers: `LSTM`, `GRU`, `RNN`.
//!
//! One matrix product takes the input of all steps through its weights; what is left of a step is a product with the
//! state and elementwise work. A sequence of known length of at most [`MOST_UNROLLED`] is written out step by step; any
//! other is a `Scan`. Lengths of the sequences of a batch are comparisons with the number of the step: a sequence that
//! has ended (or, backwards, has not begun) keeps its state and gives zeros. 16-bit floats are computed in f32 and
//! rounded at the end.
//!
//! **Source**: <https://onnx.ai/onnx/operators/onnx__LSTM.html>, <https://onnx.ai/onnx/operators/onnx__GRU.html>,
//! <https://onnx.ai/onnx/operators/onnx__RNN.html>. What the parameters of activations are and that clipping bounds
//! the input of the activations of gates (not the cell on its way to the output) is ONNX Runtime's reading:
//! <https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/providers/cpu/rnn>.

mod activation;
mod cells;
mod rounds;

use super::Row;
use super::chain::Made;
use super::emit::{Size, working, wrong};
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use activation::Activation;
use cells::Cell;
use rabot_ir::Value;
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[("", "LSTM", lstm), ("", "GRU", gru), ("", "RNN", rnn)];

/// Most steps that are written out one by one.
const MOST_UNROLLED: i64 = 32;

const COMMON: [&str; 8] = [
    "activation_alpha",
    "activation_beta",
    "activations",
    "clip",
    "direction",
    "hidden_size",
    "layout",
    "output_sequence",
];

fn lstm(draft: Draft<'_>) -> Result<Converted, Failure> {
    lstm_of(draft, false)
}

/// `LSTM` whose hidden values are rounded to 8 bits before they meet the weights.
pub(super) fn quantized_lstm(draft: Draft<'_>) -> Result<Converted, Failure> {
    lstm_of(draft, true)
}

fn lstm_of(draft: Draft<'_>, bytes: bool) -> Result<Converted, Failure> {
    draft.check_attrs(&[COMMON.as_slice(), &["input_forget"]].concat())?;
    let coupled = draft.flag("input_forget", false)?;
    layer(
        draft,
        &Kind {
            gates: 4,
            defaults: &["Sigmoid", "Tanh", "Tanh"],
            has_cell: true,
            coupled,
            late: false,
            bytes,
        },
    )
}

fn gru(draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[COMMON.as_slice(), &["linear_before_reset"]].concat())?;
    let late = draft.int_attr("linear_before_reset", 0)? != 0;
    layer(
        draft,
        &Kind {
            gates: 3,
            defaults: &["Sigmoid", "Tanh"],
            has_cell: false,
            coupled: false,
            late,
            bytes: false,
        },
    )
}

fn rnn(draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&COMMON)?;
    layer(
        draft,
        &Kind { gates: 1, defaults: &["Tanh"], has_cell: false, coupled: false, late: false, bytes: false },
    )
}

/// What tells the three layers apart.
struct Kind {
    /// Gates, as many as there are blocks of weights.
    gates: i64,
    /// Activations of one direction.
    defaults: &'static [&'static str],
    /// If the state has a cell besides the hidden values.
    has_cell: bool,
    /// LSTM: the forget gate is what the input gate leaves.
    coupled: bool,
    /// GRU: the reset gate comes after the product with the state.
    late: bool,
    /// LSTM: the hidden values are rounded to 8 bits before they meet the weights.
    bytes: bool,
}

/// The operands and lengths of a layer, in f32 or f64, with the sequence as the first axis.
struct Layer {
    x: Value,
    lengths: Option<Value>,
    hidden: i64,
    dtype: DType,
    clip: Option<f64>,
    batch_first: bool,
}

/// The results of one direction.
struct Direction {
    /// `[sequence, batch, hidden]`.
    all: Value,
    /// `[batch, hidden]`: hidden values, then the cell if there is one.
    last: Vec<Value>,
}

fn layer(mut draft: Draft<'_>, kind: &Kind) -> Result<Converted, Failure> {
    let result = draft.dtype_of(draft.operand(0, "X")?);
    if !result.is_float() || result.is_short_float() {
        return Err(Failure::unsupported(format!("an input of {result}, expected f16, bf16, f32 or f64")));
    }
    let dtype = working(result);
    let directions = match draft.attrs.str("direction", "forward").map_err(wrong)?.as_str() {
        "forward" => vec![false],
        "reverse" => vec![true],
        "bidirectional" => vec![false, true],
        other => {
            let text = format!("direction `{other}`, expected forward, reverse or bidirectional");
            return Err(Failure::unsupported(text));
        }
    };
    let layer = prepare(&mut draft, kind, dtype, directions.len() as i64)?;
    let activations = activation::read(&draft.attrs, kind.defaults, directions.len())?;
    let mut made = Vec::new();
    for (index, (&reverse, activations)) in directions.iter().zip(&activations).enumerate() {
        made.push(direction(&mut draft, kind, &layer, index as i64, reverse, activations)?);
    }
    let mut outputs = vec![Some(all_steps(&mut draft, &layer, &made, result)?)];
    for state in 0..1 + usize::from(kind.has_cell) {
        let axis = if layer.batch_first { 1 } else { 0 };
        let mut last = Vec::new();
        for direction in &made {
            if let Some(&value) = direction.last.get(state) {
                last.push(draft.unsqueeze(value, vec![axis])?);
            }
        }
        let joined = draft.joined(&last, axis)?;
        outputs.push(Some(draft.cast(joined, result)?));
    }
    draft.finish_with(outputs)
}

/// Checks the operands and brings the input into the form of [`Layer`].
fn prepare(draft: &mut Draft<'_>, kind: &Kind, dtype: DType, directions: i64) -> Result<Layer, Failure> {
    let (x, r) = (draft.operand(0, "X")?, draft.operand(2, "R")?);
    for (slot, rank) in [(0, 3), (1, 3), (2, 3), (3, 2), (4, 1), (5, 3), (6, 3), (7, 2)] {
        let used = slot < 6 || kind.has_cell;
        match draft.fact(slot) {
            Some(_) if !used => return Err(Failure::unsupported(format!("more than {slot} inputs"))),
            Some(fact) if fact.rank() != rank => {
                return Err(Failure::unsupported(format!(
                    "input {slot} of rank {}, expected {rank}",
                    fact.rank()
                )));
            }
            _ => {}
        }
    }
    let hidden = match draft.known_length(r, 2) {
        Some(hidden) => hidden,
        None => draft.attrs.required_int("hidden_size").map_err(wrong)?,
    };
    let stated = draft.int_attr("hidden_size", hidden)?;
    let weights = [draft.operand(1, "W")?, r];
    let fits = |draft: &Draft<'_>, value: Value, axis: usize, wanted: i64| {
        draft.known_length(value, axis).is_none_or(|length| length == wanted)
    };
    let rows = kind.gates.checked_mul(hidden).unwrap_or(-1);
    let good = weights.iter().all(|&w| fits(draft, w, 0, directions) && fits(draft, w, 1, rows));
    if stated != hidden || hidden < 1 || !good {
        let text = format!(
            "hidden_size {stated} with {directions} direction(s), W of {} and R of {}",
            draft.required(1)?.ty,
            draft.required(2)?.ty
        );
        return Err(Failure::unsupported(text));
    }
    let batch_first = draft.flag("layout", false)?;
    let x = draft.cast(x, dtype)?;
    let x = if batch_first { draft.transpose(x, &[1, 0, 2])? } else { x };
    let clip = match draft.attrs.get("clip") {
        None => None,
        // ONNX Runtime writes 0 for no clipping.
        Some(_) => Some(draft.float_attr("clip", 0.0)?).filter(|&clip| clip > 0.0),
    };
    Ok(Layer { x, lengths: draft.input(4), hidden, dtype, clip, batch_first })
}

/// The weights of one direction.
fn weights(draft: &mut Draft<'_>, slot: usize, index: i64, dtype: DType) -> Result<Option<Value>, Failure> {
    let Some(value) = draft.input(slot) else { return Ok(None) };
    let one = draft.at(value, 0, index)?;
    draft.cast(one, dtype).map(Some)
}

fn direction(
    draft: &mut Draft<'_>,
    kind: &Kind,
    layer: &Layer,
    index: i64,
    reverse: bool,
    activations: &[Activation],
) -> Result<Direction, Failure> {
    let missing = || Failure::unsupported("weights are missing");
    let w = weights(draft, 1, index, layer.dtype)?.ok_or_else(missing)?;
    let r = weights(draft, 2, index, layer.dtype)?.ok_or_else(missing)?;
    let (w, r) = (draft.transpose(w, &[1, 0])?, draft.transpose(r, &[1, 0])?);
    let mut input = draft.matmul(layer.x, w)?;
    let (rows, hidden) = (kind.gates * layer.hidden, layer.hidden);
    let mut late_bias = None;
    if let Some(bias) = weights(draft, 3, index, layer.dtype)? {
        let parts = draft.parts(bias, 0, &[rows, rows])?;
        let mut recurrent = parts[1];
        if kind.late {
            // The bias of the state's part of the hidden gate is under the reset gate.
            let split = draft.parts(recurrent, 0, &[2 * hidden, hidden])?;
            late_bias = Some(split[1]);
            let zeros = draft.filled(layer.dtype, 0.0, &[Size::Is(hidden)])?;
            recurrent = draft.joined(&[split[0], zeros], 0)?;
        }
        let bias = draft.plus(parts[0], recurrent)?;
        input = draft.plus(input, bias)?;
    }
    let cell = match kind.gates {
        4 => {
            let peepholes = match weights(draft, 7, index, layer.dtype)? {
                None => None,
                Some(p) => Some(draft.parts(p, 0, &[hidden; 3])?),
            };
            Cell::Lstm { r, peepholes, coupled: kind.coupled, bytes: kind.bytes }
        }
        3 => {
            let parts = draft.parts(r, 1, &[2 * hidden, hidden])?;
            Cell::Gru { gates: parts[0], candidate: parts[1], late: kind.late, late_bias }
        }
        _ => Cell::Rnn { r },
    };
    let mut states = vec![initial(draft, layer, 5, index)?];
    if kind.has_cell {
        states.push(initial(draft, layer, 6, index)?);
    }
    let step = cells::Step { cell, activations, clip: layer.clip, hidden };
    let steps = draft.known_length(input, 0);
    match steps.filter(|steps| (1..=MOST_UNROLLED).contains(steps)) {
        Some(steps) => unrolled(draft, layer, &step, input, states, steps, reverse),
        None => rounds::scanned(draft, layer, &step, input, states, reverse),
    }
}

/// The state before the first step: `[batch, hidden]`.
fn initial(draft: &mut Draft<'_>, layer: &Layer, slot: usize, index: i64) -> Made {
    match draft.input(slot) {
        None => draft.filled(layer.dtype, 0.0, &[Size::Of(layer.x, 1), Size::Is(layer.hidden)]),
        Some(given) => {
            let one = draft.at(given, if layer.batch_first { 1 } else { 0 }, index)?;
            draft.cast(one, layer.dtype)
        }
    }
}

/// Where the sequences go on at step `number` (a scalar, i32): `[batch, 1]`.
fn goes_on(draft: &mut Draft<'_>, lengths: Value, number: Value) -> Made {
    let column = draft.unsqueeze(lengths, vec![1])?;
    let column = draft.cast(column, DType::I32)?;
    draft.node("Greater", &[column, number])
}

/// The new state where a sequence goes on, else the old; and what the step gives.
fn masked(
    draft: &mut Draft<'_>,
    mask: Option<Value>,
    old: &[Value],
    new: Vec<Value>,
) -> Result<(Vec<Value>, Value), Failure> {
    let Some(&hidden) = new.first() else { return Err(Failure::unsupported("a step without a state")) };
    let Some(mask) = mask else { return Ok((new, hidden)) };
    let zero = draft.scalar_like(hidden, 0.0);
    let given = draft.node("Where", &[mask, hidden, zero])?;
    let mut states = Vec::new();
    for (&old, new) in old.iter().zip(new) {
        states.push(draft.node("Where", &[mask, new, old])?);
    }
    Ok((states, given))
}

fn unrolled(
    draft: &mut Draft<'_>,
    layer: &Layer,
    step: &cells::Step<'_>,
    input: Value,
    mut states: Vec<Value>,
    steps: i64,
    reverse: bool,
) -> Result<Direction, Failure> {
    let mut given = Vec::new();
    for round in 0..steps {
        let number = if reverse { steps - 1 - round } else { round };
        let x = draft.at(input, 0, number)?;
        let mask = match layer.lengths {
            None => None,
            Some(lengths) => {
                let number = draft.number(DType::I32, number as f64);
                Some(goes_on(draft, lengths, number)?)
            }
        };
        let new = step.make(draft, x, &states)?;
        let (next, y) = masked(draft, mask, &states, new)?;
        states = next;
        given.push(draft.unsqueeze(y, vec![0])?);
    }
    if reverse {
        given.reverse();
    }
    Ok(Direction { all: draft.joined(&given, 0)?, last: states })
}

/// The hidden values of all steps and directions, in the layout asked for.
fn all_steps(draft: &mut Draft<'_>, layer: &Layer, made: &[Direction], result: DType) -> Made {
    let mut all = Vec::new();
    for direction in made {
        all.push(draft.unsqueeze(direction.all, vec![1])?);
    }
    let joined = draft.joined(&all, 1)?;
    let ordered = if layer.batch_first { draft.transpose(joined, &[2, 0, 1, 3])? } else { joined };
    draft.cast(ordered, result)
}
