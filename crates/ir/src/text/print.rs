//! The printer: the canonical text of a graph.

use super::MemoryBlobs;
use super::lexer::escape;
use super::literal::{format_f32, format_tensor, hash, is_self_contained};
use super::parse::default_name;
use crate::ops::Op;
use crate::{Attr, Graph, Node, NodeId, Value};
use rabot_tensor::Tensor;
use std::collections::HashMap;
use std::fmt::{self, Write};
use std::sync::Arc;

/// The canonical text of a graph: `parse(&print(&g)) == g`.
///
/// A graph that is not valid is printed as far as it goes, for error messages: a cycle leaves the nodes in the
/// order of their ids, a missing operand is `%?`.
pub fn print(graph: &Graph) -> String {
    let mut text = format!("model {}\n", quote(&graph.name));
    // Writing into a string cannot fail.
    let _ = write_block(&mut text, graph, 0);
    text
}

impl fmt::Display for Graph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&print(self))
    }
}

/// The contents that [`print()`] names but does not hold, nested graphs included.
pub fn blobs(graph: &Graph) -> MemoryBlobs {
    let mut found = MemoryBlobs::default();
    collect_blobs(graph, &mut found);
    found
}

fn collect_blobs(graph: &Graph, found: &mut MemoryBlobs) {
    let mut collect = |tensor: &Tensor| {
        if !is_self_contained(tensor) {
            found.insert(hash(tensor), tensor.bytes());
        }
    };
    for id in graph.node_ids() {
        match &graph.node(id).op {
            Op::Constant(tensor) => collect(tensor),
            op => op.attrs().iter().for_each(|(_, attr)| {
                if let Attr::Tensor(tensor) = attr {
                    collect(tensor);
                }
            }),
        }
    }
    for id in graph.node_ids() {
        for (_, region) in graph.node(id).op.regions() {
            collect_blobs(region, found);
        }
    }
}

fn quote(text: &str) -> String {
    format!("\"{}\"", escape(text, '"'))
}

fn quote_list(texts: &[Arc<str>]) -> String {
    texts.iter().map(|t| quote(t)).collect::<Vec<_>>().join(", ")
}

fn write_block(out: &mut String, graph: &Graph, depth: usize) -> fmt::Result {
    let order = graph.topological().unwrap_or_else(|_| graph.node_ids().collect());
    let numbers: HashMap<NodeId, u32> = order.iter().zip(0u32..).map(|(&id, number)| (id, number)).collect();
    let indent = "  ".repeat(depth);
    for &id in &order {
        write!(out, "{indent}")?;
        write_node(out, graph, id, &numbers, depth)?;
        out.push('\n');
    }
    let printed: Vec<NodeId> = order.iter().copied().filter(|&id| is_input(graph, id)).collect();
    if printed != graph.inputs() {
        let list: Vec<String> =
            graph.inputs().iter().map(|&node| operand(&numbers, Value { node, slot: 0 })).collect();
        writeln!(out, "{indent}inputs({})", list.join(", "))?;
    }
    for output in graph.outputs() {
        writeln!(out, "{indent}output {} = {}", quote(&output.name), operand(&numbers, output.value))?;
    }
    Ok(())
}

fn is_input(graph: &Graph, id: NodeId) -> bool {
    matches!(graph.node(id).op, Op::Input)
}

fn operand(numbers: &HashMap<NodeId, u32>, value: Value) -> String {
    let node = numbers.get(&value.node).map_or("?".to_owned(), ToString::to_string);
    if value.slot == 0 { format!("%{node}") } else { format!("%{node}#{}", value.slot) }
}

fn write_node(
    out: &mut String,
    graph: &Graph,
    id: NodeId,
    numbers: &HashMap<NodeId, u32>,
    depth: usize,
) -> fmt::Result {
    let node = graph.node(id);
    let number = numbers.get(&id).copied().unwrap_or_default();
    let types: Vec<String> = node.outputs.iter().map(|o| o.fact.ty.to_string()).collect();
    let types = if types.is_empty() { String::new() } else { format!(" : {}", types.join(", ")) };
    let count = if node.outputs.len() == 1 { String::new() } else { format!(":{}", node.outputs.len()) };
    match &node.op {
        Op::Input => {
            write!(out, "input %{number} {}{types}", quote(&node.name))?;
            write_annotations(out, node, number)
        }
        Op::Constant(tensor) => {
            write!(out, "%{number} = Constant {}{types}", format_tensor(tensor))?;
            write_annotations(out, node, number)
        }
        op => {
            let operands: Vec<String> = node
                .inputs
                .iter()
                .map(|input| input.map_or("_".to_owned(), |value| operand(numbers, value)))
                .collect();
            write!(out, "%{number}{count} = {}({})", op.name(), operands.join(", "))?;
            write_attrs(out, op)?;
            out.push_str(&types);
            write_annotations(out, node, number)?;
            let indent = "  ".repeat(depth);
            for (at, (word, region)) in op.regions().into_iter().enumerate() {
                if at > 0 {
                    write!(out, "\n{indent}}}")?;
                }
                writeln!(out, " {word} {} {{", quote(&region.name))?;
                write_block(out, region, depth + 1)?;
                // The last newline of the block stays before the brace that closes it.
                out.truncate(out.trim_end_matches('\n').len());
            }
            if !op.regions().is_empty() {
                write!(out, "\n{indent}}}")?;
            }
            Ok(())
        }
    }
}

/// Name, value names, sources and group, each only where the parser would not come to it by itself.
fn write_annotations(out: &mut String, node: &Node, number: u32) -> fmt::Result {
    let is_input = matches!(node.op, Op::Input);
    let is_named = !is_input && *node.name != *default_name(number);
    if is_named {
        write!(out, " {}", quote(&node.name))?;
    }
    let derived = |slot: usize| match slot {
        0 => node.name.to_string(),
        slot => format!("{}:{slot}", node.name),
    };
    if node.outputs.iter().enumerate().any(|(slot, output)| *output.name != *derived(slot)) {
        let names: Vec<Arc<str>> = node.outputs.iter().map(|o| o.name.clone()).collect();
        write!(out, " values=[{}]", quote_list(&names))?;
    }
    let implied = is_named && !matches!(node.op, Op::Constant(_));
    let expected: &[Arc<str>] = if implied { std::slice::from_ref(&node.name) } else { &[] };
    if node.sources != expected {
        write!(out, " sources=[{}]", quote_list(&node.sources))?;
    }
    if let Some(group) = node.group {
        write!(out, " group={group}")?;
    }
    Ok(())
}

fn write_attrs(out: &mut String, op: &Op) -> fmt::Result {
    let attrs = op.attrs();
    if attrs.is_empty() {
        return Ok(());
    }
    let entries: Vec<String> =
        attrs.iter().map(|(name, attr)| format!("{name}={}", format_attr(attr))).collect();
    write!(out, " {{{}}}", entries.join(", "))
}

/// An attribute value, so that the parser gets the same kind back.
fn format_attr(attr: &Attr) -> String {
    fn list<T>(items: &[T], format: impl Fn(&T) -> String) -> String {
        format!("[{}]", items.iter().map(format).collect::<Vec<_>>().join(","))
    }
    match attr {
        Attr::Int(value) => value.to_string(),
        Attr::Float(value) => format_f32(*value),
        Attr::Str(text) => quote(text),
        Attr::Tensor(tensor) => {
            let shape = list(tensor.shape(), ToString::to_string);
            format!("{}{shape} {}", tensor.dtype(), format_tensor(tensor))
        }
        Attr::Ints(values) => list(values, ToString::to_string),
        Attr::Floats(values) if values.is_empty() => "floats[]".to_owned(),
        Attr::Floats(values) => list(values, |v| format_f32(*v)),
        Attr::Strs(values) if values.is_empty() => "strs[]".to_owned(),
        Attr::Strs(values) => list(values, |v| quote(v)),
    }
}
