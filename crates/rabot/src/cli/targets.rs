//! `rabot targets`: what can be compiled for.

use super::{Failure, Status, output};
use clap::Args;
use rabot::{Profile, TargetError};
use serde::Serialize;

const AFTER: &str = "Examples:
  rabot targets
  rabot compile model.onnx --dim batch=1 --target aarch64 --emit obj -o model.o";

/// List the targets, and which of them run on this machine
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct TargetsArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: String,
    arch: &'static str,
    vector_bits: u32,
    features: Vec<String>,
    runs_here: bool,
    /// What this machine lacks, in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    missing: Option<String>,
}

/// Lists the targets.
///
/// **Errors**: no code can be made for this machine.
pub(crate) fn run(args: &TargetsArgs) -> Result<Status, Failure> {
    let mut rows = Vec::new();
    for name in std::iter::once("host").chain(Profile::built_in_names()) {
        let profile = Profile::by_name(name)?;
        let missing = match profile.runs_here() {
            Ok(()) => None,
            Err(TargetError::Missing { missing, .. }) => Some(missing.join(", ")),
            Err(TargetError::Arch { host, .. }) => Some(format!("another architecture: this is {host}")),
            Err(other) => Some(other.to_string()),
        };
        rows.push(Row {
            name: name.to_owned(),
            arch: profile.arch.name(),
            vector_bits: profile.vector_bits,
            features: profile.features,
            runs_here: missing.is_none(),
            missing,
        });
    }
    if args.json {
        output::print_json(&serde_json::json!({ "targets": rows }))?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&["target", "architecture", ">vector bits", "runs here", "missing"]);
    for row in rows {
        let here = if row.runs_here { "yes" } else { "no" };
        let bits = row.vector_bits.to_string();
        table.add_row([
            row.name,
            row.arch.to_owned(),
            bits,
            here.to_owned(),
            row.missing.unwrap_or_default(),
        ]);
    }
    output::print(&format!("{table}\n"))?;
    Ok(Status::Done)
}
