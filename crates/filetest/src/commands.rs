//! What each `; test` command does.

use crate::compare::difference;
use crate::file::{Command, GoldenFile, Target};
use crate::{Backends, PassOutcome};
use rabot_ir::interp::{self, Tensors};
use rabot_ir::testing::{random_inputs, run_checked};
use rabot_ir::text::{self, Module, NoBlobs};
use rabot_ir::verify::verify;
use rabot_ir::{Graph, Value};
use rabot_rewrite::Exactness;

/// Allowed of the interpreter against numbers in a file, which are rounded for people.
const WRITTEN: f64 = 1e-6;
/// Allowed of compiled code against numbers in a file: f32 sums in another order.
const COMPILED: f64 = 1e-5;
/// Seeds with which a pass is tried.
const PASS_SEEDS: [u64; 3] = [1, 2, 3];

/// What came out of a check.
pub(crate) enum Checked {
    Passed,
    Skipped(String),
    Failed(String),
    /// The expected text differs; `rewritten` is the file with the new one, if it may be blessed.
    Differs {
        diff: String,
        rewritten: Option<String>,
    },
}

type Check = Result<Checked, String>;

pub(crate) fn run(file: &GoldenFile, command: &Command, backends: &Backends<'_>) -> Checked {
    let result = match command {
        Command::Roundtrip => roundtrip(file),
        Command::Verify => verify_errors(file),
        Command::Run => run_cases(file, backends),
        Command::Pass(pipeline) => pass(file, pipeline, backends),
        Command::Lower => lower(file, backends),
        Command::Error => parse_error(file),
    };
    result.unwrap_or_else(Checked::Failed)
}

fn parse(file: &GoldenFile) -> Result<Module, String> {
    text::parse_module(&file.text, &NoBlobs).map_err(|e| e.to_string())
}

fn parse_valid(file: &GoldenFile) -> Result<Graph, String> {
    let graph = parse(file)?.graph;
    verify(&graph).map_err(|e| e.to_string())?;
    Ok(graph)
}

fn compare_text(expected: &str, actual: &str, rewritten: Option<String>) -> Checked {
    if expected == actual {
        return Checked::Passed;
    }
    let diff = similar::TextDiff::from_lines(expected, actual);
    let diff = diff.unified_diff().header("expected", "actual").to_string();
    Checked::Differs { diff, rewritten }
}

fn roundtrip(file: &GoldenFile) -> Check {
    let graph = parse_valid(file)?;
    let printed = text::print(&graph);
    let again = text::parse_module(&printed, &text::blobs(&graph)).map_err(|e| e.to_string())?;
    if again.graph != graph {
        return Err("the printed text reads back as another graph".to_owned());
    }
    Ok(compare_text(&file.bare_text(), &printed, file.with_bare_text(&printed)))
}

fn apply_edits(file: &GoldenFile, module: &mut Module) -> Result<(), String> {
    for edit in &file.edits {
        let node = |number: u32| {
            let known = module.nodes.get(&number).copied();
            known.ok_or_else(|| format!("`; set` names %{number}, which is not there"))
        };
        let value = Value { node: node(edit.node)?, slot: edit.slot };
        match edit.target {
            Target::Operand { node: number, slot } => {
                let user = node(number)?;
                if slot >= module.graph.node(user).inputs.len() {
                    return Err(format!("`; set` names operand {slot} of %{number}, which has fewer"));
                }
                module.graph.set_input(user, slot, Some(value));
            }
            Target::Output(index) => {
                if index >= module.graph.outputs().len() {
                    return Err(format!("`; set` names output {index}, which is not there"));
                }
                module.graph.set_output(index, value);
            }
        }
    }
    Ok(())
}

/// Every error must be expected where it is found, and every expectation met.
fn verify_errors(file: &GoldenFile) -> Check {
    let mut module = parse(file)?;
    apply_edits(file, &mut module)?;
    let found = verify(&module.graph).err().map_or(Vec::new(), |errors| errors.0);
    let mut open: Vec<_> = file.errors.iter().collect();
    let mut problems = Vec::new();
    for error in found {
        let line = error.node.and_then(|node| module.lines.get(&node)).copied();
        let text = error.to_string();
        let matches = |e: &&crate::file::ExpectedError| {
            let place = if e.on_statement { Some(e.line) } else { None };
            place == line && text.contains(&e.text)
        };
        match open.iter().position(matches) {
            Some(at) => drop(open.remove(at)),
            None => {
                let line = line.map_or("no line".to_owned(), |l| format!("line {l}"));
                problems.push(format!("not expected, on {line}: {text}"));
            }
        }
    }
    problems.extend(open.iter().map(|e| format!("line {}: expected, but not found: {}", e.line, e.text)));
    if problems.is_empty() { Ok(Checked::Passed) } else { Err(problems.join("\n")) }
}

fn run_cases(file: &GoldenFile, backends: &Backends<'_>) -> Check {
    let graph = parse_valid(file)?;
    if file.cases.iter().all(|case| case.expected.is_empty()) {
        return Err("the file has no `; expect` line".to_owned());
    }
    for case in &file.cases {
        let actual = run_checked(&graph, &case.inputs).map_err(|e| format!("line {}: {e}", case.line))?;
        let rtol = file.tolerance.unwrap_or(WRITTEN);
        compare(&case.expected, &actual, Exactness::Rel { rtol, atol: 0.0 })
            .map_err(|e| format!("line {}: interpreter: {e}", case.line))?;
        for (name, backend) in &backends.compiled {
            let place = |e: String| format!("line {}: {name}: {e}", case.line);
            let actual = match (backend.run(&graph, &case.inputs), &file.refused) {
                (Ok(_), Some(text)) => return Err(place(format!("is not refused with {text:?}"))),
                (Err(error), Some(text)) if error.contains(text) => continue,
                (result, _) => result.map_err(place)?,
            };
            let rtol = file.tolerance.unwrap_or(COMPILED);
            compare(&case.expected, &actual, Exactness::Rel { rtol, atol: 0.0 }).map_err(place)?;
        }
    }
    Ok(Checked::Passed)
}

/// Compares every expected tensor.
fn compare(expected: &Tensors, actual: &Tensors, allowed: Exactness) -> Result<(), String> {
    for (name, expected) in expected {
        let Some(actual) = actual.get(name) else {
            let known: Vec<&str> = actual.keys().map(String::as_str).collect();
            return Err(format!("there is no output `{name}`; there are {}", known.join(", ")));
        };
        if let Some(difference) = difference(expected, actual, allowed) {
            return Err(format!("output `{name}`: {difference}\n  expected {expected:?}\n  got {actual:?}"));
        }
    }
    Ok(())
}

fn pass(file: &GoldenFile, pipeline: &str, backends: &Backends<'_>) -> Check {
    let Some(passes) = backends.passes else {
        return Ok(Checked::Skipped("nothing was given that runs passes".to_owned()));
    };
    let before = parse_valid(file)?;
    let mut after = before.clone();
    let PassOutcome { exactness, report } = passes.apply(pipeline, &mut after)?;
    verify(&after).map_err(|e| format!("after the pipeline: {e}\n{}", text::print(&after)))?;
    for inputs in inputs_for(file, &before)? {
        let expected = interp::run(&before, &inputs).map_err(|e| format!("before: {e}"))?;
        let actual =
            interp::run(&after, &inputs).map_err(|e| format!("after: {e}\n{}", text::print(&after)))?;
        let names = |tensors: &Tensors| tensors.keys().cloned().collect::<Vec<_>>();
        if names(&expected) != names(&actual) {
            return Err(format!("outputs {:?} became {:?}", names(&expected), names(&actual)));
        }
        let allowed = match (exactness, file.tolerance) {
            (Exactness::Rel { .. }, Some(rtol)) => Exactness::Rel { rtol, atol: 0.0 },
            _ => exactness,
        };
        compare(&expected, &actual, allowed)
            .map_err(|e| format!("the pipeline changes outputs: {e}\n{}", text::print(&after)))?;
    }
    let mut actual = text::print(&after);
    if !report.is_empty() {
        actual.push_str(&format!("\n{}\n", report.trim_end()));
    }
    Ok(compare_text(&file.expected, &actual, Some(file.with_expected(&actual))))
}

/// The inputs in the file, or seeded ones.
fn inputs_for(file: &GoldenFile, graph: &Graph) -> Result<Vec<Tensors>, String> {
    if !file.cases.is_empty() {
        return Ok(file.cases.iter().map(|case| case.inputs.clone()).collect());
    }
    PASS_SEEDS.iter().map(|&seed| random_inputs(graph, seed, &|name| file.dims.get(name).copied())).collect()
}

fn lower(file: &GoldenFile, backends: &Backends<'_>) -> Check {
    let Some(lower) = backends.lower else {
        return Ok(Checked::Skipped("nothing was given that lowers graphs".to_owned()));
    };
    let actual = format!("{}\n", lower.lower(&parse_valid(file)?)?.trim_end());
    Ok(compare_text(&file.expected, &actual, Some(file.with_expected(&actual))))
}

fn parse_error(file: &GoldenFile) -> Check {
    match text::parse(&file.text) {
        Ok(_) => Err("the text was read without an error".to_owned()),
        Err(error) => {
            let actual = format!("{error}\n");
            Ok(compare_text(&file.expected, &actual, Some(file.with_expected(&actual))))
        }
    }
}
