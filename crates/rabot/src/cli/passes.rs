//! `rabot passes`: the passes and their options.

use super::{Failure, Status, output};
use clap::Args;
use rabot::passes::{DEFAULT_PIPELINE, PASSES};
use rabot::rewrite::Options;
use serde::Serialize;
use serde_json::json;

const AFTER: &str = "Examples:
  rabot passes
  rabot passes --rules
  rabot run model.onnx --random 1 --pipeline fold,dce";

/// List the passes: what each does, how far it may move outputs, and its options
#[derive(Args, Debug)]
#[command(after_help = AFTER)]
pub(crate) struct PassesArgs {
    /// List the rules that passes apply: the identity of each, how far outputs may move, and for which values it holds
    #[arg(long)]
    rules: bool,

    /// Print JSON
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Row {
    name: &'static str,
    summary: &'static str,
    exactness: String,
    options: Vec<OptionRow>,
}

#[derive(Serialize)]
struct OptionRow {
    name: &'static str,
    default: &'static str,
    summary: &'static str,
}

#[derive(Serialize)]
struct RuleRow {
    pass: &'static str,
    rule: &'static str,
    identity: &'static str,
    exactness: String,
    valid: String,
    patterns: &'static [&'static str],
}

fn rules() -> Result<Vec<RuleRow>, Failure> {
    let mut rows = Vec::new();
    for info in PASSES {
        let pass = (info.make)(&Options::new(info.name, info.options))?;
        rows.extend(pass.rules().into_iter().map(|rule| RuleRow {
            pass: info.name,
            rule: rule.name,
            identity: rule.identity,
            exactness: rule.exactness.to_string(),
            valid: rule.valid.to_string(),
            patterns: rule.lhs,
        }));
    }
    Ok(rows)
}

fn print_rules(json: bool) -> Result<Status, Failure> {
    let rows = rules()?;
    if json {
        output::print_json(&json!({ "rules": rows }))?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&["pass", "rule", "outputs", "holds for", "identity"]);
    for row in &rows {
        table.add_row([row.pass, row.rule, &row.exactness, &row.valid, row.identity]);
    }
    output::print(&format!("{table}\n"))?;
    Ok(Status::Done)
}

/// Lists the passes, or their rules.
///
/// **Errors**: standard output cannot be written.
pub(crate) fn run(args: &PassesArgs) -> Result<Status, Failure> {
    if args.rules {
        return print_rules(args.json);
    }
    let mut rows = Vec::new();
    for info in PASSES {
        let pass = (info.make)(&Options::new(info.name, info.options))?;
        let option = |o: &rabot::rewrite::OptionInfo| OptionRow {
            name: o.name,
            default: o.default,
            summary: o.summary,
        };
        rows.push(Row {
            name: info.name,
            summary: pass.summary(),
            exactness: pass.exactness().to_string(),
            options: info.options.iter().map(option).collect(),
        });
    }
    if args.json {
        output::print_json(&json!({ "default_pipeline": DEFAULT_PIPELINE, "passes": rows }))?;
        return Ok(Status::Done);
    }
    let mut table = output::table(&["pass", "outputs", "what it does"]);
    for row in &rows {
        table.add_row([row.name, &row.exactness, row.summary]);
    }
    let mut text = format!("{table}\n\n");
    if rows.iter().any(|row| !row.options.is_empty()) {
        let mut table = output::table(&["option", "default", "meaning"]);
        for row in &rows {
            for option in &row.options {
                table.add_row([
                    &format!("{}{{{}=...}}", row.name, option.name),
                    option.default,
                    option.summary,
                ]);
            }
        }
        text.push_str(&format!("{table}\n\n"));
    }
    text.push_str(&format!("default pipeline: {DEFAULT_PIPELINE}\n"));
    output::print(&text)?;
    Ok(Status::Done)
}
