//! Random tensors: nodes without a seed get one, and `Bernoulli` is a comparison with uniform numbers.
//!
//! rabot's outputs never change from run to run, so a seed that a node does not have is a hash of its name (FNV-1a, 64
//! bits): two nodes are independent of each other, and each is the same in every run and on every machine.

use super::Row;
use super::emit::wrong;
use crate::error::Failure;
use crate::import::Converted;
use crate::upgrade::Draft;
use rabot_ir::{Attr, Attrs};
use rabot_tensor::DType;

pub(super) const TABLE: &[Row] = &[
    ("", "RandomNormal", seeded),
    ("", "RandomNormalLike", seeded),
    ("", "RandomUniform", seeded),
    ("", "RandomUniformLike", seeded),
    ("", "Multinomial", seeded),
    ("", "Bernoulli", bernoulli),
];

/// FNV-1a.
///
/// **Source**: <http://www.isthe.com/chongo/tech/comp/fnv/>
fn hash(name: &str) -> u64 {
    name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

fn seed(draft: &mut Draft<'_>) {
    if draft.attrs.get("seed").is_none() {
        let seed = hash(&draft.name) as i64;
        draft.attrs.set("seed", Attr::Int(seed));
    }
}

fn seeded(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    seed(&mut draft);
    draft.finish()
}

/// 1 where a uniform number is below the probability. Uniform numbers of f64 are never 1.
fn bernoulli(mut draft: Draft<'_>) -> Result<Converted, Failure> {
    draft.check_attrs(&["dtype", "seed"])?;
    draft.check_inputs(1)?;
    seed(&mut draft);
    let input = draft.operand(0, "input")?;
    let mut attrs = Attrs::new().with("dtype", Attr::Str(DType::F64.name().to_owned()));
    attrs.set("seed", draft.attrs.get("seed").cloned().unwrap_or(Attr::Int(0)));
    let uniform = draft.node_with("RandomUniformLike", &attrs, &[input])?;
    let probability = draft.cast(input, DType::F64)?;
    let drawn = draft.node("Less", &[uniform, probability])?;
    let result = match draft.attrs.get("dtype") {
        None => {
            let dtype = draft.dtype_of(input);
            draft.cast(drawn, dtype)?
        }
        Some(_) => {
            let code = draft.attrs.required_int("dtype").map_err(wrong)?;
            draft.node_with("Cast", &Attrs::new().with("to", Attr::Int(code)), &[drawn])?
        }
    };
    draft.finish_with(vec![Some(result)])
}

#[cfg(test)]
mod tests {
    use super::hash;

    #[test]
    fn hashes_are_those_of_the_reference() {
        assert_eq!(hash(""), 0xcbf2_9ce4_8422_2325);
        assert_eq!(hash("a"), 0xaf63_dc4c_8601_ec8c);
        assert_eq!(hash("foobar"), 0x8594_4171_f739_67e8);
    }
}
