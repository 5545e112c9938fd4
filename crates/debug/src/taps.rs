//! Taps: values from inside a compiled program, also from inside its kernels.
//!
//! A tap makes a value of the optimized graph one more output. Nodes stay in the groups that they are in, so the kernel
//! that computed the value still does, with one more store. Nothing else is computed, so the model's own outputs keep
//! every bit; [`proof`] shows it by their hashes.

use crate::{DebugError, Tensors, digest};
use rabot_ir::{Graph, Op, Value};
use rabot_tensor::Tensor;
use serde::Serialize;
use std::collections::HashSet;

/// Which values to tap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Taps {
    /// Every value of the main graph that is computed when the program runs and is a tensor.
    All,
    /// Those with these names.
    Named(Vec<String>),
}

/// A graph with taps.
#[derive(Clone, Debug)]
pub struct Tapped {
    /// The graph with an output for each tap.
    pub graph: Graph,
    /// Names of the tapped values, each the name of an output too.
    pub names: Vec<String>,
}

/// A value cannot be tapped.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TapError {
    /// The optimized graph has no value of this name.
    #[error("there is no value `{name}` in the optimized graph{like}")]
    Unknown {
        /// The name.
        name: String,
        /// What to do instead.
        like: String,
    },
    /// The value is no tensor.
    #[error("`{name}` is {ty}; only tensors can be tapped")]
    NotATensor {
        /// The name.
        name: String,
        /// Its type.
        ty: String,
    },
}

/// Makes values of an optimized graph outputs. A value that is an output already stays one.
///
/// **Errors**: there is no such value, or it is no tensor.
pub fn tap(graph: &Graph, taps: &Taps) -> Result<Tapped, TapError> {
    let values = match taps {
        Taps::All => all_values(graph),
        Taps::Named(names) => names.iter().map(|name| find(graph, name)).collect::<Result<_, _>>()?,
    };
    let mut tapped = graph.clone();
    let mut taken: HashSet<String> = graph.outputs().iter().map(|o| o.name.to_string()).collect();
    let mut names = Vec::with_capacity(values.len());
    for value in values {
        let output = tapped.outputs().iter().find(|o| o.value == value).map(|o| o.name.to_string());
        let name = output.unwrap_or_else(|| {
            let name = free_name(graph.value_name(value), &mut taken);
            tapped.add_output(&name, value);
            name
        });
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Ok(Tapped { graph: tapped, names })
}

fn all_values(graph: &Graph) -> Vec<Value> {
    let order = graph.topological().unwrap_or_default();
    let computed = order.into_iter().filter(|&id| !matches!(graph.node(id).op, Op::Input | Op::Constant(_)));
    let slots = computed.flat_map(|node| {
        let count = graph.node(node).outputs.len() as u32;
        (0..count).map(move |slot| Value { node, slot })
    });
    // What nobody uses is not computed, so it cannot be looked at without computing more.
    slots
        .filter(|&value| {
            let fact = graph.fact(value);
            fact.ty.is_tensor() && fact.constant.is_none() && graph.use_count(value) > 0
        })
        .collect()
}

fn find(graph: &Graph, name: &str) -> Result<Value, TapError> {
    let ids = graph.node_ids().flat_map(|node| {
        let count = graph.node(node).outputs.len() as u32;
        (0..count).map(move |slot| Value { node, slot })
    });
    let values: Vec<Value> = ids.collect();
    let found = values.iter().copied().find(|&value| &**graph.value_name(value) == name);
    let Some(value) = found else {
        return Err(TapError::Unknown { name: name.to_owned(), like: what_instead(graph, name, &values) });
    };
    let ty = &graph.fact(value).ty;
    if ty.is_tensor() {
        return Ok(value);
    }
    Err(TapError::NotATensor { name: name.to_owned(), ty: ty.to_string() })
}

/// The path to a nested graph that computes a value of this name: the nodes that hold it, outermost first.
fn nested(graph: &Graph, name: &str) -> Option<String> {
    graph.node_ids().find_map(|id| {
        let node = graph.node(id);
        node.op.regions().into_iter().find_map(|(word, region)| {
            let holder = format!("`{word}` of {} `{}`", node.op.name(), node.name);
            let makes = |id| region.node(id).outputs.iter().any(|output| &*output.name == name);
            if region.node_ids().any(makes) {
                return Some(holder);
            }
            nested(region, name).map(|inner| format!("{holder}, in {inner}"))
        })
    })
}

/// Where a value went that has no name of its own any more.
fn what_instead(graph: &Graph, name: &str, values: &[Value]) -> String {
    if let Some(path) = nested(graph, name) {
        return format!(
            "; it is computed in the nested graph {path}, which hands out its results only: make the value one of \
             them, or tap those"
        );
    }
    let node = name.split(':').next().unwrap_or(name);
    let within = values.iter().find(|value| {
        let sources = &graph.node(value.node).sources;
        sources.iter().any(|source| &**source == name || &**source == node)
    });
    if let Some(&value) = within {
        return format!("; its node is a part of the one that makes `{}` now", graph.value_name(value));
    }
    let part = |value: &&Value| graph.value_name(**value).contains(name);
    let like: Vec<String> =
        values.iter().filter(part).take(3).map(|&v| format!("`{}`", graph.value_name(v))).collect();
    if like.is_empty() {
        "; a pass removed it: with `--pipeline group` each value of the model is there".to_owned()
    } else {
        format!("; there is {}", like.join(", "))
    }
}

/// A name for an output that no other output has.
fn free_name(wanted: &str, taken: &mut HashSet<String>) -> String {
    let mut name = wanted.to_owned();
    let mut count = 1;
    while !taken.insert(name.clone()) {
        count += 1;
        name = format!("{wanted}.{count}");
    }
    name
}

/// The outputs of a program with and without taps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Proof {
    /// BLAKE3 of the model's outputs, without taps.
    pub plain: String,
    /// BLAKE3 of the same outputs, with taps.
    pub tapped: String,
    /// Names of the outputs that differ.
    pub differing: Vec<String>,
}

impl Proof {
    /// True if no output has changed by a bit.
    pub fn holds(&self) -> bool {
        self.differing.is_empty() && self.plain == self.tapped
    }
}

/// Compares the outputs of two runs: names, dtypes, shapes and every bit of `plain`. More outputs in `tapped` do not
/// matter.
pub fn proof(plain: &Tensors, tapped: &Tensors) -> Proof {
    let same = |name: &String, tensor: &Tensor| tapped.get(name).is_some_and(|t| digest(t) == digest(tensor));
    let differing = plain.iter().filter(|(name, tensor)| !same(name, tensor));
    let differing = differing.map(|(name, _)| name.clone()).collect();
    let hash = |tensors: &Tensors| {
        let mut hasher = blake3::Hasher::new();
        for name in plain.keys() {
            hasher.update(name.as_bytes());
            if let Some(tensor) = tensors.get(name) {
                hasher.update(digest(tensor).as_bytes());
            }
        }
        hasher.finalize().to_hex().to_string()
    };
    Proof { plain: hash(plain), tapped: hash(tapped), differing }
}

impl From<TapError> for DebugError {
    fn from(error: TapError) -> Self {
        DebugError::Tap(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measure::compile;
    use rabot_ir::text::{parse, random_tensor};
    use rabot_rewrite::PassCx;
    use rabot_runtime::Session;
    use rabot_target::Profile;

    const TEXT: &str = "model \"m\" input %0 \"x\" : f32[n,64]
        %1 = Constant rand(1, -1.0, 1.0) : f32[64,64] \"w\"
        %2 = MatMul(%0, %1) \"product\"
        %3 = Tanh(%2) \"gate\"
        %4 = Mul(%2, %3) \"gated\"
        %5 = Constant [3.0] : f32[1] \"three\"
        %6 = Mul(%4, %5) \"scaled\"
        %7 = Softmax(%6) {axis=-1} \"soft\"
        %8 = Neg(%7) \"minus\"
        output \"y\" = %8";

    fn run(graph: &Graph) -> (Tensors, usize) {
        let program = compile(graph, &Profile::host().unwrap()).unwrap();
        let x = random_tensor(rabot_tensor::DType::F32, &[5, 64], 3, -1.0, 1.0).unwrap();
        let inputs = Tensors::from_iter([("x".to_owned(), x)]);
        let outputs = Session::new(&program).unwrap().run(&inputs).unwrap();
        (outputs, crate::count_kernels(&program))
    }

    #[test]
    fn the_same_kernels_store_what_is_inside_of_them() {
        let mut graph = parse(TEXT).unwrap();
        rabot_passes::default_pipeline().run(&mut graph, &PassCx::default(), &mut |_, _| {}).unwrap();
        let tapped = tap(&graph, &Taps::All).unwrap();
        for name in ["product", "gate", "gated", "scaled", "soft", "y"] {
            assert!(tapped.names.iter().any(|n| n == name), "{name} in {:?}", tapped.names);
        }
        let ((plain, kernels), (with, more)) = (run(&graph), run(&tapped.graph));
        assert_eq!(kernels, more, "a tap is a store, not a kernel");
        let proof = proof(&plain, &with);
        assert!(proof.holds(), "{proof:?}");
        let (scaled, soft) = (with["scaled"].to_f64s(), with["soft"].to_f64s());
        let gated = with["gated"].to_f64s();
        assert!(gated.iter().zip(&scaled).all(|(g, s)| (*g as f32) * 3.0 == *s as f32));
        assert!((soft[..64].iter().sum::<f64>() - 1.0).abs() < 1e-5);
    }

    #[test]
    fn a_difference_is_seen() {
        let graph = parse(TEXT).unwrap();
        let (plain, _) = run(&graph);
        let mut other = plain.clone();
        let values: Vec<f64> = other["y"].to_f64s().iter().map(|v| v + 1e-9 + v * 1e-6).collect();
        let changed = Tensor::from_f64s(rabot_tensor::DType::F32, other["y"].shape(), &values);
        other.insert("y".to_owned(), changed);
        assert_eq!(proof(&plain, &other).differing, ["y"]);
        assert!(!proof(&plain, &other).holds());
    }

    #[test]
    fn an_unknown_name_is_told_with_what_there_is() {
        let graph = parse(TEXT).unwrap();
        let error = tap(&graph, &Taps::Named(vec!["prod".to_owned()])).unwrap_err();
        assert_eq!(error.to_string(), "there is no value `prod` in the optimized graph; there is `product`");
    }
}
