//! The fault drill: faults are planted in passes and kernels, and bisecting has to name each one.
//!
//! Every fault is switched on by a wrapper here; the product has none of it. A fault that does not move an output by
//! more than rounding is no fault, and another place is taken for it.

mod faults;
mod kernels;
mod models;

use faults::{FAULTS, Fault, Faulty, QUANTIZED};
use kernels::KERNELS;
use models::{Model, models};
use rabot_debug::bisect::{Bisection, Check, EditPlan, Expression, Subject, bisect};
use rabot_ir::Graph;
use rabot_kernel::{Staged, Step as PlanStep};
use rabot_passes::{DEFAULT_PIPELINE, default_pipeline_with, pipeline};
use rabot_rewrite::{Pass, PassCx, Pipeline};
use rabot_target::Profile;

/// Places of one fault in one model.
const PLACES: usize = 2;

/// Seconds that a search may take.
const LONGEST: f64 = 60.0;

/// A fault that was planted, and what was found.
struct Row {
    fault: String,
    model: &'static str,
    place: String,
    named: bool,
    evaluations: usize,
    seconds: f64,
}

/// A rewrite that a pipeline makes: position of the pass, rule and node.
type Place = (usize, String, String);

fn places(model: &Model, text: &str) -> Vec<Place> {
    let mut graph = model.graph.clone();
    let cx = PassCx { calibration: Some(&model.inputs), ..PassCx::default() };
    let steps = pipeline(text).unwrap().run(&mut graph, &cx, &mut |_, _| {}).unwrap();
    let of = |(at, step): (usize, &rabot_rewrite::Step)| {
        let one = |made: &rabot_rewrite::Applied| (at, made.rule.to_owned(), made.node.clone());
        step.report.applied.iter().map(one).collect::<Vec<_>>()
    };
    steps.iter().enumerate().flat_map(of).collect()
}

/// The pipeline with faults planted.
fn faulty(text: &str, planted: &[(&Place, Fault)]) -> Pipeline {
    let one = |(at, name): (usize, &str)| {
        let mut pass: Box<dyn Pass> = Box::new(OfPipeline(pipeline(name).unwrap()));
        for ((_, rule, node), fault) in planted.iter().filter(|((step, _, _), _)| *step == at) {
            pass = Box::new(Faulty { inner: pass, rule: rule.clone(), node: node.clone(), fault: *fault });
        }
        pass
    };
    Pipeline::new(text.split(',').enumerate().map(one).collect())
}

/// The one pass of a pipeline.
#[derive(Debug)]
struct OfPipeline(Pipeline);

impl Pass for OfPipeline {
    fn name(&self) -> &'static str {
        self.0.passes()[0].name()
    }

    fn summary(&self) -> &'static str {
        self.0.passes()[0].summary()
    }

    fn exactness(&self) -> rabot_rewrite::Exactness {
        self.0.passes()[0].exactness()
    }

    fn run(
        &self,
        graph: &mut Graph,
        cx: &PassCx<'_>,
    ) -> Result<rabot_rewrite::Report, rabot_rewrite::PassError> {
        self.0.passes()[0].run(graph, cx)
    }
}

fn search(
    model: &Model,
    pipeline: &Pipeline,
    check: &Check,
    edit_plan: Option<&EditPlan>,
) -> Result<Bisection, rabot_debug::DebugError> {
    let profile = Profile::host().unwrap();
    bisect(Subject {
        graph: &model.graph,
        pipeline,
        calibration: &model.inputs,
        strict: false,
        inputs: &model.inputs,
        profile: &profile,
        check,
        edit_plan,
    })
}

/// True if exactly these were found.
fn names(found: &Bisection, planted: &[&Place]) -> bool {
    let there = |(step, rule, node): &&Place| {
        found.rewrites.iter().any(|c| c.key().step == *step && c.rule == *rule && c.node == *node)
    };
    found.rewrites.len() == planted.len() && planted.iter().all(there)
}

fn row(fault: &str, model: &Model, place: String, named: bool, found: &Bisection) -> Row {
    let (evaluations, seconds) = (found.evaluations, found.seconds);
    Row { fault: fault.to_owned(), model: model.name, place, named, evaluations, seconds }
}

fn show(place: &Place) -> String {
    format!("pass {} {}@{}", place.0 + 1, place.1, place.2)
}

/// Plants faults in the rewrites of a pipeline.
fn rewrites(model: &Model, text: &str, faults: &[(&str, Fault)], check: &Check, rows: &mut Vec<Row>) {
    let places = places(model, text);
    for (name, fault) in faults {
        let mut planted = 0;
        for place in places.iter().filter(|(_, rule, _)| check_allows(check, rule)) {
            let Ok(found) = search(model, &faulty(text, &[(place, *fault)]), check, None) else { continue };
            if found.fails && planted < PLACES {
                planted += 1;
                let named = names(&found, &[place]) && found.remedy.as_ref().is_some_and(|r| r.holds);
                if !named {
                    println!("{name} at {}: {found:#?}", show(place));
                }
                rows.push(row(name, model, show(place), named, &found));
            }
            if planted == PLACES {
                break;
            }
        }
    }
}

/// Faults of parameters are of layers in integers.
fn check_allows(check: &Check, rule: &str) -> bool {
    matches!(check, Check::Tolerance) || rule == "int8"
}

/// Two independent faults at once.
fn pairs(model: &Model, rows: &mut Vec<Row>) {
    let places = places(model, DEFAULT_PIPELINE);
    let fault: Fault = FAULTS.iter().find(|(name, _)| *name == "missing condition").unwrap().1;
    let works: Vec<&Place> = places
        .iter()
        .filter(|place| {
            let found = search(model, &faulty(DEFAULT_PIPELINE, &[(place, fault)]), &Check::Tolerance, None);
            found.is_ok_and(|found| found.fails && names(&found, &[place]))
        })
        .take(6)
        .collect();
    for two in works.chunks(2).filter(|two| two.len() == 2 && two[0].2 != two[1].2) {
        let planted: Vec<(&Place, Fault)> = two.iter().map(|place| (*place, fault)).collect();
        let found = search(model, &faulty(DEFAULT_PIPELINE, &planted), &Check::Tolerance, None).unwrap();
        let named = names(&found, two);
        if !named {
            println!("two at {} and {}: {found:#?}", show(two[0]), show(two[1]));
        }
        let place = format!("{} and {}", show(two[0]), show(two[1]));
        rows.push(row("two at once", model, place, named, &found));
    }
}

/// Plants faults in kernels.
fn kernel_faults(model: &Model, rows: &mut Vec<Row>) {
    let pipeline = pipeline(DEFAULT_PIPELINE).unwrap();
    let mut graph = model.graph.clone();
    pipeline.run(&mut graph, &PassCx::default(), &mut |_, _| {}).unwrap();
    let mut staged = rabot_kernel::stages(&graph, &Profile::host().unwrap()).unwrap();
    let Some(plan) = kernels::plan(&mut staged) else { return };
    for (name, fault) in KERNELS {
        let mut planted = 0;
        for at in 0..plan.kernels.len() {
            let right = plan.kernels[at].clone();
            let writes: Vec<String> = plan
                .steps
                .iter()
                .filter_map(|step| match step {
                    PlanStep::Call(call) if call.kernel == at => Some(call.values.clone()),
                    _ => None,
                })
                .flatten()
                .map(|value| value.to_string())
                .collect();
            if writes.is_empty() || !fault(&mut right.clone()) || planted == PLACES {
                continue;
            }
            // Only the same kernel is made wrong: trials have other plans.
            let edit = move |staged: &mut Staged| {
                let Some(plan) = kernels::plan(staged) else { return };
                for kernel in plan.kernels.iter_mut().filter(|kernel| **kernel == right) {
                    fault(kernel);
                }
            };
            let Ok(found) = search(model, &pipeline, &Check::Tolerance, Some(&edit)) else { continue };
            if !found.fails {
                continue;
            }
            planted += 1;
            let among = |culprit: &rabot_debug::bisect::KernelCulprit| writes.contains(&culprit.value);
            let named = found.rewrites.is_empty() && found.kernels.first().is_some_and(among);
            if !named {
                println!("{name} of {writes:?}: {found:#?}");
            }
            rows.push(row(name, model, writes.join(" "), named, &found));
        }
    }
}

#[test]
fn every_planted_fault_is_named() {
    let mut rows = Vec::new();
    for model in &models() {
        rewrites(model, DEFAULT_PIPELINE, &FAULTS, &Check::Tolerance, &mut rows);
        pairs(model, &mut rows);
        kernel_faults(model, &mut rows);
        if model.name == "convolutions" {
            let output = model.graph.outputs()[0].name.to_string();
            let check = Check::Expression(Expression::parse(&format!("sqnr(\"{output}\") > 20")).unwrap());
            rewrites(model, &default_pipeline_with("quantize"), &QUANTIZED, &check, &mut rows);
        }
    }
    println!("{:<28} {:<14} {:<6} {:>5} {:>8}  place", "fault", "model", "named", "evals", "seconds");
    for Row { fault, model, place, named, evaluations, seconds } in &rows {
        println!("{fault:<28} {model:<14} {named:<6} {evaluations:>5} {seconds:>8.3}  {place}");
    }
    let mut times: Vec<f64> = rows.iter().map(|row| row.seconds).collect();
    times.sort_by(f64::total_cmp);
    println!(
        "{} faults, median {:.3} s, longest {:.3} s",
        rows.len(),
        times[times.len() / 2],
        times[times.len() - 1]
    );
    let missed = rows.iter().filter(|row| !row.named).count();
    assert!(rows.len() >= 40, "only {} faults could be planted", rows.len());
    assert_eq!(missed, 0, "{missed} of {} faults were not named", rows.len());
    assert!(times[times.len() / 2] < 5.0 && times[times.len() - 1] < LONGEST);
}
