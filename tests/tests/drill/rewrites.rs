//! Faults planted in the rewrites of a pipeline.

use super::faults::Fault;
use super::plant::{Model, Place, Row, faulty, missed, places, row, search, show};
use rabot_debug::bisect::{Bisection, Check};
use rabot_rewrite::PassCx;

/// Places of a fault that are tried before it is given up.
const TRIES: usize = 12;

/// How far apart in the list of rewrites faults are tried first.
const STRIDE: usize = 17;

/// Where faults are planted.
#[derive(Clone, Copy)]
pub enum Kind {
    /// In any rewrite.
    Any,
    /// In those of a rule.
    Rule(&'static str),
    /// In those of a pass.
    Pass(&'static str),
    /// In scales and zero points of layers in integers, which are to be named too.
    Parameter,
}

impl Kind {
    fn takes(self, place: &Place, text: &str) -> bool {
        match self {
            Kind::Any => true,
            Kind::Rule(rule) => place.1 == rule,
            Kind::Pass(name) => text.split(',').nth(place.0).is_some_and(|pass| pass.starts_with(name)),
            Kind::Parameter => place.1 == "int8",
        }
    }
}

/// Plants each of the faults at up to `most` rewrites of a pipeline.
pub fn rewrites(
    model: &Model,
    text: &str,
    faults: &[(&str, Fault)],
    kind: Kind,
    check: &Check,
    most: usize,
    rows: &mut Vec<Row>,
) {
    let places = places(model, text);
    for (name, fault) in faults {
        let (mut planted, mut tried) = (0, 0);
        // Each fault begins somewhere else.
        let those: Vec<&Place> = places.iter().filter(|place| kind.takes(place, text)).collect();
        let begin = rows.len() * STRIDE % those.len().max(1);
        for place in those.iter().cycle().skip(begin).take(those.len()) {
            if planted == most || tried == TRIES {
                break;
            }
            let (pipeline, moved) = faulty(text, &[(place, *fault)]);
            let cx = PassCx { calibration: Some(&model.inputs), ..PassCx::default() };
            let _ = pipeline.run(&mut model.graph.clone(), &cx, &mut |_, _| {});
            if moved.is_empty() {
                continue;
            }
            tried += 1;
            let found = match search(model, &pipeline, check, None) {
                Ok(found) => found,
                Err(error) => {
                    println!("{name} in {} at {}: no search: {error}", model.name, show(place));
                    continue;
                }
            };
            if !found.fails {
                continue;
            }
            planted += 1;
            let missed = missed(&found, &[place], &moved).or_else(|| parameter(kind, name, &found));
            rows.push(row(name, model, show(place), missed, &found));
        }
    }
}

/// What was not said of a scale or a zero point.
fn parameter(kind: Kind, fault: &str, found: &Bisection) -> Option<String> {
    if !matches!(kind, Kind::Parameter) {
        return None;
    }
    let role = if fault.contains("zero point") { "zero point" } else { "scale" };
    let parameter = found.rewrites.first().and_then(|culprit| culprit.parameter.as_ref());
    let named = parameter.is_some_and(|wrong| wrong.name == "planted" && wrong.role.starts_with(role));
    (!named).then(|| format!("parameter {parameter:?}"))
}
