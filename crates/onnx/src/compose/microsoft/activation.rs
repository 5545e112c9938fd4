//! Activations, by themselves and as parts of fused operators.

use super::DOMAIN;
use crate::compose::Row;
use crate::compose::chain::Made;
use crate::compose::emit::wrong;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};

pub(super) const TABLE: &[Row] = &[
    (DOMAIN, "BiasAdd", bias_add),
    (DOMAIN, "BiasGelu", gelu),
    (DOMAIN, "FastGelu", fast_gelu),
    (DOMAIN, "Gelu", gelu),
    (DOMAIN, "QuickGelu", quick_gelu),
];

/// An activation by the name that fused operators give it, with its parameters in order.
pub(super) fn activated(draft: &mut Draft<'_>, name: &str, params: &[f64], x: Value) -> Made {
    let names: &[&str] = match name {
        "" => return Ok(x),
        "Relu" | "Sigmoid" | "Tanh" | "Softplus" | "Softsign" => &[],
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => &["alpha"],
        "HardSigmoid" => &["alpha", "beta"],
        "Selu" => &["alpha", "gamma"],
        "Clip" => {
            let &[low, high] = params else {
                return Err(Failure::unsupported(format!("Clip with parameters {params:?}, expected two")));
            };
            let (low, high) = (draft.scalar_like(x, low), draft.scalar_like(x, high));
            return draft.node("Clip", &[x, low, high]);
        }
        other => return Err(Failure::unsupported(format!("activation `{other}`"))),
    };
    if params.len() > names.len() {
        let text = format!("activation `{name}` with parameters {params:?}, expected {}", names.len());
        return Err(Failure::unsupported(text));
    }
    let pairs = names.iter().zip(params).map(|(&name, &value)| (name.to_owned(), Attr::Float(value as f32)));
    draft.node_with(name, &pairs.collect::<Attrs>(), &[x])
}

/// `Gelu`, of a sum if there is a second operand.
fn gelu(draft: Draft<'_>) -> Result<Converted, Failure> {
    gelu_of(draft, "none")
}

fn fast_gelu(draft: Draft<'_>) -> Result<Converted, Failure> {
    gelu_of(draft, "tanh")
}

fn gelu_of(mut draft: Draft<'_>, approximate: &str) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(if draft.op == "Gelu" { 1 } else { 2 })?;
    let mut x = draft.operand(0, "X")?;
    if let Some(bias) = draft.input(1) {
        x = draft.plus(x, bias)?;
    }
    let attrs = Attrs::new().with("approximate", Attr::Str(approximate.to_owned()));
    let y = draft.node_with("Gelu", &attrs, &[x])?;
    draft.finish_with(vec![Some(y)])
}

/// x · sigmoid(alpha · x).
fn quick_gelu(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha"])?;
    draft.check_inputs(1)?;
    let alpha = draft.attrs.float("alpha", 1.702).map_err(wrong)?;
    let x = draft.operand(0, "X")?;
    let scaled = draft.scaled(x, f64::from(alpha))?;
    let gate = draft.node("Sigmoid", &[scaled])?;
    let y = draft.times(x, gate)?;
    draft.finish_with(vec![Some(y)])
}

fn bias_add(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&[])?;
    draft.check_inputs(3)?;
    let (x, bias) = (draft.operand(0, "X")?, draft.operand(1, "bias")?);
    let skip = draft.operand(2, "skip")?;
    let sum = draft.plus(x, bias)?;
    let sum = draft.plus(sum, skip)?;
    draft.finish_with(vec![Some(sum)])
}
