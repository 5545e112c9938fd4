//! What is wrong with a case under a pipeline, in words that stay the same while the case gets smaller.

use super::Case;
use crate::{DebugError, PassVerdict, TraceOptions, trace};
use rabot_ir::interp;
use rabot_rewrite::{PassCx, PassError, Pipeline};
use rabot_target::Profile;

/// Names the failure of a case: a pass that panics, fails, leaves an invalid graph or breaks its promise; a graph that
/// cannot be compiled; compiled outputs that are off. `None` if all is well, and if the model itself cannot be evaluated.
///
/// Passes that calibrate do so on the case's own inputs.
pub fn failure_of(case: &Case, pipeline: &Pipeline, profile: &Profile, strict: bool) -> Option<String> {
    rabot_ir::verify::verify(&case.graph).ok()?;
    interp::run(&case.graph, &case.inputs).ok()?;
    let sets = [case.inputs.clone()];
    let cx = PassCx { calibration: Some(&sets), strict, ..PassCx::default() };
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
