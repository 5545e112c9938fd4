//! What is wrong with a case under a pipeline, in words that stay the same while the case gets smaller.

use super::Case;
use crate::bisect::Expression;
use crate::measure::compile;
use crate::{DebugError, PassVerdict, Tensors, TraceOptions, trace};
use rabot_ir::interp;
use rabot_rewrite::{Admit, Gate, PassCx, PassError, Pipeline};
use rabot_runtime::Session;
use rabot_target::Profile;

/// How the pipeline is run on a case, and what is a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Demands<'a> {
    /// Leave out rules that only hold for finite values.
    pub strict: bool,
    /// Rewrites that are left out, as pairs of rule and node.
    pub without: &'a [(String, String)],
    /// What outputs have to be like. With it, nothing else is a failure.
    pub check: Option<&'a Expression>,
}

/// Names the failure of a case: a check that is false; else a pass that panics, fails, leaves an invalid graph or breaks
/// its promise, a graph that cannot be compiled, or compiled outputs that are off. `None` if all is well, and if the model
/// itself cannot be evaluated or is not what the check asks for.
///
/// Passes that calibrate do so on the case's own inputs.
pub fn failure_of(
    case: &Case,
    pipeline: &Pipeline,
    profile: &Profile,
    demands: &Demands<'_>,
) -> Option<String> {
    rabot_ir::verify::verify(&case.graph).ok()?;
    let reference = interp::run(&case.graph, &case.inputs).ok()?;
    let sets = [case.inputs.clone()];
    let gate = Gate::new(Admit::WithoutAt(demands.without.iter().cloned().collect()));
    let cx =
        PassCx { calibration: Some(&sets), strict: demands.strict, gate: Some(&gate), ..PassCx::default() };
    if let Some(check) = demands.check {
        return false_check(case, &reference, pipeline, profile, &cx, check);
    }
    let options = TraceOptions::new(profile.clone());
    match trace(&case.graph, pipeline, &cx, &case.inputs, &options, &mut |_, _| {}) {
        Err(error) => Some(name_of(&error)),
        Ok(found) => {
            let breaks = found.rows.iter().find(|row| matches!(row.verdict, PassVerdict::Breaks(_)));
            match breaks {
                Some(row) => Some(format!("pass `{}` moves an output further than it promises", row.pass)),
                None if !found.compiled.comparison.passed => {
                    Some("compiled outputs are off by more than rounding explains".to_owned())
                }
                None => None,
            }
        }
    }
}

/// The failure of a check that the model passes and the compiled program of the optimized graph does not.
fn false_check(
    case: &Case,
    reference: &Tensors,
    pipeline: &Pipeline,
    profile: &Profile,
    cx: &PassCx<'_>,
    check: &Expression,
) -> Option<String> {
    let holds = |outputs: &Tensors| check.holds(outputs, reference).ok();
    if !holds(reference)? {
        return None;
    }
    let mut graph = case.graph.clone();
    pipeline.run(&mut graph, cx, &mut |_, _| {}).ok()?;
    let session = Session::new(&compile(&graph, profile).ok()?).ok()?;
    let outputs = session.run(&case.inputs).ok()?;
    (!holds(&outputs)?).then(|| format!("the check `{}` is false for the compiled outputs", check.text()))
}

fn name_of(error: &DebugError) -> String {
    match error {
        DebugError::Pass(PassError::Panic { pass, .. }) => format!("pass `{pass}` panics"),
        DebugError::Pass(PassError::Verify { after, .. }) => {
            format!("pass `{}` leaves an invalid graph", after.as_deref().unwrap_or("none"))
        }
        DebugError::Pass(PassError::Budget { pass, .. }) => format!("pass `{pass}` does not come to an end"),
        DebugError::Pass(PassError::Graph { pass, .. } | PassError::Model { pass, .. }) => {
            format!("pass `{pass}` fails")
        }
        DebugError::Pass(_) => "a pass cannot be run".to_owned(),
        DebugError::Interp { .. } => "an optimized graph cannot be evaluated".to_owned(),
        DebugError::Plan(_) => "the optimized graph cannot be planned".to_owned(),
        DebugError::Codegen(_) => "no code can be made".to_owned(),
        DebugError::Run(_) => "the program cannot be run".to_owned(),
        other => other.to_string(),
    }
}
