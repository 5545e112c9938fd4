//! Activations of recurrent layers.

use crate::compose::chain::Made;
use crate::compose::emit::wrong;
use crate::error::Failure;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs, Value};

/// An activation with its parameters.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Activation {
    /// Name in lower case.
    name: String,
    alpha: f64,
    beta: f64,
}

/// Name in lower case, and the defaults of alpha and beta where it has them. NaN says that there is no default.
///
/// **Source**: the operators of the same names in ONNX.
const KNOWN: [(&str, Option<f64>, Option<f64>); 11] = [
    ("relu", None, None),
    ("tanh", None, None),
    ("sigmoid", None, None),
    ("softsign", None, None),
    ("softplus", None, None),
    ("affine", Some(1.0), Some(0.0)),
    ("leakyrelu", Some(0.01), None),
    ("thresholdedrelu", Some(1.0), None),
    ("scaledtanh", Some(f64::NAN), Some(f64::NAN)),
    ("hardsigmoid", Some(0.2), Some(0.5)),
    ("elu", Some(1.0), None),
];

/// The activations of each direction. Parameters are consumed in order by the activations that have them.
pub(super) fn read(
    attrs: &Attrs,
    defaults: &[&str],
    directions: usize,
) -> Result<Vec<Vec<Activation>>, Failure> {
    let count = defaults.len() * directions;
    let names: Vec<String> = match attrs.get("activations") {
        None => defaults.iter().map(|&name| name.to_owned()).cycle().take(count).collect(),
        // The schema of RNN has two activations by default, of which one direction takes the first.
        Some(Attr::Strs(names)) if names.len() >= count => names.iter().take(count).cloned().collect(),
        Some(other) => {
            return Err(Failure::unsupported(format!("activations {other:?}, expected {count} names")));
        }
    };
    let mut alphas = attrs.floats("activation_alpha").map_err(wrong)?.unwrap_or_default().into_iter();
    let mut betas = attrs.floats("activation_beta").map_err(wrong)?.unwrap_or_default().into_iter();
    let mut all = Vec::new();
    for name in names {
        let lower = name.to_lowercase();
        let known = KNOWN.iter().find(|row| row.0 == lower);
        let Some(&(_, alpha, beta)) = known else {
            return Err(Failure::unsupported(format!("activation `{name}`")));
        };
        let value = |default: Option<f64>, given: &mut dyn Iterator<Item = f32>| match default {
            None => 0.0,
            Some(default) => given.next().map_or(default, f64::from),
        };
        let activation =
            Activation { name: lower, alpha: value(alpha, &mut alphas), beta: value(beta, &mut betas) };
        if activation.alpha.is_nan() || activation.beta.is_nan() {
            return Err(Failure::unsupported(format!(
                "activation `{name}` without activation_alpha and activation_beta"
            )));
        }
        all.push(activation);
    }
    Ok(all.chunks(defaults.len()).map(<[Activation]>::to_vec).collect())
}

impl Activation {
    /// The activation of a value.
    pub(super) fn of(&self, draft: &mut Draft<'_>, x: Value) -> Made {
        let alpha = Attrs::new().with("alpha", Attr::Float(self.alpha as f32));
        match self.name.as_str() {
            "relu" => draft.node("Relu", &[x]),
            "tanh" => draft.node("Tanh", &[x]),
            "sigmoid" => draft.node("Sigmoid", &[x]),
            "softsign" => draft.node("Softsign", &[x]),
            "softplus" => draft.node("Softplus", &[x]),
            "leakyrelu" => draft.node_with("LeakyRelu", &alpha, &[x]),
            "thresholdedrelu" => draft.node_with("ThresholdedRelu", &alpha, &[x]),
            "elu" => draft.node_with("Elu", &alpha, &[x]),
            "hardsigmoid" => {
                draft.node_with("HardSigmoid", &alpha.with("beta", Attr::Float(self.beta as f32)), &[x])
            }
            "scaledtanh" => {
                let x = draft.scaled(x, self.beta)?;
                let y = draft.node("Tanh", &[x])?;
                draft.scaled(y, self.alpha)
            }
            _ => {
                let x = draft.scaled(x, self.alpha)?;
                draft.shifted(x, self.beta)
            }
        }
    }
}
