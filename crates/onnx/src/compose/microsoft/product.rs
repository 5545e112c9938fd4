//! Matrix products and convolutions with what was fused into them.

use super::DOMAIN;
use super::activation::activated;
use crate::compose::Row;
use crate::compose::chain::Made;
use crate::compose::emit::wrong;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attrs, Value};

pub(super) const TABLE: &[Row] = &[
    (DOMAIN, "FusedConv", fused_conv),
    (DOMAIN, "FusedGemm", fused_gemm),
    (DOMAIN, "FusedMatMul", fused_matmul),
    (DOMAIN, "TransposeMatMul", fused_matmul),
];

/// alpha · A · B, with operands transposed.
fn fused_matmul(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["alpha", "transA", "transB", "transBatchA", "transBatchB"])?;
    draft.check_inputs(2)?;
    let alpha = draft.float_attr("alpha", 1.0)?;
    let mut operands = Vec::new();
    for (slot, name) in ["A", "B"].into_iter().enumerate() {
        let value = draft.operand(slot, name)?;
        let batch = draft.flag(&format!("transBatch{name}"), false)?;
        let matrix = draft.flag(&format!("trans{name}"), false)?;
        operands.push(exchanged(&mut draft, value, batch, matrix)?);
    }
    let product = draft.node("MatMul", &operands)?;
    let scaled = draft.scaled(product, alpha)?;
    draft.finish_with(vec![Some(scaled)])
}

/// With `batch`, the first axis comes behind those of the batch; with `matrix`, the last two are exchanged then.
fn exchanged(draft: &mut Draft<'_>, value: Value, batch: bool, matrix: bool) -> Made {
    let rank = draft.rank_of(value)?;
    let mut perm: Vec<i64> = (0..rank as i64).collect();
    if rank < 2 {
        return Ok(value);
    }
    if batch {
        perm[..rank - 1].rotate_left(1);
    }
    if matrix {
        perm.swap(rank - 2, rank - 1);
    }
    match batch || matrix {
        true => draft.transpose(value, &perm),
        false => Ok(value),
    }
}

/// Attributes that are those of the operator that something was fused into.
fn own(attrs: &Attrs, names: &[&str]) -> Attrs {
    attrs.iter().filter(|(name, _)| names.contains(name)).map(|(n, a)| (n.to_owned(), a.clone())).collect()
}

fn fused_gemm(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    const OWN: [&str; 4] = ["alpha", "beta", "transA", "transB"];
    const PARAMS: [&str; 3] = ["activation_alpha", "activation_beta", "activation_gamma"];
    draft.check_attrs(&[OWN.as_slice(), &PARAMS, &["activation"]].concat())?;
    draft.check_inputs(3)?;
    let name = draft.attrs.str("activation", "").map_err(wrong)?;
    // Parameters that the activation does not have may be written all the same.
    let takes = match name.as_str() {
        "LeakyRelu" | "Elu" | "ThresholdedRelu" => &PARAMS[..1],
        "HardSigmoid" => &PARAMS[..2],
        "Selu" => &[PARAMS[0], PARAMS[2]],
        _ => &[],
    };
    let mut params = Vec::new();
    for param in takes {
        if draft.attrs.get(param).is_some() {
            params.push(draft.float_attr(param, 0.0)?);
        }
    }
    let inputs = draft.inputs.clone();
    let attrs = own(&draft.attrs, &OWN);
    let product = draft.before("Gemm", &attrs, inputs)?;
    let y = activated(&mut draft, &name, &params, product)?;
    draft.finish_with(vec![Some(y)])
}

/// activation(X ∗ W + B + Z).
fn fused_conv(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    const OWN: [&str; 6] = ["auto_pad", "dilations", "group", "kernel_shape", "pads", "strides"];
    draft.check_attrs(&[OWN.as_slice(), &["activation", "activation_params"]].concat())?;
    draft.check_inputs(4)?;
    let name = draft.attrs.str("activation", "").map_err(wrong)?;
    let params = draft.attrs.floats("activation_params").map_err(wrong)?.unwrap_or_default();
    let params: Vec<f64> = params.into_iter().map(f64::from).collect();
    let inputs = draft.inputs.iter().copied().take(3).collect();
    let attrs = own(&draft.attrs, &OWN);
    let mut y = draft.before("Conv", &attrs, inputs)?;
    if let Some(residual) = draft.input(3) {
        y = draft.plus(y, residual)?;
    }
    let y = activated(&mut draft, &name, &params, y)?;
    draft.finish_with(vec![Some(y)])
}
