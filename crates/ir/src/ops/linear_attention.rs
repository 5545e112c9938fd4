//! `LinearAttention`: attention as a state that each position reads and changes.
//!
//! query `[B, T, Hq · dk]`, key `[B, T, H · dk]`, value `[B, T, H · dv]`, optional past_state `[B, H, dk, dv]`, optional
//! decay `[B, T, H · dk]` or `[B, T, H]`, optional beta `[B, T, H]` or `[B, T, 1]` → output `[B, T, Hq · dv]`,
//! present_state `[B, H, dk, dv]`. For each position, S = exp(decay) · S (rules `gated`, `gated_delta`), then
//! S = S + k ⊗ v, of which v is first made beta · (v − Sᵀ k) (rules `delta`, `gated_delta`); output = scale · Sᵀ q. Hq/H
//! heads of queries in a row read the same state. The scale is 1/√dk where it is 0 or absent.
//!
//! `chunk_size` says how an implementation may divide its work, not what it computes; it is read and dropped.
//!
//! **Dtypes**: f16, bf16, f32; past_state and present_state may have another one of these.
//! **Source**: <https://onnx.ai/onnx/operators/onnx__LinearAttention.html>.
//! **Opsets**: 27.

use super::dense::{filled, same_dtype};
use super::util::{arity, expect_dtype, known_attrs, optional, required, required_tensor};
use super::{InferCx, OpDef, OpError};
use crate::{Attr, Attrs, Dim, Fact};
use rabot_tensor::{DType, Tensor};

/// `LinearAttention`: operands query, key, value, optional past_state, decay and beta.
#[derive(Clone, Debug, PartialEq)]
pub struct LinearAttention {
    /// Heads of queries.
    pub q_num_heads: usize,
    /// Heads of keys and values.
    pub kv_num_heads: usize,
    /// Factor of the output; 0 for one over the root of the head size.
    pub scale: f32,
    /// The state fades.
    pub gated: bool,
    /// What the state holds already is not added again.
    pub delta: bool,
}

const RULES: [(&str, bool, bool); 4] =
    [("linear", false, false), ("gated", true, false), ("delta", false, true), ("gated_delta", true, true)];

/// Sizes that shapes tell.
struct Sizes<D> {
    batch: D,
    length: D,
    key: D,
    value: D,
}

impl LinearAttention {
    /// The size of each of that many heads.
    fn head(name: &str, size: &Dim, heads: usize) -> Result<Dim, OpError> {
        match size.as_const() {
            Some(size) if size % heads as i64 != 0 => {
                Err(OpError::Shape(format!("{name} has {size} elements in {heads} heads")))
            }
            _ => Ok(size.floor_div(&Dim::from(heads))),
        }
    }

    fn sizes(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Sizes<Dim>, OpError> {
        let mut shapes = Vec::new();
        for (slot, name) in (0..).zip(["query", "key", "value"]) {
            let fact = required(inputs, slot, name)?;
            let [batch, length, size] = fact.shape() else {
                return Err(OpError::Shape(format!("{name} is {}, expected 3 dims", fact.ty)));
            };
            shapes.push((batch.clone(), length.clone(), size.clone()));
        }
        for shape in &shapes[1..] {
            cx.require_equal(&shapes[0].0, &shape.0)?;
            cx.require_equal(&shapes[0].1, &shape.1)?;
        }
        let key = Self::head("query", &shapes[0].2, self.q_num_heads)?;
        cx.require_equal(&key, &Self::head("key", &shapes[1].2, self.kv_num_heads)?)?;
        let value = Self::head("value", &shapes[2].2, self.kv_num_heads)?;
        Ok(Sizes { batch: shapes[0].0.clone(), length: shapes[0].1.clone(), key, value })
    }

    /// Checks decay and beta: that they are there if the rule takes them, and their shapes.
    fn check_gates(
        &self,
        inputs: &[Option<&Fact>],
        sizes: &Sizes<Dim>,
        cx: &mut InferCx,
    ) -> Result<(), OpError> {
        let heads = Dim::from(self.kv_num_heads);
        let by_element = heads.clone() * sizes.key.clone();
        let gates = [
            (4, "decay", self.gated, [heads.clone(), by_element]),
            (5, "beta", self.delta, [heads, Dim::from(1)]),
        ];
        for (slot, name, taken, allowed) in gates {
            let gate = match (optional(inputs, slot), taken) {
                (Some(gate), true) => gate,
                (None, false) => continue,
                (None, true) => return Err(OpError::MissingInput { slot, name }),
                (Some(_), false) => {
                    return Err(OpError::Unsupported(format!("{name} for an update rule that has none")));
                }
            };
            let [batch, length, last] = gate.shape() else {
                return Err(OpError::Shape(format!("{name} is {}, expected 3 dims", gate.ty)));
            };
            cx.require_equal(batch, &sizes.batch)?;
            cx.require_equal(length, &sizes.length)?;
            if !allowed.contains(last) {
                return Err(OpError::Shape(format!(
                    "{name} is {}, expected a last dim of {allowed:?}",
                    gate.ty
                )));
            }
        }
        Ok(())
    }
}

impl OpDef for LinearAttention {
    const NAMES: &'static [&'static str] = &["LinearAttention"];

    fn from_attrs(_name: &str, attrs: &Attrs) -> Result<Self, OpError> {
        known_attrs(attrs, &["chunk_size", "kv_num_heads", "q_num_heads", "scale", "update_rule"])?;
        attrs.int("chunk_size", 64)?;
        let refused = |name: &str, value: String, reason: &str| OpError::Attribute {
            name: name.to_owned(),
            value,
            reason: reason.to_owned(),
        };
        let heads = |name: &str| {
            let count = attrs.required_int(name)?;
            let usable = u32::try_from(count).ok().filter(|&count| count > 0);
            usable.map(|n| n as usize).ok_or_else(|| refused(name, count.to_string(), "expected at least 1"))
        };
        let (q_num_heads, kv_num_heads) = (heads("q_num_heads")?, heads("kv_num_heads")?);
        if q_num_heads % kv_num_heads != 0 {
            let reason = format!("not a multiple of kv_num_heads = {kv_num_heads}");
            return Err(refused("q_num_heads", q_num_heads.to_string(), &reason));
        }
        let rule = attrs.str("update_rule", "gated_delta")?;
        let row = RULES.iter().find(|row| row.0 == rule);
        let row = row.ok_or_else(|| {
            refused("update_rule", rule.clone(), "expected linear, gated, delta or gated_delta")
        })?;
        let scale = attrs.float("scale", 0.0)?;
        Ok(LinearAttention { q_num_heads, kv_num_heads, scale, gated: row.1, delta: row.2 })
    }

    fn name(&self) -> &'static str {
        "LinearAttention"
    }

    fn attrs(&self) -> Attrs {
        let mut attrs = Attrs::new()
            .with("q_num_heads", Attr::Int(self.q_num_heads as i64))
            .with("kv_num_heads", Attr::Int(self.kv_num_heads as i64))
            .with("scale", Attr::Float(self.scale));
        for row in RULES.iter().filter(|row| (row.1, row.2) == (self.gated, self.delta)) {
            attrs.set("update_rule", Attr::Str(row.0.to_owned()));
        }
        attrs
    }

    fn infer(&self, inputs: &[Option<&Fact>], cx: &mut InferCx) -> Result<Vec<Fact>, OpError> {
        arity(inputs, 3, 6)?;
        let is_taken = |dtype| matches!(dtype, DType::F16 | DType::BF16 | DType::F32);
        let dtype = required(inputs, 0, "query")?.dtype();
        expect_dtype(0, dtype, "f16, bf16 or f32", is_taken)?;
        for slot in [1, 2, 4, 5] {
            if let Some(operand) = optional(inputs, slot) {
                same_dtype(slot, operand.dtype(), dtype)?;
            }
        }
        let sizes = self.sizes(inputs, cx)?;
        self.check_gates(inputs, &sizes, cx)?;
        let heads = Dim::from(self.kv_num_heads);
        let state = vec![sizes.batch.clone(), heads, sizes.key.clone(), sizes.value.clone()];
        let mut state_dtype = dtype;
        if let Some(past) = optional(inputs, 3) {
            expect_dtype(3, past.dtype(), "f16, bf16 or f32", is_taken)?;
            state_dtype = past.dtype();
            if past.rank() != 4 {
                return Err(OpError::Shape(format!("past_state is {}, expected {state:?}", past.ty)));
            }
            for (actual, expected) in past.shape().iter().zip(&state) {
                cx.require_equal(actual, expected)?;
            }
        }
        let output = vec![sizes.batch, sizes.length, Dim::from(self.q_num_heads) * sizes.value];
        Ok(vec![Fact::of_type(dtype, output), Fact::of_type(state_dtype, state)])
    }

    fn eval(&self, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<Option<Fact>> =
            inputs.iter().map(|i| i.map(|tensor| Fact::of_constant(tensor.clone()))).collect();
        let facts: Vec<Option<&Fact>> = facts.iter().map(Option::as_ref).collect();
        let known = self.infer(&facts, &mut InferCx::new(""))?;
        let shapes: Option<Vec<Vec<usize>>> = known.iter().map(|fact| fact.ty.static_shape()).collect();
        let shapes = shapes.ok_or_else(|| OpError::Shape("shapes that are not known".to_owned()))?;
        let (mut output, mut state) = (filled(&shapes[0], 0.0)?, filled(&shapes[1], 0.0)?);
        if let Some(past) = optional(inputs, 3) {
            state = past.to_f64s();
        }
        let gate = |slot: usize| optional(inputs, slot).map(|gate| (gate.to_f64s(), gate.shape()[2]));
        let operands = Operands {
            query: required_tensor(inputs, 0, "query")?.to_f64s(),
            key: required_tensor(inputs, 1, "key")?.to_f64s(),
            value: required_tensor(inputs, 2, "value")?.to_f64s(),
            decay: gate(4),
            beta: gate(5),
        };
        let [batch, length, _] = shapes[0][..] else { return Err(OpError::Shape("3 dims".to_owned())) };
        let (key, value) = (shapes[1][2], shapes[1][3]);
        for image in 0..batch {
            for head in 0..self.kv_num_heads {
                let at = (image * self.kv_num_heads + head) * key * value;
                let state = &mut state[at..][..key * value];
                for step in 0..length {
                    let sizes = Sizes { batch: image, length: image * length + step, key, value };
                    self.step(&operands, &sizes, head, state, &mut output);
                }
            }
        }
        Ok(vec![
            Tensor::from_f64s(known[0].dtype(), &shapes[0], &output),
            Tensor::from_f64s(known[1].dtype(), &shapes[1], &state),
        ])
    }
}

/// Contents of the operands; gates with the size of their last dim.
struct Operands {
    query: Vec<f64>,
    key: Vec<f64>,
    value: Vec<f64>,
    decay: Option<(Vec<f64>, usize)>,
    beta: Option<(Vec<f64>, usize)>,
}

impl LinearAttention {
    /// One position of one head; `sizes.length` is the row of all operands.
    fn step(
        &self,
        operands: &Operands,
        sizes: &Sizes<usize>,
        head: usize,
        state: &mut [f64],
        output: &mut [f64],
    ) {
        let (row, size, wide) = (sizes.length, sizes.key, sizes.value);
        let k = &operands.key[(row * self.kv_num_heads + head) * size..][..size];
        let mut v = operands.value[(row * self.kv_num_heads + head) * wide..][..wide].to_vec();
        if let Some((decay, last)) = &operands.decay {
            for (element, line) in state.chunks_exact_mut(wide.max(1)).enumerate() {
                let at = if *last == self.kv_num_heads { head } else { head * size + element };
                let factor = libm::exp(decay[row * last + at]);
                line.iter_mut().for_each(|s| *s *= factor);
            }
        }
        if let Some((beta, last)) = &operands.beta {
            let beta = beta[row * last + if *last == 1 { 0 } else { head }];
            for (at, v) in v.iter_mut().enumerate() {
                let held: f64 = k.iter().enumerate().map(|(element, k)| k * state[element * wide + at]).sum();
                *v = beta * (*v - held);
            }
        }
        for (k, line) in k.iter().zip(state.chunks_exact_mut(wide.max(1))) {
            line.iter_mut().zip(&v).for_each(|(s, v)| *s += k * v);
        }
        let scale = match self.scale {
            0.0 => 1.0 / (size as f64).sqrt(),
            scale => f64::from(scale),
        };
        let shared = self.q_num_heads / self.kv_num_heads;
        for reader in head * shared..(head + 1) * shared {
            let q = &operands.query[(row * self.q_num_heads + reader) * size..][..size];
            let out = &mut output[(row * self.q_num_heads + reader) * wide..][..wide];
            for (q, line) in q.iter().zip(state.chunks_exact(wide.max(1))) {
                out.iter_mut().zip(line).for_each(|(out, s)| *out += scale * q * s);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::dense::testing::{f32s, op};

    fn attrs(rule: &str, queries: i64) -> Attrs {
        Attrs::new()
            .with("q_num_heads", Attr::Int(queries))
            .with("kv_num_heads", Attr::Int(1))
            .with("scale", Attr::Float(1.0))
            .with("update_rule", Attr::Str(rule.to_owned()))
    }

    #[test]
    fn the_state_adds_up_and_fades() {
        let (q, k, v) =
            (f32s(&[1, 2, 2], &[1., 10., 1., 10.]), f32s(&[1, 2, 1], &[2., 3.]), f32s(&[1, 2, 1], &[1., 1.]));
        let linear = op("LinearAttention", attrs("linear", 2));
        let y = linear.eval(&[Some(&q), Some(&k), Some(&v)]).unwrap();
        // Both heads of queries read 2, then 2 + 3.
        assert_eq!(y[0].to_f64s(), [2., 20., 5., 50.]);
        assert_eq!((y[1].shape(), y[1].to_f64s()), (&[1, 1, 1, 1][..], vec![5.]));
        let decay = f32s(&[1, 2, 1], &[0., f32::NEG_INFINITY]);
        let gated = op("LinearAttention", attrs("gated", 2));
        let y = gated.eval(&[Some(&q), Some(&k), Some(&v), None, Some(&decay)]).unwrap();
        assert_eq!(y[0].to_f64s(), [2., 20., 3., 30.]);
        assert!(gated.eval(&[Some(&q), Some(&k), Some(&v)]).is_err());
        assert!(linear.eval(&[Some(&q), Some(&k), Some(&v), None, Some(&decay)]).is_err());
    }

    #[test]
    fn what_is_held_is_not_added_again() {
        let (q, k, v) =
            (f32s(&[1, 2, 1], &[1., 1.]), f32s(&[1, 2, 1], &[1., 1.]), f32s(&[1, 2, 1], &[4., 4.]));
        let beta = f32s(&[1, 2, 1], &[1., 0.5]);
        let past = f32s(&[1, 1, 1, 1], &[2.]);
        let delta = op("LinearAttention", attrs("delta", 1));
        let y = delta.eval(&[Some(&q), Some(&k), Some(&v), Some(&past), None, Some(&beta)]).unwrap();
        assert_eq!(y[0].to_f64s(), [4., 4.]);
        let odd = attrs("delta", 1).with("kv_num_heads", Attr::Int(2));
        assert!(LinearAttention::from_attrs("LinearAttention", &odd).is_err());
    }
}
