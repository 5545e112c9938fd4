//! Random contents of inputs and constants.

use rabot_ir::interp::Tensors;
use rabot_ir::text::SplitMix64;
use rabot_ir::{Fact, Graph};
use rabot_rewrite::Valid;
use rabot_tensor::{DType, Tensor};
use std::collections::BTreeMap;

/// Numbers that rules get wrong.
const SPECIAL: &[f64] = &[
    f64::NAN,
    f64::INFINITY,
    f64::NEG_INFINITY,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    2.0,
    3.0,
    6.0,
    1e-45,
    -1e-45,
    1.1754943508222875e-38,
    1e-30,
    3.4028234663852886e38,
    -3.4028234663852886e38,
    1e30,
];

/// Those that leave room for a few operations.
const MODERATE: &[f64] = &[0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-40, -1e-40, 1e-6];

/// A tensor of random numbers.
pub(super) fn random(rng: &mut SplitMix64, dtype: DType, shape: &[usize], valid: Valid) -> Option<Tensor> {
    let count = shape.iter().product();
    let special = if valid == Valid::Always { SPECIAL } else { MODERATE };
    let chance = *rng.pick(&[0.0, 0.1, 0.5]);
    let float =
        |rng: &mut SplitMix64| if rng.chance(chance) { *rng.pick(special) } else { rng.uniform(-4.0, 4.0) };
    match dtype.int_range() {
        Some((lo, hi)) => {
            let (lo, hi) = (lo.max(i64::MIN.into()) as i64, hi.min(i64::MAX.into()) as i64);
            let extreme = chance > 0.0 && valid == Valid::Always;
            let integer = |rng: &mut SplitMix64| {
                if extreme && rng.chance(0.1) { *rng.pick(&[lo, hi]) } else { rng.int(lo.max(-4), 9) }
            };
            let values: Vec<i64> = (0..count).map(|_| integer(rng)).collect();
            Some(Tensor::from_i64s(dtype, shape, &values))
        }
        None if dtype == DType::Bool => {
            Some(Tensor::from_bools(shape, &(0..count).map(|_| rng.chance(0.5)).collect::<Vec<_>>()))
        }
        None if matches!(dtype, DType::F64 | DType::F32 | DType::F16 | DType::BF16) => {
            let values: Vec<f64> = (0..count).map(|_| float(rng)).collect();
            Some(Tensor::from_f64s(dtype, shape, &values))
        }
        None => None,
    }
}

/// Random inputs of a graph; symbols without a size get a small one.
pub(super) fn inputs(graph: &Graph, sizes: &[(String, usize)], seed: u64, valid: Valid) -> Option<Tensors> {
    let mut rng = SplitMix64::new(seed);
    let named: BTreeMap<&str, usize> = sizes.iter().map(|(name, size)| (name.as_str(), *size)).collect();
    let others: BTreeMap<String, i64> =
        graph.symbols().iter().map(|name| (name.to_string(), rng.int(1, 4))).collect();
    let size = |name: &str| named.get(name).map(|&size| size as i64).or_else(|| others.get(name).copied());
    let one = |fact: &Fact, rng: &mut SplitMix64| -> Option<Tensor> {
        let shape: Option<Vec<usize>> = fact
            .shape()
            .iter()
            .map(|dim| dim.eval(&size).ok().and_then(|d| usize::try_from(d).ok()))
            .collect();
        random(rng, fact.dtype(), &shape?, valid)
    };
    let nodes = graph.inputs().iter().map(|&id| graph.node(id));
    nodes.map(|node| Some((node.name.to_string(), one(&node.outputs[0].fact, &mut rng)?))).collect()
}
