//! `rabot inspect`: what is in a model.

use super::args::ModelArgs;
use super::inputs::input_types;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot::ir::{Dim, Graph};
use rabot::kernel::PlanError;
use rabot::onnx::{ImportError, Outline, outline_file};
use rabot::rewrite::Stats;
use rabot::{Error, Profile};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;

const AFTER: &str =
    "Operations (FLOPs) are those of convolutions and matrix products, a multiply-add counted as two.

Examples:
  rabot inspect model.onnx
  rabot inspect model.onnx --dim batch=1 --json";

/// Show what is in a model: inputs, outputs, operators, weights, and what is not supported and why
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct InspectArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Value {
    name: String,
    #[serde(rename = "type")]
    ty: String,
}

#[derive(Serialize)]
struct Unsupported {
    node: String,
    op: String,
    reason: String,
}

#[derive(Serialize)]
struct Optimized {
    nodes: usize,
    constants_bytes: u64,
}

#[derive(Serialize)]
struct Inspected {
    model: String,
    name: String,
    producer: String,
    ir_version: i64,
    opsets: BTreeMap<String, i64>,
    inputs: Vec<Value>,
    outputs: Vec<Value>,
    /// Symbolic dims of the inputs.
    dims: Vec<String>,
    ops: BTreeMap<String, usize>,
    /// How many values there are of each dtype; absent if the model cannot be imported.
    dtypes: BTreeMap<String, usize>,
    parameters: u64,
    parameters_by_dtype: BTreeMap<String, u64>,
    weights_bytes: u64,
    /// A number, or an expression over the symbolic dims; absent if the model cannot be imported.
    flops: Option<serde_json::Value>,
    /// After the passes; absent if the model cannot be imported.
    optimized: Option<Optimized>,
    supported: bool,
    unsupported: Vec<Unsupported>,
}

/// Shows what is in a model.
///
/// **Errors**: the file is no model, or the options do not fit it. What is not supported is no error here.
pub(crate) fn run(args: &InspectArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let progress = Progress::new("reading the model");
    let outline =
        outline_file(&args.model.model, &options.limits).map_err(|e| args.model.about_model(e.into()))?;
    let mut inspected = from_outline(&args.model.model.display().to_string(), outline);
    match rabot::import(&args.model.model, &options) {
        Ok(model) => {
            describe_graph(&mut inspected, &model.graph);
            progress.now("planning");
            if let Some(path) = &args.model.calibrate {
                options.calibration = super::inputs::calibration(path, &model.graph)?;
            }
            inspected.unsupported = unplannable(&mut inspected, model.graph, &options)?;
        }
        Err(Error::Import(ImportError::Unsupported(nodes))) => {
            inspected.unsupported = nodes.0.into_iter().map(from_import).collect();
        }
        Err(error) => return Err(args.model.about_model(error)),
    }
    inspected.supported = inspected.unsupported.is_empty();
    drop(progress);
    if args.json {
        output::print_json(&inspected)?;
    } else {
        output::print(&text(&inspected))?;
    }
    Ok(Status::Done)
}

fn from_outline(model: &str, outline: Outline) -> Inspected {
    let values =
        |list: Vec<(String, String)>| list.into_iter().map(|(name, ty)| Value { name, ty }).collect();
    let domain = |name: String| if name.is_empty() { "ai.onnx".to_owned() } else { name };
    Inspected {
        model: model.to_owned(),
        name: outline.name,
        producer: outline.producer,
        ir_version: outline.ir_version,
        opsets: outline.opsets.into_iter().map(|(name, version)| (domain(name), version)).collect(),
        inputs: values(outline.inputs),
        outputs: values(outline.outputs),
        dims: Vec::new(),
        ops: outline.ops.into_iter().collect(),
        dtypes: BTreeMap::new(),
        parameters: outline.weights.values().copied().fold(0, u64::saturating_add),
        parameters_by_dtype: outline.weights.into_iter().collect(),
        weights_bytes: outline.weights_bytes,
        flops: None,
        optimized: None,
        supported: true,
        unsupported: Vec::new(),
    }
}

fn from_import(node: rabot::onnx::UnsupportedNode) -> Unsupported {
    let domain = if node.domain.is_empty() { String::new() } else { format!("{}::", node.domain) };
    let hint = node.hint.map(|hint| format!("; {hint}")).unwrap_or_default();
    let reason = format!("{}{hint}", node.reason);
    Unsupported { node: node.node, op: format!("{domain}{}", node.op), reason }
}

/// What inference tells, with the sizes that were given for dims.
fn describe_graph(inspected: &mut Inspected, graph: &Graph) {
    let input =
        |(name, ty): (&str, &rabot::ir::ValueType)| Value { name: name.to_owned(), ty: ty.to_string() };
    inspected.inputs = input_types(graph).into_iter().map(input).collect();
    let outputs = graph.outputs().iter();
    inspected.outputs =
        outputs.map(|o| Value { name: o.name.to_string(), ty: graph.fact(o.value).ty.to_string() }).collect();
    for (_, ty) in input_types(graph) {
        for dim in &ty.shape {
            dim.for_each_symbol(&mut |symbol| {
                if !inspected.dims.iter().any(|known| **known == **symbol) {
                    inspected.dims.push(symbol.to_string());
                }
            });
        }
    }
    for id in graph.node_ids() {
        for output in &graph.node(id).outputs {
            *inspected.dtypes.entry(output.fact.dtype().name().to_owned()).or_insert(0) += 1;
        }
    }
    let flops = flops(graph);
    inspected.flops = Some(match flops.as_const() {
        Some(count) => count.into(),
        None => flops.to_string().into(),
    });
}

/// Operations of a graph, the larger branch of each conditional and one round of each loop counted.
fn flops(graph: &Graph) -> Dim {
    let nested = graph.node_ids().filter_map(|id| {
        let regions = graph.node(id).op.regions();
        regions.into_iter().map(|(_, region)| flops(region)).reduce(|a, b| a.maximum(&b))
    });
    nested.fold(Stats::of(graph).flops, |sum, branches| sum + branches)
}

/// Optimizes the graph, and gives the nodes that no kernel can be planned for.
fn unplannable(
    inspected: &mut Inspected,
    mut graph: Graph,
    options: &rabot::Options,
) -> Result<Vec<Unsupported>, Failure> {
    rabot::optimize(&mut graph, options, &mut |_, _| {})?;
    let stats = Stats::of(&graph);
    inspected.optimized = Some(Optimized { nodes: stats.nodes, constants_bytes: stats.constants_bytes });
    match rabot::kernel::check(&graph, &Profile::by_name(&options.target)?) {
        Ok(()) => Ok(Vec::new()),
        Err(PlanError::Unsupported(nodes)) => {
            Ok(nodes.into_iter().map(|n| Unsupported { node: n.node, op: n.op, reason: n.reason }).collect())
        }
        Err(error) => Err(error.into()),
    }
}

fn text(inspected: &Inspected) -> String {
    let mut text = String::new();
    let mut line = |label: &str, value: String| {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{label:<12}{value}");
    };
    line("model", inspected.model.clone());
    line("graph", inspected.name.clone());
    let opsets = inspected.opsets.iter().map(|(domain, version)| format!("{domain} {version}"));
    line("opset", opsets.collect::<Vec<_>>().join(", "));
    if !inspected.producer.is_empty() {
        line("producer", inspected.producer.clone());
    }
    let by_dtype =
        inspected.parameters_by_dtype.iter().map(|(dtype, count)| format!("{} {dtype}", grouped(*count)));
    let by_dtype = by_dtype.collect::<Vec<_>>().join(" + ");
    let none = if by_dtype.is_empty() { "0" } else { "" };
    line("parameters", format!("{by_dtype}{none}, {} bytes", grouped(inspected.weights_bytes)));
    match &inspected.flops {
        Some(serde_json::Value::Number(count)) => {
            line("operations", count.as_u64().map_or_else(|| count.to_string(), grouped));
        }
        Some(serde_json::Value::String(count)) => line("operations", count.clone()),
        _ => {}
    }
    if let Some(Optimized { nodes, constants_bytes }) = &inspected.optimized {
        line("optimized", format!("{nodes} operators, {} bytes of constants", grouped(*constants_bytes)));
    }
    if !inspected.dtypes.is_empty() {
        let dtypes = inspected.dtypes.iter().map(|(dtype, count)| format!("{count} {dtype}"));
        line("values", dtypes.collect::<Vec<_>>().join(", "));
    }
    if !inspected.dims.is_empty() {
        line("dims", inspected.dims.join(", "));
    }
    let mut values = output::table(&["", "name", "type"]);
    for (kind, list) in [("input", &inspected.inputs), ("output", &inspected.outputs)] {
        for value in list {
            values.add_row([kind, &value.name, &value.ty]);
        }
    }
    let mut ops = output::table(&["operator", ">nodes"]);
    for (op, count) in &inspected.ops {
        ops.add_row([op.clone(), count.to_string()]);
    }
    let _ = write!(text, "\n{values}\n\n{ops}\n");
    if inspected.unsupported.is_empty() {
        text.push_str("\nEverything in it is supported.\n");
    } else {
        let mut table = output::table(&["not supported", "node", "why"]);
        for node in &inspected.unsupported {
            table.add_row([&node.op, &node.node, &node.reason]);
        }
        let _ = write!(text, "\n{table}\n");
    }
    text
}

/// A number with commas between groups of three digits.
pub(super) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}
