//! Tests of what a report records.

use super::data::{Number, Run};
use super::{About, Recorder};
use crate::trace::tests::{Sabotage, TEXT, inputs, passes_of};
use crate::{TraceOptions, trace};
use rabot_ir::text::parse;
use rabot_rewrite::PassCx;
use rabot_target::Profile;

fn recorded() -> Run {
    let graph = parse(TEXT).unwrap();
    let mut pipeline = rabot_passes::pipeline("cse").unwrap();
    pipeline.push(Box::new(Sabotage(0.5)));
    pipeline.push(passes_of("group"));
    let options = TraceOptions { values: true, ..TraceOptions::new(Profile::host().unwrap()) };
    let inputs = inputs();
    let mut recorder = Recorder::new(&inputs);
    let found = trace(&graph, &pipeline, &PassCx::default(), &inputs, &options, &mut |step, graph| {
        recorder.visit(step, graph).unwrap();
    });
    let about = About { model: "m.onnx".to_owned(), pipeline: pipeline.to_string() };
    recorder.finish(&found.unwrap(), about, &options, &inputs).unwrap()
}

#[test]
fn stages_hold_what_changed_and_no_more() {
    let run = recorded();
    let named = |at: usize| run.names[at].as_str();
    let passes: Vec<&str> = run.stages.iter().map(|stage| stage.pass.as_str()).collect();
    assert_eq!(passes, ["import", "cse", "sabotage", "group"]);
    let nodes = |stage: usize| run.stages[stage].nodes.iter().map(|node| named(node.id)).collect::<Vec<_>>();
    assert_eq!(nodes(0), ["x", "w", "scaled", "kept"]);
    assert!(nodes(1).is_empty() && run.stages[1].values.is_empty() && run.stages[1].outputs.is_none());
    assert_eq!(nodes(2), ["w"], "its elements are spelled out");
    assert_eq!(run.stages[0].nodes[1].attrs, "[1, 2, 3]");
    assert_eq!(nodes(3), ["scaled", "kept"], "they are one kernel now");
    assert!(run.stages[3].nodes.iter().all(|node| node.group.is_some()));
    let input = run.stages[0].nodes[2].inputs[0].unwrap();
    assert_eq!((named(input.0), input.1), ("x", 0));
}

#[test]
fn values_have_their_distribution_and_their_error() {
    let run = recorded();
    let value = |stage: usize, name: &str| {
        run.stages[stage].values.iter().find(|value| run.names[value.name] == name).cloned()
    };
    let first = value(0, "scaled").unwrap();
    let statistics = first.statistics.unwrap();
    assert_eq!(first.shape, Some(vec![2, 3]));
    assert_eq!((statistics.min, statistics.max), (Number(-9.0), Number(4.0)));
    assert!(first.error.is_none() && value(1, "scaled").is_none());
    let error = value(2, "scaled").unwrap().error.unwrap();
    assert_eq!((error.max, error.injected, error.inherited), (Number(1.0), error.added, Number(0.0)));
    let error = value(2, "kept").unwrap().error.unwrap();
    assert_eq!((error.injected, error.inherited), (Number(0.0), error.added));
    // The next pass adds nothing: the error is told once more, the distribution is not.
    let after = value(3, "scaled").unwrap();
    assert_eq!((after.shape, after.statistics), (None, None));
    assert_eq!(after.error.unwrap().added, Number(0.0));
    assert_eq!(run.stages[2].ledger.verdict, "BREAKS");
}

#[test]
fn kernels_have_sources_times_and_machine_code() {
    let run = recorded();
    let [kernel] = &run.kernels[..] else { panic!("{:?}", run.kernels) };
    let sources: Vec<&str> = kernel.sources.iter().map(|&at| run.names[at].as_str()).collect();
    assert_eq!(sources, ["scaled", "kept"]);
    assert!(kernel.time_ns.is_some());
    let code = &run.code[kernel.code.unwrap()];
    assert!(code.lines > 5 && code.assembly.contains("ret"), "{}", code.assembly);
}
