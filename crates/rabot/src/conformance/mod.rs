//! Models with inputs and expected outputs, in the layout of ONNX's own test suite: a folder with `model.onnx`,
//! `test_data_set_0/input_0.pb` and so on, and perhaps `tolerance.json`.
//!
//! **Source**: onnx/backend/test/runner/__init__.py, whose comparison this one follows.

mod case;
mod compare;
mod panics;
mod ulp;

pub use case::{Case, ConformanceError, find_cases};
pub use compare::{Tolerance, compare};

use crate::{Error, Options};
use rabot_ir::interp::{self, Data};
use rabot_ir::{Graph, GraphError, OpError};
use rabot_kernel::PlanError;
use rabot_onnx::ImportError;
use rabot_runtime::Session;
use serde::Serialize;

/// How cases are run.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Use the interpreter in place of compiled code, without passes.
    pub reference: bool,
    /// How to import and compile.
    pub options: Options,
    /// Relative tolerance in place of that of each case.
    pub rtol: Option<f64>,
    /// Absolute tolerance in place of that of each case.
    pub atol: Option<f64>,
}

/// How a case ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All outputs of all data sets are as expected.
    Pass,
    /// An output is not, or there was an error.
    Fail,
    /// The importer or the planner says that the model holds what they do not support.
    Unsupported,
}

/// What became of a case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Outcome {
    /// Name of the case.
    pub name: String,
    /// How it ended.
    pub status: Verdict,
    /// Why it did not pass.
    pub reason: Option<String>,
    /// Largest error of a floating-point output in units in the last place of its dtype; `None` where there is no
    /// such output. Infinite errors saturate.
    pub max_ulp: Option<u64>,
}

/// Why a case does not pass.
struct Failed {
    status: Verdict,
    reason: String,
}

impl Failed {
    fn because(reason: impl Into<String>) -> Self {
        Failed { status: Verdict::Fail, reason: reason.into() }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        let status = if is_unsupported(&error) { Verdict::Unsupported } else { Verdict::Fail };
        Failed { status, reason: error.to_string() }
    }
}

impl From<ConformanceError> for Failed {
    fn from(error: ConformanceError) -> Self {
        Failed::because(error.to_string())
    }
}

/// Runs a case; a panic is a failure like any other.
pub fn run_case(case: &Case, settings: &Settings) -> Outcome {
    let mut max_ulp = None;
    let result = panics::caught(|| run_sets(case, settings, &mut max_ulp));
    let result = result.unwrap_or_else(|message| Err(Failed::because(message)));
    let (status, reason) = match result {
        Ok(()) => (Verdict::Pass, None),
        Err(failed) => (failed.status, Some(failed.reason)),
    };
    Outcome { name: case.name.clone(), status, reason, max_ulp }
}

fn run_sets(case: &Case, settings: &Settings, max_ulp: &mut Option<u64>) -> Result<(), Failed> {
    let model = crate::import(case.model(), &settings.options)?;
    let stated = case.tolerance()?;
    let tolerance =
        Tolerance { rtol: settings.rtol.unwrap_or(stated.rtol), atol: settings.atol.unwrap_or(stated.atol) };
    let sets = case.data_sets()?;
    let limits = &settings.options.limits;
    let declared = rabot_onnx::declared_outputs(&case.model(), limits).map_err(Error::from)?;
    let engine = Engine::new(&model.graph, settings)?;
    for set in &sets {
        let inputs = case::read_inputs(set, &model.graph, limits)?;
        let expected = case::read_outputs(set, &model.graph, &declared, limits)?;
        let outputs = engine.run(&inputs)?;
        // All outputs are compared, so that the error in ulps is that of the case.
        let mut problems = Vec::new();
        for (name, expected) in &expected {
            let Some(actual) = outputs.get(name) else {
                problems.push(format!("output `{name}` is not among those of the run"));
                continue;
            };
            let compared = compare(actual, expected, tolerance);
            *max_ulp = (*max_ulp).max(compared.max_ulp);
            problems.extend(compared.problem.map(|problem| format!("output `{name}`{problem}")));
        }
        if !problems.is_empty() {
            return Err(Failed::because(problems.join("; ")));
        }
    }
    Ok(())
}

/// What runs a model.
enum Engine<'a> {
    Compiled(Box<Session>),
    Interpreter(&'a Graph),
}

impl<'a> Engine<'a> {
    fn new(graph: &'a Graph, settings: &Settings) -> Result<Self, Failed> {
        if settings.reference {
            return Ok(Engine::Interpreter(graph));
        }
        let program = crate::compile_graph(graph.clone(), &settings.options)?.program;
        let session = Session::new(&program).map_err(Error::from)?;
        Ok(Engine::Compiled(Box::new(session)))
    }

    fn run(&self, inputs: &Data) -> Result<Data, Failed> {
        match self {
            Engine::Compiled(session) => Ok(session.run_data(inputs).map_err(Error::from)?),
            Engine::Interpreter(graph) => {
                interp::run_data(graph, inputs).map_err(|error| Failed::because(error.to_string()))
            }
        }
    }
}

/// True if the importer or the planner says that something is not supported.
fn is_unsupported(error: &Error) -> bool {
    match error {
        Error::Import(ImportError::Unsupported(_)) | Error::Plan(PlanError::Unsupported(_)) => true,
        Error::Import(ImportError::Node(error))
        | Error::Graph(error)
        | Error::Plan(PlanError::Graph(error)) => {
            matches!(error, GraphError::Op { error, .. } if matches!(**error, OpError::Unsupported(_)))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests;
