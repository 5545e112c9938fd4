//! `rabot ops`: the operators that are supported.

use super::{Failure, Status, output};
use clap::Args;
use rabot::onnx::{NEWEST_OPSET, supported_ops};
use serde_json::json;

/// List the ONNX operators that are supported
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  rabot ops\n  rabot ops --json")]
pub(crate) struct OpsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Lists the operators.
///
/// **Errors**: standard output cannot be written.
pub(crate) fn run(args: &OpsArgs) -> Result<Status, Failure> {
    let ops = supported_ops();
    if args.json {
        let list: Vec<_> =
            ops.iter().map(|(op, composed)| json!({ "op": op, "composed": composed })).collect();
        output::print_json(&json!({ "newest_opset": NEWEST_OPSET, "ops": list }))?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&["operator", "how"]);
    for (op, composed) in &ops {
        let how = if *composed { "replaced by others when a model is imported" } else { "as it is" };
        table.add_row([op, how]);
    }
    let count = ops.len();
    let text =
        format!("{table}\n{count} operators of ONNX's own set, in every version up to {NEWEST_OPSET}\n");
    output::print(&text)?;
    Ok(Status::Done)
}
