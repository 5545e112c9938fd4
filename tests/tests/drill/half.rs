//! The drill's own pass: results of layers rounded to f16, as a conversion of precision does.

use rabot_ir::ops::{Binary, BinaryOp, Cast};
use rabot_ir::{Graph, NodeId, Op, Value};
use rabot_rewrite::{Exactness, Pass, PassCx, PassError, Report};
use rabot_tensor::{DType, Tensor};
use std::sync::Arc;

/// Rounds results of convolutions and matrix products to f16 and back.
#[derive(Debug)]
pub struct Half;

impl Pass for Half {
    fn name(&self) -> &'static str {
        "half"
    }

    fn summary(&self) -> &'static str {
        "round results of layers to f16"
    }

    fn exactness(&self) -> Exactness {
        Exactness::Changes("precision")
    }

    fn run(&self, graph: &mut Graph, cx: &PassCx<'_>) -> Result<Report, PassError> {
        let error = |error| PassError::Graph { pass: "half", error };
        let mut report = Report::default();
        for id in graph.topological().map_err(error)? {
            let layer = matches!(graph.node(id).op, Op::Conv(_) | Op::MatMul(_) | Op::Gemm(_));
            let value = Value { node: id, slot: 0 };
            if !layer || graph.fact(value).dtype() != DType::F32 {
                continue;
            }
            let name = graph.node(id).name.to_string();
            if !cx.admits("half", &name) {
                continue;
            }
            let narrow = cast(graph, value, DType::F16, &format!("{name} to f16")).map_err(error)?;
            let wide = cast(graph, narrow, DType::F32, &format!("{name} to f32")).map_err(error)?;
            put_after(graph, value, narrow.node, wide);
            report.apply("half", name, "f16");
        }
        graph.refresh().map_err(error)?;
        Ok(report)
    }
}

fn cast(graph: &mut Graph, value: Value, to: DType, name: &str) -> Result<Value, rabot_ir::GraphError> {
    let op = Op::Cast(Cast { to, saturate: true, round_mode: Default::default() });
    let node = graph.add_node(op, vec![Some(value)], name, vec![])?;
    Ok(Value { node, slot: 0 })
}

/// Lets all users of a value use `new`, which is computed from it through `reader`, and gives `new` its name.
pub fn put_after(graph: &mut Graph, value: Value, reader: NodeId, new: Value) {
    let name: Arc<str> = graph.value_name(value).clone();
    let slots: Vec<usize> =
        graph.users(value).into_iter().filter(|(user, _)| *user == reader).map(|(_, slot)| slot).collect();
    graph.replace_value(value, new);
    slots.into_iter().for_each(|slot| graph.set_input(reader, slot, Some(value)));
    let old: Arc<str> = format!("{name} before").into();
    graph.annotate(value.node, |node| node.outputs[value.slot as usize].name = old);
    graph.annotate(new.node, |node| node.outputs[new.slot as usize].name = name);
}

/// A factor before the conversion to f16 and its inverse after it: large ones overflow, small ones underflow.
pub fn scaled_conversion(graph: &mut Graph, node: NodeId, factor: f32) -> bool {
    let to = |graph: &Graph, value: Value, dtype: DType| {
        let is = |id: &NodeId| matches!(&graph.node(*id).op, Op::Cast(cast) if cast.to == dtype);
        graph.users(value).into_iter().map(|(user, _)| user).find(is)
    };
    let value = Value { node, slot: 0 };
    let Some(narrow) = to(graph, value, DType::F16) else { return false };
    let Some(wide) = to(graph, Value { node: narrow, slot: 0 }, DType::F32) else { return false };
    let Some(larger) = times(graph, value, factor) else { return false };
    graph.set_input(narrow, 0, Some(larger));
    let result = Value { node: wide, slot: 0 };
    let Some(smaller) = times(graph, result, 1.0 / factor) else { return false };
    put_after(graph, result, smaller.node, smaller);
    true
}

/// The product of a value with a number.
pub fn times(graph: &mut Graph, value: Value, number: f32) -> Option<Value> {
    let name = format!("{} planted {number}", graph.value_name(value));
    let factor = graph.add_constant(&name, Tensor::scalar(number));
    let op = Op::Binary(Binary { op: BinaryOp::Mul });
    let node = graph.add_node(op, vec![Some(value), Some(factor)], &format!("{name} node"), vec![]).ok()?;
    Some(Value { node, slot: 0 })
}
