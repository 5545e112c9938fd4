//! `rabot explain`: the kernels that a model becomes.

use super::args::ModelArgs;
use super::explain_op::Story;
use super::inspect::grouped;
use super::progress::Progress;
use super::{Failure, Status, output};
use clap::Args;
use rabot::Profile;
use rabot::ir::Dim;
use rabot::kernel::{Plan, Staged, Step, Work};
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::Arc;

const AFTER: &str =
    "Kinds: contract (matrix products and convolutions), loop, move (data are only moved), and host: a Rust
function, with the reason why it is not compiled.

Examples:
  rabot explain model.onnx
  rabot explain model.onnx --json
  rabot explain model.onnx --pipeline fold,dce
  rabot explain model.onnx --op /layer1/Conv";

/// List the kernels of a compiled model in order: what each is made of, its kind, and why anything is on the host
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct ExplainArgs {
    #[command(flatten)]
    model: ModelArgs,

    /// Tell what became of one node of the model, by name: changes, those that were not made and why, patterns that
    /// almost fit, and the kernels that compute it
    #[arg(long, value_name = "NAME")]
    op: Option<String>,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
pub(super) struct Row {
    pub(super) name: String,
    pub(super) kind: &'static str,
    /// Names of the nodes of the model that it computes.
    pub(super) sources: Vec<String>,
    /// Names of the values that it writes.
    pub(super) values: Vec<String>,
    /// A number, or an expression over symbolic dims.
    #[serde(skip_serializing_if = "Option::is_none")]
    flops: Option<serde_json::Value>,
    /// Why it is on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) reason: Option<String>,
    /// The branches of conditionals it is in.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    branches: Vec<&'static str>,
}

/// Lists the kernels.
///
/// **Errors**: the model cannot be imported or planned.
pub(crate) fn run(args: &ExplainArgs) -> Result<Status, Failure> {
    let mut options = args.model.options()?;
    let progress = Progress::new("importing");
    let mut graph = args.model.import(&mut options)?.graph;
    progress.now("optimizing");
    let mut story = args.op.as_ref().map(|name| Story::new(&graph, name)).transpose()?;
    let mut before = graph.clone();
    rabot::optimize(&mut graph, &options, &mut |step, after| {
        if let Some(story) = &mut story {
            story.see(step, &before);
            before = after.clone();
        }
    })?;
    progress.now("planning");
    let staged = rabot::lower(&graph, &Profile::by_name(&options.target)?)?;
    drop(progress);
    let mut rows = Vec::new();
    collect_stages(&staged, &mut Vec::new(), &mut rows);
    if let Some(story) = story {
        return story.show(&rows, args.json);
    }
    let distinct: usize = staged.plans().iter().map(|plan| plan.kernels.len()).sum();
    let mut kinds: BTreeMap<&str, usize> = BTreeMap::new();
    rows.iter().for_each(|row| *kinds.entry(row.kind).or_insert(0) += 1);
    if args.json {
        let model = args.model.model.display().to_string();
        let json = serde_json::json!({
            "model": model, "target": options.target, "distinct": distinct, "kinds": kinds, "kernels": rows,
        });
        output::print_json(&json)?;
        return Ok(Status::Done);
    }
    let counts = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect::<Vec<_>>().join(", ");
    let summary = format!("{} calls of {} distinct kernels: {counts}", rows.len(), distinct);
    output::print(&format!("{}\n{summary}\n", table(&rows)))?;
    Ok(Status::Done)
}

fn collect_stages(staged: &Staged, branches: &mut Vec<&'static str>, rows: &mut Vec<Row>) {
    for stage in &staged.stages {
        let host = match &stage.work {
            Work::Kernels(plan) => {
                collect(plan, &plan.steps, branches, rows);
                continue;
            }
            Work::Host(host) => host,
        };
        rows.push(Row {
            name: host.op.name().to_owned(),
            kind: "host",
            sources: strings(&host.sources),
            values: strings(&host.values),
            flops: None,
            reason: Some(host.reason.clone()),
            branches: branches.clone(),
        });
        for ((name, _), region) in host.op.regions().into_iter().zip(&host.regions) {
            branches.push(name);
            collect_stages(region, branches, rows);
            branches.pop();
        }
    }
}

fn collect(plan: &Plan, steps: &[Step], branches: &mut Vec<&'static str>, rows: &mut Vec<Row>) {
    for step in steps {
        match step {
            Step::Call(call) => rows.push(Row {
                name: plan.kernel_names.get(call.kernel).cloned().unwrap_or_default(),
                kind: plan.kernels.get(call.kernel).map_or("loop", |kernel| kernel.kind()),
                sources: strings(&call.sources),
                values: strings(&call.values),
                flops: Some(flops(&call.flops)),
                reason: None,
                branches: branches.clone(),
            }),
            Step::Host(call) => rows.push(Row {
                name: call.op.clone(),
                kind: "host",
                sources: strings(&call.sources),
                values: strings(&call.values),
                flops: None,
                reason: Some(call.reason.clone()),
                branches: branches.clone(),
            }),
            Step::If { then_steps, else_steps, .. } => {
                rows.push(Row {
                    name: "If".to_owned(),
                    kind: "host",
                    sources: Vec::new(),
                    values: Vec::new(),
                    flops: None,
                    reason: Some("chooses between two lists of kernels, once per run".to_owned()),
                    branches: branches.clone(),
                });
                for (name, inner) in [("then", then_steps), ("else", else_steps)] {
                    branches.push(name);
                    collect(plan, inner, branches, rows);
                    branches.pop();
                }
            }
        }
    }
}

fn strings(names: &[Arc<str>]) -> Vec<String> {
    names.iter().map(|name| name.to_string()).collect()
}

fn flops(dim: &Dim) -> serde_json::Value {
    match dim.as_const() {
        Some(count) => count.into(),
        None => dim.to_string().into(),
    }
}

fn table(rows: &[Row]) -> String {
    let mut table = output::table(&[">#", "kind", "kernel", ">operations", "source nodes"]);
    for (index, row) in rows.iter().enumerate() {
        let operations = match &row.flops {
            Some(serde_json::Value::Number(count)) => count.as_u64().map(grouped).unwrap_or_default(),
            Some(serde_json::Value::String(count)) => count.clone(),
            _ => String::new(),
        };
        let mut name = format!("{}{}", "  ".repeat(row.branches.len()), row.name);
        if let Some(branch) = row.branches.last() {
            name.push_str(&format!(" ({branch})"));
        }
        let mut sources = row.sources.join(", ");
        if let Some(reason) = &row.reason {
            sources.push_str(&format!(" [{reason}]"));
        }
        table.add_row([index.to_string(), row.kind.to_owned(), name, operations, sources.trim().to_owned()]);
    }
    table.to_string()
}
